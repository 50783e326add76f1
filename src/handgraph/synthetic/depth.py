"""Depth images of synthetic hands by number: a seed and an index give one image, always the same."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Literal, get_args

import numpy as np
import roma
import torch
from jaxtyping import Float, UInt8

from handgraph.camera import Crop, PinholeCamera
from handgraph.errors import ConfigError
from handgraph.hand_model.files import HandModel, load_open_hand
from handgraph.stale import forget_stale_code
from handgraph.synthetic.hands import (
    FAMILIES,
    FAMILY_SHARES,
    Rig,
    local_rotations,
    rig_from_model,
    seed_stream,
)
from handgraph.synthetic.scene import SENSORS, Chances, Scene, clean, compose, sense, sensor_table

Split = Literal["train", "validation", "test"]
SUBJECTS: dict[Split, int] = {"train": 20_000, "validation": 200, "test": 200}
"""Subjects a split holds; the splits' shapes come from streams of their own, so no subject is in two."""


@dataclass(frozen=True, eq=False)
class DepthSample:
    """One depth crop of a hand with everything known about it. Right hands, camera frame, mm."""

    image: Float[np.ndarray, "size size"]
    """Normalised depth in [−1, 1], background +1, as `Crop.apply_depth` gives it."""
    uvz: Float[np.ndarray, "21 3"]
    """The joints in the crop's own unit."""
    joints_mm: Float[np.ndarray, "21 3"]
    crop: Crop
    """The crop, with the camera of the frame it was cut from."""
    shape: Float[np.ndarray, " 10"]
    pose: Float[np.ndarray, " 48"]
    """Axis-angle of the whole hand and 15 joints, as `HandLayer` takes it."""
    translation_mm: Float[np.ndarray, " 3"]
    """What `HandLayer` adds to the posed hand to bring it here."""
    angles: Float[np.ndarray, "15 3"]
    """Flexion, abduction, twist, radians, MANO's joint order."""
    subject: int
    family: str
    sensor: str
    contents: tuple[str, ...]
    """What else is in the scene."""
    side: str = "right"


@dataclass(frozen=True, eq=False)
class DepthFrame:
    """A whole sensor frame, with the hand's crop as a perfect finder would cut it."""

    depth_mm: Float[np.ndarray, "h w"]
    label: UInt8[np.ndarray, "h w"]
    """What each pixel shows (see `handgraph.synthetic.render`): 1 is the hand, 2 the forearm."""
    camera: PinholeCamera
    joints_mm: Float[np.ndarray, "21 3"]
    vertices_mm: Float[np.ndarray, "v 3"]
    crop: Crop
    shape: Float[np.ndarray, " 10"]
    pose: Float[np.ndarray, " 48"]
    translation_mm: Float[np.ndarray, " 3"]
    subject: int
    family: str
    sensor: str
    contents: tuple[str, ...]
    side: str = "right"

    @property
    def uvz(self) -> Float[np.ndarray, "21 3"]:
        """The joints in the crop's own unit."""
        return self.crop.uvz_from_xyz(self.joints_mm)


CONTENTS = ("table", "held", "occluder", "body", "second_hand", "sleeve")


forget_stale_code(Path(__file__).parent, ("hands", "render", "scene", "skin", "clutter", "light", "photo"))


@lru_cache(maxsize=4)
def _rig(model: HandModel) -> Rig:
    return rig_from_model(model)


