"""The synthetic depth images: determinism, labels that fit the picture, and the sensors' errors."""

import json
from pathlib import Path

import numpy as np
import pytest

from handgraph.datasets import open_dataset
from handgraph.errors import ConfigError, InputError
from handgraph.images import LABELS_FILE
from handgraph.synthetic import DepthFrame, DepthSynthesizer
from handgraph.synthetic.dataset import write_dataset
from handgraph.synthetic.hands import seed_stream
from handgraph.synthetic.render import HAND
from handgraph.synthetic.scene import SENSORS, Chances, sense, sensor_table

NOTHING_ELSE = Chances(*[0.0] * len(Chances._fields))


def test_an_image_depends_on_seed_split_and_index_alone() -> None:
    one, two = DepthSynthesizer(3), DepthSynthesizer(3, threads=2)
    indices = [5, 0, 9, 5, 123456]
    alone, together = one.batch(indices), two.batch(indices)
    for key in ("image", "uvz", "joints_mm"):
        assert (alone[key] == together[key]).all()
    for place, index in enumerate(indices):
        sample = one.sample(index)
        assert (alone["image"][place, 0].numpy() == sample.image).all()
        assert np.array_equal(alone["uvz"][place].numpy(), sample.uvz)
        assert np.array_equal(alone["crops"][place].crop_from_image, sample.crop.crop_from_image)
    assert (alone["image"][0] != alone["image"][1]).any()
    for other in (DepthSynthesizer(4), DepthSynthesizer(3, "validation")):
        assert (other.sample(5).image != alone["image"][0, 0].numpy()).any()


def test_labels_and_crop_agree() -> None:
    synthesizer = DepthSynthesizer(0)
    for index in range(20):
        sample = synthesizer.sample(index)
        assert np.allclose(sample.crop.xyz_from_uvz(sample.uvz), sample.joints_mm, atol=0.05)
        assert np.isfinite(sample.image).all()
        assert np.abs(sample.image).max() <= 1


def _behind_surface_mm(frame: DepthFrame, points_mm: np.ndarray) -> np.ndarray:
    """How far each point lies behind the nearest hand surface within a pixel of its own; NaN where none is.

    A point of the outline may fall into a pixel that shows what is behind, hence the neighbours.
    """
    h, w = frame.depth_mm.shape
    hand = np.where(frame.label == HAND, frame.depth_mm, np.inf)
    out = np.full(len(points_mm), np.nan)
    for i, (u, v, d) in enumerate(frame.camera.uvd_from_xyz(points_mm)):
        u, v = round(float(u)), round(float(v))
        if 1 <= u < w - 1 and 1 <= v < h - 1:
            nearest = hand[v - 1 : v + 2, u - 1 : u + 2].min()
            out[i] = d - nearest if np.isfinite(nearest) else np.nan
    return out


def test_the_picture_shows_the_joints_below_the_skin() -> None:
    """Joints lie behind the visible skin; fingertips are points of it, so visible ones lie just under it."""
    synthesizer = DepthSynthesizer(1, noise=False, chances=NOTHING_ELSE)
    behind = np.array(
        [_behind_surface_mm(frame, frame.joints_mm) for frame in map(synthesizer.frame, range(16))]
    )
    tips, inner = behind[:, [4, 8, 12, 16, 20]], np.delete(behind, [0, 4, 8, 12, 16, 20], axis=1)
    assert np.isfinite(behind).mean() > 0.7
    assert np.nanmin(inner) > 0
    assert np.nanmin(tips) > -4
    assert np.mean(tips[np.isfinite(tips)] < 15) > 0.5


def test_visible_vertices_have_the_depth_of_the_picture() -> None:
    synthesizer = DepthSynthesizer(1, noise=False, chances=NOTHING_ELSE)
    for index in range(3):
        frame = synthesizer.frame(index)
        assert (
            np.nanmin(_behind_surface_mm(frame, frame.vertices_mm)) > -4
        )  # nothing is drawn behind its place
        seen = 0
        for u, v, d in frame.camera.uvd_from_xyz(frame.vertices_mm):
            column, row = round(float(u)), round(float(v))
            patch = frame.depth_mm[row - 1 : row + 2, column - 1 : column + 2]
            # Within what the surface itself does over the neighbouring pixels.
            seen += patch.shape == (3, 3) and bool(patch.min() - 0.01 <= d <= patch.max() + 0.01)
        assert 0.25 < seen / len(frame.vertices_mm) < 0.95  # those that face the camera


def test_the_crop_is_the_one_inference_makes() -> None:
    """Cutting the drawn window gives what cutting a whole frame holding that window gives."""
    synthesizer = DepthSynthesizer(2)
    for index in range(5):
        scene, depth = synthesizer._scene(index, whole=False)
        crop, image = synthesizer._crop(scene, depth)
        left, top, width, height = (int(value) for value in scene.window)
        frame = np.zeros((height, width), np.float32)
        frame[top : top + depth.shape[0], left : left + depth.shape[1]] = depth
        assert np.mean(crop.apply_depth(frame) != image) < 2e-3  # ties of rounding only


