from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from handgraph import skeleton
from handgraph.camera import Crop
from handgraph.errors import CheckpointError, ConfigError
from handgraph.networks.cpm import PoseMachineShape
from handgraph.networks.heatmaps import gaussian_maps
from handgraph.networks.stacked_hourglass import HourglassShape
from handgraph.systems import cpm, hourglass
from handgraph.systems.siapose import (
    Config,
    Output,
    SiaGcns,
    decode,
    keypoints_px,
    loss,
    prepare,
    stages,
)
from handgraph.training.checkpoint import load_system, save_weights

SMALL_CPM = PoseMachineShape(stages=2, width=8, stride=4, norm=True)
SMALL_HOURGLASS = HourglassShape(stacks=2, width=8, depth=2, form="compact")
SMALL = Config(
    cpm=SMALL_CPM, hourglass=SMALL_HOURGLASS, input_size=64, heads=2, layers=2, kernel_size=9, pointer="small"
)

# The rows of Tables 1 and 2 that are a SiaPose; the baselines are systems of their own.
ROWS = {
    "shared weight GCN": {"heads": 1, "shared_weights": True},
    "1-head": {"heads": 1},
    "5-head": {"heads": 5},
    "10-head": {"heads": 10},
    "10-head R-SiaPose": {"heads": 10, "rotation": True},
}


def parameters(module: nn.Module | None) -> int:
    return 0 if module is None else sum(parameter.numel() for parameter in module.parameters())


@pytest.mark.parametrize("unary", ["cpm", "hourglass"])
@pytest.mark.parametrize("row", ROWS)
def test_every_row_of_tables_1_and_2_has_its_weights(row: str, unary: str) -> None:
    switches = ROWS[row]
    with torch.device("meta"):
        config = Config(unary=unary, **switches)  # type: ignore[arg-type]
        graph = SiaGcns(config)
    # 61 = 20 bones both ways and 21 self loops; five layers of 45 × 45.
    each = 5 * 45 * 45 if config.shared_weights else 617_625
    assert parameters(graph) == each * config.heads
    assert all(len(layer.weight) == config.heads for layer in graph.layers)
    assert (config.input_size, config.cells) == ((368, 46) if unary == "cpm" else (256, 64))


@pytest.mark.slow
@pytest.mark.parametrize("unary", ["cpm", "hourglass"])
@pytest.mark.parametrize("row", ROWS)
def test_every_row_trains_answers_and_exports(row: str, unary: str) -> None:
    """The rows of Tables 1 and 2, small: finite gradients, hands, and a traced twin that agrees."""
    torch.manual_seed(0)
    config = replace(SMALL, unary=unary, **ROWS[row])
    network, image = config.build(), torch.randn(2, 3, 64, 64)
    batch = {"image": image, "uv": torch.rand(2, 21, 2), "known": torch.ones(2, 21, dtype=torch.bool)}
    terms = loss(network(image), batch)
    sum(terms.values()).backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in network.parameters())
    output = network.eval()(image)
    crops = [Crop.window((0.0, 0.0, 100.0, 100.0), 64, mirrored=mirrored) for mirrored in (False, True)]
    hands = decode(output, crops)
    assert [hand.side for hand in hands] == ["right", "left"]
    np.testing.assert_allclose(hands[1].keypoints_px, keypoints_px(output, crops)[1], atol=1e-3)
    program = torch.export.export(network, (image,)).module()
    ours, theirs = (torch.utils._pytree.tree_leaves(answer) for answer in (output, program(image)))
    for a, b in zip(ours, theirs, strict=True):
        assert torch.allclose(a, b, atol=1e-5)


