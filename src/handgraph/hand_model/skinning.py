"""Linear blend skinning on the processor, for models whose vertices follow few joints each.

Compiled with numba and free of the GIL. A vertex is moved by its own joints one by one, so neither the zeros
of the weights nor blended transforms, four times the size of the mesh, ever pass through memory. Matrix
products over all 16 joints, the way to do it in plain torch, take twice the time.
"""

import itertools
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numba as nb
import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

_SHARE = 48  # the fewest hands worth a thread of their own: starting one takes as long as skinning ten


class SparseWeights(NamedTuple):
    """Skinning weights without their zeros: vertex v has the entries first[v]…first[v + 1] of the others."""

    first: Tensor
    joint: Tensor
    weight: Tensor


def skin(
    weights: SparseWeights,
    transforms: Float[Tensor, "n J 3 4"],
    rest: Float[Tensor, "n 3 V"],
) -> Float[Tensor, "n V 3"]:
    """Every vertex moved by the weighted mean of its joints' transforms; float32 or float64."""
    vertices = rest.new_empty(rest.shape[0], rest.shape[2], 3)
    _in_threads(_skin, weights, transforms, rest, vertices)
    return vertices


def skin_gradient(
    weights: SparseWeights,
    transforms: Float[Tensor, "n J 3 4"],
    rest: Float[Tensor, "n 3 V"],
    by_vertices: Float[Tensor, "n V 3"],
) -> tuple[Float[Tensor, "n J 3 4"], Float[Tensor, "n 3 V"]]:
    """The gradient of `skin` by `transforms` and by `rest`, from that by the vertices."""
    by_transforms = transforms.new_zeros(transforms.shape)
    by_rest = rest.new_empty(rest.shape)
    _in_threads(_skin_gradient, weights, transforms, rest, by_vertices, by_transforms, by_rest)
    return by_transforms, by_rest


def _in_threads(kernel: Callable[..., None], weights: SparseWeights, *by_hand: Tensor) -> None:
    """Run a kernel on the arrays of all hands, whose shares torch's number of threads work on at once.

    Threads live for one call: torch's own cannot be lent, and a lasting pool would not survive a fork.
    """
    fixed = [x.numpy() for x in weights]
    arrays = [x.contiguous().numpy() for x in by_hand]
    n = len(arrays[0])
    threads = min(torch.get_num_threads(), n // _SHARE)
    if threads <= 1:
        kernel(*fixed, *arrays)
        return
    bounds = [n * i // threads for i in range(threads + 1)]
    with ThreadPoolExecutor(threads) as pool:
        shares = [
            pool.submit(kernel, *fixed, *(x[start:end] for x in arrays))
            for start, end in itertools.pairwise(bounds)
        ]
        for share in shares:
            share.result()


@nb.njit(nogil=True, cache=True, fastmath={"contract"})
def _skin(
    first: np.ndarray,
    joint: np.ndarray,
    weight: np.ndarray,
    transforms: np.ndarray,
    rest: np.ndarray,
    vertices: np.ndarray,
) -> None:
    for hand in range(len(rest)):
        t = transforms[hand]
        for v in range(len(first) - 1):
            x, y, z = rest[hand, 0, v], rest[hand, 1, v], rest[hand, 2, v]
            to_x = to_y = to_z = rest.dtype.type(0)
            for k in range(first[v], first[v + 1]):
                j, w = joint[k], weight[k]
                to_x += w * (t[j, 0, 0] * x + t[j, 0, 1] * y + t[j, 0, 2] * z + t[j, 0, 3])
                to_y += w * (t[j, 1, 0] * x + t[j, 1, 1] * y + t[j, 1, 2] * z + t[j, 1, 3])
                to_z += w * (t[j, 2, 0] * x + t[j, 2, 1] * y + t[j, 2, 2] * z + t[j, 2, 3])
            vertices[hand, v, 0], vertices[hand, v, 1], vertices[hand, v, 2] = to_x, to_y, to_z


@nb.njit(nogil=True, cache=True, fastmath={"contract"})
def _skin_gradient(
    first: np.ndarray,
    joint: np.ndarray,
    weight: np.ndarray,
    transforms: np.ndarray,
    rest: np.ndarray,
    by_vertices: np.ndarray,
    by_transforms: np.ndarray,
    by_rest: np.ndarray,
) -> None:
    for hand in range(len(rest)):
        t, by_t = transforms[hand], by_transforms[hand]
        for v in range(len(first) - 1):
            x, y, z = rest[hand, 0, v], rest[hand, 1, v], rest[hand, 2, v]
            by_x = by_y = by_z = rest.dtype.type(0)
            for k in range(first[v], first[v + 1]):
                j, w = joint[k], weight[k]
                for row in range(3):
                    by_row = w * by_vertices[hand, v, row]
                    by_x += t[j, row, 0] * by_row
                    by_y += t[j, row, 1] * by_row
                    by_z += t[j, row, 2] * by_row
                    by_t[j, row, 0] += by_row * x
                    by_t[j, row, 1] += by_row * y
                    by_t[j, row, 2] += by_row * z
                    by_t[j, row, 3] += by_row
            by_rest[hand, 0, v], by_rest[hand, 1, v], by_rest[hand, 2, v] = by_x, by_y, by_z
