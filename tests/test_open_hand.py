"""The shipped hand: a sound mesh, published proportions, joints that bend the right way and stay full."""

import dataclasses
import importlib
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.spatial import cKDTree
from scipy.spatial.transform import Rotation

from handgraph.hand_model import HandLayer, load_open_hand

ROOT = Path(__file__).resolve().parents[1]
NPZ = ROOT / "src/handgraph/hand_model/open_hand.npz"
# Model joints (MANO order) of each finger, knuckle outwards.
CHAIN = {
    "index": (1, 2, 3),
    "middle": (4, 5, 6),
    "little": (7, 8, 9),
    "ring": (10, 11, 12),
    "thumb": (13, 14, 15),
}
# Canonical joints (thumb first) of each finger, for what HandLayer returns.
CANONICAL = {
    "thumb": (1, 2, 3, 4),
    "index": (5, 6, 7, 8),
    "middle": (9, 10, 11, 12),
    "ring": (13, 14, 15, 16),
}
CANONICAL["little"] = (17, 18, 19, 20)
# Mean bone lengths, mm (Buryanov & Kotiuk 2010): proximal, middle, distal phalanx; thumb without a middle.
PUBLISHED_MM = {
    "index": (39.8, 22.4, 15.8),
    "middle": (44.6, 26.3, 17.4),
    "ring": (41.4, 25.7, 17.3),
    "little": (32.7, 18.1, 16.0),
    "thumb": (46.2, 31.6, 21.7),
}


@pytest.fixture(scope="module")
def arrays():
    with np.load(NPZ, allow_pickle=False) as data:
        return {key: data[key] for key in data.files}


@pytest.fixture(scope="module")
def layer():
    return HandLayer(load_open_hand(), dtype=torch.float64)


def tool(name):
    """A module of tools/, which is no package."""
    sys.path.insert(0, str(ROOT / "tools"))
    try:
        return importlib.import_module(name)
    finally:
        sys.path.remove(str(ROOT / "tools"))


def posed(layer, angles=None, shape=None):
    """Vertices and canonical joints, mm, from anatomical angles (15, 3) composed here independently."""
    pose = np.zeros((16, 3))
    if angles is not None:
        axes = np.asarray(layer.model.joint_axes, dtype=float)
        for j in range(15):
            turn = [Rotation.from_rotvec(axes[j, i] * angles[j, i]) for i in range(3)]
            pose[j + 1] = (turn[0] * turn[1] * turn[2]).as_rotvec()
    beta = (
        torch.zeros(10, dtype=torch.float64) if shape is None else torch.as_tensor(shape, dtype=torch.float64)
    )
    mesh = layer(beta, torch.as_tensor(pose.reshape(48)))
    return mesh.vertices_mm.numpy(), mesh.joints_mm.numpy()


def volume_mm3(vertices, faces):
    a, b, c = (vertices[faces[:, i]] for i in range(3))
    return float((np.cross(a, b) * c).sum() / 6)


def flexed(**degrees):
    """Angles with the named finger's three flexions set, in degrees."""
    angles = np.zeros((15, 3))
    for finger, values in degrees.items():
        angles[[j - 1 for j in CHAIN[finger]], 0] = np.radians(values)
    return angles


def directed_edges(faces):
    return np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]])


def crossing_triangles(vertices, faces):
    """Pairs of triangles without a common vertex of which an edge of one pierces the other."""
    triangles = vertices[faces]
    centres = triangles.mean(1)
    radius = np.linalg.norm(triangles - centres[:, None], axis=2).max(1)
    first, second = cKDTree(centres).query_pairs(2 * radius.max(), output_type="ndarray").T
    close = np.linalg.norm(centres[first] - centres[second], axis=1) <= radius[first] + radius[second]
    first, second = first[close], second[close]
    apart = ~(faces[first][:, :, None] == faces[second][:, None, :]).any((1, 2))
    first, second = first[apart], second[apart]
    count = 0
    for f, g in ((first, second), (second, first)):
        a, b, c = (triangles[g][:, i] for i in range(3))
        for i in range(3):
            start = triangles[f][:, i]
            along = triangles[f][:, (i + 1) % 3] - start
            normal = np.cross(along, c - a)
            det = ((b - a) * normal).sum(1)
            det = np.where(np.abs(det) < 1e-12, np.inf, det)
            u = ((start - a) * normal).sum(1) / det
            q = np.cross(start - a, b - a)
            v, t = (along * q).sum(1) / det, ((c - a) * q).sum(1) / det
            count += int(((u > 0) & (v > 0) & (u + v < 1) & (t > 0) & (t < 1)).sum())
    return count


