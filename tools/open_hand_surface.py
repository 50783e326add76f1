"""Surface of the open hand: a smooth implicit union of tapered, rounded, elliptical segments.

Every primitive is rigidly attached to one joint, so the same implicit function can be evaluated in any
pose; the pose blend shapes are fitted to it. Millimetres throughout.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from open_hand_skeleton import FINGERS, FIRST_JOINT, Skeleton

WRIST_CUT_X = 14.0
WRIST_HALF_AXES = (29.0, 20.0)  # along z, along y


@dataclass(frozen=True)
class Segment:
    """Rounded tapered tube from ``start`` along ``frame[2]``; profiles are sampled at ``knots`` in [0, 1].

    ``frame`` rows are lateral, dorsal and along; half breadth and dorsal and palmar half thickness vary
    along the tube; ``caps`` are the lengths of the rounded ends; ``power`` > 2 makes sections boxier.
    """

    joint: int
    start: np.ndarray
    frame: np.ndarray
    length: float
    knots: tuple[float, ...]
    breadth: tuple[float, ...]
    dorsal: tuple[float, ...]
    palmar: tuple[float, ...]
    caps: tuple[float, float]
    power: float = 2.0

    def distance(self, points: np.ndarray) -> np.ndarray:
        """Approximate signed distance, (N, 3) -> (N,)."""
        local = (points - self.start) @ self.frame.T
        s = local[:, 2]
        inside = np.clip(s, 0.0, self.length)
        t = inside / self.length
        w = np.interp(t, self.knots, self.breadth)
        h = np.where(
            local[:, 1] > 0, np.interp(t, self.knots, self.dorsal), np.interp(t, self.knots, self.palmar)
        )
        c = np.where(s < 0, self.caps[0], self.caps[1])
        n = self.power
        q = np.abs(np.stack([local[:, 0] / w, local[:, 1] / h])) + 1e-9
        cap = np.abs(s - inside) / c
        # Sections may be boxy, rounded ends (knuckles when bent) are ellipsoidal.
        section = (q**n).sum(0) ** (1 / n)
        rho = np.sqrt(section**2 + cap**2)
        slope = np.stack([*((q / section) ** (n - 1) * (section / rho) / np.stack([w, h])), cap / rho / c])
        return (rho - 1) / np.sqrt((slope**2).sum(0))


def smooth_min(a: np.ndarray, b: np.ndarray, k: float) -> np.ndarray:
    """Polynomial smooth minimum; the blend reaches ``k`` mm."""
    h = np.maximum(k - np.abs(a - b), 0.0) / k
    return np.minimum(a, b) - h * h * k / 4


def _dense(knots: tuple[float, ...], values: tuple[float, ...], n: int = 41) -> tuple[float, ...]:
    from scipy.interpolate import PchipInterpolator

    return tuple(PchipInterpolator(knots, values)(np.linspace(0, 1, n)))


def _tube(
    joint: int,
    start: np.ndarray,
    frame: np.ndarray,
    length: float,
    profile: list[tuple[float, float, float, float]],
    caps: tuple[float, float],
    power: float = 2.0,
) -> Segment:
    """``profile`` rows: position in [0, 1], half breadth, dorsal and palmar half thickness."""
    knots = tuple(row[0] for row in profile)
    columns = [_dense(knots, tuple(row[i] for row in profile)) for i in (1, 2, 3)]
    return Segment(joint, start, frame, length, tuple(np.linspace(0, 1, 41)), *columns, caps, power)


# Finger sections relative to the index finger (breadths: PIP 19.5 mm, DIP 17 mm).
GIRTH = {"index": 1.0, "middle": 1.02, "ring": 0.95, "little": 0.84}


def finger_segments(skeleton: Skeleton, finger: str) -> list[Segment]:
    """The three phalanges of a finger, or the thumb's metacarpal and two phalanges."""
    j = FIRST_JOINT[finger]
    joints, tip = skeleton.joints, skeleton.tips[FINGERS.index(finger)]
    if finger == "thumb":
        profiles = [
            [(0, 11.5, 10.0, 12.0), (0.5, 10.8, 9.4, 13.5), (0.85, 10.4, 9.2, 11.6), (1, 10.6, 9.3, 10.8)],
            [(0, 10.6, 9.3, 10.8), (0.5, 9.6, 8.6, 10.2), (1, 10.3, 8.2, 9.2)],
            [(0, 10.3, 8.2, 9.2), (0.4, 10.5, 7.2, 9.9), (0.8, 9.8, 6.2, 9.5), (1, 9.5, 6.0, 9.1)],
        ]
        scale, tip_cap = 1.0, 11.5
    else:
        profiles = [
            [(0, 9.6, 8.3, 10.8), (0.5, 9.2, 8.2, 9.9), (0.8, 9.2, 8.1, 9.0), (1, 9.4, 8.2, 8.5)],
            [(0, 9.4, 8.2, 8.5), (0.5, 8.7, 7.3, 8.8), (0.85, 8.25, 6.7, 7.7), (1, 8.2, 6.5, 7.2)],
            [(0, 8.2, 6.5, 7.2), (0.45, 8.2, 5.9, 8.0), (0.8, 7.6, 5.2, 7.5), (1, 7.4, 5.0, 7.2)],
        ]
        scale, tip_cap = GIRTH[finger], 9.6
    segments = []
    for k in range(3):
        start = joints[j + k]
        end = joints[j + k + 1] if k < 2 else tip
        length = float(np.linalg.norm(end - start))
        rows = [(t, w * scale, d * scale, p * scale) for t, w, d, p in profiles[k]]
        head, tail = rows[0][2] * 0.95, rows[-1][2] * 0.95
        if k == 2:
            tail = tip_cap * scale
            length -= tail
        segments.append(_tube(j + k, start, skeleton.frames[j + k], length, rows, (head, tail), 2.25))
    return segments


