"""Graph refinement: each equation written out, what trains when, frames and units."""

import json
import os
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import jaxtyping
import numpy as np
import pytest
import roma
import torch
from safetensors.torch import load_file
from torch import nn

from handgraph import skeleton
from handgraph.camera import Crop, PinholeCamera
from handgraph.datasets.image_crops import pose_in_crop
from handgraph.decoding import graph_refine as decoding
from handgraph.decoding.frames import camera_pose
from handgraph.errors import ConfigError, InputError
from handgraph.hand_model import HandLayer, load_open_hand
from handgraph.networks.discriminator import MultiSourceDiscriminator, SingleSourceDiscriminator
from handgraph.networks.heatmaps import keypoints_uv
from handgraph.networks.image_features import build_features
from handgraph.networks.stacked_hourglass import HourglassShape
from handgraph.systems import graph_refine
from handgraph.systems.graph_refine import Config, GraphResBlock, Output
from handgraph.training.checkpoint import load_system
from handgraph.training.loop import train
from handgraph.training.recipe import Recipe
from handgraph.training.recipe import build as build_recipe

SMALL: dict[str, Any] = {"width": 16, "blocks": 2, "input_size": 64}


def batch(count: int = 3, seed: int = 0) -> dict[str, Any]:
    """Images of noise with labels that agree with one another: hands before cameras."""
    random = np.random.default_rng(seed)
    pose = 0.2 * random.standard_normal((count, 48))
    joints = HandLayer().joints(torch.zeros(count, 10), torch.from_numpy(pose).float())
    wrist = torch.from_numpy(random.uniform([-50, -50, 450], [50, 50, 650], (count, 3))).float()
    crops = []
    for index in range(count):
        box = (100.0 + 9 * index, 80.0, 200.0, 200.0)
        camera = PinholeCamera(500.0, 510.0, 200.0, 180.0)
        crops.append(Crop.window(box, 64, camera, mirrored=index % 2 == 1, rotation_rad=0.3 * index))
    cameras = torch.from_numpy(np.stack([crop.crop_camera for crop in crops])).float()
    relative = joints - joints[:, :1]
    seen = (relative + wrist[:, None]) @ cameras.mT
    turns = torch.from_numpy(np.stack([crop.crop_from_camera for crop in crops])).float()
    return {
        "image": torch.from_numpy(random.standard_normal((count, 3, 64, 64))).float(),
        "uv": seen[..., :2] / seen[..., 2:],
        "known": torch.ones(count, 21, dtype=torch.bool),
        "relative_mm": relative,
        "wrist_mm": wrist,
        "crop_camera": cameras,
        "joints_mm": (relative + wrist[:, None]) @ turns,
        "crops": crops,
    }


def build(seed: int = 0, **changes: Any) -> nn.Module:
    torch.manual_seed(seed)
    return Config(**SMALL | changes).build()


def shaken(network: nn.Module) -> nn.Module:
    """The network with its refinement and code away from where they start."""
    torch.manual_seed(7)
    with torch.no_grad():
        network.refinement.deform.weight.normal_(std=0.05)
        network.prior.code[2].weight.normal_(std=0.1)
        network.doubt.weight.normal_(std=0.1)
    return network


def truth(data: dict[str, Any]) -> Output:
    """The output that is right about everything."""
    count, wrist, camera = len(data["image"]), data["wrist_mm"], data["crop_camera"]
    seen = (wrist[:, None] @ camera.mT)[:, 0]
    focal = (camera[:, 0, 0] * camera[:, 1, 1]).sqrt()
    depth = (wrist[:, 2] / (focal * graph_refine.WINDOW_MM)).log()
    return Output(
        data["relative_mm"],
        data["relative_mm"],
        torch.eye(3).expand(count, 3, 3),
        torch.zeros(count, 45),
        torch.zeros(count, 10),
        torch.ones(count),
        torch.cat([seen[:, :2] / seen[:, 2:], depth[:, None]], dim=1),
        torch.zeros(count, 20),
        None,
    )


