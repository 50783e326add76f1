"""The fit against finite differences, SciPy and the poses that made its keypoints."""

from typing import Any

import numpy as np
import pytest
import torch
from scipy.optimize import least_squares

from handgraph import ConfigError, InputError, PinholeCamera
from handgraph.hand_model import HandLayer, HandModel, fitting, load_mano
from handgraph.hand_model.fitting import Fit, axis_angles_of, fit, fit_by_adam, rotations_of, vertices_mm
from handgraph.synthetic.depth import DepthSynthesizer

CAMERA = PinholeCamera(600.0, 580.0, 320.0, 240.0)


class Hands:
    """Synthetic hands half a metre before `CAMERA`, with everything known about them."""

    def __init__(self, layer: HandLayer, n: int, seed: int = 0) -> None:
        synthesizer = DepthSynthesizer(seed, "test")
        samples = [synthesizer.sample(index) for index in range(n)]
        self.pose = np.stack([sample.pose for sample in samples]).astype(np.float64)
        self.shape = np.stack([sample.shape for sample in samples]).astype(np.float64)
        random = np.random.default_rng(seed)
        self.translation = random.normal([0, 0, 500.0], [40, 40, 50], (n, 3))
        self.joints = joints(layer, self.pose, self.shape, self.translation)
        self.keypoints = CAMERA.uvd_from_xyz(self.joints)[..., :2]
        self.near = self.pose + random.normal(0, 0.1, self.pose.shape)


def joints(layer: HandLayer, pose: np.ndarray, shape: np.ndarray, translation: np.ndarray) -> np.ndarray:
    tensors = (torch.from_numpy(array) for array in (shape, pose, translation))
    return layer.joints(*tensors).numpy()


@pytest.fixture(scope="module")
def layer() -> HandLayer:
    return HandLayer(dtype=torch.float64)


@pytest.fixture(scope="module")
def hands(layer: HandLayer) -> Hands:
    return Hands(layer, 6)


@pytest.fixture(scope="module")
def random_hands(model: HandModel) -> tuple[HandLayer, Hands]:
    """Of a random model in MANO's format, whose tips hang on all joints."""
    layer = HandLayer(model, dtype=torch.float64, flat_hand_mean=False)
    return layer, Hands(layer, 4)


def test_axis_angles_and_rotations_are_inverse_near_zero_and_near_half_a_turn() -> None:
    random = np.random.default_rng(0)
    axis = random.normal(size=(6, 3))
    axis /= np.linalg.norm(axis, axis=1, keepdims=True)
    angle = np.array([0.0, 1e-9, 1e-4, 1.0, np.pi - 1e-7, np.pi])[:, None]
    back = axis_angles_of(rotations_of(axis * angle))
    np.testing.assert_allclose(back[:5], (axis * angle)[:5], atol=1e-8)
    np.testing.assert_allclose(np.abs(back[5] @ axis[5]), np.pi)  # at half a turn either sense will do


