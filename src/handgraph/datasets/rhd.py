"""Rendered hand pose dataset (Zimmermann & Brox 2017): rendered people, both hands, 320x320.

Layout, as it is unpacked:

    RHD_published_v2/training/color/00000.png …      mask/, depth/, anno_training.pickle      41258 frames
    RHD_published_v2/evaluation/color/00000.png …    mask/, depth/, anno_evaluation.pickle     2728 frames

The pickle maps a frame's number to `uv_vis` (42, 3), `xyz` (42, 3) in metres and `K` (3, 3), which differs
from frame to frame. Rows 0-20 are the left hand, 21-41 the right, each the wrist and then thumb to little
finger from the tip to the palm. Masks number the parts: 2-17 the left hand, 18-33 the right. Depth is packed
into the red (high) and green (low) byte, 65535 for 5 m.
"""

from pathlib import Path

import cv2
import numpy as np
from jaxtyping import Bool, Float32, UInt8

from handgraph.camera import PinholeCamera
from handgraph.datasets.boxes import Box, keypoint_box, mask_box, square
from handgraph.datasets.centers import middle_of_joints
from handgraph.datasets.files import (
    expect_hand,
    expect_numbered,
    projection_residual,
    read_color_frame,
    read_mask,
)
from handgraph.datasets.pickles import pickled_numbers, read_pickle
from handgraph.datasets.sample import Sample
from handgraph.errors import ConfigError, FormatError, InputError
from handgraph.hand import Side
from handgraph.skeleton import RHD

SIZE = (320, 320)
SPLITS = ("train", "test")
FOLDERS = {"train": "training", "test": "evaluation"}
FRAMES = {"train": 41258, "test": 2728}
MARGIN_PX = 10.0
"""What Kourbane & Genc 2021 add to the keypoints' box on each side."""
_MASK: dict[Side, tuple[int, int]] = {"left": (2, 17), "right": (18, 33)}
_MIDDLE_KNUCKLE = RHD.names.index("middle_mcp")
# Labels have four digits: 0.05 px at 100 px, and more farther out.
_RESIDUAL_PX = 1.0
_FAR_PX = 2000.0
_FARTHEST_M, _FARTHEST_PX = 100.0, 1e6


class Rhd:
    """Random access to one split of RHD, one hand a frame.

    root         RHD_published_v2, or the folder that holds it
    split        train (41258) or test (2728), "training" and "evaluation" on disk
    hand         larger: the hand with more pixels in the mask, the right one where they are equal (its
                 authors' choice, and so every paper's); left, right: always that one, in the frames where
                 any of its keypoints is visible
    box          keypoints: the box of all 21 keypoints and `margin_px` on each side (Kourbane & Genc, 10 px;
                 crop with margin 1); mask: the box of the hand's mask; knuckle: its authors' crop, a square
                 around the middle knuckle, twice as wide as the farthest visible keypoint is away, 50 to
                 500 px
    margin_px    of box="keypoints"
    depth        read the depth frame too; its crop is around the labelled joints

    Raises InputError for a wrong root or an incomplete copy, FormatError for damaged files.
    """

    name = "rhd"
    order = RHD
    joints = tuple(int(index) for index in RHD.gather)

    def __init__(
        self,
        root: str | Path,
        split: str = "train",
        *,
        hand: str = "larger",
        box: str = "keypoints",
        margin_px: float = MARGIN_PX,
        depth: bool = False,
    ) -> None:
        if split not in SPLITS:
            raise ConfigError(f"rhd: no split {split!r}; there are {', '.join(SPLITS)}")
        if hand not in ("larger", "left", "right"):
            raise ConfigError(f"rhd: hand is {hand!r}, expected larger, left or right")
        if box not in ("keypoints", "mask", "knuckle"):
            raise ConfigError(f"rhd: box is {box!r}, expected keypoints, mask or knuckle")
        self.split, self.hand, self.box, self.margin_px, self.depth = split, hand, box, margin_px, depth
        self.folder = _find(Path(root), FOLDERS[split])
        self.labels_path = self.folder / f"anno_{FOLDERS[split]}.pickle"
        self._uv_vis, self._xyz, self._focal = _labels(self.labels_path)
        expect_numbered(
            lambda number: self.folder / "color" / f"{number:05d}.png",
            len(self._xyz),
            self.labels_path.name,
        )
        # Which hand is larger is remembered, so that the mask is decoded once a frame.
        self._larger: list[Side | None] = [None] * len(self._xyz)
        self._frames = np.arange(len(self._xyz))
        if hand != "larger":
            self._frames = np.flatnonzero((self._uv_vis[:, _block(_side(hand)), 2] == 1).any(axis=1))

    def __len__(self) -> int:
        return len(self._frames)

    def image_path(self, index: int) -> Path:
        """The colour PNG of a frame of this split, counted from 0."""
        return self.folder / "color" / f"{self._frames[index]:05d}.png"

    def __getitem__(self, index: int) -> Sample:
        """Raises FormatError when the frame or its label is damaged, IndexError past the end."""
        index = range(len(self))[index]
        number, path = int(self._frames[index]), self.image_path(index)
        image = read_color_frame(path, SIZE)
        side = self._larger[number] if self.hand == "larger" else _side(self.hand)
        mask = None
        if side is None or self.box == "mask":
            mask = read_mask(self.folder / "mask" / path.name, SIZE)
            if side is None:
                left, right = (_pixels(mask, side).sum() for side in _MASK)
                side = self._larger[number] = "left" if left > right else "right"
        block = _block(side)
        uv, xyz = self._uv_vis[number, block, :2], 1000 * self._xyz[number, block]
        visible = self._uv_vis[number, block, 2] == 1
        camera = self._camera(number)
        near = np.where(np.abs(uv) < _FAR_PX, uv, np.nan)
        residual = projection_residual(camera, xyz, near)
        if residual > _RESIDUAL_PX:
            raise FormatError(
                f"{path}: its xyz projects {residual:.1f} px from its uv in {self.labels_path.name}"
            )
        expect_hand(f"{path}: its label in {self.labels_path.name}", RHD, xyz)
        depth = self._depth(number) if self.depth else None
        return Sample(
            frame=path.name,
            source=path,
            order=RHD,
            keypoints_px=uv,
            joints_mm=xyz,
            image=image,
            depth_mm=depth,
            camera=camera,
            visible=visible,
            side=side,
            box_px=self._box(uv, visible, mask, side),
            **({} if depth is None else middle_of_joints(xyz)),
        )

    def _camera(self, number: int) -> PinholeCamera:
        fx, fy, cx, cy = (float(value) for value in self._focal[number])
        try:
            return PinholeCamera(fx, fy, cx, cy)
        except InputError as error:
            raise FormatError(f"{self.labels_path}: frame {number}: {error}") from error

    def _box(self, uv: np.ndarray, visible: np.ndarray, mask: np.ndarray | None, side: Side) -> Box | None:
        if self.box == "mask" and mask is not None:
            found = mask_box(_pixels(mask, side))
            if found is not None:
                return found
        elif self.box == "knuckle" and visible.any():
            # Where the knuckle is hidden its authors fall back too; here the visible keypoints' middle.
            center = uv[_MIDDLE_KNUCKLE] if visible[_MIDDLE_KNUCKLE] else uv[visible].mean(axis=0)
            return square(center, float(np.clip(2 * np.abs(uv[visible] - center).max(), 50.0, 500.0)))
        return keypoint_box(uv, self.margin_px)

    def _depth(self, number: int) -> Float32[np.ndarray, "h w"]:
        packed = read_color_frame(self.folder / "depth" / f"{number:05d}.png", SIZE).astype(np.float32)
        return (256 * packed[..., 0] + packed[..., 1]) * np.float32(5000 / 65535)


