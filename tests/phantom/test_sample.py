import subprocess
import sys
from collections import Counter

import pytest

from crossray.phantom.catalogue import CATALOGUE, LATERAL
from crossray.phantom.sample import sample_scene, split_of

COUNT = 3000


@pytest.fixture(scope="module")
def scenes():
    return [sample_scene(5, index, "realistic") for index in range(COUNT)]


@pytest.fixture(scope="module")
def easy_scenes():
    return [sample_scene(5, index, "easy") for index in range(600)]


def test_depends_on_seed_and_index_alone():
    there = [sample_scene(1, index, "realistic") for index in range(20)]
    back = [sample_scene(1, index, "realistic") for index in reversed(range(20))]
    assert there == back[::-1]
    assert there != [sample_scene(2, index, "realistic") for index in range(20)]
    assert len({scene.seed for scene in there}) == 20


def test_another_process_draws_the_same_scene():
    code = "from crossray.phantom.sample import sample_scene; print(sample_scene(3, 14, 'realistic'))"
    printed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert printed.strip() == repr(sample_scene(3, 14, "realistic"))


def test_findings_are_possible(scenes, easy_scenes):
    for scene in (*scenes, *easy_scenes):
        for finding in scene.findings:
            kind = CATALOGUE[finding.name]
            assert finding.place in (kind.places or ("",))
            assert finding.side in kind.sides_at(finding.place)
            assert finding.degree in (kind.degrees or ("",))
        names = [finding.name for finding in scene.findings]
        assert len(names) == len(set(names))
        assert not {"hyperinflation", "low_lung_volumes"} <= set(names)


def test_nearly_half_of_realistic_studies_are_normal(scenes):
    assert 0.38 < sum(not scene.findings for scene in scenes) / COUNT < 0.52


def test_prevalence_follows_the_catalogue_with_a_long_tail(scenes):
    shares = Counter(finding.name for scene in scenes for finding in scene.findings)
    for name, kind in CATALOGUE.items():
        # Companions add, conflicts and crowding take away.
        assert 0.4 * kind.prevalence <= shares[name] / COUNT <= 2.2 * kind.prevalence + 0.004, name
    assert sum(shares[name] / COUNT < 0.012 for name in CATALOGUE) >= 5
    assert sum(0.05 < shares[name] / COUNT < 0.16 for name in CATALOGUE) >= 7


@pytest.mark.parametrize(
    ("finding", "companion"),
    [
        ("edema", "cardiomegaly"),
        ("edema", "pleural_effusion"),
        ("sternotomy_wires", "surgical_clips"),
        ("endotracheal_tube", "enteric_tube"),
        ("pneumothorax", "chest_tube"),
    ],
)
def test_findings_come_together(scenes, finding, companion):
    names = [{finding.name for finding in scene.findings} for scene in scenes]
    overall = sum(companion in each for each in names) / COUNT
    beside = [companion in each for each in names if finding in each]
    assert sum(beside) / len(beside) > 2 * overall


def test_some_findings_are_doubtful_and_those_are_faint(scenes):
    doubtful = [finding for scene in scenes for finding in scene.findings if finding.status == "uncertain"]
    total = sum(len(scene.findings) for scene in scenes)
    assert 0.03 < len(doubtful) / total < 0.12
    assert all(finding.degree == (*CATALOGUE[finding.name].degrees, "")[0] for finding in doubtful)


def test_bedside_pictures_show_nothing_that_needs_the_lateral_view(scenes):
    bedside = [scene for scene in scenes if scene.exposure.position == "ap"]
    assert 0.03 < len(bedside) / COUNT < 0.12
    assert all(CATALOGUE[finding.name].views != (LATERAL,) for scene in bedside for finding in scene.findings)


def test_easy_scenes_have_few_and_strong_findings_without_doubt(easy_scenes, scenes):
    for scene in easy_scenes:
        assert len(scene.findings) <= 2
        assert all(finding.status == "positive" for finding in scene.findings)
        assert all(finding.degree in ("", *CATALOGUE[finding.name].degrees[-2:]) for finding in scene.findings)
    assert 0.25 < sum(not scene.findings for scene in easy_scenes) / len(easy_scenes) < 0.5
    easy = max(abs(scene.exposure.gain) for scene in easy_scenes)
    assert easy < 0.5 * max(abs(scene.exposure.gain) for scene in scenes)


def test_old_patients_have_more_degeneration(scenes):
    def share(selected):
        return sum(any(f.name == "spine_degeneration" for f in scene.findings) for scene in selected) / len(selected)

    old = [scene for scene in scenes if scene.patient.age > 65]
    young = [scene for scene in scenes if scene.patient.age < 40]
    assert share(old) > 2 * share(young)


def test_splits_are_exact_in_every_ten_and_enough_for_testing():
    splits = [split_of(9, index) for index in range(600)]
    assert Counter(splits) == {"train": 420, "val": 60, "test": 120}
    assert Counter(splits[30:40]) == {"train": 7, "val": 1, "test": 2}
    assert splits != [split_of(10, index) for index in range(600)]
    assert splits[:10] != splits[10:20] or splits[:10] != splits[20:30]
