"""A toy system with an adversary; also a script that trains it: `versus.py RECIPE_JSON FOLDER`."""

import json
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
import toy
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm

from handgraph.schedule import Stage
from handgraph.training.loop import train
from handgraph.training.recipe import Recipe, build

INPUT = "depth"


@dataclass(frozen=True)
class Config:
    width: int = 8

    def build(self) -> nn.Module:
        return Guess(self)


class Output(NamedTuple):
    joints: Tensor


class Guess(nn.Module):
    def __init__(self, config: Config) -> None:
        super().__init__()
        self.body = nn.Linear(81, config.width)
        self.head = nn.Linear(config.width, 6)

    def forward(self, image: Tensor) -> Output:
        return Output(self.head(self.body(image.flatten(1)).tanh()).unflatten(1, (2, 3)))


class Critic(nn.Module):
    """With spectral normalisation, whose power iteration is state that no gradient touches."""

    def __init__(self) -> None:
        super().__init__()
        self.hidden, self.score = spectral_norm(nn.Linear(6, 8)), spectral_norm(nn.Linear(8, 1))

    def forward(self, joints: Tensor) -> Tensor:
        return self.score(self.hidden(joints.flatten(1)).relu())[:, 0]


def adversary(config: Config) -> nn.Module:
    return Critic()


def adversary_loss(critic: nn.Module, output: Output, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
    assert not output.joints.requires_grad
    real, fake = critic(torch.cat([batch["uvz"], output.joints])).chunk(2)
    return {"critic": fake.mean() - real.mean()}


def deceive(critic: nn.Module, output: Output, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {"wasserstein": -critic(output.joints).mean()}


def adversary_measures(critic: nn.Module, output: Output, batch: Mapping[str, Tensor]) -> dict[str, float]:
    return {"score": critic(output.joints.detach()).mean().item()}


def loss(output: Output, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {"square": (output.joints - batch["uvz"]).square().mean()}


def stages(config: Config) -> tuple[Stage, ...]:
    common: dict[str, Any] = {"epochs": 1, "batch_size": 8, "learning_rate": 0.01}
    both = {"square": 1.0, "wasserstein": 0.1}
    return (
        Stage("alone", loss_weights={"square": 1.0}, **common),
        Stage("versus", loss_weights=both, trains=("head.",), critic_steps=2, **common),
    )


def recipe(**values: Any) -> Recipe:
    settings = {"system": "versus", "validate_every": 15, "validation_samples": 24, "log_every": 5}
    return build(Recipe, settings | values, "recipe")


def run(settings: Recipe, folder: Path, data: Any = None, *, resume: bool = False) -> dict[str, Any]:
    sys.modules["handgraph.systems.versus"] = sys.modules[__name__]
    data = (data or toy.ToyData(1), toy.ToyData(2))
    return train(settings, folder, resume=resume, data=data)


if __name__ == "__main__":
    torch.set_num_threads(1)
    print(json.dumps(run(recipe(**json.loads(sys.argv[1])), Path(sys.argv[2]))))
