"""Parquet: one row a hand, for tables of millions of hands. Needs `pip install handgraph[tables]`.

Arrays are flat lists, joint by joint (u0, v0, u1, v1, …), so that every Parquet reader can take them. What
holds for a whole file stands in the schema's metadata, what differs between hands in columns. Images without
a hand have no row; the metadata keeps them. Numbers are float32 and come back exactly.
"""

import json
import math
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from handgraph.errors import FormatError, InputError, MissingExtraError
from handgraph.files import atomic_write
from handgraph.formats.clip import ARRAYS as CLIP_ARRAYS
from handgraph.formats.clip import Clip
from handgraph.formats.converted import FORMAT as CONVERTED
from handgraph.formats.converted import (
    check_stated,
    clip_from_header,
    clip_from_predictions,
    frame_record,
    header_of,
    own_document,
)
from handgraph.formats.document import from_document, to_document
from handgraph.formats.predictions import ROOT, UNITS, ImageHands, Predictions, need, place
from handgraph.hand import ORDER, Hand
from handgraph.skeleton import JOINT_NAMES

# The arrays of a Hand, with the width of their rows.
ARRAYS = {
    "keypoints_px": 2,
    "box_px": 1,
    "joints_mm": 3,
    "vertices_mm": 3,
    "pose": 1,
    "shape": 1,
    "confidence": 1,
}
MAX_BYTES = 8 * 2**30
TEXTS = ("file", "side", "frame", "order", "root", "units")
CAMERA = ("fx", "fy", "cx", "cy")


def write_parquet(path: str | Path, predictions: Predictions) -> None:
    """Write one row a hand, whole or not at all.

    Raises MissingExtraError without pyarrow and InputError where the file cannot be written.
    """
    pa, pq = _pyarrow()
    schema = pa.schema(
        [("image", pa.int64())]
        + [(name, pa.string()) for name in TEXTS]
        + [("score", pa.float64())]
        + [(name, pa.list_(pa.float32())) for name in ARRAYS]
        + [(name, pa.float64()) for name in CAMERA],
        metadata={"handgraph": json.dumps(_metadata(predictions))},
    )
    units = "; ".join(f"{name}: {unit}" for name, unit in UNITS.items())
    rows = []
    for index, image in enumerate(predictions.images):
        for hand in image.hands:
            row = {"image": index, "file": image.file, "side": hand.side, "score": float(hand.score)}
            row |= {"frame": hand.frame, "order": hand.order, "root": ROOT, "units": units}
            for name in ARRAYS:
                array = getattr(hand, name)
                row[name] = None if array is None else array.ravel()
            row |= {name: getattr(hand.camera, name, None) for name in CAMERA}
            rows.append(row)
    table = pa.Table.from_pylist(rows, schema=schema)
    with atomic_write(path) as part:
        pq.write_table(table, part, compression="zstd")


def _metadata(predictions: Predictions) -> dict[str, Any]:
    hands = [hand for image in predictions.images for hand in image.hands]
    cameras = {hand.camera for hand in hands}
    camera = cameras.pop() if len(cameras) == 1 else None
    return {
        "model": predictions.model,
        "units": UNITS,
        "order": ORDER,
        "joint_names": JOINT_NAMES,
        "root": ROOT,
        "frames": sorted({hand.frame for hand in hands}),
        "sides": sorted({hand.side for hand in hands}),
        "camera": "in the columns fx, fy, cx, cy"
        if camera is None
        else {name: getattr(camera, name) for name in CAMERA},
        "images": len(predictions.images),
        "sizes_px": {str(i): image.size_px for i, image in enumerate(predictions.images) if image.size_px},
        "images_without_hands": [
            {"image": i, "file": image.file, "error": image.error}
            for i, image in enumerate(predictions.images)
            if not image.hands
        ],
    }


