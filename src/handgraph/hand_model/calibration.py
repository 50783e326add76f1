"""Whose hand it is: one shape from several images of a person.

Kong, *Structured Learning of Hand Pose* (dissertation, section 6.3.4): a network gives each of K images a
confidence, a shape and a pose; the person's shape is the one whose meshes, in these poses, are nearest
to the K predicted meshes,

    w = softmax(c / T)                                                                              (6.6)
    min over β of Σ w_k ‖M(β, θ_k) − M(β_k, θ_k)‖_F                                                 (6.7)

For a given pose skinning is affine in β, so each norm is that of H_k^½ (β − β_k), where H_k (10 × 10) depends
on the pose alone, and all meshes together are no more than K small matrices. The problem is then a weighted
geometric median in ten dimensions, which Newton's method solves to rounding in about a millisecond.

Systems without shapes (joints in millimetres, from depth for instance) calibrate by distances within the
hand that no pose changes: `calibrate_from_joints`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float
from torch import Tensor

from ..errors import InputError
from ..skeleton import BONES, MANO
from .files import PARENTS, HandModel
from .fitting import _rig, rotations_of
from .layer import MILLIMETRES, HandLayer

TEMPERATURE = 0.33
"""T of Eq. 6.6 (section 6.4.1)."""

PALM = (0, 1, 5, 9, 13, 17)
"""Joints that no pose moves against one another."""

DISTANCES: tuple[tuple[int, int], ...] = (
    *BONES,
    *((a, b) for i, a in enumerate(PALM) for b in PALM[i + 1 :] if a != 0),
)
"""Pairs of joints whose distance the pose does not change: bones first, then the palm's other pairs."""

BIAS_MM = 2.0
"""What a system's mean distance may be wrong by even over many images."""

SCALE_ERROR = 0.02
"""And the part by which all its distances may be wrong alike, in its standard deviation."""

_LENGTH = (0, 12)  # wrist to middle fingertip
_WIDTH = (5, 13)  # index knuckle to ring knuckle


@dataclass(frozen=True, eq=False)
class Calibration:
    """A person's shape and how sure it is. Standard deviations are None where one image says nothing of them.

    The deviations say how much the images disagree. What a network gets wrong in every image alike they
    cannot know, unless `calibrate` is told (`shape_error`).
    """

    shape: Float[np.ndarray, " 10"]
    covariance: Float[np.ndarray, "10 10"] | None
    hand_length_mm: float
    """Wrist to middle fingertip at the flat pose."""
    hand_width_mm: float
    """Index knuckle to ring knuckle."""
    hand_length_sd_mm: float | None
    hand_width_sd_mm: float | None
    weights: Float[np.ndarray, " k"]
    """Of each image; their sum is 1."""
    energy: float
    """What was minimised, at its minimum: Eq. 6.7 in millimetres, or a sum of squares for distances."""

    @property
    def shape_sd(self) -> Float[np.ndarray, " 10"] | None:
        """Standard deviation of each shape coefficient."""
        return None if self.covariance is None else np.sqrt(np.diagonal(self.covariance))


def attention(
    confidence: Float[np.ndarray, " k"], temperature: float = TEMPERATURE
) -> Float[np.ndarray, " k"]:
    """Eq. 6.6: the images' weights from their confidences. Raises InputError for T that is not above 0."""
    if not temperature > 0:
        raise InputError(f"temperature is {temperature}, expected more than 0")
    scaled = _array("confidence", confidence, (None,)) / temperature
    weights = np.exp(scaled - scaled.max())
    return weights / weights.sum()


def calibrate(
    layer: HandLayer,
    shapes: np.ndarray | Tensor,
    poses: np.ndarray | Tensor,
    confidence: np.ndarray | Tensor | None = None,
    *,
    temperature: float = TEMPERATURE,
    shape_error: np.ndarray | Sequence[float] | None = None,
) -> Calibration:
    """One shape from the K shapes and poses a network predicted, Eq. 6.6-6.7.

    Args:
        layer: the hand model; poses are axis-angle as it takes them.
        shapes: (K, 10).
        poses: (K, 48).
        confidence: (K,), any real numbers; without them all images count alike ("no attention", Table 6.4).
        temperature: T of Eq. 6.6.
        shape_error: (10,) what the network is off by in every image of a person alike, root mean square:
            without it the deviations are the disagreement between the images alone, and a network that
            says the same of everybody seems sure.

    Raises:
        InputError: arrays of the wrong shape, or numbers that are not finite.
    """
    shapes = _array("shapes", shapes, (None, 10))
    poses = _array("poses", poses, (len(shapes), 48))
    weights = _weights(confidence, len(shapes), temperature)
    forms = quadratic_forms(layer, poses)
    shape = minimise(forms, shapes, weights)
    off = shapes - shape
    energy = float(weights @ _norms(forms, off))
    spread = 1 - float(weights @ weights)
    # That of the weighted mean; in ten dimensions the geometric median is nearly as efficient.
    covariance = None
    if spread > 1e-9:
        covariance = float(weights @ weights) / spread * (off.T * weights) @ off
    if shape_error is not None:
        alike = np.diag(_array("shape_error", shape_error, (10,)) ** 2)
        covariance = alike if covariance is None else covariance + alike
    return _calibration(layer, shape, covariance, weights, energy)


