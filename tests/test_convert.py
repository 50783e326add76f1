"""Conversions come back as they went, say what they lack, and refuse what is not stated."""

import json
import math
import random
import struct
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import trimesh

import handgraph as hg
from handgraph import conventions as to
from handgraph import formats
from handgraph.cli import main
from handgraph.convert import READERS, SUFFIXES, Stated, Wanted, convert, convert_clip, read_clip
from handgraph.formats.bvh import about_axis, euler_degrees
from handgraph.formats.clip import ORDERS, ROTATIONS, Clip, ClipFrame, ClipHand, Conventions
from handgraph.formats.converted import write_clip_json
from handgraph.formats.csv_table import write_csv
from handgraph.formats.joint_names import order_of
from handgraph.hand_model import HandLayer, load_open_hand
from handgraph.hand_model.fitting import rotations_of
from handgraph.rotations import axis_angles, from_axis_angles, to_matrices
from handgraph.skeleton import JOINT_NAMES, PARENTS

NEAR = 1e-5  # mm and px
CAMERA = hg.PinholeCamera(588.03, 587.07, 320.0, 240.0)
OWN = Conventions("openpose", "mm", "opencv", "camera", "axis_angle", "flat", None, "open_hand")
FULL_ORDERS = [name for name, order in ORDERS.items() if order.complete]


def model_hand(seed: int, side: str = "right", *, mesh: bool = False) -> ClipHand:
    """A hand of the open hand model before the camera."""
    layer = HandLayer(side=side, dtype=torch.float64)
    generator = torch.Generator().manual_seed(seed)
    pose = 0.25 * torch.randn(48, generator=generator, dtype=torch.float64)
    shape = torch.full((10,), 0.4, dtype=torch.float64)
    place = torch.tensor([20.0, -30.0, 650.0 + seed], dtype=torch.float64)
    made = layer(shape, pose, place)
    points = made.joints_mm.numpy()
    return ClipHand(
        side=side,
        score=0.875,
        track=1,
        points_px=CAMERA.uvd_from_xyz(points)[:, :2],
        points=points,
        vertices=made.vertices_mm.numpy() if mesh else None,
        rotations=pose.reshape(16, 3).numpy(),
        shape=shape.numpy(),
        confidence=np.linspace(0.1, 1, 21),
        box_px=np.array([200.5, 100.25, 180.0, 160.0]),
        camera=CAMERA,
    )


def clip_of(*hands: ClipHand, says: Conventions = OWN) -> Clip:
    frames = tuple(ClipFrame(t, (hand,), f"{t}.png", t / 25, (640, 480)) for t, hand in enumerate(hands))
    return Clip(says, frames, "jgr_p2o", 25.0)


def random_clip(order: str = "openpose", **changes) -> Clip:
    """One hand of random numbers in any order, 3D alone."""
    rng = np.random.default_rng(len(order))
    points = rng.normal(0, 60, (len(ORDERS[order].names), 3))
    points = points + np.array([20, -10, 700])
    hand = ClipHand(side="right", points=points, camera=CAMERA)
    return Clip(replace(OWN, order=order, rotation=None, zero=None, **changes), (ClipFrame(0, (hand,)),))


# Joint orders -----------------------------------------------------------------------------------------------

