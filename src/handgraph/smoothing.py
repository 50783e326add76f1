"""Smoothing of tracked hands over time, where asked for: One Euro for live use, two passes for recordings.

Both filter every joint of `keypoints_px` and of `joints_mm` by itself, a track at a time, and begin anew
after a gap. Both are strict with a hand that rests and lenient with one that moves: the cutoff frequency
grows with the joint's speed, counted in hand sizes a second, so that neither the picture's resolution nor
the distance matters. Frequencies are in hertz and times are the frames' own, so that neither does the frame
rate.
"""

from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
from jaxtyping import Float

from handgraph.errors import ConfigError
from handgraph.formats.lines import FrameHands
from handgraph.hand import RELATIVE_FRAME, Hand

NAMES = ("none", "one-euro", "two-pass")
GAP_S = 0.25
"""A track without a hand for longer begins anew: what it did meanwhile is unknown."""
HAND_MM = 180.0
"""A hand's length; speeds of joints in millimetres are counted in it."""
_LEAST_SIZE_PX = 8.0
_LEAST_CONFIDENCE = 0.05
_LEAST_STEP_S = 1e-3
_FLAT = 1e10
"""Variance of the first frame's velocity, beside that of a measurement: nothing is known of it."""

Points = Float[np.ndarray, "n d"]
Series = Float[np.ndarray, "t n d"]


@dataclass(frozen=True)
class OneEuroSettings:
    """Parameters of the One Euro filter, in its paper's words.

    min_cutoff_hz         of a joint at rest: lower is steadier
    beta                  hertz more for each hand size a second: higher is quicker
    derivative_cutoff_hz  of the speed
    """

    min_cutoff_hz: float = 1.0
    beta: float = 6.0
    derivative_cutoff_hz: float = 2.0


@dataclass(frozen=True)
class TwoPassSettings:
    """Parameters of the two-pass smoother, as those of `OneEuroSettings`.

    `speed_cutoff_hz` is that of the first run, whose velocities set the cutoff of the second.
    """

    min_cutoff_hz: float = 1.0
    beta: float = 3.0
    speed_cutoff_hz: float = 4.0


def describe(name: str) -> dict[str, Any]:
    """What stands in the output about a smoothing: its name and settings. Raises ConfigError."""
    if name == "none":
        return {"name": name}
    if name == "one-euro":
        return {"name": name, **asdict(OneEuroSettings()), "restarts_after_s": GAP_S}
    if name == "two-pass":
        return {"name": name, **asdict(TwoPassSettings()), "restarts_after_s": GAP_S}
    raise ConfigError(f"--smooth {name}: expected one of {', '.join(NAMES)}")


def smooth(frames: Iterable[FrameHands], name: str) -> Iterator[FrameHands]:
    """The frames of a clip, smoothed; never more of them in memory than some seconds.

    Hands without a track stay as they are. A smoothed hand has no `pose`: the system's would no longer be
    that of its joints. Raises ConfigError for an unknown name.
    """
    describe(name)
    if name == "none":
        return iter(frames)
    if name == "one-euro":
        live = LiveSmoother()
        return (live(frame) for frame in frames)
    return two_passes(frames)


class OneEuro:
    """The One Euro filter for points (n, d).

    Casiez, Roussel, Vogel: 1€ Filter: a simple speed-based low-pass filter for noisy input in interactive
    systems, CHI 2012, algorithm 1. A point's speed is the length of its velocity, so that the result does not
    depend on how the axes lie; it is counted in `size`s a second.
    """

    def __init__(self, settings: OneEuroSettings | None = None) -> None:
        self.settings = settings or OneEuroSettings()
        self._time_s = 0.0
        self._points: np.ndarray | None = None
        self._velocity: np.ndarray | None = None

    def __call__(self, points: Points, time_s: float, size: float) -> Points:
        """The next points, measured at `time_s`; the first come back as they are."""
        points = np.asarray(points, np.float64)
        if self._points is None or self._velocity is None or len(points) != len(self._points):
            self._time_s, self._points, self._velocity = time_s, points, np.zeros_like(points)
            return points
        step = max(time_s - self._time_s, _LEAST_STEP_S)
        measured = (points - self._points) / step
        rest = _share(self.settings.derivative_cutoff_hz, step)
        self._velocity = self._velocity + rest * (measured - self._velocity)
        speed = np.linalg.norm(self._velocity, axis=-1, keepdims=True) / size
        share = _share(self.settings.min_cutoff_hz + self.settings.beta * speed, step)
        self._points = self._points + share * (points - self._points)
        self._time_s = time_s
        return self._points


