"""Public hand-pose datasets, read where they lie: one reader a dataset, all yielding the same `Sample`.

data = open_dataset("nyu", "/data/nyu", "test")
data[0].joints_mm
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from handgraph.datasets import coco_wholebody, icvl, mpii_nzsl, msra, nyu, panoptic, synthetic, user_folder
from handgraph.datasets.check import check_split, summary
from handgraph.datasets.depth_crops import DepthCrops
from handgraph.datasets.image_crops import ImageCrops
from handgraph.datasets.sample import Dataset, Sample
from handgraph.errors import ConfigError, HandgraphError, InputError


@dataclass(frozen=True)
class _Entry:
    reader: Callable[..., Dataset]
    splits: tuple[str, ...]
    parts: tuple[str, ...]
    """The splits that together are the whole set, each frame once."""
    frames: Mapping[str, int]
    """Published sizes of the splits, where there are any."""


_DATASETS = {
    "nyu": _Entry(nyu.Nyu, nyu.SPLITS, ("train", "test"), nyu.FRAMES),
    "icvl": _Entry(icvl.Icvl, icvl.SPLITS, ("train", "test_seq_1", "test_seq_2"), icvl.FRAMES),
    "msra": _Entry(msra.Msra, msra.SPLITS, msra.SUBJECTS, msra.FRAMES),
    "panoptic": _Entry(panoptic.Panoptic, panoptic.SPLITS, ("all",), panoptic.FRAMES),
    "mpii_nzsl": _Entry(mpii_nzsl.MpiiNzsl, mpii_nzsl.SPLITS, ("train", "test"), mpii_nzsl.FRAMES),
    "coco_wholebody": _Entry(coco_wholebody.CocoWholeBody, coco_wholebody.SPLITS, coco_wholebody.SPLITS, {}),
    "folder": _Entry(user_folder.UserFolder, user_folder.SPLITS, ("all",), {}),
    "synthetic": _Entry(synthetic.Synthetic, synthetic.SPLITS, ("all",), {}),
}


def names() -> dict[str, tuple[str, ...]]:
    """Every dataset that can be opened, with its splits."""
    return {name: entry.splits for name, entry in _DATASETS.items()}


def open_dataset(name: str, root: str | Path, split: str | None = None, **options: Any) -> Dataset:
    """A reader of one split; `options` are the reader's own.

    `name` may carry the split, as on the command line: `nyu:test_1`. Raises ConfigError for a name, split
    or option that does not exist, InputError where `root` is not that dataset or only part of it.
    """
    name, _, named_split = name.partition(":")
    entry = _entry(name)
    if named_split and split and named_split != split:
        raise ConfigError(f"{name}: two splits given, {named_split!r} and {split!r}")
    split = named_split or split or entry.splits[0]
    if split not in entry.splits:
        raise ConfigError(f"{name}: no split {split!r}; there are {', '.join(entry.splits)}")
    try:
        return entry.reader(root, split, **options)
    except TypeError as error:
        if "unexpected keyword argument" not in str(error):
            raise
        raise ConfigError(f"{name}: {str(error).partition(') ')[2] or error}") from error


def check(name: str, root: str | Path, samples: int | None = 200) -> dict[str, Any]:
    """Whether the dataset at `root` is whole and its labels plausible.

    Every labelled file must be there; `samples` frames of each part (None: all) are read, and their labels
    compared with the frame, the camera and the size of a hand. Returns plain values: `counts` by split,
    `sizes` (frames read by "widthxheight") and `problems`, one line each, empty for a good copy. Raises
    ConfigError for an unknown name, InputError where `root` is no folder.
    """
    entry, root = _entry(name), Path(root)
    if not root.is_dir():
        raise InputError(f"{root}: no such folder")
    counts: dict[str, int] = {}
    sizes: dict[str, int] = {}
    problems: list[str] = []
    for part in entry.parts:
        try:
            dataset = entry.reader(root, part)
        except HandgraphError as error:
            problems.append(str(error))
            continue
        counts[part] = len(dataset) + getattr(dataset, "missing", 0)
        part_sizes, part_problems = check_split(dataset, entry.frames.get(part), samples)
        problems += part_problems
        for size, frames in part_sizes.items():
            sizes[size] = sizes.get(size, 0) + frames
    return summary(name, root, counts, sizes, problems)


def _entry(name: str) -> _Entry:
    if name not in _DATASETS:
        raise ConfigError(f"no dataset {name!r}; there are {', '.join(_DATASETS)}")
    return _DATASETS[name]


__all__ = ["Dataset", "DepthCrops", "ImageCrops", "Sample", "check", "names", "open_dataset"]