# Which of its joints stands in each canonical place, from each data set's documentation.
PUBLISHED = {
    "rhd": [0, 4, 3, 2, 1, 8, 7, 6, 5, 12, 11, 10, 9, 16, 15, 14, 13, 20, 19, 18, 17],
    "stb_wrist": [0, 17, 18, 19, 20, 13, 14, 15, 16, 9, 10, 11, 12, 5, 6, 7, 8, 1, 2, 3, 4],
    "msra": [0, 17, 18, 19, 20, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16],
    "mano": [0, 13, 14, 15, 16, 1, 2, 3, 17, 4, 5, 6, 18, 10, 11, 12, 19, 7, 8, 9, 20],
    "interhand": [20, 3, 2, 1, 0, 7, 6, 5, 4, 11, 10, 9, 8, 15, 14, 13, 12, 19, 18, 17, 16],
    "mediapipe": list(range(21)),
    "freihand": list(range(21)),
    "dexycb": list(range(21)),
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_an_order_is_the_published_one(name):
    theirs = random_clip(name)
    ours = to.to_order(theirs, "openpose")
    np.testing.assert_array_equal(ours.hands[0].points, theirs.hands[0].points[PUBLISHED[name]])


def test_orders_with_fewer_joints_map_what_they_share():
    points = random_clip().hands[0].points
    nyu = to.to_order(random_clip(), "nyu14").hands[0].points
    # Little finger's tip first, thumb last: tip, middle joint of each finger; then three of the palm.
    np.testing.assert_array_equal(nyu[[0, 1, 6, 7]], points[[20, 18, 8, 6]])
    assert np.isnan(nyu[11:]).all()
    icvl = to.to_order(random_clip(), "icvl16").hands[0].points
    assert np.isnan(icvl[0]).all()  # the palm is not the wrist
    np.testing.assert_array_equal(icvl[[1, 2, 3, 4, 5, 6]], points[[2, 3, 4, 5, 6, 8]])
    # 36 points to the 14 of them that are measured: exact, with the palm's.
    many = random_clip("nyu36")
    few = to.to_order(many, "nyu14").hands[0].points
    chosen = [0, 3, 6, 9, 12, 15, 18, 21, 24, 25, 27, 30, 31, 32]
    np.testing.assert_array_equal(few, many.hands[0].points[chosen])


@pytest.mark.parametrize("first", ORDERS)
def test_every_pair_of_orders_keeps_what_both_have(first):
    start = random_clip(first)
    names = to.meanings(ORDERS[first])
    for second, order in ORDERS.items():
        there = to.to_order(start, second)
        back = to.to_order(there, first).hands[0].points
        shared = [joint in to.meanings(order) for joint in names]
        np.testing.assert_array_equal(back[shared], start.hands[0].points[shared])
        assert np.isnan(back[~np.array(shared)]).all()
        lacking = to.missing(ORDERS[first], order)
        gone = np.isnan(there.hands[0].points).all(axis=1)
        assert [name for name, missing in zip(order.names, gone, strict=True) if missing] == list(lacking)
        assert all(first in reason for reason in lacking.values())
        if first in FULL_ORDERS and second in FULL_ORDERS:
            assert not lacking
            assert all(shared)


def test_other_names_of_joints_are_known():
    media_pipe = ["WRIST", "THUMB_CMC", "THUMB_MCP", "THUMB_IP", "THUMB_TIP"] + [
        f"{finger}_{part}"
        for finger in ("INDEX_FINGER", "MIDDLE_FINGER", "RING_FINGER", "PINKY")
        for part in ("MCP", "PIP", "DIP", "TIP")
    ]
    assert order_of(media_pipe) == "openpose"
    whole_body = ["left_hand_root"] + [
        f"left_{finger}{n}"
        for finger in ("thumb", "forefinger", "middle_finger", "ring_finger", "pinky_finger")
        for n in (1, 2, 3, 4)
    ]
    assert order_of(whole_body) == "openpose"
    assert order_of(ORDERS["rhd"].names) == "rhd"
    assert order_of(ORDERS["nyu14"].names) == "nyu14"
    assert order_of([*media_pipe[:-1], "NOSE"]) is None


# Units, axes, roots, sides ----------------------------------------------------------------------------------


@pytest.mark.parametrize("first", ["mm", "cm", "m", "px"])
def test_every_pair_of_units(first):
    start = to.to_unit(random_clip(), first)
    for second in ("mm", "cm", "m", "px"):
        back = to.to_unit(to.to_unit(start, second), first)
        in_mm = [to.to_unit(clip, "mm").hands[0].points for clip in (start, back)]
        assert np.abs(in_mm[0] - in_mm[1]).max() <= NEAR


def test_units_mean_what_they_say():
    mm = random_clip().hands[0].points
    np.testing.assert_allclose(to.to_unit(random_clip(), "m").hands[0].points * 1000, mm, rtol=1e-14)
    x, y, z = mm[5]
    pixels = [588.03 * x / z + 320, 587.07 * y / z + 240, z]
    np.testing.assert_allclose(to.to_unit(random_clip(), "px").hands[0].points[5], pixels)
    with pytest.raises(hg.FormatError, match="camera is missing: give the camera with --camera"):
        to.to_unit(random_clip().map(lambda hand, _: replace(hand, camera=None)), "px")
    with pytest.raises(hg.FormatError, match="root is wrist: pixels and millimetres need camera"):
        to.to_unit(to.to_root(random_clip(), "wrist"), "px")
    lengths = random_clip(unit="hand")
    with pytest.raises(hg.FormatError, match=r"unit is hand lengths.* give --hand-length"):
        to.to_unit(lengths, "mm")
    np.testing.assert_allclose(to.to_unit(lengths, "cm", 180.0).hands[0].points, mm * 18)


def test_axes_turn_points_and_pose_alike():
    start = clip_of(model_hand(1))
    turned = to.to_axes(start, "opengl")
    hand, before = turned.hands[0], start.hands[0]
    np.testing.assert_array_equal(hand.points, before.points * [1, -1, -1])
    # The turned pose puts the turned joints there: forward kinematics in the new axes.
    layer = HandLayer(dtype=torch.float64)
    shape = torch.from_numpy(hand.shape)
    joints = layer.joints(shape, torch.from_numpy(hand.rotations.reshape(48))).numpy()
    np.testing.assert_allclose(joints - joints[0], hand.points - hand.points[0], atol=NEAR)
    assert np.abs(before.rotations[0] - hand.rotations[0]).max() > 0.1
    back = to.to_axes(turned, "opencv").hands[0]
    np.testing.assert_allclose(back.points, before.points, atol=NEAR)
    np.testing.assert_allclose(back.rotations, before.rotations, atol=1e-9)


def test_roots_come_back_where_they_were():
    start = random_clip()
    points = start.hands[0].points
    relative = to.to_root(start, "wrist")
    np.testing.assert_array_equal(relative.hands[0].points, points - points[0])
    np.testing.assert_array_equal(relative.hands[0].root_at, points[0])
    other = to.to_root(relative, "middle_mcp")
    np.testing.assert_allclose(other.hands[0].points, points - points[9], atol=NEAR)
    np.testing.assert_allclose(to.to_root(other, "camera").hands[0].points, points, atol=NEAR)
    unknown = relative.map(lambda hand, _: replace(hand, root_at=None))
    with pytest.raises(hg.FormatError, match="root is wrist, and where it is before the camera is not known"):
        to.to_root(unknown, "camera")
    with pytest.raises(hg.FormatError, match="the order stb has no joint 'wrist'"):
        to.to_root(random_clip("stb"), "wrist")


def test_mirroring_is_the_mirrored_picture():
    start = clip_of(model_hand(2, mesh=True))
    left = to.mirrored(start)
    hand, before = left.hands[0], start.hands[0]
    assert hand.side == "left"
    # What the mirrored camera sees of the mirrored joints is the mirrored picture.
    seen = hand.camera.uvd_from_xyz(hand.points)[:, :2]
    np.testing.assert_allclose(seen, [[639 - u, v] for u, v in before.points_px], atol=1e-9)
    np.testing.assert_allclose(hand.points_px, seen, atol=1e-9)
    # The left model in the mirrored pose is that hand.
    layer = HandLayer(side="left", dtype=torch.float64)
    mesh = layer(torch.from_numpy(hand.shape), torch.from_numpy(hand.rotations.reshape(48)))
    shift = hand.points[0] - mesh.joints_mm[0].numpy()
    np.testing.assert_allclose(mesh.vertices_mm.numpy() + shift, hand.vertices, atol=NEAR)
    back = to.mirrored(left).hands[0]
    for name in ("points_px", "points", "vertices", "box_px", "rotations"):
        np.testing.assert_allclose(getattr(back, name), getattr(before, name), atol=NEAR)
    with pytest.raises(hg.FormatError, match="size is missing: mirroring pixels needs the image's width"):
        to.mirrored(Clip(OWN, (ClipFrame(0, (before,)),)))


# Pose representations ---------------------------------------------------------------------------------------

KINDS = [(kind, "flat") for kind in ROTATIONS] + [("axis_angle", "mean"), ("pca", "mean")]


@pytest.mark.parametrize("first", KINDS)
def test_every_pair_of_representations(first):
    start, _ = to.to_rotation(clip_of(model_hand(3), model_hand(4)), *first)
    for second in KINDS:
        there, lost = to.to_rotation(start, *second)
        assert lost is None
        back, _ = to.to_rotation(there, *first)
        for one, other in zip(back.hands, start.hands, strict=True):
            np.testing.assert_allclose(one.rotations, other.rotations, atol=1e-9)


def test_representations_are_what_they_are_called():
    vectors = np.zeros((16, 3))
    vectors[0] = [0, 0, math.pi / 2]  # a quarter turn takes x to y
    half = math.sqrt(0.5)
    expected = {
        "matrix": [0, -1, 0, 1, 0, 0, 0, 0, 1],  # row after row
        "quaternion_wxyz": [half, 0, 0, half],
        "quaternion_xyzw": [0, 0, half, half],
        "6d": [0, 1, 0, -1, 0, 0],  # first column, second column
    }
    for kind, numbers in expected.items():
        np.testing.assert_allclose(from_axis_angles(kind, vectors)[0][0], numbers, atol=1e-15)
    # Wrong reading: the other order of quaternions is a rotation too, half a turn about another axis.
    wrong = to_matrices("quaternion_wxyz", from_axis_angles("quaternion_xyzw", vectors)[0])
    assert np.abs(wrong[0] - to_matrices("axis_angle", vectors)[0]).max() > 0.9
    model = load_open_hand()
    mean, _ = from_axis_angles("axis_angle", vectors, "mean", model)
    np.testing.assert_allclose(mean[1:].ravel(), -model.hands_mean)
    coefficients = np.array([0.0, 0, 0, 2.0, -1.0])
    found = axis_angles("pca", coefficients, "mean", model)[1:].ravel()
    by_hand = model.hands_mean + 2 * model.hands_components[0] - model.hands_components[1]
    np.testing.assert_allclose(found, by_hand)


def test_turns_near_half_a_turn_come_back():
    for angle in (math.pi - 1e-9, math.pi, 1e-9, 0.0):
        vectors = np.zeros((16, 3))
        vectors[:] = np.array([2.0, -1.0, 2.0]) / 3 * angle
        for kind in ("matrix", "quaternion_wxyz", "6d"):
            back = to_matrices(kind, from_axis_angles(kind, vectors)[0])
            np.testing.assert_allclose(back, rotations_of(vectors), atol=1e-12)


def test_few_principal_poses_say_what_they_lose(tmp_path):
    start = clip_of(model_hand(5))
    _, lost = to.to_rotation(start, "pca", "mean", 10)
    assert lost is not None
    assert lost.radians > 0.05
    # The loss in mm by forward kinematics of both poses.
    short, _ = to.to_rotation(start, "pca", "mean", 10)
    back, _ = to.to_rotation(short, "axis_angle", "flat")
    layer = HandLayer(dtype=torch.float64)
    joints = [
        layer.joints(torch.from_numpy(hand.shape), torch.from_numpy(hand.rotations.reshape(48))).numpy()
        for hand in (start.hands[0], back.hands[0])
    ]
    assert lost.mm == pytest.approx(np.linalg.norm(joints[0] - joints[1], axis=1).max(), abs=1e-6)
    wanted = Wanted(Conventions(rotation="pca", zero="mean", components=10))
    with pytest.raises(hg.ConfigError, match=r"pca=10 loses up to .* mm .*--lossy"):
        convert_clip(start, wanted, "json")
    _, residual, *_ = convert_clip(start, replace(wanted, lossy=True), "json")
    assert residual["pca"]["max_mm"] == lost.mm


@pytest.mark.parametrize(
    ("kind", "edit", "message"),
    [
        ("matrix", lambda a: a * 1.01, r"rotation \d+ is no matrix of a rotation: off by 0\.03"),
        ("matrix", lambda a: a * ([-1] * 3 + [1] * 6), "is no matrix of a rotation"),  # a mirror image
        ("quaternion_wxyz", lambda a: a * 0.9, "is no quaternion_wxyz of a rotation: off by 0.1"),
        ("6d", lambda a: a[:, [0, 1, 2, 0, 1, 2]], "is no 6d of a rotation: off by 1"),
        ("quaternion_wxyz", lambda a: a[:, :3], "rotations has 48 numbers, quaternion_wxyz has 16 x 4"),
    ],
)
def test_what_is_no_rotation_is_refused(kind, edit, message):
    values, _ = from_axis_angles(kind, model_hand(1).rotations)
    with pytest.raises(hg.FormatError, match=message):
        to_matrices(kind, edit(values))


# Files ------------------------------------------------------------------------------------------------------

TABLES = {
    "json": ".json",
    "jsonl": ".jsonl",
    "csv": ".csv",
    "parquet": ".parquet",
    "coco": ".json",
    "openpose": ".json",
}
SAID = Stated(Conventions(unit="mm", axes="opencv", root="camera"))  # what OpenPose's files do not state


def written(clip: Clip, path: Path) -> Path:
    write_clip_json(path, clip)
    return path


@pytest.mark.parametrize("second", TABLES)
@pytest.mark.parametrize("first", TABLES)
def test_every_pair_of_files(first, second, tmp_path):
    start = clip_of(model_hand(6))
    source = written(start, tmp_path / "start.json")
    a, b, end = tmp_path / f"a{TABLES[first]}", tmp_path / f"b{TABLES[second]}", tmp_path / "end.json"
    convert(source, a, None, Wanted(format=first))
    # OpenPose's own files state nothing of the third dimension; from there it must be said.
    convert(a, b, SAID if first == "openpose" else None, Wanted(format=second))
    convert(b, end, SAID if second == "openpose" else None)
    (found,), (expected,) = read_clip(end, Stated(), "json").hands, start.hands
    for name in ("points_px", "points", "confidence"):
        assert np.abs(getattr(found, name) - getattr(expected, name)).max() <= NEAR
    if "openpose" not in (first, second):
        for name in ("rotations", "shape", "box_px"):
            assert np.abs(getattr(found, name) - getattr(expected, name)).max() <= 1e-9
        assert (found.score, found.camera) == (expected.score, CAMERA)
    assert (found.side, found.track) == ("right", 1)


@pytest.mark.parametrize("name", ["json", "jsonl", "csv", "parquet", "coco"])
def test_files_carry_other_conventions(name, tmp_path):
    """Everything at once, there and back: NYU's points, metres, y up, about a joint, quaternions."""
    start = clip_of(model_hand(7), model_hand(8, "left"))
    source = written(start, tmp_path / "start.json")
    other = Conventions("nyu36", "m", "opengl", "middle_mcp", "quaternion_xyzw", "flat")
    result = convert(source, tmp_path / f"a{TABLES[name]}", None, Wanted(other, name))
    assert set(result["missing"]) == {
        *(f"palm_{n}" for n in range(1, 7)),
        *(f"{finger}_{point}" for finger in ("thumb", "index", "middle", "ring", "little")
          for point in ("knu2_a", "knu1_b")),
    }  # fmt: skip
    assert result["dropped"] == ["wrist"]
    assert result["to"]["root"] == "middle_mcp"
    convert(tmp_path / f"a{TABLES[name]}", tmp_path / "b.json", None, Wanted(OWN))
    for found, expected in zip(
        read_clip(tmp_path / "b.json", Stated(), "json").hands, start.hands, strict=True
    ):
        assert found.side == expected.side
        assert np.isnan(
            found.points[0]
        ).all()  # the wrist has no place among NYU's points, and is not invented
        assert np.abs(found.points[1:] - expected.points[1:]).max() <= NEAR
        assert np.abs(found.rotations - expected.rotations).max() <= 1e-9


def test_own_conventions_are_read_by_the_package(tmp_path):
    """What the converter writes of handgraph's own hands, `handgraph.formats` reads as `Hand`s."""
    source = written(clip_of(model_hand(6, mesh=True)), tmp_path / "start.json")
    expected = formats.read_json(source)
    for name, read in (("coco", formats.read_coco), ("parquet", formats.read_parquet)):
        convert(source, tmp_path / f"x{TABLES[name]}", None, Wanted(format=name))
        found = read(tmp_path / f"x{TABLES[name]}")
        assert found.images[0].hands[0].to_dict() == expected.images[0].hands[0].to_dict()
    convert(source, tmp_path / "x.jsonl", Stated(fps=25.0))
    header, frames = formats.read_lines(tmp_path / "x.jsonl")
    assert header.fps == 25
    assert next(frames).hands[0].to_dict() == expected.images[0].hands[0].to_dict()


def test_a_hand_made_openpose_file(tmp_path):
    flat = [number for joint in range(21) for number in (100 + joint, 200 + 2 * joint, 0.5)]
    flat[3 * 7 : 3 * 7 + 3] = [0, 0, 0]
    person = {"person_id": [-1], "hand_left_keypoints_2d": flat, "hand_right_keypoints_2d": [0] * 63}
    path = tmp_path / "frame_000000000012_keypoints.json"
    path.write_text(json.dumps({"version": 1.3, "people": [person]}))
    result = convert(path, tmp_path / "out.csv", None, Wanted(Conventions(order="rhd")))
    assert result["from"]["format"] == "openpose"
    assert (result["hands"], result["sides"]) == (1, ["left"])
    rows = (tmp_path / "out.csv").read_text().splitlines()
    cells = dict(zip(rows[0].split(","), rows[1].split(","), strict=True))
    assert float(cells["thumb_tip_u_px"]) == 104
    assert float(cells["little_tip_v_px"]) == 240
    assert cells["index_dip_u_px"] == ""  # joint 7, which OpenPose did not find
    assert cells["order"] == "rhd"
    assert cells["side"] == "left"


def test_a_hand_made_table_must_be_explained(tmp_path):
    """STB's joints as numbers: nothing is stated, so everything is asked for, one thing at a time."""
    path = tmp_path / "stb.csv"
    header = [f"{axis}{joint}" for joint in range(21) for axis in "xyz"]
    path.write_text(",".join(header) + "\n" + ",".join(str(k) for k in range(63)) + "\n")
    said = Conventions()
    for name, value in (("order", "stb"), ("unit", "cm"), ("axes", "opencv"), ("root", "palm")):
        with pytest.raises(hg.FormatError, match=rf"stb\.csv: {name} is missing: .*--{name}"):
            convert(path, tmp_path / "out.json", Stated(said))
        said = replace(said, **{name: value})
    with pytest.raises(hg.FormatError, match=r"side is missing: say with --side"):
        convert(path, tmp_path / "out.json", Stated(said))
    assert not (tmp_path / "out.json").exists()
    result = convert(
        path, tmp_path / "out.json", Stated(said, side="left"), Wanted(Conventions("openpose", "mm"))
    )
    (hand,) = read_clip(tmp_path / "out.json", Stated(), "json").hands
    np.testing.assert_allclose(hand.points[1], [510, 520, 530])  # thumb_cmc is STB's joint 17
    assert np.isnan(hand.points[0]).all()
    assert result["missing"] == {"wrist": "stb has no wrist (the root is the palm centre, not the wrist)"}
    assert result["dropped"] == ["palm"]


def test_a_foreign_coco_file(tmp_path):
    fingers = ("thumb", "forefinger", "middle_finger", "ring_finger", "pinky_finger")
    names = ["wrist", *(f"{finger}{n}" for finger in fingers for n in range(1, 5))]
    keypoints = [number for joint in range(21) for number in (joint, 10, 2 if joint != 4 else 0)]
    hand = {"id": 1, "image_id": 5, "category_id": 3, "keypoints": keypoints, "bbox": [1, 2, 3, 4]}
    document = {
        "images": [{"id": 5, "file_name": "a.jpg", "width": 64, "height": 48}],
        "annotations": [hand],
        "categories": [{"id": 3, "name": "hand", "keypoints": names}, {"id": 4, "name": "dog"}],
    }
    path = tmp_path / "coco.json"
    path.write_text(json.dumps(document))
    with pytest.raises(hg.FormatError, match="side is missing"):
        convert(path, tmp_path / "out.csv")
    convert(path, tmp_path / "out.json", Stated(side="right"), Wanted(side="left"))
    clip = read_clip(tmp_path / "out.json", Stated(), "json")
    assert clip.frames[0].file == "a.jpg"
    assert clip.hands[0].side == "left"
    assert clip.hands[0].points_px[20].tolist() == [43, 10]  # 64 - 1 - 20
    assert np.isnan(clip.hands[0].points_px[4]).all()
    np.testing.assert_array_equal(clip.hands[0].box_px, [63 - 1 - 3, 2, 3, 4])
    document["categories"][0]["keypoints"] = [f"point {n}" for n in range(21)]
    path.write_text(json.dumps(document))
    with pytest.raises(hg.FormatError, match=r"order is missing: 21 keypoints .* name it with --order"):
        convert(path, tmp_path / "out2.csv", Stated(side="right"))


# Bones ------------------------------------------------------------------------------------------------------


def naive_chain(offsets, rotations, root):
    """Forward kinematics, joint by joint."""
    place, turn = [root], [rotations[0]]
    for joint in range(1, 21):
        parent = PARENTS[joint]
        place.append(place[parent] + turn[parent] @ offsets[joint])
        turn.append(turn[parent] @ rotations[joint])
    return np.array(place)


@pytest.mark.parametrize(
    ("unit", "axes", "size"), [("mm", "opengl", 1), ("cm", "opencv", 10), ("m", "opengl", 1000)]
)
@pytest.mark.parametrize("side", ["right", "left"])
def test_a_bvh_file_puts_the_joints_where_they_were(side, unit, axes, size, tmp_path):
    start = clip_of(*(model_hand(seed, side) for seed in range(4)))
    source = written(start, tmp_path / "start.json")
    result = convert(source, tmp_path / "x.bvh", Stated(fps=25.0), Wanted(Conventions(unit=unit, axes=axes)))
    assert result["frame_s"] == 0.04
    assert result["bones_off_mm"] < NEAR  # the open hand's fingertips are rigid on their bones
    said = Conventions(unit=unit, axes=axes, hand_model="open_hand")
    back = read_clip(tmp_path / "x.bvh", Stated(said), "bvh")
    same = to.to_axes(to.to_unit(back, "mm"), "opencv")
    same, _ = to.to_rotation(same, "axis_angle")
    for found, expected in zip(same.hands, start.hands, strict=True):
        assert found.side == side
        assert np.abs(found.points - expected.points).max() <= NEAR
        np.testing.assert_allclose(found.rotations, expected.rotations, atol=1e-9)
    # The file itself, read naively: first frame, first finger.
    text = (tmp_path / "x.bvh").read_text()
    assert text.startswith(f"HIERARCHY\nROOT {side}_wrist\n")
    assert text.count("JOINT") == 15
    assert text.count("End Site") == 5
    first = [float(word) for word in text.splitlines()[-4].split()]
    assert len(first) == 6 + 15 * 3
    flip = np.array([1, -1, -1]) if axes == "opengl" else np.ones(3)
    np.testing.assert_allclose(np.array(first[:3]) * size * flip, start.hands[0].points[0], atol=NEAR)
    # z, x, y: the matrix is the product in that order.
    z, x, y = np.radians(first[3:6])
    rx = np.array([[1, 0, 0], [0, math.cos(x), -math.sin(x)], [0, math.sin(x), math.cos(x)]])
    ry = np.array([[math.cos(y), 0, math.sin(y)], [0, 1, 0], [-math.sin(y), 0, math.cos(y)]])
    rz = np.array([[math.cos(z), -math.sin(z), 0], [math.sin(z), math.cos(z), 0], [0, 0, 1]])
    expected = np.diag(flip) @ rotations_of(start.hands[0].rotations)[0]
    np.testing.assert_allclose(rz @ rx @ ry, expected, atol=1e-9)


def test_the_chain_is_forward_kinematics():
    (motion,) = to.motions(clip_of(model_hand(3)))
    offsets = np.array([motion.rest[j] - motion.rest[max(PARENTS[j], 0)] for j in range(21)])
    naive = naive_chain(offsets, motion.rotations[0], motion.wrist[0])
    np.testing.assert_allclose(motion.joints[0], naive, atol=1e-10)
    np.testing.assert_allclose(naive, model_hand(3).points, atol=NEAR)


def test_angles_come_back_in_every_position():
    rng = np.random.default_rng(0)
    angles = rng.uniform(-np.pi, np.pi, (200, 3))
    angles[:50, 1] = rng.choice([-np.pi / 2, np.pi / 2, np.pi / 2 - 1e-7, -np.pi / 2 + 1e-9], 50)

    def product(zxy):
        z, x, y = zxy.T
        return about_axis("Z", z) @ about_axis("X", x) @ about_axis("Y", y)

    matrices = product(np.degrees(angles))
    np.testing.assert_allclose(product(euler_degrees(matrices)), matrices, atol=3e-8)
    free = np.abs(np.abs(angles[:, 1]) - np.pi / 2) > 1e-3
    np.testing.assert_allclose(product(euler_degrees(matrices[free])), matrices[free], atol=1e-12)


def test_bones_of_joints_alone_are_fitted_and_say_how_well(tmp_path):
    start = clip_of(*(replace(model_hand(seed), rotations=None, shape=None) for seed in (1, 2)))
    start = replace(start, conventions=replace(OWN, rotation=None, zero=None))
    source = written(start, tmp_path / "start.json")
    result = convert(source, tmp_path / "x.bvh", Stated(fps=25.0))
    fit = result["residual"]["fit"]
    assert fit["hands"] == 2
    assert fit["max_mm"] < 3
    back = read_clip(tmp_path / "x.bvh", Stated(Conventions(unit="mm", axes="opengl")), "bvh")
    away = [
        np.linalg.norm(found.points * [1, -1, -1] - expected.points, axis=1).max()
        for found, expected in zip(back.hands, start.hands, strict=True)
    ]
    assert max(away) == pytest.approx(fit["max_mm"], abs=0.02)
    assert result["bones_off_mm"] == pytest.approx(max(away), abs=1e-6)
    assert any("pose fitted to the joints" in note for note in result["notes"])


def test_what_a_bvh_file_cannot_hold_is_refused(tmp_path):
    two = clip_of(model_hand(1), replace(model_hand(2), track=2))
    source = written(clip_of(model_hand(1), model_hand(2)), tmp_path / "a.json")  # its images have no times
    lines = tmp_path / "a.jsonl"
    from handgraph.formats.converted import write_clip_lines

    write_clip_lines(lines, two)
    with pytest.raises(hg.FormatError, match=r"one hand, here are .*track 1.*track 2.*--track or --only"):
        convert(lines, tmp_path / "x.bvh")
    convert(lines, tmp_path / "x.bvh", None, Wanted(track=2))
    gap = clip_of(model_hand(1), model_hand(2), model_hand(3))
    gap = replace(gap, frames=(gap.frames[0], replace(gap.frames[1], hands=()), gap.frames[2]))
    write_clip_lines(lines, gap)
    with pytest.raises(hg.FormatError, match=r"frame 1 has no hand .*--hold"):
        convert(lines, tmp_path / "y.bvh")
    assert not (tmp_path / "y.bvh").exists()
    result = convert(lines, tmp_path / "y.bvh", None, Wanted(hold=True))
    assert "1 frames without a hand repeat the one before" in result["notes"]
    motion = (tmp_path / "y.bvh").read_text().splitlines()[-3:]
    assert motion[0] == motion[1] != motion[2]
    with pytest.raises(hg.FormatError, match="fps is missing: give the frames a second with --fps"):
        convert(source, tmp_path / "z.bvh")


@pytest.mark.parametrize("suffix", [".glb", ".gltf"])
def test_a_moving_gltf_hand(suffix, tmp_path):
    start = clip_of(*(model_hand(seed) for seed in range(3)))
    lines = tmp_path / "a.jsonl"
    from handgraph.formats.converted import write_clip_lines

    write_clip_lines(lines, start)
    result = convert(lines, tmp_path / f"x{suffix}")
    assert result["animated"]
    assert result["skin_off_mm"] < 5  # the model's corrections, which a skin lacks
    back = read_clip(tmp_path / f"x{suffix}", Stated(), "gltf")
    assert (back.conventions.unit, back.conventions.axes, back.fps) == ("m", "opengl", 25)
    same, _ = to.to_rotation(to.to_axes(to.to_unit(back, "mm"), "opencv"), "axis_angle")
    assert [frame.index for frame in same.frames] == [0, 1, 2]
    for found, expected in zip(same.hands, start.hands, strict=True):
        assert (found.side, found.track) == ("right", 1)
        # Keys are float32, as glTF says: 0.65 m has steps of 6e-8 m.
        assert np.abs(found.points - expected.points).max() <= 2e-4
        np.testing.assert_allclose(found.rotations, expected.rotations, atol=1e-6)
    scene = trimesh.load(tmp_path / f"x{suffix}", process=False)
    (mesh,) = scene.geometry.values()
    assert len(mesh.vertices) == len(load_open_hand().v_template)
    assert mesh.is_watertight
    assert mesh.volume > 0


def gltf_json(path: Path) -> tuple[dict, bytes]:
    """A GLB file taken apart by hand."""
    content = path.read_bytes()
    length = struct.unpack_from("<I", content, 12)[0]
    return json.loads(content[20 : 20 + length]), content[20 + length + 8 :]


def test_the_structure_of_a_moving_gltf_file(tmp_path):
    """What the standard asks for, checked by hand, and the skin by its own formula."""
    from handgraph.formats.converted import write_clip_lines

    start = clip_of(*(model_hand(seed) for seed in range(3)))
    write_clip_lines(tmp_path / "a.jsonl", start)
    convert(tmp_path / "a.jsonl", tmp_path / "x.glb")
    document, data = gltf_json(tmp_path / "x.glb")
    assert document["asset"]["version"] == "2.0"
    assert document["buffers"][0]["byteLength"] == len(data)

    def array(index):
        accessor = document["accessors"][index]
        view = document["bufferViews"][accessor["bufferView"]]
        width = {"SCALAR": 1, "VEC3": 3, "VEC4": 4, "MAT4": 16}[accessor["type"]]
        kind = {5121: "u1", 5125: "<u4", 5126: "<f4"}[accessor["componentType"]]
        assert view["byteOffset"] % 4 == 0
        values = np.frombuffer(data, kind, accessor["count"] * width, view["byteOffset"])
        values = values.reshape(accessor["count"], width)
        np.testing.assert_array_equal(values.min(0), accessor["min"])
        np.testing.assert_array_equal(values.max(0), accessor["max"])
        return values.astype(float)

    (skin,), (animation,) = document["skins"], document["animations"]
    names = [document["nodes"][node]["name"] for node in skin["joints"]]
    assert names[0] == "right_wrist"
    assert len(names) == 16
    times = array(animation["samplers"][0]["input"])[:, 0]
    np.testing.assert_allclose(times, [0, 0.04, 0.08], atol=1e-7)
    moves = {
        (channel["target"]["node"], channel["target"]["path"]): array(
            animation["samplers"][channel["sampler"]]["output"]
        )
        for channel in animation["channels"]
    }
    parent = {child: n for n, node in enumerate(document["nodes"]) for child in node.get("children", [])}

    def matrix(node, t):
        local = np.eye(4)
        x, y, z, w = moves.get((node, "rotation"), [document["nodes"][node]["rotation"]] * 3)[t]
        local[:3, :3] = [
            [1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)],
            [2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)],
            [2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)],
        ]
        local[:3, 3] = moves.get((node, "translation"), [document["nodes"][node]["translation"]] * 3)[t]
        return matrix(parent[node], t) @ local if node in parent else local

    attributes = document["meshes"][0]["primitives"][0]["attributes"]
    vertices = array(attributes["POSITION"])
    inverse = array(skin["inverseBindMatrices"]).reshape(16, 4, 4).transpose(0, 2, 1)
    sets = [(array(attributes[f"JOINTS_{n}"]), array(attributes[f"WEIGHTS_{n}"])) for n in (0, 1)
            if f"JOINTS_{n}" in attributes]  # fmt: skip
    np.testing.assert_allclose(sum(weights.sum(1) for _, weights in sets), 1, atol=1e-6)
    t = 2
    world = np.array([matrix(node, t) @ inverse[n] for n, node in enumerate(skin["joints"])])
    blended = sum(np.einsum("vk,vkij->vij", weights, world[joints.astype(int)]) for joints, weights in sets)
    shown = np.einsum("vij,vj->vi", blended, np.c_[vertices, np.ones(len(vertices))])[:, :3]
    exact = model_hand(2, mesh=True).vertices * [1e-3, -1e-3, -1e-3]
    away = np.linalg.norm(shown - exact, axis=1) * 1000
    assert away.max() < 5  # pose-dependent corrections
    assert np.median(away) < 0.6


