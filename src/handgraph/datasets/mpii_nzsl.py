"""CMU hand_labels (Simon et al. 2017): hands of MPII and of New Zealand sign language (NZSL), clicked in 2D.

Layout, as it is unpacked:

    hand_labels/manual_train/005880453_01_l.jpg, .json …       1912 hands
    hand_labels/manual_test/ex2_2.flv_000040_l.jpg, .json …     846 hands
    hand_labels_synth/synth2/*.jpg, *.json … synth4             rendered hands of the same form (synth1 has
                                                                not 21 keypoints)

One JSON a hand: `hand_pts` 21 × (u, v, valid), `hand_box_center`, `is_left`, and for some `head_size`. A
photograph with two labelled hands is there twice. Papers crop 2.2 times the hand's box, as for Panoptic.
"""

import os
from pathlib import Path
from typing import Any

import numpy as np

from handgraph.datasets.boxes import keypoint_box
from handgraph.datasets.files import number_array, read_color_frame, read_json
from handgraph.datasets.sample import Sample
from handgraph.errors import ConfigError, FormatError, InputError
from handgraph.skeleton import OPENPOSE

MARGIN = 2.2
"""Side of the papers' crop over the longer side of the hand's box (dissertation 5.4)."""
FOLDERS = {
    "train": "hand_labels/manual_train",
    "test": "hand_labels/manual_test",
    "synth2": "hand_labels_synth/synth2",
    "synth3": "hand_labels_synth/synth3",
    "synth4": "hand_labels_synth/synth4",
}
SPLITS = tuple(FOLDERS)
FRAMES = {"train": 1912, "test": 846, "synth2": 3243, "synth3": 2348, "synth4": 2124}
_PICTURES = (".jpg", ".jpeg", ".png")


class MpiiNzsl:
    """Random access to one split of hand_labels, or of its synthetic companion.

    root    the folder hand_labels (for synth…: hand_labels_synth), or the one that holds it
    split   train (1912: manual_train), test (846: manual_test), synth2, synth3, synth4

    Labels are read with their picture, one small JSON each. A keypoint marked invalid is NaN. Raises
    InputError for a wrong root and where label and picture files do not pair up, FormatError for damage.
    """

    name = "mpii_nzsl"
    order = OPENPOSE
    joints = tuple(range(21))

    def __init__(self, root: str | Path, split: str = "train") -> None:
        if split not in SPLITS:
            raise ConfigError(f"mpii_nzsl: no split {split!r}; there are {', '.join(SPLITS)}")
        self.split = split
        self.folder = _find(Path(root), split)
        self.frames = _pairs(self.folder)

    def __len__(self) -> int:
        return len(self.frames)

    def image_path(self, index: int) -> Path:
        """The photograph of a hand of this split, counted from 0."""
        return self.folder / self.frames[index]

    def head_size_px(self, index: int) -> float | None:
        """The head's size, which PCKh measures in (Simon et al.: 0.7 of it); None where not given."""
        path = self.image_path(index).with_suffix(".json")
        value = _label(path).get("head_size")
        return None if value is None else float(number_array(path, "head_size", value, ()))

    def __getitem__(self, index: int) -> Sample:
        """Raises FormatError when the picture or its label is damaged, IndexError past the end."""
        index = range(len(self))[index]
        path = self.image_path(index)
        source = path.with_suffix(".json")
        label = _label(source)
        points = number_array(source, "hand_pts", label.get("hand_pts"), (21, 3))
        left = label.get("is_left")
        if left not in (0, 1):  # True and False are 1 and 0
            raise FormatError(f"{source}: is_left is {str(left)[:40]}, expected 0 or 1")
        keypoints = np.where(points[:, 2:] == 1, points[:, :2], np.nan)
        box = keypoint_box(keypoints)
        if box is not None and "hand_box_center" in label:
            center = number_array(source, "hand_box_center", label["hand_box_center"], (2,))
            off, side = np.abs(box[:2] + (box[2:] - 1) / 2 - center).max(), box[2:].max()
            if off > side:
                raise FormatError(
                    f"{source}: hand_box_center lies {off:.0f} px from the middle of hand_pts, whose box has "
                    f"{side:.0f} px; one of them is damaged"
                )
        return Sample(
            frame=self.frames[index],
            source=path,
            order=OPENPOSE,
            keypoints_px=keypoints,
            image=read_color_frame(path),
            side="left" if left else "right",
            box_px=box,
        )


def _find(root: Path, split: str) -> Path:
    within = Path(FOLDERS[split])
    for folder in (root / within.name, root / within):
        if folder.is_dir():
            return folder
    raise InputError(
        f"{root}: no folder {within.name} or {within}; give the folder {within.parent} or the one around it"
    )


def _pairs(folder: Path) -> list[str]:
    """The pictures that have a label beside them, by name. Raises InputError where some have none."""
    listed = {name for name in os.listdir(folder) if not name.startswith(".")}  # macOS leaves ._ files
    pictures = sorted(name for name in listed if Path(name).suffix.lower() in _PICTURES)
    labels = {Path(name).stem for name in listed if name.endswith(".json")}
    bare = [name for name in pictures if Path(name).stem not in labels]
    unseen = sorted(labels - {Path(name).stem for name in pictures})
    if bare:
        raise InputError(
            f"{folder}: {len(bare)} of {len(pictures)} pictures have no label, {bare[0]} the first"
        )
    if unseen:
        raise InputError(
            f"{folder}: {len(unseen)} of {len(labels)} labels have no picture, {unseen[0]}.json the first; "
            "the dataset is copied only in part"
        )
    if not pictures:
        raise InputError(f"{folder}: no picture with a label; the dataset is copied only in part")
    return pictures


def _label(path: Path) -> dict[str, Any]:
    label = read_json(path)
    if not isinstance(label, dict):
        raise FormatError(f"{path}: {type(label).__name__}, expected an object with hand_pts")
    return label
