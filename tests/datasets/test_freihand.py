import json
import pickle
import shutil
from pathlib import Path

import numpy as np
import pytest
from damage import copied

from handgraph.camera import PinholeCamera
from handgraph.datasets import Sample, open_dataset
from handgraph.datasets.check import doubts
from handgraph.datasets.files import projection_residual, read_color_frame
from handgraph.datasets.layouts import WRITERS
from handgraph.errors import ConfigError, FormatError, InputError
from handgraph.hand_model.files import TIP_VERTICES, load_open_hand
from handgraph.skeleton import OPENPOSE


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    root = tmp_path_factory.mktemp("freihand")
    return root, WRITERS["freihand"](root)


@pytest.fixture
def tree(written, tmp_path):
    return copied(written[0], tmp_path) / "FreiHAND_pub_v2"


def rewrite(path, change):
    values = json.loads(path.read_text())
    path.write_text(json.dumps(change(values)))


def test_round_trip(written):
    root, truth = written
    for split, part in (("train", "training"), ("test", "evaluation")):
        data = open_dataset("freihand", root, split, vertices=True)
        for index in range(len(data)):
            sample, told = data[index], truth[part][index % 3]
            np.testing.assert_allclose(sample.joints_mm, told["joints_mm"], atol=1e-4)
            np.testing.assert_allclose(sample.keypoints_px, told["keypoints_px"], atol=1e-4)
            np.testing.assert_allclose(sample.vertices_mm, told["vertices_mm"], atol=1e-4)
            np.testing.assert_allclose(sample.shape, told["shape"], atol=1e-6)
            assert projection_residual(sample.camera, sample.joints_mm, sample.keypoints_px) < 1e-3
            assert doubts(sample, data.joints) == []
            assert (sample.side, sample.pose) == ("right", None)
    middle = truth["evaluation"][2]["joints_mm"]
    assert data.scale_mm(2) == pytest.approx(np.linalg.norm(middle[10] - middle[9]), abs=1e-3)
    assert pickle.loads(pickle.dumps(data))[1].frame == "00000001.jpg"


def test_each_background_is_a_quarter(written):
    """Zimmermann et al.: picture i shows label i mod 32560; green screen first."""
    root, _ = written
    names = {}
    for number, background in enumerate(("gs", "hom", "sample", "auto")):
        data = open_dataset("freihand", root, f"train_{background}")
        names[background] = [data.image_path(i).name for i in range(len(data))]
        assert names[background] == [f"{3 * number + i:08d}.jpg" for i in range(3)]
    whole = open_dataset("freihand", root, "train")
    assert len(whole) == 12
    np.testing.assert_array_equal(whole[1].joints_mm, whole[10].joints_mm)
    assert open_dataset("freihand", root, "train_auto", box="image")[0].box_px.tolist() == [0, 0, 224, 224]


def test_wrong_roots_are_told_apart(tree):
    with pytest.raises(InputError, match="no folder training/rgb; give FreiHAND_pub_v2"):
        open_dataset("freihand", tree / "training")
    (tree / "training/rgb/00000012.jpg").write_bytes(b"x")
    with pytest.raises(InputError, match=r"labels 12 frames but 00000012\.jpg exists; .*versions"):
        open_dataset("freihand", tree)
    (tree / "training/rgb/00000012.jpg").unlink()
    (tree / "training/rgb/00000011.jpg").unlink()
    with pytest.raises(InputError, match=r"labels 12 frames but 00000011\.jpg is not there"):
        open_dataset("freihand", tree)
    assert len(open_dataset("freihand", tree, "train_sample")) == 3
    (tree / "evaluation_xyz.json").unlink()
    with pytest.raises(InputError, match=r"evaluation_xyz\.json is not there; .* later release"):
        open_dataset("freihand", tree, "test")
    shutil.rmtree(tree / "evaluation")
    with pytest.raises(InputError, match=r"holds training but no evaluation/rgb; .* in part"):
        open_dataset("freihand", tree, "test")
    with pytest.raises(ConfigError, match="box is 'x', expected keypoints or image"):
        open_dataset("freihand", tree, box="x")


@pytest.mark.parametrize(
    ("kind", "change", "message"),
    [
        ("K", lambda v: v[:2], "2 labels, but 3 in the xyz beside it; the files are of different versions"),
        ("xyz", lambda v: v[:2], "3 labels, but 2 in the xyz"),
        ("xyz", lambda v: [], "the list is|holds no label"),
        ("xyz", lambda v: [v[0], v[1][:20], v[2]], "the list is no array of numbers of one shape"),
        ("xyz", lambda v: [[row[:2] for row in hand] for hand in v], r"expected numbers of \(n, 21, 3\)"),
        ("xyz", lambda v: [[["1", "2", "3"]] * 21] * 3, "no array of numbers"),
        ("xyz", lambda v: [[[float("nan")] * 3] * 21] * 3, "holds a number that is not finite"),
        ("xyz", lambda v: (np.array(v) * 1000).tolist(), "label 0 is not before the camera, in metres"),
        ("xyz", lambda v: (np.array(v) * -1).tolist(), "label 0 is not before the camera"),
        ("K", lambda v: [np.eye(3)[::-1].tolist()] * 3, "label 0 has a K that is no camera's"),
        ("K", lambda v: [v[0], v[1], (-np.array(v[2])).tolist()], "label 2 has a K that is no camera's"),
        ("K", lambda v: [v[0], (np.array(v[1]) * [[1.1], [1], [1]]).tolist(), v[2]], "label 1 has a K that"),
        (
            "K",
            lambda v: [np.add(v[0], [[0, 0, 900], [0, 0, 0], [0, 0, 0]]).tolist(), *v[1:]],
            "label 0 has a K that projects the hand 9.. px from the picture's middle",
        ),
        ("verts", lambda v: [v[0], v[1], [[0.3, 0, 0], *v[2][1:]]], "label 2: a vertex lies ... mm from the"),
        ("mano", lambda v: [hand[0] for hand in v], r"expected numbers of \(n, 1, 61\)"),
        ("K", lambda v: {"K": v}, "no array of numbers"),
        ("verts", lambda v: v[:2], "2 labels, but 3"),
        ("verts", lambda v: [v[0], v[1][:-1], v[2]], "label 1 has not 778 vertices, or is damaged"),
    ],
)
def test_labels_that_cannot_be_true(tree, kind, change, message):
    rewrite(tree / f"training_{kind}.json", change)
    with pytest.raises(FormatError, match=message):
        open_dataset("freihand", tree, vertices=True)[1]


