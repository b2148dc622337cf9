import csv

import pytest

from crossray.phantom.catalogue import CATALOGUE
from crossray.phantom.scene import DEGREES, Finding
from crossray.phantom.tag_rules import HEADING_DEGREES, IMPLIED, LOCATIONS, RULES, SEVERAL_KINDS
from crossray.phantom.tags import coverage, scene_from_tags, split_tags


def findings(tags, seed=0):
    return scene_from_tags(tags, seed).findings


@pytest.mark.parametrize(
    ("tag", "finding"),
    [
        ("Cardiomegaly/mild", Finding("cardiomegaly", "", "", "mild")),
        ("Cardiomegaly/borderline", Finding("cardiomegaly", "", "", "minimal")),
        ("Cardiac Shadow/enlarged/severe", Finding("cardiomegaly", "", "", "severe")),
        ("Opacity/lung/upper lobe/left/mild", Finding("opacity", "left", "upper_lobe", "mild")),
        (
            "Opacity/lung/base/bilateral/interstitial/mild",
            Finding("interstitial_markings", "bilateral", "base", "mild"),
        ),
        ("Density/lung/lower lobe/right/round/small", Finding("nodule", "right", "lower_lobe", "mild")),
        ("Pulmonary Atelectasis/lingula/mild", Finding("atelectasis", "left", "lingula", "mild")),
        ("Airspace Disease/lung/middle lobe/severe", Finding("opacity", "right", "middle_lobe", "severe")),
        ("Pleural Effusion/left/large", Finding("pleural_effusion", "left", "", "severe")),
        ("Pneumothorax/right/apex/small", Finding("pneumothorax", "right", "apex", "mild")),
        ("Calcified Granuloma/lung/hilum/right/small", Finding("granuloma", "right", "hilum", "mild")),
        ("Calcinosis/lung/hilum/lymph nodes/left/large", Finding("granuloma", "left", "hilum", "moderate")),
        ("Calcinosis/mediastinum/lymph nodes/mild", Finding("granuloma", "", "mediastinum", "mild")),
        ("Calcinosis/aorta/mild", Finding("aortic_calcification", "", "", "mild")),
        ("Aorta, Thoracic/tortuous/mild", Finding("tortuous_aorta", "", "", "mild")),
        ("Thoracic Vertebrae/degenerative/moderate", Finding("spine_degeneration", "", "", "moderate")),
        ("Deformity/thoracic vertebrae/mild", None),
        ("Scoliosis/thoracic vertebrae/right/severe", Finding("scoliosis", "right", "", "severe")),
        ("Diaphragm/right/elevated/mild", Finding("elevated_diaphragm", "right", "", "mild")),
        ("Diaphragm/bilateral/flattened/mild", Finding("hyperinflation", "", "", "mild")),
        ("Lung/hypoinflation/severe", Finding("low_lung_volumes", "", "", "severe")),
        ("Pulmonary Congestion", Finding("edema", "", "", "minimal")),
        ("Implanted Medical Device/left", Finding("pacemaker", "left")),
        ("Tube, Inserted/trachea", Finding("endotracheal_tube")),
        ("Surgical Instruments/abdomen/right", Finding("surgical_clips", "right", "upper_abdomen")),
        ("Cicatrix/lung/apex/bilateral/mild", Finding("scarring", "bilateral", "apex", "mild")),
    ],
)
def test_draws_side_place_and_degree_of_a_tag(tag, finding):
    scene = scene_from_tags(tag, 3)
    assert scene.undrawn == ()
    assert len(scene.findings) == 1
    if finding is not None:
        assert scene.findings[0] == finding


def test_one_sided_kinds_are_drawn_on_both_sides_of_a_bilateral_tag():
    drawn = findings("Nodule/lung/base/bilateral/small")
    assert set(drawn) == {Finding("nodule", side, "base", "mild") for side in ("left", "right")}
    assert {finding.side for finding in findings("Diaphragm/bilateral/elevated")} == {"left", "right"}
    assert {f.side for f in findings("Opacity/lung/base/left/right/mild")} == {"bilateral"}


def test_every_named_place_is_drawn():
    drawn = findings("Opacity/lung/middle lobe/lingula/bilateral/mild")
    assert set(drawn) == {
        Finding("opacity", "right", "middle_lobe", "mild"),
        Finding("opacity", "left", "lingula", "mild"),
    }


def test_a_compound_tag_draws_both_its_findings():
    assert {f.name for f in findings("Hydropneumothorax/right/large")} == {"pleural_effusion", "pneumothorax"}
    assert {f.side for f in findings("Hydropneumothorax/right/large")} == {"right"}


def test_multiple_granulomas_are_several():
    drawn = findings("Calcified Granuloma/lung/multiple")
    assert len(drawn) == 3
    assert len({finding.place for finding in drawn}) == 3


