"""The training loop, to be read downwards: train → run_stage → validate.

A system brings `Config`, `loss(output, batch)`, `stages(config)` and what `Measures` asks for; a `Recipe`
says the rest. Where the network takes more than the batch's `image`, the system's `inputs(batch)` gives its
arguments; `prepare(module, stage, data, config)` is called before a stage, to fill what is computed from the
training data rather than learned; and a module with `set_stage(stage)` is told which stage it is in. What a
system brings that is trained against an adversary stands in `adversary`.

What a step does depends on the recipe and the step's number alone: its samples are a range of positions of
the data's stream, and the generators of random numbers are seeded anew by the step. So a run that was killed
and resumed ends with the very weights of one that was not (on the CPU, with the same number of threads).
"""

from __future__ import annotations

import copy
import logging
import math
import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from types import FrameType, ModuleType
from typing import Any

import numpy as np
import torch
import yaml
from torch import Tensor, nn

from handgraph.errors import ConfigError, HandgraphError, MissingExtraError
from handgraph.evaluation.measures import Measures, inputs
from handgraph.files import atomic_write
from handgraph.schedule import Stage
from handgraph.training import checkpoint
from handgraph.training.adversary import Adversary
from handgraph.training.data import Data, prepared_ahead, sample_indices, to_tensors
from handgraph.training.log import RunLog
from handgraph.training.muon import Muon
from handgraph.training.recipe import Recipe, build, stages_of
from handgraph.training.sources import open_data

try:
    from lightning_fabric import Fabric
except ImportError:  # pragma: no cover - the training extra is absent
    Fabric = None

VALIDATION_BATCH = 64
ADVERSARY = "adversary/"  # before its tensors' names in a training checkpoint
# These may differ between a run and its continuation: no weight depends on them.
FREE_ON_RESUME = ("checkpoint_seconds", "log_every", "validate_every", "validation_samples")
FREE_ON_RESUME_DATA = ("root", "threads", "ahead", "burst")


@dataclass
class Progress:
    """Where a run is: together with the recipe, all that a continuation needs beside the tensors."""

    step: int = 0
    """Optimiser steps done, over all stages."""
    seconds: float = 0.0
    """Time spent training, over all continuations."""
    best: float | None = None
    """Lowest validation value so far."""
    best_step: int | None = None


@dataclass
class Run:
    """What the functions below share."""

    recipe: Recipe
    folder: Path
    fabric: Any
    system: ModuleType
    config: Any
    module: nn.Module
    mean: nn.Module | None
    """A copy of the module that holds the running mean of its weights, where the recipe asks for one."""
    adversary: Adversary | None
    data: Data
    validation: Data
    log: RunLog
    progress: Progress
    stop: list[int]
    """The signals that asked the run to stop."""

    @property
    def kept(self) -> nn.Module:
        """The module to validate and to ship: the running mean where there is one."""
        return self.module if self.mean is None else self.mean


