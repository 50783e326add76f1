import itertools
import re

import pytest
import torch

from handgraph import skeleton
from handgraph.errors import ConfigError
from handgraph.graph import belief_propagation as module
from handgraph.graph.belief_propagation import (
    MESSAGE_CONSTANT,
    SINGLE_CONSTANT,
    GraphicalModels,
    Tree,
    marginals,
    potentials,
)

HAND = Tree(skeleton.PARENTS)


def random_tree(nodes: int, seed: int) -> Tree:
    """Nodes in random order, so that a parent may have a higher number than its children."""
    random = torch.Generator().manual_seed(seed)
    order = torch.randperm(nodes, generator=random).tolist()
    parents = [-1] * nodes
    for position in range(1, nodes):
        parents[order[position]] = order[int(torch.randint(position, (), generator=random))]
    return Tree(tuple(parents))


def random_model(
    tree: Tree, size: tuple[int, int], kernel: int, seed: int, lead: tuple[int, ...] = ()
) -> tuple[torch.Tensor, torch.Tensor]:
    """Positive unary maps, and kernels of both directions that are one potential seen from both ends."""
    random = torch.Generator().manual_seed(seed)
    nodes = len(tree.parents)
    unary = torch.rand(*lead, nodes, *size, generator=random, dtype=torch.float64) ** 3
    up = torch.rand(*lead, nodes - 1, kernel, kernel, generator=random, dtype=torch.float64) ** 3
    return unary, tree.both_directions(up)


def enumerated(unary: torch.Tensor, kernels: torch.Tensor, tree: Tree, constant: float = 0.0) -> torch.Tensor:
    """Eq. 3.3's marginals by summing over every assignment of places to nodes."""
    nodes, height, width = unary.shape
    places = list(itertools.product(range(height), range(width)))
    reach = kernels.shape[-1] // 2
    total = torch.zeros_like(unary)
    for at in itertools.product(places, repeat=nodes):
        weight = 1.0
        for node, (y, x) in enumerate(at):
            weight *= float(unary[node, y, x])
        for edge, child in enumerate(tree.children):
            (ys, xs), (yt, xt) = at[child], at[tree.parents[child]]
            dy, dx = yt - ys + reach, xt - xs + reach
            inside = 0 <= dy <= 2 * reach and 0 <= dx <= 2 * reach
            potential = float(kernels[edge, dy, dx]) if inside else 0.0
            weight *= potential + constant * float(kernels[edge].sum())
        for node, (y, x) in enumerate(at):
            total[node, y, x] += weight
    return total / total.sum(dim=(-2, -1), keepdim=True)


def one_by_one(unary: torch.Tensor, kernels: torch.Tensor, tree: Tree, constant: float) -> torch.Tensor:
    """Eq. 3.14 edge by edge, whenever all that an edge waits for has arrived, cell by cell."""
    height, width = unary.shape[-2:]
    reach = kernels.shape[-1] // 2
    messages: dict[tuple[int, int], torch.Tensor] = {}
    while len(messages) < len(tree.edges):
        for edge, (i, j) in enumerate(tree.edges):
            waits = [(k, i) for k, n in tree.edges if n == i and k != j]
            if (i, j) in messages or any(other not in messages for other in waits):
                continue
            h = unary[i].clone()
            for other in waits:
                h = h * messages[other]
            message = torch.zeros_like(h)
            for y, x in itertools.product(range(height), range(width)):
                for ys, xs in itertools.product(range(height), range(width)):
                    if abs(y - ys) <= reach and abs(x - xs) <= reach:
                        message[y, x] += kernels[edge, y - ys + reach, x - xs + reach] * h[ys, xs]
            messages[i, j] = message + constant * h.sum() * kernels[edge].sum()
    beliefs = torch.stack(
        [
            unary[i] * torch.stack([messages[edge] for edge in tree.edges if edge[1] == i]).prod(dim=0)
            for i in range(len(unary))
        ]
    )
    return beliefs / beliefs.sum(dim=(-2, -1), keepdim=True)