def _between(
    joint: int,
    a: tuple[float, float, float],
    b: tuple[float, float, float],
    profile: list[tuple[float, float, float, float]],
    caps: tuple[float, float],
    roll_deg: float = 0.0,
    power: float = 2.0,
) -> Segment:
    """Tube between two points given as (distal, dorsal, radial)."""
    start, end = (np.array([-p[0], p[1], p[2]], dtype=float) for p in (a, b))
    along = end - start
    length = float(np.linalg.norm(along))
    along /= length
    roll = np.radians(roll_deg)
    dorsal = np.array([0.0, np.cos(roll), np.sin(roll)])
    dorsal -= along * (dorsal @ along)
    dorsal /= np.linalg.norm(dorsal)
    frame = np.stack([np.cross(dorsal, along), dorsal, along])
    return _tube(joint, start, frame, length, profile, caps, power)


def palm_segments(skeleton: Skeleton) -> list[tuple[Segment, float]]:
    """Palm primitives with the reach (mm) of the smooth union that adds each of them."""

    def point(joint: int, along: float = 0.0, dorsal: float = 0.0, lateral: float = 0.0) -> tuple:
        p = skeleton.joints[joint] + skeleton.frames[joint].T @ np.array([lateral, dorsal, along])
        return (-p[0], p[1], p[2])

    index, middle, little, ring = (FIRST_JOINT[f] for f in FINGERS[:4])
    flat = [(0, 24, 9, 10), (0.5, 27, 8, 10), (1, 31, 7.5, 10.5)]

    def ray(start: tuple, joint: int, profile: list, roll_deg: float) -> Segment:
        return _between(0, start, point(joint), profile, (10, 9), roll_deg)

    wrist = [(0, 29.5, 20.5, 20.5), (0.6, 29, 20, 20), (0.85, 28.2, 18.5, 19.0), (1, 27.0, 16.0, 17.0)]
    return [
        (_between(0, (-50, 0, 0), (10, 0, 0), wrist, (8, 26)), 1.0),
        (ray((28, 2, 10), index, [(0, 12, 9.5, 13), (0.5, 10.5, 9.3, 13), (1, 10.6, 8.8, 13.5)], 8), 10.0),
        (ray((28, 3.5, 2), middle, [(0, 12, 9.8, 14), (0.5, 10.5, 9.2, 14), (1, 10.6, 8.8, 15.0)], 0), 6.0),
        (ray((28, 2, -7), ring, [(0, 12, 9.5, 13), (0.5, 10.5, 9.0, 13), (1, 10.1, 8.5, 14.0)], -6), 6.0),
        (ray((28, -1, -14), little, [(0, 11, 9, 12), (0.5, 9.6, 8.6, 12.5), (1, 9.2, 8.0, 12.0)], -16), 6.0),
        # Muscles and fat between the metacarpals.
        (_between(0, (34, -3.0, -1), (84, -2.0, -4), flat, (12, 12), -3.0, 2.6), 6.0),
        # Hypothenar eminence.
        (
            _between(
                0,
                (14, -8, -14),
                (57, -8, -28),
                [(0, 10, 9, 10), (0.4, 12.5, 10, 13.0), (1, 9, 8.5, 8.5)],
                (12, 14),
                roll_deg=-20,
            ),
            10.0,
        ),
        # Distal palm pads, from which the webs spring.
        (
            _between(
                0,
                point(index, 9, -5.0),
                point(ring, 10, -5.5),
                [(0, 8.0, 6.0, 7.0), (0.5, 9, 6.5, 7), (1, 8.0, 6.0, 7.0)],
                (6, 6),
            ),
            8.0,
        ),
        (
            _between(
                0,
                point(ring, 9, -5.5),
                point(little, 8, -4.0),
                [(0, 8.0, 6.0, 7.0), (1, 7.0, 5.5, 6.0)],
                (6, 5),
            ),
            8.0,
        ),
        # First web: ribs from the thumb's metacarpal to the index metacarpal.
        (_between(0, point(13, 26, -2), (52, -2, 17), [(0, 11, 7, 8), (1, 12, 7, 9)], (5, 5), 30), 10.0),
        (
            _between(
                0,
                point(13, 38, -1),
                (66, -3, 20),
                [(0, 8, 5, 5), (0.5, 7, 4.2, 4.2), (1, 8, 6, 6)],
                (4, 4),
                roll_deg=30,
            ),
            9.0,
        ),
    ]


