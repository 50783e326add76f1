"""Public hand-pose datasets, read where they lie: one reader a dataset, all yielding the same `Sample`.

data = open_dataset("nyu", "/data/nyu", "test")
data[0].joints_mm
"""

from pathlib import Path
from typing import Any

from handgraph.datasets import icvl, msra, nyu
from handgraph.datasets.depth_crops import DepthCrops
from handgraph.datasets.icvl import Icvl
from handgraph.datasets.msra import Msra
from handgraph.datasets.nyu import Nyu
from handgraph.datasets.sample import Dataset, Sample
from handgraph.errors import ConfigError

_READERS: dict[str, tuple[Any, tuple[str, ...]]] = {
    "nyu": (Nyu, nyu.SPLITS),
    "icvl": (Icvl, icvl.SPLITS),
    "msra": (Msra, msra.SPLITS),
}


def names() -> dict[str, tuple[str, ...]]:
    """Every dataset that can be opened, with its splits."""
    return {name: splits for name, (_, splits) in _READERS.items()}


def open_dataset(name: str, root: str | Path, split: str | None = None, **options: Any) -> Dataset:
    """A reader of one split; `options` are the reader's own.

    `name` may carry the split, as on the command line: `nyu:test_1`. Raises ConfigError for a name, split
    or option that does not exist, InputError where `root` is not that dataset or only part of it.
    """
    name, _, named_split = name.partition(":")
    if name not in _READERS:
        raise ConfigError(f"no dataset {name!r}; there are {', '.join(_READERS)}")
    if named_split and split and named_split != split:
        raise ConfigError(f"{name}: two splits given, {named_split!r} and {split!r}")
    reader, splits = _READERS[name]
    split = named_split or split or splits[0]
    if split not in splits:
        raise ConfigError(f"{name}: no split {split!r}; there are {', '.join(splits)}")
    try:
        dataset: Dataset = reader(root, split, **options)
    except TypeError as error:
        if "unexpected keyword argument" not in str(error):
            raise
        raise ConfigError(f"{name}: {str(error).partition(') ')[2] or error}") from error
    return dataset


__all__ = ["Dataset", "DepthCrops", "Sample", "names", "open_dataset"]
