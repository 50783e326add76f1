"""Hand models on disk: the shipped open hand, and MANO-format files the user supplies.

A MANO file is a Python 2 pickle of NumPy, SciPy and chumpy objects. Unpickling can run any code a file
names, so nothing of it is unpickled into real classes here: every class a MANO file needs is replaced
by a small inert stand-in, arrays are rebuilt from their raw bytes for a short list of plain number
types, and any other class is refused. Neither SciPy nor chumpy is needed.
"""

import io
import pickle
import pickletools
import warnings
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from importlib import resources
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np

from handgraph.shapes import Float

from ..errors import FormatError

Side = Literal["right", "left"]

JOINT_COUNT = 16
MILLIMETRES = 1000.0  # per metre: models are stored in metres, what is made of them is in millimetres
PARENTS = (-1, 0, 1, 2, 0, 4, 5, 0, 7, 8, 0, 10, 11, 0, 13, 14)
"""MANO's tree: wrist, then three joints each of index, middle, little, ring finger and thumb."""

TIP_VERTICES: dict[str, tuple[int, int, int, int, int]] = {
    "smplx": (744, 320, 443, 554, 671),
    "manopth": (745, 317, 444, 556, 673),
    "manopth_left": (745, 317, 445, 556, 673),
    "freihand": (744, 333, 444, 555, 672),
}
"""Fingertip vertices of the MANO mesh, thumb to little finger, as different sources choose them.

DexYCB's labels use manopth's; FreiHAND's its own, found from its labelled joints and meshes (the script that
its authors publish names 320 and 443 instead). `smplx` is the default.
"""

MAX_FILE_BYTES = 256 * 2**20  # a MANO file has 4 MB; far larger is not a hand model
_MAX_VERTICES = 100_000


