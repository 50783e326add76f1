"""Reading the files of datasets so that damage shows: every fault is a FormatError naming the file."""

import io
import json
import os
import struct
import warnings
import zipfile
import zlib
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from jaxtyping import Float, UInt8

from handgraph.camera import PinholeCamera
from handgraph.errors import FormatError, InputError, MissingExtraError
from handgraph.images import check_png, checked_depth, decode_image, decode_png, read_depth
from handgraph.skeleton import BONES, JointOrder

_MAX_ARRAY_BYTES = 512_000_000
# Twice the longest bone of a large hand, wrist to knuckle.
_LONGEST_BONE_MM = 250.0
_PARENTS, _CHILDREN = (list(joints) for joints in zip(*BONES, strict=True))


def read_bytes(path: Path) -> bytes:
    """The whole file. Raises InputError when it is not there, FormatError when it is empty."""
    try:
        content = path.read_bytes()
    except FileNotFoundError as error:
        raise InputError(f"{path}: no such file (a dataset copied only in part lacks some)") from error
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from error
    if not content:
        raise FormatError(f"{path}: the file is empty")
    return content


def read_packed_frame(path: Path, size: tuple[int, int]) -> Float[np.ndarray, "h w"]:
    """Float32 mm, 0 = no reading, of a dataset's own packing: NYU's RGB PNG, MSRA's .bin; of this size.

    A frame converted to something else in between is refused, for nobody knows how it was converted.
    """
    image = read_depth(path)
    height, width = image.depth_mm.shape
    if (width, height) != size or image.camera is None:
        packing = "not packed" if image.camera is None else "packed"
        raise FormatError(
            f"{path}: a frame of {width}x{height}, {packing} as in the dataset, "
            f"expected {size[0]}x{size[1]}, packed"
        )
    return image.depth_mm


def read_grey_frame(path: Path, size: tuple[int, int] | None = None) -> Float[np.ndarray, "h w"]:
    """Float32 mm, 0 = no reading, of a 16-bit grey PNG in mm of this (width, height); None is any size."""
    content = read_bytes(path)
    header = check_png(path, content)
    if header.bits != 16 or header.channels != 1 or size not in (None, (header.width, header.height)):
        wanted = "" if size is None else f"{size[0]}x{size[1]}, "
        raise FormatError(
            f"{path}: a frame of {header.width}x{header.height}, {header.channels} channels of "
            f"{header.bits} bit, expected {wanted}1 of 16 bit"
        )
    return checked_depth(decode_png(path, content, header), str(path))


def read_color_frame(path: Path, size: tuple[int, int] | None = None) -> UInt8[np.ndarray, "h w 3"]:
    """8-bit RGB of a PNG or JPEG of this (width, height); None is any size.

    PNG files carry checksums and JPEG files an end mark, which are verified; changed bits within a JPEG's
    pixels cannot be seen.
    """
    image = decode_image(path, read_bytes(path))
    height, width = image.shape[:2]
    if size not in (None, (width, height)):
        raise FormatError(f"{path}: a picture of {width}x{height}, expected {size[0]}x{size[1]}")
    return image


def read_mask(path: Path, size: tuple[int, int]) -> UInt8[np.ndarray, "h w"]:
    """The numbers of an 8-bit grey PNG of this (width, height)."""
    content = read_bytes(path)
    header = check_png(path, content)
    if (header.width, header.height, header.bits, header.channels) != (*size, 8, 1):
        raise FormatError(
            f"{path}: a PNG of {header.width}x{header.height}, {header.channels} channels of "
            f"{header.bits} bit, expected {size[0]}x{size[1]}, 1 of 8 bit"
        )
    return decode_png(path, content, header)


