"""MANO parameters as datasets store them, to `Sample.pose`: (48,) axis-angle, zero for the flat hand.

Datasets store finger poses relative to MANO's mean pose, some as coefficients of its principal poses. Both
are in the MANO file, which its licence lets each user fetch for themselves; without it `Sample.pose` is None.
"""

from pathlib import Path

import cv2
import numpy as np
from jaxtyping import Float

from handgraph.errors import InputError
from handgraph.hand import Side
from handgraph.hand_model.files import HandModel, load_mano

# The wrist and the five joints that the palm carries: rigid whatever the fingers do.
_PALM = (0, 13, 1, 4, 10, 7)
PALM_JOINTS = (0, 1, 5, 9, 13, 17)
"""The same in canonical order."""


def load_models(mano: str | Path | None, tips: str = "smplx") -> dict[Side, HandModel]:
    """The models of a folder with MANO_RIGHT.pkl and MANO_LEFT.pkl, or of one such file; {} for None.

    Raises InputError where there is none, FormatError for a damaged one.
    """
    if mano is None:
        return {}
    path = Path(mano)
    if path.is_file():
        model = load_mano(path, tips=tips)
        return {model.side: model}
    models: dict[Side, HandModel] = {}
    for side, name in (("right", "MANO_RIGHT.pkl"), ("left", "MANO_LEFT.pkl")):
        if (path / name).is_file():
            models[side] = load_mano(path / name, side=side, tips=tips)  # type: ignore[index, arg-type]
    if not models:
        raise InputError(f"{path}: no MANO_RIGHT.pkl or MANO_LEFT.pkl there")
    return models


def axis_angle_pose(
    model: HandModel,
    global_rotation: Float[np.ndarray, " 3"],
    fingers: Float[np.ndarray, " n"],
    *,
    principal: bool,
) -> Float[np.ndarray, " 48"]:
    """The pose from the whole hand's rotation and either principal coefficients or 45 axis-angle numbers.

    Both are relative to the mean pose, as MANO is with `flat_hand_mean=False`.
    """
    relative = fingers @ model.hands_components[: len(fingers)] if principal else fingers
    return np.concatenate([global_rotation, model.hands_mean + relative])


def global_rotation(
    model: HandModel, shape: Float[np.ndarray, " 10"], joints_mm: Float[np.ndarray, "21 3"]
) -> Float[np.ndarray, " 3"]:
    """The rotation vector that turns the model's palm onto labelled joints (least squares, Kabsch)."""
    rest = model.J_regressor @ (model.v_template + model.shapedirs @ shape)
    source, target = rest[list(_PALM)], np.asarray(joints_mm, dtype=np.float64)[list(PALM_JOINTS)]
    u, _, vt = np.linalg.svd((target - target.mean(axis=0)).T @ (source - source.mean(axis=0)))
    sign = np.sign(np.linalg.det(u @ vt))
    return cv2.Rodrigues(u @ np.diag([1.0, 1.0, sign]) @ vt)[0][:, 0]
