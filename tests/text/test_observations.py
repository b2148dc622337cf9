"""The rule-based labeler: conventions, evidence, and what must hold for every text."""

from pathlib import Path

import numpy as np
import pytest
import yaml
from benchmarks.labeler_quality import CLASSES, PRESENT, read_gold, scores, widened
from hypothesis import given, settings
from hypothesis import strategies as st

from crossray.text.cleaning import CLEANERS, clean
from crossray.text.observations import (
    CHEXPERT,
    LABELER,
    LABELER_VERSION,
    OBSERVATIONS,
    STATUSES,
    label_report,
    label_reports,
)

STRENGTH = ("blank", "negative", "uncertain", "positive")

# One list of texts for the properties: what they say is known, here it only has to be varied.
POOL: list[str] = [
    entry["text"]
    for entry in yaml.safe_load(Path(__file__).with_name("observation_sentences.yaml").read_text(encoding="utf-8"))
]
texts = st.lists(st.sampled_from(POOL), min_size=1, max_size=6)


def labels(report: str) -> dict[str, str]:
    """What is not blank, but for "no_finding"."""
    found = dict(zip(OBSERVATIONS, label_report(report).statuses, strict=True))
    return {name: status for name, status in found.items() if status != "blank" and name != "no_finding"}


@pytest.mark.parametrize(
    ("report", "expected"),
    [
        # lists and their ends
        ("No mass, effusion or fracture.", {"lung_lesion": "negative", "pleural_effusion": "negative",
                                            "fracture": "negative"}),
        ("No effusion, the heart is enlarged.", {"pleural_effusion": "negative", "cardiomegaly": "positive"}),
        ("No effusion is seen, and mild edema is.", {"pleural_effusion": "negative", "edema": "positive"}),
        ("No pneumothorax, stable left effusion.", {"pneumothorax": "negative", "pleural_effusion": "positive"}),
        ("Edema and effusion are not seen.", {"edema": "negative", "pleural_effusion": "negative"}),
        ("There is edema and effusion is not seen.", {"edema": "positive", "pleural_effusion": "negative"}),
        ("Possible edema, large effusion.", {"edema": "uncertain", "pleural_effusion": "positive"}),
        ("May be edema, pneumonia, or atelectasis.", {"edema": "uncertain", "pneumonia": "uncertain",
                                                      "atelectasis": "uncertain"}),
        ("No opacity to suggest pneumonia.", {"lung_opacity": "negative", "pneumonia": "negative"}),
        ("Opacity suggesting pneumonia.", {"lung_opacity": "positive", "pneumonia": "uncertain"}),
        ("No edema, but effusion cannot be excluded.", {"edema": "negative", "pleural_effusion": "uncertain"}),
        ("Pneumonia is possible.", {"pneumonia": "uncertain"}),
        ("The opacity is possibly pneumonia.", {"lung_opacity": "positive", "pneumonia": "uncertain"}),
        ("Edema or infection.", {"edema": "uncertain", "pneumonia": "uncertain"}),
        ("Right edema/infection.", {"edema": "positive", "pneumonia": "positive"}),
        # a structure and what is said of it
        ("Heart and mediastinum are normal.", {"cardiomegaly": "negative", "enlarged_cardiomediastinum": "negative"}),
        ("Cardiac silhouette enlarged, mediastinum normal.", {"cardiomegaly": "positive",
                                                              "enlarged_cardiomediastinum": "negative"}),
        ("Normal heart size and aortic ectasia.", {"cardiomegaly": "negative", "aorta_abnormal": "positive"}),
        ("The heart is not enlarged.", {"cardiomegaly": "negative"}),
        ("The heart is borderline enlarged.", {"cardiomegaly": "uncertain"}),
        ("Heart size at the upper limits of normal.", {"cardiomegaly": "negative"}),
        ("Lungs: clear. Pleura: no effusion.", {"lung_opacity": "negative", "pleural_effusion": "negative"}),
        ("The lungs are not entirely clear.", {"lung_opacity": "positive"}),
        ("Heart size is normal to mildly enlarged.", {"cardiomegaly": "positive"}),
        ("It is possible that the heart is enlarged.", {"cardiomegaly": "uncertain"}),
        ("Low lung volumes.", {"lung_volume_abnormal": "positive"}),
        ("Elevation of the left hemidiaphragm.", {"hemidiaphragm_abnormal": "positive"}),
        ("The aorta is tortuous and calcified.", {"aorta_abnormal": "positive"}),
        ("Bones are intact.", {"bone_spine_abnormal": "negative"}),
        ("Normal heart size and mediastinal contours.", {"cardiomegaly": "negative",
                                                          "enlarged_cardiomediastinum": "negative"}),
        ("Normal heart size and tortuous aorta.", {"cardiomegaly": "negative", "aorta_abnormal": "positive"}),
        ("There is an interval increase in heart size.", {"cardiomegaly": "positive"}),
        ("Nodule seen on the frontal view, not identified on the lateral view.", {"lung_lesion": "positive"}),
        ("The collapsed left upper lobe is unchanged.", {"atelectasis": "positive"}),
        ("Streaks in the midlung, which may represent residual airspace disease, atelectasis, or fibrosis.",
         {"lung_opacity": "uncertain", "atelectasis": "uncertain"}),
        # signs, answers and short forms
        ("Pneumothorax (-). Effusion (+).", {"pneumothorax": "negative", "pleural_effusion": "positive"}),
        ("(-) pneumothorax, (+) effusion", {"pneumothorax": "negative", "pleural_effusion": "positive"}),
        ("Effusion\uff08\uff0d\uff09", {"pleural_effusion": "negative"}),
        ("Pneumothorax -\nEffusion +", {"pneumothorax": "negative", "pleural_effusion": "positive"}),
        ("PTX neg, effusion pos", {"pneumothorax": "negative", "pleural_effusion": "positive"}),
        ("Pneumothorax: Absent. Effusion: Present.", {"pneumothorax": "negative", "pleural_effusion": "positive"}),
        ("PNEUMOTHORAX: No pneumothorax. EFFUSION: Big.", {"pneumothorax": "negative", "pleural_effusion": "positive"}),
        ("Pneumothorax? No. Effusion? Yes.", {"pneumothorax": "negative", "pleural_effusion": "positive"}),
        ("Pneumonia?", {"pneumonia": "uncertain"}),
        ("Opacity, ?pneumonia", {"lung_opacity": "positive", "pneumonia": "uncertain"}),
        ("Edema (?)", {"edema": "uncertain"}),
        ("Lungs w/o consolidation or effusion.", {"consolidation": "negative", "pleural_effusion": "negative"}),
        ("Opacity c/w pneumonia.", {"lung_opacity": "positive", "pneumonia": "positive"}),
        ("Absent pneumothorax.", {"pneumothorax": "negative"}),
        # letters and breaks
        ("Small e\ufb00usion.", {"pleural_effusion": "positive"}),
        ("Pneumo\u00adthorax, \uff45\uff44\uff45\uff4d\uff41.", {"pneumothorax": "positive", "edema": "positive"}),
        ("No consolidation\nLarge effusion", {"consolidation": "negative", "pleural_effusion": "positive"}),
        ("* No consolidation\n* large effusion", {"consolidation": "negative", "pleural_effusion": "positive"}),
        ("No consolidation<br>Large effusion", {"consolidation": "negative", "pleural_effusion": "positive"}),
        ("There is no effusion or\nPneumothorax.", {"pleural_effusion": "negative", "pneumothorax": "negative"}),
        # conventions
        ("Vascular congestion.", {"edema": "positive"}),
        ("Vascular congestion without edema.", {"edema": "negative"}),
        ("Hydropneumothorax.", {"pneumothorax": "positive", "pleural_effusion": "positive"}),
        ("Pericardial effusion.", {}),
        ("Blunting of the left costophrenic angle.", {}),
        ("Calcified granuloma.", {}),
        ("History of pneumonia.", {}),
        ("INDICATION: Cough, edema. FINDINGS: No effusion.", {"pleural_effusion": "negative"}),
        ("Compression fracture.", {"fracture": "positive", "bone_spine_abnormal": "positive"}),
        ("Pneumothorax, which was seen before, has resolved.", {"pneumothorax": "negative"}),
        ("Effusion, if any, is small.", {"pleural_effusion": "uncertain"}),
        ("Chest tube has been removed.", {"support_devices": "negative"}),
        ("Resolving pneumonia.", {"pneumonia": "positive"}),
        ("Left effusion, resolved.", {"pleural_effusion": "negative"}),
        ("Right pneumothorax, now resolved.", {"pneumothorax": "negative"}),
        ("Effusion resolved.", {"pleural_effusion": "negative"}),
        ("Stable cardiomegaly, resolved edema.", {"cardiomegaly": "positive", "edema": "negative"}),
        ("Cardiomegaly with resolved edema.", {"cardiomegaly": "positive", "edema": "negative"}),
        ("Pneumonia resolved with residual atelectasis.", {"pneumonia": "negative", "atelectasis": "positive"}),
        ("A pneumothorax cannot be seen.", {"pneumothorax": "negative"}),
        ("Pneumonia is less likely.", {"pneumonia": "uncertain"}),
        ("Pneumonia is not likely.", {"pneumonia": "uncertain"}),
        ("Pneumonia unlikely.", {"pneumonia": "uncertain"}),
        ("Atelectasis, pneumonia felt less likely.", {"atelectasis": "positive", "pneumonia": "uncertain"}),
        ("Pneumonia is highly unlikely.", {"pneumonia": "uncertain"}),
        ("Unlikely pneumonia, mild edema.", {"pneumonia": "uncertain", "edema": "positive"}),
        ("Low probability of pneumonia.", {"pneumonia": "uncertain"}),
        ("Opacity unlikely to represent pneumonia.", {"lung_opacity": "positive", "pneumonia": "uncertain"}),
        ("Not clear whether pneumonia is present.", {"pneumonia": "uncertain"}),
        ("Removed PICC line.", {"support_devices": "negative"}),
        ("Removed right IJ line.", {"support_devices": "negative"}),
        ("Chest tube removed with small pneumothorax.", {"support_devices": "negative", "pneumothorax": "positive"}),
        ("Cardiomegally with effussion.", {"cardiomegaly": "positive", "pleural_effusion": "positive"}),
        ("There are no XXXX of a pleural effusion.", {"pleural_effusion": "negative"}),
    ],
)  # fmt: skip
def test_conventions(report: str, expected: dict[str, str]) -> None:
    assert labels(report) == expected


