"""Folders of synthetic frames: depth, colour, or both of the same scene, with their labels."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from handgraph.camera import PinholeCamera
from handgraph.errors import ConfigError, InputError
from handgraph.files import atomic_write
from handgraph.images import LABELS_FILE
from handgraph.synthetic.depth import DepthFrame, DepthSynthesizer
from handgraph.synthetic.hands import seed_stream
from handgraph.synthetic.photo import Chances
from handgraph.synthetic.rgb import RgbFrame, RgbHand, RgbSynthesizer
from handgraph.synthetic.scene import SENSORS, sense, sensor_table

MODALITIES = ("depth", "rgb", "both")
JPEG_QUALITY = 95

_FRAME_FILE = re.compile(r"(depth|image)_\d+\.(png|jpg)")
# Depth cameras whose depth comes registered to a colour camera's 640x480 frame.
_REGISTERED = tuple(i for i, sensor in enumerate(SENSORS) if sensor.name in ("kinect", "sr305", "d4xx"))


def write_dataset(
    out: str | Path,
    n: int,
    seed: int = 0,
    modality: str = "depth",
    *,
    split: str = "test",
    backgrounds: str | Path | None = None,
) -> None:
    """Write whole synthetic frames 0…n−1 and their labels.

    `depth` gives `depth_000000.png`… (16-bit, mm), `rgb` gives `image_000000.jpg`…, `both` gives the two of
    one scene, the depth registered with the colour image and read by a depth camera. Colour frames hold one
    or two hands of either side, depth frames one right hand.

    `labels.jsonl` has one object a hand: `file` (the depth PNG, where there is one), `image` (the colour
    file, where there is one), `camera` {fx, fy, cx, cy}, `joints_mm` (21, 3), `keypoints_px` (21, 2), `side`,
    `frame`, `order`, `depth_unit_mm`, hand-model parameters `shape` (10), `pose` (48, axis-angle) and
    `translation_mm` (3) of the model named by `hand_model`, of the hand's own side; `subject`, `family`,
    and of the frame `boxes` (x, y, w, h round the keypoints) and `sides` of all its hands. It is written
    last, so a folder that has it is whole.

    Args:
        backgrounds: a folder of photographs to put behind the hands of colour frames.

    Raises:
        ConfigError: an unknown modality, n below one, or backgrounds for depth.
        InputError: `out` cannot be written, holds a whole set, or frames that this one would not replace
            (those of the same set, interrupted, are replaced).
    """
    if modality not in MODALITIES:
        raise ConfigError(f"modality {modality!r}: expected one of {', '.join(MODALITIES)}")
    if n < 1:
        raise ConfigError(f"n = {n}: expected at least one frame")
    if backgrounds is not None and modality == "depth":
        raise ConfigError("backgrounds are photographs, for the modalities rgb and both")
    folder = Path(out)
    names = [f"depth_{index:06d}.png" for index in range(n)] if modality != "rgb" else []
    names += [f"image_{index:06d}.jpg" for index in range(n)] if modality != "depth" else []
    _refuse_strangers(folder, set(names))
    if folder.is_dir():  # it says that the folder is whole
        (folder / LABELS_FILE).unlink(missing_ok=True)
    if modality == "depth":
        records = _depth_frames(folder, n, DepthSynthesizer(seed, split))
    else:
        # A frame without a hand would have no label.
        synthesizer = RgbSynthesizer(
            seed, split, backgrounds=backgrounds, chances=Chances()._replace(empty=0.0)
        )
        records = _colour_frames(folder, n, synthesizer, with_depth=modality == "both")
    lines = [json.dumps(record) + "\n" for record in records]
    with atomic_write(folder / LABELS_FILE) as part:
        part.write_text("".join(lines), encoding="utf-8")


def _refuse_strangers(folder: Path, names: set[str]) -> None:
    """A whole set is not written over; frames of a larger one that was interrupted would stand among ours."""
    if not folder.is_dir():
        return
    present = sorted(path.name for path in folder.iterdir() if _FRAME_FILE.fullmatch(path.name))
    if present and (folder / LABELS_FILE).is_file():
        raise InputError(
            f"{folder}: holds {len(present)} frames and their {LABELS_FILE} already; remove them or choose "
            "another folder"
        )
    strangers = [name for name in present if name not in names]
    if strangers:
        raise InputError(
            f"{folder}: holds {len(strangers)} frames of an earlier set, {strangers[0]} the first, that this "
            "one would not replace; remove them or choose another folder"
        )


def _depth_frames(folder: Path, n: int, synthesizer: DepthSynthesizer) -> Iterator[dict[str, Any]]:
    for index in range(n):
        frame = synthesizer.frame(index)
        name = f"depth_{index:06d}.png"
        _write_depth(folder / name, frame.depth_mm)
        keypoints = frame.camera.uvd_from_xyz(frame.joints_mm)[:, :2]
        low, high = keypoints.min(0), keypoints.max(0)
        yield {
            "file": name,
            **_labels(frame.camera, frame, keypoints),
            "boxes": [_numbers(np.concatenate([low, high - low + 1]), 2)],
            "sides": [frame.side],
            "sensor": frame.sensor,
            "contents": list(frame.contents),
        }


def _colour_frames(
    folder: Path, n: int, synthesizer: RgbSynthesizer, *, with_depth: bool
) -> Iterator[dict[str, Any]]:
    sensors = sensor_table()
    for index in range(n):
        frame = synthesizer.frame(index)
        names = {"image": f"image_{index:06d}.jpg"}
        extra: dict[str, Any] = {}
        if with_depth:
            names["file"] = f"depth_{index:06d}.png"
            state = seed_stream(synthesizer.seed, 0, index, 24)
            sensor = _REGISTERED[index % len(_REGISTERED)]
            _write_depth(folder / names["file"], _read_by(sensors[sensor], frame, state))
            extra["sensor"] = SENSORS[sensor].name
        with atomic_write(folder / names["image"]) as part:
            pixels = cv2.cvtColor(frame.image, cv2.COLOR_RGB2BGR)
            quality = [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY]
            part.write_bytes(cv2.imencode(".jpg", pixels, quality)[1].tobytes())
        for hand in frame.hands:
            yield {
                **names,
                **_labels(frame.camera, hand, hand.keypoints_px),
                "visible": hand.visible.tolist(),
                "boxes": _numbers(frame.boxes, 2),
                "sides": list(frame.sides),
                **extra,
            }


def _read_by(sensor: np.ndarray, frame: RgbFrame, state: np.ndarray) -> np.ndarray:
    """What a depth camera in the colour camera's place reads; a wall two metres away where nothing is."""
    depth = np.where(frame.depth_mm > 0, frame.depth_mm, 2000.0)
    return sense((1.0 / depth).astype(np.float32), sensor, frame.camera.fx, state)


