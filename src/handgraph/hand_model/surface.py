"""Laying the hand model on the surface that a depth image shows, so that joints become a hand that fits.

A network that votes for joints looks at all of them at once and is a few millimetres off at each; what it saw
is surface, which says where skin is to a millimetre. So the hand model is first posed to the network's joints
(`fitting.fit`) and then moved, bent and shaped until its skin lies on the visible surface, while the joints
hold it wherever nothing is seen: Gauss-Newton steps on

    Σ w |x − joints|²  +  SURFACE Σ ρ(n · (v − p))  +  SURFACE Σ ρ(beside)  +  priors and limits

over the points p of the depth image and the vertices v of the skin that are turned to the camera, n their
normals; ρ(r) = r² / (1 + r² / c²), Geman and McClure's. A point pulls the vertex that is nearest to it, along
the normal alone: skin slides along skin (point to plane, Chen and Medioni 1992). Points farther from every
vertex than `REACH_MM` are of something else: forearm, table, what the hand holds. `beside` is how far, in the
picture, a vertex stands beyond `FREE_MM` from the nearest pixel that could be it: no skin hangs where the
camera looks through to what lies behind. Where something is before it, or nobody knows what the camera saw,
it may be. Priors and limits are those of `fit`, the pose's towards the hand that the joints alone say.

As in `fitting` loops are compiled by numba and free of the GIL, one hand at a time.
"""

from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, no_type_check

import cv2
import numba as nb
import numpy as np

from ..arrays import array as _numpy
from ..camera import Crop
from ..errors import ConfigError, InputError
from ..skeleton import MANO
from ..stale import forget_stale_code
from .files import MILLIMETRES, HandModel
from .fitting import (
    Array,
    Fit,
    _assemble,
    _axis_angles,
    _copy,
    _energy,
    _in_threads,
    _matrices,
    _mirrored_points,
    _mirrored_pose,
    _pose,
    _prepared,
    _rows,
    _solve,
    _turn,
    _work,
    fit,
)

if TYPE_CHECKING:
    from .layer import HandLayer

forget_stale_code(Path(__file__).parent, ("fitting", "surface"))

# Chosen on answers to synthetic validation hands (benchmarks/surface_fit.py), by the error of the model that
# drew them and of models of other hands, whose parts are moved and thickened by some millimetres. Half or
# twice as much of each changes little.
STEPS = 4
SURFACE = 2.0
"""What a point weighs beside a joint of weight 1, of points `_APART_MM` apart; closer ones weigh less."""
REACH_MM = (15.0, 10.0)
"""How far a point may be from the skin, at the first step and at the last."""
SOFT_MM = 5.0
"""Distance from the skin at which a point weighs a quarter (Geman and McClure)."""
BEHIND_MM = 12.0
"""So much nearer to the camera than what a pixel shows, skin would hide it."""
BESIDE_MM = 32.0
"""Skin farther than this from what could be it is not drawn there."""
SOFT_BESIDE_MM = 8.0
FREE_MM = 1.5
"""So far beside the outline is within what sensors do to edges."""
POSE_PRIOR, SHAPE_PRIOR, LIMITS = 3.0, 50.0, 300.0
"""As `fit` takes them, beside squared millimetres."""
HOLE_PX = 30
"""Holes of no more pixels are missing readings: nobody knows what the camera would have seen."""
CUT_PX = 5
"""An outer row or column of what a crop shows with more pixels than a fingertip's is where the frame ends."""
_APART_MM = 250.0 / 95  # pixels of a crop of 96 pixels and 250 mm
_DAMPING = 1.0
_MOVE_DAMPING = 1e-4  # a millimetre is less than a radian


class _Skin(NamedTuple):
    """The whole skin of a hand model, mm."""

    vertices: np.ndarray  # (V, 3) at rest
    by_shape: np.ndarray  # (V, 3, 10)
    by_pose: np.ndarray  # (V, 3, 135)
    bones: np.ndarray  # (V, k) those that carry a vertex, and
    weights: np.ndarray  # (V, k) how much
    faces: np.ndarray  # (F, 3)


