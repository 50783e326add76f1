"""CMU Panoptic hands (Simon et al. 2017): 14817 right hands in 2D, seen in the Panoptic dome.

Layout, as it is unpacked:

    hand143_panopticdb/hands_v143_14817.json
    hand143_panopticdb/imgs/00000000.jpg … 00014816.jpg        1920x1080

The JSON's `root` lists one hand an image: `img_paths`, `joint_self` with 21 × (u, v, valid) and more. Papers
crop a square of 2.2 times the longer side of the hand's box (dissertation 3.5.1, 4.5.1, 5.4): `MARGIN`.
"""

from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float32

from handgraph.datasets.boxes import keypoint_box
from handgraph.datasets.files import expect_files, number_array, read_color_frame, read_json
from handgraph.datasets.sample import Sample
from handgraph.datasets.splits import SEED, digest, hashed_split
from handgraph.errors import ConfigError, FormatError, InputError
from handgraph.skeleton import OPENPOSE

MARGIN = 2.2
"""Side of the papers' crop over the longer side of the hand's box."""
PROTOCOLS = {
    "70/15/15": {"train": 0.7, "validation": 0.15, "test": 0.15},
    "80/10/10": {"train": 0.8, "validation": 0.1, "test": 0.1},
}
"""The papers' random splits: 70/15/15 in R-MGMN (dissertation 3.5) and SIA-GCN, 80/10/10 in AGMN (4.5)."""
SPLITS = ("train", "validation", "test", "all")
FRAMES = {"train": 10372, "validation": 2222, "test": 2223, "all": 14817}
"""Sizes under 70/15/15."""
DIGESTS = {
    "70/15/15": {"train": "7d5a26e895895f7d", "validation": "5e0efd970c79f384", "test": "aaffe7af20354d8e"},
    "80/10/10": {"train": "6921d7d66b834b15", "validation": "069d810cb4b24cd8", "test": "901ecb3cc9b4f62b"},
}
"""`splits.digest` of the image names of each part for seed 0: copies that agree compare like with like."""
_FOLDER = "hand143_panopticdb"


class Panoptic:
    """Random access to one split of the Panoptic hands.

    root        the folder hand143_panopticdb, or the one that holds it
    split       train, validation, test, or all
    protocol    the shares of the random split, one of `PROTOCOLS`; no paper names its seed or list, so the
                parts are drawn by `splits.hashed_split` from the images' names
    seed        of that split

    A keypoint marked invalid is NaN. Raises InputError for a wrong root or an incomplete copy, FormatError
    for damaged files.
    """

    name = "panoptic"
    order = OPENPOSE
    joints = tuple(range(21))

    def __init__(
        self, root: str | Path, split: str = "train", *, protocol: str = "70/15/15", seed: int = SEED
    ) -> None:
        if split not in SPLITS:
            raise ConfigError(f"panoptic: no split {split!r}; there are {', '.join(SPLITS)}")
        if protocol not in PROTOCOLS:
            raise ConfigError(f"panoptic: no protocol {protocol!r}; there are {', '.join(PROTOCOLS)}")
        self.split = split
        self.folder, labels = _find(Path(root))
        names, points, sizes = _labels(labels)
        chosen = np.arange(len(names))
        if split != "all":
            chosen = hashed_split(names, PROTOCOLS[protocol], seed)[split]
        expect_files(self.folder, names)
        self.frames = [names[index] for index in chosen]
        self._points: Float32[np.ndarray, "n 21 3"] = points[chosen]
        self._sizes = [sizes[index] for index in chosen]

    def __len__(self) -> int:
        return len(self.frames)

    @property
    def digest(self) -> str:
        """Names this split's images in 16 digits, to compare with `DIGESTS` or another copy."""
        return digest(self.frames)

    def image_path(self, index: int) -> Path:
        """The photograph of a frame of this split, counted from 0."""
        return self.folder / self.frames[index]

    def __getitem__(self, index: int) -> Sample:
        """Raises FormatError when the picture or its label is damaged, IndexError past the end."""
        index = range(len(self))[index]
        path, points = self.image_path(index), self._points[index]
        keypoints = np.where(points[:, 2:] == 1, points[:, :2], np.float32(np.nan))
        return Sample(
            frame=self.frames[index],
            source=path,
            order=OPENPOSE,
            keypoints_px=keypoints,
            image=read_color_frame(path, self._sizes[index]),
            side="right",
            box_px=keypoint_box(keypoints),
        )


def _find(root: Path) -> tuple[Path, Path]:
    """The data set's folder and its label file."""
    for folder in (root, root / _FOLDER):
        found = sorted(folder.glob("hands_v143_*.json"))
        if len(found) == 1:
            return folder, found[0]
        if found:
            names = ", ".join(path.name for path in found)
            raise InputError(f"{folder}: holds {names}; keep the label file of the images, remove the others")
    raise InputError(f"{root}: no hands_v143_14817.json here or in {_FOLDER}; give the folder {_FOLDER}")


def _labels(
    path: Path,
) -> tuple[list[str], Float32[np.ndarray, "n 21 3"], list[tuple[int, int] | None]]:
    """Names, keypoints (u, v, valid) and stated (width, height). Raises FormatError naming the entry."""
    content = read_json(path)
    entries: Any = content.get("root") if isinstance(content, dict) else None
    if not isinstance(entries, list) or not entries:
        raise FormatError(f"{path}: no list under 'root'; is it the label file of the Panoptic hands?")
    names: list[str] = []
    points: list[np.ndarray] = []
    sizes: list[tuple[int, int] | None] = []
    for number, entry in enumerate(entries):
        if not isinstance(entry, dict) or "img_paths" not in entry or "joint_self" not in entry:
            raise FormatError(f"{path}: entry {number} lacks img_paths or joint_self")
        name = entry["img_paths"]
        if not isinstance(name, str) or name.startswith(("/", "\\")) or ".." in name.split("/"):
            raise FormatError(
                f"{path}: entry {number}: img_paths is {str(name)[:60]!r}, expected imgs/NAME.jpg"
            )
        points.append(number_array(path, f"entry {number}: joint_self", entry["joint_self"], (21, 3)))
        if "img_width" in entry and "img_height" in entry:
            size = number_array(
                path, f"entry {number}: size", [entry["img_width"], entry["img_height"]], (2,)
            )
            sizes.append((int(size[0]), int(size[1])))
        else:
            sizes.append(None)
        names.append(name)
    if len(set(names)) != len(names):
        raise FormatError(f"{path}: some images are listed twice; two versions of the labels mixed?")
    return names, np.stack(points).astype(np.float32), sizes
