"""What a model found in a set of images, and what every file format shares."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from handgraph.errors import FormatError, HandgraphError, InputError
from handgraph.files import atomic_write
from handgraph.hand import Hand

UNITS = {
    "keypoints_px": "pixels, u right and v down, pixel centres at integers",
    "box_px": "pixels: x, y, width, height",
    "joints_mm": "millimetres, unless the hand's frame says otherwise",
    "vertices_mm": "millimetres, unless the hand's frame says otherwise",
    "pose": "radians, axis-angle",
    "camera": "pixels: fx, fy, cx, cy",
}
ROOT = "wrist, joint 0"


@dataclass(frozen=True)
class ImageHands:
    """The hands of one image; none of them, and the reason, where the image could not be used.

    `size_px` is (width, height) where it is known.
    """

    file: str
    hands: tuple[Hand, ...] = ()
    size_px: tuple[int, int] | None = None
    error: str | None = None


@dataclass(frozen=True)
class Predictions:
    """What the model of this name found, image by image."""

    model: str
    images: tuple[ImageHands, ...]


@contextmanager
def place(where: str) -> Iterator[None]:
    """Put the place in front of the message of whatever is wrong there, as a FormatError."""
    try:
        yield
    except HandgraphError as error:
        raise FormatError(f"{where}: {error}") from error


def need(record: Any, key: str, kind: type | tuple[type, ...]) -> Any:
    """`record[key]`, which must be there and of that kind. Raises FormatError."""
    if not isinstance(record, dict):
        raise FormatError(f"expected an object with the key {key!r}, found {type(record).__name__}")
    if key not in record:
        raise FormatError(f"the key {key!r} is missing")
    value = record[key]
    if not isinstance(value, kind) or isinstance(value, bool):
        names = " or ".join(one.__name__ for one in (kind if isinstance(kind, tuple) else (kind,)))
        raise FormatError(f"{key!r} is a {type(value).__name__}, expected {names}")
    return value


def read_text_json(path: str | Path) -> Any:
    """The JSON value in a file. Raises InputError where unreadable, FormatError where not JSON."""
    try:
        return json.loads(Path(path).read_bytes())
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from error
    except (ValueError, RecursionError) as error:
        raise FormatError(f"{path}: not a whole JSON document ({error})") from error


def write_text_json(path: str | Path, value: Any) -> None:
    """Write a JSON value whole or not at all. Raises InputError where it cannot be written."""
    text = json.dumps(value, allow_nan=False)
    with atomic_write(path) as part:
        part.write_text(text + "\n", encoding="utf-8")
