"""Mesh files read back by trimesh, and pictures of meshes against rays."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import trimesh

from handgraph import ConfigError, FormatError, InputError, PinholeCamera
from handgraph.hand import RELATIVE_FRAME, Hand
from handgraph.hand_model import HandLayer, load_open_hand
from handgraph.meshes import SUFFIXES, draw_hands, hand_faces, render, with_mesh, write_mesh

CAMERA = PinholeCamera(300.0, 310.0, 79.5, 59.5)


def posed(side: str = "right") -> Hand:
    """An open hand half a metre away, fingers up."""
    layer = HandLayer(side=side)
    pose = torch.zeros(1, 48)
    pose[0, :3] = torch.tensor([0.3, 0.2, 1.5 if side == "right" else -1.5])
    mesh = layer(torch.zeros(1, 10), pose, torch.tensor([[0.0, 60.0, 500.0]]))
    joints = mesh.joints_mm[0].double().numpy()
    keypoints = CAMERA.uvd_from_xyz(joints)[:, :2]
    return Hand(
        side=side, score=0.9, keypoints_px=keypoints, box_px=np.zeros(4), joints_mm=joints,
        vertices_mm=mesh.vertices_mm[0].numpy(), camera=CAMERA,
    )  # fmt: skip


@pytest.mark.parametrize("side", ["right", "left"])
@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_mesh_file_is_read_back(suffix: str, side: str, tmp_path: Path) -> None:
    hand = posed(side)
    write_mesh(tmp_path / f"hand{suffix}", [hand])
    assert [file.name for file in tmp_path.iterdir()] == [f"hand{suffix}"]
    mesh = trimesh.load(tmp_path / f"hand{suffix}", process=False, force="mesh")
    expected = hand.vertices_mm.astype(np.float64)
    if suffix in (".glb", ".gltf"):
        expected = expected * [1e-3, -1e-3, -1e-3]
    np.testing.assert_allclose(mesh.vertices, expected, atol=1e-3 * np.abs(expected).max())
    np.testing.assert_array_equal(mesh.faces, hand_faces(hand))
    # Outside is outside: the volume is that of a hand and not minus that.
    volume = mesh.volume * (1e3**3 if suffix in (".glb", ".gltf") else 1)
    assert 1.5e5 < volume < 5e5


def test_two_hands_are_in_one_file(tmp_path: Path) -> None:
    both = [posed("right"), posed("left")]
    for suffix in SUFFIXES:
        write_mesh(tmp_path / f"both{suffix}", both)
        mesh = trimesh.load(tmp_path / f"both{suffix}", process=False, force="mesh")
        assert len(mesh.vertices) == 2 * len(both[0].vertices_mm)


def test_what_cannot_be_written_is_said(tmp_path: Path) -> None:
    hand = posed()
    with pytest.raises(ConfigError, match=r"hand\.stl: the suffix is '\.stl', expected one of \.obj, \.ply"):
        write_mesh(tmp_path / "hand.stl", [hand])
    with pytest.raises(FormatError, match="this hand has no vertices"):
        write_mesh(tmp_path / "hand.ply", [replace(hand, vertices_mm=None)])
    with pytest.raises(FormatError, match="this hand has 5 vertices, the hand model open_hand"):
        write_mesh(tmp_path / "hand.ply", [replace(hand, vertices_mm=np.zeros((5, 3)))])
    with pytest.raises(FormatError, match="no hand to write"):
        write_mesh(tmp_path / "hand.ply", [])
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("side", ["right", "left"])
def test_the_picture_is_what_rays_meet(side: str) -> None:
    """Depth of a pixel: the first triangle that the ray through its centre meets, by brute force."""
    hand = posed(side)
    vertices, faces = hand.vertices_mm.astype(np.float64), hand_faces(hand)
    depth, shade = render(vertices, faces, CAMERA, (160, 120))
    corners = vertices[faces]
    edge_1, edge_2 = corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]
    random = np.random.default_rng(0)
    inside = np.argwhere(depth > 0)
    pixels = np.concatenate([inside[random.integers(len(inside), size=60)], random.integers(0, 120, (60, 2))])
    for row, column in pixels:
        ray = np.array([(column - CAMERA.cx) / CAMERA.fx, (row - CAMERA.cy) / CAMERA.fy, 1.0])
        # Möller and Trumbore, from the origin.
        p = np.cross(ray, edge_2)
        determinant = (edge_1 * p).sum(1)
        safe = np.where(np.abs(determinant) > 1e-12, determinant, np.nan)
        s = -corners[:, 0]
        u = (s * p).sum(1) / safe
        q = np.cross(s, edge_1)
        v = (q @ ray) / safe
        t = (edge_2 * q).sum(1) / safe
        hits = t[(u >= 0) & (v >= 0) & (u + v <= 1) & (t > 0)]
        expected = hits.min() if len(hits) else 0.0
        assert depth[row, column] == pytest.approx(expected, abs=0.01)
    assert (shade[depth > 0] > 0.1).all()
    assert shade[depth > 0].std() > 0.03
    assert (shade[depth == 0] == 0).all()


def test_a_hand_is_drawn_over_a_picture_where_it_is() -> None:
    hand, picture = posed(), np.full((120, 160, 3), 40, np.uint8)
    drawn = draw_hands(picture, [hand])
    depth, _ = render(hand.vertices_mm, hand_faces(hand), CAMERA, (160, 120))
    changed = (drawn != picture).any(-1)
    assert changed[depth > 0].mean() > 0.99
    far = depth == 0
    far[1:] &= depth[:-1] == 0
    far[:-1] &= depth[1:] == 0
    far[:, 1:] &= depth[:, :-1] == 0
    far[:, :-1] &= depth[:, 1:] == 0
    assert not changed[far].any()
    assert (picture == 40).all()
    # Enlarged three times it covers three times as much along each side.
    large = draw_hands(np.full((360, 480, 3), 40, np.uint8), [hand], factor=3)
    covered = (large != 40).any(-1)
    assert covered.mean() == pytest.approx((depth > 0).mean(), rel=0.05)
    rows, columns = np.nonzero(covered)
    assert rows.mean() / 3 == pytest.approx(np.nonzero(depth)[0].mean() + 1 / 3, abs=0.3)
    assert columns.mean() / 3 == pytest.approx(np.nonzero(depth)[1].mean() + 1 / 3, abs=0.3)


def test_hands_without_mesh_or_camera_are_not_drawn() -> None:
    picture = np.zeros((12, 16, 3), np.uint8)
    for hand in (replace(posed(), vertices_mm=None), replace(posed(), camera=None)):
        assert draw_hands(picture, [hand]) is picture


def test_a_mesh_partly_behind_the_camera_draws_no_rubbish() -> None:
    hand = posed()
    moved = hand.vertices_mm.astype(np.float64) - [0, 0, 480]
    depth, _ = render(moved, hand_faces(hand), CAMERA, (160, 120))
    assert np.isfinite(depth).all()
    assert depth.max() <= moved[:, 2].max() + 1e-6


def test_faces_of_the_open_hand_are_its_models(tmp_path: Path) -> None:
    model = load_open_hand()
    np.testing.assert_array_equal(hand_faces(posed(), model), model.faces)
    np.testing.assert_array_equal(hand_faces(posed("left"), model), model.mirrored().faces)


@pytest.mark.parametrize("side", ["right", "left"])
def test_a_mesh_is_fitted_to_joints(side: str) -> None:
    layer = HandLayer(load_open_hand(), side=side)
    pose = torch.zeros(1, 48)
    pose[0, :3] = torch.tensor([0.4, 1.2, -0.8])
    pose.view(1, 16, 3)[:, 1:13, 2] = 0.6 if side == "right" else -0.6  # fingers half closed
    truth = layer(torch.full((1, 10), 0.5), pose, torch.tensor([[20.0, -30.0, 600.0]]))
    joints_mm = truth.joints_mm[0].numpy()
    hand = with_mesh(Hand(side, 1.0, np.zeros((21, 2)), np.zeros(4), joints_mm=joints_mm))
    error = np.linalg.norm(hand.vertices_mm - truth.vertices_mm[0].numpy(), axis=1)
    assert error.mean() < 3
    # Faces look outwards for both sides.
    assert trimesh.Trimesh(hand.vertices_mm, hand_faces(hand), process=False).volume > 0
    # Who has pose and shape needs no fit.
    again = with_mesh(replace(hand, vertices_mm=None))
    np.testing.assert_allclose(again.vertices_mm, hand.vertices_mm, atol=1e-3)
    assert again.pose is hand.pose
    # A person's shape is kept as given.
    known = with_mesh(replace(hand, vertices_mm=None), shape=np.full(10, 0.5))
    np.testing.assert_allclose(known.shape, 0.5, atol=1e-6)


def test_a_hand_without_millimetres_gets_no_mesh() -> None:
    flat = Hand("right", 1.0, np.zeros((21, 2)), np.zeros(4))
    relative = replace(flat, joints_mm=np.ones((21, 3)), frame=RELATIVE_FRAME)
    for hand in (flat, relative):
        with pytest.raises(InputError, match="a mesh needs joints in millimetres"):
            with_mesh(hand)
