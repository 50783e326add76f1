"""Fitting the hand to 2D keypoints: Levenberg-Marquardt beside the paper's 200 + 60 steps of Adam.

    python benchmarks/fitting.py --json

64 synthetic hands with their true shapes and cameras. Both start from the same pose (the true one, every
angle off by a normal error of 0.15 rad, about 9°) and from the same place (on the ray of the wrist's
keypoint, 0.5 m away), and minimise Eq. 6.4 alone, towards keypoints with a normal error of 1 px. `energy` is
its mean over the hands, in pixels. Adam's first stage poses the hands once, its second skins five vertices
only: it is as fast as it can be in plain PyTorch. Times are medians of turns taken in this run.

`recovery` starts from the same poses, with exact keypoints: how far the fitted joints are from the true ones.
"""

from typing import Any

import numpy as np
import torch
from _bench import arguments, interleaved_ms, machine, report

from handgraph.hand_model import HandLayer
from handgraph.hand_model.fitting import fit, fit_by_adam
from handgraph.synthetic.depth import DepthSynthesizer

HANDS = 64
START_ERROR_RAD = 0.15
START_DEPTH_MM = 500.0
KEYPOINT_ERROR_PX = 1.0
LIMITS = 100.0  # px²/rad²: weight of the joint limits where they are used


def main() -> None:
    options = arguments(__doc__ or "")
    layer = HandLayer()
    samples = [DepthSynthesizer(0, "test").sample(index) for index in range(HANDS)]
    random = np.random.default_rng(0)
    joints = np.stack([sample.joints_mm for sample in samples]).astype(np.float64)
    shape = np.stack([sample.shape for sample in samples]).astype(np.float64)
    pose = np.stack([sample.pose for sample in samples]).astype(np.float64)
    pose += random.normal(0, START_ERROR_RAD, pose.shape)
    matrices = np.stack([_matrix(sample.crop.camera) for sample in samples])
    projected = np.einsum("bij,bnj->bni", matrices, joints)
    exact = projected[..., :2] / projected[..., 2:]
    keypoints = exact + random.normal(0, KEYPOINT_ERROR_PX, exact.shape)
    rays = np.linalg.solve(matrices, np.append(keypoints[:, 0], np.ones((HANDS, 1)), axis=1)[..., None])
    rest = layer.joints(torch.from_numpy(shape).float(), torch.zeros(HANDS, 48))[:, 0].double().numpy()
    place = START_DEPTH_MM * rays[..., 0] - rest

    given = keypoints, matrices, pose, place, shape
    tensors = [torch.from_numpy(array).float() for array in given]

    def by_adam() -> torch.Tensor:
        return fit_by_adam(layer, *tensors)[2]

    def by_lm(n: int = HANDS) -> Any:
        start = {"start_pose": pose[:n], "start_translation_mm": place[:n], "shape": shape[:n]}
        return fit(layer, keypoints[:n], matrices[:n], **start)

    count = max(1, round(15 * options.repeats))
    times = interleaved_ms({"adam": by_adam, "lm": by_lm, "lm_1": lambda: by_lm(1)}, count)
    fitted, adam_energy = by_lm(), by_adam()

    rows = []
    for name, extra in {
        "Eq. 6.4": {},
        "with joint limits": {"limits": LIMITS},
        "with joint limits, without a start": {"limits": LIMITS, "start_pose": None},
    }.items():
        one = fit(layer, exact, matrices, shape=shape, **{"start_pose": pose, **extra})
        error = np.linalg.norm(one.joints_mm - joints, axis=-1)
        rows.append(
            {
                "recovery": name,
                "median_mm": float(np.median(error)),
                "mean_mm": float(error.mean()),
                "hands_within_1_mm": float((error.mean(1) < 1).mean()),
                "iterations": float(one.iterations.mean()),
            }
        )
    report(
        {
            "benchmark": "fitting",
            "machine": machine(),
            "threads": torch.get_num_threads(),
            "repeats": count,
            "hands": HANDS,
            "adam_ms": times["adam"]["median"],
            "lm_ms": times["lm"]["median"],
            "ratio": times["adam"]["median"] / times["lm"]["median"],
            "adam_min_ms": times["adam"]["min"],
            "lm_min_ms": times["lm"]["min"],
            "ratio_of_min": times["adam"]["min"] / times["lm"]["min"],
            "lm_batch_1_ms": times["lm_1"]["median"],
            "lm_batch_1_min_ms": times["lm_1"]["min"],
            "adam_energy": float(adam_energy.mean()),
            "lm_energy": float(fitted.energy.mean()),
            "hands_where_lm_energy_is_lower": float((fitted.energy <= adam_energy.numpy()).mean()),
            "lm_iterations": float(fitted.iterations.mean()),
            "rows": rows,
        },
        options.json,
    )


def _matrix(camera: Any) -> np.ndarray:
    return np.array([[camera.fx, 0, camera.cx], [0, camera.fy, camera.cy], [0, 0, 1.0]])


if __name__ == "__main__":
    main()
