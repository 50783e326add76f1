"""Edge-aware graph convolution over maps: every directed edge has its own 2D kernel.

SIA-GCN, Kong, Ma and Xie, "SIA-GCN: A Spatial Information Aware Graph Neural Network with 2D Convolutions for
Hand Pose Estimation", BMVC 2020. Equation and algorithm numbers are the paper's.

A node's feature is a map, (h, w). An edge from j to i convolves j's map with the edge's kernel; a node takes
the mean of what comes in. As in every network layer called a convolution, kernels are not turned: the weights
are those of PyTorch's `conv2d`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from handgraph.errors import ConfigError
from handgraph.graph.spatial_convolution import (
    Method,
    SameConvolution,
    check_kernel_size,
    direct_same,
    exporting,
    product,
    summed_to,
)


def broadcast_and_aggregation(
    adjacency: Float[Tensor, "n n"],
) -> tuple[Float[Tensor, "e n"], Float[Tensor, "n e"]]:
    """B and Â of Algorithm 1, from an adjacency with its self loops: 1 at (j, i) where an edge leads j → i.

    Edges are ordered by the node they end in, then by the node they come from. B copies each node's map to
    the edges that leave it; Â takes at each node the mean over the edges that end there.
    """
    edges = Edges.of(adjacency)
    broadcast = torch.zeros(len(edges.sources), edges.nodes, dtype=adjacency.dtype)
    broadcast[torch.arange(len(edges.sources)), torch.tensor(edges.sources)] = 1
    aggregation = torch.zeros(edges.nodes, len(edges.sources), dtype=adjacency.dtype)
    aggregation[torch.tensor(edges.targets), torch.arange(len(edges.sources))] = 1
    return broadcast, aggregation / aggregation.sum(1, keepdim=True).clamp_min(1)


@dataclass(frozen=True)
class Edges:
    """The directed edges of a graph in Algorithm 1's order, without the matrices."""

    nodes: int
    sources: tuple[int, ...]
    targets: tuple[int, ...]

    @classmethod
    def of(cls, adjacency: Float[Tensor, "n m"]) -> "Edges":
        """Raises `ConfigError` where the matrix is not square or a node has no self loop."""
        if adjacency.ndim != 2 or adjacency.shape[0] != adjacency.shape[1]:
            raise ConfigError(f"the adjacency is {tuple(adjacency.shape)}, expected a square matrix")
        if not bool((adjacency.diagonal() != 0).all()):
            raise ConfigError("the adjacency has no self loops, expected ones on its diagonal (Algorithm 1)")
        targets, sources = (adjacency.T != 0).nonzero(as_tuple=True)
        return cls(len(adjacency), tuple(sources.tolist()), tuple(targets.tolist()))

    @cached_property
    def degrees(self) -> tuple[int, ...]:
        """How many edges end in each node."""
        return tuple(self.targets.count(node) for node in range(self.nodes))

    @cached_property
    def rounds(self) -> tuple[tuple[int, ...], ...]:
        """The edges in groups within which no two end in the same node; self loops come first.

        So a group's products are added to distinct nodes, and the first group needs no reordering at all.
        """
        waiting: dict[int, list[int]] = {node: [] for node in range(self.nodes)}
        for edge, (source, target) in enumerate(zip(self.sources, self.targets, strict=True)):
            waiting[target].insert(0 if source == target else len(waiting[target]), edge)
        return tuple(
            tuple(edges[turn] for edges in waiting.values() if len(edges) > turn)
            for turn in range(max(self.degrees))
        )


def edge_convolution(
    maps: Float[Tensor, "*b n h w"],
    kernels: Float[Tensor, "*k e s s"],
    edges: Edges,
    method: Method = "fft",
) -> Float[Tensor, "*o n h w"]:
    """Â((B X) ⊗ F), Eq. 2 before its σ. Leading dimensions (batch, heads) broadcast; float32 or float64 out.

    `kernels` are in Algorithm 1's order and odd in size. Methods agree to rounding. With 'fft', what comes
    into a node is added up in the frequency domain and transformed back once.
    """
    if method == "direct":
        scale = 1 / torch.tensor(edges.degrees, dtype=kernels.dtype, device=kernels.device)
        arriving = direct_same(maps[..., list(edges.sources), :, :], kernels.flip(-2, -1))
        total = arriving.new_zeros(*arriving.shape[:-3], edges.nodes, *arriving.shape[-2:])
        total = total.index_add(-3, torch.tensor(edges.targets, device=maps.device), arriving)
        return total * scale[:, None, None]
    convolution = _convolution(maps, kernels.shape[-1])
    return _through_spectra(maps, edge_spectra(kernels, edges, convolution), edges, convolution)


