"""Lasting numbers for the hands of a clip, and where to look for them next.

A `Tracker` keeps the numbers: from frame to frame it pairs the hands found with the tracks it knows, each
moved on by its velocity, so that the sum of distances is least. A `Follower` asks an estimator for the hands
of each frame, first where the tracks say they are, which saves searching the whole picture.

Both depend on nothing but the times and hands they were given, so that an interrupted run, shown the hands
again, goes on as if it had not been interrupted.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from handgraph.errors import ConfigError, MissingExtraError
from handgraph.formats.lines import FrameHands
from handgraph.hand import Hand, Side
from handgraph.shapes import Float

Box = tuple[float, float, float, float]

Look = Callable[[Box | None, Side | None], list[Hand]]
"""Asks an estimator for the hands of a frame: of that side in the box, or all where it is None."""

LOST_S, LOST_FRAMES = 0.5, 3
"""A track ends when its hand has not been seen for this long and for so many frames."""
SEARCH_S = 0.5
"""The whole frame is searched anew so often, to find hands that have come in."""
MISSING_SEARCH_S = 0.1
"""The same while a track's hand is missing."""
_GATE, _GATE_PER_S = 0.5, 4.0
"""A hand is at most so many hand sizes from where its track was expected, and more after a while."""
_OTHER_SIDE = 0.5
"""A hand of the other side is so many hand sizes farther away: sides are sometimes wrong."""
_SAME = 0.25
"""Two hands nearer than this, in hand sizes, are the same one found twice."""
_NEWER = 0.6
"""Weight of the newest step in a track's velocity."""
_FORESEEN_S = 0.2
"""A hand that is missing is expected to move on for this long."""
_LEAST_SIZE_PX = 8.0


@dataclass
class _Track:
    """What is known of one hand: where it was seen last, and how it moved."""

    number: int
    keypoints_px: Float[np.ndarray, "21 2"]
    time_s: float
    sidedness: float
    velocity_px_s: Float[np.ndarray, " 2"]
    missed: int = 0

    @property
    def side(self) -> Side:
        return "right" if self.sidedness >= 0 else "left"

    def expected(self, time_s: float) -> Float[np.ndarray, "21 2"]:
        return self.keypoints_px + self.velocity_px_s * min(time_s - self.time_s, _FORESEEN_S)


@dataclass(frozen=True)
class Expected:
    """Where a track's hand should be: `box_px` x, y, w, h around its keypoints."""

    track: int
    side: Side
    box_px: Box
    missed: int


class Tracker:
    """Numbers hands from 1 in the order in which they appear; a number is never given twice."""

    def __init__(self) -> None:
        self._tracks: list[_Track] = []
        self._next = 1

    def expected(self, time_s: float) -> list[Expected]:
        """The tracks that are alive, with their places at `time_s`."""
        found = []
        for track in self._tracks:
            keypoints = track.expected(time_s)
            low, size = keypoints.min(axis=0), np.ptp(keypoints, axis=0) + 1
            box = (float(low[0]), float(low[1]), float(size[0]), float(size[1]))
            found.append(Expected(track.number, track.side, box, track.missed))
        return found

    def update(self, time_s: float, hands: Sequence[Hand]) -> tuple[int, ...]:
        """The numbers of a frame's hands. Times must not fall."""
        pairs = _pairs(self._costs(time_s, hands))
        numbers = [0] * len(hands)
        for row, column in pairs:
            self._see(self._tracks[row], time_s, hands[column])
            numbers[column] = self._tracks[row].number
        seen = {row for row, _ in pairs}
        for row, track in enumerate(self._tracks):
            track.missed += row not in seen
        self._tracks = [
            track for track in self._tracks if track.missed < LOST_FRAMES or time_s - track.time_s <= LOST_S
        ]
        for column, hand in enumerate(hands):
            if not numbers[column]:
                keypoints = hand.keypoints_px.astype(np.float64)
                self._tracks.append(_Track(self._next, keypoints, time_s, _sidedness(hand), np.zeros(2)))
                numbers[column] = self._next
                self._next += 1
        return tuple(numbers)

    def _costs(self, time_s: float, hands: Sequence[Hand]) -> Float[np.ndarray, "tracks hands"]:
        """Distances of hands to tracks in hand sizes; infinite where a hand cannot have got there."""
        costs = np.full((len(self._tracks), len(hands)), np.inf)
        for row, track in enumerate(self._tracks):
            keypoints = track.expected(time_s)
            most = _GATE + _GATE_PER_S * (time_s - track.time_s)
            for column, hand in enumerate(hands):
                away = _distance(keypoints, hand.keypoints_px)
                if away <= most:
                    costs[row, column] = away + (0.0 if hand.side == track.side else _OTHER_SIDE)
        return costs

    def _see(self, track: _Track, time_s: float, hand: Hand) -> None:
        step = time_s - track.time_s
        keypoints = hand.keypoints_px.astype(np.float64)
        if step > 0:
            moved = (keypoints - track.keypoints_px).mean(axis=0) / step
            track.velocity_px_s = _NEWER * moved + (1 - _NEWER) * track.velocity_px_s
        track.keypoints_px, track.time_s, track.missed = keypoints, time_s, 0
        track.sidedness = float(np.clip(track.sidedness + _sidedness(hand), -5, 5))


