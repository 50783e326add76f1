"""Hourglass of bottleneck residuals (Newell et al. 2016) as in JGR-P2O: convolution, then norm, then ReLU."""

import copy
from typing import cast

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import interpolate
from torch.nn.utils import convert_conv2d_weight_memory_format
from torch.nn.utils.fusion import fuse_conv_bn_eval

from handgraph.networks.batch_norm import BatchNorm2d


class ConvNorm(nn.Module):
    """Convolution without bias, batch normalisation and, unless told otherwise, ReLU; padded to keep size."""

    def __init__(
        self, inputs: int, outputs: int, kernel: int = 1, *, stride: int = 1, relu: bool = True
    ) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, kernel, stride, padding=kernel // 2, bias=False)
        # The momentum of the running statistics is that of the authors' code (0.95 in TensorFlow's sense).
        self.norm: nn.Module = BatchNorm2d(outputs, momentum=0.05)
        self.relu = relu

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b d h2 w2"]:
        x = self.norm(self.conv(x))
        return x.relu_() if self.relu else x


class Residual(nn.Module):
    """Bottleneck of half width, 1×1, 3×3, 1×1, added to its input; ReLU after the sum.

    The shortcut is the identity, or a 1×1 convolution with norm where the widths differ.
    """

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        half = outputs // 2
        self.reduce = ConvNorm(inputs, half)
        self.spatial = ConvNorm(half, half, 3)
        self.expand = ConvNorm(half, outputs, relu=False)
        self.shortcut = nn.Identity() if inputs == outputs else ConvNorm(inputs, outputs, relu=False)

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b d h w"]:
        return (self.expand(self.spatial(self.reduce(x))) + self.shortcut(x)).relu_()


class Hourglass(nn.Module):
    """Look at the map at `depth` halved sizes, add what was seen back up. Sides: multiples of 2**depth.

    A level is one residual beside, and below it max-pool 3×3/2, a residual, the next level, a residual,
    nearest upsampling.
    """

    def __init__(self, width: int, depth: int = 3) -> None:
        super().__init__()
        self.beside = Residual(width, width)
        self.pool = nn.MaxPool2d(3, stride=2, padding=1)
        self.down = Residual(width, width)
        self.below = Hourglass(width, depth - 1) if depth > 1 else nn.Identity()
        self.up = Residual(width, width)

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        low = self.up(self.below(self.down(self.pool(x))))
        return self.beside(x) + interpolate(low, scale_factor=2.0, mode="nearest")


class Stem(nn.Module):
    """Image to a quarter of its side: 7×7/2, residual, max-pool 2, residual, residual.

    Their channels are a quarter, a half, a half and the whole of `width`.
    """

    def __init__(self, inputs: int, width: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            ConvNorm(inputs, width // 4, 7, stride=2),
            Residual(width // 4, width // 2),
            nn.MaxPool2d(2),
            Residual(width // 2, width // 2),
            Residual(width // 2, width),
        )

    def forward(self, image: Float[Tensor, "b c h w"]) -> Float[Tensor, "b d h4 w4"]:
        return cast(Tensor, self.layers(image))


def folded(network: nn.Module) -> nn.Module:
    """A copy for inference: eval mode, channels last, every norm folded into its convolution's weights.

    A batch of one takes about two thirds of the time.
    """
    network = copy.deepcopy(network).eval()
    for module in network.modules():
        if isinstance(module, ConvNorm) and isinstance(module.norm, nn.BatchNorm2d):
            module.conv = fuse_conv_bn_eval(module.conv, module.norm)
            module.norm = nn.Identity()
    return convert_conv2d_weight_memory_format(network.requires_grad_(False), torch.channels_last)
