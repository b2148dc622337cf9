"""What two reports agree on."""

from crossray.analysis.agreement import Agreement
from crossray.text.observations import OBSERVATIONS, STATUSES, Evidence, ReportLabels


def labels(text: str, *said: tuple[str, str, str]) -> ReportLabels:
    """Labels of a text: (observation, status, words of the text that say so)."""
    statuses = {observation: status for observation, status, _ in said}
    evidence = [
        Evidence(observation, status, text.index(words), text.index(words) + len(words))
        for observation, status, words in said
    ]
    return ReportLabels(tuple(STATUSES.index(statuses.get(name, "blank")) for name in OBSERVATIONS), tuple(evidence))


REFERENCE = "the heart is enlarged . possible edema . no effusion . old rib fracture ."
TRUE = labels(
    REFERENCE,
    ("cardiomegaly", "positive", "heart is enlarged"),
    ("edema", "uncertain", "edema"),
    ("pleural_effusion", "negative", "effusion"),
    ("fracture", "positive", "rib fracture"),
)
REPORT = "enlarged heart . pulmonary edema . small effusion . no fracture ."
OURS = labels(
    REPORT,
    ("cardiomegaly", "positive", "enlarged heart"),
    ("edema", "positive", "pulmonary edema"),
    ("pleural_effusion", "positive", "effusion"),
    ("fracture", "negative", "fracture"),
)


def test_positive_and_uncertain_are_stated_and_denied_is_not() -> None:
    agreement = Agreement.between(TRUE, OURS)
    assert agreement.agreed == {"cardiomegaly": ("positive", "positive"), "edema": ("uncertain", "positive")}
    assert agreement.false_alarms == {"pleural_effusion": "positive"}
    assert agreement.missed == {"fracture": "positive"}
    assert agreement.balance == 0


def test_no_finding_is_left_out() -> None:
    normal = labels("clear", ("no_finding", "positive", "clear"))
    assert Agreement.between(normal, OURS).missed == {}
    assert Agreement.between(TRUE, normal).false_alarms == {}
