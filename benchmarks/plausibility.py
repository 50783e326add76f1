"""Could a hand do this? Joint limits and bone lengths of what colour systems answer, beside their errors.

    python benchmarks/plausibility.py run1/best run2/best --names "stage I" "stage II" --json

One row for each checkpoint (or name of shipped weights), and first that of the true poses, on the same crops
of the synthetic test split, whose subjects are in no other.

| key | meaning |
|---|---|
| `mpjpe_mm`, `pa_mpjpe_mm` | mean joint error about the wrist, and after Procrustes |
| `poses_beyond` | part of the poses with a joint more than 10° beyond its limits |
| `joints_beyond` | part of the joints |
| `beyond_deg` | worst excess over the limits, mean over the poses |
| `spread_mm`, `spread` | deviation of a bone's length over a subject's pictures, and over its mean |
| `mesh_mm` | mean distance of the joints of the hand model as the answer poses it, at its best size |

Angles come from joint positions alone (`evaluation.plausibility`); what a twist can explain is not counted.
"""

import argparse
from functools import cache
from typing import Any

import numpy as np
import torch
from _bench import machine, report

from handgraph import Hand
from handgraph.estimator import weights_path
from handgraph.evaluation.measures import inputs
from handgraph.evaluation.metrics import JointErrors
from handgraph.evaluation.plausibility import beyond_limits, bone_length_spread, joint_angles
from handgraph.hand_model import HandLayer
from handgraph.synthetic.rgb import RgbSynthesizer
from handgraph.systems import names
from handgraph.training.checkpoint import find_system, load_system

BATCH = 32
LAYER = HandLayer()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("checkpoints", nargs="+", help="of colour systems that answer in millimetres")
    parser.add_argument("--names", nargs="+", help="of the rows, in the same order")
    parser.add_argument("--samples", type=int, default=512)
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    options = parser.parse_args()
    titles = options.names or options.checkpoints
    if len(titles) != len(options.checkpoints):
        parser.error(f"{len(titles)} names for {len(options.checkpoints)} checkpoints")
    rows: list[dict[str, Any]] = []
    for title, checkpoint in zip(titles, options.checkpoints, strict=True):
        predicted, posed, true, subjects = answers(checkpoint, options.samples)
        if not rows:
            rows.append(row("truth", true, true, subjects))
        rows.append(row(title, predicted, true, subjects))
        if posed is not None:
            rows[-1]["mesh_mm"] = round(float(np.linalg.norm(posed - predicted, axis=-1).mean()), 2)
    report({"machine": machine(), "samples": options.samples, "rows": rows}, options.json)


@torch.inference_mode()
def answers(checkpoint: str, samples: int) -> tuple[np.ndarray, np.ndarray | None, np.ndarray, np.ndarray]:
    """Predicted joints, those of the hand model posed to them, true ones, all about the wrist (n, 21, 3), mm,
    and who the hands belong to (n,)."""
    module, name, config, _ = load_system(weights_path(checkpoint) if checkpoint in names() else checkpoint)
    module.eval()
    system = find_system(name)
    predicted, posed, true, shapes = [], [], [], []
    for batch in crops(config.input_size, samples):
        output = module(*inputs(system, batch))
        predicted.append(system.relative_mm(output, batch["crops"]))  # right hands alone
        posed += [model_joints(hand) for hand in system.decode(output, batch["crops"])]
        joints_mm = np.asarray(batch["joints_mm"], dtype=np.float64)
        true.append(joints_mm - joints_mm[:, :1])
        shapes.append(np.asarray(batch["shape"]))
    _, subjects = np.unique(np.concatenate(shapes), axis=0, return_inverse=True)
    known = [joints for joints in posed if joints is not None]
    meshes = np.stack(known) if len(known) == len(posed) else None
    return np.concatenate(predicted), meshes, np.concatenate(true), subjects.reshape(-1)


def model_joints(hand: Hand) -> np.ndarray | None:
    """Joints of the open hand in the answer's pose and shape, at the size that fits its joints best."""
    if hand.pose is None or hand.shape is None or hand.joints_mm is None:
        return None
    numbers = (torch.as_tensor(value[None], dtype=torch.float32) for value in (hand.shape, hand.pose))
    joints = LAYER.joints(*numbers)[0].numpy()
    joints, answer = joints - joints[0], hand.joints_mm - hand.joints_mm[0]
    scaled: np.ndarray = joints * (joints * answer).sum() / (joints**2).sum()
    return scaled


@cache
def crops(size: int, samples: int) -> list[dict[str, Any]]:
    """The same for every row."""
    drawn = RgbSynthesizer(0, "test", size)
    return [drawn.batch(range(start, min(start + BATCH, samples))) for start in range(0, samples, BATCH)]


def row(title: str, predicted: np.ndarray, true: np.ndarray, subjects: np.ndarray) -> dict[str, Any]:
    errors = JointErrors()
    errors.update(predicted, true)
    figures = errors.compute()
    limits, bones = beyond_limits(joint_angles(predicted)), bone_length_spread(predicted, subjects)
    return {
        "name": title,
        "mpjpe_mm": round(float(figures["mpjpe_mm"]), 2),
        "pa_mpjpe_mm": round(float(figures["pa_mpjpe_mm"]), 2),
        **{key: round(limits[key], 4) for key in ("poses_beyond", "joints_beyond", "beyond_deg")},
        **{key: round(bones[key], 4) for key in ("subjects", "spread_mm", "spread")},
    }


if __name__ == "__main__":
    main()
