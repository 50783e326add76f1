"""What a system is measured by: whatever it and the labels allow, and nothing where a label is missing."""

from dataclasses import replace
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch

from handgraph.camera import Crop, PinholeCamera
from handgraph.errors import ConfigError
from handgraph.evaluation.measures import Measures

CROP = Crop.window((100.0, 50.0, 64.0, 64.0), 64, PinholeCamera(300.0, 300.0, 130.0, 80.0))
FAR = np.array([0.0, 0.0, 500.0])


def made(**names: Any) -> ModuleType:
    """A system of nothing but these names."""
    system = ModuleType("made")
    system.__dict__.update(names)
    return system


def batch(joints_mm: np.ndarray) -> dict:
    uv = np.linspace(0.1, 0.9, 42).reshape(1, 21, 2).repeat(len(joints_mm), axis=0)
    known = np.ones((len(joints_mm), 21), bool)
    known[0, 3:] = False
    return {
        "joints_mm": torch.from_numpy(joints_mm),
        "uv": torch.from_numpy(uv),
        "known": torch.from_numpy(known),
        "crops": [CROP] * len(joints_mm),
    }


def test_samples_without_a_label_count_nothing():
    joints = np.random.default_rng(0).normal(0, 30, (3, 21, 3)) + FAR
    joints[1] = np.nan
    system = made(
        joints_mm=lambda output, crops: np.nan_to_num(joints) + np.array([3.0, 0.0, 4.0]),
        keypoints_px=lambda output, crops: np.stack(
            [
                CROP.image_px(np.linspace(0.1, 0.9, 42).reshape(21, 2) * 63) + np.array([0.0, 2.0])
                for _ in crops
            ]
        ),
    )
    measures = Measures(system)
    measures.update(None, batch(joints))
    found = measures.compute()
    assert found["mpjpe_mm"] == np.float32(5.0)
    assert len(measures.joints) == 2
    np.testing.assert_allclose(found["epe_px"], 2.0, rtol=1e-6)
    assert np.isfinite(measures.pixels.errors_px()).sum() == 3 + 2 * 21
    assert found["alignment"] == "none"


def test_what_is_placed_before_a_camera_is_measured_where_there_is_one():
    joints = np.random.default_rng(0).normal(0, 30, (3, 21, 3)) + FAR
    off = np.array([3.0, 0.0, 4.0]) * np.array([1, 100, 2])[:, None, None]

    def placed(output: Any, crops: list[Crop]) -> np.ndarray:
        assert all(crop.camera is not None for crop in crops)  # as a system insists
        return joints + off

    measures = Measures(made(joints_mm=placed))
    whole = batch(joints)
    whole["crops"][1] = replace(CROP, camera=None)
    measures.update(None, whole)
    assert len(measures.joints) == 2
    np.testing.assert_allclose(measures.compute()["mpjpe_mm"], 7.5, rtol=1e-6)


def test_an_answer_in_hand_lengths_takes_its_scale_from_the_truth():
    joints = np.random.default_rng(1).normal(0, 30, (2, 21, 3)) + FAR
    relative = joints - joints[:, :1]
    length = np.linalg.norm(relative[:, 10] - relative[:, 9], axis=-1)
    unit = relative / length[:, None, None]
    system = made(SCALE_BONE=(9, 10), relative_mm=lambda output, crops, scale: unit * scale[:, None, None])
    measures = Measures(system)
    measures.update(None, {"joints_mm": joints, "crops": [CROP] * 2})
    found = measures.compute()
    assert found["mpjpe_mm"] < 1e-3
    assert found["alignment"] == "wrist"


def test_the_size_by_all_bones_is_a_figure_of_its_own_beside_the_one_bones():
    joints = np.random.default_rng(1).normal(0, 30, (2, 21, 3)) + FAR
    relative = joints - joints[:, :1]
    length = np.linalg.norm(relative[:, 10] - relative[:, 9], axis=-1)
    system = made(
        SCALE_BONE=(9, 10),
        # All bones say a hand 1.5 times as large as the one bone does.
        unit_mm=lambda bones: 1.5 * bones[:, 9],
        relative_mm=lambda output, crops, scale: relative / length[:, None, None] * scale[:, None, None],
    )
    measures = Measures(system)
    measures.update(None, {"joints_mm": joints, "crops": [CROP] * 2})
    found = measures.compute()
    assert found["mpjpe_mm"] < 1e-3
    expected = 0.5 * np.linalg.norm(relative, axis=-1).mean()
    assert found["scaled_by_all_bones_mpjpe_mm"] == pytest.approx(expected, rel=1e-5)
    low, high = found["scaled_by_all_bones_mpjpe_mm_interval95"]
    assert low <= expected <= high


def test_laying_on_a_surface_is_given_the_images_it_lies_on():
    joints = np.random.default_rng(1).normal(0, 30, (2, 21, 3)) + FAR
    image = np.zeros((2, 1, 8, 8))

    def joints_mm(output, crops, images=None, *, optimise=False):
        assert (images is image) == optimise
        return joints + (1.0 if optimise else 2.0)

    for option, error in ((None, 2.0), (True, 1.0)):
        measures = Measures(made(joints_mm=joints_mm), option)
        measures.update(None, {"joints_mm": joints, "crops": [CROP] * 2, "image": image})
        assert measures.compute()["mpjpe_mm"] == pytest.approx(error * np.sqrt(3))


def test_laying_3d_on_keypoints_is_passed_on_and_refused_where_there_is_none():
    joints = np.random.default_rng(1).normal(0, 30, (2, 21, 3)) + FAR
    asked = []

    def relative_mm(output, crops, scale, optimise=False):
        asked.append(optimise)
        return joints - joints[:, :1]

    for option in (None, True, False):
        Measures(made(relative_mm=relative_mm), option).update(
            None, {"joints_mm": joints, "crops": [CROP] * 2}
        )
    assert asked == [False, True, False]
    with pytest.raises(ConfigError, match="optimise: made lays no 3D hand on what it sees"):
        Measures(made(relative_mm=lambda output, crops, scale: joints), optimise=True)
    with pytest.raises(ConfigError, match="optimise: made"):
        Measures(made(joints_mm=lambda output, crops: joints), optimise=True)
    with pytest.raises(ConfigError, match="optimise: made"):
        Measures(made(keypoints_px=lambda output, crops: joints[..., :2]), optimise=False)


def test_keypoints_share_of_correct_ones_is_not_taken_for_that_in_space():
    joints = np.random.default_rng(2).normal(0, 30, (2, 21, 3)) + FAR
    system = made(
        joints_mm=lambda output, crops: joints + 500.0,  # nothing right in space
        keypoints_px=lambda output, crops: np.stack(
            [CROP.image_px(np.linspace(0.1, 0.9, 42).reshape(21, 2) * 63) for _ in crops]
        ),
    )
    measures = Measures(system)
    measures.update(None, batch(joints))
    assert measures.compute()["pck"]["0.05"] == 1.0
