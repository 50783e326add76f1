"""From the dense marching-cubes mesh to the open hand's mesh: clustering, flips, wrist ring and cap."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
from open_hand_sheet import vertex_normals
from open_hand_surface import WRIST_CUT_X, WRIST_HALF_AXES, Surface
from scipy.spatial import cKDTree

RING = 32
# Triangles with a vertex beyond this are dropped and replaced by the strip up to the wrist ring.
TRIM_X = 4.0
FIRST_RING_X = 9.0


def cluster(
    vertices: np.ndarray, faces: np.ndarray, spacing: np.ndarray, count: int, seed: int, rounds: int = 40
) -> np.ndarray:
    """Lloyd clustering of dense vertices with local ``spacing`` (mm); labels (N,).

    Position and normal are clustered together, so that facing surfaces stay apart and bends get more
    vertices (restricted centroidal Voronoi cells: density spacing**-4).
    """
    rng = np.random.default_rng(seed)
    normals = vertex_normals(vertices, faces)
    area = np.zeros(len(vertices))
    a, b, c = (vertices[faces[:, i]] for i in range(3))
    for i in range(3):
        np.add.at(area, faces[:, i], np.linalg.norm(np.cross(b - a, c - a), axis=1) / 6)
    feature = np.concatenate([vertices, 3.0 * normals], 1)
    chance = area * spacing**-2
    centres = feature[rng.choice(len(vertices), count, replace=False, p=chance / chance.sum())]
    mass = area * spacing**-4
    labels = np.zeros(len(vertices), dtype=int)
    for _ in range(rounds):
        labels = cKDTree(centres).query(feature)[1]
        total = np.bincount(labels, mass, count)
        moved = np.stack([np.bincount(labels, mass * feature[:, d], count) for d in range(6)], 1)
        full = total > 0
        centres[full] = moved[full] / total[full, None]
        centres[~full] = feature[rng.choice(len(vertices), int((~full).sum()), p=chance / chance.sum())]
    return labels


def dual_mesh(vertices: np.ndarray, faces: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Triangulation dual to the clusters; vertices are cluster means."""
    used, labels = np.unique(labels, return_inverse=True)
    count = len(used)
    means = np.stack([np.bincount(labels, vertices[:, d], count) for d in range(3)], 1)
    means /= np.bincount(labels, minlength=count)[:, None]
    tri = labels[faces]
    tri = tri[(tri[:, 0] != tri[:, 1]) & (tri[:, 1] != tri[:, 2]) & (tri[:, 2] != tri[:, 0])]
    _, first = np.unique(np.sort(tri, 1), axis=0, return_index=True)
    return means, tri[np.sort(first)]


def is_closed_manifold(faces: np.ndarray) -> bool:
    """Every directed edge occurs once and its reverse once, and every vertex has one fan of faces."""
    edges = np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]])
    key = edges[:, 0] * (faces.max() + 1) + edges[:, 1]
    back = edges[:, 1] * (faces.max() + 1) + edges[:, 0]
    if len(np.unique(key)) != len(key) or not np.isin(back, key).all():
        return False
    v = len(np.unique(faces))
    return v - len(edges) // 2 + len(faces) == 2


def flip_edges(vertices: np.ndarray, faces: np.ndarray, rounds: int = 4) -> np.ndarray:
    """Flip edges whose opposite angles sum to more than pi (Delaunay), where normals stay alike."""
    faces = faces.copy()
    for _ in range(rounds):
        owner = {}
        for f, (i, j, k) in enumerate(faces.tolist()):
            owner[i, j], owner[j, k], owner[k, i] = f, f, f
        touched: set[int] = set()
        flips = 0
        for (i, j), f in list(owner.items()):
            if i > j or f in touched or (j, i) not in owner:
                continue
            g = owner[j, i]
            if g in touched:
                continue
            k = next(x for x in faces[f].tolist() if x not in (i, j))
            m = next(x for x in faces[g].tolist() if x not in (i, j))
            if (k, m) in owner or (m, k) in owner:
                continue
            pi, pj, pk, pm = vertices[[i, j, k, m]]
            total = 0.0
            for apex in (pk, pm):
                a, b = pi - apex, pj - apex
                total += np.arccos(np.clip(a @ b / (np.linalg.norm(a) * np.linalg.norm(b)), -1, 1))
            if total < np.pi + 0.02:
                continue
            old = np.cross(pj - pi, pk - pi) + np.cross(pi - pj, pm - pj)
            t1, t2 = (k, i, m), (m, j, k)
            n1 = np.cross(pi - pk, pm - pk)
            n2 = np.cross(pj - pm, pk - pm)
            unit = old / np.linalg.norm(old)
            if min(n1 @ unit / np.linalg.norm(n1), n2 @ unit / np.linalg.norm(n2)) < 0.6:
                continue
            faces[f], faces[g] = t1, t2
            touched.update((f, g))
            # So that no later flip of this round makes the same chord.
            owner[k, m] = f
            flips += 1
        if not flips:
            break
    return faces


