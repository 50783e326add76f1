"""Is a dataset on disk whole, and do its labels make sense?"""

import time
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8

from handgraph.datasets.sample import Dataset, Sample
from handgraph.errors import HandgraphError
from handgraph.skeleton import edges

MOST_PROBLEMS = 50
SHEET_TILES = 24
"""Pictures of each part on the sheet."""
# A bone of a large hand, wrist to knuckle, has about 110 mm; NYU's wrist points lie a little farther.
_LONGEST_BONE_MM = 150.0
# No hand's longest bone is shorter: such labels are in centimetres or metres.
_SHORTEST_MM = 15.0
_RESIDUAL_PX = 1.0
# Hands that the picture's border cuts are part of most sets; so many of them are not.
_CUT_HANDS = 0.3
_JOINTS_OVER_HAND = 0.3
# Of HUMBI's crops a few lack their file or their line in the list.
_LEFT_OUT = 0.01


class Check:
    """What a check has found so far; `add` reads one split after another, `result` says it in plain values.

    samples    how many frames of each split to read, spread over it (None: all)
    pictures   whether to keep pictures for a sheet
    """

    def __init__(self, samples: int | None, *, pictures: bool = False) -> None:
        self.samples, self.pictures = samples, pictures
        self.counts: dict[str, int] = {}
        self.sizes: dict[str, int] = {}
        self.problems: list[str] = []
        self.tiles: list[UInt8[np.ndarray, "s s 3"]] = []
        self.read, self.seconds = 0, 0.0

    def add(self, dataset: Dataset, expected: int | None) -> None:
        """Read frames of one split, whose published size is `expected` (None: nobody says)."""
        found, split = len(dataset) + getattr(dataset, "missing", 0), dataset.split
        self.counts[split] = found
        if expected is not None and found != expected:
            reason = "copied only in part" if found < expected else "another version, or two of them mixed"
            self.problems.append(
                f"{split}: {found} frames, the published set has {expected}: {reason}, or cut down on purpose"
            )
        left_out = getattr(dataset, "left_out", 0)
        if left_out > _LEFT_OUT * found:
            self.problems.append(
                f"{split}: {left_out} crops are listed or there, not both, beside {found} that are: "
                "copied only in part?"
            )
        path_of = getattr(dataset, "image_path", None) or getattr(dataset, "depth_path", None)
        absent = [i for i in range(len(dataset)) if path_of is not None and not path_of(i).is_file()]
        if absent and path_of is not None:
            self.problems.append(
                f"{split}: {len(absent)} labelled frames are not there, {path_of(absent[0])} the first"
            )
        chosen = np.arange(len(dataset))
        if self.samples is not None and self.samples < len(dataset):
            chosen = np.unique(np.linspace(0, len(dataset) - 1, self.samples).round().astype(int))
        chosen = np.setdiff1d(chosen, absent)
        shown = set(chosen[np.linspace(0, len(chosen) - 1, min(SHEET_TILES, len(chosen))).astype(int)])
        read = half_out = 0
        for index in chosen:
            start = time.perf_counter()
            try:
                sample = dataset[int(index)]
            except HandgraphError as error:
                self.problems.append(str(error))
                continue
            finally:
                self.seconds += time.perf_counter() - start
            self.read += 1
            picture = _picture(sample)
            size = f"{picture.shape[1]}x{picture.shape[0]}"
            self.sizes[size] = self.sizes.get(size, 0) + 1
            self.problems += [f"{sample.source}: {problem}" for problem in doubts(sample, dataset.joints)]
            known = np.isfinite(sample.keypoints_px).all(axis=-1)
            half_out += _inside(sample, sample.keypoints_px).sum() < 0.5 * known.sum()
            read += 1
            if self.pictures and index in shown:
                from handgraph.datasets.sheet import tile

                self.tiles.append(tile(sample, words=split))
        if half_out > max(_CUT_HANDS * read, 2):
            self.problems.append(
                f"{split}: more than half of the labelled joints lie outside the frame in {half_out} of "
                f"{read} frames: labels of pictures of another size?"
            )

    def result(self, name: str, root: Path) -> dict[str, Any]:
        """`{name, root, counts, sizes, problems, read, frames_per_s}`."""
        once = list(dict.fromkeys(self.problems))
        if len(once) > MOST_PROBLEMS:
            once = [*once[:MOST_PROBLEMS], f"and {len(once) - MOST_PROBLEMS} more"]
        return {
            "name": name,
            "root": str(root),
            "counts": self.counts,
            "sizes": self.sizes,
            "problems": once,
            "read": self.read,
            "frames_per_s": round(self.read / self.seconds, 1) if self.read else None,
        }


def doubts(sample: Sample, joints: tuple[int, ...]) -> list[str]:
    """What is hard to believe about the labels of one frame, in words; empty for a good frame.

    `joints` are those that papers use, in the order of `skeleton.edges`; unknown joints are left out.
    """
    found = []
    keypoints = sample.keypoints_px[list(joints)]
    known = np.isfinite(keypoints).all(axis=-1)
    inside = _inside(sample, keypoints)
    if not inside.any():
        found.append(f"all {known.sum()} labelled joints lie outside the frame")
    if sample.joints_mm is None:
        return found
    xyz = sample.joints_mm[list(joints)]
    known3 = np.isfinite(xyz).all(axis=-1)
    both = known & known3
    if sample.camera is not None and both.any():
        residual = np.abs(sample.camera.uvd_from_xyz(xyz[both])[:, :2] - keypoints[both]).max()
        if residual > _RESIDUAL_PX:
            found.append(f"the 3D labels project up to {residual:.1f} px from the 2D labels")
    pairs = np.array(edges(len(joints))) if len(joints) in (14, 16, 21) else np.zeros((0, 2), int)
    pairs = pairs[known3[pairs].all(axis=1)]
    lengths = np.linalg.norm(xyz[pairs[:, 0]] - xyz[pairs[:, 1]], axis=-1)
    if lengths.size and lengths.max() > _LONGEST_BONE_MM:
        found.append(f"a labelled bone is {lengths.max():.0f} mm long")
    if len(lengths) > 10 and lengths.max() < _SHORTEST_MM:
        found.append(f"the longest labelled bone has {lengths.max():.2g} mm: labels in another unit?")
    over = inside & known3
    if sample.depth_mm is not None and over.any():
        columns, rows = np.round(keypoints[over]).astype(int).T
        measured = sample.depth_mm[rows, columns]
        near = (measured > 0) & (np.abs(measured - xyz[over, 2]) < _LONGEST_BONE_MM / 2)
        if near.mean() < _JOINTS_OVER_HAND:
            found.append(f"only {near.sum()} of {len(near)} labelled joints have the hand's depth under them")
    return found


def _inside(sample: Sample, keypoints_px: np.ndarray) -> np.ndarray:
    height, width = _picture(sample).shape[:2]
    within = (keypoints_px >= -0.5) & (keypoints_px < np.array([width - 0.5, height - 0.5]))
    return np.asarray(within.all(axis=-1))


def _picture(sample: Sample) -> np.ndarray:
    picture = sample.depth_mm if sample.depth_mm is not None else sample.image
    assert picture is not None  # a Sample has one of them
    return picture
