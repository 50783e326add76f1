import json

import cv2
import numpy as np
import pytest
from damage import outcomes
from dataset_writers import write_nyu

from handgraph.datasets import open_dataset
from handgraph.datasets.files import read_packed_frame
from handgraph.datasets.nyu import CAMERA, PALM
from handgraph.errors import ConfigError, FormatError, InputError
from handgraph.skeleton import NYU14_OF_36


@pytest.fixture
def tree(tmp_path):
    return tmp_path, *write_nyu(tmp_path)


def test_round_trip_is_exact(tree):
    root, depths, uvd = tree
    data = open_dataset("nyu", root, "test")
    assert len(data) == 3
    for index in range(3):
        sample = data[index]
        np.testing.assert_array_equal(sample.depth_mm, depths[index])
        np.testing.assert_allclose(sample.keypoints_px, uvd[index, :, :2], atol=1e-4)  # float32 of ~300 px
        np.testing.assert_allclose(sample.joints_mm[:, 2], uvd[index, :, 2], atol=1e-4)
        projected = sample.camera.uvd_from_xyz(sample.joints_mm)
        np.testing.assert_allclose(projected[:, :2], sample.keypoints_px, atol=1e-3)
    assert (sample.subject, sample.side, sample.cube_mm) == ("1", "right", 300.0)
    assert sample.frame == "depth_1_0000003.png"
    assert sample.order.names[PALM] == "palm_3"
    assert data.joints == NYU14_OF_36


def test_y_is_turned_down(tree):
    """Reading joint_xyz as it is stored would put the joints at the mirrored row."""
    root, _, uvd = tree
    sample = open_dataset("nyu", root, "test")[0]
    stored = sample.joints_mm * [1, -1, 1]
    wrong = CAMERA.uvd_from_xyz(stored)[:, 1]
    np.testing.assert_allclose(wrong, 480 - uvd[0, :, 1], atol=1e-3)
    assert np.abs(wrong - uvd[0, :, 1]).max() > 10


def test_the_folder_itself_is_a_root_too(tree):
    assert len(open_dataset("nyu", tree[0] / "dataset", "test")) == 3


def test_second_subject(tmp_path):
    write_nyu(tmp_path, frames=2443, views=1)
    first, second = (open_dataset("nyu", tmp_path, split) for split in ("test_1", "test_2"))
    assert (len(first), len(second)) == (2440, 3)
    assert first[-1].frame == "depth_1_0002440.png"
    assert second[0].frame == "depth_1_0002441.png"
    assert (second[0].subject, second[0].cube_mm) == ("2", 250.0)
    assert (first[0].subject, first[0].cube_mm) == ("1", 300.0)


def test_every_damaged_png_is_refused(tree):
    data = open_dataset("nyu", tree[0], "test")
    results = outcomes(data.depth_path(1), lambda: data[1], times=20)
    assert all(refused for _, refused in results)


@pytest.mark.slow
def test_every_damaged_png_is_refused_200_times(tree):
    data = open_dataset("nyu", tree[0], "test")
    assert all(refused for _, refused in outcomes(data.depth_path(1), lambda: data[1], times=200, seed=1))


def read_all(root):
    data = open_dataset("nyu", root, "test")
    return [data[index] for index in range(len(data))]


@pytest.mark.parametrize("times", [20, pytest.param(200, marks=pytest.mark.slow)])
def test_every_damaged_label_file_is_refused(tree, times):
    """Either refused, or what was damaged carries nothing (padding, the header's text, joint_names)."""
    root, _, uvd = tree
    refusals = []

    def read():
        samples = read_all(root)
        for index, sample in enumerate(samples):
            np.testing.assert_allclose(sample.keypoints_px, uvd[index, :, :2], atol=1e-4)
            np.testing.assert_allclose(sample.joints_mm[:, 2], uvd[index, :, 2], atol=1e-4)

    refusals = outcomes(root / "dataset" / "test" / "joint_data.mat", read, times)
    assert all(refused for kind, refused in refusals if kind == "cut")
    assert sum(refused for _, refused in refusals) > 0.8 * times


def test_wrong_roots_are_told_apart(tree, tmp_path_factory):
    root, _, _ = tree
    with pytest.raises(InputError, match="no folder test or dataset/test; give the folder"):
        open_dataset("nyu", tmp_path_factory.mktemp("empty"), "test")
    labels = root / "dataset/test/joint_data.mat"
    extra = root / "dataset/test/depth_1_0000004.png"
    extra.write_bytes(b"x")
    with pytest.raises(InputError, match=r"labels 3 frames but depth_1_0000004\.png exists.*versions"):
        open_dataset("nyu", root, "test")
    extra.unlink()
    (root / "dataset/test/depth_1_0000003.png").unlink()
    with pytest.raises(InputError, match=r"labels 3 frames but depth_1_0000003\.png is not there.*in part"):
        open_dataset("nyu", root, "test")
    labels.unlink()
    with pytest.raises(
        InputError, match=r"joint_data\.mat: no such file \(a dataset copied only in part lacks some\)"
    ):
        open_dataset("nyu", root, "test")
    with pytest.raises(ConfigError, match="no split 'val'; there are train, test, test_1, test_2"):
        open_dataset("nyu", root, "val")
    with pytest.raises(ConfigError, match="unexpected keyword argument 'views'"):
        open_dataset("nyu", root, "test", views=2)


