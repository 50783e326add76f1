"""The error of a published prediction file, on the camera and joints that publications use.

| dataset | predictions | truth |
|---|---|---|
| nyu, icvl, msra | one line a frame: 14, 16 or 21 joints of three numbers, perhaps after the image's name; text, text compressed by xz, or a MATLAB file with one (frames, joints, 3) array | labels in the same form, u px, v px, depth mm |
| freihand, ho3d | the JSON of their evaluations, [joints of every frame, vertices of every frame], metres | `evaluation_xyz.json`, and `evaluation_verts.json` beside it where there is one |
| coco | COCO results: a list of {image_id, keypoints, score} | a COCO annotation file, `head_size` for PCKh |
"""  # noqa: E501

import lzma
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
from jaxtyping import Float

from handgraph.camera import PinholeCamera
from handgraph.datasets import icvl, msra
from handgraph.datasets.files import (
    float_array,
    list_under,
    load_mat,
    number_array,
    parse_floats,
    read_bytes,
    read_json,
    read_lines,
)
from handgraph.errors import ConfigError, FormatError, HandgraphError, InputError
from handgraph.evaluation.metrics import JointErrors, MeshErrors, PixelErrors
from handgraph.skeleton import NYU14_OF_36

Format = Literal["uvd", "xyz", "json"]
_LARGEST_BYTES = 500_000_000
_VERTICES = 778
# Predictions so many times farther from the camera than the truth are in another unit.
_OTHER_UNIT = 50.0
_MESH_FIGURES = ("mpvpe_mm", "root_relative_mpvpe_mm", "pa_mpvpe_mm", "f_score", "pa_f_score")
_TURNED = np.array([1.0, -1.0, 1.0])


class _Protocol(NamedTuple):
    camera: PinholeCamera
    joints: int
    subset: dict[int, tuple[int, ...]]
    """Which joints to keep of a file that holds more."""
    parts: dict[int, str]
    """Numbers of frames of which some methods publish no more, always the first ones."""
    root: int
    """The joint that root-relative errors put at the origin: palm or wrist."""


_PROTOCOLS = {
    # Rounded focal lengths here: they are what the published errors were computed with.
    "nyu": _Protocol(
        PinholeCamera(588.03, 587.07, 320.0, 240.0), 14, {36: NYU14_OF_36}, {2440: "test_1"}, 13
    ),
    "icvl": _Protocol(icvl.CAMERA, 16, {}, {702: "test_seq_1"}, 0),
    "msra": _Protocol(msra.CAMERA, 21, {}, {}, 0),
}
JSON_DATASETS = ("freihand", "ho3d", "coco")
DATASETS = (*_PROTOCOLS, *JSON_DATASETS)


class Scored(NamedTuple):
    """The figures of one file, and the distances (frames, joints) that they come from, for curves."""

    figures: dict[str, Any]
    errors: Float[np.ndarray, "n j"]
    unit: Literal["mm", "px"]
    relative: Float[np.ndarray, "n j"] | None = None
    """2D only: the distances as parts of the longer side of the hand's box."""


def score(
    predictions: str | Path, truth: str | Path, dataset: str, format: Format | None = None
) -> dict[str, Any]:
    """Errors of a prediction file against the dataset's published labels.

    dataset    one of `DATASETS`: decides camera and joints
    format     of the predictions. nyu, icvl and msra: `uvd` (px, px, mm) or `xyz` (mm; y down as DenseReg
               writes it or y up as in NYU's own labels, z forward or, as in MSRA's, backward); None is uvd
               unless xyz fits far better. The others: `json`

    For 3D returns `mean_mm`, `median_mm` over all joints of all frames, `per_joint_mm`, `success` (by
    threshold in mm the fraction of frames whose worst joint is within it), `pck`, `mean_mm_interval95`, the
    root-relative and Procrustes-aligned means `root_relative_mean_mm` and `pa_mean_mm`, the areas under the
    PCK curve `auc` (0 to 50 mm), `auc_20_50` and `pa_auc`, `n`, `part`, the split that a file with fewer
    frames than the labels covers (None: all of them), `format`, and `axes`, how y was read; freihand and
    ho3d also `mpvpe_mm`, `root_relative_mpvpe_mm`, `pa_mpvpe_mm`, `f_score` and `pa_f_score` (at 5 and
    15 mm), None without vertices.
    For coco what `PixelErrors.compute` gives over the hands found, with `missed`, true hands without a
    prediction, `extra`, predictions without a true hand, and `pckh` where the truth has head sizes.

    Raises InputError where the two files do not belong together; FormatError for damaged files; ConfigError
    for an unknown dataset or format.
    """
    return measure(predictions, truth, dataset, format).figures