class Follower:
    """The hands of one frame after another, with their tracks.

    Only boxes where tracks are expected are looked at, while every track's hand is found so; the whole frame
    is searched at the beginning, as soon as one is missing, and every `SEARCH_S`.
    """

    def __init__(
        self,
        *,
        everywhere: bool = False,
        enlarged: float = 1.1,
        least_score: float = 0.5,
        most: int | None = None,
    ) -> None:
        """Settings.

        everywhere   search every frame as a whole
        enlarged     sides of a box over those of the keypoints
        least_score  hands in a box count from it on
        most         hands in a frame; the surest are kept
        """
        self._most = most
        self._everywhere, self._enlarged, self._least_score = everywhere, enlarged, least_score
        self._tracker = Tracker()
        self._last_s: float | None = None

    def __call__(
        self, image: np.ndarray, time_s: float, look: Look
    ) -> tuple[tuple[Hand, ...], tuple[int, ...]]:
        """The hands of the next frame, and the tracks' numbers. Raises what `look` raises."""
        found: list[Hand] = []
        expected: list[Expected] = []
        if not self._everywhere:
            expected = [one for one in self._tracker.expected(time_s) if _inside(one.box_px, image)]
            found = _distinct([hand for one in expected for hand in self._at(one, look)])
        if self._must_search(expected, found, time_s):
            found = _distinct([*look(None, None), *found])
        found = sorted(found, key=lambda hand: -hand.score)[: self._most]
        # As they will stand in a file, so that a resumed run sees the very same numbers.
        hands = [Hand.from_dict(hand.to_dict()) for hand in found]
        numbers = self.again(time_s, hands)
        order = np.argsort(numbers)
        return tuple(hands[k] for k in order), tuple(numbers[k] for k in order)

    def again(self, time_s: float, hands: Sequence[Hand]) -> tuple[int, ...]:
        """Take note of a frame whose hands are known already; returns their tracks' numbers."""
        self._last_s = time_s
        return self._tracker.update(time_s, hands)

    def skip(self, frame: FrameHands) -> None:
        """Take note of a frame of an interrupted run. Raises ConfigError where the tracks differ."""
        if frame.error is not None:
            return
        if self.again(frame.time_s, frame.hands) != frame.tracks:
            raise ConfigError(
                f"frame {frame.index}: the tracks written are not what this handgraph gives; "
                "run without --resume"
            )

    def _at(self, one: Expected, look: Look) -> list[Hand]:
        found = look(_larger(one.box_px, self._enlarged), one.side)
        # In a box the estimator answers with less certainty than in a picture that nobody has looked at.
        found = [hand for hand in found if hand.score >= self._least_score]
        return sorted(found, key=lambda hand: -hand.score)[:1]

    def _must_search(self, expected: Sequence[Expected], found: Sequence[Hand], time_s: float) -> bool:
        if not expected or self._last_s is None or _ticks(self._last_s, time_s, SEARCH_S):
            return True
        if len(found) >= len(expected):
            return False
        # One has just gone, or has been missing for a while.
        newly = sum(one.missed == 0 for one in expected) > len(found)
        return newly or _ticks(self._last_s, time_s, MISSING_SEARCH_S)


def _ticks(before_s: float, now_s: float, interval_s: float) -> bool:
    """Whether a multiple of the interval lies between two times."""
    return int(now_s / interval_s) != int(before_s / interval_s)


def _pairs(costs: Float[np.ndarray, "rows columns"]) -> list[tuple[int, int]]:
    """Pairs of rows and columns, none infinitely dear: as many as possible, of least cost together."""
    possible = np.isfinite(costs)
    if not possible.any():
        return []
    if costs.size == 1:
        return [(0, 0)]
    try:
        from scipy.optimize import linear_sum_assignment
    except ImportError as error:
        raise MissingExtraError("tracks of several hands need scipy: pip install handgraph[video]") from error
    # A barred pair costs more than all the others together.
    barred = np.where(possible, costs, 1 + 2 * costs[possible].sum())
    rows, columns = linear_sum_assignment(barred)
    return [(int(r), int(c)) for r, c in zip(rows, columns, strict=True) if possible[r, c]]


def _distance(one: Float[np.ndarray, "21 2"], other: Float[np.ndarray, "21 2"]) -> float:
    """Mean distance of two hands' keypoints over their mean size."""
    sizes = [max(float(np.ptp(points, axis=0).max()), _LEAST_SIZE_PX) for points in (one, other)]
    return float(np.linalg.norm(one - other, axis=1).mean()) / (sum(sizes) / 2)


def _distinct(hands: Sequence[Hand]) -> list[Hand]:
    """The hands without those found twice, of which the surer one stays; in the order given."""
    kept: list[Hand] = []
    for hand in sorted(hands, key=lambda hand: -hand.score):
        if all(_distance(hand.keypoints_px, one.keypoints_px) > _SAME for one in kept):
            kept.append(hand)
    return [hand for hand in hands if any(hand is one for one in kept)]


def _sidedness(hand: Hand) -> float:
    return hand.score if hand.side == "right" else -hand.score


def _inside(box: Box, image: np.ndarray) -> bool:
    """Whether the middle of a box lies in the image."""
    height, width = image.shape[:2]
    x, y = box[0] + box[2] / 2, box[1] + box[3] / 2
    return 0 <= x < width and 0 <= y < height


def _larger(box: Box, factor: float) -> Box:
    x, y, w, h = box
    return x - w * (factor - 1) / 2, y - h * (factor - 1) / 2, w * factor, h * factor
