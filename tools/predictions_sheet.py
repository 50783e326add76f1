"""Draw docs/images/predictions.png: the first twelve frames of a synthetic test set, as `predict` sees them.

    python tools/predictions_sheet.py

Nothing is chosen: failures are shown with the rest.
"""

import cv2
import numpy as np

from handgraph.estimator import load
from handgraph.report import overlay
from handgraph.synthetic.depth import DepthSynthesizer

SEED, COLUMNS, ROWS, WIDTH = 11, 4, 3, 360


def main() -> None:
    """Write the picture."""
    estimate, frames = load("jgr_p2o"), DepthSynthesizer(SEED, "test")
    tiles = []
    for index in range(COLUMNS * ROWS):
        frame = frames.frame(index)
        picture = overlay(frame.depth_mm, estimate(frame.depth_mm, camera=frame.camera))
        height = round(WIDTH * picture.shape[0] / picture.shape[1])
        tiles.append(cv2.resize(picture, (WIDTH, height), interpolation=cv2.INTER_AREA))
    rows = [np.hstack(tiles[start : start + COLUMNS]) for start in range(0, len(tiles), COLUMNS)]
    cv2.imwrite("docs/images/predictions.png", cv2.cvtColor(np.vstack(rows), cv2.COLOR_RGB2BGR))


if __name__ == "__main__":
    main()