class _Views(NamedTuple):
    """What the crops show."""

    images: np.ndarray  # (b, s, s) in [-1, 1], 1 where nothing is
    cameras: np.ndarray  # (b, 3, 3) from the crop's frame to u, v in [0, 1]
    middles: np.ndarray  # (b,) depth of the cube's centre
    halves: np.ndarray  # (b,) half of the cube's side


def fit_surface(
    layer: "HandLayer | HandModel",
    images: Array,
    crops: Sequence[Crop],
    joints_mm: Array,
    *,
    weights: Array | None = None,
    shape: Array | None = None,
    surface: float = SURFACE,
) -> Fit:
    """The hand model laid on what depth crops show, begun at joints that a network saw there.

    Args:
        layer: a right hand, whose poses must be axis-angle, or its model alone.
        images: (b, s, s), the crops as `Crop.apply_depth` gives them, −1 to 1 through the cube, +1 where
            nothing is; −1 where nobody knows, which is also made of small holes and of what lies beyond the
            frame (`_known`).
        crops: where they were cut; a mirrored crop's hand is a left one.
        joints_mm: (b, 21, 3), canonical order, camera frame.
        weights: factors of the joints' squared distances, (21,) or (b, 21); 1 is a joint known to some 5 mm.
        shape: given, (10,) or (b, 10); fitted too where it is not.
        surface: what a point weighs beside a joint of weight 1; with 0 the joints alone count.

    Returns the hands in the camera frame, each of its own side: of the hands that the steps passed through,
    the first among them, those with the least energy.
    Raises InputError for arrays that do not fit together or hold what is not finite, or crops without a cube
    or a camera, ConfigError for a left layer or one with principal poses.
    """
    if layer.side != "right":
        raise ConfigError("fit_surface needs a right hand: crops of left hands are mirrored")
    model = layer if isinstance(layer, HandModel) else layer.model
    limits = LIMITS if model.joint_axes is not None and model.joint_limits is not None else 0.0
    rig = _prepared(layer, limits)
    joints, n = _numpy(joints_mm), len(crops)
    views = _views(images, crops)
    if joints.shape != (n, 21, 3) or not np.isfinite(joints).all():
        raise InputError(f"joints_mm: expected finite numbers, ({n}, 21, 3), found shape {joints.shape}")
    if not (np.isfinite(surface) and surface >= 0):
        raise InputError(f"surface is {surface}, expected a finite number from 0")
    # In the crop's frame every hand is a right one.
    turns = np.array([crop.crop_from_camera for crop in crops]).reshape(n, 3, 3)
    seen = np.einsum("bjc,bdc->bjd", joints, turns)
    factors = np.ones((n, 21)) if weights is None else _rows("weights", weights, n, 21)
    start = fit(
        layer, joints_mm=seen, weights=factors, shape=shape, free_shape=shape is None,
        pose_prior=POSE_PRIOR, shape_prior=SHAPE_PRIOR, limits=limits,
    )  # fmt: skip
    order = list(MANO.canonical)
    rotations = np.ascontiguousarray(_matrices(layer, start.pose))
    translation, shapes = start.translation_mm.copy(), start.shape.copy()
    points, energy, steps = np.empty((n, 21, 3)), np.empty(n), np.zeros(n, np.int64)
    _in_threads(
        _lay, n, _skin(model), rig, views, np.ascontiguousarray(seen[:, order]),
        np.ascontiguousarray(factors[:, order]), rotations, translation, shapes, rotations.copy(),
        np.array([0.0, POSE_PRIOR, limits, SHAPE_PRIOR, 0.0]), shape is None, float(surface), points, energy,
        steps,
    )  # fmt: skip

    # Back to the camera: first turned as a right hand, then mirrored.
    mirrored = np.array([crop.mirrored for crop in crops], bool)
    proper = turns.copy()
    proper[mirrored, :, 0] *= -1
    roots = points[:, 0] - translation  # the rest wrist, about which the hand is turned
    placed = np.einsum("bjc,bcd->bjd", points, proper)
    rotations[:, 0] = np.swapaxes(proper, 1, 2) @ rotations[:, 0]
    return Fit(
        pose=_mirrored_pose(_axis_angles(layer, rotations), mirrored),
        shape=shapes,
        translation_mm=_mirrored_points(placed[:, 0] - roots, mirrored),
        joints_mm=_mirrored_points(placed, mirrored)[:, MANO.gather],
        energy=energy,
        iterations=start.iterations + steps,
        sides=tuple("left" if crop.mirrored else "right" for crop in crops),
    )


