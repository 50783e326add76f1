"""How `hybrid_gcn` came to its answer, drawn as in Figure 4 of its paper (Kourbane & Genc 2021).

Beside the picture with its 2D joints stand the relations that each of the network's modules worked with, and
the 3D pose before and after the refinement. Everything is shown as the network sees it: the crop, in which a
left hand is mirrored.
"""

from pathlib import Path

import cv2
import numpy as np
from jaxtyping import Float, UInt8

from handgraph.camera import Crop
from handgraph.files import atomic_write
from handgraph.report import joint_color
from handgraph.skeleton import BONES, JOINT_NAMES
from handgraph.systems.hybrid_gcn import Output

PANEL = 320
"""Side of a panel in pixels."""
CELL = 12
"""Side of a matrix's cell."""
MARGIN = 34
"""From a panel's edge to its matrix; a joint's colour stands in it beside its row and above its column."""

_CAPTION = 40
_GAP = 10
_GROUND = (24, 27, 31)
_INK = (225, 228, 232)
_UNRELATED = (44, 49, 56)
_GRID = (90, 96, 104)
_FONT = cv2.FONT_HERSHEY_SIMPLEX
_JOINTS = len(JOINT_NAMES)
# The pose is turned about the vertical by this much, so that depth shows.
_VIEW = (
    cv2.Rodrigues(np.array([0.0, np.deg2rad(35.0), 0.0]))[0] @ cv2.Rodrigues(np.array([-0.25, 0.0, 0.0]))[0]
)


def picture(
    image: UInt8[np.ndarray, "h w 3"], output: Output, crop: Crop, index: int = 0
) -> UInt8[np.ndarray, "h2 w2 3"]:
    """The panels of one hand, RGB, those that its configuration has, three to a row.

    `image` is the whole photograph, `crop` the window of it that sample `index` of `output` looked at.
    """
    coarse, refined = _array(output.coarse, index) @ _VIEW.T, _array(output.refined, index) @ _VIEW.T
    extent = float(max(np.ptp(pose[:, :2], axis=0).max() for pose in (coarse, refined)))
    panels = [_captioned(_seen(image, output, crop, index), "2D joints", "in the crop, with its 2D blocks")]
    for matrix, title in ((output.relations_2d, "2D relations"), (output.relations_3d, "3D relations")):
        if matrix is not None:
            related = _array(matrix, index)
            panels.append(_captioned(matrix_panel(related), title, _counted(related)))
    panels.append(_captioned(_pose(coarse, extent), "coarse 3D", "seen from 35 degrees to the side"))
    if output.relations_near is not None:
        near = _array(output.relations_near, index)
        panels.append(_captioned(matrix_panel(near), "near in the coarse 3D", _nearness(output, near)))
    if output.refined is not output.coarse:
        moved = np.linalg.norm(refined - coarse, axis=-1).mean()
        words = f"{moved:.2f} bone lengths from the coarse on average"
        panels.append(_captioned(_pose(refined, extent), "refined 3D", words))
    return _laid_out(panels)


def write_picture(
    path: str | Path, image: UInt8[np.ndarray, "h w 3"], output: Output, crop: Crop, index: int = 0
) -> None:
    """Write `picture` as a PNG, whole or not at all. Raises InputError where it cannot be written."""
    with atomic_write(path) as part:
        part.write_bytes(cv2.imencode(".png", picture(image, output, crop, index)[..., ::-1])[1].tobytes())


def matrix_panel(related: Float[np.ndarray, "21 21"]) -> UInt8[np.ndarray, "panel panel 3"]:
    """A matrix of 0 and 1: row i, column j is light where joint i hears of joint j.

    A light cell is of the row's finger where both joints are on one finger, else white; the cells of the
    skeleton's bones are framed. Wrist first, then thumb to little finger, each from the palm to the tip.
    """
    panel = np.full((PANEL, PANEL, 3), _GROUND, np.uint8)
    for i in range(_JOINTS):
        _fill(panel, *cell_corner(i, -1), joint_color(i))
        _fill(panel, *cell_corner(-1, i), joint_color(i))
        for j in range(_JOINTS):
            one_finger = i > 0 and j > 0 and (i - 1) // 4 == (j - 1) // 4
            light = joint_color(i) if one_finger else (235, 238, 242)
            _fill(panel, *cell_corner(i, j), light if related[i, j] else _UNRELATED)
    for parent, child in BONES:
        for i, j in ((parent, child), (child, parent)):
            x, y = cell_corner(i, j)
            cv2.rectangle(panel, (x - 1, y - 1), (x + CELL - 1, y + CELL - 1), (150, 156, 164), 1)
    return panel


def cell_corner(row: int, column: int) -> tuple[int, int]:
    """x, y of the upper left pixel of a matrix cell in its panel; row or column -1 is the colour key."""
    return tuple(MARGIN + CELL * place - (4 if place < 0 else 0) for place in (column, row))  # type: ignore[return-value]


