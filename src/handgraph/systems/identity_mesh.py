"""Identity-aware hand mesh: one colour crop, and whose hand it is, to a hand model's mesh.

Kong, *Structured Learning of Hand Pose* (dissertation), chapter 6; Kong et al., "Identity-Aware Hand Mesh
Estimation and Personalization from RGB Images", ECCV 2022. Equation, table and section numbers are the
dissertation's.
Where its text is silent (sizes of the networks, means instead of sums) the authors' published code decides.

The network answers in the crop's frame turned to its line of sight (`networks.sight`), right hands only,
about the wrist, in mm; what is solved from it is in the crop's frame (`Crop.crop_from_camera`). The person's
shape does not enter the pose regressor but the hand model behind it: a network that was taught to regress the
shape answers with a given one as soon as there is a subject (`IdentityMesh.set_subject`).
"""

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, Literal, NamedTuple, cast, get_args

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits

from handgraph.camera import Crop
from handgraph.decoding import identity_mesh as decoding
from handgraph.decoding.frames import crop_from_camera
from handgraph.decoding.hand_models import use
from handgraph.errors import ConfigError, InputError
from handgraph.hand import Hand
from handgraph.hand_model import HandLayer, load_mano
from handgraph.keypoints import image_keypoints_px
from handgraph.networks.backbone import load_part
from handgraph.networks.heatmaps import (
    PeakConfidence,
    cross_entropy,
    gaussian_maps,
    keypoints_uv,
    supervised,
)
from handgraph.networks.image_features import (
    MAPS,
    MapFeatures,
    ResidualFeatures,
    build_features,
    check_name,
    load_features,
)
from handgraph.networks.sight import sight_from_crop
from handgraph.networks.stacked_hourglass import HourglassShape
from handgraph.schedule import Stage

INPUT = "colour"
SUBJECT = True
"""A person's shape may be given with the image: `subject` in a batch."""
FEATURES = 1000
"""Length of the image vector F: the classes of the network the paper takes as it is."""
UNIT_MM = 200.0
"""Unit of the losses on mesh and 3D joints, which decides how much they weigh beside rotations and shape."""
SIGMA = 1.0
"""Width of the Gaussian targets in map cells."""
MARGIN = 1.0
"""Of the ranking loss: how much more sure of the better one of two shapes the network should be. With the
temperature of Eq. 6.6, 0.33, one such step is a factor of 20 in attention."""

Shape = Literal["given", "regressed"]
Supervision = Literal["mesh", "keypoints"]


@dataclass(frozen=True)
class Config:
    """The paper's switches. Raises `ConfigError` for a value that does not exist."""

    backbone: str = "small"
    """small, resnet18, resnet50 (the paper's), or a name on the hub; or hourglass: what the 2D detector sees,
    which must be trained before, and then nothing is computed twice."""
    iterations: int = 3
    """Of the pose regressor, each with a network of its own."""
    shape: Shape = "regressed"
    """Given with the image (section 6.3.2), or regressed from it (the baseline, section 6.3.3), which also
    learns how sure it is, and is what calibrates a new person (section 6.3.4)."""
    supervision: Supervision = "mesh"
    """What teaches the pose beside its own parameters: the mesh, or 3D keypoints instead (Table 6.5)."""
    detector: HourglassShape = field(default_factory=lambda: HourglassShape(1, 48, 3, "compact", 56))
    """The 2D detector."""
    detector_weights: str | None = None
    """A trained `hourglass` of that shape that the detector starts from."""
    hand_model: str | None = None
    """A MANO file of the user's; by default the open hand."""
    pretrained: str | None = None
    """ImageNet weights that the backbone starts from: a file, or a repository on the hub."""
    input_size: int = 128
    """Side of the square colour crop in pixels; the paper's is 224."""

    def __post_init__(self) -> None:
        for name, known in (("shape", Shape), ("supervision", Supervision)):
            if getattr(self, name) not in get_args(known):
                raise ConfigError(
                    f"{name} is '{getattr(self, name)}', expected one of {', '.join(get_args(known))}"
                )
        check_name(self.backbone, MAPS)
        if self.backbone == MAPS and self.pretrained is not None:
            raise ConfigError("pretrained: backbone 'hourglass' starts from detector_weights")
        if self.iterations < 1:
            raise ConfigError(f"iterations is {self.iterations}, expected 1 or more")
        self.detector.check_input(self.input_size)

    @property
    def joints(self) -> int:
        """21, the canonical hand's."""
        return 21

    def build(self) -> "IdentityMesh":
        """The network, freshly initialised but for `detector_weights`."""
        module = IdentityMesh(self)
        if self.detector_weights is not None:
            load_part(module.detector, self.detector_weights, "network.")
        return module


