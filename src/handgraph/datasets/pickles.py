"""Pickles of datasets, read as data: plain values and NumPy arrays of numbers, and nothing else.

Unpickling can run any code a file names. Here every class that a pickled array needs is an inert stand-in,
arrays are rebuilt from their raw bytes, and any other class is refused.
"""

import io
import pickle
import pickletools
from pathlib import Path
from typing import Any

import numpy as np

from handgraph.datasets.files import read_bytes
from handgraph.errors import FormatError

_NUMBERS = ("f2", "f4", "f8", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "b1")
_REFUSED = ("PERSID", "BINPERSID", "EXT1", "EXT2", "EXT4", "INST", "OBJ", "NEXT_BUFFER", "READONLY_BUFFER")


def read_pickle(path: Path) -> Any:
    """The pickled dict, list, number, text, bytes or array; arrays within are `PickledArray`.

    Pickles of Python 2 and 3 and of old and new NumPy. Raises FormatError for a damaged file, and for one
    that names any class or function beyond those of NumPy's arrays.
    """
    content = read_bytes(path)
    try:
        # A first pass over the opcodes: the unpickler would allocate any amount of memory for a memo index
        # that a flipped bit made large.
        for opcode, argument, _ in pickletools.genops(content):
            if opcode.name in _REFUSED:
                raise FormatError(f"{path}: refused: the pickle uses {opcode.name}, which no dataset needs")
            if opcode.name in ("PUT", "LONG_BINPUT") and int(argument or 0) > len(content):
                raise FormatError(f"{path}: damaged pickle (memo index beyond the file); copy it again")
        return _Unpickler(io.BytesIO(content), encoding="latin1").load()
    except FormatError as error:
        message = str(error)
        raise FormatError(message if message.startswith(str(path)) else f"{path}: {message}") from None
    except Exception as error:  # a damaged pickle fails in as many ways as there are opcodes
        reason = (" ".join(str(error).split()) or type(error).__name__)[:100]
        raise FormatError(f"{path}: damaged pickle, or none ({reason}); copy it again") from None


def pickled_numbers(value: Any) -> np.ndarray:
    """A `PickledArray` or a plain number or list as an array. Raises ValueError where it is none."""
    if isinstance(value, PickledArray):
        return value.array()
    array = np.asarray(value)
    if array.dtype.kind not in "fiub":
        raise ValueError("no numbers")
    return array


class _Sealed(type):
    """Forbids a pickle to change the stand-ins' classes (its BUILD opcode can set attributes)."""

    def __setattr__(cls, name: str, value: object) -> None:
        raise FormatError("refused: the pickle tries to change a class")


class PickledArray(metaclass=_Sealed):
    """An array as it lies in the pickle; `array` rebuilds it."""

    __slots__ = ("state",)
    state: Any

    def __new__(cls, *state: Any) -> Any:
        made = object.__new__(cls)
        made.state = state
        return made

    def __setstate__(self, state: Any) -> None:
        self.state = state

    def array(self) -> np.ndarray:
        """Raises ValueError where type, shape and bytes do not fit one another."""
        try:
            # Protocol 5: (bytes, dtype, shape, order); before: (version, shape, dtype, fortran, bytes)
            if len(self.state) == 4:
                raw, kind, shape, order = self.state
                fortran = order == "F"
            else:
                _, shape, kind, fortran, raw = self.state
            # A Python 2 str arrives as text decoded from latin-1, one character for each byte.
            content = raw.encode("latin1") if isinstance(raw, str) else bytes(raw)
            return np.frombuffer(content, kind.dtype()).reshape(
                tuple(int(n) for n in shape), order="F" if fortran else "C"
            )
        except (TypeError, AttributeError, OverflowError) as error:
            raise ValueError("an array of other things than numbers, or without content") from error


class _Scalar(PickledArray):
    """numpy's `scalar(dtype, bytes)`."""

    __slots__ = ()

    def array(self) -> np.ndarray:
        try:
            kind, raw = self.state
        except (TypeError, ValueError) as error:
            raise ValueError("a number without content") from error
        return PickledArray(raw, kind, (), "C").array()


class _Dtype(metaclass=_Sealed):
    __slots__ = ("code", "order")
    code: Any
    order: Any

    def __new__(cls, code: Any = None, *rest: Any) -> Any:
        made = object.__new__(cls)
        made.code, made.order = code, "="
        return made

    def __setstate__(self, state: Any) -> None:
        self.order = state[1] if isinstance(state, tuple) and len(state) > 1 else None

    def dtype(self) -> np.dtype:
        if self.code not in _NUMBERS or self.order not in ("<", ">", "|", "="):
            raise ValueError(f"array type {str(self.code)[:20]!r}, expected plain numbers")
        return np.dtype(self.code).newbyteorder(self.order)


class _Reconstruct(metaclass=_Sealed):
    """numpy's `_reconstruct(ndarray, (0,), b'b')`: an empty array, whose state follows."""

    def __new__(cls, *arguments: Any) -> Any:
        return PickledArray()


class _Encode(metaclass=_Sealed):
    """`_codecs.encode(text, 'latin1')`: how Python 3 writes bytes at protocol 2."""

    def __new__(cls, text: Any = None, encoding: Any = None) -> Any:
        if not isinstance(text, str) or encoding != "latin1":
            raise FormatError("refused: the pickle encodes text in a way no array needs")
        return text.encode("latin1")


_STAND_INS: dict[tuple[str, str], type] = {
    ("numpy", "ndarray"): PickledArray,
    ("numpy", "dtype"): _Dtype,
    ("_codecs", "encode"): _Encode,
    **{
        (f"numpy.{core}.{module}", name): stand_in
        for core in ("core", "_core")
        for module, name, stand_in in (
            ("multiarray", "_reconstruct", _Reconstruct),
            ("multiarray", "scalar", _Scalar),
            ("numeric", "_frombuffer", PickledArray),
        )
    },
}


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        try:
            return _STAND_INS[module, name]
        except KeyError:
            named = "".join(char if char.isprintable() else "?" for char in f"{module}.{name}")[:80]
            raise FormatError(f"refused: the pickle names {named}, which no dataset needs") from None
