"""How often a wrong DICOM header is noticed, on radiographs whose values are known.

    python benchmarks/dicom_headers.py FOLDER [FOLDER ...] [--most 100]

Every 8-bit radiograph of the folders is written as DICOM with 8, 12 and 16 bits, signed and inverted, with a right
header and with a wrong BitsStored or PixelRepresentation. Printed is how many are shown right, refused, or wrong, and
how many right ones got a warning.
"""

import argparse
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
from tests.data.images.dicom_files import dicom

from crossray.data.images import read_image
from crossray.data.images.dicom_words import _roughness
from crossray.data.images.pixels import remark_blank
from crossray.data.images.read import _read
from crossray.data.images.remarks import Remarks
from crossray.errors import UserError


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", nargs="+", type=Path)
    parser.add_argument("--most", type=int, default=100, help="radiographs of each folder")
    arguments = parser.parse_args()
    counts: Counter[tuple[str, str]] = Counter()
    noise = []
    paths = [path for folder in arguments.folders for path in sorted(folder.iterdir())[: arguments.most]]
    for path in paths:
        grey = read_image(path)
        remark = Remarks()
        remark_blank(grey, remark)
        if remark.texts:
            continue
        deep = grey.astype(np.uint16) * 16
        noise.append(_roughness(deep, None, 12, False).noise)
        inverted = {"BitsStored": 12, "PhotometricInterpretation": "MONOCHROME1"}
        kinds: tuple[tuple[Any, dict[str, Any], int], ...] = (
            (grey, {"BitsStored": 8}, 7),
            (deep, {"BitsStored": 12}, 10),
            (grey.astype(np.uint16) * 257, {"BitsStored": 16}, 10),
            (deep.astype(np.int16) - 2048, {"BitsStored": 12}, 10),
            (4095 - deep, inverted, 10),
        )
        for values, fields, fewer in kinds:
            sign = int(values.dtype.kind != "i")
            for fault, wrong in (
                ("right header", {}),
                ("BitsStored too small", {"BitsStored": fewer}),
                ("PixelRepresentation wrong", {"PixelRepresentation": sign}),
            ):
                counts[fault, outcome(dicom(values, **{**fields, **wrong}), grey)] += 1
    for (fault, result), number in sorted(counts.items()):
        print(f"{fault:28}{result:24}{number:6}")
    print(f"noise of {len(noise)} radiographs: median {np.median(noise):.4f}, highest {max(noise):.4f}")


def outcome(content: bytes, expected: Any) -> str:
    """What became of a file."""
    remark = Remarks()
    try:
        pixels = _read(content, "image", None, remark)
    except UserError:
        return "refused"
    alike = np.corrcoef(pixels.ravel().astype(float), expected.ravel().astype(float))[0, 1] > 0.98
    return f"{'right' if alike else 'WRONG'}{', warning' * bool(remark.texts)}"


if __name__ == "__main__":
    main()
