"""R-MGMN: the image turned upright, heat maps, a pool of graphical models softly chosen by the image; 2D.

Kong, Ma, Chen and Xie, "Rotation-invariant Mixed Graphical Model Network for 2D Hand Pose Estimation", WACV
2020, as chapter 3 of Kong's dissertation. Equation, figure and table numbers are the dissertation's. Message
passing is in `graph/belief_propagation.py`, the rotation net in `networks/rotation.py`.

Coordinates are `uv` of a colour `Crop`: 0 at the first pixel centre, 1 at the last. What is said of the
turned image is marked so.

The rows of Table 3.2 (mPCK on CMU's Panoptic hands) as configurations:

| row | configuration |
|---|---|
| CPM Baseline (65.17) | system `cpm`, or `rotation="none", models=0` |
| CPM + Single GM (65.21) | `rotation="none", models=1` |
| CPM + Mixture of GMs (66.44) | `rotation="none"` |
| Rotation + CPM ¹ (67.35), jointly from the start | `models=0, rotation_first=False` |
| Rotation + CPM ² (68.52), rotation net first | `models=0` |
| R-MGMN (69.93) | the default |
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple, get_args

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from handgraph import skeleton
from handgraph.camera import Crop
from handgraph.errors import ConfigError, MissingExtraError
from handgraph.graph.belief_propagation import GraphicalModels, Tree, potentials
from handgraph.graph.spatial_convolution import Method
from handgraph.hand import Hand
from handgraph.keypoints import Answer, hands, image_keypoints_px
from handgraph.networks.backbone import load_part, load_vgg19
from handgraph.networks.cpm import PoseMachine, PoseMachineShape
from handgraph.networks.heatmaps import (
    Decode,
    MassConfidence,
    PeakConfidence,
    kernel_maps,
    keypoints_uv,
    marginal_error,
    squared_error,
)
from handgraph.networks.image_features import build_features, check_name
from handgraph.networks.rotation import (
    Rotation,
    RotationNet,
    as_turn,
    inverse,
    rotation_error,
    turn_maps,
    turn_uv,
)
from handgraph.networks.stacked_hourglass import HourglassShape
from handgraph.networks.unary import PAPER_INPUT_SIZE, Unary, check_kernel_size, check_pretrained
from handgraph.schedule import Stage

INPUT = "colour"
SIGMA = 1.0
"""Width of the Gaussian targets in map cells; the chapter gives none."""
HAND = Tree(skeleton.PARENTS)
CLUSTER_SAMPLES = 4096
"""Training samples that clusters and first kernels are computed from, at most."""


@dataclass(frozen=True)
class Config:
    """The paper's switches. Raises `ConfigError` for a combination that does not exist."""

    unary: Unary = "cpm"
    """The unary branch: the paper's pose machine, or a stacked hourglass."""
    cpm: PoseMachineShape = field(default_factory=PoseMachineShape)
    """The pose machine's size, where it is the unary branch."""
    hourglass: HourglassShape = field(default_factory=HourglassShape)
    """The stacked hourglass's size, where it is the unary branch."""
    input_size: int = 0
    """Side of the square colour crop in pixels; 0 stands for the paper's, 368 (with an hourglass 256)."""
    rotation: Rotation = "angle"
    """No rotation net, one that gives the angle (Eq. 3.1), or one that gives its cosine and sine (ours)."""
    rotation_first: bool = True
    """Whether the rotation net is trained before the rest; without graphical models it need not be."""
    models: int = 20
    """Graphical models in the pool; 0 for none at all, 1 for a single one without a classifier."""
    kernel_size: int = 45
    """Side of the graphical models' kernels in cells."""
    method: Method = "fft"
    """Message passing through Fourier transforms or by direct convolution; they agree."""
    rotation_backbone: str = "resnet18"
    classifier: str = "resnet152"
    """The backbones: small, resnet18, resnet50, resnet152 or a name on the hub."""
    decode: Decode = "argmax"
    """The highest cell (the paper's), or the centre of mass around it."""
    pretrained: str | None = None
    """VGG-19's ImageNet weights for the pose machine's trunk, read when training starts (`load_vgg19`)."""
    unary_weights: str | None = None
    """A checkpoint of system `cpm` or `hourglass` for the unary branch to start from."""

    def __post_init__(self) -> None:
        for name, known in (("unary", Unary), ("decode", Decode), ("method", Method), ("rotation", Rotation)):
            if getattr(self, name) not in get_args(known):
                raise ConfigError(
                    f"{name} is '{getattr(self, name)}', expected one of {', '.join(get_args(known))}"
                )
        if self.input_size == 0:
            object.__setattr__(self, "input_size", PAPER_INPUT_SIZE[self.unary])
        self.shape.check_input(self.input_size)
        if self.models < 0:
            raise ConfigError(f"models is {self.models}, expected 0 or more")
        if self.models and self.rotation != "none" and not self.rotation_first:
            raise ConfigError("rotation_first is false: graphical models are of hands already upright")
        if self.models:
            check_kernel_size(self.kernel_size, self.cells)
        check_name(self.rotation_backbone)
        check_name(self.classifier)
        check_pretrained(self.pretrained, **({"cpm": self.cpm} if self.unary == "cpm" else {}))

    @property
    def shape(self) -> PoseMachineShape | HourglassShape:
        """The unary branch's size."""
        return self.cpm if self.unary == "cpm" else self.hourglass

    @property
    def cells(self) -> int:
        """Cells to a side of the heat maps."""
        return self.input_size // self.shape.stride

    def build(self) -> "Rmgmn":
        """The network, freshly initialised."""
        return Rmgmn(self)


