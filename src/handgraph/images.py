"""Reading one frame from a file: depth as float32 millimetres, 0 = no reading; colour as uint8 RGB.

| depth file | content |
|---|---|
| `.png`, 16-bit grey | millimetres, or `depth_scale` millimetres a unit |
| `.png`, 8-bit grey | needs `depth_scale` |
| `.png`, 8-bit RGB | NYU's packing: mm = 256 G + B, red unused; brings the NYU camera |
| `.npy`, `.npz` | (H, W) numbers in mm; in an `.npz` the array `depth_mm`, `depth`, or the only one |
| `.bin` | MSRA: six uint32, then float32 mm of a box inside 320x240; brings the MSRA camera |

A frame that stands in a `labels.jsonl` beside it, as `handgraph synthesize` writes one, has the camera given
there.

Colour files are JPEG, PNG, WebP and BMP; a photograph is turned as its EXIF orientation says.

Everything is checked before it is decoded: nothing in a file is executed, and a header that promises more
pixels than any depth camera (or, for colour, than `MAX_PHOTO_PIXELS`) has is refused.
"""

import io
import json
import struct
import tokenize
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, cast

import cv2
import numpy as np

from handgraph.camera import PinholeCamera
from handgraph.errors import FormatError, InputError
from handgraph.shapes import Float, Shaped, UInt8

NYU_CAMERA = PinholeCamera(588.03, 587.07, 320.0, 240.0)
MSRA_CAMERA = PinholeCamera(241.42, 241.42, 160.0, 120.0)

MAX_PIXELS = 32_000_000
"""Ten times the largest depth camera: more is a damaged header or not a depth frame."""
MAX_PHOTO_PIXELS = 128_000_000
"""A medium-format camera's; more is a damaged header or a decompression bomb."""
MAX_BYTES = 512_000_000
MIN_SIDE = 16
"""Pixels; a hand in fewer cannot be told from noise."""

# A frame whose farthest reading is below this is in metres: no hand fits before a camera within 20 mm.
METRES_BELOW = 20.0
FARTHEST_MM = 20_000.0

LABELS_FILE = "labels.jsonl"

IMAGENET_MEAN = np.array([0.485, 0.456, 0.406], np.float32)
IMAGENET_STD = np.array([0.229, 0.224, 0.225], np.float32)
"""Of RGB in [0, 1]: what published backbones were trained with."""

# OpenCV from 4.11 on decodes to RGB itself; turning BGR over takes a tenth of the decoding.
_DECODES_RGB = hasattr(cv2, "IMREAD_COLOR_RGB")
_COLOR_FLAG: int = cv2.IMREAD_COLOR_RGB if _DECODES_RGB else cv2.IMREAD_COLOR

# What NumPy raises on headers that are not its own: they are Python text, which it parses without running it.
_BAD_HEADER = (
    ValueError,
    SyntaxError,
    KeyError,
    TypeError,
    EOFError,
    tokenize.TokenError,
    RecursionError,
    MemoryError,
)

_PHOTO_SUFFIXES = (".jpg", ".jpeg", ".webp", ".bmp")
_PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_PNG_CHUNK = struct.Struct(">I4s").unpack_from
_PNG_CHANNELS = {0: 1, 2: 3, 3: 3, 4: 2, 6: 4}
_PNG_PALETTE = 3
_MSRA_SIZE = (320, 240)
_FORMATS = "expected .png (16-bit mm, or NYU's packed RGB), .npy, .npz or MSRA's .bin"


@dataclass(frozen=True, eq=False)
class DepthImage:
    """A depth frame and, where its format implies one, the camera that took it."""

    depth_mm: Float[np.ndarray, "h w"]
    camera: PinholeCamera | None
    source: Path


def assumed_camera(width: int, height: int) -> PinholeCamera:
    """A camera for a frame that comes without one: 0.92 widths of focal length, centred.

    That is the Kinect's; depth cameras lie between 0.74 (SR300) and 0.95 (D400) widths. Sizes in x and y,
    and so the hand's, are wrong by as much as the focal length is.
    """
    focal = 0.92 * width
    return PinholeCamera(focal, focal, (width - 1) / 2, (height - 1) / 2)


