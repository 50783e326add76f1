"""Real photographs, never trained on: errors of a colour system, given the hand's box or left to find it.

    HANDGRAPH_REAL=/data/real python benchmarks/real_photos.py --model siapose --json
    HANDGRAPH_REAL=/data/real python benchmarks/real_photos.py --model hybrid_gcn --fitting both --box-only

Rows by case and by what the estimator is told:

- `box`: the tight box of the labelled keypoints and the side, as after a finder; one picture, one hand;
- `picture`: nothing but the picture (cases of one hand in a picture only).

`--fitting both` has every row twice: `… before fitting` is what was regressed, only placed, and `… after
fitting` the hand laid on its 2D keypoints (`optimise`), for systems that can and cases with 3D labels; `own` is
what is the system's own, after for identity_mesh and before for hybrid_gcn.

| key | meaning |
|---|---|
| `found`, `hands` | hands reported, and labelled |
| `side_right` | of those found, whose side was right (`picture` only; the side is told with `box`) |
| `relative_error` | mean keypoint error over the longer side of the true keypoints' box |
| `pck` | share of the keypoints at most that part of the box's longer side off |
| `mpjpe_mm`, `pa_mpjpe_mm` | about the wrist, and after Procrustes, where system and labels are 3D |
| `auc`, `auc_20_50`, `pa_auc` | mean height of the PCK curve, 0 to 50 mm (of the former and the latter), 20 to 50 |
| `scaled_by_all_bones_mpjpe_mm` | the same as `mpjpe_mm`, but the size by all of the person's bones |
| `surface_mm`, `pa_surface_mm` | where answer and labels have a mesh: mean distance of either's vertices to the other's surface (`evaluation.surface`), the wrists laid on one another; the answer moved as its joints are by Procrustes |

**Size.** An answer in lengths of one bone (`SCALE_BONE`, hybrid_gcn) takes that bone's length from each frame's own
label for `mpjpe_mm`, as its paper has it, and is otherwise scaled as the network answered. For
`scaled_by_all_bones_…` all bones are given as a subject file would give them: their lengths are the medians over
the labels of the case's person (of the case, where it does not say who is seen), and no frame's own.
`placement.relative_size` is by how much. An answer in millimetres is scaled to those bones likewise.

MANO's 778 vertices have no counterparts in the open hand, so there is no MPVPE. The labels' triangles are those
of the OBJ files of rgbd_mesh_handx, whose vertices are in the same order as the others'.

Hands that are not reported count in `found` and in no mean. The labels serve to score, for `box`, and for size.
"""  # noqa: E501

import argparse
import json
import sys
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from real_cases import CASES, label_faces, real_cases

from handgraph import ColourEstimator, Hand
from handgraph.datasets import Sample
from handgraph.errors import ConfigError
from handgraph.estimator import load
from handgraph.evaluation.metrics import JointErrors, PixelErrors, procrustes
from handgraph.evaluation.surface import surface_distance
from handgraph.hand import RELATIVE_FRAME
from handgraph.hand_model import HandLayer
from handgraph.hand_model.calibration import calibrate_from_bones
from handgraph.meshes import hand_faces
from handgraph.placement import bone_length, bone_lengths, relative_size
from handgraph.report import write_overlay
from handgraph.subject import Subject
from handgraph.training.checkpoint import find_system

WHOLE_PICTURES = (
    "rgb_3d_realworld",
    "rgb_2d_freihand",
    "rgb_2d_onehand10k",
    "rgb_2d_handpose_x",
    "rgb_mesh_freihand",
)
"""Cases whose pictures show one hand, filling a good part of them."""


def people(samples: Iterable[tuple[str, Sample]]) -> dict[tuple[str, str | None], Subject]:
    """Everybody with 3D labels, by case and subject, as a subject file has them: medians of their bones."""
    lengths: dict[tuple[str, str | None], list[np.ndarray]] = defaultdict(list)
    for case, sample in samples:
        if sample.joints_mm is not None:
            lengths[case, sample.subject].append(bone_lengths(sample.order.to_canonical(sample.joints_mm)))
    subjects, layer = {}, HandLayer()
    for key, rows in lengths.items():
        bones = np.nanmedian(np.stack(rows), axis=0)
        if np.isfinite(bones).all():
            hand = calibrate_from_bones(layer, bones[None])
            sizes = hand.hand_length_mm, hand.hand_width_mm
            subjects[key] = Subject(hand.shape, *sizes, bones, "labels", "open_hand", ("labels",), (1.0,))
    return subjects


