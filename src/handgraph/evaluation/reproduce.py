"""A paper's table as one command: train what is missing, measure, print the paper's figures beside ours.

`tiny` proves the machinery in minutes; `small` is a fair comparison of the rows with each other on synthetic
data, every row with the same images, test samples and optimiser; `paper` is the paper's own recipe on its own
data set. Rows that train the same thing share one run, and a run that was interrupted is resumed.

Whether an order of the paper holds is decided on the same test samples for both rows: the 95 % interval of
the mean difference, by resampling samples. Where it contains zero the order is undecided.
"""

from __future__ import annotations

import hashlib
import json
import subprocess
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float

from handgraph.errors import ConfigError
from handgraph.evaluation.measures import Measures, inputs
from handgraph.evaluation.metrics import CROP_OVER_BOX, area_under_pck, pck_curve, success_curve
from handgraph.evaluation.tables import HIGHER_IS_BETTER, TABLES, UNITS, Claim, Metric, Row, Table
from handgraph.files import atomic_write
from handgraph.networks.hourglass import folded
from handgraph.training.checkpoint import find_system, load_system
from handgraph.training.recipe import Recipe, build, load_recipe

BATCH = 64
RESAMPLES = 2000
THRESHOLDS = {"mpjpe_mm": np.linspace(0, 80, 81), "mpck": np.linspace(0, 0.1, 51)}


@dataclass(frozen=True)
class Small:
    """How a system is made small enough to be compared on a CPU."""

    config: Mapping[str, Any]
    learning_rate: float = 2e-3
    stage_rates: Mapping[str, float] = field(default_factory=dict)
    """Learning rates of single stages, where they differ."""


@dataclass(frozen=True)
class Scale:
    """How much of everything."""

    images: int
    """Training images of a row, over all its stages."""
    samples: int
    """Test samples."""
    batch_size: int
    systems: Mapping[str, Small]


_TINY_HOURGLASS = {"stacks": 1, "width": 16, "depth": 2, "form": "compact", "distribution": False}
_SMALL_HOURGLASS = {
    "stacks": 1,
    "width": 32,
    "growth": 32,
    "depth": 3,
    "form": "compact",
    "distribution": False,
}
_TINY_CPM = {"stages": 2, "width": 8, "stride": 4, "norm": True}
_SMALL_CPM = {"stages": 3, "width": 32, "stride": 4, "norm": True}

SCALES: dict[str, Scale] = {
    "tiny": Scale(
        images=256, samples=64, batch_size=16,
        systems={
            "jgr_p2o": Small({"joints": 21, "width": 16, "input_size": 32}),
            "hourglass": Small({**_TINY_HOURGLASS, "input_size": 64}),
            "cpm": Small({**_TINY_CPM, "input_size": 64}),
            "siapose": Small({
                "hourglass": _TINY_HOURGLASS, "cpm": _TINY_CPM, "input_size": 64, "kernel_size": 15,
                "pointer": "small",
            }),
            "rmgmn": Small({
                "cpm": _TINY_CPM, "input_size": 64, "kernel_size": 15, "rotation_backbone": "small",
                "classifier": "small",
            }),
            "agmn": Small({"cpm": _TINY_CPM, "pairwise": _TINY_CPM, "input_size": 64, "kernel_size": 15}),
            "hybrid_gcn": Small({"input_size": 64}),
            "graph_refine": Small({"input_size": 64}, 1e-3, {"adversarial": 1e-4}),
        },
    ),
    "small": Scale(
        images=30_000, samples=2048, batch_size=32,
        systems={
            "jgr_p2o": Small({"joints": 21, "input_size": 64}),
            "hourglass": Small({**_SMALL_HOURGLASS, "input_size": 128}),
            "cpm": Small({**_SMALL_CPM, "input_size": 128}),
            "siapose": Small({
                "hourglass": _SMALL_HOURGLASS, "cpm": _SMALL_CPM, "input_size": 128, "kernel_size": 31,
                "pointer": "small",
            }),
            "rmgmn": Small({
                "cpm": _SMALL_CPM, "input_size": 128, "kernel_size": 31, "rotation_backbone": "small",
                "classifier": "small",
            }),
            "agmn": Small({"cpm": _SMALL_CPM, "pairwise": _SMALL_CPM, "input_size": 128, "kernel_size": 31}),
            "hybrid_gcn": Small({"input_size": 128}),
            "graph_refine": Small({"input_size": 128}, 1e-3, {"adversarial": 1e-4}),
        },
    ),
}  # fmt: skip


