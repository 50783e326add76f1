"""SiaPose: heat maps of any 2D estimator, refined by edge-aware graph convolutions; one colour crop to 2D.

Kong, Ma and Xie, "SIA-GCN: A Spatial Information Aware Graph Neural Network with 2D Convolutions for Hand
Pose Estimation", BMVC 2020 (dissertation, chapter 5). Equation, figure and table numbers are the paper's.
The graph convolution is in `graph/edge_convolution.py`.

Coordinates are `uv` of a colour `Crop`: 0 at the first pixel centre, 1 at the last.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple, get_args

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from handgraph import skeleton
from handgraph.camera import Crop
from handgraph.errors import ConfigError
from handgraph.graph.edge_convolution import EdgeConvolution, edge_convolution
from handgraph.hand import Hand
from handgraph.keypoints import Answer, hands, image_keypoints_px
from handgraph.networks.backbone import load_part, load_vgg19
from handgraph.networks.cpm import PoseMachine, PoseMachineShape
from handgraph.networks.heatmaps import Decode, PeakConfidence, cross_entropy, keypoints_uv, squared_error
from handgraph.networks.image_features import build_features, check_name
from handgraph.networks.rotation import (
    Rotation,
    RotationNet,
    as_turn,
    inverse,
    rotation_error,
    turn_maps,
)
from handgraph.networks.stacked_hourglass import HourglassShape
from handgraph.networks.unary import PAPER_INPUT_SIZE, Unary, check_kernel_size, check_pretrained
from handgraph.schedule import Stage

INPUT = "colour"
SIGMA = 1.0
"""Width of the Gaussian targets in map cells; the paper gives none."""


@dataclass(frozen=True)
class Config:
    """The paper's switches. Raises `ConfigError` for a combination that does not exist."""

    joints: int = 21
    """14 (NYU), 16 (ICVL) or 21: the hands whose skeleton is known."""
    unary: Unary = "cpm"
    """The preliminary estimator (Tables 1 and 2)."""
    cpm: PoseMachineShape = field(default_factory=PoseMachineShape)
    """The pose machine's size, where it is the estimator."""
    hourglass: HourglassShape = field(default_factory=HourglassShape)
    """The stacked hourglass's size, where it is the estimator."""
    input_size: int = 0
    """Side of the square colour crop in pixels; 0 stands for the paper's, 368 (CPM) or 256 (hourglass)."""
    heads: int = 10
    """SIA-GCNs side by side, weighted by the pointer network; with one there is no pointer network."""
    layers: int = 5
    """Graph convolutions of each head (Eq. 2)."""
    kernel_size: int = 45
    """Side of the edges' kernels in cells."""
    shared_weights: bool = False
    """One kernel a layer for all edges: the edge-unaware GCN of Tables 1 and 2."""
    rotation: Rotation | bool = "none"
    """A rotation net that turns the hand upright first (R-SiaPose): its answer is the angle (true, as
    R-MGMN's) or a vector; none (false) leaves the image as it is."""
    pointer: str = "resnet18"
    """The pointer and rotation nets' backbone: small, resnet18, resnet50 or a name on the hub."""
    decode: Decode = "argmax"
    """The highest cell (the paper's), or the centre of mass around it."""
    pretrained: str | None = None
    """VGG-19's ImageNet weights for the pose machine's trunk, read when training starts (`load_vgg19`)."""
    unary_weights: str | None = None
    """A checkpoint of system `cpm` or `hourglass` with the estimator trained, read when training starts."""

    def __post_init__(self) -> None:
        if self.joints not in (14, 16, 21):
            raise ConfigError(f"joints is {self.joints}, expected 14 (NYU), 16 (ICVL) or 21")
        for name, known in (("unary", Unary), ("decode", Decode)):
            if getattr(self, name) not in get_args(known):
                raise ConfigError(
                    f"{name} is '{getattr(self, name)}', expected one of {', '.join(get_args(known))}"
                )
        if isinstance(self.rotation, bool):
            object.__setattr__(self, "rotation", "angle" if self.rotation else "none")
        if self.input_size == 0:
            object.__setattr__(self, "input_size", PAPER_INPUT_SIZE[self.unary])
        self.shape.check_input(self.input_size)
        for name in ("heads", "layers"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} is {getattr(self, name)}, expected 1 or more")
        check_kernel_size(self.kernel_size, self.cells)
        if self.rotation not in get_args(Rotation):
            raise ConfigError(
                f"rotation is '{self.rotation}', expected true, false or one of "
                f"{', '.join(get_args(Rotation))}"
            )
        check_name(self.pointer)
        check_pretrained(self.pretrained, **({"cpm": self.cpm} if self.unary == "cpm" else {}))

    @property
    def shape(self) -> PoseMachineShape | HourglassShape:
        """The preliminary estimator's size."""
        return self.cpm if self.unary == "cpm" else self.hourglass

    @property
    def cells(self) -> int:
        """Cells to a side of the heat maps."""
        return self.input_size // self.shape.stride

    def build(self) -> "SiaPose":
        """The network, freshly initialised."""
        return SiaPose(self)


