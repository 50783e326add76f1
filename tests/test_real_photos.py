"""What the rows of the real photographs mean, on hands made for it: sizes, persons, meshes."""

import importlib.util
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from handgraph import Hand, PinholeCamera
from handgraph.datasets import Sample
from handgraph.errors import ConfigError
from handgraph.hand import CAMERA_FRAME, RELATIVE_FRAME
from handgraph.hand_model import HandLayer
from handgraph.placement import bone_lengths, hand_length
from handgraph.skeleton import OPENPOSE
from handgraph.systems import hybrid_gcn, identity_mesh

FAR = np.array([10.0, -20.0, 500.0])


@pytest.fixture(scope="module")
def bench() -> ModuleType:
    folder = Path(__file__).parents[1] / "benchmarks"
    sys.path.insert(0, str(folder))
    try:
        spec = importlib.util.spec_from_file_location("real_photos", folder / "real_photos.py")
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
    finally:
        sys.path.remove(str(folder))
    return module


@pytest.fixture(scope="module")
def posed() -> tuple[np.ndarray, np.ndarray]:
    """Joints and vertices of three poses of one hand, about the wrist, mm."""
    random = np.random.default_rng(0)
    pose = torch.from_numpy(0.3 * random.normal(size=(3, 48))).float()
    mesh = HandLayer()(torch.zeros(3, 10), pose)
    joints, vertices = mesh.joints_mm.double().numpy(), mesh.vertices_mm.double().numpy()
    return joints - joints[:, :1], vertices - joints[:, :1]


def labelled(joints_mm: np.ndarray, **more: Any) -> Sample:
    camera = PinholeCamera(400.0, 400.0, 160.0, 120.0)
    return Sample(
        "0.jpg", Path("0.jpg"), OPENPOSE, keypoints_px=camera.uvd_from_xyz(joints_mm + FAR)[:, :2],
        joints_mm=joints_mm + FAR, camera=camera, image=np.zeros((8, 8, 3), np.uint8), side="right", **more,
    )  # fmt: skip


def said(joints_mm: np.ndarray, frame: str = CAMERA_FRAME, **more: Any) -> Hand:
    return Hand("right", 0.9, np.zeros((21, 2)), np.array([0, 0, 1, 1]), joints_mm, frame=frame, **more)


def test_a_persons_bones_are_the_medians_over_their_frames_and_no_frames_own(bench, posed) -> None:
    joints, _ = posed
    factors = (1.0, 1.1, 3.0)
    samples = [("a", labelled(f * j, subject="1")) for f, j in zip(factors, joints, strict=True)]
    samples += [("a", labelled(0.8 * joints[0], subject="2")), ("b", labelled(joints[0]))]
    people = bench.people(samples)
    assert set(people) == {("a", "1"), ("a", "2"), ("b", None)}
    bones = np.stack([f * bone_lengths(j) for f, j in zip(factors, joints, strict=True)])
    np.testing.assert_allclose(people["a", "1"].bone_lengths_mm, np.median(bones, axis=0), rtol=1e-5)
    np.testing.assert_allclose(people["a", "2"].bone_lengths_mm, 0.8 * bone_lengths(joints[0]), rtol=1e-5)


def test_one_bone_and_all_bones_give_the_sizes_they_say(bench, posed) -> None:
    joints = posed[0][0]
    person = bench.people([("a", labelled(joints))])["a", None]
    # A label whose own bone is 1.2 times as long in this frame, and otherwise the person's.
    longer = joints.copy()
    longer[10:13] += 0.2 * (joints[10] - joints[9])
    unit = hybrid_gcn.unit_mm(person.bone_lengths_mm)
    for hand in (said(joints + FAR), said(joints / hand_length(joints), RELATIVE_FRAME)):
        by_one, by_all = bench.sizes(hand, longer, hybrid_gcn, person)
        size = np.linalg.norm(joints[10] - joints[9])
        assert by_one / by_all == pytest.approx(1.2 * size / unit)
        scaled = by_all * (hand.joints_mm - hand.joints_mm[:1])
        np.testing.assert_allclose(bone_lengths(scaled), bone_lengths(joints), rtol=1e-3)
    # Millimetres stay what they are by one bone; all bones scale them.
    by_one, by_all = bench.sizes(said(joints / 0.9 + FAR), longer, identity_mesh, person)
    assert by_one == 1.0
    assert by_all == pytest.approx(0.9, rel=1e-3)


def test_a_row_has_both_sizes_and_the_distances_of_meshes(bench, posed, monkeypatch) -> None:
    joints, vertices = posed
    monkeypatch.setattr(bench, "label_faces", lambda: HandLayer().model.faces)
    sample = labelled(joints[0], vertices_mm=vertices[0] + FAR)
    person = bench.people([("a", sample)])["a", None]
    row = bench.Row()
    larger = said(1.1 * joints[0] + 2 * FAR, vertices_mm=1.1 * vertices[0] + 2 * FAR)
    row.update(sample, [larger], identity_mesh, person)
    row.update(sample, [], identity_mesh, person)
    found = row.compute()
    assert (found["hands"], found["found"], found["side_right"]) == (2, 1, 1)
    assert found["mpjpe_mm"] == pytest.approx(0.1 * np.linalg.norm(joints[0], axis=1).mean(), rel=1e-3)
    assert found["scaled_by_all_bones_mpjpe_mm"] < 0.01
    assert found["pa_mpjpe_mm"] < 0.01
    assert 1.0 < found["surface_mm"] < 10.0
    assert found["pa_surface_mm"] < 0.01
    head, _, line = bench.markdown({"a": {"box": found}, "b": {"box": {"hands": 1, "found": 0}}}).split("\n")
    assert head.count("|") == line.count("|") == 10
    assert line.startswith("| a | 1 of 2 | box |")
    assert f"| {found['surface_mm']:.1f}, {found['pa_surface_mm']:.1f} |" in line


def test_before_and_after_are_asked_of_systems_that_know_the_difference(bench) -> None:
    class Cannot:
        optimise = property(lambda self: None, lambda self, value: (_ for _ in ()).throw(ConfigError("no")))

    assert bench.fittings(SimpleNamespace(optimise=None), "own") == {"": None}
    both = bench.fittings(SimpleNamespace(optimise=None), "both")
    assert both == {" before fitting": False, " after fitting": True}
    assert bench.fittings(Cannot(), "both") == {"": None}
