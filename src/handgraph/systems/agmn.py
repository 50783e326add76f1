"""AGMN: heat maps and the graphical model's kernels, both from the image, joined by message passing; 2D.

Kong, Chen, Ma, Yan and Xie, "Adaptive Graphical Model Network for 2D Handpose Estimation", BMVC 2019, as
chapter 4 of Kong's dissertation. Equation, figure and table numbers are the dissertation's. Where its text is
silent (the pairwise branch's input sizes, clamping, constants) the authors' published code decides. Message
passing is in `graph/belief_propagation.py`.

Coordinates are `uv` of a colour `Crop`: 0 at the first pixel centre, 1 at the last.

Table 4.1's rows: "CPM Baseline" is system `cpm` with kernel 3; "AGMN Sep. Trained" is this system after its
first two stages, "AGMN Finetuned" after all three. The dashed upper bound of Fig. 4.4 is the first stage's
weights with `true_kernels`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple, cast, get_args

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn.functional import interpolate

from handgraph import skeleton
from handgraph.camera import Crop
from handgraph.errors import ConfigError
from handgraph.graph.belief_propagation import Tree, marginals, potentials
from handgraph.graph.spatial_convolution import Method
from handgraph.hand import Hand
from handgraph.keypoints import Answer, hands, image_keypoints_px
from handgraph.networks.backbone import load_part, load_vgg19
from handgraph.networks.cpm import (
    Features,
    PoseMachine,
    PoseMachineShape,
    first_stage,
    later_stage,
)
from handgraph.networks.heatmaps import (
    Decode,
    MassConfidence,
    kernel_maps,
    keypoints_uv,
    marginal_error,
    squared_error,
)
from handgraph.networks.stacked_hourglass import HourglassShape
from handgraph.networks.unary import PAPER_INPUT_SIZE, Unary, check_kernel_size, check_pretrained
from handgraph.schedule import Stage

INPUT = "colour"
SIGMA = 1.0
"""Width of the Gaussian targets in map cells (section 4.5.1)."""
HAND = Tree(skeleton.PARENTS)


@dataclass(frozen=True)
class Config:
    """The paper's switches. Raises `ConfigError` for a combination that does not exist."""

    unary: Unary = "cpm"
    """The unary branch: the paper's pose machine, or a stacked hourglass."""
    cpm: PoseMachineShape = field(default_factory=PoseMachineShape)
    """The pose machine's size, where it is the unary branch."""
    hourglass: HourglassShape = field(default_factory=HourglassShape)
    """The stacked hourglass's size, where it is the unary branch."""
    pairwise: PoseMachineShape = field(default_factory=PoseMachineShape)
    """The pairwise branch's size: a pose machine too, whose maps are kernels."""
    input_size: int = 0
    """Side of the square colour crop in pixels; 0 stands for the paper's, 368 (with an hourglass 256)."""
    kernel_size: int = 45
    """Side of the kernels in cells of the unary maps."""
    information_flow: bool = True
    """Whether the pairwise branch's stages see the unary branch's maps (the arrows of Fig. 4.2)."""
    true_kernels: bool = False
    """Evaluation with kernels from the labels instead of predicted ones: the upper bound of Fig. 4.4."""
    method: Method = "fft"
    """Message passing through Fourier transforms or by direct convolution; they agree."""
    decode: Decode = "argmax"
    """The highest cell (the paper's), or the centre of mass around it."""
    pretrained: str | None = None
    """VGG-19's ImageNet weights for both trunks, read when training starts (`load_vgg19`)."""
    unary_weights: str | None = None
    """A checkpoint of system `cpm` or `hourglass` with the unary branch trained: its stage is left out."""

    def __post_init__(self) -> None:
        for name, known in (("unary", Unary), ("decode", Decode), ("method", Method)):
            if getattr(self, name) not in get_args(known):
                raise ConfigError(
                    f"{name} is '{getattr(self, name)}', expected one of {', '.join(get_args(known))}"
                )
        if self.input_size == 0:
            object.__setattr__(self, "input_size", PAPER_INPUT_SIZE[self.unary])
        self.shape.check_input(self.input_size)
        self.pairwise.check_input(self.input_size)
        check_kernel_size(self.kernel_size, self.cells)
        machines = {"cpm": self.cpm} if self.unary == "cpm" else {}
        check_pretrained(self.pretrained, **machines, pairwise=self.pairwise)

    @property
    def shape(self) -> PoseMachineShape | HourglassShape:
        """The unary branch's size."""
        return self.cpm if self.unary == "cpm" else self.hourglass

    @property
    def cells(self) -> int:
        """Cells to a side of the heat maps."""
        return self.input_size // self.shape.stride

    def build(self) -> "Agmn":
        """The network, freshly initialised."""
        return Agmn(self)


