from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn
from torch.nn import functional as F

from handgraph.errors import CheckpointError, ConfigError, MissingExtraError
from handgraph.networks.backbone import VGG19_LAYERS, load_vgg19
from handgraph.networks.cpm import Features, PoseMachine, PoseMachineShape, Three3x3


def parameters(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def test_the_paper_sized_machine_has_the_published_number_of_parameters() -> None:
    with torch.device("meta"):
        assert parameters(PoseMachine(21)) == 29_099_710
        # Each 7×7 block of 128 channels instead of three 3×3 and their fusion.
        seven = 128 * 128 * 49 + 128
        three = 3 * (128 * 128 * 9 + 128) + 384 * 128 + 128
        first = (149 * 128 * 49 + 128) - (149 * 128 * 9 + 128 + three - (128 * 128 * 9 + 128))
        assert parameters(PoseMachine(21, kernel=7)) == 29_099_710 + 5 * (4 * (seven - three) + first)


@pytest.mark.parametrize(("stride", "cells"), [(8, 8), (4, 16)])
def test_every_stage_has_maps_of_the_image_over_the_stride(stride: int, cells: int) -> None:
    machine = PoseMachine(5, 3, width=8, stride=stride, norm=True)
    assert [maps.shape for maps in machine(torch.randn(2, 3, 64, 64))] == [(2, 5, cells, cells)] * 3


def test_a_block_fuses_what_three_convolutions_in_a_row_give() -> None:
    torch.manual_seed(0)
    block, x = Three3x3(4, 6), torch.randn(2, 4, 9, 9)
    parts = [block.first, block.second, block.third]
    outputs, y = [], x
    for part in parts:
        y = F.conv2d(y, part.conv.weight, part.conv.bias, padding=1)
        outputs.append(y)
    fused = F.relu(F.conv2d(torch.cat(outputs, 1), block.fuse.conv.weight, block.fuse.conv.bias))
    assert torch.allclose(block(x), fused, atol=1e-6)
    # It sees seven pixels a side, as the 7×7 does whose place it takes.
    x = torch.zeros(1, 4, 15, 15, requires_grad=True)
    nn.init.constant_(block.fuse.conv.bias, 100.0)  # so that no ReLU is closed
    block(x)[0, :, 7, 7].sum().backward()
    seen = x.grad.abs().sum(dim=(0, 1)) > 0
    assert seen[4:11, 4:11].all()
    assert seen.sum() == 49


def test_a_later_stage_sees_the_maps_before_it() -> None:
    torch.manual_seed(0)
    machine, image = PoseMachine(5, 2, width=8), torch.randn(1, 3, 32, 32)
    before = machine(image)
    with torch.no_grad():
        machine.stages[0][-1].bias += 1
    after = machine(image)
    assert torch.allclose(after[0], before[0] + 1, atol=1e-5)
    assert not torch.allclose(after[1], before[1], atol=1e-5)


def test_the_signal_survives_a_trunk_without_normalisation() -> None:
    torch.manual_seed(0)
    with torch.no_grad():
        assert 0.05 < Features(16)(torch.randn(1, 3, 64, 64)).std() < 20


def vgg19_state() -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    convolutions = [module for module in Features().trunk.modules() if isinstance(module, nn.Conv2d)]
    state = {
        f"features.{layer}.{part}": torch.randn_like(getattr(convolution, part))
        for layer, convolution in zip(VGG19_LAYERS, convolutions, strict=True)
        for part in ("weight", "bias")
    }
    return state | {"features.28.weight": torch.zeros(2), "classifier.0.bias": torch.zeros(2)}


@pytest.mark.parametrize("suffix", ["safetensors", "pth"])
def test_imagenet_weights_fill_the_trunk_layer_by_layer(tmp_path: Path, suffix: str) -> None:
    state, file = vgg19_state(), tmp_path / f"vgg19.{suffix}"
    if suffix == "pth":
        torch.save(state, file)
    else:
        save_file(state, file)
    trunk, x = Features().trunk, torch.randn(1, 3, 32, 32)
    load_vgg19(trunk, str(file))
    # VGG-19's own layer list as torchvision numbers it: conv and ReLU take a number each, a pool one.
    expected, layer = x, 0
    for convolutions in (2, 2, 4, 4):
        for _ in range(convolutions):
            weight, bias = state[f"features.{layer}.weight"], state[f"features.{layer}.bias"]
            expected = F.relu(F.conv2d(expected, weight, bias, padding=1))
            expected, layer = expected / expected.std(), layer + 2
        if convolutions != 4 or layer < 20:
            expected, layer = F.max_pool2d(expected, 2), layer + 1
    y = x
    for module in trunk:
        y = module(y)
        y = y if isinstance(module, nn.MaxPool2d) else y / y.std()
    assert torch.allclose(y, expected, rtol=1e-3, atol=1e-3)


def test_other_weights_are_refused_by_name(tmp_path: Path) -> None:
    trunk = Features().trunk
    state = vgg19_state()
    del state["features.7.bias"]
    save_file(state, tmp_path / "resnet.safetensors")
    with pytest.raises(CheckpointError, match=r"resnet.*: not VGG-19's.*features\.7\.bias: no such"):
        load_vgg19(trunk, str(tmp_path / "resnet.safetensors"))
    (tmp_path / "cut.safetensors").write_bytes(b"12345")
    with pytest.raises(CheckpointError, match=r"cut\.safetensors: not a whole safetensors file"):
        load_vgg19(trunk, str(tmp_path / "cut.safetensors"))
    torch.save(Evil(), tmp_path / "evil.pth")
    with pytest.raises(CheckpointError, match=r"evil\.pth: not a state dict of plain tensors"):
        load_vgg19(trunk, str(tmp_path / "evil.pth"))
    assert not Evil.ran
    with pytest.raises(CheckpointError, match="no such weights file"):
        load_vgg19(trunk, str(tmp_path / "nowhere.pth"))


class Evil:
    """A pickle that would run code."""

    ran = False

    @staticmethod
    def run() -> "Evil":
        Evil.ran = True
        return Evil()

    def __reduce__(self) -> tuple[object, tuple[()]]:
        return Evil.run, ()


def test_a_name_on_the_hub_needs_the_hubs_client() -> None:
    try:
        import huggingface_hub  # noqa: F401
    except ImportError:
        with pytest.raises(MissingExtraError, match="huggingface_hub"):
            load_vgg19(Features().trunk, "timm/vgg19.tv_in1k")


def test_impossible_shapes_are_refused() -> None:
    for wrong, message in (
        ({"stages": 0}, "stages is 0"),
        ({"width": 20}, "width is 20, expected a multiple of 8"),
    ):
        with pytest.raises(ConfigError, match=message):
            PoseMachineShape(**wrong)
    with pytest.raises(ConfigError, match="input_size is 100, expected a multiple of stride 8"):
        PoseMachineShape().check_input(100)
