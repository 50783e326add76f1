"""CPM and the stacked hourglass: two systems that differ in their network alone."""

from pathlib import Path
from types import ModuleType

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from handgraph.errors import ConfigError
from handgraph.networks.backbone import VGG19_LAYERS
from handgraph.networks.heatmaps import gaussian_maps, keypoints_uv
from handgraph.systems import cpm, hourglass

SMALL = {
    cpm: {"stages": 2, "width": 16, "stride": 4, "norm": True, "input_size": 64},
    hourglass: {"stacks": 2, "width": 16, "depth": 2, "form": "compact", "growth": 8, "input_size": 64},
}
both = pytest.mark.parametrize("system", [cpm, hourglass], ids=["cpm", "hourglass"])


def parameters(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters() if parameter.requires_grad)


def test_the_papers_sizes_are_the_defaults() -> None:
    with torch.device("meta"):
        assert parameters(cpm.Config().build()) == 29_099_710
        assert parameters(cpm.Config(kernel=7).build()) == 37_410_110
        assert len(cpm.Config().build().network.stages) == 6
        assert len(hourglass.Config().build().network.hourglasses) == 8
    assert (cpm.Config().input_size, hourglass.Config().input_size) == (368, 256)


@both
def test_decoding_is_the_papers_argmax_unless_told_otherwise(system: ModuleType) -> None:
    torch.manual_seed(0)
    image = torch.randn(2, 3, 64, 64)
    for decode in ("argmax", "local"):
        torch.manual_seed(1)
        network = system.Config(**SMALL[system], decode=decode).build().eval()
        output = network(image)
        assert torch.equal(output.uv, keypoints_uv(output.maps[-1], 64, decode))
    assert system.Config().decode == "argmax"


@both
def test_every_stage_is_supervised(system: ModuleType) -> None:
    torch.manual_seed(0)
    network = system.Config(**SMALL[system]).build()
    uv, known = torch.rand(2, 21, 2), torch.ones(2, 21, dtype=torch.bool)
    image = torch.randn(2, 3, 64, 64)
    output = network(image)
    batch = {"image": image, "uv": uv, "known": known}
    target = gaussian_maps(uv, known, 16, 64, system.SIGMA)
    expected = sum((maps - target).square().sum() / 2 for maps in output.maps)
    assert torch.allclose(system.loss(output, batch)["heatmap"], expected, rtol=1e-5)
    # A keypoint that nobody labelled teaches nothing, wherever its coordinates say it is.
    known[:, 3] = False
    batch["uv"] = uv.index_fill(1, torch.tensor([3]), float("nan"))
    assert torch.isfinite(system.loss(output, batch)["heatmap"])


@both
def test_distributions_are_trained_by_cross_entropy(system: ModuleType) -> None:
    torch.manual_seed(0)
    config = system.Config(**SMALL[system], distribution=True)
    assert [set(stage.loss_weights) for stage in system.stages(config)] == [{"cross_entropy"}] * 3
    assert set(system.stages(system.Config())[0].loss_weights) == {"heatmap"}
    image, uv, known = torch.randn(2, 3, 64, 64), torch.rand(2, 21, 2), torch.ones(2, 21, dtype=torch.bool)
    output = config.build()(image)
    for maps in output.maps:
        assert torch.allclose(maps.sum(dim=(-2, -1)), torch.tensor(6.2832), rtol=1e-4)
    target = gaussian_maps(uv, known, 16, 64).flatten(2)
    target = target / target.sum(-1, keepdim=True)
    expected = -sum((target * (maps.flatten(2) / 6.2832).log()).sum() / 2 for maps in output.maps)
    found = system.loss(output, {"image": image, "uv": uv, "known": known})["cross_entropy"]
    assert torch.allclose(found, expected, rtol=1e-3)


@both
def test_confidence_is_the_calibrated_height_of_the_last_peak(system: ModuleType) -> None:
    torch.manual_seed(0)
    network = system.Config(**SMALL[system]).build().eval()
    network.confidence.curve.copy_(torch.tensor([-1.0, 2.0]))
    output = network(torch.randn(2, 3, 64, 64))
    peaks = output.maps[-1].flatten(2).max(dim=-1).values
    assert torch.allclose(output.confidence, 1 / (1 + torch.exp(1 - 2 * peaks)), atol=1e-6)


@both
def test_the_schedule_is_sia_gcns_hundred_epochs(system: ModuleType) -> None:
    plan = system.stages(system.Config())
    rate = 1e-4 if system is cpm else 7.5e-4
    assert [(s.epochs, s.learning_rate) for s in plan] == [(60, rate), (20, rate / 2), (20, rate / 4)]


def test_imagenet_weights_are_read_when_training_starts(tmp_path: Path) -> None:
    config = cpm.Config(stages=1, pretrained=str(tmp_path / "vgg.safetensors"))
    network = config.build()  # reads nothing: a checkpoint is built without them
    convolutions = [m for m in network.network.features.trunk.modules() if isinstance(m, nn.Conv2d)]
    state = {
        f"features.{layer}.{part}": torch.randn_like(getattr(convolution, part))
        for layer, convolution in zip(VGG19_LAYERS, convolutions, strict=True)
        for part in ("weight", "bias")
    }
    save_file(state, tmp_path / "vgg.safetensors")
    plan = cpm.stages(config)
    cpm.prepare(network, plan[1], None, config)
    assert not torch.equal(convolutions[-1].weight, state["features.25.weight"])
    cpm.prepare(network, plan[0], None, config)
    assert torch.equal(convolutions[-1].weight, state["features.25.weight"])


def test_switches_that_do_not_exist_are_refused() -> None:
    for system, wrong, message in (
        (cpm, {"width": 64, "pretrained": "x.pth"}, "fit width 128 without norm, found width 64"),
        (cpm, {"input_size": 100}, "multiple of stride 8"),
        (hourglass, {"input_size": 100}, "multiple of 64 for 4 halvings"),
        (hourglass, {"joints": 0}, "joints is 0"),
    ):
        with pytest.raises(ConfigError, match=message):
            system.Config(**wrong)
