"""The 2D estimator in front of a structured system: which ones there are, and what fits them."""

from typing import Literal

from handgraph.errors import ConfigError
from handgraph.networks.cpm import PAPER_WIDTH, PoseMachineShape

Unary = Literal["cpm", "hourglass"]
PAPER_INPUT_SIZE = {"cpm": 368, "hourglass": 256}


def check_kernel_size(kernel_size: int, cells: int) -> None:
    """Raise ConfigError unless kernels of that side fit maps of `cells` a side.

    Weights farther from the kernel's centre than the map is wide would never meet a cell.
    """
    largest = 2 * cells - 1
    if not 1 <= kernel_size <= largest or kernel_size % 2 == 0:
        raise ConfigError(
            f"kernel_size is {kernel_size}, expected an odd number up to {largest} for maps of {cells} cells"
        )


def check_pretrained(pretrained: str | None, **machines: PoseMachineShape) -> None:
    """Raise ConfigError unless VGG-19's weights, where named, fit these pose machines.

    With none of them there is only an hourglass, which has no place for such weights.
    """
    if pretrained is None:
        return
    if not machines:
        raise ConfigError("pretrained holds VGG-19's weights, which unary 'hourglass' has no place for")
    for name, machine in machines.items():
        if machine.width != PAPER_WIDTH or machine.norm:
            raise ConfigError(f"pretrained: VGG-19's weights fit {name}.width {PAPER_WIDTH} without norm")
