import cv2
import numpy as np
import pytest
from damage import outcomes
from dataset_writers import write_icvl

from handgraph.camera import PinholeCamera
from handgraph.datasets import DepthCrops, open_dataset
from handgraph.datasets.icvl import CAMERA, FRAMES, _read_list
from handgraph.errors import FormatError, InputError


@pytest.fixture
def tree(tmp_path):
    return tmp_path, write_icvl(tmp_path)


def test_round_trip_is_exact_to_the_text(tree):
    root, truth = tree
    for split in ("train", "test"):
        data = open_dataset("icvl", root, split)
        assert len(data) == 3
        for index in range(3):
            sample = data[index]
            depth, uvd = truth[sample.frame]
            np.testing.assert_array_equal(sample.depth_mm, depth)  # 32001 has become 0
            np.testing.assert_allclose(sample.keypoints_px, uvd[:, :2], atol=2e-5)
            projected = sample.camera.uvd_from_xyz(sample.joints_mm)
            np.testing.assert_allclose(projected, uvd, atol=1e-3)
            assert (sample.side, sample.cube_mm, sample.camera) == ("left", 250.0, CAMERA)


def test_splits(tree):
    root, _ = tree
    frames = {split: open_dataset("icvl", root, split).frames for split in ("train_original", "train")}
    assert frames["train_original"] == ["201403121135/image_0000.png", "201403121135/image_0001.png"]
    assert frames["train"][2] == "45/201403121135/image_0000.png"
    assert [len(open_dataset("icvl", root, f"test_seq_{n}")) for n in (1, 2)] == [2, 1]


def test_another_camera_moves_the_joints_but_not_the_pixels(tree):
    one = open_dataset("icvl", tree[0], "test")[0]
    other = open_dataset("icvl", tree[0], "test", camera=PinholeCamera(241.42, 241.42, 160.0, 120.0))[0]
    np.testing.assert_array_equal(one.keypoints_px, other.keypoints_px)
    np.testing.assert_allclose(other.joints_mm[:, 0] / one.joints_mm[:, 0], 240.99 / 241.42, rtol=1e-5)


def test_crops_need_no_centre_file(tree):
    batch = DepthCrops(open_dataset("icvl", tree[0], "test"), augment=False).batch([0, 1, 2])
    assert batch["uvz"].shape == (3, 16, 3)
    assert ((batch["uvz"][..., :2] > 0.1) & (batch["uvz"][..., :2] < 0.9)).all()
    assert all(crop.mirrored for crop in batch["crops"])  # left hands, mirrored in


def test_centres_from_a_folder_belong_to_the_split(tree):
    root, truth = tree
    order = ["test_seq_1/image_0000.png", "test_seq_1/image_0001.png", "test_seq_2/image_0000.png"]
    middles = np.array([truth[frame][1].mean(axis=0) for frame in order])
    np.savetxt(root / "icvl_center.txt", middles)
    data = open_dataset("icvl", root, "test_seq_2", centers=root)
    sample = data[0]
    assert sample.center_refined
    np.testing.assert_allclose(CAMERA.uvd_from_xyz(sample.center_mm), middles[2], rtol=1e-5)
    crop = DepthCrops(data, augment=False).batch([0])["crops"][0]
    np.testing.assert_allclose(crop.image_px(np.full(2, 47.5)), middles[2, :2], rtol=1e-5)
    with pytest.raises(
        InputError, match=r"no centre file for this split, expected center_train_refined\.txt"
    ):
        open_dataset("icvl", root, "train", centers=root)


def test_one_missing_frame_is_left_out_and_a_missing_folder_is_not(tree):
    root, truth = tree
    (root / "Training/Depth/45/201403121135/image_0000.png").unlink()
    data = open_dataset("icvl", root, "train")
    assert (len(data), data.missing) == (2, 1)
    np.testing.assert_array_equal(data[1].depth_mm, truth[data.frames[1]][0])
    (root / "Training/Depth/201403121135/image_0001.png").unlink()
    with pytest.raises(InputError, match=r"2 of 3 listed frames are not there, .*image_0001.*in part"):
        open_dataset("icvl", root, "train")


