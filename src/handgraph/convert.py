"""From one file format and one set of conventions to another.

`convert` reads a file, brings what it holds into the conventions that are asked for, and writes it. Nothing
is guessed: what a file does not state must be said, what a format cannot hold is named in the result, and
what would be lost silently is refused.
"""

import argparse
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from handgraph import conventions as to
from handgraph.camera import PinholeCamera
from handgraph.errors import ConfigError, FormatError
from handgraph.formats.bvh import read_bvh, write_bvh
from handgraph.formats.clip import (
    AXES,
    CAMERA_ROOT,
    CANONICAL_ORDERS,
    HOW_TO_STATE,
    ORDERS,
    ROTATIONS,
    UNITS,
    ZEROS,
    Clip,
    ClipFrame,
    ClipHand,
    Conventions,
)
from handgraph.formats.coco import read_clip_coco, write_clip_coco
from handgraph.formats.converted import (
    read_clip_json,
    read_clip_lines,
    sniff,
    time_of,
    write_clip_json,
    write_clip_lines,
)
from handgraph.formats.csv_table import read_csv, write_csv
from handgraph.formats.gltf import Surface, read_gltf, skinned, write_meshes, write_motions
from handgraph.formats.obj_ply import read_text_mesh, write_text_mesh
from handgraph.formats.openpose import read_openpose, write_openpose
from handgraph.formats.parquet import read_clip_parquet, write_clip_parquet
from handgraph.hand import Side
from handgraph.hand_model import load_mano
from handgraph.meshes import faces_of
from handgraph.skeleton import JOINT_NAMES

SUFFIXES = {
    ".json": "json",
    ".jsonl": "jsonl",
    ".csv": "csv",
    ".parquet": "parquet",
    ".bvh": "bvh",
    ".glb": "gltf",
    ".gltf": "gltf",
    ".obj": "obj",
    ".ply": "ply",
}
FORMATS = (*dict.fromkeys(SUFFIXES.values()), "coco", "openpose")

READERS: dict[str, Callable[[Path, Conventions], Clip]] = {
    "json": lambda path, said: read_clip_json(path),
    "jsonl": lambda path, said: read_clip_lines(path),
    "parquet": lambda path, said: read_clip_parquet(path),
    "csv": read_csv,
    "coco": read_clip_coco,
    "openpose": read_openpose,
    "bvh": read_bvh,
    "gltf": read_gltf,
    "obj": read_text_mesh,
    "ply": read_text_mesh,
}
WRITERS: dict[str, Callable[[Path, Clip], None]] = {
    "json": write_clip_json,
    "jsonl": write_clip_lines,
    "parquet": write_clip_parquet,
    "csv": write_csv,
    "coco": write_clip_coco,
    "openpose": write_openpose,
}
LEFT_OUT = {
    "csv": ("vertices",),
    "openpose": ("vertices", "rotations", "shape", "box_px", "camera", "score", "root_at"),
    "bvh": ("vertices", "points_px", "confidence", "score", "box_px", "camera"),
    "gltf": ("points_px", "confidence", "score", "box_px", "camera"),
    "obj": ("points", "points_px", "confidence", "rotations", "shape", "score", "box_px", "camera"),
}
LEFT_OUT["ply"] = LEFT_OUT["obj"]
_LONGEST = 600
SKIN_FRAMES = 20
"""Frames on which the difference of a skin from the hand model is measured."""


@dataclass(frozen=True)
class Stated:
    """What the user says of the file that is read: all that it does not say itself."""

    conventions: Conventions = field(default_factory=Conventions)
    format: str | None = None
    side: Side | None = None
    camera: PinholeCamera | None = None
    size_px: tuple[int, int] | None = None
    fps: float | None = None


@dataclass(frozen=True)
class Wanted:
    """What is asked for; None keeps what is there.

    conventions  order, unit, axes, root, rotation, zero and components
    format       of the file; else its suffix says
    side         "left" or "right": mirror hands of the other side; "mirror": all hands
    frame        only this frame's hands
    track, only  only this track's, or this side's
    fit          fit the hand model where there is no pose
    hold         BVH: repeat the frame before where one is missing
    lossy        allow what loses more than rounding: few principal poses
    hand_length_mm  of a hand in hand lengths
    """

    conventions: Conventions = field(default_factory=Conventions)
    format: str | None = None
    side: str | None = None
    frame: int | None = None
    track: int | None = None
    only: Side | None = None
    fit: bool = False
    hold: bool = False
    lossy: bool = False
    hand_length_mm: float | None = None


