"""Synthetic subjects and poses: who the hand belongs to and what it does, from a seed.

Everything random comes from SplitMix64 (Steele et al., OOPSLA 2014), one stream per image, so an image
depends on (seed, split, index) and on nothing else. Poses are drawn in anatomical angles (flexion,
abduction, twist of 15 joints) inside the model's joint limits, the thumb is brought to its target by
cyclic coordinate descent, and fingers that run into one another are opened until they do not.

Compiled with numba and free of the GIL: one image is drawn by one thread from start to end.
"""

import inspect
from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar

import numba as nb
import numpy as np

from handgraph.hand_model.files import HandModel

Function = TypeVar("Function", bound=Callable[..., Any])

FAMILIES = ("open", "fist", "pinch", "point", "grasp", "count", "relaxed", "free", "blend")
"""Pose families; `count` holds every combination of stretched fingers, `blend` mixes two others."""

FAMILY_SHARES = (0.09, 0.08, 0.12, 0.06, 0.13, 0.16, 0.08, 0.14, 0.14)

SHAPE_SPREAD = 1.3
"""Standard deviation of the shape coefficients; wider than the model's own 1, for hands unlike ours."""

# Canonical order (thumb, index, middle, ring, little) → first of the finger's three joints in MANO's order.
FINGER_JOINTS = (13, 1, 4, 10, 7)
MANO_FROM_CANONICAL = (0, 13, 14, 15, 16, 1, 2, 3, 17, 4, 5, 6, 18, 10, 11, 12, 19, 7, 8, 9, 20)
"""For each of the 21 canonical joints, its place among MANO's 16 joints followed by the five fingertips."""

# Penetration of two bones' spheres that soft tissue takes up, mm.
PENETRATION_MM = 3.0


class Rig(NamedTuple):
    """A hand model prepared for drawing: arrays only, millimetres, right hand (numba reads it as it is)."""

    template: np.ndarray  # (V, 3) float32
    shape_basis: np.ndarray  # (10, V, 3) float32
    pose_start: np.ndarray  # (V + 1,) int32: each vertex's range in the two below
    pose_element: np.ndarray  # (N,) int32: element of the 135 entries of R − I
    pose_basis: np.ndarray  # (N, 3) float32
    faces: np.ndarray  # (F, 3) int32
    bones: np.ndarray  # (V, 4) int32
    weights: np.ndarray  # (V, 4) float32
    joints: np.ndarray  # (16, 3) float64, mean shape
    joint_basis: np.ndarray  # (10, 16, 3) float64
    parents: np.ndarray  # (16,) int32
    axes: np.ndarray  # (15, 3, 3) float64, rows flexion, abduction, twist
    limits: np.ndarray  # (15, 3, 2) float64, radians
    spread: np.ndarray  # (5,) float64: sign of the abduction that leads a finger away from the middle one
    tips: np.ndarray  # (5,) int32, thumb to little
    ring: np.ndarray  # (R,) int32: vertices of the open end at the wrist
    sphere_joint: np.ndarray  # (S,) int32: joint that carries the sphere
    sphere_child: np.ndarray  # (S,) int32: where its bone ends, 16-20 are the tips
    sphere_place: np.ndarray  # (S,) float64: from joint (0) to child (1)
    sphere_radius: np.ndarray  # (S,) float64, mm
    pairs: np.ndarray  # (P, 2) int32: spheres of different fingers that must keep apart


def rig_from_model(model: HandModel) -> Rig:
    """Prepare a right-hand model that knows its joint axes and limits."""
    if model.joint_axes is None or model.joint_limits is None:
        raise ValueError(f"{model.name}: synthetic poses need joint_axes and joint_limits")
    template = model.v_template * 1000
    basis = np.moveaxis(model.shapedirs, -1, 0) * 1000
    order = np.argsort(-model.weights, axis=1)[:, :4]
    weights = np.take_along_axis(model.weights, order, axis=1)
    weights /= weights.sum(1, keepdims=True)
    joints = model.J_regressor @ template
    joint_basis = np.einsum("jv,kvc->kjc", model.J_regressor, basis)

    # Most elements of the pose basis are zero in a hand whose corrections are local.
    pose = model.posedirs * 1000
    vertex, element = np.nonzero(np.abs(pose).max(1) > 1e-6)
    starts = np.searchsorted(vertex, np.arange(len(template) + 1))

    spheres = _spheres(template, model.weights, joints, model.tip_vertices)
    return Rig(
        template.astype(np.float32),
        np.ascontiguousarray(basis, dtype=np.float32),
        starts.astype(np.int32),
        element.astype(np.int32),
        np.ascontiguousarray(pose[vertex, :, element], dtype=np.float32),
        model.faces.astype(np.int32),
        np.ascontiguousarray(order, dtype=np.int32),
        np.ascontiguousarray(weights, dtype=np.float32),
        np.ascontiguousarray(joints),
        np.ascontiguousarray(joint_basis),
        model.parents.astype(np.int32),
        np.array(model.joint_axes),
        np.array(model.joint_limits),
        _spread_signs(np.asarray(model.joint_axes), joints),
        model.tip_vertices.astype(np.int32),
        _wrist_ring(template, model.faces, model.weights),
        *spheres,
    )


