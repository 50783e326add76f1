"""The hand model: shape and pose to mesh and joints, and the files it comes from."""

from .files import TIP_VERTICES, HandModel, Side, load_mano, load_open_hand
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
