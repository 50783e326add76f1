import pytest
import torch

from handgraph import skeleton
from handgraph.graph.gcn import (
    FixedGraph,
    GlobalLocalConvolution,
    GraphConvolution,
    ParameterisedGraph,
    Propagation,
    SimilarityGraph,
    normalised_adjacency,
)


def joint_graph(joints: int) -> torch.Tensor:
    return torch.from_numpy(skeleton.adjacency(joints, skeleton.edges(joints))).float()


@pytest.mark.parametrize("joints", [14, 16, 21])
def test_normalised_adjacency_is_kipfs_formula(joints: int) -> None:
    adjacency = joint_graph(joints)
    normalised = normalised_adjacency(adjacency)
    for i in range(joints):
        for j in range(joints):
            looped = adjacency[i, j] + (i == j)
            degree_i, degree_j = adjacency[i].sum() + 1, adjacency[j].sum() + 1
            assert normalised[i, j] == pytest.approx(float(looped / (degree_i * degree_j).sqrt()), abs=1e-6)


def test_two_connected_nodes_share_evenly() -> None:
    half = normalised_adjacency(torch.tensor([[0.0, 1.0], [1.0, 0.0]]))
    assert torch.allclose(half, torch.full((2, 2), 0.5))


def test_graph_convolution_is_equation_3() -> None:
    torch.manual_seed(0)
    features, connections = torch.randn(2, 4, 5), torch.randn(4, 4)
    layer = GraphConvolution(5)
    evolved = layer(features, connections)
    weight = layer.transform.weight.detach()  # (out, in)
    for b in range(2):
        for i in range(4):
            for c in range(5):
                total = sum(
                    connections[i, j] * sum(features[b, j, d] * weight[c, d] for d in range(5))
                    for j in range(4)
                )
                assert evolved[b, i, c].item() == pytest.approx(max(float(total), 0.0), abs=1e-5)


def test_similarity_graph_is_each_samples_own() -> None:
    torch.manual_seed(0)
    graph, features = SimilarityGraph(6), torch.randn(3, 4, 6)
    connections = graph(features)
    assert torch.allclose(connections.sum(-1), torch.ones(3, 4))
    assert not torch.allclose(connections[0], connections[1], atol=1e-3)
    query, key = graph.query.weight @ features[1, 2], torch.stack([graph.key.weight @ f for f in features[1]])
    exponentials = torch.stack([torch.exp(query @ k) for k in key])
    assert torch.allclose(connections[1, 2], exponentials / exponentials.sum(), atol=1e-6)


def test_a_fixed_graph_has_nothing_to_learn_or_to_store() -> None:
    graph = FixedGraph(joint_graph(14))
    assert not list(graph.parameters())
    assert not graph.state_dict()


def test_a_parameterised_graph_starts_as_the_skeleton_and_learns_every_entry() -> None:
    graph = ParameterisedGraph(joint_graph(14))
    features = torch.randn(2, 14, 8)
    assert torch.equal(graph(features), normalised_adjacency(joint_graph(14)))
    torch.matmul(graph(features), features).square().sum().backward()
    assert graph.connections.grad is not None
    assert (graph.connections.grad != 0).all()


def test_propagation_is_equation_2_before_its_activation() -> None:
    torch.manual_seed(0)
    features, connections = torch.randn(2, 4, 5), torch.randn(2, 4, 4)
    layer = Propagation(5, 3)
    with torch.no_grad():
        layer.transform.bias.copy_(torch.randn(3))
    answer = layer(features, connections)
    weight, bias = layer.transform.weight.detach(), layer.transform.bias.detach()  # (out, in)
    for b in range(2):
        for i in range(4):
            total = sum(connections[b, i, j] * (weight @ features[b, j] + bias) for j in range(4))
            assert torch.allclose(answer[b, i], total, atol=1e-5)
    assert (answer < 0).any()


def test_propagation_starts_as_xavier_with_gain_root_2() -> None:
    torch.manual_seed(0)
    weight = Propagation(300, 200).transform.weight
    assert weight.std().item() == pytest.approx(2**0.5 * (2 / 500) ** 0.5, rel=0.02)


def test_global_local_convolution_is_equation_4() -> None:
    torch.manual_seed(0)
    features, connections = torch.randn(2, 4, 5), torch.randn(4, 4)
    classes = torch.tensor([[0, 1, 0, 0], [2, 2, 3, 3]])
    related = (classes[:, :, None] == classes[:, None, :]).float()
    layer = GlobalLocalConvolution(5, 7)
    answer = layer(features, connections, related)
    w_a, w_r = layer.globally.transform.weight.detach().T, layer.locally.transform.weight.detach().T
    for b in range(2):
        # Equation 1 of the graph without its self loops.
        scaled = normalised_adjacency(related[b] - torch.eye(4))
        both = torch.cat([connections @ features[b] @ w_a, scaled @ features[b] @ w_r], dim=1)
        assert torch.allclose(answer[b], both.clamp(min=0), atol=1e-5)
    assert answer.shape == (2, 4, 7)
