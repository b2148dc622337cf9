"""The findings that can be drawn: places, degrees, prevalence and observations.

Everything else of the phantom reads this table: the sampler takes prevalence, sides, places and degrees from it, the
drawing and the report cover each of its names, and the observations follow from it.
"""

from dataclasses import dataclass

from crossray.phantom.scene import DEGREES

FRONTAL, LATERAL = "frontal", "lateral"
LEFT_RIGHT: tuple[str, ...] = ("left", "right")
ANY_SIDE: tuple[str, ...] = ("left", "right", "bilateral")
LOBES: tuple[str, ...] = ("upper_lobe", "middle_lobe", "lingula", "lower_lobe")

#: Places that fix the side: the left lung has no middle lobe, the midline has no side.
PLACE_SIDES: dict[str, tuple[str, ...]] = {
    "middle_lobe": ("right",),
    "lingula": ("left",),
    "retrocardiac": ("left",),
    "mediastinum": ("",),
}


@dataclass(frozen=True, slots=True)
class FindingKind:
    """One kind of finding.

    Attributes:
        prevalence: share of realistic studies that show it, before co-occurrence is added.
        sides: sides that it can have; empty when it has none.
        places: places that it can have; empty when there is only one.
        degrees: its degrees, a part of `DEGREES` in that order; empty when it has none. For a nodule, an effusion or a
            hernia the degree is its size, for a heart its breadth.
        observations: the observations that a report naming the finding is positive for. CheXpert's
            convention: what is named, without its parents in the hierarchy.
        views: views in which it can be seen.
    """

    prevalence: float
    sides: tuple[str, ...] = ()
    places: tuple[str, ...] = ()
    degrees: tuple[str, ...] = ()
    observations: tuple[str, ...] = ()
    views: tuple[str, ...] = (FRONTAL, LATERAL)

    @property
    def is_device(self) -> bool:
        """Whether it was put into the patient; a study with devices alone has no finding."""
        return "support_devices" in self.observations

    def sides_at(self, place: str) -> tuple[str, ...]:
        """The sides that the finding can have at `place`; `("",)` when it has none there."""
        return PLACE_SIDES.get(place, self.sides or ("",))


_DEVICE = ("support_devices",)

