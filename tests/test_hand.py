"""The result container: what it takes, what it refuses, and that its record is the hand again."""

import json

import numpy as np
import pytest

import handgraph as hg
from handgraph.hand import CAMERA_FRAME, ORDER, RELATIVE_FRAME
from handgraph.skeleton import JOINT_NAMES

ARRAYS = {
    "keypoints_px": (21, 2),
    "box_px": (4,),
    "joints_mm": (21, 3),
    "vertices_mm": (7, 3),
    "pose": (48,),
    "shape": (10,),
    "confidence": (21,),
}


def values(rng) -> dict:
    return {name: rng.uniform(0, 1, size) for name, size in ARRAYS.items()}


def hand(rng, **changes) -> hg.Hand:
    return hg.Hand(**{"side": "right", "score": 0.5, **values(rng), **changes})


def test_numbers_are_float32_and_meaning_is_stated(rng):
    made = hand(rng)
    for name, size in ARRAYS.items():
        assert getattr(made, name).dtype == np.float32
        assert getattr(made, name).shape == size
    assert made.frame == CAMERA_FRAME
    assert made.order == ORDER
    assert made.joint_names == JOINT_NAMES


def test_only_pixels_and_box_are_required(rng):
    made = hg.Hand("left", 1.0, np.zeros((21, 2)), np.zeros(4))
    assert [name for name in ARRAYS if getattr(made, name) is None] == [
        "joints_mm", "vertices_mm", "pose", "shape", "confidence",
    ]  # fmt: skip


@pytest.mark.parametrize("name", ARRAYS)
def test_wrong_shape_is_named(name, rng):
    expected = (
        r"\(n, 3\)" if name == "vertices_mm" else str(ARRAYS[name]).replace("(", r"\(").replace(")", r"\)")
    )
    with pytest.raises(hg.FormatError, match=rf"hand: {name} has shape \(5, 5\), expected {expected}"):
        hand(rng, **{name: np.zeros((5, 5))})


@pytest.mark.parametrize("name", ARRAYS)
@pytest.mark.parametrize("bad", [np.nan, np.inf, 1e300])
def test_numbers_that_are_not_finite_are_named(name, bad, rng):
    array = np.zeros(ARRAYS[name])
    array.flat[-1] = bad
    with pytest.raises(hg.FormatError, match=f"hand: {name} holds a number that is not finite"):
        hand(rng, **{name: array})


@pytest.mark.parametrize("score", [-0.1, 1.1, float("nan")])
def test_score_is_a_share(score, rng):
    with pytest.raises(hg.FormatError, match=r"hand: score is .*, expected a number from 0 to 1"):
        hand(rng, score=score)


def test_other_orders_are_refused(rng):
    with pytest.raises(hg.FormatError, match="hand: order is 'tips first', expected '21 joints: wrist"):
        hand(rng, order="tips first")


def test_missing_pixels_are_refused():
    record = hg.Hand("left", 1.0, np.zeros((21, 2)), np.zeros(4)).to_dict() | {"keypoints_px": None}
    with pytest.raises(hg.FormatError, match="hand: keypoints_px"):
        hg.Hand.from_dict(record)


@pytest.mark.parametrize("camera", [None, hg.PinholeCamera(588.03, 587.07, 320.0, 240.0)])
def test_record_is_the_hand_again(camera, rng):
    made = hand(rng, side="left", camera=camera, frame=RELATIVE_FRAME)
    record = json.loads(json.dumps(made.to_dict(), allow_nan=False))
    back = hg.Hand.from_dict(record)
    assert back.to_dict() == record
    assert (back.side, back.camera, back.frame, back.order) == ("left", camera, RELATIVE_FRAME, ORDER)
    for name, digits in (
        ("joints_mm", 3),
        ("keypoints_px", 3),
        ("pose", 6),
        ("confidence", 4),
        ("box_px", 2),
    ):
        np.testing.assert_allclose(getattr(back, name), getattr(made, name), atol=0.51 * 10**-digits)


def test_record_without_3d_is_the_hand_again():
    made = hg.Hand("left", 1.0, np.zeros((21, 2)), np.zeros(4))
    record = made.to_dict()
    assert record["joints_mm"] is None
    assert hg.Hand.from_dict(record).to_dict() == record
    del record["joints_mm"], record["camera"]
    assert hg.Hand.from_dict(record).joints_mm is None


def test_two_hands_can_be_compared(rng):
    """Arrays must not make `==` or a set fail: a hand is itself and no other."""
    made = hand(rng)
    assert made == made
    assert len({made, hand(rng)}) == 2
