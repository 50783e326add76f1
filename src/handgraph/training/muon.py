"""Muon: momentum whose step on every matrix of weights is made orthogonal; AdamW for what is no matrix.

Jordan et al., "Muon: An optimizer for hidden layers in neural networks", 2024; the step's size is that of
Liu et al., "Muon is Scalable for LLM Training", 2025, section 2.2: one learning rate serves both kinds.
"""

from collections import defaultdict
from collections.abc import Callable
from math import sqrt
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.optim import AdamW

MOMENTUM = 0.95
LEAST_SIDE = 32
"""A weight with fewer rows or columns than this is AdamW's: heads of a few outputs, gains, biases."""
ADAMW_RMS = 0.2
"""Root mean square of AdamW's steps at learning rate 1, about; an orthogonal step is given the same."""


class Muon(AdamW):
    """AdamW, but matrices of at least 32 rows and columns step along the orthogonal one nearest the momentum.

    A convolution's weight (out, in, h, w) is a matrix of `out` rows. Takes what `torch.optim.AdamW` takes.
    After `step` a matrix's `grad` is None.
    """

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> Any:
        """One step; `closure`, where given, computes the gradients first and returns the loss."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            alike: dict[tuple[int, ...], list[Tensor]] = defaultdict(list)
            for parameter in group["params"]:
                if parameter.grad is not None and is_matrix(parameter):
                    alike[tuple(parameter.flatten(1).shape)].append(parameter)
            for (rows, columns), parameters in alike.items():
                # Equal shapes at once: many small convolutions would mean many calls.
                directions = orthogonalised(torch.stack([self._momentum(p).flatten(1) for p in parameters]))
                size = group["lr"] * ADAMW_RMS * sqrt(max(rows, columns))
                for parameter, direction in zip(parameters, directions, strict=True):
                    parameter.mul_(1 - group["lr"] * group["weight_decay"])
                    parameter.add_(direction.view(parameter.shape), alpha=-size)
                    parameter.grad = None  # AdamW passes by what has none
        super().step()
        return loss

    def _momentum(self, parameter: Tensor) -> Tensor:
        """The mean of the gradients with this one in, looked one step ahead (Nesterov)."""
        gradient, state = parameter.grad, self.state[parameter]
        assert gradient is not None
        if not state:
            state["momentum"] = torch.zeros_like(parameter)
            state["step"] = torch.zeros(())  # not used; AdamW looks for it in every state that it is given
        state["momentum"].lerp_(gradient, 1 - MOMENTUM)
        return gradient.lerp(state["momentum"], MOMENTUM)


def is_matrix(parameter: Tensor) -> bool:
    """Whether Muon steps along an orthogonal matrix for this parameter."""
    return parameter.ndim > 1 and min(parameter.flatten(1).shape) >= LEAST_SIDE


def orthogonalised(matrices: Float[Tensor, "b m n"]) -> Float[Tensor, "b m n"]:
    """The matrices with all their singular values brought near 1 (0.7 to 1.2), for any but vanishing ones.

    Five steps of a quintic Newton-Schulz iteration in bfloat16, whose coefficients trade exactness for speed.
    """
    x = matrices.bfloat16()
    tall = x.shape[-2] > x.shape[-1]
    if tall:
        x = x.mT
    x = x / x.norm(dim=(-2, -1), keepdim=True).clamp(min=1e-7)
    for _ in range(5):
        square = x @ x.mT
        x = 3.4445 * x + (-4.7750 * square + 2.0315 * square @ square) @ x
    return (x.mT if tall else x).to(matrices.dtype)