@dataclass(frozen=True)
class Measured:
    """One row's answer: a figure for every test sample, so that rows can be compared sample by sample."""

    values: Float[np.ndarray, " b"]
    parameters: int
    minutes: float
    run: str
    curve: Float[np.ndarray, " t"] | None = None

    @property
    def figure(self) -> float:
        """The mean over samples."""
        return float(np.nanmean(self.values))


def list_tables(scale: str = "small") -> list[dict[str, Any]]:
    """Every table: name, title, data set, metric, rows (paper's figures), and what it costs in images."""
    images = SCALES[scale].images if scale in SCALES else None
    return [
        {
            "table": name,
            "title": table.title,
            "dataset": table.dataset,
            "metric": table.metric,
            "rows": [
                {"name": row.name, "paper": row.paper, "runs": row.system is not None} for row in table.rows
            ],
            "claims": len(table.claims),
            "training_images": None if images is None else images * len(table.runnable),
        }
        for name, table in TABLES.items()
    ]


def reproduce(
    name: str,
    scale: str,
    out: str | Path,
    *,
    data: str | None = None,
    root: str | None = None,
    seed: int = 0,
    say: Callable[[str], None] = lambda text: None,
) -> dict[str, Any]:
    """Train, measure and compare the rows of one table; leave `NAME.json`, `.md` and `.png` in `out`.

    `data` and `root` are the data set of scale `paper` (default: the table's own). `say` is told of progress.
    Returns the document that is written: `table`, `scale`, `metric`, `rows` (paper's figure, ours, interval,
    parameters, minutes), `claims` (`holds`: true, false, or null where undecided), and what it ran on.
    Raises ConfigError for a table or scale that does not exist, and what training and data sets raise.
    """
    if name not in TABLES:
        raise ConfigError(f"no table {name!r}; there are {', '.join(TABLES)}")
    if scale not in (*SCALES, "paper"):
        raise ConfigError(f"no scale {scale!r}; there are {', '.join(SCALES)} and paper")
    if scale == "paper" and root is None:
        raise ConfigError(f"{name}: scale paper needs --root, the folder of {data or TABLES[name].dataset}")
    table, folder = TABLES[name], Path(out)
    measured: dict[str, Measured] = {}
    for row in table.runnable:
        say(f"{name}: {row.name}")
        measured[row.name] = _measure(row, table, scale, folder, data or table.dataset, root, seed)
    document = _document(name, table, scale, seed, measured)
    stem = name.replace(":", "_").replace(".", "_")
    with atomic_write(folder / f"{stem}.json") as part:
        part.write_text(json.dumps(document, indent=1), encoding="utf-8")
    with atomic_write(folder / f"{stem}.md") as part:
        part.write_text(markdown(document), encoding="utf-8")
    _draw(folder / f"{stem}.png", table, document, measured)
    return document


def recipe_of(row: Row, scale: str, dataset: str, root: str | None, seed: int) -> Recipe:
    """What trains a row."""
    assert row.system is not None
    system = find_system(row.system)
    if scale == "paper":
        overrides = [f"data.root={root}", f"seed={seed}"]
        recipe = load_recipe(f"{row.system}_{dataset}", overrides)
        values = recipe.to_dict()
        values["config"] = values["config"] | dict(row.config)
        return build(Recipe, _until(values, system, row), "recipe")
    size = SCALES[scale]
    small = size.systems[row.system]
    config = {**small.config, **row.config}
    kind = "synthetic_rgb" if system.INPUT == "colour" else "synthetic_depth"
    made = build(system.Config, config, row.name, "config")
    plan = system.stages(made)
    total = sum(stage.epochs for stage in plan)
    values = {
        "system": row.system,
        "config": config,
        "data": {
            "name": kind, "seed": seed + 1, "samples": size.images, "threads": 1, "ahead": 16,
            "options": {"size": made.input_size, **({"uses": 3} if kind == "synthetic_rgb" else {})},
        },
        "stages": {
            stage.name: {
                "epochs": stage.epochs / total,  # the paper's shares of the whole
                "optimizer": "adamw",
                "learning_rate": small.stage_rates.get(stage.name, small.learning_rate),
                "weight_decay": 1e-2,
                "schedule": "cosine",
                "warmup": 0.04,
            }
            for stage in plan
        },
        "batch_size": size.batch_size,
        "precision": "bf16-mixed",
        "gradient_clip": 20.0,
        "seed": seed,
        "validate_every": 1_000_000,
        "validation_samples": min(256, size.samples),
    }  # fmt: skip
    return build(Recipe, _until(values, system, row), "recipe")


