"""What every system must do, whichever it is. A new system adds its smallest case to CASES."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from torch import Tensor, nn

from handgraph import systems
from handgraph.camera import Crop, PinholeCamera
from handgraph.datasets.image_crops import colour_batch as lay_out
from handgraph.datasets.image_crops import crop_labels
from handgraph.datasets.sample import Sample
from handgraph.evaluation.measures import inputs
from handgraph.hand import Hand
from handgraph.hand_model.files import load_open_hand
from handgraph.hand_model.layer import HandLayer
from handgraph.networks.cpm import PoseMachineShape
from handgraph.networks.stacked_hourglass import HourglassShape
from handgraph.skeleton import OPENPOSE


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


def colour_batch(size: int = 64) -> dict[str, Any]:
    """Four photographs of posed hands, two right and two left, each joint a dot of its own colour on grey."""
    random, camera = np.random.default_rng(0), PinholeCamera(400.0, 400.0, 150.0, 110.0)
    layer = HandLayer(load_open_hand())
    colors = random.integers(0, 256, (21, 3))
    images, labels = [], []
    for number in range(4):
        pose = 0.3 * random.standard_normal(48)
        joints = layer.joints(torch.zeros(1, 10), torch.from_numpy(pose).float()[None])[0].double().numpy()
        joints = joints - joints.mean(axis=0) + [10.0, -5.0, 450.0]
        left = number >= 2
        if left:
            joints, pose = joints * [-1, 1, 1], (pose.reshape(16, 3) * [1, -1, -1]).reshape(48)
        keypoints = camera.uvd_from_xyz(joints)[:, :2]
        picture = np.full((220, 300, 3), 90, np.uint8)
        for (u, v), color in zip(keypoints, colors, strict=True):
            cv2.circle(picture, (round(u), round(v)), 6, color.tolist(), -1)
        sample = Sample(
            str(number), Path("dots"), OPENPOSE, keypoints, joints, image=picture, camera=camera,
            side="left" if left else "right", pose=pose, shape=np.zeros(10),
        )  # fmt: skip
        low, high = keypoints.min(axis=0) - 20, keypoints.max(axis=0) + 20
        crop = Crop.window((*low, *(high - low)), size, camera, mirrored=left)
        images.append(crop.apply_image(picture))
        labels.append(crop_labels(sample, crop))
    return lay_out(np.stack(images), labels)


SMALL_MACHINE = PoseMachineShape(stages=2, width=8, stride=4, norm=True)

CASES = {
    "jgr_p2o": Case({"width": 16, "input_size": 32, "hourglasses": 1}, depth_batch),
    "siapose": Case(
        {
            "unary": "hourglass",
            "hourglass": HourglassShape(2, 16, 2, "compact"),
            "input_size": 64,
            "heads": 2,
            "layers": 2,
            "kernel_size": 15,
            "pointer": "small",
        },
        colour_batch,
    ),
    "rmgmn": Case(
        {
            "cpm": SMALL_MACHINE,
            "input_size": 64,
            "models": 2,
            "kernel_size": 31,
            "rotation_backbone": "small",
            "classifier": "small",
        },
        colour_batch,
    ),
    "agmn": Case(
        {"cpm": SMALL_MACHINE, "pairwise": SMALL_MACHINE, "input_size": 64, "kernel_size": 15}, colour_batch
    ),
    "cpm": Case({"width": 16, "input_size": 64, "stages": 2, "stride": 4, "norm": True}, colour_batch),
    "hourglass": Case(
        {"width": 16, "input_size": 64, "stacks": 2, "depth": 2, "form": "compact", "growth": 8}, colour_batch
    ),
    "graph_refine": Case({"width": 16, "blocks": 2, "input_size": 64}, colour_batch),
    "identity_mesh": Case({"detector": HourglassShape(1, 16, 2, "compact"), "input_size": 64}, colour_batch),
    "hybrid_gcn": Case({"width": 8, "hidden": 32, "input_size": 64}, colour_batch),
}


def train(
    system: ModuleType, network: nn.Module, config: Any, batch: dict[str, Any], steps: int
) -> list[float]:
    """The total loss before each step of the system's own first stage's loss, under Adam."""
    stage = system.stages(config)[0]
    optimizer = torch.optim.Adam([p for name, p in network.named_parameters() if stage.learns(name)], lr=3e-3)
    losses = []
    for _ in range(steps):
        terms: dict[str, Tensor] = system.loss(network(*inputs(system, batch)), batch)
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
    system, case = getattr(systems, name), CASES[name]
    config = system.Config(**case.config)
    return system, config, config.build(), case.batch()


def test_names_are_attributes_of_the_package(name: str) -> None:
    assert getattr(systems, name).__name__ == f"handgraph.systems.{name}"


def test_the_loss_falls_on_one_batch_with_finite_gradients(name: str) -> None:
    system, config, network, batch = build(name)
    losses = train(system, network, config, batch, steps=20)
    assert losses[-1] < 0.6 * losses[0]
    assert all(torch.isfinite(p.grad).all() for p in network.parameters() if p.grad is not None)


def answers(system: ModuleType, network: nn.Module, batch: dict[str, Any]) -> dict[str, np.ndarray]:
    """All that the system says of a batch in numbers: 3D in the camera frame, 3D about the wrist, pixels."""
    output, crops = network(*inputs(system, batch)), batch["crops"]
    said = {}
    if hasattr(system, "joints_mm"):
        said["joints_mm"] = system.joints_mm(output, crops)
    if hasattr(system, "relative_mm"):
        said["relative_mm"] = system.relative_mm(output, crops, np.full(len(crops), 40.0))
    if hasattr(system, "keypoints_px"):
        said["keypoints_px"] = system.keypoints_px(output, crops)
    assert said
    return said


def part(batch: dict[str, Any], which: slice) -> dict[str, Any]:
    return {name: values[which] for name, values in batch.items()}


def test_hands_are_decoded_where_the_joints_are(name: str) -> None:
    system, _, network, batch = build(name)
    network.eval()
    said = answers(system, network, batch)
    hands = system.decode(network(*inputs(system, batch)), batch["crops"])
    assert len(hands) == len(batch["image"])
    for index, (hand, crop) in enumerate(zip(hands, batch["crops"], strict=True)):
        assert isinstance(hand, Hand)
        assert hand.side == ("left" if crop.mirrored else "right")
        assert hand.confidence is not None
        if "joints_mm" in said:
            np.testing.assert_allclose(hand.joints_mm, said["joints_mm"][index], rtol=1e-5)
            projected = hand.camera.uvd_from_xyz(said["joints_mm"][index])[:, :2]
            np.testing.assert_allclose(hand.keypoints_px, projected, rtol=1e-4)
        if "keypoints_px" in said:
            np.testing.assert_allclose(hand.keypoints_px, said["keypoints_px"][index], rtol=1e-5, atol=1e-3)


def test_every_sample_is_answered_for_itself(name: str) -> None:
    system, _, network, batch = build(name)
    network.eval()
    together = answers(system, network, batch)
    for key, alone in answers(system, network, part(batch, slice(2, 3))).items():
        np.testing.assert_allclose(alone[0], together[key][2], rtol=1e-4, atol=1e-2)


def test_weights_saved_and_loaded_give_the_same_answer(name: str) -> None:
    system, config, network, batch = build(name)
    train(system, network, config, batch, steps=1)  # running statistics that are not the initial ones
    torch.manual_seed(1)
    other = config.build()
    other.load_state_dict(network.state_dict())
    ours, theirs = (answers(system, net.eval(), batch) for net in (network, other))
    for key, value in ours.items():
        np.testing.assert_array_equal(value, theirs[key])


def test_the_network_can_be_traced_without_looking_at_its_data(name: str) -> None:
    """`torch.export` refuses control flow that depends on values; what it gives must answer alike."""
    system, _, network, batch = build(name)
    network.eval()
    program = torch.export.export(network, inputs(system, batch)).module()
    for ours, theirs in zip(
        torch.utils._pytree.tree_leaves(network(*inputs(system, batch))),
        torch.utils._pytree.tree_leaves(program(*inputs(system, batch))),
        strict=True,
    ):
        assert torch.allclose(ours, theirs, atol=1e-5)
