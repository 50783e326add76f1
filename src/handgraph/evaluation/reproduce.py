"""A paper's table as one command: train what is missing, measure, print the paper's figures beside ours.

`tiny` proves the machinery in minutes; `small` is a fair comparison of the rows with each other on synthetic
data, every row with the same images and test samples (`small`); `paper` is the paper's own recipe on its own
data set. Rows share the beginnings of their training, and what was interrupted is resumed.

Whether an order of the paper holds is decided on the same test samples for both rows: the 95 % interval of
the mean difference. It covers what other samples would change, by resampling them, and with several seeds
what other seeds would, by Student's t. Where it contains zero the order is undecided.
"""

from __future__ import annotations

import hashlib
import json
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Shaped

from handgraph.errors import ConfigError
from handgraph.evaluation.measures import Measures, inputs
from handgraph.evaluation.metrics import CROP_OVER_BOX, area_under_pck, pck_curve, success_curve
from handgraph.evaluation.small import SCALES, Leg, legs_of
from handgraph.evaluation.tables import HIGHER_IS_BETTER, TABLES, UNITS, Claim, Metric, Row, Table
from handgraph.files import atomic_write
from handgraph.networks.hourglass import folded
from handgraph.training import checkpoint
from handgraph.training.checkpoint import find_system, load_system
from handgraph.training.recipe import Recipe, build, load_recipe

BATCH = 64
RESAMPLES = 2000
THRESHOLDS_MM = np.linspace(0, 80, 81)
CLAIMS = "claims"
"""Not a table: the sizes and speeds that the papers' texts tell (`stated`)."""
PCK_STEPS = {"mpck": 6, "mpck_08": 8, "mpck_10": 10}
STUDENT = {2: 12.71, 3: 4.30, 4: 3.18, 5: 2.78}
"""97.5 % quantile of Student's t for so many seeds; 2 stands for more."""


@dataclass(frozen=True)
class Measured:
    """One row's answer: a figure for every seed and sample, so that rows are compared sample by sample."""

    values: Float[np.ndarray, "s b"]
    parameters: int
    minutes: float
    """Of all its legs and seeds, shared ones too."""
    runs: tuple[str, ...]
    beside: Mapping[str, float] = field(default_factory=dict)
    """The row's further figures."""
    curve: Float[np.ndarray, " t"] | None = None
    people: Shaped[np.ndarray, " b"] | None = None
    """Whose hand each sample shows, where it matters that they are few: then people are resampled."""

    @property
    def figure(self) -> float:
        """The mean over seeds and samples."""
        return float(np.nanmean(self.values))


def list_tables(scale: str = "small") -> list[dict[str, Any]]:
    """Every table: name, title, data set, metric, rows (paper's figures), and what it costs in images."""
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
            "training_images": _cost(table, scale) if scale in SCALES else None,
        }
        for name, table in TABLES.items()
    ]


def _cost(table: Table, scale: str) -> int:
    """Images that the table's legs are trained on, those that rows share counted once."""
    legs: dict[str, int] = {}
    for row in table.runnable:
        before = ""
        for leg in legs_of(row, scale, 0, moved=table.moved):
            before = leg_name(leg, before)
            changes = next(stage for stage in leg.recipe.stages.values() if stage)
            legs[before] = changes["steps"] * changes.get("batch_size", leg.recipe.batch_size or 0)
    return sum(legs.values())


