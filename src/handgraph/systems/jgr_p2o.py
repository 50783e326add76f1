"""JGR-P2O: joint graph reasoning and pixel-to-offset prediction, one depth crop to 3D joints.

Fang, Liu, Liu, Xu and Kang, "JGR-P2O: Joint Graph Reasoning based Pixel-to-Offset Prediction Network for
3D Hand Pose Estimation from a Single Depth Image", ECCV 2020. Equation, figure and table numbers are the
paper's. Where its text is silent (widths, residuals, what has a bias) the authors' published code decides.

Coordinates are `uvz` of a depth `Crop`: u, v in [0, 1] from the first pixel centre to the last, z in [-1, 1].
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, NamedTuple, get_args

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import huber_loss, interpolate

from handgraph import skeleton
from handgraph.arrays import array
from handgraph.camera import Crop
from handgraph.decoding import jgr_p2o as decoding
from handgraph.errors import ConfigError
from handgraph.graph.gcn import FixedGraph, GraphConvolution, ParameterisedGraph, SimilarityGraph
from handgraph.graph.voting import (
    aggregate_offsets,
    feature_map,
    joint_to_pixel,
    pixel_to_joint,
    pixel_uvz,
    tokens,
    voting_weights,
)
from handgraph.hand import Hand
from handgraph.networks.hourglass import ConvNorm, Hourglass, Residual, Stem
from handgraph.schedule import Stage

if TYPE_CHECKING:
    from handgraph.hand_model.fitting import Fit

INPUT = "depth"
HUBER_DELTA = 0.01

Graph = Literal["skeleton", "similarity", "parameterised"]
Reasoning = Literal["graph", "attention", "none"]
Head = Literal["offset", "heatmap"]


@dataclass(frozen=True)
class Config:
    """The paper's switches. Raises `ConfigError` for a combination that does not exist."""

    joints: int = 21
    """14 (NYU), 16 (ICVL) or 21 (MSRA, and the canonical hand)."""
    hourglasses: int = 2
    """Stacked hourglasses, each with its own supervision (Table 3)."""
    graph: Graph = "skeleton"
    """How A^e is defined (Table 1): the skeleton, the features' similarity, or a learned matrix."""
    reasoning: Reasoning = "graph"
    """Joint graph reasoning, the attention baseline (Fig. 3), or the plain mean over pixels (Table 2)."""
    head: Head = "offset"
    """Pixel-to-offset, or the differentiable heat-map baseline (Table 4)."""
    offset_loss: bool = True
    """Whether Eq. 8 takes part in training (Table 2). The heat-map head predicts no offsets and has none."""
    width: int = 128
    """Channels of the feature maps."""
    input_size: int = 96
    """Side of the square depth crop in pixels."""

    def __post_init__(self) -> None:
        if self.joints not in (14, 16, 21):
            raise ConfigError(f"joints is {self.joints}, expected 14 (NYU), 16 (ICVL) or 21")
        if self.hourglasses < 1:
            raise ConfigError(f"hourglasses is {self.hourglasses}, expected 1 or more")
        for name, known in (("graph", Graph), ("reasoning", Reasoning), ("head", Head)):
            if getattr(self, name) not in get_args(known):
                raise ConfigError(
                    f"{name} is '{getattr(self, name)}', expected one of {', '.join(get_args(known))}"
                )
        if self.head == "heatmap" and self.reasoning == "attention":
            raise ConfigError(
                "head 'heatmap' has weights of its own and would not use those of reasoning 'attention': "
                "choose reasoning 'graph' or 'none', or head 'offset'"
            )
        if self.width < 8 or self.width % 8:
            raise ConfigError(f"width is {self.width}, expected a multiple of 8")
        if self.input_size < 32 or self.input_size % 32:
            raise ConfigError(f"input_size is {self.input_size}, expected a multiple of 32 pixels")

    def build(self) -> "JgrP2O":
        """The network, freshly initialised."""
        return JgrP2O(self)


class Output(NamedTuple):
    """One entry per hourglass, the last is the answer. Maps (h, w) are a quarter of the input's side."""

    uvz: tuple[Float[Tensor, "b n 3"], ...]
    """The joints (Eq. 6)."""
    weights: tuple[Float[Tensor, "b n h w"], ...]
    """w_ki: how much pixel i counts for joint k; each joint's sum is 1."""
    offsets: tuple[Float[Tensor, "b n 3 h w"], ...]
    """Δ_ki: from pixel i to joint k."""
    pixels_uvz: Float[Tensor, "b 3 h w"]
    """p_i: the pixels' own coordinates, from the input resized to the maps' size."""


