"""Where to put the crop cube: published centre files, or the centre of mass of the depth itself."""

from pathlib import Path
from typing import Any, no_type_check

import numba as nb
import numpy as np
from jaxtyping import Float

from handgraph.camera import PinholeCamera
from handgraph.datasets.files import parse_floats, read_lines
from handgraph.errors import FormatError, InputError

HAND_CUBE_MM = 260.0
"""Side of the cube around the middle of a hand's joints, where no paper says another."""
# A centre is the middle of the hand: farther than this from its joints it belongs to another frame.
_FAR_FROM_JOINTS_MM = 120.0


def find_centers(path: str | Path, *names: str) -> Path:
    """The centre file itself, or, in a folder of centre files, the first of these published names."""
    path = Path(path)
    if not path.is_dir():
        return path
    for name in names:
        if (path / name).is_file():
            return path / name
    raise InputError(f"{path}: holds no centre file for this split, expected {' or '.join(names)}")


def read_centers(
    path: Path,
    camera: PinholeCamera,
    mean_joint_mm: Float[np.ndarray, "n 3"],
    *,
    axis_signs: tuple[float, float, float],
    form: str | None = None,
) -> Float[np.ndarray, "n 3"]:
    """The crop centres of a published file, one a frame, in the camera frame (mm, y down).

    `form` is `xyz` (V2V-PoseNet, `center_*_refined.txt`: mm in the dataset's own axes, or the word
    `invalid`, which becomes NaN) or `uvd` (region ensemble network, `*_center.txt`: px, px, mm); None
    takes it from the file's name. `axis_signs` turn the dataset's axes to the camera frame.
    `mean_joint_mm` is the middle of each frame's labels. Centres that lie far from it, or nearer to it
    with y turned over, are those of another split or another form: FormatError.
    """
    if form is None:
        form = {True: "xyz", False: "uvd"}.get(path.stem.endswith("_refined"))
        if not path.stem.endswith(("_refined", "_center")):
            raise InputError(
                f"{path}: say centers_form='xyz' (mm in the dataset's axes) or 'uvd' (px, px, mm)"
            )
    lines = read_lines(path)
    frames = len(mean_joint_mm)
    if len(lines) != frames:
        raise FormatError(f"{path}: {len(lines)} centres, but the split has {frames} frames")
    rows = np.full((frames, 3), np.nan)
    valid = [index for index, line in enumerate(lines) if "invalid" not in line]
    rows[valid] = parse_floats(path, [lines[index] for index in valid], 3)
    centers = camera.xyz_from_uvd(rows) if form == "uvd" else rows * np.asarray(axis_signs)
    if valid:
        distance, turned = (
            float(np.median(np.linalg.norm(centers[valid] * signs - mean_joint_mm[valid], axis=-1)))
            for signs in ((1.0, 1.0, 1.0), (1.0, -1.0, 1.0))
        )
        if distance > _FAR_FROM_JOINTS_MM or turned < distance / 2:
            raise FormatError(
                f"{path}: read as {form}, the centres lie {distance:.0f} mm from the labels' middle "
                f"({turned:.0f} mm with y turned over); another split's file, or another form"
            )
    return centers


def middle_of_joints(joints_mm: Float[np.ndarray, "n 3"]) -> dict[str, Any]:
    """Fields of `Sample` for a crop where only the labels say which of all that is in view is the hand."""
    return {"center_mm": joints_mm.mean(axis=0), "center_refined": True, "cube_mm": HAND_CUBE_MM}


def mass_center(
    depth_mm: Float[np.ndarray, "h w"], camera: PinholeCamera, near_mm: float, far_mm: float
) -> Float[np.ndarray, " 3"] | None:
    """Mean position of all depth from `near_mm` to `far_mm`, camera frame, mm; None where there is none.

    Mean pixel at mean depth, as region ensemble network computes its published centres.
    """
    count, columns, rows, total_mm = _sums(depth_mm, near_mm, far_mm)
    if not count:
        return None
    return camera.xyz_from_uvd(np.array([columns / count, rows / count, total_mm / count]))


# In one pass; `reassoc` lets the sums be taken several pixels at a time.
@nb.njit(nogil=True, cache=True, fastmath={"reassoc"})
@no_type_check
def _sums(depth_mm, near_mm, far_mm) -> tuple[int, int, int, float]:
    """Of the pixels from near to far: how many, and the sums of their columns, rows and depths."""
    count, columns, rows, total_mm = 0, 0, 0, 0.0
    for row in range(depth_mm.shape[0]):
        before = count
        for column in range(depth_mm.shape[1]):
            mm = depth_mm[row, column]
            within = (mm >= near_mm) & (mm <= far_mm)
            count += within
            columns += column if within else 0
            total_mm += mm if within else 0.0
        rows += row * (count - before)
    return count, columns, rows, total_mm


def center_of_depth(
    depth_mm: Float[np.ndarray, "h w"],
    camera: PinholeCamera,
    start_mm: Float[np.ndarray, " 3"] | None,
    cube_mm: float,
    rounds: int = 10,
) -> Float[np.ndarray, " 3"] | None:
    """The refined centre of mass of DeepPrior++ (its centre before the correcting network), mm, y down.

    Starts at `start_mm`, or at the centre of mass of all depth, and moves to the centre of mass of the depth
    inside the cube around itself until it stays. None where there is no depth to weigh.
    """
    left, top = 0, 0
    if start_mm is not None:  # the cube wanders less than its own side: weigh only the pixels in its reach
        x, y, z = (float(value) for value in start_mm)
        u, v = camera.fx * x / z + camera.cx, camera.fy * y / z + camera.cy
        reach_u, reach_v = camera.fx * cube_mm / z, camera.fy * cube_mm / z
        left, top = max(int(u - reach_u), 0), max(int(v - reach_v), 0)
        depth_mm = depth_mm[top : max(int(v + reach_v) + 1, 0), left : max(int(u + reach_u) + 1, 0)]
    rows, columns = np.nonzero(depth_mm > 0)
    if not rows.size:
        return None
    pixels = np.stack([columns + left, rows + top, depth_mm[rows, columns]], axis=-1)
    points = camera.xyz_from_uvd(pixels.astype(np.float64))
    center = points.mean(axis=0) if start_mm is None else np.asarray(start_mm, dtype=np.float64)
    for _ in range(rounds):
        inside = (np.abs(points - center) <= cube_mm / 2).all(axis=-1)
        if not inside.any():
            return None
        moved = points[inside].mean(axis=0)
        settled = bool(np.linalg.norm(moved - center) < 0.5)
        center = moved
        if settled:
            break
    return center
