"""Graph convolution over the joints of a hand (Kipf & Welling 2017; JGR-P2O, Fang et al. 2020, section 3.2).

Nodes are joints, F is the matrix of their features, A^e says how much each joint hears of each other one. The
three ways to define A^e in JGR-P2O are a fixed skeleton, a similarity computed per sample, and a free matrix.
"""

import torch
from jaxtyping import Float
from torch import Tensor, nn


def normalised_adjacency(adjacency: Float[Tensor, "n n"]) -> Float[Tensor, "n n"]:
    """D^-1/2 (A + I) D^-1/2 of an undirected graph A without self loops; D holds the degrees of A + I."""
    looped = adjacency + torch.eye(len(adjacency), dtype=adjacency.dtype, device=adjacency.device)
    scale = looped.sum(1).rsqrt()
    return scale[:, None] * looped * scale[None, :]


class GraphConvolution(nn.Module):
    """F^e = ReLU(A^e F W^e) (Eq. 3). W^e has no bias."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.transform = nn.Linear(width, width, bias=False)

    def forward(
        self, features: Float[Tensor, "b n c"], connections: Float[Tensor, "*b n n"]
    ) -> Float[Tensor, "b n c"]:
        """`connections` is A^e: one matrix for all samples, or one for each."""
        return torch.matmul(connections, self.transform(features)).relu()


class FixedGraph(nn.Module):
    """A^e from the skeleton: the same normalised adjacency for every sample, not trained."""

    connections: Tensor

    def __init__(self, adjacency: Float[Tensor, "n n"]) -> None:
        super().__init__()
        # The skeleton is known from the configuration, so a checkpoint need not carry it.
        self.register_buffer("connections", normalised_adjacency(adjacency), persistent=False)

    def forward(self, features: Float[Tensor, "b n c"]) -> Float[Tensor, "n n"]:
        return self.connections


class SimilarityGraph(nn.Module):
    """A^e from each sample's own features: a_ij = softmax over j of v(f_i)ᵀ ψ(f_j), v and ψ linear."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.query = nn.Linear(width, width, bias=False)
        self.key = nn.Linear(width, width, bias=False)

    def forward(self, features: Float[Tensor, "b n c"]) -> Float[Tensor, "b n n"]:
        similarity = torch.matmul(self.query(features), self.key(features).transpose(1, 2))
        return similarity.float().softmax(dim=-1)


class ParameterisedGraph(nn.Module):
    """A^e as n² free parameters, learned with the rest; it starts from the given skeleton's matrix."""

    def __init__(self, adjacency: Float[Tensor, "n n"]) -> None:
        super().__init__()
        self.connections = nn.Parameter(normalised_adjacency(adjacency))

    def forward(self, features: Float[Tensor, "b n c"]) -> Float[Tensor, "n n"]:
        return self.connections
