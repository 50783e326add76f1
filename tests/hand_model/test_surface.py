"""The hand laid on a depth image: against finite differences, the drawn hand, and its mirror image."""

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest

from handgraph import ConfigError, Crop, InputError, PinholeCamera
from handgraph.hand_model import HandModel, fitting, load_open_hand, surface
from handgraph.hand_model.fitting import Fit, posed_vertices_mm, rotations_of, vertices_mm
from handgraph.hand_model.surface import fit_surface
from handgraph.meshes import faces_of, render
from handgraph.synthetic.depth import DepthSynthesizer

CAMERA = PinholeCamera(475.0, 470.0, 315.0, 245.0)
SIZE_PX = (640, 480)
HAND = load_open_hand()


class Drawn:
    """Hands of unseen subjects alone before a camera, drawn without noise, and joints some way off."""

    def __init__(self, n: int = 6, seed: int = 3, off_mm: float = 5.0) -> None:
        synthesizer, random = DepthSynthesizer(seed, "test"), np.random.default_rng(seed)
        samples = [synthesizer.sample(index) for index in range(n)]
        self.pose = np.stack([sample.pose for sample in samples]).astype(np.float64)
        self.shape = np.stack([sample.shape for sample in samples]).astype(np.float64)
        wrists = random.normal([0, 0, 600.0], [60, 40, 60], (n, 3))
        rotations = rotations_of(self.pose.reshape(n, 16, 3))
        still = fitting._joints(fitting._rig(HAND), rotations, np.zeros((n, 3)), self.shape)
        self.joints = (still - still[:, :1] + wrists[:, None])[:, fitting.MANO.gather]
        self.skins = [
            posed_vertices_mm(HAND, pose, shape, joints, "right")
            for pose, shape, joints in zip(self.pose, self.shape, self.joints, strict=True)
        ]
        self.frames = [render(skin, HAND.faces, CAMERA, SIZE_PX)[0] for skin in self.skins]
        self.crops = [Crop.cube(joints.mean(axis=0), 250.0, CAMERA, 96) for joints in self.joints]
        self.images = np.stack([c.apply_depth(f) for c, f in zip(self.crops, self.frames, strict=True)])
        # As a network errs: the whole hand a little, each joint more.
        whole = random.normal(0, 0.5 * off_mm, (n, 1, 3))
        self.seen = self.joints + whole + random.normal(0, off_mm / 1.6, (n, 21, 3))

    def error(self, joints: np.ndarray) -> float:
        return float(np.linalg.norm(joints - self.joints, axis=-1).mean())


@pytest.fixture(scope="module")
def drawn() -> Drawn:
    return Drawn()


def off_surface(fit: Fit, drawn: Drawn) -> float:
    """Median difference, mm, along the rays, of the depth image from a picture of the fitted hand."""
    distances = []
    for skin, crop, image in zip(vertices_mm(HAND, fit), drawn.crops, drawn.images, strict=True):
        row, column = np.nonzero(image < 1)
        last = crop.size - 1
        points = crop.xyz_from_uvz(np.column_stack([column / last, row / last, image[row, column]]))
        again = render(skin, HAND.faces, CAMERA, SIZE_PX)[0]
        u, v = np.round(CAMERA.uvd_from_xyz(points)[:, :2]).astype(int).T
        there = again[v, u]
        distances.append(np.abs(there - points[:, 2])[there > 0])
    return float(np.median(np.concatenate(distances)))


def test_the_hand_is_nearer_to_the_truth_and_to_the_surface_than_its_joints_said(drawn: Drawn) -> None:
    joints_alone = fit_surface(HAND, drawn.images, drawn.crops, drawn.seen, surface=0.0)
    laid = fit_surface(HAND, drawn.images, drawn.crops, drawn.seen)
    assert drawn.error(drawn.seen) > 5
    assert drawn.error(joints_alone.joints_mm) < drawn.error(drawn.seen)
    assert drawn.error(laid.joints_mm) < 0.5 * drawn.error(drawn.seen)
    assert drawn.error(laid.joints_mm) < 0.7 * drawn.error(joints_alone.joints_mm)
    assert off_surface(laid, drawn) < 1.0 < off_surface(joints_alone, drawn)