def thenar_segment(skeleton: Skeleton) -> Segment:
    """Thenar eminence, moving with the thumb's metacarpal."""
    frame = skeleton.frames[13]
    start = skeleton.joints[13] + frame.T @ np.array([-1.0, -6.0, -4.0])
    return _tube(
        13,
        start,
        frame,
        38.0,
        [(0, 12, 9, 9), (0.35, 16, 10, 12.5), (0.75, 13.5, 9, 11), (1, 10, 8, 8)],
        (11, 9),
    )


@dataclass(frozen=True)
class Surface:
    """The whole implicit hand; ``distance`` may be given each joint's rigid motion."""

    palm: list[tuple[Segment, float]]
    thenar: Segment
    fingers: list[list[Segment]]  # FINGERS order

    def parts(self, points: np.ndarray, motion: tuple[np.ndarray, np.ndarray, np.ndarray] | None = None):
        """Distances to the palm and to each of the five fingers; motion = world, place, rest joints."""

        def at(segment: Segment) -> np.ndarray:
            if motion is None or segment.joint == 0:
                return segment.distance(points)
            world, place, joints = motion
            j = segment.joint
            return segment.distance((points - place[j]) @ world[j] + joints[j])

        palm = at(self.palm[0][0])
        for segment, k in self.palm[1:]:
            palm = smooth_min(palm, at(segment), k)
        palm = smooth_min(palm, at(self.thenar), 10.0)
        fingers = []
        for i, chain in enumerate(self.fingers):
            d = at(chain[0])
            for segment in chain[1:]:
                d = smooth_min(d, at(segment), 1.2 if FINGERS[i] != "thumb" else 2.0)
            fingers.append(d)
        return palm, fingers

    def distance(self, points: np.ndarray, motion=None) -> np.ndarray:
        """Signed distance of the union: every finger blends with the palm, never with another finger."""
        palm, fingers = self.parts(points, motion)
        reach = [6.0, 6.0, 6.0, 6.0, 9.0]
        return np.min([smooth_min(palm, f, k) for f, k in zip(fingers, reach, strict=True)], axis=0)

    def gradient(self, points: np.ndarray, motion=None, step: float = 0.25) -> np.ndarray:
        """Central differences of ``distance``."""
        out = np.empty_like(points)
        for a in range(3):
            e = np.zeros(3)
            e[a] = step
            out[:, a] = (self.distance(points + e, motion) - self.distance(points - e, motion)) / (2 * step)
        return out

    def project(self, points: np.ndarray, motion=None, rounds: int = 4, limit: float = 3.0) -> np.ndarray:
        """Newton steps onto the zero level."""
        for _ in range(rounds):
            d = self.distance(points, motion)
            g = self.gradient(points, motion)
            step = (d / np.maximum((g * g).sum(1), 0.2))[:, None] * g
            norm = np.linalg.norm(step, axis=1, keepdims=True)
            points = points - step * np.minimum(1.0, limit / np.maximum(norm, 1e-9))
        return points


def build_surface(skeleton: Skeleton) -> Surface:
    """All primitives of the rest hand."""
    return Surface(
        palm_segments(skeleton), thenar_segment(skeleton), [finger_segments(skeleton, f) for f in FINGERS]
    )


def dense_mesh(surface: Surface, spacing: float = 1.2) -> tuple[np.ndarray, np.ndarray]:
    """Marching cubes of the rest hand: vertices (mm) and outward faces."""
    from skimage.measure import marching_cubes

    low, high = np.array([-195.0, -64.0, -60.0]), np.array([66.0, 36.0, 96.0])
    counts = np.ceil((high - low) / spacing).astype(int)
    axes = [low[i] + spacing * np.arange(counts[i]) for i in range(3)]
    volume = np.empty(counts, dtype=np.float32)
    for i, x in enumerate(axes[0]):
        plane = np.stack(np.meshgrid([x], axes[1], axes[2], indexing="ij"), -1).reshape(-1, 3)
        volume[i] = surface.distance(plane).reshape(counts[1:])
    vertices, faces, _, _ = marching_cubes(volume, 0.0, spacing=(spacing,) * 3)
    vertices = vertices + low
    a, b, c = (vertices[faces[:, i]] for i in range(3))
    if (np.cross(a, b) * c).sum() < 0:
        faces = faces[:, ::-1]
    return vertices.astype(float), faces
