"""What skin looks like, as a volume in the open hand's rest pose: redness, pigment, creases, nails.

The mesh is far coarser than a crease, so the marks are kept in a grid of 1.25 mm around the rest hand and
looked up at the rest position of each pixel. They follow from the skeleton alone (joints, flexion axes,
fingertips), so that any hand model gets them. Colour is pigment in two absorbing layers: melanin, which
takes blue before red, and blood, which takes green.
"""

from itertools import pairwise
from typing import NamedTuple

import numpy as np

from handgraph.synthetic.hands import FINGER_JOINTS, Rig, compiled

STEP_MM = 1.25
RED, PIGMENT, HEIGHT, NAIL = 0, 1, 2, 3
"""Channels of the volume, bytes: blood −0.3…1 of the usual, pigment 0…1, height −1.5…0.5 mm, nail 0…1."""

NOISE_SIDE = 64
"""Side of the noise table; it repeats."""


class Skin(NamedTuple):
    """Marks of the skin around the rest hand, and a table of smooth noise."""

    origin: np.ndarray  # (3,) mm, the first cell's centre
    marks: np.ndarray  # (X, Y, Z, 4) uint8
    noise: np.ndarray  # (64, 64, 64) float32, zero mean, unit variance


def _step(low: float, high: float, x: np.ndarray) -> np.ndarray:
    t = np.clip((x - low) / (high - low), 0, 1)
    return t * t * (3 - 2 * t)


def _bump(x: np.ndarray, width: float) -> np.ndarray:
    return np.exp(-0.5 * (x / width) ** 2)


def _to_polyline(points: np.ndarray, line: np.ndarray) -> np.ndarray:
    """Distance of points (N, 2) from a polyline (K, 2)."""
    best = np.full(len(points), np.inf)
    for a, b in pairwise(line):
        t = np.clip((points - a) @ (b - a) / ((b - a) @ (b - a)), 0, 1)
        best = np.minimum(best, np.linalg.norm(points - a - t[:, None] * (b - a), axis=1))
    return best


