import json
import re

import cv2
import numpy as np
import pytest
from dataset_writers import write_icvl, write_msra, write_nyu

from handgraph.datasets import check, names, open_dataset
from handgraph.datasets.check import doubts
from handgraph.datasets.layouts import WRITERS
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
    moved = np.roll(cv2.imread(str(first), cv2.IMREAD_UNCHANGED), 140, axis=1)
    cv2.imwrite(str(first), moved)
    found = check("icvl", tmp_path)
    assert sum("of 16 labelled joints have the hand's depth under them" in p for p in found["problems"]) == 1
    assert second.exists()


def test_a_wrong_root_is_told_where_the_set_is(tmp_path):
    """Packed, in another case, a folder deeper or higher, or a file: names alone say it."""
    root = tmp_path / "data"
    WRITERS["stb"](root)

    def said(where):
        with pytest.raises(
            InputError, match="^" + re.escape(f"{where}: no folders images and labels; ")
        ) as caught:
            open_dataset("stb:train", where)
        assert check("stb", where)["problems"] == [str(caught.value)] if where.is_dir() else True
        return str(caught.value).partition("holds STB's")[2]

    assert said(tmp_path) == f" ({root} holds images: is it meant?)"
    assert said(root / "images" / "B2Counting") == f" ({root} holds images: is it meant?)"
    (root / "images").rename(root / "Images")
    assert said(root) == " (Images is there: upper and lower case must be the original's)"
    (root / "labels").rename(root / "Labels")
    archive = tmp_path / "packed" / "STB.zip"
    archive.parent.mkdir()
    archive.write_bytes(b"PK")
    assert said(archive) == " (STB.zip is an archive: unpack it and give the folder)"
    assert said(archive.parent) == " (STB.zip is there: is it unpacked?)"
    archive.unlink()
    assert said(archive.parent) == " (the folder is empty)"
    nothing = archive.parent / "none"
    for ask in (lambda: open_dataset("stb:train", nothing), lambda: check("stb", nothing)):
        with pytest.raises(
            InputError, match=f"^{re.escape(str(nothing))}: no such folder; give the one that"
        ):
            ask()


def test_what_file_managers_and_unpackers_leave_is_no_part_of_a_set(tmp_path):
    """macOS's `._` files, Windows' thumbnails, links and read-only files change nothing."""
    splits = {"freihand": "train", "mpii_nzsl": "test", "coco_wholebody": "train", "folder": "all"}
    for name, split in splits.items():
        real, root = tmp_path / name, tmp_path / f"{name}_links"
        WRITERS[name](real)
        frames = len(open_dataset(name, real, split))
        for path in [path for path in real.rglob("*") if path.is_file()]:
            path.with_name(f"._{path.name}").write_bytes(b"\0\5\26\7" + bytes(60))
            (path.parent / "Thumbs.db").write_bytes(b"x")
            path.chmod(0o444)
        root.mkdir()
        for path in real.iterdir():
            (root / path.name).symlink_to(path)
        data = open_dataset(name, root, split)
        assert len(data) == frames, name
        data[0]


def test_part_of_a_set_is_opened_on_purpose_only(tmp_path):
    WRITERS["dexycb"](tmp_path / "dexycb", subjects=(7,), sequences=2)
    WRITERS["humbi"](tmp_path / "humbi")
    for name, split, words in (
        ("dexycb", "s1_test", "1 of the split's 2 subjects"),
        ("humbi", "train", r"partial=True \(evaluate --partial\) what is there is divided"),
    ):
        with pytest.raises(InputError, match=words):
            open_dataset(name, tmp_path / name, split)
        assert len(open_dataset(name, tmp_path / name, split, partial=True)) > 0
    assert len(open_dataset("humbi", tmp_path / "humbi", "all")) == 6  # no count to insist on


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
    assert "all 21 labelled joints lie outside the frame" in words
    assert any("the 3D labels project up to 1000.0 px" in d for d in words)