class Output(NamedTuple):
    """What the network says of a batch of crops."""

    preliminary: tuple[Float[Tensor, "b n h w"], ...]
    """S^t: the estimator's maps in the crop's own frame, one entry per stage."""
    maps: Float[Tensor, "b n h w"]
    """Ȳ: the answer (Eq. 3)."""
    pointer: Float[Tensor, "b m"]
    """w: how much each head counts; the sum is 1."""
    rotation: tuple[Float[Tensor, "b k"], ...]
    """One entry, the rotation net's answer (angle or vector); none without such a net."""
    uv: Float[Tensor, "b n 2"]
    """The keypoints in the crop."""
    confidence: Float[Tensor, "b n"]
    """Probability of each keypoint, in [0, 1]."""


class SiaPose(nn.Module):
    """The network of Fig. 1: colour crop (b, 3, s, s), ImageNet-normalised → `Output`."""

    started: Tensor
    """Whether training has begun, so that a later stage or a resumed run does not undo what was learned."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config
        self.unary = config.shape.build(config.joints)
        self.gcn = SiaGcns(config)
        self.pointer = Pointer(config.pointer, config.heads) if config.heads > 1 else None
        self.rotation = None
        if config.rotation == "angle" or config.rotation == "vector":
            self.rotation = RotationNet(config.pointer, config.rotation)
        self.confidence = PeakConfidence()
        self.register_buffer("started", torch.tensor(False))

    def forward(self, image: Float[Tensor, "b 3 s s"]) -> Output:
        rotation: tuple[Tensor, ...] = ()
        if self.rotation is not None:
            rotation = (self.rotation(image),)
            turn = as_turn(*rotation)
            image = turn_maps(image, turn)
        preliminary = self.unary(image)
        heads = self.gcn(preliminary[-1])
        if self.pointer is None:
            pointer = torch.ones_like(heads[:, :, 0, 0, 0])
        else:
            pointer = self.pointer(image)
        maps = (pointer[:, :, None, None, None] * heads).sum(dim=1)  # Eq. 3
        if self.rotation is not None:
            maps = turn_maps(maps, inverse(turn))
            preliminary = tuple(turn_maps(stage, inverse(turn)) for stage in preliminary)
        uv = keypoints_uv(maps, self.config.input_size, self.config.decode)
        return Output(preliminary, maps, pointer, rotation, uv, self.confidence(maps))


class SiaGcns(nn.Module):
    """All heads (section 3.2): copies of the estimator's maps through `layers` graph convolutions each."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.heads = config.heads
        self.layers = nn.ModuleList(graph_convolution(config) for _ in range(config.layers))

    def forward(self, maps: Float[Tensor, "b n h w"]) -> Float[Tensor, "b m n h w"]:
        if self.training:
            # A batch's spectra of one head fit into a processor's cache, those of ten heads do not: head by
            # head a step takes less than half the time. One image is faster through all heads together.
            return torch.stack([self._head(maps, head) for head in range(self.heads)], dim=1)
        heads = maps[:, None]
        for layer in self.layers:
            heads = layer(heads).relu()  # Eq. 2
        return heads

    def _head(self, maps: Float[Tensor, "b n h w"], head: int) -> Float[Tensor, "b n h w"]:
        for layer in self.layers:
            assert isinstance(layer, EdgeConvolution)
            kernels = layer.weight[head].expand(len(layer.edges.sources), -1, -1)
            maps = edge_convolution(maps, kernels, layer.edges).relu()
        return maps


class Pointer(nn.Module):
    """The pointer network: which head to listen to for this image; a softmax over the heads."""

    def __init__(self, backbone: str, heads: int) -> None:
        super().__init__()
        self.features = build_features(backbone)
        self.head = nn.Linear(self.features.channels, heads)

    def forward(self, image: Float[Tensor, "b 3 s s"]) -> Float[Tensor, "b m"]:
        weights: Tensor = self.head(self.features(image)).float().softmax(dim=1)
        return weights


