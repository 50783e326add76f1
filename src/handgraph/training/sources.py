"""The data a recipe names, in the form the training loop wants."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Int

from handgraph.errors import ConfigError
from handgraph.training.data import Data
from handgraph.training.recipe import Recipe

SYNTHETIC_DEPTH = "synthetic_depth"


@dataclass(frozen=True)
class Stream:
    """An endless synthesizer as `Data`: `samples` of it are called an epoch."""

    synthesizer: Any
    samples: int
    endless: bool = True

    def __len__(self) -> int:
        return self.samples

    def batch(self, indices: Int[np.ndarray, " b"], draws: Int[np.ndarray, " b"]) -> dict[str, Any]:
        """The samples themselves; the synthesizer's own variety makes augmentation idle."""
        return self.synthesizer.batch(indices)


@dataclass(frozen=True)
class First:
    """The first `samples` of other data, again and again."""

    data: Data
    samples: int
    endless: bool = False

    def __len__(self) -> int:
        return self.samples

    def batch(self, indices: Int[np.ndarray, " b"], draws: Int[np.ndarray, " b"]) -> dict[str, Any]:
        """As the other data's."""
        return self.data.batch(indices, draws)


def open_data(recipe: Recipe) -> tuple[Data, Data]:
    """Training and validation data of a recipe. Raises ConfigError for data that is unknown or not there.

    Where `data.limit` is set, the validation data are the training samples themselves.
    """
    wanted = recipe.data
    if wanted.name == SYNTHETIC_DEPTH:
        training, validation = _synthetic(recipe, wanted.split), _synthetic(recipe, wanted.validation_split)
    else:
        raise ConfigError("no data yet")
    if wanted.limit is not None:
        training = First(training, min(wanted.limit, len(training)))
        validation = training
    return training, validation


def _synthetic(recipe: Recipe, split: str) -> Data:
    from handgraph.synthetic.depth import DepthSynthesizer

    if recipe.data.samples is None:
        raise ConfigError("data.samples is missing: how many images of the endless stream make an epoch")
    try:
        synthesizer = DepthSynthesizer(seed=recipe.data.seed, split=split, **recipe.data.options)
    except TypeError as error:
        raise ConfigError(f"data.options: {error}") from None
    return Stream(synthesizer, recipe.data.samples)
