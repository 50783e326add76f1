"""Hybrid classification and regression with graph convolutions, one colour crop to 2D and 3D joints.

Kourbane and Genc, "A hybrid classification-regression approach for 3D hand pose estimation using graph
convolutional networks", 2021. Equation, table, algorithm and section numbers are the paper's.

2D is the crop's `uv`. 3D is relative to the wrist, in the crop frame turned to the crop's line of sight
(`networks.sight`), and measured in the length of the middle finger's first bone (`SCALE_BONE`), as the
Rendered Handpose data set's protocol has it: one image cannot tell a small hand from a far one. Where the
paper is silent: the two graph layers of a regressor are read out by one linear layer, since neither half of a
concatenation nor a ReLU could be a coordinate; and the refinement predicts what to add to the coarse pose,
which it would otherwise have to learn to repeat.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import isqrt
from typing import Any, Literal, NamedTuple, get_args

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from handgraph import skeleton
from handgraph.camera import Crop
from handgraph.decoding import hybrid_gcn as decoding
from handgraph.decoding.hybrid_gcn import SCALE_BONE
from handgraph.errors import ConfigError
from handgraph.graph.gcn import GlobalLocalConvolution, ParameterisedGraph, Propagation
from handgraph.graph.relations import (
    adaptive_neighbours,
    classes_2d,
    classes_3d,
    mean_square_distances,
    nearest_neighbours,
    overlapped_2d,
    overlapped_3d,
    relations,
)
from handgraph.hand import Hand
from handgraph.keypoints import image_keypoints_px
from handgraph.networks.backbone import load_part
from handgraph.networks.resnet10 import MapsToJoints, ResNet10
from handgraph.networks.sight import in_sight
from handgraph.networks.stacked_hourglass import HourglassShape, StackedHourglass
from handgraph.schedule import Stage

INPUT = "colour"
JOINTS = len(skeleton.JOINT_NAMES)

UNIT_2D = 0.25
"""Eq. 10 measures in quarters of the crop. That is about a bone's length in the picture, so that δ1 weighs 2D
and 3D alike; the paper does not say in what it measures either."""

Classifier = Literal["gcn", "fc"]
Refinement = Literal["ann", "knn", "fc", "none"]
Backbone = Literal["resnet10", "hourglass"]


@dataclass(frozen=True)
class Config:
    """The paper's switches. Raises `ConfigError` for a combination that does not exist."""

    splits_2d: int = 4
    """Blocks along each axis of the image: n² classes (Table 3)."""
    splits_3d: int = 3
    """Blocks along each axis of the pose's bounding box: k³ classes (Table 3)."""
    relations: bool = True
    """Classifiers, and each pose's own relations from them. Without: Baseline A of Table 2, whose regressors
    have the learned matrix Â alone."""
    classifier: Classifier = "gcn"
    """Graph convolutions, or the fully connected network they are compared with (section 3.3)."""
    refinement: Refinement = "ann"
    """Table 2: adaptive neighbours, D's K nearest, C's fully connected network, B's none."""
    neighbours: int = 5
    """K of "knn"."""
    threshold: float = 0.3
    """θ of "ann" to start from, in squared bone lengths (see `mean_square_distances`)."""
    overlapped: bool = False
    """Whether blocks overlap by half (section 3.3): 2n - 1 and 2k - 1 along an axis."""
    backbone: Backbone = "resnet10"
    """Table 1's; or hourglass: what a trained keypoint network sees, frozen. Ours, for few images."""
    keypoints: HourglassShape = field(
        default_factory=lambda: HourglassShape(1, 48, 3, "compact", 56, distribution=True)
    )
    """That keypoint network."""
    keypoints_weights: str | None = None
    """A trained `hourglass` of that shape that it starts from."""
    width: int = 32
    """Channels of the backbone's first block; Table 1 has 32."""
    hidden: int = 128
    """Features of a joint between graph layers; the paper does not say."""
    input_size: int = 256
    """Side of the square colour crop in pixels. A joint's feature has (side / 32)² values."""

    def __post_init__(self) -> None:
        for name in ("splits_2d", "splits_3d"):
            if not 1 < getattr(self, name) <= 32:
                raise ConfigError(f"{name} is {getattr(self, name)}, expected 2 to 32")
        for name, known in (("classifier", Classifier), ("refinement", Refinement), ("backbone", Backbone)):
            if getattr(self, name) not in get_args(known):
                raise ConfigError(
                    f"{name} is '{getattr(self, name)}', expected one of {', '.join(get_args(known))}"
                )
        if not 0 < self.neighbours < JOINTS:
            raise ConfigError(f"neighbours is {self.neighbours}, expected 1 to {JOINTS - 1}")
        if not self.threshold > 0:
            raise ConfigError(f"threshold is {self.threshold}, expected more than 0")
        if self.width < 1:
            raise ConfigError(f"width is {self.width}, expected 1 or more")
        if self.hidden < 2:
            raise ConfigError(f"hidden is {self.hidden}, expected 2 or more")
        if self.input_size < 32 or self.input_size % 32:
            raise ConfigError(f"input_size is {self.input_size}, expected a multiple of 32 pixels")
        if self.backbone == "hourglass":
            self.keypoints.check_input(self.input_size)

    @property
    def joints(self) -> int:
        """21, the canonical hand's; the paper has no other."""
        return JOINTS

    @property
    def classes(self) -> tuple[int, int]:
        """How many 2D and how many 3D classes there are."""
        along = (2 * n - 1 if self.overlapped else n for n in (self.splits_2d, self.splits_3d))
        plane, space = along
        return plane**2, space**3

    @property
    def feature(self) -> int:
        """Values that the backbone tells of a joint."""
        if self.backbone == "hourglass":
            return (self.input_size // (4 * self.keypoints.stride)) ** 2 + 3
        return (self.input_size // 32) ** 2

    def build(self) -> "HybridGcn":
        """The network, freshly initialised but for `keypoints_weights`."""
        module = HybridGcn(self)
        if module.keypoints is not None and self.keypoints_weights is not None:
            load_part(module.keypoints, self.keypoints_weights, "network.")
        return module


class Output(NamedTuple):
    """Fields are None where the configuration has no such part. Relation matrices hold 0 and 1."""

    uv: Float[Tensor, "b 21 2"]
    """The 2D joints in the crop."""
    coarse: Float[Tensor, "b 21 3"]
    """The 3D joints before the refinement: about the wrist, z along the line of sight, in `SCALE_BONE`s."""
    refined: Float[Tensor, "b 21 3"]
    """The 3D joints after it, the answer; the same as `coarse` without refinement."""
    scores_2d: Float[Tensor, "b 21 n"] | None
    """L_2D of Eq. 3, before the softmax: their argmax is a joint's 2D class."""
    scores_3d: Float[Tensor, "b 21 k"] | None
    """L_3D of Eq. 5."""
    relations_2d: Float[Tensor, "b 21 21"] | None
    """R_2D (Eq. 3)."""
    relations_3d: Float[Tensor, "b 21 21"] | None
    """R_3D (Eq. 5)."""
    relations_near: Float[Tensor, "b 21 21"] | None
    """R_ANN of Eq. 7, or the K nearest neighbours' graph in its place."""
    threshold: Float[Tensor, ""] | None
    """θ of Algorithm 2."""
    overlapped: Bool[Tensor, ""]
    """Whether the classes are of overlapping blocks."""


class HybridGcn(nn.Module):
    """The network of Fig. 1: colour crop (b, 3, s, s), normalised by `images.to_network` → `Output`."""

    overlapped: Tensor

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config
        self.keypoints: StackedHourglass | None = None
        self.backbone: nn.Module
        if config.backbone == "hourglass":
            self.keypoints = config.keypoints.build(JOINTS)
            self.backbone = MapsToJoints(config.keypoints, config.width)
        else:
            self.backbone = ResNet10(JOINTS, config.width)
        feature, (plane, space) = config.feature, config.classes
        if config.relations:
            classifier = {"gcn": GraphClassifier, "fc": FullyConnected}[config.classifier]
            self.classifier_2d = classifier(feature, config.hidden, plane)
            self.classifier_3d = classifier(feature, config.hidden, space)
        else:
            self.classifier_2d = self.classifier_3d = None
            plane = space = 0
        local = config.relations
        self.regressor_2d = GraphRegressor(feature + plane, config.hidden, 2, local=local)
        self.regressor_3d = GraphRegressor(2 + feature + plane + space, config.hidden, 3, local=local)
        self.refinement: nn.Module | None = None
        if config.refinement in ("ann", "knn"):
            self.refinement = GraphRefinement(config)
        elif config.refinement == "fc":
            self.refinement = FullyConnected(3, 8 * config.hidden, 3, gain=0.01)
        self.register_buffer("overlapped", torch.tensor(config.overlapped), persistent=False)

    def forward(
        self, image: Float[Tensor, "b 3 s s"], before: Float[Tensor, "b _ _ _"] | None = None
    ) -> Output:
        """`before`: what the keypoint network saw in the image."""
        if self.keypoints is None:
            features = self.backbone(image).flatten(2)  # (b, 21, h · w), section 3.2
        else:
            maps, details = self.keypoints.describe(image, before)
            features = self.backbone(details, maps[-1])
        # Bfloat16's eight bits are half a pixel, and too coarse for Algorithm 2; these layers cost nothing.
        with torch.autocast(image.device.type, enabled=False):
            return self._joints(features.float())

    def _joints(self, features: Float[Tensor, "b 21 f"]) -> Output:
        scores_2d = scores_3d = relations_2d = relations_3d = None
        known_2d, known_3d = [features], [features]
        if self.classifier_2d is not None and self.classifier_3d is not None:
            scores_2d, scores_3d = self.classifier_2d(features), self.classifier_3d(features)
            relations_2d, relations_3d = relations(scores_2d), relations(scores_3d)  # Eq. 3, 5
            classes = scores_2d.softmax(dim=-1)
            known_2d = [features, classes]
            known_3d = [features, classes, scores_3d.softmax(dim=-1)]
        uv = self.regressor_2d(torch.cat(known_2d, dim=-1), relations_2d)
        coarse = self.regressor_3d(torch.cat([uv, *known_3d], dim=-1), relations_3d)

        refined, near, threshold = coarse, None, None
        if isinstance(self.refinement, GraphRefinement):
            correction, near = self.refinement(coarse)
            refined, threshold = coarse + correction, self.refinement.threshold
        elif self.refinement is not None:
            refined = coarse + self.refinement(coarse)
        return Output(
            uv,
            coarse,
            refined,
            scores_2d,
            scores_3d,
            relations_2d,
            relations_3d,
            near,
            threshold,
            self.overlapped,
        )


def learned_graph() -> ParameterisedGraph:
    """Â: free, and the skeleton's (Eq. 1) to start with. Each module has its own."""
    return ParameterisedGraph(torch.from_numpy(skeleton.adjacency(JOINTS, skeleton.BONES).astype(np.float32)))


class GraphClassifier(nn.Module):
    """Section 3.3: two layers of Eq. 2, the last without ReLU, from joints' features to classes' scores."""

    def __init__(self, inputs: int, hidden: int, classes: int) -> None:
        super().__init__()
        self.graph = learned_graph()
        self.first, self.second = Propagation(inputs, hidden), Propagation(hidden, classes)

    def forward(self, features: Float[Tensor, "b n f"]) -> Float[Tensor, "b n c"]:
        connections = self.graph(features)
        scores: Tensor = self.second(self.first(features, connections).relu(), connections)
        return scores


class GraphRegressor(nn.Module):
    """Section 3.5: two layers of Eq. 4 (or 6), then a linear read-out to a joint's coordinates.

    Without `local` relations both layers are Eq. 2's, as wide.
    """

    def __init__(self, inputs: int, hidden: int, coordinates: int, *, local: bool) -> None:
        super().__init__()
        self.graph = learned_graph()
        layer = GlobalLocalConvolution if local else Propagation
        self.first, self.second = layer(inputs, hidden), layer(hidden, hidden)
        self.read_out = nn.Linear(hidden, coordinates)
        nn.init.xavier_uniform_(self.read_out.weight, gain=2**0.5)
        nn.init.zeros_(self.read_out.bias)

    def forward(
        self, features: Float[Tensor, "b n f"], related: Float[Tensor, "b n n"] | None
    ) -> Float[Tensor, "b n d"]:
        """`related` is R; None where there are no local relations."""
        connections = self.graph(features)
        for layer in (self.first, self.second):
            if related is None:
                features = layer(features, connections).relu()
            else:
                features = layer(features, connections, related)
        coordinates: Tensor = self.read_out(features)
        return coordinates


class GraphRefinement(nn.Module):
    """Section 3.6: two layers of Eq. 7 on the coarse pose, whose near joints are each other's neighbours."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.regressor = GraphRegressor(3, config.hidden, 3, local=True)
        nn.init.xavier_uniform_(self.regressor.read_out.weight, gain=0.01)  # begins almost at the coarse pose
        self.neighbours = config.neighbours
        adaptive = config.refinement == "ann"
        self.threshold = nn.Parameter(torch.tensor(config.threshold)) if adaptive else None
        # Of θ's surrogate slope: wide enough for some of the 210 pairs to be on it, narrow beside θ.
        self.softness = config.threshold / 4

    def forward(self, pose: Float[Tensor, "b n 3"]) -> tuple[Float[Tensor, "b n 3"], Float[Tensor, "b n n"]]:
        """Returns what to add to the pose, and the neighbours' graph."""
        distances = mean_square_distances(pose)
        if self.threshold is not None:
            near = adaptive_neighbours(distances, self.threshold, self.softness)  # Algorithm 2
        else:
            near = nearest_neighbours(distances, self.neighbours)
        return self.regressor(pose, near), near


class FullyConnected(nn.Module):
    """All joints' features as one vector, two layers: the classifiers' and the refinement's comparison."""

    def __init__(self, inputs: int, hidden: int, outputs: int, gain: float = 2**0.5) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(JOINTS * inputs, hidden), nn.Linear(hidden, JOINTS * outputs)
        nn.init.xavier_uniform_(self.first.weight, gain=2**0.5)
        nn.init.xavier_uniform_(self.second.weight, gain=gain)
        for layer in (self.first, self.second):
            nn.init.zeros_(layer.bias)

    def forward(self, features: Float[Tensor, "b n f"]) -> Float[Tensor, "b n d"]:
        hidden = self.first(features.flatten(1)).relu()
        return self.second(hidden).unflatten(1, (JOINTS, -1))


def inputs(batch: Mapping[str, Any]) -> tuple[Tensor, ...]:
    """The image, and with `seen` in the batch what the keypoint network saw in it before."""
    return (batch["image"], batch["seen"]) if "seen" in batch else (batch["image"],)


def loss(output: Output, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The terms of Eq. 12 and 13, unweighted, over the labelled joints; `stages` gives their weights.

    `classification_2d`, `classification_3d` (Eq. 8, 9): cross-entropy, a sum over joints and mean over hands.
    Zero without classifiers.
    `regression_2d`, `regression_3d` (Eq. 10, 11), `refinement` (Eq. 13): mean squared error of a coordinate,
    in 2D in `UNIT_2D`, in 3D in lengths of `SCALE_BONE`.
    `distance_2d`, `distance_3d`, `distance_refined`: the mean distance to the truth, which is not squared: no
    term of the paper's, but what its figures measure, and a loss that a few hopeless samples do not rule.
    """
    known_2d, uv = batch["known"], batch["uv"].float()
    uv = torch.where(known_2d[..., None], uv, 0.0)
    known_3d, pose = target_3d(batch)
    terms = {
        "classification_2d": output.uv.new_zeros(()),
        "classification_3d": output.uv.new_zeros(()),
        "regression_2d": _mean(((output.uv - uv) / UNIT_2D).square().mean(dim=-1), known_2d),
        "regression_3d": _mean((output.coarse - pose).square().mean(dim=-1), known_3d),
        "refinement": _mean((output.refined - pose).square().mean(dim=-1), known_3d),
        "distance_2d": _mean(_distance(output.uv, uv), known_2d),
        "distance_3d": _mean(_distance(output.coarse, pose), known_3d),
        "distance_refined": _mean(_distance(output.refined, pose), known_3d),
    }
    if output.scores_2d is not None and output.scores_3d is not None:
        size = batch["image"].shape[-1]
        for name, scores, known, target in (
            ("classification_2d", output.scores_2d, known_2d, true_classes_2d(output, uv, size)),
            ("classification_3d", output.scores_3d, known_3d, true_classes_3d(output, pose, known_3d)),
        ):
            entropy = cross_entropy(scores.flatten(0, 1), target.flatten(0, 1), reduction="none")
            terms[name] = (entropy.view_as(known) * known).sum() / len(known)
    return terms


def target_3d(batch: Mapping[str, Tensor]) -> tuple[Bool[Tensor, "b 21"], Float[Tensor, "b 21 3"]]:
    """Which joints have a 3D label, and the joints about the wrist in lengths of `SCALE_BONE`, 0 elsewhere.

    z is the line of sight through the crop's middle (`networks.sight`). A hand counts only where the bone's
    two ends and the wrist are known, and the bone has a length.
    """
    near, far = SCALE_BONE
    relative_mm = in_sight(batch["relative_mm"].float(), batch["crop_camera"])
    scale = (relative_mm[:, far] - relative_mm[:, near]).norm(dim=-1)[:, None, None]
    pose = relative_mm / scale
    known = torch.isfinite(pose).all(dim=-1)
    return known, torch.where(known[..., None], pose, 0.0)


def true_classes_2d(
    output: Output, uv: Float[Tensor, "b n 2"], size: int
) -> Int[Tensor, "b n"] | Float[Tensor, "b n c"]:
    """The joints' classes (Algorithm 3) in a crop of `size` pixels; equal shares where blocks overlap."""
    assert output.scores_2d is not None
    along = isqrt(output.scores_2d.shape[-1])
    if output.overlapped:
        return _shares(overlapped_2d(uv * (size - 1), (along + 1) // 2, size))
    return classes_2d(uv * (size - 1), along, size)


def true_classes_3d(
    output: Output, pose: Float[Tensor, "b n 3"], known: Bool[Tensor, "b n"]
) -> Int[Tensor, "b n"] | Float[Tensor, "b n c"]:
    """The joints' classes (Algorithm 4); equal shares where blocks overlap."""
    assert output.scores_3d is not None
    along = round(output.scores_3d.shape[-1] ** (1 / 3))
    if output.overlapped:
        return _shares(overlapped_3d(pose, (along + 1) // 2, known))
    return classes_3d(pose, along, known)


def class_scores(predicted: Int[np.ndarray, " n"], true: Int[np.ndarray, " n"]) -> tuple[float, float, float]:
    """Accuracy, recall and precision as Table 3 has them, in per cent, over joints of any number of hands.

    Recall is the mean over the classes that occur, precision over those that are predicted.
    """
    right = predicted == true
    recall = [right[true == label].mean() for label in np.unique(true)]
    precision = [right[predicted == label].mean() for label in np.unique(predicted)]
    return tuple(100 * float(np.mean(values)) for values in (right, recall, precision))  # type: ignore[return-value]


def stages(config: Config) -> tuple[Stage, ...]:
    """Sections 3.7 and 4.1: the coarse network with Eq. 12, then, that frozen, the refinement with Eq. 13.

    The paper's 400 epochs are the coarse network's here, of which it says nothing else; the refinement has a
    seventieth of the parameters and a pose for its input, and takes a tenth.
    """
    weights = {"regression_2d": 100.0, "regression_3d": 100.0}  # δ1
    if config.relations:
        weights |= {"classification_2d": 1.0, "classification_3d": 1.0}  # δ2
    coarse = Stage(
        name="coarse",
        epochs=400,
        batch_size=64,
        trains=("backbone.", "classifier_", "regressor_"),
        loss_weights=weights,
        optimizer="adadelta",
        learning_rate=1.0,  # Adadelta's own rule, unscaled
    )
    if config.refinement == "none":
        return (coarse,)
    refinement = replace(
        coarse, name="refinement", epochs=40, trains=("refinement.",), loss_weights={"refinement": 1.0}
    )
    return coarse, refinement


def unit_mm(bones_mm: Float[np.ndarray, "*b 20"]) -> Float[np.ndarray, " *b"]:
    """`scale_mm` of hands whose bones are known, in the order of `skeleton.BONES` (`decoding.unit_mm`)."""
    return decoding.unit_mm(bones_mm)


def keypoints_px(
    output: Output, crops: Sequence[Crop], *, optimise: bool = False
) -> Float[np.ndarray, "b 21 2"]:
    """The 2D joints in pixels of the image; with `optimise` those of `decoding.optimised`."""
    return image_keypoints_px(_answer(output, crops, optimise).uv, crops)


def relative_mm(
    output: Output,
    crops: Sequence[Crop],
    scale_mm: Float[np.ndarray, " b"] | None = None,
    *,
    optimise: bool = False,
) -> Float[np.ndarray, "b 21 3"]:
    """The joints about the wrist in the camera frame, mirrored back for a mirrored crop.

    `scale_mm` is the true length of each hand's `SCALE_BONE`, as the paper's protocol has it, or what
    `unit_mm` makes of all its bones. Without it that of an average hand stands in, and the answer is in
    millimetres only as far as the hand is average. `optimise`: of `decoding.optimised`.
    """
    return decoding.relative_mm(_answer(output, crops, optimise).pose, crops, scale_mm)


def answer(output: Output) -> decoding.Answer:
    """What a hand consists of: what `decode` needs, and what an exported file gives."""
    sure = None if output.scores_2d is None else _confidence(output)
    return decoding.Answer(output.uv, output.refined, sure)


def decode(
    output: Output,
    crops: Sequence[Crop],
    scale_mm: Float[np.ndarray, " b"] | None = None,
    *,
    optimise: bool = False,
) -> list[Hand]:
    """One `Hand` for each sample.

    With a camera and `scale_mm`, the length of each hand's `SCALE_BONE` or its `unit_mm`, a hand is in
    millimetres of the camera frame, where its 2D joints are seen (`placement.root_translation`); otherwise,
    and where they admit no such place, it is relative to the wrist in hand lengths and its `frame` says so.
    With `optimise` it is first laid on its 2D joints (`decoding.optimised`), which the paper does not do.

    A joint's confidence is the 2D classifier's probability of the blocks about it; the score is the mean.
    Without classifiers there is no measure of either: no confidence, and a score of a half.
    """
    return decoding.hands(answer(output), crops, scale_mm, optimise=optimise)


def _answer(output: Output, crops: Sequence[Crop], optimise: bool) -> decoding.Answer:
    return decoding.optimised(answer(output), crops) if optimise else answer(output)


def _confidence(output: Output) -> Float[Tensor, "b 21"]:
    """How probable the classifier finds the blocks within a quarter of a block from the regressed joint."""
    assert output.scores_2d is not None
    along = isqrt(output.scores_2d.shape[-1])
    # Overlapping blocks are two of along + 1 wide. No branch: an exporter cannot follow one on a tensor.
    overlapped = output.overlapped.float()
    starts = torch.arange(along, device=output.uv.device) / (along + overlapped)
    side = (1 + overlapped) / (along + overlapped)
    point = output.uv.detach().clamp(0, 1)[..., None]
    x, y = ((starts - side / 4 <= point) & (point <= starts + 1.25 * side)).unbind(dim=-2)
    about = (x[..., :, None] & y[..., None, :]).flatten(2)
    return (output.scores_2d.detach().softmax(dim=-1) * about).sum(dim=-1)


def _distance(a: Float[Tensor, "b n d"], b: Float[Tensor, "b n d"]) -> Float[Tensor, "b n"]:
    # A root has no slope at zero, where a joint would be if it were exactly right.
    return ((a - b).square().sum(dim=-1) + 1e-12).sqrt()


def _mean(values: Float[Tensor, "b n"], known: Bool[Tensor, "b n"]) -> Float[Tensor, ""]:
    return (values * known).sum() / known.sum().clamp(min=1)


def _shares(members: Bool[Tensor, "b n c"]) -> Float[Tensor, "b n c"]:
    return members.float() / members.sum(dim=-1, keepdim=True).clamp(min=1)
