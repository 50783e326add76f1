"""Networks behind estimators: ONNX Runtime without PyTorch, and the cache of exported files.

An estimator asks a `Network` for the answer to a batch of crops and never learns who computed it. This module
holds the one that ONNX Runtime runs (`OnnxNetwork`); PyTorch's is `handgraph.answering.TorchNetwork`. Both
answer in the same arrays, those of the system's `Answer` (`handgraph.decoding`).

What an exported file is, its metadata says: the JSON entry `handgraph` (docs/export.md). It is read from the
file's bytes here, before anything is run.
"""

import hashlib
import json
import os
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Literal, Protocol, runtime_checkable

import numpy as np

from handgraph import __version__
from handgraph.decoding import MODULES, decoder
from handgraph.errors import CheckpointError, ConfigError, InputError, MissingExtraError
from handgraph.files import atomic_write
from handgraph.shapes import Float

Input = Literal["depth", "colour"]
Runtime = Literal["torch", "onnx"]
RUNTIMES: tuple[Runtime, ...] = ("torch", "onnx")

OPSET = 18
"""Of the operators in every file, the same for all systems."""
FILE_VERSION = 1
"""Of the metadata and of what the outputs mean."""
METADATA = "handgraph"
SUBJECT = "subject"
"""The input for a person's shape."""

_OPSET_IMPORT, _METADATA_PROPS = 8, 14
"""Field numbers of ONNX's ModelProto."""


@runtime_checkable
class Network(Protocol):
    """What estimators need of a system's network."""

    name: str
    """The system."""
    input: Input
    config: Any
    """The system's `Config`, or an object with its fields."""
    meta: Mapping[str, Any]
    """How the weights were trained."""
    runtime: Runtime
    takes_shape: bool
    """Whether it looks at `shape`."""

    def __call__(
        self, image: Float[np.ndarray, "b c s s"], shape: Float[np.ndarray, "b 10"] | None = None
    ) -> Any:
        """The system's `Answer` to a batch of crops, in arrays. A `shape` of NaN is not known."""


class Session:
    """An ONNX file in ONNX Runtime, after its description has been read and found to be ours.

    content   the file's bytes
    source    what to call it in messages
    threads   of one call; all cores if not given

    Raises CheckpointError for a file that is damaged, not written by handgraph or of another version,
    MissingExtraError without ONNX Runtime.
    """

    def __init__(self, content: bytes, source: str | Path, *, threads: int | None = None) -> None:
        self.about, self._source = description(content, source), source
        try:
            import onnxruntime
        except ImportError:
            raise MissingExtraError(
                "runtime onnx needs onnxruntime: pip install 'handgraph[export]'"
            ) from None
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        if threads is not None:
            options.intra_op_num_threads = threads
        try:
            self._session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
        except Exception as error:  # its exceptions have no common base but this one
            raise CheckpointError(f"{source}: ONNX Runtime cannot use it ({_line(error)})") from None
        self.inputs = tuple(entry.name for entry in self._session.get_inputs())
        self.outputs = tuple(entry.name for entry in self._session.get_outputs())

    def __call__(self, **arrays: np.ndarray) -> dict[str, np.ndarray]:
        """The outputs by name. Raises InputError for arrays that the graph does not take."""
        try:
            return dict(zip(self.outputs, self._session.run(None, arrays), strict=True))
        except Exception as error:
            raise InputError(f"{self._source}: ONNX Runtime does not answer ({_line(error)})") from None


class OnnxNetwork:
    """A system's network in ONNX Runtime; see `Network` for the attributes.

    Raises CheckpointError as `Session` does, and for a file of something else than a system; FormatError or
    InputError where it was built on a user's hand model that is not there any more.
    """

    runtime: Runtime = "onnx"

    def __init__(self, content: bytes, source: str | Path, *, threads: int | None = None) -> None:
        self._session = Session(content, source, threads=threads)
        self.about = about = self._session.about
        """The file's description."""
        if about.get("system") not in MODULES:
            raise CheckpointError(
                f"{source}: holds {about.get('system', 'no system')!r}, expected one of {', '.join(MODULES)}"
            )
        self.name: str = about["system"]
        self.input: Input = about["kind"]
        self.config = SimpleNamespace(**about["config"])
        self.meta: Mapping[str, Any] = about.get("weights", {})
        self.takes_shape = SUBJECT in self._session.inputs
        self._answer = decoder(self.name).Answer
        if path := getattr(self.config, "hand_model", None):
            from handgraph.decoding.hand_models import use_file

            use_file(path)

    def __call__(
        self, image: Float[np.ndarray, "b c s s"], shape: Float[np.ndarray, "b 10"] | None = None
    ) -> Any:
        more = {}
        if self.takes_shape:
            nothing = np.full((len(image), 10), np.nan, np.float32)
            more[SUBJECT] = nothing if shape is None else np.asarray(shape, np.float32)
        return self._answer(**self._session(image=np.asarray(image, np.float32), **more))


def onnx_file(path: str | Path) -> Path:
    """Where an ONNX file can be written: its folder is made if need be. Found out before any long work.

    Raises InputError for another suffix than `.onnx`, and for a folder that cannot be made or written.
    """
    file = Path(path)
    if file.suffix.lower() != ".onnx":
        raise InputError(f"{path}: expected a name that ends in .onnx, found {file.suffix or 'no ending'}")
    if file.is_dir():
        raise InputError(f"{path}: is a folder, expected the name of a file to write")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"{file.parent}: cannot be made a folder ({error.strerror})") from None
    if not os.access(file.parent, os.W_OK | os.X_OK):
        raise InputError(f"{file.parent}: the folder cannot be written to, choose another for {file.name}")
    return file


