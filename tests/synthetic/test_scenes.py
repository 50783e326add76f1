"""Scenes for the finder: always the same, and their labels say what is in the picture."""

import cv2
import numpy as np
import pytest

from handgraph.errors import ConfigError
from handgraph.synthetic.scenes import CLEAR, GONE, Card, CardHand, SceneSynthesizer

CARDS = 12
SCENES = 40


@pytest.fixture(scope="module")
def scenes():
    return SceneSynthesizer(seed=3, split="test", cards=CARDS)


@pytest.fixture(scope="module")
def drawn(scenes):
    return [scenes.scene(index, 144, 192) for index in range(SCENES)]


def test_a_scene_depends_on_its_number_alone(drawn):
    again = SceneSynthesizer(seed=3, split="test", cards=CARDS, keep=False)
    for index in (17, 3):
        one, other = drawn[index], again.scene(index, 144, 192)
        np.testing.assert_array_equal(one.image, other.image)
        np.testing.assert_array_equal(one.boxes, other.boxes)
        assert one.sides == other.sides
    assert not np.array_equal(drawn[17].image, SceneSynthesizer(4, "test", CARDS).scene(17, 144, 192).image)


def test_there_are_scenes_of_no_one_and_several_hands_of_both_sides(drawn):
    counts = [len(scene.sides) for scene in drawn]
    assert {0, 1, 2} <= set(counts)
    assert max(counts) >= 3
    sides = [side for scene in drawn for side in scene.sides]
    assert 0.25 < sides.count("left") / len(sides) < 0.75


def test_sizes_reach_from_a_tenth_of_the_picture_to_nearly_all_of_it(drawn):
    longer = np.concatenate([scene.boxes[scene.clear][:, 2:].max(axis=1) for scene in drawn]) / 192
    assert longer.min() < 0.15
    assert longer.max() > 0.75


def test_boxes_hold_the_pixels_of_their_hands_tightly(drawn):
    for scene in drawn:
        assert scene.image.shape == (144, 192, 3)
        assert scene.image.dtype == np.uint8
        assert scene.hand.max(initial=0) <= len(scene.boxes) == len(scene.sides) == len(scene.visible)
        for number, (box, share) in enumerate(zip(scene.boxes, scene.visible, strict=True), start=1):
            rows, columns = np.nonzero(scene.hand == number)
            assert len(rows) > 0
            x, y, w, h = box
            assert x - 1.5 <= columns.min()
            assert columns.max() <= x + w + 0.5
            assert y - 1.5 <= rows.min()
            assert rows.max() <= y + h + 0.5
            inside = x >= 0 and y >= 0 and x + w <= 192 and y + h <= 144
            if inside and share > 0.97 and min(w, h) > 20:  # all of it is seen: the box is no larger
                assert np.ptp(columns) + 1 >= w - 4
                assert np.ptp(rows) + 1 >= h - 4


def test_a_scene_without_hands_shows_none(scenes):
    empty = next(k for k in range(CARDS) if not scenes.card(k).hands)
    alone = SceneSynthesizer(3, "test", 1)
    alone._kept = {0: scenes.card(empty)}
    for index in range(4):
        scene = alone.scene(index)
        assert scene.boxes.shape == (0, 4)
        assert scene.sides == ()
        assert not scene.hand.any()


def test_what_is_hidden_or_outside_counts_as_unseen(drawn):
    shares = np.concatenate([scene.visible for scene in drawn])
    assert shares.min() > GONE
    assert shares.max() <= 1.0
    assert (shares < CLEAR).any()
    assert (shares > 0.9).any()


def blank(owner, hands):
    light = np.full((208, 208, 3), 0.2, np.float16)
    light[owner > 0] = [0.6, 0.2, 0.1]
    return Card(light, owner, hands)


def scenes_of(owner, outline):
    hand = CardHand("right", outline.astype(float), 1, float((owner == 1).sum()))
    scenes = SceneSynthesizer(1, "train", 1)
    scenes._kept = {0: blank(owner, (hand,))}
    return [scenes.scene(index) for index in range(60)]


def test_mirroring_changes_the_side():
    """A right "hand" that is a triangle: whether its upright leg is left or right says if it was mirrored."""
    owner = np.zeros((208, 208), np.uint8)
    corners = np.array([[60, 60], [60, 160], [100, 160]], np.int32)
    cv2.fillPoly(owner, [corners], 1)
    seen = {"left": 0, "right": 0}
    for scene in scenes_of(owner, corners):
        if len(scene.sides) == 1 and scene.visible[0] > 0.95:
            columns = np.nonzero(scene.hand == 1)[1]
            # The triangle's mean column lies towards its upright leg.
            leans = columns.mean() - (columns.min() + columns.max()) / 2
            assert (leans < 0) == (scene.sides[0] == "right")
            seen[scene.sides[0]] += 1
    assert min(seen.values()) >= 3


def test_the_visible_share_is_that_of_the_pixels():
    """A "hand" that is a disc: its box tells its area, however it is turned."""
    owner = np.zeros((208, 208), np.uint8)
    cv2.circle(owner, (90, 110), 40, 1, -1)
    turn = np.linspace(0, 2 * np.pi, 64)
    outline = np.stack([90 + 40 * np.cos(turn), 110 + 40 * np.sin(turn)], axis=-1)
    shares = []
    for scene in scenes_of(owner, outline):
        for number, (share, (_, _, w, h)) in enumerate(zip(scene.visible, scene.boxes, strict=True), start=1):
            shares.append(share)
            assert abs((scene.hand == number).sum() / (np.pi / 4 * w * h) - share) < 0.08
    assert min(shares) < 0.5 < 0.95 < max(shares)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"split": "half"}, "split 'half': expected one of train, validation, test"),
        ({"cards": 0}, "cards 0: expected a seed not below zero and at least one card"),
        ({"seed": -1}, "seed -1"),
    ],
)
def test_what_cannot_be_drawn_is_said(arguments, message):
    with pytest.raises(ConfigError, match=message):
        SceneSynthesizer(**arguments)