# --- Equations ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rotation", ["axis_angle", "6d"])
def test_prior_is_equation_1(rotation: str) -> None:
    network = shaken(build(rotation=rotation)).eval()
    data = batch()
    output = network(data["image"])
    layer = HandLayer()
    for index in range(3):
        theta = torch.cat([torch.zeros(3), output.fingers[index]]).detach()
        hand = layer(output.shape[index].detach(), theta)
        points = (hand.joints_mm - hand.joints_mm[0]).numpy()  # P(θ, β), its wrist at the origin
        turn = output.rotation[index].detach().numpy()
        np.testing.assert_allclose(turn @ turn.T, np.eye(3), atol=1e-5)
        assert np.linalg.det(turn) == pytest.approx(1, abs=1e-5)
        scale = output.scale[index].item()
        prior = np.stack([scale * turn @ point for point in points])
        np.testing.assert_allclose(output.prior_mm[index].detach(), prior, rtol=1e-4, atol=1e-3)
        vertices = scale * (hand.vertices_mm - hand.joints_mm[0]).numpy() @ turn.T
        np.testing.assert_allclose(output.vertices_mm[index].detach(), vertices, rtol=1e-4, atol=1e-3)
    network.train()
    assert network(data["image"]).vertices_mm is None


def test_code_starts_at_an_upright_relaxed_hand_with_its_palm_to_the_camera() -> None:
    data = batch()
    for rotation in ("axis_angle", "6d"):
        network = build(rotation=rotation).eval()
        with torch.no_grad():
            network.prior.code[2].weight.zero_()
        output = network(data["image"])
        joints = output.prior_mm[0].detach()
        assert joints[12, 1] < -100  # the middle finger's tip is above the wrist: y is down
        assert joints[4, 0] > joints[20, 0]  # a right hand's thumb is on the right when one sees its palm
        np.testing.assert_allclose(
            output.fingers[0].detach(), network.prior.layer.model.hands_mean, atol=1e-6
        )
        # Fingers bend towards the palm, so towards the camera.
        assert joints[8, 2] < joints[5, 2]


def naive_block(block: GraphResBlock, x: np.ndarray) -> np.ndarray:
    looped = skeleton.adjacency(21, skeleton.BONES) + np.eye(21)
    degree = np.diag(looped.sum(1) ** -0.5)

    def g(layer: Any, x: np.ndarray) -> np.ndarray:
        weight, bias = (p.detach().numpy() for p in (layer.transform.weight, layer.transform.bias))
        return np.maximum(degree @ looped @ degree @ (x @ weight.T + bias), 0)

    def norm(layer: Any, x: np.ndarray) -> np.ndarray:
        if layer.over_features is not None:
            mean, variance = x.mean(-1, keepdims=True), x.var(-1, keepdims=True)
            weight, bias = layer.over_features.weight, layer.over_features.bias
        elif layer.over_batch is not None:
            mean, variance = x.mean((0, 1)), x.var((0, 1))
            weight, bias = layer.over_batch.weight, layer.over_batch.bias
        else:
            return x
        return (x - mean) / np.sqrt(variance + 1e-5) * weight.detach().numpy() + bias.detach().numpy()

    # N(g(N(g(X)))) + skip(X)
    return norm(block.norm2, g(block.second, norm(block.norm1, g(block.first, x)))) + g(block.skip, x)


@pytest.mark.parametrize("normalization", ["batch", "layer", "none"])
def test_graph_res_block_is_equation_3(normalization: Any) -> None:
    torch.manual_seed(0)
    block = GraphResBlock(5, 8, normalization)
    with torch.no_grad():
        for parameter in block.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    network = build()
    x = np.random.default_rng(1).normal(size=(4, 21, 5)).astype(np.float32)
    ours = block(torch.from_numpy(x), network.refinement.adjacency).detach()
    np.testing.assert_allclose(ours, naive_block(block, x), rtol=1e-3, atol=1e-4)


