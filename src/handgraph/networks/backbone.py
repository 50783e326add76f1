"""Weights that others trained: read from a file without running anything in it, or from the hub by name.

Nothing is fetched unless a caller names what to fetch.
"""

from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from handgraph.errors import CheckpointError, MissingExtraError

# torchvision's (and timm's) index of each convolution of VGG-19 up to conv4_4 in `features`.
VGG19_LAYERS = (0, 2, 5, 7, 10, 12, 14, 16, 19, 21, 23, 25)


def load_vgg19(trunk: nn.Sequential, source: str) -> None:
    """Fill the VGG-19 trunk of a pose machine with ImageNet weights.

    `source` is a file in torchvision's naming (`features.0.weight` …), safetensors or a state dict saved by
    PyTorch, which is read without running anything in it; or a repository on the Hugging Face hub that holds
    such a `model.safetensors`, as "timm/vgg19.tv_in1k" does. Raises CheckpointError where it cannot be read
    or is no VGG-19, MissingExtraError for a hub name without huggingface_hub.
    """
    tensors = read_state(source)
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


def load_part(module: nn.Module, source: str, prefix: str, *, made_by: str = "") -> None:
    """Fill `module` with those tensors of a checkpoint whose names start with `prefix`, all of them.

    So a trained `cpm` or `hourglass`, whose network is at "network.", becomes a part of another system.
    `source` is a file, with or without its ending, or the name of a system whose weights are shipped;
    `made_by` is a command that makes such a file. Raises CheckpointError where the file cannot be read or the
    part is of another architecture.
    """
    shipped = Path(__file__).parents[1] / "weights" / f"{source}.safetensors"
    if Path(source).is_file():
        file = source
    else:
        file = str(shipped) if source.isidentifier() and shipped.is_file() else f"{source}.safetensors"
        if made_by and not Path(file).is_file():
            raise CheckpointError(f"{source}: no such weights file; train it first: {made_by}")
    tensors = read_state(file)
    part = {name[len(prefix) :]: tensor for name, tensor in tensors.items() if name.startswith(prefix)}
    wanted = module.state_dict()
    for name, tensor in wanted.items():
        if name not in part or part[name].shape != tensor.shape:
            found = tuple(part[name].shape) if name in part else "no such tensor"
            raise CheckpointError(
                f"{source}: weights of another architecture, {prefix}{name}: {found}, "
                f"expected {tuple(tensor.shape)}"
            )
    unknown = sorted(set(part) - set(wanted))
    if unknown:
        raise CheckpointError(
            f"{source}: weights of another architecture, {prefix}{unknown[0]} has no place here"
        )
    module.load_state_dict(part)


def read_state(source: str) -> Mapping[str, Tensor]:
    """The tensors of a weights file, or of a hub repository's `model.safetensors`.

    A file is safetensors, or a state dict saved by PyTorch. Raises CheckpointError, MissingExtraError.
    """
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
