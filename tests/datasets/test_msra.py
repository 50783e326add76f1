import struct

import numpy as np
import pytest
from damage import outcomes
from dataset_writers import write_msra

from handgraph.datasets import DepthCrops, open_dataset
from handgraph.datasets.centers import read_centers
from handgraph.datasets.msra import (
    BAD_FRAMES,
    CAMERA,
    FRAMES,
    GESTURES,
    SHORT_SEQUENCES,
    SUBJECTS,
    read_joints,
)
from handgraph.errors import FormatError, InputError
from handgraph.skeleton import MSRA


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    root = tmp_path_factory.mktemp("msra")
    return root, write_msra(root)


@pytest.fixture
def two(tmp_path):
    return tmp_path, write_msra(tmp_path, subjects=(0, 4))


def test_round_trip_is_exact_to_the_text(whole):
    root, truth = whole
    data = open_dataset("msra", root, "P3")
    assert len(data) == 34
    for index in range(0, 34, 5):
        sample = data[index]
        depth, joints = truth[sample.frame]
        np.testing.assert_array_equal(sample.depth_mm, depth)
        np.testing.assert_allclose(sample.joints_mm, joints, atol=2e-5)
        # The projection of the labels is where the writer put them, so y and z have the right signs.
        inside = depth[tuple(np.round(sample.keypoints_px[:, ::-1]).astype(int).T)]
        assert (inside > 0).all()
        assert (sample.subject, sample.side, sample.cube_mm) == ("P3", "right", 180.0)


def test_leaving_one_subject_out(whole):
    root, _ = whole
    every = open_dataset("msra", root, "all")
    assert len(every) == 9 * 34 + 1
    for subject in ("P0", "P8"):
        test, train = open_dataset("msra", root, subject), open_dataset("msra", root, f"not_{subject}")
        assert len(test) + len(train) == len(every)
        assert {train[index].subject for index in range(0, len(train), 17)} == set(SUBJECTS) - {subject}
    assert len(open_dataset("msra", root / "cvpr15_MSRAHandGestureDB", "P0")) == 35


def test_published_counts_add_up():
    assert sum(FRAMES.values()) == 76375
    for subject in SUBJECTS:
        sequences = (SHORT_SEQUENCES.get(f"{subject}/{gesture}", 500) for gesture in GESTURES)
        assert sum(sequences) == FRAMES[subject]


def test_joints_are_trained_in_canonical_order(whole):
    batch = DepthCrops(open_dataset("msra", whole[0], "P1"), augment=False).batch([4])
    sample = open_dataset("msra", whole[0], "P1")[4]
    np.testing.assert_array_equal(batch["joints_mm"][0], MSRA.to_canonical(sample.joints_mm))
    assert ((batch["uvz"][0, :, :2] - 0.5).abs() < 0.5).all()


def test_a_frame_without_reading_repeats_the_one_before(whole):
    root, truth = whole
    sample = open_dataset("msra", root, "P0")[2]
    assert sample.frame == "P0/1/000002_depth.bin"
    np.testing.assert_array_equal(sample.depth_mm, truth["P0/1/000001_depth.bin"][0])
    assert sample.note == "no reading; the depth is that of 000001_depth.bin"


def test_bad_frames_can_be_left_out(whole, monkeypatch):
    monkeypatch.setitem(BAD_FRAMES, "P2/TIP", (0,))
    root, _ = whole
    kept, skipped = (open_dataset("msra", root, "P2", bad_frames=choice) for choice in ("keep", "skip"))
    assert len(kept) - len(skipped) == 1
    gone = {kept[i].frame for i in range(len(kept))} - {skipped[i].frame for i in range(len(skipped))}
    assert gone == {"P2/TIP/000000_depth.bin"}


def test_centres_of_each_left_out_subject(whole, tmp_path):
    root, _ = whole
    for split, name in (("P2", "center_test_2_refined.txt"), ("not_P2", "center_train_2_refined.txt")):
        plain = open_dataset("msra", root, split)
        middles = np.array([plain[index].joints_mm.mean(axis=0) for index in range(len(plain))])
        np.savetxt(tmp_path / name, middles * [1, -1, 1])
        sample = open_dataset("msra", root, split, centers=tmp_path)[7]
        np.testing.assert_allclose(sample.center_mm, middles[7], atol=1e-3)
        assert sample.center_refined


def test_wrong_roots_are_told_apart(two, tmp_path_factory):
    root, _ = two
    empty = tmp_path_factory.mktemp("empty")
    with pytest.raises(InputError, match="no folders P0 to P8; give cvpr15_MSRAHandGestureDB"):
        open_dataset("msra", empty, "P0")
    (empty / "Subject1").mkdir()
    with pytest.raises(InputError, match="six-subject MSRA of 2014; the nine-subject one of 2015"):
        open_dataset("msra", empty, "P0")
    sequence = root / "cvpr15_MSRAHandGestureDB/P4/IP"
    extra = sequence / "000002_depth.bin"
    extra.write_bytes(b"x")
    with pytest.raises(InputError, match=r"P4/IP: joint\.txt labels 2 frames but 000002_depth\.bin exists"):
        open_dataset("msra", root, "P4")
    extra.unlink()
    (sequence / "000001_depth.bin").unlink()
    with pytest.raises(InputError, match=r"labels 2 frames but 1 are not there, 000001_depth.*in part"):
        open_dataset("msra", root, "P4")
    assert len(open_dataset("msra", root, "P0")) == 35  # needs no other subject
    sequence.rename(sequence.with_name("gone"))
    with pytest.raises(InputError, match=r"P1: 0 of 17 gesture folders, 1 is not there; .* in part"):
        open_dataset("msra", root, "not_P0")
    with pytest.raises(InputError, match="P4: 16 of 17 gesture folders, IP is not there"):
        open_dataset("msra", root, "P4")


