"""What readers share, against the same written naively."""

from pathlib import Path

import numpy as np
import pytest

from handgraph.camera import PinholeCamera
from handgraph.datasets.files import all_finite, expect_hand, projection_residual, read_bytes
from handgraph.datasets.text_numbers import ANY_SPACE, JSON_LISTS, LINES, parse_rows
from handgraph.errors import FormatError, InputError
from handgraph.skeleton import BONES, DEXYCB, RHD

CAMERA = PinholeCamera(600.0, 610.0, 310.0, 245.0)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_projection_residual_is_the_largest_distance_along_an_axis(dtype):
    random = np.random.default_rng(0)
    joints = random.uniform([-100, -100, 400], [100, 100, 600], (21, 3)).astype(dtype)
    exact = CAMERA.uvd_from_xyz(joints.astype(np.float64))[:, :2]
    off = random.normal(0, 3, (21, 2))
    found = projection_residual(CAMERA, joints, (exact + off).astype(dtype))
    assert found == pytest.approx(np.abs(off).max(), abs=1e-3)
    # A column of a larger array, as readers hold them.
    wide = np.hstack([exact + off, np.ones((21, 1))]).astype(dtype)
    assert projection_residual(CAMERA, joints, wide[:, :2]) == pytest.approx(found)


def test_projection_residual_passes_over_what_is_unknown_or_behind():
    joints = np.array([[0.0, 0, 500], [10, 20, 500], [10, 20, -500], [10, 20, 0]])
    keypoints = np.array([[310.0, 245], [np.nan, 999], [9999, 9999], [9999, 9999]])
    assert projection_residual(CAMERA, joints, keypoints) == 0
    keypoints[0] = [np.inf, 245]
    assert projection_residual(CAMERA, joints, keypoints) == np.inf
    joints[0] = np.nan
    assert projection_residual(CAMERA, joints, keypoints) == 0


@pytest.mark.parametrize("order", [DEXYCB, RHD], ids=lambda order: order.name)
def test_a_bone_longer_than_any_hands_is_refused_whichever_it_is(order):
    gather = order.gather
    for parent, child in BONES:
        joints = np.zeros((len(order.names), 3), np.float32)
        expect_hand("a", order, joints)
        joints[gather[child], 1] = 300.0  # its own bones are long now, to both sides
        with pytest.raises(FormatError, match="a: a labelled bone is 300 mm long"):
            expect_hand("a", order, joints)
        joints[gather[child]] = np.nan
        expect_hand("a", order, joints)
        joints[gather[parent]] = np.inf
        if parent:  # the wrist has other bones
            with pytest.raises(FormatError, match="inf mm"):
                expect_hand("a", order, joints)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_all_finite(bad, recwarn):
    for dtype in (np.float32, np.float64):
        array = np.full((7, 3), np.finfo(dtype).max, dtype)
        assert all_finite(array)
        assert all_finite(array[:, :2])
        array[4, 1] = bad
        assert not all_finite(array)
    assert not recwarn.list  # whatever the numbers are


def test_tables_in_text_are_read_as_python_reads_numbers():
    random = np.random.default_rng(0)
    words = [f"{value:.{digits}{form}}" for form in "eg" for digits in (1, 6, 9, 17)
             for value in random.normal(0, 1, 30) * 10.0 ** random.integers(-12, 12, 30)]  # fmt: skip
    words += [
        "0",
        "-0.0",
        "+1",
        "1.",
        ".5",
        "1e5",
        "1E-5",
        "12345678901234567890123",
        "0.0000000000000000000012345678901234567890",
    ]
    words += ["7"] * (-len(words) % 3)
    expected = np.array([float(word) for word in words])
    for kinds, text in (
        (ANY_SPACE, "\n".join(words)),
        (LINES, "\n".join(" ".join(words[i : i + 3]) for i in range(0, len(words), 3))),
        (
            JSON_LISTS,
            "[" + ",".join(f"[{', '.join(words[i : i + 3])}]" for i in range(0, len(words), 3)) + "]",
        ),
    ):
        shape = (1, len(words)) if kinds is ANY_SPACE else (len(words) // 3, 3)
        table = parse_rows(text.encode(), kinds, *shape)
        np.testing.assert_array_max_ulp(table.ravel(), expected, 4)


NO_TABLES = (
    "1 2", "1 2 3 4", "1 2 x", "1 2 3e", "1 2 -", "1 2 1.2.3", "1 2 1-2", "1 2 .", "1 2 nan", "1 2 1e999",
    "1 2 3\n4", "1 2 3_0", "1 2 0x3",
)  # fmt: skip


@pytest.mark.parametrize("text", NO_TABLES)
def test_other_text_is_no_table(text):
    assert parse_rows(b"1 2 3", LINES, 1, 3) is not None
    assert parse_rows(text.encode(), LINES, 1, 3) is None


def test_a_file_that_is_empty_or_not_there(tmp_path: Path):
    with pytest.raises(InputError, match="no such file"):
        read_bytes(tmp_path / "a")
    (tmp_path / "a").write_bytes(b"")
    with pytest.raises(FormatError, match="empty"):
        read_bytes(tmp_path / "a")
