"""What the commands of `handgraph` share: their answer, messages on standard error, checked arguments.

Each command stands in a module of its own with a function that takes the arguments and gives an `Answer`.
"""

import argparse
import math
import os
import sys
import traceback
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from handgraph.errors import InputError

Item = TypeVar("Item")


@dataclass(frozen=True)
class Answer:
    """What a command has to say: `document` for `--json`, `text` for people, and its exit code.

    A document that may be too long to hold is an iterator of pieces of its JSON text.
    """

    document: Any | Iterator[str]
    text: str
    code: int = 0


def whole_number(text: str) -> int:
    """An argument that counts something. Raises ArgumentTypeError below one."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number above zero")
    return int(text)


def from_zero(text: str) -> int:
    """A number of something that is counted from zero. Raises ArgumentTypeError."""
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from zero")
    return int(text)


def port(text: str) -> int:
    """A port to listen on. Raises ArgumentTypeError."""
    if not text.isdecimal() or int(text) > 65535:
        raise argparse.ArgumentTypeError(f"{text!r} is not a port, a whole number from 0 to 65535")
    return int(text)


def above_zero(text: str) -> float:
    """A positive number. Raises ArgumentTypeError."""
    value = _finite(text)
    if value <= 0:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number above zero")
    return value


def seconds(text: str) -> float:
    """A time, zero or more. Raises ArgumentTypeError."""
    value = _finite(text)
    if value < 0:
        raise argparse.ArgumentTypeError(f"{text!r} is not a time in seconds")
    return value


def _finite(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise argparse.ArgumentTypeError(f"{text!r} is not a number")
    return value


def numbers(text: str, name: str, form: str) -> tuple[float, float, float, float]:
    """Four numbers of an argument. Raises InputError."""
    try:
        a, b, c, d = (float(part) for part in text.split(","))
    except ValueError:
        a = b = c = d = math.nan
    if not all(math.isfinite(number) for number in (a, b, c, d)):
        raise InputError(f"--{name} {text}: expected {form}, four numbers in pixels")
    return a, b, c, d


def folder(path: str) -> Path:
    """A folder that can be written to, made if need be. Found out before any long work begins."""
    made = Path(path)
    try:
        made.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(
            f"{path}: cannot be made a folder ({error.strerror}); choose another --out"
        ) from error
    if not os.access(made, os.W_OK | os.X_OK):
        raise InputError(f"{path}: the folder cannot be written to; choose another or change its permissions")
    return made


def new_file(path: str) -> Path:
    """A file that can be written, in a folder that is made if need be. Found out before any long work."""
    if Path(path).is_dir():
        raise InputError(f"{path}: is a folder, expected the name of a file to write")
    folder(str(Path(path).parent))
    return Path(path)


def progress(items: Iterable[Item], name: str, total: int | None = None) -> Iterable[Item]:
    """A progress bar, where somebody watches."""
    if not sys.stderr.isatty():
        return items
    from tqdm import tqdm

    return tqdm(items, desc=name, total=total, file=sys.stderr, leave=False)


def say(command: str, message: str) -> None:
    """One line on standard error."""
    print(f"handgraph {command}: {' '.join(message.split())}", file=sys.stderr)


def traceback_if_wanted() -> None:
    """Where the error at hand comes from, if HANDGRAPH_DEBUG=1."""
    if os.environ.get("HANDGRAPH_DEBUG") == "1":
        traceback.print_exc()
