"""The answer of a 2D system: keypoints in a crop's `uv` with their confidences → pixels and `Hand`s."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from handgraph.arrays import array
from handgraph.camera import Crop
from handgraph.errors import ConfigError
from handgraph.hand import Hand
from handgraph.shapes import Float
from handgraph.skeleton import JOINT_NAMES


class Answer(NamedTuple):
    """What such a system says of a batch of crops, in arrays or tensors."""

    uv: Float[Any, "b n 2"]
    """The keypoints in the crop: 0 at the first pixel centre, 1 at the last."""
    confidence: Float[Any, "b n"]
    """Probability of each keypoint, in [0, 1]."""


def hands(answer: Answer, crops: Sequence[Crop]) -> list[Hand]:
    """One `Hand` for each crop."""
    return hands_from_keypoints(answer.uv, answer.confidence, crops)


def image_keypoints_px(uv: Float[Any, "b n 2"], crops: Sequence[Crop]) -> Float[np.ndarray, "b n 2"]:
    """Crop coordinates (0 at the first pixel centre, 1 at the last) → image pixels; mirrored crops back."""
    return np.stack([crop.image_px(p * (crop.size - 1)) for crop, p in zip(crops, array(uv), strict=True)])


def hands_from_keypoints(
    uv: Float[Any, "b n 2"], confidence: Float[Any, "b n"], crops: Sequence[Crop]
) -> list[Hand]:
    """One `Hand` of 2D keypoints for each sample; the score is the mean confidence of its joints.

    Raises ConfigError for a network of other than the canonical 21 joints.
    """
    if uv.shape[1] != len(JOINT_NAMES):
        raise ConfigError(f"a hand has 21 joints but this network predicts {uv.shape[1]}: use keypoints_px")
    sure = array(confidence).clip(0, 1)
    found = []
    for crop, keypoints_px, joints in zip(crops, image_keypoints_px(uv, crops), sure, strict=True):
        corner, far = keypoints_px.min(axis=0), keypoints_px.max(axis=0)
        found.append(
            Hand(
                side="left" if crop.mirrored else "right",
                score=float(joints.mean()),
                keypoints_px=keypoints_px,
                box_px=np.concatenate([corner, far - corner]),
                confidence=joints,
                camera=crop.camera,
            )
        )
    return found
