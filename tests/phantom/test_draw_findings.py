"""Every finding of the catalog: it can be drawn, it is where its mask says, and it grows with its degree."""

import dataclasses
import itertools

import numpy as np
import pytest

from crossray.phantom.catalogue import CATALOGUE
from crossray.phantom.draw import DRAWINGS, draw
from crossray.phantom.masks import decode_runs
from crossray.phantom.scene import Exposure, Finding, Patient, Scene

EMPTY = Scene(seed=21, patient=Patient(age=50), exposure=Exposure(noise=-2.5, marker=False))
#: Findings that move borders: what they displace (vessels, gas, ribs) changes outside their mask too.
MOVING = {"hyperinflation", "low_lung_volumes", "elevated_diaphragm", "kyphosis", "scoliosis"}
CASES = [(name, view) for name, kind in CATALOGUE.items() for view in kind.views]


def _variants(name):
    kind = CATALOGUE[name]
    for place, degree in itertools.product(kind.places or ("",), kind.degrees or ("",)):
        for side in kind.sides_at(place):
            yield Finding(name, side, place, degree)


def _mask(view):
    (finding,) = view.findings
    return decode_runs(finding.runs, finding.height, finding.width)


def _change(finding, view, scene=EMPTY, size=128):
    """The drawn view and its absolute difference from the picture without the finding."""
    drawn = draw(dataclasses.replace(scene, findings=(finding,)), view, size)
    return drawn, abs(drawn.pixels.astype(float) - draw(scene, view, size).pixels)


def test_the_catalogue_and_the_drawings_agree():
    assert set(DRAWINGS) == set(CATALOGUE)


@pytest.mark.parametrize("name", CATALOGUE)
def test_every_variant_is_drawn_in_each_of_its_views(name):
    for seed, finding in enumerate(_variants(name)):
        scene = Scene(seed, findings=(finding,), severity="realistic")
        for view in ("frontal", "lateral"):
            drawn = draw(scene, view, 48)
            if view in CATALOGUE[name].views:
                (mask,) = drawn.findings
                assert (mask.finding, mask.side, mask.place, mask.degree) == (
                    name,
                    finding.side,
                    finding.place,
                    finding.degree,
                )
            else:
                assert drawn.findings == ()


@pytest.mark.parametrize(("name", "view"), CASES)
def test_the_picture_changes_where_the_mask_is(name, view):
    finding = list(_variants(name))[-1]
    drawn, change = _change(finding, view)
    change = np.where(change > 2, change, 0)
    assert change.max() > 4, "the finding is invisible"
    inside = change[_mask(drawn)].sum() / change.sum()
    assert inside > (0.5 if name in MOVING else 0.6)
    assert _mask(drawn).mean() < 0.5


@pytest.mark.parametrize("name", [name for name, kind in CATALOGUE.items() if len(kind.degrees) > 1])
def test_a_higher_degree_is_seen_more(name):
    kind = CATALOGUE[name]
    place = (kind.places or ("",))[0]
    view = kind.views[0]
    totals = []
    for degree in (kind.degrees[0], kind.degrees[-1]):
        finding = Finding(name, kind.sides_at(place)[0], place, degree)
        scenes = [dataclasses.replace(EMPTY, seed=seed) for seed in range(4)]
        totals.append(np.mean([_change(finding, view, scene)[1].sum() for scene in scenes]))
    assert totals[1] > 1.15 * totals[0]


@pytest.mark.parametrize("name", ["pleural_effusion", "nodule", "consolidation", "edema", "pneumothorax"])
def test_doubt_is_fainter(name):
    certain = list(_variants(name))[-1]
    doubted = dataclasses.replace(certain, status="uncertain")
    seen, faint = (_change(finding, "frontal") for finding in (certain, doubted))
    assert 0 < faint[1].sum() < 0.75 * seen[1].sum()
    assert faint[0].findings[0].status == "uncertain"


def test_easy_findings_stand_out_more():
    finding = Finding("nodule", "left", "upper_lobe", "moderate")
    totals = [
        np.sort(_change(finding, "frontal", dataclasses.replace(EMPTY, severity=severity))[1].ravel())[-60:].mean()
        for severity in ("realistic", "easy")
    ]
    assert totals[1] > 1.2 * totals[0]


def test_bilateral_is_seen_on_both_sides():
    drawn, _ = _change(Finding("pleural_effusion", "bilateral", "", "moderate"), "frontal")
    mask = _mask(drawn)
    assert mask[:, : mask.shape[1] // 2].any()
    assert mask[:, mask.shape[1] // 2 :].any()


def test_findings_keep_the_order_of_the_scene():
    findings = (Finding("pacemaker", "left"), Finding("edema", degree="mild"), Finding("kyphosis", degree="mild"))
    scene = dataclasses.replace(EMPTY, findings=findings)
    assert [f.finding for f in draw(scene, "frontal", 64).findings] == ["pacemaker", "edema"]
    assert [f.finding for f in draw(scene, "lateral", 64).findings] == ["pacemaker", "edema", "kyphosis"]