class Row:
    """Errors of one case."""

    def __init__(self) -> None:
        self.joints, self.pixels, self.all_bones = JointErrors(), PixelErrors(), JointErrors()
        self.surfaces_mm: list[tuple[float, float]] = []
        self.hands = self.found = self.side_right = 0

    def update(self, sample: Sample, hands: list[Hand], system: Any, person: Subject | None) -> None:
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
        if not np.isfinite(true_mm).all():
            return
        assert person is not None
        wrist = true_mm[:1]
        by_one, by_all = sizes(hand, true_mm, system, person)
        mine = np.asarray(hand.joints_mm - hand.joints_mm[:1], np.float64)
        self.joints.update(by_one * mine[None], (true_mm - wrist)[None])
        self.all_bones.update(by_all * mine[None], (true_mm - wrist)[None])
        if hand.vertices_mm is not None and sample.vertices_mm is not None:
            skin, faces = np.asarray(hand.vertices_mm - hand.joints_mm[:1], np.float64), hand_faces(hand)
            both = np.concatenate([mine, skin])
            # Vertices without a counterpart have no part in the fit and are moved along.
            aligned = procrustes(
                both[None], np.concatenate([true_mm - wrist, np.full_like(skin, np.nan)])[None]
            )[0, len(mine) :]
            label = (np.asarray(sample.vertices_mm, np.float64) - wrist, label_faces())
            self.surfaces_mm.append(
                (surface_distance(skin, faces, *label), surface_distance(aligned, faces, *label))
            )

    def compute(self) -> dict[str, Any]:
        """The row's figures."""
        row: dict[str, Any] = {"hands": self.hands, "found": self.found, "side_right": self.side_right}
        if len(self.pixels):
            figures = self.pixels.compute()
            row |= {name: figures[name] for name in ("relative_error", "pck", "epe_px")}
        if len(self.joints):
            figures = self.joints.compute()
            names = (
                "mpjpe_mm",
                "mpjpe_mm_interval95",
                "median_mm",
                "pa_mpjpe_mm",
                "auc",
                "auc_20_50",
                "pa_auc",
            )
            row |= {name: figures[name] for name in names}
            figures = self.all_bones.compute()
            for name in ("mpjpe_mm", "mpjpe_mm_interval95", "median_mm", "auc", "auc_20_50"):
                row[f"scaled_by_all_bones_{name}"] = figures[name]
        if self.surfaces_mm:
            row["surface_mm"], row["pa_surface_mm"] = np.mean(self.surfaces_mm, axis=0).tolist()
        return row


def sizes(hand: Hand, true_mm: np.ndarray, system: Any, person: Subject) -> tuple[float, float]:
    """Factors of a hand's joints for the size by one bone and by all of the person's."""
    if not hasattr(system, "unit_mm"):
        return 1.0, float(relative_size(person.bone_lengths_mm, bone_lengths(hand.joints_mm)))
    # Such a system was told the person's bones, and so what millimetres its unit has.
    by_all = person.hand_mm if hand.frame.startswith(RELATIVE_FRAME) else 1.0
    by_one = bone_length(true_mm, system.SCALE_BONE) / system.unit_mm(person.bone_lengths_mm)
    return float(by_one * by_all), by_all


def fittings(estimate: ColourEstimator, which: str) -> dict[str, bool | None]:
    """The endings of the rows' names, and what the estimator is told for them."""
    if which == "both":
        try:
            estimate.optimise = True
            return {" before fitting": False, " after fitting": True}
        except ConfigError:
            pass
    return {"": None}


