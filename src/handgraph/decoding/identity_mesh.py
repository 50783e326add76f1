"""The identity-aware network's answer → `Hand`s: the regressed mesh, moved to where its joints are seen."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from handgraph.arrays import array
from handgraph.camera import Crop
from handgraph.decoding.frames import camera_pose, crop_from_camera, sight_from_crop
from handgraph.decoding.hand_models import model_with
from handgraph.hand import CAMERA_FRAME, Hand
from handgraph.hand_model.files import HandModel
from handgraph.keypoints import image_keypoints_px
from handgraph.shapes import Float

RELATIVE_FRAME = "relative to the wrist: x right, y down, z forward, millimetres of the hand model"

# Inference-time optimisation, beyond Eq. 6.4, chosen on synthetic validation crops: 2D joints count by how
# sure they are, at least so much (the authors' code can mask them); staying near the regressed fingers (px²
# of the crop per rad²) and a little near the regressed joints (per mm²), which know the hand's turn better
# than 2D joints that are wrong; joint limits where the hand model has any; keypoints farther off than this
# part of the crop count less.
LEAST_WEIGHT = 0.02
FIT_PRIOR, FIT_JOINTS, FIT_LIMITS, FIT_ROBUST = 150.0, 0.01, 1000.0, 0.06
FARTHEST_MM = 100_000.0
"""A hand that is laid farther away was laid on keypoints that are no hand's: it stays about its wrist."""
# To the end: where the fit stops early, a rounding error decides after which step (0.05 px).
FIT_TOLERANCE = 1e-6


class Answer(NamedTuple):
    """What the network says of a batch of crops, in arrays or tensors; right hands, mm.

    In the crops' frames turned to their lines of sight (`networks.sight`).
    """

    rotations: Float[Any, "b 16 3 3"]
    """The hand's, then those of 15 finger joints in MANO's order."""
    shape: Float[Any, "b 10"]
    """β: given, or regressed."""
    joints_mm: Float[Any, "b 21 3"]
    """About the wrist, as `vertices_mm`."""
    vertices_mm: Float[Any, "b v 3"]
    uv: Float[Any, "b 21 2"]
    """The 2D detector's keypoints in the crop."""
    sureness: Float[Any, "b 21"]
    """Probability of each of them."""
    shape_confidence: Float[Any, " b"] | None = None
    """How sure it is of the regressed shape, any number; None for networks that regress none."""


class Solved(NamedTuple):
    """Hands as they are told to the outside: crop frame, about the wrist, mm."""

    pose: Float[np.ndarray, "b 48"]
    joints_mm: Float[np.ndarray, "b 21 3"]
    vertices_mm: Float[np.ndarray, "b v 3"]
    wrist_mm: Float[np.ndarray, "b 3"]
    """Where the wrist is in the crop's frame; NaN without a camera, or where keypoints admit no place."""
    uv: Float[np.ndarray, "b 21 2"]


