"""Triangles with materials, lit: what a colour camera sees.

A picture is drawn in three passes. The nearest triangle of every pixel; then, where something was hit,
its position, smooth normal, colour and relief; then the light: a linear ambient field (spherical harmonics
of degree one), darkened where the neighbourhood stands in front, and one to three distant lights with
wrapped diffuse, a highlight and soft shadows. Light is linear, 1 a white surface in full light.
"""

from typing import NamedTuple

import numpy as np

from handgraph.synthetic.hands import compiled
from handgraph.synthetic.skin import Skin, marks_at, noise_at

SKIN, PATTERN, TEXTURE, HEAD = 0, 1, 2, 3
"""Kinds of material: skin with marks; a solid pattern; a texture of the pool; a head with hair."""

# Columns of a material's row.
KIND, RED_, GREEN_, BLUE_, RED2, GREEN2, BLUE2, SCALE, STYLE, GLOSS, SHARP, RELIEF = range(12)
MELANIN, BLOOD, OFFSET, PALM, WRINKLE, POLISH, FLAT, OWNER = range(12, 20)
COLUMNS = 20

PLANE_HIT = -2
THINGS = 32
"""Owners: 1 the first hand, 2 its forearm, 3 and 4 the second's, other skin below 32, things from 32."""
NEAR_MM = 40.0

# Skin without pigment or blood, and what a unit of either takes, for red, green and blue (linear).
_BARE = np.array([0.82, 0.70, 0.60], np.float32)
_MELANIN = np.array([0.72, 1.05, 1.42], np.float32)
_BLOOD = np.array([0.20, 0.62, 0.56], np.float32)


class World(NamedTuple):
    """All triangles of a scene; `count` holds how many points, faces, materials, welds there are."""

    points: np.ndarray  # (N, 3) float32, mm
    texture: np.ndarray  # (N, 3) float32: rest position for skin, the object's own for others, mm
    normals: np.ndarray  # (N, 3) float32
    faces: np.ndarray  # (F, 3) int32
    material: np.ndarray  # (F,) uint8
    materials: np.ndarray  # (M, COLUMNS) float32
    welds: np.ndarray  # (W, 2) int32: points of two meshes that share one smooth normal
    count: np.ndarray  # (4,) int64


class Surface(NamedTuple):
    """What every pixel of a picture shows, before light."""

    albedo: np.ndarray  # (h, w, 3) float32
    normal: np.ndarray  # (h, w, 3) float32, unit
    relief: np.ndarray  # (h, w) float32, mm above the smooth surface
    shine: np.ndarray  # (h, w, 2) float32: strength and sharpness of the highlight
    owner: np.ndarray  # (h, w) uint8, 0 where nothing is


def new_surface(h: int, w: int) -> Surface:
    return Surface(
        np.zeros((h, w, 3), np.float32),
        np.zeros((h, w, 3), np.float32),
        np.zeros((h, w), np.float32),
        np.zeros((h, w, 2), np.float32),
        np.zeros((h, w), np.uint8),
    )


@compiled
def new_world(points: int, faces: int) -> World:
    return World(
        np.empty((points, 3), np.float32),
        np.empty((points, 3), np.float32),
        np.zeros((points, 3), np.float32),
        np.empty((faces, 3), np.int32),
        np.empty(faces, np.uint8),
        np.zeros((40, COLUMNS), np.float32),
        np.empty((200, 2), np.int32),
        np.zeros(4, np.int64),
    )


@compiled
def add_mesh(
    world: World, points: np.ndarray, texture: np.ndarray, faces: np.ndarray, material: np.ndarray
) -> int:
    """Put a mesh with its own material row into the world; returns the material's number."""
    p, f, m = world.count[0], world.count[1], world.count[2]
    for i in range(len(points)):
        for c in range(3):
            world.points[p + i, c] = points[i, c]
            world.texture[p + i, c] = texture[i, c]
    for i in range(len(faces)):
        for c in range(3):
            world.faces[f + i, c] = faces[i, c] + p
        world.material[f + i] = m
    world.materials[m] = material
    world.count[0] += len(points)
    world.count[1] += len(faces)
    world.count[2] += 1
    return m


