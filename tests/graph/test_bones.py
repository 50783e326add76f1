"""Bones: each operator against its equation written out, and its gradient where the equation has none."""

import numpy as np
import pytest
import torch

from handgraph.graph.bones import (
    bone_direction_loss,
    bone_length_loss,
    bone_vectors,
    incidence,
    kcs_matrix,
)
from handgraph.skeleton import BONES


def poses(seed: int, count: int = 3) -> np.ndarray:
    return np.random.default_rng(seed).normal(0, 40, (count, 21, 3))


def test_bone_vectors_and_the_incidence_matrix_are_equation_4() -> None:
    joints = poses(0)
    naive = np.stack([[hand[child] - hand[parent] for parent, child in BONES] for hand in joints])
    np.testing.assert_allclose(bone_vectors(torch.from_numpy(joints)), naive)
    np.testing.assert_allclose(np.swapaxes(joints, 1, 2) @ incidence(), np.swapaxes(naive, 1, 2))


def test_kcs_matrix_is_the_product_of_bones_and_does_not_see_where_the_hand_is() -> None:
    joints = poses(1)
    bones = np.swapaxes(joints, 1, 2) @ incidence()  # B = P C
    psi = kcs_matrix(torch.from_numpy(joints))
    np.testing.assert_allclose(psi, np.swapaxes(bones, 1, 2) @ bones)
    lengths = [[np.linalg.norm(hand[child] - hand[parent]) for parent, child in BONES] for hand in joints]
    np.testing.assert_allclose(torch.diagonal(psi, dim1=1, dim2=2), np.square(lengths))
    turn, _ = np.linalg.qr(np.random.default_rng(2).normal(size=(3, 3)))
    np.testing.assert_allclose(kcs_matrix(torch.from_numpy(joints @ turn + 100)), psi)
    assert not np.allclose(kcs_matrix(torch.from_numpy(1.1 * joints)), psi)


def naive_losses(predicted: np.ndarray, true: np.ndarray) -> tuple[float, float]:
    length = direction = 0.0
    for hand, truth in zip(predicted, true, strict=True):
        for i, j in BONES:
            ours, theirs = hand[j] - hand[i], truth[j] - truth[i]
            if np.isfinite(theirs).all():
                length += abs(np.linalg.norm(ours) - np.linalg.norm(theirs))
                direction += np.linalg.norm(ours / np.linalg.norm(ours) - theirs / np.linalg.norm(theirs))
    return length / len(true), direction / len(true)


def test_losses_are_equations_5_and_6() -> None:
    predicted, true = poses(3), poses(4)
    true[1, 7] = np.nan  # two bones less
    length, direction = naive_losses(predicted, true)
    ours = (torch.from_numpy(predicted), torch.from_numpy(true))
    assert float(bone_length_loss(*ours)) == pytest.approx(length)
    assert float(bone_direction_loss(*ours)) == pytest.approx(direction)
    # Scaled bones differ in length alone, turned ones in direction alone.
    same = torch.from_numpy(true[[0, 2]])
    assert float(bone_direction_loss(2 * same, same)) == pytest.approx(0, abs=1e-12)
    assert float(bone_length_loss(same.flip(-1), same)) == pytest.approx(0, abs=1e-9)
    assert float(bone_direction_loss(-same, same)) == pytest.approx(2 * 20)


@pytest.mark.parametrize("loss", [bone_length_loss, bone_direction_loss])
def test_gradients_are_those_of_finite_differences(loss) -> None:
    predicted, true = torch.from_numpy(poses(5, 1)).requires_grad_(), torch.from_numpy(poses(6, 1))
    assert torch.autograd.gradcheck(lambda joints: loss(joints, true), predicted)


@pytest.mark.parametrize("loss", [bone_length_loss, bone_direction_loss])
@pytest.mark.parametrize("where", ["predicted", "both", "unknown", "tiny", "perfect"])
def test_finite_at_bones_without_length_unknown_truth_and_no_error(loss, where: str) -> None:
    true = torch.from_numpy(poses(7, 2)).float()
    predicted = torch.from_numpy(poses(8, 2)).float()
    if where in ("predicted", "both"):
        predicted[:, 6] = predicted[:, 5]
    if where == "both":
        true[:, 6] = true[:, 5]
    if where == "unknown":
        true[0] = torch.nan
    if where == "tiny":
        predicted = 1e-30 * predicted
    if where == "perfect":
        predicted = true.clone()
    predicted.requires_grad_()
    value = loss(predicted, true)
    value.backward()
    assert torch.isfinite(value)
    assert predicted.grad is not None
    assert torch.isfinite(predicted.grad).all()
    # A bone of length l turns by 1/l for a step across it: no bone may answer with more than that of 1 mm.
    assert predicted.grad.abs().max() <= 8


def test_a_bone_of_no_length_is_pulled_towards_its_direction() -> None:
    true = torch.from_numpy(poses(9, 1)).float()
    predicted = true.clone()
    predicted[:, 8] = predicted[:, 7]
    predicted.requires_grad_()
    bone_direction_loss(predicted, true).backward()
    assert predicted.grad is not None
    along = -predicted.grad[0, 8] @ (true[0, 8] - true[0, 7])
    assert along > 0
