"""Put a trained checkpoint into the package as a system's shipped weights, in half precision.

    python tools/ship_weights.py runs/full/best "synthetic depth hands alone, 392,000 images"

The weights keep the recipe they were trained with; the text says in words what they have seen. Systems that
look through the shipped hourglass leave that part to its file: ship it first.
"""

import sys
from dataclasses import replace
from pathlib import Path

from handgraph.estimator import weights_path
from handgraph.training.checkpoint import load_system, save_weights

STARTED_FROM = ("unary_weights", "pretrained", "detector_weights", "keypoints_weights")
KEYPOINTS = {
    "siapose": "unary.",
    "identity_mesh": "detector.",
    "hybrid_gcn": "keypoints.",
    "graph_refine": "keypoints.",
}
"""What these systems call the hourglass in them."""


def main(checkpoint: str, trained_on: str) -> None:
    """Write `src/handgraph/weights/SYSTEM.safetensors`."""
    module, name, config, meta = load_system(checkpoint)
    kept = {key: meta[key] for key in ("recipe", "metrics", "shape_error") if key in meta}
    # Files that training began from are on one machine, and what they held is in the weights now.
    started_from = {key: None for key in STARTED_FROM if getattr(config, key, None) is not None}
    config = replace(config, **started_from)
    recipe = kept.get("recipe", {})
    recipe.get("config", {}).update(started_from)
    if recipe.get("weights"):
        recipe["weights"] = "/".join(Path(recipe["weights"]).parts[-2:])
    path = weights_path(name)
    path.parent.mkdir(exist_ok=True)
    hourglass = weights_path("hourglass").name
    parts = {KEYPOINTS[name]: (hourglass, "network.")} if name in KEYPOINTS else {}
    save_weights(path, module, name, config, half=True, meta={**kept, "trained_on": trained_on}, parts=parts)
    print(f"{path}: {path.stat().st_size / 1e6:.2f} MB")


if __name__ == "__main__":
    main(*sys.argv[1:])