def _share(cutoff_hz: Any, step_s: float) -> Any:
    """How much of a new value a first-order low-pass takes: α = 1 / (1 + τ / Te), τ = 1 / (2π fc)."""
    return 1.0 / (1.0 + 1.0 / (2 * np.pi * cutoff_hz * step_s))


class LiveSmoother:
    """One Euro over the hands of a clip, frame by frame as they come: nothing is held back."""

    def __init__(self, settings: OneEuroSettings | None = None) -> None:
        self._settings = settings
        self._filters: dict[tuple[int, str], OneEuro] = {}
        self._seen_s: dict[int, float] = {}

    def __call__(self, frame: FrameHands) -> FrameHands:
        """The frame with its tracked hands smoothed."""
        for gone in [track for track, seen in self._seen_s.items() if frame.time_s - seen > GAP_S]:
            del self._seen_s[gone]
            self._filters = {key: one for key, one in self._filters.items() if key[0] != gone}
        hands = []
        for hand, track in zip(frame.hands, frame.tracks, strict=True):
            if track is None:
                hands.append(hand)
                continue
            self._seen_s[track] = frame.time_s
            found = {}
            for name in _fields(hand):
                one = self._filters.setdefault((track, name), OneEuro(self._settings))
                found[name] = one(getattr(hand, name), frame.time_s, _size(hand, name))
            hands.append(_with(hand, found))
        return replace(frame, hands=tuple(hands))


def smooth_series(
    points: Series,
    time_s: Float[np.ndarray, " t"],
    weight: Float[np.ndarray, "t n"],
    cutoff_hz: Float[np.ndarray, "t n"],
) -> tuple[Series, Series]:
    """Positions and velocities of a Rauch-Tung-Striebel smoother with a constant-velocity model.

    Each coordinate moves by itself with white acceleration: from one frame to the next, `step` later,
        x ← [[1, step], [0, 1]] x,   Q = q [[step³/3, step²/2], [step²/2, step]],
    and is measured with variance 1 / weight². With q = (2π cutoff)⁴ step the smoother passes half of the
    amplitude at the cutoff frequency, whatever the frame rate, and keeps every phase: it has no lag. Of the
    first velocity nothing is known. A Kalman filter runs forward, the smoother back (Rauch, Tung, Striebel:
    Maximum likelihood estimates of linear dynamic systems, AIAA Journal 3(8), 1965).

    `cutoff_hz[k]` is that of the way from frame k - 1 to k. Returns positions and velocities (t, n, d), unit
    and unit a second.
    """
    steps = np.maximum(np.diff(time_s), _LEAST_STEP_S)
    variance = 1.0 / np.asarray(weight, np.float64) ** 2
    count, joints, axes = len(points), points.shape[1], points.shape[2]
    # Every axis of a joint has the same covariance; only means differ.
    means = np.empty((count, joints, 2, axes))
    covariances = np.empty((count, joints, 2, 2))
    ahead_means, ahead_covariances = np.empty_like(means), np.empty_like(covariances)
    mean = np.stack([np.asarray(points[0], np.float64), np.zeros((joints, axes))], axis=1)
    covariance = np.zeros((joints, 2, 2))
    covariance[:, 0, 0], covariance[:, 1, 1] = variance[0], _FLAT * variance[0]
    means[0], covariances[0] = mean, covariance
    for k in range(1, count):
        step = steps[k - 1]
        move = np.array([[1.0, step], [0.0, 1.0]])
        q = (2 * np.pi * cutoff_hz[k]) ** 4 * step
        noise = np.array([[step**3 / 3, step**2 / 2], [step**2 / 2, step]])
        mean, covariance = move @ mean, move @ covariance @ move.T + q[:, None, None] * noise
        ahead_means[k], ahead_covariances[k] = mean, covariance
        gain = covariance[:, :, :1] / (covariance[:, :1, :1] + variance[k][:, None, None])
        mean = mean + gain * (points[k][:, None] - mean[:, :1])
        covariance = covariance - gain * covariance[:, :1]
        means[k], covariances[k] = mean, covariance
    for k in range(count - 2, -1, -1):
        move = np.array([[1.0, steps[k]], [0.0, 1.0]])
        back = covariances[k] @ move.T @ np.linalg.inv(ahead_covariances[k + 1])
        means[k] += back @ (means[k + 1] - ahead_means[k + 1])
    return means[:, :, 0], means[:, :, 1]


