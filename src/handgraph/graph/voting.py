"""Pixels and joints speak to each other through one set of weights (JGR-P2O, Fang et al. 2020).

Feature maps are read as tokens, (b, pixels, channels), pixels in row-major order. For a channels-last map
this is a view, and every sum over pixels becomes one batched matrix product. Weights are (b, joints, pixels).
"""

import torch
from jaxtyping import Float
from torch import Tensor


def tokens(feature_map: Float[Tensor, "b c h w"]) -> Float[Tensor, "b p c"]:
    """A feature map as a sequence of its pixels."""
    return feature_map.flatten(2).transpose(1, 2)


def feature_map(
    pixel_tokens: Float[Tensor, "b p c"], height: int, width: int
) -> Float[Tensor, "b c {height} {width}"]:
    """The inverse of `tokens`."""
    return pixel_tokens.transpose(1, 2).unflatten(2, (height, width))


def voting_weights(logits: Float[Tensor, "b n h w"]) -> Float[Tensor, "b n p"]:
    """Spatial softmax Φ of Eq. 1: each joint's weights over the pixels sum to one. Always in float32."""
    return logits.flatten(2).float().softmax(dim=-1)


def pixel_to_joint(
    weights: Float[Tensor, "b n p"], features: Float[Tensor, "b p c"]
) -> Float[Tensor, "b n c"]:
    """Eq. 2: f_k = Σ_i w_ki x_i, the joint's feature as the weighted mean of the pixels'."""
    return torch.bmm(weights.to(features.dtype), features)


def joint_to_pixel(
    weights: Float[Tensor, "b n p"], features: Float[Tensor, "b n c"]
) -> Float[Tensor, "b p c"]:
    """The mean in Eq. 4: c_i = 1/N Σ_k w_ki f_k, the same weights used the other way round (before ρ)."""
    return torch.bmm(weights.to(features.dtype).transpose(1, 2), features) / features.shape[1]


def aggregate_offsets(
    weights: Float[Tensor, "b n p"],
    offsets: Float[Tensor, "b n 3 p"],
    pixels_uvz: Float[Tensor, "b 3 p"],
) -> Float[Tensor, "b n 3"]:
    """Eq. 6: the joint is the weighted mean of what the pixels say: Σ_i w_ki (p_i + Δ_ki), in uvz.

    Written as a product and a sum, not as a matrix product: autocast would round the latter to bfloat16,
    whose 8 bits are a few millimetres in a hand's cube.
    """
    return (weights[:, :, None] * (offsets + pixels_uvz[:, None])).sum(dim=-1)


def pixel_uvz(depth: Float[Tensor, "b 1 h w"]) -> Float[Tensor, "b 3 h w"]:
    """The pixels' own coordinates: u, v in [0, 1] from the first pixel centre to the last, z as given."""
    batch, _, height, width = depth.shape
    u = torch.arange(width, device=depth.device, dtype=depth.dtype) / (width - 1)
    v = torch.arange(height, device=depth.device, dtype=depth.dtype) / (height - 1)
    return torch.cat(
        [
            u[None, None, None, :].expand(batch, 1, height, width),
            v[None, None, :, None].expand(batch, 1, height, width),
            depth,
        ],
        dim=1,
    )
