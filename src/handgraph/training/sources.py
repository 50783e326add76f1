"""The data a recipe names, in the form the training loop wants."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Int

from handgraph.errors import ConfigError
from handgraph.training.data import Data
from handgraph.training.recipe import DataRecipe, Recipe

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
    open_split = _synthetic_depth if wanted.name == SYNTHETIC_DEPTH else _depth_dataset
    training = open_split(wanted, wanted.split, augment=wanted.limit is None)
    if wanted.limit is not None:
        few = First(training, wanted.limit if training.endless else min(wanted.limit, len(training)))
        return few, few
    return training, open_split(wanted, wanted.validation_split, augment=False)


def _synthetic_depth(wanted: DataRecipe, split: str, *, augment: bool) -> Data:
    """The stream itself is all the augmentation there is."""
    from handgraph.synthetic.depth import DepthSynthesizer
    from handgraph.synthetic.scene import Chances

    if wanted.samples is None:
        raise ConfigError("data.samples is missing: how many images of the endless stream make an epoch")
    options = dict(wanted.options)
    try:
        if "chances" in options:
            options["chances"] = Chances(**options["chances"])
        synthesizer = DepthSynthesizer(wanted.seed, split, **options)
    except TypeError as error:
        raise ConfigError(f"data.options: {error}") from None
    return Stream(synthesizer, wanted.samples)


def _depth_dataset(wanted: DataRecipe, split: str, *, augment: bool) -> Data:
    from handgraph.datasets import DepthCrops, open_dataset

    if wanted.root is None:
        raise ConfigError(f"data.root is missing: the folder that holds the {wanted.name} data set")
    options = dict(wanted.options)
    dataset = open_dataset(wanted.name, wanted.root, split, **options.pop("reader", {}))
    try:
        return DepthCrops(dataset, wanted.seed, augment=augment, **options)
    except TypeError as error:
        raise ConfigError(f"data.options: {error}") from None