def test_file_is_small_and_plain(arrays):
    assert NPZ.stat().st_size < 1.5e6
    assert all(array.dtype.kind in "fiU" for array in arrays.values())
    count = len(arrays["v_template"])
    assert 700 <= count <= 2000
    shapes = {key: array.shape for key, array in arrays.items()}
    assert shapes["shapedirs"] == (count, 3, 10)
    assert shapes["posedirs"] == (count, 3, 135)
    assert shapes["J_regressor"] == (16, count)
    assert shapes["weights"] == (count, 16)
    assert shapes["joint_axes"] == (15, 3, 3)
    assert shapes["joint_limits"] == (15, 3, 2)
    assert len(set(arrays["shape_names"])) == 10


def test_mesh_is_closed_oriented_and_free_of_crossings(arrays):
    vertices, faces = arrays["v_template"] * 1000.0, arrays["faces"].astype(int)
    edges = directed_edges(faces)
    code = edges[:, 0] * len(vertices) + edges[:, 1]
    reverse = edges[:, 1] * len(vertices) + edges[:, 0]
    assert len(np.unique(code)) == len(code), "an edge is used twice in the same direction"
    assert np.isin(reverse, code).all(), "an edge has no opposite"
    assert len(np.unique(faces)) == len(vertices), "a vertex belongs to no face"
    assert len(vertices) - len(edges) // 2 + len(faces) == 2, "not a topological sphere"
    # Outward faces: positive volume, that of an adult hand (about 0.3 l); reversed faces read negative.
    assert 2.4e5 < volume_mm3(vertices, faces) < 4.2e5
    assert volume_mm3(vertices, faces[:, ::-1]) < 0
    assert crossing_triangles(vertices, faces) == 0
    # The check itself sees a crossing: push the index fingertip into the middle finger.
    crossed = vertices.copy()
    tips = arrays["tip_vertices"]
    crossed[tips[1]] = vertices[tips[2]] + [25.0, 0.0, 0.0]
    assert crossing_triangles(crossed, faces) > 0


def test_rows_sum_to_one_and_weights_are_few(arrays):
    weights = arrays["weights"]
    np.testing.assert_allclose(weights.sum(1), 1, atol=1e-6)
    np.testing.assert_allclose(arrays["J_regressor"].sum(1), 1, atol=1e-5)
    assert weights.min() >= 0
    assert (weights > 0).sum(1).max() <= 4
    # No bleeding: each fingertip belongs to its own finger alone, wholly.
    for tip, finger in zip(
        arrays["tip_vertices"], ("thumb", "index", "middle", "ring", "little"), strict=True
    ):
        assert weights[tip, CHAIN[finger][2]] > 0.99


def test_wrist_ring_is_an_ordered_planar_ellipse(arrays):
    ring = arrays["wrist_ring"]
    points = arrays["v_template"][ring] * 1000
    assert np.ptp(points[:, 0]) < 1e-3
    assert 8 < points[0, 0] < 20, "a little proximal of the wrist joint, away from the fingers"
    np.testing.assert_allclose(np.ptp(points, axis=0)[1:], (40, 58), atol=0.5)
    np.testing.assert_allclose((points[:, 1] / 20) ** 2 + (points[:, 2] / 29) ** 2, 1, atol=1e-3)
    edges = {tuple(edge) for edge in directed_edges(arrays["faces"]).tolist()}
    assert all((int(a), int(b)) in edges for a, b in zip(ring, np.roll(ring, -1), strict=True))


def test_joints_lie_at_published_distances(layer):
    _, joints = posed(layer)
    for finger, published in PUBLISHED_MM.items():
        lengths = np.linalg.norm(np.diff(joints[list(CANONICAL[finger])], axis=0), axis=1)
        # Centres of rotation lie inside the heads of the bones, so segments may be a little longer.
        assert np.all(lengths[:2] - published[:2] > -0.5), finger
        assert np.all(lengths[:2] - published[:2] < 3), finger
        # The skin's tip lies 3-8 mm beyond the bare distal bone and its head.
        assert 3 < lengths[2] - published[2] < 8, finger


def test_regressed_joints_follow_the_designed_ones_in_every_shape(arrays):
    skeleton = tool("open_hand_skeleton").build_skeleton()
    rest = arrays["v_template"] * 1000.0
    _, designed = tool("open_hand_skinning").shape_fields(skeleton, rest, arrays["faces"], arrays["weights"])
    rng = np.random.default_rng(2)
    for shape in (np.zeros(10), *np.eye(10) * 3, *rng.choice([-2.0, 2.0], (8, 10))):
        regressed = arrays["J_regressor"] @ (rest + arrays["shapedirs"] * 1000.0 @ shape)
        np.testing.assert_allclose(regressed, skeleton.joints + designed @ shape, atol=0.01)