def normal_equations(
    layer: HandLayer, pose: np.ndarray, shape: np.ndarray, place: np.ndarray, target: Hands, **options: Any
) -> tuple[Any, np.ndarray, np.ndarray]:
    """The energy as a function of the 61 unknowns about a state, and the compiled J'r and J'J there."""
    defaults = {"robust": 0.0, "pose_prior": 0.0, "limits": 0.0, "shape_prior": 0.0}
    numbers = np.array([*(defaults | options).values(), 0.0])
    rig = fitting._rig(layer.model)
    reference = rotations_of(target.pose[0].reshape(16, 3))
    problem = fitting._problem(
        layer, target.keypoints[:1], CAMERA, target.joints[:1], np.linspace(0.5, 1, 21), None, False, 0.3
    )
    first = [array[0] for array in problem[:5]]

    def posed(unknowns: np.ndarray) -> tuple[Any, np.ndarray, np.ndarray]:
        turns = unknowns[:48].reshape(16, 3)
        rotations = rotations_of(pose.reshape(16, 3)) @ rotations_of(np.concatenate([turns[15:], turns[:15]]))
        shaped, work = shape + unknowns[51:], fitting._work()
        fitting._pose(rig, rotations, place + unknowns[48:51], shaped, work)
        return work, rotations, shaped

    def energy(unknowns: np.ndarray) -> float:
        work, rotations, shaped = posed(unknowns)
        return float(fitting._energy(rig, work, *first, False, rotations, shaped, reference, numbers))

    work, rotations, shaped = posed(np.zeros(61))
    by, row, normal = np.zeros((3, 61)), np.zeros(61), np.zeros((61, 61))
    gradient, rates = np.zeros(61), np.zeros((16, 3, 10))
    fitting._assemble(
        rig, work, *first, False, rotations, shaped, reference, numbers, True, True, True, rates, by, row,
        normal, gradient,
    )  # fmt: skip
    return energy, gradient, np.tril(normal) + np.tril(normal, -1).T


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"robust": 5.0},
        {"pose_prior": 400.0, "shape_prior": 30.0},
        {"limits": 1e4},
    ],
    ids=["plain", "robust", "priors", "limits"],
)
@pytest.mark.parametrize("which", ["open hand", "MANO format"])
def test_the_gradient_is_that_of_finite_differences(
    which: str,
    options: dict[str, float],
    layer: HandLayer,
    hands: Hands,
    random_hands: tuple[HandLayer, Hands],
) -> None:
    if which == "MANO format":
        if "limits" in options:
            pytest.skip("a MANO file has no joint limits")
        layer, hands = random_hands
    random = np.random.default_rng(1)
    # Far enough from the truth that some limits are exceeded and no residual is small.
    pose = hands.pose[0] + random.normal(0, 0.4, 48)
    place = hands.translation[0] + 20
    energy, gradient, _ = normal_equations(layer, pose, hands.shape[0] + 0.5, place, hands, **options)
    step = 1e-5
    for unknown in range(61):
        one = np.zeros(61)
        one[unknown] = step
        slope = (energy(one) - energy(-one)) / (2 * step)
        assert 2 * gradient[unknown] == pytest.approx(slope, rel=1e-4, abs=1e-3), unknown


def test_the_normal_matrix_is_that_of_the_joints_jacobian(
    layer: HandLayer, hands: Hands, random_hands: tuple[HandLayer, Hands]
) -> None:
    for one, given in ((layer, hands), random_hands):
        energy, _, normal = normal_equations(one, given.pose[0], given.shape[0], given.translation[0], given)
        # At the truth all residuals are zero, so J'J is half the energy's whole second derivative.
        if one is layer:
            assert energy(np.zeros(61)) < 1e-12
        else:
            continue  # its pose is relative to the mean pose, so this is not its truth; the gradient says it
        step = 1e-4
        for unknown in (0, 7, 44, 46, 50, 53):
            both = np.zeros(61)
            both[unknown] = step
            curvature = (energy(both) + energy(-both)) / step**2
            assert 2 * normal[unknown, unknown] == pytest.approx(curvature, rel=1e-3)
        pair = np.zeros(61)
        pair[[45, 2]] = step
        other = pair.copy()
        other[2] *= -1
        mixed = (energy(pair) - energy(other)) / (2 * step**2)
        assert 2 * normal[45, 2] == pytest.approx(mixed, rel=1e-3)


def test_scipy_finds_no_lower_energy(layer: HandLayer, hands: Hands) -> None:
    """With noise, limits left out, and a prior on the pose that makes the optimum unique."""
    random = np.random.default_rng(2)
    keypoints = hands.keypoints[:1] + random.normal(0, 2, (1, 21, 2))
    prior = 50.0
    ours = fit(
        layer, keypoints, CAMERA, start_pose=hands.near[:1], shape=hands.shape[:1], pose_prior=prior,
        tolerance=1e-12, iterations=200,
    )  # fmt: skip
    reference = rotations_of(hands.near[0].reshape(16, 3))

    def residuals(unknowns: np.ndarray) -> np.ndarray:
        """For (n, 51) unknowns at once, axis-angles and translation."""
        n = len(unknowns)
        posed = joints(layer, unknowns[:, :48], np.tile(hands.shape[0], (n, 1)), unknowns[:, 48:])
        off = CAMERA.uvd_from_xyz(posed)[..., :2] - keypoints
        # |R − R_ref|² = 8 sin²(φ / 2), twice the prior's 4 sin²(φ / 2).
        turned = (rotations_of(unknowns[:, :48].reshape(n, 16, 3)) - reference)[:, 1:]
        return np.concatenate([off.reshape(n, -1), np.sqrt(prior / 2) * turned.reshape(n, -1)], axis=1)

    def jacobian(unknowns: np.ndarray) -> np.ndarray:
        steps = 1e-6 * np.eye(51)
        return (residuals(unknowns + steps) - residuals(unknowns - steps)).T / 2e-6

    start = np.concatenate([hands.near[0], hands.translation[0]])
    theirs = least_squares(
        lambda x: residuals(x[None])[0], start, jacobian, method="lm", xtol=1e-12, ftol=1e-12
    )
    assert ours.energy[0] == pytest.approx(np.sqrt(2 * theirs.cost), rel=1e-6)
    end = np.concatenate([ours.pose[0], ours.translation_mm[0]])
    assert np.linalg.norm(residuals(end[None])) == pytest.approx(ours.energy[0], rel=1e-9)


