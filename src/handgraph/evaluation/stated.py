"""What the papers' texts state of sizes and speeds, recomputed: "1.37 M", "+30 % for 5 heads", "1 ms more".

Sizes are counted at the papers' configurations. Speeds are measured here, one image at a time, and stand
beside the papers' without a verdict, since the hardware differs; a part's share of a whole can hold or fail.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import torch

from handgraph.networks.hourglass import folded
from handgraph.training.checkpoint import find_system

REPEATS = 7


@dataclass(frozen=True)
class Stated:
    """One statement: `holds` is None where it cannot be decided here."""

    paper: str
    text: str
    printed: float
    ours: float
    unit: str
    comparable: bool
    holds: bool | None


def recompute() -> dict[str, Any]:
    """All statements as a document of `reproduce`."""
    return {"table": "claims", "stated": [asdict(one) for one in [*_sizes(), *_speeds()]]}


def parameters(system: str, **config: Any) -> int:
    """Parameters of the paper's configuration with these switches; no memory is taken for them."""
    with torch.device("meta"):
        module = find_system(system).Config(**config).build()
    return sum(parameter.numel() for parameter in module.parameters() if parameter.requires_grad)


def _sizes() -> list[Stated]:
    def millions(text: str, printed: float, **config: Any) -> Stated:
        ours = parameters("jgr_p2o", joints=14, **config) / 1e6
        # The paper prints two decimals, and 715,502 as 0.72.
        return Stated("JGR-P2O", text, printed, ours, "M", True, abs(ours - printed) <= 0.0055)

    def share(paper: str, text: str, printed: float, ours: float) -> Stated:
        return Stated(paper, text, printed, ours, "%", True, abs(ours - printed) <= 5)

    heads = {
        (n, turned): parameters("siapose", heads=n, rotation=turned)
        for n in (1, 5, 10)
        for turned in (False, True)
    }
    agmn, rmgmn = parameters("agmn"), parameters("rmgmn")
    rows = [
        millions("1 hourglass", 0.72, hourglasses=1),
        millions("2 hourglasses, skeleton graph", 1.37),
        millions("3 hourglasses", 2.02, hourglasses=3),
        millions("feature similarity", 1.43, graph="similarity"),
        millions("parameterised matrix", 1.37, graph="parameterised"),
        millions("attention", 1.42, reasoning="attention"),
        millions("differentiable heat map", 1.37, head="heatmap"),
    ]
    # The text does not say whether with the rotation net or without: like systems are compared, R-SiaPose
    # with R-MGMN and SiaPose with AGMN; the heads' part only fits with it. The other reading stands beside.
    for n, printed in ((5, 30.0), (10, 40.0)):
        more, without = (100 * (heads[n, turned] / heads[1, turned] - 1) for turned in (True, False))
        text = f"R-SiaPose: {n} heads larger than 1 head by about (SiaPose {without:.0f} %)"
        rows.append(share("SIA-GCN", text, printed, more))
    agmn_part, of_agmn = (100 * heads[10, turned] / agmn for turned in (False, True))
    rmgmn_part, of_rmgmn = (100 * heads[10, turned] / rmgmn for turned in (True, False))
    text = f"SiaPose of AGMN's size, about (R-SiaPose {of_agmn:.0f} %)"
    rows.append(share("SIA-GCN", text, 80.0, agmn_part))
    text = f"R-SiaPose of R-MGMN's size, about (SiaPose {of_rmgmn:.0f} %)"
    rows.append(share("SIA-GCN", text, 60.0, rmgmn_part))
    return rows


def _speeds() -> list[Stated]:
    def here(paper: str, text: str, printed: float, ms: float) -> Stated:
        return Stated(paper, text, printed, ms, "ms", False, None)

    jgr = _network_ms("jgr_p2o", joints=14)
    with_classes = _network_ms("hybrid_gcn")
    without = _network_ms("hybrid_gcn", relations=False)
    refined = _network_ms("graph_refine", backbone="resnet50", input_size=224)
    prior = _network_ms(
        "graph_refine", backbone="resnet50", input_size=224, refinement="none", discriminator="none"
    )
    part, printed = 100 * (with_classes - without) / with_classes, 100 / 7
    return [
        here("JGR-P2O", "reading and cropping a frame", 2.0, _crop_ms()),
        here("JGR-P2O", "network", 7.0, jgr),
        here("hybrid GCN", "network", 7.0, with_classes),
        here("hybrid GCN", "classification modules", 1.0, with_classes - without),
        Stated(
            "hybrid GCN",
            "share of the classification modules, at most about",
            printed,
            part,
            "%",
            True,
            part <= 1.5 * printed,
        ),
        here("graph refinement", "whole, ResNet-50", 25.1, refined),
        here("graph refinement", "hand model module", 15.3, prior),
        here("graph refinement", "refinement module", 9.8, refined - prior),
        here(
            "identity-aware mesh",
            "network, ResNet-50, and fit (8 minutes for 50,000 images)",
            9.6,
            _mesh_ms(),
        ),
    ]


def _network_ms(name: str, **config: Any) -> float:
    system = find_system(name)
    made = system.Config(**config)
    image = torch.rand(1, 3 if system.INPUT == "colour" else 1, made.input_size, made.input_size)
    network = folded(made.build().eval())
    return _median_ms(lambda: network(image))


def _crop_ms() -> float:
    from handgraph.camera import Crop
    from handgraph.synthetic.depth import DepthSynthesizer

    frame = DepthSynthesizer(0, "test").frame(0)
    center = frame.joints_mm.mean(axis=0)
    return _median_ms(lambda: Crop.cube(center, 250.0, frame.camera).apply_depth(frame.depth_mm))


def _mesh_ms() -> float:
    from handgraph.synthetic.rgb import RgbSynthesizer

    system = find_system("identity_mesh")
    config = system.Config(backbone="resnet50", input_size=224)
    drawn = RgbSynthesizer(0, "test", 224)
    batch: Any = drawn.batch([0])
    network = folded(config.build().eval())
    return _median_ms(lambda: system.solve(network(*system.inputs(batch)), batch["crops"]))


@torch.inference_mode()
def _median_ms(call: Callable[[], Any]) -> float:
    call()  # compiles, and fills caches
    times = []
    for _ in range(REPEATS):
        start = time.perf_counter()
        call()
        times.append(1e3 * (time.perf_counter() - start))
    return statistics.median(times)
