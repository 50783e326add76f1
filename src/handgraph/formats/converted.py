"""Clips as JSON and as JSON Lines: what `predict` writes, or with other conventions, which they then state.

A document of other conventions has the format name "handgraph hands" and an object `conventions` that says
what its numbers mean. Numbers have ten digits, so that millimetres keep their ten-thousandths.
"""

import json
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import Any

import numpy as np

from handgraph.camera import PinholeCamera
from handgraph.errors import FormatError, InputError
from handgraph.files import atomic_write
from handgraph.formats.clip import ARRAYS, CANONICAL_ORDERS, Clip, ClipFrame, ClipHand, Conventions, hand_of
from handgraph.formats.document import VERSION, document_of
from handgraph.formats.lines import FORMAT as CLIP_FORMAT
from handgraph.formats.lines import ClipHeader, camera_from_dict, header_from_dict, number
from handgraph.formats.predictions import ROOT, UNITS, need, place, write_text_json
from handgraph.hand import CAMERA_FRAME, ORDER, RELATIVE_FRAME, Hand
from handgraph.skeleton import JOINT_NAMES

FORMAT = "handgraph hands"
MAX_FILE_BYTES = 2**30
WRIST_FRAME = "relative to the wrist: x right, y down, z forward, millimetres"
_WRIST_FRAMES = (WRIST_FRAME, WRIST_FRAME + " of the hand model")


# Reading -------------------------------------------------------------------------------------------------


def read_text(path: str | Path) -> bytes:
    """The bytes of a file of at most a gigabyte. Raises InputError where it cannot be read or is larger."""
    try:
        if Path(path).stat().st_size > MAX_FILE_BYTES:
            raise InputError(f"{path}: larger than {MAX_FILE_BYTES:,} bytes")
        return Path(path).read_bytes()
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from error


def parse(content: bytes | str, path: str | Path) -> Any:
    """A JSON value without NaN and infinities. Raises FormatError."""

    def refuse(name: str) -> Any:
        raise ValueError(f"it holds {name}, which is no JSON")

    try:
        return json.loads(content, parse_constant=refuse)
    except (ValueError, RecursionError) as error:
        raise FormatError(f"{path}: not a whole JSON document ({error})") from error


def read_clip_json(path: str | Path) -> Clip:
    """A document of `predict`, or one of the converter. Raises InputError, FormatError."""
    document = parse(read_text(path), path)
    with place(str(path)):
        if isinstance(document, dict) and document.get("format") == FORMAT:
            return clip_from_header(document, enumerate(need(document, "frames", list)))
        return clip_from_predictions(document)


def read_clip_lines(path: str | Path) -> Clip:
    """A clip of JSON Lines, of `predict` or of the converter. Raises InputError, FormatError."""
    rows = []
    for count, line in enumerate(read_text(path).split(b"\n"), start=1):
        if line:
            rows.append((count, parse(line, f"{path}: line {count}")))
    if not rows:
        raise FormatError(f"{path}: the file is empty, expected a line that states {CLIP_FORMAT!r}")
    with place(str(path)):
        if isinstance(rows[0][1], dict) and rows[0][1].get("format") == FORMAT:
            if "frames" in rows[0][1]:
                raise FormatError("a JSON document, expected JSON Lines: read it as json")
            return clip_from_header(rows[0][1], rows[1:], "line")
        with place("line 1"):
            header = header_from_dict(rows[0][1])
        once = {key: header.to_dict()[key] for key in ("joint_names", "order", "frame", "camera")}
        frames: list[ClipFrame] = []
        words: set[str] = set()
        for count, record in rows[1:]:
            with place(f"line {count}"):
                hands = []
                for index, hand in enumerate(need(record, "hands", list)):
                    with place(f"hand {index}"):
                        hands.append(_own_hand(once | need({"hand": hand}, "hand", dict), words))
                frames.append(
                    ClipFrame(
                        need(record, "index", int),
                        tuple(hands),
                        _text(record, "file"),
                        number(record, "time_s"),
                        header.size_px,
                        _text(record, "error"),
                    )
                )
        about = {"source": header.source, "smoothing": dict(header.smoothing), **header.extra}
        return Clip(_own_conventions(words), tuple(frames), header.model, header.fps, about)