def calibrate_from_joints(
    layer: HandLayer,
    joints_mm: np.ndarray | Tensor,
    confidence: np.ndarray | Tensor | None = None,
    *,
    temperature: float = TEMPERATURE,
    bias_mm: float = BIAS_MM,
) -> Calibration:
    """One shape from any system's 3D joints in K images, (K, 21, 3) mm in any frame; NaN where unknown.

    Fitted are the distances of `DISTANCES`, by the images' weighted medians, which outliers do not move, with
    the shape's own spread (one) as the prior. A system that is not metric tells nothing: see `calibrate`.
    """
    joints = _array("joints_mm", joints_mm, (None, 21, 3), finite=False)
    first, second = np.transpose(DISTANCES)
    distances = np.linalg.norm(joints[:, first] - joints[:, second], axis=2)
    return _from_distances(layer, distances, confidence, temperature, bias_mm)


def calibrate_from_bones(
    layer: HandLayer,
    lengths_mm: np.ndarray | Tensor,
    confidence: np.ndarray | Tensor | None = None,
    *,
    temperature: float = TEMPERATURE,
    bias_mm: float = BIAS_MM,
) -> Calibration:
    """As `calibrate_from_joints`, from bone lengths (K, 20) in the order of `skeleton.BONES`."""
    lengths = _array("lengths_mm", lengths_mm, (None, len(BONES)), finite=False)
    distances = np.full((len(lengths), len(DISTANCES)), np.nan)
    distances[:, : len(BONES)] = lengths
    return _from_distances(layer, distances, confidence, temperature, bias_mm)


def distances_mm(
    layer: HandLayer, shape: Float[np.ndarray, " 10"], pairs: Any = DISTANCES
) -> tuple[Float[np.ndarray, " d"], Float[np.ndarray, "d 10"]]:
    """Distances of pairs of canonical joints at the flat pose, mm, and their derivatives by the shape."""
    rest, by_shape = _flat_joints(layer.model)
    first, second = np.transpose(pairs)
    apart = (rest + by_shape @ shape)[first] - (rest + by_shape @ shape)[second]
    distances = np.linalg.norm(apart, axis=1)
    return distances, np.einsum("dc,dcs->ds", apart / distances[:, None], by_shape[first] - by_shape[second])


def bone_lengths_mm(layer: HandLayer, shape: Float[np.ndarray, " 10"]) -> Float[np.ndarray, " 20"]:
    """The 20 bones of a shape, in the order of `skeleton.BONES`: metric scale for systems without it."""
    return distances_mm(layer, np.asarray(shape, np.float64), BONES)[0]


def quadratic_forms(layer: HandLayer, poses: Float[np.ndarray, "k 48"]) -> Float[np.ndarray, "k 10 10"]:
    """H_k of each pose: ‖M(β, θ_k) − M(β', θ_k)‖_F² = (β − β')ᵀ H_k (β − β'), mm²; translations apart.

    A vertex moves by Σ_j w_j (G_j S + c_j) per unit of shape, with S the shape directions at rest, G_j the
    posed frames and c_j what joint j moves by. The sums over vertices of products of w and S do not depend on
    the pose: they are made once for a model.
    """
    moments = _moments(layer.model)
    mean = layer._mean_pose.double().cpu().numpy()
    local = rotations_of((np.asarray(poses, np.float64) + mean).reshape(-1, 16, 3))
    by_joint = moments.joint_shape
    frames, rates = np.empty_like(local), np.empty((len(local), 16, 3, 10))
    frames[:, 0], rates[:, 0] = local[:, 0], by_joint[0]
    for joint in range(1, 16):
        parent = PARENTS[joint]
        frames[:, joint] = frames[:, parent] @ local[:, joint]
        rates[:, joint] = rates[:, parent] + frames[:, parent] @ (by_joint[joint] - by_joint[parent])
    moved = rates - frames @ by_joint
    count = len(local)
    # Σ_jl (G_jᵀ G_l)_mn Σ_v w_j w_l S_ma S_nb
    columns = frames.transpose(0, 2, 1, 3).reshape(count, 3, 48)
    products = columns.transpose(0, 2, 1) @ columns
    forms = (products.reshape(count, -1) @ moments.both.reshape(-1, 100)).reshape(count, 10, 10)
    # Σ_jl G_j,im c_l,ib Σ_v w_j w_l S_ma, and its transpose
    offsets = moved.transpose(0, 2, 1, 3).reshape(count, 3, 160)
    crossed = (columns.transpose(0, 2, 1) @ offsets).reshape(count, 48, 16, 10)
    mixed = np.einsum("fal,kflb->kab", moments.one, crossed, optimize=True)
    forms += mixed + mixed.transpose(0, 2, 1)
    # Σ_jl c_j·c_l Σ_v w_j w_l
    flat = moved.transpose(0, 1, 2, 3).reshape(count, 16, 30)
    blended = (moments.none @ flat).reshape(count, 48, 10)
    forms += flat.reshape(count, 48, 10).transpose(0, 2, 1) @ blended
    return forms


