"""Real photographs with labels, never trained on, each as a `Sample`: what colour systems are measured on.

    HANDGRAPH_REAL=/data/real python benchmarks/real_cases.py --sheet sheet.png --json

| case | hands | labels | caveat |
|---|---|---|---|
| rgb_3d_realworld | 350 | 21 joints 3D, camera | crops of one person's **left** hand, cm turned to mm |
| rgb_3d_rhd | 2 | 21 joints 3D, camera | rendered, not photographed |
| rgb_3d_interhand26m | 3 | 21 joints 3D, camera | one photograph shows two hands, interlocked |
| rgb_mesh_freihand, _ho3d, _taco | 3, 1, 2 | joints, vertices, camera | fitted; HO3D and TACO hold objects |
| rgbd_mesh_handx | 21 | joints, vertices, depth, camera | fitted; one sequence |
| rgbd_8cam | 16 | 21 clicked joints 2D, 3D from them, depth, camera | 3D to about a centimetre, 6 px |
| rgb_2d_freihand | 4 | 21 joints 2D | one pose before four backgrounds |
| rgb_2d_onehand10k | 2 | 2D, some joints unlabelled | |
| rgb_2d_panoptic_cmu, rgb_2d_cmu_original_json | 2, 2 | 21 joints 2D | tiny hands in whole scenes |
| rgb_2d_handpose_x | 3 | 21 joints 2D | |

`box_px` is the tight box of the labelled keypoints throughout, without any margin (papers crop 2.2 times its
longer side, `ImageCrops` adds its `margin`). Unknown joints are NaN; joints and vertices are mm in the camera
frame, whatever the file's own unit and signs.
"""

import argparse
import json
import os
import re
import sys
from collections.abc import Callable, Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from handgraph import PinholeCamera
from handgraph.datasets import Sample
from handgraph.datasets.sheet import tile, write_sheet
from handgraph.images import read_depth, read_image
from handgraph.skeleton import INTERHAND, OPENPOSE, RHD, JointOrder

SIDES = {
    "9.jpg": "right",
    "2021-02-01_13-52-49_284.jpg": "right",
    "2021-02-01_13-52-50_378.jpg": "left",
    "2021-02-01_13-52-53_532.jpg": "left",
}
"""Told by looking at the photographs whose files do not say; of 33.jpg one cannot be sure."""


def real_cases(
    real: str | Path | None = None, cases: list[str] | None = None
) -> Iterator[tuple[str, Sample]]:
    """Every labelled hand of the folder of real cases (None: HANDGRAPH_REAL's) as (case, sample).

    `cases` names some of `CASES`; a case whose folder is not there is an error, not an empty row.
    """
    real = real or os.environ.get("HANDGRAPH_REAL")
    if not real:
        sys.exit("HANDGRAPH_REAL is not set: the folder of the real cases")
    folder = Path(real)
    for case in cases or CASES:
        for sample in CASES[case](folder / case):
            yield case, sample


def realworld(folder: Path) -> Iterator[Sample]:
    """Crops resized to 256 from `bbox` of full images; joints in cm in the full image's camera frame."""
    from scipy.io import loadmat

    params, joints_cm = loadmat(folder / "params.mat"), loadmat(folder / "pose_gt.mat")["pose_gt"]
    for path, (fx, fy, cx, cy), (x, y, w, h), cm in zip(
        params["image_path"], params["cam_param"], params["bbox"], joints_cm, strict=True
    ):
        source = folder / str(path).strip()
        image = read_image(source)
        height, width = image.shape[:2]
        camera = PinholeCamera(fx * width / w, fy * height / h, (cx - x) * width / w, (cy - y) * height / h)
        yield sample(source, image, joints_mm=10.0 * cm, camera=camera, side="left", subject="1")


def rhd(folder: Path) -> Iterator[Sample]:
    """One hand an image, each finger from the tip; projection by the image's own camera."""
    for image, label in _coco(folder / "test_rhd.json"):
        source, param = folder / image["file_name"], image["cam_param"]
        points = np.array(label["keypoints"], float)
        yield sample(
            source,
            read_image(source),
            np.where(points[:, 2:] > 0, points[:, :2], np.nan),
            joints_mm=np.array(label["joint_cam"]),
            camera=PinholeCamera(*param["focal"], *param["princpt"]),
            side=label["hand_type"],
            order=RHD,
        )


def interhand(folder: Path) -> Iterator[Sample]:
    """World joints of both hands into the camera of the photograph: X_cam = R (X_world - position)."""
    stem = "test_interhand2.6m_"
    cameras, worlds = (
        json.loads((folder / f"{stem}{part}.json").read_text()) for part in ("camera", "joint_3d")
    )
    for image, label in _coco(folder / f"{stem}data.json"):
        given, name = cameras[str(image["capture"])], image["camera"]
        world = np.array(worlds[str(image["capture"])][str(image["frame_idx"])]["world_coord"])
        joints = (world - given["campos"][name]) @ np.array(given["camrot"][name]).T
        joints[np.ravel(label["joint_valid"]) == 0] = np.nan
        source = folder / image["file_name"]
        for side, block in (("right", slice(0, 21)), ("left", slice(21, 42))):
            if np.isfinite(joints[block]).any():
                yield sample(
                    source,
                    read_image(source),
                    joints_mm=joints[block],
                    camera=PinholeCamera(*given["focal"][name], *given["princpt"][name]),
                    side=side,
                    subject=str(image["subject"]),
                    order=INTERHAND,
                )


