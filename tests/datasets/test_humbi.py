import pickle
import random
import shutil

import cv2
import numpy as np
import pytest
from damage import copied

from handgraph.datasets import humbi, open_dataset
from handgraph.datasets.check import doubts
from handgraph.datasets.files import projection_residual
from handgraph.datasets.layouts import WRITERS
from handgraph.errors import ConfigError, FormatError, InputError


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    root = tmp_path_factory.mktemp("humbi")
    return root, WRITERS["humbi"](root)


@pytest.fixture
def tree(written, tmp_path):
    return copied(written[0], tmp_path)


def load(root, split="all", **options):
    return open_dataset("humbi", root, split, **{"subjects": None, **options})


def test_round_trip(written):
    root, truth = written
    data = load(root, side="both", vertices=True)
    assert len(data) == len(truth) == 9
    for index in range(9):
        sample = data[index]
        told = truth[sample.frame]
        np.testing.assert_array_equal(sample.image, told["image"])
        np.testing.assert_allclose(sample.joints_mm, told["joints_mm"], atol=1e-3)  # at 2 m, float32
        np.testing.assert_allclose(sample.keypoints_px, told["keypoints_px"], atol=1e-3)
        np.testing.assert_allclose(sample.vertices_mm, told["vertices_mm"], atol=1e-3)
        np.testing.assert_allclose(sample.shape, told["shape"], atol=1e-6)
        assert (sample.side, sample.subject) == (told["side"], told["subject"])
        assert projection_residual(sample.camera, sample.joints_mm, sample.keypoints_px) < 1e-3
        assert doubts(sample, data.joints) == []
    assert len(load(root)) == 6  # the right hands alone
    assert pickle.loads(pickle.dumps(data))[0].frame == data[0].frame


def test_the_division_is_the_papers():
    """Their code: random.seed(0), the ascending subjects shuffled, cut at 0.9: 269 and 30 of 299."""
    subjects = [number for number in range(1, 301) if number != 52]
    divided = humbi.divide(subjects[::-1])
    assert (len(divided["train"]), len(divided["test"])) == (269, 30)
    assert sorted(divided["train"] + divided["test"]) == subjects
    theirs = [str(number) for number in subjects]
    random.seed(0)
    random.shuffle(theirs)
    assert divided["test"] == sorted(int(number) for number in theirs[int(299 * 0.9) :])


def test_splits_share_no_subject(tmp_path):
    WRITERS["humbi"](tmp_path, subjects=tuple(range(1, 12)), cameras=(4,))
    whole = {split: load(tmp_path, split) for split in ("train", "test")}
    who = {split: {data[i].subject for i in range(len(data))} for split, data in whole.items()}
    assert (len(who["train"]), len(who["test"])) == (9, 2)
    assert not who["train"] & who["test"]


def test_wrong_roots_are_told_apart(tree):
    bundle = tree / "Hand_1_80_updat"
    assert len(load(bundle)) == 6
    with pytest.raises(InputError, match=r"no subject_…/hand"):
        load(bundle / "subject_1" / "hand")
    with pytest.raises(InputError, match="3 subjects, the published split has 299; copied only in part"):
        open_dataset("humbi", tree, "train")
    shutil.copytree(bundle / "subject_1", bundle / "subject_52")  # empty in the release: never used
    assert len(load(tree)) == 6
    frame = bundle / "subject_7/hand/00000001"
    (frame / "image_cropped/right/image0000030.png").unlink()
    (frame / "image_cropped/right/image0000099.png").write_bytes(b"x")
    data = load(tree)
    assert (len(data), data.left_out) == (5, 2)
    (bundle / "subject_7/hand/extrinsic.txt").unlink()
    with pytest.raises(InputError, match=r"extrinsic\.txt: no such file"):
        load(tree)
    shutil.copytree(bundle / "subject_1", tree / "Hand_81_140_updat/subject_1")
    with pytest.raises(InputError, match="subject 1 is there twice"):
        load(tree)
    with pytest.raises(ConfigError, match="side is 'up', expected right, left or both"):
        load(tree, side="up")


