from dataclasses import replace

import cv2
import numpy as np
import pytest
import torch
from torch import Tensor

from handgraph import skeleton
from handgraph.camera import Crop, PinholeCamera
from handgraph.decoding import hybrid_gcn as decoding
from handgraph.decoding.frames import sight_from_crop
from handgraph.errors import ConfigError
from handgraph.graph.gcn import normalised_adjacency
from handgraph.graph.relations import classes_2d, classes_3d, mean_square_distances, relations
from handgraph.hand import CAMERA_FRAME, RELATIVE_FRAME
from handgraph.hand_model.files import load_open_hand
from handgraph.hand_model.layer import HandLayer
from handgraph.placement import bone_lengths, hand_length
from handgraph.synthetic.rgb import RgbSynthesizer
from handgraph.systems import hybrid_gcn
from handgraph.systems.hybrid_gcn import Config, GraphRefinement, HybridGcn, Output
from handgraph.training.loop import make_optimizer, set_training

SMALL = Config(width=4, hidden=16, input_size=64)
CAMERA = PinholeCamera(500.0, 480.0, 160.0, 120.0)

TABLE_2 = {
    "A": {"relations": False, "refinement": "none"},
    "B": {"refinement": "none"},
    "C": {"refinement": "fc"},
    "D": {"refinement": "knn"},
    "full": {},
}


def hands_mm(count: int, seed: int = 0) -> np.ndarray:
    """Posed hands about their wrists, (count, 21, 3)."""
    random = np.random.default_rng(seed)
    pose = torch.from_numpy(0.3 * random.standard_normal((count, 48))).float()
    shape = torch.from_numpy(random.standard_normal((count, 10))).float()
    joints = HandLayer(load_open_hand()).joints(shape, pose).double().numpy()
    return joints - joints[:, :1]


def batch_of(config: Config, count: int = 4) -> dict[str, Tensor]:
    torch.manual_seed(0)
    return {
        "image": torch.randn(count, 3, config.input_size, config.input_size),
        "uv": torch.rand(count, 21, 2),
        "known": torch.ones(count, 21, dtype=torch.bool),
        "relative_mm": torch.from_numpy(hands_mm(count)).float(),
        # The middle straight ahead.
        "crop_camera": torch.tensor([[2.0, 0.0, 0.5], [0.0, 2.0, 0.5], [0.0, 0.0, 1.0]]).repeat(count, 1, 1),
    }


def answer(**fields: Tensor) -> Output:
    """An output with these fields; the rest as Baseline B would give it, zero where it is not said."""
    count = len(next(iter(fields.values())))
    zero = {"uv": torch.zeros(count, 21, 2), "coarse": torch.zeros(count, 21, 3)}
    known = zero | {"refined": torch.zeros(count, 21, 3)} | fields
    names = set(Output._fields) - set(known) - {"overlapped"}
    return Output(**known, **dict.fromkeys(names), overlapped=torch.tensor(False))


def parameters(config: Config) -> int:
    return sum(p.numel() for p in config.build().parameters() if p.requires_grad)


def test_parameters_counted_by_hand() -> None:
    graph, h, n, k, f = 21**2, 128, 16, 27, 64

    def linear(inputs: int, outputs: int) -> int:
        return inputs * outputs + outputs

    def classifier(classes: int) -> int:
        return graph + linear(f, h) + linear(h, classes)

    def regressor(inputs: int, outputs: int) -> int:
        # The two halves of a concatenation have as many weights as one layer of the whole width.
        return graph + linear(inputs, h) + linear(h, h) + linear(h, outputs)

    backbone = 1_278_645
    a = backbone + regressor(f, 2) + regressor(2 + f, 3)
    b = backbone + classifier(n) + classifier(k) + regressor(f + n, 2) + regressor(2 + f + n + k, 3)
    counts = {
        "A": a,
        "B": b,
        "C": b + linear(63, 1024) + linear(1024, 63),
        "D": b + regressor(3, 3),
        "full": b + regressor(3, 3) + 1,
    }
    for row, switches in TABLE_2.items():
        assert parameters(Config(**switches)) == counts[row], row  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("n", "classes_in_2d", "k", "classes_in_3d"),
    [(2, 4, 2, 8), (3, 9, 3, 27), (4, 16, 4, 64), (5, 25, 5, 125)],
)
def test_table_3s_class_counts(n: int, classes_in_2d: int, k: int, classes_in_3d: int) -> None:
    config = replace(SMALL, splits_2d=n, splits_3d=k)
    assert config.classes == (classes_in_2d, classes_in_3d)
    output = config.build()(batch_of(config)["image"])
    assert output.scores_2d.shape == (4, 21, classes_in_2d)
    assert output.scores_3d.shape == (4, 21, classes_in_3d)


