"""The crops of a data set that a model is measured on: cut as it was trained to see them."""

from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

from handgraph.datasets import DepthCrops, ImageCrops, names, open_dataset
from handgraph.errors import ConfigError

# What a training's options say of its crops; the others are of augmentation and noise.
_CROP = ("margin", "cube_mm")
_SAME_SET = ("joints",)
# Options of readers that name files, which may be elsewhere now.
_FILES = ("centers", "boxes", "mano")


def crops_of(
    data: str,
    root: str | Path | None,
    system: ModuleType,
    config: Any,
    trained: Mapping[str, Any],
    *,
    seed: int = 0,
    partial: bool = False,
) -> tuple[DepthCrops | ImageCrops, list[str]]:
    """Crops of `data`, a set's name or NAME:SPLIT, for a system of this configuration, and remarks on them.

    `trained` is the `data` of the recipe that its checkpoint names ({} where there is none). The crop's
    margin and cube are taken from there, and on the set that it was trained on the reader's options too: a
    set that is divided by a rule has to be divided by the same. Without a split it is the one that is not
    trained on.
    Raises ConfigError where the set does not fit the system, and what opening it raises.
    """
    kind, _, split = data.partition(":")
    if kind not in names():
        raise ConfigError(f"--data {data}: expected synthetic[:test] or one of {', '.join(names())}")
    if root is None:
        raise ConfigError(f"--data {data}: give --root, the folder that holds the data set")
    same = trained.get("name") == kind
    chosen = split or _unseen(names()[kind], str(trained.get("split")) if same else "")
    options, notes = dict(trained.get("options") or {}), []
    reader = options.pop("reader", None) or {}
    reader = dict(reader) if same else {}
    for key in _FILES:
        if key in reader and not Path(str(reader[key])).exists():
            notes.append(f"{data}: trained with {key}={reader.pop(key)}, which is not there: without it")
    taken = {key: options[key] for key in (*_CROP, *(_SAME_SET if same else ())) if key in options}
    if taken or reader:
        listed = ", ".join(f"{key}={value}" for key, value in {**taken, **reader}.items())
        notes.append(f"{data}: as it was trained, {listed}")
    if partial:
        notes.append(f"{data}: of what is there; not the published split's figures")
    try:
        dataset = open_dataset(
            kind,
            root,
            chosen,
            partial=partial,
            image=system.INPUT,
            # What places the hand before the camera has to have one.
            pinhole=hasattr(system, "joints_mm"),
            **reader,
        )
    except ConfigError as error:
        raise ConfigError(f"--data {data}: {str(error).removeprefix(f'{kind}: ')}") from error
    if not len(dataset):
        raise ConfigError(f"--data {data}: no frame of what {root} holds is in this split")
    joints = getattr(config, "joints", 21)  # systems of the hand model have no other number
    if len(taken.get("joints", dataset.joints)) != joints:
        raise ConfigError(
            f"--data {data} has {len(dataset.joints)} joints, this model predicts {joints}: give one that is "
            "trained for them, --checkpoint FILE"
        )
    kind_of_crops = ImageCrops if system.INPUT == "colour" else DepthCrops
    return kind_of_crops(dataset, seed, size=config.input_size, augment=False, **taken), notes


def _unseen(splits: tuple[str, ...], trained: str) -> str:
    """The split that nobody trained on: the test that belongs to the trained one, `s1_test` to `s1_train`."""
    for name in (trained.replace("train", "test"), trained.removeprefix("not_")):
        if name in splits and name != trained:
            return name
    order = ("test", "validation") if trained else ("all", "test", "validation")
    return next((name for name in order if name in splits), splits[-1])