@pytest.mark.parametrize("suffix", [".obj", ".ply", ".glb", ".gltf"])
@pytest.mark.parametrize("side", ["right", "left"])
def test_a_mesh_of_one_moment(side, suffix, tmp_path):
    hand = model_hand(1, side, mesh=True)
    source = written(clip_of(hand), tmp_path / "a.json")
    bare = written(clip_of(replace(hand, vertices=None)), tmp_path / "b.json")
    for file in (source, bare):  # with its mesh, or with the pose that makes it
        convert(file, tmp_path / f"x{suffix}")
        kind = SUFFIXES[suffix]
        back = read_clip(tmp_path / f"x{suffix}", Stated(), kind)
        (found,) = to.to_axes(to.to_unit(back, "mm"), "opencv").hands
        assert found.side == side
        # float32 of metres; and the weights of the model, float32, add up to 1 within 6e-8 of 650 mm.
        limit = 2e-4 if kind == "gltf" else NEAR if file == source else 4e-5
        assert np.abs(found.vertices - hand.vertices).max() <= limit
        mesh = trimesh.load(tmp_path / f"x{suffix}", process=False, force="mesh")
        assert mesh.volume > 0  # outside is outside, on a left hand too
    with pytest.raises(hg.FormatError, match=r"30 vertices, the hand model open_hand has 1597"):
        convert(written(clip_of(replace(hand, vertices=np.ones((30, 3)))), source), tmp_path / f"y{suffix}")
    assert not (tmp_path / f"y{suffix}").exists()