class Output(NamedTuple):
    """What the network says of a batch of crops. Joints n = 21, graphical models m."""

    rotation: tuple[Float[Tensor, "b k"], ...]
    """One entry, the rotation net's answer (Eq. 3.1), angle or vector; none without such a net."""
    turn: Float[Tensor, "b 2"]
    """(cos α, sin α)."""
    unary: tuple[Float[Tensor, "b n h w"], ...]
    """S^t of Eq. 3.25: the unary branch's maps turned back, one entry per stage; towards peaks of 1.
    None while rotation net or classifier train."""
    classes: tuple[Float[Tensor, "b m"], ...]
    """One entry, the soft classifier's logits, w_l being their softmax; none without graphical models."""
    centers: tuple[Float[Tensor, "m f"], ...]
    """One entry, the clusters' centres, for the classifier's labels; none without graphical models."""
    maps: Float[Tensor, "b n h w"]
    """S^F of Eq. 3.12: the mixed marginals turned back. Without graphical models the last unary maps."""
    uv: Float[Tensor, "b n 2"]
    """The keypoints in the crop (Eq. 3.13)."""
    confidence: Float[Tensor, "b n"]
    """Probability of each keypoint, in [0, 1]."""


class Rmgmn(nn.Module):
    """The network of Fig. 3.1: colour crop (b, 3, s, s), ImageNet-normalised → `Output`."""

    centers: Tensor
    fitted: Tensor

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config
        self.rotation = None
        if config.rotation != "none":
            self.rotation = RotationNet(config.rotation_backbone, config.rotation)
        self.unary = config.shape.build(len(skeleton.JOINT_NAMES))
        self.classifier = SoftClassifier(config.classifier, config.models) if config.models > 1 else None
        self.models = None
        if config.models:
            self.models = GraphicalModels(HAND, config.models, config.kernel_size, config.method)
        self.confidence: nn.Module = MassConfidence() if config.models else PeakConfidence()
        # Of the training data, computed by `prepare`: what the classifier is to tell apart.
        self.register_buffer("centers", torch.zeros(config.models, 2 * len(skeleton.BONES)))
        self.register_buffer("fitted", torch.tensor(False))
        self.mode = ""

    def set_stage(self, stage: Stage) -> None:
        """While the unary branch trains no message is passed; other early phases make no maps in training."""
        self.mode = stage.mode

    def forward(self, image: Float[Tensor, "b 3 s s"]) -> Output:
        config = self.config
        upright, unturned = image, image.new_tensor([1.0, 0.0]).float().expand(image.shape[0], 2)
        answer: tuple[Tensor, ...] = ()
        turn = unturned
        if self.rotation is not None:
            answer = (self.rotation(image),)
            turn = as_turn(*answer)
            upright = turn_maps(image, turn)  # Eq. 3.2

        def back(maps: Float[Tensor, "b n h w"]) -> Float[Tensor, "b n h w"]:
            return maps if self.rotation is None else turn_maps(maps, inverse(turn))

        classes: tuple[Tensor, ...] = (unturned[:, :1] * 0,) if config.models else ()
        if self.classifier is not None:
            classes = (self.classifier(upright),)
        if self.training and self.mode in ("rotation", "classifier"):  # these phases need no maps
            nothing = image.new_zeros(len(image), len(skeleton.JOINT_NAMES), config.cells, config.cells)
            return self._output(answer, turn, (), classes, nothing)

        upright_unary = self.unary(upright)  # Eq. 3.6
        unary = tuple(back(maps) for maps in upright_unary)
        if self.models is None:
            return self._output(answer, turn, unary, classes, unary[-1])
        mixed = potentials(upright_unary[-1])
        if self.mode != "unary":
            weights = classes[0].softmax(dim=1)[:, :, None, None, None]
            mixed = (weights * self.models(mixed)).sum(dim=1)  # Eq. 3.10
        return self._output(answer, turn, unary, classes, back(mixed))  # Eq. 3.12

    def _output(
        self,
        answer: tuple[Tensor, ...],
        turn: Tensor,
        unary: tuple[Tensor, ...],
        classes: tuple[Tensor, ...],
        maps: Tensor,
    ) -> Output:
        uv = keypoints_uv(maps, self.config.input_size, self.config.decode)
        centers = (self.centers,) if classes else ()
        return Output(answer, turn, unary, classes, centers, maps, uv, self.confidence(maps))


