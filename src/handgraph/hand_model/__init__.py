"""The hand model: shape and pose to mesh and joints, and the files it comes from."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from .files import TIP_VERTICES, HandModel, Side, load_mano, load_open_hand

if TYPE_CHECKING:
    from .layer import HandLayer, HandMesh, rotation_matrices

__all__ = [
    "TIP_VERTICES",
    "HandLayer",
    "HandMesh",
    "HandModel",
    "Side",
    "load_mano",
    "load_open_hand",
    "rotation_matrices",
]


def __getattr__(name: str) -> Any:
    """The layer needs PyTorch, which is imported when it is first asked for."""
    if name in ("HandLayer", "HandMesh", "rotation_matrices"):
        return getattr(import_module("handgraph.hand_model.layer"), name)
    raise AttributeError(f"module 'handgraph.hand_model' has no attribute {name!r}")