@pytest.mark.parametrize(
    "switches",
    [*TABLE_2.values(), {"classifier": "fc"}, {"overlapped": True}, {"relations": False}, {"splits_3d": 5}],
    ids=str,
)
def test_every_switch_trains_every_parameter_of_its_stage(switches: dict[str, object]) -> None:
    config = replace(SMALL, **switches)  # type: ignore[arg-type]
    batch, network = batch_of(config), config.build()
    learnt = set()
    for stage in hybrid_gcn.stages(config):
        network.zero_grad()
        terms = hybrid_gcn.loss(network(batch["image"]), batch)
        torch.stack([weight * terms[name] for name, weight in stage.loss_weights.items()]).sum().backward()
        for name, parameter in network.named_parameters():
            if stage.learns(name):
                assert parameter.grad is not None, name
                assert torch.isfinite(parameter.grad).all(), name
                assert (parameter.grad != 0).any(), name
                learnt.add(name)
    assert learnt == {name for name, _ in network.named_parameters()}


def test_the_modules_are_joined_as_in_figure_1() -> None:
    torch.manual_seed(0)
    network = SMALL.build().eval()
    image = torch.randn(2, 3, 64, 64)
    output = network(image)
    f = network.backbone(image).flatten(2)
    l_2d, l_3d = network.classifier_2d(f), network.classifier_3d(f)
    assert torch.allclose(output.scores_2d, l_2d, atol=1e-5)
    assert torch.equal(output.relations_2d, relations(l_2d))
    assert torch.equal(output.relations_3d, relations(l_3d))
    p_2d, p_3d = l_2d.softmax(-1), l_3d.softmax(-1)
    uv = network.regressor_2d(torch.cat([f, p_2d], -1), relations(l_2d))
    assert torch.allclose(output.uv, uv, atol=1e-5)
    coarse = network.regressor_3d(torch.cat([uv, f, p_2d, p_3d], -1), relations(l_3d))
    assert torch.allclose(output.coarse, coarse, atol=1e-5)
    near = (mean_square_distances(coarse) <= SMALL.threshold).float()
    assert torch.equal(output.relations_near, near)
    correction = network.refinement.regressor(coarse, near)
    assert torch.allclose(output.refined, coarse + correction, atol=1e-5)


def test_a_classifier_is_two_layers_of_equation_2() -> None:
    torch.manual_seed(0)
    layer = hybrid_gcn.GraphClassifier(6, 8, 4)
    skeletal = torch.from_numpy(skeleton.adjacency(21, skeleton.BONES)).float()
    a = normalised_adjacency(skeletal)
    features = torch.randn(1, 21, 6)
    w1, w2 = layer.first.transform.weight.T, layer.second.transform.weight.T
    hidden = (a @ features[0] @ w1).clamp(min=0)
    assert torch.allclose(layer(features)[0], a @ hidden @ w2, atol=1e-5)
    assert layer.graph.connections.requires_grad


