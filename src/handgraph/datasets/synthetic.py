"""Folders of synthetic frames, as `handgraph synthesize` writes them: depth, colour or both.

    OUT/depth_000000.png …    16-bit mm, named by `file`
    OUT/image_000000.jpg …    colour, named by `image`
    OUT/labels.jsonl          one JSON object a hand

Splits are folders: `train` of root `data` is what `handgraph synthesize data/train --split train` wrote;
`all` is the folder itself.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np

from handgraph.camera import PinholeCamera
from handgraph.datasets.centers import middle_of_joints
from handgraph.datasets.files import expect_files, read_color_frame, read_grey_frame, read_lines
from handgraph.datasets.sample import Sample
from handgraph.errors import ConfigError, FormatError, InputError
from handgraph.images import LABELS_FILE
from handgraph.skeleton import OPENPOSE

SPLITS = ("all", "train", "validation", "test")
_SHAPES = {"joints_mm": (21, 3), "keypoints_px": (21, 2), "shape": (10,), "pose": (48,)}
_FILES = ("image", "file")
# The key of its file in a label, what it is, what writes it.
_IMAGES = {"colour": ("image", "photograph", "rgb"), "depth": ("file", "depth frame", "depth")}
_RESIDUAL_PX = 1.0


class Synthetic:
    """Random access to a folder of synthetic frames.

    image    colour or depth: what every frame has to have. None takes what there is

    The crop's centre is the middle of the true joints, as a perfect finder would place it. Raises InputError
    for a folder without labels or with frames missing, FormatError for damaged files.
    """

    name = "synthetic"
    order = OPENPOSE
    joints = tuple(range(21))

    def __init__(self, root: str | Path, split: str = "all", *, image: str | None = None) -> None:
        if split not in SPLITS:
            raise ConfigError(f"synthetic: no split {split!r}; there are {', '.join(SPLITS)}")
        self.split = split
        self.folder = Path(root) if split == "all" else Path(root) / split
        self._records = _records(self.folder / LABELS_FILE)
        if image is not None:
            self._expect(image)
        named = [record[key] for record in self._records for key in _FILES if key in record]
        expect_files(self.folder, named, "labelled frames")

    def _expect(self, image: str) -> None:
        if image not in _IMAGES:
            raise ConfigError(f"synthetic: image is {image!r}, expected {' or '.join(_IMAGES)}")
        key, kind, modality = _IMAGES[image]
        without = sum(key not in record for record in self._records)
        if without:
            raise InputError(
                f"{self.folder}: {without} of {len(self._records)} frames have no {kind}; "
                f"handgraph synthesize --modality {modality} writes them"
            )

    def __len__(self) -> int:
        return len(self._records)

    def image_path(self, index: int) -> Path:
        """The picture of a frame, counted from 0: the colour one where there is one, else the depth PNG."""
        record = self._records[index]
        return self.folder / next(record[key] for key in _FILES if key in record)

    def depth_path(self, index: int) -> Path:
        """The depth PNG of a frame, counted from 0. Raises InputError where the folder has colour only."""
        if "file" not in self._records[index]:
            raise InputError(f"{self.folder}: frame {index} has no depth, only a colour image")
        return self.folder / self._records[index]["file"]

    def __getitem__(self, index: int) -> Sample:
        """Raises FormatError when the frame or its label is damaged, IndexError past the end."""
        record, path = self._records[index], self.image_path(index)
        camera, joints, keypoints = record["camera"], record["joints_mm"], record["keypoints_px"]
        if not np.isfinite(joints).all() or joints[:, 2].min() <= 0:
            raise FormatError(
                f"{path}: its joints_mm in labels.jsonl are not finite or not before the camera"
            )
        residual = np.abs(camera.uvd_from_xyz(joints)[:, :2] - keypoints).max()
        if not residual <= _RESIDUAL_PX:
            raise FormatError(
                f"{path}: its joints_mm project {residual:.1f} px from its keypoints_px in labels.jsonl"
            )
        image = read_color_frame(path) if "image" in record else None
        size = None if image is None else (image.shape[1], image.shape[0])
        return Sample(
            frame=path.name,
            source=path,
            order=OPENPOSE,
            keypoints_px=keypoints,
            joints_mm=joints,
            image=image,
            depth_mm=read_grey_frame(self.depth_path(index), size) if "file" in record else None,
            camera=camera,
            side=record.get("side"),
            subject=str(record.get("subject", "")) or None,
            **middle_of_joints(joints),
            pose=record["pose"],
            shape=record["shape"],
        )


def _records(path: Path) -> list[dict[str, Any]]:
    """The labels with their arrays as float64 and their cameras. Raises FormatError naming the line."""
    if not path.is_file():
        raise InputError(f"{path}: no such file; give a folder that `handgraph synthesize` wrote")
    records = []
    for number, line in enumerate(read_lines(path), start=1):
        try:
            record = json.loads(line)
            names = [record[key] for key in _FILES if record.get(key) is not None]
            if not names or any(not isinstance(name, str) or Path(name).name != name for name in names):
                raise ValueError(f"image or file is {(names or [None])[0]!r}")
            record = {key: value for key, value in record.items() if key not in _FILES or value is not None}
            record["camera"] = PinholeCamera(**{key: float(value) for key, value in record["camera"].items()})
            for name, shape in _SHAPES.items():
                record[name] = np.array(record[name], np.float64).reshape(shape)
        except (
            ValueError,
            TypeError,
            KeyError,
            AttributeError,
            OverflowError,
            RecursionError,
            InputError,
        ) as error:
            raise FormatError(f"{path}: line {number} is no label of a synthetic frame ({error})") from error
        records.append(record)
    if not records:
        raise FormatError(f"{path}: holds no label")
    return records
