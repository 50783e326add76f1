"""MSRA hand gesture dataset (Sun et al. 2015): nine subjects, 17 gestures, 21 joints, y up and z negative.

Layout, as it is unpacked:

    cvpr15_MSRAHandGestureDB/P0/1/000000_depth.bin …, joint.txt
    … P0 to P8, each with the gestures 1 to 9, I, IP, L, MP, RP, T, TIP, Y

A .bin holds six uint32 (width, height, left, top, right, bottom) and float32 mm of that box. joint.txt holds
the number of frames, then 63 numbers a frame; y and z are turned over here.
"""

import os
import struct
from pathlib import Path
from typing import Literal

import numpy as np
from jaxtyping import Float32

from handgraph.camera import PinholeCamera
from handgraph.datasets.centers import find_centers, mass_center, read_centers
from handgraph.datasets.files import parse_floats, read_bytes, read_lines, read_packed_frame
from handgraph.datasets.sample import FARTHEST_MM, Sample
from handgraph.errors import ConfigError, FormatError, InputError
from handgraph.skeleton import MSRA

CAMERA = PinholeCamera(241.42, 241.42, 160.0, 120.0)
SIZE = (320, 240)
SUBJECTS = tuple(f"P{number}" for number in range(9))
GESTURES = ("1", "2", "3", "4", "5", "6", "7", "8", "9", "I", "IP", "L", "MP", "RP", "T", "TIP", "Y")
SPLITS = (*SUBJECTS, *(f"not_{subject}" for subject in SUBJECTS), "all")
FRAMES = dict(zip(SUBJECTS, (8499, 8492, 8412, 8488, 8500, 8497, 8497, 8498, 8492), strict=True))
SHORT_SEQUENCES = {
    "P0/T": 499, "P1/4": 499, "P1/6": 498, "P1/9": 499, "P1/L": 498, "P1/Y": 498, "P2/MP": 417, "P2/RP": 498,
    "P2/T": 497, "P3/5": 499, "P3/6": 497, "P3/7": 499, "P3/8": 497, "P3/9": 498, "P3/I": 499, "P3/Y": 499,
    "P5/1": 499, "P5/3": 499, "P5/T": 499, "P6/2": 499, "P6/4": 499, "P6/Y": 499, "P7/1": 498, "P8/2": 497,
    "P8/3": 498, "P8/4": 499, "P8/5": 499, "P8/Y": 499,
}  # fmt: skip
"""Frames of the sequences that have not 500."""
CUBE_MM = dict(zip(SUBJECTS, (200.0, 200.0, 200.0, 180.0, 180.0, 180.0, 170.0, 160.0, 150.0), strict=True))
"""DeepPrior++'s crop cube for each subject's hand."""
BAD_FRAMES: dict[str, tuple[int, ...]] = {
    "P2/TIP": (172, 173, 174),
    "P2/MP": (173, 174, 175, *range(345, 355), 356, 359, 360),
    "P3/T": (120, 489),
    "P8/4": (168,),
}
"""Frames (from 0) that DeepPrior++ leaves out because they show no whole hand."""