def read_depth(path: str | Path, depth_scale: float | None = None) -> DepthImage:
    """Read a depth frame of any format of this module's table.

    `depth_scale` is millimetres a unit of the file (1000 for metres, 0.125 for an SR305). NaN and infinite
    readings become 0, no reading (ROS REP 117 writes "too far" and "too near" so).
    Raises InputError for a missing file or an unusable scale, FormatError for content that cannot be a depth
    frame; the message names the file, what was found and what to do.
    """
    path = Path(path)
    if depth_scale is not None and not (np.isfinite(depth_scale) and depth_scale > 0):
        raise InputError(f"--depth-scale {depth_scale}: expected millimetres a unit, above zero")
    reader = {".png": _read_png, ".npy": _read_npy, ".npz": _read_npz, ".bin": _read_msra}.get(
        path.suffix.lower()
    )
    content = _read_bytes(path)
    if reader is None:
        raise FormatError(f"{path}: {_kind(content)} is not a depth frame; {_FORMATS}")
    raw, camera, known_unit = reader(path, content)
    if depth_scale is None and not known_unit:
        raise FormatError(
            f"{path}: 8-bit grey PNG, whose unit is unknown; give --depth-scale, the millimetres a grey level"
        )
    return DepthImage(checked_depth(raw, str(path), depth_scale), camera or _camera_beside(path), path)


def checked_depth(
    depth: Shaped[np.ndarray, "..."], name: str, depth_scale: float | None = None
) -> Float[np.ndarray, "h w"]:
    """Float32 millimetres with 0 for no reading, from any numeric array; `name` is for the messages.

    Raises FormatError for a wrong shape or type, no reading at all, negative depths, or metres.
    """
    depth = np.asarray(depth)
    if depth.ndim != 2:
        raise FormatError(
            f"{name}: array of shape {depth.shape}, expected one depth frame of shape (height, width)"
        )
    if depth.dtype.kind not in "fiu":
        raise FormatError(f"{name}: array of {depth.dtype}, expected numbers in millimetres")
    height, width = depth.shape
    if min(height, width) < MIN_SIDE:
        raise FormatError(f"{name}: {width}x{height} pixels, expected at least {MIN_SIDE}x{MIN_SIDE}")
    if depth.size > MAX_PIXELS:
        raise FormatError(f"{name}: {width}x{height} pixels, expected at most {MAX_PIXELS:,}; cut it down")
    depth_mm = depth.astype(np.float32)  # a copy: the caller's array stays as it is
    if depth.dtype.kind == "f":
        # A number beyond float32 has become infinite here; it is no reading either.
        np.nan_to_num(depth_mm, copy=False, nan=0.0, posinf=0.0, neginf=0.0)
    if depth_scale is not None:
        depth_mm *= np.float32(depth_scale)
    nearest, farthest = float(depth_mm.min()), float(depth_mm.max())
    if nearest < 0:
        raise FormatError(
            f"{name}: holds negative depths (down to {nearest:.1f}); expected millimetres before the camera"
        )
    if farthest == 0:
        raise FormatError(f"{name}: no pixel has a reading (all are 0, NaN or infinite)")
    if farthest < METRES_BELOW:
        raise FormatError(
            f"{name}: the farthest reading is {farthest:.3g} mm, so this looks like metres; "
            f"give --depth-scale {1000 * (depth_scale or 1):g}"
        )
    return depth_mm


def read_image(path: str | Path) -> UInt8[np.ndarray, "h w 3"]:
    """Read a colour picture as 8-bit RGB. Raises InputError and FormatError as `read_depth` does."""
    path = Path(path)
    return decode_image(path, _read_bytes(path, "picture"))


def is_photo(path: str | Path) -> bool:
    """Whether a file's first bytes say that it is a colour picture and no depth frame.

    Depth packed into an RGB PNG (NYU's) leaves one channel empty, so it takes a look at the pixels. Of what
    cannot be read the name decides, so that whoever opens it says what was expected there.
    """
    named = Path(path).suffix.lower() in _PHOTO_SUFFIXES
    try:
        content = _read_bytes(Path(path))
        if not content.startswith(_PNG_SIGNATURE):
            return content.startswith((b"\xff\xd8\xff", b"BM")) or content[8:12] == b"WEBP" or named
        header = check_png(Path(path), content)
        if header.palette or header.channels < 3:
            return header.palette
        return bool(decode_image(Path(path), content)[..., 0].any())
    except (FormatError, InputError):
        return named