class JgrP2O(nn.Module):
    """The network of Fig. 1: depth crop (b, 1, s, s), normalised to [-1, 1] with background +1 → `Output`.

    Weights start as PyTorch's layers do. The authors' code draws them from a truncated normal of σ 0.01, and
    learned far slower so: fitting 64 samples at AdamW 2e-3 in bfloat16, 37 mm after 110 steps against 7 mm.
    """

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config
        self.stem = Stem(1, config.width)
        self.stacks = nn.ModuleList(
            StackedStage(config, last=index == config.hourglasses - 1) for index in range(config.hourglasses)
        )

    def forward(self, depth: Float[Tensor, "b 1 s s"]) -> Output:
        x = self.stem(depth)
        # Corners aligned, so that a pixel's z is the depth at that pixel's own u, v.
        pixels = pixel_uvz(interpolate(depth.float(), x.shape[-2:], mode="bilinear", align_corners=True))
        uvz, weights, offsets = [], [], []
        for stack in self.stacks:
            x, stage_weights, stage_offsets = stack(x, pixels)
            uvz.append(
                aggregate_offsets(stage_weights.flatten(2), stage_offsets.flatten(3), pixels.flatten(2))
            )
            weights.append(stage_weights)
            offsets.append(stage_offsets)
        return Output(tuple(uvz), tuple(weights), tuple(offsets), pixels)


class StackedStage(nn.Module):
    """One hourglass with its reasoning and its prediction; what it learned is fed to the next one's input."""

    def __init__(self, config: Config, *, last: bool) -> None:
        super().__init__()
        width = config.width
        self.hourglass = Hourglass(width, depth=3)
        self.residual = Residual(width, width)
        self.reasoning = {"graph": JointGraphReasoning, "attention": Attention, "none": PlainMean}[
            config.reasoning
        ](config)
        self.head = {"offset": PixelToOffset, "heatmap": DifferentiableHeatmap}[config.head](config)
        maps = (3 if config.head == "offset" else 2) * config.joints
        self.feed_maps = None if last else ConvNorm(maps, width)
        self.feed_features = None if last else ConvNorm(width, width)

    def forward(
        self, x: Float[Tensor, "b c h w"], pixels: Float[Tensor, "b 3 h w"]
    ) -> tuple[Float[Tensor, "b c h w"], Float[Tensor, "b n h w"], Float[Tensor, "b n 3 h w"]]:
        """Returns the next hourglass's input, the weights w_ki and the offsets Δ_ki."""
        weights, features = self.reasoning(self.residual(self.hourglass(x)))
        maps, features, weights, offsets = self.head(features, weights, pixels)
        if self.feed_maps is not None and self.feed_features is not None:
            x = x + self.feed_maps(maps) + self.feed_features(features)
        return x, weights.unflatten(2, x.shape[-2:]), offsets


class JointGraphReasoning(nn.Module):
    """Section 3.2, Fig. 2: pixels vote for joints, the graph evolves them, the same weights map them back."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        width = config.width
        adjacency = torch.from_numpy(
            skeleton.adjacency(config.joints, skeleton.edges(config.joints)).astype(np.float32)
        )
        self.vote = nn.Conv2d(width, config.joints, 1)  # φ of Eq. 1
        self.local = ConvNorm(width, width)  # φ (varphi) of Eq. 2
        self.graph: nn.Module = {
            "skeleton": lambda: FixedGraph(adjacency),
            "similarity": lambda: SimilarityGraph(width),
            "parameterised": lambda: ParameterisedGraph(adjacency),
        }[config.graph]()
        self.convolve = GraphConvolution(width)
        self.context = ConvNorm(width, width)  # ρ of Eq. 4
        self.fuse = ConvNorm(2 * width, width)  # τ of Eq. 5

    def forward(self, x: Float[Tensor, "b c h w"]) -> tuple[Float[Tensor, "b n p"], Float[Tensor, "b c h w"]]:
        weights = voting_weights(self.vote(x))  # Eq. 1
        joints = pixel_to_joint(weights, tokens(self.local(x)))  # Eq. 2
        joints = self.convolve(joints, self.graph(joints))  # Eq. 3
        context = self.context(feature_map(joint_to_pixel(weights, joints), *x.shape[-2:]))  # Eq. 4
        return weights, self.fuse(torch.cat([context, x], dim=1))  # Eq. 5


class Attention(nn.Module):
    """The baseline of Fig. 3: pixels' weights from a residual and a 1×1 convolution, features as they are."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.residual = Residual(config.width, config.width)
        self.vote = nn.Conv2d(config.width, config.joints, 1)

    def forward(self, x: Float[Tensor, "b c h w"]) -> tuple[Float[Tensor, "b n p"], Float[Tensor, "b c h w"]]:
        return voting_weights(self.vote(self.residual(x))), x