def _spread_signs(axes: np.ndarray, joints: np.ndarray) -> np.ndarray:
    """Sign of the abduction that moves each finger's end away from the middle finger (z is thumbwards)."""
    signs = np.zeros(5)
    for finger, first in enumerate(FINGER_JOINTS):
        motion = np.cross(axes[first - 1, 1], joints[first + 2] - joints[first])
        away = 1.0 if finger < 2 else -1.0
        signs[finger] = away * np.sign(motion[2] or 1.0)
    signs[2] = 1.0
    return signs


def _wrist_ring(template: np.ndarray, faces: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """The open edge of the mesh at the wrist; of a closed mesh, its end towards the forearm."""
    edges = np.sort(np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]]), axis=1)
    unique, count = np.unique(edges, axis=0, return_counts=True)
    ring = np.unique(unique[count == 1])
    ring = ring[weights[ring, 0] > 0.5]
    if len(ring) < 6:
        ring = np.nonzero(template[:, 0] > template[:, 0].max() - 3.0)[0]
    return ring.astype(np.int32)


def _spheres(
    template: np.ndarray, weights: np.ndarray, joints: np.ndarray, tips: np.ndarray
) -> tuple[np.ndarray, ...]:
    """Spheres along the bones, as thick as the flesh around them, and the pairs that must keep apart."""
    points = np.concatenate([joints, template[tips]])
    owner = weights.argmax(1)
    rows: list[tuple[int, int, float, float, int]] = []
    for finger, first in enumerate(FINGER_JOINTS):
        for k in range(3):
            joint, child = first + k, first + k + 1 if k < 2 else 16 + finger
            if finger == 0 and k == 0:
                continue  # the thumb's metacarpal is part of the palm's flesh
            a, b = points[joint], points[child]
            flesh = template[owner == joint]
            along = (flesh - a) @ (b - a) / ((b - a) @ (b - a))
            off = np.linalg.norm(flesh - a - along[:, None] * (b - a), axis=1)
            inside = (along > 0.1) & (along < 0.9)
            radius = float(np.median(off[inside])) if inside.any() else 8.0
            places = (0.25, 0.6, 0.95) if k < 2 else (0.3, 0.9 - radius / float(np.linalg.norm(b - a)))
            rows += [(joint, child, place, 0.92 * radius, finger) for place in places]
    # The palm: spheres along the four metacarpals, which the distal bones must not enter.
    for finger, first in enumerate(FINGER_JOINTS[1:], start=1):
        flesh = template[owner == 0]
        a, b = points[0], points[first]
        for place in (0.45, 0.7, 0.92):
            center = a + place * (b - a)
            near = flesh[np.abs(flesh[:, 0] - center[0]) < 8]
            near = near[np.abs(near[:, 2] - center[2]) < 8]
            radius = 0.8 * float(np.ptp(near[:, 1])) / 2 if len(near) else 11.0
            rows.append((0, first, place, min(radius, 13.0), 5 + finger))
    joint_index = [row[0] for row in rows]
    pairs = [
        (i, j)
        for i in range(len(rows))
        for j in range(i)
        if _may_collide(rows[i], rows[j], joint_index[i], joint_index[j])
    ]
    return (
        np.array(joint_index, np.int32),
        np.array([row[1] for row in rows], np.int32),
        np.array([row[2] for row in rows]),
        np.array([row[3] for row in rows]),
        np.array(pairs, np.int32).reshape(-1, 2),
    )


