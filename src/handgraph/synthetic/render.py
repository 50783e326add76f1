"""A z-buffer for triangles and planes, in inverse depth.

Inverse depth is linear in the picture, for a triangle as for a plane, so the interior of a triangle is
exact to rounding; 0 means nothing there, the largest value is the nearest surface. Pixel centres are
integers. A window (left, top) of a larger frame is drawn as if cut from it.
"""

import numpy as np

from handgraph.synthetic.hands import axis_rotation, compiled

NOTHING, HAND, FOREARM, OBJECT, PLANE, BODY = 0, 1, 2, 3, 4, 5
"""What a pixel shows."""

_NEAR_MM = 40.0


@compiled
def draw_mesh(
    points: np.ndarray,
    faces: np.ndarray,
    camera: np.ndarray,
    inverse: np.ndarray,
    label: np.ndarray,
    tag: int,
    closed: bool,
) -> None:
    """Draw a mesh, camera-frame mm, into `inverse` (h, w) float32 1/mm and `label` (h, w) uint8.

    `camera` is (fx, fy, cx, cy) of the window. Triangles with a corner nearer than 40 mm are left out,
    and those that face away if the mesh is `closed` (its triangles counter-clockwise seen from outside).
    """
    h, w = inverse.shape
    n = len(points)
    projected = np.empty((n, 3), np.float32)
    for i in range(n):
        z = points[i, 2]
        if z < _NEAR_MM:
            projected[i, 2] = 0.0
            continue
        iz = 1.0 / z
        projected[i, 0] = camera[0] * points[i, 0] * iz + camera[2]
        projected[i, 1] = camera[1] * points[i, 1] * iz + camera[3]
        projected[i, 2] = iz
    for f in range(len(faces)):
        a, b, c = faces[f, 0], faces[f, 1], faces[f, 2]
        ia, ib, ic = projected[a, 2], projected[b, 2], projected[c, 2]
        if ia == 0.0 or ib == 0.0 or ic == 0.0:
            continue
        ua, va = projected[a, 0], projected[a, 1]
        ub, vb = projected[b, 0], projected[b, 1]
        uc, vc = projected[c, 0], projected[c, 1]
        u0 = max(int(np.ceil(min(ua, ub, uc))), 0)
        u1 = min(int(np.floor(max(ua, ub, uc))), w - 1)
        if u0 > u1:
            continue
        v0 = max(int(np.ceil(min(va, vb, vc))), 0)
        v1 = min(int(np.floor(max(va, vb, vc))), h - 1)
        if v0 > v1:
            continue
        area = (ub - ua) * (vc - va) - (uc - ua) * (vb - va)
        if abs(area) < 1e-9 or (closed and area > 0):
            continue
        scale = np.float32(1.0) / area
        # Barycentric weights of b and c, and inverse depth, are affine in (u, v).
        bu, bv = (vc - va) * scale, (ua - uc) * scale
        cu, cv = (va - vb) * scale, (ub - ua) * scale
        du, dv = bu * (ib - ia) + cu * (ic - ia), bv * (ib - ia) + cv * (ic - ia)
        for v in range(v0, v1 + 1):
            y = np.float32(v) - va
            for u in range(u0, u1 + 1):
                x = np.float32(u) - ua
                wb = bu * x + bv * y
                wc = cu * x + cv * y
                if wb >= -1e-5 and wc >= -1e-5 and wb + wc <= 1.00001:
                    iz = ia + du * x + dv * y
                    if iz > inverse[v, u]:
                        inverse[v, u] = iz
                        label[v, u] = tag


@compiled
def draw_plane(
    normal: np.ndarray,
    offset: float,
    edge: np.ndarray,
    camera: np.ndarray,
    inverse: np.ndarray,
    label: np.ndarray,
    tag: int,
) -> None:
    """Draw the plane normal · x = offset, where `edge` (3 coefficients of u, v, 1) is not negative."""
    h, w = inverse.shape
    a = normal[0] / (camera[0] * offset)
    b = normal[1] / (camera[1] * offset)
    c = (normal[2] - normal[0] * camera[2] / camera[0] - normal[1] * camera[3] / camera[1]) / offset
    for v in range(h):
        for u in range(w):
            iz = a * u + b * v + c
            if iz > inverse[v, u] and edge[0] * u + edge[1] * v + edge[2] >= 0 and iz < 0.02:
                inverse[v, u] = iz
                label[v, u] = tag