class PlainMean(nn.Module):
    """Table 2's P2O without reasoning: every pixel counts the same for every joint."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.joints = config.joints

    def forward(self, x: Float[Tensor, "b c h w"]) -> tuple[Float[Tensor, "b n p"], Float[Tensor, "b c h w"]]:
        batch, _, height, width = x.shape
        pixels = height * width
        return torch.full((batch, self.joints, pixels), 1 / pixels, device=x.device), x


class PixelToOffset(nn.Module):
    """Section 3.3: a 1×1 convolution to three offset maps a joint; the weights are the voting weights."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        # Fig. 3: the attention baseline has one more residual here.
        attention = config.reasoning == "attention"
        self.residual = Residual(config.width, config.width) if attention else nn.Identity()
        self.offset = nn.Conv2d(config.width, 3 * config.joints, 1, bias=False)

    def forward(
        self, x: Float[Tensor, "b c h w"], weights: Float[Tensor, "b n p"], pixels: Float[Tensor, "b 3 h w"]
    ) -> tuple[
        Float[Tensor, "b m h w"], Float[Tensor, "b c h w"], Float[Tensor, "b n p"], Float[Tensor, "b n 3 h w"]
    ]:
        """Returns the predicted maps, the features they came from, the weights and the offsets."""
        x = self.residual(x)
        maps = self.offset(x)
        return maps, x, weights, maps.float().unflatten(1, (-1, 3)).contiguous()


class DifferentiableHeatmap(nn.Module):
    """The DHM baseline of Table 4 (Iqbal et al. 2018): a latent heat map and a depth map for each joint.

    A pixel stands for its own u, v and for the depth its depth map says; the heat map's softmax weighs them.
    So the offsets in u and v are zero, and the reasoning module's weights serve the reasoning alone.
    """

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.joints = config.joints
        self.heat_and_depth = nn.Conv2d(config.width, 2 * config.joints, 1)

    def forward(
        self, x: Float[Tensor, "b c h w"], weights: Float[Tensor, "b n p"], pixels: Float[Tensor, "b 3 h w"]
    ) -> tuple[
        Float[Tensor, "b m h w"], Float[Tensor, "b c h w"], Float[Tensor, "b n p"], Float[Tensor, "b n 3 h w"]
    ]:
        """Returns the predicted maps, the features they came from, the weights and the offsets."""
        maps = self.heat_and_depth(x)
        heat, depth = maps.split(self.joints, dim=1)
        z = depth.float() - pixels[:, 2:]
        return (
            maps,
            x,
            voting_weights(heat),
            torch.stack([torch.zeros_like(z), torch.zeros_like(z), z], dim=2),
        )


