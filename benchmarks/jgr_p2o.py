"""JGR-P2O's network alone: milliseconds for one frame, and training images per second.

    python benchmarks/jgr_p2o.py --json

The paper's network (21 joints, two hourglasses, 96 × 96) with random weights. Forms of the same network for
one frame: as trained, channels last, with the norms folded into the convolutions (`folded`), that one in
bfloat16, and that one traced and frozen by TorchScript. A training step is forward, loss, backward, AdamW on
32 images. `ratio` is the first form's median over this one's. OMP_NUM_THREADS chooses the number of threads.
"""

import warnings
from collections.abc import Callable

import torch
from _bench import arguments, interleaved_ms, machine, report

from handgraph.networks.hourglass import folded
from handgraph.systems.jgr_p2o import Config, Output, loss

BATCH = 32
FRAME_REPEATS = 60
TRAINING_REPEATS = 6


def main() -> None:
    options = arguments(__doc__ or "")
    torch.manual_seed(0)
    frame = frame_ms(max(1, round(FRAME_REPEATS * options.repeats)))
    training = training_ms(max(1, round(TRAINING_REPEATS * options.repeats)))
    rows = []
    for what, images, times in (("frame", 1, frame), ("training step", BATCH, training)):
        first = next(iter(times.values()))["median"]
        for form, ms in times.items():
            rows.append(
                {
                    "what": what,
                    "form": form,
                    "median_ms": ms["median"],
                    "min_ms": ms["min"],
                    "images_per_s": 1e3 * images / ms["median"],
                    "ratio": first / ms["median"],
                }
            )
    report(
        {
            "machine": machine(),
            "threads": torch.get_num_threads(),
            "parameters": sum(parameter.numel() for parameter in Config().build().parameters()),
            "rows": rows,
        },
        options.json,
    )


@torch.inference_mode()
def frame_ms(repeats: int) -> dict[str, dict[str, float]]:
    """One frame through each form of the network."""
    depth = torch.rand(1, 1, 96, 96) * 2 - 1
    network = Config().build().eval()
    light = folded(network)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # TorchScript announces its own retirement
        frozen = torch.jit.freeze(torch.jit.trace(light, depth, check_trace=False))
    channels_last = Config().build().eval().to(memory_format=torch.channels_last)

    def bfloat16() -> Output:
        with torch.autocast("cpu", torch.bfloat16):
            return light(depth)

    return interleaved_ms(
        {
            "as_trained": lambda: network(depth),
            "channels_last": lambda: channels_last(depth),
            "folded": lambda: light(depth),
            "folded_bfloat16": bfloat16,
            "folded_frozen": lambda: frozen(depth),
        },
        repeats,
    )


def training_ms(repeats: int) -> dict[str, dict[str, float]]:
    """One training step in float32 and in bfloat16."""
    return interleaved_ms({"float32": training_step(False), "bfloat16": training_step(True)}, repeats)


def training_step(bfloat16: bool) -> Callable[[], None]:
    network = Config().build().to(memory_format=torch.channels_last)
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-4, fused=True)
    depth, batch = torch.rand(BATCH, 1, 96, 96) * 2 - 1, {"uvz": torch.rand(BATCH, 21, 3)}

    def step() -> None:
        with torch.autocast("cpu", torch.bfloat16, enabled=bfloat16):
            output = network(depth)
        terms = loss(output, batch)
        (terms["coordinate"] + 1e-4 * terms["offset"]).backward()
        optimizer.step()
        optimizer.zero_grad()

    return step


if __name__ == "__main__":
    main()
