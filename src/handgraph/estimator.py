"""`load(name)` → an estimator: a frame in, `Hand`s out; the path of users and command line.

This file holds the one for depth, `handgraph.colour` that for photographs. Neither imports PyTorch: whoever
runs the network does (`handgraph.runtime`).

frame → candidates (`localize`) → `Crop` → network → `decoding`, and once more with the crop moved to the hand
→ the most plausible `Hand` → laid on the surface that the frame shows.
"""

from collections.abc import Sequence
from dataclasses import replace
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Literal, overload

import numpy as np

from handgraph import systems
from handgraph.camera import Crop, PinholeCamera
from handgraph.colour import ColourEstimator
from handgraph.decoding import decoder
from handgraph.errors import CheckpointError, ConfigError, InputError
from handgraph.files import weights_file
from handgraph.hand import Hand, Side
from handgraph.images import assumed_camera, checked_depth
from handgraph.plausibility import plausibility
from handgraph.runtime import Network, Runtime, check_runtime, load_exported, load_onnx
from handgraph.shapes import Float
from handgraph.skeleton import BONES

if TYPE_CHECKING:
    from handgraph.localize import Candidate
    from handgraph.subject import Subject

Box = tuple[float, float, float, float]

ASSUMED_CAMERA = "; the camera is assumed, so sizes and distances from the optical axis are approximate"

CANDIDATES = 8
"""Places in a frame that the network looks at when the first one does not convince."""
SURE = 0.8
"""The first candidate is the hand if it is so plausible (`handgraph.plausibility`)."""
SECOND_LOOKS = 3
"""Of the places looked at further, those that get a second look, for every hand that there may be."""
LEAST_SCORE = 0.5
"""Below this score there is no hand."""
LAID_CUBE_MM = 250.0
"""Around a hand that is laid on the surface."""
LEAST_PLAUSIBILITY = 0.1
"""A hand that nobody has pointed out must be at least so plausible. Of 389 synthetic frames (validation, with
those that hardly show the hand) 352 are answered within 60 mm of the hand and 17 wrongly; without this 362
and 27 (`tools/fit_plausibility.py`). From 0 to 0.1 right less wrong answers differ by no more than three."""
MORE_CANDIDATES = 4
"""Places that the network looks at for every hand that a frame may show, where that is more than one."""
NEXT_PLAUSIBILITY = 0.3
"""A further hand must be so plausible, over the most plausible one."""
APART_MM = 60.0
"""Hands whose joints lie nearer, in the mean, are the same."""
SMALLEST_HAND_MM = 300.0
"""Length of all bones together. A network that sees no hand gathers its joints in one place."""


def shipped_weights(name: str) -> Path:
    """The file of a system's shipped weights, which must be there.

    Raises ConfigError for an unknown name, CheckpointError where none are shipped.
    """
    if name not in systems.names():
        raise ConfigError(f"unknown system {name!r}, expected one of {', '.join(systems.names())}")
    if not weights_path(name).is_file():
        raise CheckpointError(
            f"{name}: no weights are shipped with this installation; train it and give the checkpoint"
        )
    return weights_path(name)


def weights_path(name: str) -> Path:
    """The file of a system's shipped weights, whether it is there or not."""
    return Path(str(files("handgraph") / "weights" / f"{name}.safetensors"))


@overload
def load(name: Literal["jgr_p2o"] | None = ..., *, runtime: Runtime = ...) -> "Estimator": ...


@overload
def load(
    name: str | None = ..., *, checkpoint: str | Path | None = ..., runtime: Runtime = ...
) -> "Estimator | ColourEstimator": ...


