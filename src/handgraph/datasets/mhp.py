"""Large-scale multiview 3D hand pose dataset (Gomez-Donoso et al. 2017), "MHP": 21 recordings, four cameras.

Layout, as it is unpacked (second release):

    multiview_hand_pose_dataset_uploaded_v2/annotated_frames/data_1/0_webcam_1.jpg …, 0_joints.txt …
    calibrations/data_1/webcam_1/rvec.pkl, tvec.pkl …

A joints file holds 21 lines `NAME x y z`, in mm in the tracker's frame, and the palm's normal. F1 is the
little, F4 the index finger, TH the thumb; of each finger KNU1_B is the knuckle, KNU1_A the middle joint,
KNU2_A the outer joint, KNU3_A the tip. The root is the palm, not the wrist. Pictures are 640x480, distorted.
"""

import os
import re
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path

import cv2
import numpy as np
from jaxtyping import Float

from handgraph.camera import PinholeCamera
from handgraph.datasets.files import expect_hand, read_bytes, read_color_frame, read_lines
from handgraph.datasets.pickles import pickled_numbers, read_pickle
from handgraph.datasets.sample import Sample
from handgraph.datasets.splits import SEED, digest, hashed_split
from handgraph.datasets.text_numbers import ANY_SPACE, parse_rows
from handgraph.errors import ConfigError, FormatError, InputError
from handgraph.skeleton import MHP, MHP_21

SIZE = (640, 480)
CAMERA = PinholeCamera(614.878, 615.479, 313.219, 231.288)
"""Of all four webcams."""
DISTORTION = np.array([0.092701, -0.175877, -0.0035687, -0.00302299, 0.0])
_MATRIX = np.array([[CAMERA.fx, 0, CAMERA.cx], [0, CAMERA.fy, CAMERA.cy], [0, 0, 1.0]])
_NO_TURN = np.zeros(3)
RECORDINGS = tuple(f"data_{number}" for number in range(1, 22))
WEBCAMS = (1, 2, 3, 4)
POINTS = (
    *(f"{finger}_{point}" for finger in ("F4", "F3", "F1", "F2", "TH")
      for point in ("KNU1_A", "KNU1_B", "KNU2_A", "KNU3_A")),
    "PALM_POSITION",
)  # fmt: skip
_POINTS = [point.encode() for point in POINTS]
SPLITS = ("train", "validation", "test")
SHARES: Mapping[str, Mapping[str, float]] = {
    "70/15/15": {"train": 0.70, "validation": 0.15, "test": 0.15},
    "60000/10000/rest": {"train": 60000.0, "validation": 10000.0, "test": 12760.0},
}
"""Random splits of all pictures: R-MGMN and SIA-GCN; AGMN (of 82760)."""
PROTOCOLS = (*SHARES, "natural", "recordings")
HELD_OUT_RECORDINGS = ("data_1", "data_10", "data_20")
FRAMES: dict[str, int] = {}
"""The release's own count is not published with it; papers speak of 82760 pictures."""
_PICTURE = re.compile(r"(\d{1,6})_webcam_([1-4])\.jpg")
_LABEL = re.compile(r"(\d{1,6})_joints\.txt")
_FARTHEST_MM = 5000.0
_MISSING_SHARE = 0.25


