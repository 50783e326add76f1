"""How far two surfaces lie apart: what can be measured where two hand models share no vertices."""

from typing import no_type_check

import numba as nb
import numpy as np
from jaxtyping import Float, Int


def surface_distance(
    vertices: Float[np.ndarray, "v 3"],
    faces: Int[np.ndarray, "f 3"],
    other_vertices: Float[np.ndarray, "w 3"],
    other_faces: Int[np.ndarray, "g 3"],
) -> float:
    """Mean distance of either mesh's vertices to the other mesh's surface, in their unit.

    The mean over the one's vertices and that over the other's count alike. Not MPVPE, which needs to know
    which vertex belongs to which: a surface that has slid along itself is not far from where it was.
    """
    there = distances_to_surface(vertices, other_vertices, other_faces).mean()
    back = distances_to_surface(other_vertices, vertices, faces).mean()
    return float((there + back) / 2)


def distances_to_surface(
    points: Float[np.ndarray, "n 3"], vertices: Float[np.ndarray, "v 3"], faces: Int[np.ndarray, "f 3"]
) -> Float[np.ndarray, " n"]:
    """Distance of each point to the nearest point of any triangle."""
    corners = np.asarray(vertices, np.float64)[np.asarray(faces)]
    middles = corners.mean(axis=1)
    radii = np.linalg.norm(corners - middles[:, None], axis=-1).max(axis=1)
    return np.asarray(_nearest(np.asarray(points, np.float64), corners, middles, radii))


@nb.njit(nogil=True, cache=True)
@no_type_check
def _nearest(points, corners, middles, radii):
    nearest = np.empty(len(points))
    for n in range(len(points)):
        best = np.inf
        for f in range(len(corners)):
            apart = 0.0
            for i in range(3):
                apart += (points[n, i] - middles[f, i]) ** 2
            # No point of the triangle is nearer than its middle less its radius.
            reach = best + radii[f]
            if apart >= reach * reach:
                continue
            best = min(best, np.sqrt(_squared(points[n], corners[f, 0], corners[f, 1], corners[f, 2])))
        nearest[n] = best
    return nearest


@nb.njit(nogil=True, cache=True)
@no_type_check
def _squared(p, a, b, c):
    """Squared distance to a triangle: to its plane where the foot lies inside, else to its nearest edge."""
    ab, ac, ap = b - a, c - a, p - a
    d00, d01, d11 = (ab * ab).sum(), (ab * ac).sum(), (ac * ac).sum()
    d20, d21 = (ap * ab).sum(), (ap * ac).sum()
    area = d00 * d11 - d01 * d01
    if area > 1e-12 * d00 * d11:
        v, w = (d11 * d20 - d01 * d21) / area, (d00 * d21 - d01 * d20) / area
        if v >= 0.0 and w >= 0.0 and v + w <= 1.0:
            return np.square(ap - v * ab - w * ac).sum()
    return min(_squared_to_edge(p, a, b), _squared_to_edge(p, b, c), _squared_to_edge(p, c, a))


@nb.njit(nogil=True, cache=True)
@no_type_check
def _squared_to_edge(p, a, b):
    ab = b - a
    length = (ab * ab).sum()
    t = 0.0 if length == 0.0 else min(max(((p - a) * ab).sum() / length, 0.0), 1.0)
    return np.square(p - a - t * ab).sum()
