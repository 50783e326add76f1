"""What stands on a card of `scenes`: hands and camera, faces, and what a finder may take for hands."""

import numpy as np

from handgraph.synthetic.hands import (
    Rig,
    chance,
    compiled,
    integer,
    normal,
    random_rotation,
    seed_stream,
    uniform,
)
from handgraph.synthetic.light import (
    BLUE_,
    GREEN_,
    HEAD,
    KIND,
    PATTERN,
    POLISH,
    RED_,
    SCALE,
    SKIN,
    STYLE,
    World,
    add_mesh,
)
from handgraph.synthetic.photo import Cast, _add_thing, _cloth_row, _move_to, _pose, _skin_row
from handgraph.synthetic.render import ellipsoid, tube, turned_about

CARD_PX = 208
_HEAD = 20  # owner of heads and other skin that is no hand's

# What `photo.build` leaves room for in a world.
_POINTS, _FACES, _MATERIALS = 8000, 15000, 40


@compiled
def _room(world: World, parts: int) -> bool:
    """Whether that many ellipsoids fit."""
    return (
        world.count[0] + 180 * parts < _POINTS
        and world.count[1] + 330 * parts < _FACES
        and world.count[2] + parts < _MATERIALS
    )


@compiled
def card_cast(
    rig: Rig, families: np.ndarray, subjects: int, seed: int, split: int, index: int
) -> tuple[Cast, float]:
    """Hands and camera of card `index`, and its distance in mm: no hand in 16, two in 28 of 100.

    In 8 of 100 the only hand lies outside, and its arm reaches in.
    """
    state = seed_stream(seed, split, index, 30)
    subject = integer(state, subjects)
    kind = uniform(state, 0.0, 1.0)
    hands = 0 if kind < 0.16 else (2 if kind > 0.72 else 1)
    outside = kind > 0.16 and kind < 0.24
    left = chance(state, 0.5)
    first = _pose(rig, families, seed, split, subject, state, 0.3, left)
    second = first
    if hands > 1:
        other = subject if chance(state, 0.85) else integer(state, subjects)
        other_side = not left if chance(state, 0.8) else left
        second = _pose(rig, families, seed, split, other, state, 0.3, other_side)
    side = float(CARD_PX)
    f = side * (uniform(state, 0.65, 1.2) if chance(state, 0.8) else uniform(state, 1.2, 2.4))
    c = (side - 1) / 2
    fill = np.exp(uniform(state, np.log(0.11), np.log(0.8)))
    z = max(150.0 * f / (fill * side), 190.0)
    extent = 150.0 * f / z
    u, v = (uniform(state, 0.04, 0.96) * side, uniform(state, 0.04, 0.96) * side)
    if outside:
        du, dv = -first.rotation[0, 0], -first.rotation[1, 0]
        if left:
            du = -du
        length = max(np.sqrt(du * du + dv * dv), 1e-3)
        away = uniform(state, 0.45, 0.6) * side + 0.75 * extent
        # Far enough to one side that the hand is gone even along a diagonal.
        away /= max(abs(du), abs(dv)) / length
        u, v = c + away * du / length, c + away * dv / length
    goal = np.array([(u - c) * z / f, (v - c) * z / f, z])
    _move_to(first, goal)
    away, turn = uniform(state, 90.0, 380.0), uniform(state, -0.9, 0.9)
    way = 1.0 if u < c else -1.0
    beside = goal + np.array([way * away * np.cos(turn), away * np.sin(turn), normal(state, 0.0, 50.0)])
    if hands > 1 and fill < 0.4 and chance(state, 0.4):  # or anywhere
        beside[0] = (uniform(state, 0.05, 0.95) * side - c) * z / f
        beside[1] = (uniform(state, 0.05, 0.95) * side - c) * z / f
    beside[2] = max(beside[2], 190.0)
    if hands > 1:
        _move_to(second, beside)
    camera = np.array([f, f, c, c, side, side])
    return Cast(first, second, hands, camera, np.zeros(4), 0.0), z


