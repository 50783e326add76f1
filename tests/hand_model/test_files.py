"""Reading MANO-format files: what the official pickle holds is understood, what could do harm is refused."""

import io
import os
import pickle
import re
import subprocess
import sys
import types
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from handgraph import FormatError
from handgraph.hand_model import TIP_VERTICES, load_mano, load_open_hand

Fields = dict[str, Any]


@pytest.fixture
def chumpy() -> Iterator[types.SimpleNamespace]:
    """Classes that pickle under chumpy's names, as in the official file; gone again after the test."""
    modules = {name: types.ModuleType(name) for name in ("chumpy", "chumpy.ch", "chumpy.reordering")}
    made = {}
    for module, name in (("chumpy.ch", "Ch"), ("chumpy.reordering", "Select")):
        made[name] = type(name, (), {"__module__": module, "__qualname__": name})
        setattr(modules[module], name, made[name])
    assert not any(name in sys.modules for name in modules)
    sys.modules.update(modules)
    yield types.SimpleNamespace(**made)
    for name in modules:
        del sys.modules[name]


class Sparse:
    """Pickles as SciPy's csc_matrix of old did."""

    def __init__(self, dense: np.ndarray) -> None:
        columns, rows = np.nonzero(dense.T)
        self.state = {
            "_shape": dense.shape,
            "maxprint": 50,
            "data": dense.T[columns, rows],
            "indices": rows.astype(np.int32),
            "indptr": np.concatenate([[0], np.cumsum((dense != 0).sum(0))]).astype(np.int32),
        }


def official_pickle(fields: Fields, chumpy: types.SimpleNamespace, protocol: int = 2) -> bytes:
    """The fields as the official file stores them: chumpy shape directions (20 stored), sparse regressor."""
    stored = chumpy.Ch()
    extra = np.random.default_rng(1).normal(size=(*fields["shapedirs"].shape[:2], 10))
    stored.__dict__.update(x=np.concatenate([fields["shapedirs"], extra], axis=2), _dirty_vars={"x"})
    chosen = chumpy.Select()
    every = np.arange(stored.x.size).reshape(stored.x.shape)
    shape = fields["shapedirs"].shape
    chosen.__dict__.update(a=stored, idxs=every[..., :10].ravel(), preferred_shape=shape)
    content = {
        **fields,
        "shapedirs": chosen,
        "J_regressor": Sparse(fields["J_regressor"]),
        "J": fields["J_regressor"] @ fields["v_template"],
        "weights": np.asfortranarray(fields["weights"]),
        "bs_style": "lbs",
    }
    buffer = io.BytesIO()
    # Under SciPy's old name: a module of that name stands in while writing.
    module = types.ModuleType("scipy.sparse.csc")
    csc = type("csc_matrix", (), {"__module__": module.__name__, "__qualname__": "csc_matrix"})
    module.csc_matrix = csc  # type: ignore[attr-defined]
    before = sys.modules.get(module.__name__)
    sys.modules[module.__name__] = module
    try:
        matrix = csc()
        matrix.__dict__.update(content["J_regressor"].state)
        content["J_regressor"] = matrix
        pickle.Pickler(buffer, protocol=protocol).dump(content)
    finally:
        if before is None:
            del sys.modules[module.__name__]
        else:
            sys.modules[module.__name__] = before
    return buffer.getvalue()


