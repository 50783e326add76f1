"""Small videos for tests, and an estimator that finds coloured squares in them."""

from collections.abc import Callable, Sequence
from fractions import Fraction
from pathlib import Path

import numpy as np

from handgraph import Hand, HandgraphError
from handgraph.hand import Side

SIZE = (96, 64)
SHAPE = np.random.default_rng(4).uniform(-6, 6, (21, 2))
SHAPE -= SHAPE.mean(axis=0)
COLORS: dict[Side, tuple[int, int, int]] = {"right": (250, 60, 20), "left": (20, 60, 250)}


def picture(places: dict[Side, tuple[float, float]], size: tuple[int, int] = SIZE) -> np.ndarray:
    """A grey picture with a square of each side's colour around its place."""
    pixels = np.full((size[1], size[0], 3), 90, np.uint8)
    for side, (x, y) in places.items():
        left, top = round(x) - 6, round(y) - 6
        pixels[max(top, 0) : top + 13, max(left, 0) : left + 13] = COLORS[side]
    return pixels


def write_clip(
    path: Path,
    pictures: Sequence[np.ndarray],
    *,
    fps: int = 10,
    times_s: Sequence[float] | None = None,
    options: dict[str, str] | None = None,
    gop: int = 12,
) -> Path:
    """An H.264 video of the pictures, at a steady rate or at these times."""
    import av

    with av.open(str(path), "w", options=options or {}) as container:
        stream = container.add_stream("libx264", rate=fps, options={"crf": "12", "bf": "0"})
        stream.width, stream.height = pictures[0].shape[1], pictures[0].shape[0]
        stream.pix_fmt, stream.gop_size = "yuv420p", gop
        stream.codec_context.time_base = Fraction(1, 1000)
        for index, pixels in enumerate(pictures):
            frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
            frame.pts = round(1000 * (index / fps if times_s is None else times_s[index]))
            frame.time_base = Fraction(1, 1000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


class SquareEstimator:
    """Finds the squares of `picture`, as an estimator for photographs finds hands."""

    name, input, least_score = "squares", "colour", 0.5

    def __init__(self, before: Callable[[int], None] = lambda count: None) -> None:
        self.before, self.calls, self.boxes = before, 0, []

    def __call__(self, image, camera=None, box=None, side=None, subject=None) -> list[Hand]:
        self.before(self.calls)
        self.calls += 1
        self.boxes.append(box)
        hands = []
        height, width = image.shape[:2]
        v, u = np.mgrid[:height, :width]
        x, y, w, h = box or (0.0, 0.0, width, height)
        for found, color in COLORS.items():
            if side not in (None, found):
                continue
            seen = np.abs(image.astype(int) - color).sum(axis=2) < 200
            if seen.sum() < 20:
                continue
            # Like a crop, which shows more than its box.
            place = np.array([u[seen].mean(), v[seen].mean()])
            if not (x <= place[0] < x + w and y <= place[1] < y + h):
                continue
            points = SHAPE + place
            low, high = points.min(axis=0), points.max(axis=0)
            hands.append(
                Hand(found, 0.9, points, np.array([*low, *(high - low)]), confidence=np.full(21, 0.8))
            )
        return hands


class DepthSquares(SquareEstimator):
    """The same for depth: the nearest square, with joints in millimetres."""

    input = "depth"

    def __call__(self, image, camera=None, box=None, side="right", most=1, subject=None) -> list[Hand]:
        self.before(self.calls)
        self.calls += 1
        self.boxes.append(box)
        if not (image > 0).any():
            raise HandgraphError("nothing there")
        v, u = np.nonzero((image > 0) & (image < 500))
        if not len(u):
            return []
        points = SHAPE + np.array([u.mean(), v.mean()])
        joints = np.column_stack([points, np.full(21, 400.0)])
        return [Hand(side, 0.9, points, np.array([0, 0, 9, 9]), joints)]
