"""Backbones that describe a whole image: crop in, one vector of features out.

The residual networks carry the tensor names that torchvision and timm gave them, so that ImageNet weights in
that form fit. Nothing is fetched unless a caller names what to fetch. Where ImageNet cannot be had, a network
that has learnt to find keypoints is a start too: `MapFeatures` describe what it sees.
"""

import itertools
from typing import cast

import torch
from jaxtyping import Float
from torch import Tensor, nn

from handgraph.errors import CheckpointError, ConfigError, MissingExtraError
from handgraph.networks.backbone import read_state
from handgraph.networks.batch_norm import BatchNorm2d
from handgraph.networks.heatmaps import keypoints_uv
from handgraph.networks.stacked_hourglass import HourglassShape

BUILT_IN = ("small", "resnet18", "resnet50", "resnet152")
"""`small` is a ResNet-10 of 32 to 256 channels, for CPUs; the others are those of He et al. 2016."""
MAPS = "hourglass"
"""Names `MapFeatures` where a system takes them for a backbone."""


class BasicBlock(nn.Module):
    """Two 3×3 convolutions with norm, added to the input (He et al. 2016, Fig. 5, left)."""

    expansion = 1

    def __init__(self, inputs: int, width: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, width, 3, stride, padding=1, bias=False)
        self.bn1 = BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.bn2 = BatchNorm2d(width)
        self.downsample = _shortcut(inputs, width, stride)

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b d h2 w2"]:
        y = self.bn1(self.conv1(x)).relu_()
        return (self.bn2(self.conv2(y)) + self.downsample(x)).relu_()


class Bottleneck(nn.Module):
    """1×1, 3×3, 1×1 to four times the width, added to the input (Fig. 5, right); the 3×3 has the stride."""

    expansion = 4

    def __init__(self, inputs: int, width: int, stride: int) -> None:
        super().__init__()
        outputs = 4 * width
        self.conv1 = nn.Conv2d(inputs, width, 1, bias=False)
        self.bn1 = BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, stride, padding=1, bias=False)
        self.bn2 = BatchNorm2d(width)
        self.conv3 = nn.Conv2d(width, outputs, 1, bias=False)
        self.bn3 = BatchNorm2d(outputs)
        self.downsample = _shortcut(inputs, outputs, stride)

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b d h2 w2"]:
        y = self.bn1(self.conv1(x)).relu_()
        y = self.bn2(self.conv2(y)).relu_()
        return (self.bn3(self.conv3(y)) + self.downsample(x)).relu_()


def _shortcut(inputs: int, outputs: int, stride: int) -> nn.Module:
    if stride == 1 and inputs == outputs:
        return nn.Identity()
    return nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), BatchNorm2d(outputs))


class ResidualFeatures(nn.Module):
    """Residual network without its classifier, averaged over the pixels: (b, 3, h, w) → (b, channels)."""

    def __init__(
        self, block: type[BasicBlock] | type[Bottleneck], blocks: tuple[int, ...], width: int = 64
    ) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, width, 7, stride=2, padding=3, bias=False)
        self.bn1 = BatchNorm2d(width)
        self.maxpool = nn.MaxPool2d(3, stride=2, padding=1)
        self.channels = width
        for group, count in enumerate(blocks):
            layers = []
            for index in range(count):
                inner = width * 2**group
                layers.append(block(self.channels, inner, stride=2 if group and not index else 1))
                self.channels = inner * block.expansion
            self.add_module(f"layer{group + 1}", nn.Sequential(*layers))
        self.groups = len(blocks)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, image: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b c"]:
        x = self.maxpool(self.bn1(self.conv1(image)).relu_())
        for group in range(self.groups):
            x = self.get_submodule(f"layer{group + 1}")(x)
        return cast(Tensor, x).mean(dim=(2, 3))