def train(
    recipe: Recipe, folder: str | Path, *, resume: bool = False, data: tuple[Data, Data] | None = None
) -> dict[str, Any]:
    """Train a system as the recipe says and leave checkpoints and logs in `folder`.

    `folder` gets `last.safetensors` and `best.safetensors` (see `checkpoint`), `recipe.yaml`, `log.jsonl`,
    `curve.png` and, where TensorBoard is installed, `tensorboard/`. With `resume` a run is continued from its
    last checkpoint, or begun where there is none (`handgraph train --resume` refuses that). `data` replaces
    the recipe's training and validation data. SIGTERM and SIGINT end the run after the current
    step with a checkpoint.

    Returns `run`, `checkpoint` (the best), `metrics` of the last validation, `step`, `steps` and `finished`.
    Raises ConfigError for a recipe or folder that does not fit, CheckpointError for damaged checkpoints, and
    HandgraphError when the loss is no longer a number.
    """
    folder = Path(folder)
    begun = (folder / "last.safetensors").is_file()
    if begun and not resume:
        raise ConfigError(f"{folder}: holds a run already, resume it or choose another folder")
    system = checkpoint.find_system(recipe.system)
    config = build(system.Config, recipe.config, "recipe", "config")
    training, validation = data or open_data(recipe)
    plan = stages_of(recipe, system.stages(config), len(training))
    steps = sum(count for _, count in plan)
    for stage, _ in plan:
        share_of(stage, int(os.environ.get("WORLD_SIZE", 1)))

    fabric = start_fabric(recipe)
    torch.manual_seed(recipe.seed)
    module = config.build()
    if recipe.weights is not None:
        module.load_state_dict(checkpoint.load_same(recipe.weights, recipe.system, config).state_dict())
    module = fabric.to_device(module.to(memory_format=torch.channels_last))
    mean = copy.deepcopy(module).requires_grad_(False) if recipe.ema else None
    adversary = Adversary.of(system, config, [stage for stage, _ in plan], fabric)
    progress = Progress()
    optimizer_state: dict[str, Tensor] = {}
    if begun:
        progress, optimizer_state = restore(folder / "last.safetensors", recipe, module, mean, adversary)
    fabric.barrier()

    log = RunLog(folder if fabric.is_global_zero else None, progress.step, steps)
    run = Run(
        recipe,
        folder,
        fabric,
        system,
        config,
        module,
        mean,
        adversary,
        training,
        validation,
        log,
        progress,
        stop=[],
    )
    if fabric.is_global_zero:
        with atomic_write(folder / "recipe.yaml") as part:
            part.write_text(yaml.safe_dump(recipe.to_dict(), sort_keys=False, allow_unicode=True), "utf-8")
    log.say(f"device {describe_device(fabric.device)}; {recipe.precision}, {fabric.world_size} process(es)")
    if resume and not begun:
        log.say(f"{folder}: no checkpoint to resume from, the run begins")
    if progress.step:
        log.say(f"resuming at step {progress.step} of {steps}")
    metrics: dict[str, float] = {}
    try:
        with stop_on_signal(run.stop):
            first_step = first_sample = 0
            for stage, count in plan:
                if progress.step < first_step + count and not run.stop:
                    metrics = run_stage(run, stage, first_step, count, first_sample, optimizer_state)
                    optimizer_state = {}
                first_step, first_sample = first_step + count, first_sample + count * stage.batch_size
    finally:
        log.close()
    if run.stop:
        log.say(f"stopped by {signal.Signals(run.stop[0]).name} at step {progress.step} of {steps}, saved")
    return {
        "run": str(folder),
        "checkpoint": str(folder / "best.safetensors"),
        "metrics": metrics or checkpoint.read_meta(folder / "last.safetensors").get("metrics", {}),
        "step": progress.step,
        "steps": steps,
        "finished": progress.step == steps,
        "signal": run.stop[0] if run.stop else None,
    }


