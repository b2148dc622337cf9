"""Draws the branching vessels of the lungs."""

import numpy as np

from crossray.phantom.frame import Frame, Map, Points

_LEVELS = 6


def vessel_tree(
    rng: np.random.Generator, root: Points, directions: Points, reach: float, radius: float
) -> tuple[Points, Points]:
    """Sample a tree of short segments that bend and fork.

    Args:
        rng: random generator of bends and forks.
        root: (2,) origin of the trunks.
        directions: (N,) angles of the trunks in radians, clockwise from the right of the picture.
        reach: length of a trunk including its branches.
        radius: half-width of a trunk.

    Returns:
        Paths (M, 3, 2) of the segments and their thicknesses (M,), thin ones first.
    """
    count = len(directions)
    start = np.repeat(np.reshape(root, (1, 2)), count, 0) + 0.008 * rng.standard_normal((count, 2))
    angle = np.asarray(directions, dtype=np.float64)
    thick = 2 * radius * rng.uniform(0.7, 1.1, count)
    paths, thicknesses = [], []
    for level in range(_LEVELS):
        points = [start]
        for _ in range(2):
            step = reach * (0.135 - 0.011 * level) * rng.uniform(0.7, 1.3, len(angle))
            points.append(points[-1] + step[:, None] * np.stack([np.cos(angle), np.sin(angle)], 1))
            angle = angle + 0.2 * rng.standard_normal(len(angle))
        paths.append(np.stack(points, 1))
        thicknesses.append(thick)
        start, thick = points[-1], thick * 0.74
        fork = rng.uniform(0.2, 0.5, len(angle))
        if level < _LEVELS - 2:
            angle = np.concatenate([angle + fork, angle - rng.uniform(0.15, 0.5, len(angle))])
            start, thick = np.tile(start, (2, 1)), np.tile(thick, 2) * rng.uniform(0.55, 0.85, 2 * len(thick))
        else:  # the last segments do not fork: there are too many for each to matter
            angle, thick = angle + fork, 0.7 * thick
    return np.concatenate(paths[::-1]), np.concatenate(thicknesses[::-1])


def draw_vessels(frame: Frame, trees: list[tuple[Points, Points]], blur: float) -> Map:
    """Draw trees as one layer in [0, 1]; the attenuation of a vessel is proportional to its thickness."""
    painter = frame.paint()
    for paths, thicknesses in trees:
        strength = np.clip(thicknesses / 0.012, 0.16, 1.0)
        for low, high in ((0.0, 0.25), (0.25, 0.45), (0.45, 0.7), (0.7, 1.1)):
            chosen = (strength >= low) & (strength < high)
            painter.strokes(paths[chosen], thicknesses[chosen], min(1.0, (low + high) / 2 + 0.1))
    return painter.map(blur)
