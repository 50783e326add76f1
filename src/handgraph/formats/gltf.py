"""glTF 2.0: meshes, and hands that move as a skin over a chain of bones.

The standard fixes metres and y up, z towards the viewer. A moving hand is a mesh bound to 16 joints named as
handgraph names them (fingertips are nodes without skin), with one animation for all hands. The skin has no
pose-dependent corrections, which glTF does not know; how much that changes is measured by who writes it.
`asset.extras` says what the file holds. Own reader and writer: no other package is needed.
"""

import base64
import binascii
import json
import math
import struct
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import roma
import torch
from jaxtyping import Float, Int

from handgraph.conventions import MODEL_JOINTS, OPENGL_FROM_OPENCV, Motion, chain
from handgraph.errors import FormatError
from handgraph.files import atomic_write
from handgraph.formats.clip import Clip, ClipFrame, ClipHand, Conventions
from handgraph.formats.converted import conventions_from, parse, read_text
from handgraph.formats.joint_names import canonical_name
from handgraph.formats.predictions import need, place
from handgraph.hand import Side
from handgraph.skeleton import JOINT_NAMES, PARENTS

METRES = 1e-3
_COMPONENTS = {5120: "i1", 5121: "u1", 5122: "<i2", 5123: "<u2", 5125: "<u4", 5126: "<f4"}
_WIDTHS = {"SCALAR": 1, "VEC2": 2, "VEC3": 3, "VEC4": 4, "MAT4": 16}
_GLB, _JSON, _BIN = 0x46546C67, 0x4E4F534A, 0x004E4942
_SKIN_SETS = 2
"""Sets of four weights a vertex."""


class Surface(NamedTuple):
    """A mesh at rest about its wrist, mm, and how it hangs at the hand model's 16 joints."""

    vertices: Float[np.ndarray, "v 3"]
    faces: Int[np.ndarray, "f 3"]
    weights: Float[np.ndarray, "v 16"]


class _Builder:
    """The JSON of a file and its one buffer."""

    def __init__(self) -> None:
        self.document: dict[str, Any] = {"asset": {"version": "2.0", "generator": "handgraph"}}
        self.data = bytearray()

    def add(self, key: str, value: dict[str, Any]) -> int:
        self.document.setdefault(key, []).append(value)
        return len(self.document[key]) - 1

    def accessor(self, array: np.ndarray, kind: str, component: int, target: int | None = None) -> int:
        self.data.extend(b"\0" * (-len(self.data) % 4))
        content = np.ascontiguousarray(array, _COMPONENTS[component])
        view = {"buffer": 0, "byteOffset": len(self.data), "byteLength": content.nbytes}
        if target is not None:
            view["target"] = target
        self.data.extend(content.tobytes())
        flat = content.reshape(len(content), -1)
        return self.add(
            "accessors",
            {
                "bufferView": self.add("bufferViews", view),
                "componentType": component,
                "count": len(content),
                "type": kind,
                "min": flat.min(0).tolist(),
                "max": flat.max(0).tolist(),
            },
        )

    def primitive(self, vertices: np.ndarray, faces: np.ndarray) -> dict[str, Any]:
        attributes = {
            "POSITION": self.accessor(vertices, "VEC3", 5126, 34962),
            "NORMAL": self.accessor(_normals(vertices, faces), "VEC3", 5126, 34962),
        }
        return {"attributes": attributes, "indices": self.accessor(faces.ravel(), "SCALAR", 5125, 34963)}

    def write(self, path: Path, about: dict[str, Any]) -> None:
        self.document["asset"]["extras"] = {"handgraph": about}
        self.document["scene"] = 0
        self.data.extend(b"\0" * (-len(self.data) % 4))
        buffer: dict[str, Any] = {"byteLength": len(self.data)}
        if path.suffix.lower() == ".gltf":
            buffer["uri"] = "data:application/octet-stream;base64," + base64.b64encode(self.data).decode()
        self.document["buffers"] = [buffer]
        text = json.dumps(self.document, allow_nan=False).encode()
        if path.suffix.lower() != ".gltf":
            text += b" " * (-len(text) % 4)
            size = 12 + 8 + len(text) + 8 + len(self.data)
            text = b"".join(
                [
                    struct.pack("<III", _GLB, 2, size),
                    struct.pack("<II", len(text), _JSON),
                    text,
                    struct.pack("<II", len(self.data), _BIN),
                    bytes(self.data),
                ]
            )
        with atomic_write(path) as part:
            part.write_bytes(text)


