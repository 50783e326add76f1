"""Whole depth frames of a hand over a table: arms from any side, things lying about, the picture's border.

The frames of `DepthSynthesizer` show people before a camera; these show what a camera beside or above a desk
sees. The hand lies on the table or is above it, palm down, edge on or any way round, with something in its
grip or before its palm, and its arm comes from anywhere around the table. Same subjects, poses, sensors and
labels; image `index` of (seed, split) is always the same. Finders are measured on them
(`benchmarks/depth_finder.py`); no network has been trained on them.

A scene is put together here and drawn by the compiled parts of `handgraph.synthetic.scene` and `render`.
"""

from typing import get_args

import numpy as np
from jaxtyping import Float

from handgraph.errors import ConfigError
from handgraph.synthetic.depth import (
    SUBJECTS,
    DepthFrame,
    Split,
    _open_hand,
    _rig,
    depth_frame,
)
from handgraph.synthetic.hands import (
    FAMILIES,
    FAMILY_SHARES,
    chance,
    draw,
    integer,
    normal,
    pose_hand,
    random_rotation,
    rest_points,
    sample_pose,
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
)
from handgraph.synthetic.scene import SENSORS, Scene, _anything, _forearm, _held, clean, sense, sensor_table

_SCENE, _SENSOR = 40, 41
"""Streams of random numbers, unlike those of all other images."""
_SHARES = {"kinect": 0.2, "sr305": 0.1, "d4xx": 0.4, "d4wide": 0.15, "generic": 0.15}
"""The sensors that look at tables, and how often."""
_GRASP = FAMILIES.index("grasp")
_TRIES = 12
_FAR_MM = 6_000.0
"""No sensor reads what is farther away."""


class TabletopSynthesizer:
    """Whole sensor frames of one right hand over a table.

    Args:
        seed: of the whole set.
        split: `train`, `validation` or `test`; they share no subject.
        noise: spoil the frames as depth sensors do.

    Raises:
        ConfigError: an unknown split, or a seed below zero.
    """

    def __init__(self, seed: int = 0, split: str = "train", *, noise: bool = True) -> None:
        if split not in get_args(Split):
            raise ConfigError(f"split {split!r}: expected one of {', '.join(get_args(Split))}")
        if seed < 0:
            raise ConfigError(f"seed {seed}: expected one not below zero")
        self.seed, self.split, self.noise = seed, split, noise
        self.rig = _rig(_open_hand())
        self._sensors = sensor_table()
        self._shares = np.array([_SHARES.get(sensor.name, 0.0) for sensor in SENSORS])

    def frame(self, index: int) -> DepthFrame:
        """Frame number `index` with everything known about it."""
        scene = self._scene(index)
        depth_mm = clean(scene.inverse)
        if self.noise:
            state = seed_stream(self.seed, get_args(Split).index(self.split), index, _SENSOR)
            depth_mm = sense(scene.inverse, self._sensors[scene.sensor], float(scene.camera[0]), state)
        return depth_frame(self.rig, scene, depth_mm)

    def _scene(self, index: int) -> Scene:
        rig = self.rig
        split = get_args(Split).index(self.split)
        state = seed_stream(self.seed, split, index, _SCENE)
        sensor = draw(state, self._shares)
        fx, fy, width, height = (float(value) for value in self._sensors[sensor, 1:5])
        if SENSORS[sensor].name == "generic":
            fx = fy = uniform(state, 350.0, 700.0)
        camera = np.array(
            [fx, fy, (width - 1) / 2 + normal(state, 0.0, 4.0), (height - 1) / 2 + normal(state, 0.0, 4.0)]
        )
        subject = integer(state, SUBJECTS[self.split])  # type: ignore[index]
        shape = subject_shape(self.seed, split, subject)
        rest, angles = rest_points(rig, shape), np.empty((15, 3))
        family = sample_pose(rig, rest, state, np.asarray(FAMILY_SHARES), angles)

        up, away, across, distance = _table(state)
        height_mm = uniform(state, 0.0, 5.0)  # of the lowest point of hand and arm above the table
        if chance(state, 0.65):
            height_mm = uniform(state, 5.0, 70.0) if chance(state, 0.6) else uniform(state, 70.0, 250.0)
        place = _place(state, camera, (width, height), up, distance, height_mm)

        # The arm comes from anywhere around the table; the hand is palm down, edge on or any way round.
        turn = uniform(state, -np.pi, np.pi)
        lift = abs(normal(state, 0.0, 0.12 if height_mm < 5 else 0.35))
        back = np.cos(lift) * (np.cos(turn) * away + np.sin(turn) * across) + np.sin(lift) * up
        roll = normal(state, 0.0, 0.3)
        kind = uniform(state, 0.0, 1.0)
        if kind > 0.85:
            roll = uniform(state, -np.pi, np.pi)
        elif kind > 0.5:
            roll += np.pi / 2 if kind > 0.62 else -np.pi / 2  # mostly the thumb above
        rotation = _hand_rotation(back, up, roll, normal(state, 0.0, 0.3))

        vertices, joints, wrist = np.empty((len(rig.template), 3), np.float32), np.empty((21, 3)), np.zeros(3)
        pose_hand(rig, shape, rest, angles, rotation, wrist, vertices, joints)
        sleeve = bool(chance(state, 0.35))
        arm, arm_faces, cloth, cloth_faces, elbow = _forearm(
            rig, vertices, rotation, state, uniform(state, 230.0, 300.0), sleeve
        )
        lowest = min(float((vertices @ up).min()), float((arm @ up).min()))
        shift = place - joints.mean(0)
        shift += (distance - lowest - float(shift @ up) + height_mm) * up
        vertices += shift.astype(np.float32)
        joints, arm, cloth, elbow, wrist = (part + shift for part in (joints, arm, cloth, elbow, wrist))

        inverse = np.zeros((int(height), int(width)), np.float32)
        label = np.zeros(inverse.shape, np.uint8)
        draw_mesh(vertices, rig.faces, camera, inverse, label, HAND, True)
        draw_mesh(arm, arm_faces, camera, inverse, label, FOREARM, False)
        flags = 1
        if sleeve:
            flags |= 32
            draw_mesh(cloth, cloth_faces, camera, inverse, label, FOREARM, False)
        things = []
        if chance(state, 0.8 if family == _GRASP else 0.3):
            things.append(_held(joints, rotation, state))
        elif chance(state, 0.2):
            things.append(_before_the_palm(joints, rotation, state))
        if any(len(points) for points, _ in things):
            flags |= 2
        things += _lying_about(state, joints, arm, up, away, across, distance)
        for points, faces in things:
            if len(points):
                draw_mesh(points, faces, camera, inverse, label, OBJECT, False)
        if _person(state, camera, inverse, label, elbow, back, up):
            flags |= 8

        edge = np.array([0.0, 0.0, 1.0])
        if chance(state, 0.4):  # the table ends somewhere in the picture
            angle = uniform(state, 0.0, 2 * np.pi)
            edge[:2] = np.cos(angle), np.sin(angle)
            edge[2] = -(edge[0] * width / 2 + edge[1] * height / 2) + uniform(state, 0.0, 0.5) * width
        draw_plane(up, distance, edge, camera, inverse, label, PLANE)
        everywhere = np.array([0.0, 0.0, 1.0])
        if chance(state, 0.8):
            draw_plane(up, distance - uniform(state, 600.0, 800.0), everywhere, camera, inverse, label, PLANE)
        if chance(state, 0.8):
            wall = -away / np.linalg.norm(away)
            draw_plane(wall, -uniform(state, 1500.0, 4000.0), everywhere, camera, inverse, label, PLANE)
        far = inverse < 1 / _FAR_MM  # towards a plane's horizon
        inverse[far], label[far] = 0.0, 0
        window = np.array([0.0, 0.0, width, height])
        return Scene(
            inverse, label, camera, window, joints.mean(0), 130.0, joints, vertices, angles, rotation, wrist,
            shape, family, sensor, subject, flags,
        )  # fmt: skip


