"""Trained networks as parts of others: what is missing or does not fit is told in one line."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from handgraph.errors import CheckpointError
from handgraph.networks.backbone import load_part


def test_a_part_is_filled_from_the_tensors_of_its_name(tmp_path: Path) -> None:
    whole = {"network.weight": torch.arange(6.0).reshape(2, 3), "network.bias": torch.ones(2)}
    save_file({**whole, "head.weight": torch.zeros(1)}, tmp_path / "best.safetensors")
    part = nn.Linear(3, 2)
    load_part(part, str(tmp_path / "best"), "network.", made_by="a command")
    assert torch.equal(part.weight, whole["network.weight"])
    assert torch.equal(part.bias, whole["network.bias"])
    with pytest.raises(CheckpointError, match=r"network\.weight: \(2, 3\), expected \(4, 3\)"):
        load_part(nn.Linear(3, 4), str(tmp_path / "best"), "network.")


@pytest.mark.parametrize("system", ["agmn", "rmgmn"])
def test_a_run_that_was_not_made_yet_is_told_with_the_command_that_makes_it(system: str) -> None:
    """As a user meets it who trains the shipped recipe first."""
    from handgraph import systems
    from handgraph.training.recipe import build, load_recipe

    chosen = getattr(systems, system)
    recipe = load_recipe(f"{system}_synthetic")
    config = build(chosen.Config, {**recipe.config, "unary_weights": "runs/none/best"}, "recipe", "config")
    told = (
        r"runs/none/best: no such weights file; train it first: handgraph train cpm_synthetic --out runs/cpm$"
    )
    with pytest.raises(CheckpointError, match=told):
        chosen.prepare(config.build(), chosen.stages(config)[0], None, config)
