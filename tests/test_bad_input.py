"""Every bad input of a depth file: one line that names the file, what was found and what to do."""

import io
import pickle
import struct
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest

from handgraph import HandgraphError
from handgraph.images import MAX_PIXELS, read_depth

FRAME = np.tile(np.arange(300, 364, dtype=np.uint16), (48, 1))


def png(array: np.ndarray) -> bytes:
    """An encoded PNG."""
    return cv2.imencode(".png", array)[1].tobytes()


def npy(array: np.ndarray) -> bytes:
    """The bytes of an .npy file."""
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


def npz(**arrays: np.ndarray) -> bytes:
    """The bytes of an .npz file."""
    file = io.BytesIO()
    np.savez(file, **arrays)
    return file.getvalue()


def with_size(content: bytes, width: int, height: int) -> bytes:
    """A PNG that claims another size, with a right checksum."""
    header = content[12:16] + struct.pack(">II", width, height) + content[24:29]
    return content[:12] + header + struct.pack(">I", zlib.crc32(header)) + content[33:]


def claiming(shape: tuple[int, ...], kind: str = "<f4") -> bytes:
    """An .npy header that promises more than follows."""
    file = io.BytesIO()
    np.lib.format.write_array_header_1_0(file, {"shape": shape, "fortran_order": False, "descr": kind})
    return file.getvalue() + b"\0" * 64


