"""Public hand-pose datasets, read where they lie: one reader a dataset, all yielding the same `Sample`.

data = open_dataset("nyu", "/data/nyu", "test")
data[0].joints_mm
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from handgraph.datasets import (
    coco_wholebody,
    dexycb,
    freihand,
    humbi,
    icvl,
    mhp,
    mpii_nzsl,
    msra,
    nyu,
    panoptic,
    rhd,
    stb,
    synthetic,
    user_folder,
)
from handgraph.datasets.check import Check
from handgraph.datasets.depth_crops import DepthCrops
from handgraph.datasets.hints import hint
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
    images: Mapping[str, Mapping[str, Any]]
    """What its frames hold, `colour` or `depth`, and the options with which the reader gives that."""
    partial: Mapping[str, Any] = field(default_factory=dict)
    """The options with which a copy of a part of the set is read, where the reader insists on all of it."""
    pinhole: Mapping[str, Any] = field(default_factory=dict)
    """The options with which frames have their camera, where they have none otherwise."""


_COLOUR: Mapping[str, Mapping[str, Any]] = {"colour": {}}
_DEPTH: Mapping[str, Mapping[str, Any]] = {"depth": {}}
_BOTH: Mapping[str, Mapping[str, Any]] = {"colour": {}, "depth": {"depth": True}}
_DATASETS = {
    "nyu": _Entry(nyu.Nyu, nyu.SPLITS, ("train", "test"), nyu.FRAMES, _DEPTH),
    "icvl": _Entry(icvl.Icvl, icvl.SPLITS, ("train", "test_seq_1", "test_seq_2"), icvl.FRAMES, _DEPTH),
    "msra": _Entry(msra.Msra, msra.SPLITS, msra.SUBJECTS, msra.FRAMES, _DEPTH),
    "panoptic": _Entry(panoptic.Panoptic, panoptic.SPLITS, ("all",), panoptic.FRAMES, _COLOUR),
    "mpii_nzsl": _Entry(mpii_nzsl.MpiiNzsl, mpii_nzsl.SPLITS, ("train", "test"), mpii_nzsl.FRAMES, _COLOUR),
    "coco_wholebody": _Entry(
        coco_wholebody.CocoWholeBody, coco_wholebody.SPLITS, coco_wholebody.SPLITS, {}, _COLOUR
    ),
    "folder": _Entry(user_folder.UserFolder, user_folder.SPLITS, ("all",), {}, _COLOUR),
    "rhd": _Entry(rhd.Rhd, rhd.SPLITS, rhd.SPLITS, rhd.FRAMES, _BOTH),
    "stb": _Entry(
        stb.Stb, stb.SPLITS, stb.SPLITS, stb.FRAMES, {"colour": {}, "depth": {"camera": "SK_depth"}}
    ),
    "mhp": _Entry(mhp.Mhp, mhp.SPLITS, mhp.SPLITS, mhp.FRAMES, _COLOUR, pinhole={"undistort": True}),
    "freihand": _Entry(freihand.Freihand, freihand.SPLITS, ("train", "test"), freihand.FRAMES, _COLOUR),
    "dexycb": _Entry(
        dexycb.Dexycb, dexycb.SPLITS, dexycb.SPLITS[:3], dexycb.FRAMES, _BOTH, partial={"sequences": None}
    ),
    "humbi": _Entry(
        humbi.Humbi, humbi.SPLITS, ("train", "test"), humbi.FRAMES, _COLOUR, partial={"subjects": None}
    ),
    "synthetic": _Entry(
        synthetic.Synthetic,
        synthetic.SPLITS,
        ("all",),
        {},
        {image: {"image": image} for image in ("colour", "depth")},
    ),
}


_WORDS = {"colour": "photographs", "depth": "depth frames"}
_MISSING = "{}: no such folder; give the one that holds the data set"


def names() -> dict[str, tuple[str, ...]]:
    """Every dataset that can be opened, with its splits."""
    return {name: entry.splits for name, entry in _DATASETS.items()}


def open_dataset(
    name: str,
    root: str | Path,
    split: str | None = None,
    *,
    partial: bool = False,
    image: Literal["colour", "depth"] | None = None,
    pinhole: bool = False,
    **options: Any,
) -> Dataset:
    """A reader of one split; `options` are the reader's own.

    `partial` opens what is there of a set that was copied in part on purpose: DexYCB and HUMBI, whose splits
    depend on how many sequences and subjects there are, divide it by the same rule, so that no figure is the
    published split's; the other sets need whole lists of labels with their pictures either way.
    `image` is what the frames have to hold, photographs or depth; RHD, DexYCB and STB read their depth only
    when asked. `pinhole` has every frame with its camera: MHP's pictures are undistorted.
    `name` may carry the split, as on the command line: `nyu:test_1`. Raises ConfigError for a name, split
    or option that does not exist and for a set that does not hold such images, InputError where `root` is not
    that dataset or only part of it.
    """
    name, _, named_split = name.partition(":")
    entry = _entry(name)
    if named_split and split and named_split != split:
        raise ConfigError(f"{name}: two splits given, {named_split!r} and {split!r}")
    split = named_split or split or entry.splits[0]
    if split not in entry.splits:
        raise ConfigError(f"{name}: no split {split!r}; there are {', '.join(entry.splits)}")
    if image is not None and image not in entry.images:
        held, others = (
            _WORDS[next(iter(entry.images))],
            [n for n, e in _DATASETS.items() if image in e.images],
        )
        raise ConfigError(
            f"{name}: holds {held}, no {_WORDS[image]}: take a model for {held}, or one of "
            f"{', '.join(sorted(others))}"
        )
    options = {
        **(entry.images[image] if image else {}),
        **(entry.partial if partial else {}),
        **(entry.pinhole if pinhole else {}),
        **options,
    }
    try:
        return _read(entry, Path(root), split, **options)
    except TypeError as error:
        if "unexpected keyword argument" not in str(error):
            raise
        raise ConfigError(f"{name}: {str(error).partition(') ')[2] or error}") from error


def check(
    name: str, root: str | Path, samples: int | None = 200, out: str | Path | None = None
) -> dict[str, Any]:
    """Whether the dataset at `root` is whole and its labels plausible.

    Every labelled file must be there; `samples` frames of each part (None: all) are read, and their labels
    compared with the frame, the camera and the size of a hand. With `out`, a folder, some of them are drawn
    with their labels on `sheet.png` there. Returns plain values: `counts` by split, `sizes` (frames read by
    "widthxheight"), `problems`, one line each, empty for a good copy, `read`, the number of frames read,
    `frames_per_s`, how fast, and `sheet`, the picture's path. Raises ConfigError for an unknown name,
    InputError where `root` is no folder.
    """
    entry, root = _entry(name), Path(root)
    if not root.is_dir():
        raise InputError(_MISSING.format(root) if not root.exists() else f"{root}: no folder{hint(root, '')}")
    found = Check(samples, pictures=out is not None)
    for part in entry.parts:
        try:
            found.add(_read(entry, root, part), entry.frames.get(part))
        except HandgraphError as error:
            found.problems.append(str(error))
    result = found.result(name, root)
    if out is not None:
        from handgraph.datasets.sheet import write_sheet

        picture = Path(out) / "sheet.png"
        if found.tiles:
            write_sheet(picture, found.tiles)
        result["sheet"] = str(picture) if found.tiles else None
    return result


def _read(entry: _Entry, root: Path, split: str, **options: Any) -> Dataset:
    """The reader; where it does not find the set in `root`, its message also says where that might be."""
    if not root.exists():
        raise InputError(_MISSING.format(root))
    try:
        return entry.reader(root, split, **options)
    except InputError as error:
        message = str(error)
        if not message.startswith(f"{root}:"):
            raise
        raise InputError(message + hint(root, message)) from None


def _entry(name: str) -> _Entry:
    if name not in _DATASETS:
        raise ConfigError(f"no dataset {name!r}; there are {', '.join(_DATASETS)}")
    return _DATASETS[name]


__all__ = ["Dataset", "DepthCrops", "ImageCrops", "Sample", "check", "names", "open_dataset"]