@compiled
def _add_blob(world: World, center: np.ndarray, axes: np.ndarray, radii: np.ndarray, row: np.ndarray) -> None:
    """An ellipsoid of a material."""
    points, faces = ellipsoid(center, axes, radii)
    local = np.empty_like(points)
    for i in range(len(points)):
        local[i] = points[i] - center
    add_mesh(world, points, local, faces, row)


@compiled
def _plain(red: float, green: float, blue: float) -> np.ndarray:
    """A plain material of a colour, part of a head."""
    row = _cloth_row(np.full(1, 7, np.uint64), 1, _HEAD)
    row[KIND], row[STYLE] = PATTERN, 0.0
    row[RED_], row[GREEN_], row[BLUE_] = red, green, blue
    return row


@compiled
def _add_face(
    world: World, head: np.ndarray, size: float, skin: np.ndarray, hair: np.ndarray, state: np.ndarray
) -> None:
    """Nose, eyes, brows, mouth and ears on the front of a head; `size` 1 is 76 by 105 by 90 mm."""
    yaw, roll, pitch = normal(state, 0.0, 0.55), normal(state, 0.0, 0.15), normal(state, 0.0, 0.2)
    axes = np.eye(3)
    for k in range(3):
        axes[:, k] = turned_about(np.array([1.0, 0.0, 0.0]), pitch, axes[:, k])
        axes[:, k] = turned_about(np.array([0.0, 1.0, 0.0]), yaw, axes[:, k])
        axes[:, k] = turned_about(np.array([0.0, 0.0, 1.0]), roll, axes[:, k])
    white = uniform(state, 0.35, 0.7)
    eye = _plain(white, white, white)
    iris = uniform(state, 0.01, 0.12)
    dark = _plain(iris, iris * uniform(state, 0.7, 1.2), iris * uniform(state, 0.5, 1.3))
    lips = _plain(uniform(state, 0.15, 0.45), uniform(state, 0.04, 0.18), uniform(state, 0.04, 0.18))
    brow = _plain(hair[RED_], hair[GREEN_], hair[BLUE_])
    mouth = uniform(state, 5.0, 13.0)
    # Place on the unit head (right, down, towards the back) and radii in mm.
    for part in range(10):
        row = skin
        if part == 0:  # nose
            x, y, r = 0.0, 0.12, np.array([13.0, 21.0, 21.0])
        elif part < 3:
            x, y, r = 0.40 * (2 * part - 3), -0.10, np.array([14.0, 6.5, 6.0])
            row = eye
        elif part < 5:
            x, y, r = 0.40 * (2 * part - 7), -0.10, np.array([6.5, 6.5, 8.0])
            row = dark
        elif part < 7:
            x, y, r = 0.40 * (2 * part - 11), -0.27, np.array([17.0, 4.0, 5.0])
            row = brow
        elif part == 7:
            x, y, r = 0.0, 0.46, np.array([24.0, mouth, 7.0])
            row = lips
        else:
            x, y, r = 1.02 * (2 * part - 17), 0.0, np.array([8.0, 27.0, 15.0])
        z = -np.sqrt(max(1.0 - x * x - y * y, 0.0))
        place = head.copy()
        for i in range(3):
            place[i] += size * (76.0 * x * axes[i, 0] + 105.0 * y * axes[i, 1] + 90.0 * z * axes[i, 2])
        _add_blob(world, place, axes, size * r, row)


@compiled
def add_features(world: World, state: np.ndarray) -> None:
    """Give the person behind the hands, if there is one, a face."""
    for m in range(world.count[2]):
        if world.materials[m, KIND] != HEAD or not _room(world, 12):
            continue
        low, high = np.full(3, 1e9), np.full(3, -1e9)
        for f in range(world.count[1]):
            if world.material[f] == m:
                for k in world.faces[f]:
                    for i in range(3):
                        low[i] = min(low[i], world.points[k, i])
                        high[i] = max(high[i], world.points[k, i])
        head = 0.5 * (low + high)
        skin = world.materials[m].copy()
        skin[KIND] = SKIN
        _add_face(world, head, (high[2] - low[2]) / 180.0, skin, world.materials[m].copy(), state)
        return