def test_the_true_hand_stays_where_it_is(drawn: Drawn) -> None:
    laid = fit_surface(HAND, drawn.images, drawn.crops, drawn.joints, shape=drawn.shape)
    assert drawn.error(laid.joints_mm) < 0.8
    np.testing.assert_array_equal(laid.shape, drawn.shape)  # given, not fitted


def test_pose_shape_and_place_of_the_answer_are_those_of_its_joints(drawn: Drawn) -> None:
    laid = fit_surface(HAND, drawn.images, drawn.crops, drawn.seen)
    rotations = rotations_of(laid.pose.reshape(-1, 16, 3))
    joints = fitting._joints(fitting._rig(HAND), rotations, laid.translation_mm, laid.shape)
    np.testing.assert_allclose(joints[:, fitting.MANO.gather], laid.joints_mm, atol=1e-6)
    for index, skin in enumerate(vertices_mm(HAND, laid)):
        again = posed_vertices_mm(HAND, laid.pose[index], laid.shape[index], laid.joints_mm[index], "right")
        np.testing.assert_allclose(again, skin, atol=1e-6)


def test_a_left_hand_is_laid_as_its_mirror_image(drawn: Drawn) -> None:
    right = fit_surface(HAND, drawn.images, drawn.crops, drawn.seen)
    mirror = np.array([-1.0, 1.0, 1.0])
    seen = PinholeCamera(CAMERA.fx, CAMERA.fy, SIZE_PX[0] - 1 - CAMERA.cx, CAMERA.cy)
    crops = [
        Crop.cube(joints.mean(axis=0) * mirror, 250.0, seen, 96, mirrored=True) for joints in drawn.joints
    ]
    images = np.stack([c.apply_depth(f[:, ::-1]) for c, f in zip(crops, drawn.frames, strict=True)])
    left = fit_surface(HAND, images, crops, drawn.seen * mirror)
    assert set(left.sides) == {"left"}
    # Pixels that fall between two are rounded to either side, so the crops differ at a few edges.
    np.testing.assert_allclose(left.joints_mm * mirror, right.joints_mm, atol=0.3)
    skin = vertices_mm(HAND, left)[0]
    again = posed_vertices_mm(HAND, left.pose[0], left.shape[0], left.joints_mm[0], "left")
    np.testing.assert_allclose(again, skin, atol=1e-6)
    picture = render(skin, faces_of(HAND, "left"), seen, SIZE_PX)[0]
    both = (picture > 0) & (drawn.frames[0][:, ::-1] > 0)
    assert both.sum() > 0.85 * (picture > 0).sum()


def test_hands_are_laid_one_by_one_as_together_and_by_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn = Drawn(9)
    kept = [drawn.images.copy(), drawn.seen.copy()]
    asked: list[int] = []

    class Pool(ThreadPoolExecutor):
        def submit(self, *args: Any, **kwargs: Any) -> Any:
            asked.append(1)
            return super().submit(*args, **kwargs)

    monkeypatch.setattr(fitting, "_threads", lambda: 2)
    monkeypatch.setattr(fitting, "ThreadPoolExecutor", Pool)
    together = fit_surface(HAND, drawn.images, drawn.crops, drawn.seen)
    assert asked
    for index in (0, 8):
        one = slice(index, index + 1)
        alone = fit_surface(HAND, drawn.images[one], drawn.crops[one], drawn.seen[one])
        np.testing.assert_array_equal(alone.joints_mm[0], together.joints_mm[index])
        np.testing.assert_array_equal(alone.energy[0], together.energy[index])
    np.testing.assert_array_equal(drawn.images, kept[0])
    np.testing.assert_array_equal(drawn.seen, kept[1])


def test_where_nothing_is_seen_the_joints_hold(drawn: Drawn) -> None:
    empty = np.ones_like(drawn.images)
    alone = fit_surface(HAND, drawn.images, drawn.crops, drawn.seen, surface=0.0)
    laid = fit_surface(HAND, empty, drawn.crops, drawn.seen)
    np.testing.assert_array_equal(laid.joints_mm, alone.joints_mm)