def edge_spectra(kernels: Float[Tensor, "*k e s s"], edges: Edges, convolution: SameConvolution) -> Tensor:
    """The kernels' spectra with Â's weights in them, the edges in the order of `edges.rounds`."""
    order = torch.tensor([edge for group in edges.rounds for edge in group], device=kernels.device)
    degrees = torch.tensor([edges.degrees[target] for target in edges.targets], device=kernels.device)
    kernels = kernels.to(_working_type(kernels.dtype))
    scale = 1 / degrees[order, None, None].to(kernels.dtype)
    if convolution.matrices:
        return convolution.kernel_spectrum(kernels.index_select(-3, order).flip(-2, -1) * scale)
    spectra: Tensor = _EdgeSpectra.apply(kernels, order, scale, convolution)
    return spectra


class _EdgeSpectra(torch.autograd.Function):
    """Spectra of kernels reordered, turned and scaled.

    Written by hand because PyTorch takes longer to bring gradients back into their order than to transform.
    """

    @staticmethod
    def forward(
        ctx: Any,
        kernels: Float[Tensor, "*k e s s"],
        order: Int[Tensor, " e"],
        scale: Float[Tensor, "e 1 1"],
        convolution: SameConvolution,
    ) -> Tensor:
        ctx.save_for_backward(order, scale)
        ctx.convolution = convolution
        return convolution.kernel_spectrum(kernels.index_select(-3, order).flip(-2, -1).mul_(scale))

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        order, scale = ctx.saved_tensors
        to_kernels = (ctx.convolution.gradient_kernels(gradient) * scale).flip(-2, -1)
        return to_kernels.index_select(-3, order.argsort()), None, None, None


def _convolution(maps: Tensor, kernel_size: int) -> SameConvolution:
    return SameConvolution(maps.shape[-2], maps.shape[-1], kernel_size, matrices=exporting())


def _working_type(dtype: torch.dtype) -> torch.dtype:
    """Half precision has too few digits for sums over two thousand cells."""
    return torch.float64 if dtype == torch.float64 else torch.float32


def _through_spectra(
    maps: Float[Tensor, "*b n h w"], spectra: Tensor, edges: Edges, convolution: SameConvolution
) -> Float[Tensor, "*o n h w"]:
    with torch.autocast(maps.device.type, enabled=False):
        x = convolution.spectrum(maps.to(_working_type(maps.dtype)))
        if convolution.matrices:
            arrived = _arrived_real(x, spectra, edges)
        else:
            groups = tuple(
                (_index(edges.sources, group, x), _index(edges.targets, group, x)) for group in edges.rounds
            )
            arrived = _Arrived.apply(x, spectra, groups)
        return convolution.maps_from(arrived)


def _index(nodes: Sequence[int], group: Sequence[int], like: Tensor) -> Int[Tensor, " e"]:
    return torch.tensor([nodes[edge] for edge in group], device=like.device)


def _arrived_real(x: Tensor, spectra: Tensor, edges: Edges) -> Tensor:
    """`_Arrived` for spectra in real and imaginary parts, in operations that exporters know."""
    sources = torch.tensor([edges.sources[edge] for group in edges.rounds for edge in group], device=x.device)
    targets = [edges.targets[edge] for group in edges.rounds for edge in group]
    collect = torch.zeros(edges.nodes, len(targets), dtype=x.dtype, device=x.device)
    collect[targets, list(range(len(targets)))] = 1
    leaving = product(x.index_select(-4, sources), spectra)
    return (collect @ leaving.flatten(-3)).unflatten(-1, x.shape[-3:])


