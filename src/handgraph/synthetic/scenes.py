"""Whole pictures with no, one or several synthetic hands: what a hand finder learns from.

A *card* is a square view of hands, forearms, sleeves, things, people and clutter, drawn and lit as `rgb`
draws its crops. A *scene* is made of one to four cards: one that fills the picture, others cut out and laid
upon it, or several side by side; each turned, scaled and mirrored (a mirrored left hand is a right one), and
the whole then goes through the camera. A card takes several times as long as a scene and is used many times.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, NamedTuple, get_args

import cv2
import numpy as np
from jaxtyping import Bool, Float, UInt8

from handgraph.errors import ConfigError
from handgraph.synthetic import depth
from handgraph.synthetic.cards import CARD_PX, add_distractors, add_features, card_cast
from handgraph.synthetic.clutter import heap, texture_pool
from handgraph.synthetic.depth import SUBJECTS, Split
from handgraph.synthetic.hands import chance, integer, normal, seed_stream, uniform
from handgraph.synthetic.light import turn_world
from handgraph.synthetic.photo import Chances, build, camera_draws, exposure_of, render
from handgraph.synthetic.rgb import FAMILY_SHARES, _open_wrist, _photograph, _skin

CARDS = 8_000
"""Different cards of a split; scenes beyond repeat them in other company."""
CLEAR = 0.35
"""A hand of which less can be seen need be neither found nor left alone."""
GONE = 0.05
"""Of less nobody can tell that it is a hand."""
MEAN_LIGHT = 0.21
"""Mean linear light of a card; what the camera aims at."""
CHANCES = Chances(table=0.2, held=0.22, occluder=0.1, clutter=0.5, sleeve=0.45)


class CardHand(NamedTuple):
    """A hand on a card."""

    side: Literal["left", "right"]
    outline: Float[np.ndarray, "n 2"]
    """Convex hull of its mesh in the card, px; it may leave the card."""
    number: int
    """Its pixels' value in `Card.owner`."""
    area_px: float
    """Of the whole hand, also what is hidden."""


class Card(NamedTuple):
    """A lit view, linear light before the camera, with what every pixel shows."""

    light: Float[np.ndarray, "s s 3"]
    """float16, its mean about `MEAN_LIGHT`."""
    owner: UInt8[np.ndarray, "s s"]
    """See `light.THINGS`."""
    hands: tuple[CardHand, ...]


@dataclass(frozen=True, eq=False)
class Scene:
    """A whole photograph."""

    image: UInt8[np.ndarray, "h w 3"]
    boxes: Float[np.ndarray, "n 4"]
    """x, y, w, h round each whole hand, px; they may leave the picture."""
    sides: tuple[Literal["left", "right"], ...]
    visible: Float[np.ndarray, " n"]
    """Share of each hand that is in the picture with nothing before it."""
    hand: UInt8[np.ndarray, "h w"]
    """Which hand a pixel shows, from 1; 0 none."""

    @property
    def clear(self) -> Bool[np.ndarray, " n"]:
        """Hands of which enough is seen that they should be found."""
        return self.visible >= CLEAR


