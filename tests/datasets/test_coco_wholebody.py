import json
import pickle

import numpy as np
import pytest
from damage import outcomes

from handgraph.datasets import open_dataset
from handgraph.datasets.layouts import WRITERS
from handgraph.errors import FormatError, InputError


@pytest.fixture
def tree(tmp_path):
    return tmp_path, WRITERS["coco_wholebody"](tmp_path)


def test_round_trip_is_exact(tree):
    root, truth = tree
    for split, part in (("train", "train"), ("validation", "val")):
        data = open_dataset("coco_wholebody", root, split)
        assert len(data) == len(truth[part]) == 6  # three valid hands a picture, the crowd's left out
        for index, told in enumerate(truth[part]):
            sample = data[index]
            np.testing.assert_array_equal(sample.keypoints_px, told["keypoints_px"].astype(np.float32))
            np.testing.assert_array_equal(sample.box_px, told["box_px"].astype(np.float32))
            assert (sample.side, sample.frame) == (told["side"], told["file"])
    assert pickle.loads(pickle.dumps(data))[3].side == data[3].side


def test_annotations_may_lie_beside_the_pictures(tree):
    root, _ = tree
    (root / "annotations/coco_wholebody_val_v1.0.json").rename(root / "coco_wholebody_val_v1.0.json")
    assert len(open_dataset("coco_wholebody", root, "validation")) == 6


def test_wrong_roots_and_copies(tree, tmp_path_factory):
    root, _ = tree
    with pytest.raises(InputError, match=r"no coco_wholebody_train_v1\.0\.json here or in annotations"):
        open_dataset("coco_wholebody", tmp_path_factory.mktemp("empty"))
    (root / "val2017/000000000140.jpg").unlink()
    with pytest.raises(InputError, match=r"1 of 2 labelled images are not there, '000000000140\.jpg'"):
        open_dataset("coco_wholebody", root, "validation")
    (root / "val2017").rename(root / "val2014")
    with pytest.raises(InputError, match="no folder val2017"):
        open_dataset("coco_wholebody", root, "validation")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: c.pop("images"), "no list under 'images'"),
        (
            lambda c: c["annotations"][1].pop("righthand_kpts"),
            "annotation 1 has no righthand_kpts; plain COCO",
        ),
        (lambda c: c["annotations"][0].update(lefthand_kpts=[1.0] * 60), "annotation 0: lefthand_kpts is"),
        (lambda c: c["annotations"][0].update(lefthand_box=[1, 2, 0, 5]), "lefthand_box has no size"),
        (lambda c: c["annotations"][0].update(image_id=7), "annotation 0 belongs to image 7, which is not"),
        (lambda c: c["images"][0].update(file_name="../x.jpg"), "image 0 lacks a file_name"),
        (lambda c: c["annotations"].clear(), "no person has a valid hand"),
        (lambda c: c["annotations"][0]["lefthand_kpts"].__setitem__(0, float("inf")), "not finite"),
    ],
)
def test_labels_that_cannot_be(tree, change, message):
    root, _ = tree
    path = root / "annotations/coco_wholebody_val_v1.0.json"
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))
    with pytest.raises(FormatError, match=message):
        open_dataset("coco_wholebody", root, "validation")


@pytest.mark.parametrize("times", [24, pytest.param(200, marks=pytest.mark.slow)])
def test_damaged_files(tree, times):
    root, _ = tree

    def read():
        assert np.isfinite(open_dataset("coco_wholebody", root, "validation")[0].keypoints_px).any()

    for path in (root / "annotations/coco_wholebody_val_v1.0.json", root / "val2017/000000000139.jpg"):
        results = outcomes(path, read, times)
        assert all(refused for kind, refused in results if kind == "cut")
