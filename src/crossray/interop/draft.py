"""A machine-written report on its way to another system."""

import hashlib
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime

import crossray
from crossray.evaluation.predictions import Prediction, Provenance
from crossray.text.display import readable
from crossray.text.observations import OBSERVATIONS, label_report

#: What every report says of itself, wherever a person reads it.
NOTICE = "Research use only. Not a medical device. This draft was written by a machine and checked by nobody."

_NAMESPACE = uuid.UUID("6f5cf6fe-21d4-5f3c-9b43-7a2b4a1f6c55")


@dataclass(frozen=True)
class ModelIdentity:
    """The model that wrote a report.

    Attributes:
        name: as people call it: the folder's name, or "user/name" on the hub.
        system: such as "rcan".
        weights: SHA-256 of its weights; "" when unknown.
        version: of CrossRay.
    """

    name: str
    system: str
    weights: str = ""
    version: str = crossray.__version__

    @property
    def uuid(self) -> uuid.UUID:
        """The same for the same weights and version of CrossRay."""
        return uuid.uuid5(_NAMESPACE, "\n".join(("model", self.weights or self.name, self.system, self.version)))


@dataclass(frozen=True)
class DraftReport:
    """A report with what a receiver must know of it.

    Attributes:
        id: name of the study.
        text: as a person reads it.
        observations: observation to "positive", "negative" or "uncertain"; what is not mentioned is left out.
        words: observation to the words of the report that it rests on.
        model: who wrote it.
        written: when, with a time zone.
        identity: a name of this one report that is never given again, such as the journal's; "" to take study, model
            and text. Whatever is made of the report twice gets the same identifiers, so that a receiver has it once.
    """

    id: str
    text: str
    observations: Mapping[str, str]
    model: ModelIdentity
    written: datetime
    words: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    identity: str = ""

    def uuid(self, part: str) -> uuid.UUID:
        """Identifier of a part of this report."""
        named = (
            self.identity or hashlib.sha256("\n".join((self.id, str(self.model.uuid), self.text)).encode()).hexdigest()
        )
        return uuid.uuid5(_NAMESPACE, f"{named}\n{part}")

    def uid(self, part: str) -> str:
        """`uuid` as DICOM writes it (PS3.5 B.2)."""
        return f"2.25.{self.uuid(part).int}"


def draft_report(
    study: str, raw: str, model: ModelIdentity, *, written: datetime | None = None, identity: str = ""
) -> DraftReport:
    """A draft from what a model wrote.

    Args:
        study: name of the study.
        raw: the report in the tokenizer's form, or as a person reads it.
        model: who wrote it.
        written: when; now by default.
        identity: see `DraftReport`.
    """
    labels = label_report(raw)
    words: dict[str, tuple[str, ...]] = {}
    for entry in labels.evidence:
        words[entry.observation] = (*words.get(entry.observation, ()), readable(raw[entry.start : entry.end]))
    observations = {name: status for name in OBSERVATIONS if (status := labels.status(name)) != "blank"}
    return DraftReport(study, readable(raw), observations, model, written or datetime.now(UTC), words, identity)


def predicted_report(row: Prediction, provenance: Provenance, written: datetime | None = None) -> DraftReport:
    """A draft from a row of a predictions file."""
    model = ModelIdentity(
        name=provenance.model.rstrip("/").rpartition("/")[2] or provenance.system or "unknown",
        system=provenance.system or "unknown",
        weights=provenance.versions.get("weights_sha256", ""),
        version=provenance.versions.get("crossray", crossray.__version__),
    )
    return draft_report(row.id, row.prediction, model, written=written)
