"""Finding hands in a depth frame without a network: where the arm ends.

A hand is the far end of something arm-like: of a connected surface, the end that lies farthest, along the
surface, from where it enters the frame or from the body it belongs to. The steps, all in millimetres on a
grid of about 160 columns:

1. take away dominant planes (tables, walls) with RANSAC; what lies behind a large one goes too;
2. connected surfaces: neighbouring pixels belong together unless the depth jumps between them;
3. the ends of each surface, by geodesic distance from the border of the frame or from its thickest part
   (Plagemann, Ganapathi, Koller, Thrun: Real-time identification and localization of body parts from depth
   images, ICRA 2010, find extremities so);
4. at each end the palm: the widest inscribed circle within a hand's length;
5. the hand: what lies around the palm, without the arm beyond the wrist; its mean is the centre.

Each end becomes a `Candidate`, ordered by how hand-like it is. There may be several (an elbow, a head, a
second hand): whoever can judge better, such as a trained network, tries them in turn.
"""

import functools
import itertools
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import NamedTuple, no_type_check

import cv2
import numpy as np

from handgraph.camera import PinholeCamera
from handgraph.errors import InputError
from handgraph.shapes import Bool, Float, Int

CUBE_MM = 250.0
"""Side of the cube around a hand: a stretched adult hand in any direction, with some room."""
BEYOND_MM = 2_500.0
"""A depth camera shows a hand that is farther away in too few pixels."""

_GRID_COLUMNS = 160
_REACH_MM = 200.0
"""From the outermost fingertip of a long stretched hand to its wrist, along the surface."""
_HAND_RADIUS_MM = 115.0
"""From the middle of the palm to the outermost fingertip."""
_WRIST_MM = 65.0
"""From the middle of the palm to the wrist."""
_PALM_MM = 17.0
"""Radius of the widest circle inside the silhouette of a hand seen edge on."""
_AREA_MM2 = 2_000.0
"""The least visible surface of a hand."""
_ARM_ENTERS_MM = 25.0
"""A surface that touches the frame's border along this much of it enters the frame there."""
_SHORT_MM = 150.0
"""A hand that reaches less far into the frame than this is seen only in part."""
_PIXELS = 60
"""In fewer grid pixels nothing can be told."""
_BAND_MM = 10.0
_NECK = 0.82
"""Where the silhouette narrows to this much of the palm's width is the wrist."""
_DOUBT = 0.1
"""What a single sign that speaks against a hand leaves of its score: a fist may be narrower than its arm."""
_FAR = np.float32(1e9)
_APART_MM = 70.0
"""Two candidates nearer than this are the same hand."""


class Plane(NamedTuple):
    """A table or a wall: the points x of the camera frame, mm, with normal · x = offset."""

    normal: Float[np.ndarray, " 3"]
    """Of unit length, away from the camera."""
    offset_mm: float
    large: bool
    """It is much of what the frame shows: what lies behind it does not matter."""

    def covers(self, xyz_mm: Float[np.ndarray, "*n 3"]) -> Bool[np.ndarray, "*n"]:
        """Which points are part of it, within the noise of sensors, or lie behind a large one."""
        beyond = xyz_mm @ self.normal - self.offset_mm
        thickness = 8.0 + 5e-6 * xyz_mm[..., 2] ** 2
        return np.asarray((beyond > -thickness) & (self.large | (beyond < thickness)))


@dataclass(frozen=True, eq=False)
class Candidate:
    """Where a hand may be.

    center_xyz_mm  (3,) mean of the hand's visible surface in the camera frame
    cube_mm        side of the depth cube to crop around it
    box_px         x, y, w, h of its visible surface in the image
    score          in [0, 1]: how hand-like its size and surroundings are; no probability
    planes         tables and walls of the frame, which were taken away before it was found
    """

    center_xyz_mm: Float[np.ndarray, " 3"]
    cube_mm: float
    box_px: tuple[float, float, float, float]
    score: float
    planes: tuple[Plane, ...] = ()


