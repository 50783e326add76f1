"""How well a person's hand is calibrated from K images: unseen synthetic people, a network's own predictions.

    python benchmarks/calibration.py --json                              # jgr_p2o on depth crops
    python benchmarks/calibration.py --json --checkpoint run/best        # identity_mesh on photographs

People of the synthetic test split, none of whom was seen in training, with all their poses, views,
occlusions and noise. For each K the first K images of each person are used. Errors are means over the people,
with their 95 % intervals (bootstrap over people): `w_error_mm` of index knuckle to ring knuckle,
`l_error_mm` of wrist to middle fingertip, both at the flat pose, `beta_mse` of the shape coefficients (Kong,
section 6.4.1). `coverage` is how often the true length lies within two of the claimed standard deviations.
`solve_ms` is the whole calibration of one person, median.

Methods: "meshes" is Eq. 6.6-6.7, as `personalize` has it, for jgr_p2o of the hands laid on each crop's
surface; "distances" fits one shape to the median distances between the joints that the network sees, "laid
distances" between those of the laid hands. "mean hand" knows nothing.
"""

import argparse
import statistics
import time
from typing import Any

import numpy as np
import torch
from _bench import machine, report

from handgraph.decoding.jgr_p2o import SHAPE_ERROR
from handgraph.estimator import weights_path
from handgraph.evaluation.measures import inputs
from handgraph.hand_model import HandLayer
from handgraph.hand_model.calibration import Calibration, calibrate, calibrate_from_joints, distances_mm
from handgraph.hand_model.fitting import axis_angles_of
from handgraph.networks.hourglass import folded
from handgraph.synthetic.depth import SUBJECTS, DepthSynthesizer
from handgraph.synthetic.hands import subject_shape
from handgraph.synthetic.rgb import RgbSynthesizer
from handgraph.training.checkpoint import find_system, load_system

COUNTS = (1, 2, 3, 5, 10, 20, 50)
BATCH = 64
TEST = 2  # the test split's number
PAIRS = ((0, 12), (5, 13))  # length, width


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    parser.add_argument("--checkpoint", help="an identity_mesh that regresses shapes; jgr_p2o without")
    parser.add_argument("--people", type=int, default=40)
    parser.add_argument("--images", type=int, default=64, help="for each person, about")
    options = parser.parse_args()
    layer = HandLayer()
    module, name, config, meta = load_system(options.checkpoint or weights_path("jgr_p2o"))
    SUBJECTS["test"] = options.people  # the first of them only, so that everybody is met often enough
    people = predictions(folded(module), name, config, options.people * options.images)

    rows = [score("mean hand", 0, False, layer, people, [_mean_hand(layer)] * len(people), [0.0])]
    methods = ("meshes",) if name == "identity_mesh" else ("distances", "laid distances", "meshes")
    for method in methods:
        for k in COUNTS:
            for attention in (True, False):
                found, times = [], []
                for person in people.values():
                    if len(person["confidence"]) < k:
                        continue
                    part = {key: values[:k] for key, values in person.items()}
                    start = time.perf_counter()
                    off = meta.get("shape_error") if name == "identity_mesh" else SHAPE_ERROR
                    found.append(solve(layer, method, part, attention, off))
                    times.append(1e3 * (time.perf_counter() - start))
                if len(found) == len(people):
                    rows.append(score(method, k, attention, layer, people, found, times))
    report(
        {
            "benchmark": "calibration",
            "machine": machine(),
            "threads": torch.get_num_threads(),
            "model": name,
            "people": len(people),
            "rows": rows,
        },
        options.json,
    )


def predictions(module: Any, name: str, config: Any, count: int) -> dict[int, dict[str, np.ndarray]]:
    """For each person what the network says of their images: joints or shapes and poses, and confidence."""
    system, size = find_system(name), config.input_size
    kind = RgbSynthesizer if name == "identity_mesh" else DepthSynthesizer
    synthesizer = kind(0, "test", size, threads=torch.get_num_threads())
    rows: dict[bytes, dict[str, list[Any]]] = {}
    shapes = {
        subject_shape(0, TEST, person).astype(np.float32).tobytes(): person
        for person in range(SUBJECTS["test"])
    }
    for start in range(0, count, BATCH):
        indices = list(range(start, start + BATCH))
        batch: dict[str, Any] = dict(synthesizer.batch(indices))
        if "shape" not in batch:
            batch["shape"] = torch.from_numpy(np.stack([_shape_of(synthesizer, index) for index in indices]))
        with torch.inference_mode():
            output = module(*inputs(system, batch))
        if name == "identity_mesh":
            said = {
                "shapes": output.regressed.numpy(),
                "poses": axis_angles_of(output.rotations.double().numpy()).reshape(-1, 48),
                "confidence": output.confidence.numpy(),
            }
        else:
            hands = system.decode(output, batch["crops"])
            laid = system.laid(output, batch["crops"], batch["image"])
            said = {
                "seen": np.stack([hand.joints_mm for hand in hands]),
                "joints": laid.joints_mm,
                "shapes": laid.shape,
                "poses": laid.pose,
                "confidence": np.array([hand.score for hand in hands]),
            }
        for index in range(len(indices)):
            person = rows.setdefault(batch["shape"][index].numpy().tobytes(), {key: [] for key in said})
            for key, values in said.items():
                person[key].append(values[index])
    return {
        shapes[key]: {name: np.stack(values).astype(np.float64) for name, values in person.items()}
        for key, person in rows.items()
    }


def _shape_of(synthesizer: Any, index: int) -> np.ndarray:
    scene, _ = synthesizer._scene(index, whole=False)
    return scene.shape.astype(np.float32)


def solve(
    layer: HandLayer,
    method: str,
    said: dict[str, np.ndarray],
    attention: bool,
    shape_error: list[float] | None,
) -> Calibration:
    confidence = said["confidence"] if attention else None
    if method == "meshes":
        return calibrate(layer, said["shapes"], said["poses"], confidence, shape_error=shape_error)
    return calibrate_from_joints(layer, said["joints" if method == "laid distances" else "seen"], confidence)


def _mean_hand(layer: HandLayer) -> Calibration:
    return calibrate(layer, np.zeros((1, 10)), np.zeros((1, 48)))


def score(
    method: str,
    k: int,
    attention: bool,
    layer: HandLayer,
    people: dict[int, Any],
    found: list[Calibration],
    times: list[float],
) -> dict[str, Any]:
    errors, inside = [], []
    for person, one in zip(people, found, strict=True):
        true = subject_shape(0, TEST, person)
        length, width = distances_mm(layer, true, PAIRS)[0]
        off = one.hand_length_mm - length
        errors.append([abs(one.hand_width_mm - width), abs(off), np.square(one.shape - true).mean()])
        if one.hand_length_sd_mm is not None:
            inside.append(abs(off) <= 2 * one.hand_length_sd_mm)
    table = np.array(errors)
    random = np.random.default_rng(0)
    means = table[random.integers(0, len(table), (2000, len(table)))].mean(1)
    low, high = np.percentile(means, [2.5, 97.5], axis=0)
    row: dict[str, Any] = {"method": method, "k": k, "attention": attention}
    for column, name in enumerate(("w_error_mm", "l_error_mm", "beta_mse")):
        row[name] = float(table[:, column].mean())
        row[f"{name}_95"] = [round(float(low[column]), 3), round(float(high[column]), 3)]
    row["coverage"] = float(np.mean(inside)) if inside else None
    row["solve_ms"] = statistics.median(times)
    return row


if __name__ == "__main__":
    main()
