"""Heat maps of keypoints: Gaussian targets, the squared error to them, and reading positions back.

A map of n cells a side covers a crop of S pixels a side: a cell is S/n pixels wide, so the centre of cell i
is at pixel (i + 0.5) S/n - 0.5. Positions outside are `uv`, 0 at the first pixel centre and 1 at the last.
"""

from collections.abc import Sequence
from math import pi
from typing import Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

Outside = Literal["empty", "ignore"]
Decode = Literal["argmax", "local"]


def cells_from_uv(uv: Float[Tensor, "*n 2"], cells: int, size: int) -> Float[Tensor, "*n 2"]:
    """`uv` of a crop of `size` pixels → map cells, 0 at the centre of the first of `cells`."""
    return (uv * (size - 1) + 0.5) * (cells / size) - 0.5


def uv_from_cells(position: Float[Tensor, "*n 2"], cells: int, size: int) -> Float[Tensor, "*n 2"]:
    """The inverse of `cells_from_uv`."""
    return ((position + 0.5) * (size / cells) - 0.5) / (size - 1)


def inside(uv: Float[Tensor, "*n 2"], size: int) -> Bool[Tensor, "*n"]:
    """Whether a point lies on the crop: within half a pixel of some pixel's centre."""
    margin = 0.5 / (size - 1)
    return ((uv >= -margin) & (uv <= 1 + margin)).all(dim=-1)


def gaussian_maps(
    uv: Float[Tensor, "b n 2"], known: Bool[Tensor, "b n"], cells: int, size: int, sigma: float = 1.0
) -> Float[Tensor, "b n h w"]:
    """The target maps: exp(-d²/2σ²) of the distance d to the keypoint, σ and d in cells, peak 1.

    The map of a keypoint that is unknown or outside the crop is zero everywhere.
    """
    there = known & inside(uv, size)
    position = cells_from_uv(torch.where(there[..., None], uv, 0.0), cells, size)
    grid = torch.arange(cells, dtype=uv.dtype, device=uv.device)
    # The Gaussian of two coordinates is the product of one of each.
    column, row = torch.exp((grid - position[..., None]).square() / (-2 * sigma**2)).unbind(dim=2)
    return row[..., :, None] * column[..., None, :] * there[..., None, None]


def supervised(
    uv: Float[Tensor, "b n 2"], known: Bool[Tensor, "b n"], size: int, outside: Outside = "empty"
) -> Bool[Tensor, "b n"]:
    """Which maps count in a loss: those of known keypoints; with "ignore" only those inside the crop.

    With "empty" a network learns to say that a keypoint is not in the picture.
    """
    return known if outside == "empty" else known & inside(uv, size)


def squared_error(
    maps: Sequence[Float[Tensor, "b n h w"]],
    uv: Float[Tensor, "b n 2"],
    known: Bool[Tensor, "b n"],
    size: int,
    sigma: float = 1.0,
    outside: Outside = "empty",
) -> Float[Tensor, ""]:
    """Squared Frobenius norm of maps minus targets, summed over stages and keypoints, mean over the batch.

    This is how the papers train (CPM's f_t, SIA-GCN's L1 and L2). `maps` holds one entry for each stage.
    """
    cells = maps[0].shape[-1]
    target = gaussian_maps(uv, known, cells, size, sigma)
    counts = supervised(uv, known, size, outside)[..., None, None]
    return torch.stack([((stage.float() - target).square() * counts).sum() for stage in maps]).sum() / len(uv)


def distributions(logits: Float[Tensor, "b n h w"], sigma: float = 1.0) -> Float[Tensor, "b n h w"]:
    """Softmax over each map's cells, times a Gaussian's sum, so that a sure map is the target with peak 1."""
    shape = logits.shape[-2:]
    return 2 * pi * sigma**2 * logits.float().flatten(2).softmax(dim=-1).unflatten(2, shape)


def cross_entropy(
    maps: Sequence[Float[Tensor, "b n h w"]],
    uv: Float[Tensor, "b n 2"],
    known: Bool[Tensor, "b n"],
    size: int,
    sigma: float = 1.0,
) -> Float[Tensor, ""]:
    """Cross-entropy of `distributions` to the targets, summed over stages and keypoints, mean over the batch.

    Ours, not the papers': it says where to look from the first step, where the squared error first has to
    find out that a map is not empty. Keypoints outside the crop do not count.
    """
    target = gaussian_maps(uv, known, maps[0].shape[-1], size, sigma)
    target = target / target.sum(dim=(-2, -1), keepdim=True).clamp(min=1e-6)
    # Maps that are no distributions may fall below zero; for those this number means nothing. No more is
    # added than float32 needs, so that a map that is surely wrong still learns.
    least = torch.finfo(torch.float32).tiny
    logs = [(stage.float() / (2 * pi * sigma**2)).clamp(min=least).log() for stage in maps]
    return torch.stack([-(target * log).sum() for log in logs]).sum() / len(uv)


def marginal_error(
    maps: Float[Tensor, "b n h w"],
    uv: Float[Tensor, "b n 2"],
    known: Bool[Tensor, "b n"],
    size: int,
    sigma: float = 1.0,
) -> Float[Tensor, ""]:
    """`squared_error` of distributions to the targets scaled to sum 1 (R-MGMN and AGMN: Eq. 3.26, 4.15).

    A distribution cannot say that a keypoint is not in the picture: those outside do not count.
    """
    target = gaussian_maps(uv, known, maps.shape[-1], size, sigma)
    target = target / target.sum(dim=(-2, -1), keepdim=True).clamp(min=1e-6)
    counts = supervised(uv, known, size, "ignore")[..., None, None]
    return ((maps.float() - target).square() * counts).sum() / len(uv)


