"""Camera and crop against equations written out pixel by pixel."""

import cv2
import numpy as np
import pytest

import handgraph as hg

NYU = hg.PinholeCamera(588.03, 587.07, 320.0, 240.0)
CENTER = np.array([30.0, -40.0, 700.0])


def crop(**changes) -> hg.Crop:
    return hg.Crop.cube(CENTER, 250.0, NYU, **changes)


def points(rng, n=50):
    """Points inside the cube of `crop`."""
    return CENTER + rng.uniform(-120, 120, (n, 3))


def test_projection_is_the_pinhole_equation():
    u, v, d = NYU.uvd_from_xyz(np.array([100.0, -50.0, 500.0]))
    assert u == pytest.approx(588.03 * 100 / 500 + 320)
    assert v == pytest.approx(587.07 * -50 / 500 + 240)
    assert d == 500


def test_published_nyu_joint_back_projects():
    """Joint 0 of NYU's first test frame, by the equation of the data set's own script."""
    x, y, z = NYU.xyz_from_uvd(np.array([169.221, 199.638, 736.417]))
    assert x == pytest.approx((169.221 - 320) * 736.417 / 588.03)
    assert y == pytest.approx((199.638 - 240) * 736.417 / 587.07)
    assert z == 736.417


def test_projection_and_back_projection_are_inverse(rng):
    xyz = rng.uniform([-300, -300, 200], [300, 300, 1500], (4, 5, 3))
    np.testing.assert_allclose(NYU.xyz_from_uvd(NYU.uvd_from_xyz(xyz)), xyz, atol=1e-9)


def test_shifted_camera_sees_the_window(rng):
    xyz = points(rng)
    window = NYU.shifted(left=100.0, top=40.0)
    np.testing.assert_allclose(window.uvd_from_xyz(xyz), NYU.uvd_from_xyz(xyz) - [100, 40, 0], atol=1e-9)


@pytest.mark.parametrize(
    "values", [(588.0, -587.0, 320.0, 240.0), (0.0, 1.0, 1.0, 1.0), (1.0, 1.0, float("nan"), 1.0)]
)
def test_impossible_cameras_are_refused(values):
    with pytest.raises(
        hg.InputError, match=r"expected finite fx,fy,cx,cy in pixels with fx and fy above zero"
    ):
        hg.PinholeCamera(*values)


def naive_crop(depth, center, cube, camera, size, mirrored, rotation):
    """Each pixel is a point at the depth of the centre, and takes the nearest reading of the frame."""
    out = np.ones((size, size))
    distance = np.full((size, size), np.inf)  # of the sought place from the edge between two pixels
    for row in range(size):
        for column in range(size):
            right = (column / (size - 1) - 0.5) * cube
            down = (row / (size - 1) - 0.5) * cube
            right, down = (
                np.cos(rotation) * right + np.sin(rotation) * down,
                -np.sin(rotation) * right + np.cos(rotation) * down,
            )
            x = center[0] + (-right if mirrored else right)
            y = center[1] + down
            u = camera.fx * x / center[2] + camera.cx
            v = camera.fy * y / center[2] + camera.cy
            distance[row, column] = min(abs(u % 1 - 0.5), abs(v % 1 - 0.5))
            nearest_u, nearest_v = round(u), round(v)
            if 0 <= nearest_u < depth.shape[1] and 0 <= nearest_v < depth.shape[0]:
                reading = depth[nearest_v, nearest_u]
                z = (reading - center[2]) / (cube / 2)
                if reading > 0 and -1 <= z <= 1:
                    out[row, column] = z
    return out, distance


@pytest.mark.parametrize("mirrored", [False, True])
@pytest.mark.parametrize(("rotation", "center"), [(0.0, CENTER), (0.7, CENTER), (0.0, [-330.0, 0.0, 700.0])])
def test_depth_crop_is_the_one_written_pixel_by_pixel(mirrored, rotation, center, rng):
    depth = rng.uniform(500, 900, (480, 640)).astype(np.float32)
    depth[rng.random(depth.shape) < 0.1] = 0
    made = hg.Crop.cube(np.array(center), 250.0, NYU, 40, mirrored=mirrored, rotation_rad=rotation)
    expected, distance = naive_crop(depth, center, 250.0, NYU, 40, mirrored, rotation)
    safe = distance > 1e-2  # elsewhere two pixels are equally near, and rounding may choose either
    assert safe.mean() > 0.9
    found = made.apply_depth(depth)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found[safe], expected[safe], atol=1e-6)
    if center[0] < -300:
        outside = found[:, -11:] if mirrored else found[:, :11]
        assert (outside == 1).all()  # left of the frame


def test_depth_crop_background():
    made = crop(size=5)
    for reading, expected in (
        (700.0, 0.0),
        (575.0, -1.0),  # the front of the cube is inside
        (825.0, 1.0),
        (574.0, 1.0),  # before the cube: background, not a wall
        (826.0, 1.0),
        (0.0, 1.0),  # no reading
        (np.nan, 1.0),
        (np.inf, 1.0),
    ):
        np.testing.assert_array_equal(made.apply_depth(np.full((480, 640), reading)), np.float32(expected))