def test_baseline_a_has_neither_classes_nor_relations() -> None:
    config = replace(SMALL, **TABLE_2["A"])  # type: ignore[arg-type]
    network = config.build()
    output = network(torch.randn(2, 3, 64, 64))
    assert output.scores_2d is output.scores_3d is output.relations_2d is output.relations_3d is None
    assert output.relations_near is output.threshold is None
    assert output.refined is output.coarse
    assert set(hybrid_gcn.stages(config)[0].loss_weights) == {"regression_2d", "regression_3d"}
    terms = hybrid_gcn.loss(output, batch_of(config, 2))
    assert terms["classification_2d"] == terms["classification_3d"] == 0
    assert not [name for name, _ in network.named_parameters() if "classifier" in name]


def test_the_relations_change_the_pose_and_are_each_samples_own() -> None:
    torch.manual_seed(0)
    layer = hybrid_gcn.GraphRegressor(6, 8, 3, local=True)
    features = torch.randn(2, 21, 6)
    alone, together = torch.eye(21).expand(2, 21, 21), torch.ones(2, 21, 21)
    mixed = torch.stack([alone[0], together[0]])
    assert torch.equal(layer(features, mixed)[0], layer(features, alone)[0])
    assert torch.equal(layer(features, mixed)[1], layer(features, together)[1])
    assert not torch.allclose(layer(features, alone), layer(features, together), atol=1e-2)


def test_the_threshold_learns_and_moves() -> None:
    torch.manual_seed(0)
    network = GraphRefinement(replace(SMALL, threshold=0.3))
    truth = torch.from_numpy(hands_mm(64) / 45).float()
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-2)
    for step in range(30):
        coarse = truth + 0.2 * torch.randn_like(truth)
        correction, _ = network(coarse)
        (coarse + correction - truth).square().mean().backward()
        assert network.threshold.grad is not None
        if step == 0:
            assert network.threshold.grad.abs() > 1e-8
        optimizer.step()
        optimizer.zero_grad()
    assert abs(network.threshold.item() - 0.3) > 0.01


def test_the_adaptive_graph_has_other_degrees_for_other_joints_and_poses_but_knn_does_not() -> None:
    poses = torch.from_numpy(hands_mm(50) / 45).float()
    for refinement, varies in (("ann", True), ("knn", False)):
        network = GraphRefinement(replace(SMALL, refinement=refinement))  # type: ignore[arg-type]
        degree = network(poses)[1].sum(dim=-1)
        assert (degree.amax(dim=1) > degree.amin(dim=1) + 1).all() == varies
        assert (degree.std(dim=0) > 0).any() == varies
    assert (degree == 6).all()


def test_refinement_begins_at_the_coarse_pose() -> None:
    torch.manual_seed(0)
    for refinement in ("ann", "knn", "fc"):
        output = replace(SMALL, refinement=refinement).build()(torch.randn(4, 3, 64, 64))
        assert (output.refined - output.coarse).abs().max() < 0.05
        assert not torch.equal(output.refined, output.coarse)


def test_the_coarse_network_stays_as_it_is_while_the_refinement_learns() -> None:
    config = SMALL
    batch, network = batch_of(config), config.build()
    _, stage = hybrid_gcn.stages(config)
    for name, parameter in network.named_parameters():
        parameter.requires_grad_(stage.learns(name))
    before = {name: value.clone() for name, value in network.state_dict().items()}
    optimizer = make_optimizer(network, stage)
    set_training(network, stage)
    assert isinstance(optimizer, torch.optim.Adadelta)
    for _ in range(3):
        (weight,) = stage.loss_weights.values()
        (weight * hybrid_gcn.loss(network(batch["image"]), batch)["refinement"]).backward()
        optimizer.step()
    for name, value in network.state_dict().items():  # batch statistics among them
        assert torch.equal(value, before[name]) != name.startswith("refinement."), name