def minimise(
    forms: Float[np.ndarray, "k n n"], points: Float[np.ndarray, "k n"], weights: Float[np.ndarray, " k"]
) -> Float[np.ndarray, " n"]:
    """The β that minimises Σ w_k ((β − β_k)ᵀ H_k (β − β_k))^½, convex, to rounding.

    Where the minimum is at one of the points, as with two images or one of great weight, that point is
    returned exactly. Else a few reweighted normal equations, then Newton's method.
    """
    apart = points[:, None] - points
    pulls = np.einsum("jab,ijb->ija", forms, apart)
    distances = np.sqrt(np.maximum(np.einsum("ija,ija->ij", apart, pulls), 0.0))
    tiny = 1e-12 * max(float(distances.max()), 1e-12)
    factors = np.where(distances > tiny, weights / np.maximum(distances, tiny), 0.0)
    # At a point its own norm has a kink: it is the minimum if the others cannot pull it out.
    pull = np.einsum("ij,ija->ia", factors, pulls)
    least = np.einsum("ia,ia->i", pull, np.linalg.solve(forms, pull[..., None])[..., 0])
    held = least <= weights**2
    if held.any():
        return points[int(np.argmax(held))].copy()

    start = int(np.argmin((weights * distances).sum(1)))
    beta = weights @ points
    if weights @ _norms(forms, points - beta) > (weights * distances[start]).sum():
        beta = points[start] + 1e-3 * (beta - points[start])
    for _ in range(5):
        beta = _reweighted(forms, points, weights, beta, tiny)
    value = float(weights @ _norms(forms, points - beta))
    for _ in range(60):
        off = beta - points
        pulls = np.einsum("kab,kb->ka", forms, off)
        norms = np.sqrt(np.maximum(np.einsum("ka,ka->k", off, pulls), tiny**2))
        gradient = (weights / norms) @ pulls
        scaled = pulls / norms[:, None]
        hessian = np.einsum("k,kab->ab", weights / norms, forms) - (scaled.T * (weights / norms)) @ scaled
        step = -np.linalg.solve(hessian + 1e-14 * np.trace(hessian) * np.eye(len(beta)), gradient)
        decrease = -float(gradient @ step)
        if decrease <= 1e-15 * value:
            break
        length = 1.0
        while length > 1e-10:
            trial = beta + length * step
            then = float(weights @ _norms(forms, points - trial))
            if then <= value - 1e-4 * length * decrease:
                break
            length *= 0.5
        else:
            break
        beta, value = trial, then
    return beta


def _reweighted(
    forms: np.ndarray, points: np.ndarray, weights: np.ndarray, beta: np.ndarray, tiny: float
) -> np.ndarray:
    """One step of reweighted normal equations."""
    factors = weights / np.maximum(_norms(forms, points - beta), tiny)
    matrix = np.einsum("k,kab->ab", factors, forms)
    return np.linalg.solve(matrix, np.einsum("k,kab,kb->a", factors, forms, points))


def _norms(forms: Float[np.ndarray, "k n n"], off: Float[np.ndarray, "k n"]) -> Float[np.ndarray, " k"]:
    return np.sqrt(np.maximum(np.einsum("ka,kab,kb->k", off, forms, off), 0.0))


class _Moments(NamedTuple):
    """Sums over a model's vertices of products of weights w and shape directions S (mm)."""

    both: np.ndarray  # (48, 48, 10, 10): w_j w_l S_ma S_nb by (j, m), (l, n), a, b
    one: np.ndarray  # (48, 10, 16): w_j w_l S_ma by (j, m), a, l
    none: np.ndarray  # (16, 16): w_j w_l
    joint_shape: np.ndarray  # (16, 3, 10): rest joints per unit of shape


