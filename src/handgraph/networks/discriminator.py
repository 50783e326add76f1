"""Discriminators of hand poses: is this the true pose of this picture, or a predicted one?

He et al., "3D Hand Pose Estimation in the Wild via Graph Refinement under Adversarial Learning", section
III-C, Fig. 4, after Yang et al. 2018 (several sources) and Miyato et al. 2018 (spectral normalisation). The
paper gives the branches, not their widths. A higher score is a truer pose; scores have no bounds.
"""

from itertools import pairwise

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import interpolate, leaky_relu
from torch.nn.utils.parametrizations import spectral_norm

from handgraph import skeleton
from handgraph.graph.bones import bone_vectors, incidence, kcs_matrix
from handgraph.graph.gcn import normalised_adjacency

# Poses come in millimetres; their features work in centimetres, of which a bone has a few.
UNIT_MM = 10.0
IMAGE_SIZE = 64  # a critic of poses needs the picture's gist; larger ones are averaged down first
LEAK = 0.1


class MultiSourceDiscriminator(nn.Module):
    """Three sources, side by side: a CNN on the image, a GCN on the pose, one FC layer on its KCS matrix.

    Their features are concatenated, and one FC layer gives the score. Every layer is spectrally normalised.
    """

    def __init__(self, width: int = 128) -> None:
        super().__init__()
        self.image = ImageBranch(width)
        self.pose = PoseBranch(width)
        self.bones = nn.Sequential(spectral_norm(nn.Linear(20 * 20, width)), nn.LeakyReLU(LEAK))
        self.decide = spectral_norm(nn.Linear(3 * width, 1))

    def forward(
        self, image: Float[Tensor, "b 3 s s"], pose_mm: Float[Tensor, "b 21 3"]
    ) -> Float[Tensor, " b"]:
        """Scores of wrist-relative poses (mm, the crop's frame), each for its normalised image."""
        pose = pose_mm / UNIT_MM
        features = [self.image(image), self.pose(pose), self.bones(kcs_matrix(pose).flatten(1))]
        score: Tensor = self.decide(torch.cat(features, dim=1))
        return score.squeeze(1)

    def slope_bound(self, pose_mm: Float[Tensor, "b 21 3"]) -> Float[Tensor, " b"]:
        """What no slope of the score at these poses exceeds, per `UNIT_MM`, whatever the weights.

        Layers, leaky ReLUs and the normalised adjacency have norm one, so the pose's branch has a slope of 1
        at most. KCS has dΨ = dBᵀB + BᵀdB with dB = dP C, so 2 ‖B‖ ‖C‖ at most, spectral norms.
        """
        bones = torch.linalg.matrix_norm(bone_vectors(pose_mm / UNIT_MM), ord=2)
        kcs = 2 * bones * float(np.linalg.norm(incidence(), ord=2))
        return (1 + kcs**2).sqrt()


class SingleSourceDiscriminator(nn.Module):
    """The baseline of Table III: FC layers on the pose alone."""

    def __init__(self, width: int = 128) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            spectral_norm(nn.Linear(63, 2 * width)), nn.LeakyReLU(LEAK),
            spectral_norm(nn.Linear(2 * width, 2 * width)), nn.LeakyReLU(LEAK),
            spectral_norm(nn.Linear(2 * width, 1)),
        )  # fmt: skip

    def forward(
        self, image: Float[Tensor, "b 3 s s"], pose_mm: Float[Tensor, "b 21 3"]
    ) -> Float[Tensor, " b"]:
        """As `MultiSourceDiscriminator`'s; the image is not looked at."""
        score: Tensor = self.layers((pose_mm / UNIT_MM).flatten(1))
        return score.squeeze(1)

    def slope_bound(self, pose_mm: Float[Tensor, "b 21 3"]) -> Float[Tensor, " b"]:
        """As `MultiSourceDiscriminator`'s: layers of norm one have a slope of 1 at most."""
        return torch.ones_like(pose_mm[:, 0, 0])


class ImageBranch(nn.Module):
    """Image → features (b, width): four 4×4 convolutions of stride 2, then the mean over the pixels."""

    def __init__(self, width: int) -> None:
        super().__init__()
        widths = (3, width // 4, width // 2, width, width)
        self.layers = nn.ModuleList(
            spectral_norm(nn.Conv2d(inputs, outputs, 4, stride=2, padding=1))
            for inputs, outputs in pairwise(widths)
        )

    def forward(self, image: Float[Tensor, "b 3 s s"]) -> Float[Tensor, "b c"]:
        if image.shape[-1] > IMAGE_SIZE:
            image = interpolate(image, (IMAGE_SIZE, IMAGE_SIZE), mode="area")
        for layer in self.layers:
            image = leaky_relu(layer(image), LEAK)
        return image.mean(dim=(2, 3))


class PoseBranch(nn.Module):
    """Pose → features (b, width): two graph convolutions over the skeleton, then one FC layer on them all."""

    adjacency: Tensor

    def __init__(self, width: int) -> None:
        super().__init__()
        graph = torch.from_numpy(skeleton.adjacency(21, skeleton.BONES).astype(np.float32))
        self.register_buffer("adjacency", normalised_adjacency(graph), persistent=False)
        half = width // 2
        self.layers = nn.ModuleList([spectral_norm(nn.Linear(3, half)), spectral_norm(nn.Linear(half, half))])
        self.gather = spectral_norm(nn.Linear(21 * half, width))

    def forward(self, pose: Float[Tensor, "b 21 3"]) -> Float[Tensor, "b c"]:
        for layer in self.layers:
            pose = leaky_relu(torch.matmul(self.adjacency, layer(pose)), LEAK)
        return leaky_relu(self.gather(pose.flatten(1)), LEAK)


def score_slope(
    discriminator: nn.Module,
    image: Float[Tensor, "b 3 s s"],
    true_mm: Float[Tensor, "b 21 3"],
    predicted_mm: Float[Tensor, "b 21 3"],
) -> Float[Tensor, ""]:
    """Estimate of the Lipschitz constant in the pose, per `UNIT_MM`: the steepest slope of the score found.

    Slopes are taken at the true poses, the predicted ones and half-way between: a lower bound of the constant
    there, below `slope_bound`. The whole space has none, since the KCS matrix is quadratic in the pose.
    """
    was_training = discriminator.training
    discriminator.eval()  # or asking would move the power iteration
    steepest = []
    with torch.enable_grad():
        for pose_mm in poses_between(true_mm.detach(), predicted_mm.detach()):
            pose_mm.requires_grad_()
            (slope,) = torch.autograd.grad(discriminator(image, pose_mm).sum(), pose_mm)
            steepest.append(UNIT_MM * slope.flatten(1).norm(dim=1).max())
    discriminator.train(was_training)
    return torch.stack(steepest).max()


def poses_between(
    true_mm: Float[Tensor, "b 21 3"], predicted_mm: Float[Tensor, "b 21 3"]
) -> list[Float[Tensor, "b 21 3"]]:
    """The true poses, those half-way to the predicted ones, and these."""
    return [torch.lerp(true_mm, predicted_mm, share) for share in (0.0, 0.5, 1.0)]