def _views(images: Array, crops: Sequence[Crop]) -> _Views:
    n = len(crops)
    given = np.ascontiguousarray(_numpy(images))
    size = crops[0].size if n else 0
    if given.shape != (n, size, size) or any(crop.size != size for crop in crops):
        raise InputError(
            f"images: found shape {given.shape}, expected one of the size of each crop, ({n}, {size}, {size})"
        )
    if not (np.abs(given) <= 1).all():  # NaN is not
        raise InputError("images: hold a number that is not from -1 to 1, as Crop.apply_depth gives them")
    for crop in crops:
        if crop.camera is None or crop.cube_mm is None:
            raise InputError("a crop without depth cube or camera: make it with Crop.cube(...)")
    return _Views(
        np.stack([_known(image) for image in given]) if n else given,
        np.array([crop.crop_camera for crop in crops]).reshape(n, 3, 3),
        np.array([crop.center_depth_mm for crop in crops], np.float64),
        np.array([crop.cube_mm for crop in crops], np.float64) / 2,
    )


def _known(image: np.ndarray) -> np.ndarray:
    """The image with −1 where nobody knows what the camera would have seen.

    `Crop.apply_depth` says +1 of all that it has no depth of in the cube. Small holes are missing readings;
    and what the crop shows ends in a straight line where the frame does, a hand ends in few pixels.
    """
    empty = image >= 1
    known = image.copy()
    _, parts, sizes, _ = cv2.connectedComponentsWithStats(empty.astype(np.uint8), connectivity=4)
    known[empty & (sizes[parts, cv2.CC_STAT_AREA] <= HOLE_PX)] = -1
    for turn in range(4):  # from above, right, below and left; `rot90` gives views
        filled = np.rot90(image < 1, turn).sum(axis=1)
        first = int(np.argmax(filled > 0))
        if filled[first] > CUT_PX:
            np.rot90(known, turn)[:first] = -1
    return known


@lru_cache(maxsize=8)
def _skin(model: HandModel) -> _Skin:
    most = int((model.weights != 0).sum(axis=1).max())
    bones = np.argsort(-model.weights, axis=1, kind="stable")[:, :most]
    return _Skin(
        np.ascontiguousarray(MILLIMETRES * model.v_template),
        np.ascontiguousarray(MILLIMETRES * model.shapedirs),
        np.ascontiguousarray(MILLIMETRES * model.posedirs),
        np.ascontiguousarray(bones),
        np.ascontiguousarray(np.take_along_axis(model.weights, bones, axis=1).astype(np.float64)),
        np.ascontiguousarray(model.faces.astype(np.int64)),
    )


# --- compiled -------------------------------------------------------------------------------------------
# Unknowns as in `fitting`, all of them: 45 of the fingers, 3 of the turn, 3 of the place, 10 of the shape.


