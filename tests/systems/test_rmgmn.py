import math
import re
from typing import Any

import numpy as np
import pytest
import torch

from handgraph import skeleton
from handgraph.errors import ConfigError
from handgraph.graph.belief_propagation import marginals, potentials
from handgraph.networks.cpm import PoseMachineShape
from handgraph.networks.heatmaps import gaussian_maps, kernel_maps
from handgraph.networks.rotation import KNUCKLE, WRIST, turn_maps, turn_uv
from handgraph.schedule import Stage
from handgraph.systems import rmgmn

SMALL = PoseMachineShape(stages=2, width=8, stride=4, norm=True)


def small(**changes: Any) -> rmgmn.Config:
    values: dict[str, Any] = {
        "cpm": SMALL,
        "input_size": 64,
        "kernel_size": 15,
        "models": 3,
        "rotation_backbone": "small",
        "classifier": "small",
    }
    return rmgmn.Config(**(values | changes))


def hands(count: int, seed: int = 0) -> torch.Tensor:
    """Upright hands of three very different kinds in turn, slightly varied: spread, folded, leaning."""
    random = torch.Generator().manual_seed(seed)
    uv = torch.full((count, 21, 2), 0.5)
    uv[:, WRIST, 1] = 0.7
    for number in range(count):
        kind = number % 3
        for parent, child in skeleton.BONES:
            finger = (child - 1) // 4 - 2
            step = torch.tensor([(0.03, 0.0, 0.05)[kind] * finger, (-0.06, -0.01, -0.04)[kind]])
            uv[number, child] = uv[number, parent] + step + 0.004 * torch.randn(2, generator=random)
        uv[number, KNUCKLE, 0] = 0.5
    return uv


class LabelledHands:
    """Training data whose images say nothing."""

    endless = False

    def __init__(self, uv: torch.Tensor) -> None:
        self.uv = uv

    def __len__(self) -> int:
        return len(self.uv)

    def batch(self, indices: np.ndarray, draws: np.ndarray) -> dict[str, Any]:
        known = np.ones((len(indices), 21), dtype=bool)
        known[np.asarray(indices) == 1, 4] = False  # not whole, so not clustered
        uv = np.where(known[..., None], self.uv[indices].numpy(), np.nan).astype(np.float32)
        return {"image": np.zeros((len(indices), 3, 64, 64), np.float32), "uv": uv, "known": known}


def stage(config: rmgmn.Config, name: str) -> Stage:
    return next(stage for stage in rmgmn.stages(config) if stage.name == name)


def answering(network: rmgmn.Rmgmn, degrees: float) -> None:
    """Make the rotation net answer this angle, whatever it sees."""
    assert network.rotation is not None
    with torch.no_grad():
        network.rotation.answer.weight.zero_()
        network.rotation.answer.bias.copy_(torch.tensor([math.radians(degrees)]))


def test_answer_is_the_mixture_of_marginals_turned_back() -> None:
    torch.manual_seed(0)
    network = small().build().eval()
    answering(network, 40)
    assert network.rotation is not None
    assert network.models is not None
    assert network.classifier is not None
    torch.nn.init.uniform_(network.models.kernels)
    image = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        output = network(image)
        turn = torch.tensor([[math.cos(math.radians(40)), math.sin(math.radians(40))]]).expand(2, 2)
        upright = turn_maps(image, turn)
        unary = potentials(network.unary(upright)[-1])
        weights = network.classifier(upright).softmax(dim=1)
        mixed = sum(
            weights[:, model, None, None, None]
            * marginals(unary, potentials(network.models.kernels[model]), rmgmn.HAND, "direct")
            for model in range(3)
        )
        assert isinstance(mixed, torch.Tensor)
        expected = turn_maps(mixed, turn * torch.tensor([1.0, -1.0]))
    torch.testing.assert_close(output.turn, turn)
    torch.testing.assert_close(output.maps, expected, rtol=1e-4, atol=1e-6)


