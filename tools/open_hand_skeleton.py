"""Skeleton of the open hand: joint centres, anatomical axes and ranges of motion.

Frame (right hand, millimetres here): wrist joint at the origin, fingers towards -x, palm facing -y,
thumb towards +z. Joint order is MANO's: wrist, index 1-3, middle 1-3, little 1-3, ring 1-3, thumb 1-3.

Phalanx and metacarpal lengths follow Buryanov & Kotiuk (2010); see docs/open_hand.md for all sources.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

FINGERS = ("index", "middle", "little", "ring", "thumb")
PARENTS = np.array([-1, 0, 1, 2, 0, 4, 5, 0, 7, 8, 0, 10, 11, 0, 13, 14])
FIRST_JOINT = {name: 1 + 3 * i for i, name in enumerate(FINGERS)}

# Bone lengths in mm: proximal, middle, distal phalanx; for the thumb metacarpal, proximal, distal.
BONES_MM = {
    "index": (39.8, 22.4, 15.8),
    "middle": (44.6, 26.3, 17.4),
    "little": (32.7, 18.1, 16.0),
    "ring": (41.4, 25.7, 17.3),
    "thumb": (46.2, 31.6, 21.7),
}
# A centre of rotation lies inside the head of the proximal bone, so joint-to-joint distances exceed
# bone lengths by the difference of the two head radii. Given per segment (mm).
HEAD_OFFSET_MM = {
    "index": (1.5, 0.8),
    "middle": (2.0, 0.8),
    "little": (1.2, 0.8),
    "ring": (2.0, 0.8),
    "thumb": (0.0, 1.0),
}
# Last joint centre to skin tip, beyond the bare bone: head radius plus pad (mm).
TIP_BEYOND_BONE_MM = {"index": 6.2, "middle": 6.4, "little": 5.6, "ring": 6.2, "thumb": 6.8}

# First joint of each chain (distal, dorsal, radial), mm. The knuckles lie on an arc, middle highest.
BASE_MM = {
    "index": (87.0, 2.5, 25.0),
    "middle": (88.0, 4.5, 2.5),
    "little": (72.5, -3.5, -36.5),
    "ring": (82.0, 2.5, -17.5),
    "thumb": (20.0, -9.0, 22.0),
}
# Direction of each segment at rest: (radial yaw, palmar dip) in degrees.
DIRECTIONS_DEG = {
    "index": ((6.0, 0.0), (5.0, 3.0), (4.5, 6.0)),
    "middle": ((1.0, 0.0), (1.0, 3.0), (1.0, 6.0)),
    "little": ((-14.0, 1.0), (-12.0, 4.0), (-10.5, 7.0)),
    "ring": ((-5.5, 0.0), (-5.0, 3.0), (-4.5, 6.0)),
    "thumb": ((41.0, 22.0), (32.0, 17.0), (29.0, 14.0)),
}
# Roll of each segment's palmar side towards ulnar (degrees): the thumb is pronated, and the transverse
# arch turns the flexion planes of the fingers towards the scaphoid.
ROLL_DEG = {
    "index": (5.0, 5.0, 5.0),
    "middle": (0.0, 0.0, 0.0),
    "little": (-13.0, -13.0, -13.0),
    "ring": (-6.0, -6.0, -6.0),
    "thumb": (72.0, 68.0, 69.0),
}
# Ranges of motion in degrees per joint: (flexion, abduction towards radial, twist).
LIMITS_DEG = {
    "index": (((-20, 90), (-20, 20), (-5, 5)), ((0, 105), (-2, 2), (-2, 2)), ((-5, 80), (-2, 2), (-2, 2))),
    "middle": (((-20, 90), (-15, 15), (-5, 5)), ((0, 105), (-2, 2), (-2, 2)), ((-5, 80), (-2, 2), (-2, 2))),
    "little": (((-20, 90), (-25, 20), (-5, 5)), ((0, 105), (-2, 2), (-2, 2)), ((-5, 80), (-2, 2), (-2, 2))),
    "ring": (((-20, 90), (-15, 15), (-5, 5)), ((0, 105), (-2, 2), (-2, 2)), ((-5, 80), (-2, 2), (-2, 2))),
    "thumb": (
        ((-25, 40), (-25, 35), (-30, 10)),
        ((-10, 60), (-10, 10), (-10, 5)),
        ((-15, 80), (-2, 2), (-2, 2)),
    ),
}


@dataclass(frozen=True)
class Skeleton:
    """Rest skeleton in mm; ``frames[j]`` rows are flexion, abduction and twist axis of joint ``j``."""

    joints: np.ndarray  # (16, 3)
    tips: np.ndarray  # (5, 3) skin tips in FINGERS order
    frames: np.ndarray  # (16, 3, 3), row 0 is the wrist's


def _frame(yaw_deg: float, dip_deg: float, roll_deg: float) -> np.ndarray:
    yaw, dip, roll = np.radians([yaw_deg, dip_deg, roll_deg])
    along = np.array([-np.cos(yaw) * np.cos(dip), -np.sin(dip), np.sin(yaw) * np.cos(dip)])
    palmar = np.array([0.0, -np.cos(roll), -np.sin(roll)])
    palmar -= along * (palmar @ along)
    palmar /= np.linalg.norm(palmar)
    # along x palmar: positive flexion turns the bone towards its palmar side.
    flexion = np.cross(along, palmar)
    return np.stack([flexion, -palmar, along])


def build_skeleton() -> Skeleton:
    """The rest skeleton."""
    joints = np.zeros((16, 3))
    frames = np.zeros((16, 3, 3))
    frames[0] = _frame(0.0, 0.0, 0.0)
    tips = np.zeros((5, 3))
    for i, finger in enumerate(FINGERS):
        distal, dorsal, radial = BASE_MM[finger]
        point = np.array([-distal, dorsal, radial])
        lengths = [b + o for b, o in zip(BONES_MM[finger], HEAD_OFFSET_MM[finger], strict=False)]
        lengths.append(BONES_MM[finger][2] + TIP_BEYOND_BONE_MM[finger])
        for k in range(3):
            joint = FIRST_JOINT[finger] + k
            joints[joint] = point
            frames[joint] = _frame(*DIRECTIONS_DEG[finger][k], ROLL_DEG[finger][k])
            point = point + lengths[k] * frames[joint, 2]
        tips[i] = point
    return Skeleton(joints, tips, frames)


def joint_limits() -> np.ndarray:
    """(15, 3, 2) radians, joints 1-15, in MANO order."""
    return np.radians(np.array([LIMITS_DEG[f][k] for f in FINGERS for k in range(3)], dtype=float))


def axis_rotation(axis: np.ndarray, angle: np.ndarray) -> np.ndarray:
    """Rodrigues: unit axes (..., 3) and angles (...) to matrices (..., 3, 3)."""
    axis, angle = np.broadcast_arrays(axis, np.asarray(angle)[..., None])
    angle = angle[..., :1, None]
    x, y, z = np.moveaxis(axis, -1, 0)
    zero = np.zeros_like(x)
    k = np.stack([zero, -z, y, z, zero, -x, -y, x, zero], -1).reshape(*x.shape, 3, 3)
    return np.eye(3) + np.sin(angle) * k + (1 - np.cos(angle)) * (k @ k)


def rotations_from_angles(angles: np.ndarray, frames: np.ndarray) -> np.ndarray:
    """Anatomical angles (..., 15, 3) rad to rotations (..., 15, 3, 3); ``frames`` (15, 3, 3)."""
    flex, abd, twist = (axis_rotation(frames[:, i], angles[..., i]) for i in range(3))
    return flex @ abd @ twist


def axis_angle(rotations: np.ndarray) -> np.ndarray:
    """Rotation matrices (..., 3, 3) to axis-angle vectors (..., 3)."""
    from scipy.spatial.transform import Rotation

    flat = Rotation.from_matrix(rotations.reshape(-1, 3, 3)).as_rotvec()
    return flat.reshape(*rotations.shape[:-1])


def pose_globals(rotations: np.ndarray, joints: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Global rotation (16, 3, 3) and posed joint position (16, 3) for joint rotations (15, 3, 3)."""
    world = np.zeros((16, 3, 3))
    place = np.zeros((16, 3))
    world[0], place[0] = np.eye(3), joints[0]
    for j in range(1, 16):
        p = PARENTS[j]
        world[j] = world[p] @ rotations[j - 1]
        place[j] = place[p] + world[p] @ (joints[j] - joints[p])
    return world, place


def skin(
    vertices: np.ndarray, joints: np.ndarray, weights: np.ndarray, posedirs: np.ndarray, rotations: np.ndarray
) -> np.ndarray:
    """Linear blend skinning with pose blend shapes, all in one unit; returns posed vertices (V, 3)."""
    feature = (rotations - np.eye(3)).reshape(-1)
    world, place = pose_globals(rotations, joints)
    offset = place - np.einsum("jab,jb->ja", world, joints)
    rest = vertices + posedirs @ feature
    matrices = np.einsum("vj,jab->vab", weights, world)
    return np.einsum("vab,vb->va", matrices, rest) + weights @ offset