def _table(
    state: np.ndarray,
) -> tuple[Float[np.ndarray, "3"], Float[np.ndarray, "3"], Float[np.ndarray, "3"], float]:
    """A table before the camera: its normal, the directions away and across on it, normal · x on it."""
    slope = np.radians(uniform(state, 18.0, 90.0))  # of the view down onto the table
    up = np.array([0.0, -np.cos(slope), -np.sin(slope)])
    away = np.array([0.0, -np.sin(slope), np.cos(slope)])
    across = np.array([1.0, 0.0, 0.0])
    tilt = uniform(state, -np.pi, np.pi) if slope > 1.2 else normal(state, 0.0, 0.1)
    roll = np.array([[np.cos(tilt), -np.sin(tilt), 0.0], [np.sin(tilt), np.cos(tilt), 0.0], [0.0, 0.0, 1.0]])
    up, away, across = roll @ up, roll @ away, roll @ across
    return up, away, across, float(up[2] * uniform(state, 500.0, 1200.0))


def _place(
    state: np.ndarray,
    camera: np.ndarray,
    size: tuple[float, float],
    up: np.ndarray,
    distance: float,
    height_mm: float,
) -> Float[np.ndarray, "3"]:
    """Where the middle of the hand is: over the table at a pixel, one time in four close to the border."""
    level = distance + height_mm + 15.0
    for _ in range(_TRIES):
        margin = (0.04 if chance(state, 0.25) else 0.2) * size[0]
        u, v = uniform(state, margin, size[0] - margin), uniform(state, margin, size[1] - margin)
        ray = np.array([(u - camera[2]) / camera[0], (v - camera[3]) / camera[1], 1.0])
        z = level / min(float(up @ ray), -1e-6)
        if 320.0 < z < 1300.0:
            return z * ray
    return np.array([0.0, 0.0, level / up[2]])


