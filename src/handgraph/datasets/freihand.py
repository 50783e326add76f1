"""FreiHAND (Zimmermann et al. 2019): right hands with MANO fits, 224x224, four backgrounds a frame.

Layout, as it is unpacked:

    FreiHAND_pub_v2/training/rgb/00000000.jpg … 00130239.jpg, mask/00000000.jpg …
    FreiHAND_pub_v2/evaluation/rgb/00000000.jpg … 00003959.jpg
    FreiHAND_pub_v2/training_{K,xyz,mano,verts}.json, evaluation_{K,scale}.json
    evaluation_{xyz,mano,verts}.json    of the later release of the evaluation set's labels

32560 labels, each seen with four backgrounds: picture i shows label i mod 32560. Metres in the camera frame.
"""

import mmap
import re
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float, Float32

from handgraph.camera import PinholeCamera
from handgraph.datasets.files import (
    expect_hand,
    expect_mesh,
    expect_numbered,
    number_array,
    read_color_frame,
    read_json,
)
from handgraph.datasets.mano_labels import axis_angle_pose, global_rotation, load_models
from handgraph.datasets.sample import Sample
from handgraph.datasets.text_numbers import JSON_LISTS, parse_rows
from handgraph.errors import ConfigError, FormatError, InputError
from handgraph.skeleton import BONES, OPENPOSE

SIZE = (224, 224)
BACKGROUNDS = ("gs", "hom", "sample", "auto")
"""Green screen, then three ways of putting another background behind: the order of the pictures."""
SPLITS = ("train", *(f"train_{background}" for background in BACKGROUNDS), "test")
FRAMES = {"train": 130240, **{f"train_{name}": 32560 for name in BACKGROUNDS}, "test": 3960}
_FARTHEST_M = 5.0
_FARTHEST_PX = 1e5
# How much the two focal lengths may differ: pixels are square.
_SQUARE = 0.05


class Freihand:
    """Random access to one split of FreiHAND.

    root      FreiHAND_pub_v2 (or _v1), or the folder that holds it
    split     train: all four backgrounds; train_gs, train_hom, train_sample, train_auto: one of them;
              test: the evaluation set, whose labels came in a later release
    box       keypoints: the keypoints' box; image: the whole picture, which already is a crop (with margin 1)
    vertices  give the labelled mesh (`*_verts.json`; training takes seconds to open and 304 MB)
    mano      a folder or file of MANO (yours), for `Sample.pose`. The labelled rotation of the whole hand is
              not in the camera frame, so it is found from the labelled palm

    Raises InputError for a wrong root, an incomplete copy or a release without labels, FormatError for
    damaged files.
    """

    name = "freihand"
    order = OPENPOSE
    joints = tuple(range(21))

    def __init__(
        self,
        root: str | Path,
        split: str = "train",
        *,
        box: str = "keypoints",
        vertices: bool = False,
        mano: str | Path | None = None,
    ) -> None:
        if split not in SPLITS:
            raise ConfigError(f"freihand: no split {split!r}; there are {', '.join(SPLITS)}")
        if box not in ("keypoints", "image"):
            raise ConfigError(f"freihand: box is {box!r}, expected keypoints or image")
        self.split, self.box = split, box
        part = "evaluation" if split == "test" else "training"
        self.root = _find(Path(root), part)
        self.folder = self.root / part / "rgb"
        xyz_path = self.root / f"{part}_xyz.json"
        if part == "evaluation" and not xyz_path.is_file():
            raise InputError(
                f"{self.root}: evaluation_xyz.json is not there; the evaluation set's labels are a later "
                "release, unpack FreiHAND_pub_v2_eval over it"
            )
        xyz = number_array(xyz_path, "the list", read_json(xyz_path), (None, 21, 3))
        if not len(xyz):
            raise FormatError(f"{xyz_path}: holds no label")
        behind = (xyz[..., 2] <= 0).any(axis=1) | (np.abs(xyz) > _FARTHEST_M).any(axis=(1, 2))
        if behind.any():
            raise FormatError(f"{xyz_path}: label {int(behind.argmax())} is not before the camera, in metres")
        parents, children = (list(joints) for joints in zip(*BONES, strict=True))
        longest_m = np.linalg.norm(xyz[:, children] - xyz[:, parents], axis=-1).max(axis=1)
        worst = int(longest_m.argmax())
        expect_hand(f"{xyz_path}: label {worst}", OPENPOSE, 1000 * xyz[worst])
        self._joints: Float32[np.ndarray, "n 21 3"] = (1000 * xyz).astype(np.float32)
        self._cameras = self._list(part, "K", (3, 3))[:, [0, 1, 0, 1], [0, 1, 2, 2]]  # fx, fy, cx, cy
        focal, middle = self._cameras[:, None, :2], self._cameras[:, None, 2:]
        self._keypoints: Float32[np.ndarray, "n 21 2"] = (
            focal * xyz[..., :2] / xyz[..., 2:] + middle
        ).astype(np.float32)
        away = np.abs(self._keypoints.mean(axis=1) - np.array(SIZE) / 2).max(axis=1)
        if away.max() > SIZE[0]:  # the pictures are cut around the hand
            raise FormatError(
                f"{self.root / f'{part}_K.json'}: label {int(away.argmax())} has a K that projects the hand "
                f"{away.max():.0f} px from the picture's middle"
            )
        self._models = load_models(mano, tips="freihand")
        mano_path = self.root / f"{part}_mano.json"
        self._mano: np.ndarray | None = None
        if mano_path.is_file() or self._models:
            self._mano = self._list(part, "mano", (1, 61))[:, 0].astype(np.float32)
        self._vertices: Float32[np.ndarray, "n 778 3"] | None = None
        if vertices:
            self._vertices = read_meshes(verts_path := self.root / f"{part}_verts.json")
            if len(self._vertices) != len(xyz):
                raise self._unlike(verts_path, len(self._vertices))
            for number, (mesh, joints) in enumerate(zip(self._vertices, self._joints, strict=True)):
                expect_mesh(f"{verts_path}: label {number}", mesh, joints)
        copies = {"test": 1, "train_gs": 1, "train_hom": 2, "train_sample": 3}.get(split, 4)
        self._first = (copies - 1) * len(xyz) if split.startswith("train_") else 0
        last = copies * len(xyz)
        if (
            part == "training"
        ):  # further backgrounds may follow those of this split, but not beyond the fourth
            expect_numbered(self._path, last, f"{xyz_path.name} (x {copies} backgrounds)", extra=4 * len(xyz))
        else:
            expect_numbered(self._path, last, xyz_path.name)
        self._length = last - self._first

    def __len__(self) -> int:
        return self._length

    def image_path(self, index: int) -> Path:
        """The JPEG of a frame of this split, counted from 0."""
        return self._path(self._first + index)

    def __getitem__(self, index: int) -> Sample:
        """Raises FormatError when the frame or its label is damaged, IndexError past the end."""
        index = range(len(self))[index]
        path, label = self.image_path(index), (self._first + index) % len(self._joints)
        joints = self._joints[label]
        pose = shape = None
        if self._mano is not None:
            shape = self._mano[label, 48:58]
            if "right" in self._models:
                model = self._models["right"]
                turn = global_rotation(model, shape.astype(np.float64), joints)
                pose = axis_angle_pose(model, turn, self._mano[label, 3:48], principal=False)
        return Sample(
            frame=path.name,
            source=path,
            order=OPENPOSE,
            keypoints_px=self._keypoints[label],
            joints_mm=joints,
            image=read_color_frame(path, SIZE),
            camera=PinholeCamera(*self._cameras[label].tolist()),
            side="right",
            box_px=np.array([0.0, 0.0, *SIZE]) if self.box == "image" else None,
            vertices_mm=None if self._vertices is None else self._vertices[label],
            pose=pose,
            shape=shape,
        )

    def scale_mm(self, index: int) -> float:
        """The length that FreiHAND gives for scale: the middle finger's first bone."""
        joints = self._joints[(self._first + range(len(self))[index]) % len(self._joints)]
        return float(np.linalg.norm(joints[10] - joints[9]))

    def _path(self, number: int) -> Path:
        return self.folder / f"{number:08d}.jpg"

    def _list(self, part: str, kind: str, shape: tuple[int, ...]) -> Float[np.ndarray, "n ..."]:
        path = self.root / f"{part}_{kind}.json"
        array = number_array(path, "the list", read_json(path), (None, *shape))
        if len(array) != len(self._joints):
            raise self._unlike(path, len(array))
        if kind == "K" and (wrong := _no_camera(array)).any():
            raise FormatError(
                f"{path}: label {int(wrong.argmax())} has a K that is no camera's (skew, focal lengths, or a "
                "last row other than 0 0 1)"
            )
        return array

    def _unlike(self, path: Path, found: int) -> FormatError:
        return FormatError(
            f"{path}: {found} labels, but {len(self._joints)} in the xyz beside it; the files are of "
            "different versions"
        )


