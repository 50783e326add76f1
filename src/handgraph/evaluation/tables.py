"""The papers' tables as data: rows that are configurations, the printed figures, and what the texts claim.

A table is named `paper:number` as in its paper: `jgr:2`, `sia:5.1`, `refine:IV`. A row without a system is
another method's printed figure. `reproduce` trains, measures and compares what is here; nothing here runs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, Literal

Metric = Literal[
    "mpjpe_mm", "mpvpe_mm", "mpck", "mpck_08", "mpck_10", "accuracy_2d", "accuracy_3d", "epe_px", "auc_20_50",
    "beta_mse", "w_error_mm", "l_error_mm", "length_spread_mm",
]  # fmt: skip
"""`mpck`: mean PCK over thresholds of 0.01 to 0.06 of Kong's crop, the others to 0.08 and 0.10. The last four
are of a person's calibrated hand (`personal`): one figure for each person."""

UNITS: dict[str, str] = {
    "mpjpe_mm": "mm",
    "mpvpe_mm": "mm",
    "mpck": "mPCK, %",
    "mpck_08": "mPCK, %",
    "mpck_10": "mPCK, %",
    "accuracy_2d": "%",
    "accuracy_3d": "%",
    "epe_px": "px",
    "auc_20_50": "",
    "beta_mse": "",
    "w_error_mm": "mm",
    "l_error_mm": "mm",
    "length_spread_mm": "mm",
}
HIGHER_IS_BETTER = ("mpck", "mpck_08", "mpck_10", "accuracy_2d", "accuracy_3d", "auc_20_50")


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
    beside: Mapping[str, float] = field(default_factory=dict)
    """Further printed figures of the row that are measured too: `recall`, `precision`, `auc_20_50`."""
    optimise: bool = True
    """Of `identity_mesh`: whether the hand is fitted to its 2D keypoints at inference time."""
    people: Literal["own", "calibrated"] = "own"
    """Of `identity_mesh`: the shape that the row's own network has or is given, or the one calibrated from K
    images by the network that regresses shapes."""
    k: int = 20
    """Images that a person is calibrated from."""
    attention: bool = True
    """Whether the calibration weighs them by their confidence (Eq. 6.6)."""


@dataclass(frozen=True)
class Claim:
    """The text says that one row is better than another; `ties` where it says that they hardly differ.

    With `below` it says that the row's own figure stays below a number, and `worse` is empty.
    """

    better: str
    worse: str = ""
    ties: bool = False
    below: float | None = None


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
    elsewhere: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    """The printed figures of rows on further data sets, by the data set's name."""
    moved: bool = False
    """Whether rows are fine-tuned and tested on another kind of picture than they were trained on."""

    def printed(self, row: Row, dataset: str) -> float | None:
        """The paper's figure of a row on a data set, where it prints one."""
        return row.paper if dataset == self.dataset else self.elsewhere.get(dataset, {}).get(row.name)

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


def _hybrid(
    name: str,
    paper: float | None,
    metric: Metric | None = None,
    beside: Mapping[str, float] | None = None,
    **config: Any,
) -> Row:
    return Row(name, paper, "hybrid_gcn", config, metric=metric, beside=beside or {})


def _classes(recall: float, precision: float) -> dict[str, float]:
    return {"recall": recall, "precision": precision}


def _refine(name: str, paper: float, until: str | None = None, **config: Any) -> Row:
    return Row(name, paper, "graph_refine", config, until)


_BASELINE = {"shape": "regressed"}
_KEYPOINTS: dict[str, Any] = {"supervision": "keypoints"}


def _person(
    name: str,
    metric: Metric,
    paper: float,
    shape: str,
    people: Literal["own", "calibrated"] = "own",
    *,
    optimise: bool,
    **config: Any,
) -> Row:
    """A row of Table 6.1 or 6.5 in one of its two columns."""
    column = "joints" if metric == "mpjpe_mm" else "mesh"
    full = f"{name}{', optimised' if optimise else ''}, {column}"
    made = {"shape": shape, **config}
    return Row(full, paper, "identity_mesh", made, metric=metric, optimise=optimise, people=people)


def _calibrated(
    name: str, metric: Metric, paper: float | None, *, k: int = 20, attention: bool = True
) -> Row:
    return Row(name, paper, "identity_mesh", _BASELINE, metric=metric, k=k, attention=attention)


def _rmgmn(name: str, paper: float, **config: Any) -> Row:
    return Row(name, paper, "rmgmn", config)


