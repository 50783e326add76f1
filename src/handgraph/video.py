"""A clip with its hands drawn over it: as a video file, and live in a window."""

import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path
from types import ModuleType
from typing import Any

import cv2
import numpy as np
from jaxtyping import UInt8

from handgraph.errors import InputError, MissingExtraError
from handgraph.files import atomic_write
from handgraph.hand import Hand
from handgraph.report import Frame, depth_span, overlay

Picture = UInt8[np.ndarray, "h w 3"]

MOST_COLUMNS = 1920
"""Wider frames are drawn upon first and shrunk then: players and browsers take no more everywhere."""
_CLOCK = 90_000
_STEADY_S = 0.5
"""The contrast of depth frames follows the hands so slowly that it does not flicker."""


class Overlays:
    """Overlays of the frames of one clip: of one size, and depth in a contrast that does not flicker."""

    def __init__(self) -> None:
        self._size: tuple[int, int] | None = None
        self._span_mm: np.ndarray | None = None
        self._time_s = 0.0

    def __call__(
        self, frame: Frame, hands: Sequence[Hand], tracks: Sequence[int | None], time_s: float
    ) -> UInt8[np.ndarray, "h2 w2 3"]:
        """The next frame with its hands, their tracks' numbers and a legend."""
        if frame.ndim == 2:
            span = np.array(depth_span(frame, hands))
            if self._span_mm is None:
                self._span_mm = span
            elif (span > 0).all():
                share = 1 - np.exp(-max(time_s - self._time_s, 0) / _STEADY_S)
                self._span_mm = self._span_mm + share * (span - self._span_mm)
            self._time_s = time_s
        span_mm = None if self._span_mm is None else (float(self._span_mm[0]), float(self._span_mm[1]))
        picture = overlay(frame, hands, tracks=tracks, span_mm=span_mm)
        if self._size is None:
            shrink = min(1.0, MOST_COLUMNS / picture.shape[1])
            # Compressed video has its colours at every second pixel only.
            width, height = (2 * max(1, round(side * shrink / 2)) for side in picture.shape[1::-1])
            self._size = (width, height)
        if picture.shape[1::-1] != self._size:
            picture = cv2.resize(picture, self._size, interpolation=cv2.INTER_AREA)
        return picture


Add = Callable[[Picture, float], None]


@contextmanager
def write_video(path: str | Path, fps: float) -> Iterator[Add]:
    """Give a function that adds a picture at its time in seconds; the file is there whole or not at all.

    MP4 with H.264, or MPEG-4 where FFmpeg was built without x264. Times are the frames' own, so that a clip
    of changing rate stays in step. All pictures have the first one's size, even in both directions. Raises
    MissingExtraError without PyAV and InputError where the file cannot be written.
    """
    av = _pyav()
    with atomic_write(path) as part:
        try:
            with av.open(str(part), "w") as container:
                add = _Encoder(av, container, fps)
                yield add
                add.finish()
        except av.error.FFmpegError as error:
            raise InputError(f"{path}: cannot be written ({error.strerror or error})") from error


class _Encoder:
    def __init__(self, av: ModuleType, container: Any, fps: float) -> None:
        self._av, self._container, self._fps = av, container, fps
        self._stream: Any = None
        self._last = -1

    def __call__(self, picture: Picture, time_s: float) -> None:
        if self._stream is None:
            self._begin(picture.shape[1], picture.shape[0])
        frame = self._av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="rgb24")
        # Two frames of one time would be refused.
        self._last = max(self._last + 1, round(time_s * _CLOCK))
        frame.pts, frame.time_base = self._last, Fraction(1, _CLOCK)
        self._container.mux(self._stream.encode(frame))

    def _begin(self, width: int, height: int) -> None:
        rate = Fraction(self._fps).limit_denominator(1001)
        try:
            self._stream = self._container.add_stream(
                "libx264", rate=rate, options={"crf": "20", "preset": "veryfast"}
            )
        except (ValueError, self._av.error.FFmpegError):  # built without it
            self._stream = self._container.add_stream("mpeg4", rate=rate, options={"qscale": "3"})
        self._stream.width, self._stream.height = width, height
        self._stream.pix_fmt = "yuv420p"
        self._stream.codec_context.time_base = Fraction(1, _CLOCK)

    def finish(self) -> None:
        if self._stream is None:  # a video without a single frame is no video
            self._begin(16, 16)
            self(np.zeros((16, 16, 3), np.uint8), 0.0)
        self._container.mux(self._stream.encode(None))


class Window:
    """A window that shows pictures as they come. Make one with `open_window`."""

    def __init__(self, title: str, tkinter: ModuleType) -> None:
        self._tkinter = tkinter
        self._root = tkinter.Tk()
        self._root.title(title)
        self._label = tkinter.Label(self._root)
        self._label.pack()
        self.closed = False
        self._root.protocol("WM_DELETE_WINDOW", self.close)
        for key in ("<Escape>", "q"):
            self._root.bind(key, lambda _: self.close())

    def show(self, picture: Picture) -> None:
        """Show the next picture. Does nothing once the window is closed, by the user or by `close`."""
        if self.closed:
            return
        height, width = picture.shape[:2]
        data = b"P6 %d %d 255 " % (width, height) + np.ascontiguousarray(picture).tobytes()
        self._image = self._tkinter.PhotoImage(master=self._root, data=data, format="PPM")
        self._label.configure(image=self._image)
        self._root.update()

    def close(self) -> None:
        """Take the window away."""
        if not self.closed:
            self.closed = True
            self._root.destroy()


def open_window(title: str) -> Window | None:
    """A window, or None where there is no display to open one on."""
    if sys.platform.startswith("linux") and not (
        os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")
    ):
        return None
    try:
        import tkinter
    except ImportError:
        return None
    try:
        return Window(title, tkinter)
    except tkinter.TclError:
        return None


def _pyav() -> ModuleType:
    try:
        import av
    except ImportError as error:
        raise MissingExtraError(
            "overlay videos need PyAV: pip install handgraph[video], or give --no-overlay"
        ) from error
    return av
