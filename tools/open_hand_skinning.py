"""Skinning weights, pose blend shapes, shape blend shapes and joint regressor of the open hand (mm)."""

from __future__ import annotations

import numpy as np
from open_hand_remesh import neighbours
from open_hand_sheet import vertex_normals
from open_hand_skeleton import (
    FINGERS,
    FIRST_JOINT,
    PARENTS,
    Skeleton,
    joint_limits,
    pose_globals,
    rotations_from_angles,
    skin,
)
from open_hand_surface import Surface

SHAPE_NAMES = (
    "overall size",
    "finger length against palm length",
    "palm breadth",
    "thickness of palm and fingers",
    "finger girth",
    "thumb length",
    "index against ring finger length",
    "little finger length",
    "proximal against distal phalanges",
    "soft tissue (thenar, hypothenar, pads)",
)


def _smoothstep(x: np.ndarray) -> np.ndarray:
    t = np.clip(x, 0, 1)
    return t * t * t * (t * (6 * t - 15) + 10)


def skinning_weights(
    surface: Surface, skeleton: Skeleton, vertices: np.ndarray, faces: np.ndarray
) -> np.ndarray:
    """(V, 16), rows sum to 1, at most four non-zero: bends at the joints, no bleeding between fingers."""
    chains = []
    for i, finger in enumerate(FINGERS):
        d = np.min([segment.distance(vertices) for segment in surface.fingers[i]], axis=0)
        if finger == "thumb":
            d = np.minimum(d, surface.thenar.distance(vertices))
        chains.append(np.maximum(d, 0.0))
    distance = np.stack(chains, 1)
    member = np.exp(-(distance - distance.min(1, keepdims=True)) / 1.6)
    member /= member.sum(1, keepdims=True)
    palm = np.min([segment.distance(vertices) for segment, _ in surface.palm], axis=0)
    thumb_share = 1 / (1 + np.exp(-(palm - distance[:, 4] - 1.0) / 3.0))
    # The webs: skin that two parts pull at, to be smoothed further.
    web = 2 * (1 - member.max(1)) + 4 * thumb_share * (1 - thumb_share) * (member[:, 4] > 0.5)
    member[:, 4] *= thumb_share

    weights = np.zeros((len(vertices), 16))
    for i, finger in enumerate(FINGERS):
        first = FIRST_JOINT[finger]
        reach = {"thumb": (16.0, 9.0, 6.5)}.get(finger, (11.0, 6.0, 5.0))
        bends = []
        for k in range(3):
            joint = first + k
            along = skeleton.frames[joint, 2]
            if k:
                along = along + skeleton.frames[joint - 1, 2]
                along = along / np.linalg.norm(along)
            offset = vertices - skeleton.joints[joint]
            s = offset @ along
            depth = -(offset @ skeleton.frames[joint, 1])
            if k == 0 and finger != "thumb":
                # The palm's skin reaches further along the finger than the back's.
                s = s - 0.45 * np.maximum(depth, 0.0)
            bends.append(_smoothstep((s + reach[k]) / (2 * reach[k])))
        share = member[:, i]
        weights[:, first] = share * bends[0] * (1 - bends[1])
        weights[:, first + 1] = share * bends[0] * bends[1] * (1 - bends[2])
        weights[:, first + 2] = share * bends[0] * bends[1] * bends[2]
    weights[:, 0] = 1 - weights.sum(1)
    average = neighbours(faces, len(vertices))
    for _ in range(3):
        weights = 0.5 * weights + 0.5 * (average @ weights)
        web = np.maximum(web, average @ web)
    web = np.clip(web, 0, 1)[:, None]
    for _ in range(6):
        weights = (1 - 0.6 * web) * weights + 0.6 * web * (average @ weights)
    # Shrink before cutting, so that no weight jumps from one vertex to the next.
    weights = np.maximum(weights - 0.012, 0)
    order = np.argsort(weights, axis=1, kind="stable")
    np.put_along_axis(weights, order[:, :-4], 0.0, axis=1)
    return weights / weights.sum(1, keepdims=True)


