"""The adapter of the real photographs: units, sides and cameras, measured on the labels themselves."""

import importlib.util
import sys
from pathlib import Path

import numpy as np
import pytest

COUNTS = {
    "rgb_3d_realworld": 350,
    "rgb_3d_rhd": 2,
    "rgb_3d_interhand26m": 3,
    "rgb_mesh_freihand": 3,
    "rgb_mesh_ho3d": 1,
    "rgb_mesh_taco": 2,
    "rgbd_mesh_handx": 21,
    "rgbd_8cam": 16,
    "rgb_2d_freihand": 4,
    "rgb_2d_onehand10k": 2,
    "rgb_2d_panoptic_cmu": 2,
    "rgb_2d_cmu_original_json": 2,
    "rgb_2d_handpose_x": 3,
}


@pytest.fixture(scope="module")
def samples(real_data):
    file = Path(__file__).parents[1] / "benchmarks" / "real_cases.py"
    spec = importlib.util.spec_from_file_location("real_cases", file)
    module = importlib.util.module_from_spec(spec)
    sys.modules["real_cases"] = module
    spec.loader.exec_module(module)
    found = {}
    for case, sample in module.real_cases(real_data):
        found.setdefault(case, []).append(sample)
    return found


def test_every_labelled_hand_is_there(samples):
    assert {case: len(hands) for case, hands in samples.items()} == COUNTS


def test_hands_are_of_human_size(samples):
    """Centimetres read as millimetres, or metres, would show here."""
    for case, hands in samples.items():
        for sample in hands:
            if sample.joints_mm is not None:
                joints = sample.order.to_canonical(sample.joints_mm)
                palm = np.linalg.norm(joints[9] - joints[0])
                if np.isfinite(palm):
                    assert 60 < palm < 115, (case, sample.frame, palm)


@pytest.mark.parametrize("case", ["rgb_3d_realworld", "rgb_3d_rhd", "rgbd_mesh_handx", "rgb_mesh_taco"])
def test_fingers_bend_as_their_side_does(samples, case):
    """The normal of the palm, index knuckle to little knuckle × wrist to middle knuckle; the bent tips."""
    for side in ("left", "right"):
        joints = [s.order.to_canonical(s.joints_mm) for s in samples[case] if s.side == side]
        if joints:
            j = np.stack(joints).astype(float)
            normal = np.cross(j[:, 17] - j[:, 5], j[:, 9] - j[:, 0])
            bend = (j[:, 8:21:4] - j[:, 5:18:4]).sum(axis=1)
            towards = np.einsum("nk,nk->n", bend, normal)
            assert (np.median(towards) > 0) == (side == "left"), (case, side)


def test_the_mesh_lies_around_the_joints(samples):
    """FreiHAND and HO3D store vertices negated; without turning them they lie metres away."""
    for case in ("rgb_mesh_freihand", "rgb_mesh_ho3d", "rgb_mesh_taco", "rgbd_mesh_handx"):
        for sample in samples[case]:
            nearest = np.linalg.norm(sample.joints_mm[:, None] - sample.vertices_mm[None], axis=-1).min(
                axis=1
            )
            assert nearest.mean() < 12, case


def test_depth_lies_over_the_mesh(samples):
    for sample in samples["rgbd_mesh_handx"]:
        u, v, z = sample.camera.uvd_from_xyz(sample.vertices_mm).T
        measured = sample.depth_mm[np.round(v).astype(int), np.round(u).astype(int)]
        assert abs(np.median((z - measured)[measured > 0])) < 15


def test_separate_labels_agree_with_the_projection(samples):
    for case, within in (("rgb_3d_rhd", 0.1), ("rgbd_8cam", 31.0)):  # 8cam's calibration is mediocre
        for sample in samples[case]:
            projected = sample.camera.uvd_from_xyz(sample.joints_mm)[:, :2]
            assert np.nanmax(np.linalg.norm(projected - sample.keypoints_px, axis=1)) < within
