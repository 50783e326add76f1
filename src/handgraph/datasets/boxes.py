"""Boxes around hands, as papers draw them, all as x, y, w, h in pixels (pixel centres are integers)."""

import numpy as np
from jaxtyping import Bool, Float

Box = Float[np.ndarray, " 4"]


def keypoint_box(
    keypoints_px: Float[np.ndarray, "n 2"],
    margin_px: float = 0.0,
    known: Bool[np.ndarray, " n"] | None = None,
) -> Box | None:
    """The tight box of the finite (and known) keypoints, `margin_px` wider on each side; None without two.

    A box that has no extent (all points in one place) is None too.
    """
    points = keypoints_px
    if known is not None or not np.isfinite(points).all():
        use = np.isfinite(points).all(axis=-1)
        points = points[use if known is None else use & known]
    if len(points) < 2:
        return None
    low, high = points.min(axis=0), points.max(axis=0)
    if not (high - low).max() > 0:
        return None
    return np.concatenate([low - margin_px, high - low + 1 + 2 * margin_px]).astype(np.float32)


def mask_box(mask: Bool[np.ndarray, "h w"]) -> Box | None:
    """The tight box of the pixels that are set; None where there is none."""
    columns, rows = np.flatnonzero(mask.any(axis=0)), np.flatnonzero(mask.any(axis=1))
    if not columns.size:
        return None
    left, top = columns[0], rows[0]
    return np.array([left, top, columns[-1] - left + 1, rows[-1] - top + 1], dtype=np.float32)


def square(center_px: Float[np.ndarray, " 2"], side_px: float) -> Box:
    """The square of that side around a point."""
    corner = np.asarray(center_px) - (side_px - 1) / 2
    return np.array([corner[0], corner[1], side_px, side_px], dtype=np.float32)
