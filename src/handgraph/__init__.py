"""handgraph: structured (graph-based) hand-pose systems, trained, measured and ready to use."""

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

__version__ = "0.1.0"

__all__ = [
    "CheckpointError",
    "ConfigError",
    "Crop",
    "FormatError",
    "Hand",
    "HandgraphError",
    "InputError",
    "MissingExtraError",
    "PinholeCamera",
]
