"""CMU's hand sets: Panoptic (hand143) and hand_labels (MPII and NZSL)."""

import json
import pickle
import shutil

import cv2
import numpy as np
import pytest
from damage import outcomes

from handgraph.datasets import open_dataset
from handgraph.datasets.image_crops import ImageCrops
from handgraph.datasets.layouts import WRITERS
from handgraph.datasets.panoptic import DIGESTS, FRAMES, MARGIN, PROTOCOLS
from handgraph.datasets.splits import digest, hashed_split
from handgraph.errors import ConfigError, FormatError, InputError


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    root = tmp_path_factory.mktemp("panoptic")
    return root, WRITERS["panoptic"](root, size=(480, 270))


@pytest.fixture
def panoptic(written, tmp_path):
    """A copy that a test may spoil."""
    shutil.copytree(written[0], tmp_path, dirs_exist_ok=True)
    return tmp_path, written[1]


@pytest.fixture
def manual(tmp_path):
    return tmp_path, WRITERS["mpii_nzsl"](tmp_path)


def edit(path, change):
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def test_panoptic_round_trip(written):
    root, truth = written
    data = open_dataset("panoptic", root, "all")
    assert len(data) == 3
    for index, told in enumerate(truth):
        sample = data[index]
        np.testing.assert_array_equal(sample.keypoints_px, told["keypoints_px"].astype(np.float32))
        assert sample.image.shape == (270, 480, 3)
        assert (sample.side, sample.frame) == ("right", f"imgs/{index:08d}.jpg")
    assert np.isnan(data[1].keypoints_px[7]).all()
    assert len(open_dataset("panoptic", root / "hand143_panopticdb", "all")) == 3
    again = pickle.loads(pickle.dumps(data))
    np.testing.assert_array_equal(again[2].image, data[2].image)


def test_the_papers_crop_is_a_square_of_2_2_hands(written):
    data = open_dataset("panoptic", written[0], "all")
    batch = ImageCrops(data, size=64, margin=MARGIN, augment=False).batch([0, 1, 2])
    for index in range(3):
        uv = batch["uv"][index].numpy()[batch["known"][index].numpy()]
        low, high = uv.min(axis=0), uv.max(axis=0)
        assert (high - low).max() == pytest.approx(1 / 2.2, abs=0.02)
        np.testing.assert_allclose((low + high) / 2, 0.5, atol=0.01)


def test_the_written_splits_of_the_whole_set():
    """The release's names are known, so its random splits can be fixed for all time."""
    names = [f"imgs/{number:08d}.jpg" for number in range(14817)]
    for protocol, parts in PROTOCOLS.items():
        split = hashed_split(names, parts)
        assert {p: digest([names[i] for i in chosen]) for p, chosen in split.items()} == DIGESTS[protocol]
        assert sum(len(chosen) for chosen in split.values()) == 14817
    sizes = {part: len(chosen) for part, chosen in hashed_split(names, PROTOCOLS["70/15/15"]).items()}
    assert {**sizes, "all": 14817} == FRAMES


def test_panoptic_parts_share_no_image(tmp_path):
    WRITERS["panoptic"](tmp_path, samples=9, size=(64, 48))
    for protocol in PROTOCOLS:
        parts = [
            open_dataset("panoptic", tmp_path, split, protocol=protocol).frames
            for split in ("train", "validation", "test")
        ]
        assert (
            sorted(name for part in parts for name in part)
            == open_dataset("panoptic", tmp_path, "all").frames
        )
    one, other = (open_dataset("panoptic", tmp_path, "train", seed=seed) for seed in (0, 1))
    assert one.digest != other.digest


def test_panoptic_wrong_roots_and_copies(panoptic, tmp_path_factory):
    root, _ = panoptic
    with pytest.raises(InputError, match=r"no hands_v143_14817\.json here or in hand143_panopticdb"):
        open_dataset("panoptic", tmp_path_factory.mktemp("empty"))
    with pytest.raises(ConfigError, match="no protocol '90/10'; there are 70/15/15, 80/10/10"):
        open_dataset("panoptic", root, protocol="90/10")
    folder = root / "hand143_panopticdb"
    shutil.copy(folder / "hands_v143_14817.json", folder / "hands_v143_old.json")
    with pytest.raises(InputError, match="keep the label file of the images, remove the others"):
        open_dataset("panoptic", root)
    (folder / "hands_v143_old.json").unlink()
    cv2.imwrite(str(folder / "imgs/00000002.jpg"), np.zeros((48, 64, 3), np.uint8))
    with pytest.raises(FormatError, match=r"00000002\.jpg: a picture of 64x48, expected 480x270"):
        open_dataset("panoptic", root, "all")[2]
    (folder / "imgs/00000001.jpg").unlink()
    with pytest.raises(
        InputError, match=r"1 of 3 labelled images are not there, 'imgs/00000001\.jpg' the first; .* in part"
    ):
        open_dataset("panoptic", root)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: c.pop("root"), "no list under 'root'"),
        (lambda c: c["root"][1].pop("joint_self"), "entry 1 lacks img_paths or joint_self"),
        (lambda c: c["root"][2].update(joint_self=[[1, 2, 1]] * 20), "entry 2: joint_self is .* expected"),
        (lambda c: c["root"][0]["joint_self"].__setitem__(3, [float("nan"), 2, 1]), "entry 0: .* not finite"),
        (lambda c: c["root"][0]["joint_self"].__setitem__(3, ["1", 2, 1]), "entry 0: joint_self is no array"),
        (lambda c: c["root"][0].update(img_paths="../x.jpg"), r"entry 0: img_paths is '\.\./x\.jpg'"),
        (lambda c: c["root"][0].update(img_paths="imgs/00000001.jpg"), "listed twice"),
    ],
)
def test_panoptic_labels_that_cannot_be(panoptic, change, message):
    root, _ = panoptic
    edit(root / "hand143_panopticdb/hands_v143_14817.json", change)
    with pytest.raises(FormatError, match=message):
        open_dataset("panoptic", root, "all")


