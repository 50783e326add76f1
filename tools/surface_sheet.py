"""Draw docs/images/surface.jpg: hands as the network's joints say, and laid on the surface.

    python tools/surface_sheet.py

The first crops of the synthetic test split that a seed gives, none left out. From left to right: the depth
crop, the hand model fitted to the network's joints, and laid on the surface; bones as each says them, the
true ones thin.
"""

from dataclasses import replace
from typing import Any

import cv2
import numpy as np
import torch

from handgraph.camera import Crop, PinholeCamera
from handgraph.estimator import weights_path
from handgraph.hand import Hand
from handgraph.meshes import draw_hands, with_mesh
from handgraph.networks.hourglass import folded
from handgraph.skeleton import BONES
from handgraph.synthetic.depth import DepthSynthesizer
from handgraph.systems import jgr_p2o
from handgraph.training.checkpoint import load_system

SEED, COLUMNS, ROWS, WIDTH = 3, 3, 4, 200
SAID, TRUE = (230, 120, 40), (40, 200, 90)


def in_crop(crop: Crop, size: int) -> PinholeCamera:
    """The camera of the crop's picture, enlarged to so many pixels. The test split turns no crop."""
    grown = size / crop.size
    middle = (grown - 1) / 2  # pixel centres are integers
    matrix = grown * (crop.size - 1) * crop.crop_camera
    return PinholeCamera(matrix[0, 0], matrix[1, 1], matrix[0, 2] + middle, matrix[1, 2] + middle)


def drawn(picture: np.ndarray, hand: Hand, joints: dict[tuple[int, int, int], Any]) -> np.ndarray:
    """The mesh over the picture, and bones in each colour."""
    assert hand.camera is not None
    over = np.ascontiguousarray(draw_hands(picture, [hand], opacity=0.7))
    for color, points in joints.items():
        places = np.round(hand.camera.uvd_from_xyz(points)[:, :2] * 16).astype(int)
        for start, end in BONES:
            thick = 1 if color == TRUE else 2
            cv2.line(over, places[start].tolist(), places[end].tolist(), color, thick, cv2.LINE_AA, shift=4)
    return over


def main() -> None:
    """Write the picture."""
    module, _, config, _ = load_system(weights_path("jgr_p2o"))
    batch = DepthSynthesizer(SEED, "test", config.input_size).batch(range(COLUMNS * ROWS))
    with torch.inference_mode():
        output = folded(module)(batch["image"])
    crops = batch["crops"]
    seen = jgr_p2o.decode(output, crops)
    fit = jgr_p2o.laid(output, crops, batch["image"])
    tiles = []
    for index, (hand, crop) in enumerate(zip(seen, crops, strict=True)):
        depth = batch["image"][index, 0].numpy()
        gray = np.where(depth < 1, 225 - 90 * depth, 20).clip(0, 255).astype(np.uint8)
        gray = cv2.resize(gray, (WIDTH, WIDTH), interpolation=cv2.INTER_NEAREST)
        picture = np.repeat(gray[..., None], 3, axis=2)
        plain = replace(with_mesh(hand), camera=in_crop(crop, WIDTH))
        laid = replace(hand, joints_mm=fit.joints_mm[index], pose=fit.pose[index], shape=fit.shape[index])
        laid = replace(with_mesh(laid), camera=plain.camera)
        truth = batch["joints_mm"][index].numpy()
        tiles.append(
            np.hstack(
                [picture, *(drawn(picture, one, {SAID: one.joints_mm, TRUE: truth}) for one in (plain, laid))]
            )
        )
    rows = [np.hstack(tiles[start : start + COLUMNS]) for start in range(0, len(tiles), COLUMNS)]
    sheet = cv2.cvtColor(np.vstack(rows), cv2.COLOR_RGB2BGR)
    cv2.imwrite("docs/images/surface.jpg", sheet, [cv2.IMWRITE_JPEG_QUALITY, 85])


if __name__ == "__main__":
    main()