def parts(fit: Fit, alone: Fit, drawn: Drawn, hidden: np.ndarray) -> tuple[float, float, float]:
    """Mean errors: of hidden joints, as the joints alone say them, and of all laid ones."""
    errors = [np.linalg.norm(one.joints_mm - drawn.joints, axis=-1) for one in (fit, alone)]
    return float(errors[0][hidden].mean()), float(errors[1][hidden].mean()), float(errors[0].mean())


@pytest.mark.parametrize("what", ["frame's edge", "something near", "missing readings"])
def test_where_nobody_knows_what_the_camera_saw_the_joints_hold(what: str, drawn: Drawn) -> None:
    images, hidden = [], np.zeros((len(drawn.joints), 21), bool)
    for index, (frame, crop) in enumerate(zip(drawn.frames, drawn.crops, strict=True)):
        pixels = CAMERA.uvd_from_xyz(drawn.joints[index])[:, :2]
        places = crop.crop_px(pixels)
        image = crop.apply_depth(frame)
        if what == "missing readings":
            for tip in (8, 16):
                c, r = np.round(places[tip]).astype(int)
                image[max(r - 2, 0) : r + 3, max(c - 2, 0) : c + 3] = 1.0
                hidden[index, tip] = True
        else:
            edge = int(np.percentile(pixels[:, 0], 35))
            hidden[index] = pixels[:, 0] < edge
            if what == "frame's edge":
                image = crop.apply_depth(np.where(np.arange(SIZE_PX[0]) < edge, 0.0, frame))
            else:
                near = np.where(np.arange(SIZE_PX[0]) < edge, 300.0, frame)
                image = crop.apply_depth(near, before=-1.0)
        images.append(image)
    given = np.stack(images)
    alone = fit_surface(HAND, given, drawn.crops, drawn.seen, surface=0.0)
    laid = fit_surface(HAND, given, drawn.crops, drawn.seen)
    there, by_joints, everywhere = parts(laid, alone, drawn, hidden)
    assert there < by_joints
    assert everywhere < 0.7 * drawn.error(alone.joints_mm)


def test_what_hides_the_hand_or_lies_behind_it_does_not_draw_it(drawn: Drawn) -> None:
    """A board before half of it and a wall behind it: the visible half is laid as it was."""
    laid = fit_surface(HAND, drawn.images, drawn.crops, drawn.seen)
    images = drawn.images.copy()
    images[images >= 1] = 0.9  # a wall, 112 mm behind the middle
    walled = fit_surface(HAND, images, drawn.crops, drawn.seen)
    assert np.abs(walled.joints_mm - laid.joints_mm).mean() < 0.3
    images[:, :40] = -0.9  # a board, 112 mm before it
    hidden = fit_surface(HAND, images, drawn.crops, drawn.seen)
    alone = fit_surface(HAND, images, drawn.crops, drawn.seen, surface=0.0)
    assert drawn.error(hidden.joints_mm) < 0.7 * drawn.error(alone.joints_mm)


@pytest.mark.parametrize("mirrored", [False, True])
def test_a_turned_crop_lays_the_same_hand(mirrored: bool, drawn: Drawn) -> None:
    laid = fit_surface(HAND, drawn.images, drawn.crops, drawn.seen)
    flip = np.array([-1.0 if mirrored else 1.0, 1.0, 1.0])
    camera = (
        PinholeCamera(CAMERA.fx, CAMERA.fy, SIZE_PX[0] - 1 - CAMERA.cx, CAMERA.cy) if mirrored else CAMERA
    )
    crops = [
        Crop.cube(joints.mean(axis=0) * flip, 250.0, camera, 96, rotation_rad=2.5, mirrored=mirrored)
        for joints in drawn.joints
    ]
    frames = [frame[:, ::-1] if mirrored else frame for frame in drawn.frames]
    images = np.stack([crop.apply_depth(frame) for crop, frame in zip(crops, frames, strict=True)])
    turned = fit_surface(HAND, images, crops, drawn.seen * flip)
    assert np.abs(turned.joints_mm * flip - laid.joints_mm).mean() < 0.3
    for index, skin in enumerate(vertices_mm(HAND, turned)):
        side = turned.sides[index]
        again = posed_vertices_mm(
            HAND, turned.pose[index], turned.shape[index], turned.joints_mm[index], side
        )
        np.testing.assert_allclose(again, skin, atol=1e-6)