def test_the_paper_sized_network_is_its_parts() -> None:
    with torch.device("meta"):
        network = Config().build()
        single = Config(heads=1).build()
    assert parameters(network.unary) == 29_099_710
    assert parameters(network.pointer) == 11_689_512 - (512 * 1000 + 1000) + (512 * 10 + 10)  # ResNet-18
    assert parameters(network) == parameters(network.unary) + parameters(network.pointer) + 10 * 617_625
    # With one head there is no pointer network.
    assert single.pointer is None
    assert parameters(single) == 29_099_710 + 617_625


@pytest.mark.parametrize("shared", [False, True])
def test_a_layer_is_equation_2_with_the_matrices_of_algorithm_1(shared: bool) -> None:
    torch.manual_seed(0)
    network = replace(SMALL, shared_weights=shared, layers=1, heads=1).build().eval()
    maps = torch.randn(2, 21, 16, 16)
    weight = network.gcn.layers[0].weight.detach()[0].expand(61, 9, 9)
    adjacency = skeleton.adjacency(21, skeleton.BONES) + np.eye(21)
    expected, edge = torch.zeros_like(maps), 0
    for target in range(21):
        sources = np.flatnonzero(adjacency[:, target])
        for source in sources:
            arriving = torch.conv2d(maps[:, source][:, None], weight[edge][None, None], padding=4)[:, 0]
            expected[:, target] += arriving / len(sources)
            edge += 1
    assert edge == 61
    network.unary.forward = lambda image: (maps,)
    output = network(torch.zeros(2, 3, 64, 64))
    assert torch.allclose(output.maps, expected.relu(), atol=1e-5)


def test_heads_are_weighted_by_what_the_pointer_says_of_the_image() -> None:
    torch.manual_seed(0)
    network, image = SMALL.build().eval(), torch.randn(3, 3, 64, 64)
    preliminary = torch.rand(3, 21, 16, 16)
    network.unary.forward = lambda image: (preliminary,)
    output = network(image)
    assert torch.allclose(output.pointer.sum(1), torch.ones(3))
    assert not torch.allclose(output.pointer[0], output.pointer[1])
    heads = network.gcn(preliminary).unbind(dim=1)
    expected = sum(output.pointer[:, m, None, None, None] * heads[m] for m in range(2))
    assert torch.allclose(output.maps, expected, atol=1e-6)
    assert not torch.allclose(heads[0], heads[1], atol=1e-2)  # heads have kernels of their own


@pytest.mark.parametrize("shared", [False, True])
def test_training_head_by_head_and_answering_all_at_once_agree(shared: bool) -> None:
    torch.manual_seed(0)
    graph, maps = SiaGcns(replace(SMALL, shared_weights=shared)), torch.rand(3, 21, 16, 16)
    assert torch.allclose(graph.train()(maps), graph.eval()(maps), atol=1e-6)


def test_a_fresh_head_passes_the_estimators_maps_on() -> None:
    torch.manual_seed(0)
    network = replace(SMALL, kernel_size=31, layers=5).build().eval()
    uv = torch.rand(2, 21, 2) * 0.6 + 0.2
    maps = gaussian_maps(uv, torch.ones(2, 21, dtype=torch.bool), 16, 64)
    network.unary.forward = lambda image: (maps,)
    output = network(torch.zeros(2, 3, 64, 64))
    assert (output.maps - maps).abs().max() < 0.5
    assert ((output.uv - uv).abs().amax(dim=-1) < 1.6 / 16).float().mean() > 0.9


