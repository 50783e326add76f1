"""Backbones that classify: small residual networks of our own, others by name, and VGG-19's weights.

Nothing here is fetched unless a caller names what to fetch.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import cast

import torch
from jaxtyping import Float
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from handgraph.errors import CheckpointError, MissingExtraError
from handgraph.networks.batch_norm import BatchNorm2d

# torchvision's (and timm's) index of each convolution of VGG-19 up to conv4_4 in `features`.
VGG19_LAYERS = (0, 2, 5, 7, 10, 12, 14, 16, 19, 21, 23, 25)


class BasicBlock(nn.Module):
    """Two 3×3 convolutions with norm, added to the input (He et al. 2016, Fig. 5, left)."""

    def __init__(self, inputs: int, outputs: int, stride: int = 1) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False)
        self.norm1 = BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        self.norm2 = BatchNorm2d(outputs)
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or inputs != outputs:
            self.shortcut = nn.Sequential(
                nn.Conv2d(inputs, outputs, 1, stride, bias=False), BatchNorm2d(outputs)
            )

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b d h2 w2"]:
        y = self.norm1(self.conv1(x)).relu_()
        return (self.norm2(self.conv2(y)) + self.shortcut(x)).relu_()


class ResNet(nn.Module):
    """Residual network of basic blocks: image → `outputs` numbers. Its defaults are ResNet-18.

    `width` channels come out of the stem, and each of the four groups of `blocks` doubles them. `small`
    leaves out the max-pool after the stem, for crops of 128 pixels and less.
    """

    def __init__(
        self,
        outputs: int,
        *,
        width: int = 64,
        blocks: tuple[int, ...] = (2, 2, 2, 2),
        small: bool = False,
    ) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            nn.Conv2d(3, width, 7, stride=2, padding=3, bias=False), BatchNorm2d(width), nn.ReLU(inplace=True)
        )
        if not small:
            self.stem.append(nn.MaxPool2d(3, stride=2, padding=1))
        groups: list[nn.Module] = []
        inputs = width
        for group, count in enumerate(blocks):
            channels = width * 2**group
            for block in range(count):
                groups.append(BasicBlock(inputs, channels, stride=2 if group and not block else 1))
                inputs = channels
        self.groups = nn.Sequential(*groups)
        self.head = nn.Linear(inputs, outputs)

    def forward(self, image: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b n"]:
        return cast(Tensor, self.head(self.groups(self.stem(image)).mean(dim=(-2, -1))))


class NamedBackbone(nn.Module):
    """Any backbone of `transformers` by its name on the hub, pooled, with a linear layer: image → `outputs`.

    `weights` False builds the architecture and leaves it untrained; its description is fetched all the same.
    Raises MissingExtraError without transformers, CheckpointError where the name cannot be had.
    """

    def __init__(self, name: str, outputs: int, *, weights: bool = True) -> None:
        super().__init__()
        try:
            from transformers import AutoBackbone, AutoConfig
        except ImportError:
            raise MissingExtraError(
                f"backbone '{name}' needs transformers: pip install transformers, or choose a built-in one"
            ) from None
        try:
            if weights:
                self.backbone = AutoBackbone.from_pretrained(name)
            else:
                self.backbone = AutoBackbone.from_config(AutoConfig.from_pretrained(name))
        except (OSError, ValueError) as error:
            raise CheckpointError(f"backbone '{name}': {' '.join(str(error).split())}") from None
        self.head = nn.Linear(self.backbone.channels[-1], outputs)

    def forward(self, image: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b n"]:
        features = self.backbone(image).feature_maps[-1]
        return cast(Tensor, self.head(features.mean(dim=(-2, -1))))


def load_vgg19(trunk: nn.Sequential, source: str) -> None:
    """Fill the VGG-19 trunk of a pose machine with ImageNet weights.

    `source` is a file in torchvision's naming (`features.0.weight` …), safetensors or a state dict saved by
    PyTorch, which is read without running anything in it; or a repository on the Hugging Face hub that holds
    such a `model.safetensors`, as "timm/vgg19.tv_in1k" does. Raises CheckpointError where it cannot be read
    or is no VGG-19, MissingExtraError for a hub name without huggingface_hub.
    """
    tensors = _read_state(source)
    convolutions = [module for module in trunk.modules() if isinstance(module, nn.Conv2d)]
    with torch.no_grad():
        for layer, convolution in zip(VGG19_LAYERS, convolutions, strict=True):
            for part in ("weight", "bias"):
                name, wanted = f"features.{layer}.{part}", getattr(convolution, part)
                found = tensors.get(name)
                if found is None or found.shape != wanted.shape:
                    shape = "no such tensor" if found is None else f"shape {tuple(found.shape)}"
                    raise CheckpointError(
                        f"{source}: not VGG-19's weights, {name}: {shape}, expected {tuple(wanted.shape)}"
                    )
                wanted.copy_(found)


def _read_state(source: str) -> Mapping[str, Tensor]:
    file = Path(source)
    if not file.is_file():
        if file.suffix in (".safetensors", ".pth", ".pt", ".bin") or source.count("/") != 1:
            raise CheckpointError(f"{source}: no such weights file")
        file = _from_hub(source)
    try:
        if file.suffix == ".safetensors":
            return load_file(file)
        state = torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged file fails inside the unpickler in any way it likes
        if isinstance(error, SafetensorError):
            raise CheckpointError(f"{source}: not a whole safetensors file ({error})") from None
        reason = str(error).split("\n")[0]
        raise CheckpointError(f"{source}: not a state dict of plain tensors ({reason})") from None
    if not isinstance(state, Mapping) or not all(isinstance(value, Tensor) for value in state.values()):
        raise CheckpointError(f"{source}: expected a state dict of tensors, found {type(state).__name__}")
    return state


def _from_hub(name: str) -> Path:
    try:
        from huggingface_hub import hf_hub_download
    except ImportError:
        raise MissingExtraError(
            f"'{name}' is no file, and a name on the hub needs huggingface_hub: pip install huggingface_hub"
        ) from None
    try:
        return Path(hf_hub_download(name, "model.safetensors"))
    except Exception as error:  # the hub's own errors and those of the network below it
        raise CheckpointError(
            f"'{name}' cannot be fetched from the hub ({str(error).split(chr(10))[0]})"
        ) from None
