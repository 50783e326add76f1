"""Tracks: numbers that last over gaps and crossings, and where the next frame is looked at."""

import itertools

import numpy as np
import pytest

from handgraph import ConfigError, Hand
from handgraph.formats.lines import FrameHands
from handgraph.tracking import LOST_S, SEARCH_S, Follower, Tracker, _pairs

SHAPES = {name: np.random.default_rng(seed).uniform(-40, 40, (21, 2)) for name, seed in (("a", 1), ("b", 2))}
STEP = 1 / 30


def hand(x, y, side="right", shape="a", score=0.9) -> Hand:
    """About 80 px wide, around (x, y)."""
    points = SHAPES[shape] + [x, y]
    low, high = points.min(axis=0), points.max(axis=0)
    return Hand(side, score, points, np.array([*low, *(high - low)]))


def test_pairs_are_the_best_of_all(rng):
    """Against trying every assignment."""
    for rows, columns in ((1, 1), (2, 3), (3, 3), (4, 2)):
        costs = rng.uniform(0, 1, (rows, columns))
        costs[rng.uniform(size=costs.shape) < 0.3] = np.inf
        found = _pairs(costs)
        best = (0, 0.0)
        longer, shorter = max(rows, columns), min(rows, columns)
        for chosen in itertools.permutations(range(longer), shorter):
            pairs = [(k, c) if rows <= columns else (c, k) for k, c in enumerate(chosen)]
            kept = [pair for pair in pairs if np.isfinite(costs[pair])]
            best = min(best, (-len(kept), sum(costs[pair] for pair in kept)))
        assert len(found) == -best[0]
        assert sum(costs[pair] for pair in found) == pytest.approx(best[1])
    assert _pairs(np.zeros((0, 3))) == []


def test_two_hands_keep_their_numbers_whatever_their_order():
    tracker = Tracker()
    for k in range(40):
        hands = [hand(100 + 3 * k, 100), hand(400, 100 + 2 * k, "left")]
        turned = bool(k % 2)
        assert tracker.update(k * STEP, hands[::-1] if turned else hands) == ((2, 1) if turned else (1, 2))


@pytest.mark.parametrize("sides", [("right", "left"), ("right", "right")])
@pytest.mark.parametrize("speed", [300.0, 1200.0])
def test_crossing_hands_keep_their_numbers(sides, speed):
    """They pass through the same place, at a third of a hand's height apart."""
    tracker, rng = Tracker(), np.random.default_rng(0)
    frames = round(600 / speed / STEP)
    for k in range(frames + 1):
        x = speed * k * STEP
        one, other = hand(x, 100, sides[0], "a"), hand(600 - x, 125, sides[1], "b")
        order = rng.permutation(2)
        numbers = tracker.update(k * STEP, [(one, other)[i] for i in order])
        if k == 0:
            named = {int(i): number for i, number in zip(order, numbers, strict=True)}
        assert numbers == tuple(named[int(i)] for i in order), f"frame {k}"


def test_one_hand_hidden_while_they_cross():
    """At the crossing only the nearer hand is found; afterwards both have their numbers again."""
    tracker = Tracker()
    for k in range(61):
        x = 10.0 * k
        hands = [hand(x, 100, "right", "a"), hand(600 - x, 110, "left", "b")]
        if 26 <= k <= 34:
            hands = hands[:1]
        numbers = tracker.update(k * STEP, hands)
        assert numbers == (1, 2)[: len(hands)], f"frame {k}"


def test_a_wrong_side_now_and_then_changes_nothing():
    tracker = Tracker()
    for k in range(30):
        hands = [hand(100, 100, "left" if k % 7 == 3 else "right"), hand(300, 100, "left")]
        assert tracker.update(k * STEP, hands) == (1, 2)
    assert [one.side for one in tracker.expected(30 * STEP)] == ["right", "left"]


def test_short_gaps_keep_the_number_and_long_ones_do_not():
    for gap_s, number in ((0.3, 1), (LOST_S + 0.1, 2)):
        tracker, time_s = Tracker(), 0.0
        for _ in range(10):
            assert tracker.update(time_s, [hand(100 + 90 * time_s, 100)]) == (1,)
            time_s += STEP
        begin = time_s
        while time_s < begin + gap_s:
            assert tracker.update(time_s, []) == ()
            time_s += STEP
        assert tracker.update(time_s, [hand(100 + 90 * time_s, 100)]) == (number,)


def test_slow_frames_are_no_gap():
    """One frame a second: a hand that stays about where it was keeps its number, also past a miss."""
    tracker = Tracker()
    found = [tracker.update(float(k), [hand(100 + 20 * (k % 3), 100)] if k != 4 else []) for k in range(9)]
    assert found == [(1,)] * 4 + [()] + [(1,)] * 4


def test_a_hand_far_away_is_another_one():
    tracker = Tracker()
    assert tracker.update(0.0, [hand(100, 100)]) == (1,)
    assert tracker.update(STEP, [hand(300, 100)]) == (2,)