# What is not stated, and what is damaged --------------------------------------------------------------------


@pytest.mark.parametrize("field", ["order", "unit", "axes", "root", "side"])
@pytest.mark.parametrize("write", [write_csv, write_clip_json])
def test_a_writer_refuses_what_does_not_say_what_it_is(field, write, tmp_path):
    clip = random_clip()
    if field == "side":
        clip = clip.map(lambda hand, _: replace(hand, side=None))
    else:
        clip = replace(clip, conventions=replace(clip.conventions, **{field: None}))
    with pytest.raises(hg.FormatError, match=f"{field} is missing"):
        write(tmp_path / "x", clip)
    assert not list(tmp_path.iterdir())


def test_what_is_said_must_not_contradict_the_file(tmp_path):
    source = written(clip_of(model_hand(1)), tmp_path / "a.json")
    for stated, message in (
        (Stated(Conventions(unit="m")), "unit is said to be m, but the file states mm"),
        (Stated(Conventions(order="rhd")), "order is said to be rhd, but the file states openpose"),
        (Stated(side="left"), "side is said to be left, but the file states right"),
        (Stated(camera=hg.PinholeCamera(1.0, 1.0, 1.0, 1.0)), "camera is said to be"),
        (Stated(size_px=(10, 10)), "size is said to be"),
    ):
        with pytest.raises(hg.ConfigError, match=message) as caught:
            convert(source, tmp_path / "x.csv", stated)
        assert "a.json: " in str(caught.value)
    convert(source, tmp_path / "x.csv", Stated(Conventions(order="mediapipe")))  # another name of the same


