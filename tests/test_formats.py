"""Predictions come back from every format as they went in, and damaged files are refused in one line."""

import builtins
import json
import os
from dataclasses import replace

import numpy as np
import pytest

import handgraph as hg
from handgraph import formats
from handgraph.files import atomic_write
from handgraph.formats import ImageHands, Predictions
from handgraph.hand import ORDER, RELATIVE_FRAME
from handgraph.skeleton import JOINT_NAMES

pa = pytest.importorskip("pyarrow")
pq = pytest.importorskip("pyarrow.parquet")

CAMERA = hg.PinholeCamera(588.03, 587.07, 320.0, 240.0)


def make_hand(seed: int, **changes) -> hg.Hand:
    rng = np.random.default_rng(seed)
    joints = rng.normal(0, 60, (21, 3)) + np.array([20, -10, 700])
    values = {
        "side": "right",
        "score": 0.93126,
        "keypoints_px": CAMERA.uvd_from_xyz(joints)[:, :2],
        "box_px": np.array([200.5, 100.25, 180, 160]),
        "joints_mm": joints,
        "camera": CAMERA,
    }
    return hg.Hand(**values | changes)


@pytest.fixture
def predictions() -> Predictions:
    full = make_hand(
        1,
        side="left",
        vertices_mm=np.random.default_rng(2).normal(0, 50, (30, 3)),
        pose=np.linspace(-1, 1, 48),
        shape=np.linspace(-2, 2, 10),
        confidence=np.linspace(0, 1, 21),
    )
    flat = make_hand(3, joints_mm=None, camera=None, frame=RELATIVE_FRAME)
    return Predictions(
        "jgr_p2o",
        (
            ImageHands("none.png", error="none.png: all pixels are zero"),
            ImageHands("two.png", (full, make_hand(4)), size_px=(640, 480)),
            ImageHands("empty.png"),
            ImageHands("flat.jpg", (flat,)),
        ),
    )


FORMATS = {
    "json": (formats.write_json, formats.read_json),
    "coco": (formats.write_coco, formats.read_coco),
    "parquet": (formats.write_parquet, formats.read_parquet),
}
every_format = pytest.mark.parametrize("name", FORMATS)


@every_format
def test_round_trip_keeps_everything(name, predictions, tmp_path):
    write, read = FORMATS[name]
    write(tmp_path / "hands", predictions)
    back = read(tmp_path / "hands")
    assert formats.to_document(back) == formats.to_document(predictions)
    assert back.images[1].size_px == (640, 480)
    assert back.images[0].error == "none.png: all pixels are zero"
    assert back.images[1].hands[0].side == "left"


def test_parquet_keeps_every_bit(predictions, tmp_path):
    formats.write_parquet(tmp_path / "hands", predictions)
    before, after = (
        predictions.images[1].hands[0],
        formats.read_parquet(tmp_path / "hands").images[1].hands[0],
    )
    for name in ("keypoints_px", "joints_mm", "vertices_mm", "pose", "shape", "confidence", "box_px"):
        np.testing.assert_array_equal(getattr(after, name), getattr(before, name))
    assert after.score == before.score
    assert after.camera == CAMERA


@every_format
def test_nothing_found_round_trips(name, tmp_path):
    write, read = FORMATS[name]
    write(tmp_path / "hands", Predictions("m", ()))
    assert read(tmp_path / "hands") == Predictions("m", ())


@every_format
def test_file_states_its_meaning(name, predictions, tmp_path):
    FORMATS[name][0](tmp_path / "hands", replace(predictions, images=predictions.images[:3]))
    if name == "parquet":
        meta = pq.read_schema(tmp_path / "hands").metadata[b"handgraph"].decode()
        columns = json.dumps(pq.read_table(tmp_path / "hands").to_pylist()[0])
        for word in ("millimetres", "x right, y down, z forward", "wrist", "left", "588.03"):
            assert word in columns
    else:
        meta = (tmp_path / "hands").read_text()
    for word in ("millimetres", "pixel centres at integers", "x right, y down, z forward", ORDER, "left"):
        assert word in meta
    assert "588.03" in meta
    assert "wrist, joint 0" in meta