def test_the_energy_never_rises(layer: HandLayer, hands: Hands) -> None:
    """One step after the other, from far away."""
    random = np.random.default_rng(3)
    keypoints = hands.keypoints + random.normal(0, 3, hands.keypoints.shape)
    options = {"robust": 20.0, "limits": 100.0, "shape_prior": 1.0, "free_shape": True, "iterations": 1}
    pose = hands.pose + random.normal(0, 0.5, hands.pose.shape)
    place, shape = hands.translation + np.array([100.0, -100.0, 200.0]), np.zeros((6, 10))
    energies = []
    for _ in range(25):
        fitted = fit(
            layer, keypoints, CAMERA, start_pose=pose, start_translation_mm=place, shape=shape, **options
        )
        pose, place, shape = fitted.pose, fitted.translation_mm, fitted.shape
        energies.append(fitted.energy)
    assert (np.diff(energies, axis=0) <= 1e-9).all()
    assert (energies[-1] < 0.3 * energies[0]).all()


def test_exact_keypoints_give_back_the_joints(layer: HandLayer, hands: Hands) -> None:
    fitted = fit(layer, hands.keypoints, CAMERA, start_pose=hands.near, shape=hands.shape, limits=100.0)
    errors = np.linalg.norm(fitted.joints_mm - hands.joints, axis=-1)
    assert np.median(errors) < 0.1
    np.testing.assert_allclose(
        joints(layer, fitted.pose, fitted.shape, fitted.translation_mm), fitted.joints_mm, atol=1e-8
    )


def test_exact_joints_give_back_pose_and_shape_from_nothing(layer: HandLayer, hands: Hands) -> None:
    """What joints cannot tell, twist, does not move them."""
    fitted = fit(layer, joints_mm=hands.joints, free_shape=True, shape_prior=1e-6, tolerance=1e-9)
    assert np.abs(fitted.joints_mm - hands.joints).max() < 0.05
    bent = fit(layer, joints_mm=hands.joints, shape=hands.shape)
    assert np.abs(bent.joints_mm - hands.joints).max() < 0.05


def test_from_2d_alone_most_hands_are_found_without_a_start(layer: HandLayer, hands: Hands) -> None:
    fitted = fit(layer, hands.keypoints, CAMERA, shape=hands.shape, limits=100.0)
    errors = np.linalg.norm(fitted.joints_mm - hands.joints, axis=-1).mean(1)
    assert (errors < 1).sum() >= 2
    assert np.median(errors) < 15


def test_a_model_in_manos_format_fits_too(random_hands: tuple[HandLayer, Hands]) -> None:
    layer, hands = random_hands
    fitted = fit(layer, joints_mm=hands.joints, start_pose=hands.near, shape=hands.shape, tolerance=1e-9)
    assert np.abs(fitted.joints_mm - hands.joints).max() < 0.01
    np.testing.assert_allclose(
        joints(layer, fitted.pose, fitted.shape, fitted.translation_mm), fitted.joints_mm, atol=1e-8
    )


def test_a_file_in_manos_format_fits_too(fields: dict[str, np.ndarray], tmp_path: Any) -> None:
    np.savez(tmp_path / "MANO_RIGHT.npz", **fields)
    layer = HandLayer(load_mano(tmp_path / "MANO_RIGHT.npz"), dtype=torch.float64)
    hands = Hands(layer, 3)
    fitted = fit(layer, hands.keypoints, CAMERA, start_pose=hands.near, shape=hands.shape)
    assert (fitted.energy < 0.01).all()