@dataclass(frozen=True, eq=False)
class HandModel:
    """A linear-blend-skinned hand in MANO's fields (Romero et al., SIGGRAPH Asia 2017), metres and radians.

    Rest frame of a right hand: fingers towards −x, palm towards −y, thumb towards +z; a left hand is its
    mirror image in x. Arrays are converted to float64 / int64, checked, and made read-only.

    Raises:
        FormatError: an array of the wrong shape or kind, a number that is not finite, an index out of
            range, weights that do not sum to one, or a kinematic tree that is not MANO's.
    """

    v_template: np.ndarray
    """(V, 3) Vertices of the mean hand at the flat pose, metres."""
    shapedirs: np.ndarray
    """(V, 3, 10) Displacement per unit of each shape coefficient, metres."""
    posedirs: np.ndarray
    """(V, 3, 135) Displacement per element of the finger joints' 15 row-major matrices R − I, metres."""
    J_regressor: np.ndarray
    """(16, V) Rest joints from shaped vertices; rows sum to one."""
    weights: np.ndarray
    """(V, 16) Skinning weights; rows sum to one."""
    faces: np.ndarray
    """(F, 3) Triangles, counter-clockwise seen from outside."""
    parents: np.ndarray
    """(16,) Parent of each joint, −1 at the wrist; always `PARENTS`."""
    hands_components: np.ndarray
    """(45, 45) Principal poses as rows, most important first: axis-angle of the 15 finger joints."""
    hands_mean: np.ndarray
    """(45,) The mean pose, axis-angle; zero pose is the flat hand."""
    tip_vertices: np.ndarray
    """(5,) The vertex that stands for each fingertip, thumb to little finger."""
    side: Side
    name: str
    joint_axes: np.ndarray | None = None
    """(15, 3, 3) Rows: flexion, abduction, twist axis of each finger joint in the rest frame, where known."""
    joint_limits: np.ndarray | None = None
    """(15, 3, 2) Least and greatest flexion, abduction and twist, radians, where known."""
    shape_names: tuple[str, ...] = ()
    """What each shape coefficient means, where known."""
    corrections: tuple[str, ...] = ()
    """What was mended on reading, in words; empty for a file used as it is."""

    def __post_init__(self) -> None:
        if self.side not in get_args(Side):
            raise FormatError(f"side: found {self.side!r}, expected 'right' or 'left'")
        vertices = np.asarray(self.v_template).shape[0] if np.ndim(self.v_template) == 2 else -1
        if not 1 <= vertices <= _MAX_VERTICES:
            raise FormatError(f"v_template: found shape {np.shape(self.v_template)}, expected (V, 3)")
        triangles = np.shape(self.faces)[0] if np.ndim(self.faces) == 2 else -1
        shapes: dict[str, tuple[int, ...]] = {
            "v_template": (vertices, 3),
            "shapedirs": (vertices, 3, 10),
            "posedirs": (vertices, 3, 135),
            "J_regressor": (JOINT_COUNT, vertices),
            "weights": (vertices, JOINT_COUNT),
            "faces": (triangles, 3),
            "parents": (JOINT_COUNT,),
            "hands_components": (45, 45),
            "hands_mean": (45,),
            "tip_vertices": (5,),
            "joint_axes": (15, 3, 3),
            "joint_limits": (15, 3, 2),
        }
        for field, shape in shapes.items():
            value = getattr(self, field)
            if value is None and field in ("joint_axes", "joint_limits"):
                continue
            whole = field in ("faces", "parents", "tip_vertices")
            object.__setattr__(self, field, _checked(field, value, shape, whole))
        if tuple(self.parents) != PARENTS:
            raise FormatError("parents: the kinematic tree is not MANO's (wrist and five chains of three)")
        for field in ("faces", "tip_vertices"):
            indices = getattr(self, field)
            if indices.size and not (indices.min() >= 0 and indices.max() < vertices):
                raise FormatError(
                    f"{field}: found indices {indices.min()}…{indices.max()} for {vertices} vertices"
                )
        for field in ("weights", "J_regressor"):
            sums = getattr(self, field).sum(axis=1)
            worst = int(np.abs(sums - 1).argmax())
            if abs(sums[worst] - 1) > 1e-3:
                raise FormatError(f"{field}: row {worst} sums to {sums[worst]:.4g}, expected 1")

    @property
    def rest_joints(self) -> Float[np.ndarray, "16 3"]:
        """The joints of the mean hand at the flat pose, metres, MANO's order."""
        return self.J_regressor @ self.v_template

    def mirrored(self) -> "HandModel":
        """The same hand on the other side, reflected in x as MANO's two files are.

        A pose of one hand becomes that of the other by negating y and z of every axis-angle (an axis is a
        pseudo-vector); shape coefficients stay.
        """
        point = np.array([-1.0, 1.0, 1.0])
        axis = np.array([1.0, -1.0, -1.0])
        # R − I mirrors to M (R − I) M, so element (a, b) of every joint's matrix changes sign by m_a m_b.
        matrix = np.tile(np.outer(point, point).ravel(), 15)
        return replace(
            self,
            v_template=self.v_template * point,
            shapedirs=self.shapedirs * point[:, None],
            posedirs=self.posedirs * point[:, None] * matrix,
            faces=self.faces[:, ::-1],
            hands_components=self.hands_components * np.tile(axis, 15),
            hands_mean=self.hands_mean * np.tile(axis, 15),
            joint_axes=None if self.joint_axes is None else self.joint_axes * axis,
            side="left" if self.side == "right" else "right",
        )


def load_open_hand() -> HandModel:
    """The shipped hand model: made for this project, free to use under its licence. A right hand.

    Raises:
        FormatError: the shipped file is missing or damaged.
    """
    path = resources.files(__package__) / "open_hand.npz"
    try:
        data = path.read_bytes()
    except OSError:
        raise FormatError("open_hand.npz: the shipped hand model is missing; reinstall handgraph") from None
    return _in_file("open_hand.npz", lambda: _from_fields(_read_npz(data), "open_hand", None, None))