class _Arrived(torch.autograd.Function):
    """At each node the sum over its incoming edges of source's spectrum times edge's spectrum.

    Written by hand because PyTorch would keep the sources' spectra once more for every edge.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, spectra: Tensor, groups: tuple[tuple[Tensor, Tensor], ...]) -> Tensor:
        ctx.save_for_backward(x, spectra)
        ctx.groups = groups
        kernels = spectra.split([len(targets) for _, targets in groups], dim=-3)
        # Every node has a self loop, and these are the first group: each node's own map, in order.
        total = x * kernels[0]
        for (sources, targets), along in zip(groups[1:], kernels[1:], strict=True):
            arriving = x.index_select(-3, sources) * along
            if len(targets) == x.shape[-3]:
                total += arriving  # as many as there are nodes, so one for each in order
            else:
                total.index_add_(-3, targets, arriving)
        return total

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        x, spectra = ctx.saved_tensors
        lengths = [len(targets) for _, targets in ctx.groups]
        # The gradient at each edge's end.
        ends = [
            gradient if len(targets) == x.shape[-3] else gradient.index_select(-3, targets)
            for _, targets in ctx.groups
        ]
        to_x = to_spectra = None
        if ctx.needs_input_grad[0]:
            kernels = spectra.split(lengths, dim=-3)
            to_x = gradient * kernels[0].conj()
            for (sources, _), end, along in zip(ctx.groups[1:], ends[1:], kernels[1:], strict=True):
                to_x.index_add_(-3, sources, end * along.conj())
            to_x = summed_to(to_x, x.shape)
        if ctx.needs_input_grad[1]:
            conjugate = x.conj().resolve_conj()
            to_spectra = torch.empty_like(spectra)
            parts = to_spectra.split(lengths, dim=-3)
            for group, ((sources, _), end, part) in enumerate(zip(ctx.groups, ends, parts, strict=True)):
                start = conjugate if group == 0 else conjugate.index_select(-3, sources)
                part.copy_(summed_to(start * end, part.shape))
        return to_x, to_spectra, None


class EdgeConvolution(nn.Module):
    """One layer of Eq. 2 without its σ: a kernel for each directed edge, no bias.

    The 21-joint hand tree with self loops has 61 edges: with kernels of 45 × 45, 123,525 weights. With
    `heads`, maps are (b, heads or 1, n, h, w) and every head has kernels of its own.
    """

    def __init__(
        self,
        adjacency: Float[Tensor, "n n"],
        kernel: int,
        method: Method = "fft",
        *,
        heads: int | None = None,
        shared: bool = False,
    ) -> None:
        """`adjacency` with self loops; `shared`: one kernel for all edges (the paper's ablation).

        Raises `ConfigError` for an even kernel or an adjacency without self loops.
        """
        super().__init__()
        check_kernel_size(kernel)
        self.edges = Edges.of(adjacency)
        self.method: Method = method
        kernels = 1 if shared else len(self.edges.sources)
        lead = () if heads is None else (heads,)
        self.weight = nn.Parameter(torch.empty(*lead, kernels, kernel, kernel))
        self._kept: tuple[object, Tensor] | None = None
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """As `conv2d`'s channel-wise kernels start: uniform within 1 / √(k²)."""
        bound = 1 / self.weight.shape[-1]
        nn.init.uniform_(self.weight, -bound, bound)

    def extra_repr(self) -> str:
        return f"edges={len(self.edges.sources)}, kernel={self.weight.shape[-1]}, method={self.method}"

    def train(self, mode: bool = True) -> "EdgeConvolution":
        self._kept = None
        return super().train(mode)

    def forward(self, maps: Float[Tensor, "*b n h w"]) -> Float[Tensor, "*o n h w"]:
        if self.method == "direct":
            return edge_convolution(maps, self._kernels(), self.edges, "direct")
        convolution = _convolution(maps, self.weight.shape[-1])
        return _through_spectra(maps, self._spectra(convolution), self.edges, convolution)

    def _kernels(self) -> Float[Tensor, "*k e s s"]:
        return self.weight.expand(*self.weight.shape[:-3], len(self.edges.sources), -1, -1)

    def _spectra(self, convolution: SameConvolution) -> Tensor:
        """The kernels' spectra; in evaluation without gradients they are worked out once and kept."""
        if self.training or torch.is_grad_enabled() or exporting():
            return edge_spectra(self._kernels(), self.edges, convolution)
        # A weight written to or moved has another version or another address.
        state = (convolution, self.weight._version, self.weight.data_ptr(), self.weight.dtype)
        if self._kept is None or self._kept[0] != state:
            self._kept = (state, edge_spectra(self._kernels(), self.edges, convolution))
        return self._kept[1]
