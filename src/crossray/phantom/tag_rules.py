"""Maps the MeSH tags of Open-i to findings and places of the phantom.

Headings and qualifiers are in lower case.
"""

from collections.abc import Mapping

#: Qualifiers of which at least one must be present (empty: always), and the kinds to draw (empty: cannot be drawn).
Rule = tuple[frozenset[str], tuple[str, ...]]


def _rules(*rules: tuple[str, str]) -> tuple[Rule, ...]:
    return tuple((frozenset(part for part in needs.split("|") if part), tuple(kinds.split())) for needs, kinds in rules)


_VALVES = "aortic valve|mitral valve|coronary vessels|pulmonary artery"
_LUNG_SHADOW = _rules(("interstitial|reticular", "interstitial_markings"), ("round", "nodule"), ("", "opacity"))

#: Rules by heading, of which the first that matches applies. Headings that are not listed are not drawn.
RULES: Mapping[str, tuple[Rule, ...]] = {
    # Heart, mediastinum, aorta
    "cardiomegaly": _rules(("", "cardiomegaly")),
    "cardiac shadow": _rules(("enlarged|prominent|borderline|mild|moderate|severe", "cardiomegaly")),
    "heart": _rules(("enlarged|prominent", "cardiomegaly")),
    "heart ventricles": _rules(("enlarged|prominent", "cardiomegaly")),
    "aorta": _rules(("tortuous|enlarged|prominent", "tortuous_aorta")),
    "aorta, thoracic": _rules(("tortuous|enlarged|prominent", "tortuous_aorta")),
    "atherosclerosis": _rules((_VALVES, ""), ("", "aortic_calcification")),
    "mediastinum": _rules(("enlarged|prominent", "mediastinal_widening")),
    "lymph nodes": _rules(("paratracheal", "mediastinal_widening"), ("enlarged", "hilar_enlargement")),
    "pulmonary artery": _rules(("enlarged|prominent", "hilar_enlargement")),
    "hernia, hiatal": _rules(("", "hiatal_hernia")),
    # Pleura and diaphragm
    "pleural effusion": _rules(("", "pleural_effusion")),
    "hemothorax": _rules(("", "pleural_effusion")),
    "hydropneumothorax": _rules(("", "pleural_effusion pneumothorax")),
    "hemopneumothorax": _rules(("", "pleural_effusion pneumothorax")),
    "pneumothorax": _rules(("", "pneumothorax")),
    "costophrenic angle": _rules(("blunted|obscured", "costophrenic_blunting")),
    "sulcus": _rules(("blunted|obscured", "costophrenic_blunting")),
    "pleura": _rules(("blunted", "costophrenic_blunting")),
    "thickening": _rules(("pleura", "pleural_thickening"), ("interstitial", "interstitial_markings")),
    "diaphragm": _rules(("elevated", "elevated_diaphragm"), ("flattened", "hyperinflation")),
    "diaphragmatic eventration": _rules(("", "elevated_diaphragm")),
    # Lungs
    "lung": _rules(
        ("hypoinflation", "low_lung_volumes"),
        ("hyperdistention", "hyperinflation"),
        ("interstitial", "interstitial_markings"),
        ("hilum|lymph nodes", "hilar_enlargement"),
    ),
    "opacity": _LUNG_SHADOW,
    "density": _LUNG_SHADOW,
    "infiltrate": _LUNG_SHADOW,
    "airspace disease": _rules(("", "opacity")),
    "consolidation": _rules(("", "consolidation")),
    "pneumonia": _rules(("", "pneumonia")),
    "pulmonary atelectasis": _rules(("", "atelectasis")),
    "volume loss": _rules(("lung", "atelectasis")),
    "pulmonary edema": _rules(("", "edema")),
    "pulmonary congestion": _rules(("", "edema")),
    "heart failure": _rules(("", "edema")),
    "markings": _rules(("", "interstitial_markings")),
    "lung diseases, interstitial": _rules(("", "interstitial_markings")),
    "pulmonary fibrosis": _rules(("apex|upper lobe|lower lobe", "scarring"), ("", "interstitial_markings")),
    "fibrosis": _rules(("diffuse", "interstitial_markings")),
    "cicatrix": _rules(("pleura", "pleural_thickening"), ("", "scarring")),
    "nodule": _rules(("", "nodule")),
    "mass": _rules(("", "mass")),
    "calcified granuloma": _rules(("", "granuloma")),
    "granuloma": _rules(("", "granuloma")),
    "granulomatous disease": _rules(("", "granuloma")),
    "calcinosis": _rules(
        ("aorta|aorta, thoracic", "aortic_calcification"),
        ("lung|hilum|lymph nodes|mediastinum|paratracheal|trachea, carina", "granuloma"),
    ),
    "emphysema": _rules(("", "emphysema")),
    "pulmonary emphysema": _rules(("", "emphysema")),
    "bullous emphysema": _rules(("", "emphysema")),
    "lung, hyperlucent": _rules(("", "emphysema")),
    "pulmonary disease, chronic obstructive": _rules(("", "hyperinflation")),
    # Bones
    "thoracic vertebrae": _rules(("degenerative", "spine_degeneration")),
    "spine": _rules(("degenerative", "spine_degeneration")),
    "osteophyte": _rules(("", "spine_degeneration")),
    "spondylosis": _rules(("", "spine_degeneration")),
    "hyperostosis, diffuse idiopathic skeletal": _rules(("", "spine_degeneration")),
    "arthritis": _rules(("spine|thoracic vertebrae", "spine_degeneration")),
    "sclerosis": _rules(("spine|thoracic vertebrae", "spine_degeneration")),
    "scoliosis": _rules(("", "scoliosis")),
    "kyphosis": _rules(("", "kyphosis")),
    "deformity": _rules(("ribs", "rib_fracture"), ("thoracic vertebrae", "vertebral_fracture")),
    "fractures, bone": _rules(("ribs", "rib_fracture"), ("thoracic vertebrae", "vertebral_fracture")),
    # Devices. In the reports, most implanted devices other than valves are pacemakers.
    "implanted medical device": _rules((_VALVES, ""), ("", "pacemaker")),
    "medical device": _rules(("", "pacemaker")),
    "catheters, indwelling": _rules(("", "central_line")),
    "surgical instruments": _rules(("", "surgical_clips")),
    "sutures": _rules(("sternum", "sternotomy_wires"), ("", "surgical_clips")),
    "tube, inserted": _rules(
        ("trachea|trachea, carina", "endotracheal_tube"),
        ("abdomen", "enteric_tube"),
        ("thorax|left|right", "chest_tube"),
    ),
}

