"""Whether a network's answer in a depth frame is a hand: told from the answer's own geometry.

The network was shown hands alone and answers with a hand whatever it sees; its confidence tells little about
boxes, elbows and torsos. But there its joints do not fit: the bones have other proportions than a hand's and
leave much of the surface around them unexplained. `plausibility` weighs these signs into one number.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from handgraph.camera import Crop
from handgraph.hand import Hand
from handgraph.shapes import Float
from handgraph.skeleton import BONES

if TYPE_CHECKING:
    from handgraph.localize import Candidate, Plane


_ROOTS, _ENDS = np.transpose([*BONES, (0, 5), (0, 9), (0, 13), (0, 17), (1, 5), (5, 9), (9, 13), (13, 17)])
"""The bones, and lines that fill the palm."""
_FLESH_MM = 22.0
"""So near a bone, surface is that of the hand."""
_AROUND_MM = 90.0
"""Surface so near the middle of the joints should be the hand's, or lie beyond the wrist."""
_SIDE = 32
_CUBE_MM = 250.0
_BONES_MM = np.array(
    [
        31.1, 46.5, 32.8, 28.5, 90.6, 41.5, 23.1, 21.5, 88.1, 47.0,
        27.2, 23.9, 83.9, 43.9, 26.7, 23.5, 81.3, 34.4, 19.1, 21.6,
    ]
)  # fmt: skip
"""Lengths of the bones, the mean of 317 synthetic subjects."""


class Signs(NamedTuple):
    """What speaks for and against a hand. Surface is what lies around the hand and is no table or wall."""

    outside: float
    """Share of the joints outside the frame."""
    explained: float
    """Share of the surface that is near a bone."""
    surface: float
    """Surface near a bone, over 5,000 mm²."""
    off_bones: float
    """Mean distance of the surface from the bones, cm."""
    proportions: float
    """How the bones' lengths deviate from a mean hand's of the same size, as a logarithm."""
    size: float
    """Square of the logarithm of the hand's size over a mean hand's."""


_WEIGHTS = Signs(-2.5, 2.68, 0.74, -1.23, -15.61, -8.26)
"""Logistic regression over the 1,307 answers at all places in 380 whole synthetic frames, two thirds of them
hands over tables (validation, seeds 4 and 5; `tools/fit_plausibility.py`). Cross-validated it finds the hand
(within 60 mm) in 93.2 % of these, where the best answer of each frame would give 96.8 %, and in 98.4 of 99.2
% of the others."""
_BIAS = 2.38


def plausibility(hand: Hand, candidate: "Candidate", depth_mm: Float[np.ndarray, "h w"]) -> float:
    """The probability that the joints are those of a hand, and within 40 mm of the truth in the mean.

    `hand` has joints and the camera of the frame, `candidate` is the place of the finder's where it was seen.
    """
    told = float(np.dot(_WEIGHTS, signs(hand, depth_mm, candidate.planes)))
    return float(1 / (1 + np.exp(-(told + prior(hand, candidate) + _BIAS))))


def prior(hand: Hand, candidate: "Candidate") -> float:
    """What network and finder think of an answer, as a logarithm.

    On synthetic frames it changes nothing, in real ones it keeps back small, far things that resemble a hand.
    """
    return 0.5 * float(np.log(0.05 + hand.score**6) + np.log(0.05 + candidate.score))


def signs(hand: Hand, depth_mm: Float[np.ndarray, "h w"], planes: "Sequence[Plane]" = ()) -> Signs:
    """The signs for a hand that has joints and a camera; `planes` are tables and walls in the frame."""
    assert hand.joints_mm is not None
    joints = hand.joints_mm.astype(np.float64)
    height, width = depth_mm.shape
    u, v = np.round(np.clip(hand.keypoints_px, -1e6, 1e6)).T
    explained, area_mm2, off_bones_mm = _explained(hand, depth_mm, planes)
    parents, children = np.transpose(BONES)
    lengths = np.linalg.norm(joints[children] - joints[parents], axis=1)
    ratio = np.log(np.maximum(lengths, 1.0) / _BONES_MM)
    return Signs(
        outside=float(((u < 0) | (v < 0) | (u >= width) | (v >= height)).mean()),
        explained=explained,
        surface=area_mm2 / 5_000.0,
        off_bones=off_bones_mm / 10.0,
        proportions=float(ratio.std()),
        size=float(ratio.mean() ** 2),
    )


def _explained(
    hand: Hand, depth_mm: Float[np.ndarray, "h w"], planes: "Sequence[Plane]"
) -> tuple[float, float, float]:
    """Of the surface around the hand: the share near a bone, that share's area, mean distance from a bone."""
    assert hand.joints_mm is not None
    assert hand.camera is not None
    joints = hand.joints_mm.astype(np.float64)
    middle = joints.mean(axis=0)
    crop = Crop.cube(middle, _CUBE_MM, hand.camera, _SIDE)
    image = crop.apply_depth(depth_mm)
    row, column = np.nonzero(image < 1)
    uvz = np.column_stack([column / (_SIDE - 1), row / (_SIDE - 1), image[row, column]])
    points = crop.xyz_from_uvz(uvz)
    fingers = joints[[5, 9, 13, 17]].mean(axis=0) - joints[0]
    fingers /= max(float(np.linalg.norm(fingers)), 1.0)
    # The forearm has no bones here: beyond the wrist nothing needs to be explained.
    counts = ((points - joints[0]) @ fingers > -10) & (np.linalg.norm(points - middle, axis=1) < _AROUND_MM)
    for plane in planes:
        counts &= ~plane.covers(points)
    points = points[counts]
    if not len(points):
        return 0.0, 0.0, 60.0
    start, along = joints[_ROOTS], joints[_ENDS] - joints[_ROOTS]
    share = np.einsum("pbc,bc->pb", points[:, None] - start, along) / np.maximum((along**2).sum(1), 1.0)
    nearest = start + np.clip(share, 0, 1)[..., None] * along
    distance = np.linalg.norm(points[:, None] - nearest, axis=-1).min(axis=1)
    near = distance < _FLESH_MM
    pixel_mm2 = (_CUBE_MM / (_SIDE - 1)) ** 2
    return float(near.mean()), float(near.sum() * pixel_mm2), float(np.minimum(distance, 60.0).mean())
