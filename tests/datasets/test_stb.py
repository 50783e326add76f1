import shutil

import cv2
import numpy as np
import pytest
from damage import copied

from handgraph.datasets import open_dataset, stb
from handgraph.datasets.check import doubts
from handgraph.datasets.files import projection_residual
from handgraph.datasets.layouts import WRITERS
from handgraph.errors import ConfigError, FormatError, InputError
from handgraph.skeleton import STB


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    root = tmp_path_factory.mktemp("stb")
    return root, WRITERS["stb"](root)


@pytest.fixture
def tree(written, tmp_path):
    return copied(written[0], tmp_path)


@pytest.mark.parametrize("camera", ["SK_color", "SK_depth", "BB_left", "BB_right"])
def test_round_trip(written, camera):
    root, truth = written
    data = open_dataset("stb", root, "test", camera=camera, wrist="palm")
    assert len(data) == 4
    told = truth["B1Counting"] + truth["B1Random"]
    for index, label in enumerate(told):
        sample = data[index]
        assert sample.frame == f"B1{('Counting', 'Random')[index // 2]}/{camera}_{index % 2}.png"
        np.testing.assert_allclose(sample.joints_mm, label["joints_mm"][camera], atol=1e-4)  # float32
        assert projection_residual(sample.camera, sample.joints_mm, sample.keypoints_px) < 1e-3
        stored = label["image"][camera]
        if camera == "SK_depth":
            np.testing.assert_array_equal(sample.depth_mm, stored[..., 0] + 256.0 * stored[..., 1])
            assert sample.image is None
        else:
            np.testing.assert_array_equal(sample.image, stored)
        assert sample.side == "left"


def test_the_cameras_frames():
    """Zhang et al.: p_depth = R p_color + t; the right camera of the pair is 120.054 mm to the right."""
    point = np.array([[10.0, -20.0, 500.0]])
    turn = cv2.Rodrigues(np.array([0.00531, -0.01196, 0.00301]))[0]
    in_depth = (turn @ point[0] + [-24.0381, -0.4563, -1.2326])[None]
    np.testing.assert_allclose(stb.in_camera(in_depth, "SK_color"), point, atol=1e-9)
    np.testing.assert_array_equal(stb.in_camera(in_depth, "SK_depth"), in_depth)
    np.testing.assert_allclose(stb.in_camera(point, "BB_right"), [[-110.054, -20, 500]])
    left, right = (
        stb.CAMERAS[camera].uvd_from_xyz(stb.in_camera(point, camera))[0]
        for camera in ("BB_left", "BB_right")
    )
    assert left[0] - right[0] == pytest.approx(822.79041 * 120.054 / 500)  # disparity = f b / z
    assert left[1] == right[1]


def test_wrist_rules():
    joints = np.random.default_rng(0).normal(0, 40, (21, 3))
    named = dict(zip(STB.names, joints, strict=True))
    palm = named["palm"]
    np.testing.assert_allclose(
        stb.wrist_from_palm(joints, "ring")[0], named["ring_mcp"] + 2.0 * (palm - named["ring_mcp"])
    )
    np.testing.assert_allclose(
        stb.wrist_from_palm(joints, "middle")[0], named["middle_mcp"] + 2.2 * (palm - named["middle_mcp"])
    )
    each = [
        named[f"{f}_mcp"] + 2.25 * (palm - named[f"{f}_mcp"]) for f in ("index", "middle", "ring", "little")
    ]
    np.testing.assert_allclose(stb.wrist_from_palm(joints, "fingers")[0], sum(each) / 4)
    np.testing.assert_array_equal(stb.wrist_from_palm(joints, "palm"), joints)
    np.testing.assert_array_equal(stb.wrist_from_palm(joints, "ring")[1:], joints[1:])


def test_splits_and_the_stereo_pair(written):
    root, _ = written
    train, test = (open_dataset("stb", root, split) for split in ("train", "test"))
    assert {train.image_path(i).parent.name for i in range(len(train))} == {
        f"B{n}{kind}" for n in range(2, 7) for kind in ("Counting", "Random")
    }
    assert {test.image_path(i).parent.name for i in range(len(test))} == {"B1Counting", "B1Random"}
    both = open_dataset("stb", root, "test", camera="BB")
    assert len(both) == 2 * len(test)
    assert [both.image_path(i).name for i in range(4)] == [
        "BB_left_0.png", "BB_right_0.png", "BB_left_1.png", "BB_right_1.png",
    ]  # fmt: skip
    shift = both[0].joints_mm - both[1].joints_mm
    np.testing.assert_allclose(shift, np.tile([120.054, 0, 0], (21, 1)), atol=1e-3)
    sample = test[0]
    assert sample.order.complete
    assert doubts(sample, test.joints) == []
    low, high = sample.keypoints_px.min(axis=0), sample.keypoints_px.max(axis=0)
    np.testing.assert_allclose(sample.box_px, [*(low - 20), *(high - low + 41)], atol=1e-3)


