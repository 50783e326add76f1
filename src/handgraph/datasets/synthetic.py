"""Folders of synthetic depth frames, as `handgraph synthesize` writes them.

    OUT/depth_000000.png …    16-bit mm
    OUT/labels.jsonl          one JSON object a frame

Splits are folders: `train` of root `data` is what `handgraph synthesize data/train --split train` wrote;
`all` is the folder itself.
"""

import json
import os
from pathlib import Path
from typing import Any

import numpy as np

from handgraph.camera import PinholeCamera
from handgraph.datasets.files import read_grey_frame, read_lines
from handgraph.datasets.sample import Sample
from handgraph.errors import ConfigError, FormatError, InputError
from handgraph.skeleton import OPENPOSE

SPLITS = ("all", "train", "validation", "test")
LABELS_FILE = "labels.jsonl"
CUBE_MM = 260.0
_SHAPES = {"joints_mm": (21, 3), "keypoints_px": (21, 2), "shape": (10,), "pose": (48,)}
_RESIDUAL_PX = 1.0


class Synthetic:
    """Random access to a folder of synthetic frames.

    The crop's centre is the middle of the true joints, as a perfect finder would place it. Raises InputError
    for a folder without labels or with frames missing, FormatError for damaged files.
    """

    name = "synthetic"
    order = OPENPOSE
    joints = tuple(range(21))

    def __init__(self, root: str | Path, split: str = "all") -> None:
        if split not in SPLITS:
            raise ConfigError(f"synthetic: no split {split!r}; there are {', '.join(SPLITS)}")
        self.split = split
        self.folder = Path(root) if split == "all" else Path(root) / split
        self._records = _records(self.folder / LABELS_FILE)
        present = set(os.listdir(self.folder))
        absent = [index for index in range(len(self)) if self.depth_path(index).name not in present]
        if absent:
            raise InputError(
                f"{self.folder}: {len(absent)} of {len(self)} labelled frames are not there, "
                f"{self.depth_path(absent[0]).name} the first; the dataset is copied only in part"
            )

    def __len__(self) -> int:
        return len(self._records)

    def depth_path(self, index: int) -> Path:
        """The depth PNG of a frame, counted from 0."""
        return self.folder / self._records[index]["file"]

    def __getitem__(self, index: int) -> Sample:
        """Raises FormatError when the frame or its label is damaged, IndexError past the end."""
        record, path = self._records[index], self.depth_path(index)
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
        return Sample(
            frame=path.name,
            source=path,
            order=OPENPOSE,
            keypoints_px=keypoints,
            joints_mm=joints,
            depth_mm=read_grey_frame(path),
            camera=camera,
            side=record.get("side"),
            subject=str(record.get("subject", "")) or None,
            center_mm=joints.mean(axis=0),
            center_refined=True,
            cube_mm=CUBE_MM,
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
            if not isinstance(record["file"], str) or Path(record["file"]).name != record["file"]:
                raise ValueError(f"file is {record['file']!r}")
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
