import pickle
import shutil

import numpy as np
import pytest
from damage import copied

from handgraph.datasets import dexycb, open_dataset
from handgraph.datasets.check import doubts
from handgraph.datasets.files import projection_residual, read_yaml
from handgraph.datasets.layouts import WRITERS
from handgraph.errors import ConfigError, FormatError, InputError
from handgraph.skeleton import JOINT_NAMES, PARENTS


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    root = tmp_path_factory.mktemp("dexycb")
    return root, WRITERS["dexycb"](root, subjects=(6, 7, 8))


@pytest.fixture
def tree(written, tmp_path):
    return copied(written[0], tmp_path)


def load(root, split="s1_test", **options):
    return open_dataset("dexycb", root, split, sequences=1, **options)


def a_label(root):
    return next((root / dexycb.SUBJECTS[7]).glob("*/836212060125/labels_000001.npz"))


def rewrite(path, **changes):
    with np.load(path) as stored:
        arrays = {**stored, **changes}
    np.savez_compressed(path, **{name: array for name, array in arrays.items() if array is not None})


def test_round_trip(written):
    root, truth = written
    data = load(root, depth=True)
    assert len(data) == 2 * 8
    for index in range(len(data)):
        sample = data[index]
        told = truth[sample.frame]
        np.testing.assert_allclose(sample.joints_mm, told["joints_mm"], atol=1e-3)  # float32 metres
        np.testing.assert_allclose(sample.keypoints_px, told["keypoints_px"], atol=1e-3)
        np.testing.assert_allclose(sample.shape, told["shape"], atol=1e-6)
        assert sample.camera == told["camera"]
        assert (sample.side, sample.subject, sample.pose) == (told["side"], told["subject"], None)
        assert (sample.depth_mm == told["depth_mm"]).all()
        assert projection_residual(sample.camera, sample.joints_mm, sample.keypoints_px) < 0.01
        assert [d for d in doubts(sample, data.joints) if "depth under" not in d] == []
    assert {data[0].side, data[15].side} == {"left", "right"}
    assert len(load(root, sides=["left"])) == 8
    assert pickle.loads(pickle.dumps(data))[3].frame == data[3].frame


def test_order_and_numbers_are_the_toolkits(written):
    """Subject, sequence, camera, frame; a frame without a label keeps its number."""
    data = load(written[0])
    assert data.missing == 16  # frame 0 of two sequences before eight cameras
    serials = [data.image_path(i).parent.name for i in range(8)]
    assert serials == list(dexycb.SERIALS)
    assert [data.official_index(i) for i in range(16)] == list(range(1, 32, 2))
    assert [load(written[0], sides=["right"]).official_index(i) for i in (0, 7)] == [17, 31]
    assert data.image_path(8).parts[-4] == dexycb.SUBJECTS[8]


@pytest.mark.parametrize("setup", ["s0", "s1", "s2", "s3"])
def test_each_setup_parts_everything_once(setup):
    seen = np.zeros((10, 8, 100), int)
    for part in ("train", "val", "test"):
        seen[np.ix_(*(list(chosen) for chosen in dexycb.members(f"{setup}_{part}")))] += 1
    assert (seen == 1).all()


def test_setups_are_the_published_ones():
    subjects, cameras, sequences = dexycb.members("s0_test")
    assert (subjects, len(cameras)) == (tuple(range(2, 10)), 8)
    assert sequences[:3] == (4, 9, 14)
    assert [len(dexycb.members(f"s1_{part}")[0]) for part in ("train", "val", "test")] == [7, 1, 2]
    assert dexycb.members("s1_train")[0] == (0, 1, 2, 3, 4, 5, 9)
    assert dexycb.members("s2_val")[1] == (6,)
    assert dexycb.members("s3_test")[2] == (*range(35, 40), *range(55, 60), *range(75, 80))
    assert dexycb.members("s3_val")[2] == (*range(15, 20), *range(95, 100))


def test_wrong_roots_are_told_apart(tree):
    with pytest.raises(InputError, match="no folder 20201002-subject-08 and no calibration"):
        load(tree / "calibration")
    with pytest.raises(InputError, match="3 of the split's 8 subjects, 20200820-subject-03 is not there"):
        load(tree, "s0_test")
    with pytest.raises(
        InputError, match="1 sequences, expected 100; the dataset is copied only in part; with partial"
    ):
        open_dataset("dexycb", tree, "s1_val")
    color = a_label(tree).with_name("color_000001.jpg")
    color.rename(color.with_name("color_000002.jpg"))
    with pytest.raises(InputError, match=r"meta\.yml labels 2 frames but color_000001\.jpg is not there"):
        load(tree)
    shutil.copy(color.with_name("color_000002.jpg"), color)
    with pytest.raises(InputError, match=r"labels 2 frames but color_000002\.jpg exists; .*versions"):
        load(tree)
    color.with_name("color_000002.jpg").unlink()
    data = load(tree)
    a_label(tree).unlink()
    with pytest.raises(InputError, match=r"labels_000001\.npz: no such file"):
        data[0]
    shutil.rmtree(tree / "calibration")
    with pytest.raises(InputError, match="no folder calibration/intrinsics; unpack"):
        load(tree)
    for options, message in (({"sides": ["up"]}, "sides are"), ({"split": "s4_test"}, "no split 's4_test'")):
        with pytest.raises(ConfigError, match=message):
            load(tree, **options)


