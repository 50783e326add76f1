import re

import pytest
import torch

from handgraph import skeleton
from handgraph.errors import ConfigError
from handgraph.graph import edge_convolution as module
from handgraph.graph.edge_convolution import (
    EdgeConvolution,
    Edges,
    broadcast_and_aggregation,
    edge_convolution,
)

HAND = torch.from_numpy(skeleton.adjacency(21, skeleton.BONES)) + torch.eye(21, dtype=torch.float64)


def some_graph(nodes: int, seed: int) -> torch.Tensor:
    """A directed graph with self loops, each other edge there or not."""
    random = torch.Generator().manual_seed(seed)
    adjacency = (torch.rand(nodes, nodes, generator=random) < 0.4).double()
    return adjacency.fill_diagonal_(1)


def naive(maps: torch.Tensor, kernels: torch.Tensor, adjacency: torch.Tensor) -> torch.Tensor:
    """Eq. 2 before its σ, cell by cell and edge by edge, for one sample."""
    nodes, height, width = maps.shape
    reach = kernels.shape[-1] // 2
    out = torch.zeros_like(maps)
    edge = 0
    for i in range(nodes):
        starts = [j for j in range(nodes) if adjacency[j, i]]
        for j in starts:
            for y in range(height):
                for x in range(width):
                    for dy in range(-reach, reach + 1):
                        for dx in range(-reach, reach + 1):
                            if 0 <= y + dy < height and 0 <= x + dx < width:
                                weight = kernels[edge, dy + reach, dx + reach]
                                out[i, y, x] += maps[j, y + dy, x + dx] * weight / len(starts)
            edge += 1
    return out


def inputs(adjacency: torch.Tensor, size: tuple[int, int], kernel: int) -> tuple[torch.Tensor, torch.Tensor]:
    random = torch.Generator().manual_seed(3)
    edges = int((adjacency != 0).sum())
    maps = torch.randn(2, len(adjacency), *size, generator=random, dtype=torch.float64)
    return maps, torch.randn(edges, kernel, kernel, generator=random, dtype=torch.float64)


@pytest.mark.parametrize("method", ["fft", "direct"])
@pytest.mark.parametrize(("size", "kernel"), [((4, 5), 3), ((5, 3), 5), ((3, 4), 11), ((6, 6), 1)])
def test_edge_convolution_is_equation_2_written_out(method: str, size: tuple[int, int], kernel: int) -> None:
    adjacency = some_graph(4, seed=1)
    maps, kernels = inputs(adjacency, size, kernel)
    out = edge_convolution(maps, kernels, Edges.of(adjacency), method)  # type: ignore[arg-type]
    torch.testing.assert_close(out[0], naive(maps[0], kernels, adjacency))
    torch.testing.assert_close(out[1], naive(maps[1], kernels, adjacency))


def test_matrices_of_algorithm_1_give_the_same_propagation() -> None:
    adjacency = some_graph(5, seed=2)
    broadcast, aggregation = broadcast_and_aggregation(adjacency)
    maps, kernels = inputs(adjacency, (6, 7), 5)
    edges = len(kernels)
    leaving = torch.einsum("en,bnhw->behw", broadcast, maps)
    convolved = torch.nn.functional.conv2d(leaving, kernels[:, None], padding=2, groups=edges)
    expected = torch.einsum("ne,behw->bnhw", aggregation, convolved)
    torch.testing.assert_close(edge_convolution(maps, kernels, Edges.of(adjacency)), expected)


def test_matrices_of_algorithm_1_for_three_nodes() -> None:
    adjacency = torch.tensor([[1.0, 1.0, 0.0], [0.0, 1.0, 0.0], [1.0, 1.0, 1.0]])  # 0 → 1, 2 → 0, 2 → 1
    broadcast, aggregation = broadcast_and_aggregation(adjacency)
    # Ordered by end node: 0 → 0, 2 → 0 | 0 → 1, 1 → 1, 2 → 1 | 2 → 2.
    assert broadcast.argmax(1).tolist() == [0, 2, 0, 1, 2, 2]
    third = 1 / 3
    expected = torch.tensor(
        [[0.5, 0.5, 0, 0, 0, 0], [0, 0, third, third, third, 0], [0, 0, 0, 0, 0, 1]],
    )
    torch.testing.assert_close(aggregation, expected)


def test_the_hand_has_61_edges_and_five_layers_have_the_published_weights() -> None:
    layers = [EdgeConvolution(HAND, 45) for _ in range(5)]
    assert len(layers[0].edges.sources) == 61
    assert sum(p.numel() for layer in layers for p in layer.parameters()) == 617_625


