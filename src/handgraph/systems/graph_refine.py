"""Graph refinement with adversarial training: one colour crop to 3D joints, through a hand model's pose.

He, Hu, Yang, Qu, Wan and Guo, "3D Hand Pose Estimation in the Wild via Graph Refinement under Adversarial
Learning". Equation, figure and table numbers are the paper's. Where it is silent (number and width of blocks,
units, what places the hand before the camera) the choice is said here.

Poses are in millimetres about the wrist, in the crop's frame (`Crop.crop_from_camera`): right hands, turned
as the crop is. The losses' weights fit these units: joints in mm, projections in pixels of the paper's crop.
"""

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple, cast, get_args

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from handgraph import skeleton
from handgraph.camera import Crop
from handgraph.decoding import graph_refine as decoding
from handgraph.decoding.graph_refine import CONFIDENT_MM, NEAREST_MM, WINDOW_MM
from handgraph.errors import ConfigError
from handgraph.graph.bones import bone_direction_loss, bone_length_loss
from handgraph.graph.gcn import Propagation, normalised_adjacency
from handgraph.hand import Hand
from handgraph.hand_model import HandLayer, load_mano, rotation_matrices
from handgraph.networks.backbone import load_part
from handgraph.networks.batch_norm import BatchNorm2d
from handgraph.networks.discriminator import (
    MultiSourceDiscriminator,
    SingleSourceDiscriminator,
    poses_between,
    score_slope,
)
from handgraph.networks.heatmaps import keypoints_uv
from handgraph.networks.image_features import (
    MAPS,
    MapFeatures,
    NamedFeatures,
    ResidualFeatures,
    build_features,
    check_name,
    load_features,
)
from handgraph.networks.stacked_hourglass import HourglassShape
from handgraph.schedule import Stage

INPUT = "colour"
UNIT_MM = 100.0
"""Networks work in hand-sized units; everything outside is in millimetres."""
PAPER_CROP_PX = 224
"""The projection loss is in pixels of a crop of this side, whatever `input_size` is."""
# Length, direction, projection and Wasserstein loss (section IV-B).
LENGTH, DIRECTION, PROJECTION, WASSERSTEIN = 0.01, 0.1, 0.1, 0.01

# Fingers up, palm to the camera: what an untrained network answers. The open hand lies along -x, palm to -y.
UPRIGHT = 2 * np.pi / 3 / 3**0.5  # of each component of the axis-angle

Refinement = Literal["gcn", "fc", "none"]
Discriminator = Literal["multi", "single", "none"]
Normalization = Literal["batch", "layer", "none"]
Rotation = Literal["axis_angle", "6d"]


@dataclass(frozen=True)
class Config:
    """The paper's switches. Raises `ConfigError` for a value that does not exist."""

    backbone: str = "small"
    """Of prior and refinement: small, resnet18, resnet50 (the paper's), or a name on the hub; or hourglass,
    for want of ImageNet weights: both see what a trained keypoint network sees, which is frozen."""
    keypoints: HourglassShape = field(
        default_factory=lambda: HourglassShape(1, 48, 3, "compact", 56, distribution=True)
    )
    """That keypoint network."""
    refinement: Refinement = "gcn"
    """Graph Res-blocks, the fully connected baseline (Table II), or the prior pose as it is (Table I)."""
    discriminator: Discriminator = "multi"
    """Image, pose and bones, the pose alone (Table III), or no adversarial stage. Training only."""
    blocks: int = 3
    """Graph Res-blocks."""
    width: int = 128
    """Features of a joint between them; the fully connected baseline has twice as many for the whole hand."""
    normalization: Normalization = "batch"
    """N of Eq. 3: over batch and joints, over a joint's features, or none."""
    rotation: Rotation = "axis_angle"
    """c_r as the paper's three numbers, or as the first two columns of the matrix, which has no jump."""
    length_loss: bool = True
    """Whether Eq. 5 takes part in training (Table IV)."""
    direction_loss: bool = True
    """Whether Eq. 6 takes part in training (Table IV)."""
    hand_model: str | None = None
    """A MANO file of the user's; by default the open hand."""
    pretrained: str | None = None
    """ImageNet weights that both backbones start from: a file, or a repository on the hub. For backbone
    hourglass: a trained `hourglass`."""
    input_size: int = 128
    """Side of the square colour crop in pixels; the paper's is 224."""

    def __post_init__(self) -> None:
        for name, known in (
            ("refinement", Refinement),
            ("discriminator", Discriminator),
            ("normalization", Normalization),
            ("rotation", Rotation),
        ):
            if getattr(self, name) not in get_args(known):
                raise ConfigError(
                    f"{name} is '{getattr(self, name)}', expected one of {', '.join(get_args(known))}"
                )
        check_name(self.backbone, MAPS)
        if self.backbone == MAPS:
            self.keypoints.check_input(self.input_size)
        if self.blocks < 1:
            raise ConfigError(f"blocks is {self.blocks}, expected 1 or more")
        if self.width < 1:
            raise ConfigError(f"width is {self.width}, expected 1 or more")
        if self.input_size < 32:
            raise ConfigError(f"input_size is {self.input_size}, expected 32 pixels or more")

    def build(self) -> "GraphRefine":
        """The generator, freshly initialised."""
        return GraphRefine(self)


