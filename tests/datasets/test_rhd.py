import json
import pickle
import shutil

import numpy as np
import pytest
from damage import copied

from handgraph.camera import PinholeCamera
from handgraph.datasets import Sample, open_dataset
from handgraph.datasets.check import doubts
from handgraph.datasets.files import projection_residual, read_color_frame
from handgraph.datasets.layouts import WRITERS
from handgraph.errors import ConfigError, FormatError, InputError
from handgraph.skeleton import RHD


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    root = tmp_path_factory.mktemp("rhd")
    return root, WRITERS["rhd"](root)


@pytest.fixture
def tree(written, tmp_path):
    return copied(written[0], tmp_path)


def labels_path(root):
    return root / "RHD_published_v2/evaluation/anno_evaluation.pickle"


def rewrite(root, change):
    labels = pickle.loads(labels_path(root).read_bytes())
    change(labels)
    labels_path(root).write_bytes(pickle.dumps(labels))


def test_round_trip(written):
    """Labels are float32 of four digits: 0.06 mm at 700 mm, 0.1 px."""
    root, truth = written
    for split, part in (("train", "training"), ("test", "evaluation")):
        data = open_dataset("rhd", root, split, depth=True)
        assert len(data) == 4
        for sample, told in zip((data[i] for i in range(4)), truth[part], strict=True):
            np.testing.assert_array_equal(sample.image, told["image"])
            assert sample.side == told["side"]
            canonical = sample.order.to_canonical
            np.testing.assert_allclose(canonical(sample.joints_mm), told["joints_mm"], atol=1e-3)
            np.testing.assert_allclose(canonical(sample.keypoints_px), told["keypoints_px"], atol=1e-3)
            np.testing.assert_array_equal(canonical(sample.visible[:, None])[:, 0], told["visible"])
            assert sample.camera.fx == pytest.approx(told["focal"])
            np.testing.assert_allclose(sample.depth_mm, told["depth_mm"], atol=5e-3)
            assert projection_residual(sample.camera, sample.joints_mm, sample.keypoints_px) < 0.1
            assert doubts(sample, data.joints) == []
        assert {t["side"] for t in truth[part]} == {"left", "right"}


def test_the_larger_hand_is_that_of_more_mask_pixels(written):
    root, truth = written
    data = open_dataset("rhd", root, "train")
    for index, told in enumerate(truth["training"]):
        left = np.isin(told["mask"], range(2, 18)).sum()
        right = np.isin(told["mask"], range(18, 34)).sum()
        assert data[index].side == ("left" if left > right else "right")
        assert data[index].side == data[index].side  # also when it is remembered
    assert [open_dataset("rhd", root, "train", hand="left")[i].side for i in range(4)] == ["left"] * 4


def test_boxes(written):
    root, truth = written
    keypoints = truth["training"][0]["keypoints_px"]
    low, high = keypoints.min(axis=0), keypoints.max(axis=0)
    box = open_dataset("rhd", root, "train")[0].box_px
    np.testing.assert_allclose(box, [*(low - 10), *(high - low + 21)], atol=0.01)
    mask = open_dataset("rhd", root, "train", box="mask")[0].box_px
    rows, columns = np.nonzero(np.isin(truth["training"][0]["mask"], range(2, 18)))
    np.testing.assert_array_equal(mask, [columns.min(), rows.min(), np.ptp(columns) + 1, np.ptp(rows) + 1])
    sample = open_dataset("rhd", root, "train", box="knuckle")[0]
    x, y, w, h = sample.box_px
    assert w == h
    seen = sample.visible
    center = sample.keypoints_px[12] if seen[12] else sample.keypoints_px[seen].mean(axis=0)
    np.testing.assert_allclose([x + (w - 1) / 2, y + (h - 1) / 2], center, atol=1e-3)
    assert w == pytest.approx(np.clip(2 * np.abs(sample.keypoints_px[seen] - center).max(), 50, 500))


