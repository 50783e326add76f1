"""hand_labels: manual_train and manual_test, one JPEG and one JSON a hand."""

import json
from pathlib import Path
from typing import Any

import numpy as np

from handgraph.camera import PinholeCamera
from handgraph.datasets.layouts.drawing import hand_3d, picture, project, write_picture

SIZE = (1280, 720)


def write(
    root: Path, seed: int = 0, samples: int = 2, parts: tuple[str, ...] = ("manual_train", "manual_test")
) -> dict[str, list[dict[str, Any]]]:
    """Per part `samples` hands, alternately of MPII (a left hand, with head and body) and NZSL (a right one).

    Returns {part: [{file, keypoints_px (21, 2) with NaN where invalid, side, head_size}]} sorted by file.
    """
    random = np.random.default_rng(seed)
    camera = PinholeCamera(700.0, 700.0, SIZE[0] / 2, SIZE[1] / 2)
    truth: dict[str, list[dict[str, Any]]] = {}
    for part in parts:
        folder = Path(root) / ("hand_labels_synth" if part.startswith("synth") else "hand_labels") / part
        told = []
        for index in range(samples):
            mpii = index % 2 == 0
            side = "left" if mpii else "right"
            stem = f"{5880453 + index:09d}_01_l" if mpii else f"ex{index}_2.flv_{40 + index:06d}_r"
            keypoints = np.round(project(camera, hand_3d(random, distance_mm=900.0, side=side)), 4)
            valid = np.ones(21, dtype=bool)
            valid[20] = mpii
            head = 87.0 + index if mpii else None
            label: dict[str, Any] = {
                "hand_pts": np.column_stack([keypoints, valid]).tolist(),
                "hand_box_center": ((keypoints.min(axis=0) + keypoints.max(axis=0)) / 2).tolist(),
                "is_left": int(side == "left"),
            }
            if mpii:
                label |= {
                    "is_mpii": 1,
                    "mpii_image": "005880453.jpg",
                    "mpii_annorect_idx": 0,
                    "mpii_body_pts": [[1.0, 2.0, 0.0]] * 16,
                    "head_size": head,
                }
            write_picture(folder / f"{stem}.jpg", picture(random, SIZE, keypoints))
            (folder / f"{stem}.json").write_text(json.dumps(label))
            told.append(
                {
                    "file": f"{stem}.jpg",
                    "keypoints_px": np.where(valid[:, None], keypoints, np.nan),
                    "side": side,
                    "head_size": head,
                }
            )
        truth[part] = sorted(told, key=lambda one: str(one["file"]))
    return truth