class Output(NamedTuple):
    """What the generator says of a batch of crops."""

    prior_mm: Float[Tensor, "b 21 3"]
    """P̃ less its c_t (Eq. 1): the hand model's joints about the wrist."""
    refined_mm: Float[Tensor, "b 21 3"]
    """P̂ (Eq. 2), about the prior's wrist; its own may have moved."""
    rotation: Float[Tensor, "b 3 3"]
    """c_r as a matrix."""
    fingers: Float[Tensor, "b 45"]
    """θ: axis-angle of the 15 finger joints, MANO's order."""
    shape: Float[Tensor, "b 10"]
    """β."""
    scale: Float[Tensor, " b"]
    """c_s, a factor of the hand model's size."""
    place: Float[Tensor, "b 3"]
    """Where the prior's wrist is: u, v, and the log of its depth over the one at which the crop spans
    `WINDOW_MM`. With a camera this is c_t, see `translation_mm`."""
    doubt: Float[Tensor, "b 20"]
    """Log of the expected error (mm) of each refined joint but the wrist, about the wrist."""
    vertices_mm: Float[Tensor, "b v 3"] | None
    """The prior's mesh, about its wrist; None in training."""


class GraphRefine(nn.Module):
    """The generator G of Fig. 2: colour crop (b, 3, s, s), ImageNet-normalised → `Output`."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config
        self.keypoints = config.keypoints.build(21) if config.backbone == MAPS else None
        self.prior = Prior(config)
        self.refinement: nn.Module | None = {
            "gcn": GraphRefinement,
            "fc": FcRefinement,
            "none": lambda config: None,
        }[config.refinement](config)
        self.doubt = nn.Linear(self.prior.features.channels, 20)
        nn.init.constant_(self.doubt.bias, np.log(CONFIDENT_MM))
        self.refining = True

    def set_stage(self, stage: Stage) -> None:
        """While the prior alone is trained, the refinement is left out: it would answer with the prior."""
        self.refining = stage.mode != "prior"

    def forward(
        self, image: Float[Tensor, "b 3 s s"], before: Float[Tensor, "b _ _ _"] | None = None
    ) -> Output:
        """`before`: what the keypoint network saw in the image."""
        seen: tuple[Tensor, ...] = (image,)
        if self.keypoints is not None:
            maps, details = self.keypoints.describe(image, before)
            seen = (details, maps[-1])
        features, prior = self.prior(*seen)
        refined = prior["prior_mm"]
        if self.refinement is not None and self.refining:
            nodes = refined / UNIT_MM
            if self.keypoints is not None:
                uv, height = keypoints_and_peaks(maps[-1], self.config.input_size)
                nodes = torch.cat([nodes, beside(uv, refined, prior["place"]) / UNIT_MM, height], dim=2)
            refined = refined + UNIT_MM * self.refinement(nodes, *seen)  # Eq. 2
        # Its loss must teach nothing but the doubt itself.
        doubt = self.doubt(features.detach()).float()
        return Output(refined_mm=refined, doubt=doubt, **prior)


def backbone(config: Config) -> ResidualFeatures | NamedFeatures | MapFeatures:
    """The prior's, or the refinement's; what it sees is the image, or what `GraphRefine.keypoints` sees."""
    return MapFeatures(config.keypoints) if config.backbone == MAPS else build_features(config.backbone)


def keypoints_and_peaks(
    maps: Float[Tensor, "b 21 h w"], size: int
) -> tuple[Float[Tensor, "b 21 2"], Float[Tensor, "b 21 1"]]:
    """The maps' keypoints (uv) and how high their peaks are. No gradient reaches the network behind them."""
    maps = maps.detach().float()
    return keypoints_uv(maps, size, "local"), maps.amax(dim=(2, 3)).unsqueeze(2)