@compiled
def turn_world(world: World, turn: np.ndarray) -> None:
    """Turn every point by a (3, 3) matrix (into the crop's frame), and make the smooth normals."""
    for i in range(world.count[0]):
        x, y, z = world.points[i, 0], world.points[i, 1], world.points[i, 2]
        for c in range(3):
            world.points[i, c] = turn[c, 0] * x + turn[c, 1] * y + turn[c, 2] * z
            world.normals[i, c] = 0.0
    points = world.points
    for f in range(world.count[1]):
        a, b, c = world.faces[f, 0], world.faces[f, 1], world.faces[f, 2]
        ux, uy, uz = (points[b, 0] - points[a, 0], points[b, 1] - points[a, 1], points[b, 2] - points[a, 2])
        vx, vy, vz = (points[c, 0] - points[a, 0], points[c, 1] - points[a, 1], points[c, 2] - points[a, 2])
        nx, ny, nz = uy * vz - uz * vy, uz * vx - ux * vz, ux * vy - uy * vx
        for k in (a, b, c):
            world.normals[k, 0] += nx
            world.normals[k, 1] += ny
            world.normals[k, 2] += nz
    for k in range(world.count[3]):
        a, b = world.welds[k, 0], world.welds[k, 1]
        dot = np.float32(0.0)
        for c in range(3):
            dot += world.normals[a, c] * world.normals[b, c]
        sign = np.float32(1.0 if dot > 0 else -1.0)  # the two may be wound the other way round
        for c in range(3):
            world.normals[a, c] += sign * world.normals[b, c]
            world.normals[b, c] = sign * world.normals[a, c]


@compiled
def draw_faces(world: World, camera: np.ndarray, inverse: np.ndarray, hit: np.ndarray) -> np.ndarray:
    """Nearest triangle of every pixel: inverse depth into `inverse` (h, w) float32, its number into `hit`.

    `camera` is (fx, fy, cx, cy). Returns the projected points (N, 3): column, row, inverse depth.
    """
    h, w = inverse.shape
    projected = np.empty((world.count[0], 3), np.float32)
    fx, fy = np.float32(camera[0]), np.float32(camera[1])
    cx, cy = np.float32(camera[2]), np.float32(camera[3])
    for i in range(world.count[0]):
        z = world.points[i, 2]
        if z < NEAR_MM:
            projected[i, 2] = 0.0
            continue
        iz = np.float32(1.0) / z
        projected[i, 0] = fx * world.points[i, 0] * iz + cx
        projected[i, 1] = fy * world.points[i, 1] * iz + cy
        projected[i, 2] = iz
    for f in range(world.count[1]):
        a, b, c = world.faces[f, 0], world.faces[f, 1], world.faces[f, 2]
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
        if abs(area) < 1e-9:
            continue
        scale = np.float32(1.0) / area
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
                        hit[v, u] = f
    return projected


@compiled
def draw_ground(
    plane: np.ndarray,
    offset: float,
    edge: np.ndarray,
    camera: np.ndarray,
    inverse: np.ndarray,
    hit: np.ndarray,
) -> None:
    """Draw the plane `plane` · x = `offset` behind the rest, where `edge` (of u, v, 1) is not negative."""
    h, w = inverse.shape
    a = plane[0] / (camera[0] * offset)
    b = plane[1] / (camera[1] * offset)
    c = (plane[2] - plane[0] * camera[2] / camera[0] - plane[1] * camera[3] / camera[1]) / offset
    for v in range(h):
        for u in range(w):
            iz = a * u + b * v + c
            if iz > inverse[v, u] and edge[0] * u + edge[1] * v + edge[2] >= 0 and 2e-4 < iz < 0.02:
                inverse[v, u] = iz
                hit[v, u] = PLANE_HIT


