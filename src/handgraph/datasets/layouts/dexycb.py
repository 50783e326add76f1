"""DexYCB: SUBJECT/SEQUENCE/{meta.yml,pose.npz,SERIAL/…}, calibration/{intrinsics,mano_ID,extrinsics_ID}."""

from pathlib import Path
from typing import Any

import numpy as np

from handgraph.camera import PinholeCamera
from handgraph.datasets.dexycb import SERIALS, SIZE, SUBJECTS
from handgraph.datasets.layouts.drawing import hand_3d, picture, project, write_picture


def write(
    root: Path,
    seed: int = 0,
    subjects: tuple[int, ...] = tuple(range(10)),
    sequences: int = 1,
    frames: int = 2,
) -> dict[str, dict[str, Any]]:
    """These subjects with `sequences` sequences each (published: 100) of `frames` frames, before 8 cameras.

    Frame 0 of each sequence has no label (-1, as stored); odd subjects are seen with left hands. Only the
    first sequence has pictures of its own, the others link to them. Returns, of the labelled frames,
    {"20200709-subject-01/SEQUENCE/SERIAL/color_000001.jpg": {joints_mm, keypoints_px, camera, side, subject,
    shape, pose_m (51,), depth_mm}}.
    """
    random = np.random.default_rng(seed)
    root = Path(root)
    calibration = root / "calibration"
    cameras = []
    for serial in SERIALS:
        fx, fy, cx, cy = (float(value) for value in np.round(random.normal([615, 615, 312, 240], 3), 4))
        camera = PinholeCamera(fx, fy, cx, cy)
        cameras.append(camera)
        lines = [
            f"{kind}:\n  fx: {camera.fx}\n  fy: {camera.fy}\n  ppx: {camera.cx}\n  ppy: {camera.cy}\n"
            for kind in ("color", "depth")
        ]
        _write(calibration / "intrinsics" / f"{serial}_{SIZE[0]}x{SIZE[1]}.yml", "".join(lines))
    poses = "".join(
        f"  '{serial}': !!python/tuple\n" + "".join(f"  - {value}\n" for value in np.eye(3, 4).ravel())
        for serial in SERIALS
    )
    extrinsics_id = "20200702_151821"
    _write(
        calibration / f"extrinsics_{extrinsics_id}" / "extrinsics.yml",
        f"extrinsics:\n{poses}master: '{SERIALS[0]}'\n",
    )
    truth: dict[str, dict[str, Any]] = {}
    first: Path | None = None
    for subject in subjects:
        side = ("right", "left")[subject % 2]
        shape = np.round(random.normal(0, 1, 10), 6)
        mano = f"{SUBJECTS[subject][:8]}_{100 + subject}_subject-{subject + 1:02d}_{side}"
        _write(
            calibration / f"mano_{mano}" / "mano.yml",
            "betas:\n" + "".join(f"- {float(beta)}\n" for beta in shape),
        )
        for sequence in range(sequences):
            name = f"{SUBJECTS[subject][:8]}_{141500 + sequence:06d}"
            folder = root / SUBJECTS[subject] / name
            listed = "".join(f"- '{serial}'\n" for serial in SERIALS)
            _write(
                folder / "meta.yml",
                f"serials:\n{listed}num_frames: {frames}\nextrinsics: '{extrinsics_id}'\nycb_ids:\n- 1\n"
                f"ycb_grasp_ind: 1\nmano_sides:\n- {side}\nmano_calib:\n- {mano}\n",
            )
            sequence_pose = np.zeros((frames, 1, 51), np.float32)
            for frame in range(frames):
                pose = np.zeros(51, np.float32)
                if frame:
                    pose = random.normal(0, 0.3, 51).astype(np.float32)
                sequence_pose[frame, 0] = pose
                for camera, serial in zip(cameras, SERIALS, strict=True):
                    in_camera = pose.copy()
                    joints, uv = np.full((21, 3), -1.0), np.full((21, 2), -1.0)
                    if frame:
                        in_camera[:3] = random.normal(0, 1, 3)
                        joints = hand_3d(random, side=side, distance_mm=800.0)
                        uv = project(camera, joints)
                        joints = joints / 1000
                    color = folder / serial / f"color_{frame:06d}.jpg"
                    depth = folder / serial / f"aligned_depth_to_color_{frame:06d}.png"
                    if first is None:
                        write_picture(color, picture(random, SIZE, uv if frame else None))
                        write_picture(depth, np.full(SIZE[::-1], 800 + frame, np.uint16))
                    else:
                        folder.joinpath(serial).mkdir(exist_ok=True)
                        for path in (color, depth):
                            path.unlink(missing_ok=True)
                            path.hardlink_to(first / serial / path.name)
                    np.savez_compressed(
                        folder / serial / f"labels_{frame:06d}.npz",
                        seg=np.zeros(SIZE[::-1], np.uint8),
                        pose_y=np.zeros((2, 3, 4), np.float32),
                        pose_m=in_camera[None],
                        joint_3d=joints[None].astype(np.float32),
                        joint_2d=uv[None].astype(np.float32),
                    )
                    if frame:
                        truth["/".join(color.parts[-4:])] = {
                            "joints_mm": 1000 * joints,
                            "keypoints_px": uv,
                            "camera": camera,
                            "side": side,
                            "subject": f"{subject + 1:02d}",
                            "shape": shape,
                            "pose_m": in_camera,
                            "depth_mm": 800 + frame,
                        }
            np.savez_compressed(
                folder / "pose.npz", pose_m=sequence_pose, pose_y=np.zeros((frames, 2, 7), np.float32)
            )
            first = first or folder
    return truth


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