@pytest.mark.parametrize("times", [24, pytest.param(200, marks=pytest.mark.slow)])
def test_damaged_panoptic_files(panoptic, times):
    """A cut file is always refused; a flipped bit in JSON or JPEG is seen where it breaks something."""
    root, _ = panoptic
    folder = root / "hand143_panopticdb"

    def read():
        sample = open_dataset("panoptic", root, "all")[0]
        assert np.isfinite(sample.keypoints_px).any()
        assert sample.image.shape == (270, 480, 3)

    for name in ("hands_v143_14817.json", "imgs/00000000.jpg"):
        results = outcomes(folder / name, read, times)
        assert all(refused for kind, refused in results if kind == "cut")


def test_manual_round_trip(manual):
    root, truth = manual
    for split, part in (("train", "manual_train"), ("test", "manual_test")):
        data = open_dataset("mpii_nzsl", root, split)
        assert len(data) == 2
        for index, told in enumerate(truth[part]):
            sample = data[index]
            np.testing.assert_array_equal(sample.keypoints_px, told["keypoints_px"].astype(np.float32))
            assert (sample.side, sample.frame) == (told["side"], told["file"])
            assert data.head_size_px(index) == told["head_size"]
    assert len(open_dataset("mpii_nzsl", root / "hand_labels", "test")) == 2
    WRITERS["mpii_nzsl"](root, samples=1, parts=("synth3",))
    assert len(open_dataset("mpii_nzsl", root, "synth3")) == 1


def test_manual_wrong_roots_and_copies(manual, tmp_path_factory):
    root, _ = manual
    with pytest.raises(InputError, match=r"no folder manual_test or hand_labels/manual_test"):
        open_dataset("mpii_nzsl", tmp_path_factory.mktemp("empty"), "test")
    folder = root / "hand_labels/manual_test"
    first = sorted(folder.glob("*.jpg"))[0]
    picture = first.read_bytes()
    first.unlink()
    with pytest.raises(InputError, match=r"1 of 2 labels have no picture, 005880453_01_l\.json the first"):
        open_dataset("mpii_nzsl", root, "test")
    first.write_bytes(picture)
    first.with_suffix(".json").unlink()
    with pytest.raises(InputError, match=r"1 of 2 pictures have no label, 005880453_01_l\.jpg the first"):
        open_dataset("mpii_nzsl", root, "test")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: c.update(is_left=2), "is_left is 2, expected 0 or 1"),
        (lambda c: c.update(hand_pts=[[1, 2]] * 21), r"hand_pts is int64 of shape \(21, 2\)"),
        (lambda c: c.pop("hand_pts"), "hand_pts is no array of numbers"),
        (lambda c: c["hand_pts"].__setitem__(4, [1e4, 2, 1]), "the middle of hand_pts"),
        (lambda c: c["hand_pts"].__setitem__(slice(None), [[1, 2, 0]] * 21), "no joint has a finite label"),
    ],
)
def test_manual_labels_that_cannot_be(manual, change, message):
    root, _ = manual
    data = open_dataset("mpii_nzsl", root, "test")
    label = data.image_path(1).with_suffix(".json")
    content = json.loads(label.read_text())
    if "1e4" in message or "middle" in message:  # a far point moves the box; keep the given centre
        content["hand_box_center"] = [float(x) for x in np.mean(np.array(content["hand_pts"])[:, :2], axis=0)]
        content["hand_pts"] = [[u + 5e3, v, 1] for u, v, _ in content["hand_pts"]]
    else:
        change(content)
    label.write_text(json.dumps(content))
    with pytest.raises(FormatError, match=message):
        data[1]


@pytest.mark.parametrize("times", [24, pytest.param(200, marks=pytest.mark.slow)])
def test_damaged_manual_files(manual, times):
    root, _ = manual
    data = open_dataset("mpii_nzsl", root, "test")

    def read():
        assert np.isfinite(data[0].keypoints_px).any()

    for path in (data.image_path(0), data.image_path(0).with_suffix(".json")):
        results = outcomes(path, read, times)
        assert all(refused for kind, refused in results if kind == "cut")


def test_the_original_annotations(real, tmp_path):
    """Two photographs with their original JSON, as the release lays them out."""
    folder = tmp_path / "hand_labels/manual_test"
    folder.mkdir(parents=True)
    for path in (real / "rgb_2d_cmu_original_json").iterdir():
        (folder / path.name).symlink_to(path)
    data = open_dataset("mpii_nzsl", tmp_path, "test")
    assert [data.head_size_px(index) for index in range(2)] == [159.0, 78.2471]
    for index, (width, height) in enumerate(((1920, 1080), (400, 300))):
        sample = data[index]
        assert sample.image.shape == (height, width, 3)
        assert sample.side == "right"
        stated = json.loads(data.image_path(index).with_suffix(".json").read_text())["hand_box_center"]
        middle = sample.box_px[:2] + (sample.box_px[2:] - 1) / 2
        np.testing.assert_allclose(middle, stated, atol=0.01)  # so the release's centre is the tight box's