def _no_camera(k: Float[np.ndarray, "n 3 3"]) -> Bool[np.ndarray, " n"]:
    """Which are not the matrix of a pinhole camera without skew."""
    rest = np.abs(k[:, [0, 1, 2, 2, 2], [1, 0, 0, 1, 2]] - [0, 0, 0, 0, 1]).max(axis=1)
    wrong: np.ndarray = (rest > 1e-6) | (k[:, [0, 1], [0, 1]] <= 0).any(axis=1)
    wrong |= (np.abs(k) > _FARTHEST_PX).any(axis=(1, 2))
    return wrong | (np.abs(k[:, 0, 0] - k[:, 1, 1]) > _SQUARE * np.abs(k[:, 1, 1]))


def read_meshes(path: Path) -> Float32[np.ndarray, "n 778 3"]:
    """All meshes of a `*_verts.json`, mm: of training 1.5 GB of text, 304 MB as numbers.

    Label by label where the file lies, for as Python's lists they would take 8 GB.
    """
    if not path.is_file():
        raise InputError(f"{path}: no such file (a dataset copied only in part lacks some)")
    if path.stat().st_size < 2:
        raise FormatError(f"{path}: the file is empty")
    meshes: list[np.ndarray] = []
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        head = re.match(rb"\s*\[\s*(?=\[)", content)
        if head is None or not re.search(rb"\]\s*\]\s*\]$", content[-64:].rstrip()):
            raise FormatError(f"{path}: no whole JSON list of labels; copy it again")
        start = head.end()
        while (end := content.find(b"]]", start) + 2) > 1:  # ends a label, and is nowhere else
            mesh = parse_rows(content[start:end], JSON_LISTS, 778, 3)
            if mesh is None:
                raise FormatError(
                    f"{path}: label {len(meshes)} has not 778 vertices, or is damaged; copy it again"
                )
            meshes.append((1000 * mesh).astype(np.float32))
            start = end
    return np.stack(meshes)


def _find(root: Path, part: str) -> Path:
    for folder in (root, root / "FreiHAND_pub_v2", root / "FreiHAND_pub_v1"):
        if (folder / part / "rgb").is_dir():
            return folder
    other = {"training": "evaluation", "evaluation": "training"}[part]
    if (root / other / "rgb").is_dir():
        raise InputError(f"{root}: holds {other} but no {part}/rgb; the dataset is copied only in part")
    raise InputError(f"{root}: no folder {part}/rgb; give FreiHAND_pub_v2 or the folder that holds it")
