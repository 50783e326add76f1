import re

import numpy as np
import pytest
import torch

from handgraph import skeleton
from handgraph.errors import ConfigError
from handgraph.graph.belief_propagation import marginals, potentials
from handgraph.networks.cpm import PoseMachineShape
from handgraph.networks.heatmaps import gaussian_maps, kernel_maps
from handgraph.networks.stacked_hourglass import HourglassShape
from handgraph.systems import agmn, cpm

SMALL = PoseMachineShape(stages=2, width=8, stride=4, norm=True)


def small(**changes: object) -> agmn.Config:
    values = {"cpm": SMALL, "pairwise": SMALL, "input_size": 64, "kernel_size": 15} | changes
    return agmn.Config(**values)  # type: ignore[arg-type]


def labels(seed: int = 0, batch: int = 2) -> tuple[torch.Tensor, torch.Tensor]:
    random = torch.Generator().manual_seed(seed)
    uv = 0.3 + 0.4 * torch.rand(batch, 21, 2, generator=random)
    return uv, torch.ones(batch, 21, dtype=torch.bool)


def test_parameters_are_those_published() -> None:
    with torch.device("meta"):
        network = agmn.Config().build()
    count = sum(parameter.numel() for parameter in network.parameters())
    pairwise = sum(parameter.numel() for parameter in network.pairwise.parameters())
    assert (count, pairwise, count - pairwise) == (58_529_646, 29_429_936, 29_099_710)


