"""Fitting the hand model to keypoints: any system's joints become a pose, and so a mesh.

Minimises Eq. 6.4 of Kong, *Structured Learning of Hand Pose* (dissertation, chapter 6), the distance between
given keypoints and those of the posed hand, first over the hand's place, then over place and pose, and over
the shape if asked. 3D joints may stand beside or instead of the 2D keypoints.

The paper takes 200 + 60 steps of Adam through the whole network of operators. But the problem is a small
nonlinear least-squares one: 42 residuals, 51 unknowns, and only five vertices, the fingertips, need
skinning. So it is solved here by Levenberg-Marquardt with exact derivatives, compiled by numba, free of
the GIL. `fit_by_adam` is the paper's way, for comparison.
"""

import itertools
import os
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any, NamedTuple, no_type_check

import numba as nb
import numpy as np
from jaxtyping import Float, Int

from ..arrays import array as _numpy
from ..camera import PinholeCamera
from ..errors import ConfigError, InputError
from ..skeleton import MANO
from .files import MILLIMETRES, HandModel, Side

if TYPE_CHECKING:
    from torch import Tensor

    from .layer import HandLayer

Array = Any
"""Of NumPy or PyTorch, which is not imported for it."""
Camera = PinholeCamera | Sequence[PinholeCamera] | Any

NEAREST_MM = 1.0
"""Joints nearer to the camera's plane than this cannot be projected: a step that leads there is refused."""

PALM = (0, 5, 9, 13, 17)
"""Wrist and knuckles move as one: they tell how the hand is turned."""

RELAXED_RAD = 0.35
"""Bend of every finger joint of the pose that a fit without a start begins with."""

PLACE = (False, False, False)
"""The stage that moves the hand and leaves finger pose, turn and shape as they are."""

_FEWEST = 4  # hands worth a thread of their own
_CANDIDATES = 3  # turns of the hand followed to the end, where 2D alone is given and no start


@dataclass(frozen=True, eq=False)
class Fit:
    """Hands fitted to keypoints, and how well. NumPy arrays, float64."""

    pose: Float[np.ndarray, "b 48"]
    """As `HandLayer` takes it, axis-angle, global rotation first. A hand of the other side than the layer's
    is in the pose of its own side: give it to a layer of that side."""
    shape: Float[np.ndarray, "b 10"]
    translation_mm: Float[np.ndarray, "b 3"]
    joints_mm: Float[np.ndarray, "b 21 3"]
    """The fitted hand's joints, in the frame of camera and given joints."""
    energy: Float[np.ndarray, " b"]
    """Root of what was minimised. Without weights and options the norm of Eq. 6.4, in pixels."""
    iterations: Int[np.ndarray, " b"]
    """Linear systems solved, over all stages."""
    sides: tuple[Side, ...]


def fit(
    layer: "HandLayer | HandModel",
    keypoints_px: Array | None = None,
    camera: Camera | None = None,
    joints_mm: Array | None = None,
    *,
    weights: Array | None = None,
    start_pose: Array | None = None,
    start_translation_mm: Array | None = None,
    shape: Array | None = None,
    free_shape: bool = False,
    side: Side | Sequence[Side] | None = None,
    relative: bool = False,
    joints_weight: float = 1.0,
    robust: float | None = None,
    pose_prior: float = 0.0,
    shape_prior: float = 0.0,
    limits: float = 0.0,
    place_only: bool = False,
    iterations: int = 60,
    tolerance: float = 1e-3,
) -> Fit:
    """Pose the hand so that its joints lie on given 2D keypoints, 3D joints, or both.

    Minimised is, with u the projection and x the position of the hand's joints,

        Σ w ρ(|u − keypoints|²) + joints_weight Σ w ρ(|x − joints|²)
        + pose_prior Σ 4 sin²(φ / 2) + limits Σ excess² + shape_prior |β|²

    where φ is how far a finger joint is turned from the start's pose (4 sin²(φ/2) ≈ φ², radians), and excess
    how far an anatomical angle exceeds the model's joint limits. With 2D alone, 42 numbers face 51 unknowns:
    without prior or limits the fit follows whatever noise the keypoints carry, in the way that is nearest to
    the start.

    Args:
        layer: the hand, whose poses must be axis-angle, or its model alone.
        keypoints_px: (b, 21, 2), canonical order; NaN where a keypoint is unknown.
        camera: one for all hands, one each, or matrices (3, 3) or (b, 3, 3) whose upper two rows project and
            whose last is 0, 0, 1, as `Crop.crop_camera`; keypoints are then in the matrix's own unit.
        joints_mm: (b, 21, 3), canonical order; NaN where a joint is unknown.
        weights: (21,) or (b, 21), factors of the squared distances of each joint; 0 leaves it out.
        start_pose: (b, 48). Without it the palm's turn comes from the 3D joints, or from 2D by trial.
        start_translation_mm: (b, 3). Without it the place is solved for linearly.
        shape: (10,) or (b, 10), the given shape, or where a free one starts; zero if not given.
        free_shape: whether the shape is fitted too. Give a `shape_prior`: one view says little about it.
        side: of each hand; the layer's by default. Hands of the other side are mirrored in and out.
        relative: `joints_mm` are relative to the wrist. Without keypoints the wrist then stays at the start.
        joints_weight: of 3D against 2D, (pixels per millimetre)².
        robust: scale, in pixels and millimetres, beyond which a distance counts less and less
            (Cauchy's ρ(s) = c² log(1 + s / c²)); None is ρ(s) = s.
        pose_prior, shape_prior: weights of staying near the start's finger pose and near the mean shape.
        limits: weight of the model's joint limits.
        place_only: only the first stage: the hand is moved and keeps its start's pose and shape.
        iterations: at most so many linear systems for each stage of each hand.
        tolerance: a hand is done when the energy's square falls by less than this fraction.

    Raises:
        InputError: arrays of the wrong shape, a keypoint without a camera, hands without any known joint.
        ConfigError: a layer with principal poses, or limits with a model that has none.
    """
    rig = _prepared(layer, limits)
    problem = _problem(layer, keypoints_px, camera, joints_mm, weights, side, relative, joints_weight)
    n = len(problem.weights_2d)
    shape_ = np.array(np.broadcast_to(_rows("shape", shape, n, 10), (n, 10)))
    options = np.array([robust or 0.0, pose_prior, limits, shape_prior, tolerance])
    if not (np.isfinite(options).all() and (options >= 0).all() and iterations > 0):
        raise InputError("robust, priors, limits and tolerance must be 0 or more, iterations above 0")

    mirrored = problem.mirrored
    solver = _Solver(rig, problem, options, iterations)
    if start_pose is None:
        rotations, translation, reference = _from_scratch(solver, shape_)
    else:
        rotations = _matrices(layer, _mirrored_pose(_rows("start_pose", start_pose, n, 48), mirrored))
        reference = rotations.copy()
        translation = (
            np.zeros((n, 3)) if start_translation_mm is not None else solver.placed(rotations, shape_)
        )
    if start_translation_mm is not None:
        translation = _mirrored_points(_rows("start_translation_mm", start_translation_mm, n, 3), mirrored)
    state = _State(rotations, translation, shape_, reference)
    second = (True, True, free_shape)
    solver.run(state, *((PLACE,) if place_only else (PLACE, second)))  # the paper's two stages
    joints = solver.joints(state)
    return Fit(
        pose=_mirrored_pose(_axis_angles(layer, state.rotations), mirrored),
        shape=state.shape,
        translation_mm=_mirrored_points(state.translation, mirrored),
        joints_mm=_mirrored_points(joints, mirrored),
        energy=np.sqrt(state.energy),
        iterations=state.iterations,
        sides=problem.sides,
    )