#: Every kind by its name. `degrees` of one-sided tubes and wires are empty: they are there or not.
CATALOGUE: dict[str, FindingKind] = {
    # Heart, mediastinum, aorta
    "cardiomegaly": FindingKind(0.12, degrees=DEGREES, observations=("cardiomegaly",)),
    "mediastinal_widening": FindingKind(0.008, degrees=DEGREES[1:], observations=("enlarged_cardiomediastinum",)),
    "hilar_enlargement": FindingKind(0.012, ANY_SIDE, degrees=DEGREES[1:]),
    "tortuous_aorta": FindingKind(0.07, degrees=DEGREES[1:], observations=("aorta_abnormal",)),
    "aortic_calcification": FindingKind(0.05, degrees=DEGREES[1:], observations=("aorta_abnormal",)),
    "hiatal_hernia": FindingKind(0.012, degrees=DEGREES[1:]),
    # Pleura and diaphragm
    "pleural_effusion": FindingKind(0.07, ANY_SIDE, degrees=DEGREES, observations=("pleural_effusion",)),
    "costophrenic_blunting": FindingKind(0.02, ANY_SIDE, degrees=DEGREES[:2], observations=("pleural_other",)),
    "pleural_thickening": FindingKind(
        0.015, ANY_SIDE, ("apex", "lateral", "base"), DEGREES[:3], observations=("pleural_other",)
    ),
    "pneumothorax": FindingKind(0.012, LEFT_RIGHT, ("apex", "base"), DEGREES, observations=("pneumothorax",)),
    "elevated_diaphragm": FindingKind(0.03, LEFT_RIGHT, degrees=DEGREES[1:], observations=("hemidiaphragm_abnormal",)),
    # Lungs
    "opacity": FindingKind(
        0.09, ANY_SIDE, (*LOBES, "base", "apex", "hilum", "retrocardiac"), DEGREES, observations=("lung_opacity",)
    ),
    "consolidation": FindingKind(
        0.02, ANY_SIDE, (*LOBES, "base", "retrocardiac"), DEGREES[1:], observations=("consolidation",)
    ),
    # Looks like a consolidation with visible air bronchograms; its reports name both.
    "pneumonia": FindingKind(0.015, ANY_SIDE, LOBES, DEGREES[1:], observations=("pneumonia", "consolidation")),
    # A band (plate) of collapsed lung, or a dense small lobe when severe.
    "atelectasis": FindingKind(
        0.09, ANY_SIDE, ("base", *LOBES, "retrocardiac"), DEGREES, observations=("atelectasis",)
    ),
    "edema": FindingKind(0.025, degrees=DEGREES, observations=("edema",)),
    "interstitial_markings": FindingKind(
        0.05, ("bilateral", "left", "right"), ("diffuse", "base"), DEGREES[:3], observations=("lung_opacity",)
    ),
    "scarring": FindingKind(0.05, ANY_SIDE, ("apex", "base", *LOBES), DEGREES[:3], observations=("lung_opacity",)),
    "nodule": FindingKind(0.035, LEFT_RIGHT, (*LOBES, "apex", "base", "hilum"), DEGREES, observations=("lung_lesion",)),
    "mass": FindingKind(0.006, LEFT_RIGHT, (*LOBES, "hilum"), DEGREES[1:], observations=("lung_lesion",)),
    # Small, round, as dense as bone; at the hilum and mediastinum these are calcified lymph nodes.
    "granuloma": FindingKind(0.09, LEFT_RIGHT, (*LOBES, "apex", "base", "hilum", "mediastinum"), DEGREES[:3]),
    "hyperinflation": FindingKind(0.06, degrees=DEGREES[1:], observations=("lung_volume_abnormal",)),
    "low_lung_volumes": FindingKind(0.07, degrees=DEGREES[1:], observations=("lung_volume_abnormal",)),
    # Lucent, vessel-poor upper zones.
    "emphysema": FindingKind(0.02, degrees=DEGREES[1:]),
    # Bones
    "spine_degeneration": FindingKind(0.13, degrees=DEGREES[1:], observations=("bone_spine_abnormal",)),
    # The side is that of the convexity.
    "scoliosis": FindingKind(0.03, LEFT_RIGHT, degrees=DEGREES[1:], observations=("bone_spine_abnormal",)),
    "kyphosis": FindingKind(0.01, degrees=DEGREES[1:], observations=("bone_spine_abnormal",), views=(LATERAL,)),
    # A wedge-shaped vertebra.
    "vertebral_fracture": FindingKind(
        0.015,
        (),
        ("upper_spine", "middle_spine", "lower_spine"),
        DEGREES[1:],
        ("fracture", "bone_spine_abnormal"),
        views=(LATERAL,),
    ),
    "rib_fracture": FindingKind(
        0.02, LEFT_RIGHT, ("upper_ribs", "middle_ribs", "lower_ribs"), observations=("fracture",), views=(FRONTAL,)
    ),
    # Devices and traces of surgery
    "sternotomy_wires": FindingKind(0.04, observations=_DEVICE),
    "pacemaker": FindingKind(0.02, LEFT_RIGHT, observations=_DEVICE),
    "central_line": FindingKind(0.03, LEFT_RIGHT, ("jugular", "subclavian", "arm"), observations=_DEVICE),
    "endotracheal_tube": FindingKind(0.006, observations=_DEVICE),
    "enteric_tube": FindingKind(0.008, observations=_DEVICE),
    "chest_tube": FindingKind(0.006, LEFT_RIGHT, ("apex", "base"), observations=_DEVICE),
    "surgical_clips": FindingKind(
        0.025, LEFT_RIGHT, ("upper_abdomen", "axilla", "hilum", "mediastinum"), observations=_DEVICE
    ),
}
