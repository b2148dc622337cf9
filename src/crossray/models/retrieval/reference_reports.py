"""Builds the report database of a model from the training split of a dataset."""

import hashlib
from collections.abc import Sequence
from dataclasses import asdict

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from crossray.data.batches.features import FeatureCache, build_features
from crossray.data.batches.transform import ImageTransform
from crossray.data.store import Dataset, layout
from crossray.models.pretraining.knowledge_encoder import KnowledgeEncoder
from crossray.retrieval.database import ReportDatabase
from crossray.text.sentences import split_sentences
from crossray.text.tokenizer import Tokenizer

#: Wording of an entity's presence in a local prompt, absent first.
EXISTENCE = ("absent", "present")


def read_training_reports(
    dataset: Dataset,
    knowledge: KnowledgeEncoder,
    transform: ImageTransform,
    tokenizer: Tokenizer,
    *,
    section: str,
    views: int,
    sentences: int,
    local_prompt: str,
    features: FeatureCache | None = None,
    store_reports: bool = False,
    device: torch.device | str = "cpu",
) -> ReportDatabase:
    """Build the database of a dataset's training studies; encoded images and texts are cached in the dataset.

    Args:
        dataset: dataset of which the training split is used.
        knowledge: encoder of images and texts.
        transform: image transform of the retrieving model.
        tokenizer: tokenizer whose cleaner is applied to the reports.
        section: section of the reports; studies without it are omitted.
        views: maximum number of views per study.
        sentences: maximum number of sentences per report.
        local_prompt: template of a local prompt, with {entity}, {place} and {existence}.
        features: cached features of the images, used if they include the entities.
        store_reports: also store the texts of the reports.
        device: device for encoding the images.

    Returns:
        The database of R reports.
    """
    encoder = knowledge.fingerprint()
    identity = {
        "encoder": encoder, "dataset": dataset.info.sha256, "transform": asdict(transform), "section": section,
        "cleaner": tokenizer.cleaner, "views": views, "sentences": sentences, "local_prompt": local_prompt,
        "store_reports": store_reports,
    }  # fmt: skip
    name = hashlib.sha256(layout.json_bytes(identity)).hexdigest()[:16]
    path = dataset.features_path(f"reports-{name}.safetensors")
    if path.exists():
        return ReportDatabase.load(path)
    rows = dataset.rows("train")
    texts = [tokenizer.clean(report) for report in dataset.reports(rows, section)]
    kept = [place for place, text in enumerate(texts) if text.strip(" .")]
    rows, texts = rows[kept], [texts[place] for place in kept]
    if features is None or "entities" not in features.names:
        features = build_features(dataset, knowledge, transform, encoder, device=device, dtype="float32")
    split = [split_sentences(text)[:sentences] for text in texts]
    different = sorted({sentence for report in split for sentence in report})
    place_of = {sentence: place for place, sentence in enumerate(different)}
    sentence_rows = np.full((len(rows), max(map(len, split), default=1)), -1, np.int32)
    for row, report in enumerate(split):
        sentence_rows[row, : len(report)] = [place_of[sentence] for sentence in report]
    patients, studies = dataset.patients(rows), dataset.ids(rows)
    owners = [patient or study for patient, study in zip(patients, studies, strict=True)]
    labels = dataset.labels
    database = ReportDatabase(
        entities=_entities(dataset, features, rows, views),
        labels=torch.from_numpy(labels[rows]) if labels is not None else torch.zeros(len(rows), 0, dtype=torch.int8),
        groups=torch.from_numpy(np.unique(owners, return_inverse=True)[1].astype(np.int64)),
        reports=_encoded(knowledge, texts),
        sentences=_encoded(knowledge, different),
        sentence_rows=torch.from_numpy(sentence_rows),
        phrases=_phrases(knowledge, local_prompt),
        studies=studies,
        texts=texts if store_reports else (),
        encoder=encoder,
    )
    path.parent.mkdir(exist_ok=True)
    database.save(path)
    return database


def _entities(dataset: Dataset, features: FeatureCache, rows: NDArray[np.int64], views: int) -> Tensor:
    """Log-odds (R, E), averaged over each study's views."""
    return torch.stack([
        features.read(np.array(dataset.views(row)[:views], np.int64))["entities"].mean(dim=0) for row in rows.tolist()
    ])  # fmt: skip


def _encoded(knowledge: KnowledgeEncoder, texts: Sequence[str]) -> Tensor:
    return knowledge.encode_texts(texts).half().cpu()


def _phrases(knowledge: KnowledgeEncoder, local_prompt: str) -> Tensor:
    """Text vectors (E, P, 2, D) of each entity at each place, absent and present."""
    texts = [
        local_prompt.format(entity=_words(entity), place=_words(place), existence=existence)
        for entity in knowledge.entities for place in knowledge.places for existence in EXISTENCE
    ]  # fmt: skip
    shape = (len(knowledge.entities), len(knowledge.places), len(EXISTENCE))
    return _encoded(knowledge, texts).unflatten(0, shape)


def _words(name: str) -> str:
    return name.replace("_", " ")