def _normals(vertices: np.ndarray, faces: np.ndarray) -> np.ndarray:
    corners = vertices[faces]
    flat = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    normals = np.zeros_like(vertices)
    for corner in range(3):
        np.add.at(normals, faces[:, corner], flat)
    lengths = np.linalg.norm(normals, axis=1, keepdims=True)
    return np.where(lengths > 0, normals / np.maximum(lengths, 1e-30), [0.0, 0.0, 1.0])


def write_meshes(
    path: str | Path, meshes: Sequence[tuple[str, np.ndarray, np.ndarray]], about: dict[str, Any]
) -> None:
    """Write still meshes (name, vertices in metres with y up, faces). Raises InputError."""
    builder = _Builder()
    nodes = []
    for name, vertices, faces in meshes:
        mesh = builder.add("meshes", {"name": name, "primitives": [builder.primitive(vertices, faces)]})
        nodes.append(builder.add("nodes", {"name": name, "mesh": mesh}))
    builder.add("scenes", {"nodes": nodes})
    builder.write(Path(path), about)


def write_motions(
    path: str | Path,
    motions: Sequence[Motion],
    surfaces: Sequence[Surface],
    times_s: Sequence[Float[np.ndarray, " t"]],
    about: dict[str, Any],
) -> None:
    """Write moving hands: bones, skins and one animation. Raises InputError."""
    builder = _Builder()
    roots, samplers, channels = [], [], []
    turn = np.diag(OPENGL_FROM_OPENCV)
    for number, (motion, surface, times) in enumerate(zip(motions, surfaces, times_s, strict=True)):
        first = len(builder.document.get("nodes", []))
        rotations = motion.rotations.copy()
        rotations[:, 0] = turn @ rotations[:, 0]
        quaternions = _continuous(rotations)
        places = motion.wrist @ turn.T * METRES
        for joint, parent in enumerate(PARENTS):
            offset = places[0] if parent < 0 else (motion.rest[joint] - motion.rest[parent]) * METRES
            node: dict[str, Any] = {"name": f"{motion.side}_{JOINT_NAMES[joint]}"}
            node |= {"translation": offset.tolist(), "rotation": quaternions[0, joint].tolist()}
            children = [first + child for child, up in enumerate(PARENTS) if up == joint]
            builder.add("nodes", node | ({"children": children} if children else {}))
        if len(times) > 1:
            clock = builder.accessor(times, "SCALAR", 5126)
            tracks = [("translation", 0, places, "VEC3")]
            tracks += [("rotation", joint, quaternions[:, joint], "VEC4") for joint in MODEL_JOINTS]
            for kind, joint, values, shape in tracks:
                samplers.append(
                    {
                        "input": clock,
                        "output": builder.accessor(values, shape, 5126),
                        "interpolation": "LINEAR",
                    }
                )
                target = {"node": first + joint, "path": kind}
                channels.append({"sampler": len(samplers) - 1, "target": target})
        inverse = np.tile(np.eye(4), (16, 1, 1))
        inverse[:, 3, :3] = -motion.rest[list(MODEL_JOINTS)] * METRES  # column-major: the last row here
        skin = builder.add(
            "skins",
            {
                "name": f"{motion.side}_hand",
                "joints": [first + joint for joint in MODEL_JOINTS],
                "skeleton": first,
                "inverseBindMatrices": builder.accessor(inverse.reshape(16, 16), "MAT4", 5126),
            },
        )
        primitive = builder.primitive(surface.vertices * METRES, surface.faces)
        for index, (joints, weights) in enumerate(_skin_sets(surface.weights)):
            primitive["attributes"][f"JOINTS_{index}"] = builder.accessor(joints, "VEC4", 5121, 34962)
            primitive["attributes"][f"WEIGHTS_{index}"] = builder.accessor(weights, "VEC4", 5126, 34962)
        name = f"hand_{number}_{motion.side}"
        mesh = builder.add("meshes", {"name": name, "primitives": [primitive]})
        roots += [first, builder.add("nodes", {"name": name, "mesh": mesh, "skin": skin})]
    if channels:
        builder.add("animations", {"name": "hands", "samplers": samplers, "channels": channels})
    builder.add("scenes", {"nodes": roots})
    builder.write(Path(path), about)


