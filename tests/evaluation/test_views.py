"""What a frozen keypoint network saw is kept: views are what looking again would give, and are made once."""

import numpy as np
import pytest
import torch

from handgraph import systems
from handgraph.datasets import ImageCrops
from handgraph.errors import FormatError
from handgraph.evaluation.drawn import DrawnOnce
from handgraph.evaluation.measures import inputs
from handgraph.evaluation.small import SCALES
from handgraph.evaluation.views import Views
from handgraph.training.data import to_tensors
from handgraph.training.recipe import build

ROWS = ("hybrid_gcn", "graph_refine", "identity_mesh")


@pytest.fixture(scope="module")
def crops(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("handgraph.evaluation.drawn.BLOCK", 6)
        return ImageCrops(DrawnOnce(tmp_path_factory.mktemp("drawn"), "train", 64, 6), size=64, margin=1.0)


@pytest.fixture(scope="module")
def kept(crops, tmp_path_factory):
    folder = tmp_path_factory.mktemp("views")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("handgraph.evaluation.views.BLOCK", 4)
        return folder, Views(folder, crops, 2)


def test_views_are_the_pictures_draws_in_turn(crops, kept):
    _, views = kept
    assert len(views) == 12
    where = np.array([11, 0, 5, 6])
    batch = views.batch(where, np.array([7, 7, 7, 7]))
    expected = to_tensors(crops.batch(where % 6, where // 6))
    assert set(batch) == set(expected) - {"crops"} | {"seen"}
    for name in set(batch) - {"seen"}:
        assert np.array_equal(batch[name], expected[name].numpy()), name
    assert not np.array_equal(batch["image"][2], batch["image"][0])


@pytest.mark.parametrize("name", ROWS)
def test_a_row_learns_from_what_was_kept_as_from_looking_again(name, kept):
    system, small = getattr(systems, name), SCALES["tiny"].systems[name]
    config = build(system.Config, dict(small.config), "row", "config")
    torch.manual_seed(0)
    module = config.build().eval()
    if hasattr(system, "prepare"):
        system.prepare(module, system.stages(config)[0], None, config)
    batch = to_tensors(kept[1].batch(np.arange(12), np.zeros(12, int)))
    assert batch["seen"].shape == (12, 48 + 21, 16, 16)
    with torch.inference_mode():
        told = module(*inputs(system, batch))
        looked = module(*inputs(system, {key: value for key, value in batch.items() if key != "seen"}))
        other = module(*inputs(system, batch | {"seen": batch["seen"].flip(0)}))
    part = {"hybrid_gcn": "coarse", "graph_refine": "prior_mm", "identity_mesh": "rotations"}[name]
    near, far = ((getattr(one, part) - getattr(told, part)).norm() for one in (looked, other))
    assert near < 0.1 * far  # bfloat16 while it was kept is all the difference


def test_files_that_are_there_are_read(crops, kept, monkeypatch):
    folder, views = kept
    monkeypatch.setattr("handgraph.evaluation.views.BLOCK", 4)
    files = sorted(folder.rglob("*.npy"))
    assert len(files) == 3
    monkeypatch.setattr("handgraph.evaluation.views._network", lambda: pytest.fail("looked again"))
    again = Views(folder, crops, 2)
    where = np.arange(12)
    assert np.array_equal(again.batch(where, where)["seen"], views.batch(where, where)["seen"])
    whole = files[1].read_bytes()
    files[1].write_bytes(whole[:200])
    with pytest.raises(FormatError, match=r"0001\.npy: not a whole file of views"):
        Views(folder, crops, 2)
    files[1].write_bytes(whole)