def vertices_mm(layer: "HandLayer | HandModel", fitted: Fit) -> Float[np.ndarray, "b v 3"]:
    """The meshes of fitted hands, in the frame of `Fit.joints_mm`, also of hands of the other side.

    Faces are `layer.model.faces`; those of a hand of the other side turn in the other sense, as they do in
    `layer.model.mirrored()`.
    """
    model = _model(layer)
    mirrored = np.array([side != layer.side for side in fitted.sides])
    rotations = _matrices(layer, _mirrored_pose(fitted.pose, mirrored))
    translation = _mirrored_points(fitted.translation_mm, mirrored)
    return _mirrored_points(_skinned(model, rotations, translation, fitted.shape), mirrored)


def posed_vertices_mm(
    layer: "HandLayer | HandModel",
    pose: Float[np.ndarray, " 48"],
    shape: Float[np.ndarray, " 10"],
    joints_mm: Float[np.ndarray, "21 3"],
    side: Side,
) -> Float[np.ndarray, "v 3"]:
    """The mesh of one hand as a `Hand` says it: pose and shape as `Fit` has them, placed by its joints."""
    model, mirrored = _model(layer), np.array([side != layer.side])
    rotations = _matrices(layer, _mirrored_pose(_numpy(pose)[None], mirrored))
    shapes, joints = _numpy(shape)[None], _mirrored_points(_numpy(joints_mm)[None], mirrored)
    still = _joints(_rig(model), rotations, np.zeros((1, 3)), shapes)[:, MANO.gather]
    there = (joints - still).mean(axis=1)
    return np.asarray(_mirrored_points(_skinned(model, rotations, there, shapes), mirrored)[0])


def _skinned(
    model: HandModel, rotations: np.ndarray, translation: np.ndarray, shape: np.ndarray
) -> Float[np.ndarray, "b v 3"]:
    """`HandLayer.from_rotations` in NumPy and float64, for meshes without PyTorch."""
    rig, n = _rig(model), len(rotations)
    frames, points = np.empty((n, 16, 3, 3)), np.empty((n, 16, 3))
    rest = np.empty((n, 16, 3))
    # The place is added at the end: skinning weights sum to one only as far as float32 holds.
    given = (np.ascontiguousarray(array) for array in (rotations, np.zeros_like(translation), shape))
    _posed_frames(rig, *given, frames, points, rest)
    bends = (rotations[:, 1:] - np.eye(3)).reshape(n, -1)
    hand = model.v_template + np.einsum("vcs,bs->bvc", model.shapedirs, shape)
    hand += np.einsum("vcp,bp->bvc", model.posedirs, bends)
    # A joint's transform of rest-space points: x ↦ R (x − rest) + point.
    shift = points - np.einsum("bkij,bkj->bki", frames, rest)
    turns = np.einsum("vk,bkij->bvij", model.weights, frames)
    moved = np.einsum("bvij,bvj->bvi", turns, MILLIMETRES * hand)
    return np.asarray(moved + np.einsum("vk,bki->bvi", model.weights, shift) + translation[:, None])


def fit_by_adam(
    layer: "HandLayer",
    keypoints_px: Float[Any, "b 21 2"],
    camera: Float[Any, "b 3 3"],
    start_pose: Float[Any, "b 48"],
    start_translation_mm: Float[Any, "b 3"],
    shape: Float[Any, "b 10"],
    *,
    weights: Float[Any, "b 21"] | None = None,
    steps: tuple[int, int] = (200, 60),
    learning_rates: tuple[float, float] = (1e-2, 1e-3),
) -> tuple[Float[Any, "b 16 3 3"], Float[Any, "b 3"], Float[Any, " b"]]:
    """The paper's way to minimise Eq. 6.4 (section 6.4.1): Adam on the place, then on place and pose.

    The place is in metres and the pose in 6D rotations, which gives the learning rates their meaning. Returns
    rotations, translation (mm) and the energy of each hand. The first stage poses the hand only once.
    """
    import torch

    def energy(joints_mm: "Tensor", place_m: "Tensor") -> "Tensor":
        homogeneous = (joints_mm + MILLIMETRES * place_m.unsqueeze(1)) @ camera.mT
        squares = (homogeneous[..., :2] / homogeneous[..., 2:] - keypoints_px).square().sum(-1)
        return (squares if weights is None else weights * squares).sum(1).sqrt()

    with torch.no_grad():
        rotations = layer.rotations(start_pose)
        joints = layer.joints_from_rotations(shape, rotations)
    place = (start_translation_mm / MILLIMETRES).clone().requires_grad_()
    solver = torch.optim.Adam([place], lr=learning_rates[0])
    for _ in range(steps[0]):
        solver.zero_grad()
        energy(joints, place).sum().backward()
        solver.step()
    six = rotations[..., :2].clone().requires_grad_()
    solver = torch.optim.Adam([six, place], lr=learning_rates[1])
    for _ in range(steps[1]):
        solver.zero_grad()
        energy(layer.joints_from_rotations(shape, _from_six(six)), place).sum().backward()
        solver.step()
    with torch.no_grad():
        rotations = _from_six(six)
        final = energy(layer.joints_from_rotations(shape, rotations), place)
    return rotations, MILLIMETRES * place.detach(), final


def _from_six(columns: Float[Any, "*n 3 2"]) -> Float[Any, "*n 3 3"]:
    """The rotation whose first two columns these become by Gram and Schmidt."""
    import torch

    first = torch.nn.functional.normalize(columns[..., 0], dim=-1)
    second = columns[..., 1] - (first * columns[..., 1]).sum(-1, keepdim=True) * first
    second = torch.nn.functional.normalize(second, dim=-1)
    return torch.stack([first, second, torch.linalg.cross(first, second)], dim=-1)


# --- from arguments to arrays ---------------------------------------------------------------------------


class _Rig(NamedTuple):
    """What the joints of a hand model depend on, mm; joints in MANO's order, tips thumb to little."""

    joints: np.ndarray  # (16, 3)
    joint_shape: np.ndarray  # (16, 3, 10)
    tips: np.ndarray  # (5, 3)
    tip_shape: np.ndarray  # (5, 3, 10)
    tip_pose: np.ndarray  # (5, 15, 3, 3, 3): tip, joint, coordinate, element of R − I (row, column)
    tip_weights: np.ndarray  # (5, 16)
    tip_bends: np.ndarray  # (5, 15) bool: whether the joint's rotation corrects the tip at all
    parents: np.ndarray  # (16,)
    axes: np.ndarray  # (15, 3, 3)
    angles: np.ndarray  # (15, 3, 2) least and greatest
    first: np.ndarray  # (5, 2) by tip: range of the finger unknowns that move it
    profile: np.ndarray  # (45,) first unknown that shares a residual with this one


