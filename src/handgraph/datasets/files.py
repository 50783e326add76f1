"""Reading the files of datasets so that damage shows: every fault is a FormatError naming the file."""

import io
import json
import math
import os
import struct
import zipfile
import zlib
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, no_type_check

import numba as nb
import numpy as np
import yaml
from jaxtyping import Float, Int, UInt8

from handgraph.camera import PinholeCamera
from handgraph.errors import FormatError, InputError, MissingExtraError
from handgraph.images import (
    FARTHEST_MM,
    METRES_BELOW,
    check_png,
    checked_depth,
    decode_image,
    decode_png,
    read_depth,
)
from handgraph.skeleton import BONES, JointOrder

_MAX_ARRAY_BYTES = 512_000_000
# Twice the longest bone of a large hand, wrist to knuckle.
_LONGEST_BONE_MM = 250.0


def read_bytes(path: Path) -> bytes:
    """The whole file. Raises InputError when it is not there, FormatError when it is empty."""
    try:
        with open(path, "rb", buffering=0) as file:
            content = file.read()
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
    if path.suffix == ".png":
        content = read_bytes(path)
        header = check_png(path, content)
        if (header.width, header.height) == size and (header.bits, header.channels) == (8, 3):
            packed = _unpacked(decode_png(path, content, header))
            if packed is not None:
                return packed
    image = read_depth(path)  # MSRA's, or says what is wrong
    height, width = image.depth_mm.shape
    if (width, height) != size or image.camera is None:
        packing = "not packed" if image.camera is None else "packed"
        raise FormatError(
            f"{path}: a frame of {width}x{height}, {packing} as in the dataset, "
            f"expected {size[0]}x{size[1]}, packed"
        )
    return image.depth_mm


