"""A small shaded z-buffer, and the sheets of poses and shapes by which the open hand is judged.

python tools/open_hand_sheet.py        # writes docs/images/open_hand_*.png from the shipped npz
"""

from __future__ import annotations

import sys
from pathlib import Path

import numba
import numpy as np


@numba.njit(cache=False)
def _raster(xy, z, normals, faces, size, depth, out):
    for f in range(faces.shape[0]):
        i, j, k = faces[f]
        x0, y0, x1, y1, x2, y2 = xy[i, 0], xy[i, 1], xy[j, 0], xy[j, 1], xy[k, 0], xy[k, 1]
        area = (x1 - x0) * (y2 - y0) - (x2 - x0) * (y1 - y0)
        if area == 0:
            continue
        for py in range(max(0, int(min(y0, y1, y2))), min(size - 1, int(max(y0, y1, y2)) + 1) + 1):
            for px in range(max(0, int(min(x0, x1, x2))), min(size - 1, int(max(x0, x1, x2)) + 1) + 1):
                a = ((x1 - px) * (y2 - py) - (x2 - px) * (y1 - py)) / area
                b = ((x2 - px) * (y0 - py) - (x0 - px) * (y2 - py)) / area
                c = 1 - a - b
                if a < 0 or b < 0 or c < 0:
                    continue
                d = a * z[i] + b * z[j] + c * z[k]
                if d < depth[py, px]:
                    depth[py, px] = d
                    for m in range(3):
                        out[py, px, m] = a * normals[i, m] + b * normals[j, m] + c * normals[k, m]


def vertex_normals(vertices: np.ndarray, faces: np.ndarray) -> np.ndarray:
    """Area-weighted unit normals."""
    a, b, c = (vertices[faces[:, i]] for i in range(3))
    normal = np.cross(b - a, c - a)
    out = np.zeros_like(vertices)
    for i in range(3):
        np.add.at(out, faces[:, i], normal)
    return out / np.maximum(np.linalg.norm(out, axis=1, keepdims=True), 1e-12)


def render(
    vertices: np.ndarray,
    faces: np.ndarray,
    view: np.ndarray,
    size: int = 300,
    millimetres: float = 230.0,
    flat: bool = False,
) -> np.ndarray:
    """Orthographic Lambert picture (size, size, 3) uint8; ``view`` rows are image right, down and away."""
    scale = 2
    n = size * scale
    points = vertices @ view.T
    centre = (points.max(0) + points.min(0)) / 2
    xy = (points[:, :2] - centre[:2]) * (n / millimetres) + n / 2
    if flat:
        xy, z = xy[faces.reshape(-1)], points[faces.reshape(-1), 2]
        a, b, c = (vertices[faces[:, i]] for i in range(3))
        nrm = np.cross(b - a, c - a)
        nrm /= np.linalg.norm(nrm, axis=1, keepdims=True) + 1e-12
        normals = np.repeat(nrm, 3, 0) @ view.T
        tri = np.arange(len(faces) * 3).reshape(-1, 3)
    else:
        z, normals, tri = points[:, 2], vertex_normals(vertices, faces) @ view.T, faces
    depth = np.full((n, n), np.inf)
    out = np.zeros((n, n, 3))
    _raster(xy, z, normals, tri.astype(np.int64), n, depth, out)
    hit = np.isfinite(depth)
    nrm = out / np.maximum(np.linalg.norm(out, axis=2, keepdims=True), 1e-9)
    key = np.array([-0.45, -0.6, -0.66])
    fill = np.array([0.8, 0.1, -0.59])
    light = 0.18 + 0.72 * np.clip(nrm @ (key / np.linalg.norm(key)), 0, 1)
    light += 0.22 * np.clip(nrm @ (fill / np.linalg.norm(fill)), 0, 1)
    # Screen-space occlusion: a pixel well behind its surroundings is darker.
    from scipy.ndimage import gaussian_filter

    filled = np.where(hit, depth, depth[hit].max() if hit.any() else 0.0)
    for sigma in (4 * scale, 10 * scale):
        light *= 1 - np.clip((filled - gaussian_filter(filled, sigma)) / 40, 0, 0.45)
    image = np.where(hit[..., None], light[..., None] * np.array([236, 190, 165.0]), 252.0)
    image = np.clip(image, 0, 255).reshape(size, scale, size, scale, 3).mean((1, 3))
    return image.astype(np.uint8)