def _until(values: dict[str, Any], system: Any, row: Row) -> dict[str, Any]:
    """The recipe without the stages after the one that the row is measured after."""
    if row.until is None:
        return values
    names = [
        stage.name for stage in system.stages(build(system.Config, values["config"], row.name, "config"))
    ]
    if row.until not in names:
        raise ConfigError(f"{row.name}: no stage {row.until}, {row.system} has {', '.join(names)}")
    for late in names[names.index(row.until) + 1 :]:
        values["stages"][late] = None
    return values


def _measure(
    row: Row, table: Table, scale: str, folder: Path, dataset: str, root: str | None, seed: int
) -> Measured:
    from handgraph.training.loop import train

    recipe = recipe_of(row, scale, dataset, root, seed)
    # Rows of any table that train the same thing find each other's run.
    key = hashlib.sha256(json.dumps(recipe.to_dict(), sort_keys=True).encode()).hexdigest()[:10]
    run = folder / "runs" / f"{recipe.system}_{key}"
    if not (run / "done.json").is_file():
        started = time.monotonic()
        result = train(recipe, run, resume=True)
        if not result["finished"]:
            raise KeyboardInterrupt
        done = {"minutes": (time.monotonic() - started) / 60}
        with atomic_write(run / "done.json") as part:
            part.write_text(json.dumps(done), encoding="utf-8")
    minutes = json.loads((run / "done.json").read_text(encoding="utf-8"))["minutes"]
    module, _, config, _ = load_system(run / "best")
    metric = row.metric or table.metric
    batches = _test_batches(recipe, config, scale, dataset, root)
    values, curve = _values(folded(module), find_system(recipe.system), metric, batches, table.curve)
    parameters = sum(p.numel() for p in module.parameters() if p.requires_grad)
    return Measured(values, parameters, minutes, str(run), curve)


def _test_batches(recipe: Recipe, config: Any, scale: str, dataset: str, root: str | None) -> Any:
    """Batches of the test samples, the same for every row."""
    colour = find_system(recipe.system).INPUT == "colour"
    if scale == "paper":
        from handgraph.datasets import DepthCrops, ImageCrops, names, open_dataset

        splits = names()[dataset]
        opened = open_dataset(dataset, root or "", "test" if "test" in splits else splits[-1])
        crops = (ImageCrops if colour else DepthCrops)(opened, size=config.input_size, augment=False)
        count, data = len(crops), lambda indices: crops.batch(indices, 0)
    else:
        from handgraph.synthetic.depth import DepthSynthesizer
        from handgraph.synthetic.rgb import RgbSynthesizer

        synthesizer = (RgbSynthesizer if colour else DepthSynthesizer)(0, "test", config.input_size)
        count, data = SCALES[scale].samples, synthesizer.batch
    for start in range(0, count, BATCH):
        yield data(range(start, min(start + BATCH, count)))


