"""`evaluate` on data sets in their original layout, with networks that have learned nothing."""

import json
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from dataset_writers import write_icvl, write_msra, write_nyu, write_synthetic

from handgraph import cli, systems
from handgraph.datasets.layouts import WRITERS
from handgraph.training.checkpoint import save_weights

CONFIG: dict[str, dict[str, Any]] = {
    "hourglass": {"width": 16, "input_size": 64, "stacks": 2, "depth": 2, "form": "compact", "growth": 8},
    "jgr_p2o": {"width": 16, "input_size": 32, "hourglasses": 1},
    "graph_refine": {"width": 16, "blocks": 2, "input_size": 64},
}
WRITE = {
    "nyu": write_nyu,
    "icvl": write_icvl,
    "msra": lambda root: write_msra(root, subjects=(0,)),
    **WRITERS,
}


def evaluate(
    capfd: pytest.CaptureFixture[str],
    folder: Path,
    data: str,
    model: str = "hourglass",
    *further: str,
    trained: dict[str, Any] | None = None,
    write: Callable[..., Any] | None = None,
    **layout: Any,
) -> tuple[int, str, str]:
    """Exit code, what is printed and what is said of a fresh network on a fresh tree of the data set."""
    system: ModuleType = getattr(systems, model)
    config, weights = system.Config(**CONFIG[model]), folder / "weights.safetensors"
    save_weights(
        weights, config.build(), model, config, meta={"recipe": {"data": trained}} if trained else None
    )
    (write or WRITE[data.partition(":")[0]])(folder / "set", **layout)
    arguments = ["--checkpoint", str(weights), "--root", str(folder / "set"), "--json", *further]
    code = cli.main(["evaluate", "--data", data, *arguments])
    return code, *capfd.readouterr()


def test_without_a_split_it_is_the_one_that_is_not_trained_on(
    capfd: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    code, out, err = evaluate(capfd, tmp_path, "coco_wholebody", "hourglass", "--samples", "1")
    assert code == 0, err  # it has train and validation
    assert json.loads(out)["n"] == 1


def test_a_split_without_frames_is_named(capfd: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    code, _, err = evaluate(capfd, tmp_path, "panoptic:test")
    assert code == 2
    assert "--data panoptic:test: no frame of what" in err


@pytest.mark.parametrize(
    ("data", "layout", "count"),
    [
        ("rhd:test", {"samples": 3, "parts": ("evaluation",)}, 3),
        ("stb:test", {}, 2),
        ("dexycb:s1_val", {"subjects": (6,)}, 8),
    ],
)
def test_depth_systems_see_the_depth_of_sets_with_both(
    capfd: pytest.CaptureFixture[str], tmp_path: Path, data: str, layout: dict[str, Any], count: int
) -> None:
    code, out, err = evaluate(capfd, tmp_path, data, "jgr_p2o", "--partial", **layout)
    assert code == 0, err
    found = json.loads(out)
    assert found["n"] >= count
    # An untrained network answers near the crop's middle, which is the hand's: nowhere else would do.
    assert found["mpjpe_mm"] < 150


@pytest.mark.parametrize("split", ["s0_val", "s1_test", "s2_val", "s3_train"])
def test_dexycb_has_its_own_splits(capfd: pytest.CaptureFixture[str], tmp_path: Path, split: str) -> None:
    code, out, err = evaluate(
        capfd, tmp_path, f"dexycb:{split}", "hourglass", "--partial", subjects=(0, 7), sequences=5
    )
    assert code == 0, err
    # One labelled frame a sequence. s0: every fifth sequence of subjects 0 and 1; s1: of subjects 7 and 8
    # all; s2: of one camera; s3: of objects (by fives) that are not held out, so all there are.
    assert json.loads(out)["n"] == {"s0_val": 8, "s1_test": 40, "s2_val": 10, "s3_train": 80}[split]
    assert f"dexycb:{split}: of what is there; not the published split's figures" in err


def test_panoptic_is_divided_and_cropped_as_the_model_was_trained(
    capfd: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    counts, errors = {}, {}
    for name, trained in (
        ("as published", None),
        ("trained", {"name": "panoptic", "options": {"margin": 2.2, "reader": {"protocol": "80/10/10"}}}),
        ("trained on others", {"name": "mpii_nzsl", "options": {"margin": 2.2, "reader": {"seed": 9}}}),
    ):
        code, out, err = evaluate(
            capfd, tmp_path / name, "panoptic:test", trained=trained, samples=20, size=(640, 360)
        )
        assert code == 0, err
        counts[name], errors[name] = json.loads(out)["n"], err
    assert counts == {"as published": 3, "trained": 2, "trained on others": 3}  # 15 or 10 % of 20
    assert errors["as published"].count("\n") <= 1
    assert "panoptic:test: as it was trained, margin=2.2, protocol=80/10/10" in errors["trained"]
    assert "panoptic:test: as it was trained, margin=2.2\n" in errors["trained on others"]


def test_what_places_hands_before_a_camera_gets_mhp_with_its_camera(
    capfd: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    code, out, err = evaluate(capfd, tmp_path, "mhp:test", "graph_refine", "--samples", "2", frames=(0,))
    assert code == 0, err
    found = json.loads(out)
    assert found["n"] == 2
    assert found["alignment"] == "none"
    assert found["mpjpe_mm"] > found["root_relative_mpjpe_mm"] > 0


@pytest.mark.parametrize(
    ("data", "model", "message"),
    [
        ("nyu", "hourglass", "--data nyu: holds depth frames, no photographs: take a model for depth frames"),
        ("icvl:test", "graph_refine", "--data icvl:test: holds depth frames, no photographs: take a model"),
        ("freihand:test", "jgr_p2o", "holds photographs, no depth frames: take a model for photographs, or "
                                     "one of dexycb, icvl, msra, nyu, rhd, stb, synthetic"),
        ("nyu", "jgr_p2o", "has 14 joints, this model predicts 21: give one that is trained for them"),
        ("msra:P9", "jgr_p2o", "--data msra:P9: no split 'P9'; there are P0"),
    ],
)  # fmt: skip
def test_sets_that_do_not_fit_are_refused_in_one_line(
    capfd: pytest.CaptureFixture[str], tmp_path: Path, data: str, model: str, message: str
) -> None:
    code, _, err = evaluate(capfd, tmp_path, data, model)
    assert code == 2
    assert err.count("\n") == 1
    assert message in err


@pytest.mark.parametrize(
    ("model", "lacking", "modality"),
    [("hourglass", "photograph", "rgb"), ("jgr_p2o", "depth frame", "depth")],
)
def test_synthetic_folders_say_what_they_lack(
    capfd: pytest.CaptureFixture[str], tmp_path: Path, model: str, lacking: str, modality: str
) -> None:
    def write(root: Path) -> None:
        write_synthetic(root)
        if lacking == "depth frame":  # at opening it is enough what the labels call the files
            labels = root / "labels.jsonl"
            labels.write_text(labels.read_text().replace('"file":', '"image":'))

    code, _, err = evaluate(capfd, tmp_path, "synthetic", model, write=write)
    assert code == 2
    assert f"3 of 3 frames have no {lacking}; handgraph synthesize --modality {modality} writes them\n" in err
    assert err.count("\n") == 1