def test_wrong_roots_are_told_apart(tree):
    with pytest.raises(InputError, match="no folders images and labels"):
        open_dataset("stb", tree / "images" / "B1Counting")
    with pytest.raises(InputError, match="holds sequences but no folder images"):
        open_dataset("stb", tree / "images")
    shutil.rmtree(tree / "images/B3Random")
    with pytest.raises(InputError, match=r"11 of 12 sequences, B3Random is not there; .* in part"):
        open_dataset("stb", tree)
    (tree / "images/SK_color_0.png").write_bytes(b"x")
    with pytest.raises(InputError, match="unpack each into images/NAME, as images/B3Random"):
        open_dataset("stb", tree)
    (tree / "images/B1Random/SK_color_1.png").unlink()
    shutil.copytree(tree / "images/B1Counting", tree / "images/B3Random")
    with pytest.raises(
        InputError, match=r"B1Random_SK\.mat labels 2 frames but SK_color_1\.png is not there"
    ):
        open_dataset("stb", tree, "test")
    open_dataset("stb", tree, "train")  # the other sequences are whole
    (tree / "labels/B2Random_SK.mat").unlink()
    with pytest.raises(InputError, match=r"B2Random_SK\.mat: no such file"):
        open_dataset("stb", tree, "train")
    for option, message in (
        ({"camera": "SK"}, "camera is 'SK', expected SK_color"),
        ({"wrist": "no"}, "wrist is 'no', expected ring, fingers, middle, palm"),
        ({"boxes": "x.mat"}, "published boxes are those of split test"),
    ):
        with pytest.raises(ConfigError, match=message):
            open_dataset("stb", tree, "train", **option)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda a: a[:, :20], r"handPara is float64 of shape \(3, 20, 2\), expected numbers of \(3, 21, n\)"),
        (lambda a: a.astype(str), "handPara is <U"),
        (lambda a: a * np.nan, "frame 0 of handPara holds a joint that is not before the camera"),
        (lambda a: a * [[[1]], [[1]], [[-1]]], "not before the camera"),
        (lambda a: a[:, :, :0], "handPara holds no frame|not before|expected numbers"),
        (lambda a: a[:, :, :1], "labels 1 frames but SK_color_1.png exists; .* versions"),
    ],
)
def test_labels_that_cannot_be_true(tree, change, message):
    from scipy.io import loadmat, savemat

    path = tree / "labels/B1Counting_SK.mat"
    savemat(path, {"handPara": change(loadmat(path)["handPara"])})
    with pytest.raises((FormatError, InputError), match=message):
        open_dataset("stb", tree, "test")


def test_a_hand_of_another_unit_is_refused(tree):
    from scipy.io import loadmat, savemat

    path = tree / "labels/B1Counting_SK.mat"
    hand = loadmat(path)["handPara"]
    hand[:, 8] += 200  # one fingertip
    savemat(path, {"handPara": hand})
    with pytest.raises(FormatError, match=r"a labelled bone is 3\d\d mm long"):
        open_dataset("stb", tree, "test")[0]


def test_published_boxes(real, tree):
    """Ge et al.'s 3000 boxes are squares within the picture, two sequences of 1500 one after the other."""
    path = real / "labels_stb_bboxes/STB_eval_bboxes.mat"
    boxes = stb.read_boxes(path)
    assert boxes.shape == (3000, 4)
    np.testing.assert_array_equal(boxes[:, 2], boxes[:, 3])
    assert (boxes[:, :2] >= 0).all()
    assert (boxes[:, :2] + boxes[:, 2:] <= stb.SIZE).all()
    moved = np.abs(np.diff(boxes[:, :2], axis=0)).sum(axis=1)
    assert moved.argmax() == 1499  # from B1Counting's last frame to B1Random's first
    with pytest.raises(FormatError, match="3000 boxes, but the split has 4 frames"):
        open_dataset("stb", tree, "test", boxes=path)
