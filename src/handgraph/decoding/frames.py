"""Between the frames of networks' answers, of the crop, where all hands are right ones, and of the camera."""

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


def sight_from_crop(crop: Crop) -> Float[np.ndarray, "3 3"]:
    """The smallest turn that brings the line of sight through the crop's middle onto z (`networks.sight`).

    The identity for a crop without a camera.
    """
    if crop.camera is None:
        return np.eye(3)
    x, y, z = np.linalg.solve(crop.crop_camera, [0.5, 0.5, 1.0])
    x, y, z = np.array([x, y, z]) / np.sqrt(x * x + y * y + z * z)
    return np.array(
        [[1 - x * x / (1 + z), -x * y / (1 + z), -x], [-x * y / (1 + z), 1 - y * y / (1 + z), -y], [x, y, z]]
    )


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
