"""From a photograph to `Hand`s: the colour half of `load`'s estimators.

picture → windows → `Crop` → network → `decoding`, and once more with the crop laid around the joints → the
most convincing `Hand`.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, overload

import numpy as np

from handgraph.camera import MARGIN, Crop, PinholeCamera
from handgraph.decoding import decoder
from handgraph.errors import ConfigError, FormatError, InputError
from handgraph.hand import Hand, Side
from handgraph.images import MAX_PHOTO_PIXELS, MIN_SIDE, to_network
from handgraph.runtime import Network
from handgraph.shapes import Float
from handgraph.skeleton import BONES

if TYPE_CHECKING:
    from handgraph.subject import Subject

Box = tuple[float, float, float, float]

LEAST_SCORE = 0.5
"""A hand with a lower score is not reported: pictures without a hand stay below, wrong finds mostly."""
LEAST_IN_BOX = 0.1
"""The same for a hand whose box is given."""
SURE_SCORE = 0.7
"""Below this in the whole picture, windows of it are looked at too."""
BOX_MARGIN = 1.25
"""Side of the first crop over the longer side of a box that the user gives."""
_WINDOWS = ((1.0, 1), (0.6, 3), (0.35, 5))
"""Sides of the windows over the picture's shorter side, and how many along its longer side."""


class ColourEstimator:
    """Finds the hand in colour pictures and its 21 joints. Make one with `load`.

    name, config, meta   what the weights are: system, its `Config`, and how they were trained
    input, runtime       "colour"; whether PyTorch ("torch") or ONNX Runtime ("onnx") runs the network
    least_score          a hand with a lower score is not reported; may be set
    """

    def __init__(self, network: Network) -> None:
        self.name, self.config, self.meta = network.name, network.config, network.meta
        self.input, self.runtime = network.input, network.runtime
        self.least_score = LEAST_SCORE
        joints = getattr(self.config, "joints", 21)
        if joints != 21:
            raise ConfigError(f"{self.name}: predicts {joints} joints, a hand has 21: evaluate it instead")
        self._network = network
        self._decoder = decoder(self.name)

    @overload
    def __call__(
        self,
        image: np.ndarray,
        camera: PinholeCamera | None = ...,
        box: Box | None = ...,
        side: Side | None = ...,
        subject: "Subject | None" = ...,
    ) -> list[Hand]: ...

    @overload
    def __call__(
        self,
        image: Sequence[np.ndarray],
        camera: PinholeCamera | None = ...,
        box: Box | None = ...,
        side: Side | None = ...,
        subject: "Subject | None" = ...,
    ) -> list[list[Hand]]: ...

    def __call__(
        self,
        image: np.ndarray | Sequence[np.ndarray],
        camera: PinholeCamera | None = None,
        box: Box | None = None,
        side: Side | None = None,
        subject: "Subject | None" = None,
    ) -> list[Hand] | list[list[Hand]]:
        """The most convincing hand in a picture (H, W, 3) uint8 RGB, or an empty list where there is none.

        image    one picture, or a sequence of them, which gives a list for each
        camera   that took it, if known; written into the hands
        box      x, y, w, h in pixels of the hand, with little around it; else it is looked for
        side     "left" or "right"; None tries both and keeps the more convincing one
        subject  whose hand it is: its shape for systems that take one, its bone lengths for systems that
                 answer in hand lengths

        Raises FormatError for an array that is no colour picture, InputError for a box outside it.
        """
        if side not in ("left", "right", None):
            raise InputError(f"side is {side!r}, expected 'left', 'right' or None")
        if isinstance(image, np.ndarray):
            return self._hands(_checked(image, "picture"), camera, box, side, subject)
        return [
            self._hands(_checked(one, f"picture {index}"), camera, box, side, subject)
            for index, one in enumerate(image)
        ]

    def output(self, image: np.ndarray, hand: Hand, subject: "Subject | None" = None) -> tuple[Any, Crop]:
        """The network's whole output for the crop around a hand that it found, and that crop.

        Raises ConfigError in ONNX Runtime, whose files hold the answer alone.
        """
        whole = getattr(self._network, "output", None)
        if whole is None:
            raise ConfigError(f"{self.name}: the whole output is PyTorch's alone, choose runtime torch")
        crop = self._crop(_enlarged(_tight(hand), MARGIN), hand.camera, hand.side)
        return whole(_pixels(image, [crop]), self._shape(subject, 1)), crop

    def _shape(self, subject: "Subject | None", count: int) -> Float[np.ndarray, "b 10"] | None:
        """The subject's shape for networks that take one, for each crop."""
        if subject is None or not self._network.takes_shape:
            return None
        return np.tile(np.asarray(subject.shape, np.float32), (count, 1))

    def _hands(
        self,
        image: np.ndarray,
        camera: PinholeCamera | None,
        box: Box | None,
        side: Side | None,
        subject: "Subject | None",
    ) -> list[Hand]:
        sides: tuple[Side, ...] = ("right", "left") if side is None else (side,)
        height, width = image.shape[:2]
        if box is not None:
            first = [_enlarged(_inside(box, width, height), BOX_MARGIN)]
        else:
            first = _windows(width, height, _WINDOWS[:1])
        hands = self._at(image, camera, first, sides, subject)
        if box is None and max(hand.score for hand in hands) < SURE_SCORE:
            hands += self._at(image, camera, _windows(width, height, _WINDOWS[1:]), sides, subject)
        # Once more, closer: each side's best gets a crop laid around its own joints.
        best = [max((h for h in hands if h.side == s), key=lambda hand: hand.score) for s in sides]
        closer = [
            hand
            for start in best
            for hand in self._at(image, camera, [_enlarged(_tight(start), MARGIN)], (start.side,), subject)
        ]
        hand = max(best + closer, key=lambda hand: hand.score)
        # Whoever gives a box says that a hand is there.
        least = self.least_score if box is None else min(self.least_score, LEAST_IN_BOX)
        return [hand] if hand.score >= least else []

    def _at(
        self,
        image: np.ndarray,
        camera: PinholeCamera | None,
        windows: Sequence[Box],
        sides: Sequence[Side],
        subject: "Subject | None",
    ) -> list[Hand]:
        """What the network sees in each window, as each side, in one batch."""
        crops = [self._crop(window, camera, side) for side in sides for window in windows]
        answer = self._network(_pixels(image, crops), self._shape(subject, len(crops)))
        known = {}
        if subject is not None and hasattr(self._decoder, "SCALE_BONE"):
            length = subject.bone_lengths_mm[BONES.index(self._decoder.SCALE_BONE)]
            known["scale_mm"] = np.full(len(crops), float(length))
        hands: list[Hand] = self._decoder.hands(answer, crops, **known)
        return hands

    def _crop(self, window: Box, camera: PinholeCamera | None, side: Side) -> Crop:
        return Crop.window(window, self.config.input_size, camera, mirrored=side == "left")


