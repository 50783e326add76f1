"""What the server takes on, and the sizes that an upload states before anything of it is decoded."""

import io
import struct
import zipfile
from dataclasses import dataclass
from typing import Literal

from handgraph.errors import FormatError, HandgraphError

Upload = Literal["photo", "png", "depth", "clip"]
"""What an upload is by its first bytes; a PNG may be a photograph or a depth frame."""


class Refused(HandgraphError):
    """A request that is not served: an HTTP status and one line that says why."""

    def __init__(self, status: int, message: str, retry_after_s: int | None = None) -> None:
        super().__init__(message)
        self.status, self.retry_after_s = status, retry_after_s


@dataclass(frozen=True)
class Limits:
    """Bounds of one request and of all together."""

    upload_bytes: int = 64_000_000
    picture_pixels: int = 50_500_000
    """A large phone picture; 8192 x 6144 is the most that phones of today save by default."""
    unpacked_bytes: int = 256_000_000
    """Of what a compressed .npz says that it holds."""
    field_bytes: int = 1_000_000
    """A form's text field; a subject is the longest."""
    clip_seconds: float = 30.0
    clip_frames: int = 300
    personal_images: int = 40
    request_seconds: float = 60.0
    """From a request's last byte to its answer, waiting included."""
    header_seconds: float = 10.0
    idle_seconds: float = 5.0
    """Longest silence within an upload."""
    upload_seconds: float = 60.0
    least_bytes_per_s: float = 10_000.0
    """An upload that is slower than this over its first `idle_seconds` and from there on is cut off."""
    places: int = 32
    """Requests that may upload, wait or be worked on at once; the next is told to come again."""
    connections: int = 256


SCANS = 64
"""Of a progressive JPEG, which has about ten; each is a pass over all pixels."""
ARCHIVE_MEMBERS = 64

PNG = b"\x89PNG\r\n\x1a\n"
JPEG = b"\xff\xd8\xff"
NPY = b"\x93NUMPY"
ZIP = b"PK\x03\x04"
_PICTURE_BRANDS = (b"heic", b"heix", b"hevc", b"heim", b"heis", b"mif1", b"msf1", b"avif", b"avis")
_EXPECTED = (
    "expected a picture (JPEG, PNG, WebP, BMP), a depth frame (16-bit PNG, .npy, .npz, MSRA's .bin) "
    "or a clip (MP4, MOV, WebM, MKV, AVI)"
)


def check_upload(name: str, content: bytes, limits: Limits) -> Upload:
    """What an upload is, once its header promises nothing that would not be served.

    Raises Refused: 400 for an empty one, 415 for a kind that is not taken, 413 for more pixels or bytes than
    the limits allow, 422 for a header that is cut short or cannot be.
    """
    if not content:
        raise Refused(400, f"{name}: the upload is empty")
    if content.startswith(PNG):
        if len(content) < 33:
            raise Refused(422, f"{name}: the PNG is cut short; copy it again")
        width, height = struct.unpack_from(">II", content, 16)
        _check_pixels(name, width, height, limits)
        return "png"
    if content.startswith(JPEG):
        _check_pixels(name, *_jpeg_size(name, content), limits=limits)
        return "photo"
    if content.startswith(b"BM"):
        _check_pixels(name, *_bmp_size(name, content), limits=limits)
        return "photo"
    if content.startswith(b"RIFF") and content[8:12] == b"WEBP":
        _check_pixels(name, *_webp_size(name, content), limits=limits)
        return "photo"
    if content.startswith(NPY):
        return "depth"  # as large as it is: `read_depth` compares its header with that
    if content.startswith(ZIP):
        _check_archive(name, content, limits)
        return "depth"
    if content[4:8] == b"ftyp":
        if content[8:12] in _PICTURE_BRANDS:
            raise Refused(415, f"{name}: a HEIC or AVIF picture, which is not read; save it as JPEG")
        return "clip"
    if content.startswith(b"\x1aE\xdf\xa3") or (content.startswith(b"RIFF") and content[8:12] == b"AVI "):
        return "clip"
    if name.lower().endswith(".bin"):
        return "depth"
    raise Refused(415, f"{name}: {_looks_like(content)}, {_EXPECTED}")