def reproduce(
    name: str,
    scale: str,
    out: str | Path,
    *,
    data: str | None = None,
    root: str | None = None,
    seed: int = 0,
    seeds: int = 1,
    say: Callable[[str], None] = lambda text: None,
) -> dict[str, Any]:
    """Train, measure and compare the rows of one table; leave `NAME_SCALE.json`, `.md` and `.png` in `out`.

    `data` and `root` are the data set of scale `paper` (default: the table's own). Rows are trained with
    `seeds` seeds from `seed` on. `say` is told of progress. The table "claims" trains nothing.
    Returns the document that is written: `table`, `scale`, `metric`, `rows` (paper's figure, ours, interval,
    parameters, minutes), `claims` (`holds`: true, false, or null where undecided), and what it ran on.
    Raises ConfigError for a table or scale that does not exist, and what training and data sets raise.
    """
    folder = Path(out)
    if name == CLAIMS:
        from handgraph.evaluation.stated import recompute

        return _write(folder, recompute() | surroundings())
    if name not in TABLES:
        raise ConfigError(f"no table {name!r}; there are {', '.join(TABLES)} and {CLAIMS}")
    if scale not in (*SCALES, "paper"):
        raise ConfigError(f"no scale {scale!r}; there are {', '.join(SCALES)} and paper")
    if scale == "paper" and root is None:
        raise ConfigError(f"{name}: scale paper needs --root, the folder of {data or TABLES[name].dataset}")
    if seeds < 1:
        raise ConfigError(f"seeds is {seeds}, expected 1 or more")
    table = TABLES[name]
    trials = [
        Trial(table, scale, folder, data or table.dataset, root, number)
        for number in range(seed, seed + seeds)
    ]
    measured: dict[str, Measured] = {}
    for row in table.runnable:
        each = []
        for trial in trials:
            say(f"{name}: {row.name}{f', seed {trial.seed}' if seeds > 1 else ''}")
            each.append(trial.measure(row))
        measured[row.name] = _together(each)
    document = _document(name, table, trials, measured)
    _write(folder, document)
    _draw(folder / f"{_stem(document)}.png", table, document, measured)
    return document


def _together(each: Sequence[Measured]) -> Measured:
    curves = [one.curve for one in each if one.curve is not None]
    return replace(
        each[0],
        values=np.concatenate([one.values for one in each]),
        minutes=sum(one.minutes for one in each),
        runs=tuple(run for one in each for run in one.runs),
        beside={key: float(np.mean([one.beside[key] for one in each])) for key in each[0].beside},
        curve=np.mean(curves, axis=0) if curves else None,
    )


def paper_recipe(row: Row, dataset: str, root: str | None, seed: int) -> Recipe:
    """What trains a row at scale `paper`: the shipped recipe with the row's switches, up to its `until`."""
    assert row.system is not None
    system, name = find_system(row.system), f"{row.system}_{dataset}"
    if row.config.get("unary") == "hourglass":
        name = f"{row.system}_hourglass_{dataset}"
    values = load_recipe(name, [f"data.root={root}", f"seed={seed}"]).to_dict()
    values["config"] = values["config"] | dict(row.config)
    plan = [stage.name for stage in system.stages(build(system.Config, values["config"], row.name, "config"))]
    # A shipped recipe is of all parts: those that the row has not have no stage.
    values["stages"] = {stage: changes for stage, changes in values["stages"].items() if stage in plan}
    if row.until is not None:
        if row.until not in plan:
            raise ConfigError(f"{row.name}: no stage {row.until}, {row.system} has {', '.join(plan)}")
        values["stages"] |= {late: None for late in plan[plan.index(row.until) + 1 :]}
    return build(Recipe, values, "recipe")


def leg_name(leg: Leg, before: str) -> str:
    """The run of a leg that goes on from run `before`: the same training has the same name."""
    what = json.dumps([leg.recipe.to_dict(), leg.moved, before, *filter(None, [leg.eyes])], sort_keys=True)
    return f"{leg.recipe.system}_{hashlib.sha256(what.encode()).hexdigest()[:10]}"


