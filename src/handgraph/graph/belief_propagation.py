"""Sum-product belief propagation on a tree whose nodes are places on a map: exact marginals by convolution.

Kong et al.: AGMN (BMVC 2019) and R-MGMN (WACV 2020), chapters 4 and 3 of Kong's dissertation, whose equation
numbers these are. A pairwise potential depends on the difference of two positions alone (Eq. 3.19), so a
message is a convolution of the sender's belief with the edge's kernel (Eq. 3.20, 4.11).

Messages of one level of the tree do not wait for each other: they are sent together, from the leaves to the
root and back (4 + 4 steps for the hand, where one at a time takes 40). Products of messages are sums of
logarithms, so no number of neighbours underflows.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from jaxtyping import Float
from torch import Tensor, nn

from handgraph.errors import ConfigError
from handgraph.graph.spatial_convolution import (
    Method,
    Room,
    SameConvolution,
    check_kernel_size,
    direct_same,
    exporting,
    product,
)

MESSAGE_CONSTANT = 4e-10
"""Added to every cell of every message, as in the authors' code: no message forbids a place. Theirs weighs
more where a joint's map and messages contradict each other, as it joins products that are not normalised: the
joint then tells its neighbours little. Here it is part of the potentials, and marginals are exact."""
SINGLE_CONSTANT = 1e-7
"""The same for transforms in float32, whose rounding errors would drown a smaller one (see `marginals`)."""
SMALLEST_POTENTIAL = 1e-10
"""Potentials are at least this before they are normalised. The authors' code has 1e-16 for kernels, and 1e-32
for maps: there no two neighbours can put a joint where its own map says nothing."""


@dataclass(frozen=True)
class Tree:
    """A tree by the parent of each node, -1 at the root. Raises `ConfigError` for anything that is no tree.

    Directed edges, one kernel each: first from every node but the root to its parent, in the nodes' order,
    then from the parents to these nodes in the same order. The hand has 20 up and 20 down.
    """

    parents: tuple[int, ...]

    def __post_init__(self) -> None:
        if self.parents.count(-1) != 1:
            raise ConfigError(f"the parents {self.parents} have {self.parents.count(-1)} roots, expected one")
        for node in range(len(self.parents)):
            steps, at = 0, node
            while at != -1:
                at, steps = self.parents[at] if 0 <= at < len(self.parents) else at, steps + 1
                if steps > len(self.parents):
                    raise ConfigError(f"the parents {self.parents} do not lead from node {node} to the root")

    @cached_property
    def children(self) -> tuple[int, ...]:
        """Every node but the root, in order: the i-th has edges i (up) and i + len(children) (down)."""
        return tuple(node for node, parent in enumerate(self.parents) if parent != -1)

    @cached_property
    def edges(self) -> tuple[tuple[int, int], ...]:
        """The directed edges as (source, target)."""
        up = tuple((child, self.parents[child]) for child in self.children)
        return up + tuple((target, source) for source, target in up)

    @cached_property
    def levels(self) -> tuple[tuple[int, ...], ...]:
        """Nodes by their distance from the root, which is the first level."""
        levels: list[tuple[int, ...]] = [(self.parents.index(-1),)]
        while below := tuple(node for node in self.children if self.parents[node] in levels[-1]):
            levels.append(below)
        return tuple(levels)

    def both_directions(self, kernels: Float[Tensor, "*b c s s"]) -> Float[Tensor, "*b e s s"]:
        """The kernels of all directed edges from those of the up edges alone.

        A potential is one function of two places: seen from the other end its kernel is turned by half a turn
        (the transpose in Eq. 4.11). Kernels learned freely for both directions need not agree like that; then
        beliefs are no marginals of any joint distribution.
        """
        return torch.cat([kernels, kernels.flip(-2, -1)], dim=-3)


def potentials(
    maps: Float[Tensor, "*b n h w"], smallest: float = SMALLEST_POTENTIAL
) -> Float[Tensor, "*b n h w"]:
    """Maps or kernels of any sign as potentials: at least `smallest` (Eq. 4.2, 4.4 have 0), each of sum 1."""
    maps = maps.float() if maps.dtype in (torch.float16, torch.bfloat16) else maps
    maps = maps.clamp(min=smallest)
    return maps / maps.sum(dim=(-2, -1), keepdim=True)


def marginals(
    unary: Float[Tensor, "*b n h w"],
    kernels: Float[Tensor, "*k e s s"],
    tree: Tree,
    method: Method = "fft",
    *,
    constant: float | None = None,
    dtype: torch.dtype | None = None,
) -> Float[Tensor, "*o n h w"]:
    """Each node's distribution over the map (Eq. 3.16, 4.8), by Eq. 3.14 along the tree and back.

    `unary` and `kernels` are not negative; neither needs to be normalised. Kernels are in the order of
    `tree.edges`, odd in size, and say where the target is seen from the source: entry c + r, counted from the
    centre c, is the potential of target - source = r. Their leading dimensions broadcast with those of
    `unary`: none for one graphical model shared by all images, (b,) for each image its own, (models,) against
    unary maps (b, 1) for a pool.

    `constant`, times the kernel's sum, is added to the potential of every pair of places, however far apart.
    The marginals are exact: with 0 of the model as given, else of the model with those potentials. A message
    whose mass lies beyond the border then says nothing, instead of what little is left of it.

    `dtype` is that of the transforms, float64 by default where the device has it. A transform's error is a
    part of the largest values, in float32 some 1e-8 of a message's sum (before it is cut to the map). In the
    tails it takes the message's place, and where neighbours contradict each other the tails are what is
    multiplied. So the constant must drown it: for float32 it is `SINGLE_CONSTANT` unless given, else
    `MESSAGE_CONSTANT`. Measured on 46 × 46 cells with a third of the maps' peaks in the wrong place, largest
    error of a marginal in float32, against the same constant in float64: 5e-4 with 1e-6, 3e-3 with 1e-7, 0.02
    with 1e-8, 0.3 with 4e-10. Where maps and kernels agree it is 4e-7 with each of them.
    """
    if kernels.shape[-3] != len(tree.edges):
        raise ConfigError(f"{kernels.shape[-3]} kernels, expected {len(tree.edges)}: one a directed edge")
    convolution = _convolution(unary, kernels.shape[-1])
    dtype = dtype or transform_type(unary)
    if constant is None:
        constant = MESSAGE_CONSTANT if method == "direct" else least_constant(dtype)
    along = _by_level(kernels, tree)
    everywhere = _by_level(_positive(constant * kernels.sum(dim=(-2, -1), keepdim=True)), tree)
    room = Room()

    def log_message(log_belief: Tensor, step: int) -> Tensor:
        if method == "direct":
            return _direct_message(log_belief, along[step], everywhere[step]).log()
        of_kernels = convolution.kernel_spectrum(along[step], dtype, room)
        of_belief = convolution.spectrum(_distribution(log_belief), dtype, room)
        of_both = product(of_belief, of_kernels, overwrite=True)
        return _message(of_both, everywhere[step], convolution, log_belief.dtype).log()

    return _propagate(unary, tree, log_message)


def transform_type(like: Tensor) -> torch.dtype:
    """float64; float32 where the device has nothing wider."""
    return torch.float32 if like.device.type == "mps" else torch.float64


def least_constant(dtype: torch.dtype) -> float:
    """The constant for transforms of this type: the authors', or one that float32's errors do not reach."""
    return SINGLE_CONSTANT if dtype == torch.float32 else MESSAGE_CONSTANT


def message_spectra(
    kernels: Float[Tensor, "*k e s s"], tree: Tree, convolution: SameConvolution, dtype: torch.dtype
) -> tuple[Tensor, ...]:
    """The kernels' spectra in the order in which `marginals` needs them, for each level up and then down."""
    return tuple(convolution.kernel_spectrum(level, dtype) for level in _by_level(kernels, tree))


