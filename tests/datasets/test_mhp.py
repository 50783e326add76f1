import pickle
import shutil

import cv2
import numpy as np
import pytest
from damage import copied

from handgraph.datasets import mhp, open_dataset
from handgraph.datasets.check import doubts
from handgraph.datasets.files import projection_residual
from handgraph.datasets.layouts import WRITERS
from handgraph.errors import ConfigError, FormatError, InputError

TOP = "multiview_hand_pose_dataset_uploaded_v2"


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    root = tmp_path_factory.mktemp("mhp")
    return root, WRITERS["mhp"](root)


@pytest.fixture
def tree(written, tmp_path):
    return copied(written[0], tmp_path)


def frame_names(data):
    return ["/".join(data.image_path(index).parts[-2:]) for index in range(len(data))]


def test_round_trip(written):
    root, truth = written
    data = open_dataset("mhp", root, "test")
    for index in range(len(data)):
        sample = data[index]
        told = truth[sample.frame]
        np.testing.assert_allclose(sample.joints_mm, told["joints_mm"], atol=1e-4)
        np.testing.assert_allclose(sample.keypoints_px, told["keypoints_px"], atol=1e-4)
        assert sample.camera is None
        assert sample.subject == sample.frame.split("/")[0][5:]
        assert doubts(sample, data.joints) == []
    assert pickle.loads(pickle.dumps(data))[0].frame == data[0].frame


def test_distortion_is_opencvs_written_out():
    """u = x (1 + k1 r² + k2 r⁴) + 2 p1 x y + p2 (r² + 2 x²), and so on, in normalised coordinates."""
    joints = np.random.default_rng(0).uniform(-100, 100, (21, 3)) + np.array([0, 0, 400])
    x, y = joints[:, 0] / joints[:, 2], joints[:, 1] / joints[:, 2]
    k1, k2, p1, p2, _ = mhp.DISTORTION
    r2 = x * x + y * y
    radial = 1 + k1 * r2 + k2 * r2 * r2
    u = x * radial + 2 * p1 * x * y + p2 * (r2 + 2 * x * x)
    v = y * radial + p1 * (r2 + 2 * y * y) + 2 * p2 * x * y
    expected = np.stack([614.878 * u + 313.219, 615.479 * v + 231.288], -1)
    np.testing.assert_allclose(mhp.distorted_px(joints), expected, atol=1e-9)


def test_an_undistorted_picture_has_a_camera(written):
    root, _ = written
    plain, pinhole = (open_dataset("mhp", root, "test", undistort=flag) for flag in (False, True))
    for index in range(3):
        sample = pinhole[index]
        assert projection_residual(sample.camera, sample.joints_mm, sample.keypoints_px) < 1e-3
    # A bright dot that is drawn at a distorted keypoint must come to lie at the undistorted one.
    taken, path = plain[0], plain.image_path(0)
    canvas = np.zeros((480, 640, 3), np.uint8)
    u, v = np.round(taken.keypoints_px[7]).astype(int)
    cv2.circle(canvas, (int(u), int(v)), 6, (255, 255, 255), -1)
    content = path.read_bytes()
    path.unlink()
    cv2.imwrite(str(path), canvas)
    try:
        seen = pinhole[0]
    finally:
        path.unlink()
        path.write_bytes(content)
    rows, columns = np.nonzero(seen.image[..., 0] > 128)
    assert np.abs([columns.mean(), rows.mean()] - seen.keypoints_px[7]).max() < 1.0
    assert np.abs(plain[0].keypoints_px - seen.keypoints_px).max() > 0.2


def test_roots(written):
    root, truth = written
    as_wrist, wrist, palm = (
        open_dataset("mhp", root, "test", wrist=rule)[0] for rule in ("palm_as_wrist", "wrist", "palm")
    )
    told = truth[as_wrist.frame]["joints_mm"]
    np.testing.assert_allclose(as_wrist.order.to_canonical(as_wrist.joints_mm)[0], told[20], atol=1e-4)
    ring = told[mhp.POINTS.index("F2_KNU1_B")]
    np.testing.assert_allclose(
        wrist.order.to_canonical(wrist.joints_mm)[0], ring + 2 * (told[20] - ring), atol=1e-3
    )
    assert np.isnan(palm.order.to_canonical(palm.joints_mm)[0]).all()
    np.testing.assert_array_equal(
        palm.order.to_canonical(palm.joints_mm)[1:], wrist.order.to_canonical(wrist.joints_mm)[1:]
    )


def test_random_splits_part_everything_once_and_are_the_same_everywhere(written):
    root, truth = written
    parts = {split: open_dataset("mhp", root, split) for split in ("train", "validation", "test")}
    names = [name for part in parts.values() for name in frame_names(part)]
    assert sorted(names) == sorted(truth)
    assert [len(part) for part in parts.values()] == [176, 38, 38]  # 70, 15, 15 % of 252
    assert parts["test"].digest == "b9e6f7eef65c63d3"  # anyone's copy gives this list
    assert frame_names(parts["test"]) != frame_names(open_dataset("mhp", root, "test", seed=1))
    with pytest.raises(InputError, match="no frame of split validation"):  # the first 60000 are all
        open_dataset("mhp", root, "validation", protocol="60000/10000/rest")


