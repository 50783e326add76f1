"""Pinhole camera and crop: the only two places where pixels and millimetres meet.

Camera frame: x right, y down, z forward, millimetres. Pixel centres are integers. `uvd` is (column px,
row px, depth mm); `uvz` is the crop's own unit: u, v in [0, 1] from the first pixel centre to the last,
z in [-1, 1] from the front of the depth cube to its back.
"""

import math
from dataclasses import dataclass

import cv2
import numpy as np

from handgraph.errors import InputError
from handgraph.shapes import Float, Num

MARGIN = 1.5
"""Side of a colour crop over the longer side of the hand's box, where nobody says otherwise."""


@dataclass(frozen=True)
class PinholeCamera:
    """Focal lengths and principal point in pixels, without distortion.

    `fy` may not be negative: data sets that store y upwards (NYU, MSRA) are turned to y down when read.
    """

    fx: float
    fy: float
    cx: float
    cy: float

    def __post_init__(self) -> None:
        values = (self.fx, self.fy, self.cx, self.cy)
        if not all(map(math.isfinite, values)) or self.fx <= 0 or self.fy <= 0:
            raise InputError(
                f"camera {values}: expected finite fx,fy,cx,cy in pixels with fx and fy above zero; "
                "turn data with y upwards over instead of giving a negative fy"
            )

    def uvd_from_xyz(self, xyz_mm: Float[np.ndarray, "*n 3"]) -> Float[np.ndarray, "*n 3"]:
        """Project camera-frame points: (x, y, z) mm → (u px, v px, z mm)."""
        xyz = np.asarray(xyz_mm)
        x, y, z = (xyz[..., axis] for axis in range(xyz.shape[-1]))
        u = self.fx * x / z + self.cx
        uvd = np.empty(xyz.shape, u.dtype)  # filled by hand: np.stack takes longer than the arithmetic
        uvd[..., 0], uvd[..., 1], uvd[..., 2] = u, self.fy * y / z + self.cy, z
        return uvd

    def xyz_from_uvd(self, uvd: Float[np.ndarray, "*n 3"]) -> Float[np.ndarray, "*n 3"]:
        """Back-project pixels with depth: (u px, v px, z mm) → (x, y, z) mm."""
        uvd = np.asarray(uvd)
        u, v, z = (uvd[..., axis] for axis in range(uvd.shape[-1]))
        x = (u - self.cx) * z / self.fx
        xyz = np.empty(uvd.shape, x.dtype)
        xyz[..., 0], xyz[..., 1], xyz[..., 2] = x, (v - self.cy) * z / self.fy, z
        return xyz

    def shifted(self, left: float, top: float) -> "PinholeCamera":
        """The camera of a window whose first pixel is (left, top) of the full image."""
        return PinholeCamera(self.fx, self.fy, self.cx - left, self.cy - top)