@dataclass
class Trial:
    """One seed of a table: trains what a row needs and measures it."""

    table: Table
    scale: str
    folder: Path
    dataset: str
    root: str | None
    seed: int

    def __post_init__(self) -> None:
        self._answers: dict[Any, Any] = {}

    @cached_property
    def runs(self) -> Path:
        """Where training runs and drawn images lie."""
        return self.folder / "runs"

    def legs(self, row: Row) -> list[Leg]:
        """What is trained for the row."""
        if self.scale == "paper":
            return [Leg(paper_recipe(row, self.dataset, self.root, self.seed))]
        return legs_of(row, self.scale, self.seed, moved=self.table.moved)

    def trained(self, row: Row) -> tuple[list[Path], float]:
        """The runs of the row's legs, trained now or before, and the minutes that took."""
        runs: list[Path] = []
        for leg in self.legs(row):
            before = runs[-1] if runs else None
            run = self.runs / leg_name(leg, before.name if before else "")
            if not (run / "done.json").is_file():
                self._train(leg, before, run)
            runs.append(run)
        minutes = [json.loads((run / "done.json").read_text(encoding="utf-8"))["minutes"] for run in runs]
        return runs, sum(minutes)

    def _train(self, leg: Leg, before: Path | None, run: Path) -> None:
        from handgraph.training import loop

        recipe = leg.recipe
        if before is not None:
            start = run.resolve().with_name(f"{run.name}.start.safetensors")  # named alike on resuming
            _begin(recipe, before / "best", start)
            recipe = replace(recipe, weights=str(start))
        seconds, begun = 0.0, (run / "last.safetensors").is_file()
        if begun:  # what a run that was interrupted had done
            seconds = checkpoint.read_meta(run / "last")["training"]["seconds"]
        started = time.monotonic()
        result = loop.train(recipe, run, resume=begun, data=self._training_data(leg))
        if not result["finished"]:
            raise KeyboardInterrupt
        done = {"minutes": (seconds + time.monotonic() - started) / 60}
        with atomic_write(run / "done.json") as part:
            part.write_text(json.dumps(done), encoding="utf-8")
        for used in (run / "last.safetensors", run.with_name(f"{run.name}.start.safetensors")):
            used.unlink(missing_ok=True)

    def _training_data(self, leg: Leg) -> Any:
        """Photographs drawn once; None where the recipe says it all (depth streams, scale `paper`)."""
        if self.scale == "paper" or leg.recipe.data.name != "synthetic_rgb":
            return None
        from handgraph.datasets import ImageCrops
        from handgraph.evaluation.views import Views

        size, scale = leg.recipe.data.options["size"], SCALES[self.scale]
        drawn = self._drawn("train", size, scale.train, other=leg.moved)
        few = self._drawn("validation", size, 16, other=leg.moved)
        validation = ImageCrops(few, size=size, margin=1.0, augment=False)
        if not leg.eyes:
            return ImageCrops(drawn, leg.recipe.data.seed, size=size, margin=1.0), validation
        crops = ImageCrops(drawn, size=size, margin=1.0)  # the same views for every seed
        return Views(self.runs / "images", crops, scale.views), validation

    def _drawn(self, split: str, size: int, images: int, **options: Any) -> Any:
        from handgraph.evaluation.drawn import DrawnOnce

        key = (split, size, images, *options.items())
        if key not in self._answers:
            self._answers[key] = DrawnOnce(self.runs / "images", split, size, images, **options)
        return self._answers[key]

    def measure(self, row: Row) -> Measured:
        """Train what the row needs and measure it on the test samples."""
        runs, minutes = self.trained(row)
        module, _, config, _ = load_system(runs[-1] / "best")
        system, metric = find_system(row.system or ""), row.metric or self.table.metric
        beside: dict[str, float] = {}
        curve = people = None
        if row.system == "identity_mesh":
            key = (runs[-1], row.optimise, row.people, row.k, row.attention, metric)
            if key not in self._answers:
                self._answers |= self._of_people(row, metric, runs[-1], module, config)
            values = self._answers[key]
            subjects = self._subjects(config)
            people = subjects if len(values) == len(subjects) else None
        else:
            values, curve, beside = measure_samples(
                folded(module),
                system,
                metric,
                self._test_batches(system, config),
                self.table.curve,
                row.beside,
            )
        parameters = sum(parameter.numel() for parameter in module.parameters() if parameter.requires_grad)
        return Measured(
            values[None], parameters, minutes, tuple(run.name for run in runs), beside, curve, people
        )

    def _of_people(self, row: Row, metric: Metric, run: Path, module: Any, config: Any) -> dict[Any, Any]:
        """The answers of an identity-aware mesh, by what was asked for: errors of images, or of people."""
        from handgraph.evaluation import personal

        system = find_system("identity_mesh")
        module, subjects = folded(module), self._subjects(config)
        enough = min(row.k, min(np.unique(subjects, return_counts=True)[1]))

        def said_by(own: Path) -> Any:
            if own not in self._answers:
                network = folded(load_system(own / "best")[0])
                self._answers[own] = personal.ask(network, self._test_batches(system, config), subjects)
            return self._answers[own]

        key = (run, row.optimise, row.people, row.k, row.attention)
        if metric in personal.PERSON_METRICS:
            said = said_by(run)
            if metric != "length_spread_mm":
                shapes = personal.calibrated(said, enough, attention=row.attention)
                return {(*key, metric): personal.person_errors(said, metric, shapes)}
            if row.people == "own":
                return {(*key, metric): personal.length_spread(said)}
            shapes = personal.calibrated(said, enough)
            batches = self._test_batches(system, config)
            return {(*key, metric): personal.length_spread_of_subjects(module, batches, said, shapes)}
        given = None
        if row.people == "calibrated":  # by the network that was taught the same, but regresses shapes
            baseline = replace(row, config={**row.config, "shape": "regressed"}, people="own")
            said = said_by(self.trained(baseline)[0][-1])
            given = personal.calibrated(said, enough, attention=row.attention)
        errors = personal.image_errors(
            module,
            self._test_batches(system, config),
            optimise=row.optimise,
            subjects=subjects,
            shapes=given,
        )
        return {(*key, name): values for name, values in errors.items()}

    def _subjects(self, config: Any) -> np.ndarray:
        """Whose hand each test image of an identity-aware mesh shows."""
        if self.scale != "paper":
            return self._test_pictures(config.input_size, people=True).subjects
        opened = self._opened(find_system("identity_mesh"), config).dataset
        return np.array([opened[index].subject for index in range(len(opened))])

    def _test_pictures(self, size: int, *, people: bool) -> Any:
        scale = SCALES[self.scale]
        if people:
            return self._drawn("test", size, scale.test, people=scale.people)
        return self._drawn("test", size, scale.test, other=self.table.moved)

    def _opened(self, system: Any, config: Any) -> Any:
        """The crops of the data set's test samples, divided and cut as the paper's recipe says."""
        from handgraph.evaluation.crops import crops_of

        recipe = load_recipe(f"{system.__name__.rpartition('.')[2]}_{self.dataset}")
        return crops_of(self.dataset, self.root, system, config, recipe.to_dict()["data"])[0]

    def _test_batches(self, system: Any, config: Any) -> Iterator[dict[str, Any]]:
        """Batches of the test samples, the same for every row."""
        from handgraph.datasets import ImageCrops

        colour, size = system.INPUT == "colour", config.input_size
        if self.scale == "paper":
            crops: Any = self._opened(system, config)
        elif colour:
            pictures = self._test_pictures(size, people=system.__name__.endswith("identity_mesh"))
            crops = ImageCrops(pictures, size=size, margin=1.0, augment=False)
        else:
            from handgraph.synthetic.depth import DepthSynthesizer

            synthesizer = DepthSynthesizer(0, "test", size)
            for start in range(0, SCALES[self.scale].test, BATCH):
                yield synthesizer.batch(range(start, min(start + BATCH, SCALES[self.scale].test)))
            return
        for start in range(0, len(crops), BATCH):
            yield crops.batch(np.arange(start, min(start + BATCH, len(crops))), 0)


