import json
import pickle

import numpy as np
import pytest
from damage import outcomes

from handgraph.datasets import check, open_dataset
from handgraph.datasets.image_crops import ImageCrops
from handgraph.datasets.layouts import WRITERS
from handgraph.errors import ConfigError, FormatError, InputError
from handgraph.hand import ORDER, Hand


@pytest.fixture(params=["csv", "coco"])
def tree(request, tmp_path):
    return tmp_path, WRITERS["folder"](tmp_path, form=request.param), request.param


def test_round_trip_is_exact(tree):
    root, truth, form = tree
    data = open_dataset("folder", root)
    assert len(data) == 4
    for index, told in enumerate(truth):
        sample = data[index]
        np.testing.assert_array_equal(sample.keypoints_px, told["keypoints_px"].astype(np.float32))
        assert sample.side == told["side"]
        if told["joints_mm"] is not None:
            np.testing.assert_array_equal(sample.joints_mm, told["joints_mm"].astype(np.float32))
            projected = sample.camera.uvd_from_xyz(sample.joints_mm)[:, :2]
            np.testing.assert_allclose(projected, sample.keypoints_px, atol=2e-3)
        else:
            assert sample.joints_mm is None
            np.testing.assert_array_equal(sample.box_px, told["box_px"].astype(np.float32))
    assert [data[i].frame for i in range(4)] == [
        "photo_0.jpg",
        "photo_0.jpg#2",
        "photo_1.jpg",
        "photo_1.jpg#2",
    ]
    assert (data[0].visible is None) == (form == "csv")
    assert pickle.loads(pickle.dumps(data))[1].frame == "photo_0.jpg#2"


def test_it_trains(tree):
    batch = ImageCrops(open_dataset("folder", tree[0]), size=32).batch([0, 1])
    assert batch["known"].sum(dim=1).tolist() == [21, 20]
    assert batch["relative_mm"][0].isfinite().all()
    assert batch["relative_mm"][1].isnan().all()


def test_splits_are_folders_and_pictures_may_have_their_own(tmp_path):
    for split in ("train", "test"):
        WRITERS["folder"](tmp_path / split, samples=1, seed=len(split))
    (tmp_path / "test/images").mkdir()
    (tmp_path / "test/photo_0.jpg").rename(tmp_path / "test/images/photo_0.jpg")
    for split in ("train", "test"):
        assert len(open_dataset("folder", tmp_path, split)) == 2
    assert open_dataset("folder", tmp_path, "test")[0].image.shape == (240, 320, 3)


def test_what_handgraph_itself_writes_as_coco(tmp_path, rng):
    """Predictions corrected by hand are training data: nothing is lost on the way."""
    from handgraph import PinholeCamera
    from handgraph.datasets.layouts.drawing import hand_3d, picture, project, write_picture
    from handgraph.formats import ImageHands, Predictions, write_coco
    from handgraph.skeleton import JOINT_NAMES

    camera = PinholeCamera(350.0, 350.0, 160.0, 120.0)
    joints = hand_3d(rng)
    keypoints = project(camera, joints)
    record = {
        "side": "left",
        "score": 0.5,
        "joint_names": list(JOINT_NAMES),
        "keypoints_px": keypoints.tolist(),
        "joints_mm": joints.tolist(),
        "vertices_mm": None,
        "pose": None,
        "shape": None,
        "box_px": [10.0, 20.0, 30.0, 40.0],
        "camera": {"fx": 350.0, "fy": 350.0, "cx": 160.0, "cy": 120.0},
        "frame": "camera frame",
        "order": ORDER,
    }
    hand = Hand.from_dict(record)
    write_picture(tmp_path / "a.jpg", picture(rng, (320, 240), keypoints))
    write_coco(tmp_path / "labels.json", Predictions("none", (ImageHands("a.jpg", (hand,), (320, 240)),)))
    sample = open_dataset("folder", tmp_path)[0]
    np.testing.assert_allclose(sample.joints_mm, hand.joints_mm, atol=0.01)
    np.testing.assert_allclose(sample.keypoints_px, hand.keypoints_px, atol=0.01)
    np.testing.assert_allclose(sample.box_px, hand.box_px, atol=0.01)
    assert (sample.side, sample.camera) == ("left", camera)


def test_another_order(tmp_path):
    truth = WRITERS["folder"](tmp_path, form="coco")
    path = tmp_path / "labels.json"
    content = json.loads(path.read_text())
    content["categories"][0]["keypoints"][1:5] = ["thumb1", "thumb2", "thumb3", "thumb4"]
    path.write_text(json.dumps(content))
    with pytest.raises(FormatError, match=r"other names \('thumb1'\) than .* give order=openpose"):
        open_dataset("folder", tmp_path)
    assert len(open_dataset("folder", tmp_path, order="openpose")) == 4
    sample = open_dataset("folder", tmp_path, order="rhd")[0]  # each finger counted from its tip
    np.testing.assert_allclose(sample.order.to_canonical(sample.keypoints_px)[4], truth[0]["keypoints_px"][1])
    with pytest.raises(ConfigError, match="no joint order 'mine'"):
        open_dataset("folder", tmp_path, order="mine")


