"""JSON Lines: a clip, one line a frame after a line that says what the numbers mean.

Written and read a line at a time, so that a clip of any length needs the memory of one frame, and a run that
was interrupted can go on where it stopped.
"""

import itertools
import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import IO, Any

from handgraph.camera import PinholeCamera
from handgraph.errors import ConfigError, FormatError, InputError
from handgraph.formats.predictions import ROOT, UNITS, need, place
from handgraph.hand import CAMERA_FRAME, ORDER, Hand
from handgraph.skeleton import JOINT_NAMES

FORMAT = "handgraph clip"
VERSION = 1
MAX_LINE_BYTES = 64 * 2**20
"""A frame with a hundred meshes has a tenth of this."""
_STATED_ONCE = ("joint_names", "order", "frame", "camera")


@dataclass(frozen=True)
class ClipHeader:
    """What holds for a whole clip.

    model      the system that looked at it
    frame      in words, what `joints_mm` mean; a hand with another frame says so itself
    camera     of all frames, or None
    source     the file it came from, or None
    size_px    (width, height) of a frame, or None
    fps        frames a second of the source, or None
    smoothing  its name and settings; {"name": "none"} for the system's own numbers
    extra      anything else that is plain JSON, under keys of its own
    """

    model: str
    frame: str = CAMERA_FRAME
    camera: PinholeCamera | None = None
    source: str | None = None
    size_px: tuple[int, int] | None = None
    fps: float | None = None
    smoothing: Mapping[str, Any] = field(default_factory=lambda: {"name": "none"})
    extra: Mapping[str, Any] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Plain Python for JSON."""
        camera = self.camera
        return {
            "format": FORMAT,
            "version": VERSION,
            "model": self.model,
            "units": UNITS,
            "frame": self.frame,
            "order": ORDER,
            "joint_names": list(JOINT_NAMES),
            "root": ROOT,
            "camera": camera and {"fx": camera.fx, "fy": camera.fy, "cx": camera.cx, "cy": camera.cy},
            "source": self.source,
            "size_px": None if self.size_px is None else list(self.size_px),
            "fps": self.fps,
            "smoothing": dict(self.smoothing),
            **self.extra,
        }


@dataclass(frozen=True)
class FrameHands:
    """The hands of one frame of a clip.

    index   of the frame in its source, from 0
    time_s  since the clip's first frame
    tracks  a number for each hand that stays the hand's own, or None where it has none
    error   why the frame could not be used, or None
    file    the frame's own file, where each has one
    size_px (width, height) of the frame, where it is known and not the clip's
    """

    index: int
    time_s: float
    hands: tuple[Hand, ...] = ()
    tracks: tuple[int | None, ...] = ()
    error: str | None = None
    file: str | None = None
    size_px: tuple[int, int] | None = None

    def __post_init__(self) -> None:
        if len(self.tracks) != len(self.hands):
            raise FormatError(f"frame {self.index}: {len(self.tracks)} tracks for {len(self.hands)} hands")


class LinesWriter:
    """Writes a clip frame by frame; the file takes its name when the block ends without an error.

    With `resume`, what was written stays beside it (`.NAME.part`) when the block is left by an error, and the
    next writer goes on there: `last_index` is the last whole frame found, or None.

    Raises InputError where the file cannot be written, ConfigError where the begun file has another header,
    FormatError for a frame whose index does not rise.

    >>> with LinesWriter("out/predictions.jsonl", ClipHeader("siapose", fps=30.0)) as clip:
    ...     clip.write(FrameHands(0, 0.0))
    """

    def __init__(self, path: str | Path, header: ClipHeader, *, resume: bool = False) -> None:
        self.path = Path(path)
        self.part = self.path.with_name(f".{self.path.name}.part")
        self.last_index: int | None = None
        self._resume = resume
        self._header = header.to_dict()
        self._file: IO[bytes] | None = None

    def __enter__(self) -> "LinesWriter":
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            begun = self._resume and self.part.is_file()
            self._file = self.part.open("r+b" if begun else "wb")
            whole = self._go_on() if begun else 0
            if not whole:
                self._file.truncate(0)
                self._file.seek(0)
                self._write(self._header)
        except OSError as error:
            raise InputError(f"{self.path}: cannot be written ({error.strerror or error})") from error
        return self

    def _go_on(self) -> int:
        """Cut a half line off the begun file; returns the bytes of its whole lines."""
        assert self._file is not None
        whole = 0
        for number, line in enumerate(self._file):
            if not line.endswith(b"\n"):
                break
            try:
                record = json.loads(line)
                if number:
                    self.last_index = int(record["index"])
            except (ValueError, KeyError, TypeError, RecursionError):
                break
            if number == 0 and record != json.loads(json.dumps(self._header)):
                self._file.close()
                raise ConfigError(
                    f"{self.part}: was begun with other settings; remove it, or run as before to resume"
                )
            whole += len(line)
        self._file.truncate(whole)
        self._file.seek(whole)
        return whole

    def write(self, frame: FrameHands) -> None:
        """Add a frame. It is on its way to the disk when this returns."""
        if self.last_index is not None and frame.index <= self.last_index:
            raise FormatError(f"{self.path}: frame {frame.index} comes after frame {self.last_index}")
        record: dict[str, Any] = {"index": frame.index, "time_s": round(float(frame.time_s), 6)}
        record["hands"] = [
            {"track": track} | self._plain(hand)
            for hand, track in zip(frame.hands, frame.tracks, strict=True)
        ]
        for key in ("error", "file"):
            if getattr(frame, key) is not None:
                record[key] = getattr(frame, key)
        if frame.size_px is not None and list(frame.size_px) != self._header["size_px"]:
            record["size_px"] = list(frame.size_px)
        try:
            self._write(record)
        except OSError as error:
            raise InputError(f"{self.path}: cannot be written ({error.strerror or error})") from error
        self.last_index = frame.index

    def _plain(self, hand: Hand) -> dict[str, Any]:
        """The hand without what the header says already, and without nulls."""
        record = hand.to_dict()
        for key in _STATED_ONCE:
            if record[key] == self._header[key]:
                del record[key]
        # A null camera where the header has one must be said.
        return {
            key: value
            for key, value in record.items()
            if value is not None or (key == "camera" and self._header["camera"] is not None)
        }

    def _write(self, record: dict[str, Any]) -> None:
        assert self._file is not None, "a LinesWriter is used in a with block"
        self._file.write(json.dumps(record, allow_nan=False, separators=(",", ":")).encode() + b"\n")
        self._file.flush()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._file is not None
        try:
            if kind is None:
                os.fsync(self._file.fileno())
            self._file.close()
            if kind is None:
                os.replace(self.part, self.path)
            elif not self._resume:
                self.part.unlink(missing_ok=True)
        except OSError as fault:
            raise InputError(f"{self.path}: cannot be written ({fault.strerror or fault})") from fault


def read_lines(path: str | Path) -> tuple[ClipHeader, Iterator[FrameHands]]:
    """The header of a clip, and its frames one by one as they are asked for.

    Raises InputError where the file cannot be read, and, also while the frames are read, FormatError naming
    file, line and key for what is cut short, damaged, or means something else.
    """
    lines = _lines(path)
    first = next(lines, None)
    if first is None:
        raise FormatError(f"{path}: the file is empty, expected a line that states {FORMAT!r}")
    with place(f"{path}: line 1"):
        header = header_from_dict(first[1])
        stated = header.to_dict()
    return header, _frames(path, lines, stated)


def header_from_dict(record: Any) -> ClipHeader:
    """The inverse of `ClipHeader.to_dict`. Raises FormatError naming the key that is missing or wrong."""
    if need(record, "format", str) != FORMAT:
        raise FormatError(f"'format' is {record['format']!r}, expected {FORMAT!r}")
    expected = {"version": VERSION, "units": UNITS, "order": ORDER, "root": ROOT}
    expected["joint_names"] = list(JOINT_NAMES)
    for key, wanted in expected.items():
        if need(record, key, object) != wanted:
            raise FormatError(f"{key!r} is {record[key]!r}, this handgraph reads {wanted!r}")
    for key, kind in (("source", str), ("fps", (int, float)), ("size_px", list), ("camera", dict)):
        if record.get(key) is not None:
            need(record, key, kind)
    camera, fps = record.get("camera"), record.get("fps")
    if fps is not None and not 0 < fps < 1e6:
        raise FormatError(f"'fps' is {fps}, expected frames a second")
    need(need(record, "smoothing", dict), "name", str)
    known = ClipHeader("").to_dict()
    return ClipHeader(
        model=need(record, "model", str),
        frame=need(record, "frame", str),
        camera=None if camera is None else camera_from_dict(camera),
        source=record.get("source"),
        size_px=_size(record),
        fps=fps,
        smoothing=record["smoothing"],
        extra={key: value for key, value in record.items() if key not in known},
    )


def _size(record: Any) -> tuple[int, int] | None:
    size = record.get("size_px")
    if size is None:
        return None
    if not (len(need(record, "size_px", list)) == 2 and all(type(s) is int and s > 0 for s in size)):
        raise FormatError(f"'size_px' is {size}, expected [width, height] in whole pixels")
    return size[0], size[1]


def camera_from_dict(record: Any) -> PinholeCamera:
    """A camera of the keys fx, fy, cx, cy. Raises FormatError or InputError where one is missing or wrong."""
    return PinholeCamera(*(number(record, key) for key in ("fx", "fy", "cx", "cy")))


def number(record: Any, key: str) -> float:
    """`record[key]`, which must be a finite number. Raises FormatError."""
    value = need(record, key, (int, float))
    if not -1e300 < value < 1e300:
        raise FormatError(f"{key!r} is {str(value)[:20]}, expected a finite number")
    return float(value)


def _frames(
    path: str | Path, lines: Iterator[tuple[int, Any]], header: dict[str, Any]
) -> Iterator[FrameHands]:
    last = -1
    for line, record in lines:
        with place(f"{path}: line {line}"):
            index = need(record, "index", int)
            if index <= last:
                raise FormatError(f"frame {index} comes after frame {last}")
            last = index
            hands, tracks = [], []
            for place_in_frame, hand in enumerate(need(record, "hands", list)):
                with place(f"hand {place_in_frame}"):
                    if not isinstance(hand, dict):
                        raise FormatError(f"expected an object, found {type(hand).__name__}")
                    full = {key: header[key] for key in _STATED_ONCE} | hand
                    hands.append(Hand.from_dict(full))
                    track = hand.get("track")
                    tracks.append(None if track is None else need(hand, "track", int))
            yield FrameHands(
                index,
                number(record, "time_s"),
                tuple(hands),
                tuple(tracks),
                need(record, "error", str) if "error" in record else None,
                need(record, "file", str) if "file" in record else None,
                _size(record),
            )


def _lines(path: str | Path) -> Iterator[tuple[int, Any]]:
    """(number from 1, value) of every line. The last must be whole too: a clip cut short is not a clip."""
    try:
        with Path(path).open("rb") as file:
            for count in itertools.count(1):
                line = file.readline(MAX_LINE_BYTES)
                if not line:
                    return
                if not line.endswith(b"\n"):
                    what = "is too long" if len(line) == MAX_LINE_BYTES else "is cut short"
                    raise FormatError(f"{path}: line {count} {what}")
                try:
                    record = json.loads(line)
                except (ValueError, RecursionError) as error:
                    raise FormatError(f"{path}: line {count} is not JSON ({error})") from error
                yield count, record
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from error
