"""What the labels of the benchmarks say of themselves: which hands they show, and where their centres are."""

import numpy as np
import pytest

from handgraph.datasets import icvl, msra, nyu
from handgraph.datasets.centers import read_centers


def bent_towards_left(across, up, bends):
    """(frames,) mean over fingers of how far they point out of the hand's plane; positive for a left hand.

    `across` runs from the index to the little finger, `up` from the wrist to the middle finger.
    """
    normal = np.cross(across, up)
    normal /= np.linalg.norm(normal, axis=-1, keepdims=True)
    bends = bends / np.linalg.norm(bends, axis=-1, keepdims=True)
    return np.einsum("fnk,fk->fn", bends, normal).mean(axis=1)


@pytest.mark.parametrize(("name", "left"), [("msra", False), ("nyu", False), ("icvl", True)])
def test_hands_bend_as_their_side_does(real, name, left):
    if name == "msra":  # its authors say: right hands
        j = msra.read_joints(real / "depth_msra14_joints" / "joint.txt")
        across, up = j[:, 13] - j[:, 1], j[:, 5] - j[:, 0]
        outer, inner = [4, 8, 12, 16], [2, 6, 10, 14]
    else:
        file = real / f"depth_{name}_predictions" / f"{name}_test_groundtruth_label.txt"
        joints, camera = (14, nyu.CAMERA) if name == "nyu" else (16, icvl.CAMERA)
        numbers = np.array(file.read_text().split(), dtype=np.float64)
        j = camera.xyz_from_uvd(numbers.reshape(-1, joints, 3))
        if name == "nyu":
            across, up = j[:, 1] - j[:, 7], j[:, 13] - (j[:, 11] + j[:, 12]) / 2
            outer, inner = [0, 2, 4, 6], [1, 3, 5, 7]
        else:
            across, up = j[:, 13] - j[:, 4], j[:, 7] - j[:, 0]
            outer, inner = [6, 9, 12, 15], [5, 8, 11, 14]
    bend = bent_towards_left(across, up, j[:, outer] - j[:, inner])
    clear = np.abs(bend) > 0.3
    assert clear.sum() > 200
    assert ((bend[clear] > 0) == left).mean() > 0.99


@pytest.mark.parametrize(("name", "joints", "median_mm"), [("nyu", 14, 28.4), ("icvl", 16, 41.0)])
def test_published_centres_lie_in_the_hand(real, name, joints, median_mm):
    """Region ensemble network's centres of the test frames, beside the middle of the published labels."""
    folder = real / f"depth_{name}_predictions"
    numbers = np.array((folder / f"{name}_test_groundtruth_label.txt").read_text().split(), dtype=np.float64)
    camera = (nyu if name == "nyu" else icvl).CAMERA
    middle = camera.xyz_from_uvd(numbers.reshape(-1, joints, 3)).mean(axis=1)
    centers = read_centers(folder / f"{name}_center.txt", camera, middle, axis_signs=(1.0, 1.0, 1.0))
    distance = np.linalg.norm(centers - middle, axis=1)
    assert np.median(distance) == pytest.approx(median_mm, abs=0.1)
    assert distance.max() < 70
