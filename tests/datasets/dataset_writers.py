"""Writes a few synthetic frames of each dataset in the form in which it is distributed."""

import json
import struct
from pathlib import Path

import cv2
import numpy as np

NYU_FOCAL = np.array([588.036865, 587.075073])


def hand_blob(random, focal, center_px, size, depth_mm, joints):
    """A depth frame with a blob, and joints inside it: (H, W) float mm, (J, 3) uvd in pixels and mm."""
    width, height = size
    u, v = center_px + random.uniform(-8, 8, 2)
    radius = 70.0 * focal[0] / depth_mm  # 70 mm
    columns, rows = np.meshgrid(np.arange(width), np.arange(height))
    squared = ((columns - u) ** 2 + (rows - v) ** 2) / radius**2
    tilt = 100 * (columns - u) / radius  # so that no turn of the picture leaves it the same
    depth = np.where(squared < 1, depth_mm + tilt - 30 * np.sqrt(np.clip(1 - squared, 0, 1)), 0)
    angle, r = random.uniform(0, 2 * np.pi, joints), random.uniform(0.1, 0.8, joints) * radius
    uvd = np.stack(
        [u + r * np.cos(angle), v + r * np.sin(angle), depth_mm + random.uniform(-20, 20, joints)], -1
    )
    return np.round(depth), uvd


def write_png(path: Path, pixels: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), pixels)


def write_nyu(root: Path, frames: int = 3, part: str = "test", seed: int = 0, views: int = 3):
    """dataset/<part>/ with view 1 frames and joint_data.mat; returns the truth: (depth, uvd) a frame.

    Beyond the third frame the files are links to the third, so that a long split costs nothing.
    """
    from scipy.io import savemat

    random = np.random.default_rng(seed)
    folder = root / "dataset" / part
    folder.mkdir(parents=True, exist_ok=True)
    uvd = np.zeros((views, frames, 36, 3))
    xyz = np.zeros_like(uvd)
    depths = []
    for frame in range(frames):
        path = folder / f"depth_1_{frame + 1:07d}.png"
        if frame < 3:
            depth, uvd[0, frame] = hand_blob(random, NYU_FOCAL, (330, 250), (640, 480), 750.0, 36)
            depth[:40] = 1600  # a wall behind
            packed = np.empty((480, 640, 3), np.uint8)
            packed[..., 2] = random.integers(0, 256, (480, 640), dtype=np.uint8)  # red carries nothing
            packed[..., 1], packed[..., 0] = depth.astype(np.uint16) >> 8, depth.astype(np.uint16) & 255
            write_png(path, packed)
        else:
            depth, uvd[0, frame] = depths[-1], uvd[0, frame - 1]
            path.hardlink_to(folder / "depth_1_0000003.png")
        depths.append(depth)
    u, v, d = np.moveaxis(uvd, -1, 0)
    xyz[:] = np.stack([(u - 320) * d / NYU_FOCAL[0], (240 - v) * d / NYU_FOCAL[1], d], -1)
    names = np.array([f"J{index}" for index in range(36)], dtype=object)
    savemat(
        folder / "joint_data.mat",
        {"joint_names": names, "joint_uvd": uvd, "joint_xyz": xyz},
        do_compression=True,
    )
    return depths, uvd[0]


def icvl_line(path: str, uvd: np.ndarray) -> str:
    return path + " " + " ".join(f"{value:.3f}" for value in uvd.reshape(-1)) + " \n"


def write_icvl(root: Path, seed: int = 0):
    """Training (two recorded, one turned frame) and Testing (2 + 1 frames): {path: (depth, uvd)}."""
    random = np.random.default_rng(seed)
    truth = {}
    for part, folder, lists in (
        ("Training", "Training", {"labels.txt": ["201403121135/image_0000.png", "201403121135/image_0001.png",
                                                 "45/201403121135/image_0000.png"]}),
        ("Testing", "Testing", {"test_seq_1.txt": ["test_seq_1/image_0000.png", "test_seq_1/image_0001.png"],
                                "test_seq_2.txt": ["test_seq_2/image_0000.png"]}),
    ):  # fmt: skip
        for name, paths in lists.items():
            lines = []
            for path in paths:
                depth, uvd = hand_blob(random, (241.0, 241.0), (150, 110), (320, 240), 350.0, 16)
                stored = np.where(depth > 0, depth, 32001).astype(np.uint16)
                write_png(root / folder / "Depth" / path, stored)
                lines.append(icvl_line(path, uvd))
                truth[path] = depth, np.round(uvd, 3)
            (root / part / name).write_text("".join(lines) + ("\n" if part == "Testing" else ""))
    return truth