def beside(
    uv: Float[Tensor, "b n 2"], joints_mm: Float[Tensor, "b n 3"], place: Float[Tensor, "b 3"]
) -> Float[Tensor, "b n 2"]:
    """How far keypoints lie beside the prior's joints in the picture, mm at the prior's depth."""
    across_mm = WINDOW_MM * place[:, 2].exp()
    return (uv - place[:, None, :2]) * across_mm[:, None, None] - joints_mm[..., :2]


class Prior(nn.Module):
    """The hand model module: image → features → z = (θ, β, c_r, c_t, c_s) → hand model → P̃ (Eq. 1)."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        model = None if config.hand_model is None else load_mano(config.hand_model)
        self.layer = HandLayer(model)
        self.features = backbone(config)
        turn = 3 if config.rotation == "axis_angle" else 6
        self.sizes = (turn, 45, 10, 1, 3)
        self.code = nn.Sequential(
            nn.Linear(self.features.channels, 512), nn.ReLU(), nn.Linear(512, sum(self.sizes))
        )
        # z starts near the upright, relaxed hand of mean shape in the middle of the crop.
        upright = torch.full((1, 3), UPRIGHT)
        start = upright if turn == 3 else rotation_matrices(upright)[:, :, :2].mT
        relaxed = torch.tensor(self.layer.model.hands_mean, dtype=torch.float32)
        place = torch.tensor([0.5, 0.5, 0.0])
        last = cast(nn.Linear, self.code[2])
        nn.init.normal_(last.weight, std=0.01)
        with torch.no_grad():
            last.bias.copy_(torch.cat([start.flatten(), relaxed, torch.zeros(11), place]))

    def forward(self, *seen: Float[Tensor, "b _ _ _"]) -> tuple[Float[Tensor, "b c"], dict[str, Any]]:
        """The features, and the fields of `Output` that come from them."""
        features = self.features(*seen)
        z = self.code(features).float()
        with full_precision(z):
            turn, fingers, shape, scale, place = z.split(self.sizes, dim=1)
            rotation = rotation_matrices(turn) if turn.shape[1] == 3 else from_two_columns(turn)
            scale = scale.squeeze(1).exp()
            # The hand itself is not turned.
            still = torch.eye(3, device=z.device).expand(z.shape[0], 1, 3, 3)
            turns = torch.cat([still, rotation_matrices(fingers.unflatten(1, (15, 3)))], dim=1)
            if self.training:
                hand, vertices = self.layer.joints_from_rotations(shape, turns), None
            else:
                vertices, hand = self.layer.from_rotations(shape, turns)
                vertices = scale[:, None, None] * torch.matmul(vertices - hand[:, :1], rotation.mT)
            # c_s R(P(θ, β), c_r); c_t needs the crop's camera and is added where that is known.
            prior = scale[:, None, None] * torch.matmul(hand - hand[:, :1], rotation.mT)
        return features, {
            "prior_mm": prior,
            "rotation": rotation,
            "fingers": fingers,
            "shape": shape,
            "scale": scale,
            "place": place,
            "vertices_mm": vertices,
        }


def node_inputs(config: Config) -> int:
    """Numbers that each joint brings beside f: its place; with backbone hourglass, `beside` and the peak too.

    Those are in f as well, but weights that all joints share cannot tell there which ones are whose.
    """
    return 6 if config.backbone == MAPS else 3


class GraphRefinement(nn.Module):
    """The GCN refinement module (Fig. 3): [P̃, f] at each joint → Graph Res-blocks → each joint's deformation.

    The last layer starts at zero, so that training goes on from the prior pose.
    """

    adjacency: Tensor

    def __init__(self, config: Config) -> None:
        super().__init__()
        graph = torch.from_numpy(skeleton.adjacency(21, skeleton.BONES).astype(np.float32))
        self.register_buffer("adjacency", normalised_adjacency(graph), persistent=False)
        self.features = backbone(config)
        widths = [node_inputs(config) + self.features.channels] + [config.width] * config.blocks
        self.blocks = nn.ModuleList(
            GraphResBlock(inputs, config.width, config.normalization) for inputs in widths[:-1]
        )
        self.deform = zeros(nn.Linear(config.width, 3))

    def forward(
        self, nodes: Float[Tensor, "b 21 k"], *seen: Float[Tensor, "b _ _ _"]
    ) -> Float[Tensor, "b 21 3"]:
        f = self.features(*seen)
        x = torch.cat([nodes, f.unsqueeze(1).expand(-1, 21, -1)], dim=2)  # P̃ ⊕ f of Eq. 2
        for block in self.blocks:
            x = block(x, self.adjacency)
        return cast(Tensor, self.deform(x)).float()


class GraphResBlock(nn.Module):
    """X' = N(g(N(g(X)))) + skip(X) (Eq. 3), where g and skip are graph convolutions ReLU(Â (X W + b))."""

    def __init__(self, inputs: int, width: int, normalization: Normalization) -> None:
        super().__init__()
        self.first, self.second = Propagation(inputs, width), Propagation(width, width)
        self.norm1, self.norm2 = Normalize(width, normalization), Normalize(width, normalization)
        self.skip = Propagation(inputs, width)

    def forward(self, x: Float[Tensor, "b n c"], adjacency: Float[Tensor, "n n"]) -> Float[Tensor, "b n d"]:
        y = self.norm1(self.first(x, adjacency).relu())
        y = self.norm2(self.second(y, adjacency).relu())
        return cast(Tensor, y + self.skip(x, adjacency).relu())


