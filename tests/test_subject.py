"""Subjects: calibrated from hands and from shipped depth frames, kept in files, refused when damaged."""

import json
import shutil
from dataclasses import replace
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from handgraph import FormatError, InputError, PinholeCamera
from handgraph.decoding.jgr_p2o import SHAPE_ERROR
from handgraph.hand import RELATIVE_FRAME, Hand
from handgraph.hand_model import HandLayer
from handgraph.hand_model.calibration import bone_lengths_mm, calibrate
from handgraph.images import read_depth
from handgraph.subject import Subject, personalize, personalize_files, read_subject, write_subject

SAMPLES = Path(str(files("handgraph") / "samples"))


def hands_of(shape: np.ndarray, n: int, side: str = "right", noise: float = 0.0) -> list[Hand]:
    """Hands in random poses, with shape and pose of their own; score 0.9 where the noise is small."""
    random = np.random.default_rng(0)
    layer = HandLayer(side=side)
    found = []
    for index in range(n):
        own = shape + noise * random.normal(size=10) * (index + 1)
        pose = 0.3 * random.normal(size=48)
        joints = layer.joints(torch.from_numpy(shape).float(), torch.from_numpy(pose).float()).numpy()
        found.append(
            Hand(
                side=side, score=0.9 - 0.1 * index, keypoints_px=np.zeros((21, 2)), box_px=np.zeros(4),
                joints_mm=joints + np.array([0, 0, 500]), pose=pose, shape=own,
                camera=PinholeCamera(500.0, 500.0, 160.0, 120.0),
            )
        )  # fmt: skip
    return found


@pytest.fixture
def subject() -> Subject:
    return personalize(hands_of(np.linspace(-1, 1, 10), 3), ["a.png", "b.png", "ç.png"], "jgr_p2o")


def test_a_subject_is_the_same_after_writing_and_reading(subject: Subject, tmp_path: Path) -> None:
    write_subject(tmp_path / "subject.json", subject)
    again = read_subject(tmp_path / "subject.json")
    assert again.summary() == subject.summary()
    assert again.files == ("a.png", "b.png", "ç.png")
    assert again.n == 3
    assert list(tmp_path.iterdir()) == [tmp_path / "subject.json"]


def test_the_summary_has_what_the_command_promises(subject: Subject) -> None:
    summary = json.loads(json.dumps(subject.summary()))
    assert {"shape", "hand_length_mm", "hand_width_mm", "weights", "n"} <= set(summary)
    assert len(summary["shape"]) == 10
    assert sum(summary["weights"]) == pytest.approx(1, abs=1e-5)


def test_joints_give_the_size_and_the_bones_of_the_hand(subject: Subject) -> None:
    true = bone_lengths_mm(HandLayer(), np.linspace(-1, 1, 10))
    assert np.abs(subject.bone_lengths_mm - true).max() < 2.5
    assert subject.bone_mm((9, 10)) == subject.bone_lengths_mm[9]
    middle = [subject.bone_mm(bone) for bone in ((0, 9), (9, 10), (10, 11), (11, 12))]
    assert subject.hand_mm == pytest.approx(sum(middle))


@pytest.mark.parametrize("side", ["right", "left"])
def test_identity_mesh_is_calibrated_by_meshes(side: str) -> None:
    true = np.linspace(-1, 1, 10)
    hands = hands_of(true, 4, side, noise=0.1)
    found = personalize(hands, list("abcd"), "identity_mesh")
    shapes, poses = (np.stack([getattr(h, n) for h in hands]).astype(np.float64) for n in ("shape", "pose"))
    if side == "left":
        poses *= np.tile([1.0, -1.0, -1.0], 16)
    confidence = np.array([np.log(h.score / (1 - h.score)) for h in hands])
    expected = calibrate(HandLayer(), shapes, poses, confidence)
    np.testing.assert_allclose(found.shape, expected.shape, atol=1e-5)
    assert found.weights[0] > found.weights[3]
    alike = personalize(hands, list("abcd"), "identity_mesh", attention=False)
    np.testing.assert_allclose(alike.weights, 0.25)


def test_hands_without_millimetres_are_refused() -> None:
    hand = replace(hands_of(np.zeros(10), 1)[0], frame=RELATIVE_FRAME)
    with pytest.raises(InputError, match=r"^a\.png: hybrid_gcn does not give millimetres"):
        personalize([hand], ["a.png"], "hybrid_gcn")
    with pytest.raises(InputError, match="no hand was found"):
        personalize([], [], "jgr_p2o")


