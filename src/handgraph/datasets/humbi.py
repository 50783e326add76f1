"""HUMBI's hands (Yu et al. 2020): people seen by 107 cameras, cropped to 250x250 around each hand.

Layout, as it is unpacked; archives come as Hand_1_80_updat and so on, each with some of the subjects:

    subject_1/hand/intrinsic.txt, extrinsic.txt, project.txt
    subject_1/hand/00000001/image_cropped/right/image0000004.png …, list.txt        camera 4; left/ likewise
    subject_1/hand/00000001/reconstruction/keypoints_r.txt, vertices_r.txt, mano_params_r.txt; _l likewise

A line of list.txt is `camera xmin xmax ymin ymax`: where the crop lies in the original of 1920x1080. Camera
files hold three header lines, then per camera a line with its number and its matrix. Metres in a world frame;
X_camera = R (X - C).
"""

import os
import random
import re
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
from jaxtyping import Float, Int

from handgraph.camera import PinholeCamera
from handgraph.datasets.files import (
    expect_hand,
    expect_mesh,
    parse_floats,
    read_bytes,
    read_color_frame,
    read_lines,
)
from handgraph.datasets.mano_labels import axis_angle_pose, load_models
from handgraph.datasets.sample import Sample
from handgraph.datasets.text_numbers import ANY_SPACE, LINES, parse_rows
from handgraph.errors import ConfigError, FormatError, InputError
from handgraph.hand import Side
from handgraph.skeleton import OPENPOSE

SIZE = (250, 250)
SPLITS = ("train", "test", "all")
SUBJECTS = 299
"""With images of hands, subject 52 (whose folders are empty) left out: Kong et al. 2022."""
FRAMES = {"train": 474472, "test": 50894}
"""Right hands in the split of Kong et al. 2022, section 6.4.1."""
EMPTY_SUBJECTS = (52,)
_FARTHEST_MM = 20_000.0
_SIDES: tuple[Side, ...] = ("right", "left")
_CAMERA_FILES = ("intrinsic.txt", "extrinsic.txt", "project.txt")
_SKEW_PX = 1.0
_MATRICES_PX = 1.0
_IMAGE = re.compile(r"image(\d{7})\.png")


