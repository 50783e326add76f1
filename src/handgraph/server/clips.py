"""Frames of a clip that a stranger has sent: a known container, bounded in pixels, seconds and frames."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from handgraph.errors import FormatError, MissingExtraError
from handgraph.server.limits import Limits, Refused

_FORMATS = {b"\x1aE\xdf\xa3": "matroska", b"RIFF": "avi"}
"""By the first bytes; all others are MP4's and MOV's."""


def read_frames(path: Path, limits: Limits) -> Iterator[tuple[float, np.ndarray]]:
    """Time in seconds and RGB picture of the frames, evenly thinned where the clip has more than allowed.

    The container is the one its first bytes name: formats that refer to other files or addresses (playlists)
    are never opened. Raises Refused (413) for too large pictures or too long a clip, FormatError for a file
    that cannot be read, MissingExtraError without PyAV.
    """
    try:
        import av
    except ImportError:
        raise MissingExtraError("reading clips needs PyAV: pip install 'handgraph[video]'") from None

    name = path.name
    with path.open("rb") as file:
        kind = _FORMATS.get(file.read(4), "mp4")
        file.seek(0)
        try:
            # From an open file, so that no name inside it can lead anywhere.
            with av.open(file, format=kind, options={"enable_drefs": "0"} if kind == "mp4" else {}) as clip:
                yield from _frames(clip, name, limits)
        except (av.FFmpegError, ValueError, EOFError) as error:
            reason = " ".join(str(getattr(error, "strerror", None) or error).split())
            raise FormatError(f"{name}: the clip cannot be read ({reason}); copy it again") from error


def _frames(clip: Any, name: str, limits: Limits) -> Iterator[tuple[float, np.ndarray]]:
    if not clip.streams.video:
        raise FormatError(f"{name}: the clip has no pictures; send one with a video track")
    stream = clip.streams.video[0]
    stream.codec_context.options = {"max_pixels": str(limits.picture_pixels)}
    if stream.codec_context.width * stream.codec_context.height > limits.picture_pixels // 4:
        raise Refused(
            413,
            f"{name}: {stream.codec_context.width}x{stream.codec_context.height} pixels, expected at most "
            f"{limits.picture_pixels // 4:,} a frame",
        )
    seconds = float(clip.duration / 1e6) if clip.duration else 0.0
    if seconds > limits.clip_seconds:
        raise _too_long(name, limits)
    rate = float(stream.average_rate or stream.guessed_rate or 30)
    # Without a stated length the clip may go on for as long as it may last.
    expected = (seconds or limits.clip_seconds) * rate
    every = max(1, -(-int(expected) // limits.clip_frames))
    given = 0
    for index, frame in enumerate(clip.decode(stream)):
        time_s = float(frame.time) if frame.time is not None else index / rate
        if time_s > limits.clip_seconds + 1 or index > 60 * 2 * limits.clip_seconds:
            raise _too_long(name, limits)
        if index % every or given == limits.clip_frames:
            continue
        given += 1
        yield time_s, frame.to_ndarray(format="rgb24")
    if not given:
        raise FormatError(f"{name}: the clip has no picture that can be decoded; copy it again")


def _too_long(name: str, limits: Limits) -> Refused:
    return Refused(413, f"{name}: longer than {limits.clip_seconds:g} s; cut it, or use `handgraph predict`")