def _may_collide(a: tuple, b: tuple, joint_a: int, joint_b: int) -> bool:
    """Whether two spheres' parts can run into one another (neighbours at the root always touch)."""
    finger_a, finger_b = a[4], b[4]
    if finger_a == finger_b or (finger_a > 5 and finger_b > 5):
        return False
    if finger_a > 5 or finger_b > 5:
        joint = joint_b if finger_a > 5 else joint_a
        return joint in (2, 3, 5, 6, 8, 9, 11, 12, 15)  # middle and end bones against the palm
    root_a = joint_a in FINGER_JOINTS and a[2] < 0.5
    root_b = joint_b in FINGER_JOINTS and b[2] < 0.5
    return not (root_a and root_b)


def compiled(function: Function) -> Function:
    """Compile with numba, free of the GIL, kept on disk; a wrapper that checks types is left out.

    Without `fastmath`: results must not depend on what else the compiler has seen before.
    """
    return nb.njit(nogil=True, cache=True, error_model="numpy")(inspect.unwrap(function))


# --- Random numbers -------------------------------------------------------------------------------------


@compiled
def seed_stream(seed: int, split: int, index: int, purpose: int) -> np.ndarray:
    """The state of one SplitMix64 stream, an array of one uint64; different arguments, unrelated streams."""
    state = np.empty(1, np.uint64)
    state[0] = np.uint64(0x243F6A8885A308D3)
    for word in (seed, split, index, purpose):
        state[0] ^= np.uint64(word)
        state[0] = next_u64(state)
    return state


@compiled
def next_u64(state: np.ndarray) -> np.uint64:
    state[0] += np.uint64(0x9E3779B97F4A7C15)
    z = state[0]
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))


@compiled
def uniform(state: np.ndarray, low: float, high: float) -> float:
    return low + (high - low) * (np.float64(next_u64(state) >> np.uint64(11)) * 1.1102230246251565e-16)


@compiled
def normal(state: np.ndarray, mean: float, sigma: float) -> float:
    u = uniform(state, 1e-12, 1.0)
    return mean + sigma * np.sqrt(-2.0 * np.log(u)) * np.cos(uniform(state, 0.0, 2.0 * np.pi))


@compiled
def chance(state: np.ndarray, probability: float) -> bool:
    return uniform(state, 0.0, 1.0) < probability


@compiled
def integer(state: np.ndarray, below: int) -> int:
    return min(int(uniform(state, 0.0, below)), below - 1)


@compiled
def draw(state: np.ndarray, shares: np.ndarray) -> int:
    """An index drawn with the given shares."""
    x = uniform(state, 0.0, 1.0) * shares.sum()
    for i in range(len(shares) - 1):
        x -= shares[i]
        if x < 0:
            return i
    return len(shares) - 1


# --- Kinematics -----------------------------------------------------------------------------------------


@compiled
def axis_rotation(axis: np.ndarray, angle: float, out: np.ndarray) -> None:
    """Rodrigues' formula for a unit axis, (3, 3) into `out`."""
    c, s = np.cos(angle), np.sin(angle)
    x, y, z = axis[0], axis[1], axis[2]
    t = 1.0 - c
    out[0, 0], out[0, 1], out[0, 2] = t * x * x + c, t * x * y - s * z, t * x * z + s * y
    out[1, 0], out[1, 1], out[1, 2] = t * x * y + s * z, t * y * y + c, t * y * z - s * x
    out[2, 0], out[2, 1], out[2, 2] = t * x * z - s * y, t * y * z + s * x, t * z * z + c


@compiled
def matmul3(a: np.ndarray, b: np.ndarray, out: np.ndarray) -> None:
    for i in range(3):
        for j in range(3):
            out[i, j] = a[i, 0] * b[0, j] + a[i, 1] * b[1, j] + a[i, 2] * b[2, j]


@compiled
def joint_rotation(axes: np.ndarray, angles: np.ndarray, out: np.ndarray) -> None:
    """Anatomical angles of one joint → its rotation: flexion @ abduction @ twist."""
    flex, abduct, twist, both = np.empty((3, 3)), np.empty((3, 3)), np.empty((3, 3)), np.empty((3, 3))
    axis_rotation(axes[0], angles[0], flex)
    axis_rotation(axes[1], angles[1], abduct)
    axis_rotation(axes[2], angles[2], twist)
    matmul3(flex, abduct, both)
    matmul3(both, twist, out)


@compiled
def local_rotations(rig: Rig, angles: np.ndarray, out: np.ndarray) -> None:
    """(15, 3) angles → (15, 3, 3) rotations of the finger joints."""
    for k in range(15):
        joint_rotation(rig.axes[k], angles[k], out[k])


