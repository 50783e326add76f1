"""Could a hand do this? Joint limits and bone lengths of predicted poses, without knowing the truth.

Errors in millimetres do not say whether a pose is one that a hand can take: He et al. (graph refinement under
adversarial learning) train against a discriminator so that it is. These are the measures of it.
"""

from typing import Any

import numpy as np
from jaxtyping import Float, Shaped

from handgraph.errors import ConfigError, InputError
from handgraph.hand_model.files import HandModel, load_open_hand
from handgraph.skeleton import BONES

TOLERANCE_DEG = 10.0
"""How far beyond its limit an angle counts as implausible: shapes differ, and so do their axes."""

_FIRST = (13, 1, 4, 10, 7)  # of each finger's three joints in MANO's order, thumb to little
_PALM = (0, 1, 5, 9, 13, 17)  # canonical joints that move as one: wrist, thumb's root, knuckles
_TWISTS = 21  # tried for each joint, over its range


def pose_angles(
    pose: Float[np.ndarray, "n 48"], model: HandModel | None = None
) -> Float[np.ndarray, "n 15 3"]:
    """Flexion, abduction and twist (radians) of the finger joints of poses as `HandLayer` takes them.

    Exact: a joint's rotation is flexion @ abduction @ twist about the model's `joint_axes`. Raises
    ConfigError for a model without them.
    """
    _, axes, _ = _anatomical(model)
    local = _matrices(np.asarray(pose, dtype=np.float64).reshape(-1, 16, 3)[:, 1:])
    turned = axes @ local @ np.swapaxes(axes, 1, 2)
    flexion = np.arctan2(-turned[..., 1, 2], turned[..., 2, 2])
    twist = np.arctan2(-turned[..., 0, 1], turned[..., 0, 0])
    return np.stack([flexion, np.arcsin(np.clip(turned[..., 0, 2], -1, 1)), twist], axis=-1)


def joint_angles(
    joints_mm: Float[np.ndarray, "..."], model: HandModel | None = None
) -> Float[np.ndarray, "n 15 3"]:
    """The same from joint positions of right hands, in any frame: what the bones' directions say.

    Mirror left hands first. The palm tells how the hand is turned; a joint's flexion and abduction follow
    from its bone. Its twist does not: of those within its limits the one is taken that keeps the next joint
    best within its own, so that hardly a pose is called implausible that some twist explains. The bones at
    rest are the mean hand's, whoever's they are: of 600 drawn poses of drawn shapes, 99 % of the fingers'
    angles came back within 2°, of the thumb's within 11°, and three poses exceeded `TOLERANCE_DEG`. Raises
    InputError for joints of another shape or not finite, ConfigError for a model without joint axes.
    """
    model, axes, limits = _anatomical(model)
    joints = _checked(joints_mm)
    rest = np.concatenate([model.rest_joints, model.v_template[model.tip_vertices]])
    place = {0: 0}  # canonical joint → its place in `rest`
    for finger, first in enumerate(_FIRST):
        for step in range(4):
            place[1 + 4 * finger + step] = first + step if step < 3 else 16 + finger
    palm = _turn(rest[[place[joint] for joint in _PALM]], joints[:, _PALM])
    angles = np.zeros((len(joints), 15, 3))
    for finger, first in enumerate(_FIRST):
        frame = palm
        for step in range(3):
            joint, child = 1 + 4 * finger + step, 2 + 4 * finger + step
            index = first + step - 1
            bone = np.swapaxes(frame, 1, 2) @ (joints[:, child] - joints[:, joint])[..., None]
            rest_bone = rest[place[child]] - rest[place[joint]]
            angles[:, index, :2] = _swing(axes[index], rest_bone, bone[..., 0])
            if step == 2:
                continue
            following = joints[:, child + 1] - joints[:, child]
            rest_following = rest[place[child + 1]] - rest[place[child]]
            # Candidates of the twist, and how far each one puts the next joint beyond its limits.
            low, high = limits[index, 2]
            tried = np.linspace(low, high, _TWISTS)
            frames, cost = [], []
            for twist in tried:
                full = np.concatenate([angles[:, index, :2], np.full((len(joints), 1), twist)], axis=1)
                frames.append(frame @ _rotation(axes[index], full))
                local = (np.swapaxes(frames[-1], 1, 2) @ following[..., None])[..., 0]
                swing = _swing(axes[index + 1], rest_following, local)
                beyond = _beyond(swing, limits[index + 1, :2])
                cost.append(np.square(beyond).sum(axis=1) + 1e-6 * twist**2)
            best = np.argmin(cost, axis=0)
            angles[:, index, 2] = tried[best]
            frame = np.stack(frames)[best, np.arange(len(joints))]
    return angles


def beyond_limits(
    angles: Float[np.ndarray, "n 15 3"],
    model: HandModel | None = None,
    tolerance_deg: float = TOLERANCE_DEG,
) -> dict[str, Any]:
    """How many poses no hand could take, from `pose_angles` or `joint_angles`.

    `poses_beyond`: part of the poses with any joint beyond a limit by more than the tolerance;
    `joints_beyond`: part of the joints; `beyond_deg`: mean over poses of their worst excess over the limits
    themselves; `n`.
    """
    _, _, limits = _anatomical(model)
    excess = np.rad2deg(_beyond(angles, limits)).max(axis=2)
    beyond = excess > tolerance_deg
    return {
        "n": len(angles),
        "poses_beyond": float(beyond.any(axis=1).mean()),
        "joints_beyond": float(beyond.mean()),
        "beyond_deg": float(excess.max(axis=1).mean()),
    }


