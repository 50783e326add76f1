"""The papers' tables as data: rows that are configurations, the printed figures, and what the texts claim.

A table is named `paper:number` as in its paper: `jgr:2`, `sia:5.1`, `refine:IV`. A row without a system is
another method's printed figure. `reproduce` trains, measures and compares what is here; nothing here runs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, Literal

Metric = Literal["mpjpe_mm", "mpck", "accuracy_2d", "accuracy_3d", "epe_px", "auc_20_50"]

UNITS: dict[str, str] = {
    "mpjpe_mm": "mm",
    "mpck": "mPCK, %",
    "accuracy_2d": "%",
    "accuracy_3d": "%",
    "epe_px": "px",
    "auc_20_50": "",
}
HIGHER_IS_BETTER = ("mpck", "accuracy_2d", "accuracy_3d", "auc_20_50")


@dataclass(frozen=True)
class Row:
    """One row: what is trained, and what the paper prints for it."""

    name: str
    paper: float | None
    system: str | None = None
    """None: another method, of which only the printed figure is known."""
    config: Mapping[str, Any] = field(default_factory=dict)
    """The paper's switches, on top of the scale's own sizes."""
    until: str | None = None
    """The stage after which the row is measured; None: the last one."""
    metric: Metric | None = None
    """Where a row's figure is another than its table's."""


@dataclass(frozen=True)
class Claim:
    """The text says that one row is better than another; `ties` where it says that they hardly differ."""

    better: str
    worse: str
    ties: bool = False


@dataclass(frozen=True)
class Table:
    """A table or figure of a paper."""

    title: str
    dataset: str
    metric: Metric
    rows: Sequence[Row]
    claims: Sequence[Claim] = ()
    curve: bool = False
    """A figure: the share of joints or frames below a threshold, drawn for every row."""

    def row(self, name: str) -> Row:
        """The row of this name."""
        return next(row for row in self.rows if row.name == name)

    @property
    def runnable(self) -> list[Row]:
        """The rows that are ours to train."""
        return [row for row in self.rows if row.system is not None]


def _jgr(name: str, paper: float | None, **config: Any) -> Row:
    return Row(name, paper, "jgr_p2o", config)


def _printed(figures: Mapping[str, float]) -> list[Row]:
    return [Row(name, figure) for name, figure in figures.items()]


_PLAIN = {"reasoning": "none"}
_DEPTH_METHODS = {
    "DeepModel": 17.04, "DeepPrior": 19.73, "DeepPrior++": 12.24, "REN-4x6x6": 13.39, "REN-9x6x6": 12.69,
    "Pose-REN": 11.81, "3DCNN": 14.1, "HandPointNet": 10.54, "SHPR-Net": 10.78, "CrossInfoNet": 10.08,
    "DenseReg": 10.2, "Point-to-Point": 9.10, "V2V-PoseNet": 8.42, "Point-to-Pose Voting": 8.99, "A2J": 8.61,
}  # fmt: skip


def _sia(unary: Literal["cpm", "hourglass"], figures: Sequence[float]) -> tuple[list[Row], list[Claim]]:
    """Tables 5.1 and 5.2: the estimator alone, then SIA-GCN heads on it."""
    one = {"unary": unary, "heads": 1}
    rows = [
        Row("baseline", figures[0], unary),
        Row("shared weights", figures[1], "siapose", one | {"shared_weights": True}),
        Row("1 head", figures[2], "siapose", one),
        Row("5 heads", figures[3], "siapose", {"unary": unary, "heads": 5}),
        Row("10 heads", figures[4], "siapose", {"unary": unary, "heads": 10}),
        Row("10 heads, rotation", figures[5], "siapose", {"unary": unary, "heads": 10, "rotation": True}),
    ]
    names = [row.name for row in rows]
    order = [names[1], names[0], *names[2:]]
    return rows, [Claim(better, worse) for worse, better in pairwise(order)]


def _hybrid(name: str, paper: float | None, metric: Metric | None = None, **config: Any) -> Row:
    return Row(name, paper, "hybrid_gcn", config, metric=metric)


def _refine(name: str, paper: float, until: str | None = None, **config: Any) -> Row:
    return Row(name, paper, "graph_refine", config, until)


def _rmgmn(name: str, paper: float, **config: Any) -> Row:
    return Row(name, paper, "rmgmn", config)


_SHG, _SHG_CLAIMS = _sia("hourglass", (77.12, 75.34, 77.55, 78.45, 78.72, 81.48))
_CPM, _CPM_CLAIMS = _sia("cpm", (71.55, 70.63, 72.55, 72.74, 73.11, 74.47))
_STAGES = ("prior", "generator", "adversarial")

TABLES: dict[str, Table] = {
    "jgr:1": Table(
        "graph structures of the reasoning module", "nyu", "mpjpe_mm",
        [
            _jgr("skeleton graph", 8.29, graph="skeleton"),
            _jgr("feature similarity", 8.45, graph="similarity"),
            _jgr("parameterised matrix", 8.36, graph="parameterised"),
        ],
        [
            Claim("skeleton graph", "feature similarity", ties=True),
            Claim("skeleton graph", "parameterised matrix", ties=True),
        ],
    ),
    "jgr:2": Table(
        "what each component adds", "nyu", "mpjpe_mm",
        [
            _jgr("P2O", 10.83, offset_loss=False, **_PLAIN),
            _jgr("P2O + offset loss", 10.54, **_PLAIN),
            _jgr("P2O + offset loss + JGR", 8.29),
        ],
        [Claim("P2O + offset loss", "P2O"), Claim("P2O + offset loss + JGR", "P2O + offset loss")],
    ),
    "jgr:3": Table(
        "number of hourglasses", "nyu", "mpjpe_mm",
        [_jgr(f"{n} hourglass{'es' if n > 1 else ''}", mm, hourglasses=n)
         for n, mm in ((1, 8.63), (2, 8.29), (3, 8.27))],
        [Claim("2 hourglasses", "1 hourglass"), Claim("3 hourglasses", "2 hourglasses", ties=True)],
    ),
    "jgr:4": Table(
        "baselines", "nyu", "mpjpe_mm",
        [
            _jgr("attention", 8.72, reasoning="attention"),
            _jgr("differentiable heat map", 8.69, head="heatmap"),
            _jgr("JGR-P2O", 8.29),
        ],
        [Claim("JGR-P2O", "attention"), Claim("JGR-P2O", "differentiable heat map")],
    ),
    "jgr:5": Table(
        "state of the art", "nyu", "mpjpe_mm", [*_printed(_DEPTH_METHODS), _jgr("JGR-P2O", 8.29)],
        [Claim("JGR-P2O", name) for name in _DEPTH_METHODS],
    ),
    "jgr:fig4": Table(
        "success frames by their worst joint", "nyu", "mpjpe_mm", [_jgr("JGR-P2O", 8.29)], curve=True
    ),
    "hybrid:2": Table(
        "components", "rhd", "mpjpe_mm",
        [
            _hybrid("A: without classification", 19.16, relations=False, refinement="none"),
            _hybrid("B: without refinement", 14.76, refinement="none"),
            _hybrid("C: FC refinement", 14.68, refinement="fc"),
            _hybrid("D: KNN refinement", 13.43, refinement="knn"),
            _hybrid("full", 12.81),
        ],
        [
            Claim("B: without refinement", "A: without classification"),
            Claim("C: FC refinement", "B: without refinement"),
            Claim("D: KNN refinement", "C: FC refinement"),
            Claim("full", "D: KNN refinement"),
        ],
    ),
    "hybrid:3": Table(
        "number of classes", "rhd", "accuracy_3d",
        [
            *(_hybrid(f"2D: {n * n} classes", figure, "accuracy_2d", splits_2d=n, refinement="none")
              for n, figure in ((2, 99.98), (3, 99.96), (4, 99.91), (5, 99.86))),
            *(_hybrid(f"3D: {n ** 3} classes", figure, splits_3d=n, refinement="none")
              for n, figure in ((2, 99.97), (3, 99.83), (4, 95.15), (5, 88.11))),
        ],
        [
            *(Claim(f"2D: {n * n} classes", f"2D: {(n + 1) ** 2} classes") for n in (2, 3, 4)),
            *(Claim(f"3D: {n ** 3} classes", f"3D: {(n + 1) ** 3} classes") for n in (2, 3, 4)),
        ],
    ),
    "hybrid:4": Table(
        "2D error, state of the art", "rhd", "epe_px",
        [*_printed({"Zimmermann et al.": 9.14, "Iqbal et al.": 3.57}), _hybrid("full", 2.91)],
        [Claim("full", "Zimmermann et al."), Claim("full", "Iqbal et al.")],
    ),
    "hybrid:5": Table(
        "AUC of 3D PCK, state of the art", "rhd", "auc_20_50",
        [
            *_printed({
                "Zimmermann et al.": 0.675, "Spurr et al.": 0.849, "Cai et al. 2018": 0.887,
                "Yang et al.": 0.849, "Baek et al.": 0.926, "Ge et al.": 0.920, "Zhang et al.": 0.901,
                "Guo et al.": 0.933, "Zhao et al.": 0.872, "Zhou et al.": 0.856, "Gu et al.": 0.887,
            }),
            _hybrid("full", 0.939),
        ],
        [Claim("full", "Guo et al.")],
    ),
    "hybrid:6": Table(
        "3D error, state of the art", "rhd", "mpjpe_mm",
        [
            *_printed({
                "Zimmermann et al.": 30.42, "Spurr et al.": 19.73, "Yang et al.": 19.95, "Gu et al.": 17.11,
            }),
            _hybrid("full", 12.81),
        ],
        [Claim("full", "Gu et al.")],
    ),
    "hybrid:fig6": Table("3D PCK on STB", "stb", "mpjpe_mm", [_hybrid("full", 6.58)], curve=True),
    "hybrid:fig7": Table("3D PCK on RHD", "rhd", "mpjpe_mm", [_hybrid("full", 12.81)], curve=True),
    "refine:I": Table(
        "stages", "rhd", "mpjpe_mm",
        [_refine(f"stage {number}", mm, until)
         for number, until, mm in zip(("I", "II", "III"), _STAGES, (83.3669, 15.8356, 12.4036), strict=True)],
        [Claim("stage II", "stage I"), Claim("stage III", "stage II")],
    ),
    "refine:II": Table(
        "refinement module", "rhd", "mpjpe_mm",
        [
            _refine("FC", 37.5908, "generator", refinement="fc"),
            _refine("GCN", 15.8356, "generator"),
            _refine("FC, discriminator", 25.1456, refinement="fc"),
            _refine("GCN, discriminator", 12.4036),
        ],
        [
            Claim("GCN", "FC"), Claim("GCN, discriminator", "FC, discriminator"),
            Claim("FC, discriminator", "FC"), Claim("GCN, discriminator", "GCN"),
        ],
    ),
    "refine:III": Table(
        "discriminator", "rhd", "mpjpe_mm",
        [_refine("multi-source", 12.4036), _refine("single-source", 15.0987, discriminator="single")],
        [Claim("multi-source", "single-source")],
    ),
    "refine:IV": Table(
        "bone losses", "rhd", "mpjpe_mm",
        [
            _refine(f"{name}, stage {number}", mm, until, length_loss=length, direction_loss=direction)
            for name, length, direction, figures in (
                ("pose and projection", False, False, (99.2375, 25.9614, 15.0731)),
                ("with length", True, False, (95.1854, 22.9613, 14.7620)),
                ("with direction", False, True, (89.7623, 21.6328, 14.0072)),
                ("with both", True, True, (83.3669, 15.8356, 12.4036)),
            )
            for number, until, mm in zip(("I", "II", "III"), _STAGES, figures, strict=True)
        ],
        [
            Claim(f"{better}, stage {number}", f"{worse}, stage {number}")
            for number in ("I", "II", "III")
            for better, worse in (
                ("with length", "pose and projection"), ("with direction", "with length"),
                ("with both", "with direction"),
            )
        ],
    ),
    "refine:V": Table(
        "state of the art", "stb", "mpjpe_mm",
        [
            *_printed({"Ge et al.": 6.37, "Boukhayma et al.": 9.76, "Cai et al.": 7.24}),
            _refine("stage II", 5.12, "generator"), _refine("stage III", 3.97),
        ],
        [Claim("stage II", "Ge et al."), Claim("stage III", "stage II")],
    ),
    "refine:fig8": Table("3D PCK on RHD", "rhd", "mpjpe_mm", [_refine("stage III", 12.4036)], curve=True),
    "rmgmn:3.1": Table(
        "R-MGMN and CPM", "panoptic", "mpck",
        [Row("CPM", 65.17, "cpm"), _rmgmn("R-MGMN", 69.93)],
        [Claim("R-MGMN", "CPM")],
    ),
    "rmgmn:3.2": Table(
        "what each part adds", "panoptic", "mpck",
        [
            Row("CPM", 65.17, "cpm"),
            _rmgmn("CPM + single GM", 65.21, rotation="none", models=1),
            _rmgmn("CPM + mixture of GMs", 66.44, rotation="none"),
            _rmgmn("rotation + CPM, jointly", 67.35, models=0, rotation_first=False),
            _rmgmn("rotation + CPM, rotation first", 68.52, models=0),
            _rmgmn("R-MGMN", 69.93),
        ],
        [
            Claim("CPM + single GM", "CPM", ties=True),
            Claim("CPM + mixture of GMs", "CPM + single GM"),
            Claim("rotation + CPM, jointly", "CPM"),
            Claim("rotation + CPM, rotation first", "rotation + CPM, jointly"),
            Claim("R-MGMN", "rotation + CPM, rotation first"),
            Claim("R-MGMN", "CPM + mixture of GMs"),
        ],
    ),
    # The printed PCK at 0.01 to 0.10; here their mean over 0.01 to 0.06, as Table 5.3 has it for AGMN.
    "agmn:4.1": Table(
        "AGMN and CPM", "panoptic", "mpck",
        [
            Row("CPM", 67.68, "cpm"),
            Row("AGMN, separately trained", 68.26, "agmn", until="pairwise"),
            Row("AGMN, fine-tuned", 70.34, "agmn"),
        ],
        [Claim("AGMN, separately trained", "CPM"), Claim("AGMN, fine-tuned", "AGMN, separately trained")],
    ),
    "sia:5.3": Table(
        "structured systems on CPM", "panoptic", "mpck",
        [
            _rmgmn("R-MGMN", 69.93), Row("AGMN", 70.34, "agmn"),
            Row("R-SiaPose", 71.65, "siapose", {"unary": "cpm", "heads": 10, "rotation": True}),
        ],
        [Claim("R-SiaPose", "AGMN"), Claim("R-SiaPose", "R-MGMN")],
    ),
    "sia:5.1": Table("SiaPose on the hourglass", "panoptic", "mpck", _SHG, _SHG_CLAIMS),
    "sia:5.2": Table("SiaPose on CPM", "panoptic", "mpck", _CPM, _CPM_CLAIMS),
}  # fmt: skip
