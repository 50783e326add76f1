"""Representations of a hand model's pose: one rotation, many ways to write it.

All functions take and give the 16 rotations of a pose in MANO's order, the global one first, in float64.
"""

from typing import NamedTuple

import numpy as np
import roma
import torch
from jaxtyping import Float

from handgraph.errors import ConfigError, FormatError
from handgraph.hand_model.files import HandModel

NOT_A_ROTATION = 1e-3
"""How far a matrix or quaternion of a file may be from a rotation; printed with four digits it is nearer."""


class Loss(NamedTuple):
    """What principal poses cannot say: the largest turn of a joint that is lost, radians."""

    radians: float


def to_matrices(
    kind: str, values: np.ndarray, zero: str = "flat", model: HandModel | None = None
) -> Float[np.ndarray, "16 3 3"]:
    """The rotation matrices of a pose written as `kind` (a key of `formats.clip.ROTATIONS`).

    `model` is needed where zero is the mean hand, and for principal poses; it must be of the hand's side.
    Raises FormatError for another shape, or numbers that are no rotations; ConfigError for a mean without
    the model.
    """
    if kind in ("axis_angle", "pca"):
        return _matrices(axis_angles(kind, values, zero, model))
    _only_flat(kind, zero)
    if kind == "matrix":
        matrices = _shaped(kind, values, 9).reshape(16, 3, 3)
        wrong = np.abs(matrices @ matrices.transpose(0, 2, 1) - np.eye(3)).max(axis=(1, 2))
        wrong = np.maximum(wrong, np.abs(np.linalg.det(matrices) - 1))
        _check(kind, wrong)
        return matrices
    if kind in ("quaternion_wxyz", "quaternion_xyzw"):
        quaternions = _shaped(kind, values, 4)
        if kind == "quaternion_wxyz":
            quaternions = quaternions[:, [1, 2, 3, 0]]
        lengths = np.linalg.norm(quaternions, axis=1, keepdims=True)
        _check(kind, np.abs(lengths - 1).max(axis=1))
        return np.asarray(roma.unitquat_to_rotmat(torch.from_numpy(quaternions / lengths)).numpy())
    if kind == "6d":
        # The first two columns, one after the other: (x1, y1, z1, x2, y2, z2).
        columns = _shaped(kind, values, 6).reshape(16, 2, 3)
        lengths = np.linalg.norm(columns, axis=2)
        _check(kind, np.maximum(np.abs(lengths - 1).max(1), np.abs((columns[:, 0] * columns[:, 1]).sum(1))))
        first = columns[:, 0] / lengths[:, :1]
        second = columns[:, 1] - (first * columns[:, 1]).sum(1, keepdims=True) * first
        second /= np.linalg.norm(second, axis=1, keepdims=True)
        return np.stack([first, second, np.cross(first, second)], axis=-1)
    raise ConfigError(f"rotation: found {kind!r}")


def axis_angles(
    kind: str, values: np.ndarray, zero: str = "flat", model: HandModel | None = None
) -> Float[np.ndarray, "16 3"]:
    """The axis-angles (radians) about the flat hand of a pose written as `kind`; see `to_matrices`."""
    if kind == "axis_angle":
        vectors = np.array(_shaped(kind, values, 3))
    elif kind == "pca":
        model = _needed(model)
        flat = np.asarray(values, np.float64)
        if flat.ndim != 1 or not 4 <= len(flat) <= 48:
            raise FormatError(f"rotations has shape {flat.shape}, expected 3 and 1 to 45 principal poses")
        vectors = np.concatenate([flat[:3], flat[3:] @ model.hands_components[: len(flat) - 3]]).reshape(
            16, 3
        )
    else:
        matrices = torch.from_numpy(to_matrices(kind, values, zero, model))
        return np.asarray(roma.rotmat_to_rotvec(matrices).numpy())
    if zero == "mean":
        vectors[1:] += _needed(model).hands_mean.reshape(15, 3)
    return vectors


def from_axis_angles(
    kind: str,
    vectors: Float[np.ndarray, "16 3"],
    zero: str = "flat",
    model: HandModel | None = None,
    components: int = 45,
) -> tuple[np.ndarray, Loss]:
    """A pose, axis-angles about the flat hand, written as `kind`, and what that loses.

    Only `pca` with fewer than 45 components loses anything: the coefficients are the nearest in the sense of
    least squares.
    """
    vectors = np.asarray(vectors, np.float64)
    nothing = Loss(0.0)
    if kind in ("axis_angle", "pca"):
        about = np.array(vectors)
        if zero == "mean":
            about[1:] -= _needed(model).hands_mean.reshape(15, 3)
        if kind == "axis_angle":
            return about, nothing
        directions = _needed(model).hands_components[:components]
        coefficients = np.linalg.lstsq(directions.T, about[1:].ravel(), rcond=None)[0]
        values = np.concatenate([about[0], coefficients])
        back = _matrices(axis_angles("pca", values, zero, model))
        lost = back.transpose(0, 2, 1) @ _matrices(vectors)
        turns = roma.rotmat_to_rotvec(torch.from_numpy(lost)).norm(dim=1)
        return values, Loss(float(turns.max()))
    _only_flat(kind, zero)
    matrices = _matrices(vectors)
    if kind == "matrix":
        return matrices.reshape(16, 9), nothing
    if kind == "6d":
        return matrices[:, :, :2].transpose(0, 2, 1).reshape(16, 6), nothing
    quaternions = np.asarray(roma.rotmat_to_unitquat(torch.from_numpy(matrices)).numpy())
    quaternions = quaternions * np.where(quaternions[:, 3:] < 0, -1.0, 1.0)  # q and -q are one rotation
    if kind == "quaternion_wxyz":
        quaternions = quaternions[:, [3, 0, 1, 2]]
    return quaternions, nothing


def _matrices(vectors: np.ndarray) -> np.ndarray:
    return np.asarray(roma.rotvec_to_rotmat(torch.from_numpy(np.ascontiguousarray(vectors))).numpy())


def _shaped(kind: str, values: np.ndarray, width: int) -> np.ndarray:
    array = np.asarray(values, np.float64)
    if array.size != 16 * width:
        raise FormatError(f"rotations has {array.size} numbers, {kind} has 16 x {width}")
    return array.reshape(16, width)


def _check(kind: str, wrong: np.ndarray) -> None:
    worst = int(wrong.argmax())
    if not wrong[worst] <= NOT_A_ROTATION:
        raise FormatError(f"rotation {worst} is no {kind} of a rotation: off by {wrong[worst]:.3g}")


def _only_flat(kind: str, zero: str) -> None:
    if zero == "mean":
        raise ConfigError(f"zero: a {kind} has no mean hand to start from, which is added to axis-angles")


def _needed(model: HandModel | None) -> HandModel:
    if model is None:
        raise ConfigError("zero and pca: mean hand and principal poses are a hand model's, give one")
    return model
