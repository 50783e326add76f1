"""The graph is a tree of the right bones, and every data set's joint order is the published one."""

import numpy as np
import pytest

import handgraph as hg
from handgraph import skeleton
from handgraph.skeleton import BONES, FINGERS, JOINT_NAMES, JOINT_ORDERS, LEVELS, PARENTS, JointOrder


def test_names_are_the_canonical_ones():
    assert JOINT_NAMES == (
        "wrist",
        "thumb_cmc", "thumb_mcp", "thumb_ip", "thumb_tip",
        "index_mcp", "index_pip", "index_dip", "index_tip",
        "middle_mcp", "middle_pip", "middle_dip", "middle_tip",
        "ring_mcp", "ring_pip", "ring_dip", "ring_tip",
        "little_mcp", "little_pip", "little_dip", "little_tip",
    )  # fmt: skip


def test_parents_bones_and_levels_agree():
    assert PARENTS == (-1, 0, 1, 2, 3, 0, 5, 6, 7, 0, 9, 10, 11, 0, 13, 14, 15, 0, 17, 18, 19)
    assert [child for _, child in BONES] == list(range(1, 21))
    for level, joints in enumerate(LEVELS):
        parents = {PARENTS[joint] for joint in joints}
        assert parents == ({0} if level == 0 else set(LEVELS[level - 1]))
    assert skeleton.TIPS == (4, 8, 12, 16, 20)


@pytest.mark.parametrize("joints", [14, 16, 21])
def test_edges_are_a_tree(joints):
    edges = skeleton.edges(joints)
    assert len(edges) == joints - 1
    reached = {0}
    for _ in range(joints):
        reached |= {b for a, b in edges if a in reached} | {a for a, b in edges if b in reached}
    assert reached == set(range(joints))


def test_nyu14_edges_join_each_finger_to_the_palm():
    names = [name.replace("_knu3_a", "_tip").replace("_knu2_b", "_mid") for name in skeleton.NYU14.names]
    edges = {frozenset((names[a], names[b])) for a, b in skeleton.NYU14_EDGES}
    for finger in FINGERS[1:]:
        assert {
            frozenset((f"{finger}_tip", f"{finger}_mid")),
            frozenset((f"{finger}_mid", "palm_3")),
        } <= edges
    assert frozenset(("palm_1", "palm_3")) in edges
    assert frozenset(("palm_2", "palm_3")) in edges


def test_adjacency_is_the_symmetric_matrix_of_the_bones():
    matrix = skeleton.adjacency(21, BONES)
    np.testing.assert_array_equal(matrix, matrix.T)
    assert matrix.trace() == 0
    assert matrix.sum() == 40
    np.testing.assert_array_equal(np.flatnonzero(matrix[0]), [1, 5, 9, 13, 17])
    np.testing.assert_array_equal(np.flatnonzero(matrix[6]), [5, 7])


# For each canonical joint the data set's own number, as the data sets' documents and readers give them.
GATHER = {
    "openpose": list(range(21)),
    "dexycb": list(range(21)),
    "rhd": [0, 4, 3, 2, 1, 8, 7, 6, 5, 12, 11, 10, 9, 16, 15, 14, 13, 20, 19, 18, 17],
    "stb": [-1, 17, 18, 19, 20, 13, 14, 15, 16, 9, 10, 11, 12, 5, 6, 7, 8, 1, 2, 3, 4],
    "stb_wrist": [0, 17, 18, 19, 20, 13, 14, 15, 16, 9, 10, 11, 12, 5, 6, 7, 8, 1, 2, 3, 4],
    "mhp": [-1, 17, 16, 18, 19, 1, 0, 2, 3, 5, 4, 6, 7, 13, 12, 14, 15, 9, 8, 10, 11],
    "mhp_21": [20, 17, 16, 18, 19, 1, 0, 2, 3, 5, 4, 6, 7, 13, 12, 14, 15, 9, 8, 10, 11],
    "msra": [0, 17, 18, 19, 20, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16],
    "mano": [0, 13, 14, 15, 16, 1, 2, 3, 17, 4, 5, 6, 18, 10, 11, 12, 19, 7, 8, 9, 20],
    "nyu36": [-1, 28, 27, 25, 24, 22, 21, 19, 18, 16, 15, 13, 12, 10, 9, 7, 6, 4, 3, 1, 0],
    "nyu14": [-1, -1, 10, 9, 8, -1, 7, -1, 6, -1, 5, -1, 4, -1, 3, -1, 2, -1, 1, -1, 0],
    "icvl16": [-1, -1, 1, 2, 3, 4, 5, -1, 6, 7, 8, -1, 9, 10, 11, -1, 12, 13, 14, -1, 15],
    "interhand": [20, 3, 2, 1, 0, 7, 6, 5, 4, 11, 10, 9, 8, 15, 14, 13, 12, 19, 18, 17, 16],
}
every_order = pytest.mark.parametrize("order", JOINT_ORDERS.values(), ids=JOINT_ORDERS.keys())


