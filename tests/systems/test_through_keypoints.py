"""Systems that read what a trained keypoint network sees, in place of a backbone of their own."""

from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

from handgraph import systems
from handgraph.errors import CheckpointError, ConfigError
from handgraph.evaluation.measures import inputs
from handgraph.networks.heatmaps import keypoints_uv
from handgraph.networks.image_features import MapFeatures
from handgraph.networks.resnet10 import MapsToJoints
from handgraph.networks.stacked_hourglass import HourglassShape
from handgraph.synthetic.rgb import RgbSynthesizer
from handgraph.training.checkpoint import save_weights
from handgraph.training.loop import set_training

SHAPE = HourglassShape(1, 16, 2, "compact", 8, distribution=True)
# System → what it calls the keypoint network, and the network's weights.
CASES = {
    "hybrid_gcn": ("keypoints", "keypoints_weights"),
    "graph_refine": ("keypoints", "pretrained"),
    "identity_mesh": ("detector", "detector_weights"),
}


@pytest.fixture
def trained(tmp_path: Path) -> Path:
    """A hourglass's weights."""
    torch.manual_seed(1)
    config = systems.hourglass.Config(
        stacks=1, width=16, depth=2, form="compact", growth=8, distribution=True, input_size=64
    )
    save_weights(tmp_path / "hourglass.safetensors", config.build(), "hourglass", config)
    return tmp_path / "hourglass"


def built(name: str, weights: Path | None) -> tuple[ModuleType, Any, Any]:
    """The system looking through a keypoint network with these weights, ready for its first stage."""
    part, source = CASES[name]
    system = getattr(systems, name)
    config = system.Config(
        backbone="hourglass", input_size=64, **{part: SHAPE, source: weights and str(weights)}
    )
    module = config.build()
    if hasattr(system, "prepare"):
        system.prepare(module, system.stages(config)[0], None, config)
    return system, config, module


@pytest.mark.parametrize("name", CASES)
def test_the_trained_network_is_in_it_and_is_not_trained_further(name: str, trained: Path) -> None:
    system, config, module = built(name, trained)
    part = module.get_submodule(CASES[name][0])
    torch.manual_seed(1)
    original = SHAPE.build(21).state_dict()
    assert all(torch.equal(tensor, original[key]) for key, tensor in part.state_dict().items())

    stage, batch = system.stages(config)[0], RgbSynthesizer(0, "train", 64).batch(range(4))
    for key, parameter in module.named_parameters():
        parameter.requires_grad_(stage.learns(key))
    set_training(module, stage)
    if hasattr(module, "set_stage"):
        module.set_stage(stage)
    optimizer = torch.optim.SGD([p for p in module.parameters() if p.requires_grad], lr=1e-3)
    before = {key: tensor.clone() for key, tensor in module.state_dict().items()}
    terms = system.loss(module(*inputs(system, batch)), batch)
    sum(weight * terms[term] for term, weight in stage.loss_weights.items()).backward()
    optimizer.step()
    prefix = CASES[name][0] + "."
    changed = [key for key, tensor in module.state_dict().items() if not torch.equal(tensor, before[key])]
    assert changed
    assert not [key for key in changed if key.startswith(prefix)]


@pytest.mark.parametrize("name", CASES)
def test_weights_of_another_network_are_refused(name: str, tmp_path: Path) -> None:
    config = systems.hourglass.Config(
        stacks=1, width=24, depth=2, form="compact", distribution=True, input_size=64
    )
    save_weights(tmp_path / "wider.safetensors", config.build(), "hourglass", config)
    with pytest.raises(CheckpointError, match="wider: weights of another architecture"):
        built(name, tmp_path / "wider")


@pytest.mark.parametrize("name", CASES)
def test_the_image_must_suit_the_keypoint_network(name: str) -> None:
    deep = HourglassShape(1, 16, 4, "compact", distribution=True)
    with pytest.raises(ConfigError, match="expected a multiple of 64 for 4 halvings"):
        getattr(systems, name).Config(backbone="hourglass", input_size=96, **{CASES[name][0]: deep})


def test_its_features_and_maps_are_those_it_answers_with() -> None:
    network, image = SHAPE.build(21).eval(), torch.randn(2, 3, 64, 64)
    maps, features = network.describe(image)
    assert torch.equal(maps[-1], network(image)[-1])
    # With stacks=1 the head reads the maps from those features.
    logits = network.heads[0](features).flatten(2)
    torch.testing.assert_close(maps[-1].flatten(2), 2 * torch.pi * logits.softmax(dim=-1))


@pytest.mark.parametrize("kind", ["vector", "joints"])
def test_keypoints_and_peaks_are_told_beside_the_pooled_maps(kind: str) -> None:
    features = torch.randn(2, 16, 16, 16)
    maps = SHAPE.build(21)(torch.randn(2, 3, 64, 64))[-1].detach().requires_grad_()
    uv, peaks = keypoints_uv(maps.detach(), 64, "local"), maps.detach().amax(dim=(2, 3))
    if kind == "vector":
        told = MapFeatures(SHAPE).eval()(features, maps)
        assert told.shape == (2, 255)
        torch.testing.assert_close(told[:, 192:], torch.cat([uv.flatten(1), peaks], dim=1))
        beside = told[:, 192:]
    else:
        told = MapsToJoints(SHAPE, 8).eval()(features, maps)
        assert told.shape == (2, 21, 16 + 3)
        torch.testing.assert_close(told[..., 16:], torch.cat([uv, peaks[..., None]], dim=2))
        beside = told[..., 16:]
    (slope,) = torch.autograd.grad(beside.sum(), maps)  # reaches the maps through the blocks alone
    assert not slope.any()