_OUTSIDE = (
    "adipose tissue",
    "aorta",
    "aorta, thoracic",
    "aortic valve",
    "blood vessels",
    "breast implants",
    "bronchi",
    "cervical vertebrae",
    "clavicle",
    "coronary vessels",
    "diaphragm",
    "esophagus",
    "heart",
    "heart atria",
    "heart ventricles",
    "humerus",
    "lumbar vertebrae",
    "lymph nodes",
    "mitral valve",
    "neck",
    "pleura",
    "pleural sinus",
    "pulmonary artery",
    "ribs",
    "shoulder",
    "spine",
    "sternum",
    "supracardiac",
    "thoracic vertebrae",
    "trachea",
)

#: Places by location qualifier, the best first; () for a location that no place represents.
LOCATIONS: Mapping[str, tuple[str, ...]] = {
    "upper lobe": ("upper_lobe", "apex"),
    "middle lobe": ("middle_lobe",),
    "lingula": ("lingula",),
    "lower lobe": ("lower_lobe", "base"),
    "base": ("base", "lower_lobe"),
    "apex": ("apex", "upper_lobe"),
    "hilum": ("hilum",),
    "retrocardiac": ("retrocardiac",),
    "costophrenic angle": ("base", "lower_lobe"),
    "cardiophrenic angle": ("base", "lower_lobe"),
    "sulcus": ("base", "lower_lobe"),
    "diffuse": ("diffuse",),
    "mediastinum": ("mediastinum",),
    "paratracheal": ("mediastinum",),
    "trachea, carina": ("mediastinum",),
    "breast": ("axilla",),
    "thorax": ("axilla",),
    "abdomen": ("upper_abdomen",),
    **dict.fromkeys(_OUTSIDE, ()),
}

_LUNG_KINDS = (
    "opacity",
    "consolidation",
    "pneumonia",
    "atelectasis",
    "edema",
    "interstitial_markings",
    "scarring",
    "nodule",
    "mass",
    "granuloma",
    "hyperinflation",
    "low_lung_volumes",
    "emphysema",
)

#: Locations by kind that the kind implies, so that its drawing is there anyway.
IMPLIED: Mapping[str, frozenset[str]] = {
    kind: frozenset(locations.split("|"))
    for kind, locations in {
        **dict.fromkeys(_LUNG_KINDS, "diffuse"),
        "edema": "diffuse|base|lower lobe|hilum",
        "emphysema": "diffuse|apex|upper lobe|thorax",
        "interstitial_markings": "diffuse|bronchi",
        "granuloma": "diffuse|thorax|lymph nodes",
        "hyperinflation": "diffuse|diaphragm|thorax",
        "cardiomegaly": "heart|heart ventricles",
        "tortuous_aorta": "aorta|aorta, thoracic",
        "aortic_calcification": "aorta|aorta, thoracic",
        "mediastinal_widening": "mediastinum|paratracheal|lymph nodes|supracardiac",
        "hilar_enlargement": "hilum|lymph nodes|pulmonary artery",
        "hiatal_hernia": "retrocardiac|abdomen",
        "pleural_effusion": "pleura|base|costophrenic angle|sulcus|lower lobe|thorax",
        "costophrenic_blunting": "pleura|base|costophrenic angle|sulcus",
        "pleural_thickening": "pleura|thorax",
        "pneumothorax": "pleura|thorax",
        "elevated_diaphragm": "diaphragm",
        "spine_degeneration": "thoracic vertebrae|spine|diffuse",
        "scoliosis": "thoracic vertebrae|spine",
        "kyphosis": "thoracic vertebrae|spine|thorax",
        "vertebral_fracture": "thoracic vertebrae|spine",
        "rib_fracture": "ribs|thorax",
        "pacemaker": "thorax|heart|heart atria",
        "central_line": "thorax",
        "sternotomy_wires": "sternum|mediastinum",
        "endotracheal_tube": "trachea|trachea, carina",
        "enteric_tube": "abdomen",
        "chest_tube": "thorax",
    }.items()
}

QUALIFIER_DEGREES: Mapping[str, str] = {
    "borderline": "minimal",
    "mild": "mild",
    "small": "mild",
    "moderate": "moderate",
    "severe": "severe",
    "large": "severe",
}
#: Default degree by heading, if the tag names none.
HEADING_DEGREES: Mapping[str, str] = {"pulmonary congestion": "minimal"}

#: Kinds that can be multiple.
SEVERAL_KINDS = frozenset({"nodule", "granuloma"})
