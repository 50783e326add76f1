"""The identity-aware mesh: increments, losses written out, whose shape is used, the optimisation."""

from dataclasses import replace
from typing import Any

import jaxtyping
import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation
from torch import Tensor, nn

from handgraph import ConfigError, InputError
from handgraph.camera import Crop, PinholeCamera
from handgraph.decoding import identity_mesh as decoding
from handgraph.decoding.frames import sight_from_crop as sight_of
from handgraph.hand_model import HandLayer, load_open_hand
from handgraph.networks.heatmaps import gaussian_maps
from handgraph.networks.sight import sight_from_crop
from handgraph.networks.stacked_hourglass import HourglassShape
from handgraph.systems import identity_mesh
from handgraph.systems.identity_mesh import Config, Output, rotations_of_six, six_of

SMALL: dict[str, Any] = {"input_size": 64, "detector": HourglassShape(1, 16, 2, "compact")}
CAMERA = PinholeCamera(400.0, 400.0, 150.0, 110.0)


@pytest.fixture(scope="module")
def layer() -> HandLayer:
    return HandLayer()


def truth(layer: HandLayer, n: int = 4, size: int = 64) -> dict[str, Any]:
    """Labels of n hands in the crop's frame; half of the crops are mirrored."""
    random = np.random.default_rng(0)
    bends = random.uniform(0.1, 0.6, (n, 15, 1)) * layer.model.joint_axes[:, 0]  # within the joint limits
    pose = torch.from_numpy(np.concatenate([random.normal(0, 0.5, (n, 3)), bends.reshape(n, 45)], 1)).float()
    shape = torch.from_numpy(random.standard_normal((n, 10))).float()
    crops, uv, joints = [], [], []
    for index in range(n):
        crop = Crop.window((180.0, 20.0, 100.0, 100.0), size, CAMERA, mirrored=index % 2 == 1)
        own = layer.joints(shape[index : index + 1], pose[index : index + 1])[0].double().numpy()
        middle = np.linalg.inv(crop.crop_camera) @ [0.5, 0.5, 1.0] * 800.0
        own = own - own.mean(0) + middle
        seen = own @ crop.crop_camera.T
        crops.append(crop)
        uv.append(seen[:, :2] / seen[:, 2:])
        joints.append(own)
    joints_mm = np.stack(joints)
    return {
        "image": torch.zeros(n, 3, size, size),
        "pose": pose,
        "shape": shape,
        "uv": torch.from_numpy(np.stack(uv)).float(),
        "known": torch.ones(n, 21, dtype=torch.bool),
        "relative_mm": torch.from_numpy(joints_mm - joints_mm[:, :1]).float(),
        "joints_in_crop": joints_mm,
        "crop_camera": torch.from_numpy(np.stack([crop.crop_camera for crop in crops])).float(),
        "crops": crops,
    }


def in_sight(batch: dict[str, Any], rotations: Tensor) -> Tensor:
    """Rotations of hands in their crops' frames, as the network says them."""
    turned = rotations.clone()
    turned[:, 0] = sight_from_crop(batch["crop_camera"]) @ rotations[:, 0]
    return turned


def answer(layer: HandLayer, batch: dict[str, Any], pose: Tensor, shape: Tensor, **changes: Any) -> Output:
    """The output of a network that says this pose and shape, and the true keypoints."""
    rotations = in_sight(batch, layer.rotations(pose))
    mesh = layer.from_rotations(shape, rotations)
    target = gaussian_maps(batch["uv"], batch["known"], 16, 64)
    output = Output(
        rotations=rotations,
        shape=shape,
        regressed=shape,
        confidence=torch.zeros(len(pose)),
        joints_mm=mesh.joints_mm - mesh.joints_mm[:, :1],
        vertices_mm=mesh.vertices_mm - mesh.joints_mm[:, :1],
        logits=(torch.logit(target.clamp(1e-4, 1 - 1e-4)),),
        uv=batch["uv"],
        sureness=torch.ones(len(pose), 21),
    )
    return output._replace(**changes)