@pytest.mark.parametrize("times", [20, pytest.param(200, marks=pytest.mark.slow)])
def test_damaged_bins(whole, times):
    """No checksum, so a flipped bit of a reading can only show as an impossible depth; a cut always shows."""
    root, truth = whole
    data = open_dataset("msra", root, "P5")
    depth = truth[data[3].frame][0]

    def read():
        sample = data[3]
        if not sample.note:
            assert (sample.depth_mm != depth).sum() <= 1  # one pixel at most

    results = outcomes(data.depth_path(3), read, times)
    assert all(refused for kind, refused in results if kind == "cut")


def test_a_reading_beyond_any_room_is_refused(whole):
    data = open_dataset("msra", whole[0], "P5")
    path = data.depth_path(3)
    content = path.read_bytes()
    try:
        path.write_bytes(content[:24] + struct.pack("<f", 1e9) + content[28:])
        with pytest.raises(FormatError, match=r"_depth\.bin: a reading of 1e\+09 mm; the frame is damaged"):
            data[3]
    finally:
        path.write_bytes(content)


def test_damaged_header(whole):
    root, _ = whole
    data = open_dataset("msra", root, "P5")
    path = data.depth_path(3)
    content = path.read_bytes()
    for byte in range(24):
        for bit in range(8):
            damaged = bytearray(content)
            damaged[byte] ^= 1 << bit
            path.write_bytes(damaged)
            with pytest.raises(FormatError, match=r"000001_depth\.bin"):
                data[3]
    path.write_bytes(content)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("2\n" + "1 " * 63 + "\n", "first line is '2', expected the number of frames, 1"),
        ("1\n" + "1 " * 62 + "\n", "line 2 holds 62 values, expected 63"),
        ("1\n" + "nan " * 63 + "\n", "line 2 holds a number that is not finite"),
        (
            "1\n" + "1 " * 63 + "\n",
            "line 2 holds a joint that is not before the camera; MSRA writes z negative",
        ),
        ("", "the file is empty"),
        ("\n", "the first line is ''"),
    ],
)
def test_bad_labels(tmp_path, text, message):
    path = tmp_path / "joint.txt"
    path.write_text(text)
    with pytest.raises(FormatError, match=message):
        read_joints(path)


@pytest.mark.parametrize("times", [20, pytest.param(200, marks=pytest.mark.slow)])
def test_damaged_labels(whole, times):
    root, _ = whole
    path = root / "cvpr15_MSRAHandGestureDB/P5/1/joint.txt"

    def read():
        joints = read_joints(path)
        assert joints.shape == (2, 21, 3)
        assert np.isfinite(joints).all()
        assert (joints[..., 2] > 0).all()

    assert sum(refused for _, refused in outcomes(path, read, times)) > 0.3 * times


def test_real_joint_file(real):
    """MSRA 2014 on disk: the published normalised joints are our joints in their bounding cube."""
    folder = real / "depth_msra14_joints"
    joints = read_joints(folder / "joint.txt")
    assert joints.shape == (400, 21, 3)
    assert joints[..., 2].min() > 0
    stored = joints * [1, -1, -1]  # the published file keeps the dataset's axes
    low, high = stored.min(axis=1, keepdims=True), stored.max(axis=1, keepdims=True)
    normalised = (stored - (low + high) / 2) / (high - low).max(axis=-1, keepdims=True) + 0.5
    expected = np.loadtxt(folder / "transformed_joint.txt", delimiter=",").reshape(-1, 21, 3)
    np.testing.assert_allclose(normalised, expected, atol=1e-5)


def test_real_centres_agree_only_with_y_turned_down(real):
    folder = real / "depth_msra_centres_P0"
    uvd = CAMERA.xyz_from_uvd(np.loadtxt(folder / "msra_center_rows.txt"))
    refined = read_centers(folder / "center_test_0_refined.txt", CAMERA, uvd, axis_signs=(1.0, -1.0, 1.0))
    assert len(refined) == FRAMES["P0"]
    distance = np.linalg.norm(refined - uvd, axis=1)
    assert distance.mean() == pytest.approx(14.1, abs=0.1)
    assert np.median(distance) == pytest.approx(13.4, abs=0.1)
    assert np.linalg.norm(refined * [1, -1, 1] - uvd, axis=1).mean() == pytest.approx(42, abs=0.5)
    with pytest.raises(FormatError, match="with y turned over"):
        read_centers(folder / "center_test_0_refined.txt", CAMERA, uvd, axis_signs=(1.0, 1.0, 1.0))


def test_real_list_has_our_order(real):
    rows = (real / "depth_msra_centres_P0" / "msra_test_list_rows.txt").read_text().split()
    ours = [
        f"P0/{gesture}/{frame:06d}_depth.bin"
        for gesture in GESTURES
        for frame in range(SHORT_SEQUENCES.get(f"P0/{gesture}", 500))
    ]
    assert rows == ours
