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


class Propagation(nn.Module):
    """Â (H W + b), the rule of Doosti et al. 2020 before its activation (Kourbane & Genc 2021, Eq. 2).

    Starts as Xavier with gain √2 and no bias. W need not be square, unlike that of `GraphConvolution`.
    """

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.transform = nn.Linear(inputs, outputs)
        nn.init.xavier_uniform_(self.transform.weight, gain=2**0.5)
        nn.init.zeros_(self.transform.bias)

    def forward(
        self, features: Float[Tensor, "b n c"], connections: Float[Tensor, "*b n n"]
    ) -> Float[Tensor, "b n d"]:
        """`connections` is Â: one matrix for all samples, or one for each."""
        return torch.matmul(connections, self.transform(features))


class GlobalLocalConvolution(nn.Module):
    """ReLU([Â H W_A, R H W_R]) (Kourbane & Genc 2021, Eq. 4, 6 and 7).

    Â is one learned matrix for all poses, R each pose's own, of 0 and 1; each gives half of the outputs.
    R is scaled as Eq. 1 scales a graph, by its joints' degrees: as it stands, a fist whose 21 joints are all
    related would have features 21 times those of joints apart, and twice over in two layers.
    """

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.globally = Propagation(inputs, outputs // 2)
        self.locally = Propagation(inputs, outputs - outputs // 2)

    def forward(
        self,
        features: Float[Tensor, "b n c"],
        connections: Float[Tensor, "n n"],
        relations: Float[Tensor, "b n n"],
    ) -> Float[Tensor, "b n d"]:
        """`connections` is Â, `relations` R."""
        # Joint i has the mean of its relatives: for relations that are mutual among all of them, Eq. 1.
        related = relations / relations.sum(dim=-1, keepdim=True).clamp(min=1)
        both = [self.globally(features, connections), self.locally(features, related)]
        return torch.cat(both, dim=-1).relu()
