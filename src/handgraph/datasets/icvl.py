"""ICVL hand posture dataset (Tang et al. 2014): one Creative depth camera, 16 points a hand.

Layout, as it is unpacked:

    Training/labels.txt
    Training/Depth/201403121135/image_0000.png …        the 12 recorded sequences
    Training/Depth/45/201403121135/image_0000.png …     the same, turned in the image plane
    Testing/test_seq_1.txt, Testing/Depth/test_seq_1/image_0000.png …
    Testing/test_seq_2.txt, Testing/Depth/test_seq_2/image_0000.png …

A label line is a path below `Depth` and 16 × (u px, v px, depth mm). Depth PNGs are 16-bit mm, 320x240, with
32001 for the background.
"""

import os
from pathlib import Path
from typing import Literal

import cv2
import numpy as np
from jaxtyping import Float32

from handgraph.camera import PinholeCamera
from handgraph.datasets.centers import find_centers, mass_center, read_centers
from handgraph.datasets.files import parse_floats, read_grey_frame, read_lines
from handgraph.datasets.sample import Sample
from handgraph.errors import ConfigError, FormatError, InputError
from handgraph.skeleton import ICVL16

CAMERA = PinholeCamera(240.99, 240.96, 160.0, 120.0)
"""The camera of published evaluation scripts; some training code has 241.42 for both focal lengths."""
SIZE = (320, 240)
CENTER_FILES = {
    "Training": ("center_train_refined.txt",),
    "Testing": ("center_test_refined.txt", "icvl_center.txt"),
}
SPLITS = ("train", "train_original", "test", "test_seq_1", "test_seq_2")
FRAMES = {"train": 331006, "test": 1596, "test_seq_1": 702, "test_seq_2": 894}
"""Lines of the published lists. 73 frames that the training list names are known to be missing."""
CUBE_MM = 250.0
# Anything beyond is a background mark, not a reading: the camera was used within arm's length.
_LAST_MM = 9999.0
# Nothing but the hand is nearer than this in the recorded sequences.
_HAND_WITHIN_MM = 500.0
_MISSING_SHARE = 0.01