def _training_angles(joint: int) -> list[np.ndarray]:
    """Anatomical angles (rad) at which the correctives of a joint are fitted."""
    low, high = joint_limits()[joint - 1].T
    flexions = [f * high[0] for f in (0.33, 0.66, 1.0)] + ([low[0]] if low[0] < -0.1 else [])
    samples = [np.array([f, 0.0, 0.0]) for f in flexions]
    if high[1] > 0.1:
        for f in (0.0, 0.6 * high[0]):
            samples += [np.array([f, a, 0.0]) for a in (low[1], high[1])]
    return samples


def pose_blend_shapes(
    surface: Surface, skeleton: Skeleton, vertices: np.ndarray, faces: np.ndarray, weights: np.ndarray
) -> np.ndarray:
    """(V, 3, 135): brings skinned vertices to the posed implicit surface, linear in R - I per joint."""
    posedirs = np.zeros((len(vertices), 3, 135))
    none = np.zeros_like(posedirs)
    average = neighbours(faces, len(vertices))
    for joint in range(1, 16):
        chain = [j for j in range(joint, 16) if _descends(j, joint)]
        moving = weights[:, chain].sum(1)
        blend = 4 * moving * (1 - moving)
        for _ in range(3):
            blend = np.maximum(blend, average @ blend)
        radius = 34.0 if joint in (1, 4, 7, 10, 13) else 22.0
        near = np.linalg.norm(vertices - skeleton.joints[joint], axis=1)
        mask = np.clip(blend * 3, 0, 1) * (1 - _smoothstep((near - 0.6 * radius) / (0.6 * radius)))
        chosen = np.flatnonzero(mask > 0.01)
        features, targets = [], []
        for angle in _training_angles(joint):
            angles = np.zeros((15, 3))
            angles[joint - 1] = angle
            rotations = rotations_from_angles(angles, skeleton.frames[1:])
            world, place = pose_globals(rotations, skeleton.joints)
            posed = skin(vertices, skeleton.joints, weights, none, rotations)[chosen]
            better = surface.project(posed, (world, place, skeleton.joints), rounds=3, limit=2.5)
            move = better - posed
            size = np.linalg.norm(move, axis=1, keepdims=True)
            move *= np.minimum(1, 5.0 / np.maximum(size, 1e-9)) * mask[chosen, None]
            full = np.zeros_like(vertices)
            full[chosen] = move
            for _ in range(2):
                full = 0.4 * full + 0.6 * (average @ full)
            matrices = np.einsum("vj,jab->vab", weights, world)
            targets.append(np.linalg.solve(matrices, full[..., None])[..., 0])
            features.append((rotations[joint - 1] - np.eye(3)).ravel())
        x = np.array(features)
        y = np.array(targets).reshape(len(x), -1)
        solution = np.linalg.solve(x.T @ x + 0.02 * np.eye(9), x.T @ y)
        posedirs[:, :, 9 * (joint - 1) : 9 * joint] = solution.T.reshape(len(vertices), 3, 9)
    posedirs[np.abs(posedirs).max((1, 2)) < 0.02] = 0
    return posedirs


def _descends(joint: int, ancestor: int) -> bool:
    while joint > ancestor:
        joint = PARENTS[joint]
    return joint == ancestor


