"""Calibration against meshes written out and against SciPy."""

from typing import Any

import numpy as np
import pytest
import torch
from scipy.optimize import minimize

from handgraph import InputError
from handgraph.hand_model import HandLayer, HandModel
from handgraph.hand_model.calibration import (
    DISTANCES,
    Calibration,
    attention,
    bone_lengths_mm,
    calibrate,
    calibrate_from_bones,
    calibrate_from_joints,
    distances_mm,
    minimise,
    quadratic_forms,
)
from handgraph.skeleton import BONES, JOINT_NAMES


@pytest.fixture(scope="module")
def layer() -> HandLayer:
    return HandLayer(dtype=torch.float64)


def predictions(n: int, seed: int = 0, spread: float = 0.5) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A true shape, n shapes about it and n poses."""
    random = np.random.default_rng(seed)
    true = random.normal(size=10)
    shapes = true + random.normal(0, spread * np.linspace(0.5, 2, n)[:, None], (n, 10))
    return true, shapes, random.normal(0, 0.5, (n, 48))


def mesh(layer: HandLayer, shape: np.ndarray, pose: np.ndarray) -> np.ndarray:
    return layer(torch.from_numpy(shape), torch.from_numpy(pose)).vertices_mm.numpy()


@pytest.mark.parametrize("which", ["open hand", "MANO format"])
def test_the_quadratic_forms_are_distances_of_meshes(which: str, layer: HandLayer, model: HandModel) -> None:
    if which == "MANO format":
        layer = HandLayer(model, flat_hand_mean=False, dtype=torch.float64)
    _, shapes, poses = predictions(3)
    other = np.random.default_rng(1).normal(size=(3, 10))
    for form, shape, different, pose in zip(quadratic_forms(layer, poses), shapes, other, poses, strict=True):
        distance = np.linalg.norm(mesh(layer, shape, pose) - mesh(layer, different, pose))
        off = shape - different
        assert np.sqrt(off @ form @ off) == pytest.approx(distance, rel=1e-9)


@pytest.mark.parametrize("k", [6, 20])
def test_the_optimum_is_a_generic_solvers(k: int, layer: HandLayer) -> None:
    _, shapes, poses = predictions(k)
    confidence = np.random.default_rng(2).normal(0, 0.3, k)
    forms, weights = quadratic_forms(layer, poses), attention(confidence)

    def energy(beta: np.ndarray) -> tuple[float, np.ndarray]:
        off = beta - shapes
        norms = np.sqrt(np.einsum("ka,kab,kb->k", off, forms, off))
        return float(weights @ norms), (weights / norms) @ np.einsum("kab,kb->ka", forms, off)

    theirs = minimize(energy, shapes.mean(0), jac=True, method="BFGS", options={"gtol": 1e-9})
    ours = minimise(forms, shapes, weights)
    assert energy(ours)[0] <= theirs.fun * (1 + 1e-12)
    np.testing.assert_allclose(ours, theirs.x, atol=1e-6)
    result = calibrate(layer, shapes, poses, confidence)
    np.testing.assert_array_equal(result.shape, ours)
    written_out = sum(
        weight * np.linalg.norm(mesh(layer, ours, pose) - mesh(layer, shape, pose))
        for weight, shape, pose in zip(weights, shapes, poses, strict=True)
    )
    assert result.energy == pytest.approx(written_out, rel=1e-9)


def test_the_minimum_at_a_point_is_that_point(layer: HandLayer) -> None:
    """One image, two images, one image with most of the weight: the norm has its kink there."""
    _, shapes, poses = predictions(5)
    forms = quadratic_forms(layer, poses)
    np.testing.assert_array_equal(minimise(forms[:1], shapes[:1], np.ones(1)), shapes[0])
    np.testing.assert_array_equal(minimise(forms[:2], shapes[:2], np.array([0.05, 0.95])), shapes[1])
    heavy = np.array([0.02, 0.02, 0.92, 0.02, 0.02])
    np.testing.assert_array_equal(minimise(forms, shapes, heavy), shapes[2])
    value = heavy @ np.sqrt(np.einsum("ka,kab,kb->k", shapes[2] - shapes, forms, shapes[2] - shapes))
    for step in 1e-3 * np.eye(10):
        for beta in (shapes[2] + step, shapes[2] - step):
            off = beta - shapes
            assert heavy @ np.sqrt(np.einsum("ka,kab,kb->k", off, forms, off)) > value


def test_equal_shapes_in_all_images_give_that_shape(layer: HandLayer) -> None:
    _, shapes, poses = predictions(4)
    result = calibrate(layer, np.tile(shapes[0], (4, 1)), poses)
    np.testing.assert_allclose(result.shape, shapes[0], atol=1e-9)
    assert result.energy == pytest.approx(0, abs=1e-6)


def test_attention_is_a_softmax_and_lowers_the_error_where_confidence_is_right(layer: HandLayer) -> None:
    np.testing.assert_allclose(attention(np.array([0.0, 0.33 * np.log(3)])), [0.25, 0.75])
    np.testing.assert_allclose(attention(np.array([1e6, 0.0])), [1, 0])
    errors: dict[bool, list[float]] = {True: [], False: []}
    for seed in range(8):
        true, shapes, poses = predictions(20, seed)
        shapes[10:] += 2 * (shapes[10:] - true)  # half of the images are bad ones
        confidence = -np.abs(shapes - true).mean(1)
        for attended in (True, False):
            result = calibrate(layer, shapes, poses, confidence if attended else None)
            errors[attended].append(float(np.abs(result.shape - true).mean()))
    assert np.mean(errors[True]) < 0.9 * np.mean(errors[False])


def test_the_deviations_say_how_far_off_it_is(layer: HandLayer) -> None:
    """Over many people: deviations of size and shape are those claimed, within a third."""
    claimed, off = [], []
    for seed in range(60):
        random = np.random.default_rng(seed)
        true, poses = random.normal(size=10), random.normal(0, 0.5, (12, 48))
        result = calibrate(layer, true + random.normal(0, 0.6, (12, 10)), poses)
        length = distances_mm(layer, true, ((0, 12),))[0][0]
        claimed.append([*result.shape_sd, result.hand_length_sd_mm])
        off.append([*(result.shape - true), result.hand_length_mm - length])
    ratio = np.sqrt(np.mean(np.square(off), axis=0) / np.mean(np.square(claimed), axis=0))
    assert np.abs(np.log(ratio)).mean() < np.log(1.33)


def test_one_image_says_nothing_of_deviations(layer: HandLayer) -> None:
    _, shapes, poses = predictions(1)
    result = calibrate(layer, shapes, poses)
    assert result.covariance is None
    assert result.shape_sd is None
    assert result.hand_length_sd_mm is None


def test_what_is_wrong_in_every_image_alike_widens_the_deviations(layer: HandLayer) -> None:
    """A network that says the mean of everybody is sure of it, and right about two people in three only."""
    random = np.random.default_rng(3)
    within = {False: 0, True: 0}
    people, error = 60, np.ones(10)
    for _ in range(people):
        true = random.normal(size=10)
        shapes, poses = random.normal(0, 0.05, (4, 10)), random.normal(0, 0.5, (4, 48))
        for told in within:
            found = calibrate(layer, shapes, poses, shape_error=error if told else None)
            assert found.hand_length_sd_mm is not None
            true_mm = calibrate(layer, true[None], np.zeros((1, 48))).hand_length_mm
            within[told] += abs(found.hand_length_mm - true_mm) < 2 * found.hand_length_sd_mm
    assert within[False] < 0.2 * people
    assert 0.85 * people < within[True]
    one = calibrate(layer, np.zeros((1, 10)), np.zeros((1, 48)), shape_error=2 * error)
    np.testing.assert_allclose(one.shape_sd, 2 * error)


def test_the_measures_are_those_of_the_flat_hand(layer: HandLayer) -> None:
    shape = np.random.default_rng(4).normal(size=10)
    flat = layer.joints(torch.from_numpy(shape), torch.zeros(48, dtype=torch.float64)).numpy()
    result = calibrate(layer, shape[None], np.zeros((1, 48)))
    wrist, tip = JOINT_NAMES.index("wrist"), JOINT_NAMES.index("middle_tip")
    index, ring = JOINT_NAMES.index("index_mcp"), JOINT_NAMES.index("ring_mcp")
    assert result.hand_length_mm == pytest.approx(np.linalg.norm(flat[wrist] - flat[tip]))
    assert result.hand_width_mm == pytest.approx(np.linalg.norm(flat[index] - flat[ring]))
    expected = [np.linalg.norm(flat[a] - flat[b]) for a, b in BONES]
    np.testing.assert_allclose(bone_lengths_mm(layer, shape), expected)
    step = 1e-6
    _, slopes = distances_mm(layer, shape)
    for coefficient in range(10):
        change = np.zeros(10)
        change[coefficient] = step
        rise = distances_mm(layer, shape + change)[0] - distances_mm(layer, shape - change)[0]
        np.testing.assert_allclose(slopes[:, coefficient], rise / (2 * step), atol=1e-6)


def test_no_pose_changes_the_distances(layer: HandLayer) -> None:
    random = np.random.default_rng(5)
    shape, pose = random.normal(size=10), random.normal(0, 0.5, 48)
    posed = layer.joints(torch.from_numpy(shape), torch.from_numpy(pose)).numpy()
    first, second = np.transpose(DISTANCES)
    np.testing.assert_allclose(
        np.linalg.norm(posed[first] - posed[second], axis=1), distances_mm(layer, shape)[0], rtol=1e-9
    )


def sizes(layer: HandLayer, result: Calibration, true: np.ndarray) -> np.ndarray:
    """Errors of hand length and width, mm."""
    measured = np.array([result.hand_length_mm, result.hand_width_mm])
    return np.abs(measured - distances_mm(layer, true, ((0, 12), (5, 13)))[0])


def test_joints_and_bones_give_the_size_of_the_hand(layer: HandLayer) -> None:
    random = np.random.default_rng(6)
    true = random.normal(size=10)
    poses = torch.from_numpy(random.normal(0, 0.4, (15, 48)))
    joints = layer.joints(torch.from_numpy(np.tile(true, (15, 1))), poses).numpy()
    assert (sizes(layer, calibrate_from_joints(layer, joints, bias_mm=0.1), true) < [0.3, 0.2]).all()
    noisy = joints + random.normal(0, 3, joints.shape)
    noisy[0] += random.normal(0, 60, (21, 3))  # one image is hopeless
    noisy[1, 4] = np.nan
    assert (sizes(layer, calibrate_from_joints(layer, noisy), true) < [3, 2]).all()
    lengths = np.tile(bone_lengths_mm(layer, true), (2, 1))
    assert sizes(layer, calibrate_from_bones(layer, lengths, bias_mm=0.1), true)[0] < 0.5


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda layer: calibrate(layer, np.zeros((0, 10)), np.zeros((0, 48))), "no image to calibrate from"),
        (
            lambda layer: calibrate(layer, np.zeros((2, 9)), np.zeros((2, 48))),
            r"shapes: found shape \(2, 9\)",
        ),
        (
            lambda layer: calibrate(layer, np.zeros((2, 10)), np.zeros((3, 48))),
            r"poses: found shape \(3, 48\)",
        ),
        (
            lambda layer: calibrate(layer, np.full((2, 10), np.nan), np.zeros((2, 48))),
            "shapes: holds a number that is not finite",
        ),
        (lambda layer: attention(np.zeros(2), 0.0), "temperature is 0.0, expected more than 0"),
        (
            lambda layer: calibrate_from_joints(layer, np.full((2, 21, 3), np.nan)),
            "no joint is known in any image",
        ),
    ],
)
def test_bad_arguments_are_named(call: Any, message: str, layer: HandLayer) -> None:
    with pytest.raises(InputError, match=message):
        call(layer)
