"""The reports against a small keyword reader that was written without looking at the phrases' structure."""

import dataclasses
import re

import numpy as np
import pytest

from crossray.phantom.catalogue import CATALOGUE
from crossray.phantom.report import write_report
from crossray.phantom.sample import sample_scene
from crossray.phantom.scene import Finding, Scene

# What a reader would look for to find each kind named.
WORDS = {
    "cardiomegaly": r"cardiomegaly|enlarg\w* .*(heart|cardiac)|(heart|cardiac).*(enlarg|increased)",
    "mediastinal_widening": r"mediastin.*wid|wid.*mediastin",
    "hilar_enlargement": r"hil.*(enlarge|prominen|full)|(enlarge|prominen).*hil",
    "tortuous_aorta": r"tortuo.*aorta|aorta.*tortu|unfold",
    "aortic_calcification": r"calci.*aort|aort.*(calcif|atheroscl)|atheroscl.*aort",
    "hiatal_hernia": r"hernia",
    "pleural_effusion": r"effusion|pleural fluid",
    "costophrenic_blunting": r"blunt",
    "pleural_thickening": r"pleura.*thicken|thicken.*pleura",
    "pneumothorax": r"pneumothorax",
    "elevated_diaphragm": r"hemidiaphragm",
    "opacity": r"opacit|airspace disease",
    "consolidation": r"consolidat(?!.*pneumonia)(?<!pneumonia with consolidat)(?<!pneumonic consolidat)",
    "pneumonia": r"pneumonia",
    "atelectasis": r"atelecta",
    "edema": r"edema",
    "interstitial_markings": r"interstitial",
    "scarring": r"\bscar",
    "nodule": r"nodul",
    "mass": r"\bmass",
    "granuloma": r"granuloma",
    "hyperinflation": r"hyperinfl|hyperexp",
    "low_lung_volumes": r"hypoinfl|volumes.*low|low lung volumes",
    "emphysema": r"emphysem",
    "spine_degeneration": r"degenerat|spondylo|osteophyte",
    "scoliosis": r"scolio",
    "kyphosis": r"kypho",
    "vertebral_fracture": r"compression",
    "rib_fracture": r"\bribs?\b.*fracture|fracture.*\bribs?\b",
    "sternotomy_wires": r"sternotomy",
    "pacemaker": r"pacemaker",
    "central_line": r"venous|central line",
    "endotracheal_tube": r"endotracheal",
    "enteric_tube": r"enteric|nasogastric",
    "chest_tube": r"chest tube",
    "surgical_clips": r"clips",
}
DENIES = re.compile(r"^(no|negative for|absence of|there is no|acute osseous injury is absent)\b|\b(is|are) not\b")
NORMAL = re.compile(r"normal|unremarkable|within normal limits|clear|intact\.$|midline\.")
DOUBTS = re.compile(r"possible|cannot be|may |question|suspect|difficult to exclude")


def sentences(report):
    return [sentence.strip().lower() for sentence in re.split(r"(?<=\.)\s+", report)]


def named(sentence):
    return {kind for kind, words in WORDS.items() if re.search(words, sentence)}


def asserted(report):
    """Kind -> sentences that state it, denials and statements of normality left out."""
    result = {}
    for sentence in sentences(report):
        if DENIES.search(sentence):
            continue
        for kind in named(sentence):
            if kind not in NORMAL_CONTEXT or not NORMAL.search(sentence):
                result.setdefault(kind, []).append(sentence)
    return result


# Words of these kinds may stand in a sentence that says that all is well.
NORMAL_CONTEXT = {"cardiomegaly", "mediastinal_widening", "hilar_enlargement"}


def write(scene, split, index=0):
    return write_report(scene, split, np.random.default_rng((7, index)))


@pytest.fixture(scope="module")
def written():
    """(scene, split, report) of 1,800 studies: every finding in every split."""
    cases = []
    for index in range(1200):
        scene = sample_scene(11, index, "realistic" if index % 4 else "easy")
        cases.append((scene, ("train", "test", "val")[index % 3]))
    for round_ in range(6):
        for number, (name, kind) in enumerate(CATALOGUE.items()):
            place = kind.places[round_ % len(kind.places)] if kind.places else ""
            sides = kind.sides_at(place)
            degree = kind.degrees[round_ % len(kind.degrees)] if kind.degrees else ""
            finding = Finding(name, sides[(number + round_) % len(sides)], place, degree)
            cases.append((Scene(round_, findings=(finding,)), ("train", "test")[round_ % 2]))
    return [(scene, split, write(scene, split, number)) for number, (scene, split) in enumerate(cases)]


def test_mentions_every_finding_and_asserts_no_other(written):
    for scene, _, report in written:
        truth = {finding.name for finding in scene.findings}
        assert set(asserted(report.findings)) == truth, report.findings


def test_denies_nothing_that_is_there(written):
    denials = 0
    for scene, _, report in written:
        truth = {finding.name for finding in scene.findings}
        for sentence in filter(DENIES.search, sentences(report.findings)):
            denials += 1
            assert not named(sentence) & truth, report.findings
            if "consolidation" in sentence:
                assert not truth & {"consolidation", "pneumonia"}
    assert denials > len(written) / 2


