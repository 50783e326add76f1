"""A sheet of synthetic colour crops, alone or beside photographs, to judge the look with one's own eyes.

    python tools/rgb_sheet.py OUT.png [--real FOLDER] [--labels] [-n 64] [--seed 0]

`--real` puts photographs of hands from a folder on the right half; the sheet then holds other people's
pictures and does not belong into the repository.
"""

import argparse
from pathlib import Path

import cv2
import numpy as np

from handgraph.skeleton import BONES
from handgraph.synthetic.rgb import RgbSample, RgbSynthesizer

COLOURS = ((255, 170, 0), (60, 200, 60), (0, 200, 255), (90, 110, 255), (255, 80, 200))
"""Thumb to little finger, RGB."""


def main() -> None:
    """Draw the sheet."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("out", type=Path)
    parser.add_argument("-n", type=int, default=64)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--size", type=int, default=128)
    parser.add_argument("--columns", type=int, default=8)
    parser.add_argument("--labels", action="store_true", help="draw the skeleton over every second crop")
    parser.add_argument("--real", type=Path, help="a folder of photographs of hands")
    options = parser.parse_args()
    synthesizer = RgbSynthesizer(options.seed, size=options.size)
    tiles = []
    for index in range(options.n):
        sample = synthesizer.sample(index)
        tiles.append(labelled(sample) if options.labels and index % 2 else sample.image)
    sheet = grid(tiles, options.columns)
    if options.real is not None:
        sheet = np.hstack([sheet, grid(photographs(options.real, options.n, options.size), options.columns)])
    if not cv2.imwrite(str(options.out), cv2.cvtColor(sheet, cv2.COLOR_RGB2BGR)):
        raise SystemExit(f"{options.out}: cannot be written")


def labelled(sample: RgbSample) -> np.ndarray:
    """The crop with its skeleton."""
    image = sample.image.copy()
    points = sample.uv * (image.shape[0] - 1)
    for parent, joint in BONES:
        ends = [tuple(round(float(x) * 16) for x in points[j]) for j in (joint, parent)]
        cv2.line(image, ends[0], ends[1], COLOURS[(joint - 1) // 4], 1, cv2.LINE_AA, 4)
    return image


def photographs(folder: Path, n: int, size: int) -> list[np.ndarray]:
    """Up to `n` photographs spread over a folder, their middle square."""
    files = [path for path in sorted(folder.rglob("*")) if path.suffix.lower() in (".jpg", ".jpeg", ".png")]
    tiles = []
    for place in np.linspace(0, len(files) - 1, min(n, len(files))).astype(int):
        photo = cv2.imread(str(files[place]), cv2.IMREAD_COLOR)
        if photo is not None:
            side = min(photo.shape[:2])
            top, left = (photo.shape[0] - side) // 2, (photo.shape[1] - side) // 2
            square = photo[top : top + side, left : left + side]
            small = cv2.resize(square, (size, size), interpolation=cv2.INTER_AREA)
            tiles.append(cv2.cvtColor(small, cv2.COLOR_BGR2RGB))
    return tiles


def grid(tiles: list[np.ndarray], columns: int) -> np.ndarray:
    """Tiles row by row, white where none is left."""
    blank = np.full_like(tiles[0], 255)
    tiles = tiles + [blank] * (-len(tiles) % columns)
    return np.vstack([np.hstack(tiles[i : i + columns]) for i in range(0, len(tiles), columns)])


if __name__ == "__main__":
    main()