class SoftClassifier(nn.Module):
    """Fig. 3.3: a backbone whose outputs, through a softmax, say which graphical models to believe."""

    def __init__(self, backbone: str, models: int) -> None:
        super().__init__()
        self.features = build_features(backbone)
        self.head = nn.Linear(self.features.channels, models)

    def forward(self, image: Float[Tensor, "b 3 s s"]) -> Float[Tensor, "b m"]:
        logits: Tensor = self.head(self.features(image)).float()
        return logits


def bones(uv: Float[Tensor, "b n 2"]) -> Float[Tensor, "b f"]:
    """What is clustered (section 3.4.3): the keypoints' positions relative to their parents."""
    parents, children = torch.tensor(skeleton.BONES, device=uv.device).T
    return (uv[:, children] - uv[:, parents]).flatten(1)


def clusters(
    centers: Float[Tensor, "m f"], uv: Float[Tensor, "b n 2"], turn: Float[Tensor, "b 2"]
) -> Int[Tensor, " b"]:
    """The cluster of each labelled hand after its turn: the one with the nearest centre."""
    return torch.cdist(bones(turn_uv(uv, turn)), centers).argmin(dim=1)


def prepare(module: Rmgmn, stage: Stage, data: Any, config: Config) -> None:
    """Before the first stage: weights that the configuration names. Before the pool is needed: K-means.

    Clusters, and from them the first kernels, are computed once from the training data (section 3.4.3), with
    the turns that the rotation net estimates. The paper does not say how kernels start; here each is the mean
    of its cluster's Gaussians, so that a graphical model knows its kind of hand before it is trained.
    """
    if stage.name == stages(config)[0].name:
        if config.pretrained is not None:
            assert isinstance(module.unary, PoseMachine)
            load_vgg19(module.unary.features.trunk, config.pretrained)
        if config.unary_weights is not None:
            load_part(
                module.unary,
                config.unary_weights,
                "network.",
                made_by="handgraph train cpm_synthetic --out runs/cpm",
            )
    if config.models and stage.mode not in ("rotation", "unary") and not bool(module.fitted):
        uv, turn = _labelled_hands(module, data)
        fit_pool(module, uv, turn)


