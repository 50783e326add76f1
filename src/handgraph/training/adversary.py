"""The other side of adversarial training: a network of its own, trained in turns with the system's.

A system that is trained against one brings, beside what `loop` asks for,
- `adversary(config) -> nn.Module`, freshly initialised;
- `adversary_loss(adversary, output, batch) -> dict[str, Tensor]`: `critic` is what the adversary minimises,
  other terms are reported;
- `deceive(adversary, output, batch) -> dict[str, Tensor]`: terms that join those of the system's own `loss`;
- optionally `adversary_measures(adversary, output, batch) -> dict[str, float]`, for the log alone.

It takes part in stages with `critic_steps`. Predictions need none of it: it lies in training checkpoints,
beside the optimisers' state, and in no shipped weights.
"""

from __future__ import annotations

from collections.abc import Sequence
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map

from handgraph.errors import ConfigError
from handgraph.schedule import Stage


class Adversary:
    """The adversary of one run. Its weights and statistics change in `learn` and in the `judge` after it."""

    def __init__(self, system: ModuleType, fabric: Any, module: nn.Module) -> None:
        self.system, self.fabric = system, fabric
        self.module: nn.Module = fabric.to_device(module)
        self.optimizer: Any = None
        self.steps = 0

    @staticmethod
    def of(system: ModuleType, config: Any, stages: Sequence[Stage], fabric: Any) -> Adversary | None:
        """The system's adversary if any of the stages has one take part; else None. Raises ConfigError."""
        adversarial = [stage for stage in stages if stage.critic_steps]
        if not adversarial:
            return None
        if not hasattr(system, "adversary"):
            name = system.__name__.rpartition(".")[2]
            raise ConfigError(
                f"stage {adversarial[0].name}: critic_steps is set, but {name} has no adversary"
            )
        return Adversary(system, fabric, system.adversary(config))

    def enter(self, stage: Stage, optimizer: torch.optim.Optimizer) -> None:
        """Begin a stage, or go on with it."""
        self.steps = stage.critic_steps
        self.wrapped, self.optimizer = self.fabric.setup(self.module, optimizer)
        self.module.requires_grad_(False)

    def learn(self, output: Any, batch: dict[str, Any], rate: float) -> dict[str, Tensor]:
        """Train the adversary on what the network answers to a batch; returns the terms of its last step."""
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.module.train().requires_grad_(True)
        answer = tree_map(lambda value: value.detach() if isinstance(value, Tensor) else value, output)
        terms: dict[str, Tensor] = {}
        for _ in range(self.steps):
            terms = self.system.adversary_loss(self.wrapped, answer, batch)
            self.fabric.backward(terms["critic"])
            self.optimizer.step()
            self.optimizer.zero_grad(set_to_none=True)
        self.module.requires_grad_(False)
        return terms

    def judge(self, output: Any, batch: dict[str, Any]) -> dict[str, Tensor]:
        """The adversary's part in the network's loss."""
        # Not through the wrapper: with several processes that would wait for gradients of the adversary.
        with self.fabric.autocast():
            return self.system.deceive(self.module, output, batch)

    def measure(self, output: Any, batch: dict[str, Any]) -> dict[str, float]:
        """What the log says of it beside its terms; changes nothing."""
        if not hasattr(self.system, "adversary_measures"):
            return {}
        measures: dict[str, float] = self.system.adversary_measures(self.module.eval(), output, batch)
        return measures
