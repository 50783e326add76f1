import pytest
import torch
from torch import nn

from handgraph.errors import ConfigError
from handgraph.networks.hourglass import folded
from handgraph.networks.stacked_hourglass import Block, CompactHourglass, HourglassShape


@pytest.mark.parametrize(
    "shape",
    [
        HourglassShape(stacks=2, width=16, depth=2),
        HourglassShape(stacks=2, width=16, depth=2, form="compact", growth=8),
    ],
)
def test_every_hourglass_gives_maps_and_the_next_one_sees_them(shape: HourglassShape) -> None:
    torch.manual_seed(0)
    network, image = shape.build(5).eval(), torch.randn(2, 3, 64, 64)
    before = network(image)
    assert [maps.shape for maps in before] == [(2, 5, 16, 16)] * 2
    with torch.no_grad():
        network.heads[0].bias += 1
    after = network(image)
    assert torch.allclose(after[0], before[0] + 1, atol=1e-5)
    assert not torch.allclose(after[1], before[1], atol=1e-4)


def test_the_paper_sized_network_maps_256_pixels_to_64_cells_eight_times() -> None:
    with torch.device("meta"):
        network = HourglassShape().build(21)
        assert [maps.shape for maps in network(torch.empty(1, 3, 256, 256))] == [(1, 21, 64, 64)] * 8
        # Newell et al. put four halvings of 256 channels into each hourglass: 64 → 4.
        assert network.hourglasses[0](torch.empty(1, 256, 64, 64)).shape == (1, 256, 64, 64)


def test_compact_maps_widen_by_growth_as_they_shrink() -> None:
    hourglass = CompactHourglass([16, 24, 32])
    seen = []
    for module in hourglass.modules():
        if isinstance(module, Block):
            module.register_forward_hook(lambda _, __, output: seen.append(tuple(output.shape[1:])))
    assert hourglass(torch.randn(1, 16, 16, 16)).shape == (1, 16, 16, 16)
    assert seen == [(24, 8, 8), (32, 4, 4), (32, 4, 4), (24, 8, 8), (16, 16, 16)]


def test_every_cell_sees_the_whole_image() -> None:
    torch.manual_seed(0)
    image = torch.randn(1, 3, 128, 128, requires_grad=True)
    network = HourglassShape(stacks=1, width=16, depth=3, form="compact", growth=8).build(2).eval()
    network(image)[-1][0, 0, 0, 0].backward()
    assert image.grad is not None
    assert image.grad[:, :, 100:, 100:].abs().sum() > 0


def test_folding_leaves_the_answer_as_it_was() -> None:
    torch.manual_seed(0)
    network = HourglassShape(stacks=2, width=16, depth=2, form="compact", growth=8).build(5)
    image = torch.randn(4, 3, 64, 64)
    network(image)
    light = folded(network)
    network.eval()
    for ours, theirs in zip(light(image), network(image), strict=True):
        assert torch.allclose(ours, theirs, atol=1e-4)
    assert not any(isinstance(module, nn.BatchNorm2d) for module in light.modules())


def test_impossible_shapes_are_refused() -> None:
    for wrong, message in (
        ({"stacks": 0}, "stacks is 0"),
        ({"width": 20}, "width is 20, expected a multiple of 8"),
        ({"growth": 8}, "growth is 8, expected 0 .* for form 'paper'"),
        ({"depth": 0}, "depth is 0"),
    ):
        with pytest.raises(ConfigError, match=message):
            HourglassShape(**wrong)
    with pytest.raises(ConfigError, match="input_size is 96, expected a multiple of 64 for 4 halvings"):
        HourglassShape().check_input(96)
