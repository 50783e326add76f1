"""What a system's paper trains, on which loss, with which optimiser, for how long: the schedule as data.

A system's ``stages()`` returns a tuple of `Stage`; the training loop runs them one after the other and a
recipe replaces single fields with ``dataclasses.replace``. Nothing here knows a network or an optimiser.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from math import cos, pi
from typing import Literal, get_args

from handgraph.errors import ConfigError

Optimizer = Literal["adam", "adamw", "muon", "sgd", "adadelta"]
Schedule = Literal["constant", "exponential", "cosine"]


@dataclass(frozen=True)
class Stage:
    """One stage of a training schedule. Raises `ConfigError` where a field makes no sense."""

    name: str
    """What this stage trains, in a word: the run's logs and checkpoints carry it."""
    epochs: int | float
    """Passes over the training data; a part of a pass is allowed."""
    batch_size: int = 32
    """Samples in one optimiser step, over all processes together."""
    trains: tuple[str, ...] = ("",)
    """Prefixes of the parameter names that learn; the rest is frozen. The empty prefix means all."""
    loss_weights: Mapping[str, float] = field(default_factory=dict)
    """Factor of each named term of the system's loss. A term not named here is reported, not trained on."""
    mode: str = ""
    """For networks whose forward pass differs from phase to phase: their `set_stage` reads it."""
    critic_steps: int = 0
    """Steps of the system's adversary, on the same batch, before each of ours; with 0 it takes no part."""
    optimizer: Optimizer = "adam"
    learning_rate: float = 1e-3
    betas: tuple[float, float] = (0.9, 0.999)
    """Adam's and AdamW's decay rates of the two moments (Muon's too, where it is AdamW)."""
    weight_decay: float = 0.0
    """L2 penalty added to the gradient (Adam, SGD, Adadelta) or decoupled decay (AdamW, Muon)."""
    schedule: Schedule = "constant"
    """How the learning rate falls after the warm-up: not, by `decay` an epoch, or along a cosine to zero."""
    decay: float = 1.0
    """Factor of the learning rate after every epoch of the exponential schedule."""
    warmup: float = 0.0
    """Fraction of the stage over which the learning rate rises linearly to its full value."""

    def __post_init__(self) -> None:
        for name, good, expected in (
            ("epochs", self.epochs > 0, "more than 0"),
            ("batch_size", self.batch_size > 0, "more than 0"),
            ("learning_rate", self.learning_rate > 0, "more than 0"),
            ("critic_steps", self.critic_steps >= 0, "0 or more"),
            ("weight_decay", self.weight_decay >= 0, "0 or more"),
            ("decay", 0 < self.decay <= 1, "a factor in (0, 1]"),
            ("warmup", 0 <= self.warmup < 1, "a fraction in [0, 1)"),
            ("loss_weights", bool(self.loss_weights), "at least one loss term with its factor"),
            ("optimizer", self.optimizer in get_args(Optimizer), f"one of {', '.join(get_args(Optimizer))}"),
            ("schedule", self.schedule in get_args(Schedule), f"one of {', '.join(get_args(Schedule))}"),
        ):
            if not good:
                value = getattr(self, name)
                raise ConfigError(f"stage '{self.name}': {name} is {value!r}, expected {expected}")

    def learns(self, parameter_name: str) -> bool:
        """Whether the parameter of this name is trained in this stage."""
        return parameter_name.startswith(self.trains)

    def learning_rate_at(self, progress: float) -> float:
        """Learning rate when the fraction `progress` (0 at the start, 1 at the end) of the stage is done."""
        if progress < self.warmup:
            return self.learning_rate * progress / self.warmup
        if self.schedule == "exponential":
            # The small term keeps an epoch's end from being rounded down into the epoch before it.
            return self.learning_rate * self.decay ** int(progress * self.epochs + 1e-9)
        if self.schedule == "cosine":
            return self.learning_rate * 0.5 * (1 + cos(pi * (progress - self.warmup) / (1 - self.warmup)))
        return self.learning_rate
