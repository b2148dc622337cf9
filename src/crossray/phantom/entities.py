"""Maps the phantom's findings to MedKLIP's entities and places: the ground truth for knowledge encoders."""

from collections.abc import Iterable, Mapping
from typing import Any

from crossray.text.entities import place_names

#: By finding: its entities, and the region that its name implies, or None if its place determines the region.
FINDINGS: Mapping[str, tuple[tuple[str, ...], str | None]] = {
    "cardiomegaly": (("cardiomegaly", "enlarge"), "heart size"),
    "mediastinal_widening": (("widen",), "mediastinum"),
    "hilar_enlargement": (("enlarge",), "hilum"),
    "tortuous_aorta": (("tortuous",), "aorta"),
    "aortic_calcification": (("calcification",), "aorta"),
    "hiatal_hernia": (("hernia",), "stomach"),
    "pleural_effusion": (("effusion",), "pleura"),
    "costophrenic_blunting": (("blunt",), "costophrenic angle"),
    "pleural_thickening": (("thicken",), "pleura"),
    "pneumothorax": (("pneumothorax",), None),
    "elevated_diaphragm": (("elevation",), "diaphragm"),
    "opacity": (("opacity",), None),
    "consolidation": (("consolidation",), None),
    "pneumonia": (("pneumonia", "consolidation"), None),
    "atelectasis": (("atelectasis",), None),
    "edema": (("edema",), "lung"),
    "interstitial_markings": (("marking",), "interstitium"),
    "scarring": (("scar",), None),
    "nodule": (("nodule",), None),
    "mass": (("mass",), None),
    "granuloma": (("nodule", "calcification"), None),
    "hyperinflation": (("hyperinflate",), "lung"),
    "low_lung_volumes": (("low",), "lung volumes"),
    "emphysema": (("emphysema",), "lung"),
    "spine_degeneration": (("degenerative",), "spine"),
    "scoliosis": (("deformity",), "spine"),
    "kyphosis": (("deformity",), "spine"),
    "vertebral_fracture": (("fracture",), "spine"),
    "rib_fracture": (("fracture",), "rib"),
    "sternotomy_wires": (("wire",), "mediastinum"),
    "pacemaker": (("pacemaker",), "heart size"),
    "central_line": (("catheter",), None),
    "endotracheal_tube": (("tube",), "trachea"),
    "enteric_tube": (("tube",), "stomach"),
    "chest_tube": (("tube",), None),
    "surgical_clips": (("clip",), None),
}

#: Region of `text/entities.yaml` by place of a finding ("" for a finding without a place).
_REGIONS: Mapping[str, str] = {
    "upper_lobe": "upper lobe", "lingula": "upper lobe", "middle_lobe": "middle lobe", "lower_lobe": "lower lobe",
    "base": "base", "apex": "apex", "hilum": "hilum", "retrocardiac": "retrocardiac", "mediastinum": "mediastinum",
    "": "lung",
}  # fmt: skip

_SIDES = {"left": "left", "right": "right", "bilateral": "both", "": "none"}


def true_triplets(findings: Iterable[Mapping[str, Any]]) -> dict[str, tuple[str, frozenset[str]]]:
    """The entities of a study with their strongest status and their places.

    Args:
        findings: rows of one study in `findings.parquet`.

    Returns:
        By entity: "positive" or "uncertain", and the places of its positive findings.
    """
    found: dict[str, tuple[str, frozenset[str]]] = {}
    for row in findings:
        entities, region = FINDINGS[row["finding"]]
        places: frozenset[str] = frozenset()
        if row["status"] == "positive":
            named = region or _REGIONS.get(row["place"], "elsewhere")
            places = frozenset(place_names(named, _SIDES[row["side"]]))
        for entity in entities:
            status, known = found.get(entity, ("uncertain", frozenset()))
            stronger = "positive" if "positive" in (status, row["status"]) else "uncertain"
            found[entity] = stronger, known | places
    return found
