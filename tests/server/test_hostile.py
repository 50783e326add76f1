"""A real server on a real socket, and clients that mean no good: each is answered, and it lives on."""

import http.client
import io
import json
import socket
import struct
import threading
import time
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest

import handgraph as hg

from .conftest import Server, start

pytestmark = pytest.mark.slow  # a server of its own has to start

SAMPLES = Path(hg.__file__).parent / "samples"
DEPTH, PHOTO = SAMPLES / "depth_000011.png", SAMPLES / "image_000009.jpg"
SOON = 60.0
"""Seconds; generous, since a busy machine is no fault of the server's."""


def png(width: int, height: int, bits: int, color: int, data: bytes) -> bytes:
    """A PNG that says what it is told to say, all checksums right."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return (
            struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))
        )

    head = struct.pack(">IIBBBBB", width, height, bits, color, 0, 0, 0)
    signature = b"\x89PNG\r\n\x1a\n"
    return signature + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(data, 1)) + chunk(b"IEND", b"")


def npy(array: np.ndarray) -> bytes:
    file = io.BytesIO()
    np.save(file, array, allow_pickle=True)
    return file.getvalue()


def npy_header(text: str) -> bytes:
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text.encode()


def archive(name: str, content: bytes) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as made:
        made.writestr(name, content)
    return file.getvalue()


def hostile() -> Iterator[tuple[str, bytes]]:
    """200 uploads that are no pictures of hands, by what is wrong with them."""
    depth, photo = DEPTH.read_bytes(), PHOTO.read_bytes()
    frame = np.full((60, 80), 500, np.float32)
    webp = cv2.imencode(".webp", np.zeros((40, 40, 3), np.uint8))[1].tobytes()
    bmp = cv2.imencode(".bmp", np.zeros((40, 40, 3), np.uint8))[1].tobytes()
    yield "nothing", b""
    # Bombs: small files that promise, or unpack to, very much.
    for side in (8_000, 30_000, 60_000, 65_535, 2**31 - 1):
        yield f"png of {side}", png(side, side, 8, 2, bytes(1000))
        yield f"depth png of {side}", png(side, side, 16, 0, bytes(1000))
        yield (
            f"jpeg of {side}",
            photo.replace(
                photo[(at := photo.index(b"\xff\xc0") + 5) : at + 4],
                struct.pack(">HH", *[min(side, 65_535)] * 2),
                1,
            ),
        )
        yield f"bmp of {side}", bmp[:18] + struct.pack("<ii", side, side) + bmp[26:]
        yield (
            f"npy of {side}",
            npy_header(repr({"descr": "<f4", "fortran_order": False, "shape": (side, side)})),
        )
    vp8x = b"VP8X" + struct.pack("<I", 10) + bytes(4) + b"\xff\xff\xff" * 2
    yield "webp of 16 million", b"RIFF" + struct.pack("<I", 22) + b"WEBP" + vp8x
    yield "100 megapixels", png(10_000, 10_000, 8, 2, bytes(10_000 * 30_001))
    yield "100 megapixels of depth", png(10_000, 10_000, 16, 0, bytes(10_000 * 20_001))
    yield "zip bomb", archive("depth.npy", npy_header("x" * 100) + bytes(257_000_000))
    yield (
        "zip of a long header",
        archive("depth.npy", b"\x93NUMPY\x02\x00" + b"\xff\xff\xff\x0f" + bytes(257_000_000)),
    )
    yield (
        "npz of shape",
        archive(
            "depth.npy", npy_header(repr({"descr": "<f4", "fortran_order": False, "shape": (10**6, 10**6)}))
        ),
    )
    many = io.BytesIO()
    with zipfile.ZipFile(many, "w") as made:
        for index in range(20_000):
            made.writestr(str(index), b"")
    yield "zip of 20,000 files", many.getvalue()
    scan = b"\xff\xda\x00\x08\x01\x01\x00\x00\x3f\x00\x00"
    yield "jpeg of 5,000 scans", photo[:-2] + 5_000 * scan + photo[-2:]
    # Cut short, and damaged within.
    for kind, content in (("png", depth), ("jpeg", photo), ("npy", npy(frame)), ("webp", webp), ("bmp", bmp)):
        for part in (0.02, 0.1, 0.3, 0.5, 0.7, 0.9):
            yield f"{kind} cut at {part}", content[: int(part * len(content))]
    npz = archive("depth.npy", npy(frame))
    for part in (0.1, 0.5, 0.9, 0.99):
        yield f"npz cut at {part}", npz[: int(part * len(npz))]
    generator = np.random.default_rng(3)
    for index in range(25):
        damaged = bytearray(depth)
        damaged[int(generator.integers(8, len(depth)))] ^= 1 << int(generator.integers(8))
        yield f"png with a flipped bit {index}", bytes(damaged)
    # Arrays that are no depth frames.
    for name, array in {
        "NaN": np.full((60, 80), np.nan, np.float32),
        "infinity": np.full((60, 80), np.inf),
        "all zero": np.zeros((60, 80), np.uint16),
        "negative": -frame,
        "metres": frame / 1000,
        "1x1": np.ones((1, 1), np.float32),
        "8x8": np.ones((8, 8), np.float32),
        "0x0": np.ones((0, 0), np.float32),
        "3D": np.ones((60, 80, 3), np.float32),
        "1D": np.ones(4800, np.float32),
        "complex": frame.astype(np.complex64),
        "text": np.full((60, 80), "a"),
        "bool": frame > 0,
        "dates": np.zeros((60, 80), "datetime64[s]"),
        "records": np.zeros((60, 80), [("a", "f4")]),
        "pickle": np.array([[{"a": 1}] * 20] * 20, object),
    }.items():
        yield f"npy of {name}", npy(array)
        yield f"npz of {name}", archive("depth.npy", npy(array))
    yield "npz without arrays", archive("readme.txt", b"hello")
    for text in ("", "{", "{'shape': 3}", "__import__('os').system('true')", "[" * 5000, "{'descr': 'O'}"):
        yield f"npy header {text[:20]!r}", npy_header(text) + bytes(100)
    # Other things altogether.
    for name, content in {
        "pickle": b"\x80\x04\x95\x1a\x00\x00\x00c__builtin__\neval\n",
        "text": b"hello",
        "html": b"<script>alert(1)</script>",
        "svg": b"<svg xmlns='http://www.w3.org/2000/svg'/>",
        "json": b'{"a": 1}',
        "gif": b"GIF89a" + bytes(100),
        "tiff": b"II*\x00" + bytes(100),
        "pdf": b"%PDF-1.7",
        "exe": b"MZ" + bytes(200),
        "elf": b"\x7fELF" + bytes(200),
        "gzip": b"\x1f\x8b\x08" + bytes(100),
        "xz": b"\xfd7zXZ\x00" + bytes(100),
        "heic": b"\x00\x00\x00\x18ftypheic" + bytes(100),
        "playlist": b"#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\nfile:///etc/passwd\n",
        "concat": b"ffconcat version 1.0\nfile /etc/passwd\n",
        "empty mp4": b"\x00\x00\x00\x18ftypisom" + bytes(100),
        "mp4 of nothing": b"\x00\x00\x00\x18ftypisom\x00\x00\x02\x00isomiso2" + b"\x00\x00\x00\x08moov",
        "mkv of nothing": b"\x1aE\xdf\xa3" + bytes(500),
        "avi of nothing": b"RIFF" + struct.pack("<I", 100) + b"AVI LIST" + bytes(100),
        "zeros": bytes(1_000_000),
    }.items():
        yield name, content
    for size in range(1, 26):
        yield f"{size} bytes of noise", generator.bytes(size * size)
    for kind, head in (("png", depth[:33]), ("jpeg", photo[:20]), ("mp4", b"\x00\x00\x00\x18ftypmp42")):
        for size in (10, 1_000, 100_000):
            yield f"{kind} head, then {size} bytes of noise", head + generator.bytes(size)
    for size in (15, 1, 3):
        yield f"png of {size} pixels", png(size, size, 8, 2, bytes(3 * size * size + size))
        yield f"grey png of {size} pixels", png(size, size, 16, 0, bytes(2 * size * size + size))
    for bits, color in ((1, 0), (2, 0), (4, 0), (16, 4), (7, 2), (8, 9), (99, 0)):
        yield f"png of {bits} bits, colour {color}", png(60, 80, bits, color, bytes(60 * 80 * 8))
    yield "8-bit grey png without a unit", png(60, 80, 8, 0, bytes(61 * 80))


def post(server: Server, content: bytes, path: str = "/api/predict", **headers: str) -> tuple[int, bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=SOON)
    try:
        connection.request("POST", path, content, headers)
        response = connection.getresponse()
        return response.status, response.read()
    finally:
        connection.close()


def assert_well(server: Server) -> None:
    """It lives, nothing is taken, nothing lies about, and it still finds hands."""
    status, body = post(server, DEPTH.read_bytes())
    assert status == 200
    assert json.loads(body)["images"][0]["hands"]
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=SOON)
    end = time.monotonic() + SOON
    taken = 1
    while taken and time.monotonic() < end:
        connection.request("GET", "/api/health")
        taken = json.loads(connection.getresponse().read())["taken"]
    assert taken == 0
    assert [path for path in server.folder.glob("handgraph-serve-*/*")] == []
    assert "Traceback" not in server.log.read_text()
    assert "fault" not in server.log.read_text()


def test_200_hostile_uploads(server: Server) -> None:
    cases = list(hostile())
    assert len(cases) >= 200
    for number, (name, content) in enumerate(cases):
        if number % 2:
            boundary = "----b"
            head = f'--{boundary}\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\n'
            content = head.encode() + content + f"\r\n--{boundary}--\r\n".encode()
            headers = {"Content-Type": f"multipart/form-data; boundary={boundary}"}
        else:
            headers = {"Content-Type": "application/octet-stream"}
        began = time.monotonic()
        status, body = post(server, content, **headers)
        seconds = time.monotonic() - began
        assert 400 <= status < 500, f"{name}: {status} {body[:200]!r}"
        told = json.loads(body)
        assert set(told) == {"error"}, name
        assert told["error"], name
        assert "\n" not in told["error"], name
        assert "/tmp" not in told["error"] and str(server.folder) not in told["error"], name  # noqa: PT018
        assert seconds < SOON, f"{name}: {seconds:.1f} s"
    assert_well(server)


def raw(server: Server, sent: bytes, seconds: float = SOON) -> bytes:
    """What comes back for these bytes until the server hangs up, or `seconds` have passed."""
    with socket.create_connection(("127.0.0.1", server.port), timeout=seconds) as connection:
        connection.sendall(sent)
        came = b""
        try:
            while part := connection.recv(65536):
                came += part
        except (TimeoutError, ConnectionResetError):
            pass
        return came


def refusal(answer: bytes) -> tuple[int, str]:
    head, _, body = answer.partition(b"\r\n\r\n")
    return int(head.split()[1]), json.loads(body)["error"]


@pytest.mark.parametrize(
    ("sent", "status", "message"),
    [
        (b"hello\r\n\r\n", 400, "not a valid HTTP request"),
        (b"GET / HTTP/1.1\r\nHost: localhost\r\nX: " + b"a" * 100_000, 400, "or its header is too long"),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", 400, "not a valid HTTP request"),
        (b"GET / HTTP/1.1\r\n\r\n", 400, "not a valid HTTP request"),
        (b"POST /api/predict HTTP/1.1\r\nHost: localhost\r\nContent-Length: -5\r\n\r\n", 400, "not a valid"),
        (
            b"POST /api/predict HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
            400,
            "not a valid",
        ),
    ],
)
def test_what_is_no_http_is_told_so(server: Server, sent: bytes, status: int, message: str) -> None:
    found, told = refusal(raw(server, sent))
    assert (found, message in told) == (status, True), told


def form(head: bytes, body: bytes = b"x") -> bytes:
    content = b"--b\r\n" + head + b"\r\n\r\n" + body + b"\r\n--b--\r\n"
    return (
        b"POST /api/predict HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n"
        b"Content-Type: multipart/form-data; boundary=b\r\nContent-Length: %d\r\n\r\n" % len(content)
    ) + content


def test_forms_with_huge_headers_or_endless_fields(server: Server) -> None:
    disposition = b'Content-Disposition: form-data; name="file"; filename="a"'
    for head in (
        disposition + b"\r\nX: " + b"a" * 5_000_000,
        b"\r\n".join([disposition, *[b"X%d: a" % i for i in range(10_000)]]),
        b'Content-Disposition: form-data; name="' + b"n" * 100_000 + b'"',
        b"Content-Disposition: form-data",
        b"nonsense",
    ):
        status, told = refusal(raw(server, form(head)))
        assert 400 <= status < 500, told
    many = b"\r\n--b\r\n".join(
        b'Content-Disposition: form-data; name="a%d"\r\n\r\nx' % i for i in range(5_000)
    )
    status, told = refusal(raw(server, form(many)))
    assert (status, "Too many fields" in told) == (400, True)
    status, told = refusal(
        raw(server, form(b'Content-Disposition: form-data; name="model"', b"a" * 2_000_000))
    )
    assert (status, "maximum size" in told) == (400, True)
    status, _ = refusal(raw(server, form(disposition).replace(b"boundary=b", b"x=b")))
    assert status == 400
    assert_well(server)


def test_an_upload_announced_too_large_is_not_waited_for(server: Server) -> None:
    head = b"POST /api/predict HTTP/1.1\r\nHost: localhost\r\nContent-Length: 99999999999\r\n\r\n"
    began = time.monotonic()
    status, told = refusal(raw(server, head))
    assert (status, "larger than 64 MB" in told) == (413, True)
    assert time.monotonic() - began < SOON, "and the connection is closed, though nothing was sent"


def test_slow_senders_are_cut_off(server: Server) -> None:
    """One that stops within the header, one within the body, one that drips; all at once."""
    answers: dict[str, bytes] = {}

    def drip(name: str, head: bytes, every_s: float) -> None:
        with socket.create_connection(("127.0.0.1", server.port), timeout=SOON) as connection:
            connection.sendall(head)
            connection.settimeout(every_s)
            end = time.monotonic() + SOON
            came = b""
            while time.monotonic() < end:
                try:
                    part = connection.recv(65536)
                    came += part
                    if not part:
                        break
                except TimeoutError:
                    try:
                        connection.sendall(b"a")
                    except OSError:
                        break
                except OSError:
                    break
            answers[name] = came

    post_head = b"POST /api/predict HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000000\r\n\r\n"
    threads = [
        threading.Thread(target=drip, args=("header", b"GET / HTTP/1.1\r\nX: ", 0.5)),
        threading.Thread(target=drip, args=("nothing", b"", 100.0)),
        threading.Thread(target=drip, args=("stopped", post_head, 100.0)),
        threading.Thread(target=drip, args=("body", post_head, 0.5)),
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(2 * SOON)
    told = {name: refusal(answer) for name, answer in answers.items()}
    assert told["header"] == (408, "the request's header did not come in time")
    assert told["nothing"] == (408, "the request's header did not come in time")
    assert told["stopped"] == (408, "the upload stopped; send it again")
    assert told["body"][0] == 408
    assert "too slow" in told["body"][1]
    assert_well(server)


def test_clients_that_hang_up(server: Server) -> None:
    content = PHOTO.read_bytes()
    head = b"POST /api/predict HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n" % len(content)
    for sent in (head, head + content[:1000], head + content):
        for _ in range(3):
            with socket.create_connection(("127.0.0.1", server.port)) as connection:
                connection.sendall(sent)
    assert_well(server)


def test_50_clients_at_once_are_all_answered(server: Server) -> None:
    depth = DEPTH.read_bytes()
    answers: list[tuple[int, bytes]] = []
    together = threading.Barrier(50)

    def client() -> None:
        together.wait()
        for _ in range(3):
            answers.append(post(server, depth))

    threads = [threading.Thread(target=client) for _ in range(50)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(5 * SOON)
    assert len(answers) == 150
    assert {status for status, _ in answers} <= {200, 503}
    good = [body for status, body in answers if status == 200]
    assert len(good) >= 32, "as many as there are places"
    assert len(set(good)) == 1, "and all the same"
    for status, body in answers:
        if status == 503:
            assert "busy" in json.loads(body)["error"] or "not done" in json.loads(body)["error"]
    assert_well(server)


def test_a_server_that_is_stopped_finishes_what_runs_and_takes_nothing_new(tmp_path: Path) -> None:
    running = start(tmp_path, "--workers", "1")
    answers: list[tuple[int, bytes]] = []

    def client() -> None:
        answers.append(post(running, DEPTH.read_bytes()))

    threads = [threading.Thread(target=client) for _ in range(6)]
    for thread in threads:
        thread.start()
    connection = http.client.HTTPConnection("127.0.0.1", running.port, timeout=SOON)
    taken, end = 0, time.monotonic() + SOON
    while not taken and time.monotonic() < end:
        connection.request("GET", "/api/health")
        taken = json.loads(connection.getresponse().read())["taken"]
    code = running.stop()
    for thread in threads:
        thread.join(SOON)
    finished = [status for status, _ in answers]
    assert finished.count(200) >= taken > 0
    assert set(finished) <= {200, 503}
    with pytest.raises(OSError, match="refused"):
        socket.create_connection(("127.0.0.1", running.port), timeout=5)
    assert list(running.folder.iterdir()) == [], "temporary files are gone"
    assert code in (0, -15, 143)
    assert "Traceback" not in running.log.read_text()