def test_refined_pose_is_equation_2() -> None:
    network = shaken(build(normalization="layer")).eval()
    data = batch()
    output = network(data["image"])
    f = network.refinement.features(data["image"]).detach().numpy()
    prior = output.prior_mm.detach().numpy()
    x = np.concatenate([prior / graph_refine.UNIT_MM, np.repeat(f[:, None], 21, axis=1)], axis=2)
    for block in network.refinement.blocks:
        x = naive_block(block, x)
    weight, bias = (p.detach().numpy() for p in network.refinement.deform.parameters())
    refined = prior + graph_refine.UNIT_MM * (x @ weight.T + bias)
    assert np.abs(refined - prior).max() > 1
    np.testing.assert_allclose(output.refined_mm.detach(), refined, rtol=1e-3, atol=1e-2)


def test_joints_are_told_how_far_their_keypoints_lie_beside_them() -> None:
    """With backbone hourglass: the pinhole without a camera, solved for the step across the picture."""
    glass = HourglassShape(1, 16, 2, "compact", 8, distribution=True)
    network = shaken(build(backbone="hourglass", keypoints=glass)).eval()
    told: list[torch.Tensor] = []
    network.refinement.register_forward_pre_hook(lambda module, inputs: told.append(inputs[0].detach()))
    image = batch()["image"]
    output = network(image)
    assert told[0].shape == (3, 21, 6)
    prior, place = output.prior_mm.detach(), output.place.detach()
    torch.testing.assert_close(100 * told[0][..., :3], prior)
    moved = prior.clone()
    moved[..., :2] += 100 * told[0][..., 3:5]
    maps = network.keypoints(image)[-1]
    seen = graph_refine.project(moved, place, torch.full((3, 3, 3), torch.nan))
    torch.testing.assert_close(seen, keypoints_uv(maps, 64, "local"), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(told[0][..., 5], maps.amax(dim=(2, 3)))


def test_refinement_begins_from_the_priors_backbone_where_that_reads_keypoints() -> None:
    glass = HourglassShape(1, 16, 2, "compact", 8, distribution=True)
    for changes, same in (({"backbone": "hourglass", "keypoints": glass}, True), ({}, False)):
        network = build(**changes)
        prior, generator, adversarial = graph_refine.stages(network.config)
        ours, theirs = (part.features.state_dict() for part in (network.refinement, network.prior))
        name = next(name for name in ours if name.endswith("conv1.weight"))
        graph_refine.prepare(network, prior, None, network.config)
        assert not torch.equal(ours[name], theirs[name])
        graph_refine.prepare(network, generator, None, network.config)
        assert torch.equal(ours[name], theirs[name]) == same
        with torch.no_grad():
            ours[name].add_(1)
        graph_refine.prepare(network, adversarial, None, network.config)
        assert not torch.equal(ours[name], theirs[name])


@pytest.mark.parametrize("refinement", ["gcn", "fc"])
def test_refinement_starts_at_the_prior_and_learns_away_from_it(refinement: str) -> None:
    network, data = build(refinement=refinement), batch()
    output = network(data["image"])
    torch.testing.assert_close(output.refined_mm, output.prior_mm)
    graph_refine.loss(output, data)["pose"].backward()
    assert network.refinement.deform.weight.grad.abs().max() > 0


def test_fc_refinement_mixes_joints_without_a_graph() -> None:
    network = shaken(build(refinement="fc", normalization="none")).eval()
    pose = torch.randn(1, 21, 3, requires_grad=True)
    network.refinement(pose, batch(1)["image"])[0, 4].sum().backward()
    assert pose.grad.abs().sum(2).gt(0).all()  # the thumb's tip hears of every joint, through any blocks
    graph = shaken(build(blocks=2)).eval()
    pose.grad = None
    graph.refinement(pose, batch(1)["image"])[0, 4].sum().backward()
    heard = pose.grad[0].abs().sum(1).gt(0)
    assert not heard[12]  # two blocks of two convolutions reach four bones away, this tip is eight


def test_place_and_projection_are_the_pinhole_written_out() -> None:
    data = batch()
    output = truth(data)
    c_t = graph_refine.translation_mm(output.place, data["crop_camera"])
    torch.testing.assert_close(c_t, data["wrist_mm"], rtol=1e-4, atol=1e-2)
    uv = graph_refine.project(data["relative_mm"], output.place, data["crop_camera"])
    torch.testing.assert_close(uv, data["uv"], rtol=1e-4, atol=1e-5)
    flat = graph_refine.project(data["relative_mm"], output.place, torch.full((3, 3, 3), torch.nan))
    depth = graph_refine.WINDOW_MM * output.place[:, 2].exp()
    naive = output.place[:, None, :2] + data["relative_mm"][..., :2] / depth[:, None, None]
    torch.testing.assert_close(flat, naive)
    assert (flat - data["uv"]).abs().max() < 0.2  # near what the camera sees


def test_losses_are_written_out_and_zero_for_the_truth() -> None:
    data = batch()
    for name, term in graph_refine.loss(truth(data), data).items():
        if name not in ("parameters", "doubt"):
            assert term.item() == pytest.approx(0, abs=2e-2), name
    output = shaken(build()).eval()(data["image"])
    data["relative_mm"][0, 5] = torch.nan
    data["known"][1, 3] = False
    terms = graph_refine.loss(output, data)
    for prefix, joints in (("", output.refined_mm), ("prior_", output.prior_mm)):
        joints = joints.detach().numpy()
        relative, true = joints - joints[:, :1], data["relative_mm"].numpy()
        distances = np.linalg.norm(relative - true, axis=-1)
        assert terms[f"{prefix}pose"].item() == pytest.approx(np.nanmean(distances), rel=1e-4)
        c_t = graph_refine.translation_mm(output.place.detach(), data["crop_camera"]).numpy()
        seen = np.einsum("bij,bnj->bni", data["crop_camera"].numpy(), joints + c_t[:, None])
        pixels = 223 * np.linalg.norm(seen[..., :2] / seen[..., 2:] - data["uv"].numpy(), axis=-1)
        projection = terms[f"{prefix}projection"].item()
        assert projection == pytest.approx(pixels[data["known"].numpy()].mean(), rel=1e-3)
        length = direction = 0.0
        for i, j in skeleton.BONES:
            ours, theirs = relative[:, j] - relative[:, i], true[:, j] - true[:, i]
            length += np.nansum(np.abs(np.linalg.norm(ours, axis=1) - np.linalg.norm(theirs, axis=1)))
            unit = [b / np.linalg.norm(b, axis=1, keepdims=True) for b in (ours, theirs)]
            direction += np.nansum(np.linalg.norm(unit[0] - unit[1], axis=1))
        assert terms[f"{prefix}length"].item() == pytest.approx(length / 3, rel=1e-4)
        assert terms[f"{prefix}direction"].item() == pytest.approx(direction / 3, rel=1e-4)


def test_unknown_labels_leave_values_and_gradients_finite() -> None:
    data = batch()
    data["relative_mm"][0], data["wrist_mm"][0], data["crop_camera"][0] = torch.nan, torch.nan, torch.nan
    data["known"][1], data["uv"][1] = False, torch.nan
    data["relative_mm"][1, 7] = torch.nan
    network = shaken(build())
    stage = graph_refine.stages(network.config)[-1]
    adversary = graph_refine.adversary(network.config)
    for labels in (data, data | {"relative_mm": torch.full((3, 21, 3), torch.nan)}):
        network.zero_grad()
        output = network(data["image"])
        terms = graph_refine.loss(output, labels) | graph_refine.deceive(adversary, output, labels)
        sum(weight * terms[name] for name, weight in stage.loss_weights.items()).backward()
        assert all(torch.isfinite(term) for term in terms.values())
        assert all(torch.isfinite(p.grad).all() for p in network.parameters() if p.grad is not None)
        fixed = Output(*(None if field is None else field.detach() for field in output))
        graph_refine.adversary_loss(adversary, fixed, labels)["critic"].backward()
        assert all(torch.isfinite(p.grad).all() for p in adversary.parameters())


def test_doubt_teaches_itself_alone_and_becomes_the_mean_error() -> None:
    network, data = build(), batch()
    graph_refine.loss(network(data["image"]), data)["doubt"].backward()
    learned = {
        name for name, p in network.named_parameters() if p.grad is not None and p.grad.abs().max() > 0
    }
    assert learned == {"doubt.weight", "doubt.bias"}
    shift_mm = torch.tensor([30.0, 40.0, 0.0]) * torch.arange(21)[:, None] / 20
    output = truth(data)._replace(refined_mm=data["relative_mm"] + shift_mm)
    errors = 50 * torch.arange(1, 21) / 20 + 1
    best = output._replace(doubt=errors.log().expand(3, 20))
    value = graph_refine.loss(best, data)["doubt"]
    for shift in (-0.1, 0.1):
        worse = output._replace(doubt=best.doubt + shift)
        assert graph_refine.loss(worse, data)["doubt"] > value
    confidence = decoding.confidence(best.doubt.exp())
    np.testing.assert_allclose(confidence[0, 1:], 1 - np.exp(-50 / errors.numpy()), rtol=1e-5)


# --- Stages ---------------------------------------------------------------------------------------------


def test_stages_are_the_papers() -> None:
    prior, generator, adversarial = graph_refine.stages(Config())
    assert [s.epochs for s in (prior, generator, adversarial)] == [100, 100, 100]
    assert [s.learning_rate for s in (prior, generator, adversarial)] == [1e-3, 1e-4, 1e-4]
    assert all(s.optimizer == "adam" for s in (prior, generator, adversarial))
    assert [s.critic_steps for s in (prior, generator, adversarial)] == [0, 0, 1]
    weights = {"pose": 1.0, "projection": 0.1, "length": 0.01, "direction": 0.1}
    assert {k: v for k, v in generator.loss_weights.items() if k != "doubt"} == weights
    assert {k: v for k, v in prior.loss_weights.items() if k != "doubt"} == {
        f"prior_{k}": v for k, v in weights.items()
    }
    assert adversarial.loss_weights == generator.loss_weights | {"wasserstein": 0.01}
    names = {name for name, _ in build().named_parameters()}
    assert all(generator.learns(name) and adversarial.learns(name) for name in names)
    assert {name for name in names if not prior.learns(name)} == {n for n in names if "refinement" in n}


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"refinement": "none", "discriminator": "none"}, ["prior"]),
        ({"discriminator": "none"}, ["prior", "generator"]),
        ({"refinement": "none"}, ["prior", "adversarial"]),
        ({"refinement": "fc", "discriminator": "single"}, ["prior", "generator", "adversarial"]),
    ],
)
def test_every_configuration_trains_in_its_stages(changes: dict[str, Any], expected: list[str]) -> None:
    network, data = build(**changes), batch()
    plan = graph_refine.stages(network.config)
    assert [stage.name for stage in plan] == expected
    for stage in plan:
        network.set_stage(stage)
        for name, parameter in network.named_parameters():
            parameter.requires_grad_(stage.learns(name))
            parameter.grad = None
        output = network(data["image"])
        terms = graph_refine.loss(output, data)
        if stage.critic_steps:
            adversary = graph_refine.adversary(network.config)
            terms |= graph_refine.deceive(adversary, output, data)
        sum(weight * terms[name] for name, weight in stage.loss_weights.items()).backward()
        missing = [n for n, p in network.named_parameters() if p.requires_grad and p.grad is None]
        assert not missing


