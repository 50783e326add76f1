"""From one convention to another: joint orders, units, axes, roots, sides, pose representations.

Every function takes a `Clip` and gives a `Clip`. None invents anything: a joint that the source lacks stays
away, and what a conversion needs but the clip does not state is a FormatError that names it.
"""

from collections.abc import Callable
from dataclasses import replace
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float

from handgraph.errors import ConfigError, FormatError, InputError
from handgraph.formats.clip import (
    CAMERA_ROOT,
    CANONICAL_ORDERS,
    ORDERS,
    UNITS_OF_LENGTH,
    Clip,
    ClipFrame,
    ClipHand,
    Conventions,
)
from handgraph.hand import Side
from handgraph.hand_model import HandLayer, HandModel, load_open_hand
from handgraph.hand_model.fitting import axis_angles_of, fit, rotations_of
from handgraph.rotations import axis_angles, from_axis_angles, to_matrices
from handgraph.skeleton import JOINT_NAMES, MANO, PARENTS, JointOrder

OPENGL_FROM_OPENCV = np.array([1.0, -1.0, -1.0])
"""Half a turn about x: a rotation, so that it keeps left hands left."""
MIRROR = np.array([-1.0, 1.0, 1.0])
MODEL_JOINTS = MANO.canonical[:16]
"""The canonical joint of each rotation of a hand model."""


def meanings(order: JointOrder) -> tuple[str, ...]:
    """What each joint of an order is: its canonical name, or its own where the canonical hand has none."""
    return tuple(
        JOINT_NAMES[joint] if joint >= 0 else name
        for name, joint in zip(order.names, order.canonical, strict=True)
    )


def missing(source: JointOrder, target: JointOrder) -> dict[str, str]:
    """The joints of `target` that `source` lacks, by their names there, with the reason."""
    have = set(meanings(source))
    why = f" ({source.note})" if source.note and source.name not in CANONICAL_ORDERS else ""
    return {
        name: f"{source.name} has no {meaning}{why}"
        for name, meaning in zip(target.names, meanings(target), strict=True)
        if meaning not in have
    }


def dropped(source: JointOrder, target: JointOrder) -> list[str]:
    """The joints of `source` that `target` has no place for, by their names in `source`."""
    return list(missing(target, source))


def to_order(clip: Clip, name: str) -> Clip:
    """The joints in another order; NaN where the source has no such joint."""
    source, target = clip.conventions.joints, ORDERS[name]
    have = meanings(source)
    picks = np.array([have.index(joint) if joint in have else -1 for joint in meanings(target)])

    def pick(array: np.ndarray | None) -> np.ndarray | None:
        if array is None:
            return None
        picked = array[picks]
        picked[picks < 0] = np.nan
        return picked

    def change(hand: ClipHand, _: ClipFrame) -> ClipHand:
        return replace(
            hand,
            points_px=pick(hand.points_px),
            points=pick(hand.points),
            confidence=pick(hand.confidence),
        )

    return clip.map(change, conventions=replace(clip.conventions, order=name))


def to_unit(clip: Clip, unit: str, hand_length_mm: float | None = None) -> Clip:
    """Points in another unit. Pixels need absolute coordinates, the camera's axes and a camera."""
    now = clip.conventions.need("unit")
    if now == unit:
        return clip
    if unit == "hand":
        raise ConfigError("unit: hand lengths are an answer's unit, no file is converted to them")
    if now == "hand":
        if hand_length_mm is None:
            raise FormatError("unit is hand lengths, whose size is not known: give --hand-length in mm")
        return to_unit(_scaled(clip, hand_length_mm, "mm"), unit)
    if "px" not in (now, unit):
        return _scaled(clip, UNITS_OF_LENGTH[now] / UNITS_OF_LENGTH[unit], unit)
    if clip.has("points") or clip.has("vertices"):
        for name, needed in (("root", CAMERA_ROOT), ("axes", "opencv")):
            if clip.conventions.need(name) != needed:
                found = getattr(clip.conventions, name)
                raise FormatError(f"{name} is {found}: pixels and millimetres need {needed}")
    if now != "px":
        clip = to_unit(clip, "mm")

    def change(hand: ClipHand, _: ClipFrame) -> ClipHand:
        if hand.points is None and hand.vertices is None:
            return hand
        camera = hand.need("camera")
        through = camera.xyz_from_uvd if now == "px" else camera.uvd_from_xyz
        with np.errstate(invalid="ignore", divide="ignore"):  # missing joints are NaN, and stay so
            return replace(
                hand,
                points=None if hand.points is None else through(hand.points),
                vertices=None if hand.vertices is None else through(hand.vertices),
                root_at=None,
            )

    changed = clip.map(change, conventions=replace(clip.conventions, unit="mm" if now == "px" else "px"))
    return to_unit(changed, unit) if now == "px" else changed