class Output(NamedTuple):
    """What the network says of a batch of crops. Joints n = 21, directed edges e = 40 (`Tree.edges`)."""

    unary: tuple[Float[Tensor, "b n h w"], ...]
    """S^t: the unary branch's maps, one entry per stage; trained towards Gaussians of peak 1."""
    kernels: tuple[Float[Tensor, "b e k k"], ...]
    """Q^t: the pairwise branch's kernels, one entry per stage; none while the unary branch trains."""
    maps: Float[Tensor, "b n h w"]
    """FS: the marginals (Eq. 4.8), each of sum 1."""
    uv: Float[Tensor, "b n 2"]
    """The keypoints in the crop (Eq. 4.6)."""
    confidence: Float[Tensor, "b n"]
    """Probability of each keypoint, in [0, 1]."""


class Agmn(nn.Module):
    """The network of Fig. 4.2: colour crop (b, 3, s, s), ImageNet-normalised → `Output`.

    With the paper's sizes 58,529,646 parameters, of them 29,429,936 in the pairwise branch.
    """

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config
        self.unary = config.shape.build(len(skeleton.JOINT_NAMES))
        self.pairwise = PairwiseBranch(config)
        self.confidence = MassConfidence()
        self.mode = ""

    def set_stage(self, stage: Stage) -> None:
        """While the unary branch trains, the rest is not run."""
        self.mode = stage.mode

    def forward(
        self,
        image: Float[Tensor, "b 3 s s"],
        uv: Float[Tensor, "b n 2"] | None = None,
        known: Bool[Tensor, "b n"] | None = None,
    ) -> Output:
        """`uv` and `known` are labels, for `true_kernels` alone. Raises ConfigError where it lacks them."""
        config = self.config
        unary = self.unary(image)
        kernels: tuple[Tensor, ...] = ()
        if config.true_kernels:
            if uv is None or known is None:
                raise ConfigError("true_kernels is an evaluation with labels: there are none with this image")
            size = config.input_size
            kernels = (kernel_maps(uv, known, HAND.edges, config.kernel_size, config.cells, size, SIGMA),)
        elif self.mode != "unary":
            kernels = self.pairwise(image, unary)
        maps = potentials(unary[-1])
        if kernels:
            maps = marginals(maps, potentials(kernels[-1]), HAND, config.method)
        found = keypoints_uv(maps, config.input_size, config.decode)
        return Output(unary, kernels, maps, found, self.confidence(maps))