def test_wrong_roots_are_told_apart(tree):
    top = tree / "RHD_published_v2"
    assert len(open_dataset("rhd", top, "test")) == 4
    with pytest.raises(InputError, match="no folder training or RHD_published_v2/training"):
        open_dataset("rhd", top / "training")
    (top / "training/color/00004.png").write_bytes(b"x")
    with pytest.raises(InputError, match=r"labels 4 frames but 00004\.png exists; .* versions"):
        open_dataset("rhd", tree)
    (top / "training/color/00003.png").unlink()
    with pytest.raises(
        InputError, match=r"anno_training\.pickle labels 4 frames but 00003\.png is not there"
    ):
        open_dataset("rhd", tree)
    (top / "training/mask/00002.png").unlink()
    (top / "training/color/00004.png").unlink()
    shutil.copy(top / "training/color/00002.png", top / "training/color/00003.png")
    with pytest.raises(InputError, match=r"mask/00002\.png: no such file"):
        open_dataset("rhd", tree)[2]
    with pytest.raises(ConfigError, match="hand is 'both', expected larger, left or right"):
        open_dataset("rhd", tree, hand="both")


def test_labels_that_cannot_be_true(tree):
    def nothing(labels):
        labels.clear()

    def hole(labels):
        del labels[1]

    def short(labels):
        labels[1]["xyz"] = labels[1]["xyz"][:21]

    def words(labels):
        labels[1]["xyz"] = labels[1]["xyz"].astype(object)

    def nan(labels):
        labels[1]["uv_vis"][3] = np.nan

    def keyless(labels):
        del labels[1]["K"]

    def millimetres(labels):
        labels[1]["xyz"] *= 1000

    def skewed(labels):
        labels[1]["K"][0, 1] = 5

    for change, message in (
        (nothing, "holds dict, expected a dict of labelled frames"),
        (hole, "frame 1: no 1"),
        (short, r"frame 1: xyz is float32 \(21, 3\), expected numbers \(42, 3\)"),
        (words, "an array of other things than numbers"),
        (nan, "frame 1: uv_vis holds a number that is not finite"),
        (keyless, "frame 1: no 'K'"),
        (millimetres, "a joint kilometres away"),
        (skewed, "a K that is no camera's"),
    ):
        original = labels_path(tree).read_bytes()
        rewrite(tree, change)
        with pytest.raises(FormatError, match=rf"anno_evaluation\.pickle: .*{message}"):
            open_dataset("rhd", tree, "test")
        labels_path(tree).write_bytes(original)

    def moved(labels):
        labels[1]["xyz"][:, 0] += 0.1

    def away(labels):  # along the line of sight: the 2D labels cannot tell
        labels[1]["xyz"][25] *= 2

    for change, message in ((moved, "its xyz projects .* px from its uv"), (away, "bone is .* mm long")):
        original = labels_path(tree).read_bytes()
        rewrite(tree, change)
        with pytest.raises(FormatError, match=rf"00001\.png: .*{message}"):
            open_dataset("rhd", tree, "test")[1]
        labels_path(tree).write_bytes(original)


def test_a_mask_or_picture_of_another_kind(tree):
    data = open_dataset("rhd", tree, "train")
    mask = tree / "RHD_published_v2/training/mask/00000.png"
    mask.unlink()
    shutil.copy(data.image_path(0), mask)
    with pytest.raises(FormatError, match="a PNG of 320x320, 3 channels of 8 bit, expected 320x320, 1 of 8"):
        data[0]


def test_real_labels_project_onto_themselves(real):
    """Two frames of RHD and their labels, as the reader would hold them."""
    content = json.loads((real / "rgb_3d_rhd/test_rhd.json").read_text())
    images = {image["id"]: image for image in content["images"]}
    for label in content["annotations"]:
        image = images[label["image_id"]]
        focal, center = image["cam_param"]["focal"], image["cam_param"]["princpt"]
        path = real / "rgb_3d_rhd" / image["file_name"]
        keypoints = np.array(label["keypoints"])
        sample = Sample(
            frame=image["file_name"],
            source=path,
            order=RHD,
            keypoints_px=keypoints[:, :2],
            joints_mm=np.array(label["joint_cam"]),
            image=read_color_frame(path, (320, 320)),
            camera=PinholeCamera(focal[0], focal[1], center[0], center[1]),
            visible=keypoints[:, 2] == 1,
        )
        assert projection_residual(sample.camera, sample.joints_mm, sample.keypoints_px) < 0.2
        assert doubts(sample, tuple(int(i) for i in RHD.gather)) == []
        # Each finger's last listed point is its knuckle: equally far from the wrist, however bent the hand.
        reach = np.linalg.norm(sample.joints_mm - sample.joints_mm[0], axis=1)[[8, 12, 16, 20]]
        assert np.ptp(reach) < 0.2 * reach.mean()