def _pixels(image: np.ndarray, crops: Sequence[Crop]) -> Float[np.ndarray, "b 3 s s"]:
    """The crops of a picture as networks take them."""
    return to_network(np.stack([crop.apply_image(image) for crop in crops]))


def _checked(image: np.ndarray, name: str) -> np.ndarray:
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
        raise FormatError(
            f"{name}: array of {image.dtype} {image.shape}, expected uint8 RGB (height, width, 3)"
        )
    height, width = image.shape[:2]
    if min(height, width) < MIN_SIDE or height * width > MAX_PHOTO_PIXELS:
        raise FormatError(
            f"{name}: {width}x{height} pixels, expected at least {MIN_SIDE}x{MIN_SIDE} "
            f"and at most {MAX_PHOTO_PIXELS:,} in all"
        )
    return np.ascontiguousarray(image)


def _inside(box: Box, width: int, height: int) -> Box:
    x, y, w, h = (float(value) for value in box)
    if not np.isfinite([x, y, w, h]).all() or min(w, h) <= 0:
        raise InputError(f"box {box}: expected x,y,w,h in pixels with w and h above zero")
    if x >= width or y >= height or x + w <= 0 or y + h <= 0:
        raise InputError(f"box {box}: lies outside the picture of {width}x{height} pixels")
    return x, y, w, h


def _enlarged(box: Box, factor: float) -> Box:
    """The square around the middle of a box, `factor` times as wide as its longer side."""
    x, y, w, h = box
    side = factor * max(w, h, 2.0)
    return x + (w - side) / 2, y + (h - side) / 2, side, side


def _tight(hand: Hand) -> Box:
    low, high = hand.keypoints_px.min(axis=0), hand.keypoints_px.max(axis=0)
    return float(low[0]), float(low[1]), float(high[0] - low[0] + 1), float(high[1] - low[1] + 1)


def _windows(width: int, height: int, sizes: Sequence[tuple[float, int]]) -> list[Box]:
    """Square windows spread over the picture; a part of 1 is the whole picture."""
    found = []
    for part, count in sizes:
        side = part * min(width, height) if part < 1 else float(max(width, height))
        places = [_spread(extent, side, count) for extent in (width, height)]
        found += [(x, y, side, side) for y in places[1] for x in places[0]]
    return found


def _spread(extent: int, side: float, count: int) -> Float[np.ndarray, " n"]:
    """Where windows begin along an axis: from edge to edge, or one about the middle where it is larger."""
    if side >= extent or count == 1:
        return np.array([(extent - side) / 2])
    return np.linspace(0, extent - side, count)