def clip_from_predictions(document: Any) -> Clip:
    """The clip of a `predict --json` document. Raises FormatError."""
    model = need(document, "model", str)
    if document.get("version", VERSION) != VERSION:
        raise FormatError(f"version {document['version']} of the document, this handgraph reads {VERSION}")
    for key, expected in (("units", UNITS), ("order", ORDER), ("root", ROOT)):
        if document.get(key, expected) != expected:
            raise FormatError(f"{key!r} is {document[key]!r}, this handgraph reads {expected!r}")
    frames: list[ClipFrame] = []
    words: set[str] = set()
    for index, image in enumerate(need(document, "images", list)):
        with place(f"image {index}"):
            hands = []
            for count, hand in enumerate(need(image, "hands", list)):
                with place(f"hand {count}"):
                    hands.append(_own_hand(need({"hand": hand}, "hand", dict), words))
            file = need(image, "file", str)
            frames.append(
                ClipFrame(
                    index, tuple(hands), file, None, size_of(image.get("size_px")), _text(image, "error")
                )
            )
    return Clip(_own_conventions(words), tuple(frames), model)


def _own_hand(record: dict[str, Any], words: set[str]) -> ClipHand:
    """A hand in handgraph's own conventions; `words` collects how its frame is described."""
    hand = Hand.from_dict(record)  # what it checks need not be checked again; its float32 is not taken
    if hand.joints_mm is not None or hand.vertices_mm is not None:
        words.add(hand.frame)
    if len(words) > 1:
        raise FormatError(f"frame is {hand.frame!r}, that of the hands before it is not: convert them apart")
    pose = None if hand.pose is None else np.reshape(np.asarray(record["pose"], float), (16, 3))
    return hand_of(
        {
            "side": hand.side,
            "score": float(record["score"]),
            "track": record.get("track"),
            "points_px": record["keypoints_px"],
            "points": record.get("joints_mm"),
            "vertices": record.get("vertices_mm"),
            "rotations": pose,
            "shape": record.get("shape"),
            "confidence": record.get("confidence"),
            "box_px": record["box_px"],
            "camera": hand.camera,
        }
    )


def _own_conventions(words: set[str]) -> Conventions:
    canonical = Conventions("openpose", "mm", "opencv", "camera", "axis_angle", "flat")
    for frame in words:
        for start, unit, root in (
            (CAMERA_FRAME, "mm", "camera"),
            (RELATIVE_FRAME, "hand", "wrist"),
            (_WRIST_FRAMES[1], "mm", "wrist"),
            (_WRIST_FRAMES[0], "mm", "wrist"),
        ):
            if frame.startswith(start):
                return replace(canonical, unit=unit, root=root, note=frame[len(start) :])
        raise FormatError(f"frame is {frame!r}, which does not say unit, axes and root in handgraph's words")
    return canonical


def clip_from_header(header: dict[str, Any], rows: Iterable[tuple[int, Any]], name: str = "frame") -> Clip:
    """The clip of a header with `conventions` and of its frames. Raises FormatError."""
    if need(header, "version", int) != VERSION:
        raise FormatError(f"version {header['version']} of the document, this handgraph reads {VERSION}")
    frames = []
    for count, row in rows:
        with place(f"{name} {count}"):
            hands = []
            for index, hand in enumerate(need(row, "hands", list)):
                with place(f"hand {index}"):
                    hands.append(hand_from_record(hand))
            frames.append(
                ClipFrame(
                    need(row, "index", int),
                    tuple(hands),
                    _text(row, "file"),
                    None if row.get("time_s") is None else number(row, "time_s"),
                    size_of(row.get("size_px")),
                    _text(row, "error"),
                )
            )
    return Clip(
        conventions_from(need(header, "conventions", dict)),
        tuple(frames),
        need(header, "model", str),
        None if header.get("fps") is None else number(header, "fps"),
        need(header, "about", dict) if header.get("about") else {},
    )