def test_stages_are_those_of_section_3_7_and_4_1() -> None:
    coarse, refine = hybrid_gcn.stages(Config())
    assert coarse.loss_weights == {
        "regression_2d": 100, "regression_3d": 100, "classification_2d": 1, "classification_3d": 1,
    }  # fmt: skip
    assert refine.loss_weights == {"refinement": 1}
    for stage, epochs in ((coarse, 400), (refine, 40)):
        assert (stage.optimizer, stage.learning_rate, stage.batch_size) == ("adadelta", 1, 64)
        assert stage.epochs == epochs
    assert [stage.name for stage in hybrid_gcn.stages(Config(refinement="none"))] == ["coarse"]


def test_losses_are_equations_8_to_13() -> None:
    torch.manual_seed(0)
    batch = batch_of(SMALL)
    scores_2d, scores_3d = torch.randn(4, 21, 16), torch.randn(4, 21, 27)
    said = answer(
        uv=torch.rand(4, 21, 2), coarse=torch.randn(4, 21, 3), refined=torch.randn(4, 21, 3),
        scores_2d=scores_2d, scores_3d=scores_3d,
    )  # fmt: skip
    terms = hybrid_gcn.loss(said, batch)
    relative = batch["relative_mm"]
    pose = relative / (relative[:, 10] - relative[:, 9]).norm(dim=-1)[:, None, None]
    for name, predicted, true in (
        ("regression_2d", 4 * said.uv, 4 * batch["uv"]),
        ("regression_3d", said.coarse, pose),
        ("refinement", said.refined, pose),
    ):
        assert terms[name].item() == pytest.approx(((predicted - true) ** 2).mean().item(), rel=1e-5)
    for name, predicted, true in (
        ("distance_2d", said.uv, batch["uv"]),
        ("distance_3d", said.coarse, pose),
        ("distance_refined", said.refined, pose),
    ):
        expected = torch.linalg.vector_norm(predicted - true, dim=-1).mean()
        assert terms[name].item() == pytest.approx(expected.item(), rel=1e-5)
    for name, scores, classes in (
        ("classification_2d", scores_2d, classes_2d(batch["uv"] * 63, 4, 64)),
        ("classification_3d", scores_3d, classes_3d(pose, 3)),
    ):
        total = 0.0
        for b in range(4):
            for i in range(21):
                p = torch.exp(scores[b, i]) / torch.exp(scores[b, i]).sum()
                total -= float(torch.log(p[classes[b, i]]))
        assert terms[name].item() == pytest.approx(total / 4, rel=1e-5)


def test_3d_is_learnt_about_the_line_of_sight() -> None:
    """Of hands beside the axis that look alike: what is to be said of them is alike."""
    hand = hands_mm(1)[0]
    poses = []
    for angle in (-0.4, 0.0, 0.3):
        turn = cv2.Rodrigues(np.array([0.0, angle, 0.0]))[0]
        joints = (
            hand - hand.mean(axis=0) + [0, 0, 500.0]
        ) @ turn.T  # the whole scene turned about the camera
        seen = CAMERA.uvd_from_xyz(joints.mean(axis=0))[:2]
        crop = Crop.window((float(seen[0]) - 60, float(seen[1]) - 60, 121.0, 121.0), 64, CAMERA)
        batch = {
            "relative_mm": torch.from_numpy(joints - joints[:1]).float()[None],
            "crop_camera": torch.from_numpy(crop.crop_camera).float()[None],
        }
        poses.append(hybrid_gcn.target_3d(batch)[1][0].numpy())
    np.testing.assert_allclose(poses[0], poses[1], atol=1e-4)
    np.testing.assert_allclose(poses[2], poses[1], atol=1e-4)


