"""Any system as an ONNX file that another runtime runs identically, checked before it gets its name.

The file holds the network up to the few numbers of its system's `Answer`, norms folded into their
convolutions; the batch size is free. Its metadata entry `handgraph` says in JSON what stands around it: how
the crop is made, what the outputs mean, the system, its configuration and how far both runtimes' hands were
apart (docs/export.md).
"""

import json
import logging
import time
import warnings
from collections.abc import Sequence
from dataclasses import asdict
from importlib.resources import files
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from handgraph import __version__
from handgraph.answering import Answering
from handgraph.camera import MARGIN, Crop, PinholeCamera
from handgraph.decoding import decoder
from handgraph.errors import ConfigError, HandgraphError, MissingExtraError
from handgraph.files import atomic_write
from handgraph.images import IMAGENET_MEAN, IMAGENET_STD, read_depth, read_image, to_network
from handgraph.runtime import FILE_VERSION, METADATA, OPSET, SUBJECT, OnnxNetwork, onnx_file
from handgraph.skeleton import JOINT_NAMES
from handgraph.training.checkpoint import UNITS, find_system, load_system

MOST_PX, MOST_MM = 0.05, 0.05
"""Largest difference between the two runtimes' hands that an exported file may have, wherever they lie."""
CUBE_MM = 250.0
"""Side of the depth cube that `predict` lays around a hand."""
REPEATS = 30
_VIEWS = ((1.0, 0.0, 0.0, False), (1.0, 0.0, 0.0, True), (1.25, 0.08, -0.05, False), (0.8, -0.06, 0.1, False))
"""Of each sample picture: size of the window over the usual one, its shift in parts of it, and mirrored."""
_BATCHES = (1, 3)
"""Sizes, beside all pictures at once, that both runtimes must answer alike."""

_SIGHT = (
    "in the crop's frame, turned by the smallest turn that brings the line of sight through its middle onto z"
)
MEANING = {
    "uv": "keypoints in the crop: 0 at the centre of the first pixel, 1 at that of the last",
    "uvz": "joints in the crop: u, v as 0..1 from the first pixel's centre to the last's, z as -1..1 through "
    "the depth cube: depth_mm = centre depth + z * cube_mm / 2",
    "confidence": "probability of each keypoint, 0..1",
    "spread": "standard deviation of what the pixels say about each joint, in sides of the cube",
    "pose": f"joints about the wrist {_SIGHT}, in lengths of the middle finger's first bone",
    "joints_mm": f"joints about the wrist {_SIGHT}, mm",
    "refined_mm": "joints about the place of the prior's wrist in the crop's frame, mm",
    "vertices_mm": "mesh about the wrist in the joints' frame, mm",
    "rotation": "of the hand in the crop's frame, a matrix",
    "rotations": "of the hand in the joints' frame, then of 15 finger joints relative to their parents in "
    "MANO's order, matrices",
    "fingers": "axis-angles of 15 finger joints in MANO's order, radians",
    "shape": "coefficients of the hand model",
    "scale": "factor of the hand model's size",
    "place": "the wrist: u, v, and the logarithm of its depth over that at which the crop spans 250 mm",
    "expected_mm": "expected error of each joint but the wrist, mm",
    "sureness": "probability of each of the 2D keypoints, 0..1",
    "shape_confidence": "how sure the network is of the shape it regressed, any number",
}
"""What the outputs are, by name; all have the batch first."""


def export(checkpoint: str | Path, out: str | Path) -> dict[str, Any]:
    """Write the system of a weights file as ONNX to `out`.

    Both runtimes answer the same pictures first, and their decoded hands are compared. Returns `file`,
    `max_abs_diff` (of all outputs), `max_diff_px`, `max_diff_mm` (None for 2D systems), `pictures`,
    `ms_torch` and `ms_onnx` (medians of one crop), `opset` and `bytes`.

    Raises InputError, before any work, for a name without `.onnx` or a folder that cannot be written,
    CheckpointError for damaged weights, ConfigError for a configuration that cannot stand alone,
    MissingExtraError without the export extra, and HandgraphError, leaving no file, where the hands differ by
    more than MOST_PX or MOST_MM.
    """
    onnx_file(out)
    content, module = exported(checkpoint)
    with atomic_write(out) as part:
        part.write_bytes(content)
    network = OnnxNetwork(content, out)
    system = find_system(network.name)
    image = sample_crops(system.INPUT, network.config.input_size)[0][:1]
    tensor = torch.from_numpy(image)
    with torch.inference_mode():
        ms_torch = _median_ms(lambda: module(tensor))
    return {
        "file": str(out),
        **network.about["parity"],
        "ms_torch": ms_torch,
        "ms_onnx": _median_ms(lambda: network(image)),
        "opset": OPSET,
        "bytes": len(content),
    }


def exported(checkpoint: str | Path) -> tuple[bytes, Answering]:
    """The ONNX file of a weights file, checked against PyTorch, and the module it was made from."""
    module, name, config, meta = load_system(checkpoint)
    content, answering = exported_system(module, name, config, meta, str(checkpoint))
    return content, answering


