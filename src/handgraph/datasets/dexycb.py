"""DexYCB (Chao et al. 2021): ten subjects grasp objects before eight RealSense cameras, 640x480.

Layout, as it is unpacked:

    20200709-subject-01/20200709_141754/meta.yml, pose.npz          ten subjects, 100 sequences each
    20200709-subject-01/20200709_141754/836212060125/color_000000.jpg, aligned_depth_to_color_000000.png,
        labels_000000.npz                                           eight cameras by serial number
    calibration/intrinsics/836212060125_640x480.yml, calibration/mano_…/mano.yml

Labels are metres in the camera's frame. Frames whose hand was seen too little have none: `pose_m` is 0 there,
in all eight cameras at once.
"""

from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float32, Int

from handgraph.camera import PinholeCamera
from handgraph.datasets.centers import middle_of_joints
from handgraph.datasets.files import (
    all_finite,
    expect_hand,
    expect_numbered,
    projection_residual,
    read_color_frame,
    read_grey_frame,
    read_npz,
    read_yaml,
)
from handgraph.datasets.mano_labels import axis_angle_pose, load_models
from handgraph.datasets.sample import Sample
from handgraph.errors import ConfigError, FormatError, InputError
from handgraph.skeleton import DEXYCB

SIZE = (640, 480)
SUBJECTS = (
    "20200709-subject-01", "20200813-subject-02", "20200820-subject-03", "20200903-subject-04",
    "20200908-subject-05", "20200918-subject-06", "20200928-subject-07", "20201002-subject-08",
    "20201015-subject-09", "20201022-subject-10",
)  # fmt: skip
SERIALS = (
    "836212060125", "839512060362", "840412060917", "841412060263", "932122060857", "932122060861",
    "932122061900", "932122062010",
)  # fmt: skip
SEQUENCES = 100
SETUPS = ("s0", "s1", "s2", "s3")
PARTS = ("train", "val", "test")
SPLITS = tuple(f"{setup}_{part}" for setup in SETUPS for part in PARTS)
FRAMES = {"s0_train": 465504, "s1_train": 407088}
"""Published sizes, frames without a label included."""
_RESIDUAL_PX = 1.0
_LABELS: dict[str, tuple[int | None, ...]] = {
    "pose_m": (1, 51),
    "joint_3d": (1, 21, 3),
    "joint_2d": (1, 21, 2),
}


