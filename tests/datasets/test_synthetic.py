import json

import cv2
import numpy as np
import pytest
from damage import outcomes
from dataset_writers import write_synthetic

from handgraph.datasets import DepthCrops, ImageCrops, check, open_dataset
from handgraph.errors import FormatError, InputError


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    folder = tmp_path_factory.mktemp("synthetic")
    return folder, write_synthetic(folder / "test")


@pytest.fixture(scope="module")
def root(written):
    return written[0]


@pytest.fixture
def labels(root):
    path = root / "test" / "labels.jsonl"
    original = path.read_text()
    yield path
    path.write_text(original)


def test_round_trip_is_exact_to_the_text(written):
    root, truth = written
    data = open_dataset("synthetic", root, "test")
    assert len(data) == len(open_dataset("synthetic", root / "test")) == 3
    for index, (depth, uvd) in enumerate(truth):
        sample = data[index]
        np.testing.assert_array_equal(sample.depth_mm, depth)
        np.testing.assert_allclose(sample.keypoints_px, uvd[:, :2], atol=6e-4)
        np.testing.assert_allclose(sample.joints_mm[:, 2], uvd[:, 2], atol=6e-4)
        assert (sample.side, sample.subject, sample.camera.fx) == ("right", str(40 + index), 475.0)
        assert (sample.pose.shape, sample.shape.shape) == ((48,), (10,))


@pytest.mark.slow
def test_what_synthesize_writes(tmp_path):
    from handgraph.synthetic import DepthSynthesizer, write_dataset

    write_dataset(tmp_path, 2, seed=5)
    data = open_dataset("synthetic", tmp_path)
    for index in range(2):
        sample, frame = data[index], DepthSynthesizer(5, "test").frame(index)
        assert np.abs(sample.depth_mm - frame.depth_mm).max() <= 0.5  # whole millimetres on disk
        np.testing.assert_allclose(sample.joints_mm, frame.joints_mm, atol=1e-3)
        np.testing.assert_allclose(sample.pose, frame.pose, atol=1e-5)
        projected = sample.camera.uvd_from_xyz(sample.joints_mm)[:, :2]
        np.testing.assert_allclose(projected, sample.keypoints_px, atol=0.02)
        assert (sample.side, sample.subject) == ("right", str(frame.subject))


def colour(folder, keep_depth):
    """The depth folder with a picture beside each frame, or instead of it."""
    write_synthetic(folder)
    lines = []
    for number, line in enumerate((folder / "labels.jsonl").read_text().splitlines()):
        record = {**json.loads(line), "image": f"image_{number:06d}.jpg"}
        pixels = np.full((480, 640, 3), (10, 120, 30 + number), np.uint8)
        assert cv2.imwrite(str(folder / record["image"]), pixels[..., ::-1])
        if not keep_depth:
            (folder / record["file"]).unlink()
            record["file"] = None
        lines.append(json.dumps(record) + "\n")
    (folder / "labels.jsonl").write_text("".join(lines))


