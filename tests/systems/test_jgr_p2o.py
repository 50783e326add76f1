from dataclasses import replace

import numpy as np
import pytest
import torch

from handgraph.camera import Crop, PinholeCamera
from handgraph.decoding import jgr_p2o as decoding
from handgraph.errors import ConfigError
from handgraph.synthetic.depth import DepthSynthesizer
from handgraph.systems import jgr_p2o
from handgraph.systems.jgr_p2o import Config, Output, looked_at

SMALL = Config(width=16, input_size=32)
CAMERA = PinholeCamera(588.0, 587.0, 320.0, 240.0)


def small_output(joints: int = 21, batch: int = 2, hourglasses: int = 2) -> Output:
    """An output as the network would give it, with random numbers."""
    torch.manual_seed(0)
    h, w = 3, 4
    weights = tuple(
        torch.randn(batch, joints, h * w).softmax(-1).unflatten(2, (h, w)) for _ in range(hourglasses)
    )
    offsets = tuple(torch.randn(batch, joints, 3, h, w) * 0.1 for _ in range(hourglasses))
    uvz = tuple(torch.rand(batch, joints, 3) for _ in range(hourglasses))
    return Output(uvz, weights, offsets, torch.rand(batch, 3, h, w))


def output_saying(uvz: torch.Tensor) -> Output:
    """The network's output when every pixel's offsets point exactly at the joints `uvz` (b, n, 3)."""
    spread = small_output(uvz.shape[1], len(uvz), hourglasses=1)
    offsets = uvz[..., None, None] - spread.pixels_uvz[:, None]
    joints = jgr_p2o.aggregate_offsets(
        spread.weights[0].flatten(2), offsets.flatten(3), spread.pixels_uvz.flatten(2)
    )
    return Output((joints,), spread.weights, (offsets,), spread.pixels_uvz)


@pytest.mark.parametrize(
    ("config", "count"),
    [
        (Config(joints=14, hourglasses=1), 715_502),
        (Config(joints=14, hourglasses=2), 1_365_244),
        (Config(joints=14, hourglasses=3), 2_014_986),
        (Config(joints=16), 1_368_064),
        (Config(joints=21), 1_375_114),
        (Config(joints=14, graph="similarity"), 1_430_780),
        (Config(joints=14, graph="parameterised"), 1_365_244 + 2 * 14**2),
        # The paper prints 1.42M and 1.37M, a little more than these; for plain P2O it prints nothing.
        (Config(joints=14, reasoning="attention"), 1_414_908),
        (Config(joints=14, head="heatmap"), 1_359_924),
        (Config(joints=14, reasoning="none"), 1_196_256),
    ],
)
def test_trainable_parameters_are_the_papers(config: Config, count: int) -> None:
    network = config.build()
    assert sum(p.numel() for p in network.parameters() if p.requires_grad) == count


@pytest.mark.parametrize(
    "switch",
    [
        {},
        {"joints": 14},
        {"joints": 16, "hourglasses": 1},
        {"hourglasses": 3},
        {"graph": "similarity"},
        {"graph": "parameterised"},
        {"reasoning": "attention"},
        {"reasoning": "none"},
        {"head": "heatmap"},
        {"head": "heatmap", "reasoning": "none"},
    ],
    ids=str,
)
def test_every_switch_gives_joints_and_finite_gradients(switch: dict[str, object]) -> None:
    torch.manual_seed(0)
    config = replace(SMALL, **switch)  # type: ignore[arg-type]
    network = config.build()
    output = network(torch.rand(3, 1, 32, 32) * 2 - 1)
    n = config.joints
    assert [uvz.shape for uvz in output.uvz] == [(3, n, 3)] * config.hourglasses
    assert [offsets.shape for offsets in output.offsets] == [(3, n, 3, 8, 8)] * config.hourglasses
    for weights in output.weights:
        assert weights.shape == (3, n, 8, 8)
        assert torch.allclose(weights.sum(dim=(2, 3)), torch.ones(3, n), atol=1e-5)
    terms = jgr_p2o.loss(output, {"uvz": torch.rand(3, n, 3)})
    (stage,) = jgr_p2o.stages(config)
    sum(weight * terms[name] for name, weight in stage.loss_weights.items()).backward()
    unused = {name for name, p in network.named_parameters() if p.grad is None}
    assert not unused
    for name, parameter in network.named_parameters():
        assert torch.isfinite(parameter.grad).all(), name


