"""What surrounds the hand, and the sensor that looks at it.

A scene is the posed hand, its forearm (sometimes sleeved), and by chance a table, things held, things in
front or lying about, a body behind, another hand, a far wall. The sensor then spoils the clean depth as
depth cameras do: stereo shadow, ragged and flying edges, holes, blur, noise growing with distance, steps.
"""

from typing import NamedTuple

import numpy as np

from handgraph.synthetic.hands import (
    Rig,
    chance,
    compiled,
    draw,
    integer,
    matmul3,
    next_u64,
    normal,
    pose_hand,
    random_rotation,
    rest_points,
    sample_pose,
    sample_view,
    seed_stream,
    subject_shape,
    uniform,
)
from handgraph.synthetic.render import (
    BODY,
    FOREARM,
    HAND,
    OBJECT,
    PLANE,
    draw_mesh,
    draw_plane,
    ellipsoid,
    frame_of,
    prism,
    tube,
    turned_about,
)


class Sensor(NamedTuple):
    """One kind of depth camera: geometry, distance of the hand, and how its readings err."""

    name: str
    share: float
    """How often it is drawn."""
    fx: float
    fy: float
    width: int
    height: int
    near_mm: float
    far_mm: float
    """Range of the hand's distance."""
    sigma_mm: float
    """Axial noise close by."""
    sigma_per_m2_mm: float
    """Axial noise growing with the square of the distance: mm at one metre."""
    step_mm: float
    """Least step between readings."""
    step_per_m2_mm: float
    """Step of disparity sensors, growing with the square of the distance: mm at one metre."""
    ragged_px: float
    """Lateral jitter of edges."""
    edge_hole: float
    """Share of pixels at a depth edge without reading."""
    flying: float
    """Share of pixels at a depth edge that read between the two surfaces."""
    baseline_mm: float
    """Distance between projector or second camera and camera; its shadow has no reading."""
    blur: float
    """How often the picture is blurred and foreground grown, as stereo matching does."""


SENSORS = (
    # Kinect v1 (NYU): noise 1.2 + 1.9 (z − 0.4)² mm (Nguyen et al., 3DIMPVT 2012), step 2.85 z² mm.
    Sensor("kinect", 0.26, 588.0, 587.0, 640, 480, 480, 1100, 0.5, 1.9, 1.0, 2.85, 0.6, 0.12, 0.02, 75, 0.05),
    # Time of flight close by (ICVL, MSRA: Intel Creative).
    Sensor("icvl", 0.10, 241.0, 241.0, 320, 240, 200, 600, 1.2, 2.5, 1.0, 0.0, 0.5, 0.15, 0.25, 0, 0.10),
    Sensor("msra", 0.08, 241.42, 241.42, 320, 240, 200, 600, 1.2, 2.5, 1.0, 0.0, 0.5, 0.15, 0.25, 0, 0.10),
    # Coded light (RealSense SR300, SR305).
    Sensor("sr300", 0.11, 287.3, 287.3, 320, 240, 280, 750, 0.5, 1.2, 1.0, 0.0, 0.5, 0.25, 0.05, 26, 0.15),
    Sensor("sr305", 0.11, 476.0, 476.0, 640, 480, 280, 800, 0.5, 1.2, 0.125, 0.0, 0.5, 0.25, 0.05, 26, 0.15),
    # Active stereo (RealSense D4xx) in its own and in the colour camera's frame.
    Sensor("d4xx", 0.16, 612.0, 612.0, 640, 480, 330, 1100, 0.6, 2.5, 1.0, 1.5, 1.0, 0.20, 0.10, 50, 0.75),
    Sensor("d4wide", 0.08, 430.0, 430.0, 640, 480, 280, 1000, 0.6, 2.5, 1.0, 1.5, 1.0, 0.20, 0.10, 50, 0.6),
    Sensor("generic", 0.10, 380.0, 380.0, 640, 480, 250, 1000, 0.6, 2.0, 1.0, 0.0, 0.5, 0.10, 0.05, 0, 0.2),
)

COLUMNS = len(Sensor._fields) - 1
"""Columns of `sensor_table`: every field but the name."""