@pytest.mark.parametrize("distance_mm", [260.0, 400.0, 1200.0])
def test_points_pull_the_nearest_vertex_within_reach(distance_mm: float) -> None:
    """The cells of the picture against the distances of every point from every vertex."""
    drawn, random = Drawn(1), np.random.default_rng(0)
    crop = Crop.cube(np.array([10.0, -20.0, distance_mm]), 250.0, CAMERA, 64)
    image = np.where(random.random((64, 64)) < 0.2, random.uniform(-0.9, 0.9, (64, 64)), 1.0)
    skin = drawn.skins[0] - drawn.joints[0].mean(axis=0) + [10.0, -20.0, distance_mm]
    count = len(skin)
    normals = random.normal(size=(count, 3))
    normals /= np.linalg.norm(normals, axis=1, keepdims=True)
    front = random.random(count) < 0.5
    pull, offset, cells = np.empty(count), np.empty(count), np.empty((66, 66), np.int64)
    reach = 12.0
    surface._onto_points(
        image, crop.crop_camera, distance_mm, 125.0, reach, 1.0, skin, normals, front, cells,
        np.empty(count, np.int64), pull, offset,
    )  # fmt: skip
    row, column = np.nonzero(image < 1)
    points = crop.xyz_from_uvz(np.column_stack([column / 63, row / 63, image[row, column]]))
    turned = points @ crop.crop_from_camera.T
    away = np.linalg.norm(turned[:, None] - skin[None, front], axis=-1)
    nearest, weights, sums = np.nonzero(front)[0][away.argmin(axis=1)], np.zeros(count), np.zeros(count)
    for point, v in zip(turned[away.min(axis=1) < reach], nearest[away.min(axis=1) < reach], strict=True):
        along = normals[v] @ (skin[v] - point)
        weight = 1 / (1 + (along / surface.SOFT_MM) ** 2) ** 2
        weights[v] += weight
        sums[v] += weight * along
    assert (weights > 0).sum() > 10
    np.testing.assert_allclose(pull, weights, atol=1e-9)
    np.testing.assert_allclose(
        offset[weights > 0], (sums / np.maximum(weights, 1e-12))[weights > 0], atol=1e-6
    )


def test_surer_joints_hold_more(drawn: Drawn) -> None:
    weights = np.ones(21)
    weights[8] = 1e4
    laid = fit_surface(HAND, drawn.images, drawn.crops, drawn.seen, weights=weights)
    plain = fit_surface(HAND, drawn.images, drawn.crops, drawn.seen)
    off = np.linalg.norm(laid.joints_mm - drawn.seen, axis=-1)[:, 8].mean()
    assert off < 0.3 * np.linalg.norm(plain.joints_mm - drawn.seen, axis=-1)[:, 8].mean()


def test_derivatives_of_the_skin_are_those_of_finite_differences() -> None:
    """Of a hand whose pose does not correct its skin: that part is left out of the steps on purpose."""
    drawn = Drawn(1)
    rig, skin = fitting._rig(HAND), surface._skin(HAND)
    skin = skin._replace(by_pose=np.zeros_like(skin.by_pose))
    rotations = rotations_of(drawn.pose.reshape(16, 3))

    def skinned(unknowns: np.ndarray) -> tuple[np.ndarray, Any, np.ndarray]:
        turns = np.concatenate([unknowns[45:48], unknowns[:45]]).reshape(16, 3)
        now = np.ascontiguousarray(rotations @ rotations_of(turns))
        shape = drawn.shape[0] + unknowns[51:]
        posed, rest, at = fitting._work(), np.empty_like(skin.vertices), np.empty_like(skin.vertices)
        fitting._pose(rig, now, np.array([0.0, 0.0, 500.0]) + unknowns[48:51], shape, posed)
        surface._rest(skin, now, shape, rest)
        surface._carried(skin, posed, rest, at)
        return at, posed, rest

    _, posed, rest = skinned(np.zeros(61))
    # The joints' own derivatives by shape come with their normal equations.
    rates = np.zeros((16, 3, 10))
    nothing, none = np.zeros((21, 2)), np.zeros(21)
    fitting._assemble(
        rig, posed, nothing, np.zeros((2, 3)), np.zeros((21, 3)), none, none, False, rotations,
        drawn.shape[0], rotations, np.zeros(5), True, True, True, rates, np.zeros((3, 61)), np.zeros(61),
        np.zeros((61, 61)), np.zeros(61),
    )  # fmt: skip
    step, random = 1e-5, np.random.default_rng(0)
    slopes = np.stack(
        [(skinned(step * one)[0] - skinned(-step * one)[0]) / (2 * step) for one in np.eye(61)], axis=-1
    )
    for v in random.choice(len(rest), 40, replace=False):
        way = random.normal(size=3)
        row = np.empty(61)
        surface._along(v, *way, skin, rig, posed, rest, rates, True, row)
        np.testing.assert_allclose(row, way @ slopes[v], atol=1e-4, rtol=1e-5)