class Msra:
    """Random access to one split of MSRA 2015.

    root            cvpr15_MSRAHandGestureDB, or the folder that holds it
    split           P0 … P8: that subject's frames; not_P0 … not_P8: everyone else's, to train on when that
                    subject is left out (papers report the mean over the nine); all
    bad_frames      keep all (what published errors are computed on), or skip those of DeepPrior++'s list
    centers         a published centre file of this split, or a folder that holds such files (V2V-PoseNet's
                    `center_{train,test}_{0…8}_refined.txt`, region ensemble network's `msra_center.txt` of
                    all); without it the centre is found in the depth
    centers_form    `xyz` or `uvd` where the file's name does not tell

    A frame with an empty box or no reading repeats the depth of the frame before it, as DenseReg does, and
    its `Sample.note` says so. Raises InputError for a wrong root or an incomplete copy, FormatError for
    damaged files.
    """

    name = "msra"
    order = MSRA
    joints = tuple(int(index) for index in MSRA.gather)

    def __init__(
        self,
        root: str | Path,
        split: str = "P0",
        *,
        bad_frames: Literal["keep", "skip"] = "keep",
        centers: str | Path | None = None,
        centers_form: Literal["xyz", "uvd"] | None = None,
    ) -> None:
        if split not in SPLITS:
            raise ConfigError(f"msra: no split {split!r}; there are {', '.join(SPLITS)}")
        if bad_frames not in ("keep", "skip"):
            raise ConfigError(f"msra: bad_frames is {bad_frames!r}, expected keep or skip")
        self.split = split
        self.folder = _find(Path(root))
        if split in SUBJECTS:
            subjects = [split]
        else:
            subjects = [subject for subject in SUBJECTS if split != f"not_{subject}"]
        self._sequences: list[str] = []
        sequence_of, frame_of, joints = [], [], []
        for subject in subjects:
            for gesture in self._gestures(subject):
                sequence = f"{subject}/{gesture}"
                labels = read_joints(self.folder / sequence / "joint.txt")
                self._expect_frames(sequence, len(labels))
                sequence_of.append(np.full(len(labels), len(self._sequences)))
                frame_of.append(np.arange(len(labels)))
                joints.append(labels)
                self._sequences.append(sequence)
        self._sequence_of, self._frame_of = np.concatenate(sequence_of), np.concatenate(frame_of)
        self._joints: Float32[np.ndarray, "n 21 3"] = np.concatenate(joints)
        self._centers: Float32[np.ndarray, "n 3"] | None = None
        if centers is not None:
            middle = self._joints.astype(np.float64).mean(axis=1)
            found = read_centers(
                find_centers(centers, _center_file(split)),
                CAMERA,
                middle,
                axis_signs=(1.0, -1.0, 1.0),
                form=centers_form,
            )
            self._centers = found.astype(np.float32)
        if bad_frames == "skip":
            self._leave_out_bad()

    def __len__(self) -> int:
        return len(self._joints)

    def depth_path(self, index: int) -> Path:
        """The .bin of a frame of this split, counted from 0."""
        return self.folder / self._frame(index)

    def __getitem__(self, index: int) -> Sample:
        """Raises FormatError when the frame is damaged, IndexError past the end."""
        index = range(len(self))[index]
        path, joints = self.depth_path(index), self._joints[index]
        shown = self._last_seen(path, int(self._frame_of[index]))
        depth = read_packed_frame(shown, SIZE)
        if depth.max() > FARTHEST_MM:
            raise FormatError(f"{shown}: a reading of {depth.max():.3g} mm; the frame is damaged")
        subject = self._sequences[self._sequence_of[index]].partition("/")[0]
        center = None if self._centers is None else self._centers[index]
        known = center is not None and bool(np.isfinite(center).all())
        if not known:
            center = mass_center(depth, CAMERA, 10.0, 1000.0)
        return Sample(
            frame=self._frame(index),
            source=path,
            order=MSRA,
            keypoints_px=CAMERA.uvd_from_xyz(joints)[:, :2],
            joints_mm=joints,
            depth_mm=depth,
            camera=CAMERA,
            side="right",
            subject=subject,
            center_mm=center,
            center_refined=known,
            cube_mm=CUBE_MM[subject],
            note="" if shown == path else f"no reading; the depth is that of {shown.name}",
        )

    @staticmethod
    def _last_seen(path: Path, frame: int) -> Path:
        """The frame itself, or the nearest before it in its sequence that holds a reading."""
        for number in range(frame, -1, -1):
            candidate = path.with_name(f"{number:06d}_depth.bin")
            if not is_empty(candidate):
                return candidate
        raise FormatError(f"{path}: holds no reading, and no frame before it does")

    def _frame(self, index: int) -> str:
        return f"{self._sequences[self._sequence_of[index]]}/{self._frame_of[index]:06d}_depth.bin"

    def _gestures(self, subject: str) -> list[str]:
        folder = self.folder / subject
        found = [gesture for gesture in GESTURES if (folder / gesture).is_dir()]
        if len(found) < len(GESTURES):
            missing = next(gesture for gesture in GESTURES if gesture not in found)
            raise InputError(
                f"{folder}: {len(found)} of {len(GESTURES)} gesture folders, {missing} is not there; "
                "the dataset is copied only in part"
            )
        return found

    def _expect_frames(self, sequence: str, labelled: int) -> None:
        """Frames 0 … labelled − 1 are there and no more: a whole copy, of one version."""
        with os.scandir(self.folder / sequence) as entries:
            numbers = {
                int(entry.name[:6])
                for entry in entries
                if entry.name.endswith("_depth.bin") and entry.name[:6].isdigit()
            }
        absent = sorted(set(range(labelled)) - numbers)
        where = self.folder / sequence
        if absent:
            raise InputError(
                f"{where}: joint.txt labels {labelled} frames but {len(absent)} are not there, "
                f"{absent[0]:06d}_depth.bin the first; the dataset is copied only in part"
            )
        if numbers - set(range(labelled)):
            raise InputError(
                f"{where}: joint.txt labels {labelled} frames but {max(numbers):06d}_depth.bin exists; "
                "labels and frames are of different versions"
            )

    def _leave_out_bad(self) -> None:
        keep = np.ones(len(self), dtype=bool)
        for sequence, frames in BAD_FRAMES.items():
            if sequence in self._sequences:
                of_sequence = self._sequence_of == self._sequences.index(sequence)
                keep &= ~(of_sequence & np.isin(self._frame_of, frames))
        self._sequence_of, self._frame_of = self._sequence_of[keep], self._frame_of[keep]
        self._joints = self._joints[keep]
        if self._centers is not None:
            self._centers = self._centers[keep]