class Output(NamedTuple):
    """What the network says of a batch of crops; parts that a training stage leaves out are None."""

    rotations: Float[Tensor, "b 16 3 3"] | None
    """θ after the last iteration, as matrices: the hand's, then 15 finger joints in MANO's order."""
    shape: Float[Tensor, "b 10"] | None
    """β: given, or regressed (Eq. 6.5)."""
    regressed: Float[Tensor, "b 10"] | None
    """β̂ of the shape regressor, whether it is used or not; None in networks without one."""
    confidence: Float[Tensor, " b"] | None
    """c, how sure it is of the regressed shape: any number, for Eq. 6.6."""
    joints_mm: Float[Tensor, "b 21 3"] | None
    vertices_mm: Float[Tensor, "b v 3"] | None
    logits: tuple[Float[Tensor, "b 21 h w"], ...] | None
    """The 2D detector's heat maps, one entry for each hourglass: distributions, or before the sigmoid."""
    uv: Float[Tensor, "b 21 2"] | None
    """The 2D detector's keypoints in the crop."""
    sureness: Float[Tensor, "b 21"] | None
    """Probability of each of them."""


class IdentityMesh(nn.Module):
    """The network of Fig. 6.1: colour crop (b, 3, s, s), ImageNet-normalised, and shape (b, 10) → `Output`.

    Without a shape a network that regresses none takes the mean hand.
    """

    subject: Tensor

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config
        self.layer = HandLayer(None if config.hand_model is None else load_mano(config.hand_model))
        _LAYERS[len(self.layer.model.v_template)] = self.layer
        use(self.layer.model)
        self.encoder = Encoder(config)
        self.pose = PoseRegressor(config.iterations)
        self.shape: nn.Module | None = None
        self.confidence: nn.Linear | None = None
        if config.shape == "regressed":
            self.shape = mlp(FEATURES, 10)
            self.confidence = nn.Linear(FEATURES, 1)
        self.detector = config.detector.build(21)
        self.sureness = PeakConfidence()
        self.mode = ""
        # Not in checkpoints: whose hand it is does not belong to the weights.
        self.register_buffer("subject", torch.full((10,), torch.nan), persistent=False)

    def set_stage(self, stage: Stage) -> None:
        """A stage computes what it trains: mode "mesh", "detector" or "confidence"; else everything."""
        self.mode = stage.mode

    def set_subject(self, shape: np.ndarray | Tensor | None) -> None:
        """From now on every hand is this person's: (10,) β, which replaces given and regressed shapes."""
        self.subject.copy_(torch.full((10,), torch.nan) if shape is None else torch.as_tensor(shape))

    def forward(
        self,
        image: Float[Tensor, "b 3 s s"],
        shape: Float[Tensor, "b 10"] | None = None,
        subject: Float[Tensor, "b 10"] | None = None,
        before: Float[Tensor, "b _ _ _"] | None = None,
    ) -> Output:
        """`subject` is `set_subject`'s for each image; NaN for nobody. `before`: what the detector saw."""
        mode = self.mode if self.training else ""
        logits = uv = sureness = None
        seen: tuple[Tensor, ...] = (image,)
        if mode in ("", "detector") or self.config.backbone == MAPS:
            logits, details = self.detector.describe(image, before)
            maps = logits[-1].float()
            if not self.config.detector.distribution:
                maps = maps.sigmoid()
            uv = keypoints_uv(maps, self.config.input_size, "local")
            sureness = self.sureness(maps)
            if self.config.backbone == MAPS:
                seen = (details, maps)
        if mode == "detector":
            return Output(None, None, None, None, None, None, logits, uv, sureness)

        features = self.encoder(*seen)
        # In bfloat16 a rotation is wrong by a quarter of a degree, and the hand by half a millimetre.
        with torch.autocast(image.device.type, enabled=False):
            features = features.float()
            rotations = self.pose(features)
            regressed = confidence = None
            used = torch.zeros_like(features[:, :10]) if shape is None else shape.float()
            if self.shape is not None and self.confidence is not None:
                used = regressed = self.shape(features)
                # On the frozen network (section 6.3.4): it must not change the features.
                confidence = self.confidence(features.detach()).squeeze(1)
            if not self.training:
                known = self.subject.expand_as(used) if subject is None else subject
                used = torch.where(known.isnan(), used, known)
            if self.training and (self.config.supervision == "keypoints" or mode == "confidence"):
                joints, vertices = self.layer.joints_from_rotations(used, rotations), None
            else:
                vertices, joints = self.layer.from_rotations(used, rotations)
                vertices = vertices - joints[:, :1]
            joints = joints - joints[:, :1]
        return Output(rotations, used, regressed, confidence, joints, vertices, logits, uv, sureness)