@compiled
def chain(rig: Rig, rest: np.ndarray, local: np.ndarray, rot: np.ndarray, pos: np.ndarray) -> None:
    """Forward kinematics in the hand's own frame: global rotations (16, 3, 3), joint positions (16, 3)."""
    for i in range(3):
        pos[0, i] = rest[0, i]
        for j in range(3):
            rot[0, i, j] = 1.0 if i == j else 0.0
    for k in range(1, 16):
        p = rig.parents[k]
        matmul3(rot[p], local[k - 1], rot[k])
        for i in range(3):
            pos[k, i] = pos[p, i]
            for j in range(3):
                pos[k, i] += rot[p, i, j] * (rest[k, j] - rest[p, j])


@compiled
def end_point(rest: np.ndarray, rot: np.ndarray, pos: np.ndarray, k: int, point: np.ndarray) -> np.ndarray:
    """A rest-pose point carried by joint k."""
    out = np.empty(3)
    for i in range(3):
        out[i] = pos[k, i]
        for j in range(3):
            out[i] += rot[k, i, j] * (point[j] - rest[k, j])
    return out


@compiled
def rest_points(rig: Rig, shape: np.ndarray) -> np.ndarray:
    """The shaped hand's 16 rest joints and five rest fingertips, (21, 3) mm, MANO's order."""
    out = np.empty((21, 3))
    for i in range(3):
        for j in range(16):
            out[j, i] = rig.joints[j, i]
            for k in range(10):
                out[j, i] += shape[k] * rig.joint_basis[k, j, i]
        for f in range(5):
            v = rig.tips[f]
            out[16 + f, i] = rig.template[v, i]
            for k in range(10):
                out[16 + f, i] += shape[k] * rig.shape_basis[k, v, i]
    return out


@compiled
def penetration_mm(rig: Rig, rest: np.ndarray, angles: np.ndarray) -> float:
    """How deep the hand's bone spheres enter one another at worst (0 where they keep apart)."""
    local, rot, pos = np.empty((15, 3, 3)), np.empty((16, 3, 3)), np.empty((16, 3))
    local_rotations(rig, angles, local)
    chain(rig, rest, local, rot, pos)
    n = len(rig.sphere_joint)
    centers = np.empty((n, 3))
    point = np.empty(3)
    for s in range(n):
        a, b, place = rig.sphere_joint[s], rig.sphere_child[s], rig.sphere_place[s]
        for i in range(3):
            point[i] = rest[a, i] + place * (rest[b, i] - rest[a, i])
        centers[s] = end_point(rest, rot, pos, a, point)
    worst = 0.0
    for q in range(len(rig.pairs)):
        a, b = rig.pairs[q, 0], rig.pairs[q, 1]
        reach = rig.sphere_radius[a] + rig.sphere_radius[b]
        dx = centers[a, 0] - centers[b, 0]
        dy = centers[a, 1] - centers[b, 1]
        dz = centers[a, 2] - centers[b, 2]
        square = dx * dx + dy * dy + dz * dz
        if square < reach * reach:
            worst = max(worst, reach - np.sqrt(square))
    return worst


# --- Subjects and poses ---------------------------------------------------------------------------------


@compiled
def subject_shape(seed: int, split: int, subject: int) -> np.ndarray:
    """The ten shape coefficients of one subject of one split, bounded to ±3."""
    state = seed_stream(seed, split, subject, 7)
    shape = np.empty(10)
    for k in range(10):
        shape[k] = min(max(normal(state, 0.0, SHAPE_SPREAD), -3.0), 3.0)
    return shape


@compiled
def _clamp(rig: Rig, angles: np.ndarray) -> None:
    for k in range(15):
        for a in range(3):
            angles[k, a] = min(max(angles[k, a], rig.limits[k, a, 0]), rig.limits[k, a, 1])


EXTENDED, CURLED, HALF, HOOK, FLAT = 0, 1, 2, 3, 4
_MEAN = np.radians(np.array([[2, 4, 2], [78, 96, 55], [38, 45, 25], [8, 92, 55], [62, 12, 6]], float))
_SIGMA = np.radians(np.array([[9, 6, 4], [9, 9, 12], [16, 18, 10], [10, 10, 12], [14, 10, 6]], float))


