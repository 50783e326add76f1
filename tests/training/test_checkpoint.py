"""Weights files: the same weights come back, and whatever is wrong with a file is one line that names it."""

import json
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import toy
from safetensors.torch import load_file, save_file

from handgraph.errors import CheckpointError, ConfigError
from handgraph.training import checkpoint
from handgraph.training.checkpoint import find_system, load_system, read_meta, save_weights


@pytest.fixture(autouse=True)
def toy_system(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "handgraph.systems.toy", toy)


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    config = toy.Config(width=4)
    save_weights(tmp_path / "w.safetensors", config.build(), "toy", config, meta={"trained_on": "nothing"})
    return tmp_path / "w.safetensors"


def test_weights_come_back_with_what_they_are(tmp_path: Path) -> None:
    config = toy.Config(width=4, dropout=0.5)
    module = config.build()
    save_weights(tmp_path / "w.safetensors", module, "toy", config, meta={"trained_on": "nothing"})
    for path in (tmp_path / "w.safetensors", tmp_path / "w"):  # as in load(checkpoint="run/last")
        loaded, system, back, meta = load_system(path)
        assert (system, back, meta["trained_on"]) == ("toy", config, "nothing")
        assert not loaded.training
        for name, tensor in module.state_dict().items():
            assert torch.equal(loaded.state_dict()[name], tensor)


def test_half_precision_halves_parameters_and_leaves_statistics(tmp_path: Path) -> None:
    config = toy.Config(width=4)
    module = config.build()
    module.body[1].running_var.fill_(1e-9)  # below float16
    save_weights(tmp_path / "h.safetensors", module, "toy", config, half=True)
    assert load_file(tmp_path / "h.safetensors")["head.weight"].dtype == torch.float16
    loaded = load_system(tmp_path / "h")[0]
    assert loaded.head.weight.dtype == torch.float32
    torch.testing.assert_close(loaded.head.weight, module.head.weight, rtol=1e-3, atol=1e-6)
    assert torch.equal(loaded.body[1].running_var, module.body[1].running_var)
    torch.nn.init.constant_(module.head.weight, 1e6)
    with pytest.raises(CheckpointError, match=r"head\.weight does not fit float16"):
        save_weights(tmp_path / "big.safetensors", module, "toy", config, half=True)
    assert not (tmp_path / "big.safetensors").exists()


def test_last_of_a_run_predicts_with_the_mean_weights(tmp_path: Path) -> None:
    settings = toy.recipe(ema=0.9, stages={"all": {"steps": 3}, "head": None})
    toy.run(settings, tmp_path)
    loaded, _, _, meta = load_system(tmp_path / "last")
    tensors = load_file(tmp_path / "last.safetensors")
    assert meta["step"] == 3
    assert torch.equal(loaded.head.weight, tensors["head.weight"])
    assert not torch.equal(loaded.head.weight, tensors["training/weights/head.weight"])
    assert not any(name.startswith("training/") for name in load_file(tmp_path / "best.safetensors"))