def test_the_discriminator_is_not_among_the_generators_weights() -> None:
    with_one, without = build(), build(discriminator="none")
    assert with_one.state_dict().keys() == without.state_dict().keys()
    adversary = graph_refine.adversary(with_one.config)
    assert isinstance(adversary, MultiSourceDiscriminator)
    single = graph_refine.adversary(Config(discriminator="single"))
    assert isinstance(single, SingleSourceDiscriminator)
    with pytest.raises(ConfigError, match="discriminator is 'none': leave the adversarial stage out"):
        graph_refine.adversary(Config(discriminator="none"))


def test_critic_and_generator_pull_in_opposite_directions() -> None:
    network, data = shaken(build()), batch()
    adversary = graph_refine.adversary(network.config).eval()
    output = network(data["image"])
    terms = graph_refine.adversary_loss(adversary, output, data)
    image, true = data["image"], data["relative_mm"]
    fake = output.refined_mm - output.refined_mm[:, :1]
    gap = adversary(image, true).mean() - adversary(image, fake).mean()
    assert terms["score_gap"].item() == pytest.approx(gap.item(), rel=1e-4)
    assert terms["critic"].item() == pytest.approx(-gap.item(), rel=1e-4)
    deceive = graph_refine.deceive(adversary, output, data)["wasserstein"]
    assert deceive.item() == pytest.approx(-adversary(image, fake).mean().item(), rel=1e-4)
    assert graph_refine.adversary_measures(adversary, output, data)["lipschitz"] > 0


