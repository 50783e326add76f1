"""Hands and pictures for the layouts: plausible joints, and a drawing of them in noise."""

from pathlib import Path

import cv2
import numpy as np
from jaxtyping import Float, UInt8

from handgraph.camera import PinholeCamera
from handgraph.skeleton import BONES

# Where the fingers begin and how they run in a flat right hand seen from its back: x right, y down, mm.
_KNUCKLES = ((-35.0, -30.0), (-28.0, -88.0), (-6.0, -92.0), (14.0, -86.0), (32.0, -76.0))
_TOWARDS = ((-0.75, -0.65), (-0.15, -1.0), (0.0, -1.0), (0.12, -1.0), (0.3, -0.95))
_PHALANGES = (
    (38.0, 32.0, 26.0),
    (42.0, 25.0, 20.0),
    (46.0, 28.0, 21.0),
    (42.0, 26.0, 20.0),
    (34.0, 20.0, 18.0),
)


def hand_3d(
    random: np.random.Generator,
    *,
    distance_mm: float = 500.0,
    side: str = "right",
    off_axis_mm: float = 30.0,
) -> Float[np.ndarray, "21 3"]:
    """A bent hand's 21 canonical joints in front of a camera, mm, camera frame (float64)."""
    joints = np.zeros((21, 3))
    for finger, (knuckle, towards, lengths) in enumerate(zip(_KNUCKLES, _TOWARDS, _PHALANGES, strict=True)):
        along = np.array([*towards, 0.0]) / np.hypot(*towards)
        joints[1 + 4 * finger, :2] = knuckle
        bend, curl = 0.0, random.uniform(0.1, 0.6)
        for joint, length in enumerate(lengths):
            bend += curl
            step = np.cos(bend) * along + np.sin(bend) * np.array([0.0, 0.0, 1.0])
            joints[2 + 4 * finger + joint] = joints[1 + 4 * finger + joint] + length * step
    if side == "left":
        joints[:, 0] *= -1
    turn, _ = cv2.Rodrigues(random.uniform(-0.7, 0.7, 3))
    joints = (joints - joints[9]) @ turn.T
    return joints + np.array([*random.uniform(-off_axis_mm, off_axis_mm, 2), distance_mm])


def picture(
    random: np.random.Generator, size: tuple[int, int], keypoints_px: Float[np.ndarray, "21 2"] | None = None
) -> UInt8[np.ndarray, "h w 3"]:
    """An RGB picture of this (width, height): smooth noise, and the hand's bones drawn over it."""
    width, height = size
    coarse = random.integers(30, 200, (height // 16 + 2, width // 16 + 2, 3), dtype=np.uint8)
    image = cv2.resize(coarse, (width, height), interpolation=cv2.INTER_LINEAR)
    if keypoints_px is not None:
        thick = max(2, round(float(np.ptp(keypoints_px, axis=0).max()) / 14))
        points = np.clip(np.round(keypoints_px), -9999, 9999).astype(int)
        for parent, child in BONES:
            cv2.line(image, points[parent].tolist(), points[child].tolist(), (224, 172, 144), thick)
    return np.ascontiguousarray(image)


def project(camera: PinholeCamera, joints_mm: Float[np.ndarray, "*n 3"]) -> Float[np.ndarray, "*n 2"]:
    """Camera-frame mm → pixels."""
    return camera.uvd_from_xyz(joints_mm)[..., :2]


def write_picture(path: Path, image: np.ndarray) -> None:
    """A PNG or JPEG by the file's name: RGB, or one channel."""
    path.parent.mkdir(parents=True, exist_ok=True)
    stored = image[..., ::-1] if image.ndim == 3 else image
    if not cv2.imwrite(str(path), np.ascontiguousarray(stored)):
        raise OSError(f"{path}: cannot be written")
