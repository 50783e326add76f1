"""NYU hand pose dataset (Tompson et al. 2014): three Kinects, 36 points a hand, y up.

Layout, as it is unpacked:

    dataset/train/depth_1_0000001.png … 0072757, joint_data.mat
    dataset/test/depth_1_0000001.png … 0008252, joint_data.mat

A depth PNG packs millimetres as green × 256 + blue. `joint_data.mat` holds `joint_uvd` and `joint_xyz`,
each (3 views, frames, 36, 3); xyz has y upwards and is turned to y down here.
"""

from pathlib import Path
from typing import Literal

import numpy as np
from jaxtyping import Float32

from handgraph.camera import PinholeCamera
from handgraph.datasets.centers import find_centers, read_centers
from handgraph.datasets.files import float_array, load_mat, read_packed_frame
from handgraph.datasets.sample import Sample
from handgraph.errors import ConfigError, FormatError, InputError
from handgraph.skeleton import NYU14_OF_36, NYU36

CAMERA = PinholeCamera(588.036865, 587.075073, 320.0, 240.0)
SIZE = (640, 480)
CENTER_FILES = {
    "train": ("center_train_refined.txt",),
    "test": ("center_test_refined.txt", "nyu_center.txt"),
}
SPLITS = ("train", "test", "test_1", "test_2")
FRAMES = {"train": 72757, "test": 8252, "test_1": 2440, "test_2": 5812}
SUBJECT_2_FROM = 2440
"""The first test frame (from 0) of the second subject, whose hand is smaller."""
PALM = 32
"""The palm centre among the 36 points."""
CUBE_MM, SUBJECT_2_CUBE_MM = 300.0, 250.0
# joint_xyz is computed from joint_uvd in the dataset; a larger difference is a damaged label.
_RESIDUAL_PX = 2.0


