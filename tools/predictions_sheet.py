"""Draw docs/images/predictions.png and photos.jpg, as `predict` sees them.

    python tools/predictions_sheet.py

The first twelve frames of a synthetic test set, and the sample photographs with keypoints and meshes. Nothing
is chosen: failures are shown with the rest.
"""

import json
from importlib.resources import files
from pathlib import Path

import cv2
import numpy as np

from handgraph.camera import PinholeCamera
from handgraph.estimator import load
from handgraph.images import read_image
from handgraph.meshes import draw_hands
from handgraph.report import overlay
from handgraph.synthetic.depth import DepthSynthesizer

SEED, COLUMNS, ROWS, WIDTH = 11, 4, 3, 360


def tile(picture: np.ndarray, width: int) -> np.ndarray:
    """The picture, brought to this width."""
    height = round(width * picture.shape[0] / picture.shape[1])
    return cv2.resize(picture, (width, height), interpolation=cv2.INTER_AREA)


def photographs() -> None:
    """Write photos.jpg: SiaPose's keypoints above, the identity-aware mesh, told the camera, below."""
    keypoints, meshes = load("siapose"), load("identity_mesh")
    samples = Path(str(files("handgraph") / "samples"))
    above, below = [], []
    for line in (samples / "photos.jsonl").read_text().splitlines():
        label = json.loads(line)
        picture = read_image(samples / label["image"])
        camera = PinholeCamera(*(label["camera"][key] for key in ("fx", "fy", "cx", "cy")))
        above.append(tile(overlay(picture, keypoints(picture)), 420))
        below.append(tile(draw_hands(picture, meshes(picture, camera)[:1]), 420))
    sheet = cv2.cvtColor(np.vstack([np.hstack(above), np.hstack(below)]), cv2.COLOR_RGB2BGR)
    cv2.imwrite("docs/images/photos.jpg", sheet, [cv2.IMWRITE_JPEG_QUALITY, 82])


def main() -> None:
    """Write the pictures."""
    photographs()
    estimate, frames = load("jgr_p2o"), DepthSynthesizer(SEED, "test")
    tiles = []
    for index in range(COLUMNS * ROWS):
        frame = frames.frame(index)
        picture = overlay(frame.depth_mm, estimate(frame.depth_mm, camera=frame.camera))
        tiles.append(tile(picture, WIDTH))
    rows = [np.hstack(tiles[start : start + COLUMNS]) for start in range(0, len(tiles), COLUMNS)]
    cv2.imwrite("docs/images/predictions.png", cv2.cvtColor(np.vstack(rows), cv2.COLOR_RGB2BGR))


if __name__ == "__main__":
    main()