def test_the_loss_is_equation_4() -> None:
    torch.manual_seed(0)
    uv, known = torch.rand(2, 21, 2), torch.rand(2, 21) > 0.2
    output = Output(
        preliminary=tuple(torch.randn(2, 21, 16, 16) for _ in range(3)),
        maps=torch.randn(2, 21, 16, 16),
        pointer=torch.ones(2, 1),
        rotation=(),
        uv=uv,
        confidence=torch.ones(2, 21),
    )
    target = gaussian_maps(uv, known, 16, 64)
    terms = loss(output, {"image": torch.zeros(2, 3, 64, 64), "uv": uv, "known": known})

    def frobenius(maps: torch.Tensor) -> torch.Tensor:
        return torch.stack([(maps[b, k] - target[b, k]).norm() ** 2 for b, k in known.nonzero()]).sum() / 2

    assert torch.allclose(terms["preliminary"], sum(map(frobenius, output.preliminary)), rtol=1e-4)
    assert torch.allclose(terms["final"], frobenius(output.maps), rtol=1e-4)
    # An estimator of distributions has the cross-entropy in the place of L1.
    distributed = replace(SMALL, cpm=replace(SMALL_CPM, distribution=True))
    assert stages(distributed)[0].loss_weights == {"preliminary_cross_entropy": 1.0, "final": 1.0}
    assert stages(distributed)[1].loss_weights == {"preliminary_cross_entropy": 0.1, "final": 1.0}
    assert set(stages(SMALL)[0].loss_weights) == {"preliminary", "final"}


def test_the_schedule_is_the_papers() -> None:
    plan = stages(Config())
    assert sum(stage.epochs for stage in plan) == 100
    at, found = 0, []
    for stage in plan:
        found.append((at, stage.loss_weights["preliminary"], stage.learning_rate))
        at += int(stage.epochs)
    assert found == [(0, 1.0, 1e-4), (40, 0.1, 1e-4), (60, 0.1, 5e-5), (80, 0.1, 2.5e-5)]
    assert stages(Config(unary="hourglass"))[0].learning_rate == 7.5e-4
    assert all(stage.loss_weights["final"] == 1 for stage in plan)
    with torch.device("meta"):
        names = [name for name, _ in Config().build().named_parameters()]
    assert all(stage.learns(name) for stage in plan for name in names)


def test_a_rotation_net_learns_first_then_stands_still_then_learns_with_the_rest() -> None:
    turned = replace(SMALL, rotation=True)
    plan, names = stages(turned), [name for name, _ in turned.build().named_parameters()]
    assert [stage.name for stage in plan] == ["rotation", "alpha_1", "alpha_tenth", "half", "quarter"]
    parts = [{name.split(".")[0] for name in names if stage.learns(name)} for stage in plan]
    assert parts[0] == {"rotation"}
    assert parts[1] == {"unary", "gcn", "pointer"}
    assert parts[2] == parts[3] == parts[4] == {"unary", "gcn", "pointer", "rotation"}


@pytest.mark.parametrize("form", ["angle", "vector"])
def test_what_the_rotation_net_turns_comes_back_as_it_was(form: str) -> None:
    """A hand turned by a quarter: the estimator sees it upright, the answer is where the hand was."""
    torch.manual_seed(0)
    network = replace(SMALL, rotation=form).build().eval()
    image = torch.zeros(1, 3, 64, 64)
    image[0, 0, 40, 12] = 1.0  # a spot at column 12, row 40
    answer = torch.tensor([[torch.pi / 2]]) if form == "angle" else torch.tensor([[0.0, 2.0]])
    network.rotation.forward = lambda image: answer
    seen = []

    def unary(image: torch.Tensor) -> tuple[torch.Tensor]:
        seen.append(image)
        maps = torch.nn.functional.avg_pool2d(image[:, :1], 4).expand(-1, 21, -1, -1) * 16
        return (maps,)

    network.unary.forward = unary
    network.gcn.forward = lambda maps: maps[:, None].expand(-1, 2, -1, -1, -1)
    output = network(image)
    # Clockwise by a quarter about the centre, (31.5, 31.5): (12, 40) → (23, 12).
    assert seen[0][0, 0].argmax().item() == 12 * 64 + 23
    column, row = 12 // 4, 40 // 4
    for maps in (output.maps, output.preliminary[0]):
        assert maps[0, 0].argmax().item() == row * 16 + column
    terms = loss(
        output,
        {"image": image, "uv": torch.rand(1, 21, 2), "known": torch.ones(1, 21, dtype=torch.bool)},
    )
    assert "rotation" in terms


