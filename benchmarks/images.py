"""Radiographs of a hospital's size into the store: each file against its decoder alone, in turn, in one run.

    python benchmarks/images.py [--json] [--repeats 12]

"share" of a JPEG is what Pillow's draft decoding alone takes of the time of the whole; of a PNG, what inflating its
pixels takes. The rows below a PNG say where the rest goes. Processor time of one core: other programs do not count.
"""

import io
import zlib
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from PIL import Image
from PIL.PngImagePlugin import PngImageFile

from common import parser, report
from crossray.data.images import read_image, resize_short_side
from crossray.data.images.pixels import grey
from crossray.data.images.remarks import Remarks
from loading import drawn_file, png_data, processor_seconds

SIZE = 256

#: Height and width of the PNG: a large chest radiograph.
PNG_SHAPE = (2496, 2048)


def png_of(pixels: Image.Image) -> bytes:
    stream = io.BytesIO()
    pixels.save(stream, "PNG")
    return stream.getvalue()


def decoded(content: bytes) -> Image.Image:
    image = PngImageFile(io.BytesIO(content))
    image.load()
    return image


def png_steps(name: str, content: bytes) -> dict[str, Callable[[], Any]]:
    """Inflating alone, the whole, and the steps of the whole."""
    deflated, image = png_data(content), decoded(content)
    pixels = grey(image, name, Remarks())
    return {
        "inflate": lambda: zlib.decompress(deflated),
        "whole": lambda: resize_short_side(read_image(content), SIZE),
        "verify checksums": lambda: PngImageFile(io.BytesIO(content)).verify(),
        "inflate and undo filters (Pillow)": lambda: decoded(content),
        "to gray levels": lambda: grey(image, name, Remarks()),
        "resample": lambda: resize_short_side(pixels, SIZE),
    }


def jpeg_steps(content: bytes) -> dict[str, Callable[[], Any]]:
    def draft() -> None:
        image = Image.open(io.BytesIO(content))
        image.draft(None, (2 * SIZE, 2 * SIZE))
        image.load()

    return {
        "draft decoding": draft,
        "whole": lambda: resize_short_side(read_image(content, draft_size=2 * SIZE), SIZE),
    }


def rows_of(name: str, steps: dict[str, Callable[[], Any]], repeats: int) -> list[dict[str, Any]]:
    """A row for the whole with its share, and one for every other step; medians of runs in turn."""
    times = np.array([[processor_seconds(step) for step in steps.values()] for _ in range(repeats)])
    median = dict(zip(steps, np.median(times, axis=0).tolist(), strict=True))
    alone = next(iter(median))
    whole = median.pop("whole")
    first = {"what": f"{name} to {SIZE} px", "ms": 1e3 * whole, "images/s": 1 / whole,
             "share": median[alone] / whole, "of": alone}  # fmt: skip
    return [first, *({"what": f"  {step}", "ms": 1e3 * seconds} for step, seconds in median.items())]


def main() -> None:
    options = parser(__doc__.splitlines()[0])
    options.add_argument("--repeats", type=int, default=12, help="measurements of each step")
    options.set_defaults(threads=1)
    arguments = options.parse_args()
    torch.set_num_threads(arguments.threads)
    png = drawn_file(*PNG_SHAPE, "PNG")
    image = decoded(png)
    files = {
        "JPEG 3056 x 2544": jpeg_steps(drawn_file(3056, 2544, "JPEG", quality=95)),
        "PNG 2496 x 2048, 8 bits": png_steps("8 bits", png),
        "PNG 2496 x 2048, 16 bits": png_steps(
            "16 bits", png_of(Image.fromarray(np.asarray(image).astype(np.uint16) * 16))
        ),
        "PNG 2496 x 2048, RGB": png_steps("RGB", png_of(image.convert("RGB"))),
    }
    rows = [row for name, steps in files.items() for row in rows_of(name, steps, arguments.repeats)]
    report(f"Files of radiographs to {SIZE} px", rows, json=arguments.json)


if __name__ == "__main__":
    main()
