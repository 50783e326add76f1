"""RHD: RHD_published_v2/{training,evaluation}/{color,mask,depth}/%05d.png and anno_*.pickle."""

import pickle
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from handgraph.camera import PinholeCamera
from handgraph.datasets.layouts.drawing import hand_3d, picture, project, write_picture
from handgraph.skeleton import BONES, RHD

SIZE = 320


def write(
    root: Path, seed: int = 0, samples: int = 4, parts: tuple[str, ...] = ("training", "evaluation")
) -> dict[str, list[dict[str, Any]]]:
    """Per part `samples` frames; each has both hands, the larger alternately the left and the right one.

    Returns {part: [{side, image, joints_mm (21, 3) canonical, keypoints_px, visible, focal}]} of the larger
    hand; metres are stored as float32.
    """
    random = np.random.default_rng(seed)
    truth: dict[str, list[dict[str, Any]]] = {}
    for part in parts:
        folder = Path(root) / "RHD_published_v2" / part
        labels, told = {}, []
        for index in range(samples):
            focal = float(np.round(random.uniform(260, 310), 1))
            camera = PinholeCamera(focal, focal, 160.0, 160.0)
            larger = ("left", "right")[index % 2]
            xyz, mask = np.zeros((42, 3)), np.ones((SIZE, SIZE), np.uint8)
            image = picture(random, (SIZE, SIZE))
            hands = {}
            for side in ("left", "right"):
                joints = hand_3d(random, side=side, distance_mm=430.0 if side == larger else 700.0)
                joints[:, 0] += -90 if side == "left" else 90
                # Four significant digits, as the values in the release are.
                joints = np.array([float(f"{value:.4g}") for value in joints.ravel()]).reshape(21, 3)
                uv = project(camera, joints)
                block = slice(0, 21) if side == "left" else slice(21, 42)
                xyz[block] = RHD.from_canonical(joints) / 1000
                hands[side] = (joints, uv)
            for side in sorted(hands, key=lambda side: side == larger):  # the nearer hand covers the other
                joints, uv = hands[side]
                points = np.round(uv).astype(int).tolist()
                for parent, child in BONES:
                    finger = (child - 1) // 4
                    # Mask numbers: fingers 2-16, each tip to palm, then the palm; right hand 16 higher.
                    number = 17 if child % 4 == 1 else 2 + 3 * finger + (4 - (child - 1) % 4 - 1)
                    thick = 9 if side == larger else 4
                    cv2.line(mask, points[parent], points[child], number + 16 * (side == "right"), thick)
                    cv2.line(image, points[parent], points[child], (224, 172, 144), thick)
            uv_all = np.concatenate([RHD.from_canonical(hands[side][1]) for side in ("left", "right")])
            visible = (random.uniform(size=42) < 0.8).astype(float)
            labels[index] = {
                "uv_vis": np.column_stack([uv_all, visible]).astype(np.float32),
                "xyz": xyz.astype(np.float32),
                "K": np.array([[focal, 0, 160], [0, focal, 160], [0, 0, 1]], np.float32),
            }
            depth = np.full((SIZE, SIZE, 3), 0, np.uint8)
            metres = np.where(mask > 1, 0.45, 2.0)
            code = np.round(metres / 5.0 * 65535).astype(np.int64)
            depth[..., 0], depth[..., 1] = code >> 8, code & 255
            write_picture(folder / "color" / f"{index:05d}.png", image)
            write_picture(folder / "depth" / f"{index:05d}.png", depth)
            write_picture(folder / "mask" / f"{index:05d}.png", mask)
            block = slice(0, 21) if larger == "left" else slice(21, 42)
            told.append(
                {
                    "side": larger,
                    "image": image,
                    "mask": mask,
                    "joints_mm": hands[larger][0],
                    "keypoints_px": hands[larger][1],
                    "visible": RHD.to_canonical(visible[block, None])[:, 0] == 1,
                    "focal": focal,
                    "depth_mm": np.round(code * 5000 / 65535, 3),
                }
            )
        (folder / f"anno_{part}.pickle").write_bytes(pickle.dumps(labels, protocol=3))
        truth[part] = told
    return truth
