"""Images that are no chest radiographs, as Python packages ship them or a generator of random numbers draws them.

scikit-image, scikit-learn, matplotlib and pydicom have them in their wheels; nothing is downloaded. Each picture is
taken in gray, whole and in four parts.
"""

import gzip
from pathlib import Path

import matplotlib
import numpy as np
import pydicom
import skimage
import sklearn
from numpy.typing import NDArray
from PIL import Image

Pixels = NDArray[np.uint8]

#: Short side of what is returned, in pixels.
SIDE = 256

#: scikit-image's pictures, by what they show.
_PHOTOGRAPHS = (
    "astronaut camera chelsea coffee motorcycle_left motorcycle_right rocket horse clock_motion moon hubble_deep_field"
)
_TEXTURES = "brick grass gravel coins"
_PAGES = "page text color logo"
_MEDICAL = "retina microaneurysms ihc cell phantom"

#: pydicom's test files that show a slice of a body, each of another examination.
_SLICES = ("CT_small", "MR_small", "693_J2KI", "JPEG2000", "examples_overlay", "examples_jpeg2k")


def pictures(seed: int = 0) -> dict[str, list[Pixels]]:
    """What they show, to the images."""
    images = Path(skimage.__file__).parent / "data"
    learn = Path(sklearn.__file__).parent / "datasets" / "images"
    plots = Path(matplotlib.__file__).parent / "mpl-data" / "sample_data"
    shipped = {
        "photographs": [*_named(images, _PHOTOGRAPHS), *learn.glob("*.jpg"), plots / "grace_hopper.jpg"],
        "textures": _named(images, _TEXTURES),
        "printed pages": _named(images, _PAGES),
        "microscopy, retina": _named(images, _MEDICAL),
    }
    found = {
        name: [part for path in paths for part in _parts(_grey(Image.open(path)))] for name, paths in shipped.items()
    }
    found["CT and MR slices"] = [part for pixels in _slices(plots) for part in _parts(pixels)]
    found["noise"] = noise(100, seed)
    return found


def noise(count: int, seed: int = 0) -> list[Pixels]:
    """Uniform and Gaussian noise, as fine as a pixel or as coarse as CIFAR's 32 x 32, and smooth gradients of it."""
    random = np.random.default_rng(seed)
    found = []
    for number in range(count):
        side = (SIDE, 32, 8, 4)[number % 4]
        values = random.uniform(0, 255, (side, side)) if number % 8 < 4 else random.normal(128, 50, (side, side))
        small = Image.fromarray(np.clip(values, 0, 255).astype(np.uint8))
        found.append(np.array(small.resize((SIDE, SIDE), Image.Resampling.BICUBIC)))
    return found


def _named(folder: Path, names: str) -> list[Path]:
    return [next(folder.glob(f"{name}.*")) for name in names.split()]


def _grey(image: Image.Image) -> Pixels:
    return np.array(image.convert("L"))


def _slices(plots: Path) -> list[Pixels]:
    """Slices of pydicom and matplotlib, from their lowest to their highest value."""
    folder = Path(pydicom.__file__).parent / "data" / "test_files"
    found = []
    for name in _SLICES:
        path = folder / f"{name}.dcm"
        if path.exists():
            values = pydicom.dcmread(path).pixel_array
            found.append(_scaled(values[..., 0] if values.ndim == 3 else values))
    head = plots / "s1045.ima.gz"
    if head.exists():
        with gzip.open(head) as file:
            found.append(_scaled(np.frombuffer(file.read(), np.uint16).reshape(256, 256)))
    return found


def _scaled(values: NDArray[np.generic]) -> Pixels:
    levels = values.astype(np.float64)
    low, high = np.percentile(levels, (1, 99.5))
    scaled: Pixels = np.clip((levels - low) / max(high - low, 1e-9) * 255, 0, 255).astype(np.uint8)
    return scaled


def _parts(pixels: Pixels) -> list[Pixels]:
    """The image and its four quarters, short side `SIDE`."""
    height, width = pixels.shape[0] // 2, pixels.shape[1] // 2
    quarters = [pixels[y : y + height, x : x + width] for y in (0, height) for x in (0, width)]
    return [_resized(part) for part in (pixels, *quarters)]


def _resized(pixels: Pixels) -> Pixels:
    height, width = pixels.shape
    scale = SIDE / min(height, width)
    size = (max(SIDE, round(width * scale)), max(SIDE, round(height * scale)))
    return np.array(Image.fromarray(pixels).resize(size, Image.Resampling.BILINEAR))
