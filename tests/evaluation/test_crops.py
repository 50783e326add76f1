"""What a model is measured on: the split that it has not seen, cut as it was trained."""

from types import SimpleNamespace

import pytest

from handgraph import systems
from handgraph.datasets import names
from handgraph.datasets.layouts import WRITERS
from handgraph.errors import ConfigError
from handgraph.evaluation.crops import _unseen, crops_of
from handgraph.evaluation.reproduce import Trial
from handgraph.evaluation.tables import TABLES
from handgraph.training.recipe import load_recipe

SMALL = SimpleNamespace(input_size=64)


@pytest.mark.parametrize(
    ("name", "trained", "unseen"),
    [
        ("dexycb", "s1_train", "s1_test"),
        ("msra", "not_P3", "P3"),
        ("panoptic", "train", "test"),
        ("panoptic", "", "all"),  # trained on something else: all of it is new
        ("humbi", "train", "test"),
        ("humbi", "all", "test"),
        ("icvl", "train_original", "test"),
        ("freihand", "train_gs", "test"),
        ("coco_wholebody", "train", "validation"),
    ],
)
def test_without_a_split_it_is_the_one_that_belongs_to_the_trained_one(name, trained, unseen):
    assert _unseen(names()[name], trained) == unseen


def test_the_shipped_recipe_says_how_to_cut_and_divide(tmp_path):
    WRITERS["panoptic"](tmp_path, samples=20, size=(640, 360))
    trained = load_recipe("rmgmn_panoptic").to_dict()["data"]
    crops, notes = crops_of("panoptic", tmp_path, systems.rmgmn, SMALL, trained)
    assert (crops.margin, crops.size, crops.augment, crops.dataset.split) == (2.2, 64, False, "test")
    assert notes == ["panoptic: as it was trained, margin=2.2"]
    other, notes = crops_of("panoptic:all", tmp_path, systems.rmgmn, SMALL, {})
    assert (other.margin, other.dataset.split, notes) == (1.5, "all", [])


def test_a_papers_table_is_measured_as_its_recipe_was_trained(tmp_path):
    WRITERS["panoptic"](tmp_path, samples=20, size=(640, 360))
    trial = Trial(TABLES["agmn:4.1"], "paper", tmp_path / "out", "panoptic", str(tmp_path), 0)
    crops = trial._opened(systems.agmn, SMALL)
    assert (crops.margin, crops.dataset.split, len(crops)) == (2.2, "test", 3)


def test_files_of_the_training_that_are_not_there_are_told(tmp_path):
    WRITERS["stb"](tmp_path)
    reader = {"wrist": "middle", "boxes": "/no/such.mat"}
    crops, notes = crops_of(
        "stb", tmp_path, systems.hybrid_gcn, SMALL, {"name": "stb", "options": {"reader": reader}}
    )
    assert crops.dataset.wrist == "middle"
    assert notes[0] == "stb: trained with boxes=/no/such.mat, which is not there: without it"
    assert notes[1:] == ["stb: as it was trained, wrist=middle"]
    assert reader["boxes"] == "/no/such.mat"  # the checkpoint's own description stays as it is


def test_a_set_is_asked_for_by_name_and_root(tmp_path):
    with pytest.raises(ConfigError, match="--data nothing: expected synthetic"):
        crops_of("nothing", tmp_path, systems.hourglass, SMALL, {})
    with pytest.raises(ConfigError, match="--data nyu: give --root"):
        crops_of("nyu", None, systems.hourglass, SMALL, {})
