"""`evaluate` on data sets in their original layout, with a network that has learned nothing."""

import json
from pathlib import Path

import pytest

from handgraph import cli, systems
from handgraph.datasets.layouts import WRITERS
from handgraph.training.checkpoint import save_weights

CONFIG = {"width": 16, "input_size": 64, "stacks": 2, "depth": 2, "form": "compact", "growth": 8}


def evaluate(capfd: pytest.CaptureFixture[str], folder: Path, data: str) -> tuple[int, str, str]:
    config = systems.hourglass.Config(**CONFIG)
    weights = folder / "weights.safetensors"
    save_weights(weights, config.build(), "hourglass", config)
    WRITERS[data.partition(":")[0]](folder / "set")
    arguments = ["--checkpoint", str(weights), "--root", str(folder / "set"), "--samples", "1", "--json"]
    code = cli.main(["evaluate", "--data", data, *arguments])
    return code, *capfd.readouterr()


def test_without_a_split_it_is_the_one_that_is_not_trained_on(
    capfd: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    code, out, err = evaluate(capfd, tmp_path, "coco_wholebody")  # has train and validation
    assert code == 0, err
    assert json.loads(out)["n"] == 1


def test_a_split_without_frames_is_named(capfd: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    code, _, err = evaluate(capfd, tmp_path, "panoptic:test")
    assert code == 2
    assert "--data panoptic:test: no frame of what" in err
