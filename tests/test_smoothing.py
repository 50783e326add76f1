"""Smoothing: the filters against their equations, steadiness, lag, gaps, and clips of any length."""

from dataclasses import replace

import numpy as np
import pytest

from handgraph import ConfigError, Hand
from handgraph.formats.lines import FrameHands
from handgraph.hand import RELATIVE_FRAME
from handgraph.smoothing import (
    GAP_S,
    NAMES,
    LiveSmoother,
    OneEuro,
    OneEuroSettings,
    TwoPassSettings,
    describe,
    smooth,
    smooth_series,
    two_pass,
    two_passes,
)

SHAPE = np.random.default_rng(3).normal(size=(21, 3)) * 30 + [0, 0, 500]


def hand_at(shift_mm, noise=None, confidence=None) -> Hand:
    """A hand whose joints are `SHAPE`, shifted; 1 mm is 1 pixel."""
    joints = SHAPE + shift_mm + (0 if noise is None else noise)
    return Hand("right", 0.9, joints[:, :2], np.zeros(4), joints, pose=np.zeros(48), confidence=confidence)


def clip(shifts, fps=30.0, noise_mm=0.0, seed=0) -> list[FrameHands]:
    rng = np.random.default_rng(seed)
    return [
        FrameHands(k, k / fps, (hand_at(shift, rng.normal(size=(21, 3)) * noise_mm),), (1,))
        for k, shift in enumerate(shifts)
    ]


def joints(frames) -> np.ndarray:
    return np.stack([frame.hands[0].joints_mm for frame in frames])


def test_one_euro_is_its_paper_s_algorithm(rng):
    """Written once more for one coordinate, number by number, with the paper's names."""
    values, times = rng.normal(size=40).cumsum(), np.cumsum(rng.uniform(0.01, 0.06, 40))
    mincutoff, beta, dcutoff, size = 0.7, 3.0, 1.5, 2.5

    def alpha(cutoff, te):
        tau = 1 / (2 * np.pi * cutoff)
        return 1 / (1 + tau / te)

    hatx, hatdx, expected = values[0], 0.0, [values[0]]
    for k in range(1, len(values)):
        te = times[k] - times[k - 1]
        dx = (values[k] - hatx) / te
        a = alpha(dcutoff, te)
        hatdx = a * dx + (1 - a) * hatdx
        a = alpha(mincutoff + beta * abs(hatdx) / size, te)
        hatx = a * values[k] + (1 - a) * hatx
        expected.append(hatx)
    one = OneEuro(OneEuroSettings(mincutoff, beta, dcutoff))
    found = [one(np.array([[value]]), time, size)[0, 0] for value, time in zip(values, times, strict=True)]
    np.testing.assert_allclose(found, expected, rtol=1e-12)


def dense(points, times, weight, cutoff, first_velocity_variance):
    """The most likely positions and velocities, from the whole Gaussian at once: one linear system."""
    count = len(points)
    information, vector = np.zeros((2 * count, 2 * count)), np.zeros(2 * count)
    information[1, 1] += 1 / first_velocity_variance
    for k in range(count):
        information[2 * k, 2 * k] += weight[k] ** 2
        vector[2 * k] += weight[k] ** 2 * points[k]
    for k in range(1, count):
        h = times[k] - times[k - 1]
        q = (2 * np.pi * cutoff[k]) ** 4 * h
        noise = q * np.array([[h**3 / 3, h**2 / 2], [h**2 / 2, h]])
        residual = np.zeros((2, 2 * count))
        residual[:, 2 * k : 2 * k + 2] = np.eye(2)
        residual[:, 2 * k - 2 : 2 * k] = -np.array([[1, h], [0, 1]])
        information += residual.T @ np.linalg.inv(noise) @ residual
    return np.linalg.solve(information, vector).reshape(count, 2)