@pytest.mark.parametrize(("name", "hands"), [("freihand", 4), ("onehand10k", 2), ("panoptic_cmu", 2)])
def test_real_coco_folders(real, name, hands):
    """Annotation files of published sets are read where they lie, under their own names."""
    folder, labels = real / f"rgb_2d_{name}", f"test_{name.partition('_')[0]}.json"
    with pytest.raises(FormatError, match="its keypoints have other names"):
        open_dataset("folder", folder, labels=labels)
    data = open_dataset("folder", folder, labels=labels, order="openpose")
    assert len(data) == hands
    for index in range(hands):
        sample = data[index]
        x, y, w, h = sample.box_px
        known = sample.keypoints_px[np.isfinite(sample.keypoints_px).all(axis=1)]
        assert ((known > [x - 15, y - 15]) & (known < [x + w + 15, y + h + 15])).all()
    if name == "onehand10k":  # 9.jpg has no wrist
        assert np.isnan(data[0].keypoints_px[0]).all()


@pytest.mark.parametrize(
    ("line", "column", "value", "message"),
    [
        (0, "wrist_u", "wrist_U", "column 'wrist_U' is unknown"),
        (0, "wrist_u", "side", "column 'side' is there twice"),
        (1, "wrist_u", "12,3", "line 2 has .* cells, the header"),
        (1, "wrist_u", "1_5", "line 2: wrist_u is '1_5', expected a number or nothing"),
        (1, "wrist_u", "nan", "line 2: wrist_u is 'nan'; leave unknowns empty"),
        (2, "side", "Left", "line 3: side is 'Left', expected left or right"),
        (1, "fx", "", "line 2: only a part of the camera"),
        (1, "fx", "-3", "line 2: camera .* fx and fy above zero"),
        (2, "box_w", "0", "line 3: the box has no size"),
        (1, "file", "../../x.jpg", r"line 2: picture '\.\./\.\./x\.jpg', expected a name below"),
    ],
)
def test_csv_that_cannot_be(tmp_path, line, column, value, message):
    WRITERS["folder"](tmp_path)
    path = tmp_path / "labels.csv"
    rows = [row.split(",") for row in path.read_text().splitlines()]
    rows[line][rows[0].index(column)] = value
    path.write_text("\n".join(",".join(row) for row in rows))
    with pytest.raises(FormatError, match=message):
        open_dataset("folder", tmp_path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda a: a.update(keypoints=[1, 2, 3]), "annotation 0: 3 numbers in keypoints, expected 63"),
        (lambda a: a["keypoints"].__setitem__(2, 3), "annotation 0: visibility 3, expected 0, 1 or 2"),
        (lambda a: a.update(image_id=[9]), "annotation 0 belongs to no listed image"),
        (lambda a: a.update(camera={"fx": 1}), "annotation 0: camera is no array"),
        (lambda a: a.update(camera=7), "annotation 0: camera is"),
        (lambda a: a.update(joints_mm=[[1, 2, 3]]), "annotation 0: joints_mm is"),
        (lambda a: a.update(side="both"), "annotation 0: side is 'both'"),
        (lambda a: a.update(keypoints=[0] * 63), "annotation 0: no keypoint is known"),
    ],
)
def test_coco_that_cannot_be(tmp_path, change, message):
    WRITERS["folder"](tmp_path, form="coco")
    path = tmp_path / "labels.json"
    content = json.loads(path.read_text())
    change(content["annotations"][0])
    path.write_text(json.dumps(content))
    with pytest.raises(FormatError, match=message):
        open_dataset("folder", tmp_path)


def test_wrong_folders(tmp_path):
    with pytest.raises(InputError, match=r"no labels\.json or labels\.csv"):
        open_dataset("folder", tmp_path)
    WRITERS["folder"](tmp_path)
    WRITERS["folder"](tmp_path, form="coco")
    with pytest.raises(InputError, match=r"both labels\.json and labels\.csv are there; say which"):
        open_dataset("folder", tmp_path)
    assert len(open_dataset("folder", tmp_path, labels="labels.csv")) == 4
    (tmp_path / "labels.json").unlink()
    (tmp_path / "photo_1.jpg").unlink()
    with pytest.raises(InputError, match=r"1 of 2 labelled images are not there, 'photo_1\.jpg'"):
        open_dataset("folder", tmp_path)
    (tmp_path / "labels.csv").write_text("file,wrist_u,wrist_v\n")
    with pytest.raises(FormatError, match="holds no hand"):
        open_dataset("folder", tmp_path)


def test_a_sound_folder_has_no_problems(tree):
    found = check("folder", tree[0])
    assert (found["counts"], found["problems"]) == ({"all": 4}, [])


@pytest.mark.parametrize("times", [24, pytest.param(200, marks=pytest.mark.slow)])
def test_damaged_labels(tree, times):
    """Text has no checksum: what is read is a whole, finite label, or refused."""
    root, _, form = tree

    def read():
        data = open_dataset("folder", root)
        for index in range(len(data)):
            assert np.isfinite(data[index].keypoints_px).any()

    results = outcomes(root / ("labels.csv" if form == "csv" else "labels.json"), read, times)
    assert sum(refused for _, refused in results) > 0.3 * times
