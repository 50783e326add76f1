"""The papers' tables: every row is a configuration, orders are decided as they should be, runs are shared."""

import dataclasses
import json
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import torch

from handgraph.errors import ConfigError, FormatError
from handgraph.evaluation import personal, results, stated
from handgraph.evaluation import reproduce as module
from handgraph.evaluation.drawn import DrawnOnce
from handgraph.evaluation.reproduce import Measured, interval, leg_name, list_tables, paper_recipe, reproduce
from handgraph.evaluation.small import SCALES, Small, legs_of
from handgraph.evaluation.tables import TABLES, Claim, Row, Table
from handgraph.hand_model import HandLayer
from handgraph.hand_model.calibration import distances_mm
from handgraph.systems import jgr_p2o
from handgraph.training.checkpoint import find_system, load_system, save_weights
from handgraph.training.recipe import build, load_recipe, shipped_recipes

ROWS = [(name, row) for name, table in TABLES.items() for row in table.runnable]
IDS = [f"{name} {row.name}" for name, row in ROWS]


def names(row, scale="small", seed=0):
    """The runs of a row's legs."""
    found = []
    for leg in legs_of(row, scale, seed):
        found.append(leg_name(leg, found[-1] if found else ""))
    return found


@pytest.mark.parametrize(("name", "row"), ROWS, ids=IDS)
def test_every_row_is_trained_in_legs_that_end_with_it(name, row):
    for scale in SCALES:
        legs = legs_of(row, scale, 0, moved=TABLES[name].moved)
        assert legs[-1].recipe.system == row.system
        assert legs[-1].moved == TABLES[name].moved
        system = find_system(row.system)
        for leg in legs:
            stages = [stage for stage, changes in leg.recipe.stages.items() if changes is not None]
            assert len(stages) == 1
        last = build(system.Config, legs[-1].recipe.config, "row", "config")
        wanted = build(
            system.Config, {**SCALES[scale].systems[row.system].config, **row.config}, "row", "config"
        )
        assert last == wanted
        assert row.until in (None, stages[0])


@pytest.mark.parametrize(("name", "row"), ROWS, ids=IDS)
def test_papers_recipes_take_the_rows_switches(name, row):
    dataset = TABLES[name].dataset
    if name == "sia:5.4":
        with pytest.raises(ConfigError, match="no such recipe"):
            paper_recipe(row, dataset, "/data", 1)
        return
    recipe = paper_recipe(row, dataset, "/data", 1)
    assert recipe.data.root == "/data"
    for switch, value in row.config.items():
        assert recipe.config[switch] == value
    assert f"{row.system}_{dataset}" in shipped_recipes()


def test_a_papers_row_is_its_recipe_with_nothing_else_changed():
    recipe = paper_recipe(TABLES["jgr:3"].row("3 hourglasses"), "nyu", "/data/nyu", 1)
    papers = load_recipe("jgr_p2o_nyu")
    assert recipe.config == papers.config | {"hourglasses": 3}
    assert recipe.stages == papers.stages
    until = paper_recipe(TABLES["refine:I"].row("stage I"), "rhd", "/data", 1)
    assert [name for name, changes in until.stages.items() if changes is None] == ["generator", "adversarial"]


def test_rows_share_how_they_begin():
    sia = TABLES["sia:5.2"]
    begins = {names(row)[0] for row in sia.rows}
    assert len(begins) == 1  # the pose machine
    assert len({names(row)[-1] for row in sia.rows}) == len(sia.rows)
    one, turned = names(sia.row("10 heads")), names(sia.row("10 heads, rotation"))
    assert one[0] == turned[0]
    assert one[1] != turned[1]  # the heads see images that are turned upright
    stages = [names(row) for row in TABLES["refine:I"].rows]
    assert stages[2][:2] == stages[1]
    assert stages[1][:1] == stages[0]
    multi, single = (names(row) for row in TABLES["refine:III"].rows)
    assert multi[:2] == single[:2]
    assert multi[2] != single[2]
    losses = {names(TABLES["refine:IV"].row(f"{what}, stage I"))[0] for what in ("with both", "with length")}
    assert len(losses) == 2  # a bone loss matters from the first stage on
    hybrid = TABLES["hybrid:2"]
    assert len({names(hybrid.row(row))[0] for row in ("full", "D: KNN refinement", "C: FC refinement")}) == 1
    assert names(hybrid.row("B: without refinement")) == names(hybrid.row("full"))[:1]
    mixture = TABLES["rmgmn:3.2"]
    first = [names(mixture.row(row))[1] for row in ("R-MGMN", "rotation + CPM, rotation first")]
    assert first[0] == first[1]  # the rotation net
    assert names(sia.rows[0]) != names(sia.rows[0], seed=1)
    # A switch that is at its default anyway changes nothing.
    assert names(TABLES["hybrid:3"].row("3D: 27 classes")) == names(TABLES["hybrid:3"].row("2D: 16 classes"))


