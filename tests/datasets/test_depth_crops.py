import pickle

import numpy as np
import pytest
import torch
from dataset_writers import write_nyu

from handgraph.camera import PinholeCamera
from handgraph.datasets import DepthCrops, open_dataset
from handgraph.datasets.centers import center_of_depth, mass_center
from handgraph.datasets.depth_crops import SCALE, SHIFT_MM
from handgraph.datasets.layouts import WRITERS
from handgraph.errors import ConfigError, InputError


class InNumpy(DepthCrops):
    """The same batches, easier to compare."""

    def batch(self, indices, draws=0):
        batch = super().batch(indices, draws)
        assert batch["image"].dtype == batch["uvz"].dtype == batch["joints_mm"].dtype == torch.float32
        return {name: np.asarray(value) if name != "crops" else value for name, value in batch.items()}


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    root = tmp_path_factory.mktemp("nyu")
    write_nyu(root)
    return open_dataset("nyu", root, "test")


def test_labels_and_crops_agree(data):
    batch = InNumpy(data, size=64).batch(np.array([2, 0]), np.array([5, 6]))
    assert batch["image"].shape == (2, 1, 64, 64)
    assert batch["image"].dtype == np.float32
    assert batch["uvz"].shape == batch["joints_mm"].shape == (2, 14, 3)
    for row, index in enumerate((2, 0)):
        np.testing.assert_array_equal(batch["joints_mm"][row], data[index].joints_mm[list(data.joints)])
        back = batch["crops"][row].xyz_from_uvz(batch["uvz"][row])
        np.testing.assert_allclose(back, batch["joints_mm"][row], atol=1e-3)


def test_the_hand_is_in_the_crop_and_the_wall_is_not(data):
    plain = InNumpy(data, augment=False).batch([0, 1, 2])
    assert ((plain["uvz"][..., :2] > 0) & (plain["uvz"][..., :2] < 1)).all()
    hand = plain["image"] < 1
    assert 0.1 < hand.mean() < 0.5  # a disc of 140 mm in a square of 300 is 0.17
    assert plain["image"].min() >= -1
    columns = np.nonzero(hand[0, 0])[1]
    assert abs(columns.mean() - 47.5) < 1.5  # centred on the mass


def test_a_sample_depends_on_seed_index_and_draw_alone(data):
    one, other = InNumpy(data, seed=3), InNumpy(data, seed=3)
    first = one.batch([0, 1, 2], np.array([7, 8, 9]))
    other.batch([2], 4)
    again = other.batch([1], 8)
    np.testing.assert_array_equal(again["image"][0], first["image"][1])
    np.testing.assert_array_equal(again["uvz"][0], first["uvz"][1])
    draws = {InNumpy(data, seed=3).batch([1], draw)["uvz"].tobytes() for draw in range(12)}
    assert len(draws) >= 7  # some of the draws change nothing
    assert any(InNumpy(data, seed=4).batch([1], draw)["uvz"].tobytes() not in draws for draw in range(3))


def test_exactly_one_augmentation_in_its_range(data):
    sample = data[0]

    class Held:  # without reading the file 200 times
        name, split, joints = "held", "all", data.joints

        def __len__(self):
            return 1

        def __getitem__(self, index):
            return sample

    crops = InNumpy(Held(), seed=1)
    plain = InNumpy(data, augment=False).batch([0])["crops"][0]
    center = np.array([*plain.image_px(np.full(2, 47.5)), plain.center_depth_mm])
    center_mm = plain.camera.xyz_from_uvd(center)
    kinds = []
    for draw in range(200):
        crop = crops.batch([0], draw)["crops"][0]
        linear = crop.crop_from_image[:, :2] @ np.linalg.inv(plain.crop_from_image[:, :2])
        turn = np.degrees(np.arctan2(linear[1, 0], linear[0, 0]))
        scale = plain.cube_mm / crop.cube_mm
        at = np.array([*crop.image_px(np.full(2, 47.5)), crop.center_depth_mm])
        shift = crop.camera.xyz_from_uvd(at) - center_mm
        changed = (np.abs(shift).max() > 1e-6, abs(turn) > 1e-6, abs(scale - 1) > 1e-6)
        assert sum(changed) <= 1
        assert np.abs(shift).max() <= SHIFT_MM
        assert SCALE[0] <= scale <= SCALE[1]
        kinds.append((*changed, not any(changed)))
    counts = np.sum(kinds, axis=0)
    assert (np.abs(counts - 50) < 25).all()  # four standard deviations of 200 draws from four


