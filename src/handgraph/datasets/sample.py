"""`Sample`: one labelled frame, the same whatever dataset it comes from."""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np

from handgraph.camera import PinholeCamera
from handgraph.errors import FormatError
from handgraph.hand import Side
from handgraph.skeleton import JointOrder

# No hand that a depth or colour camera resolves lies farther away than this.
FARTHEST_MM = 20_000.0

_FINITE: tuple[tuple[str, tuple[int | None, ...]], ...] = (
    ("center_mm", (3,)),
    ("box_px", (4,)),
    ("vertices_mm", (None, 3)),
    ("pose", (48,)),
    ("shape", (10,)),
)


@dataclass(frozen=True, eq=False)
class Sample:
    """One hand in one frame, with its labels in the dataset's own joint order.

    frame          the dataset's name of the frame, as its lists and prediction files write it
    source         the image file
    order          the joint order of every joint array here; `order.to_canonical` gives the 21 joints
    depth_mm       (H, W) float32 mm, 0 = no reading, or None
    image          (H, W, 3) uint8 RGB, or None
    camera         of the image; None where the dataset gives none
    keypoints_px   (J, 2) float32 image pixels, u right, v down, NaN where unknown
    joints_mm      (J, 3) float32 camera frame, x right, y down, z forward, NaN where unknown, or None
    visible        (J,) bool, or None where the dataset does not say
    side           which hand it is, or None where the dataset does not say
    subject        whose hand it is, or None
    center_mm      (3,) camera frame: where the hand is, to put the crop cube there, or None
    center_refined whether `center_mm` is the cube's centre itself, not only where to begin looking
    cube_mm        side of the crop cube that papers use for this frame, or None
    box_px         (4,) x, y, w, h in pixels: the hand's box, which a crop's margin multiplies; it may reach
                   beyond the image. None: the box of the labelled keypoints
    vertices_mm    (V, 3) camera frame, or None
    pose, shape    (48,) axis-angle and (10,) parameters of the hand model, or None
    note           what a reader should know about this one frame ("" almost always)

    Raises FormatError, naming the frame, when a shape or type is wrong or a number is impossible.
    """

    frame: str
    source: Path
    order: JointOrder
    keypoints_px: np.ndarray
    joints_mm: np.ndarray | None = None
    depth_mm: np.ndarray | None = None
    image: np.ndarray | None = None
    camera: PinholeCamera | None = None
    visible: np.ndarray | None = None
    side: Side | None = None
    subject: str | None = None
    center_mm: np.ndarray | None = None
    center_refined: bool = False
    cube_mm: float | None = None
    box_px: np.ndarray | None = None
    vertices_mm: np.ndarray | None = None
    pose: np.ndarray | None = None
    shape: np.ndarray | None = None
    note: str = ""

    def __post_init__(self) -> None:
        # Read once a sample: a check costs a few microseconds, a small picture's decoding a few hundred.
        joints = len(self.order.names)
        keypoints = self._array("keypoints_px", (joints, 2))
        joints_mm = self._array("joints_mm", (joints, 3))
        for field, shape in _FINITE:
            self._array(field, shape, finite=True)
        if self.image is None and self.depth_mm is None:
            raise self._wrong("there is neither a colour nor a depth image")
        if self.image is not None and (
            self.image.dtype != np.uint8 or self.image.ndim != 3 or self.image.shape[2] != 3
        ):
            raise self._wrong(
                f"image is {self.image.dtype} {self.image.shape}, expected uint8 (height, width, 3)"
            )
        if self.depth_mm is not None:
            self._check_depth()
        if joints_mm is not None:
            known = [depth for depth in joints_mm[:, 2].tolist() if not math.isnan(depth)]
            if not known:
                raise self._wrong("no joint has a finite label")
            near, far = min(known), max(known)
            if self.camera is not None and (near <= 0 or far > FARTHEST_MM):
                raise self._wrong(
                    f"joints lie {near:.0f} to {far:.0f} mm from the camera, expected 0 to {FARTHEST_MM:.0f}"
                )
        elif keypoints is None or not np.isfinite(keypoints).any():
            raise self._wrong("no joint has a finite label")
        if self.visible is not None:
            visible = np.asarray(self.visible)
            if visible.shape != (joints,) or visible.dtype != np.bool_:
                raise self._wrong(f"visible is {visible.dtype} {visible.shape}, expected bool ({joints},)")
        if self.side not in (None, "left", "right"):
            raise self._wrong(f"side is {self.side!r}, expected left, right or None")
        if self.cube_mm is not None and not 0 < self.cube_mm < FARTHEST_MM:
            raise self._wrong(f"crop cube of {self.cube_mm} mm")
        if self.box_px is not None and self.box_px[2:].min() <= 0:
            raise self._wrong(f"crop box of {self.box_px[2]:.3g}x{self.box_px[3]:.3g} pixels")

    def _check_depth(self) -> None:
        depth = self._array("depth_mm", (None, None), pixels=True)
        assert depth is not None
        if depth.size:
            # The extremes are NaN or infinite where any number is, and cheaper than asking every pixel.
            nearest, farthest = float(depth.min()), float(depth.max())
            if not (np.isfinite(nearest) and np.isfinite(farthest)):
                raise self._wrong("depth_mm holds a number that is not finite")
            if nearest < 0:
                raise self._wrong("depth holds negative millimetres")
        if self.camera is None:
            raise self._wrong("a depth image needs its camera")

    def _wrong(self, found: str) -> FormatError:
        return FormatError(f"{self.source} (frame {self.frame}): {found}")

    def _array(
        self, field: str, expected: tuple[int | None, ...], *, finite: bool = False, pixels: bool = False
    ) -> np.ndarray | None:
        """Hold a field as float32 of the expected shape; a copy only where the type differs.

        `finite`: NaN, which stands for an unknown, is refused too; `pixels`: numbers are checked elsewhere.
        """
        value = getattr(self, field)
        if value is None:
            return None
        try:
            array = np.asarray(value, dtype=np.float32)
        except (TypeError, ValueError) as error:
            raise self._wrong(f"{field} holds something that is not a number") from error
        if array.shape != expected and not (
            array.ndim == len(expected)
            and all(want in (None, got) for want, got in zip(expected, array.shape, strict=True))
        ):
            wanted = ", ".join("n" if want is None else str(want) for want in expected)
            raise self._wrong(f"{field} has shape {array.shape}, expected ({wanted})")
        # As `files.all_finite` asks, but for NaN.
        if not pixels and not math.isfinite(np.vdot(array, array)):
            wrong = ~np.isfinite(array) if finite else np.isinf(array)
            if wrong.any():
                raise self._wrong(f"{field} holds a number that is not finite")
        if array is not value:
            object.__setattr__(self, field, array)
        return array


@runtime_checkable
class Dataset(Protocol):
    """What every reader offers: a sequence of samples, read from disk one at a time.

    A reader holds labels and paths only, so that it can be forked or pickled into worker processes.
    `joints` are the indices, into the dataset's own order, of the joints that papers train and evaluate.
    """

    @property
    def name(self) -> str: ...
    @property
    def split(self) -> str: ...
    @property
    def joints(self) -> tuple[int, ...]: ...
    def __len__(self) -> int: ...
    def __getitem__(self, index: int) -> Sample: ...
