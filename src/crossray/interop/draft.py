"""A machine-generated report for export to another system."""

import hashlib
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime

import crossray
from crossray.evaluation.predictions import Prediction, Provenance
from crossray.text.display import readable
from crossray.text.observations import OBSERVATIONS, label_report

#: Notice in every exported report.
NOTICE = "Research use only. Not a medical device. This draft was written by a machine and checked by nobody."

_NAMESPACE = uuid.UUID("6f5cf6fe-21d4-5f3c-9b43-7a2b4a1f6c55")


@dataclass(frozen=True)
class ModelIdentity:
    """The model that generated a report.

    Attributes:
        name: name of the folder, or "user/name" on the hub.
        system: name of the system, such as "rcan".
        weights: SHA-256 of the weights; "" if unknown.
        version: version of CrossRay.
    """

    name: str
    system: str
    weights: str = ""
    version: str = crossray.__version__

    @property
    def uuid(self) -> uuid.UUID:
        """Identifier of the model, derived from its weights and the version of CrossRay."""
        return uuid.uuid5(_NAMESPACE, "\n".join(("model", self.weights or self.name, self.system, self.version)))


@dataclass(frozen=True)
class DraftReport:
    """A report with everything that a receiving system needs.

    Attributes:
        id: name of the study.
        text: text of the report, formatted for reading.
        observations: "positive", "negative" or "uncertain" for each mentioned observation.
        words: words of the report that state each observation.
        model: model that generated the report.
        written: time of generation, with a time zone.
        identity: unique name of this report, such as its id in the journal; by default, a hash of study, model and
            text. The identifiers of exports are derived from it, so a receiver stores repeated exports only once.
    """

    id: str
    text: str
    observations: Mapping[str, str]
    model: ModelIdentity
    written: datetime
    words: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    identity: str = ""

    def uuid(self, part: str) -> uuid.UUID:
        """Return the identifier of a part of this report."""
        named = (
            self.identity or hashlib.sha256("\n".join((self.id, str(self.model.uuid), self.text)).encode()).hexdigest()
        )
        return uuid.uuid5(_NAMESPACE, f"{named}\n{part}")

    def uid(self, part: str) -> str:
        """Return `uuid` as a DICOM UID (PS3.5 B.2)."""
        return f"2.25.{self.uuid(part).int}"


def draft_report(
    study: str, raw: str, model: ModelIdentity, *, written: datetime | None = None, identity: str = ""
) -> DraftReport:
    """Create a draft from the text that a model generated.

    Args:
        study: name of the study.
        raw: text of the report, as decoded by the tokenizer or formatted for reading.
        model: model that generated the report.
        written: time of generation; by default, now.
        identity: see `DraftReport`.
    """
    labels = label_report(raw)
    words: dict[str, tuple[str, ...]] = {}
    for entry in labels.evidence:
        words[entry.observation] = (*words.get(entry.observation, ()), readable(raw[entry.start : entry.end]))
    observations = {name: status for name in OBSERVATIONS if (status := labels.status(name)) != "blank"}
    return DraftReport(study, readable(raw), observations, model, written or datetime.now(UTC), words, identity)


def predicted_report(row: Prediction, provenance: Provenance, written: datetime | None = None) -> DraftReport:
    """Create a draft from a row of a predictions file."""
    model = ModelIdentity(
        name=provenance.model.rstrip("/").rpartition("/")[2] or provenance.system or "unknown",
        system=provenance.system or "unknown",
        weights=provenance.versions.get("weights_sha256", ""),
        version=provenance.versions.get("crossray", crossray.__version__),
    )
    return draft_report(row.id, row.prediction, model, written=written)
