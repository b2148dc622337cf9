"""Determines the positions of views from words in headers and tables."""

import re
import unicodedata
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class FileDescription:
    """The description of a file before it is decoded.

    Attributes:
        position: one of `crossray.data.study.VIEW_POSITIONS`; "unknown" if the file does not state it. Only DICOM does.
        study: identifier that the views of one study share; "" if unknown. It is patient data: compare it, but never
            show it in messages.
        is_image: False for a DICOM object without pixels (a report, a presentation state) and for a file that is not an
            image (a text, a program). A damaged image counts as an image.
        is_radiograph: whether its Modality is that of a radiograph; True for other formats.
        patient: PatientID, "" if it is empty; None for other formats. It is patient data, like `study`.
    """

    position: str = "unknown"
    study: str = ""
    is_image: bool = True
    is_radiograph: bool = True
    patient: str | None = None


#: Words that determine the position. A decubitus view is frontal: the patient lies down, but the beam is horizontal.
_DECIDING = {
    **dict.fromkeys(("pa", "posteroanterior", "p a"), "pa"),
    **dict.fromkeys(("ap", "anteroposterior", "a p"), "ap"),
    **dict.fromkeys(("lat", "lateral", "laterals", "ll", "rl", "llat", "rlat", "latl", "profile", "profil", "seitlich"),
                    "lateral"),
    **dict.fromkeys(("frontal", "front", "face"), "frontal"),
    **dict.fromkeys(("decubitus", "lld", "rld", "decub"), "frontal"),
    **dict.fromkeys(("unknown", "none", "na", "nan", "other", "unspecified"), "unknown"),
}  # fmt: skip

#: Words that mean an AP view, which is taken of patients who cannot stand, if no other word names the position.
_LYING = {"portable", "port", "supine", "bedside", "mobile", "bed", "horizontal", "recumbent"}

#: Words without information about the position.
_BESIDE = {
    *("chest", "cxr", "thorax", "x", "ray", "xray", "xr", "view", "views", "projection", "image", "film", "and", "the"),
    *("erect", "upright", "standing", "sitting", "semi", "semierect", "semiupright", "vertical", "left", "right", "lt"),
    *("rt", "l", "r", "table", "cross", "xtable", "axial", "lordotic", "inspiration", "expiration", "full", "routine"),
}


def view_position(text: str) -> str | None:
    """Return the position that a word or phrase means.

    Args:
        text: a code of DICOM's ViewPosition (PA, AP, LL, RL, LLD), or words from a table: "AP supine", "Lateral", "L",
            "portable", "p.a. erect". Case, hyphens, dots and underscores do not matter.

    Returns:
        One of `crossray.data.study.VIEW_POSITIONS`; None for an empty text, an unknown word (oblique), or words that
        contradict one another (PA and lateral).

    Example:
        >>> view_position("AP Supine"), view_position("L"), view_position("oblique")
        ('ap', 'lateral', None)
    """
    phrase = unicodedata.normalize("NFKC", text).casefold().replace(".", "")
    phrase = re.sub(r"postero[\s_/-]*anterior|posterior[\s_/-]+anterior", "posteroanterior", phrase)
    phrase = re.sub(r"antero[\s_/-]*posterior|anterior[\s_/-]+posterior", "anteroposterior", phrase)
    words = re.findall(r"[^\W_]+", phrase)
    if " ".join(words) in ("n a", "p a", "a p"):
        words = ["".join(words)]
    if words == ["l"]:
        return "lateral"
    if not words or any(word not in _DECIDING and word not in _LYING and word not in _BESIDE for word in words):
        return None
    found = {_DECIDING[word] for word in words if word in _DECIDING}
    if "frontal" in found and found & {"pa", "ap"}:  # "frontal (PA)", "PA LLD"
        found.discard("frontal")
    if found == {"frontal", "lateral"} and any(word.startswith("decub") for word in words):  # "left lateral decubitus"
        return "frontal"
    if not found and any(word in _LYING for word in words):
        return "ap"
    if found == {"frontal"} and "decubitus" not in words and any(word in _LYING for word in words):
        return "ap"
    return next(iter(found)) if len(found) == 1 else None
