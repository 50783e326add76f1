"""Milliseconds an image of every system, at the size of its paper and at a size for CPUs, in both runtimes.

    python benchmarks/systems.py --json [--onnx-paper | --no-onnx]

Random weights, one image, and the network as `predict` runs it: evaluation mode, norms folded into the
convolutions, from the crop to the numbers of a hand. PyTorch and ONNX Runtime take turns with the same
weights, crop and number of threads (OMP_NUM_THREADS); `ratio` is PyTorch's time over ONNX Runtime's. The
small size is that of the recipe NAME_synthetic_small or NAME_synthetic, the paper's the default `Config`;
SiaPose is measured on both estimators and with one head as well. Every export is checked against PyTorch,
which takes some 20 s a row; at the paper's size, where it takes minutes, only with `--onnx-paper`.
"""

import argparse
from collections.abc import Callable
from typing import Any

import torch
from _bench import interleaved_ms, machine, report

from handgraph import systems
from handgraph.answering import TorchNetwork
from handgraph.errors import HandgraphError
from handgraph.export import exported_system, sample_crops
from handgraph.runtime import OnnxNetwork
from handgraph.training.recipe import build, load_recipe, shipped_recipes

REPEATS = {"small": 30, "paper": 3}
MORE = {
    ("siapose", "paper"): [
        {"unary": "cpm", "heads": 1},
        {"unary": "hourglass"},
        {"unary": "hourglass", "heads": 1},
    ],
    ("cpm", "paper"): [{"kernel": 7}],
}
"""Configurations beside the default one: the papers' other estimators and rows."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    parser.add_argument("--repeats", type=float, default=1.0, help="factor on the number of repeats")
    parser.add_argument("--no-onnx", action="store_true", help="PyTorch alone")
    parser.add_argument("--onnx-paper", action="store_true", help="ONNX Runtime at the paper's sizes too")
    parser.add_argument("--only", nargs="*", choices=systems.names(), help="these systems alone")
    parser.add_argument("--sizes", nargs="*", choices=tuple(REPEATS), default=tuple(REPEATS))
    options = parser.parse_args()
    rows = []
    for name in options.only or systems.names():
        for size in options.sizes:
            for switches, config in configurations(name, size):
                repeats = max(2, round(REPEATS[size] * options.repeats))
                onnx = not options.no_onnx and (size == "small" or options.onnx_paper)
                rows.append(measured(name, size, switches, config, repeats, onnx=onnx))
    report({"machine": machine(), "threads": torch.get_num_threads(), "rows": rows}, options.json)


def configurations(name: str, size: str) -> list[tuple[dict[str, Any], Any]]:
    """The switches in words and the `Config` of each row; none where there is no small recipe."""
    make = getattr(systems, name).Config
    if size == "paper":
        return [(switches, make(**switches)) for switches in [{}, *MORE.get((name, size), [])]]
    for recipe in (f"{name}_synthetic_small", f"{name}_synthetic"):
        if recipe in shipped_recipes():
            return [({"recipe": recipe}, build(make, load_recipe(recipe).config, recipe, "config"))]
    return []


def measured(
    name: str, size: str, switches: dict[str, Any], config: Any, repeats: int, *, onnx: bool
) -> dict[str, Any]:
    """One row."""
    torch.manual_seed(0)
    module = config.build().eval()
    network = TorchNetwork(module, name, config)
    image = sample_crops(network.input, config.input_size)[0][:1]
    calls: dict[str, Callable[[], object]] = {"torch": lambda: network(image)}
    row = {
        "system": name,
        "size": size,
        "switches": " ".join(f"{key}={value}" for key, value in switches.items()),
        "input": config.input_size,
        "parameters": sum(parameter.numel() for parameter in module.parameters()),
    }
    if onnx:
        try:
            content, _ = exported_system(module, name, config, {}, name)
        except HandgraphError as error:
            row["onnx_error"] = str(error).split(": ", 1)[-1]
        else:
            other = OnnxNetwork(content, name, threads=torch.get_num_threads())
            calls["onnx"] = lambda: other(image)
            row["onnx_mb"] = len(content) / 1e6
            row |= {f"parity_{unit}": other.about["parity"][f"max_diff_{unit}"] for unit in ("px", "mm")}
    for runtime, times in interleaved_ms(calls, repeats).items():
        row |= {f"{runtime}_ms": times["median"], f"{runtime}_min_ms": times["min"]}
    if "onnx" in calls:
        row["ratio"] = row["torch_ms"] / row["onnx_ms"]
    return row


if __name__ == "__main__":
    main()
