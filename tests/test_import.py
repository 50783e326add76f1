"""What can be imported, and what importing costs. A change of the public names is an edit of this list."""

import importlib
import importlib.metadata
import json
import subprocess
import sys
from pathlib import Path

import pytest

import handgraph

PUBLIC = {
    "handgraph": """
        CheckpointError ColourEstimator ConfigError Crop Estimator FormatError Hand HandgraphError InputError
        MissingExtraError PinholeCamera load systems
    """,
    "handgraph.formats": """
        ClipHeader FrameHands ImageHands LinesWriter Predictions from_document read_coco read_json read_lines
        read_parquet to_document write_coco write_coco_results write_json write_parquet
    """,
    "handgraph.hand_model": """
        HandLayer HandMesh HandModel Side TIP_VERTICES load_mano load_open_hand rotation_matrices
    """,
}
HEAVY = ("torch", "numba", "matplotlib", "pyarrow", "trimesh", "scipy", "onnx", "onnxruntime", "tensorboard")
PACKAGE = Path(handgraph.__file__).parent
MODULES = sorted(
    ".".join(("handgraph", *file.relative_to(PACKAGE).with_suffix("").parts))
    for file in PACKAGE.rglob("*.py")
    if file.name not in ("__init__.py", "__main__.py")
)


@pytest.mark.parametrize("name", PUBLIC)
def test_public_names_are_these(name):
    module = importlib.import_module(name)
    assert sorted(module.__all__) == sorted(PUBLIC[name].split())
    for public in module.__all__:
        assert getattr(module, public) is not None


@pytest.mark.parametrize("name", MODULES)
def test_every_module_imports(name):
    importlib.import_module(name)


def imported(code: str) -> set[str]:
    """The packages that a fresh interpreter has loaded after some code."""
    shown = subprocess.run(
        [sys.executable, "-c", f"{code}; import json, sys; print(json.dumps(list(sys.modules)))"],
        capture_output=True,
        text=True,
        check=True,
    )
    return {name.partition(".")[0] for name in json.loads(shown.stdout)}


def test_importing_handgraph_is_light():
    """The name alone, `handgraph --help` and a look at the camera must not wait for PyTorch or a compiler."""
    assert not {*HEAVY, "jaxtyping"} & imported("import handgraph")


def test_the_way_to_an_answer_in_onnx_runtime_is_light():
    """All that `predict --runtime onnx` imports by name; what runs the network comes with the weights."""
    names = "cli predicting estimator colour finder localize runtime subject decoding"
    code = "; ".join(f"import handgraph.{name}" for name in names.split())
    loaded = imported(f"{code}; from handgraph import systems; systems.names(); handgraph.load")
    assert not {*HEAVY, "jaxtyping", "safetensors", "tqdm", "yaml"} & loaded


def test_systems_are_imported_when_asked_for():
    assert "torch" not in imported("from handgraph import systems; systems.names()")
    code = "from handgraph import systems; assert systems.cpm.Config().stages == 6"
    loaded = f"{code}; import sys; assert 'handgraph.systems.siapose' not in sys.modules"
    assert "torch" in imported(loaded)
    with pytest.raises(AttributeError, match=r"module 'handgraph\.systems' has no attribute 'toes'"):
        handgraph.systems.toes  # noqa: B018


def test_other_names_are_refused_as_python_does():
    with pytest.raises(AttributeError, match="module 'handgraph' has no attribute 'lod'"):
        handgraph.lod  # noqa: B018


def test_version_is_the_packages_own():
    assert handgraph.__version__ == importlib.metadata.version("handgraph")
