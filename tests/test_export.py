"""ONNX files: they answer as PyTorch does, say what they are, and are not written when they do not."""

import json

import onnx
import onnxruntime
import pytest
import torch

from handgraph import export
from handgraph.errors import CheckpointError, HandgraphError
from handgraph.systems import jgr_p2o
from handgraph.training.checkpoint import save_weights


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    torch.manual_seed(0)
    config = jgr_p2o.Config(width=16, input_size=32, hourglasses=1)
    path = tmp_path_factory.mktemp("weights") / "small.safetensors"
    save_weights(path, config.build(), "jgr_p2o", config)
    return path


@pytest.fixture(scope="module")
def exported(weights):
    out = weights.with_name("small.onnx")
    return out, export.export(weights, out)


def test_hands_are_the_same_in_both_runtimes(exported):
    out, result = exported
    assert result["file"] == str(out)
    assert 0 <= result["max_diff_px"] < 1e-3
    assert 0 <= result["max_diff_mm"] < 1e-2
    assert result["ms_torch"] > 0
    assert result["ms_onnx"] > 0


def test_any_batch_size_runs(exported):
    session = onnxruntime.InferenceSession(exported[0], providers=["CPUExecutionProvider"])
    for batch in (1, 5):
        answered = session.run(["uvz.0"], {"image": torch.ones(batch, 1, 32, 32).numpy()})
        assert answered[0].shape == (batch, 21, 3)


def test_the_file_says_what_it_is(exported):
    model = onnx.load(exported[0])
    about = json.loads(next(entry.value for entry in model.metadata_props if entry.key == "handgraph"))
    assert about["system"] == "jgr_p2o"
    assert about["config"]["input_size"] == 32
    assert about["inputs"] == [entry.name for entry in model.graph.input] == ["image"]
    assert about["outputs"] == [entry.name for entry in model.graph.output]
    assert "mm" in about["input"]
    assert model.opset_import[0].version == export.OPSET


def test_a_file_that_answers_otherwise_is_not_written(weights, tmp_path, monkeypatch):
    monkeypatch.setattr(export, "_hands_differ", lambda *args: (0.2, 0.01))
    with pytest.raises(HandgraphError, match=r"not written, its hands differ .* by 0.2 px and 0.01 mm"):
        export.export(weights, tmp_path / "x.onnx")
    assert not list(tmp_path.iterdir())


def test_damaged_weights_are_refused(tmp_path):
    (tmp_path / "bad.safetensors").write_bytes(b"nonsense")
    with pytest.raises(CheckpointError, match="not a whole safetensors file"):
        export.export(tmp_path / "bad.safetensors", tmp_path / "x.onnx")