def _continuous(rotations: Float[np.ndarray, "t 21 3 3"]) -> Float[np.ndarray, "t 21 4"]:
    """Quaternions x, y, z, w without jumps of sign, between which a viewer would turn the long way round."""
    quaternions = np.asarray(roma.rotmat_to_unitquat(torch.from_numpy(rotations)).numpy())
    for t in range(1, len(quaternions)):
        away = (quaternions[t] * quaternions[t - 1]).sum(-1, keepdims=True) < 0
        quaternions[t] = np.where(away, -quaternions[t], quaternions[t])
    return quaternions


def _skin_sets(weights: Float[np.ndarray, "v 16"]) -> list[tuple[np.ndarray, np.ndarray]]:
    """The strongest weights of every vertex in sets of four, their sum one."""
    sets = 1 if ((weights > 1e-6).sum(1) <= 4).all() else _SKIN_SETS
    order = np.argsort(-weights, axis=1, kind="stable")[:, : 4 * sets]
    kept = np.take_along_axis(weights, order, 1)
    kept /= kept.sum(1, keepdims=True)
    order = np.where(kept > 0, order, 0)  # the standard wants joint 0 where the weight is 0
    return [(order[:, 4 * i : 4 * i + 4], kept[:, 4 * i : 4 * i + 4]) for i in range(sets)]


def skinned(motion: Motion, surface: Surface, frames: Sequence[int]) -> Float[np.ndarray, "t v 3"]:
    """What a viewer shows of some frames: linear blend skinning, mm, the camera's axes."""
    turns = np.empty((len(frames), 21, 3, 3))
    joints = motion.joints[list(frames)]
    for joint, parent in enumerate(PARENTS):
        own = motion.rotations[list(frames), joint]
        turns[:, joint] = own if parent < 0 else turns[:, parent] @ own
    shown = np.zeros((len(frames), len(surface.vertices), 3))
    for number, joint in enumerate(MODEL_JOINTS):
        moved = (surface.vertices - motion.rest[joint]) @ turns[:, joint].transpose(0, 2, 1)
        shown += surface.weights[:, number, None] * (moved + joints[:, joint, None])
    return shown


# Reading -------------------------------------------------------------------------------------------------


def read_gltf(path: str | Path, said: Conventions) -> Clip:
    """Hands of a file whose nodes carry the names of hand joints, or the meshes of one without.

    A moving hand gives joints and the turns of its bones at every key of its animation; its skin is not read.
    Joints are metres with y up, as glTF says. Raises InputError, FormatError.
    """
    path = Path(path)
    content = read_text(path)
    with place(str(path)):
        document, data = _opened(content, path)
        try:
            return _Scene(document, data).clip(said)
        except (KeyError, IndexError, TypeError, ValueError, AttributeError, RecursionError) as error:
            what = f"{type(error).__name__}: {error}".splitlines()[0][:100]
            raise FormatError(f"not a whole glTF scene ({what})") from error


