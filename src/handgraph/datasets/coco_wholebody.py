"""COCO-WholeBody hands (Jin et al. 2020): the hands of COCO 2017's people, 21 keypoints each in 2D.

Layout:

    annotations/coco_wholebody_train_v1.0.json, coco_wholebody_val_v1.0.json    (or without the folder)
    train2017/000000000009.jpg …
    val2017/000000000139.jpg …

A person has for either hand `lefthand_valid`, `lefthand_box` (x, y, w, h) and `lefthand_kpts`, 21 × (u, v,
reliability), which is above 0 where the keypoint can be relied on.
"""

from pathlib import Path
from typing import Literal

import numpy as np
from jaxtyping import Float32

from handgraph.datasets.files import expect_files, list_under, number_array, read_color_frame, read_json
from handgraph.datasets.sample import Sample
from handgraph.errors import ConfigError, FormatError, InputError
from handgraph.skeleton import OPENPOSE

MARGIN = 1.25
"""Side of the crop over the longer side of the labelled box, as in mmpose."""
PARTS = {"train": "train", "validation": "val"}
SPLITS = tuple(PARTS)


class CocoWholeBody:
    """Random access to the labelled hands of one split; a person gives one, two or none.

    root    the folder of COCO 2017 with the two annotation files in `annotations` or in itself
    split   train, validation

    A hand is taken when it is called valid, has a reliable keypoint and its person is no crowd. Raises
    InputError for a wrong root or an incomplete copy, FormatError for damaged files.
    """

    name = "coco_wholebody"
    order = OPENPOSE
    joints = tuple(range(21))

    def __init__(self, root: str | Path, split: str = "train") -> None:
        if split not in SPLITS:
            raise ConfigError(f"coco_wholebody: no split {split!r}; there are {', '.join(SPLITS)}")
        self.split = split
        labels = _find(Path(root), f"coco_wholebody_{PARTS[split]}_v1.0.json")
        self.folder = Path(root) / f"{PARTS[split]}2017"
        if not self.folder.is_dir():
            raise InputError(
                f"{root}: no folder {self.folder.name}; give the folder that holds COCO's pictures"
            )
        hands = _hands(labels)
        if not hands:
            raise FormatError(f"{labels}: no person has a valid hand; is it COCO-WholeBody's file?")
        expect_files(self.folder, sorted({hand[0] for hand in hands}))
        self.frames = [hand[0] for hand in hands]
        self._sizes = [hand[1] for hand in hands]
        self._sides = [hand[2] for hand in hands]
        self._boxes: Float32[np.ndarray, "n 4"] = np.stack([hand[3] for hand in hands])
        self._points: Float32[np.ndarray, "n 21 3"] = np.stack([hand[4] for hand in hands])

    def __len__(self) -> int:
        return len(self.frames)

    def image_path(self, index: int) -> Path:
        """The photograph of a hand of this split, counted from 0."""
        return self.folder / self.frames[index]

    def __getitem__(self, index: int) -> Sample:
        """Raises FormatError when the picture is damaged, IndexError past the end."""
        index = range(len(self))[index]
        path, points = self.image_path(index), self._points[index]
        return Sample(
            frame=self.frames[index],
            source=path,
            order=OPENPOSE,
            keypoints_px=np.where(points[:, 2:] > 0, points[:, :2], np.float32(np.nan)),
            image=read_color_frame(path, self._sizes[index]),
            side=self._sides[index],
            box_px=self._boxes[index],
        )


_Hand = tuple[str, tuple[int, int], Literal["left", "right"], np.ndarray, np.ndarray]
"""Picture, its (width, height), side, box and (21, 3) keypoints."""


def _find(root: Path, name: str) -> Path:
    for path in (root / "annotations" / name, root / name):
        if path.is_file():
            return path
    raise InputError(
        f"{root}: no {name} here or in annotations; give the folder that holds COCO and this file"
    )


def _hands(path: Path) -> list[_Hand]:
    """Every usable hand, in the file's order, left before right."""
    content = read_json(path)
    images: dict[int, tuple[str, tuple[int, int]]] = {}
    for number, image in enumerate(list_under(path, content, "images")):
        try:
            name, size = image["file_name"], (int(image["width"]), int(image["height"]))
            if not isinstance(name, str) or Path(name).name != name:
                raise ValueError(f"file_name {name!r}")
            images[int(image["id"])] = name, size
        except (KeyError, TypeError, ValueError, OverflowError) as error:
            raise FormatError(f"{path}: image {number} lacks a file_name, width, height or id") from error
    hands: list[_Hand] = []
    for number, person in enumerate(list_under(path, content, "annotations")):
        if not isinstance(person, dict):
            raise FormatError(f"{path}: annotation {number} is no object")
        if person.get("iscrowd"):
            continue
        for side in ("left", "right"):
            try:
                usable, given = person[f"{side}hand_valid"], person[f"{side}hand_kpts"]
                box, where = person[f"{side}hand_box"], person["image_id"]
            except KeyError as error:
                raise FormatError(
                    f"{path}: annotation {number} has no {error.args[0]}; plain COCO keypoints without hands?"
                ) from error
            if not usable:
                continue
            points = number_array(path, f"annotation {number}: {side}hand_kpts", given, (63,)).reshape(21, 3)
            corner = number_array(path, f"annotation {number}: {side}hand_box", box, (4,))
            if not (points[:, 2] > 0).any() or not (points > 0).any():
                continue
            if not isinstance(where, int) or where not in images:
                raise FormatError(
                    f"{path}: annotation {number} belongs to image {where!r}, which is not listed"
                )
            if corner[2:].min() <= 0:
                raise FormatError(f"{path}: annotation {number}: {side}hand_box has no size")
            name, size = images[where]
            hands.append((name, size, side, corner.astype(np.float32), points.astype(np.float32)))
    return hands
