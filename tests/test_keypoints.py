import numpy as np
import pytest
import torch

from handgraph.camera import Crop
from handgraph.errors import ConfigError
from handgraph.keypoints import hands_from_keypoints, image_keypoints_px


def test_keypoints_go_back_to_the_image_through_turn_and_mirror() -> None:
    rng = np.random.default_rng(0)
    image_px = rng.uniform([110, 60], [190, 140], (2, 21, 2))
    crops = [
        Crop.window((100.0, 50.0, 100.0, 90.0), 64, rotation_rad=0.4),
        Crop.window((100.0, 50.0, 100.0, 90.0), 64, mirrored=True),
    ]
    uv = np.stack([crop.crop_px(points) / 63 for crop, points in zip(crops, image_px, strict=True)])
    confidence = rng.uniform(0, 1, (2, 21))
    tensors = torch.from_numpy(uv).float(), torch.from_numpy(confidence).float()
    np.testing.assert_allclose(image_keypoints_px(tensors[0], crops), image_px, atol=1e-3)

    hands = hands_from_keypoints(*tensors, crops)
    assert [hand.side for hand in hands] == ["right", "left"]
    for hand, points, sure in zip(hands, image_px, confidence, strict=True):
        np.testing.assert_allclose(hand.keypoints_px, points, atol=1e-3)
        np.testing.assert_allclose(hand.confidence, sure, atol=1e-6)
        assert hand.score == pytest.approx(sure.mean(), abs=1e-6)
        np.testing.assert_allclose(hand.box_px[:2] + hand.box_px[2:], points.max(axis=0), atol=1e-3)


def test_fewer_than_21_keypoints_are_no_hand() -> None:
    with pytest.raises(ConfigError, match="21 joints but this network predicts 14"):
        hands_from_keypoints(
            torch.zeros(1, 14, 2), torch.zeros(1, 14), [Crop.window((0.0, 0.0, 9.0, 9.0), 8)]
        )
