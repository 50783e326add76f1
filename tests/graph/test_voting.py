import pytest
import torch

from handgraph.graph.voting import (
    aggregate_offsets,
    feature_map,
    joint_to_pixel,
    pixel_to_joint,
    pixel_uvz,
    tokens,
    voting_weights,
)

B, N, H, W, C = 2, 3, 2, 4, 5
P = H * W


@pytest.fixture
def weights() -> torch.Tensor:
    torch.manual_seed(0)
    return voting_weights(torch.randn(B, N, H, W))


def test_weights_are_a_softmax_over_the_pixels() -> None:
    torch.manual_seed(0)
    logits = torch.randn(B, N, H, W)
    weights = voting_weights(logits)
    assert torch.allclose(weights.sum(-1), torch.ones(B, N))
    assert weights[1, 2, 1 * W + 3] == pytest.approx(
        float(logits[1, 2, 1, 3].exp() / logits[1, 2].exp().sum()), rel=1e-5
    )


def test_weights_of_bfloat16_logits_still_sum_to_one() -> None:
    weights = voting_weights(torch.randn(B, N, 24, 24).bfloat16())
    assert weights.dtype == torch.float32
    assert torch.allclose(weights.sum(-1), torch.ones(B, N), atol=1e-6)


def test_tokens_are_row_major_pixels_and_come_back() -> None:
    features = torch.randn(B, C, H, W)
    assert torch.equal(tokens(features)[:, 1 * W + 2], features[:, :, 1, 2])
    assert torch.equal(feature_map(tokens(features), H, W), features)


def test_tokens_of_a_channels_last_map_are_a_view() -> None:
    features = torch.randn(B, C, H, W).contiguous(memory_format=torch.channels_last)
    assert tokens(features).is_contiguous()
    assert tokens(features).data_ptr() == features.data_ptr()


def test_pixel_to_joint_is_equation_2(weights: torch.Tensor) -> None:
    features = torch.randn(B, P, C)
    joints = pixel_to_joint(weights, features)
    for b in range(B):
        for k in range(N):
            expected = sum(weights[b, k, i] * features[b, i] for i in range(P))
            assert torch.allclose(joints[b, k], expected, atol=1e-6)


def test_joint_to_pixel_is_equation_4(weights: torch.Tensor) -> None:
    joints = torch.randn(B, N, C)
    context = joint_to_pixel(weights, joints)
    for b in range(B):
        for i in range(P):
            expected = sum(weights[b, k, i] * joints[b, k] for k in range(N)) / N
            assert torch.allclose(context[b, i], expected, atol=1e-6)


def test_mapping_back_is_voting_transposed(weights: torch.Tensor) -> None:
    """<W x, f> = <x, Wᵀ f>: both directions use the same weights."""
    features, joints = torch.randn(B, P, C), torch.randn(B, N, C)
    there = (pixel_to_joint(weights, features) * joints).sum()
    back = (features * joint_to_pixel(weights, joints)).sum() * N
    assert torch.allclose(there, back, rtol=1e-4)


def test_aggregate_offsets_is_equation_6(weights: torch.Tensor) -> None:
    offsets, pixels = torch.randn(B, N, 3, P), torch.randn(B, 3, P)
    uvz = aggregate_offsets(weights, offsets, pixels)
    for b in range(B):
        for k in range(N):
            for c in range(3):
                expected = sum(weights[b, k, i] * (pixels[b, c, i] + offsets[b, k, c, i]) for i in range(P))
                assert uvz[b, k, c].item() == pytest.approx(float(expected), abs=1e-5)


def test_offsets_that_point_at_a_joint_find_it_whatever_the_weights(weights: torch.Tensor) -> None:
    joint, pixels = torch.rand(B, N, 3), torch.randn(B, 3, P)
    offsets = joint[..., None] - pixels[:, None]
    assert torch.allclose(aggregate_offsets(weights, offsets, pixels), joint, atol=1e-6)


def test_aggregate_offsets_is_exact_under_autocast(weights: torch.Tensor) -> None:
    offsets, pixels = torch.randn(B, N, 3, P), torch.randn(B, 3, P)
    with torch.autocast("cpu", torch.bfloat16):
        uvz = aggregate_offsets(weights, offsets, pixels)
    assert torch.equal(uvz, aggregate_offsets(weights, offsets, pixels))


def test_pixels_own_coordinates_run_from_the_first_pixel_centre_to_the_last() -> None:
    depth = torch.randn(B, 1, H, W)
    pixels = pixel_uvz(depth)
    assert pixels[1, :, 0, 0].tolist() == [0.0, 0.0, depth[1, 0, 0, 0].item()]
    assert pixels[0, :, H - 1, W - 1].tolist() == [1.0, 1.0, depth[0, 0, H - 1, W - 1].item()]
    assert pixels[0, 0, 0, 1].item() == pytest.approx(1 / (W - 1))  # u runs along a row, v down a column
    assert pixels[0, 1, 1, 0].item() == pytest.approx(1 / (H - 1))