def convert(
    source: str | Path, target: str | Path, stated: Stated | None = None, wanted: Wanted | None = None
) -> dict[str, Any]:
    """Read `source`, convert it, write `target`; returns what was done, as plain JSON.

    Raises InputError for files that cannot be read or written, FormatError for one that is not what it should
    be or does not state what is needed, ConfigError for what contradicts the file or cannot be.
    """
    stated, wanted, target = stated or Stated(), wanted or Wanted(), Path(target)
    read_as = stated.format or format_of(source, reading=True)
    write_as = wanted.format or format_of(target)
    before = read_clip(source, stated, read_as)
    clip, residual, lacks, without = convert_clip(before, wanted, write_as)
    clip, extra = _write(target, clip, wanted, write_as)
    left_out = [name for name in LEFT_OUT.get(write_as, ()) if clip.has(name)]
    if left_out:
        clip = clip.noted(f"{write_as} has no place for {', '.join(left_out)}")
    return {
        "in": str(source),
        "out": str(target),
        "from": {"format": read_as} | _shown(before.conventions),
        "to": {"format": write_as} | _shown(clip.conventions),
        "frames": len(clip.frames),
        "hands": len(clip.hands),
        "sides": sorted({str(hand.side) for hand in clip.hands}),
        "missing": lacks,
        "dropped": without,
        "residual": residual,
        **extra,
        "notes": list(clip.notes),
    }


def _shown(says: Conventions) -> dict[str, Any]:
    return {key: value for key, value in asdict(says).items() if value not in (None, "")}


def format_of(path: str | Path, *, reading: bool = False) -> str:
    """The format that a file's name, or for JSON its keys, tell. Raises ConfigError."""
    path = Path(path)
    if reading and path.is_dir():
        return "openpose"
    suffix = path.suffix.lower()
    if suffix not in SUFFIXES:
        flag = "--from" if reading else "--to"
        raise ConfigError(
            f"{path}: the suffix {suffix!r} tells no format, name it with {flag}: {', '.join(FORMATS)}"
        )
    return (sniff(path) or "json") if reading and suffix == ".json" else SUFFIXES[suffix]


def read_clip(source: str | Path, stated: Stated, read_as: str) -> Clip:
    """A file's hands, with what the user says of them. Raises as `convert`."""
    try:
        clip = READERS[read_as](Path(source), stated.conventions)
        clip = replace(clip, conventions=clip.conventions.stated(stated.conventions))
        clip = _with_stated(clip, stated)
        posed = clip.has("rotations") or clip.has("vertices")
        if posed and clip.conventions.hand_model is None and read_as in ("json", "jsonl", "parquet", "coco"):
            # A `Hand` does not say whose pose it has: what handgraph ships predicts the open hand's.
            return replace(clip, conventions=replace(clip.conventions, hand_model="open_hand"))
        return clip
    except (FormatError, ConfigError) as error:
        message = str(error) if str(source) in str(error) else f"{source}: {error}"
        if len(message) > _LONGEST:  # a damaged file's words are not worth more
            message = message[:_LONGEST] + " …"
        raise type(error)(message) from error


def _with_stated(clip: Clip, stated: Stated) -> Clip:
    def change(hand: ClipHand, _: ClipFrame) -> ClipHand:
        for name in ("side", "camera"):
            mine, theirs = getattr(hand, name), getattr(stated, name)
            if mine is not None and theirs is not None and mine != theirs:
                raise ConfigError(f"{name} is said to be {theirs}, but the file states {mine}")
        return replace(hand, side=hand.side or stated.side, camera=hand.camera or stated.camera)

    clip = clip.map(change)
    if stated.fps is not None:
        if clip.fps is not None and abs(clip.fps - stated.fps) > 1e-3 * stated.fps:
            raise ConfigError(f"fps is said to be {stated.fps:g}, but the file states {clip.fps:g}")
        clip = replace(clip, fps=stated.fps)
    if stated.size_px is not None:
        for frame in clip.frames:
            if frame.size_px not in (None, stated.size_px):
                raise ConfigError(f"size is said to be {stated.size_px}, the file states {frame.size_px}")
        frames = tuple(replace(frame, size_px=stated.size_px) for frame in clip.frames)
        clip = replace(clip, frames=frames)
    return clip


