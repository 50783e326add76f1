"""One of two processes, each with half a batch: `python half_batch.py RANK FOLDER` leaves FOLDER/RANK.pt."""

import sys
from pathlib import Path

import torch
import torch.distributed as dist
from torch import nn

from handgraph.networks.batch_norm import BatchNorm2d


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(2, 4, 3), BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 4, 1), BatchNorm2d(4, momentum=None)
    ).double()  # fmt: skip


def batch() -> torch.Tensor:
    # A large mean, so that a variance from the mean of squares alone would be rounded away.
    return 100 + torch.randn(6, 2, 5, 5, generator=torch.Generator().manual_seed(1)).double()


def train(net: nn.Module, x: torch.Tensor) -> torch.Tensor:
    """Two steps' statistics; returns the loss of the second, with its gradients in place."""
    for _ in range(2):
        net.zero_grad()
        loss = (net(x) ** 3 - net(x)).abs().flatten(1).sum(1).mean()
        loss.backward()
    return loss.detach()


if __name__ == "__main__":
    torch.set_num_threads(1)
    rank, folder = int(sys.argv[1]), Path(sys.argv[2])
    dist.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=2)
    net = network()
    loss = train(net, batch()[:2] if rank == 0 else batch()[2:4])
    torch.save({"loss": loss, "gradients": [p.grad for p in net.parameters()], "state": net.state_dict()},
               folder / f"{rank}.pt")  # fmt: skip
    dist.destroy_process_group()