@pytest.mark.parametrize("unary", ["cpm", "hourglass"])
def test_training_can_start_on_a_trained_estimator(unary: str, tmp_path: Path) -> None:
    if unary == "cpm":
        system, config = cpm, cpm.Config(stages=2, width=8, stride=4, norm=True, input_size=64)
    else:
        system, config = (
            hourglass,
            hourglass.Config(stacks=2, width=8, depth=2, form="compact", input_size=64),
        )
    torch.manual_seed(1)
    trained = config.build().eval()
    save_weights(tmp_path / "trained.safetensors", trained, unary, config)

    ours = replace(SMALL, unary=unary, unary_weights=str(tmp_path / "trained"))
    network, image = ours.build().eval(), torch.randn(2, 3, 64, 64)
    plan = stages(ours)
    # The first stage leaves the estimator alone; the heads and the pointer learn.
    learning = {name.split(".")[0] for name, _ in network.named_parameters() if plan[0].learns(name)}
    assert learning == {"gcn", "pointer"}
    # Whichever stage a recipe lets come first, the estimator is the trained one; later stages leave it alone.
    prepare(network, plan[1], None, ours)
    for a, b in zip(network(image).preliminary, trained(image).maps, strict=True):
        assert torch.equal(a, b)
    with torch.no_grad():
        network.unary.get_parameter(next(name for name, _ in network.unary.named_parameters())).add_(1.0)
    resumed = ours.build()
    resumed.load_state_dict(network.state_dict())
    prepare(resumed, plan[2], None, ours)
    assert all(torch.equal(a, b) for a, b in zip(resumed.parameters(), network.parameters(), strict=True))
    assert system.INPUT == "colour"


def test_weights_of_another_estimator_are_refused(tmp_path: Path) -> None:
    config = cpm.Config(stages=2, width=16, stride=4, norm=True, input_size=64)
    save_weights(tmp_path / "wide.safetensors", config.build(), "cpm", config)
    ours = replace(SMALL, unary_weights=str(tmp_path / "wide.safetensors"))
    with pytest.raises(CheckpointError, match=r"wide.*another architecture, network\.features.*expected"):
        prepare(ours.build(), stages(ours)[0], None, ours)
    ours = replace(SMALL, unary_weights=str(tmp_path / "nowhere"))
    with pytest.raises(CheckpointError, match="no such weights file"):
        prepare(ours.build(), stages(ours)[0], None, ours)


def test_a_checkpoint_keeps_the_estimators_size(tmp_path: Path) -> None:
    network = SMALL.build()
    save_weights(tmp_path / "w.safetensors", network, "siapose", SMALL)
    module, name, config, _ = load_system(tmp_path / "w")
    assert (name, config) == ("siapose", SMALL)
    image = torch.randn(1, 3, 64, 64)
    assert torch.equal(module(image).maps, network.eval()(image).maps)


def test_switches_that_do_not_exist_are_refused() -> None:
    for wrong, message in (
        ({"kernel_size": 44}, "kernel_size is 44, expected an odd number up to 91 for maps of 46 cells"),
        ({"kernel_size": 93}, "kernel_size is 93"),
        ({"heads": 0}, "heads is 0"),
        ({"layers": 0}, "layers is 0"),
        ({"joints": 20}, "joints is 20"),
        ({"pointer": "vgg"}, "backbone is 'vgg'"),
        ({"input_size": 100}, "input_size is 100, expected a multiple of stride 8"),
        ({"unary": "hourglass", "pretrained": "vgg.pth"}, "pretrained"),
        ({"cpm": SMALL_CPM, "pretrained": "vgg.pth"}, r"fit cpm\.width 128 without norm"),
    ):
        with pytest.raises(ConfigError, match=message):
            Config(**wrong)  # type: ignore[arg-type]