def find_hands(
    depth_mm: Float[np.ndarray, "h w"],
    camera: PinholeCamera,
    *,
    box_px: tuple[float, float, float, float] | None = None,
    limit: int = 4,
) -> list[Candidate]:
    """Places that look like a hand, the most plausible first; an empty list when nothing does.

    `depth_mm` is in mm with 0 for no reading. With `box_px` (x, y, w, h) only that part of the frame counts,
    and whatever surface in it is nearest becomes the candidate when nothing looks like a hand.
    Raises InputError for a box outside the frame.
    """
    if box_px is not None:
        depth_mm = _inside(depth_mm, box_px)
    step = max(1, round(depth_mm.shape[1] / _GRID_COLUMNS))
    if box_px is not None:  # a small box deserves a finer grid
        step = max(1, min(step, round(box_px[2] / 80)))
    depth = np.ascontiguousarray(depth_mm[::step, ::step], dtype=np.float32)
    grid_camera = PinholeCamera(camera.fx / step, camera.fy / step, camera.cx / step, camera.cy / step)
    valid = (depth > 0) & (depth < BEYOND_MM)
    if not valid.any():
        return []
    xyz = _points(depth, grid_camera)
    gone, planes = _planes(xyz, valid, grid_camera) if box_px is None else (~valid, ())
    surface = valid & ~gone
    spread = _spread_by_fronts if _is_first_frame() else _compiled_spread()
    candidates = []
    for component in _components(depth, surface, grid_camera):
        candidates += _ends(component, depth, xyz, grid_camera, step, spread)
    if not candidates and box_px is not None:
        candidates = [_nearest(depth, xyz, valid, step)]
    return [replace(one, planes=planes) for one in _distinct(candidates)[:limit]]


def _inside(depth_mm: np.ndarray, box_px: tuple[float, float, float, float]) -> np.ndarray:
    height, width = depth_mm.shape
    x, y, w, h = box_px
    if not np.isfinite(box_px).all() or w <= 0 or h <= 0:
        raise InputError(f"box {box_px}: expected x,y,w,h in pixels with w and h above zero")
    left, top, right, bottom = max(0, int(x)), max(0, int(y)), int(np.ceil(x + w)), int(np.ceil(y + h))
    if left >= width or top >= height or right <= 0 or bottom <= 0:
        raise InputError(f"box {box_px}: lies outside the frame of {width}x{height} pixels")
    only = np.zeros_like(depth_mm)
    only[top:bottom, left:right] = depth_mm[top:bottom, left:right]
    return only


def _points(depth: np.ndarray, camera: PinholeCamera) -> Float[np.ndarray, "h w 3"]:
    height, width = depth.shape
    x = (np.arange(width, dtype=np.float32) - np.float32(camera.cx)) / np.float32(camera.fx)
    y = (np.arange(height, dtype=np.float32) - np.float32(camera.cy)) / np.float32(camera.fy)
    return np.stack([x * depth, y[:, None] * depth, depth], axis=-1)