@pytest.mark.parametrize("name", ["sia:5.1", "sia:5.2", "rmgmn:3.2"])
def test_estimators_learn_from_as_many_images_in_every_row(name):
    """What a table compares must not be how long the estimator has learned."""
    others = ("rotation", "classifier", "graphical_models")  # these leave it as it is
    images = set()
    for row in TABLES[name].rows:
        total = 0
        for leg in legs_of(row, "small", 0):
            stage, changes = next((stage, changes) for stage, changes in leg.recipe.stages.items() if changes)
            if stage not in others:
                total += changes["steps"] * leg.recipe.batch_size
        images.add(total)
    assert len(images) == 1


def test_claims_are_about_rows_that_exist():
    for name, table in TABLES.items():
        rows = [row.name for row in table.rows]
        assert len(set(rows)) == len(rows), name
        for claim in table.claims:
            assert claim.better in rows, name
            assert (claim.worse in rows) != (claim.below is not None), name
        for figures in table.elsewhere.values():
            assert set(figures) <= set(rows), name


def test_the_papers_own_figures_keep_what_their_texts_claim():
    """A misprinted figure or a claim the wrong way round would show here."""
    decided = 0
    for table in TABLES.values():
        for claim in table.claims:
            better = table.row(claim.better)
            if claim.below is not None:
                assert better.paper is None or better.paper < claim.below, (table.title, claim)
                continue
            worse = table.row(claim.worse)
            if better.paper is None or worse.paper is None:  # read off a figure
                continue
            sign = 1 if (better.metric or table.metric) in module.HIGHER_IS_BETTER else -1
            gain = sign * (better.paper - worse.paper)
            assert abs(gain) < 0.03 * worse.paper if claim.ties else gain > 0, (table.title, claim)
            decided += 1
    assert decided > 70


def test_figures_of_other_data_sets_are_printed_where_the_paper_has_them():
    table = TABLES["jgr:5"]
    assert table.printed(table.row("JGR-P2O"), "nyu") == 8.29
    assert table.printed(table.row("JGR-P2O"), "icvl") == 6.02
    assert table.printed(table.row("A2J"), "msra") is None


def measured(values, parameters=1):
    return Measured(np.atleast_2d(np.asarray(values, dtype=float)), parameters, 0.1, ("run",))


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


@pytest.mark.parametrize(("below", "holds"), [(2.0, True), (0.5, False), (1.0, None)])
def test_a_figure_is_held_against_what_the_text_says_of_it(below, holds):
    table = Table("t", "d", "w_error_mm", [Row("a", 0.9, "x")], [])
    values = np.abs(np.random.default_rng(0).normal(1.0, 0.3, 40))
    assert module._decide(Claim("a", below=below), table, {"a": measured(values)})["holds"] is holds


def test_intervals_cover_seeds():
    random = np.random.default_rng(0)
    samples = random.normal(10, 0.1, 400)
    one = interval(samples[None])
    assert one[1] - one[0] == pytest.approx(2 * 1.96 * samples.std() / 20, rel=0.1)
    # Three seeds a millimetre apart: what samples say is nothing beside it. sd/√3 · t of two degrees.
    three = interval(np.stack([samples - 1, samples, samples + 1]))
    assert (three[1] - three[0]) / 2 == pytest.approx(4.30 / 3**0.5, rel=0.01)
    assert np.mean(three) == pytest.approx(samples.mean(), abs=0.01)


def test_intervals_of_pictures_of_few_people_are_of_the_people():
    random = np.random.default_rng(0)
    people = np.repeat(np.arange(16), 50)
    own = random.normal(0, 5, 16)
    values = 20 + own[people] + random.normal(0, 0.1, 800)
    as_pictures, as_people = (np.diff(interval(values[None], of))[0] for of in (None, people))
    assert as_people == pytest.approx(2 * 1.96 * own.std() / 4, rel=0.15)
    assert as_people > 5 * as_pictures


def test_printed_rows_cannot_decide():
    table = TABLES["jgr:5"]
    decided = module._decide(table.claims[0], table, {"JGR-P2O": measured([8.0, 9.0])})
    assert decided["holds"] is None
    assert "another data set" in decided["why"]