def read_joints(path: Path) -> Float32[np.ndarray, "n 21 3"]:
    """A joint.txt of MSRA (2014 or 2015): 21 joints a frame in MSRA's order, mm, turned to y down, z forward.

    Raises FormatError when the count does not fit, or a joint is not before the camera.
    """
    lines = read_lines(path)
    count = lines[0].strip() if lines else ""
    if not count.isdigit() or int(count) != len(lines) - 1:
        raise FormatError(
            f"{path}: the first line is {count[:20]!r}, expected the number of frames, {len(lines) - 1}"
        )
    joints = parse_floats(path, lines[1:], 63, first_line=2).reshape(-1, 21, 3) * [1.0, -1.0, -1.0]
    behind = (joints[..., 2] <= 0).any(axis=1) | (np.abs(joints) > 5000).any(axis=(1, 2))
    if behind.any():
        line = int(np.flatnonzero(behind)[0]) + 2
        raise FormatError(
            f"{path}: line {line} holds a joint that is not before the camera; MSRA writes z negative"
        )
    return joints.astype(np.float32)


def is_empty(path: Path) -> bool:
    """Whether a .bin shows nothing: a box without area, or no reading in it. Other damage is not for here."""
    content = read_bytes(path)
    if len(content) < 24:
        return False
    width, height, left, top, right, bottom = struct.unpack_from("<6I", content)
    area = max(right - left, 0) * max(bottom - top, 0)
    whole = (width, height) == SIZE and len(content) == 24 + 4 * area
    return whole and not any(content[24:])


def _center_file(split: str) -> str:
    if split == "all":
        return "msra_center.txt"
    part = "test" if split in SUBJECTS else "train"
    return f"center_{part}_{split[-1]}_refined.txt"


def _find(root: Path) -> Path:
    for folder in (root, root / "cvpr15_MSRAHandGestureDB"):
        if any((folder / subject).is_dir() for subject in SUBJECTS):
            return folder
    if any((root / f"Subject{number}").is_dir() for number in range(1, 7)):
        raise InputError(
            f"{root}: the six-subject MSRA of 2014; the nine-subject one of 2015 is expected, P0 to P8"
        )
    raise InputError(
        f"{root}: no folders P0 to P8; give cvpr15_MSRAHandGestureDB or the folder that holds it"
    )