def _planes(
    xyz: np.ndarray, valid: np.ndarray, camera: PinholeCamera, most: int = 3
) -> tuple[Bool[np.ndarray, "h w"], tuple[Plane, ...]]:
    """Pixels of dominant planes, and of what lies behind the largest ones; and these planes.

    A plane counts when it covers a large part of the readings and more than a torso's width of surface, and
    covers it without gaps: the palm of a hand that fills the frame is none, nor what two arms have in common.
    """
    gone = np.zeros_like(valid)
    planes: list[Plane] = []
    readings = int(valid.sum())
    rng = np.random.default_rng(0)  # the same frame always gives the same answer
    for _ in range(most):
        left = np.flatnonzero(valid & ~gone)
        if len(left) < 0.2 * readings:
            break
        points = xyz.reshape(-1, 3)[left]
        sample = points[rng.integers(0, len(points), 600)]
        a, b, c = (sample[rng.integers(0, len(sample), 120)] for _ in range(3))
        normal = np.cross(b - a, c - a)
        length = np.linalg.norm(normal, axis=1)
        normal, a = normal[length > 1e3] / length[length > 1e3, None], a[length > 1e3]
        if not len(normal):
            break
        offset = (normal * a).sum(axis=1)
        near = np.abs(sample @ normal.T - offset) < 10.0
        best = int(near.sum(axis=0).argmax())
        inliers = sample[near[:, best]]
        if len(inliers) < 0.2 * len(sample):
            break
        # Refit to the inliers: the normal is the direction in which they spread least.
        middle = inliers.mean(axis=0)
        _, spread, axes = np.linalg.svd(inliers - middle, full_matrices=False)
        plane = axes[2] if axes[2] @ middle > 0 else -axes[2]  # points away from the camera
        distance = (xyz.reshape(-1, 3) - middle) @ plane
        distance = distance.reshape(valid.shape)
        # Standard deviations along the plane of a uniformly covered square of 400 mm are 115 mm.
        sides = spread[:2] / np.sqrt(len(inliers))
        share = len(inliers) / len(sample) * len(left) / readings
        # Its surface beside that of a full rectangle that spreads as far: 12 times the product of deviations.
        slant = np.abs(inliers @ plane) / np.linalg.norm(inliers, axis=1)
        pixel_mm2 = inliers[:, 2] ** 2 / (camera.fx * camera.fy) / np.maximum(slant, 0.05)
        area = float(pixel_mm2.sum()) * len(left) / len(sample)
        filled = area / (12.0 * float(sides[0]) * float(sides[1]) + 1e-6)
        if sides[1] < 90.0 or share < 0.15 or filled < 0.4:
            break
        thickness = np.where(xyz[..., 2] > 900, 16.0, 11.0)
        gone |= valid & (np.abs(distance) < thickness)
        if share > 0.35:
            gone |= valid & (distance > 0)
        planes.append(_refined(points, middle, plane, large=share > 0.35))
    return gone, tuple(planes)


def _refined(
    points: Float[np.ndarray, "n 3"],
    middle: Float[np.ndarray, " 3"],
    normal: Float[np.ndarray, " 3"],
    *,
    large: bool,
) -> Plane:
    """The plane through `middle` once more, fitted to all points near it instead of a few hundred."""
    for tolerance in (10.0, 6.0):
        near = points[np.abs((points - middle) @ normal) < tolerance]
        if len(near) > _PIXELS:
            middle = near.mean(axis=0)
            axis = np.linalg.eigh(np.cov((near - middle).T))[1][:, 0]
            normal = axis if axis @ middle > 0 else -axis
    return Plane(normal.astype(np.float64), float(normal @ middle), large)


def _components(depth: np.ndarray, surface: np.ndarray, camera: PinholeCamera) -> list[np.ndarray]:
    """Masks of the connected surfaces that are large enough for a hand, nearest first, at most six."""
    spacing = depth / np.float32(min(camera.fx, camera.fy))
    labels = _label(depth, surface, spacing)
    count = int(labels.max()) + 1
    area = np.bincount(labels.ravel(), weights=(spacing * spacing).ravel(), minlength=count)
    area[0] = 0
    large = np.flatnonzero((area > _AREA_MM2) & (np.bincount(labels.ravel(), minlength=count) >= _PIXELS))
    masks = [labels == label for label in large]
    masks.sort(key=lambda mask: float(np.percentile(depth[mask], 10)))
    return masks[:6]


def _label(depth: np.ndarray, surface: np.ndarray, spacing: np.ndarray) -> Int[np.ndarray, "h w"]:
    """The connected surfaces, each with a number of its own above 0; 0 is no surface.

    From a pixel the surface goes on to those of its four neighbours to which depth jumps by no more than the
    steepest slope that a surface shows, `spacing` being the side of the pixel in mm: a surface is what its
    first pixel reaches. Since nearer pixels are smaller, some steps are possible towards the camera alone.
    """
    height, width = depth.shape
    jump = 6.0 + 3.0 * spacing.astype(np.float64)
    solid = np.where(surface, depth, np.float32(np.nan))  # no step from or to a NaN is small
    # A picture of the pixels and, between them, of the steps possible both ways, which OpenCV takes apart.
    joined = np.zeros((2 * height - 1, 2 * width - 1), np.uint8)
    joined[::2, ::2] = surface
    one_way = []
    for down, right in ((0, 1), (1, 0)):
        a, b = np.s_[: height - down, : width - right], np.s_[down:, right:]
        step = np.abs(solid[a] - solid[b])
        there, back = step < jump[a], step < jump[b]
        joined[down::2, right::2] = there & back
        for index in np.flatnonzero(there != back).tolist():
            row, column = divmod(index, width - right)
            ends = (row, column), (row + down, column + right)
            one_way.append(ends if there[row, column] else ends[::-1])
    count, parts = cv2.connectedComponents(joined, connectivity=4)
    parts = np.ascontiguousarray(parts[::2, ::2])
    leads: dict[int, list[int]] = {}
    for start, end in one_way:
        leads.setdefault(int(parts[start]), []).append(int(parts[end]))
    # OpenCV numbers the parts by their first pixels. What is left of a number goes to the first to reach it.
    names = np.arange(count)
    for first in sorted(leads):
        reached = [first] if names[first] == first else []
        while reached:
            for part in leads.get(reached.pop(), ()):
                if part > first and names[part] == part:
                    names[part] = first
                    reached.append(part)
    return names[parts] if leads else parts