def convert_clip(
    clip: Clip, wanted: Wanted, write_as: str
) -> tuple[Clip, dict[str, Any] | None, dict[str, str], list[str]]:
    """The clip in other conventions, what that loses, the joints it lacks, and those that have no place.

    Raises FormatError naming what the clip does not state, ConfigError for what cannot be.
    """
    clip = _chosen(clip, wanted)
    want = _with_formats_own(wanted.conventions, clip, write_as)
    deep = clip.has("points") or clip.has("vertices")
    residual: dict[str, Any] = {}

    # A pose is turned, mirrored and fitted as plain axis-angles, and written last.
    pose = clip.conventions
    mirroring = _mirrors(clip, wanted)
    if clip.has("rotations"):
        new = (want.rotation or pose.rotation, want.zero or pose.zero, want.components or pose.components)
        same = new == (pose.rotation, pose.zero, pose.components)
        turned = want.axes not in (None, pose.axes) or mirroring or wanted.fit or write_as in _CHAINS
        if not same or turned:
            clip, _ = to.to_rotation(clip, "axis_angle")

    moved = deep or clip.has("rotations")
    if moved and clip.conventions.unit == "px" and _leaves_pixels(want):
        clip = to.to_unit(clip, "mm")
    if moved and wanted.hand_length_mm is not None:
        clip = to.to_unit(clip, "mm", wanted.hand_length_mm)
    needs_pose = wanted.fit or write_as in _CHAINS
    needs_mesh = write_as in ("obj", "ply", "gltf")
    if needs_pose or (needs_mesh and not all(hand.vertices is not None for hand in clip.hands)):
        clip, fitted = _posed(clip)
        if fitted is not None:
            residual["fit"] = fitted
    if mirroring:
        clip = to.mirrored(clip)
    if moved and want.axes is not None:
        clip = to.to_axes(clip, want.axes)

    source = clip.conventions.order
    root_later = False
    if deep and want.root is not None:
        root_later = want.root != CAMERA_ROOT and want.root not in to.meanings(clip.conventions.joints)
        if not root_later:
            clip = to.to_root(clip, want.root)
    lacks: dict[str, str] = {}
    without: list[str] = []
    if want.order is not None and (clip.has("points") or clip.has("points_px")):
        lacks = to.missing(clip.conventions.joints, ORDERS[want.order])
        without = to.dropped(clip.conventions.joints, ORDERS[want.order])
        clip = to.to_order(clip, want.order)
        note = ORDERS[want.order].note or ORDERS[str(source)].note
        if source not in CANONICAL_ORDERS or want.order not in CANONICAL_ORDERS:
            clip = clip.noted(*([f"{want.order}: {note}"] if note else []))
    if root_later and want.root is not None:
        clip = to.to_root(clip, want.root)
    if moved and want.unit is not None:
        clip = to.to_unit(clip, want.unit)

    if clip.has("rotations"):
        rotation = want.rotation or pose.rotation or "axis_angle"
        zero = want.zero or (pose.zero if pose.rotation is not None else None) or "flat"
        if want.zero is None and rotation not in ("axis_angle", "pca"):
            zero = "flat"
        count = want.components or (pose.components if want.rotation is None else None) or 45
        clip, lost = to.to_rotation(clip, rotation, zero, count)
        if lost is not None:
            residual["pca"] = {"components": count, "max_rad": lost.radians, "max_mm": lost.mm}
            if not wanted.lossy and lost.mm > LOSSLESS_MM:
                raise ConfigError(
                    f"pca={count} loses up to {lost.mm:.2f} mm ({lost.radians:.3f} rad): take 45 components, "
                    "or accept it with --lossy"
                )
    elif want.rotation is not None or want.zero is not None:
        raise FormatError("pose is missing: fit the hand model to the joints with --fit")
    return clip, residual or None, lacks, without


LOSSLESS_MM = 1e-5
_CHAINS = ("bvh",)


def _leaves_pixels(want: Conventions) -> bool:
    return want.unit not in (None, "px") or want.axes == "opengl" or want.root not in (None, CAMERA_ROOT)


