"""The ground-truth observations of a scene."""

from crossray.phantom.catalogue import CATALOGUE
from crossray.phantom.scene import Scene
from crossray.text.observations import OBSERVATIONS


def labels_of(scene: Scene) -> dict[str, str]:
    """Status of each observation in the drawing, whether or not the report mentions it.

    An observation is "positive" if a finding with this observation in the catalog is positive, "uncertain" if all
    such findings are uncertain, and "negative" otherwise; it is never blank, because everything about a drawn study is
    known. "no_finding" is "positive" if there are no findings except devices, "uncertain" if all findings are
    uncertain, and "negative" otherwise. Tags that cannot be drawn (`Scene.undrawn`) also make it "negative", because
    the patient had findings.

    Returns:
        "positive", "uncertain" or "negative" by observation, in the order of `OBSERVATIONS`.
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
