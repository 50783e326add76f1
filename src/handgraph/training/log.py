"""What a run leaves to read: lines on stderr, `log.jsonl`, TensorBoard scalars, a picture of the curve."""

from __future__ import annotations

import json
import math
import sys
import time
from pathlib import Path
from typing import Any

from tqdm import tqdm

from handgraph.files import atomic_write

SECONDS_BETWEEN_LINES = 30.0
# In the files, but too much for a line.
UNSAID = {
    f"{prefix}{name}" for prefix in ("", "root_relative_", "pa_") for name in ("median_mm", "auc_20_50")
}


class RunLog:
    """Writes a run's records. A silent one (`folder` None, for all processes but the first) writes nothing.

    Every record holds `step`. A resumed run cuts the file back to the step it resumes from, so that no step
    is there twice.
    """

    def __init__(self, folder: Path | None, step: int, steps: int) -> None:
        self.folder = folder
        self._said = self._drawn = time.monotonic()
        if folder is None:
            return
        kept = [line for line in _lines(folder) if line["step"] <= step]
        with atomic_write(folder / "log.jsonl") as part:
            part.write_text("".join(json.dumps(line) + "\n" for line in kept))
        self._file = (folder / "log.jsonl").open("a", encoding="utf-8")
        self._tensorboard = _tensorboard(folder, step)
        self._bar = tqdm(
            total=steps,
            initial=step,
            file=sys.stderr,
            disable=not sys.stderr.isatty(),
            unit="step",
            dynamic_ncols=True,
        )

    def say(self, text: str) -> None:
        """A line on stderr, beside the progress bar where there is one."""
        if self.folder is not None:
            self._bar.write(text, file=sys.stderr)

    def step(self) -> None:
        """Move the progress bar on by a step."""
        if self.folder is not None:
            self._bar.update()

    def write(self, kind: str, step: int, values: dict[str, Any]) -> None:
        """Record `values` of one step under `kind` (`train` or `validation`)."""
        if self.folder is None:
            return
        # JSON has no NaN: what is not a number is null.
        plain = {name: None if _is_nan(value) else value for name, value in values.items()}
        self._file.write(json.dumps({"kind": kind, "step": step, **plain}) + "\n")
        self._file.flush()
        for name, value in values.items():
            if self._tensorboard is not None and isinstance(value, int | float):
                self._tensorboard.add_scalar(f"{kind}/{name}", value, step)
        if kind == "validation" or time.monotonic() - self._said > SECONDS_BETWEEN_LINES:
            if kind == "validation" or self._bar.disable:
                shown = [f"{name} {_short(value)}" for name, value in values.items() if name not in UNSAID]
                self.say(f"step {step}: {kind} " + ", ".join(shown))
            self._said = time.monotonic()

    def draw(self) -> None:
        """Draw the curve anew, unless that was done a moment ago; `close` always does."""
        if self.folder is not None and time.monotonic() - self._drawn > SECONDS_BETWEEN_LINES:
            draw_curve(self.folder)
            self._drawn = time.monotonic()

    def close(self) -> None:
        """Close the files and draw the curve."""
        if self.folder is not None:
            draw_curve(self.folder)
            self._bar.close()
            self._file.close()
            if self._tensorboard is not None:
                self._tensorboard.close()


def draw_curve(run: Path) -> None:
    """Draw `curve.png` of a run from its `log.jsonl`. Without matplotlib there is no picture.

    A run with an adversary has a second panel: how far it tells true from false, and how steep its score is,
    below what its architecture leaves possible.
    """
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError:
        return
    lines = _lines(run)
    adversarial = any("score_gap" in line for line in lines)
    figure = Figure(figsize=(8, 7 if adversarial else 4.5), layout="constrained")
    canvas = FigureCanvasAgg(figure)
    panels = figure.subplots(2 if adversarial else 1, squeeze=False, sharex=True)[:, 0]
    left = panels[0]
    right, steep = left.twinx(), panels[-1].twinx() if adversarial else panels[-1]
    for kind, name, axes, style in (
        ("train", "loss", left, "C0-"),
        ("validation", "loss", left, "C0o--"),
        ("validation", "mpjpe_mm", right, "C1o-"),
        ("train", "score_gap", panels[-1], "C2-"),
        ("train", "lipschitz", steep, "C3-"),
        ("train", "lipschitz_bound", steep, "C3--"),
    ):
        points = [
            (line["step"], line[name])
            for line in lines
            if line["kind"] == kind and line.get(name) is not None
        ]
        if points:
            axes.plot(*zip(*points, strict=True), style, label=f"{kind} {name}", markersize=3)
    panels[-1].set(xlabel="optimiser step")
    if adversarial:
        panels[-1].set(ylabel="true less false score")
        steep.set(ylabel="slope of the score", ylim=(0, None))
    left.set(ylabel="loss", yscale="log")
    right.set(ylabel="mean joint error (mm)")
    if left.lines:
        figure.legend(loc="outside upper center", ncols=3)
    canvas.draw()
    with atomic_write(run / "curve.png") as part:
        figure.savefig(part, dpi=120)


def _lines(run: Path) -> list[dict[str, Any]]:
    """The records of a log; a last line torn off by a crash is left out."""
    path, records = run / "log.jsonl", []
    if path.exists():
        for line in path.read_text(encoding="utf-8").splitlines():
            try:
                records.append(json.loads(line))
            except json.JSONDecodeError:
                break
    return records


def _tensorboard(folder: Path, step: int) -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        return None
    return SummaryWriter(folder / "tensorboard", purge_step=step + 1)


def _is_nan(value: Any) -> bool:
    return isinstance(value, float) and not math.isfinite(value)


def _short(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


if __name__ == "__main__":  # python -m handgraph.training.log RUN…: draw the curves of these runs anew
    for _folder in sys.argv[1:]:
        draw_curve(Path(_folder))