@pytest.fixture
def minute(monkeypatch):
    """A scale that takes seconds."""
    tiny = SCALES["tiny"]
    depth = tiny.systems["jgr_p2o"]
    monkeypatch.setitem(
        SCALES,
        "tiny",
        dataclasses.replace(tiny, images=16, batch_size=8, test=8, systems={"jgr_p2o": depth}),
    )


def test_a_table_is_trained_measured_and_written(minute, tmp_path):
    said = []
    document = reproduce("jgr:3", "tiny", tmp_path, say=said.append)
    assert said == ["jgr:3: 1 hourglass", "jgr:3: 2 hourglasses", "jgr:3: 3 hourglasses"]
    assert json.loads((tmp_path / "jgr_3_tiny.json").read_text()) == json.loads(json.dumps(document))
    assert [row["paper"] for row in document["rows"]] == [8.63, 8.29, 8.27]
    counts = [row["parameters"] for row in document["rows"]]
    assert counts[2] - counts[1] == counts[1] - counts[0] > 0
    text = (tmp_path / "jgr_3_tiny.md").read_text()
    assert text == results.markdown(document)
    assert "| 3 hourglasses | 8.27 |" in text
    assert (tmp_path / "jgr_3_tiny.png").read_bytes().startswith(b"\x89PNG")
    assert str(tmp_path) not in json.dumps(document)
    # Asked again, nothing is trained again.
    runs = set((tmp_path / "runs").iterdir())
    again = reproduce("jgr:3", "tiny", tmp_path)
    assert again["rows"] == document["rows"]
    assert set((tmp_path / "runs").iterdir()) == runs


@pytest.mark.slow
def test_a_table_that_was_interrupted_twice_is_the_same(minute, tmp_path, monkeypatch):
    """Once between two rows, once in the middle of one."""
    from handgraph.training import loop

    whole = reproduce("jgr:1", "tiny", tmp_path / "whole")
    train, trained, steps = loop.train, [], []

    def not_the_second_row(recipe, folder, **options):
        trained.append(folder)
        if len(trained) == 2:
            raise KeyboardInterrupt
        return train(recipe, folder, **options)

    def asked_to_stop(run):
        steps.append(run.progress.step)
        run.stop.append(signal.SIGTERM)
        return True

    monkeypatch.setattr(loop, "train", not_the_second_row)
    with pytest.raises(KeyboardInterrupt):
        reproduce("jgr:1", "tiny", tmp_path / "parts")
    with monkeypatch.context() as patch:
        patch.setattr(loop, "agreed_stop", asked_to_stop)
        with pytest.raises(KeyboardInterrupt):
            reproduce("jgr:1", "tiny", tmp_path / "parts")
    assert steps == [1]  # of two
    parts = reproduce("jgr:1", "tiny", tmp_path / "parts")
    assert len(trained) == 5  # the second row three times, the others once
    for a, b in zip(whole["rows"], parts["rows"], strict=True):
        assert a["ours"] == b["ours"]
        assert a["interval95"] == b["interval95"]


@pytest.mark.slow
def test_a_table_whose_process_was_killed_twice_is_the_same(tmp_path):
    """SIGKILL while the second leg of three is trained, and while the third is."""

    def start(folder):
        table = ["reproduce", "identity:6.3", "--scale", "tiny", "--out", folder.name]
        return subprocess.Popen([sys.executable, "-m", "handgraph", *table], cwd=tmp_path)

    for done in (1, 2):
        process = start(tmp_path / "parts")
        while len(list(tmp_path.glob("parts/runs/*/done.json"))) < done:
            assert process.poll() is None, "it ended before it could be killed"
            time.sleep(0.02)
        process.kill()
        assert process.wait() == -signal.SIGKILL
    assert not (tmp_path / "parts" / "identity_6_3_tiny.json").exists()
    tables = []
    for name in ("parts", "whole"):
        assert start(tmp_path / name).wait() == 0
        document = json.loads((tmp_path / name / "identity_6_3_tiny.json").read_text())
        tables.append([{**row, "minutes": None} for row in document["rows"]] + document["claims"])
    assert tables[0] == tables[1]


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", ["sia:5.2", "rmgmn:3.2", "agmn:4.1", "hybrid:3", "refine:II", "identity:6.1", "identity:fig6.4"]
)
def test_tables_of_every_system_run(name, tmp_path_factory, monkeypatch):
    """Two steps a leg: what is found means nothing, but every row has a figure and every claim an answer."""
    small = dataclasses.replace(SCALES["tiny"], images=16, batch_size=8, train=64, test=16)
    monkeypatch.setitem(SCALES, "tiny", small)
    monkeypatch.setattr("handgraph.evaluation.drawn.BLOCK", 64)
    folder = tmp_path_factory.getbasetemp() / "tables"  # one for all: they share images and runs
    document = reproduce(name, "tiny", folder)
    assert [row["name"] for row in document["rows"]] == [row.name for row in TABLES[name].rows]
    for row in document["rows"]:
        low, high = row["interval95"]
        assert low <= row["ours"] <= high
        assert all(np.isfinite(both["ours"]) for both in row.get("beside", {}).values())
    assert len(document["claims"]) == len(TABLES[name].claims)
    assert not any("why" in claim for claim in document["claims"])


