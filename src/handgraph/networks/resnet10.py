"""ResNet-10 with fewer channels (Kourbane & Genc 2021, Table 1): image to one small map a joint.

`MapsToJoints` is ours: the same from what a trained keypoint network sees.
"""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from handgraph.networks.heatmaps import keypoints_uv
from handgraph.networks.hourglass import ConvNorm
from handgraph.networks.stacked_hourglass import HourglassShape


class BasicBlock(nn.Module):
    """Two 3×3 convolutions added to the input; ReLU after the sum (He et al. 2016).

    Where it halves the map, the input goes through a 1×1 convolution of stride 2 with norm: the rows
    "Conv2D 1×1" and "BN" below the blocks of Table 1.
    """

    def __init__(self, inputs: int, outputs: int, *, stride: int) -> None:
        super().__init__()
        self.first = ConvNorm(inputs, outputs, 3, stride=stride)
        self.second = ConvNorm(outputs, outputs, 3, relu=False)
        same = inputs == outputs and stride == 1
        self.shortcut = nn.Identity() if same else ConvNorm(inputs, outputs, stride=stride, relu=False)

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b d h2 w2"]:
        return (self.second(self.first(x)) + self.shortcut(x)).relu_()


class ResNet10(nn.Module):
    """Table 1: RGB (b, 3, s, s) to `outputs` maps of s/32 × s/32. `width` is the first block's channels, 32.

    Convolutions start normally distributed with σ = 0.02 (section 4.1).
    """

    def __init__(self, outputs: int = 21, width: int = 32) -> None:
        super().__init__()
        self.stem = ConvNorm(3, width, 7, stride=2)
        self.pool = nn.MaxPool2d(3, stride=2, padding=1)
        self.blocks = nn.ModuleList(
            [
                BasicBlock(width, width, stride=1),
                BasicBlock(width, 2 * width, stride=2),
                BasicBlock(2 * width, 4 * width, stride=2),
                BasicBlock(4 * width, 8 * width, stride=2),
            ]
        )
        self.head = nn.Conv2d(8 * width, outputs, 3, padding=1)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.normal_(module.weight, std=0.02)
        if self.head.bias is not None:
            nn.init.zeros_(self.head.bias)

    def forward(self, image: Float[Tensor, "b 3 s s"]) -> Float[Tensor, "b n h w"]:
        x: Tensor = self.pool(self.stem(image))
        for block in self.blocks:
            x = block(x)
        maps: Tensor = self.head(x)
        return maps


class MapsToJoints(nn.Module):
    """Keypoint features (b, c, h, w) and maps (b, 21, h, w) → what is known of each joint (b, 21, hw/16 + 3).

    Two blocks that halve the maps, a third, and one small map a joint as `ResNet10`'s; beside it the joint's
    keypoint (uv of the crop) and how high its peak is. No gradient goes through the keypoints.
    """

    def __init__(self, shape: HourglassShape, width: int) -> None:
        super().__init__()
        self.stride = shape.stride
        self.blocks = nn.Sequential(
            BasicBlock(shape.width + 21, 2 * width, stride=2),
            BasicBlock(2 * width, 4 * width, stride=2),
            BasicBlock(4 * width, 4 * width, stride=1),
        )
        self.head = nn.Conv2d(4 * width, 21, 3, padding=1)

    def forward(
        self, features: Float[Tensor, "b c h w"], maps: Float[Tensor, "b 21 h w"]
    ) -> Float[Tensor, "b 21 f"]:
        small = self.head(self.blocks(torch.cat([features, maps.to(features.dtype)], dim=1)))
        maps = maps.detach().float()
        uv = keypoints_uv(maps, self.stride * maps.shape[-1], "local")
        peaks = maps.amax(dim=(2, 3))
        return torch.cat([small.flatten(2).float(), uv, peaks[..., None]], dim=2)
