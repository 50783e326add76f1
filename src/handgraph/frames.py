"""Where the frames come from: pictures, folders, patterns, videos, cameras.

`sources` turns what stands on the command line into pictures, which have nothing to do with one another, and
clips, whose frames follow one another in time. A clip is given frame by frame as `Shot`s: each knows its
number, its time and how to read itself, so that frames which nobody needs are not decoded to pixels and a
damaged one is an error of its own.
"""

import itertools
import math
import re
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from glob import glob
from pathlib import Path
from types import ModuleType
from typing import Any

import cv2
import numpy as np

from handgraph.errors import FormatError, InputError, MissingExtraError
from handgraph.images import MAX_PHOTO_PIXELS, MIN_SIDE, read_image
from handgraph.shapes import UInt8

VIDEO_SUFFIXES = frozenset(
    [".mp4", ".m4v", ".mov", ".avi", ".mkv", ".webm", ".mpg", ".mpeg", ".ts", ".mts", ".3gp", ".ogv"]
)
PICTURE_SUFFIXES = frozenset([".png", ".jpg", ".jpeg", ".webp", ".bmp", ".npy", ".npz", ".bin"])
ASSUMED_FPS = 30.0
"""Of a video that does not say."""


@dataclass(frozen=True, eq=False)
class Shot:
    """One frame of a clip.

    index   in the clip, from 0
    time_s  since the clip's first frame, in whole microseconds
    file    the frame's own file, or None
    pixels  gives 8-bit RGB; a frame with a file is read by its name instead. Raises FormatError where the
            frame is damaged
    """

    index: int
    time_s: float
    file: str | None
    pixels: Callable[[], UInt8[np.ndarray, "h w 3"]]


@dataclass(frozen=True)
class Pictures:
    """Picture files; with a frame rate, the frames of a clip."""

    name: str
    files: tuple[str, ...]
    fps: float = ASSUMED_FPS

    @property
    def length(self) -> int | None:
        return len(self.files)

    def __iter__(self) -> Iterator[Shot]:
        for index, file in enumerate(self.files):
            yield Shot(index, round(index / self.fps, 6), file, lambda file=file: read_image(file))  # type: ignore[misc]