def load_onnx(path: str | Path) -> OnnxNetwork:
    """The network of an ONNX file that `handgraph export` wrote. Raises CheckpointError."""
    return OnnxNetwork(_content(Path(path)), path)


def load_exported(weights: str | Path) -> OnnxNetwork:
    """The network of a weights file in ONNX Runtime, exported on first use (`cached`).

    Only the first use imports PyTorch. Raises CheckpointError for weights that are missing or damaged.
    """
    file = Path(weights)

    def make() -> bytes:
        from handgraph.export import exported

        return exported(file)[0]

    return OnnxNetwork(cached(file, make), file)


def cached(weights: Path, make: Callable[[], bytes]) -> bytes:
    """What `make` makes of a weights file, from the user's cache or, the first time, made and put there.

    An entry belongs to the weights' content, to this version of handgraph and of its files. Its name carries
    its own digest: what has been damaged is made anew. The first use says so on standard error. Where the
    cache cannot be written, nothing is kept, and that is said too. Raises MissingExtraError where it takes a
    package that is not installed.
    """
    key = hashlib.sha256(_content(weights)).hexdigest()[:16]
    folder = cache_folder()
    start = f"{weights.stem}-{__version__}.{FILE_VERSION}-{key}-"
    damaged = []
    try:
        for entry in sorted(folder.glob(f"{start}*.onnx")):
            content = entry.read_bytes()
            if entry.stem == start + _digest(content):
                return content
            damaged.append(entry)
    except OSError:
        pass  # no such folder, or none that can be read: then it is made anew
    again = "again, the cached file being damaged" if damaged else "once"
    print(f"handgraph: exporting {weights.name} for ONNX Runtime, {again}; kept in {folder}", file=sys.stderr)
    try:
        content = make()
    except ImportError as error:
        raise MissingExtraError(
            f"{weights}: not yet exported here, which needs {error.name}: pip install 'handgraph[export]', "
            "or let HANDGRAPH_CACHE be a folder of exports made elsewhere"
        ) from None
    try:
        for entry in damaged:
            entry.unlink(missing_ok=True)
        with atomic_write(folder / f"{start}{_digest(content)}.onnx") as part:
            part.write_bytes(content)
    except (InputError, OSError) as error:
        print(f"handgraph: not kept, {_line(error)}; HANDGRAPH_CACHE chooses a folder", file=sys.stderr)
    return content


def cache_folder() -> Path:
    """HANDGRAPH_CACHE, or `handgraph` in XDG_CACHE_HOME, or in `~/.cache`."""
    if chosen := os.environ.get("HANDGRAPH_CACHE"):
        return Path(chosen)
    shared = os.environ.get("XDG_CACHE_HOME", "")
    # The XDG specification: a relative path is to be ignored.
    return (Path(shared) if os.path.isabs(shared) else Path.home() / ".cache") / "handgraph"


def check_runtime(runtime: str) -> None:
    """Raises ConfigError for a runtime that does not exist."""
    if runtime not in RUNTIMES:
        raise ConfigError(f"runtime is {runtime!r}, expected one of {', '.join(RUNTIMES)}")


def description(content: bytes, source: str | Path) -> dict[str, Any]:
    """The JSON description in an ONNX file of ours. Raises CheckpointError for any other file."""
    opsets: dict[str, int] = {}
    found: str | None = None
    try:
        for field, value in _fields(content):
            if field == _OPSET_IMPORT:
                entry = dict(_fields(value))
                opsets[_text(entry.get(1, b""))] = int(entry.get(2, 0))
            elif field == _METADATA_PROPS:
                entry = dict(_fields(value))
                if _text(entry.get(1, b"")) == METADATA:
                    found = _text(entry.get(2, b""))
    except (ValueError, TypeError, IndexError):
        raise CheckpointError(
            f"{source}: not a whole ONNX file ({len(content)} bytes); copy it again"
        ) from None
    if found is None:
        raise CheckpointError(
            f"{source}: ONNX without handgraph's description, expected a file that `handgraph export` wrote"
        )
    try:
        about = json.loads(found)
    except json.JSONDecodeError:
        about = None
    if not isinstance(about, dict):
        raise CheckpointError(f"{source}: its description is not a JSON object")
    if about.get("format_version") != FILE_VERSION:
        raise CheckpointError(
            f"{source}: format version {about.get('format_version')}, this handgraph reads {FILE_VERSION}; "
            "export it again"
        )
    if opsets.get("") != OPSET:
        raise CheckpointError(
            f"{source}: ONNX operators of version {opsets.get('')}, expected {OPSET}; export it again"
        )
    return about


def _fields(content: bytes | memoryview) -> Any:
    """The fields of a protobuf message: (number, integer or bytes). Raises ValueError, IndexError."""
    at, end = 0, len(content)
    if not end:
        raise ValueError("empty")
    view = memoryview(content)
    while at < end:
        key, at = _varint(view, at)
        number, kind = key >> 3, key & 7
        if number == 0:
            raise ValueError("no field")
        if kind == 0:
            value, at = _varint(view, at)
            yield number, value
            continue
        if kind == 2:
            size, at = _varint(view, at)
        else:
            size = {1: 8, 5: 4}.get(kind, -1)
        if size < 0 or at + size > end:
            raise ValueError("cut short")
        yield number, view[at : at + size]
        at += size


def _varint(view: memoryview, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = view[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7
        if shift > 63:
            raise ValueError("no number")


def _text(value: Any) -> str:
    return bytes(value).decode()


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:16]


def _content(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError as error:
        raise CheckpointError(f"{file}: cannot be read ({error.strerror})") from None


def _line(error: BaseException) -> str:
    return " ".join(str(error).split())[:300]