class Icvl:
    """Random access to one split of ICVL.

    root            the folder that holds Training and Testing
    split           train (all 331006 lines), train_original (the recorded sequences without the turned
                    copies), test (1596: both sequences), test_seq_1 (702), test_seq_2 (894)
    camera          None is the camera of published evaluations
    centers         a published centre file of train or test, or a folder that holds such files (V2V-PoseNet's
                    `center_{train,test}_refined.txt`, region ensemble network's `icvl_center.txt` of test);
                    without it the centre is found in the depth
    centers_form    `xyz` or `uvd` where the file's name does not tell

    Frames that the list names and the disk lacks are left out (the published list has 73 of them) and
    counted in `missing`; more than one in a hundred is an incomplete copy. Raises InputError for a wrong
    root or an incomplete copy, FormatError for damaged files.
    """

    name = "icvl"
    order = ICVL16
    joints = tuple(range(16))

    def __init__(
        self,
        root: str | Path,
        split: str = "train",
        *,
        camera: PinholeCamera | None = None,
        centers: str | Path | None = None,
        centers_form: Literal["xyz", "uvd"] | None = None,
    ) -> None:
        if split not in SPLITS:
            raise ConfigError(f"icvl: no split {split!r}; there are {', '.join(SPLITS)}")
        self.split, self.camera = split, camera or CAMERA
        part = "Training" if split.startswith("train") else "Testing"
        folder = Path(root) / part
        if not folder.is_dir():
            raise InputError(
                f"{root}: no folder {part}; give the folder that holds ICVL's Training and Testing"
            )
        self.folder = folder / "Depth"
        frames: list[str] = []
        labels: list[np.ndarray] = []
        for name in _lists(folder):
            names, uvd = _read_list(folder / name)
            frames += names
            labels.append(uvd)
        every = np.concatenate(labels)
        keep = np.array([_belongs(frame, split) for frame in frames], dtype=bool)
        present = self._present(frames)
        self.missing = int((keep & ~present).sum())
        if self.missing > max(_MISSING_SHARE * keep.sum(), 1):
            absent = next(f for f, k, p in zip(frames, keep, present, strict=True) if k and not p)
            raise InputError(
                f"{self.folder}: {self.missing} of {keep.sum()} listed frames are not there, {absent} the "
                "first of them; the dataset is copied only in part"
            )
        self._centers: Float32[np.ndarray, "n 3"] | None = None
        if centers is not None:
            middle = self.camera.xyz_from_uvd(every.astype(np.float64)).mean(axis=1)
            found = read_centers(
                find_centers(centers, *CENTER_FILES[part]),
                self.camera,
                middle,
                axis_signs=(1.0, 1.0, 1.0),
                form=centers_form,
            )
            self._centers = found[keep & present].astype(np.float32)
        self.frames = [frame for frame, kept in zip(frames, keep & present, strict=True) if kept]
        uvd = every[keep & present]
        self._keypoints: Float32[np.ndarray, "n 16 2"] = np.ascontiguousarray(uvd[..., :2])
        self._joints: Float32[np.ndarray, "n 16 3"] = self.camera.xyz_from_uvd(uvd)
        if not self.frames:
            raise InputError(f"{folder}: no frame of split {split}")

    def __len__(self) -> int:
        return len(self.frames)

    def depth_path(self, index: int) -> Path:
        """The depth PNG of a frame of this split, counted from 0."""
        return self.folder / self.frames[index]

    def __getitem__(self, index: int) -> Sample:
        """Raises FormatError when the frame or its label is damaged, IndexError past the end."""
        index = range(len(self))[index]
        path = self.depth_path(index)
        depth = read_grey_frame(path, SIZE)
        cv2.threshold(depth, _LAST_MM, 0, cv2.THRESH_TOZERO_INV, dst=depth)
        center = None if self._centers is None else self._centers[index]
        known = center is not None and bool(np.isfinite(center).all())
        if not known:
            center = mass_center(depth, self.camera, 1.0, _HAND_WITHIN_MM)
        return Sample(
            frame=self.frames[index],
            source=path,
            order=ICVL16,
            keypoints_px=self._keypoints[index],
            joints_mm=self._joints[index],
            depth_mm=depth,
            camera=self.camera,
            side="left",
            center_mm=center,
            center_refined=known,
            cube_mm=CUBE_MM,
        )

    def _present(self, frames: list[str]) -> np.ndarray:
        """Which of the frames exist, by one listing a folder instead of one question a file."""
        listings: dict[str, set[str]] = {}
        for frame in frames:
            parent = frame.rpartition("/")[0]
            if parent not in listings:
                try:
                    with os.scandir(self.folder / parent) as entries:
                        listings[parent] = {entry.name for entry in entries}
                except OSError:
                    listings[parent] = set()
        return np.array([f.rpartition("/")[2] in listings[f.rpartition("/")[0]] for f in frames], dtype=bool)


def _lists(folder: Path) -> tuple[str, ...]:
    if folder.name == "Testing":
        return ("test_seq_1.txt", "test_seq_2.txt")
    # An older release called the list train.txt.
    older = not (folder / "labels.txt").exists() and (folder / "train.txt").exists()
    return ("train.txt",) if older else ("labels.txt",)


def _belongs(frame: str, split: str) -> bool:
    """Recorded sequences are named by 12-digit times, the turned copies lie in folders of short names."""
    top = frame.partition("/")[0]
    return {"train_original": len(top) > 6, "test_seq_1": top == split, "test_seq_2": top == split}.get(
        split, True
    )


def _read_list(path: Path) -> tuple[list[str], Float32[np.ndarray, "n 16 3"]]:
    """The frames of a label list and their 16 × (u, v, d). Raises FormatError naming the line."""
    lines = read_lines(path)
    frames, rest = [], []
    for number, line in enumerate(lines, start=1):
        frame, _, values = line.strip().partition(" ")
        frame = frame.replace("\\", "/")
        if not frame.endswith(".png") or frame.startswith("/") or ".." in frame.split("/"):
            raise FormatError(f"{path}: line {number} begins with {frame[:60]!r}, expected a PNG below Depth")
        frames.append(frame)
        rest.append(values)
    uvd = parse_floats(path, rest, 48).astype(np.float32).reshape(-1, 16, 3)
    outside = (uvd[..., 2] <= 0) | (uvd[..., 2] > 2000) | (np.abs(uvd[..., :2]) > 2000).any(axis=-1)
    if outside.any():
        line_number = int(np.flatnonzero(outside.any(axis=1))[0]) + 1
        raise FormatError(f"{path}: line {line_number} holds a joint that is not before the camera")
    return frames, uvd
