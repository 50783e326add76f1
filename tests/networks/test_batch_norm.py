import subprocess
import sys
from pathlib import Path

import torch
from torch import nn

from handgraph.networks.batch_norm import BatchNorm2d

sys.path.insert(0, str(Path(__file__).parent))
import half_batch


def test_one_process_is_torchs_batch_norm() -> None:
    torch.manual_seed(0)
    ours, theirs, x = BatchNorm2d(3), nn.BatchNorm2d(3), torch.randn(4, 3, 5, 5)
    assert ours.state_dict().keys() == theirs.state_dict().keys()
    assert torch.equal(ours(x), theirs(x))
    assert torch.equal(ours.running_var, theirs.running_var)
    assert torch.equal(ours.eval()(x), theirs.eval()(x))


def test_two_processes_with_half_the_batch_are_one_with_the_whole(tmp_path: Path) -> None:
    processes = [
        subprocess.Popen(
            [sys.executable, half_batch.__file__, str(rank), str(tmp_path)], stderr=subprocess.PIPE
        )
        for rank in (0, 1)
    ]
    for process in processes:
        _, errors = process.communicate(timeout=120)
        assert process.returncode == 0, errors.decode()
    halves = [torch.load(tmp_path / f"{rank}.pt") for rank in (0, 1)]

    net = half_batch.network()
    loss = half_batch.train(net, half_batch.batch()[:4])
    assert torch.allclose((halves[0]["loss"] + halves[1]["loss"]) / 2, loss)
    for parameter, *parts in zip(net.parameters(), *(half["gradients"] for half in halves), strict=True):
        assert torch.allclose(sum(parts) / 2, parameter.grad, rtol=1e-6, atol=1e-8)
    for name, value in net.state_dict().items():
        for half in halves:
            assert torch.allclose(half["state"][name], value), name
    # Without the exchange the halves would differ: the test would notice.
    alone = half_batch.network()
    half_batch.train(alone, half_batch.batch()[:2])
    assert not torch.allclose(alone[1].running_mean, net[1].running_mean)
