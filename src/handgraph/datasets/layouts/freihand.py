"""FreiHAND: FreiHAND_pub_v2/{training,evaluation}/rgb/%08d.jpg and lists of labels as JSON."""

import json
from pathlib import Path
from typing import Any

import numpy as np

from handgraph.camera import PinholeCamera
from handgraph.datasets.freihand import SIZE
from handgraph.datasets.layouts.drawing import hand_3d, picture, project, write_picture


def write(
    root: Path, seed: int = 0, labels: int = 3, vertices: bool = True
) -> dict[str, list[dict[str, Any]]]:
    """`labels` training labels with four pictures each, and as many of evaluation, with its later labels.

    Returns {part: [{joints_mm (21, 3), keypoints_px, camera, shape, pose (48,) as stored, vertices_mm}]}.
    """
    random = np.random.default_rng(seed)
    truth: dict[str, list[dict[str, Any]]] = {}
    top = Path(root) / "FreiHAND_pub_v2"
    for part, copies in (("training", 4), ("evaluation", 1)):
        told: list[dict[str, Any]] = []
        for label in range(labels):
            focal = float(random.uniform(380, 480))
            camera = PinholeCamera(focal, 0.9995 * focal, 112.0, 112.0)
            joints = hand_3d(random, distance_mm=700.0)
            uv = project(camera, joints)
            # A mesh has 778 vertices; these lie along the bones, and say no more than that.
            mesh = joints[np.arange(778) % 21] + random.normal(0, 4, (778, 3))
            told.append(
                {
                    "joints_mm": joints,
                    "keypoints_px": uv,
                    "camera": camera,
                    "pose": random.normal(0, 0.3, 48),
                    "shape": random.normal(0, 1, 10),
                    "vertices_mm": mesh,
                }
            )
            for copy in range(copies):
                name = f"{label + copy * labels:08d}.jpg"
                write_picture(top / part / "rgb" / name, picture(random, SIZE, uv))
            if part == "training":
                mask = np.zeros(SIZE[::-1], np.uint8)
                write_picture(top / part / "mask" / f"{label:08d}.jpg", mask)
        lists = {
            "K": [
                [[t["camera"].fx, 0.0, 112.0], [0.0, t["camera"].fy, 112.0], [0.0, 0.0, 1.0]] for t in told
            ],
            "xyz": [(t["joints_mm"] / 1000).tolist() for t in told],
            "mano": [[[*t["pose"], *t["shape"], *t["keypoints_px"][0], 0.1]] for t in told],
        }
        if vertices:
            lists["verts"] = [(t["vertices_mm"] / 1000).tolist() for t in told]
        for kind, values in lists.items():
            (top / f"{part}_{kind}.json").write_text(json.dumps(values))
        scale = [float(np.linalg.norm(t["joints_mm"][10] - t["joints_mm"][9])) / 1000 for t in told]
        (top / f"{part}_scale.json").write_text(json.dumps(scale))
        truth[part] = told
    return truth
