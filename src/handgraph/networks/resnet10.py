"""ResNet-10 with fewer channels (Kourbane & Genc 2021, Table 1): image to one small map a joint."""

from jaxtyping import Float
from torch import Tensor, nn

from handgraph.networks.hourglass import ConvNorm


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