@pytest.mark.parametrize("masked_by", ["weight", "nan"])
def test_masked_joints_are_ignored(masked_by: str, layer: HandLayer, hands: Hands) -> None:
    spoiled, weights = hands.keypoints.copy(), np.ones(21)
    if masked_by == "weight":
        spoiled[:, [4, 11]] += 300
        weights[[4, 11]] = 0
    else:
        spoiled[:, [4, 11]] = np.nan
    start = {"start_pose": hands.near, "shape": hands.shape, "limits": 100.0}
    fitted = fit(layer, spoiled, CAMERA, weights=weights, **start)
    assert np.median(fitted.energy) < 0.1
    kept = [joint for joint in range(21) if joint not in (4, 11)]
    assert np.median(np.linalg.norm(fitted.joints_mm - hands.joints, axis=-1)[:, kept]) < 0.5
    if masked_by == "weight":
        assert (fit(layer, spoiled, CAMERA, **start).energy > 10).all()


def test_a_robust_loss_bears_an_outlier(layer: HandLayer, hands: Hands) -> None:
    spoiled = hands.joints.copy()
    spoiled[:, 8] += 150.0
    others = [joint for joint in range(21) if joint not in (6, 7, 8)]
    errors = {}
    for robust in (None, 5.0):
        fitted = fit(layer, joints_mm=spoiled, shape=hands.shape, robust=robust)
        errors[robust] = np.linalg.norm(fitted.joints_mm - hands.joints, axis=-1)[:, others].mean()
    assert errors[5.0] < 0.1 < errors[None]


def test_limits_and_prior_hold_the_pose_back(layer: HandLayer, hands: Hands) -> None:
    bent_back = np.zeros((1, 48))
    flexion = layer.model.joint_axes[:, 0]
    bent_back[0, 3:] = (-1.2 * flexion).ravel()  # every joint far over the back of the hand
    target = joints(layer, bent_back, np.zeros((1, 10)), np.zeros((1, 3)))
    start = np.zeros((1, 48))
    excess = {}
    for limits in (0.0, 1e5):
        fitted = fit(layer, joints_mm=target, start_pose=start, limits=limits)
        angles, rates = np.empty(3), np.empty((3, 3))
        worst = 0.0
        for joint in range(15):
            rotation = rotations_of(fitted.pose.reshape(16, 3)[joint + 1])
            fitting._angles(rotation, np.array(layer.model.joint_axes[joint]), angles, rates)
            low, high = layer.model.joint_limits[joint].T
            worst = max(worst, float((low - angles).max()), float((angles - high).max()))
        excess[limits] = worst
    assert excess[1e5] < 0.1 < 0.5 < excess[0.0]
    free = fit(layer, joints_mm=target, start_pose=start)
    held = fit(layer, joints_mm=target, start_pose=start, pose_prior=1e7)
    assert np.abs(held.pose[0, 3:]).max() < 0.05 < np.abs(free.pose[0, 3:]).max()


def test_a_left_hand_is_the_mirror_image_of_a_right_one(layer: HandLayer, hands: Hands) -> None:
    """And its pose, given to a left layer, puts its joints where the fit says."""
    mirror = np.array([-1.0, 1.0, 1.0])
    camera = PinholeCamera(CAMERA.fx, CAMERA.fy, 639 - CAMERA.cx, CAMERA.cy)
    keypoints = hands.keypoints * [-1, 1] + [639, 0]
    right = fit(layer, hands.keypoints, CAMERA, start_pose=hands.near, shape=hands.shape)
    turned = hands.near * np.tile([1.0, -1.0, -1.0], 16)
    left = fit(layer, keypoints, camera, start_pose=turned, shape=hands.shape, side="left")
    np.testing.assert_allclose(left.joints_mm, right.joints_mm * mirror, atol=1e-6)
    other = HandLayer(layer.model, side="left", dtype=torch.float64)
    np.testing.assert_allclose(
        joints(other, left.pose, left.shape, left.translation_mm), left.joints_mm, atol=1e-6
    )
    mesh = other(*(torch.from_numpy(a) for a in (left.shape, left.pose, left.translation_mm))).vertices_mm
    np.testing.assert_allclose(vertices_mm(layer, left), mesh.numpy(), atol=1e-6)
    both = fit(
        layer,
        joints_mm=np.stack([hands.joints[0], hands.joints[0] * mirror]),
        side=["right", "left"],
    )
    np.testing.assert_allclose(both.joints_mm[1], both.joints_mm[0] * mirror, atol=1e-6)


def test_relative_joints_and_keypoints_give_the_place(layer: HandLayer, hands: Hands) -> None:
    relative = hands.joints - hands.joints[:, :1]
    fitted = fit(layer, hands.keypoints, CAMERA, relative, relative=True, shape=hands.shape)
    np.testing.assert_allclose(fitted.joints_mm, hands.joints, atol=0.5)


