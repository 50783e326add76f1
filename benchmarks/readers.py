"""Samples a second of every dataset reader, and how long that is beside decoding the same pictures.

    python benchmarks/readers.py --json
    python benchmarks/readers.py humbi "nyu" --repeats 3

Each dataset is made up in a temporary folder in its original layout and resolution, small, so that it lies
in memory: what is measured is the reader (paths, labels, checksums, checks, `Sample`), not a disk. Then the
pictures are written anew as real ones are, for what is smooth or lightly packed decodes faster: colour PNG
files with zlib's usual compression (1.0 bytes a pixel; RHD's have 1.0), JPEG with grain (0.3; FreiHAND's have
0.3 to 0.8, other photographs 0.1 to 0.5), depth with grain and something behind the hand (0.2; NYU's and
RealSense cameras' have 0.1 to 0.2).

`over_decoding` is the time of a sample over that of OpenCV's decoder for the pictures that the sample reads.
Both are clocked in turns, sample by sample, in time of the processor, and each counts with its fastest call,
so that what else the machine does is left out. One thread. While one sample is read, the decoder's turn is
another's pictures: what was decoded a moment ago decodes a twelfth faster (the processor foresees its
branches), which would be laid to the reader. So a reader that does nothing but decode has 1.00. Memory stays
with the process, for whether freed pages have to be fetched again, for as long as a tenth of a picture, is
chance. "undistorted" pictures are resampled too, all of their pixels; `over_decoding_and_resampling` has
OpenCV's `remap` of the same picture beside the decoder.
"""

import argparse
import ctypes
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from _bench import machine, report

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


class _Decoder:
    """OpenCV's decoder, which remembers what it was given."""

    def __init__(self) -> None:
        self.decode, self.remap = cv2.imdecode, cv2.remap
        self.resampled: list[tuple[Any, ...]] = []
        self.given: list[tuple[Any, ...]] = []
        self.decoded: list[Any] = []

        def remembered(*arguments: Any) -> Any:
            self.given.append(arguments)
            return self.decode(*arguments)

        def remembered_remap(*arguments: Any) -> Any:
            self.resampled.append(arguments)
            return self.remap(*arguments)

        self.remembered, self.remembered_remap = remembered, remembered_remap

    def pictures_of(self, dataset: Dataset, index: int) -> list[tuple[Any, ...]]:
        """What a sample decodes when it is read again."""
        dataset[index]
        cv2.imdecode, self.given = self.remembered, []
        cv2.remap, self.resampled = self.remembered_remap, []
        dataset[index]
        cv2.imdecode, cv2.remap = self.decode, self.remap
        return self.given

    def again(self, pictures: list[tuple[Any, ...]]) -> None:
        # Kept until the next, as a sample's are: memory just given back is faster to write to.
        self.decoded = [self.decode(*picture) for picture in pictures]


def as_taken(folder: Path) -> None:
    """Write every picture below the folder as real ones are (see above), those with two names once."""
    random, done = np.random.default_rng(0), set()
    usual = (cv2.IMWRITE_PNG_COMPRESSION, 6, cv2.IMWRITE_PNG_STRATEGY, cv2.IMWRITE_PNG_STRATEGY_DEFAULT)
    for path in sorted(folder.rglob("*")):
        if path.suffix not in (".png", ".jpg") or path.stat().st_ino in done:
            continue
        done.add(path.stat().st_ino)
        pixels = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
        assert pixels is not None
        packed = path.name.startswith("depth_") and pixels.ndim == 3
        if packed:  # NYU's: mm = 256 G + B, and nothing in R
            depth = _with_scene(pixels[..., 1].astype(np.uint16) * 256 + pixels[..., 0], random)
            pixels = np.stack([depth & 255, depth >> 8, 0 * depth], -1).astype(np.uint8)
        elif pixels.dtype == np.uint16:
            pixels = _with_scene(pixels, random)
        elif path.suffix == ".jpg":
            pixels = np.clip(pixels + random.normal(0, 2, pixels.shape), 0, 255).round().astype(np.uint8)
        content = cv2.imencode(path.suffix, pixels, usual if path.suffix == ".png" else ())[1]
        path.write_bytes(content.tobytes())


def _with_scene(depth: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """A depth frame in mm with something 300 mm behind the hand in a quarter of it, and 1 mm of grain."""
    near = (depth > 0) & (depth < 10_000)
    behind = (np.arange(depth.shape[1]) < depth.shape[1] // 4) & ~near
    scene = np.where(behind, np.median(depth[near]) + 300, depth)
    grain = np.where(near | behind, random.normal(0, 1, depth.shape), 0)
    return np.round(scene + grain).astype(np.uint16)


def measure(dataset: Dataset, decoder: _Decoder, repeats: int) -> dict[str, Any]:
    """Medians over the samples, each at its fastest, in ms."""
    count = min(len(dataset), SAMPLES) // 2 * 2
    pictures = [decoder.pictures_of(dataset, index) for index in range(count)]
    resampled = decoder.resampled
    reader, decoding = np.full(count, np.inf), np.full(count, np.inf)
    resampling = np.inf if resampled else 0.0
    for _ in range(repeats):
        for index in range(count):
            other = (index + count // 2) % count  # either's pictures were last decoded as long ago
            start = time.thread_time()
            sample = dataset[index]
            between = time.thread_time()
            decoder.again(pictures[other])
            end = time.thread_time()
            reader[index] = min(reader[index], between - start)
            decoding[other] = min(decoding[other], end - between)
            pixels = [decoder.remap(*arguments) for arguments in resampled]
            resampling = min(resampling, time.thread_time() - end) if pixels else 0.0
    picture = sample.image if sample.image is not None else sample.depth_mm
    assert picture is not None
    content = sum(len(arguments[0]) for arguments in pictures[0])
    reader_ms, decode_ms = 1e3 * statistics.median(reader), 1e3 * statistics.median(decoding)
    row = {
        "size": f"{picture.shape[1]}x{picture.shape[0]}",
        "kbytes": content / 1000,
        "samples_per_s": 1e3 / reader_ms,
        "reader_ms": reader_ms,
        "decode_ms": decode_ms,
        "rest_ms": reader_ms - decode_ms,
    }
    if pictures[0]:  # MSRA's frames are plain bytes
        row["over_decoding"] = reader_ms / decode_ms
    if resampled:
        row["over_decoding_and_resampling"] = reader_ms / (decode_ms + 1e3 * resampling)
    return row


def keep_memory() -> None:
    """Let glibc neither map large blocks anew each time nor give the heap's end back (elsewhere: nothing)."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt is not None:
        mallopt(-1, 1 << 30)  # M_TRIM_THRESHOLD
        mallopt(-3, 1 << 30)  # M_MMAP_THRESHOLD


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", nargs="*", help="parts of sets' names: only those")
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    parser.add_argument("--repeats", type=float, default=1.0, help="factor on the number of repeats")
    options = parser.parse_args()
    cv2.setNumThreads(1)
    keep_memory()
    repeats = max(3, round(15 * options.repeats))
    decoder = _Decoder()
    rows = []
    for case, (write, name, reader) in CASES.items():
        if options.what and not any(part in case for part in options.what):
            continue
        with tempfile.TemporaryDirectory() as folder:
            write(Path(folder))
            as_taken(Path(folder))
            rows.append({"set": case, **measure(open_dataset(name, folder, **reader), decoder, repeats)})
    report({"machine": machine(), "repeats": repeats, "rows": rows}, options.json)


if __name__ == "__main__":
    main()