class _Problem(NamedTuple):
    """Targets in MANO's order and in the frame of the layer's side."""

    keypoints: np.ndarray  # (b, 21, 2)
    matrices: np.ndarray  # (b, 2, 3): upper rows of the camera matrices
    joints: np.ndarray  # (b, 21, 3)
    weights_2d: np.ndarray  # (b, 21)
    weights_3d: np.ndarray  # (b, 21)
    relative: bool
    mirrored: np.ndarray  # (b,) bool
    sides: tuple[Side, ...]


def _model(layer: "HandLayer | HandModel") -> HandModel:
    return layer if isinstance(layer, HandModel) else layer.model


def _mean_pose(layer: "HandLayer | HandModel") -> Float[np.ndarray, " 48"]:
    """What zero pose stands for: the flat hand, unless a layer says otherwise."""
    return np.zeros(48) if isinstance(layer, HandModel) else _numpy(layer._mean_pose)


def _prepared(layer: "HandLayer | HandModel", limits: float) -> _Rig:
    model = _model(layer)
    if getattr(layer, "pose_space", "axis_angle") != "axis_angle":
        raise ConfigError("fit needs a HandLayer with pose_space 'axis_angle', found 'pca'")
    if limits and (model.joint_axes is None or model.joint_limits is None):
        raise ConfigError(f"limits: the hand model {model.name} has no joint limits, leave them at 0")
    return _rig(model)


