"""The clinical observations that reports are labelled with."""

#: The 14 CheXpert observations, then PromptMRG's four auxiliary ones, in the fixed order of SPEC 4.2.
OBSERVATIONS: tuple[str, ...] = (
    "enlarged_cardiomediastinum",
    "cardiomegaly",
    "lung_opacity",
    "lung_lesion",
    "edema",
    "consolidation",
    "pneumonia",
    "atelectasis",
    "pneumothorax",
    "pleural_effusion",
    "pleural_other",
    "fracture",
    "support_devices",
    "no_finding",
    "aorta_abnormal",
    "bone_spine_abnormal",
    "hemidiaphragm_abnormal",
    "lung_volume_abnormal",
)

#: The first 14, which CheXpert and CheXbert label.
CHEXPERT: tuple[str, ...] = OBSERVATIONS[:14]

#: Status of an observation by its code (SPEC 4.2): blank = not mentioned.
STATUSES: tuple[str, ...] = ("blank", "positive", "negative", "uncertain")