@dataclass(frozen=True, eq=False)  # an array has no single truth value
class Crop:
    """A square view of an image: where each of its pixels came from, and for depth which cube it spans.

    `crop_from_image` (2, 3) maps image pixels to crop pixels, with any rotation, and the mirroring that
    turns a left hand into a right one. With `center_depth_mm` and `cube_mm` set the crop is a depth crop:
    a cube of side `cube_mm` around a point at that depth.
    """

    crop_from_image: Float[np.ndarray, "2 3"]
    size: int
    camera: PinholeCamera | None = None
    center_depth_mm: float | None = None
    cube_mm: float | None = None
    mirrored: bool = False

    @staticmethod
    def cube(
        center_xyz_mm: Float[np.ndarray, " 3"],
        cube_mm: float,
        camera: PinholeCamera,
        size: int = 96,
        *,
        mirrored: bool = False,
        rotation_rad: float = 0.0,
    ) -> "Crop":
        """The depth crop of the papers: a cube around a 3D centre, projected at the centre's depth.

        `center_xyz_mm` is in the camera frame. The window is `cube_mm * f / z` pixels wide, so a pixel of
        the crop is the same number of millimetres at the centre's depth whatever the camera.
        `rotation_rad` turns the picture about its centre (training only).
        """
        x, y, z = (float(value) for value in center_xyz_mm)
        if not np.isfinite([x, y, z]).all() or z <= 0 or cube_mm <= 0:
            raise InputError(
                f"crop centre ({x:.0f}, {y:.0f}, {z:.0f}) mm, cube {cube_mm} mm: "
                "the centre must lie before the camera and the cube have a size"
            )
        u, v = camera.fx * x / z + camera.cx, camera.fy * y / z + camera.cy
        # One millimetre at the centre's depth → crop pixels; fx and fy may differ, the crop is metric.
        pixels_per_mm = (size - 1) / cube_mm
        scale_u, scale_v = pixels_per_mm * z / camera.fx, pixels_per_mm * z / camera.fy
        cos, sin = np.cos(rotation_rad), np.sin(rotation_rad)
        flip = -1.0 if mirrored else 1.0
        linear = np.array([[cos, -sin], [sin, cos]]) @ np.diag([flip * scale_u, scale_v])
        offset = (size - 1) / 2 - linear @ np.array([u, v])
        return Crop(np.column_stack([linear, offset]), size, camera, z, float(cube_mm), mirrored)

    @staticmethod
    def window(
        box_px: tuple[float, float, float, float],
        size: int,
        camera: PinholeCamera | None = None,
        *,
        mirrored: bool = False,
        rotation_rad: float = 0.0,
    ) -> "Crop":
        """A colour crop: the square in the middle of `box_px` (x, y, w, h), as wide as the longer side.

        `rotation_rad` turns the picture about its middle (training only).
        """
        x, y, w, h = (float(value) for value in box_px)
        side = max(w, h)
        if not np.isfinite([x, y, w, h]).all() or min(w, h) <= 0:
            raise InputError(f"box {box_px}: expected x,y,w,h in pixels with w and h above zero")
        scale = (size - 1) / max(side - 1, 1e-6)
        flip = -scale if mirrored else scale
        center = np.array([x + (w - 1) / 2, y + (h - 1) / 2])
        cos, sin = np.cos(rotation_rad), np.sin(rotation_rad)
        linear = np.array([[cos, -sin], [sin, cos]]) @ np.diag([flip, scale])
        offset = (size - 1) / 2 - linear @ center
        return Crop(np.column_stack([linear, offset]), size, camera, mirrored=mirrored)

    @property
    def image_from_crop(self) -> Float[np.ndarray, "2 3"]:
        """The inverse of `crop_from_image`."""
        inverse = np.linalg.inv(self.crop_from_image[:, :2])
        return np.column_stack([inverse, -inverse @ self.crop_from_image[:, 2]])

    @property
    def crop_from_camera(self) -> Float[np.ndarray, "3 3"]:
        """The camera frame turned as the crop turns the image, and mirrored where it mirrors it.

        X_crop = R X_camera with R orthogonal, about the optical axis, of determinant -1 for a mirrored crop.
        In this *crop frame* every hand is a right hand and `crop_camera` projects without turning.
        """
        return self._frame()[0]

    @property
    def crop_camera(self) -> Float[np.ndarray, "3 3"]:
        """K from crop-frame millimetres to uv in [0, 1]: (u z, v z, z) = K X_crop; upper triangular."""
        return self._frame()[1]

    def _frame(self) -> tuple[Float[np.ndarray, "3 3"], Float[np.ndarray, "3 3"]]:
        """The factors of crop_from_image · K: an upper triangular camera times an orthogonal matrix."""
        if self.camera is None:
            raise InputError("this crop has no camera: give one to have 3D in its frame")
        camera = self.camera
        linear = self.crop_from_image[:, :2] @ np.diag([camera.fx, camera.fy])
        # RQ factorisation of a 2×2 matrix: the second row must become (0, positive).
        c, d = linear[1]
        scale_v = np.hypot(c, d)
        sine, cosine = c / scale_v, d / scale_v
        flip = np.sign(np.linalg.det(linear))
        turn = np.array([[flip * cosine, -flip * sine], [sine, cosine]])
        center = self.crop_px(np.array([camera.cx, camera.cy]))
        rotation, intrinsic = np.eye(3), np.eye(3)
        rotation[:2, :2] = turn
        intrinsic[:2, :2] = linear @ turn.T
        intrinsic[1, 0] = 0.0  # exactly, where the product leaves rounding
        intrinsic[:2, 2] = center
        intrinsic[:2] /= self.size - 1
        return rotation, intrinsic

    def crop_px(self, image_px: Float[np.ndarray, "*n 2"]) -> Float[np.ndarray, "*n 2"]:
        """Image pixels → crop pixels."""
        return np.asarray(image_px) @ self.crop_from_image[:, :2].T + self.crop_from_image[:, 2]

    def image_px(self, crop_px: Float[np.ndarray, "*n 2"]) -> Float[np.ndarray, "*n 2"]:
        """Crop pixels → image pixels."""
        back = self.image_from_crop
        return np.asarray(crop_px) @ back[:, :2].T + back[:, 2]

    def uvz_from_xyz(self, xyz_mm: Float[np.ndarray, "*n 3"]) -> Float[np.ndarray, "*n 3"]:
        """Camera-frame millimetres → the crop's u, v in [0, 1] and z in [-1, 1]."""
        camera, center_depth_mm, cube_mm = self._depth()
        uvd = camera.uvd_from_xyz(xyz_mm)
        uv = self.crop_px(uvd[..., :2]) / (self.size - 1)
        return np.concatenate([uv, (uvd[..., 2:] - center_depth_mm) / (cube_mm / 2)], axis=-1)

    def uvd_from_uvz(self, uvz: Float[np.ndarray, "*n 3"]) -> Float[np.ndarray, "*n 3"]:
        """The crop's u, v, z → image pixels and depth in mm."""
        _, center_depth_mm, cube_mm = self._depth()
        uvz = np.asarray(uvz)
        uv = self.image_px(uvz[..., :2] * (self.size - 1))
        return np.concatenate([uv, uvz[..., 2:] * (cube_mm / 2) + center_depth_mm], axis=-1)

    def xyz_from_uvz(self, uvz: Float[np.ndarray, "*n 3"]) -> Float[np.ndarray, "*n 3"]:
        """The crop's u, v, z → camera-frame millimetres."""
        camera, _, _ = self._depth()
        return camera.xyz_from_uvd(self.uvd_from_uvz(uvz))

    def apply_depth(self, depth_mm: Num[np.ndarray, "h w"], before: float = 1.0) -> Float[np.ndarray, "s s"]:
        """Resample a depth frame (mm, 0 = no reading) to the normalised crop.

        Nearest neighbour, since blending two depths invents a surface between them. What lies behind the
        cube, has no reading or is outside the frame becomes the background, +1; what lies before the
        cube is dropped to the background too, so that an object held in front does not become a wall;
        another value `before` tells it from the background.
        """
        _, center_depth_mm, cube_mm = self._depth()
        frame = cv2.warpAffine(
            np.ascontiguousarray(depth_mm, dtype=np.float32),
            self.crop_from_image,
            (self.size, self.size),
            flags=cv2.INTER_NEAREST,
            borderMode=cv2.BORDER_CONSTANT,
            borderValue=0,
        )
        z = (frame - center_depth_mm) / (cube_mm / 2)
        seen = np.where((frame > 0) & (z >= -1), np.minimum(z, 1.0), 1.0)
        return np.where((frame > 0) & (z < -1), before, seen).astype(np.float32)

    def apply_image(self, image: np.ndarray) -> np.ndarray:
        """Resample a colour image (H, W, 3) to the crop, black outside; area-averaged where it shrinks."""
        shrink = 1.0 / np.sqrt(abs(np.linalg.det(self.crop_from_image[:, :2])))
        matrix = self.crop_from_image
        if shrink > 1.5:  # bilinear sampling would skip pixels: blur to the new pixel's size first
            last, reach = self.size - 1.0, 2 * shrink  # five times the blur's sigma
            corners = self.image_px(np.array([[0.0, 0.0], [last, 0.0], [0.0, last], [last, last]]))
            x, y = np.maximum(np.floor(corners.min(axis=0) - reach), 0).astype(int)
            right, bottom = np.maximum(np.ceil(corners.max(axis=0) + reach).astype(int) + 1, 0)
            part = image[y:bottom, x:right]  # a phone's photograph is far larger than what the crop shows
            if not part.size:
                return np.zeros((self.size, self.size, 3), np.uint8)
            image = cv2.GaussianBlur(part, (0, 0), 0.4 * shrink)
            matrix = np.column_stack([matrix[:, :2], matrix[:, 2] + matrix[:, :2] @ (x, y)])
        return cv2.warpAffine(image, matrix, (self.size, self.size), flags=cv2.INTER_LINEAR)

    def _depth(self) -> tuple[PinholeCamera, float, float]:
        if self.camera is None or self.center_depth_mm is None or self.cube_mm is None:
            raise InputError("this crop has no depth cube or no camera: make it with Crop.cube(...)")
        return self.camera, self.center_depth_mm, self.cube_mm