class Humbi:
    """Random access to one split of HUMBI's hands: every crop of every camera is a frame.

    root      the folder that holds subject_…, or that holds the folders of the archives
    split     train, test: the subjects as Kong et al. 2022 divide them, 269 and 30 (see `divide`); all
    side      right (that paper's), left or both
    vertices  give the labelled mesh
    mano      a folder or file of MANO (yours), for `Sample.pose`
    subjects  how many there have to be, subject 52 not counted; None takes what is there, and then the
              division is not the paper's

    `Sample.camera` is the crop's. Crops that list.txt names and the disk lacks, and the other way round, are
    left out and counted in `left_out`. Raises InputError for a wrong root or an incomplete copy, FormatError
    for damaged files.
    """

    name = "humbi"
    order = OPENPOSE
    joints = tuple(range(21))

    def __init__(
        self,
        root: str | Path,
        split: str = "train",
        *,
        side: str = "right",
        vertices: bool = False,
        mano: str | Path | None = None,
        subjects: int | None = SUBJECTS,
    ) -> None:
        if split not in SPLITS:
            raise ConfigError(f"humbi: no split {split!r}; there are {', '.join(SPLITS)}")
        if side not in ("right", "left", "both"):
            raise ConfigError(f"humbi: side is {side!r}, expected right, left or both")
        self.split, self.vertices = split, vertices
        self._models = load_models(mano)
        folders = _subjects(Path(root))
        if split != "all" and subjects is not None and len(folders) != subjects:
            raise InputError(
                f"{root}: {len(folders)} subjects, the published split has {subjects}; copied only in part? "
                "With partial=True (evaluate --partial) what is there is divided by the same rule"
            )
        chosen = sorted(folders) if split == "all" else divide(sorted(folders))[split]
        sides = tuple(which for which in _SIDES if side in (which, "both"))
        self.left_out = 0
        self._cameras: dict[int, dict[int, _Camera]] = {}  # filled subject by subject, when first needed
        self._places: list[_Place] = []
        rows: list[Int[np.ndarray, "n 6"]] = []  # place, camera, xmin, xmax, ymin, ymax
        for subject in chosen:
            hand = folders[subject] / "hand"
            for name in _CAMERA_FILES:
                if not (hand / name).is_file():
                    raise InputError(
                        f"{hand / name}: no such file (a dataset copied only in part lacks some)"
                    )
            for frame in _frame_folders(hand):
                for which in sides:
                    crops = self._crops(frame, which)
                    if len(crops):
                        rows.append(np.column_stack([np.full(len(crops), len(self._places)), crops]))
                        self._places.append(_place(subject, frame, which))
        if not rows:
            lost = f"; {self.left_out} are listed or there, not both" if self.left_out else ""
            raise InputError(f"{root}: no crop of split {split}, {side} hands{lost}; copied only in part?")
        self._rows: Int[np.ndarray, "n 6"] = np.concatenate(rows)

    def __len__(self) -> int:
        return len(self._rows)

    def image_path(self, index: int) -> Path:
        """The cropped PNG of a frame of this split, counted from 0."""
        place, camera = self._rows[index, :2].tolist()
        return self._places[place].crops / f"image{camera:07d}.png"

    def __getitem__(self, index: int) -> Sample:
        """Raises FormatError when the frame or its label is damaged, IndexError past the end."""
        index = range(len(self))[index]
        row, number, *box = self._rows[index].tolist()
        place, path = self._places[row], self.image_path(index)
        seen_by = self._camera(place, number, path)
        camera = seen_by.cropped(*box)
        joints = seen_by.see(read_points(place.keypoints, 21))
        if not (joints[:, 2].min() > 0 and np.abs(joints).max() < _FARTHEST_MM):
            raise FormatError(f"{place.keypoints}: a joint is not before camera {number}, in metres")
        expect_hand(str(place.keypoints), OPENPOSE, joints)
        parameters = read_mano(place.mano)
        pose = None
        if place.side in self._models:
            turn = cv2.Rodrigues(seen_by.rotation @ cv2.Rodrigues(parameters[3:6])[0])[0][:, 0]
            pose = axis_angle_pose(self._models[place.side], turn, parameters[6:26], principal=True)
        vertices = None
        if self.vertices:
            vertices = seen_by.see(read_mesh(place.vertices))
            expect_mesh(str(place.vertices), vertices, joints)
        return Sample(
            frame="/".join(path.parts[-6:]),
            source=path,
            order=OPENPOSE,
            keypoints_px=camera.uvd_from_xyz(joints)[:, :2],
            joints_mm=joints,
            image=read_color_frame(path, SIZE),
            camera=camera,
            side=place.side,
            subject=str(place.subject),
            vertices_mm=vertices,
            pose=pose,
            shape=parameters[26:36],
        )

    def _camera(self, place: "_Place", number: int, path: Path) -> "_Camera":
        if place.subject not in self._cameras:
            self._cameras[place.subject] = _read_cameras(place.session)
        try:
            return self._cameras[place.subject][number]
        except KeyError as error:
            message = f"{path}: {place.session}/extrinsic.txt and its like lack camera {number}"
            raise FormatError(message) from error

    def _crops(self, frame: Path, side: Side) -> Int[np.ndarray, "n 5"]:
        """camera, xmin, xmax, ymin, ymax of the crops that are listed, there and labelled."""
        folder = frame / "image_cropped" / side
        list_path = folder / "list.txt"
        if not list_path.is_file():
            return np.zeros((0, 5), np.int64)
        numbers = parse_floats(list_path, read_lines(list_path), 5)
        crops = numbers.astype(np.int64)
        if (crops != numbers).any() or (crops[:, [2, 4]] <= crops[:, [1, 3]]).any():
            raise FormatError(f"{list_path}: a line is not camera xmin xmax ymin ymax in whole pixels")
        with os.scandir(folder) as entries:
            present = {int(m[1]) for m in (_IMAGE.fullmatch(entry.name) for entry in entries) if m}
        labelled = (frame / "reconstruction" / f"keypoints_{side[0]}.txt").is_file()
        keep = np.array([labelled and camera in present for camera in crops[:, 0]], dtype=bool)
        self.left_out += int((~keep).sum()) + len(present - set(crops[:, 0].tolist()))
        return crops[keep]


