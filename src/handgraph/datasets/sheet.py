"""A contact sheet of labelled samples: every hand's surroundings with its labels drawn over it."""

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
from jaxtyping import Float, UInt8

from handgraph.datasets.boxes import keypoint_box
from handgraph.datasets.sample import Sample
from handgraph.files import atomic_write
from handgraph.report import depth_picture, joint_color
from handgraph.skeleton import BONES

TILE = 224
COLUMNS = 8
# How much of the surroundings to show: the tile's side over the longer side of the keypoints' box.
_MARGIN = 1.8
_FONT = cv2.FONT_HERSHEY_SIMPLEX


def tile(sample: Sample, size: int = TILE, words: str = "") -> UInt8[np.ndarray, "size size 3"]:
    """The hand of one sample, RGB: 2D labels as a skeleton of coloured bones, the projections of 3D labels,
    where there are some, as black rings around them. A ring off its dot is a wrong camera, unit or sign.
    """
    picture = sample.image if sample.image is not None else depth_picture(_depth(sample))
    box = keypoint_box(sample.keypoints_px)
    if box is None:
        box = np.array([0, 0, picture.shape[1], picture.shape[0]], np.float32)
    scale = size / (_MARGIN * float(box[2:].max()))
    offset = (size - 1) / 2 - scale * (box[:2] + (box[2:] - 1) / 2)
    shrunk = cv2.GaussianBlur(picture, (0, 0), 0.4 / scale) if scale < 0.7 else picture
    warp = np.array([[scale, 0, offset[0]], [0, scale, offset[1]]])
    canvas = cv2.warpAffine(shrunk, warp, (size, size), flags=cv2.INTER_LINEAR)
    at = sample.keypoints_px * scale + offset
    _skeleton(canvas, at, sample)
    if sample.joints_mm is not None and sample.camera is not None:
        for point in sample.camera.uvd_from_xyz(sample.joints_mm)[:, :2] * scale + offset:
            if np.isfinite(point).all():
                _ring(canvas, point)
    text = " ".join(part for part in (words, sample.side or "?", sample.frame[-22:]) if part)
    for color, width in (((0, 0, 0), 3), ((255, 255, 255), 1)):
        cv2.putText(canvas, text, (4, 13), _FONT, 0.36, color, width, cv2.LINE_AA)
    return canvas


def sheet(tiles: Sequence[UInt8[np.ndarray, "s s 3"]], columns: int = COLUMNS) -> UInt8[np.ndarray, "h w 3"]:
    """The tiles row by row, black where the last row is not full."""
    columns = min(columns, len(tiles))
    missing = -len(tiles) % columns
    every = [*tiles, *[np.zeros_like(tiles[0])] * missing]
    rows = [np.concatenate(every[start : start + columns], axis=1) for start in range(0, len(every), columns)]
    return np.concatenate(rows)


def write_sheet(path: str | Path, tiles: Sequence[UInt8[np.ndarray, "s s 3"]]) -> None:
    """Write `sheet` as a PNG, whole or not at all. Raises InputError where it cannot be written."""
    encoded = cv2.imencode(".png", sheet(tiles)[..., ::-1])[1]
    with atomic_write(path) as part:
        part.write_bytes(encoded.tobytes())


def _depth(sample: Sample) -> Float[np.ndarray, "h w"]:
    """The frame with nothing but what lies within the hand's depth, so that its relief shows."""
    assert sample.depth_mm is not None
    if sample.joints_mm is None or not np.isfinite(sample.joints_mm[:, 2]).any():
        return sample.depth_mm
    middle = float(np.nanmedian(sample.joints_mm[:, 2]))
    near = np.abs(sample.depth_mm - middle) < 200
    return np.where(near, sample.depth_mm, np.float32(0)) if near.any() else sample.depth_mm


def _skeleton(canvas: np.ndarray, at: Float[np.ndarray, "n 2"], sample: Sample) -> None:
    """Bones between canonical joints; a dot for every labelled point, also those no bone reaches."""
    canonical = sample.order.to_canonical(at)
    for parent, child in BONES:
        if np.isfinite(canonical[[parent, child]]).all():
            ends = [_fixed(canonical[joint]) for joint in (parent, child)]
            cv2.line(canvas, ends[0], ends[1], joint_color(child), 2, cv2.LINE_AA, 4)
    for point in at[np.isfinite(at).all(axis=1)]:
        cv2.circle(canvas, _fixed(point), 2 * 16, (255, 255, 255), -1, cv2.LINE_AA, 4)


def _ring(canvas: np.ndarray, point: Float[np.ndarray, " 2"]) -> None:
    cv2.circle(canvas, _fixed(point), 4 * 16, (0, 0, 0), 1, cv2.LINE_AA, 4)


def _fixed(point: Float[np.ndarray, " 2"]) -> tuple[int, int]:
    """In OpenCV's fixed point of 1/16 pixel; a point far outside would overflow it and is not seen anyway."""
    x, y = (round(16 * float(value)) for value in np.clip(point, -20_000, 20_000))
    return x, y
