import pytest
import torch
from torch import nn
from torch.nn import functional as F

from handgraph.networks.hourglass import ConvNorm, Hourglass, Residual, Stem, folded


def parameters(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def test_a_residual_adds_its_bottleneck_to_its_input() -> None:
    torch.manual_seed(0)
    block, x = Residual(8, 8).eval(), torch.randn(2, 8, 6, 6)
    y = F.relu(F.conv2d(x, block.reduce.conv.weight) / (1 + 1e-5) ** 0.5)
    y = F.relu(F.conv2d(y, block.spatial.conv.weight, padding=1) / (1 + 1e-5) ** 0.5)
    y = F.conv2d(y, block.expand.conv.weight) / (1 + 1e-5) ** 0.5
    assert torch.allclose(block(x), F.relu(x + y), atol=1e-6)


def test_a_residual_has_a_shortcut_only_where_the_widths_differ() -> None:
    assert parameters(Residual(64, 64)) == 13_568
    assert parameters(Residual(64, 128)) == 58_112
    assert isinstance(Residual(64, 64).shortcut, nn.Identity)


def test_the_stem_quarters_the_image() -> None:
    stem = Stem(1, 32)
    assert stem(torch.randn(2, 1, 64, 96)).shape == (2, 32, 16, 24)
    assert parameters(Stem(1, 128)) == 88_032


@pytest.mark.parametrize("depth", [1, 2, 3])
def test_an_hourglass_is_three_residuals_a_level_and_keeps_the_size(depth: int) -> None:
    hourglass = Hourglass(16, depth)
    assert parameters(hourglass) == 3 * depth * parameters(Residual(16, 16))
    assert hourglass(torch.randn(1, 16, 24, 16)).shape == (1, 16, 24, 16)


def test_every_pixel_of_an_hourglass_sees_the_whole_map() -> None:
    torch.manual_seed(0)
    x = torch.randn(2, 8, 24, 24, requires_grad=True)
    Hourglass(8, 3).eval()(x)[0, :, 0, 0].sum().backward()
    assert x.grad is not None
    assert x.grad[0, :, 16:, 16:].abs().sum() > 0
    assert x.grad[1].abs().sum() == 0


def test_folding_leaves_the_answer_and_the_original_as_they_were() -> None:
    torch.manual_seed(0)
    network = nn.Sequential(Stem(1, 16), Hourglass(16, 2))
    x = torch.randn(4, 1, 32, 32)
    for _ in range(3):  # statistics other than the initial ones
        network(x)
    light = folded(network)
    assert network.training
    network.eval()
    assert torch.allclose(light(x), network(x), atol=1e-4, rtol=1e-4)
    assert not any(isinstance(module, nn.BatchNorm2d) for module in light.modules())
    assert all(
        isinstance(module.norm, nn.BatchNorm2d)
        for module in network.modules()
        if isinstance(module, ConvNorm)
    )
