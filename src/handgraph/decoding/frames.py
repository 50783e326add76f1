"""Between a crop's frame, where every hand is a right one, and the camera's."""

from dataclasses import replace

import cv2
import numpy as np

from handgraph.camera import Crop, PinholeCamera
from handgraph.shapes import Float


def crop_from_camera(crop: Crop) -> Float[np.ndarray, "3 3"]:
    """`Crop.crop_from_camera`; a crop without camera is taken for one of square pixels."""
    if crop.camera is None:
        crop = replace(crop, camera=PinholeCamera(1.0, 1.0, 0.0, 0.0))
    return crop.crop_from_camera


def camera_pose(
    pose: Float[np.ndarray, " 48"], turn: Float[np.ndarray, "3 3"], *, mirrored: bool
) -> Float[np.ndarray, " 48"]:
    """A right hand's pose in the crop's frame → the hand's own in the camera frame (undoes `pose_in_crop`).

    `turn` is `crop_from_camera`. Mirroring x turns a rotation vector (x, y, z) into (x, -y, -z).
    """
    turned = pose.reshape(16, 3).copy()
    if mirrored:
        turn = turn @ np.diag([-1.0, 1.0, 1.0])
    turned[0] = cv2.Rodrigues(turn.T @ cv2.Rodrigues(turned[0])[0])[0][:, 0]
    if mirrored:
        turned *= [1.0, -1.0, -1.0]
    return turned.reshape(48)