def test_parquet_metadata_names_the_one_camera_only_if_there_is_one(tmp_path):
    other = replace(make_hand(5), camera=hg.PinholeCamera(241.42, 241.42, 160.0, 120.0))
    for hands, expected in (
        ((make_hand(4),), {"fx": 588.03, "fy": 587.07, "cx": 320.0, "cy": 240.0}),
        ((make_hand(4), other), "in the columns fx, fy, cx, cy"),
    ):
        formats.write_parquet(tmp_path / "hands", Predictions("m", (ImageHands("a", hands),)))
        assert json.loads(pq.read_schema(tmp_path / "hands").metadata[b"handgraph"])["camera"] == expected


def test_document_has_the_keys_of_the_contract(predictions):
    document = formats.to_document(predictions)
    assert {"model", "images"} <= document.keys()
    assert {"file", "hands"} <= document["images"][1].keys()
    hand = document["images"][1]["hands"][0]
    expected = (
        "side score joint_names keypoints_px joints_mm vertices_mm pose shape box_px camera frame order"
    )
    assert set(expected.split()) <= hand.keys()
    assert set(hand["camera"]) == {"fx", "fy", "cx", "cy"}
    json.dumps(document, allow_nan=False)


def test_document_without_the_extra_keys_is_read(predictions):
    document = formats.to_document(predictions)
    bare = {"model": document["model"], "images": document["images"]}
    assert formats.to_document(formats.from_document(bare)) == document


def test_coco_file_is_coco(predictions, tmp_path):
    formats.write_coco(tmp_path / "hands.json", predictions)
    coco = json.loads((tmp_path / "hands.json").read_text())
    (category,) = coco["categories"]
    assert category["keypoints"] == list(JOINT_NAMES)
    # Bones count from 1: the wrist is 1, the thumb's first joint 2, the little finger's base 18.
    assert category["skeleton"][0] == [1, 2]
    assert [1, 18] in category["skeleton"]
    assert len(category["skeleton"]) == 20
    assert [image["id"] for image in coco["images"]] == [1, 2, 3, 4]
    annotation = coco["annotations"][0]
    assert annotation["image_id"] == 2
    assert annotation["category_id"] == category["id"]
    assert len(annotation["keypoints"]) == 63
    assert annotation["keypoints"][2::3] == [2] * 21
    np.testing.assert_allclose(
        annotation["keypoints"][3:5], predictions.images[1].hands[0].keypoints_px[1], atol=1e-3
    )
    assert annotation["area"] == 180 * 160
    assert annotation["iscrowd"] == 0


def test_coco_results_take_the_ids_of_the_truth_file(predictions, tmp_path):
    ids = {"none.png": 40, "two.png": 11, "empty.png": 12, "flat.jpg": 13}
    formats.write_coco_results(tmp_path / "results.json", predictions, ids)
    results = json.loads((tmp_path / "results.json").read_text())
    assert [result["image_id"] for result in results] == [11, 11, 13]
    assert results[0]["score"] == 0.9313
    del ids["flat.jpg"]
    with pytest.raises(hg.InputError, match=r"flat\.jpg has no image id"):
        formats.write_coco_results(tmp_path / "other.json", predictions, ids)
    assert not (tmp_path / "other.json").exists()


def test_coco_truth_without_score_counts_as_certain(predictions, tmp_path):
    path = tmp_path / "truth.json"
    edit_json("coco", path, predictions, lambda coco: coco["annotations"][0].pop("score"))
    assert formats.read_coco(path).images[1].hands[0].score == 1.0


def edit_json(name, path, predictions, edit):
    FORMATS[name][0](path, predictions)
    document = json.loads(path.read_text())
    edit(document)
    path.write_text(json.dumps(document))


