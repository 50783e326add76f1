"""Hands found in whole pictures: real photographs, never trained on, and pictures without any hand.

    HANDGRAPH_REAL=/data/real python benchmarks/finder.py --json
    HANDGRAPH_REAL=/data/real python benchmarks/finder.py --model siapose --sheet finder.jpg

Rows by case, for the finder alone (`finder`) and for what `predict` answers (`hands`):

| key | meaning |
|---|---|
| `pictures`, `labelled` | pictures, and hands labelled in them |
| `found` | labelled hands of whose box some answer covers enough (IoU ≥ 0.3), or holds the answer's middle |
| `extra` | other answers; where a picture shows hands without a label, these may be right |
| `side_known`, `side_right` | found hands whose side is labelled, and those of them told rightly |

`empty_scenes` are synthetic scenes of unseen subjects that show no hand, `drawn_rooms` are faces, furniture,
leaves and print drawn with lines and ellipses; their `extra` are false. `ms` are medians of one picture of
640x480: the finder, and a whole call on a picture with one hand, in both runtimes. Without HANDGRAPH_REAL the
real cases are left out, and `skipped` says so.
"""

import argparse
import json
import os
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from importlib.resources import files
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from real_cases import CASES, real_cases

from handgraph import ColourEstimator
from handgraph.estimator import load
from handgraph.finder import Finder, iou
from handgraph.images import read_image
from handgraph.synthetic.scenes import SceneSynthesizer

LEAST_IOU = 0.3
Answer = tuple[np.ndarray, str]
"""A box x, y, w, h and a side."""


class Row:
    """What was found in the pictures of one case."""

    def __init__(self) -> None:
        self.pictures = self.labelled = self.found = self.extra = self.side_known = self.side_right = 0

    def update(self, boxes: list[np.ndarray], sides: list[str | None], answers: list[Answer]) -> None:
        """Add a picture with its labelled hands and what was answered, the surest first."""
        self.pictures += 1
        self.labelled += len(boxes)
        free = list(range(len(boxes)))
        for box, side in answers:
            hit = max(
                (k for k in free if _hit(boxes[k], box)), key=lambda k: iou(boxes[k], box), default=None
            )
            if hit is None:
                self.extra += 1
                continue
            free.remove(hit)
            self.found += 1
            if sides[hit] is not None:
                self.side_known += 1
                self.side_right += sides[hit] == side


def _hit(label: np.ndarray, box: np.ndarray) -> bool:
    middle = box[:2] + box[2:] / 2
    return iou(label, box) >= LEAST_IOU or bool(
        (label[:2] <= middle).all() and (middle <= label[:2] + label[2:]).all()
    )


def photographs(cases: list[str]) -> Iterator[tuple[str, np.ndarray, list[np.ndarray], list[str | None]]]:
    """Case, picture, and the boxes and sides of its labelled hands."""
    by_picture: dict[tuple[str, str], list[Any]] = defaultdict(list)
    for case, sample in real_cases(cases=cases):
        by_picture[case, str(sample.source)].append(sample)
    for (case, _), samples in by_picture.items():
        yield (
            case,
            samples[0].image,
            [np.asarray(one.box_px, float) for one in samples],
            [one.side for one in samples],
        )


def empty_scenes(count: int) -> Iterator[np.ndarray]:
    """Synthetic pictures of unseen subjects that show not a pixel of a hand, 320x240."""
    scenes = SceneSynthesizer(5, "test", 120)
    index = 0
    while count:
        scene = scenes.scene(index, 240, 320)
        index += 1
        if not scene.hand.any() and not len(scene.boxes):
            count -= 1
            yield scene.image