def test_smoother_is_the_dense_gaussian_solution(rng):
    count, n, d = 9, 2, 3
    points = rng.normal(size=(count, n, d)).cumsum(axis=0)
    times = np.cumsum(rng.uniform(0.02, 0.2, count))
    weight, cutoff = rng.uniform(0.2, 1, (count, n)), rng.uniform(0.5, 4, (count, n))
    found, velocity = smooth_series(points, times, weight, cutoff)
    for joint in range(n):
        for axis in range(d):
            expected = dense(
                points[:, joint, axis],
                times,
                weight[:, joint],
                cutoff[:, joint],
                1e10 / weight[0, joint] ** 2,
            )
            np.testing.assert_allclose(found[:, joint, axis], expected[:, 0], atol=1e-5)
            np.testing.assert_allclose(velocity[:, joint, axis], expected[:, 1], atol=1e-4)


@pytest.mark.parametrize("fps", [30.0, 120.0])
def test_half_of_the_amplitude_passes_at_the_cutoff_frequency_without_lag(fps):
    times = np.arange(round(20 * fps)) / fps
    middle = slice(round(5 * fps), round(15 * fps))
    for frequency, passes in ((0.5, 1 / (1 + 0.25**4)), (2.0, 0.5), (4.0, 1 / 17)):
        wave = np.sin(2 * np.pi * frequency * times)[:, None, None]
        found, _ = smooth_series(wave, times, np.ones((len(times), 1)), np.full((len(times), 1), 2.0))
        np.testing.assert_allclose(found[middle, 0, 0], passes * wave[middle, 0, 0], atol=0.03)


def test_a_line_stays_a_line_and_doubt_counts_less(rng):
    times = np.cumsum(rng.uniform(0.01, 0.05, 50))
    line = (100 + 70 * times)[:, None, None]
    found = two_pass(line, times, np.ones((50, 1)), np.full(50, 100.0))
    np.testing.assert_allclose(found, line, atol=1e-4)
    wrong = line.copy()
    wrong[25] += 50
    apart = []
    for confidence in (1.0, 0.1):
        weight = np.ones((50, 1))
        weight[25] = confidence
        apart.append(np.abs(two_pass(wrong, times, weight, np.full(50, 100.0)) - line).max())
    assert apart[1] < 0.1 * apart[0]


@pytest.mark.parametrize("name", ["one-euro", "two-pass"])
def test_a_still_hand_is_steadier_and_keeps_its_place(name):
    raw = clip(np.zeros((240, 3)), noise_mm=1.0)
    found = joints(smooth(raw, name))[60:]
    assert found.std(axis=0).mean() < 0.45 * joints(raw)[60:].std(axis=0).mean()
    np.testing.assert_allclose(found.mean(axis=0), SHAPE, atol=0.5)


def test_a_moving_hand_is_not_held_back():
    """100 mm to each side, once a second, at 30 frames a second."""
    times = np.arange(300) / 30
    moves = np.stack([100 * np.sin(2 * np.pi * times), 0 * times, 0 * times], axis=1)
    raw = clip(moves)
    two = joints(smooth(raw, "two-pass"))[60:240] - joints(raw)[60:240]
    assert np.abs(two).max() < 5
    one = joints(smooth(raw, "one-euro"))[60:240] - joints(raw)[60:240]
    assert np.abs(one).max() < 45
    assert np.abs(joints(smooth(raw, "none")) - joints(raw)).max() == 0


@pytest.mark.parametrize("name", ["one-euro", "two-pass"])
def test_a_gap_begins_anew(name):
    """The hand comes back elsewhere: the first frame after the gap lies there, not on the way."""
    before, after = clip(np.zeros((30, 3))), clip(np.full((30, 3), 80.0))
    after = [
        replace(frame, index=frame.index + 60, time_s=frame.time_s + 1 + GAP_S + 1e-3) for frame in after
    ]
    empty = [FrameHands(45, 1.1)]
    found = list(smooth([*before, *empty, *after], name))
    assert [frame.index for frame in found] == [frame.index for frame in [*before, *empty, *after]]
    np.testing.assert_allclose(found[29].hands[0].joints_mm, SHAPE, atol=1e-3)
    np.testing.assert_allclose(found[31].hands[0].joints_mm, SHAPE + 80, atol=1e-3)