class Video:
    """A video file, decoded by FFmpeg through PyAV.

    Frames are turned as the file says, and have the times that stand in the file. Raises MissingExtraError
    without PyAV, InputError for a file that cannot be read, FormatError for one without pictures that move.
    """

    def __init__(self, path: str | Path) -> None:
        self.name = str(path)
        with self._open() as container:
            stream = self._stream(container)
            rate = stream.average_rate or stream.guessed_rate
            self.fps = float(rate) if rate else ASSUMED_FPS
            self.length: int | None = stream.frames or None

    def __iter__(self) -> Iterator[Shot]:
        with self._open() as container:
            yield from self._shots(container)

    def _shots(self, container: Any) -> Iterator[Shot]:
        av = _pyav()
        stream = self._stream(container)
        begin: float | None = None
        last_s = -1 / self.fps
        index = read = 0
        packets = container.demux(stream)
        while True:
            frames: Sequence[Any | str]
            try:
                packet = next(packets, None)
                if packet is None:
                    break
                read += packet.size > 0
                frames = packet.decode()
            except av.error.FFmpegError as error:
                if isinstance(error, av.error.EOFError):
                    break
                # Beyond a packet that cannot even be read, nothing can; others are only lost themselves.
                frames = [_reason(error)]
            for frame in frames:
                if isinstance(frame, str) or frame.time is None:
                    time_s = last_s + 1 / self.fps
                else:
                    begin = frame.time if begin is None else begin
                    time_s = max(frame.time - begin, last_s)
                time_s = round(time_s, 6)
                yield Shot(index, time_s, None, self._reader(frame, index))
                index, last_s = index + 1, time_s
        if not index:
            raise FormatError(f"{self.name}: holds no frame that can be decoded; copy it again")
        if self._cut_short(container, read, last_s):
            missing = f"the file ends after {read} of {self.length} frames; copy it again"
            yield Shot(index, round(last_s + 1 / self.fps, 6), None, self._reader(missing, index))

    def _cut_short(self, container: Any, read: int, last_s: float) -> bool:
        """Whether frames are missing at the end. Only MP4's and QuickTime's own count can be relied upon."""
        if self.length is None or read >= self.length or "mp4" not in container.format.name:
            return False
        # Frames that an edit list leaves out are counted too: but then the times reach to the end.
        return last_s + 1.5 / self.fps < (container.duration or 0) / 1e6

    def _reader(self, frame: Any, index: int) -> Callable[[], UInt8[np.ndarray, "h w 3"]]:
        def read() -> UInt8[np.ndarray, "h w 3"]:
            if isinstance(frame, str):
                raise FormatError(f"{self.name}: frame {index}: {frame}")
            if frame.is_corrupt:
                raise FormatError(f"{self.name}: frame {index}: is damaged")
            _check_size(f"{self.name}: frame {index}", frame.width, frame.height)
            turns = round(frame.rotation / 90)
            return np.ascontiguousarray(np.rot90(frame.to_ndarray(format="rgb24"), turns))

        return read

    def _open(self) -> Any:
        av = _pyav()
        path = Path(self.name)
        if not path.is_file():
            raise InputError(f"{self.name}: {'not a plain file' if path.exists() else 'no such file'}")
        if not path.stat().st_size:
            raise FormatError(f"{self.name}: the file is empty, expected a video; copy it again")
        try:
            return av.open(self.name, metadata_errors="ignore")
        except av.error.FFmpegError as error:
            if isinstance(error, PermissionError):
                raise InputError(f"{self.name}: cannot be read ({_reason(error)})") from error
            raise FormatError(
                f"{self.name}: no video that can be opened ({_reason(error)}); copy it again"
            ) from error

    def _stream(self, container: Any) -> Any:
        """The first stream of moving pictures: not the cover of a piece of music."""
        covers = _pyav().stream.Disposition.attached_pic
        for stream in container.streams.video:
            if not stream.disposition & covers:
                if stream.codec_context is None:
                    raise FormatError(f"{self.name}: its pictures are of a kind that FFmpeg cannot decode")
                _check_size(self.name, stream.codec_context.width, stream.codec_context.height)
                return stream
        kinds = ", ".join(sorted({stream.type for stream in container.streams})) or "nothing"
        raise FormatError(f"{self.name}: holds {kinds}, expected a video stream")


class Webcam:
    """A camera of this machine, frame by frame as they come, until it stops or `close` is called.

    Raises InputError where it cannot be opened.
    """

    length: int | None = None

    def __init__(self, number: int) -> None:
        self.name = f"webcam {number}"
        before = cv2.utils.logging.getLogLevel()
        cv2.utils.logging.setLogLevel(
            0
        )  # OpenCV's remarks on a camera that is not there; ours says what to do
        self._capture = cv2.VideoCapture(number)
        cv2.utils.logging.setLogLevel(before)
        if not self._capture.isOpened():
            self._capture.release()
            raise InputError(
                f"--webcam {number}: cannot be opened; is it plugged in, and used by nobody else?"
            )
        said = float(self._capture.get(cv2.CAP_PROP_FPS))
        self.fps = said if math.isfinite(said) and 1 <= said <= 1000 else ASSUMED_FPS

    def __iter__(self) -> Iterator[Shot]:
        begin: float | None = None
        for index in itertools.count():
            there, picture = self._capture.read()
            if not there:
                return
            now = time.monotonic()
            begin = now if begin is None else begin
            rgb = cv2.cvtColor(picture, cv2.COLOR_BGR2RGB)
            yield Shot(index, round(now - begin, 6), None, lambda rgb=rgb: rgb)  # type: ignore[misc]

    def close(self) -> None:
        """Give the camera back."""
        self._capture.release()


Clip = Pictures | Video | Webcam