def loss(output: Output, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The terms of Eq. 9, unweighted: Huber losses summed over joints, coordinates, pixels and hourglasses.

    `batch["uvz"]` (b, n, 3) holds the true joints in the crop's coordinates. Terms are means over the batch:
    `coordinate` (Eq. 7) and `offset` (Eq. 8); `stages` gives their weights.
    """
    joints_uvz = batch["uvz"].float()
    # Δ - Δ* = (Δ + p) - j: an offset is wrong by as much as the pixel's word about the joint is.
    pixels_say = [offsets + output.pixels_uvz[:, None] for offsets in output.offsets]
    target = joints_uvz[..., None, None].expand_as(pixels_say[0])
    coordinate = [huber_loss(uvz, joints_uvz, reduction="sum", delta=HUBER_DELTA) for uvz in output.uvz]
    offset = [huber_loss(say, target, reduction="sum", delta=HUBER_DELTA) for say in pixels_say]
    return {
        "coordinate": torch.stack(coordinate).sum() / len(joints_uvz),
        "offset": torch.stack(offset).sum() / len(joints_uvz),
    }


def stages(
    config: Config,
    dataset: Literal["nyu", "icvl", "msra"] = "nyu",
    source: Literal["paper", "code"] = "paper",
) -> tuple[Stage, ...]:
    """The paper's schedule (section 4.1): everything at once. The authors' code has other rates."""
    weights = {"coordinate": 1.0}
    if config.offset_loss and config.head == "offset":
        weights["offset"] = 1e-4  # β of Eq. 9
    return (
        Stage(
            name="all",
            epochs=8 if dataset == "icvl" else 58,
            batch_size=32,
            loss_weights=weights,
            optimizer="adam",
            learning_rate=1e-4 if source == "paper" else 2e-4,
            betas=(0.5, 0.999),
            # The code sums the loss over the batch where ours is a mean: its L2 weighs 32 times less.
            weight_decay=0.5e-4 if source == "paper" else 0.5e-4 / 32,
            schedule="exponential",
            decay=0.96,
        ),
    )


def looked_at(network: nn.Module, depth: Float[Tensor, "b 1 s s"], looks: int) -> Output:
    """The network's output, its answer the mean over `looks` quarter turns of the crop, 1 to 4.

    All else in it is of the crop as it is: `spread` is not the mean that `decoding.together` takes. Ours, not
    the paper's. Raises ConfigError for another number.
    """
    if not 1 <= looks <= decoding.MOST_LOOKS:
        raise ConfigError(f"looks is {looks}, expected 1 to {decoding.MOST_LOOKS}")
    output: Output = network(depth)
    answers = [output.uvz[-1]]
    for quarters in range(1, looks):
        turned: Output = network(torch.rot90(depth, quarters, (2, 3)).contiguous())
        answers.append(decoding.turned_back(turned.uvz[-1], quarters))
    return output._replace(uvz=(*output.uvz[:-1], torch.stack(answers).mean(dim=0)))


def joints_mm(
    output: Output,
    crops: Sequence[Crop],
    images: Float[Tensor, "b 1 s s"] | None = None,
    *,
    optimise: bool = False,
) -> Float[np.ndarray, "b n 3"]:
    """The last hourglass's joints in the camera frame, millimetres; a mirrored crop's are mirrored back.

    With `optimise` those of the hand model `laid` on what the `images` show. Raises ConfigError for that
    without images, or of 14 or 16 joints.
    """
    if not optimise:
        return decoding.joints_mm(output.uvz[-1], crops)
    if images is None:
        raise ConfigError("optimise: lays the hand on what its crops show, give the images")
    return laid(output, crops, images).joints_mm


def laid(output: Output, crops: Sequence[Crop], images: Float[Tensor, "b 1 s s"]) -> "Fit":
    """The hand model on the surface that the crops show (`decoding.laid`): ours, not the paper's.

    Raises ConfigError for a network of 14 or 16 joints.
    """
    cubes = np.array([crop.cube_mm for crop in crops], dtype=np.float64)
    spread = spread_mm(output, cubes)
    return decoding.laid(decoding.joints_mm(output.uvz[-1], crops), spread, crops, array(images)[:, 0])


lays = decoding.lays


def answer(output: Output) -> decoding.Answer:
    """What a hand consists of: what `decode` needs, and what an exported file gives."""
    return decoding.Answer(output.uvz[-1], spread(output))


def decode(output: Output, crops: Sequence[Crop]) -> list[Hand]:
    """One `Hand` for each sample; for the canonical 21 joints only (`joints_mm` serves any number of them).

    A joint's confidence says how well the pixels agree about it (their weighted spread); the hand's score is
    the mean of its joints'. Raises `ConfigError` for a network of 14 or 16 joints.
    """
    return decoding.hands(answer(output), crops)


def spread(output: Output) -> Float[Tensor, "b n"]:
    """Weighted standard deviation of what the pixels say about each joint, at the last hourglass.

    In sides of the cube.
    """
    pixels_say = output.offsets[-1].detach() + output.pixels_uvz[:, None]
    error = pixels_say - output.uvz[-1].detach()[..., None, None]
    # u and v span the cube's side, z from -1 to 1 spans it too.
    error = error * error.new_tensor([1.0, 1.0, 0.5])[:, None, None]
    variance = (output.weights[-1].detach() * error.square().sum(dim=2)).sum(dim=(-2, -1))
    return variance.sqrt()


def spread_mm(output: Output, cube_mm: Float[np.ndarray, " b"]) -> Float[np.ndarray, "b n"]:
    """`spread` in millimetres, of crops whose cubes have these sides."""
    return decoding.spread_mm(spread(output), cube_mm)