def decode_image(path: Path, content: bytes) -> UInt8[np.ndarray, "h w 3"]:
    """Decode a JPEG, PNG, WebP or BMP file's content; `path` is for the messages.

    Grey becomes RGB, transparency is dropped, 16-bit channels lose their lower half. Raises FormatError for a
    file that is damaged, cut short, too large or none of these.
    """
    if content.startswith(_PNG_SIGNATURE):
        header = check_png(path, content)
        _photo_size(path, header.width, header.height)
        if header.bits == 16 and header.channels == 1:
            raise FormatError(f"{path}: 16-bit grey PNG, which is a depth frame; expected a colour picture")
    elif content.startswith(b"\xff\xd8\xff"):
        _photo_size(path, *_jpeg_size(path, content))
    elif not (content.startswith(b"BM") or (content.startswith(b"RIFF") and content[8:12] == b"WEBP")):
        raise FormatError(f"{path}: {_kind(content)}, expected a JPEG, PNG, WebP or BMP picture")
    try:
        pixels = cv2.imdecode(np.frombuffer(content, np.uint8), _COLOR_FLAG)
    except cv2.error:
        pixels = None
    if pixels is None:
        raise FormatError(f"{path}: the picture cannot be decoded; copy it again")
    _photo_size(path, pixels.shape[1], pixels.shape[0])
    rgb: np.ndarray = pixels if _DECODES_RGB else cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB)
    return rgb


def to_network(images: UInt8[np.ndarray, "*b h w 3"]) -> Float[np.ndarray, "*b 3 h w"]:
    """8-bit RGB crops as colour networks take them: channels first, ImageNet's mean 0 and deviation 1."""
    table = (np.arange(256, dtype=np.float32)[:, None] / 255 - IMAGENET_MEAN) / IMAGENET_STD
    # A look-up per channel is several times faster than arithmetic on the pixels.
    channels = [table[:, channel][images[..., channel]] for channel in range(3)]
    return np.stack(channels, axis=-3)


def _photo_size(path: Path, width: int, height: int) -> None:
    if width * height > MAX_PHOTO_PIXELS:
        raise FormatError(
            f"{path}: {width}x{height} pixels, expected at most {MAX_PHOTO_PIXELS:,}; shrink it"
        )
    if min(width, height) < MIN_SIDE:
        raise FormatError(f"{path}: {width}x{height} pixels, expected at least {MIN_SIDE}x{MIN_SIDE}")


def _jpeg_size(path: Path, content: bytes) -> tuple[int, int]:
    """Width and height from a JPEG's frame header. Raises FormatError where it or the end is missing.

    Image libraries fill what is missing of a cut JPEG with grey, so the end is looked for: inside the
    compressed pixels its two bytes cannot occur.
    """
    position = 2
    while position + 9 <= len(content):
        if content[position] != 0xFF:
            break
        marker = content[position + 1]
        if marker == 0xFF:  # fill byte
            position += 1
            continue
        if marker == 0xD8 or 0xD0 <= marker <= 0xD7 or marker == 0x01:  # without a length
            position += 2
            continue
        (length,) = struct.unpack_from(">H", content, position + 2)
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            height, width = struct.unpack_from(">HH", content, position + 5)
            if content.rfind(b"\xff\xd9", position + 2 + length) < 0:
                raise FormatError(f"{path}: the JPEG is cut short; copy it again")
            return width, height
        position += 2 + length
    raise FormatError(f"{path}: the JPEG has no frame header; copy it again")


class PngHeader(NamedTuple):
    """What a PNG says about itself before its pixels."""

    width: int
    height: int
    bits: int
    channels: int
    palette: bool


def check_png(path: Path, content: bytes) -> PngHeader:
    """Verify a PNG's chunks and give its header, without decoding it.

    Image libraries return what they could decode of a damaged PNG, so every checksum is verified first: a
    truncated file or a flipped bit is an error, not a slightly different frame. Raises FormatError.
    """
    if not content.startswith(_PNG_SIGNATURE):
        raise FormatError(f"{path}: {_kind(content)}, expected a PNG as the name says")
    position, kind = len(_PNG_SIGNATURE), b""
    view, size = memoryview(content), len(content)  # a view, for there are many chunks to look at
    while kind != b"IEND":
        if position + 12 > size:
            raise FormatError(f"{path}: the PNG is cut short; copy it again")
        length, kind = _PNG_CHUNK(view, position)
        end = position + 8 + length
        if end + 4 > size:
            raise FormatError(f"{path}: the PNG is cut short; copy it again")
        if zlib.crc32(view[position + 4 : end]) != int.from_bytes(view[end : end + 4], "big"):
            raise FormatError(f"{path}: the PNG is damaged (wrong checksum); copy it again")
        if position == len(_PNG_SIGNATURE) and (kind != b"IHDR" or length != 13):
            raise FormatError(f"{path}: the PNG has no header; copy it again")
        position = end + 4
    width, height, bits, colour = struct.unpack_from(">IIBB", content, 16)
    return PngHeader(width, height, bits, _PNG_CHANNELS.get(colour, 0), colour == _PNG_PALETTE)


