"""From a photograph to `Hand`s: the colour half of `load`'s estimators.

picture → `Finder` → `Crop`s → network → `decoding`, and once more with each crop laid around the joints →
every convincing `Hand`, once.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from inspect import signature
from typing import TYPE_CHECKING, Any, overload

import numpy as np

from handgraph.camera import MARGIN, Crop, PinholeCamera
from handgraph.decoding import decoder
from handgraph.errors import ConfigError, FormatError, InputError
from handgraph.finder import Finder, Found, iou
from handgraph.hand import CAMERA_FRAME, Hand, Side
from handgraph.images import MAX_PHOTO_PIXELS, MIN_SIDE, to_network
from handgraph.runtime import Network
from handgraph.shapes import Float

if TYPE_CHECKING:
    from handgraph.subject import Subject

Box = tuple[float, float, float, float]

LEAST_SCORE = 0.5
"""A hand with a lower score is not reported: pictures without a hand stay below, wrong finds mostly."""
LEAST_IN_BOX = 0.1
"""The same for a hand whose box is given."""
LEAST_FOUND = 0.2
"""Least score of the places of the finder that the network looks at, which can tell better."""
PLACES = 6
"""How many of them at most, the surest first."""
BOX_MARGIN = 1.25
"""Side of the first crop over the longer side of a box that the user gives, or the finder."""
SIDES: tuple[Side, ...] = ("right", "left")
SURE_MARGIN = 0.03
"""A side that scores so much more than the other in the first crop is not doubted in the second.

On 1,091 synthetic hands the side is right in 0.771 so, in 0.773 with 0.15, and 21 and 71 in 100 are looked
at again as either side.
"""
HOPELESS = 0.15
"""What scores so far below a hand that counts, in the first crop, will not be one in the second.

Of 1,341 synthetic hands 2 would have got there.
"""
WIDER, ASTRAY = 1.1, 0.5
"""A hand is looked at again where the second crop would be so much wider than the first, or overlap it less.

On 491 synthetic hands a second look at these, 30 in 100, ends at the same error as one at all (0.130 of the
box, 0.135 after the first look). Both looks together (`_together`) are better than the surer one alone: 0.072
against 0.073 on 234 crops around jittered boxes, 0.0685 against 0.0693 around exact ones.
"""
TURNS = (0.3, -0.3, 0.6, -0.6)
"""By how much further looks at a hand turn the picture, radians."""
POORER = 0.1
"""A look that scores so much less than the surest has no part in the mean."""
SAME_HAND = 0.25
"""Two answers whose joints lie nearer, in the mean over the hand's longer side, are one hand."""
SAME_PLACE = 0.8
"""Where one answer's box holds this part of another's, one place was read twice, and the surer counts."""


