"""handgraph: structured (graph-based) hand-pose systems, trained, measured and ready to use."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from handgraph.camera import Crop, PinholeCamera
from handgraph.errors import (
    CheckpointError,
    ConfigError,
    FormatError,
    HandgraphError,
    InputError,
    MissingExtraError,
)
from handgraph.hand import Hand

if TYPE_CHECKING:
    from handgraph import systems
    from handgraph.colour import ColourEstimator
    from handgraph.estimator import Estimator, load

__version__ = "0.1.0"

__all__ = [
    "CheckpointError",
    "ColourEstimator",
    "ConfigError",
    "Crop",
    "Estimator",
    "FormatError",
    "Hand",
    "HandgraphError",
    "InputError",
    "MissingExtraError",
    "PinholeCamera",
    "load",
    "systems",
]


def __getattr__(name: str) -> Any:
    """What needs PyTorch is imported when it is first asked for, so that `import handgraph` is quick."""
    if name in ("ColourEstimator", "Estimator", "load"):
        return getattr(import_module("handgraph.estimator"), name)
    if name == "systems":
        return import_module("handgraph.systems")
    raise AttributeError(f"module 'handgraph' has no attribute {name!r}")
