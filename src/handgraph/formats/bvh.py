"""BVH: a hand as a chain of bones and their turns through time, for animation programs.

The chain is the hand model's: the wrist, and three joints a finger, named as handgraph names them, with the
fingertips as end sites. A BVH file cannot say its unit, axes, or which hand it is of; the root joint's name
carries the side, and who reads a file must state the unit and the axes. Angles have ten decimals.
"""

import math
from pathlib import Path

import numpy as np
from jaxtyping import Float

from handgraph.conventions import MODEL_JOINTS, OPENGL_FROM_OPENCV, Motion, chain
from handgraph.errors import FormatError
from handgraph.files import atomic_write
from handgraph.formats.clip import UNITS_OF_LENGTH, Clip, ClipFrame, ClipHand, Conventions
from handgraph.formats.converted import read_text
from handgraph.formats.joint_names import canonical_name
from handgraph.formats.predictions import place
from handgraph.hand import Side
from handgraph.skeleton import JOINT_NAMES, PARENTS, TIPS

ROTATION_ORDER = "ZXY"
MAX_FRAMES = 10_000_000
_CHILDREN = {parent: [j for j, p in enumerate(PARENTS) if p == parent] for parent in range(21)}
_AXES = {"X": 0, "Y": 1, "Z": 2}


def write_bvh(path: str | Path, motion: Motion, *, unit: str, axes: str, frame_s: float) -> None:
    """Write one hand's motion, whole or not at all. Raises FormatError, InputError."""
    scale = 1 / UNITS_OF_LENGTH[unit]
    turn = np.diag(OPENGL_FROM_OPENCV) if axes == "opengl" else np.eye(3)
    lines = ["HIERARCHY"]
    moving: list[int] = []

    def joint(index: int, depth: int) -> None:
        tabs, parent = "\t" * depth, PARENTS[index]
        offset = np.zeros(3) if parent < 0 else (motion.rest[index] - motion.rest[parent]) * scale
        numbers = " ".join(f"{value:.10f}" for value in offset)
        if index in TIPS:
            lines.extend([f"{tabs}End Site", f"{tabs}{{", f"{tabs}\tOFFSET {numbers}", f"{tabs}}}"])
            return
        name = f"{motion.side}_{JOINT_NAMES[index]}"
        moving.append(index)
        lines.extend([f"{tabs}{'ROOT' if parent < 0 else 'JOINT'} {name}", f"{tabs}{{"])
        lines.append(f"{tabs}\tOFFSET {numbers}")
        turns = " ".join(f"{axis}rotation" for axis in ROTATION_ORDER)
        moves = "6 Xposition Yposition Zposition " if parent < 0 else "3 "
        lines.append(f"{tabs}\tCHANNELS {moves}{turns}")
        for child in _CHILDREN[index]:
            joint(child, depth + 1)
        lines.append(f"{tabs}}}")

    joint(0, 0)
    lines += ["MOTION", f"Frames: {len(motion.wrist)}", f"Frame Time: {frame_s:.8f}"]
    rotations = motion.rotations.copy()
    rotations[:, 0] = turn @ rotations[:, 0]
    angles = euler_degrees(rotations[:, moving])
    places = motion.wrist @ turn.T * scale
    for where, row in zip(places, angles, strict=True):
        lines.append(" ".join(f"{value:.10f}" for value in (*where, *row.ravel())))
    with atomic_write(path) as part:
        part.write_text("\n".join(lines) + "\n", encoding="utf-8")


def euler_degrees(rotations: Float[np.ndarray, "*n 3 3"]) -> Float[np.ndarray, "*n 3"]:
    """Angles z, x, y with R = Rz Rx Ry, degrees."""
    sine = np.clip(rotations[..., 2, 1], -1, 1)  # of x
    # Near a quarter turn the arc sine would lose half its digits; the arc tangent keeps them.
    cosine = np.hypot(rotations[..., 2, 0], rotations[..., 2, 2])
    x = np.arctan2(sine, cosine)
    locked = cosine < 1e-8  # only z ± y is told then: y is 0
    z = np.where(
        locked,
        np.arctan2(rotations[..., 1, 0], rotations[..., 0, 0]),
        np.arctan2(-rotations[..., 0, 1], rotations[..., 1, 1]),
    )
    y = np.where(locked, 0.0, np.arctan2(-rotations[..., 2, 0], rotations[..., 2, 2]))
    return np.degrees(np.stack([z, x, y], axis=-1))


def about_axis(axis: str, degrees: Float[np.ndarray, " t"]) -> Float[np.ndarray, "t 3 3"]:
    """Rotation matrices about a coordinate axis."""
    angle, i = np.radians(degrees), _AXES[axis]
    j, k = (i + 1) % 3, (i + 2) % 3
    matrices = np.zeros((len(degrees), 3, 3))
    matrices[:, i, i] = 1
    matrices[:, j, j] = matrices[:, k, k] = np.cos(angle)
    matrices[:, k, j], matrices[:, j, k] = np.sin(angle), -np.sin(angle)
    return matrices