def members(split: str) -> tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]:
    """The subjects, cameras and sequences (of a subject's, sorted by name) of a split, all counted from 0.

    s0: every fifth sequence; s1: unseen subjects; s2: unseen cameras; s3: unseen objects.
    """
    setup, _, part = split.partition("_")
    subjects, cameras, sequences = tuple(range(10)), tuple(range(8)), tuple(range(SEQUENCES))
    if setup == "s0":
        subjects = {"train": subjects, "val": (0, 1), "test": tuple(range(2, 10))}[part]
        sequences = tuple(i for i in sequences if (i % 5 == 4) == (part != "train"))
    elif setup == "s1":
        subjects = {"train": (0, 1, 2, 3, 4, 5, 9), "val": (6,), "test": (7, 8)}[part]
    elif setup == "s2":
        cameras = {"train": (0, 1, 2, 3, 4, 5), "val": (6,), "test": (7,)}[part]
    else:
        held_out = {"val": (3, 19), "test": (7, 11, 15)}
        chosen = held_out.get(part) or tuple(set(range(20)) - {3, 7, 11, 15, 19})
        sequences = tuple(i for i in sequences if i // 5 in chosen)
    return subjects, cameras, sequences


class Dexycb:
    """Random access to one split of DexYCB, frames without a hand's label left out.

    root       the folder that holds the subjects' folders and `calibration`
    split      s0_train, s0_val, s0_test (seen subjects, cameras, objects), s1_… (unseen subjects: 7, 1, 2 of
               them; Kong et al. 2022), s2_… (unseen cameras), s3_… (unseen objects)
    sides      of the hands to keep
    depth      read the depth frame, aligned to the colour image, too; its crop is around the labelled joints
    mano       a folder with your MANO_RIGHT.pkl and MANO_LEFT.pkl, for `Sample.pose`
    sequences  how many each subject has to have; None takes what is there, of sequences and subjects, which
               then divide by the same rule into other splits than the published ones

    Frames are in the order of the dataset's own toolkit: subject, sequence, camera, frame; `official_index`
    is a frame's number there, which result files carry. `missing` counts the frames left out for want of a
    label. A hand may lie outside the image, for it was labelled from all cameras: `Sample.note` says so.
    Shape parameters of left hands are those of the unmended MANO_LEFT.pkl.

    Raises InputError for a wrong root or an incomplete copy, FormatError for damaged files.
    """

    name = "dexycb"
    order = DEXYCB
    joints = tuple(range(21))

    def __init__(
        self,
        root: str | Path,
        split: str = "s0_train",
        *,
        sides: tuple[str, ...] | list[str] = ("right", "left"),
        depth: bool = False,
        mano: str | Path | None = None,
        sequences: int | None = SEQUENCES,
    ) -> None:
        if split not in SPLITS:
            raise ConfigError(f"dexycb: no split {split!r}; there are {', '.join(SPLITS)}")
        if not sides or not set(sides) <= {"right", "left"}:
            raise ConfigError(f"dexycb: sides are {sides!r}, expected right, left or both")
        self.split, self.depth, self.root = split, depth, Path(root)
        self._models = load_models(mano, tips="manopth")
        subjects, cameras, chosen = members(split)
        self._serials = [SERIALS[camera] for camera in cameras]
        present = tuple(subject for subject in subjects if (self.root / SUBJECTS[subject]).is_dir())
        if sequences is None and present:
            subjects = present
        _expect_root(self.root, [SUBJECTS[subject] for subject in subjects])
        self._cameras = [self._camera(serial) for serial in self._serials]
        self._shapes: dict[str, Float32[np.ndarray, " 10"]] = {}
        self._sequences: list[tuple[str, str, str, str]] = []  # subject, sequence, side, calibration
        self._folders: list[list[Path]] = []  # of each sequence's cameras
        rows: list[Int[np.ndarray, "n 3"]] = []
        official: list[Int[np.ndarray, " n"]] = []
        self.missing = before = 0
        for subject in subjects:
            names = _sequence_names(self.root / SUBJECTS[subject], sequences)
            for name in (names[i] for i in chosen if i < len(names)):
                side, calibration, labelled = self._sequence(SUBJECTS[subject], name)
                count = len(labelled) * len(cameras)
                if side in sides:
                    frames = np.flatnonzero(labelled)
                    camera, frame = (
                        np.repeat(np.arange(len(cameras)), len(frames)),
                        np.tile(frames, len(cameras)),
                    )
                    rows.append(np.column_stack([np.full_like(camera, len(self._sequences)), camera, frame]))
                    official.append(before + camera * len(labelled) + frame)
                    self._sequences.append((SUBJECTS[subject], name, side, calibration))
                    folder = self.root / SUBJECTS[subject] / name
                    self._folders.append([folder / serial for serial in self._serials])
                    self.missing += count - len(frame)
                before += count
        self._rows = np.concatenate(rows) if rows else np.zeros((0, 3), np.int64)
        self._official = np.concatenate(official) if official else np.zeros(0, np.int64)
        if not len(self._rows):
            raise InputError(f"{root}: no labelled frame of split {split}")

    def __len__(self) -> int:
        return len(self._rows)

    def image_path(self, index: int) -> Path:
        """The colour JPEG of a frame of this split, counted from 0."""
        sequence, camera, frame = self._rows[index].tolist()
        return self._folders[sequence][camera] / f"color_{frame:06d}.jpg"

    def official_index(self, index: int) -> int:
        """The frame's number in the split with its unlabelled frames, as in the dataset's toolkit."""
        return int(self._official[index])

    def __getitem__(self, index: int) -> Sample:
        """Raises FormatError when the frame or its label is damaged, IndexError past the end."""
        index = range(len(self))[index]
        sequence, camera, frame = self._rows[index].tolist()
        subject, name, side, calibration = self._sequences[sequence]
        path = self.image_path(index)
        labels_path = path.with_name(f"labels_{frame:06d}.npz")
        labels = read_npz(labels_path, _LABELS)
        joints, keypoints = 1000 * labels["joint_3d"][0].astype(np.float64), labels["joint_2d"][0]
        pose_m = labels["pose_m"][0]
        if not (all_finite(joints) and all_finite(keypoints) and all_finite(pose_m)):
            raise FormatError(f"{labels_path}: holds a number that is not finite")
        if (keypoints == -1).all() or not pose_m.any():
            raise FormatError(f"{labels_path}: no hand labelled, though the sequence's pose.npz has one")
        if joints[:, 2].min() <= 0:
            raise FormatError(f"{labels_path}: joint_3d is not before the camera")
        residual = projection_residual(self._cameras[camera], joints, keypoints)
        if residual > _RESIDUAL_PX:
            raise FormatError(
                f"{labels_path}: its joint_3d projects {residual:.1f} px from its joint_2d by the camera of "
                f"calibration/intrinsics/{self._serials[camera]}_{SIZE[0]}x{SIZE[1]}.yml"
            )
        expect_hand(str(labels_path), DEXYCB, joints)
        right, bottom = SIZE[0] - 0.5, SIZE[1] - 0.5
        inside = any(-0.5 <= u < right and -0.5 <= v < bottom for u, v in keypoints.tolist())
        pose = None
        if side in self._models:
            pose = axis_angle_pose(self._models[side], pose_m[:3], pose_m[3:48], principal=True)
        depth = None
        if self.depth:
            depth = read_grey_frame(path.with_name(f"aligned_depth_to_color_{frame:06d}.png"), SIZE)
        return Sample(
            frame=f"{subject}/{name}/{self._serials[camera]}/{path.name}",
            source=path,
            order=DEXYCB,
            keypoints_px=keypoints,
            joints_mm=joints,
            image=read_color_frame(path, SIZE),
            depth_mm=depth,
            camera=self._cameras[camera],
            side=side,
            subject=subject[-2:],
            pose=pose,
            shape=self._shapes[calibration],
            **({} if depth is None else middle_of_joints(joints)),
            note="" if inside else "the hand lies outside the image",
        )

    def _camera(self, serial: str) -> PinholeCamera:
        path = self.root / "calibration" / "intrinsics" / f"{serial}_{SIZE[0]}x{SIZE[1]}.yml"
        color = read_yaml(path).get("color")
        try:
            return PinholeCamera(*(float(color[key]) for key in ("fx", "fy", "ppx", "ppy")))  # type: ignore[index]
        except (TypeError, KeyError, ValueError, InputError) as error:
            raise FormatError(f"{path}: no camera under color (fx, fy, ppx, ppy)") from error

    def _sequence(self, subject: str, name: str) -> tuple[str, str, Bool[np.ndarray, " n"]]:
        """Side, calibration of the shape, and whether each frame has a label."""
        folder = self.root / subject / name
        meta = read_yaml(folder / "meta.yml")
        try:
            count, side, calibration = meta["num_frames"], meta["mano_sides"][0], meta["mano_calib"][0]
            if not isinstance(count, int) or count <= 0 or side not in ("left", "right"):
                raise ValueError
            if not isinstance(calibration, str) or Path(calibration).name != calibration:
                raise ValueError
        except (KeyError, TypeError, IndexError, ValueError) as error:
            raise FormatError(
                f"{folder / 'meta.yml'}: no num_frames, mano_sides and mano_calib there"
            ) from error
        poses = read_npz(folder / "pose.npz", {"pose_m": (None, 1, 51)})["pose_m"]
        if len(poses) != count:
            raise FormatError(
                f"{folder}: meta.yml says {count} frames, pose.npz has {len(poses)}; the files are of "
                "different versions"
            )
        for serial in self._serials:
            expect_numbered(
                lambda frame, serial=serial: folder / serial / f"color_{frame:06d}.jpg",  # type: ignore[misc]
                count,
                f"{name}/meta.yml",
                probes=2,
            )
        if calibration not in self._shapes:
            path = self.root / "calibration" / f"mano_{calibration}" / "mano.yml"
            if not path.is_file():
                raise InputError(
                    f"{folder / 'meta.yml'}: names the shape {calibration}, but {path} is not there"
                )
            try:
                shape = np.array(read_yaml(path)["betas"], dtype=np.float64)
            except (KeyError, ValueError, TypeError) as error:
                raise FormatError(f"{path}: holds no betas") from error
            if shape.shape != (10,) or not (np.abs(shape) < 100).all():
                raise FormatError(f"{path}: betas of shape {shape.shape}, expected 10 plausible numbers")
            self._shapes[calibration] = shape.astype(np.float32)
        labelled: np.ndarray = (poses != 0).any(axis=(1, 2))
        return side, calibration, labelled


def _expect_root(root: Path, subjects: list[str]) -> None:
    absent = [subject for subject in subjects if not (root / subject).is_dir()]
    if len(absent) == len(subjects) and not (root / "calibration").is_dir():
        raise InputError(
            f"{root}: no folder {subjects[0]} and no calibration; give the folder that holds them"
        )
    if absent:
        raise InputError(
            f"{root}: {len(subjects) - len(absent)} of the split's {len(subjects)} subjects, {absent[0]} is "
            "not there; the dataset is copied only in part"
        )
    if not (root / "calibration" / "intrinsics").is_dir():
        raise InputError(f"{root}: no folder calibration/intrinsics; unpack calibration.tar.gz there")


def _sequence_names(folder: Path, expected: int | None) -> list[str]:
    names = sorted(entry.name for entry in folder.iterdir() if entry.is_dir() and entry.name[0] != ".")
    if expected is not None and len(names) != expected:
        raise InputError(
            f"{folder}: {len(names)} sequences, expected {expected}; the dataset is copied only in part; "
            "with partial=True (evaluate --partial) what is there is used"
        )
    return names
