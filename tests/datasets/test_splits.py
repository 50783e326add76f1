import hashlib

import numpy as np
import pytest

from handgraph.datasets.boxes import keypoint_box, mask_box, square
from handgraph.datasets.splits import digest, hashed_split
from handgraph.errors import ConfigError

NAMES = [f"data_{n % 7}/{n}.jpg" for n in range(1000)]
SHARES = {"train": 0.7, "validation": 0.15, "test": 0.15}


def test_the_rule_as_it_is_written():
    """Names by the SHA-256 of "seed:name", cut into 70, 15 and 15 %."""
    ranked = sorted(range(1000), key=lambda i: hashlib.sha256(f"3:{NAMES[i]}".encode()).hexdigest())
    parts = hashed_split(NAMES, SHARES, seed=3)
    assert parts["train"].tolist() == sorted(ranked[:700])
    assert parts["validation"].tolist() == sorted(ranked[700:850])
    assert parts["test"].tolist() == sorted(ranked[850:])


def test_neither_order_nor_neighbours_matter():
    parts = hashed_split(NAMES, SHARES)
    test = {NAMES[i] for i in parts["test"]}
    assert test == {NAMES[::-1][i] for i in hashed_split(NAMES[::-1], SHARES)["test"]}
    assert test != {NAMES[i] for i in hashed_split(NAMES, SHARES, seed=1)["test"]}
    fewer = hashed_split(NAMES[:900], SHARES)  # most stay where they were
    kept = {NAMES[i] for i in fewer["test"]}
    assert len(kept & test) > 0.85 * len(kept)


def test_counts_and_shares():
    parts = hashed_split(NAMES, {"train": 600.0, "validation": 100.0, "test": 999.0})
    assert [len(part) for part in parts.values()] == [600, 100, 300]
    assert [len(p) for p in hashed_split(NAMES[:5], {"train": 60000.0, "test": 3.0}).values()] == [5, 0]
    with pytest.raises(ConfigError, match=r"sum to 0\.9, expected 1"):
        hashed_split(NAMES, {"a": 0.5, "b": 0.4})


def test_digest_sees_names_and_order():
    assert digest(["a", "b"]) == digest(iter(["a", "b"]))
    assert len({digest(["a", "b"]), digest(["b", "a"]), digest(["ab"]), digest(["a"])}) == 4
    assert digest(["a", "b"]) == hashlib.sha256(b"a\nb").hexdigest()[:16]


def test_boxes():
    points = np.array([[3.0, 10], [7, 4], [np.nan, 0], [100, 100]])
    known = np.array([True, True, True, False])
    np.testing.assert_array_equal(keypoint_box(points, known=known), [3, 4, 5, 7])  # both ends are pixels
    np.testing.assert_array_equal(keypoint_box(points, 2.0, known), [1, 2, 9, 11])
    assert keypoint_box(points[:1]) is None
    assert keypoint_box(np.ones((4, 2))) is None
    mask = np.zeros((6, 9), bool)
    assert mask_box(mask) is None
    mask[2, 3:6] = mask[4, 4] = True
    np.testing.assert_array_equal(mask_box(mask), [3, 2, 3, 3])
    np.testing.assert_array_equal(square(np.array([10.0, 20.0]), 5.0), [8, 18, 5, 5])