def _scaled(clip: Clip, factor: float, unit: str) -> Clip:
    def change(hand: ClipHand, _: ClipFrame) -> ClipHand:
        scaled = {
            name: getattr(hand, name) * factor
            for name in ("points", "vertices", "root_at")
            if getattr(hand, name) is not None
        }
        return replace(hand, **scaled)

    return clip.map(change, conventions=replace(clip.conventions, unit=unit))


def to_axes(clip: Clip, axes: str) -> Clip:
    """Points, vertices and the pose's global rotation in other axes."""
    now = clip.conventions.need("axes")
    if now == axes:
        return clip
    if clip.conventions.unit == "px":
        raise FormatError("axes: pixels have the image's own axes, take lengths (mm) for others")
    turned = {"points": OPENGL_FROM_OPENCV, "vertices": OPENGL_FROM_OPENCV, "root_at": OPENGL_FROM_OPENCV}
    changed = _turned(clip, turned, replace(clip.conventions, axes=axes))
    if not clip.has("rotations"):
        return changed
    return _with_rotations(
        changed, lambda matrices: np.concatenate([np.diag(OPENGL_FROM_OPENCV) @ matrices[:1], matrices[1:]])
    )


def mirrored(clip: Clip) -> Clip:
    """Left hands from right ones and the other way round: the picture's mirror image.

    Raises FormatError where hands have pixels and the width of the picture is not known.
    """

    def change(hand: ClipHand, frame: ClipFrame) -> ClipHand:
        side: Side = "left" if hand.need("side") == "right" else "right"
        changes: dict[str, Any] = {"side": side}
        has_pixels = hand.points_px is not None or hand.box_px is not None
        in_pixels = clip.conventions.unit == "px"
        if has_pixels or hand.camera is not None:
            if frame.size_px is None:
                raise FormatError(f"size is missing: {_SIZE}")
            last = frame.size_px[0] - 1  # pixel centres are 0 … width - 1
            if hand.points_px is not None:
                changes["points_px"] = hand.points_px * [-1, 1] + [last, 0]
            if hand.box_px is not None:
                x, y, w, h = hand.box_px
                changes["box_px"] = np.array([last - x - w, y, w, h])
            if hand.camera is not None:
                changes["camera"] = replace(hand.camera, cx=last - hand.camera.cx)
        for name in ("points", "vertices", "root_at"):
            value = getattr(hand, name)
            if value is not None and in_pixels:
                if frame.size_px is None:
                    raise FormatError(f"size is missing: {_SIZE}")
                changes[name] = value * MIRROR + [frame.size_px[0] - 1, 0, 0]
            elif value is not None:
                changes[name] = value * MIRROR
        return replace(hand, **changes)

    said = "mirrored: left hands are right hands here, and the other way round"
    # The pose last, for the model's mean and principal poses are mirrored with it.
    matrix = np.diag(MIRROR)
    if clip.has("rotations"):
        if clip.conventions.rotation == "pca" or clip.conventions.zero == "mean":
            raise FormatError("rotation: bring principal poses and mean hands to plain axis-angles first")
        clip = _with_rotations(clip, lambda matrices: matrix @ matrices @ matrix)
    return clip.map(change).noted(said)


_SIZE = "mirroring pixels needs the image's width, give --size w,h"


