"""The loop: what it leaves, that it continues exactly, that several processes do what one does."""

import json
import os
import signal
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import toy
from safetensors.torch import load_file
from toy import ToyData, recipe

from handgraph.cli import main
from handgraph.errors import ConfigError, HandgraphError
from handgraph.training.loop import share_of

SCRIPT = Path(__file__).with_name("toy.py")


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "last.safetensors")


def same(one: Path, other: Path) -> bool:
    a, b = weights(one), weights(other)
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def log(folder: Path, kind: str) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    return [line for line in lines if line["kind"] == kind]


def start(*arguments: Any, launcher: tuple[str, ...] = ()) -> dict[str, Any]:
    command = [sys.executable, *launcher, str(SCRIPT), *map(str, arguments)]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=300)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.fixture(autouse=True)
def one_thread() -> Any:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def test_run_leaves_the_documented_files_and_learns(tmp_path: Path) -> None:
    result = toy.run(recipe(), tmp_path / "run")
    found = {path.name for path in (tmp_path / "run").iterdir()} - {"tensorboard"}
    assert found == {"best.safetensors", "last.safetensors", "recipe.yaml", "log.jsonl", "curve.png"}
    assert result["finished"]
    assert result["step"] == result["steps"] == 40
    validations = log(tmp_path / "run", "validation")
    assert [line["step"] for line in validations] == [15, 20, 30, 40]
    assert validations[-1]["mpjpe_mm"] == pytest.approx(result["metrics"]["mpjpe_mm"])
    lines = log(tmp_path / "run", "train")
    assert lines[-1]["absolute"] < 0.8 * lines[0]["absolute"]


def test_every_sample_of_the_stream_is_used_once_and_in_order(tmp_path: Path) -> None:
    data = ToyData(1)
    toy.run(recipe(data={"threads": 1}), tmp_path, data)
    assert data.seen == list(range(2 * 160))  # two stages of an epoch each


def test_frozen_part_of_a_stage_stays_to_the_bit(tmp_path: Path) -> None:
    toy.run(recipe(stages={"head": None}), tmp_path / "first")
    toy.run(recipe(), tmp_path / "both")
    first, both = weights(tmp_path / "first"), weights(tmp_path / "both")
    for name in first:
        frozen = name.startswith("body.")  # batch statistics included
        assert torch.equal(first[name], both[name]) == frozen, name


def terminate_at(sample: int, first: int) -> None:
    if first == sample:
        os.kill(os.getpid(), signal.SIGTERM)


def test_stopped_by_sigterm_and_resumed_ends_with_the_same_weights(tmp_path: Path) -> None:
    settings = recipe(data={"ahead": 1, "threads": 1}, gradient_clip=0.1)
    toy.run(settings, tmp_path / "whole")
    for stop_at in (4, 25):  # in the first stage and, after another start, in the second
        data = toy.Watched(partial(terminate_at, 8 * stop_at))
        result = toy.run(settings, tmp_path / "parts", data, resume=True)
        assert not result["finished"]
        assert result["signal"] == signal.SIGTERM
        assert stop_at - 1 <= result["step"] <= stop_at + 2
    assert toy.run(settings, tmp_path / "parts", resume=True)["finished"]
    assert same(tmp_path / "whole", tmp_path / "parts")
    assert [line["step"] for line in log(tmp_path / "parts", "validation")] == [15, 20, 30, 40]


def test_weights_do_not_depend_on_threads_or_bursts(tmp_path: Path) -> None:
    toy.run(recipe(data={"threads": 1, "ahead": 1}), tmp_path / "one")
    toy.run(recipe(data={"threads": 3, "ahead": 7, "burst": True}), tmp_path / "three")
    assert same(tmp_path / "one", tmp_path / "three")


@pytest.mark.parametrize("kills", [3, pytest.param(10, marks=pytest.mark.slow)])
def test_killed_at_random_moments_it_ends_with_the_same_weights(tmp_path: Path, kills: int) -> None:
    settings = {"checkpoint_seconds": 0, "ema": 0.9}
    toy.run(recipe(**settings), tmp_path / "whole")
    report = start("kill", json.dumps(settings), tmp_path / "killed", kills)
    assert report["result"]["finished"]
    assert len(report["drawn"]) == kills
    assert same(tmp_path / "whole", tmp_path / "killed")
    steps = [line["step"] for line in log(tmp_path / "killed", "validation")]
    assert steps == [15, 20, 30, 40]  # none lost, none twice