class MapFeatures(nn.Module):
    """Keypoint features and maps (b, c, h, w), (b, 21, h, w) → (b, 255): ours, for want of ImageNet weights.

    Three residual blocks, each of half the size before, averaged over the cells; beside it what averaging
    loses, the maps' keypoints and how high their peaks are. The maps are taken as they are: no gradient
    reaches the network that drew them through its keypoints.
    """

    def __init__(self, shape: HourglassShape) -> None:
        super().__init__()
        self.stride = shape.stride
        widths = (shape.width + 21, 64, 96, 192)
        self.blocks = nn.Sequential(
            *(BasicBlock(before, after, stride=2) for before, after in itertools.pairwise(widths))
        )
        self.channels = widths[-1] + 3 * 21

    def forward(
        self, features: Float[Tensor, "b c h w"], maps: Float[Tensor, "b 21 h w"]
    ) -> Float[Tensor, "b d"]:
        pooled = self.blocks(torch.cat([features, maps.to(features.dtype)], dim=1)).mean(dim=(2, 3))
        maps = maps.detach().float()
        uv = keypoints_uv(maps, self.stride * maps.shape[-1], "local")
        return torch.cat([pooled.float(), uv.flatten(1), maps.amax(dim=(2, 3))], dim=1)


class NamedFeatures(nn.Module):
    """Any `AutoBackbone` of transformers by its name on the hub, with its weights, averaged over the pixels.

    Raises MissingExtraError without transformers, CheckpointError where the name cannot be had.
    """

    def __init__(self, name: str) -> None:
        super().__init__()
        try:
            from transformers import AutoBackbone
        except ImportError:
            raise MissingExtraError(
                f"backbone '{name}' needs transformers: pip install transformers, or choose one of "
                f"{', '.join(BUILT_IN)}"
            ) from None
        try:
            self.backbone = AutoBackbone.from_pretrained(name)
        except (OSError, ValueError) as error:
            raise CheckpointError(f"backbone '{name}': {' '.join(str(error).split())}") from None
        self.channels = int(self.backbone.channels[-1])

    def forward(self, image: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b c"]:
        return cast(Tensor, self.backbone(image).feature_maps[-1]).mean(dim=(2, 3))


def build_features(name: str) -> ResidualFeatures | NamedFeatures:
    """The backbone of this name: one of `BUILT_IN`, freshly initialised, or a name on the hub ("owner/name").

    The module's `channels` is the length of its vectors. Raises ConfigError for any other name.
    """
    if name == "small":
        return ResidualFeatures(BasicBlock, (1, 1, 1, 1), width=32)
    if name == "resnet18":
        return ResidualFeatures(BasicBlock, (2, 2, 2, 2))
    if name == "resnet50":
        return ResidualFeatures(Bottleneck, (3, 4, 6, 3))
    if name == "resnet152":
        return ResidualFeatures(Bottleneck, (3, 8, 36, 3))
    check_name(name)
    return NamedFeatures(name)


def check_name(name: str, *further: str) -> None:
    """Raise ConfigError for a backbone's name that is none of `further` and unknown to `build_features`."""
    known = (*BUILT_IN, *further)
    if name not in known and name.count("/") != 1:
        raise ConfigError(
            f"backbone is '{name}', expected one of {', '.join(known)}, or a name on the hub "
            "such as 'microsoft/resnet-50'"
        )


def load_features(features: ResidualFeatures, source: str) -> None:
    """Fill a residual backbone with ImageNet weights in torchvision's naming, less their classifier.

    `source` is a file (safetensors, or a state dict saved by PyTorch, which is read without running anything
    in it) or a repository on the hub with a `model.safetensors` ("timm/resnet50.tv_in1k"). Raises
    CheckpointError where it cannot be read or is another network.
    """
    tensors = read_state(source)
    wanted = features.state_dict()
    for name, tensor in wanted.items():
        found = tensors.get(name)
        if found is None and name.endswith("num_batches_tracked"):
            continue
        if found is None or found.shape != tensor.shape:
            shape = "no such tensor" if found is None else f"shape {tuple(found.shape)}"
            raise CheckpointError(
                f"{source}: weights of another backbone, {name}: {shape}, expected {tuple(tensor.shape)}"
            )
        with torch.no_grad():
            tensor.copy_(found)