def to_root(clip: Clip, root: str) -> Clip:
    """Points relative to another joint, or absolute again where the root's own place is known."""
    now = clip.conventions.need("root")
    if now == root:
        return clip
    if clip.conventions.unit == "px":
        raise FormatError("root: pixels are absolute, take lengths (mm) for others")
    names = meanings(clip.conventions.joints) if root != CAMERA_ROOT else ()
    if root != CAMERA_ROOT and root not in names:
        raise FormatError(f"root: the order {clip.conventions.order} has no joint {root!r}")

    def change(hand: ClipHand, _: ClipFrame) -> ClipHand:
        if hand.points is None and hand.vertices is None:
            return hand
        if root == CAMERA_ROOT:
            if hand.root_at is None:
                raise FormatError(f"root is {now}, and where it is before the camera is not known")
            at, root_at = -hand.root_at, None
        else:
            at = hand.need("points")[names.index(root)]
            if np.isnan(at).any():
                raise FormatError(f"root: the joint {root} is missing")
            absolute = hand.root_at is not None or now == CAMERA_ROOT
            root_at = at + (0 if hand.root_at is None else hand.root_at) if absolute else None
        return replace(
            hand,
            points=None if hand.points is None else hand.points - at,
            vertices=None if hand.vertices is None else hand.vertices - at,
            root_at=root_at,
        )

    return clip.map(change, conventions=replace(clip.conventions, root=root))


def _turned(clip: Clip, factors: dict[str, np.ndarray], conventions: Conventions) -> Clip:
    def change(hand: ClipHand, _: ClipFrame) -> ClipHand:
        turned = {
            name: getattr(hand, name) * factor
            for name, factor in factors.items()
            if getattr(hand, name) is not None
        }
        return replace(hand, **turned)

    return clip.map(change, conventions=conventions)


def _with_rotations(clip: Clip, turn: Callable[[np.ndarray], np.ndarray]) -> Clip:
    """The clip with its pose's matrices changed, written as before."""
    now = clip.conventions
    kind, zero = now.need("rotation"), now.zero or "flat"

    def change(hand: ClipHand, _: ClipFrame) -> ClipHand:
        if hand.rotations is None:
            return hand
        model = hand_model(now, hand.side) if kind == "pca" or zero == "mean" else None
        matrices = to_matrices(kind, hand.rotations, zero, model)
        turned = turn(matrices)
        vectors = axis_angles_of(turned)
        written, _lost = from_axis_angles(kind, vectors, zero, model, now.components or 45)
        return replace(hand, rotations=written)

    return clip.map(change)


class PoseLoss(NamedTuple):
    """What fewer principal poses than 45 lose, at the worst of all hands."""

    radians: float
    mm: float


def to_rotation(
    clip: Clip, kind: str, zero: str = "flat", components: int = 45
) -> tuple[Clip, PoseLoss | None]:
    """The pose written as `kind`, about the flat or the mean hand, and what is lost (pca of less than 45)."""
    now = clip.conventions
    old, old_zero = now.need("rotation"), now.need("zero")
    components = components if kind == "pca" else 45
    if (old, old_zero) == (kind, zero) and (kind != "pca" or (now.components or 45) == components):
        return clip, None
    worst = [0.0, 0.0]

    def change(hand: ClipHand, _: ClipFrame) -> ClipHand:
        if hand.rotations is None:
            return hand
        needs_model = "pca" in (old, kind) or "mean" in (old_zero, zero)
        model = hand_model(now, hand.need("side")) if needs_model else None
        vectors = axis_angles(old, hand.rotations, old_zero, model)
        written, lost = from_axis_angles(kind, vectors, zero, model, components)
        if kind == "pca" and components < 45 and model is not None:
            back = axis_angles("pca", written, zero, model)
            layer = hand_layer(model)
            shape = np.zeros(10) if hand.shape is None else hand.shape
            apart = joints_of(layer, shape, vectors) - joints_of(layer, shape, back)
            worst[0] = max(worst[0], lost.radians)
            worst[1] = max(worst[1], float(np.linalg.norm(apart, axis=1).max()))
        return replace(hand, rotations=written)

    stated = replace(now, rotation=kind, zero=zero, components=components if kind == "pca" else None)
    changed = clip.map(change, conventions=stated)
    return changed, PoseLoss(*worst) if kind == "pca" and components < 45 else None


