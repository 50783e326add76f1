"""CSV that says what it holds: one row a hand, names and units in the header, conventions in columns.

A joint that is not there is an empty cell. `wrist_x_mm` is a coordinate and its unit, `wrist_u_px` a pixel;
`order`, `axes`, `root`, `rotation`, `zero` and `hand_model` say in every row what the numbers mean. A table
from elsewhere is read if its columns are named so, or `x0, y0, z0, x1 …`, or `wrist_x`; what such a header
leaves open must be said.
"""

import csv
import io
import re
from pathlib import Path
from typing import Any

import numpy as np

from handgraph.camera import PinholeCamera
from handgraph.errors import FormatError
from handgraph.files import atomic_write
from handgraph.formats.clip import ORDERS, UNITS_OF_LENGTH, Clip, ClipFrame, ClipHand, Conventions, hand_of
from handgraph.formats.converted import check_stated, plain, read_text
from handgraph.formats.joint_names import canonical_name, order_of
from handgraph.formats.predictions import place

TEXTS = ("order", "unit", "axes", "root", "rotation", "zero", "components", "hand_model", "note")
CAMERA = ("fx", "fy", "cx", "cy")
BOX = ("box_x_px", "box_y_px", "box_width_px", "box_height_px")
MAX_CELL = 10_000
_COORDINATE = re.compile(r"(?P<joint>.+?)_(?P<axis>[xyz])(?:_(?P<unit>mm|cm|m|px|hand))?")
_NUMBERED = re.compile(
    r"(?P<axis>[xyzuv])_?(?P<joint>\d+)|(?:joint|point)?_?(?P<joint2>\d+)_(?P<axis2>[xyzuv])"
)


def write_csv(path: str | Path, clip: Clip) -> None:
    """Write the table, whole or not at all. Vertices have no place in it. Raises FormatError, InputError."""
    check_stated(clip)
    says = clip.conventions
    names = [] if says.order is None else says.joints.names
    columns = ["index", "file", "time_s", "width_px", "height_px", "error", "track", "side", "score", "model"]
    columns += ["fps", *TEXTS, *CAMERA, *BOX]
    widths = {name: 0 for name in ("rotations", "shape")}
    for one in clip.hands:
        for name in widths:
            value = getattr(one, name)
            widths[name] = max(widths[name], 0 if value is None else value.size)
    units = ("px", "px", "mm") if says.unit == "px" else (says.unit,) * 3
    groups: dict[str, list[str]] = {
        "points_px": [f"{name}_{axis}_px" for name in names for axis in "uv"],
        "points": [
            f"{name}_{axis}_{unit}" for name in names for axis, unit in zip("xyz", units, strict=True)
        ],
        "root_at": [f"root_at_{axis}_{says.unit}" for axis in "xyz"],
        "confidence": [f"{name}_confidence" for name in names],
        "rotations": [f"pose_{index}" for index in range(widths["rotations"])],
        "shape": [f"shape_{index}" for index in range(widths["shape"])],
    }
    groups = {name: titles for name, titles in groups.items() if clip.has(name)}
    columns += [title for titles in groups.values() for title in titles]
    text = io.StringIO()
    table = csv.DictWriter(text, columns, restval="", lineterminator="\n")
    table.writeheader()
    for frame in clip.frames:
        size = frame.size_px or ("", "")
        about = {"index": frame.index, "file": frame.file, "time_s": frame.time_s, "error": frame.error}
        about |= {"width_px": size[0], "height_px": size[1], "model": clip.model, "fps": clip.fps}
        about |= {name: getattr(says, name) for name in TEXTS}
        hands: tuple[ClipHand | None, ...] = frame.hands or (None,)
        for hand in hands:
            row: dict[str, Any] = dict(about)
            if hand is not None:
                row |= {"track": hand.track, "side": hand.side, "score": hand.score}
                row |= {name: getattr(hand.camera, name, None) for name in CAMERA}
                for name, titles in (*groups.items(), ("box_px", BOX)):
                    value = getattr(hand, name)
                    if value is not None:
                        numbers = np.array(plain(value.ravel()), dtype=object)
                        row |= dict(zip(titles, numbers.tolist(), strict=True))
            table.writerow({key: "" if value is None else value for key, value in row.items()})
    with atomic_write(path) as part:
        part.write_text(text.getvalue(), encoding="utf-8")


