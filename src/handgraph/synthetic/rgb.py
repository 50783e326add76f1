"""Colour images of synthetic hands by number: a seed and an index give one image, always the same."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple, get_args

import cv2
import numpy as np
import roma
import torch
from jaxtyping import UInt8

from handgraph.camera import Crop, PinholeCamera
from handgraph.errors import ConfigError
from handgraph.hand_model.files import HandModel
from handgraph.images import to_network
from handgraph.synthetic import depth
from handgraph.synthetic.clutter import heap, texture_pool
from handgraph.synthetic.depth import SUBJECTS, Split
from handgraph.synthetic.hands import FAMILIES, Rig, local_rotations, seed_stream
from handgraph.synthetic.photo import (
    Cast,
    Chances,
    Picture,
    camera_draws,
    cast_of,
    develop,
    exposure_of,
    render,
)
from handgraph.synthetic.skin import Skin, skin_of

FAMILY_SHARES = (0.08, 0.09, 0.13, 0.07, 0.10, 0.26, 0.06, 0.11, 0.10)
"""More selectively stretched fingers than the depth images have: what colour networks confuse."""

SUPERSAMPLING = 1.25


@lru_cache(maxsize=2)
def _skin(model: HandModel) -> Skin:
    return skin_of(depth._rig(model))


def _open_wrist(rig: Rig) -> tuple[np.ndarray, np.ndarray]:
    """The faces without the lid at the wrist, and that edge's vertices in the order `grid_faces` turns."""
    ring = rig.template[rig.ring]
    y, z = (ring - ring.mean(0))[:, 1:].T
    outer = np.hypot(y / np.abs(y).max(), z / np.abs(z).max()) > 0.8
    order = rig.ring[outer][np.argsort(np.arctan2(z, y)[outer])]
    return np.ascontiguousarray(rig.faces[~np.isin(rig.faces, rig.ring).all(1)]), order


class _Shot(NamedTuple):
    """A finished picture."""

    image: np.ndarray  # (s, s, 3) uint8
    cast: Cast
    crop: Crop
    picture: Picture


