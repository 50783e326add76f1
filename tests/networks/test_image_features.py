"""Backbones of whole images: published sizes, names, ImageNet weights from a file."""

import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from handgraph.errors import CheckpointError, ConfigError, MissingExtraError
from handgraph.networks.image_features import build_features, load_features


@pytest.mark.parametrize(
    ("name", "channels", "parameters"),
    # torchvision's networks less their classifiers: 11,689,512 - 513,000 and 25,557,032 - 2,049,000.
    [("resnet18", 512, 11_176_512), ("resnet50", 2048, 23_508_032)],
)
def test_published_numbers_of_parameters(name: str, channels: int, parameters: int) -> None:
    backbone = build_features(name)
    assert backbone.channels == channels
    assert sum(p.numel() for p in backbone.parameters()) == parameters
    assert backbone.eval()(torch.zeros(2, 3, 64, 64)).shape == (2, channels)


def test_weights_in_torchvisions_naming_fit(tmp_path: Path) -> None:
    torch.manual_seed(0)
    one, other = build_features("small"), build_features("small")
    for buffer in one.buffers():
        buffer.add_(1)
    file = tmp_path / "weights.safetensors"
    save_file(one.state_dict() | {"fc.weight": torch.zeros(3, 256)}, file)
    load_features(other, str(file))
    assert all(torch.equal(value, other.state_dict()[name]) for name, value in one.state_dict().items())
    with pytest.raises(CheckpointError, match=r"another backbone, conv1.weight: shape \(32, 3, 7, 7\)"):
        load_features(build_features("resnet18"), str(file))
    part = {name: value for name, value in one.state_dict().items() if name != "layer4.0.conv2.weight"}
    save_file(part, file)
    with pytest.raises(CheckpointError, match=r"layer4.0.conv2.weight: no such tensor"):
        load_features(other, str(file))


def test_names_are_checked_and_the_hub_needs_transformers(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(
        ConfigError, match="backbone is 'resnet51', expected one of small, resnet18, resnet50"
    ):
        build_features("resnet51")
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(MissingExtraError, match="needs transformers: pip install transformers"):
        build_features("microsoft/resnet-50")
