"""ONNX files: they answer as PyTorch does, say what they are, and are not written when they do not.

Every system is exported whole, tiny and untrained, in the slow tests; a depth and a colour one always.
"""

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import onnx
import onnxruntime
import pytest
import torch

import handgraph as hg
from handgraph import export, images, keypoints, runtime, skeleton, systems
from handgraph.answering import TorchNetwork
from handgraph.decoding import decoder
from handgraph.errors import CheckpointError, ConfigError, HandgraphError, InputError, MissingExtraError
from handgraph.estimator import shipped_weights
from handgraph.networks.cpm import PoseMachineShape
from handgraph.networks.stacked_hourglass import HourglassShape
from handgraph.training.checkpoint import load_system, save_weights

MACHINE = PoseMachineShape(stages=2, width=8, stride=4, norm=True)
GLASS = HourglassShape(1, 16, 2, "compact")
SIAPOSE = {"unary": "hourglass", "hourglass": GLASS, "input_size": 64, "layers": 2, "kernel_size": 15}
MODELS = {"cpm": MACHINE, "input_size": 64, "kernel_size": 15}

QUICK = {
    "jgr_p2o": ("jgr_p2o", {"width": 16, "input_size": 32, "hourglasses": 1}),
    "siapose": ("siapose", {**SIAPOSE, "heads": 2, "pointer": "small", "decode": "local"}),
}
SLOW: dict[str, tuple[str, dict[str, Any]]] = {
    "jgr_p2o, NYU's joints": ("jgr_p2o", {"width": 16, "input_size": 32, "joints": 14}),
    "siapose, turned upright": ("siapose", {**SIAPOSE, "heads": 1, "rotation": "vector", "pointer": "small"}),
    "cpm": ("cpm", {"width": 16, "input_size": 64, "stages": 2, "stride": 4, "norm": True}),
    "hourglass": (
        "hourglass",
        {"width": 16, "input_size": 64, "stacks": 2, "depth": 2, "form": "compact", "growth": 8},
    ),
    "agmn": ("agmn", {**MODELS, "pairwise": MACHINE}),
    "rmgmn": ("rmgmn", {**MODELS, "models": 2, "rotation_backbone": "small", "classifier": "small"}),
    "hybrid_gcn": ("hybrid_gcn", {"width": 8, "hidden": 32, "input_size": 64}),
    "hybrid_gcn, nearest neighbours": (
        "hybrid_gcn",
        {"width": 8, "hidden": 32, "input_size": 64, "refinement": "knn", "relations": False},
    ),
    "graph_refine": ("graph_refine", {"width": 16, "blocks": 2, "input_size": 64}),
    "graph_refine, 6D": (
        "graph_refine",
        {"width": 16, "blocks": 2, "input_size": 64, "rotation": "6d", "refinement": "fc"},
    ),
    "graph_refine, through keypoints": (
        "graph_refine",
        {
            "width": 16,
            "blocks": 2,
            "input_size": 64,
            "rotation": "6d",
            "backbone": "hourglass",
            "keypoints": HourglassShape(1, 16, 2, "compact", distribution=True),
        },
    ),
    # With the shipped weights: without training, its hands lie where no millimetre fits into a float32.
    "identity_mesh": ("identity_mesh", {"shape": "regressed"}),
    "identity_mesh, shape given": ("identity_mesh", {"shape": "given"}),
}


def network(name: str, config: dict[str, Any]) -> tuple[torch.nn.Module, Any]:
    """Random weights; the norms have seen a batch, and no parameter is left at the zero it starts with.

    Of identity_mesh those that are shipped.
    """
    if name == "identity_mesh":
        trained, _, found, _ = load_system(shipped_weights(name))
        made = replace(found, **config)
        module = made.build()
        weights = module.state_dict()
        module.load_state_dict({key: value for key, value in trained.state_dict().items() if key in weights})
        return module.eval(), made
    torch.manual_seed(0)
    made = getattr(systems, name).Config(**config)
    module = made.build().train()
    with torch.no_grad():
        for parameter in module.parameters():
            if not parameter.any():
                parameter.normal_(0, 0.1)
        image = export.sample_crops(getattr(systems, name).INPUT, made.input_size)[0]
        for _ in range(3):
            module(torch.from_numpy(image))
    return module.eval(), made


