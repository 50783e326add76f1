"""The line of sight: turned onto z by the smallest turn, by tensors and arrays alike, not without camera."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from handgraph.camera import Crop, PinholeCamera
from handgraph.decoding import frames
from handgraph.networks.sight import in_sight, sight_from_crop

CAMERA = PinholeCamera(500.0, 470.0, 330.0, 250.0)


def crops() -> list[Crop]:
    return [
        Crop.window((x, y, 90.0, 90.0), 64, CAMERA, mirrored=mirrored, rotation_rad=turn)
        for x, y, mirrored, turn in (
            (20.0, 10.0, False, 0.0),
            (500.0, 300.0, True, 0.0),
            (250.0, -40.0, False, 2.5),
            (600.0, 100.0, True, -1.0),
        )
    ]


def test_the_middle_of_the_crop_comes_to_lie_on_z() -> None:
    for crop in crops():
        turn = frames.sight_from_crop(crop)
        np.testing.assert_allclose(turn @ turn.T, np.eye(3), atol=1e-12)
        assert np.linalg.det(turn) == pytest.approx(1)
        ahead = np.linalg.inv(crop.crop_camera) @ [0.5, 0.5, 1.0]
        ahead /= np.linalg.norm(ahead)
        np.testing.assert_allclose(turn @ ahead, [0, 0, 1], atol=1e-12)
        # The smallest such turn: by the angle between the two, about what is perpendicular to both.
        angle = np.arccos((np.trace(turn) - 1) / 2)
        assert angle == pytest.approx(np.arccos(ahead[2]))
        np.testing.assert_allclose(turn @ np.cross(ahead, [0, 0, 1]), np.cross(ahead, [0, 0, 1]), atol=1e-12)


def test_tensors_and_arrays_agree_and_no_camera_is_no_turn() -> None:
    made = crops()
    cameras = torch.from_numpy(np.stack([crop.crop_camera for crop in made]))
    expected = np.stack([frames.sight_from_crop(crop) for crop in made])
    np.testing.assert_allclose(sight_from_crop(cameras), expected, atol=1e-12)
    points = torch.randn(4, 21, 3, dtype=torch.float64)
    turned = np.einsum("bij,bnj->bni", expected, points.numpy())
    np.testing.assert_allclose(in_sight(points, cameras), turned, atol=1e-12)
    cameras[1] = torch.nan
    torch.testing.assert_close(sight_from_crop(cameras)[1], torch.eye(3, dtype=torch.float64))
    np.testing.assert_array_equal(frames.sight_from_crop(replace(made[0], camera=None)), np.eye(3))