def divide(subjects: list[int]) -> dict[str, list[int]]:
    """Subjects of train (nine in ten) and test, as the public code of Kong et al. 2022 draws them.

    The ascending list is shuffled by Python's generator of seed 0, and cut after int(0.9 n).
    """
    shuffled = sorted(subjects)
    random.Random(0).shuffle(shuffled)
    cut = int(0.9 * len(shuffled))
    return {"train": sorted(shuffled[:cut]), "test": sorted(shuffled[cut:])}


class _Place(NamedTuple):
    """A hand at a moment, which all cameras see: the folders and files of its labels and pictures."""

    subject: int
    side: Side
    session: Path
    crops: Path
    keypoints: Path
    mano: Path
    vertices: Path


def _place(subject: int, frame: Path, side: Side) -> _Place:
    crops, labels = frame / "image_cropped" / side, frame / "reconstruction"
    files = (labels / f"{name}_{side[0]}.txt" for name in ("keypoints", "mano_params", "vertices"))
    return _Place(subject, side, frame.parent, crops, *files)


class _Camera:
    """One camera of the dome: K, R and C in metres."""

    __slots__ = ("center", "intrinsic", "rotation", "shift", "turn")

    def __init__(self, intrinsic: np.ndarray, rotation: np.ndarray, center: np.ndarray) -> None:
        self.intrinsic, self.rotation, self.center = intrinsic, rotation, center
        self.turn = 1000 * np.ascontiguousarray(rotation.T)
        self.shift = center @ self.turn

    def see(self, world_m: Float[np.ndarray, "n 3"]) -> Float[np.ndarray, "n 3"]:
        """World metres → camera-frame mm."""
        return world_m @ self.turn - self.shift

    def cropped(self, xmin: int, xmax: int, ymin: int, ymax: int) -> PinholeCamera:
        """The camera of the crop of these original pixels, resized to 250x250 (pixel centres at integers)."""
        k = self.intrinsic
        scale_u, scale_v = SIZE[0] / (xmax - xmin + 1), SIZE[1] / (ymax - ymin + 1)
        return PinholeCamera(
            float(k[0, 0] * scale_u),
            float(k[1, 1] * scale_v),
            float((k[0, 2] - xmin + 0.5) * scale_u - 0.5),
            float((k[1, 2] - ymin + 0.5) * scale_v - 0.5),
        )


def read_points(path: Path, count: int) -> Float[np.ndarray, "n 3"]:
    """`count` lines of x y z, world metres."""
    rows = parse_rows(read_bytes(path), LINES, count, 3)
    if rows is not None:
        return rows
    lines = read_lines(path)  # which are slower, and say what is wrong
    if len(lines) != count:
        raise FormatError(f"{path}: {len(lines)} lines, expected {count}")
    return parse_floats(path, lines, 3)


def read_mesh(path: Path) -> Float[np.ndarray, "778 3"]:
    """778 lines of x y z, world metres."""
    return read_points(path, 778)


def read_mano(path: Path) -> Float[np.ndarray, " 36"]:
    """Translation 3, rotation 3 (world frame), 20 principal pose coefficients, 10 of shape."""
    rows = parse_rows(read_bytes(path), ANY_SPACE, 1, 36)
    return (parse_floats(path, [" ".join(read_lines(path))], 36) if rows is None else rows)[0]


