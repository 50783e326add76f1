"""Distances of surfaces against the nearest of very many points on them, and hands that are known apart."""

import numpy as np
import pytest

from handgraph.evaluation.surface import distances_to_surface, surface_distance
from handgraph.hand_model.files import load_open_hand

CUBE = np.array([(x, y, z) for x in (0.0, 1.0) for y in (0.0, 1.0) for z in (0.0, 1.0)])
SIDES = np.array(
    [(0, 1, 3), (0, 3, 2), (4, 6, 7), (4, 7, 5), (0, 4, 5), (0, 5, 1),
     (2, 3, 7), (2, 7, 6), (0, 2, 6), (0, 6, 4), (1, 5, 7), (1, 7, 3)]
)  # fmt: skip


def test_a_triangle_is_as_near_as_the_nearest_of_its_points(rng: np.random.Generator) -> None:
    corners = rng.normal(size=(3, 3))
    points = 2 * rng.normal(size=(200, 3))
    # All of its points on a fine grid of barycentric coordinates.
    u, v = (grid.ravel() for grid in np.meshgrid(*2 * [np.linspace(0, 1, 401)]))
    inside = u + v <= 1
    u, v = u[inside, None], v[inside, None]
    grid = (1 - u - v) * corners[0] + u * corners[1] + v * corners[2]
    expected = [np.linalg.norm(grid - point, axis=1).min() for point in points]
    found = distances_to_surface(points, corners, np.array([[0, 1, 2]]))
    np.testing.assert_allclose(found, expected, atol=0.01)
    assert (found <= np.array(expected) + 1e-12).all()


def test_triangles_without_area_are_edges_and_points() -> None:
    corners = np.array([[0.0, 0, 0], [1, 0, 0], [2, 0, 0], [5, 5, 5]])
    points = np.array([[0.5, 3.0, 0.0], [-4.0, 3.0, 0.0], [5.0, 5.0, 6.0]])
    found = distances_to_surface(points, corners, np.array([[0, 1, 2], [3, 3, 3]]))
    np.testing.assert_allclose(found, [3, 5, 1])


def test_points_about_a_cube() -> None:
    points = np.array([[0.5, 0.5, 0.5], [0.5, 0.5, 3.0], [2.0, 0.3, 0.9], [2.0, 2.0, 0.5], [1.0, 0.2, 0.3]])
    np.testing.assert_allclose(distances_to_surface(points, CUBE, SIDES), [0.5, 2, 1, 2**0.5, 0], atol=1e-12)


def test_a_surface_slid_along_itself_is_near_though_its_vertices_are_not() -> None:
    low, high = CUBE * [10, 1, 1], CUBE * [12, 1, 1] - [1, 0, 0]
    assert surface_distance(low, SIDES, high, SIDES) == pytest.approx(0.5)  # the one's ends lie inside
    assert surface_distance(low, SIDES, low, SIDES) == 0


def test_hands_scaled_apart_are_apart_both_ways_alike() -> None:
    hand = load_open_hand()
    millimetres = 1000 * hand.v_template
    moved = millimetres + np.array([0.0, 0.0, 3.0])
    ahead = surface_distance(millimetres, hand.faces, moved, hand.faces)
    assert surface_distance(moved, hand.faces, millimetres, hand.faces) == pytest.approx(ahead)
    assert 1.0 < ahead < 3.0  # most of a hand's skin faces the camera or away from it
