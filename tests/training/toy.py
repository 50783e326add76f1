"""A system and data so small that a training run takes a second; also a script for tests that need processes.

`python toy.py train RECIPE_JSON FOLDER` trains. `python toy.py kill RECIPE_JSON FOLDER KILLS` trains in child
processes that it kills, each at a random moment, lets the last one finish, and says how far each one came.
"""

import json
import os
import signal
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from handgraph.camera import Crop, PinholeCamera
from handgraph.networks.batch_norm import BatchNorm2d
from handgraph.schedule import Stage
from handgraph.training.loop import train
from handgraph.training.recipe import Recipe, build

INPUT = "depth"
CROP = Crop.window((0.0, 0.0, 9.0, 9.0), 9, PinholeCamera(9.0, 9.0, 4.0, 4.0))


@dataclass(frozen=True)
class Config:
    width: int = 8
    dropout: float = 0.2

    def build(self) -> nn.Module:
        return Toy(self)


class Toy(nn.Module):
    def __init__(self, config: Config) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(1, config.width, 3, stride=2, bias=False), BatchNorm2d(config.width), nn.ReLU(),
            nn.Dropout(config.dropout),
        )  # fmt: skip
        self.head = nn.Linear(config.width, 6)

    def forward(self, image: Tensor) -> Tensor:
        return self.head(self.body(image).mean(dim=(2, 3))).unflatten(1, (2, 3))


def loss(output: Tensor, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
    error = output - batch["uvz"]
    return {"square": error.square().mean(), "absolute": error.abs().mean()}


def stages(config: Config) -> tuple[Stage, ...]:
    common: dict[str, Any] = {"epochs": 1, "batch_size": 8, "learning_rate": 0.01}
    return (
        Stage("all", loss_weights={"square": 1.0}, schedule="cosine", warmup=0.1, **common),
        Stage("head", loss_weights={"absolute": 1.0}, trains=("head.",), optimizer="adamw", **common),
    )


def joints_mm(output: Tensor, crops: Any) -> np.ndarray:
    return 100 * output.detach().double().numpy()


class ToyData:
    """Images whose brightness says where the two joints are."""

    def __init__(self, seed: int, samples: int = 160, *, endless: bool = True) -> None:
        self.seed, self.samples, self.endless = seed, samples, endless
        self.seen: list[int] = []

    def __len__(self) -> int:
        return self.samples

    def batch(self, indices: np.ndarray, draws: np.ndarray) -> dict[str, Any]:
        self.seen.extend(indices.tolist())
        brightness = np.array([np.random.default_rng([self.seed, int(i)]).uniform(-1, 1) for i in indices])
        image = np.multiply.outer(brightness, np.linspace(0.5, 1.5, 81).reshape(1, 9, 9))
        joints = np.multiply.outer(brightness, [[1, 0, -1], [0.5, 1, 0]]).astype(np.float32)
        return {
            "image": image.astype(np.float32),
            "uvz": joints,
            "joints_mm": 100 * joints,
            "crops": [CROP] * len(indices),
        }


def recipe(**values: Any) -> Recipe:
    return build(
        Recipe,
        {"system": "toy", "validate_every": 15, "validation_samples": 24, "log_every": 5, **values},
        "toy recipe",
    )


def run(settings: Recipe, folder: Path, data: Any = None, *, resume: bool = False) -> dict[str, Any]:
    sys.modules["handgraph.systems.toy"] = sys.modules[__name__]
    return train(settings, folder, resume=resume, data=(data or ToyData(1), ToyData(2)))


class Watched(ToyData):
    """Calls `watch` with the first draw of every batch, before it is made."""

    def __init__(self, watch: Callable[[int], Any]) -> None:
        super().__init__(1)
        self.watch = watch

    def batch(self, indices: np.ndarray, draws: np.ndarray) -> dict[str, Any]:
        self.watch(int(draws[0]))
        return super().batch(indices, draws)


def killed(settings: Recipe, folder: Path, kills: int) -> list[int]:
    """Train in a child process that is killed with SIGKILL `kills` times; returns the batches each one drew.

    Which batch is random, and so is the moment within the step: with a checkpoint after every step many a
    kill falls into the writing of one. Nothing depends on the speed of the machine.
    """
    random, drawn = np.random.default_rng(), []
    for _ in range(kills):
        last_batch, delay = int(random.integers(2, 12)), random.uniform(0, 0.02)
        read, write = os.pipe()
        child = os.fork()
        if child == 0:
            run(settings, folder, Watched(partial(lambda pipe, _: os.write(pipe, b"."), write)), resume=True)
            os._exit(0)
        os.close(write)
        batches = 0
        while batches < last_batch and os.read(read, 1):
            batches += 1
        time.sleep(delay)
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        os.close(read)
        drawn.append(batches)
    return drawn


if __name__ == "__main__":
    torch.set_num_threads(1)
    mode, settings, folder = sys.argv[1], recipe(**json.loads(sys.argv[2])), Path(sys.argv[3])
    report: dict[str, Any] = {}
    if mode == "kill":
        # What a run imports late is imported once here, not by every child.
        import_module("torch.utils.tensorboard")
        import_module("matplotlib.backends.backend_agg")
        report["drawn"] = killed(settings, folder, int(sys.argv[4]))
    report["result"] = run(settings, folder, resume=True)
    print(json.dumps(report))
