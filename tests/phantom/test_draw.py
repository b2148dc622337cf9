"""The drawn pictures: determinism, layout, exposure, extremes."""

import dataclasses
from concurrent.futures import ProcessPoolExecutor

import numpy as np
import pytest

from crossray.errors import UserError
from crossray.phantom.draw import draw
from crossray.phantom.masks import decode_runs, encode_runs
from crossray.phantom.scene import Exposure, Finding, Patient, Scene

VIEWS = ("frontal", "lateral")
SCENE = Scene(
    seed=5,
    exposure=Exposure(marker=False),
    findings=(Finding("pleural_effusion", "left", degree="moderate"), Finding("pacemaker", "left")),
)


def _drawn(view):
    return draw(SCENE, view, 96)


@pytest.mark.parametrize("view", VIEWS)
def test_same_scene_same_picture_in_every_process(view):
    here = draw(SCENE, view, 96)
    draw(dataclasses.replace(SCENE, seed=6), view, 64)  # what was drawn before must not matter
    with ProcessPoolExecutor(1) as pool:
        there = pool.submit(_drawn, view).result()
    for other in (there, draw(SCENE, view, 96)):
        assert np.array_equal(here.pixels, other.pixels)
        assert here.findings == other.findings


@pytest.mark.parametrize("view", VIEWS)
def test_other_seed_other_texture(view):
    other = draw(dataclasses.replace(SCENE, seed=6), view, 96).pixels
    assert not np.array_equal(draw(SCENE, view, 96).pixels, other)


@pytest.mark.parametrize("view", VIEWS)
@pytest.mark.parametrize("size", [32, 100, 256])
def test_short_side_is_the_size(view, size):
    drawn = draw(SCENE, view, size)
    assert drawn.pixels.dtype == np.uint8
    assert min(drawn.pixels.shape) == size
    for finding in drawn.findings:
        assert (finding.height, finding.width) == drawn.pixels.shape
        assert sum(finding.runs) == drawn.pixels.size


@pytest.mark.parametrize("view", VIEWS)
def test_layout_does_not_depend_on_the_size(view):
    """A large picture, averaged down, is the small picture but for noise and antialiasing."""
    scene = dataclasses.replace(SCENE, exposure=Exposure(noise=-2.5, blur=0.0, marker=False))
    small, large = draw(scene, view, 64), draw(scene, view, 256)
    height, width = small.pixels.shape
    rows = np.linspace(0, large.pixels.shape[0], height + 1).astype(int)
    averaged = np.add.reduceat(large.pixels.astype(float), rows[:-1], 0) / np.diff(rows)[:, None]
    averaged = averaged.reshape(height, width, 4).mean(2)
    assert np.corrcoef(averaged.ravel(), small.pixels.ravel())[0, 1] > 0.985
    assert abs(averaged - small.pixels).mean() < 6
    for a, b in zip(small.findings, large.findings, strict=True):
        assert a.finding == b.finding
        shares = [decode_runs(m.runs, m.height, m.width).mean() for m in (a, b)]
        assert shares[0] == pytest.approx(shares[1], rel=0.25, abs=0.012)  # wires are at least a pixel wide


def test_the_patients_left_is_at_the_right_of_a_frontal_picture():
    for side, higher in (("left", 1), ("right", 0)):
        scene = Scene(
            3, exposure=Exposure(marker=False), findings=(Finding("consolidation", side, "lower_lobe", "severe"),)
        )
        (finding,) = draw(scene, "frontal", 128).findings
        columns = np.nonzero(decode_runs(finding.runs, finding.height, finding.width))[1]
        assert (columns.mean() > 64) == bool(higher)


def test_the_heart_lies_to_the_left_and_lungs_are_dark():
    pixels = draw(Scene(1, exposure=Exposure(marker=False), severity="easy"), "frontal", 128).pixels.astype(float)
    row = pixels[70]
    left_of_middle, right_of_middle = row[64 - 22 : 64 - 10].mean(), row[64 + 10 : 64 + 22].mean()
    assert right_of_middle > left_of_middle
    lungs, abdomen = pixels[45:55, 25:40].mean(), pixels[115:, 40:90].mean()
    assert lungs < 0.65 * abdomen
    assert pixels[:6, :20].mean() < 20  # air beside the neck


@pytest.mark.parametrize("view", VIEWS)
@pytest.mark.parametrize("sign", [-1, 1])
def test_extreme_patients_are_neither_black_nor_white(view, sign):
    extreme = 4.0 * sign
    scene = Scene(
        11,
        Patient(extreme, extreme, extreme, female=sign > 0, age=18 if sign < 0 else 95),
        Exposure(extreme, extreme, extreme, extreme, 30 * sign, 15 * sign, extreme, "ap" if sign > 0 else "pa"),
    )
    pixels = draw(scene, view, 128).pixels
    body = pixels[pixels > 8]
    assert body.size > 0.25 * pixels.size
    assert np.percentile(body, 95) - np.percentile(body, 5) > 60
    assert (pixels >= 254).mean() < 0.25


def test_exposure_brightens_and_adds_noise():
    def at(**values):
        return draw(Scene(2, exposure=Exposure(marker=False, **values)), "frontal", 128).pixels.astype(float)

    assert at(gain=1.5).mean() > at().mean() + 5 > at(gain=-1.5).mean() + 10
    rough = [abs(np.diff(at(noise=level)[60:110], axis=1)).mean() for level in (-2, 0, 2)]
    assert rough[0] < rough[1] < rough[2]


def test_unknown_requests_are_refused():
    with pytest.raises(UserError, match="at least 16"):
        draw(SCENE, "frontal", 8)
    with pytest.raises(UserError, match="frontal or lateral"):
        draw(SCENE, "oblique", 64)
    with pytest.raises(UserError, match="not in the catalog"):
        draw(Scene(0, findings=(Finding("unicorn"),)), "frontal", 64)


@pytest.mark.parametrize("first", [False, True])
def test_runs_round_trip(first):
    mask = np.random.default_rng(0).random((13, 17)) < 0.4
    mask[0, 0] = first
    runs = encode_runs(mask)
    assert (runs[0] == 0) == first
    assert np.array_equal(decode_runs(runs, 13, 17), mask)
    assert encode_runs(np.zeros((2, 3), dtype=bool)) == (6,)
