"""The findings that can be drawn, with their prevalence, sides, places, degrees and observations.

The sampler draws from this table, every name in it has a drawing and phrases, and labels follow from its observations.
"""

from dataclasses import dataclass

from crossray.phantom.scene import DEGREES

FRONTAL, LATERAL = "frontal", "lateral"
LEFT_RIGHT: tuple[str, ...] = ("left", "right")
ANY_SIDE: tuple[str, ...] = ("left", "right", "bilateral")
LOBES: tuple[str, ...] = ("upper_lobe", "middle_lobe", "lingula", "lower_lobe")

#: Places that determine the side: the left lung has no middle lobe, the midline has no side.
PLACE_SIDES: dict[str, tuple[str, ...]] = {
    "middle_lobe": ("right",),
    "lingula": ("left",),
    "retrocardiac": ("left",),
    "mediastinum": ("",),
}


@dataclass(frozen=True, slots=True)
class FindingKind:
    """A kind of finding.

    Attributes:
        prevalence: share of realistic studies with the finding, before co-occurrence is added.
        sides: possible sides; empty if it has none.
        places: possible places; empty if there is only one.
        degrees: possible degrees, a subset of `DEGREES` in the same order; empty if it has none. The degree of a
            nodule, effusion or hernia is its size, that of a heart its width.
        observations: observations that are positive in a report naming the finding. As in CheXpert, their parents in
            the hierarchy are not included.
        views: views in which it can be visible.
    """

    prevalence: float
    sides: tuple[str, ...] = ()
    places: tuple[str, ...] = ()
    degrees: tuple[str, ...] = ()
    observations: tuple[str, ...] = ()
    views: tuple[str, ...] = (FRONTAL, LATERAL)

    @property
    def is_device(self) -> bool:
        """Whether it is a device; a study with devices only counts as "no finding"."""
        return "support_devices" in self.observations

    def sides_at(self, place: str) -> tuple[str, ...]:
        """Possible sides at `place`; `("",)` if the finding has no side there."""
        return PLACE_SIDES.get(place, self.sides or ("",))


_DEVICE = ("support_devices",)

#: All kinds by name. Tubes and wires have no degrees: they are present or absent.
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
    # Small, round, as dense as bone; at the hilum and mediastinum, calcified lymph nodes.
    "granuloma": FindingKind(0.09, LEFT_RIGHT, (*LOBES, "apex", "base", "hilum", "mediastinum"), DEGREES[:3]),
    "hyperinflation": FindingKind(0.06, degrees=DEGREES[1:], observations=("lung_volume_abnormal",)),
    "low_lung_volumes": FindingKind(0.07, degrees=DEGREES[1:], observations=("lung_volume_abnormal",)),
    # Lucent, vessel-poor upper zones.
    "emphysema": FindingKind(0.02, degrees=DEGREES[1:]),
    # Bones
    "spine_degeneration": FindingKind(0.13, degrees=DEGREES[1:], observations=("bone_spine_abnormal",)),
    # The side is the side of the convexity.
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
