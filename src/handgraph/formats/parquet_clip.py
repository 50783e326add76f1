"""Parquet of a clip: the columns of `parquet`, with frame, time and track; written some frames at a time.

`read_parquet` reads it as it reads any other, and `image` counts the clip's frames.
"""

import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict
from itertools import islice
from pathlib import Path
from typing import Any

from handgraph.files import atomic_write
from handgraph.formats.lines import ClipHeader, FrameHands
from handgraph.formats.parquet import ARRAYS, CAMERA, TEXTS, _pyarrow
from handgraph.formats.predictions import ROOT, UNITS
from handgraph.hand import ORDER
from handgraph.skeleton import JOINT_NAMES

_FRAMES_A_GROUP = 2_000


def write_parquet_clip(
    path: str | Path, header: ClipHeader, frames: Callable[[], Iterable[FrameHands]]
) -> None:
    """Write one row a hand, whole or not at all. `frames` is called twice, each time from the first one.

    Raises MissingExtraError without pyarrow, InputError where the file cannot be written, and what `frames`
    raises.
    """
    pa, pq = _pyarrow()
    schema = pa.schema(
        [("image", pa.int64()), ("index", pa.int64()), ("time_s", pa.float64()), ("track", pa.int64())]
        + [(name, pa.string()) for name in TEXTS]
        + [("score", pa.float64())]
        + [(name, pa.list_(pa.float32())) for name in ARRAYS]
        + [(name, pa.float64()) for name in CAMERA],
        metadata={"handgraph": json.dumps(_metadata(header, frames()))},
    )
    rows = _rows(header, frames())
    with atomic_write(path) as part, pq.ParquetWriter(part, schema, compression="zstd") as writer:
        while group := list(islice(rows, _FRAMES_A_GROUP)):
            writer.write_table(pa.Table.from_pylist(group, schema=schema))


def _rows(header: ClipHeader, frames: Iterable[FrameHands]) -> Iterator[dict[str, Any]]:
    units = "; ".join(f"{name}: {unit}" for name, unit in UNITS.items())
    for image, frame in enumerate(frames):
        file = frame.file or header.source or ""
        for hand, track in zip(frame.hands, frame.tracks, strict=True):
            row: dict[str, Any] = {"image": image, "index": frame.index, "time_s": frame.time_s}
            row["track"] = track
            row |= {"file": file, "side": hand.side, "score": float(hand.score)}
            row |= {"frame": hand.frame, "order": hand.order, "root": ROOT, "units": units}
            for name in ARRAYS:
                array = getattr(hand, name)
                row[name] = None if array is None else array.ravel()
            yield row | {name: getattr(hand.camera, name, None) for name in CAMERA}


def _metadata(header: ClipHeader, frames: Iterable[FrameHands]) -> dict[str, Any]:
    """What `parquet` states about images, and the clip's own."""
    count = 0
    without: list[dict[str, Any]] = []
    stated: dict[str, set[str]] = {"frames": set(), "sides": set()}
    sizes = {}
    for count, frame in enumerate(frames, start=1):
        if not frame.hands:
            file = frame.file or header.source or ""
            without.append({"image": count - 1, "file": file, "error": frame.error})
        if frame.size_px is not None:
            sizes[str(count - 1)] = frame.size_px
        for hand in frame.hands:
            stated["frames"].add(hand.frame)
            stated["sides"].add(hand.side)
    return {
        "model": header.model,
        "units": UNITS,
        "order": ORDER,
        "joint_names": JOINT_NAMES,
        "root": ROOT,
        **{name: sorted(values) for name, values in stated.items()},
        "camera": "in the columns fx, fy, cx, cy" if header.camera is None else asdict(header.camera),
        "images": count,
        "sizes_px": sizes,
        "images_without_hands": without,
        "source": header.source,
        "fps": header.fps,
        "size_px": header.size_px,
        "smoothing": dict(header.smoothing),
    }
