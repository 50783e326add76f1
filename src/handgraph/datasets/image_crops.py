"""From colour samples to training batches: the square crop, its labels and its augmentation."""

from collections.abc import Mapping, Sequence
from typing import Any

import cv2
import numpy as np
import torch
from jaxtyping import Float, Int, UInt8

from handgraph.camera import MARGIN, Crop
from handgraph.datasets.boxes import keypoint_box
from handgraph.datasets.sample import Dataset, Sample
from handgraph.errors import ConfigError, InputError
from handgraph.images import to_network
from handgraph.skeleton import JOINT_NAMES


class ImageCrops:
    """A colour dataset as the training loop's `Data`: indices in, tensors with a leading batch axis out.

    dataset    any colour reader of this package
    seed       of the augmentation; a sample depends on nothing but (seed, index, draw)
    size       side of the square crop in pixels
    margin     side of the crop over the longer side of the hand's box (`Sample.box_px`, or that of the
               labelled keypoints)
    augment    turn, enlarge, shift and tint each draw anew, within:
    rotation_deg, scale, shift, tint
               largest turn to either side; largest factor of the size, either way; largest shift as a part of
               the crop's side; largest relative change of each colour channel's gain

    Left hands are mirrored in, here as everywhere; a hand whose side is unknown counts as a right one.
    """

    endless = False

    def __init__(
        self,
        dataset: Dataset,
        seed: int = 0,
        *,
        size: int = 128,
        margin: float = MARGIN,
        augment: bool = True,
        rotation_deg: float = 30.0,
        scale: float = 1.25,
        shift: float = 0.1,
        tint: float = 0.2,
    ) -> None:
        for name, value, good, expected in (
            ("size", size, size >= 8, "at least 8 pixels"),
            ("margin", margin, margin > 0, "more than 0"),
            ("rotation_deg", rotation_deg, 0 <= rotation_deg <= 180, "0 to 180"),
            ("scale", scale, scale >= 1, "a factor of 1 or more"),
            ("shift", shift, 0 <= shift < 1, "a part of the side, 0 to 1"),
            ("tint", tint, 0 <= tint < 1, "0 to 1"),
        ):
            if not good:
                raise ConfigError(f"crop {name} {value}: expected {expected}")
        self.dataset, self.seed, self.size, self.margin, self.augment = dataset, seed, size, margin, augment
        self.rotation_deg, self.scale, self.shift, self.tint = rotation_deg, scale, shift, tint

    def __len__(self) -> int:
        return len(self.dataset)

    def batch(
        self, indices: Int[np.ndarray, " b"] | Sequence[int], draws: Int[np.ndarray, " b"] | int = 0
    ) -> dict[str, Any]:
        """The samples of these indices as a `colour_batch`; another draw, another augmentation."""
        draws = np.broadcast_to(np.asarray(draws), (len(indices),))
        images, labels = [], []
        for index, draw in zip(indices, draws, strict=True):
            sample = self.dataset[int(index)]
            if sample.image is None:
                raise InputError(f"{sample.source} (frame {sample.frame}): no colour image to crop")
            random = np.random.default_rng([self.seed, int(index), int(draw)])
            crop = self._crop(sample, random)
            image = crop.apply_image(sample.image)
            images.append(self._tinted(image, random) if self.augment else image)
            labels.append(crop_labels(sample, crop))
        return colour_batch(np.stack(images), labels)

    def _crop(self, sample: Sample, random: np.random.Generator) -> Crop:
        box = keypoint_box(sample.keypoints_px) if sample.box_px is None else sample.box_px
        if box is None:
            raise InputError(
                f"{sample.source} (frame {sample.frame}): too few keypoints are labelled to find a box"
            )
        x, y, w, h = (float(value) for value in box)
        side, rotation = self.margin * max(w, h), 0.0
        center = np.array([x + (w - 1) / 2, y + (h - 1) / 2])
        if self.augment:
            rotation = np.deg2rad(random.uniform(-self.rotation_deg, self.rotation_deg))
            side *= self.scale ** random.uniform(-1, 1)
            center = center + side * random.uniform(-self.shift, self.shift, 2)
        corner = center - (side - 1) / 2
        return Crop.window(
            (float(corner[0]), float(corner[1]), side, side),
            self.size,
            sample.camera,
            mirrored=sample.side == "left",
            rotation_rad=float(rotation),
        )

    def _tinted(self, image: UInt8[np.ndarray, "s s 3"], random: np.random.Generator) -> np.ndarray:
        gains = (1 + self.tint * random.uniform(-1, 1)) * (1 + self.tint / 2 * random.uniform(-1, 1, 3))
        table = np.clip(np.rint(np.arange(256)[:, None] * gains), 0, 255).astype(np.uint8)
        return np.stack([table[:, channel][image[..., channel]] for channel in range(3)], axis=-1)


