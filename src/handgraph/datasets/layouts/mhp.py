"""MHP: annotated_frames/data_N/{F_webcam_C.jpg,F_joints.txt} and calibrations/data_N/webcam_C/*.pkl."""

import pickle
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from handgraph.datasets.layouts.drawing import hand_3d, picture, write_picture
from handgraph.datasets.mhp import POINTS, RECORDINGS, SIZE, WEBCAMS, distorted_px
from handgraph.skeleton import MHP_21


def write(root: Path, seed: int = 0, frames: tuple[int, ...] = (0, 1, 10)) -> dict[str, dict[str, Any]]:
    """All 21 recordings with these frames, seen by four webcams; beyond data_1 the pictures link to its own.

    Returns {"data_1/0_webcam_1.jpg": {joints_mm (21, 3) in the webcam's frame, MHP's order, keypoints_px}}.
    """
    random = np.random.default_rng(seed)
    top = Path(root) / "multiview_hand_pose_dataset_uploaded_v2"
    truth: dict[str, dict[str, Any]] = {}
    for recording in RECORDINGS:
        cameras = {}
        for webcam in WEBCAMS:
            rvec, tvec = random.uniform(-0.4, 0.4, (3, 1)), random.uniform(-20, 20, (3, 1))
            tvec[2] += 500
            cameras[webcam] = rvec, tvec
            folder = top / "calibrations" / recording / f"webcam_{webcam}"
            folder.mkdir(parents=True, exist_ok=True)
            for name, vector in (("rvec", rvec), ("tvec", tvec)):
                (folder / f"{name}.pkl").write_bytes(pickle.dumps(vector, protocol=2))
        for frame in frames:
            folder = top / "annotated_frames" / recording
            folder.mkdir(parents=True, exist_ok=True)
            canonical = hand_3d(random, distance_mm=0.0)
            canonical[0] = (canonical[0] + canonical[9]) / 2  # the palm
            world = np.round(MHP_21.from_canonical(canonical), 4)
            lines = [f"{name} {x} {y} {z}\n" for name, (x, y, z) in zip(POINTS, world.tolist(), strict=True)]
            (folder / f"{frame}_joints.txt").write_text("".join(lines) + "PALM_NORMAL 0.1 -0.9 0.3\n")
            for webcam, (rvec, tvec) in cameras.items():
                joints = world @ cv2.Rodrigues(rvec)[0].T + tvec[:, 0]
                uv = distorted_px(joints)
                path = folder / f"{frame}_webcam_{webcam}.jpg"
                if recording == RECORDINGS[0]:
                    write_picture(path, picture(random, SIZE, MHP_21.to_canonical(uv)))
                else:
                    path.unlink(missing_ok=True)
                    path.hardlink_to(top / "annotated_frames" / RECORDINGS[0] / path.name)
                truth[f"{recording}/{path.name}"] = {"joints_mm": joints, "keypoints_px": uv}
    return truth