@compiled
def _finger(angles: np.ndarray, finger: int, state: np.ndarray, kind: int, common: np.ndarray) -> None:
    """Flexion of one finger (1-4) in a named state; `common` is what all fingers share of the variation."""
    first = FINGER_JOINTS[finger] - 1
    for k in range(3):
        own = 0.6 * common[k] + 0.8 * normal(state, 0.0, 1.0)
        angles[first + k, 0] = _MEAN[kind, k] + _SIGMA[kind, k] * own


@compiled
def _spread_fingers(rig: Rig, angles: np.ndarray, state: np.ndarray, amount: float) -> None:
    """Abduction of the fingers: together by `amount` (rad), alone a little; bent fingers cannot spread."""
    lean = normal(state, 0.0, 0.05)
    for finger in range(1, 5):
        first = FINGER_JOINTS[finger] - 1
        freedom = max(0.15, 1.0 - max(angles[first, 0], 0.0) / 1.4)
        share = 0.0 if finger == 2 else (1.4 if finger == 4 else 1.0)
        angles[first, 1] = freedom * (rig.spread[finger] * share * amount + normal(state, 0.0, 0.05)) + lean
        angles[first, 2] = normal(state, 0.0, 0.05)


@compiled
def _free_thumb(rig: Rig, angles: np.ndarray, state: np.ndarray) -> None:
    """A thumb anywhere within its limits, more often near the middle of them."""
    for k in range(12, 15):
        for a in range(3):
            low, high = rig.limits[k, a, 0], rig.limits[k, a, 1]
            angles[k, a] = low + (high - low) * 0.5 * (uniform(state, 0.0, 1.0) + uniform(state, 0.0, 1.0))


@compiled
def _resting_thumb(angles: np.ndarray, state: np.ndarray, sigma: float) -> None:
    """A thumb near the model's own rest."""
    for k in range(12, 15):
        for a in range(3):
            angles[k, a] = normal(state, 0.0, sigma * (1.0 if a < 2 else 0.3))


@compiled
def reach_with_thumb(rig: Rig, rest: np.ndarray, angles: np.ndarray, target: np.ndarray, gap: float) -> float:
    """Cyclic coordinate descent of the thumb's angles, within limits, until its tip is `gap` mm away.

    Changes rows 12-14 of `angles` and returns the distance left over.
    """
    local, rot, pos = np.empty((15, 3, 3)), np.empty((16, 3, 3)), np.empty((16, 3))
    part, axis, goal = np.empty((3, 3)), np.empty(3), np.empty(3)
    local_rotations(rig, angles, local)
    left = 0.0
    for _ in range(8):
        for k in (12, 13, 14):
            for a in range(2):
                chain(rig, rest, local, rot, pos)
                tip = end_point(rest, rot, pos, 15, rest[16])
                left = 0.0
                for i in range(3):
                    left += (tip[i] - target[i]) ** 2
                left = np.sqrt(left)
                if abs(left - gap) < 1.0:
                    return abs(left - gap)
                for i in range(3):
                    goal[i] = target[i] + (tip[i] - target[i]) * gap / max(left, 1e-6)
                # The rotation's axis in the hand frame: flexion comes first, abduction acts inside it.
                p = rig.parents[k + 1]
                if a == 0:
                    for i in range(3):
                        axis[i] = rig.axes[k, 0, i]
                else:
                    axis_rotation(rig.axes[k, 0], angles[k, 0], part)
                    for i in range(3):
                        axis[i] = (
                            part[i, 0] * rig.axes[k, 1, 0]
                            + part[i, 1] * rig.axes[k, 1, 1]
                            + part[i, 2] * rig.axes[k, 1, 2]
                        )
                ax = rot[p, 0, 0] * axis[0] + rot[p, 0, 1] * axis[1] + rot[p, 0, 2] * axis[2]
                ay = rot[p, 1, 0] * axis[0] + rot[p, 1, 1] * axis[1] + rot[p, 1, 2] * axis[2]
                az = rot[p, 2, 0] * axis[0] + rot[p, 2, 1] * axis[1] + rot[p, 2, 2] * axis[2]
                ex, ey, ez = tip[0] - pos[k + 1, 0], tip[1] - pos[k + 1, 1], tip[2] - pos[k + 1, 2]
                gx, gy, gz = goal[0] - pos[k + 1, 0], goal[1] - pos[k + 1, 1], goal[2] - pos[k + 1, 2]
                ea, ga = ex * ax + ey * ay + ez * az, gx * ax + gy * ay + gz * az
                cross = ax * (ey * gz - ez * gy) + ay * (ez * gx - ex * gz) + az * (ex * gy - ey * gx)
                dot = ex * gx + ey * gy + ez * gz - ea * ga
                turn = np.arctan2(cross, dot)
                turned = angles[k, a] + 0.8 * turn
                angles[k, a] = min(max(turned, rig.limits[k, a, 0]), rig.limits[k, a, 1])
                joint_rotation(rig.axes[k], angles[k], local[k])
    return abs(left - gap)