def run_stage(
    run: Run, stage: Stage, first_step: int, steps: int, first_sample: int, optimizer_state: dict[str, Tensor]
) -> dict[str, float]:
    """Train one stage from where the run stands to its end; returns the metrics of its last validation.

    `first_step` and `first_sample` are where the stage begins in the run.
    """
    recipe, fabric, progress, module = run.recipe, run.fabric, run.progress, run.module
    last_step, done = first_step + steps, progress.step
    if done == first_step:
        progress.best = progress.best_step = None  # of another stage, whose loss may be another
        if hasattr(run.system, "prepare"):
            run.system.prepare(module, stage, run.data, run.config)
            if run.mean is not None and not progress.step:
                update_mean(run.mean, module, 0.0)  # weights that were read in begin the mean
    enter_stage(run, stage)
    for name, parameter in module.named_parameters():
        parameter.requires_grad_(stage.learns(name))
    optimizer = make_optimizer(module, stage)
    restore_optimizer(optimizer, module, optimizer_state)
    wrapped, optimizer = fabric.setup(module, optimizer)
    adversary = run.adversary if stage.critic_steps else None
    if adversary is not None:
        adversary_optimizer = make_optimizer(adversary.module.requires_grad_(True), stage)
        restore_optimizer(adversary_optimizer, adversary.module, optimizer_state, ADVERSARY)
        adversary.enter(stage, adversary_optimizer)
    run.log.say(
        f"stage {stage.name}: steps {first_step + 1}-{last_step}, {stage.optimizer}, "
        f"learning rate {stage.learning_rate:g} for a total batch of {stage.batch_size}"
    )

    def positions() -> Iterator[np.ndarray]:
        """This process's share of each step's samples."""
        share = share_of(stage, fabric.world_size)
        for step in range(done, last_step):
            start = first_sample + (step - first_step) * stage.batch_size + fabric.global_rank * share
            yield np.arange(start, start + share)

    set_training(module, stage)
    metrics: dict[str, float] = {}
    sums: dict[str, Tensor] = {}
    counted, clock, saved = 0, time.monotonic(), time.monotonic()
    batches = load(run, run.data, positions(), shuffled=True)
    for batch in batches:
        rate = stage.learning_rate_at((progress.step - first_step + 0.5) / steps)
        for group in optimizer.param_groups:
            group["lr"] = rate
        seed = np.random.SeedSequence([recipe.seed, progress.step, fabric.global_rank])
        torch.manual_seed(int(seed.generate_state(1)[0]))

        output = wrapped(*inputs(run.system, batch))
        judged = {} if adversary is None else adversary.learn(output, batch, rate)
        terms = losses(run, stage, output, batch)
        loss = weighted(terms, stage)
        fabric.backward(loss)
        if recipe.gradient_clip:
            fabric.clip_gradients(wrapped, optimizer, max_norm=recipe.gradient_clip, error_if_nonfinite=False)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        if run.mean is not None:
            update_mean(run.mean, module, recipe.ema)

        progress.step += 1
        run.log.step()
        for name, term in {"loss": loss, **terms, **judged}.items():
            sums[name] = sums[name] + term.detach() if name in sums else term.detach()
        counted += 1
        stop, last = agreed_stop(run), progress.step == last_step
        due = time.monotonic() - saved > recipe.checkpoint_seconds
        validating = last or progress.step % recipe.validate_every == 0
        if due or stop or validating or progress.step % recipe.log_every == 0:
            seconds = time.monotonic() - clock
            progress.seconds += seconds
            rates = {"learning_rate": rate, "images_per_s": counted * stage.batch_size / seconds}
            if adversary is not None:
                rates |= adversary.measure(output, batch)
            record(run, sums, counted, rates)
            sums, counted, clock = {}, 0, time.monotonic()
        if validating:
            metrics = validate(run, stage)
            set_training(module, stage)
            clock = time.monotonic()
        if due or stop or last or validating:
            save(run, optimizer, metrics, stage_done=last)
            saved = clock = time.monotonic()
        if stop:
            break
    batches.close()
    return metrics


@torch.no_grad()
def validate(run: Run, stage: Stage) -> dict[str, float]:
    """Measure the kept weights on the first samples of the validation data; keep them as `best` if they are.

    Only the first process measures; the others wait. The best of a stage is the lowest `mpjpe_mm`, or of a
    system without 3D the lowest `relative_error`, or else the lowest loss.
    """
    metrics: dict[str, float] = {}
    if run.fabric.is_global_zero:
        module = run.kept.eval()
        samples = run.recipe.validation_samples
        if not run.validation.endless:
            samples = min(samples, len(run.validation))
        positions = (
            np.arange(start, min(start + VALIDATION_BATCH, samples))
            for start in range(0, samples, VALIDATION_BATCH)
        )
        if run.adversary is not None:
            run.adversary.module.eval()
        total, measures = 0.0, Measures(run.system)
        for batch in load(run, run.validation, positions, shuffled=False):
            with run.fabric.autocast():
                output = module(*inputs(run.system, batch))
            count = len(batch["image"])
            total += count * float(weighted(losses(run, stage, output, batch), stage))
            measures.update(output, batch)
        metrics = {"loss": total / samples}
        metrics |= {name: value for name, value in measures.compute().items() if isinstance(value, float)}
        run.log.write("validation", run.progress.step, metrics)
        run.log.draw()
        value = metrics.get("mpjpe_mm", metrics.get("relative_error", metrics["loss"]))
        if run.progress.best is None or value < run.progress.best:
            run.progress.best, run.progress.best_step = value, run.progress.step
            best = run.folder / "best.safetensors"
            checkpoint.write(best, run.kept.state_dict(), description(run, metrics))
    run.fabric.barrier()
    return metrics