def _opened(content: bytes, path: Path) -> tuple[dict[str, Any], bytes]:
    data = b""
    if content[:4] == struct.pack("<I", _GLB):
        if len(content) < 20:
            raise FormatError("the file is cut short")
        _, version, size = struct.unpack_from("<III", content)
        if version != 2 or size != len(content):
            raise FormatError(f"glTF {version} of {size} bytes, expected glTF 2 of {len(content)} bytes")
        chunks: dict[int, bytes] = {}
        at = 12
        while at + 8 <= len(content):
            length, kind = struct.unpack_from("<II", content, at)
            if at + 8 + length > len(content):
                raise FormatError("a chunk is cut short")
            chunks.setdefault(kind, content[at + 8 : at + 8 + length])
            at += 8 + length
        content, data = chunks.get(_JSON, b""), chunks.get(_BIN, b"")
    document = parse(content, "its JSON")
    if not isinstance(document, dict) or not isinstance(document.get("asset"), dict):
        raise FormatError("no glTF: the key 'asset' is missing")
    if str(document["asset"].get("version")) != "2.0":
        raise FormatError(f"glTF {str(document['asset'].get('version'))[:20]}, expected 2.0")
    buffers = document.get("buffers", [])
    if buffers and "uri" in buffers[0]:
        kind, _, text = str(buffers[0]["uri"]).partition(",")
        if not (kind.startswith("data:") and kind.endswith(";base64")):
            raise FormatError("its buffer is another file, expected one file that holds all")
        try:
            data = base64.b64decode(text, validate=True)
        except (binascii.Error, ValueError) as error:
            raise FormatError(f"its buffer is not base64 ({error})") from error
    return document, data