def _read_cameras(hand: Path) -> dict[int, _Camera]:
    intrinsics = _matrices(hand / "intrinsic.txt", 3, 3)
    extrinsics = _matrices(hand / "extrinsic.txt", 4, 3)
    projections = _matrices(hand / "project.txt", 3, 4)
    cameras = {}
    for number, rows in extrinsics.items():
        if number not in intrinsics or number not in projections:
            continue
        k = intrinsics[number]
        center, rotation = rows[0], rows[1:]
        camera = _Camera(k / k[2, 2] if k[2, 2] else k, rotation, center)
        lower = [camera.intrinsic[1, 0], camera.intrinsic[2, 0], camera.intrinsic[2, 1]]
        if np.abs(lower).max() > 1e-6 or min(k[0, 0], k[1, 1]) <= 0 or abs(camera.intrinsic[0, 1]) > _SKEW_PX:
            raise FormatError(f"{hand / 'intrinsic.txt'}: camera {number} has no K of a camera without skew")
        if np.abs(rotation @ rotation.T - np.eye(3)).max() > 1e-3 or np.linalg.det(rotation) < 0:
            raise FormatError(f"{hand / 'extrinsic.txt'}: camera {number} has no rotation")
        # The three files say the same twice: a point 3 m ahead must fall on one pixel by both.
        ahead = center + 3 * rotation[2] + 0.3 * rotation[0] + 0.2 * rotation[1]
        by_parts = camera.intrinsic @ (rotation @ (ahead - center))
        at_once = projections[number] @ [*ahead, 1.0]
        apart = np.abs(by_parts[:2] / by_parts[2] - at_once[:2] / at_once[2]).max() if at_once[2] else np.inf
        if not apart <= _MATRICES_PX:
            raise FormatError(
                f"{hand / 'project.txt'}: camera {number} projects {apart:.1f} px from intrinsic.txt and "
                "extrinsic.txt; the files are of different versions"
            )
        cameras[number] = camera
    if not cameras:
        raise FormatError(f"{hand}: no camera is in intrinsic.txt, extrinsic.txt and project.txt alike")
    return cameras


def _matrices(path: Path, rows: int, width: int) -> dict[int, Float[np.ndarray, "r w"]]:
    """Per camera `rows` lines of `width` numbers, after three header lines and one naming the camera."""
    lines, step = read_lines(path)[3:], 1 + rows
    if not lines or len(lines) % step:
        raise FormatError(f"{path}: {len(lines)} lines after the header, expected {step} for each camera")
    cameras = [lines[start].split() for start in range(0, len(lines), step)]
    for order, words in enumerate(cameras):
        if not words[-1].isdigit():
            raise FormatError(f"{path}: line {4 + order * step} names no camera")
    # Cameras' own lines become rows of zeros, so that a message counts lines as the file does.
    zeros = " ".join("0" * width)
    padded = [zeros if i % step == 0 else line for i, line in enumerate(lines)]
    numbers = parse_floats(path, padded, width, first_line=4)
    blocks = numbers.reshape(-1, step, width)[:, 1:]
    return {int(words[-1]): block for words, block in zip(cameras, blocks, strict=True)}


def _frame_folders(hand: Path) -> list[Path]:
    with os.scandir(hand) as entries:
        return sorted(Path(entry.path) for entry in entries if entry.name.isdigit() and entry.is_dir())


def _subjects(root: Path) -> dict[int, Path]:
    """Folders with a hand session by subject, one level down too; the empty ones left out."""
    found: dict[int, Path] = {}
    for folder in (*root.glob("subject_*"), *root.glob("*/subject_*")):
        number = folder.name.removeprefix("subject_")
        if not number.isdigit() or int(number) in EMPTY_SUBJECTS or not (folder / "hand").is_dir():
            continue
        if int(number) in found:
            raise InputError(f"{folder}: subject {number} is there twice, also {found[int(number)]}")
        found[int(number)] = folder
    if not found:
        raise InputError(f"{root}: no subject_…/hand, here or one folder down; give what holds them")
    return found
