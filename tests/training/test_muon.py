"""Muon: orthogonal steps for matrices, AdamW's for the rest, beside PyTorch's own, resumed exactly."""

import copy
import os
import signal
import sys
from functools import partial
from pathlib import Path

import pytest
import torch
import toy
from safetensors.torch import load_file
from torch import nn

from handgraph.training import muon
from handgraph.training.muon import Muon, is_matrix, orthogonalised


def gradients(parameters: list[nn.Parameter], seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    for parameter in parameters:
        parameter.grad = torch.randn(parameter.shape, generator=generator)


@pytest.mark.parametrize(("rows", "columns"), [(32, 200), (64, 64), (200, 32)])
def test_singular_values_of_a_step_are_near_one_and_its_directions_are_kept(rows: int, columns: int) -> None:
    matrices = torch.randn(3, rows, columns, generator=torch.Generator().manual_seed(0))
    found = orthogonalised(matrices * torch.tensor([1e-4, 1.0, 1e4])[:, None, None])
    values = torch.linalg.svdvals(found)
    # Square random matrices have some singular values next to nothing, which five steps do not lift.
    assert values.max() < 1.25
    assert values.median() > 0.65
    if rows != columns:
        assert values.min() > 0.6
        u, _, v = torch.linalg.svd(matrices, full_matrices=False)
        nearest = u @ v
        cosine = (found * nearest).sum((1, 2)) / found.norm(dim=(1, 2)) / nearest.norm(dim=(1, 2))
        assert cosine.min() > 0.98


def test_zero_gradient_gives_no_step() -> None:
    assert torch.equal(orthogonalised(torch.zeros(2, 32, 40)), torch.zeros(2, 32, 40))


def test_convolutions_are_matrices_and_heads_and_gains_are_not() -> None:
    assert is_matrix(nn.Conv2d(64, 32, 1).weight)
    assert is_matrix(nn.Conv2d(4, 32, 3).weight)  # 32 rows of 36
    assert not is_matrix(nn.Conv2d(64, 21, 1).weight)
    assert not is_matrix(nn.BatchNorm2d(64).weight)


@pytest.mark.skipif(not hasattr(torch.optim, "Muon"), reason="this PyTorch has no Muon of its own")
def test_matrices_go_where_those_of_pytorchs_own_go() -> None:
    ours, theirs = (nn.Parameter(torch.linspace(-1, 1, 40 * 96).reshape(40, 96)) for _ in range(2))
    common = {"lr": 0.01, "weight_decay": 0.1}
    one = Muon([ours], **common)
    other = torch.optim.Muon([theirs], adjust_lr_fn="match_rms_adamw", **common)
    for step in range(4):
        gradients([ours], step)
        gradients([theirs], step)
        one.step()
        other.step()
    moved = (theirs - torch.linspace(-1, 1, 40 * 96).reshape(40, 96)).norm()
    assert (ours - theirs).norm() < 0.05 * moved  # bfloat16, and a batched product sums in another order


def test_equal_shapes_at_once_and_memory_layout_change_nothing() -> None:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(32, 32, 3), nn.Conv2d(32, 32, 3), nn.Conv2d(32, 64, 1))
    apart = [nn.Parameter(p.detach().clone()) for p in network.parameters()]
    network = network.to(memory_format=torch.channels_last)
    together = list(network.parameters())
    for parameters in ([together], [[p] for p in apart]):
        optimizers = [Muon(group, lr=0.02) for group in parameters]
        for step in range(3):
            for index, parameter in enumerate(apart if len(parameters) > 1 else together):
                gradients([parameter], 100 * step + index)
            for optimizer in optimizers:
                optimizer.step()
    for a, b in zip(together, apart, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=2e-4)


def test_what_is_no_matrix_is_adamws_to_the_bit() -> None:
    start = torch.linspace(-1, 1, 21 * 64).reshape(21, 64)
    ours, theirs = (nn.Parameter(start.clone()) for _ in range(2))
    one, other = (kind([p], lr=0.01) for kind, p in ((Muon, ours), (torch.optim.AdamW, theirs)))
    for step in range(3):
        gradients([ours], step)
        gradients([theirs], step)
        one.step()
        other.step()
    assert torch.equal(ours, theirs)


def test_a_closure_is_called_and_its_loss_returned() -> None:
    weight = nn.Parameter(torch.eye(32))
    optimizer = Muon([weight], lr=0.1)

    def closure() -> float:
        loss = weight.square().sum()
        loss.backward()
        return loss.item()

    assert optimizer.step(closure) == 32.0
    assert weight.square().sum() < 32.0


def test_its_state_can_be_taken_over_by_another() -> None:
    generator = torch.Generator().manual_seed(0)
    start = [torch.randn(shape, generator=generator) for shape in ((40, 96), (96,))]
    ours, theirs = ([nn.Parameter(value.clone()) for value in start] for _ in range(2))
    one, other = Muon(ours, lr=0.01), Muon(theirs, lr=0.01)
    for optimizer, parameters in ((one, ours), (other, theirs)):
        gradients(parameters, 0)
        optimizer.step()
    other = Muon(theirs, lr=0.01)
    other.load_state_dict(copy.deepcopy(one.state_dict()))  # it gives its own tensors
    for optimizer, parameters in ((one, ours), (other, theirs)):
        gradients(parameters, 1)
        optimizer.step()
    assert all(torch.equal(a, b) for a, b in zip(ours, theirs, strict=True))


def terminate_at(sample: int, first: int) -> None:
    if first == sample:
        os.kill(os.getpid(), signal.SIGTERM)


def test_stopped_and_resumed_it_ends_with_the_same_weights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "handgraph.systems.toy", toy)
    monkeypatch.setattr(muon, "LEAST_SIDE", 6)  # the toy's convolution and head are matrices now
    settings = toy.recipe(data={"ahead": 1, "threads": 1}, stages={"all": {"optimizer": "muon"}})
    toy.run(settings, tmp_path / "whole")
    stopped = toy.run(settings, tmp_path / "parts", toy.Watched(partial(terminate_at, 8 * 4)), resume=True)
    assert not stopped["finished"]
    assert "body.0.weight/momentum" in "".join(load_file(tmp_path / "parts" / "last.safetensors"))
    assert toy.run(settings, tmp_path / "parts", resume=True)["finished"]
    whole, parts = (load_file(tmp_path / name / "last.safetensors") for name in ("whole", "parts"))
    assert all(torch.equal(whole[name], parts[name]) for name in whole)