def save_labels(root, **arrays):
    from scipy.io import savemat

    savemat(root / "dataset/test/joint_data.mat", arrays)


def test_labels_that_cannot_be_true(tree):
    from scipy.io import loadmat

    root, _, _ = tree
    labels = loadmat(root / "dataset/test/joint_data.mat")
    uvd, xyz = labels["joint_uvd"], labels["joint_xyz"]

    save_labels(root, joint_uvd=uvd)
    with pytest.raises(FormatError, match=r"joint_data\.mat: holds no variable 'joint_xyz'"):
        read_all(root)
    save_labels(root, joint_uvd=uvd[..., :14, :], joint_xyz=xyz)
    with pytest.raises(FormatError, match=r"joint_uvd is float64 of shape \(3, 3, 14, 3\), expected numbers"):
        read_all(root)
    save_labels(root, joint_uvd=uvd.astype(str), joint_xyz=xyz)
    with pytest.raises(FormatError, match="joint_uvd is <U"):
        read_all(root)
    save_labels(root, joint_uvd=uvd[:, :2], joint_xyz=xyz)
    with pytest.raises(FormatError, match="2 frames in joint_uvd but 3 in joint_xyz"):
        read_all(root)
    nan = uvd.copy()
    nan[0, 1, 5] = np.nan
    save_labels(root, joint_uvd=nan, joint_xyz=xyz)
    with pytest.raises(
        FormatError, match=r"depth_1_0000002\.png: its label in joint_data\.mat is not finite"
    ):
        read_all(root)
    save_labels(root, joint_uvd=uvd, joint_xyz=xyz * [1, -1, 1])
    with pytest.raises(FormatError, match=r"its joint_xyz projects .* px or mm from its joint_uvd"):
        read_all(root)


def test_wrong_kinds_of_png(tree):
    root, _, _ = tree
    data = open_dataset("nyu", root, "test")
    path = data.depth_path(0)
    grey = np.full((480, 640), 700, np.uint16)
    small = np.zeros((240, 320, 3), np.uint8)
    small[..., 1] = 3
    for pixels, found in ((grey, "640x480, not packed"), (small, "320x240, packed")):
        cv2.imwrite(str(path), pixels)
        with pytest.raises(FormatError, match=f"a frame of {found} as in the dataset, expected 640x480"):
            data[0]
    path.write_bytes(b"")
    with pytest.raises(FormatError, match="the file is empty"):
        data[0]
    path.unlink()
    with pytest.raises(InputError, match="no such file"):
        data[0]


def test_centres_of_another_form_or_split_are_refused(tree):
    root, _, uvd = tree
    middle_uvd = uvd[:, list(NYU14_OF_36)].mean(axis=1)
    middle_xyz = CAMERA.xyz_from_uvd(middle_uvd) * [1, -1, 1]
    np.savetxt(root / "nyu_center.txt", middle_uvd)
    np.savetxt(root / "center_test_refined.txt", middle_xyz)
    by_uvd, by_xyz = (
        open_dataset("nyu", root, "test", centers=root / name)[1]
        for name in ("nyu_center.txt", "center_test_refined.txt")
    )
    np.testing.assert_allclose(by_uvd.center_mm, by_xyz.center_mm, atol=1e-3)
    assert by_uvd.center_refined
    with pytest.raises(FormatError, match=r"the centres lie .* mm from the labels' middle"):
        open_dataset("nyu", root, "test", centers=root / "nyu_center.txt", centers_form="xyz")
    np.savetxt(root / "short_center.txt", middle_uvd[:2])
    with pytest.raises(FormatError, match="2 centres, but the split has 3 frames"):
        open_dataset("nyu", root, "test", centers=root / "short_center.txt")
    (root / "some_refined.txt").write_text(
        "invalid\n" + "".join(f"{x} {y} {z}\n" for x, y, z in middle_xyz[1:])
    )
    sample = open_dataset("nyu", root, "test", centers=root / "some_refined.txt")[0]
    assert not sample.center_refined  # the palm's label is where to begin


def test_real_frame_and_its_label(real):
    """datasets.md: the published label of the first test frame, on the original frame."""
    folder = real / "depth_nyu_raw_frame"
    depth = read_packed_frame(folder / "depth_1_0000001.png", (640, 480))
    uvd = np.array(json.loads((folder / "gt_uvd.json").read_text())["uvd"])
    np.testing.assert_allclose(uvd[0], [169.221, 199.638, 736.417])
    np.testing.assert_allclose(uvd[13], [210.217, 268.604, 778.299])
    columns, rows = np.round(uvd[:, :2]).astype(int).T
    below_skin_mm = uvd[:, 2] - depth[rows, columns]
    assert below_skin_mm.min() > 2  # joints lie under the surface the camera sees
    assert below_skin_mm.max() < 34