def kernel_maps(
    uv: Float[Tensor, "b n 2"],
    known: Bool[Tensor, "b n"],
    edges: Sequence[tuple[int, int]],
    kernel_size: int,
    cells: int,
    size: int,
    sigma: float = 1.0,
) -> Float[Tensor, "b e k k"]:
    """For each (source, target) a Gaussian of peak 1, as far from the centre as the target from the source.

    In cells of a map of `cells` over a crop of `size` pixels. Zero where either keypoint is unknown.
    """
    sources, targets = torch.tensor(edges, device=uv.device).T
    both = known[:, sources] & known[:, targets]
    offset = torch.where(both[..., None], uv[:, targets] - uv[:, sources], 0.0) * ((size - 1) * cells / size)
    grid = torch.arange(kernel_size, dtype=uv.dtype, device=uv.device) - kernel_size // 2
    column, row = torch.exp((grid - offset[..., None]).square() / (-2 * sigma**2)).unbind(dim=2)
    return row[..., :, None] * column[..., None, :] * both[..., None, None]


def peak_cells(maps: Float[Tensor, "b n h w"]) -> Float[Tensor, "b n 2"]:
    """Column and row of each map's highest cell (the papers' decoding); the first one of equals."""
    width = maps.shape[-1]
    index = maps.flatten(2).argmax(dim=-1)
    return torch.stack([index % width, index // width], dim=-1).float()


def local_cells(maps: Float[Tensor, "b n h w"]) -> Float[Tensor, "b n 2"]:
    """Centre of mass, in cells, of the squares of what is above zero within a quarter map of the highest.

    Finer than a cell, and unlike a centre of mass over the whole map not drawn to a second peak far away.
    Targets are blurred, squares are not: they hold to the peak where it is sharp, and where a keypoint may be
    in several cells near one another, the answer lies among them.
    """
    maps = maps.float()
    peak, near = peak_cells(maps), window(maps, maps.shape[-1] // 4)
    highest = near.amax(dim=(-2, -1), keepdim=True)
    weight = (near / highest.clamp(min=torch.finfo(near.dtype).tiny)).square()
    total = weight.sum(dim=(-2, -1))  # at least 1 where anything is above zero
    x = torch.arange(maps.shape[-1], dtype=maps.dtype, device=maps.device)
    y = torch.arange(maps.shape[-2], dtype=maps.dtype, device=maps.device)
    moments = torch.stack([weight.sum(dim=-2) @ x, weight.sum(dim=-1) @ y], dim=-1)
    return torch.where((total > 0)[..., None], moments / total.clamp(min=1.0)[..., None], peak)


def window(maps: Float[Tensor, "b n h w"], radius: int) -> Float[Tensor, "b n h w"]:
    """The maps within `radius` cells (a square) of their highest cell; zero elsewhere and below zero."""
    column, row = peak_cells(maps)[..., None].unbind(dim=2)
    x = torch.arange(maps.shape[-1], dtype=column.dtype, device=maps.device)
    y = torch.arange(maps.shape[-2], dtype=column.dtype, device=maps.device)
    near = ((x - column).abs() <= radius)[..., None, :] & ((y - row).abs() <= radius)[..., :, None]
    return maps.clamp(min=0) * near


def keypoints_uv(
    maps: Float[Tensor, "b n h w"], size: int, decode: Decode = "argmax"
) -> Float[Tensor, "b n 2"]:
    """The keypoints of square maps over a crop of `size` pixels."""
    cells = peak_cells(maps) if decode == "argmax" else local_cells(maps)
    return uv_from_cells(cells, maps.shape[-1], size)


def peak_mass(maps: Float[Tensor, "b n h w"], radius: int = 2) -> Float[Tensor, "b n"]:
    """The share of each map's sum that lies within `radius` cells of its highest one, in [0, 1].

    For maps that are distributions (marginals) this is the probability that the keypoint is there.
    """
    maps = maps.float().clamp(min=0)
    return window(maps, radius).sum(dim=(-2, -1)) / maps.sum(dim=(-2, -1)).clamp(min=1e-12)


class PeakConfidence(nn.Module):
    """Confidence of a keypoint from how high its map's peak is, where maps are trained towards peaks of 1.

    A network in doubt between places spreads its answer, and every place gets less. The logistic curve from
    height to probability has two numbers, which `tools/calibrate_keypoints.py` fits once the weights are
    trained; they are stored with the weights. Before that they are a guess.
    """

    curve: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("curve", torch.tensor([-3.0, 6.0]))

    def forward(self, maps: Float[Tensor, "b n h w"]) -> Float[Tensor, "b n"]:
        offset, slope = self.curve.unbind()
        return torch.sigmoid(offset + slope * maps.float().amax(dim=(-2, -1)))


class MassConfidence(PeakConfidence):
    """Confidence of a keypoint from a marginal: the probability mass around its peak (`peak_mass`).

    The logistic curve is over the mass's log-odds, and says the mass itself until it is fitted.
    """

    def __init__(self) -> None:
        super().__init__()
        self.curve.copy_(torch.tensor([0.0, 1.0]))

    def forward(self, maps: Float[Tensor, "b n h w"]) -> Float[Tensor, "b n"]:
        offset, slope = self.curve.unbind()
        return torch.sigmoid(offset + slope * peak_mass(maps).logit(eps=1e-6))