def measure(predictions: str | Path, truth: str | Path, dataset: str, format: Format | None = None) -> Scored:
    """As `score`, with the distances themselves."""
    if dataset not in DATASETS:
        raise ConfigError(f"no published protocol for dataset {dataset!r}; there are {', '.join(DATASETS)}")
    possible = ("json",) if dataset in JSON_DATASETS else ("uvd", "xyz")
    if format is not None and format not in possible:
        raise ConfigError(f"format is {format!r}, expected {' or '.join(possible)} for {dataset}")
    if dataset == "coco":
        return _measure_coco(Path(predictions), Path(truth))
    if dataset in JSON_DATASETS:
        return _measure_json(Path(predictions), Path(truth))
    protocol = _PROTOCOLS[dataset]
    stored = read_predictions(predictions, protocol.joints, protocol.subset)
    true = protocol.camera.xyz_from_uvd(read_predictions(truth, protocol.joints, protocol.subset))
    part = protocol.parts.get(len(stored)) if len(stored) < len(true) else None
    if len(stored) != len(true) and part is None:
        raise InputError(f"{predictions}: {len(stored)} frames, but {truth} labels {len(true)}")
    true = true[: len(stored)]
    as_xyz = stored * [1.0, 1.0, -1.0] if np.median(stored[..., 2]) < 0 else stored
    if format is None:
        as_uvd_mm = _off_mm(protocol.camera.xyz_from_uvd(stored), true)
        as_xyz_mm = min(_off_mm(as_xyz, true), _off_mm(as_xyz * _TURNED, true))
        format = "xyz" if as_xyz_mm < as_uvd_mm / 2 else "uvd"
    predicted = protocol.camera.xyz_from_uvd(stored) if format == "uvd" else as_xyz
    predicted, axes = _turned_to(Path(predictions), predicted, true, may_turn=format == "xyz")
    errors = JointErrors(protocol.root).update(predicted, true)
    figures = _joint_figures(errors) | {"part": part, "format": format, "axes": axes}
    return Scored(figures, errors.errors_mm(), "mm")


def compare(
    predictions: Sequence[str | Path], truth: str | Path, dataset: str, format: Format | None = None
) -> list[tuple[str, Scored | HandgraphError]]:
    """`measure` for each of many files: (file, result), or the error of a file that cannot be measured."""
    rows: list[tuple[str, Scored | HandgraphError]] = []
    for file in predictions:
        try:
            rows.append((str(file), measure(file, truth, dataset, format)))
        except HandgraphError as error:
            rows.append((str(file), error))
    return rows


def _joint_figures(errors: JointErrors) -> dict[str, Any]:
    measured = errors.compute()
    return {
        "mean_mm": measured["mpjpe_mm"],
        "mean_mm_interval95": measured["mpjpe_mm_interval95"],
        "median_mm": measured["median_mm"],
        "root_relative_mean_mm": measured["root_relative_mpjpe_mm"],
        "pa_mean_mm": measured["pa_mpjpe_mm"],
        "auc": measured["auc"],
        "auc_20_50": measured["auc_20_50"],
        "pa_auc": measured["pa_auc"],
        "per_joint_mm": measured["per_joint_mm"],
        "success": measured["success"],
        "pck": measured["pck"],
        "n": measured["n"],
    }