def test_6d_is_the_first_two_columns() -> None:
    rotation = torch.from_numpy(Rotation.random(5, random_state=0).as_matrix()).float()
    torch.testing.assert_close(six_of(rotation), torch.cat([rotation[:, :, 0], rotation[:, :, 1]], 1))
    torch.testing.assert_close(rotations_of_six(six_of(rotation)), rotation, atol=1e-5, rtol=0)
    any_six = torch.randn(50, 6, generator=torch.Generator().manual_seed(0))
    made = rotations_of_six(any_six)
    torch.testing.assert_close(made @ made.mT, torch.eye(3).expand(50, 3, 3), atol=1e-5, rtol=0)
    assert (torch.linalg.det(made) > 0).all()


def test_each_iteration_turns_the_pose_of_the_one_before() -> None:
    """Eq. 6.2-6.3 written out."""
    torch.manual_seed(0)
    regressor = Config(**SMALL).build().pose
    for increment in regressor.increments:
        nn.init.normal_(increment[-1].weight, std=0.3)
    features = torch.randn(2, 1000)
    pose = np.tile(np.eye(3), (2, 16, 1, 1))
    for increment in regressor.increments:
        columns = torch.from_numpy(np.concatenate([pose[..., 0], pose[..., 1]], -1)).float()
        change = increment(torch.cat([features, columns.flatten(1)], 1)).detach().numpy().reshape(2, 16, 6)
        for b in range(2):
            for j in range(16):
                x = change[b, j, :3] / np.linalg.norm(change[b, j, :3])
                y = change[b, j, 3:] - x * (x @ change[b, j, 3:])
                y /= np.linalg.norm(y)
                pose[b, j] = np.stack([x, y, np.cross(x, y)], 1) @ pose[b, j]
    np.testing.assert_allclose(regressor(features).detach().numpy(), pose, atol=1e-4)


def test_the_regressors_have_the_published_sizes() -> None:
    network = Config(**SMALL).build()
    assert len(network.pose.increments) == 3
    sizes = [tuple(part.weight.shape) for part in network.pose.increments[2] if isinstance(part, nn.Linear)]
    assert sizes == [(512, 1096), (256, 512), (128, 256), (96, 128)]
    sizes = [tuple(part.weight.shape) for part in network.shape if isinstance(part, nn.Linear)]
    assert sizes == [(512, 1000), (256, 512), (128, 256), (10, 128)]
    assert tuple(network.confidence.weight.shape) == (1, 1000)
    assert len(Config(iterations=2, **SMALL).build().pose.increments) == 2


def test_the_paper_backbone_is_resnet_50_with_its_classifier() -> None:
    encoder = Config(backbone="resnet50", **SMALL).build().encoder
    assert sum(p.numel() for p in encoder.parameters()) == 25_557_032  # torchvision's count of ResNet-50


def test_the_loss_is_zero_at_the_truth_and_written_out_elsewhere(layer: HandLayer) -> None:
    batch = truth(layer)
    exact = identity_mesh.loss(answer(layer, batch, batch["pose"], batch["shape"]), batch)
    for name in ("mesh", "edge", "pose", "shape", "joints"):
        assert exact[name] < 1e-5, name
    assert exact["normal"] < 1e-3  # edges lie in their own faces
    pose, shape = batch["pose"] + 0.1, batch["shape"] + torch.linspace(-1, 1, 10)
    output = answer(layer, batch, pose, shape)
    terms = {name: float(term) for name, term in identity_mesh.loss(output, batch).items()}
    mesh = layer.from_rotations(batch["shape"], in_sight(batch, layer.rotations(batch["pose"])))
    true = (mesh.vertices_mm - mesh.joints_mm[:, :1]).double().numpy()
    ours = output.vertices_mm.double().numpy()
    assert terms["mesh"] == pytest.approx(np.abs(ours - true).mean() / 200, rel=1e-4)
    edges, normals = [], []
    for hand in range(4):
        for a, b, c in layer.model.faces:
            normal = np.cross(true[hand, b] - true[hand, a], true[hand, c] - true[hand, a])
            normal /= np.linalg.norm(normal)
            for i, j in ((a, b), (b, c), (c, a)):
                side = ours[hand, i] - ours[hand, j]
                edges.append(abs(np.linalg.norm(side) - np.linalg.norm(true[hand, i] - true[hand, j])))
                normals.append(abs(side @ normal) / np.linalg.norm(side))
    assert terms["edge"] == pytest.approx(np.mean(edges) / 200, rel=1e-3)
    assert terms["normal"] == pytest.approx(np.mean(normals), rel=1e-3)
    assert terms["shape"] == pytest.approx(np.abs(np.linspace(-1, 1, 10)).mean(), rel=1e-4)
    six = []
    for hand, crop in enumerate(batch["crops"]):
        said, right = (
            Rotation.from_rotvec(values[hand].reshape(16, 3).double().numpy()).as_matrix()
            for values in (pose, batch["pose"])
        )
        said[0], right[0] = sight_of(crop) @ said[0], sight_of(crop) @ right[0]
        six.append(np.abs(said[..., :2] - right[..., :2]).mean())
    assert terms["pose"] == pytest.approx(np.mean(six), rel=1e-4)


