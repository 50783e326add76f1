"""JGR-P2O's answer → `Hand`s: joints in a depth cube, and how well the pixels agree about them.

With `laid` the hand model lies on the surface that the crop shows, begun at these joints. That is ours, not
the paper's.
"""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from handgraph.arrays import array
from handgraph.camera import Crop
from handgraph.errors import ConfigError
from handgraph.hand import Hand
from handgraph.shapes import Float
from handgraph.skeleton import JOINT_NAMES

if TYPE_CHECKING:
    from handgraph.hand_model.fitting import Fit

# A joint's confidence is the probability that it is within 20 mm of the truth, from the weighted spread of
# what the pixels say: one half at the first number (mm), falling the faster around there the larger the
# second. Fitted to the shipped weights by tools/calibrate_confidence.py; other weights have other numbers.
SPREAD_AT_HALF_MM = 41.1
SPREAD_STEEPNESS = 2.71
# How much a joint weighs where the hand is laid on the surface falls with the square of that spread: 1 at the
# first number, no more than at the second.
SPREAD_OF_WEIGHT_1_MM = 20.0
LEAST_SPREAD_MM = 5.0
SHAPE_ERROR = (0.29, 0.8, 0.64, 0.82, 0.82, 0.61, 0.81, 0.79, 1.11, 1.04)
"""What the shapes of one person's laid hands are off by alike, of the shipped weights (the same tool)."""
MOST_LOOKS = 4
"""A crop has so many quarter turns."""


class Answer(NamedTuple):
    """What the network says of a batch of crops, in arrays or tensors."""

    uvz: Float[Any, "b n 3"]
    """The joints: u, v in [0, 1] from the first pixel centre to the last, z in [-1, 1] through the cube."""
    spread: Float[Any, "b n"]
    """Weighted standard deviation of what the pixels say about each joint, in sides of the cube."""


def turned_back(uvz: Float[Any, "b n 3"], quarters: int) -> Float[Any, "b n 3"]:
    """Joints seen in crops that `np.rot90` had turned by so many quarters, in the crops as they were."""
    for _ in range(quarters):
        uvz = uvz[..., [1, 0, 2]]  # a copy
        uvz[..., 0] = 1 - uvz[..., 0]
    return uvz


def together(answer: Answer, looks: int) -> Answer:
    """The mean answer to crops that were given `looks` times, each time turned by a quarter more."""
    uvz = np.split(array(answer.uvz), looks)
    spread = np.split(array(answer.spread), looks)
    return Answer(
        np.mean([turned_back(seen, quarters) for quarters, seen in enumerate(uvz)], axis=0),
        np.mean(spread, axis=0),
    )


def joints_mm(uvz: Float[Any, "b n 3"], crops: Sequence[Crop]) -> Float[np.ndarray, "b n 3"]:
    """The joints in the camera frame, millimetres; a mirrored crop's are mirrored back."""
    return np.stack([crop.xyz_from_uvz(joints) for crop, joints in zip(crops, array(uvz), strict=True)])


def spread_mm(spread: Float[Any, "b n"], cube_mm: Float[np.ndarray, " b"]) -> Float[np.ndarray, "b n"]:
    """`Answer.spread` of crops whose cubes have these sides."""
    return array(spread) * cube_mm[:, None]


def confidences(spread_mm: Float[np.ndarray, "*n"]) -> Float[np.ndarray, "*n"]:
    """The probability that a joint is within 20 mm of the truth, from its spread."""
    return 1 / (1 + (spread_mm / SPREAD_AT_HALF_MM) ** SPREAD_STEEPNESS)


def spread_of(confidence: Float[np.ndarray, "*n"]) -> Float[np.ndarray, "*n"]:
    """The inverse of `confidences`, mm."""
    sure = np.clip(array(confidence), 1e-9, 1 - 1e-9)
    return SPREAD_AT_HALF_MM * (1 / sure - 1) ** (1 / SPREAD_STEEPNESS)


def joint_weights(spread_mm: Float[np.ndarray, "*n"]) -> Float[np.ndarray, "*n"]:
    """How much each joint weighs where the hand is laid on the surface."""
    return (SPREAD_OF_WEIGHT_1_MM / np.maximum(spread_mm, LEAST_SPREAD_MM)) ** 2


def lays(config: Any, meta: Mapping[str, Any]) -> bool:
    """Whether answers of these weights are laid on the surface unless somebody says otherwise.

    So it is where the network has learnt the open hand's joints, by synthetic images: other data sets' joints
    lie elsewhere in the hand, and laid ones would no longer be theirs.
    """
    data = (meta.get("recipe") or {}).get("data") or {}
    return bool(config.joints == len(JOINT_NAMES) and data.get("name") == "synthetic_depth")


def laid(
    joints_mm: Float[Any, "b n 3"],
    spread_mm: Float[np.ndarray, "b n"],
    crops: Sequence[Crop],
    images: Float[Any, "b s s"],
    shape: Float[np.ndarray, " 10"] | None = None,
) -> "Fit":
    """The open hand laid on what the crops show, begun at the joints; the surer one is the more it holds.

    `shape` is the person's, else it is fitted too. Raises ConfigError for a network of 14 or 16 joints.
    """
    if joints_mm.shape[1] != len(JOINT_NAMES):
        raise ConfigError(
            f"optimise: the hand model has 21 joints but this network predicts {joints_mm.shape[1]}"
        )
    # Compiled, and slow to import: only where it is asked for.
    from handgraph.decoding.hand_models import open_hand
    from handgraph.hand_model.surface import fit_surface

    weights = joint_weights(spread_mm)
    return fit_surface(open_hand(), images, crops, joints_mm, weights=weights, shape=shape)


def hands(answer: Answer, crops: Sequence[Crop]) -> list[Hand]:
    """One `Hand` for each crop; for the canonical 21 joints only (`joints_mm` serves any number of them).

    A joint's confidence says how well the pixels agree about it; the hand's score is the mean of its joints'.
    Raises `ConfigError` for a network of 14 or 16 joints.
    """
    joints = answer.uvz.shape[1]
    if joints != len(JOINT_NAMES):
        raise ConfigError(f"a hand has 21 joints but this network predicts {joints}: use joints_mm instead")
    cube_mm = np.array([crop.cube_mm for crop in crops], dtype=np.float64)
    sure = confidences(spread_mm(answer.spread, cube_mm))
    found = []
    for crop, xyz_mm, confidence in zip(crops, joints_mm(answer.uvz, crops), sure, strict=True):
        assert crop.camera is not None  # joints_mm has refused a crop without a camera
        keypoints_px = crop.camera.uvd_from_xyz(xyz_mm)[:, :2]
        corner, far = keypoints_px.min(axis=0), keypoints_px.max(axis=0)
        found.append(
            Hand(
                side="left" if crop.mirrored else "right",
                score=float(confidence.mean()),
                keypoints_px=keypoints_px,
                box_px=np.concatenate([corner, far - corner]),
                joints_mm=xyz_mm,
                confidence=confidence,
                camera=crop.camera,
            )
        )
    return found