def graph_convolution(config: Config) -> EdgeConvolution:
    """One layer of all heads over the skeleton with self loops, started close to the identity.

    The paper does not say how kernels start. Here a node's own kernel is a single one at its centre and the
    others are a tenth of PyTorch's usual noise, so that what goes in comes out at first, and training refines
    a working estimator instead of rebuilding it. A kernel that all edges share starts as one at its centre.
    """
    adjacency = skeleton.adjacency(config.joints, skeleton.edges(config.joints)) + np.eye(config.joints)
    layer = EdgeConvolution(
        torch.from_numpy(adjacency.astype(np.float32)),
        config.kernel_size,
        heads=config.heads,
        shared=config.shared_weights,
    )
    center = config.kernel_size // 2
    with torch.no_grad():
        layer.weight.mul_(0.1)
        if config.shared_weights:
            layer.weight[..., center, center] += 1.0
        else:
            for edge, (source, target) in enumerate(
                zip(layer.edges.sources, layer.edges.targets, strict=True)
            ):
                if source == target:  # Â takes the mean of what comes in; undo that
                    layer.weight[:, edge, center, center] += layer.edges.degrees[target]
    return layer


def prepare(module: SiaPose, stage: Stage, data: Any, config: Config) -> None:
    """Before a fresh network's first stage: fill the estimator with the weights the configuration names."""
    if module.started:
        return
    module.started.fill_(True)
    if config.pretrained is not None:
        assert isinstance(module.unary, PoseMachine)
        load_vgg19(module.unary.features.trunk, config.pretrained)
    if config.unary_weights is not None:
        load_part(module.unary, config.unary_weights, "network.")


def loss(output: Output, batch: Mapping[str, Any]) -> dict[str, Tensor]:
    """The terms of Eq. 4, unweighted: `preliminary` (L1, all stages of the estimator) and `final` (L2).

    `preliminary_cross_entropy` takes the place of L1 for an estimator whose maps are distributions.
    With a rotation net `rotation` too, the squared error of its answer (dissertation, Eq. 3.24).
    """
    size, uv, known = batch["image"].shape[-1], batch["uv"], batch["known"]
    terms = {
        "preliminary": squared_error(output.preliminary, uv, known, size, SIGMA),
        "final": squared_error([output.maps], uv, known, size, SIGMA),
        "preliminary_cross_entropy": cross_entropy(output.preliminary, uv, known, size, SIGMA),
    }
    for answer in output.rotation:
        terms["rotation"] = rotation_error(answer, uv, known)
    return terms


def stages(config: Config) -> tuple[Stage, ...]:
    """Section 4's 100 epochs of Adam: α falls from 1 to 0.1 after 40, the rate is halved after 60 and 80.

    Each change is a stage of its own, with fresh moments of Adam. With `unary_weights` the graph convolutions
    first learn for 20 epochs on the trained estimator, which is frozen meanwhile; then everything learns with
    α = 0.1, the estimator having had its time. A rotation net learns alone for 6 epochs, as R-MGMN's does
    (dissertation, section 3.4), stands still in the next stage and learns with the rest from then on.
    """
    rate = 1e-4 if config.unary == "cpm" else 7.5e-4
    l1 = "preliminary_cross_entropy" if config.shape.distribution else "preliminary"
    whole = Stage(
        name="alpha_1",
        epochs=40,
        batch_size=32,
        trains=("unary.", "gcn.", "pointer."),
        loss_weights={l1: 1.0, "final": 1.0},  # α of Eq. 4, and 1
        learning_rate=rate,
    )
    on_trained = replace(
        whole, name="graph", epochs=20, trains=("gcn.", "pointer."), loss_weights={"final": 1.0}
    )
    refined = replace(
        whole, name="alpha_tenth", epochs=20, trains=("",), loss_weights={l1: 0.1, "final": 1.0}
    )
    rotation = replace(
        whole,
        name="rotation",
        epochs=6,
        trains=("rotation.",),
        loss_weights={"rotation": 1.0},
        learning_rate=1e-4,
    )
    return (
        *((rotation,) if config.rotation != "none" else ()),
        whole if config.unary_weights is None else on_trained,
        refined,
        replace(refined, name="half", learning_rate=rate / 2),
        replace(refined, name="quarter", learning_rate=rate / 4),
    )


def keypoints_px(output: Output, crops: Sequence[Crop]) -> Float[np.ndarray, "b n 2"]:
    """The keypoints in image pixels; a mirrored crop's are mirrored back."""
    return image_keypoints_px(output.uv, crops)


def answer(output: Output) -> Answer:
    """What a hand consists of: what `decode` needs, and what an exported file gives."""
    return Answer(output.uv, output.confidence)


def decode(output: Output, crops: Sequence[Crop]) -> list[Hand]:
    """One `Hand` for each sample, without 3D; the score is the mean of its joints' confidences."""
    return hands(answer(output), crops)