def mesh(folder: Path) -> Iterator[Sample]:
    """Vertices of FreiHAND and HO3D are stored negated, TACO's numbers are metres."""
    sign = 1.0 if folder.name.endswith("taco") else -1.0
    unit = 1000.0 if folder.name.endswith("taco") else 1.0
    for path in sorted((folder / "label").glob("*.json")):
        label = json.loads(path.read_text())
        source = folder / "image" / f"{path.stem}.jpg"
        for hand in label["hands"]:
            yield sample(
                source,
                read_image(source),
                joints_mm=unit * np.array(hand["joint3d"]),
                vertices_mm=sign * unit * np.array(hand["vertex3d"]),
                camera=PinholeCamera(label["fx"], label["fy"], label["cx"], label["cy"]),
                side=hand["label"],
            )


def handx(folder: Path) -> Iterator[Sample]:
    """One file a quantity beside each frame."""
    for source in sorted(folder.glob("*_o.jpg")):
        stem = source.name.removesuffix("_o.jpg")
        joints, vertices = (
            np.array(
                [row.split()[1:4] for row in path.read_text().splitlines() if row.startswith("v ")], float
            )
            for path in (folder / f"{stem}_Joint.obj", folder / f"{stem}_Mesh.obj")
        )
        yield sample(
            source,
            read_image(source),
            joints_mm=joints,
            vertices_mm=vertices,
            depth_mm=read_depth(folder / f"{stem}_depth.png").depth_mm,
            camera=PinholeCamera(*numbers((folder / f"{stem}_intrinsics.txt").read_text())[:4]),
            side="right",
        )


def label_faces(real: str | Path | None = None) -> np.ndarray:
    """The triangles (1538, 3) of the labels' 778 vertices, which all mesh cases have in one order."""
    folder = Path(real or os.environ["HANDGRAPH_REAL"]) / "rgbd_mesh_handx"
    return _faces(sorted(folder.glob("*_Mesh.obj"))[0])


@lru_cache(maxsize=1)
def _faces(path: Path) -> np.ndarray:
    rows = [row.split()[1:4] for row in path.read_text().splitlines() if row.startswith("f ")]
    return np.array([[int(corner.split("/")[0]) - 1 for corner in row] for row in rows])


def eight_cameras(folder: Path) -> Iterator[Sample]:
    """Clicked joints where they are visible, and what two or more cameras' clicks say in 3D."""
    poses = {}
    text = (folder / "calibration/extrinsics.yml").read_text()
    for block in re.split(r"\n  (?=\S+: !!python/tuple)", text)[1:]:
        serial, rest = block.split(":", 1)
        rows = [line.strip()[2:] for line in rest.splitlines() if line.strip().startswith("- ")]
        poses[serial.strip("'\"")] = np.array(rows[:12], float).reshape(3, 4)
    for instant, record in json.loads((folder / "annotations.json").read_text()).items():
        world_m = np.array(record["joints_world_m"], float)
        world_m[np.array(record["n_views"]) < 2] = np.nan
        for serial, clicked in record["views"].items():
            yaml = (folder / f"calibration/{serial}_640x480.yml").read_text().split("depth:")[0]
            points = np.array(clicked, float)  # None becomes NaN
            visible = points[:, 2] > 0
            if not visible.any():
                continue
            source = folder / serial / f"color_{int(instant):06d}.jpg"
            depth = source.with_name(f"aligned_depth_to_color_{int(instant):06d}.png")
            yield sample(
                source,
                read_image(source),
                np.where(visible[:, None], points[:, :2], np.nan),
                joints_mm=1000 * (world_m - poses[serial][:, 3]) @ poses[serial][:, :3],
                depth_mm=read_depth(depth).depth_mm,
                camera=PinholeCamera(*(float(value) for value in re.findall(r": ([\d.]+)", yaml)[:4])),
                visible=visible,
                side="right",
            )


def keypoints_2d(folder: Path) -> Iterator[Sample]:
    """COCO-style files of whole data sets' first images; visibility 0 means unlabelled."""
    for image, label in _coco(next(folder.glob("test_*.json"))):
        points = np.array(label["keypoints"], float).reshape(-1, 3)
        source = folder / image["file_name"]
        side = "right" if folder.name == "rgb_2d_freihand" else SIDES.get(source.name)
        if folder.name == "rgb_2d_panoptic_cmu":  # the side stands in the image's name
            side = {"l": "left", "r": "right"}[source.stem[-1]]
        yield sample(
            source, read_image(source), np.where(points[:, 2:] > 0, points[:, :2], np.nan), side=side
        )