def test_calls_nothing_normal_that_is_not(written):
    clear = re.compile(
        r"\b((?<!remaining )lungs are (well expanded and )?clear( bilaterally)?\.|both lungs are clear|^clear lungs)"
    )
    lung = {"opacity", "consolidation", "pneumonia", "atelectasis", "edema", "nodule", "mass", "scarring"}
    for scene, _, report in written:
        truth = {finding.name for finding in scene.findings}
        for sentence in sentences(report.findings):
            if re.search(r"heart|cardiac|cardiomediastinal", sentence) and NORMAL.search(sentence):
                assert "cardiomegaly" not in truth, report.findings
            if clear.search(sentence):
                assert not truth & lung, report.findings
            if re.search(r"bon[ey]|osseous|skelet", sentence):
                assert not truth & {"rib_fracture", "vertebral_fracture"}, report.findings


def test_names_the_side_and_no_other(written):
    for scene, _, report in written:
        stated = asserted(report.findings)
        for finding in scene.findings:
            text = " ".join(stated[finding.name])
            words = set(re.findall(r"left|right|bilateral\w*|both|bibasilar|biapical", text))
            if finding.side == "bilateral":
                assert words - {"left", "right"}, text
            elif finding.side and finding.place not in ("lingula", "retrocardiac"):
                assert words == {finding.side}, text


def test_doubts_what_is_uncertain_and_nothing_else(written):
    for scene, _, report in written:
        stated = asserted(report.findings)
        for finding in scene.findings:
            doubted = all(DOUBTS.search(sentence) for sentence in stated[finding.name])
            assert doubted == (finding.status == "uncertain"), report.findings
        assert any(DOUBTS.search(s) for s in sentences(report.findings)) == any(
            finding.status == "uncertain" for finding in scene.findings
        )


def test_impression_says_normal_exactly_when_nothing_but_devices_is_there(written):
    for scene, _, report in written:
        findings = {finding.name for finding in scene.findings if not CATALOGUE[finding.name].is_device}
        normal = bool(re.search(r"no acute|no active|negative|without acute", report.impression.lower()))
        assert normal == (not findings), report.impression
        if findings:
            concluded = set(asserted(report.impression))
            assert concluded
            assert concluded <= findings
        assert report.indication


def shape(sentence):
    """A sentence with a blank for each run of words that come from the finding: side, place, degree, article."""
    slots = (
        r"left|right|bilateral(ly)?|both|bi(basilar|apical)|basilar|apical|hilar|lingula(r)?|retrocardiac|lobes?|upper|"
        r"middle|lower|lung|apex|apices|bases?|hil(um|a)|in|at|the|region|on|an?|diffuse|throughout|along|"
        r"minimal(ly)?|mild(ly)?|moderate(ly)?|severe(ly)?|marked(ly)?|borderline|trace|tiny|small|medium-sized|large|"
        r"faint|subtle|dense|extensive"
    )
    singular = sentence.replace("ies", "y").replace(" are ", " is ")
    words = re.sub(rf"(\s*\b({slots})\b)+", " _ ", re.sub(r"[.,]", " ", singular))
    return " ".join(re.sub(r"(?<!i)s\b", "", words).split())


def test_test_split_uses_phrasings_that_training_never_shows():
    for name, kind in CATALOGUE.items():
        place = kind.places[0] if kind.places else ""
        finding = Finding(name, kind.sides_at(place)[0], place, kind.degrees[0] if kind.degrees else "")
        scene = Scene(0, findings=(finding,))
        seen = {
            split: {
                shape(sentence)
                for index in range(150)
                for sentence in asserted(write(scene, split, index).findings)[name]
            }
            for split in ("train", "test")
        }
        assert len(seen["train"]) >= 5, (name, seen["train"])
        assert seen["test"] - seen["train"], name
        assert seen["train"] & seen["test"], name


def test_training_never_shows_a_reserved_phrasing_of_denials_and_normal_statements(written):
    def all_shapes(splits):
        return {
            shape(sentence)
            for scene, split, report in written
            if split in splits and not scene.findings
            for sentence in sentences(report.findings)
            if "no " not in sentence
        }

    assert "absence" not in " ".join(all_shapes(("train",)))
    assert len(all_shapes(("test", "val")) - all_shapes(("train",))) >= 5


def test_language_varies(written):
    normal = [report.findings for scene, split, report in written if not scene.findings and split == "train"]
    assert len(set(normal)) > 0.8 * len(normal)
    first = {re.sub(r"\W.*", "", text.lower()) for text in normal}
    assert len(first) >= 4


def test_length_is_that_of_a_report(written):
    words = np.array([len(report.findings.split()) for _, _, report in written])
    assert words.min() >= 12
    assert words.max() <= 65
    assert 20 <= np.median(words) <= 40


def test_reads_well(written):
    for _, _, report in written:
        for text in (report.findings, report.impression, report.indication):
            assert "{" not in text
            assert not re.search(r"  | \.|\.\.|,,| ,", text), text
            assert not re.search(r"\b[Aa] [aeio]|\b[Aa]n [^aeio]", text), text
            assert all(sentence[:1].isupper() for sentence in re.split(r"(?<=\.)\s+", text)), text


def test_is_a_function_of_its_arguments():
    scene = sample_scene(0, 3, "realistic")
    assert write(scene, "test", 1) == write(scene, "test", 1)
    assert write(scene, "test", 1) != write(scene, "test", 2)
    assert write(scene, "train", 1) == write(dataclasses.replace(scene, seed=99), "train", 1)
