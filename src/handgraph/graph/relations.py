"""Which joints belong together, pose by pose (Kourbane & Genc 2021, Algorithms 1-4).

Space is cut into blocks; a joint's class is its block. Two joints are related where their classes agree, or
where they are near each other. Blocks are closed on both ends and the lowest index counts, so a joint on a
border belongs to the lower block. Index order is x-major: `ix * n + iy` and `(ix * k + iy) * k + iz`.
"""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor


def relations(scores: Float[Tensor, "b n c"]) -> Float[Tensor, "b n n"]:
    """Algorithm 1: R_ij = 1 where joints i and j have the same most probable class, else 0.

    The softmax of the paper's line 3 does not change which class that is. No gradient passes.
    """
    labels = scores.argmax(dim=-1)
    return (labels[:, :, None] == labels[:, None, :]).to(scores.dtype)


def classes_2d(points_px: Float[Tensor, "b n 2"], splits: int, size: int) -> Int[Tensor, "b n"]:
    """Algorithm 3: each point's block of an image of `size` × `size` pixels cut into splits × splits.

    A block is `int(size / splits)` pixels wide; a point outside belongs to the nearest block. (The paper's
    argmax over no block would give class 0, in the corner, whichever side the point left the image by.)
    """
    inner = torch.arange(1, splits, device=points_px.device) * (size // splits)
    column, row = (points_px[..., None] > inner).sum(dim=-1).unbind(dim=-1)
    return column * splits + row


def classes_3d(
    points: Float[Tensor, "b n 3"], splits: int, known: Bool[Tensor, "b n"] | None = None
) -> Int[Tensor, "b n"]:
    """Algorithm 4: each point's block of its own pose's bounding box cut into splits × splits × splits.

    `known` leaves points out of the bounding box; their classes mean nothing.
    """
    # In double precision, since the edges are computed and a joint lies exactly on the box's sides.
    points = points.double()
    low, step = _box(points, splits, known)
    inner = low[..., None] + torch.arange(1, splits, device=points.device) * step[..., None]
    ix, iy, iz = (points[..., None] > inner[:, None]).sum(dim=-1).unbind(dim=-1)
    return (ix * splits + iy) * splits + iz


def overlapped_2d(points_px: Float[Tensor, "b n 2"], splits: int, size: int) -> Bool[Tensor, "b n c"]:
    """Section 3.3's overlapped blocks: as wide as Algorithm 3's, but one begins at every half block.

    There are 2 · splits - 1 along each axis, and a point is in one or two of them (in three on a border):
    the answer says in which, over all (2 · splits - 1)² blocks. A point outside is moved to the edge first.
    """
    block = size // splits
    starts = torch.arange(2 * splits - 1, device=points_px.device) * (block / 2)
    inside = points_px.clamp(0, splits * block)[..., None]
    x, y = ((starts <= inside) & (inside <= starts + block)).unbind(dim=-2)
    return (x[..., :, None] & y[..., None, :]).flatten(2)


def overlapped_3d(
    points: Float[Tensor, "b n 3"], splits: int, known: Bool[Tensor, "b n"] | None = None
) -> Bool[Tensor, "b n c"]:
    """`overlapped_2d` for the pose's own bounding box (see `classes_3d`): (2 · splits - 1)³ blocks."""
    points = points.double()
    low, step = _box(points, splits, known)
    # From half blocks counted by whole numbers: computed as start + length, one side's end and the next
    # but one's start could miss each other by a rounding.
    ends = low[..., None] + torch.arange(2 * splits + 1, device=points.device) * (step[..., None] / 2)
    ends = ends[:, None]
    inside = torch.minimum(torch.maximum(points[..., None], ends[..., :1]), ends[..., -1:])
    x, y, z = ((ends[..., :-2] <= inside) & (inside <= ends[..., 2:])).unbind(dim=-2)
    return (x[..., :, None, None] & y[..., None, :, None] & z[..., None, None, :]).flatten(2)


def mean_square_distances(points: Float[Tensor, "b n 3"]) -> Float[Tensor, "b n n"]:
    """The distance of Algorithm 2, line 6: the mean over the three coordinates of the squared difference."""
    return (points[:, :, None] - points[:, None, :]).square().mean(dim=-1)


def adaptive_neighbours(
    distances: Float[Tensor, "b n n"], threshold: Float[Tensor, ""], softness: float
) -> Float[Tensor, "b n n"]:
    """Algorithm 2, line 10: 1 where the distance is at most the threshold θ, else 0.

    The step has no gradient. So θ learns through that of sigmoid((θ - D) / softness), which is what the
    step would be if it were a slope `softness` wide (straight-through). A joint stays its own neighbour even
    where θ falls below zero: with no neighbour at all nothing would be left to learn from.
    """
    hard = (distances <= threshold.clamp(min=0)).to(distances.dtype)
    soft = torch.sigmoid((threshold - distances) / softness)
    return hard + (soft - soft.detach())


def nearest_neighbours(distances: Float[Tensor, "b n n"], count: int) -> Float[Tensor, "b n n"]:
    """What ANN is compared with: row i is 1 at joint i itself and at the `count` nearest others."""
    # No distance is below zero: so a joint is its own nearest even where another lies on top of it.
    itself = torch.eye(distances.shape[-1], dtype=distances.dtype, device=distances.device)
    nearest = (distances - itself).topk(count + 1, dim=-1, largest=False).indices
    return torch.zeros_like(distances).scatter(-1, nearest, 1.0)


def _box(
    points: Float[Tensor, "b n 3"], splits: int, known: Bool[Tensor, "b n"] | None
) -> tuple[Float[Tensor, "b 3"], Float[Tensor, "b 3"]]:
    """The corner of each pose's bounding box, and a block's sides."""
    low, high = points, points
    if known is not None:
        low = torch.where(known[..., None], points, torch.inf)
        high = torch.where(known[..., None], points, -torch.inf)
    corner = low.amin(dim=1)
    return corner, (high.amax(dim=1) - corner) / splits