def _hand_rotation(back: np.ndarray, up: np.ndarray, roll: float, bend: float) -> Float[np.ndarray, "3 3"]:
    """The hand's axes as columns: towards the wrist, out of its back, towards the thumb.

    At `roll` 0 the palm faces down, at a quarter turn the thumb is above; `bend` turns it about the wrist.
    """
    out = up - (up @ back) * back
    out /= np.linalg.norm(out)
    side = np.cross(back, out)
    out, side = np.cos(roll) * out - np.sin(roll) * side, np.cos(roll) * side + np.sin(roll) * out
    back, out = np.cos(bend) * back - np.sin(bend) * out, np.cos(bend) * out + np.sin(bend) * back
    return np.ascontiguousarray(np.column_stack([back, out, side]))


def _before_the_palm(
    joints: np.ndarray, rotation: np.ndarray, state: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """A box or can larger than the grip, its face at the palm."""
    half = np.array([uniform(state, 18.0, 45.0), uniform(state, 18.0, 45.0), uniform(state, 30.0, 100.0)])
    center = joints[[0, 5, 9, 13, 17]].mean(0) - rotation[:, 0] * uniform(state, 0.0, 40.0)
    center = center - rotation[:, 1] * (half[1] + 14.0)
    sides = 4 if chance(state, 0.6) else 20
    if sides == 20:
        half[0] = half[1]
    # Its length lies across the palm, as whatever is gripped.
    axes = np.ascontiguousarray(np.column_stack([rotation[:, 0], rotation[:, 1], rotation[:, 2]]))
    return prism(center, axes, half, sides)


def _lying_about(
    state: np.ndarray,
    joints: np.ndarray,
    arm: np.ndarray,
    up: np.ndarray,
    away: np.ndarray,
    across: np.ndarray,
    distance: float,
) -> list[tuple[np.ndarray, np.ndarray]]:
    """Boxes, cans and balls that stand or lie on the table clear of hand and forearm."""
    things = []
    body = np.concatenate([joints, arm[::7]])
    middle = np.array([0.0, 0.0, distance / up[2]])
    for _ in range(integer(state, 8)):
        big = uniform(state, 12.0, 75.0)
        turn = uniform(state, 0.0, np.pi)
        place = middle + uniform(state, -380.0, 380.0) * away + uniform(state, -380.0, 380.0) * across
        place = place + uniform(state, 0.3, 1.0) * big * up
        axes = np.empty((3, 3))
        axes[:, 0] = np.cos(turn) * away + np.sin(turn) * across
        axes[:, 1] = np.cross(up, axes[:, 0])
        axes[:, 2] = up
        if chance(state, 0.2):
            random_rotation(state, axes)
        points, faces = _anything(place, axes, state, 0.4 * big, big)
        if np.linalg.norm(body - place, axis=1).min() > 1.4 * big + 16.0:
            things.append((points, faces))
    return things


def _person(
    state: np.ndarray,
    camera: np.ndarray,
    inverse: np.ndarray,
    label: np.ndarray,
    elbow: np.ndarray,
    back: np.ndarray,
    up: np.ndarray,
) -> bool:
    """Draw the upper arm; torso and head at its end, or an arm that goes on until it leaves the picture."""
    whole = bool(chance(state, 0.6))
    bone = uniform(state, 0.3, 1.0) * back + uniform(state, 0.2, 1.0) * up + 0.15 * np.array([0.0, -1.0, 0.0])
    bone *= (uniform(state, 260.0, 320.0) if whole else 800.0) / np.linalg.norm(bone)
    axes = np.empty((3, 3))
    frame_of(bone / np.linalg.norm(bone), axes)
    ends = elbow + bone * (np.arange(4)[:, None] / 2.6 - 0.1)
    thickness = np.repeat(42.0 + 5.0 * np.arange(4.0)[:, None], 2, axis=1)
    points, faces = tube(ends, axes, thickness, 20)
    draw_mesh(points, faces, camera, inverse, label, BODY, False)
    if not whole:
        return False
    shoulder = elbow + bone
    level = back - (back @ up) * up
    axes = np.ascontiguousarray(np.column_stack([np.cross(up, level), up, level]))
    axes /= np.linalg.norm(axes, axis=0)
    radii = np.array([uniform(state, 150.0, 190.0), 270.0, uniform(state, 90.0, 130.0)])
    torso = shoulder + 0.9 * radii[0] * axes[:, 0] - 0.6 * radii[1] * up + 40.0 * axes[:, 2]
    points, faces = ellipsoid(torso, axes, radii)
    draw_mesh(points, faces, camera, inverse, label, BODY, False)
    points, faces = ellipsoid(torso + (radii[1] + 90.0) * up, axes, np.array([76.0, 105.0, 90.0]))
    draw_mesh(points, faces, camera, inverse, label, BODY, False)
    return True
