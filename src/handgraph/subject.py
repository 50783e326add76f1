"""A person's hand in a file: calibrated once from a few images, used by every later call.

`personalize` takes what any system that gives millimetres says of several images and finds the one shape they
agree on (`hand_model/calibration.py`); `write_subject` and `read_subject` keep it as plain JSON.
`identity_mesh` takes the shape as its input; for systems whose answers have no scale the bone lengths are it.
"""

import itertools
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from handgraph.camera import PinholeCamera
from handgraph.decoding.jgr_p2o import SHAPE_ERROR
from handgraph.errors import FormatError, HandgraphError, InputError
from handgraph.estimator import ASSUMED_CAMERA
from handgraph.files import atomic_write
from handgraph.hand import RELATIVE_FRAME, Hand, Side
from handgraph.images import is_photo, read_depth, read_image
from handgraph.placement import MIDDLE_FINGER
from handgraph.shapes import Float
from handgraph.skeleton import BONES

if TYPE_CHECKING:
    from handgraph.hand_model import HandLayer
    from handgraph.hand_model.calibration import Calibration

FORMAT = "handgraph subject"
VERSION = 1
MAX_FILE_BYTES = 2**20
"""A subject of a thousand images has a tenth of this."""
_LARGEST = 1e4


@dataclass(frozen=True, eq=False)
class Subject:
    """Whose hand it is. Raises FormatError for numbers that cannot be a hand's."""

    shape: Float[np.ndarray, " 10"]
    """Coefficients of the hand model."""
    hand_length_mm: float
    """Wrist to middle fingertip at the flat pose."""
    hand_width_mm: float
    """Index knuckle to ring knuckle."""
    bone_lengths_mm: Float[np.ndarray, " 20"]
    """In the order of `skeleton.BONES`."""
    model: str
    """The system that looked at the images."""
    hand_model: str
    """Whose coefficients `shape` are: `open_hand`, or the name of a MANO file."""
    files: tuple[str, ...]
    """The images a hand was found in."""
    weights: tuple[float, ...]
    """Of each of `files`; their sum is 1."""
    shape_sd: Float[np.ndarray, " 10"] | None = None
    hand_length_sd_mm: float | None = None
    hand_width_sd_mm: float | None = None
    assumed_camera: bool = False
    """Whether an image's camera was not known: millimetres are then as uncertain as its focal length."""

    def __post_init__(self) -> None:
        for name, size in (("shape", 10), ("bone_lengths_mm", len(BONES)), ("shape_sd", 10)):
            value = getattr(self, name)
            if value is not None:
                object.__setattr__(self, name, _numbers(name, value, size))
        lengths = [("hand_length_mm", self.hand_length_mm), ("hand_width_mm", self.hand_width_mm)]
        lengths += [("bone_lengths_mm", float(length)) for length in self.bone_lengths_mm]
        for name, length in lengths:
            if not 0 < length < 1000:
                raise FormatError(f"{name} is {length}, expected millimetres of a hand")
        for name in ("hand_length_sd_mm", "hand_width_sd_mm"):
            value = getattr(self, name)
            if value is not None and not 0 <= value < _LARGEST:
                raise FormatError(f"{name} is {value}, expected millimetres from 0, or null")
        if not self.files or len(self.files) != len(self.weights):
            raise FormatError(
                f"images: found {len(self.files)} files and {len(self.weights)} weights, expected as many"
            )
        if not all(0 <= weight <= 1 for weight in self.weights) or not math.isclose(
            sum(self.weights), 1, abs_tol=1e-3
        ):
            raise FormatError("images: the weights are not shares of one")

    @property
    def n(self) -> int:
        """How many images spoke."""
        return len(self.files)

    def bone_mm(self, bone: tuple[int, int]) -> float:
        """Length of one bone (parent, child), the scale of a system whose unit it is."""
        return float(self.bone_lengths_mm[BONES.index(bone)])

    @property
    def hand_mm(self) -> float:
        """Wrist to middle fingertip along the bones: the hand length of `hand.RELATIVE_FRAME`."""
        return sum(self.bone_mm(bone) for bone in itertools.pairwise(MIDDLE_FINGER))

    def summary(self) -> dict[str, Any]:
        """What `handgraph personalize --json` prints."""
        return {
            "shape": _plain(self.shape),
            "hand_length_mm": round(self.hand_length_mm, 3),
            "hand_width_mm": round(self.hand_width_mm, 3),
            "weights": [round(weight, 6) for weight in self.weights],
            "n": self.n,
            "shape_sd": _plain(self.shape_sd),
            "hand_length_sd_mm": _rounded(self.hand_length_sd_mm),
            "hand_width_sd_mm": _rounded(self.hand_width_sd_mm),
            "bone_lengths_mm": _plain(self.bone_lengths_mm),
            "model": self.model,
            "hand_model": self.hand_model,
            "assumed_camera": self.assumed_camera,
        }