@compiled
def shadow_map(world: World, center: np.ndarray, axes: np.ndarray, reach: float, near: np.ndarray) -> None:
    """Least distance along a light's way into `near` (side, side), a square of 2 `reach` mm round `center`.

    Rows of `axes` are the map's two directions and the light's own way.
    """
    side = len(near)
    near[:] = 1e9
    scale = np.float32(side / (2 * reach))
    n = world.count[0]
    flat = np.empty((n, 3), np.float32)
    for i in range(n):
        x = world.points[i, 0] - np.float32(center[0])
        y = world.points[i, 1] - np.float32(center[1])
        z = world.points[i, 2] - np.float32(center[2])
        for c in range(3):
            flat[i, c] = np.float32(axes[c, 0]) * x + np.float32(axes[c, 1]) * y + np.float32(axes[c, 2]) * z
        flat[i, 0] = (flat[i, 0] + np.float32(reach)) * scale - np.float32(0.5)
        flat[i, 1] = (flat[i, 1] + np.float32(reach)) * scale - np.float32(0.5)
    for f in range(world.count[1]):
        a, b, c = world.faces[f, 0], world.faces[f, 1], world.faces[f, 2]
        ua, va, ub, vb, uc, vc = (flat[a, 0], flat[a, 1], flat[b, 0], flat[b, 1], flat[c, 0], flat[c, 1])
        u0 = max(int(np.ceil(min(ua, ub, uc))), 0)
        u1 = min(int(np.floor(max(ua, ub, uc))), side - 1)
        v0 = max(int(np.ceil(min(va, vb, vc))), 0)
        v1 = min(int(np.floor(max(va, vb, vc))), side - 1)
        if u0 > u1 or v0 > v1:
            continue
        area = (ub - ua) * (vc - va) - (uc - ua) * (vb - va)
        if abs(area) < 1e-9:
            continue
        s = np.float32(1.0) / area
        for v in range(v0, v1 + 1):
            for u in range(u0, u1 + 1):
                x, y = np.float32(u) - ua, np.float32(v) - va
                wb = ((vc - va) * x + (ua - uc) * y) * s
                wc = ((va - vb) * x + (ub - ua) * y) * s
                if wb >= -1e-5 and wc >= -1e-5 and wb + wc <= 1.00001:
                    d = flat[a, 2] + wb * (flat[b, 2] - flat[a, 2]) + wc * (flat[c, 2] - flat[a, 2])
                    if d < near[v, u]:
                        near[v, u] = d


@compiled
def _pattern(row: np.ndarray, noise: np.ndarray, x: float, y: float, z: float) -> float:
    """A solid pattern, 0-1, at a point of an object: plain, stripes, checks, rings, spots."""
    s = 1.0 / row[SCALE]
    style = int(row[STYLE])
    if style == 0:
        return 0.0
    if style == 1:
        return 1.0 if np.sin(6.28 * (z * s + 0.15 * noise_at(noise, x * s, y * s, z * s))) > 0.2 else 0.0
    if style == 2:
        return float((int(np.floor(x * s)) + int(np.floor(y * s)) + int(np.floor(z * s))) & 1)
    if style == 3:
        value = noise_at(noise, x * s, y * s, z * s) + 0.5 * noise_at(
            noise, 2.1 * x * s, 2.1 * y * s, 2.1 * z * s
        )
        return min(max(0.5 + 0.4 * value, 0.0), 1.0)
    return 1.0 if noise_at(noise, x * s, y * s, z * s) > 0.9 else 0.0