def load_mano(path: str | Path, *, side: Side | None = None, tips: str = "smplx") -> HandModel:
    """Read a MANO-format hand model: the official MANO_RIGHT.pkl / MANO_LEFT.pkl, or an .npz of its fields.

    No code in the file is ever executed. Where more than ten shape components are stored, the first ten
    are taken, as MANO itself does.

    The official left file repeats the right hand's shape components although its template is mirrored,
    so that equal coefficients give other hands left and right. This is mended by negating their x rows,
    said in a warning and in `HandModel.corrections`. The fault is recognised by comparison with a
    MANO_RIGHT file in the same folder, or else by growth: see `_left_shape_fault`.

    Args:
        path: the file. It must not be shared: MANO's licence is the user's own.
        side: the hand's side; by default what the file's name says ("left", "right"), and else where the
            fingers point (−x on a right hand in MANO's frame).
        tips: which fingertip vertices to use, a key of `TIP_VERTICES`; an .npz's own win over the default.

    Raises:
        FormatError: the file cannot be read, names a class that a MANO file does not need, or holds
            arrays that are no hand model. One line with the file's path.
    """
    path = Path(path)
    if tips not in TIP_VERTICES:
        raise FormatError(f"tips: found {tips!r}, expected one of {', '.join(TIP_VERTICES)}")
    if side is None:
        named = [known for known in get_args(Side) if known in path.stem.lower()]
        side = named[0] if len(named) == 1 else None

    def read() -> HandModel:
        model = _from_fields(_read_fields(path), path.stem, side, tips)
        if model.side == "right":
            return model
        how = _left_shape_fault(model, path)
        return model if how is None else _mend_left_shape(model, path, how)

    return _in_file(path, read)


def _in_file(path: str | Path, read: Callable[[], HandModel]) -> HandModel:
    """Put the file's name before whatever was wrong with it."""
    try:
        return read()
    except FormatError as error:
        raise FormatError(f"{path}: {error}") from None


def _checked(field: str, value: Any, shape: tuple[int, ...], whole: bool) -> np.ndarray:
    array = np.asarray(value)
    if array.dtype.kind not in ("iu" if whole else "fiu"):
        raise FormatError(f"{field}: found type {array.dtype}, expected {'integers' if whole else 'numbers'}")
    if array.shape != shape:
        raise FormatError(f"{field}: found shape {array.shape}, expected {shape}")
    array = np.array(array, dtype=np.int64 if whole else np.float64, order="C")
    if not np.isfinite(array).all():
        raise FormatError(f"{field}: holds numbers that are not finite")
    array.setflags(write=False)
    return array


# --- from fields to a model -----------------------------------------------------------------------------


def _read_fields(path: Path) -> dict[str, Any]:
    try:
        if path.stat().st_size > MAX_FILE_BYTES:
            raise FormatError(f"found {path.stat().st_size} bytes, too large for a hand model")
        data = path.read_bytes()
    except OSError as error:
        raise FormatError(f"cannot be read ({error.strerror})") from None
    if not data:
        raise FormatError("the file is empty, expected a MANO .pkl or .npz")
    return _read_npz(data) if data[:2] == b"PK" else _read_pickle(data)


def _read_npz(data: bytes) -> dict[str, Any]:
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            unpacked = sum(entry.file_size for entry in archive.infolist())
        if unpacked > MAX_FILE_BYTES:
            raise FormatError(f"unpacks to {unpacked} bytes, too large for a hand model")
        with np.load(io.BytesIO(data), allow_pickle=False) as archive:
            return dict(archive)
    except FormatError:
        raise
    except Exception as error:  # damaged archives fail in many ways: zlib, zipfile, the array header's parser
        raise FormatError(f"damaged .npz ({_one_line(error)})") from None


def _one_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:200]