def _with_formats_own(want: Conventions, clip: Clip, write_as: str) -> Conventions:
    """What is wanted and what the format itself demands."""
    own: dict[str, Any] = {}
    if want.unit == "px":
        own = {"axes": "opencv", "root": CAMERA_ROOT}
    if write_as == "openpose":
        own["order"] = "openpose"
    if write_as in ("gltf", "bvh"):
        # Both are written from the camera's axes in millimetres, by writers that turn them.
        if write_as == "gltf":
            for name, value in (("unit", "m"), ("axes", "opengl")):
                if getattr(want, name) not in (None, value):
                    raise ConfigError(f"{name}: glTF has {value}, found {getattr(want, name)}")
        own |= {"unit": "mm", "axes": "opencv", "order": "openpose", "rotation": "axis_angle", "zero": "flat"}
        if not clip.has("points") and not clip.has("points_px"):
            del own["order"]
        if write_as == "gltf" and not clip.has("rotations"):
            del own["rotation"], own["zero"]
        return replace(want, components=None, **own)
    for name, value in own.items():
        found = getattr(want, name)
        if found not in (None, value) and not {found, value} <= set(CANONICAL_ORDERS):
            raise ConfigError(
                f"{name} is {found}, which {write_as if name == 'order' else 'px'} does not have"
            )
    return replace(want, **own)


def _mirrors(clip: Clip, wanted: Wanted) -> bool:
    if wanted.side in (None, "mirror"):
        return wanted.side == "mirror"
    sides = {hand.need("side") for hand in clip.hands}
    if len(sides) > 1:
        raise ConfigError(f"--to {wanted.side}: the hands are of both sides, choose with --only")
    return bool(sides) and sides != {wanted.side}


def _chosen(clip: Clip, wanted: Wanted) -> Clip:
    """Only the frame, track and side that are asked for."""
    frames = clip.frames
    if wanted.frame is not None:
        frames = tuple(frame for frame in frames if frame.index == wanted.frame)
        if not frames:
            raise ConfigError(f"--frame {wanted.frame}: there is no such frame")

    def chosen(hand: ClipHand) -> bool:
        return (wanted.track is None or hand.track == wanted.track) and (
            wanted.only is None or hand.need("side") == wanted.only
        )

    kept = tuple(replace(f, hands=tuple(hand for hand in f.hands if chosen(hand))) for f in frames)
    found = replace(clip, frames=kept)
    if clip.hands and not found.hands and (wanted.track is not None or wanted.only is not None):
        raise ConfigError(f"no hand is of {'track ' + str(wanted.track) if wanted.track else wanted.only}")
    return found


def _posed(clip: Clip) -> tuple[Clip, dict[str, float] | None]:
    """The clip in mm and the camera's axes with a pose for every hand."""
    clip = to.to_axes(to.to_unit(clip, "mm"), "opencv")
    if clip.has("points"):
        fitted, figures = to.with_pose(to.to_order(clip, "openpose"))
    elif all(hand.rotations is not None for hand in clip.hands):
        return clip, None
    else:
        raise FormatError("points is missing: a pose is fitted to joints in three dimensions")
    found = iter(fitted.hands)

    def change(hand: ClipHand, _: ClipFrame) -> ClipHand:
        posed = next(found)
        return replace(hand, rotations=posed.rotations, shape=posed.shape)

    says = {
        name: getattr(fitted.conventions, name) for name in ("rotation", "zero", "components", "hand_model")
    }
    clip = clip.map(change, conventions=replace(clip.conventions, **says))
    return clip.noted(*fitted.notes), figures


# Writing bones and meshes ----------------------------------------------------------------------------------


def _write(target: Path, clip: Clip, wanted: Wanted, write_as: str) -> tuple[Clip, dict[str, Any]]:
    """Write the file; returns the clip as it is in the file, and more for the result."""
    if write_as == "bvh":
        return _write_bvh(target, clip, wanted)
    if write_as == "gltf":
        return _write_gltf(target, clip)
    if write_as in ("obj", "ply"):
        if target.suffix.lower() != f".{write_as}":
            raise ConfigError(f"{target}: expected the suffix .{write_as}")
        clip = _with_vertices(clip)
        hands = [(hand.need("side"), hand.need("vertices"), _faces(clip, hand)) for hand in _one_moment(clip)]
        write_text_mesh(target, hands, clip.conventions)
        return clip, {}
    WRITERS[write_as](target, clip)
    return clip, {}


