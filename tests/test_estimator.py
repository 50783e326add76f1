"""The estimator with a network of known answers, and with random weights where any will do."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import handgraph as hg
from handgraph import estimator as module
from handgraph import localize
from handgraph.answering import TorchNetwork
from handgraph.decoding import jgr_p2o as decoding
from handgraph.estimator import Estimator, load, weights_path
from handgraph.hand import CAMERA_FRAME, Side
from handgraph.hand_model import load_open_hand
from handgraph.localize import Candidate
from handgraph.meshes import with_mesh
from handgraph.subject import personalize
from handgraph.synthetic.depth import DepthSynthesizer
from handgraph.systems import jgr_p2o
from handgraph.training.checkpoint import save_weights

CAMERA = hg.PinholeCamera(300.0, 310.0, 150.0, 110.0)
CONFIG = jgr_p2o.Config(hourglasses=1, width=16)


@pytest.fixture(scope="module")
def network() -> torch.nn.Module:
    """Random weights whose normalisation has seen a batch, so that answers differ between frames."""
    torch.manual_seed(0)
    built = CONFIG.build().train()
    with torch.no_grad():
        for _ in range(20):
            built(torch.rand(8, 1, 96, 96) * 2 - 1)
    return built.eval()


@pytest.fixture
def estimate(network: torch.nn.Module) -> Estimator:
    """Reports whatever the random network says."""
    made = Estimator(TorchNetwork(network, "jgr_p2o", CONFIG))
    made.least_score = 0.0
    return made


@pytest.fixture(autouse=True)
def any_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    """A random network is never sure, and its joints lie close together."""
    monkeypatch.setattr(module, "SMALLEST_HAND_MM", 0.0)
    monkeypatch.setattr(module, "LEAST_PLAUSIBILITY", 0.0)


@pytest.fixture
def frame() -> np.ndarray:
    """An arm that reaches into the frame from below, with a relief that no mirror leaves alone."""
    depth_mm = np.zeros((240, 320), np.float32)
    rows, columns = np.mgrid[0:240, 0:320].astype(np.float32)
    hand = (columns - 200) ** 2 / 28**2 + (rows - 100) ** 2 / 36**2 < 1
    arm = (np.abs(columns - 200) < 15) & (rows > 100)
    depth_mm[hand | arm] = (420 + 0.4 * (columns - 200) + 0.2 * (rows - 100))[hand | arm]
    return depth_mm


def only(hands: list[hg.Hand]) -> hg.Hand:
    assert len(hands) == 1
    return hands[0]


def test_joints_project_onto_the_keypoints(estimate: Estimator, frame: np.ndarray) -> None:
    hand = only(estimate(frame, camera=CAMERA))
    assert hand.joints_mm is not None
    assert hand.joints_mm.shape == (21, 3)
    np.testing.assert_allclose(CAMERA.uvd_from_xyz(hand.joints_mm)[:, :2], hand.keypoints_px, atol=1e-2)
    assert (hand.side, hand.camera, hand.frame) == ("right", CAMERA, CAMERA_FRAME)


def test_left_hand_is_the_mirror_image_of_the_right_one(estimate: Estimator, frame: np.ndarray) -> None:
    mirrored_camera = hg.PinholeCamera(CAMERA.fx, CAMERA.fy, 319 - CAMERA.cx, CAMERA.cy)
    right = only(estimate(frame, camera=CAMERA))
    left = only(estimate(frame[:, ::-1], camera=mirrored_camera, side="left"))
    assert left.side == "left"
    np.testing.assert_allclose(left.joints_mm, right.joints_mm * [-1, 1, 1], atol=0.05)
    np.testing.assert_allclose(left.keypoints_px[:, 0], 319 - right.keypoints_px[:, 0], atol=0.05)
    unmirrored = only(estimate(frame[:, ::-1], camera=mirrored_camera))
    assert np.abs(unmirrored.joints_mm - left.joints_mm).max() > 1, "the side must matter"


def test_left_with_a_box(estimate: Estimator, frame: np.ndarray) -> None:
    mirrored_camera = hg.PinholeCamera(CAMERA.fx, CAMERA.fy, 319 - CAMERA.cx, CAMERA.cy)
    right = only(estimate(frame, camera=CAMERA, box=(160.0, 50.0, 80.0, 100.0)))
    left = only(estimate(frame[:, ::-1], camera=mirrored_camera, box=(80.0, 50.0, 80.0, 100.0), side="left"))
    np.testing.assert_allclose(left.joints_mm, right.joints_mm * [-1, 1, 1], atol=0.05)


def test_box_leads_to_the_hand_in_it(estimate: Estimator, frame: np.ndarray) -> None:
    both = np.maximum(frame, np.roll(frame, -120, axis=1))
    left_one = only(estimate(both, camera=CAMERA, box=(40.0, 50.0, 80.0, 100.0)))
    right_one = only(estimate(both, camera=CAMERA, box=(160.0, 50.0, 80.0, 100.0)))
    assert left_one.keypoints_px[:, 0].mean() < 140
    assert right_one.keypoints_px[:, 0].mean() > 140


def test_looks_turn_the_centred_crop_and_are_averaged(
    network: torch.nn.Module, estimate: Estimator, frame: np.ndarray
) -> None:
    counts: list[int] = []
    network_alone = estimate._network

    def counted(images: np.ndarray) -> Any:
        counts.append(len(images))
        return network_alone(images)

    estimate._network = counted  # type: ignore[assignment]
    once = only(estimate(frame, CAMERA, box=(100.0, 50.0, 200.0, 150.0)))
    estimate.looks = 4
    often = only(estimate(frame, CAMERA, box=(100.0, 50.0, 200.0, 150.0)))
    assert counts[-1] == 4 * counts[1]
    assert not np.array_equal(once.joints_mm, often.joints_mm)
    for wrong in (0, 5):
        with pytest.raises(hg.ConfigError, match=f"looks is {wrong}, expected 1 to 4"):
            estimate.looks = wrong


@pytest.mark.parametrize("side", ["right", "left"])
def test_looks_by_quarter_turns_see_a_joint_in_one_place(
    estimate: Estimator, frame: np.ndarray, side: Side
) -> None:
    frame[77:84, 187:194] = 350 + np.arange(49).reshape(7, 7)  # before everything else, no two alike

    def nearest(images: np.ndarray) -> Any:
        """All joints at the nearest pixel: no turn of the crop leaves it where it is."""
        rows, columns = np.divmod(images.reshape(len(images), -1).argmin(axis=1), images.shape[-1])
        seen = np.stack([columns, rows], axis=-1) / (images.shape[-1] - 1)
        uvz = np.concatenate([seen, images.min(axis=(1, 2, 3))[:, None]], axis=-1)
        return decoding.Answer(uvz[:, None].repeat(21, axis=1), np.full((len(images), 21), 0.05))

    estimate._network = nearest  # type: ignore[assignment]
    candidate = Candidate(np.array([40.0, -10.0, 420.0]), 250.0, (0.0, 0.0, 9.0, 9.0), 0.5)
    once, often = (estimate._at(frame, CAMERA, side, [candidate], looks)[0] for looks in (1, 4))
    assert once.joints_mm is not None
    assert often.joints_mm is not None
    np.testing.assert_allclose(once.keypoints_px[0], [190, 80], atol=4)
    np.testing.assert_allclose(often.joints_mm, once.joints_mm, atol=1e-3)


def test_without_a_camera_one_is_assumed_and_the_hand_says_so(estimate: Estimator, frame: np.ndarray) -> None:
    hand = only(estimate(frame))
    assert hand.camera == hg.PinholeCamera(0.92 * 320, 0.92 * 320, 159.5, 119.5)
    assert hand.frame.startswith(CAMERA_FRAME)
    assert "camera is assumed" in hand.frame


def test_a_list_of_frames_gives_a_list_for_each(estimate: Estimator, frame: np.ndarray) -> None:
    empty = np.zeros_like(frame)
    empty[0, 0] = 500
    first, none = estimate([frame, empty], camera=CAMERA)
    np.testing.assert_array_equal(only(first).joints_mm, only(estimate(frame, camera=CAMERA)).joints_mm)
    assert none == []


def test_unsure_is_no_hand(estimate: Estimator, frame: np.ndarray) -> None:
    hand = only(estimate(frame, camera=CAMERA))
    estimate.least_score = hand.score * 1.01
    assert estimate(frame, camera=CAMERA) == []


def test_collapsed_skeleton_is_no_hand(
    estimate: Estimator, frame: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "SMALLEST_HAND_MM", 1e6)
    assert estimate(frame, camera=CAMERA) == []


class Known:
    """A system whose decoder says where it was asked to look; stands in for a trained one."""

    def __init__(self, scores: Sequence[float]) -> None:
        self.scores = list(scores)
        self.looked: list[float] = []

    def together(self, answer: object, looks: int) -> object:
        assert looks == 1
        return answer

    def hands(self, answer: object, crops: Sequence[hg.Crop]) -> list[hg.Hand]:
        hands = []
        for crop in crops:
            (u, v) = crop.image_px(np.full(2, (crop.size - 1) / 2))
            assert crop.camera is not None
            assert crop.center_depth_mm is not None
            center = crop.camera.xyz_from_uvd(np.array([u, v, crop.center_depth_mm]))
            self.looked.append(float(center[0]))
            # A hand as long as a hand, 12 mm to the right of where it was looked for.
            joints = center + np.array([12.0, 0, 0]) + np.linspace(-1, 1, 21)[:, None] * [0, 90.0, 0]
            joints[1:] += np.random.default_rng(0).normal(0, 10, (20, 3))
            joints += center + np.array([12.0, 0, 0]) - joints.mean(axis=0)
            keypoints = crop.camera.uvd_from_xyz(joints)[:, :2]
            hands.append(
                hg.Hand("right", self.scores.pop(0), keypoints, np.zeros(4), joints, camera=crop.camera)
            )
        return hands


def looked_at(
    estimate: Estimator, monkeypatch: pytest.MonkeyPatch, frame: np.ndarray, scores: Sequence[float]
) -> tuple[list[float], hg.Hand]:
    """The x of every crop's centre, with candidates at x = 0, 200 mm and so on, one for every two scores."""
    places = [
        Candidate(np.array([200.0 * index, 0.0, 500.0]), 250.0, (0.0, 0.0, 9.0, 9.0), 0.5)
        for index in range((len(scores) + 1) // 2)
    ]
    monkeypatch.setattr(localize, "find_hands", lambda *_, **__: places)
    known = Known(scores)
    monkeypatch.setattr(estimate, "_decoder", known)
    monkeypatch.setattr(module, "plausibility", lambda hand, *_: hand.score)
    hand = only(estimate(frame, camera=CAMERA))
    return known.looked, hand


def test_a_convincing_first_candidate_ends_the_search(
    estimate: Estimator, frame: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    looked, hand = looked_at(estimate, monkeypatch, frame, [0.5, 0.95])
    np.testing.assert_allclose(looked, [0, 12], atol=0.01)
    assert hand.score == 0.95
    assert hand.joints_mm is not None
    np.testing.assert_allclose(hand.joints_mm[:, 0].mean(), 24, atol=0.01)


def test_an_unconvincing_one_makes_it_look_further(
    estimate: Estimator, frame: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    looked, hand = looked_at(estimate, monkeypatch, frame, [0.9, 0.6, 0.1, 0.8])
    np.testing.assert_allclose(looked, [0, 12, 200, 212], atol=0.01)
    assert hand.score == 0.8, "the second look decides"


def test_of_many_places_the_most_plausible_get_a_second_look(
    estimate: Estimator, frame: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "SECOND_LOOKS", 2)
    first, further, second = [0.3, 0.4], [0.1, 0.3, 0.5, 0.2], [0.2, 0.6]
    looked, hand = looked_at(estimate, monkeypatch, frame, [*first, *further, *second, 0.0, 0.0])
    np.testing.assert_allclose(looked, [0, 12, 200, 400, 600, 800, 612, 412], atol=0.01)
    assert hand.score == 0.6
    assert hand.joints_mm is not None
    np.testing.assert_allclose(hand.joints_mm[:, 0].mean(), 424, atol=0.01)


def test_what_is_hardly_plausible_is_reported_only_in_a_box(
    estimate: Estimator, frame: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "LEAST_PLAUSIBILITY", 1.0)
    assert estimate(frame, camera=CAMERA) == []
    assert len(estimate(frame, camera=CAMERA, box=(160.0, 50.0, 80.0, 100.0))) == 1


@pytest.mark.parametrize(
    ("depth", "message"),
    [
        (np.zeros((48, 64), np.float32), "no pixel has a reading"),
        (np.full((48, 64), 0.5, np.float32), "looks like metres"),
        (np.ones((3, 48, 64), np.float32), "expected one depth frame of shape"),
        (np.full((2, 2), 500.0, np.float32), "2x2 pixels, expected at least"),
    ],
)
def test_arrays_that_are_no_frames(estimate: Estimator, depth: np.ndarray, message: str) -> None:
    with pytest.raises(hg.FormatError, match=message):
        estimate(depth)
    with pytest.raises(hg.FormatError, match=f"depth frame 1: .*{message}"):
        estimate([np.full((48, 64), 500.0, np.float32), depth])


def test_load_from_a_checkpoint(tmp_path: Path, network: torch.nn.Module, frame: np.ndarray) -> None:
    save_weights(tmp_path / "mine.safetensors", network, "jgr_p2o", CONFIG, meta={"trained_on": "noise"})
    loaded = hg.load(checkpoint=tmp_path / "mine")
    assert (loaded.name, loaded.config, loaded.meta["trained_on"]) == ("jgr_p2o", CONFIG, "noise")
    loaded.least_score = 0.0
    same = Estimator(TorchNetwork(network, "jgr_p2o", CONFIG))
    same.least_score = 0.0
    np.testing.assert_allclose(
        only(loaded(frame, camera=CAMERA)).joints_mm, only(same(frame, camera=CAMERA)).joints_mm, atol=1e-3
    )
    with pytest.raises(hg.CheckpointError, match="no such weights file"):
        load(checkpoint=tmp_path / "other")


def test_load_refuses_what_it_does_not_know(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with pytest.raises(hg.ConfigError, match="unknown system 'jgr_p3o', expected one of"):
        load("jgr_p3o")
    monkeypatch.setattr(module, "weights_path", lambda name: tmp_path / "none.safetensors")
    with pytest.raises(hg.CheckpointError, match="jgr_p2o: no weights are shipped"):
        load("jgr_p2o")


def test_a_network_of_other_joints_is_refused() -> None:
    config = jgr_p2o.Config(joints=14, hourglasses=1, width=16)
    with pytest.raises(hg.ConfigError, match="predicts 14 joints, a hand has 21"):
        Estimator(TorchNetwork(config.build(), "jgr_p2o", config))


@pytest.mark.skipif(not weights_path("jgr_p2o").is_file(), reason="no shipped weights in this checkout")
def test_shipped_weights_find_synthetic_hands() -> None:
    estimate, synthesizer = load("jgr_p2o"), DepthSynthesizer(21, "test")
    errors = []
    for index in range(12):
        scene = synthesizer.frame(index)
        found = estimate(scene.depth_mm, camera=scene.camera)
        if found and found[0].joints_mm is not None:
            errors.append(np.linalg.norm(found[0].joints_mm - scene.joints_mm, axis=1).mean())
    assert len(errors) >= 6
    assert np.median(errors) < 25


@pytest.fixture
def certain(monkeypatch: pytest.MonkeyPatch) -> Any:
    """An estimator that sees the joints of one synthetic frame, some millimetres off, and that frame."""
    scene = DepthSynthesizer(9, "test").frame(4)
    joints = scene.joints_mm + np.random.default_rng(0).normal(0, 4, (21, 3))
    made = Estimator(TorchNetwork(CONFIG.build(), "jgr_p2o", CONFIG))
    made.least_score = 0.0

    def says(self: Estimator, depth_mm: Any, camera: Any, side: Side, candidates: Any, looks: int = 1) -> Any:
        seen = joints * [-1, 1, 1] if side == "left" else joints
        cubes = [hg.Crop.cube(seen.mean(0), 250.0, camera, 96, mirrored=side == "left")] * len(candidates)
        uvz = np.stack([cube.uvz_from_xyz(seen) for cube in cubes])
        return decoding.hands(decoding.Answer(uvz, np.full(uvz.shape[:2], 0.05)), cubes)

    monkeypatch.setattr(Estimator, "_at", says)
    return made, scene, joints


def test_a_laid_hand_has_joints_pose_and_shape_of_the_hand_model(certain: Any) -> None:
    estimate, scene, joints = certain
    assert not estimate.optimise, "weights that say nothing of their training are not laid"
    plain = only(estimate(scene.depth_mm, camera=scene.camera))
    np.testing.assert_allclose(plain.joints_mm, joints, atol=0.01)
    assert plain.pose is None
    estimate.optimise = True
    laid = only(estimate(scene.depth_mm, camera=scene.camera))
    off = [np.linalg.norm(hand.joints_mm - scene.joints_mm, axis=1).mean() for hand in (laid, plain)]
    assert off[0] < 0.8 * off[1]
    np.testing.assert_allclose(scene.camera.uvd_from_xyz(laid.joints_mm)[:, :2], laid.keypoints_px, atol=1e-3)
    np.testing.assert_allclose(laid.box_px[:2], laid.keypoints_px.min(axis=0), atol=1e-3)
    assert laid.score == plain.score
    mesh = with_mesh(laid)
    assert mesh.vertices_mm is not None
    tips = mesh.vertices_mm[load_open_hand().tip_vertices]
    np.testing.assert_allclose(tips, laid.joints_mm[[4, 8, 12, 16, 20]], atol=1e-3)


def test_a_laid_left_hand_is_the_mirror_image(certain: Any) -> None:
    estimate, scene, _ = certain
    estimate.optimise = True
    right = only(estimate(scene.depth_mm, camera=scene.camera))
    camera = hg.PinholeCamera(
        scene.camera.fx, scene.camera.fy, scene.depth_mm.shape[1] - 1 - scene.camera.cx, scene.camera.cy
    )
    left = only(estimate(np.ascontiguousarray(scene.depth_mm[:, ::-1]), camera=camera, side="left"))
    assert left.side == "left"
    np.testing.assert_allclose(left.joints_mm * [-1, 1, 1], right.joints_mm, atol=0.5)
    both = [with_mesh(hand).vertices_mm for hand in (left, right)]
    np.testing.assert_allclose(both[0] * [-1, 1, 1], both[1], atol=0.6)


def test_a_laid_hand_keeps_the_shape_of_its_subject(certain: Any, tmp_path: Path) -> None:
    estimate, scene, _ = certain
    estimate.optimise = True
    hand = only(estimate(scene.depth_mm, camera=scene.camera))
    subject = replace(personalize([hand], ["frame.png"], "jgr_p2o"), shape=hand.shape + 0.3)
    known = only(estimate(scene.depth_mm, camera=scene.camera, subject=subject))
    np.testing.assert_allclose(known.shape, subject.shape, atol=1e-6)
    assert np.abs(known.shape - hand.shape).max() > 0.01


def test_several_hands_are_distinct_and_no_more_than_asked_for(
    estimate: Estimator, frame: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two arms, one the mirror image of the other; a random network finds one hand at each end."""
    monkeypatch.setattr(module, "NEXT_PLAUSIBILITY", 0.0)
    both = np.maximum(frame, np.roll(frame, -120, axis=1))
    hands = estimate(both, camera=CAMERA, most=2, side="left")
    assert [hand.side for hand in hands] == ["left", "left"]
    middles = sorted(float(hand.keypoints_px[:, 0].mean()) for hand in hands)
    assert abs(middles[0] - 80) < 60
    assert abs(middles[1] - 200) < 60
    assert len(estimate(both, camera=CAMERA)) == 1
    assert len(estimate(frame, camera=CAMERA, most=2)) <= 2
    with pytest.raises(hg.errors.InputError, match="most is 0, expected how many hands"):
        estimate(frame, most=0)
