"""Real depth frames, never trained on, through the whole of `predict`: finder, network, second pass.

    HANDGRAPH_REAL=/data/real python benchmarks/real_depth.py --json

The frames are found, cropped and estimated from nothing but depth and camera; labels serve to score. Where
no hand is reported on a labelled frame, the frame counts in `found` and in no mean. Rows:

| set | labels | caveat |
|---|---|---|
| handx | 21 joints of a fitted mesh, 21 frames of one sequence | wrist and thumb base lie elsewhere |
| nyu | 11 joints shared with NYU's 14, one frame | NYU's joints are points of another hand model |
| 8cam | 21 clicked joints, triangulated, seen by at least two cameras | good to about a centimetre |
| 8cam_visible | those of them with at least half of the joints visible in the frame itself | |
| sr300 | a mask of the hand, 5 frames | `in_mask`: share of joints that fall on it |
| sr305 | none, 8 frames of a hand before a body | `found` only; look at the pictures of `--pictures` |

`finder_mm` is the distance of the first candidate from the mean label, `best_finder_mm` that of the best of
those the network looks at. `procrustes_mm` leaves out position, turn and size.
"""

import argparse
import json
import os
import re
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from handgraph import Hand, PinholeCamera
from handgraph.estimator import CANDIDATES, load
from handgraph.evaluation.metrics import procrustes
from handgraph.images import read_depth
from handgraph.localize import find_hands
from handgraph.report import write_overlay
from handgraph.skeleton import JOINT_NAMES, NYU14


@dataclass
class Frame:
    """One frame with what is known of it; joints the labels lack are NaN."""

    name: str
    depth_mm: np.ndarray
    camera: PinholeCamera
    joints_mm: np.ndarray | None = None
    mask: np.ndarray | None = None


def handx(real: Path) -> list[Frame]:
    """Joints and camera lie beside each frame as text."""
    frames = []
    for path in sorted((real / "rgbd_mesh_handx").glob("*_depth.png")):
        stamp = path.name.removesuffix("_depth.png")
        camera = _numbers(path.with_name(f"{stamp}_intrinsics.txt").read_text())[:4]
        rows = path.with_name(f"{stamp}_Joint.obj").read_text().splitlines()
        joints = [_numbers(row) for row in rows if row.startswith("v ")]
        frames.append(Frame(stamp, read_depth(path).depth_mm, PinholeCamera(*camera), np.array(joints)))
    return frames


def nyu(real: Path) -> list[Frame]:
    """Labels are pixels and depth of the 14 evaluated joints."""
    folder = real / "depth_nyu_raw_frame"
    image = read_depth(folder / "depth_1_0000001.png")
    assert image.camera is not None
    uvd = np.array(json.loads((folder / "gt_uvd.json").read_text())["uvd"])
    joints = NYU14.to_canonical(image.camera.xyz_from_uvd(uvd))
    return [Frame("0000001", image.depth_mm, image.camera, joints)]


def eight_cameras(real: Path, least_visible: int = 0) -> list[Frame]:
    """World joints into each camera's frame by the inverse of its pose, where two cameras saw the joint."""
    root = real / "rgbd_8cam"
    poses: dict[str, np.ndarray] = {}
    for block in re.split(r"\n  (?=\S+: !!python/tuple)", (root / "calibration/extrinsics.yml").read_text())[
        1:
    ]:
        serial, rest = block.split(":", 1)
        numbers = [float(line.strip()[2:]) for line in rest.splitlines() if line.strip().startswith("- ")]
        poses[serial.strip("'\"")] = np.array(numbers[:12]).reshape(3, 4)
    frames = []
    for instant, record in json.loads((root / "annotations.json").read_text()).items():
        world_m = np.array(record["joints_world_m"], dtype=np.float64)
        world_m[np.array(record["n_views"]) < 2] = np.nan
        for serial, points in record["views"].items():
            if sum(bool(point[2]) for point in points) < least_visible:
                continue
            text = (root / f"calibration/{serial}_640x480.yml").read_text().split("depth:")[0]
            camera = PinholeCamera(*(float(value) for value in re.findall(r": ([\d.]+)", text)[:4]))
            rotation, translation = poses[serial][:, :3], poses[serial][:, 3]
            depth = read_depth(root / serial / f"aligned_depth_to_color_{int(instant):06d}.png")
            joints = 1000 * (world_m - translation) @ rotation
            frames.append(Frame(f"{instant}_{serial}", depth.depth_mm, camera, joints))
    return frames


def sr300(real: Path) -> list[Frame]:
    """The hand as a mask of pixels."""
    camera = PinholeCamera(287.26, 287.26, 160.0, 120.0)
    return [
        Frame(
            path.parent.name,
            read_depth(path).depth_mm,
            camera,
            mask=cv2.imread(str(path.with_name("mask.png")), cv2.IMREAD_UNCHANGED) > 0,
        )
        for path in sorted((real / "depth_sr300_user1").glob("*/depth.png"))
    ]


def sr305(real: Path) -> list[Frame]:
    """No label."""
    camera = PinholeCamera(476.007, 476.007, 313.683, 242.755)
    paths = sorted((real / "depth_sr305_gestures").glob("*/*.png"), key=lambda path: int(path.stem))
    return [Frame(path.stem, read_depth(path, 0.125).depth_mm, camera) for path in paths]