class Encoder(nn.Module):
    """Image, or what the 2D detector sees, → F: the backbone with its classifier of 1000 outputs."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.backbone = (
            MapFeatures(config.detector) if config.backbone == MAPS else build_features(config.backbone)
        )
        if config.pretrained is not None:
            if not isinstance(self.backbone, ResidualFeatures):
                raise ConfigError(f"pretrained: backbone '{config.backbone}' comes with its own weights")
            load_features(self.backbone, config.pretrained)
        self.fc = nn.Linear(self.backbone.channels, FEATURES)

    def forward(self, *seen: Float[Tensor, "b _ _ _"]) -> Float[Tensor, "b 1000"]:
        return cast(Tensor, self.fc(self.backbone(*seen)))


class PoseRegressor(nn.Module):
    """Eq. 6.2-6.3: θ from the identity, turned by an increment in each iteration; 16 joints in 6D."""

    def __init__(self, iterations: int) -> None:
        super().__init__()
        self.increments = nn.ModuleList(mlp(FEATURES + 96, 96) for _ in range(iterations))
        identity = six_of(torch.eye(3).expand(16, 3, 3)).flatten()
        for increment in self.increments:
            last = cast(nn.Linear, cast(nn.Sequential, increment)[-1])
            # Begins with hardly any increment; 6D has no zero, the identity is one.
            nn.init.normal_(last.weight, std=0.01)
            with torch.no_grad():
                last.bias.copy_(identity)

    def forward(self, features: Float[Tensor, "b 1000"]) -> Float[Tensor, "b 16 3 3"]:
        pose = torch.eye(3, device=features.device).expand(features.shape[0], 16, 3, 3)
        for increment in self.increments:
            change = increment(torch.cat([features, six_of(pose).flatten(1)], dim=1))  # Eq. 6.2
            pose = torch.matmul(rotations_of_six(change.unflatten(1, (16, 6))), pose)  # Eq. 6.3
        return pose


def mlp(inputs: int, outputs: int) -> nn.Sequential:
    """The regressors' form: 512, 256, 128 hidden units."""
    widths = (inputs, 512, 256, 128)
    layers: list[nn.Module] = []
    for before, after in itertools.pairwise(widths):
        layers += [nn.Linear(before, after), nn.ReLU()]
    return nn.Sequential(*layers, nn.Linear(widths[-1], outputs))


