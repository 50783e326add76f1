"""The graph operators of SIA-GCN, AGMN and R-MGMN at their papers' sizes: Fourier transforms against direct.

    OMP_NUM_THREADS=2 python benchmarks/graph_operators.py --json
    OMP_NUM_THREADS=2 python benchmarks/graph_operators.py --only belief_propagation

Maps of 46 × 46 and kernels of 45 × 45 over the hand's tree, batches of 1 and 8, forward and forward with
backward, milliseconds a batch. `edge_convolution` is one layer of 61 edges; in the forward pass its kernels'
spectra are kept, as in inference. `belief_propagation` is a full inference of AGMN: 40 kernels for each
image, 4 + 4 steps. `direct_ms` is the same operator with grouped `conv2d`. `sequential_ms` is what a plain
reading of the papers gives, written out below: one edge's convolution, or one of the 40 messages, at a time.
`ratio` is direct over Fourier, `sequential_ratio` sequential over Fourier. The largest differences are those
between Fourier and direct results (or gradients), as parts of the largest value.

Belief propagation transforms in float64 by default; `fft_float32_ms` is the time with float32, which is for
maps that do not contradict each other (see `marginals`).
"""

from collections.abc import Callable
from typing import Any

import torch
from _bench import arguments, interleaved_ms, machine, report
from torch import Tensor
from torch.nn.functional import conv2d

from handgraph import skeleton
from handgraph.graph.belief_propagation import MESSAGE_CONSTANT, Tree, marginals, potentials
from handgraph.graph.edge_convolution import EdgeConvolution
from handgraph.graph.spatial_convolution import Method

CELLS, KERNEL, JOINTS = 46, 45, 21
BATCHES = (1, 8)
REPEATS = 12
SEEN_BYTES = 24_000_000  # a feature map of CPM's at its largest, (1, 128, 184, 184) float32, is 17 MB
HAND = Tree(skeleton.PARENTS)


def main() -> None:
    operators = {"edge_convolution": edges, "belief_propagation": beliefs}
    options = arguments(__doc__ or "", tuple(operators))
    torch.manual_seed(0)
    # A network has run before such an inference, and the C library keeps the memory that it gave back. Where
    # nothing large was ever freed, it returns a few hundred kilobytes to the system again and again.
    torch.zeros(SEEN_BYTES, dtype=torch.uint8)
    document: dict[str, Any] = {
        "machine": machine(),
        "threads": torch.get_num_threads(),
        "repeats": max(3, round(REPEATS * options.repeats)),
        "rows": [],
    }
    for operator, measure in operators.items():
        if options.only not in (None, operator):
            continue
        document[operator] = {}
        for batch in BATCHES:
            document[operator][f"batch_{batch}"] = measured = measure(batch, document["repeats"])
            for direction, numbers in measured.items():
                document["rows"].append({"operator": operator, "batch": batch, "pass": direction} | numbers)
    report(document, options.json)


def edges(batch: int, repeats: int) -> dict[str, dict[str, float]]:
    """One layer of SIA-GCN."""
    adjacency = torch.from_numpy(skeleton.adjacency(JOINTS, skeleton.BONES)).float() + torch.eye(JOINTS)
    fft = EdgeConvolution(adjacency, KERNEL)
    direct = EdgeConvolution(adjacency, KERNEL, "direct")
    direct.load_state_dict(fft.state_dict())
    maps, toward = torch.rand(2, batch, JOINTS, CELLS, CELLS)

    def forward(layer: Callable[[Tensor], Tensor]) -> Callable[[], tuple[Tensor, ...]]:
        def call() -> tuple[Tensor, ...]:
            with torch.inference_mode():
                return (layer(maps),)

        return call

    def both(layer: Callable[[Tensor], Tensor], weight: Tensor) -> Callable[[], tuple[Tensor, ...]]:
        def call() -> tuple[Tensor, ...]:
            x = maps.clone().requires_grad_()
            weight.grad = None
            (layer(x) * toward).sum().backward()
            assert x.grad is not None
            assert weight.grad is not None
            return x.grad, weight.grad

        return call

    def sequential(x: Tensor) -> Tensor:
        return edge_by_edge(x, direct)

    result = {}
    for direction in ("forward", "forward_backward"):
        evaluate = direction == "forward"
        fft.train(not evaluate)
        direct.train(not evaluate)
        calls = (
            {"fft": forward(fft), "direct": forward(direct), "sequential": forward(sequential)}
            if evaluate
            else {
                "fft": both(fft, fft.weight),
                "direct": both(direct, direct.weight),
                "sequential": both(sequential, direct.weight),
            }
        )
        result[direction] = compared(calls, repeats)
    return result


