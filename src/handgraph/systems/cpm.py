"""CPM: convolutional pose machine, one colour crop to 2D keypoints; the papers' first baseline.

Wei, Ramakrishna, Kanade and Sheikh, "Convolutional Pose Machines", CVPR 2016, in the form for hands that Kong
et al. compare with (dissertation, sections 2.2.1, 3.4, 4.4 and 5.4). The network is in `networks/cpm.py`.

Coordinates are `uv` of a colour `Crop`: 0 at the first pixel centre, 1 at the last.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, get_args

import numpy as np
from jaxtyping import Float
from torch import Tensor, nn

from handgraph.camera import Crop
from handgraph.errors import ConfigError
from handgraph.hand import Hand
from handgraph.keypoints import Answer, hands, image_keypoints_px
from handgraph.networks.backbone import load_vgg19
from handgraph.networks.cpm import PAPER_WIDTH, Kernel, PoseMachineShape
from handgraph.networks.heatmaps import Decode, PeakConfidence, cross_entropy, keypoints_uv, squared_error
from handgraph.schedule import Stage

INPUT = "colour"
SIGMA = 1.0
"""Width of the Gaussian targets in map cells; the papers give none."""


@dataclass(frozen=True)
class Config:
    """The switches of the network. Raises `ConfigError` for values that do not exist."""

    joints: int = 21
    stages: int = 6
    """Stages, each with its own supervision."""
    kernel: Kernel = 3
    """7×7 convolutions in stages 2 and on, or three 3×3 in the place of each (Kong et al.)."""
    width: int = PAPER_WIDTH
    """Channels of the features; VGG-19's own widths are scaled with it."""
    input_size: int = 368
    """Side of the square colour crop in pixels."""
    stride: Literal[4, 8] = 8
    """Pixels of the crop to a map cell: 368 → 46, or for small crops 128 → 32."""
    norm: bool = False
    """Batch normalisation after every convolution. The paper's has none and starts from ImageNet weights."""
    distribution: bool = False
    """Maps that are distributions, for the loss `cross_entropy`; the papers' are free."""
    decode: Decode = "argmax"
    """The highest cell (the papers'), or the centre of mass around it."""
    pretrained: str | None = None
    """VGG-19's ImageNet weights, read when training starts: a file or a hub's name (`load_vgg19`)."""

    def __post_init__(self) -> None:
        if self.joints < 1:
            raise ConfigError(f"joints is {self.joints}, expected 1 or more")
        if self.decode not in get_args(Decode):
            raise ConfigError(f"decode is '{self.decode}', expected one of {', '.join(get_args(Decode))}")
        self.shape.check_input(self.input_size)
        if self.pretrained is not None and (self.width != PAPER_WIDTH or self.norm):
            raise ConfigError(
                f"pretrained: VGG-19's weights fit width {PAPER_WIDTH} without norm, "
                f"found width {self.width}, norm {str(self.norm).lower()}"
            )

    @property
    def shape(self) -> PoseMachineShape:
        """The network's part of the configuration."""
        return PoseMachineShape(
            self.stages, self.kernel, self.width, self.stride, self.norm, self.distribution
        )

    def build(self) -> "Cpm":
        """The network, freshly initialised."""
        return Cpm(self)


class Output(NamedTuple):
    """What the network says of a batch of crops."""

    maps: tuple[Float[Tensor, "b n h w"], ...]
    """One entry per stage, the last is the answer; trained towards Gaussians of peak 1."""
    uv: Float[Tensor, "b n 2"]
    """The keypoints in the crop."""
    confidence: Float[Tensor, "b n"]
    """Probability of each keypoint, in [0, 1]."""


class Cpm(nn.Module):
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


def prepare(module: Cpm, stage: Stage, data: Any, config: Config) -> None:
    """Before training starts: fill the trunk with VGG-19's weights where the configuration names them."""
    if config.pretrained is not None and stage.name == stages(config)[0].name:
        load_vgg19(module.network.features.trunk, config.pretrained)


def loss(output: Output, batch: Mapping[str, Any]) -> dict[str, Tensor]:
    """`heatmap`: squared error of every stage's maps to the Gaussian targets (Wei et al., Eq. 5).

    `cross_entropy` is the other way to train maps that are distributions.
    """
    size, uv, known = batch["image"].shape[-1], batch["uv"], batch["known"]
    return {
        "heatmap": squared_error(output.maps, uv, known, size, SIGMA),
        "cross_entropy": cross_entropy(output.maps, uv, known, size, SIGMA),
    }


def stages(config: Config) -> tuple[Stage, ...]:
    """Everything at once, as SIA-GCN trains its CPM (section 5.4): Adam, 1e-4, halved after 60 and 80 epochs.

    The smaller rates are stages of their own, each with fresh moments of Adam.
    """
    weights = {"cross_entropy": 1.0} if config.distribution else {"heatmap": 1.0}
    return tuple(
        Stage(name=name, epochs=epochs, batch_size=32, loss_weights=weights, learning_rate=rate)
        for name, epochs, rate in (("all", 60, 1e-4), ("half", 20, 5e-5), ("quarter", 20, 2.5e-5))
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