@pytest.mark.parametrize(
    "tag",
    [
        "Stents/coronary vessels",
        "Opacity/abdomen",  # not in the lung
        "Nodule/ribs/left",
        "Implanted Medical Device/aortic valve",
        "Pulmonary Atelectasis/lingula/right",  # the right lung has no lingula
        "Cardiac Shadow/right/obscured",
        "Mediastinum/right/enlarged",  # a side that would not be drawn
        "Pneumothorax/left/heart",
        "Diaphragm/left/obscured",
        "A heading of the future/left",
    ],
)
def test_lists_what_it_cannot_draw_as_named(tag):
    scene = scene_from_tags(f"{tag};Cardiomegaly/mild", 0)
    assert scene.undrawn == (tag,)
    assert [finding.name for finding in scene.findings] == ["cardiomegaly"]


@pytest.mark.parametrize("tags", ["normal", "No Indexing", "Technical Quality of Image Unsatisfactory ", "", " ; "])
def test_tags_without_an_abnormal_finding_give_an_empty_scene(tags):
    scene = scene_from_tags(tags, 0)
    assert (scene.findings, scene.undrawn, split_tags(tags)) == ((), (), [])


def test_what_tags_leave_open_comes_from_the_seed():
    tags = "Calcified Granuloma;Pleural Effusion;Cardiomegaly"
    scenes = [scene_from_tags(tags, seed) for seed in range(40)]
    assert scenes[5] == scene_from_tags(tags, 5)
    assert len({scene.findings for scene in scenes}) > 10
    assert {scene.findings[1].side for scene in scenes} == {"left", "right", "bilateral"}
    assert len({scene.patient for scene in scenes}) == 40


def test_equal_findings_are_drawn_once():
    assert len(findings("Aorta/tortuous;Aorta, Thoracic/tortuous;Cardiomegaly;Cardiac Shadow/enlarged")) == 2


def test_coverage_counts_occurrences():
    counts = coverage(["normal", "Cardiomegaly/mild;Stents", "Stents ;Cardiomegaly;No Indexing", "Sarcoidosis"])
    assert (counts.abnormal, counts.drawn) == (5, 2)
    assert list(counts.undrawn.items()) == [("Stents", 2), ("Sarcoidosis", 1)]
    assert counts.share == pytest.approx(0.4)
    assert coverage([]).share == 1.0


def test_rules_speak_the_catalogue_s_language():
    kinds = {kind for rules in RULES.values() for _, names in rules for kind in names}
    assert kinds | set(IMPLIED) | SEVERAL_KINDS <= set(CATALOGUE)
    assert {place for places in LOCATIONS.values() for place in places} <= {
        place for kind in CATALOGUE.values() for place in kind.places
    }
    assert {location for locations in IMPLIED.values() for location in locations} <= set(LOCATIONS)
    assert all(heading == heading.lower() for heading in (*RULES, *LOCATIONS, *HEADING_DEGREES))


@pytest.fixture(scope="module")
def mesh(real_data):
    with (real_data / "iu_xray" / "indiana_reports.csv").open(encoding="utf-8", newline="") as file:
        return [row["MeSH"] for row in csv.DictReader(file)]


@pytest.mark.real_data
def test_draws_three_quarters_of_the_abnormal_tags_of_iu_xray(mesh):
    counts = coverage(mesh)
    # Counted apart from `split_tags`: all tags of the file less those that name no finding.
    tags = [tag.strip() for study in mesh for tag in study.split(";")]
    absent = ("normal", "No Indexing", "Technical Quality of Image Unsatisfactory")
    assert counts.abnormal == len(tags) - sum(tag in absent for tag in tags) == 6391
    top = ", ".join(f"{tag} ({count})" for tag, count in list(counts.undrawn.items())[:25])
    assert counts.share >= 0.75, f"{counts.share:.3f} of {counts.abnormal} drawn; most frequent undrawn: {top}"


@pytest.mark.real_data
def test_every_scene_of_iu_xray_shows_the_sides_of_its_tags_within_the_catalogue(mesh):
    for number, tags in enumerate(mesh):
        scene = scene_from_tags(tags, number)
        for finding in scene.findings:
            kind = CATALOGUE[finding.name]
            assert finding.place in (kind.places or ("",)), tags
            assert finding.side in kind.sides_at(finding.place), tags
            assert finding.degree in (kind.degrees or ("",)), tags
        for tag in set(split_tags(tags)) - set(scene.undrawn):
            alone = scene_from_tags(tag, number).findings
            assert alone, tag
            for side, other in (("left", "right"), ("right", "left")):
                if f"/{side}" in tag and f"/{other}" not in tag and "/bilateral" not in tag:
                    assert {finding.side for finding in alone} == {side}, tag
            degree = [part for part in tag.split("/") if part in DEGREES]
            fitting = [f for f in alone if degree and degree[0] in CATALOGUE[f.name].degrees]
            assert all(finding.degree == degree[0] for finding in fitting), tag