def test_hand_has_adult_proportions(layer):
    vertices, joints = posed(layer)
    assert 178 < -vertices[:, 0].min() < 194, "hand length"
    palm = vertices[(np.abs(vertices[:, 0] + 80) < 10) & (vertices[:, 2] < 40)]
    assert 78 < np.ptp(palm[:, 2]) < 90, "breadth at the knuckles"
    knuckle = vertices[(np.abs(vertices[:, 0] + 85) < 5) & (np.abs(vertices[:, 2] - 3) < 5)]
    assert 25 < np.ptp(knuckle[:, 1]) < 32, "thickness at the middle knuckle"
    # The knuckles lie on an arc, the middle one highest, the little one lowest.
    height = joints[[5, 9, 13, 17], 1]
    assert height[1] == height.max()
    assert height[3] == height.min()
    # The middle finger reaches furthest, then ring and index, little and thumb last.
    reach = -joints[[4, 8, 12, 16, 20], 0]
    assert reach.argmax() == 2
    assert sorted(reach)[:2] == sorted([reach[0], reach[4]])


def test_it_is_a_right_hand(layer):
    """Fingers x palm gives the thumb's side on a right hand; a mirrored hand gives the other."""

    def thumb_side(vertices_layer):
        _, joints = posed(vertices_layer)
        _, closed = posed(vertices_layer, flexed(index=(60, 60, 30), middle=(60, 60, 30), ring=(60, 60, 30)))
        fingers = joints[9] - joints[0]
        palmar = (closed[[8, 12, 16]] - joints[[8, 12, 16]]).mean(0)
        palmar -= fingers * (palmar @ fingers) / (fingers @ fingers)
        return np.dot(np.cross(fingers, palmar), joints[4] - joints[9])

    assert thumb_side(layer) > 0
    assert thumb_side(HandLayer(load_open_hand(), side="left", dtype=torch.float64)) < 0
    _, joints = posed(layer)
    assert joints[4, 2] > joints[5, 2] > joints[9, 2] > joints[13, 2] > joints[17, 2]


def test_axes_are_frames_and_positive_flexion_closes(arrays, layer):
    axes = arrays["joint_axes"].astype(float)
    np.testing.assert_allclose(axes @ axes.transpose(0, 2, 1), np.tile(np.eye(3), (15, 1, 1)), atol=1e-5)
    np.testing.assert_allclose(np.linalg.det(axes), 1, atol=1e-5)
    _, rest = posed(layer)
    for finger in ("index", "middle", "ring", "little"):
        tip = CANONICAL[finger][3]
        assert posed(layer, flexed(**{finger: (40, 40, 20)}))[1][tip, 1] < rest[tip, 1] - 20
        assert posed(layer, flexed(**{finger: (-20, 0, 0)}))[1][tip, 1] > rest[tip, 1] + 10
        # Positive abduction turns a finger towards the thumb.
        angles = np.zeros((15, 3))
        angles[CHAIN[finger][0] - 1, 1] = 0.2
        assert posed(layer, angles)[1][tip, 2] > rest[tip, 2] + 5
        # The twist axis runs along the bone.
        along = rest[CANONICAL[finger][1]] - rest[CANONICAL[finger][0]]
        np.testing.assert_allclose(axes[CHAIN[finger][0] - 1, 2], along / np.linalg.norm(along), atol=1e-3)


def test_limits_are_anatomical(arrays):
    limits = np.degrees(arrays["joint_limits"])
    assert (limits[..., 0] <= 0).all()
    assert (limits[..., 1] >= 0).all()
    for finger in ("index", "middle", "ring", "little"):
        mcp, pip, dip = (j - 1 for j in CHAIN[finger])
        np.testing.assert_allclose(limits[[mcp, pip, dip], 0], [(-20, 90), (0, 105), (-5, 80)], atol=1e-3)
        # Hinges hardly move sideways; knuckles do.
        assert np.abs(limits[[pip, dip], 1:]).max() < 5
        assert limits[mcp, 1, 1] - limits[mcp, 1, 0] >= 30