def six_of(rotations: Float[Tensor, "*n 3 3"]) -> Float[Tensor, "*n 6"]:
    """6D of rotations: the first column, then the second."""
    return rotations[..., :2].transpose(-1, -2).flatten(-2)


def rotations_of_six(six: Float[Tensor, "*n 6"]) -> Float[Tensor, "*n 3 3"]:
    """The rotations whose first two columns these become by Gram and Schmidt (Zhou et al. 2019)."""
    first, second = six[..., :3], six[..., 3:]
    x = first / first.norm(dim=-1, keepdim=True).clamp_min(1e-6)
    second = second - (x * second).sum(-1, keepdim=True) * x
    y = second / second.norm(dim=-1, keepdim=True).clamp_min(1e-6)
    return torch.stack([x, y, torch.linalg.cross(x, y, dim=-1)], dim=-1)


def inputs(batch: Mapping[str, Any]) -> tuple[Tensor | None, ...]:
    """Image and true shape, the mean where it is unknown. A network that regresses shapes does not look.

    With `subject` in the batch, the shapes of `IdentityMesh.set_subject`, one for each image; with `seen`,
    what the 2D detector saw before, and does not look for again.
    """
    further: tuple[Any, ...] = (batch["subject"],) if "subject" in batch else ()
    if "seen" in batch:
        further = (batch.get("subject"), batch["seen"])
    return batch["image"], torch.nan_to_num(batch["shape"].float()), *further


