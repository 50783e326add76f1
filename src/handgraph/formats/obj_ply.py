"""OBJ and PLY: the mesh of one moment as text, with a comment that says unit, axes, root and side."""

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from handgraph.errors import FormatError
from handgraph.files import atomic_write
from handgraph.formats.clip import Clip, ClipFrame, Conventions, hand_of
from handgraph.formats.converted import conventions_from, parse, read_text
from handgraph.formats.predictions import place
from handgraph.hand import Side

MARK = "handgraph "
_ABOUT = ("unit", "axes", "root", "hand_model")
_MOST = 20_000_000  # vertices or faces


def write_text_mesh(
    path: str | Path, hands: Sequence[tuple[Side, np.ndarray, np.ndarray]], says: Conventions
) -> None:
    """Write meshes (side, vertices, faces) as `.obj` or `.ply`. Raises FormatError, InputError."""
    path = Path(path)
    for name in ("unit", "axes", "root"):
        says.need(name)
    about: dict[str, Any] = {name: getattr(says, name) for name in _ABOUT}
    about["hands"] = [{"side": side, "vertices": len(vertices)} for side, vertices, _ in hands]
    comment = MARK + json.dumps(about)
    lines = []
    first = 0
    if path.suffix.lower() == ".obj":
        lines.append(f"# {comment}")
        for number, (side, vertices, faces) in enumerate(hands):
            lines.append(f"o hand_{number}_{side}")
            lines += [f"v {x:.10g} {y:.10g} {z:.10g}" for x, y, z in vertices.tolist()]
            lines += [f"f {a} {b} {c}" for a, b, c in (faces + first + 1).tolist()]
            first += len(vertices)
    else:
        corners = sum(len(vertices) for _, vertices, _ in hands)
        lines += ["ply", "format ascii 1.0", f"comment {comment}", f"element vertex {corners}"]
        lines += [f"property double {axis}" for axis in "xyz"]
        lines += [f"element face {sum(len(faces) for _, _, faces in hands)}"]
        lines += ["property list uchar int vertex_indices", "end_header"]
        for _, vertices, _ in hands:
            lines += [f"{x:.10g} {y:.10g} {z:.10g}" for x, y, z in vertices.tolist()]
        for _, vertices, faces in hands:
            lines += [f"3 {a} {b} {c}" for a, b, c in (faces + first).tolist()]
            first += len(vertices)
    with atomic_write(path) as part:
        part.write_text("\n".join(lines) + "\n", encoding="utf-8")


def read_text_mesh(path: str | Path, said: Conventions) -> Clip:
    """The vertices of an `.obj` or a text `.ply`. What its comment does not state, `said` must.

    Raises InputError, FormatError.
    """
    path = Path(path)
    content = read_text(path)
    with place(str(path)):
        try:
            lines = content.decode("utf-8").splitlines()
        except UnicodeDecodeError as error:
            raise FormatError(f"not a text file ({error.reason}); binary files are not read") from error
        about: dict[str, Any] = {}
        for line in lines[:20]:
            _, found, text = line.partition(MARK)
            if found and line.startswith(("#", "comment")):
                about = parse(text, "its comment")
        if not isinstance(about, dict) or not isinstance(about.get("hands", []), list):
            raise FormatError("its comment is not what handgraph writes")
        vertices = _obj(lines) if path.suffix.lower() == ".obj" else _ply(lines)
        says = conventions_from({name: about.get(name) for name in _ABOUT}).stated(said)
        for name in ("unit", "axes", "root"):
            says.need(name)
        parts: list[Any] = about.get("hands") or [{"side": None, "vertices": len(vertices)}]
        hands, first = [], 0
        for part in parts:
            if not isinstance(part, dict) or type(part.get("vertices")) is not int or part["vertices"] < 1:
                raise FormatError("its comment is not what handgraph writes")
            last = first + part["vertices"]
            hands.append(hand_of({"side": part.get("side"), "vertices": vertices[first:last]}))
            first = last
        if first != len(vertices):
            raise FormatError(f"{len(vertices)} vertices are there, its comment says {first}")
        return Clip(says, (ClipFrame(0, tuple(hands)),))


def _obj(lines: list[str]) -> np.ndarray:
    rows = [line.split()[1:4] for line in lines if line.startswith("v ")]
    if not rows:
        raise FormatError("no vertex is in the file")
    return _numbers(rows)


def _ply(lines: list[str]) -> np.ndarray:
    if not lines or lines[0].strip() != "ply":
        raise FormatError("no PLY: the first line is not 'ply'")
    if len(lines) < 2 or lines[1].split() != ["format", "ascii", "1.0"]:
        raise FormatError("expected the format 'ascii 1.0', binary PLY files are not read")
    try:
        end = lines.index("end_header")
    except ValueError:
        raise FormatError("the header does not end") from None
    elements = [line.split() for line in lines[:end] if line.startswith("element")]
    counts = []
    for words in elements:
        if len(words) != 3 or not words[2].isdecimal() or len(words[2]) > 9:
            raise FormatError(f"the header's line {' '.join(words)[:40]!r} is not an element and its count")
        counts.append(int(words[2]))
    if not elements or elements[0][1] != "vertex":
        raise FormatError("the first element is not the vertex")
    properties = []
    for line in lines[:end][lines.index(" ".join(elements[0])) + 1 :]:
        if not line.startswith("property"):
            break
        properties.append(line.split()[-1])
    if properties[:3] != ["x", "y", "z"]:
        raise FormatError("the first properties of a vertex are not x, y, z")
    if len(lines) - end - 1 < sum(counts):
        raise FormatError(f"the file is cut short: {sum(counts)} lines are announced")
    return _numbers([line.split()[:3] for line in lines[end + 1 : end + 1 + counts[0]]])


def _numbers(rows: list[list[str]]) -> np.ndarray:
    if len(rows) > _MOST:
        raise FormatError(f"more than {_MOST:,} vertices")
    try:
        values = [[float(word) for word in row] for row in rows]
    except ValueError as error:
        raise FormatError(f"a vertex is not three numbers ({error})") from None
    if any(len(row) != 3 or not all(map(math.isfinite, row)) for row in values):
        raise FormatError("a vertex is not three finite numbers")
    return np.array(values)