def _from_fields(data: Mapping[str, Any], name: str, side: Side | None, tips: str | None) -> HandModel:
    """A model from a file's fields. `side` and `tips` are what the user asked for, if anything."""
    missing = [
        field
        for field in ("v_template", "shapedirs", "posedirs", "J_regressor", "weights")
        if field not in data
    ]
    if missing or not ("f" in data or "faces" in data):
        raise FormatError(f"not a MANO hand model: field {(missing or ['f'])[0]} is missing")
    shapedirs = _array("shapedirs", data["shapedirs"])
    known = {
        "v_template": data["v_template"],
        "shapedirs": shapedirs[..., :10],
        "posedirs": data["posedirs"],
        "J_regressor": data["J_regressor"],
        "weights": data["weights"],
        "faces": data["faces"] if "faces" in data else data["f"],
        "hands_components": data.get("hands_components", np.eye(45)),
        "hands_mean": data.get("hands_mean", np.zeros(45)),
        "tip_vertices": data["tip_vertices"]
        if "tip_vertices" in data
        else np.array(TIP_VERTICES[tips or "smplx"]),
    }
    arrays: dict[str, Any] = {field: _array(field, value) for field, value in known.items()}
    for optional in ("joint_axes", "joint_limits"):
        if optional in data:
            arrays[optional] = _array(optional, data[optional])
    if side is None:
        side = _stated_side(data) or _side_by_fingers(arrays["J_regressor"], arrays["v_template"])
    shape_names = _array("shape_names", data["shape_names"]) if "shape_names" in data else np.array([], "U1")
    return HandModel(
        **arrays,
        parents=_parents(data),
        side=side,
        name=name,
        shape_names=tuple(str(shape_name) for shape_name in shape_names.ravel()),
    )


def _array(field: str, value: Any) -> np.ndarray:
    if isinstance(value, np.ndarray):
        return value
    if isinstance(value, _StandIn):
        return value.array(field)
    raise FormatError(f"{field}: found {type(value).__name__}, expected an array")


def _parents(data: Mapping[str, Any]) -> np.ndarray:
    if "parents" in data:
        parents = _array("parents", data["parents"])
    elif "kintree_table" in data:
        table = _array("kintree_table", data["kintree_table"])
        if table.shape != (2, JOINT_COUNT):
            raise FormatError(f"kintree_table: found shape {table.shape}, expected (2, {JOINT_COUNT})")
        parents = table[0]
    else:
        raise FormatError("not a MANO hand model: field kintree_table is missing")
    if parents.dtype.kind not in "iu" or parents.ndim != 1:
        raise FormatError(f"parents: found {parents.dtype} of shape {parents.shape}, expected 16 integers")
    parents = parents.astype(np.int64)
    return np.where(parents == 2**32 - 1, -1, parents)  # the root's −1 is stored as an unsigned number


def _stated_side(data: Mapping[str, Any]) -> Side | None:
    stated = str(data.get("side", ""))
    return next((known for known in get_args(Side) if known == stated), None)


def _side_by_fingers(J_regressor: np.ndarray, v_template: np.ndarray) -> Side:
    """Which hand it is in MANO's frame: a right hand's fingers point towards −x."""
    try:
        joints = J_regressor @ v_template
        return "right" if joints[1:, 0].mean() <= joints[0, 0] else "left"
    except (ValueError, IndexError, TypeError):
        return "right"  # shapes that do not fit: HandModel says what is wrong


# --- the left file's fault ------------------------------------------------------------------------------