@compiled
def surfaces(
    world: World,
    projected: np.ndarray,
    camera: np.ndarray,
    inverse: np.ndarray,
    hit: np.ndarray,
    skin: Skin,
    pool: np.ndarray,
    ground: np.ndarray,
    plane: np.ndarray,
    ground_axes: np.ndarray,
    surface: Surface,
) -> None:
    """Fill `surface` for every pixel that shows something; `ground_axes` are the table's, in its columns."""
    albedo, normal, relief = surface.albedo, surface.normal, surface.relief
    shine, owner = surface.shine, surface.owner
    h, w = inverse.shape
    mark = np.empty(4, np.float32)
    one = np.float32(1.0)
    fx1, fy1 = np.float32(1.0 / camera[0]), np.float32(1.0 / camera[1])
    cx, cy = np.float32(camera[2]), np.float32(camera[3])
    for v in range(h):
        for u in range(w):
            f = hit[v, u]
            if f == -1:
                continue
            iz = inverse[v, u]
            z = one / iz
            px = (np.float32(u) - cx) * fx1 * z
            py = (np.float32(v) - cy) * fy1 * z
            if f == PLANE_HIT:
                row = ground
                nx, ny, nz = (np.float32(plane[0]), np.float32(plane[1]), np.float32(plane[2]))
                tx = np.float32(ground_axes[0, 0] * px + ground_axes[1, 0] * py + ground_axes[2, 0] * z)
                ty = np.float32(ground_axes[0, 1] * px + ground_axes[1, 1] * py + ground_axes[2, 1] * z)
                tz = np.float32(0.0)
            else:
                a, b, c = world.faces[f, 0], world.faces[f, 1], world.faces[f, 2]
                row = world.materials[world.material[f]]
                ua, va = projected[a, 0], projected[a, 1]
                eu, ev = projected[b, 0] - ua, projected[b, 1] - va
                gu, gv = projected[c, 0] - ua, projected[c, 1] - va
                x, y = np.float32(u) - ua, np.float32(v) - va
                s = one / (eu * gv - gu * ev)
                wb = (gv * x - gu * y) * s
                wc = (eu * y - ev * x) * s
                # Perspective: weights by inverse depth.
                ka = (one - wb - wc) * projected[a, 2] * z
                kb, kc = wb * projected[b, 2] * z, wc * projected[c, 2] * z
                tx = ka * world.texture[a, 0] + kb * world.texture[b, 0] + kc * world.texture[c, 0]
                ty = ka * world.texture[a, 1] + kb * world.texture[b, 1] + kc * world.texture[c, 1]
                tz = ka * world.texture[a, 2] + kb * world.texture[b, 2] + kc * world.texture[c, 2]
                if row[FLAT] > 0:
                    p = world.points
                    ax, ay, az = p[b, 0] - p[a, 0], p[b, 1] - p[a, 1], p[b, 2] - p[a, 2]
                    bx, by, bz = p[c, 0] - p[a, 0], p[c, 1] - p[a, 1], p[c, 2] - p[a, 2]
                    nx, ny, nz = ay * bz - az * by, az * bx - ax * bz, ax * by - ay * bx
                else:
                    q = world.normals
                    nx = ka * q[a, 0] + kb * q[b, 0] + kc * q[c, 0]
                    ny = ka * q[a, 1] + kb * q[b, 1] + kc * q[c, 1]
                    nz = ka * q[a, 2] + kb * q[b, 2] + kc * q[c, 2]
                if s > 0:  # seen from behind, or a mirrored mesh
                    nx, ny, nz = -nx, -ny, -nz
            # Smooth normals may lean away from the camera near an outline: bring them back to its edge.
            away = (nx * px + ny * py + nz * z) / (px * px + py * py + z * z)
            if away > 0:
                nx, ny, nz = nx - away * px, ny - away * py, nz - away * z
            length = one / np.sqrt(nx * nx + ny * ny + nz * nz + np.float32(1e-12))
            normal[v, u, 0], normal[v, u, 1], normal[v, u, 2] = (nx * length, ny * length, nz * length)
            owner[v, u] = np.uint8(row[OWNER])
            shine[v, u, 0], shine[v, u, 1] = row[GLOSS], row[SHARP]
            kind = int(row[KIND])
            if kind == SKIN or (
                kind == HEAD
                and ty
                > row[SCALE]
                + 9
                * noise_at(
                    skin.noise,
                    tx * np.float32(0.111111),
                    ty * np.float32(0.025000),
                    tz * np.float32(0.111111),
                )
            ):
                o = row[OFFSET]
                marks_at(skin, tx, ty, tz, mark)
                if kind == HEAD:
                    mark[0], mark[1], mark[2], mark[3] = 0.1, 0.85, 0.0, 0.0
                wide = noise_at(
                    skin.noise,
                    tx * np.float32(0.058824) + o,
                    ty * np.float32(0.058824),
                    tz * np.float32(0.058824),
                )
                mid = noise_at(
                    skin.noise,
                    tx * np.float32(0.222222),
                    ty * np.float32(0.222222) + o,
                    tz * np.float32(0.222222),
                )
                fine = noise_at(
                    skin.noise,
                    tx * np.float32(0.769231),
                    ty * np.float32(0.769231),
                    tz * np.float32(0.769231) + o,
                )
                blood = row[BLOOD] * max(
                    one + mark[0] + np.float32(0.20) * wide + np.float32(0.10) * mid, 0.1
                )
                pigment = row[MELANIN] * (one - row[PALM] * (one - mark[1]))
                pigment *= max(one + np.float32(0.05) * mid + np.float32(0.07) * wide, 0.1)
                # Creases keep blood and shade.
                deep = max(-mark[2], np.float32(0.0)) * row[WRINKLE]
                blood *= one + np.float32(0.35) * deep
                nail = mark[3]
                if nail > 0:
                    pigment *= one - np.float32(0.6) * nail
                    shine[v, u, 0] += nail * np.float32(0.09)
                    shine[v, u, 1] += nail * (np.float32(50.0) - shine[v, u, 1])
                dark = one - np.float32(0.16) * min(deep, one) + np.float32(0.03) * fine
                for c in range(3):
                    value = _BARE[c] * np.exp(-pigment * _MELANIN[c] - blood * _BLOOD[c]) * dark
                    if nail > 0 and row[POLISH] > 0:
                        value += nail * (row[RED_ + c] - value)
                    elif nail > 0:
                        value *= one + np.float32(0.10) * nail
                    albedo[v, u, c] = value
                relief[v, u] = row[WRINKLE] * mark[2] + row[RELIEF] * (
                    np.float32(0.09) * fine + np.float32(0.10) * mid
                ) * (one - nail)
            elif kind == TEXTURE:
                texture = int(row[STYLE])
                s = np.float32(256.0) / row[SCALE]
                i = int(np.float32(65536.0) + ty * s) & 255
                j = int(np.float32(65536.0) + tx * s) & 255
                for c in range(3):
                    value = pool[texture, i, j, c] * np.float32(0.003922)
                    albedo[v, u, c] = min(value * value * row[RED_ + c] * np.float32(1.6), np.float32(0.95))
                relief[v, u] = row[RELIEF] * noise_at(
                    skin.noise,
                    tx * np.float32(0.071429),
                    ty * np.float32(0.071429),
                    tz * np.float32(0.071429),
                )
            else:
                t = np.float32(_pattern(row, skin.noise, tx, ty, tz)) if kind == PATTERN else np.float32(0.0)
                rough = one + np.float32(0.06) * noise_at(
                    skin.noise,
                    tx * np.float32(0.333333),
                    ty * np.float32(0.333333),
                    tz * np.float32(0.333333),
                )
                for c in range(3):
                    albedo[v, u, c] = (row[RED_ + c] + t * (row[RED2 + c] - row[RED_ + c])) * rough
                relief[v, u] = row[RELIEF] * noise_at(
                    skin.noise,
                    tx * np.float32(0.062500),
                    ty * np.float32(0.062500),
                    tz * np.float32(0.062500),
                )