def test_a_hand_is_fitted_alike_alone_and_among_others(layer: HandLayer, hands: Hands) -> None:
    options = {"joints_mm": hands.joints, "shape": hands.shape}
    together = fit(layer, **options)
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        one = fit(layer, **options)
    finally:
        torch.set_num_threads(threads)
    np.testing.assert_array_equal(one.pose, together.pose)
    alone = fit(layer, joints_mm=hands.joints[3:4], shape=hands.shape[3:4])
    np.testing.assert_allclose(alone.pose[0], together.pose[3], atol=1e-9)


def test_adam_lowers_the_same_energy_less(layer: HandLayer, hands: Hands) -> None:
    matrix = torch.tensor([[CAMERA.fx, 0, CAMERA.cx], [0, CAMERA.fy, CAMERA.cy], [0, 0, 1]]).double()
    place = hands.translation + np.array([0.0, 0.0, 50.0])
    rotations, translation, energy = fit_by_adam(
        layer,
        torch.from_numpy(hands.keypoints),
        matrix.expand(len(place), 3, 3),
        torch.from_numpy(hands.near),
        torch.from_numpy(place),
        torch.from_numpy(hands.shape),
    )
    posed = layer.joints_from_rotations(torch.from_numpy(hands.shape), rotations, translation).numpy()
    norms = np.linalg.norm((CAMERA.uvd_from_xyz(posed)[..., :2] - hands.keypoints).reshape(6, -1), axis=1)
    np.testing.assert_allclose(energy.numpy(), norms, rtol=1e-9)
    ours = fit(
        layer, hands.keypoints, CAMERA, start_pose=hands.near, start_translation_mm=place, shape=hands.shape
    )
    before = fit_by_adam(
        layer, torch.from_numpy(hands.keypoints), matrix.expand(6, 3, 3), torch.from_numpy(hands.near),
        torch.from_numpy(place), torch.from_numpy(hands.shape), steps=(1, 0),
    )[2]  # fmt: skip
    assert (ours.energy <= energy.numpy()).all()
    assert (energy < before).all()


def test_a_fit_is_returned_without_its_own_numbers_being_shared(layer: HandLayer, hands: Hands) -> None:
    start, shape = hands.near.copy(), hands.shape.copy()
    fitted = fit(layer, joints_mm=hands.joints, start_pose=start, shape=shape, free_shape=True)
    assert isinstance(fitted, Fit)
    np.testing.assert_array_equal(start, hands.near)
    np.testing.assert_array_equal(shape, hands.shape)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"keypoints_px": None, "camera": None}, InputError, "give keypoints_px with a camera, joints_mm"),
        ({"camera": None}, InputError, "keypoints_px and camera belong together"),
        ({"keypoints_px": np.zeros((2, 20, 2))}, InputError, r"keypoints_px: found shape \(2, 20, 2\)"),
        ({"keypoints_px": np.full((2, 21, 2), np.nan)}, InputError, "hand 0: no joint is known"),
        ({"weights": -np.ones(21)}, InputError, "weights: expected finite numbers from 0"),
        ({"start_pose": np.zeros((3, 48))}, InputError, r"start_pose: found shape \(3, 48\)"),
        ({"shape": np.full(10, np.inf)}, InputError, "shape: holds a number that is not finite"),
        ({"side": ["left"]}, InputError, "side: expected 'left' or 'right'"),
        ({"camera": np.eye(4)}, InputError, "camera: expected one or 2 finite 3×3 matrices"),
        ({"camera": 2 * np.eye(3)}, InputError, "last row of a matrix must be 0, 0, 1"),
        ({"robust": -1.0}, InputError, "robust, priors, limits and tolerance must be 0 or more"),
    ],
)
def test_bad_arguments_are_named(
    change: dict[str, Any], error: type[Exception], message: str, layer: HandLayer
) -> None:
    arguments: dict[str, Any] = {"keypoints_px": np.zeros((2, 21, 2)), "camera": CAMERA} | change
    with pytest.raises(error, match=message):
        fit(layer, **arguments)


def test_limits_and_principal_poses_are_refused_where_there_are_none(model: HandModel) -> None:
    target = np.zeros((1, 21, 3))
    with pytest.raises(ConfigError, match="the hand model random has no joint limits"):
        fit(HandLayer(model), joints_mm=target, limits=1.0)
    with pytest.raises(ConfigError, match="pose_space 'axis_angle', found 'pca'"):
        fit(HandLayer(model, pose_space="pca"), joints_mm=target)