def _measure_json(predictions: Path, truth: Path) -> Scored:
    """FreiHAND's and HO3D's evaluation files: metres, both files in the same frame and joint order."""
    predicted_m, vertices_m = read_hands_json(predictions)
    true_m, true_vertices_m = read_hands_json(truth)
    beside = truth.with_name(truth.name.replace("xyz", "verts"))
    if true_vertices_m is None and beside != truth and beside.is_file():
        true_vertices_m = _hands_array(beside, read_json(beside), _VERTICES)
    if len(predicted_m) != len(true_m):
        raise InputError(f"{predictions}: {len(predicted_m)} frames, but {truth} labels {len(true_m)}")
    spread, true_spread = (float(np.ptp(points, axis=1).mean()) for points in (predicted_m, true_m))
    if spread > _OTHER_UNIT * true_spread:
        raise InputError(
            f"{predictions}: hands of {spread:.0f} where {truth} has {true_spread:.2f} m: millimetres? "
            "metres are expected"
        )
    errors = JointErrors().update(1000 * predicted_m, 1000 * true_m)
    mesh: dict[str, Any] = dict.fromkeys(_MESH_FIGURES)
    if vertices_m is not None and true_vertices_m is not None:
        arrays = (vertices_m, true_vertices_m, predicted_m[:, 0], true_m[:, 0])
        measured = MeshErrors(f_scores=True).update(*(1000 * array for array in arrays)).compute()
        mesh = {name: measured[name] for name in mesh}
    figures = _joint_figures(errors) | mesh | {"part": None, "format": "json", "axes": "as both files"}
    return Scored(figures, errors.errors_mm(), "mm")


def read_hands_json(
    path: str | Path,
) -> tuple[Float[np.ndarray, "n 21 3"], Float[np.ndarray, "n 778 3"] | None]:
    """Joints and vertices of FreiHAND's JSON, as they stand in it: [joints, vertices], or a list of joints.

    Vertices are None where the file has none (an empty list, or one a frame). Raises FormatError for
    anything else.
    """
    path = Path(path)
    content = read_json(path)
    if not isinstance(content, list) or not content:
        raise FormatError(f"{path}: expected a list of joints, or of joints and vertices")
    if len(content) == 2 and _depth(content[0]) == 3:
        joints = _hands_array(path, content[0], 21)
        if not content[1] or not any(content[1]):
            return joints, None
        vertices = _hands_array(path, content[1], _VERTICES)
        if len(vertices) != len(joints):
            raise FormatError(f"{path}: joints of {len(joints)} frames, vertices of {len(vertices)}")
        return joints, vertices
    return _hands_array(path, content, 21), None


def _depth(value: Any) -> int:
    """How many lists lie in one another at the front of a value."""
    depth = 0
    while isinstance(value, list) and value and depth < 4:
        value, depth = value[0], depth + 1
    return depth


def _hands_array(path: Path, value: Any, points: int) -> Float[np.ndarray, "n p 3"]:
    return number_array(path, "joints" if points == 21 else "vertices", value, (None, points, 3))


class _Hand2d(NamedTuple):
    image: str
    keypoints_px: Float[np.ndarray, "j 2"]
    """NaN where unknown."""
    rank: float
    """Of a prediction its score; of a true hand its head's size, NaN where not given."""


def _measure_coco(predictions: Path, truth: Path) -> Scored:
    """2D keypoints of a COCO results file, hand by hand."""
    true = _coco_hands(truth, list_under(truth, read_json(truth), "annotations"), truth=True)
    content = read_json(predictions)
    given = content if isinstance(content, list) else list_under(predictions, content, "annotations")
    predicted = _coco_hands(predictions, given, truth=False)
    if not true or not predicted:
        raise FormatError(f"{truth if not true else predictions}: holds no hand")
    if len(predicted[0].keypoints_px) != len(true[0].keypoints_px):
        raise InputError(
            f"{predictions}: {len(predicted[0].keypoints_px)} keypoints a hand, "
            f"{truth} has {len(true[0].keypoints_px)}"
        )
    pairs = _matched(predicted, true)
    if not pairs:
        raise InputError(f"{predictions}: no image_id in common with {truth}")
    guess = np.stack([hand.keypoints_px for hand, _ in pairs])
    label = np.stack([hand.keypoints_px for _, hand in pairs])
    boxes = np.maximum((np.nanmax(label, axis=1) - np.nanmin(label, axis=1)).max(axis=1), 1.0)
    figures = PixelErrors().update(guess, label, boxes).compute()
    heads = np.array([hand.rank for _, hand in pairs])
    if np.isfinite(heads).all():
        figures["pckh"] = PixelErrors("head").update(guess, label, heads).compute()["pckh"]
    figures |= {"missed": len(true) - len(pairs), "extra": len(predicted) - len(pairs)}
    distances = np.linalg.norm(guess - label, axis=-1)
    return Scored(figures, distances, "px", distances / boxes[:, None])


