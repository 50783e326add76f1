"""Where the hands are in a photograph: a small network, so that the pose network need look only there.

picture → letterbox → maps of an eighth its side → local maxima → boxes without doubles. Pictures and boxes
are NumPy; only the network call differs between PyTorch and ONNX Runtime.
"""

from collections.abc import Callable, Sequence
from importlib.resources import files
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np

from handgraph.files import weights_file
from handgraph.hand import Side
from handgraph.images import to_network
from handgraph.runtime import Runtime, Session, cached, check_runtime
from handgraph.shapes import Bool, Float, UInt8

SIZE = 192
"""Longer side of the picture as the network sees it, px."""
MULTIPLE = 32
STRIDE = 8
_UNIT_PX = 32.0
"""Unit of offsets, and the side whose logarithm is 0, px of the network's picture."""
_LOG_SIZE = (-3.0, 3.0)
LEAST_SCORE = 0.3
"""A find with a lower score is not reported."""
OVERLAP = 0.45
"""Of two boxes with a larger intersection over union the less sure one is dropped."""


class Found(NamedTuple):
    """A hand in a picture."""

    box_px: tuple[float, float, float, float]
    """x, y, w, h round the hand in the picture; it may leave the picture, as a hand does."""
    side: Side
    side_confidence: float
    """From 0.5, no idea, to 1."""
    score: float
    """In [0, 1]: how sure it is that a hand is there."""


class Finder:
    """Finds hands in photographs.

    >>> hands = Finder()(image)  # (H, W, 3) uint8 RGB → list[Found], the surest first, empty without a hand

    weights      a file that `tools/train_finder.py` wrote; the shipped one by default
    runtime      "torch", or "onnx", which needs PyTorch only for the first use of these weights
    size         longer side of the picture as the network sees it, px
    least_score  finds with a lower score are left out; may be set

    Raises CheckpointError for weights that are missing or damaged, ConfigError for an unknown runtime,
    MissingExtraError without ONNX Runtime where that is asked for.
    """

    def __init__(
        self,
        weights: str | Path | None = None,
        *,
        runtime: Runtime = "torch",
        size: int = SIZE,
        least_score: float = LEAST_SCORE,
    ) -> None:
        check_runtime(runtime)
        file = shipped() if weights is None else weights_file(weights)
        self.runtime, self.size, self.least_score = runtime, size, least_score
        self._maps = _torch_maps(file) if runtime == "torch" else _onnx_maps(file)

    def __call__(self, image: UInt8[np.ndarray, "h w 3"]) -> list[Found]:
        """The hands in a picture, the surest first; an empty list where there is none."""
        pictures, placed = letterbox(image, self.size)
        return decode(self._maps(pictures)[0], placed, self.least_score)


Maps = Callable[[np.ndarray], np.ndarray]
"""Pictures (b, 3, h, w) as networks take them to maps (b, 6, h/8, w/8)."""


def shipped() -> Path:
    """The file of the shipped weights."""
    return Path(str(files("handgraph") / "weights" / "finder.safetensors"))


def _torch_maps(file: Path) -> Maps:
    from handgraph.networks.finder import load_maps

    return load_maps(file)


def _onnx_maps(file: Path) -> Maps:
    def make() -> bytes:
        from handgraph.networks.finder import exported

        return exported(file)

    session = Session(cached(file, make), file)
    return lambda pictures: session(image=pictures)["maps"]


class Letterbox(NamedTuple):
    """How a picture was brought to the network's size."""

    scale: float
    """Pixels of the network's picture a pixel of the picture."""
    height: int
    width: int
    """Of the picture within the network's; what is right of it and below is padding."""


def letterbox(
    image: UInt8[np.ndarray, "h w 3"], size: int = SIZE
) -> tuple[Float[np.ndarray, "1 3 a b"], Letterbox]:
    """The picture as the network takes it: longer side `size`, padded to multiples of 32, normalised."""
    height, width = image.shape[:2]
    scale = size / max(height, width)
    h, w = max(round(height * scale), 1), max(round(width * scale), 1)
    how = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
    small = cv2.resize(image, (w, h), interpolation=how)
    return padded(to_network(small[None])), Letterbox(scale, h, w)


def padded(batch: Float[np.ndarray, "b 3 h w"]) -> Float[np.ndarray, "b 3 a c"]:
    """Zeros (the mean colour) to the right and below, up to multiples of 32."""
    h, w = batch.shape[2:]
    return np.pad(batch, ((0, 0), (0, 0), (0, -h % MULTIPLE), (0, -w % MULTIPLE)))