def two_pass(
    points: Series,
    time_s: Float[np.ndarray, " t"],
    confidence: Float[np.ndarray, "t n"],
    size: Float[np.ndarray, " t"],
    settings: TwoPassSettings | None = None,
) -> Series:
    """A whole stretch of points, smoothed without lag: `smooth_series` twice.

    The first run has one cutoff for all and gives every joint's speed, in `size`s a second; in the second the
    cutoff follows the speed. A joint's confidence is its weight.
    """
    settings = settings or TwoPassSettings()
    if len(points) < 2:
        return np.asarray(points, np.float64)
    weight = np.maximum(confidence, _LEAST_CONFIDENCE)
    _, velocity = smooth_series(points, time_s, weight, np.full(weight.shape, settings.speed_cutoff_hz))
    speed = np.linalg.norm(velocity, axis=-1) / size[:, None]
    return smooth_series(points, time_s, weight, settings.min_cutoff_hz + settings.beta * speed)[0]


def two_passes(
    frames: Iterable[FrameHands], settings: TwoPassSettings | None = None, block_s: float = 10.0
) -> Iterator[FrameHands]:
    """Two-pass smoothing of a clip of any length, a block of frames at a time.

    Each block is smoothed together with what lies before and after it, so far that what lies beyond has no
    weight: 5 s at a cutoff of 1 Hz leave less than 1e-8 of it.
    """
    settings = settings or TwoPassSettings()
    around_s = 5.0 / settings.min_cutoff_hz
    source = iter(frames)
    held: deque[FrameHands] = deque()
    done = 0  # frames at the beginning of `held` that have been given already
    more = True
    while more or done < len(held):
        begin = held[done].time_s if done < len(held) else None
        while more and (begin is None or held[-1].time_s < begin + block_s + around_s):
            frame = next(source, None)
            if frame is None:
                more = False
                break
            held.append(frame)
            begin = held[done].time_s
        if begin is None:
            return
        end = next(
            (k for k in range(done, len(held)) if more and held[k].time_s >= begin + block_s), len(held)
        )
        yield from _smooth_block(list(held), settings)[done:end]
        done = end
        while done < len(held) and held[0].time_s < held[done].time_s - around_s:
            held.popleft()
            done -= 1


def _smooth_block(frames: list[FrameHands], settings: TwoPassSettings) -> list[FrameHands]:
    """All frames with their tracked hands smoothed, stretch by stretch."""
    stretches: dict[tuple[int, str], list[list[tuple[int, int]]]] = {}
    for k, frame in enumerate(frames):
        for place, (hand, track) in enumerate(zip(frame.hands, frame.tracks, strict=True)):
            if track is None:
                continue
            for name in _fields(hand):
                parts = stretches.setdefault((track, name), [])
                last = parts[-1][-1] if parts else None
                if last is None or _apart(frames, last, (k, place), name):
                    parts.append([])
                parts[-1].append((k, place))
    found: dict[tuple[int, int], dict[str, np.ndarray]] = {}
    for (_, name), parts in stretches.items():
        for part in parts:
            hands = [frames[k].hands[place] for k, place in part]
            points = np.stack([getattr(hand, name) for hand in hands])
            confidence = np.stack([_confidence(hand, points.shape[1]) for hand in hands])
            size = np.array([_size(hand, name) for hand in hands])
            times = np.array([frames[k].time_s for k, _ in part])
            for key, value in zip(part, two_pass(points, times, confidence, size, settings), strict=True):
                found.setdefault(key, {})[name] = value
    return [
        replace(
            frame,
            hands=tuple(
                _with(hand, found[k, place]) if (k, place) in found else hand
                for place, hand in enumerate(frame.hands)
            ),
        )
        for k, frame in enumerate(frames)
    ]


def _apart(frames: list[FrameHands], one: tuple[int, int], other: tuple[int, int], name: str) -> bool:
    """Whether two sightings of a track do not belong to one stretch."""
    if frames[other[0]].time_s - frames[one[0]].time_s > GAP_S:
        return True
    before, after = frames[one[0]].hands[one[1]], frames[other[0]].hands[other[1]]
    return len(getattr(before, name)) != len(getattr(after, name))


def _fields(hand: Hand) -> list[str]:
    """What of a hand is smoothed."""
    return [name for name in ("keypoints_px", "joints_mm", "vertices_mm") if getattr(hand, name) is not None]


def _size(hand: Hand, name: str) -> float:
    """A hand's size in the unit of the field."""
    if name == "keypoints_px":
        return max(float(np.ptp(hand.keypoints_px, axis=0).max()), _LEAST_SIZE_PX)
    return 1.0 if hand.frame.startswith(RELATIVE_FRAME) else HAND_MM


def _confidence(hand: Hand, count: int) -> np.ndarray:
    """One a point: the joints' own; the vertices of a mesh share their mean."""
    if hand.confidence is None:
        return np.ones(count)
    return hand.confidence if len(hand.confidence) == count else np.full(count, hand.confidence.mean())


def _with(hand: Hand, found: dict[str, Any]) -> Hand:
    return replace(hand, pose=None, **found)
