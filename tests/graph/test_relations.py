"""Algorithms 1 to 4 against the paper's pseudo-code written down as it stands."""

import numpy as np
import pytest
import torch
from torch import Tensor

from handgraph.graph.relations import (
    adaptive_neighbours,
    classes_2d,
    classes_3d,
    mean_square_distances,
    nearest_neighbours,
    overlapped_2d,
    overlapped_3d,
    relations,
)

POSES = 10_000


def algorithm_1(data: np.ndarray) -> np.ndarray:
    exponentials = np.exp(data - data.max(axis=1, keepdims=True))
    probabilities = exponentials / exponentials.sum(axis=1, keepdims=True)
    labels = probabilities.argmax(axis=1)  # (b, 21) of (b, c, 21)
    matrix = []
    for i in range(21):
        values = []
        for j in range(21):
            a, b = labels[:, i], labels[:, j]
            values.append(a == b)
        matrix.append(values)
    return np.array(matrix, dtype=np.float32).transpose(2, 0, 1)


def algorithm_2(points: np.ndarray, threshold: float) -> np.ndarray:
    matrix = np.zeros((len(points), 21, 21))
    for i in range(21):
        for j in range(21):
            matrix[:, i, j] = np.mean((points[:, i] - points[:, j]) ** 2, axis=1)
    return (matrix <= threshold).astype(np.float32)


def algorithm_3(points: np.ndarray, splits: int, size: int) -> np.ndarray:
    """Of many poses (p, 21, 2) side by side, as is Algorithm 4."""
    block = int(size / splits)
    parts = list(range(0, size + block, block))
    points = points.clip(0, parts[splits])  # our only addition: a point outside is moved to the edge
    data, k = {}, 0
    for j in range(splits):
        for i in range(splits):
            data[k] = (parts[j], parts[j + 1], parts[i], parts[i + 1])
            k += 1
    classes = np.zeros((*points.shape[:2], splits**2))
    x, y = points[..., 0], points[..., 1]
    for key, (ax, bx, ay, by) in data.items():
        r = (ax <= x) & (bx >= x) & (ay <= y) & (by >= y)
        classes[r, key] = 1
    return classes.argmax(axis=-1)


def algorithm_4(points: np.ndarray, splits: int) -> np.ndarray:
    start, end = points.min(axis=1), points.max(axis=1)
    step = (end - start) / splits
    parts = [start + index * step for index in range(splits + 1)]
    # The last edge is the box's side but for a rounding, which must not leave the farthest joint outside.
    x, y, z = np.moveaxis(np.minimum(points, parts[splits][:, None]), -1, 0)
    partsx, partsy, partsz = ([part[:, axis, None] for part in parts] for axis in range(3))
    data, k = {}, 0
    for j in range(splits):
        for i in range(splits):
            for p in range(splits):
                data[k] = (partsx[j], partsx[j + 1], partsy[i], partsy[i + 1], partsz[p], partsz[p + 1])
                k += 1
    classes = np.zeros((*points.shape[:2], splits**3))
    for key, (ax, bx, ay, by, az, bz) in data.items():
        r = (ax <= x) & (bx >= x) & (ay <= y) & (by >= y) & (az <= z) & (bz >= z)
        classes[r, key] = 1
    return classes.argmax(axis=-1)