def _ends(
    mask: np.ndarray,
    depth: np.ndarray,
    xyz: np.ndarray,
    camera: PinholeCamera,
    step: int,
    spread: "Spread",
) -> list[Candidate]:
    """The candidates at the ends of one surface."""
    border = np.zeros_like(mask)
    border[[0, -1]] = border[:, [0, -1]] = True
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    window = slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)
    mask, depth, xyz, border = mask[window], depth[window], xyz[window], border[window]
    pixel_mm = depth / np.float32(np.sqrt(camera.fx * camera.fy))
    # Outside the frame counts as outside the silhouette.
    framed = np.pad(mask.astype(np.uint8), 1)
    radius = cv2.distanceTransform(framed, cv2.DIST_L2, 5)[1:-1, 1:-1] * pixel_mm

    starts = np.flatnonzero(mask & border)
    enters = pixel_mm.flat[starts].sum() >= _ARM_ENTERS_MM
    if not enters:
        starts = np.array([np.where(mask, radius, 0).argmax()])
    front = float(np.percentile(depth[mask], 2))
    surface = _Surface(mask, border, depth, xyz, pixel_mm, radius, front, (columns[0], rows[0]), step)
    distance = np.where(mask, _FAR, np.float32(-1))
    spread(xyz, distance, starts, _FAR)
    candidates: list[Candidate] = []
    for end in range(3):
        reached = np.where(distance < _FAR, distance, -1)
        tip = int(reached.argmax())
        from_root = float(reached.flat[tip])
        if from_root < 60.0 and candidates:
            break
        candidate = _hand_at(surface, tip, spread, short=bool(enters) and from_root < _SHORT_MM)
        if candidate is not None:
            candidates.append(candidate)
        if end == 2:
            break
        if end == 0 and not enters:  # the thickest part may be a palm: it is no beginning, this end is one
            distance = np.where(mask, _FAR, np.float32(-1))
        spread(xyz, distance, np.array([tip]), _FAR)
    return candidates


class _Surface(NamedTuple):
    """One connected surface, cut out of the grid."""

    mask: np.ndarray
    border: np.ndarray
    """Pixels on the border of the frame."""
    depth: np.ndarray
    xyz: np.ndarray
    pixel_mm: np.ndarray
    """Side of a pixel on the surface."""
    radius: np.ndarray
    """Distance to the silhouette, mm."""
    front: float
    """Depth of its nearest part, mm."""
    corner: tuple[int, int]
    """Column and row of its first pixel in the grid."""
    step: int
    """Image pixels a grid pixel."""


