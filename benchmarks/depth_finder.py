"""Whole synthetic depth frames, through the whole of `predict`: how often it is the hand, and how well.

    python benchmarks/depth_finder.py --frames 200 --split test --seed 0 --json

| row | frames |
|---|---|
| people | of `DepthSynthesizer`: a person before a camera, sometimes with a table or things held |
| table | of `TabletopSynthesizer`: a camera beside or above a table with things on it, arms from any side |

Frames that show under 15 cm² of the hand are left out. `within_60` is the share of frames whose joints are
within 60 mm of the truth in the mean, no answer counting as a miss; `mean_mm` and `median_mm` are over the
frames with an answer, `there_mm` over those within 60 mm; `looks` is how many crops the network was shown,
`call_ms` the median time of a call.
"""

import argparse
import json
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from handgraph.estimator import Estimator, load
from handgraph.synthetic import DepthFrame, DepthSynthesizer
from handgraph.synthetic.render import HAND
from handgraph.synthetic.tabletop import TabletopSynthesizer

LEAST_MM2 = 1_500.0


def measure(estimate: Estimator, frame: Callable[[int], DepthFrame], count: int) -> dict[str, Any]:
    """A row of the table."""
    errors: list[float] = []
    times: list[float] = []
    looks: list[int] = []
    ask = estimate._at

    def counted(depth_mm: Any, camera: Any, side: Any, candidates: Sequence[Any], turns: int = 1) -> Any:
        looks[-1] += len(candidates) * turns
        return ask(depth_mm, camera, side, candidates, turns)

    estimate._at = counted  # type: ignore[method-assign]
    for index in range(count):
        drawn = frame(index)
        depth_mm = drawn.depth_mm[(drawn.label == HAND) & (drawn.depth_mm > 0)]
        if (depth_mm**2).sum() / (drawn.camera.fx * drawn.camera.fy) < LEAST_MM2:
            continue
        looks.append(0)
        begin = time.perf_counter()
        hands = estimate(drawn.depth_mm, camera=drawn.camera)
        times.append(1e3 * (time.perf_counter() - begin))
        joints = hands[0].joints_mm if hands else None
        errors.append(
            np.inf if joints is None else float(np.linalg.norm(joints - drawn.joints_mm, axis=1).mean())
        )
    del estimate._at
    error = np.array(errors)
    found = error[np.isfinite(error)]
    return {
        "n": len(error),
        "found": len(found),
        "within_60": round(float((error < 60).mean()), 3),
        "within_20": round(float((error < 20).mean()), 3),
        "mean_mm": round(float(found.mean()), 1),
        "median_mm": round(float(np.median(found)), 1),
        "there_mm": round(float(found[found < 60].mean()), 1),
        "looks": round(float(np.mean(looks)), 2),
        "call_ms": round(float(np.median(times)), 1),
    }


def main() -> int:
    """Print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--frames", type=int, default=200, help="of each kind")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--split", default="test", choices=("train", "validation", "test"))
    parser.add_argument("--checkpoint", help="weights instead of the shipped ones")
    parser.add_argument("--runtime", default="torch", choices=("torch", "onnx"))
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    options = parser.parse_args()
    estimate = load(checkpoint=options.checkpoint, runtime=options.runtime)
    if not isinstance(estimate, Estimator):
        parser.error("these weights are for photographs")
    kinds = {
        "people": DepthSynthesizer(options.seed, options.split).frame,
        "table": TabletopSynthesizer(options.seed, options.split).frame,
    }
    rows = {name: measure(estimate, frame, options.frames) for name, frame in kinds.items()}
    if options.json:
        print(json.dumps({"split": options.split, "seed": options.seed, "rows": rows}))
        return 0
    for name, row in rows.items():
        print(name, json.dumps(row))
    return 0


if __name__ == "__main__":
    sys.exit(main())