def load(
    name: str | None = None, *, checkpoint: str | Path | None = None, runtime: Runtime = "torch"
) -> "Estimator | ColourEstimator":
    """An estimator with the shipped weights of system `name`, or with those of a `checkpoint`.

    >>> estimate = load("jgr_p2o")
    >>> hands = estimate(depth_mm, camera=PinholeCamera(588.0, 587.0, 320.0, 240.0))

    Systems for depth give an `Estimator`, systems for colour a `ColourEstimator`.

    `checkpoint` is a weights file, a training checkpoint such as `run/best`, or an `.onnx` file that `export`
    wrote; given both, `name` must be the system it holds. With `runtime` "onnx", weights are exported on
    first use and kept in the user's cache; from then on PyTorch is not imported. An `.onnx` file is always
    answered by ONNX Runtime.

    Raises ConfigError for an unknown name or runtime, CheckpointError for weights that are missing, damaged
    or of another architecture, MissingExtraError without ONNX Runtime where that is asked for.
    """
    check_runtime(runtime)
    file = shipped_weights(name or "jgr_p2o") if checkpoint is None else weights_file(checkpoint)
    network = _network(file, runtime)
    if name is not None and name != network.name:
        raise CheckpointError(f"{checkpoint}: holds weights of {network.name}, not of {name}")
    return ColourEstimator(network) if network.input == "colour" else Estimator(network)


def _network(file: Path, runtime: Runtime) -> Network:
    if file.suffix.lower() == ".onnx":
        return load_onnx(file)
    if runtime == "onnx":
        return load_exported(file)
    from handgraph.answering import TorchNetwork
    from handgraph.training.checkpoint import load_system

    return TorchNetwork(*load_system(file))


