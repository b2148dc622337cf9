"""The picture plane of a drawn view: anatomy coordinates, antialiased shapes, smooth fields."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

#: A layer the size of the picture, (H, W) float32.
Map = NDArray[np.floating[Any]]
#: Points (N, 2) in anatomy coordinates.
Points = NDArray[np.floating[Any]]
#: One point, or two radii.
Pair = Sequence[float] | Points

#: Antialiasing: shapes are painted at this multiple of the picture's resolution and averaged.
OVERSAMPLING = 2
#: Smooth maps are computed for one pixel in this many rows and columns.
COARSE = 4


@lru_cache(maxsize=64)
def _spline(count: int, samples: int, closed: bool) -> NDArray[np.float64]:
    """The matrix that maps `count` control points to the points of a Catmull-Rom curve."""
    identity = np.eye(count)
    if closed:
        before, start, end, after = (np.roll(identity, shift, 0) for shift in (1, 0, -1, -2))
    else:
        padded = np.concatenate([2 * identity[:1] - identity[1:2], identity, 2 * identity[-1:] - identity[-2:-1]])
        before, start, end, after = padded[:-3], padded[1:-2], padded[2:-1], padded[3:]
    t = (np.arange(samples) / samples)[None, :, None]
    curve = (-t + 2 * t**2 - t**3) * before[:, None] + (2 - 5 * t**2 + 3 * t**3) * start[:, None]
    curve = (curve + (t + 4 * t**2 - 3 * t**3) * end[:, None] + (t**3 - t**2) * after[:, None]) / 2
    matrix: NDArray[np.float64] = curve.reshape(-1, count)
    return matrix if closed else np.concatenate([matrix, identity[-1:]])


def smooth(points: Sequence[Pair] | Points, samples: int = 6, *, closed: bool = True) -> Points:
    """A Catmull-Rom curve through the points.

    Args:
        points: (N, 2) control points.
        samples: number of points per control point.
        closed: whether the curve returns to its first point.

    Returns:
        (N * samples, 2) points; for an open curve ((N - 1) * samples + 1, 2).
    """
    knots = np.asarray(points, dtype=np.float64)
    curve: Points = _spline(len(knots), samples, closed) @ knots
    return curve


def offset(x: float, y: float) -> Points:
    """A displacement (2,) in anatomy coordinates."""
    return np.asarray([x, y])


def ribbon(points: Points, radius: float | NDArray[np.float64]) -> Points:
    """The outline (2N, 2) of a band of half-width `radius` (scalar or (N,)) around a center line (N, 2)."""
    tangent = np.empty_like(points)
    tangent[1:-1], tangent[0], tangent[-1] = points[2:] - points[:-2], points[1] - points[0], points[-1] - points[-2]
    tangent *= (radius / np.maximum(np.hypot(tangent[:, 0], tangent[:, 1]), 1e-9))[:, None]
    normal = tangent[:, ::-1] * (-1.0, 1.0)
    return np.concatenate([points + normal, (points - normal)[::-1]])


@lru_cache(maxsize=8)
def _circle(samples: int) -> Points:
    turn = np.linspace(0, 2 * np.pi, samples, endpoint=False)
    return np.stack([np.cos(turn), np.sin(turn)], 1)


def ellipse(centre: Pair, radii: Pair, angle: float = 0.0, samples: int = 32) -> Points:
    """The outline (samples, 2) of an ellipse, rotated by `angle` radians clockwise as displayed."""
    points: Points = _circle(samples) * np.asarray(radii)
    if angle:
        cosine, sine = np.cos(angle), np.sin(angle)
        points = points @ np.asarray([[cosine, sine], [-sine, cosine]])
    return np.asarray(points + np.asarray(centre))


def soften(layer: Map, sigma: float) -> Map:
    """Blur with approximately a Gaussian of `sigma` pixels, for small `sigma`."""
    left = 2 * sigma**2
    layer = layer.copy()
    while left > 0.02:
        share = np.float32(0.25 * min(1.0, left))
        step = np.subtract(layer[1:], layer[:-1])
        step *= share
        layer[:-1] += step
        layer[1:] -= step
        step = np.subtract(layer[:, 1:], layer[:, :-1])
        step *= share
        layer[:, :-1] += step
        layer[:, 1:] -= step
        left -= 1
    return layer


def blob(rng: np.random.Generator, centre: Pair, radii: Pair, roughness: float = 0.2) -> Points:
    """The outline of an irregular patch around an ellipse."""
    knots = ellipse(centre, radii, rng.uniform(0, np.pi) * (radii[0] == radii[1]), 11)
    spread = 1 + roughness * rng.standard_normal((11, 1)).clip(-2, 2)
    return smooth(np.asarray(centre) + (knots - np.asarray(centre)) * spread, 4)


@dataclass(frozen=True)
class Frame:
    """The picture plane: maps anatomy coordinates to pixels.

    Anatomy coordinates are in picture widths. Before zoom, shift and tilt, x ranges from -0.5 (left) to 0.5, and y from
    0 (top) to 1 in a square picture; a taller picture shows more above and below.

    Attributes:
        width: number of columns.
        height: number of rows.
        zoom: magnification.
        shift: displacement (x, y) in picture widths.
        tilt: rotation in the plane, in radians.
    """

    width: int
    height: int
    zoom: float = 1.0
    shift: tuple[float, float] = (0.0, 0.0)
    tilt: float = 0.0

    @cached_property
    def _origin(self) -> NDArray[np.float64]:
        rise = 0.4 * (self.height / self.width - 1)
        return np.asarray([0.5 + self.shift[0], 0.5 + rise + self.shift[1]]) * self.width

    @cached_property
    def _matrix(self) -> NDArray[np.float64]:
        cosine, sine = np.cos(self.tilt), np.sin(self.tilt)
        return np.asarray([[cosine, sine], [-sine, cosine]]) * self.zoom * self.width

    def to_pixels(self, points: Points) -> Points:
        """Convert anatomy coordinates (N, 2) to pixel coordinates (N, 2): column, row."""
        return (points - (0.0, 0.5)) @ self._matrix + self._origin

    def _grid(self, columns: Points, rows: Points) -> tuple[Map, Map]:
        inverse = np.linalg.inv(self._matrix)
        column, row = (columns - self._origin[0])[None], (rows - self._origin[1])[:, None]
        x = column * inverse[0, 0] + row * inverse[1, 0]
        y = column * inverse[0, 1] + row * inverse[1, 1] + 0.5
        return x.astype(np.float32), y.astype(np.float32)

    @cached_property
    def coarse(self) -> tuple[Map, Map]:
        """X and y on a coarse grid, for computing smooth maps; `upsample` scales these to the picture."""
        rows, columns = -(-self.height // COARSE), -(-self.width // COARSE)
        return self._grid(
            (np.arange(columns) + 0.5) * (self.width / columns), (np.arange(rows) + 0.5) * (self.height / rows)
        )

    def upsample(self, coarse: Map) -> Map:
        """Scale a smooth map of any shape to the picture, (height, width)."""
        image = Image.fromarray(np.ascontiguousarray(coarse, dtype=np.float32))
        return np.asarray(image.resize((self.width, self.height), Image.Resampling.BILINEAR))

    def field(self, rng: np.random.Generator, cells: int) -> Map:
        """A smooth random field, (height, width), with standard deviation about 1 and `cells` bumps across."""
        rows = max(2, round(cells * self.height / self.width))
        image = Image.fromarray(rng.standard_normal((rows, cells), dtype=np.float32))
        return np.asarray(image.resize((self.width, self.height), Image.Resampling.BICUBIC))

    def paint(self) -> "Painter":
        """Create an empty layer to paint shapes on."""
        return Painter(self)

    def polygon(self, points: Points, blur: float = 0.0) -> Map:
        """Coverage in [0, 1] of a filled outline, (height, width)."""
        return self.paint().polygon(points).map(blur)


class Painter:
    """A layer of shapes, in which later shapes replace earlier ones; to add overlapping shapes, use two layers."""

    def __init__(self, frame: Frame) -> None:
        self.frame = frame
        self.image = Image.new("L", (frame.width * OVERSAMPLING, frame.height * OVERSAMPLING))
        self._pen = ImageDraw.Draw(self.image)
        self._scale = frame.zoom * frame.width * OVERSAMPLING

    def _flat(self, points: Points) -> list[float]:
        flat: list[float] = (self.frame.to_pixels(points) * OVERSAMPLING).ravel().tolist()
        return flat

    def polygon(self, points: Points, value: float = 1.0) -> "Painter":
        """Fill an outline (N, 2)."""
        self._pen.polygon(self._flat(points), fill=round(255 * value))
        return self

    def line(self, points: Points, thickness: float, value: float = 1.0, *, closed: bool = False) -> "Painter":
        """Draw a line (N, 2); if it is thinner than a pixel of the layer, it is drawn fainter instead."""
        wide = thickness * self._scale
        flat = self._flat(np.concatenate([points, points[:1]]) if closed else points)
        self._pen.line(flat, fill=round(255 * value * min(1.0, wide)), width=max(1, round(wide)), joint="curve")
        return self

    def strokes(self, paths: Points, thickness: Points, value: float = 1.0) -> "Painter":
        """Draw N short lines with points (N, K, 2) and thicknesses (N,)."""
        count = len(paths)
        flat = (self.frame.to_pixels(paths.reshape(-1, 2)) * OVERSAMPLING).reshape(count, 2 * paths.shape[1]).tolist()
        wide = thickness * self._scale
        fills = (255 * value * np.minimum(1.0, wide)).astype(int).tolist()
        for path, fill, width in zip(flat, fills, np.maximum(1, wide.round()).astype(int).tolist(), strict=True):
            self._pen.line(path, fill=fill, width=width)
        return self

    def tube(
        self, points: Points, radius: float | NDArray[np.float64], value: float = 0.6, edge: float = 1.0
    ) -> "Painter":
        """Draw a band with brighter borders, such as a bone, whose cortex is denser than its marrow."""
        outline = ribbon(points, radius)
        self.polygon(outline, value)
        half = len(points)
        thickness = 0.3 * float(np.mean(radius))
        return self.line(outline[:half], thickness, edge).line(outline[half:], thickness, edge)

    def map(self, blur: float = 0.0) -> Map:
        """The layer, (height, width) in [0, 1]; `blur` is approximately the sigma of a Gaussian in picture widths.

        The blur averages over larger cells and interpolates between them, which is faster than a filter.
        """
        sigma = blur * self.frame.width
        factor = OVERSAMPLING
        while sigma > 0.8 and factor < 32:
            factor, sigma = 2 * factor, sigma / 2
        layer = np.asarray(self.image.reduce(factor), dtype=np.float32) * np.float32(1 / 255)
        return layer if factor == OVERSAMPLING else self.frame.upsample(layer)
