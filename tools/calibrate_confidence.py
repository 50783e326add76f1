"""Fit what a joint's confidence means, and draw whether it is true.

    python tools/calibrate_confidence.py [CHECKPOINT] [SAMPLES]

Confidence falls with the spread of what the pixels say about a joint (`spread_mm`). The fit makes it the
probability that the joint, of the hand laid on the surface, is within 20 mm of the truth: logistic
regression on the logarithm of the spread, over synthetic validation hands. The two numbers it prints belong
into `decoding/jgr_p2o.py`. The picture, docs/images/confidence.png, is of the test split: subjects that
neither training nor this fit has seen.

`SHAPE_ERROR`, printed last, belongs there too: what the shapes of one person's laid hands are off by alike.
"""

import sys
from pathlib import Path

import matplotlib
import numpy as np
import torch

from handgraph.estimator import weights_path
from handgraph.networks.hourglass import folded
from handgraph.synthetic.depth import DepthSynthesizer, Split
from handgraph.systems import jgr_p2o
from handgraph.training.checkpoint import load_system

matplotlib.use("Agg")
import matplotlib.pyplot as plt

WITHIN_MM = 20.0
BATCH = 64


def spreads_and_errors(checkpoint: str | Path, split: Split, samples: int) -> tuple[np.ndarray, np.ndarray]:
    """Spread and true error (mm) of every joint of `samples` hands."""
    module, _, config, _ = load_system(checkpoint)
    network, hands = folded(module), DepthSynthesizer(0, split, config.input_size)
    spreads, errors = [], []
    for start in range(0, samples, BATCH):
        batch = hands.batch(range(start, min(start + BATCH, samples)))
        with torch.inference_mode():
            output = network(batch["image"])
        crops = batch["crops"]
        spreads.append(jgr_p2o.spread_mm(output, np.array([crop.cube_mm for crop in crops])))
        off = jgr_p2o.joints_mm(output, crops, batch["image"], optimise=True) - batch["joints_mm"].numpy()
        errors.append(np.linalg.norm(off, axis=-1))
    return np.concatenate(spreads).ravel(), np.concatenate(errors).ravel()


def shape_error(checkpoint: str | Path, samples: int) -> list[float]:
    """What the mean shape of a person's laid hands is off by, root mean square over the people."""
    module, _, config, _ = load_system(checkpoint)
    network, hands = folded(module), DepthSynthesizer(0, "validation", config.input_size)
    said: dict[int, list[np.ndarray]] = {}
    for start in range(0, samples, BATCH):
        drawn = [hands.sample(index) for index in range(start, min(start + BATCH, samples))]
        images = torch.from_numpy(np.stack([one.image for one in drawn]))[:, None]
        with torch.inference_mode():
            output = network(images)
        laid = jgr_p2o.laid(output, [one.crop for one in drawn], images)
        for one, shape in zip(drawn, laid.shape, strict=True):
            said.setdefault(one.subject, []).append(shape - one.shape)
    off = np.stack([np.mean(shapes, axis=0) for shapes in said.values()])
    return [round(float(value), 2) for value in np.sqrt(np.square(off).mean(axis=0))]


def fit(spread: np.ndarray, error: np.ndarray) -> tuple[float, float]:
    """`SPREAD_AT_HALF_MM` and `SPREAD_STEEPNESS`, by Newton's method on the logistic likelihood."""
    features = np.stack([np.ones_like(spread), -np.log(spread)], axis=1)
    good = (error <= WITHIN_MM).astype(np.float64)
    weights = np.zeros(2)
    for _ in range(30):
        probability = 1 / (1 + np.exp(-features @ weights))
        hessian = features.T @ (features * (probability * (1 - probability))[:, None])
        weights += np.linalg.solve(hessian, features.T @ (good - probability))
    steepness = weights[1]
    return float(np.exp(weights[0] / steepness)), float(steepness)


def main(checkpoint: str | None = None, samples: str = "2048") -> None:
    """Fit on validation, report and draw on test."""
    path = checkpoint or weights_path("jgr_p2o")
    half, steepness = fit(*spreads_and_errors(path, "validation", int(samples)))
    print(f"SPREAD_AT_HALF_MM = {half:.1f}\nSPREAD_STEEPNESS = {steepness:.2f}")

    spread, error = spreads_and_errors(path, "test", int(samples))
    confidence = 1 / (1 + (spread / half) ** steepness)
    order = np.argsort(confidence)
    bins = np.array_split(order, 12)
    said = np.array([confidence[index].mean() for index in bins])
    true = np.array([(error[index] <= WITHIN_MM).mean() for index in bins])
    typical = np.array([np.median(error[index]) for index in bins])
    gap = float(np.abs(said - true).mean())
    print(f"test: said and true differ by {gap:.3f} in the mean; error {error.mean():.2f} mm")
    print(f"rank correlation of confidence and error {_rank_correlation(-confidence, error):.2f}")
    print(f"SHAPE_ERROR = {tuple(shape_error(path, int(samples)))}")

    figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.8), constrained_layout=True)
    left.plot([0, 1], [0, 1], color="0.7", linewidth=1)
    left.plot(said, true, "o-", color="tab:blue")
    left.set(xlabel="confidence", ylabel=f"share of joints within {WITHIN_MM:.0f} mm", title="Is it true?")
    right.plot(said, typical, "o-", color="tab:red")
    right.set(xlabel="confidence", ylabel="median error, mm", title="What does it promise?", ylim=(0, None))
    figure.suptitle("Confidence of joints, synthetic hands of unseen subjects")
    figure.savefig("docs/images/confidence.png", dpi=110)


def _rank_correlation(a: np.ndarray, b: np.ndarray) -> float:
    ranks = [np.argsort(np.argsort(values)) for values in (a, b)]
    return float(np.corrcoef(*ranks)[0, 1])


if __name__ == "__main__":
    main(*sys.argv[1:])
