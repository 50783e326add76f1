"""Convolutional pose machine: a VGG-19 trunk, then stages that each see the features and the last maps.

Wei et al. 2016 in the form of OpenPose's hand network (Simon et al. 2017), which Kong et al. use with 7×7
convolutions in the later stages or with three 3×3 in the place of each. Where the texts are silent the code
published with AGMN decides: 3×3 convolutions in stage 1, nothing between the three 3×3 of a block.
"""

from dataclasses import asdict, dataclass
from typing import Literal, cast, get_args

import torch
from jaxtyping import Float
from torch import Tensor, nn

from handgraph.errors import ConfigError
from handgraph.networks.heatmaps import distributions
from handgraph.networks.hourglass import ConvNorm

Kernel = Literal[3, 7]

# Channels of VGG-19's convolutions up to conv4_4; each tuple but the last ends in a max-pool.
VGG19_WIDTHS = ((64, 64), (128, 128), (256, 256, 256, 256), (512, 512, 512, 512))
PAPER_WIDTH = 128


@dataclass(frozen=True)
class PoseMachineShape:
    """How many stages of which size. Raises `ConfigError` for what cannot be built."""

    stages: int = 6
    """Stages, each with its own supervision."""
    kernel: Kernel = 3
    """7×7 convolutions in stages 2 and on, or three 3×3 in the place of each (Kong et al.)."""
    width: int = PAPER_WIDTH
    """Channels of the features; VGG-19's own widths are scaled with it."""
    stride: Literal[4, 8] = 8
    """Pixels of the image to a cell of the maps: 368 → 46, or for small crops 128 → 32."""
    norm: bool = False
    """Batch normalisation after every convolution. The paper's has none and starts from ImageNet weights."""
    distribution: bool = False
    """Maps are `heatmaps.distributions`, for training with their cross-entropy; the papers' are free."""

    def __post_init__(self) -> None:
        if self.stages < 1:
            raise ConfigError(f"stages is {self.stages}, expected 1 or more")
        if self.kernel not in get_args(Kernel):
            raise ConfigError(f"kernel is {self.kernel}, expected 7, or 3 for three 3×3 in its place")
        if self.width < 8 or self.width % 8:
            raise ConfigError(f"width is {self.width}, expected a multiple of 8")
        if self.stride not in (4, 8):
            raise ConfigError(f"stride is {self.stride}, expected 4 or 8")

    def check_input(self, size: int) -> None:
        """Raise ConfigError for an image of a side that is no whole number of cells."""
        if size < self.stride or size % self.stride:
            raise ConfigError(f"input_size is {size}, expected a multiple of stride {self.stride}")

    def build(self, maps: int) -> "PoseMachine":
        """The network with `maps` output maps, freshly initialised."""
        return PoseMachine(maps, **asdict(self))


class Conv(nn.Module):
    """Convolution with bias, then ReLU unless told otherwise; padded to keep size, He-initialised.

    As VGG-19 has them. Without normalisation the initialisation matters: the trunk is 15 layers deep.
    """

    def __init__(self, inputs: int, outputs: int, kernel: int = 3, *, relu: bool = True) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2)
        self.relu = relu
        nn.init.kaiming_normal_(self.conv.weight, nonlinearity="relu" if relu else "linear")
        nn.init.zeros_(self.conv.bias)  # type: ignore[arg-type]

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b d h w"]:
        x = self.conv(x)
        return x.relu_() if self.relu else x


def convolution(inputs: int, outputs: int, kernel: int = 3, *, norm: bool, relu: bool = True) -> nn.Module:
    """`Conv`, or with `norm` a convolution with batch normalisation: for training from scratch."""
    block = ConvNorm if norm else Conv
    return block(inputs, outputs, kernel, relu=relu)


