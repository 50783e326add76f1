"""STB: images/B1Counting/{SK_color,SK_depth,BB_left,BB_right}_%d.png … and labels/B1Counting_{SK,BB}.mat …"""

from pathlib import Path
from typing import Any

import cv2
import numpy as np

from handgraph.datasets import stb
from handgraph.datasets.layouts.drawing import hand_3d, picture, write_picture
from handgraph.skeleton import STB


def write(root: Path, seed: int = 0, frames: int = 2) -> dict[str, list[dict[str, Any]]]:
    """All 12 sequences of `frames` frames; beyond B1Counting the pictures are links to its own.

    Returns {sequence: [{joints_mm: {camera: (21, 3) STB's order}, image: {camera: pixels}}]}. Needs SciPy.
    """
    from scipy.io import savemat

    random = np.random.default_rng(seed)
    root = Path(root)
    (root / "labels").mkdir(parents=True, exist_ok=True)
    truth: dict[str, list[dict[str, Any]]] = {}
    for sequence in stb.SEQUENCES:
        folder = root / "images" / sequence
        folder.mkdir(parents=True, exist_ok=True)
        labels: dict[str, list[np.ndarray]] = {"SK": [], "BB": []}
        told = []
        for number in range(frames):
            # One hand before the colour camera; STB's root is the palm's centre, not the wrist.
            canonical = hand_3d(random, side="left", distance_mm=550.0)
            stored = STB.from_canonical(canonical)
            stored[0] = (canonical[0] + canonical[9]) / 2
            turn = cv2.Rodrigues(np.array([0.00531, -0.01196, 0.00301]))[0]
            in_depth = stored @ turn.T + [-24.0381, -0.4563, -1.2326]
            in_right = stored - [120.054, 0, 0]
            labels["SK"].append(in_depth)
            labels["BB"].append(stored)
            by_camera = {"SK_color": stored, "SK_depth": in_depth, "BB_left": stored, "BB_right": in_right}
            images = {}
            for camera, joints in by_camera.items():
                path = folder / f"{camera}_{number}.png"
                if sequence != "B1Counting":
                    path.unlink(missing_ok=True)
                    path.hardlink_to(root / "images" / "B1Counting" / path.name)
                    images[camera] = truth["B1Counting"][number]["image"][camera]
                    continue
                uv = stb.CAMERAS[camera].uvd_from_xyz(STB.to_canonical(joints))[:, :2]
                uv[0] = stb.CAMERAS[camera].uvd_from_xyz(joints)[0, :2]
                image = picture(random, stb.SIZE, uv)
                if camera == "SK_depth":
                    depth = np.where(image[..., 0] == 224, 550, 1300)
                    image = np.stack([depth & 255, depth >> 8, 0 * depth], -1).astype(np.uint8)
                images[camera] = image
                write_picture(path, image)
            told.append({"joints_mm": by_camera, "image": images})
        truth[sequence] = told
        for sensor, joints in labels.items():
            array = np.stack(joints).transpose(2, 1, 0)
            savemat(root / "labels" / f"{sequence}_{sensor}.mat", {"handPara": array}, do_compression=True)
    return truth