def start_fabric(recipe: Recipe) -> Any:
    """Lightning Fabric on what is there: one GPU or the CPU, or all processes that `torchrun` started."""
    if Fabric is None:
        raise MissingExtraError("training needs lightning-fabric: pip install 'handgraph[train]'")
    logging.getLogger("lightning_fabric").setLevel(logging.WARNING)  # `train` says the precision itself
    processes = int(os.environ.get("WORLD_SIZE", 1))
    if processes == 1:
        return Fabric(accelerator="auto", devices=1, precision=recipe.precision)
    local = int(os.environ.get("LOCAL_WORLD_SIZE", processes))
    fabric = Fabric(
        accelerator="auto",
        strategy="ddp",
        devices=local,
        num_nodes=processes // local,
        precision=recipe.precision,
    )
    fabric.launch()
    return fabric


def share_of(stage: Stage, processes: int) -> int:
    """Samples of a step that each process takes. Raises ConfigError where they cannot be split evenly."""
    if stage.batch_size % processes:
        raise ConfigError(
            f"stage {stage.name}: a batch of {stage.batch_size} cannot be split over {processes}"
        )
    return stage.batch_size // processes


def make_optimizer(module: nn.Module, stage: Stage) -> torch.optim.Optimizer:
    """The stage's optimiser over the parameters that learn. Biases and normalisation are not decayed."""
    learning = [parameter for parameter in module.parameters() if parameter.requires_grad]
    if not learning:
        raise ConfigError(f"stage {stage.name}: no parameter's name begins with {' or '.join(stage.trains)}")
    groups: list[dict[str, Any]] = [
        {"params": [parameter for parameter in learning if parameter.ndim > 1]},
        {"params": [parameter for parameter in learning if parameter.ndim <= 1], "weight_decay": 0.0},
    ]
    common: dict[str, Any] = {"lr": stage.learning_rate, "weight_decay": stage.weight_decay}
    if stage.optimizer == "adam":
        return torch.optim.Adam(groups, betas=stage.betas, fused=True, **common)
    if stage.optimizer == "adamw":
        return torch.optim.AdamW(groups, betas=stage.betas, fused=True, **common)
    if stage.optimizer == "muon":
        return Muon(groups, betas=stage.betas, fused=True, **common)
    if stage.optimizer == "sgd":
        return torch.optim.SGD(groups, momentum=0.9, **common)
    return torch.optim.Adadelta(groups, **common)


def enter_stage(run: Run, stage: Stage) -> None:
    """Tell a network whose forward pass differs between stages which one this is."""
    for module in (run.module, run.mean):
        set_stage: Any = getattr(module, "set_stage", None)
        if set_stage is not None:
            set_stage(stage)


def set_training(module: nn.Module, stage: Stage) -> None:
    """Training mode, except for frozen parts: their batch statistics stay as they are."""
    module.train()
    for part in module.modules():
        parameters = list(part.parameters())
        if parameters and not any(parameter.requires_grad for parameter in parameters):
            part.eval()


def losses(run: Run, stage: Stage, output: Any, batch: dict[str, Any]) -> dict[str, Tensor]:
    """The system's loss terms, with the adversary's part where it takes part."""
    terms: dict[str, Tensor] = run.system.loss(output, batch)
    if run.adversary is not None and stage.critic_steps:
        terms |= run.adversary.judge(output, batch)
    return terms