def map_layer(inputs: int, maps: int, kernel: int = 1) -> nn.Conv2d:
    """The last layer of a stage: small weights, so that maps start close to zero as most of a target is."""
    layer = nn.Conv2d(inputs, maps, kernel, padding=kernel // 2)
    nn.init.normal_(layer.weight, std=0.01)
    nn.init.zeros_(layer.bias)  # type: ignore[arg-type]
    return layer


class Features(nn.Module):
    """VGG-19 up to conv4_4 and three 3×3 convolutions: image → `width` channels at an eighth of its side.

    `width` 128 has VGG-19's own channels (`trunk` then takes ImageNet weights, see `backbone.load_vgg19`);
    other widths scale all of them alike. `stride` 4 leaves out the last pooling.
    """

    def __init__(self, width: int = PAPER_WIDTH, *, stride: int = 8, norm: bool = False) -> None:
        super().__init__()
        pools = {4: 2, 8: 3}[stride]
        layers: list[nn.Module] = []
        inputs = 3
        for block, widths in enumerate(VGG19_WIDTHS):
            for vgg_width in widths:
                outputs = vgg_width * width // PAPER_WIDTH
                layers.append(convolution(inputs, outputs, norm=norm))
                inputs = outputs
            if block < pools:
                layers.append(nn.MaxPool2d(2))
        self.trunk = nn.Sequential(*layers)
        self.reduce = nn.Sequential(
            convolution(inputs, inputs, norm=norm),
            convolution(inputs, inputs, norm=norm),
            convolution(inputs, width, norm=norm),
        )

    def forward(self, image: Float[Tensor, "b 3 s s"]) -> Float[Tensor, "b c h w"]:
        return cast(Tensor, self.reduce(self.trunk(image)))


class Three3x3(nn.Module):
    """Three 3×3 convolutions, one after the other, in the place of a 7×7; a 1×1 fuses what each gives."""

    def __init__(self, inputs: int, width: int, *, norm: bool = False) -> None:
        super().__init__()
        self.first = convolution(inputs, width, norm=norm, relu=False)
        self.second = convolution(width, width, norm=norm, relu=False)
        self.third = convolution(width, width, norm=norm, relu=False)
        self.fuse = convolution(3 * width, width, 1, norm=norm)

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b d h w"]:
        first = self.first(x)
        second = self.second(first)
        return cast(Tensor, self.fuse(torch.cat([first, second, self.third(second)], dim=1)))


def first_stage(width: int, maps: int, *, norm: bool = False) -> nn.Sequential:
    """Stage 1: features → maps."""
    return nn.Sequential(convolution(width, 4 * width, norm=norm), map_layer(4 * width, maps, 3))


def later_stage(
    inputs: int, width: int, maps: int, *, kernel: Kernel = 3, norm: bool = False
) -> nn.Sequential:
    """Stages 2 and on: features with earlier maps (`inputs` channels together) → maps."""

    def block(channels: int) -> nn.Module:
        if kernel == 3:
            return Three3x3(channels, width, norm=norm)
        return convolution(channels, width, kernel, norm=norm)

    return nn.Sequential(
        block(inputs),
        *(block(width) for _ in range(4)),
        convolution(width, width, 1, norm=norm),
        map_layer(width, maps),
    )


class PoseMachine(nn.Module):
    """`Features`, then `stages` stages; image (b, 3, s, s) → the maps of every stage, the last is the answer.

    With 21 maps, six stages and `kernel` 3 it has the 29,099,710 parameters of Kong et al.
    """

    def __init__(
        self,
        maps: int = 21,
        stages: int = 6,
        *,
        kernel: Kernel = 3,
        width: int = PAPER_WIDTH,
        stride: int = 8,
        norm: bool = False,
        distribution: bool = False,
    ) -> None:
        super().__init__()
        self.distribution = distribution
        self.features = Features(width, stride=stride, norm=norm)
        self.stages = nn.ModuleList(
            [first_stage(width, maps, norm=norm)]
            + [later_stage(width + maps, width, maps, kernel=kernel, norm=norm) for _ in range(stages - 1)]
        )

    def forward(self, image: Float[Tensor, "b 3 s s"]) -> tuple[Float[Tensor, "b n h w"], ...]:
        features = self.features(image)
        maps: list[Tensor] = []
        for stage in self.stages:
            maps.append(stage(torch.cat([features, maps[-1]], dim=1) if maps else features))
        return tuple(distributions(one) for one in maps) if self.distribution else tuple(maps)