def conventions_from(record: dict[str, Any]) -> Conventions:
    """The inverse of `asdict`. Raises FormatError for a key or value that is not one of `Conventions`."""
    known = {item.name for item in fields(Conventions)}
    for key, value in record.items():
        if key not in known:
            raise FormatError(f"conventions: the key {key!r} is not known")
        kind: Any = int if key == "components" else str
        if value is not None:
            need(record, key, kind)
    return Conventions(**record)


def hand_from_record(record: Any) -> ClipHand:
    """The inverse of `hand_record`. Raises FormatError."""
    if not isinstance(record, dict):
        raise FormatError(f"expected an object, found {type(record).__name__}")
    values = dict(record)
    camera = values.pop("camera", None)
    known = {item.name for item in fields(ClipHand)}
    for key in values:
        if key not in known:
            raise FormatError(f"the key {key!r} is not known")
    for name in ("points_px", "points"):  # a joint that is not there is null
        rows = values.get(name)
        if isinstance(rows, list):
            values[name] = [[None] * ARRAYS[name] if row is None else row for row in rows]
    return hand_of(values | {"camera": None if camera is None else camera_from_dict(camera)})


def size_of(value: Any) -> tuple[int, int] | None:
    """(width, height) of a list of two whole numbers, or None. Raises FormatError."""
    if value is None:
        return None
    if not (isinstance(value, list) and len(value) == 2 and all(type(v) is int and v > 0 for v in value)):
        raise FormatError(f"'size_px' is {str(value)[:40]}, expected [width, height] in whole pixels")
    return value[0], value[1]


def _text(record: dict[str, Any], key: str) -> str | None:
    return None if record.get(key) is None else str(need(record, key, str))


# Writing -------------------------------------------------------------------------------------------------


def write_clip_json(path: str | Path, clip: Clip) -> None:
    """Write a clip as JSON: as `predict` does if it can be, else with its conventions stated."""
    header, rows = _header_and_rows(clip)
    if "format" not in header:
        write_text_json(path, own_document(clip))
    else:
        write_text_json(path, {**header, "frames": list(rows)})


def write_clip_lines(path: str | Path, clip: Clip) -> None:
    """Write a clip as JSON Lines: as `LinesWriter` does if it can be, else with its conventions stated."""
    header, rows = _header_and_rows(clip)
    timed = clip.fps is not None or all(frame.time_s is not None for frame in clip.frames)
    if "format" not in header and timed:
        header, rows = _own_lines(clip)
    elif "format" not in header:
        header, rows = header_of(clip), (frame_record(frame) for frame in clip.frames)
    with atomic_write(path) as part, part.open("w", encoding="utf-8") as file:
        for value in (header, *rows):
            file.write(json.dumps(value, allow_nan=False, separators=(",", ":")) + "\n")


def is_own(clip: Clip) -> bool:
    """Whether every hand can be a `Hand`: whole, and in handgraph's own conventions."""
    return _why_not_own(clip) is None


def _why_not_own(clip: Clip) -> str | None:
    says = clip.conventions
    three_d = clip.has("points") or clip.has("vertices")
    if says.order not in CANONICAL_ORDERS:
        return "order"
    if three_d and (says.unit not in ("mm", "hand") or says.axes != "opencv"):
        return "unit"
    if three_d and (says.unit, says.root) not in (("mm", "camera"), ("mm", "wrist"), ("hand", "wrist")):
        return "root"
    if clip.has("rotations") and (says.rotation, says.zero) != ("axis_angle", "flat"):
        return "rotation"
    if clip.has("rotations") and says.hand_model not in (None, "open_hand"):
        return "hand_model"
    for hand in clip.hands:
        for name in ("side", "score", "points_px", "box_px"):
            if getattr(hand, name) is None:
                return name
        if hand.root_at is not None:
            return "root_at"
        for name in ("points_px", "points", "confidence"):
            value = getattr(hand, name)
            if value is not None and np.isnan(value).any():
                return name
    return None