class Nyu:
    """Random access to one split of NYU.

    root            the folder `dataset`, or the one that holds it
    split           train (72757 frames), test (8252), test_1 (2440: the training subject), test_2 (5812)
    view            1 front (the one papers use), 2 top, 3 side
    centers         a published centre file of view 1 of train or test, or a folder that holds such files:
                    V2V-PoseNet's `center_{train,test}_refined.txt`, region ensemble network's
                    `nyu_center.txt` (test). Without it the centre is the labelled palm point, refined in the
                    depth when cropped: such numbers lean on the labels.
    centers_form    `xyz` or `uvd` where the file's name does not tell

    Needs SciPy (extra `datasets`). Raises InputError for a wrong root or an incomplete copy, FormatError
    for damaged files.
    """

    name = "nyu"
    order = NYU36
    joints = NYU14_OF_36

    def __init__(
        self,
        root: str | Path,
        split: str = "train",
        *,
        view: int = 1,
        centers: str | Path | None = None,
        centers_form: Literal["xyz", "uvd"] | None = None,
    ) -> None:
        if split not in SPLITS:
            raise ConfigError(f"nyu: no split {split!r}; there are {', '.join(SPLITS)}")
        if view not in (1, 2, 3):
            raise ConfigError(f"nyu: no view {view}; there are 1 (front), 2 (top) and 3 (side)")
        self.split, self.view = split, view
        self.folder = _find(Path(root), "train" if split == "train" else "test")
        uvd, xyz = _labels(self.folder / "joint_data.mat", view)
        xyz[..., 1] *= -1  # y down
        self._expect_frames(len(uvd))
        first, last = 0, len(uvd)
        if split == "test_1":
            last = min(last, SUBJECT_2_FROM)
        elif split == "test_2":
            first = SUBJECT_2_FROM
            if last <= first:
                raise InputError(
                    f"{self.folder}: {last} frames, so there is no test_2: it begins at frame {first + 1}"
                )
        self._first = first
        self._uvd, self._xyz = uvd[first:last], xyz[first:last]
        self._centers: Float32[np.ndarray, "n 3"] | None = None
        if centers is not None:
            if view != 1:
                raise ConfigError(f"nyu: published centres are those of view 1, not of view {view}")
            every = read_centers(
                find_centers(centers, *CENTER_FILES["train" if split == "train" else "test"]),
                CAMERA,
                xyz[:, list(NYU14_OF_36)].mean(axis=1),
                axis_signs=(1.0, -1.0, 1.0),
                form=centers_form,
            )
            self._centers = every[first:last].astype(np.float32)

    def __len__(self) -> int:
        return len(self._uvd)

    def depth_path(self, index: int) -> Path:
        """The depth PNG of a frame of this split, counted from 0."""
        return self.folder / f"depth_{self.view}_{self._first + index + 1:07d}.png"

    def __getitem__(self, index: int) -> Sample:
        """Raises FormatError when the frame or its label is damaged, IndexError past the end."""
        index = range(len(self))[index]
        path = self.depth_path(index)
        keypoints, joints = self._uvd[index], self._xyz[index]
        if not np.isfinite(keypoints).all() or not np.isfinite(joints).all() or joints[:, 2].min() <= 0:
            raise FormatError(f"{path}: its label in joint_data.mat is not finite or not before the camera")
        residual = float(np.abs(CAMERA.uvd_from_xyz(joints) - keypoints).max())
        if residual > _RESIDUAL_PX:
            raise FormatError(
                f"{path}: its joint_xyz projects {residual:.1f} px or mm from its joint_uvd in joint_data.mat"
            )
        depth = read_packed_frame(path, SIZE)
        second = self.folder.name == "test" and self._first + index >= SUBJECT_2_FROM
        center = joints[PALM] if self._centers is None else self._centers[index]
        known = bool(np.isfinite(center).all())  # V2V-PoseNet calls a few training frames invalid
        return Sample(
            frame=path.name,
            source=path,
            order=NYU36,
            keypoints_px=keypoints[:, :2],
            joints_mm=joints,
            depth_mm=depth,
            camera=CAMERA,
            side="right",
            subject="2" if second else "1",
            center_mm=center if known else joints[PALM],
            center_refined=known and self._centers is not None,
            cube_mm=SUBJECT_2_CUBE_MM if second else CUBE_MM,
        )

    def _expect_frames(self, labelled: int) -> None:
        """The first, last and a few frames between exist, and none follows: whole copy, one version."""
        for frame in sorted({*np.linspace(1, labelled, 16).astype(int).tolist()}):
            path = self.folder / f"depth_{self.view}_{frame:07d}.png"
            if not path.is_file():
                raise InputError(
                    f"{self.folder}: joint_data.mat labels {labelled} frames but {path.name} is not there; "
                    "the dataset is copied only in part"
                )
        extra = self.folder / f"depth_{self.view}_{labelled + 1:07d}.png"
        if extra.is_file():
            raise InputError(
                f"{self.folder}: joint_data.mat labels {labelled} frames but {extra.name} exists; "
                "labels and frames are of different splits or versions"
            )


def _find(root: Path, part: str) -> Path:
    for folder in (root / part, root / "dataset" / part):
        if folder.is_dir():
            return folder
    raise InputError(f"{root}: no folder {part} or dataset/{part}; give the folder that holds NYU's dataset")


def _labels(path: Path, view: int) -> tuple[Float32[np.ndarray, "n 36 3"], Float32[np.ndarray, "n 36 3"]]:
    content = load_mat(path, "joint_uvd", "joint_xyz")
    arrays = []
    for name in ("joint_uvd", "joint_xyz"):
        array = float_array(path, name, content[name], (None, None, len(NYU36.names), 3))
        if array.shape[0] < view or not array.shape[1]:
            raise FormatError(f"{path}: {name} has shape {array.shape}, no frames of view {view}")
        arrays.append(array[view - 1].astype(np.float32))
    if len(arrays[0]) != len(arrays[1]):
        raise FormatError(f"{path}: {len(arrays[0])} frames in joint_uvd but {len(arrays[1])} in joint_xyz")
    return arrays[0], arrays[1]
