"""Is a dataset on disk whole, and do its labels make sense?"""

from pathlib import Path
from typing import Any

import numpy as np

from handgraph.datasets.sample import Dataset, Sample
from handgraph.errors import HandgraphError
from handgraph.skeleton import edges

MOST_PROBLEMS = 50
# A bone of a large hand, wrist to knuckle, has about 110 mm; NYU's wrist points lie a little farther.
_LONGEST_BONE_MM = 150.0
_RESIDUAL_PX = 1.0
_JOINTS_OVER_HAND = 0.3


def check_split(
    dataset: Dataset, expected: int | None, samples: int | None
) -> tuple[dict[str, int], list[str]]:
    """Read `samples` frames spread over one split (None: all of them): ({size: frames}, problems)."""
    problems = []
    if expected is not None and len(dataset) != expected:
        problems.append(f"{dataset.split}: {len(dataset)} frames, the published set has {expected}")
    path_of = getattr(dataset, "depth_path", None)
    absent = [i for i in range(len(dataset)) if path_of is not None and not path_of(i).is_file()]
    if absent and path_of is not None:
        problems.append(
            f"{dataset.split}: {len(absent)} labelled frames are not there, {path_of(absent[0])} the first"
        )
    chosen = np.arange(len(dataset))
    if samples is not None and samples < len(dataset):
        chosen = np.unique(np.linspace(0, len(dataset) - 1, samples).round().astype(int))
    sizes: dict[str, int] = {}
    for index in np.setdiff1d(chosen, absent):
        try:
            sample = dataset[int(index)]
        except HandgraphError as error:
            problems.append(str(error))
            continue
        picture = sample.depth_mm if sample.depth_mm is not None else sample.image
        assert picture is not None  # a Sample has one of them
        size = f"{picture.shape[1]}x{picture.shape[0]}"
        sizes[size] = sizes.get(size, 0) + 1
        problems += [f"{sample.source}: {problem}" for problem in doubts(sample, dataset.joints)]
    return sizes, problems


def doubts(sample: Sample, joints: tuple[int, ...]) -> list[str]:
    """What is hard to believe about the labels of one frame, in words; empty for a good frame."""
    found = []
    keypoints = sample.keypoints_px[list(joints)]
    picture = sample.depth_mm if sample.depth_mm is not None else sample.image
    assert picture is not None  # a Sample has one of them
    height, width = picture.shape[:2]
    inside = ((keypoints >= -0.5) & (keypoints < [width - 0.5, height - 0.5])).all(axis=-1)
    if inside.mean() < 0.5:
        found.append(f"{(~inside).sum()} of {inside.size} labelled joints lie outside the frame")
    if sample.joints_mm is None:
        return found
    xyz = sample.joints_mm[list(joints)]
    if sample.camera is not None:
        residual = np.abs(sample.camera.uvd_from_xyz(xyz)[:, :2] - keypoints).max()
        if residual > _RESIDUAL_PX:
            found.append(f"the 3D labels project up to {residual:.1f} px from the 2D labels")
    pairs = np.array(edges(len(joints))) if len(joints) in (14, 16, 21) else np.zeros((0, 2), int)
    lengths = np.linalg.norm(xyz[pairs[:, 0]] - xyz[pairs[:, 1]], axis=-1)
    if lengths.size and np.nanmax(lengths) > _LONGEST_BONE_MM:
        found.append(f"a labelled bone is {np.nanmax(lengths):.0f} mm long")
    if sample.depth_mm is not None and inside.any():
        columns, rows = np.round(keypoints[inside]).astype(int).T
        measured = sample.depth_mm[rows, columns]
        near = (measured > 0) & (np.abs(measured - xyz[inside, 2]) < _LONGEST_BONE_MM / 2)
        if near.mean() < _JOINTS_OVER_HAND:
            found.append(f"only {near.sum()} of {len(near)} labelled joints have the hand's depth under them")
    return found


def summary(
    name: str,
    root: Path,
    counts: dict[str, int],
    sizes: dict[str, int],
    problems: list[str],
) -> dict[str, Any]:
    """The result of a check as plain values: `{name, root, counts, sizes, problems}`."""
    once = list(dict.fromkeys(problems))
    if len(once) > MOST_PROBLEMS:
        once = [*once[:MOST_PROBLEMS], f"and {len(once) - MOST_PROBLEMS} more"]
    return {"name": name, "root": str(root), "counts": counts, "sizes": sizes, "problems": once}