def swap_names(names):
    names[1], names[4] = names[4], names[1]


def first_hand(document):
    return document["images"][1]["hands"][0]


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda d: d.pop("model"), "the key 'model' is missing"),
        (lambda d: d.update(images={}), "'images' is a dict, expected list"),
        (lambda d: d.update(version=2), "version 2 of the document, this handgraph reads 1"),
        (lambda d: d.update(order="tips first"), "'order' is 'tips first'"),
        (lambda d: d["units"].update(joints_mm="metres"), "'units' is .*metres"),
        (lambda d: d["images"].insert(0, 3), "image 0: expected an object with the key 'file', found int"),
        (lambda d: d["images"][1].update(size_px=[640]), r"image 1: 'size_px' is \[640\], expected"),
        (lambda d: d["images"][1].update(hands=[7]), "image 1: hand 0: hand: expected an object, found int"),
        (lambda d: first_hand(d).pop("side"), "image 1: hand 0: hand: the key 'side' is missing"),
        (lambda d: first_hand(d).pop("joint_names"), "the key 'joint_names' is missing"),
        (lambda d: first_hand(d).update(side="up"), "side is 'up', expected 'left' or 'right'"),
        (lambda d: first_hand(d).update(order="tips first"), "order is 'tips first', expected '21 joints"),
        (lambda d: swap_names(first_hand(d)["joint_names"]), "not the 21 canonical names in canonical order"),
        (lambda d: first_hand(d)["joints_mm"].pop(), r"joints_mm has shape \(20, 3\), expected \(21, 3\)"),
        (lambda d: first_hand(d)["joints_mm"][3].pop(), "joints_mm is not an array of numbers"),
        (lambda d: first_hand(d)["joints_mm"][3].insert(0, "x"), "joints_mm is not an array of numbers"),
        (
            lambda d: first_hand(d)["pose"].__setitem__(0, float("nan")),
            "pose holds a number that is not finite",
        ),
        (lambda d: first_hand(d)["pose"].__setitem__(0, 1e300), "pose holds a number that is not finite"),
        (lambda d: first_hand(d).update(score=10**400), "score is not a number"),
        (lambda d: first_hand(d).update(score=1.5), "score is 1.5, expected a number from 0 to 1"),
        (
            lambda d: first_hand(d).update(camera={"fx": 1}),
            "camera is .*, expected an object with the keys fx",
        ),
        (lambda d: first_hand(d)["camera"].update(fy="x"), "camera fy is not a number"),
        (lambda d: first_hand(d)["camera"].update(fy=-587.0), "turn data with y upwards over"),
    ],
)
def test_json_with_a_fault_is_refused(edit, message, predictions, tmp_path):
    path = tmp_path / "hands.json"
    edit_json("json", path, predictions, edit)
    with pytest.raises(hg.FormatError, match=message) as caught:
        formats.read_json(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda d: d.pop("categories"), "the key 'categories' is missing"),
        (lambda d: d.update(info=[]), "'info' is a list, expected dict"),
        (lambda d: d["info"]["units"].update(keypoints_px="cm"), "'units' is"),
        (
            lambda d: swap_names(d["categories"][0]["keypoints"]),
            "category 0: keypoint 1 is 'thumb_tip', expected 'thumb_cmc'",
        ),
        (lambda d: d["categories"][0]["keypoints"].pop(), "category 0: 20 keypoints are named, expected 21"),
        (lambda d: d["images"].append("x.png"), "image 4: expected an object with the key 'id', found str"),
        (lambda d: d["annotations"][1].update(image_id=9), "annotation 1: image_id 9 is none of the file's"),
        (lambda d: d["annotations"][1].update(category_id=9), "annotation 1: category_id 9 is none of the"),
        (lambda d: d["annotations"][0]["keypoints"].pop(), "annotation 0: 62 numbers in 'keypoints'"),
        (lambda d: d["annotations"][0]["keypoints"].__setitem__(5, 0), "thumb_cmc is not labelled"),
        (lambda d: d["annotations"][0].update(bbox=[1, 2]), r"box_px has shape \(2,\), expected \(4,\)"),
        (lambda d: d["annotations"][0].pop("side"), "annotation 0: hand: the key 'side' is missing"),
    ],
)
def test_coco_with_a_fault_is_refused(edit, message, predictions, tmp_path):
    path = tmp_path / "hands.json"
    edit_json("coco", path, predictions, edit)
    with pytest.raises(hg.FormatError, match=message) as caught:
        formats.read_coco(path)
    assert str(caught.value).startswith(f"{path}: ")


