"""Linear blend skinning on the processor, for models whose vertices follow few joints each.

Compiled with numba and free of the GIL. A vertex is moved by its own joints one by one, so neither the zeros
of the weights nor blended transforms, four times the size of the mesh, ever pass through memory. Matrix
products over all 16 joints, the way to do it in plain torch, take twice the time.
"""

import itertools
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple, no_type_check

import numba as nb
import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

_LANES = 64  # hands worked on side by side, by vector instructions: their transforms stay in a core's cache
_SHARE = 64  # the fewest hands worth a thread of their own


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
    """Every vertex moved by the weighted mean of its joints' transforms; float32 or float64.

    Fastest where the memory of `rest` is laid out with the hands innermost, as (3, V, n).
    """
    n, _, size = rest.shape
    vertices = rest.new_empty(n, size, 3)
    _in_threads(_skin, n, *weights, _hands_last(transforms), _hands_last(rest), vertices)
    return vertices


def skin_gradient(
    weights: SparseWeights,
    transforms: Float[Tensor, "n J 3 4"],
    rest: Float[Tensor, "n 3 V"],
    by_vertices: Float[Tensor, "n V 3"],
) -> tuple[Float[Tensor, "n J 3 4"], Float[Tensor, "n 3 V"]]:
    """The gradient of `skin` by `transforms` and by `rest`, from that by the vertices."""
    transforms, rest = _hands_last(transforms), _hands_last(rest)
    by_transforms, by_rest = torch.zeros_like(transforms), torch.zeros_like(rest)
    given = *weights, transforms, rest, by_vertices.contiguous()
    _in_threads(_skin_gradient, len(by_vertices), *given, by_transforms, by_rest)
    return by_transforms.permute(3, 0, 1, 2), by_rest.permute(2, 0, 1)


def _hands_last(x: Tensor) -> Tensor:
    return x.movedim(0, -1).contiguous()


def _in_threads(kernel: Callable[..., None], n: int, *tensors: Tensor) -> None:
    """Run a kernel on the n hands, by as many threads as torch would use, each with its share of the hands.

    Threads live for one call: torch's own cannot be lent, and a lasting pool would not survive a fork.
    """
    arrays = [x.numpy() for x in tensors]
    threads = min(torch.get_num_threads(), n // _SHARE)
    if threads <= 1:
        kernel(0, n, *arrays)
        return
    bounds = [n * i // threads for i in range(threads + 1)]
    with ThreadPoolExecutor(threads) as pool:
        shares = [pool.submit(kernel, start, end, *arrays) for start, end in itertools.pairwise(bounds)]
        for share in shares:
            share.result()


# Run-time type checkers must leave alone what numba compiles.
@nb.njit(nogil=True, cache=True, fastmath={"contract"})
@no_type_check
def _skin(
    begin: int,
    end: int,
    first: np.ndarray,
    joint: np.ndarray,
    weight: np.ndarray,
    transforms: np.ndarray,
    rest: np.ndarray,
    vertices: np.ndarray,
) -> None:
    moved = np.empty((3, _LANES), rest.dtype)
    for start in range(begin, end, _LANES):
        n = min(_LANES, end - start)
        part = slice(start, start + n)
        for v in range(len(first) - 1):
            moved[:] = 0
            x, y, z = rest[0, v][part], rest[1, v][part], rest[2, v][part]
            for k in range(first[v], first[v + 1]):
                t, w = transforms[joint[k]], weight[k]
                for row in range(3):
                    # One-dimensional slices, which the compiler knows to be contiguous.
                    by_x, by_y, by_z = t[row, 0][part], t[row, 1][part], t[row, 2][part]
                    shift, sum_ = t[row, 3][part], moved[row]
                    for i in range(n):
                        sum_[i] += w * (by_x[i] * x[i] + by_y[i] * y[i] + by_z[i] * z[i] + shift[i])
            out = vertices[start : start + n, v]
            for i in range(n):
                for row in range(3):
                    out[i, row] = moved[row, i]


@nb.njit(nogil=True, cache=True, fastmath={"contract"})
@no_type_check
def _skin_gradient(
    begin: int,
    end: int,
    first: np.ndarray,
    joint: np.ndarray,
    weight: np.ndarray,
    transforms: np.ndarray,
    rest: np.ndarray,
    by_vertices: np.ndarray,
    by_transforms: np.ndarray,
    by_rest: np.ndarray,
) -> None:
    by_moved = np.empty((3, _LANES), rest.dtype)
    for start in range(begin, end, _LANES):
        n = min(_LANES, end - start)
        part = slice(start, start + n)
        for v in range(len(first) - 1):
            given = by_vertices[start : start + n, v]
            for i in range(n):
                for row in range(3):
                    by_moved[row, i] = given[i, row]
            for k in range(first[v], first[v + 1]):
                t, by_t, w = transforms[joint[k]], by_transforms[joint[k]], weight[k]
                for row in range(3):
                    by_row, by_shift = by_moved[row], by_t[row, 3][part]
                    for i in range(n):
                        by_shift[i] += w * by_row[i]
                    for column in range(3):
                        x, by_x = rest[column, v][part], by_rest[column, v][part]
                        factor, by_factor = t[row, column][part], by_t[row, column][part]
                        for i in range(n):
                            by_x[i] += w * factor[i] * by_row[i]
                            by_factor[i] += w * x[i] * by_row[i]