class PairwiseBranch(nn.Module):
    """A second pose machine, of the kernels' size, with one output for each directed edge (section 4.3.2).

    Its stages from the second on see the unary branch's maps of the stage before, if there are so many.
    """

    def __init__(self, config: Config) -> None:
        super().__init__()
        shape, edges = config.pairwise, len(HAND.edges)
        joints = len(skeleton.JOINT_NAMES) if config.information_flow else 0
        self.size, self.information_flow = config.kernel_size, config.information_flow
        self.features = Features(shape.width, stride=shape.stride, norm=shape.norm)
        later = shape.width + edges + joints
        self.stages = nn.ModuleList(
            [first_stage(shape.width, edges, norm=shape.norm)]
            + [
                later_stage(later, shape.width, edges, kernel=shape.kernel, norm=shape.norm)
                for _ in range(shape.stages - 1)
            ]
        )

    def forward(
        self, image: Float[Tensor, "b 3 s s"], unary: Sequence[Float[Tensor, "b n h w"]]
    ) -> tuple[Float[Tensor, "b e k k"], ...]:
        features = self._resized(self.features(image))
        kernels = [cast(Tensor, self.stages[0](features))]
        for number, stage in enumerate(list(self.stages)[1:]):
            seen = [features, kernels[-1]]
            if self.information_flow:
                seen.append(self._resized(unary[min(number, len(unary) - 1)]))
            kernels.append(stage(torch.cat(seen, dim=1)))
        return tuple(kernels)

    def _resized(self, maps: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c k k"]:
        return interpolate(maps, (self.size, self.size), mode="bilinear", align_corners=False)


def inputs(batch: Mapping[str, Any]) -> tuple[Tensor, ...]:
    """The network's arguments: the labels go along for `true_kernels`, and are not looked at without it."""
    return (batch["image"], batch["uv"], batch["known"]) if "uv" in batch else (batch["image"],)


def prepare(module: Agmn, stage: Stage, data: Any, config: Config) -> None:
    """Before the first of `stages` starts: fill the branches with the weights the configuration names."""
    if stage.name != stages(config)[0].name:
        return
    if config.pretrained is not None:
        load_vgg19(module.pairwise.features.trunk, config.pretrained)
        if isinstance(module.unary, PoseMachine):
            load_vgg19(module.unary.features.trunk, config.pretrained)
    if config.unary_weights is not None:
        load_part(
            module.unary,
            config.unary_weights,
            "network.",
            made_by="handgraph train cpm_synthetic --out runs/cpm",
        )


def loss(output: Output, batch: Mapping[str, Any]) -> dict[str, Tensor]:
    """The terms of Eq. 4.16, unweighted: `unary` (Eq. 4.13), `pairwise` (4.14) and `last` (4.15).

    Keypoints outside the crop have no place on a marginal of sum 1 and do not count in `last`.
    """
    size, uv, known = batch["image"].shape[-1], batch["uv"], batch["known"]
    terms = {"unary": squared_error(output.unary, uv, known, size, SIGMA)}
    if not output.kernels:
        return terms
    sources, targets = torch.tensor(HAND.edges, device=uv.device).T
    both = (known[:, sources] & known[:, targets])[..., None, None]
    cells, kernel_size = output.maps.shape[-1], output.kernels[0].shape[-1]
    wanted = kernel_maps(uv, known, HAND.edges, kernel_size, cells, size, SIGMA)
    errors = [((stage.float() - wanted).square() * both).sum() for stage in output.kernels]
    terms["pairwise"] = torch.stack(errors).sum() / len(uv)
    terms["last"] = marginal_error(output.maps, uv, known, size, SIGMA)
    return terms


def stages(config: Config) -> tuple[Stage, ...]:
    """Section 4.4: the unary branch, the pairwise branch beside it while it stands still, then both (4.16).

    Rates and weights are the paper's; how long, the authors' code says: 100, 100 and 10 epochs. (Its losses
    are means over all cells where Eq. 4.12-4.15 are sums, another balance of the three terms.)
    """
    unary = Stage(
        name="unary",
        epochs=100,
        batch_size=32,
        trains=("unary.",),
        loss_weights={"unary": 1.0},
        learning_rate=1e-4,
        mode="unary",
    )
    pairwise = replace(unary, name="pairwise", trains=("pairwise.",), loss_weights={"pairwise": 1.0}, mode="")
    whole = replace(
        pairwise,
        name="whole",
        epochs=10,
        trains=("",),
        loss_weights={"unary": 1.0, "pairwise": 0.1, "last": 0.1},  # α of section 4.5.1
        learning_rate=1e-5,
    )
    return (pairwise, whole) if config.unary_weights is not None else (unary, pairwise, whole)


def keypoints_px(output: Output, crops: Sequence[Crop]) -> Float[np.ndarray, "b n 2"]:
    """The keypoints in image pixels; a mirrored crop's are mirrored back."""
    return image_keypoints_px(output.uv, crops)


def answer(output: Output) -> Answer:
    """What a hand consists of: what `decode` needs, and what an exported file gives."""
    return Answer(output.uv, output.confidence)


def decode(output: Output, crops: Sequence[Crop]) -> list[Hand]:
    """One `Hand` for each sample, without 3D; the score is the mean of its joints' confidences."""
    return hands(answer(output), crops)