class RgbSynthesizer:
    """Colour images of synthetic hands: image `index` of (seed, split) is always the same."""

    def __init__(
        self,
        seed: int = 0,
        split: str = "train",
        size: int = 128,
        *,
        threads: int = 1,
        backgrounds: str | Path | None = None,
        chances: Chances | None = None,
        family_shares: Sequence[float] = FAMILY_SHARES,
        model: HandModel | None = None,
    ) -> None:
        if split not in get_args(Split):
            raise ConfigError(f"split {split!r}: expected one of {', '.join(get_args(Split))}")
        if size < 16 or threads < 1 or seed < 0:
            raise ConfigError(
                f"size {size}, threads {threads}, seed {seed}: expected a size of at least 16, "
                "at least one thread and a seed not below zero"
            )
        if len(family_shares) != len(FAMILIES):
            raise ConfigError(f"family_shares: found {len(family_shares)}, expected {len(FAMILIES)}")
        self.seed, self.split, self.size, self.threads = seed, split, size, threads
        self.chances = Chances(*(float(value) for value in chances or Chances()))
        model = model if model is not None else depth._open_hand()
        self.rig = depth._rig(model)
        self._skin = _skin(model)
        self._wrist = _open_wrist(self.rig)
        self._textures = texture_pool()
        self._families = np.asarray(family_shares, np.float64)
        self._pool = ThreadPoolExecutor(threads) if threads > 1 else None

    def batch(self, indices: Sequence[int]) -> dict[str, torch.Tensor | list[Crop]]:
        """Crops `indices` as networks take them."""
        n = len(indices)
        images = np.empty((n, self.size, self.size, 3), np.uint8)
        joints = np.empty((n, 21, 3))
        rotations = np.empty((n, 16, 3, 3))
        shapes = np.empty((n, 10), np.float32)
        cameras = np.empty((n, 3, 3))
        frames = np.empty((n, 3, 3))
        crops: list[Crop] = [None] * n  # type: ignore[list-item]

        def fill(place: int) -> None:
            shot = self._shoot(int(indices[place]))
            hand = shot.cast.first
            images[place], crops[place] = shot.image, shot.crop
            joints[place], shapes[place] = hand.joints, hand.shape
            frames[place], cameras[place] = shot.crop.crop_from_camera, shot.crop.crop_camera
            rotations[place, 0] = frames[place] @ hand.rotation
            local_rotations(self.rig, hand.angles, rotations[place, 1:])

        if self._pool is None:
            for place in range(n):
                fill(place)
        else:
            list(self._pool.map(fill, range(n)))
        in_crop = np.einsum("bij,bkj->bki", frames, joints)
        projected = np.einsum("bij,bkj->bki", cameras, in_crop)
        uv = projected[..., :2] / projected[..., 2:]
        pose = roma.rotmat_to_rotvec(torch.from_numpy(rotations)).reshape(n, 48)

        def tensor(array: np.ndarray) -> torch.Tensor:
            return torch.from_numpy(array.astype(np.float32))

        return {
            "image": torch.from_numpy(to_network(images)),
            "uv": tensor(uv),
            "known": torch.ones(n, 21, dtype=torch.bool),
            "relative_mm": tensor(in_crop - in_crop[:, :1]),
            "wrist_mm": tensor(in_crop[:, 0]),
            "crop_camera": tensor(cameras),
            "joints_mm": tensor(joints),
            "pose": pose.float(),
            "shape": torch.from_numpy(shapes),
            "crops": crops,
        }

    def _shoot(self, index: int) -> _Shot:
        split = get_args(Split).index(self.split)
        cast = cast_of(
            self.rig, self._families, self.chances, SUBJECTS[self.split], self.seed, split, index, False
        )
        fx, fy, cx, cy, width, height = (float(value) for value in cast.camera)
        camera = PinholeCamera(fx, fy, cx, cy)
        crop = Crop.window(tuple(cast.box), self.size, camera, rotation_rad=float(cast.turn))
        fine = int(np.ceil(SUPERSAMPLING * self.size / 8) * 8)
        scale = fine / self.size
        matrix = crop.crop_camera * (self.size - 1)
        local = np.array(
            [
                matrix[0, 0] * scale,
                matrix[1, 1] * scale,
                (matrix[0, 2] + 0.5) * scale - 0.5,
                (matrix[1, 2] + 0.5) * scale - 0.5,
            ]
        )
        lens = seed_stream(self.seed, split, index, 13)
        draws = camera_draws(lens)
        background = self._background(
            fine, fine, seed_stream(self.seed, split, index, 12), draws[8] * fine / 128
        )
        picture = render(
            self.rig, *self._wrist, self._skin, self._textures, cast, self.chances, background,
            local, crop.crop_from_camera, False, seed_stream(self.seed, split, index, 11),
        )  # fmt: skip
        image = self._photograph(picture, self.size, self.size, draws, lens)
        if draws[9]:
            inside = cv2.warpAffine(
                np.full((int(height), int(width)), 255, np.uint8),
                crop.crop_from_image,
                (self.size, self.size),
            )
            if inside.min() < 255:
                image = (image.astype(np.uint16) * inside[..., None] // 255).astype(np.uint8)
        return _Shot(image, cast, crop, picture)

    def _background(self, height: int, width: int, state: np.ndarray, blur: float) -> np.ndarray:
        out = np.zeros((height, width, 3), np.float32)
        heap(state, self._textures, 0.75, out)
        return cv2.GaussianBlur(out, (0, 0), blur) if blur > 0.3 else out

    def _photograph(
        self, picture: Picture, height: int, width: int, draws: np.ndarray, state: np.ndarray
    ) -> UInt8[np.ndarray, "h w 3"]:
        light = picture.light
        gain = exposure_of(light, picture.owner, float(draws[0]))
        unit = light.shape[0] / 128
        if draws[1] * unit > 0.4:
            light = cv2.GaussianBlur(light, (0, 0), float(draws[1] * unit))
        if draws[2] > 0:
            light = _smear(light, float(draws[2] * unit), float(draws[3]))
        rows, columns = max(int(height * draws[4]), 24), max(int(width * draws[4]), 24)
        light = cv2.resize(light, (columns, rows), interpolation=cv2.INTER_AREA)
        image = np.empty((rows, columns, 3), np.uint8)
        develop(light, gain, state, image)
        if draws[5] > 0:
            image = cv2.GaussianBlur(image, (3, 3), float(draws[5]))
        if draws[6] > 0:
            soft = cv2.GaussianBlur(image, (0, 0), 1.0)
            image = cv2.addWeighted(image, 1 + float(draws[6]), soft, -float(draws[6]), 0)
        if draws[7] > 0:
            # OpenCV takes channels for blue, green, red; turned round, JPEG weighs them rightly.
            code = cv2.imencode(".jpg", image[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, int(draws[7])])[1]
            image = np.ascontiguousarray(cv2.imdecode(code, cv2.IMREAD_COLOR)[..., ::-1])
        if (rows, columns) != (height, width):
            image = cv2.resize(image, (width, height), interpolation=cv2.INTER_LINEAR)
        return image


def _smear(light: np.ndarray, length: float, angle: float) -> np.ndarray:
    """Motion blur along a line of `length` pixels."""
    n = int(np.ceil(length)) | 1
    kernel = np.zeros((n, n), np.float32)
    middle = (n - 1) / 2
    du, dv = np.cos(angle) * length / 2, np.sin(angle) * length / 2
    ends = [(round((middle + sign * du) * 16), round((middle + sign * dv) * 16)) for sign in (-1, 1)]
    cv2.line(kernel, ends[0], ends[1], 1.0, 1, cv2.LINE_AA, 4)
    if kernel.sum() <= 0:
        return light
    return cv2.filter2D(light, -1, kernel / kernel.sum())
