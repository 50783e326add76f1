"""What stands before a colour camera, the light on it, and what the camera makes of that.

The hands, subjects and poses are those of the depth images (`hands`, `scene`); here they get skin, cloth,
things, a body and a background, are lit, and go through lens, sensor and processing.
"""

from typing import NamedTuple

import numpy as np

from handgraph.synthetic.clutter import random_colour
from handgraph.synthetic.hands import (
    Rig,
    chance,
    compiled,
    draw,
    integer,
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
from handgraph.synthetic.light import (
    BLOOD,
    BLUE_,
    COLUMNS,
    FLAT,
    GLOSS,
    GREEN_,
    HEAD,
    KIND,
    MELANIN,
    OFFSET,
    OWNER,
    PALM,
    PATTERN,
    PLANE_HIT,
    POLISH,
    RED2,
    RED_,
    RELIEF,
    SCALE,
    SHARP,
    SKIN,
    STYLE,
    TEXTURE,
    THINGS,
    WRINKLE,
    World,
    add_mesh,
    draw_faces,
    draw_ground,
    new_surface,
    new_world,
    shade,
    shadow_map,
    surfaces,
    turn_world,
)
from handgraph.synthetic.render import ellipsoid, frame_of, grid_faces, tube, turned_about
from handgraph.synthetic.scene import _anything, _held, _table
from handgraph.synthetic.skin import Skin

# Frames of photographs and webcams; hands fill a small or a large part of them.
FRAMES = np.array(
    [[640, 480], [1280, 720], [1920, 1080], [480, 640], [720, 1280], [1024, 768], [640, 640], [320, 240]],
    float,
)
FRAME_SHARES = np.array([0.30, 0.18, 0.10, 0.10, 0.08, 0.10, 0.10, 0.04])
SHADOW_PX = 144

# A torso from the neck down: height, half width, half depth, mm.
_DOWN = np.array([-60.0, 0.0, 25.0, 55.0, 110.0, 220.0, 380.0, 560.0])
_BROAD = np.array([55.0, 62.0, 130.0, 190.0, 205.0, 185.0, 165.0, 180.0])
_DEEP = np.array([55.0, 60.0, 70.0, 90.0, 105.0, 115.0, 110.0, 120.0])


class Chances(NamedTuple):
    """How often each thing is in a colour scene."""

    table: float = 0.22
    held: float = 0.16
    """Something held, where the hand has room for it (in the grasp family two times in three)."""
    occluder: float = 0.08
    clutter: float = 0.5
    """Things lying on the table, where there is one."""
    body: float = 0.35
    second_hand: float = 0.12
    sleeve: float = 0.45
    empty: float = 0.1
    """Whole frames without any hand."""


class Posed(NamedTuple):
    """One posed hand, camera frame, mm; a `left` one is drawn as the mirror image in x of what is here."""

    vertices: np.ndarray  # (V, 3) float32, of the right hand
    joints: np.ndarray  # (21, 3), of the right hand
    angles: np.ndarray  # (15, 3)
    rotation: np.ndarray  # (3, 3)
    wrist: np.ndarray  # (3,)
    shape: np.ndarray  # (10,)
    family: int
    subject: int
    left: bool


class Cast(NamedTuple):
    """Who is in the picture and where the camera is."""

    first: Posed
    second: Posed
    hands: int
    camera: np.ndarray  # (6,) fx, fy, cx, cy, width, height of the frame
    box: np.ndarray  # (4,) x, y, w, h px: the crop's window
    turn: float  # rad, the crop's rotation


@compiled
def _pose(
    rig: Rig,
    families: np.ndarray,
    seed: int,
    split: int,
    subject: int,
    state: np.ndarray,
    share: float,
    left: bool,
) -> Posed:
    shape = subject_shape(seed, split, subject)
    rest = rest_points(rig, shape)
    angles = np.empty((15, 3))
    family = sample_pose(rig, rest, state, families, angles)
    rotation = np.empty((3, 3))
    sample_view(state, share, rotation)
    vertices = np.empty((len(rig.template), 3), np.float32)
    joints = np.empty((21, 3))
    wrist = np.zeros(3)
    pose_hand(rig, shape, rest, angles, rotation, wrist, vertices, joints)
    return Posed(vertices, joints, angles, rotation, wrist, shape, family, subject, left)


@compiled
def _move_to(hand: Posed, goal: np.ndarray) -> None:
    """Shift a hand so that its mean joint lies at `goal` (of the mirrored hand, for a left one)."""
    flip = -1.0 if hand.left else 1.0
    shift = np.empty(3)
    for i in range(3):
        mean = 0.0
        for j in range(21):
            mean += hand.joints[j, i] / 21
        shift[i] = (flip if i == 0 else 1.0) * goal[i] - mean
    for i in range(3):
        hand.wrist[i] += shift[i]
        for j in range(21):
            hand.joints[j, i] += shift[i]
        for v in range(len(hand.vertices)):
            hand.vertices[v, i] += np.float32(shift[i])


@compiled
def cast_of(
    rig: Rig,
    families: np.ndarray,
    chances: Chances,
    subjects: int,
    seed: int,
    split: int,
    index: int,
    whole: bool,
) -> Cast:
    """Draw the hands, the camera and the crop of picture `index`; `whole` frames have up to two, or none."""
    state = seed_stream(seed, split, index, 20 if whole else 10)
    subject = integer(state, subjects)
    hands = 1
    if whole:
        hands = 0 if chance(state, chances.empty) else 1 + int(chance(state, 0.35))
    elif chance(state, chances.second_hand):
        hands = 2
    left = whole and chance(state, 0.5)
    share = 0.3 if whole else 0.42
    first = _pose(rig, families, seed, split, subject, state, share, left)
    same = chance(state, 0.85)
    other_side = not left if chance(state, 0.85) else left
    other = subject if same else integer(state, subjects)
    second = first
    if hands > 1:
        second = _pose(rig, families, seed, split, other, state, share, other_side)

    kind = draw(state, FRAME_SHARES)
    width, height = FRAMES[kind, 0], FRAMES[kind, 1]
    if whole:
        width, height = 640.0, 480.0
    # 50 to 80 degrees across the longer side, sometimes a longer lens.
    fx = max(width, height) * (uniform(state, 0.60, 1.1) if chance(state, 0.85) else uniform(state, 1.1, 2.2))
    cx, cy = ((width - 1) / 2 + normal(state, 0.0, 3.0), (height - 1) / 2 + normal(state, 0.0, 3.0))
    short = min(width, height)
    # The hand takes a share of the frame's shorter side; 150 mm is about its extent.
    fill = np.exp(uniform(state, np.log(0.14 if whole else 0.22), np.log(0.75)))
    z = min(max(150.0 * fx / (fill * short), 180.0), 1600.0)
    extent = 150.0 * fx / z
    tight = chance(state, 0.2)
    margin_u = min((0.25 if tight else 0.7) * extent, 0.48 * width)
    margin_v = min((0.25 if tight else 0.7) * extent, 0.48 * height)
    u, v = (uniform(state, margin_u, width - margin_u), uniform(state, margin_v, height - margin_v))
    goal = np.array([(u - cx) * z / fx, (v - cy) * z / fx, z])
    _move_to(first, goal)
    if whole:
        # Two hands stand side by side as often as anywhere.
        away, turn = uniform(state, 110.0, 420.0), uniform(state, -0.7, 0.7)
        side = 1.0 if u < width / 2 else -1.0
        goal = goal + np.array([side * away * np.cos(turn), away * np.sin(turn), normal(state, 0.0, 60.0)])
    else:
        away, turn = uniform(state, 70.0, 210.0), uniform(state, 0.0, 2 * np.pi)
        goal = goal + np.array([away * np.cos(turn), away * np.sin(turn), normal(state, 0.0, 50.0)])
    goal[2] = max(goal[2], 200.0)
    if hands > 1:
        _move_to(second, goal)

    # The crop: about the box of the keypoints, loosely.
    low, high = np.full(2, 1e9), np.full(2, -1e9)
    flip = -1.0 if first.left else 1.0
    for j in range(21):
        depth = max(first.joints[j, 2], 60.0)
        a = fx * flip * first.joints[j, 0] / depth + cx
        b = fx * first.joints[j, 1] / depth + cy
        low[0], high[0] = min(low[0], a), max(high[0], a)
        low[1], high[1] = min(low[1], b), max(high[1], b)
    size = max(high[0] - low[0], high[1] - low[1], 60.0 * fx / z)
    room = 1.0 + 1.2 * 0.5 * (uniform(state, 0.0, 1.0) + uniform(state, 0.0, 1.0)) ** 1.2
    slip = 0.07
    if chance(state, 0.08):  # fingers are cut off
        room, slip = uniform(state, 0.75, 1.05), 0.16
    side = size * room
    center = 0.5 * (low + high)
    for i in range(2):
        center[i] += min(max(normal(state, 0.0, slip), -0.3), 0.3) * side
    roll = 0.0
    kind = uniform(state, 0.0, 1.0)
    if kind < 0.3:
        roll = uniform(state, -np.pi, np.pi)
    elif kind < 0.85:
        roll = normal(state, 0.0, 0.25)
    box = np.array([center[0] - (side - 1) / 2, center[1] - (side - 1) / 2, side, side])
    camera = np.array([fx, fx, cx, cy, width, height])
    return Cast(first, second, hands, camera, box, roll)


@compiled
def _skin_row(state: np.ndarray, owner: int) -> np.ndarray:
    """The skin of one person: pigment from hardly any to a lot, blood, shine, age."""
    row = np.zeros(COLUMNS, np.float32)
    row[KIND] = SKIN
    kind = uniform(state, 0.0, 1.0)
    if kind < 0.45:
        row[MELANIN] = uniform(state, 0.03, 0.4)
    elif kind < 0.8:
        row[MELANIN] = uniform(state, 0.3, 1.0)
    else:
        row[MELANIN] = uniform(state, 0.9, 2.1)
    row[BLOOD] = min(max(normal(state, 0.62, 0.22), 0.15), 1.3)
    row[OFFSET] = uniform(state, 0.0, 60.0)
    row[PALM] = min(0.25 + 0.3 * row[MELANIN], 0.72) * uniform(state, 0.7, 1.1)
    row[WRINKLE] = uniform(state, 0.25, 1.2)
    row[RELIEF] = uniform(state, 0.3, 1.4)
    row[GLOSS], row[SHARP] = uniform(state, 0.012, 0.05), uniform(state, 7.0, 20.0)
    if chance(state, 0.2):  # wet or oily
        row[GLOSS], row[SHARP] = uniform(state, 0.03, 0.08), uniform(state, 25.0, 70.0)
    if chance(state, 0.08):
        row[POLISH] = 1.0
        row[RED_], row[GREEN_], row[BLUE_] = (
            uniform(state, 0.05, 0.8),
            uniform(state, 0.0, 0.3),
            uniform(state, 0.0, 0.4),
        )
    row[OWNER] = owner
    return row


@compiled
def _cloth_row(state: np.ndarray, textures: int, owner: int) -> np.ndarray:
    """Cloth, paint, plastic, metal, print: anything that is not skin."""
    row = np.zeros(COLUMNS, np.float32)
    colour = np.empty(3)
    random_colour(state, colour)
    for c in range(3):
        row[RED_ + c] = colour[c] ** 2.2 * 0.9 + 0.01
    random_colour(state, colour)
    for c in range(3):
        row[RED2 + c] = colour[c] ** 2.2 * 0.9 + 0.01
    if chance(state, 0.4):
        row[KIND] = TEXTURE
        row[STYLE], row[SCALE] = (integer(state, textures), np.exp(uniform(state, 3.6, 6.2)))
        for c in range(3):
            row[RED_ + c] = 0.25 + 0.75 * row[RED_ + c]
    else:
        row[KIND] = PATTERN
        row[STYLE] = 0 if chance(state, 0.5) else 1 + integer(state, 4)
        row[SCALE] = np.exp(uniform(state, 1.0, 3.6))
    row[GLOSS], row[SHARP] = 0.0, 8.0
    if owner == THINGS and chance(state, 0.6):
        row[GLOSS], row[SHARP] = uniform(state, 0.01, 0.12), uniform(state, 10.0, 90.0)
    row[RELIEF] = uniform(state, 0.5, 4.0) if owner == THINGS + 1 else 0.0
    row[OWNER] = owner
    return row


@compiled
def _add_thing(
    world: World,
    points: np.ndarray,
    faces: np.ndarray,
    state: np.ndarray,
    textures: int,
    owner: int,
    flat: bool,
) -> None:
    row = _cloth_row(state, textures, owner)
    row[FLAT] = 1.0 if flat else 0.0
    spin = np.empty((3, 3))
    random_rotation(state, spin)
    local = np.empty((len(points), 3))
    center = np.zeros(3)
    for i in range(len(points)):
        center += points[i] / len(points)
    for i in range(len(points)):
        for c in range(3):
            local[i, c] = 0.0
            for k in range(3):
                local[i, c] += spin[c, k] * (points[i, k] - center[k])
    add_mesh(world, points, local, faces, row)


@compiled
def _arm(
    rig: Rig, order: np.ndarray, hand: Posed, state: np.ndarray, length: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The forearm as rings of the hand's own open edge, bent at the wrist, and where they rest.

    Returns points and rest positions (rings, R, 3) and the rings' centres (rings, 3). The first ring is the
    hand's edge itself.
    """
    around, rings = len(order), 12
    center, back = np.zeros(3), hand.rotation[:, 0].copy()
    up, side = hand.rotation[:, 1].copy(), hand.rotation[:, 2].copy()
    for v in order:
        for i in range(3):
            center[i] += hand.vertices[v, i] / around
    flat = np.empty((around, 3))
    thick, wide = 1.0, 1.0
    for j in range(around):
        for k in range(3):
            flat[j, k] = 0.0
            for i in range(3):
                flat[j, k] += hand.rotation[i, k] * (hand.vertices[order[j], i] - center[i])
        thick, wide = max(thick, abs(flat[j, 1])), max(wide, abs(flat[j, 2]))
    flex = min(max(normal(state, 0.0, 0.42), -1.1), 1.1)
    lean = min(max(normal(state, 0.0, 0.17), -0.35), 0.45)
    swell_y, swell_z = uniform(state, 1.25, 1.9), uniform(state, 1.05, 1.55)
    rest_center = np.zeros(3)
    for i in range(3):
        rest_center[i] = rig.joints[0, i]
        for k in range(3):
            rest_center[i] += hand.rotation[k, i] * (center[k] - hand.wrist[k])
    points, rest = np.empty((rings, around, 3)), np.empty((rings, around, 3))
    centers = np.empty((rings, 3))
    place, before = center.copy(), 0.0
    for n in range(rings):
        along = 0.0 if n == 0 else (7.0 * n if n < 6 else 35.0 + (length - 35.0) * (n - 5) / (rings - 6))
        # The bend is spread over the first 35 mm, so that its inside does not fold.
        share = min((along + before) / 70.0, 1.0)
        axis = turned_about(side, flex * share, back)
        axis = turned_about(up, lean * share, axis)
        place = place + (along - before) * axis
        before = along
        share = min(along / 35.0, 1.0)
        high = turned_about(side, flex * share, up)
        ring_side = turned_about(up, lean * share, side)
        t = min(along / 170.0, 1.0)
        t = t * t * (3 - 2 * t)
        round_ = min(along / 60.0, 1.0)
        for j in range(around):
            # From the edge's own outline to an ellipse.
            turn = np.arctan2(flat[j, 2] / wide, flat[j, 1] / thick)
            y = (1 - round_) * flat[j, 1] + round_ * thick * np.cos(turn)
            z = (1 - round_) * flat[j, 2] + round_ * wide * np.sin(turn)
            y, z = y * (1 + (swell_y - 1) * t), z * (1 + (swell_z - 1) * t)
            x = flat[j, 0] * (1 - round_)
            for i in range(3):
                points[n, j, i] = place[i] + x * axis[i] + y * high[i] + z * ring_side[i]
            rest[n, j, 0] = rest_center[0] + along + x
            rest[n, j, 1] = rest_center[1] + y
            rest[n, j, 2] = rest_center[2] + z
        centers[n] = place
    return points, rest, centers


@compiled
def _add_hand(
    world: World, rig: Rig, hand_faces: np.ndarray, order: np.ndarray, hand: Posed, skin: np.ndarray,
    state: np.ndarray, chances: Chances,
    textures: int, owner: int, whole: bool,
) -> np.ndarray:  # fmt: skip
    """The hand, its forearm and sleeve; returns the elbow. Left hands are mirrored here."""
    start = world.count[0]
    row = skin.copy()
    row[OWNER] = owner
    add_mesh(world, hand.vertices, rig.template, hand_faces, row)
    arm_start = world.count[0]
    # Long enough to leave nearly every picture: there is no upper arm.
    length = uniform(state, 450.0, 700.0) if whole else uniform(state, 280.0, 420.0)
    points, rest, centers = _arm(rig, order, hand, state, length)
    rings, around = points.shape[0], points.shape[1]
    row = skin.copy()
    row[OWNER] = owner + 1
    add_mesh(world, points.reshape(-1, 3), rest.reshape(-1, 3), grid_faces(rings, around), row)
    for j in range(around):  # the smooth normals of hand and forearm are one along their common edge
        k = world.count[3]
        world.welds[k, 0], world.welds[k, 1] = start + order[j], arm_start + j
        world.count[3] += 1
    elbow = centers[rings - 1].copy()
    if chance(state, chances.sleeve):
        first = 2 + integer(state, rings - 4)
        cloth = points[first:].copy()
        loose, slope = uniform(state, 1.05, 1.25), uniform(state, 0.0, 0.2)
        for n in range(rings - first):
            fold = loose + slope * n / (rings - first) + normal(state, 0.0, 0.03)
            for j in range(around):
                own = fold + 0.05 * np.sin(3.0 * j + 1.7 * n) * np.sin(2.0 * n)
                for i in range(3):
                    cloth[n, j, i] = centers[first + n, i] + own * (cloth[n, j, i] - centers[first + n, i])
        _add_thing(
            world, cloth.reshape(-1, 3), grid_faces(rings - first, around), state, textures, THINGS + 1, False
        )
    if chance(state, 0.08):  # a watch or bracelet
        n = 3 + integer(state, 4)
        half = uniform(state, 1.5, 6.0)
        band = np.empty((4, around, 3))
        axis = centers[n + 1] - centers[n]
        axis /= np.sqrt((axis**2).sum())
        for k in range(4):
            grow = 1.0 if k == 0 or k == 3 else 1.07
            for j in range(around):
                for i in range(3):
                    out = points[n, j, i] - centers[n, i]
                    band[k, j, i] = centers[n, i] + grow * out + (half if k > 1 else -half) * axis[i]
        _add_thing(world, band.reshape(-1, 3), grid_faces(4, around), state, textures, THINGS, False)
    if hand.left:
        for i in range(start, world.count[0]):
            world.points[i, 0] = -world.points[i, 0]
        elbow[0] = -elbow[0]
    return elbow


@compiled
def _lights(state: np.ndarray, up: np.ndarray, lights: np.ndarray, ambient: np.ndarray) -> int:
    """One to three lights and the ambient field; `up` is the way up in the picture. Returns how many."""
    number = 1 + draw(state, np.array([0.4, 0.38, 0.22]))
    overcast = chance(state, 0.3)
    warm = normal(state, 0.0, 0.12)
    for k in range(number):
        direction = np.empty(3)
        for i in range(3):
            direction[i] = normal(state, 0.0, 1.0) + 0.9 * up[i]
        direction[2] -= 0.6
        direction /= np.sqrt((direction**2).sum())
        strength = np.exp(normal(state, 0.1, 0.5)) * (1.0 if k == 0 else 0.5)
        if overcast:
            strength *= 0.35
        tone = warm + normal(state, 0.0, 0.09)
        vivid = 0.25 if chance(state, 0.06) else 0.03
        for i in range(3):
            lights[k, i] = direction[i]
            lights[k, 3 + i] = strength * np.exp(tone * (1 - i) + normal(state, 0.0, vivid))
        lights[k, 6] = np.exp(uniform(state, -1.2, 1.8))
        lights[k, 7] = uniform(state, 0.6, 1.0) if k < 2 else 0.0
    level = np.exp(normal(state, -0.75, 0.45)) * (1.6 if overcast else 1.0)
    tone = warm - 0.3 * warm + normal(state, 0.0, 0.08)
    sky, ground = uniform(state, 0.0, 0.5), normal(state, 0.0, 0.1)
    sideways = normal(state, 0.0, 0.25)
    for c in range(3):
        ambient[0, c] = level * np.exp(tone * (1 - c))
        for i in range(3):
            ambient[1 + i, c] = level * up[i] * (sky + ground * (1 - c))
        ambient[1, c] += level * sideways
        ambient[3, c] -= level * uniform(state, 0.0, 0.3)
    return number


class Stage(NamedTuple):
    """Everything that stands before the camera, in the picture's frame, and the light on it."""

    world: World
    plane: np.ndarray  # (3,) the table's unit normal
    offset: float  # of the table, mm; 0 where there is none
    edge: np.ndarray  # (3,) the table is where edge · (u / w, v / h, 1) is not negative
    ground: np.ndarray  # (COLUMNS,) the table's material
    lights: np.ndarray  # (L, 8) float32
    ambient: np.ndarray  # (4, 3) float32
    center: np.ndarray  # (3,) the middle of the hands
    tint: np.ndarray  # (3,) float32, how brightly the background is lit
    occlusion: float
    wrap: float


@compiled
def build(
    rig: Rig,
    hand_faces: np.ndarray,
    order: np.ndarray,
    cast: Cast,
    chances: Chances,
    textures: int,
    turn: np.ndarray,
    whole: bool,
    seed: int,
    split: int,
    index: int,
) -> Stage:
    """Set the scene of picture `index` in its frame, to which `turn` (3, 3) leads from the camera's."""
    state = seed_stream(seed, split, index, 21 if whole else 11)
    plane, ground = np.zeros(3), np.zeros(COLUMNS, np.float32)
    world = new_world(8000, 15000)
    skin = _skin_row(state, 1)
    offset = 0.0
    hand = cast.first
    family = hand.family
    center = np.zeros(3)
    for j in range(21):
        center += hand.joints[j] / 21
    if hand.left:
        center[0] = -center[0]
    axes = np.empty((3, 3))
    elbow = center.copy()
    if cast.hands > 0:
        elbow = _add_hand(world, rig, hand_faces, order, hand, skin, state, chances, textures, 1, whole)
        if chance(state, 0.65 if family == 4 else chances.held):
            points, faces = _held(hand.joints, hand.rotation, state)
            if len(points) > 0:
                if hand.left:
                    points[:, 0] = -points[:, 0]
                _add_thing(world, points, faces, state, textures, THINGS, len(points) == 16)
    if cast.hands > 1:
        other = skin.copy()
        if cast.second.subject != hand.subject:
            other = _skin_row(state, 3)
        _add_hand(world, rig, hand_faces, order, cast.second, other, state, chances, textures, 3, whole)
    if chance(state, chances.occluder):
        random_rotation(state, axes)
        place = center.copy()
        place[0] += uniform(state, -80.0, 80.0)
        place[1] += uniform(state, -80.0, 80.0)
        place[2] = max(center[2] - uniform(state, 40.0, 150.0), 130.0)
        points, faces = _anything(place, axes, state, 4.0, 22.0)
        _add_thing(world, points, faces, state, textures, THINGS, len(points) == 16)
    if chance(state, chances.table):
        offset = _table(cast.first.vertices, elbow, hand.rotation, state, plane) if not hand.left else 0.0
        if hand.left:
            tilt, way = uniform(state, 0.2, 1.2), normal(state, -np.pi / 2, 0.4)
            plane[0], plane[1], plane[2] = (
                np.sin(tilt) * np.cos(way),
                np.sin(tilt) * np.sin(way),
                -np.cos(tilt),
            )
            offset = 1e9
            for v in range(0, world.count[0], 3):
                offset = min(
                    offset,
                    plane[0] * world.points[v, 0]
                    + plane[1] * world.points[v, 1]
                    + plane[2] * world.points[v, 2],
                )
            offset = min(offset - uniform(state, 0.0, 40.0), -120.0)
        ground[:] = _cloth_row(state, textures, THINGS + 2)
        ground[RELIEF] = 0.0
        if chance(state, chances.clutter):
            frame_of(plane, axes)
            depth = plane[0] * center[0] + plane[1] * center[1] + plane[2] * center[2] - offset
            for _ in range(1 + integer(state, 4)):
                a, b = uniform(state, -200.0, 200.0), uniform(state, -200.0, 200.0)
                place = center - (depth - uniform(state, 0.0, 15.0)) * plane + a * axes[:, 0] + b * axes[:, 1]
                big = uniform(state, 10.0, 50.0)
                clear = 1e9
                flip = -1.0 if hand.left else 1.0
                for j in range(21):
                    joint = np.array([flip * hand.joints[j, 0], hand.joints[j, 1], hand.joints[j, 2]])
                    clear = min(clear, ((joint - place) ** 2).sum())
                if clear > (1.5 * big + 16.0) ** 2 and place[2] > 150.0:
                    points, faces = _anything(place, axes, state, 0.4 * big, big)
                    _add_thing(world, points, faces, state, textures, THINGS, len(points) == 16)
    if chance(state, 0.5 if whole else chances.body):
        spread = 320.0 if whole else 240.0
        neck = np.array(
            [center[0] + normal(state, 0.0, spread), center[1] + normal(state, -80.0, 170.0), 0.0]
        )
        neck[2] = center[2] + uniform(state, 180.0, 560.0)
        roll = normal(state, 0.0, 0.2)
        axes[:] = 0.0
        axes[0, 0], axes[0, 1] = np.cos(roll), -np.sin(roll)
        axes[1, 0], axes[1, 1] = np.sin(roll), np.cos(roll)
        axes[2, 2] = 1.0
        broad, deep = uniform(state, 0.85, 1.15), uniform(state, 0.85, 1.2)
        centers, radii, ringed = np.empty((8, 3)), np.empty((8, 2)), axes.copy()
        ringed[:, 1], ringed[:, 2] = axes[:, 2], axes[:, 1]
        for k in range(8):  # neck, shoulders, chest, waist
            centers[k] = neck + _DOWN[k] * axes[:, 1]
            radii[k, 0], radii[k, 1] = broad * _BROAD[k], deep * _DEEP[k]
        points, faces = tube(centers, ringed, radii, 24)
        _add_thing(world, points, faces, state, textures, THINGS + 1, False)
        head = (
            neck - uniform(state, 95.0, 125.0) * axes[:, 1] - np.array([0.0, 0.0, uniform(state, 0.0, 50.0)])
        )
        size = uniform(state, 0.9, 1.1)
        points, faces = ellipsoid(head, axes, np.array([76.0, 105.0, 90.0]) * size)
        row = skin.copy() if chance(state, 0.7) else _skin_row(state, 20)
        row[KIND], row[OWNER], row[POLISH] = HEAD, 20, 0.0
        row[SCALE] = uniform(state, -75.0, -25.0)
        dark = np.exp(uniform(state, -4.0, -1.0))
        row[RED_], row[GREEN_], row[BLUE_] = (
            dark,
            dark * uniform(state, 0.6, 1.0),
            dark * uniform(state, 0.3, 1.0),
        )
        local = np.empty_like(points)
        for i in range(len(points)):
            local[i] = points[i] - head
        add_mesh(world, points, local, faces, row)
    turn_world(world, turn)
    edge, tilted, middle = np.array([0.0, 0.0, 1.0]), np.zeros(3), np.zeros(3)
    if offset != 0.0 and chance(state, 0.4):  # the table ends somewhere in the picture
        around = uniform(state, 0.0, 2 * np.pi)
        edge[0], edge[1] = np.cos(around), np.sin(around)
        edge[2] = -0.5 * (edge[0] + edge[1]) + uniform(state, -0.1, 0.5)
    if cast.hands > 1 and whole:
        flip = -1.0 if cast.second.left else 1.0
        for j in range(21):
            center[0] += (flip * cast.second.joints[j, 0] - center[0]) / 42
            center[1] += (cast.second.joints[j, 1] - center[1]) / 42
            center[2] += (cast.second.joints[j, 2] - center[2]) / 42
    for i in range(3):
        for k in range(3):
            tilted[i] += turn[i, k] * plane[k]
            middle[i] += turn[i, k] * center[k]
    up = np.array([-turn[0, 1], -turn[1, 1], -turn[2, 1]])
    lights, ambient = np.zeros((3, 8), np.float32), np.zeros((4, 3), np.float32)
    number = _lights(state, up, lights, ambient)
    # The background's own light: like the room's, not the same.
    level = 0.0
    for c in range(3):
        level += ambient[0, c] / 3
        for k in range(number):
            level += 0.25 * lights[k, 3 + c] / 3
    level *= np.exp(normal(state, -0.1, 0.45))
    tint = np.empty(3, np.float32)
    for c in range(3):
        tint[c] = level * np.exp(normal(state, 0.0, 0.05))
    return Stage(
        world, tilted, offset, edge, ground, lights[:number].copy(), ambient, middle, tint,
        uniform(state, 0.5, 1.3), uniform(state, 0.1, 0.45),
    )  # fmt: skip


class Picture(NamedTuple):
    """A lit picture before the camera's own errors."""

    light: np.ndarray  # (h, w, 3) float32, linear
    inverse: np.ndarray  # (h, w) float32, 1/mm, 0 where only background is
    owner: np.ndarray  # (h, w) uint8, see `light.THINGS`


def seen(stage: Stage, camera: np.ndarray, height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    """Inverse depth (h, w) float32 and owner (h, w) uint8 of every pixel, without any light."""
    inverse, hit, _ = _drawn(stage, camera, height, width)
    owner = np.zeros((height, width), np.uint8)
    world = stage.world
    owners = world.materials[world.material[: world.count[1]], OWNER].astype(np.uint8)
    owner[hit >= 0] = owners[hit[hit >= 0]]
    owner[hit == PLANE_HIT] = THINGS + 2
    return inverse, owner


def _drawn(
    stage: Stage, camera: np.ndarray, height: int, width: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    inverse = np.zeros((height, width), np.float32)
    hit = np.full((height, width), -1, np.int32)
    projected = draw_faces(stage.world, camera, inverse, hit)
    if stage.offset != 0.0:
        edge = stage.edge / (width, height, 1.0)
        draw_ground(stage.plane, stage.offset, edge, camera, inverse, hit)
    return inverse, hit, projected


def render(
    stage: Stage, skin: Skin, pool: np.ndarray, background: np.ndarray, camera: np.ndarray, whole: bool
) -> Picture:
    """Draw and light a scene over a background (h, w, 3) float32 of display values 0-1.

    `camera` is (fx, fy, cx, cy) of the picture in pixels.
    """
    h, w = background.shape[:2]
    inverse, hit, projected = _drawn(stage, camera, h, w)
    surface = new_surface(h, w)
    axes = np.zeros((3, 3))
    if stage.offset != 0.0:
        frame_of(stage.plane, axes)
    surfaces(
        stage.world, projected, camera, inverse, hit, skin, pool, stage.ground, stage.plane, axes, surface
    )
    shaded = min(len(stage.lights), 2)
    reach, side = (210.0, SHADOW_PX) if not whole else (340.0, 256)
    shadows, shadow_axes = (np.empty((shaded, side, side), np.float32), np.empty((shaded, 3, 3)))
    for k in range(shaded):
        frame_of(-stage.lights[k, :3].astype(np.float64), axes)
        shadow_axes[k] = axes.T
        shadow_map(stage.world, stage.center, shadow_axes[k], reach, shadows[k])
    out = np.empty((h, w, 3), np.float32)
    shade(
        camera, inverse, hit, surface, stage.lights, shadows, shadow_axes, stage.center, reach,
        stage.ambient, stage.occlusion, stage.wrap, background, stage.tint, out,
    )  # fmt: skip
    return Picture(out, inverse, surface.owner)


# --- The camera -----------------------------------------------------------------------------------------


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
    return np.float32((total - 131070.0) * 2.642956e-05)


@compiled
def exposure_of(light: np.ndarray, owner: np.ndarray, wish: float) -> float:
    """The gain that brings the mean light, half the hands', half the picture's, to `wish`."""
    h, w = owner.shape
    every, hand, count = 0.0, 0.0, 0
    for v in range(0, h, 2):
        for u in range(0, w, 2):
            value = 0.3 * light[v, u, 0] + 0.59 * light[v, u, 1] + 0.11 * light[v, u, 2]
            every += min(value, 3.0)
            if 0 < owner[v, u] < 5:
                hand += value
                count += 1
    every /= ((h + 1) // 2) * ((w + 1) // 2)
    hand = hand / count if count > 0 else every
    return wish / max(0.5 * every + 0.5 * hand, 1e-3)


@compiled
def develop(light: np.ndarray, gain: float, state: np.ndarray, out: np.ndarray) -> None:
    """Linear light (h, w, 3) to display bytes: white balance, vignetting, sensor noise, tone, saturation."""
    h, w = light.shape[0], light.shape[1]
    warm, green = normal(state, 0.0, 0.07), normal(state, 0.0, 0.025)
    balance = np.empty(3, np.float32)
    balance[0], balance[1], balance[2] = np.exp(warm), np.exp(green), np.exp(-warm)
    # Shot noise grows with the root of the light, read noise does not; dim rooms are noisy.
    strength = np.exp(uniform(state, -6.0, -3.0)) if chance(state, 0.85) else 0.0
    shot, read = (np.float32(strength * 0.9), np.float32(strength * uniform(state, 0.05, 0.35)))
    colour_noise = np.float32(uniform(state, 0.2, 1.0))
    saturation = np.float32(min(max(normal(state, 1.0, 0.2), 0.0), 1.8))
    if chance(state, 0.03):
        saturation = np.float32(0.0)
    contrast = np.float32(uniform(state, 0.0, 0.55))
    black = np.float32(max(normal(state, 0.0, 0.02), 0.0))
    vignette = np.float32(uniform(state, 0.0, 0.5)) if chance(state, 0.3) else np.float32(0.0)
    mu, mv = (np.float32(uniform(state, 0.2, 0.8) * w), np.float32(uniform(state, 0.2, 0.8) * h))
    table = np.empty(4097, np.float32)
    for i in range(4097):
        x = (i / 4096.0) ** 2 * 2.0
        x = x if x < 0.7 else 0.7 + 0.3 * (1 - np.exp(-(x - 0.7) / 0.3))  # highlights roll off
        y = 12.92 * x if x < 0.0031308 else 1.055 * x ** (1 / 2.4) - 0.055
        s = y * y * (3 - 2 * y)
        table[i] = black + (1 - black) * (y + contrast * (s - y))
    one = np.float32(1.0)
    far = np.float32(1.0 / (0.25 * (w * w + h * h)))
    value = np.empty(3, np.float32)
    for v in range(h):
        for u in range(w):
            fade = one
            if vignette > 0:
                fade = one / (one + vignette * ((u - mu) ** 2 + (v - mv) ** 2) * far)
            common = _bell(state) if strength > 0 else np.float32(0.0)
            for c in range(3):
                x = max(light[v, u, c] * np.float32(gain) * balance[c] * fade, np.float32(0.0))
                if strength > 0:
                    x += (shot * np.sqrt(x) + read) * (
                        common * (one - np.float32(0.5) * colour_noise) + colour_noise * _bell(state)
                    )
                    x = max(x, np.float32(0.0))
                value[c] = table[int(min(np.sqrt(x * np.float32(0.5)), one) * np.float32(4096.0))]
            grey = np.float32(0.3) * value[0] + np.float32(0.59) * value[1] + np.float32(0.11) * value[2]
            for c in range(3):
                x = grey + saturation * (value[c] - grey)
                out[v, u, c] = np.uint8(
                    min(max(x, np.float32(0.0)), one) * np.float32(255.0) + np.float32(0.5)
                )


@compiled
def camera_draws(state: np.ndarray) -> np.ndarray:
    """The camera's random choices for Python: wish, blurs, resolution, sharpening, JPEG quality."""
    out = np.zeros(12)
    out[0] = 0.21 * np.exp(normal(state, 0.0, 0.42))
    out[1] = np.exp(uniform(state, -1.5, 0.7)) if chance(state, 0.35) else 0.0  # defocus, pixels at 128
    out[2] = uniform(state, 1.5, 7.0) if chance(state, 0.12) else 0.0  # motion, pixels at 128
    out[3] = uniform(state, 0.0, np.pi)
    out[4] = 1.0  # resolution against the crop's
    kind = uniform(state, 0.0, 1.0)
    if kind < 0.35:
        out[4] = np.exp(uniform(state, np.log(0.4), 0.0))
    out[5] = uniform(state, 0.3, 0.9) if chance(state, 0.4) else 0.0  # noise reduction
    out[6] = uniform(state, 0.2, 1.2) if chance(state, 0.35) else 0.0  # sharpening
    out[7] = float(integer(state, 70) + 28) if chance(state, 0.75) else 0.0
    out[9] = 1.0 if chance(state, 0.15) else 0.0  # what lies outside the frame is black
    out[8] = np.exp(uniform(state, -1.5, 1.6)) if chance(state, 0.65) else 0.0  # background out of focus
    return out