def small_files(folder: Path) -> dict[str, Path]:
    """One valid file of every format."""
    from handgraph.formats.converted import write_clip_lines

    files = {}
    hand = replace(model_hand(1), rotations=None, shape=None)
    clip = clip_of(hand, replace(hand, confidence=None))
    clip = replace(clip, conventions=replace(OWN, rotation=None, zero=None, hand_model=None))
    other = to.to_order(to.to_unit(to.to_axes(clip, "opengl"), "m"), "icvl16")
    for name, content in (("own", clip), ("other", other)):
        write_clip_json(folder / f"{name}.json", content)
        write_clip_lines(folder / f"{name}.jsonl", content)
        for kind in ("csv", "parquet", "coco"):
            path = folder / f"{name}_{kind}{TABLES[kind]}"
            convert(folder / f"{name}.jsonl", path, None, Wanted(format=kind))
            files[f"{name} {kind}"] = path
        files |= {f"{name} json": folder / f"{name}.json", f"{name} jsonl": folder / f"{name}.jsonl"}
    convert(folder / "own.json", folder / "openpose.json", SAID, Wanted(format="openpose", frame=0))
    files["own openpose"] = folder / "openpose.json"
    posed = clip_of(model_hand(1), model_hand(2))
    write_clip_lines(folder / "posed.jsonl", posed)
    for suffix in (".bvh", ".glb", ".gltf", ".obj", ".ply"):
        path = folder / f"x{suffix}"
        convert(folder / "posed.jsonl", path, None, Wanted(frame=0 if suffix in (".obj", ".ply") else None))
        files[f"posed {SUFFIXES[suffix]}{'' if suffix != '.gltf' else ' text'}"] = path
    return files


