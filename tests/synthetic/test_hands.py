"""Subjects, poses and kinematics of the synthetic hands."""

import numpy as np
import pytest
import torch

from handgraph.hand_model.files import load_open_hand
from handgraph.hand_model.layer import HandLayer
from handgraph.synthetic import DepthSynthesizer
from handgraph.synthetic.hands import (
    FAMILIES,
    FAMILY_SHARES,
    FINGER_JOINTS,
    PENETRATION_MM,
    Rig,
    normal,
    penetration_mm,
    random_rotation,
    reach_with_thumb,
    rest_points,
    rig_from_model,
    sample_pose,
    seed_stream,
    subject_shape,
    uniform,
)


@pytest.fixture(scope="module")
def rig() -> Rig:
    return rig_from_model(load_open_hand())


def test_splitmix_gives_the_published_sequence() -> None:
    """First outputs of SplitMix64 seeded with 1234567 (Vigna's reference)."""
    from handgraph.synthetic.hands import next_u64

    state = np.array([1234567], np.uint64)
    assert [int(next_u64(state)) for _ in range(3)] == [
        6457827717110365317,
        3203168211198807973,
        9817491932198370423,
    ]


def test_random_numbers_have_their_moments() -> None:
    state = seed_stream(1, 2, 3, 4)
    flat = np.array([uniform(state, -1.0, 3.0) for _ in range(4000)])
    bell = np.array([normal(state, 5.0, 2.0) for _ in range(4000)])
    assert flat.min() >= -1
    assert flat.max() < 3
    assert abs(flat.mean() - 1) < 0.08
    assert abs(bell.mean() - 5) < 0.15
    assert abs(bell.std() - 2) < 0.1
    assert seed_stream(1, 2, 3, 4)[0] != seed_stream(1, 2, 4, 3)[0]


def test_rotations_are_uniform_over_the_sphere() -> None:
    state, turn, total, third = seed_stream(0, 0, 0, 0), np.empty((3, 3)), np.zeros(3), np.zeros(3)
    for _ in range(3000):
        random_rotation(state, turn)
        total += turn[:, 0]
        third += turn[:, 0] ** 2
    assert np.allclose(turn @ turn.T, np.eye(3), atol=1e-12)
    assert np.linalg.det(turn) > 0
    assert np.abs(total / 3000).max() < 0.05
    assert np.allclose(third / 3000, 1 / 3, atol=0.03)


def test_splits_share_no_subject_and_shapes_are_wide() -> None:
    shapes = {split: np.array([subject_shape(0, split, k) for k in range(200)]) for split in range(3)}
    for a, b in ((0, 1), (0, 2), (1, 2)):
        assert np.linalg.norm(shapes[a][:, None] - shapes[b][None], axis=-1).min() > 0.3
    assert 1.15 < shapes[0].std() < 1.35
    assert np.abs(shapes[0]).max() <= 3


def test_poses_stay_within_limits_and_apart_and_visit_every_family(rig: Rig) -> None:
    shares, angles, seen = np.array(FAMILY_SHARES), np.empty((15, 3)), set()
    for index in range(400):
        state = seed_stream(0, 1, index, 0)
        rest = rest_points(rig, subject_shape(0, 1, index))
        seen.add(FAMILIES[sample_pose(rig, rest, state, shares, angles)])
        assert (angles >= rig.limits[..., 0] - 1e-9).all()
        assert (angles <= rig.limits[..., 1] + 1e-9).all()
        # The safe pose is the last resort, and is itself almost clear in a hand with thick fingers.
        assert penetration_mm(rig, rest, angles) <= PENETRATION_MM + 1.0
    assert seen == set(FAMILIES)


def test_penetration_is_found_where_fingers_cross(rig: Rig) -> None:
    rest = rest_points(rig, np.zeros(10))
    flat = np.zeros((15, 3))
    crossed = flat.copy()
    for finger in (1, 3):  # index and ring finger, both driven through the middle one
        crossed[FINGER_JOINTS[finger] - 1, 1] = -0.6 * rig.spread[finger]
    assert penetration_mm(rig, rest, flat) < PENETRATION_MM
    assert penetration_mm(rig, rest, crossed) > 2 * PENETRATION_MM


def test_the_thumb_reaches_the_index_tip(rig: Rig) -> None:
    rest = rest_points(rig, np.zeros(10))
    angles = np.zeros((15, 3))
    # A point before the palm that an opposed thumb can touch: halfway to the index knuckle, off the palm.
    target = 0.35 * rest[0] + 0.65 * rest[1]
    target[1] -= 45.0
    left = reach_with_thumb(rig, rest, angles, target, 0.0)
    assert left < 8.0
    assert (angles[:12] == 0).all()
    assert np.abs(angles[12:]).max() > 0.1


def test_joints_are_those_of_the_hand_layer() -> None:
    synthesizer, layer = DepthSynthesizer(5, "validation"), HandLayer(load_open_hand())
    for index in range(4):
        sample = synthesizer.sample(index)
        posed = layer(*(torch.tensor(x)[None] for x in (sample.shape, sample.pose, sample.translation_mm)))
        assert np.abs(posed.joints_mm[0].numpy() - sample.joints_mm).max() < 1e-3
    frame = synthesizer.frame(0)
    posed = layer(*(torch.tensor(x)[None] for x in (frame.shape, frame.pose, frame.translation_mm)))
    assert np.abs(posed.vertices_mm[0].numpy() - frame.vertices_mm).max() < 2e-3
