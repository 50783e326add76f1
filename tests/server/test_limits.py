"""What an upload states about itself is read right, and refused before anything is decoded."""

import io
import struct
import zipfile

import cv2
import numpy as np
import pytest

from handgraph.errors import FormatError
from handgraph.server.limits import Limits, Refused, check_upload, suffix_for

LIMITS = Limits(picture_pixels=10_000, unpacked_bytes=100_000)


def encoded(suffix: str, height: int, width: int, *options: int) -> bytes:
    picture = np.zeros((height, width, 3), np.uint8)
    return cv2.imencode(suffix, picture, list(options))[1].tobytes()


@pytest.mark.parametrize(
    ("suffix", "options"),
    [
        (".png", ()),
        (".jpg", ()),
        (".jpg", (cv2.IMWRITE_JPEG_PROGRESSIVE, 1)),
        (".bmp", ()),
        (".webp", (cv2.IMWRITE_WEBP_QUALITY, 80)),
        (".webp", (cv2.IMWRITE_WEBP_QUALITY, 101)),
    ],
)
def test_sizes_are_read_from_the_header(suffix: str, options: tuple[int, ...]) -> None:
    assert check_upload("a", encoded(suffix, 100, 100, *options), LIMITS) in ("png", "photo")
    with pytest.raises(Refused, match=r"a: 201x50 pixels, expected at most 10,000") as refused:
        check_upload("a", encoded(suffix, 50, 201, *options), LIMITS)
    assert refused.value.status == 413


def test_an_extended_webp_states_its_size_too() -> None:
    inside = encoded(".webp", 50, 201, cv2.IMWRITE_WEBP_QUALITY, 80)[12:]
    head = (
        b"VP8X" + struct.pack("<I", 10) + bytes(4) + (200).to_bytes(3, "little") + (49).to_bytes(3, "little")
    )
    content = b"RIFF" + struct.pack("<I", 4 + len(head) + len(inside)) + b"WEBP" + head + inside
    with pytest.raises(Refused, match="201x50 pixels"):
        check_upload("a", content, LIMITS)


def test_a_header_alone_is_enough() -> None:
    png = encoded(".png", 10, 10)
    huge = png[:16] + struct.pack(">II", 60_000, 60_000) + png[24:]
    with pytest.raises(Refused, match="60000x60000"):
        check_upload("a", huge, Limits())


def test_a_jpeg_of_endless_scans_is_refused() -> None:
    jpeg = encoded(".jpg", 20, 20, cv2.IMWRITE_JPEG_PROGRESSIVE, 1)
    scan = b"\xff\xda\x00\x08\x01\x01\x00\x00\x3f\x00\x00"
    assert check_upload("a", jpeg, LIMITS) == "photo"
    with pytest.raises(Refused, match="more than 64 scans"):
        check_upload("a", jpeg[:-2] + 100 * scan + jpeg[-2:], LIMITS)


def test_an_archive_says_how_much_it_unpacks_to() -> None:
    def npz(values: int) -> bytes:
        file = io.BytesIO()
        np.savez_compressed(file, depth=np.zeros(values, np.float32))
        return file.getvalue()

    assert check_upload("a.npz", npz(1000), LIMITS) == "depth"
    bomb = npz(1_000_000)
    assert len(bomb) < 10_000
    with pytest.raises(Refused, match="unpacks to 4 MB, expected at most 0; send one depth frame"):
        check_upload("a.npz", bomb, LIMITS)
    many = io.BytesIO()
    with zipfile.ZipFile(many, "w") as archive:
        for index in range(100):
            archive.writestr(f"{index}.npy", b"")
    with pytest.raises(Refused, match="more than 64 files"):
        check_upload("a.npz", many.getvalue(), LIMITS)
    with pytest.raises(FormatError, match="damaged zip"):
        check_upload("a.npz", npz(1000)[:50], LIMITS)


@pytest.mark.parametrize(
    ("content", "status", "message"),
    [
        (b"", 400, "a: the upload is empty"),
        (b"GIF89a", 415, "a: a GIF picture, expected a picture"),
        (b"%PDF-1.7", 415, "a PDF document"),
        (b"\x80\x04\x95", 415, "perhaps a pickle, which is never opened"),
        (b"hello", 415, "a file of unknown type"),
        (b"\x00\x00\x00\x18ftypheic", 415, "a HEIC or AVIF picture, which is not read; save it as JPEG"),
        (b"\x89PNG\r\n\x1a\n", 422, "the PNG is cut short"),
        (b"\xff\xd8\xff\xd9", 422, "the JPEG has no frame header"),
        (b"BM123", 422, "the BMP is cut short"),
        (b"RIFF1234WEBP", 422, "the WebP is cut short"),
        (b"#EXTM3U\nhttp://x/", 415, "a file of unknown type"),
    ],
)
def test_what_is_no_picture_is_refused(content: bytes, status: int, message: str) -> None:
    with pytest.raises(Refused, match=message) as refused:
        check_upload("a", content, LIMITS)
    assert refused.value.status == status


def test_kinds_and_suffixes_come_from_the_first_bytes() -> None:
    for start in (b"\x00\x00\x00\x18ftypisom", b"\x1aE\xdf\xa3....", b"RIFF1234AVI "):
        assert check_upload("a", start, LIMITS) == "clip"
    assert check_upload("x.BIN", b"anything", LIMITS) == "depth"
    assert suffix_for("frame", b"\x93NUMPY..") == ".npy"
    assert suffix_for("frame.npy", b"\x93NUMPY..") == ""
    assert suffix_for("frame.npy", b"\x89PNG\r\n\x1a\n") == ".png"
    assert suffix_for("a.jpg", b"\xff\xd8\xff") == ""