class Estimator:
    """Finds the hand in depth frames and its 21 joints. Make one with `load`.

    name, config, meta   what the weights are: system, its `Config`, and how they were trained
    input, runtime       "depth"; whether PyTorch ("torch") or ONNX Runtime ("onnx") runs the network
    least_score          a hand with a lower score is not reported; may be set
    looks                how often a hand is looked at once it is centred, 1 to 4, each time a quarter turn
                         further; the answers are averaged. More are surer and slower; may be set
    optimise             whether the hand model is laid on the surface that the frame shows, which gives the
                         hand pose and shape; True where the weights know the open hand's joints; may be set
    """

    def __init__(self, network: Network) -> None:
        self.name, self.config, self.meta = network.name, network.config, network.meta
        self.input, self.runtime = network.input, network.runtime
        self.least_score = LEAST_SCORE
        if self.config.joints != 21:
            raise ConfigError(
                f"{self.name}: predicts {self.config.joints} joints, a hand has 21: evaluate it instead"
            )
        self._network = network
        self._decoder = decoder(self.name)
        self._looks = 1
        self.optimise: bool = self._decoder.lays(self.config, self.meta)

    @property
    def looks(self) -> int:
        """How often a hand is looked at."""
        return self._looks

    @looks.setter
    def looks(self, wanted: int) -> None:
        if not 1 <= wanted <= self._decoder.MOST_LOOKS:
            raise ConfigError(f"looks is {wanted}, expected 1 to {self._decoder.MOST_LOOKS}")
        self._looks = wanted

    @overload
    def __call__(
        self,
        depth_mm: np.ndarray,
        camera: PinholeCamera | None = ...,
        box: Box | None = ...,
        side: Side = ...,
        most: int = ...,
        subject: "Subject | None" = ...,
    ) -> list[Hand]: ...

    @overload
    def __call__(
        self,
        depth_mm: Sequence[np.ndarray],
        camera: PinholeCamera | None = ...,
        box: Box | None = ...,
        side: Side = ...,
        most: int = ...,
        subject: "Subject | None" = ...,
    ) -> list[list[Hand]]: ...

    def __call__(
        self,
        depth_mm: np.ndarray | Sequence[np.ndarray],
        camera: PinholeCamera | None = None,
        box: Box | None = None,
        side: Side = "right",
        most: int = 1,
        subject: "Subject | None" = None,
    ) -> list[Hand] | list[list[Hand]]:
        """The most convincing hands in a frame (H, W) of millimetres; an empty list where there is none.

        depth_mm   one frame, 0 = no reading, or a sequence of frames, which gives a list for each
        camera     that took it; assumed where it is None, and then the hand's `frame` says so
        box        x, y, w, h in pixels, to look for the hand only there
        side       a depth frame does not say which hand it shows: say "left" for a left one
        most       how many hands there may be; with more than one the surest comes first
        subject    whose hand it is: the shape that a laid hand keeps (see `optimise`)

        Raises FormatError for an array that is no depth frame, InputError for a box outside it.
        """
        if side not in ("left", "right"):
            raise InputError(f"side is {side!r}, expected 'left' or 'right'")
        if most < 1:
            raise InputError(f"most is {most}, expected how many hands there may be, at least 1")
        if isinstance(depth_mm, np.ndarray):
            return self._hands(checked_depth(depth_mm, "depth frame"), camera, box, side, most, subject)
        return [
            self._hands(checked_depth(frame, f"depth frame {index}"), camera, box, side, most, subject)
            for index, frame in enumerate(depth_mm)
        ]

    def _hands(
        self,
        depth_mm: Float[np.ndarray, "h w"],
        camera: PinholeCamera | None,
        box: Box | None,
        side: Side,
        most: int,
        subject: "Subject | None",
    ) -> list[Hand]:
        height, width = depth_mm.shape
        known = camera or assumed_camera(width, height)
        limit = CANDIDATES if most == 1 else MORE_CANDIDATES * most
        candidates = _find(depth_mm, known, box, side, limit)
        if not candidates:
            return []
        hands, likely = self._twice(depth_mm, known, side, candidates[:1])
        if len(candidates) > 1 and (most > 1 or likely[0] < SURE):
            more, as_likely = self._twice(depth_mm, known, side, candidates[1:], SECOND_LOOKS * most)
            hands, likely = hands + more, likely + as_likely
        order = np.argsort(-np.array(likely), kind="stable")
        kept: list[Hand] = []
        for place in order[: 1 if most == 1 else None]:
            hand = hands[place]
            # Whoever gives a box says that a hand is there; then only the network may doubt it.
            if box is None and likely[place] < LEAST_PLAUSIBILITY:
                break
            if likely[place] < NEXT_PLAUSIBILITY * likely[order[0]] or len(kept) == most:
                break
            if hand.score < self.least_score or _bone_length_mm(hand) < SMALLEST_HAND_MM:
                continue
            if all(_apart_mm(hand, other) > APART_MM for other in kept):
                kept.append(hand)
        if kept and self.optimise:
            kept = self._laid(depth_mm, known, kept, subject)
        return [hand if camera else replace(hand, frame=hand.frame + ASSUMED_CAMERA) for hand in kept]

    def _twice(
        self,
        depth_mm: Float[np.ndarray, "h w"],
        camera: PinholeCamera,
        side: Side,
        candidates: "Sequence[Candidate]",
        most: int = 1,
    ) -> tuple[list[Hand], list[float]]:
        """What the network sees at a candidate once its crop is centred on the joints it saw there first.

        The mean of the joints is a steadier centre than the mean of what is visible, forearm and all. Of more
        than `most` candidates the most plausible are looked at twice. Returns hands and their plausibilities.
        """
        seen = list(zip(self._at(depth_mm, camera, side, candidates), candidates, strict=True))
        if len(seen) > most:
            seen.sort(key=lambda pair: -plausibility(pair[0], pair[1], depth_mm))
        centered = []
        for hand, one in seen[:most]:
            assert hand.joints_mm is not None
            centered.append(replace(one, center_xyz_mm=hand.joints_mm.mean(axis=0).astype(np.float64)))
        hands = self._at(depth_mm, camera, side, centered, self.looks)
        pairs = zip(hands, centered, strict=True)
        return hands, [plausibility(hand, one, depth_mm) for hand, one in pairs]

    def _at(
        self,
        depth_mm: Float[np.ndarray, "h w"],
        camera: PinholeCamera,
        side: Side,
        candidates: "Sequence[Candidate]",
        looks: int = 1,
    ) -> list[Hand]:
        """What the network sees at each candidate, in one batch."""
        crops = [
            Crop.cube(one.center_xyz_mm, one.cube_mm, camera, self.config.input_size, mirrored=side == "left")
            for one in candidates
        ]
        images = np.stack([crop.apply_depth(depth_mm) for crop in crops])[:, None]
        turned = [np.rot90(images, quarters, (2, 3)) for quarters in range(looks)]
        answer = self._decoder.together(self._network(np.concatenate(turned)), looks)
        hands: list[Hand] = self._decoder.hands(answer, crops)
        return hands

    def _laid(
        self,
        depth_mm: Float[np.ndarray, "h w"],
        camera: PinholeCamera,
        hands: Sequence[Hand],
        subject: "Subject | None",
    ) -> list[Hand]:
        """The hands with joints, pose and shape of the hand model laid on the surface around them."""
        joints = np.stack([np.asarray(hand.joints_mm, np.float64) for hand in hands])
        crops = [
            Crop.cube(center, LAID_CUBE_MM, camera, self.config.input_size, mirrored=hand.side == "left")
            for hand, center in zip(hands, joints.mean(axis=1), strict=True)
        ]
        # Behind what is nearer than the cube, the hand may be.
        images = np.stack([crop.apply_depth(depth_mm, before=-1.0) for crop in crops])
        spread_mm = self._decoder.spread_of(np.stack([np.asarray(hand.confidence) for hand in hands]))
        fit = self._decoder.laid(joints, spread_mm, crops, images, subject and subject.shape)
        moved = []
        for index, hand in enumerate(hands):
            keypoints_px = camera.uvd_from_xyz(fit.joints_mm[index])[:, :2]
            corner, far = keypoints_px.min(axis=0), keypoints_px.max(axis=0)
            moved.append(
                replace(
                    hand,
                    keypoints_px=keypoints_px,
                    box_px=np.concatenate([corner, far - corner]),
                    joints_mm=fit.joints_mm[index],
                    pose=fit.pose[index],
                    shape=fit.shape[index],
                )
            )
        return moved


