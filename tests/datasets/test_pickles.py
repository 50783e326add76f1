import os
import pickle
import time

import numpy as np
import pytest

from handgraph.datasets.pickles import pickled_numbers, read_pickle
from handgraph.errors import FormatError

VALUES = {
    "float32": np.arange(12, dtype=np.float32).reshape(3, 4),
    "big-endian": np.arange(4, dtype=">f8"),
    "fortran": np.asfortranarray(np.arange(6).reshape(2, 3)),
    "bool": np.array([True, False]),
    "scalar": np.float64(2.5),
    "plain": [1, 2.5, 3],
}


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_arrays_of_every_protocol(tmp_path, protocol):
    path = tmp_path / "a.pkl"
    path.write_bytes(pickle.dumps(VALUES, protocol=protocol))
    read = read_pickle(path)
    assert list(read) == list(VALUES)
    for name, value in VALUES.items():
        found = pickled_numbers(read[name])
        np.testing.assert_array_equal(found, value)
        assert found.dtype == np.asarray(value).dtype
    with pytest.raises(ValueError, match="no numbers"):
        pickled_numbers("text")


class Runs:
    def __reduce__(self):
        return os.mkdir, ("ran",)


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_nothing_in_a_pickle_runs(tmp_path, monkeypatch, protocol):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "evil.pkl"
    path.write_bytes(pickle.dumps({"a": Runs()}, protocol=protocol))
    with pytest.raises(FormatError, match=r"evil\.pkl: refused: the pickle names (posix|nt|os)\.mkdir"):
        read_pickle(path)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"\x80\x02}cbuiltins\neval\nq\x00.", r"the pickle names builtins\.eval"),
        (
            b"\x80\x02cnumpy\nndarray\n}U\x05stateK\x01sb.",
            "damaged pickle|refused",
        ),  # sets a class's attribute
        (b"\x80\x02c_codecs\nencode\nX\x01\x00\x00\x00aX\x05\x00\x00\x00punyc\x86R.", "encodes text"),
        (b"\x80\x02K\x01r\xff\xff\xff\x7f.", "memo index beyond the file"),
        (b"\x80\x04\x95\xff\xff\xff\xff\xff\xff\xff\x7f.", "damaged pickle"),
        (b"(i__main__\nA\n.", "uses INST"),
        (b"not a pickle", "damaged pickle, or none"),
        (b"\x80\x02N", "damaged pickle"),
    ],
)
def test_hostile_and_broken_pickles(tmp_path, content, message):
    path = tmp_path / "a.pkl"
    path.write_bytes(content)
    start = time.perf_counter()
    with pytest.raises(FormatError, match=rf"a\.pkl: .*{message}") as caught:
        read_pickle(path)
    assert "\n" not in str(caught.value)
    assert time.perf_counter() - start < 60  # no allocation by a number in the file


def test_arrays_whose_parts_do_not_fit(tmp_path):
    path = tmp_path / "a.pkl"
    whole = pickle.dumps(np.arange(3.0), protocol=2)
    for old, new in ((b"K\x03\x85", b"K\x04\x85"), (b"f8", b"O8"), (b"f8", b"f4")):
        assert old in whole
        path.write_bytes(whole.replace(old, new))
        with pytest.raises(ValueError, match=r"array|buffer|reshape|type"):
            pickled_numbers(read_pickle(path))