class SceneSynthesizer:
    """Pictures for a finder: scene `index` of (seed, split, cards) is always the same.

    Args:
        seed: of the whole set.
        split: `train`, `validation` or `test`; they share no subject.
        cards: how many different cards the scenes are made of.
        keep: remember every card that was drawn, 0.3 MB each.

    Raises:
        ConfigError: an unknown split, fewer than one card, or a seed below zero.
    """

    def __init__(self, seed: int = 0, split: str = "train", cards: int = CARDS, *, keep: bool = True) -> None:
        if split not in get_args(Split):
            raise ConfigError(f"split {split!r}: expected one of {', '.join(get_args(Split))}")
        if cards < 1 or seed < 0:
            raise ConfigError(
                f"seed {seed}, cards {cards}: expected a seed not below zero and at least one card"
            )
        self.seed, self.split, self.cards = seed, split, cards
        self._number = get_args(Split).index(split)
        model = depth._open_hand()
        self.rig = depth._rig(model)
        self._wrist = _open_wrist(self.rig)
        self._skin = _skin(model)
        self._textures = texture_pool()
        self._kept: dict[int, Card] | None = {} if keep else None

    def card(self, index: int) -> Card:
        """Card number `index`."""
        if self._kept is None:
            return self._draw(index)
        if index not in self._kept:
            self._kept[index] = self._draw(index)
        return self._kept[index]

    def scene(self, index: int, height: int = 192, width: int = 192) -> Scene:
        """Scene number `index`, of that size."""
        state = self._stream(index, 31)
        light = np.zeros((height, width, 3), np.float32)
        hand = np.zeros((height, width), np.uint8)
        placed: list[tuple[CardHand, np.ndarray]] = []
        kind = uniform(state, 0.0, 1.0)
        if kind < 0.16:
            for window in _tiles(state, height, width):
                self._lay(state, light, hand, placed, window, 1.0 if chance(state, 0.3) else 0.0)
        else:
            self._lay(state, light, hand, placed, (0, 0, width, height), 1.0)
            for _ in range(int(kind > 0.72) + int(kind > 0.93)):
                self._cut_out(state, light, hand, placed)
        lens = self._stream(index, 32)
        draws = camera_draws(lens)
        image = _photograph(light, height, width, float(draws[0]) / MEAN_LIGHT, draws, lens)
        seen = np.bincount(hand.ravel(), minlength=len(placed) + 1)[1:]
        kept, boxes, shares = [], [], []
        numbers = np.zeros(len(placed) + 1, np.uint8)
        for place, (one, matrix) in enumerate(placed):
            share = seen[place] / max(one.area_px * abs(np.linalg.det(matrix[:, :2])), 1.0)
            if share < GONE:
                continue
            points = one.outline @ matrix[:, :2].T + matrix[:, 2]
            low, high = points.min(0), points.max(0)
            kept.append(one.side if np.linalg.det(matrix[:, :2]) > 0 else _other(one.side))
            boxes.append(np.concatenate([low, high - low + 1]))
            shares.append(min(share, 1.0))
            numbers[place + 1] = len(kept)
        return Scene(
            image,
            np.array(boxes, np.float32).reshape(-1, 4),
            tuple(kept),
            np.array(shares, np.float32),
            numbers[hand],
        )

    def _stream(self, index: int, purpose: int) -> np.ndarray:
        return seed_stream(self.seed, self._number, index, purpose)

    def _draw(self, index: int) -> Card:
        families = np.asarray(FAMILY_SHARES, np.float64)
        subjects = SUBJECTS[get_args(Split)[self._number]]
        cast, level = card_cast(self.rig, families, subjects, self.seed, self._number, index)
        chances = Chances(*(float(value) for value in CHANCES))
        stage = build(
            self.rig, *self._wrist, cast, chances, len(self._textures), np.eye(3), True,
            self.seed, self._number, index,
        )  # fmt: skip
        state = self._stream(index, 33)
        add_features(stage.world, state)
        add_distractors(stage.world, state, len(self._textures), cast.camera, level)
        turn_world(stage.world, np.eye(3))
        behind = np.zeros((CARD_PX, CARD_PX, 3), np.float32)
        heap(self._stream(index, 34), self._textures, 0.7, behind)
        blur = float(np.exp(uniform(state, -1.5, 1.2))) if chance(state, 0.5) else 0.0
        if blur > 0.3:
            behind = cv2.GaussianBlur(behind, (0, 0), blur)
        picture = render(stage, self._skin, self._textures, behind, cast.camera[:4].copy(), True)
        light = picture.light * exposure_of(picture.light, picture.owner, MEAN_LIGHT)
        hands = []
        for number, posed in enumerate((cast.first, cast.second)[: cast.hands]):
            points = posed.vertices * ([-1.0, 1.0, 1.0] if posed.left else [1.0, 1.0, 1.0])
            z = np.maximum(points[:, 2], 1.0)
            uv = cast.camera[:2] * points[:, :2] / z[:, None] + cast.camera[2:4]
            column, row = np.rint(uv).astype(int).T
            inside = (column >= 0) & (row >= 0) & (column < CARD_PX) & (row < CARD_PX)
            mine = picture.owner == 1 + 2 * number
            # Where a vertex falls on a pixel of its own hand, that part of the hand is seen.
            share = mine[row[inside], column[inside]].sum() / len(uv)
            if share > GONE:
                outline = cv2.convexHull(uv.astype(np.float32))[:, 0].astype(np.float64)
                side: Literal["left", "right"] = "left" if posed.left else "right"
                hands.append(CardHand(side, outline, 1 + 2 * number, float(mine.sum() / share)))
        return Card(np.minimum(light, 16.0).astype(np.float16), picture.owner, tuple(hands))

    def _lay(
        self,
        state: np.ndarray,
        light: np.ndarray,
        hand: np.ndarray,
        placed: list[tuple[CardHand, np.ndarray]],
        window: tuple[int, int, int, int],
        wide: float,
    ) -> None:
        """Fill a window of the picture with part of a card, mostly one around a hand."""
        x, y, w, h = window
        card = self.card(integer(state, self.cards))
        # Least scale at which the card still fills the window, and up to more than twice that.
        least = max(w, h) / CARD_PX
        scale = least * float(np.exp(uniform(state, 0.0, 0.75 if wide else 0.3)))
        turn = normal(state, 0.0, 0.12) if chance(state, 0.5) else 0.0
        scale *= 1.0 + 0.9 * min(abs(turn), 0.35)
        center = np.array([uniform(state, 0.0, CARD_PX), uniform(state, 0.0, CARD_PX)])
        goal = np.array([x + uniform(state, 0.05, 0.95) * w, y + uniform(state, 0.05, 0.95) * h])
        if card.hands and chance(state, 0.85):
            outline = card.hands[integer(state, len(card.hands))].outline
            extent = np.ptp(outline, axis=0).max()
            if chance(state, 0.85):  # rarely larger than the window
                scale = min(scale, max(least, uniform(state, 0.7, 1.0) * min(w, h) / extent))
            center = np.clip((outline.min(0) + outline.max(0)) / 2, 0, CARD_PX)
            if chance(state, 0.6):  # wholly in the window, where it can be
                room = np.minimum(0.55 * scale * extent, [w / 2, h / 2])
                goal = np.clip(goal, np.add([x, y], room), np.subtract([x + w, y + h], room))
        matrix = _turned(scale, turn, chance(state, 0.5))
        matrix[:, 2] = goal - matrix[:, :2] @ center
        # The card's middle goes no farther from the window's than there is card.
        slack = np.maximum(scale * CARD_PX - np.array([w, h]), 0) / 2
        middle = matrix[:, :2] @ np.full(2, CARD_PX / 2) + matrix[:, 2]
        place = np.array([x + w / 2, y + h / 2])
        wish = np.clip(middle, place - slack, place + slack)
        matrix[:, 2] += wish - middle
        part = np.s_[y : y + h, x : x + w]
        local = matrix - np.array([[0, 0, x], [0, 0, y]])
        light[part] = _warped(card.light, local, h, w, cv2.BORDER_REFLECT_101)
        owner = cv2.warpAffine(card.owner, local, (w, h), flags=cv2.INTER_NEAREST)
        for one in card.hands:
            placed.append((one, matrix))
            hand[part][owner == one.number] = len(placed)

    def _cut_out(
        self,
        state: np.ndarray,
        light: np.ndarray,
        hand: np.ndarray,
        placed: list[tuple[CardHand, np.ndarray]],
    ) -> None:
        """Lay another card's hands, arms and things upon the picture."""
        height, width = hand.shape
        card = self.card(integer(state, self.cards))
        scale = float(np.exp(uniform(state, np.log(0.35), np.log(1.2)))) * max(height, width) / CARD_PX
        matrix = _turned(scale, normal(state, 0.0, 0.3), chance(state, 0.5))
        goal = np.array([uniform(state, 0.0, width), uniform(state, 0.0, height)])
        center = card.hands[0].outline.mean(0) if card.hands else np.full(2, CARD_PX / 2)
        matrix[:, 2] = goal - matrix[:, :2] @ center
        figure = ((card.owner > 0) & (card.owner < 34)).astype(np.float32)
        alpha = _warped(figure, matrix, height, width, cv2.BORDER_CONSTANT)[..., None]
        gain = float(np.exp(normal(state, 0.0, 0.25)))
        light += alpha * (gain * _warped(card.light, matrix, height, width, cv2.BORDER_REPLICATE) - light)
        owner = cv2.warpAffine(card.owner, matrix, (width, height), flags=cv2.INTER_NEAREST)
        hand[alpha[..., 0] > 0.5] = 0
        for one in card.hands:
            placed.append((one, matrix))
            hand[owner == one.number] = len(placed)


