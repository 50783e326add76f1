"""A system and data so small that a training run takes a second; also a script for tests that need processes.

`python toy.py RECIPE_JSON FOLDER` trains (resuming where there is something to resume) and prints the result.
"""

import json
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from handgraph.networks.batch_norm import BatchNorm2d
from handgraph.schedule import Stage
from handgraph.training.loop import train
from handgraph.training.recipe import Recipe, build


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
    """Images whose brightness pattern says where the two joints are."""

    def __init__(self, seed: int, samples: int = 160, *, endless: bool = True) -> None:
        self.seed, self.samples, self.endless = seed, samples, endless
        self.seen: list[int] = []

    def __len__(self) -> int:
        return self.samples

    def batch(self, indices: np.ndarray, draws: np.ndarray) -> dict[str, Any]:
        self.seen.extend(indices.tolist())
        uvz, image = [], []
        for index in indices:
            random = np.random.default_rng([self.seed, int(index)])
            uvz.append(random.uniform(-1, 1, (2, 3)))
            image.append(random.normal(uvz[-1].mean(), 0.1, (1, 9, 9)))
        joints = np.array(uvz, dtype=np.float32)
        return {
            "image": np.array(image, dtype=np.float32),
            "uvz": joints,
            "joints_mm": 100 * joints,
            "crops": [None] * len(indices),
        }


def recipe(**values: Any) -> Recipe:
    return build(
        Recipe,
        {"system": "toy", "validate_every": 15, "validation_samples": 24, "log_every": 5, **values},
        "toy recipe",
    )


def run(settings: Recipe, folder: Path, *, resume: bool = False, pause: float = 0.0) -> dict[str, Any]:
    """Train the toy; `pause` slows each batch down so that a test can interrupt."""
    sys.modules["handgraph.systems.toy"] = sys.modules[__name__]
    data = ToyData(1)
    if pause:
        produce = data.batch
        data.batch = lambda indices, draws: (time.sleep(pause), produce(indices, draws))[1]  # type: ignore[method-assign]
    return train(settings, folder, resume=resume, data=(data, ToyData(2)))


if __name__ == "__main__":
    torch.set_num_threads(1)
    values = json.loads(sys.argv[1])
    pause = values.pop("pause", 0.0)
    print(json.dumps(run(recipe(**values), Path(sys.argv[2]), resume=True, pause=pause)))
