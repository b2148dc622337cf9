from crossray.phantom.labels import labels_of
from crossray.phantom.scene import Finding, Scene
from crossray.text.observations import OBSERVATIONS


def labels(*findings, undrawn=()):
    return labels_of(Scene(0, findings=findings, undrawn=undrawn))


def positives(labels):
    return {name for name, status in labels.items() if status != "negative"}


def test_all_observations_in_order_and_none_blank():
    result = labels(Finding("mass", "left", "hilum", "severe"))
    assert tuple(result) == OBSERVATIONS
    assert set(result.values()) <= {"positive", "uncertain", "negative"}


def test_no_finding_is_positive_without_findings_and_with_devices_alone():
    assert positives(labels()) == {"no_finding"}
    assert positives(labels(Finding("pacemaker", "left"))) == {"no_finding", "support_devices"}


def test_any_drawn_finding_denies_no_finding_even_without_an_observation_of_its_own():
    assert positives(labels(Finding("granuloma", "left", "lingula", "mild"))) == set()
    assert labels(undrawn=("Stents",))["no_finding"] == "negative"


def test_findings_make_their_observations_positive():
    result = labels(Finding("pneumonia", "left", "lower_lobe", "mild"), Finding("rib_fracture", "left", "lower_ribs"))
    assert positives(result) == {"pneumonia", "consolidation", "fracture"}


def test_doubt_is_kept_unless_another_finding_is_sure():
    doubt = Finding("consolidation", "left", "base", "mild", "uncertain")
    assert labels(doubt)["consolidation"] == "uncertain"
    assert labels(doubt)["no_finding"] == "uncertain"
    sure = Finding("pneumonia", "right", "upper_lobe", "mild")
    for order in ((doubt, sure), (sure, doubt)):
        assert labels(*order)["consolidation"] == "positive"
        assert labels(*order)["no_finding"] == "negative"
