"""Colour crops: labels follow the picture, left hands come in as right ones, augmentation is repeatable."""

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from handgraph.camera import PinholeCamera
from handgraph.datasets.image_crops import ImageCrops, pose_in_crop
from handgraph.datasets.sample import Sample
from handgraph.errors import ConfigError, InputError
from handgraph.hand_model.files import load_open_hand
from handgraph.hand_model.layer import HandLayer
from handgraph.images import IMAGENET_MEAN, IMAGENET_STD
from handgraph.skeleton import OPENPOSE

CAMERA = PinholeCamera(300.0, 310.0, 100.0, 80.0)


class Dots:
    """Two pictures of a posed hand, each joint a white dot on black; the second is a left hand."""

    name, split, joints = "dots", "all", tuple(range(21))

    def __init__(self) -> None:
        self.layer = HandLayer(load_open_hand())
        self.pose = 0.3 * torch.randn(48, generator=torch.Generator().manual_seed(0))

    def __len__(self) -> int:
        return 2

    def __getitem__(self, index: int) -> Sample:
        joints = self.layer.joints(torch.zeros(1, 10), self.pose[None])[0].numpy()
        joints = joints - joints.mean(axis=0) + [10.0, -5.0, 450.0]
        pose = self.pose.numpy().copy().reshape(16, 3)
        if index == 1:
            joints, pose = joints * [-1, 1, 1], pose * [1, -1, -1]
        keypoints = CAMERA.uvd_from_xyz(joints)[:, :2]
        image = np.zeros((160, 200, 3), np.uint8)
        for u, v in keypoints:
            cv2.circle(image, (round(u), round(v)), 2, (255, 255, 255), -1)
        return Sample(
            str(index), Path("dots"), OPENPOSE, keypoints, joints, image=image, camera=CAMERA,
            side=("right", "left")[index], pose=pose.reshape(48), shape=np.zeros(10),
        )  # fmt: skip


@pytest.fixture(scope="module")
def dots() -> Dots:
    return Dots()


@pytest.mark.parametrize("augment", [False, True])
def test_labels_follow_the_picture_and_the_crops_frame(dots, augment):
    batch = ImageCrops(dots, 3, size=96, augment=augment, rotation_deg=180.0, tint=0.0).batch([0, 1], 7)
    assert batch["image"].shape == (2, 3, 96, 96)
    white = torch.from_numpy((1 - IMAGENET_MEAN) / IMAGENET_STD)
    for image, uv in zip(batch["image"], batch["uv"], strict=True):
        inside = ((uv > 0.03) & (uv < 0.97)).all(dim=1)
        assert inside.sum() > 10
        for u, v in (uv[inside] * 95).round().long():
            patch = image[:, v - 1 : v + 2, u - 1 : u + 2].amax(dim=(1, 2))
            assert (patch > 0.5 * white).all()
    absolute = batch["relative_mm"] + batch["wrist_mm"][:, None]
    projected = torch.einsum("bij,bnj->bni", batch["crop_camera"], absolute)
    torch.testing.assert_close(projected[..., :2] / projected[..., 2:], batch["uv"], atol=1e-4, rtol=0)
    assert batch["known"].all()


def test_a_left_hand_comes_in_as_the_right_hand_that_it_mirrors(dots):
    batch = ImageCrops(dots, augment=False).batch([0, 1])
    torch.testing.assert_close(batch["relative_mm"][0], batch["relative_mm"][1])
    assert [crop.mirrored for crop in batch["crops"]] == [False, True]
    # ... while the labels to be measured against stay as they were given.
    np.testing.assert_allclose(batch["joints_mm"][1], dots[1].joints_mm, rtol=1e-6)


def test_the_pose_in_the_crop_gives_the_joints_in_the_crop(dots):
    batch = ImageCrops(dots, 5, rotation_deg=180.0).batch([0, 1], 2)
    joints = dots.layer.joints(batch["shape"], batch["pose"])
    torch.testing.assert_close(joints - joints[:, :1], batch["relative_mm"], atol=2e-3, rtol=0)
    # A wrong reading: the pose as labelled, in the camera's frame.
    wrong = dots.layer.joints(batch["shape"][:1], torch.from_numpy(dots[0].pose)[None])
    assert ((wrong - wrong[:, :1])[0] - batch["relative_mm"][0]).abs().max() > 10


def test_mirroring_twice_gives_the_pose_back(dots):
    crop = ImageCrops(dots, augment=False).batch([1])["crops"][0]
    once = pose_in_crop(dots[1].pose, crop)
    np.testing.assert_allclose(pose_in_crop(once, crop), dots[1].pose, atol=1e-6)


def test_a_draw_gives_the_same_crop_again_and_another_draw_another(dots):
    crops = ImageCrops(dots, 1)
    first, again, other = (crops.batch([0], draw) for draw in (1, 1, 2))
    assert torch.equal(first["image"], again["image"])
    assert not torch.equal(first["uv"], other["uv"])


def test_unlabelled_keypoints_stay_unknown(dots):
    class Some(Dots):
        def __getitem__(self, index):
            full = super().__getitem__(index)
            keypoints = full.keypoints_px.copy()
            keypoints[4] = np.nan
            return Sample("0", Path("some"), OPENPOSE, keypoints, image=full.image)

    batch = ImageCrops(Some(), augment=False).batch([0])
    assert batch["known"][0].tolist() == [joint != 4 for joint in range(21)]
    assert batch["relative_mm"].isnan().all()
    assert batch["crop_camera"].isnan().all()


def test_what_cannot_be_cropped_is_said(dots):
    with pytest.raises(ConfigError, match=r"crop scale 0\.5: expected a factor of 1 or more"):
        ImageCrops(dots, scale=0.5)

    class One(Dots):
        def __getitem__(self, index):
            keypoints = np.full((21, 2), np.nan)
            keypoints[0] = 5
            return Sample("0", Path("one"), OPENPOSE, keypoints, image=super().__getitem__(0).image)

    with pytest.raises(InputError, match="too few keypoints are labelled to find a box"):
        ImageCrops(One()).batch([0])
