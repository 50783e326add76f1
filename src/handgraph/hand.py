"""`Hand`: the one result container. Every reader, writer, picture and metric takes or gives this."""

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from handgraph.camera import PinholeCamera
from handgraph.errors import FormatError
from handgraph.skeleton import JOINT_NAMES

Side = Literal["left", "right"]

CAMERA_FRAME = "camera frame: x right, y down, z forward, millimetres"
RELATIVE_FRAME = "relative to the wrist, scale unknown: x right, y down, z forward, hand lengths"
ORDER = "21 joints: wrist (root), then thumb, index, middle, ring, little, each from the palm to the tip"


@dataclass(frozen=True, eq=False)  # arrays have no single truth value: compare to_dict()
class Hand:
    """One hand in one image.

    keypoints_px   (21, 2) image pixels, u right and v down, pixel centres at integers
    joints_mm      (21, 3) in `frame`, or None where only 2D is known
    vertices_mm    (V, 3) in `frame`, or None
    pose           (48,) axis-angle of the hand model, radians, global rotation first, or None
    shape          (10,) shape parameters of the hand model, or None
    confidence     (21,) in [0, 1] per joint, or None
    box_px         (4,) x, y, w, h of the hand in the image
    camera         the camera that `joints_mm` refer to, or None
    frame, order   in words, what the numbers mean
    score          in [0, 1]: how sure the system is of the whole hand
    shape_confidence  how sure it is of `shape`, any number, or None; not in files

    Raises FormatError when a shape is wrong or a number is not finite.
    """

    side: Side
    score: float
    keypoints_px: np.ndarray
    box_px: np.ndarray
    joints_mm: np.ndarray | None = None
    vertices_mm: np.ndarray | None = None
    pose: np.ndarray | None = None
    shape: np.ndarray | None = None
    confidence: np.ndarray | None = None
    camera: PinholeCamera | None = None
    frame: str = CAMERA_FRAME
    order: str = ORDER
    shape_confidence: float | None = None

    def __post_init__(self) -> None:
        _side(self.side)
        if not 0 <= self.score <= 1:
            raise FormatError(f"hand: score is {self.score}, expected a number from 0 to 1")
        if self.order != ORDER:
            raise FormatError(f"hand: order is {self.order!r}, expected {ORDER!r}")
        joints = len(JOINT_NAMES)
        for name, expected in (
            ("keypoints_px", (joints, 2)),
            ("box_px", (4,)),
            ("joints_mm", (joints, 3)),
            ("vertices_mm", (None, 3)),
            ("pose", (48,)),
            ("shape", (10,)),
            ("confidence", (joints,)),
        ):
            value = getattr(self, name)
            if value is None and name not in ("keypoints_px", "box_px"):
                continue
            array = _float32(name, value)
            fits = array.ndim == len(expected) and all(
                want is None or want == got for want, got in zip(expected, array.shape, strict=True)
            )
            if not fits:
                wanted = str(expected).replace("None", "n")
                raise FormatError(f"hand: {name} has shape {array.shape}, expected {wanted}")
            if not np.isfinite(array).all():
                raise FormatError(f"hand: {name} holds a number that is not finite")
            object.__setattr__(self, name, array)

    @property
    def joint_names(self) -> tuple[str, ...]:
        """The canonical names of the 21 joints."""
        return JOINT_NAMES

    def to_dict(self) -> dict[str, Any]:
        """Plain Python for JSON: the keys of the class, `joint_names`, lists for arrays, null for None."""

        def plain(array: np.ndarray | None, digits: int) -> list[Any] | None:
            return None if array is None else np.round(array.astype(np.float64), digits).tolist()

        camera = self.camera
        return {
            "side": self.side,
            "score": round(float(self.score), 4),
            "joint_names": list(JOINT_NAMES),
            "keypoints_px": plain(self.keypoints_px, 3),
            "joints_mm": plain(self.joints_mm, 3),
            "vertices_mm": plain(self.vertices_mm, 3),
            "pose": plain(self.pose, 6),
            "shape": plain(self.shape, 6),
            "confidence": plain(self.confidence, 4),
            "box_px": plain(self.box_px, 2),
            "camera": None
            if camera is None
            else {"fx": camera.fx, "fy": camera.fy, "cx": camera.cx, "cy": camera.cy},
            "frame": self.frame,
            "order": self.order,
        }

    @staticmethod
    def from_dict(record: Any) -> "Hand":
        """The inverse of `to_dict`. Raises FormatError naming the key that is missing or wrong."""
        if not isinstance(record, dict):
            raise FormatError(f"hand: expected an object, found {type(record).__name__}")
        for key in ("side", "score", "joint_names", "keypoints_px", "box_px", "frame", "order"):
            if key not in record:
                raise FormatError(f"hand: the key {key!r} is missing")
        names = record["joint_names"]
        if not isinstance(names, list | tuple) or tuple(names) != JOINT_NAMES:
            raise FormatError("hand: joint_names are not the 21 canonical names in canonical order")
        optional: dict[str, Any] = {
            name: _float32(name, record[name])
            for name in ("joints_mm", "vertices_mm", "pose", "shape", "confidence")
            if record.get(name) is not None
        }
        return Hand(
            side=_side(record["side"]),
            score=_number("score", record["score"]),
            keypoints_px=_float32("keypoints_px", record["keypoints_px"]),
            box_px=_float32("box_px", record["box_px"]),
            **optional,
            camera=_camera(record.get("camera")),
            frame=str(record["frame"]),
            order=str(record["order"]),
        )


def _side(value: Any) -> Side:
    if value == "left":
        return "left"
    if value == "right":
        return "right"
    raise FormatError(f"hand: side is {value!r}, expected 'left' or 'right'")


def _number(name: str, value: Any) -> float:
    try:
        return float(value)
    except (TypeError, ValueError, OverflowError) as error:
        raise FormatError(f"hand: {name} is not a number ({error})") from error


def _float32(name: str, value: Any) -> np.ndarray:
    try:
        with np.errstate(over="ignore"):  # what float32 cannot hold becomes infinite, and is refused as such
            return np.asarray(value, dtype=np.float32)
    except (TypeError, ValueError, OverflowError) as error:
        raise FormatError(f"hand: {name} is not an array of numbers ({error})") from error


def _camera(record: Any) -> PinholeCamera | None:
    if record is None:
        return None
    keys = ("fx", "fy", "cx", "cy")
    if not isinstance(record, dict) or set(record) != set(keys):
        raise FormatError(f"hand: camera is {record!r}, expected an object with the keys fx, fy, cx, cy")
    return PinholeCamera(*(_number(f"camera {key}", record[key]) for key in keys))