@compiled
def _touch(
    rig: Rig,
    rest: np.ndarray,
    angles: np.ndarray,
    joint: int,
    child: int,
    place: float,
    rise: float,
    gap: float,
) -> None:
    """Bring the thumb's tip to a place along a bone, `rise` mm backwards; child 16-20 is a fingertip."""
    local, rot, pos = np.empty((15, 3, 3)), np.empty((16, 3, 3)), np.empty((16, 3))
    local_rotations(rig, angles, local)
    chain(rig, rest, local, rot, pos)
    point = np.empty(3)
    for i in range(3):
        point[i] = rest[joint, i] + place * (rest[child, i] - rest[joint, i])
    point[1] += rise
    reach_with_thumb(rig, rest, angles, end_point(rest, rot, pos, joint, point), gap)


@compiled
def _one_family(rig: Rig, rest: np.ndarray, state: np.ndarray, family: int, angles: np.ndarray) -> None:
    """Draw a pose of one family (not `blend`) into `angles` (15, 3)."""
    angles[:] = 0.0
    common = np.empty(3)
    for k in range(3):
        common[k] = normal(state, 0.0, 1.0)
    kinds = np.zeros(5, np.int64)
    spread = normal(state, 0.04, 0.10)
    touch = 0  # finger whose tip the thumb goes to
    thumb = 0  # 0 free, 1 at rest, 2 folded over the fingers, 3 across the palm, 4 to `touch`
    if family == 0:
        spread = normal(state, 0.10, 0.12)
        thumb = integer(state, 2)
    elif family == 1:
        kinds[1:] = CURLED
        thumb = 2 if chance(state, 0.65) else 0
    elif family == 2:
        touch = 1 + draw(state, np.array([0.45, 0.25, 0.15, 0.15]))
        rest_kind = draw(state, np.array([0.35, 0.25, 0.4]))
        for finger in range(1, 5):
            kinds[finger] = HALF if finger == touch or chance(state, 0.12) else rest_kind
        thumb = 4
    elif family == 3:
        kinds[1:] = CURLED
        kinds[1] = EXTENDED
        thumb = 2 if chance(state, 0.5) else integer(state, 2)
    elif family == 4:
        kinds[1:] = HALF
        touch = 1 + integer(state, 3)
        thumb = 5
    elif family == 5:
        mask = integer(state, 32)
        folded = CURLED if chance(state, 0.75) else (HALF if chance(state, 0.6) else HOOK)
        for finger in range(1, 5):
            kinds[finger] = EXTENDED if (mask >> finger) & 1 else folded
        spread = normal(state, 0.08, 0.10)
        thumb = integer(state, 2) if mask & 1 else (3 if chance(state, 0.5) else 2)
    elif family == 6:
        thumb = 1 if chance(state, 0.7) else 0
    for finger in range(1, 5):
        first = FINGER_JOINTS[finger] - 1
        if family == 6:  # relaxed: bent the more the nearer to the little finger
            bend = 14.0 + 5.0 * finger + 7.0 * common[0] + normal(state, 0.0, 4.0)
            angles[first, 0] = np.radians(0.8 * bend)
            angles[first + 1, 0] = np.radians(1.2 * bend + normal(state, 0.0, 6.0))
            angles[first + 2, 0] = np.radians(0.6 * bend + normal(state, 0.0, 4.0))
        elif family == 7:  # free: own curl, coupled to the neighbours by a common part
            both = 0.5 + 0.35 * common[0]
            curl = min(max(0.55 * both + 0.45 * uniform(state, -0.4, 1.4), 0.0), 1.0)
            other = min(max(0.55 * (0.5 + 0.35 * common[1]) + 0.45 * uniform(state, -0.4, 1.4), 0.0), 1.0)
            low, high = rig.limits[first, 0, 0], rig.limits[first, 0, 1]
            angles[first, 0] = low + curl * (high - low)
            low, high = rig.limits[first + 1, 0, 0], rig.limits[first + 1, 0, 1]
            angles[first + 1, 0] = low + other * (high - low)
            # The end joint follows the middle one (one tendon), nearly two thirds of it.
            angles[first + 2, 0] = 0.62 * angles[first + 1, 0] + normal(state, 0.0, 0.15)
        else:
            _finger(angles, finger, state, kinds[finger], common)
    _spread_fingers(rig, angles, state, spread)
    if thumb == 0:
        _free_thumb(rig, angles, state)
    else:
        _resting_thumb(angles, state, 0.22 if thumb == 1 else 0.12)
    _clamp(rig, angles)
    if thumb < 2:
        return
    joint, child, place, rise, gap = 0, 0, 0.0, -4.0, 0.0  # −4 mm: the palm side, where a finger's pad is
    if thumb == 2:  # on the back of the bent fingers' middle bones
        joint = FINGER_JOINTS[1 + integer(state, 2)] + 1
        child, rise = joint + 1, 9.0
        place, gap = uniform(state, 0.2, 0.8), uniform(state, 6.0, 14.0)
    elif thumb == 3:  # to the root of the ring or little finger
        child = FINGER_JOINTS[3 + integer(state, 2)]
        place, gap = uniform(state, 0.6, 0.95), uniform(state, 14.0, 26.0)
    elif thumb == 4:  # to a fingertip
        joint, child = FINGER_JOINTS[touch] + 2, 16 + touch
        place, gap = uniform(state, 0.7, 1.0), uniform(state, 8.0, 13.0)
    else:  # a grip: the thumb faces a finger across what they hold
        joint, child = FINGER_JOINTS[touch] + 2, 16 + touch
        place, gap = 0.8, uniform(state, 12.0, 70.0)
    _touch(rig, rest, angles, joint, child, place, rise, gap)
    _clamp(rig, angles)