class DepthSynthesizer:
    """Depth images of synthetic hands: image `index` of (seed, split) is the same however it is asked for.

    Args:
        seed: of the whole set.
        split: `train`, `validation` or `test`; they share no subject.
        size: of the crop, pixels.
        noise: spoil the images as depth sensors do.
        threads: drawing at once in `batch`; the images do not depend on it.
        chances: how often tables, objects, bodies and so on appear.
        model: a right-hand model with joint axes and limits; the shipped open hand by default.

    Raises:
        ConfigError: an unknown split, or a size or number of threads below one.
    """

    def __init__(
        self,
        seed: int = 0,
        split: str = "train",
        size: int = 96,
        noise: bool = True,
        *,
        threads: int = 1,
        chances: Chances | None = None,
        family_shares: Sequence[float] = FAMILY_SHARES,
        model: HandModel | None = None,
    ) -> None:
        if split not in get_args(Split):
            raise ConfigError(f"split {split!r}: expected one of {', '.join(get_args(Split))}")
        if size < 8 or threads < 1 or seed < 0:
            raise ConfigError(
                f"size {size}, threads {threads}, seed {seed}: expected a size of at least 8, "
                "at least one thread and a seed not below zero"
            )
        if len(family_shares) != len(FAMILIES):
            raise ConfigError(f"family_shares: found {len(family_shares)}, expected {len(FAMILIES)}")
        self.seed, self.split, self.size, self.noise, self.threads = seed, split, size, noise, threads
        # Compiled code knows numbers by their type: whole numbers from a recipe become floats.
        self.chances = Chances(*(float(value) for value in chances or Chances()))
        self.rig = _rig(model if model is not None else _open_hand())
        self._sensors = sensor_table()
        self._families = np.asarray(family_shares, np.float64)
        self._pool = ThreadPoolExecutor(threads) if threads > 1 else None

    def sample(self, index: int) -> DepthSample:
        """Crop number `index` with its labels."""
        scene, depth = self._scene(index, whole=False)
        crop, image = self._crop(scene, depth)
        return DepthSample(
            image=image,
            uvz=crop.uvz_from_xyz(scene.joints).astype(np.float32),
            joints_mm=scene.joints.astype(np.float32),
            crop=crop,
            shape=scene.shape.astype(np.float32),
            pose=_axis_angle(self.rig, scene),
            translation_mm=_translation(self.rig, scene),
            angles=scene.angles.astype(np.float32),
            subject=int(scene.subject),
            family=FAMILIES[scene.family],
            sensor=SENSORS[scene.sensor].name,
            contents=_contents(scene.flags),
        )

    def frame(self, index: int) -> DepthFrame:
        """Whole sensor frame number `index`: another scene than `sample(index)`, with body, room and all."""
        scene, depth = self._scene(index, whole=True)
        return depth_frame(self.rig, scene, depth, self.size)

    def batch(self, indices: Sequence[int]) -> dict[str, torch.Tensor | list[Crop]]:
        """Crops `indices`: image (B, 1, S, S), uvz (B, 21, 3), joints_mm (B, 21, 3) float32, crops (list).

        Drawn by `threads` threads; each image is what `sample` gives for its index.
        """
        image = np.empty((len(indices), 1, self.size, self.size), np.float32)
        uvz = np.empty((len(indices), 21, 3), np.float32)
        joints_mm = np.empty((len(indices), 21, 3), np.float32)
        crops: list[Crop] = [None] * len(indices)  # type: ignore[list-item]

        def fill(place: int) -> None:
            scene, depth = self._scene(int(indices[place]), whole=False)
            crop, image[place, 0] = self._crop(scene, depth)
            uvz[place] = crop.uvz_from_xyz(scene.joints)
            joints_mm[place] = scene.joints
            crops[place] = crop

        if self._pool is None:
            for place in range(len(indices)):
                fill(place)
        else:
            list(self._pool.map(fill, range(len(indices))))
        return {
            "image": torch.from_numpy(image),
            "uvz": torch.from_numpy(uvz),
            "joints_mm": torch.from_numpy(joints_mm),
            "crops": crops,
        }

    def _scene(self, index: int, *, whole: bool) -> tuple[Scene, np.ndarray]:
        """The scene, and the depth the sensor reads of it."""
        split = get_args(Split).index(self.split)
        subjects = list(SUBJECTS.values())[split]
        scene = compose(
            self.rig, self._sensors, self._families, self.chances, subjects,
            self.seed, split, index, self.size, whole,
        )  # fmt: skip
        state = seed_stream(self.seed, split, index, 3 if whole else 2)
        if self.noise and (int(state[0]) >> 11) * 2.0**-53 < self.chances.noise:
            return scene, sense(scene.inverse, self._sensors[scene.sensor], float(scene.camera[0]), state)
        return scene, clean(scene.inverse)

    def _crop(self, scene: Scene, depth: np.ndarray) -> tuple[Crop, np.ndarray]:
        """The crop in the sensor's full frame, and the image cut from the window that was drawn of it."""
        left, top, _, _ = scene.window
        camera = PinholeCamera(*(float(value) for value in scene.camera))
        crop = Crop.cube(scene.center, 2 * float(scene.half_cube), camera, self.size)
        matrix = crop.crop_from_image.copy()
        matrix[:, 2] += matrix[:, :2] @ (left, top)
        return crop, replace(crop, crop_from_image=matrix).apply_depth(depth)


@lru_cache(maxsize=1)
def _open_hand() -> HandModel:
    return load_open_hand()


def depth_frame(rig: Rig, scene: Scene, depth_mm: Float[np.ndarray, "h w"], size: int = 96) -> DepthFrame:
    """What is known of a whole scene, seen as `depth_mm`, with its crop of `size` pixels."""
    camera = PinholeCamera(*(float(value) for value in scene.camera))
    return DepthFrame(
        depth_mm=depth_mm,
        label=scene.label,
        camera=camera,
        joints_mm=scene.joints.astype(np.float32),
        vertices_mm=scene.vertices,
        crop=Crop.cube(scene.joints.mean(0), 260.0, camera, size),
        shape=scene.shape.astype(np.float32),
        pose=_axis_angle(rig, scene),
        translation_mm=_translation(rig, scene),
        subject=int(scene.subject),
        family=FAMILIES[scene.family],
        sensor=SENSORS[scene.sensor].name,
        contents=_contents(scene.flags),
    )


def _contents(flags: int) -> tuple[str, ...]:
    return tuple(name for bit, name in enumerate(CONTENTS) if flags >> bit & 1)


def _axis_angle(rig: Rig, scene: Scene) -> Float[np.ndarray, " 48"]:
    rotations = np.empty((16, 3, 3))
    rotations[0] = scene.rotation
    local_rotations(rig, scene.angles, rotations[1:])
    return roma.rotmat_to_rotvec(torch.from_numpy(rotations)).reshape(48).numpy().astype(np.float32)


def _translation(rig: Rig, scene: Scene) -> Float[np.ndarray, " 3"]:
    """The posed hand turns about its rest wrist, so what is added is the wrist's way from there."""
    rest_wrist = rig.joints[0] + scene.shape @ rig.joint_basis[:, 0]
    return (scene.wrist - rest_wrist).astype(np.float32)
