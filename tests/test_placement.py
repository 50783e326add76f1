import numpy as np
import pytest

from handgraph.camera import PinholeCamera
from handgraph.errors import InputError
from handgraph.placement import bone_length, bone_lengths, hand_length, relative_size, root_translation
from handgraph.skeleton import BONES

CAMERA = PinholeCamera(588.0, 560.0, 310.0, 245.0)


def hand(random: np.random.Generator) -> np.ndarray:
    """21 points about the first, as far apart as a hand's joints."""
    points = random.uniform(-80, 80, (21, 3))
    return points - points[0]


def test_a_hand_seen_exactly_is_found_exactly(rng: np.random.Generator) -> None:
    for _ in range(50):
        relative, root = hand(rng), rng.uniform([-200, -200, 300], [200, 200, 1500])
        seen = CAMERA.uvd_from_xyz(relative + root)[:, :2]
        np.testing.assert_allclose(root_translation(relative, seen, CAMERA), root, atol=1e-6)


def test_keypoints_that_are_off_by_a_pixel_move_the_root_little(rng: np.random.Generator) -> None:
    errors = []
    for _ in range(200):
        relative, root = hand(rng), np.array([30.0, -20.0, 500.0])
        seen = CAMERA.uvd_from_xyz(relative + root)[:, :2] + rng.normal(0, 1, (21, 2))
        errors.append(root_translation(relative, seen, CAMERA) - root)
    deviation = np.std(errors, axis=0)
    # A pixel is 0.85 mm here, 21 of them average to 0.2; the depth follows from a size of some 70 pixels.
    assert (deviation[:2] < 0.4).all()
    assert deviation[2] < 3
    assert (np.abs(np.mean(errors, axis=0)) < [0.1, 0.1, 0.6]).all()


def test_it_is_the_least_squares_solution_of_the_weighted_rays(rng: np.random.Generator) -> None:
    relative, root, weights = hand(rng), np.array([30.0, -20.0, 400.0]), rng.uniform(0.1, 2, 21)
    seen = CAMERA.uvd_from_xyz(relative + root)[:, :2] + rng.normal(0, 5, (21, 2))

    def cost(t: np.ndarray) -> float:
        x, y, z = (relative + t).T
        on_ray = CAMERA.xyz_from_uvd(np.column_stack([seen, z]))
        return float((weights * ((x - on_ray[:, 0]) ** 2 + (y - on_ray[:, 1]) ** 2)).sum())

    found = root_translation(relative, seen, CAMERA, weights)
    best = cost(found)
    for step in np.vstack([np.eye(3), -np.eye(3)]) * 0.05:
        assert cost(found + step) > best
    assert np.linalg.norm(found - root_translation(relative, seen, CAMERA)) > 0.1


def test_a_joint_without_weight_says_nothing(rng: np.random.Generator) -> None:
    relative, root = hand(rng), np.array([0.0, 50.0, 600.0])
    seen = CAMERA.uvd_from_xyz(relative + root)[:, :2]
    seen[8] += 300
    weights = np.ones(21)
    weights[8] = 0
    np.testing.assert_allclose(root_translation(relative, seen, CAMERA, weights), root, atol=1e-6)
    assert np.linalg.norm(root_translation(relative, seen, CAMERA) - root) > 10


def test_a_hand_of_twice_the_size_is_twice_as_far(rng: np.random.Generator) -> None:
    relative, root = hand(rng), np.array([10.0, 50.0, 600.0])
    seen = CAMERA.uvd_from_xyz(relative + root)[:, :2]
    np.testing.assert_allclose(root_translation(2 * relative, seen, CAMERA), 2 * root, atol=1e-6)


def test_keypoints_at_one_place_or_upside_down_are_refused(rng: np.random.Generator) -> None:
    relative = hand(rng)
    with pytest.raises(InputError, match="all keypoints are at one place"):
        root_translation(np.zeros((21, 3)), np.full((21, 2), 100.0), CAMERA)
    seen = CAMERA.uvd_from_xyz(relative + np.array([0, 0, 500]))[:, :2]
    upside_down = 2 * np.array([CAMERA.cx, CAMERA.cy]) - seen
    with pytest.raises(InputError, match="behind the camera"):
        root_translation(relative, upside_down, CAMERA)


def test_a_hands_length_is_along_the_middle_finger_and_does_not_change_when_it_bends() -> None:
    joints = np.zeros((21, 3))
    joints[9:13, 1] = [90, 135, 160, 180]
    assert hand_length(joints) == 180
    assert bone_length(joints, (9, 10)) == 45
    bent = joints.copy()
    bent[11:13] = [[0, 135, 25], [0, 115, 25]]
    assert hand_length(bent) == 180
    np.testing.assert_allclose(hand_length(np.stack([joints, 2 * joints])), [180, 360])


def test_bones_are_measured_in_the_order_of_the_skeleton(rng: np.random.Generator) -> None:
    joints = np.stack([hand(rng), hand(rng)])
    expected = [[np.linalg.norm(one[far] - one[near]) for near, far in BONES] for one in joints]
    np.testing.assert_allclose(bone_lengths(joints), expected)


def test_a_hands_size_is_what_most_bones_agree_on(rng: np.random.Generator) -> None:
    reference = rng.uniform(20, 90, 20)
    bones = np.stack([1.2 * reference, 0.8 * reference])
    bones[0, :6] *= 3.0  # labelled elsewhere: a mean would follow them
    bones[1, 3:9] = np.nan
    np.testing.assert_allclose(relative_size(bones, reference), [1.2, 0.8])
    assert relative_size(bones[0], reference) == pytest.approx(1.2)
    assert np.isnan(relative_size(np.full(20, np.nan), reference))