_JOINTS_AND_MESH: tuple[tuple[Metric, int], ...] = (("mpjpe_mm", 0), ("mpvpe_mm", 1))
_ERRORS: tuple[tuple[str, Metric], ...] = (("W-error", "w_error_mm"), ("L-error", "l_error_mm"))

_SHG, _SHG_CLAIMS = _sia("hourglass", (77.12, 75.34, 77.55, 78.45, 78.72, 81.48))
_CPM, _CPM_CLAIMS = _sia("cpm", (71.55, 70.63, 72.55, 72.74, 73.11, 74.47))
# The estimator alone, trained by R-MGMN's own schedule: what the other rows of its tables add to.
_PLAIN_CPM = _rmgmn("CPM", 65.17, rotation="none", models=0)
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
        elsewhere={
            "icvl": {
                "DeepModel": 11.56, "DeepPrior": 10.40, "DeepPrior++": 8.10, "REN-4x6x6": 7.63,
                "REN-9x6x6": 7.31, "Pose-REN": 6.79, "HandPointNet": 6.94, "SHPR-Net": 7.22,
                "CrossInfoNet": 6.73, "DenseReg": 7.30, "Point-to-Point": 6.30, "V2V-PoseNet": 6.28,
                "A2J": 6.46, "JGR-P2O": 6.02,
            },
            "msra": {
                "DeepPrior++": 9.50, "REN-9x6x6": 9.70, "Pose-REN": 8.65, "3DCNN": 9.60, "HandPointNet": 8.50,
                "SHPR-Net": 7.76, "CrossInfoNet": 7.86, "DenseReg": 7.20, "Point-to-Point": 7.70,
                "V2V-PoseNet": 7.59, "JGR-P2O": 7.55,
            },
        },
    ),
    "jgr:fig4": Table(
        "success frames by their worst joint", "nyu", "mpjpe_mm", [_jgr("JGR-P2O", 8.29)], curve=True
    ),
    "hybrid:2": Table(
        "components", "rhd", "mpjpe_mm",
        [
            _hybrid("A: without classification", 19.16, beside={"auc_20_50": 0.858}, relations=False,
                    refinement="none"),
            _hybrid("B: without refinement", 14.76, beside={"auc_20_50": 0.927}, refinement="none"),
            _hybrid("C: FC refinement", 14.68, beside={"auc_20_50": 0.928}, refinement="fc"),
            _hybrid("D: KNN refinement", 13.43, beside={"auc_20_50": 0.935}, refinement="knn"),
            _hybrid("full", 12.81, beside={"auc_20_50": 0.939}),
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
            *(_hybrid(f"2D: {n * n} classes", accuracy, "accuracy_2d", _classes(recall, precision),
                      splits_2d=n, refinement="none")
              for n, accuracy, recall, precision in (
                  (2, 99.98, 99.94, 99.88), (3, 99.96, 99.90, 99.81), (4, 99.91, 99.87, 99.78),
                  (5, 99.86, 99.82, 99.73))),
            *(_hybrid(f"3D: {n ** 3} classes", accuracy, None, _classes(recall, precision),
                      splits_3d=n, refinement="none")
              for n, accuracy, recall, precision in (
                  (2, 99.97, 99.92, 99.82), (3, 99.83, 99.78, 99.71), (4, 95.15, 94.92, 94.53),
                  (5, 88.11, 86.74, 85.23))),
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
        elsewhere={"stb": {"Zimmermann et al.": 5.0, "full": 1.56}},
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
        elsewhere={"stb": {
            "Zimmermann et al.": 0.948, "Spurr et al.": 0.983, "Cai et al. 2018": 0.994, "Yang et al.": 0.991,
            "Baek et al.": 0.995, "Ge et al.": 0.998, "Zhang et al.": 0.995, "Guo et al.": 0.998,
            "Zhao et al.": 0.987, "Zhou et al.": 0.898, "Gu et al.": 0.996, "full": 0.998,
        }},
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
        elsewhere={"stb": {
            "Zimmermann et al.": 8.68, "Spurr et al.": 8.56, "Yang et al.": 8.66, "Gu et al.": 7.27,
            "full": 6.58,
        }},
    ),
    "hybrid:fig6": Table("3D PCK on STB", "stb", "mpjpe_mm", [_hybrid("full", 6.58)], curve=True),
    "hybrid:fig7": Table("3D PCK on RHD", "rhd", "mpjpe_mm", [_hybrid("full", 12.81)], curve=True),
    "refine:I": Table(
        "stages", "rhd", "mpjpe_mm",
        [_refine(f"stage {number}", mm, until)
         for number, until, mm in zip(("I", "II", "III"), _STAGES, (83.3669, 15.8356, 12.4036), strict=True)],
        [Claim("stage II", "stage I"), Claim("stage III", "stage II")],
        elsewhere={"stb": {"stage I": 24.1534, "stage II": 5.1153, "stage III": 3.9664}},
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
        elsewhere={"stb": {
            "FC": 15.1134, "GCN": 5.1153, "FC, discriminator": 10.2345, "GCN, discriminator": 3.9664,
        }},
    ),
    "refine:III": Table(
        "discriminator", "rhd", "mpjpe_mm",
        [_refine("multi-source", 12.4036), _refine("single-source", 15.0987, discriminator="single")],
        [Claim("multi-source", "single-source")],
        elsewhere={"stb": {"multi-source": 3.9664, "single-source": 4.5397}},
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
        elsewhere={"stb": {
            f"{name}, stage {number}": mm
            for name, figures in (
                ("pose and projection", (32.7531, 9.1134, 5.3456)),
                ("with length", (30.3156, 8.0021, 5.0175)),
                ("with direction", (27.6512, 6.9146, 4.9980)),
                ("with both", (24.1534, 5.1153, 3.9664)),
            )
            for number, mm in zip(("I", "II", "III"), figures, strict=True)
        }},
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
        [_PLAIN_CPM, _rmgmn("R-MGMN", 69.93)],
        [Claim("R-MGMN", "CPM")],
        elsewhere={"mhp": {"CPM": 83.35, "R-MGMN": 85.53}},
    ),
    "rmgmn:3.2": Table(
        "what each part adds", "panoptic", "mpck",
        [
            _PLAIN_CPM,
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
    # The printed PCK at 0.01 to 0.10, as their mean.
    "agmn:4.1": Table(
        "AGMN and CPM", "panoptic", "mpck_10",
        [
            Row("CPM", 76.96, "cpm"),
            Row("AGMN, separately trained", 78.10, "agmn", until="pairwise"),
            Row("AGMN, fine-tuned", 79.68, "agmn"),
        ],
        [Claim("AGMN, separately trained", "CPM"), Claim("AGMN, fine-tuned", "AGMN, separately trained")],
        elsewhere={"mhp": {"CPM": 89.79, "AGMN, separately trained": 90.70, "AGMN, fine-tuned": 91.05}},
    ),
    "sia:5.3": Table(
        "structured systems on CPM", "panoptic", "mpck",
        [
            _rmgmn("R-MGMN", 69.93), Row("AGMN", 70.34, "agmn"),
            Row("R-SiaPose", 71.65, "siapose", {"unary": "cpm", "heads": 10, "rotation": True}),
        ],
        [Claim("R-SiaPose", "AGMN"), Claim("R-SiaPose", "R-MGMN")],
        elsewhere={"mhp": {"R-MGMN": 85.53, "AGMN": 85.63, "R-SiaPose": 85.56}},
    ),
    "sia:5.1": Table("SiaPose on the hourglass", "panoptic", "mpck", _SHG, _SHG_CLAIMS),
    "sia:5.2": Table("SiaPose on CPM", "panoptic", "mpck", _CPM, _CPM_CLAIMS),
    # The printed PCK at 0.01 to 0.08, as their mean.
    "sia:5.4": Table(
        "fine-tuned on other pictures", "mpii_nzsl", "mpck_08",
        [
            Row("CPM", 46.54, "cpm"),
            Row("R-SiaPose on CPM", 49.34, "siapose", {"unary": "cpm", "heads": 10, "rotation": True}),
            Row("hourglass", 53.00, "hourglass"),
            Row("R-SiaPose on hourglass", 57.00, "siapose",
                {"unary": "hourglass", "heads": 10, "rotation": True}),
        ],
        [Claim("R-SiaPose on CPM", "CPM"), Claim("R-SiaPose on hourglass", "hourglass")],
        moved=True,
    ),
    "identity:6.1": Table(
        "given and calibrated shapes", "dexycb", "mpjpe_mm",
        [row for metric, column in _JOINTS_AND_MESH for row in (
            _person("baseline", metric, (21.58, 20.95)[column], "regressed", optimise=False),
            _person("given shape", metric, (18.83, 18.27)[column], "given", optimise=False),
            _person("calibrated", metric, (18.97, 18.42)[column], "given", "calibrated", optimise=False),
            _person("baseline", metric, (18.03, 17.92)[column], "regressed", optimise=True),
            _person("given shape", metric, (16.60, 16.29)[column], "given", optimise=True),
            _person("calibrated", metric, (16.81, 16.55)[column], "given", "calibrated", optimise=True),
        )],
        [
            *(Claim(f"{name}{how}, {column}", f"baseline{how}, {column}")
              for column in ("joints", "mesh") for how in ("", ", optimised")
              for name in ("given shape", "calibrated")),
            *(Claim(f"calibrated{how}, {column}", f"given shape{how}, {column}", ties=True)
              for column in ("joints", "mesh") for how in ("", ", optimised")),
            *(Claim(f"{name}, optimised, {column}", f"{name}, {column}")
              for column in ("joints", "mesh") for name in ("baseline", "given shape", "calibrated")),
        ],
        elsewhere={"humbi": {
            "baseline, joints": 12.13, "given shape, joints": 11.41, "calibrated, joints": 11.51,
            "baseline, optimised, joints": 10.75, "given shape, optimised, joints": 10.17,
            "calibrated, optimised, joints": 10.31, "baseline, mesh": 11.82, "given shape, mesh": 11.11,
            "calibrated, mesh": 11.21, "baseline, optimised, mesh": 10.60,
            "given shape, optimised, mesh": 9.94, "calibrated, optimised, mesh": 10.28,
        }},
    ),
    "identity:6.3": Table(
        "calibration from 20 images", "humbi", "w_error_mm",
        [
            _calibrated("MSE of the shape", "beta_mse", 0.07), _calibrated("W-error", "w_error_mm", 0.88),
            _calibrated("L-error", "l_error_mm", 1.71),
        ],
        [Claim("W-error", below=2.0), Claim("L-error", below=2.0)],
        elsewhere={"dexycb": {"MSE of the shape": 0.04, "W-error": 1.02, "L-error": 1.20}},
    ),
    "identity:6.4": Table(
        "attention", "humbi", "w_error_mm",
        [
            _calibrated("MSE, no attention", "beta_mse", 0.084, attention=False),
            _calibrated("MSE, attention", "beta_mse", 0.070),
            _calibrated("W-error, no attention", "w_error_mm", 1.00, attention=False),
            _calibrated("W-error, attention", "w_error_mm", 0.88),
            _calibrated("L-error, no attention", "l_error_mm", 1.93, attention=False),
            _calibrated("L-error, attention", "l_error_mm", 1.71),
        ],
        [Claim(f"{name}, attention", f"{name}, no attention") for name in ("MSE", "W-error", "L-error")],
    ),
    "identity:6.5": Table(
        "keypoints instead of meshes to learn from", "dexycb", "mpjpe_mm",
        [row for metric, column in _JOINTS_AND_MESH for row in (
            _person("baseline", metric, (21.85, 20.26)[column], "regressed", optimise=False, **_KEYPOINTS),
            _person("given shape", metric, (18.92, 18.35)[column], "given", optimise=False, **_KEYPOINTS),
            _person("baseline", metric, (17.71, 17.58)[column], "regressed", optimise=True, **_KEYPOINTS),
            _person("given shape", metric, (16.63, 16.32)[column], "given", optimise=True, **_KEYPOINTS),
        )],
        [Claim(f"given shape{how}, {column}", f"baseline{how}, {column}")
         for column in ("joints", "mesh") for how in ("", ", optimised")],
        elsewhere={"humbi": {
            "baseline, joints": 12.34, "given shape, joints": 11.61, "baseline, optimised, joints": 10.80,
            "given shape, optimised, joints": 10.37, "baseline, mesh": 12.02, "given shape, mesh": 11.30,
            "baseline, optimised, mesh": 10.95, "given shape, optimised, mesh": 10.12,
        }},
    ),
    # How much one person's hand changes its length from image to image; the text: up to 20 mm, and none.
    "identity:fig6.3": Table(
        "one person, many images", "humbi", "length_spread_mm",
        [
            Row("baseline", None, "identity_mesh", _BASELINE),
            Row("calibrated", 0.0, "identity_mesh", _BASELINE, people="calibrated"),
        ],
        [Claim("calibrated", "baseline")],
    ),
    "identity:fig6.4": Table(
        "images used for calibration", "humbi", "w_error_mm",
        [
            _calibrated(f"{name}, K = {k}", metric, None, k=k)
            for name, metric in _ERRORS
            for k in (1, 2, 3, 5, 10, 20)
        ],
        [
            Claim("W-error, K = 20", below=1.0), Claim("L-error, K = 20", below=2.0),
            Claim("W-error, K = 20", "W-error, K = 1"), Claim("L-error, K = 20", "L-error, K = 1"),
        ],
    ),
}  # fmt: skip
