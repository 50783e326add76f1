"""The network of the hand finder: a picture to maps of where hands are, how large, and which.

Anchor-free, as CenterNet (Zhou, Wang, Krähenbühl: Objects as points, 2019) and FCOS (Tian et al., ICCV 2019):
every cell of maps an eighth of the picture's side says whether a hand's middle lies there, and if so its box
and its side. Four stages look at the picture from a quarter to a 32nd of its side; what the coarse ones saw
of the surroundings is added back to the finer ones.
"""

import json
import logging
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import interpolate, max_pool2d

from handgraph.errors import CheckpointError, ConfigError, HandgraphError, MissingExtraError
from handgraph.networks.batch_norm import BatchNorm2d
from handgraph.networks.hourglass import ConvNorm, folded
from handgraph.runtime import FILE_VERSION, METADATA, OPSET, Session
from handgraph.training.checkpoint import _read, load_into

STRIDE = 8
CHANNELS = 6
"""Score (logit), middle's offset in x and y, logarithm of width and height, side (logit, above 0 right)."""


@dataclass(frozen=True)
class Config:
    """Channels of the stages at 1/2, 1/4, 1/8, 1/16 and 1/32 of the picture's side."""

    widths: tuple[int, int, int, int, int] = (12, 24, 48, 96, 128)

    def __post_init__(self) -> None:
        if len(self.widths) != 5 or min(self.widths) < 1:
            raise ConfigError(f"widths {self.widths}: expected five numbers of channels, at least 1 each")

    def build(self) -> "FinderNet":
        return FinderNet(self)