@pytest.mark.parametrize("name", ["one-euro", "two-pass"])
def test_tracks_do_not_mix_and_hands_without_one_stay(name):
    rng = np.random.default_rng(1)
    frames = []
    for k in range(60):
        here, there, other = (hand_at(x, rng.normal(size=(21, 3))) for x in (0, 300, 600))
        hands, tracks = [(here, 1), (there, 2), (other, None)], [0, 1, 2]
        order = rng.permutation(tracks)
        frames.append(
            FrameHands(k, k / 30, tuple(hands[i][0] for i in order), tuple(hands[i][1] for i in order))
        )
    for raw, found in zip(frames, smooth(frames, name), strict=True):
        for one, hand, track in zip(raw.hands, found.hands, found.tracks, strict=True):
            if track is None:
                assert hand is one
            else:
                assert np.abs(hand.joints_mm - SHAPE - 300 * (track - 1)).max() < 10
                assert hand.pose is None


def test_sizes_are_counted_in_the_hand_s_own_unit():
    """The same hand, as millimetres and as hand lengths, is smoothed alike."""
    times = np.arange(60) / 30
    raw = clip(np.stack([60 * np.sin(6 * times), 0 * times, 0 * times], axis=1), noise_mm=1.0)
    scaled = [
        replace(
            frame,
            hands=(replace(frame.hands[0], joints_mm=frame.hands[0].joints_mm / 180, frame=RELATIVE_FRAME),),
        )
        for frame in raw
    ]
    for name in ("one-euro", "two-pass"):
        np.testing.assert_allclose(joints(smooth(scaled, name)) * 180, joints(smooth(raw, name)), atol=1e-2)


def test_long_clips_are_smoothed_in_blocks_as_in_one():
    times = np.arange(900) / 30
    moves = np.stack([50 * np.sin(2 * times), 30 * np.cos(5 * times), 0 * times], axis=1)
    raw = clip(moves, noise_mm=2.0)
    raw = raw[:300] + raw[330:]  # with a gap
    whole = joints(two_passes(raw, block_s=1e6))
    held = 0
    most = 0

    def counted():
        nonlocal held, most
        for frame in raw:
            held += 1
            most = max(most, held)
            yield frame

    found = []
    for frame in two_passes(counted(), block_s=2.0):
        held -= 1
        found.append(frame)
    np.testing.assert_allclose(joints(found), whole, atol=1e-3)
    assert [frame.index for frame in found] == [frame.index for frame in raw]
    assert most < 500, "the clip was held as a whole"


def test_short_and_empty_clips():
    for name in NAMES:
        assert list(smooth([], name)) == []
        (one,) = smooth(clip(np.zeros((1, 3))), name)
        np.testing.assert_allclose(one.hands[0].joints_mm, SHAPE, rtol=1e-5)


def test_times_that_stand_still_do_no_harm():
    frames = [replace(frame, time_s=0.5) for frame in clip(np.zeros((5, 3)), noise_mm=1.0)]
    for name in NAMES:
        assert np.isfinite(joints(smooth(frames, name))).all()


def test_live_smoothing_needs_nothing_that_comes_later():
    raw = clip(np.zeros((20, 3)), noise_mm=1.0)
    live = LiveSmoother()
    found = [live(frame) for frame in raw]
    np.testing.assert_array_equal(joints(found), joints(smooth(raw, "one-euro")))
    shorter = LiveSmoother()
    np.testing.assert_array_equal(joints([shorter(frame) for frame in raw[:7]]), joints(found)[:7])


def test_the_output_says_what_was_done():
    assert describe("none") == {"name": "none"}
    settings = describe("one-euro")
    assert settings["min_cutoff_hz"] == OneEuroSettings().min_cutoff_hz
    assert describe("two-pass")["beta"] == TwoPassSettings().beta
    with pytest.raises(ConfigError, match="--smooth kalman: expected one of none, one-euro, two-pass"):
        smooth([], "kalman")