def test_the_answer_is_equation_6_of_the_networks_own_maps() -> None:
    torch.manual_seed(0)
    output = SMALL.build()(torch.rand(2, 1, 32, 32))
    b, k, c = 1, 17, 2
    expected = sum(
        output.weights[1][b, k, row, column]
        * (output.pixels_uvz[b, c, row, column] + output.offsets[1][b, k, c, row, column])
        for row in range(8)
        for column in range(8)
    )
    assert torch.allclose(output.uvz[1][b, k, c], expected, atol=1e-5)


def test_a_pixels_z_is_the_depth_at_its_own_u_and_v() -> None:
    depth = torch.linspace(-1, 1, 32)[:, None].expand(1, 1, 32, 32)  # depth grows downwards as v does
    pixels = SMALL.build().eval()(depth).pixels_uvz
    assert torch.allclose(pixels[:, 2], 2 * pixels[:, 1] - 1, atol=1e-5)


def test_without_reasoning_every_pixel_counts_the_same() -> None:
    output = replace(SMALL, reasoning="none").build().eval()(torch.rand(1, 1, 32, 32))
    assert torch.equal(output.weights[0], torch.full((1, 21, 8, 8), 1 / 64))


def test_the_heatmap_head_moves_no_pixel_in_the_image_plane() -> None:
    output = replace(SMALL, head="heatmap").build().eval()(torch.rand(1, 1, 32, 32))
    assert not output.offsets[1][:, :, :2].any()
    mean_u = (output.weights[1] * output.pixels_uvz[:, None, 0]).sum(dim=(2, 3))
    assert torch.allclose(output.uvz[1][..., 0], mean_u, atol=1e-6)


def huber(x: float) -> float:
    return 0.5 * x * x if abs(x) < 0.01 else 0.01 * (abs(x) - 0.005)


def test_the_loss_is_equations_7_to_9() -> None:
    output, truth = small_output(joints=14), torch.rand(2, 14, 3)
    output.uvz[0][0] = truth[0] + 0.004  # some errors in the quadratic part
    terms = jgr_p2o.loss(output, {"uvz": truth})
    coordinate = offset = 0.0
    for s in range(2):
        for b in range(2):
            for k in range(14):
                for c in range(3):
                    coordinate += huber(float(output.uvz[s][b, k, c] - truth[b, k, c]))
                    for i in range(3):
                        for j in range(4):
                            true_offset = truth[b, k, c] - output.pixels_uvz[b, c, i, j]
                            offset += huber(float(output.offsets[s][b, k, c, i, j] - true_offset))
    assert terms["coordinate"].item() == pytest.approx(coordinate / 2, rel=1e-5)
    assert terms["offset"].item() == pytest.approx(offset / 2, rel=1e-5)


def test_every_hourglass_is_supervised() -> None:
    output = small_output()
    for tensor in (*output.uvz, *output.offsets):
        tensor.requires_grad_()
    sum(jgr_p2o.loss(output, {"uvz": torch.rand(2, 21, 3)}).values()).backward()
    for tensor in (*output.uvz, *output.offsets):
        assert (tensor.grad != 0).any()


def test_the_schedule_is_the_papers() -> None:
    (stage,) = jgr_p2o.stages(Config(joints=14))
    assert (stage.optimizer, stage.learning_rate, stage.betas) == ("adam", 1e-4, (0.5, 0.999))
    assert (stage.weight_decay, stage.batch_size, stage.epochs) == (0.5e-4, 32, 58)
    assert stage.loss_weights == {"coordinate": 1.0, "offset": 1e-4}
    assert stage.learning_rate_at(1.5 / 58) == pytest.approx(0.96e-4)
    assert jgr_p2o.stages(Config(joints=16), "icvl")[0].epochs == 8
    code = jgr_p2o.stages(Config(), source="code")[0]
    assert (code.learning_rate, code.weight_decay) == (2e-4, 0.5e-4 / 32)


@pytest.mark.parametrize("config", [Config(offset_loss=False), Config(head="heatmap")])
def test_there_is_no_offset_loss_where_the_configuration_has_none(config: Config) -> None:
    assert set(jgr_p2o.stages(config)[0].loss_weights) == {"coordinate"}