def _looks() -> np.ndarray:
    """Where nine looks at a shadow map go, on a disc of radius 1.2, turned in four ways: (4, 9, 2)."""
    k = np.arange(9)
    turn = 0.7 * np.arange(4)[:, None] + 2.4 * k
    return (1.2 * np.sqrt(k / 8))[None, :, None] * np.stack([np.cos(turn), np.sin(turn)], -1)


_LOOKS = _looks().astype(np.float32)


@compiled
def _lit_share(
    shadow: np.ndarray, u: np.float32, v: np.float32, d: np.float32, soft: np.float32, spin: int
) -> np.float32:
    """Share of a light that reaches (u, v) of its map, `d` mm along its way: nine looks."""
    side = shadow.shape[0]
    if u < 1 or v < 1 or u > side - 2 or v > side - 2:
        return np.float32(1.0)
    # The penumbra widens with the gap between the thing that shades and the shaded.
    gap = d - shadow[int(v + np.float32(0.5)), int(u + np.float32(0.5))]
    gap = min(max(gap, np.float32(0.0)), np.float32(120.0))
    spread = np.float32(1.0) + soft * (np.float32(0.25) + gap * np.float32(0.025))
    lit = np.float32(0.0)
    top = np.float32(side - 2)
    for k in range(9):
        p = min(max(u + spread * _LOOKS[spin, k, 0], np.float32(0.0)), top)
        q = min(max(v + spread * _LOOKS[spin, k, 1], np.float32(0.0)), top)
        i, j = int(q), int(p)
        fp, fq = p - np.float32(j), q - np.float32(i)
        a = np.float32(1.0) if shadow[i, j] > d else np.float32(0.0)
        b = np.float32(1.0) if shadow[i, j + 1] > d else np.float32(0.0)
        c = np.float32(1.0) if shadow[i + 1, j] > d else np.float32(0.0)
        e = np.float32(1.0) if shadow[i + 1, j + 1] > d else np.float32(0.0)
        a += fp * (b - a)
        c += fp * (e - c)
        lit += a + fq * (c - a)
    return lit * np.float32(1.0 / 9.0)


