"""Conventions: the same reading of a text, observations drawn otherwise."""

import pytest

from crossray.errors import UserError
from crossray.text.labeling.lexicon import lexicon
from crossray.text.labeling.registry import OWN, conventions, languages
from crossray.text.observations import OBSERVATIONS, label_report, label_reports, labeler_name

#: Text, observation, our own status, CheXpert's by its published output.
DRAWN_OTHERWISE = [
    ("Surgical clips in the right upper quadrant.", "support_devices", "positive", "blank"),
    ("Median sternotomy wires are intact.", "support_devices", "positive", "blank"),
    ("Coronary artery stent.", "support_devices", "positive", "blank"),
    ("The lungs are clear.", "lung_opacity", "negative", "blank"),
    ("The pulmonary vasculature is normal.", "edema", "negative", "blank"),
    ("The pleural spaces are clear.", "pleural_effusion", "negative", "blank"),
    ("Borderline cardiomegaly.", "cardiomegaly", "uncertain", "positive"),
    ("The heart is borderline enlarged.", "cardiomegaly", "uncertain", "positive"),
    ("Heart and mediastinal contours are normal.", "cardiomegaly", "negative", "blank"),
    ("Apical capping on the left.", "pleural_other", "positive", "blank"),
    ("No active tuberculosis.", "pneumonia", "negative", "blank"),
    ("Calcified nodule in the left lung.", "lung_lesion", "positive", "blank"),
    ("Calcified granuloma in the left lung. No effusion.", "no_finding", "positive", "blank"),
    ("Tortuous aorta.", "no_finding", "positive", "blank"),
    ("Degenerative changes of the spine.", "no_finding", "positive", "blank"),
    ("Moderate hiatal hernia.", "no_finding", "positive", "blank"),
]
#: What both read alike.
DRAWN_ALIKE = [
    ("Left subclavian pacemaker with leads in the right atrium.", "support_devices", "positive"),
    ("Central venous catheter.", "support_devices", "positive"),
    ("The heart is enlarged.", "cardiomegaly", "positive"),
    ("Heart size is within normal limits.", "cardiomegaly", "negative"),
    ("Heart and mediastinum are normal.", "cardiomegaly", "negative"),
    ("No pleural effusion.", "pleural_effusion", "negative"),
    ("Noncalcified nodule in the left lung.", "lung_lesion", "positive"),
    ("Patchy opacity in the left base.", "lung_opacity", "positive"),
    ("Right lower lobe pneumonia.", "pneumonia", "positive"),
    ("Low lung volumes. No effusion.", "no_finding", "positive"),
    ("No granuloma. No effusion.", "no_finding", "positive"),
]


@pytest.mark.parametrize(("text", "observation", "own", "chexpert"), DRAWN_OTHERWISE)
def test_what_is_drawn_otherwise(text: str, observation: str, own: str, chexpert: str) -> None:
    assert label_report(text).status(observation) == own
    assert label_report(text, "chexpert").status(observation) == chexpert


@pytest.mark.parametrize(("text", "observation", "status"), DRAWN_ALIKE)
def test_what_is_drawn_alike(text: str, observation: str, status: str) -> None:
    assert label_report(text).status(observation) == label_report(text, "chexpert").status(observation) == status


def test_labels_of_many_and_evidence_keep_to_the_convention() -> None:
    texts = [text for text, *_ in DRAWN_OTHERWISE]
    codes = label_reports(texts, "chexpert")
    assert codes.tolist() == [list(label_report(text, "chexpert").codes) for text in texts]
    evidence = {entry.observation for text in texts for entry in label_report(text, "chexpert").evidence}
    assert evidence <= set(OBSERVATIONS)  # a granuloma cancels "no finding" and is no observation


def test_other_languages_follow_what_is_said_of_structures() -> None:
    assert label_report("Pulmones limpios.").status("lung_opacity") == "negative"
    assert label_report("Pulmones limpios.", "chexpert").status("lung_opacity") == "blank"


def test_names_and_files() -> None:
    assert conventions() == (OWN, "chexpert")
    assert labeler_name("chexpert") == f"{labeler_name()}, chexpert convention"
    for language in languages():  # every phrase that is left out is there
        assert lexicon(language, "chexpert").roots
    with pytest.raises(UserError, match="'nih' does not exist; choose one of crossray, chexpert"):
        label_report("No effusion.", "nih")


@pytest.mark.parametrize(
    ("text", "observation", "status"),
    [
        ("Sequela of prior granulomatous disease.", "pneumonia", "blank"),
        ("Residuals of prior granulomatous infection.", "pneumonia", "blank"),
        ("Evidence of old tuberculosis.", "pneumonia", "blank"),
        ("Scarring from prior pneumonia.", "pneumonia", "blank"),
        ("Sequela of old granulomatous disease, small left pleural effusion.", "pleural_effusion", "positive"),
        ("Recurrent pneumonia.", "pneumonia", "positive"),
        ("The cardiomediastinal silhouette is within limits.", "enlarged_cardiomediastinum", "negative"),
        ("Nodular density in the right upper lobe.", "lung_opacity", "positive"),
        ("Calcific densities in the right lung.", "lung_opacity", "blank"),
        ("Implantable cardiac device.", "support_devices", "positive"),
    ],
)
def test_what_the_adjudicated_disagreements_showed(text: str, observation: str, status: str) -> None:
    assert label_report(text).status(observation) == status
