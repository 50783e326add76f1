"""Many methods side by side: success curves as a picture, figures as a table for a paper or a page."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
from jaxtyping import Float

from handgraph.errors import ConfigError, MissingExtraError
from handgraph.evaluation.metrics import CROP_OVER_BOX, pck_curve, success_curve
from handgraph.evaluation.score import Scored
from handgraph.files import atomic_write

SUCCESS_MM = np.arange(0.0, 80.5, 0.5)
PCK_CROP = np.arange(0.0, 0.1005, 0.0005)
TableForm = Literal["md", "latex"]

_COLUMNS_MM = (
    ("mean [mm]", "mean_mm", "{:.2f}"),
    ("95 % interval", "mean_mm_interval95", "{0[0]:.2f} to {0[1]:.2f}"),
    ("median", "median_mm", "{:.2f}"),
    ("Procrustes", "pa_mean_mm", "{:.2f}"),
    ("AUC 0-50", "auc", "{:.3f}"),
    ("frames within 20 mm", ("success", "20"), "{:.1%}"),
    ("40 mm", ("success", "40"), "{:.1%}"),
    ("80 mm", ("success", "80"), "{:.1%}"),
    ("n", "n", "{}"),
)
_COLUMNS_PX = (
    ("EPE [px]", "epe_px", "{:.2f}"),
    ("95 % interval", "epe_px_interval95", "{0[0]:.2f} to {0[1]:.2f}"),
    ("PCK 0.05 of the crop", ("pck_crop", "0.05"), "{:.1%}"),
    ("mPCK 0.01-0.06", "mpck_crop_06", "{:.1%}"),
    ("mPCK 0.01-0.10", "mpck_crop_10", "{:.1%}"),
    ("n", "n", "{}"),
    ("missed", "missed", "{}"),
)


def table(rows: Sequence[tuple[str, Scored]], form: TableForm = "md") -> str:
    """The figures of files, best first, as a Markdown or LaTeX table. Raises ConfigError without rows."""
    if not rows:
        raise ConfigError("nothing to put into a table")
    unit = rows[0][1].unit
    columns = _COLUMNS_MM if unit == "mm" else _COLUMNS_PX
    key = "mean_mm" if unit == "mm" else "epe_px"
    ordered = sorted(rows, key=lambda row: float(row[1].figures[key]))
    names = labels([name for name, _ in ordered])
    cells = [
        [name, *(_cell(scored.figures, path, shape) for _, path, shape in columns)]
        for name, (_, scored) in zip(names, ordered, strict=True)
    ]
    heads = ["file", *(head for head, _, _ in columns)]
    if form == "md":
        ruler = ["---", *["---:"] * len(columns)]
        return "\n".join("| " + " | ".join(row) + " |" for row in (heads, ruler, *cells))
    lines = [" & ".join(_latex(cell) for cell in row) + r" \\" for row in (heads, *cells)]
    begin = r"\begin{tabular}{l" + "r" * len(columns) + "}"
    return "\n".join([begin, r"\hline", lines[0], r"\hline", *lines[1:], r"\hline", r"\end{tabular}"])


def plot_curves(path: str | Path, rows: Sequence[tuple[str, Scored]], title: str = "") -> None:
    """Draw one curve a file, whole or not at all.

    3D: the share of frames whose worst joint is within 0 to 80 mm. 2D: the share of keypoints within 0 to 0.1
    of the papers' crop (2.2 hand boxes). Raises ConfigError for no rows, MissingExtraError without
    matplotlib, InputError where the file cannot be written.
    """
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError as error:
        raise MissingExtraError(f"{path}: drawing needs matplotlib; pip install 'handgraph[docs]'") from error
    if not rows:
        raise ConfigError("nothing to draw")
    unit = rows[0][1].unit
    key = "mean_mm" if unit == "mm" else "epe_px"
    figure = Figure(figsize=(8, 5.5), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    ordered = sorted(
        zip(labels([name for name, _ in rows]), rows, strict=True), key=lambda row: row[1][1].figures[key]
    )
    for number, (name, (_, scored)) in enumerate(ordered):
        thresholds, shares = curve(scored)
        style = ("-", "--", ":", "-.")[number // 10 % 4]
        axes.plot(thresholds, 100 * shares, style, label=f"{name} ({scored.figures[key]:.2f} {unit})", lw=1.6)
    if unit == "mm":
        axes.set(xlabel="worst joint's error [mm]", ylabel="frames within it [%]", xlim=(0, 80))
    else:
        axes.set(xlabel="error [part of the crop's side]", ylabel="keypoints within it [%]", xlim=(0, 0.1))
    axes.set(ylim=(0, 100), title=title)
    axes.grid(alpha=0.3)
    axes.legend(fontsize="small", loc="lower right")
    with atomic_write(path) as part:
        figure.savefig(part, dpi=130)


def curve(scored: Scored) -> tuple[Float[np.ndarray, " t"], Float[np.ndarray, " t"]]:
    """The thresholds and shares that `plot_curves` draws for one file."""
    if scored.unit == "mm":
        return SUCCESS_MM, success_curve(scored.errors, SUCCESS_MM)
    assert scored.relative is not None
    return PCK_CROP, pck_curve(scored.relative / CROP_OVER_BOX, PCK_CROP)


def labels(files: Sequence[str]) -> list[str]:
    """Short names of files: without folder and suffixes where that still tells them apart."""
    short = [Path(file).name.split(".")[0] for file in files]
    return short if len(set(short)) == len(short) else list(files)


def _cell(figures: dict[str, Any], path: str | tuple[str, str], shape: str) -> str:
    value = figures[path[0]][path[1]] if isinstance(path, tuple) else figures.get(path)
    return "-" if value is None else shape.format(value)


def _latex(text: str) -> str:
    return "".join("\\" + character if character in "%_&#$" else character for character in text)