def read_bvh(path: str | Path, said: Conventions) -> Clip:
    """A hand's motion from a BVH file whose joints carry the names of hand joints, rooted at the wrist.

    Channels may come in any sequence. The clip has joints, and the turns of the bones as a pose of the chain
    in the file, which is a pose of the hand model if the file was written from one (`said.hand_model`).
    Raises InputError, FormatError, also where unit or axes are not stated.
    """
    try:
        text = read_text(path).decode("utf-8")
    except UnicodeDecodeError as error:
        raise FormatError(f"{path}: not a text file ({error.reason})") from error
    with place(str(path)):
        for name in ("unit", "axes"):
            said.need(name)
        said = Conventions(order="openpose", root=said.root or "camera").stated(said)
        return _Reader(text.split()).clip(said)


class _Reader:
    """The words of a BVH file, one after the other."""

    def __init__(self, words: list[str]) -> None:
        self.words, self.at = words, 0
        self.side: Side | None = None
        self.offsets = np.zeros((21, 3))
        self.channels: list[tuple[int, str]] = []
        self.seen: set[int] = set()

    def clip(self, said: Conventions) -> Clip:
        self.expect("HIERARCHY")
        self.expect("ROOT")
        self.joint(-1)
        absent = [JOINT_NAMES[index] for index in range(21) if index not in self.seen]
        if absent:
            raise FormatError(f"the hierarchy lacks {absent[0]}: expected the 21 joints of a hand")
        self.expect("MOTION")
        self.expect("Frames:")
        count = self.whole()
        self.expect("Frame")
        self.expect("Time:")
        frame_s = self.number()
        left = len(self.words) - self.at
        if left != count * len(self.channels):
            raise FormatError(
                f"{left} numbers of motion, expected {count} frames of {len(self.channels)} channels"
            )
        values = np.array([self.number() for _ in range(left)]).reshape(count, len(self.channels))
        rotations = np.tile(np.eye(3), (count, 21, 1, 1))
        wrist = np.tile(self.offsets[0], (count, 1))
        for column, (joint, channel) in zip(values.T, self.channels, strict=True):
            if channel.endswith("position"):
                wrist[:, _AXES[channel[0]]] = column + self.offsets[0, _AXES[channel[0]]]
            else:
                rotations[:, joint] = rotations[:, joint] @ about_axis(channel[0], column)
        rest = np.zeros((21, 3))
        for joint, parent in enumerate(PARENTS):
            if parent >= 0:
                rest[joint] = rest[parent] + self.offsets[joint]
        joints = chain(rest, rotations, wrist)
        pose = rotations[:, MODEL_JOINTS].reshape(count, 16, 9)
        with_pose = said.hand_model is not None
        frames = tuple(
            ClipFrame(
                t,
                (
                    ClipHand(
                        side=self.side, points=joints[t], rotations=pose[t] if with_pose else None
                    ),
                ),
                time_s=t * frame_s,
            )
            for t in range(count)
        )  # fmt: skip
        if with_pose:
            said = Conventions(rotation="matrix", zero="flat").stated(said)
        fps = 1 / frame_s if frame_s > 0 else None
        return Clip(said, frames, "unknown", fps)

    def joint(self, parent: int) -> None:
        name = self.word()
        if name.lower().startswith(("left_", "right_")):
            self.side = "left" if name.lower().startswith("left_") else "right"
        plain = canonical_name(name)
        if plain not in JOINT_NAMES:
            raise FormatError(f"the joint {name[:40]!r} is none of a hand, expected {JOINT_NAMES[0]} …")
        index = JOINT_NAMES.index(plain)
        if PARENTS[index] != parent or index in self.seen:
            raise FormatError(f"the joint {name!r} hangs at another joint than a hand's {plain}")
        self.seen.add(index)
        self.expect("{")
        while (word := self.word()) != "}":
            if word == "OFFSET":
                self.offsets[index] = [self.number() for _ in range(3)]
            elif word == "CHANNELS":
                for _ in range(self.whole()):
                    channel = self.word()
                    kind = channel[1:]
                    allowed = ("rotation", "position") if parent < 0 else ("rotation",)
                    if channel[:1] not in _AXES or kind not in allowed:
                        raise FormatError(f"the channel {channel[:20]!r} of {name} is not one of {allowed}")
                    self.channels.append((index, channel))
            elif word == "JOINT":
                self.joint(index)
            elif word == "End":
                self.expect("Site")
                self.expect("{")
                self.expect("OFFSET")
                tip = index + 1
                if tip not in TIPS or tip in self.seen:
                    raise FormatError(f"the joint {name!r} ends, expected the rest of its finger")
                self.seen.add(tip)
                self.offsets[tip] = [self.number() for _ in range(3)]
                self.expect("}")
            else:
                raise FormatError(f"{word[:20]!r} in the hierarchy, expected OFFSET, CHANNELS, JOINT or End")

    def word(self) -> str:
        if self.at >= len(self.words):
            raise FormatError("the file is cut short")
        self.at += 1
        return self.words[self.at - 1]

    def expect(self, wanted: str) -> None:
        found = self.word()
        if found != wanted:
            raise FormatError(f"{found[:20]!r} where {wanted!r} is expected")

    def number(self) -> float:
        word = self.word()
        try:
            value = float(word)
        except ValueError:
            raise FormatError(f"{word[:20]!r} is not a number") from None
        if not math.isfinite(value) or abs(value) > 1e9:
            raise FormatError(f"{word[:20]!r} is not a finite number")
        return value

    def whole(self) -> int:
        value = self.number()
        if value != int(value) or not 0 <= value <= MAX_FRAMES:
            raise FormatError(f"{value:g} is not a whole number from 0")
        return int(value)