class Scene:
    """An estimator that sees the hands of a scene, and remembers where it was asked to look."""

    def __init__(self, hands) -> None:
        self.hands, self.asked = hands, []
        self.time_s = 0.0

    def __call__(self, box, side):
        self.asked.append((box, side))
        hands = self.hands(self.time_s)
        if box is None:
            return hands
        x, y, w, h = box
        inside = [
            one
            for one in hands
            if x < one.keypoints_px[:, 0].mean() < x + w and y < one.keypoints_px[:, 1].mean() < y + h
        ]
        return inside

    def run(self, follower, frames, begin=0):
        found = []
        for k in range(begin, begin + frames):
            self.time_s = k * STEP
            found.append(follower(IMAGE, self.time_s, self))
        return found


IMAGE = np.zeros((480, 640, 3), np.uint8)


def test_a_followed_hand_is_looked_for_where_it_is_and_seldom_elsewhere():
    scene = Scene(lambda t: [hand(100 + 200 * t, 200, "left")])
    found = scene.run(Follower(), 30)
    assert all(numbers == (1,) for _, numbers in found)
    searches = [box for box, _ in scene.asked].count(None)
    assert searches == 1 + int(29 * STEP / SEARCH_S)
    for k, (box, side) in enumerate([ask for ask in scene.asked if ask[0] is not None], start=1):
        assert side == "left"
        # Around where the hand has got to, not where it was.
        assert abs(box[0] + box[2] / 2 - (100 + 200 * k * STEP)) < 20
        assert 60 < box[2] < 140


def test_a_hand_that_comes_in_is_found_at_the_next_search():
    scene = Scene(lambda t: [hand(100, 200)] + ([hand(500, 200, "left")] if t > 0.2 else []))
    found = [numbers for _, numbers in scene.run(Follower(), 40)]
    first = found.index((1, 2))
    assert 0.2 < first * STEP <= SEARCH_S + STEP
    assert set(found[first:]) == {(1, 2)}


def test_a_hand_that_is_lost_makes_it_search_at_once():
    scene = Scene(lambda t: [hand(100 if t < 0.29 else 190, 200)])
    found = [numbers for _, numbers in scene.run(Follower(), 15)]
    assert all(len(numbers) == 1 for numbers in found), "it was found elsewhere in the same frame"
    scene = Scene(lambda t: [hand(100, 200)] if t < 0.29 else [])
    scene.run(Follower(), 21)
    searches = [k for k, (box, _) in enumerate(scene.asked) if box is None]
    assert len(searches) < 12, "a missing hand does not make it search every frame"


def test_unsure_answers_in_a_box_do_not_keep_a_track_alive():
    scene = Scene(lambda t: [hand(100, 200, score=0.9 if t < 0.2 else 0.3)])
    follower = Follower(least_score=0.5)
    scene.run(follower, 5)
    scene.hands = lambda t: [hand(100, 200, score=0.3)] if scene.asked[-1][0] is not None else []
    assert [numbers for _, numbers in scene.run(follower, 20, begin=6)] == [()] * 20


def test_two_boxes_that_show_the_same_hand_give_it_once():
    scene = Scene(lambda t: [hand(100, 200), hand(160, 200, "left", "b")])
    follower = Follower()
    scene.run(follower, 3)
    scene.hands = lambda t: [hand(130, 200)]
    for hands, numbers in scene.run(follower, 5, begin=3):
        assert len(hands) == len(numbers) == 1


def test_no_more_hands_than_there_may_be():
    """The search finds another one, surer now and then than the one that is followed."""
    scene = Scene(lambda t: [hand(100, 200, score=0.8), hand(400, 200, score=0.7)])
    for hands, numbers in scene.run(Follower(most=1), 40):
        assert [one.score for one in hands] == [pytest.approx(0.8)]
        assert numbers == (1,)
    both = scene.run(Follower(most=2), 5)
    assert all(len(hands) == 2 for hands, _ in both)


def test_searching_everywhere_asks_for_no_box():
    scene = Scene(lambda t: [hand(100 + 100 * t, 200), hand(400, 200)])
    found = scene.run(Follower(everywhere=True), 20)
    assert all(numbers == (1, 2) for _, numbers in found)
    assert {box for box, _ in scene.asked} == {None}
    assert len(scene.asked) == 20


def test_a_follower_shown_the_frames_again_goes_on_alike():
    rng = np.random.default_rng(5)
    there = rng.uniform(size=200) < 0.8

    def hands(t):
        k = round(t / STEP)
        return [hand(100 + 5.123456789 * k, 200)] + (
            [hand(600 - 5 * k, 210, "left", "b")] if there[k] else []
        )

    scene = Scene(hands)
    whole = scene.run(Follower(), 90)
    begun, resumed = Scene(hands), Scene(hands)
    first = begun.run(Follower(), 37)
    follower = Follower()
    for k, (found, numbers) in enumerate(first):
        follower.skip(FrameHands(k, k * STEP, found, numbers))
    rest = resumed.run(follower, 53, begin=37)
    for (one, its), (other, others) in zip(whole, [*first, *rest], strict=True):
        assert its == others
        assert [hand.to_dict() for hand in one] == [hand.to_dict() for hand in other]
    with pytest.raises(ConfigError, match="frame 37: the tracks written are not"):
        follower.skip(FrameHands(37, 91 * STEP, first[0][0], (9, 9)[: len(first[0][0])]))