def neighbours(faces: np.ndarray, count: int):
    """Row-normalised adjacency as a sparse matrix."""
    from scipy.sparse import coo_matrix, diags

    i = np.concatenate([faces[:, 0], faces[:, 1], faces[:, 2]])
    j = np.concatenate([faces[:, 1], faces[:, 2], faces[:, 0]])
    a = coo_matrix((np.ones(len(i)), (i, j)), shape=(count, count)).tocsr()
    a = ((a + a.T) > 0).astype(float)
    return diags(1 / np.maximum(np.asarray(a.sum(1)).ravel(), 1)) @ a


def relax(
    surface: Surface, vertices: np.ndarray, faces: np.ndarray, fixed: np.ndarray, rounds: int
) -> np.ndarray:
    """Tangential smoothing and projection onto the surface."""
    average = neighbours(faces, len(vertices))
    move = ~fixed
    for _ in range(rounds):
        step = average @ vertices - vertices
        normal = vertex_normals(vertices, faces)
        step -= normal * (step * normal).sum(1, keepdims=True)
        vertices = vertices.copy()
        vertices[move] = surface.project(vertices[move] + 0.35 * step[move], rounds=2)
    return vertices


def _boundary_loop(faces: np.ndarray) -> list[int]:
    edges = {(int(a), int(b)) for f in faces for a, b in ((f[0], f[1]), (f[1], f[2]), (f[2], f[0]))}
    following = {b: a for a, b in edges if (b, a) not in edges}
    start = min(following)
    loop = [start]
    while following[loop[-1]] != start:
        loop.append(following[loop[-1]])
    if len(loop) != len(following):
        raise RuntimeError("the trimmed wrist has more than one boundary")
    return loop


def close_wrist(
    surface: Surface, vertices: np.ndarray, faces: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Cut off the arm and close it with a planar elliptic ring and a cap; returns the ring's indices."""
    keep = (vertices[faces][:, :, 0] < TRIM_X).all(1)
    faces = faces[keep]
    # An ear that hangs on one edge or one vertex would make the boundary double back.
    while True:
        edges = np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]])
        bare = ~np.isin(edges[:, 1] * len(vertices) + edges[:, 0], edges[:, 0] * len(vertices) + edges[:, 1])
        ears = bare.reshape(3, -1).sum(0) >= 2
        if not ears.any():
            break
        faces = faces[~ears]
    index = np.full(len(vertices), -1)
    kept = np.unique(faces)
    index[kept] = np.arange(len(kept))
    vertices, faces = vertices[kept], index[faces]

    half_z, half_y = WRIST_HALF_AXES
    turn = 2 * np.pi * np.arange(RING) / RING
    ellipse = np.stack([np.zeros(RING), half_y * np.sin(turn), half_z * np.cos(turn)], 1)

    # First ring: on the surface, so that the strip up to the wrist ring is regular.
    low, high = np.full(RING, 0.6), np.full(RING, 1.3)
    for _ in range(24):
        middle = (low + high) / 2
        inside = surface.distance(ellipse * middle[:, None] + [FIRST_RING_X, 0.0, 0.0]) < 0
        low, high = np.where(inside, middle, low), np.where(inside, high, middle)
    rings = [ellipse * low[:, None] + [FIRST_RING_X, 0.0, 0.0], ellipse + np.array([WRIST_CUT_X, 0.0, 0.0])]
    # Shallow dome, so that smooth normals on the wrist ring stay those of the arm.
    rings += [ellipse * r + [WRIST_CUT_X + x, 0.0, 0.0] for r, x in ((0.88, 1.8), (0.5, 2.7))]
    ids = [len(vertices) + RING * i + np.arange(RING) for i in range(len(rings))]
    centre = len(vertices) + RING * len(rings)
    loop = _boundary_loop(faces)
    vertices = np.concatenate([vertices, *rings, [[WRIST_CUT_X + 3.0, 0.0, 0.0]]])

    # Zip the ragged boundary to the first ring, both walked by increasing angle.
    phases = np.arctan2(vertices[:, 1] / half_y, vertices[:, 2] / half_z) % (2 * np.pi)
    if np.unwrap(phases[loop])[-1] < phases[loop[0]]:
        loop = loop[::-1]
    first = int(np.argmin(phases[loop]))
    loop = loop[first:] + loop[:first]
    ragged = [*phases[loop], phases[loop[0]] + 2 * np.pi]
    regular = [*turn, 2 * np.pi]
    added = []
    a = b = 0
    while a < len(loop) or b < RING:
        # Take the step whose new edge spans the smaller angle.
        ahead = a < len(loop) and (
            b >= RING or abs(ragged[a + 1] - regular[b]) <= abs(regular[b + 1] - ragged[a])
        )
        here, there = loop[a % len(loop)], int(ids[0][b % RING])
        if ahead:
            a += 1
            added.append((here, loop[a % len(loop)], there))
        else:
            b += 1
            added.append((here, int(ids[0][b % RING]), there))
    for outer, inner in pairwise(ids):
        for i in range(RING):
            j = (i + 1) % RING
            added += [(outer[i], outer[j], inner[i]), (outer[j], inner[j], inner[i])]
    added += [(ids[-1][i], ids[-1][(i + 1) % RING], centre) for i in range(RING)]
    closing = np.array(added)
    # All new faces run the same way round; on the cap that must be outwards, towards +x.
    p, q, r = vertices[closing[-1]]
    if np.cross(q - p, r - p)[0] < 0:
        closing = closing[:, ::-1]
    return vertices, np.concatenate([faces, closing]), ids[1]