@pytest.mark.parametrize(
    ("report", "status"),
    [
        ("No acute disease.", "positive"),
        ("Pacemaker. The lungs are clear.", "positive"),
        ("The aorta is tortuous.", "positive"),  # CheXpert does not know it
        ("Possible pneumonia.", "blank"),
        ("Rib fracture.", "blank"),
        ("", "blank"),
        (" .", "blank"),
    ],
)
def test_no_finding_is_chexperts(report: str, status: str) -> None:
    assert label_report(report).status("no_finding") == status


def test_evidence_is_the_mention_that_decided() -> None:
    report = "No effusion on the left. Possible effusion.\n\nLARGE RIGHT EFFUSION; İ the heart, again, is enlarged"
    found = label_report(report)
    assert [(entry.observation, entry.status, report[entry.start : entry.end]) for entry in found.evidence] == [
        ("pleural_effusion", "positive", "EFFUSION"),
        ("cardiomegaly", "positive", "heart, again, is enlarged"),
    ]
    assert found.status("pleural_effusion") == "positive"


def test_many_reports_are_labelled_like_one() -> None:
    codes = label_reports(POOL)
    assert codes.dtype == np.int8
    assert codes.tolist() == [list(label_report(report).codes) for report in POOL]
    assert label_reports([]).shape == (0, len(OBSERVATIONS))
    assert len(CHEXPERT) == 14
    assert LABELER == "crossray-rules"
    assert LABELER_VERSION.isdigit()


