"""What a system's answers to a batch are measured by: the same in training's validation and in `evaluate`."""

from collections.abc import Mapping
from dataclasses import replace
from inspect import signature
from types import ModuleType
from typing import Any

import numpy as np

from handgraph.camera import PinholeCamera
from handgraph.errors import ConfigError
from handgraph.evaluation.metrics import JointErrors, PixelErrors
from handgraph.placement import bone_lengths


def inputs(system: ModuleType, batch: Mapping[str, Any]) -> tuple[Any, ...]:
    """The network's arguments for a batch: the image, unless the system says otherwise."""
    return system.inputs(batch) if hasattr(system, "inputs") else (batch["image"],)


# For samples without their camera, whose answers are not counted.
_ANY = PinholeCamera(1000.0, 1000.0, 0.0, 0.0)


class Measures:
    """Errors of one system over batches, of every kind that it and the data allow.

    A system with `joints_mm(output, crops)` is measured in the camera frame, by the samples that have their
    camera. One with `relative_mm(output, crops, scale_mm)` is measured about the wrist; where it answers
    in hand lengths, the truth lends the length of its `SCALE_BONE`, as its paper does, and once more the
    lengths of all bones, by `unit_mm`. One with `keypoints_px(output, crops)` is measured in the image, in
    pixels and as a part of the longer side of the true keypoints' box.

    `optimise` says whether 3D is laid on the 2D keypoints, or on a depth crop's surface, by systems that can;
    None is what is their paper's. Raises ConfigError for another system.
    """

    def __init__(self, system: ModuleType, optimise: bool | None = None) -> None:
        self.system = system
        self.joints, self.pixels = JointErrors(), PixelErrors()
        self.all_bones = JointErrors()
        self.options = {} if optimise is None else {"optimise": optimise}
        answer = getattr(system, "relative_mm", None) or getattr(system, "joints_mm", None)
        if self.options and (answer is None or "optimise" not in signature(answer).parameters):
            raise ConfigError(
                f"optimise: {system.__name__.rpartition('.')[2]} lays no 3D hand on what it sees"
            )
        self.root_relative = not hasattr(system, "joints_mm")

    def __len__(self) -> int:
        return max(len(self.joints), len(self.pixels))

    def update(self, output: Any, batch: Mapping[str, Any]) -> None:
        """Add a batch: the module's output and what `Data.batch` gave.

        Samples without labels count nothing.
        """
        system, crops = self.system, batch["crops"]
        true_mm = _array(batch["joints_mm"]) if "joints_mm" in batch else None
        if true_mm is not None and hasattr(system, "joints_mm"):
            seen = np.array([crop.camera is not None for crop in crops])
            usable = np.isfinite(true_mm).all(axis=2).any(axis=1) & seen
            if usable.any():
                placed = [crop if crop.camera else replace(crop, camera=_ANY) for crop in crops]
                images = (batch["image"],) if self.options else ()
                seen_mm = system.joints_mm(output, placed, *images, **self.options)
                self.joints.update(seen_mm[usable], true_mm[usable])
        elif true_mm is not None and hasattr(system, "relative_mm"):
            true_mm = true_mm - true_mm[:, :1]
            scale_mm = None
            if hasattr(system, "SCALE_BONE"):
                near, far = system.SCALE_BONE
                scale_mm = np.linalg.norm(true_mm[:, far] - true_mm[:, near], axis=-1)
            predicted = system.relative_mm(output, crops, scale_mm, **self.options)
            usable = np.isfinite(true_mm).all(axis=(1, 2))
            if usable.any():
                self.joints.update(predicted[usable], true_mm[usable])
                if scale_mm is not None and hasattr(system, "unit_mm"):
                    other = system.unit_mm(bone_lengths(true_mm)) / np.maximum(scale_mm, 1e-9)
                    self.all_bones.update((predicted * other[:, None, None])[usable], true_mm[usable])
        if "uv" in batch and hasattr(system, "keypoints_px"):
            known = _array(batch["known"]).astype(bool)
            true_px = np.stack(
                [
                    crop.image_px(uv * (crop.size - 1))
                    for crop, uv in zip(crops, _array(batch["uv"]), strict=True)
                ]
            )
            true_px[~known] = np.nan
            usable = known.sum(axis=1) >= 2
            if usable.any():
                truth = true_px[usable]
                sides = (np.nanmax(truth, axis=1) - np.nanmin(truth, axis=1)).max(axis=1)
                seen = system.keypoints_px(output, crops, **self.options)
                self.pixels.update(seen[usable], truth, np.maximum(sides, 1.0))

    def compute(self) -> dict[str, Any]:
        """The figures of `JointErrors.compute` and `PixelErrors.compute`, and `alignment` for the former.

        `scaled_by_all_bones_mpjpe_mm`, with its interval, is of answers in hand lengths that all true bones
        of the hand give their size; all other figures in mm are by one bone.
        """
        result: dict[str, Any] = {}
        if len(self.pixels):
            result |= self.pixels.compute()
        if len(self.joints):
            in_space = self.joints.compute()
            if "pck" in result and "pck" in in_space:  # `pck` is that of the keypoints where there are any
                in_space["pck_mm"] = in_space.pop("pck")
            result |= in_space
            result["alignment"] = "wrist" if self.root_relative else "none"
        if len(self.all_bones):
            figures = self.all_bones.compute()
            for name in ("mpjpe_mm", "mpjpe_mm_interval95", "median_mm"):
                result[f"scaled_by_all_bones_{name}"] = figures[name]
        return result


def _array(values: Any) -> np.ndarray:
    return np.asarray(values.cpu() if hasattr(values, "cpu") else values, dtype=np.float64)
