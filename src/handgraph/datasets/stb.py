"""Stereo hand pose tracking benchmark (Zhang et al. 2017): a left hand before six backgrounds, 640x480.

Layout, as it is unpacked:

    images/B1Counting/SK_color_0.png … SK_depth_0.png … BB_left_0.png … BB_right_0.png …   to B6Random
    labels/B1Counting_SK.mat, B1Counting_BB.mat …

12 sequences of 1500 frames. `SK` is a RealSense F200 (colour and depth), `BB` a Bumblebee2 stereo pair. A
.mat holds `handPara` (3, 21, frames) in mm: of SK in the frame of the depth camera, of BB in that of the left
one. Depth is packed into the red (low) and green (high) byte.
"""

from pathlib import Path

import cv2
import numpy as np
from jaxtyping import Float, Float32

from handgraph.camera import PinholeCamera
from handgraph.datasets.boxes import keypoint_box
from handgraph.datasets.centers import middle_of_joints
from handgraph.datasets.files import expect_hand, expect_numbered, float_array, load_mat, read_color_frame
from handgraph.datasets.sample import Sample
from handgraph.errors import ConfigError, FormatError, InputError
from handgraph.skeleton import STB, STB_WRIST

SIZE = (640, 480)
CAMERAS = {
    "SK_color": PinholeCamera(607.92271, 607.88192, 314.78337, 236.42484),
    "SK_depth": PinholeCamera(475.62768, 474.77709, 336.41179, 238.77962),
    "BB_left": PinholeCamera(822.79041, 822.79041, 318.47345, 250.31296),
    "BB_right": PinholeCamera(822.79041, 822.79041, 318.47345, 250.31296),
}
BASELINE_MM = 120.054
# depth camera = R · colour camera + t
_DEPTH_FROM_COLOR = cv2.Rodrigues(np.array([0.00531, -0.01196, 0.00301]))[0]
_DEPTH_FROM_COLOR_MM = np.array([-24.0381, -0.4563, -1.2326])

SEQUENCES = tuple(f"B{place}{kind}" for place in range(1, 7) for kind in ("Counting", "Random"))
TEST_SEQUENCES = SEQUENCES[:2]
SPLITS = ("train", "test")
FRAMES = {"train": 15000, "test": 3000}
"""Of SK; of BB there are as many again from each camera."""
MARGIN_PX = 20.0
"""What Kourbane & Genc 2021 add to the keypoints' box on each side."""
_FARTHEST_MM = 5000.0

WRISTS = ("ring", "fingers", "middle", "palm")


