"""The hand laid on a depth crop's surface: what it gains over the network's joints, and by its weight.

    python benchmarks/surface_fit.py --json

Validation crops answered by the shipped jgr_p2o, then laid (`fit_surface`) with different weights of the
surface; 0 is the fit to the joints alone. "own" is the hand model that drew the crops; "strangers" are twelve
models that no shape of it reaches, as real hands are: each part of the hand moved by a normal error of 3.5 mm
in each coordinate and thickened by one of 8 %, which moves skin and joints by some 5 mm. `worse` is the share
of hands whose mean error is larger than the network's. `ms` is the time for one hand of a batch.
"""

import dataclasses
import time
from typing import Any

import numpy as np
import torch
from _bench import arguments, machine, report

from handgraph.decoding.jgr_p2o import joint_weights
from handgraph.estimator import weights_path
from handgraph.hand_model import HandModel, load_open_hand
from handgraph.hand_model.surface import fit_surface
from handgraph.networks.hourglass import folded
from handgraph.synthetic.depth import DepthSynthesizer
from handgraph.systems import jgr_p2o
from handgraph.training.checkpoint import load_system

CROPS, BATCH = 384, 64
WEIGHTS = (0.0, 0.5, 1.0, 2.0, 4.0, 8.0)
STRANGERS, MOVED_MM, THICKENED = 12, 3.5, 0.08


def main() -> None:
    options = arguments(__doc__ or "")
    module, _, config, _ = load_system(weights_path("jgr_p2o"))
    network, synthesizer = folded(module), DepthSynthesizer(0, "validation", config.input_size)
    count = max(BATCH, round(CROPS * options.repeats) // BATCH * BATCH)
    batches = [synthesizer.batch(range(start, start + BATCH)) for start in range(0, count, BATCH)]
    said = []
    for batch in batches:
        with torch.inference_mode():
            output = network(batch["image"])
        cubes = np.array([crop.cube_mm for crop in batch["crops"]])
        joints, spread = jgr_p2o.joints_mm(output, batch["crops"]), jgr_p2o.spread_mm(output, cubes)
        said.append((joints, joint_weights(spread)))
    network_errors = np.concatenate(
        [_errors(joints, batch) for (joints, _), batch in zip(said, batches, strict=True)]
    )
    own = load_open_hand()
    rows: list[dict[str, Any]] = [_row("network", None, network_errors, network_errors, None)]
    for hand, models in (("own", [own]), ("strangers", [stranger(own, seed) for seed in range(STRANGERS)])):
        for surface in WEIGHTS:
            errors, seconds = [], 0.0
            for number, ((joints, weights), batch) in enumerate(zip(said, batches, strict=True)):
                images = batch["image"][:, 0].numpy()
                laid = np.empty_like(joints)
                for index, model in enumerate(models):
                    part = slice((number + index) % len(models), None, len(models))
                    given = images[part], batch["crops"][part], joints[part]
                    fit_surface(
                        model, *(each[:1] for each in given), weights=weights[part][:1], surface=surface
                    )
                    begin = time.perf_counter()
                    laid[part] = fit_surface(model, *given, weights=weights[part], surface=surface).joints_mm
                    seconds += time.perf_counter() - begin
                errors.append(_errors(laid, batch))
            rows.append(_row(hand, surface, np.concatenate(errors), network_errors, 1e3 * seconds / count))
    report(
        {
            "benchmark": "surface_fit",
            "machine": machine(),
            "threads": torch.get_num_threads(),
            "crops": count,
            "rows": rows,
        },
        options.json,
    )


def stranger(model: HandModel, seed: int) -> HandModel:
    """A hand that the model's shapes do not reach. Its joints move with its skin."""
    random = np.random.default_rng(seed)
    moved = random.normal(0, MOVED_MM / 1000, (16, 3))
    thicker = random.normal(0, THICKENED, 16)
    joints = model.rest_joints
    skin = model.v_template + model.weights @ moved
    for part in range(1, 16):
        # The bone runs to the next joint of the finger, a last one on as the one before it.
        along = joints[part] - joints[part - 1] if part % 3 == 0 else joints[part + 1] - joints[part]
        along /= np.linalg.norm(along)
        away = model.v_template - joints[part]
        away = away - np.outer(away @ along, along)
        skin = skin + model.weights[:, part : part + 1] * thicker[part] * away
    return dataclasses.replace(model, v_template=skin)


def _errors(joints: np.ndarray, batch: dict[str, Any]) -> np.ndarray:
    return np.linalg.norm(joints - batch["joints_mm"].numpy(), axis=-1)


def _row(
    hand: str, surface: float | None, errors: np.ndarray, network: np.ndarray, ms: float | None
) -> dict[str, Any]:
    frames = errors.mean(axis=1)
    return {
        "hand": hand,
        "surface": surface,
        "mean_mm": round(float(errors.mean()), 2),
        "median_mm": round(float(np.median(errors)), 2),
        "p90_hand_mm": round(float(np.percentile(frames, 90)), 1),
        "worse": round(float((frames > network.mean(axis=1)).mean()), 3),
        "ms": None if ms is None else round(ms, 2),
    }


if __name__ == "__main__":
    main()