def _begin(recipe: Recipe, before: Path, start: Path) -> None:
    """Write the weights that a leg begins with: fresh ones, and in their place what the run before has.

    The network of an estimator becomes the part of that name in the system that goes on from it.
    """
    system = find_system(recipe.system)
    config = build(system.Config, recipe.config, "recipe", "config")
    torch.manual_seed(recipe.seed)
    module = config.build()
    old, name, _, _ = load_system(before)
    prefix = "" if name == recipe.system else "unary."
    found = {
        (f"{prefix}{key.removeprefix('network.')}" if prefix else key): tensor
        for key, tensor in old.state_dict().items()
        if not prefix or key.startswith("network.")
    }
    state = module.state_dict()
    kept = {key: found[key] for key in state if key in found and found[key].shape == state[key].shape}
    if not kept:
        raise ConfigError(f"{before}: {name} has nothing that {recipe.system} could go on from")
    module.load_state_dict(state | kept)
    checkpoint.save_weights(start, module, recipe.system, config)


@torch.inference_mode()
def measure_samples(
    module: Any,
    system: Any,
    metric: Metric,
    batches: Iterator[dict[str, Any]],
    curve: bool = False,
    beside: Mapping[str, float] | None = None,
) -> tuple[Float[np.ndarray, " b"], Float[np.ndarray, " t"] | None, dict[str, float]]:
    """The metric of every sample; with `curve` the share of joints (or frames) below each threshold; and the
    further figures that `beside` names."""
    measures, beside = Measures(system), beside or {}
    predicted: list[np.ndarray] = []
    true: list[np.ndarray] = []
    for batch in batches:
        output = module(*inputs(system, batch))
        if metric in ("accuracy_2d", "accuracy_3d"):
            for classes, found in zip(
                (predicted, true), _classes(system, output, batch, metric), strict=True
            ):
                classes.append(found)
        else:
            measures.update(output, batch)
    if predicted:
        said, truth = np.concatenate(predicted), np.concatenate(true)
        _, recall, precision = system.class_scores(said.ravel(), truth.ravel())
        return 100.0 * (said == truth).mean(axis=1), None, {"recall": recall, "precision": precision}
    if metric == "epe_px":
        return np.nanmean(measures.pixels.errors_px(), axis=1), None, {}
    if metric in PCK_STEPS:
        of_crop = measures.pixels.relative_errors() / CROP_OVER_BOX
        known = np.isfinite(of_crop).sum(axis=1)
        shares = [(of_crop <= step / 100).sum(axis=1) / known for step in range(1, PCK_STEPS[metric] + 1)]
        return 100 * np.mean(shares, axis=0), None, {}
    # Papers of colour systems measure about the wrist, those of depth where the hand is.
    errors = measures.joints.errors_mm("root_relative_" if system.INPUT == "colour" else "")
    areas = np.array([area_under_pck(frame[None], 20.0, 50.0) for frame in errors])
    further = {"auc_20_50": float(areas.mean())} if "auc_20_50" in beside else {}
    if metric == "auc_20_50":
        return areas, None, {}
    drawn = None
    if curve:
        draw = pck_curve if measures.root_relative else success_curve
        drawn = np.asarray(draw(errors, THRESHOLDS_MM))
    return np.nanmean(errors, axis=1), drawn, further


