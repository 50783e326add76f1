"""Plausibility: angles come back, limits are the model's, rigid bones have no spread."""

import numpy as np
import pytest
import roma
import torch

from handgraph.errors import ConfigError, InputError
from handgraph.evaluation.plausibility import beyond_limits, bone_length_spread, joint_angles, pose_angles
from handgraph.hand_model import HandLayer, load_open_hand

MODEL = load_open_hand()


def hands(
    angles: np.ndarray, seed: int = 0, shape: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Poses and joints of hands with these joint angles, turned at random."""
    count = len(angles)
    axes = torch.tensor(MODEL.joint_axes)
    turns = roma.rotvec_to_rotmat(torch.from_numpy(angles)[..., None] * axes)  # flexion, abduction, twist
    local = turns[:, :, 0] @ turns[:, :, 1] @ turns[:, :, 2]
    whole = torch.from_numpy(np.random.default_rng(seed).normal(0, 1, (count, 1, 3)))
    pose = torch.cat([whole, roma.rotmat_to_rotvec(local)], dim=1).flatten(1)
    shape = np.zeros((count, 10)) if shape is None else shape
    joints = HandLayer(MODEL)(torch.from_numpy(shape).float(), pose.float()).joints_mm
    return pose.numpy(), joints.double().numpy()


def drawn(count: int, seed: int = 1) -> np.ndarray:
    low, high = np.moveaxis(np.asarray(MODEL.joint_limits), -1, 0)
    return np.random.default_rng(seed).uniform(low, high, (count, 15, 3))


def test_angles_of_a_pose_are_those_it_was_made_of() -> None:
    angles = drawn(20)
    np.testing.assert_allclose(pose_angles(hands(angles)[0]), angles, atol=1e-6)


def test_angles_of_joints_need_neither_the_pose_nor_the_frame() -> None:
    angles = drawn(40)
    angles[:, :, 2] = 0  # joints alone do not say how a bone is twisted
    _, joints = hands(angles)
    found = joint_angles(0.9 * joints + 300)
    fingers = slice(0, 12)
    assert np.rad2deg(np.abs(found - angles)[:, fingers, 0]).max() < 2
    assert np.rad2deg(np.abs(found - angles)[:, fingers, 1]).max() < 4
    # Twists that do occur are explained, but for a few of the thumb's.
    assert beyond_limits(joint_angles(hands(drawn(200, seed=2))[1]))["poses_beyond"] <= 0.05


def test_other_shapes_are_not_called_implausible() -> None:
    shape = np.random.default_rng(3).normal(0, 1, (200, 10))
    assert beyond_limits(joint_angles(hands(drawn(200), shape=shape)[1]))["poses_beyond"] <= 0.05


@pytest.mark.parametrize(
    ("joint", "angle", "degrees"),
    [(2, 0, -40.0), (1, 0, 120.0), (5, 1, 25.0), (15, 0, -40.0), (8, 0, 130.0)],
    ids=["backwards", "through the palm", "sideways", "thumb backwards", "folded too far"],
)
def test_what_no_hand_can_do_is_found_at_its_joint(joint: int, angle: int, degrees: float) -> None:
    angles = np.zeros((1, 15, 3))
    angles[0, joint - 1, angle] = np.deg2rad(degrees)
    pose, joints = hands(angles)
    limits = np.rad2deg(MODEL.joint_limits[joint - 1, angle])
    excess = max(limits[0] - degrees, degrees - limits[1])
    for found in (pose_angles(pose), joint_angles(joints)):
        result = beyond_limits(found)
        assert result["poses_beyond"] == 1
        assert result["joints_beyond"] == pytest.approx(1 / 15)
        assert result["beyond_deg"] == pytest.approx(excess, abs=3)
        assert beyond_limits(found, tolerance_deg=excess + 5)["poses_beyond"] == 0


def test_spread_is_the_standard_deviation_within_subjects() -> None:
    shape = np.repeat(np.random.default_rng(4).normal(0, 1, (5, 10)), 4, axis=0)
    _, joints = hands(drawn(20), shape=shape)
    subjects = np.repeat(np.arange(5), 4)
    assert bone_length_spread(joints, subjects)["spread_mm"] < 1e-3  # bones are rigid
    scaled = joints * np.tile([0.9, 1.0, 1.0, 1.1], 5)[:, None, None]
    result = bone_length_spread(np.concatenate([scaled, joints[:1]]), np.append(subjects, 77))
    assert result["spread"] == pytest.approx(np.std([0.9, 1, 1, 1.1], ddof=1), rel=1e-3)
    assert result["subjects"] == 5


def test_what_cannot_be_measured_is_refused() -> None:
    with pytest.raises(InputError, match=r"joints of shape \(3, 20, 3\), expected \(n, 21, 3\)"):
        joint_angles(np.zeros((3, 20, 3)))
    with pytest.raises(InputError, match="some are not finite"):
        bone_length_spread(np.full((2, 21, 3), np.nan), np.zeros(2))
    with pytest.raises(InputError, match="3 poses, no two of one subject"):
        bone_length_spread(np.zeros((3, 21, 3)), np.arange(3))
    bare = MODEL.__class__(**{**MODEL.__dict__, "joint_axes": None, "joint_limits": None})
    with pytest.raises(ConfigError, match="no joint axes and limits"):
        pose_angles(np.zeros((1, 48)), bare)


def test_a_bone_of_no_length_gives_finite_angles() -> None:
    _, joints = hands(np.zeros((1, 15, 3)))
    joints[:, 8] = joints[:, 7]
    assert np.isfinite(joint_angles(joints)).all()
    assert np.isfinite(joint_angles(np.zeros((1, 21, 3)))).all()