@pytest.mark.parametrize("method", ["fft", "direct"])
@pytest.mark.parametrize(
    ("nodes", "size", "kernel", "seed"),
    [(2, (3, 4), 5, 0), (3, (2, 3), 3, 1), (4, (2, 2), 3, 2), (5, (1, 3), 5, 3)],
)
def test_marginals_are_those_of_brute_force(
    method: str, nodes: int, size: tuple[int, int], kernel: int, seed: int
) -> None:
    tree = random_tree(nodes, seed)
    unary, kernels = random_model(tree, size, kernel, seed)
    exact = marginals(unary, kernels, tree, method, constant=0.0)  # type: ignore[arg-type]
    torch.testing.assert_close(exact, enumerated(unary, kernels, tree), rtol=1e-8, atol=1e-10)
    single = marginals(unary.float(), kernels.float(), tree, method, constant=0.0)  # type: ignore[arg-type]
    torch.testing.assert_close(single.double(), exact, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("method", ["fft", "direct"])
def test_impossible_places_stay_impossible(method: str) -> None:
    tree = random_tree(4, seed=7)
    unary, kernels = random_model(tree, (2, 3), 3, seed=7)
    unary[:, 0, 1] = 0
    kernels[0] = 0
    kernels[0, 1, 2] = 1
    kernels[3] = kernels[0].flip(-2, -1)
    exact = marginals(unary, kernels, tree, method, constant=0.0)  # type: ignore[arg-type]
    torch.testing.assert_close(exact, enumerated(unary, kernels, tree), rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("constant", [0.0, 1e-3])
def test_all_of_a_level_at_once_is_one_after_the_other(constant: float) -> None:
    tree = random_tree(9, seed=11)
    unary, kernels = random_model(tree, (4, 3), 3, seed=11)
    kernels = kernels + torch.rand_like(kernels)  # free in both directions, as the papers' are
    expected = one_by_one(unary, kernels, tree, constant)
    torch.testing.assert_close(marginals(unary, kernels, tree, constant=constant), expected)


def test_a_kernel_moves_the_belief_by_what_it_says() -> None:
    """A child known for sure, and kernels that say the parent is two cells right of it and one down."""
    tree = Tree((-1, 0))
    unary = torch.ones(2, 9, 9)
    unary[1] = 0
    unary[1, 3, 4] = 1
    up = torch.zeros(1, 5, 5)
    up[0, 2 + 1, 2 + 2] = 1
    for method in ("fft", "direct"):
        parent = marginals(unary, tree.both_directions(up), tree, method)[0]  # type: ignore[arg-type]
        assert divmod(int(parent.argmax()), 9) == (4, 6)
        assert parent.max() > 0.999


def test_many_neighbours_that_contradict_each_other_do_not_underflow() -> None:
    star = Tree((-1, *[0] * 30))
    unary = torch.full((31, 15, 15), 1e-30)
    for node in range(31):
        unary[node, node % 15, (7 * node) % 15] = 1
    kernels = torch.zeros(60, 3, 3)
    kernels[:, 1, 1] = 1
    result = marginals(potentials(unary), kernels, star)
    assert torch.isfinite(result).all()
    torch.testing.assert_close(result.sum(dim=(-2, -1)), torch.ones(31))


def test_contradictions_are_weighed_alike_by_fft_and_direct() -> None:
    """Sharp maps, a third of them in the wrong place: all is decided in the tails of the messages."""
    random = torch.Generator().manual_seed(0)
    grid = torch.arange(24)

    def peaks(at: torch.Tensor, cells: torch.Tensor) -> torch.Tensor:
        x, y = at[..., 0, None, None], at[..., 1, None, None]
        return torch.exp(-((cells - x) ** 2 + (cells[:, None] - y) ** 2) / 2)

    at = torch.rand(8, 21, 2, generator=random) * 12 + 6
    wrong = torch.rand(8, 21, generator=random) < 0.3
    elsewhere = torch.rand(8, 21, 2, generator=random) * 23
    unary = potentials(peaks(torch.where(wrong[..., None], elsewhere, at), grid))
    between = torch.stack([at[:, target] - at[:, source] for source, target in HAND.edges], dim=1)
    kernels = potentials(peaks(between + 11, grid[:23]))
    exact = marginals(unary.double(), kernels.double(), HAND, "direct")
    for method in ("fft", "direct"):
        ours = marginals(unary, kernels, HAND, method)  # type: ignore[arg-type]
        assert (ours - exact).abs().max() < 1e-5
    # Transforms in float32 are right where the constant is above their noise, and only there.
    of_single = marginals(unary.double(), kernels.double(), HAND, constant=SINGLE_CONSTANT)
    assert (marginals(unary, kernels, HAND, dtype=torch.float32) - of_single).abs().max() < 5e-3
    too_small = marginals(unary, kernels, HAND, dtype=torch.float32, constant=MESSAGE_CONSTANT)
    assert (too_small - exact).abs().max() > 0.01  # the reason for transforms in float64


@pytest.mark.parametrize("method", ["fft", "direct"])
@pytest.mark.parametrize("constant", [1e-3, 0.3])
def test_the_constant_is_part_of_every_potential(method: str, constant: float) -> None:
    """Still marginals of a model: one whose pairs of places all have so much more, also beyond the kernel."""
    tree = random_tree(4, seed=3)
    unary, kernels = random_model(tree, (2, 3), 3, seed=3)
    ours = marginals(unary, 5 * kernels, tree, method, constant=constant)  # type: ignore[arg-type]
    torch.testing.assert_close(ours, enumerated(unary, kernels, tree, constant), rtol=1e-8, atol=1e-10)
    if method == "fft":
        single = marginals(unary.float(), kernels.float(), tree, constant=constant, dtype=torch.float32)
        torch.testing.assert_close(single.double(), ours, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_message_beyond_the_border_says_nothing(dtype: torch.dtype) -> None:
    """A child at the left border, a kernel that puts its parent eight cells left of it."""
    tree = Tree((-1, 0))
    cells = torch.arange(16.0)
    child = torch.exp(-(cells**2 + (cells[:, None] - 8) ** 2) / 2)
    unary = potentials(torch.stack([torch.ones(16, 16), child]))
    unary[0, 9, 11] *= 3
    cells = torch.arange(31.0) - 15
    kernels = potentials(torch.exp(-((cells + 8) ** 2 + cells[:, None] ** 2) / 2)[None])
    parent = marginals(unary, tree.both_directions(kernels), tree, constant=1e-6, dtype=dtype)[0]
    assert divmod(int(parent.argmax()), 16) == (9, 11)


@pytest.mark.parametrize("method", ["fft", "direct"])
def test_gradients_against_finite_differences(method: str) -> None:
    tree = random_tree(4, seed=5)
    unary, kernels = random_model(tree, (3, 3), 3, seed=5)
    torch.autograd.gradcheck(
        lambda u, k: marginals(u, k, tree, method),  # type: ignore[arg-type]
        (unary.requires_grad_(), kernels.requires_grad_()),
        rtol=1e-5,
    )


@pytest.mark.parametrize(
    ("maps", "lead", "kernel"),
    [((), (), 3), ((3,), (), 3), ((3,), (3,), 3), ((3, 1), (2,), 3), ((2,), (2,), 13)],
)
def test_gradients_of_fft_are_those_of_direct(
    maps: tuple[int, ...], lead: tuple[int, ...], kernel: int
) -> None:
    """Whoever shares kernels or maps gets the sum of what comes back; a kernel may be larger than the map."""
    tree = random_tree(5, seed=4)
    unary, _ = random_model(tree, (5, 4), kernel, seed=1, lead=maps)
    _, kernels = random_model(tree, (5, 4), kernel, seed=2, lead=lead)
    gradients = []
    for method in ("fft", "direct"):
        u, k = unary.clone().requires_grad_(), kernels.clone().requires_grad_()
        result = marginals(u, k, tree, method)  # type: ignore[arg-type]
        toward = torch.rand(result.shape, generator=torch.Generator().manual_seed(3), dtype=result.dtype)
        gradients.append(torch.autograd.grad((result * toward).sum(), (u, k)))
    torch.testing.assert_close(gradients[0], gradients[1], rtol=1e-7, atol=1e-10)


def test_answers_are_the_same_with_and_without_gradients() -> None:
    unary, kernels = random_model(HAND, (7, 6), 5, seed=1, lead=(2,))
    plain = marginals(unary, kernels, HAND)
    torch.testing.assert_close(marginals(unary.requires_grad_(), kernels, HAND), plain, rtol=0, atol=0)


def test_each_image_has_its_own_kernels_a_pool_shares_the_unary_maps() -> None:
    unary, kernels = random_model(HAND, (7, 6), 5, seed=1, lead=(3,))
    own = marginals(unary, kernels, HAND)
    pool = marginals(unary[:, None], kernels, HAND)
    assert own.shape == (3, 21, 7, 6)
    assert pool.shape == (3, 3, 21, 7, 6)
    for i in range(3):
        torch.testing.assert_close(own[i], marginals(unary[i], kernels[i], HAND))
        torch.testing.assert_close(own[i], pool[i, i])
        torch.testing.assert_close(pool[i, 0], marginals(unary[i], kernels[0], HAND))


def test_the_hand_takes_four_steps_up_and_four_down() -> None:
    assert len(HAND.levels) == 5
    assert HAND.levels[1:] == skeleton.LEVELS
    assert len(HAND.edges) == 40
    assert HAND.edges[0] == (1, 0)
    assert HAND.edges[20] == (0, 1)


def test_pool_of_models_keeps_spectra_that_follow_the_kernels() -> None:
    pool = GraphicalModels(HAND, 2, 5).eval()
    unary = potentials(torch.rand(1, 21, 6, 6))
    with torch.no_grad():
        assert torch.equal(pool(unary), pool(unary))
        pool.kernels.copy_(torch.rand_like(pool.kernels))
        expected = marginals(unary[:, None], potentials(pool.kernels), HAND, "direct")
        torch.testing.assert_close(pool(unary), expected, rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(pool(unary), expected, rtol=1e-4, atol=1e-6)  # with gradients


def test_flat_kernels_as_large_as_the_map_say_nothing() -> None:
    unary = potentials(torch.rand(1, 21, 6, 6))
    torch.testing.assert_close(marginals(unary, torch.ones(40, 11, 11), HAND), unary, rtol=1e-4, atol=1e-6)


def test_form_without_complex_numbers_answers_alike(monkeypatch: pytest.MonkeyPatch) -> None:
    tree = random_tree(5, seed=2)
    unary, kernels = random_model(tree, (9, 7), 5, seed=2, lead=(2,))
    expected = marginals(unary, kernels, tree)
    monkeypatch.setattr(module, "exporting", lambda: True)
    assert not any(
        spectra.is_complex()
        for spectra in module.message_spectra(kernels, tree, module._convolution(unary, 5), torch.float64)
    )
    torch.testing.assert_close(marginals(unary, kernels, tree), expected, rtol=1e-3, atol=1e-6)


def test_potentials_are_positive_with_sum_one() -> None:
    maps = torch.tensor([[[-1.0, 3.0], [1.0, 0.0]]])
    torch.testing.assert_close(
        potentials(maps), torch.tensor([[[0.0, 0.75], [0.25, 0.0]]]), rtol=0, atol=1e-9
    )
    assert (potentials(maps) > 0).all()


def test_bad_input_is_named() -> None:
    with pytest.raises(ConfigError, match="2 roots, expected one"):
        Tree((-1, 0, -1))
    with pytest.raises(ConfigError, match="do not lead from node 1 to the root"):
        Tree((-1, 2, 1))
    with pytest.raises(ConfigError, match="do not lead from node 1 to the root"):
        Tree((-1, 7))
    with pytest.raises(ConfigError, match=re.escape("3 kernels, expected 40: one a directed edge")):
        marginals(torch.rand(21, 4, 4), torch.rand(3, 3, 3), HAND)
    with pytest.raises(ConfigError, match="kernel_size is 4, expected an odd number"):
        GraphicalModels(HAND, 1, 4)