def test_fist_closes_and_fingers_converge(layer):
    closed = flexed(index=(80, 95, 55), middle=(80, 95, 55), ring=(80, 95, 55), little=(80, 95, 55))
    vertices, joints = posed(layer, closed)
    _, rest = posed(layer)
    tips, open_tips = joints[[8, 12, 16, 20]], rest[[8, 12, 16, 20]]
    # Fingertips are drawn in between heel and knuckles, in front of the palm.
    assert (tips[:, 0] > -70).all()
    assert (tips[:, 1] < -10).all()
    assert np.ptp(tips[:, 2]) < 0.75 * np.ptp(open_tips[:, 2])
    # Skin touches the palm within a few millimetres, neither hovering nor sinking in.
    weights = layer.model.weights
    palm = cKDTree(vertices[weights[:, 0] > 0.95])
    for finger in ("index", "middle", "ring", "little"):
        gap = palm.query(vertices[weights[:, CHAIN[finger][2]] > 0.9])[0].min()
        assert gap < 16, finger


@pytest.mark.parametrize(
    ("finger", "bend", "sideways", "thumb"),
    [
        ("index", (34, 51, 31), -11, (40, -10, 10, -8, -15)),
        ("middle", (37, 63, 38), -11, (40, -12, 10, 15, -15)),
        ("little", (63, 63, 38), 11, (38, -19, 10, 43, 59)),
    ],
)
def test_thumb_opposes_the_fingers_within_its_limits(arrays, layer, finger, bend, sideways, thumb):
    angles = flexed(**{finger: bend})
    angles[CHAIN[finger][0] - 1, 1] = np.radians(sideways)
    angles[12] = np.radians(thumb[:3])
    angles[[13, 14], 0] = np.radians(thumb[3:])
    limits = arrays["joint_limits"]
    assert ((angles >= limits[..., 0] - 1e-6) & (angles <= limits[..., 1] + 1e-6)).all()
    vertices, _ = posed(layer, angles)
    weights = layer.model.weights
    last = [vertices[weights[:, CHAIN[name][2]] > 0.95] for name in ("thumb", finger)]
    gap = cKDTree(last[0]).query(last[1])[0].min()
    assert gap < 4, "skin meets skin"
    # At rest the same two are a hand's breadth apart.
    rest, _ = posed(layer)
    far = [rest[weights[:, CHAIN[name][2]] > 0.95] for name in ("thumb", finger)]
    assert cKDTree(far[0]).query(far[1])[0].min() > 30


def test_correctives_vanish_at_rest_and_keep_bent_joints_full(arrays, layer):
    model, faces = layer.model, arrays["faces"].astype(int)
    vertices, _ = posed(layer)
    np.testing.assert_allclose(vertices, model.v_template * 1000, atol=1e-9)

    bare = HandLayer(dataclasses.replace(model, posedirs=np.zeros_like(model.posedirs)), dtype=torch.float64)
    rest = volume_mm3(vertices, faces)
    for finger in CHAIN:
        limit = np.degrees(arrays["joint_limits"][[j - 1 for j in CHAIN[finger]], 0, 1])
        for k in range(3):
            bend = np.where(np.arange(3) == k, np.minimum(limit, 90), 0)
            with_correctives = volume_mm3(posed(layer, flexed(**{finger: bend}))[0], faces)
            without = volume_mm3(posed(bare, flexed(**{finger: bend}))[0], faces)
            # Plain skinning loses volume at a bend; the correctives win back a good part of it.
            assert without < rest
            assert rest - with_correctives < 0.75 * (rest - without), (finger, k)


def test_poses_within_limits_keep_volume_and_edges(arrays, layer):
    faces, limits = arrays["faces"].astype(int), arrays["joint_limits"].astype(float)
    rng = np.random.default_rng(0)
    edges = np.unique(np.sort(directed_edges(faces), 1), axis=0)
    rest, _ = posed(layer)

    def lengths(vertices):
        return np.linalg.norm(vertices[edges[:, 0]] - vertices[edges[:, 1]], axis=1)

    for _ in range(24):
        angles = rng.uniform(limits[..., 0], limits[..., 1])
        vertices, _ = posed(layer, angles)
        assert 0.93 < volume_mm3(vertices, faces) / volume_mm3(rest, faces) < 1.05
        stretch = lengths(vertices) / lengths(rest)
        assert np.percentile(stretch, 99) < 1.75
        assert stretch.max() < 4, "skin of a web between an open and a closed finger"
        assert np.percentile(stretch, 1) > 0.4