def skin_of(rig: Rig) -> Skin:
    """The marks of a hand model's skin. About a second of work; keep the result."""
    low = rig.template.min(0).astype(float) - 4.0
    counts = np.ceil((rig.template.max(0) + 4.0 - low) / STEP_MM).astype(int) + 1
    axes = [low[i] + STEP_MM * np.arange(counts[i]) for i in range(3)]
    points = np.stack(np.meshgrid(*axes, indexing="ij"), -1).reshape(-1, 3)
    n = len(points)
    red, height, nail = np.zeros(n), np.zeros(n), np.zeros(n)
    joints = rig.joints
    tips = rig.template[rig.tips].astype(float)

    # Each point belongs to its nearest bone; `back` is the cosine towards the back of the hand.
    nearest, back = np.full(n, np.inf), np.zeros(n)
    for finger, first in enumerate(FINGER_JOINTS):
        for k in range(-1, 3):
            joint = first + k if k >= 0 else 0
            a = joints[joint]
            b = tips[finger] if k == 2 else joints[first + k + 1]
            hinge = rig.axes[first + max(k, 0) - 1, 0]
            along_dir = (b - a) / np.linalg.norm(b - a)
            dorsal = np.cross(along_dir, hinge)
            dorsal /= np.linalg.norm(dorsal)
            side = np.cross(along_dir, dorsal)
            length = float(np.linalg.norm(b - a))
            off = points - a
            along = off @ along_dir
            off = off - np.clip(along, 0, length)[:, None] * along_dir
            distance = np.linalg.norm(off, axis=1)
            mine = distance < nearest
            nearest[mine] = distance[mine]
            up, across = off @ dorsal, off @ side
            turn = up / np.maximum(distance, 1e-3)
            back[mine] = turn[mine]
            if k < 0:
                continue
            near = mine & (distance < 16)
            local = np.zeros(n)
            mark = np.zeros(n)
            palm_side, back_side = _step(0.1, -0.5, turn), _step(0.1, 0.7, turn)
            wave = 0.8 * np.sin(0.45 * across + finger + k)
            # Creases where the finger bends: one or two lines on the inside, folds on the outside.
            joint_at = 0.0 if k > 0 else 0.42 * length
            lines = (-1.3, 1.3) if k == 1 else (0.0,)
            for line in lines:
                mark -= 0.75 * palm_side * _bump(along - joint_at - line - 0.4 * wave, 0.55)
            if k > 0 or finger == 0:
                fold = np.cos(2 * np.pi * (along + wave) / 2.6) * _bump(along, 3.6 if k == 1 else 2.4)
                mark -= 0.30 * back_side * fold * _bump(across, 5.5)
            local += (0.55 if k else 0.35) * back_side * _bump(along, 5.5)
            if k == 2:
                local += 0.65 * _bump(along - length, 8.0) * (0.45 + 0.55 * palm_side)
                # The nail: a plate on the back of the last bone, rounded towards its root.
                radius = np.median(distance[near & (np.abs(along - 0.7 * length) < 2)]) if near.any() else 7.0
                wide = min(0.95 * float(radius), 5.6 if finger else 7.0)
                ahead = along - (length - (11.5 if finger else 14.0))
                plate = _step(wide, wide - 1.2, np.abs(across)) * _step(-1.0, 0.3, length - 0.6 - along)
                plate *= _step(0.0, 1.2, ahead - 2.2 * (across / wide) ** 2) * (up > 0.5)
                nail[near] = np.maximum(nail, plate)[near]
                rim = 4.0 * plate * (1 - plate)
                mark -= 0.55 * rim
                mark += 0.25 * plate
            red[near] += local[near]
            height[near] += mark[near]

    # The palm's three lines, in the plane of the metacarpals.
    index, middle, little = (joints[FINGER_JOINTS[f]] for f in (1, 2, 4))
    wrist = joints[0]
    ahead = (middle - wrist) / np.linalg.norm(middle - wrist)
    toward_thumb = index - little
    toward_thumb = toward_thumb - (toward_thumb @ ahead) * ahead
    breadth, reach = (float(np.linalg.norm(toward_thumb)), float(np.linalg.norm(middle - wrist)))
    toward_thumb /= breadth
    middle_of = float((little - wrist) @ toward_thumb) / breadth
    flat = np.stack(
        [(points - wrist) @ ahead / reach, (points - wrist) @ toward_thumb / breadth - middle_of], 1
    )
    scale = (reach + breadth) / 2
    inside = _step(0.0, -0.45, back) * (flat[:, 0] < 1.02) * _step(-0.05, 0.1, flat[:, 0])
    palm_lines = (
        np.array([[0.74, -0.12], [0.79, 0.15], [0.86, 0.42], [0.95, 0.62], [1.02, 0.72]]),
        np.array([[0.52, -0.05], [0.62, 0.25], [0.70, 0.60], [0.76, 1.00], [0.77, 1.18]]),
        np.array([[0.78, 1.15], [0.70, 0.88], [0.54, 0.66], [0.32, 0.52], [0.10, 0.50]]),
        np.array([[0.20, 0.30], [0.45, 0.38], [0.72, 0.42]]),
    )
    for strength, line in zip((0.9, 0.8, 0.9, 0.35), palm_lines, strict=True):
        gap = _to_polyline(flat, line) * scale
        height -= strength * inside * _bump(gap, 0.75)
        red += 0.35 * strength * inside * _bump(gap, 0.9)
    # Thenar and hypothenar are redder than the hollow between; the wrist has two lines.
    mounds = _bump(flat[:, 0] - 0.35, 0.25) * (_bump(flat[:, 1] - 1.0, 0.35) + _bump(flat[:, 1], 0.28))
    red += 0.40 * inside * mounds + 0.30 * inside * _bump(flat[:, 0] - 0.95, 0.12)
    for at in (-0.04, -0.12):
        height -= 0.5 * _step(0.1, -0.4, back) * _bump((flat[:, 0] - at) * reach, 0.8)
    # Knuckles and tendons on the back.
    for finger in range(1, 5):
        knuckle = joints[FINGER_JOINTS[finger]]
        spot = _bump(np.linalg.norm(points - knuckle, axis=1) - 9.0, 8.0) * _step(0.2, 0.7, back)
        red += 0.30 * spot

    marks = np.empty((n, 4), np.uint8)
    marks[:, RED] = np.clip(np.rint((red + 0.3) / 1.3 * 255), 0, 255)
    marks[:, PIGMENT] = np.rint(255 * _step(-0.55, 0.25, back))
    marks[:, HEIGHT] = np.clip(np.rint((height + 1.5) / 2.0 * 255), 0, 255)
    marks[:, NAIL] = np.rint(255 * np.clip(nail, 0, 1))
    return Skin(low, marks.reshape(*counts, 4), _noise_table())


