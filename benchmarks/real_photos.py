"""Real photographs, never trained on: errors of a colour system, given the hand's box or left to find it.

    HANDGRAPH_REAL=/data/real python benchmarks/real_photos.py --model siapose --json

Rows by case and by what the estimator is told:

- `box`: the tight box of the labelled keypoints and the side, as after a finder; one picture, one hand;
- `picture`: nothing but the picture (cases of one hand in a picture only).

| key | meaning |
|---|---|
| `found`, `hands` | hands reported, and labelled |
| `side_right` | of those found, whose side was right (`picture` only; the side is told with `box`) |
| `relative_error` | mean keypoint error over the longer side of the true keypoints' box |
| `pck` | share of the keypoints at most that part of the box's longer side off |
| `mpjpe_mm`, `pa_mpjpe_mm` | about the wrist, and after Procrustes, where system and labels are 3D |

An answer in hand lengths takes its scale from the truth, by the bone that the system names.

Hands that are not reported count in `found` and in no mean. The labels serve to score, and for `box`.
"""

import argparse
import json
import sys
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
from real_cases import CASES, real_cases

from handgraph import ColourEstimator, Hand
from handgraph.datasets import Sample
from handgraph.estimator import load
from handgraph.evaluation.metrics import JointErrors, PixelErrors
from handgraph.report import write_overlay
from handgraph.training.checkpoint import find_system

WHOLE_PICTURES = (
    "rgb_3d_realworld",
    "rgb_2d_freihand",
    "rgb_2d_onehand10k",
    "rgb_2d_handpose_x",
    "rgb_mesh_freihand",
)
"""Cases whose pictures show one hand, filling a good part of them."""


class Row:
    """Errors of one case."""

    def __init__(self) -> None:
        self.joints, self.pixels = JointErrors(), PixelErrors()
        self.hands = self.found = self.side_right = 0

    def update(self, sample: Sample, hands: list[Hand], scale_bone: tuple[int, int] | None) -> None:
        """Add one labelled hand and what was reported for it (one hand or none)."""
        self.hands += 1
        if not hands:
            return
        self.found += 1
        hand = hands[0]
        self.side_right += hand.side == sample.side
        true_px = sample.order.to_canonical(sample.keypoints_px)
        extent = np.nanmax(true_px, axis=0) - np.nanmin(true_px, axis=0)
        self.pixels.update(hand.keypoints_px[None], true_px[None], np.array([max(extent.max(), 1.0)]))
        if hand.joints_mm is None or sample.joints_mm is None:
            return
        true_mm = sample.order.to_canonical(sample.joints_mm)
        true_mm, mine = true_mm - true_mm[:1], hand.joints_mm - hand.joints_mm[:1]
        if not np.isfinite(true_mm).all():
            return
        if scale_bone is not None and "relative" in hand.frame:
            near, far = scale_bone
            length = np.linalg.norm(mine[far] - mine[near])
            mine = mine * np.linalg.norm(true_mm[far] - true_mm[near]) / max(length, 1e-6)
        self.joints.update(mine[None], true_mm[None])

    def compute(self) -> dict[str, Any]:
        """The row's figures."""
        row: dict[str, Any] = {"hands": self.hands, "found": self.found, "side_right": self.side_right}
        if len(self.pixels):
            figures = self.pixels.compute()
            row |= {name: figures[name] for name in ("relative_error", "pck", "epe_px")}
        if len(self.joints):
            figures = self.joints.compute()
            row |= {name: figures[name] for name in ("mpjpe_mm", "pa_mpjpe_mm")}
        return row


def measure(estimate: ColourEstimator, pictures: Path | None) -> dict[str, dict[str, Any]]:
    """Rows by case, each by what the estimator was told."""
    scale_bone = getattr(find_system(estimate.name), "SCALE_BONE", None)
    rows: dict[str, dict[str, Row]] = defaultdict(lambda: defaultdict(Row))
    for number, (case, sample) in enumerate(real_cases()):
        assert sample.image is not None
        assert sample.box_px is not None
        x, y, w, h = (float(value) for value in sample.box_px)
        hands = estimate(sample.image, sample.camera, (x, y, w, h), sample.side)
        rows[case]["box"].update(sample, hands, scale_bone)
        if pictures is not None:
            write_overlay(pictures / f"{case}_{number}.png", sample.image, hands)
        if case in WHOLE_PICTURES:
            rows[case]["picture"].update(sample, estimate(sample.image, sample.camera), scale_bone)
    return {case: {told: row.compute() for told, row in by.items()} for case, by in rows.items()}


def main() -> int:
    parser = argparse.ArgumentParser(description="Errors of a colour system on real photographs.")
    parser.add_argument("--model", help="system whose shipped weights to use")
    parser.add_argument("--checkpoint", help="weights of your own")
    parser.add_argument("--pictures", type=Path, metavar="DIR", help="write every overlay here")
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    args = parser.parse_args()
    estimate = load(args.model, checkpoint=args.checkpoint)
    if not isinstance(estimate, ColourEstimator):
        print(f"{estimate.name}: takes depth frames, expected a colour system", file=sys.stderr)
        return 2
    if args.pictures is not None:
        args.pictures.mkdir(parents=True, exist_ok=True)
    rows = measure(estimate, args.pictures)
    if args.json:
        print(json.dumps({"model": estimate.name, "rows": rows}))
        return 0
    for case in CASES:
        for told, row in rows.get(case, {}).items():
            figures = f"found {row['found']}/{row['hands']}, side {row['side_right']}"
            if "pck" in row:
                figures += f", NE {row['relative_error']:.3f}, PCK@0.2 {row['pck']['0.2']:.3f}"
            if "mpjpe_mm" in row:
                figures += f", RR {row['mpjpe_mm']:.1f} mm, PA {row['pa_mpjpe_mm']:.1f} mm"
            print(f"{case} ({told}): {figures}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
