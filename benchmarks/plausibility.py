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

Angles come from joint positions alone (`evaluation.plausibility`); what a twist can explain is not counted.
"""

import argparse
from functools import cache
from typing import Any

import numpy as np
import torch
from _bench import machine, report

from handgraph.estimator import weights_path
from handgraph.evaluation.measures import inputs
from handgraph.evaluation.metrics import JointErrors
from handgraph.evaluation.plausibility import beyond_limits, bone_length_spread, joint_angles
from handgraph.synthetic.rgb import RgbSynthesizer
from handgraph.systems import names
from handgraph.training.checkpoint import find_system, load_system

BATCH = 32


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
        predicted, true, subjects = answers(checkpoint, options.samples)
        if not rows:
            rows.append(row("truth", true, true, subjects))
        rows.append(row(title, predicted, true, subjects))
    report({"machine": machine(), "samples": options.samples, "rows": rows}, options.json)


@torch.inference_mode()
def answers(checkpoint: str, samples: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Predicted and true joints about the wrist (n, 21, 3), mm, and who the hands belong to (n,)."""
    module, name, config, _ = load_system(weights_path(checkpoint) if checkpoint in names() else checkpoint)
    module.eval()
    system = find_system(name)
    predicted, true, shapes = [], [], []
    for batch in crops(config.input_size, samples):
        output = module(*inputs(system, batch))
        predicted.append(system.relative_mm(output, batch["crops"]))  # right hands alone
        joints_mm = np.asarray(batch["joints_mm"], dtype=np.float64)
        true.append(joints_mm - joints_mm[:, :1])
        shapes.append(np.asarray(batch["shape"]))
    _, subjects = np.unique(np.concatenate(shapes), axis=0, return_inverse=True)
    return np.concatenate(predicted), np.concatenate(true), subjects.reshape(-1)


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