def test_stage_one_leaves_the_refinement_out() -> None:
    network = shaken(build())
    prior, generator, _ = graph_refine.stages(network.config)
    image = batch()["image"]
    network.set_stage(prior)
    output = network(image)
    torch.testing.assert_close(output.refined_mm, output.prior_mm, rtol=0, atol=0)
    network.set_stage(generator)
    assert (network(image).refined_mm - output.prior_mm).abs().max() > 1


def test_pretrained_weights_fill_both_backbones_before_the_first_stage(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    torch.manual_seed(5)
    features = build_features("small")
    save_file(features.state_dict(), tmp_path / "imagenet.safetensors")
    network = build(pretrained=str(tmp_path / "imagenet.safetensors"))
    prior, generator, _ = graph_refine.stages(network.config)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    graph_refine.prepare(network, generator, None, network.config)
    assert all(torch.equal(before[name], value) for name, value in network.state_dict().items())
    graph_refine.prepare(network, prior, None, network.config)
    for part in (network.prior, network.refinement):
        for name, value in features.state_dict().items():
            assert torch.equal(part.features.state_dict()[name], value)


# --- Answers --------------------------------------------------------------------------------------------


def test_answers_are_in_the_camera_frame_with_left_hands_mirrored_back() -> None:
    data = batch()
    output = truth(data)
    joints = graph_refine.joints_mm(output, data["crops"])
    np.testing.assert_allclose(joints, data["joints_mm"], rtol=1e-4, atol=1e-2)
    relative = graph_refine.relative_mm(output, data["crops"])
    np.testing.assert_allclose(relative, joints - joints[:, :1], atol=1e-6)
    keypoints = graph_refine.keypoints_px(output, data["crops"])
    camera = data["crops"][0].camera
    np.testing.assert_allclose(keypoints, camera.uvd_from_xyz(joints)[..., :2], rtol=1e-5)
    # Not mirroring back would be silent in the image alone.
    assert np.abs(data["relative_mm"][1].numpy() - relative[1]).max() > 50


def test_decoded_pose_shape_and_mesh_are_one_hand_at_the_joints() -> None:
    data = batch()
    network = shaken(build(rotation="6d")).eval()
    prior = network(data["image"])
    output = truth(data)._replace(
        rotation=prior.rotation, fingers=prior.fingers, vertices_mm=prior.vertices_mm
    )
    hands = graph_refine.decode(output, data["crops"])
    assert [hand.side for hand in hands] == ["right", "left", "right"]
    for index, hand in enumerate(hands):
        np.testing.assert_allclose(hand.joints_mm, data["joints_mm"][index], rtol=1e-4, atol=1e-1)
        layer = HandLayer(side=hand.side)
        mesh = layer(torch.from_numpy(hand.shape)[None].float(), torch.from_numpy(hand.pose)[None].float())
        joints = (mesh.joints_mm[0] - mesh.joints_mm[0, 0]).numpy()
        # The model can take the true pose exactly; priors and limits of the fit hold it back a little.
        assert np.linalg.norm(joints + hand.joints_mm[0] - hand.joints_mm, axis=1).mean() < 3
        vertices = (mesh.vertices_mm[0] - mesh.joints_mm[0, 0]).numpy() + hand.joints_mm[0]
        np.testing.assert_allclose(hand.vertices_mm, vertices, atol=0.05)
        assert ((hand.confidence >= 0) & (hand.confidence <= 1)).all()


def test_pose_goes_back_to_the_camera_as_it_came() -> None:
    random = np.random.default_rng(3)
    for crop in batch(4)["crops"]:
        pose = random.normal(0, 0.5, 48)
        there = pose_in_crop(pose, crop)
        back = camera_pose(there, crop.crop_from_camera, mirrored=crop.mirrored)
        ours, theirs = (roma.rotvec_to_rotmat(torch.from_numpy(p.reshape(16, 3))) for p in (back, pose))
        torch.testing.assert_close(ours, theirs)


def test_without_a_camera_all_is_about_the_wrist() -> None:
    data = batch()
    output = truth(data)
    bare = [Crop(crop.crop_from_image, crop.size, None, mirrored=crop.mirrored) for crop in data["crops"]]
    hands = graph_refine.decode(output._replace(vertices_mm=None), bare)
    for index, hand in enumerate(hands):
        assert hand.frame.startswith("relative to the wrist")
        assert hand.camera is None
        np.testing.assert_allclose(hand.joints_mm[0], 0, atol=1e-9)
        true = data["joints_mm"][index] - data["joints_mm"][index, :1]
        # fx and fy differ by 2 %, which nobody can know now.
        np.testing.assert_allclose(hand.joints_mm, true, atol=4)
    with pytest.raises(InputError, match="no camera"):
        graph_refine.joints_mm(output, bare)


def test_mesh_of_another_hand_is_the_priors() -> None:
    data = batch()
    vertices = torch.randn(3, 778, 3)
    hands = graph_refine.decode(truth(data)._replace(vertices_mm=vertices), data["crops"])
    turn = data["crops"][0].crop_from_camera
    expected = vertices[0].numpy() @ turn + hands[0].joints_mm[0]
    np.testing.assert_allclose(hands[0].vertices_mm, expected, rtol=1e-4, atol=1e-2)


def test_a_users_hand_model_takes_the_open_hands_place(monkeypatch: pytest.MonkeyPatch) -> None:
    opened = load_open_hand()
    model = replace(
        opened, v_template=1.2 * opened.v_template, joint_axes=None, joint_limits=None, name="theirs"
    )
    monkeypatch.setattr(graph_refine, "load_mano", lambda path: {"mine.pkl": model}[path])
    network, data = shaken(build(hand_model="mine.pkl")).eval(), batch()
    assert not any(
        name.startswith("prior.layer.") for name in network.state_dict()
    )  # a user's file stays the user's
    output = network(data["image"])
    layer = HandLayer(model)
    hand = layer.joints(output.shape, torch.cat([torch.zeros(3, 3), output.fingers], dim=1))
    prior = output.scale[:, None, None] * (hand - hand[:, :1]) @ output.rotation.mT
    torch.testing.assert_close(output.prior_mm, prior, rtol=1e-4, atol=1e-3)
    output = output._replace(refined_mm=output.prior_mm)
    for hand, crop, vertices in zip(
        graph_refine.decode(output, data["crops"], layer), data["crops"], output.vertices_mm, strict=True
    ):
        expected = vertices.detach().numpy() @ crop.crop_from_camera + hand.joints_mm[0]
        np.testing.assert_allclose(hand.vertices_mm, expected, atol=0.5)


def test_mixed_precision_leaves_the_hand_model_exact() -> None:
    network = shaken(build()).eval()
    image = batch()["image"]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        output = network(image)
    pose = torch.cat([torch.zeros(3, 3), output.fingers], dim=1)
    hand = HandLayer().joints(output.shape, pose)
    prior = output.scale[:, None, None] * (hand - hand[:, :1]) @ output.rotation.mT
    torch.testing.assert_close(output.prior_mm, prior, rtol=1e-5, atol=1e-3)


# --- Configurations -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"refinement": "cnn"}, "refinement is 'cnn', expected one of gcn, fc, none"),
        ({"discriminator": "two"}, "discriminator is 'two', expected one of multi, single, none"),
        ({"rotation": "euler"}, "rotation is 'euler', expected one of axis_angle, 6d"),
        ({"normalization": "group"}, "normalization is 'group', expected one of batch, layer, none"),
        ({"backbone": "vgg"}, "backbone is 'vgg', expected one of small, resnet18, resnet50"),
        ({"blocks": 0}, "blocks is 0, expected 1 or more"),
        ({"width": 0}, "width is 0, expected 1 or more"),
        ({"input_size": 16}, "input_size is 16, expected 32 pixels or more"),
    ],
)
def test_configurations_that_do_not_exist(
    changes: dict[str, Any], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)  # or it would be first to complain
    with pytest.raises(ConfigError, match=message):
        Config(**changes)