SHAPE_EFFECTS = {
    "overall size": "size",
    "finger length against palm length": "finger_over_palm",
    "palm breadth": "breadth",
    "thickness of palm and fingers": "thickness",
    "finger girth": "girth",
    "thumb length": "thumb",
    "index against ring finger length": "index_over_ring",
    "little finger length": "little",
    "proximal against distal phalanges": "proximal_over_distal",
    "soft tissue (thenar, hypothenar, pads)": "volume",
}


def measures(layer, faces, shape):
    """Named measures of a shape at rest, mm (ratios without unit, volume in cm³)."""
    vertices, joints = posed(layer, shape=shape)
    weights = layer.model.weights

    def along(finger, first=0, last=3):
        points = joints[list(CANONICAL[finger])][first : last + 1]
        return np.linalg.norm(np.diff(points, axis=0), axis=1).sum()

    fingers = ("index", "middle", "ring", "little")
    axis = layer.model.joint_axes[CHAIN["middle"][1] - 1].astype(float)
    phalanx = vertices[weights[:, CHAIN["middle"][1]] > 0.95] @ axis.T
    palm = vertices[weights[:, 0] > 0.98]
    palm = palm[palm[:, 0] < 0]
    proximal = sum(along(f, 0, 1) for f in fingers)
    distal = sum(along(f, 1, 3) for f in fingers)
    return {
        "size": -vertices[:, 0].min(),
        "finger_over_palm": along("middle") / np.linalg.norm(joints[9]),
        "breadth": np.linalg.norm(joints[5] - joints[17]),
        "thickness": np.ptp(palm[:, 1]),
        "girth": np.ptp(phalanx[:, 0]),
        "thumb": along("thumb"),
        "index_over_ring": along("index") / along("ring"),
        "little": along("little"),
        "proximal_over_distal": proximal / distal,
        "volume": volume_mm3(vertices, faces) / 1000,
    }


def test_shape_parameters_do_what_their_names_say(arrays, layer):
    faces, names = arrays["faces"].astype(int), [str(name) for name in arrays["shape_names"]]
    assert names == list(SHAPE_EFFECTS)
    mean = measures(layer, faces, np.zeros(10))
    change = {}
    for k, name in enumerate(names):
        more, less = (measures(layer, faces, sign * np.eye(10)[k]) for sign in (1, -1))
        change[name] = {key: (more[key] - less[key]) / (2 * mean[key]) for key in mean}
        assert 0.008 < change[name][SHAPE_EFFECTS[name]] < 0.09, (name, change[name])
    # One standard deviation of size is 5.5 % in every length.
    for key in ("size", "breadth", "thumb", "little", "girth"):
        assert change["overall size"][key] == pytest.approx(0.055, abs=0.004)
    # What a name does not mention stays: bones under girth and soft tissue, the palm under finger lengths.
    for name in ("finger girth", "soft tissue (thenar, hypothenar, pads)", "thickness of palm and fingers"):
        assert abs(change[name]["little"]) < 0.012
        assert abs(change[name]["breadth"]) < 0.012
    assert abs(change["thumb length"]["little"]) < 1e-3
    assert abs(change["little finger length"]["thumb"]) < 1e-3
    # Combined extremes still give a hand: positive volume and nowhere turned inside out.
    rng = np.random.default_rng(1)
    for _ in range(8):
        vertices, _ = posed(layer, shape=rng.choice([-2.0, 2.0], 10))
        assert volume_mm3(vertices, faces) > 1.3e5
        assert crossing_triangles(vertices, faces) == 0


def test_pose_components_are_orthonormal_and_ordered(arrays):
    rows, std = arrays["hands_components"].astype(float), arrays["components_std"]
    np.testing.assert_allclose(rows @ rows.T, np.eye(45), atol=1e-4)
    assert (np.diff(std) <= 1e-6).all()
    assert std[-1] > 0
    # The first component opens and closes: it flexes every knuckle and middle joint the same way.
    turn = rows[0].reshape(15, 3)
    flexion = (turn * arrays["joint_axes"][:, 0]).sum(1)[[0, 1, 3, 4, 6, 7, 9, 10]]
    assert (np.sign(flexion) == np.sign(flexion[0])).all()
    assert (std[:10] ** 2).sum() > 0.9 * (std**2).sum()


@pytest.mark.slow
def test_the_build_gives_the_shipped_arrays(arrays):
    rebuilt = tool("build_open_hand").build()
    assert rebuilt.keys() == arrays.keys()
    for key, array in arrays.items():
        if array.dtype.kind == "f":
            np.testing.assert_allclose(rebuilt[key], array, atol=2e-5, err_msg=key)
        else:
            np.testing.assert_array_equal(rebuilt[key], array, err_msg=key)