def shape_fields(
    skeleton: Skeleton, vertices: np.ndarray, faces: np.ndarray, weights: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Displacement per standard deviation of the vertices (V, 3, 10) and joints (16, 3, 10)."""
    on_vertices = np.zeros((len(vertices), 3, 10))
    on_joints = np.zeros((16, 3, 10))
    phalanges = [j for j in range(1, 16) if j != 13]

    def add(
        index: int, along: dict[int, float], across: dict[int, float], thick: dict[int, float], palm: tuple
    ):
        """Scale rates per joint along, across and through the bone, and of the palm along x, y, z."""
        matrices = np.zeros((16, 3, 3))
        matrices[0] = np.diag(palm)
        for j in range(1, 16):
            r, d, u = skeleton.frames[j]
            matrices[j] = (
                along.get(j, 0.0) * np.outer(u, u)
                + across.get(j, 0.0) * np.outer(r, r)
                + thick.get(j, 0.0) * np.outer(d, d)
            )
        for j in range(1, 16):
            p = PARENTS[j]
            on_joints[j, :, index] = on_joints[p, :, index] + matrices[p] @ (
                skeleton.joints[j] - skeleton.joints[p]
            )
        offset = vertices[:, None] - skeleton.joints
        each = np.einsum("jab,vjb->vja", matrices, offset) + on_joints[None, :, :, index]
        on_vertices[:, :, index] = np.einsum("vj,vja->va", weights, each)

    def every(value: float, joints=range(1, 16)) -> dict[int, float]:
        return dict.fromkeys(joints, value)

    add(0, every(0.055), every(0.055), every(0.055), (0.055, 0.055, 0.055))
    add(1, {**every(0.04), **every(0.02, (13, 14, 15))}, {}, {}, (-0.025, 0.0, 0.0))
    add(2, {}, every(0.02), {}, (0.0, 0.0, 0.05))
    add(3, {}, {}, every(0.055), (0.0, 0.07, 0.0))
    add(4, {}, every(0.06), every(0.06), (0.0, 0.0, 0.0))
    add(5, every(0.06, (13, 14, 15)), {}, {}, (0.0, 0.0, 0.0))
    add(6, {**every(0.03, (1, 2, 3)), **every(-0.03, (10, 11, 12))}, {}, {}, (0.0, 0.0, 0.0))
    add(7, every(0.055, (7, 8, 9)), {}, {}, (0.0, 0.0, 0.0))
    add(
        8,
        {j: 0.035 if (j - 1) % 3 == 0 else -0.04 for j in phalanges if j < 13} | {14: 0.035, 15: -0.04},
        {},
        {},
        (0.0, 0.0, 0.0),
    )

    normals = vertex_normals(vertices, faces)
    palmar = np.einsum("vj,vj->v", normals, -np.einsum("vj,jb->vb", weights, skeleton.frames[:, 1]))
    facing = np.clip(palmar, 0, 1)
    thenar = weights[:, 13] * np.exp(-((np.linalg.norm(vertices - [-40, -18, 24], axis=1) / 28) ** 2))
    heel = weights[:, 0] * np.exp(-((np.linalg.norm(vertices - [-38, -16, -24], axis=1) / 26) ** 2))
    pads = weights[:, [3, 6, 9, 12, 15]].sum(1) * 0.45 + weights[:, [1, 4, 7, 10, 14]].sum(1) * 0.5
    fullness = facing * (2.2 * thenar + 1.6 * heel + pads)
    average = neighbours(faces, len(vertices))
    for _ in range(3):
        fullness = 0.5 * fullness + 0.5 * (average @ fullness)
    on_vertices[:, :, 9] = fullness[:, None] * normals
    return on_vertices, on_joints


def joint_regressor(
    vertices: np.ndarray, joints: np.ndarray, on_vertices: np.ndarray, on_joints: np.ndarray
) -> np.ndarray:
    """(16, V) rows that sum to 1 and give the joint for the mean shape and for every shape direction.

    Minimum-norm solution over the vertices around each joint, weighted towards the near ones.
    """
    regressor = np.zeros((16, len(vertices)))
    for j in range(16):
        distance = np.linalg.norm(vertices - joints[j], axis=1)
        near = np.argsort(distance, kind="stable")[:160]
        soft = np.exp(-((distance[near] / distance[near].max()) ** 2) * 1.5)
        rows = [np.ones(len(near)), *(vertices[near] / 10).T]
        value = [1.0, *(joints[j] / 10)]
        for k in range(on_vertices.shape[2]):
            rows += list(on_vertices[near, :, k].T)
            value += list(on_joints[j, :, k])
        matrix = np.array(rows) * soft
        solution = soft * (np.linalg.pinv(matrix, rcond=1e-6) @ np.array(value))
        regressor[j, near] = solution / solution.sum()
    return regressor