def exported_system(
    module: nn.Module, name: str, config: Any, meta: dict[str, Any], source: str
) -> tuple[bytes, Answering]:
    """As `exported`, of a system's module; `source` is for the messages."""
    try:
        import onnx
        import onnxruntime  # noqa: F401
        import onnxscript  # noqa: F401  (torch.onnx needs it)
    except ImportError as error:
        raise MissingExtraError(f"export needs {error.name}: pip install 'handgraph[export]'") from None

    system = find_system(name)
    if getattr(config, "true_kernels", False):
        raise ConfigError(f"{source}: true_kernels is an evaluation with labels, which a file cannot ask for")
    answering = Answering(system, module).eval()
    image, crops = sample_crops(system.INPUT, config.input_size)
    arguments: tuple[Tensor, ...] = (torch.from_numpy(image),)
    if answering.takes_shape:
        arguments += (_shapes(len(image)),)
    with torch.inference_mode():
        answering(*(argument[:1] for argument in arguments))  # now it knows its fields
    model = _program(answering, arguments).model_proto
    about = {
        "format_version": FILE_VERSION,
        "handgraph": __version__,
        "system": name,
        "kind": system.INPUT,
        "config": asdict(config),
        "units": UNITS,
        "crop": _recipe(system.INPUT, config.input_size),
        "inputs": _inputs(system.INPUT, answering.takes_shape),
        "outputs": {field: MEANING[field] for field in answering.fields},
        "joints": list(JOINT_NAMES) if getattr(config, "joints", 21) == len(JOINT_NAMES) else config.joints,
        "weights": {key: value for key, value in meta.items() if key not in ("system", "config", "units")},
    }

    def with_metadata(parity: dict[str, Any]) -> bytes:
        onnx.helper.set_model_props(model, {METADATA: json.dumps(about | {"parity": parity})})
        content: bytes = model.SerializeToString()
        return content

    parity = _parity(answering, OnnxNetwork(with_metadata({}), source), arguments, crops)
    px, mm = parity["max_diff_px"], parity["max_diff_mm"]
    # Written so that a NaN counts as too much.
    if not (px <= MOST_PX and (mm is None or mm <= MOST_MM)):
        apart, bounds = f"{px:.3g} px", f"{MOST_PX} px"
        if mm is not None:
            apart, bounds = f"{apart} and {mm:.3g} mm", f"{bounds} and {MOST_MM} mm"
        raise HandgraphError(
            f"{source}: not exported, its hands differ from PyTorch's by {apart}, expected at most {bounds}"
        )
    return with_metadata(parity), answering


def sample_crops(kind: str, size: int) -> tuple[np.ndarray, list[Crop]]:
    """Crops of the shipped sample pictures around their hands, some beside or mirrored, and as arrays."""
    labels = "photos.jsonl" if kind == "colour" else "labels.jsonl"
    folder = Path(str(files("handgraph") / "samples"))
    arrays, crops = [], []
    for line in (folder / labels).read_text(encoding="utf-8").splitlines():
        label = json.loads(line)
        camera = PinholeCamera(**label["camera"])
        if kind == "colour":
            picture = read_image(folder / label["image"])
            keypoints = np.array(label["keypoints_px"])
            middle, extent = (keypoints.max(0) + keypoints.min(0)) / 2, np.ptp(keypoints, axis=0).max()
        else:
            frame = read_depth(folder / label["file"]).depth_mm
            joints = np.array(label["joints_mm"]).mean(axis=0)
        for factor, right, down, mirrored in _VIEWS:
            if kind == "colour":
                side = MARGIN * factor * extent
                x, y = middle + extent * np.array([right, down]) - side / 2
                crop = Crop.window((x, y, side, side), size, camera, mirrored=mirrored)
                arrays.append(to_network(crop.apply_image(picture)))
            else:
                center = joints + CUBE_MM * np.array([right, down, 0.0])
                crop = Crop.cube(center, CUBE_MM * factor, camera, size, mirrored=mirrored)
                arrays.append(crop.apply_depth(frame)[None])
            crops.append(crop)
    return np.stack(arrays), crops


def _shapes(count: int) -> Tensor:
    """Hand shapes to export with: every other one is not known."""
    shapes = torch.from_numpy(np.random.default_rng(0).normal(0, 1, (count, 10))).float()
    shapes[::2] = torch.nan
    return shapes


def _parity(
    answering: Answering, network: OnnxNetwork, arguments: tuple[Tensor, ...], crops: Sequence[Crop]
) -> dict[str, Any]:
    """How far apart both runtimes' outputs and hands are, over all pictures and some sizes of batches."""
    decoding = decoder(network.name)
    difference, px, mm = 0.0, 0.0, None
    for count in (*_BATCHES, len(crops)):
        some = tuple(argument[:count] for argument in arguments)
        with torch.inference_mode():
            values = (value.numpy() for value in answering(*some))
            ours = decoding.Answer(**dict(zip(answering.fields, values, strict=True)))
        theirs = network(*(argument.numpy() for argument in some))
        for name in answering.fields:
            difference = _larger(difference, _apart(getattr(ours, name), getattr(theirs, name)))
        if not np.isfinite(difference):  # then nobody's hands
            px = mm = difference
            break
        off_px, off_mm = _hands_differ(decoding, ours, theirs, crops[:count])
        px = _larger(px, off_px)
        mm = mm if off_mm is None else _larger(mm or 0.0, off_mm)
    return {
        "max_abs_diff": difference,
        "max_diff_px": px,
        "max_diff_mm": mm,
        "pictures": len(crops),
        "against": f"PyTorch {torch.__version__}",
    }


