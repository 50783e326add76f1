"""The demonstration behind `make demo`: hands in sample frames, as pictures, pages, JSON and a mesh.

    python tools/demo.py                # the shipped sample frames
    python tools/demo.py a.png b.npy    # and your own depth frames

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
import roma
import torch
import trimesh

from handgraph.cli import main as handgraph
from handgraph.files import atomic_write
from handgraph.formats import read_json
from handgraph.hand import Hand
from handgraph.hand_model import HandLayer, load_open_hand

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
    if sys.argv[1:]:
        codes.append(predict("yours", sys.argv[1:]))
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


def predict(name: str, frames: list[str], options: Sequence[str] = ()) -> int:
    """`handgraph predict` on some frames, and a mesh of the first hand it finds."""
    folder = OUT / name
    command = ["predict", *frames, *options, "--out", str(folder)]
    print("\n$ handgraph " + " ".join(command), flush=True)
    code = handgraph(command)
    if not (folder / "predictions.json").is_file():
        return code
    hands = [hand for image in read_json(folder / "predictions.json").images for hand in image.hands]
    if hands:
        with atomic_write(folder / "hand.glb") as part:
            mesh_of(hands[0]).export(part)
        print(f"mesh: {folder / 'hand.glb'}")
    return code


def mesh_of(hand: Hand) -> trimesh.Trimesh:
    """The open hand, bent until its joints lie on the predicted ones; metres, y up, as glTF wants."""
    layer = HandLayer(load_open_hand(), side=hand.side)
    target = torch.from_numpy(hand.joints_mm)
    shape, pose, translation = torch.zeros(1, 10), torch.zeros(1, 48), torch.zeros(1, 3)
    rest = layer(shape, pose, translation).joints_mm[0]
    # Wrist and knuckles move as one: where they lie gives position and turn, the fingers follow.
    palm = [0, 5, 9, 13, 17]
    turn, shift = roma.rigid_points_registration(rest[palm], target[palm])
    pose[0, :3] = roma.rotmat_to_rotvec(turn)
    translation[0] = turn @ rest[0] + shift - rest[0]  # the model turns about its wrist

    unknowns = [shape.requires_grad_(), pose.requires_grad_(), translation.requires_grad_()]
    solver = torch.optim.LBFGS(unknowns, max_iter=150, line_search_fn="strong_wolfe")

    def distance() -> torch.Tensor:
        solver.zero_grad()
        joints = layer(shape, pose, translation).joints_mm[0]
        # In cm²; the second term keeps what joints cannot tell, twist above all, near the resting hand.
        loss = ((joints - target) / 10).square().sum() + 0.3 * (
            pose[:, 3:].square().sum() + shape.square().sum()
        )
        loss.backward()
        return loss

    solver.step(distance)
    with torch.no_grad():
        mesh = layer(shape, pose, translation)
    error = (mesh.joints_mm[0] - target).norm(dim=-1).mean()
    print(f"mesh fitted to the joints of a {hand.side} hand, {error:.1f} mm from them in the mean")
    metres_y_up = np.array([1, -1, -1]) / 1000
    return trimesh.Trimesh(mesh.vertices_mm[0].numpy() * metres_y_up, layer.model.faces, process=False)


if __name__ == "__main__":
    sys.exit(main())