@pytest.mark.parametrize("keep_depth", [True, False])
def test_colour_folders(tmp_path, keep_depth):
    colour(tmp_path, keep_depth)
    data = open_dataset("synthetic", tmp_path)
    sample = data[2]
    assert sample.frame == "image_000002.jpg"
    assert np.abs(sample.image.astype(int) - [10, 120, 32]).max() <= 3  # RGB, but for JPEG's rounding
    assert (sample.depth_mm is not None) == keep_depth
    batch = ImageCrops(data, size=32, augment=False).batch([0, 1])
    assert batch["relative_mm"].isfinite().all()
    assert batch["pose"].isfinite().all()
    assert check("synthetic", tmp_path)["problems"] == []
    if not keep_depth:
        with pytest.raises(InputError, match="frame 0 has no depth, only a colour image"):
            data.depth_path(0)
    else:
        assert cv2.imwrite(str(data.image_path(1)), np.zeros((60, 80, 3), np.uint8))
        with pytest.raises(FormatError, match=r"depth_000001\.png: a frame of 640x480.* expected 80x60"):
            data[1]
    data.image_path(0).unlink()
    with pytest.raises(InputError, match=r"labelled frames are not there, 'image_000000\.jpg' the first"):
        open_dataset("synthetic", tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("modality", ["rgb", "both"])
def test_what_synthesize_writes_in_colour(tmp_path, modality):
    from handgraph.synthetic import write_dataset

    write_dataset(tmp_path, 2, 0, modality)
    data = open_dataset("synthetic", tmp_path)
    assert len(data) >= 2  # one record a hand
    for index in range(len(data)):
        sample = data[index]
        assert sample.image.dtype == np.uint8
        assert sample.side in ("left", "right")
        assert (sample.depth_mm is not None) == (modality == "both")
        projected = sample.camera.uvd_from_xyz(sample.joints_mm)[:, :2]
        np.testing.assert_allclose(projected, sample.keypoints_px, atol=0.05)
    assert check("synthetic", tmp_path)["problems"] == []


def test_crops_show_the_hand(root):
    batch = DepthCrops(open_dataset("synthetic", root, "test"), augment=False).batch([0, 1, 2])
    assert batch["uvz"].shape == (3, 21, 3)
    assert ((batch["uvz"][..., :2] - 0.5).abs() < 0.6).all()
    assert (batch["image"] < 1).float().mean() > 0.05


def test_a_sound_folder_has_no_problems(root):
    found = check("synthetic", root / "test")
    assert found["counts"] == {"all": 3}
    assert found["problems"] == []


@pytest.mark.parametrize("times", [20, pytest.param(200, marks=pytest.mark.slow)])
def test_every_damaged_png_is_refused(root, times):
    data = open_dataset("synthetic", root, "test")
    assert all(refused for _, refused in outcomes(data.depth_path(1), lambda: data[1], times))


@pytest.mark.parametrize("times", [20, pytest.param(200, marks=pytest.mark.slow)])
def test_damaged_labels(root, labels, times):
    """JSON has no checksum: what is read is a whole, finite label that projects, or refused."""

    def read():
        data = open_dataset("synthetic", root, "test")
        for index in range(len(data)):
            sample = data[index]
            assert np.isfinite(sample.joints_mm).all()

    assert sum(refused for _, refused in outcomes(labels, read, times)) > 0.3 * times


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("joints_mm", [[float("nan")] * 3] * 21, r"depth_000000\.png: its joints_mm .* are not finite"),
        ("keypoints_px", [[0, 0]] * 21, r"depth_000000\.png: its joints_mm project .* px from its keypoints"),
        ("joints_mm", [[1, 2, 3]] * 14, r"labels\.jsonl: line 1 is no label"),
        ("joints_mm", [[10**400] * 3] * 21, r"labels\.jsonl"),
        ("camera", {"fx": -1, "fy": 1, "cx": 0, "cy": 0}, r"labels\.jsonl: line 1 .*fx and fy above zero"),
        ("file", 7, r"labels\.jsonl: line 1"),
        ("image", "../a.jpg", r"labels\.jsonl: line 1 .*image or file is '\.\./a\.jpg'"),
        ("file", None, r"labels\.jsonl: line 1 .*image or file is None"),
        ("pose", [0] * 45, r"labels\.jsonl: line 1"),
    ],
)
def test_labels_that_cannot_be(root, labels, key, value, message):
    lines = labels.read_text().splitlines()
    lines[0] = json.dumps({**json.loads(lines[0]), key: value})
    labels.write_text("\n".join(lines) + "\n")
    with pytest.raises(FormatError, match=message):
        open_dataset("synthetic", root, "test")[0]


def test_wrong_and_incomplete_folders(root, labels, tmp_path):
    with pytest.raises(InputError, match="give a folder that `handgraph synthesize` wrote"):
        open_dataset("synthetic", tmp_path)
    (tmp_path / "labels.jsonl").write_text(labels.read_text())
    with pytest.raises(
        InputError, match=r"3 of 3 labelled frames are not there, 'depth_000000\.png' the first"
    ):
        open_dataset("synthetic", tmp_path)
    (tmp_path / "labels.jsonl").write_text("")
    with pytest.raises(FormatError, match="the file is empty"):
        open_dataset("synthetic", tmp_path)