def decode_png(path: Path, content: bytes, header: PngHeader) -> Shaped[np.ndarray, "h w *channels"]:
    """The numbers of a depth or mask PNG as they are stored, its header as `check_png` gave it; BGR.

    Raises FormatError for more than `MAX_PIXELS` and for pixels that cannot be decoded.
    """
    _too_large(path, (header.width, header.height))
    pixels = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_UNCHANGED)
    if pixels is None or pixels.shape[:2] != (header.height, header.width):
        raise FormatError(f"{path}: the PNG cannot be decoded; copy it again")
    return pixels


def _camera_beside(path: Path) -> PinholeCamera | None:
    """The camera that a `labels.jsonl` in the frame's folder gives for it; None where it does not."""
    try:
        lines = path.with_name(LABELS_FILE).read_text(encoding="utf-8").splitlines()
        for line in lines:
            # Cheap first: a folder may hold a hundred thousand frames.
            if path.name in line and (record := json.loads(line))["file"] == path.name:
                return PinholeCamera(**record["camera"])
    except (OSError, ValueError, KeyError, TypeError):
        pass  # not a file of ours: the frame simply brings no camera
    return None


_Raw = tuple[np.ndarray, PinholeCamera | None, bool]
"""The frame as stored (NYU and MSRA: mm), the camera that the format implies, whether its unit is known."""


def _read_bytes(path: Path, what: str = "depth frame") -> bytes:
    try:
        if path.is_dir():
            raise InputError(f"{path}: is a folder, expected a {what}; give the files in it")
        if not path.exists():
            raise InputError(f"{path}: no such file")
        if not path.is_file():
            raise InputError(f"{path}: not a plain file, expected a {what}")
        size = path.stat().st_size
        if size > MAX_BYTES:
            raise FormatError(f"{path}: {size / 1e6:.0f} MB, expected one {what} (a few MB)")
        content = path.read_bytes()
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: cannot be read ({getattr(error, 'strerror', None) or error})") from error
    if not content:
        raise FormatError(f"{path}: the file is empty, expected a {what}; copy it again")
    return content


def _kind(content: bytes) -> str:
    """What a file's first bytes say it is."""
    for signature, kind in (
        (_PNG_SIGNATURE, "a PNG file"),
        (b"\xff\xd8\xff", "a JPEG picture"),
        (b"\x93NUMPY", "a NumPy .npy file"),
        (b"PK\x03\x04", "a zip or .npz file"),
        (b"II*\x00", "a TIFF file"),
        (b"MM\x00*", "a TIFF file"),
        (b"GIF8", "a GIF picture"),
        (b"%PDF", "a PDF file"),
    ):
        if content.startswith(signature):
            return kind
    return "a file of unknown type"


def _too_large(path: Path, shape: tuple[int, ...]) -> None:
    # Python integers: a product of sizes that a damaged header claims must not wrap around.
    pixels = 1
    for side in shape:
        pixels *= int(side)
    if pixels > MAX_PIXELS:
        sizes = "x".join(str(side) for side in shape)
        raise FormatError(f"{path}: {sizes} values, expected at most {MAX_PIXELS:,} pixels; cut it down")