def _write_depth(path: Path, depth_mm: np.ndarray) -> None:
    with atomic_write(path) as part:
        pixels = np.clip(np.rint(depth_mm), 0, 65535).astype(np.uint16)
        part.write_bytes(cv2.imencode(".png", pixels)[1].tobytes())


def _numbers(array: np.ndarray, digits: int) -> list[Any]:
    return np.round(np.asarray(array, np.float64), digits).tolist()


def _labels(camera: PinholeCamera, hand: DepthFrame | RgbHand, keypoints_px: np.ndarray) -> dict[str, Any]:
    return {
        "frame": "camera frame: x right, y down, z forward, millimetres; pixel centres are integers",
        "order": "21 joints: wrist, then thumb, index, middle, ring, little, each from palm to tip",
        "depth_unit_mm": 1.0,
        "camera": {"fx": camera.fx, "fy": camera.fy, "cx": camera.cx, "cy": camera.cy},
        "side": hand.side,
        "joints_mm": _numbers(hand.joints_mm, 3),
        "keypoints_px": _numbers(keypoints_px, 3),
        "hand_model": "open_hand",
        "shape": _numbers(hand.shape, 6),
        "pose": _numbers(hand.pose, 6),
        "translation_mm": _numbers(hand.translation_mm, 3),
        "subject": hand.subject,
        "family": hand.family,
    }
