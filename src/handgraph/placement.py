"""From a hand about its own wrist to a hand before the camera.

A network that sees one colour image knows a hand's shape up to its size and its distance. Its size comes from
outside, as lengths of bones; its distance then follows from where the joints are seen.
"""

import numpy as np

from handgraph.camera import PinholeCamera
from handgraph.errors import InputError
from handgraph.shapes import Float
from handgraph.skeleton import BONES

MIDDLE_FINGER = (0, 9, 10, 11, 12)
"""Wrist, then the middle finger from its knuckle to its tip."""


def bone_length(joints: Float[np.ndarray, "*b 21 3"], bone: tuple[int, int]) -> Float[np.ndarray, " *b"]:
    """The distance of two joints, in the joints' own unit."""
    return np.asarray(np.linalg.norm(joints[..., bone[1], :] - joints[..., bone[0], :], axis=-1))


def bone_lengths(joints: Float[np.ndarray, "*b 21 3"]) -> Float[np.ndarray, "*b 20"]:
    """The lengths of all bones in the order of `skeleton.BONES`, in the joints' own unit."""
    near, far = np.transpose(BONES)
    return np.asarray(np.linalg.norm(joints[..., far, :] - joints[..., near, :], axis=-1))


def relative_size(
    bones: Float[np.ndarray, "*b 20"], reference: Float[np.ndarray, "*#b 20"]
) -> Float[np.ndarray, " *b"]:
    """How large a hand is over another one by the bones of both: the median of their lengths' ratios.

    Data sets put a joint, and so its bones, in different places of the hand: the median is what most bones
    agree on. Bones that are NaN in either count nothing; NaN where none is left.
    """
    ratio = np.asarray(bones, np.float64) / np.asarray(reference, np.float64)
    middle = np.full(ratio.shape[:-1], np.nan)
    known = np.isfinite(ratio).any(axis=-1)
    middle[known] = np.nanmedian(ratio[known], axis=-1)
    return middle


def hand_length(joints: Float[np.ndarray, "*b 21 3"]) -> Float[np.ndarray, " *b"]:
    """From the wrist to the middle finger's tip along the bones, in the joints' own unit.

    The same whether the hand is open or closed: the unit of `hand.RELATIVE_FRAME`.
    """
    path = joints[..., MIDDLE_FINGER, :]
    return np.asarray(np.linalg.norm(np.diff(path, axis=-2), axis=-1).sum(axis=-1))


def root_translation(
    relative_mm: Float[np.ndarray, "n 3"],
    keypoints_px: Float[np.ndarray, "n 2"],
    camera: PinholeCamera,
    weights: Float[np.ndarray, " n"] | None = None,
) -> Float[np.ndarray, " 3"]:
    """Where the root is (mm, camera frame) for the joints to be seen at their keypoints, in closed form.

    A joint X + t is seen at (u, v) where fx (X + t_x) = (u - cx) (Z + t_z), and likewise for v: two equations
    linear in t. They are solved together in the sense of least squares, `weights` counting a joint's more or
    less. A residual is a joint's distance from its pixel's ray along x or y, in mm at the joint's depth.

    Raises InputError where the joints do not say how far the hand is, or would put it behind the camera.
    """
    x, y, z = np.asarray(relative_mm, dtype=np.float64).T
    u, v = np.asarray(keypoints_px, dtype=np.float64).T
    ray_x, ray_y = (u - camera.cx) / camera.fx, (v - camera.cy) / camera.fy
    root = np.sqrt(np.ones(len(x)) if weights is None else np.asarray(weights, dtype=np.float64))
    zero, one = np.zeros(len(x)), np.ones(len(x))
    # t_x - ray_x t_z = ray_x Z - X
    matrix = np.concatenate([np.stack([one, zero, -ray_x], axis=1), np.stack([zero, one, -ray_y], axis=1)])
    right = np.concatenate([ray_x * z - x, ray_y * z - y])
    both = np.tile(root, 2)
    solution, _, rank, _ = np.linalg.lstsq(matrix * both[:, None], right * both, rcond=1e-9)
    if rank < 3 or not np.isfinite(solution).all():
        raise InputError("all keypoints are at one place: how far the hand is cannot be told from them")
    if (z + solution[2]).min() <= 0:
        raise InputError(
            f"the keypoints put the hand's root at a depth of {solution[2]:.0f} mm, behind the camera: "
            "expected keypoints as far apart as the camera would see such a hand"
        )
    return solution
