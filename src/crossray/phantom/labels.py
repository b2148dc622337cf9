"""The true observations of a scene."""

from crossray.phantom.catalogue import CATALOGUE
from crossray.phantom.scene import Scene
from crossray.text.observations import OBSERVATIONS


def labels_of(scene: Scene) -> dict[str, str]:
    """Status of every observation according to the drawing, whether or not its report mentions it.

    An observation is "positive" when a finding that the catalogue maps to it is drawn, "uncertain" when such findings
    are drawn at the edge of visibility only, and otherwise "negative": nothing is ever blank, because everything about
    a drawn study is known. "no_finding" is "positive" when nothing but devices is drawn, "uncertain" when all findings
    are uncertain, and otherwise "negative"; tags that could not be drawn (`Scene.undrawn`) make it "negative" too,
    because the patient whose report they come from was not without findings.

    Returns:
        `OBSERVATIONS` in their order -> "positive", "uncertain" or "negative".
    """
    labels = dict.fromkeys(OBSERVATIONS, "negative")
    no_finding = "negative" if scene.undrawn else "positive"
    for finding in scene.findings:
        kind = CATALOGUE[finding.name]
        for observation in kind.observations:
            if labels[observation] != "positive":
                labels[observation] = finding.status
        if not kind.is_device and no_finding != "negative":
            no_finding = "uncertain" if finding.status == "uncertain" else "negative"
    labels["no_finding"] = no_finding
    return labels