def crop_labels(sample: Sample, crop: Crop) -> dict[str, Any]:
    """One sample's labels in its crop, under the names of `colour_batch`, in canonical joint order."""
    keypoints = sample.order.to_canonical(sample.keypoints_px.astype(np.float64))
    uv = crop.crop_px(keypoints) / (crop.size - 1)
    missing = np.full((len(JOINT_NAMES), 3), np.nan)
    joints = missing if sample.joints_mm is None else sample.order.to_canonical(sample.joints_mm)
    in_crop, intrinsic = missing, np.full((3, 3), np.nan)
    if crop.camera is not None:
        in_crop, intrinsic = joints @ crop.crop_from_camera.T, crop.crop_camera
    return {
        "uv": uv,
        "known": np.isfinite(uv).all(axis=-1),
        "relative_mm": in_crop - in_crop[:1],
        "wrist_mm": in_crop[0],
        "crop_camera": intrinsic,
        "joints_mm": joints,
        "pose": np.full(48, np.nan) if sample.pose is None else pose_in_crop(sample.pose, crop),
        "shape": np.full(10, np.nan) if sample.shape is None else sample.shape,
        "crops": crop,
    }


def pose_in_crop(pose: Float[np.ndarray, " 48"], crop: Crop) -> Float[np.ndarray, " 48"]:
    """A hand's pose (axis-angle, camera frame) as that of the right hand seen in the crop.

    Mirroring x turns a rotation vector (x, y, z) into (x, -y, -z); then the crop's turn goes before the
    whole hand's rotation.
    """
    turned = np.asarray(pose, dtype=np.float64).reshape(16, 3).copy()
    frame = crop.crop_from_camera
    if crop.mirrored:
        turned *= [1.0, -1.0, -1.0]
        frame = frame @ np.diag([-1.0, 1.0, 1.0])
    turned[0] = cv2.Rodrigues(frame @ cv2.Rodrigues(turned[0])[0])[0][:, 0]
    return turned.reshape(48)


def colour_batch(images: UInt8[np.ndarray, "b s s 3"], labels: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The batch that every colour system trains on. "Crop frame" is that of `Crop.crop_from_camera`.

    image        (B, 3, S, S) float32, `images.to_network`
    uv           (B, 21, 2) float32, 0 at the crop's first pixel centre, 1 at its last; may lie outside
    known        (B, 21) bool, whether the keypoint is labelled
    relative_mm  (B, 21, 3) float32, joints minus wrist in the crop frame, NaN where unknown
    wrist_mm     (B, 3) float32, the wrist in the crop frame, NaN where unknown
    crop_camera  (B, 3, 3) float32, from the crop frame to uv; NaN without a camera
    joints_mm    (B, 21, 3) float32, camera frame as labelled, left hands not mirrored
    pose, shape  (B, 48), (B, 10) float32 of the right hand in the crop frame, NaN where unknown
    crops        list of B `Crop`
    """
    batch: dict[str, Any] = {"image": torch.from_numpy(to_network(images))}
    for name in ("uv", "known", "relative_mm", "wrist_mm", "crop_camera", "joints_mm", "pose", "shape"):
        array = np.stack([label[name] for label in labels])
        batch[name] = torch.from_numpy(array if array.dtype == np.bool_ else array.astype(np.float32))
    batch["crops"] = [label["crops"] for label in labels]
    return batch
