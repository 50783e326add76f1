"""The z-buffer against geometry known in closed form."""

import numpy as np

from handgraph.synthetic.render import HAND, OBJECT, PLANE, draw_mesh, draw_plane, ellipsoid, prism

CAMERA = np.array([300.0, 310.0, 63.5, 47.5])
RAY = np.stack(
    [
        *np.meshgrid((np.arange(128) - 63.5) / 300, (np.arange(96) - 47.5) / 310),
        np.ones((96, 128)),
    ],
    axis=-1,
)


def empty() -> tuple[np.ndarray, np.ndarray]:
    return np.zeros((96, 128), np.float32), np.zeros((96, 128), np.uint8)


def test_plane_depth_is_exact() -> None:
    inverse, label = empty()
    normal = np.array([0.3, -0.5, -0.8])
    draw_plane(normal, -400.0, np.array([0.0, 0.0, 1.0]), CAMERA, inverse, label, PLANE)
    expected = -400.0 / (RAY @ normal)
    seen = expected > 50
    assert np.allclose(1 / inverse[seen], expected[seen], rtol=1e-5)
    assert (label[seen] == PLANE).all()


def test_box_face_depth_is_exact_and_its_outline_right() -> None:
    inverse, label = empty()
    points, faces = prism(np.array([0.0, 0.0, 500.0]), np.eye(3), np.array([40.0, 25.0, 30.0]), 4)
    draw_mesh(points, faces, CAMERA, inverse, label, OBJECT, False)
    depth = np.where(inverse > 0, 1 / np.maximum(inverse, 1e-9), np.inf)
    x, y = RAY[..., 0] * 470, RAY[..., 1] * 470  # where the ray meets the front face
    front = (np.abs(x) < 39.9) & (np.abs(y) < 24.9)
    assert np.allclose(depth[front], 470, rtol=1e-5)
    outside = (np.abs(x) > 40.1) | (np.abs(y) > 25.1)
    assert np.isinf(depth[outside]).all()


def test_sphere_depth_agrees_with_ray_and_sphere() -> None:
    """Of a polyhedron inscribed in the sphere, so slightly behind it, by at most its own coarseness."""
    inverse, label = empty()
    center, radius = np.array([20.0, -10.0, 450.0]), 60.0
    points, faces = ellipsoid(center, np.eye(3), np.full(3, radius))
    draw_mesh(points, faces, CAMERA, inverse, label, HAND, False)
    a, b = (RAY**2).sum(-1), RAY @ center
    root = b**2 - a * (center @ center - radius**2)
    inner = root > 0.35 * root.max()
    expected = (b - np.sqrt(np.maximum(root, 0))) / a
    gap = 1 / inverse[inner] - expected[inner]
    assert gap.min() > -0.05
    assert gap.max() < radius * 0.12


def test_nearer_surfaces_win_in_any_order_and_backs_are_culled() -> None:
    near = np.array([[-30.0, -30, 300], [30, -30, 300], [0, 30, 300]])
    far = near * [3, 3, 2]
    toward, away = np.array([[0, 2, 1]], np.int32), np.array([[0, 1, 2]], np.int32)
    for order in ((near, far), (far, near)):
        inverse, label = empty()
        for points in order:
            draw_mesh(points, toward, CAMERA, inverse, label, 1 if points is near else 2, True)
        assert label[47, 63] == 1
        assert abs(1 / inverse[47, 63] - 300) < 1e-2
    inverse, label = empty()
    draw_mesh(near, away, CAMERA, inverse, label, 1, True)
    assert not label.any()
    draw_mesh(near, away, CAMERA, inverse, label, 1, False)
    assert label.any()


def test_triangles_behind_the_camera_are_left_out() -> None:
    inverse, label = empty()
    points = np.array([[-30.0, -30, 300], [30, -30, -300], [0, 30, 300]])
    draw_mesh(points, np.array([[0, 1, 2]], np.int32), CAMERA, inverse, label, 1, False)
    assert not label.any()
