"""The hybrid network's answer → `Hand`s: 2D joints, and 3D joints whose unit is the length of one bone."""

from collections.abc import Sequence
from contextlib import suppress
from typing import Any, NamedTuple

import numpy as np

from handgraph.arrays import array
from handgraph.camera import Crop
from handgraph.decoding.frames import crop_from_camera
from handgraph.errors import InputError
from handgraph.hand import CAMERA_FRAME, RELATIVE_FRAME, Hand
from handgraph.keypoints import image_keypoints_px
from handgraph.placement import hand_length, root_translation
from handgraph.shapes import Float

SCALE_BONE = (9, 10)
"""Middle finger, knuckle to middle joint: the bone whose length is the unit of the 3D answer."""
TYPICAL_SCALE_MM = 47.0
"""That bone of an average hand: for an answer in roughly millimetres where its true length is not known."""


class Answer(NamedTuple):
    """What the network says of a batch of crops, in arrays or tensors."""

    uv: Float[Any, "b 21 2"]
    """The 2D joints in the crop."""
    pose: Float[Any, "b 21 3"]
    """The 3D joints: crop frame, about the wrist, in lengths of `SCALE_BONE`."""
    confidence: Float[Any, "b 21"] | None = None
    """Probability of each joint; None for networks without classifiers."""


def relative_mm(
    pose: Float[Any, "b 21 3"], crops: Sequence[Crop], scale_mm: Float[np.ndarray, " b"] | None = None
) -> Float[np.ndarray, "b 21 3"]:
    """The joints about the wrist in the camera frame, mirrored back for a mirrored crop.

    `scale_mm` is the true length of each hand's `SCALE_BONE`. Without it that of an average hand stands in,
    and the answer is in millimetres only as far as the hand is average.
    """
    joints = array(pose)
    joints = joints - joints[:, :1]
    scale = np.full(len(joints), TYPICAL_SCALE_MM) if scale_mm is None else np.asarray(scale_mm)
    turned = [one @ crop_from_camera(crop) for one, crop in zip(joints, crops, strict=True)]
    return np.stack(turned) * scale[:, None, None]


def hands(
    answer: Answer, crops: Sequence[Crop], scale_mm: Float[np.ndarray, " b"] | None = None
) -> list[Hand]:
    """One `Hand` for each crop.

    With a camera and `scale_mm`, the length of each hand's `SCALE_BONE`, a hand is in millimetres of the
    camera frame, where its 2D joints are seen (`placement.root_translation`); otherwise, and where they admit
    no such place, it is relative to the wrist in hand lengths and its `frame` says so.

    The score is the mean of the joints' confidences; without any there is no measure of it: a half.
    """
    joints, pixels = relative_mm(answer.pose, crops, scale_mm), image_keypoints_px(answer.uv, crops)
    sure = None if answer.confidence is None else array(answer.confidence).clip(0, 1)
    found = []
    for index, (crop, xyz, seen) in enumerate(zip(crops, joints, pixels, strict=True)):
        frame = RELATIVE_FRAME
        if crop.camera is not None and scale_mm is not None:
            with suppress(InputError):
                xyz, frame = xyz + root_translation(xyz, seen, crop.camera), CAMERA_FRAME
        if frame == RELATIVE_FRAME:
            xyz = xyz / max(float(hand_length(xyz)), 1e-9)
        corner, far = seen.min(axis=0), seen.max(axis=0)
        found.append(
            Hand(
                side="left" if crop.mirrored else "right",
                score=0.5 if sure is None else float(sure[index].mean()),
                keypoints_px=seen,
                box_px=np.concatenate([corner, far - corner]),
                joints_mm=xyz,
                confidence=None if sure is None else sure[index],
                camera=crop.camera,
                frame=frame,
            )
        )
    return found
