"""Reads lookup tables for modality and value of interest from DICOM headers (PS3.3 C.11.1.1, C.11.2.1.1).

LUTDescriptor contains the number of entries, the first mapped value, and the number of bits per entry. The last one is
often wrong, so it is derived from the entries.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom.tag import Tag

from crossray.data.images.dicom_header import Header
from crossray.data.images.remarks import Remarks
from crossray.errors import UserError


@dataclass(frozen=True, slots=True)
class LookupTable:
    """One lookup table.

    Attributes:
        name: name of the file in messages.
        entries: (n,) outputs for the values first, first + 1, ...; other values use the nearest entry.
        first: value of the first entry.
        bits: number of bits per entry in LUTDescriptor.
        missing: number of entries that LUTDescriptor announces and LUTData lacks.
    """

    name: str
    entries: NDArray[np.float64]
    first: int
    bits: int
    missing: int

    def look_up(self, values: NDArray[np.float64], present: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the entry of every value.

        Args:
            values: (n,) all possible values.
            present: values that occur in the image.

        Returns:
            (n,) entries.

        Raises:
            UserError: the entry of a value that occurs is missing.
        """
        last = self.first + self.entries.size - 1
        if self.missing and present.max() > last:
            raise UserError(f"{self.name}: LUTData lacks {self.missing} of the entries that LUTDescriptor announces; "
                            "export the image again")  # fmt: skip
        places = np.clip(np.floor(values) - self.first, 0, self.entries.size - 1).astype(np.int64)
        found: NDArray[np.float64] = self.entries[places]
        return found

    def white(self, remark: Remarks) -> float:
        """Return the output for white: the largest value with the number of bits that the entries use."""
        used = int(self.entries.max()).bit_length()
        if used != self.bits:
            remark(
                "LUTDescriptor", f"says that entries have {self.bits} bits, but they use {used}; the highest is white"
            )
        return float(2**used - 1)


def lookup_table(header: Header, field: str, signed: bool, remark: Remarks) -> LookupTable | None:
    """Read the first table of a sequence.

    Args:
        header: header of the file.
        field: "ModalityLUTSequence" or "VOILUTSequence".
        signed: whether the values to look up can be negative.
        remark: receives the warnings.

    Returns:
        The table; None if the sequence has none, or all entries are equal.

    Raises:
        UserError: LUTDescriptor is invalid.
    """
    try:
        item = header.dataset[field].value[0]
        descriptor = [int(value) for value in item.LUTDescriptor]
        data = _stored(item)
    except (KeyError, IndexError, AttributeError, TypeError):
        return None
    except Exception:  # pydicom can raise almost any error
        raise UserError(f"{header.name}: LUTDescriptor or LUTData of {field} cannot be read; export the image "
                        "again") from None  # fmt: skip
    if data is None or not len(data):
        return None
    if len(descriptor) != 3:
        raise UserError(f"{header.name}: LUTDescriptor of {field} has {len(descriptor)} numbers instead of 3; export "
                        "the image again")  # fmt: skip
    count, first, bits = descriptor[0] & 0xFFFF or 2**16, descriptor[1], descriptor[2] & 0xFFFF
    if signed and first > 2**15 - 1:
        first -= 2**16
    little = header.dataset.original_encoding[1] is not False
    entries = _entries(data, count, bits, little)[:count]
    if not entries.size or entries.min() == entries.max():
        return None
    if entries.size < count:
        remark("LUTDescriptor", f"announces {count} entries, but LUTData has {entries.size}")
    return LookupTable(header.name, entries.astype(np.float64), first, bits, count - entries.size)


def _stored(item: Any) -> Any:
    """Return LUTData as bytes or as a sequence of numbers, depending on what pydicom returns."""
    element = item.get_item(Tag("LUTData"))
    value = element.value if isinstance(element.value, bytes) else item.LUTData
    return [value] if isinstance(value, int) else value


def _entries(data: Any, count: int, bits: int, little: bool) -> NDArray[np.integer[Any]]:
    """Decode entries of one or two bytes each, according to the length of the data or else to LUTDescriptor."""
    if not isinstance(data, bytes):
        return np.atleast_1d(np.asarray(data, dtype=np.int64)) & 0xFFFF
    if len(data) in (count, count + count % 2) or (bits <= 8 and len(data) < 2 * count):
        return np.frombuffer(data, np.uint8)
    return np.frombuffer(data[: len(data) // 2 * 2], "<u2" if little else ">u2")