def read_csv(path: str | Path, said: Conventions) -> Clip:
    """Read a table. `said` states what its header and columns leave open. Raises InputError, FormatError."""
    content = read_text(path)
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise FormatError(f"{path}: not UTF-8 text ({error.reason} at byte {error.start})") from error
    with place(str(path)):
        try:
            rows = list(csv.reader(io.StringIO(text, newline=""), strict=True))
        except csv.Error as error:
            raise FormatError(f"not a CSV table ({error})") from error
        if len(rows) < 1 or not any(rows[0]):
            raise FormatError("the table is empty, expected a header")
        return _clip([name.strip() for name in rows[0]], rows[1:], said)


def _clip(columns: list[str], rows: list[list[str]], said: Conventions) -> Clip:
    twice = {name for name in columns if columns.count(name) > 1} if len(columns) < 2000 else set()
    if twice:
        raise FormatError(f"the column {sorted(twice)[0]!r} is there twice")
    where = {name: index for index, name in enumerate(columns)}
    for number, row in enumerate(rows, start=2):
        if len(row) != len(columns):
            raise FormatError(f"row {number} has {len(row)} cells, the header {len(columns)}")
    stated: dict[str, Any] = {}
    for name in TEXTS:
        said_there = {row[where[name]] for row in rows} - {""} if name in where else set()
        if len(said_there) > 1:
            raise FormatError(f"the column {name!r} has several values: convert them apart")
        if said_there:
            stated[name] = said_there.pop()
    if "components" in stated:
        stated["components"] = int(_number("components", stated["components"]))
    points, pixels, unit, order = _joints(columns)
    if unit is not None and "unit" not in stated:
        stated["unit"] = unit
    if order is not None and "order" not in stated and said.order is None:
        stated["order"] = order
    says = Conventions(**stated).stated(said)
    names: tuple[str, ...] = ()
    if points or pixels:
        names = ORDERS[says.need("order")].names
        for kind, found in (("x, y, z", points), ("u, v", pixels)):
            if found and set(found) - set(names) and not all(name.isdigit() for name in found):
                wrong = sorted(set(found) - set(names))[0]
                raise FormatError(f"the joint {wrong!r} is none of the order {says.order} ({kind})")
            if found and all(name.isdigit() for name in found) and len(found) != len(names):
                raise FormatError(f"{len(found)} joints are there, the order {says.order} has {len(names)}")
    if not points and not pixels and "index" not in where:
        raise FormatError("no column is a joint's, expected such as wrist_x_mm, wrist_u_px, x0")
    if points:
        for name in ("unit", "axes", "root"):
            says.need(name)
    pose = _run(columns, "pose")
    if pose:
        for name in ("rotation", "zero", "hand_model"):
            says.need(name)
    groups: dict[str, Any] = {
        "points_px": _cells(pixels, names, where, "uv"),
        "points": _cells(points, names, where, "xyz"),
        "confidence": [where.get(f"{name}_confidence", -1) for name in names],
    }
    root_at = [name for name in columns if re.fullmatch(r"root_at_[xyz]_\w+", name)]
    lists = {"rotations": pose, "shape": _run(columns, "shape"), "box_px": list(BOX), "root_at": root_at}
    frames: dict[int, ClipFrame] = {}
    models, rates = set(), set()
    for number, row in enumerate(rows):
        with place(f"row {number + 2}"):

            def cell(name: str, row: list[str] = row) -> str | None:
                return (row[where[name]] or None) if name in where else None

            index = int(_number("index", cell("index") or str(number)))
            models.add(cell("model"))
            rates.add(cell("fps"))
            values: dict[str, Any] = {}
            for name, places in groups.items():
                if any(place_ >= 0 and row[place_] for place_ in np.ravel(places)):
                    cells = [row[place_] if place_ >= 0 else "" for place_ in np.ravel(places)]
                    array = np.array([_number(name, text) if text else np.nan for text in cells])
                    values[name] = array.reshape(np.shape(places))
            for name, titles in lists.items():
                cells = [row[where[title]] for title in titles if title in where]
                if cells and all(cells):
                    values[name] = np.array([_number(name, text) for text in cells])
                elif any(cells):
                    raise FormatError(f"{name} is there in part only")
            hand = None
            if values:
                camera = [cell(name) for name in CAMERA]
                known = None
                if any(camera):
                    numbers = (_number(name, str(text)) for name, text in zip(CAMERA, camera, strict=True))
                    known = PinholeCamera(*numbers)
                stated_hand: dict[str, Any] = {"side": cell("side"), "camera": known}
                score, track = cell("score"), cell("track")
                stated_hand["score"] = None if score is None else _number("score", score)
                stated_hand["track"] = None if track is None else int(_number("track", track))
                hand = hand_of(stated_hand | _shaped(values, says))
            before = frames.get(index)
            if before is None:
                size = [cell("width_px"), cell("height_px")]
                before = ClipFrame(
                    index,
                    (),
                    cell("file"),
                    None if cell("time_s") is None else _number("time_s", str(cell("time_s"))),
                    (int(_number("width_px", str(size[0]))), int(_number("height_px", str(size[1]))))
                    if all(size)
                    else None,
                    cell("error"),
                )
            frames[index] = ClipFrame(
                index,
                before.hands if hand is None else (*before.hands, hand),
                before.file,
                before.time_s,
                before.size_px,
                before.error,
            )
    model, fps = models.pop() if len(models) == 1 else None, rates.pop() if len(rates) == 1 else None
    return Clip(
        says, tuple(frames.values()), model or "unknown", None if fps is None else _number("fps", fps)
    )


