"""The finder on drawn scenes whose hand is known, on synthetic frames, and on real ones if there are some."""

import json
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from scipy.sparse.csgraph import dijkstra

from handgraph import InputError, PinholeCamera, localize
from handgraph.images import read_depth
from handgraph.localize import _compiled_spread, _label, _spread_by_fronts, find_hands
from handgraph.synthetic import DepthSynthesizer

CAMERA = PinholeCamera(475.0, 475.0, 320.0, 240.0)


def draw_arm(depth_mm: np.ndarray, palm: tuple[int, int], z_mm: float) -> None:
    """An open hand at pixel `palm`, fingers up, its forearm leaving the frame at the bottom."""
    u, v = palm
    mask = np.zeros(depth_mm.shape, np.uint8)
    scale = 475.0 / z_mm

    def px(x_mm: float, y_mm: float) -> tuple[int, int]:
        return round(u + x_mm * scale), round(v + y_mm * scale)

    cv2.ellipse(mask, px(0, 0), (round(42 * scale), round(48 * scale)), 0, 0, 360, 1, -1)
    for x, length in ((-32, 75), (-11, 90), (11, 95), (32, 85)):
        cv2.line(mask, px(x, -30), px(1.5 * x, -30 - length), 1, round(17 * scale))
    cv2.line(mask, px(30, 10), px(85, -35), 1, round(20 * scale))
    cv2.line(mask, px(0, 30), (u, depth_mm.shape[0] + 50), 1, round(54 * scale))
    depth_mm[mask > 0] = z_mm


def distance_mm(found: np.ndarray, palm: tuple[int, int], z_mm: float) -> float:
    return float(np.linalg.norm(found - CAMERA.xyz_from_uvd(np.array([*palm, z_mm], dtype=np.float64))))


@pytest.fixture
def empty() -> np.ndarray:
    return np.zeros((480, 640), np.float32)


@pytest.mark.parametrize("palm", [(200, 200), (420, 260)])
@pytest.mark.parametrize("z_mm", [450.0, 600.0, 900.0])
def test_arm_that_enters_at_the_border(empty: np.ndarray, palm: tuple[int, int], z_mm: float) -> None:
    draw_arm(empty, palm, z_mm)
    best = find_hands(empty, CAMERA)[0]
    assert distance_mm(best.center_xyz_mm, palm, z_mm) < 45
    x, y, w, h = best.box_px
    assert x < palm[0] < x + w
    assert y < palm[1] < y + h
    assert best.cube_mm == 250


def test_wall_and_body_behind_do_not_matter(empty: np.ndarray) -> None:
    empty[:] = 1500.0
    cv2.ellipse(empty, (330, 400), (170, 250), 0, 0, 360, 1000.0, -1)
    draw_arm(empty, (300, 220), 600.0)
    assert distance_mm(find_hands(empty, CAMERA)[0].center_xyz_mm, (300, 220), 600.0) < 45


def test_hand_lying_above_a_slanted_table(empty: np.ndarray, rng: np.random.Generator) -> None:
    rows = np.arange(480, dtype=np.float32)[:, None]
    empty[:] = 900.0 - rows + rng.normal(0, 2, (480, 640))
    table = empty.copy()
    hand = np.zeros_like(empty)
    draw_arm(hand, (320, 220), 650.0)
    empty[hand > 0] = table[hand > 0] - 35.0
    best = find_hands(empty, CAMERA)[0]
    assert distance_mm(best.center_xyz_mm, (320, 220), float(table[220, 320]) - 35) < 50


def test_nothing_and_a_bare_wall_give_no_candidate(empty: np.ndarray) -> None:
    assert find_hands(empty, CAMERA) == []
    assert find_hands(empty + 800, CAMERA) == []


def test_crumbs_are_no_hand(empty: np.ndarray) -> None:
    empty[100:110, 100:110] = 600.0
    assert find_hands(empty, CAMERA) == []


def test_hand_cut_out_before_an_empty_frame(empty: np.ndarray) -> None:
    """As MSRA's frames come: no arm beyond the wrist, nothing else."""
    draw_arm(empty, (320, 240), 400.0)
    cut = np.zeros_like(empty)
    cut[60:310, 180:460] = empty[60:310, 180:460]
    small = np.ascontiguousarray(cut[::2, ::2])
    camera = PinholeCamera(237.5, 237.5, 160.0, 120.0)
    best = find_hands(small, camera)[0]
    assert distance_mm(best.center_xyz_mm, (320, 240), 400.0) < 45


def test_box_chooses_among_two_hands(empty: np.ndarray) -> None:
    draw_arm(empty, (160, 220), 550.0)
    draw_arm(empty, (480, 220), 650.0)
    near = find_hands(empty, CAMERA)
    assert len(near) >= 2
    best = find_hands(empty, CAMERA, box_px=(380.0, 80.0, 220.0, 260.0))[0]
    assert distance_mm(best.center_xyz_mm, (480, 220), 650.0) < 45