@compiled
def _lead(angles: np.ndarray, other: np.ndarray, share: float) -> None:
    """Move `angles` a share of the way to `other`."""
    for k in range(15):
        for a in range(3):
            angles[k, a] += share * (other[k, a] - angles[k, a])


@compiled
def sample_pose(rig: Rig, rest: np.ndarray, state: np.ndarray, shares: np.ndarray, angles: np.ndarray) -> int:
    """Draw anatomical angles (15, 3) within limits and without deep self-penetration; returns the family.

    Poses whose fingers enter one another by more than `PENETRATION_MM` are drawn again, up to three times;
    after that the last one is led towards a flat, slightly spread hand until it is clear.
    """
    family = draw(state, shares)
    other = np.empty((15, 3))
    for _ in range(4):
        blend = family == len(shares) - 1
        for part in range(2 if blend else 1):
            which = draw(state, shares[:-1]) if blend else family
            _one_family(rig, rest, state, which, angles if part == 0 else other)
        if blend:
            _lead(angles, other, uniform(state, 0.15, 0.85))
        if penetration_mm(rig, rest, angles) <= PENETRATION_MM:
            return family
    other[:] = 0.0
    for finger in range(1, 5):
        first = FINGER_JOINTS[finger] - 1
        other[first, 1] = 0.06 * rig.spread[finger] * (0.0 if finger == 2 else 1.0)
    _clamp(rig, other)
    for _ in range(10):
        _lead(angles, other, 0.15)
        if penetration_mm(rig, rest, angles) <= PENETRATION_MM:
            return family
    angles[:] = other
    return family


@compiled
def random_rotation(state: np.ndarray, out: np.ndarray) -> None:
    """Uniform over all rotations (Shoemake, Graphics Gems III)."""
    a, b, c = uniform(state, 0.0, 1.0), uniform(state, 0.0, 2 * np.pi), uniform(state, 0.0, 2 * np.pi)
    x, y = np.sqrt(1 - a) * np.sin(b), np.sqrt(1 - a) * np.cos(b)
    z, w = np.sqrt(a) * np.sin(c), np.sqrt(a) * np.cos(c)
    out[0, 0], out[0, 1], out[0, 2] = 1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)
    out[1, 0], out[1, 1], out[1, 2] = 2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)
    out[2, 0], out[2, 1], out[2, 2] = 2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)