def test_unknown_joints_take_no_part() -> None:
    batch = batch_of(SMALL)
    batch["known"][1, 5:] = False
    batch["uv"][1, 5:] = float("nan")
    batch["relative_mm"][0, 4] = float("nan")
    batch["relative_mm"][2] = float("nan")  # a 2D data set's hand
    batch["relative_mm"][3, 9] = float("nan")  # no scale
    said = {
        "uv": torch.rand(4, 21, 2), "coarse": torch.randn(4, 21, 3),
        "scores_2d": torch.randn(4, 21, 16), "scores_3d": torch.randn(4, 21, 27),
    }  # fmt: skip
    for tensor in said.values():
        tensor.requires_grad_()
    terms = hybrid_gcn.loss(answer(**said), batch)
    torch.stack(list(terms.values())).sum().backward()
    labelled = torch.isfinite(batch["relative_mm"]).all(-1)
    labelled[2:] = False
    for name, counts in {
        "uv": batch["known"],
        "scores_2d": batch["known"],
        "coarse": labelled,
        "scores_3d": labelled,
    }.items():
        tensor = said[name]
        assert torch.isfinite(tensor.grad).all()
        assert torch.equal((tensor.grad != 0).any(dim=-1), counts)
    expected = 16 * (said["uv"] - batch["uv"]).square().mean(-1)[batch["known"]].mean()
    assert terms["regression_2d"].item() == pytest.approx(expected.item(), rel=1e-5)


def test_a_batch_without_any_3d_label_trains_2d_alone() -> None:
    batch = batch_of(SMALL)
    batch["relative_mm"][:] = float("nan")
    terms = hybrid_gcn.loss(SMALL.build()(batch["image"]), batch)
    assert terms["regression_3d"] == terms["classification_3d"] == terms["refinement"] == 0
    assert terms["regression_2d"] > 0


def test_overlapped_blocks_share_a_joint() -> None:
    config = replace(SMALL, overlapped=True)
    assert config.classes == (49, 125)
    batch = batch_of(config)
    batch["uv"][:] = 20 / 63  # in blocks 1 and 2 along either axis, of 16 pixels from every eighth pixel on
    output = config.build()(batch["image"])
    share = hybrid_gcn.true_classes_2d(output, batch["uv"], 64)
    assert torch.nonzero(share[0, 0])[:, 0].tolist() == [1 * 7 + 1, 1 * 7 + 2, 2 * 7 + 1, 2 * 7 + 2]
    assert torch.allclose(share.sum(dim=-1), torch.ones(4, 21))
    scores = torch.full((4, 21, 49), -50.0)
    scores[..., [8, 9, 15, 16]] = 0.0
    entropy = hybrid_gcn.loss(output._replace(scores_2d=scores), batch)["classification_2d"]
    assert entropy.item() == pytest.approx(21 * np.log(4), rel=1e-5)


def test_class_scores_are_accuracy_recall_and_precision() -> None:
    true = np.array([0, 0, 0, 0, 1, 1, 2, 2])
    predicted = np.array([0, 0, 0, 1, 1, 1, 2, 0])
    accuracy, recall, precision = hybrid_gcn.class_scores(predicted, true)
    assert accuracy == pytest.approx(100 * 6 / 8)
    assert recall == pytest.approx(100 * (3 / 4 + 1 + 1 / 2) / 3)
    assert precision == pytest.approx(100 * (3 / 4 + 2 / 3 + 1) / 3)


def crop_of(joints_mm: np.ndarray, *, left: bool, rotation: float = 0.0) -> Crop:
    seen = CAMERA.uvd_from_xyz(joints_mm)[:, :2]
    low, high = seen.min(axis=0) - 15, seen.max(axis=0) + 15
    return Crop.window((*low, *(high - low)), 64, CAMERA, mirrored=left, rotation_rad=rotation)