@given(texts, st.data())
@settings(max_examples=150, deadline=None)
def test_case_and_white_space_change_nothing(parts: list[str], data: st.DataObject) -> None:
    report = " ".join(parts)
    gaps = data.draw(st.lists(st.sampled_from([" ", "   ", "\t", "\u00a0", " \u2003 "]), min_size=1, max_size=9))
    cases = data.draw(st.lists(st.sampled_from([str.upper, str.lower, str.title, str]), min_size=1, max_size=7))
    words = [cases[place % len(cases)](word) for place, word in enumerate(report.split())]
    changed = "".join(word + gaps[place % len(gaps)] for place, word in enumerate(words))
    assert label_report(changed).codes == label_report(report).codes


@given(texts)
@settings(max_examples=150, deadline=None)
def test_a_report_says_the_strongest_of_its_sentences(parts: list[str]) -> None:
    together = label_report(" ".join(parts))
    alone = [label_report(part) for part in parts]
    for name in OBSERVATIONS:
        if name != "no_finding":
            assert together.status(name) == max((one.status(name) for one in alone), key=STRENGTH.index)
    assert together.status("no_finding") == min((one.status("no_finding") for one in alone), key=STRENGTH.index)


@given(texts)
@settings(max_examples=100, deadline=None)
def test_every_label_has_evidence_and_its_text_is_a_mention(parts: list[str]) -> None:
    report = " ".join(parts)
    found = label_report(report)
    for entry in found.evidence:
        assert entry.status == found.status(entry.observation)
        assert label_report(report[entry.start : entry.end]).status(entry.observation) != "blank"
    named = {entry.observation for entry in found.evidence}
    assert named == set(labels(report))


