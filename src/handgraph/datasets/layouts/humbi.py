"""HUMBI: subject_N/hand/{intrinsic,extrinsic,project}.txt with image_cropped/ and reconstruction/ a frame."""

from pathlib import Path
from typing import Any

import cv2
import numpy as np

from handgraph.datasets.humbi import SIZE
from handgraph.datasets.layouts.drawing import hand_3d, picture, write_picture


def write(
    root: Path, seed: int = 0, subjects: tuple[int, ...] = (1, 7, 80), cameras: tuple[int, ...] = (4, 30)
) -> dict[str, dict[str, Any]]:
    """These subjects with one frame each; camera 30 (where there is one) sees the right hand alone.

    Returns {"subject_1/hand/00000001/image_cropped/right/image0000004.png": {joints_mm (21, 3) camera frame,
    keypoints_px in the crop, side, subject, shape, vertices_mm, rotation (3, 3) of the hand in the camera's
    frame, coefficients (20,)}}.
    """
    random = np.random.default_rng(seed)
    truth: dict[str, dict[str, Any]] = {}
    for subject in subjects:
        hand = Path(root) / "Hand_1_80_updat" / f"subject_{subject}" / "hand"
        header = f"Numcam: {len(cameras)}\nnumframes: {len(cameras)}\nnumP: {len(cameras)}\n"
        texts = dict.fromkeys(("intrinsic", "extrinsic", "project"), header)
        matrices = {}
        for order, camera in enumerate(cameras):
            k = np.array([[1700 + random.uniform(-50, 50), 0, 960], [0, 1700, 540], [0, 0, 1.0]]).round(4)
            rotation = cv2.Rodrigues(random.uniform(-0.5, 0.5, 3))[0]
            center = random.uniform(-0.2, 0.2, 3) - 2.0 * rotation[2]  # looks at the origin from 2 m
            projection = k @ np.column_stack([rotation, -rotation @ center])
            matrices[camera] = k, rotation, center
            for name, rows in (
                ("intrinsic", k),
                ("extrinsic", np.vstack([center, rotation])),
                ("project", projection),
            ):
                lines = "".join(" ".join(f"{value:.10f}" for value in row) + "\n" for row in rows)
                texts[name] += f"{order} {camera}\n{lines}"
        hand.mkdir(parents=True, exist_ok=True)
        for name, text in texts.items():
            (hand / f"{name}.txt").write_text(text)
        frame = hand / "00000001"
        shape = np.zeros(10)
        shape[0] = round(random.normal(), 6)
        for side in ("right", "left"):
            world = hand_3d(random, side=side, distance_mm=0.0) / 1000
            mesh = world[np.arange(778) % 21] + random.normal(0, 0.004, (778, 3))
            global_rotation, coefficients = random.normal(0, 1, 3), random.normal(0, 1, 20)
            parameters = np.concatenate([[0.1, 0.2, 0.3], global_rotation, coefficients, shape])
            labels = frame / "reconstruction"
            labels.mkdir(parents=True, exist_ok=True)
            stored = {"keypoints": world, "vertices": mesh, "mano_params": parameters[:, None]}
            for name, rows in stored.items():
                text = "".join(" ".join(f"{value:.9f}" for value in row) + "\n" for row in rows)
                (labels / f"{name}_{side[0]}.txt").write_text(text + ("\n" if name == "keypoints" else ""))
            listed = ""
            for camera in cameras if side == "right" else cameras[:1]:
                k, rotation, center = matrices[camera]
                joints = (world - center) @ rotation.T
                uv = joints @ k.T
                uv = uv[:, :2] / uv[:, 2:]
                (left, top), (right, bottom) = np.floor(uv.min(0)) - 30, np.ceil(uv.max(0)) + 30
                extent = int(max(right - left, bottom - top))
                xmin, ymin = int(left), int(top)
                listed += f"{camera} {xmin} {xmin + extent} {ymin} {ymin + extent}\n"
                crop_uv = (uv - [xmin, ymin] + 0.5) * SIZE[0] / (extent + 1) - 0.5
                path = frame / "image_cropped" / side / f"image{camera:07d}.png"
                image = picture(random, SIZE, crop_uv)
                write_picture(path, image)
                truth["/".join(path.parts[-6:])] = {
                    "image": image,
                    "joints_mm": 1000 * joints,
                    "keypoints_px": crop_uv,
                    "side": side,
                    "subject": str(subject),
                    "shape": shape,
                    "vertices_mm": 1000 * (mesh - center) @ rotation.T,
                    "rotation": rotation @ cv2.Rodrigues(global_rotation)[0],
                    "coefficients": coefficients,
                }
            (frame / "image_cropped" / side / "list.txt").write_text(listed)
    return truth