def _noise_table() -> np.ndarray:
    """Smooth noise that repeats: white noise, a little blurred round the corner, normalised."""
    table = np.random.default_rng(5).standard_normal((NOISE_SIDE,) * 3)
    for axis in range(3):
        table = 0.5 * table + 0.25 * (np.roll(table, 1, axis) + np.roll(table, -1, axis))
    table -= table.mean()
    return (table / table.std()).astype(np.float32)


@compiled
def noise_at(table: np.ndarray, x: float, y: float, z: float) -> float:
    """Trilinear noise, zero mean, unit variance at the table's points; one unit between them."""
    fx, fy, fz = np.floor(x), np.floor(y), np.floor(z)
    tx, ty, tz = np.float32(x - fx), np.float32(y - fy), np.float32(z - fz)
    i, j, k = np.int64(fx) & 63, np.int64(fy) & 63, np.int64(fz) & 63
    p, q, r = (i + 1) & 63, (j + 1) & 63, (k + 1) & 63
    a = table[i, j, k] + tz * (table[i, j, r] - table[i, j, k])
    b = table[i, q, k] + tz * (table[i, q, r] - table[i, q, k])
    c = table[p, j, k] + tz * (table[p, j, r] - table[p, j, k])
    d = table[p, q, k] + tz * (table[p, q, r] - table[p, q, k])
    a += ty * (b - a)
    c += ty * (d - c)
    return a + tx * (c - a)


@compiled
def marks_at(skin: Skin, x: float, y: float, z: float, out: np.ndarray) -> None:
    """The four marks at a rest position (mm), trilinear, scaled to their units; plain skin off the hand."""
    marks = skin.marks
    step = np.float32(1.0 / 1.25)
    gx = (x - np.float32(skin.origin[0])) * step
    gy = (y - np.float32(skin.origin[1])) * step
    gz = (z - np.float32(skin.origin[2])) * step
    nx, ny, nz = marks.shape[0] - 1, marks.shape[1] - 1, marks.shape[2] - 1
    # Beyond the wrist the last slice goes on: pigment of its side, no creases.
    beyond = gx >= nx - 4
    zero, inside = np.float32(0.0), np.float32(1e-3)
    gx = min(max(gx, zero), np.float32(nx) - inside)
    gy = min(max(gy, zero), np.float32(ny) - inside)
    gz = min(max(gz, zero), np.float32(nz) - inside)
    i, j, k = int(gx), int(gy), int(gz)
    tx, ty, tz = gx - np.float32(i), gy - np.float32(j), gz - np.float32(k)
    one = np.float32(1.0)
    for c in range(4):
        a = (one - tz) * marks[i, j, k, c] + tz * marks[i, j, k + 1, c]
        b = (one - tz) * marks[i, j + 1, k, c] + tz * marks[i, j + 1, k + 1, c]
        d = (one - tz) * marks[i + 1, j, k, c] + tz * marks[i + 1, j, k + 1, c]
        e = (one - tz) * marks[i + 1, j + 1, k, c] + tz * marks[i + 1, j + 1, k + 1, c]
        out[c] = (one - tx) * ((one - ty) * a + ty * b) + tx * ((one - ty) * d + ty * e)
    out[0] = out[0] * 0.005098 - 0.3
    out[1] = out[1] * 0.00392157
    out[2] = out[2] * 0.00784314 - 1.5
    out[3] = out[3] * 0.00392157
    if beyond:
        out[0], out[2], out[3] = 0.0, 0.0, 0.0