def test_unlabelled_samples_do_not_count(layer: HandLayer) -> None:
    batch = truth(layer)
    output = answer(layer, batch, batch["pose"] + 0.1, batch["shape"] + 0.5)
    spoiled = batch | {name: batch[name].clone() for name in ("pose", "shape", "relative_mm")}
    spoiled["pose"][0] = float("nan")
    spoiled["shape"][0] = float("nan")
    spoiled["relative_mm"][0, 3:] = float("nan")
    first = Output(*(None if part is None else part for part in output))
    terms = identity_mesh.loss(first, spoiled)
    kept = slice(1, None)
    part = {name: value[kept] if not isinstance(value, tuple) else value for name, value in spoiled.items()}
    rest = output._replace(
        **{name: value[kept] for name, value in output._asdict().items() if isinstance(value, Tensor)},
        logits=tuple(maps[kept] for maps in output.logits),
    )
    for name, term in identity_mesh.loss(rest, part).items():
        if name in ("mesh", "edge", "normal", "pose", "shape", "ranking"):
            torch.testing.assert_close(terms[name], term, rtol=1e-4, atol=1e-6)
    assert all(torch.isfinite(term) for term in terms.values())


def test_ranking_wants_the_better_shape_to_be_surer() -> None:
    """Margin ranking loss of every pair, written out."""
    random = np.random.default_rng(0)
    confidence, off = random.normal(size=6), random.uniform(size=6)
    off[3] = off[2]  # equally good: no pair
    known = np.array([True] * 5 + [False])
    total, pairs = 0.0, 0
    for i in range(5):
        for j in range(i):
            if off[i] != off[j]:
                better, worse = (i, j) if off[i] < off[j] else (j, i)
                total += max(0.0, identity_mesh.MARGIN - (confidence[better] - confidence[worse]))
                pairs += 1
    found = identity_mesh.ranking(*(torch.from_numpy(a) for a in (confidence, off, known)))
    assert float(found) == pytest.approx(total / pairs)
    best = identity_mesh.ranking(*(torch.from_numpy(a) for a in (-10 * off, off, known)))
    assert float(best) < float(found)


def test_the_confidence_does_not_teach_the_features() -> None:
    torch.manual_seed(0)
    network = Config(**SMALL).build()
    output = network(torch.randn(3, 3, 64, 64), torch.zeros(3, 10))
    output.confidence.sum().backward()
    assert network.confidence.weight.grad is not None
    assert all(p.grad is None for p in network.encoder.parameters())


