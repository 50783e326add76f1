"""Reading the files of datasets so that damage shows: every fault is a FormatError naming the file."""

import struct
import zlib
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from jaxtyping import Float, Shaped

from handgraph.errors import FormatError, InputError, MissingExtraError

_PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"


def read_bytes(path: Path) -> bytes:
    """The whole file. Raises InputError when it is not there, FormatError when it is empty."""
    try:
        content = path.read_bytes()
    except FileNotFoundError as error:
        raise InputError(f"{path}: no such file; the dataset is copied only in part") from error
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from error
    if not content:
        raise FormatError(f"{path}: the file is empty")
    return content


def read_png(path: Path, *, size: tuple[int, int], bits: int, channels: int) -> Shaped[np.ndarray, "h w *c"]:
    """A PNG of exactly this (width, height), bit depth and channel count; colour comes as RGB.

    Image libraries return what they could decode of a damaged PNG, so the checksum of every chunk is
    verified first: a truncated file or a single flipped bit is an error, not a slightly different frame.
    """
    content = read_bytes(path)
    _verify_png(path, content)
    width, height, depth, colour_type = struct.unpack(">IIBB", content[16:26])
    found_channels = {0: 1, 2: 3, 3: 3, 4: 2, 6: 4}.get(colour_type, 0)
    if (width, height) != size or depth != bits or found_channels != channels:
        raise FormatError(
            f"{path}: PNG of {width}x{height} with {found_channels} channels of {depth} bit, "
            f"expected {size[0]}x{size[1]} with {channels} of {bits} bit"
        )
    pixels = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_UNCHANGED)
    if pixels is None or pixels.shape[:2] != size[::-1]:
        raise FormatError(f"{path}: the PNG cannot be decoded")
    return pixels[..., ::-1] if channels == 3 else pixels


def _verify_png(path: Path, content: bytes) -> None:
    if not content.startswith(_PNG_SIGNATURE):
        raise FormatError(f"{path}: not a PNG file")
    position = len(_PNG_SIGNATURE)
    kind, first = b"", True
    while kind != b"IEND":
        if position + 12 > len(content):
            raise FormatError(f"{path}: the PNG is cut short; copy it again")
        (length,) = struct.unpack_from(">I", content, position)
        kind = content[position + 4 : position + 8]
        end = position + 8 + length
        if end + 4 > len(content):
            raise FormatError(f"{path}: the PNG is cut short; copy it again")
        (checksum,) = struct.unpack_from(">I", content, end)
        if zlib.crc32(content[position + 4 : end]) != checksum:
            raise FormatError(f"{path}: the PNG is damaged (wrong checksum); copy it again")
        if first and (kind != b"IHDR" or length != 13):
            raise FormatError(f"{path}: the PNG has no header")
        position, first = end + 4, False


def read_lines(path: Path) -> list[str]:
    """The lines of an ASCII text file, without the blank ones."""
    try:
        text = read_bytes(path).decode("ascii")
    except UnicodeDecodeError as error:
        raise FormatError(f"{path}: byte {error.start} is not ASCII text; copy it again") from error
    return [line for line in text.splitlines() if line.strip()]


def parse_floats(path: Path, lines: list[str], width: int, first_line: int = 1) -> Float[np.ndarray, "n w"]:
    """One row of `width` finite numbers a line. Raises FormatError naming the line."""
    rows = np.empty((len(lines), width), dtype=np.float64)
    for row, line in enumerate(lines):
        words = line.split()
        if len(words) != width:
            raise FormatError(f"{path}: line {row + first_line} holds {len(words)} values, expected {width}")
        try:
            if "_" in line:  # Python reads 1_5 as 15
                raise ValueError(f"could not convert {line.strip()[:40]!r} to numbers")
            rows[row] = [float(word) for word in words]
        except ValueError as error:
            raise FormatError(f"{path}: line {row + first_line}: {error}") from error
    if not np.isfinite(rows).all():
        bad = int(np.flatnonzero(~np.isfinite(rows).all(axis=1))[0])
        raise FormatError(f"{path}: line {bad + first_line} holds a number that is not finite")
    return rows


def load_mat(path: Path, *names: str) -> dict[str, Any]:
    """The named arrays of a MATLAB file (version 5 to 7).

    Raises MissingExtraError without SciPy, FormatError when the file is damaged or lacks a name.
    """
    try:
        from scipy.io import loadmat
    except ImportError as error:
        raise MissingExtraError(
            f"{path}: reading MATLAB files needs SciPy; pip install 'handgraph[datasets]'"
        ) from error
    if not path.is_file():
        raise InputError(f"{path}: no such file; the dataset is copied only in part")
    try:
        content = loadmat(str(path), variable_names=list(names))
    except NotImplementedError as error:
        raise FormatError(f"{path}: a MATLAB 7.3 (HDF5) file; save it as version 7 (-v7)") from error
    except Exception as error:  # SciPy meets damage with a dozen kinds of exception
        raise FormatError(f"{path}: not a readable MATLAB file ({type(error).__name__})") from error
    missing = [name for name in names if name not in content]
    if missing:
        raise FormatError(f"{path}: holds no variable {missing[0]!r}")
    return content


def float_array(path: Path, name: str, value: Any, shape: tuple[int | None, ...]) -> np.ndarray:
    """A numeric array of this shape (None = any length), as it is stored."""
    array = np.asarray(value)
    fits = array.ndim == len(shape) and all(
        want in (None, got) for want, got in zip(shape, array.shape, strict=True)
    )
    if array.dtype.kind not in "fiu" or not fits:
        wanted = ", ".join("n" if want is None else str(want) for want in shape)
        raise FormatError(
            f"{path}: {name} is {array.dtype} of shape {array.shape}, expected numbers of ({wanted})"
        )
    return array
