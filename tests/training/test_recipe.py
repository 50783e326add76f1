"""Recipes: the shipped ones load through the real signature, and every mistake is one clear line."""

from dataclasses import replace
from pathlib import Path

import pytest

from handgraph.errors import ConfigError
from handgraph.schedule import Stage
from handgraph.training.checkpoint import find_system
from handgraph.training.recipe import Recipe, build, load_recipe, shipped_recipes, stages_of
from handgraph.training.sources import open_data


@pytest.mark.parametrize("name", shipped_recipes())
def test_shipped_recipe_fits_its_system(name: str) -> None:
    recipe = load_recipe(name)
    system = find_system(recipe.system)
    config = build(system.Config, recipe.config, name, "config")
    plan = stages_of(recipe, system.stages(config), samples=recipe.data.samples or 1000)
    assert all(steps > 0 for _, steps in plan)


def test_there_are_recipes() -> None:
    assert {"jgr_p2o_synthetic", "jgr_p2o_nyu", "jgr_p2o_icvl", "jgr_p2o_msra"} <= set(shipped_recipes())


@pytest.mark.parametrize(
    ("dataset", "joints", "epochs"), [("nyu", 14, 58), ("icvl", 16, 8), ("msra", 21, 58)]
)
def test_paper_recipes_are_the_paper_s_schedule(dataset: str, joints: int, epochs: int) -> None:
    recipe = load_recipe(f"jgr_p2o_{dataset}")
    system = find_system("jgr_p2o")
    config = build(system.Config, recipe.config, "recipe")
    assert config == system.Config(joints=joints, hourglasses=2)
    ((stage, _),) = stages_of(recipe, system.stages(config), samples=1000)
    assert (stage,) == system.stages(config, dataset)
    assert stage.epochs == epochs


def test_a_dataset_that_is_not_there_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"data\.root is missing: the folder that holds the nyu data set"):
        open_data(load_recipe("jgr_p2o_nyu"))


def test_overrides_win_and_keep_the_rest() -> None:
    recipe = load_recipe(
        "jgr_p2o_synthetic",
        ["data.limit=64", "stages.all.steps=10", "config.hourglasses=1", "precision=32-true", "ema=1e-1"],
    )
    assert (recipe.data.limit, recipe.data.samples) == (64, 270_000)
    assert recipe.config == {"joints": 21, "hourglasses": 1}
    assert (recipe.precision, recipe.ema) == ("32-true", 0.1)
    ((_, steps),) = stages_of(recipe, [Stage("all", 1, loss_weights={"a": 1.0})], samples=100)
    assert steps == 10


def test_recipe_of_a_run_reads_back_as_itself(tmp_path: Path) -> None:
    import yaml

    recipe = load_recipe("jgr_p2o_synthetic_small", ["gradient_clip=3"])
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(recipe.to_dict()))
    assert load_recipe(tmp_path / "recipe.yaml") == recipe


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (
            ["data.sede=1"],
            r"override 'data\.sede=1': unknown key data\.sede, expected one of .*\(did you mean seed",
        ),
        (["sytem=x"], r"override 'sytem=x': unknown key sytem, .*did you mean system\?\)"),
        (["seed=many"], r"override 'seed=many': seed is the text 'many', expected a whole number"),
        (["seed=1.5"], r"override 'seed=1\.5': seed is the number 1\.5, expected a whole number"),
        (["seed=true"], r"override 'seed=true': seed is true, expected a whole number"),
        (["data.burst=1"], r"override 'data\.burst=1': data\.burst is the number 1, expected true or false"),
        (["data.limit=few"], r"data\.limit is the text 'few', expected a whole number or null"),
        (
            ["precision=16"],
            r"override 'precision=16': precision is the number 16, expected one of 32-true, bf16-mixed",
        ),
        (["stages=5"], r"override 'stages=5': stages is the number 5, expected a mapping"),
        (["seed=-1"], r"override 'seed=-1': seed is -1, expected 0 or more"),
        (["data.threads=0"], r"override 'data\.threads=0': data\.threads is 0, expected more than 0"),
        (["seed=3", "ema=2", "data.seed=1"], r"override 'ema=2': ema is 2\.0, expected a decay in \[0, 1\)"),
        (["system.name=x"], r"override 'system\.name=x': system is 'toy' and has no keys"),
        (["seed"], r"override 'seed': expected key=value, as in data\.seed=1"),
        (["seed=[1"], r"override 'seed=\[1': not valid YAML at line 1: "),
    ],
)
def test_mistakes_in_a_recipe_are_one_line(tmp_path: Path, overrides: list[str], message: str) -> None:
    path = tmp_path / "a.yaml"
    path.write_text("system: toy\n")
    with pytest.raises(ConfigError, match=message) as caught:
        load_recipe(path, overrides)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"system: [toy\nseed: 1\n", r"b\.yaml: not valid YAML at line \d: "),
        (b"- 1\n", r"b\.yaml: found the list \[1\], expected a mapping of recipe keys"),
        (b"", r"b\.yaml: found null, expected a mapping"),
        (b"\xff\xfe\x00", r"b\.yaml: cannot be read as UTF-8 text"),
        (b"seed: 1\n", r"b\.yaml: system is missing"),
        (b"system: !!python/object/apply:os.getcwd []\n", r"b\.yaml: not valid YAML at line 1: "),
    ],
)
def test_files_that_are_no_recipe(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "b.yaml").write_bytes(content)
    with pytest.raises(ConfigError, match=message) as caught:
        load_recipe(tmp_path / "b.yaml")
    assert "\n" not in str(caught.value)


def test_missing_recipe_names_the_shipped_ones(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"no such recipe file.*did you mean jgr_p2o_nyu"):
        load_recipe("jgr_p2o_nyuu")


@pytest.mark.parametrize(
    ("stages", "message"),
    [
        (
            {"pose": {}},
            r"unknown stage stages\.pose, expected one of prior, poses \(did you mean poses\?\)",
        ),
        ({"prior": {"lr": 1}}, r"recipe: unknown key stages\.prior\.lr, expected one of .*learning_rate"),
        (
            {"prior": {"optimizer": "lion"}},
            r"prior\.optimizer is the text 'lion', expected one of adam, ",
        ),
        ({"prior": {"epochs": 0}}, r"recipe: stage 'prior': epochs is 0, expected more than 0"),
        ({"prior": {"steps": 0}}, r"recipe: stages\.prior\.steps is 0, expected a positive number"),
        ({"prior": None, "poses": None}, r"recipe: no stage is left to train"),
    ],
)
def test_mistakes_in_stages(stages: dict, message: str) -> None:
    known = [Stage("prior", 1, loss_weights={"a": 1.0}), Stage("poses", 2, loss_weights={"a": 1.0})]
    with pytest.raises(ConfigError, match=message):
        stages_of(Recipe("toy", stages=stages), known, samples=100)


def test_stages_are_replaced_field_by_field() -> None:
    prior = Stage("prior", 2, loss_weights={"a": 1.0}, batch_size=10)
    poses = Stage("poses", 3, loss_weights={"b": 1.0}, batch_size=10)
    recipe = Recipe("toy", stages={"prior": None, "poses": {"learning_rate": "2e-4", "betas": [0.5, 0.9]}})
    changed = replace(poses, learning_rate=2e-4, betas=(0.5, 0.9))
    assert stages_of(recipe, [prior, poses], samples=100) == [(changed, 30)]
    ((halved, steps),) = stages_of(replace(recipe, batch_size=5), [prior, poses], samples=100)
    assert (halved.batch_size, steps) == (5, 60)