def test_two_processes_do_what_one_does(tmp_path: Path) -> None:
    settings = {"config": {"dropout": 0.0}}
    toy.run(recipe(**settings), tmp_path / "one")
    torchrun = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")
    start("train", json.dumps(settings), tmp_path / "two", launcher=torchrun)
    one, two = log(tmp_path / "one", "train"), log(tmp_path / "two", "train")
    np.testing.assert_allclose([x["loss"] for x in one], [x["loss"] for x in two], rtol=1e-5)
    a, b = weights(tmp_path / "one"), weights(tmp_path / "two")
    for name in a:
        torch.testing.assert_close(a[name], b[name], rtol=1e-4, atol=1e-5, msg=name)


def test_a_batch_must_split_evenly() -> None:
    stage = toy.stages(toy.Config())[0]
    assert share_of(stage, 4) == 2
    with pytest.raises(ConfigError, match="stage all: a batch of 8 cannot be split over 3"):
        share_of(stage, 3)


def test_few_samples_are_overfitted(tmp_path: Path) -> None:
    from handgraph.training.sources import First

    few = First(ToyData(1), 8)
    sys.modules["handgraph.systems.toy"] = toy
    settings = recipe(stages={"all": {"steps": 30}, "head": None}, validate_every=1000)
    result = toy.train(settings, tmp_path, data=(few, few))
    assert result["metrics"]["loss"] < 0.35 * log(tmp_path, "train")[0]["loss"]


def test_the_command_resumes_only_what_was_begun(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """And in the name of the override that is wrong, without a word of the training library before it."""
    begin = ["train", "hourglass_synthetic", "--out", str(tmp_path / "new")]
    assert main([*begin, "--resume"]) == 2
    assert (
        "new: holds no run to resume (no last.safetensors); begin it without --resume"
        in capfd.readouterr().err
    )
    assert not (tmp_path / "new" / "log.jsonl").exists()
    assert main([*begin, "precision=bf16-mixed", "config.heads=x"]) == 2
    said = capfd.readouterr().err
    assert "config.heads" in said
    assert said.count("\n") == 1


def test_existing_run_is_neither_overwritten_nor_resumed_with_another_recipe(tmp_path: Path) -> None:
    settings = recipe(stages={"all": {"steps": 2}, "head": None})
    toy.run(settings, tmp_path)
    before = weights(tmp_path)
    with pytest.raises(ConfigError, match="holds a run already, resume it or choose another folder"):
        toy.run(settings, tmp_path)
    with pytest.raises(ConfigError, match=r"was trained with seed = 0, cannot resume with 1"):
        toy.run(recipe(stages={"all": {"steps": 2}, "head": None}, seed=1), tmp_path, resume=True)
    assert toy.run(settings, tmp_path, resume=True)["finished"]
    assert all(torch.equal(before[name], tensor) for name, tensor in weights(tmp_path).items())


def test_a_loss_that_is_no_number_stops_the_run_and_spoils_no_checkpoint(tmp_path: Path) -> None:
    class Spoiled(ToyData):
        def batch(self, indices: np.ndarray, draws: np.ndarray) -> dict[str, Any]:
            batch = super().batch(indices, draws)
            if draws[0] >= 10 * 8:
                batch["image"][:] = np.nan
            return batch

    with pytest.raises(HandgraphError, match=r"the loss is nan at step 15; lower the learning rate"):
        toy.run(recipe(checkpoint_seconds=1000), tmp_path, Spoiled(1))
    assert not (tmp_path / "last.safetensors").exists()


def test_loss_term_and_trained_part_must_exist(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="stage all: no loss term cubic, expected among square, absolute"):
        toy.run(recipe(stages={"all": {"loss_weights": {"cubic": 1.0}}}), tmp_path / "a")
    with pytest.raises(ConfigError, match=r"stage all: no parameter's name begins with tail\."):
        toy.run(recipe(stages={"all": {"trains": ["tail."]}}), tmp_path / "b")
