"""A small shaded z-buffer for looking at the open hand."""

from __future__ import annotations

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
    wire: bool = False,
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