@torch.no_grad()
def _labelled_hands(module: Rmgmn, data: Any) -> tuple[Float[Tensor, "b n 2"], Float[Tensor, "b 2"]]:
    """Keypoints of fully labelled training samples spread over the data, and their estimated turns."""
    device, training = module.centers.device, module.training
    module.eval()
    count = min(CLUSTER_SAMPLES, len(data))
    indices = np.linspace(0, len(data) - 1, count).round().astype(np.int64)
    hands, turns = [], []
    for chosen in np.array_split(indices, -(-count // 64)):
        batch = data.batch(chosen, np.zeros_like(chosen))
        uv, known = (torch.as_tensor(batch[name], device=device) for name in ("uv", "known"))
        turn = torch.tensor([1.0, 0.0], device=device).expand(len(uv), 2)
        if module.rotation is not None:
            turn = as_turn(module.rotation(torch.as_tensor(batch["image"], device=device)))
        whole = known.all(dim=1)
        hands.append(uv[whole].float())
        turns.append(turn[whole])
    module.train(training)
    uv = torch.cat(hands)
    if len(uv) < module.config.models:
        raise ConfigError(
            f"{len(uv)} of {count} training samples have all 21 keypoints labelled, expected at least "
            f"{module.config.models} for {module.config.models} clusters"
        )
    return uv, torch.cat(turns)


@torch.no_grad()
def fit_pool(module: Rmgmn, uv: Float[Tensor, "b n 2"], turn: Float[Tensor, "b 2"]) -> None:
    """K-means over the hands after their turns, and each cluster's mean Gaussians as the first kernels.

    Cells farther than seven from where a neighbour ever was in the cluster are at the least potential, below
    which `potentials` has no gradient: they stay there.

    Raises MissingExtraError without scikit-learn.
    """
    config, upright = module.config, turn_uv(uv, turn)
    assert module.models is not None
    if config.models == 1:
        module.centers.copy_(bones(upright).mean(dim=0, keepdim=True))
    else:
        try:
            from sklearn.cluster import KMeans
        except ImportError:
            raise MissingExtraError("clustering needs scikit-learn: pip install 'handgraph[train]'") from None
        means = KMeans(config.models, n_init=4, random_state=0).fit(bones(upright).double().cpu().numpy())
        module.centers.copy_(torch.from_numpy(means.cluster_centers_))
    cluster = clusters(module.centers, uv, turn)
    known = torch.ones(uv.shape[:2], dtype=torch.bool, device=uv.device)
    for number in range(config.models):
        total = torch.zeros_like(module.models.kernels[number])
        for some, there in zip(
            upright[cluster == number].split(256), known[cluster == number].split(256), strict=True
        ):
            total += kernel_maps(
                some, there, HAND.edges, config.kernel_size, config.cells, config.input_size, SIGMA
            ).sum(dim=0)
        peak = total.amax(dim=(-2, -1), keepdim=True)
        module.models.kernels[number] = total / peak.clamp(min=1e-6)
    module.fitted.fill_(True)


def loss(output: Output, batch: Mapping[str, Any]) -> dict[str, Tensor]:
    """Unweighted: `rotation` (Eq. 3.24), `unary` (3.25), `classifier` (cross-entropy), `final` (3.26).

    A term is there where its part of the network is. The classifier learns from fully labelled hands.
    """
    size, uv, known = batch["image"].shape[-1], batch["uv"], batch["known"]
    terms = {}
    for answer in output.rotation:
        terms["rotation"] = rotation_error(answer, uv, known)
    if output.unary:
        terms["unary"] = squared_error(output.unary, uv, known, size, SIGMA)
    if output.unary and output.classes:
        terms["final"] = marginal_error(output.maps, uv, known, size, SIGMA)
    if output.classes and output.classes[0].shape[1] > 1:
        whole = known.all(dim=1)
        labels = clusters(output.centers[0], torch.where(known[..., None], uv, 0.0), output.turn.detach())
        each = cross_entropy(output.classes[0], labels, reduction="none")
        terms["classifier"] = (each * whole).sum() / whole.sum().clamp(min=1)
    return terms


def stages(config: Config) -> tuple[Stage, ...]:
    """The five phases of section 3.4, less those of parts that the configuration leaves out.

    Rotation net; with it fixed the unary branch, and the soft classifier; the graphical models; everything.
    The classifier learns from all training data: section 3.4.3 holds 30 % of it out to choose its weights by,
    for which there is the validation split here.
    Without graphical models the last phase trains on the unary branch's loss (section 3.5.3).
    """
    rotation = Stage(
        name="rotation",
        epochs=6,
        batch_size=32,
        trains=("rotation.",),
        loss_weights={"rotation": 1.0},
        learning_rate=1e-4,
        mode="rotation",
    )
    unary = replace(
        rotation, name="unary", epochs=100, trains=("unary.",), loss_weights={"unary": 1.0}, mode="unary"
    )
    phases = [rotation] if config.rotation != "none" and config.rotation_first else []
    if not config.models:
        return (*phases, replace(unary, name="joint", epochs=150, trains=("",)))
    phases.append(unary)
    if config.models > 1:
        phases.append(
            replace(
                rotation,
                name="classifier",
                epochs=100,
                trains=("classifier.",),
                loss_weights={"classifier": 1.0},
                mode="classifier",
            )
        )
    models = replace(
        rotation,
        name="graphical_models",
        epochs=40,
        trains=("models.",),
        loss_weights={"final": 1.0},
        mode="",
    )
    return (*phases, models, replace(models, name="joint", epochs=150, trains=("",)))


def keypoints_px(output: Output, crops: Sequence[Crop]) -> Float[np.ndarray, "b n 2"]:
    """The keypoints in image pixels; a mirrored crop's are mirrored back."""
    return image_keypoints_px(output.uv, crops)


def answer(output: Output) -> Answer:
    """What a hand consists of: what `decode` needs, and what an exported file gives."""
    return Answer(output.uv, output.confidence)


def decode(output: Output, crops: Sequence[Crop]) -> list[Hand]:
    """One `Hand` for each sample, without 3D; the score is the mean of its joints' confidences."""
    return hands(answer(output), crops)
