"""Hands in any convention: what the converter reads from every file and writes to every file.

A `Hand` has one meaning: 21 joints, millimetres, the camera's axes. A `Clip` holds what a file holds, and its
`Conventions` say what that means, or that the file does not say. NaN stands for a joint that is not there;
files have a null, an empty cell or a confidence of 0 in its place.
"""

from dataclasses import dataclass, field, fields, replace
from typing import Any

import numpy as np

from handgraph.camera import PinholeCamera
from handgraph.errors import ConfigError, FormatError
from handgraph.hand import Side
from handgraph.skeleton import JOINT_NAMES, JOINT_ORDERS, OPENPOSE, JointOrder

CANONICAL_ORDERS = ("openpose", "canonical", "mediapipe", "freihand", "coco_wholebody", "humbi", "panoptic")
"""Names of the one order: the wrist, then thumb to little finger, each from the palm to the tip."""

ORDERS: dict[str, JointOrder] = JOINT_ORDERS | {
    name: JointOrder(name, OPENPOSE.names, OPENPOSE.canonical, OPENPOSE.note) for name in CANONICAL_ORDERS
}
UNITS_OF_LENGTH = {"mm": 1.0, "cm": 10.0, "m": 1000.0}
"""Millimetres in each."""
UNITS = (*UNITS_OF_LENGTH, "px", "hand")
"""`px`: u and v in pixels of the image and depth in mm; `hand`: hand lengths, wrist to middle fingertip."""
AXES = ("opencv", "opengl")
"""x right, y down, z forward; or x right, y up, z backward."""
ROTATIONS = {"axis_angle": 3, "matrix": 9, "quaternion_wxyz": 4, "quaternion_xyzw": 4, "6d": 6, "pca": 0}
"""Numbers for each of the 16 rotations. `pca` has a global axis-angle and then coefficients."""
ZEROS = ("flat", "mean")
CAMERA_ROOT = "camera"
"""The root of absolute coordinates."""

_LARGEST = 1e9  # of anything: a kilometre in micrometres


@dataclass(frozen=True)
class Conventions:
    """What the numbers of a clip mean; None where its file does not say.

    order       a key of `ORDERS`
    unit        of points, vertices and root: one of `UNITS`
    axes        one of `AXES`
    root        "camera" for absolute coordinates, or the name of the joint that points are relative to
    rotation    a key of `ROTATIONS`, of the hand model's 16 joints in MANO's order, the global one first
    zero        "flat" or "mean": the finger pose that all zeros are
    components  how many principal poses `pca` has
    hand_model  whose pose, shape and vertices they are
    note        what else is to be known of the frame, such as that its camera is a guess
    """

    order: str | None = None
    unit: str | None = None
    axes: str | None = None
    root: str | None = None
    rotation: str | None = None
    zero: str | None = None
    components: int | None = None
    hand_model: str | None = None
    note: str = ""

    def __post_init__(self) -> None:
        allowed: dict[str, Any] = {"order": ORDERS, "unit": UNITS, "axes": AXES}
        allowed |= {"rotation": ROTATIONS, "zero": ZEROS}
        for name, values in allowed.items():
            value = getattr(self, name)
            if value is not None and value not in values:
                raise FormatError(f"{name} is {value!r}, expected one of {', '.join(values)}")
        if self.root is not None and self.order is not None and self.root != CAMERA_ROOT:
            known = set(JOINT_NAMES) | {name for order in ORDERS.values() for name in order.names}
            if self.root not in known:
                raise FormatError(f"root is {self.root!r}, expected 'camera' or the name of a joint")
        if self.components is not None and not 1 <= self.components <= 45:
            raise FormatError(f"components is {self.components}, expected 1 to 45")

    @property
    def joints(self) -> JointOrder:
        """The joint order. Raises FormatError where it is not stated."""
        return ORDERS[str(self.need("order"))]

    def need(self, name: str) -> Any:
        """What is stated under this name. Raises FormatError where nothing is."""
        value = getattr(self, name)
        if value is None:
            raise FormatError(f"{name} is missing: {HOW_TO_STATE[name]}")
        return value

    def stated(self, said: "Conventions") -> "Conventions":
        """With what the user says of the file. Raises ConfigError where the file states otherwise."""
        changes = {}
        for item in fields(self):
            mine, theirs = getattr(self, item.name), getattr(said, item.name)
            if theirs is None or theirs == "":
                continue
            same_order = item.name == "order" and {mine, theirs} <= set(CANONICAL_ORDERS)
            if mine is not None and mine != theirs and not same_order:
                raise ConfigError(f"{item.name} is said to be {theirs}, but the file states {mine}")
            changes[item.name] = theirs
        return replace(self, **changes)


