import numpy as np
import pytest
from dataset_writers import write_icvl, write_msra, write_nyu

from handgraph.datasets import check, names, open_dataset
from handgraph.datasets.check import doubts
from handgraph.errors import ConfigError, InputError, MissingExtraError


def test_names_and_splits():
    assert names()["nyu"] == ("train", "test", "test_1", "test_2")
    assert {"P0", "not_P0", "all"} <= set(names()["msra"])
    with pytest.raises(ConfigError, match="no dataset 'nyuu'; there are nyu, icvl, msra"):
        open_dataset("nyuu", ".", "test")
    with pytest.raises(ConfigError, match="two splits given, 'test' and 'train'"):
        open_dataset("nyu:test", ".", "train")


def test_a_small_but_sound_set_has_only_its_counts_against_it(tmp_path):
    for part, seed in (("train", 0), ("test", 1)):
        write_nyu(tmp_path, part=part, seed=seed)
    found = check("nyu", tmp_path)
    assert found["counts"] == {"train": 3, "test": 3}
    assert found["sizes"] == {"640x480": 6}
    assert [p for p in found["problems"] if "published set has" not in p] == []
    assert len(found["problems"]) == 2


def test_each_fault_is_one_line(tmp_path):
    for part in ("train", "test"):
        write_nyu(tmp_path, part=part)
    broken = tmp_path / "dataset/test/depth_1_0000002.png"
    broken.write_bytes(broken.read_bytes()[:-40])
    (tmp_path / "dataset/train/joint_data.mat").write_bytes(b"no")
    found = check("nyu", tmp_path)
    assert found["counts"] == {"test": 3}
    assert sum("joint_data.mat: not a readable MATLAB file" in p for p in found["problems"]) == 1
    assert sum("depth_1_0000002.png: the PNG is cut short" in p for p in found["problems"]) == 1
    assert all("\n" not in p for p in found["problems"])


def test_frames_and_labels_of_different_numbering_are_seen(tmp_path):
    """Every file is sound; only that the hand is not where the labels say gives it away."""
    write_icvl(tmp_path)
    first, second = (tmp_path / f"Testing/Depth/test_seq_1/image_000{n}.png" for n in (0, 1))
    sample = open_dataset("icvl", tmp_path, "test_seq_1")[0]
    assert doubts(sample, tuple(range(16))) == []
    import cv2

    moved = np.roll(cv2.imread(str(first), cv2.IMREAD_UNCHANGED), 140, axis=1)
    cv2.imwrite(str(first), moved)
    found = check("icvl", tmp_path)
    assert sum("of 16 labelled joints have the hand's depth under them" in p for p in found["problems"]) == 1
    assert second.exists()


def test_implausible_labels(tmp_path):
    write_msra(tmp_path, subjects=(2,))
    sample = open_dataset("msra", tmp_path, "P2")[0]
    joints = tuple(range(21))
    from dataclasses import replace

    far = sample.joints_mm.copy()
    far[4] += [400, 0, 0]
    assert any("mm long" in d for d in doubts(replace(sample, joints_mm=far), joints))
    outside = sample.keypoints_px + 1000
    words = doubts(replace(sample, keypoints_px=outside), joints)
    assert "21 of 21 labelled joints lie outside the frame" in words
    assert any("the 3D labels project up to 1000.0 px" in d for d in words)


def test_wrong_root_and_name(tmp_path):
    with pytest.raises(InputError, match="no such folder"):
        check("nyu", tmp_path / "nothing")
    found = check("msra", tmp_path)
    assert found["counts"] == {}
    assert len(found["problems"]) == 1  # said once, not for each of nine subjects
    assert "no folders P0 to P8" in found["problems"][0]


def test_without_scipy_the_extra_is_named(tmp_path, monkeypatch):
    import sys

    write_nyu(tmp_path)
    monkeypatch.setitem(sys.modules, "scipy.io", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'handgraph\[datasets\]'"):
        open_dataset("nyu", tmp_path, "test")
