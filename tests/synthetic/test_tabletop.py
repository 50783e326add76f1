"""Hands over tables: labels agree with the picture, and the scenes are what they are said to be."""

import cv2
import numpy as np
import pytest

from handgraph import ConfigError
from handgraph.synthetic.render import HAND, PLANE
from handgraph.synthetic.tabletop import TabletopSynthesizer, _hand_rotation


@pytest.fixture(scope="module")
def synthesizer() -> TabletopSynthesizer:
    return TabletopSynthesizer(1, "test", noise=False)


def test_hand_is_drawn_where_its_vertices_are_and_above_the_table(synthesizer: TabletopSynthesizer) -> None:
    for index in range(8):
        frame = synthesizer.frame(index)
        height, width = frame.depth_mm.shape
        assert frame.depth_mm.max() <= 6_000
        u, v, z = frame.camera.uvd_from_xyz(frame.vertices_mm).T
        column, row = np.round(u).astype(int), np.round(v).astype(int)
        inside = (column >= 0) & (row >= 0) & (column < width) & (row < height)
        label, depth = frame.label[row[inside], column[inside]], frame.depth_mm[row[inside], column[inside]]
        # Around a vertex something as near is drawn, or nearer; and never does the table hide it.
        around = cv2.erode(np.where(frame.depth_mm > 0, frame.depth_mm, 1e4), np.ones((3, 3)))
        assert (z[inside] - around[row[inside], column[inside]]).min() > -4
        behind = z[inside] - depth
        assert np.mean(behind[label == PLANE] > 6) < 0.01
        if (label == HAND).mean() > 0.5:
            assert np.mean(np.abs(behind[label == HAND]) < 3) > 0.2


def test_arms_come_from_all_sides_and_some_hands_reach_the_border(synthesizer: TabletopSynthesizer) -> None:
    frames = [synthesizer.frame(index) for index in range(32)]
    quadrants = set()
    cut = 0
    for frame in frames:
        uv = frame.camera.uvd_from_xyz(frame.joints_mm)[:, :2]
        quadrants.add(tuple(np.sign(uv[9] - uv[0]).astype(int)))
        height, width = frame.depth_mm.shape
        cut += bool((uv < 0).any() or (uv > (width - 1, height - 1)).any())
        assert (frame.label == PLANE).mean() > 0.1
    assert len(quadrants) == 4
    assert 1 <= cut <= 16
    contents = {name for frame in frames for name in frame.contents}
    assert {"table", "held", "body", "sleeve"} <= contents


def test_a_number_gives_one_frame_and_no_subject_is_in_two_splits() -> None:
    first, again = (TabletopSynthesizer(2, "test").frame(3) for _ in range(2))
    assert np.array_equal(first.depth_mm, again.depth_mm)
    assert np.array_equal(first.joints_mm, again.joints_mm)
    other = TabletopSynthesizer(2, "validation").frame(3)
    assert not np.array_equal(first.shape, other.shape)


def test_palm_down_without_roll() -> None:
    """The model's second axis points out of the back of the hand, its third to the thumb."""
    up, back = np.array([0.0, -1.0, 0.0]), np.array([0.0, 0.0, -1.0])  # fingers away from the camera
    rotation = _hand_rotation(back, up, 0.0, 0.0)
    np.testing.assert_allclose(rotation.T @ rotation, np.eye(3), atol=1e-12)
    assert np.linalg.det(rotation) > 0
    np.testing.assert_allclose(rotation[:, 0], back, atol=1e-12)
    np.testing.assert_allclose(rotation[:, 1], up, atol=1e-12)
    np.testing.assert_allclose(rotation[:, 2], [-1.0, 0.0, 0.0], atol=1e-12)  # a right thumb is on the left
    edge_on = _hand_rotation(back, up, np.pi / 2, 0.0)
    np.testing.assert_allclose(edge_on[:, 2], up, atol=1e-12)  # the thumb above


def test_bad_split_and_seed() -> None:
    with pytest.raises(ConfigError, match="split 'dev': expected one of train, validation, test"):
        TabletopSynthesizer(0, "dev")
    with pytest.raises(ConfigError, match="seed -1: expected one not below zero"):
        TabletopSynthesizer(-1)