def _hand_at(surface: _Surface, tip: int, spread: "Spread", *, short: bool) -> Candidate | None:
    """Judge the end of a surface whose outermost pixel is `tip`; `short` of a whole hand from the border."""
    depth, xyz, pixel_mm, radius = surface.depth, surface.xyz, surface.pixel_mm, surface.radius
    from_tip = np.where(surface.mask, _FAR, np.float32(-1))
    spread(xyz, from_tip, np.array([tip]), np.float32(_REACH_MM + 120))
    on = surface.mask & (from_tip < _FAR)
    palm = _palm(radius, from_tip, on)
    palm_radius, palm_distance = float(radius.flat[palm]), float(from_tip.flat[palm])
    if palm_radius < _PALM_MM / 4:
        return None
    around = np.linalg.norm(xyz - xyz.reshape(-1, 3)[palm], axis=-1) < _HAND_RADIUS_MM
    hand = on & around & (from_tip < palm_distance + _WRIST_MM)
    area = float((pixel_mm[hand] ** 2).sum())
    # What the hand hangs on, just beyond the wrist: its width, and how it narrows from the palm.
    arm = on & (from_tip > palm_distance + _WRIST_MM) & (from_tip < palm_distance + _WRIST_MM + 40)
    arm_width = float((pixel_mm[arm] ** 2).sum()) / 40
    neck = float(radius[arm].max()) / palm_radius if arm.any() else 0.0
    cut = float(pixel_mm[hand & surface.border].sum())
    rows, columns = np.nonzero(hand)
    outline = cv2.convexHull(np.column_stack([columns, rows]).astype(np.int32))
    solidity = min(1.0, len(rows) / max(cv2.contourArea(outline), 1.0))
    behind = float(depth.flat[palm]) - surface.front
    score = (
        max(_DOUBT, _within(area, 3_500.0, 18_000.0))
        * max(_DOUBT, _within(palm_radius, 20.0, 48.0))
        * max(_DOUBT, _within(arm_width, 0.0, 85.0))
        * max(_DOUBT, _within(neck, 0.0, 0.8))
        * (1.0 - 0.5 * solidity**2)
        * (0.7 if short else 1.0)
        * max(0.3, _within(cut, 0.0, 70.0))
        * float(np.exp(-depth.flat[palm] / 2000 - behind / 500))
    )
    column, row = surface.corner
    center = xyz[hand].mean(axis=0).astype(np.float64)
    return Candidate(center, CUBE_MM, _box(columns + column, rows + row, surface.step), min(score, 1.0))


def _palm(radius: np.ndarray, from_tip: np.ndarray, on: np.ndarray) -> int:
    """The pixel in the middle of the palm: the first place, coming from the tip, beyond which it narrows.

    Without a wrist to see (a hand edge on, a wide sleeve) it is the widest place in the first part of the
    reach, of two as wide the one nearer the tip, since arms widen towards the elbow.
    """
    near = on & (from_tip < _REACH_MM)
    bands = (from_tip[near] / _BAND_MM).astype(np.int64)
    profile = np.zeros(int(_REACH_MM / _BAND_MM) + 1, np.float32)
    np.maximum.at(profile, bands, radius[near])
    widest = 0
    for band in range(len(profile)):
        if profile[band] > profile[widest]:
            widest = band
        elif profile[widest] > _PALM_MM and profile[band] < _NECK * profile[widest]:
            in_band = near & (from_tip >= widest * _BAND_MM) & (from_tip < (widest + 1) * _BAND_MM)
            return int(np.where(in_band, radius, -1).argmax())
    return int(np.where(near & (from_tip < 0.65 * _REACH_MM), radius - 0.1 * from_tip, -np.inf).argmax())


def _box(columns: np.ndarray, rows: np.ndarray, step: int) -> tuple[float, float, float, float]:
    """Grid pixels → x, y, w, h in image pixels."""
    return (
        float(columns.min() * step),
        float(rows.min() * step),
        float((np.ptp(columns) + 1) * step),
        float((np.ptp(rows) + 1) * step),
    )


def _within(value: float, low: float, high: float) -> float:
    """1 between the bounds, falling to 0 at half the lower one and at twice the higher one."""
    below = 1.0 if value >= low else 2 * value / max(low, 1e-6) - 1
    above = 1.0 if value <= high else 2 - value / high
    return max(0.0, min(below, above))


def _nearest(depth: np.ndarray, xyz: np.ndarray, valid: np.ndarray, step: int) -> Candidate:
    """The nearest surface, when somebody has said that there is a hand."""
    front = np.percentile(depth[valid], 10)
    hand = valid & (np.abs(depth - front) < _HAND_RADIUS_MM)
    rows, columns = np.nonzero(hand)
    center = xyz[hand].mean(axis=0).astype(np.float64)
    return Candidate(center, CUBE_MM, _box(columns, rows, step), 0.0)


