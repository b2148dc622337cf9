"""Grounding with planted attention: what it must score is known."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from rich.console import Console
from tests.analysis.seer import Seer

from crossray.analysis.grounding import Target, cell_means, mass, pointing, score, statistics
from crossray.analysis.grounding_targets import DrawnFindings, find_targets, ground, in_square, mean_lungs, priors
from crossray.data.batches.loading import Collator
from crossray.data.batches.transform import ImageTransform, transform_inputs
from crossray.data.store import Dataset, write_dataset
from crossray.decoding.config import DecodingConfig
from crossray.errors import UserError
from crossray.pages.grounding_table import grids, print_grounding, save_grounding
from crossray.phantom.source import phantom_studies
from crossray.text.observations import label_report

SIDE = 8
REPORT = "cardiomegaly . pleural effusion . pacemaker . no pneumothorax ."
#: Observation that each word of the report states; None where it states none that is drawn.
STATES = [
    "cardiomegaly", None, "pleural_effusion", "pleural_effusion", None, "support_devices", None, None, None, None
]  # fmt: skip
GREEDY = DecodingConfig(method="greedy", max_length=20)


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    folder = tmp_path_factory.mktemp("phantom") / "data"
    return write_dataset(folder, phantom_studies(120, 3, "easy"), size=96, source={"kind": "phantom"}, workers=0)


def seer(dataset: Dataset, transform: ImageTransform, planted: str) -> Seer:
    """A model that looks at what it names ("masks"), everywhere alike ("even"), or at an upper corner ("corner")."""
    drawn = DrawnFindings(dataset, transform)
    rows = dataset.rows("test")
    inputs = transform_inputs(Collator(dataset, None, views=2).inputs(rows), transform, train=False)
    attention = torch.ones(len(rows), len(STATES), 2, SIDE, SIDE)
    for number, row in enumerate(rows.tolist()):
        for word, observation in enumerate(STATES):
            for view in range(len(dataset.views(row))):
                mask = None if observation is None else drawn.mask(row, view, observation)
                if planted == "masks" and mask is not None:
                    attention[number, word, view] = torch.from_numpy(cell_means(mask, SIDE)).float()
    if planted == "corner":
        attention.zero_()[..., 0, 0] = 1
    attention = attention.flatten(2)
    return Seer(REPORT, inputs.images[:, 0].mean(dim=(1, 2, 3)), attention / attention.sum(-1, keepdim=True), transform)


TRANSFORMS = [ImageTransform(size=64, resize=72), ImageTransform(size=64, resize=72, squash=False)]


def test_the_report_states_what_this_test_believes() -> None:
    stated = {piece.observation for piece in label_report(REPORT).evidence if piece.status == "positive"}
    assert stated == {name for name in STATES if name}


@pytest.mark.parametrize("transform", TRANSFORMS, ids=["squash", "crop"])
def test_attention_on_the_masks_scores_one_and_falls_when_it_is_shuffled(
    dataset: Dataset, transform: ImageTransform
) -> None:
    result = ground(seer(dataset, transform, "masks"), GREEDY, dataset, "test", resamples=200)
    model, shuffled, even = result.sources[:3]
    assert result.targets >= 15
    assert model.scores["pointing"].value == 1.0
    # cells are larger than what they hold, above all those of thin tubes and wires
    assert next(part for part in result.parts if part.name == "cardiomegaly").scores["mass"] > 0.6
    assert shuffled.name == "shuffled attention"
    for metric in ("pointing", "mass"):
        assert shuffled.differences[metric].low > 0
        assert even.differences[metric].low > 0


def test_even_attention_has_the_mass_of_the_area(dataset: Dataset) -> None:
    model = seer(dataset, TRANSFORMS[0], "even")
    targets = find_targets(model, GREEDY, dataset, "test")
    result = ground(model, GREEDY, dataset, "test", resamples=50)
    area = np.mean([target.mask.mean() for target in targets])
    ours, shuffled, even = result.sources[:3]
    assert ours.scores["mass"].value == pytest.approx(area, abs=1e-6)
    assert shuffled.scores == ours.scores
    assert even.scores["mass"].value == pytest.approx(area, abs=1e-6)
    assert even.differences["pointing"].value == 0


def test_only_what_is_stated_and_drawn_is_a_target(dataset: Dataset) -> None:
    found = {
        (t.study, t.observation, t.view)
        for t in find_targets(seer(dataset, TRANSFORMS[0], "even"), GREEDY, dataset, "test")
    }
    table = dataset.findings()
    assert table is not None
    kinds = {"cardiomegaly": "cardiomegaly", "pleural_effusion": "pleural_effusion"}
    kinds |= dict.fromkeys(("pacemaker", "sternotomy_wires", "chest_tube"), "support_devices")
    places = {int(row): number for number, row in enumerate(dataset.rows("test"))}
    expected = {
        (places[row["study"]], kinds[row["finding"]], ("frontal", "lateral")[row["view"]])
        for row in table.select(["study", "view", "finding"]).to_pylist()
        if row["study"] in places and row["finding"] in kinds
    }
    assert found == expected


def test_drawn_reports_do_not_depend_on_the_batch(dataset: Dataset) -> None:
    model = seer(dataset, TRANSFORMS[0], "even")
    drawn = DecodingConfig(method="sample", max_length=20, temperature=20.0)
    one, several = (
        [(t.study, t.observation, t.view) for t in find_targets(model, drawn, dataset, "test", batch_size=size)]
        for size in (1, 5)
    )
    assert one == several
    assert one


def test_attention_to_nothing_scores_nothing(dataset: Dataset) -> None:
    result = ground(seer(dataset, TRANSFORMS[0], "corner"), GREEDY, dataset, "test", resamples=50)
    assert result.sources[0].scores["pointing"].value == 0
    assert result.sources[0].scores["mass"].value < 0.01
    centre = next(source for source in result.sources if source.name == "centre")
    assert centre.scores["pointing"].value > 0.2


@pytest.mark.parametrize("transform", TRANSFORMS, ids=["squash", "crop"])
@pytest.mark.parametrize("shape", [(96, 96), (96, 131), (120, 96)])
def test_a_mask_goes_the_way_of_the_pixels(transform: ImageTransform, shape: tuple[int, int]) -> None:
    """The oracle is the transform itself, applied to a picture of the mask."""
    mask = np.zeros(shape, bool)
    mask[shape[0] // 5 : shape[0] // 2, shape[1] // 2 : -shape[1] // 4] = True
    plain = ImageTransform(transform.size, transform.resize, transform.squash, mean=(0, 0, 0), std=(1, 1, 1))
    pixels = torch.from_numpy(mask)[None, None].to(torch.uint8) * 255
    shown = plain.apply(pixels, torch.tensor([shape]), train=False)[0, 0].numpy() > 0.5
    ours = in_square(mask, transform, transform.size)
    assert (shown & ours).sum() / (shown | ours).sum() > 0.93


class TestMeasures:
    MASK = np.zeros((28, 28), bool)
    MASK[8:12, 8:12] = True  # the whole third cell of a 7 x 7 grid

    @staticmethod
    def at(row: int, column: int) -> np.ndarray:
        attention = np.full((7, 7), 0.01)
        attention[row, column] = 1.0
        return attention

    def test_pointing(self) -> None:
        assert pointing(self.at(2, 2), self.MASK) == 1
        assert pointing(self.at(2, 3), self.MASK) == 0  # its cell only touches the mask
        assert pointing(np.ones((7, 7)), self.MASK) == pytest.approx(1 / 49)
        fine = np.zeros((28, 28))
        fine[13, 10] = 1  # 1.5 pixels below; two are tolerated
        assert pointing(fine, self.MASK) == 1
        fine[13, 10], fine[15, 10] = 0, 1
        assert pointing(fine, self.MASK) == 0

    def test_mass(self) -> None:
        assert mass(np.ones((7, 7)), self.MASK) == pytest.approx(self.MASK.mean())
        assert mass(self.at(2, 2), self.MASK) == pytest.approx(1 / 1.48)
        assert mass(np.ones((1, 1)), self.MASK) == pytest.approx(self.MASK.mean())

    def test_scores_are_means_over_targets(self) -> None:
        hit, miss = (Target(study, "edema", "frontal", self.MASK, self.at(2, at)) for study, at in ((0, 2), (1, 5)))
        found = statistics([hit, hit, replace(miss, study=7)])
        assert found.count.tolist() == [2, 1]
        resampled = found.weighted_scores(np.array([[1.0, 1], [0, 2]]))
        assert resampled["pointing"].tolist() == [pytest.approx(2 / 3), 0]

    def test_studies_without_targets_do_not_widen_the_interval(self) -> None:
        targets = [Target(study, "edema", "frontal", self.MASK, self.at(2, 2)) for study in (3, 50)]
        found = score(targets, 1000, {}, resamples=200).sources[0].scores["pointing"]
        assert (found.low, found.value, found.high) == (1, 1, 1)

    def test_shuffling_prefers_the_same_observation(self) -> None:
        targets = [
            Target(0, "edema", "frontal", self.MASK, self.at(2, 2)),
            Target(1, "edema", "frontal", self.MASK, self.at(2, 2)),
            Target(2, "fracture", "frontal", self.MASK, self.at(6, 6)),
        ]
        shuffled = score(targets, 3, {}, resamples=10).sources[1]
        assert shuffled.scores["pointing"].value == 1  # the fracture, too, is given the attention of the edemas


def test_lungs_are_where_lungs_are() -> None:
    frontal = mean_lungs("frontal", ImageTransform(size=64, resize=64))
    assert 0.15 < frontal.mean() < 0.5
    assert frontal[100, 60] > 0.9 < frontal[100, 164]
    assert frontal[100, 112] < 0.5  # the mediastinum
    assert frontal[10].max() < 0.05 > frontal[215].max()


def test_a_usual_place_is_that_of_the_training_studies(dataset: Dataset) -> None:
    usual = DrawnFindings(dataset, TRANSFORMS[0]).usual_places({"cardiomegaly"})
    heart = usual["cardiomegaly", "frontal"]
    rows, columns = np.nonzero(heart > 0.5)
    assert 0.4 < rows.mean() / len(heart) < 0.75
    assert 0.4 < columns.mean() / len(heart) < 0.65
    maps = priors(7, TRANSFORMS[0], usual)
    target = Target(0, "cardiomegaly", "frontal", heart > 0.5, np.ones((7, 7)))
    assert mass(maps["usual place"](target), target.mask) > 2 * mass(maps["everywhere alike"](target), target.mask)
    assert {name: prior(target).shape for name, prior in maps.items()} == dict.fromkeys(maps, (7, 7))


def test_tables_and_file(dataset: Dataset, tmp_path: Path) -> None:
    result = ground(seer(dataset, TRANSFORMS[0], "masks"), GREEDY, dataset, "test", resamples=50)
    compared, parts = grids("seer", result)
    assert [line[0] for line in compared.lines] == [
        "model", "shuffled attention", "everywhere alike", "center", "lungs", "usual place"
    ]  # fmt: skip
    assert {line[0] for line in parts.lines} == {"frontal", "lateral", *filter(None, STATES)}
    save_grounding({"seer": result}, dataset, "test", tmp_path / "new" / "grounding.json")
    saved = json.loads((tmp_path / "new" / "grounding.json").read_text())
    assert saved["models"]["seer"]["sources"][0]["scores"]["pointing"]["value"] == 1.0


def test_a_model_that_names_nothing_is_no_mistake(capsys: pytest.CaptureFixture[str]) -> None:
    result = score([], 3, {})
    assert result.targets == 0
    print_grounding("mute", result, Console())
    assert "mute: none of 3 reports states a finding" in capsys.readouterr().out


def test_mistakes_are_said(dataset: Dataset, tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    for file in dataset.path.iterdir():
        if file.name != "findings.parquet":
            (tmp_path / "data" / file.name).symlink_to(file)
    with pytest.raises(UserError, match=r"findings\.parquet is missing"):
        DrawnFindings(Dataset.open(tmp_path / "data"), TRANSFORMS[0])
    silent = seer(dataset, TRANSFORMS[0], "even")
    silent.memory_cells = lambda views, positions: None  # type: ignore[assignment, method-assign]
    with pytest.raises(UserError, match="has no attention over"):
        ground(silent, GREEDY, dataset, "test")
