"""One's own photographs: pictures with labels.csv, or with labels.json in COCO's keypoint form."""

import csv
import json
from pathlib import Path
from typing import Any, Literal

import numpy as np

from handgraph.camera import PinholeCamera
from handgraph.datasets.layouts.drawing import hand_3d, picture, project, write_picture
from handgraph.skeleton import BONES, JOINT_NAMES

SIZE = (320, 240)


def write(
    root: Path, seed: int = 0, samples: int = 2, form: Literal["csv", "coco"] = "csv"
) -> list[dict[str, Any]]:
    """`samples` pictures with two hands each: a right one with joints in mm and a camera, a left one in 2D
    only, one of whose keypoints is unknown.

    Returns [{file, side, keypoints_px, joints_mm or None, box_px or None}] a hand.
    """
    random = np.random.default_rng(seed)
    root = Path(root)
    root.mkdir(parents=True, exist_ok=True)
    camera = PinholeCamera(350.0, 352.0, SIZE[0] / 2, SIZE[1] / 2)
    truth: list[dict[str, Any]] = []
    for index in range(samples):
        file = f"photo_{index}.jpg"
        for side in ("right", "left"):
            joints = np.round(hand_3d(random, distance_mm=700.0, side=side), 3)
            keypoints = np.round(project(camera, joints), 3)
            if side == "right":
                write_picture(root / file, picture(random, SIZE, keypoints))
            else:
                keypoints[9] = np.nan
            low, high = np.nanmin(keypoints, axis=0), np.nanmax(keypoints, axis=0)
            truth.append(
                {
                    "file": file,
                    "side": side,
                    "keypoints_px": keypoints,
                    "joints_mm": joints if side == "right" else None,
                    "box_px": np.round([*low, *(high - low)], 2) if side == "left" else None,
                }
            )
    (_write_csv if form == "csv" else _write_coco)(root, truth, camera)
    return truth


def _write_csv(root: Path, truth: list[dict[str, Any]], camera: PinholeCamera) -> None:
    points = [f"{joint}_{axis}" for joint in JOINT_NAMES for axis in "uvxyz"]
    columns = ["file", "side", "fx", "fy", "cx", "cy", "box_x", "box_y", "box_w", "box_h", *points]
    with (root / "labels.csv").open("w", newline="") as file:
        table = csv.DictWriter(file, columns, restval="")
        table.writeheader()
        for hand in truth:
            row = {"file": hand["file"], "side": hand["side"]}
            if hand["joints_mm"] is not None:
                row |= {"fx": camera.fx, "fy": camera.fy, "cx": camera.cx, "cy": camera.cy}
            if hand["box_px"] is not None:
                row |= dict(zip(columns[6:10], hand["box_px"], strict=True))
            for array, axes in ((hand["keypoints_px"], "uv"), (hand["joints_mm"], "xyz")):
                for joint, values in zip(JOINT_NAMES, array if array is not None else (), strict=False):
                    if np.isfinite(values).all():
                        row |= {f"{joint}_{axis}": value for axis, value in zip(axes, values, strict=True)}
            table.writerow(row)


def _write_coco(root: Path, truth: list[dict[str, Any]], camera: PinholeCamera) -> None:
    files = sorted({hand["file"] for hand in truth})
    annotations = []
    for number, hand in enumerate(truth, start=1):
        seen = np.isfinite(hand["keypoints_px"]).all(axis=1)
        points = np.column_stack([np.nan_to_num(hand["keypoints_px"]), np.where(seen, 2, 0)])
        label = {
            "id": number,
            "image_id": files.index(hand["file"]) + 1,
            "category_id": 1,
            "keypoints": points.ravel().tolist(),
            "side": hand["side"],
        }
        if hand["joints_mm"] is not None:
            label["joints_mm"] = hand["joints_mm"].tolist()
            label["camera"] = {"fx": camera.fx, "fy": camera.fy, "cx": camera.cx, "cy": camera.cy}
        if hand["box_px"] is not None:
            label["bbox"] = hand["box_px"].tolist()
        annotations.append(label)
    category = {
        "id": 1,
        "name": "hand",
        "keypoints": list(JOINT_NAMES),
        "skeleton": [[parent + 1, child + 1] for parent, child in BONES],
    }
    images = [
        {"id": number, "file_name": file, "width": SIZE[0], "height": SIZE[1]}
        for number, file in enumerate(files, start=1)
    ]
    content = {"images": images, "annotations": annotations, "categories": [category]}
    (root / "labels.json").write_text(json.dumps(content))