def _other(side: Literal["left", "right"]) -> Literal["left", "right"]:
    return "right" if side == "left" else "left"


def _turned(scale: float, turn: float, mirrored: bool) -> Float[np.ndarray, "2 3"]:
    cos, sin = scale * np.cos(turn), scale * np.sin(turn)
    flip = -1.0 if mirrored else 1.0
    return np.array([[flip * cos, -sin, 0.0], [flip * sin, cos, 0.0]])


def _warped(
    picture: np.ndarray, matrix: np.ndarray, height: int, width: int, border: int
) -> Float[np.ndarray, "h w *c"]:
    """The picture mapped by `matrix`, averaged where it shrinks."""
    picture = picture.astype(np.float32)
    scale = float(np.sqrt(abs(np.linalg.det(matrix[:, :2]))))
    if scale < 0.75:
        side = max(round(len(picture) * scale), 4)
        ratio = side / len(picture)
        picture = cv2.resize(picture, (side, side), interpolation=cv2.INTER_AREA)
        # Pixel centres are integers: (u + 0.5) · ratio − 0.5 in the smaller picture.
        matrix = matrix.copy()
        matrix[:, :2] /= ratio
        matrix[:, 2] += matrix[:, :2].sum(1) * (0.5 - 0.5 * ratio)
    return cv2.warpAffine(picture, matrix, (width, height), flags=cv2.INTER_LINEAR, borderMode=border)


def _tiles(state: np.ndarray, height: int, width: int) -> Iterator[tuple[int, int, int, int]]:
    """Two to four windows that fill the picture, x, y, w, h."""
    u = int(uniform(state, 0.35, 0.65) * width)
    v = int(uniform(state, 0.35, 0.65) * height)
    kind = integer(state, 3)
    if kind == 0:
        yield from ((0, 0, u, height), (u, 0, width - u, height))
    elif kind == 1:
        yield from ((0, 0, width, v), (0, v, width, height - v))
    else:
        for x, w in ((0, u), (u, width - u)):
            yield from ((x, 0, w, v), (x, v, w, height - v))