def _bone_length_mm(hand: Hand) -> float:
    assert hand.joints_mm is not None
    parents, children = np.transpose(BONES)
    return float(np.linalg.norm(hand.joints_mm[children] - hand.joints_mm[parents], axis=1).sum())


def _apart_mm(hand: Hand, other: Hand) -> float:
    assert hand.joints_mm is not None
    assert other.joints_mm is not None
    return float(np.linalg.norm(hand.joints_mm - other.joints_mm, axis=1).mean())


def _find(
    depth_mm: Float[np.ndarray, "h w"], camera: PinholeCamera, box: Box | None, side: Side, limit: int
) -> "list[Candidate]":
    """At most `limit` candidates of a frame; for a left hand those of the mirrored frame, mirrored back.

    So a left hand gives exactly the mirror image of what its mirror image gives as a right one: the finder's
    grid and its random planes would not look at both alike.
    """
    from handgraph.localize import find_hands  # compiled, and slow to import: only for depth frames

    if side == "right":
        return find_hands(depth_mm, camera, box_px=box, limit=limit)
    last = depth_mm.shape[1] - 1
    seen = PinholeCamera(camera.fx, camera.fy, last - camera.cx, camera.cy)
    if box is not None:
        box = (last + 1 - box[0] - box[2], *box[1:])
    found = find_hands(depth_mm[:, ::-1], seen, box_px=box, limit=limit)
    flip = np.array([-1.0, 1.0, 1.0])
    return [
        replace(
            one,
            center_xyz_mm=one.center_xyz_mm * flip,
            box_px=(last + 1 - one.box_px[0] - one.box_px[2], *one.box_px[1:]),
            planes=tuple(plane._replace(normal=plane.normal * flip) for plane in one.planes),
        )
        for one in found
    ]
