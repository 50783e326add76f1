"""What every system must do, whichever it is. A new system adds its smallest case to CASES."""

from collections.abc import Callable
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from handgraph import systems
from handgraph.camera import Crop, PinholeCamera
from handgraph.hand import Hand


@dataclass(frozen=True)
class Case:
    """The smallest configuration of a system, with a batch it can learn."""

    config: dict[str, Any]
    batch: Callable[[], dict[str, Any]]


def depth_batch() -> dict[str, Any]:
    """Four depth crops, each with dots at its joints' places and depths."""
    random = np.random.default_rng(0)
    crop = Crop.cube(np.array([20.0, 30.0, 500.0]), 250.0, PinholeCamera(500.0, 500.0, 160.0, 120.0), size=32)
    uvz = random.uniform([0.2, 0.2, -0.5], [0.8, 0.8, 0.5], (4, 21, 3)).astype(np.float32)
    image = np.ones((4, 1, 32, 32), np.float32)
    for sample in range(4):
        for u, v, z in uvz[sample]:
            image[sample, 0, round(v * 31), round(u * 31)] = z
    return {
        "image": torch.from_numpy(image),
        "uvz": torch.from_numpy(uvz),
        "joints_mm": torch.from_numpy(np.stack([crop.xyz_from_uvz(joints) for joints in uvz])).float(),
        "crops": [crop] * 4,
    }


CASES = {
    "jgr_p2o": Case({"width": 16, "input_size": 32, "hourglasses": 1}, depth_batch),
}


def train(
    system: ModuleType, network: nn.Module, config: Any, batch: dict[str, Any], steps: int
) -> list[float]:
    """The total loss before each step of the system's own first stage's loss, under Adam."""
    stage = system.stages(config)[0]
    optimizer = torch.optim.Adam([p for name, p in network.named_parameters() if stage.learns(name)], lr=3e-3)
    losses = []
    for _ in range(steps):
        terms: dict[str, Tensor] = system.loss(network(batch["image"]), batch)
        total = torch.stack([weight * terms[name] for name, weight in stage.loss_weights.items()]).sum()
        optimizer.zero_grad()
        total.backward()
        optimizer.step()
        losses.append(total.item())
    return losses


@pytest.fixture(params=systems.names())
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def build(name: str) -> tuple[ModuleType, Any, nn.Module, dict[str, Any]]:
    torch.manual_seed(0)
    system, case = systems.SYSTEMS[name], CASES[name]
    config = system.Config(**case.config)
    return system, config, config.build(), case.batch()


def test_names_are_attributes_of_the_package(name: str) -> None:
    assert getattr(systems, name) is systems.SYSTEMS[name]


def test_the_loss_falls_on_one_batch_with_finite_gradients(name: str) -> None:
    system, config, network, batch = build(name)
    losses = train(system, network, config, batch, steps=20)
    assert losses[-1] < 0.6 * losses[0]
    assert all(torch.isfinite(p.grad).all() for p in network.parameters() if p.grad is not None)


def test_hands_are_decoded_where_the_joints_are(name: str) -> None:
    system, _, network, batch = build(name)
    output = network.eval()(batch["image"])
    hands = system.decode(output, batch["crops"])
    assert len(hands) == len(batch["image"])
    for hand, joints in zip(hands, system.joints_mm(output, batch["crops"]), strict=True):
        assert isinstance(hand, Hand)
        np.testing.assert_allclose(hand.joints_mm, joints, rtol=1e-5)
        np.testing.assert_allclose(hand.keypoints_px, hand.camera.uvd_from_xyz(joints)[:, :2], rtol=1e-4)


def test_every_sample_is_answered_for_itself(name: str) -> None:
    system, _, network, batch = build(name)
    network.eval()
    together = system.joints_mm(network(batch["image"]), batch["crops"])
    alone = system.joints_mm(network(batch["image"][2:3]), batch["crops"][2:3])
    np.testing.assert_allclose(alone[0], together[2], rtol=1e-4)


def test_weights_saved_and_loaded_give_the_same_answer(name: str) -> None:
    system, config, network, batch = build(name)
    train(system, network, config, batch, steps=1)  # running statistics that are not the initial ones
    torch.manual_seed(1)
    other = config.build()
    other.load_state_dict(network.state_dict())
    crops = batch["crops"]
    ours, theirs = (system.joints_mm(net.eval()(batch["image"]), crops) for net in (network, other))
    np.testing.assert_array_equal(ours, theirs)


def test_the_network_can_be_traced_without_looking_at_its_data(name: str) -> None:
    """`torch.export` refuses control flow that depends on values; what it gives must answer alike."""
    _, _, network, batch = build(name)
    network.eval()
    program = torch.export.export(network, (batch["image"],)).module()
    for ours, theirs in zip(
        torch.utils._pytree.tree_leaves(network(batch["image"])),
        torch.utils._pytree.tree_leaves(program(batch["image"])),
        strict=True,
    ):
        assert torch.allclose(ours, theirs, atol=1e-5)
