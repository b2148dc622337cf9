"""The vectors that the input check looks at: of a view alone, and the same on every way into the model."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from tests.confidence.conftest import STORED
from tests.models.tiny import make_inputs, tiny

from crossray.confidence.features import pooled_of_studies
from crossray.data.images import ImageFile
from crossray.data.store import write_dataset
from crossray.data.study import Study
from crossray.generation.files import FileStudy
from crossray.generation.generator import Generator
from crossray.generation.in_memory import write_studies
from crossray.models.registry import list_models


@pytest.mark.parametrize("system", list_models())
def test_a_views_vector_depends_on_that_view_alone(system: str) -> None:
    model = tiny(system)
    both = make_inputs(studies=1)
    mask = both.view_mask.clone()
    mask[:, 1] = False
    alone = replace(both, view_mask=mask, view_position=torch.zeros_like(both.view_position))
    with torch.inference_mode():
        first, second = model.encode(both).pooled, model.encode(alone).pooled
    assert first[0, 0].std() > 0
    assert torch.allclose(first[0, 0], second[0, 0], atol=1e-5)
    assert not torch.allclose(first[0, 1], second[0, 1], atol=1e-3)


def test_a_file_is_as_far_from_the_training_images_on_every_way(calibrated: Path, tmp_path: Path) -> None:
    """From a dataset, as `crossray calibrate` sees it; from the file; and from the service."""
    pixels = np.kron(np.random.default_rng(0).integers(0, 255, (25, 20)), np.ones((9, 9))).astype(np.uint8)
    path = tmp_path / "a.png"
    Image.fromarray(pixels).save(path)
    study = Study("a", "a", "val", "clear .", images=(ImageFile(path, "frontal"),))
    dataset = write_dataset(tmp_path / "data", [study], size=STORED, source={"kind": "folder"}, workers=0)
    generator = Generator.from_pretrained(calibrated, device="cpu")
    assert generator.checker is not None
    ((vectors, _),) = pooled_of_studies(generator.model, dataset, dataset.rows("val"))
    calibrated_on = generator.checker.scores(vectors)["unfamiliar"][0]
    (from_file,) = generator.report_files([[path]])
    decoder = pytest.importorskip("crossray.serving.decoder")
    decoded = decoder._read([path.read_bytes()], generator.stored, 2, False, False)
    (served,) = write_studies(generator, [FileStudy((), decoded.pixels, decoded.positions)], ["a"])
    assert from_file.check is not None and served.check is not None
    assert from_file.check.scores[0]["unfamiliar"] == pytest.approx(calibrated_on, rel=1e-5)
    assert served.check.scores[0]["unfamiliar"] == pytest.approx(calibrated_on, rel=1e-5)


def test_calibration_notes_what_the_dataset_stores(calibrated: Path) -> None:
    assert json.loads((calibrated / "preprocess.json").read_text())["stored"] == STORED