def _flat(sensor: str, strength_seed: int, depth_mm: float = 700.0) -> tuple[np.ndarray, np.ndarray]:
    row = sensor_table()[[s.name for s in SENSORS].index(sensor)]
    inverse = np.full((80, 80), 1 / depth_mm, np.float32)
    return sense(inverse, row, 300.0, seed_stream(strength_seed, 0, 0, 0)), row


def test_readings_come_in_the_sensors_steps() -> None:
    depth, _ = _flat("sr305", 0)
    values = depth[depth > 0]
    assert np.allclose(values / 0.125, np.rint(values / 0.125))
    depth, _ = _flat("kinect", 0)
    steps = np.diff(np.unique(depth[depth > 0]))
    assert 0.9 * 2.85 * 0.49 < steps.min() < 1.2 * 2.85 * 0.49  # 2.85 mm times the square of 0.7 m


def test_noise_grows_with_distance_and_a_flat_wall_has_few_holes() -> None:
    spread = {}
    for distance in (400.0, 1000.0):
        readings = [_flat("d4xx", seed, distance)[0] for seed in range(12)]
        spread[distance] = np.mean([r[r > 0].std() for r in readings])
        assert np.mean([(r == 0).mean() for r in readings]) < 0.03
        assert abs(np.mean([r[r > 0].mean() for r in readings]) - distance) < 2
    assert spread[1000.0] > 1.5 * spread[400.0]


def test_a_second_camera_sees_a_shadow_beside_near_things() -> None:
    row = sensor_table()[[s.name for s in SENSORS].index("kinect")].copy()
    inverse = np.full((60, 200), 1 / 1200.0, np.float32)
    inverse[:, 80:120] = 1 / 600.0
    widths = []
    for seed in range(10):
        holes = sense(inverse, row, 588.0, seed_stream(seed, 0, 0, 0)) == 0
        widths.append(max(holes[:, 40:78].mean(), holes[:, 122:160].mean()) * 38)
    # Full baseline: 75 mm · 588 px · (1/600 − 1/1200) = 36.8 px; half to 1.2 times that, absent in 30 %.
    assert 15 < max(widths) <= 38
    assert min(widths) < 3


def test_frames_show_the_hand_whole_scenes_hold_what_they_say() -> None:
    frames = [DepthSynthesizer(0, "test").frame(index) for index in range(12)]
    for frame in frames:
        assert frame.depth_mm.shape in {(480, 640), (240, 320)}
        assert (frame.label == HAND).sum() > 100
        assert np.allclose(frame.crop.uvz_from_xyz(frame.joints_mm), frame.uvz)
    assert any("body" in frame.contents for frame in frames)


def test_written_frames_read_back(tmp_path: Path) -> None:
    write_dataset(tmp_path / "set", 2, seed=4)
    data = open_dataset("synthetic", tmp_path / "set")
    frame = DepthSynthesizer(4, "test").frame(1)
    assert len(data) == 2
    sample = data[1]
    assert np.abs(sample.joints_mm - frame.joints_mm).max() < 1e-3
    assert sample.camera.fx == frame.camera.fx
    assert np.abs(sample.depth_mm - frame.depth_mm).max() <= 0.5
    raw = json.loads((tmp_path / "set" / LABELS_FILE).read_text().splitlines()[0])
    assert "millimetres" in raw["frame"]
    assert "21 joints" in raw["order"]


def test_frames_of_a_larger_set_are_not_left_among_ours(tmp_path: Path) -> None:
    write_dataset(tmp_path, 2, seed=4)
    for frames, seed in ((1, 4), (2, 5), (3, 4)):
        with pytest.raises(InputError, match=r"holds 2 frames and their labels\.jsonl already; remove them"):
            write_dataset(tmp_path, frames, seed)
    assert len(open_dataset("synthetic", tmp_path)) == 2  # untouched
    (tmp_path / LABELS_FILE).unlink()  # interrupted
    with pytest.raises(InputError, match=r"holds 1 frames of an earlier set, depth_000001.png the first"):
        write_dataset(tmp_path, 1, seed=4)
    write_dataset(tmp_path, 2, seed=5)
    frame = DepthSynthesizer(5, "test").frame(0)
    assert np.abs(open_dataset("synthetic", tmp_path)[0].joints_mm - frame.joints_mm).max() < 1e-3


def test_bad_requests_say_what_is_wrong(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="at least one"):
        write_dataset(tmp_path, 0)
    with pytest.raises(ConfigError, match="split 'dev'"):
        DepthSynthesizer(0, "dev")
    with pytest.raises(ConfigError, match="threads 0"):
        DepthSynthesizer(0, threads=0)