def cmu_original(folder: Path) -> Iterator[Sample]:
    """The original annotation of one hand beside each photograph."""
    for path in sorted(folder.glob("*.json")):
        label = json.loads(path.read_text())
        points = np.array(label["hand_pts"], float)
        source = path.with_suffix(".jpg")
        keypoints = np.where(points[:, 2:] == 1, points[:, :2], np.nan)
        yield sample(source, read_image(source), keypoints, side="left" if label["is_left"] else "right")


def handpose_x(folder: Path) -> Iterator[Sample]:
    """Web photographs already cut to one hand."""
    for path in sorted(folder.glob("*.json")):
        points = json.loads(path.read_text())["info"][0]["pts"]
        keypoints = np.array([[points[str(joint)][axis] for axis in "xy"] for joint in range(21)], float)
        source = path.with_suffix(".jpg")
        yield sample(source, read_image(source), keypoints, side=SIDES.get(source.name))


CASES: dict[str, Callable[[Path], Iterator[Sample]]] = {
    "rgb_3d_realworld": realworld,
    "rgb_3d_rhd": rhd,
    "rgb_3d_interhand26m": interhand,
    "rgb_mesh_freihand": mesh,
    "rgb_mesh_ho3d": mesh,
    "rgb_mesh_taco": mesh,
    "rgbd_mesh_handx": handx,
    "rgbd_8cam": eight_cameras,
    "rgb_2d_freihand": keypoints_2d,
    "rgb_2d_onehand10k": keypoints_2d,
    "rgb_2d_panoptic_cmu": keypoints_2d,
    "rgb_2d_cmu_original_json": cmu_original,
    "rgb_2d_handpose_x": handpose_x,
}


def sample(
    source: Path,
    image: np.ndarray,
    keypoints_px: np.ndarray | None = None,
    *,
    joints_mm: np.ndarray | None = None,
    camera: PinholeCamera | None = None,
    order: JointOrder = OPENPOSE,
    **labels: Any,
) -> Sample:
    """A sample whose keypoints are the joints' projections where the case has none of its own."""
    if keypoints_px is None:
        assert joints_mm is not None
        assert camera is not None
        keypoints_px = camera.uvd_from_xyz(joints_mm)[:, :2]
    points = keypoints_px
    if (
        joints_mm is not None and camera is not None
    ):  # where few joints are visible, the others complete the box
        points = np.concatenate([points, camera.uvd_from_xyz(joints_mm)[:, :2]])
    low, high = np.nanmin(points, axis=0), np.nanmax(points, axis=0)
    return Sample(
        frame=source.name,
        source=source,
        order=order,
        keypoints_px=keypoints_px,
        joints_mm=joints_mm,
        camera=camera,
        image=image,
        box_px=np.concatenate([low, high - low + 1]),
        **labels,
    )


def tiles(real: str | Path | None, most: int = 8) -> list[np.ndarray]:
    """Up to `most` hands of every case, spread over it, each with its labels drawn."""
    drawn = []
    for case in CASES:
        samples = [one for _, one in real_cases(real, [case])]
        for index in np.unique(np.linspace(0, len(samples) - 1, most).astype(int)):
            drawn.append(tile(samples[index], words=case))
    return drawn


def numbers(text: str) -> list[float]:
    """Every number in a text, in order."""
    return [float(word) for word in re.findall(r"-?\d+\.?\d*(?:e-?\d+)?", text)]


def _coco(path: Path) -> list[tuple[dict[str, Any], dict[str, Any]]]:
    """(image, annotation) pairs of a COCO-style file."""
    content = json.loads(path.read_text())
    images = {image["id"]: image for image in content["images"]}
    return [(images[label["image_id"]], label) for label in content["annotations"]]


def main() -> int:
    """How many hands each case has, how far 3D projects from 2D, and on wish a picture of them."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--real", default=os.environ.get("HANDGRAPH_REAL"), help="folder of the real cases")
    parser.add_argument("--sheet", type=Path, help="write a picture of up to 8 hands a case")
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    options = parser.parse_args()
    if not options.real:
        parser.error("give --real, or set HANDGRAPH_REAL to the folder of the real cases")
    rows: dict[str, dict[str, Any]] = {}
    for case, one in real_cases(options.real):
        row = rows.setdefault(case, {"hands": 0, "left": 0, "projection_px": None, "longer_side_px": []})
        assert one.box_px is not None
        row["hands"] += 1
        row["left"] += one.side == "left"
        row["longer_side_px"].append(round(float(max(one.box_px[2:])), 1))
        if one.joints_mm is not None and one.camera is not None:
            off = np.linalg.norm(one.camera.uvd_from_xyz(one.joints_mm)[:, :2] - one.keypoints_px, axis=1)
            row["projection_px"] = max(row["projection_px"] or 0.0, round(float(np.nanmax(off)), 3))
    for row in rows.values():
        sides = row.pop("longer_side_px")
        row["median_longer_side_px"] = float(np.median(sides))
    if options.sheet:
        write_sheet(options.sheet, tiles(options.real))
    if options.json:
        print(json.dumps(rows))
        return 0
    for case, row in rows.items():
        print(case, row)
    return 0


if __name__ == "__main__":
    sys.exit(main())