def bomb() -> bytes:
    """An .npz of a few kilobytes whose array would fill the memory."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("depth_mm.npy", claiming((100_000, 100_000)) + b"\0" * 1_000_000)
    return file.getvalue()


class Evil:
    """Unpickling this would call a function."""

    def __reduce__(self) -> tuple[Callable[..., object], tuple[str]]:
        return exec, ("raise SystemExit('code in a file was executed')",)


def msra(width: int, height: int, box: tuple[int, int, int, int], values: int) -> bytes:
    """An MSRA file with so many depths."""
    return struct.pack("<6I", width, height, *box) + np.full(values, 400, "<f4").tobytes()


whole = png(FRAME)
jpeg = cv2.imencode(".jpg", FRAME.astype(np.uint8))[1].tobytes()
objects = np.array([[Evil()] * 20] * 20, dtype=object)
damaged = bytearray(whole)
damaged[60] ^= 1

CASES = {
    "empty file": ("a.png", b"", "the file is empty"),
    "truncated PNG": ("a.png", whole[:-20], "the PNG is cut short; copy it again"),
    "only the signature": ("a.png", whole[:8], "the PNG is cut short"),
    "flipped bit": ("a.png", bytes(damaged), "damaged .wrong checksum."),
    "text as PNG": ("a.png", b"hello", "a file of unknown type, expected a PNG as the name says"),
    "JPEG as PNG": (
        "a.png",
        cv2.imencode(".jpg", FRAME.astype(np.uint8))[1].tobytes(),
        "a JPEG picture, exp",
    ),
    "JPEG": (
        "a.jpg",
        cv2.imencode(".jpg", FRAME.astype(np.uint8))[1].tobytes(),
        "a JPEG picture is not a de",
    ),
    "unknown suffix": ("a.dat", b"\1\2\3", "a file of unknown type is not a depth frame; expected .png"),
    "huge PNG": ("a.png", with_size(whole, 100_000, 100_000), "100000x100000 .*at most 32,000,000 pixels"),
    "wrong size in a PNG": ("a.png", with_size(whole, 64, 4800), "the PNG cannot be decoded"),
    "RGBA": (
        "a.png",
        png(np.zeros((48, 64, 4), np.uint8)),
        "8-bit PNG with 4 channels, expected",
    ),
    "16-bit RGB": ("a.png", png(np.zeros((48, 64, 3), np.uint16)), "16-bit PNG with 3 channels"),
    "all zero": ("a.png", png(FRAME * 0), "no pixel has a reading"),
    "one pixel": ("a.png", png(FRAME[:1, :1]), "1x1 pixels, expected at least 16x16"),
    "metres": ("a.npy", npy(FRAME / 1000.0), "looks like metres; give --depth-scale 1000"),
    "all NaN": ("a.npy", npy(np.full((48, 64), np.nan)), "no pixel has a reading"),
    "all infinite": ("a.npy", npy(np.full((48, 64), np.inf)), "no pixel has a reading"),
    "negative": ("a.npy", npy(-FRAME.astype(float)), "negative depths .down to -363"),
    "one axis": ("a.npy", npy(np.ones(99)), r"array of shape \(99,\), expected one depth frame"),
    "three axes": ("a.npy", npy(np.ones((4, 48, 64))), r"array of shape \(4, 48, 64\)"),
    "no pixel": ("a.npy", npy(np.ones((0, 64))), "64x0 pixels, expected at least 16x16"),
    "text array": ("a.npy", npy(np.full((48, 64), "x")), "array of <U1, expected numbers in millimetres"),
    "complex": ("a.npy", npy(FRAME * 1j), "array of complex128, expected numbers"),
    "pickled objects": (
        "a.npy",
        npy(objects),
        "array of object, expected",
    ),
    "a bare pickle": ("a.npy", pickle.dumps(Evil()), "a file of unknown type, expected a NumPy .npy file"),
    "truncated npy": ("a.npy", npy(FRAME)[:-100], "cut short, 6044 of 6144 bytes"),
    "half an npy header": ("a.npy", npy(FRAME)[:30], "the header of the NumPy array is damaged"),
    "huge npy": ("a.npy", claiming((10**6, 10**6)), "1000000x1000000 values, expected at most"),
    "size beyond 64 bit": ("a.npy", claiming((2**40, 2**40)), "values, expected at most"),
    "npz without depth": (
        "a.npz",
        npz(b=FRAME, a=FRAME),
        "arrays a, b; expected one named depth_mm",
    ),
    "npz without anything": ("a.npz", npz(), "arrays none; expected one"),
    "truncated npz": ("a.npz", npz(depth=FRAME)[:-40], "a zip or .npz file that is damaged"),
    "text as npz": ("a.npz", b"hello", "a file of unknown type that is damaged or no .npz"),
    "zip bomb": ("a.npz", bomb(), "100000x100000 values, expected at most"),
    "short bin": ("a.bin", b"12345", "5 bytes, expected MSRA's header of 24"),
    "bin of something else": ("a.bin", bytes(range(64)), "the header says .*expected MSRA's 320x240"),
    "bin without a box": (
        "a.bin",
        msra(320, 240, (9, 9, 9, 9), 0),
        "box is empty, so the frame",
    ),
    "bin box outside": ("a.bin", msra(320, 240, (300, 0, 330, 9), 270), "box 300,0 to 330,9 is not inside"),
    "bin box reversed": ("a.bin", msra(320, 240, (30, 0, 20, 9), 270), "is not inside 320x240"),
    "truncated bin": (
        "a.bin",
        msra(320, 240, (0, 0, 20, 20), 399),
        "1620 bytes, expected 1624 by",
    ),
    "bin too long": ("a.bin", msra(320, 240, (0, 0, 20, 20), 401), "1628 bytes, expected 1624 by its header"),
}


@pytest.mark.parametrize("case", CASES)
def test_bad_file_is_one_line_that_names_it(tmp_path: Path, case: str) -> None:
    name, content, message = CASES[case]
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(HandgraphError, match=message) as caught:
        read_depth(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert "\n" not in str(caught.value)


def test_missing_file_and_folder(tmp_path: Path) -> None:
    with pytest.raises(HandgraphError, match=r"nope\.png: no such file$"):
        read_depth(tmp_path / "nope.png")
    with pytest.raises(HandgraphError, match="is a folder, expected a depth frame"):
        read_depth(tmp_path)


def test_a_name_that_no_file_can_have() -> None:
    with pytest.raises(HandgraphError, match=r"cannot be read|no such file"):
        read_depth("a\0b.png")


def test_the_limit_leaves_room_for_every_depth_camera() -> None:
    assert MAX_PIXELS > 4 * 1280 * 1024