def damage(path: Path, how: str) -> None:
    content = path.read_bytes()
    tensors, meta = load_file(path), read_meta(path)
    if how == "empty":
        path.write_bytes(b"")
    elif how == "cut":
        path.write_bytes(content[:-20])
    elif how == "text":
        path.write_text("these are not weights")
    elif how == "foreign":
        save_file(tensors, path)
    elif how == "no json":
        save_file(tensors, path, {"handgraph": "{"})
    elif how == "newer":
        save_file(tensors, path, {"handgraph": json.dumps(meta | {"format_version": 99})})
    elif how == "no system":
        save_file(tensors, path, {"handgraph": json.dumps(meta | {"system": "poker"})})
    elif how == "path as system":
        save_file(tensors, path, {"handgraph": json.dumps(meta | {"system": "..cli"})})
    elif how == "no config":
        save_file(tensors, path, {"handgraph": json.dumps({k: v for k, v in meta.items() if k != "config"})})
    elif how == "wrong config":
        save_file(tensors, path, {"handgraph": json.dumps(meta | {"config": {"widht": 4}})})
    elif how == "other config":
        save_file(tensors, path, {"handgraph": json.dumps(meta | {"config": {"width": 8}})})
    elif how == "renamed":
        tensors["tail.weight"] = tensors.pop("head.weight")
        save_file(tensors, path, {"handgraph": json.dumps(meta)})


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ("empty", "not a whole safetensors file"),
        ("cut", "not a whole safetensors file"),
        ("text", "not a whole safetensors file"),
        ("foreign", "safetensors without handgraph's description"),
        ("no json", "its description is not a JSON object"),
        ("newer", "format version 99, this handgraph reads 1"),
        ("no system", "unknown system 'poker', expected one of .*jgr_p2o"),
        ("path as system", r"unknown system '\.\.cli'"),
        ("no config", "its description lacks 'config'"),
        ("wrong config", r"unknown key config\.widht, .*did you mean width"),
        (
            "other config",
            r"architecture, body\.0\.weight has shape \(4, 1, 3, 3\), expected \(8, 1, 3, 3\)",
        ),
        ("renamed", r"1 missing \(first: head\.weight\), 1 unexpected \(first: tail\.weight\)"),
    ],
)
def test_damaged_and_foreign_files_are_one_line(saved: Path, how: str, message: str) -> None:
    damage(saved, how)
    with pytest.raises(CheckpointError, match=message) as caught:
        load_system(saved)
    assert str(saved) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_damaged_numbers_are_refused_when_loading(tmp_path: Path) -> None:
    config = toy.Config(width=4)
    module = config.build()
    with torch.no_grad():
        module.head.weight[0, 0] = torch.nan
    save_weights(tmp_path / "w.safetensors", module, "toy", config)
    with pytest.raises(CheckpointError, match=r"w\.safetensors: head\.weight holds numbers that are not"):
        load_system(tmp_path / "w")


def test_missing_files_and_folders(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"gone: no such weights file, nor gone\.safetensors beside it"):
        load_system(tmp_path / "gone")
    with pytest.raises(CheckpointError, match=r"is a folder, expected a weights file such as .*last"):
        load_system(tmp_path)


def test_weights_alone_cannot_be_resumed(saved: Path) -> None:
    with pytest.raises(CheckpointError, match="holds weights only, no training state to resume from"):
        checkpoint.read_training(saved)


def test_failed_write_leaves_the_old_file_and_nothing_else(
    saved: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = saved.read_bytes()

    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("handgraph.files.os.fsync", full)
    with pytest.raises(Exception, match="cannot be written"):
        save_weights(saved, toy.Config().build(), "toy", toy.Config())
    assert saved.read_bytes() == before
    assert [path.name for path in saved.parent.iterdir()] == [saved.name]


def test_unknown_system() -> None:
    assert find_system("toy") is toy
    with pytest.raises(ConfigError, match="unknown system 'os', expected one of "):
        find_system("os")


def test_a_part_can_lie_in_another_file(tmp_path: Path) -> None:
    config = toy.Config(width=4)
    module = config.build()
    save_weights(tmp_path / "lender.safetensors", module, "toy", config, half=True)
    save_weights(
        tmp_path / "w.safetensors",
        module,
        "toy",
        config,
        half=True,
        parts={"body.": ("lender.safetensors", "body.")},
    )
    assert not any(name.startswith("body.") for name in load_file(tmp_path / "w.safetensors"))
    whole, parted = (load_system(tmp_path / name)[0].state_dict() for name in ("lender", "w"))
    assert all(torch.equal(whole[name], parted[name]) for name in whole)

    other = config.build()
    with pytest.raises(CheckpointError, match=r"body\.\* are those of another lender\.safetensors"):
        save_weights(
            tmp_path / "x.safetensors", other, "toy", config, parts={"body.": ("lender.safetensors", "body.")}
        )
    assert not (tmp_path / "x.safetensors").exists()
    save_weights(tmp_path / "lender.safetensors", other, "toy", config, half=True)
    with pytest.raises(CheckpointError, match=r"w\.safetensors: its body\.\* are those of another lender"):
        load_system(tmp_path / "w")
    (tmp_path / "lender.safetensors").unlink()
    with pytest.raises(CheckpointError, match=r"are those of lender\.safetensors, which is not beside it"):
        load_system(tmp_path / "w")


@pytest.mark.parametrize("where", [{}, {"file": "../w", "prefix": "", "digest": ""}, "lender"])
def test_parts_that_are_nowhere(tmp_path: Path, where: Any) -> None:
    config = toy.Config(width=4)
    save_weights(tmp_path / "w.safetensors", config.build(), "toy", config, meta={"parts": {"body.": where}})
    with pytest.raises(CheckpointError, match=r"does not say where body\.\* are"):
        load_system(tmp_path / "w")