def bone_length_spread(
    joints_mm: Float[np.ndarray, "..."], subjects: Shaped[np.ndarray, " n"]
) -> dict[str, Any]:
    """How much the bones of one person change their length from picture to picture.

    Standard deviation of each bone's length over a subject's poses: `spread_mm` and `spread`, the same over
    its mean length, both averaged over bones and subjects with two poses or more; `subjects` counts those.
    Bones are rigid: this should be 0. Raises InputError where no subject has two poses.
    """
    joints, subjects = _checked(joints_mm), np.asarray(subjects)
    ends = np.array(BONES)
    lengths = np.linalg.norm(joints[:, ends[:, 1]] - joints[:, ends[:, 0]], axis=-1)
    groups = [lengths[subjects == subject] for subject in np.unique(subjects)]
    groups = [group for group in groups if len(group) > 1]
    if not groups:
        raise InputError(f"{len(joints)} poses, no two of one subject: a spread needs two")
    spread = np.stack([group.std(axis=0, ddof=1) for group in groups])
    mean = np.stack([group.mean(axis=0) for group in groups])
    return {
        "n": len(joints),
        "subjects": len(groups),
        "spread_mm": float(spread.mean()),
        "spread": float((spread / np.maximum(mean, 1e-9)).mean()),
    }


def _anatomical(model: HandModel | None) -> tuple[HandModel, np.ndarray, np.ndarray]:
    """The model, its joint axes (15, 3, 3) and its limits (15, 3, 2)."""
    model = load_open_hand() if model is None else model
    if model.joint_axes is None or model.joint_limits is None:
        raise ConfigError(f"hand model {model.name}: no joint axes and limits, which the open hand has")
    return model, model.joint_axes, model.joint_limits


def _checked(joints_mm: Any) -> Float[np.ndarray, "n 21 3"]:
    joints = np.asarray(joints_mm, dtype=np.float64)
    if joints.ndim != 3 or joints.shape[1:] != (21, 3):
        raise InputError(f"joints of shape {joints.shape}, expected (n, 21, 3)")
    if not np.isfinite(joints).all():
        raise InputError("joints: some are not finite")
    return joints


def _beyond(
    angles: Float[np.ndarray, "*n d"], limits: Float[np.ndarray, "*m 2"]
) -> Float[np.ndarray, "*n d"]:
    """Radians outside the limits, 0 within."""
    return np.maximum(np.maximum(limits[..., 0] - angles, angles - limits[..., 1]), 0)


def _swing(
    axes: Float[np.ndarray, "3 3"], rest: Float[np.ndarray, " 3"], bone: Float[np.ndarray, "n 3"]
) -> Float[np.ndarray, "n 2"]:
    """Flexion a and abduction b that turn the rest bone e into the direction w of `bone`: Rx(a) Ry(b) e = w.

    Both in the frame of the joint's axes (x flexion, y abduction). Flexion leaves x alone, so
    w_x = e_x cos b + e_z sin b gives b; then a is what is left in the y-z plane.
    """
    e = axes @ (rest / np.linalg.norm(rest))
    w = bone @ axes.T
    w = w / np.maximum(np.linalg.norm(w, axis=1, keepdims=True), 1e-9)
    length, offset = np.hypot(e[0], e[2]), np.arctan2(e[0], e[2])
    b = np.arcsin(np.clip(w[:, 0] / length, -1, 1)) - offset
    turned_z = e[2] * np.cos(b) - e[0] * np.sin(b)
    a = np.arctan2(w[:, 2], w[:, 1]) - np.arctan2(turned_z, e[1])
    return np.stack([(a + np.pi) % (2 * np.pi) - np.pi, b], axis=1)


def _rotation(axes: Float[np.ndarray, "3 3"], angles: Float[np.ndarray, "n 3"]) -> Float[np.ndarray, "n 3 3"]:
    """Flexion @ abduction @ twist about a joint's axes."""
    flexion, abduction, twist = (_matrices(angles[:, index, None] * axes[index]) for index in range(3))
    return flexion @ abduction @ twist


def _matrices(axis_angle: Float[np.ndarray, "*n 3"]) -> Float[np.ndarray, "*n 3 3"]:
    """Rodrigues' formula."""
    angle = np.linalg.norm(axis_angle, axis=-1)[..., None, None]
    x, y, z = np.moveaxis(axis_angle / np.maximum(angle[..., 0], 1e-12), -1, 0)
    zero = np.zeros_like(x)
    cross = np.stack([zero, -z, y, z, zero, -x, -y, x, zero], axis=-1).reshape(*x.shape, 3, 3)
    return np.eye(3) + np.sin(angle) * cross + (1 - np.cos(angle)) * cross @ cross


def _turn(rest: Float[np.ndarray, "k 3"], points: Float[np.ndarray, "n k 3"]) -> Float[np.ndarray, "n 3 3"]:
    """The rotation that brings the rest points closest to each hand's, whatever its size and place."""
    centered = points - points.mean(axis=1, keepdims=True)
    u, _, vt = np.linalg.svd(np.swapaxes(centered, 1, 2) @ (rest - rest.mean(axis=0)))
    sign = np.ones((len(points), 1, 3))
    sign[:, 0, 2] = np.linalg.det(u @ vt)
    return (u * sign) @ vt
