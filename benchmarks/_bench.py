"""What every benchmark shares: the machine in words, and medians of repeats that take turns."""

import argparse
import json
import os
import platform
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch


def arguments(description: str, parts: Sequence[str] = ()) -> argparse.Namespace:
    """`--json` for one JSON document on stdout, `--repeats` to measure longer, `--only` for a part."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    parser.add_argument("--repeats", type=float, default=1.0, help="factor on the number of repeats")
    if parts:
        parser.add_argument("--only", choices=parts, help="this part alone")
    return parser.parse_args()


def machine() -> dict[str, Any]:
    """Processor, cores, load and versions: what a time means nothing without."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        processor = next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        processor = platform.processor() or platform.machine()
    return {
        "processor": processor,
        "cores": os.cpu_count(),
        "load_1min": round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None,
        "python": platform.python_version(),
        "torch": torch.__version__,
    }


def interleaved_ms(calls: dict[str, Callable[[], object]], repeats: int) -> dict[str, dict[str, float]]:
    """Median and least milliseconds of each call.

    The calls take turns within every repeat, so that whatever else the machine does meets all of them alike.
    """
    times: dict[str, list[float]] = {name: [] for name in calls}
    for call in calls.values():
        call()
        call()
    for _ in range(repeats):
        for name, call in calls.items():
            start = time.perf_counter()
            call()
            times[name].append(1e3 * (time.perf_counter() - start))
    return {name: {"median": statistics.median(ts), "min": min(ts)} for name, ts in times.items()}


def report(document: dict[str, Any], as_json: bool) -> None:
    """Print the document as JSON, or its rows as a table."""
    if as_json:
        print(json.dumps(document, indent=2))
        return
    print(", ".join(f"{key} {value}" for key, value in {**document["machine"], **_plain(document)}.items()))
    rows = document["rows"]
    keys = list(dict.fromkeys(key for row in rows for key in row))
    cells = [keys, *([_cell(row.get(key, "")) for key in keys] for row in rows)]
    widths = [max(len(line[i]) for line in cells) for i in range(len(keys))]
    for line in cells:
        print("  ".join(cell.rjust(width) for cell, width in zip(line, widths, strict=True)))


def _plain(document: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in document.items() if not isinstance(value, dict | list)}


def _cell(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