def loss(output: Output, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The terms of Eq. 6.8-6.10 and of section 6.3.5, unweighted; none of parts that a stage leaves out.

    `mesh`, `edge`: mean absolute errors of vertices' coordinates and of edges' lengths (in `UNIT_MM`);
    `normal`: how far the edges lean out of the true faces, mean. `pose`: mean absolute error of 6D.
    `shape`: of β. `joints`: of 3D joints' coordinates about the wrist, for training without meshes.
    `ranking`: the confidence predictor's. `heatmap`: binary cross entropy of the detector's maps, summed
    over cells, mean over joints; `cross_entropy` takes its place where they are distributions. Samples count
    where they have the label.
    """
    terms: dict[str, Tensor] = {}
    if output.joints_mm is not None and output.rotations is not None:
        turns = sight_from_crop(batch["crop_camera"]).float()
        true_mm = batch["relative_mm"].float() @ turns.mT
        known = torch.isfinite(true_mm).all(-1)
        difference = (output.joints_mm - torch.where(known[..., None], true_mm, 0.0)).abs().mean(-1)
        terms["joints"] = _mean(difference, known) / UNIT_MM
        labelled = torch.isfinite(batch["pose"]).all(1) & torch.isfinite(batch["shape"]).all(1)
        true_shape = torch.where(labelled[:, None], batch["shape"], 0.0).float()
        with torch.no_grad():
            true_rotations = _layer_like(output).rotations(
                torch.where(labelled[:, None], batch["pose"], 0.0).float()
            )
            true_rotations[:, 0] = turns @ true_rotations[:, 0]
        six = (six_of(output.rotations) - six_of(true_rotations)).abs().flatten(1).mean(1)
        terms["pose"] = _mean(six, labelled)
        if output.vertices_mm is not None:
            terms |= _mesh_terms(output.vertices_mm, true_shape, true_rotations, labelled, output)
        if output.regressed is not None and output.confidence is not None:
            off = (output.regressed - true_shape).abs()
            terms["shape"] = _mean(off.mean(1), labelled)
            terms["ranking"] = ranking(output.confidence, off.detach().sum(1), labelled)
    if output.logits is not None:
        size = batch["image"].shape[-1]
        target = gaussian_maps(batch["uv"], batch["known"], output.logits[0].shape[-1], size, SIGMA)
        counts = supervised(batch["uv"], batch["known"], size)
        terms["heatmap"] = torch.stack(
            [
                _mean(
                    binary_cross_entropy_with_logits(maps.float(), target, reduction="none").sum((2, 3)),
                    counts,
                )
                for maps in output.logits
            ]
        ).sum()
        terms["cross_entropy"] = cross_entropy(output.logits, batch["uv"], batch["known"], size, SIGMA)
    return terms


def _mesh_terms(
    vertices_mm: Float[Tensor, "b v 3"],
    true_shape: Float[Tensor, "b 10"],
    true_rotations: Float[Tensor, "b 16 3 3"],
    labelled: Bool[Tensor, " b"],
    output: Output,
) -> dict[str, Tensor]:
    """Eq. 6.8."""
    layer = _layer_like(output)
    with torch.no_grad():
        true, joints = layer.from_rotations(true_shape, true_rotations)
        true = true - joints[:, :1]
    faces = torch.tensor(layer.model.faces, device=vertices_mm.device)
    corners, true_corners = vertices_mm[:, faces], true[:, faces]
    edges = corners - corners.roll(-1, dims=2)
    true_edges = true_corners - true_corners.roll(-1, dims=2)
    normals = torch.linalg.cross(true_edges[:, :, 0], true_edges[:, :, 1], dim=-1)
    normals = normals / normals.norm(dim=-1, keepdim=True).clamp_min(1e-9)
    lengths = edges.norm(dim=-1).clamp_min(1e-6)
    leaning = ((edges * normals.unsqueeze(2)).sum(-1) / lengths).abs()
    return {
        "mesh": _mean((vertices_mm - true).abs().mean((1, 2)), labelled) / UNIT_MM,
        "normal": _mean(leaning.mean((1, 2)), labelled),
        "edge": _mean((lengths - true_edges.norm(dim=-1)).abs().mean((1, 2)), labelled) / UNIT_MM,
    }


def ranking(
    confidence: Float[Tensor, " b"], off: Float[Tensor, " b"], known: Bool[Tensor, " b"]
) -> Float[Tensor, ""]:
    """Margin ranking loss over all pairs of the batch: of two shapes the better one should be surer."""
    # c_i - c_j should exceed the margin where l_i < l_j; each pair is met twice, once with either sign.
    better = torch.sign(off[None] - off[:, None])
    pairs = known[None] & known[:, None] & (better != 0)
    short = (MARGIN - better * (confidence[:, None] - confidence[None])).clamp_min(0)
    return (short * pairs).sum() / pairs.sum().clamp_min(1)


def stages(config: Config, dataset: Literal["dexycb", "humbi"] = "dexycb") -> tuple[Stage, ...]:
    """The paper's schedule (section 6.4.1): mesh, on it frozen the confidence, and the detector by itself.

    15 epochs at 1e-4, a tenth of it from epoch 10 (HUMBI), or from epochs 5 and 10 (DexYCB), in stages of
    their own, each with fresh moments of Adam. Only a network that regresses shapes has a confidence.
    Table 6.5 replaces the mesh's terms by that of 3D keypoints. How the confidence, one linear layer, is to
    learn the paper does not say. The detector comes last since its keypoints decide the validation error, and
    so which weights are kept.
    """
    if config.supervision == "mesh":
        weights = {"mesh": 1.0, "normal": 0.1, "edge": 1.0, "pose": 1.0}  # Eq. 6.10
    else:
        weights = {"joints": 1.0, "pose": 1.0}
    if config.shape == "regressed":
        weights["shape"] = 1.0  # Eq. 6.9
    mesh = ("encoder.", "pose.", "shape.")
    epochs = ((5, 1e-4), (5, 1e-5), (5, 1e-6)) if dataset == "dexycb" else ((10, 1e-4), (5, 1e-5))
    plan = [
        Stage(
            name=name,
            epochs=count,
            batch_size=32,
            trains=mesh,
            loss_weights=weights,
            learning_rate=rate,
            mode="mesh",
        )
        for name, (count, rate) in zip(("mesh", "mesh_10th", "mesh_100th"), epochs, strict=False)
    ]
    if config.shape == "regressed":
        plan.append(
            Stage(
                name="confidence",
                epochs=1,
                batch_size=128,
                trains=("confidence.",),
                loss_weights={"ranking": 1.0},
                learning_rate=1e-3,
                mode="confidence",
            )
        )
    plan.append(
        Stage(
            name="detector",
            epochs=15,
            batch_size=32,
            trains=("detector.",),
            loss_weights={"cross_entropy" if config.detector.distribution else "heatmap": 1.0},
            learning_rate=1e-4,
            mode="detector",
        )
    )
    return tuple(plan)


def answer(output: Output) -> decoding.Answer:
    """What a hand consists of: what `decode` needs, and what an exported file gives.

    Raises InputError for an output without some part of it.
    """
    parts = (
        output.rotations,
        output.shape,
        output.joints_mm,
        output.vertices_mm,
        output.uv,
        output.sureness,
    )
    if any(part is None for part in parts):
        raise InputError("this output is of a training stage that computes a part only: call eval() first")
    return decoding.Answer(*parts, output.confidence)


def solve(
    output: Output, crops: Sequence[Crop], layer: HandLayer | None = None, *, optimise: bool = True
) -> decoding.Solved:
    """Section 6.3.2's optimisation: the regressed hand, moved and bent until its joints are seen where the
    detector sees them (Eq. 6.4), in the crop's pixels. Without `optimise` it is only placed. A crop without a
    camera keeps what was regressed, and the detector's keypoints.
    """
    model = None if layer is None else layer.model
    return decoding.solve(answer(output), crops, model, optimise=optimise)


def relative_mm(
    output: Output,
    crops: Sequence[Crop],
    scale_mm: Float[np.ndarray, " b"] | None = None,
    *,
    layer: HandLayer | None = None,
    optimise: bool = True,
) -> Float[np.ndarray, "b 21 3"]:
    """Joints about the wrist in the camera frame, mirrored crops mirrored back, mm.

    The size is that of the shape, given or regressed; `scale_mm` is not asked for.
    """
    turns = np.stack([crop_from_camera(crop) for crop in crops])
    return solve(output, crops, layer, optimise=optimise).joints_mm @ turns


def relative_vertices_mm(
    output: Output, crops: Sequence[Crop], *, layer: HandLayer | None = None, optimise: bool = True
) -> Float[np.ndarray, "b v 3"]:
    """As `relative_mm`, the mesh."""
    turns = np.stack([crop_from_camera(crop) for crop in crops])
    return solve(output, crops, layer, optimise=optimise).vertices_mm @ turns


def keypoints_px(
    output: Output, crops: Sequence[Crop], *, optimise: bool = True
) -> Float[np.ndarray, "b 21 2"]:
    """The optimised joints in image pixels; the 2D detector's where a crop has no camera."""
    return image_keypoints_px(solve(output, crops, optimise=optimise).uv, crops)


def decode(
    output: Output, crops: Sequence[Crop], layer: HandLayer | None = None, *, optimise: bool = True
) -> list[Hand]:
    """One `Hand` with mesh for each sample, optimised at inference time as the paper's (`solve`).

    `layer` is the right hand that the network was built with. Confidences are the 2D detector's, the score
    is their mean; `shape_confidence` is c of Eq. 6.6. Without a camera a hand is relative to its wrist.
    """
    model = None if layer is None else layer.model
    return decoding.hands(answer(output), crops, model, optimise=optimise)


def _mean(values: Float[Tensor, "*n"], known: Bool[Tensor, "*n"]) -> Float[Tensor, ""]:
    return (values * known).sum() / known.sum().clamp_min(1)


# The loss needs the true pose's mesh, of the hand the network was built with: known by its vertices' number.
_LAYERS: dict[int, HandLayer] = {}


def _layer_like(output: Output) -> HandLayer:
    vertices = output.vertices_mm
    if vertices is None or vertices.shape[1] not in _LAYERS:
        return _open_hand()
    return _LAYERS[vertices.shape[1]]


@lru_cache(maxsize=1)
def _open_hand() -> HandLayer:
    return HandLayer()