def test_the_older_name_of_the_list(tree):
    root, _ = tree
    (root / "Training/labels.txt").rename(root / "Training/train.txt")
    assert len(open_dataset("icvl", root, "train")) == 3


def test_wrong_root(tmp_path):
    with pytest.raises(InputError, match="no folder Testing; give the folder that holds ICVL's"):
        open_dataset("icvl", tmp_path, "test")
    (tmp_path / "Testing").mkdir()
    with pytest.raises(
        InputError, match=r"test_seq_1\.txt: no such file \(a dataset copied only in part lacks some\)"
    ):
        open_dataset("icvl", tmp_path, "test")


@pytest.mark.parametrize("times", [20, pytest.param(200, marks=pytest.mark.slow)])
def test_every_damaged_png_is_refused(tree, times):
    data = open_dataset("icvl", tree[0], "test")
    assert all(refused for _, refused in outcomes(data.depth_path(1), lambda: data[1], times))


@pytest.mark.parametrize("times", [20, pytest.param(200, marks=pytest.mark.slow)])
def test_damaged_lists(tree, times):
    """A text without checksum can hide a changed digit, but never a missing number, line or path."""
    root, truth = tree
    path = root / "Testing/test_seq_1.txt"

    def read():
        data = open_dataset("icvl", root, "test_seq_1")
        for index in range(len(data)):
            sample = data[index]
            assert sample.joints_mm.shape == (16, 3)
            assert np.isfinite(sample.joints_mm).all()
            assert sample.frame in truth

    refused = [refused for _, refused in outcomes(path, read, times)]
    assert sum(refused) > 0.3 * times


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("test_seq_1/image_0000.png 1 2 3\n", "line 1 holds 3 values, expected 48"),
        ("test_seq_1/image_0000.png" + " nan" * 48 + "\n", "line 1 holds a number that is not finite"),
        ("test_seq_1/image_0000.png" + " x" * 48 + "\n", "line 1: could not convert"),
        ("test_seq_1/image_0000.png" + " 1_0" * 48 + "\n", "line 1: could not convert"),
        ("test_seq_1/image_0000.png" + " 0" * 48 + "\n", "line 1 holds a joint that is not before"),
        ("../../etc/a.png" + " 1" * 48 + "\n", "line 1 begins with '../../etc/a.png', expected a PNG below"),
        ("1 2 3\n", "line 1 begins with '1', expected a PNG"),
        ("\xe9\n", "byte 0 is not ASCII"),
        ("", "the file is empty"),
    ],
)
def test_bad_label_lines(tree, line, message):
    root, _ = tree
    (root / "Testing/test_seq_1.txt").write_bytes(line.encode("latin1"))
    with pytest.raises(FormatError, match=rf"test_seq_1\.txt: {message}"):
        open_dataset("icvl", root, "test_seq_1")


def test_colour_or_another_size_is_refused(tree):
    data = open_dataset("icvl", tree[0], "test")
    cv2.imwrite(str(data.depth_path(0)), np.full((480, 640), 300, np.uint16))
    with pytest.raises(
        FormatError, match="a frame of 640x480, 1 channels of 16 bit, expected 320x240, 1 of 16"
    ):
        data[0]


def test_real_test_labels(real, tmp_path):
    """The published label file, given the frames' names as the original lists have them."""
    folder = real / "depth_icvl_predictions"
    names = (folder / "icvl_test_list.txt").read_text().split()
    labels = (folder / "icvl_test_groundtruth_label.txt").read_text().splitlines()
    counts = {}
    for sequence in ("test_seq_1", "test_seq_2"):
        rows = [
            f"{name} {label}\n"
            for name, label in zip(names, labels, strict=True)
            if name.startswith(sequence)
        ]
        path = tmp_path / f"{sequence}.txt"
        path.write_text("".join(rows))
        frames, uvd = _read_list(path)
        counts[sequence] = len(frames)
        if sequence == "test_seq_1":
            assert frames[0] == "test_seq_1/image_0000.png"
            np.testing.assert_allclose(uvd[0, 0], [180.210, 145.428, 368.854], atol=1e-3)
    assert counts == {split: FRAMES[split] for split in counts}
