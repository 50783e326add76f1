"""Adversarial stages: who learns when, what a checkpoint holds, exact continuation, several processes."""

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
import versus
from safetensors.torch import load_file

from handgraph.errors import ConfigError
from handgraph.schedule import Stage
from handgraph.training.checkpoint import load_system


@pytest.fixture(autouse=True)
def one_thread() -> Any:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def tensors(folder: Path, side: str) -> dict[str, torch.Tensor]:
    """The network's weights, or the adversary's."""
    everything = load_file(folder / "last.safetensors")
    prefix = "training/adversary/"
    if side == "network":
        return {name: value for name, value in everything.items() if not name.startswith("training/")}
    return {name: value for name, value in everything.items() if name.startswith(prefix)}


def log(folder: Path) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    return [line for line in lines if line["kind"] == "train"]


def terminate_at(sample: int, first: int) -> None:
    if first == sample:
        os.kill(os.getpid(), signal.SIGTERM)


def test_stopped_and_resumed_both_sides_end_with_the_same_weights(tmp_path: Path) -> None:
    settings = versus.recipe(data={"ahead": 1, "threads": 1})
    versus.run(settings, tmp_path / "whole")
    # Other moments of validating and logging too: neither may move the adversary's statistics.
    other = versus.recipe(data={"ahead": 1, "threads": 1}, validate_every=7, log_every=3)
    for stop_at in (6, 26, 33):  # before the adversary takes part, and twice within
        data = toy.Watched(partial(terminate_at, 8 * stop_at))
        assert not versus.run(other, tmp_path / "parts", data, resume=True)["finished"]
    assert versus.run(other, tmp_path / "parts", resume=True)["finished"]
    for side in ("network", "adversary"):
        whole, parts = tensors(tmp_path / "whole", side), tensors(tmp_path / "parts", side)
        assert whole
        assert whole.keys() == parts.keys()
        assert all(torch.equal(whole[name], parts[name]) for name in whole), side


def test_adversary_learns_in_its_stage_alone_and_is_not_shipped(tmp_path: Path) -> None:
    versus.run(versus.recipe(stages={"versus": {"steps": 1}}), tmp_path / "before")
    versus.run(versus.recipe(), tmp_path / "run")
    lines = log(tmp_path / "run")
    assert ["critic" in line for line in lines] == [False] * 4 + [True] * 4
    assert all({"wasserstein", "score"} <= line.keys() for line in lines[4:])
    # One step of Adam moves no weight by more than the rate; the stage's forty move them further.
    names = tensors(tmp_path / "run", "adversary").keys()
    weights = [name for name in names if "original" in name]
    assert weights
    one, whole = (tensors(tmp_path / folder, "adversary") for folder in ("before", "run"))
    assert max((one[name] - whole[name]).abs().max() for name in weights) > 0.02
    network, _, _, _ = load_system_toy(tmp_path / "run" / "best")
    assert {name.partition(".")[0] for name in network.state_dict()} == {"body", "head"}


def load_system_toy(path: Path) -> Any:
    sys.modules["handgraph.systems.versus"] = versus
    return load_system(path)


def test_the_updates_are_those_written_out(tmp_path: Path) -> None:
    """Two steps of the critic on the detached answer, then one of the network against the moved critic."""
    settings = versus.recipe(
        stages={"alone": None, "versus": {"steps": 3, "trains": [""]}}, data={"threads": 1}, seed=3
    )
    versus.run(settings, tmp_path)
    torch.manual_seed(3)
    network, critic = versus.Config().build(), versus.Critic()
    ours = torch.optim.Adam(network.parameters(), lr=0.01)
    theirs = torch.optim.Adam(critic.parameters(), lr=0.01)
    for step in range(3):
        where = np.arange(8 * step, 8 * step + 8)
        batch = {k: torch.as_tensor(v) for k, v in toy.ToyData(1).batch(where, where).items() if k != "crops"}
        output = network(batch["image"])
        for _ in range(2):
            theirs.zero_grad()
            real, fake = critic(torch.cat([batch["uvz"], output.joints.detach()])).chunk(2)
            (fake.mean() - real.mean()).backward()
            theirs.step()
        ours.zero_grad()
        ((output.joints - batch["uvz"]).square().mean() - 0.1 * critic(output.joints).mean()).backward()
        ours.step()
    found = tensors(tmp_path, "network") | tensors(tmp_path, "adversary")
    expected = network.state_dict() | {f"training/adversary/{n}": v for n, v in critic.state_dict().items()}
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, rtol=1e-4, atol=1e-6, msg=name)


@pytest.mark.slow
def test_two_processes_do_what_one_does(tmp_path: Path) -> None:
    versus.run(versus.recipe(), tmp_path / "one")
    torchrun = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")
    script = Path(versus.__file__)
    command = [sys.executable, *torchrun, str(script), "{}", str(tmp_path / "two")]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=300)
    assert done.returncode == 0, done.stderr
    for side in ("network", "adversary"):
        one, two = tensors(tmp_path / "one", side), tensors(tmp_path / "two", side)
        for name in one:
            torch.testing.assert_close(one[name], two[name], rtol=1e-3, atol=1e-4, msg=name)


def test_errors_say_what_is_missing(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="stage all: critic_steps is set, but toy has no adversary"):
        toy.run(toy.recipe(stages={"all": {"critic_steps": 1}}), tmp_path)
    with pytest.raises(ConfigError, match="stage 'x': critic_steps is -1, expected 0 or more"):
        Stage("x", epochs=1, loss_weights={"a": 1.0}, critic_steps=-1)
