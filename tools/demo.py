"""The demonstration behind `make demo`: hands in sample frames, as pictures, pages, JSON and a mesh.

    python tools/demo.py                # the shipped sample frames and photographs
    python tools/demo.py a.png b.npy    # and your own, depth frames or photographs

It uses handgraph as anyone would: the command `handgraph predict`, then its JSON file read back in Python.
Results are in demo-output/. Where HANDGRAPH_REAL names a folder of real frames, those follow.
"""

import json
import os
import sys
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np

from handgraph.cli import main as handgraph
from handgraph.estimator import weights_path
from handgraph.evaluation.metrics import JointErrors
from handgraph.formats import read_json
from handgraph.hand import RELATIVE_FRAME
from handgraph.images import is_photo
from handgraph.meshes import with_mesh, write_mesh

OUT = Path("demo-output")
SAMPLES = Path(str(files("handgraph") / "samples"))

# Real frames under HANDGRAPH_REAL: folder, which files, and what `predict` must be told about the sensor.
REAL = {
    "nyu": ("depth_nyu_raw_frame", "depth_1_*.png", []),  # its packed PNG says whose camera it is
    "sr305": (
        "depth_sr305_gestures",
        "*/*.png",
        ["--camera", "476.007,476.007,313.683,242.755", "--depth-scale", "0.125"],
    ),
    "sr300": ("depth_sr300_user1", "*/depth.png", ["--camera", "287.26,287.26,160,120"]),
}


def main() -> int:
    """Predict each set of frames; the exit code is the first that is not 0."""
    codes = [predict_sample(json.loads(line)) for line in (SAMPLES / "labels.jsonl").read_text().splitlines()]
    codes += [predict_photo(json.loads(line)) for line in (SAMPLES / "photos.jsonl").read_text().splitlines()]
    if sys.argv[1:]:
        photos = [file for file in sys.argv[1:] if is_photo(file)]
        frames = [file for file in sys.argv[1:] if file not in photos]
        codes += [predict(name, some) for name, some in (("yours", frames), ("photos", photos)) if some]
    if "HANDGRAPH_REAL" in os.environ:
        for name, (folder, pattern, options) in REAL.items():
            frames = sorted((Path(os.environ["HANDGRAPH_REAL"]) / folder).glob(pattern))
            if frames:
                codes.append(predict(name, [str(frame) for frame in frames], options))
    print(f"\nopen a page of {OUT.resolve()}/*/*.html, or a .glb in any viewer of meshes")
    return max(codes)


def predict_sample(label: dict[str, Any]) -> int:
    """Predict a shipped frame with its own camera, and say how far off the prediction is."""
    frame = SAMPLES / label["file"]
    camera = ",".join(f"{label['camera'][key]:.3f}" for key in ("fx", "fy", "cx", "cy"))
    code = predict(frame.stem, [str(frame)], ["--camera", camera, "--side", label["side"]])
    if code == 0:
        for hand in read_json(OUT / frame.stem / "predictions.json").images[0].hands:
            errors_mm = np.linalg.norm(hand.joints_mm - np.array(label["joints_mm"]), axis=1)
            print(f"{errors_mm.mean():.1f} mm from the true joints in the mean")
    return code


def predict_photo(label: dict[str, Any]) -> int:
    """Predict a shipped photograph with every system whose weights are here, and say how far off each is."""
    photo = SAMPLES / label["image"]
    true_px, true_mm = np.array(label["keypoints_px"]), np.array(label["joints_mm"])
    camera = ",".join(f"{label['camera'][key]:.3f}" for key in ("fx", "fy", "cx", "cy"))
    codes = []
    for system, options in (
        ("siapose", []),  # told nothing but the file
        ("identity_mesh", ["--model", "identity_mesh", "--camera", camera, "--mesh"]),
        ("hybrid_gcn", ["--model", "hybrid_gcn", "--explain"]),
        ("graph_refine", ["--model", "graph_refine", "--camera", camera, "--mesh"]),
    ):
        if not weights_path(system).is_file():
            continue
        folder = f"{photo.stem}-{system}"
        codes.append(predict(folder, [str(photo)], options))
        if codes[-1] != 0:
            continue
        for hand in read_json(OUT / folder / "predictions.json").images[0].hands:
            off_px = np.linalg.norm(hand.keypoints_px - true_px, axis=1).mean()
            side = np.ptp(true_px, axis=0).max()
            text = (
                f"{off_px:.1f} px from the true keypoints in the mean, {off_px / side:.0%} of the hand's box"
            )
            if hand.joints_mm is not None:
                text += f"; {procrustes_error(hand.joints_mm, true_mm):.1f} mm in shape and pose"
            print(text)
    return max(codes)


def procrustes_error(joints: np.ndarray, true_mm: np.ndarray) -> float:
    """Mean joint error, mm, after the best turn, shift and size."""
    errors = JointErrors()
    errors.update(joints[None], true_mm[None])
    return float(errors.compute()["pa_mpjpe_mm"])


def predict(name: str, frames: list[str], options: Sequence[str] = ()) -> int:
    """`handgraph predict` on some frames, and a mesh of the first hand it finds."""
    folder = OUT / name
    command = ["predict", *frames, *options, "--out", str(folder)]
    print("\n$ handgraph " + " ".join(command), flush=True)
    code = handgraph(command)
    if not (folder / "predictions.json").is_file():
        return code
    hands = [hand for image in read_json(folder / "predictions.json").images for hand in image.hands]
    hands = [h for h in hands if h.joints_mm is not None and not h.frame.startswith(RELATIVE_FRAME)]
    if hands:
        write_mesh(folder / "hand.glb", [with_mesh(hands[0])])
        print(f"mesh: {folder / 'hand.glb'}")
    return code


if __name__ == "__main__":
    sys.exit(main())
