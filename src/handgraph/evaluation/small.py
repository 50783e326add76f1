"""How the papers' rows are made small enough to be trained side by side on a CPU.

A row is trained in legs, one stage of its system each. A leg begins with the weights of the one before it, so
rows that begin alike share their beginnings: all that refine a pose machine start from the same one, and
stage III of a table is stage II's run gone on with. What differs from the papers, besides sizes and budgets:

- estimators learn heat maps that are distributions, by cross-entropy, since the papers' squared error learns
  nothing in so few steps; from then on every row has its paper's losses;
- keypoints are read between cells (`decode: local`), or maps of 16 cells could not tell the rows apart;
- systems that answer in 3D look through the shipped keypoint network, which is frozen and seen through once
  for all rows (`views`): a backbone from scratch is too poor after so few images for their rows to differ;
- AdamW with a falling rate, the same for all rows of a table.

Scale `paper` has none of this: there a row is its paper's recipe.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from handgraph.errors import ConfigError
from handgraph.evaluation.drawn import BLOCK
from handgraph.evaluation.tables import Row
from handgraph.evaluation.views import digest
from handgraph.training.checkpoint import find_system
from handgraph.training.recipe import Recipe, build


@dataclass(frozen=True)
class Phase:
    """One stage of a system, as all its rows train it that have such a stage."""

    stage: str
    images: int
    """Training images, counted as often as they are used."""
    learning_rate: float = 1e-3
    changes: Mapping[str, Any] = field(default_factory=dict)
    """Further fields of the `Stage` that are not the paper's."""
    regardless_of: Mapping[str, Any] = field(default_factory=dict)
    """Switches that do not matter in this stage, with the value it is trained with: rows that differ in
    nothing else share it."""


@dataclass(frozen=True)
class Small:
    """A small system and how it learns."""

    config: Mapping[str, Any]
    phases: tuple[Phase, ...]
    after: str | None = None
    """Begins with the trained 2D estimator that its `unary` names, as that is after this phase."""
    moved: Phase | None = None
    """For tables whose rows move on to another kind of pictures."""


@dataclass(frozen=True)
class Scale:
    """How much of everything."""

    train: int
    """Photographs that are drawn to train on."""
    views: int
    """Of each of them, where a frozen network looks at them once for all."""
    test: int
    people: int
    """Persons in the test photographs of tables that calibrate them."""
    batch_size: int
    images: int | None
    """Images of a phase at most."""
    systems: Mapping[str, Small]


@dataclass(frozen=True)
class Leg:
    """One training run: a stage of a system, begun with the weights that the leg before left."""

    recipe: Recipe
    moved: bool = False
    """Whether it trains on the other kind of pictures."""
    eyes: str = ""
    """Digest of the shipped keypoint network where it looks through that one."""


_HOURGLASS = {"stacks": 1, "width": 32, "growth": 32, "depth": 3, "form": "compact", "distribution": True}
_CPM = {"stages": 3, "width": 16, "stride": 4, "norm": True, "distribution": True}
_TINY_HOURGLASS = {**_HOURGLASS, "width": 8, "growth": 8, "depth": 2}
_TINY_CPM = {**_CPM, "stages": 2, "width": 8}

_HEATMAP = {"loss_weights": {"heatmap": 1.0}}
_ESTIMATOR = (
    Phase("all", 40_000, 2e-3),
    Phase(
        "half", 12_000, 5e-4, _HEATMAP
    ),  # named as the paper's second rate: it goes on with the paper's loss
)
# Only the graph convolutions learn while α would be 1: the estimator has learned already.
_HEADS = Phase("alpha_1", 4_000, 1e-3, {"trains": ["gcn.", "pointer."], "loss_weights": {"final": 1.0}})
_SIAPOSE = (
    Phase("rotation", 12_000, 1e-3),
    _HEADS,
    Phase("alpha_tenth", 8_000, 5e-4, {"loss_weights": {"preliminary": 0.1, "final": 1.0}}),
)
_RMGMN = (
    Phase("rotation", 12_000, 1e-3, regardless_of={"models": 0}),
    Phase("classifier", 12_000, 1e-3),
    Phase("graphical_models", 4_000, 1e-3),
    Phase("joint", 12_000, 5e-4),
)
_AGMN = (Phase("pairwise", 24_000, 2e-3), Phase("whole", 8_000, 2e-4))
# What its figures measure, instead of squares: the recipes' choice too.
_COARSE = {
    "optimizer": "adamw",
    "loss_weights": {
        "distance_2d": 300.0, "distance_3d": 60.0, "classification_2d": 1.0, "classification_3d": 1.0,
    },
}  # fmt: skip
_HYBRID = (
    Phase("coarse", 36_000, 2e-3, _COARSE, {"refinement": "none"}),
    Phase("refinement", 12_000, 1e-3, {"loss_weights": {"distance_refined": 60.0}}),
)
_REFINE = (
    Phase("prior", 24_000, 1e-3, regardless_of={"refinement": "gcn", "discriminator": "multi"}),
    Phase("generator", 24_000, 1e-3, regardless_of={"discriminator": "multi"}),
    Phase("adversarial", 16_000, 1e-4),
)
# Two networks from scratch differ more by chance than by the shapes they are given: here they part late.
_IDENTITY = (
    Phase("mesh", 24_000, 1e-3, regardless_of={"shape": "given"}),
    Phase("mesh_10th", 12_000, 5e-4),
    Phase("confidence", 8_000, 1e-3, {"batch_size": 64}),
)
_MOVED = 4_000
# The shipped keypoint network, and where each system has a place for it.
_SHIPPED = {"stacks": 1, "width": 48, "growth": 56, "depth": 3, "form": "compact", "distribution": True}
_SEES: dict[str, dict[str, Any]] = {
    "hybrid_gcn": {"keypoints": _SHIPPED, "keypoints_weights": "hourglass"},
    "graph_refine": {"keypoints": _SHIPPED, "pretrained": "hourglass"},
    "identity_mesh": {"detector": _SHIPPED, "detector_weights": "hourglass"},
}