def expect_numbered(
    path_of: Callable[[int], Path], labelled: int, labels: str, probes: int = 16, extra: int | None = None
) -> None:
    """The first, last and a few files between exist, and none follows: a whole copy, of one version.

    `labels` says what labels them; `extra` is the first number that must not be there (by default the one
    after the last). Raises InputError. `check` looks for every file; this is for opening.
    """
    for index in sorted({*np.linspace(0, labelled - 1, probes).astype(int).tolist()}):
        path = path_of(index)
        if not path.is_file():
            raise InputError(
                f"{path.parent}: {labels} labels {labelled} frames but {path.name} is not there; "
                "the dataset is copied only in part"
            )
    beyond = path_of(labelled if extra is None else extra)
    if beyond.is_file():
        raise InputError(
            f"{beyond.parent}: {labels} labels {labelled} frames but {beyond.name} exists; "
            "labels and frames are of different splits or versions"
        )


def projection_residual(
    camera: PinholeCamera, joints_mm: Float[np.ndarray, "n 3"], keypoints_px: Float[np.ndarray, "n 2"]
) -> float:
    """The largest distance in px, along an axis, of projected joints from keypoints, where both are known."""
    known = np.isfinite(joints_mm).all(axis=-1) & np.isfinite(keypoints_px).all(axis=-1)
    known &= joints_mm[:, 2] > 0
    if not known.any():
        return 0.0
    return float(np.abs(camera.uvd_from_xyz(joints_mm[known])[:, :2] - keypoints_px[known]).max())


def expect_files(folder: Path, names: Sequence[str], what: str = "labelled images") -> None:
    """All these files below the folder exist. Raises InputError with how many do not, and the first.

    By one listing a folder instead of one question a file: sets have hundreds of thousands.
    """
    listings: dict[str, set[str]] = {}
    absent = []
    for name in names:
        parent, _, last = name.rpartition("/")
        if parent not in listings:
            try:
                listings[parent] = set(os.listdir(folder / parent))
            except (OSError, ValueError):  # ValueError: a name no file system knows
                listings[parent] = set()
        if last not in listings[parent]:
            absent.append(name)
    if absent:
        raise InputError(
            f"{folder}: {len(absent)} of {len(names)} {what} are not there, {absent[0][:200]!r} the first; "
            "the dataset is copied only in part"
        )


def read_json(path: Path) -> Any:
    """The content of a JSON file. Raises FormatError saying where it breaks off."""
    try:
        return json.loads(read_bytes(path))
    except (ValueError, RecursionError) as error:
        reason = str(error).splitlines()[0] if str(error) else "nested too deep"
        raise FormatError(f"{path}: not readable JSON ({reason}); copy it again") from error


class _Yaml(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]
    """Plain values only; Python's tuples, which some calibrations name, are lists."""


_Yaml.add_constructor(
    "tag:yaml.org,2002:python/tuple", lambda loader, node: loader.construct_sequence(node, deep=True)
)


def read_yaml(path: Path) -> dict[str, Any]:
    """The mapping in a YAML file; no tag can make anything but plain values. Raises FormatError."""
    try:
        content = yaml.load(read_bytes(path), Loader=_Yaml)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        reason = " ".join(str(error).split())[:100]
        raise FormatError(f"{path}: not readable YAML ({reason}); copy it again") from error
    if not isinstance(content, dict):
        raise FormatError(f"{path}: holds {type(content).__name__}, expected keys and values")
    return content


def read_npz(path: Path, shapes: Mapping[str, tuple[int | None, ...]]) -> dict[str, np.ndarray]:
    """Named arrays of numbers of these shapes from an .npz; nothing in it is unpickled.

    Each array's checksum is verified by reading it; other arrays of the file are not looked at.
    """
    content = read_bytes(path)
    arrays = {}
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            for name, shape in shapes.items():
                if archive.getinfo(f"{name}.npy").file_size > _MAX_ARRAY_BYTES:
                    raise FormatError(f"{path}: {name} is larger than any label")
                arrays[name] = float_array(path, name, _npy(archive.read(f"{name}.npy")), shape)
    except KeyError as error:
        raise FormatError(f"{path}: holds no array {str(error)[:60]}") from error
    except (
        zipfile.BadZipFile, zlib.error, ValueError, SyntaxError, TypeError, EOFError, OSError, MemoryError,
        NotImplementedError, RuntimeError, OverflowError, struct.error,
    ) as error:  # fmt: skip
        reason = " ".join(str(error).split())[:100]
        raise FormatError(f"{path}: damaged .npz ({reason}); copy it again") from error
    return arrays


