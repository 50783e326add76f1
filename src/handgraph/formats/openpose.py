"""OpenPose's JSON: one file a frame, the hands as flat lists of 21 times u, v, confidence.

OpenPose says neither what its 3D keypoints' unit is nor where their axes point, so the reader must be told.
A confidence of 0 means that a keypoint was not found.
"""

import re
import secrets
import shutil
from pathlib import Path
from typing import Any

import numpy as np

from handgraph.errors import FormatError, InputError
from handgraph.formats.clip import CANONICAL_ORDERS, Clip, ClipFrame, ClipHand, Conventions
from handgraph.formats.converted import parse, read_text
from handgraph.formats.predictions import need, place, write_text_json
from handgraph.hand import Side

VERSION = 1.3
SIDES: tuple[Side, ...] = ("left", "right")
JOINTS = 21
_NUMBERED = re.compile(r"(.*?)_?(\d+)_keypoints\.json")


def read_openpose(path: str | Path, said: Conventions) -> Clip:
    """A file, or a folder of `NAME_000000000012_keypoints.json`. Raises InputError, FormatError.

    `said` states unit, axes and root of 3D keypoints, where there are any.
    """
    path = Path(path)
    if path.is_dir():
        files = sorted(path.glob("*_keypoints.json"))
        if not files:
            raise InputError(f"{path}: no file *_keypoints.json is in this folder")
    else:
        files = [path]
    frames = []
    for place_in_folder, file in enumerate(files):
        numbered = _NUMBERED.fullmatch(file.name)
        index = int(numbered[2]) if numbered and path.is_dir() else place_in_folder
        document = parse(read_text(file), file)
        with place(str(file)):
            hands = []
            for number, person in enumerate(need(document, "people", list)):
                with place(f"person {number}"):
                    hands += _hands(person)
            frames.append(ClipFrame(index, tuple(hands)))
    with place(str(path)):
        if len({frame.index for frame in frames}) < len(frames):
            raise FormatError("two files have the same frame number")
        clip = Clip(Conventions(order="openpose").stated(said), tuple(frames), "openpose")
        if clip.has("points"):
            for name in ("unit", "axes", "root"):
                clip.conventions.need(name)
    return clip


def _hands(person: Any) -> list[ClipHand]:
    track = person.get("person_id") if isinstance(person, dict) else None
    number = track[0] if isinstance(track, list) and track and type(track[0]) is int else -1
    hands = []
    for side in SIDES:
        flat, confidence = _keypoints(person, f"hand_{side}_keypoints_2d", 2)
        deep, confidence_3d = _keypoints(person, f"hand_{side}_keypoints_3d", 3)
        if flat is None and deep is None:
            continue
        hands.append(
            ClipHand(
                side=side,
                track=None if number < 0 else number,
                points_px=flat,
                points=deep,
                confidence=confidence if confidence is not None else confidence_3d,
            )
        )
    return hands


def _keypoints(person: Any, key: str, width: int) -> tuple[np.ndarray | None, np.ndarray | None]:
    if not isinstance(person, dict):
        raise FormatError(f"expected an object, found {type(person).__name__}")
    numbers = need(person, key, list) if key in person else []
    if not numbers:
        return None, None
    if len(numbers) != JOINTS * (width + 1):
        raise FormatError(f"{key} has {len(numbers)} numbers, expected {JOINTS} x {width + 1}")
    try:
        rows = np.array(numbers, dtype=np.float64).reshape(JOINTS, width + 1)
    except (TypeError, ValueError, OverflowError) as error:
        raise FormatError(f"{key} is not a list of numbers ({error})") from error
    if not (np.isfinite(rows).all() and (rows[:, width] >= 0).all() and (rows[:, width] <= 1).all()):
        raise FormatError(f"{key}: a number is not finite, or a confidence not from 0 to 1")
    if not rows[:, width].any():  # OpenPose writes zeros for a hand that it did not look for
        return None, None
    points, confidence = rows[:, :width], rows[:, width]
    points[confidence == 0] = np.nan
    return points, confidence


def write_openpose(path: str | Path, clip: Clip) -> None:
    """One frame to a file, several to a folder that does not exist yet. One person a hand.

    Raises FormatError for a hand without side, another joint order, 3D keypoints that do not state unit, axes
    and root; InputError where it cannot be written.
    """
    path = Path(path)
    if clip.conventions.need("order") not in CANONICAL_ORDERS:
        raise FormatError(
            f"order is {clip.conventions.order}: OpenPose's files have their own, --to openpose"
        )
    if clip.has("points"):
        for name in ("unit", "axes", "root"):
            clip.conventions.need(name)
    documents = [
        {"version": VERSION, "people": [_person(hand) for hand in frame.hands]} for frame in clip.frames
    ]
    if len(documents) == 1 and path.suffix:
        write_text_json(path, documents[0])
        return
    if path.suffix:
        raise FormatError(f"{path}: {len(documents)} frames need a folder, OpenPose has a file for each")
    if path.exists():
        raise InputError(f"{path}: exists, expected the name of a new folder")
    part = path.with_name(f".{path.name}.{secrets.token_hex(4)}.part")
    try:
        for frame, document in zip(clip.frames, documents, strict=True):
            write_text_json(part / f"{path.name}_{frame.index:012d}_keypoints.json", document)
        part.rename(path)
    except OSError as error:
        raise InputError(f"{path}: cannot be written ({error.strerror or error})") from error
    finally:
        if part.is_dir():
            shutil.rmtree(part)


def _person(hand: ClipHand) -> dict[str, Any]:
    side = hand.need("side")
    if hand.points_px is None and hand.points is None:
        raise FormatError("points_px is missing: OpenPose's files hold keypoints")
    person: dict[str, Any] = {"person_id": [-1 if hand.track is None else hand.track]}
    for name in ("pose_keypoints_2d", "face_keypoints_2d"):
        person[name] = []
    for width, points in ((2, hand.points_px), (3, hand.points)):
        for each in SIDES:
            key = f"hand_{each}_keypoints_{width}d"
            person[key] = [] if each != side or points is None else _flat(hand, points)
    return person


def _flat(hand: ClipHand, points: np.ndarray) -> list[float]:
    there = ~np.isnan(points).any(axis=1)
    confidence = there.astype(np.float64) if hand.confidence is None else np.nan_to_num(hand.confidence)
    # What is there must not seem absent: a confidence of 0 would say so.
    confidence = np.where(there, np.maximum(confidence, 1e-6), 0.0)
    return [float(value) for value in np.concatenate([np.nan_to_num(points), confidence[:, None]], 1).ravel()]