def _hands_differ(
    decoding: ModuleType, ours: Any, theirs: Any, crops: Sequence[Crop]
) -> tuple[float, float | None]:
    """Largest difference of keypoints (px) and of joints and meshes (mm, None without 3D) over all hands."""
    if getattr(ours, "uvz", None) is not None and ours.uvz.shape[1] != len(JOINT_NAMES):
        # A network of a data set's own joints has no hands, but it has places in the image and in space.
        a, b = (decoding.joints_mm(answer.uvz, crops) for answer in (ours, theirs))
        u, v = (
            np.stack([crop.uvd_from_uvz(one)[:, :2] for crop, one in zip(crops, uvz, strict=True)])
            for uvz in (ours.uvz, theirs.uvz)
        )
        return _apart(u, v), _apart(a, b)
    if getattr(ours, "uv", None) is not None and ours.uv.shape[1] != len(JOINT_NAMES):
        return _apart(*(decoding.image_keypoints_px(answer.uv, crops) for answer in (ours, theirs))), None
    px, mm = 0.0, None
    for a, b in zip(decoding.hands(ours, crops), decoding.hands(theirs, crops), strict=True):
        px = _larger(px, _apart(a.keypoints_px, b.keypoints_px))
        for name in ("joints_mm", "vertices_mm"):
            if getattr(a, name) is not None:
                # Without its true size a hand is relative, in hand lengths of some 180 mm.
                unit = 180.0 if a.frame.endswith("hand lengths") else 1.0
                mm = _larger(mm or 0.0, unit * _apart(getattr(a, name), getattr(b, name)))
    return px, mm


def _larger(a: float, b: float) -> float:
    """Of two numbers; NaN where one of them is, which `max` would forget."""
    return float(np.maximum(a, b))


def _apart(a: np.ndarray, b: np.ndarray) -> float:
    """The largest difference; NaN where one of them is."""
    return float(np.abs(np.asarray(a, np.float64) - np.asarray(b, np.float64)).max())


def _inputs(kind: str, takes_shape: bool) -> dict[str, str]:
    meaning = {"image": f"crops, float32 (batch, {3 if kind == 'colour' else 1}, size, size), see crop"}
    if takes_shape:
        meaning[SUBJECT] = "coefficients of the hand's shape, float32 (batch, 10); NaN where not known"
    return meaning


def _recipe(kind: str, size: int) -> dict[str, Any]:
    """How a crop is made, for whoever writes it in another language."""
    left = "a left hand is mirrored in x when cropped, and its answer back"
    if kind == "depth":
        return {
            "size": size,
            "window": "the square that a cube of cube_mm around the hand's centre covers at the centre's "
            "depth: cube_mm * focal length / depth pixels wide, first and last pixel's centres on its edges",
            "cube_mm": CUBE_MM,
            "resampling": "nearest neighbour",
            "value": "(depth_mm - centre depth) / (cube_mm / 2) where that is in -1..1, elsewhere and "
            "without a reading 1",
            "mirroring": left,
        }
    return {
        "size": size,
        "window": "the square around the middle of the hand's keypoints, margin times as wide as their box, "
        "first and last pixel's centres on its edges; black outside the picture",
        "margin": MARGIN,
        "resampling": "bilinear; where it shrinks by s > 1.5 after a Gaussian blur of sigma 0.4 s pixels",
        "mean": [round(float(value), 3) for value in IMAGENET_MEAN],
        "std": [round(float(value), 3) for value in IMAGENET_STD],
        "value": "(RGB / 255 - mean) / std, channels first",
        "mirroring": left,
    }


def _program(answering: Answering, arguments: tuple[Tensor, ...]) -> Any:
    batch = torch.export.Dim("batch", min=1, max=4096)
    names = ["image", SUBJECT][: len(arguments)]
    log = logging.getLogger("torch.onnx")
    level = log.level
    log.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), torch.inference_mode(False), torch.no_grad():
            warnings.simplefilter("ignore")  # of torch's own making, about torch's own insides
            return torch.onnx.export(
                answering,
                arguments,
                dynamo=True,
                opset_version=OPSET,
                input_names=names,
                output_names=list(answering.fields),
                dynamic_shapes=tuple({0: batch} for _ in arguments),
                verbose=False,
            )
    finally:
        log.setLevel(level)


def _median_ms(call: Any) -> float:
    times = []
    for _ in range(REPEATS):
        start = time.perf_counter()
        call()
        times.append(1000 * (time.perf_counter() - start))
    return round(float(np.median(times)), 3)