@pytest.fixture(scope="module")
def files(tmp_path_factory) -> dict[str, Path]:
    return small_files(tmp_path_factory.mktemp("files"))


def read_any(path: Path, kind: str) -> Clip:
    said = {"openpose": SAID, "bvh": Stated(Conventions(unit="mm", axes="opengl"))}.get(kind, Stated())
    return read_clip(path, said, kind)


def mutated(content: bytes, rng: random.Random) -> bytes:
    """Cut, overwritten, repeated, or with another number in it."""
    data = bytearray(content)
    way, at = rng.randrange(6), rng.randrange(len(content))
    if way == 0:
        return bytes(data[:at])
    if way == 1:
        for _ in range(rng.randrange(1, 20)):
            data[rng.randrange(len(data))] = rng.randrange(256)
    elif way == 2:
        del data[at : at + rng.randrange(1, 200)]
    elif way == 3:
        data[at:at] = data[max(at - rng.randrange(1, 300), 0) : at]
    elif way == 4:
        word = rng.choice(
            [b"NaN", b"1e999", b"null", b"-1", b"{}", b"[]", b'"x"', b"9" * 400, b"[" * 5000, b"\n,"]
        )
        data[at : at + rng.randrange(0, 8)] = word
    else:
        digits = [i for i in range(len(data)) if chr(data[i]).isdigit()]
        for i in rng.sample(digits, min(len(digits), 3)):
            data[i] = ord(rng.choice("0123456789-e."))
    return bytes(data)


