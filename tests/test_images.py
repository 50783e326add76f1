"""Depth files: what is written comes back, and the camera that a format implies comes along."""

import json
import struct
from pathlib import Path

import cv2
import numpy as np
import pytest

from handgraph import FormatError, InputError, PinholeCamera
from handgraph.images import MSRA_CAMERA, NYU_CAMERA, assumed_camera, checked_depth, read_depth


@pytest.fixture
def frame(rng: np.random.Generator) -> np.ndarray:
    """Whole millimetres with holes, not square so that a swapped axis shows."""
    depth = rng.integers(300, 2000, (48, 64)).astype(np.float32)
    depth[10:14, 20:30] = 0
    return depth


def test_16_bit_png_is_millimetres(tmp_path: Path, frame: np.ndarray) -> None:
    path = tmp_path / "frame.png"
    cv2.imwrite(str(path), frame.astype(np.uint16))
    image = read_depth(path)
    assert image.depth_mm.dtype == np.float32
    assert image.camera is None
    np.testing.assert_array_equal(image.depth_mm, frame)


@pytest.mark.parametrize("scale", [0.125, 0.1, 2.0])
def test_depth_scale_is_millimetres_a_unit(tmp_path: Path, frame: np.ndarray, scale: float) -> None:
    path = tmp_path / "frame.png"
    cv2.imwrite(str(path), frame.astype(np.uint16))
    np.testing.assert_allclose(read_depth(path, scale).depth_mm, frame * scale, rtol=1e-6)


def test_8_bit_png_needs_its_scale(tmp_path: Path) -> None:
    path = tmp_path / "frame.png"
    grey = np.arange(64 * 48, dtype=np.uint8).reshape(48, 64)
    cv2.imwrite(str(path), grey)
    np.testing.assert_array_equal(read_depth(path, 4.0).depth_mm, grey * np.float32(4))
    with pytest.raises(FormatError, match="8-bit grey PNG, whose unit is unknown; give --depth-scale"):
        read_depth(path)