def _distinct(candidates: list[Candidate]) -> list[Candidate]:
    """Best first, without those that a better one already covers."""
    kept: list[Candidate] = []
    for candidate in sorted(candidates, key=lambda candidate: -candidate.score):
        if all(np.linalg.norm(candidate.center_xyz_mm - k.center_xyz_mm) > _APART_MM for k in kept):
            kept.append(candidate)
    return kept


Spread = Callable[[np.ndarray, np.ndarray, np.ndarray, np.float32], None]
"""Lowers `distance` (h, w), mm along the surface `xyz` (h, w, 3), to that from the `starts`, within a reach.

Pixels below 0 are not on the surface; `starts` are flat indices. Shortest paths between the eight neighbours,
their steps added up in float32: the least sum is the same whatever the order in which the paths are tried, so
both implementations here agree to the last bit. They stop where an earlier start is nearer.
"""

_frames = itertools.count()


def _is_first_frame() -> bool:
    """Of this process, and numba is not there yet: loading it takes longer than this frame without it."""
    return next(_frames) == 0 and "numba" not in sys.modules


@functools.cache
def _compiled_spread() -> Spread:
    import numba as nb

    compiled: Spread = nb.njit(cache=True, nogil=True)(_spread_by_queue)
    return compiled


def _spread_by_fronts(xyz: np.ndarray, distance: np.ndarray, starts: np.ndarray, reach: np.float32) -> None:
    """`Spread` in NumPy: in every round all pixels that came nearer in the last one tell their neighbours."""
    width = distance.shape[1] + 2
    # Around the frame lies a border that is not on the surface, so that every pixel has eight neighbours.
    points = np.pad(xyz, ((1, 1), (1, 1), (0, 0))).reshape(-1, 3)
    padded = np.pad(distance, 1, constant_values=-1)
    nearest = padded.reshape(-1)
    around = np.array([-width - 1, -width, -width + 1, -1, 1, width - 1, width, width + 1])
    rows, columns = np.divmod(np.asarray(starts), distance.shape[1])
    front = (rows + 1) * width + columns + 1
    nearest[front] = 0
    while len(front):
        beside = front[:, None] + around
        x, y, z = np.moveaxis(points[beside] - points[front][:, None], -1, 0)
        there = nearest[front][:, None] + np.sqrt(x * x + y * y + z * z)
        nearer = (there < nearest[beside]) & (there < reach)
        np.minimum.at(nearest, beside[nearer], there[nearer])
        front = np.unique(beside[nearer])
    distance[:] = padded[1:-1, 1:-1]


@no_type_check  # a checking wrapper, as in the tests, could not be compiled
def _spread_by_queue(
    xyz: np.ndarray, distance: np.ndarray, starts: np.ndarray, reach: np.float32
) -> None:  # pragma: no cover - compiled
    """`Spread` for numba: labels are corrected from a queue.

    On a grid of nearly equal steps that visits a pixel hardly twice.
    """
    height, width = distance.shape
    queue = np.empty(height * width, np.int32)
    queued = np.zeros(height * width, np.bool_)
    head, count = 0, 0
    for start in starts:
        distance[start // width, start % width] = 0
        queue[count] = start
        queued[start] = True
        count += 1
    while count > 0:
        index = queue[head]
        head = (head + 1) % len(queue)
        count -= 1
        queued[index] = False
        row, column = index // width, index % width
        here = distance[row, column]
        for r in range(max(0, row - 1), min(height, row + 2)):
            for c in range(max(0, column - 1), min(width, column + 2)):
                x = xyz[r, c, 0] - xyz[row, column, 0]
                y = xyz[r, c, 1] - xyz[row, column, 1]
                z = xyz[r, c, 2] - xyz[row, column, 2]
                there = here + np.sqrt(x * x + y * y + z * z)
                if there < distance[r, c] and there < reach:
                    distance[r, c] = there
                    if not queued[r * width + c]:
                        queued[r * width + c] = True
                        queue[(head + count) % len(queue)] = r * width + c
                        count += 1