def test_depth_crop_takes_whole_millimetres():
    frame = np.full((480, 640), 725, dtype=np.uint16)
    np.testing.assert_allclose(crop(size=7).apply_depth(frame), 25 / 125)


@pytest.mark.parametrize("mirrored", [False, True])
def test_centre_of_the_cube_is_the_middle_of_uvz(mirrored):
    np.testing.assert_allclose(crop(mirrored=mirrored).uvz_from_xyz(CENTER), [0.5, 0.5, 0], atol=1e-12)


@pytest.mark.parametrize("mirrored", [False, True])
@pytest.mark.parametrize("rotation", [0.0, 0.4, -2.0])
def test_uvz_round_trips(mirrored, rotation, rng):
    made = crop(mirrored=mirrored, rotation_rad=rotation)
    xyz = points(rng)
    np.testing.assert_allclose(made.xyz_from_uvz(made.uvz_from_xyz(xyz)), xyz, atol=1e-9)
    uvd = NYU.uvd_from_xyz(xyz)
    np.testing.assert_allclose(made.image_px(made.crop_px(uvd[:, :2])), uvd[:, :2], atol=1e-9)
    np.testing.assert_allclose(made.uvd_from_uvz(made.uvz_from_xyz(xyz)), uvd, atol=1e-9)


def test_rotation_turns_the_picture_about_the_centre(rng):
    xyz = points(rng)
    plain = crop().uvz_from_xyz(xyz) - [0.5, 0.5, 0]
    turned = crop(rotation_rad=np.pi / 2).uvz_from_xyz(xyz) - [0.5, 0.5, 0]
    # A quarter turn takes what lay to the right (+u) down (+v).
    np.testing.assert_allclose(turned, np.stack([-plain[:, 1], plain[:, 0], plain[:, 2]], -1), atol=1e-9)


def test_mirroring_flips_u_and_nothing_else(rng):
    xyz = points(rng)
    plain, mirrored = crop().uvz_from_xyz(xyz), crop(mirrored=True).uvz_from_xyz(xyz)
    np.testing.assert_allclose(mirrored, np.stack([1 - plain[:, 0], plain[:, 1], plain[:, 2]], -1), atol=1e-9)
    depth = rng.uniform(600, 800, (480, 640)).astype(np.float32)
    same = crop(mirrored=True).apply_depth(depth)[:, ::-1] == crop().apply_depth(depth)
    assert same.mean() > 0.99  # the rest lies half way between two pixels


def test_a_joint_lies_where_the_crop_shows_it():
    """One bright pixel in the frame, the uvz of its point, and the crop's pixel at that uvz."""
    xyz = np.array([60.0, 10.0, 650.0])
    u, v = np.rint(NYU.uvd_from_xyz(xyz)[:2]).astype(int)
    depth = np.zeros((480, 640), np.float32)
    depth[v - 1 : v + 2, u - 1 : u + 2] = 650
    for mirrored in (False, True):
        made = crop(mirrored=mirrored)
        uvz = made.uvz_from_xyz(xyz)
        column, row = np.rint(uvz[:2] * 95).astype(int)
        assert made.apply_depth(depth)[row, column] == pytest.approx(uvz[2])


def test_cube_is_as_many_millimetres_in_every_camera():
    """The crop's pixel is cube/(size − 1) mm at the centre's depth, whatever fx, fy and the distance."""
    for camera, z in ((NYU, 700.0), (hg.PinholeCamera(241.42, 241.42, 160.0, 120.0), 350.0)):
        made = hg.Crop.cube(np.array([0.0, 0.0, z]), 200.0, camera, 101)
        corner = made.uvz_from_xyz(np.array([100.0, -100.0, z]))
        np.testing.assert_allclose(corner, [1, 0, 0], atol=1e-12)


@pytest.mark.parametrize(
    ("center", "cube"),
    [
        ([0.0, 0.0, 0.0], 250.0),
        ([0.0, 0.0, -5.0], 250.0),
        ([0.0, np.nan, 700.0], 250.0),
        ([0.0, 0.0, 700.0], 0.0),
    ],
)
def test_impossible_cubes_are_refused(center, cube):
    with pytest.raises(hg.InputError, match="the centre must lie before the camera and the cube have a size"):
        hg.Crop.cube(np.array(center), cube, NYU)


def test_window_is_the_square_around_the_box():
    made = hg.Crop.window((10.0, 20.0, 101.0, 51.0), 51)
    corners = np.array([[10.0, -5.0], [110.0, 95.0], [60.0, 45.0]])  # first and last pixel centre, middle
    np.testing.assert_allclose(made.crop_px(corners), [[0, 0], [50, 50], [25, 25]], atol=1e-9)
    mirrored = hg.Crop.window((10.0, 20.0, 101.0, 51.0), 51, mirrored=True)
    np.testing.assert_allclose(mirrored.crop_px(corners), [[50, 0], [0, 50], [25, 25]], atol=1e-9)