def measure(
    estimate: ColourEstimator,
    pictures: Path | None,
    *,
    fitting: str = "own",
    box_only: bool = False,
    cases: list[str] | None = None,
) -> dict[str, dict[str, Any]]:
    """Rows by case, each by what the estimator was told."""
    system = find_system(estimate.name)
    rows: dict[str, dict[str, Row]] = defaultdict(lambda: defaultdict(Row))
    known = people(real_cases(cases=cases))
    told = fittings(estimate, fitting)
    for number, (case, sample) in enumerate(real_cases(cases=cases)):
        assert sample.image is not None
        assert sample.box_px is not None
        x, y, w, h = (float(value) for value in sample.box_px)
        person = known.get((case, sample.subject))
        subject = person if hasattr(system, "unit_mm") else None
        for ending, optimise in told.items():
            if optimise is not None and sample.joints_mm is None:
                continue
            estimate.optimise = optimise
            hands = estimate(sample.image, sample.camera, (x, y, w, h), sample.side, subject)
            rows[case]["box" + ending].update(sample, hands, system, person)
            if pictures is not None:
                write_overlay(
                    pictures / f"{case}_{number}{ending.replace(' ', '_')}.png", sample.image, hands
                )
            if not box_only and case in WHOLE_PICTURES:
                hands = estimate(sample.image, sample.camera, subject=subject)
                rows[case]["picture" + ending].update(sample, hands, system, person)
    return {case: {told: row.compute() for told, row in by.items()} for case, by in rows.items()}


def markdown(rows: dict[str, dict[str, dict[str, Any]]]) -> str:
    """The rows with 3D as a table: millimetres, AUC from 0 to 50 mm."""
    lines = [
        "| | hands | told | keypoints over the box | about the wrist, size by one bone | by all bones "
        "| Procrustes | AUC, by all bones, Procrustes | surface, Procrustes |",
        "|---" * 9 + "|",
    ]
    for case, by in rows.items():
        for told, row in by.items():
            if "mpjpe_mm" not in row:
                continue
            low, high = row["mpjpe_mm_interval95"]
            surface = f"{row['surface_mm']:.1f}, {row['pa_surface_mm']:.1f}" if "surface_mm" in row else ""
            lines.append(
                f"| {case} | {row['found']} of {row['hands']} | {told} | {row['relative_error']:.3f} "
                f"| {row['mpjpe_mm']:.1f} ({low:.1f} to {high:.1f}) "
                f"| {row['scaled_by_all_bones_mpjpe_mm']:.1f} | {row['pa_mpjpe_mm']:.1f} "
                f"| {row['auc']:.3f}, {row['scaled_by_all_bones_auc']:.3f}, {row['pa_auc']:.3f} | {surface} |"
            )
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(description="Errors of a colour system on real photographs.")
    parser.add_argument("--model", help="system whose shipped weights to use")
    parser.add_argument("--checkpoint", help="weights of your own")
    parser.add_argument(
        "--fitting",
        choices=("own", "both"),
        default="own",
        help="3D before and after it is laid on keypoints",
    )
    parser.add_argument("--cases", nargs="+", choices=list(CASES), help="only these")
    parser.add_argument("--box-only", action="store_true", help="only rows with the box given")
    parser.add_argument("--pictures", type=Path, metavar="DIR", help="write every overlay here")
    parser.add_argument("--markdown", action="store_true", help="print the 3D rows as a table")
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    args = parser.parse_args()
    estimate = load(args.model, checkpoint=args.checkpoint)
    if not isinstance(estimate, ColourEstimator):
        print(f"{estimate.name}: takes depth frames, expected a colour system", file=sys.stderr)
        return 2
    if args.pictures is not None:
        args.pictures.mkdir(parents=True, exist_ok=True)
    rows = measure(estimate, args.pictures, fitting=args.fitting, box_only=args.box_only, cases=args.cases)
    if args.json:
        print(json.dumps({"model": estimate.name, "rows": rows}))
        return 0
    if args.markdown:
        print(markdown(rows))
        return 0
    for case in CASES:
        for told, row in rows.get(case, {}).items():
            figures = f"found {row['found']}/{row['hands']}, side {row['side_right']}"
            if "pck" in row:
                figures += f", NE {row['relative_error']:.3f}, PCK@0.2 {row['pck']['0.2']:.3f}"
            if "mpjpe_mm" in row:
                figures += (
                    f", RR {row['mpjpe_mm']:.1f} mm (size by all bones "
                    f"{row['scaled_by_all_bones_mpjpe_mm']:.1f}), PA {row['pa_mpjpe_mm']:.1f} mm, "
                    f"AUC {row['auc']:.3f} ({row['scaled_by_all_bones_auc']:.3f}), PA {row['pa_auc']:.3f}"
                )
            if "surface_mm" in row:
                figures += f", surface {row['surface_mm']:.1f} mm, PA {row['pa_surface_mm']:.1f} mm"
            print(f"{case} ({told}): {figures}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