def own_record(hand: ClipHand, conventions: Conventions) -> dict[str, Any]:
    """`Hand.to_dict()` of a hand in handgraph's own conventions, with all its digits."""
    frame = CAMERA_FRAME
    if conventions.root == "wrist":
        frame = RELATIVE_FRAME if conventions.unit == "hand" else WRIST_FRAME
    record = {
        "side": hand.side,
        "score": hand.score,
        "joint_names": list(JOINT_NAMES),
        "keypoints_px": plain(hand.points_px),
        "joints_mm": plain(hand.points),
        "vertices_mm": plain(hand.vertices),
        "pose": None if hand.rotations is None else plain(hand.rotations.reshape(48)),
        "shape": plain(hand.shape),
        "confidence": plain(hand.confidence),
        "box_px": plain(hand.box_px),
        "camera": camera_record(hand.camera),
        "frame": frame + conventions.note,
        "order": ORDER,
    }
    Hand.from_dict(record)
    return record if hand.track is None else {"track": hand.track} | record


def own_document(clip: Clip) -> dict[str, Any]:
    """The document that `predict --json` prints. Raises FormatError where the clip's hands are no `Hand`s."""
    why = _why_not_own(clip)
    if why is not None:
        value = getattr(clip.conventions, why, None)
        stated = f"is {value}" if value is not None else "is missing, or not whole"
        raise FormatError(f"{why} {stated}, so these are no hands in handgraph's own conventions")
    images = []
    for frame in clip.frames:
        record: dict[str, Any] = {"file": frame.file if frame.file is not None else f"frame {frame.index}"}
        record["hands"] = [own_record(hand, clip.conventions) for hand in frame.hands]
        if frame.size_px is not None:
            record["size_px"] = list(frame.size_px)
        if frame.error is not None:
            record["error"] = frame.error
        images.append(record)
    return document_of(clip.model, images)


def _own_lines(clip: Clip) -> tuple[dict[str, Any], Iterator[dict[str, Any]]]:
    about = dict(clip.about)
    cameras, sizes = {hand.camera for hand in clip.hands}, {frame.size_px for frame in clip.frames}
    records = [[own_record(hand, clip.conventions) for hand in frame.hands] for frame in clip.frames]
    words = [record["frame"] for row in records for record in row]
    header = ClipHeader(
        clip.model,
        frame=words[0] if words else CAMERA_FRAME,
        camera=cameras.pop() if len(cameras) == 1 else None,
        source=about.pop("source", None),
        size_px=sizes.pop() if len(sizes) == 1 else None,
        fps=clip.fps,
        smoothing=about.pop("smoothing", None) or {"name": "none"},
        extra=about,
    ).to_dict()

    def rows() -> Iterator[dict[str, Any]]:
        for frame, hands in zip(clip.frames, records, strict=True):
            row: dict[str, Any] = {"index": frame.index, "time_s": time_of(clip, frame)}
            row["hands"] = []
            for hand, record in zip(frame.hands, hands, strict=True):
                kept = {
                    key: value
                    for key, value in record.items()
                    if (value is not None or key == "camera")
                    and not (key in ("joint_names", "order", "frame", "camera") and value == header[key])
                }
                row["hands"].append({"track": hand.track} | kept)
            for key in ("error", "file"):
                if getattr(frame, key) is not None:
                    row[key] = getattr(frame, key)
            yield row

    return header, rows()


def time_of(clip: Clip, frame: ClipFrame) -> float:
    """Seconds from the start. Raises FormatError where neither times nor frames a second are known."""
    if frame.time_s is not None:
        return frame.time_s
    if clip.fps is None:
        raise FormatError("fps is missing: give the frames a second with --fps")
    return frame.index / clip.fps


def _header_and_rows(clip: Clip) -> tuple[dict[str, Any], Iterator[dict[str, Any]]]:
    """Header and frames with conventions stated; an empty header where they are handgraph's own."""
    if is_own(clip):
        return {}, iter(())
    check_stated(clip)
    return header_of(clip), (frame_record(frame) for frame in clip.frames)