def drawn_room(index: int) -> np.ndarray:
    """Faces, furniture, leaves, pebbles and print, 640x480: not drawn as the finder's scenes are."""
    rng = np.random.default_rng((7, index))
    ramp = np.linspace(0, 1, 480)[:, None, None]
    wall, floor = rng.uniform(60, 230, 3), rng.uniform(40, 200, 3)
    image = np.broadcast_to(wall * (1 - 0.3 * ramp), (480, 640, 3)).copy()
    horizon = int(rng.integers(260, 440))
    image[horizon:] = floor * (0.7 + 0.3 * ramp[horizon:])

    def color() -> list[float]:
        return [float(value) for value in rng.uniform(20, 235, 3)]

    def skin() -> np.ndarray:
        return rng.uniform(0.35, 1.0) * np.array([235.0, 190.0, 160.0]) * rng.uniform(0.9, 1.05, 3)

    for _ in range(int(rng.integers(2, 7))):  # cupboards, frames, windows
        x, y = int(rng.integers(-40, 600)), int(rng.integers(-40, 400))
        w, h = int(rng.integers(40, 220)), int(rng.integers(40, 220))
        cv2.rectangle(image, (x, y), (x + w, y + h), color(), -1)
        cv2.rectangle(image, (x, y), (x + w, y + h), color(), int(rng.integers(1, 8)))
    for _ in range(int(rng.integers(0, 3))):  # chairs: seat, back and legs
        x, y, s = int(rng.integers(0, 560)), int(rng.integers(180, 380)), int(rng.integers(40, 120))
        wood = [float(v) for v in rng.uniform(0.3, 1) * np.array([190.0, 140.0, 90.0])]
        for leg in (0, s):
            cv2.line(image, (x + leg, y), (x + leg + int(rng.integers(-8, 8)), y + s), wood, s // 10 + 2)
        for bar in range(5):
            cv2.line(image, (x + bar * s // 4, y), (x + bar * s // 4, y - s), wood, s // 14 + 2)
        cv2.rectangle(image, (x, y - 4), (x + s, y + s // 6), wood, -1)
    if rng.uniform() < 0.6:  # a plant
        x, y = int(rng.integers(40, 600)), int(rng.integers(120, 400))
        for _ in range(int(rng.integers(8, 40))):
            turn, long = rng.uniform(0, 360), int(rng.integers(15, 70))
            at = (
                x + int(long * 0.7 * np.cos(np.radians(turn))),
                y + int(long * 0.7 * np.sin(np.radians(turn))),
            )
            green = [float(v) for v in rng.uniform(0.4, 1) * np.array([90.0, 170.0, 70.0])]
            cv2.ellipse(image, at, (long // 2, long // 8 + 2), turn, 0, 360, green, -1)
    for _ in range(int(rng.integers(0, 3))):  # people: shoulders, neck, head, hair, face
        x, y, s = int(rng.integers(60, 580)), int(rng.integers(80, 300)), int(rng.integers(20, 110))
        tone = skin()
        cv2.ellipse(image, (x, y + int(3.1 * s)), (2 * s, int(1.9 * s)), 0, 180, 360, color(), -1)
        cv2.rectangle(
            image, (x - s // 3, y + s // 2), (x + s // 3, y + int(1.5 * s)), (0.85 * tone).tolist(), -1
        )
        hair = (rng.uniform(0.1, 0.9) * np.array([120.0, 90.0, 60.0])).tolist()
        cv2.ellipse(image, (x, y - s // 6), (s, int(1.25 * s)), 0, 0, 360, hair, -1)
        cv2.ellipse(image, (x, y + s // 8), (int(0.8 * s), s), 0, 0, 360, tone.tolist(), -1)
        for side in (-1, 1):
            cv2.ellipse(
                image, (x + side * s // 3, y), (s // 6, s // 11), 0, 0, 360, (240.0, 240.0, 240.0), -1
            )
            cv2.circle(image, (x + side * s // 3, y), s // 13 + 1, (50.0, 40.0, 40.0), -1)
            cv2.ellipse(
                image, (x + side * int(0.82 * s), y + s // 8), (s // 9, s // 4), 0, 0, 360, tone.tolist(), -1
            )
        cv2.line(image, (x, y), (x - s // 10, y + s // 3), (0.75 * tone).tolist(), s // 14 + 1)
        cv2.ellipse(image, (x, y + int(0.6 * s)), (s // 3, s // 9 + 1), 0, 0, 180, (150.0, 60.0, 60.0), -1)
    for _ in range(int(rng.integers(0, 8))):  # pebbles, bread, balls of the colour of skin
        at, r = (int(rng.integers(0, 640)), int(rng.integers(0, 480))), int(rng.integers(6, 50))
        turn = float(rng.uniform(0, 180))
        cv2.ellipse(image, at, (r, int(r * rng.uniform(0.3, 1))), turn, 0, 360, skin().tolist(), -1)
    if rng.uniform() < 0.4:  # a page
        image = np.clip(image, 0, 255).astype(np.uint8)  # putText takes bytes
        x, y = int(rng.integers(0, 500)), int(rng.integers(0, 380))
        cv2.rectangle(image, (x, y), (x + 150, y + 110), (235.0, 235.0, 225.0), -1)
        for line in range(8):
            at = (x + 6, y + 14 + 13 * line)
            cv2.putText(image, "lorem ipsum", at, cv2.FONT_HERSHEY_SIMPLEX, 0.4, (40.0, 40.0, 40.0), 1)
    image = cv2.GaussianBlur(image, (0, 0), float(rng.uniform(0.6, 2.0)))
    image = image + rng.normal(0, rng.uniform(1, 8), image.shape)
    return np.clip(image, 0, 255).astype(np.uint8)


def measure(
    systems: dict[str, Callable[[np.ndarray], list[Answer]]], cases: list[str], empty: int
) -> dict[str, dict[str, dict[str, int]]]:
    """Rows by case and by what answered."""
    rows: dict[str, dict[str, Row]] = defaultdict(lambda: defaultdict(Row))

    def add(case: str, image: np.ndarray, boxes: list[np.ndarray], sides: list[str | None]) -> None:
        for name, answer in systems.items():
            rows[case][name].update(boxes, sides, answer(image))

    if cases:  # no name at all would be every case
        for case, image, boxes, sides in photographs(cases):
            add(case, image, boxes, sides)
    for image in empty_scenes(empty):
        add("empty_scenes", image, [], [])
    for index in range(empty):
        add("drawn_rooms", drawn_room(index), [], [])
    return {case: {name: vars(row) for name, row in by.items()} for case, by in rows.items()}


def median_ms(call: Callable[[], Any], repeats: int = 30) -> float:
    call()
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        call()
        times.append(1000 * (time.perf_counter() - start))
    return round(float(np.median(times)), 2)


def timings(model: str) -> dict[str, float]:
    """Medians over a sample photograph, 640x480."""
    photo = read_image(Path(str(files("handgraph") / "samples" / "image_000006.jpg")))
    photo = cv2.resize(photo, (640, 480), interpolation=cv2.INTER_AREA)
    ms = {}
    for runtime in ("torch", "onnx"):
        finder = Finder(runtime=runtime)  # type: ignore[arg-type]
        estimate = load(model, runtime=runtime)  # type: ignore[arg-type]
        ms[f"finder_{runtime}"] = median_ms(lambda finder=finder: finder(photo))
        ms[f"call_{runtime}"] = median_ms(lambda estimate=estimate: estimate(photo))
    return ms


def sheet(path: Path, finder: Finder) -> None:
    """A picture of synthetic test scenes with what the finder says: green right, red left hands."""
    scenes = SceneSynthesizer(5, "test", 120)
    tiles = []
    for index in range(40):
        image = scenes.scene(index, 144, 192).image.copy()
        for one in finder(image):
            x, y, w, h = (round(value) for value in one.box_px)
            cv2.rectangle(
                image, (x, y), (x + w, y + h), (0, 255, 0) if one.side == "right" else (255, 60, 60), 1
            )
        tiles.append(image)
    rows = [np.hstack(tiles[k : k + 8]) for k in range(0, len(tiles), 8)]
    cv2.imwrite(str(path), cv2.cvtColor(np.vstack(rows), cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, 80])


def main() -> int:
    parser = argparse.ArgumentParser(description="Hands found in whole pictures.")
    parser.add_argument("--model", default="siapose", help="system that looks at what was found")
    parser.add_argument("--cases", nargs="*", help="some of the real cases; all by default")
    parser.add_argument("--empty", type=int, default=60, help="pictures without hands, of either kind")
    parser.add_argument("--no-timing", action="store_true", help="leave the milliseconds out")
    parser.add_argument("--sheet", type=Path, help="write a picture of scenes with what was found")
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    args = parser.parse_args()
    estimate, finder = load(args.model), Finder()
    if not isinstance(estimate, ColourEstimator):
        print(f"{estimate.name}: takes depth frames, expected a colour system", file=sys.stderr)
        return 2
    if args.sheet is not None:
        sheet(args.sheet, finder)
    systems: dict[str, Callable[[np.ndarray], list[Answer]]] = {
        "finder": lambda image: [(np.array(one.box_px), one.side) for one in finder(image)],
        "hands": lambda image: [
            (np.asarray(hand.box_px, float), hand.side)
            for hand in sorted(estimate(image), key=lambda hand: -hand.score)
        ],
    }
    cases: list[str] = args.cases if args.cases is not None else list(CASES)
    document: dict[str, Any] = {"model": estimate.name}
    if not os.environ.get("HANDGRAPH_REAL"):
        cases, document["skipped"] = [], "real cases: HANDGRAPH_REAL names no folder"
    document["rows"] = measure(systems, cases, args.empty)
    if not args.no_timing:
        document["ms"] = timings(args.model)
    if args.json:
        print(json.dumps(document))
        return 0
    for case, by in document["rows"].items():
        for name, row in by.items():
            print(f"{case} ({name}): {row}")
    for key in ("skipped", "ms"):
        if key in document:
            print(f"{key}: {document[key]}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