HOW_TO_STATE = {
    "order": "name the joint order with --order (openpose, mano, rhd, stb, …)",
    "unit": "say with --unit what lengths are in (mm, cm, m)",
    "axes": "say with --axes where they point (opencv: y down, z forward; opengl: y up, z backward)",
    "root": "say with --root what points are relative to (camera, wrist, …)",
    "rotation": "say with --rotation what the pose's numbers are (axis_angle, matrix, …)",
    "zero": "say with --zero whether a pose of zeros is the flat or the mean hand",
    "components": "the number of principal poses is not stated",
    "hand_model": "give the hand model's file with --hand-model",
    "side": "say with --side whether it is a left or a right hand",
    "camera": "give the camera with --camera fx,fy,cx,cy",
    "size": "give the image's size with --size w,h",
    "fps": "give the frames a second with --fps",
}


@dataclass(frozen=True, eq=False)
class ClipHand:
    """One hand at one moment, float64. Joints that are not there are rows of NaN.

    points_px  (n, 2) pixels of the image    points    (n, 3) in the clip's unit, axes and root
    root_at    (3,) where a joint that is the root stands before the camera, in the clip's unit and axes
    vertices   (v, 3) as points              rotations (16, k), or (3 + components,) for pca
    shape      (10,)                         confidence (n,) in [0, 1]
    box_px     (4,) x, y, w, h               track     a number that stays the hand's own

    Raises FormatError for a wrong shape, a number that is not finite, or a point known in part.
    """

    side: Side | None = None
    score: float | None = None
    track: int | None = None
    points_px: np.ndarray | None = None
    points: np.ndarray | None = None
    root_at: np.ndarray | None = None
    vertices: np.ndarray | None = None
    rotations: np.ndarray | None = None
    shape: np.ndarray | None = None
    confidence: np.ndarray | None = None
    box_px: np.ndarray | None = None
    camera: PinholeCamera | None = None

    def __post_init__(self) -> None:
        if self.side not in (None, "left", "right"):
            raise FormatError(f"side is {self.side!r}, expected 'left' or 'right'")
        if self.score is not None and not (_is_number(self.score) and 0 <= self.score <= 1):
            raise FormatError(f"score is {self.score!r}, expected a number from 0 to 1")
        if self.track is not None and type(self.track) is not int:
            raise FormatError(f"track is {self.track!r}, expected a whole number")
        for name, width in ARRAYS.items():
            value = getattr(self, name)
            if value is not None:
                array = _array(name, value, width, gaps=name in ("points_px", "points", "confidence"))
                object.__setattr__(self, name, array)
        for name, size in (("root_at", 3), ("shape", 10), ("box_px", 4)):
            value = getattr(self, name)
            if value is not None and len(value) != size:
                raise FormatError(f"{name} has {len(value)} numbers, expected {size}")
        counts = {len(v) for v in (self.points_px, self.points, self.confidence) if v is not None}
        if len(counts) > 1:
            raise FormatError(f"points_px, points and confidence differ in number: {sorted(counts)}")

    def need(self, name: str) -> Any:
        """What the hand has under this name. Raises FormatError where it has none."""
        value = getattr(self, name)
        if value is None:
            raise FormatError(f"{name} is missing{': ' + HOW_TO_STATE[name] if name in HOW_TO_STATE else ''}")
        return value


