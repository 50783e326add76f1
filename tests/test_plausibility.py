"""Whether joints are a hand's: each sign against its meaning, and the whole on synthetic frames."""

import numpy as np
import pytest

from handgraph import Hand, PinholeCamera
from handgraph.localize import Candidate, Plane, find_hands
from handgraph.plausibility import _BONES_MM, _ENDS, _ROOTS, _explained, plausibility, signs
from handgraph.skeleton import BONES
from handgraph.synthetic import DepthFrame, DepthSynthesizer

CAMERA = PinholeCamera(475.0, 475.0, 320.0, 240.0)


def hand_of(joints_mm: np.ndarray, camera: PinholeCamera = CAMERA) -> Hand:
    keypoints = camera.uvd_from_xyz(joints_mm)[:, :2]
    return Hand("right", 0.9, keypoints, np.zeros(4), joints_mm, confidence=np.full(21, 0.9), camera=camera)


def flat_hand(z_mm: float = 600.0) -> np.ndarray:
    """Five straight fingers from the wrist, all bones of a mean hand's lengths."""
    joints = np.zeros((21, 3))
    for finger, angle in enumerate(np.radians([-50, -15, 0, 15, 30])):
        reach = np.cumsum(_BONES_MM[4 * finger : 4 * finger + 4])
        joints[1 + 4 * finger : 5 + 4 * finger] = np.outer(reach, [np.sin(angle), -np.cos(angle), 0.0])
    return joints + np.array([0.0, 60.0, z_mm])


@pytest.fixture(scope="module")
def frames() -> list[DepthFrame]:
    return [DepthSynthesizer(6, "validation").frame(index) for index in range(12)]


def test_a_plane_covers_its_noise_and_what_is_behind_a_large_one() -> None:
    plane = Plane(np.array([0.0, 0.6, 0.8]), 800.0, large=False)
    on = np.array([[0.0, 0.0, 1000.0], [50.0, 400.0, 700.0]])
    np.testing.assert_allclose(on @ plane.normal, 800)
    assert plane.covers(on).all()
    assert plane.covers(on + 7.0 * plane.normal).all()
    assert not plane.covers(on - 20.0 * plane.normal).any()  # 20 mm nearer to the camera: a hand on it
    assert not plane.covers(on + 20.0 * plane.normal).any()
    assert plane._replace(large=True).covers(on + 20.0 * plane.normal).all()


def test_explained_surface_against_every_pixel_by_itself() -> None:
    depth = np.zeros((480, 640), np.float32)
    depth[150:330, 230:410] = 590.0
    depth[150:330, 350:410] = 640.0
    hand = hand_of(flat_hand())
    share, area_mm2, mean_mm = _explained(hand, depth, ())
    assert hand.joints_mm is not None
    joints, distances = hand.joints_mm, []
    middle = joints.mean(axis=0)
    fingers = joints[[5, 9, 13, 17]].mean(axis=0) - joints[0]
    for v, u in zip(*np.nonzero(depth), strict=True):
        point = CAMERA.xyz_from_uvd(np.array([u, v, depth[v, u]], np.float64))
        beyond = (point - joints[0]) @ fingers / np.linalg.norm(fingers) < -10
        if beyond or np.linalg.norm(point - middle) > 90:
            continue
        # A bone as a row of dots.
        along = (joints[_ENDS] - joints[_ROOTS])[:, None]
        dots = joints[_ROOTS, None] + np.linspace(0, 1, 20)[:, None] * along
        distances.append(np.linalg.norm(dots.reshape(-1, 3) - point, axis=1).min())
    every = np.array(distances)
    assert 0.3 < (every < 22).mean() < 0.9
    np.testing.assert_allclose(share, (every < 22).mean(), atol=0.04)
    np.testing.assert_allclose(mean_mm, every.mean(), atol=1.0)
    # The crop's pixels are of the same size at any depth; those of the frame grow with it.
    np.testing.assert_allclose(area_mm2, (every < 22).sum() * (590 / 475) ** 2, rtol=0.12)


def test_table_under_the_hand_does_not_count() -> None:
    depth = np.full((480, 640), 620.0, np.float32)
    hand = hand_of(flat_hand(600.0))
    u, v = np.round(hand.keypoints_px).astype(int).T
    for dv in range(-6, 7):
        for du in range(-6, 7):
            depth[v + dv, u + du] = 590.0
    table = Plane(np.array([0.0, 0.0, 1.0]), 620.0, large=True)
    seen = signs(hand, depth, (table,))
    everything = signs(hand, depth)
    assert everything.explained < 0.85
    assert seen.explained == 1.0
    assert seen.surface < everything.surface
    assert seen.off_bones < 1.5 < everything.off_bones


def test_joints_outside_and_nothing_to_see() -> None:
    hand = hand_of(flat_hand())
    empty = np.zeros((480, 640), np.float32)
    assert signs(hand, empty)[:4] == (0.0, 0.0, 0.0, 6.0)
    aside = hand_of(flat_hand() + np.array([1000.0, 0.0, 0.0]))
    assert signs(aside, empty + 590).outside == 1.0
    cut = hand_of(flat_hand() + np.array([0.0, -300.0, 0.0]))
    assert signs(cut, empty).outside == np.mean(cut.keypoints_px[:, 1] < 0) > 0


def test_size_and_proportions() -> None:
    joints, depth = flat_hand(), np.full((480, 640), 600.0, np.float32)
    mean = signs(hand_of(joints), depth)
    np.testing.assert_allclose([mean.proportions, mean.size], 0, atol=1e-6)
    large = signs(hand_of((joints - joints[0]) * 1.2 + joints[0]), depth)
    np.testing.assert_allclose([large.proportions, large.size], [0, np.log(1.2) ** 2], atol=1e-6)
    long = joints.copy()
    long[4] += 2.0 * (joints[4] - joints[3])  # the thumb's end is three times as long
    logs = np.zeros(20)
    logs[3] = np.log(3)
    np.testing.assert_allclose(signs(hand_of(long), depth).proportions, logs.std(), atol=1e-6)
    assert len(BONES) == len(_BONES_MM)


def test_true_hands_are_plausible_and_misplaced_or_misshapen_ones_are_not(frames: list[DepthFrame]) -> None:
    true, aside, shrunken, scattered = [], [], [], []
    for frame in frames:
        found = find_hands(frame.depth_mm, frame.camera)
        planes = found[0].planes if found else ()
        joints = frame.joints_mm.astype(np.float64)

        def judged(
            points: np.ndarray, frame: DepthFrame = frame, planes: tuple[Plane, ...] = planes
        ) -> float:
            hand = hand_of(points, frame.camera)
            place = Candidate(points.mean(axis=0), 250.0, (0.0, 0.0, 9.0, 9.0), 0.4, planes)
            return plausibility(hand, place, frame.depth_mm)

        true.append(judged(joints))
        aside.append(judged(joints + np.array([0.0, 0.0, 70.0])))  # deep below the skin
        shrunken.append(judged(joints.mean(axis=0) + 0.4 * (joints - joints.mean(axis=0))))
        curled = joints.copy()
        curled[1:] = joints[0] + np.random.default_rng(0).normal(0, 40, (20, 3))
        scattered.append(judged(curled))
    assert np.median(true) > 0.8
    assert max(np.median(aside), np.median(shrunken), np.median(scattered)) < 0.2
    for wrong in (aside, shrunken, scattered):
        assert np.mean(np.array(true) > np.array(wrong)) > 0.9