def _write_bvh(target: Path, clip: Clip, wanted: Wanted) -> tuple[Clip, dict[str, Any]]:
    clip.conventions.need("root")
    motions = to.motions(clip)
    if len(motions) != 1:
        there = ", ".join(f"{motion.side} (track {motion.track})" for motion in motions) or "none"
        raise FormatError(f"a BVH file has one hand, here are {there}: choose with --track or --only")
    motion = motions[0]
    frames = {frame.index: frame for frame in clip.frames}
    gaps = [index for index in range(motion.indices[0], motion.indices[-1]) if index not in motion.indices]
    if gaps and not wanted.hold:
        raise FormatError(
            f"frame {gaps[0]} has no hand ({len(gaps)} such frames), and a BVH file has no gaps: repeat the "
            "frame before with --hold"
        )
    if gaps:
        where = np.searchsorted(motion.indices, range(motion.indices[0], motion.indices[-1] + 1), "right") - 1
        motion = motion._replace(
            indices=tuple(range(motion.indices[0], motion.indices[-1] + 1)),
            rotations=motion.rotations[where],
            wrist=motion.wrist[where],
        )
        clip = clip.noted(f"{len(gaps)} frames without a hand repeat the one before")
    count = len(motion.indices)
    frame_s = 1 / clip.fps if clip.fps else 0.0
    if not frame_s and count > 1:
        first, last = frames[motion.indices[0]], frames[motion.indices[-1]]
        frame_s = (time_of(clip, last) - time_of(clip, first)) / (count - 1)
        if frame_s <= 0:
            raise FormatError(f"fps is missing: {HOW_TO_STATE['fps']}")
    unit = wanted.conventions.unit or "mm"
    axes = wanted.conventions.axes or "opengl"
    if unit not in ("mm", "cm", "m"):
        raise ConfigError(f"unit: a BVH file has lengths, found {unit}")
    write_bvh(target, motion, unit=unit, axes=axes, frame_s=frame_s)
    if motion.worst_mm > LOSSLESS_MM:
        clip = clip.noted(f"the bones put joints up to {motion.worst_mm:.3g} mm from where they were")
    says = replace(clip.conventions, unit=unit, axes=axes, rotation=None, zero=None)
    figures = {"frame_s": frame_s, "bones_off_mm": motion.worst_mm, "angles": "ZXY, degrees, flat hand"}
    return replace(clip, conventions=says), figures


def _write_gltf(target: Path, clip: Clip) -> tuple[Clip, dict[str, Any]]:
    says = clip.conventions
    about = {"model": clip.model, "root": says.need("root"), "fps": clip.fps}
    about |= {"hand_model": says.hand_model, "sides": [str(hand.side) for hand in clip.hands][:2]}
    told = replace(says, unit="m", axes="opengl")
    if target.suffix.lower() not in (".glb", ".gltf"):
        raise ConfigError(f"{target}: expected the suffix .glb or .gltf")
    if sum(bool(frame.hands) for frame in clip.frames) <= 1:
        clip = _with_vertices(clip)
        meshes = []
        for number, hand in enumerate(_one_moment(clip)):
            vertices = hand.need("vertices") * to.OPENGL_FROM_OPENCV / 1000
            meshes.append((f"hand_{number}_{hand.need('side')}", vertices, _faces(clip, hand)))
        write_meshes(target, meshes, about)
        return replace(clip, conventions=told), {"animated": False}
    clip, fitted = _posed(clip)
    clip = to.to_order(clip, "openpose")
    motions = to.motions(clip)
    surfaces = [_surface(clip, motion) for motion in motions]
    frames = {frame.index: frame for frame in clip.frames}
    times = [np.array([time_of(clip, frames[index]) for index in motion.indices]) for motion in motions]
    about["tracks"] = [motion.track for motion in motions]
    about["hand_model"] = clip.conventions.hand_model
    write_motions(target, motions, surfaces, times, about)
    skin_off = max(_skin_off(clip, motion, part) for motion, part in zip(motions, surfaces, strict=True))
    worst = max(motion.worst_mm for motion in motions)
    clip = clip.noted(
        f"the skin lacks the model's pose-dependent corrections: it is up to {skin_off:.2g} mm from its mesh"
    )
    told = replace(clip.conventions, unit="m", axes="opengl")
    extra = {"animated": True, "skin_off_mm": skin_off, "bones_off_mm": worst}
    return replace(clip, conventions=told), extra | ({"fit": fitted} if fitted else {})