VIEWS = {
    # rows: image right, image down, away from the eye (all in the model frame)
    "palm": np.array([[0, 0, 1.0], [1, 0, 0], [0, 1, 0]]),
    "back": np.array([[0, 0, -1.0], [1, 0, 0], [0, -1, 0]]),
    "radial": np.array([[0, -1.0, 0], [1, 0, 0], [0, 0, -1]]),
    "ulnar": np.array([[0, 1.0, 0], [1, 0, 0], [0, 0, 1]]),
    "front": np.array([[0, 0, 1.0], [0, -1, 0], [1, 0, 0]]),
}


def turned(view: str, right_deg: float = 0.0, down_deg: float = 0.0) -> np.ndarray:
    """A named view, orbited to its right and down."""
    a, b = np.radians([right_deg, down_deg])
    yaw = np.array([[np.cos(a), 0, np.sin(a)], [0, 1, 0], [-np.sin(a), 0, np.cos(a)]])
    pitch = np.array([[1, 0, 0], [0, np.cos(b), np.sin(b)], [0, -np.sin(b), np.cos(b)]])
    return pitch @ yaw @ VIEWS[view]


# Degrees. Fingers index, middle, ring, little as (MCP, PIP, DIP) flexion and MCP abduction;
# thumb as (CMC flexion, abduction, twist, MCP flexion, IP flexion).
STRAIGHT, CURLED, CLOSED = (3, 5, 4), (45, 45, 30), (82, 97, 58)
AT_EASE = (18, 25, 14)
REST_THUMB, OVER_FIST = (0, 0, 0, 0, 0), (21, 14, -30, 52, 23)
POSES = {
    "open": ((STRAIGHT,) * 4, (0, 0, 0, 0), REST_THUMB),
    "relaxed": ((AT_EASE, (24, 30, 16), (28, 32, 18), (30, 32, 18)), (-3, 0, 2, 5), (5, 5, -5, 12, 15)),
    "fist": ((CLOSED,) * 4, (0, 0, 0, 0), OVER_FIST),
    "point": ((STRAIGHT, CLOSED, CLOSED, CLOSED), (0, 0, 0, 0), OVER_FIST),
    "pinch": (((44, 60, 36), (25, 30, 18), (18, 24, 14), (14, 18, 10)), (-10, 0, 0, 0), (38, -8, 6, -2, -5)),
    "OK": (((34, 51, 31), STRAIGHT, STRAIGHT, STRAIGHT), (-11, 0, -3, -6), (40, -10, 10, -8, -15)),
    "thumbs up": ((CLOSED,) * 4, (0, 0, 0, 0), (-18, -10, 0, -5, -10)),
    "spread": (((-8, 2, 2),) * 4, (16, 3, -9, -18), (-15, 8, 0, -5, -8)),
    "grasp": ((CURLED,) * 4, (4, 0, -2, -5), (22, 20, -10, 15, 20)),
    "index PIP 90": (((0, 90, 0), STRAIGHT, STRAIGHT, STRAIGHT), (0, 0, 0, 0), REST_THUMB),
    "all MCP 90": (((90, 5, 0),) * 4, (0, 0, 0, 0), REST_THUMB),
    "hook": (((5, 95, 60),) * 4, (0, 0, 0, 0), REST_THUMB),
    "victory": ((STRAIGHT, STRAIGHT, CLOSED, CLOSED), (9, -7, 0, 0), (28, -6, -25, 55, 35)),
    "thumb to little": ((STRAIGHT, STRAIGHT, AT_EASE, (63, 63, 38)), (0, 0, 0, 11), (38, -19, 10, 43, 59)),
}


def pose_angles(name: str) -> np.ndarray:
    """Anatomical angles (15, 3) in radians of a named pose."""
    fingers, abduction, thumb = POSES[name]
    angles = np.zeros((15, 3))
    for row, flexion, side in zip((0, 3, 9, 6), fingers, abduction, strict=True):
        angles[row : row + 3, 0] = flexion
        angles[row, 1] = side
    angles[12] = thumb[:3]
    angles[13, 0], angles[14, 0] = thumb[3:]
    return np.radians(angles)