def _fill(panel: np.ndarray, x: int, y: int, color: tuple[int, int, int]) -> None:
    panel[y : y + CELL - 1, x : x + CELL - 1] = color


def _seen(image: np.ndarray, output: Output, crop: Crop, index: int) -> np.ndarray:
    """The crop, enlarged to a panel, with the blocks' borders and the 2D joints."""
    panel = cv2.resize(crop.apply_image(image), (PANEL, PANEL), interpolation=cv2.INTER_LINEAR)
    if output.scores_2d is not None:
        along = round(output.scores_2d.shape[-1] ** 0.5)
        splits = (along + 1) // 2 if bool(output.overlapped) else along
        for border in range(1, splits):
            at = round(border * PANEL / splits)
            panel[at, ::2] = panel[::2, at] = _GRID
    # The middle of a crop's pixel p is at (p + 0.5) · enlargement - 0.5 of the panel.
    points = (_array(output.uv, index) * (crop.size - 1) + 0.5) * (PANEL / crop.size) - 0.5
    _skeleton(panel, points, np.zeros(_JOINTS))
    return panel


def _pose(turned: Float[np.ndarray, "21 3"], extent: float) -> np.ndarray:
    """A 3D pose from a little to the side, beside the axes (x red, y green, z blue: the line of sight)."""
    panel = np.full((PANEL, PANEL, 3), _GROUND, np.uint8)
    for axis, color in enumerate(((200, 80, 80), (80, 180, 80), (90, 130, 230))):
        end = np.array([26, PANEL - 26]) + 18 * _VIEW[:2, axis]
        cv2.line(panel, (26, PANEL - 26), np.round(end).astype(int).tolist(), color, 2, cv2.LINE_AA)
    middle = (turned.max(axis=0) + turned.min(axis=0)) / 2
    points = (turned - middle)[:, :2] * (0.85 * PANEL / max(extent, 1e-9)) + PANEL / 2
    _skeleton(panel, points, turned[:, 2])
    return panel


def _skeleton(panel: np.ndarray, points: np.ndarray, depth: np.ndarray) -> None:
    """Bones and joints, from the farthest to the nearest."""
    shift = 4  # OpenCV's fixed point: 1/16 pixel
    fixed = np.round(np.clip(points, -20_000, 20_000) * (1 << shift)).astype(int)
    for width, dark in ((5, True), (2, False)):
        for parent, child in sorted(BONES, key=lambda bone: -depth[list(bone)].mean()):
            color = (0, 0, 0) if dark else joint_color(child)
            cv2.line(panel, fixed[parent].tolist(), fixed[child].tolist(), color, width, cv2.LINE_AA, shift)
    for joint in np.argsort(-depth, kind="stable"):
        center, color = fixed[joint].tolist(), joint_color(int(joint))
        cv2.circle(panel, center, 5 << shift, (0, 0, 0), -1, cv2.LINE_AA, shift)
        cv2.circle(panel, center, 3 << shift, color, -1, cv2.LINE_AA, shift)


def _counted(related: np.ndarray) -> str:
    """How many pairs of joints, and how many bones among them, are related in either direction."""
    either = (related + related.T) > 0
    pairs = int(np.triu(either, 1).sum())
    bones = sum(bool(either[bone]) for bone in BONES)
    return f"{pairs} of {_JOINTS * (_JOINTS - 1) // 2} pairs, {bones} of {len(BONES)} bones"


def _nearness(output: Output, near: np.ndarray) -> str:
    others = near.sum(axis=1).astype(int) - 1
    words = f"{others.min()} to {others.max()} others a joint"
    if output.threshold is not None:
        words += f", threshold {float(output.threshold.detach()):.3f}"
    return words


def _captioned(panel: np.ndarray, title: str, words: str) -> np.ndarray:
    strip = np.full((_CAPTION, PANEL, 3), _GROUND, np.uint8)
    cv2.putText(strip, title, (4, 16), _FONT, 0.5, (255, 255, 255), 1, cv2.LINE_AA)
    cv2.putText(strip, words, (4, 33), _FONT, 0.38, _INK, 1, cv2.LINE_AA)
    return np.vstack([strip, panel])


def _laid_out(panels: list[np.ndarray]) -> np.ndarray:
    columns = min(3, len(panels))
    rows = -(-len(panels) // columns)
    height, width = panels[0].shape[:2]
    sheet = np.full((rows * (height + _GAP) + _GAP, columns * (width + _GAP) + _GAP, 3), _GROUND, np.uint8)
    for number, panel in enumerate(panels):
        row, column = divmod(number, columns)
        y, x = _GAP + row * (height + _GAP), _GAP + column * (width + _GAP)
        sheet[y : y + height, x : x + width] = panel
    return sheet


def _array(values: object, index: int) -> np.ndarray:
    return values[index].detach().double().cpu().numpy()  # type: ignore[index]