def encode(
    boxes: Float[np.ndarray, "n 4"],
    sides: Sequence[Side],
    clear: Bool[np.ndarray, " n"],
    height: int,
    width: int,
) -> Float[np.ndarray, "8 h8 w8"]:
    """What the maps of a picture of these hands should be, with what a loss needs to compare them.

    Channels: score (a bump at each hand's middle), whether that score is cared about (not near hands that
    are not `clear`), the weight of the rest, then offset x and y, log width and height, and side (1 right).
    `height` and `width` are the network's picture's, multiples of 8. The middle of a hand that leaves the
    picture is the pixel nearest its box's middle.
    """
    rows, columns = height // STRIDE, width // STRIDE
    target = np.zeros((8, rows, columns), np.float32)
    target[1] = 1.0
    u = (np.arange(columns) + 0.5) * STRIDE - 0.5
    v = (np.arange(rows) + 0.5) * STRIDE - 0.5
    # Small hands last: they have few cells of their own.
    for k in np.argsort(-boxes[:, 2] * boxes[:, 3], kind="stable"):
        x, y, w, h = (float(value) for value in boxes[k])
        middle = np.array([x + (w - 1) / 2, y + (h - 1) / 2])
        inside = np.clip(middle, 0, [width - 1, height - 1])
        far = ((u - inside[0]) ** 2)[None] + ((v - inside[1]) ** 2)[:, None]
        if not clear[k]:
            target[1][far < (0.3 * max(w, h) + STRIDE) ** 2] = 0.0
            continue
        bump = np.exp(-far / (2 * max(0.10 * np.sqrt(w * h), 0.55 * STRIDE) ** 2)).astype(np.float32)
        nearest = np.unravel_index(far.argmin(), far.shape)
        bump[nearest] = 1.0
        mine = (bump > 0.5) & (bump >= target[2])
        mine[nearest] = True
        target[0] = np.maximum(target[0], bump)
        target[2][mine] = bump[mine]
        target[3][mine] = np.broadcast_to((middle[0] - u)[None] / _UNIT_PX, mine.shape)[mine]
        target[4][mine] = np.broadcast_to((middle[1] - v)[:, None] / _UNIT_PX, mine.shape)[mine]
        target[5][mine] = np.clip(np.log(w / _UNIT_PX), *_LOG_SIZE)
        target[6][mine] = np.clip(np.log(h / _UNIT_PX), *_LOG_SIZE)
        target[7][mine] = sides[k] == "right"
    target[1][target[0] > 0.999] = 1.0
    return target


def decode(
    maps: Float[np.ndarray, "6 h8 w8"],
    placed: Letterbox,
    least_score: float = LEAST_SCORE,
    overlap: float = OVERLAP,
) -> list[Found]:
    """The hands that a picture's maps tell of, the surest first, in pixels of the picture."""
    score = _sigmoid(maps[0])
    u = (np.arange(maps.shape[2]) + 0.5) * STRIDE - 0.5
    v = (np.arange(maps.shape[1]) + 0.5) * STRIDE - 0.5
    score = score * ((v < placed.height)[:, None] & (u < placed.width))
    highest = cv2.dilate(score, np.ones((3, 3), np.uint8))
    rows, columns = np.nonzero((score >= least_score) & (score >= highest))
    at = maps[:, rows, columns].astype(np.float64)
    w, h = _UNIT_PX * np.exp(np.clip(at[3:5], *_LOG_SIZE))
    middle = np.stack([u[columns] + _UNIT_PX * at[1], v[rows] + _UNIT_PX * at[2]])
    # A box begins half a pixel before its first pixel's centre; pictures are scaled about their corners.
    corner = middle + 0.5 - np.stack([w, h]) / 2
    boxes = np.concatenate([corner, [w, h]]).T / placed.scale
    right = _sigmoid(at[5])
    return [
        Found(
            tuple(float(value) for value in boxes[k]),  # type: ignore[arg-type]
            "right" if right[k] >= 0.5 else "left",
            float(max(right[k], 1 - right[k])),
            float(score[rows[k], columns[k]]),
        )
        for k in distinct(boxes, score[rows, columns], overlap)
    ]


def distinct(
    boxes: Float[np.ndarray, "n 4"], scores: Float[np.ndarray, " n"], overlap: float = OVERLAP
) -> list[int]:
    """Non-maximum suppression: best first, without those that overlap a better one (IoU above `overlap`)."""
    kept: list[int] = []
    for k in np.argsort(-scores, kind="stable"):
        if all(iou(boxes[k], boxes[other]) <= overlap for other in kept):
            kept.append(int(k))
    return kept


def iou(a: Float[np.ndarray, " 4"], b: Float[np.ndarray, " 4"]) -> float:
    """Intersection over union of two boxes x, y, w, h."""
    w = min(a[0] + a[2], b[0] + b[2]) - max(a[0], b[0])
    h = min(a[1] + a[3], b[1] + b[3]) - max(a[1], b[1])
    if w <= 0 or h <= 0:
        return 0.0
    return float(w * h / (a[2] * a[3] + b[2] * b[3] - w * h))


def _sigmoid(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-np.clip(x, -40, 40)))