def test_rules_by_recording_and_by_order(written):
    root, _ = written
    test = open_dataset("mhp", root, "test", protocol="recordings")
    assert {name.split("/")[0] for name in frame_names(test)} == {"data_1", "data_10", "data_20"}
    train = open_dataset("mhp", root, "train", protocol="recordings")
    assert len(train) + len(test) == 252
    assert not set(frame_names(train)) & set(frame_names(test))
    natural = frame_names(open_dataset("mhp", root, "train", protocol="natural"))
    assert natural[:6] == [
        *(f"data_1/0_webcam_{webcam}.jpg" for webcam in (1, 2, 3, 4)),
        "data_1/1_webcam_1.jpg",
        "data_1/1_webcam_2.jpg",
    ]
    assert natural[8] == "data_1/10_webcam_1.jpg"  # 10 after 1, and data_2 after data_1
    assert natural[12] == "data_2/0_webcam_1.jpg"
    with pytest.raises(ConfigError, match="protocol 'natural' has no validation split"):
        open_dataset("mhp", root, "validation", protocol="natural")
    with pytest.raises(ConfigError, match="protocol is 'mine', expected 70/15/15"):
        open_dataset("mhp", root, protocol="mine")


def test_wrong_roots_are_told_apart(tree, tmp_path_factory):
    with pytest.raises(InputError, match="no folder annotated_frames; give"):
        open_dataset("mhp", tree / TOP / "calibrations")
    older = tmp_path_factory.mktemp("v1")
    (older / "data_1").mkdir()
    (older / "data_1/0_webcam_1.jpg").write_bytes(b"x")
    with pytest.raises(InputError, match="the first release"):
        open_dataset("mhp", older)
    frames = tree / TOP / "annotated_frames"
    (frames / "data_3/0_webcam_2.jpg").unlink()
    (frames / "data_3/1_joints.txt").unlink()
    data = open_dataset("mhp", tree, "train")
    assert data.missing == 1 + 4  # a label without picture, four pictures without label
    assert not any(name.startswith("data_3/1_") for name in frame_names(data))
    for path in [path for path in frames.rglob("*_webcam_[234].jpg") if path.parent.name > "data_14"]:
        path.unlink()
    with pytest.raises(
        InputError, match=r"\d+ pictures or labels without the other, \d+ pictures with their"
    ):
        open_dataset("mhp", tree, "train")
    for path in frames.rglob("*.jpg"):
        path.unlink()
    with pytest.raises(
        InputError, match=r"holds 0 pictures .* and \d+ labels N_joints\.txt, none of one frame"
    ):
        open_dataset("mhp", tree, "train")
    shutil.rmtree(frames / "data_9")
    with pytest.raises(InputError, match=r"20 of 21 recordings, data_9 is not there; .* in part"):
        open_dataset("mhp", tree)


def test_labels_that_cannot_be_true(tree):
    path = tree / TOP / "annotated_frames/data_1/0_joints.txt"
    whole = path.read_text()
    lines = whole.splitlines(keepends=True)
    for text, message in (
        ("".join(lines[:20]), "no PALM_POSITION; a label has 21 named points"),
        ("".join(lines[1:]), "no F4_KNU1_A"),
        (whole.replace("F4_KNU1_A ", "F4_KNU1_A x ", 1), "line 1 is .* expected NAME x y z"),
        (lines[0].split()[0] + " nan 1 2\n" + "".join(lines[1:]), "holds a number that is not finite"),
        (lines[0].split()[0] + " 9999 1 2\n" + "".join(lines[1:]), "not before webcam|a labelled bone"),
        (lines[0].split()[0] + " 300 300 2\n" + "".join(lines[1:]), "a labelled bone is"),
    ):
        path.write_text(text)
        data = open_dataset("mhp", tree, "test", protocol="recordings")
        with pytest.raises(FormatError, match=message):
            data[0]
    path.write_text("".join(reversed(lines)))  # names, not places, say which joint a line is
    read = mhp.read_joints(path)
    path.write_text(whole)
    np.testing.assert_array_equal(read, mhp.read_joints(path))


def test_calibrations_that_cannot_be_true(tree):
    path = tree / TOP / "calibrations/data_2/webcam_3/rvec.pkl"
    for value, message in (
        (np.zeros(4), "holds no vector of three numbers"),
        ("x", "holds no vector"),
        (np.full((3, 1), np.nan), "is no rvec of a camera"),
        (np.full((3, 1), 100.0), "is no rvec of a camera"),
        (np.array([["1"], ["2"], ["3"]], dtype=object), "other things than numbers"),
    ):
        path.write_bytes(pickle.dumps(value, protocol=2))
        with pytest.raises(FormatError, match=rf"rvec\.pkl: .*{message}"):
            open_dataset("mhp", tree)


def test_a_calibration_of_python_2_is_read(tree):
    """Python 2 wrote byte strings where Python 3 writes bytes, and NumPy's functions had other names."""
    path = tree / TOP / "calibrations/data_2/webcam_3/rvec.pkl"
    vector = np.array([[0.1], [-0.2], [0.3]])
    raw = vector.tobytes()
    text = (
        b"\x80\x02cnumpy.core.multiarray\n_reconstruct\nq\x00cnumpy\nndarray\nq\x01K\x00\x85q\x02U\x01b"
        b"q\x03\x87Rq\x04(K\x01K\x03K\x01\x86q\x05cnumpy\ndtype\nq\x06U\x02f8q\x07K\x00K\x01\x87q\x08R"
        b"q\t(K\x03U\x01<q\nNNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tq\x0bb\x89U"
        + bytes([len(raw)])
        + raw
        + b"q\x0ctq\rb."
    )
    path.write_bytes(text)
    rotation, _ = open_dataset("mhp", tree)._poses["data_2", 3]
    np.testing.assert_allclose(cv2.Rodrigues(rotation)[0], vector, atol=1e-12)