def _left_shape_fault(model: HandModel, path: Path) -> str | None:
    """How it is known that a left model's shape components are those of a right hand; None if they are sound.

    With a MANO_RIGHT file beside it: the x rows are faulty if they equal the right hand's.
    Without: the shape component that moves the mesh most is the hand's size, in MANO's data as in any
    population, so it must lengthen the hand (x) where it broadens it (z). Components that were not mirrored
    shorten it. Growth along an axis is the correlation of displacement with position; where it is weak along
    either axis nothing is concluded and nothing changed.
    """
    for beside in (path.with_name(_other_name(path.name)), path.with_name("MANO_RIGHT.pkl")):
        if beside != path and beside.is_file():
            try:
                right = _from_fields(_read_fields(beside), beside.stem, "right", None)
            except FormatError:
                continue
            if right.shapedirs.shape == model.shapedirs.shape:
                same = np.allclose(right.shapedirs[:, 0], model.shapedirs[:, 0], atol=1e-6)
                return f"its x rows equal those of {beside.name}" if same else None
    centred = model.v_template - model.v_template.mean(axis=0)
    size = int(np.square(model.shapedirs).sum(axis=(0, 1)).argmax())
    moved = model.shapedirs[:, :, size] - model.shapedirs[:, :, size].mean(axis=0)
    spread = np.sqrt(np.square(centred).sum(axis=0) * np.square(moved).sum(axis=0)) + 1e-30
    lengthens, _, broadens = (centred * moved).sum(axis=0) / spread
    if min(abs(lengthens), abs(broadens)) > 0.25 and lengthens * broadens < 0:
        return "they shorten the hand where they broaden it"
    return None


def _other_name(name: str) -> str:
    return name.replace("LEFT", "RIGHT").replace("Left", "Right").replace("left", "right")


def _mend_left_shape(model: HandModel, path: Path, how: str) -> HandModel:
    correction = f"left hand's shape components mirrored in x ({how})"
    warnings.warn(f"{path}: {correction}", UserWarning, stacklevel=4)
    return replace(
        model, shapedirs=model.shapedirs * np.array([[-1.0], [1.0], [1.0]]), corrections=(correction,)
    )


# --- pickles --------------------------------------------------------------------------------------------


class _Sealed(type):
    """Forbids a pickle to change the stand-ins' classes (its BUILD opcode can set attributes)."""

    def __setattr__(cls, name: str, value: object) -> None:
        raise FormatError("the pickle tries to change a class")


class _StandIn(metaclass=_Sealed):
    """What a class of the pickle becomes: a holder of the state the file gives it, which runs nothing."""

    __slots__ = ("arguments", "state")
    arguments: tuple[Any, ...]
    state: Any

    def __new__(cls, *arguments: Any) -> Any:
        made = object.__new__(cls)
        made.arguments = arguments
        made.state = None
        return made

    def __init__(self, *arguments: Any) -> None:
        pass

    def __setstate__(self, state: Any) -> None:
        self.state = state

    def array(self, field: str) -> np.ndarray:
        """The numbers this object stands for; `field` names it in errors."""
        raise FormatError(f"{field}: found no array where one is expected")


class _Ignored(_StandIn):
    """chumpy's bookkeeping sets, and `object`: present in files, never looked at."""

    __slots__ = ()


class _Dtype(_StandIn):
    __slots__ = ()

    def dtype(self, field: str) -> np.dtype:
        code = self.arguments[0] if self.arguments else None
        order = self.state[1] if isinstance(self.state, tuple) and len(self.state) > 1 else "="
        plain = ("f2", "f4", "f8", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "b1")
        if code not in plain or order not in ("<", ">", "|", "="):
            raise FormatError(f"{field}: found array type {str(code)[:20]!r}, expected plain numbers")
        return np.dtype(code).newbyteorder(order)


class _Array(_StandIn):
    """numpy.ndarray as `_reconstruct` leaves it; its state is (version, shape, dtype, fortran, raw bytes)."""

    __slots__ = ()

    def array(self, field: str) -> np.ndarray:
        try:
            _, shape, dtype, fortran, raw = self.state
        except (TypeError, ValueError):
            raise FormatError(f"{field}: an array without content") from None
        return _rebuilt(field, raw, dtype, shape, "F" if fortran else "C")


class _FrameArray(_StandIn):
    """An array as pickle protocol 5 stores it: `_frombuffer(raw bytes, dtype, shape, order)`."""

    __slots__ = ()

    def array(self, field: str) -> np.ndarray:
        if len(self.arguments) != 4:
            raise FormatError(f"{field}: an array without content")
        raw, dtype, shape, order = self.arguments
        return _rebuilt(field, raw, dtype, shape, "F" if order == "F" else "C")


