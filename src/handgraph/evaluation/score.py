"""The error of a published prediction file, on the camera and joints that publications use.

One line a frame: 14 (NYU), 16 (ICVL) or 21 (MSRA) joints of three numbers, perhaps after the image's name.
Text, text compressed by xz, or a MATLAB file with one (frames, joints, 3) array.
"""

import lzma
import re
from pathlib import Path
from typing import Any, Literal, NamedTuple, get_args

import numpy as np
from jaxtyping import Float

from handgraph.camera import PinholeCamera
from handgraph.datasets import icvl, msra
from handgraph.datasets.files import float_array, load_mat, parse_floats, read_bytes, read_lines
from handgraph.errors import ConfigError, FormatError, InputError
from handgraph.evaluation.metrics import JointErrors
from handgraph.skeleton import NYU14_OF_36

Format = Literal["uvd", "xyz"]
_LARGEST_BYTES = 500_000_000


class _Protocol(NamedTuple):
    camera: PinholeCamera
    joints: int
    subset: dict[int, tuple[int, ...]]
    """Which joints to keep of a file that holds more."""
    parts: dict[int, str]
    """Numbers of frames of which some methods publish no more, always the first ones."""


_PROTOCOLS = {
    # Rounded focal lengths here: they are what the published errors were computed with.
    "nyu": _Protocol(PinholeCamera(588.03, 587.07, 320.0, 240.0), 14, {36: NYU14_OF_36}, {2440: "test_1"}),
    "icvl": _Protocol(icvl.CAMERA, 16, {}, {702: "test_seq_1"}),
    "msra": _Protocol(msra.CAMERA, 21, {}, {}),
}


def score(predictions: str | Path, truth: str | Path, dataset: str, format: Format = "uvd") -> dict[str, Any]:
    """Errors of a prediction file against the dataset's published labels (u px, v px, depth mm).

    dataset    nyu, icvl or msra: decides camera and joints
    format     of the predictions: `uvd` (px, px, mm) or `xyz` (mm; y down as DenseReg writes it or y up as
               in NYU's own labels, z forward or, as in MSRA's, backward)

    Returns `mean_mm`, `median_mm` over all joints of all frames, `per_joint_mm`, `success` (by threshold in
    mm the fraction of frames whose worst joint is within it), `pck`, `mean_mm_interval95`, `n`, `part`, the
    split that a file with fewer frames than the labels covers (None: all of them), and `axes`, how y was
    read.

    Raises InputError where the two files do not belong together; FormatError for damaged files; ConfigError
    for an unknown dataset or format.
    """
    if dataset not in _PROTOCOLS:
        raise ConfigError(f"no published protocol for dataset {dataset!r}; there are {', '.join(_PROTOCOLS)}")
    if format not in get_args(Format):
        raise ConfigError(f"format is {format!r}, expected one of {', '.join(get_args(Format))}")
    protocol = _PROTOCOLS[dataset]
    predicted = read_predictions(predictions, protocol.joints, protocol.subset)
    true = protocol.camera.xyz_from_uvd(read_predictions(truth, protocol.joints, protocol.subset))
    if format == "uvd":
        predicted = protocol.camera.xyz_from_uvd(predicted)
    elif np.median(predicted[..., 2]) < 0:
        predicted = predicted * [1.0, 1.0, -1.0]
    part = protocol.parts.get(len(predicted)) if len(predicted) < len(true) else None
    if len(predicted) != len(true) and part is None:
        raise InputError(f"{predictions}: {len(predicted)} frames, but {truth} labels {len(true)}")
    true = true[: len(predicted)]
    predicted, axes = _turned_to(Path(predictions), predicted, true, may_turn=format == "xyz")
    measured = JointErrors().update(predicted, true).compute()
    return {
        "mean_mm": measured["mpjpe_mm"],
        "mean_mm_interval95": measured["mpjpe_mm_interval95"],
        "median_mm": measured["median_mm"],
        "per_joint_mm": measured["per_joint_mm"],
        "success": measured["success"],
        "pck": measured["pck"],
        "n": measured["n"],
        "part": part,
        "axes": axes,
    }


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
    up = np.array([1.0, -1.0, 1.0])
    down_mm, up_mm = (
        float(np.linalg.norm(predicted * signs - true, axis=-1).mean()) for signs in (np.ones(3), up)
    )
    if up_mm >= down_mm / 2:
        return predicted, "y down"
    if not may_turn:
        raise InputError(
            f"{path}: {down_mm:.1f} mm off as uvd, {up_mm:.1f} mm with y turned over; "
            "these pixels do not count downwards"
        )
    return predicted * up, "y up"