def written(folder: Path, name: str, config: dict[str, Any]) -> Path:
    module, made = network(name, config)
    path = folder / f"{name}.safetensors"
    save_weights(path, module, name, made, meta={"trained_on": "nothing"})
    return path


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Path, Path, dict[str, Any]]]:
    """Weights, ONNX file and report of the quick systems."""
    folder = tmp_path_factory.mktemp("files")
    found = {}
    for name, (system, config) in QUICK.items():
        weights = written(folder, system, config)
        out = folder / f"{name}.onnx"
        found[name] = weights, out, export.export(weights, out)
    return found


@pytest.mark.parametrize("name", QUICK)
def test_hands_are_the_same_in_both_runtimes(name: str, files: Any) -> None:
    weights, out, report = files[name]
    assert report["file"] == str(out)
    assert 0 <= report["max_diff_px"] <= export.MOST_PX
    assert report["pictures"] >= 12
    assert report["ms_torch"] > 0
    assert report["ms_onnx"] > 0
    # And those of the estimators, whose way there is the same.
    ours, theirs = hg.load(checkpoint=weights), hg.load(checkpoint=out)
    assert (theirs.name, theirs.runtime, ours.runtime) == (name, "onnx", "torch")
    ours.least_score = theirs.least_score = 0.0
    folder = Path(hg.__file__).parent / "samples"
    if name == "jgr_p2o":
        frame = images.read_depth(folder / "depth_000009.png").depth_mm
        options = {"camera": hg.PinholeCamera(241.0, 241.0, 155.0, 119.0), "box": (0.0, 0.0, 320.0, 240.0)}
    else:
        frame = images.read_image(folder / "image_000009.jpg")
        options = {"box": (200.0, 100.0, 220.0, 220.0), "side": "right"}
    for a, b in zip(ours(frame, **options), theirs(frame, **options), strict=True):
        np.testing.assert_allclose(a.keypoints_px, b.keypoints_px, atol=0.05)
        np.testing.assert_allclose(a.confidence, b.confidence, atol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("case", SLOW)
def test_every_system_is_exported_whole(case: str, tmp_path: Path) -> None:
    """Any number of crops, hands within the bounds; `exported` itself has compared them on the pictures."""
    name, config = SLOW[case]
    module, made = network(name, config)
    content, answering = export.exported_system(module, name, made, {}, "here")
    loaded = runtime.OnnxNetwork(content, "here")
    assert loaded.about["parity"]["max_diff_px"] <= export.MOST_PX
    if answering.fields != ("uv", "confidence"):
        assert loaded.about["parity"]["max_diff_mm"] <= export.MOST_MM
    image, _ = export.sample_crops(loaded.input, made.input_size)
    network_ = TorchNetwork(module, name, made)
    for count in (1, 2, 5):
        ours, theirs = network_(image[:count]), loaded(image[:count])
        for field in answering.fields:
            a, b = getattr(ours, field), getattr(theirs, field)
            assert a.shape == b.shape
            np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-3, err_msg=field)
    if loaded.takes_shape:
        shape = np.linspace(-1, 1, 10, dtype=np.float32)[None].repeat(2, axis=0)
        shape[1] = np.nan
        ours, theirs = network_(image[:2], shape), loaded(image[:2], shape)
        np.testing.assert_allclose(theirs.shape, ours.shape, atol=1e-5)
        np.testing.assert_allclose(theirs.shape[0], shape[0], atol=1e-6)
        assert np.isfinite(theirs.shape[1]).all()
        np.testing.assert_allclose(theirs.vertices_mm, ours.vertices_mm, atol=1e-2)


