"""Fit by which signs an answer in a depth frame is told to be a hand (`handgraph.plausibility`).

    python tools/fit_plausibility.py [CHECKPOINT] [FRAMES]

The network is asked at every place that the finder proposes in whole synthetic frames (validation, two thirds
of them hands over tables), as `predict` asks it: once, and once more around the joints it saw. Logistic
regression of the signs on whether the joints are within 40 mm of the truth in the mean; then the bias is
fitted again with the prior in place that finder and network give. The numbers it prints belong into
`plausibility.py`, the shares of frames into the text beside them.
"""

import sys
from collections.abc import Callable
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from handgraph.estimator import CANDIDATES, Estimator, load
from handgraph.localize import find_hands
from handgraph.plausibility import Signs, prior, signs
from handgraph.synthetic import DepthFrame, DepthSynthesizer
from handgraph.synthetic.render import HAND
from handgraph.synthetic.tabletop import TabletopSynthesizer

LEAST_MM2 = 1_500.0
"""Frames that show less of the hand count only where the least plausibility is chosen."""
RIGHT_MM, FOUND_MM = 40.0, 60.0
FOLDS = 5
RIDGE = 1e-3


class Answers(NamedTuple):
    """What was said at the places of one frame."""

    signs: np.ndarray  # (n, 6)
    prior: np.ndarray  # (n,)
    error_mm: np.ndarray  # (n,)
    shown: bool
    """Whether enough of the hand is to be seen to learn from."""


def answers(estimate: Estimator, frame: DepthFrame) -> Answers | None:
    """None where the finder proposes nothing."""
    depth_mm, camera = frame.depth_mm, frame.camera
    seen = depth_mm[(frame.label == HAND) & (depth_mm > 0)]
    shown = bool((seen**2).sum() / (camera.fx * camera.fy) >= LEAST_MM2)
    places = find_hands(depth_mm, camera, limit=CANDIDATES)
    if not places:
        return None
    first = estimate._at(depth_mm, camera, "right", places)
    centered = [
        replace(place, center_xyz_mm=hand.joints_mm.mean(axis=0).astype(np.float64))
        for place, hand in zip(places, first, strict=True)
    ]
    hands = estimate._at(depth_mm, camera, "right", centered)
    return Answers(
        np.array([signs(hand, depth_mm, place.planes) for hand, place in zip(hands, centered, strict=True)]),
        np.array([prior(hand, place) for hand, place in zip(hands, centered, strict=True)]),
        np.array([np.linalg.norm(hand.joints_mm - frame.joints_mm, axis=1).mean() for hand in hands]),
        shown,
    )


def fit(said: list[Answers]) -> tuple[np.ndarray, float]:
    """The signs' weights, and the bias beside the prior."""
    features, right = np.concatenate([one.signs for one in said]), _right(said)
    scale = np.maximum(features.std(axis=0), 1e-9)
    features = np.column_stack([features / scale, np.ones(len(features))])
    weights = np.zeros(features.shape[1])
    ridge = RIDGE * len(features) * np.diag([*np.ones(len(scale)), 0])
    for _ in range(50):
        probability = 1 / (1 + np.exp(-features @ weights))
        slope = features.T @ (right - probability) - ridge @ weights
        curved = (features * (probability * (1 - probability))[:, None]).T @ features + ridge
        weights += np.linalg.solve(curved, slope)
    weights = weights[:-1] / scale
    known = np.concatenate([one.signs @ weights + one.prior for one in said])
    bias = 0.0
    for _ in range(50):
        probability = 1 / (1 + np.exp(-known - bias))
        bias += float((right - probability).sum() / (probability * (1 - probability)).sum())
    return weights, bias


def chosen_mm(said: list[Answers], weights: np.ndarray) -> np.ndarray:
    """The error of the answer that is chosen in each frame."""
    return np.array([one.error_mm[np.argmax(one.signs @ weights + one.prior)] for one in said])


def _right(said: list[Answers]) -> np.ndarray:
    return np.concatenate([one.error_mm < RIGHT_MM for one in said]).astype(np.float64)


def main(checkpoint: str | None = None, frames: str = "130") -> None:
    """`frames` of people, and as many over tables from each of two seeds."""
    estimate = load("jgr_p2o") if checkpoint is None else load(checkpoint=checkpoint)
    assert isinstance(estimate, Estimator)
    sources: dict[str, list[Callable[[int], DepthFrame]]] = {
        "table": [TabletopSynthesizer(seed, "validation").frame for seed in (4, 5)],
        "people": [DepthSynthesizer(4, "validation").frame],
    }
    said = {
        kind: [
            one
            for draw in draws
            for index in range(int(frames))
            if (one := answers(estimate, draw(index))) is not None
        ]
        for kind, draws in sources.items()
    }
    whole = said["table"] + said["people"]
    said = {kind: [one for one in some if one.shown] for kind, some in said.items()}
    every = said["table"] + said["people"]
    weights, bias = fit(every)
    print(f"{sum(len(one.error_mm) for one in every)} answers in {len(every)} frames")
    print("_WEIGHTS =", Signs(*(round(float(weight), 2) for weight in weights)), "_BIAS =", round(bias, 2))
    for kind, some in said.items():
        errors = []
        for fold in range(FOLDS):
            away, _ = fit([one for number, one in enumerate(some) if number % FOLDS != fold])
            errors.append(chosen_mm(some[fold::FOLDS], away))
        found = (np.concatenate(errors) < FOUND_MM).mean()
        best = np.mean([one.error_mm.min() < FOUND_MM for one in some])
        print(f"{kind}: cross-validated {found:.1%} within {FOUND_MM:.0f} mm, the best answers {best:.1%}")
    likely = 1 / (1 + np.exp(-np.concatenate([one.signs @ weights + one.prior for one in every]) - bias))
    right = _right(every).astype(bool)
    error_mm = chosen_mm(whole, weights)
    surest = np.array([(one.signs @ weights + one.prior).max() for one in whole])
    print(f"{len(whole)} frames with those that hardly show the hand, the answers chosen in them:")
    for least in (0.0, 0.01, 0.03, 0.05, 0.1, 0.2, 0.3):
        told = 1 / (1 + np.exp(-surest - bias)) >= least
        found = int((told & (error_mm < FOUND_MM)).sum())
        print(
            f"from {least}: {found} right and {told.sum() - found} wrong are told, "
            f"{(likely[right] >= least).mean():.1%} of all right answers"
        )


if __name__ == "__main__":
    main(*sys.argv[1:])