def test_something_in_a_box_is_a_candidate_even_if_it_looks_like_no_hand(empty: np.ndarray) -> None:
    empty[200:220, 300:312] = 700.0
    (only,) = find_hands(empty, CAMERA, box_px=(280.0, 180.0, 60.0, 60.0))
    np.testing.assert_allclose(only.center_xyz_mm[2], 700, atol=1)
    assert only.score == 0


@pytest.mark.parametrize("box", [(700.0, 0.0, 50.0, 50.0), (-90.0, 0.0, 50.0, 50.0)])
def test_box_outside_the_frame(empty: np.ndarray, box: tuple[float, float, float, float]) -> None:
    with pytest.raises(InputError, match="lies outside the frame of 640x480 pixels"):
        find_hands(empty + 600, CAMERA, box_px=box)


def test_box_without_size(empty: np.ndarray) -> None:
    with pytest.raises(InputError, match="w and h above zero"):
        find_hands(empty + 600, CAMERA, box_px=(10.0, 10.0, 0.0, 5.0))


def test_same_frame_same_answer(empty: np.ndarray) -> None:
    empty[:] = 1500.0
    draw_arm(empty, (300, 220), 600.0)
    first, second = find_hands(empty, CAMERA), find_hands(empty, CAMERA)
    assert [tuple(one.center_xyz_mm) for one in first] == [tuple(one.center_xyz_mm) for one in second]


SPREADS = pytest.mark.parametrize("spread", [_spread_by_fronts, _compiled_spread()], ids=["fronts", "queue"])


@SPREADS
def test_distance_along_the_surface_goes_around_a_gap(spread: localize.Spread) -> None:
    """A horseshoe on a plane: from one end to the other the way is around, not across."""
    rows, columns = np.mgrid[0:21, 0:21].astype(np.float32)
    xyz = np.dstack([columns * 5, rows * 5, np.full_like(rows, 500)])
    distance = np.full((21, 21), np.float32(1e9))
    distance[0:18, 8:13] = -1  # the gap: off the surface
    spread(xyz, distance, np.array([0]), np.float32(1e9))
    np.testing.assert_allclose(distance[10, 0], 50, rtol=1e-5)
    np.testing.assert_allclose(distance[10, 4], (4 * np.sqrt(2) + 6) * 5, rtol=1e-5)
    assert distance[0, 20] > 150, "the straight way would be 100 mm"
    before = distance.copy()
    spread(xyz, distance, np.array([20]), np.float32(1e9))
    assert distance[0, 20] == 0
    assert (distance <= before).all()


def test_both_ways_along_a_surface_agree_to_the_last_bit(rng: np.random.Generator) -> None:
    for _ in range(20):
        height, width = rng.integers(1, 30, 2)
        rows, columns = np.mgrid[0:height, 0:width].astype(np.float32)
        xyz = np.dstack([columns * 5, rows * 5, 500 + rng.normal(0, 8, rows.shape)]).astype(np.float32)
        first = np.where(rng.random(rows.shape) < 0.7, np.float32(1e9), np.float32(-1))
        second = first.copy()
        for count, reach in ((1, 1e9), (3, 60.0)):
            starts = rng.integers(0, height * width, count)
            _spread_by_fronts(xyz, first, starts, np.float32(reach))
            _compiled_spread()(xyz, second, starts, np.float32(reach))
            np.testing.assert_array_equal(first, second)


def test_distances_are_those_of_shortest_paths(rng: np.random.Generator) -> None:
    """Against SciPy's Dijkstra on the same graph, two starts, one of which is as far as 20 mm already."""
    xyz = np.dstack([*np.meshgrid(np.arange(9.0) * 5, np.arange(7.0) * 5), rng.normal(500, 4, (7, 9))])
    on = rng.random((7, 9)) < 0.8
    on.flat[[3, 50]] = True
    points, place = xyz.reshape(-1, 3), np.argwhere(np.ones((7, 9)))
    near = (np.abs(place[:, None] - place).max(axis=-1) == 1) & on.ravel() & on.ravel()[:, None]
    graph = np.where(near, np.linalg.norm(points[:, None] - points, axis=-1), 0)
    wanted = dijkstra(graph, indices=[3, 50]).min(axis=0).reshape(7, 9)
    distance = np.where(on, np.float32(1e9), np.float32(-1))
    _spread_by_fronts(xyz.astype(np.float32), distance, np.array([3, 50]), np.float32(1e9))
    np.testing.assert_allclose(distance[on], np.minimum(wanted, 1e9)[on], rtol=1e-5)
    assert (distance[~on] == -1).all()