class ColourEstimator:
    """Finds the hands in colour pictures and their 21 joints. Make one with `load`.

    name, config, meta   what the weights are: system, its `Config`, and how they were trained
    input, runtime       "colour"; whether PyTorch ("torch") or ONNX Runtime ("onnx") runs the network
    least_score          a hand with a lower score is not reported; may be set
    finder               says where to look in a picture; the shipped `Finder` unless another is given
    looks                how often each hand is looked at, 1 to 5, the picture turned a little each time; the
                         answers are averaged. More are surer and slower; may be set
    optimise             whether 3D is laid on the 2D keypoints, by systems that can, where there is a camera;
                         None, which is what is the system's own, may be set
    """

    def __init__(
        self, network: Network, finder: Callable[[np.ndarray], Sequence[Found]] | None = None
    ) -> None:
        self.name, self.config, self.meta = network.name, network.config, network.meta
        self.input, self.runtime = network.input, network.runtime
        self.least_score = LEAST_SCORE
        self._finder = finder
        joints = getattr(self.config, "joints", 21)
        if joints != 21:
            raise ConfigError(f"{self.name}: predicts {joints} joints, a hand has 21: evaluate it instead")
        self._network = network
        self._decoder = decoder(self.name)
        self._optimise: bool | None = None
        self._looks = 1

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
        """The hands in a picture (H, W, 3) uint8 RGB, the surest first; an empty list where there is none.

        image    one picture, or a sequence of them, which gives a list for each
        camera   that took it, if known; written into the hands
        box      x, y, w, h in pixels of one hand, with little around it; else all hands are looked for
        side     "left" or "right" of every hand; None tries both and keeps the more convincing one
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

    @property
    def looks(self) -> int:
        """How often each hand is looked at."""
        return self._looks

    @looks.setter
    def looks(self, wanted: int) -> None:
        if not 1 <= wanted <= 1 + len(TURNS):
            raise ConfigError(f"looks is {wanted}, expected 1 to {1 + len(TURNS)}")
        self._looks = wanted

    @property
    def optimise(self) -> bool | None:
        """Whether 3D is laid on the 2D keypoints; None is what is the system's own."""
        return self._optimise

    @optimise.setter
    def optimise(self, wanted: bool | None) -> None:
        if wanted is not None and "optimise" not in signature(self._decoder.hands).parameters:
            raise ConfigError(f"optimise: {self.name} lays no 3D hand on 2D keypoints")
        self._optimise = wanted

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
        height, width = image.shape[:2]
        if box is not None:
            # Whoever gives a box says that a hand is there.
            places, least = [_inside(box, width, height)], min(self.least_score, LEAST_IN_BOX)
        else:
            places, least = [found.box_px for found in self.finder(image)[:PLACES]], self.least_score
        if not places:
            return []
        windows = [_enlarged(place, BOX_MARGIN) for place in places]
        sides: tuple[Side, ...] = SIDES if side is None else (side,)
        first = self._by_place(image, camera, [[(w, s) for s in sides] for w in windows], subject)
        # Once more where the window or the side is in doubt: a crop laid around the joints that were seen.
        hands: list[Hand] = []
        again: list[list[tuple[Hand, Box]]] = []
        for window, looks in zip(windows, first, strict=True):
            likely = _likely(looks)
            closer = [(look, _enlarged(_tight(look), MARGIN)) for look in likely]
            if max(look.score for look in likely) < least - HOPELESS:
                continue
            if len(likely) == 1 and _well_laid(window, closer[0][1]):
                hands += likely
            else:
                again.append(closer)
        around = [[(window, look.side) for look, window in place] for place in again]
        for place, looks in zip(again, self._by_place(image, camera, around, subject), strict=True):
            hands.append(_of_one_side([look for look, _ in place], looks))
        hands = _distinct([hand for hand in hands if hand.score >= least])
        return self._looked_at_again(image, camera, hands, subject)

    def _looked_at_again(
        self, image: np.ndarray, camera: PinholeCamera | None, hands: list[Hand], subject: "Subject | None"
    ) -> list[Hand]:
        """The hands by all `looks`."""
        turns = TURNS[: self.looks - 1]
        around = [(_enlarged(_tight(hand), BOX_MARGIN), hand.side, turn) for hand in hands for turn in turns]
        if not around:
            return hands
        further = iter(self._at(image, camera, around, subject))
        return [_together([hand, *(next(further) for _ in turns)]) for hand in hands]

    def _by_place(
        self,
        image: np.ndarray,
        camera: PinholeCamera | None,
        looks: Sequence[Sequence[tuple[Box, Side]]],
        subject: "Subject | None",
    ) -> list[list[Hand]]:
        """`_at` of several places, each looked at in one or two ways."""
        if not looks:
            return []
        hands = iter(self._at(image, camera, [(*look, 0.0) for place in looks for look in place], subject))
        return [[next(hands) for _ in place] for place in looks]

    @property
    def finder(self) -> Callable[[np.ndarray], Sequence[Found]]:
        """Says where to look in a picture."""
        if self._finder is None:  # only now: a box needs none
            self._finder = Finder(runtime=self.runtime, least_score=LEAST_FOUND)
        return self._finder

    def _at(
        self,
        image: np.ndarray,
        camera: PinholeCamera | None,
        looks: Sequence[tuple[Box, Side, float]],
        subject: "Subject | None",
    ) -> list[Hand]:
        """What the network sees in each window as that side, turned by so much, in one batch."""
        crops = [self._crop(window, camera, side, turn) for window, side, turn in looks]
        answer = self._network(_pixels(image, crops), self._shape(subject, len(crops)))
        known: dict[str, Any] = {} if self.optimise is None else {"optimise": self.optimise}
        if subject is not None and hasattr(self._decoder, "unit_mm"):
            known["scale_mm"] = np.full(len(crops), self._decoder.unit_mm(subject.bone_lengths_mm))
        hands: list[Hand] = self._decoder.hands(answer, crops, **known)
        return hands

    def _crop(self, window: Box, camera: PinholeCamera | None, side: Side, turn: float = 0.0) -> Crop:
        size = self.config.input_size
        return Crop.window(window, size, camera, mirrored=side == "left", rotation_rad=turn)


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


