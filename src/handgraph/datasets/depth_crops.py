"""From depth samples to training batches: the crop, its labels and the augmentation of JGR-P2O."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int

from handgraph.camera import Crop
from handgraph.datasets.centers import center_of_depth
from handgraph.datasets.sample import Dataset, Sample
from handgraph.errors import ConfigError, InputError

SHIFT_MM = 10.0
SCALE = (0.9, 1.1)
_KINDS = ("shift", "rotate", "scale", "none")


class DepthCrops:
    """A depth dataset as the training loop's `Data`: indices in, tensors with a leading batch axis out.

    dataset    any depth reader of this package
    seed       of the augmentation; a sample depends on nothing but (seed, index, draw)
    size       side of the square crop in pixels
    joints     indices into the dataset's own joint order; None takes those that papers evaluate
    cube_mm    side of the crop cube; None takes each sample's own
    augment    one of {shift ≤ 10 mm an axis, rotate ±180°, scale 0.9-1.1, none} per sample, drawn
               uniformly (JGR-P2O section 4.1; one at a time is the authors' code)

    Left hands are mirrored in, here as everywhere.
    """

    endless = False

    def __init__(
        self,
        dataset: Dataset,
        seed: int = 0,
        *,
        size: int = 96,
        joints: Sequence[int] | None = None,
        cube_mm: float | None = None,
        augment: bool = True,
    ) -> None:
        if size < 8:
            raise ConfigError(f"crop size {size}: expected at least 8 pixels")
        if cube_mm is not None and not cube_mm > 0:
            raise ConfigError(f"crop cube {cube_mm} mm: expected more than 0")
        self.dataset, self.seed, self.size = dataset, seed, size
        self.joints = tuple(dataset.joints if joints is None else joints)
        self.cube_mm, self.augment = cube_mm, augment
        self._centers: dict[int, np.ndarray] = {}  # finding a centre costs as much as reading a frame

    def __len__(self) -> int:
        return len(self.dataset)

    def batch(
        self, indices: Int[np.ndarray, " b"] | Sequence[int], draws: Int[np.ndarray, " b"] | int = 0
    ) -> dict[str, Any]:
        """The samples of these indices.

        `draws` numbers the uses of the data (an epoch's number will do): another draw, another augmentation.

        image       (B, 1, S, S) float32 in [-1, 1], background +1
        uvz         (B, J, 3) float32 in the crop's coordinates
        joints_mm   (B, J, 3) float32 camera frame, not augmented: what `crop.xyz_from_uvz(uvz)` gives back
        crops       list of B `Crop`
        """
        draws = np.broadcast_to(np.asarray(draws), (len(indices),))
        image, uvz, joints_mm, crops = [], [], [], []
        for index, draw in zip(indices, draws, strict=True):
            sample = self.dataset[int(index)]
            crop = self._crop(int(index), sample, np.random.default_rng([self.seed, int(index), int(draw)]))
            assert sample.depth_mm is not None  # _crop has refused a sample without
            joints = self._labels(sample)
            image.append(crop.apply_depth(sample.depth_mm)[None])
            uvz.append(crop.uvz_from_xyz(joints.astype(np.float64)).astype(np.float32))
            joints_mm.append(joints)
            crops.append(crop)
        return {
            "image": torch.from_numpy(np.stack(image)),
            "uvz": torch.from_numpy(np.stack(uvz)),
            "joints_mm": torch.from_numpy(np.stack(joints_mm)),
            "crops": crops,
        }

    def _labels(self, sample: Sample) -> Float[np.ndarray, "j 3"]:
        if sample.joints_mm is None:
            raise InputError(f"{sample.source} (frame {sample.frame}): the joints have no 3D label")
        joints = sample.joints_mm[list(self.joints)]
        if not np.isfinite(joints).all():
            raise InputError(f"{sample.source} (frame {sample.frame}): a joint to train on has no label")
        return joints

    def _crop(self, index: int, sample: Sample, random: np.random.Generator) -> Crop:
        if sample.depth_mm is None or sample.camera is None:
            raise InputError(f"{sample.source} (frame {sample.frame}): no depth image to crop")
        cube_mm = self.cube_mm or sample.cube_mm
        if cube_mm is None:
            raise ConfigError(f"frame {sample.frame}: the dataset knows no crop cube; give cube_mm")
        center = self._centers.get(index)
        if center is None:
            center = self._centers[index] = crop_center(sample, cube_mm)
        rotation = 0.0
        if self.augment:
            kind = _KINDS[random.integers(len(_KINDS))]
            if kind == "shift":
                center = center + random.uniform(-SHIFT_MM, SHIFT_MM, 3)
            elif kind == "rotate":
                rotation = random.uniform(-np.pi, np.pi)
            elif kind == "scale":  # a smaller cube shows a larger hand
                cube_mm = cube_mm / random.uniform(*SCALE)
        return Crop.cube(
            center,
            cube_mm,
            sample.camera,
            self.size,
            mirrored=sample.side == "left",
            rotation_rad=rotation,
        )


def crop_center(sample: Sample, cube_mm: float) -> Float[np.ndarray, " 3"]:
    """The centre of the crop cube of one sample, camera frame, mm.

    A published centre is used as it is. Otherwise it is the refined centre of mass of the depth, begun at
    the sample's hint where there is one. Raises InputError where the frame has no depth to find it by.
    """
    assert sample.depth_mm is not None
    assert sample.camera is not None
    if sample.center_mm is not None and sample.center_refined:
        return sample.center_mm.astype(np.float64)
    center = center_of_depth(sample.depth_mm, sample.camera, sample.center_mm, cube_mm)
    if center is None and sample.center_mm is not None:
        return sample.center_mm.astype(np.float64)
    if center is None:
        raise InputError(f"{sample.source} (frame {sample.frame}): no depth reading to find the hand by")
    return center