def test_labels_that_cannot_be_true(tree):
    data = load(tree)
    path = a_label(tree)
    original = path.read_bytes()
    joints, uv = (np.load(path)[name] for name in ("joint_3d", "joint_2d"))
    for changes, message in (
        ({"joint_3d": None}, "holds no array .*joint_3d"),
        (
            {"joint_3d": joints[0]},
            r"joint_3d is float32 of shape \(21, 3\), expected numbers of \(1, 21, 3\)",
        ),
        ({"joint_3d": joints.astype(str)}, "joint_3d is <U"),
        ({"joint_3d": joints.astype(object)}, "damaged .npz .*Python objects"),
        ({"joint_3d": joints * np.nan}, "holds a number that is not finite"),
        ({"joint_3d": -joints}, "joint_3d is not before the camera"),
        ({"joint_2d": uv + 3}, r"its joint_3d projects 3\.0 px from its joint_2d"),
        ({"joint_3d": joints * 1000}, "a labelled bone is .* mm long|lie"),
        ({"joint_3d": -np.ones_like(joints), "joint_2d": -np.ones_like(uv)}, "no hand labelled, though"),
    ):
        rewrite(path, **changes)
        with pytest.raises(FormatError, match=rf"labels_000001\.npz.*{message}"):
            data[0]
        path.write_bytes(original)


def test_sequence_files_that_cannot_be_true(tree):
    folder = a_label(tree).parents[1]
    meta, pose = (folder / name for name in ("meta.yml", "pose.npz"))
    mano = next((tree / "calibration").glob("mano_20201002*/mano.yml"))
    intrinsics = tree / "calibration/intrinsics/836212060125_640x480.yml"
    whole = meta.read_text()
    for path, text, message in (
        (meta, whole.replace("num_frames: 2", "num_frames: 3"), "meta.yml says 3 frames, pose.npz has 2"),
        (meta, whole.replace("- left", "- up"), "no num_frames, mano_sides and mano_calib"),
        (meta, whole.replace("mano_calib", "x"), "no num_frames, mano_sides and mano_calib"),
        (meta, "a: [", "not readable YAML"),
        (meta, "- 1\n", "holds list, expected keys and values"),
        (meta, "a: !!python/object/apply:os.system ['true']\n", "not readable YAML"),
        (mano, "betas:\n- 1\n", r"betas of shape \(1,\), expected 10"),
        (mano, "beta:\n- 1\n", "holds no betas"),
        (intrinsics, "depth:\n  fx: 1\n", "no camera under color"),
        (intrinsics, "color:\n  fx: -1\n  fy: 1\n  ppx: 1\n  ppy: 1\n", "no camera under color"),
    ):
        original = path.read_bytes()
        path.write_text(text)
        with pytest.raises(FormatError, match=message):
            load(tree)
        path.write_bytes(original)
    pose.write_bytes(pose.read_bytes()[:-30])
    with pytest.raises(FormatError, match=r"pose\.npz: damaged"):
        load(tree)


def test_calibrations_with_tuples_are_read(written):
    path = next((written[0] / "calibration").glob("extrinsics_*/extrinsics.yml"))
    content = read_yaml(path)
    assert content["extrinsics"]["836212060125"] == np.eye(3, 4).ravel().tolist()


def test_a_hand_outside_the_image_is_said(tree):
    path = a_label(tree)
    uv, joints = np.load(path)["joint_2d"], np.load(path)["joint_3d"]
    camera = load(tree)[0].camera
    joints[..., 0] += 2
    uv = camera.uvd_from_xyz(joints)[..., :2].astype(np.float32)
    rewrite(path, joint_3d=joints, joint_2d=uv)
    data = load(tree)
    assert data[0].note == "the hand lies outside the image"
    assert data[1].note == ""


def test_pose_with_the_users_mano(written, tmp_path):
    from test_freihand import mano_file

    from handgraph.hand_model import load_mano

    root, truth = written
    path = mano_file(tmp_path)
    model = load_mano(path)
    data = load(root, mano=path)
    for index in range(16):
        sample = data[index]
        stored = truth[sample.frame]["pose_m"]
        if sample.side == "left":
            assert sample.pose is None  # the file is that of the right hand
            continue
        np.testing.assert_allclose(sample.pose[:3], stored[:3], atol=1e-6)
        expected = model.hands_mean + sum(
            c * row for c, row in zip(stored[3:48], model.hands_components, strict=True)
        )
        np.testing.assert_allclose(sample.pose[3:], expected, atol=1e-6)


def test_real_labels_are_hands(real):
    """Nine real frames: metres, and parameters of the shapes that the reader expects; HO3D's joint order."""
    with np.load(real / "labels_dexycb_mano/20200709_141931_left.npz") as stored:
        joints, pose, shape = stored["handJoints3D"], stored["handPose"], stored["handBeta"]
    assert pose.shape == (9, 48)
    assert (shape == shape[0]).all()  # one shape a subject
    ho3d = [f"{f}_{p}" for f in ("index", "middle", "little", "ring") for p in ("mcp", "pip", "dip")]
    tips = [f"{finger}_tip" for finger in ("thumb", "index", "middle", "ring", "little")]
    order = ["wrist", *ho3d, "thumb_cmc", "thumb_mcp", "thumb_ip", *tips]
    canonical = 1000 * joints[:, [order.index(name) for name in JOINT_NAMES]]
    bones = np.linalg.norm(canonical[:, 1:] - canonical[:, list(PARENTS[1:])], axis=-1)
    assert bones.min() > 15
    assert bones.max() < 110
    np.testing.assert_allclose(bones, np.broadcast_to(bones[0], bones.shape), atol=6)  # one hand