@torch.no_grad()
def test_whose_shape_is_used() -> None:
    """A given one, a regressed one, and the subject's in place of either; the pose is the same."""
    torch.manual_seed(0)
    image, given = torch.randn(2, 3, 64, 64), torch.randn(2, 10)
    aware = Config(shape="given", **SMALL).build().eval()
    assert aware(image).regressed is None
    torch.testing.assert_close(aware(image, given).shape, given)
    assert (aware(image).shape == 0).all()
    baseline = Config(shape="regressed", **SMALL).build().eval()
    before = baseline(image, given)
    torch.testing.assert_close(before.shape, before.regressed)
    subject = np.linspace(-1, 1, 10)
    for network in (aware, baseline):
        network.set_subject(subject)
        # The shape does not vary at all over the images of a subject (section 6.4.2).
        np.testing.assert_array_equal(network(image, given).shape[0], network(image, given).shape[1])
        np.testing.assert_allclose(network(image).shape[0], subject, rtol=1e-6)
    after = baseline(image)
    torch.testing.assert_close(after.rotations, before.rotations)
    torch.testing.assert_close(after.regressed, before.regressed)
    baseline.set_subject(None)
    torch.testing.assert_close(baseline(image).shape, before.shape)
    assert not any("subject" in name for name in baseline.state_dict())


def test_a_stage_computes_what_it_trains(layer: HandLayer) -> None:
    torch.manual_seed(0)
    config = Config(**SMALL)
    network, batch = config.build().train(), truth(layer)
    for stage in identity_mesh.stages(config):
        network.set_stage(stage)
        terms = identity_mesh.loss(network(*identity_mesh.inputs(batch)), batch)
        assert set(stage.loss_weights) <= set(terms)
        assert ("heatmap" in terms) == (stage.mode == "detector")
        network.zero_grad()
        sum(terms[name] for name in stage.loss_weights).backward()
        taught = {name.split(".")[0] for name, p in network.named_parameters() if p.grad is not None}
        assert all(any(name.startswith(t + ".") for t in taught) for name in stage.trains)
    keypoints = Config(supervision="keypoints", shape="given", **SMALL)
    names = [stage.name for stage in identity_mesh.stages(keypoints, "humbi")]
    assert names == ["mesh", "mesh_10th", "detector"]
    # The pose's own loss stays: joints alone leave the fingers' twist open, and so the mesh.
    assert identity_mesh.stages(keypoints)[0].loss_weights == {"joints": 1.0, "pose": 1.0}
    assert identity_mesh.stages(config)[0].loss_weights == {
        "mesh": 1.0, "normal": 0.1, "edge": 1.0, "pose": 1.0, "shape": 1.0,
    }  # fmt: skip
    network = keypoints.build().train()
    network.set_stage(identity_mesh.stages(keypoints)[0])
    terms = identity_mesh.loss(network(*identity_mesh.inputs(batch)), batch)
    assert "joints" in terms
    assert "mesh" not in terms
    with pytest.raises(InputError, match="computes a part only"):
        identity_mesh.solve(network(batch["image"]), batch["crops"])


def test_the_optimisation_lays_the_hand_on_its_keypoints(layer: HandLayer) -> None:
    """From a pose that is off, with true keypoints and shape: joints nearer, and where they are in space."""
    batch = truth(layer)
    random = torch.Generator().manual_seed(0)
    off = batch["pose"] + 0.12 * torch.randn(4, 48, generator=random)
    output = answer(layer, batch, off, batch["shape"])
    true = batch["joints_in_crop"]
    before = identity_mesh.solve(output, batch["crops"], optimise=False)
    after = identity_mesh.solve(output, batch["crops"])
    errors = [np.linalg.norm(one.joints_mm - (true - true[:, :1]), axis=-1).mean() for one in (before, after)]
    assert errors[1] < 0.7 * errors[0]
    assert np.abs(after.uv - batch["uv"].numpy()).max() < 0.02 < np.abs(before.uv - batch["uv"].numpy()).max()
    assert np.linalg.norm(after.wrist_mm - true[:, 0], axis=-1).max() < 40
    turns = np.stack([sight_of(crop) for crop in batch["crops"]])
    np.testing.assert_allclose(before.joints_mm, output.joints_mm.numpy() @ turns, atol=1e-3)
    assert np.abs(before.joints_mm - output.joints_mm.numpy()).max() > 10, "the crops lie beside the axis"
    mesh = layer(batch["shape"], torch.from_numpy(after.pose).float())
    np.testing.assert_allclose(
        after.vertices_mm, (mesh.vertices_mm - mesh.joints_mm[:, :1]).numpy(), atol=0.02
    )