def test_beside_is_the_way_from_the_nearest_pixel_that_could_be_it() -> None:
    crop = Crop.cube(np.array([0.0, 0.0, 500.0]), 190.0, PinholeCamera(500.0, 500.0, 0.0, 0.0), 96)
    image = np.ones((96, 96))
    image[:, :48] = 0.0  # a surface at 500 mm left of the middle
    away = np.empty(2)

    def beside(x: float, y: float, z: float) -> float:
        return float(surface._beside(image, crop.crop_camera, 500.0, 95.0, x, y, z, away))

    assert beside(-20.0, 0.0, 500.0) == 0.0
    # Pixel 47 is half a pixel, a millimetre, left of the middle; pixels are 2 mm wide there.
    assert beside(9.0, 0.5, 500.0) == pytest.approx(10.0, abs=0.6)
    np.testing.assert_allclose(away, [1.0, 0.0], atol=0.1)
    assert beside(-20.0, 0.0, 520.0) == 0.0  # hidden by the surface
    assert beside(-20.0, 0.0, 470.0) < 0.0  # the surface lies 30 mm behind it, all around
    assert beside(80.0, 0.0, 500.0) < 0.0  # nothing near
    assert beside(300.0, 0.0, 500.0) == 0.0  # outside the crop
    assert beside(9.0, 0.5, 600.0) == beside(9.0, 0.5, 400.0) == 0.0  # outside the cube


def test_a_hand_without_joint_limits_is_laid_too(model: HandModel) -> None:
    drawn = Drawn(2)
    laid = fit_surface(model, drawn.images, drawn.crops, drawn.seen)
    assert np.isfinite(laid.joints_mm).all()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"images": np.ones((2, 90, 90))}, r"images: found shape \(2, 90, 90\), expected .*\(2, 96, 96\)"),
        ({"images": np.full((2, 96, 96), np.nan)}, "images: hold a number that is not from -1 to 1"),
        ({"images": np.full((2, 96, 96), 500.0)}, "images: hold a number that is not from -1 to 1"),
        ({"joints_mm": np.zeros((2, 14, 3))}, r"joints_mm: expected finite .*found shape \(2, 14, 3\)"),
        ({"joints_mm": np.full((2, 21, 3), np.nan)}, "joints_mm: expected finite numbers"),
        ({"weights": np.ones(20)}, "weights: found shape"),
        ({"weights": -np.ones(21)}, "weights: expected finite numbers from 0"),
        ({"shape": np.zeros(9)}, "shape: found shape"),
        ({"surface": -1.0}, "surface is -1.0, expected a finite number from 0"),
    ],
)
def test_what_does_not_fit_together_says_so(drawn: Drawn, change: dict[str, Any], message: str) -> None:
    given: dict[str, Any] = {"images": drawn.images[:2], "joints_mm": drawn.seen[:2], **change}
    images, joints_mm = given.pop("images"), given.pop("joints_mm")
    with pytest.raises(InputError, match=message):
        fit_surface(HAND, images, drawn.crops[:2], joints_mm, **given)


def test_a_colour_crop_and_a_left_layer_are_refused(drawn: Drawn) -> None:
    window = [Crop.window((0.0, 0.0, 96.0, 96.0), 96, CAMERA)]
    with pytest.raises(InputError, match="a crop without depth cube or camera"):
        fit_surface(HAND, drawn.images[:1], window, drawn.seen[:1])
    with pytest.raises(ConfigError, match="needs a right hand"):
        fit_surface(HAND.mirrored(), drawn.images[:1], drawn.crops[:1], drawn.seen[:1])