def test_answer_is_the_marginal_of_the_last_stages() -> None:
    torch.manual_seed(0)
    network = small().build().eval()
    output = network(torch.randn(2, 3, 64, 64))
    assert [maps.shape for maps in output.unary] == [(2, 21, 16, 16)] * 2
    assert [kernels.shape for kernels in output.kernels] == [(2, 40, 15, 15)] * 2
    expected = marginals(potentials(output.unary[-1]), potentials(output.kernels[-1]), agmn.HAND, "direct")
    torch.testing.assert_close(output.maps, expected, rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(output.maps.sum(dim=(-2, -1)), torch.ones(2, 21))


def test_information_flows_from_the_unary_branch_s_stage_before() -> None:
    torch.manual_seed(0)
    network = small(pairwise=PoseMachineShape(stages=3, width=8, stride=4, norm=True)).build().eval()
    image = torch.randn(1, 3, 64, 64)
    unary = list(network.unary(image))
    before = network.pairwise(image, unary)
    unary[1] = unary[1] + 1
    after = network.pairwise(image, unary)
    same = [torch.equal(one, two) for one, two in zip(before, after, strict=True)]
    assert same == [True, True, False]  # the third stage sees the second stage's maps
    cut = small(information_flow=False).build().eval()
    assert torch.equal(cut.pairwise(image, unary)[-1], cut.pairwise(image, [m + 1 for m in unary])[-1])


def test_true_kernels_are_gaussians_where_the_neighbour_is() -> None:
    uv, known = labels()
    known[0, 8] = False
    kernels = kernel_maps(uv, known, agmn.HAND.edges, 15, cells=16, size=64)
    for edge, (source, target) in enumerate(agmn.HAND.edges):
        if 8 in (source, target):
            assert kernels[0, edge].max() == 0
            continue
        column, row = ((uv[0, target] - uv[0, source]) * 63 / 4).tolist()  # four pixels to a cell
        y, x = np.mgrid[-7:8, -7:8]
        expected = np.exp(-((x - column) ** 2 + (y - row) ** 2) / 2)
        np.testing.assert_allclose(kernels[0, edge].numpy(), expected, atol=1e-5)


def test_upper_bound_puts_a_joint_where_its_neighbours_and_the_labels_say() -> None:
    """A unary branch that is blind for one joint and sure of the others, with kernels from the labels."""
    network = small(true_kernels=True).build().eval()
    uv, known = labels(seed=3)
    maps = gaussian_maps(uv, known, cells=16, size=64)
    maps[:, 7] = 1.0
    network.unary = torch.nn.Module()
    network.unary.forward = lambda image: (maps,)  # type: ignore[method-assign, assignment]
    output = network(torch.zeros(2, 3, 64, 64), uv, known)
    assert ((output.uv - uv).abs().amax(dim=-1) < 0.05).all()  # a cell is 0.063
    with pytest.raises(ConfigError, match="true_kernels is an evaluation with labels"):
        network(torch.zeros(2, 3, 64, 64))


def test_loss_terms_are_their_equations() -> None:
    torch.manual_seed(0)
    network = small().build()
    uv, known = labels()
    known[1, 20] = False
    uv[0, 5] = 1.4  # outside: it has an empty map, no place on a marginal, and kernels all the same
    batch = {"image": torch.randn(2, 3, 64, 64), "uv": uv, "known": known}
    with torch.no_grad():
        output = network(batch["image"])
    terms = agmn.loss(output, batch)
    targets = gaussian_maps(uv, known, 16, 64)
    kernels = kernel_maps(uv, known, agmn.HAND.edges, 15, 16, 64)
    unary = pairwise = last = 0.0
    for b in range(2):
        for joint in range(21):
            if known[b, joint]:
                unary += sum(
                    float((maps[b, joint] - targets[b, joint]).square().sum()) for maps in output.unary
                )
                if joint != 5 or b != 0:
                    wanted = targets[b, joint] / targets[b, joint].sum()
                    last += float((output.maps[b, joint] - wanted).square().sum())
        for edge, (source, target) in enumerate(agmn.HAND.edges):
            if known[b, source] and known[b, target]:
                pairwise += sum(float((q[b, edge] - kernels[b, edge]).square().sum()) for q in output.kernels)
    assert terms["unary"].item() == pytest.approx(unary / 2, rel=1e-4)
    assert terms["pairwise"].item() == pytest.approx(pairwise / 2, rel=1e-4)
    assert terms["last"].item() == pytest.approx(last / 2, rel=1e-4)


def test_three_phases_train_unary_then_pairwise_then_all() -> None:
    config = small()
    network = config.build()
    learned = [
        {name.split(".")[0] for name, _ in network.named_parameters() if stage.learns(name)}
        for stage in agmn.stages(config)
    ]
    assert learned == [{"unary"}, {"pairwise"}, {"unary", "pairwise"}]
    network.set_stage(agmn.stages(config)[0])
    output = network(torch.randn(1, 3, 64, 64))
    assert output.kernels == ()
    assert set(agmn.loss(output, dict(zip(("uv", "known"), labels(batch=1), strict=True)) | {
        "image": torch.zeros(1, 3, 64, 64)})) == {"unary"}  # fmt: skip
    assert [stage.name for stage in agmn.stages(small(unary_weights="run/best"))] == ["pairwise", "whole"]


def test_a_trained_pose_machine_becomes_the_unary_branch(tmp_path: object) -> None:
    from safetensors.torch import save_file

    trained = cpm.Config(stages=2, width=8, stride=4, norm=True, input_size=64).build()
    path = f"{tmp_path}/best.safetensors"
    save_file(trained.state_dict(), path)
    config = small(unary_weights=path)
    network = config.build()
    agmn.prepare(network, agmn.stages(config)[0], None, config)
    image = torch.randn(1, 3, 64, 64)
    assert torch.equal(network.eval().unary(image)[-1], trained.eval().network(image)[-1])


def test_an_hourglass_may_be_the_unary_branch() -> None:
    config = small(unary="hourglass", hourglass=HourglassShape(1, 16, 2, "compact"))
    output = config.build().eval()(torch.randn(1, 3, 64, 64))
    assert len(output.unary) == 1
    assert output.maps.shape == (1, 21, 16, 16)
    assert agmn.Config(unary="hourglass", kernel_size=63).input_size == 256


def test_tree_is_the_hand_s() -> None:
    assert agmn.HAND.edges[:20] == tuple((child, parent) for parent, child in skeleton.BONES)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"kernel_size": 33}, "kernel_size is 33, expected an odd number up to 31 for maps of 16 cells"),
        ({"kernel_size": 8}, "kernel_size is 8, expected an odd number"),
        ({"input_size": 65}, "input_size is 65, expected a multiple of stride 4"),
        ({"pretrained": "x/y"}, "pretrained: VGG-19's weights fit cpm.width 128 without norm"),
    ],
)
def test_configurations_that_do_not_exist_are_named(changes: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(message)):
        small(**changes)