def _rebuilt(field: str, raw: Any, dtype: Any, shape: Any, order: Literal["C", "F"]) -> np.ndarray:
    if not isinstance(dtype, _Dtype):
        raise FormatError(f"{field}: an array without a type")
    kind = dtype.dtype(field)
    try:
        # A Python 2 str arrives as text decoded from latin-1, one character for each byte.
        content = raw.encode("latin1") if isinstance(raw, str) else bytes(memoryview(raw))
        return np.frombuffer(content, kind).reshape(tuple(int(n) for n in shape), order=order)
    except (TypeError, ValueError, OverflowError) as error:
        raise FormatError(f"{field}: damaged array ({_one_line(error)})") from None


class _Sparse(_StandIn):
    """A SciPy compressed sparse matrix; state: data, indices, indptr, _shape."""

    __slots__ = ()
    by_column = True

    def array(self, field: str) -> np.ndarray:
        state = self.state if isinstance(self.state, dict) else {}
        data, indices, indptr = (_array(field, state.get(key)) for key in ("data", "indices", "indptr"))
        shape = state.get("_shape", state.get("shape"))
        if not (isinstance(shape, tuple) and len(shape) == 2 and all(isinstance(n, int) for n in shape)):
            raise FormatError(f"{field}: sparse matrix without a shape")
        rows, columns = shape
        if not (0 < rows <= _MAX_VERTICES and 0 < columns <= _MAX_VERTICES and rows * columns <= 2**24):
            raise FormatError(f"{field}: sparse matrix of shape {shape} is no part of a hand model")
        lines, along = (columns, rows) if self.by_column else (rows, columns)
        counts = np.diff(indptr) if indptr.ndim == 1 and indptr.dtype.kind in "iu" else np.array([-1])
        if (
            len(counts) != lines
            or (counts < 0).any()
            or indices.dtype.kind not in "iu"
            or data.dtype.kind not in "fiu"
            or not data.shape == indices.shape == (int(indptr[-1]),)
            or (indices < 0).any()
            or (indices >= along).any()
        ):
            raise FormatError(f"{field}: damaged sparse matrix")
        dense = np.zeros((lines, along))
        np.add.at(dense, (np.repeat(np.arange(lines), counts), indices), data)
        return dense.T if self.by_column else dense


class _SparseRows(_Sparse):
    __slots__ = ()
    by_column = False


class _Ch(_StandIn):
    """A chumpy array: the numbers are under `x`."""

    __slots__ = ()

    def array(self, field: str) -> np.ndarray:
        return _array(field, (self.state if isinstance(self.state, dict) else {}).get("x"))


class _Select(_StandIn):
    """chumpy's selection of elements: `a.ravel()[idxs].reshape(preferred_shape)`."""

    __slots__ = ()

    def array(self, field: str) -> np.ndarray:
        state = self.state if isinstance(self.state, dict) else {}
        source, chosen = _array(field, state.get("a")), _array(field, state.get("idxs"))
        shape = state.get("preferred_shape", chosen.shape)
        try:
            return source.ravel()[chosen].reshape(shape)
        except (IndexError, TypeError, ValueError) as error:
            raise FormatError(f"{field}: damaged selection ({_one_line(error)})") from None


class _Reconstruct(metaclass=_Sealed):
    """numpy's `_reconstruct(ndarray, (0,), b'b')`: an empty array, whose state follows."""

    def __new__(cls, *arguments: Any) -> Any:
        return _Array()


class _Reconstructor(metaclass=_Sealed):
    """copyreg's `_reconstructor(cls, object, None)`: how protocols 0 and 1 make an instance."""

    def __new__(cls, made: Any = None, *arguments: Any) -> Any:
        if not (isinstance(made, type) and issubclass(made, _StandIn)):
            raise FormatError("the pickle makes an object of no class a MANO file needs")
        return made()