def read_parquet(path: str | Path) -> Predictions:
    """Read what `write_parquet` wrote.

    Raises MissingExtraError without pyarrow, InputError where the file cannot be read, FormatError where it
    is cut short or damaged, where a column is missing or of another type, or a hand is not valid.
    """
    table, meta = _read(path)
    if meta.get("format") == CONVERTED:
        with place(str(path)):
            return from_document(own_document(_clip(table, meta)))
    with place(str(path)):
        return _predictions(table, meta)


def _read(path: str | Path) -> tuple[Any, dict[str, Any]]:
    """The table of a Parquet file and what its metadata says under "handgraph"."""
    pa, pq = _pyarrow()
    try:
        file = pq.ParquetFile(pa.BufferReader(Path(path).read_bytes()))
        groups = [file.metadata.row_group(index) for index in range(file.metadata.num_row_groups)]
        if sum(group.total_byte_size for group in groups) > MAX_BYTES:
            raise FormatError(f"{path}: holds more than {MAX_BYTES:,} bytes")
        table = file.read()
        meta = json.loads((table.schema.metadata or {}).get(b"handgraph", b"null"))
    except pa.ArrowException as error:
        raise FormatError(f"{path}: not a whole Parquet file ({_first_line(error)})") from error
    except OSError as error:
        if error.errno is None:  # Arrow reports damaged pages as a plain OSError
            raise FormatError(f"{path}: not a whole Parquet file ({_first_line(error)})") from error
        raise InputError(f"{path}: cannot be read ({error.strerror})") from error
    except ValueError as error:
        raise FormatError(f"{path}: the metadata 'handgraph' is not JSON ({error})") from error
    with place(str(path)):
        if not isinstance(meta, dict):
            raise FormatError("the schema's metadata lacks 'handgraph', so units and joint order are unknown")
    return table, meta


def _predictions(table: Any, meta: dict[str, Any]) -> Predictions:
    expectations = {"units": UNITS, "order": ORDER, "joint_names": list(JOINT_NAMES), "root": ROOT}
    for key, expected in expectations.items():
        if meta.get(key) != expected:
            raise FormatError(f"{key!r} is {meta.get(key)!r}, this handgraph reads {expected!r}")
    for name in ("image", *TEXTS, "score", *ARRAYS, *CAMERA):
        if name not in table.column_names:
            raise FormatError(f"the column {name!r} is missing")
    sizes = {int(index): (w, h) for index, (w, h) in need(meta, "sizes_px", dict).items()}
    images: dict[int, ImageHands] = {}
    for record in need(meta, "images_without_hands", list):
        index = need(record, "image", int)
        images[index] = ImageHands(need(record, "file", str), (), sizes.get(index), record.get("error"))
    for number, row in enumerate(table.to_pylist()):
        with place(f"row {number}"):
            index, file = need(row, "image", int), need(row, "file", str)
            before = images.get(index, ImageHands(file))
            images[index] = ImageHands(file, (*before.hands, _hand(row)), sizes.get(index))
    if sorted(images) != list(range(need(meta, "images", int))):
        raise FormatError(f"{meta['images']} images are announced, {len(images)} are there")
    return Predictions(need(meta, "model", str), tuple(images[index] for index in sorted(images)))


def _hand(row: dict[str, Any]) -> Hand:
    record = {name: need(row, name, str) for name in ("side", "frame", "order")}
    record |= {"score": need(row, "score", float), "joint_names": JOINT_NAMES}
    for name, width in ARRAYS.items():
        values = row[name]
        if values is not None and width > 1:
            if not isinstance(values, list) or len(values) % width:
                raise FormatError(f"{name!r} is not a flat list of groups of {width}")
            values = [values[start : start + width] for start in range(0, len(values), width)]
        record[name] = values
    camera = {name: row[name] for name in CAMERA}
    if any(value is not None for value in camera.values()):
        record["camera"] = camera
    return Hand.from_dict(record)


# Clips in any convention, float64 --------------------------------------------------------------------------


