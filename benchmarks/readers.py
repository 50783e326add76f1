"""Samples a second of every dataset reader, and how long that is beside decoding the same pictures.

    python benchmarks/readers.py --json

Each dataset is made up in a temporary folder in its original layout, small, so that it lies in memory: what
is measured is the reader (paths, labels, checksums, checks, `Sample`), not a disk. `over_decoding` is the
time of a sample over that part of it which OpenCV spends on decoding its pictures, both clocked in the same
call; each sample counts with its fastest call, so that what else the machine does is left out. The pictures
are smooth and decode faster than photographs, so that a real set comes out nearer to 1. One thread.
"""

import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
from _bench import arguments, machine, report

from handgraph.datasets import Dataset, open_dataset
from handgraph.datasets.layouts import WRITERS

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "datasets"))
from dataset_writers import write_icvl, write_msra, write_nyu, write_synthetic  # the depth layouts

SAMPLES = 12

Case = tuple[Callable[[Path], Any], str, dict[str, Any]]
CASES: dict[str, Case] = {
    "rhd": (WRITERS["rhd"], "rhd:train", {}),
    "rhd, box of the mask": (WRITERS["rhd"], "rhd:train", {"box": "mask"}),
    "stb": (WRITERS["stb"], "stb:train", {}),
    "mhp": (lambda root: WRITERS["mhp"](root, frames=(0,)), "mhp:train", {}),
    "mhp, undistorted": (lambda root: WRITERS["mhp"](root, frames=(0,)), "mhp:train", {"undistort": True}),
    "freihand": (WRITERS["freihand"], "freihand:train", {}),
    "freihand, vertices": (WRITERS["freihand"], "freihand:train", {"vertices": True}),
    "dexycb": (lambda root: WRITERS["dexycb"](root, subjects=(6,)), "dexycb:s1_val", {"sequences": 1}),
    "dexycb, depth": (
        lambda root: WRITERS["dexycb"](root, subjects=(6,)),
        "dexycb:s1_val",
        {"sequences": 1, "depth": True},
    ),
    "humbi": (WRITERS["humbi"], "humbi:all", {"subjects": None}),
    "humbi, vertices": (WRITERS["humbi"], "humbi:all", {"subjects": None, "vertices": True}),
    "panoptic": (WRITERS["panoptic"], "panoptic:all", {}),
    "mpii_nzsl": (WRITERS["mpii_nzsl"], "mpii_nzsl", {}),
    "coco_wholebody": (WRITERS["coco_wholebody"], "coco_wholebody", {}),
    "folder": (WRITERS["folder"], "folder", {}),
    "nyu": (write_nyu, "nyu:test", {}),
    "icvl": (write_icvl, "icvl:test", {}),
    "msra": (write_msra, "msra:P1", {}),
    "synthetic": (write_synthetic, "synthetic", {}),
}


class _Clock:
    """Adds up the time spent in OpenCV's decoder."""

    def __init__(self) -> None:
        self.seconds = 0.0
        decode = cv2.imdecode

        def timed(*arguments: Any) -> Any:
            start = time.perf_counter()
            try:
                return decode(*arguments)
            finally:
                self.seconds += time.perf_counter() - start

        cv2.imdecode = timed


def measure(dataset: Dataset, clock: _Clock, repeats: int) -> dict[str, Any]:
    """Medians over the samples, each at its fastest, in ms."""
    count = min(len(dataset), SAMPLES)
    for index in range(count):
        dataset[index]
    fastest = [(float("inf"), 0.0)] * count
    for _ in range(repeats):
        for index in range(count):
            clock.seconds = 0.0
            start = time.perf_counter()
            sample = dataset[index]
            fastest[index] = min(fastest[index], (time.perf_counter() - start, clock.seconds))
    picture = sample.image if sample.image is not None else sample.depth_mm
    assert picture is not None
    reader_ms, decode_ms = (1e3 * statistics.median(times) for times in zip(*fastest, strict=True))
    row = {
        "size": f"{picture.shape[1]}x{picture.shape[0]}",
        "samples_per_s": 1e3 / reader_ms,
        "reader_ms": reader_ms,
        "decode_ms": decode_ms,
        "rest_ms": reader_ms - decode_ms,
    }
    return (
        {**row, "over_decoding": reader_ms / decode_ms} if decode_ms else row
    )  # MSRA's frames are plain bytes


def main() -> None:
    options = arguments(__doc__ or "")
    cv2.setNumThreads(1)
    repeats = max(3, round(15 * options.repeats))
    clock = _Clock()
    rows = []
    for case, (write, name, reader) in CASES.items():
        with tempfile.TemporaryDirectory() as folder:
            write(Path(folder))
            rows.append({"set": case, **measure(open_dataset(name, folder, **reader), clock, repeats)})
    report({"machine": machine(), "repeats": repeats, "rows": rows}, options.json)


if __name__ == "__main__":
    main()