@lru_cache(maxsize=8)
def _rig(model: HandModel) -> _Rig:
    tips = model.tip_vertices
    bends = MILLIMETRES * model.posedirs[tips].reshape(5, 3, 15, 3, 3).swapaxes(1, 2)
    moved = np.abs(bends).max((2, 3, 4)) > 0
    # A tip's range of finger unknowns: all joints from the first to the last that move it at all.
    first = np.empty((5, 2), np.int64)
    profile = np.repeat(np.arange(0, 45, 9), 9)
    for tip in range(5):
        joints = np.nonzero(moved[tip] | (model.weights[tips[tip], 1:] != 0))[0]
        low, high = 3 * (joints.min(initial=15)), 3 * (joints.max(initial=-1) + 1)
        # Whole fingers, as a chain moves with its first joint.
        low, high = 9 * (low // 9), 9 * -(-high // 9)
        first[tip] = (low, high) if high > low else (0, 0)
        profile[low:high] = np.minimum(profile[low:high], low)
    none = np.zeros((15, 3, 3)), np.zeros((15, 3, 2))
    return _Rig(
        joints=np.ascontiguousarray(MILLIMETRES * model.rest_joints),
        joint_shape=np.ascontiguousarray(
            MILLIMETRES * np.einsum("jv,vck->jck", model.J_regressor, model.shapedirs)
        ),
        tips=np.ascontiguousarray(MILLIMETRES * model.v_template[tips]),
        tip_shape=np.ascontiguousarray(MILLIMETRES * model.shapedirs[tips]),
        tip_pose=np.ascontiguousarray(bends),
        tip_weights=np.ascontiguousarray(model.weights[tips]),
        tip_bends=moved,
        parents=np.array(model.parents),
        axes=none[0] if model.joint_axes is None else np.array(model.joint_axes),
        angles=none[1] if model.joint_limits is None else np.array(model.joint_limits),
        first=first,
        profile=profile,
    )


def _rows(name: str, given: Any, n: int, width: int) -> np.ndarray:
    """`given` as (n, width); one row serves all."""
    array = np.zeros(width) if given is None else _numpy(given)
    if array.shape not in ((width,), (n, width)):
        raise InputError(f"{name}: found shape {array.shape}, expected ({n}, {width})")
    if not np.isfinite(array).all():
        raise InputError(f"{name}: holds a number that is not finite")
    return np.array(np.broadcast_to(array, (n, width)))


def _problem(
    layer: "HandLayer | HandModel",
    keypoints_px: Array | None,
    camera: Camera | None,
    joints_mm: Array | None,
    weights: Array | None,
    side: Side | Sequence[Side] | None,
    relative: bool,
    joints_weight: float,
) -> _Problem:
    given = {"keypoints_px": (keypoints_px, 2), "joints_mm": (joints_mm, 3)}
    targets = {name: _numpy(array) for name, (array, _) in given.items() if array is not None}
    if not targets:
        raise InputError("fit: give keypoints_px with a camera, joints_mm, or both")
    n = len(next(iter(targets.values())))
    for name, array in targets.items():
        if array.shape != (n, 21, given[name][1]):
            raise InputError(f"{name}: found shape {array.shape}, expected ({n}, 21, {given[name][1]})")
    if (keypoints_px is None) != (camera is None):
        raise InputError("fit: keypoints_px and camera belong together, give both or neither")
    each = np.ones(21) if weights is None else _numpy(weights)
    if each.shape not in ((21,), (n, 21)) or not (np.isfinite(each).all() and (each >= 0).all()):
        raise InputError(f"weights: expected finite numbers from 0, (21,) or ({n}, 21); found {each.shape}")
    sides = (side or layer.side,) * n if side is None or isinstance(side, str) else tuple(side)
    if len(sides) != n or any(one not in ("left", "right") for one in sides):
        raise InputError(f"side: expected 'left' or 'right', for all or for each of {n} hands")
    mirrored = np.array([one != layer.side for one in sides], bool)

    order = MANO.canonical  # for each of MANO's joints and tips the canonical one
    filled, factors = {}, {}
    for name, (_, width) in given.items():
        target = targets.get(name, np.full((n, 21, width), np.nan))
        known = np.isfinite(target).all(-1)
        factors[name] = np.where(known, each, 0.0)[:, order]
        filled[name] = np.where(known[..., None], target, 0.0)[:, order]
    factors["joints_mm"] *= joints_weight
    if relative:
        factors["joints_mm"][:, 0] = 0.0  # the wrist is the origin, whatever the fit
    empty = np.nonzero(factors["keypoints_px"].sum(1) + factors["joints_mm"].sum(1) == 0)[0]
    if len(empty):
        raise InputError(f"hand {empty[0]}: no joint is known, or none has a weight")
    matrices = _matrices_of(camera, n)
    # A mirrored hand is seen by a camera whose x points the other way.
    matrices[mirrored, :, 0] *= -1
    return _Problem(
        keypoints=np.ascontiguousarray(filled["keypoints_px"]),
        matrices=np.ascontiguousarray(matrices),
        joints=np.ascontiguousarray(_mirrored_points(filled["joints_mm"], mirrored)),
        weights_2d=np.ascontiguousarray(factors["keypoints_px"]),
        weights_3d=np.ascontiguousarray(factors["joints_mm"]),
        relative=relative,
        mirrored=mirrored,
        sides=sides,
    )


def _matrices_of(camera: Camera | None, n: int) -> Float[np.ndarray, "n 2 3"]:
    def matrix(one: PinholeCamera) -> np.ndarray:
        return np.array([[one.fx, 0.0, one.cx], [0.0, one.fy, one.cy], [0.0, 0.0, 1.0]])

    if camera is None:
        return np.zeros((n, 2, 3))
    if isinstance(camera, PinholeCamera):
        array = matrix(camera)
    elif isinstance(camera, Sequence):
        array = np.array([matrix(one) for one in camera])
    else:
        array = _numpy(camera)
    if array.shape not in ((3, 3), (n, 3, 3)) or not np.isfinite(array).all():
        raise InputError(f"camera: expected one or {n} finite 3×3 matrices, found shape {array.shape}")
    if not np.allclose(array[..., 2, :], [0.0, 0.0, 1.0]):
        raise InputError("camera: the last row of a matrix must be 0, 0, 1")
    return np.array(np.broadcast_to(array, (n, 3, 3))[:, :2])


def _mirrored_points(points: np.ndarray, mirrored: np.ndarray) -> np.ndarray:
    points = points.copy()
    points[mirrored, ..., 0] *= -1
    return points


def _mirrored_pose(pose: np.ndarray, mirrored: np.ndarray) -> np.ndarray:
    """An axis is a pseudo-vector: its y and z change sign where a point's x does."""
    pose = pose.copy()
    pose[mirrored] *= np.tile([1.0, -1.0, -1.0], 16)
    return pose


def _matrices(
    layer: "HandLayer | HandModel", pose: Float[np.ndarray, "n 48"]
) -> Float[np.ndarray, "n 16 3 3"]:
    """The rotations of a pose as the layer takes it, which may be relative to the model's mean pose."""
    return rotations_of((pose + _mean_pose(layer)).reshape(-1, 16, 3))


def _axis_angles(
    layer: "HandLayer | HandModel", rotations: Float[np.ndarray, "n 16 3 3"]
) -> Float[np.ndarray, "n 48"]:
    pose = axis_angles_of(rotations).reshape(len(rotations), 48)
    return pose - _mean_pose(layer)


def rotations_of(axis_angle: Float[np.ndarray, "*n 3"]) -> Float[np.ndarray, "*n 3 3"]:
    """Rotation matrices of axis-angles, NumPy."""
    rotations = np.empty((*axis_angle.shape, 3))
    _exponentials(np.ascontiguousarray(axis_angle, np.float64).reshape(-1, 3), rotations.reshape(-1, 3, 3))
    return rotations


def axis_angles_of(rotations: Float[np.ndarray, "*n 3 3"]) -> Float[np.ndarray, "*n 3"]:
    """Axis-angles of at most half a turn, the inverse of `rotations_of`."""
    axis_angle = np.empty(rotations.shape[:-1])
    _logarithms(np.ascontiguousarray(rotations, np.float64).reshape(-1, 3, 3), axis_angle.reshape(-1, 3))
    return axis_angle


# --- stages ---------------------------------------------------------------------------------------------


class _State:
    """Hands being fitted; the solver changes the arrays in place."""

    def __init__(
        self, rotations: np.ndarray, translation: np.ndarray, shape: np.ndarray, reference: np.ndarray
    ) -> None:
        n = len(rotations)
        self.rotations = np.ascontiguousarray(rotations)
        self.translation = np.ascontiguousarray(translation)
        self.shape = np.ascontiguousarray(shape)
        self.reference = np.ascontiguousarray(reference)
        self.energy = np.zeros(n)
        self.iterations = np.zeros(n, np.int64)


def _joints(
    rig: _Rig, rotations: np.ndarray, translation: np.ndarray, shape: np.ndarray
) -> Float[np.ndarray, "b 21 3"]:
    """The posed joints in MANO's order, tips last."""
    # Compiled code is made anew for arrays of another layout in memory: give it one only.
    joints = np.empty((len(rotations), 21, 3))
    given = (np.ascontiguousarray(array) for array in (rotations, translation, shape))
    _posed_joints(rig, *given, joints)
    return joints


def _threads() -> int:
    """As many as PyTorch would take, where it is there to say."""
    torch = sys.modules.get("torch")
    return int(torch.get_num_threads()) if torch is not None else os.cpu_count() or 1


def _in_threads(compiled: Any, n: int, *arguments: Any) -> None:
    """`compiled(begin, end, *arguments)` over n hands, in shares."""
    threads = min(_threads(), n // _FEWEST)
    if threads <= 1:
        compiled(0, n, *arguments)
        return
    bounds = [n * i // threads for i in range(threads + 1)]
    with ThreadPoolExecutor(threads - 1) as pool:
        shares = [pool.submit(compiled, a, b, *arguments) for a, b in itertools.pairwise(bounds[1:])]
        # The first share is this thread's own: starting one thread less halves the time of 64 hands.
        compiled(0, bounds[1], *arguments)
        for share in shares:
            share.result()


class _Solver:
    """The compiled loops bound to one problem."""

    def __init__(self, rig: _Rig, problem: _Problem, options: np.ndarray, iterations: int) -> None:
        self.rig, self.problem, self.options, self.iterations = rig, problem, options, iterations

    def run(self, state: _State, *stages: tuple[bool, bool, bool]) -> None:
        """Levenberg-Marquardt over the hands' places and, by stage, over finger pose, turn and shape."""
        p = self.problem
        n = len(p.weights_2d)
        arguments: tuple[Any, ...] = (
            self.rig, p.keypoints, p.matrices, p.joints, p.weights_2d, p.weights_3d, p.relative,
            state.rotations, state.translation, state.shape, state.reference, np.array(stages),
            self.options, self.iterations, state.energy, state.iterations,
        )  # fmt: skip
        _in_threads(_fit, n, *arguments)

    def joints(self, state: _State) -> Float[np.ndarray, "b 21 3"]:
        """Canonical joints of the hands as they stand."""
        return _joints(self.rig, state.rotations, state.translation, state.shape)[:, MANO.gather]

    def placed(self, rotations: np.ndarray, shape: np.ndarray) -> Float[np.ndarray, "b 3"]:
        """Where the posed hands lie best: linear least squares, u (z + t_z) = K (x + t) for 2D.

        Hands whose 2D asks for a place behind the camera start half a metre before it.
        """
        p = self.problem
        joints = _joints(self.rig, rotations, np.zeros((len(rotations), 3)), shape)
        # Rows: (K − u e_z) t = −(K − u e_z) x.
        rows = np.broadcast_to(p.matrices[:, None], (*p.keypoints.shape, 3)).copy()
        rows[..., 2] -= p.keypoints
        right = -(rows * joints[:, :, None]).sum(-1)
        left = np.einsum("bj,bjrc,bjrd->bcd", p.weights_2d, rows, rows)
        toward = np.einsum("bj,bjrc,bjr->bc", p.weights_2d, rows, right)
        if not p.relative:
            left += p.weights_3d.sum(1)[:, None, None] * np.eye(3)
            toward += np.einsum("bj,bjc->bc", p.weights_3d, p.joints - joints)
        trace = np.trace(left, axis1=1, axis2=2)
        left += (1e-12 * trace + 1e-30)[:, None, None] * np.eye(3)
        place = np.linalg.solve(left, toward[..., None])[..., 0]
        seen = p.weights_2d.sum(1) > 0
        behind = seen & ((joints[..., 2] + place[:, None, 2]).min(1) < 10 * NEAREST_MM)
        if behind.any():
            depth = 500.0
            middle = (p.weights_2d[..., None] * p.keypoints).sum(1) / p.weights_2d.sum(1).clip(1e-9)[:, None]
            linear = p.matrices[..., :2]
            ray = (
                np.linalg.solve(linear, (middle - p.matrices[..., 2])[..., None])[..., 0] if seen.all() else 0
            )
            ahead = np.concatenate([ray * np.ones((len(place), 2)), np.ones((len(place), 1))], axis=1) * depth
            place = np.where(behind[:, None], ahead - joints.mean(1), place)
        return place


def _from_scratch(solver: _Solver, shape: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Without a start: rotations and place to begin with, and the relaxed hand that a prior refers to."""
    rig, problem = solver.rig, solver.problem
    n = len(shape)
    relaxed = np.tile(np.eye(3), (16, 1, 1))
    if rig.axes.any():
        bend = rig.axes[:, 0] * np.where(np.arange(15) < 12, RELAXED_RAD, 0.3 * RELAXED_RAD)[:, None]
        relaxed[1:] = rotations_of(bend)
    rotations = np.tile(relaxed, (n, 1, 1, 1))
    palm = np.array([MANO.gather[joint] for joint in PALM])
    in_space = (problem.weights_3d[:, palm[1:]] > 0).all(1)
    if not in_space.all():
        return *_by_trial(solver, shape, relaxed), rotations
    joints = _joints(rig, rotations, np.zeros((n, 3)), shape)
    # Kabsch: the rotation that takes the palm at rest onto the given one.
    here = joints[:, palm] - joints[:, palm].mean(1, keepdims=True)
    there = problem.joints[:, palm] - problem.joints[:, palm].mean(1, keepdims=True)
    u, _, vt = np.linalg.svd(np.swapaxes(there, 1, 2) @ here)
    u[:, :, 2] *= np.linalg.det(u @ vt)[:, None]
    rotations[:, 0] = u @ vt
    return rotations, solver.placed(rotations, shape), rotations.copy()


def _by_trial(
    solver: _Solver, shape: np.ndarray, relaxed: np.ndarray
) -> tuple[Float[np.ndarray, "b 16 3 3"], Float[np.ndarray, "b 3"]]:
    """From 2D alone: the rigid hand from 24 turns, then the whole hand from the best few; one is kept."""
    n = len(shape)
    tried: list[tuple[np.ndarray, _State]] = []
    for turn in _cube_turns():
        rotations = np.tile(relaxed, (n, 1, 1, 1))
        rotations[:, 0] = turn
        state = _State(rotations, solver.placed(rotations, shape), shape.copy(), rotations.copy())
        solver.run(state, (False, True, False))
        tried.append((state.energy, state))
    order = np.argsort(np.stack([energy for energy, _ in tried]), axis=0)
    best: _State | None = None
    for rank in range(_CANDIDATES):
        chosen = [tried[index][1] for index in order[rank]]
        rotations = np.stack([state.rotations[i] for i, state in enumerate(chosen)])
        translation = np.stack([state.translation[i] for i, state in enumerate(chosen)])
        state = _State(rotations, translation, shape.copy(), rotations.copy())
        solver.run(state, (True, True, False))
        if best is None:
            best = state
            continue
        better = state.energy < best.energy
        for name in ("rotations", "translation", "energy"):
            getattr(best, name)[better] = getattr(state, name)[better]
    assert best is not None
    return best.rotations, best.translation


def _cube_turns() -> Float[np.ndarray, "24 3 3"]:
    """The rotations that take a cube's axes to its axes."""
    turns = []
    for order in itertools.permutations(range(3)):
        for signs in itertools.product((1.0, -1.0), repeat=3):
            matrix = np.zeros((3, 3))
            matrix[range(3), order] = signs
            if np.linalg.det(matrix) > 0:
                turns.append(matrix)
    return np.stack(turns)


# --- compiled -------------------------------------------------------------------------------------------
# One hand at a time, plain loops. Unknowns, in this order: 45 of the fingers (joint by joint, MANO's order),
# 3 of the hand's turn, 3 of its place, 10 of its shape; each group but the place may be absent. A rotation R
# becomes R exp(δ), so its δ turns everything beyond the joint about the columns of the joint's posed frame.

_MOVE_UNIT_MM = 100.0  # a step of this length is damped as a turn by one radian, or one unit of shape


class _Posed(NamedTuple):
    """Work arrays of one hand."""

    rest: np.ndarray  # (16, 3) rest joints of the shape
    frames: np.ndarray  # (16, 3, 3) posed frames
    points: np.ndarray  # (21, 3) posed joints, then tips
    carried: np.ndarray  # (5, 16, 3) a tip as each joint carries it, times its weight
    blended: np.ndarray  # (5, 3, 3) the frames, blended by a tip's weights


@nb.njit(nogil=True, cache=True)
@no_type_check
def _work():
    return _Posed(
        np.empty((16, 3)), np.empty((16, 3, 3)), np.empty((21, 3)), np.empty((5, 16, 3)), np.empty((5, 3, 3))
    )


@nb.njit(nogil=True, cache=True)
@no_type_check
def _pose(rig, rotations, translation, shape, posed):
    """Forward kinematics of the joints and the five tips."""
    for k in range(16):
        for i in range(3):
            at = rig.joints[k, i]
            for s in range(10):
                at += rig.joint_shape[k, i, s] * shape[s]
            posed.rest[k, i] = at
    for i in range(3):
        posed.points[0, i] = posed.rest[0, i] + translation[i]
        for j in range(3):
            posed.frames[0, i, j] = rotations[0, i, j]
    for k in range(1, 16):
        parent = rig.parents[k]
        above, own = posed.frames[parent], rotations[k]
        x = posed.rest[k, 0] - posed.rest[parent, 0]
        y = posed.rest[k, 1] - posed.rest[parent, 1]
        z = posed.rest[k, 2] - posed.rest[parent, 2]
        for i in range(3):
            posed.points[k, i] = posed.points[parent, i] + above[i, 0] * x + above[i, 1] * y + above[i, 2] * z
            for j in range(3):
                posed.frames[k, i, j] = (
                    above[i, 0] * own[0, j] + above[i, 1] * own[1, j] + above[i, 2] * own[2, j]
                )
    tip = np.empty(3)
    for f in range(5):
        for i in range(3):
            at = rig.tips[f, i]
            for s in range(10):
                at += rig.tip_shape[f, i, s] * shape[s]
            for k in range(15):
                if rig.tip_bends[f, k]:
                    for a in range(3):
                        for b in range(3):
                            bent = rotations[k + 1, a, b] - (1.0 if a == b else 0.0)
                            at += rig.tip_pose[f, k, i, a, b] * bent
            tip[i] = at
            posed.points[16 + f, i] = 0.0
            for j in range(3):
                posed.blended[f, i, j] = 0.0
        for k in range(16):
            w = rig.tip_weights[f, k]
            for i in range(3):
                posed.carried[f, k, i] = 0.0
            if w == 0.0:
                continue
            x, y, z = tip[0] - posed.rest[k, 0], tip[1] - posed.rest[k, 1], tip[2] - posed.rest[k, 2]
            for i in range(3):
                row = posed.frames[k, i]
                at = w * (posed.points[k, i] + row[0] * x + row[1] * y + row[2] * z)
                posed.carried[f, k, i] = at
                posed.points[16 + f, i] += at
                for j in range(3):
                    posed.blended[f, i, j] += w * row[j]


@nb.njit(nogil=True, cache=True)
@no_type_check
def _copy(target, source):
    """`target[:] = source`, which takes seconds to compile for what it says of unequal shapes."""
    for index in np.ndindex(source.shape):
        target[index] = source[index]


@nb.njit(nogil=True, cache=True)
@no_type_check
def _posed_joints(rig, rotations, translation, shape, joints):
    posed = _work()
    for n in range(len(rotations)):
        _pose(rig, rotations[n], translation[n], shape[n], posed)
        _copy(joints[n], posed.points)


@nb.njit(nogil=True, cache=True)
@no_type_check
def _posed_frames(rig, rotations, translation, shape, frames, points, rest):
    posed = _work()
    for n in range(len(rotations)):
        _pose(rig, rotations[n], translation[n], shape[n], posed)
        _copy(frames[n], posed.frames)
        _copy(points[n], posed.points[:16])
        _copy(rest[n], posed.rest)


@nb.njit(nogil=True, cache=True)
@no_type_check
def _angles(rotation, axes, angles, rates):
    """Flexion, abduction, twist of a joint, and their derivatives by δ of R exp(δ).

    In the axes' own frame the rotation is R_x(flexion) R_y(abduction) R_z(twist).
    """
    local = axes @ rotation @ axes.T
    sine = min(max(local[0, 2], -1.0), 1.0)
    flexion = np.arctan2(-local[1, 2], local[2, 2])
    twist = np.arctan2(-local[0, 1], local[0, 0])
    angles[0], angles[1], angles[2] = flexion, np.arcsin(sine), twist
    cosine = max(np.sqrt(1.0 - sine * sine), 1e-3)
    c, s = np.cos(twist), np.sin(twist)
    for i in range(3):
        by_flexion = (c * axes[0, i] - s * axes[1, i]) / cosine
        rates[0, i] = by_flexion
        rates[1, i] = s * axes[0, i] + c * axes[1, i]
        rates[2, i] = axes[2, i] - sine * by_flexion


@nb.njit(nogil=True, cache=True)
@no_type_check
def _energy(
    rig, posed, keypoints, matrix, joints, weights_2d, weights_3d, relative, rotations, shape, reference,
    options,
):  # fmt: skip
    """What is minimised; infinite where a joint that should be seen is not before the camera."""
    robust = options[0] * options[0]
    total = 0.0
    for m in range(21):
        x, y, z = posed.points[m, 0], posed.points[m, 1], posed.points[m, 2]
        if weights_2d[m] > 0:
            if not z > NEAREST_MM:
                return np.inf
            du = (matrix[0, 0] * x + matrix[0, 1] * y) / z + matrix[0, 2] - keypoints[m, 0]
            dv = (matrix[1, 0] * x + matrix[1, 1] * y) / z + matrix[1, 2] - keypoints[m, 1]
            square = du * du + dv * dv
            if robust > 0:
                square = robust * np.log1p(square / robust)
            total += weights_2d[m] * square
        if weights_3d[m] > 0:
            if relative:
                x, y, z = x - posed.points[0, 0], y - posed.points[0, 1], z - posed.points[0, 2]
            dx, dy, dz = x - joints[m, 0], y - joints[m, 1], z - joints[m, 2]
            square = dx * dx + dy * dy + dz * dz
            if robust > 0:
                square = robust * np.log1p(square / robust)
            total += weights_3d[m] * square
    if options[1] > 0:
        for k in range(1, 16):
            trace = 0.0
            for i in range(3):
                for j in range(3):
                    trace += rotations[k, i, j] * reference[k, i, j]
            total += options[1] * (3.0 - trace)  # 3 - (1 + 2 cos φ) = 4 sin² (φ / 2)
    if options[2] > 0:
        angles, rates = np.empty(3), np.empty((3, 3))
        for k in range(15):
            _angles(rotations[k + 1], rig.axes[k], angles, rates)
            for a in range(3):
                excess = max(rig.angles[k, a, 0] - angles[a], 0.0, angles[a] - rig.angles[k, a, 1])
                total += options[2] * excess * excess
    if options[3] > 0:
        for s in range(10):
            total += options[3] * shape[s] * shape[s]
    return total


@nb.njit(nogil=True, cache=True)
@no_type_check
def _turned(frame, x, y, z, out, column):
    """Velocity of the lever (x, y, z) as it turns about a frame's columns, into three columns of `out`."""
    for c in range(3):
        a, b, d = frame[0, c], frame[1, c], frame[2, c]
        out[0, column + c] = b * z - d * y
        out[1, column + c] = d * x - a * z
        out[2, column + c] = a * y - b * x


@nb.njit(nogil=True, cache=True, fastmath={"reassoc", "contract", "nsz"})
@no_type_check
def _accumulate(row, residual, weight, low, high, tail, n, matrix, gradient):
    """Add one residual to the normal equations; its unknowns are low…high and tail…n."""
    for i in range(low, high):
        w = weight * row[i]
        gradient[i] += w * residual
        for j in range(low, i + 1):
            matrix[i, j] += w * row[j]
    for i in range(tail, n):
        w = weight * row[i]
        gradient[i] += w * residual
        for j in range(low, high):
            matrix[i, j] += w * row[j]
        for j in range(tail, i + 1):
            matrix[i, j] += w * row[j]


@nb.njit(nogil=True, cache=True)
@no_type_check
def _assemble(
    rig, posed, keypoints, matrix, joints, weights_2d, weights_3d, relative, rotations, shape, reference,
    options, fingers, turn, free_shape, shape_rates, by, row, normal, gradient,
):  # fmt: skip
    """Normal equations J'J and J'r of Gauss and Newton, lower triangle. Returns the number of unknowns."""
    tail = 45 if fingers else 0
    place = tail + 3 if turn else tail
    beyond = place + 3
    n = beyond + 10 if free_shape else beyond
    robust = options[0] * options[0]
    for i in range(n):
        gradient[i] = 0.0
        for j in range(i + 1):
            normal[i, j] = 0.0
    if free_shape:  # of the posed joints, along the chains
        for k in range(16):
            parent = rig.parents[k]
            for s in range(10):
                if k == 0:
                    for i in range(3):
                        shape_rates[0, i, s] = rig.joint_shape[0, i, s]
                else:
                    x = rig.joint_shape[k, 0, s] - rig.joint_shape[parent, 0, s]
                    y = rig.joint_shape[k, 1, s] - rig.joint_shape[parent, 1, s]
                    z = rig.joint_shape[k, 2, s] - rig.joint_shape[parent, 2, s]
                    for i in range(3):
                        f = posed.frames[parent, i]
                        shape_rates[k, i, s] = shape_rates[parent, i, s] + f[0] * x + f[1] * y + f[2] * z
    for m in range(21):
        if weights_2d[m] == 0 and weights_3d[m] == 0:
            continue
        # Derivatives of the point by all unknowns that move it, into `by`.
        low = high = 0
        if m < 16:
            if fingers and m > 0:
                low, high = 9 * ((m - 1) // 3), 3 * (m - 1)
                for j in range(low // 3 + 1, m):
                    _turned(
                        posed.frames[j],
                        posed.points[m, 0] - posed.points[j, 0],
                        posed.points[m, 1] - posed.points[j, 1],
                        posed.points[m, 2] - posed.points[j, 2],
                        by,
                        3 * (j - 1),
                    )
            if turn:
                _turned(
                    posed.frames[0],
                    posed.points[m, 0] - posed.points[0, 0],
                    posed.points[m, 1] - posed.points[0, 1],
                    posed.points[m, 2] - posed.points[0, 2],
                    by,
                    tail,
                )
            for i in range(3):
                for j in range(3):
                    by[i, place + j] = 1.0 if i == j else 0.0
            if free_shape:
                for i in range(3):
                    for s in range(10):
                        by[i, beyond + s] = shape_rates[m, i, s]
        else:
            f = m - 16
            if fingers:
                low, high = rig.first[f, 0], rig.first[f, 1]
                for j in range(low // 3 + 1, high // 3 + 1):
                    # All that joint j carries of the tip: itself and its finger's joints beyond.
                    x = y = z = w = 0.0
                    for k in range(j, 3 * ((j - 1) // 3) + 4):
                        x += posed.carried[f, k, 0]
                        y += posed.carried[f, k, 1]
                        z += posed.carried[f, k, 2]
                        w += rig.tip_weights[f, k]
                    x -= w * posed.points[j, 0]
                    y -= w * posed.points[j, 1]
                    z -= w * posed.points[j, 2]
                    _turned(posed.frames[j], x, y, z, by, 3 * (j - 1))
                    if rig.tip_bends[f, j - 1]:
                        basis, own = rig.tip_pose[f, j - 1], rotations[j]
                        for c in range(3):
                            # Columns c+1 and c+2 of R [e_c]: column c+2 of R, and minus its column c+1.
                            p, q = (c + 1) % 3, (c + 2) % 3
                            x = y = z = 0.0
                            for a in range(3):
                                x += basis[0, a, p] * own[a, q] - basis[0, a, q] * own[a, p]
                                y += basis[1, a, p] * own[a, q] - basis[1, a, q] * own[a, p]
                                z += basis[2, a, p] * own[a, q] - basis[2, a, q] * own[a, p]
                            for i in range(3):
                                b = posed.blended[f, i]
                                by[i, 3 * (j - 1) + c] += b[0] * x + b[1] * y + b[2] * z
            w = 0.0
            for k in range(16):
                w += rig.tip_weights[f, k]
            if turn:
                _turned(
                    posed.frames[0],
                    posed.points[m, 0] - w * posed.points[0, 0],
                    posed.points[m, 1] - w * posed.points[0, 1],
                    posed.points[m, 2] - w * posed.points[0, 2],
                    by,
                    tail,
                )
            for i in range(3):
                for j in range(3):
                    by[i, place + j] = w if i == j else 0.0
            if free_shape:
                for i in range(3):
                    b = posed.blended[f, i]
                    for s in range(10):
                        by[i, beyond + s] = (
                            b[0] * rig.tip_shape[f, 0, s]
                            + b[1] * rig.tip_shape[f, 1, s]
                            + b[2] * rig.tip_shape[f, 2, s]
                        )
                for k in range(16):
                    w = rig.tip_weights[f, k]
                    if w == 0.0:
                        continue
                    for i in range(3):
                        g = posed.frames[k, i]
                        for s in range(10):
                            by[i, beyond + s] += w * (
                                shape_rates[k, i, s]
                                - g[0] * rig.joint_shape[k, 0, s]
                                - g[1] * rig.joint_shape[k, 1, s]
                                - g[2] * rig.joint_shape[k, 2, s]
                            )
        x, y, z = posed.points[m, 0], posed.points[m, 1], posed.points[m, 2]
        if weights_2d[m] > 0:
            u = (matrix[0, 0] * x + matrix[0, 1] * y) / z
            v = (matrix[1, 0] * x + matrix[1, 1] * y) / z
            du, dv = u + matrix[0, 2] - keypoints[m, 0], v + matrix[1, 2] - keypoints[m, 1]
            w = weights_2d[m]
            if robust > 0:
                w /= 1.0 + (du * du + dv * dv) / robust
            for axis in range(2):
                ux, uy, uz = matrix[axis, 0] / z, matrix[axis, 1] / z, -(u if axis == 0 else v) / z
                for i in range(low, high):
                    row[i] = ux * by[0, i] + uy * by[1, i] + uz * by[2, i]
                for i in range(tail, n):
                    row[i] = ux * by[0, i] + uy * by[1, i] + uz * by[2, i]
                _accumulate(row, du if axis == 0 else dv, w, low, high, tail, n, normal, gradient)
        if weights_3d[m] > 0:
            if relative:
                x, y, z = x - posed.points[0, 0], y - posed.points[0, 1], z - posed.points[0, 2]
                for i in range(3):
                    by[i, place + i] -= 1.0
                    if free_shape:
                        for s in range(10):
                            by[i, beyond + s] -= shape_rates[0, i, s]
            dx, dy, dz = x - joints[m, 0], y - joints[m, 1], z - joints[m, 2]
            w = weights_3d[m]
            if robust > 0:
                w /= 1.0 + (dx * dx + dy * dy + dz * dz) / robust
            _accumulate(by[0], dx, w, low, high, tail, n, normal, gradient)
            _accumulate(by[1], dy, w, low, high, tail, n, normal, gradient)
            _accumulate(by[2], dz, w, low, high, tail, n, normal, gradient)
    if fingers and options[1] > 0:
        for k in range(1, 16):
            own, there = rotations[k], reference[k]
            for c in range(3):
                # The antisymmetric part of R_ref' R.
                p, q = (c + 1) % 3, (c + 2) % 3
                turned = 0.0
                for a in range(3):
                    turned += there[a, q] * own[a, p] - there[a, p] * own[a, q]
                gradient[3 * (k - 1) + c] += options[1] * 0.5 * turned
                normal[3 * (k - 1) + c, 3 * (k - 1) + c] += options[1]
    if fingers and options[2] > 0:
        angles, rates = np.empty(3), np.empty((3, 3))
        for k in range(15):
            _angles(rotations[k + 1], rig.axes[k], angles, rates)
            for a in range(3):
                excess = max(angles[a] - rig.angles[k, a, 1], 0.0) + min(angles[a] - rig.angles[k, a, 0], 0.0)
                if excess != 0.0:
                    for i in range(3):
                        gradient[3 * k + i] += options[2] * excess * rates[a, i]
                        for j in range(i + 1):
                            normal[3 * k + i, 3 * k + j] += options[2] * rates[a, i] * rates[a, j]
    if free_shape and options[3] > 0:
        for s in range(10):
            gradient[beyond + s] += options[3] * shape[s]
            normal[beyond + s, beyond + s] += options[3]
    return n


@nb.njit(nogil=True, cache=True, fastmath={"reassoc", "contract", "nsz"})
@no_type_check
def _solve(normal, damping, gradient, profile, n, factor, inverse, step):
    """step = −(normal + diag(damping))⁻¹ gradient by Cholesky; entries of row i before profile[i] are zero.

    Returns whether the matrix was positive definite.
    """
    for i in range(n):
        begin = profile[i]
        for j in range(begin, i):
            total = normal[i, j]
            for k in range(max(begin, profile[j]), j):
                total -= factor[i, k] * factor[j, k]
            factor[i, j] = total * inverse[j]
        total = normal[i, i] + damping[i]
        for k in range(begin, i):
            total -= factor[i, k] * factor[i, k]
        if not total > 0:
            return False
        inverse[i] = 1.0 / np.sqrt(total)
    for i in range(n):
        total = -gradient[i]
        for k in range(profile[i], i):
            total -= factor[i, k] * step[k]
        step[i] = total * inverse[i]
    for i in range(n - 1, -1, -1):
        step[i] *= inverse[i]
        for k in range(profile[i], i):
            step[k] -= factor[i, k] * step[i]
    return True


@nb.njit(nogil=True, cache=True)
@no_type_check
def _turn(rotation, x, y, z, out):
    """out = rotation exp(x, y, z)."""
    square = x * x + y * y + z * z
    if square < 1e-12:
        s, c = 1.0 - square / 6.0, 0.5 - square / 24.0
    else:
        angle = np.sqrt(square)
        s, c = np.sin(angle) / angle, (1.0 - np.cos(angle)) / square
    e00, e01, e02 = 1 - c * (y * y + z * z), c * x * y - s * z, c * x * z + s * y
    e10, e11, e12 = c * x * y + s * z, 1 - c * (x * x + z * z), c * y * z - s * x
    e20, e21, e22 = c * x * z - s * y, c * y * z + s * x, 1 - c * (x * x + y * y)
    for i in range(3):
        a, b, d = rotation[i, 0], rotation[i, 1], rotation[i, 2]
        out[i, 0] = a * e00 + b * e10 + d * e20
        out[i, 1] = a * e01 + b * e11 + d * e21
        out[i, 2] = a * e02 + b * e12 + d * e22


@nb.njit(nogil=True, cache=True)
@no_type_check
def _exponentials(axis_angle, rotations):
    identity = np.eye(3)
    for n in range(len(axis_angle)):
        _turn(identity, axis_angle[n, 0], axis_angle[n, 1], axis_angle[n, 2], rotations[n])


@nb.njit(nogil=True, cache=True)
@no_type_check
def _logarithms(rotations, axis_angle):
    q = np.empty(4)  # the quaternion (w, x, y, z), times four of its largest part, which loses nothing
    for n in range(len(rotations)):
        r = rotations[n]
        trace = r[0, 0] + r[1, 1] + r[2, 2]
        largest = 0
        for i in range(3):
            if r[i, i] > trace and r[i, i] >= max(r[0, 0], r[1, 1], r[2, 2]):
                largest = i + 1
        if largest == 0:
            q[0] = 1.0 + trace
            for i in range(3):
                j, k = (i + 1) % 3, (i + 2) % 3
                q[i + 1] = r[k, j] - r[j, k]
        else:
            i = largest - 1
            j, k = (i + 1) % 3, (i + 2) % 3
            q[0] = r[k, j] - r[j, k]
            q[i + 1] = 1.0 + 2.0 * r[i, i] - trace
            q[j + 1] = r[i, j] + r[j, i]
            q[k + 1] = r[i, k] + r[k, i]
        if q[0] < 0:
            q *= -1.0
        sine = np.sqrt(q[1] * q[1] + q[2] * q[2] + q[3] * q[3])
        # The quaternion's length cancels in the angle; for small angles angle / sine → 2 / length.
        factor = 2.0 * np.arctan2(sine, q[0]) / sine if sine > 1e-12 * q[0] else 2.0 / q[0]
        for i in range(3):
            axis_angle[n, i] = factor * q[i + 1]


@nb.njit(nogil=True, cache=True)
@no_type_check
def _fit(
    begin, end, rig, keypoints, matrices, joints, weights_2d, weights_3d, relative, rotations, translation,
    shape, reference, stages, options, most, energy, iterations,
):  # fmt: skip
    """Hands begin…end, one after the other, each by Levenberg-Marquardt with Nielsen's damping."""
    tolerance = options[4]
    posed = _work()
    by, row = np.zeros((3, 61)), np.zeros(61)
    normal, factor = np.empty((61, 61)), np.empty((61, 61))
    gradient, step, damping, inverse = np.empty(61), np.empty(61), np.empty(61), np.empty(61)
    shape_rates = np.empty((16, 3, 10))
    turns, moved, shaped = np.empty((16, 3, 3)), np.empty(3), np.empty(10)
    profile, unit = np.zeros(61, np.int64), np.empty(61)
    for h in range(begin, end):
        own = rotations[h]
        two, three = weights_2d[h], weights_3d[h]
        enough = 1e-8 * (two.sum() + three.sum())  # a ten-thousandth of a pixel or millimetre
        _pose(rig, own, translation[h], shape[h], posed)
        now = _energy(
            rig, posed, keypoints[h], matrices[h], joints[h], two, three, relative, own, shape[h],
            reference[h], options,
        )  # fmt: skip
        for stage in range(len(stages)):
            fingers, turn, free_shape = stages[stage, 0], stages[stage, 1], stages[stage, 2]
            tail = 45 if fingers else 0
            place = tail + 3 if turn else tail
            beyond = place + 3
            n = beyond + 10 if free_shape else beyond
            for i in range(n):
                profile[i] = rig.profile[i] if i < tail else 0
                unit[i] = 1.0 / (_MOVE_UNIT_MM * _MOVE_UNIT_MM) if place <= i < beyond else 1.0
            mu, growth, fresh = -1.0, 2.0, False
            _pose(rig, own, translation[h], shape[h], posed)
            for _ in range(most):
                if now <= enough or not now < np.inf:
                    break
                if not fresh:
                    _assemble(
                        rig, posed, keypoints[h], matrices[h], joints[h], two, three, relative, own, shape[h],
                        reference[h], options, fingers, turn, free_shape, shape_rates, by, row, normal,
                        gradient,
                    )  # fmt: skip
                    fresh = True
                    if mu < 0:
                        most_curved = 0.0
                        for i in range(n):
                            most_curved = max(most_curved, normal[i, i] / unit[i])
                        mu = 1e-3 * most_curved + 1e-12
                iterations[h] += 1
                for i in range(n):
                    damping[i] = mu * unit[i]
                if not _solve(normal, damping, gradient, profile, n, factor, inverse, step):
                    mu *= growth
                    growth *= 2.0
                    continue
                promised = 0.0
                for i in range(n):
                    promised += step[i] * (damping[i] * step[i] - gradient[i])
                if promised <= 0.1 * tolerance * now:
                    break
                for k in range(16):
                    at = tail if k == 0 else 3 * (k - 1)
                    if turn if k == 0 else fingers:
                        _turn(own[k], step[at], step[at + 1], step[at + 2], turns[k])
                    else:
                        _copy(turns[k], own[k])
                for i in range(3):
                    moved[i] = translation[h, i] + step[place + i]
                for s in range(10):
                    shaped[s] = shape[h, s] + (step[beyond + s] if free_shape else 0.0)
                _pose(rig, turns, moved, shaped, posed)
                then = _energy(
                    rig, posed, keypoints[h], matrices[h], joints[h], two, three, relative, turns, shaped,
                    reference[h], options,
                )  # fmt: skip
                if then < now:
                    gain = (now - then) / promised
                    _copy(own, turns)
                    _copy(translation[h], moved)
                    _copy(shape[h], shaped)
                    done = now - then <= tolerance * now
                    now = then
                    fresh = False
                    mu *= max(0.2, 1.0 - (2.0 * gain - 1.0) ** 3)
                    growth = 2.0
                    if done:
                        break
                else:
                    mu *= growth
                    growth *= 2.0
        energy[h] = now
