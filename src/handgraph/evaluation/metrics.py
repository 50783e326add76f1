"""Errors of predicted hands: streaming, with unit and alignment in the name of every figure.

| class | figures |
|---|---|
| `JointErrors` | mean error of 3D joints (MPJPE, "EPE [mm]"), median, AUC, success, PCK in mm |
| `PixelErrors` | mean error of 2D keypoints in px ("EPE [px]"), PCK and mPCK relative to a size, PCKh |
| `MeshErrors` | mean error of vertices (MPVPE), F-scores |
| `ShapeErrors` | MSE of the shape parameters, W-error and L-error |
| `ClassErrors` | accuracy, precision and recall of a classification |

Each has `update` (add a batch), `merge` (add what another instance has seen, in another process for example)
and `compute` (the figures, as JSON-ready values).

No alignment is implied: `mpjpe_mm` compares points of the camera frame as they are, `root_relative_…` after
moving both roots to the origin, `pa_…` after the best similarity (rotation, translation, scale) of the hand.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, get_args

import numpy as np
from jaxtyping import Bool, Float, Int

from handgraph.errors import InputError
from handgraph.skeleton import JOINT_NAMES

ALIGNMENTS = {
    "": "none: points in the camera frame as they are",
    "root_relative_": "prediction moved so that its root lies on the true root",
    "pa_": "Procrustes: prediction moved, turned and scaled to fit the truth best, never mirrored",
}
SUCCESS_THRESHOLDS_MM = tuple(range(5, 85, 5))
RESAMPLES = 1000

PCK_CROP_THRESHOLDS = tuple(step / 100 for step in range(1, 11))
"""Kong's thresholds, parts of the crop's side: mPCK is the mean over the first six (dissertation 3.5, 5.4) or
over all ten (table 4.1)."""
CROP_OVER_BOX = 2.2
"""Side of Kong's square crop, in which those thresholds are measured, over the longer side of the hand's box
(dissertation 3.5.1, 4.5.1, 5.4)."""
F_THRESHOLDS_MM = (5.0, 15.0)
"""FreiHAND's."""
PCKH_THRESHOLDS = (0.1, 0.2, 0.3, 0.5, 0.7)
"""Parts of the head's size; 0.7 is that of Simon et al. (2017) for the MPII and NZSL hands."""
Size = Literal["hand box", "crop", "head"]
_SIZE_JOINTS = ("index_mcp", "ring_mcp", "wrist", "middle_tip")


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
        worst = _worst(errors, known)
        result["success"] = {str(t): float((worst <= t).mean()) for t in SUCCESS_THRESHOLDS_MM}
        result["pck"] = {str(t): float((errors[known] <= t).mean()) for t in SUCCESS_THRESHOLDS_MM}
        result["alignment"] = {prefix or "unprefixed": words for prefix, words in ALIGNMENTS.items()}
        return result


class PixelErrors:
    """Distances between predicted and true 2D keypoints, in pixels and relative to a size.

    `size` says what the sizes given to `update` are, since PCK means nothing without it:
    hand box   the longer side of the box around the true keypoints
    crop       the side of the papers' square crop, 2.2 hand boxes
    head       the head's size, as MPII gives it
    """

    def __init__(self, size: Size = "hand box") -> None:
        if size not in get_args(Size):
            raise InputError(f"size {size!r}: expected one of {', '.join(get_args(Size))}")
        self.size = size
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
        """Add frames; `size_px` are the lengths that PCK measures in, of the kind that `size` says.

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
        if other.size != self.size:
            raise InputError(f"errors relative to the {other.size} cannot join those to the {self.size}")
        self._errors_px.extend(other._errors_px)
        self._relative.extend(other._relative)
        return self

    def errors_px(self) -> Float[np.ndarray, "b n"]:
        """Every keypoint's error in pixels, NaN where the truth is unknown."""
        return np.concatenate(self._errors_px)

    def relative_errors(self) -> Float[np.ndarray, "b n"]:
        """The same over the sizes."""
        return np.concatenate(self._relative)

    def compute(self, thresholds: Sequence[float] = (0.05, 0.1, 0.15, 0.2), seed: int = 0) -> dict[str, Any]:
        """The measures, over the known keypoints of all frames.

        `epe_px`, the mean distance, and its `epe_px_interval95`; `median_px`; `pck`, by threshold the part of
        the keypoints at most that fraction of the size off; `relative_error`, the mean fraction; `pck_size`,
        which size that is. For hand box and crop also `pck_crop`, PCK at 0.01 … 0.1 of the papers' crop, and
        its means `mpck_crop_06` (0.01 … 0.06) and `mpck_crop_10`; for head sizes `pckh`.
        """
        if not len(self):
            raise InputError("no frames to measure: call update first")
        errors, relative = np.concatenate(self._errors_px), np.concatenate(self._relative)
        known = relative[np.isfinite(relative)]
        result = {
            "n": len(self),
            "epe_px": float(np.nanmean(errors, dtype=np.float64)),
            "epe_px_interval95": bootstrap_interval(errors, seed),
            "median_px": float(np.nanmedian(errors)),
            "relative_error": float(known.mean(dtype=np.float64)),
            "pck": _shares(known, thresholds),
            "pck_size": self.size,
        }
        if self.size == "head":
            return result | {"pckh": _shares(known, PCKH_THRESHOLDS)}
        of_crop = known if self.size == "crop" else known / CROP_OVER_BOX
        shares = _shares(of_crop, PCK_CROP_THRESHOLDS)
        curve = list(shares.values())
        result["pck_crop"] = shares
        result["mpck_crop_06"] = float(np.mean(curve[:6]))
        result["mpck_crop_10"] = float(np.mean(curve))
        return result