class FcRefinement(nn.Module):
    """The baseline of Table II: the same blocks without a graph, all joints in one vector."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.features = backbone(config)
        widths = [21 * node_inputs(config) + self.features.channels] + [2 * config.width] * config.blocks
        self.blocks = nn.ModuleList(
            FcResBlock(inputs, 2 * config.width, config.normalization) for inputs in widths[:-1]
        )
        self.deform = zeros(nn.Linear(2 * config.width, 63))

    def forward(
        self, nodes: Float[Tensor, "b 21 k"], *seen: Float[Tensor, "b _ _ _"]
    ) -> Float[Tensor, "b 21 3"]:
        x = torch.cat([nodes.flatten(1), self.features(*seen)], dim=1).unsqueeze(1)
        for block in self.blocks:
            x = block(x)
        return cast(Tensor, self.deform(x.squeeze(1))).float().unflatten(1, (21, 3))


class FcResBlock(nn.Module):
    """Eq. 3 with fully connected layers for graph convolutions; the hand is its one node."""

    def __init__(self, inputs: int, width: int, normalization: Normalization) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(inputs, width), nn.Linear(width, width)
        self.norm1, self.norm2 = Normalize(width, normalization), Normalize(width, normalization)
        self.skip = nn.Linear(inputs, width)

    def forward(self, x: Float[Tensor, "b 1 c"]) -> Float[Tensor, "b 1 d"]:
        y = self.norm1(self.first(x).relu())
        y = self.norm2(self.second(y).relu())
        return cast(Tensor, y + self.skip(x).relu())


class Normalize(nn.Module):
    """N of Eq. 3 on node features (b, n, c)."""

    def __init__(self, width: int, kind: Normalization) -> None:
        super().__init__()
        self.over_batch = BatchNorm2d(width) if kind == "batch" else None
        self.over_features = nn.LayerNorm(width) if kind == "layer" else None

    def forward(self, x: Float[Tensor, "b n c"]) -> Float[Tensor, "b n c"]:
        if self.over_batch is not None:
            return self.over_batch(x.mT.unsqueeze(3)).squeeze(3).mT
        return x if self.over_features is None else cast(Tensor, self.over_features(x))


def zeros(layer: nn.Linear) -> nn.Linear:
    """The layer, answering nothing but zeros yet."""
    nn.init.zeros_(layer.weight)
    nn.init.zeros_(layer.bias)
    return layer


def from_two_columns(columns: Float[Tensor, "b 6"]) -> Float[Tensor, "b 3 3"]:
    """The rotation whose first two columns these become by Gram and Schmidt (Zhou et al. 2019)."""
    first, second = columns.unflatten(1, (2, 3)).unbind(1)
    x = first / first.norm(dim=1, keepdim=True).clamp_min(1e-6)
    second = second - (x * second).sum(1, keepdim=True) * x
    y = second / second.norm(dim=1, keepdim=True).clamp_min(1e-6)
    return torch.stack([x, y, torch.linalg.cross(x, y, dim=1)], dim=2)


def full_precision(like: Tensor) -> AbstractContextManager[Any]:
    """Keeps mixed precision out: in bfloat16 the hand model's joints are wrong by half a millimetre."""
    device = like.device.type
    return torch.autocast(device, enabled=False) if torch.is_autocast_enabled(device) else nullcontext()


