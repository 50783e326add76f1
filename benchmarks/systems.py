"""Milliseconds an image of every system, at the size of its paper and at a size for CPUs.

    python benchmarks/systems.py --json [--onnx]

Random weights, one image, evaluation mode with the norms folded into the convolutions (`folded`): how
`predict` runs them. The small size is that of the recipe NAME_synthetic_small or NAME_synthetic, the paper's
the default `Config`; SiaPose is measured on both estimators and with one head as well. With `--onnx` each
network is also exported and answers in ONNX Runtime (minutes for the large ones; where the export fails,
the row says so). OMP_NUM_THREADS chooses the number of threads.
"""

import argparse
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from _bench import interleaved_ms, machine, report
from torch import nn

from handgraph import systems
from handgraph.errors import HandgraphError
from handgraph.evaluation.measures import inputs
from handgraph.export import example_batch, export
from handgraph.networks.hourglass import folded
from handgraph.training.checkpoint import save_weights
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
    parser.add_argument("--onnx", action="store_true", help="measure ONNX Runtime too")
    parser.add_argument("--only", nargs="*", choices=systems.names(), help="these systems alone")
    parser.add_argument("--sizes", nargs="*", choices=tuple(REPEATS), default=tuple(REPEATS))
    options = parser.parse_args()
    rows = []
    for name in options.only or systems.names():
        for size in options.sizes:
            for switches, config in configurations(name, size):
                repeats = max(2, round(REPEATS[size] * options.repeats))
                rows.append(measured(name, size, switches, config, repeats, onnx=options.onnx))
    report({"machine": machine(), "threads": torch.get_num_threads(), "rows": rows}, options.json)


def configurations(name: str, size: str) -> list[tuple[dict[str, Any], Any]]:
    """The switches in words and the `Config` of each row; none where there is no small recipe."""
    make = systems.SYSTEMS[name].Config
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
    system, module = systems.SYSTEMS[name], config.build().eval()
    batch = example_batch(system.INPUT, config.input_size, 1)
    times = interleaved_ms({"folded": answer(folded(module), inputs(system, batch))}, repeats)["folded"]
    row = {
        "system": name,
        "size": size,
        "switches": " ".join(f"{key}={value}" for key, value in switches.items()),
        "input": config.input_size,
        "parameters": sum(parameter.numel() for parameter in module.parameters()),
        "torch_ms": times["median"],
        "torch_min_ms": times["min"],
    }
    if onnx:
        row |= onnx_ms(name, module, config)
    return row


def answer(network: nn.Module, arguments: tuple[Any, ...]) -> Callable[[], None]:
    def call() -> None:
        with torch.inference_mode():
            network(*arguments)

    return call


def onnx_ms(name: str, module: nn.Module, config: Any) -> dict[str, Any]:
    """ONNX Runtime's median for the same weights, or why there is none."""
    with tempfile.TemporaryDirectory() as folder:
        weights = Path(folder) / "weights.safetensors"
        save_weights(weights, module, name, config)
        try:
            return {"onnx_ms": export(weights, Path(folder) / "network.onnx")["ms_onnx"]}
        except HandgraphError as error:
            return {"onnx_ms": None, "onnx_error": str(error).split(": ", 1)[-1]}


if __name__ == "__main__":
    main()
