"""COCO-WholeBody: annotations/coco_wholebody_{train,val}_v1.0.json beside COCO's train2017 and val2017."""

import json
from pathlib import Path
from typing import Any

import numpy as np

from handgraph.camera import PinholeCamera
from handgraph.datasets.layouts.drawing import hand_3d, picture, project, write_picture

SIZE = (640, 480)


def write(
    root: Path, seed: int = 0, samples: int = 2, parts: tuple[str, ...] = ("train", "val")
) -> dict[str, list[dict[str, Any]]]:
    """Per part `samples` photographs: a person with both hands, one with only the right, and a crowd.

    Returns {part: [{file, side, box_px, keypoints_px (21, 2) with NaN where not reliable}]}: the hands that
    count, in the file's order, left before right.
    """
    random = np.random.default_rng(seed)
    root = Path(root)
    camera = PinholeCamera(350.0, 350.0, SIZE[0] / 2, SIZE[1] / 2)
    truth: dict[str, list[dict[str, Any]]] = {}
    for part in parts:
        images: list[dict[str, Any]] = []
        people: list[dict[str, Any]] = []
        told: list[dict[str, Any]] = []
        for index in range(samples):
            name = f"{139 + index:012d}.jpg"
            images.append({"id": 139 + index, "file_name": name, "width": SIZE[0], "height": SIZE[1]})
            drawn = None
            for person, sides in enumerate((("left", "right"), ("right",), ("right",))):
                crowd = person == 2
                label = {
                    "id": 10 * index + person,
                    "image_id": 139 + index,
                    "category_id": 1,
                    "iscrowd": int(crowd),
                    "bbox": [10, 10, 200, 200],
                    "keypoints": [0] * 51,
                }
                for side in ("left", "right"):
                    keypoints = np.round(project(camera, hand_3d(random, distance_mm=900.0, side=side)), 2)
                    score = np.round(random.uniform(0.2, 1, 21), 3) * (random.uniform(size=21) < 0.8)
                    box = np.round([*keypoints.min(axis=0), *np.ptp(keypoints, axis=0)], 1)
                    valid = side in sides
                    points = np.column_stack([keypoints, score]) if valid else np.zeros((21, 3))
                    label |= {
                        f"{side}hand_valid": valid,
                        f"{side}hand_box": box.tolist() if valid else [0.0] * 4,
                        f"{side}hand_kpts": points.ravel().tolist(),
                    }
                    if valid and not crowd:
                        drawn = keypoints
                        known = np.where(score[:, None] > 0, keypoints, np.nan)
                        told.append({"file": name, "side": side, "box_px": box, "keypoints_px": known})
                people.append(label)
            write_picture(root / f"{part}2017" / name, picture(random, SIZE, drawn))
        file = root / "annotations" / f"coco_wholebody_{part}_v1.0.json"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps({"info": {}, "images": images, "annotations": people, "categories": []}))
        truth[part] = told
    return truth