def _classes(
    system: Any, output: Any, batch: Mapping[str, Any], metric: str
) -> tuple[np.ndarray, np.ndarray]:
    """(b, 21) each: the block that the hybrid system's classifier puts a joint into, and the right one."""
    if metric == "accuracy_2d":
        true = system.true_classes_2d(output, batch["uv"], batch["image"].shape[-1])
        scores = output.scores_2d
    else:
        known, pose = system.target_3d(batch)
        true, scores = system.true_classes_3d(output, pose, known), output.scores_3d
    return scores.argmax(dim=-1).numpy(), true.numpy()


def _document(
    name: str, table: Table, trials: Sequence[Trial], measured: Mapping[str, Measured]
) -> dict[str, Any]:
    scale, dataset = trials[0].scale, trials[0].dataset
    rows, times = [], {}
    for row in table.rows:
        entry: dict[str, Any] = {
            "name": row.name,
            "paper": table.printed(row, dataset),
            "metric": row.metric or table.metric,
        }
        if row.name in measured:
            found = measured[row.name]
            entry |= {
                "ours": found.figure,
                "interval95": interval(found.values, found.people),
                "n": found.values.shape[1],
                "parameters": found.parameters,
                "minutes": round(found.minutes, 2),
                "runs": list(found.runs),
            }
            if len(trials) > 1:
                entry["by_seed"] = [float(np.nanmean(values)) for values in found.values]
            if row.beside and dataset == table.dataset:
                entry["beside"] = {
                    key: {"paper": value, "ours": found.beside.get(key)} for key, value in row.beside.items()
                }
            for run in found.runs:
                done = (trials[0].runs / run / "done.json").read_text(encoding="utf-8")
                times[run] = json.loads(done)["minutes"]
        rows.append(entry)
    return {
        "table": name,
        "title": table.title,
        "scale": scale,
        "dataset": dataset if scale == "paper" else "synthetic:test",
        "paper_dataset": dataset,
        "metric": table.metric,
        "unit": UNITS[table.metric],
        "seeds": [trial.seed for trial in trials],
        "minutes": round(sum(times.values()), 1),
        "rows": rows,
        "claims": [_decide(claim, table, measured) for claim in table.claims],
        **surroundings(),
    }