def translation_mm(place: Float[Tensor, "b 3"], crop_camera: Float[Tensor, "b 3 3"]) -> Float[Tensor, "b 3"]:
    """c_t of Eq. 1: where the prior's wrist is in the crop's frame, mm. NaN where there is no camera."""
    focal = (crop_camera[:, 0, 0] * crop_camera[:, 1, 1]).sqrt()  # of uv: at z = focal · WINDOW_MM, one crop
    z = focal * WINDOW_MM * place[:, 2].exp()
    # K is upper triangular: [u, v, 1] = K [x/z, y/z, 1], solved from below.
    y = (place[:, 1] - crop_camera[:, 1, 2]) / crop_camera[:, 1, 1]
    x = (place[:, 0] - crop_camera[:, 0, 2] - crop_camera[:, 0, 1] * y) / crop_camera[:, 0, 0]
    return torch.stack([x * z, y * z, z], dim=1)


def project(
    joints_mm: Float[Tensor, "b n 3"], place: Float[Tensor, "b 3"], crop_camera: Float[Tensor, "b 3 3"]
) -> Float[Tensor, "b n 2"]:
    """Joints about the prior's wrist → uv. Without a camera (NaN) under weak perspective."""
    known = torch.isfinite(crop_camera).all(-1).all(-1)[:, None, None]
    # Replaced before it is computed with: a NaN that is only left out of the result spoils the gradient.
    camera = torch.where(known, crop_camera, torch.eye(3, device=crop_camera.device))
    placed = torch.matmul(joints_mm + translation_mm(place, camera)[:, None], camera.mT)
    seen = placed[..., :2] / placed[..., 2:].clamp_min(NEAREST_MM)
    flat = place[:, None, :2] + joints_mm[..., :2] / (WINDOW_MM * place[:, 2].exp())[:, None, None]
    return torch.where(known, seen, flat)


def about_wrist(joints_mm: Float[Tensor, "b 21 3"]) -> Float[Tensor, "b 21 3"]:
    """The joints with the wrist at the origin."""
    return joints_mm - joints_mm[:, :1]


def inputs(batch: Mapping[str, Any]) -> tuple[Tensor, ...]:
    """The image, and with `seen` in the batch what the keypoint network saw in it before."""
    return (batch["image"], batch["seen"]) if "seen" in batch else (batch["image"],)


