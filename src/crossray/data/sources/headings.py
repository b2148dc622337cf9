"""Maps headings of reports to kinds of sections, in English and the other languages of the labeler."""

import re
import unicodedata
from difflib import get_close_matches
from functools import lru_cache
from typing import Literal

#: Kinds of sections. "place" and "study" count as findings, and so do "result" and "interpretation" if the report has
#: no findings section; "other" is a known section that is not kept; "unknown" is any section with an unknown heading.
Kind = Literal[
    "findings", "impression", "combined", "indication", "addendum", "result", "interpretation", "place", "study",
    "other", "unknown",
]  # fmt: skip

#: Headings by kind that are also recognized in lower case, and some of them without a colon.
_EXACT: dict[Kind, str] = {
    "findings": "finding findings radiological_findings radiographic_findings imaging_findings chest_findings "
    "observation observations befund befunde hallazgos hallazgo",
    "impression": "impression impressions final_impression final_impressions conclusion "
    "conclusions opinion summary beurteilung zusammenfassung impresion "
    "conclusiones impresion_diagnostica",
    "combined": "findings_and_impression findings/impression impression/findings impression_and_findings "
    "findings_/_impression findings_&_impression findings_and_impressions "
    "findings_and_conclusion findings_and_conclusions befund_und_beurteilung",
    "indication": "indication indications history clinical_history clinical_indication clinical_information "
    "clinical_data reason_for_exam reason_for_examination reason_for_study reason_for_this_examination indikation "
    "fragestellung klinische_angaben klinische_frage anamnese indicacion indicaciones antecedentes motivo "
    "datos_clinicos motivo_de_consulta antecedents renseignements_cliniques motif",
    "addendum": "addendum",
    "result": "result results report resultat resultats resultado resultados informe compte_rendu ergebnis",
    "interpretation": "interpretation interpretacion",
    "other": "comparison comparisons technique procedure recommendation recommendations notification exam examination "
    "exam_type study_date dictated_by signed_by electronically_signed_by transcribed_by read_by reported_by "
    "approved_by verified_by reviewed_by vergleich voraufnahmen technik comparacion "
    "tecnica firmado_por comparaison signe_par "
    "lu_par exploracion",
}
#: Kinds whose headings may be alone on a line without a colon.
_WITHOUT_COLON = ("findings", "impression", "combined", "indication")

#: Words that determine the kind of a heading in capitals, at any position; the first match applies.
_WORDS: tuple[tuple[Kind, tuple[str, ...]], ...] = (
    ("addendum", ("ADDENDUM",)),
    ("other", ("PROVISIONAL", "PRELIMINARY", "WET READ")),
    ("impression", ("IMPRESSION", "CONCLUSION", "OPINION", "SUMMARY")),
    ("findings", ("FINDING", "OBSERVATIONS")),
    ("indication", ("INDICATION", "HISTORY", "REASON FOR", "CLINICAL")),
    ("other", ("COMPARISON", "TECHNIQUE", "EXAMINATION", "RECOMMENDATION", "NOTIFICATION", "REFERENCE EXAM",
               "SIGNED", "DICTATED", "TRANSCRIBED", "TRANSCRIPTIONIST", "VERIFIED", "APPROVED", "REPORTED BY",
               "READ BY",
               "ATTENDING", "RADIOLOGIST", "RESIDENT", "PHYSICIAN", "ELECTRONICALLY", "ACCESSION", "DATE OF")),
)  # fmt: skip

#: A heading that describes the views is followed by findings: "CHEST, TWO VIEWS: ...".
_STUDY = re.compile(r"\b(?:CHEST|PORTABLE|RADIOGRAPHS?|VIEWS?|FRONTAL|LATERAL|LAT|PA|AP|RIBS|UPRIGHT)\b")

#: Headings of the parts of a structured report, which contain findings.
_PLACES = re.compile(
    r"\b(?:HEART|CARDIAC|CARDIOMEDIASTIN\w+|LUNGS?|PLEURA\w*|BONES?|OSSEOUS|MEDIASTIN\w+|HILA|HILUM|HILAR|DIAPHRAGM\w*|"
    r"TUBES?|LINES?|CATHETERS?|DEVICES?|ABDOMEN|SOFT TISSUES?|OTHER|PNEUMOTHORAX|EFFUSIONS?|AORTA|SPINE|CONSOLIDATION|"
    r"EDEMA|OPACIT\w+|ATELECTASIS|FRACTURES?|NODULES?|TRACHEA|AIRWAYS?|VASCULA\w+|CHEST WALL|MUSCULOSKELETAL|THORAX|"
    r"HERZ|LUNGEN?|SKELETT|CORAZON|PULMONES|COEUR|POUMONS)\b"
)

#: Headings that are also recognized with a typo.
_MAIN = ("FINDINGS", "IMPRESSION", "INDICATION", "CONCLUSION", "COMPARISON")


def _plain(name: str) -> str:
    """Convert a heading to capitals without accents, with single spaces."""
    words = name.split()
    if len(words) > 2 and all(len(word) == 1 for word in words):  # "F I N D I N G S"
        words = ["".join(words)]
    decomposed = unicodedata.normalize("NFD", " ".join(words).upper())
    return "".join(character for character in decomposed if not unicodedata.combining(character))


_KINDS: dict[str, Kind] = {
    _plain(name.replace("_", " ")): kind for kind, names in _EXACT.items() for name in names.split()
}

#: Names that are headings after the end of a sentence, and in capitals anywhere; longest first.
NAMES: tuple[str, ...] = tuple(sorted(_KINDS, key=len, reverse=True))


def exact_kind(name: str) -> Kind | None:
    """Return the kind of a well-known heading in any case; None for any other text."""
    return _KINDS.get(_plain(name))


def stands_alone(name: str) -> bool:
    """Whether the name is a heading when alone on a line, without a colon."""
    return exact_kind(name) in _WITHOUT_COLON


@lru_cache(maxsize=4096)
def kind_of(name: str) -> Kind:
    """Return the kind of a heading in capitals."""
    heading = _plain(name)
    if heading in _KINDS:
        return _KINDS[heading]
    for kind, words in _WORDS:
        if any(word in heading for word in words):
            return "combined" if kind == "impression" and "FINDING" in heading else kind
    meant = get_close_matches(heading, _MAIN, n=1, cutoff=0.87)
    if meant:
        return kind_of(meant[0])
    if _STUDY.search(heading):
        return "study"
    return "place" if _PLACES.search(heading) else "unknown"