def _shaped(values: dict[str, Any], says: Conventions) -> dict[str, Any]:
    rotations = values.get("rotations")
    if rotations is not None and says.rotation != "pca" and rotations.size % 16 == 0:
        values["rotations"] = rotations.reshape(16, -1)
    return values


def _joints(columns: list[str]) -> tuple[dict[str, dict[str, str]], dict[str, dict[str, str]], Any, Any]:
    """Columns of 3D and 2D joints, {joint: {axis: column}}; their unit and order, where names tell them."""
    points: dict[str, dict[str, str]] = {}
    pixels: dict[str, dict[str, str]] = {}
    units = set()
    for column in columns:
        if column.startswith(("box_", "root_at_")):
            continue
        numbered = _NUMBERED.fullmatch(column)
        if numbered:
            joint, axis = numbered["joint"] or numbered["joint2"], numbered["axis"] or numbered["axis2"]
            (pixels if axis in "uv" else points).setdefault(joint, {})[axis] = column
            continue
        pixel = re.fullmatch(r"(.+)_([uv])(_px)?", column)
        if pixel:
            pixels.setdefault(_known(pixel[1]), {})[pixel[2]] = column
            continue
        named = _COORDINATE.fullmatch(column)
        if named:
            points.setdefault(_known(named["joint"]), {})[named["axis"]] = column
            units.add(named["unit"])
    for found, axes in ((points, "xyz"), (pixels, "uv")):
        for joint, columns_of in found.items():
            if set(columns_of) != set(axes):
                raise FormatError(
                    f"the joint {joint!r} has the columns {', '.join(columns_of.values())} only"
                )
    unit = None
    if units == {"px", "mm"}:
        unit = "px"
    elif len(units) == 1:
        unit = units.pop()
    elif len(units) > 1:
        raise FormatError(f"the columns have several units: {', '.join(sorted(map(str, units)))}")
    if unit is not None and unit not in (*UNITS_OF_LENGTH, "px", "hand"):
        raise FormatError(f"unit is {unit!r}")
    names = list(points or pixels)
    return points, pixels, unit, order_of(names)


def _known(joint: str) -> str:
    return canonical_name(joint) if joint not in _OWN_NAMES else joint


_OWN_NAMES = {name for order in ORDERS.values() for name in order.names}


def _cells(
    found: dict[str, dict[str, str]], names: tuple[str, ...], where: dict[str, int], axes: str
) -> list[list[int]]:
    if not found:
        return []
    if all(name.isdigit() for name in found):
        numbers = sorted(map(int, found))
        if numbers not in (list(range(len(names))), list(range(1, len(names) + 1))):
            raise FormatError("the joints are numbered with gaps, expected 0, 1, 2 …")
        return [[where[found[str(number)][axis]] for axis in axes] for number in numbers]
    return [[where[found[name][axis]] if name in found else -1 for axis in axes] for name in names]


def _run(columns: list[str], name: str) -> list[str]:
    count = sum(bool(re.fullmatch(rf"{name}_\d+", column)) for column in columns)
    titles = [f"{name}_{index}" for index in range(count)]
    if set(titles) - set(columns):
        raise FormatError(f"the columns {name}_0, {name}_1 … have a gap")
    return titles


def _number(name: str, text: str) -> float:
    try:
        value = float(text) if len(text) < MAX_CELL else np.nan
    except ValueError:
        raise FormatError(f"{name}: {text[:30]!r} is not a number") from None
    if not abs(value) < 1e300:
        raise FormatError(f"{name}: {text[:30]!r} is not a finite number")
    return value