@compiled
def add_distractors(world: World, state: np.ndarray, textures: int, camera: np.ndarray, level: float) -> None:
    """Up to three things that a finder may take for hands: faces, limbs, skin, bundles of rods."""
    count = integer(state, 4)
    for _ in range(count):
        if not _room(world, 13):
            return
        z = level * np.exp(uniform(state, -0.1, 0.7))
        u, v = (uniform(state, 0.0, 1.0) * camera[4], uniform(state, 0.0, 1.0) * camera[5])
        place = np.array([(u - camera[2]) * z / camera[0], (v - camera[3]) * z / camera[1], z])
        spin = np.empty((3, 3))
        random_rotation(state, spin)
        skin = _skin_row(state, _HEAD)
        skin[POLISH] = 0.0
        size = np.exp(uniform(state, -0.8, 0.3))
        kind = integer(state, 4)
        if kind == 0:  # a face
            hair = skin.copy()
            hair[KIND] = HEAD
            hair[SCALE] = uniform(state, -75.0, -20.0)
            dark = np.exp(uniform(state, -4.0, -1.0))
            hair[RED_], hair[GREEN_] = dark, dark * uniform(state, 0.6, 1.0)
            hair[BLUE_] = dark * uniform(state, 0.3, 1.0)
            _add_blob(world, place, np.eye(3), size * np.array([76.0, 105.0, 90.0]), hair)
            _add_face(world, place, size, skin, hair, state)
        elif kind == 1:  # a bent limb: elbow, knee
            rings, bend = 12, uniform(state, 0.0, 2.0)
            centers, radii = np.empty((rings, 3)), np.empty((rings, 2))
            half, thick = uniform(state, 150.0, 420.0), uniform(state, 24.0, 62.0)
            taper = uniform(state, -0.5, 0.1)
            along, at = spin[:, 0].copy(), place - half * spin[:, 0]
            for k in range(rings):
                t = k / (rings - 1)
                centers[k] = at
                joint = np.exp(-((t - 0.5) ** 2) / 0.02)
                radii[k, 0] = size * thick * (1.0 + taper * t + 0.12 * joint)
                radii[k, 1] = radii[k, 0] * 0.9
                if k > 3 and k < 8:
                    along = turned_about(spin[:, 2], bend / 4.0, along)
                at = at + along * (2 * half / (rings - 1))
            flat = spin.copy()
            flat[:, 0], flat[:, 1] = spin[:, 1], spin[:, 2]
            points, faces = tube(centers, flat, radii, 16)
            local = points - place
            add_mesh(world, points, local, faces, skin)
        elif kind == 2:  # lumps of skin
            for _ in range(1 + integer(state, 2)):
                random_rotation(state, spin)
                radii3 = np.array(
                    [uniform(state, 15.0, 90.0), uniform(state, 15.0, 60.0), uniform(state, 15.0, 50.0)]
                )
                center = place.copy()
                for i in range(3):
                    center[i] += uniform(state, -60.0, 60.0)
                _add_blob(world, center, spin, size * radii3, skin)
        else:  # rods side by side: pens, forks, bars, stalks
            number, apart = 2 + integer(state, 5), uniform(state, 16.0, 40.0)
            long, thin = uniform(state, 40.0, 140.0), uniform(state, 4.0, 11.0)
            row = _cloth_row(state, textures, 32)
            fan = uniform(state, 0.0, 0.3)
            for k in range(number):
                lean = fan * (k - 0.5 * (number - 1))
                axis = turned_about(spin[:, 2], lean, spin[:, 0].copy())
                axes = spin.copy()
                axes[:, 0] = axis
                axes[:, 1] = turned_about(spin[:, 2], lean, spin[:, 1].copy())
                center = (
                    place + spin[:, 1] * apart * (k - 0.5 * (number - 1)) + axis * normal(state, 0.0, 12.0)
                )
                _add_blob(world, center, axes, np.array([long, thin, thin]), row)
            if chance(state, 0.5):
                _add_thing(
                    world, *ellipsoid(place - spin[:, 0] * long, spin, np.array([30.0, 45.0, 20.0])),
                    state, textures, 32, False,
                )  # fmt: skip
