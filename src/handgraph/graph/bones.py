"""Bones as vectors: the KCS matrix, and what a pose's bones differ by in length and in direction.

Bone losses: He et al., "3D Hand Pose Estimation in the Wild via Graph Refinement under Adversarial Learning",
Eq. 4-6. Kinematic chain space: Wandt, Ackermann and Rosenhahn 2017, reference 40 of that paper.
"""

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from handgraph.skeleton import BONES

# A bone of a hand is 15 mm and more. A shorter predicted one says ever less about its direction as it shrinks
# to a point, where dividing by its length would leave neither a value nor a gradient.
SHORTEST_MM = 1.0

_PARENTS, _CHILDREN = (list(ends) for ends in zip(*BONES, strict=True))


def bone_vectors(joints: Float[Tensor, "*b 21 3"]) -> Float[Tensor, "*b 20 3"]:
    """From each bone's parent joint to its child, in the joints' unit (Eq. 4), in `skeleton.BONES`' order."""
    return joints[..., _CHILDREN, :] - joints[..., _PARENTS, :]


def incidence() -> Float[np.ndarray, "21 20"]:
    """C: a bone's column holds -1 at its parent and +1 at its child, so that B = P C for joints P (3, 21)."""
    matrix = np.zeros((21, len(BONES)))
    for bone, (parent, child) in enumerate(BONES):
        matrix[parent, bone], matrix[child, bone] = -1.0, 1.0
    return matrix


def kcs_matrix(joints: Float[Tensor, "*b 21 3"]) -> Float[Tensor, "*b 20 20"]:
    """Ψ = BᵀB with B = P C (3, 20): squared bone lengths on the diagonal, lengths times cosines elsewhere.

    In the square of the joints' unit. It does not change when the hand is turned or moved.
    """
    bones = bone_vectors(joints)
    # Products and a sum rather than a matrix product, which mixed precision would round to bfloat16.
    return (bones.unsqueeze(-2) * bones.unsqueeze(-3)).sum(-1)


def bone_length_loss(
    predicted_mm: Float[Tensor, "b 21 3"], true_mm: Float[Tensor, "b 21 3"]
) -> Float[Tensor, ""]:
    """Eq. 5: the difference of the lengths, summed over the bones, mean over the hands; mm.

    A bone with an unknown (NaN) end in the truth counts nothing.
    """
    true, known = _known_bones(true_mm)
    lengths, true_lengths = (bones.norm(dim=-1) for bones in (bone_vectors(predicted_mm), true))
    return ((lengths - true_lengths).abs() * known).sum(1).mean()


def bone_direction_loss(
    predicted_mm: Float[Tensor, "b 21 3"], true_mm: Float[Tensor, "b 21 3"]
) -> Float[Tensor, ""]:
    """Eq. 6: the distance of the unit vectors, in [0, 2], summed over the bones, mean over the hands.

    Value and gradient are finite at predicted bones of no length, whose direction is taken as the zero vector
    (and that of a bone below `SHORTEST_MM` as shorter than one). A bone with an unknown end in the truth, or
    without a length there, counts nothing.
    """
    true, known = _known_bones(true_mm)
    known = known & (true.norm(dim=-1) > 0)
    difference = _directions(bone_vectors(predicted_mm)) - _directions(true)
    return (difference.norm(dim=-1) * known).sum(1).mean()


def _directions(bones_mm: Float[Tensor, "b 20 3"]) -> Float[Tensor, "b 20 3"]:
    return bones_mm / bones_mm.norm(dim=-1, keepdim=True).clamp_min(SHORTEST_MM)


def _known_bones(true_mm: Float[Tensor, "b 21 3"]) -> tuple[Float[Tensor, "b 20 3"], Bool[Tensor, "b 20"]]:
    """The true bones, zero where unknown: NaN times zero would be NaN still, in the gradient too."""
    bones = bone_vectors(true_mm)
    known = torch.isfinite(bones).all(-1)
    return torch.where(known.unsqueeze(-1), bones, 0.0), known