def _coco_hands(path: Path, records: list[Any], *, truth: bool) -> list[_Hand2d]:
    """The hands of annotations or results that have two known keypoints or more."""
    hands, joints = [], 0
    kind, ranked_by = ("annotation", "head_size") if truth else ("result", "score")
    for number, record in enumerate(records):
        name = f"{kind} {number}"
        if not isinstance(record, dict) or not isinstance(record.get("image_id"), int | str):
            raise FormatError(f"{path}: {name} has no image_id")
        points = number_array(path, f"{name}: keypoints", record.get("keypoints"), (None,))
        joints = joints or len(points)
        if not joints or joints % 3 or len(points) != joints:
            raise FormatError(
                f"{path}: {name}: {len(points)} numbers in keypoints, expected three each, as in the first"
            )
        points = points.reshape(-1, 3)
        keypoints = np.where(points[:, 2:] > 0, points[:, :2], np.nan) if truth else points[:, :2]
        rank = np.nan if truth else 1.0
        if record.get(ranked_by) is not None:
            rank = float(number_array(path, f"{name}: {ranked_by}", record[ranked_by], ()))
        if np.isfinite(keypoints).all(axis=1).sum() >= 2:
            hands.append(_Hand2d(str(record["image_id"]), keypoints, rank))
    return hands


def _matched(predicted: list[_Hand2d], true: list[_Hand2d]) -> list[tuple[_Hand2d, _Hand2d]]:
    """Pairs of one image: the best-scored prediction chooses the nearest true hand first, and so on."""
    left: dict[str, list[_Hand2d]] = {}
    for hand in true:
        left.setdefault(hand.image, []).append(hand)
    pairs = []
    for guess in sorted(predicted, key=lambda hand: -hand.rank):
        open_hands = left.get(guess.image)
        if open_hands:
            distances = [
                float(np.nanmean(np.linalg.norm(guess.keypoints_px - hand.keypoints_px, axis=-1)))
                for hand in open_hands
            ]
            pairs.append((guess, open_hands.pop(int(np.argmin(distances)))))
    return pairs


def read_predictions(
    path: str | Path, joints: int, subset: dict[int, tuple[int, ...]] | None = None
) -> Float[np.ndarray, "n j 3"]:
    """The (frames, joints, 3) numbers of a prediction or label file, as they stand in it.

    `subset` says which joints to keep of a file that holds another number of them. Raises FormatError for
    damage and for another number of joints, InputError for a missing file or frames out of order.
    """
    path = Path(path)
    known = {joints: tuple(range(joints)), **(subset or {})}
    if path.suffix == ".mat":
        values = _from_mat(path)
    else:
        values = _from_text(path)
    if values.shape[1] not in known:
        raise FormatError(f"{path}: {values.shape[1]} joints a frame, expected {joints}")
    if not np.isfinite(values).all():
        frame = int(np.argwhere(~np.isfinite(values))[0, 0])
        raise FormatError(f"{path}: frame {frame} (from 0) holds a number that is not finite")
    return values[:, list(known[values.shape[1]])]


def read_curve(path: str | Path, column: int = 2) -> tuple[Float[np.ndarray, " n"], Float[np.ndarray, " n"]]:
    """A published PCK curve as text: thresholds in mm and heights in [0, 1].

    A file of one column holds the heights at 0, 1, 2 … mm; else the first is the threshold and `column`
    (counted from 1) the height. Raises FormatError for anything else.
    """
    path = Path(path)
    lines = [line.replace(",", " ") for line in read_lines(path)]
    if not lines:
        raise FormatError(f"{path}: no line of a curve")
    table = parse_floats(path, lines, len(lines[0].split()))
    if table.shape[1] == 1:
        thresholds, height = np.arange(len(table), dtype=np.float64), table[:, 0]
    elif 2 <= column <= table.shape[1]:
        thresholds, height = table[:, 0], table[:, column - 1]
    else:
        raise FormatError(f"{path}: {table.shape[1]} columns, so there is no height in column {column}")
    if (np.diff(thresholds) <= 0).any() or height.min() < 0 or height.max() > 1:
        raise FormatError(f"{path}: expected rising thresholds and heights from 0 to 1")
    return thresholds, height


