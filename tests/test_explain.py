from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from handgraph import explain
from handgraph.camera import Crop
from handgraph.errors import InputError
from handgraph.report import joint_color
from handgraph.systems.hybrid_gcn import Config

SMALL = {"width": 4, "hidden": 16, "input_size": 64}
CROP = Crop.window((10.0, 20.0, 80.0, 80.0), 64)
IMAGE = np.random.default_rng(0).integers(0, 255, (120, 100, 3), dtype=np.uint8)


def drawn(**switches: object) -> np.ndarray:
    torch.manual_seed(0)
    output = Config(**SMALL, **switches).build().eval()(torch.randn(2, 3, 64, 64))  # type: ignore[arg-type]
    return explain.picture(IMAGE, output, CROP, index=1)


def panels(picture: np.ndarray) -> int:
    """How many panels a picture has: places whose upper left corner says something."""
    side, gap, caption = explain.PANEL, 10, 40
    count = 0
    for y in range(gap, picture.shape[0] - 1, side + caption + gap):
        for x in range(gap, picture.shape[1] - 1, side + gap):
            count += bool(picture[y : y + caption, x : x + side].max() > 200)
    return count


@pytest.mark.parametrize(
    ("switches", "count"),
    [
        ({}, 6),
        ({"refinement": "knn"}, 6),
        ({"refinement": "fc"}, 5),
        ({"refinement": "none"}, 4),
        ({"relations": False, "refinement": "none"}, 2),
        ({"overlapped": True}, 6),
    ],
    ids=str,
)
def test_a_configuration_is_shown_with_the_panels_it_has(switches: dict[str, object], count: int) -> None:
    picture = drawn(**switches)
    assert picture.dtype == np.uint8
    assert panels(picture) == count


def test_a_matrix_is_light_where_joints_are_related() -> None:
    related = np.random.default_rng(1).integers(0, 2, (21, 21)).astype(float)
    panel = explain.matrix_panel(related)
    for i in range(21):
        for j in range(21):
            x, y = explain.cell_corner(i, j)
            color = panel[y + 5, x + 5]
            if related[i, j]:
                same_finger = i > 0 and j > 0 and (i - 1) // 4 == (j - 1) // 4
                assert tuple(color) == (joint_color(i) if same_finger else (235, 238, 242))
            else:
                assert color.max() < 60
        x, y = explain.cell_corner(i, -1)
        assert tuple(panel[y + 5, x + 5]) == joint_color(i)


def test_the_joints_stand_on_the_crops_pixels() -> None:
    torch.manual_seed(0)
    output = Config(**SMALL).build().eval()(torch.randn(1, 3, 64, 64))
    # All joints at two places: the thumb's tip alone at crop pixel (48, 16), the others at (8, 56).
    uv = torch.tensor([8.0, 56.0]).expand(1, 21, 2).clone()
    uv[0, 4] = torch.tensor([48.0, 16.0])
    picture = explain.picture(np.zeros_like(IMAGE), output._replace(uv=uv / 63), CROP)
    scale = explain.PANEL / 64
    x, y = (int(10 + (48 + 0.5) * scale), int(10 + 40 + (16 + 0.5) * scale))
    np.testing.assert_allclose(picture[y - 1 : y + 2, x - 1 : x + 2].astype(int) - joint_color(4), 0, atol=2)


def test_the_picture_is_written_whole_or_refused(tmp_path: Path) -> None:
    torch.manual_seed(0)
    output = Config(**SMALL).build().eval()(torch.randn(1, 3, 64, 64))
    explain.write_picture(tmp_path / "why.png", IMAGE, output, CROP)
    read = cv2.imread(str(tmp_path / "why.png"))[..., ::-1]
    np.testing.assert_array_equal(read, explain.picture(IMAGE, output, CROP))
    with pytest.raises(InputError):
        explain.write_picture(tmp_path / "why.png" / "inside a file.png", IMAGE, output, CROP)