@pytest.mark.parametrize("mirrored", [False, True])
def test_offsets_that_point_at_the_joints_decode_to_the_joints(mirrored: bool) -> None:
    random = np.random.default_rng(3)
    center_mm = np.array([40.0, -30.0, 600.0])
    joints_mm = center_mm + random.uniform(-80, 80, (2, 21, 3))
    crop = Crop.cube(center_mm, 250.0, CAMERA, mirrored=mirrored)
    uvz = torch.from_numpy(np.stack([crop.uvz_from_xyz(joints) for joints in joints_mm])).float()
    hands = jgr_p2o.decode(output_saying(uvz), [crop, crop])
    for hand, joints in zip(hands, joints_mm, strict=True):
        assert hand.side == ("left" if mirrored else "right")
        np.testing.assert_allclose(hand.joints_mm, joints, atol=1e-2)
        np.testing.assert_allclose(hand.keypoints_px, CAMERA.uvd_from_xyz(joints)[:, :2], atol=1e-2)
        x, y, w, h = hand.box_px
        assert (hand.keypoints_px >= [x - 1e-3, y - 1e-3]).all()
        assert (hand.keypoints_px <= [x + w + 1e-3, y + h + 1e-3]).all()
        np.testing.assert_allclose(hand.confidence, 1.0, atol=1e-6)  # all pixels agree
        assert hand.score == pytest.approx(1.0)


def test_decoding_a_mirrored_crop_as_an_unmirrored_one_would_be_wrong() -> None:
    center_mm = np.array([0.0, 0.0, 600.0])
    joints_mm = center_mm + np.random.default_rng(3).uniform(-80, 80, (21, 3))
    mirrored, plain = (Crop.cube(center_mm, 250.0, CAMERA, mirrored=mirror) for mirror in (True, False))
    output = output_saying(torch.from_numpy(mirrored.uvz_from_xyz(joints_mm)).float()[None])
    assert np.abs(jgr_p2o.joints_mm(output, [plain])[0] - joints_mm).max() > 10
    assert np.abs(jgr_p2o.joints_mm(output, [mirrored])[0] - joints_mm).max() < 1e-2


def test_the_spread_is_in_millimetres_and_lowers_the_confidence() -> None:
    """Two pixels of equal weight that disagree by 20 mm in u, v or z: 10 mm of spread, whichever the axis."""
    crop = Crop.cube(np.array([0.0, 0.0, 500.0]), 200.0, CAMERA)
    uvz = torch.full((1, 21, 3), 0.5)
    offsets = uvz[..., None, None].repeat(1, 1, 1, 1, 2)
    for joint, (axis, half_unit) in enumerate([(0, 0.05), (1, 0.05), (2, 0.1)]):
        offsets[0, joint, axis, 0] += torch.tensor([-half_unit, half_unit])
    output = Output((uvz,), (torch.full((1, 21, 1, 2), 0.5),), (offsets,), torch.zeros(1, 3, 1, 2))
    spread = jgr_p2o.spread_mm(output, np.array([200.0]))
    np.testing.assert_allclose(spread[0, :4], [10, 10, 10, 0], atol=1e-3)
    (hand,) = jgr_p2o.decode(output, [crop])
    assert hand.confidence is not None
    assert hand.confidence[3] == 1.0
    np.testing.assert_allclose(hand.confidence[:3], hand.confidence[0], rtol=1e-4)
    assert 0 < hand.confidence[0] < 1


def test_only_the_canonical_hand_decodes_to_hands() -> None:
    output = small_output(joints=14)
    crops = [Crop.cube(np.array([0.0, 0.0, 500.0]), 200.0, CAMERA)] * 2
    with pytest.raises(ConfigError, match="21 joints but this network predicts 14: use joints_mm instead"):
        jgr_p2o.decode(output, crops)
    assert jgr_p2o.joints_mm(output, crops).shape == (2, 14, 3)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"joints": 20}, "joints is 20, expected 14 (NYU), 16 (ICVL) or 21"),
        ({"hourglasses": 0}, "hourglasses is 0, expected 1 or more"),
        ({"width": 100}, "width is 100, expected a multiple of 8"),
        ({"input_size": 100}, "input_size is 100, expected a multiple of 32 pixels"),
        (
            {"head": "heatmap", "reasoning": "attention"},
            "choose reasoning 'graph' or 'none', or head 'offset'",
        ),
    ],
)
def test_an_impossible_configuration_says_what_would_do(fields: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError) as error:
        Config(**fields)  # type: ignore[arg-type]
    assert message in str(error.value)
    assert "\n" not in str(error.value)


