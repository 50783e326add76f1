"""The synthetic depth images: determinism, labels that fit the picture, and the sensors' errors."""

import json
from pathlib import Path

import numpy as np
import pytest

from handgraph.errors import ConfigError, FormatError, InputError
from handgraph.images import read_depth
from handgraph.synthetic import DepthSynthesizer
from handgraph.synthetic.depth import LABELS_FILE, read_dataset, write_dataset
from handgraph.synthetic.hands import seed_stream
from handgraph.synthetic.render import HAND
from handgraph.synthetic.scene import SENSORS, Chances, sense, sensor_table

NOTHING_ELSE = Chances(0, 0, 0, 0, 0, 0, 0, 0, 0)


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


def test_the_picture_shows_the_joints_below_the_skin() -> None:
    """Every joint lies behind the hand's visible surface at its pixel, fingertips just under or on it."""
    synthesizer = DepthSynthesizer(1, noise=False, chances=NOTHING_ELSE)
    tips, joints = [], []
    for index in range(40):
        frame = synthesizer.frame(index)
        uvd = frame.camera.uvd_from_xyz(frame.joints_mm)
        for j, (u, v, d) in enumerate(uvd):
            u, v = round(u), round(v)
            inside = 0 <= v < frame.depth_mm.shape[0] and 0 <= u < frame.depth_mm.shape[1]
            if inside and frame.label[v, u] == HAND:
                (tips if j and j % 4 == 0 else joints).append(d - frame.depth_mm[v, u])
    assert len(tips) > 50
    assert np.mean(np.array(joints) > 0) > 0.98  # bones are inside
    # A fingertip is a point of the skin: visible ones lie on the surface, no deeper than the finger is thick.
    assert np.min(tips) > -12
    assert np.mean(np.array(tips) < 15) > 0.5


def test_visible_vertices_have_the_depth_of_the_picture() -> None:
    synthesizer = DepthSynthesizer(1, noise=False, chances=NOTHING_ELSE)
    frame = synthesizer.frame(2)
    h, w = frame.depth_mm.shape
    uvd = frame.camera.uvd_from_xyz(frame.vertices_mm)
    uv = np.rint(uvd[:, :2]).astype(int)
    inside = (uv >= 0).all(1) & (uv[:, 0] < w) & (uv[:, 1] < h)
    uv, d = uv[inside], uvd[inside, 2]
    hand = frame.label[uv[:, 1], uv[:, 0]] == HAND
    behind = (d - frame.depth_mm[uv[:, 1], uv[:, 0]])[hand]
    assert np.percentile(behind, 2) > -6  # half a pixel on a steep surface
    assert np.mean(np.abs(behind) < 1.5) > 0.3  # about half of all vertices face the camera


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
    records = read_dataset(tmp_path / "set")
    frame = DepthSynthesizer(4, "test").frame(1)
    assert len(records) == 2
    assert np.abs(records[1]["joints_mm"] - frame.joints_mm).max() < 1e-3
    assert records[1]["camera"].fx == frame.camera.fx
    assert np.abs(read_depth(records[1]["file"]).depth_mm - frame.depth_mm).max() <= 0.5
    raw = json.loads((tmp_path / "set" / LABELS_FILE).read_text().splitlines()[0])
    assert "millimetres" in raw["frame"]
    assert "21 joints" in raw["order"]


def test_bad_requests_say_what_is_wrong(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="not available yet"):
        write_dataset(tmp_path, 1, modality="rgb")
    with pytest.raises(ConfigError, match="at least one"):
        write_dataset(tmp_path, 0)
    with pytest.raises(ConfigError, match="split 'dev'"):
        DepthSynthesizer(0, "dev")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="threads 0"):
        DepthSynthesizer(0, threads=0)
    with pytest.raises(InputError, match="written by synthesize"):
        read_dataset(tmp_path / "missing")
    (tmp_path / LABELS_FILE).write_text('{"file": "a.png"}\n')
    with pytest.raises(FormatError, match="line 1"):
        read_dataset(tmp_path)
