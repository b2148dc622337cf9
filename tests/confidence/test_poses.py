"""What poses do to an image whose corners are known."""

import numpy as np
import pytest

from crossray.confidence.poses import AS_IS, MISTAKES, Pose, draw_poses

PIXELS = np.array([[1, 2, 3], [4, 5, 6]], np.uint8)


@pytest.mark.parametrize(
    ("pose", "expected"),
    [
        (AS_IS, [[1, 2, 3], [4, 5, 6]]),
        (Pose(turns=1), [[4, 1], [5, 2], [6, 3]]),
        (Pose(turns=2), [[6, 5, 4], [3, 2, 1]]),
        (Pose(turns=3), [[3, 6], [2, 5], [1, 4]]),
        (Pose(mirrored=True), [[3, 2, 1], [6, 5, 4]]),
        (Pose(inverted=True), [[254, 253, 252], [251, 250, 249]]),
        (Pose(turns=1, mirrored=True), [[6, 3], [5, 2], [4, 1]]),
    ],
)
def test_a_pose_turns_clockwise_mirrors_and_inverts(pose: Pose, expected: list[list[int]]) -> None:
    assert pose(PIXELS).tolist() == expected


def test_no_mistake_leaves_an_image_as_it_is() -> None:
    assert all(pose != AS_IS for pose in MISTAKES.values())


def test_drawn_poses_are_upright_half_of_the_time() -> None:
    poses = draw_poses(4000, np.random.default_rng(0))
    shares = [
        np.mean([pose.turns == 0 for pose in poses]),
        np.mean([pose.inverted for pose in poses]),
        np.mean([pose.mirrored for pose in poses]),
    ]
    assert shares == pytest.approx([0.5, 0.5, 0.5], abs=0.04)
    assert poses == draw_poses(4000, np.random.default_rng(0))