@pytest.mark.parametrize("matrices", [False, True])
def test_fft_and_direct_agree_in_float32_with_their_gradients(
    matrices: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "exporting", lambda: matrices)
    torch.manual_seed(0)
    maps = torch.rand(2, 21, 20, 18)
    results = []
    for method in ("fft", "direct"):
        torch.manual_seed(1)
        layer = EdgeConvolution(HAND, 15, method)  # type: ignore[arg-type]
        x = maps.clone().requires_grad_()
        y = layer(x)
        y.backward(torch.rand(y.shape, generator=torch.Generator().manual_seed(2)))
        results.append((y.detach(), x.grad, layer.weight.grad))
    for ours, reference in zip(*results, strict=True):
        assert ours is not None
        assert reference is not None
        assert (ours - reference).abs().max() < 1e-5 * reference.abs().max()


def test_gradients_against_finite_differences() -> None:
    adjacency = some_graph(3, seed=5)
    maps, kernels = inputs(adjacency, (5, 4), 3)
    edges = Edges.of(adjacency)
    torch.autograd.gradcheck(
        lambda x, k: edge_convolution(x, k, edges), (maps.requires_grad_(), kernels.requires_grad_())
    )


def test_heads_are_layers_side_by_side() -> None:
    torch.manual_seed(0)
    many = EdgeConvolution(HAND, 7, heads=3)
    maps = torch.rand(2, 1, 21, 9, 9)
    out = many(maps)
    assert out.shape == (2, 3, 21, 9, 9)
    for head in range(3):
        one = EdgeConvolution(HAND, 7)
        one.load_state_dict({"weight": many.weight[head]})
        torch.testing.assert_close(out[:, head], one(maps[:, 0]))


def test_one_kernel_shared_by_all_edges_is_convolution_of_the_neighbours_mean() -> None:
    layer = EdgeConvolution(HAND, 5, shared=True).double()
    assert layer.weight.shape == (1, 5, 5)
    maps = torch.rand(1, 21, 8, 8, dtype=torch.float64)
    mean = torch.einsum("ij,bjhw->bihw", HAND / HAND.sum(1, keepdim=True), maps)
    expected = torch.nn.functional.conv2d(mean.flatten(0, 1)[:, None], layer.weight[None], padding=2)
    torch.testing.assert_close(layer(maps), expected.unflatten(0, (1, 21))[:, :, 0])


@pytest.mark.parametrize("change", ["optimiser", "load", "cast"])
def test_spectra_kept_in_evaluation_follow_the_weights(change: str) -> None:
    layer = EdgeConvolution(HAND, 5).eval()
    maps = torch.rand(1, 21, 8, 8)
    with torch.no_grad():
        before = layer(maps)
        assert torch.equal(layer(maps), before)
        if change == "optimiser":
            layer.weight.grad = torch.ones_like(layer.weight)
            torch.optim.SGD(layer.parameters(), lr=0.1).step()
        elif change == "load":
            layer.load_state_dict({"weight": torch.rand_like(layer.weight)})
        else:
            layer.double()
            maps = maps.double()
        expected = edge_convolution(maps, layer.weight, layer.edges, "direct")
        torch.testing.assert_close(layer(maps), expected, rtol=1e-4, atol=1e-6)


def test_half_precision_maps_are_worked_on_in_float32() -> None:
    layer = EdgeConvolution(HAND, 5)
    maps = torch.rand(1, 21, 8, 8)
    with torch.autocast("cpu", torch.bfloat16):
        out = layer(maps.bfloat16())
    assert out.dtype == torch.float32
    torch.testing.assert_close(out, layer(maps.bfloat16().float()))


def test_export_answers_alike() -> None:
    layer = EdgeConvolution(HAND, 9).eval()
    maps = torch.rand(2, 21, 12, 12)
    program = torch.export.export(layer, (maps,)).module()
    torch.testing.assert_close(program(maps), layer(maps), rtol=1e-4, atol=1e-6)


def test_bad_input_is_named() -> None:
    with pytest.raises(ConfigError, match="kernel_size is 4, expected an odd number"):
        EdgeConvolution(HAND, 4)
    with pytest.raises(ConfigError, match="no self loops"):
        EdgeConvolution(HAND - torch.eye(21), 5)
    with pytest.raises(ConfigError, match=re.escape("the adjacency is (2, 3), expected a square matrix")):
        Edges.of(torch.ones(2, 3))