def test_evidence_lies_in_the_text_as_it_was_given() -> None:
    report = "No mass.<br/>Small e\ufb00usion, \u200bpneumo\u00adthorax"
    spans = {entry.observation: report[entry.start : entry.end] for entry in label_report(report).evidence}
    assert spans["pleural_effusion"] == "e\ufb00usion"
    assert spans["pneumothorax"].strip("\u200b") == "pneumo\u00adthorax"


@given(st.text() | st.text("no heart is enlarged , . ; - ( ) / : \n vs. ", max_size=200))
@settings(max_examples=200, deadline=None)
def test_any_text_has_labels_with_places_in_it(report: str) -> None:
    found = label_report(report)
    assert all(0 <= entry.start < entry.end <= len(report) for entry in found.evidence)
    assert all(0 <= code < len(STATUSES) for code in found.codes)


@pytest.mark.parametrize("cleaner", CLEANERS)
def test_cleaned_reports_say_the_same(cleaner: str) -> None:
    """Cleaners join words at a slash and lose colons; all else must read alike."""
    plain = [report for report in POOL if not set("/:;-()") & set(report)]
    assert len(plain) > 120
    different = [report for report in plain if labels(clean(report, cleaner)) != labels(report)]
    assert different == []


@pytest.mark.parametrize(
    "piece",
    ["no effusion or ", "heart and ", "not definitely ", "a", ".", "\n ", "vs.", "\u0130\ufffd", "enlarged heart ",
     "cannot be excluded ", "effusion, "],
)  # fmt: skip
def test_hostile_text_ends(piece: str) -> None:
    """In quadratic time half a million characters would take hours, and the suite's time limit would end it."""
    label_report(piece * (500_000 // len(piece)))


@pytest.mark.real_data
def test_agreement_with_the_indexing_of_iu_xray(real_data: Path) -> None:
    """All studies with gold; docs/data/labeler.md says what the gold cannot tell."""
    _, gold, rows = read_gold(real_data / "iu_xray")
    codes = label_reports([f"{row['findings']}\n\n{row['impression']}" for row in rows])
    found = np.isin(codes[:, [OBSERVATIONS.index(name) for name in CLASSES.values()]], PRESENT)
    assert scores(gold, found)["recall"] > 0.98
    assert scores(gold, found)["F1"] > 0.885
    assert scores(widened(gold, rows), found)["F1"] > 0.91
    for column, name in enumerate(CLASSES.values()):
        if gold[:, column].sum() > 50:
            assert scores(gold[:, column], found[:, column])["F1"] > 0.87, name