def _side(hand: str) -> Side:
    return "left" if hand == "left" else "right"


def _block(side: Side) -> slice:
    return slice(0, 21) if side == "left" else slice(21, 42)


def _pixels(mask: UInt8[np.ndarray, "h w"], side: Side) -> Bool[np.ndarray, "h w"]:
    return cv2.inRange(mask, *_MASK[side]) > 0


def _find(root: Path, part: str) -> Path:
    for folder in (root / part, root / "RHD_published_v2" / part):
        if folder.is_dir():
            return folder
    raise InputError(
        f"{root}: no folder {part} or RHD_published_v2/{part}; give that or the folder that holds it"
    )


def _labels(path: Path) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """uv_vis (n, 42, 3), xyz (n, 42, 3) metres, fx fy cx cy (n, 4), all float32, in the order of numbers."""
    content = read_pickle(path)
    if not isinstance(content, dict) or not content:
        raise FormatError(f"{path}: holds {type(content).__name__}, expected a dict of labelled frames")
    shapes = {"uv_vis": (42, 3), "xyz": (42, 3), "K": (3, 3)}
    arrays = {name: np.empty((len(content), *shape), np.float32) for name, shape in shapes.items()}
    for number in range(len(content)):
        try:
            record = content[number]
            for name, shape in shapes.items():
                array = pickled_numbers(record[name])
                if array.shape != shape or array.dtype.kind not in "fiu":
                    raise ValueError(f"{name} is {array.dtype} {array.shape}, expected numbers {shape}")
                arrays[name][number] = array
        except (KeyError, TypeError, ValueError) as error:
            reason = f"no {error}" if isinstance(error, KeyError) else str(error)
            raise FormatError(f"{path}: frame {number}: {reason}") from error
        except RuntimeWarning as error:  # a number beyond float32
            raise FormatError(f"{path}: frame {number} holds a number too large") from error
    for name, array in arrays.items():
        bad = ~np.isfinite(array).reshape(len(array), -1).all(axis=1)
        if bad.any():
            raise FormatError(f"{path}: frame {int(bad.argmax())}: {name} holds a number that is not finite")
    if np.abs(arrays["xyz"]).max() > _FARTHEST_M or np.abs(arrays["uv_vis"]).max() > _FARTHEST_PX:
        raise FormatError(f"{path}: a joint kilometres away, or pixels as far; xyz is expected in metres")
    k = arrays["K"]
    if np.abs(k[:, [0, 1, 2, 2, 2], [1, 0, 0, 1, 2]] - [0, 0, 0, 0, 1]).max() > 1e-3:
        raise FormatError(f"{path}: a K that is no camera's (skew, or a last row other than 0 0 1)")
    visible = arrays["uv_vis"][..., 2]
    if not np.isin(visible, (0, 1)).all():
        raise FormatError(f"{path}: a visibility that is neither 0 nor 1")
    return arrays["uv_vis"], arrays["xyz"], k[:, [0, 1, 0, 1], [0, 1, 2, 2]]
