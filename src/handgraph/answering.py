"""A system's network in PyTorch as estimators and exporters see it: crops in, the system's `Answer` out."""

from collections.abc import Mapping
from types import ModuleType
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from handgraph.decoding import decoder
from handgraph.evaluation.measures import inputs
from handgraph.networks.hourglass import folded
from handgraph.runtime import Input, Runtime
from handgraph.training.checkpoint import find_system


class Answering(nn.Module):
    """A network in evaluation mode, and behind it what its system's `answer` picks: `fields`, in order."""

    def __init__(self, system: ModuleType, module: nn.Module) -> None:
        super().__init__()
        self.system, self.module = system, folded(module)
        self.takes_shape = hasattr(system, "SUBJECT")
        self.fields: tuple[str, ...] = ()

    def forward(self, image: Float[Tensor, "b c s s"], shape: Tensor | None = None) -> tuple[Tensor, ...]:
        """The answer's fields; those that this configuration does not have are left out.

        `shape` (b, 10) of the hand, NaN where it is not known: for systems that take one.
        """
        answer = self.system.answer(self.output(image, shape))._asdict()
        self.fields = tuple(name for name, value in answer.items() if value is not None)
        return tuple(answer[name] for name in self.fields)

    def output(self, image: Float[Tensor, "b c s s"], shape: Tensor | None = None) -> Any:
        """The network's whole output."""
        batch = {"image": image}
        if self.takes_shape:
            if shape is None:
                shape = image.new_full((len(image), 10), torch.nan)
            batch |= {"shape": shape, "subject": shape}
        return self.module(*inputs(self.system, batch))


class TorchNetwork:
    """A system's network in PyTorch; see `handgraph.runtime.Network` for the attributes."""

    runtime: Runtime = "torch"

    def __init__(
        self, module: nn.Module, name: str, config: Any, meta: Mapping[str, Any] | None = None
    ) -> None:
        system = find_system(name)
        self.name, self.config, self.meta = name, config, meta or {}
        self.input: Input = system.INPUT
        self.module = Answering(system, module)
        self.takes_shape = self.module.takes_shape

    def __call__(
        self, image: Float[np.ndarray, "b c s s"], shape: Float[np.ndarray, "b 10"] | None = None
    ) -> Any:
        with torch.inference_mode():
            values = self.module(*_tensors(image, shape))
        arrays = (value.numpy() for value in values)
        return decoder(self.name).Answer(**dict(zip(self.module.fields, arrays, strict=True)))

    def output(
        self, image: Float[np.ndarray, "b c s s"], shape: Float[np.ndarray, "b 10"] | None = None
    ) -> Any:
        """The network's whole output."""
        with torch.inference_mode():
            return self.module.output(*_tensors(image, shape))


def _tensors(*arrays: np.ndarray | None) -> tuple[Tensor, ...]:
    return tuple(torch.from_numpy(np.asarray(a, np.float32)) for a in arrays if a is not None)