def write_clip_parquet(path: str | Path, clip: Clip) -> None:
    """Write one row a hand of a clip in any convention; float64, so that nothing is rounded.

    Raises MissingExtraError without pyarrow, FormatError where the clip does not state what it holds,
    InputError where the file cannot be written.
    """
    pa, pq = _pyarrow()
    check_stated(clip)
    rows = []
    for frame in clip.frames:
        for hand in frame.hands:
            record: dict[str, Any] = {
                "frame": frame.index,
                "track": hand.track,
                "side": hand.side,
                "score": hand.score,
            }
            for name in CLIP_ARRAYS:
                value = getattr(hand, name)
                record[name] = None if value is None else plain_list(value)
            record |= {name: getattr(hand.camera, name, None) for name in CAMERA}
            rows.append(record)
    about = header_of(clip) | {"frames": [frame_record(replace(frame, hands=())) for frame in clip.frames]}
    schema = pa.schema(
        [("frame", pa.int64()), ("track", pa.int64()), ("side", pa.string()), ("score", pa.float64())]
        + [(name, pa.list_(pa.float64())) for name in CLIP_ARRAYS]
        + [(name, pa.float64()) for name in CAMERA],
        metadata={"handgraph": json.dumps(about, allow_nan=False)},
    )
    table = pa.Table.from_pylist(rows, schema=schema)
    with atomic_write(path) as part:
        pq.write_table(table, part, compression="zstd")


def plain_list(array: np.ndarray) -> list[float | None]:
    """All numbers of an array one after the other; None for those that are not there."""
    return [None if math.isnan(value) else value for value in array.ravel().tolist()]


def read_clip_parquet(path: str | Path) -> Clip:
    """Read what `write_clip_parquet` or `write_parquet` wrote. Raises as `read_parquet`."""
    table, meta = _read(path)
    with place(str(path)):
        if meta.get("format") != CONVERTED:
            return clip_from_predictions(to_document(_predictions(table, meta)))
        return _clip(table, meta)


def _clip(table: Any, meta: dict[str, Any]) -> Clip:
    frames = need(meta, "frames", list)
    hands: dict[int, list[dict[str, Any]]] = {}
    for name in ("frame", "track", "side", "score", *CLIP_ARRAYS, *CAMERA):
        if name not in table.column_names:
            raise FormatError(f"the column {name!r} is missing")
    for number, row in enumerate(table.to_pylist()):
        with place(f"row {number}"):
            record = {name: row[name] for name in ("track", "side", "score")}
            for name, width in CLIP_ARRAYS.items():
                if row[name] is not None:
                    record[name] = _grid(name, row[name], width, need(meta, "conventions", dict))
            if row["fx"] is not None:
                record["camera"] = {name: row[name] for name in CAMERA}
            hands.setdefault(need(row, "frame", int), []).append(record)
    rows = []
    for number, frame in enumerate(frames):
        with place(f"frame {number}"):
            rows.append((number, frame | {"hands": hands.pop(need(frame, "index", int), [])}))
    if hands:
        raise FormatError(f"frame {min(hands)} is in a row, but not among the frames of the metadata")
    return clip_from_header(meta, rows)


def _grid(name: str, values: Any, width: int, says: dict[str, Any]) -> Any:
    if not isinstance(values, list) or any(isinstance(v, float) and math.isnan(v) for v in values):
        raise FormatError(f"{name!r} is not a list of numbers")
    if width < 0:  # a rotation's numbers
        width = len(values) // 16 if says.get("rotation") != "pca" and len(values) % 16 == 0 else 0
    if not width:
        return values
    if len(values) % width:
        raise FormatError(f"{name!r} is not a flat list of groups of {width}")
    return [values[start : start + width] for start in range(0, len(values), width)]


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0]


def _pyarrow() -> tuple[ModuleType, ModuleType]:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise MissingExtraError("Parquet files need pyarrow: pip install handgraph[tables]") from error
    return pyarrow, pyarrow.parquet