def edge_by_edge(maps: Tensor, layer: EdgeConvolution) -> Tensor:
    """Eq. 2 of SIA-GCN, one edge after the other."""
    arrived: list[list[Tensor]] = [[] for _ in range(JOINTS)]
    for edge, (source, target) in enumerate(zip(layer.edges.sources, layer.edges.targets, strict=True)):
        kernel = layer.weight[edge, None, None]
        arrived[target].append(conv2d(maps[:, source : source + 1], kernel, padding=KERNEL // 2))
    return torch.cat([torch.cat(maps, dim=1).mean(dim=1, keepdim=True) for maps in arrived], dim=1)


def beliefs(batch: int, repeats: int) -> dict[str, dict[str, float]]:
    """A full inference of AGMN: unary maps and each image's own 40 kernels in, marginals out."""
    # As a network gives them: a peak somewhere, and noise around zero, half of it below.
    unary, kernels = (noisy_peaks(batch, count, side) for count, side in ((JOINTS, CELLS), (40, KERNEL)))
    toward = torch.rand(batch, JOINTS, CELLS, CELLS)

    def ours(method: Method, dtype: torch.dtype | None = None) -> Callable[[Tensor, Tensor], Tensor]:
        return lambda u, k: marginals(potentials(u), potentials(k), HAND, method, dtype=dtype)

    def forward(infer: Callable[[Tensor, Tensor], Tensor]) -> Callable[[], tuple[Tensor, ...]]:
        def call() -> tuple[Tensor, ...]:
            with torch.inference_mode():
                return (infer(unary, kernels),)

        return call

    def both(infer: Callable[[Tensor, Tensor], Tensor]) -> Callable[[], tuple[Tensor, ...]]:
        def call() -> tuple[Tensor, ...]:
            u, k = unary.clone().requires_grad_(), kernels.clone().requires_grad_()
            (infer(u, k) * toward).sum().backward()
            assert u.grad is not None
            assert k.grad is not None
            return u.grad, k.grad

        return call

    result = {}
    for direction, run in (("forward", forward), ("forward_backward", both)):
        calls = {
            "fft": run(ours("fft")),
            "direct": run(ours("direct")),
            "sequential": run(message_by_message),
            "fft_float32": run(ours("fft", torch.float32)),
        }
        result[direction] = compared(calls, repeats)
    return result


def noisy_peaks(batch: int, count: int, side: int) -> Tensor:
    """(batch, count, side, side): Gaussians of peak 1 near the middle, and noise of 1 %."""
    at = (side - 1) / 2 + side / 10 * torch.randn(batch, count, 2)
    grid = torch.arange(side)
    column, row = torch.exp((grid - at[..., None]).square() / -2).unbind(dim=2)
    return row[..., :, None] * column[..., None, :] + 0.01 * torch.randn(batch, count, side, side)


def message_by_message(unary: Tensor, kernels: Tensor) -> Tensor:
    """AGMN's inference as its papers describe it: 40 messages one after the other, each a convolution.

    Potentials are clamped and normalised; every message is given its small constant and normalised; products
    are sums of logarithms.
    """
    unary, kernels = potentials(unary), potentials(kernels)
    batch = len(unary)
    log_unary = unary.log()
    messages: dict[tuple[int, int], Tensor] = {}
    upward = [edge for level in reversed(HAND.levels[1:]) for node in level for edge in HAND.edges[:20]
              if edge[0] == node]  # fmt: skip
    downward = [edge for level in HAND.levels[1:] for node in level for edge in HAND.edges[20:]
                if edge[1] == node]  # fmt: skip
    for source, target in upward + downward:
        belief = log_unary[:, source]
        for other, end in HAND.edges:
            if end == source and other != target:
                belief = belief + messages[other, end]
        belief = (belief - belief.amax(dim=(-2, -1), keepdim=True)).exp()
        belief = belief / belief.sum(dim=(-2, -1), keepdim=True)
        kernel = kernels[:, HAND.edges.index((source, target))].flip(-2, -1)[:, None]
        message = conv2d(belief[None], kernel, padding=KERNEL // 2, groups=batch)[0]
        message = message + MESSAGE_CONSTANT
        messages[source, target] = (message / message.sum(dim=(-2, -1), keepdim=True)).log()
    results = []
    for node in range(JOINTS):
        belief = log_unary[:, node]
        for edge in HAND.edges:
            if edge[1] == node:
                belief = belief + messages[edge]
        belief = (belief - belief.amax(dim=(-2, -1), keepdim=True)).exp()
        results.append(belief / belief.sum(dim=(-2, -1), keepdim=True))
    return torch.stack(results, dim=1)


def compared(calls: dict[str, Callable[[], tuple[Tensor, ...]]], repeats: int) -> dict[str, float]:
    """Medians, the ratios to `fft`, and how far the others' results are from its."""
    results = {name: call() for name, call in calls.items()}
    # The quick ones need more repeats for a steady median, and can have them.
    times = interleaved_ms({"fft": calls["fft"]}, 5 * repeats) | interleaved_ms(
        {name: call for name, call in calls.items() if name != "fft"}, repeats
    )
    medians = {f"{name}_ms": value["median"] for name, value in times.items()}
    difference = {
        f"max_rel_diff{'' if name == 'direct' else '_' + name}": max(
            float((ours - theirs).abs().max() / theirs.abs().max())
            for ours, theirs in zip(results["fft"], result, strict=True)
        )
        for name, result in results.items()
        if name != "fft"
    }
    return {
        **medians,
        "ratio": medians["direct_ms"] / medians["fft_ms"],
        "sequential_ratio": medians["sequential_ms"] / medians["fft_ms"],
        **difference,
    }


if __name__ == "__main__":
    main()