def test_a_leg_goes_on_from_the_estimator_before_it(tmp_path):
    """A pose machine's network becomes the unary branch; what it has not stays as the seed made it."""
    legs = legs_of(TABLES["rmgmn:3.2"].row("CPM + single GM"), "tiny", 0)
    estimator = build(find_system("cpm").Config, legs[0].recipe.config, "x", "config")
    torch.manual_seed(5)
    trained = estimator.build()
    save_weights(tmp_path / "best.safetensors", trained, "cpm", estimator)
    module._begin(legs[1].recipe, tmp_path / "best", tmp_path / "start.safetensors")
    begun, name, config, _ = load_system(tmp_path / "start")
    assert name == "rmgmn"
    for key, tensor in trained.network.state_dict().items():
        assert torch.equal(begun.unary.state_dict()[key], tensor)
    torch.manual_seed(0)
    fresh = config.build()
    assert torch.equal(begun.models.kernels, fresh.models.kernels)
    other = jgr_p2o.Config(width=8, input_size=32)
    save_weights(tmp_path / "other.safetensors", other.build(), "jgr_p2o", other)
    with pytest.raises(ConfigError, match="jgr_p2o has nothing that rmgmn could go on from"):
        module._begin(legs[1].recipe, tmp_path / "other", tmp_path / "start.safetensors")


def test_photographs_are_drawn_once(tmp_path, monkeypatch):
    monkeypatch.setattr("handgraph.evaluation.drawn.BLOCK", 4)
    drawn = DrawnOnce(tmp_path, "test", 32, 6, people=40)
    assert len(drawn) == 6
    assert (drawn.subjects < 40).all()
    files = sorted(tmp_path.rglob("*.npz"))
    assert len(files) == 2
    stamps = [file.stat().st_mtime_ns for file in files]
    again = DrawnOnce(tmp_path, "test", 32, 8, people=40)  # two more of the second file's four
    assert [file.stat().st_mtime_ns for file in sorted(tmp_path.rglob("*.npz"))] == stamps
    for index in range(6):
        assert np.array_equal(drawn[index].image, again[index].image)
    sample = again[5]
    seen = sample.camera.uvd_from_xyz(sample.joints_mm.astype(float))[:, :2]
    assert np.abs(seen - sample.keypoints_px).max() < 0.05
    files[0].write_bytes(files[0].read_bytes()[:100])
    with pytest.raises(FormatError, match="not a whole file of images"):
        DrawnOnce(tmp_path, "test", 32, 6, people=40)


def test_calibrated_people_are_measured_by_their_own_hands():
    layer, random = HandLayer(), np.random.default_rng(0)
    true = random.normal(0, 0.8, (2, 10))
    whose = np.array([7, 3, 7, 3, 7, 3])
    poses = random.normal(0, 0.2, (6, 48))
    exact = personal.Said(
        whose, true[(whose == 7).astype(int)], poses, np.zeros(6), true[(whose == 7).astype(int)]
    )
    shapes = personal.calibrated(exact, 3)
    assert list(shapes) == [3, 7]
    for metric in ("beta_mse", "w_error_mm", "l_error_mm"):
        assert np.abs(personal.person_errors(exact, metric, shapes)).max() < 1e-4
    assert np.array_equal(personal.length_spread(exact), [0.0, 0.0])
    # A guess of the mean hand for both is wrong by just their difference from it.
    mean = dict.fromkeys(shapes, np.zeros(10))
    length = [distances_mm(layer, shape, [(0, 12)])[0][0] for shape in (*true, np.zeros(10))]
    wrong = personal.person_errors(exact, "l_error_mm", mean)
    assert wrong == pytest.approx([abs(length[0] - length[2]), abs(length[1] - length[2])])
    assert personal.person_errors(exact, "beta_mse", mean) == pytest.approx(np.square(true).mean(axis=1))
    with pytest.raises(Exception, match="person 3: 3 images, 20 are to be calibrated from"):
        personal.calibrated(exact, 20)