def with_meta(table, **changes):
    meta = json.loads(table.schema.metadata[b"handgraph"]) | changes
    return table.replace_schema_metadata({"handgraph": json.dumps(meta)})


def with_column(table, name, values):
    return table.set_column(table.column_names.index(name), name, pa.array(values))


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda t: t.replace_schema_metadata(None), "the schema's metadata lacks 'handgraph'"),
        (lambda t: t.replace_schema_metadata({"handgraph": "{"}), "the metadata 'handgraph' is not JSON"),
        (lambda t: with_meta(t, units="m"), "'units' is 'm', this handgraph reads"),
        (lambda t: with_meta(t, joint_names=list(JOINT_NAMES[::-1])), "'joint_names' is"),
        (lambda t: t.drop_columns(["joints_mm"]), "the column 'joints_mm' is missing"),
        (lambda t: t.slice(1), "4 images are announced|row 0"),
        (lambda t: t.slice(0, 2), "4 images are announced, 3 are there"),
        (lambda t: with_column(t, "side", ["left", "up", "left"]), "row 1: hand: side is 'up'"),
        (lambda t: with_column(t, "side", [1, 2, 3]), "row 0: 'side' is a int, expected str"),
        (lambda t: with_column(t, "order", ["x"] * 3), "row 0: hand: order is 'x'"),
        (lambda t: with_column(t, "joints_mm", [[1.0] * 62] * 3), "row 0: 'joints_mm' is not a flat list"),
        (
            lambda t: with_column(t, "joints_mm", [[1.0] * 60] * 3),
            r"row 0: hand: joints_mm has shape \(20, 3\)",
        ),
        (
            lambda t: with_column(t, "pose", [[float("nan")] * 48] * 3),
            "row 0: hand: pose holds a number that",
        ),
        (lambda t: with_column(t, "fx", [None] * 3), "row 0: hand: camera fx is not a number"),
    ],
)
def test_parquet_with_a_fault_is_refused(edit, message, predictions, tmp_path):
    path = tmp_path / "hands.parquet"
    formats.write_parquet(path, predictions)
    pq.write_table(edit(pq.read_table(path)), path)
    if "announced|" in message:  # losing one of an image's two hands cannot be seen, and is not an error
        assert len(formats.read_parquet(path).images[1].hands) == 1
        return
    with pytest.raises(hg.FormatError, match=message) as caught:
        formats.read_parquet(path)
    assert str(caught.value).startswith(f"{path}: ")


@every_format
@pytest.mark.parametrize("part", [0.0, 0.3, 0.97])
def test_truncated_file_is_refused(name, part, predictions, tmp_path):
    write, read = FORMATS[name]
    path = tmp_path / "hands"
    write(path, predictions)
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * part)])
    with pytest.raises(hg.FormatError, match=r"not a whole (JSON document|Parquet file)") as caught:
        read(path)
    assert "\n" not in str(caught.value)


@every_format
@pytest.mark.parametrize("content", [b"\xff\xfe\x00garbage", b"[" * 100_000, b"null", b"[]", b"3"])
def test_other_files_are_refused(name, content, tmp_path):
    path = tmp_path / "hands"
    path.write_bytes(content)
    with pytest.raises(hg.FormatError, match="hands: "):
        FORMATS[name][1](path)