@lru_cache(maxsize=4)
def _moments(model: HandModel) -> _Moments:
    directions = MILLIMETRES * model.shapedirs
    features = np.einsum("vj,vma->vjma", model.weights, directions).reshape(len(directions), 480)
    both = (features.T @ features).reshape(48, 10, 48, 10).transpose(0, 2, 1, 3)
    return _Moments(
        np.ascontiguousarray(both),
        np.ascontiguousarray((features.T @ model.weights).reshape(48, 10, 16)),
        model.weights.T @ model.weights,
        _rig(model).joint_shape,
    )


@lru_cache(maxsize=4)
def _flat_joints(model: HandModel) -> tuple[Float[np.ndarray, "21 3"], Float[np.ndarray, "21 3 10"]]:
    """Canonical joints of the mean shape at the flat pose, mm, and per unit of shape."""
    rig, order = _rig(model), MANO.gather
    return (
        np.concatenate([rig.joints, rig.tips])[order],
        np.concatenate([rig.joint_shape, rig.tip_shape])[order],
    )


def _from_distances(
    layer: HandLayer, measured: Float[np.ndarray, "k d"], confidence: Any, temperature: float, bias_mm: float
) -> Calibration:
    """Gauss and Newton on the medians of measured distances, each as sure as its images agree."""
    weights = _weights(confidence, len(measured), temperature)
    known = np.isfinite(measured)
    if not known.any():
        raise InputError("calibration: no joint is known in any image")
    seen = known.any(0)
    medians, variances = np.zeros(len(seen)), np.full(len(seen), np.inf)
    for column in np.nonzero(seen)[0]:
        rows = known[:, column]
        values, shares = measured[rows, column], weights[rows] / weights[rows].sum()
        medians[column] = _median(values, shares)
        # The median of |normal| is 0.6745 σ; a median varies π/2 as much as a mean.
        spread = _median(np.abs(values - medians[column]), shares) / 0.6745
        variances[column] = bias_mm**2 + np.pi / 2 * spread**2 * (shares @ shares)
    beta, precision = np.zeros(10), 1 / variances
    for _ in range(50):
        lengths, by_shape = distances_mm(layer, beta)
        matrix = (by_shape.T * precision) @ by_shape + np.eye(10)
        gradient = (by_shape.T * precision) @ (lengths - medians) + beta
        step = np.linalg.solve(matrix, gradient)
        beta = beta - step
        if np.abs(step).max() < 1e-10:
            break
    covariance = np.linalg.inv(matrix)
    alike = covariance @ (by_shape.T * precision) @ (SCALE_ERROR * medians)
    covariance += np.outer(alike, alike)
    energy = float(precision[seen] @ (distances_mm(layer, beta)[0] - medians)[seen] ** 2 + beta @ beta)
    return _calibration(layer, beta, covariance, weights, energy)


def _median(values: Float[np.ndarray, " n"], weights: Float[np.ndarray, " n"]) -> float:
    """Weighted median, halfway between two values that divide the weight evenly."""
    order = np.argsort(values)
    below = np.cumsum(weights[order]) - 0.5 * weights[order]
    return float(np.interp(0.5, below, values[order]))


def _calibration(
    layer: HandLayer, shape: np.ndarray, covariance: np.ndarray | None, weights: np.ndarray, energy: float
) -> Calibration:
    (length, width), by_shape = distances_mm(layer, shape, (_LENGTH, _WIDTH))
    length_sd = width_sd = None
    if covariance is not None:
        length_sd, width_sd = (float(np.sqrt(row @ covariance @ row)) for row in by_shape)
    return Calibration(
        shape=shape,
        covariance=covariance,
        hand_length_mm=float(length),
        hand_width_mm=float(width),
        hand_length_sd_mm=length_sd,
        hand_width_sd_mm=width_sd,
        weights=weights,
        energy=energy,
    )


def _weights(confidence: Any, n: int, temperature: float) -> Float[np.ndarray, " n"]:
    if n == 0:
        raise InputError("calibration: no image to calibrate from")
    if confidence is None:
        return np.full(n, 1 / n)
    return attention(_array("confidence", confidence, (n,)), temperature)


def _array(name: str, given: Any, shape: tuple[int | None, ...], *, finite: bool = True) -> np.ndarray:
    array = given.detach().cpu().numpy() if isinstance(given, Tensor) else given
    array = np.asarray(array, np.float64)
    fits = array.ndim == len(shape) and all(
        want is None or want == got for want, got in zip(shape, array.shape, strict=True)
    )
    if not fits:
        wanted = str(shape).replace("None", "K")
        raise InputError(f"{name}: found shape {array.shape}, expected {wanted}")
    if finite and not np.isfinite(array).all():
        raise InputError(f"{name}: holds a number that is not finite")
    return array
