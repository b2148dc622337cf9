"""Converts stored DICOM values to gray levels: modality, value of interest, polarity (PS3.3 C.7.5, C.11.1, C.11.2).

Every step maps values to values. Therefore, all steps are computed for a table with an entry for each of at most 65,536
stored values, in which the image is then looked up once.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from crossray.data.images.dicom_header import Header, Layout, number
from crossray.data.images.dicom_lut import lookup_table
from crossray.data.images.dicom_words import Words, read_words
from crossray.data.images.pixels import without_far_ones
from crossray.data.images.polarity import negative
from crossray.data.images.remarks import Remarks
from crossray.errors import UserError, quoted

Levels = NDArray[np.float64]


def grey_levels(header: Header, stored: NDArray[Any], layout: Layout, remark: Remarks) -> NDArray[np.uint8]:
    """Convert stored values to gray levels, as a viewer does.

    Args:
        header: header of the file.
        stored: (H, W) stored words.
        layout: pixel format from the header; MONOCHROME1 or 2.
        remark: receives the warnings.

    Returns:
        (H, W) uint8, 0 = black. Black and white are determined by the first VOI LUT, or else the first window, or else
        the lowest and highest value without outliers. Padding is black. If the image is certainly a negative with the
        polarity in the header, it is inverted (`polarity`).

    Raises:
        UserError: a number in the header is invalid, or all pixels are padding.
    """
    words = read_words(header, stored, layout, remark)
    values = words.values()
    levels = _of_interest(header, _physical(header, values, words, layout, remark), words, layout, remark)
    if layout.colour == "MONOCHROME1":
        levels = 1 - levels
    levels[words.padding] = 0
    pixels = _shown(levels, words)
    found = negative(pixels)
    if found == "likely":
        remark("PhotometricInterpretation", f"is {layout.colour}, and the image looks like a negative; check it")
    elif found:
        remark("PhotometricInterpretation", f"is {layout.colour}, but the image would be a negative; it is inverted")
        levels = 1 - levels
        levels[words.padding] = 0
        pixels = _shown(levels, words)
    return pixels


def _shown(levels: Levels, words: Words) -> NDArray[np.uint8]:
    table = np.round(np.clip(levels, 0, 1) * 255).astype(np.uint8)
    pixels: NDArray[np.uint8] = table[words.codes]
    if words.padded is not None:
        pixels[words.padded] = 0
    return pixels


def _physical(header: Header, values: Levels, words: Words, layout: Layout, remark: Remarks) -> Levels:
    """Apply the modality LUT, or slope and intercept (C.11.1)."""
    if header.has("ModalityLUTSequence"):
        table = lookup_table(header, "ModalityLUTSequence", words.signed, remark)
        if table is None:
            raise UserError(f"{header.name}: ModalityLUTSequence has no LUTData; export the image again")
        return table.look_up(values, values[words.present])
    slope, intercept = (_decimal(header, field) for field in ("RescaleSlope", "RescaleIntercept"))
    if slope == 0:
        remark("RescaleSlope", "is 0, which would leave one gray level; it is left out")
        return values
    return values * (1 if slope is None else slope) + (intercept or 0)


def _decimal(header: Header, field: str) -> float | None:
    """Return the first value of a decimal field; None if there is none; raise `UserError` if it is invalid."""
    text = header.text(field)
    value = number(text)
    if text and value is None:
        raise UserError(
            f"{header.name}: {field} is {quoted(text)}, which is not a valid number; export the image again"
        )
    return value


def _of_interest(header: Header, physical: Levels, words: Words, layout: Layout, remark: Remarks) -> Levels:
    """Map values to levels between 0 (black) and 1 (white) as for MONOCHROME2 (C.11.2)."""
    if header.has("VOILUTSequence"):
        table = lookup_table(header, "VOILUTSequence", bool(physical.min() < 0), remark)
        if table is None:
            remark("VOILUTSequence", "has no usable LUTData and is left out")
        else:
            levels: Levels = table.look_up(physical, physical[words.present]) / table.white(remark)
            return levels
    window = _first_window(header, remark)
    if window is not None:
        return _window(physical, *window)
    order = np.argsort(physical[words.present], kind="stable")
    low, high, far = without_far_ones(physical[words.present][order], words.counts[order])
    if far:
        remark("pixels", "have a few values far from all others; they do not count for black and white")
    stretched: Levels = (physical - low) / max(high - low, np.finfo(np.float64).tiny)
    return stretched


def _first_window(header: Header, remark: Remarks) -> tuple[float, float, str] | None:
    """Return center, width and function of the first usable window; None if there is none."""
    function = header.text("VOILUTFunction").upper() or "LINEAR"
    if function not in ("LINEAR", "LINEAR_EXACT", "SIGMOID"):
        remark("VOILUTFunction", "is none of LINEAR, LINEAR_EXACT and SIGMOID; LINEAR is taken")
        function = "LINEAR"
    texts = {field: header.texts(field) for field in ("WindowCenter", "WindowWidth")}
    if bool(texts["WindowCenter"]) != bool(texts["WindowWidth"]):
        missing = next(field for field in texts if not texts[field])
        remark(missing, "is missing; the window is left out")
    for pair in zip(*texts.values(), strict=False):
        center, width = map(number, pair)
        if center is None or width is None:
            field, text = next((f, t) for f, t in zip(texts, pair, strict=True) if number(t) is None)
            remark(field, f"is {quoted(text)}, no number that is read; the window is left out")
        elif width > 1 or (width > 0 and function != "LINEAR"):
            return center, width, function
        else:
            remark("WindowWidth", f"is not above {int(function == 'LINEAR')} and left out")
    return None


def _window(physical: Levels, center: float, width: float, function: str) -> Levels:
    """Apply a window (C.11.2.1.2, C.11.2.1.3); values outside [0, 1] are clipped later."""
    if function == "SIGMOID":
        return 1 / (1 + np.exp(np.clip(-4 * (physical - center) / width, -700, 700)))
    if function == "LINEAR_EXACT":
        return (physical - center) / width + 0.5
    return (physical - (center - 0.5)) / (width - 1) + 0.5