def test_window_of_its_own_size_is_the_image(rng):
    image = rng.integers(0, 256, (32, 32, 3), dtype=np.uint8)
    np.testing.assert_array_equal(hg.Crop.window((0.0, 0.0, 32.0, 32.0), 32).apply_image(image), image)
    flipped = hg.Crop.window((0.0, 0.0, 32.0, 32.0), 32, mirrored=True).apply_image(image)
    np.testing.assert_array_equal(flipped, image[:, ::-1])


def test_window_outside_the_image_is_black():
    white = np.full((20, 20, 3), 255, np.uint8)
    shown = hg.Crop.window((-10.0, 0.0, 20.0, 20.0), 20).apply_image(white)
    assert (shown[:, :10] == 0).all()
    assert (shown[:, 10:] == 255).all()


def test_shrinking_a_picture_averages_instead_of_skipping(rng):
    noise = rng.integers(0, 256, (320, 320, 3), dtype=np.uint8)
    made = hg.Crop.window((0.0, 0.0, 320.0, 320.0), 40)
    shrunk = made.apply_image(noise).astype(float)
    skipped = cv2.warpAffine(noise, made.crop_from_image, (40, 40), flags=cv2.INTER_LINEAR).astype(float)
    # Averages of eight by eight pixels of noise hardly differ; samples of it differ as much as the noise.
    assert shrunk.std() < 0.25 * skipped.std()
    ramp = np.repeat(np.linspace(0, 250, 320).astype(np.uint8)[None, :, None], 320, 0).repeat(3, 2)
    np.testing.assert_allclose(made.apply_image(ramp)[20, 1:-1, 0], np.linspace(0, 250, 40)[1:-1], atol=1.5)


@pytest.mark.parametrize("box", [(0.0, 0.0, 0.0, 5.0), (0.0, 0.0, 5.0, -5.0), (float("nan"), 0.0, 5.0, 5.0)])
def test_empty_boxes_are_refused(box):
    with pytest.raises(hg.InputError, match="expected x,y,w,h in pixels with w and h above zero"):
        hg.Crop.window(box, 32)


def test_colour_crop_has_no_depth():
    made = hg.Crop.window((0.0, 0.0, 5.0, 5.0), 32, NYU)
    for use in (
        lambda: made.apply_depth(np.zeros((5, 5))),
        lambda: made.uvz_from_xyz(CENTER),
        lambda: made.xyz_from_uvz(CENTER),
    ):
        with pytest.raises(hg.InputError, match=r"no depth cube or no camera: make it with Crop\.cube"):
            use()


@pytest.mark.parametrize("corner", [(0.0, 0.0), (150.0, 90.0), (-80.0, 40.0), (230.0, 150.0)])
@pytest.mark.parametrize("side", [90.0, 200.0])
def test_a_part_of_a_large_picture_is_blurred_like_the_whole(corner, side, rng):
    image = rng.integers(0, 256, (240, 320, 3), dtype=np.uint8)
    made = hg.Crop.window((*corner, side, side), 40)
    blurred = cv2.GaussianBlur(image, (0, 0), 0.4 * (side - 1) / 39)
    wanted = cv2.warpAffine(blurred, made.crop_from_image, (40, 40), flags=cv2.INTER_LINEAR)
    # Sampling positions are rounded to 1/32 of a pixel, from another corner.
    np.testing.assert_allclose(made.apply_image(image).astype(int), wanted, atol=6)
    outside = hg.Crop.window((-1000.0, 0.0, side, side), 40).apply_image(image)
    assert (outside == 0).all()


@pytest.mark.parametrize("mirrored", [False, True])
@pytest.mark.parametrize("rotation", [0.0, 0.7, 3.0])
def test_crop_frame_and_its_camera_project_to_the_crop(mirrored, rotation, rng):
    points = rng.uniform([-100, -100, 400], [100, 100, 600], (21, 3))
    camera = hg.PinholeCamera(500.0, 480.0, 320.0, 240.0)
    made = hg.Crop.window((200.0, 100.0, 150.0, 180.0), 128, camera, mirrored=mirrored, rotation_rad=rotation)
    turned = points @ made.crop_from_camera.T
    projected = turned @ made.crop_camera.T
    uv = made.crop_px(camera.uvd_from_xyz(points)[:, :2]) / 127
    np.testing.assert_allclose(projected[:, :2] / projected[:, 2:], uv, atol=1e-12)
    assert np.linalg.det(made.crop_from_camera) == pytest.approx(-1 if mirrored else 1)
    np.testing.assert_array_equal(turned[:, 2], points[:, 2])
    # A wrong reading: points that stay in the camera's own frame.
    if mirrored or rotation:
        wrong = points @ made.crop_camera.T
        assert np.abs(wrong[:, :2] / wrong[:, 2:] - uv).max() > 0.1