def suffix_for(name: str, content: bytes) -> str:
    """The suffix by which `read_depth` knows what these bytes are, where `name` lacks it."""
    for signature, suffix in ((PNG, ".png"), (NPY, ".npy"), (ZIP, ".npz")):
        if content.startswith(signature):
            return "" if name.lower().endswith(suffix) else suffix
    return ""


def _looks_like(content: bytes) -> str:
    for signature, kind in (
        (b"GIF8", "a GIF picture"),
        (b"%PDF", "a PDF document"),
        (b"II*\x00", "a TIFF picture"),
        (b"MM\x00*", "a TIFF picture"),
        (b"\x80", "perhaps a pickle, which is never opened"),
        (b"{", "text"),
        (b"<", "text"),
    ):
        if content.startswith(signature):
            return kind
    return "a file of unknown type"


def _check_pixels(name: str, width: int, height: int, limits: Limits) -> None:
    if width * height > limits.picture_pixels:
        raise Refused(
            413, f"{name}: {width}x{height} pixels, expected at most {limits.picture_pixels:,}; shrink it"
        )


def _jpeg_size(name: str, content: bytes) -> tuple[int, int]:
    """Width and height from the frame header; a JPEG of very many scans is refused too."""
    # Inside compressed pixels the byte after FF is 0, so these two bytes begin a scan.
    if content.count(b"\xff\xda") > SCANS:
        raise Refused(413, f"{name}: a JPEG of more than {SCANS} scans; save it again")
    at = 2
    while at + 9 <= len(content) and content[at] == 0xFF:
        marker = content[at + 1]
        if marker == 0xFF:  # a fill byte
            at += 1
        elif marker == 0x01 or 0xD0 <= marker <= 0xD8:  # no length follows
            at += 2
        elif 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            height, width = struct.unpack_from(">HH", content, at + 5)
            return width, height
        else:
            at += 2 + struct.unpack_from(">H", content, at + 2)[0]
    raise Refused(422, f"{name}: the JPEG has no frame header; copy it again")


def _bmp_size(name: str, content: bytes) -> tuple[int, int]:
    if len(content) < 30:
        raise Refused(422, f"{name}: the BMP is cut short; copy it again")
    (header,) = struct.unpack_from("<I", content, 14)
    width, height = struct.unpack_from("<HH" if header == 12 else "<ii", content, 18)
    return abs(width), abs(height)  # a negative height says that the rows run downwards


def _webp_size(name: str, content: bytes) -> tuple[int, int]:
    if len(content) < 30:
        raise Refused(422, f"{name}: the WebP is cut short; copy it again")
    kind = content[12:16]
    if kind == b"VP8X":
        width, height = (int.from_bytes(content[at : at + 3], "little") + 1 for at in (24, 27))
        return width, height
    if kind == b"VP8L":
        (bits,) = struct.unpack_from("<I", content, 21)
        return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    width, height = struct.unpack_from("<HH", content, 26)
    return width & 0x3FFF, height & 0x3FFF


def _check_archive(name: str, content: bytes, limits: Limits) -> None:
    """Refuse a zip that unpacks to too much. zipfile itself never unpacks more than is announced."""
    if content.count(b"PK\x01\x02") > ARCHIVE_MEMBERS:
        raise Refused(413, f"{name}: an archive of more than {ARCHIVE_MEMBERS} files; send one depth frame")
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            unpacked = max((member.file_size for member in archive.infolist()), default=0)
    except (zipfile.BadZipFile, NotImplementedError, ValueError, struct.error) as error:
        raise FormatError(f"{name}: a damaged zip or .npz file ({error}); save it again") from error
    if unpacked > limits.unpacked_bytes:
        raise Refused(
            413,
            f"{name}: unpacks to {unpacked / 1e6:.0f} MB, expected at most "
            f"{limits.unpacked_bytes / 1e6:.0f}; send one depth frame",
        )