class Look(nn.Module):
    """A 5×5 look at every channel by itself, then two 1×1 convolutions, added to the input."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.around = nn.Conv2d(width, width, 5, padding=2, groups=width)
        self.widen = ConvNorm(width, width * 3 // 2)
        self.narrow = ConvNorm(width * 3 // 2, width, relu=False)

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        return x + self.narrow(self.widen(self.around(x)))


class FinderNet(nn.Module):
    """A picture (b, 3, h, w), normalised as everywhere, sides multiples of 32, to maps (b, 6, h/8, w/8)."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config
        a, b, c, d, e = config.widths
        self.stem = nn.Sequential(ConvNorm(3, a, 3, stride=2), ConvNorm(a, b, 3, stride=2))
        self.eighth = nn.Sequential(ConvNorm(b, c, 3, stride=2), Look(c), Look(c))
        self.sixteenth = nn.Sequential(ConvNorm(c, d, 3, stride=2), Look(d), Look(d), Look(d))
        self.coarsest = nn.Sequential(ConvNorm(d, e), Look(e), Look(e))
        self.to_sixteenth, self.to_eighth = ConvNorm(e, d, relu=False), ConvNorm(d, c, relu=False)
        self.mix_sixteenth, self.mix_eighth = Look(d), Look(c)
        last = nn.Conv2d(c, CHANNELS, 1)
        self.head = nn.Sequential(Look(c), ConvNorm(c, c), last)
        nn.init.zeros_(last.weight)
        assert last.bias is not None
        with torch.no_grad():  # hands are rare: begin with a score of 0.01 everywhere
            last.bias.copy_(torch.tensor([-4.6, 0.0, 0.0, 0.0, 0.0, 0.0]))
        for module in self.modules():
            if isinstance(module, BatchNorm2d):
                module.momentum = 0.02

    def forward(self, image: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b 6 h8 w8"]:
        eighth = self.eighth(self.stem(image))
        sixteenth = self.sixteenth(eighth)
        coarsest = self.coarsest(max_pool2d(sixteenth, 2))
        sixteenth = self.mix_sixteenth(
            sixteenth + interpolate(self.to_sixteenth(coarsest), scale_factor=2.0, mode="nearest")
        )
        eighth = self.mix_eighth(
            eighth + interpolate(self.to_eighth(sixteenth), scale_factor=2.0, mode="nearest")
        )
        maps: Tensor = self.head(eighth)
        return maps


def loss(maps: Float[Tensor, "b 6 h w"], target: Float[Tensor, "b 8 h w"]) -> dict[str, Float[Tensor, ""]]:
    """The loss terms of maps against `finder.encode`'s targets.

    `score`: the focal loss of CenterNet (eq. 1 there, α = 2, β = 4) over the number of hands; `box`: mean
    absolute error of offset and size, `side`: cross-entropy, both over the cells near a hand's middle, by
    their weight.
    """
    maps = maps.float()
    heat, cared, weight = target[:, 0], target[:, 1], target[:, 2]
    log_p = nn.functional.logsigmoid(maps[:, 0])
    log_not = nn.functional.logsigmoid(-maps[:, 0])
    p = log_p.exp()
    is_middle = heat > 0.999
    there = -((1 - p) ** 2 * log_p)[is_middle].sum()
    elsewhere = -(cared * (1 - heat) ** 4 * p**2 * log_not)[~is_middle].sum()
    total = weight.sum().clamp(min=1.0)
    box = (maps[:, 1:5] - target[:, 3:7]).abs().mean(dim=1)
    side = nn.functional.binary_cross_entropy_with_logits(maps[:, 5], target[:, 7], reduction="none")
    return {
        "score": (there + elsewhere) / is_middle.sum().clamp(min=1),
        "box": (box * weight).sum() / total,
        "side": (side * weight).sum() / total,
    }


MOST_DIFFERENCE = 1e-3
"""Between the two runtimes' answers, anywhere."""


def load(file: str | Path) -> FinderNet:
    """The network of a weights file, in evaluation mode. Raises CheckpointError for any other file."""
    tensors, meta = _read(Path(file), lambda name: True)
    if meta.get("system") != "finder":
        raise CheckpointError(f"{file}: holds {meta.get('system')!r}, expected the hand finder's weights")
    module = Config(tuple(meta["config"]["widths"])).build()
    load_into(module, tensors, str(file))
    return module.eval()


def load_maps(file: str | Path) -> Callable[[np.ndarray], np.ndarray]:
    """Pictures (b, 3, h, w) to maps (b, 6, h/8, w/8), in arrays, by PyTorch."""
    module = folded(load(file))

    def maps(pictures: np.ndarray) -> np.ndarray:
        with torch.inference_mode():
            answer: np.ndarray = module(torch.from_numpy(pictures)).numpy()
        return answer

    return maps


def exported(file: str | Path) -> bytes:
    """The network as an ONNX file: `image` (batch, 3, 32·a, 32·b) to `maps`; checked against PyTorch.

    Raises HandgraphError where the maps differ, MissingExtraError without the export extra.
    """
    module = folded(load(file))
    sides = {k: 32 * torch.export.Dim(name, min=1, max=64) for k, name in ((2, "rows"), (3, "columns"))}
    about = {"finder": "maps of hands' middles, boxes and sides, stride 8"}
    content = as_onnx(module, torch.zeros(2, 3, 128, 192), sides, "maps", about)
    check_onnx(content, file, module, "maps", ((1, 3, 192, 192), (3, 3, 128, 192), (1, 3, 96, 64)))
    return content


def as_onnx(
    module: nn.Module, example: Tensor, free: dict[int, Any], output: str, about: dict[str, Any]
) -> bytes:
    """A network of pictures as an ONNX file: `image`, whose batch and `free` axes are open, to `output`.

    `about` says in its description what it is. Raises MissingExtraError without the export extra.
    """
    try:
        import onnx
        import onnxruntime  # noqa: F401
        import onnxscript  # noqa: F401  (torch.onnx needs it)
    except ImportError as error:
        raise MissingExtraError(f"export needs {error.name}: pip install 'handgraph[export]'") from None

    log = logging.getLogger("torch.onnx")
    level = log.level
    log.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), torch.inference_mode(False), torch.no_grad():
            warnings.simplefilter("ignore")  # of torch's own making, about torch's own insides
            program: Any = torch.onnx.export(
                module,
                (example,),
                dynamo=True,
                opset_version=OPSET,
                input_names=["image"],
                output_names=[output],
                dynamic_shapes=({0: torch.export.Dim("batch", min=1, max=4096), **free},),
                verbose=False,
            )
    finally:
        log.setLevel(level)
    model = program.model_proto
    onnx.helper.set_model_props(model, {METADATA: json.dumps({"format_version": FILE_VERSION, **about})})
    content: bytes = model.SerializeToString()
    return content


def check_onnx(
    content: bytes, file: str | Path, module: nn.Module, output: str, shapes: Sequence[tuple[int, ...]]
) -> None:
    """Raise HandgraphError where both runtimes' answers to pictures of these shapes differ."""
    session = Session(content, file)
    rng = np.random.default_rng(0)
    for shape in shapes:
        pictures = rng.normal(0, 1, shape).astype(np.float32)
        with torch.inference_mode():
            apart = np.abs(session(image=pictures)[output] - module(torch.from_numpy(pictures)).numpy()).max()
        if not apart <= MOST_DIFFERENCE:  # so that a NaN counts as too much
            raise HandgraphError(f"{file}: not exported, {output} differ from PyTorch's by {apart:.3g}")
