"""Grey levels of stored DICOM values: padding, modality, value of interest, polarity (PS3.3 C.7.5, C.11.1, C.11.2).

Every step maps a value to a value, so all of them together are one table with an entry for each stored value, at most
65,536; an image of any size is looked up in it at once.
"""

import logging
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset

from crossray.errors import UserError

_LOGGER = logging.getLogger(__name__)

Levels = NDArray[np.float64]


def grey_levels(header: Dataset, values: NDArray[Any], name: str) -> NDArray[np.uint8]:
    """Show stored values as a viewer would.

    Args:
        header: with BitsStored (at most 16), PixelRepresentation and PhotometricInterpretation MONOCHROME1 or 2.
        values: (H, W) integers; bits above BitsStored are ignored.
        name: what messages call the image.

    Returns:
        (H, W) uint8, 0 = black. The first VOI LUT or else the first window decides what becomes black and white;
        without any, the lowest and highest value that occur. Padding is black.

    Raises:
        UserError: a number of the header makes no sense, or all pixels are padding.
    """
    count = 2 ** int(header.BitsStored)
    codes = values.astype(np.uint16) & np.uint16(count - 1)
    stored = np.arange(count, dtype=np.float64)
    if header.PixelRepresentation == 1:
        stored[count // 2 :] -= count
    padding = _padding(header, stored, count)
    occurs = np.zeros(count, dtype=bool)
    occurs[codes] = True
    occurs &= ~padding
    if not occurs.any():
        raise UserError(f"{name}: every pixel has the PixelPaddingValue; export the image again")
    levels = _of_interest(header, _physical(header, stored, name), occurs, name)
    if header.PhotometricInterpretation == "MONOCHROME1":
        levels = 1 - levels
    levels[padding] = 0
    table = np.round(np.clip(levels, 0, 1) * 255).astype(np.uint8)
    if np.ptp(table[occurs]) == 0:
        _LOGGER.warning("%s: the whole image has one grey level; check its window", name)
    pixels: NDArray[np.uint8] = table[codes]
    return pixels


def _padding(header: Dataset, stored: Levels, count: int) -> NDArray[np.bool_]:
    """Which stored values stand for "no image here"; the field's sign is often read wrongly, so bits are compared."""
    padding = np.zeros(count, dtype=bool)
    first = header.get("PixelPaddingValue")
    if first is None:
        return padding
    last = header.get("PixelPaddingRangeLimit", first)
    low, high = sorted(stored[int(value) & (count - 1)] for value in (first, last))
    padding[(stored >= low) & (stored <= high)] = True
    return padding


def _physical(header: Dataset, stored: Levels, name: str) -> Levels:
    """Modality LUT, or slope and intercept (C.11.1)."""
    if header.get("ModalityLUTSequence"):
        return _looked_up(header.ModalityLUTSequence[0], stored, name)[0]
    slope, intercept = _number(header, "RescaleSlope", name), _number(header, "RescaleIntercept", name)
    physical: Levels = stored * (1 if slope is None else slope) + (intercept or 0)
    return physical


def _of_interest(header: Dataset, physical: Levels, occurs: NDArray[np.bool_], name: str) -> Levels:
    """Levels that 0 and 1 limit: black and white, for MONOCHROME2 (C.11.2)."""
    if header.get("VOILUTSequence"):
        entries, bits = _looked_up(header.VOILUTSequence[0], physical, name)
        levels: Levels = entries / (2**bits - 1)
        return levels
    center, width = _number(header, "WindowCenter", name), _number(header, "WindowWidth", name)
    function = str(header.get("VOILUTFunction") or "LINEAR").strip().upper()
    if center is not None and width is not None:
        if width > 1 or (width > 0 and function != "LINEAR"):
            return _window(physical, center, width, function)
        _LOGGER.warning("%s: WindowWidth is not above %d and left out", name, function == "LINEAR")
    low, high = physical[occurs].min(), physical[occurs].max()
    stretched: Levels = (physical - low) / max(high - low, np.finfo(np.float64).tiny)
    return stretched


def _window(physical: Levels, center: float, width: float, function: str) -> Levels:
    """C.11.2.1.2 and C.11.2.1.3; values beyond 0 and 1 are clipped later."""
    if function == "SIGMOID":
        return 1 / (1 + np.exp(np.clip(-4 * (physical - center) / width, -700, 700)))
    if function == "LINEAR_EXACT":
        return (physical - center) / width + 0.5
    return (physical - (center - 0.5)) / (width - 1) + 0.5


def _looked_up(item: Dataset, values: Levels, name: str) -> tuple[Levels, int]:
    """Values through a lookup table (C.11.1.1), and the bits of its entries."""
    _, first, bits = (int(value) for value in item.LUTDescriptor)
    data = item.LUTData
    if isinstance(data, bytes):
        data = np.frombuffer(data, dtype="<u2" if bits > 8 else np.uint8)
    entries = np.atleast_1d(np.asarray(data, dtype=np.float64))
    if not (8 <= bits <= 16 and entries.size and entries.max() < 2**bits):
        raise UserError(f"{name}: LUTDescriptor contradicts its LUTData; export the image again")
    place = np.clip(np.floor(values) - first, 0, entries.size - 1).astype(np.int64)
    return entries[place], bits


def _number(header: Dataset, field: str, name: str) -> float | None:
    """The first value of a numeric field; None when there is none."""
    value = header.get(field)
    if value is None or value == "":
        return None
    number = float(value if isinstance(value, int | float | str) else value[0])
    if not abs(number) < 1e12:
        raise UserError(f"{name}: {field} is no number that pixels can have; export the image again")
    return number