def weighted(terms: dict[str, Tensor], stage: Stage) -> Tensor:
    """The stage's loss: its weights times the system's terms."""
    unknown = [name for name in stage.loss_weights if name not in terms]
    if unknown:
        raise ConfigError(f"stage {stage.name}: no loss term {unknown[0]}, expected among {', '.join(terms)}")
    return torch.stack([weight * terms[name] for name, weight in stage.loss_weights.items()]).sum()


@torch.no_grad()
def update_mean(mean: nn.Module, module: nn.Module, decay: float) -> None:
    """Move the running mean towards the module's parameters; buffers are copied."""
    torch._foreach_lerp_(list(mean.parameters()), list(module.parameters()), 1 - decay)
    for old, new in zip(mean.buffers(), module.buffers(), strict=True):
        old.copy_(new)


def load(run: Run, data: Data, positions: Iterator[np.ndarray], *, shuffled: bool) -> Any:
    """Batches at these positions of the data's stream, as tensors on the run's device."""
    recipe, samples = run.recipe.data, len(data)

    def prepare(where: np.ndarray) -> dict[str, Any]:
        indices = sample_indices(where, samples, recipe.seed, endless=data.endless) if shuffled else where
        return to_tensors(data.batch(indices, where))

    ahead = prepared_ahead(prepare, positions, threads=recipe.threads, ahead=recipe.ahead, burst=recipe.burst)
    try:
        for batch in ahead:
            yield {
                name: value.to(run.fabric.device, non_blocking=True) if isinstance(value, Tensor) else value
                for name, value in batch.items()
            }
    finally:
        ahead.close()


def record(run: Run, sums: dict[str, Tensor], counted: int, values: dict[str, float]) -> None:
    """Log the mean loss terms since the last record. Raises HandgraphError when they are not numbers."""
    means = {name: float(run.fabric.all_reduce(value / counted)) for name, value in sums.items()}
    if not math.isfinite(means["loss"]):
        raise HandgraphError(
            f"{run.folder}: the loss is {means['loss']} at step {run.progress.step}; lower the learning rate "
            "or clip the gradient, then resume from the last checkpoint"
        )
    run.log.write("train", run.progress.step, means | values | {"seconds": round(run.progress.seconds, 1)})


def save(run: Run, optimizer: Any, metrics: dict[str, float], *, stage_done: bool) -> None:
    """Write `last`. A finished stage's optimiser is not needed any more and is left out."""
    if not run.fabric.is_global_zero:
        return
    tensors = dict(run.kept.state_dict())
    if run.mean is not None:
        tensors |= {f"{checkpoint.TRAINING}weights/{n}": t for n, t in run.module.state_dict().items()}
    if run.adversary is not None:
        state = run.adversary.module.state_dict()
        tensors |= {f"{checkpoint.TRAINING}{ADVERSARY}{name}": tensor for name, tensor in state.items()}
    if not stage_done:
        tensors |= optimizer_tensors(optimizer, run.module)
        if run.adversary is not None and run.adversary.optimizer is not None:
            tensors |= optimizer_tensors(run.adversary.optimizer, run.adversary.module, ADVERSARY)
    meta = description(run, metrics) | {"training": asdict(run.progress)}
    checkpoint.write(run.folder / "last.safetensors", tensors, meta)


def optimizer_tensors(optimizer: Any, module: nn.Module, owner: str = "") -> dict[str, Tensor]:
    """An optimiser's state under the names that a checkpoint gives it."""
    return {
        f"{checkpoint.TRAINING}optimizer/{owner}{name}/{key}": value
        for name, parameter in module.named_parameters()
        for key, value in optimizer.state.get(parameter, {}).items()
        if isinstance(value, Tensor)
    }


def description(run: Run, metrics: dict[str, float]) -> dict[str, Any]:
    """What a checkpoint says about itself."""
    return {
        "system": run.recipe.system,
        "config": asdict(run.config),
        "recipe": run.recipe.to_dict(),
        "step": run.progress.step,
        "metrics": metrics,
    }


