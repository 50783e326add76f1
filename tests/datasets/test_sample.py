from pathlib import Path

import numpy as np
import pytest

from handgraph.camera import PinholeCamera
from handgraph.datasets import Sample
from handgraph.errors import FormatError
from handgraph.skeleton import MSRA

CAMERA = PinholeCamera(241.0, 241.0, 160.0, 120.0)


def sample(**changes):
    fields = {
        "frame": "7",
        "source": Path("a.png"),
        "order": MSRA,
        "keypoints_px": np.ones((21, 2)),
        "joints_mm": np.full((21, 3), 300.0),
        "depth_mm": np.zeros((4, 5)),
        "camera": CAMERA,
    }
    return Sample(**{**fields, **changes})


def test_holds_float32_and_keeps_what_it_is_given():
    depth = np.ones((4, 5), np.float32)
    made = sample(depth_mm=depth)
    assert made.depth_mm is depth
    assert made.joints_mm.dtype == made.keypoints_px.dtype == np.float32
    canonical = made.order.to_canonical(made.joints_mm)
    assert canonical.shape == (21, 3)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"keypoints_px": np.ones((14, 2))}, r"keypoints_px has shape \(14, 2\), expected \(21, 2\)"),
        ({"joints_mm": np.full((21, 3), np.inf)}, "joints_mm holds a number that is not finite"),
        ({"joints_mm": np.full((21, 3), np.nan)}, "no joint has a finite label"),
        ({"joints_mm": np.full((21, 3), -300.0)}, "joints lie -300 to -300 mm from the camera"),
        ({"joints_mm": np.full((21, 3), "x")}, "joints_mm holds something that is not a number"),
        ({"depth_mm": np.full((4, 5), np.nan)}, "depth_mm holds a number that is not finite"),
        ({"depth_mm": np.full((4, 5), -1.0)}, "depth holds negative millimetres"),
        ({"depth_mm": None}, "there is neither a colour nor a depth image"),
        ({"camera": None}, "a depth image needs its camera"),
        ({"image": np.zeros((4, 5), np.uint8)}, r"image is uint8 \(4, 5\), expected uint8"),
        ({"visible": np.ones(21)}, r"visible is float64 \(21,\), expected bool \(21,\)"),
        ({"center_mm": np.array([0, np.nan, 1])}, "center_mm holds a number that is not finite"),
        ({"cube_mm": -3.0}, "crop cube of -3.0 mm"),
        ({"box_px": np.array([3, 4, 0, 7])}, "crop box of 0x7 pixels"),
        ({"box_px": np.array([3, 4, np.nan, 7])}, "box_px holds a number that is not finite"),
        ({"pose": np.zeros(45)}, r"pose has shape \(45,\), expected \(48\)"),
    ],
)
def test_what_cannot_be_is_refused(changes, message):
    with pytest.raises(FormatError, match=rf"^a\.png \(frame 7\): {message}"):
        sample(**changes)