def truthful(joints_mm: np.ndarray, crops: list[Crop], *, in_sight: bool = True) -> tuple[Output, np.ndarray]:
    """What a network without error would say of these hands, and the lengths of their bones.

    `in_sight`: about the line of sight; else, as of crops whose camera nobody knows, in the crops' frames.
    """
    scale = np.linalg.norm(joints_mm[:, 10] - joints_mm[:, 9], axis=-1)
    relative = (joints_mm - joints_mm[:, :1]) / scale[:, None, None]
    turns = [crop.crop_from_camera for crop in crops]
    if in_sight:
        turns = [sight_from_crop(crop) @ turn for crop, turn in zip(crops, turns, strict=True)]
    pose = np.stack([points @ turn.T for points, turn in zip(relative, turns, strict=True)])
    uv = np.stack(
        [
            crop.crop_px(CAMERA.uvd_from_xyz(points)[:, :2]) / 63
            for points, crop in zip(joints_mm, crops, strict=True)
        ]
    )
    pose_t, uv_t = torch.from_numpy(pose).float(), torch.from_numpy(uv).float()
    return answer(uv=uv_t, coarse=torch.zeros_like(pose_t), refined=pose_t), scale


@pytest.mark.parametrize("left", [False, True])
def test_with_a_camera_and_the_bones_length_hands_are_in_millimetres_where_they_are(left: bool) -> None:
    joints = hands_mm(3) + np.array([20.0, -30.0, 450.0])
    crops = [crop_of(hand, left=left, rotation=0.4 * i) for i, hand in enumerate(joints)]
    output, scale_mm = truthful(joints, crops)
    relative = hybrid_gcn.relative_mm(output, crops, scale_mm)
    np.testing.assert_allclose(relative, joints - joints[:, :1], atol=1e-3)
    for hand, true in zip(hybrid_gcn.decode(output, crops, scale_mm), joints, strict=True):
        assert hand.frame == CAMERA_FRAME
        assert hand.side == ("left" if left else "right")
        np.testing.assert_allclose(hand.joints_mm, true, atol=0.05)
        np.testing.assert_allclose(hand.keypoints_px, CAMERA.uvd_from_xyz(true)[:, :2], atol=1e-3)


def test_without_the_bones_length_or_a_camera_hands_are_relative_and_say_so() -> None:
    joints = hands_mm(2) + np.array([20.0, -30.0, 450.0])
    crops = [crop_of(hand, left=True, rotation=0.5 * i) for i, hand in enumerate(joints)]
    output, scale_mm = truthful(joints, crops)
    blind = [replace(crop, camera=None) for crop in crops]
    # Nearly: without a camera its pixels count as square, and those of CAMERA are not.
    for hands, tolerance in (
        (hybrid_gcn.decode(output, crops), 1e-5),
        (hybrid_gcn.decode(truthful(joints, crops, in_sight=False)[0], blind, scale_mm), 0.03),
    ):
        for hand, true in zip(hands, joints, strict=True):
            assert hand.frame == RELATIVE_FRAME
            assert hand.joints_mm is not None
            np.testing.assert_allclose(hand.joints_mm[0], 0, atol=1e-6)
            assert hand_length(hand.joints_mm) == pytest.approx(1, rel=1e-5)
            np.testing.assert_allclose(hand.joints_mm, (true - true[0]) / hand_length(true), atol=tolerance)


def test_keypoints_that_no_such_hand_could_have_leave_it_relative() -> None:
    joints = hands_mm(1) + np.array([20.0, -30.0, 450.0])
    crops = [crop_of(joints[0], left=False)]
    output, scale_mm = truthful(joints, crops)
    (hand,) = hybrid_gcn.decode(output._replace(uv=1 - output.uv), crops, scale_mm)
    assert hand.frame == RELATIVE_FRAME


def test_the_unknown_bone_is_an_average_hands() -> None:
    joints = hands_mm(2) + np.array([0.0, 0.0, 450.0])
    crops = [crop_of(hand, left=False) for hand in joints]
    output, scale_mm = truthful(joints, crops)
    factor = decoding.TYPICAL_SCALE_MM / scale_mm
    expected = (joints - joints[:, :1]) * factor[:, None, None]
    np.testing.assert_allclose(hybrid_gcn.relative_mm(output, crops), expected, atol=1e-3)
    assert (np.abs(factor - 1) < 0.3).all()