SETS = {
    "handx": handx,
    "nyu": nyu,
    "8cam": eight_cameras,
    "8cam_visible": lambda real: eight_cameras(real, len(JOINT_NAMES) // 2 + 1),
    "sr300": sr300,
    "sr305": sr305,
}


def measure(frames: list[Frame], hands: list[Hand | None]) -> dict[str, Any]:
    """A row of the table."""
    row: dict[str, Any] = {
        "n": len(frames),
        "found": sum(hand is not None for hand in hands),
        "score": [None if hand is None else round(hand.score, 3) for hand in hands],
    }
    centers = [center for frame in frames if (center := _center(frame)) is not None]
    if centers:
        distances = [
            [float(np.linalg.norm(one.center_xyz_mm - center)) for one in _candidates(frame)] or [np.inf]
            for frame, center in zip(frames, centers, strict=True)
        ]
        row["finder_mm"] = _median([each[0] for each in distances])
        row["finder_within_60"] = sum(each[0] < 60 for each in distances)
        row["best_finder_mm"] = _median([min(each) for each in distances])
        row["best_finder_within_60"] = sum(min(each) < 60 for each in distances)
    pairs = [(f, h) for f, h in zip(frames, hands, strict=True) if h is not None]
    labelled = [(f.joints_mm, h.joints_mm) for f, h in pairs if f.joints_mm is not None]
    if labelled:
        true, predicted = (np.stack(arrays).astype(np.float64) for arrays in zip(*labelled, strict=True))
        known = np.isfinite(true).all(axis=(0, 2))
        errors = np.linalg.norm(predicted - true, axis=-1)
        aligned = np.linalg.norm(procrustes(predicted, true) - true, axis=-1)
        row |= {
            "mean_mm": float(np.nanmean(errors)),
            "median_frame_mm": float(np.median(np.nanmean(errors, axis=1))),
            "procrustes_mm": float(np.nanmean(aligned)),
            "frames_mm": [round(float(value), 1) for value in np.nanmean(errors, axis=1)],
            "per_joint_mm": {
                name: round(float(np.nanmean(errors[:, joint])), 1)
                for joint, name in enumerate(JOINT_NAMES)
                if known[joint]
            },
        }
    masked = [_on_mask(f.mask, h) for f, h in pairs if f.mask is not None]
    if masked:
        row["in_mask"] = round(float(np.mean(masked)), 3)
    return row


def _candidates(frame: Frame) -> list[Any]:
    return find_hands(frame.depth_mm, frame.camera, limit=CANDIDATES)


def _center(frame: Frame) -> np.ndarray | None:
    if frame.joints_mm is not None:
        return np.asarray(np.nanmean(frame.joints_mm, axis=0))
    if frame.mask is not None:
        rows, columns = np.nonzero(frame.mask & (frame.depth_mm > 0))
        uvd = np.column_stack([columns, rows, frame.depth_mm[rows, columns]])
        return frame.camera.xyz_from_uvd(uvd.astype(np.float64)).mean(axis=0)
    return None


def _on_mask(mask: np.ndarray, hand: Hand) -> float:
    near = cv2.dilate(mask.astype(np.uint8), np.ones((3, 3), np.uint8))
    u, v = np.round(hand.keypoints_px).astype(int).T
    inside = (u >= 0) & (v >= 0) & (u < mask.shape[1]) & (v < mask.shape[0])
    return float(near[v[inside], u[inside]].sum() / len(u))


def _median(values: list[float]) -> float:
    return round(float(np.median(values)), 1)


def _numbers(text: str) -> list[float]:
    return [float(word) for word in re.findall(r"-?\d+\.?\d*(?:e-?\d+)?", text)]


def main() -> int:
    """Print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--real", default=os.environ.get("HANDGRAPH_REAL"), help="folder of the real frames")
    parser.add_argument("--checkpoint", help="weights instead of the shipped ones")
    parser.add_argument("--looks", type=int, default=1, help="at each centred hand, as predict --looks")
    parser.add_argument("--sets", nargs="+", choices=SETS, default=list(SETS))
    parser.add_argument("--pictures", type=Path, help="write the overlays to this folder")
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    options = parser.parse_args()
    if not options.real:
        parser.error("give --real, or set HANDGRAPH_REAL to the folder of the real frames")
    estimate = load(checkpoint=options.checkpoint)
    estimate.looks = options.looks
    table = {}
    for name in options.sets:
        frames = SETS[name](Path(options.real))
        hands = [next(iter(estimate(frame.depth_mm, camera=frame.camera)), None) for frame in frames]
        table[name] = measure(frames, hands)
        if options.pictures:
            for frame, hand in zip(frames, hands, strict=True):
                write_overlay(
                    options.pictures / f"{name}_{frame.name}.png", frame.depth_mm, [hand] if hand else []
                )
    if options.json:
        print(json.dumps({"model": estimate.name, "sets": table}))
        return 0
    for name, row in table.items():
        print(name, json.dumps({key: value for key, value in row.items() if key != "per_joint_mm"}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