class Mhp:
    """Random access to one split of MHP: every picture of every webcam is a frame.

    root        the release's folder, or the one that holds it
    split       train, validation or test
    protocol    70/15/15: pictures at random (Kong et al.: R-MGMN, SIA-GCN); 60000/10000/rest: the same by
                count (AGMN). Neither publishes its list, so places are drawn by `splits.hashed_split`;
                pictures of one moment from other webcams fall into other splits, as they do in the papers.
                natural: the first 80 % and the last 20 % in natural order; recordings: data_1, data_10 and
                data_20 are the test, so that no moment is in both. The last two have no validation split
    seed        of the random splits
    wrist       palm_as_wrist: the 21 points as they are, the palm in the wrist's place (what papers train
                and evaluate); wrist: a wrist beyond the palm, ring finger's knuckle + 2 (palm - knuckle), as
                for STB; palm: the palm as such, no wrist
    undistort   resample each picture to a pinhole camera's, so that `Sample.camera` holds; without it the
                picture is as it was taken, keypoints are distorted with it and there is no camera

    Pictures without a label, or labels without a picture, are left out and counted in `missing`. Raises
    InputError for a wrong root, the first release or an incomplete copy, FormatError for damaged files.
    """

    name = "mhp"

    def __init__(
        self,
        root: str | Path,
        split: str = "train",
        *,
        protocol: str = "70/15/15",
        seed: int = SEED,
        wrist: str = "palm_as_wrist",
        undistort: bool = False,
    ) -> None:
        if split not in SPLITS:
            raise ConfigError(f"mhp: no split {split!r}; there are {', '.join(SPLITS)}")
        if protocol not in PROTOCOLS:
            raise ConfigError(f"mhp: protocol is {protocol!r}, expected {', '.join(PROTOCOLS)}")
        if protocol not in SHARES and split == "validation":
            raise ConfigError(f"mhp: protocol {protocol!r} has no validation split")
        if wrist not in ("palm_as_wrist", "wrist", "palm"):
            raise ConfigError(f"mhp: wrist is {wrist!r}, expected palm_as_wrist, wrist or palm")
        self.split, self.protocol, self.wrist, self.undistort = split, protocol, wrist, undistort
        self.order = MHP if wrist == "palm" else MHP_21
        self.joints = tuple(int(index) for index in self.order.gather if index >= 0)
        self.root = _find(Path(root))
        self._pictures_in = self.root / "annotated_frames"
        self._folders = {recording: self._pictures_in / recording for recording in RECORDINGS}
        self.missing, self._found = 0, (0, 0)
        every = [
            (recording, frame, webcam)
            for recording in RECORDINGS
            for frame, webcam in self._pictures(recording)
        ]
        if not every:
            raise InputError(
                f"{self._pictures_in}: holds {self._found[0]} pictures N_webcam_C.jpg and "
                f"{self._found[1]} labels N_joints.txt, none of one frame; the dataset is copied only in part"
            )
        if self.missing > _MISSING_SHARE * (len(every) + self.missing):
            raise InputError(
                f"{self._pictures_in}: {self.missing} pictures or labels without the other, {len(every)} "
                "pictures with their label; the dataset is copied only in part"
            )
        self._poses = {
            (recording, webcam): self._pose(recording, webcam)
            for recording in RECORDINGS
            for webcam in WEBCAMS
        }
        self._frames = [every[index] for index in self._members(every, seed)]
        if not self._frames:
            raise InputError(f"{self.root}: no frame of split {split}")
        self.digest = digest(_name(*frame) for frame in self._frames)
        """The split's list of frames in 16 digits."""

    def __len__(self) -> int:
        return len(self._frames)

    def image_path(self, index: int) -> Path:
        """The JPEG of a frame of this split, counted from 0."""
        recording, frame, webcam = self._frames[index]
        return self._folders[recording] / f"{frame}_webcam_{webcam}.jpg"

    def __getitem__(self, index: int) -> Sample:
        """Raises FormatError when the frame or its label is damaged, IndexError past the end."""
        index = range(len(self))[index]
        recording, frame, webcam = self._frames[index]
        path = self.image_path(index)
        labels_path = path.with_name(f"{frame}_joints.txt")
        rotation, translation = self._poses[recording, webcam]
        joints = read_joints(labels_path) @ rotation.T + translation
        if not (joints[:, 2].min() > 0 and np.abs(joints).max() < _FARTHEST_MM):
            raise FormatError(f"{labels_path}: a joint is not before webcam {webcam}, in mm")
        expect_hand(str(labels_path), self.order, joints)
        if self.wrist == "wrist":
            ring_knuckle = joints[POINTS.index("F2_KNU1_B")]
            joints[-1] = ring_knuckle + 2.0 * (joints[-1] - ring_knuckle)
        image = read_color_frame(path, SIZE)
        if self.undistort:
            image = cv2.remap(image, *_undistortion(), cv2.INTER_LINEAR)
            keypoints = CAMERA.uvd_from_xyz(joints)[:, :2]
        else:
            keypoints = distorted_px(joints)
        return Sample(
            frame=_name(recording, frame, webcam),
            source=path,
            order=self.order,
            keypoints_px=keypoints,
            joints_mm=joints,
            image=image,
            camera=CAMERA if self.undistort else None,
            subject=recording.removeprefix("data_"),
        )

    def _members(self, every: list[tuple[str, int, int]], seed: int) -> list[int]:
        if self.protocol in SHARES:
            names = [_name(*frame) for frame in every]
            return hashed_split(names, SHARES[self.protocol], seed)[self.split].tolist()
        if self.protocol == "natural":
            cut = round(0.8 * len(every))
            return list(range(cut) if self.split == "train" else range(cut, len(every)))
        held_out = self.split == "test"
        return [i for i, frame in enumerate(every) if (frame[0] in HELD_OUT_RECORDINGS) == held_out]

    def _pictures(self, recording: str) -> list[tuple[int, int]]:
        """(frame, webcam) of the recording's labelled pictures in natural order."""
        with os.scandir(self._folders[recording]) as entries:
            names = {entry.name for entry in entries}
        labelled = {int(m[1]) for m in map(_LABEL.fullmatch, names) if m is not None}
        pictures = [(int(m[1]), int(m[2])) for m in map(_PICTURE.fullmatch, names) if m is not None]
        self._found = (self._found[0] + len(pictures), self._found[1] + len(labelled))
        kept = sorted(picture for picture in pictures if picture[0] in labelled)
        self.missing += len(pictures) - len(kept) + len(WEBCAMS) * len(labelled) - len(kept)
        return kept

    def _pose(self, recording: str, webcam: int) -> tuple[Float[np.ndarray, "3 3"], Float[np.ndarray, " 3"]]:
        """Rotation and translation (mm) from the tracker's frame to the webcam's."""
        folder = self.root / "calibrations" / recording / f"webcam_{webcam}"
        vectors = []
        for name in ("rvec", "tvec"):
            path = folder / f"{name}.pkl"
            try:
                vector = pickled_numbers(read_pickle(path)).astype(np.float64).reshape(3)
            except ValueError as error:
                raise FormatError(f"{path}: holds no vector of three numbers ({error})") from error
            limit = 2 * np.pi if name == "rvec" else _FARTHEST_MM
            if not (np.abs(vector) <= limit).all():
                raise FormatError(f"{path}: {vector} is no {name} of a camera in the room")
            vectors.append(vector)
        return cv2.Rodrigues(vectors[0])[0], vectors[1]