def test_the_first_frame_is_answered_as_the_next_ones_are(monkeypatch: pytest.MonkeyPatch) -> None:
    frame = DepthSynthesizer(3, "test").frame(1)
    answers = []
    for first in (True, False):
        monkeypatch.setattr(localize, "_is_first_frame", lambda first=first: first)
        answers.append(find_hands(frame.depth_mm, frame.camera))
    assert answers[0]
    for a, b in zip(*answers, strict=True):
        assert tuple(a.center_xyz_mm) == tuple(b.center_xyz_mm)
        assert (a.box_px, a.score) == (b.box_px, b.score)


def test_numba_is_loaded_from_the_second_frame_on() -> None:
    code = (
        "import sys; import numpy as np; from handgraph import PinholeCamera\n"
        "from handgraph.localize import find_hands\n"
        "frame = np.zeros((120, 160), np.float32); frame[30:90, 60:100] = 500\n"
        "for _ in range(2): find_hands(frame, PinholeCamera(150, 150, 80, 60)); print('numba' in sys.modules)"
    )
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert shown.stdout.split() == ["False", "True"]


def test_surfaces_are_what_their_first_pixels_reach(rng: np.random.Generator) -> None:
    """Against a walk from pixel to pixel, on surfaces so rough that many steps are possible one way alone."""
    one_way = 0
    for _ in range(40):
        depth = rng.integers(10, 60, (9, 12)).astype(np.float32)
        surface, spacing = rng.random((9, 12)) < 0.8, depth / np.float32(8.0)
        wanted = np.zeros((9, 12), int)
        for number, start in enumerate(np.argwhere(surface), 1):
            reached = [] if wanted[tuple(start)] else [tuple(start)]
            while reached:
                y, x = reached.pop()
                wanted[y, x] = number
                for r, c in ((y - 1, x), (y + 1, x), (y, x - 1), (y, x + 1)):
                    if 0 <= r < 9 and 0 <= c < 12 and surface[r, c] and not wanted[r, c]:
                        if abs(depth[r, c] - depth[y, x]) < 6 + 3 * spacing[y, x]:
                            reached.append((r, c))
                        else:
                            one_way += abs(depth[r, c] - depth[y, x]) < 6 + 3 * spacing[r, c]
        found = _label(depth, surface, spacing)
        assert ((found == 0) == (wanted == 0)).all()
        pairs = {pair for pair in zip(found.ravel().tolist(), wanted.ravel().tolist(), strict=True)}
        assert len(pairs) == len(np.unique(found)) == len(np.unique(wanted))
    assert one_way > 100


def test_synthetic_frames(rng: np.random.Generator) -> None:
    """Bodies, tables, objects and noise: one of the first three candidates is the hand nearly always."""
    synthesizer = DepthSynthesizer(3, "test")
    near, frames = 0, 0
    for index in range(24):
        frame = synthesizer.frame(index)
        hand = (frame.label == 1) & (frame.depth_mm > 0)
        if hand.sum() < 400:
            continue
        v, u = np.nonzero(hand)
        center = frame.camera.xyz_from_uvd(np.column_stack([u, v, frame.depth_mm[hand]])).mean(axis=0)
        found = find_hands(frame.depth_mm, frame.camera, limit=3)
        near += any(np.linalg.norm(one.center_xyz_mm - center) < 70 for one in found)
        frames += 1
    assert frames > 15
    assert near >= 0.8 * frames


def test_real_hands_before_a_body(real_data: Path) -> None:
    camera = PinholeCamera(287.26, 287.26, 160.0, 120.0)
    for path in sorted((real_data / "depth_sr300_user1").glob("*/depth.png")):
        best = find_hands(read_depth(path).depth_mm, camera)[0]
        u, v, _ = np.round(camera.uvd_from_xyz(best.center_xyz_mm)).astype(int)
        mask = cv2.imread(str(path.with_name("mask.png")), cv2.IMREAD_UNCHANGED)
        assert mask[v, u], path


def test_real_arm_with_sleeve(real_data: Path) -> None:
    for path in sorted((real_data / "rgbd_mesh_handx").glob("*_depth.png")):
        stamp = path.name.removesuffix("_depth.png")
        rows = path.with_name(f"{stamp}_Joint.obj").read_text().splitlines()
        joints = np.array([row.split()[1:4] for row in rows if row.startswith("v ")], dtype=np.float64)
        camera = PinholeCamera(498.136505, 498.22818, 317.334106, 233.805847)
        best = find_hands(read_depth(path).depth_mm, camera)[0]
        assert np.linalg.norm(best.center_xyz_mm - joints.mean(axis=0)) < 50, path


def test_real_nyu_frame(real_data: Path) -> None:
    folder = real_data / "depth_nyu_raw_frame"
    image = read_depth(folder / "depth_1_0000001.png")
    assert image.camera is not None
    uvd = np.array(json.loads((folder / "gt_uvd.json").read_text())["uvd"])
    center = image.camera.xyz_from_uvd(uvd).mean(axis=0)
    assert np.linalg.norm(find_hands(image.depth_mm, image.camera)[0].center_xyz_mm - center) < 60