def restore(
    path: Path, recipe: Recipe, module: nn.Module, mean: nn.Module | None, adversary: Adversary | None
) -> tuple[Progress, dict[str, Tensor]]:
    """Fill the modules from a training checkpoint; returns where it stood and the optimisers' tensors."""
    tensors, meta = checkpoint.read_training(path)
    check_same(meta["recipe"], recipe, path)
    weights, raw, optimizer, other_side = {}, {}, {}, {}
    for name, tensor in tensors.items():
        if name.startswith(f"{checkpoint.TRAINING}weights/"):
            raw[name.removeprefix(f"{checkpoint.TRAINING}weights/")] = tensor
        elif name.startswith(f"{checkpoint.TRAINING}{ADVERSARY}"):
            other_side[name.removeprefix(f"{checkpoint.TRAINING}{ADVERSARY}")] = tensor
        elif name.startswith(f"{checkpoint.TRAINING}optimizer/"):
            optimizer[name.removeprefix(f"{checkpoint.TRAINING}optimizer/")] = tensor
        else:
            weights[name] = tensor
    checkpoint.load_into(module, weights if mean is None else raw, str(path))
    if mean is not None:
        checkpoint.load_into(mean, weights, str(path))
    if adversary is not None:
        checkpoint.load_into(adversary.module, other_side, str(path))
    return build(Progress, meta["training"], path.name, "training"), optimizer


def check_same(before: dict[str, Any], recipe: Recipe, path: Path) -> None:
    """Raise ConfigError where the recipe of a continuation would give other weights than the run's own."""

    def binding(values: dict[str, Any]) -> dict[str, Any]:
        kept = {key: value for key, value in values.items() if key not in (*FREE_ON_RESUME, "data")}
        return kept | {
            f"data.{key}": value for key, value in values["data"].items() if key not in FREE_ON_RESUME_DATA
        }

    old, new = binding(before), binding(recipe.to_dict())
    for key in old.keys() | new.keys():
        if old.get(key) != new.get(key):
            raise ConfigError(
                f"{path}: was trained with {key} = {old.get(key)!r}, cannot resume with {new.get(key)!r}"
            )


def restore_optimizer(optimizer: Any, module: nn.Module, state: dict[str, Tensor], owner: str = "") -> None:
    """Give each parameter its optimiser state back, in the parameter's own memory layout.

    The layout matters: vectorised arithmetic rounds its remainder elements differently.
    """
    for name, parameter in module.named_parameters():
        for key, value in state.items():
            holder, _, entry = key.rpartition("/")
            if holder != f"{owner}{name}":
                continue
            if value.shape == parameter.shape:
                value = torch.empty_like(parameter, dtype=value.dtype).copy_(value)
            optimizer.state[parameter][entry] = value.to(parameter.device)


@contextmanager
def stop_on_signal(received: list[int]) -> Iterator[None]:
    """Note SIGTERM and SIGINT in `received` instead of dying of them; a second one acts as usual."""

    def note(number: int, frame: FrameType | None) -> None:
        received.append(number)
        signal.signal(number, before[number])

    before: dict[int, Any] = {}
    try:
        for number in (int(signal.SIGTERM), int(signal.SIGINT)):
            before[number] = signal.signal(number, note)
    except ValueError:  # not the main thread: whoever runs us there handles signals
        pass
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def agreed_stop(run: Run) -> bool:
    """Whether any process was asked to stop: all must leave at the same step."""
    if run.fabric.world_size == 1:
        return bool(run.stop)
    if run.fabric.all_reduce(torch.tensor(float(bool(run.stop))), reduce_op="sum") > 0:
        run.stop.append(signal.SIGTERM)
    return bool(run.stop)


def describe_device(device: torch.device) -> str:
    """The device in words: the GPU's name, or the processor's and the number of threads."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    name = "CPU"
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                name = line.partition(":")[2].strip()
                break
    except OSError:
        pass
    return f"{name}, {torch.get_num_threads()} threads"