def test_a_turned_image_of_a_known_hand_is_found_in_the_original() -> None:
    """A unary branch that sees an upright hand perfectly; the answer is where the hand is in the image."""
    network = small(models=1, kernel_size=31).build().eval()
    answering(network, -70)
    upright = hands(1)
    turn = torch.tensor([[math.cos(math.radians(-70)), math.sin(math.radians(-70))]])
    maps = gaussian_maps(upright, torch.ones(1, 21, dtype=torch.bool), cells=16, size=64)
    network.unary = torch.nn.Module()
    network.unary.forward = lambda image: (maps,)  # type: ignore[method-assign, assignment]
    output = network(torch.zeros(1, 3, 64, 64))
    where = turn_uv(upright, turn * torch.tensor([1.0, -1.0]))
    assert (output.uv - where).abs().max() < 0.06  # a cell is 0.063


@pytest.mark.parametrize("models", [1, 3])
def test_kmeans_finds_the_kinds_of_hand_in_upright_positions(models: int) -> None:
    config = small(models=models)
    network = config.build()
    answering(network, 30)
    upright = hands(30)
    turn = torch.tensor([[math.cos(math.radians(30)), math.sin(math.radians(30))]]).expand(30, 2)
    data = LabelledHands(turn_uv(upright, turn * torch.tensor([1.0, -1.0])))
    rmgmn.prepare(network, rmgmn.stages(config)[0], data, config)
    assert not network.fitted
    rmgmn.prepare(network, stage(config, "graphical_models" if models == 1 else "classifier"), data, config)
    assert network.fitted
    found = rmgmn.clusters(network.centers, data.uv, turn)
    kinds = [set(found[kind::3].tolist()) for kind in range(3)]
    assert all(len(kind) == 1 for kind in kinds)
    assert len(set.union(*kinds)) == models
    whole = [index for index in range(0, 30, 3 if models == 3 else 1) if index != 1]
    first = int(found[0])
    mean = rmgmn.bones(upright)[whole].mean(dim=0)
    torch.testing.assert_close(network.centers[first], mean, rtol=0, atol=1e-5)
    known = torch.ones(len(whole), 21, dtype=torch.bool)
    assert network.models is not None
    kernels = kernel_maps(upright[whole], known, rmgmn.HAND.edges, 15, 16, 64).mean(dim=0)
    expected = kernels / kernels.amax(dim=(-2, -1), keepdim=True)
    torch.testing.assert_close(network.models.kernels[first].detach(), expected, rtol=1e-3, atol=1e-4)


def test_clusters_are_computed_once_and_alike() -> None:
    config = small()
    centers = []
    for _ in range(2):
        torch.manual_seed(0)
        network = config.build()
        rmgmn.prepare(network, stage(config, "classifier"), LabelledHands(hands(40)), config)
        centers.append(network.centers.clone())
        rmgmn.prepare(network, stage(config, "graphical_models"), LabelledHands(hands(40, seed=5)), config)
        assert torch.equal(network.centers, centers[-1])
    assert torch.equal(*centers)


def test_too_few_labelled_hands_for_the_clusters_are_named() -> None:
    config = small()
    with pytest.raises(ConfigError, match="2 of 3 training samples have all 21 keypoints labelled"):
        rmgmn.prepare(config.build(), stage(config, "classifier"), LabelledHands(hands(3)), config)


def test_five_phases_train_their_parts_on_their_losses() -> None:
    config = small()
    network = config.build()
    phases = [
        (stage.name, {name.split(".")[0] for name, _ in network.named_parameters() if stage.learns(name)},
         set(stage.loss_weights))
        for stage in rmgmn.stages(config)
    ]  # fmt: skip
    assert phases == [
        ("rotation", {"rotation"}, {"rotation"}),
        ("unary", {"unary"}, {"unary"}),
        ("classifier", {"classifier"}, {"classifier"}),
        ("graphical_models", {"models"}, {"final"}),
        ("joint", {"rotation", "unary", "classifier", "models"}, {"final"}),
    ]