def read_joints(path: Path) -> Float[np.ndarray, "21 3"]:
    """One label file: the 21 `POINTS` in mm, tracker's frame. Raises FormatError naming the line."""
    content = read_bytes(path)
    words = content.split()
    if words[: 4 * len(POINTS) : 4] == _POINTS and len(words) == 4 * len(content.splitlines()):
        del words[4 * len(POINTS) :], words[::4]  # as all are written: nothing but numbers is left
        joints = parse_rows(b" ".join(words), ANY_SPACE, 1, 3 * len(POINTS))
        if joints is not None and content.isascii():
            return joints.reshape(len(POINTS), 3)
    lines = read_lines(path)  # which are slower, and say what is wrong
    found = {}
    for number, line in enumerate(lines, start=1):
        fields = line.split()
        try:
            if len(fields) != 4 or "_" in "".join(fields[1:]):
                raise ValueError
            found[fields[0]] = [float(field) for field in fields[1:]]
        except ValueError as error:
            raise FormatError(f"{path}: line {number} is {line[:40]!r}, expected NAME x y z") from error
    absent = [point for point in POINTS if point not in found]
    if absent:
        raise FormatError(f"{path}: no {absent[0]}; a label has {len(POINTS)} named points")
    joints = np.array([found[point] for point in POINTS])
    if not np.isfinite(joints).all():
        raise FormatError(f"{path}: holds a number that is not finite")
    return joints


def distorted_px(joints_mm: Float[np.ndarray, "n 3"]) -> Float[np.ndarray, "n 2"]:
    """Camera-frame mm → pixels of the pictures as they were taken."""
    points, _ = cv2.projectPoints(np.ascontiguousarray(joints_mm), _NO_TURN, _NO_TURN, _MATRIX, DISTORTION)
    return points[:, 0]


@lru_cache(maxsize=1)
def _undistortion() -> tuple[np.ndarray, np.ndarray]:
    return cv2.initUndistortRectifyMap(_MATRIX, DISTORTION, None, _MATRIX, SIZE, cv2.CV_16SC2)


def _name(recording: str, frame: int, webcam: int) -> str:
    return f"{recording}/{frame}_webcam_{webcam}.jpg"


def _find(root: Path) -> Path:
    for folder in (root, root / "multiview_hand_pose_dataset_uploaded_v2"):
        if (folder / "annotated_frames").is_dir():
            root = folder
            break
    else:
        for folder in (root, root / "multiview_hand_pose_dataset_release"):
            if any(folder.glob("data_1/*_webcam_1.jpg")) or any(folder.glob("data_1/*_jointsCam_1.txt")):
                raise InputError(
                    f"{folder}: the first release (all files of a recording in one folder); the second is "
                    "expected, with annotated_frames and calibrations"
                )
        raise InputError(f"{root}: no folder annotated_frames; give the folder that holds MHP's")
    for part in ("annotated_frames", "calibrations"):
        absent = [recording for recording in RECORDINGS if not (root / part / recording).is_dir()]
        if absent:
            raise InputError(
                f"{root / part}: {len(RECORDINGS) - len(absent)} of {len(RECORDINGS)} recordings, "
                f"{absent[0]} is not there; the dataset is copied only in part"
            )
    return root
