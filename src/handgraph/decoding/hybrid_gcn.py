"""The hybrid network's answer → `Hand`s: 2D joints, and 3D joints whose unit is the length of one bone.

Two things here are not the paper's and are asked for by name: the size by all known bones (`unit_mm`), and
the 3D hand laid on the 2D joints (`optimised`).
"""

from collections.abc import Sequence
from contextlib import suppress
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np

from handgraph.arrays import array
from handgraph.camera import Crop
from handgraph.decoding.frames import crop_from_camera, sight_from_crop
from handgraph.decoding.hand_models import open_hand
from handgraph.errors import InputError
from handgraph.hand import CAMERA_FRAME, RELATIVE_FRAME, Hand
from handgraph.hand_model.files import MILLIMETRES
from handgraph.keypoints import image_keypoints_px
from handgraph.placement import bone_length, bone_lengths, hand_length, relative_size, root_translation
from handgraph.shapes import Float
from handgraph.skeleton import MANO

SCALE_BONE = (9, 10)
"""Middle finger, knuckle to middle joint: the bone whose length is the unit of the 3D answer."""
TYPICAL_SCALE_MM = 47.0
"""That bone of an average hand: for an answer in roughly millimetres where its true length is not known."""

# `optimised`, chosen on 256 synthetic validation crops; nearby values do as well. Pixels are those of a crop
# `FIT_CROP` wide, whatever its size is: keypoints are off by some 8 of them, joints by some 30 mm.
FIT_CROP = 128
FIT_JOINTS = 0.05
"""What a squared millimetre of 3D counts beside a squared pixel of 2D."""
FIT_ROBUST = 7.6
"""Keypoints and joints farther off than this, in pixels and mm, count less."""
FIT_PRIOR, FIT_LIMITS = 60.0, 1000.0
"""Of a radian squared, of fingers away from the predicted ones and of joints beyond their limits."""
FIT_LEAST_CONFIDENCE = 0.05


class Answer(NamedTuple):
    """What the network says of a batch of crops, in arrays or tensors."""

    uv: Float[Any, "b 21 2"]
    """The 2D joints in the crop."""
    pose: Float[Any, "b 21 3"]
    """The 3D joints about the wrist, in lengths of `SCALE_BONE`; the crop's frame, turned to its line of
    sight (`networks.sight`)."""
    confidence: Float[Any, "b 21"] | None = None
    """Probability of each joint; None for networks without classifiers."""


def unit_mm(bones_mm: Float[np.ndarray, "*b 20"]) -> Float[np.ndarray, " *b"]:
    """The unit of the answer, `scale_mm`, of hands whose bones are known, in the order of `skeleton.BONES`.

    Not only `SCALE_BONE`, which labels may place otherwise: how large the hand is over the mean hand
    (`placement.relative_size`), times that bone of the mean hand. The ratio to what was predicted would not
    do: where the network is unsure it answers the mean of what might be, whose bones are too short, and the
    hand would come out too large. NaN lengths are unknown; where all are, so is the unit.
    """
    typical = _typical_hand()
    return np.asarray(relative_size(bones_mm, bone_lengths(typical)) * bone_length(typical, SCALE_BONE))


def optimised(answer: Answer, crops: Sequence[Crop]) -> Answer:
    """The answer with the 3D hand laid on the 2D joints. Not the paper's: it lets both stand side by side.

    The mean hand is posed to the 3D joints, brought to its size, then turned, moved and bent until its joints
    are seen where the 2D joints are and lie where the 3D joints do, as far as both go together and fingers
    bend (`hand_model.fitting`). The 2D joints are then where the fitted hand is seen. Answers for crops
    without a camera stay as they are.
    """
    from handgraph.hand_model.fitting import fit  # numba: loaded when first needed

    uv, pose = (np.array(array(values), np.float64) for values in (answer.uv, answer.pose))
    seen = np.array([crop.camera is not None for crop in crops], bool)
    if not seen.any():
        return answer
    model, typical = open_hand(), _typical_hand()
    turns = np.stack([sight_from_crop(crop) for crop in crops if crop.camera is not None])
    joints = (pose[seen] - pose[seen, :1]) @ turns
    # To the mean hand's size by least squares: bones predicted too short, being unsure, count little.
    bones, wanted = bone_lengths(joints), bone_lengths(typical)
    joints *= ((bones * wanted).sum(1) / np.square(bones).sum(1).clip(1e-9))[:, None, None]
    matrices = np.stack([crop.crop_camera for crop in crops if crop.camera is not None])
    matrices = np.diag([FIT_CROP - 1.0, FIT_CROP - 1.0, 1.0]) @ matrices
    posed = fit(
        model,
        joints_mm=joints,
        relative=True,
        start_translation_mm=np.zeros(3),
        limits=0.1 * FIT_LIMITS,
        pose_prior=10.0,
    )
    weights = None if answer.confidence is None else array(answer.confidence)[seen]
    fitted = fit(
        model,
        uv[seen] * (FIT_CROP - 1),
        matrices,
        joints,
        relative=True,
        weights=None if weights is None else weights.clip(FIT_LEAST_CONFIDENCE, 1.0),
        start_pose=posed.pose,
        joints_weight=FIT_JOINTS,
        robust=FIT_ROBUST,
        pose_prior=FIT_PRIOR,
        limits=FIT_LIMITS,
    )
    fitted_mm = (fitted.joints_mm - fitted.joints_mm[:, :1]) @ turns.transpose(0, 2, 1)
    pose[seen] = fitted_mm / bone_length(typical, SCALE_BONE)
    projected = np.einsum("bij,bnj->bni", matrices, fitted.joints_mm)
    uv[seen] = projected[..., :2] / projected[..., 2:] / (FIT_CROP - 1)
    return answer._replace(uv=uv, pose=pose)


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
    turned = [
        one @ sight_from_crop(crop) @ crop_from_camera(crop) for one, crop in zip(joints, crops, strict=True)
    ]
    return np.stack(turned) * scale[:, None, None]


def hands(
    answer: Answer,
    crops: Sequence[Crop],
    scale_mm: Float[np.ndarray, " b"] | None = None,
    *,
    optimise: bool = False,
) -> list[Hand]:
    """One `Hand` for each crop. With `optimise` of the answer that `optimised` makes of this one.

    With a camera and `scale_mm`, the length of each hand's `SCALE_BONE`, a hand is in millimetres of the
    camera frame, where its 2D joints are seen (`placement.root_translation`); otherwise, and where they admit
    no such place, it is relative to the wrist in hand lengths and its `frame` says so.

    The score is the mean of the joints' confidences; without any there is no measure of it: a half.
    """
    if optimise:
        answer = optimised(answer, crops)
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


@lru_cache(maxsize=1)
def _typical_hand() -> Float[np.ndarray, "21 3"]:
    """The canonical joints of the flat mean hand, mm."""
    model = open_hand()
    joints = np.concatenate([model.rest_joints, model.v_template[model.tip_vertices]])
    return np.asarray(MILLIMETRES * joints[MANO.gather])