@torch.inference_mode()
def _values(
    module: Any, system: Any, metric: Metric, batches: Any, curve: bool
) -> tuple[Float[np.ndarray, " b"], Float[np.ndarray, " t"] | None]:
    """The metric of every sample, and with `curve` the share of joints (or frames) below each threshold."""
    measures = Measures(system)
    right: list[np.ndarray] = []
    for batch in batches:
        output = module(*inputs(system, batch))
        if metric in ("accuracy_2d", "accuracy_3d"):
            right.append(100.0 * _right_classes(system, output, batch, metric).mean(axis=1))
        else:
            measures.update(output, batch)
    if right:
        return np.concatenate(right), None
    if metric in ("mpck", "epe_px"):
        relative = measures.pixels.relative_errors()
        if metric == "epe_px":
            return np.nanmean(measures.pixels.errors_px(), axis=1), None
        of_crop, known = relative / CROP_OVER_BOX, np.isfinite(relative).sum(axis=1)
        shares = [(of_crop <= t).sum(axis=1) / known for t in np.arange(1, 7) / 100]
        return 100 * np.mean(shares, axis=0), None
    # Papers of colour systems measure about the wrist, those of depth where the hand is.
    errors = measures.joints.errors_mm("root_relative_" if system.INPUT == "colour" else "")
    if metric == "auc_20_50":
        return np.array([area_under_pck(frame[None], 20.0, 50.0) for frame in errors]), None
    drawn = None
    if curve:
        draw = pck_curve if measures.root_relative else success_curve
        drawn = np.asarray(draw(errors, THRESHOLDS["mpjpe_mm"]))
    return np.nanmean(errors, axis=1), drawn


def _right_classes(system: Any, output: Any, batch: Mapping[str, Any], metric: str) -> np.ndarray:
    """(b, 21): which joints the hybrid system's classifier puts into the right block."""
    if metric == "accuracy_2d":
        true = system.true_classes_2d(output, batch["uv"], batch["image"].shape[-1])
        scores = output.scores_2d
    else:
        known, pose = system.target_3d(batch["relative_mm"])
        true, scores = system.true_classes_3d(output, pose, known), output.scores_3d
    right: np.ndarray = (scores.argmax(dim=-1) == true).double().numpy()
    return right


def _document(
    name: str, table: Table, scale: str, seed: int, measured: Mapping[str, Measured]
) -> dict[str, Any]:
    rows = []
    for row in table.rows:
        entry: dict[str, Any] = {"name": row.name, "paper": row.paper, "metric": row.metric or table.metric}
        if row.name in measured:
            found = measured[row.name]
            entry |= {
                "ours": found.figure,
                "interval95": _interval(found.values),
                "n": len(found.values),
                "parameters": found.parameters,
                "minutes": round(found.minutes, 2),
                "run": found.run,
            }
        rows.append(entry)
    return {
        "table": name,
        "title": table.title,
        "scale": scale,
        "dataset": table.dataset if scale == "paper" else "synthetic:test",
        "paper_dataset": table.dataset,
        "metric": table.metric,
        "unit": UNITS[table.metric],
        "seed": seed,
        "rows": rows,
        "claims": [_decide(claim, table, measured) for claim in table.claims],
        **_surroundings(),
    }


def _decide(claim: Claim, table: Table, measured: Mapping[str, Measured]) -> dict[str, Any]:
    """Whether a claim of the text holds here: true, false, or null where the samples cannot tell."""
    words = f"{claim.better} {'about as good as' if claim.ties else 'better than'} {claim.worse}"
    entry: dict[str, Any] = {"claim": words, "holds": None}
    if claim.better not in measured or claim.worse not in measured:
        return entry | {"why": "printed figures of other methods are on another data set"}
    better, worse = measured[claim.better].values, measured[claim.worse].values
    metric = table.row(claim.better).metric or table.metric
    gain = (better - worse) * (1 if metric in HIGHER_IS_BETTER else -1)
    low, high = _interval(gain)
    entry |= {"gain": float(np.nanmean(gain)), "interval95": [low, high]}
    if claim.ties:
        # A tenth of the figure itself is "similar"; the papers' own ties lie within 2 %.
        margin = 0.1 * abs(measured[claim.worse].figure)
        holds = True if -margin < low and high < margin else None
        return entry | {"holds": False if low > margin or high < -margin else holds}
    return entry | {"holds": True if low > 0 else False if high < 0 else None}


