"""The graph refinement's answer → `Hand`s: refined joints, placed, and the hand model posed to them."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import cv2
import numpy as np

from handgraph.arrays import array
from handgraph.camera import Crop
from handgraph.decoding.frames import camera_pose, crop_from_camera
from handgraph.decoding.hand_models import open_hand
from handgraph.hand import CAMERA_FRAME, Hand
from handgraph.hand_model.files import HandModel
from handgraph.shapes import Float

RELATIVE_FRAME = "relative to the wrist: x right, y down, z forward, millimetres of the hand model"
WINDOW_MM = 250.0
"""What a crop around a hand spans at the hand's depth, about: where the estimate of the depth starts from."""
NEAREST_MM = 50.0
"""Joints nearer to the camera are projected as if they were this far."""
CONFIDENT_MM = 50.0
"""A joint's confidence is the probability that it is no further than this from the truth, about the wrist;
the papers' 3D PCK ends there."""

# Of the fit that gives the mesh, mm²: staying near the prior's fingers, and within the joint limits.
FIT_PRIOR, FIT_LIMITS = 10.0, 1000.0


class Answer(NamedTuple):
    """What the generator says of a batch of crops, in arrays or tensors; crop frame, right hands."""

    refined_mm: Float[Any, "b 21 3"]
    """The joints, about the prior's wrist; their own may have moved."""
    rotation: Float[Any, "b 3 3"]
    fingers: Float[Any, "b 45"]
    """Axis-angle of the 15 finger joints, MANO's order."""
    shape: Float[Any, "b 10"]
    scale: Float[Any, " b"]
    """A factor of the hand model's size."""
    place: Float[Any, "b 3"]
    """Where the prior's wrist is: u, v, and the log of its depth over the one at which the crop spans
    `WINDOW_MM`."""
    expected_mm: Float[Any, "b 20"]
    """Expected error of each joint but the wrist, about the wrist."""
    vertices_mm: Float[Any, "b v 3"] | None = None
    """The prior's mesh, about its wrist."""


def relative_mm(refined_mm: Float[Any, "b 21 3"], crops: Sequence[Crop]) -> Float[np.ndarray, "b 21 3"]:
    """The joints about their wrist in the camera frame, mirrored crops mirrored back."""
    joints_mm = array(refined_mm)
    turns = np.stack([crop_from_camera(crop) for crop in crops])
    return (joints_mm - joints_mm[:, :1]) @ turns  # row vectors: x_camera = turnᵀ x_crop


def wrist_mm(
    refined_mm: Float[Any, "b 21 3"], place: Float[Any, "b 3"], crops: Sequence[Crop]
) -> Float[np.ndarray, "b 3"]:
    """The refined wrists in the camera frame; NaN for crops without a camera."""
    translation = np.stack([_translation_mm(p, crop) for p, crop in zip(array(place), crops, strict=True)])
    turns = np.stack([crop_from_camera(crop) for crop in crops])
    return np.einsum("bi,bij->bj", array(refined_mm)[:, 0] + translation, turns)


def keypoints_px(
    refined_mm: Float[Any, "b 21 3"], place: Float[Any, "b 3"], crops: Sequence[Crop]
) -> Float[np.ndarray, "b 21 2"]:
    """The refined joints in the image, pixels; under weak perspective where the crop has no camera."""
    seen = []
    for joints, where, crop in zip(array(refined_mm), array(place), crops, strict=True):
        if crop.camera is None:
            uv = where[:2] + joints[:, :2] / (WINDOW_MM * np.exp(where[2]))
        else:
            placed = (joints + _translation_mm(where, crop)) @ crop.crop_camera.T
            uv = placed[:, :2] / placed[:, 2:].clip(NEAREST_MM)
        seen.append(crop.image_px(uv * (crop.size - 1)))
    return np.stack(seen)


