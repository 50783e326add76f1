"""Batch normalisation that stays the same when a batch is split over processes."""

from typing import Any

import torch
import torch.distributed as dist
from jaxtyping import Float
from torch import Tensor, nn


class BatchNorm2d(nn.BatchNorm2d):
    """`nn.BatchNorm2d` whose training statistics are those of the whole batch, over all processes.

    With one process, or in eval mode, this *is* `nn.BatchNorm2d`, at its speed. Several processes with a
    part of the batch each give the outputs, the gradients (once averaged, as data-parallel training does)
    and the running statistics of one process with the whole. Unlike `torch.nn.SyncBatchNorm` it runs on
    CPUs too. Parameter and buffer names are those of `nn.BatchNorm2d`.
    """

    def forward(self, input: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        if self.training and not torch.jit.is_scripting() and _processes() > 1:
            return self._over_processes(input)
        return super().forward(input)

    def _over_processes(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        # Mean of squares minus square of mean cancels badly in float32; in float64 it does not, and these are
        # a few numbers per channel, so one reduction carries everything.
        wide = torch.promote_types(x.dtype, torch.float32)
        variance, mean = torch.var_mean(x.to(wide), dim=(0, 2, 3), correction=0)
        variance, mean = variance.double(), mean.double()
        count = torch.full_like(mean[:1], x.numel() / x.shape[1])
        sums = _SumOverProcesses.apply(torch.cat([count, count * mean, count * (variance + mean**2)]))
        total = sums[0].detach()
        mean, square = (sums[1:] / total).chunk(2)
        variance = square - mean**2

        if self.track_running_stats and self.running_mean is not None and self.running_var is not None:
            with torch.no_grad():
                assert self.num_batches_tracked is not None
                self.num_batches_tracked.add_(1)
                share = 1 / float(self.num_batches_tracked) if self.momentum is None else self.momentum
                self.running_mean.lerp_(mean.to(self.running_mean.dtype), share)
                unbiased = variance * (total / (total - 1))
                self.running_var.lerp_(unbiased.to(self.running_var.dtype), share)

        scale = (variance + self.eps).rsqrt().to(wide)
        shift = -mean.to(wide) * scale
        if self.affine:
            scale, shift = scale * self.weight, shift * self.weight + self.bias
        return (x * scale[:, None, None] + shift[:, None, None]).to(x.dtype)


class _SumOverProcesses(torch.autograd.Function):
    """Sum over all processes. Every process's output depends on every input, so gradients sum up too."""

    @staticmethod
    def forward(ctx: Any, value: Tensor) -> Tensor:
        total = value.clone()
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        total = gradient.clone()
        dist.all_reduce(total)
        return total


def _processes() -> int:
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1