# The hand model ------------------------------------------------------------------------------------------

_models: dict[str, HandModel] = {}


def use_model(model: HandModel) -> str:
    """Make a user's hand model known under its name; returns the name."""
    _models[model.name] = model
    return model.name


def hand_model(conventions: Conventions, side: Side | None) -> HandModel:
    """The hand model of a clip for hands of this side. Raises FormatError where it is not known."""
    name = conventions.hand_model or "open_hand"
    if name == "open_hand":
        model = _open_hand()
    elif name in _models:
        model = _models[name]
    else:
        raise FormatError(f"hand_model is {name}: give its file with --hand-model")
    return model if side in (None, model.side) else _mirrored(model)


@lru_cache(maxsize=1)
def _open_hand() -> HandModel:
    return load_open_hand()


@lru_cache(maxsize=8)
def _mirrored(model: HandModel) -> HandModel:
    return model.mirrored()


@lru_cache(maxsize=8)
def hand_layer(model: HandModel) -> HandLayer:
    """The model's layer in float64, for hands of the model's side."""
    return HandLayer(model, side=model.side, dtype=torch.float64)


def joints_of(
    layer: HandLayer, shape: Float[np.ndarray, " 10"], vectors: Float[np.ndarray, "16 3"]
) -> Float[np.ndarray, "21 3"]:
    """The model's joints, mm, canonical order, about their wrist."""
    with torch.no_grad():
        joints = layer.joints(
            torch.from_numpy(np.array(shape, np.float64)), torch.from_numpy(np.array(vectors).reshape(48))
        ).numpy()
    return np.asarray(joints - joints[0])


def placed(joints: Float[np.ndarray, "n 3"], points: Float[np.ndarray, "n 3"]) -> Float[np.ndarray, " 3"]:
    """The shift that brings joints nearest to points, in the sense of least squares; NaN is not counted."""
    return np.asarray(np.nanmean(points - joints, axis=0))


class Motion(NamedTuple):
    """One hand through time as a chain of bones: what BVH files and animated glTF files hold.

    Axes of the camera (x right, y down, z forward), millimetres. Joint j of frame t is at
    P[j] = P[parent] + G[parent] @ offset[j], where G[j] = G[parent] @ rotations[t, j] and offset = rest[j] -
    rest[parent]; fingertips have no rotation.
    """

    side: Side
    track: int | None
    indices: tuple[int, ...]
    """Frames of the clip."""
    rest: Float[np.ndarray, "21 3"]
    rotations: Float[np.ndarray, "t 21 3 3"]
    wrist: Float[np.ndarray, "t 3"]
    shape: Float[np.ndarray, " 10"]
    worst_mm: float
    """How far the chain's joints are from those of the clip, at most; 0 where it has none."""

    @property
    def joints(self) -> Float[np.ndarray, "t 21 3"]:
        """Where the chain puts the joints."""
        return chain(self.rest, self.rotations, self.wrist)


def chain(
    rest: Float[np.ndarray, "21 3"],
    rotations: Float[np.ndarray, "t 21 3 3"],
    wrist: Float[np.ndarray, "t 3"],
) -> Float[np.ndarray, "t 21 3"]:
    """Forward kinematics of rigid bones, as `Motion` describes it."""
    joints, turns = np.empty((len(wrist), 21, 3)), np.empty((len(wrist), 21, 3, 3))
    for joint, parent in enumerate(PARENTS):
        if parent < 0:
            joints[:, joint], turns[:, joint] = wrist, rotations[:, joint]
        else:
            joints[:, joint] = joints[:, parent] + turns[:, parent] @ (rest[joint] - rest[parent])
            turns[:, joint] = turns[:, parent] @ rotations[:, joint]
    return joints