def _decide(claim: Claim, table: Table, measured: Mapping[str, Measured]) -> dict[str, Any]:
    """Whether a claim of the text holds here: true, false, or null where the samples cannot tell."""
    if claim.below is not None:
        row = measured[claim.better]
        low, high = interval(row.values, row.people)
        return {
            "claim": f"{claim.better} below {claim.below:g}",
            "holds": True if high < claim.below else False if low > claim.below else None,
            "figure": row.figure,
            "interval95": [low, high],
        }
    words = f"{claim.better} {'about as good as' if claim.ties else 'better than'} {claim.worse}"
    entry: dict[str, Any] = {"claim": words, "holds": None}
    if claim.better not in measured or claim.worse not in measured:
        return entry | {"why": "printed figures of other methods are on another data set"}
    better, worse = measured[claim.better].values, measured[claim.worse].values
    metric = table.row(claim.better).metric or table.metric
    gain = (better - worse) * (1 if metric in HIGHER_IS_BETTER else -1)
    low, high = interval(gain, measured[claim.better].people)
    entry |= {"gain": float(np.nanmean(gain)), "interval95": [low, high]}
    if claim.ties:
        # A tenth of the figure itself is "similar"; the papers' own ties lie within 2 %.
        margin = 0.1 * abs(measured[claim.worse].figure)
        holds = True if -margin < low and high < margin else None
        return entry | {"holds": False if low > margin or high < -margin else holds}
    return entry | {"holds": True if low > 0 else False if high < 0 else None}


def interval(values: Float[np.ndarray, "s b"], people: Shaped[np.ndarray, " b"] | None = None) -> list[float]:
    """95 % interval of the mean: over samples or people by resampling, with several seeds over those too."""
    if people is not None:
        values = np.stack([np.nanmean(values[:, people == one], axis=1) for one in np.unique(people)], axis=1)
    each = np.nanmean(values, axis=0)
    each = each[np.isfinite(each)]
    random = np.random.default_rng(0)
    means = [each[random.integers(len(each), size=len(each))].mean() for _ in range(RESAMPLES)]
    below, above = np.percentile(means, [2.5, 97.5]) - each.mean()
    seeds = len(values)
    if seeds > 1:
        spread = np.nanmean(values, axis=1).std(ddof=1) / seeds**0.5
        by_seed = STUDENT.get(seeds, 2.0) * spread
        below, above = -np.hypot(below, by_seed), np.hypot(above, by_seed)
    return [float(each.mean() + below), float(each.mean() + above)]


def _stem(document: Mapping[str, Any]) -> str:
    plain = str(document["table"]).replace(":", "_").replace(".", "_")
    return plain if document["table"] == CLAIMS else f"{plain}_{document['scale']}"


def _write(folder: Path, document: dict[str, Any]) -> dict[str, Any]:
    from handgraph.evaluation.results import markdown

    for suffix, text in ((".json", json.dumps(document, indent=1)), (".md", markdown(document))):
        with atomic_write(folder / f"{_stem(document)}{suffix}") as part:
            part.write_text(text, encoding="utf-8")
    return document


def surroundings() -> dict[str, Any]:
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


def _draw(path: Path, table: Table, document: Mapping[str, Any], measured: Mapping[str, Measured]) -> None:
    """Paper and ours side by side, or a figure's curves."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    lines = _lines(document)
    figure = Figure(
        figsize=(7, 0.45 * len(table.rows) + 1.6) if not table.curve and not lines else (6, 4), dpi=120
    )
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    if table.curve:
        for name, found in measured.items():
            if found.curve is not None:
                axes.plot(THRESHOLDS_MM, 100 * found.curve, label=name)
        axes.set_xlabel("threshold, mm")
        axes.set_ylabel("within threshold, %")
        axes.legend(loc="lower right")
    elif lines:
        for name, points in lines.items():
            x, y, low, high = np.array(points).T
            axes.errorbar(x, y, yerr=[y - low, high - y], marker="o", label=name)
        axes.set_xlabel("images K")
        axes.set_ylabel(UNITS[table.metric])
        axes.legend()
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


def _lines(document: Mapping[str, Any]) -> dict[str, list[tuple[float, ...]]]:
    """Rows named "WHAT, K = NUMBER" as lines over K; none where the rows are not."""
    lines: dict[str, list[tuple[float, ...]]] = {}
    for row in document["rows"]:
        name, found, k = row["name"].partition(", K = ")
        if found and "ours" in row:
            lines.setdefault(name, []).append((float(k), row["ours"], *row["interval95"]))
    return lines