class Finder(torch.nn.Module):
    """Says that all joints are at the darkest pixel; nothing else of its output is meant."""

    def forward(self, depth: torch.Tensor) -> Output:
        side = depth.shape[-1]
        darkest = depth.flatten(1).argmin(dim=1)
        uv = torch.stack([darkest % side, darkest // side], dim=-1) / (side - 1)
        uvz = torch.cat([uv, depth.flatten(1).amin(dim=1, keepdim=True)], dim=-1)
        return output_saying(uvz[:, None].repeat(1, 21, 1))


def test_spread_and_confidence_are_inverse() -> None:
    spread = np.array([1.0, 8.0, 39.0, 120.0])
    confidence = decoding.confidences(spread)
    assert (np.diff(confidence) < 0).all()
    assert decoding.confidences(np.array([decoding.SPREAD_AT_HALF_MM])) == pytest.approx(0.5)
    np.testing.assert_allclose(decoding.spread_of(confidence), spread)
    assert np.isfinite(decoding.spread_of(np.array([0.0, 1.0]))).all()


def test_hands_are_laid_where_the_weights_have_learnt_the_open_hands_joints() -> None:
    def trained(name: str) -> dict[str, object]:
        return {"recipe": {"data": {"name": name}}}

    assert jgr_p2o.lays(Config(joints=21), trained("synthetic_depth"))
    assert not jgr_p2o.lays(Config(joints=14), trained("synthetic_depth"))
    assert not jgr_p2o.lays(Config(joints=21), trained("msra"))
    assert not jgr_p2o.lays(Config(joints=21), {})


def test_laid_joints_are_those_of_the_hand_on_the_surface() -> None:
    """Answers that are some millimetres off, of synthetic crops: laid they are nearer, and the surer hold."""
    batch = DepthSynthesizer(5, "test").batch(range(6))
    crops, truth = batch["crops"], batch["joints_mm"].double().numpy()
    said = truth + np.random.default_rng(0).normal(0, 5, truth.shape)
    uvz = np.stack([crop.uvz_from_xyz(joints) for crop, joints in zip(crops, said, strict=True)])
    output = output_saying(torch.from_numpy(uvz).float())
    np.testing.assert_allclose(jgr_p2o.joints_mm(output, crops), said, atol=0.01)
    laid = jgr_p2o.joints_mm(output, crops, batch["image"], optimise=True)
    assert np.linalg.norm(laid - truth, axis=-1).mean() < 0.8 * np.linalg.norm(said - truth, axis=-1).mean()
    cubes = np.array([crop.cube_mm for crop in crops])
    images = batch["image"][:, 0].numpy()
    again = decoding.laid(said, jgr_p2o.spread_mm(output, cubes), crops, images)
    np.testing.assert_allclose(again.joints_mm, laid, atol=0.05)
    with pytest.raises(ConfigError, match="optimise: lays the hand on what its crops show, give the images"):
        jgr_p2o.joints_mm(output, crops, optimise=True)
    with pytest.raises(ConfigError, match="the hand model has 21 joints but this network predicts 14"):
        decoding.laid(said[:, :14], np.ones((6, 14)), crops, images)


def test_joints_seen_in_a_turned_crop_are_turned_back() -> None:
    depth = torch.ones(2, 1, 32, 32)
    depth[0, 0, 5, 20] = -0.5
    depth[1, 0, 30, 3] = 0.25
    expected = torch.tensor([[20 / 31, 5 / 31, -0.5], [3 / 31, 30 / 31, 0.25]])
    for looks in (1, 2, 3, 4):
        seen = looked_at(Finder(), depth, looks).uvz[-1]
        torch.testing.assert_close(seen, expected[:, None].expand(2, 21, 3))
    # A turn the other way round would lead elsewhere.
    other = decoding.turned_back(Finder()(torch.rot90(depth, -1, (2, 3))).uvz[-1], 1)
    assert (other - expected[:, None]).abs().max() > 0.3


def test_looks_are_averaged_and_at_most_four() -> None:
    torch.manual_seed(0)
    network = Config(hourglasses=1, width=16).build().eval()
    depth = torch.rand(2, 1, 96, 96) * 2 - 1
    with torch.inference_mode():
        one, two = (looked_at(network, depth, looks) for looks in (1, 2))
        turned = network(torch.rot90(depth, 1, (2, 3)))
        turned = turned._replace(uvz=(decoding.turned_back(turned.uvz[-1], 1),))
    torch.testing.assert_close(two.uvz[-1], (one.uvz[-1] + turned.uvz[-1]) / 2)
    # The same of the arrays that estimators average.
    answers = [
        decoding.Answer(network(torch.rot90(depth, k, (2, 3))).uvz[-1].detach(), torch.full((2, 21), k / 10))
        for k in (0, 1)
    ]
    both = decoding.together(decoding.Answer(*(torch.cat(parts) for parts in zip(*answers, strict=True))), 2)
    np.testing.assert_allclose(both.uvz, two.uvz[-1], atol=1e-6)
    np.testing.assert_allclose(both.spread, 0.05)
    for wrong in (0, 5):
        with pytest.raises(ConfigError, match=f"looks is {wrong}, expected 1 to 4"):
            looked_at(network, depth, wrong)