def _interval(values: Float[np.ndarray, " b"]) -> list[float]:
    """95 % interval of the mean over samples."""
    values = values[np.isfinite(values)]
    random = np.random.default_rng(0)
    means = [values[random.integers(len(values), size=len(values))].mean() for _ in range(RESAMPLES)]
    low, high = np.percentile(means, [2.5, 97.5])
    return [float(low), float(high)]


def _surroundings() -> dict[str, Any]:
    """Hardware, versions and commit, as far as they can be told."""
    from handgraph import __version__
    from handgraph.training.loop import describe_device

    commit = None
    try:
        told = subprocess.run(
            ["git", "rev-parse", "--short", "HEAD"],
            cwd=Path(__file__).parent, capture_output=True, text=True, timeout=10, check=True,
        )  # fmt: skip
        commit = told.stdout.strip()
    except (OSError, subprocess.SubprocessError):
        pass  # an installed package has no history
    return {
        "machine": describe_device(torch.device("cuda" if torch.cuda.is_available() else "cpu")),
        "torch": torch.__version__,
        "handgraph": __version__,
        "commit": commit,
    }


def markdown(document: Mapping[str, Any]) -> str:
    """A document of `reproduce` as a page: the table, the claims, and what it ran on."""
    unit = document["unit"]
    paper, test, metric = document["paper_dataset"], document["dataset"], document["metric"]
    lines = [
        f"## {document['table']}: {document['title']}",
        "",
        f"{metric}{f' ({unit})' if unit else ''}. The paper's figures are on {paper}; ours on {test}, scale "
        f"{document['scale']}, seed {document['seed']}.",
        "",
        "| row | paper | ours | 95 % | parameters | minutes |",
        "|---|---|---|---|---|---|",
    ]
    for row in document["rows"]:
        printed = "" if row["paper"] is None else f"{row['paper']:g}"
        if "ours" in row:
            low, high = row["interval95"]
            rest = (
                f"{row['ours']:.2f} | {low:.2f} to {high:.2f} | {row['parameters']:,} | {row['minutes']:.1f}"
            )
        else:
            rest = "not ours | | |"
        lines.append(f"| {row['name']} | {printed} | {rest} |")
    if document["claims"]:
        lines += ["", "| the text says | here | gain (95 %) |", "|---|---|---|"]
    for claim in document["claims"]:
        verdict = {True: "holds", False: "fails", None: "undecided"}[claim["holds"]]
        gain = claim.get("why", "")
        if "gain" in claim:
            gain = f"{claim['gain']:.2f} ({claim['interval95'][0]:.2f} to {claim['interval95'][1]:.2f})"
        lines.append(f"| {claim['claim']} | {verdict} | {gain} |")
    lines += ["", f"{document['machine']}, torch {document['torch']}, commit {document['commit']}.", ""]
    return "\n".join(lines)


def _draw(path: Path, table: Table, document: Mapping[str, Any], measured: Mapping[str, Measured]) -> None:
    """Paper and ours side by side, or a figure's curves."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 0.45 * len(table.rows) + 1.6) if not table.curve else (6, 4), dpi=120)
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    if table.curve:
        for name, found in measured.items():
            if found.curve is not None:
                axes.plot(THRESHOLDS["mpjpe_mm"], 100 * found.curve, label=name)
        axes.set_xlabel("threshold, mm")
        axes.set_ylabel("within threshold, %")
        axes.legend(loc="lower right")
    else:
        for place, row in enumerate(document["rows"]):
            if row["paper"] is not None:
                axes.plot(row["paper"], place, "o", color="0.6", label="paper" if place == 0 else None)
            if "ours" in row:
                low, high = row["interval95"]
                axes.errorbar(
                    row["ours"], place, xerr=[[row["ours"] - low], [high - row["ours"]]], fmt="s", color="C0"
                )
        axes.set_yticks(range(len(table.rows)), [row.name for row in table.rows])
        axes.invert_yaxis()
        axes.set_xlabel(f"{table.metric} {UNITS[table.metric]}: grey the paper's, blue ours (95 %)")
    axes.grid(alpha=0.3)
    axes.set_title(f"{document['table']}: {table.title}", fontsize=10)
    figure.tight_layout()
    with atomic_write(path) as part:
        figure.savefig(part, format="png")