def mean_hands(n: int) -> tuple[np.ndarray, list[Crop]]:
    """Joints (mm, camera frame) of bent mean hands half a metre away, and their crops."""
    rng, layer = np.random.default_rng(3), HandLayer()
    pose = np.concatenate([rng.uniform(-0.6, 0.6, (n, 3)), np.zeros((n, 45))], axis=1)
    # Bent as fingers bend: their flexion axis within half its limits.
    axes, limits = layer.model.joint_axes[:, 0], layer.model.joint_limits[:, 0]
    bend = rng.uniform(0.0, 0.5, (n, 15)) * limits[:, 1]
    pose[:, 3:] = (axes * bend[..., None]).reshape(n, 45)
    hands = layer(torch.zeros(n, 10), torch.from_numpy(pose).float()).joints_mm.double().numpy()
    hands = hands - hands[:, :1] + [30.0, -20.0, 500.0]
    return hands, [crop_of(hand, left=False) for hand in hands]


def test_the_unit_from_all_bones_is_that_of_the_one_bone_for_a_mean_hand() -> None:
    joints, _ = mean_hands(2)
    bones = bone_lengths(joints)
    np.testing.assert_allclose(hybrid_gcn.unit_mm(bones), bones[:, 9], rtol=1e-3)
    other = 1.1 * bones
    other[:, 9] *= 1.3  # labels that put the middle joint elsewhere
    np.testing.assert_allclose(hybrid_gcn.unit_mm(other), 1.1 * bones[:, 9], rtol=1e-3)
    bones[0] = np.nan
    assert np.isnan(hybrid_gcn.unit_mm(bones)).tolist() == [True, False]


def test_a_hand_laid_on_keypoints_that_it_fits_stays_where_it_is() -> None:
    joints, crops = mean_hands(4)
    output, scale_mm = truthful(joints, crops)
    relative = hybrid_gcn.relative_mm(output, crops, scale_mm, optimise=True)
    np.testing.assert_allclose(relative, joints - joints[:, :1], atol=1.5)
    px = hybrid_gcn.keypoints_px(output, crops, optimise=True)
    np.testing.assert_allclose(px, CAMERA.uvd_from_xyz(joints)[..., :2], atol=0.5)
    for hand, true in zip(hybrid_gcn.decode(output, crops, scale_mm, optimise=True), joints, strict=True):
        np.testing.assert_allclose(hand.joints_mm, true, atol=5.0)


def test_right_keypoints_mend_a_turned_hand_and_only_where_that_is_asked_for() -> None:
    joints, crops = mean_hands(4)
    output, scale_mm = truthful(joints, crops)
    turned = output.refined @ torch.from_numpy(cv2.Rodrigues(np.array([0.0, 0.5, 0.0]))[0]).float()
    output = output._replace(refined=turned)

    def error_mm(relative: np.ndarray) -> float:
        return float(np.linalg.norm(relative - joints + joints[:, :1], axis=-1).mean())

    before = error_mm(hybrid_gcn.relative_mm(output, crops, scale_mm))
    assert before > 20
    assert error_mm(hybrid_gcn.relative_mm(output, crops, scale_mm, optimise=True)) < 0.5 * before
    blind = [replace(crop, camera=None) for crop in crops]
    assert decoding.optimised(hybrid_gcn.answer(output), blind).pose is output.refined
    mixed = decoding.optimised(hybrid_gcn.answer(output), [*blind[:1], *crops[1:]])
    np.testing.assert_array_equal(mixed.pose[0], output.refined[0].double())
    np.testing.assert_array_equal(mixed.uv[0], output.uv[0].double())
    assert np.abs(mixed.pose[1:] - output.refined[1:].double().numpy()).max() > 0.1