def test_nyu_packs_depth_in_green_and_blue_and_brings_its_camera(
    tmp_path: Path, frame: np.ndarray, rng: np.random.Generator
) -> None:
    path = tmp_path / "depth_1_0000001.png"
    whole = frame.astype(np.int64)
    red = rng.integers(0, 256, frame.shape)  # unused by the format, so it may hold anything
    cv2.imwrite(str(path), np.dstack([whole % 256, whole // 256, red]).astype(np.uint8))  # OpenCV writes BGR
    image = read_depth(path)
    np.testing.assert_array_equal(image.depth_mm, frame)
    assert image.camera == NYU_CAMERA == PinholeCamera(588.03, 587.07, 320.0, 240.0)


def test_grey_picture_in_three_channels_is_not_taken_for_nyu(tmp_path: Path) -> None:
    path = tmp_path / "crop.png"
    grey = np.tile(np.arange(64, dtype=np.uint8), (48, 1))
    cv2.imwrite(str(path), np.dstack([grey] * 3))
    with pytest.raises(FormatError, match="three channels are equal: a grey picture, not NYU's packed depth"):
        read_depth(path)


def test_colour_picture_is_not_taken_for_nyu(tmp_path: Path, rng: np.random.Generator) -> None:
    path = tmp_path / "rgb.png"
    cv2.imwrite(str(path), rng.integers(0, 256, (48, 64, 3)).astype(np.uint8))
    with pytest.raises(FormatError, match=r"is no NYU depth .* a colour picture"):
        read_depth(path)


@pytest.mark.parametrize("dtype", ["float32", "float64", "float16", "uint16", "int32", ">f4"])
def test_npy(tmp_path: Path, frame: np.ndarray, dtype: str) -> None:
    path = tmp_path / "frame.npy"
    np.save(
        path, np.asfortranarray(frame.astype(dtype))
    )  # the file's own order of axes is no concern of ours
    np.testing.assert_array_equal(read_depth(path).depth_mm, frame.astype(dtype).astype(np.float32))


@pytest.mark.parametrize("names", [("depth_mm", "other"), ("depth", "other"), ("whatever",)])
def test_npz(tmp_path: Path, frame: np.ndarray, names: tuple[str, ...]) -> None:
    path = tmp_path / "frame.npz"
    np.savez_compressed(
        path, **{name: frame if index == 0 else frame * 2 for index, name in enumerate(names)}
    )
    np.testing.assert_array_equal(read_depth(path).depth_mm, frame)


def test_msra_box_lands_at_its_place_in_the_full_frame(tmp_path: Path, rng: np.random.Generator) -> None:
    path = tmp_path / "000000_depth.bin"
    box = rng.uniform(300, 400, (30, 50)).astype("<f4")
    path.write_bytes(struct.pack("<6I", 320, 240, 100, 60, 150, 90) + box.tobytes())
    image = read_depth(path)
    assert image.depth_mm.shape == (240, 320)
    np.testing.assert_array_equal(image.depth_mm[60:90, 100:150], box)
    assert (image.depth_mm > 0).sum() == box.size
    assert image.camera == MSRA_CAMERA == PinholeCamera(241.42, 241.42, 160.0, 120.0)


def test_readings_that_are_no_numbers_are_no_readings(frame: np.ndarray) -> None:
    frame[0, :3] = np.nan, np.inf, -np.inf
    depth = checked_depth(frame, "frame")
    np.testing.assert_array_equal(depth[0, :3], 0)
    np.testing.assert_array_equal(depth[1:], frame[1:])
    assert np.isnan(frame[0, 0]), "the caller's array is left alone"


def test_metres_are_recognised_and_the_advice_works(tmp_path: Path, frame: np.ndarray) -> None:
    path = tmp_path / "frame.npy"
    np.save(path, frame / 1000)
    with pytest.raises(FormatError, match=r"looks like metres; give --depth-scale 1000$"):
        read_depth(path)
    np.testing.assert_allclose(read_depth(path, 1000.0).depth_mm, frame, rtol=1e-6)


def test_camera_of_a_labelled_folder(tmp_path: Path, frame: np.ndarray) -> None:
    for name in ("a.png", "b.png"):
        cv2.imwrite(str(tmp_path / name), frame.astype(np.uint16))
    label = {"file": "a.png", "camera": {"fx": 400.0, "fy": 401.0, "cx": 31.0, "cy": 23.0}}
    (tmp_path / "labels.jsonl").write_text("not json, and not about these files\n" + json.dumps(label) + "\n")
    assert read_depth(tmp_path / "a.png").camera == PinholeCamera(400.0, 401.0, 31.0, 23.0)
    assert read_depth(tmp_path / "b.png").camera is None
    (tmp_path / "labels.jsonl").write_text("a.png in some other format")
    assert read_depth(tmp_path / "a.png").camera is None


def test_assumed_camera_looks_through_the_middle() -> None:
    camera = assumed_camera(640, 480)
    assert (camera.cx, camera.cy) == (319.5, 239.5)
    assert camera.fx == camera.fy == pytest.approx(588, abs=2), "that of the Kinect"


@pytest.mark.parametrize("scale", [0.0, -1.0, float("nan"), float("inf")])
def test_scale_must_be_a_number_above_zero(tmp_path: Path, frame: np.ndarray, scale: float) -> None:
    np.save(tmp_path / "frame.npy", frame)
    with pytest.raises(InputError, match=r"--depth-scale .*above zero"):
        read_depth(tmp_path / "frame.npy", scale)


def test_real_nyu_frame(real_data: Path) -> None:
    folder = real_data / "depth_nyu_raw_frame"
    image = read_depth(folder / "depth_1_0000001.png")
    joints = np.array(json.loads((folder / "gt_uvd.json").read_text())["uvd"])
    u, v = np.round(joints[:, :2]).astype(int).T
    behind_skin = joints[:, 2] - image.depth_mm[v, u]
    assert behind_skin.min() > 0
    assert behind_skin.max() < 40
    with pytest.raises(FormatError, match="three channels are equal"):
        read_depth(real_data / "depth_nyu_crops" / "0.png")


@pytest.mark.parametrize("header", ["{", "{'a': (", "[" * 5000, "'", "{'descr': 'O'}"])
def test_headers_of_arrays_that_are_no_python_are_one_line(tmp_path: Path, header: str) -> None:
    path = tmp_path / "a.npy"
    path.write_bytes(b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header.encode() + bytes(99))
    with pytest.raises(FormatError, match="the header of the NumPy array is damaged"):
        read_depth(path)
