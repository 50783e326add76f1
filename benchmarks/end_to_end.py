"""From a file to its hands: one depth frame and one photograph, cold and warm, in PyTorch and ONNX Runtime.

    python benchmarks/end_to_end.py --json [--repeats 1] [--depth FRAME] [--photo PICTURE]

`cold` is the whole command `handgraph predict FILE --runtime R --json` in a fresh process: interpreter,
imports, weights, reading, answer. Median of five, the runtimes taking turns; the exported files are made
before, as a user's first call makes them (`first_s` where this run had to: HANDGRAPH_CACHE chooses where they
are). `idle` is an interpreter that does nothing, `imports` one that imports NumPy, OpenCV and ONNX Runtime:
what no command could do without. `warm` is one more picture in a running process: the estimator's call on an
array already read, median. Where that time goes, medians too: `finder` says where to look, `network` answers
so many `crops`, `rest` cuts them out and makes hands of the answers. Threads are the runtimes' own choice.

`torch_free` says whether the ONNX command got along without importing PyTorch.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from _bench import interleaved_ms, machine, report

import handgraph as hg
from handgraph import estimator
from handgraph.images import read_depth, read_image

COLD, WARM = 5, 30
SAMPLES = Path(hg.__file__).parent / "samples"
PREDICT = "from handgraph.cli import main; import sys; sys.exit(main(sys.argv[1:]))"
SHOWN = (
    "import sys\nfrom handgraph.cli import main\ncode = main(sys.argv[1:])\n"
    "print('torch' in sys.modules, file=sys.stderr)\nsys.exit(code)"
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    parser.add_argument("--repeats", type=float, default=1.0, help="factor on the number of repeats")
    parser.add_argument("--depth", type=Path, default=SAMPLES / "depth_000009.png")
    parser.add_argument("--photo", type=Path, default=SAMPLES / "image_000009.jpg")
    options = parser.parse_args()
    rows = []
    for what, name, file in (("depth", "jgr_p2o", options.depth), ("photo", "siapose", options.photo)):
        arguments = ["predict", str(file), "--model", name, "--json"]
        first, torch_free = prepared([*arguments, "--runtime", "onnx"])
        cold = cold_s(arguments, max(1, round(COLD * options.repeats)))
        estimators = {runtime: hg.load(name, runtime=runtime) for runtime in ("torch", "onnx")}  # type: ignore[call-overload]
        array = read_depth(file).depth_mm if what == "depth" else read_image(file)
        calls: dict[str, Callable[[], object]] = {
            runtime: partial(estimate, array) for runtime, estimate in estimators.items()
        }
        warm = interleaved_ms(calls, max(2, round(WARM * options.repeats)))
        for runtime, estimate in estimators.items():
            rows.append(
                {
                    "picture": what,
                    "runtime": runtime,
                    "pixels": "x".join(str(side) for side in array.shape[1::-1]),
                    "hands": len(estimate(array)),
                    "cold_s": cold[runtime],
                    "warm_ms": warm[runtime]["median"],
                    "warm_min_ms": warm[runtime]["min"],
                    **parts(estimate, array, max(2, round(WARM * options.repeats))),
                    **({"torch_free": torch_free, "first_s": first} if runtime == "onnx" else {}),
                }
            )
        for unit, key in (("cold", "cold_s"), ("warm", "warm_ms")):
            rows[-1][f"{unit}_ratio"] = rows[-2][key] / rows[-1][key]
    floor = {
        "idle_s": median_s([sys.executable, "-c", "pass"]),
        "imports_s": median_s([sys.executable, "-c", "import numpy, cv2, onnxruntime"]),
    }
    report({"machine": machine(), "repeats": COLD, **floor, "rows": rows}, options.json)


def prepared(arguments: list[str]) -> tuple[float | None, bool]:
    """Fill the cache; the seconds that took, if it did, and whether PyTorch is left alone from then on."""
    start = time.perf_counter()
    said = run([sys.executable, "-c", PREDICT, *arguments]).stderr
    first = time.perf_counter() - start if "exporting" in said else None
    shown = run([sys.executable, "-c", SHOWN, *arguments]).stderr
    return first, shown.splitlines()[-1] == "False"


def cold_s(arguments: list[str], repeats: int) -> dict[str, float]:
    """Median seconds of the command in each runtime."""
    times: dict[str, list[float]] = {"torch": [], "onnx": []}
    for _ in range(repeats):
        for runtime, seconds in times.items():
            start = time.perf_counter()
            run([sys.executable, "-c", PREDICT, *arguments, "--runtime", runtime])
            seconds.append(time.perf_counter() - start)
    return {runtime: statistics.median(seconds) for runtime, seconds in times.items()}


def median_s(command: list[str]) -> float:
    times = []
    for _ in range(COLD):
        start = time.perf_counter()
        run(command)
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def run(command: list[str]) -> "subprocess.CompletedProcess[str]":
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ)
    if done.returncode:
        sys.exit(f"{' '.join(command[2:])}: exit {done.returncode}\n{done.stderr}")
    json.loads(done.stdout or "null")
    return done


def parts(estimate: Any, array: Any, repeats: int) -> dict[str, Any]:
    """How many crops one call asks the network about, and the milliseconds of its parts."""
    network, find, find_depth = estimate._network, getattr(estimate, "finder", None), estimator._find
    crops: list[int] = []
    spent: dict[str, float] = {}

    def timed(name: str, call: Callable[..., Any]) -> Callable[..., Any]:
        def run(*given: Any, **named: Any) -> Any:
            start = time.perf_counter()
            answer = call(*given, **named)
            spent[name] = spent.get(name, 0.0) + 1e3 * (time.perf_counter() - start)
            return answer

        return run

    class Counted:
        def __getattr__(self, name: str) -> Any:
            return getattr(network, name)

        def __call__(self, image: Any, *more: Any, **named: Any) -> Any:
            crops.append(len(image))
            return timed("network_ms", network)(image, *more, **named)

    rows = []
    estimate._network, estimator._find = Counted(), timed("finder_ms", find_depth)
    if find is not None:
        estimate._finder = timed("finder_ms", find)
    try:
        for _ in range(repeats):
            crops.clear()
            spent.clear()
            start = time.perf_counter()
            estimate(array)
            rest = 1e3 * (time.perf_counter() - start) - sum(spent.values())
            rows.append({**spent, "rest_ms": rest})
    finally:
        estimate._network, estimator._find = network, find_depth
        if find is not None:
            estimate._finder = find
    medians = {key: statistics.median(row.get(key, 0.0) for row in rows) for key in rows[0]}
    return {"crops": sum(crops), **medians}


if __name__ == "__main__":
    main()