def sensor_table() -> np.ndarray:
    """The sensors as rows of numbers, for numba."""
    return np.array([sensor[1:] for sensor in SENSORS], np.float64)


class Chances(NamedTuple):
    """How often each thing is in the scene."""

    table: float = 0.30
    """A plane under or behind the hand, reaching into the cube."""
    held: float = 0.22
    """Something held, where the hand has room for it (in the grasp family four times in five)."""
    occluder: float = 0.09
    clutter: float = 0.5
    """Things lying on the table, where there is one."""
    body: float = 0.20
    second_hand: float = 0.04
    wall: float = 0.4
    sleeve: float = 0.35
    noise: float = 0.94
    """Images that get sensor noise at all."""
    border: float = 0.08
    """Hands that may lie at the frame's border, cut by it or not."""


class Scene(NamedTuple):
    """A drawn scene: the clean picture and everything known about it, camera frame, mm."""

    inverse: np.ndarray  # (h, w) float32, 1/mm, 0 where nothing is
    label: np.ndarray  # (h, w) uint8
    camera: np.ndarray  # (4,) fx, fy, cx, cy of the full frame at the resolution drawn
    window: np.ndarray  # (4,) left, top of the picture in that frame; width, height of the frame
    center: np.ndarray  # (3,) crop centre
    half_cube: float
    joints: np.ndarray  # (21, 3)
    vertices: np.ndarray  # (V, 3) float32
    angles: np.ndarray  # (15, 3)
    rotation: np.ndarray  # (3, 3)
    wrist: np.ndarray  # (3,)
    shape: np.ndarray  # (10,)
    family: int
    sensor: int
    subject: int
    flags: int  # 1 table, 2 held, 4 occluder, 8 body, 16 second hand, 32 sleeve