def loss(output: Output, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The terms of Eq. 7 but the Wasserstein loss, unweighted, for the refined pose and for the prior's.

    `pose`: mean distance of the joints about the wrist, mm. `projection`: mean distance in the image, pixels
    of the paper's crop. `length` and `direction`: Eq. 5 (mm) and Eq. 6, summed over the bones. The same with
    `prior_` before them. The paper has no `wrist`, how far the wrist is from its place, mm, nor `parameters`,
    the mean square of θ and β; `stages` leaves both out. `doubt` teaches the confidence and nothing else.
    Joints that are unknown count nothing.
    """
    terms: dict[str, Tensor] = {}
    for prefix, joints_mm in (("", output.refined_mm), ("prior_", output.prior_mm)):
        terms |= {f"{prefix}{name}": term for name, term in _pose_terms(joints_mm, output, batch).items()}
    camera = batch["crop_camera"]
    wrist_mm = output.refined_mm[:, 0] + translation_mm(output.place, camera)
    known = torch.isfinite(batch["wrist_mm"]).all(-1) & torch.isfinite(camera).all(-1).all(-1)
    terms["wrist"] = _mean_distance(torch.where(known[:, None], wrist_mm, 0.0), batch["wrist_mm"], known)
    terms["parameters"] = output.fingers.square().mean() + output.shape.square().mean()

    true_mm = batch["relative_mm"][:, 1:]
    known = torch.isfinite(true_mm).all(-1)
    error_mm = (
        about_wrist(output.refined_mm)[:, 1:].detach() - torch.where(known[..., None], true_mm, 0.0)
    ).norm(dim=-1)
    # -log of an exponential density; a millimetre more, since labels are no better than that.
    unlikely = output.doubt + (error_mm + 1) * (-output.doubt).exp()
    terms["doubt"] = (unlikely * known).sum() / known.sum().clamp_min(1)
    return terms


def _pose_terms(
    joints_mm: Float[Tensor, "b 21 3"], output: Output, batch: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    relative_mm = about_wrist(joints_mm)
    true_mm, camera = batch["relative_mm"], batch["crop_camera"]
    visible = batch["known"] & torch.isfinite(camera).all(-1).all(-1)[:, None]
    pixels = PAPER_CROP_PX - 1
    seen_px = pixels * project(joints_mm, output.place, camera)
    return {
        "pose": _mean_distance(relative_mm, true_mm, torch.isfinite(true_mm).all(-1)),
        "projection": _mean_distance(seen_px, pixels * batch["uv"], visible),
        "length": bone_length_loss(relative_mm, true_mm),
        "direction": bone_direction_loss(relative_mm, true_mm),
    }


def _mean_distance(
    predicted: Float[Tensor, "*n d"], true: Float[Tensor, "*n d"], known: Bool[Tensor, "*n"]
) -> Float[Tensor, ""]:
    difference = predicted - torch.where(known.unsqueeze(-1), true, 0.0)
    return (difference.norm(dim=-1) * known).sum() / known.sum().clamp_min(1)


def adversary(config: Config) -> nn.Module:
    """The discriminator D, freshly initialised. Raises ConfigError for a configuration without one."""
    if config.discriminator == "none":
        raise ConfigError(
            "discriminator is 'none': leave the adversarial stage out, or choose multi or single"
        )
    return MultiSourceDiscriminator() if config.discriminator == "multi" else SingleSourceDiscriminator()


def adversary_loss(adversary: nn.Module, output: Output, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """`critic`: the Wasserstein loss of D (Arjovsky et al. 2017), the score of the predicted poses less that
    of the true ones; `score_gap` is the same with the other sign. Hands with unknown joints are left out."""
    true_mm, known = _whole_hands(batch)
    image, predicted_mm = batch["image"], about_wrist(output.refined_mm)
    scores = adversary(torch.cat([image, image]), torch.cat([true_mm, predicted_mm])).float()
    real, fake = ((half * known).sum() / known.sum().clamp_min(1) for half in scores.chunk(2))
    return {"critic": fake - real, "score_gap": (real - fake).detach()}


def deceive(adversary: nn.Module, output: Output, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """`wasserstein`: the generator's part, less the score of the predicted poses."""
    return {"wasserstein": -adversary(batch["image"], about_wrist(output.refined_mm)).float().mean()}


def adversary_measures(adversary: nn.Module, output: Output, batch: Mapping[str, Tensor]) -> dict[str, float]:
    """`lipschitz`: the steepest slope of the score on this batch, per centimetre; `lipschitz_bound`: what
    spectral normalisation leaves possible at these poses."""
    true_mm, known = _whole_hands(batch)
    if not known.any():
        return {}
    true_mm, predicted_mm = true_mm[known], about_wrist(output.refined_mm)[known].detach()
    slope = score_slope(adversary, batch["image"][known], true_mm, predicted_mm)
    judge = cast(MultiSourceDiscriminator | SingleSourceDiscriminator, adversary)
    bound = torch.stack([judge.slope_bound(poses).max() for poses in poses_between(true_mm, predicted_mm)])
    return {"lipschitz": slope.item(), "lipschitz_bound": bound.max().item()}


def _whole_hands(batch: Mapping[str, Tensor]) -> tuple[Float[Tensor, "b 21 3"], Bool[Tensor, " b"]]:
    known = torch.isfinite(batch["relative_mm"]).all(-1).all(-1)
    return torch.where(known[:, None, None], batch["relative_mm"], 0.0), known


def stages(config: Config) -> tuple[Stage, ...]:
    """The paper's three stages (section IV-B): prior, generator, then generator and discriminator in turns.

    Eq. 7 measures the prior in the first and what comes out of the generator in the others. Without a
    refinement the second has nothing to train; without a discriminator there is no third. Batch, moments of
    Adam and one step of the discriminator for each of the generator are ours: of SNGAN, which it follows, the
    paper takes the spectral normalisation, and names the Wasserstein loss where SNGAN has the hinge.
    """

    def weights(prefix: str, **more: float) -> dict[str, float]:
        terms = {"pose": 1.0, "projection": PROJECTION}
        if config.length_loss:
            terms["length"] = LENGTH
        if config.direction_loss:
            terms["direction"] = DIRECTION
        return {f"{prefix}{name}": weight for name, weight in terms.items()} | {"doubt": 1.0, **more}

    everything = ("prior.", "refinement.", "doubt.")  # but for the keypoint network of backbone hourglass
    common: dict[str, Any] = {"epochs": 100, "batch_size": 32, "optimizer": "adam"}
    prior = Stage(
        "prior",
        trains=("prior.", "doubt."),
        loss_weights=weights("prior_"),
        mode="prior",
        learning_rate=1e-3,
        **common,
    )
    generator = Stage("generator", trains=everything, loss_weights=weights(""), learning_rate=1e-4, **common)
    adversarial = Stage(
        "adversarial",
        trains=everything,
        loss_weights=weights("", wasserstein=WASSERSTEIN),
        critic_steps=1,
        learning_rate=1e-4,
        **common,
    )
    plan = [prior]
    if config.refinement != "none":
        plan.append(generator)
    if config.discriminator != "none":
        plan.append(adversarial)
    return tuple(plan)


def prepare(module: GraphRefine, stage: Stage, data: Any, config: Config) -> None:
    """Before training starts: fill the backbones with trained weights where the configuration names them.

    With backbone hourglass the refinement's is filled too, once there is something to fill it with: it begins
    the second stage as the prior's, of which the first has made something.
    """
    if config.backbone == MAPS and stage.name == "generator" and module.refinement is not None:
        features = cast(nn.Module, module.refinement.features)
        features.load_state_dict(module.prior.features.state_dict())
    if config.pretrained is None or stage.name != "prior":
        return
    if module.keypoints is not None:
        load_part(module.keypoints, config.pretrained, "network.")
        return
    for part in (module.prior, module.refinement):
        if part is not None:
            if not isinstance(part.features, ResidualFeatures):
                raise ConfigError(
                    f"pretrained: backbone '{config.backbone}' comes with the hub's own weights, leave it out"
                )
            load_features(part.features, config.pretrained)


def relative_mm(
    output: Output, crops: Sequence[Crop], scale_mm: Float[np.ndarray, " b"] | None = None
) -> Float[np.ndarray, "b 21 3"]:
    """The refined joints about their wrist in the camera frame, mirrored crops mirrored back, mm.

    The size is the hand model's, as learned from the data; `scale_mm` is not asked for.
    """
    return decoding.relative_mm(output.refined_mm, crops)


def joints_mm(output: Output, crops: Sequence[Crop]) -> Float[np.ndarray, "b 21 3"]:
    """The refined joints in the camera frame, mm. Raises InputError for crops without a camera."""
    for crop in crops:
        _ = crop.crop_camera
    return relative_mm(output, crops) + decoding.wrist_mm(output.refined_mm, output.place, crops)[:, None]


def keypoints_px(output: Output, crops: Sequence[Crop]) -> Float[np.ndarray, "b 21 2"]:
    """The refined joints in the image, pixels; under weak perspective where the crop has no camera."""
    return decoding.keypoints_px(output.refined_mm, output.place, crops)


def answer(output: Output) -> decoding.Answer:
    """What a hand consists of: what `decode` needs, and what an exported file gives."""
    return decoding.Answer(
        output.refined_mm,
        output.rotation,
        output.fingers,
        output.shape,
        output.scale,
        output.place,
        output.doubt.exp(),
        output.vertices_mm,
    )


def decode(output: Output, crops: Sequence[Crop], layer: HandLayer | None = None) -> list[Hand]:
    """One `Hand` for each sample: the refined joints, and the hand model posed to them.

    `pose`, `shape` and `vertices_mm` are those of the hand model fitted to the refined joints, starting from
    the prior; the vertices are `Output.scale` times what `HandLayer` gives for them. `layer` is the right
    hand that the network was built with, by default the open hand. What a network with another hand says,
    decoded without its layer, carries the prior's mesh instead. Without a camera all is relative to the
    wrist. Confidences are the network's own word about its error; the score is their mean.
    """
    return decoding.hands(answer(output), crops, None if layer is None else layer.model)