def poses_2d(random: np.random.Generator, size: int, splits: int) -> np.ndarray:
    """Poses over the image and around it, with a third of the numbers on a border and some beside one."""
    points = random.uniform(-0.3 * size, 1.3 * size, (POSES, 21, 2)).astype(np.float32)
    edges = (random.integers(0, splits + 1, points.shape) * (size // splits)).astype(np.float32)
    drawn = random.random(points.shape)
    points = np.where(drawn < 0.3, edges, points)
    beside = np.nextafter(edges, np.where(drawn < 0.35, -np.inf, np.inf).astype(np.float32))
    return np.where((drawn >= 0.3) & (drawn < 0.4), beside, points)


@pytest.mark.parametrize(("splits", "size"), [(4, 256), (3, 128), (5, 256), (2, 64)])
def test_2d_classes_are_algorithm_3_on_borders_and_outside_too(splits: int, size: int) -> None:
    poses = poses_2d(np.random.default_rng(splits), size, splits)
    ours = classes_2d(torch.from_numpy(poses), splits, size).numpy()
    np.testing.assert_array_equal(ours, algorithm_3(poses, splits, size))
    assert len(np.unique(ours)) == splits**2


@pytest.mark.parametrize("splits", [3, 4, 2, 5])
def test_3d_classes_are_algorithm_4_on_borders_too(splits: int) -> None:
    random = np.random.default_rng(splits)
    poses = random.normal(0, 2, (POSES, 21, 3))
    # Whole numbers put many joints exactly on the borders between blocks; thin and flat hands have none.
    poses[::3] = random.integers(-splits, splits + 1, poses[::3].shape)
    poses[5::50, :, 1] = 1.0
    poses = poses.astype(np.float32)
    ours = classes_3d(torch.from_numpy(poses), splits).numpy()
    np.testing.assert_array_equal(ours, algorithm_4(poses.astype(np.float64), splits))
    assert len(np.unique(ours)) == splits**3


def test_classes_count_along_x_first_and_a_border_is_the_lower_blocks() -> None:
    points = torch.tensor([[[0.0, 0.0], [64.0, 64.0], [64.1, 0.0], [0.0, 64.1], [255.0, 255.0]]])
    assert classes_2d(points, 4, 256).tolist() == [[0, 0, 4, 1, 15]]
    cube = torch.tensor([[[0.0, 0, 0], [3, 3, 3], [1.5, 0, 0], [0, 1.5, 0], [0, 0, 1.5], [1, 1, 1]]])
    assert classes_3d(cube, 3).tolist() == [[0, 26, 9, 3, 1, 0]]


def test_points_outside_belong_to_the_nearest_block() -> None:
    points = torch.tensor([[[-40.0, 100.0], [300.0, 100.0], [100.0, -1.0], [100.0, 999.0]]])
    assert classes_2d(points, 4, 256).tolist() == [[1, 13, 4, 7]]


def test_an_unknown_joint_does_not_stretch_the_box() -> None:
    pose = torch.rand(1, 21, 3, generator=torch.Generator().manual_seed(0))
    known = torch.ones(1, 21, dtype=torch.bool)
    known[0, 4] = False
    far = pose.clone()
    far[0, 4] = 1000.0
    alone = classes_3d(torch.cat([pose[:, :4], pose[:, 5:]], dim=1), 3)
    joined = classes_3d(far, 3, known)
    assert torch.equal(torch.cat([joined[:, :4], joined[:, 5:]], dim=1), alone)
    assert not torch.equal(classes_3d(far, 3), joined)


def test_relations_are_algorithm_1() -> None:
    scores = np.random.default_rng(0).normal(0, 1, (POSES, 16, 21)).astype(np.float32)
    scores[::7] = scores[::7].round()  # equal scores, of which the first counts
    ours = relations(torch.from_numpy(scores).transpose(1, 2))
    np.testing.assert_array_equal(ours.numpy(), algorithm_1(scores))


def test_adaptive_neighbours_are_algorithm_2() -> None:
    poses = np.random.default_rng(0).normal(0, 1, (POSES, 21, 3))
    threshold = torch.tensor(0.4, dtype=torch.float64)
    ours = adaptive_neighbours(mean_square_distances(torch.from_numpy(poses)), threshold, softness=0.1)
    np.testing.assert_array_equal(ours.numpy(), algorithm_2(poses, 0.4))


def test_a_distance_equal_to_the_threshold_is_near() -> None:
    points = torch.tensor([[[0.0, 0.0, 0.0], [3.0, 0.0, 0.0], [0.0, 3.1, 0.0]]])
    near = adaptive_neighbours(mean_square_distances(points), torch.tensor(3.0), softness=1.0)
    assert near.tolist() == [[[1, 1, 0], [1, 1, 0], [0, 0, 1]]]


def test_the_adaptive_graphs_degree_varies_from_joint_to_joint_and_the_nearest_ones_does_not() -> None:
    poses = torch.randn(10, 21, 3, generator=torch.Generator().manual_seed(0))
    distances = mean_square_distances(poses)
    adaptive = adaptive_neighbours(distances, torch.tensor(0.5), softness=0.1).sum(dim=-1)
    assert (adaptive.amax(dim=1) >= adaptive.amin(dim=1) + 3).all()
    assert (nearest_neighbours(distances, 5).sum(dim=-1) == 6).all()


def test_nearest_neighbours_are_oneself_and_the_nearest_others() -> None:
    poses = torch.randn(20, 21, 3, generator=torch.Generator().manual_seed(1))
    poses[:, 7] = poses[:, 3]  # on top of another: nobody is pushed out of his own neighbourhood
    distances = mean_square_distances(poses)
    ours = nearest_neighbours(distances, 5)
    for b in range(20):
        for i in range(21):
            others = sorted((j for j in range(21) if j != i), key=lambda j: float(distances[b, i, j]))
            if distances[b, i, others[4]] < distances[b, i, others[5]]:
                assert set(torch.nonzero(ours[b, i])[:, 0].tolist()) == {i, *others[:5]}
    assert (torch.diagonal(ours, dim1=1, dim2=2) == 1).all()


def test_the_thresholds_gradient_is_that_of_the_sigmoid() -> None:
    distances = torch.tensor([[[0.0, 0.3], [0.5, 0.0]]], dtype=torch.float64)
    weights = torch.tensor([[[1.0, 2.0], [-3.0, 4.0]]], dtype=torch.float64)
    threshold = torch.tensor(0.35, dtype=torch.float64, requires_grad=True)
    (adaptive_neighbours(distances, threshold, 0.1) * weights).sum().backward()

    def soft(value: float) -> Tensor:
        return (torch.sigmoid((value - distances) / 0.1) * weights).sum()

    slope = (soft(0.35 + 1e-5) - soft(0.35 - 1e-5)) / 2e-5
    assert threshold.grad is not None
    assert threshold.grad.item() == pytest.approx(slope.item(), rel=1e-6)
    assert abs(slope.item()) > 0.1


def test_overlapped_blocks_are_as_wide_and_begin_at_every_half() -> None:
    random = np.random.default_rng(0)
    points = random.uniform(0, 128, (50, 21, 2)).astype(np.float32)
    points[::4] = random.integers(0, 9, points[::4].shape) * 16
    members = overlapped_2d(torch.from_numpy(points), 4, 128).numpy()
    assert members.shape == (50, 21, 49)
    for b in range(50):
        for n in range(21):
            x, y = points[b, n]
            expected = [
                16 * i <= x <= 16 * i + 32 and 16 * j <= y <= 16 * j + 32 for i in range(7) for j in range(7)
            ]
            assert members[b, n].tolist() == expected
    outside = overlapped_2d(torch.tensor([[[-5.0, 500.0]]]), 4, 128)[0, 0]
    assert torch.nonzero(outside)[:, 0].tolist() == [6]


def test_overlapped_blocks_of_a_pose_leave_no_joint_out() -> None:
    poses = torch.randn(500, 21, 3, generator=torch.Generator().manual_seed(0))
    poses[::2] = poses[::2].round()
    members = overlapped_3d(poses, 3)
    assert members.shape == (500, 21, 125)
    count = members.sum(dim=-1)
    assert (count >= 1).all()
    assert (count <= 27).all()
    # A joint between borders is in at most two blocks an axis, and in one of them near the box's sides.
    assert set(count[1::2].unique().tolist()) == {1, 2, 4, 8}
    corner = poses[1].amin(dim=0)
    low = ((poses[1] - corner) / ((poses[1].amax(dim=0) - corner) / 3) < 0.5).all(dim=-1)
    if low.any():
        assert members[1, low].sum(dim=-1).eq(1).all()


def test_a_joint_stays_its_own_neighbour_below_a_threshold_of_zero() -> None:
    distances = mean_square_distances(torch.randn(2, 21, 3, generator=torch.Generator().manual_seed(0)))
    threshold = torch.tensor(-0.2, requires_grad=True)
    near = adaptive_neighbours(distances, threshold, 0.1)
    torch.testing.assert_close(near.round(), torch.eye(21).expand(2, 21, 21))
    near.sum().backward()
    assert threshold.grad is not None
    assert threshold.grad > 0  # and so it can come back