def test_confidence_is_the_classifiers_probability_about_the_joint() -> None:
    scores = torch.full((1, 21, 16), -30.0)
    scores[0, 0, 5] = 0.0  # block (1, 1): 0.25 to 0.5 either way
    scores[0, 1, 5], scores[0, 1, 9] = 0.0, 0.0  # half there, half in block (2, 1)
    scores[0, 2, 15] = 0.0
    uv = torch.full((1, 21, 2), 0.3)
    uv[0, 1] = torch.tensor([0.52, 0.3])
    sure = hybrid_gcn._confidence(answer(uv=uv, scores_2d=scores))
    np.testing.assert_allclose(sure[0, :3], [1.0, 1.0, 0.0], atol=1e-5)
    uv[0, 1, 0] = 0.6  # farther than a quarter of a block from block (1, 1)
    assert hybrid_gcn._confidence(answer(uv=uv, scores_2d=scores))[0, 1].item() == pytest.approx(0.5)


def test_baseline_a_says_that_it_cannot_tell_how_sure_it_is() -> None:
    joints = hands_mm(1) + np.array([0.0, 0.0, 450.0])
    crops = [crop_of(joints[0], left=False)]
    (hand,) = hybrid_gcn.decode(truthful(joints, crops)[0], crops)
    assert hand.confidence is None
    assert hand.score == 0.5


def test_autocast_leaves_the_joints_in_float32() -> None:
    torch.manual_seed(0)
    network: HybridGcn = SMALL.build().eval()
    image = torch.randn(2, 3, 64, 64)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        maps = network.backbone(image)
        output = network(image)
    assert maps.dtype == torch.bfloat16
    expected = network._joints(maps.flatten(2).float())
    assert output.coarse.dtype == torch.float32
    assert torch.equal(output.coarse, expected.coarse)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"splits_2d": 1}, "splits_2d is 1, expected 2 to 32"),
        ({"splits_3d": 99}, "splits_3d is 99, expected 2 to 32"),
        ({"neighbours": 21}, "neighbours is 21, expected 1 to 20"),
        ({"threshold": 0.0}, "threshold is 0.0, expected more than 0"),
        ({"input_size": 100}, "input_size is 100, expected a multiple of 32 pixels"),
        ({"width": 0}, "width is 0, expected 1 or more"),
        ({"hidden": 1}, "hidden is 1, expected 2 or more"),
    ],
)
def test_an_impossible_configuration_says_what_would_do(fields: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError) as error:
        Config(**fields)  # type: ignore[arg-type]
    assert str(error.value) == message


@pytest.mark.slow
def test_both_stages_learn_a_few_synthetic_photographs_by_heart() -> None:
    torch.manual_seed(0)
    config = Config(width=16, hidden=64, input_size=64)
    network, batch = config.build(), RgbSynthesizer(0, "train", 64).batch(range(8))
    true_mm = batch["relative_mm"].numpy()
    scale_mm = np.linalg.norm(true_mm[:, 10] - true_mm[:, 9], axis=-1)
    turned = np.stack([crop.crop_from_camera for crop in batch["crops"]])

    def error_mm() -> float:
        with torch.no_grad():
            answer = hybrid_gcn.relative_mm(network(batch["image"]), batch["crops"], scale_mm)
        in_crop = np.einsum("bij,bnj->bni", turned, answer)
        return float(np.linalg.norm(in_crop - true_mm, axis=-1).mean())

    errors, before = [error_mm()], None
    for stage in hybrid_gcn.stages(config):
        for name, parameter in network.named_parameters():
            parameter.requires_grad_(stage.learns(name))
        set_training(network, stage)
        optimizer = torch.optim.Adam([p for p in network.parameters() if p.requires_grad], lr=2e-3)
        for _ in range(200):
            terms = hybrid_gcn.loss(network(batch["image"]), batch)
            torch.stack(
                [weight * terms[name] for name, weight in stage.loss_weights.items()]
            ).sum().backward()
            optimizer.step()
            optimizer.zero_grad()
        errors.append(error_mm())
        before = before or network.refinement.threshold.item()
    assert errors[0] > 50
    assert errors[1] < 15
    assert errors[2] < 0.5 * errors[1]
    assert network.refinement.threshold.item() != before
