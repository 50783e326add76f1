"""Fit what a keypoint's confidence means to trained weights, and say whether it is true.

    python tools/calibrate_keypoints.py CHECKPOINT OUT.safetensors [SAMPLES]

For systems whose confidence in a keypoint is a logistic curve over a map's peak (`PeakConfidence`: cpm,
hourglass, siapose, and identity_mesh's detector). The fit makes it the probability that a keypoint is within
a tenth of the hand's box of the truth, over synthetic validation images. OUT holds the same weights with the
curve's two numbers. What is printed is of the test split: subjects that neither training nor this fit has
seen. For identity_mesh it also says, and writes, how far regressed shapes are off, which `personalize` needs
for its deviations.
"""

import sys
from pathlib import Path

import numpy as np
import torch

from handgraph.networks.heatmaps import PeakConfidence
from handgraph.networks.hourglass import folded
from handgraph.synthetic.rgb import RgbSynthesizer
from handgraph.training.checkpoint import find_system, load_system, save_weights

WITHIN_SIDE = 0.1
"""Of the longer side of the true keypoints' box."""
BATCH = 64


def peaks_and_errors(
    module: torch.nn.Module, size: int, split: str, samples: int
) -> tuple[np.ndarray, np.ndarray]:
    """Height of the peak, and error over the box's longer side, of every known keypoint."""
    network, images = folded(module), RgbSynthesizer(0, split, size)
    curve_of(network).copy_(torch.tensor([0.0, 1.0]))
    peaks, errors = [], []
    for start in range(0, samples, BATCH):
        batch = images.batch(range(start, min(start + BATCH, samples)))
        with torch.inference_mode():
            output = network(batch["image"])
        uv, known = batch["uv"], batch["known"]
        side = (uv.amax(dim=1) - uv.amin(dim=1)).amax(dim=-1)[:, None]
        sure = getattr(output, "sureness", output.confidence)
        peaks.append(sure.double().logit()[known])
        errors.append(((output.uv - uv).norm(dim=-1) / side)[known])
    return torch.cat(peaks).numpy(), torch.cat(errors).double().numpy()


def shape_error(module: torch.nn.Module, size: int, samples: int) -> list[float]:
    """How far regressed shapes are off, root mean square of each coefficient: people differ by about 1."""
    network, images = folded(module), RgbSynthesizer(0, "validation", size)
    squares = torch.zeros(10)
    for start in range(0, samples, BATCH):
        batch = images.batch(range(start, min(start + BATCH, samples)))
        with torch.inference_mode():
            squares += (network(batch["image"]).regressed - batch["shape"]).square().sum(0)
    return [round(float(value), 3) for value in (squares / samples).sqrt()]


def curve_of(module: torch.nn.Module) -> torch.Tensor | None:
    """The two numbers of its curve; None for a system without one."""
    return next((part.curve for part in module.modules() if type(part) is PeakConfidence), None)


def fit(peak: np.ndarray, good: np.ndarray) -> tuple[float, float]:
    """Offset and slope of the logistic curve, by Newton's method on the likelihood, slightly regularised."""
    features = np.stack([np.ones_like(peak), peak], axis=1)
    weights = np.zeros(2)
    for _ in range(50):
        probability = 1 / (1 + np.exp(-features @ weights))
        hessian = features.T @ (features * (probability * (1 - probability))[:, None]) + 1e-3 * np.eye(2)
        weights += np.linalg.solve(hessian, features.T @ (good - probability) - 1e-3 * weights)
    return float(weights[0]), float(weights[1])


def main(checkpoint: str, out: str, samples: str = "2048") -> None:
    """Fit on validation, write, report on test."""
    module, name, config, meta = load_system(checkpoint)
    curve = curve_of(module)
    if curve is None or find_system(name).INPUT != "colour":
        sys.exit(f"{checkpoint}: {name} has no confidence from the peaks of heat maps")
    peak, error = peaks_and_errors(module, config.input_size, "validation", int(samples))
    offset, slope = fit(peak, error <= WITHIN_SIDE)
    curve.copy_(torch.tensor([offset, slope]))
    kept = {key: meta[key] for key in ("recipe", "metrics") if key in meta}
    if name == "identity_mesh":
        kept["shape_error"] = shape_error(module, config.input_size, int(samples))
        print("shapes are off by", *kept["shape_error"], "(root mean square of each coefficient)")
    save_weights(Path(out), module, name, config, meta=kept)
    print(f"curve: offset {offset:.2f}, slope {slope:.2f}; written to {out}")

    peak, error = peaks_and_errors(module, config.input_size, "test", int(samples))
    said = 1 / (1 + np.exp(-(offset + slope * peak)))
    bins = np.array_split(np.argsort(said), 10)
    print(
        f"test: {len(peak)} keypoints, {np.mean(error <= WITHIN_SIDE):.3f} within {WITHIN_SIDE:g} of the box"
    )
    print("confidence  true share")
    for index in bins:
        print(f"     {said[index].mean():.3f}       {np.mean(error[index] <= WITHIN_SIDE):.3f}")
    gap = np.mean([abs(said[index].mean() - np.mean(error[index] <= WITHIN_SIDE)) for index in bins])
    print(f"they differ by {gap:.3f} in the mean")


if __name__ == "__main__":
    main(*sys.argv[1:])