@every_format
def test_missing_file_is_named(name, tmp_path):
    with pytest.raises(hg.InputError, match=r"nowhere: cannot be read \(No such file or directory\)"):
        FORMATS[name][1](tmp_path / "nowhere")


@every_format
def test_unwritable_place_is_named_and_nothing_is_left(name, predictions, tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(hg.InputError, match=r"hands: cannot be written \(Not a directory|File exists"):
        FORMATS[name][0](tmp_path / "file" / "hands", predictions)
    assert os.listdir(tmp_path) == ["file"]


def test_parquet_without_pyarrow_names_the_extra(predictions, tmp_path, monkeypatch):
    real_import = builtins.__import__

    def no_pyarrow(name, *args, **kwargs):
        if name.startswith("pyarrow"):
            raise ImportError(name)
        return real_import(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", no_pyarrow)
    with pytest.raises(hg.MissingExtraError, match=r"pip install handgraph\[tables\]"):
        formats.write_parquet(tmp_path / "hands", predictions)
    with pytest.raises(hg.MissingExtraError, match=r"pip install handgraph\[tables\]"):
        formats.read_parquet(tmp_path / "hands")


def test_atomic_write_replaces_only_when_done(tmp_path):
    path = tmp_path / "new" / "mesh.glb"
    with atomic_write(path) as part:
        assert part.suffix == ".glb"
        assert part.parent == path.parent
        part.write_text("first")
        assert not path.exists()
    assert path.read_text() == "first"

    def fail_half_way():
        with atomic_write(path) as part:
            part.write_text("half of the sec")
            raise ValueError("stop")

    with pytest.raises(ValueError, match="stop"):
        fail_half_way()
    assert path.read_text() == "first"
    assert os.listdir(path.parent) == ["mesh.glb"]


def test_atomic_write_leaves_the_permissions_to_the_user(tmp_path):
    (tmp_path / "plain").write_text("")
    with atomic_write(tmp_path / "whole") as part:
        part.write_text("")
    assert (tmp_path / "whole").stat().st_mode == (tmp_path / "plain").stat().st_mode


HEADER = formats.ClipHeader(
    "siapose", camera=CAMERA, source="clip.mp4", size_px=(640, 480), fps=29.97,
    smoothing={"name": "one_euro", "beta": 0.3}, extra={"command": "predict"},
)  # fmt: skip


def clip_frames() -> list[formats.FrameHands]:
    other = make_hand(7, camera=None, joints_mm=None, frame=RELATIVE_FRAME, side="left")
    return [
        formats.FrameHands(0, 0.0, (make_hand(5), other), (1, None)),
        formats.FrameHands(1, 1 / 30),
        formats.FrameHands(4, 4 / 30, error="frame 4: cut short", file="4.png"),
        formats.FrameHands(5, 5 / 30, (make_hand(6),), (1,)),
    ]


def write_clip(path, frames, **options):
    with formats.LinesWriter(path, HEADER, **options) as clip:
        for frame in frames:
            clip.write(frame)


def same_frames(found, expected):
    assert [(f.index, f.tracks, f.error, f.file) for f in found] == [
        (f.index, f.tracks, f.error, f.file) for f in expected
    ]
    for one, other in zip(found, expected, strict=True):
        assert one.time_s == pytest.approx(other.time_s, abs=1e-6)
        assert [hand.to_dict() for hand in one.hands] == [hand.to_dict() for hand in other.hands]


def test_a_clip_round_trips_line_by_line(tmp_path):
    path = tmp_path / "predictions.jsonl"
    write_clip(path, clip_frames())
    assert os.listdir(tmp_path) == ["predictions.jsonl"]
    header, frames = formats.read_lines(path)
    assert header == HEADER
    same_frames(list(frames), clip_frames())
    lines = path.read_text().splitlines()
    assert len(lines) == 5
    first = json.loads(lines[0])
    assert first["order"] == ORDER
    assert first["joint_names"] == list(JOINT_NAMES)
    assert first["smoothing"]["name"] == "one_euro"
    # What the header says stands nowhere else, what differs from it does.
    hand, other = json.loads(lines[1])["hands"]
    assert not {"camera", "order", "frame", "joint_names", "vertices_mm"} & hand.keys()
    assert other["frame"] == RELATIVE_FRAME
    assert other["camera"] is None


def test_an_interrupted_clip_goes_on(tmp_path):
    path, frames = tmp_path / "predictions.jsonl", clip_frames()

    def write_and_stop():
        with formats.LinesWriter(path, HEADER, resume=True) as clip:
            for frame in frames[:3]:
                clip.write(frame)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_and_stop()
    assert not path.exists()
    with (tmp_path / ".predictions.jsonl.part").open(
        "ab"
    ) as part:  # the machine died in the middle of a line
        part.write(b'{"index": 5, "time_s"')
    with (
        pytest.raises(hg.ConfigError, match="was begun with other settings"),
        formats.LinesWriter(path, replace(HEADER, model="other"), resume=True),
    ):
        pass
    with formats.LinesWriter(path, HEADER, resume=True) as clip:
        assert clip.last_index == 4
        with pytest.raises(hg.FormatError, match="frame 4 comes after frame 4"):
            clip.write(frames[2])
        clip.write(frames[3])
    same_frames(list(formats.read_lines(path)[1]), frames)
    assert os.listdir(tmp_path) == ["predictions.jsonl"]


def test_a_clip_that_failed_leaves_nothing(tmp_path):
    def write_and_fail():
        with formats.LinesWriter(tmp_path / "c.jsonl", HEADER) as clip:
            clip.write(formats.FrameHands(0, 0.0))
            raise ValueError("stop")

    with pytest.raises(ValueError, match="stop"):
        write_and_fail()
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda lines: [], "the file is empty"),
        (lambda lines: lines[1:], "line 1: the key 'format' is missing"),
        (lambda lines: [lines[0].replace("millimetres", "metres"), *lines[1:]], "line 1: 'units' is"),
        (lambda lines: [lines[0].replace("thumb_ip", "thumb"), *lines[1:]], "line 1: '(order|joint_names)"),
        (lambda lines: [lines[0].replace("29.97", "NaN"), *lines[1:]], "line 1: 'fps' is nan"),
        (lambda lines: [lines[0], lines[2], lines[1]], "line 3: frame 0 comes after frame 1"),
        (lambda lines: [lines[0], lines[1][:50]], "line 2 is not JSON"),
        (lambda lines: [lines[0], lines[1].replace('"time_s":0.0', '"time_s":NaN')], "'time_s' is nan, exp"),
        (lambda lines: [lines[0], lines[1].replace('"right"', '"up"')], "line 2: hand 0: hand: side is 'up'"),
        (lambda lines: [lines[0], "3"], "line 2: expected an object with the key 'index', found int"),
    ],
)  # fmt: skip
def test_a_clip_with_a_fault_is_refused(edit, message, tmp_path):
    path = tmp_path / "predictions.jsonl"
    write_clip(path, clip_frames())
    path.write_text("".join(line + "\n" for line in edit(path.read_text().splitlines())))
    with pytest.raises(hg.FormatError, match=message) as caught:
        list(formats.read_lines(path)[1])
    assert str(caught.value).startswith(f"{path}: ")
    assert "\n" not in str(caught.value)


def test_a_clip_cut_short_is_refused(tmp_path):
    path = tmp_path / "predictions.jsonl"
    write_clip(path, clip_frames())
    path.write_bytes(path.read_bytes()[:-3])
    with pytest.raises(hg.FormatError, match="line 5 is cut short"):
        list(formats.read_lines(path)[1])