def check_stated(clip: Clip) -> None:
    """Raise FormatError, naming it, where the clip does not state what its numbers mean."""
    says = clip.conventions
    if clip.has("points_px") or clip.has("points"):
        says.need("order")
    if clip.has("points") or clip.has("vertices"):
        for name in ("unit", "axes", "root"):
            says.need(name)
    if clip.has("rotations"):
        for name in ("rotation", "zero", "hand_model", "axes"):
            says.need(name)
    clip.map(lambda hand, _: (hand.need("side"), hand)[1])


def header_of(clip: Clip) -> dict[str, Any]:
    """What a converted file says of itself."""
    says = clip.conventions
    header = {
        "format": FORMAT,
        "version": VERSION,
        "model": clip.model,
        "conventions": asdict(says),
        "joint_names": None if says.order is None else list(says.joints.names),
        "meaning": meaning(says),
        "fps": clip.fps,
        "about": clip.about,
        "notes": list(clip.notes),
    }
    return header


def meaning(says: Conventions) -> dict[str, str]:
    """The conventions in words, for people."""
    words = {"points_px": "pixels, u right and v down, pixel centres at integers; null: not there"}
    if says.unit == "px":
        words["points"] = "u and v in pixels, depth in millimetres"
    elif says.unit is not None:
        axes = {"opencv": "x right, y down, z forward", "opengl": "x right, y up, z backward"}
        absolute = says.root == "camera"
        root = "from the camera" if absolute else f"from the {says.root}; root_at is where that is"
        words["points"] = f"{says.unit}, {axes.get(str(says.axes), 'axes not stated')}, {root}{says.note}"
    if says.rotation is not None:
        count = f" ({says.components} principal poses)" if says.components else ""
        words["rotations"] = (
            f"{says.rotation}{count} of {says.hand_model}, the global one, then MANO's 15 joints; "
            f"zero is the {says.zero} hand"
        )
    return words


def frame_record(frame: ClipFrame) -> dict[str, Any]:
    """A frame as plain JSON."""
    record: dict[str, Any] = {"index": frame.index}
    for key in ("file", "time_s", "error"):
        if getattr(frame, key) is not None:
            record[key] = getattr(frame, key)
    if frame.size_px is not None:
        record["size_px"] = list(frame.size_px)
    return record | {"hands": [hand_record(hand) for hand in frame.hands]}


def hand_record(hand: ClipHand) -> dict[str, Any]:
    """A hand as plain JSON, without what it does not have."""
    record = {name: getattr(hand, name) for name in ("track", "side", "score")}
    record |= {name: plain(getattr(hand, name)) for name in ARRAYS} | {"camera": camera_record(hand.camera)}
    return {key: value for key, value in record.items() if value is not None}


def plain(array: np.ndarray | None) -> Any:
    """Lists of numbers with ten digits; null for a row, or a number, that is not there."""
    if array is None:
        return None
    with np.errstate(divide="ignore", invalid="ignore"):
        digits = 9 - np.floor(np.log10(np.maximum(np.abs(array), 1e-5)))
        scale = 10.0 ** np.nan_to_num(digits)
        values = (np.round(array * scale) / scale).tolist()
    if np.isnan(array).any():
        gone = np.isnan(array) if array.ndim == 1 else np.isnan(array).all(axis=1)
        values = [None if missing else value for value, missing in zip(values, gone, strict=True)]
    return values


def camera_record(camera: PinholeCamera | None) -> dict[str, float] | None:
    """A camera as plain JSON."""
    if camera is None:
        return None
    return {"fx": camera.fx, "fy": camera.fy, "cx": camera.cx, "cy": camera.cy}


def sniff(path: str | Path) -> str | None:
    """Which JSON this is: "json", "coco" or "openpose"; None where it is none of them or cannot be read."""
    with suppress(InputError, FormatError):
        document = parse(read_text(path), path)
        if isinstance(document, dict):
            for key, kind in (
                ("people", "openpose"),
                ("annotations", "coco"),
                ("images", "json"),
                ("frames", "json"),
            ):
                if key in document:
                    return kind
    return None
