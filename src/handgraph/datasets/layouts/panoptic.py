"""CMU Panoptic: hand143_panopticdb/hands_v143_14817.json and imgs/%08d.jpg."""

import json
from pathlib import Path
from typing import Any

import numpy as np

from handgraph.camera import PinholeCamera
from handgraph.datasets.layouts.drawing import hand_3d, picture, project, write_picture

SIZE = (1920, 1080)


def write(root: Path, seed: int = 0, samples: int = 3, size: tuple[int, int] = SIZE) -> list[dict[str, Any]]:
    """`samples` photographs with one right hand each; the second has an invalid keypoint.

    Returns [{keypoints_px (21, 2) with NaN where invalid, valid (21,)}] in the file's order.
    """
    random = np.random.default_rng(seed)
    folder = Path(root) / "hand143_panopticdb"
    width, height = size
    camera = PinholeCamera(1.1 * width, 1.1 * width, width / 2, height / 2)
    entries, truth = [], []
    for index in range(samples):
        keypoints = np.round(project(camera, hand_3d(random, distance_mm=1500.0, off_axis_mm=200.0)), 3)
        valid = np.ones(21, dtype=bool)
        valid[7] = index != 1
        stored = np.where(valid[:, None], keypoints, 0.0)
        low, high = keypoints[valid].min(axis=0), keypoints[valid].max(axis=0)
        name = f"imgs/{index:08d}.jpg"
        write_picture(folder / name, picture(random, size, keypoints))
        entries.append(
            {
                "dataset": "hand143",
                "img_paths": name,
                "img_width": float(width),
                "img_height": float(height),
                "objpos": ((low + high) / 2).tolist(),
                "scale_provided": float((high - low).max() / 368),
                "joint_self": np.column_stack([stored, valid]).tolist(),
            }
        )
        truth.append({"keypoints_px": np.where(valid[:, None], keypoints, np.nan), "valid": valid})
    (folder / "hands_v143_14817.json").write_text(json.dumps({"root": entries}))
    return truth