def test_2d_labels_and_unknown_joints(tmp_path):
    """Colour sets without 3D are checked too, and what is unknown raises no doubt."""
    from dataclasses import replace

    WRITERS["folder"](tmp_path)
    data = open_dataset("folder", tmp_path)
    whole, flat = data[0], data[1]
    assert np.isnan(flat.keypoints_px).any()
    assert doubts(whole, data.joints) == doubts(flat, data.joints) == []
    few = whole.joints_mm.copy()
    few[3:] = np.nan
    assert doubts(replace(whole, joints_mm=few), data.joints) == []
    shifted = replace(whole, keypoints_px=whole.keypoints_px + 3)
    assert doubts(shifted, data.joints) == ["the 3D labels project up to 3.0 px from the 2D labels"]
    metres = replace(whole, joints_mm=whole.joints_mm / 1000)
    assert any("in another unit?" in doubt for doubt in doubts(metres, data.joints))


def test_labels_of_pictures_of_another_size(tmp_path):
    """A hand that the border cuts is no fault of a data set; most hands cut are."""
    WRITERS["folder"](tmp_path, samples=4)
    table = tmp_path / "labels.csv"
    rows = [row.split(",") for row in table.read_text().splitlines()]
    columns = [number for number, name in enumerate(rows[0]) if name.endswith("_u")]
    for number, shift in ((2, 200.0), (3, 205.0), (4, 195.0), (6, 200.0)):
        for column in columns:
            if rows[number][column]:
                rows[number][column] = str(float(rows[number][column]) + shift)
        if number == 2:
            only_one = "\n".join(",".join(row) for row in rows)
    table.write_text(only_one)
    assert not [p for p in check("folder", tmp_path)["problems"] if "another size" in p]
    table.write_text("\n".join(",".join(row) for row in rows))
    found = [p for p in check("folder", tmp_path)["problems"] if "another size" in p]
    assert found == [
        "all: more than half of the labelled joints lie outside the frame in 4 of 8 frames: "
        "labels of pictures of another size?"
    ]


def test_the_sheet_shows_labels_where_they_are(tmp_path):
    """Dots lie on the hand that the picture shows; a ring of a wrong camera lies elsewhere."""
    from dataclasses import replace

    from handgraph import PinholeCamera
    from handgraph.datasets.sheet import sheet, tile

    WRITERS["folder"](tmp_path)
    found = check("folder", tmp_path, out=tmp_path / "out")
    picture = cv2.imread(found["sheet"])
    assert picture.shape == (224, 4 * 224, 3)
    sample = open_dataset("folder", tmp_path)[0]
    bare = replace(sample, joints_mm=None, camera=None)
    wrong = replace(sample, camera=PinholeCamera(350.0, 352.0, 190.0, 120.0))
    right_rings, wrong_rings = (np.any(tile(s) != tile(bare), axis=-1) for s in (sample, wrong))
    at = tile(replace(bare, image=np.zeros_like(sample.image)))
    dots = cv2.dilate((at == 255).all(axis=-1).astype(np.uint8), np.ones((13, 13))) > 0
    assert (right_rings & ~dots).sum() == 0
    assert (wrong_rings & ~dots).sum() > 200
    assert sheet([at] * 9).shape == (448, 8 * 224, 3)


def test_other_versions_and_cut_copies_are_told_apart(tmp_path, monkeypatch):
    from handgraph.datasets import _DATASETS

    WRITERS["mpii_nzsl"](tmp_path)
    found = check("mpii_nzsl", tmp_path)
    assert [p.partition(", or cut")[0] for p in found["problems"]] == [
        "train: 2 frames, the published set has 1912: copied only in part",
        "test: 2 frames, the published set has 846: copied only in part",
    ]
    monkeypatch.setitem(_DATASETS["mpii_nzsl"].frames, "train", 1)
    assert "another version, or two of them mixed" in check("mpii_nzsl", tmp_path)["problems"][0]


def test_exit_code_and_document_of_the_command(tmp_path, capsys):
    from handgraph.cli import main

    WRITERS["folder"](tmp_path)
    assert main(["datasets", "check", "folder", str(tmp_path), "--json", "--out", str(tmp_path / "o")]) == 0
    document = json.loads(capsys.readouterr().out)
    assert (document["counts"], document["problems"], document["read"]) == ({"all": 4}, [], 4)
    (tmp_path / "photo_1.jpg").unlink()
    assert main(["datasets", "check", "folder", str(tmp_path), "--json"]) == 2
    assert "'photo_1.jpg' the first" in json.loads(capsys.readouterr().out)["problems"][0]
    assert main(["datasets", "check", "folder", str(tmp_path)]) == 2
    assert "'photo_1.jpg' the first" in capsys.readouterr().out


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