def solve(
    answer: Answer, crops: Sequence[Crop], model: HandModel | None = None, *, optimise: bool = True
) -> Solved:
    """Section 6.3.2's optimisation: the regressed hand, moved and bent until its joints are seen where the
    detector sees them (Eq. 6.4), in the crop's pixels. Without `optimise` it is only placed. A crop without a
    camera keeps what was regressed, and the detector's keypoints, as does one that would place the hand
    beyond `FARTHEST_MM`.

    Not the paper's 200 + 60 steps of Adam but Levenberg-Marquardt to the minimum; so that the minimum is one
    worth reaching, a prior on the fingers, joint limits and a robust norm join Eq. 6.4 (`FIT_PRIOR` …).
    """
    # numba: loaded when first needed, not when imported
    from handgraph.hand_model.fitting import Fit, axis_angles_of, fit, vertices_mm

    model = model or model_with(answer.vertices_mm.shape[1])
    turns = np.stack([sight_from_crop(crop) for crop in crops])
    rotations, uv = np.array(array(answer.rotations), np.float64), np.array(array(answer.uv))
    rotations[:, 0] = turns.transpose(0, 2, 1) @ rotations[:, 0]
    pose = axis_angles_of(rotations).reshape(-1, 48)
    joints, vertices = (array(a) @ turns for a in (answer.joints_mm, answer.vertices_mm))
    wrist = np.full((len(crops), 3), np.nan)
    seen = np.array([crop.camera is not None for crop in crops])
    if seen.any():
        size = np.array([crop.size for crop in crops if crop.camera is not None])
        pixels = np.zeros((len(size), 3, 3))
        pixels[:, 0, 0] = pixels[:, 1, 1] = size - 1
        pixels[:, 2, 2] = 1
        matrices = pixels @ np.stack([crop.crop_camera for crop in crops if crop.camera is not None])
        fitted: Fit = fit(
            model,
            uv[seen] * (size - 1)[:, None, None],
            matrices,
            joints[seen] - joints[seen, :1],
            relative=True,
            joints_weight=FIT_JOINTS,
            weights=array(answer.sureness)[seen].clip(LEAST_WEIGHT, 1.0),
            start_pose=pose[seen],
            shape=array(answer.shape)[seen],
            robust=FIT_ROBUST * float(size.mean()),
            pose_prior=FIT_PRIOR,
            limits=0.0 if model.joint_limits is None else FIT_LIMITS,
            iterations=60,
            tolerance=FIT_TOLERANCE,
            place_only=not optimise,
        )
        near = fitted.joints_mm[:, 0, 2] < FARTHEST_MM
        placed, roots = np.flatnonzero(seen)[near], fitted.joints_mm[near, :1]
        pose[placed] = fitted.pose[near]
        wrist[placed] = roots[:, 0]
        joints[placed] = fitted.joints_mm[near] - roots
        vertices[placed] = vertices_mm(model, fitted)[near] - roots
        projected = np.einsum("bij,bnj->bni", matrices[near], fitted.joints_mm[near])
        uv[placed] = projected[..., :2] / projected[..., 2:] / (size[near] - 1)[:, None, None]
    return Solved(pose, joints, vertices, wrist, uv)


def hands(
    answer: Answer, crops: Sequence[Crop], model: HandModel | None = None, *, optimise: bool = True
) -> list[Hand]:
    """One `Hand` with mesh for each crop, optimised at inference time as the paper's (`solve`).

    `model` is the right hand that the network was built with. Confidences are the 2D detector's, the score
    is their mean; `shape_confidence` is c of Eq. 6.6. Without a camera a hand is relative to its wrist.
    """
    solved = solve(answer, crops, model, optimise=optimise)
    keypoints = image_keypoints_px(solved.uv, crops)
    shapes, sure = array(answer.shape), array(answer.sureness).clip(0, 1)
    trust = None if answer.shape_confidence is None else array(answer.shape_confidence)
    found = []
    for index, crop in enumerate(crops):
        turn = crop_from_camera(crop)
        placed = bool(np.isfinite(solved.wrist_mm[index]).all())
        place = solved.wrist_mm[index] @ turn if placed else np.zeros(3)
        corner, far = keypoints[index].min(axis=0), keypoints[index].max(axis=0)
        found.append(
            Hand(
                side="left" if crop.mirrored else "right",
                score=float(sure[index].mean()),
                keypoints_px=keypoints[index],
                box_px=np.concatenate([corner, far - corner]),
                joints_mm=solved.joints_mm[index] @ turn + place,
                vertices_mm=solved.vertices_mm[index] @ turn + place,
                pose=camera_pose(solved.pose[index], turn, mirrored=crop.mirrored),
                shape=shapes[index],
                confidence=sure[index],
                camera=crop.camera,
                frame=CAMERA_FRAME if placed else RELATIVE_FRAME,
                shape_confidence=None if trust is None else float(trust[index]),
            )
        )
    return found
