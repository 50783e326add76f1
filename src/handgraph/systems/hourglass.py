"""Stacked hourglass: one colour crop to 2D keypoints; SIA-GCN's second baseline.

Newell, Yang and Deng, "Stacked Hourglass Networks for Human Pose Estimation", ECCV 2016, as SIA-GCN uses it
(Kong et al., section 4; dissertation, sections 2.2.2 and 5.4): 256 × 256 in, 64 × 64 maps, eight hourglasses.
The network is in `networks/stacked_hourglass.py`.

Coordinates are `uv` of a colour `Crop`: 0 at the first pixel centre, 1 at the last.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, get_args

import numpy as np
from jaxtyping import Float
from torch import Tensor, nn

from handgraph.camera import Crop
from handgraph.errors import ConfigError
from handgraph.hand import Hand
from handgraph.keypoints import Answer, hands, image_keypoints_px
from handgraph.networks.heatmaps import Decode, PeakConfidence, cross_entropy, keypoints_uv, squared_error
from handgraph.networks.stacked_hourglass import Form, HourglassShape
from handgraph.schedule import Stage

INPUT = "colour"
SIGMA = 1.0
"""Width of the Gaussian targets in map cells (Newell et al., section 3.1)."""


@dataclass(frozen=True)
class Config:
    """The switches of the network. Raises `ConfigError` for values that do not exist."""

    joints: int = 21
    stacks: int = 8
    """Hourglasses, each with its own supervision."""
    width: int = 256
    """Channels of the largest maps."""
    input_size: int = 256
    """Side of the square colour crop in pixels; the maps' is a quarter."""
    depth: int = 4
    """How often an hourglass halves its maps."""
    form: Form = "paper"
    """The published layout, or a compact one for CPUs (`networks/stacked_hourglass.py`)."""
    growth: int = 0
    """Channels that each halving adds, in the compact form."""
    distribution: bool = False
    """Maps that are distributions, for the loss `cross_entropy`; the papers' are free."""
    decode: Decode = "argmax"
    """The highest cell (the papers'), or the centre of mass around it."""

    def __post_init__(self) -> None:
        if self.joints < 1:
            raise ConfigError(f"joints is {self.joints}, expected 1 or more")
        if self.decode not in get_args(Decode):
            raise ConfigError(f"decode is '{self.decode}', expected one of {', '.join(get_args(Decode))}")
        self.shape.check_input(self.input_size)

    @property
    def shape(self) -> HourglassShape:
        """The network's part of the configuration."""
        return HourglassShape(self.stacks, self.width, self.depth, self.form, self.growth, self.distribution)

    def build(self) -> "StackedHourglasses":
        """The network, freshly initialised."""
        return StackedHourglasses(self)


class Output(NamedTuple):
    """What the network says of a batch of crops."""

    maps: tuple[Float[Tensor, "b n h w"], ...]
    """One entry per hourglass, the last is the answer; trained towards Gaussians of peak 1."""
    uv: Float[Tensor, "b n 2"]
    """The keypoints in the crop."""
    confidence: Float[Tensor, "b n"]
    """Probability of each keypoint, in [0, 1]."""


class StackedHourglasses(nn.Module):
    """Colour crop (b, 3, s, s), ImageNet-normalised → `Output`."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config
        self.network = config.shape.build(config.joints)
        self.confidence = PeakConfidence()

    def forward(self, image: Float[Tensor, "b 3 s s"]) -> Output:
        maps = self.network(image)
        uv = keypoints_uv(maps[-1], self.config.input_size, self.config.decode)
        return Output(maps, uv, self.confidence(maps[-1]))


def loss(output: Output, batch: Mapping[str, Any]) -> dict[str, Tensor]:
    """`heatmap`: squared error of every hourglass's maps to the Gaussian targets, as the papers train.

    `cross_entropy` is the other way to train maps that are distributions.
    """
    size, uv, known = batch["image"].shape[-1], batch["uv"], batch["known"]
    return {
        "heatmap": squared_error(output.maps, uv, known, size, SIGMA),
        "cross_entropy": cross_entropy(output.maps, uv, known, size, SIGMA),
    }


def stages(config: Config) -> tuple[Stage, ...]:
    """Everything at once, as SIA-GCN trains its hourglass (section 4): Adam, 7.5e-4, halved twice.

    The smaller rates after 60 and 80 epochs are stages of their own, each with fresh moments of Adam.
    """
    weights = {"cross_entropy": 1.0} if config.distribution else {"heatmap": 1.0}
    return tuple(
        Stage(name=name, epochs=epochs, batch_size=32, loss_weights=weights, learning_rate=rate)
        for name, epochs, rate in (("all", 60, 7.5e-4), ("half", 20, 3.75e-4), ("quarter", 20, 1.875e-4))
    )


def keypoints_px(output: Output, crops: Sequence[Crop]) -> Float[np.ndarray, "b n 2"]:
    """The keypoints in image pixels; a mirrored crop's are mirrored back."""
    return image_keypoints_px(output.uv, crops)


def answer(output: Output) -> Answer:
    """What a hand consists of: what `decode` needs, and what an exported file gives."""
    return Answer(output.uv, output.confidence)


def decode(output: Output, crops: Sequence[Crop]) -> list[Hand]:
    """One `Hand` for each sample, without 3D; the score is the mean of its joints' confidences."""
    return hands(answer(output), crops)
