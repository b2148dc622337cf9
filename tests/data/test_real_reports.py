"""The true IU X-Ray annotation and the real radiographs behave as docs/data and docs/reference say.

The golden values were computed outside the package, with R2Gen's published tokenizer on the same file. The hashes stand
for texts that must not enter the repository.
"""

import hashlib
import io
import re
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from crossray.data.images import read_image
from crossray.data.sources.r2gen import read_r2gen
from crossray.data.study import SPLITS, Study
from crossray.errors import UserError
from crossray.text.cleaning import clean
from crossray.text.sentences import split_sentences
from crossray.text.tokenizer import Tokenizer

pytestmark = pytest.mark.real_data


@pytest.fixture(scope="module")
def studies(real_data: Path) -> dict[str, list[Study]]:
    read = read_r2gen(real_data / "iu_xray" / "annotation.json", real_data / "iu_xray" / "images")
    return {split: [study for study in read if study.split == split] for split in SPLITS}


def reports(studies: Iterable[Study]) -> list[str]:
    return [study.findings for study in studies]


def digest(lines: Iterable[str]) -> str:
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def test_the_split_is_r2gens(studies: dict[str, list[Study]]) -> None:
    assert {split: len(entries) for split, entries in studies.items()} == {"train": 2069, "val": 296, "test": 590}
    assert all(len(study.images) == 2 for entries in studies.values() for study in entries)


@pytest.mark.parametrize(
    ("split", "expected", "average"),
    [
        ("train", "f9523b088f156b89086bd9af5dac699070b237d5740e55087ffb4e0a00695cf6", 36.449),
        ("val", "33d3582f0ad3797c2a34b2d5502ce3415bc41faa5d786e7c963b439cfeef224b", 35.716),
        ("test", "a44f8729b59d8fc772c9fccd29a217e160f0640a62fe80149d3038aaf997938e", 32.508),
    ],
)
def test_legacy_cleaning_is_bit_exact(
    studies: dict[str, list[Study]], split: str, expected: str, average: float
) -> None:
    cleaned = [clean(report, "legacy") for report in reports(studies[split])]
    assert digest(cleaned) == expected
    assert np.mean([len(report.split()) for report in cleaned]) == pytest.approx(average, abs=5e-4)


def test_vocabulary_at_threshold_three_is_r2gens(studies: dict[str, list[Study]]) -> None:
    train = reports(studies["train"])
    legacy = Tokenizer.train(train, legacy_ids=True)
    assert legacy.vocabulary_size == 761  # 759 words, <unk> and the id 0
    assert digest(legacy.tokens[1:]) == "0eaa237aa135f9e3404d18cb750d97def3077673b3fdf63857a4e1c700be59e1"
    assert legacy.unk_id == 18
    assert Tokenizer.train(train).vocabulary_size == 763
    assert Tokenizer.train(train, min_count=4).vocabulary_size == 651 + 4
    assert Tokenizer.train(train, min_count=1).vocabulary_size == 1501 + 4


def test_reports_that_do_not_fit_sixty_tokens(studies: dict[str, list[Study]]) -> None:
    tokenizer = Tokenizer.train(reports(studies["train"]))
    truncated = {
        split: sum(len(tokenizer.encode(report, 1000)) > 60 for report in reports(entries))
        for split, entries in studies.items()
    }
    assert truncated == {"train": 178, "val": 25, "test": 33}
    assert all(tokenizer.encode(report, 60)[-1] == tokenizer.eos_id for report in reports(studies["test"]))


def test_share_of_anonymised_reports(studies: dict[str, list[Study]]) -> None:
    hidden = {
        split: sum("xxxx" in clean(report, "legacy") for report in reports(entries))
        for split, entries in studies.items()
    }
    assert hidden == {"train": 907, "val": 108, "test": 212}
    assert sum(hidden.values()) / 2955 == pytest.approx(0.415, abs=5e-4)


def test_unknown_words(studies: dict[str, list[Study]]) -> None:
    tokenizer = Tokenizer.train(reports(studies["train"]))
    unknown = {
        split: sum(tokenizer.encode(report, 1000).count(tokenizer.unk_id) for report in reports(entries))
        for split, entries in studies.items()
    }
    assert unknown == {"train": 958, "val": 156, "test": 221}


@pytest.mark.parametrize(
    "options", [{}, {"legacy_ids": True}, {"cleaner": "fixed"}, {"kind": "wordpiece", "size": 1500}]
)
def test_every_true_report_comes_back(studies: dict[str, list[Study]], options: dict[str, object]) -> None:
    tokenizer = Tokenizer.train(reports(studies["train"]), **{"min_count": 1, **options})  # type: ignore[arg-type]
    for report in reports(studies["train"]):
        assert tokenizer.decode(tokenizer.encode(report, 1000)) == " ".join(tokenizer.clean(report).split())


def test_fixed_keeps_what_legacy_loses(studies: dict[str, list[Study]]) -> None:
    train = reports(studies["train"])
    assert sum(any("." in word[1:-1] for word in clean(report, "legacy").split()) for report in train) == 0
    raw = [set(re.findall(r"\d+\.\d+", report)) for report in train]
    assert sum(bool(numbers) for numbers in raw) == 25
    assert all(numbers <= set(clean(report, "fixed").split()) for numbers, report in zip(raw, train, strict=True))
    for report in train:
        cleaned = clean(report, "fixed")
        assert clean(cleaned, "fixed") == cleaned
        assert cleaned == "".join(f"{sentence} . " for sentence in split_sentences(cleaned)).strip()


def test_the_four_complete_studies_are_read(studies: dict[str, list[Study]]) -> None:
    complete = []
    for study in (study for entries in studies.values() for study in entries):
        try:
            views = [reference.read(128) for reference in study.images]
        except UserError as error:
            assert "no such image file" in str(error)
        else:
            complete.append(study.id)
            assert all(min(view.pixels.shape) == 128 and view.pixels.std() > 20 for view in views)
    assert set(complete) == {"CXR7_IM-2263", "CXR1900_IM-0584", "CXR383_IM-1932", "CXR368_IM-1832"}


def test_every_real_radiograph_is_read_also_tinted_and_in_colour(real_data: Path) -> None:
    files = sorted(path for kind in ("png", "jpg") for path in real_data.glob(f"*/images/**/*.{kind}"))
    assert len(files) >= 500
    for number, path in enumerate(files):
        pixels = read_image(path)
        assert min(pixels.shape) in (256, 512)
        if number % 10:
            continue
        for tint in ((1, 1, 1), (1.0, 0.9, 0.75), (0.85, 0.95, 1.0)):
            stream = io.BytesIO()
            Image.fromarray((pixels[..., None] * np.array(tint)).astype(np.uint8)).save(stream, "JPEG", quality=70)
            assert read_image(stream.getvalue(), path.stem).shape == pixels.shape