def test_sizes_that_the_papers_state():
    rows = stated._sizes()
    ours = {one.text: one.ours for one in rows if one.paper == "JGR-P2O"}
    assert ours["2 hourglasses, skeleton graph"] == 1.365244
    assert ours["1 hourglass"] == 0.715502
    # The heat-map baseline is the one that the paper's figure does not fit: 1.36 M.
    assert [one.text for one in rows if not one.holds] == ["differentiable heat map"]
    assert stated.parameters("agmn") == 58_529_646
    part = next(one for one in rows if one.text.startswith("SiaPose of AGMN's size"))
    assert part.ours == pytest.approx(100 * stated.parameters("siapose") / 58_529_646)


def test_the_results_page_counts_and_leaves_out_tiny_tables(tmp_path):
    claims = [
        {"claim": "a better than b", "holds": True, "gain": 1.0, "interval95": [0.5, 1.5]},
        {"claim": "b better than c", "holds": False, "gain": -1.0, "interval95": [-1.5, -0.5]},
        {"claim": "c better than d", "holds": None, "gain": 0.0, "interval95": [-0.5, 0.5]},
    ]
    row = {
        "name": "a", "paper": 8.0, "ours": 9.5, "interval95": [9.0, 10.0], "n": 3, "parameters": 1234,
        "minutes": 2.0, "runs": ["r"], "beside": {"auc_20_50": {"paper": 0.9, "ours": 0.8}},
    }  # fmt: skip
    document = {
        "table": "x:1", "title": "t", "scale": "small", "dataset": "synthetic:test", "paper_dataset": "nyu",
        "metric": "mpjpe_mm", "unit": "mm", "seeds": [0, 1], "minutes": 4.0, "rows": [row], "claims": claims,
        "machine": "CPU", "torch": "2", "commit": "abc",
    }  # fmt: skip
    (tmp_path / "x_1_small.json").write_text(json.dumps(document))
    (tmp_path / "x_1_tiny.json").write_text(json.dumps({**document, "scale": "tiny", "title": "hidden"}))
    (tmp_path / "examined.json").write_text(json.dumps({"x:1": {"b better than c": "scale: too few images"}}))
    text = results.page(tmp_path)
    assert "| x:1 | 2 | 4 | 1 | 1 | 1 |" in text
    assert "| all | | 4 | 1 | 1 | 1 |" in text
    assert "| a | 8 | 9.5 | 9 to 10.0 | 0.9, 0.8 | 1,234 | 2.0 |" in text
    assert "- b better than c: scale: too few images" in text
    assert "hidden" not in text
    assert text == results.page(tmp_path)
    (tmp_path / "x_2_small.json").write_text("{")
    with pytest.raises(FormatError, match=r"x_2_small\.json: no document of reproduce"):
        results.page(tmp_path)


def test_the_list_names_all_with_rows_and_cost():
    tables = {entry["table"]: entry for entry in list_tables("small")}
    assert set(tables) == set(TABLES)
    jgr = SCALES["small"].systems["jgr_p2o"]
    assert isinstance(jgr, Small)
    assert tables["jgr:2"]["training_images"] == 3 * jgr.phases[0].images
    assert [row["runs"] for row in tables["jgr:5"]["rows"]].count(True) == 1
    # Stage III's legs are those of stages I and II and its own.
    refine = SCALES["small"].systems["graph_refine"]
    assert tables["refine:I"]["training_images"] == sum(phase.images for phase in refine.phases)


@pytest.mark.parametrize(
    ("name", "scale", "seeds", "message"),
    [
        ("jgr:9", "tiny", 1, "no table 'jgr:9'; there are jgr:1, "),
        ("jgr:1", "huge", 1, "no scale 'huge'; there are tiny, small and paper"),
        ("jgr:1", "paper", 1, "scale paper needs --root, the folder of nyu"),
        ("jgr:1", "tiny", 0, "seeds is 0, expected 1 or more"),
    ],
)
def test_what_cannot_be_reproduced_is_said(name, scale, seeds, message, tmp_path):
    with pytest.raises(ConfigError, match=message):
        reproduce(name, scale, tmp_path, seeds=seeds)