def _unpacked(bgr: UInt8[np.ndarray, "h w 3"]) -> Float[np.ndarray, "h w"] | None:
    """NYU's packing, mm = 256 G + B; None where these pixels may be a grey or a colour picture's."""
    height, width = bgr.shape[:2]
    if np.array_equal(bgr[height // 2], bgr[height // 2, :, ::-1]):
        return None  # perhaps grey
    # Blue, then green, is a number of 16 bit that begins every third byte.
    packed = np.ndarray((height, width), "<u2", bgr, strides=(3 * width, 3)).astype(np.float32)
    return packed if METRES_BELOW <= packed.max() <= FARTHEST_MM else None


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
    pixels = decode_png(path, content, header)
    if size is None or pixels.max() < METRES_BELOW:
        return checked_depth(pixels, str(path))
    return pixels.astype(np.float32)


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
    return _largest_residual(camera.fx, camera.fy, camera.cx, camera.cy, joints_mm, keypoints_px)


# Loops of a microsecond, where NumPy's calls for twenty joints take as long as a tenth of a picture.
@nb.njit(nogil=True, cache=True)
@no_type_check
def _largest_residual(fx, fy, cx, cy, joints_mm, keypoints_px) -> float:
    largest = 0.0
    for joint in range(len(joints_mm)):
        x, y, z = joints_mm[joint, 0], joints_mm[joint, 1], joints_mm[joint, 2]
        if z > 0:
            apart_u = abs(fx * x / z + cx - keypoints_px[joint, 0])
            apart_v = abs(fy * y / z + cy - keypoints_px[joint, 1])
            known = apart_u >= 0 and apart_v >= 0  # NaN is not
            if known and max(apart_u, apart_v) > largest:
                largest = max(apart_u, apart_v)
    return largest


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
        members = _npz_members(content, [f"{name}.npy" for name in shapes])
        for name, shape in shapes.items():
            arrays[name] = float_array(path, name, _npy(members[f"{name}.npy"]), shape)
    except KeyError as error:
        raise FormatError(f"{path}: holds no array {str(error)[:60]}") from error
    except (
        zipfile.BadZipFile, zlib.error, ValueError, SyntaxError, TypeError, EOFError, OSError, MemoryError,
        NotImplementedError, RuntimeError, OverflowError, struct.error,
    ) as error:  # fmt: skip
        reason = " ".join(str(error).split())[:100]
        raise FormatError(f"{path}: damaged .npz ({reason}); copy it again") from error
    return arrays


def _npz_members(content: bytes, names: Sequence[str]) -> dict[str, bytes]:
    """The named members of a zip archive, their checksums verified.

    NumPy writes plain archives: no comment, no encryption, less than 4 GB. Those are read here, in a third of
    `zipfile`'s time; `zipfile` reads the others, and names what is wrong with a damaged one.
    """
    plain = _plain_members(content, names)
    if plain is not None:
        return plain
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        for name in names:
            if archive.getinfo(name).file_size > _MAX_ARRAY_BYTES:
                raise ValueError(f"{name} is larger than any label")
        return {name: archive.read(name) for name in names}


def _plain_members(content: bytes, names: Sequence[str]) -> dict[str, bytes] | None:
    """`_npz_members` of a plain archive; None of any other, and of a damaged one."""
    if len(content) < 22 or content[-22:-18] != b"PK\5\6":
        return None
    entries, size, position = struct.unpack_from("<HII", content, len(content) - 12)
    if position + size != len(content) - 22:
        return None
    wanted, found = {name.encode() for name in names}, {}
    for _ in range(entries):
        if position + 46 > len(content) or content[position : position + 4] != b"PK\1\2":
            return None
        entry = _ENTRY.unpack_from(content, position + 8)
        flags, method, crc, packed, unpacked, name_length, extra_length, comment_length, start = entry
        name = content[position + 46 : position + 46 + name_length]
        position += 46 + name_length + extra_length + comment_length
        if name not in wanted:
            continue
        if flags & 1 or method not in (0, 8) or unpacked > _MAX_ARRAY_BYTES or name in found:
            return None
        if content[start : start + 4] != b"PK\3\4" or start + 30 > len(content):
            return None
        begin = start + 30 + sum(_LOCAL_LENGTHS.unpack_from(content, start + 26))
        data = content[begin : begin + packed]
        try:
            # No more than is promised is unpacked: a bomb ends here.
            member = zlib.decompressobj(-15).decompress(data, unpacked + 1) if method else data
        except zlib.error:
            return None
        if len(member) != unpacked or zlib.crc32(member) != crc:
            return None
        found[name] = member
    return {name.decode(): member for name, member in found.items()} if len(found) == len(wanted) else None


# Of a central directory's entry: flags, method, (time, date), checksum, sizes packed and unpacked, lengths of
# name, extra field and comment, (disk, attributes), where the member begins.
_ENTRY = struct.Struct("<HH4xIIIHHH8xI")
# Of name and extra field, in a member's own header.
_LOCAL_LENGTHS = struct.Struct("<HH")


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


def number_array(path: Path, name: str, value: Any, shape: Sequence[int | None]) -> np.ndarray:
    """Finite float64 numbers of this shape (None = any length) from nested lists, as JSON holds them."""
    try:
        array = np.asarray(value)
        if array.dtype.kind not in "fiu":
            raise ValueError("not numbers")
    except (ValueError, TypeError, OverflowError) as error:
        raise FormatError(f"{path}: {name} is no array of numbers of one shape") from error
    array = float_array(path, name, array, tuple(shape)).astype(np.float64)
    if not all_finite(array):
        raise FormatError(f"{path}: {name} holds a number that is not finite")
    return array


def all_finite(array: np.ndarray) -> bool:
    """Whether every number is finite."""
    # The sum of squares is not finite where a number is not, and quicker to ask for than each; huge numbers'
    # is not either, so that then all are asked.
    return math.isfinite(np.vdot(array, array)) or bool(np.isfinite(array).all())


def read_lines(path: Path) -> list[str]:
    """The lines of an ASCII text file, without the blank ones."""
    try:
        text = read_bytes(path).decode("ascii")
    except UnicodeDecodeError as error:
        raise FormatError(f"{path}: byte {error.start} is not ASCII text; copy it again") from error
    return [line for line in text.splitlines() if line.strip()]


def parse_floats(path: Path, lines: list[str], width: int, first_line: int = 1) -> Float[np.ndarray, "n w"]:
    """One row of `width` finite numbers a line. Raises FormatError naming the line."""
    try:
        rows = np.array([[float(word) for word in line.split()] for line in lines], dtype=np.float64)
        # Python reads 1_5 as 15.
        if rows.shape == (len(lines), width) and np.isfinite(rows).all() and not any("_" in x for x in lines):
            return rows
    except ValueError:
        pass
    return _explain_floats(path, lines, width, first_line)


def _explain_floats(path: Path, lines: list[str], width: int, first_line: int) -> Float[np.ndarray, "n w"]:
    """`parse_floats` line by line, to say which one is wrong."""
    rows = np.empty((len(lines), width), dtype=np.float64)
    for row, line in enumerate(lines):
        words = line.split()
        if len(words) != width:
            raise FormatError(f"{path}: line {row + first_line} holds {len(words)} values, expected {width}")
        try:
            if "_" in line:
                raise ValueError(f"could not convert {line.strip()[:40]!r} to numbers")
            rows[row] = [float(word) for word in words]
        except ValueError as error:
            raise FormatError(f"{path}: line {row + first_line}: {error}") from error
        if not np.isfinite(rows[row]).all():
            raise FormatError(f"{path}: line {row + first_line} holds a number that is not finite")
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
    fits = array.shape == shape or (
        array.ndim == len(shape)
        and all(want in (None, got) for want, got in zip(shape, array.shape, strict=True))
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
    longest = _longest_bone(joints_mm, *_bones(order))
    if longest > _LONGEST_BONE_MM:
        raise FormatError(f"{where}: a labelled bone is {longest:.0f} mm long")


@nb.njit(nogil=True, cache=True)
@no_type_check
def _longest_bone(joints_mm, parents, children) -> float:
    longest = 0.0
    for bone in range(len(parents)):
        squared = 0.0
        for axis in range(3):
            squared += (joints_mm[children[bone], axis] - joints_mm[parents[bone], axis]) ** 2
        if squared > longest:  # a bone to an unknown joint is NaN, which is longer than nothing
            longest = squared
    return np.sqrt(longest)


def expect_mesh(
    where: str, vertices_mm: Float[np.ndarray, "v 3"], joints_mm: Float[np.ndarray, "21 3"]
) -> None:
    """Raises FormatError where a vertex lies farther from the middle of the joints than any hand reaches."""
    farthest = _farthest(vertices_mm, joints_mm)
    if farthest > _LONGEST_BONE_MM:
        raise FormatError(f"{where}: a vertex lies {farthest:.0f} mm from the middle of the hand's joints")


@nb.njit(nogil=True, cache=True)
@no_type_check
def _farthest(vertices_mm, joints_mm) -> float:
    farthest = 0.0
    middle = np.zeros(3)
    for joint in range(len(joints_mm)):
        for axis in range(3):
            middle[axis] += joints_mm[joint, axis] / len(joints_mm)
    for vertex in range(len(vertices_mm)):
        squared = 0.0
        for axis in range(3):
            squared += (vertices_mm[vertex, axis] - middle[axis]) ** 2
        if squared > farthest:
            farthest = squared
    return np.sqrt(farthest)


@lru_cache(maxsize=32)
def _bones(order: JointOrder) -> tuple[Int[np.ndarray, " b"], Int[np.ndarray, " b"]]:
    """Where in this order the bones begin and end, of those whose two joints it has."""
    index = order.gather
    both = [(index[parent], index[child]) for parent, child in BONES if min(index[parent], index[child]) >= 0]
    parents, children = np.array(both, dtype=np.int64).reshape(-1, 2).T
    return parents, children