def test_turning_the_crop_turns_picture_and_labels_alike(data):
    """The depth under a projected joint stays what it was, but for joints at the hand's very edge."""
    plain = InNumpy(data, augment=False).batch([0])
    crops = InNumpy(data, seed=2)
    turned = next(
        batch
        for batch in (crops.batch([0], draw) for draw in range(40))
        if abs(batch["crops"][0].crop_from_image[0, 1]) > 0.2
    )

    def under(uvz, depth):
        u, v = np.round(uvz[0, :, :2] * 95).astype(int).T
        return depth[0, 0, v, u]

    before = under(plain["uvz"], plain["image"])
    after = under(turned["uvz"], turned["image"])
    labels_left_behind = under(plain["uvz"], turned["image"])
    assert (np.abs(after - before) < 0.05).mean() > 0.8
    assert np.median(np.abs(labels_left_behind - before)) > 3 * np.median(np.abs(after - before))


def test_left_hands_are_mirrored_in(data):
    class Left:
        name, split, joints = "left", "all", data.joints

        def __len__(self):
            return 1

        def __getitem__(self, index):
            from dataclasses import replace

            return replace(data[index], side="left")

    right, left = (InNumpy(d, augment=False).batch([0]) for d in (data, Left()))
    np.testing.assert_allclose(left["uvz"][..., 0], 1 - right["uvz"][..., 0], atol=1e-5)
    np.testing.assert_allclose(left["uvz"][..., 1:], right["uvz"][..., 1:], atol=1e-5)
    assert left["crops"][0].mirrored
    assert (left["image"][0, 0, :, ::-1] == right["image"][0, 0]).mean() > 0.97  # ties of rounding


def test_centre_of_mass_finds_the_blob_and_leaves_the_wall():
    camera = PinholeCamera(240.0, 240.0, 160.0, 120.0)
    depth = np.full((240, 320), 1200, np.float32)
    depth[100:131, 180:211] = 400
    middle = camera.xyz_from_uvd(np.array([195.0, 115.0, 400.0]))
    found = center_of_depth(depth, camera, middle + np.array([30, -30, 40]), 200.0)
    np.testing.assert_allclose(found, middle, atol=0.01)
    assert center_of_depth(np.zeros_like(depth), camera, None, 200.0) is None
    assert center_of_depth(depth, camera, middle - np.array([0, 0, 250]), 200.0) is None
    np.testing.assert_allclose(mass_center(depth, camera, 10.0, 1000.0), middle, atol=0.01)
    assert mass_center(depth, camera, 10.0, 300.0) is None


def test_readers_and_crops_can_go_to_worker_processes(data):
    crops = pickle.loads(pickle.dumps(InNumpy(data, seed=3)))
    np.testing.assert_array_equal(crops.batch([1], 5)["image"], InNumpy(data, seed=3).batch([1], 5)["image"])


def test_bad_settings(data):
    with pytest.raises(ConfigError, match="crop size 4"):
        InNumpy(data, size=4)
    with pytest.raises(ConfigError, match=r"crop cube -1\.0 mm"):
        InNumpy(data, cube_mm=-1.0)
    with pytest.raises(IndexError):
        InNumpy(data).batch([3])


def test_a_frame_without_a_labelled_joint_is_refused(data):
    class Unlabelled:
        name, split, joints = "x", "all", data.joints

        def __len__(self):
            return 1

        def __getitem__(self, index):
            from dataclasses import replace

            joints = data[index].joints_mm.copy()
            joints[data.joints[3]] = np.nan
            return replace(data[index], joints_mm=joints)

    with pytest.raises(InputError, match=r"depth_1_0000001\.png.*a joint to train on has no label"):
        InNumpy(Unlabelled()).batch([0])


@pytest.mark.parametrize(
    ("name", "layout", "options"),
    [
        ("rhd", {"samples": 2, "parts": ("evaluation",)}, {"split": "test"}),
        ("stb", {}, {"split": "test"}),
        ("dexycb", {"subjects": (6, 7)}, {"split": "s1_test", "sequences": None}),
    ],
)
def test_sets_with_photographs_and_depth_are_cropped_around_the_labelled_hand(
    tmp_path, name, layout, options
):
    WRITERS[name](tmp_path, **layout)
    data = open_dataset(name, tmp_path, image="depth", **options)
    crops = DepthCrops(data, augment=False)
    batch = crops.batch([0, len(data) - 1])
    uvz = batch["uvz"].numpy()
    middle = uvz.mean(axis=1)
    np.testing.assert_allclose(middle, [[0.5, 0.5, 0.0]] * 2, atol=0.05)
    assert ((uvz[..., :2] > 0) & (uvz[..., :2] < 1) & (np.abs(uvz[..., 2:]) < 1)).all()
    for index, crop, joints in zip([0, len(data) - 1], batch["crops"], batch["joints_mm"], strict=True):
        sample = data[index]
        assert sample.depth_mm is not None
        assert crop.mirrored == (sample.side == "left")
        expected = sample.order.to_canonical(sample.joints_mm)
        np.testing.assert_allclose(joints, expected[~np.isnan(expected[:, 0])], atol=1e-3)
    with pytest.raises(ConfigError, match="nyu: holds depth frames, no photographs"):
        open_dataset("nyu", tmp_path, image="colour")