@compiled
def shade(
    camera: np.ndarray,
    inverse: np.ndarray,
    hit: np.ndarray,
    surface: Surface,
    lights: np.ndarray,
    shadows: np.ndarray,
    shadow_axes: np.ndarray,
    center: np.ndarray,
    reach: float,
    ambient: np.ndarray,
    occlusion: float,
    wrap: float,
    background: np.ndarray,
    tint_behind: np.ndarray,
    out: np.ndarray,
) -> None:
    """Light every pixel, into `out` (h, w, 3) float32; `background` (display values) where nothing is.

    `lights` (L, 8): direction to the light, colour, softness, strength of its shadow. `ambient` (4, 3): the
    constant and the three linear coefficients of each colour.
    """
    h, w = inverse.shape
    albedo, normal, relief = surface.albedo, surface.normal, surface.relief
    shine, owner = surface.shine, surface.owner
    one = np.float32(1.0)
    fx, fy = np.float32(camera[0]), np.float32(camera[1])
    # Neighbours that may darken: eight directions, two distances, in mm at the surface.
    ring = np.empty((8, 2), np.float32)
    for k in range(8):
        ring[k, 0], ring[k, 1] = np.cos(0.7854 * k + 0.3), np.sin(0.7854 * k + 0.3)
    tint = np.empty(3, np.float32)
    tint[0], tint[1], tint[2] = 1.0, 0.55, 0.40
    number = len(lights)
    maps, middle = shadow_axes.astype(np.float32), center.astype(np.float32)
    span = np.float32(reach)
    texels = np.float32(shadows.shape[1] / (2 * reach))
    fx1, fy1 = np.float32(1.0 / camera[0]), np.float32(1.0 / camera[1])
    cx, cy = np.float32(camera[2]), np.float32(camera[3])
    strength, wrapped = np.float32(0.33 * occlusion), np.float32(wrap)
    for v in range(h):
        for u in range(w):
            if hit[v, u] == -1:
                for c in range(3):  # display values to light, nearly sRGB's curve
                    value = background[v, u, c]
                    value *= value * (np.float32(0.75) + np.float32(0.25) * value)
                    out[v, u, c] = tint_behind[c] * value
                continue
            z = one / inverse[v, u]
            px = (np.float32(u) - cx) * fx1 * z
            py = (np.float32(v) - cy) * fy1 * z
            nx, ny, nz = normal[v, u, 0], normal[v, u, 1], normal[v, u, 2]
            # Relief bends the normal: slopes of the height along the picture, a pixel being z / f mm.
            m = owner[v, u]
            if 0 < u < w - 1 and 0 < v < h - 1:
                gu, gv = np.float32(0.0), np.float32(0.0)
                if owner[v, u - 1] == m and owner[v, u + 1] == m:
                    gu = np.float32(0.5) * (relief[v, u + 1] - relief[v, u - 1]) * fx / z
                if owner[v - 1, u] == m and owner[v + 1, u] == m:
                    gv = np.float32(0.5) * (relief[v + 1, u] - relief[v - 1, u]) * fy / z
                gu = min(max(gu, np.float32(-0.8)), np.float32(0.8))
                gv = min(max(gv, np.float32(-0.8)), np.float32(0.8))
                dot = gu * nx + gv * ny
                nx, ny, nz = nx - (gu - dot * nx), ny - (gv - dot * ny), nz + dot * nz
                s = one / np.sqrt(nx * nx + ny * ny + nz * nz + np.float32(1e-12))
                nx, ny, nz = nx * s, ny * s, nz * s
            s = one / np.sqrt(px * px + py * py + z * z)
            ex, ey, ez = -px * s, -py * s, -z * s
            # Occlusion: how far the neighbourhood rises above the tangent plane.
            closed = np.float32(0.0)
            if occlusion > 0:
                for k in range(8):
                    far = np.float32(9.0) if k & 1 else np.float32(24.0)
                    uu = int(u + ring[k, 0] * far * fx / z + np.float32(0.5))
                    vv = int(v + ring[k, 1] * far * fy / z + np.float32(0.5))
                    if 0 <= uu < w and 0 <= vv < h and hit[vv, uu] != -1:
                        zz = one / inverse[vv, uu]
                        dx = (np.float32(uu) - cx) * fx1 * zz - px
                        dy = (np.float32(vv) - cy) * fy1 * zz - py
                        dz = zz - z
                        d2 = dx * dx + dy * dy + dz * dz
                        rise = (dx * nx + dy * ny + dz * nz) / np.sqrt(d2 + one)
                        fade = one / (one + d2 * np.float32(1.0 / 1200.0))
                        closed += max(rise - np.float32(0.08), np.float32(0.0)) * fade
                closed = min(closed * strength, np.float32(0.85))
            free = one - closed
            w0 = wrapped if m < THINGS else np.float32(0.08)
            gloss_r, gloss_g, gloss_b = (np.float32(0.0), np.float32(0.0), np.float32(0.0))
            # Light bounced between skin and skin is redder than what came in.
            red = (ambient[0, 0] + nx * ambient[1, 0] + ny * ambient[2, 0] + nz * ambient[3, 0]) * (
                free + np.float32(0.25) * closed * tint[0]
            )
            green = (ambient[0, 1] + nx * ambient[1, 1] + ny * ambient[2, 1] + nz * ambient[3, 1]) * (
                free + np.float32(0.25) * closed * tint[1]
            )
            blue = (ambient[0, 2] + nx * ambient[1, 2] + ny * ambient[2, 2] + nz * ambient[3, 2]) * (
                free + np.float32(0.25) * closed * tint[2]
            )
            for k in range(number):
                lx, ly, lz = lights[k, 0], lights[k, 1], lights[k, 2]
                facing = nx * lx + ny * ly + nz * lz
                if facing < -w0:
                    continue
                part = one
                if lights[k, 7] > 0 and k < len(shadows):
                    # Looked up a little off the surface, lest it shade itself.
                    dx = px + np.float32(2.0) * nx - middle[0]
                    dy = py + np.float32(2.0) * ny - middle[1]
                    dz = z + np.float32(2.0) * nz - middle[2]
                    a = maps[k]
                    part = _lit_share(
                        shadows[k],
                        (a[0, 0] * dx + a[0, 1] * dy + a[0, 2] * dz + span) * texels - np.float32(0.5),
                        (a[1, 0] * dx + a[1, 1] * dy + a[1, 2] * dz + span) * texels - np.float32(0.5),
                        a[2, 0] * dx
                        + a[2, 1] * dy
                        + a[2, 2] * dz
                        - np.float32(3.0)
                        - np.float32(5.0) * (one - max(facing, np.float32(0.0))),
                        lights[k, 6],
                        (u + 2 * v) & 3,
                    )
                    part = one - np.float32(lights[k, 7]) * (one - part)
                # Skin lets red light round the edge furthest.
                for c in range(3):
                    wc = w0 * tint[c]
                    lit = max((facing + wc) / (one + wc), np.float32(0.0))
                    edge = part + (one - part) * np.float32(0.06) * tint[c] * (w0 > np.float32(0.1))
                    value = np.float32(lights[k, 3 + c]) * lit * edge
                    if c == 0:
                        red += value
                    elif c == 1:
                        green += value
                    else:
                        blue += value
                if facing > 0 and shine[v, u, 0] > 0:
                    hx, hy, hz = lx + ex, ly + ey, lz + ez
                    s = one / np.sqrt(hx * hx + hy * hy + hz * hz + np.float32(1e-12))
                    dot = max((nx * hx + ny * hy + nz * hz) * s, np.float32(0.0))
                    sharp = shine[v, u, 1]
                    fresnel = (
                        one
                        + np.float32(3.0) * (one - max(ex * hx + ey * hy + ez * hz, np.float32(0.0)) * s) ** 3
                    )
                    power = (
                        shine[v, u, 0]
                        * fresnel
                        * (sharp + 2)
                        * np.float32(0.125)
                        * dot**sharp
                        * part
                        * facing
                    )
                    gloss_r += np.float32(lights[k, 3]) * power
                    gloss_g += np.float32(lights[k, 4]) * power
                    gloss_b += np.float32(lights[k, 5]) * power
            out[v, u, 0] = albedo[v, u, 0] * max(red, np.float32(0.0)) + gloss_r
            out[v, u, 1] = albedo[v, u, 1] * max(green, np.float32(0.0)) + gloss_g
            out[v, u, 2] = albedo[v, u, 2] * max(blue, np.float32(0.0)) + gloss_b
