import pytest
import torch
from torch import Tensor, nn

from handgraph.networks.hourglass import folded
from handgraph.networks.resnet10 import ResNet10


def rows() -> list[tuple[str, tuple[int, ...]]]:
    """Shapes after each layer of the paper's network, for an image of 256 × 256."""
    network, seen = ResNet10().eval(), []

    def note(name: str) -> object:
        def hook(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
            seen.append((name, tuple(output.shape[1:])))

        return hook

    for name, module in [
        ("conv", network.stem.conv),
        ("norm", network.stem.norm),
        ("pool", network.pool),
        *((f"block {number}", block) for number, block in enumerate(network.blocks, 1)),
        *((f"shortcut {number}", block.shortcut) for number, block in enumerate(network.blocks, 1)),
        ("head", network.head),
    ]:
        module.register_forward_hook(note(name))
    with torch.no_grad():
        network(torch.zeros(1, 3, 256, 256))
    return seen


def test_each_row_of_table_1_has_its_shape() -> None:
    assert dict(rows()) == {
        "conv": (32, 128, 128),
        "norm": (32, 128, 128),
        "pool": (32, 64, 64),
        "block 1": (32, 64, 64),
        "shortcut 1": (32, 64, 64),
        "block 2": (64, 32, 32),
        "shortcut 2": (64, 32, 32),
        "block 3": (128, 16, 16),
        "shortcut 3": (128, 16, 16),
        "block 4": (256, 8, 8),
        "shortcut 4": (256, 8, 8),
        "head": (21, 8, 8),
    }


def test_parameters_are_those_of_table_1() -> None:
    def convolution(inputs: int, outputs: int, kernel: int) -> int:
        return inputs * outputs * kernel**2 + 2 * outputs  # with its norm's two numbers a channel

    expected = convolution(3, 32, 7) + 2 * convolution(32, 32, 3)
    for inputs, outputs in ((32, 64), (64, 128), (128, 256)):
        expected += convolution(inputs, outputs, 3) + convolution(outputs, outputs, 3)
        expected += convolution(inputs, outputs, 1)  # the rows "Conv2D 1 × 1" and "BN"
    expected += 256 * 21 * 9 + 21
    assert sum(p.numel() for p in ResNet10().parameters()) == expected == 1_278_645


def test_it_has_ten_layers_with_weights_beside_the_shortcuts() -> None:
    shapes = [
        tuple(p.shape) for name, p in ResNet10().named_parameters() if p.ndim == 4 and "short" not in name
    ]
    assert len(shapes) == 10
    assert [shape[2:] for shape in shapes] == [(7, 7), *[(3, 3)] * 9]


def test_convolutions_start_normal_with_sigma_002() -> None:
    torch.manual_seed(0)
    for name, parameter in ResNet10().named_parameters():
        if parameter.ndim == 4 and parameter.numel() > 10_000:
            assert parameter.std().item() == pytest.approx(0.02, rel=0.03), name
            assert abs(parameter.mean().item()) < 1e-3


def test_a_block_is_two_convolutions_beside_its_shortcut() -> None:
    torch.manual_seed(0)
    block, x = ResNet10(width=8).blocks[1].eval(), torch.randn(2, 8, 6, 6)
    inside = nn.functional.conv2d(x, block.first.conv.weight, stride=2, padding=1)
    inside = block.second.norm(
        nn.functional.conv2d(block.first.norm(inside).relu(), block.second.conv.weight, padding=1)
    )
    beside = block.shortcut.norm(nn.functional.conv2d(x, block.shortcut.conv.weight, stride=2))
    assert torch.allclose(block(x), (inside + beside).relu(), atol=1e-6)


def test_width_and_outputs_scale_it() -> None:
    maps = ResNet10(outputs=5, width=8).eval()(torch.zeros(2, 3, 96, 96))
    assert maps.shape == (2, 5, 3, 3)


def test_folding_the_norms_keeps_the_answer() -> None:
    torch.manual_seed(0)
    network = ResNet10(width=8)
    network(torch.randn(4, 3, 64, 64))  # running statistics of its own
    network.eval()
    x = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        assert torch.allclose(folded(network)(x), network(x), atol=1e-6)
