"""Convolution of maps with kernels as large as they are, through the Fourier transform.

A message of belief propagation and an edge of SIA-GCN both convolve a map with a kernel of about its own
size, 'same' size out, zeros beyond the border. Directly that costs h·w·k² products a map; through spectra it
costs one product a frequency, and what several edges bring to one node is added up before coming back.

`SameConvolution` has two forms of the same transform: `torch.fft`, and products with real cosine and sine
matrices, which every exporter understands. Spectra of the first are complex; those of the second carry real
and imaginary part in the third last dimension. `product` multiplies either.
"""

from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Complex, Float
from torch import Tensor
from torch.nn.functional import conv2d, pad

from handgraph.errors import ConfigError

Method = Literal["fft", "direct"]


def check_kernel_size(kernel_size: int) -> None:
    """Raises `ConfigError` unless the kernel has a centre cell."""
    if kernel_size < 1 or kernel_size % 2 == 0:
        raise ConfigError(f"kernel_size is {kernel_size}, expected an odd number: a kernel has a centre")


def direct_same(maps: Float[Tensor, "*b h w"], kernels: Float[Tensor, "*k s s"]) -> Float[Tensor, "*o h w"]:
    """Convolution by the sum itself: y(p) = Σ_q x(p - q) k(q), q counted from the kernel's centre.

    Leading dimensions broadcast. The reference for `SameConvolution`, and the better way for small kernels.
    """
    lead = torch.broadcast_shapes(maps.shape[:-2], kernels.shape[:-2])
    x = maps.expand(*lead, *maps.shape[-2:]).reshape(1, -1, *maps.shape[-2:])
    k = kernels.expand(*lead, *kernels.shape[-2:]).reshape(-1, 1, *kernels.shape[-2:])
    # conv2d correlates: a convolution is a correlation with the kernel turned by half a turn.
    y = conv2d(x, k.flip(-2, -1), padding=kernels.shape[-1] // 2, groups=len(k))
    return y.reshape(*lead, *maps.shape[-2:])


def transform_size(cells: int, reach: int) -> int:
    """Side of the transform for maps of `cells` and kernels that reach `reach` cells from their centre.

    `cells + reach` suffices: what wraps around falls outside the cells that are kept. From there on the next
    multiple of 8 with no prime factor above 7, where the transform is fast (46 cells, reach 22: 72, not 91).
    """
    size = -(-(cells + reach) // 8) * 8
    while True:
        rest = size
        for factor in (2, 3, 5, 7):
            while rest % factor == 0:
                rest //= factor
        if rest == 1:
            return size
        size += 8


class Room:
    """Zeros around maps, kept while transforms of the same shape follow one another.

    Only the maps' own cells are written again: for few small maps clearing the rest takes as long as a
    transform. For one call of a function, not for longer.
    """

    def __init__(self) -> None:
        self._zeros: dict[object, Tensor] = {}

    def zeros(
        self, shape: tuple[int, ...], corner: tuple[int, int], dtype: torch.dtype, device: torch.device
    ) -> Tensor:
        """Zero wherever no map with its first cell at this corner was written."""
        key = (shape, corner, dtype)
        if key not in self._zeros:
            self._zeros[key] = torch.zeros(shape, dtype=dtype, device=device)
        return self._zeros[key]


def exporting() -> bool:
    """Whether this call is being traced, exported or compiled: then no complex numbers may appear."""
    return torch.jit.is_tracing() or torch.compiler.is_compiling()


@dataclass(frozen=True)
class SameConvolution:
    """'Same' convolution of (height, width) maps with square kernels of odd size, step by step.

    `maps_from(product(spectrum(x), kernel_spectrum(k)))` equals `direct_same(x, k)`. A sum of products may be
    formed before `maps_from`. Everything is differentiable once.
    """

    height: int
    width: int
    kernel_size: int
    matrices: bool = False
    """Real matrix products instead of `torch.fft`."""

    def __post_init__(self) -> None:
        check_kernel_size(self.kernel_size)

    @cached_property
    def reach(self) -> int:
        """Cells from the kernel's centre that matter: farther ones never meet the map."""
        return min(self.kernel_size // 2, max(self.height, self.width) - 1)

    @cached_property
    def size(self) -> tuple[int, int]:
        """Rows and columns of the transform, in which a kernel has room too."""
        rows, columns = (max(cells, self.reach + 1) for cells in (self.height, self.width))
        return transform_size(rows, self.reach), transform_size(columns, self.reach)

    def spectrum(
        self, maps: Float[Tensor, "*b h w"], dtype: torch.dtype | None = None, room: Room | None = None
    ) -> Tensor:
        """Spectra of maps, or of kernels already cut to what matters; `dtype` is that of the transform."""
        if self.matrices:
            return _matrix_spectrum(maps.to(dtype or maps.dtype), self.size)
        if not (maps.requires_grad and torch.is_grad_enabled()):
            # A tenth faster than through a Function that keeps nothing.
            return _transform(maps, self.size, dtype=dtype, room=room)
        maps = maps.to(dtype or maps.dtype)
        spectra: Tensor = _Spectrum.apply(maps, self.size)
        return spectra

    def kernel_spectrum(
        self, kernels: Float[Tensor, "*b k k"], dtype: torch.dtype | None = None, room: Room | None = None
    ) -> Tensor:
        """Spectra of kernels."""
        if kernels.shape[-2:] != (self.kernel_size, self.kernel_size):
            raise ConfigError(
                f"kernels are {tuple(kernels.shape[-2:])}, expected {self.kernel_size} × {self.kernel_size}"
            )
        cut = self.kernel_size // 2 - self.reach
        inner = kernels[..., cut : self.kernel_size - cut, cut : self.kernel_size - cut]
        return self.spectrum(inner, dtype, room)

    def maps_from(self, spectra: Tensor) -> Float[Tensor, "*b h w"]:
        """The convolved maps from their spectra."""
        # A kernel's spectrum counts from its corner, so the maps come out moved by the kernel's reach.
        window = (self.reach, self.reach, self.height, self.width)
        if self.matrices:
            return _matrix_maps(spectra, self.size, window)
        if not (spectra.requires_grad and torch.is_grad_enabled()):
            return _inverse(spectra, self.size, window)
        maps: Tensor = _Maps.apply(spectra, self.size, window)
        return maps

    def gradient_kernels(self, to_spectra: Complex[Tensor, "*b g f"]) -> Float[Tensor, "*b k k"]:
        """`kernel_spectrum`'s transpose, for backward passes written by hand; complex spectra only.

        Gradients of spectra are those of `_Spectrum`, not PyTorch's.
        """
        side = 2 * self.reach + 1
        inner = _inverse(to_spectra, self.size, (0, 0, side, side))
        return pad(inner, [self.kernel_size // 2 - self.reach] * 4)


def product(a: Tensor, b: Tensor, *, overwrite: bool = False) -> Tensor:
    """Product of two spectra of the same form, leading dimensions broadcast.

    `overwrite`: complex spectra may be written over `a`, if only it is large enough. The time of many small
    products and transforms is that of the memory they go through.
    """
    if a.is_complex():
        fits = overwrite and torch.broadcast_shapes(a.shape, b.shape) == a.shape
        return a.mul_(b) if fits else a * b
    real = a[..., 0, :, :] * b[..., 0, :, :] - a[..., 1, :, :] * b[..., 1, :, :]
    imaginary = a[..., 0, :, :] * b[..., 1, :, :] + a[..., 1, :, :] * b[..., 0, :, :]
    return torch.stack([real, imaginary], dim=-3)


def summed_to(gradient: Tensor, shape: torch.Size) -> Tensor:
    """The gradient of what was broadcast from `shape`."""
    # sum_to_size adds up even where there is one of each, which takes as long as a product.
    return gradient.reshape(shape) if gradient.numel() == shape.numel() else gradient.sum_to_size(shape)


class _Spectrum(torch.autograd.Function):
    """The transform of maps with zeros appended. Its gradient is, here, the transform of a map's gradient.

    This differs from PyTorch's own convention by a factor for each frequency (the half spectrum holds most
    frequencies once for two). Products, sums and reorderings of maps keep such a factor, and `_Maps` takes it
    away again, so between the two it never needs to be applied; PyTorch's own backward of rfft2 would
    transform the full complex square.
    """

    @staticmethod
    def forward(ctx: Any, maps: Float[Tensor, "*b h w"], size: tuple[int, int]) -> Complex[Tensor, "*b g f"]:
        ctx.size, ctx.shape = size, maps.shape
        return _transform(maps, size)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return _inverse(gradient, ctx.size, (0, 0, *ctx.shape[-2:])), None


class _Maps(torch.autograd.Function):
    """The inverse transform, of which a window is kept; the counterpart of `_Spectrum`."""

    @staticmethod
    def forward(
        ctx: Any,
        spectra: Complex[Tensor, "*b g f"],
        size: tuple[int, int],
        window: tuple[int, int, int, int],
    ) -> Float[Tensor, "*b h w"]:
        ctx.size, ctx.window = size, window
        return _inverse(spectra, size, window)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        return _transform(gradient, ctx.size, ctx.window[:2]), None, None


# One dimension after the other, each time the last one in memory, and only rows that hold or keep something:
# a half to two thirds of the time of rfft2 and irfft2 here. So spectra have the columns' frequencies first.


def _transform(
    maps: Float[Tensor, "*b h w"],
    size: tuple[int, int],
    corner: tuple[int, int] = (0, 0),
    dtype: torch.dtype | None = None,
    room: Room | None = None,
) -> Complex[Tensor, "*b g f"]:
    """Of maps among zeros with their first cell at `corner`."""
    room = room or Room()
    (*lead, height, width), (top, left) = maps.shape, corner
    wide = room.zeros((*lead, height, size[1]), corner, dtype or maps.dtype, maps.device)
    wide[..., left : left + width] = maps
    rows = torch.fft.rfft(wide)
    columns = room.zeros((*lead, rows.shape[-1], size[0]), (top, height), rows.dtype, maps.device)
    columns[..., top : top + height] = rows.transpose(-1, -2)
    return torch.fft.fft(columns)


def _inverse(
    spectra: Complex[Tensor, "*b g f"], size: tuple[int, int], window: tuple[int, int, int, int]
) -> Float[Tensor, "*b h w"]:
    top, left, height, width = window
    rows = torch.fft.ifft(spectra)[..., top : top + height].transpose(-1, -2)
    return torch.fft.irfft(rows, n=size[1])[..., left : left + width]


def _matrix_spectrum(maps: Float[Tensor, "*b h w"], size: tuple[int, int]) -> Float[Tensor, "*b 2 f g"]:
    """Σ_yx x(y, x) exp(-2πi (f y / F + g x / G)), along the rows and then along the columns."""
    height, width = maps.shape[-2:]
    columns = size[1] // 2 + 1
    half = maps @ _like(_to_columns(width, size[1]), maps)
    # Real part above imaginary part, so that one product with a matrix of 2 × 2 blocks does the complex one.
    half = torch.cat([half[..., :columns], half[..., columns:]], dim=-2)
    return (_like(_to_rows(height, size[0]), maps) @ half).unflatten(-2, (2, size[0]))


def _matrix_maps(
    spectra: Float[Tensor, "*b 2 f g"], size: tuple[int, int], window: tuple[int, int, int, int]
) -> Float[Tensor, "*b h w"]:
    """The inverse transform at the window's cells alone."""
    top, left, height, width = window
    half = _like(_from_rows(top, height, size[0]), spectra) @ spectra.flatten(-3, -2)
    half = torch.cat([half[..., :height, :], half[..., height:, :]], dim=-1)
    return half @ _like(_from_columns(left, width, size[1]), spectra)


# The matrices are NumPy's, so that a trace sees finished constants. They are worked out in float64 and with
# whole turns taken off first: float32 then keeps its seven digits.


def _like(matrix: Float[np.ndarray, "m n"], tensor: Tensor) -> Float[Tensor, "m n"]:
    return torch.tensor(matrix, dtype=tensor.dtype, device=tensor.device)


def _turns(frequencies: int, start: int, cells: int, size: int) -> tuple[np.ndarray, np.ndarray]:
    """cos and sin of 2π f p / size for f < frequencies (rows) and p in start … start + cells (columns)."""
    angle = np.outer(np.arange(frequencies), np.arange(start, start + cells)) % size * (2 * np.pi / size)
    return np.cos(angle), np.sin(angle)


@lru_cache
def _to_columns(width: int, size: int) -> Float[np.ndarray, "w g2"]:
    cos, sin = _turns(size // 2 + 1, 0, width, size)
    return np.concatenate([cos, -sin]).T


@lru_cache
def _to_rows(height: int, size: int) -> Float[np.ndarray, "f2 h2"]:
    cos, sin = _turns(size, 0, height, size)
    return np.block([[cos, sin], [-sin, cos]])


@lru_cache
def _from_rows(top: int, height: int, size: int) -> Float[np.ndarray, "h2 f2"]:
    cos, sin = _turns(size, top, height, size)
    return np.block([[cos.T, -sin.T], [sin.T, cos.T]]) / size


@lru_cache
def _from_columns(left: int, width: int, size: int) -> Float[np.ndarray, "g2 w"]:
    cos, sin = _turns(size // 2 + 1, left, width, size)
    # Every frequency but the first and the last (sizes are even) stands for itself and its mirror image.
    times = np.full((size // 2 + 1, 1), 2 / size)
    times[[0, -1]] = 1 / size
    return np.concatenate([times * cos, -times * sin])