def _surface(clip: Clip, motion: to.Motion) -> Surface:
    model = to.hand_model(clip.conventions, motion.side)
    shaped = (model.v_template + model.shapedirs @ motion.shape) * 1000
    wrist = model.J_regressor[0] @ shaped
    return Surface(shaped - wrist, np.asarray(faces_of(model, motion.side)), np.array(model.weights))


def _skin_off(clip: Clip, motion: to.Motion, surface: Surface) -> float:
    layer = to.hand_layer(to.hand_model(clip.conventions, motion.side))
    count = len(motion.indices)
    frames = sorted(set(np.linspace(0, count - 1, min(count, SKIN_FRAMES)).astype(int).tolist()))
    with torch.no_grad():
        mesh = layer.from_rotations(
            torch.from_numpy(np.tile(motion.shape, (len(frames), 1))),
            torch.from_numpy(motion.rotations[frames][:, to.MODEL_JOINTS]),
        )
    exact = (mesh.vertices_mm - mesh.joints_mm[:, :1]).numpy() + motion.wrist[frames][:, None]
    return float(np.linalg.norm(skinned(motion, surface, frames) - exact, axis=-1).max())


def _one_moment(clip: Clip) -> Sequence[ClipHand]:
    frames = [frame for frame in clip.frames if frame.hands]
    if len(frames) != 1:
        raise FormatError(f"{len(frames)} frames have hands, and the file holds one: choose with --frame")
    return frames[0].hands


def _faces(clip: Clip, hand: ClipHand) -> np.ndarray:
    model = to.hand_model(clip.conventions, hand.need("side"))
    found, expected = len(hand.need("vertices")), len(model.v_template)
    if found != expected:
        raise FormatError(
            f"{found} vertices, the hand model {model.name} has {expected}: give theirs with --hand-model"
        )
    return np.asarray(faces_of(model, hand.need("side")))


def _with_vertices(clip: Clip) -> Clip:
    """The mesh of every hand that has a pose and no mesh, in the clip's own conventions."""
    if all(hand.vertices is not None for hand in clip.hands):
        return clip
    says = clip.conventions
    base = clip
    if says.rotation != "axis_angle" or says.zero != "flat":
        base, _ = to.to_rotation(base, "axis_angle")
    base = to.to_axes(to.to_unit(base, "mm"), "opencv")
    names = to.meanings(base.conventions.joints) if base.has("points") else ()
    there = [place for place, name in enumerate(names) if name in JOINT_NAMES]
    shared = [JOINT_NAMES.index(names[place]) for place in there]

    def change(hand: ClipHand, _: ClipFrame) -> ClipHand:
        if hand.vertices is not None:
            return hand
        layer = to.hand_layer(to.hand_model(says, hand.need("side")))
        shape = np.zeros(10) if hand.shape is None else hand.shape
        with torch.no_grad():
            mesh = layer(torch.from_numpy(shape), torch.from_numpy(hand.need("rotations").reshape(48).copy()))
        joints, shift = (mesh.joints_mm - mesh.joints_mm[0]).numpy(), np.zeros(3)
        if hand.points is not None:
            shift = to.placed(joints[shared], hand.points[there])
        return replace(hand, vertices=(mesh.vertices_mm - mesh.joints_mm[0]).numpy() + shift)

    made = base.map(change)
    return to.to_unit(to.to_axes(made, str(says.axes)), str(says.unit))


# The command -----------------------------------------------------------------------------------------------