def _by_level(kernels: Float[Tensor, "*k e s t"], tree: Tree) -> Sequence[Tensor]:
    """What the edges have, of those up from each level, level 1 first, then of those down to each level."""
    counts = [len(level) for level in tree.levels[1:]]
    order = torch.tensor(_order_by_level(tree), device=kernels.device)
    return kernels.index_select(-3, order).split(counts + counts, dim=-3)


def _order_by_level(tree: Tree) -> list[int]:
    position = {child: index for index, child in enumerate(tree.children)}
    up = [position[node] for level in tree.levels[1:] for node in level]
    return up + [len(position) + edge for edge in up]


def _convolution(unary: Tensor, kernel_size: int) -> SameConvolution:
    return SameConvolution(unary.shape[-2], unary.shape[-1], kernel_size, matrices=exporting())


def _propagate(
    unary: Float[Tensor, "*b n h w"], tree: Tree, log_message: Callable[[Tensor, int], Tensor]
) -> Float[Tensor, "*o n h w"]:
    """The two passes. `log_message` takes the senders' logarithms and the step, counted as `_by_level`."""
    with torch.autocast(unary.device.type, enabled=False):
        levels, depth = tree.levels, len(tree.levels) - 1
        dtype = torch.float64 if unary.dtype == torch.float64 else torch.float32
        order = torch.tensor([node for level in levels for node in level], device=unary.device)
        log_unary = _positive(unary.index_select(-3, order).to(dtype)).log()
        # Logarithms of Eq. 3.15's product, so far: the node's own word and those of all that have written.
        belief = list(log_unary.split([len(level) for level in levels], dim=-3))
        above = [[levels[d - 1].index(tree.parents[node]) for node in levels[d]] for d in range(1, depth + 1)]

        heard: list[Tensor] = []
        for d in range(depth, 0, -1):
            heard.insert(0, log_message(belief[d], d - 1))
            belief[d - 1] = belief[d - 1] + _collected(heard[0], above[d - 1], len(levels[d - 1]))
        for d in range(1, depth + 1):
            # What the parent believes without what this child told it (the product in Eq. 3.14).
            rest = _spread(belief[d - 1], above[d - 1]) - heard[d - 1]
            belief[d] = belief[d] + log_message(rest, depth + d - 1)

        lead = torch.broadcast_shapes(*(level.shape[:-3] for level in belief))
        together = torch.cat([level.expand(*lead, -1, -1, -1) for level in belief], dim=-3)
        return _distribution(together.index_select(-3, order.argsort()))