@pytest.mark.slow
def test_a_still_hand_is_not_nan() -> None:
    """Rotation by nothing: the constant that guards the division must outlive the exporter's optimiser."""
    from handgraph.hand_model import HandLayer

    class Posed(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = HandLayer()

        def forward(self, pose: torch.Tensor) -> torch.Tensor:
            vertices: torch.Tensor = self.layer(pose[:, :10] * 0, pose).vertices_mm
            return vertices

    pose = torch.zeros(3, 48)
    pose[1] = 0.3 * torch.randn(48, generator=torch.Generator().manual_seed(0))
    pose[2, 5] = 1e-9
    program = torch.onnx.export(Posed(), (pose,), dynamo=True, opset_version=runtime.OPSET, verbose=False)
    session = onnxruntime.InferenceSession(
        program.model_proto.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    (found,) = session.run(None, {session.get_inputs()[0].name: pose.numpy()})
    np.testing.assert_allclose(found, Posed()(pose).numpy(), atol=1e-3)


def test_the_file_says_what_it_is(files: Any) -> None:
    model = onnx.load(files["jgr_p2o"][1])
    about = json.loads(next(entry.value for entry in model.metadata_props if entry.key == "handgraph"))
    assert (about["system"], about["kind"], about["format_version"]) == ("jgr_p2o", "depth", 1)
    assert about["config"]["input_size"] == about["crop"]["size"] == 32
    assert list(about["inputs"]) == [entry.name for entry in model.graph.input] == ["image"]
    assert list(about["outputs"]) == [entry.name for entry in model.graph.output] == ["uvz", "spread"]
    assert about["parity"]["max_diff_mm"] == files["jgr_p2o"][2]["max_diff_mm"] <= export.MOST_MM
    assert about["joints"] == list(skeleton.JOINT_NAMES)
    assert about["weights"]["trained_on"] == "nothing"
    assert model.opset_import[0].version == runtime.OPSET
    assert runtime.description(files["jgr_p2o"][1].read_bytes(), "x") == about
    assert hg.load(checkpoint=files["jgr_p2o"][1]).meta["trained_on"] == "nothing"


def test_the_described_crop_is_the_one_that_is_made(files: Any) -> None:
    """The recipe in the metadata, followed to the letter with NumPy alone."""
    about = runtime.description(files["siapose"][1].read_bytes(), "x")["crop"]
    rng = np.random.default_rng(0)
    picture = cv2.resize(rng.integers(0, 256, (12, 16, 3), np.uint8), (160, 120))
    x, y, side, size = 31.0, 22.0, 70.0, about["size"]
    crop = hg.Crop.window((x, y, side, side), size)
    ours = images.to_network(crop.apply_image(picture)[None])[0]
    at = np.linspace(0, side - 1, size)
    columns, rows = np.meshgrid(x + at, y + at)
    left, top = np.floor(columns).astype(int), np.floor(rows).astype(int)
    across, down = (columns - left)[..., None], (rows - top)[..., None]
    rgb = (
        picture[top, left] * (1 - across) * (1 - down)
        + picture[top, left + 1] * across * (1 - down)
        + picture[top + 1, left] * (1 - across) * down
        + picture[top + 1, left + 1] * across * down
    )
    wanted = ((rgb / 255 - about["mean"]) / about["std"]).transpose(2, 0, 1)
    # OpenCV rounds positions to a 32nd of a pixel and colours to whole numbers.
    assert np.abs(ours - wanted).max() < 0.25
    assert np.abs(ours - wanted).mean() < 0.02


@pytest.mark.parametrize(
    ("name", "apart", "said"),
    [
        ("jgr_p2o", 0.06, r"by \S+ px and 0\.06\d* mm, expected at most 0\.05 px and 0\.05 mm"),
        ("jgr_p2o", np.nan, r"by nan px and nan mm, expected at most 0\.05 px and 0\.05 mm"),
        ("siapose", 0.06, r"by 0\.06\d* px, expected at most 0\.05 px$"),
        ("jgr_p2o", 0.04, None),
        ("siapose", 0.04, None),
    ],
)
def test_a_file_whose_hands_are_too_far_off_gets_no_name(
    name: str, apart: float, said: str | None, files: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What torch's exporter gives, with something added to an output that moves the hands by `apart`."""
    weights, out, _ = files[name]
    model, size = onnx.load(out), QUICK[name][1]["input_size"]
    _, crops = export.sample_crops(getattr(systems, name).INPUT, size)
    if name == "jgr_p2o":  # mm in depth
        shift = np.array([0, 0, apart / max(crop.cube_mm / 2 for crop in crops)], np.float32)
        if np.isnan(apart):
            shift[:] = np.nan
    else:  # px to the right
        shift = np.array([apart / (size - 1) / max(px_of_crop(crop) for crop in crops), 0], np.float32)
    (node,) = [node for node in model.graph.node if model.graph.output[0].name in node.output]
    place = list(node.output).index(model.graph.output[0].name)
    node.output[place] = "before"
    model.graph.initializer.append(onnx.numpy_helper.from_array(shift, "shift"))
    model.graph.node.append(onnx.helper.make_node("Add", ["before", "shift"], [model.graph.output[0].name]))
    monkeypatch.setattr(export, "_program", lambda *_: SimpleNamespace(model_proto=model))
    if said is None:
        found = export.export(weights, tmp_path / "x.onnx")
        largest = found["max_diff_mm" if name == "jgr_p2o" else "max_diff_px"]
        assert largest == pytest.approx(apart, abs=0.001)
        assert [path.name for path in tmp_path.iterdir()] == ["x.onnx"]
    else:
        (tmp_path / "x.onnx").write_bytes(b"an older file")
        with pytest.raises(HandgraphError, match=f"{weights}: not exported, its hands differ .* {said}"):
            export.export(weights, tmp_path / "x.onnx")
        assert [path.read_bytes() for path in tmp_path.iterdir()] == [b"an older file"]
        (tmp_path / "x.onnx").unlink()
        with pytest.raises(HandgraphError, match="not exported"):
            export.export(weights, tmp_path / "x.onnx")
        assert not list(tmp_path.iterdir())


def px_of_crop(crop: hg.Crop) -> float:
    """Image pixels a pixel of the crop."""
    return float(1 / np.sqrt(abs(np.linalg.det(crop.crop_from_image[:, :2]))))


def test_a_hand_far_away_is_compared_in_millimetres_too() -> None:
    decoding = decoder("jgr_p2o")
    camera = hg.PinholeCamera(241.0, 241.0, 155.0, 119.0)
    crops = [hg.Crop.cube(np.array([0.0, 0.0, 20_000.0]), 250.0, camera, 32)]
    uvz = np.random.default_rng(0).uniform(0, 1, (1, 21, 3))
    answer = decoding.Answer(uvz=uvz, spread=np.ones((1, 21)))
    other = answer._replace(uvz=uvz + np.array([0, 0, 0.06 / 125]))
    px, mm = export._hands_differ(decoding, answer, other, crops)
    assert px < 1e-6
    assert mm == pytest.approx(0.06, abs=0.002)  # joints are float32


def test_where_no_export_can_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Said before anything is read: there are no weights here, and nobody notices."""
    (tmp_path / "file").write_text("in the way")
    (tmp_path / "folder.onnx").mkdir()
    for out, said in (
        ("x.txt", r"x\.txt: expected a name that ends in \.onnx, found \.txt"),
        ("new/x", r"x: expected a name that ends in \.onnx, found no ending"),
        ("file/x.onnx", "file: cannot be made a folder"),
        ("folder.onnx", r"folder\.onnx: is a folder, expected the name of a file to write"),
    ):
        with pytest.raises(InputError, match=said):
            export.export(tmp_path / "none.safetensors", tmp_path / out)
    assert not (tmp_path / "new").exists()
    monkeypatch.setattr(runtime.os, "access", lambda *_: False)
    with pytest.raises(InputError, match=r"the folder cannot be written to, choose another for x\.onnx"):
        export.export(tmp_path / "none.safetensors", tmp_path / "x.onnx")


@pytest.mark.parametrize("out", ["x.txt", "file/x.onnx"])
def test_the_command_refuses_such_a_name_before_pytorch_is_imported(out: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    code = (
        "import sys; from handgraph.cli import main\n"
        f"code = main(['export', '--out', {str(tmp_path / out)!r}]); print(code, 'torch' in sys.modules)"
    )
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert shown.stdout.split() == ["2", "False"]
    assert shown.stderr.startswith(f"handgraph export: {tmp_path}")


def test_the_comparison_sees_a_difference(files: Any) -> None:
    loaded = runtime.load_onnx(files["siapose"][1])
    image, crops = export.sample_crops("colour", 64)
    answer = loaded(image)
    other = answer._replace(uv=answer.uv + np.float32(0.1 / 63))
    px, mm = export._hands_differ(keypoints, answer, other, crops)
    scale = max(px_of_crop(crop) for crop in crops)
    assert px == pytest.approx(0.1 * scale, rel=1e-3)
    assert mm is None


def test_what_cannot_be_exported(tmp_path: Path) -> None:
    (tmp_path / "bad.safetensors").write_bytes(b"nonsense")
    with pytest.raises(CheckpointError, match="not a whole safetensors file"):
        export.export(tmp_path / "bad.safetensors", tmp_path / "x.onnx")
    config = systems.agmn.Config(**MODELS, pairwise=MACHINE, true_kernels=True)
    with pytest.raises(ConfigError, match="here: true_kernels is an evaluation with labels"):
        export.exported_system(config.build(), "agmn", config, {}, "here")


def test_files_that_are_not_ours(files: Any, tmp_path: Path) -> None:
    content = files["jgr_p2o"][1].read_bytes()
    model = onnx.load(files["jgr_p2o"][1])
    about = json.loads(model.metadata_props[0].value)

    def described(text: str) -> bytes:
        changed = onnx.ModelProto()
        changed.CopyFrom(model)
        onnx.helper.set_model_props(changed, {"handgraph": text})
        return bytes(changed.SerializeToString())

    other = onnx.ModelProto()
    other.CopyFrom(model)
    other.opset_import[0].version = 17
    bare = onnx.ModelProto()
    bare.CopyFrom(model)
    del bare.metadata_props[:]
    empty = onnx.ModelProto()
    empty.CopyFrom(model)
    empty.graph.node[0].op_type = "Nothing"
    for what, message in (
        (content[: len(content) // 2], r"not a whole ONNX file \(\d+ bytes\); copy it again"),
        (b"", "not a whole ONNX file"),
        (b"\x89PNG\r\n\x1a\n" + bytes(100), "not a whole ONNX file"),
        (bare.SerializeToString(), "expected a file that `handgraph export` wrote"),
        (other.SerializeToString(), "ONNX operators of version 17, expected 18; export it again"),
        (described("[1]"), "its description is not a JSON object"),
        (described("{"), "its description is not a JSON object"),
        (described(json.dumps({**about, "format_version": 9})), "format version 9, this handgraph reads 1"),
        (described(json.dumps({**about, "system": "toes"})), "holds 'toes', expected one of jgr_p2o"),
        (empty.SerializeToString(), "ONNX Runtime cannot use it"),
    ):
        (tmp_path / "x.onnx").write_bytes(what)
        with pytest.raises(CheckpointError, match=message) as error:
            hg.load(checkpoint=tmp_path / "x.onnx")
        assert str(error.value).startswith(str(tmp_path / "x.onnx"))
        assert "\n" not in str(error.value)
    with pytest.raises(CheckpointError, match=r"holds weights of jgr_p2o, not of siapose"):
        hg.load("siapose", checkpoint=files["jgr_p2o"][1])
    with pytest.raises(ConfigError, match="runtime is 'tensorrt', expected one of torch, onnx"):
        runtime.check_runtime("tensorrt")
    with pytest.raises(CheckpointError, match="no such weights file"):
        hg.load(checkpoint=tmp_path / "none.onnx", runtime="onnx")


def test_without_onnx_runtime(files: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(MissingExtraError, match=r"needs onnxruntime: pip install 'handgraph\[export\]'"):
        hg.load(checkpoint=files["jgr_p2o"][1])


def test_an_export_is_made_once_and_again_when_damaged(
    files: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    weights, out, _ = files["jgr_p2o"]
    made = []

    def exported(file: Path) -> tuple[bytes, None]:
        made.append(file)
        return out.read_bytes(), None

    monkeypatch.setattr(export, "exported", exported)
    monkeypatch.setenv("HANDGRAPH_CACHE", str(tmp_path / "cache"))
    for _ in range(2):
        assert hg.load(checkpoint=weights, runtime="onnx").runtime == "onnx"
    assert made == [weights]
    (entry,) = (tmp_path / "cache").iterdir()
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert f"exporting {weights.name} for ONNX Runtime, once; kept in {tmp_path / 'cache'}" in said

    content = bytearray(entry.read_bytes())
    content[len(content) // 2] ^= 1  # in the weights, where ONNX Runtime would not notice
    entry.write_bytes(content)
    assert hg.load(checkpoint=weights, runtime="onnx").runtime == "onnx"
    assert made == [weights] * 2
    assert "again, the cached file being damaged" in capsys.readouterr().err
    assert [entry.read_bytes() for entry in (tmp_path / "cache").iterdir()] == [out.read_bytes()]

    # Other weights, or another version of handgraph, are another entry.
    monkeypatch.setattr(runtime, "__version__", "9.9")
    hg.load(checkpoint=weights, runtime="onnx")
    assert len(made) == 3
    assert len(list((tmp_path / "cache").iterdir())) == 2


def test_a_cache_that_cannot_be_written_is_done_without(
    files: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    weights, out, _ = files["jgr_p2o"]
    monkeypatch.setattr(export, "exported", lambda file: (out.read_bytes(), None))
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("HANDGRAPH_CACHE", str(tmp_path / "file" / "cache"))
    assert hg.load(checkpoint=weights, runtime="onnx").name == "jgr_p2o"
    assert "not kept" in capsys.readouterr().err


def test_a_first_use_without_pytorch_says_what_is_missing(
    files: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def absent(file: Path) -> tuple[bytes, None]:
        raise ModuleNotFoundError("No module named 'torch'", name="torch")

    monkeypatch.setattr(export, "exported", absent)
    monkeypatch.setenv("HANDGRAPH_CACHE", str(tmp_path))
    with pytest.raises(MissingExtraError, match=r"safetensors: not yet exported here, which needs torch"):
        hg.load(checkpoint=files["jgr_p2o"][0], runtime="onnx")
    assert not list(tmp_path.iterdir())


def test_where_the_cache_is(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HANDGRAPH_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    assert runtime.cache_folder() == Path.home() / ".cache" / "handgraph"
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    assert runtime.cache_folder() == Path.home() / ".cache" / "handgraph"
    monkeypatch.setenv("XDG_CACHE_HOME", "/somewhere")
    assert runtime.cache_folder() == Path("/somewhere/handgraph")
    monkeypatch.setenv("HANDGRAPH_CACHE", "/mine")
    assert runtime.cache_folder() == Path("/mine")


@pytest.mark.parametrize("name", QUICK)
def test_an_exported_file_is_answered_without_pytorch(name: str, files: Any) -> None:
    """In a process where PyTorch cannot even be imported, through the command line."""
    # With a box, since the finder in photographs has an export of its own, which a fresh machine lacks.
    sample = {"jgr_p2o": "depth_000009.png", "siapose": "image_000009.jpg"}[name]
    box = {"jgr_p2o": "0,0,320,240", "siapose": "200,100,220,220"}[name]
    code = (
        "import json, sys; sys.modules['torch'] = None\n"
        "from handgraph.cli import main\n"
        f"code = main(['predict', {str(Path(hg.__file__).parent / 'samples' / sample)!r}, '--checkpoint', "
        f"{str(files[name][1])!r}, '--box', '{box}', '--json'])\n"
        "print(json.dumps(sorted({name.partition('.')[0] for name in sys.modules})), file=sys.stderr)\n"
        "sys.exit(code)"
    )
    shown = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        env={**os.environ, "HANDGRAPH_DEBUG": "1"},
    )
    assert shown.returncode == 0, shown.stderr
    (image,) = json.loads(shown.stdout)["images"]
    assert image["file"].endswith(sample)
    loaded = set(json.loads(shown.stderr.splitlines()[-1]))
    heavy = {
        "matplotlib",
        "numba",
        "onnx",
        "onnxscript",
        "pyarrow",
        "safetensors",
        "scipy",
        "sklearn",
        "trimesh",
    }
    assert not heavy & loaded


def test_the_estimator_takes_other_joints_for_what_they_are() -> None:
    config = replace(systems.jgr_p2o.Config(width=16, input_size=32, hourglasses=1), joints=14)
    with pytest.raises(ConfigError, match="predicts 14 joints, a hand has 21"):
        hg.Estimator(TorchNetwork(config.build(), "jgr_p2o", config))