def write_subject(path: str | Path, subject: Subject) -> None:
    """Write a subject as JSON, whole or not at all. Raises InputError where it cannot be written."""
    document = {"format": FORMAT, "version": VERSION, **subject.summary(), "files": list(subject.files)}
    with atomic_write(path) as part:
        part.write_text(json.dumps(document, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def read_subject(path: str | Path) -> Subject:
    """Read what `write_subject` wrote. Raises FormatError: one line with the file and what is wrong."""
    path = Path(path)
    try:
        if path.stat().st_size > MAX_FILE_BYTES:
            raise FormatError(f"found {path.stat().st_size} bytes, too large for a subject")
        document = json.loads(path.read_text(encoding="utf-8"))
        return _subject(document)
    except OSError as error:
        raise FormatError(f"{path}: cannot be read ({error.strerror})") from None
    except (json.JSONDecodeError, UnicodeDecodeError, RecursionError) as error:
        reason = str(error).splitlines()[0]
        raise FormatError(f"{path}: not JSON ({reason}), expected what `personalize` wrote") from None
    except FormatError as error:
        raise FormatError(f"{path}: {error}") from None


def personalize(
    hands: Sequence[Hand],
    files: Sequence[str],
    model: str,
    layer: "HandLayer | None" = None,
    *,
    attention: bool = True,
    temperature: float | None = None,
    shape_error: Sequence[float] | None = None,
) -> Subject:
    """One subject from hands of one person in several images.

    Hands of `identity_mesh`, and those laid on a depth frame's surface, have shape and pose of their own:
    Eq. 6.7 (`calibrate`). Of all other hands the joints' distances are taken (`calibrate_from_joints`).

    Args:
        hands: of the same person, left or right.
        files: what to call the images.
        model: the system that predicted them.
        layer: the hand model, a right hand; the open hand by default.
        attention: weigh the images by the hands' scores (Eq. 6.6), as far as `temperature` says, by default
            the paper's.
        shape_error: of the hands' shapes, as `calibrate` takes it.

    Raises:
        InputError: no hand, or hands without millimetres.
    """
    from handgraph.hand_model import HandLayer  # PyTorch: a subject that is only read needs none
    from handgraph.hand_model.calibration import TEMPERATURE, bone_lengths_mm, calibrate_from_joints

    if not hands:
        raise InputError("no hand was found in any of the images")
    layer = layer or HandLayer()
    temperature = TEMPERATURE if temperature is None else temperature
    scores = np.array([hand.score for hand in hands], np.float64)
    laid = all(hand.shape is not None and hand.pose is not None for hand in hands)
    if model == "identity_mesh" and not laid:
        raise InputError("a hand of identity_mesh without shape or pose")
    for hand, file in zip(hands, files, strict=True):
        relative = hand.joints_mm is None or hand.frame.startswith(RELATIVE_FRAME)
        if relative and model != "identity_mesh":
            raise InputError(
                f"{file}: {model} does not give millimetres, so it cannot tell the size of a hand; "
                "use identity_mesh, or jgr_p2o with depth frames"
            )
    if laid:
        calibration = _by_meshes(layer, hands, scores if attention else None, temperature, shape_error)
    else:
        joints = np.stack([np.asarray(hand.joints_mm, np.float64) for hand in hands])
        calibration = calibrate_from_joints(
            layer, joints, scores if attention else None, temperature=temperature
        )
    return Subject(
        shape=calibration.shape,
        hand_length_mm=calibration.hand_length_mm,
        hand_width_mm=calibration.hand_width_mm,
        bone_lengths_mm=bone_lengths_mm(layer, calibration.shape),
        model=model,
        hand_model=layer.model.name,
        files=tuple(files),
        weights=tuple(float(weight) for weight in calibration.weights),
        shape_sd=calibration.shape_sd,
        hand_length_sd_mm=calibration.hand_length_sd_mm,
        hand_width_sd_mm=calibration.hand_width_sd_mm,
        assumed_camera=any(hand.frame.endswith(ASSUMED_CAMERA) for hand in hands),
    )


def personalize_files(
    paths: Sequence[str | Path],
    estimate: Any,
    *,
    camera: PinholeCamera | None = None,
    side: Side | None = None,
    depth_scale: float | None = None,
    attention: bool = True,
    temperature: float | None = None,
) -> tuple[Subject, list[str]]:
    """`personalize` from image files, depth frames or photographs as the estimator takes them.

    Returns the subject and, for each image that had no part in it, a line that says why. Raises InputError
    where no image had.
    """
    depth = not _is_colour(estimate)
    hands: list[Hand] = []
    files: list[str] = []
    problems: list[str] = []
    for path in map(str, paths):
        try:
            if depth:
                frame = read_depth(path, depth_scale)
                found = estimate(frame.depth_mm, camera=camera or frame.camera, side=side or "right")
            else:
                if not is_photo(path):
                    raise InputError(f"{path}: not a photograph, which {estimate.name} needs")
                found = estimate(read_image(path), camera=camera, side=side)
            if not found:
                raise InputError(f"{path}: no hand found")
        except HandgraphError as error:
            problems.append(str(error) if path in str(error) else f"{path}: {error}")
            continue
        hands.append(max(found, key=lambda hand: hand.score))
        files.append(path)
    if not hands:
        first = f" ({problems[0]})" if problems else ""
        raise InputError(f"no hand was found in any of the {len(paths)} images{first}")
    subject = personalize(
        hands,
        files,
        estimate.name,
        attention=attention,
        temperature=temperature,
        # Of weights of one's own it is not known, and taken to be that of the shipped ones.
        shape_error=SHAPE_ERROR if depth else estimate.meta.get("shape_error"),
    )
    return subject, problems


def _is_colour(estimate: Any) -> bool:
    return str(estimate.input) == "colour"


def _by_meshes(
    layer: "HandLayer",
    hands: Sequence[Hand],
    scores: np.ndarray | None,
    temperature: float,
    shape_error: Sequence[float] | None,
) -> "Calibration":
    """Eq. 6.7. A left hand's pose is mirrored: the shape is the same and so is the distance of meshes."""
    from handgraph.hand_model.calibration import calibrate

    mirror = np.tile([1.0, -1.0, -1.0], 16)
    poses = np.stack([np.asarray(h.pose, np.float64) * (mirror if h.side == "left" else 1.0) for h in hands])
    confidence = None
    if scores is not None:
        # Of hands from a file the score's log-odds stand for the network's own word about the shape.
        odds = np.log(scores.clip(1e-6, 1 - 1e-6) / (1 - scores).clip(1e-6, 1))
        given = [hand.shape_confidence for hand in hands]
        confidence = np.array([o if c is None else c for c, o in zip(given, odds, strict=True)])
    shapes = np.stack([np.asarray(hand.shape, np.float64) for hand in hands])
    return calibrate(layer, shapes, poses, confidence, temperature=temperature, shape_error=shape_error)


def _subject(document: Any) -> Subject:
    if not isinstance(document, dict) or document.get("format") != FORMAT:
        raise FormatError(f"expected an object with format {FORMAT!r}")
    if document.get("version") != VERSION:
        raise FormatError(f"version is {document.get('version')!r}, this handgraph reads {VERSION}")
    wanted = ("shape", "hand_length_mm", "hand_width_mm", "bone_lengths_mm", "model", "hand_model")
    for key in (*wanted, "files", "weights"):
        if key not in document:
            raise FormatError(f"the key {key!r} is missing")
    for key in ("model", "hand_model"):
        if not isinstance(document[key], str):
            raise FormatError(f"{key} is {document[key]!r}, expected text")
    files = document["files"]
    if not isinstance(files, list) or not all(isinstance(file, str) for file in files):
        raise FormatError("files: expected a list of names")
    sd = document.get("shape_sd")
    return Subject(
        shape=_numbers("shape", document["shape"], 10),
        hand_length_mm=_number("hand_length_mm", document["hand_length_mm"]),
        hand_width_mm=_number("hand_width_mm", document["hand_width_mm"]),
        bone_lengths_mm=_numbers("bone_lengths_mm", document["bone_lengths_mm"], len(BONES)),
        model=document["model"],
        hand_model=document["hand_model"],
        files=tuple(files),
        weights=tuple(_numbers("weights", document["weights"], len(files)).tolist()),
        shape_sd=None if sd is None else _numbers("shape_sd", sd, 10),
        hand_length_sd_mm=_optional("hand_length_sd_mm", document),
        hand_width_sd_mm=_optional("hand_width_sd_mm", document),
        assumed_camera=document.get("assumed_camera", False) is True,
    )


def _optional(name: str, document: dict[str, Any]) -> float | None:
    value = document.get(name)
    return None if value is None else _number(name, value)


def _number(name: str, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise FormatError(f"{name} is {str(value)[:40]!r}, expected a number")
    return float(value)


def _numbers(name: str, values: Any, size: int) -> np.ndarray:
    try:
        array = np.asarray(values)
        if array.dtype.kind not in "iuf":
            raise ValueError
        array = array.astype(np.float64)
    except (TypeError, ValueError, OverflowError):
        raise FormatError(f"{name}: expected {size} numbers") from None
    if array.shape != (size,):
        raise FormatError(f"{name}: found shape {array.shape}, expected ({size},)")
    if not (np.isfinite(array).all() and (np.abs(array) < _LARGEST).all()):
        raise FormatError(f"{name}: holds a number that cannot be a hand's")
    return array


def _plain(array: np.ndarray | None) -> list[float] | None:
    return None if array is None else np.round(array, 6).tolist()


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 3)
