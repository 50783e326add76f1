"""Any system as an ONNX file that another runtime runs identically, checked before it gets its name.

The file holds the network alone, norms folded into their convolutions; batch size is free. Its metadata entry
`handgraph` says in JSON what stands around it: how the crop is made, what the outputs mean, the system and
its configuration.
"""

from __future__ import annotations

import json
import logging
import time
import warnings
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from handgraph.errors import HandgraphError, MissingExtraError
from handgraph.evaluation.measures import inputs
from handgraph.files import atomic_write
from handgraph.networks.hourglass import folded
from handgraph.training.checkpoint import UNITS, find_system, load_system

OPSET = 18
MOST_PX, MOST_MM = 0.05, 0.05
"""Largest difference between the two runtimes' hands that an exported file may have."""
PARITY_BATCH = 16
REPEATS = 30
CROPS = {
    "depth": "cube around the hand, resampled by nearest neighbour to the input's size; value = (depth_mm - "
    "centre depth) / (half the cube), +1 where outside the cube or without reading; left hands mirrored in x",
    "colour": "square window around the hand, RGB in 0..1 minus (0.485, 0.456, 0.406) over (0.229, 0.224, "
    "0.225), channels first; left hands mirrored in x",
}


def export(checkpoint: str | Path, out: str | Path) -> dict[str, Any]:
    """Write the system of a weights file as ONNX to `out`.

    Both runtimes then answer the same synthetic crops, and their decoded hands are compared. Returns `file`,
    `max_abs_diff` (of all raw outputs), `max_diff_px`, `max_diff_mm` (None for 2D systems), `ms_torch` and
    `ms_onnx` (medians of one crop), `opset` and `bytes`. Raises CheckpointError for damaged weights,
    MissingExtraError without the export extra, and HandgraphError, leaving no file, where the hands differ by
    more than MOST_PX or MOST_MM.
    """
    try:
        import onnx
        import onnxruntime
        import onnxscript  # noqa: F401  (torch.onnx needs it)
    except ImportError as error:
        raise MissingExtraError(f"export needs {error.name}: pip install 'handgraph[export]'") from None

    module, name, config, _ = load_system(checkpoint)
    system = find_system(name)
    module = folded(module)
    batch = example_batch(system.INPUT, config.input_size, PARITY_BATCH)
    arguments = inputs(system, batch)
    names = _argument_names(len(arguments))
    with torch.inference_mode():
        expected = module(*arguments)
    leaves, structure = pytree.tree_flatten(expected)
    program = _program(module, arguments, names, _leaf_names(expected))
    model = program.model_proto
    onnx.helper.set_model_props(
        model,
        {
            "handgraph": json.dumps(
                {
                    "system": name,
                    "config": asdict(config),
                    "units": UNITS,
                    "input": CROPS[system.INPUT],
                    "inputs": names,
                    "outputs": _leaf_names(expected),
                    "decode": f"handgraph.systems.{name}.decode(Output(...), crops)",
                }
            )
        },
    )
    content = model.SerializeToString()
    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    fed = {n: a.numpy() for n, a in zip(names, arguments, strict=True)}
    answered = [torch.from_numpy(array) for array in session.run(None, fed)]
    difference = max(
        float((a - b).abs().max()) if a.is_floating_point() else float((a != b).sum())
        for a, b in zip(answered, leaves, strict=True)
    )
    px, mm = _hands_differ(system, expected, pytree.tree_unflatten(answered, structure), batch["crops"])
    if px > MOST_PX or (mm or 0.0) > MOST_MM:
        raise HandgraphError(
            f"{out}: not written, its hands differ from PyTorch's by {px:.3g} px and {mm or 0:.3g} mm, "
            f"expected at most {MOST_PX} and {MOST_MM}"
        )
    with atomic_write(out) as part:
        part.write_bytes(content)
    one = [argument[:1] for argument in arguments]
    one_fed = {n: a[:1] for n, a in fed.items()}
    with torch.inference_mode():
        ms_torch = _median_ms(lambda: module(*one))
    return {
        "file": str(out),
        "max_abs_diff": difference,
        "max_diff_px": px,
        "max_diff_mm": mm,
        "ms_torch": ms_torch,
        "ms_onnx": _median_ms(lambda: session.run(None, one_fed)),
        "opset": OPSET,
        "bytes": len(content),
    }


def example_batch(kind: str, size: int, samples: int) -> dict[str, Any]:
    """Synthetic crops of the test split, as a system of that kind of input takes them."""
    if kind == "colour":
        from handgraph.synthetic.rgb import RgbSynthesizer

        return RgbSynthesizer(0, "test", size).batch(range(samples))
    from handgraph.synthetic.depth import DepthSynthesizer

    return DepthSynthesizer(0, "test", size).batch(range(samples))


def _program(module: nn.Module, arguments: tuple[Tensor, ...], names: list[str], outputs: list[str]) -> Any:
    batch = torch.export.Dim("batch", min=1, max=4096)
    log = logging.getLogger("torch.onnx")
    level = log.level
    log.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of torch's own making, about torch's own insides
            return torch.onnx.export(
                module,
                arguments,
                dynamo=True,
                opset_version=OPSET,
                input_names=names,
                output_names=outputs,
                dynamic_shapes=tuple({0: batch} for _ in arguments),
                verbose=False,
            )
    finally:
        log.setLevel(level)


def _argument_names(count: int) -> list[str]:
    return ["image", *(f"input_{number}" for number in range(1, count))]


def _leaf_names(output: Any) -> list[str]:
    """`field` or `field.number` for every tensor of a system's Output, in the order of its leaves."""
    paths, _ = pytree.tree_flatten_with_path(output)
    return [
        ".".join(str(getattr(key, "name", getattr(key, "idx", key))) for key in path) for path, _ in paths
    ]


def _hands_differ(system: Any, ours: Any, theirs: Any, crops: list[Any]) -> tuple[float, float | None]:
    """Largest difference of keypoints (px) and joints (mm, None without 3D) over all hands."""
    px, mm = 0.0, None
    for a, b in zip(system.decode(ours, crops), system.decode(theirs, crops), strict=True):
        px = max(px, float(np.abs(a.keypoints_px - b.keypoints_px).max()))
        if a.joints_mm is not None and b.joints_mm is not None:
            mm = max(mm or 0.0, float(np.abs(a.joints_mm - b.joints_mm).max()))
    return px, mm


def _median_ms(call: Any) -> float:
    times = []
    for _ in range(REPEATS):
        start = time.perf_counter()
        call()
        times.append(1000 * (time.perf_counter() - start))
    return round(float(np.median(times)), 3)