@nb.njit(nogil=True, cache=True, fastmath={"reassoc", "contract", "nsz"})
@no_type_check
def _rest(skin, rotations, shape, rest):
    """The skin before the bones carry it: shaped, and corrected for the pose."""
    bends = np.empty(135)
    for k in range(15):
        for a in range(3):
            for b in range(3):
                bends[9 * k + 3 * a + b] = rotations[k + 1, a, b] - (1.0 if a == b else 0.0)
    for v in range(len(rest)):
        for i in range(3):
            at = skin.vertices[v, i]
            for s in range(10):
                at += skin.by_shape[v, i, s] * shape[s]
            for p in range(135):
                at += skin.by_pose[v, i, p] * bends[p]
            rest[v, i] = at


@nb.njit(nogil=True, cache=True)
@no_type_check
def _carried(skin, posed, rest, skinned):
    for v in range(len(rest)):
        for i in range(3):
            skinned[v, i] = 0.0
        for q in range(skin.bones.shape[1]):
            w = skin.weights[v, q]
            if w == 0.0:
                continue
            k = skin.bones[v, q]
            here, joint = rest[v], posed.rest[k]
            x, y, z = here[0] - joint[0], here[1] - joint[1], here[2] - joint[2]
            for i in range(3):
                row = posed.frames[k, i]
                skinned[v, i] += w * (posed.points[k, i] + row[0] * x + row[1] * y + row[2] * z)


@nb.njit(nogil=True, cache=True)
@no_type_check
def _facing(skin, skinned, normals, front):
    """Unit normals of the vertices, and which of them are turned to the camera."""
    for v in range(len(skinned)):
        for i in range(3):
            normals[v, i] = 0.0
    for f in range(len(skin.faces)):
        a, b, c = skinned[skin.faces[f, 0]], skinned[skin.faces[f, 1]], skinned[skin.faces[f, 2]]
        px, py, pz = b[0] - a[0], b[1] - a[1], b[2] - a[2]
        qx, qy, qz = c[0] - a[0], c[1] - a[1], c[2] - a[2]
        x, y, z = py * qz - pz * qy, pz * qx - px * qz, px * qy - py * qx
        for corner in range(3):
            v = skin.faces[f, corner]
            normals[v, 0] += x
            normals[v, 1] += y
            normals[v, 2] += z
    for v in range(len(skinned)):
        x, y, z = normals[v, 0], normals[v, 1], normals[v, 2]
        length = np.sqrt(x * x + y * y + z * z) + 1e-12
        for i in range(3):
            normals[v, i] /= length
        toward = x * skinned[v, 0] + y * skinned[v, 1] + z * skinned[v, 2]
        front[v] = toward < 0.0 and skinned[v, 2] > 1.0


@nb.njit(nogil=True, cache=True)
@no_type_check
def _along(v, x, y, z, skin, rig, posed, rest, shape_rates, free_shape, row):
    """How far each unknown moves a vertex along (x, y, z), into `row`.

    What a joint's rotation corrects of the skin's form is left out: it is small, and the steps are few.
    """
    for i in range(len(row)):
        row[i] = 0.0
    for q in range(skin.bones.shape[1]):
        w = skin.weights[v, q]
        if w == 0.0:
            continue
        k = skin.bones[v, q]
        frame = posed.frames[k]
        a, b, c = rest[v, 0] - posed.rest[k, 0], rest[v, 1] - posed.rest[k, 1], rest[v, 2] - posed.rest[k, 2]
        # Where this bone alone would carry the vertex.
        px = posed.points[k, 0] + frame[0, 0] * a + frame[0, 1] * b + frame[0, 2] * c
        py = posed.points[k, 1] + frame[1, 0] * a + frame[1, 1] * b + frame[1, 2] * c
        pz = posed.points[k, 2] + frame[2, 0] * a + frame[2, 1] * b + frame[2, 2] * c
        joint = k
        while True:
            # n · (ω × lever) = ω · (lever × n), ω a column of the joint's frame.
            lx, ly, lz = (
                px - posed.points[joint, 0],
                py - posed.points[joint, 1],
                pz - posed.points[joint, 2],
            )
            cx, cy, cz = ly * z - lz * y, lz * x - lx * z, lx * y - ly * x
            at = 45 if joint == 0 else 3 * (joint - 1)
            turned = posed.frames[joint]
            for i in range(3):
                row[at + i] += w * (turned[0, i] * cx + turned[1, i] * cy + turned[2, i] * cz)
            if joint == 0:
                break
            joint = rig.parents[joint]
        row[48] += w * x
        row[49] += w * y
        row[50] += w * z
        if free_shape:
            bx = frame[0, 0] * x + frame[1, 0] * y + frame[2, 0] * z
            by = frame[0, 1] * x + frame[1, 1] * y + frame[2, 1] * z
            bz = frame[0, 2] * x + frame[1, 2] * y + frame[2, 2] * z
            for s in range(10):
                row[51 + s] += w * (
                    x * shape_rates[k, 0, s]
                    + y * shape_rates[k, 1, s]
                    + z * shape_rates[k, 2, s]
                    + bx * (skin.by_shape[v, 0, s] - rig.joint_shape[k, 0, s])
                    + by * (skin.by_shape[v, 1, s] - rig.joint_shape[k, 1, s])
                    + bz * (skin.by_shape[v, 2, s] - rig.joint_shape[k, 2, s])
                )