def write_msra_bin(path: Path, depth: np.ndarray) -> None:
    rows, columns = np.nonzero(depth)
    box = (0, 0, 0, 0) if not rows.size else (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)
    left, top, right, bottom = (int(value) for value in box)
    path.parent.mkdir(parents=True, exist_ok=True)
    header = struct.pack("<6I", 320, 240, left, top, right, bottom)
    path.write_bytes(header + depth[top:bottom, left:right].astype("<f4").tobytes())


MSRA_GESTURES = (*"123456789", "I", "IP", "L", "MP", "RP", "T", "TIP", "Y")


def write_msra(root: Path, subjects=range(9), seed: int = 0):
    """The subjects, 17 gestures, two frames each; P0/1 has a third without any reading.

    Returns {frame name: (depth, joints in the camera frame, y down)}.
    """
    random = np.random.default_rng(seed)
    truth = {}
    for subject in subjects:
        # One hand a subject, moved from frame to frame: 307 blobs would cost seconds.
        depth, uvd = hand_blob(random, (241.42, 241.42), (160, 125), (320, 240), 300.0, 21)
        for gesture in MSRA_GESTURES:
            lines = []
            for frame in range(3 if (subject, gesture) == (0, "1") else 2):
                name = f"P{subject}/{gesture}/{frame:06d}_depth.bin"
                moved, moved_uvd = np.roll(depth, frame, axis=1), uvd + np.array([frame, 0, 0])
                shown = moved if frame < 2 else np.zeros_like(moved)
                u, v, d = moved_uvd.T
                xyz = np.stack([(u - 160) * d / 241.42, (v - 120) * d / 241.42, d], -1)
                write_msra_bin(root / "cvpr15_MSRAHandGestureDB" / name, shown)
                lines.append(" ".join(f"{value:.4f}" for value in (xyz * [1, -1, -1]).reshape(-1)))
                truth[name] = shown, np.round(xyz, 4)
            text = f"{len(lines)}\n" + "\n".join(lines) + "\n"
            (root / "cvpr15_MSRAHandGestureDB" / f"P{subject}" / gesture / "joint.txt").write_text(text)
    return truth


def write_synthetic(folder: Path, frames: int = 3, seed: int = 0):
    """depth_%06d.png and labels.jsonl as `handgraph synthesize` lays them out: [(depth, uvd)] a frame."""
    random = np.random.default_rng(seed)
    truth, lines = [], []
    for frame in range(frames):
        depth, uvd = hand_blob(random, (475.0, 475.0), (310, 240), (640, 480), 500.0, 21)
        u, v, d = uvd.T
        xyz = np.stack([(u - 320) * d / 475, (v - 240) * d / 475, d], -1)
        name = f"depth_{frame:06d}.png"
        write_png(folder / name, depth.astype(np.uint16))
        label = {
            "file": name,
            "frame": "camera frame: x right, y down, z forward, millimetres; pixel centres are integers",
            "order": "21 joints: wrist, then thumb, index, middle, ring, little, each from palm to tip",
            "depth_unit_mm": 1.0,
            "camera": {"fx": 475.0, "fy": 475.0, "cx": 320.0, "cy": 240.0},
            "side": "right",
            "joints_mm": np.round(xyz, 3).tolist(),
            "keypoints_px": np.round(uvd[:, :2], 3).tolist(),
            "hand_model": "open_hand",
            "shape": [0.5] * 10,
            "pose": [0.1] * 48,
            "translation_mm": [0.0] * 3,
            "subject": 40 + frame,
            "family": "rest",
            "sensor": "kinect",
            "contents": [],
        }
        lines.append(json.dumps(label) + "\n")
        truth.append((depth, uvd))
    (folder / "labels.jsonl").write_text("".join(lines))
    return truth