def write(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


def one_line(path: Path, **options: Any) -> str:
    """The reason for which a file is refused; it must be one line that names the file."""
    with pytest.raises(FormatError) as caught:
        load_mano(path, **options)
    message = str(caught.value)
    assert "\n" not in message
    assert str(path) in message
    return message


@pytest.mark.parametrize("protocol", [0, 1, 2, 3, 4, 5])
def test_official_pickle_is_understood(
    tmp_path: Path, fields: Fields, chumpy: types.SimpleNamespace, protocol: int
) -> None:
    path = write(tmp_path / "MANO_RIGHT.pkl", official_pickle(fields, chumpy, protocol))
    model = load_mano(path)
    for field in ("v_template", "shapedirs", "posedirs", "weights", "hands_components", "hands_mean"):
        np.testing.assert_array_equal(getattr(model, field), fields[field])
    np.testing.assert_array_equal(model.J_regressor, fields["J_regressor"])
    np.testing.assert_array_equal(model.faces, fields["f"])
    assert tuple(model.parents) == (-1, 0, 1, 2, 0, 4, 5, 0, 7, 8, 0, 10, 11, 0, 13, 14)
    assert tuple(model.tip_vertices) == (744, 320, 443, 554, 671)
    assert (model.side, model.name, model.corrections) == ("right", "MANO_RIGHT", ())


def test_python_2_pickle_is_understood(tmp_path: Path, fields: Fields) -> None:
    """Python 2 wrote raw bytes as str (opcode BINSTRING) under __builtin__ and copy_reg names."""
    value = np.array([[1.5, -2.0, 300.0]])

    def array(values: np.ndarray) -> bytes:
        raw = values.tobytes()
        dtype = values.dtype.str[1:].encode()
        return (
            b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(I0\ntS'b'\ntR(I1\n("
            + b"".join(b"I%d\n" % n for n in values.shape)
            + b"tcnumpy\ndtype\n(S'%s'\nI0\nI1\ntR(I3\nS'<'\nNNNI-1\nI-1\nI0\ntbI00\n" % dtype
            + b"T" + len(raw).to_bytes(4, "little") + raw + b"tb"
        )  # fmt: skip

    body = b"}" + b"".join(
        b"S'%s'\n" % name.encode() + array(np.asarray(content)) + b"s" for name, content in fields.items()
    )
    path = write(tmp_path / "RIGHT.pkl", body + b".")
    np.testing.assert_array_equal(load_mano(path).v_template, fields["v_template"])
    other = b"}S'v_template'\n" + array(value) + b"sS'x'\nccopy_reg\n_reconstructor\n(c__builtin__\nobject\n"
    refused = write(tmp_path / "other.pkl", other + b"c__builtin__\nobject\nNtRs.")
    assert "field shapedirs is missing" in one_line(refused)


@pytest.mark.parametrize("name", sorted(TIP_VERTICES))
def test_fingertips_by_name(tmp_path: Path, fields: Fields, name: str) -> None:
    path = tmp_path / "right.npz"
    np.savez(path, **fields)
    assert tuple(load_mano(path, tips=name).tip_vertices) == TIP_VERTICES[name]


def test_unknown_fingertips_are_named(tmp_path: Path) -> None:
    with pytest.raises(FormatError, match="tips: found 'nails', expected one of smplx, manopth"):
        load_mano(tmp_path / "any.pkl", tips="nails")


def test_npz_of_the_same_fields(tmp_path: Path, fields: Fields) -> None:
    path = tmp_path / "right.npz"
    np.savez(path, **fields)
    np.testing.assert_array_equal(load_mano(path).posedirs, fields["posedirs"])


@pytest.mark.parametrize(
    ("name", "mirrored", "side"),
    [
        ("MANO_RIGHT.npz", False, "right"),
        ("MANO_LEFT.npz", True, "left"),
        ("hand.npz", False, "right"),
        ("hand.npz", True, "left"),
    ],
)
def test_side_by_name_or_by_fingers(
    tmp_path: Path, fields: Fields, name: str, mirrored: bool, side: str
) -> None:
    if mirrored:
        fields["v_template"] = fields["v_template"] * [-1, 1, 1]
        fields["shapedirs"] = fields["shapedirs"] * [[-1], [1], [1]]
    np.savez(tmp_path / name, **fields)
    assert load_mano(tmp_path / name).side == side


# --- the left file's fault ---


def left_of(fields: Fields, faulty: bool) -> Fields:
    left = dict(fields, v_template=fields["v_template"] * [-1, 1, 1])
    if not faulty:
        left["shapedirs"] = fields["shapedirs"] * [[-1], [1], [1]]
    return left


@pytest.mark.parametrize("right_beside", [True, False])
def test_faulty_left_shapes_are_mended_and_it_is_said(
    tmp_path: Path, fields: Fields, right_beside: bool
) -> None:
    # The first shape is growth, as in any population; the rest is random.
    centred = fields["v_template"] - fields["v_template"].mean(0)
    fields["shapedirs"][:, :, 0] = 0.3 * centred
    if right_beside:
        np.savez(tmp_path / "MANO_RIGHT.npz", **fields)
    np.savez(tmp_path / "MANO_LEFT.npz", **left_of(fields, faulty=True))
    with pytest.warns(UserWarning, match="left hand's shape components mirrored in x"):
        model = load_mano(tmp_path / "MANO_LEFT.npz")
    np.testing.assert_array_equal(model.shapedirs, fields["shapedirs"] * [[-1], [1], [1]])
    (correction,) = model.corrections
    expected = "equal those of MANO_RIGHT.npz" if right_beside else "shorten the hand where they broaden it"
    assert expected in correction


@pytest.mark.parametrize("right_beside", [True, False])
def test_sound_left_shapes_stay(tmp_path: Path, fields: Fields, right_beside: bool) -> None:
    centred = fields["v_template"] - fields["v_template"].mean(0)
    fields["shapedirs"][:, :, 0] = 0.3 * centred
    if right_beside:
        np.savez(tmp_path / "MANO_RIGHT.npz", **fields)
    np.savez(tmp_path / "MANO_LEFT.npz", **left_of(fields, faulty=False))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model = load_mano(tmp_path / "MANO_LEFT.npz")
    np.testing.assert_array_equal(model.shapedirs, fields["shapedirs"] * [[-1], [1], [1]])
    assert model.corrections == ()


def test_left_shapes_without_evidence_stay(tmp_path: Path, fields: Fields) -> None:
    """Random shapes neither grow nor shrink the hand, so nothing is known and nothing is changed."""
    np.savez(tmp_path / "MANO_LEFT.npz", **left_of(fields, faulty=True))
    model = load_mano(tmp_path / "MANO_LEFT.npz")
    np.testing.assert_array_equal(model.shapedirs, fields["shapedirs"])
    assert model.corrections == ()


def test_open_hand_is_whole() -> None:
    model = load_open_hand()
    assert model.side == "right"
    assert model.joint_axes is not None
    identity = model.joint_axes @ model.joint_axes.transpose(0, 2, 1)
    np.testing.assert_allclose(identity, np.broadcast_to(np.eye(3), (15, 3, 3)), atol=1e-5)
    assert len(model.shape_names) == 10


# --- hostile files ---


class Calls:
    """Unpickles as a call of `function`."""

    def __init__(self, function: Callable[..., Any], *arguments: Any) -> None:
        self.reduced = (function, arguments)

    def __reduce__(self) -> Any:
        return self.reduced


# Low protocols write Python 2's module names.
HOSTILE: dict[str, tuple[Callable[[str], Any], str]] = {
    "os.system": (lambda mark: Calls(os.system, f"touch {mark}"), r"(posix|nt)\.system"),
    "eval": (lambda mark: Calls(eval, f"open({mark!r}, 'w')"), r"(builtins|__builtin__)\.eval"),
    "getattr": (lambda mark: Calls(getattr, mark, "encode"), r"(builtins|__builtin__)\.getattr"),
    "subprocess": (
        lambda mark: Calls(subprocess.check_call, ["touch", mark]),
        r"(subprocess|commands)\.check_call",
    ),
    "open": (lambda mark: Calls(open, mark, "w"), r"(_?io|builtins|__builtin__)\.open"),
}


@pytest.mark.parametrize("protocol", [0, 2, 4])
@pytest.mark.parametrize("attack", sorted(HOSTILE))
def test_code_in_a_pickle_is_refused_and_never_runs(tmp_path: Path, attack: str, protocol: int) -> None:
    make, named = HOSTILE[attack]
    mark = tmp_path / "executed"
    content = {"v_template": make(str(mark))}
    path = write(tmp_path / "MANO_RIGHT.pkl", pickle.dumps(content, protocol))
    message = one_line(path)
    assert not mark.exists()
    assert re.search(f"refused: the pickle names {named}, which no MANO file needs", message)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"cnumpy.core.multiarray\n_reconstruct.__globals__\n.", "refused: the pickle names"),
        (b"cnumpy\nload\n(S'/etc/passwd'\ntR.", "names numpy.load"),
        (b"\x80\x04\x8c\x0chandgraph.io\x8c\x04save\x93.", "names handgraph.io.save"),
        (b"(S'true'\nios\nsystem\n.", "uses INST"),
        (b"Pidentifier\n.", "uses PERSID"),
        (b"\x82\x01.", "uses EXT1"),
        # a memo index for which the unpickler would allocate 64 GB
        (b"}r\xff\xff\xff\x7f.", "memo index beyond the file"),
        # BUILD upon a class: would replace a method of the stand-in
        (b"cnumpy\nndarray\n(N}S'array'\nNstb.", "damaged"),
        (b"cnumpy\nndarray\n}S'array'\nNsb.", "damaged"),
        (b"I1\n.", "found a pickled int"),
        (b"", "the file is empty"),
        (b"\x00" * 100, "damaged"),
        (b"PK\x03\x04 no archive", "damaged .npz"),
        (b"}.", "field v_template is missing"),
    ],
)
def test_odd_files_are_refused_in_one_line(tmp_path: Path, content: bytes, reason: str) -> None:
    assert reason in one_line(write(tmp_path / "MANO_RIGHT.pkl", content))


def test_missing_file_and_folder(tmp_path: Path) -> None:
    assert "cannot be read (No such file" in one_line(tmp_path / "MANO_RIGHT.pkl")
    assert "cannot be read (Is a directory" in one_line(tmp_path)


def test_arrays_of_objects_are_refused(tmp_path: Path, fields: Fields) -> None:
    fields["weights"] = np.array([{"any": "object"}], dtype=object)
    path = write(tmp_path / "MANO_RIGHT.pkl", pickle.dumps(fields, 2))
    assert "weights: found array type 'O8', expected plain numbers" in one_line(path)
    np.savez(tmp_path / "right.npz", **fields)
    assert "damaged .npz (Object arrays cannot be loaded" in one_line(tmp_path / "right.npz")


@pytest.mark.parametrize(
    ("field", "value", "reason"),
    [
        ("v_template", np.zeros((778, 2)), "v_template: found shape (778, 2), expected (778, 3)"),
        ("posedirs", np.zeros((778, 3, 207)), "posedirs: found shape (778, 3, 207), expected (778, 3, 135)"),
        ("shapedirs", np.zeros((778, 3, 4)), "shapedirs: found shape (778, 3, 4), expected (778, 3, 10)"),
        ("weights", np.full((778, 16), 0.5), "weights: row 0 sums to 8, expected 1"),
        ("J_regressor", np.zeros((16, 778)), "J_regressor: row 0 sums to 0, expected 1"),
        ("hands_mean", np.full(45, np.nan), "hands_mean: holds numbers that are not finite"),
        ("f", np.full((5, 3), 778), "faces: found indices 778…778 for 778 vertices"),
        ("f", np.zeros((5, 3)), "faces: found type float64, expected integers"),
        ("kintree_table", np.zeros((2, 16), int), "parents: the kinematic tree is not MANO's"),
        ("kintree_table", np.zeros((2, 24), int), "kintree_table: found shape (2, 24), expected (2, 16)"),
        ("weights", "text", "weights: found str, expected an array"),
    ],
)
def test_wrong_arrays_say_what_is_expected(
    tmp_path: Path, fields: Fields, field: str, value: Any, reason: str
) -> None:
    path = write(tmp_path / "MANO_RIGHT.pkl", pickle.dumps({**fields, field: value}, 2))
    assert reason in one_line(path)


def test_sparse_matrix_of_huge_shape_is_refused(
    tmp_path: Path, fields: Fields, chumpy: types.SimpleNamespace
) -> None:
    content = official_pickle(fields, chumpy)
    huge = content.replace(b"M\x0a\x03\x86", b"J\xff\xff\xff\x7f\x86", 1)  # a 778 of a pair becomes 2³¹ − 1
    assert huge != content
    path = write(tmp_path / "MANO_RIGHT.pkl", huge)
    assert "is no part of a hand model" in one_line(path)


def test_every_truncation_is_a_plain_error(
    tmp_path: Path, fields: Fields, chumpy: types.SimpleNamespace
) -> None:
    content = official_pickle(fields, chumpy)
    for length in np.linspace(0, len(content) - 1, 16).astype(int):
        one_line(write(tmp_path / "MANO_RIGHT.pkl", content[:length]))
    np.savez_compressed(tmp_path / "right.npz", **{**fields, "posedirs": np.zeros((778, 3, 135))})
    packed = (tmp_path / "right.npz").read_bytes()
    for length in np.linspace(0, len(packed) - 1, 10).astype(int):
        one_line(write(tmp_path / "right.npz", packed[:length]))


def test_flipped_bits_are_a_plain_error_or_another_number(
    tmp_path: Path, fields: Fields, chumpy: types.SimpleNamespace
) -> None:
    """Damage in the structure is a FormatError and nothing else; damage in a number may go unseen."""
    content = official_pickle(fields, chumpy)
    # Most bytes are numbers; aim at the structure: the first and last kilobyte and around each key.
    generator = np.random.default_rng(0)
    keys = [content.index(key) for key in (b"shapedirs", b"J_regressor", b"_shape", b"idxs", b"hands_mean")]
    around = np.concatenate([np.arange(at - 10, at + 150) for at in keys] + [np.arange(300)])
    messages = []
    for at in generator.choice(around, 20, replace=False):
        damaged = bytearray(content)
        damaged[at] ^= 1 << int(generator.integers(8))
        path = write(tmp_path / "MANO_RIGHT.pkl", bytes(damaged))
        try:
            load_mano(path)
        except FormatError as error:
            messages.append(str(error))
    assert len(messages) > 5
    assert not any("\n" in message for message in messages)
