"""A sampler of plausible poses, only to fit the open hand's pose components."""

from __future__ import annotations

import numpy as np
from open_hand_skeleton import axis_angle, joint_limits, rotations_from_angles

FINGER_ROWS = {"index": 0, "middle": 3, "little": 6, "ring": 9}
ORDER = ("index", "middle", "ring", "little")


def sample_angles(count: int, rng: np.random.Generator) -> np.ndarray:
    """Anatomical angles (count, 15, 3) in radians, within the limits."""
    angles = np.zeros((count, 15, 3))
    limits = joint_limits()
    # Closing of each finger in [0, 1]: shared, neighbour and single-finger parts.
    shared = rng.beta(0.8, 1.0, (count, 1))
    walk = np.cumsum(rng.normal(0, 0.16, (count, 4)), 1)
    free = rng.normal(0, 0.10, (count, 4))
    closing = np.clip(shared + walk - walk.mean(1, keepdims=True) + free, -0.1, 1)
    # In a third of the poses some fingers are extended while the others stay closed, as in signs.
    signs = rng.random(count) < 0.35
    up = rng.random((count, 4)) < 0.45
    closing[signs] = np.where(
        up[signs], rng.uniform(-0.05, 0.2, (signs.sum(), 4)), rng.uniform(0.6, 1, (signs.sum(), 4))
    )
    spread = rng.normal(0, 7, (count, 1)) * (1 - np.clip(closing, 0, 1))
    for i, finger in enumerate(ORDER):
        row = FINGER_ROWS[finger]
        hook = rng.normal(0, 14, count)
        mcp = 82 * closing[:, i] - hook * (0.3 + closing[:, i])
        pip = np.maximum(3, 98 * closing[:, i] + hook)
        dip = 0.66 * pip * rng.normal(1, 0.12, count)
        angles[:, row, 0], angles[:, row + 1, 0], angles[:, row + 2, 0] = mcp, pip, dip
        angles[:, row, 1] = spread[:, i] * (1.2, 0.2, -0.5, -1.3)[i] + rng.normal(0, 3, count)
    opposition = np.clip(0.5 * shared[:, 0] + rng.normal(0.15, 0.3, count), 0, 1)
    angles[:, 12, 0] = -15 + 40 * opposition + rng.normal(0, 8, count)
    angles[:, 12, 1] = rng.normal(5, 12, count)
    angles[:, 12, 2] = -20 * opposition
    angles[:, 13, 0] = 5 + 40 * opposition + rng.normal(0, 10, count)
    angles[:, 14, 0] = 5 + 40 * opposition + rng.normal(0, 18, count)
    # A little play everywhere, so that no component has zero variance (and an arbitrary direction).
    angles += rng.normal(0, 0.6, angles.shape)
    return np.clip(np.radians(angles), limits[..., 0], limits[..., 1])


def pose_components(frames: np.ndarray, count: int = 20_000, seed: int = 7):
    """Principal components of sampled poses: rows (45, 45), mean (45,), standard deviations (45,)."""
    angles = sample_angles(count, np.random.default_rng(seed))
    poses = axis_angle(rotations_from_angles(angles, frames)).reshape(count, 45)
    mean = poses.mean(0)
    values, vectors = np.linalg.eigh(np.cov(poses.T))
    rows = vectors[:, ::-1].T
    # The sign of an eigenvector is arbitrary: make its largest entry positive.
    rows *= np.sign(rows[np.arange(45), np.abs(rows).argmax(1)])[:, None]
    return rows, mean, np.sqrt(np.maximum(values[::-1], 0))