def confidence(expected_mm: Float[Any, "b 20"]) -> Float[np.ndarray, "b 21"]:
    """The probability of an error below `CONFIDENT_MM`; the wrist, which has none, gets the others' mean."""
    probability = 1 - np.exp(-CONFIDENT_MM / array(expected_mm))
    return np.concatenate([probability.mean(axis=1, keepdims=True), probability], axis=1)


def hands(answer: Answer, crops: Sequence[Crop], model: HandModel | None = None) -> list[Hand]:
    """One `Hand` for each crop: the refined joints, and the hand model posed to them.

    `pose`, `shape` and `vertices_mm` are those of the hand model fitted to the refined joints, starting from
    the prior; the vertices are `Answer.scale` times what `HandLayer` gives for them. `model` is the right
    hand that the network was built with, by default the open hand. What a network with another hand says,
    decoded without its model, carries the prior's mesh instead. Without a camera all is relative to the
    wrist. The score is the mean of the confidences.
    """
    poses, vertices = _meshes(answer, model or open_hand())
    relative, wrists = relative_mm(answer.refined_mm, crops), wrist_mm(answer.refined_mm, answer.place, crops)
    keypoints, sure = keypoints_px(answer.refined_mm, answer.place, crops), confidence(answer.expected_mm)
    shapes = array(answer.shape)
    found = []
    for index, crop in enumerate(crops):
        turn = crop_from_camera(crop)
        place_mm = np.zeros(3) if crop.camera is None else wrists[index]
        corner, far = keypoints[index].min(axis=0), keypoints[index].max(axis=0)
        found.append(
            Hand(
                side="left" if crop.mirrored else "right",
                score=float(sure[index].mean()),
                keypoints_px=keypoints[index],
                box_px=np.concatenate([corner, far - corner]),
                joints_mm=relative[index] + place_mm,
                vertices_mm=vertices[index] @ turn + place_mm,
                pose=camera_pose(poses[index], turn, mirrored=crop.mirrored),
                shape=shapes[index],
                confidence=sure[index],
                camera=crop.camera,
                frame=CAMERA_FRAME if crop.camera is not None else RELATIVE_FRAME,
            )
        )
    return found


def _translation_mm(place: Float[np.ndarray, " 3"], crop: Crop) -> Float[np.ndarray, " 3"]:
    """`graph_refine.translation_mm` of one crop: c_t of Eq. 1; NaN without a camera."""
    if crop.camera is None:
        return np.full(3, np.nan)
    matrix = crop.crop_camera
    z = np.sqrt(matrix[0, 0] * matrix[1, 1]) * WINDOW_MM * np.exp(place[2])
    return np.linalg.solve(matrix, [place[0], place[1], 1.0]) * z


def _meshes(answer: Answer, model: HandModel) -> tuple[Float[np.ndarray, "b 48"], Float[np.ndarray, "b v 3"]]:
    """Pose and mesh, about the wrist in the crop's frame: fitted to the refined joints, or the prior's."""
    from handgraph.hand_model.fitting import fit, vertices_mm  # numba: loaded when first needed

    turns = [cv2.Rodrigues(turn)[0][:, 0] for turn in array(answer.rotation)]
    pose = np.concatenate([np.stack(turns), array(answer.fingers)], axis=1)
    if answer.vertices_mm is not None and answer.vertices_mm.shape[1] != len(model.v_template):
        return pose, array(answer.vertices_mm)
    scale = array(answer.scale)[:, None, None]
    refined = array(answer.refined_mm)
    # The prior holds what joints do not show, the fingers' twist; limits only where the hand's are known.
    fitted = fit(
        model,
        joints_mm=(refined - refined[:, :1]) / scale,
        start_pose=pose,
        shape=array(answer.shape),
        relative=True,
        pose_prior=FIT_PRIOR,
        limits=0.0 if model.joint_limits is None else FIT_LIMITS,
    )
    return fitted.pose, scale * (vertices_mm(model, fitted) - fitted.joints_mm[:, :1])