@dataclass(frozen=True)
class Part:
    """Some of a clip's frames: every n-th, from and until a time. Their numbers and times stay the clip's."""

    clip: Clip
    every: int = 1
    start_s: float = 0.0
    end_s: float = math.inf

    @property
    def name(self) -> str:
        return self.clip.name

    @property
    def fps(self) -> float:
        return self.clip.fps / self.every

    @property
    def length(self) -> int | None:
        """At most so many."""
        known = self.clip.length
        if known is None:
            return None
        until = min(known, math.ceil(self.end_s * self.clip.fps)) if math.isfinite(self.end_s) else known
        return max(0, until - int(self.start_s * self.clip.fps)) // self.every

    def __iter__(self) -> Iterator[Shot]:
        for shot in self.clip:
            if shot.time_s >= self.end_s:
                return
            if shot.time_s >= self.start_s and shot.index % self.every == 0:
                yield shot


@dataclass(frozen=True)
class Unusable:
    """A folder, pattern or video that gives no frames, and why, in one line that names it."""

    name: str
    reason: str


def sources(arguments: Sequence[str], fps: float | None = None) -> list[Pictures | Unusable | str]:
    """Groups of picture files, and the names of videos, in the order of the arguments.

    A folder stands for the pictures and videos in it, a pattern (`*`, `?`, `[…]`) for the files that it
    matches, both in natural order (2 before 10). With `fps` each group is one clip; files named one by one
    are one group.
    """
    groups: list[Pictures | Unusable | str] = []
    for together, names in itertools.groupby(arguments, key=_stands_for_many):
        if together:
            for name in names:
                try:
                    groups += _groups(name, _files(name), fps)
                except InputError as error:
                    groups.append(Unusable(name, str(error)))
        else:
            groups += _groups("", list(names), fps)
    return groups


def _groups(name: str, files: Sequence[str], fps: float | None) -> list[Pictures | str]:
    pictures = [file for file in files if not is_video(file)]
    together = [Pictures(name or pictures[0], tuple(pictures), fps or ASSUMED_FPS)] if pictures else []
    videos = [file for file in files if is_video(file)]
    # What is named first says which model to use where none is named.
    return [*videos, *together] if is_video(files[0]) else [*together, *videos]


def is_video(path: str) -> bool:
    """Whether a file's name says that it is a video."""
    return Path(path).suffix.lower() in VIDEO_SUFFIXES


def _stands_for_many(argument: str) -> bool:
    path = Path(argument)
    return _is_pattern(argument) or path.is_dir()


def _is_pattern(argument: str) -> bool:
    return any(sign in argument for sign in "*?[") and not Path(argument).exists()


def _files(argument: str) -> list[str]:
    """The pictures and videos of a folder, or the files of a pattern."""
    if _is_pattern(argument):
        found = [name for name in glob(argument, recursive=True) if Path(name).is_file()]
        if not found:
            raise InputError(f"{argument}: no file is called so")
        return sorted(found, key=natural)
    try:
        inside = [path for path in Path(argument).iterdir() if not path.name.startswith(".")]
    except OSError as error:
        raise InputError(f"{argument}: cannot be read ({error.strerror})") from error
    usable = PICTURE_SUFFIXES | VIDEO_SUFFIXES
    files = [str(path) for path in inside if path.suffix.lower() in usable and path.is_file()]
    if not files:
        raise InputError(f"{argument}: the folder holds no picture, depth frame or video")
    return sorted(files, key=natural)


def natural(name: str) -> list[tuple[int, int, str]]:
    """A key that sorts numbers in names by their value: frame 2 before frame 10."""
    return [
        (0, int(piece), piece) if piece.isdecimal() else (1, 0, piece.casefold())
        for piece in re.split(r"(\d+)", name)
        if piece
    ]


def _check_size(where: str, width: int, height: int) -> None:
    if width * height > MAX_PHOTO_PIXELS or min(width, height) < MIN_SIDE:
        raise FormatError(
            f"{where}: {width}x{height} pixels, expected at least {MIN_SIDE}x{MIN_SIDE} "
            f"and at most {MAX_PHOTO_PIXELS:,} in all"
        )


def _reason(error: Any) -> str:
    return str(getattr(error, "strerror", None) or error)


def _pyav() -> ModuleType:
    try:
        import av
    except ImportError as error:
        raise MissingExtraError("videos need PyAV: pip install handgraph[video]") from error
    return av