@compiled
def frame_of(direction: np.ndarray, out: np.ndarray) -> None:
    """An orthonormal frame whose third column is the unit vector `direction`."""
    i = 0 if abs(direction[0]) < 0.6 else 1
    helper = np.zeros(3)
    helper[i] = 1.0
    side = np.cross(helper, direction)
    side /= np.sqrt((side**2).sum())
    out[:, 0] = side
    out[:, 1] = np.cross(direction, side)
    out[:, 2] = direction


@compiled
def ellipsoid(center: np.ndarray, axes: np.ndarray, radii: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """A closed ellipsoid: columns of `axes` are its axes. 16 meridians, 11 parallels."""
    around, along = 16, 11
    points = np.empty((around * along, 3))
    for i in range(along):
        polar = np.pi * i / (along - 1)
        for j in range(around):
            turn = 2 * np.pi * j / around
            local = (
                radii[0] * np.sin(polar) * np.cos(turn),
                radii[1] * np.sin(polar) * np.sin(turn),
                radii[2] * np.cos(polar),
            )
            for c in range(3):
                points[i * around + j, c] = (
                    center[c] + axes[c, 0] * local[0] + axes[c, 1] * local[1] + axes[c, 2] * local[2]
                )
    return points, grid_faces(along, around)


@compiled
def grid_faces(along: int, around: int) -> np.ndarray:
    """Triangles of a tube of `along` rings of `around` points."""
    faces = np.empty((2 * (along - 1) * around, 3), np.int32)
    n = 0
    for i in range(along - 1):
        for j in range(around):
            k = (j + 1) % around
            faces[n, 0], faces[n, 1], faces[n, 2] = i * around + j, (i + 1) * around + j, i * around + k
            n += 1
            faces[n, 0], faces[n, 1], faces[n, 2] = i * around + k, (i + 1) * around + j, (i + 1) * around + k
            n += 1
    return faces


@compiled
def prism(
    center: np.ndarray, axes: np.ndarray, radii: np.ndarray, sides: int
) -> tuple[np.ndarray, np.ndarray]:
    """A closed prism along the third axis: four sides make a box (radii are half lengths), 20 a cylinder."""
    points = np.empty((4 * sides, 3))
    reach = np.sqrt(2.0) if sides == 4 else 1.0
    shift = np.pi / 4 if sides == 4 else 0.0
    for ring in range(4):  # cap centre, rim, rim, cap centre
        z = -radii[2] if ring < 2 else radii[2]
        r = reach if ring in (1, 2) else 0.0
        for j in range(sides):
            turn = 2 * np.pi * j / sides + shift
            x, y = r * radii[0] * np.cos(turn), r * radii[1] * np.sin(turn)
            for c in range(3):
                points[ring * sides + j, c] = center[c] + axes[c, 0] * x + axes[c, 1] * y + axes[c, 2] * z
    return points, grid_faces(4, sides)


@compiled
def tube(
    centers: np.ndarray, axes: np.ndarray, radii: np.ndarray, around: int
) -> tuple[np.ndarray, np.ndarray]:
    """An open tube of elliptical rings: centers (n, 3), radii (n, 2) along two columns of `axes`."""
    rings = len(centers)
    points = np.empty((rings * around, 3))
    for i in range(rings):
        for j in range(around):
            turn = 2 * np.pi * j / around
            x, y = radii[i, 0] * np.cos(turn), radii[i, 1] * np.sin(turn)
            for c in range(3):
                points[i * around + j, c] = centers[i, c] + axes[c, 0] * x + axes[c, 1] * y
    return points, grid_faces(rings, around)


@compiled
def turned_about(axis: np.ndarray, angle: float, vector: np.ndarray) -> np.ndarray:
    """A vector turned about a unit axis."""
    rotation = np.empty((3, 3))
    axis_rotation(axis, angle, rotation)
    out = np.zeros(3)
    for i in range(3):
        for j in range(3):
            out[i] += rotation[i, j] * vector[j]
    return out