def test_depth_frames_are_enough(tmp_path: Path) -> None:
    """The shipped frames through the shipped weights: an adult's hand, and a line for what is no frame."""
    from handgraph.estimator import load

    frames = sorted(SAMPLES.glob("depth_*.png"))[:2]
    label = json.loads((SAMPLES / "labels.jsonl").read_text().splitlines()[0])
    camera = PinholeCamera(*(label["camera"][key] for key in ("fx", "fy", "cx", "cy")))
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"no image")
    estimate = load("jgr_p2o")
    subject, problems = personalize_files([frames[0], broken, frames[1]], estimate, camera=camera)
    # Laid hands have a shape each, whose mean is off by some in every one; others have distances alone.
    alone, _ = personalize_files([frames[0]], estimate, camera=camera)
    frame = read_depth(frames[0])
    hand = estimate(frame.depth_mm, camera=camera)[0]
    np.testing.assert_allclose(alone.shape, hand.shape, atol=1e-5)
    np.testing.assert_allclose(alone.shape_sd, SHAPE_ERROR, rtol=1e-4)
    estimate.optimise = False
    other, _ = personalize_files([frames[0]], estimate, camera=camera)
    assert np.abs(other.shape - alone.shape).max() > 0.1
    assert abs(other.hand_length_mm - alone.hand_length_mm) < 20
    assert subject.n == 2
    assert 130 < subject.hand_length_mm < 240
    assert len(problems) == 1
    assert problems[0].startswith(str(broken))
    assert not subject.assumed_camera
    alone = [shutil.copy(frame, tmp_path) for frame in frames]  # without the labels, which know the camera
    unknown, _ = personalize_files(alone, load("jgr_p2o"))
    assert unknown.assumed_camera
    write_subject(tmp_path / "unknown.json", unknown)
    assert read_subject(tmp_path / "unknown.json").assumed_camera
    with pytest.raises(InputError, match="no hand was found in any of the 1 images"):
        personalize_files([broken], load("jgr_p2o"))


def changed(change: dict[str, Any]) -> Any:
    def make(document: dict[str, Any]) -> str:
        return json.dumps(document | change)

    return make


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda d: json.dumps(d)[:40], "not JSON"),
        (lambda d: "", "not JSON"),
        (lambda d: "[" * 100_000, "not JSON"),
        (lambda d: "[1, 2]", "expected an object with format 'handgraph subject'"),
        (lambda d: " " * 2**21, "too large for a subject"),
        (lambda d: json.dumps({k: v for k, v in d.items() if k != "shape"}), "the key 'shape' is missing"),
        (changed({"version": 2}), "version is 2, this handgraph reads 1"),
        (changed({"shape": [0.0] * 9}), r"shape: found shape \(9,\), expected \(10,\)"),
        (changed({"shape": ["x"] * 10}), "shape: expected 10 numbers"),
        (changed({"shape": [float("nan")] * 10}), "shape: holds a number that cannot be a hand's"),
        (changed({"shape": [[1], [2, 3]]}), "shape: expected 10 numbers"),
        (changed({"hand_length_mm": -3}), "hand_length_mm is -3.0, expected millimetres of a hand"),
        (changed({"hand_width_mm": True}), "hand_width_mm is 'True', expected a number"),
        (changed({"weights": [0.5, 0.5]}), r"weights: found shape \(2,\), expected \(3,\)"),
        (changed({"weights": [2.0, -0.5, -0.5]}), "the weights are not shares of one"),
        (changed({"files": "a"}), "files: expected a list of names"),
        (changed({"model": 3}), "model is 3, expected text"),
    ],
)
def test_a_bad_file_is_refused_in_one_line(
    spoil: Any, message: str, subject: Subject, tmp_path: Path
) -> None:
    path = tmp_path / "subject.json"
    write_subject(path, subject)
    path.write_text(spoil(json.loads(path.read_text(encoding="utf-8"))), encoding="utf-8")
    with pytest.raises(FormatError, match=message) as caught:
        read_subject(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(FormatError, match=r"nobody\.json: cannot be read"):
        read_subject(tmp_path / "nobody.json")