FUZZED = [
    *(f"{name} {kind}" for name in ("own", "other") for kind in ("json", "jsonl", "csv", "parquet", "coco")),
    "own openpose",
    *(f"posed {kind}" for kind in ("bvh", "gltf", "gltf text", "obj", "ply")),
]


@pytest.mark.slow
@pytest.mark.parametrize("name", FUZZED)
def test_200_damaged_files_are_read_or_refused_in_one_line(name, files, tmp_path):
    damage(name, files, tmp_path, 200)


@pytest.mark.parametrize("name", FUZZED)
def test_damaged_files_are_read_or_refused_in_one_line(name, files, tmp_path):
    damage(name, files, tmp_path, 12)


def damage(name: str, files: dict[str, Path], folder: Path, count: int) -> None:
    content, rng, kind = files[name].read_bytes(), random.Random(name), name.split()[1]
    refused: list[str] = []
    path = folder / files[name].name
    for _ in range(count):
        path.write_bytes(mutated(content, rng))
        try:
            clip = read_any(path, kind)
        except hg.HandgraphError as error:
            refused.append(str(error))
        else:
            for hand in clip.hands:
                assert hand.points is None or not np.isinf(hand.points).any()
    for said in refused:
        assert "\n" not in said
        assert path.name in said
        assert len(said) < 2000
    assert len(refused) > count / 10