def with_pose(clip: Clip) -> tuple[Clip, dict[str, float] | None]:
    """The clip with poses fitted to the joints of those hands that have none, and how well they fit.

    One shape for all hands of a track (or of a side, where there are no tracks). Needs canonical joints in
    mm and the camera's axes. A pose is held near rest where joints do not tell it (twist).
    """
    groups: dict[tuple[Side, int | None], list[ClipHand]] = {}
    for hand in clip.hands:
        if hand.rotations is None:
            points = hand.need("points")
            if np.isnan(points).all(axis=1).sum() > 13:
                raise FormatError("pose: fewer than 8 joints are known, too few to fit the hand model to")
            groups.setdefault((hand.need("side"), hand.track), []).append(hand)
    if not groups:
        return clip, None
    fitted: dict[int, ClipHand] = {}
    errors: list[np.ndarray] = []
    for (side, _), hands in groups.items():
        layer = hand_layer(hand_model(clip.conventions, side))
        joints = np.stack([hand.points for hand in hands if hand.points is not None])
        given = [hand.shape for hand in hands if hand.shape is not None]
        shape = np.mean(given, axis=0) if given else None
        try:
            if shape is None:
                priors = {"shape_prior": 30.0, "pose_prior": 30.0}
                shape = fit(layer, joints_mm=joints, free_shape=True, **priors).shape.mean(axis=0)  # type: ignore[arg-type]
            found = fit(layer, joints_mm=joints, shape=shape, pose_prior=1.0)
        except InputError as error:
            raise FormatError(f"pose: {error}") from error
        errors.append(np.linalg.norm(found.joints_mm - joints, axis=2).ravel())
        for hand, pose in zip(hands, found.pose, strict=True):
            fitted[id(hand)] = replace(hand, rotations=pose.reshape(16, 3), shape=shape)
    away = np.concatenate(errors)
    figures = {"mean_mm": float(np.nanmean(away)), "max_mm": float(np.nanmax(away)), "hands": len(fitted)}
    stated = replace(
        clip.conventions,
        rotation="axis_angle",
        zero="flat",
        components=None,
        hand_model=clip.conventions.hand_model or "open_hand",
    )
    changed = clip.map(lambda hand, _: fitted.get(id(hand), hand), conventions=stated)
    return changed.noted(
        f"pose fitted to the joints, which lie {figures['mean_mm']:.2f} mm from it in the mean, "
        f"{figures['max_mm']:.2f} mm at most"
    ), figures


def motions(clip: Clip) -> list[Motion]:
    """Every track of a clip as a chain of bones. Needs poses, canonical joints, mm and the camera's axes."""
    groups: dict[tuple[Side, int | None], list[tuple[int, ClipHand]]] = {}
    for frame in clip.frames:
        for hand in frame.hands:
            groups.setdefault((hand.need("side"), hand.track), []).append((frame.index, hand))
    found = []
    for (side, track), rows in groups.items():
        indices = tuple(index for index, _ in rows)
        if len(set(indices)) < len(indices):
            raise FormatError(f"track is missing: frame {indices[0]} has several {side} hands")
        layer = hand_layer(hand_model(clip.conventions, side))
        shapes = [np.zeros(10) if hand.shape is None else hand.shape for _, hand in rows]
        shape = np.mean(shapes, axis=0)
        rest = joints_of(layer, shape, np.zeros((16, 3)))
        rotations = np.tile(np.eye(3), (len(rows), 21, 1, 1))
        wrist = np.zeros((len(rows), 3))
        for t, (_, hand) in enumerate(rows):
            rotations[t, MODEL_JOINTS] = rotations_of(hand.need("rotations").reshape(16, 3))
            if hand.points is not None:
                wrist[t] = placed(chain(rest, rotations[t : t + 1], np.zeros((1, 3)))[0], hand.points)
            elif clip.conventions.root == CAMERA_ROOT:
                raise FormatError("points is missing: where the wrist is, is not known")
        joints = chain(rest, rotations, wrist)
        away = [
            np.linalg.norm(joints[t] - hand.points, axis=1)
            for t, (_, hand) in enumerate(rows)
            if hand.points is not None
        ]
        worst = float(np.nanmax(np.stack(away))) if away else 0.0
        found.append(Motion(side, track, indices, rest, rotations, wrist, shape, worst))
    return found