class MeshErrors:
    """Distances between predicted and true vertices of the same mesh: MPVPE, mean per-vertex position error.

    A frame's mean is kept, not its vertices. With `f_scores` the surfaces are compared as point clouds too,
    as FreiHAND's evaluation does (some milliseconds a frame).
    """

    def __init__(self, *, f_scores: bool = False) -> None:
        self.f_scores = f_scores
        self._f: dict[str, list[Float[np.ndarray, "b t"]]] = {"": [], "pa_": []}
        self._means: dict[str, list[Float[np.ndarray, " b"]]] = {prefix: [] for prefix in ALIGNMENTS}

    def __len__(self) -> int:
        return sum(len(block) for block in self._means[""])

    def update(
        self,
        predicted_mm: Float[np.ndarray, "b v 3"],
        true_mm: Float[np.ndarray, "b v 3"],
        predicted_root_mm: Float[np.ndarray, "b 3"],
        true_root_mm: Float[np.ndarray, "b 3"],
    ) -> MeshErrors:
        """Add frames: vertices, and the root joint (the wrist) that root-relative errors put at the origin.

        Raises InputError for shapes that differ and for numbers that are not finite.
        """
        predicted, true = _paired(predicted_mm, true_mm, 3)
        roots = np.asarray(true_root_mm, np.float64) - np.asarray(predicted_root_mm, np.float64)
        if roots.shape != (len(true), 3) or not np.isfinite(true).all() or not np.isfinite(roots).all():
            raise InputError(
                f"vertices {true.shape} with roots {roots.shape}: expected finite (frames, vertices, 3) "
                "and (frames, 3)"
            )
        moved = {
            "": predicted,
            "root_relative_": predicted + roots[:, None],
            "pa_": procrustes(predicted, true),
        }
        for prefix, points in moved.items():
            self._means[prefix].append(np.linalg.norm(points - true, axis=-1).mean(axis=1))
            if self.f_scores and prefix in self._f:
                scores = [f_score(p, t, F_THRESHOLDS_MM) for p, t in zip(points, true, strict=True)]
                self._f[prefix].append(np.stack(scores))
        return self

    def merge(self, other: MeshErrors) -> MeshErrors:
        """Add the frames that another instance has seen."""
        if other.f_scores != self.f_scores:
            raise InputError("errors with F-scores cannot join errors without")
        for prefix, blocks in other._means.items():
            self._means[prefix].extend(blocks)
        for prefix, scores in other._f.items():
            self._f[prefix].extend(scores)
        return self

    def compute(self, seed: int = 0) -> dict[str, Any]:
        """`mpvpe_mm`, `root_relative_mpvpe_mm`, `pa_mpvpe_mm`, each with `…_interval95`, `n`, and `alignment`
        with the prefixes in words; with F-scores `f_score` and `pa_f_score`, by threshold in mm."""
        if not len(self):
            raise InputError("no frames to measure: call update first")
        result: dict[str, Any] = {"n": len(self)}
        for prefix, blocks in self._means.items():
            means = np.concatenate(blocks)
            result[f"{prefix}mpvpe_mm"] = float(means.mean())
            result[f"{prefix}mpvpe_mm_interval95"] = bootstrap_interval(means[:, None], seed)
        if self.f_scores:
            for prefix, scores in self._f.items():
                mean = np.concatenate(scores).mean(axis=0)
                result[f"{prefix}f_score"] = {
                    f"{t:g}": float(value) for t, value in zip(F_THRESHOLDS_MM, mean, strict=True)
                }
        result["alignment"] = {prefix or "unprefixed": words for prefix, words in ALIGNMENTS.items()}
        return result


