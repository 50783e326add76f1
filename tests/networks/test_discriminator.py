"""Discriminators: what each source can see, the norm of every layer, the slope of the score."""

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from handgraph import skeleton
from handgraph.graph.bones import kcs_matrix
from handgraph.networks.discriminator import (
    UNIT_MM,
    MultiSourceDiscriminator,
    PoseBranch,
    SingleSourceDiscriminator,
    score_slope,
)


def sample(seed: int = 0, count: int = 4) -> tuple[Tensor, Tensor]:
    random = torch.Generator().manual_seed(seed)
    return torch.randn(count, 3, 32, 32, generator=random), 40 * torch.randn(count, 21, 3, generator=random)


@pytest.fixture(params=[MultiSourceDiscriminator, SingleSourceDiscriminator])
def discriminator(request: pytest.FixtureRequest) -> nn.Module:
    torch.manual_seed(0)
    return request.param(32)


def test_every_layer_has_spectral_norm_one(discriminator: nn.Module) -> None:
    image, pose = sample()
    layers = [m for m in discriminator.modules() if isinstance(m, nn.Linear | nn.Conv2d)]
    assert len(layers) >= 3
    with torch.no_grad():
        for layer in layers:  # as if trained away from where they began
            layer.parametrizations.weight.original.mul_(7)
    for _ in range(200):
        discriminator(image, pose)
    for layer in layers:
        largest = torch.linalg.matrix_norm(layer.weight.flatten(1), ord=2)
        assert largest.item() == pytest.approx(1, abs=0.02)
    plain = {name for name, _ in discriminator.named_parameters() if "parametrizations" not in name}
    assert all(name.endswith("bias") for name in plain)


def test_what_each_discriminator_looks_at() -> None:
    torch.manual_seed(0)
    image, pose = sample(1)
    other, _ = sample(2)
    multi, single = MultiSourceDiscriminator(32).eval(), SingleSourceDiscriminator(32).eval()
    assert multi(image, pose).shape == single(image, pose).shape == (4,)
    assert not torch.allclose(multi(image, pose), multi(other, pose))
    torch.testing.assert_close(single(image, pose), single(other, pose))
    for network in (multi, single):
        assert not torch.allclose(network(image, pose), network(image, pose.flip(-1)))


def test_pose_branch_is_graph_convolution_written_out() -> None:
    torch.manual_seed(0)
    branch = PoseBranch(8).eval()
    pose = np.random.default_rng(0).normal(size=(2, 21, 3)).astype(np.float32)
    looped = skeleton.adjacency(21, skeleton.BONES) + np.eye(21)
    scale = np.diag(looped.sum(1) ** -0.5)
    features = pose
    for layer in branch.layers:
        weight, bias = layer.weight.detach().numpy(), layer.bias.detach().numpy()
        features = scale @ looped @ scale @ (features @ weight.T + bias)
        features = np.where(features > 0, features, 0.1 * features)
    weight, bias = branch.gather.weight.detach().numpy(), branch.gather.bias.detach().numpy()
    features = features.reshape(2, -1) @ weight.T + bias
    expected = np.where(features > 0, features, 0.1 * features)
    np.testing.assert_allclose(branch(torch.from_numpy(pose)).detach(), expected, rtol=1e-4, atol=1e-6)


def test_slope_is_that_of_finite_differences_and_leaves_no_trace() -> None:
    torch.manual_seed(0)
    network = SingleSourceDiscriminator(16)
    image, pose = sample(3, count=1)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    slope = float(score_slope(network, image, pose, pose))
    assert network.training
    assert all(torch.equal(before[name], value) for name, value in network.state_dict().items())
    assert all(parameter.grad is None for parameter in network.parameters())
    network.eval().double()
    image, pose = image.double(), pose.double()
    columns = torch.eye(63, dtype=torch.double).reshape(63, 1, 21, 3) * 1e-3
    gradient = [(network(image, pose + d) - network(image, pose - d)).item() / 2e-3 for d in columns]
    assert slope == pytest.approx(UNIT_MM * np.linalg.norm(gradient), rel=1e-3)
    assert slope <= 1  # FC layers of norm one, leaky ReLUs: a slope of at most one per unit


def test_no_slope_exceeds_the_bound(discriminator: nn.Module) -> None:
    image, pose = sample(4)
    with torch.no_grad():
        for layer in discriminator.modules():
            if isinstance(layer, nn.Linear | nn.Conv2d):
                layer.bias.normal_()
                # All inputs pull the same way, which is what makes a slope steep.
                layer.parametrizations.weight.original.copy_(layer.parametrizations.weight.original.abs())
    for _ in range(200):
        discriminator(image, pose)  # the power iteration converges
    for scale in (0.1, 1.0, 10.0):
        steepest = score_slope(discriminator, image, scale * pose, scale * pose)
        bound = discriminator.slope_bound(scale * pose)
        assert bound.shape == (4,)
        assert 0.005 * bound.max() < steepest <= 1.001 * bound.max()


def test_bound_is_near_the_steepest_slope_of_the_kcs_matrix() -> None:
    pose = 40 * torch.randn(1, 21, 3, generator=torch.Generator().manual_seed(5), dtype=torch.double)
    slopes = torch.autograd.functional.jacobian(lambda p: kcs_matrix(p / UNIT_MM).flatten(), pose)
    steepest = UNIT_MM * torch.linalg.matrix_norm(slopes.reshape(400, 63), ord=2).item()
    bound = (MultiSourceDiscriminator(8).slope_bound(pose).item() ** 2 - 1) ** 0.5
    assert 0.7 * bound < steepest <= bound


def test_wasserstein_training_tells_true_from_false() -> None:
    """The critic's loss opens a gap between poses and scrambled ones, which unseen samples show too."""
    torch.manual_seed(0)
    network = MultiSourceDiscriminator(32)
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-3)
    spread = torch.linspace(0, 1, 21)[:, None] * torch.tensor([40.0, 80.0, 20.0])

    def gap(seed: int) -> Tensor:
        image, noise = sample(seed, count=16)
        true, false = spread + 0.05 * noise, spread.flip(0) + 0.05 * noise
        return network(image, true).mean() - network(image, false).mean()

    start = gap(1000).item()
    for seed in range(30):
        optimizer.zero_grad()
        (-gap(seed)).backward()
        optimizer.step()
    assert gap(1000).item() > start + 0.5