class OpenHand:
    """The shipped arrays with plain NumPy skinning, in millimetres."""

    def __init__(self, path: Path):
        arrays = np.load(path)
        self.faces = arrays["faces"]
        self.rest, self.shapes = arrays["v_template"] * 1000.0, arrays["shapedirs"] * 1000.0
        self.posedirs, self.weights = arrays["posedirs"] * 1000.0, arrays["weights"].astype(float)
        self.regressor, self.axes = arrays["J_regressor"].astype(float), arrays["joint_axes"].astype(float)
        self.shape_names = arrays["shape_names"]

    def posed(self, angles: np.ndarray, shape: np.ndarray | None = None) -> np.ndarray:
        """Vertices (V, 3) mm for anatomical angles (15, 3) and shape (10,)."""
        from open_hand_skeleton import rotations_from_angles, skin

        rest = self.rest if shape is None else self.rest + self.shapes @ shape
        rotations = rotations_from_angles(angles, self.axes)
        return skin(rest, self.regressor @ rest, self.weights, self.posedirs, rotations)


def _titled(image: np.ndarray, text: str) -> np.ndarray:
    import cv2

    return cv2.putText(
        image.copy(), text, (8, 18), cv2.FONT_HERSHEY_SIMPLEX, 0.45, (70, 70, 70), 1, cv2.LINE_AA
    )


def _grid(cells: list[np.ndarray], columns: int) -> np.ndarray:
    return np.vstack([np.hstack(cells[i : i + columns]) for i in range(0, len(cells), columns)])


def main() -> None:
    """Write the three sheets."""
    import cv2

    root = Path(__file__).resolve().parents[1]
    hand = OpenHand(root / "src/handgraph/hand_model/open_hand.npz")
    images = root / "docs/images"
    images.mkdir(parents=True, exist_ok=True)

    views = [
        turned("palm", 15, 10),
        turned("back", 20, -15),
        turned("radial", 10, 0),
        turned("palm", -45, 20),
    ]
    pick = [
        ("open", 0), ("open", 1), ("relaxed", 2), ("fist", 0), ("fist", 1), ("fist", 2),
        ("point", 0), ("point", 2), ("pinch", 2), ("pinch", 3), ("OK", 2), ("OK", 0),
        ("thumbs up", 3), ("thumbs up", 1), ("spread", 0), ("grasp", 2), ("grasp", 3), ("victory", 0),
        ("index PIP 90", 2), ("all MCP 90", 1), ("hook", 2), ("hook", 0),
        ("thumb to little", 0), ("thumb to little", 3),
    ]  # fmt: skip
    rng = np.random.default_rng(3)
    cells = []
    for i, (name, view) in enumerate(pick):
        # Every other cell has a shape of its own.
        shape = np.clip(rng.normal(0, 1, 10), -2, 2) * (i % 2)
        cells.append(_titled(render(hand.posed(pose_angles(name), shape), hand.faces, views[view]), name))
    cv2.imwrite(
        str(images / "open_hand_sheet.png"), _grid(cells, 6)[..., ::-1], [cv2.IMWRITE_PNG_COMPRESSION, 9]
    )

    cells = []
    for k, name in enumerate(hand.shape_names):
        for value in (-2.5, 2.5):
            vertices = hand.posed(pose_angles("open"), value * np.eye(10)[k])
            view = turned("radial", 20, 10) if k in (3, 9) else turned("palm", 0, 0)
            cells.append(_titled(render(vertices, hand.faces, view, 260, 235), f"{value:+.1f} {name[:26]}"))
    cv2.imwrite(str(images / "open_hand_shapes.png"), _grid(cells, 4)[..., ::-1])

    cells = []
    for name, view, size in (
        ("index PIP 90", turned("radial", -20, 0), 110.0),
        ("all MCP 90", turned("back", 20, -35), 130.0),
        ("fist", turned("back", 10, -35), 130.0),
        ("OK", turned("radial", 20, 10), 150.0),
    ):
        vertices = hand.posed(pose_angles(name))
        cells += [render(vertices, hand.faces, view, 300, size, flat=flat) for flat in (False, True)]
        cells[-2] = _titled(cells[-2], name)
    cv2.imwrite(
        str(images / "open_hand_closeups.png"), _grid(cells, 4)[..., ::-1], [cv2.IMWRITE_PNG_COMPRESSION, 9]
    )


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parent))
    main()
