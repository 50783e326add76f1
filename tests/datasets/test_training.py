"""The paper's three datasets through the training loop: crops and labels are what it wants."""

import numpy as np
import pytest
from dataset_writers import write_icvl, write_msra, write_nyu

from handgraph.training.loop import train
from handgraph.training.recipe import DataRecipe, Recipe


@pytest.mark.parametrize(
    ("name", "write", "split", "test_split", "joints"),
    [
        ("nyu", lambda root: [write_nyu(root, part=part) for part in ("train", "test")], "train", "test", 14),
        ("icvl", write_icvl, "train_original", "test_seq_2", 16),
        ("msra", lambda root: write_msra(root, subjects=(0,)), "P0", "P0", 21),
    ],
)
def test_jgr_p2o_trains_and_is_measured(tmp_path, name, write, split, test_split, joints):
    write(tmp_path / "data")
    recipe = Recipe(
        system="jgr_p2o",
        config={"joints": joints, "hourglasses": 1, "width": 16},
        data=DataRecipe(
            name=name, root=str(tmp_path / "data"), split=split, validation_split=test_split, threads=1
        ),
        stages={"all": {"steps": 2}},
        batch_size=2,
        validation_samples=2,
    )
    result = train(recipe, tmp_path / "run")
    assert result["finished"]
    # An untrained network answers near the crop's middle: within the cube, and so within 300 mm.
    assert 0 < result["metrics"]["mpjpe_mm"] < 300
    assert np.isfinite(result["metrics"]["loss"])
