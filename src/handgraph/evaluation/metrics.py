"""Errors of predicted joints: streaming, in millimetres or pixels, with the alignment in the name.

No alignment is implied: `mpjpe_mm` compares points of the camera frame as they are, `root_relative_…` after
moving both roots to the origin, `pa_…` after the best similarity (rotation, translation, scale) of the hand.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Float

from handgraph.errors import InputError

ALIGNMENTS = {
    "": "none: points in the camera frame as they are",
    "root_relative_": "prediction moved so that its root lies on the true root",
    "pa_": "Procrustes: prediction moved, turned and scaled to fit the truth best, never mirrored",
}
SUCCESS_THRESHOLDS_MM = tuple(range(5, 85, 5))
RESAMPLES = 1000


class JointErrors:
    """Distances between predicted and true 3D joints, over as many frames as `update` is given.

    A true joint that is NaN is unknown and counts nowhere. Per frame and joint three floats are kept, since
    medians and intervals need them all. `root` is the index of the joint that root-relative errors put at the
    origin (0 is the wrist of the canonical order).
    """

    def __init__(self, root: int = 0) -> None:
        self.root = root
        self._errors: dict[str, list[Float[np.ndarray, "b n"]]] = {prefix: [] for prefix in ALIGNMENTS}

    def __len__(self) -> int:
        return sum(len(block) for block in self._errors[""])

    def update(
        self, predicted_mm: Float[np.ndarray, "b n 3"], true_mm: Float[np.ndarray, "b n 3"]
    ) -> JointErrors:
        """Add frames. Raises InputError for shapes that differ, predictions that are not finite, or a frame
        without any known joint."""
        predicted, true = _paired(predicted_mm, true_mm, 3)
        root = slice(self.root, self.root + 1)
        aligned = {
            "": predicted,
            "root_relative_": predicted + (true[:, root] - predicted[:, root]),
            "pa_": procrustes(predicted, true),
        }
        for prefix, points in aligned.items():
            self._errors[prefix].append(np.linalg.norm(points - true, axis=-1).astype(np.float32))
        return self

    def merge(self, other: JointErrors) -> JointErrors:
        """Add the frames that another instance has seen, in another process for example."""
        if other.root != self.root:
            raise InputError(
                f"errors relative to joint {other.root} cannot join those relative to {self.root}"
            )
        for prefix, blocks in other._errors.items():
            self._errors[prefix].extend(blocks)
        return self

    def errors_mm(self, alignment: str = "") -> Float[np.ndarray, "b n"]:
        """All distances so far under one of `ALIGNMENTS`; NaN where the truth is unknown."""
        if not len(self):
            raise InputError("no frames to measure: call update first")
        return np.concatenate(self._errors[alignment])

    def compute(self, seed: int = 0) -> dict[str, Any]:
        """The measures, as JSON-ready values.

        For each alignment's prefix ("", "root_relative_", "pa_"): `…mpjpe_mm`, the mean over all known joints
        of all frames; `…mpjpe_mm_interval95`, its bootstrap interval over frames; `…median_mm`; `…auc` and
        `…auc_20_50`, the normalised areas under the 3D PCK curve from 0 and from 20 to 50 mm. They are None
        where the root, which they need, is never known.
        Unaligned only: `per_joint_mm`; `success`, by threshold the fraction of frames whose worst joint is at
        most so many mm off; `pck`, likewise the fraction of joints. `alignment` says the prefixes in words.
        """
        result: dict[str, Any] = {"n": len(self)}
        for prefix in ALIGNMENTS:
            errors = self.errors_mm(prefix)
            some = bool(np.isfinite(errors).any())
            result[f"{prefix}mpjpe_mm"] = float(np.nanmean(errors, dtype=np.float64)) if some else None
            result[f"{prefix}mpjpe_mm_interval95"] = bootstrap_interval(errors, seed) if some else None
            result[f"{prefix}median_mm"] = float(np.nanmedian(errors)) if some else None
            result[f"{prefix}auc"] = area_under_pck(errors, 0.0, 50.0) if some else None
            result[f"{prefix}auc_20_50"] = area_under_pck(errors, 20.0, 50.0) if some else None
        errors = self.errors_mm()
        known = np.isfinite(errors)
        counts = known.sum(axis=0)
        sums = np.where(known, errors, 0).sum(axis=0, dtype=np.float64)
        result["per_joint_mm"] = [
            float(total / count) if count else None for total, count in zip(sums, counts, strict=True)
        ]
        worst = np.where(known, errors, -np.inf).max(axis=1)
        result["success"] = {str(t): float((worst <= t).mean()) for t in SUCCESS_THRESHOLDS_MM}
        result["pck"] = {str(t): float((errors[known] <= t).mean()) for t in SUCCESS_THRESHOLDS_MM}
        result["alignment"] = {prefix or "unprefixed": words for prefix, words in ALIGNMENTS.items()}
        return result


class PixelErrors:
    """Distances between predicted and true 2D keypoints, in pixels and relative to a size."""

    def __init__(self) -> None:
        self._errors_px: list[Float[np.ndarray, "b n"]] = []
        self._relative: list[Float[np.ndarray, "b n"]] = []

    def __len__(self) -> int:
        return sum(len(block) for block in self._errors_px)

    def update(
        self,
        predicted_px: Float[np.ndarray, "b n 2"],
        true_px: Float[np.ndarray, "b n 2"],
        size_px: Float[np.ndarray, " b"],
    ) -> PixelErrors:
        """Add frames; `size_px` is the length that PCK measures in: the longer side of the hand's box, say.

        Raises InputError as `JointErrors.update`, and for a size that is not above zero.
        """
        predicted, true = _paired(predicted_px, true_px, 2)
        size = np.asarray(size_px, dtype=np.float64)
        if size.shape != (len(true),) or not (np.isfinite(size) & (size > 0)).all():
            raise InputError(
                f"sizes of shape {size.shape}: expected {len(true)} numbers of pixels above zero"
            )
        errors = np.linalg.norm(predicted - true, axis=-1)
        self._errors_px.append(errors.astype(np.float32))
        self._relative.append((errors / size[:, None]).astype(np.float32))
        return self

    def merge(self, other: PixelErrors) -> PixelErrors:
        """Add the frames that another instance has seen."""
        self._errors_px.extend(other._errors_px)
        self._relative.extend(other._relative)
        return self

    def compute(self, thresholds: Sequence[float] = (0.05, 0.1, 0.15, 0.2), seed: int = 0) -> dict[str, Any]:
        """`epe_px`, the mean distance, and its `epe_px_interval95`; `median_px`; `pck`, by threshold the part
        of the known keypoints at most that fraction of the size off; `relative_error`, the mean fraction."""
        if not len(self):
            raise InputError("no frames to measure: call update first")
        errors, relative = np.concatenate(self._errors_px), np.concatenate(self._relative)
        known = relative[np.isfinite(relative)]
        return {
            "n": len(self),
            "epe_px": float(np.nanmean(errors, dtype=np.float64)),
            "epe_px_interval95": bootstrap_interval(errors, seed),
            "median_px": float(np.nanmedian(errors)),
            "relative_error": float(known.mean(dtype=np.float64)),
            "pck": {f"{t:g}": float((known <= t).mean()) for t in thresholds},
        }


def procrustes(
    predicted: Float[np.ndarray, "b n 3"], true: Float[np.ndarray, "b n 3"]
) -> Float[np.ndarray, "b n 3"]:
    """`predicted` under the rotation, translation and scale that bring it closest to `true` (least squares).

    The closed form by singular value decomposition (Umeyama 1991). A mirror image is never used: where it
    would fit better, the direction of least variance is turned over. Joints whose truth is NaN take no part
    in the fit and are moved along.
    """
    known = np.isfinite(true).all(axis=-1, keepdims=True)
    count = known.sum(axis=1, keepdims=True)
    p, t = (np.where(known, points, 0.0) for points in (predicted, true))
    p_mean, t_mean = p.sum(axis=1, keepdims=True) / count, t.sum(axis=1, keepdims=True) / count
    p, t = (np.where(known, points, 0.0) for points in (p - p_mean, t - t_mean))
    u, s, vt = np.linalg.svd(np.swapaxes(p, 1, 2) @ t)
    side = np.sign(np.linalg.det(u @ vt))
    s[:, 2] *= side
    u[:, :, 2] *= side[:, None]
    rotation = u @ vt  # of row vectors: p @ rotation
    variance = np.square(p).sum(axis=(1, 2))
    scale = s.sum(axis=1) / np.where(variance > 0, variance, 1.0)
    return scale[:, None, None] * ((predicted - p_mean) @ rotation) + t_mean


def area_under_pck(errors: Float[np.ndarray, "b n"], low: float, high: float, steps: int = 100) -> float:
    """Mean height of the curve "fraction of joints at most x off" for x from `low` to `high`.

    By the trapezoid rule on `steps` equal intervals, divided by the range: 1 means that every joint is within
    `low`. NaN errors count nowhere.
    """
    known = np.sort(errors[np.isfinite(errors)])
    thresholds = np.linspace(low, high, steps + 1)
    pck = np.searchsorted(known, thresholds, side="right") / len(known)
    return float((pck[:-1] + pck[1:]).mean() / 2)


def bootstrap_interval(errors: Float[np.ndarray, "b n"], seed: int = 0) -> list[float]:
    """95 % interval of the mean error. Whole frames are redrawn, since the joints of a frame err together."""
    errors = errors[np.isfinite(errors).any(axis=1)]
    known = np.isfinite(errors)
    sums, counts = np.where(known, errors, 0).sum(axis=1, dtype=np.float64), known.sum(axis=1)
    random, frames = np.random.default_rng(seed), len(errors)
    at_once = max(1, 2_000_000 // frames)
    means = []
    for start in range(0, RESAMPLES, at_once):
        drawn = random.integers(frames, size=(min(at_once, RESAMPLES - start), frames))
        means.append(sums[drawn].sum(axis=1) / counts[drawn].sum(axis=1))
    low, high = np.percentile(np.concatenate(means), [2.5, 97.5])
    return [float(low), float(high)]


def _paired(predicted: Any, true: Any, axes: int) -> tuple[np.ndarray, np.ndarray]:
    predicted, true = np.asarray(predicted, dtype=np.float64), np.asarray(true, dtype=np.float64)
    if predicted.shape != true.shape or predicted.ndim != 3 or predicted.shape[2] != axes:
        raise InputError(
            f"predictions {predicted.shape} and truth {true.shape}: expected both (frames, joints, {axes})"
        )
    if not np.isfinite(predicted).all():
        frame = int(np.argwhere(~np.isfinite(predicted))[0, 0])
        raise InputError(f"the prediction of frame {frame} is not finite")
    if not np.isfinite(true).all(axis=2).any(axis=1).all():
        frame = int(np.argwhere(~np.isfinite(true).all(axis=2).any(axis=1))[0, 0])
        raise InputError(f"frame {frame} has no joint whose truth is known")
    return predicted, true