@every_order
def test_order_is_the_published_one(order):
    assert order.gather.tolist() == GATHER[order.name]


def test_every_order_is_written_out_here():
    assert GATHER.keys() == JOINT_ORDERS.keys()


def test_nyu14_is_the_published_selection_of_36():
    assert skeleton.NYU14_OF_36 == (0, 3, 6, 9, 12, 15, 18, 21, 24, 25, 27, 30, 31, 32)
    assert len(skeleton.NYU36.names) == 36


@every_order
def test_joints_carry_the_name_they_are_mapped_to(order):
    """The finger a data set names is the finger of the canonical joint, whatever it calls the parts."""
    for name, canonical in zip(order.names, order.canonical, strict=True):
        if canonical >= 0:
            assert name.split("_")[0] == JOINT_NAMES[canonical].split("_")[0]
            assert name.endswith(("tip", "knu3_a")) == JOINT_NAMES[canonical].endswith("tip")


@every_order
def test_order_round_trips(order, rng):
    theirs = rng.normal(size=(2, len(order.names), 3))
    ours = order.to_canonical(theirs)
    assert ours.shape == (2, 21, 3)
    np.testing.assert_array_equal(np.flatnonzero(~np.isnan(ours[0, :, 0])), order.shared)
    for raw, joint in enumerate(order.canonical):
        if joint >= 0:
            np.testing.assert_array_equal(ours[:, joint], theirs[:, raw])
    back = order.from_canonical(ours)
    known = np.array(order.canonical) >= 0
    np.testing.assert_array_equal(back[:, known], theirs[:, known])
    assert np.isnan(back[:, ~known]).all()
    assert order.complete == known[:21].all() == (len(order.shared) == 21)


def test_incomplete_orders_are_those_without_a_wrist():
    incomplete = {name for name, order in JOINT_ORDERS.items() if not order.complete}
    assert incomplete == {"stb", "mhp", "icvl16", "nyu36", "nyu14"}
    assert all(0 not in JOINT_ORDERS[name].shared for name in incomplete)


def test_whole_numbers_become_float_only_where_nan_is_needed():
    pixels = np.arange(42).reshape(21, 2)
    assert skeleton.RHD.to_canonical(pixels).dtype == pixels.dtype
    assert np.isnan(skeleton.STB.to_canonical(pixels)[0]).all()


def test_wrong_number_of_joints_is_named():
    with pytest.raises(
        hg.InputError, match=r"joint order mano: expected \(\.\.\., 21, d\) joints, got \(16, 3\)"
    ):
        skeleton.MANO.to_canonical(np.zeros((16, 3)))
    with pytest.raises(
        hg.InputError, match=r"joint order nyu14: expected \(\.\.\., 21, d\) joints, got \(14, 3\)"
    ):
        skeleton.NYU14.from_canonical(np.zeros((14, 3)))
    with pytest.raises(hg.InputError, match=r"got \(21,\)"):
        skeleton.RHD.to_canonical(np.zeros(21))


def test_an_order_that_contradicts_itself_is_refused():
    with pytest.raises(ValueError, match="odd: 2 names but 1 indices"):
        JointOrder("odd", ("a", "b"), (0,))
    with pytest.raises(ValueError, match="odd: two joints claim the same canonical joint"):
        JointOrder("odd", ("a", "b"), (3, 3))