class _Encode(metaclass=_Sealed):
    """`_codecs.encode(text, 'latin1')`: how Python 3 writes bytes at protocol 2."""

    def __new__(cls, text: Any = None, encoding: Any = None) -> Any:
        if not isinstance(text, str) or encoding != "latin1":
            raise FormatError("the pickle encodes text in a way a MANO file does not")
        return text.encode("latin1")


class _Scalar(_StandIn):
    """numpy's `scalar(dtype, raw bytes)`."""

    __slots__ = ()

    def array(self, field: str) -> np.ndarray:
        if len(self.arguments) != 2:
            raise FormatError(f"{field}: a number without content")
        return _rebuilt(field, self.arguments[1], self.arguments[0], (), "C")


# Module names of Python 2 and 3, and of old and new NumPy and SciPy.
_STAND_INS: dict[tuple[str, str], type] = {
    ("numpy", "ndarray"): _Array,
    ("numpy", "dtype"): _Dtype,
    ("numpy.core.multiarray", "_reconstruct"): _Reconstruct,
    ("numpy._core.multiarray", "_reconstruct"): _Reconstruct,
    ("numpy.core.multiarray", "scalar"): _Scalar,
    ("numpy._core.multiarray", "scalar"): _Scalar,
    ("numpy.core.numeric", "_frombuffer"): _FrameArray,
    ("numpy._core.numeric", "_frombuffer"): _FrameArray,
    ("scipy.sparse.csc", "csc_matrix"): _Sparse,
    ("scipy.sparse._csc", "csc_matrix"): _Sparse,
    ("scipy.sparse.csr", "csr_matrix"): _SparseRows,
    ("scipy.sparse._csr", "csr_matrix"): _SparseRows,
    ("chumpy.ch", "Ch"): _Ch,
    ("chumpy.reordering", "Select"): _Select,
    ("copy_reg", "_reconstructor"): _Reconstructor,
    ("copyreg", "_reconstructor"): _Reconstructor,
    ("_codecs", "encode"): _Encode,
    ("__builtin__", "object"): _Ignored,
    ("builtins", "object"): _Ignored,
    ("__builtin__", "set"): _Ignored,
    ("builtins", "set"): _Ignored,
}

_REFUSED_OPCODES = {
    "PERSID",
    "BINPERSID",
    "EXT1",
    "EXT2",
    "EXT4",
    "INST",
    "OBJ",
    "NEXT_BUFFER",
    "READONLY_BUFFER",
}


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        try:
            return _STAND_INS[module, name]
        except KeyError:
            raise FormatError(
                f"refused: the pickle names {_printable(f'{module}.{name}')}, which no MANO file needs"
            ) from None


def _printable(text: str) -> str:
    return "".join(char if char.isprintable() else "?" for char in text)[:80]


def _read_pickle(data: bytes) -> dict[str, Any]:
    try:
        # A first pass over the opcodes: refuses what MANO files never use before anything is made, and a
        # memo index beyond the file's length, for which the unpickler would allocate any amount of memory.
        for opcode, argument, _ in pickletools.genops(data):
            if opcode.name in _REFUSED_OPCODES:
                raise FormatError(f"refused: the pickle uses {opcode.name}, which no MANO file needs")
            if opcode.name in ("PUT", "LONG_BINPUT") and int(argument or 0) > len(data):
                raise FormatError("damaged pickle (memo index beyond the file)")
        made = _Unpickler(io.BytesIO(data), encoding="latin1").load()
    except FormatError:
        raise
    except Exception as error:  # a damaged pickle fails in as many ways as there are opcodes
        raise FormatError(f"not a MANO file, or damaged ({_one_line(error)})") from None
    if not isinstance(made, dict):
        raise FormatError(f"found a pickled {type(made).__name__}, expected MANO's dictionary")
    return made