class Few:
    """The labelled noise of `batch` as training data; whoever asks for draw `last` is told to end."""

    endless = False

    def __init__(self, last: int | None = None) -> None:
        self.last = last

    def __len__(self) -> int:
        return 4

    def batch(self, indices: np.ndarray, draws: np.ndarray) -> dict[str, Any]:
        if np.ndim(draws) and draws[0] == self.last:
            os.kill(os.getpid(), signal.SIGTERM)
        data = batch(4)
        return {
            name: [value[i] for i in indices] if isinstance(value, list) else value[torch.as_tensor(indices)]
            for name, value in data.items()
        }


@pytest.mark.slow
def test_all_three_stages_through_the_loop(tmp_path: Path) -> None:
    stages = {name: {"steps": 2} for name in ("prior", "generator", "adversarial")}
    settings = {"system": "graph_refine", "config": SMALL, "batch_size": 4, "stages": stages, "log_every": 1}
    result = train(build_recipe(Recipe, settings, "recipe"), tmp_path, data=(Few(), Few()))
    assert result["finished"]
    lines = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    trained = [line for line in lines if line["kind"] == "train"]
    assert [("score_gap" in line, "lipschitz" in line) for line in trained] == [(False, False)] * 4 + [
        (True, True)
    ] * 2
    network, _, config, _ = load_system(tmp_path / "best")
    assert network.state_dict().keys() == config.build().state_dict().keys()
    assert {"mpjpe_mm", "root_relative_mpjpe_mm", "pa_mpjpe_mm", "epe_px"} <= result["metrics"].keys()