def _well_laid(window: Box, around_joints: Box) -> bool:
    """Whether a crop shows a hand as well as the one around its joints would."""
    overlap = iou(np.array(window), np.array(around_joints))
    return overlap >= ASTRAY and around_joints[2] <= WIDER * window[2]


def _likely(looks: Sequence[Hand]) -> list[Hand]:
    """One place as either side: the side that scores clearly more, or both."""
    best = max(look.score for look in looks)
    return [look for look in looks if look.score > best - SURE_MARGIN]


def _of_one_side(first: Sequence[Hand], closer: Sequence[Hand]) -> Hand:
    """Both looks together, of the side that they are surer of.

    On those 1,091 hands the side is right in 0.771; the side of the highest score of all is in 0.764.
    """
    together = [a.score + b.score for a, b in zip(first, closer, strict=True)]
    side = together.index(max(together))
    return _together([first[side], closer[side]])


def _together(looks: Sequence[Hand]) -> Hand:
    """Several looks at one hand as one: each joint where the looks see it, the surer ones counting more.

    Of hands that stand before the camera the surest look is taken, or joints would no longer be seen where
    the keypoints are; and of hands with a mesh, since the mean of several is no pose of the model.
    """
    surest = max(looks, key=lambda look: look.score)
    looks = [look for look in looks if look.frame == surest.frame and look.score > surest.score - POORER]
    placed = surest.joints_mm is not None and surest.frame == CAMERA_FRAME
    if placed or surest.vertices_mm is not None or any(look.confidence is None for look in looks):
        return surest
    scores = np.array([look.score for look in looks])
    sure = np.array([look.confidence for look in looks], dtype=np.float64)
    weights = np.square(sure) + 1e-6
    weights /= weights.sum(axis=0)
    keypoints = np.einsum("lj,ljc->jc", weights, [look.keypoints_px for look in looks])
    joints = [look.joints_mm for look in looks if look.joints_mm is not None]
    return replace(
        surest,
        score=float(np.square(scores).dot(scores) / max(np.square(scores).sum(), 1e-6)),
        keypoints_px=keypoints,
        joints_mm=np.einsum("lj,ljc->jc", weights, joints) if joints else None,
        confidence=(weights * sure).sum(axis=0),
    )


def _distinct(hands: Sequence[Hand]) -> list[Hand]:
    """The surest first, without those whose joints, or whose box, lie where a surer one's do."""
    kept: list[Hand] = []
    for hand in sorted(hands, key=lambda hand: -hand.score):
        box = _tight(hand)
        apart = [np.linalg.norm(hand.keypoints_px - k.keypoints_px, axis=1).mean() for k in kept]
        inside = [_shared(box, _tight(k)) for k in kept]
        if min(apart, default=np.inf) > SAME_HAND * max(box[2:]) and max(inside, default=0) < SAME_PLACE:
            kept.append(hand)
    return kept


def _shared(a: Box, b: Box) -> float:
    """What two boxes share, over the smaller one."""
    w, h = (min(a[k] + a[k + 2], b[k] + b[k + 2]) - max(a[k], b[k]) for k in (0, 1))
    return max(w, 0) * max(h, 0) / min(a[2] * a[3], b[2] * b[3])