def _from_mat(path: Path) -> Float[np.ndarray, "n j 3"]:
    arrays = {
        name: value
        for name, value in load_mat(path).items()
        if isinstance(value, np.ndarray) and value.ndim == 3 and value.shape[2] == 3
    }
    if len(arrays) != 1:
        raise FormatError(
            f"{path}: {len(arrays)} arrays of shape (frames, joints, 3), expected exactly one of them"
        )
    ((name, value),) = arrays.items()
    return float_array(path, name, value, (None, None, 3)).astype(np.float64)


def _from_text(path: Path) -> Float[np.ndarray, "n j 3"]:
    lines = [line.replace(",", " ") for line in _text(path).splitlines() if line.strip()]
    if not lines:
        raise FormatError(f"{path}: no line of predictions")
    if not _is_number(lines[0].split()[0]):
        names, _, lines = (
            list(column) for column in zip(*(_split_name(line) for line in lines), strict=True)
        )
        _expect_order(path, names)
    width = len(lines[0].split())
    if not width or width % 3:
        raise FormatError(f"{path}: line 1 holds {width} values, expected three a joint")
    return parse_floats(path, lines, width).reshape(len(lines), width // 3, 3)


def _text(path: Path) -> str:
    content = read_bytes(path)
    if path.suffix == ".xz":
        try:
            unpacker = lzma.LZMADecompressor()
            content = unpacker.decompress(content, max_length=_LARGEST_BYTES)
        except lzma.LZMAError as error:
            raise FormatError(f"{path}: not a readable xz file ({error})") from error
        if not unpacker.eof:
            raise FormatError(f"{path}: the xz file is cut short, or larger than {_LARGEST_BYTES:,} bytes")
    try:
        return content.decode("ascii")
    except UnicodeDecodeError as error:
        raise FormatError(f"{path}: byte {error.start} is not ASCII text") from error


def _split_name(line: str) -> tuple[str, str, str]:
    return line.strip().replace("\t", " ").partition(" ")


def _is_number(word: str) -> bool:
    try:
        float(word)
    except ValueError:
        return False
    return True


def _expect_order(path: Path, names: list[str]) -> None:
    """Image names must count upwards folder by folder, as the test lists of all three datasets do."""
    before: tuple[str, int] | None = None
    for line, name in enumerate(names, start=1):
        found = re.fullmatch(r"(.*?)(\d+)(\D*)", name)
        if found is None:
            raise FormatError(f"{path}: line {line} begins with {name[:40]!r}, expected a number or an image")
        here = found[1], int(found[2])
        if before is not None and here[0] == before[0] and here[1] != before[1] + 1:
            raise InputError(
                f"{path}: line {line} is {name}, after {names[line - 2]}; sort it as the test list"
            )
        before = here


def _turned_to(
    path: Path, predicted: Float[np.ndarray, "n j 3"], true: Float[np.ndarray, "n j 3"], *, may_turn: bool
) -> tuple[Float[np.ndarray, "n j 3"], str]:
    """The predictions with y down, and which way it was, since xyz files are published both ways.

    Only an error that more than halves when y is turned over decides for y up; a bad method does not.
    """
    down_mm, up_mm = _off_mm(predicted, true), _off_mm(predicted * _TURNED, true)
    if up_mm >= down_mm / 2:
        return predicted, "y down"
    if not may_turn:
        raise InputError(
            f"{path}: {down_mm:.1f} mm off as uvd, {up_mm:.1f} mm with y turned over; "
            "these pixels do not count downwards"
        )
    return predicted * _TURNED, "y up"


def _off_mm(predicted: Float[np.ndarray, "n j 3"], true: Float[np.ndarray, "n j 3"]) -> float:
    return float(np.linalg.norm(predicted - true, axis=-1).mean())