def _npy(content: bytes) -> np.ndarray:
    """An array in NumPy's format, never unpickled; ValueError where it is damaged."""
    if content[:8] != b"\x93NUMPY\x01\x00":
        raise ValueError("no array of NumPy's format 1.0")
    start = 10 + int.from_bytes(content[8:10], "little")
    shape, fortran, dtype = _npy_header(content[8:start])
    if dtype.hasobject:
        raise ValueError("an array of Python objects")
    return np.frombuffer(content, dtype, offset=start).reshape(shape, order="F" if fortran else "C")


# All labels of a dataset begin alike, and the header costs more to parse than the numbers.
@lru_cache(maxsize=64)
def _npy_header(header: bytes) -> tuple[tuple[int, ...], bool, np.dtype]:
    return np.lib.format.read_array_header_1_0(io.BytesIO(header))


def parse_block(path: Path, text: bytes, count: int, separator: str) -> Float[np.ndarray, " n"]:
    """Exactly `count` finite numbers, nothing but the separator between: `parse_floats` for long text."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of text that is no number: the count says so
        try:
            numbers = np.fromstring(text.decode("latin1"), np.float64, sep=separator)
        except ValueError:  # the same in later NumPy
            numbers = np.empty(0)
    if len(numbers) != count or not np.isfinite(numbers).all():
        raise FormatError(f"{path}: {len(numbers)} finite numbers in a row, expected {count}; copy it again")
    return numbers


def number_array(path: Path, name: str, value: Any, shape: Sequence[int | None]) -> np.ndarray:
    """Finite float64 numbers of this shape (None = any length) from nested lists, as JSON holds them."""
    try:
        array = np.asarray(value)
        if array.dtype.kind not in "fiu":
            raise ValueError("not numbers")
    except (ValueError, TypeError, OverflowError) as error:
        raise FormatError(f"{path}: {name} is no array of numbers of one shape") from error
    array = float_array(path, name, array, tuple(shape)).astype(np.float64)
    if not np.isfinite(array).all():
        raise FormatError(f"{path}: {name} holds a number that is not finite")
    return array


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
    """The named variables of a MATLAB file (version 5 to 7), all of them where none is named.

    Raises MissingExtraError without SciPy, FormatError when the file is damaged or lacks a name.
    """
    try:
        from scipy.io import loadmat
    except ImportError as error:
        raise MissingExtraError(
            f"{path}: reading MATLAB files needs SciPy; pip install 'handgraph[datasets]'"
        ) from error
    if not path.is_file():
        raise InputError(f"{path}: no such file (a dataset copied only in part lacks some)")
    try:
        content = loadmat(str(path), variable_names=list(names) or None)
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


def list_under(path: Path, content: Any, key: str) -> list[Any]:
    """The list that a COCO file's content holds under a key."""
    found = content.get(key) if isinstance(content, dict) else None
    if not isinstance(found, list):
        raise FormatError(f"{path}: no list under {key!r}; is it a COCO file?")
    return found


def expect_hand(where: str, order: JointOrder, joints_mm: Float[np.ndarray, "n 3"]) -> None:
    """Raises FormatError where a bone is longer than any hand's: a damaged number, or another unit.

    For labels without a checksum: along the line of sight the 2D labels cannot give a wrong number away.
    """
    hand = order.to_canonical(joints_mm)
    bones = np.linalg.norm(hand[_CHILDREN] - hand[_PARENTS], axis=-1)
    if np.isfinite(bones).any() and np.nanmax(bones) > _LONGEST_BONE_MM:
        raise FormatError(f"{where}: a labelled bone is {np.nanmax(bones):.0f} mm long")