def hand_of(values: dict[str, Any]) -> ClipHand:
    """A hand of what a file says of it, lists and all. Raises FormatError as `ClipHand` does."""
    side, score, track = (values.get(name) for name in ("side", "score", "track"))
    if side not in (None, "left", "right"):
        raise FormatError(f"side is {str(side)[:40]!r}, expected 'left' or 'right'")
    if score is not None and not _is_number(score):
        raise FormatError(f"score is {str(score)[:40]!r}, expected a number from 0 to 1")
    if track is not None and type(track) is not int:
        raise FormatError(f"track is {str(track)[:40]!r}, expected a whole number")
    arrays = {
        name: _array(name, values[name], width, gaps=name in ("points_px", "points", "confidence"))
        for name, width in ARRAYS.items()
        if values.get(name) is not None
    }
    return ClipHand(**{**values, **arrays})


ARRAYS = {
    "points_px": 2,
    "points": 3,
    "root_at": 0,
    "vertices": 3,
    "rotations": -1,
    "shape": 0,
    "confidence": 0,
    "box_px": 0,
}
"""The arrays of a hand: numbers a row, 0 for a plain list, -1 for either."""


@dataclass(frozen=True)
class ClipFrame:
    """One image or frame: its hands, or why there are none."""

    index: int
    hands: tuple[ClipHand, ...] = ()
    file: str | None = None
    time_s: float | None = None
    size_px: tuple[int, int] | None = None
    error: str | None = None


@dataclass(frozen=True)
class Clip:
    """Hands of one image or many.

    about  what a header says beside: source, smoothing and the like, plain JSON
    notes  what was left out, repeated or approximated on the way, in words
    """

    conventions: Conventions
    frames: tuple[ClipFrame, ...]
    model: str = "unknown"
    fps: float | None = None
    about: dict[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        order, count = self.conventions.order, None
        if order is not None:
            count = len(ORDERS[order].names)
        for frame in self.frames:
            for hand in frame.hands:
                for name in ("points_px", "points", "confidence"):
                    value = getattr(hand, name)
                    if value is not None and count is not None and len(value) != count:
                        raise FormatError(
                            f"{_where(frame)}: {name} has {len(value)} joints, the order {order} has {count}"
                        )

    @property
    def hands(self) -> list[ClipHand]:
        """All hands, in order."""
        return [hand for frame in self.frames for hand in frame.hands]

    def has(self, name: str) -> bool:
        """Whether any hand has this."""
        return any(getattr(hand, name) is not None for hand in self.hands)

    def map(self, change: Any, **changes: Any) -> "Clip":
        """The clip with `change(hand, frame)` in the place of every hand, and other fields replaced."""
        frames = []
        for frame in self.frames:
            hands = []
            for index, hand in enumerate(frame.hands):
                try:
                    hands.append(change(hand, frame))
                except FormatError as error:
                    raise FormatError(f"{_where(frame)}: hand {index}: {error}") from error
            frames.append(replace(frame, hands=tuple(hands)))
        return replace(self, frames=tuple(frames), **changes)

    def noted(self, *notes: str) -> "Clip":
        """With more to say."""
        return replace(self, notes=(*self.notes, *(note for note in notes if note not in self.notes)))


def _where(frame: ClipFrame) -> str:
    return frame.file if frame.file is not None else f"frame {frame.index}"


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float | np.floating) and not isinstance(value, bool)


def _array(name: str, value: Any, width: int, gaps: bool) -> np.ndarray:
    try:
        array = np.array(value, dtype=np.float64)
    except (TypeError, ValueError, OverflowError) as error:
        raise FormatError(f"{name} is not an array of numbers ({error})") from error
    if name == "rotations":
        fits = array.ndim in (1, 2)
    else:
        fits = array.ndim == (2 if width else 1) and (not width or array.shape[1] == width)
    if not fits:
        raise FormatError(f"{name} has shape {array.shape}, expected {('n', width) if width else ('n',)}")
    bad = ~np.isfinite(array)
    if gaps and array.ndim == 2:  # a row of NaN is a joint that is not there, in part it is a fault
        bad &= ~np.isnan(array).all(axis=1, keepdims=True)
    elif gaps:
        bad &= ~np.isnan(array)
    if bad.any() or (np.abs(array) > _LARGEST).any():
        raise FormatError(f"{name} holds a number that is not finite, or beyond {_LARGEST:g}")
    return array
