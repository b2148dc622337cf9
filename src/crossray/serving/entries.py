"""Records of the journal: studies and their objects."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

#: Beginning of the reason if the service, and not the study, is at fault.
SERVICE_FAILED = "the service failed"


@dataclass(frozen=True)
class File:
    """An object of a study.

    Attributes:
        name: name that is unique within the study: a number, or a SOP instance UID.
        content: content of the file, which never appears in messages.
    """

    name: str
    content: bytes = field(repr=False)


class StudyFullError(Exception):
    """An object exceeds the limits of its study, however often it is sent.

    Attributes:
        study: id of the study; None if this is its first object.
    """

    def __init__(self, study: str | None) -> None:
        """Name the study."""
        super().__init__()
        self.study = study


@dataclass(frozen=True)
class Entry:
    """A study in the journal.

    Attributes:
        id: 32 random hexadecimal digits.
        state: collecting, waiting, working, done or failed; see `crossray.serving.journal`.
        origin: how the study was received, such as "http" or "dicom".
        owner: who sent it: the name of an API key, the subject of a token, or an AE title.
        key: the sender's identifier of the study, such as an Idempotency-Key or a study instance UID.
        model: name of the model that reports the study.
        options: options of the request, as JSON values.
        received: time of arrival; `changed`: time of the last state change; both in seconds since 1970.
        attempts: number of claims.
        token: token of the current claim.
        delivered: time when the receiver confirmed the report; None before.
        error: why the study failed, in one sentence; None otherwise.
    """

    id: str
    state: str
    origin: str
    owner: str
    key: str | None
    model: str
    options: Mapping[str, Any]
    received: float
    changed: float
    attempts: int
    token: str | None
    delivered: float | None
    error: str | None

    @property
    def service_failed(self) -> bool:
        """Whether the service is at fault, so that a second attempt may succeed."""
        return (self.error or "").startswith(SERVICE_FAILED)

    @classmethod
    def of(cls, row: Mapping[Any, Any]) -> "Entry":
        """Create an entry from a row of the table."""
        values = {name: row[name] for name in cls.__dataclass_fields__ if name != "options"}
        return cls(**values, options=json.loads(row["options"]))