@compiled
def sample_view(state: np.ndarray, uniform_share: float, out: np.ndarray) -> None:
    """Rotation of the hand in the camera frame: uniform, or palm or back towards the camera, forearm below.

    `uniform_share` of them are uniform over all rotations. The others face the camera within about 30
    degrees, the fingers mostly upwards in the picture.
    """
    if chance(state, uniform_share):
        random_rotation(state, out)
        return
    turn = normal(state, 0.0, 0.9) if chance(state, 0.6) else uniform(state, -np.pi, np.pi)
    side = -1.0 if chance(state, 0.6) else 1.0  # palm towards (−z) or away from the camera
    fingers = np.array([np.sin(turn), -np.cos(turn), 0.0])
    palm = np.array([0.0, 0.0, side])
    base, tilt = np.empty((3, 3)), np.empty((3, 3))
    # Columns are the images of the model's axes: x = −fingers, y = −palm, z = fingers × palm (the thumb).
    for i in range(3):
        base[i, 0] = -fingers[i]
        base[i, 1] = -palm[i]
    base[0, 2] = fingers[1] * palm[2]
    base[1, 2] = -fingers[0] * palm[2]
    base[2, 2] = 0.0
    angle = uniform(state, 0.0, 2 * np.pi)
    axis = np.array([np.cos(angle), np.sin(angle), 0.0])
    axis_rotation(axis, normal(state, 0.0, 0.5), tilt)
    matmul3(tilt, base, out)


@compiled
def pose_hand(
    rig: Rig,
    shape: np.ndarray,
    rest: np.ndarray,
    angles: np.ndarray,
    rotation: np.ndarray,
    wrist: np.ndarray,
    vertices: np.ndarray,
    joints: np.ndarray,
) -> None:
    """Linear blend skinning: vertices (V, 3) float32 and the 21 canonical joints (21, 3), camera frame, mm.

    The same map as `HandLayer`: shape and pose corrections, rigid chains, blended; fingertips are vertices.
    `wrist` is the posed wrist joint.
    """
    local, rot, pos = np.empty((15, 3, 3)), np.empty((16, 3, 3)), np.empty((16, 3))
    local_rotations(rig, angles, local)
    chain(rig, rest, local, rot, pos)
    # One 3x4 matrix a joint, from the rest pose straight to the camera frame.
    transform = np.empty((16, 3, 4), np.float32)
    turned = np.empty((3, 3))
    for k in range(16):
        matmul3(rotation, rot[k], turned)
        for i in range(3):
            offset = wrist[i]
            for j in range(3):
                offset += rotation[i, j] * (pos[k, j] - pos[0, j]) - turned[i, j] * rest[k, j]
                transform[k, i, j] = turned[i, j]
            transform[k, i, 3] = offset
    bend = np.empty(135, np.float32)
    for k in range(15):
        for i in range(3):
            for j in range(3):
                bend[9 * k + 3 * i + j] = local[k, i, j] - (1.0 if i == j else 0.0)
    n = len(rig.template)
    shaped = rig.template.copy()
    flat = shaped.reshape(-1)
    basis = rig.shape_basis.reshape(10, -1)
    for k in range(10):
        s = np.float32(shape[k])
        row = basis[k]
        for i in range(len(flat)):
            flat[i] += s * row[i]
    blend = np.empty(12, np.float32)
    for v in range(n):
        x, y, z = shaped[v, 0], shaped[v, 1], shaped[v, 2]
        for q in range(rig.pose_start[v], rig.pose_start[v + 1]):
            b = bend[rig.pose_element[q]]
            x += b * rig.pose_basis[q, 0]
            y += b * rig.pose_basis[q, 1]
            z += b * rig.pose_basis[q, 2]
        blend[:] = 0.0
        for w in range(4):
            weight = rig.weights[v, w]
            if weight > 0:
                m = transform[rig.bones[v, w]].reshape(-1)
                for i in range(12):
                    blend[i] += weight * m[i]
        vertices[v, 0] = blend[0] * x + blend[1] * y + blend[2] * z + blend[3]
        vertices[v, 1] = blend[4] * x + blend[5] * y + blend[6] * z + blend[7]
        vertices[v, 2] = blend[8] * x + blend[9] * y + blend[10] * z + blend[11]
    for j in range(21):
        k = MANO_FROM_CANONICAL[j]
        for i in range(3):
            if k >= 16:
                joints[j, i] = vertices[rig.tips[k - 16], i]
            else:
                joints[j, i] = wrist[i]
                for c in range(3):
                    joints[j, i] += rotation[i, c] * (pos[k, c] - pos[0, c])