@compiled
def _forearm(
    rig: Rig,
    vertices: np.ndarray,
    rotation: np.ndarray,
    state: np.ndarray,
    length: float,
    sleeve: bool,
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """The forearm tube, a sleeve over it (empty if none), and the elbow's place."""
    center, thick, wide = np.zeros(3), 0.0, 0.0
    for v in rig.ring:
        for i in range(3):
            center[i] += vertices[v, i] / len(rig.ring)
    back, side = rotation[:, 0].copy(), rotation[:, 2].copy()
    up = rotation[:, 1].copy()
    for v in rig.ring:
        y, z = 0.0, 0.0
        for i in range(3):
            y += (vertices[v, i] - center[i]) * up[i]
            z += (vertices[v, i] - center[i]) * side[i]
        thick, wide = max(thick, abs(y)), max(wide, abs(z))
    flex = min(max(normal(state, 0.0, 0.42), -1.1), 1.1)
    lean = min(max(normal(state, 0.0, 0.17), -0.35), 0.45)
    axis = turned_about(side, flex, back)
    up = turned_about(side, flex, up)
    axis = turned_about(up, lean, axis)
    side = turned_about(up, lean, side)
    axes = np.empty((3, 3))
    axes[:, 0], axes[:, 1], axes[:, 2] = up, side, axis
    swell_y, swell_z = uniform(state, 1.25, 1.9), uniform(state, 1.05, 1.55)
    rings = 9
    centers, radii = np.empty((rings, 3)), np.empty((rings, 2))
    for k in range(rings):
        # The first ring lies inside the hand, the others run along the forearm.
        along = -7.0 if k == 0 else length * (k - 1) / (rings - 2)
        t = min(max(along, 0.0) / 170.0, 1.0)
        t = t * t * (3 - 2 * t)
        for i in range(3):
            centers[k, i] = center[i] + (back[i] if k == 0 else axis[i]) * along
        radii[k, 0] = thick * (0.93 + (swell_y - 1.0) * t)
        radii[k, 1] = wide * (0.95 + (swell_z - 1.0) * t)
    points, faces = tube(centers, axes, radii, 24)
    if not sleeve:
        return points, faces, points[:0], faces[:0], centers[rings - 1]
    start = uniform(state, 5.0, 150.0)
    loose, slope = uniform(state, 2.0, 9.0), uniform(state, 0.0, 8.0)
    sleeve_centers, sleeve_radii = np.empty((8, 3)), np.empty((8, 2))
    for k in range(8):
        along = start + (length - start) * k / 7
        t = min(along / 170.0, 1.0)
        t = t * t * (3 - 2 * t)
        for i in range(3):
            sleeve_centers[k, i] = center[i] + axis[i] * along + normal(state, 0.0, 1.0)
        fold = normal(state, loose + slope * k / 7, 1.5)
        sleeve_radii[k, 0] = thick * (0.93 + (swell_y - 1.0) * t) + max(fold, 1.5)
        sleeve_radii[k, 1] = wide * (0.95 + (swell_z - 1.0) * t) + max(fold, 1.5)
    sleeve_points, sleeve_faces = tube(sleeve_centers, axes, sleeve_radii, 24)
    return points, faces, sleeve_points, sleeve_faces, centers[rings - 1]


@compiled
def _held(joints: np.ndarray, rotation: np.ndarray, state: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """A ball, rod or box in the grip, as large as fits between fingers and palm; empty if nothing fits."""
    center = np.zeros(3)
    for i in range(3):
        tips = (joints[4, i] + joints[8, i] + joints[12, i] + joints[16, i] + joints[20, i]) / 5
        roots = (joints[5, i] + joints[9, i] + joints[13, i] + joints[17, i]) / 4
        center[i] = 0.5 * (tips + roots) - rotation[i, 1] * uniform(state, 0.0, 14.0)
    across = joints[17] - joints[5]
    across /= np.sqrt((across**2).sum())
    for i in range(3):
        across[i] += normal(state, 0.0, 0.25)
    across /= np.sqrt((across**2).sum())
    kind = integer(state, 3)  # ball, rod, box
    free = 60.0
    for j in range(1, 21):
        parent = 0 if j % 4 == 1 else j - 1
        flesh = 12.0 if parent == 0 else 8.0
        for t in (0.5, 1.0):
            gap = 0.0
            along = 0.0
            for i in range(3):
                d = joints[parent, i] + t * (joints[j, i] - joints[parent, i]) - center[i]
                gap += d * d
                along += d * across[i]
            if kind > 0:
                gap -= along * along
            free = min(free, np.sqrt(max(gap, 0.0)) - flesh)
    if free < 4.0:
        return np.empty((0, 3)), np.empty((0, 3), np.int32)
    axes = np.empty((3, 3))
    frame_of(across, axes)
    r = free * uniform(state, 0.75, 1.05)
    if kind == 0:
        stretch = uniform(state, 0.8, 1.3)
        return ellipsoid(center, axes, np.array([r, r * uniform(state, 0.8, 1.0), r * stretch]))
    half = uniform(state, 20.0, 110.0)
    slide = uniform(state, -0.6, 0.6) * half
    for i in range(3):
        center[i] += across[i] * slide
    if kind == 1:
        return prism(center, axes, np.array([r, r, half]), 20)
    return prism(center, axes, np.array([0.75 * r, 0.75 * r * uniform(state, 0.3, 1.0), half]), 4)


@compiled
def _anything(
    center: np.ndarray, axes: np.ndarray, state: np.ndarray, low: float, high: float
) -> tuple[np.ndarray, np.ndarray]:
    """A ball, rod or box of random size."""
    radii = np.array([uniform(state, low, high), uniform(state, low, high), uniform(state, low, 2 * high)])
    kind = integer(state, 3)
    if kind == 0:
        return ellipsoid(center, axes, radii)
    if kind == 1:
        radii[1] = radii[0]
        return prism(center, axes, radii, 20)
    return prism(center, axes, radii, 4)


@compiled
def _table(
    vertices: np.ndarray,
    elbow: np.ndarray,
    rotation: np.ndarray,
    state: np.ndarray,
    plane: np.ndarray,
) -> float:
    """Choose a plane below the hand: unit normal towards the camera into `plane`, its offset returned."""
    height = 0.0
    kind = uniform(state, 0.0, 1.0)
    if kind < 0.45:
        height = uniform(state, -2.0, 4.0)
    elif kind < 0.8:
        height = uniform(state, 4.0, 50.0)
    else:
        height = uniform(state, 50.0, 140.0)
    offset = 0.0
    for _ in range(6):
        if chance(state, 0.45):  # the hand lies flat, palm down or up
            face = 1.0 if rotation[2, 1] < 0 else -1.0
            for i in range(3):
                plane[i] = face * rotation[i, 1] + normal(state, 0.0, 0.12)
        else:
            tilt, turn = uniform(state, 0.0, 1.38), uniform(state, 0.0, 2 * np.pi)
            plane[0], plane[1] = np.sin(tilt) * np.cos(turn), np.sin(tilt) * np.sin(turn)
            plane[2] = -np.cos(tilt)
        plane /= np.sqrt((plane**2).sum())
        offset = 1e9
        for v in range(0, len(vertices), 3):
            offset = min(
                offset, plane[0] * vertices[v, 0] + plane[1] * vertices[v, 1] + plane[2] * vertices[v, 2]
            )
        offset -= height
        above = plane[0] * elbow[0] + plane[1] * elbow[1] + plane[2] * elbow[2] - offset
        if plane[2] < -0.15 and offset < -120.0 and above > 20.0:
            return offset
    # The arm would pierce every plane tried: lower the last one until it does not.
    return min(offset + min(above - 30.0, 0.0), -120.0)


@compiled
def compose(
    rig: Rig,
    sensors: np.ndarray,
    families: np.ndarray,
    chances: Chances,
    subjects: int,
    seed: int,
    split: int,
    index: int,
    size: int,
    whole: bool,
) -> Scene:
    """Draw scene `index`: the window of the crop, or the `whole` frame of the sensor.

    A camera that resolves the crop far more finely than its `size` pixels is drawn coarser, 1.25 samples
    a crop pixel: a nearest-neighbour crop cannot tell, and the window stays small.
    """
    state = seed_stream(seed, split, index, 1 if whole else 0)
    sensor = draw(state, sensors[:, 0])
    fx, fy, width, height = sensors[sensor, 1], sensors[sensor, 2], sensors[sensor, 3], sensors[sensor, 4]
    if sensor == len(sensors) - 1:  # the generic camera
        fx = uniform(state, 200.0, 700.0)
        fy = fx * uniform(state, 0.98, 1.02)
    subject = integer(state, subjects)
    shape = subject_shape(seed, split, subject)
    rest = rest_points(rig, shape)
    angles = np.empty((15, 3))
    family = sample_pose(rig, rest, state, families, angles)
    rotation = np.empty((3, 3))
    sample_view(state, 0.15 if whole else 0.45, rotation)
    vertices = np.empty((len(rig.template), 3), np.float32)
    joints = np.empty((21, 3))
    wrist = np.zeros(3)
    pose_hand(rig, shape, rest, angles, rotation, wrist, vertices, joints)

    # Place the hand: mean joint at a pixel and depth of the sensor's range.
    z = uniform(state, sensors[sensor, 5], sensors[sensor, 6])
    cx, cy = (width - 1) / 2 + normal(state, 0.0, 4.0), (height - 1) / 2 + normal(state, 0.0, 4.0)
    # Mostly far enough from the border to be seen whole, if the picture is large enough for that.
    reach = 95.0 if chance(state, 1.0 - chances.border) else 20.0
    edge_u, edge_v = min(reach * fx / z, 0.45 * width), min(reach * fy / z, 0.45 * height)
    u, v = uniform(state, edge_u, width - edge_u), uniform(state, edge_v, height - edge_v)
    goal = np.array([(u - cx) * z / fx, (v - cy) * z / fy, z])
    for i in range(3):
        mean = 0.0
        for j in range(21):
            mean += joints[j, i] / 21
        wrist[i] = goal[i] - mean
    for j in range(21):
        joints[j] += wrist
    far, surface = 0.0, np.zeros(3)
    for n in range(len(vertices)):
        for i in range(3):
            vertices[n, i] += np.float32(wrist[i])
            surface[i] += vertices[n, i] / len(vertices)
        far = max(far, float(vertices[n, 2]))

    # The crop: about the mean joint or the visible surface, jittered, sometimes towards the arm.
    half = uniform(state, 108.0, 162.0)
    center = goal.copy()
    if chance(state, 0.4):
        center[:] = surface
        center[2] -= 6.0
    sigma = 14.0
    kind = uniform(state, 0.0, 1.0)
    if kind < 0.35:
        sigma = 7.0
    elif kind > 0.87:
        sigma = 30.0
    slip = abs(normal(state, 0.0, 30.0)) if chance(state, 0.25) else 0.0
    for i in range(3):
        center[i] += min(max(normal(state, 0.0, sigma), -60.0), 60.0) + slip * rotation[i, 0]
    center[2] = max(center[2], 100.0)

    scale = 1.0
    if not whole:
        scale = min(1.0, 1.25 * size / (2 * half * fx / center[2]))
    camera = np.array([fx * scale, fy * scale, (cx + 0.5) * scale - 0.5, (cy + 0.5) * scale - 0.5])
    frame_w, frame_h = int(width * scale), int(height * scale)
    left, top, right, bottom = 0, 0, frame_w, frame_h
    if not whole:
        reach_u, reach_v = half * camera[0] / center[2] + 2, half * camera[1] / center[2] + 2
        u = camera[0] * center[0] / center[2] + camera[2]
        v = camera[1] * center[1] / center[2] + camera[3]
        left, right = max(int(u - reach_u), 0), min(int(u + reach_u) + 1, frame_w)
        top, bottom = max(int(v - reach_v), 0), min(int(v + reach_v) + 1, frame_h)
        left, top = min(left, frame_w - 8), min(top, frame_h - 8)
        right, bottom = max(right, left + 8), max(bottom, top + 8)
    local = np.array([camera[0], camera[1], camera[2] - left, camera[3] - top])
    h, w = bottom - top, right - left
    inverse = np.zeros((h, w), np.float32)
    label = np.zeros((h, w), np.uint8)

    flags = 0
    draw_mesh(vertices, rig.faces, local, inverse, label, HAND, True)
    sleeve = chance(state, chances.sleeve)
    length = uniform(state, 230.0, 300.0) if whole else uniform(state, 200.0, 300.0)
    arm, arm_faces, cloth, cloth_faces, elbow = _forearm(rig, vertices, rotation, state, length, sleeve)
    draw_mesh(arm, arm_faces, local, inverse, label, FOREARM, False)
    if sleeve:
        flags |= 32
        draw_mesh(cloth, cloth_faces, local, inverse, label, FOREARM, False)

    everywhere = np.array([0.0, 0.0, 1.0])
    axes = np.empty((3, 3))
    if chance(state, 0.8 if family == 4 else chances.held):
        points, faces = _held(joints, rotation, state)
        if len(points) > 0:
            flags |= 2
            draw_mesh(points, faces, local, inverse, label, OBJECT, False)
    if chance(state, chances.occluder):
        flags |= 4
        random_rotation(state, axes)
        place = center.copy()
        place[0] += uniform(state, -70.0, 70.0)
        place[1] += uniform(state, -70.0, 70.0)
        place[2] = max(center[2] - uniform(state, 50.0, 200.0), 120.0)
        points, faces = _anything(place, axes, state, 5.0, 28.0)
        draw_mesh(points, faces, local, inverse, label, OBJECT, False)
    if chance(state, chances.table):
        flags |= 1
        plane = np.empty(3)
        offset = _table(vertices, elbow, rotation, state, plane)
        edge = everywhere.copy()
        if chance(state, 0.3):  # the table ends somewhere in the picture
            turn = uniform(state, 0.0, 2 * np.pi)
            edge[0], edge[1] = np.cos(turn), np.sin(turn)
            edge[2] = -(edge[0] * w / 2 + edge[1] * h / 2) + uniform(state, -0.15, 0.5) * max(w, h)
        draw_plane(plane, offset, edge, local, inverse, label, PLANE)
        if chance(state, chances.clutter):
            frame_of(plane, axes)
            depth = plane[0] * center[0] + plane[1] * center[1] + plane[2] * center[2] - offset
            for _ in range(1 + integer(state, 3)):
                a, b = uniform(state, -170.0, 170.0), uniform(state, -170.0, 170.0)
                place = center - (depth - uniform(state, 0.0, 15.0)) * plane + a * axes[:, 0] + b * axes[:, 1]
                big = uniform(state, 10.0, 45.0)
                clear = 1e9
                for j in range(21):
                    clear = min(clear, ((joints[j] - place) ** 2).sum())
                if clear > (1.5 * big + 16.0) ** 2:
                    points, faces = _anything(place, axes, state, 0.4 * big, big)
                    draw_mesh(points, faces, local, inverse, label, OBJECT, False)
    if chance(state, max(chances.body, 0.6) if whole else chances.body):
        flags |= 8
        near = chance(state, 0.5) and not whole
        gap = uniform(state, 8.0, 130.0) if near else uniform(state, 80.0, 400.0)
        radii = np.array(
            [uniform(state, 130.0, 190.0), uniform(state, 230.0, 300.0), uniform(state, 85.0, 130.0)]
        )
        torso = np.array(
            [center[0] + uniform(state, -260.0, 260.0), center[1] + uniform(state, -120.0, 260.0), 0.0]
        )
        torso[2] = far + gap + radii[2]
        # The camera may look at the body from above or from the side.
        roll = uniform(state, -np.pi, np.pi) if chance(state, 0.3) and not whole else normal(state, 0.0, 0.15)
        axes[:] = 0.0
        axes[0, 0], axes[0, 1] = np.cos(roll), -np.sin(roll)
        axes[1, 0], axes[1, 1] = np.sin(roll), np.cos(roll)
        axes[2, 2] = 1.0
        if whole:  # an upper arm, and the torso at its end: a right shoulder is on the left of the picture
            bone = np.array([uniform(state, -0.2, 0.6), uniform(state, -0.8, 0.5), uniform(state, 0.5, 1.2)])
            bone *= uniform(state, 230.0, 300.0) / np.sqrt((bone**2).sum())
            arm_axes = np.empty((3, 3))
            frame_of(bone / np.sqrt((bone**2).sum()), arm_axes)
            ends, thickness = np.empty((4, 3)), np.empty((4, 2))
            for k in range(4):
                ends[k] = elbow + bone * (k / 2.6 - 0.1)
                thickness[k] = 42.0 + 5.0 * k
            points, faces = tube(ends, arm_axes, thickness, 20)
            draw_mesh(points, faces, local, inverse, label, BODY, False)
            torso[0] = elbow[0] + bone[0] + 0.95 * radii[0]
            torso[1] = elbow[1] + bone[1] + 0.65 * radii[1]
            torso[2] = max(elbow[2] + bone[2] + 20.0, far + 40.0 + radii[2])
        points, faces = ellipsoid(torso, axes, radii)
        draw_mesh(points, faces, local, inverse, label, BODY, False)
        head = torso - (radii[1] + uniform(state, 70.0, 110.0)) * axes[:, 1]
        points, faces = ellipsoid(head, axes, np.array([76.0, 105.0, 90.0]) * uniform(state, 0.9, 1.1))
        draw_mesh(points, faces, local, inverse, label, BODY, False)
    if chance(state, chances.second_hand):
        flags |= 16
        random_rotation(state, axes)
        turn, away = uniform(state, 0.0, 2 * np.pi), uniform(state, 110.0, 190.0)
        place = center + away * np.array([np.cos(turn), np.sin(turn), uniform(state, -0.4, 0.4)])
        mirrored = np.empty_like(vertices)
        spin = np.empty((3, 3))
        matmul3(axes, rotation.T.copy(), spin)
        for n in range(len(vertices)):
            x, y, z = vertices[n, 0] - goal[0], vertices[n, 1] - goal[1], vertices[n, 2] - goal[2]
            for i in range(3):  # the mirror image of this hand, turned
                mirrored[n, i] = place[i] - (spin[i, 0] * x + spin[i, 1] * y + spin[i, 2] * z)
        draw_mesh(mirrored, rig.faces, local, inverse, label, OBJECT, False)
    if whole or chance(state, chances.wall):
        tilt = np.array([normal(state, 0.0, 0.2), normal(state, 0.0, 0.2), -1.0])
        tilt /= np.sqrt((tilt**2).sum())
        draw_plane(tilt, -(far + uniform(state, 500.0, 2500.0)), everywhere, local, inverse, label, PLANE)
    window = np.array([left, top, frame_w, frame_h])
    return Scene(
        inverse, label, camera, window, center, half, joints, vertices, angles, rotation, wrist, shape,
        family, sensor, subject, flags,
    )  # fmt: skip


# --- The sensor -----------------------------------------------------------------------------------------


@compiled
def _bell(state: np.ndarray) -> float:
    """A quick bell-shaped number of unit variance: the sum of four 16-bit parts of one draw."""
    x = next_u64(state)
    mask = np.uint64(0xFFFF)
    total = (
        np.int64(x & mask)
        + np.int64((x >> np.uint64(16)) & mask)
        + np.int64((x >> np.uint64(32)) & mask)
        + np.int64(x >> np.uint64(48))
    )
    return (total - 131070.0) * 2.642956e-05


@compiled
def _smear(inverse: np.ndarray, radius: int, tolerance: float, grow: bool) -> np.ndarray:
    """Blur along rows then columns over neighbours whose inverse depth is within `tolerance`.

    With `grow` the nearest surface first spreads by one pixel, as block matching fattens foreground.
    """
    h, w = inverse.shape
    source = inverse
    out = np.empty_like(inverse)
    if grow:
        grown = np.empty_like(inverse)
        for v in range(h):
            for u in range(w):
                best = inverse[v, u]
                best = max(best, inverse[v, max(u - 1, 0)], inverse[v, min(u + 1, w - 1)])
                grown[v, u] = max(best, inverse[max(v - 1, 0), u], inverse[min(v + 1, h - 1), u])
        source = grown
    for turn in range(2):
        for v in range(h):
            for u in range(w):
                own = source[v, u]
                if own == 0:
                    out[v, u] = 0
                    continue
                total, count = np.float32(0.0), 0
                for k in range(-radius, radius + 1):
                    if turn == 0:
                        other = source[v, min(max(u + k, 0), w - 1)]
                    else:
                        other = source[min(max(v + k, 0), h - 1), u]
                    if other > 0 and abs(other - own) < tolerance:
                        total += other
                        count += 1
                out[v, u] = total / count
        if turn == 0:
            source, out = out, np.empty_like(inverse)
    return out


@compiled
def sense(inverse: np.ndarray, sensor: np.ndarray, fx: float, state: np.ndarray) -> np.ndarray:
    """What a sensor (row of `sensor_table`) reads of a clean picture: depth (h, w) mm, 0 = no reading.

    `fx` is the focal length of the picture as drawn. The strength of every effect varies by image.
    """
    h, w = inverse.shape
    depth = np.zeros((h, w), np.float32)
    strength = uniform(state, 0.15, 1.35)
    sigma, sigma2 = sensor[7] * strength, sensor[8] * strength
    step, step2 = sensor[9], sensor[10]
    ragged = sensor[11] * uniform(state, 0.2, 1.4)
    hole = sensor[12] * uniform(state, 0.0, 2.2)
    flying = sensor[13] * uniform(state, 0.0, 2.0)
    shadow = sensor[14] * uniform(state, 0.5, 1.2) if chance(state, 0.7) else 0.0
    if chance(state, 0.5):
        shadow = -shadow
    source = inverse
    if chance(state, sensor[15]):
        middle = inverse[h // 2, w // 2]
        near = middle if middle > 0 else np.float32(1 / 600.0)
        span = uniform(state, 8.0, 70.0) if chance(state, 0.6) else 15.0
        tolerance = float(span * near * near)  # a depth difference of `span` mm at the hand
        source = _smear(inverse, 1 + integer(state, 3), tolerance, chance(state, 0.5))

    # Pixels of whose surface projector or second camera sees nothing: hidden by something nearer beside it.
    hidden = np.zeros((h, w), np.uint8)
    if shadow != 0.0:
        reach = abs(shadow) * fx
        for v in range(h):
            if shadow > 0:
                limit = 1e9
                for u in range(w - 1, -1, -1):
                    place = u - reach * max(source[v, u], 1 / 4000.0)
                    if place >= limit - 0.3:
                        hidden[v, u] = 1
                    else:
                        limit = place
            else:
                limit = -1e9
                for u in range(w):
                    place = u + reach * max(source[v, u], 1 / 4000.0)
                    if place <= limit + 0.3:
                        hidden[v, u] = 1
                    else:
                        limit = place

    # Slow noise over the picture: a lattice of errors, blended between.
    cells = 7
    lattice = np.empty((cells + 1, cells + 1))
    slow = uniform(state, 0.0, 1.6) * sigma
    for i in range(cells + 1):
        for j in range(cells + 1):
            lattice[i, j] = slow * _bell(state)
    grazing = uniform(state, 4.0, 12.0)
    jump = uniform(state, 14.0, 30.0)
    for v in range(h):
        y = v * cells / h
        i = int(y)
        y -= i
        for u in range(w):
            su, sv = u, v
            iz = source[v, u]
            # Inverse depth of the neighbours: an edge or a surface seen at a grazing angle.
            left, right = source[v, max(u - 1, 0)], source[v, min(u + 1, w - 1)]
            above, below = source[max(v - 1, 0), u], source[min(v + 1, h - 1), u]
            low, high = min(left, right, above, below), max(left, right, above, below)
            if high <= 0:
                continue
            if ragged > 0 and max(iz - low, high - iz) > jump * high * high:
                # At edges the reading comes from somewhere near: two triangular offsets from one draw.
                shuffle = next_u64(state)
                a = (shuffle & np.uint64(0xFFFF)) + ((shuffle >> np.uint64(16)) & np.uint64(0xFFFF))
                b = ((shuffle >> np.uint64(32)) & np.uint64(0xFFFF)) + (shuffle >> np.uint64(48))
                su = min(max(u + int(np.rint((np.float64(a) / 65536.0 - 1.0) * 1.6 * ragged)), 0), w - 1)
                sv = min(max(v + int(np.rint((np.float64(b) / 65536.0 - 1.0) * 1.6 * ragged)), 0), h - 1)
            iz = source[sv, su]
            if iz <= 0 or hidden[sv, su]:
                continue
            z = 1.0 / iz
            change = max(iz - low, high - iz) * z * z
            if change > jump:
                x = uniform(state, 0.0, 1.0)
                if x < hole:
                    continue
                if x < hole + flying:
                    other = low if iz - low > high - iz else high
                    if other > 0 and abs(1.0 / other - z) < 250.0:
                        z += uniform(state, 0.1, 0.9) * (1.0 / other - z)
            elif change > grazing * z / fx and chance(state, 0.5 * hole):
                continue
            x = u * cells / w
            j = int(x)
            x -= j
            drift = (1 - y) * ((1 - x) * lattice[i, j] + x * lattice[i, j + 1])
            drift += y * ((1 - x) * lattice[i + 1, j] + x * lattice[i + 1, j + 1])
            square = 1e-6 * z * z
            z += drift + (sigma + sigma2 * square) * _bell(state)
            quantum = max(step, step2 * square)
            depth[v, u] = np.rint(z / quantum) * quantum

    # Whole patches without reading, and single pixels.
    patches = integer(state, 4) if chance(state, 0.25) else 0
    for _ in range(patches):
        cu, cv = uniform(state, 0.1, 0.9) * w, uniform(state, 0.1, 0.9) * h
        ru, rv = uniform(state, 1.0, 0.06 * w + 1), uniform(state, 1.0, 0.06 * h + 1)
        for v in range(max(int(cv - rv), 0), min(int(cv + rv) + 1, h)):
            for u in range(max(int(cu - ru), 0), min(int(cu + ru) + 1, w)):
                if ((u - cu) / ru) ** 2 + ((v - cv) / rv) ** 2 < uniform(state, 0.5, 1.0):
                    depth[v, u] = 0
    if chance(state, 0.3):
        for _ in range(integer(state, max(h * w // 150, 1) + 1)):
            depth[integer(state, h), integer(state, w)] = 0
    return depth


@compiled
def clean(inverse: np.ndarray) -> np.ndarray:
    """Depth in mm of a clean picture, 0 where nothing is."""
    h, w = inverse.shape
    depth = np.zeros((h, w), np.float32)
    for v in range(h):
        for u in range(w):
            if inverse[v, u] > 0:
                depth[v, u] = 1.0 / inverse[v, u]
    return depth