def _direct_message(
    log_belief: Float[Tensor, "*b e h w"], kernels: Float[Tensor, "*k e s s"], everywhere: Tensor
) -> Float[Tensor, "*o e h w"]:
    """`_message` by the sum itself."""
    belief = _distribution(log_belief)
    message = direct_same(belief, kernels.to(belief.dtype))
    return message + everywhere.to(belief.dtype)


def _message(
    of_both: Tensor,
    everywhere: Float[Tensor, "*k #e 1 1"],
    convolution: SameConvolution,
    dtype: torch.dtype,
) -> Float[Tensor, "*o e h w"]:
    """Eq. 3.20's message from the product of the spectra of beliefs, of sum 1, and of kernels."""
    message = convolution.maps_from(of_both).to(dtype)
    # Sums of what is not negative come out a rounding error below zero. A belief's sum is 1, so what is added
    # to all potentials comes out once in every cell.
    return message.clamp(min=0).add_(everywhere.to(dtype))


def _positive(maps: Tensor) -> Tensor:
    return maps.clamp(min=torch.finfo(maps.dtype).tiny)


def _distribution(log_belief: Tensor) -> Tensor:
    """exp, scaled so that each map's sum is 1."""
    return log_belief.flatten(-2).softmax(dim=-1).unflatten(-1, log_belief.shape[-2:])


def _spread(maps: Tensor, places: list[int]) -> Tensor:
    """The maps at these places; a single map is left to broadcast."""
    whole = maps.shape[-3] == 1 or places == list(range(maps.shape[-3]))
    return maps if whole else maps[..., places, :, :]


def _collected(maps: Tensor, places: list[int], count: int) -> Tensor:
    """The transpose of `_spread`: at each of `count` places the sum of the maps sent there."""
    if places == list(range(count)):
        return maps
    if count == 1:
        return maps.sum(dim=-3, keepdim=True)
    total = maps.new_zeros(*maps.shape[:-3], count, *maps.shape[-2:])
    return total.index_add(-3, torch.tensor(places, device=maps.device), maps)


class GraphicalModels(nn.Module):
    """A pool of `models` graphical models on one tree, each with kernels of its own (Eq. 3.21, 3.22).

    Kernels are free in both directions, as the papers' are; they pass through `potentials`. Flat at first: no
    model then knows anything, and every message is (nearly) the same everywhere.
    """

    def __init__(self, tree: Tree, models: int, kernel_size: int, method: Method = "fft") -> None:
        super().__init__()
        check_kernel_size(kernel_size)
        self.tree, self.method = tree, method
        self.kernels = nn.Parameter(torch.empty(models, len(tree.edges), kernel_size, kernel_size))
        nn.init.uniform_(self.kernels, 0.9, 1.1)
        self._kept: tuple[object, tuple[Tensor, ...]] | None = None

    def train(self, mode: bool = True) -> "GraphicalModels":
        self._kept = None
        return super().train(mode)

    def forward(self, unary: Float[Tensor, "b n h w"]) -> Float[Tensor, "b m n h w"]:
        """Each model's marginals p_l of Eq. 3.10; `unary` as for `marginals`."""
        if self.method == "direct" or self.training or torch.is_grad_enabled() or exporting():
            return marginals(unary[:, None], potentials(self.kernels), self.tree, self.method)
        convolution = _convolution(unary, self.kernels.shape[-1])
        dtype = transform_type(unary)
        # In evaluation the spectra are constants. A weight written to or moved has another version or place.
        state = (convolution, dtype, self.kernels._version, self.kernels.data_ptr(), self.kernels.dtype)
        if self._kept is None or self._kept[0] != state:
            spectra = message_spectra(potentials(self.kernels), self.tree, convolution, dtype)
            self._kept = (state, spectra)
        spectra = self._kept[1]
        # The potentials' sums are 1.
        everywhere = unary.new_full((1, 1, 1), least_constant(dtype))
        room = Room()

        def log_message(log_belief: Tensor, step: int) -> Tensor:
            of_belief = convolution.spectrum(_distribution(log_belief), dtype, room)
            of_both = product(of_belief, spectra[step], overwrite=True)
            return _message(of_both, everywhere, convolution, log_belief.dtype).log()

        return _propagate(unary[:, None], self.tree, log_message)
