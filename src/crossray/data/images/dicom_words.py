"""Finds the bits of a stored word that contain the value and its sign, from the header and the values.

A radiograph is smooth: neighboring pixels differ little. A value that lost its high bits, or whose sign was
misinterpreted, wraps around, and neighbors at the edge of a wrap differ by the whole range. Therefore, the
interpretation that is by far the smoothest is correct; an overlay or noise in the unused bits makes an interpretation
rougher, not smoother.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from crossray.data.images.dicom_header import Header, Layout
from crossray.data.images.pixels import histogram
from crossray.data.images.remarks import Remarks
from crossray.errors import UserError

#: Roughness, relative to the header's interpretation, below which another number of bits is certain.
_OTHER_WIDTH = 0.5

#: The same for another sign, and the minimum number of distinct values in each half of the range: a few white marks
#: next to black look like small negative numbers.
_OTHER_SIGN = 0.25
_LEAST_VALUES = 32

#: Noise (`_Roughness`) above which an interpretation is not an image; known radiographs have 0.001 to 0.1.
_ROUGH = 0.3

#: Number of rows whose pixels are compared with their neighbors to the right and below.
_ROWS = 64


@dataclass(frozen=True, slots=True)
class Words:
    """The values of an image as codes of `bits` bits.

    Attributes:
        codes: (H, W) uint16, below 2^bits.
        bits: width of a value.
        signed: whether the highest of these bits is a sign.
        padding: (2^bits,) bool, codes that mean "no image here".
        padded: (H, W) bool, pixels that are padding whatever their code; None if there are none.
        present: (n,) codes that occur and are not padding, ascending.
        counts: (n,) number of pixels of each of these codes.
    """

    codes: NDArray[np.uint16]
    bits: int
    signed: bool
    padding: NDArray[np.bool_]
    padded: NDArray[np.bool_] | None
    present: NDArray[np.int64]
    counts: NDArray[np.int64]

    def values(self) -> NDArray[np.float64]:
        """Return the value of every code, (2^bits,)."""
        numbers = np.arange(2**self.bits, dtype=np.float64)
        if self.signed:
            numbers[2 ** (self.bits - 1) :] -= 2**self.bits
        return numbers


def read_words(header: Header, stored: NDArray[Any], layout: Layout, remark: Remarks) -> Words:
    """Find the values in the stored words.

    Args:
        header: header of the file, for HighBit and the padding.
        stored: (H, W) words of 8 or 16 bits, signed or not.
        layout: pixel format, for BitsStored and PixelRepresentation.
        remark: receives the warnings.

    Returns:
        The values as codes.

    Raises:
        UserError: bits above BitsStored are set and no interpretation is certain, or all pixels are padding.
    """
    container = 8 * stored.dtype.itemsize
    words = stored.astype(np.uint16)  # two's complement for negative ones
    if stored.dtype.kind == "i" and container == 8:
        container = 16
    words = _shifted(header, words, layout, container, remark)
    if layout.stored > container:
        remark("BitsStored", f"is {layout.stored}, but the data have {container} bits a pixel; these are read")
        layout.stored = container
    padding = _Padding.of(header)
    present, counts = histogram(words, 2**16)
    bits, signed = _reading(header.name, words, present[present != padding.first], padding, layout, container, remark)
    return _coded(header.name, words, present, counts, bits, signed, padding, remark)


def _shifted(
    header: Header, words: NDArray[np.uint16], layout: Layout, container: int, remark: Remarks
) -> NDArray[np.uint16]:
    """Shift the words so that the values begin at bit 0, because HighBit may place them higher."""
    high = header.integer("HighBit")
    shift = 0 if high is None else high + 1 - layout.stored
    if shift == 0 or header.encapsulated:
        return words
    fits = bool((words < 2**layout.stored).all())
    if shift < 0 or high is None or high >= container or (fits and bool((words & (2**shift - 1)).any())):
        remark("HighBit", f"is {high}, but the values begin at bit 0; they are read from there")
        return words
    return words >> np.uint16(shift)


@dataclass(frozen=True, slots=True)
class _Padding:
    """PixelPaddingValue and PixelPaddingRangeLimit as words; None if missing."""

    first: int | None
    last: int | None

    @classmethod
    def of(cls, header: Header) -> "_Padding":
        first, last = header.integer("PixelPaddingValue"), header.integer("PixelPaddingRangeLimit")
        mask = 2**16 - 1
        return cls(None if first is None else first & mask, None if last is None or first is None else last & mask)


def _code(word: int, bits: int, signed: bool) -> int | None:
    """Return the code of a word; None if it does not fit the bits. The sign of the field is often wrong."""
    fits = word < 2**bits or (signed and word >= 2**16 - 2 ** (bits - 1))
    return word % 2**bits if fits else None


def _reading(
    name: str,
    words: NDArray[np.uint16],
    present: NDArray[np.int64],
    padding: _Padding,
    layout: Layout,
    container: int,
    remark: Remarks,
) -> tuple[int, bool]:
    """Determine the bits of a value and its sign; `present` are the words that occur and are not padding."""
    stored, signed = layout.stored, layout.signed
    half = 2 ** (stored - 1)
    extended = present >= 2**16 - half if signed and container == 16 else np.zeros(len(present), bool)
    beyond = (present >= 2**stored) & ~extended
    if not beyond.any() and not _both_signs(present, stored):
        return stored, signed
    rough = {
        (bits, sign): _roughness(words, padding.first, bits, sign)
        for sign in (signed, not signed)
        for bits in range(stored, container + 1 if beyond.any() else stored + 1)
    }
    said = rough[stored, signed]
    certain = [
        (bits, sign)
        for (bits, sign), found in rough.items()
        if found.noise <= _ROUGH
        and (sign == signed or _both_signs(present, bits))
        and found.is_certainly_smoother(said, _OTHER_WIDTH if sign == signed else _OTHER_SIGN)
    ]
    if not certain:
        if not beyond.any():
            return stored, signed
        if said.noise <= _ROUGH and said.squares == min(
            rough[reading].squares for reading in rough if reading[1] == signed
        ):
            remark("BitsStored", f"is {stored}, and bits above it hold no part of the image; they are left out")
            return stored, signed
        raise UserError(f"{name}: BitsStored is {stored}, but the pixels use higher bits, and it is not certain what "
                        "these mean; export the image again")  # fmt: skip
    bits, sign = min(certain, key=lambda reading: rough[reading].squares * rough[reading].noise)
    if bits != stored:
        remark("BitsStored", f"is {stored}, but the values use {bits} bits; these are read")
    if sign != signed:
        remark("PixelRepresentation", f"is {int(signed)}, but the values are {'signed' if sign else 'unsigned'}")
    return bits, sign


def _both_signs(present: NDArray[np.int64], bits: int) -> bool:
    """Whether both halves of the range contain many values, so that the sign matters."""
    negative = (present >> (bits - 1)) & 1 == 1
    return min(int(negative.sum()), int((~negative).sum())) >= _LEAST_VALUES


@dataclass(frozen=True, slots=True)
class _Roughness:
    """How much neighboring values differ in a sample of the rows.

    Attributes:
        squares: mean squared difference.
        noise: `squares` divided by twice the variance: far below 1 in a picture, 1 in noise (von Neumann's ratio).
    """

    squares: float
    noise: float

    def is_certainly_smoother(self, said: "_Roughness", share: float) -> bool:
        """Whether this interpretation is correct and that of the header (`said`) is wrong.

        If the values of the header's interpretation wrap around in a few places, its squared differences are far
        larger; if they wrap around everywhere, it is noise.
        """
        return self.squares < share * said.squares or (said.noise > _ROUGH and self.noise < _OTHER_SIGN * said.noise)


def _roughness(words: NDArray[np.uint16], padded: int | None, bits: int, signed: bool) -> _Roughness:
    rows = np.unique(np.linspace(0, words.shape[0] - 2, min(_ROWS, words.shape[0] - 1)).astype(int))
    upper, lower = words[rows], words[rows + 1]
    total, count = 0.0, 0
    for first, second in ((upper[:, :-1], upper[:, 1:]), (upper, lower)):
        difference = _numbers(first, bits, signed) - _numbers(second, bits, signed)
        if padded is not None:
            difference = difference[(first != padded) & (second != padded)]
        total += float(np.square(difference, dtype=np.float64).sum())
        count += difference.size
    squares = total / max(count, 1)
    values = _numbers(upper if padded is None else upper[upper != padded], bits, signed)
    variance = float(values.var()) if values.size else 0.0
    return _Roughness(squares, squares / (2 * variance) if variance else 0.0)


def _numbers(words: NDArray[np.uint16], bits: int, signed: bool) -> NDArray[np.int32]:
    numbers = (words & np.uint16(2**bits - 1)).astype(np.int32)
    if signed:
        numbers[numbers >= 2 ** (bits - 1)] -= 2**bits
    return numbers


def _coded(
    name: str,
    words: NDArray[np.uint16],
    present: NDArray[np.int64],
    counts: NDArray[np.int64],
    bits: int,
    signed: bool,
    padding: _Padding,
    remark: Remarks,
) -> Words:
    is_padding, padded = np.zeros(2**bits, dtype=bool), None
    if padding.first is not None:
        first = _code(padding.first, bits, signed)
        last = first if padding.last is None else _code(padding.last, bits, signed)
        if first is None:
            remark("PixelPaddingValue", f"needs more than the {bits} bits of a value; no value of the image is padding")
            if padding.first in present:
                padded = words == padding.first
                counts = counts[present != padding.first]
                present = present[present != padding.first]
        else:
            if last is None:
                remark("PixelPaddingRangeLimit", f"needs more than the {bits} bits of a value and is left out")
                last = first
            ends = sorted(code - 2**bits * (signed and code >= 2 ** (bits - 1)) for code in (first, last))
            is_padding[np.arange(ends[0], ends[1] + 1) % 2**bits] = True
    times = np.bincount(present & (2**bits - 1), weights=counts, minlength=2**bits).astype(np.int64)
    kept = np.flatnonzero((times > 0) & ~is_padding)
    if not kept.size:
        raise UserError(f"{name}: every pixel has the PixelPaddingValue; export the image again")
    return Words(words & np.uint16(2**bits - 1), bits, signed, is_padding, padded, kept, times[kept])