@pytest.mark.parametrize(
    ("row", "changes", "phases"),
    [
        ("CPM Baseline", {"rotation": "none", "models": 0}, ["joint"]),
        ("CPM + Single GM", {"rotation": "none", "models": 1}, ["unary", "graphical_models", "joint"]),
        (
            "CPM + Mixture of GMs",
            {"rotation": "none"},
            ["unary", "classifier", "graphical_models", "joint"],
        ),
        ("Rotation + CPM 1", {"models": 0, "rotation_first": False}, ["joint"]),
        ("Rotation + CPM 2", {"models": 0}, ["rotation", "joint"]),
    ],
)
def test_rows_of_table_3_2_run_and_have_the_terms_they_train_on(
    row: str, changes: dict[str, Any], phases: list[str]
) -> None:
    config = small(**changes)
    network = config.build()
    assert [stage.name for stage in rmgmn.stages(config)] == phases
    uv, known = hands(2), torch.ones(2, 21, dtype=torch.bool)
    batch = {"image": torch.randn(2, 3, 64, 64), "uv": uv, "known": known}
    for phase in rmgmn.stages(config):
        network.set_stage(phase)
        network.train()
        terms = rmgmn.loss(network(batch["image"]), batch)
        assert set(phase.loss_weights) <= set(terms)
        sum(terms[name] for name in phase.loss_weights).backward()  # type: ignore[union-attr]
    learning = {name for name, p in network.named_parameters() if p.grad is not None}
    assert learning == {name for name, _ in network.named_parameters()}
    assert (config.rotation == "none") == (network.rotation is None)
    assert (config.models > 1) == (network.classifier is not None)


def test_the_classifier_learns_the_nearest_centre_after_the_turn() -> None:
    config = small()
    network = config.build()
    rmgmn.prepare(network, stage(config, "classifier"), LabelledHands(hands(30)), config)
    uv, known = hands(3), torch.ones(3, 21, dtype=torch.bool)
    known[2, 7] = False
    batch = {"image": torch.randn(3, 3, 64, 64), "uv": uv, "known": known}
    output = network(batch["image"])
    labels = rmgmn.clusters(network.centers, uv, output.turn)
    expected = torch.nn.functional.cross_entropy(output.classes[0][:2], labels[:2])
    torch.testing.assert_close(rmgmn.loss(output, batch)["classifier"], expected)


def test_gradient_reaches_the_rotation_net_through_the_warps() -> None:
    torch.manual_seed(0)
    config = small()
    network = config.build()
    batch = {
        "image": torch.randn(2, 3, 64, 64),
        "uv": hands(2),
        "known": torch.ones(2, 21, dtype=torch.bool),
    }
    rmgmn.loss(network(batch["image"]), batch)["final"].backward()
    assert network.rotation is not None
    gradient = network.rotation.answer.bias.grad
    assert gradient is not None
    assert gradient.abs().item() > 0


def test_paper_size_has_twenty_models_of_forty_kernels() -> None:
    with torch.device("meta"):
        network = rmgmn.Config().build()
    assert network.models is not None
    assert network.models.kernels.shape == (20, 40, 45, 45)
    assert sum(parameter.numel() for parameter in network.unary.parameters()) == 29_099_710


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"models": -1}, "models is -1, expected 0 or more"),
        ({"kernel_size": 33}, "kernel_size is 33, expected an odd number up to 31 for maps of 16 cells"),
        ({"rotation_first": False}, "graphical models are of hands already upright"),
        ({"classifier": "resnet7"}, "backbone is 'resnet7', expected one of small"),
        ({"pretrained": "x/y"}, "pretrained: VGG-19's weights fit cpm.width 128 without norm"),
    ],
)
def test_configurations_that_do_not_exist_are_named(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(message)):
        small(**changes)
