"""The papers' tables: every row is a configuration, orders are decided as they should be, runs are shared."""

import dataclasses
import json

import numpy as np
import pytest

from handgraph.errors import ConfigError
from handgraph.evaluation import reproduce as module
from handgraph.evaluation.reproduce import SCALES, Measured, list_tables, markdown, recipe_of, reproduce
from handgraph.evaluation.tables import TABLES, Claim, Row, Table
from handgraph.training.checkpoint import find_system
from handgraph.training.recipe import build, load_recipe

ROWS = [(name, row) for name, table in TABLES.items() for row in table.runnable]


@pytest.mark.parametrize(("name", "row"), ROWS, ids=[f"{name} {row.name}" for name, row in ROWS])
def test_every_row_is_a_configuration_at_tiny_and_small(name, row):
    for scale in SCALES:
        recipe = recipe_of(row, scale, TABLES[name].dataset, None, 0)
        system = find_system(recipe.system)
        config = build(system.Config, recipe.config, "row", "config")
        kept = [stage.name for stage in system.stages(config) if recipe.stages[stage.name] is not None]
        assert kept[-1] == (row.until or system.stages(config)[-1].name)
        for switch, value in row.config.items():
            assert recipe.config[switch] == value


def test_papers_recipes_take_the_rows_switches():
    recipe = recipe_of(TABLES["jgr:3"].row("3 hourglasses"), "paper", "nyu", "/data/nyu", 1)
    papers = load_recipe("jgr_p2o_nyu")
    assert recipe.config == papers.config | {"hourglasses": 3}
    assert recipe.data.root == "/data/nyu"
    assert recipe.stages == papers.stages


def test_claims_are_about_rows_that_exist():
    for name, table in TABLES.items():
        names = [row.name for row in table.rows]
        assert len(set(names)) == len(names), name
        for claim in table.claims:
            assert {claim.better, claim.worse} <= set(names), name


def test_the_papers_own_figures_keep_what_their_texts_claim():
    """A misprinted figure or a claim the wrong way round would show here."""
    for table in TABLES.values():
        for claim in table.claims:
            better, worse = table.row(claim.better), table.row(claim.worse)
            sign = 1 if (better.metric or table.metric) in module.HIGHER_IS_BETTER else -1
            gain = sign * (better.paper - worse.paper)
            assert abs(gain) < 0.03 * worse.paper if claim.ties else gain > 0, (table.title, claim)


def measured(values, parameters=1):
    return Measured(np.asarray(values, dtype=float), parameters, 0.1, "run")


@pytest.mark.parametrize(
    ("metric", "better", "worse", "ties", "holds"),
    [
        ("mpjpe_mm", 9.0, 10.0, False, True),
        ("mpjpe_mm", 10.0, 9.0, False, False),
        ("mpjpe_mm", 10.0, 10.0, False, None),
        ("mpck", 10.0, 9.0, False, True),
        ("mpck", 9.0, 10.0, False, False),
        ("mpjpe_mm", 10.0, 10.0, True, True),
        ("mpjpe_mm", 15.0, 10.0, True, False),
    ],
)
def test_orders_are_decided_on_the_same_samples(metric, better, worse, ties, holds):
    random = np.random.default_rng(0)
    # Samples differ by far more than rows do: only a comparison sample by sample can tell.
    hard = random.normal(0, 30, 500)
    noise = random.normal(0, 0.5, 500)
    table = Table("t", "d", metric, [Row("a", 1.0, "x"), Row("b", 2.0, "x")], [])
    rows = {"a": measured(better + hard + noise - noise.mean()), "b": measured(worse + hard)}
    decided = module._decide(Claim("a", "b", ties), table, rows)
    assert decided["holds"] is holds
    low, high = decided["interval95"]
    assert low < decided["gain"] < high


def test_printed_rows_cannot_decide():
    table = TABLES["jgr:5"]
    decided = module._decide(table.claims[0], table, {"JGR-P2O": measured([8.0, 9.0])})
    assert decided["holds"] is None
    assert "another data set" in decided["why"]


@pytest.fixture
def minute(monkeypatch):
    """A scale that takes seconds."""
    tiny = dataclasses.replace(SCALES["tiny"], images=32, samples=8)
    monkeypatch.setitem(SCALES, "tiny", tiny)


def test_a_table_is_trained_measured_and_written(minute, tmp_path):
    said = []
    document = reproduce("jgr:3", "tiny", tmp_path, say=said.append)
    assert said == ["jgr:3: 1 hourglass", "jgr:3: 2 hourglasses", "jgr:3: 3 hourglasses"]
    assert json.loads((tmp_path / "jgr_3.json").read_text()) == json.loads(json.dumps(document))
    assert [row["paper"] for row in document["rows"]] == [8.63, 8.29, 8.27]
    counts = [row["parameters"] for row in document["rows"]]
    assert counts[2] - counts[1] == counts[1] - counts[0] > 0
    page = (tmp_path / "jgr_3.md").read_text()
    assert page == markdown(document)
    assert "| 3 hourglasses | 8.27 |" in page
    assert (tmp_path / "jgr_3.png").read_bytes().startswith(b"\x89PNG")
    # Table 4's last row is Table 3's second one: its run is there already.
    runs = set((tmp_path / "runs").iterdir())
    recipe = recipe_of(TABLES["jgr:4"].row("JGR-P2O"), "tiny", "nyu", None, 0)
    assert (
        recipe.to_dict() | {"config": {**recipe.config, "hourglasses": 2}}
        == recipe_of(TABLES["jgr:3"].row("2 hourglasses"), "tiny", "nyu", None, 0).to_dict()
    )
    # Asked again, nothing is trained again.
    again = reproduce("jgr:3", "tiny", tmp_path)
    assert again["rows"] == document["rows"]
    assert set((tmp_path / "runs").iterdir()) == runs


@pytest.mark.slow
def test_a_table_that_was_interrupted_is_the_same(minute, tmp_path, monkeypatch):
    whole = reproduce("jgr:1", "tiny", tmp_path / "whole")
    from handgraph.training import loop

    train, calls = loop.train, []

    def interrupted(recipe, folder, **options):
        calls.append(folder)
        if len(calls) in (2, 4):
            raise KeyboardInterrupt
        return train(recipe, folder, **options)

    monkeypatch.setattr(loop, "train", interrupted)
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            reproduce("jgr:1", "tiny", tmp_path / "parts")
    parts = reproduce("jgr:1", "tiny", tmp_path / "parts")
    for a, b in zip(whole["rows"], parts["rows"], strict=True):
        assert a["ours"] == b["ours"]


def test_the_list_names_all_with_rows_and_cost():
    tables = {entry["table"]: entry for entry in list_tables("small")}
    assert set(tables) == set(TABLES)
    assert tables["jgr:2"]["training_images"] == 3 * SCALES["small"].images
    assert [row["runs"] for row in tables["jgr:5"]["rows"]].count(True) == 1


@pytest.mark.parametrize(
    ("name", "scale", "message"),
    [
        ("jgr:9", "tiny", "no table 'jgr:9'; there are jgr:1, "),
        ("jgr:1", "huge", "no scale 'huge'; there are tiny, small and paper"),
        ("jgr:1", "paper", "scale paper needs --root, the folder of nyu"),
    ],
)
def test_what_cannot_be_reproduced_is_said(name, scale, message, tmp_path):
    with pytest.raises(ConfigError, match=message):
        reproduce(name, scale, tmp_path)