@pytest.mark.parametrize(
    "name", ["own json", "own jsonl", "own coco", "own openpose", "other csv", "posed bvh"]
)
def test_nan_is_no_number_in_any_file(name, files, tmp_path):
    kind = name.split()[1]
    text = files[name].read_text()
    number = next(word for word in text.replace("[", " ").replace(",", " ").replace("]", " ").split()[::-1]
                  if "." in word and word.replace(".", "").replace("-", "").isdigit())  # fmt: skip
    path = tmp_path / files[name].name
    path.write_text(text.replace(number, "NaN"))
    with pytest.raises(hg.FormatError, match=r"NaN|nan") as caught:
        read_any(path, kind)
    assert path.name in str(caught.value)


@pytest.mark.parametrize("kind", READERS)
def test_another_kind_of_file_is_refused(kind, files, tmp_path):
    for name, path in files.items():
        if kind in name or {kind, name.split()[1]} == {"obj", "ply"}:
            continue
        with pytest.raises(hg.HandgraphError) as caught:
            read_any(path, kind)
        assert "\n" not in str(caught.value)
    with pytest.raises(hg.InputError, match=r"nowhere: cannot be read \(No such file"):
        read_any(tmp_path / "nowhere", kind)


# The command ------------------------------------------------------------------------------------------------


def test_the_command_converts_and_says_what_it_did(tmp_path, capsys):
    source = written(clip_of(model_hand(1)), tmp_path / "a.json")
    out = tmp_path / "b.csv"
    words = "rhd,m,opengl,root=wrist,quaternion_wxyz,left"
    assert main(["convert", str(source), str(out), "--to", words, "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["to"] == {
        "format": "csv", "order": "rhd", "unit": "m", "axes": "opengl", "root": "wrist",
        "rotation": "quaternion_wxyz", "zero": "flat", "hand_model": "open_hand",
    }  # fmt: skip
    assert document["sides"] == ["left"]
    assert any("mirrored" in note for note in document["notes"])
    assert (
        main(
            [
                "convert",
                str(out),
                str(tmp_path / "c.json"),
                "--to",
                "canonical,mm,opencv,absolute,right,axis_angle",
            ]
        )
        == 0
    )
    capsys.readouterr()
    (found,) = read_clip(tmp_path / "c.json", Stated(), "json").hands
    assert np.abs(found.points - model_hand(1).points).max() <= NEAR
    assert np.abs(found.points_px - model_hand(1).points_px).max() <= NEAR


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["a.json", "x.xyz"], "the suffix '.xyz' tells no format, name it with --to"),
        (["a.json", "x.csv", "--to", "furlong"], "--to furlong: expected a format"),
        (["a.json", "x.csv", "--to", "mm,m"], "--to: mm and m are both a unit"),
        (["a.json", "x.csv", "--to", "matrix,mean"], "a matrix has no mean hand to start from"),
        (["a.json", "x.csv", "--to", "pca=46"], "components is 46, expected 1 to 45"),
        (["a.json", "x.csv", "--to", "pca=5"], "pca=5 loses up to"),
        (["a.json", "x.csv", "--to", "root=nose"], "the order openpose has no joint 'nose'"),
        (["a.json", "x.glb", "--to", "cm"], "unit: glTF has m, found cm"),
        (["a.json", "x.csv", "--camera", "1,2"], "--camera 1,2: expected 4 numbers"),
        (["a.json", "x.csv", "--frame", "7"], "--frame 7: there is no such frame"),
        (["a.json", "x.csv", "--hand-model", "none.pkl"], "none.pkl"),
        (["nowhere.json", "x.csv"], "nowhere.json: cannot be read"),
    ],
)
def test_wrong_usage_is_one_line_and_leaves_nothing(arguments, message, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    written(clip_of(model_hand(1)), tmp_path / "a.json")
    assert main(["convert", *arguments]) == 2
    said = capsys.readouterr()
    assert message in said.err
    assert said.err.count("\n") == 1
    assert said.out == ""
    assert [path.name for path in tmp_path.iterdir()] == ["a.json"]


def test_a_hand_model_of_the_users_own(tmp_path, capsys):
    """A file in MANO's format: its principal poses, not the open hand's."""
    model = load_open_hand()
    rng = np.random.default_rng(0)
    names = "v_template shapedirs posedirs J_regressor weights faces parents tip_vertices"
    own = {name: getattr(model, name) for name in names.split()}
    own["hands_components"] = np.linalg.qr(rng.normal(size=(45, 45)))[0]
    own["hands_mean"] = rng.normal(0, 0.2, 45)
    own["f"] = own.pop("faces")
    own["kintree_table"] = np.stack([np.array(own.pop("parents")), np.arange(16)])
    np.savez(tmp_path / "mine_right.npz", **own)
    source = written(clip_of(replace(model_hand(1), vertices=None)), tmp_path / "a.json")
    told = ["--hand-model", str(tmp_path / "mine_right.npz"), "--json"]
    assert main(["convert", str(source), str(tmp_path / "b.json"), "--to", "pca=45,mean", *told]) == 0
    name = json.loads(capsys.readouterr().out)["to"]["hand_model"]
    written_pose = read_clip(tmp_path / "b.json", Stated(), "json").hands[0].rotations
    expected = (model_hand(1).rotations[1:].ravel() - own["hands_mean"]) @ own["hands_components"].T
    np.testing.assert_allclose(written_pose[3:], expected, atol=1e-8)
    # Without the file the pose cannot be read as another.
    assert name != "open_hand"
    to._models.pop(name)
    assert main(["convert", str(tmp_path / "b.json"), str(tmp_path / "c.json"), "--to", "matrix,flat"]) == 2
    assert "give its file with --hand-model" in capsys.readouterr().err


def test_names_of_joints_are_the_skeletons():
    assert ORDERS["canonical"].names == JOINT_NAMES