class Stb:
    """Random access to one split of STB.

    root       the folder that holds `images` and `labels`
    split      test: B1Counting and B1Random; train: the other ten sequences
    camera     SK_color (15000 + 3000 frames; most papers), SK_depth (its depth frames), BB_left, BB_right, or
               BB: the left and the right picture of every frame (30000 + 6000)
    wrist      The labels hold the palm's centre p and no wrist. ring: the wrist is r + 2 (p - r), r the ring
               finger's knuckle (Zimmermann & Brox, Ge et al.); fingers: the mean of m + 2.25 (p - m) over
               the four fingers' knuckles m; middle: m + 2.2 (p - m) of the middle one; palm: no wrist, p as
               it is
    margin_px  added on each side to the keypoints' box (Kourbane & Genc, 20 px; crop with margin 1)
    boxes      Ge et al.'s STB_eval_bboxes.mat, instead of the keypoints' box: test frames of SK_color only

    Needs SciPy (extra `datasets`). Raises InputError for a wrong root or an incomplete copy, FormatError
    for damaged files.
    """

    name = "stb"

    def __init__(
        self,
        root: str | Path,
        split: str = "train",
        *,
        camera: str = "SK_color",
        wrist: str = "ring",
        margin_px: float = MARGIN_PX,
        boxes: str | Path | None = None,
    ) -> None:
        if split not in SPLITS:
            raise ConfigError(f"stb: no split {split!r}; there are {', '.join(SPLITS)}")
        if camera not in (*CAMERAS, "BB"):
            raise ConfigError(f"stb: camera is {camera!r}, expected {', '.join((*CAMERAS, 'BB'))}")
        if wrist not in WRISTS:
            raise ConfigError(f"stb: wrist is {wrist!r}, expected {', '.join(WRISTS)}")
        if boxes is not None and (split, camera) != ("test", "SK_color"):
            raise ConfigError("stb: published boxes are those of split test of SK_color")
        self.split, self.wrist, self.margin_px = split, wrist, margin_px
        self.order = STB if wrist == "palm" else STB_WRIST
        self.joints = tuple(int(index) for index in self.order.gather if index >= 0)
        self.cameras = ("BB_left", "BB_right") if camera == "BB" else (camera,)
        self.root = _find(Path(root))
        self._sequences = TEST_SEQUENCES if split == "test" else SEQUENCES[2:]
        labels = [self._labels(sequence) for sequence in self._sequences]
        self._sequence = np.repeat(np.arange(len(labels)), [len(joints) for joints in labels])
        self._number = np.concatenate([np.arange(len(joints)) for joints in labels])
        self._joints: Float32[np.ndarray, "n 21 3"] = np.concatenate(labels)
        self._boxes: np.ndarray | None = None
        if boxes is not None:
            self._boxes = read_boxes(Path(boxes))
            if len(self._boxes) != len(self._joints):
                raise FormatError(
                    f"{boxes}: {len(self._boxes)} boxes, but the split has {len(self._joints)} frames"
                )

    def __len__(self) -> int:
        return len(self._joints) * len(self.cameras)

    def image_path(self, index: int) -> Path:
        """The PNG of a frame of this split, counted from 0."""
        frame, camera = divmod(index, len(self.cameras))
        sequence = self._sequences[self._sequence[frame]]
        return self._path(sequence, self.cameras[camera], int(self._number[frame]))

    def __getitem__(self, index: int) -> Sample:
        """Raises FormatError when the frame or its label is damaged, IndexError past the end."""
        index = range(len(self))[index]
        path, camera = self.image_path(index), self.cameras[index % len(self.cameras)]
        label = self._joints[index // len(self.cameras)]
        joints = wrist_from_palm(in_camera(label.astype(np.float64), camera), self.wrist)
        expect_hand(f"{path}: its label", self.order, joints)
        picture = read_color_frame(path, SIZE)
        keypoints = CAMERAS[camera].uvd_from_xyz(joints)[:, :2]
        box = keypoint_box(keypoints, self.margin_px) if self._boxes is None else self._boxes[index]
        depth = camera == "SK_depth"
        return Sample(
            frame=f"{path.parent.name}/{path.name}",
            source=path,
            order=self.order,
            keypoints_px=keypoints,
            joints_mm=joints,
            image=None if depth else picture,
            depth_mm=picture[..., 0] + np.float32(256) * picture[..., 1] if depth else None,
            camera=CAMERAS[camera],
            side="left",
            box_px=box,
            **(middle_of_joints(joints) if depth else {}),
        )

    def _path(self, sequence: str, camera: str, number: int) -> Path:
        return self.root / "images" / sequence / f"{camera}_{number}.png"

    def _labels(self, sequence: str) -> Float32[np.ndarray, "n 21 3"]:
        path = self.root / "labels" / f"{sequence}_{self.cameras[0][:2]}.mat"
        array = float_array(path, "handPara", load_mat(path, "handPara")["handPara"], (3, 21, None))
        if not array.shape[2]:
            raise FormatError(f"{path}: handPara holds no frame")
        joints = np.ascontiguousarray(array.transpose(2, 1, 0))
        with np.errstate(invalid="ignore"):
            bad = ~((np.abs(joints) < _FARTHEST_MM).all(axis=(1, 2)) & (joints[..., 2] > 0).all(axis=1))
        if bad.any():
            raise FormatError(
                f"{path}: frame {int(bad.argmax())} of handPara holds a joint that is not before the camera"
            )
        for camera in self.cameras:
            expect_numbered(
                lambda number, camera=camera: self._path(sequence, camera, number),  # type: ignore[misc]
                len(joints),
                path.name,
            )
        return joints.astype(np.float32)


def in_camera(joints_mm: Float[np.ndarray, "n 3"], camera: str) -> Float[np.ndarray, "n 3"]:
    """Labelled joints (SK: depth camera's frame, BB: left camera's) in the frame of one camera."""
    if camera == "SK_color":
        return (joints_mm - _DEPTH_FROM_COLOR_MM) @ _DEPTH_FROM_COLOR  # Rᵀ (p − t), as rows
    if camera == "BB_right":
        return joints_mm - np.array([BASELINE_MM, 0.0, 0.0])
    return joints_mm


def wrist_from_palm(joints_mm: Float[np.ndarray, "21 3"], rule: str) -> Float[np.ndarray, "21 3"]:
    """The joints, STB's order, with the wrist that `rule` (see `Stb`) sets in the palm's place."""
    joints = joints_mm.copy()
    palm = joints_mm[0]
    little, ring, middle, index = joints_mm[1], joints_mm[5], joints_mm[9], joints_mm[13]
    if rule == "ring":
        joints[0] = ring + 2.0 * (palm - ring)
    elif rule == "middle":
        joints[0] = middle + 2.2 * (palm - middle)
    elif rule == "fingers":
        joints[0] = np.mean(
            [knuckle + 2.25 * (palm - knuckle) for knuckle in (index, middle, ring, little)], 0
        )
    return joints


def read_boxes(path: Path) -> Float32[np.ndarray, "n 4"]:
    """x, y, w, h of the test frames from Ge et al.'s STB_eval_bboxes.mat."""
    boxes = float_array(path, "bboxes", load_mat(path, "bboxes")["bboxes"], (None, 4)).astype(np.float32)
    if not (np.isfinite(boxes).all() and (boxes[:, 2:] > 0).all()):
        raise FormatError(f"{path}: holds a box that is no box")
    return boxes


def _find(root: Path) -> Path:
    images, labels = root / "images", root / "labels"
    if not images.is_dir() or not labels.is_dir():
        if any((root / sequence).is_dir() for sequence in SEQUENCES):
            raise InputError(
                f"{root}: holds sequences but no folder images; put them in images/, beside labels/"
            )
        raise InputError(f"{root}: no folders images and labels; give the folder that holds STB's")
    absent = [sequence for sequence in SEQUENCES if not (images / sequence).is_dir()]
    if absent and any(images.glob("SK_color_*.png")):
        raise InputError(
            f"{images}: holds frames itself; some of the archives have no folder of their own: unpack each "
            f"into images/NAME, as images/{absent[0]}"
        )
    if absent:
        raise InputError(
            f"{images}: {len(SEQUENCES) - len(absent)} of {len(SEQUENCES)} sequences, {absent[0]} is not "
            "there; the dataset is copied only in part"
        )
    return root