def _systems(
    size: int, large: int, cpm: Mapping[str, Any], hourglass: Mapping[str, Any], jgr: Mapping[str, Any]
) -> dict[str, Small]:
    """All systems on crops of `size` pixels, those that look through the shipped network on `large` ones."""
    kernel = size // 4 - 1
    local = {"input_size": size, "decode": "local"}
    graph = {**local, "kernel_size": kernel}
    sees = {name: {"backbone": "hourglass", "input_size": large, **what} for name, what in _SEES.items()}
    moved = Phase("quarter", _MOVED, 5e-4, _HEATMAP)
    return {
        "jgr_p2o": Small({"joints": 21, "input_size": 64, **jgr}, (Phase("all", 24_000, 2e-3),)),
        "cpm": Small({**cpm, **local}, _ESTIMATOR, moved=moved),
        "hourglass": Small({**hourglass, **local}, _ESTIMATOR, moved=moved),
        "siapose": Small(
            {"cpm": cpm, "hourglass": hourglass, "pointer": "small", **graph}, _SIAPOSE, "all",
            Phase("quarter", _MOVED, 5e-4, {"loss_weights": {"preliminary": 0.1, "final": 1.0}}),
        ),
        "rmgmn": Small(
            {"cpm": cpm, "rotation_backbone": "small", "classifier": "small", **graph}, _RMGMN, "all"
        ),
        "agmn": Small({"cpm": cpm, "pairwise": {**cpm, "distribution": False}, **graph}, _AGMN, "half"),
        "hybrid_gcn": Small(sees["hybrid_gcn"], _HYBRID),
        "graph_refine": Small({"rotation": "6d", **sees["graph_refine"]}, _REFINE),
        "identity_mesh": Small(sees["identity_mesh"], _IDENTITY),
    }  # fmt: skip


SCALES: dict[str, Scale] = {
    "tiny": Scale(
        train=BLOCK, views=1, test=32, people=2, batch_size=16, images=64,
        systems=_systems(64, 64, _TINY_CPM, _TINY_HOURGLASS, {"width": 16, "input_size": 32}),
    ),
    "small": Scale(
        train=8192, views=3, test=1024, people=16, batch_size=32, images=None,
        systems=_systems(64, 128, _CPM, _HOURGLASS, {"width": 64}),
    ),
}  # fmt: skip


def legs_of(row: Row, scale: str, seed: int, *, moved: bool = False) -> list[Leg]:
    """What is trained for a row, in this order. Raises ConfigError where its `until` is no stage of it."""
    assert row.system is not None
    size = SCALES[scale]
    small = size.systems[row.system]
    system, config = find_system(row.system), {**small.config, **row.config}
    eyes = digest() if row.system in _SEES else ""
    legs = []
    if small.after is not None:
        estimator = build(system.Config, config, row.name, "config").unary
        for phase in size.systems[estimator].phases:
            legs.append(Leg(_recipe(estimator, {}, phase, size, seed)))
            if phase.stage == small.after:
                break
    plan = [stage.name for stage in system.stages(build(system.Config, config, row.name, "config"))]
    if row.until is not None and row.until not in plan:
        raise ConfigError(f"{row.name}: no stage {row.until}, {row.system} has {', '.join(plan)}")
    for phase in small.phases:
        if phase.stage in plan:
            legs.append(Leg(_recipe(row.system, row.config, phase, size, seed), eyes=eyes))
        if phase.stage == row.until:
            break
    if moved and small.moved is not None:
        legs.append(Leg(_recipe(row.system, row.config, small.moved, size, seed), moved=True))
    return legs


def _recipe(name: str, switches: Mapping[str, Any], phase: Phase, size: Scale, seed: int) -> Recipe:
    system = find_system(name)
    config = {**size.systems[name].config, **switches, **phase.regardless_of}
    made = build(system.Config, config, name, "config")
    batch = phase.changes.get("batch_size", size.batch_size)
    images = phase.images if size.images is None else min(phase.images, size.images)
    steps = max(1, images // batch)
    stages: dict[str, Any] = {stage.name: None for stage in system.stages(made)}
    stages[phase.stage] = {
        "optimizer": "adamw",
        "learning_rate": phase.learning_rate,
        "weight_decay": 1e-2,
        "betas": [0.9, 0.999],
        "schedule": "cosine",
        "warmup": 0.04,
        **phase.changes,
        "steps": steps,
    }
    colour = system.INPUT == "colour"
    values = {
        "system": name,
        "config": asdict(made),  # whole, so that switches at their default and left out are the same run
        "data": {
            "name": "synthetic_rgb" if colour else "synthetic_depth",
            "seed": seed + 1,
            "samples": size.train * (size.views if name in _SEES else 1) if colour else steps * batch,
            "threads": 1,
            "ahead": 8,
            "options": {"size": made.input_size},
        },
        "stages": stages,
        "batch_size": size.batch_size,
        "precision": "bf16-mixed",
        "gradient_clip": 20.0,
        "seed": seed,
        "validate_every": 1_000_000,  # at the end alone: what is measured is the last weights
        "validation_samples": 16,
    }
    return build(Recipe, values, "recipe")