def run(args: argparse.Namespace) -> tuple[dict[str, Any], str]:
    """`handgraph convert`: the result as plain JSON, and for people."""
    name = "open_hand"
    if args.hand_model is not None and args.hand_model != name:
        name = to.use_model(load_mano(args.hand_model))
    read_as, said, side, _ = _words(args.from_, "--from", _suffix_format(args.source))
    write_as, want, wanted_side, flags = _words(args.to, "--to", _suffix_format(args.target))
    for flag in ("order", "unit", "axes", "root", "rotation", "zero"):
        value = getattr(args, flag)
        if value is not None and getattr(said, flag) not in (None, value):
            raise ConfigError(f"--{flag} {value} and --from say different things")
        if value is not None:
            said = _conventions(said, flag, value, f"--{flag}")
    if args.hand_model is not None:
        said = replace(said, hand_model=name)
    stated = Stated(
        said,
        read_as,
        args.side or side,
        None if args.camera is None else PinholeCamera(*_numbers(args.camera, "camera", 4)),
        None if args.size is None else _size(args.size),
        args.fps,
    )
    wanted = Wanted(
        want,
        write_as,
        "mirror" if "mirror" in flags else wanted_side,
        args.frame,
        args.track,
        args.only,
        args.fit,
        args.hold,
        args.lossy,
        args.hand_length,
    )
    document = convert(args.source, args.target, stated, wanted)
    lines = [
        f"{args.target}: {document['hands']} hands in {document['frames']} frames, {_told(document['to'])}"
    ]
    lines += [f"missing {joint}: {why}" for joint, why in document["missing"].items()]
    if document["dropped"]:
        lines.append(f"no place for {', '.join(document['dropped'])}")
    return document, "\n".join([*lines, *document["notes"]])


def _told(says: dict[str, Any]) -> str:
    return ", ".join(f"{key} {value}" for key, value in says.items() if key != "note")


def _suffix_format(path: str) -> str | None:
    return SUFFIXES.get(Path(path).suffix.lower())


def _words(
    text: str | None, flag: str, by_suffix: str | None
) -> tuple[str | None, Conventions, Side | None, set[str]]:
    """`csv,rhd,m,opengl,root=wrist,pca=45,mean,left` as format, conventions, side and whatever else."""
    found: str | None = None
    says = Conventions()
    side: Side | None = None
    flags: set[str] = set()
    for word in (text or "").split(","):
        word = word.strip()
        key, _, value = word.partition("=")
        if not word:
            continue
        # "openpose" is a format and an order: the order where the format is known already.
        known = found is not None or by_suffix not in (None, "json")
        if word in FORMATS and not (known and word in ORDERS):
            if found is not None:
                raise ConfigError(f"{flag} {text}: two formats, {found} and {word}")
            found = word
        elif word in ORDERS:
            says = _conventions(says, "order", word, flag)
        elif word in UNITS:
            says = _conventions(says, "unit", word, flag)
        elif word in AXES:
            says = _conventions(says, "axes", word, flag)
        elif key == "root" and value:
            says = _conventions(says, "root", value, flag)
        elif word in ("absolute", "relative"):
            root = CAMERA_ROOT if word == "absolute" else "wrist"
            says = _conventions(says, "root", root, flag)
        elif key == "pca" and (not value or value.isdecimal()):
            says = _conventions(says, "rotation", "pca", flag)
            says = _conventions(says, "components", int(value or 45), flag)
        elif word in ROTATIONS:
            says = _conventions(says, "rotation", word, flag)
        elif word in ZEROS:
            says = _conventions(says, "zero", word, flag)
        elif word in ("left", "right"):
            side = word  # type: ignore[assignment]
        elif word == "mirror" and flag == "--to":
            flags.add(word)
        else:
            raise ConfigError(
                f"{flag} {word}: expected a format ({', '.join(FORMATS)}), a joint order, unit, axes, "
                "root=JOINT, absolute, relative, a rotation, pca=N, flat, mean, left or right"
            )
    return found, says, side, flags


def _conventions(says: Conventions, name: str, value: Any, flag: str) -> Conventions:
    found = getattr(says, name)
    if found not in (None, value):
        raise ConfigError(f"{flag}: {found} and {value} are both a {name}")
    try:
        return replace(says, **{name: value})
    except FormatError as error:
        raise ConfigError(f"{flag}: {error}") from error


def _numbers(text: str, name: str, count: int) -> list[float]:
    try:
        numbers = [float(part) for part in text.split(",")]
    except ValueError:
        numbers = []
    if len(numbers) != count:
        raise ConfigError(f"--{name} {text}: expected {count} numbers with commas between them")
    return numbers


def _size(text: str) -> tuple[int, int]:
    width, height = _numbers(text, "size", 2)
    if not (width.is_integer() and height.is_integer() and min(width, height) > 0):
        raise ConfigError(f"--size {text}: expected width,height in whole pixels")
    return int(width), int(height)