class ShapeErrors:
    """How far a calibrated hand is from the subject's: parameters, width, length (dissertation 6.4.1)."""

    def __init__(self) -> None:
        self._squares: list[Float[np.ndarray, " b"]] = []
        self._sizes: list[Float[np.ndarray, "b 2"]] = []

    def __len__(self) -> int:
        return sum(len(block) for block in self._squares)

    def update(
        self,
        predicted_shape: Float[np.ndarray, "b k"],
        true_shape: Float[np.ndarray, "b k"],
        predicted_flat_mm: Float[np.ndarray, "b 21 3"],
        true_flat_mm: Float[np.ndarray, "b 21 3"],
    ) -> ShapeErrors:
        """Add subjects: shape parameters, and the joints of either hand at the flat pose.

        Raises InputError for shapes that differ and for numbers that are not finite.
        """
        shapes = [np.asarray(shape, np.float64) for shape in (predicted_shape, true_shape)]
        joints = [np.asarray(flat, np.float64) for flat in (predicted_flat_mm, true_flat_mm)]
        fits = shapes[0].shape == shapes[1].shape and shapes[0].ndim == 2
        fits = fits and all(flat.shape == (len(shapes[0]), 21, 3) for flat in joints)
        if not fits or not all(np.isfinite(array).all() for array in (*shapes, *joints)):
            found = ", ".join(str(array.shape) for array in (*shapes, *joints))
            raise InputError(f"arrays {found}: expected finite (b, k) twice and (b, 21, 3) twice")
        self._squares.append(np.square(shapes[0] - shapes[1]).mean(axis=1))
        self._sizes.append(np.abs(hand_size(joints[0]) - hand_size(joints[1])))
        return self

    def merge(self, other: ShapeErrors) -> ShapeErrors:
        """Add the subjects that another instance has seen."""
        self._squares.extend(other._squares)
        self._sizes.extend(other._sizes)
        return self

    def compute(self) -> dict[str, Any]:
        """`beta_mse`, the mean squared difference of the parameters; `w_error_mm` and `l_error_mm`, the mean
        absolute differences of width and length; `n` subjects."""
        if not len(self):
            raise InputError("no subjects to measure: call update first")
        width, length = np.concatenate(self._sizes).mean(axis=0)
        return {
            "n": len(self),
            "beta_mse": float(np.concatenate(self._squares).mean()),
            "w_error_mm": float(width),
            "l_error_mm": float(length),
        }


class ClassErrors:
    """A classification of joints into blocks, as in the hybrid paper: counts of true and predicted."""

    def __init__(self, classes: int) -> None:
        self.classes = classes
        self.counts: Int[np.ndarray, "c c"] = np.zeros((classes, classes), dtype=np.int64)
        """[true class, predicted class]."""

    def __len__(self) -> int:
        return int(self.counts.sum())

    def update(self, predicted: Int[np.ndarray, "*n"], true: Int[np.ndarray, "*m"]) -> ClassErrors:
        """Add decisions, arrays of one shape. Raises InputError for other classes and other numbers."""
        guess, truth = np.asarray(predicted), np.asarray(true)
        if guess.shape != truth.shape or guess.dtype.kind not in "iu" or truth.dtype.kind not in "iu":
            raise InputError(f"classes {guess.shape} and {truth.shape}: expected whole numbers of one shape")
        both = np.stack([truth.ravel(), guess.ravel()])
        if both.size and (both.min() < 0 or both.max() >= self.classes):
            raise InputError(f"classes from {both.min()} to {both.max()}: expected 0 to {self.classes - 1}")
        np.add.at(self.counts, (both[0], both[1]), 1)
        return self

    def merge(self, other: ClassErrors) -> ClassErrors:
        """Add the decisions that another instance has seen."""
        if other.classes != self.classes:
            raise InputError(f"{other.classes} classes cannot join {self.classes}")
        self.counts += other.counts
        return self

    def compute(self) -> dict[str, Any]:
        """`accuracy`; `macro_precision` and `macro_recall`, the plain means over the classes that occur, true
        or predicted, 0 where a class is never predicted or never true; `n` decisions."""
        if not len(self):
            raise InputError("nothing to measure: call update first")
        right, predicted, true = np.diag(self.counts), self.counts.sum(axis=0), self.counts.sum(axis=1)
        occurs = (predicted + true) > 0
        return {
            "n": len(self),
            "accuracy": float(right.sum() / len(self)),
            "macro_precision": float((right / np.maximum(predicted, 1))[occurs].mean()),
            "macro_recall": float((right / np.maximum(true, 1))[occurs].mean()),
        }


