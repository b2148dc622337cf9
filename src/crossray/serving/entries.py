"""What the journal stores: a study, and the objects that it came as."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class File:
    """An object of a study.

    Attributes:
        name: unique within the study: a file name, or a SOP instance UID.
        content: its bytes, repeated in no message.
    """

    name: str
    content: bytes = field(repr=False)


@dataclass(frozen=True)
class Entry:
    """A study as the journal knows it.

    Attributes:
        id: 32 hexadecimal digits, drawn at random.
        state: collecting, waiting, working, done or failed.
        origin: the way it came, such as "http" or "dicom".
        owner: who sent it: the name of an API key, the subject of a token, an AE title.
        key: the sender's own name for it, such as an Idempotency-Key or a study instance UID.
        model: served model that shall report it.
        options: of the request, JSON values.
        received: when; `changed`: when the state changed last.
        attempts: times that it was claimed.
        token: of the claim.
        delivered: when its report reached its receiver.
        error: why it failed, one sentence.
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

    @classmethod
    def of(cls, row: Mapping[Any, Any]) -> "Entry":
        """The study in a row of the table."""
        values = {name: row[name] for name in cls.__dataclass_fields__ if name != "options"}
        return cls(**values, options=json.loads(row["options"]))