def test_keypoints_that_are_no_hands_place_none(layer: HandLayer) -> None:
    """All in one point: the hand would be laid endlessly far away, where even its mesh drowns in rounding."""
    batch = truth(layer)
    uv = batch["uv"].clone()
    uv[1] = 0.5 + 1e-9 * uv[1]
    output = answer(layer, batch, batch["pose"], batch["shape"], uv=uv)
    for optimise in (False, True):
        solved = identity_mesh.solve(output, batch["crops"], optimise=optimise)
        assert np.isfinite(solved.wrist_mm).all(axis=1).tolist() == [True, False, True, True]
        regressed = output.vertices_mm[1].numpy() @ sight_of(batch["crops"][1])
        np.testing.assert_allclose(solved.vertices_mm[1], regressed, atol=0.01)
        np.testing.assert_array_equal(solved.uv[1], uv[1].numpy())
    hands = identity_mesh.decode(output, batch["crops"])
    assert ["relative" in hand.frame for hand in hands] == [False, True, False, False]


def test_doubtful_keypoints_are_masked(layer: HandLayer) -> None:
    batch = truth(layer)
    uv, sureness = batch["uv"].clone(), torch.ones(4, 21)
    uv[:, 8] += 0.3
    sureness[:, 8] = 0.1
    output = answer(layer, batch, batch["pose"], batch["shape"], uv=uv, sureness=sureness)
    masked = identity_mesh.solve(output, batch["crops"])
    assert np.abs(masked.joints_mm - batch["relative_mm"].numpy()).max() < 1
    none = output._replace(sureness=torch.zeros(4, 21))
    assert np.isfinite(identity_mesh.solve(none, batch["crops"]).joints_mm).all()


def test_hands_are_told_in_the_camera_frame_with_their_mesh(layer: HandLayer) -> None:
    """A mirrored crop's hand is a left one; pose and shape, given to a layer of its side, are its mesh."""
    batch = truth(layer)
    output = answer(layer, batch, batch["pose"], batch["shape"], confidence=torch.arange(4.0))
    hands = identity_mesh.decode(output, batch["crops"])
    for index, (hand, crop) in enumerate(zip(hands, batch["crops"], strict=True)):
        true = batch["joints_in_crop"][index] @ crop.crop_from_camera
        assert hand.side == ("left" if crop.mirrored else "right")
        np.testing.assert_allclose(hand.joints_mm, true, atol=5)
        np.testing.assert_allclose(hand.keypoints_px, CAMERA.uvd_from_xyz(true)[:, :2], atol=0.3)
        own = HandLayer(load_open_hand(), side=hand.side)
        mesh = own(torch.from_numpy(hand.shape)[None], torch.from_numpy(hand.pose)[None])
        np.testing.assert_allclose(
            hand.vertices_mm - hand.joints_mm[0],
            (mesh.vertices_mm - mesh.joints_mm[:, :1])[0].numpy(),
            atol=0.05,
        )
        assert hand.shape_confidence == index
    bare = [replace(crop, camera=None) for crop in batch["crops"]]
    for hand in identity_mesh.decode(output, bare):
        assert hand.frame == decoding.RELATIVE_FRAME
        np.testing.assert_allclose(hand.joints_mm[0], 0, atol=1e-4)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"shape": "guessed"}, "shape is 'guessed', expected one of given, regressed"),
        ({"supervision": "none"}, "supervision is 'none', expected one of mesh, keypoints"),
        ({"iterations": 0}, "iterations is 0, expected 1 or more"),
        ({"backbone": "large"}, "backbone is 'large', expected one of small"),
        ({"input_size": 100}, "input_size is 100, expected a multiple of 32"),
    ],
)
def test_what_cannot_be_built_is_said(
    fields: dict[str, Any], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)  # or it would be first to complain
    with pytest.raises(ConfigError, match=message):
        Config(**fields)
