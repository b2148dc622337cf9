"""The report of the training study whose images the encoder finds most alike: what retrieval alone is worth."""

import numpy as np
from numpy.typing import NDArray

from crossray.data.store import Dataset
from crossray.evaluation.labelers import RuleLabeler
from crossray.evaluation.metrics.statistics import measure
from crossray.evaluation.predictions import PredictionFile
from crossray.evaluation.statistics.significance import scores_of
from crossray.models.base import ReportModel
from crossray.text.cleaning import clean
from steps import Bench

#: Name of its row.
NEAREST_FEATURES = "nearest image by the encoder's features"


def nearest_by_features(bench: Bench, system: str, seed: int) -> dict[str, dict[str, float]]:
    """Scores by protocol of the nearest training study's report.

    Alike is the cosine between the views' mean pooled features, each channel standardized over the training images.

    Args:
        bench: what is scored.
        system: a system over the encoder, whose predictions name the studies.
        seed: its seed.
    """
    file = PredictionFile.load(bench.predictions(system, seed))
    dataset = Dataset.open(bench.data)
    cache = ReportModel.from_pretrained(bench.run(system, seed) / "best").cached_features(dataset)
    if cache is None:
        raise SystemExit(f"{bench.data}: the features of {system} are gone; train it again")
    place = {study: row for row, study in enumerate(dataset.ids(np.arange(dataset.studies)))}
    rows = np.array([place[row.id] for row in file.rows])
    training = dataset.rows("train")

    def vectors(studies: NDArray[np.int64]) -> NDArray[np.float64]:
        of = [cache.read(np.array(dataset.views(int(row))[:2]))["pooled"].double().mean(0).numpy() for row in studies]
        return np.stack(of)

    offered, wanted = vectors(training), vectors(rows)
    mean, deviation = offered.mean(0), offered.std(0) + 1e-6
    offered, wanted = (offered - mean) / deviation, (wanted - mean) / deviation
    offered /= np.linalg.norm(offered, axis=1, keepdims=True)
    nearest = training[(wanted @ offered.T).argmax(1)]
    section, cleaner = file.provenance.section, file.provenance.cleaner
    reports = [clean(text, cleaner) for text in dataset.reports(nearest, section)]
    references = {name: file.references(name) for name in file.protocols()}
    measured = measure({NEAREST_FEATURES: reports}, references, labeler=RuleLabeler())
    return {name: scores_of(measured.statistics[name, NEAREST_FEATURES]) for name in references}