def _read_png(path: Path, content: bytes) -> _Raw:
    header = check_png(path, content)
    found = f"{header.bits}-bit PNG with {header.channels} channels"
    if (
        header.palette
        or header.bits not in (8, 16)
        or (header.channels, header.bits)
        not in (
            (1, 8),
            (1, 16),
            (3, 8),
        )
    ):
        found = f"{header.bits}-bit palette PNG" if header.palette else found
        raise FormatError(
            f"{path}: {found}, expected 16-bit grey (mm), 8-bit grey (with --depth-scale) or NYU's packed RGB"
        )
    pixels = decode_png(path, content, header)
    if header.channels == 1:
        return pixels, None, header.bits == 16
    blue, green, red = (pixels[..., channel] for channel in range(3))  # OpenCV's order
    if np.array_equal(red, green) and np.array_equal(green, blue):
        raise FormatError(
            f"{path}: 8-bit RGB PNG whose three channels are equal: a grey picture, not NYU's packed depth; "
            "save one channel and give --depth-scale, or save 16-bit mm"
        )
    packed = green.astype(np.float32) * 256 + blue
    if (packed > FARTHEST_MM).mean() > 0.01:
        raise FormatError(
            f"{path}: 8-bit RGB PNG that is no NYU depth (256 G + B gives up to {packed.max():.0f} mm); "
            "a colour picture? predict needs the depth frame"
        )
    return packed, NYU_CAMERA, True


def _read_npy(path: Path, content: bytes) -> _Raw:
    if not content.startswith(b"\x93NUMPY"):
        raise FormatError(f"{path}: {_kind(content)}, expected a NumPy .npy file as the name says")
    return _read_array(path, io.BytesIO(content)), None, True


def _read_npz(path: Path, content: bytes) -> _Raw:
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            names = [name[: -len(".npy")] for name in archive.namelist() if name.endswith(".npy")]
            preferred = [name for name in ("depth_mm", "depth") if name in names]
            chosen: str | None = preferred[0] if preferred else None
            if chosen is None and len(names) == 1:
                chosen = names[0]
            if chosen is None:
                listed = ", ".join(sorted(names)[:8]) or "none"
                raise FormatError(
                    f"{path}: arrays {listed}; expected one named depth_mm or depth, or only one"
                )
            with archive.open(chosen + ".npy") as file:
                return _read_array(path, cast(io.BufferedIOBase, file)), None, True
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError) as error:
        raise FormatError(
            f"{path}: {_kind(content)} that is damaged or no .npz ({error}); copy or save it again"
        ) from error


def _read_array(path: Path, file: io.BufferedIOBase) -> np.ndarray:
    """One array in NumPy's format, its header checked before anything is allocated; never unpickled."""
    try:
        version = np.lib.format.read_magic(file)
        read_header = {
            (1, 0): np.lib.format.read_array_header_1_0,
            (2, 0): np.lib.format.read_array_header_2_0,
        }.get(version)
        if read_header is None:
            raise ValueError(f"format version {version}")
        shape, fortran, dtype = read_header(file)
    except _BAD_HEADER as error:
        reason = " ".join(str(error).split())[:120]
        raise FormatError(f"{path}: the header of the NumPy array is damaged ({reason})") from error
    if dtype.kind not in "fiu":
        raise FormatError(f"{path}: array of {dtype}, expected numbers in millimetres")
    if len(shape) != 2:
        raise FormatError(
            f"{path}: array of shape {shape}, expected one depth frame of shape (height, width)"
        )
    _too_large(path, shape)
    wanted = int(shape[0]) * int(shape[1]) * dtype.itemsize
    data = file.read(wanted)
    if len(data) < wanted:
        raise FormatError(f"{path}: cut short, {len(data)} of {wanted} bytes of the array; copy it again")
    return np.frombuffer(data, dtype).reshape(shape, order="F" if fortran else "C")


def _read_msra(path: Path, content: bytes) -> _Raw:
    if len(content) < 24:
        raise FormatError(f"{path}: {len(content)} bytes, expected MSRA's header of 24; copy it again")
    width, height, left, top, right, bottom = struct.unpack_from("<6I", content)
    if (width, height) != _MSRA_SIZE:
        raise FormatError(
            f"{path}: the header says {width}x{height}, expected MSRA's 320x240; is it an MSRA .bin?"
        )
    if not (left <= right <= width and top <= bottom <= height):
        raise FormatError(
            f"{path}: the header's box {left},{top} to {right},{bottom} is not inside {width}x{height}"
        )
    wanted = 24 + 4 * (right - left) * (bottom - top)
    if wanted == 24:
        raise FormatError(f"{path}: the header's box is empty, so the frame holds no hand; leave it out")
    if len(content) != wanted:
        raise FormatError(f"{path}: {len(content)} bytes, expected {wanted} by its header; copy it again")
    frame = np.zeros((height, width), np.float32)
    box = np.frombuffer(content, "<f4", offset=24).reshape(bottom - top, right - left)
    frame[top:bottom, left:right] = box
    return frame, MSRA_CAMERA, True