@nb.njit(nogil=True, cache=True)
@no_type_check
def _onto_points(
    image, camera, middle, half, reach, surface, skinned, normals, front, cells, following, pull, offset
):  # fmt: skip
    """For each vertex the weight of the points it is nearest to, and their mean distance along its normal.

    Returns what the points add to the energy.
    Vertices are sorted into cells of the picture as wide as `reach` in the cube's middle, so that a point
    looks at nine of them, more where it is near. It costs at most what one out of the last step's reach does.
    """
    size = len(image)
    scale = reach * (size - 1) * max(camera[0, 0], camera[1, 1])
    cell = max(int(np.ceil(scale / middle)), 1)
    count = (size + cell - 1) // cell
    for a in range(count + 2):
        for b in range(count + 2):
            cells[a, b] = -1
    for v in range(len(skinned)):
        pull[v] = offset[v] = 0.0
        if not front[v]:
            continue
        z = skinned[v, 2]
        u = (camera[0, 0] * skinned[v, 0] + camera[0, 1] * skinned[v, 1]) / z + camera[0, 2]
        t = camera[1, 1] * skinned[v, 1] / z + camera[1, 2]
        a, b = int(np.floor(t * (size - 1) / cell)) + 1, int(np.floor(u * (size - 1) / cell)) + 1
        if 0 <= a <= count + 1 and 0 <= b <= count + 1:
            following[v] = cells[a, b]
            cells[a, b] = v
    total = 0.0
    soft = SOFT_MM * SOFT_MM
    most = REACH_MM[1] * REACH_MM[1] / (1.0 + REACH_MM[1] * REACH_MM[1] / soft)
    for r in range(size):
        for c in range(size):
            if not -1.0 < image[r, c] < 1.0:
                continue
            z = middle + half * image[r, c]
            y = (r / (size - 1) - camera[1, 2]) * z / camera[1, 1]
            x = ((c / (size - 1) - camera[0, 2]) * z - camera[0, 1] * y) / camera[0, 0]
            nearest, best = -1, reach * reach
            wide = int(np.ceil(scale / max(z - reach, 1.0) / cell))  # cells that the reach may span
            for a in range(max(r // cell + 1 - wide, 0), min(r // cell + wide, count) + 2):
                for b in range(max(c // cell + 1 - wide, 0), min(c // cell + wide, count) + 2):
                    v = cells[a, b]
                    while v >= 0:
                        dx, dy, dz = skinned[v, 0] - x, skinned[v, 1] - y, skinned[v, 2] - z
                        square = dx * dx + dy * dy + dz * dz
                        if square < best:
                            nearest, best = v, square
                        v = following[v]
            if nearest < 0:
                total += surface * most
                continue
            n = normals[nearest]
            away = (
                n[0] * (skinned[nearest, 0] - x)
                + n[1] * (skinned[nearest, 1] - y)
                + n[2] * (skinned[nearest, 2] - z)
            )
            share = 1.0 / (1.0 + away * away / soft)
            pull[nearest] += surface * share * share
            offset[nearest] += surface * share * share * away
            total += surface * min(away * away * share, most)
    for v in range(len(skinned)):
        if pull[v] > 0.0:
            offset[v] /= pull[v]
    return total


@nb.njit(nogil=True, cache=True)
@no_type_check
def _beside(image, camera, middle, half, x, y, z, away):
    """Which way and how far, mm, a vertex stands beside what could be it; 0 where it may be.

    `away` gets the direction in x and y. Negative where nothing near could be it.
    """
    if not abs(z - middle) < half:
        return 0.0  # the cube says nothing of it
    size = len(image)
    u = ((camera[0, 0] * x + camera[0, 1] * y) / z + camera[0, 2]) * (size - 1)
    t = (camera[1, 1] * y / z + camera[1, 2]) * (size - 1)
    c, r = int(np.round(u)), int(np.round(t))
    if not (0 <= c < size and 0 <= r < size):
        return 0.0  # nobody looked there
    # What a pixel shows must not lie behind the skin that would hide it.
    most = (z + BEHIND_MM - middle) / half
    if image[r, c] < min(most, 1.0):
        return 0.0
    best, near_r, near_c = 1e9, -1, -1
    far = int(np.ceil(BESIDE_MM * (size - 1) * max(camera[0, 0], camera[1, 1]) / z))
    for a in range(max(r - far, 0), min(r + far + 1, size)):
        for b in range(max(c - far, 0), min(c + far + 1, size)):
            if image[a, b] < min(most, 1.0):
                square = (a - t) ** 2 + (b - u) ** 2
                if square < best:
                    best, near_r, near_c = square, a, b
    if near_r < 0:
        return -1.0
    dy = (t - near_r) / (size - 1) * z / camera[1, 1]
    dx = ((u - near_c) / (size - 1) * z - camera[0, 1] * dy) / camera[0, 0]
    length = np.sqrt(dx * dx + dy * dy) + 1e-12
    away[0], away[1] = dx / length, dy / length
    return length


@nb.njit(nogil=True, cache=True, fastmath={"reassoc", "contract", "nsz"})
@no_type_check
def _gathered(columns, residuals, k, n, normal, gradient):
    """Add k residuals, all weighted, to the normal equations; `columns` (n, …) holds their derivatives.

    One unknown's derivatives lie together: so the sums are over neighbours, several at a time.
    """
    for i in range(n):
        for j in range(i + 1):
            total = 0.0
            for a in range(k):
                total += columns[i, a] * columns[j, a]
            normal[i, j] += total
        total = 0.0
        for a in range(k):
            total += columns[i, a] * residuals[a]
        gradient[i] += total


@nb.njit(nogil=True, cache=True)
@no_type_check
def _lay(
    begin, end, skin, rig, views, joints, weights, rotations, translation, shape, reference, options,
    free_shape, surface, points, energy, steps,
):  # fmt: skip
    """Hands begin…end, one after the other."""
    count, size = len(skin.vertices), views.images.shape[1]
    n = 61 if free_shape else 51
    posed = _work()
    by, row = np.zeros((3, 61)), np.zeros(61)
    normal, factor = np.empty((61, 61)), np.empty((61, 61))
    gradient, step, damping, inverse = np.empty(61), np.empty(61), np.empty(61), np.empty(61)
    shape_rates = np.empty((16, 3, 10))
    profile, turned = np.zeros(61, np.int64), np.empty((3, 3))
    turns, place, shaped = np.empty((16, 3, 3)), np.empty(3), np.empty(10)  # the hand as it moves
    rest, skinned, normals = np.empty((count, 3)), np.empty((count, 3)), np.empty((count, 3))
    front, following = np.empty(count, np.bool_), np.empty(count, np.int64)
    pull, offset, away = np.empty(count), np.empty(count), np.empty(2)
    cells = np.empty((size + 2, size + 2), np.int64)
    no_keypoints, no_matrix, no_weights = np.zeros((21, 2)), np.zeros((2, 3)), np.zeros(21)
    # As values: what is called with literals is compiled anew for them, which takes seconds.
    whole, relative = count > 0, count < 0
    columns, residuals = np.empty((61, 2 * count)), np.empty(2 * count)
    for i in range(n):
        damping[i] = _MOVE_DAMPING if 48 <= i < 51 else _DAMPING
    for h in range(begin, end):
        image, camera = views.images[h], views.cameras[h]
        middle, half = views.middles[h], views.halves[h]
        apart = 2.0 * half / (size - 1) / _APART_MM
        each = surface * apart * apart
        _copy(turns, rotations[h])
        _copy(place, translation[h])
        _copy(shaped, shape[h])
        energy[h] = np.inf
        for number in range(STEPS + 1):
            _pose(rig, turns, place, shaped, posed)
            _rest(skin, turns, shaped, rest)
            _carried(skin, posed, rest, skinned)
            _facing(skin, skinned, normals, front)
            now = _energy(
                rig, posed, no_keypoints, no_matrix, joints[h], no_weights, weights[h], relative, turns,
                shaped, reference[h], options,
            )  # fmt: skip
            reach = REACH_MM[0] + (REACH_MM[1] - REACH_MM[0]) * min(number / (STEPS - 1), 1.0)
            now += _onto_points(
                image, camera, middle, half, reach, each, skinned, normals, front, cells, following, pull,
                offset,
            )  # fmt: skip
            _assemble(
                rig, posed, no_keypoints, no_matrix, joints[h], no_weights, weights[h], relative, turns,
                shaped, reference[h], options, whole, whole, free_shape, shape_rates, by, row, normal,
                gradient,
            )  # fmt: skip
            k = 0
            for v in range(count):
                if pull[v] > 0.0 and number < STEPS:
                    x, y, z = normals[v, 0], normals[v, 1], normals[v, 2]
                    _along(v, x, y, z, skin, rig, posed, rest, shape_rates, free_shape, row)
                    root = np.sqrt(pull[v])
                    for i in range(n):
                        columns[i, k] = root * row[i]
                    residuals[k] = root * offset[v]
                    k += 1
                if front[v]:
                    x, y, z = skinned[v, 0], skinned[v, 1], skinned[v, 2]
                    far = _beside(image, camera, middle, half, x, y, z, away) - FREE_MM
                    if far > 0.0:
                        share = 1.0 / (1.0 + far * far / (SOFT_BESIDE_MM * SOFT_BESIDE_MM))
                        now += each * far * far * share
                        if number == STEPS:
                            continue
                        _along(v, away[0], away[1], 0.0, skin, rig, posed, rest, shape_rates, free_shape, row)
                        root = np.sqrt(each) * share
                        for i in range(n):
                            columns[i, k] = root * row[i]
                        residuals[k] = root * far
                        k += 1
            if now < energy[h]:
                energy[h] = now
                _copy(rotations[h], turns)
                _copy(translation[h], place)
                _copy(shape[h], shaped)
                _copy(points[h], posed.points)
            _gathered(columns, residuals, k, n, normal, gradient)
            if number == STEPS or not _solve(normal, damping, gradient, profile, n, factor, inverse, step):
                break
            steps[h] += 1
            for joint in range(16):
                at = 45 if joint == 0 else 3 * (joint - 1)
                _turn(turns[joint], step[at], step[at + 1], step[at + 2], turned)
                _copy(turns[joint], turned)
            for i in range(3):
                place[i] += step[48 + i]
            if free_shape:
                for s in range(10):
                    shaped[s] += step[51 + s]
        energy[h] = np.sqrt(energy[h])