@pytest.mark.slow
def test_stopped_amid_the_adversarial_stage_both_sides_go_on_exactly(tmp_path: Path) -> None:
    stages = {"prior": {"steps": 1}, "generator": {"steps": 1}, "adversarial": {"steps": 6}}
    settings = {"system": "graph_refine", "config": SMALL, "batch_size": 4, "stages": stages}
    recipe = build_recipe(Recipe, settings | {"data": {"ahead": 1, "threads": 1}}, "recipe")
    train(recipe, tmp_path / "whole", data=(Few(), Few()))
    stopped = train(recipe, tmp_path / "parts", data=(Few(last=4 * 5), Few()))
    assert 2 < stopped["step"] < 8
    assert train(recipe, tmp_path / "parts", resume=True, data=(Few(), Few()))["finished"]
    whole, parts = (load_file(tmp_path / run / "last.safetensors") for run in ("whole", "parts"))
    assert whole.keys() == parts.keys()
    assert any("adversary" in name for name in whole)
    assert not [name for name in whole if not torch.equal(whole[name], parts[name])]


@pytest.mark.slow
def test_the_papers_backbones_give_the_papers_size() -> None:
    """Two ResNet-50s and what little stands on them."""
    network = Config(backbone="resnet50", input_size=224).build()
    backbones = 2 * 23_508_032
    rest = sum(p.numel() for p in network.parameters()) - backbones
    code = 2048 * 512 + 512 + 512 * 62 + 62
    blocks = sum(2 * (inputs * 128 + 128) + (128 * 128 + 128) + 4 * 128 for inputs in (2051, 128, 128))
    graph = blocks + 128 * 3 + 3
    assert rest == code + graph + 2048 * 20 + 20