def hand_size(flat_mm: Float[np.ndarray, "*b 21 3"]) -> Float[np.ndarray, "*b 2"]:
    """Width, index to ring knuckle, and length, wrist to middle tip, of a hand at the flat pose, in its unit
    (dissertation 6.4.1)."""
    flat = np.asarray(flat_mm)
    index, ring, wrist, tip = (flat[..., JOINT_NAMES.index(name), :] for name in _SIZE_JOINTS)
    return np.stack([np.linalg.norm(index - ring, axis=-1), np.linalg.norm(wrist - tip, axis=-1)], axis=-1)


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


def f_score(
    predicted_mm: Float[np.ndarray, "v 3"], true_mm: Float[np.ndarray, "w 3"], thresholds: Sequence[float]
) -> Float[np.ndarray, " t"]:
    """How well one point cloud covers another (Knapitsch et al. 2017), by threshold: the harmonic mean of the
    parts of the predicted points near a true one and of the true points near a predicted one."""
    # |p - t|² = |p|² - 2 p·t + |t|² as one product, about a common middle so that little is lost to rounding.
    p, t = (np.asarray(points, np.float64) - np.mean(true_mm, axis=0) for points in (predicted_mm, true_mm))
    ones = np.ones((max(len(p), len(t)), 1))
    left = np.concatenate([p, np.square(p).sum(axis=1, keepdims=True), ones[: len(p)]], axis=1)
    right = np.concatenate([-2 * t, ones[: len(t)], np.square(t).sum(axis=1, keepdims=True)], axis=1)
    squared = left @ right.T
    near = [np.sqrt(np.maximum(squared.min(axis=axis), 0)) for axis in (1, 0)]
    scores = []
    for threshold in thresholds:
        precision, recall = (float((distances <= threshold).mean()) for distances in near)
        scores.append(2 * precision * recall / (precision + recall) if precision + recall else 0.0)
    return np.array(scores)


def area_under_pck(errors: Float[np.ndarray, "b n"], low: float, high: float, steps: int = 100) -> float:
    """Mean height of the curve "fraction of joints at most x off" for x from `low` to `high`.

    By the trapezoid rule on `steps` equal intervals, divided by the range: 1 means that every joint is within
    `low`. NaN errors count nowhere.
    """
    known = np.sort(errors[np.isfinite(errors)])
    thresholds = np.linspace(low, high, steps + 1)
    pck = np.searchsorted(known, thresholds, side="right") / len(known)
    return float((pck[:-1] + pck[1:]).mean() / 2)


def area_under_curve(
    thresholds: Float[np.ndarray, " n"], pck: Float[np.ndarray, " n"], low: float, high: float
) -> float:
    """Mean height between `low` and `high` of a curve given by points, as papers publish theirs: by the
    trapezoid rule on straight lines between the points, beyond the first and last their heights held.

    Raises InputError where the thresholds do not rise.
    """
    thresholds, pck = np.asarray(thresholds, np.float64), np.asarray(pck, np.float64)
    if thresholds.shape != pck.shape or thresholds.ndim != 1 or not (np.diff(thresholds) > 0).all():
        raise InputError(
            f"curve of {thresholds.shape} thresholds and {pck.shape} heights: expected rising ones"
        )
    at = np.unique(np.concatenate([thresholds[(thresholds > low) & (thresholds < high)], [low, high]]))
    height = np.interp(at, thresholds, pck)
    return float(((height[:-1] + height[1:]) / 2 * np.diff(at)).sum() / (high - low))


def pck_curve(
    errors: Float[np.ndarray, "b n"], thresholds: Float[np.ndarray, " t"]
) -> Float[np.ndarray, " t"]:
    """The part of the known joints that is at most so far off, for each threshold."""
    known = np.sort(errors[np.isfinite(errors)])
    return np.searchsorted(known, thresholds, side="right") / max(len(known), 1)


def success_curve(
    errors: Float[np.ndarray, "b n"], thresholds: Float[np.ndarray, " t"]
) -> Float[np.ndarray, " t"]:
    """The part of the frames whose worst known joint is at most so far off, for each threshold."""
    return pck_curve(_worst(errors, np.isfinite(errors))[:, None], thresholds)


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


def _worst(errors: Float[np.ndarray, "b n"], known: Bool[np.ndarray, "b n"]) -> Float[np.ndarray, " b"]:
    return np.where(known, errors, -np.inf).max(axis=1)


def _shares(errors: Float[np.ndarray, " n"], thresholds: Sequence[float]) -> dict[str, float]:
    return {f"{t:g}": float((errors <= t).mean()) for t in thresholds}


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