def test_a_cut_list_is_refused(tree):
    for kind in ("xyz", "verts", "K", "mano"):
        path = tree / f"training_{kind}.json"
        content = path.read_bytes()
        path.write_bytes(content[:-40])
        with pytest.raises(FormatError, match=rf"training_{kind}\.json: .*(JSON|copy it again)"):
            open_dataset("freihand", tree, vertices=True)
        path.write_bytes(content)


def mano_file(folder: Path) -> Path:
    """A made-up hand in MANO's format."""
    model = load_open_hand()
    path = folder / "MANO_RIGHT.npz"
    random = np.random.default_rng(0)
    np.savez(
        path,
        v_template=model.v_template,
        shapedirs=model.shapedirs,
        posedirs=model.posedirs,
        J_regressor=model.J_regressor,
        weights=model.weights,
        f=model.faces,
        kintree_table=np.array([[-1, 0, 1, 2, 0, 4, 5, 0, 7, 8, 0, 10, 11, 0, 13, 14], range(16)]),
        hands_components=np.linalg.qr(random.normal(size=(45, 45)))[0],
        hands_mean=random.normal(0, 0.1, 45),
        tip_vertices=model.tip_vertices,
    )
    return path


def test_pose_with_the_users_mano(tree, tmp_path):
    """Joints posed with the sample's own pose and shape must fall on its labels, up to where the hand is."""
    import torch

    from handgraph.hand_model import HandLayer, load_mano

    path = mano_file(tmp_path)
    layer = HandLayer(load_mano(path), dtype=torch.float64)
    mean = layer.model.hands_mean
    random = np.random.default_rng(1)
    xyz, mano = [], []
    for _ in range(3):
        shape, fingers = random.normal(0, 1, 10), random.normal(0, 0.2, 45)
        turn = random.normal(0, 1, 3)
        pose = np.concatenate([turn, mean + fingers])
        mesh = layer(torch.from_numpy(shape)[None], torch.from_numpy(pose)[None])
        joints = mesh.joints_mm[0].numpy() + np.array([20, 10, 600])
        xyz.append((joints / 1000).tolist())
        mano.append([[*random.normal(0, 1, 3), *fingers, *shape, 0, 0, 0]])  # its global rotation is unused
    (tree / "training_xyz.json").write_text(json.dumps(xyz))
    (tree / "training_mano.json").write_text(json.dumps(mano))
    data = open_dataset("freihand", tree, "train", mano=path)
    for index in range(3):
        sample = data[index]
        mesh = layer(
            torch.from_numpy(sample.shape.astype(float))[None],
            torch.from_numpy(sample.pose.astype(float))[None],
        )
        posed = mesh.joints_mm[0].numpy()
        relative = sample.joints_mm - sample.joints_mm[0]
        np.testing.assert_allclose(posed - posed[0], relative, atol=0.01)


def test_real_meshes_and_keypoints(real):
    """Real frames: labels are a hand's, its tips are vertices of the mesh, pictures are numbered as read."""
    folder = real / "rgb_mesh_freihand"
    for path in sorted((folder / "label").glob("*.json")):
        record = json.loads(path.read_text())
        hand = record["hands"][0]
        image = folder / "image" / f"{path.stem}.jpg"
        camera = PinholeCamera(*(float(record[key]) for key in ("fx", "fy", "cx", "cy")))
        joints = np.array(hand["joint3d"])
        vertices = -np.array(hand["vertex3d"])  # this copy stores them negated
        sample = Sample(
            frame=image.name,
            source=image,
            order=OPENPOSE,
            keypoints_px=camera.uvd_from_xyz(joints)[:, :2],
            joints_mm=joints,
            image=read_color_frame(image, (224, 224)),
            camera=camera,
            side="right",
            vertices_mm=vertices,
        )
        assert doubts(sample, tuple(range(21))) == []
        nearest = np.linalg.norm(joints[:, None] - vertices[None], axis=-1).min(axis=1)
        assert nearest.max() < 25
        tips = vertices[list(TIP_VERTICES["freihand"])]
        # FreiHAND's tips are five vertices of the mesh, to the last digit.
        np.testing.assert_allclose(joints[[4, 8, 12, 16, 20]], tips, atol=1e-3)
    content = json.loads((real / "rgb_2d_freihand/test_freihand.json").read_text())
    first = np.array(content["annotations"][0]["keypoints"]).reshape(21, 3)
    for label in content["annotations"]:
        np.testing.assert_allclose(
            np.array(label["keypoints"]).reshape(21, 3), first
        )  # one label, 4 pictures
    ids = sorted(label["image_id"] for label in content["annotations"])
    assert {i % 32560 for i in ids} == {17620}
    assert [i // 32560 for i in ids] == [0, 1, 2, 3]  # as the reader numbers the backgrounds
    for number in ids:
        read_color_frame(real / "rgb_2d_freihand" / f"{number:08d}.jpg", (224, 224))