def test_cameras_that_cannot_be_true(tree):
    hand = tree / "Hand_1_80_updat/subject_1/hand"
    for name, change, message in (
        ("intrinsic", lambda text: text[: len(text) // 2], "lines after the header|values, expected 3"),
        ("intrinsic", lambda text: text.replace("0 4\n", "0 four\n"), "line 4 names no camera"),
        ("intrinsic", lambda text: text.replace("960.0", "nan", 1), "not finite|could not convert"),
        ("intrinsic", lambda text: text.replace("540.0", "600.0", 1), "projects 60.0 px from intrinsic.txt"),
        ("extrinsic", lambda text: text.replace("0.", "1.", 12), "has no rotation|px from"),
        ("project", lambda text: "\n".join(text.splitlines()[:3]), "0 lines after the header"),
        (
            "extrinsic",
            lambda text: text.replace("1 30\n", "1 31\n"),
            "extrinsic.txt and its like lack camera 30",
        ),
    ):
        path = hand / f"{name}.txt"
        whole = path.read_text()
        path.write_text(change(whole))
        data = load(tree)
        with pytest.raises(FormatError, match=message):
            data[1]  # by camera 30
        path.write_text(whole)


def test_labels_that_cannot_be_true(tree):
    frame = tree / "Hand_1_80_updat/subject_1/hand/00000001"
    crops = frame / "image_cropped/right/list.txt"
    points, mano, mesh = (
        frame / "reconstruction" / f"{name}_r.txt" for name in ("keypoints", "mano_params", "vertices")
    )
    for path, change, message in (
        (crops, lambda text: text.replace(" ", ",", 1), "line 1 holds 4 values, expected 5"),
        (crops, lambda text: "4 10.5 20 10 20\n", "not camera xmin xmax ymin ymax in whole pixels"),
        (crops, lambda text: "4 20 10 10 20\n", "not camera xmin xmax ymin ymax"),
        (points, lambda text: text[:-40], "lines, expected 21|values, expected 3"),
        (points, lambda text: text.replace("0.", "nan0.", 1), "could not convert"),
        (points, lambda text: "\n".join(["900 0 0"] * 21), "not before camera|lie"),
        (points, lambda text: text.replace("0.0", "0.9", 1), "a labelled bone is"),
        (mano, lambda text: "1 2 3\n", "line 1 holds 3 values, expected 36"),
        (mesh, lambda text: "1 2 3\n", "1 lines, expected 778"),
        (mesh, lambda text: text.replace("0.0", "0.9", 1), "a vertex lies"),
    ):
        whole = path.read_text()
        path.write_text(change(whole))
        with pytest.raises(FormatError, match=rf"{path.name}.*{message}"):
            load(tree, vertices=True)[0]
        path.write_text(whole)


def test_pose_with_the_users_mano(written, tmp_path):
    """The labelled rotation is the world's: in the camera's frame it is turned by the camera's."""
    from test_freihand import mano_file

    from handgraph.hand_model import load_mano

    root, truth = written
    model = load_mano(mano_file(tmp_path))
    data = load(root, mano=mano_file(tmp_path))
    for index in range(6):
        sample = data[index]
        told = truth[sample.frame]
        rotation = cv2.Rodrigues(sample.pose[:3].astype(float))[0]
        np.testing.assert_allclose(rotation, told["rotation"], atol=1e-5)
        expected = model.hands_mean + told["coefficients"] @ model.hands_components[:20]
        np.testing.assert_allclose(sample.pose[3:], expected, atol=1e-5)


def test_crop_keeps_pixel_centres():
    """Half a pixel counts: the first and last original pixel's outer edges are the crop's."""
    camera = humbi._Camera(np.array([[1000.0, 0, 0], [0, 1000, 0], [0, 0, 1]]), np.eye(3), np.zeros(3))
    cropped = camera.cropped(100, 199, 50, 149)  # 100 pixels become 250
    edge = np.array([[(100 - 0.5) / 1000, (50 - 0.5) / 1000, 1], [(199 + 0.5) / 1000, (149 + 0.5) / 1000, 1]])
    np.testing.assert_allclose(cropped.uvd_from_xyz(edge)[:, :2], [[-0.5, -0.5], [249.5, 249.5]], atol=1e-9)