class _Scene:
    def __init__(self, document: dict[str, Any], data: bytes) -> None:
        self.document, self.data = document, data
        self.nodes = need(document, "nodes", list)

    def array(self, number: int) -> np.ndarray:
        accessor = self.document["accessors"][number]
        view = self.document["bufferViews"][accessor["bufferView"]]
        kind, width = _COMPONENTS[accessor["componentType"]], _WIDTHS[accessor["type"]]
        count, start = accessor["count"], view.get("byteOffset", 0) + accessor.get("byteOffset", 0)
        size = np.dtype(kind).itemsize * width
        if view.get("byteStride", size) != size or min(count, start) < 0:
            raise FormatError("an accessor has gaps between its elements, which is not read here")
        if start + count * size > len(self.data):
            raise FormatError("an accessor reaches beyond the buffer: the file is cut short")
        found = np.frombuffer(self.data, kind, count * width, start).reshape(count, width)
        if not np.isfinite(found.astype(np.float64)).all():
            raise FormatError("an accessor holds a number that is not finite")
        return found.astype(np.float64 if kind == "<f4" else np.int64)

    def clip(self, said: Conventions) -> Clip:
        about = (self.document["asset"].get("extras") or {}).get("handgraph") or {}
        told = {"root": about.get("root"), "hand_model": about.get("hand_model")}
        stated = conventions_from({"unit": "m", "axes": "opengl", **told})
        fps, model = about.get("fps"), str(about.get("model", "unknown"))
        roots = [n for n, node in enumerate(self.nodes) if _joint(node) == 0]
        if not roots:
            return self._meshes(stated.stated(said), model)
        stated = Conventions(order="openpose", rotation="matrix", zero="flat").stated(stated).stated(said)
        if stated.hand_model is None:  # bones of another hand say nothing as a pose of ours
            stated = Conventions(
                order="openpose", unit="m", axes="opengl", root=stated.root
            ).stated(said)  # fmt: skip
        stated.need("root")
        keys: dict[float, list[ClipHand]] = {}
        tracks = about.get("tracks") or []
        for number, root in enumerate(roots):
            track = tracks[number] if number < len(tracks) and type(tracks[number]) is int else None
            for time_s, hand in self._moving(root, track, stated.rotation is not None):
                keys.setdefault(time_s, []).append(hand)
        known = fps if isinstance(fps, int | float) and math.isfinite(fps) and 0 < fps < 1e6 else None
        frames = []
        for count, time_s in enumerate(sorted(keys)):
            index = round(time_s * known) if known else count
            frames.append(ClipFrame(index, tuple(keys[time_s]), time_s=time_s))
        return Clip(stated, tuple(frames), model, known)

    def _meshes(self, stated: Conventions, model: str) -> Clip:
        stated.need("root")
        hands = []
        for node in self.nodes:
            if "mesh" not in node:
                continue
            if any(key in node for key in ("matrix", "translation", "rotation", "scale")):
                raise FormatError("a mesh is moved by its node, expected vertices where they are")
            (primitive,) = self.document["meshes"][node["mesh"]]["primitives"]
            name = str(node.get("name", "")).lower()
            sides: list[Side] = [side for side in ("left", "right") if side in name]
            side = sides[0] if len(sides) == 1 else None
            hands.append(ClipHand(side=side, vertices=self.array(primitive["attributes"]["POSITION"])))
        if not hands:
            raise FormatError("neither joints of a hand nor meshes are in the file")
        return Clip(stated, (ClipFrame(0, tuple(hands)),), model)

    def _moving(self, root: int, track: int | None, posed: bool) -> list[tuple[float, ClipHand]]:
        node_of = {0: root}
        for joint, parent in enumerate(PARENTS):
            if parent < 0:
                continue
            below = self.nodes[node_of[parent]].get("children", [])
            found = [child for child in below if child >= 0 and _joint(self.nodes[child]) == joint]
            if len(found) != 1:
                raise FormatError(f"{JOINT_NAMES[joint]} is missing below {JOINT_NAMES[parent]}")
            node_of[joint] = found[0]
        joint_of = {node: joint for joint, node in node_of.items()}
        offsets = np.array([self._trs(node_of[joint], "translation", 3) for joint in range(21)])
        turns = np.array([self._trs(node_of[joint], "rotation", 4) for joint in range(21)])
        times = np.zeros(1)
        moves: dict[tuple[int, str], np.ndarray] = {}
        for animation in self.document.get("animations", []):
            for channel in animation["channels"]:
                target = channel["target"]
                if target.get("node") not in joint_of:
                    continue
                sampler = animation["samplers"][channel["sampler"]]
                clock = self.array(sampler["input"])[:, 0]
                if moves and (len(clock) != len(times) or np.abs(clock - times).max() > 1e-6):
                    raise FormatError("the joints of one hand have keys at different times")
                if len(clock) < 1 or (np.diff(clock) <= 0).any():
                    raise FormatError("the keys of an animation do not rise in time")
                values = self.array(sampler["output"])
                if sampler.get("interpolation", "LINEAR") == "CUBICSPLINE" or len(values) != len(clock):
                    raise FormatError("an animation has tangents, or not one value a key")
                times = clock
                moves[joint_of[target["node"]], target["path"]] = values
        count = len(times)
        quaternions, wrist = np.tile(turns, (count, 1, 1)), np.tile(offsets[0], (count, 1))
        for (joint, path), values in moves.items():
            if path == "rotation":
                quaternions[:, joint] = values
            elif path == "translation" and joint == 0:
                wrist = values
            else:
                raise FormatError(
                    f"the animation changes the {path} of {JOINT_NAMES[joint]}, only turns are read"
                )
        lengths = np.linalg.norm(quaternions, axis=-1, keepdims=True)
        if np.abs(lengths - 1).max() > 1e-3:
            raise FormatError("a rotation is no unit quaternion")
        matrices = roma.unitquat_to_rotmat(torch.from_numpy(quaternions / lengths)).numpy()
        rest = np.zeros((21, 3))
        for joint, parent in enumerate(PARENTS):
            if parent >= 0:
                rest[joint] = rest[parent] + offsets[joint]
        joints = chain(rest, matrices, wrist)
        name = str(self.nodes[root].get("name", "")).lower()
        side: Side | None = "left" if "left" in name else "right" if "right" in name else None
        pose = matrices[:, MODEL_JOINTS].reshape(count, 16, 9)
        return [
            (
                float(times[t]),
                ClipHand(side=side, track=track, points=joints[t], rotations=pose[t] if posed else None),
            )
            for t in range(count)
        ]

    def _trs(self, node: int, key: str, width: int) -> list[float]:
        value = self.nodes[node].get(key, [0.0, 0.0, 0.0, 1.0] if width == 4 else [0.0, 0.0, 0.0])
        if "matrix" in self.nodes[node] or self.nodes[node].get("scale", [1, 1, 1]) != [1, 1, 1]:
            raise FormatError("a joint has a matrix or a scale, expected translation and rotation")
        if len(value) != width or not all(abs(float(number)) < 1e9 for number in value):
            raise FormatError(f"the {key} of a node is not {width} finite numbers")
        return [float(number) for number in value]


def _joint(node: Any) -> int | None:
    name = canonical_name(str(node.get("name", "")))
    return JOINT_NAMES.index(name) if name in JOINT_NAMES and "mesh" not in node else None
