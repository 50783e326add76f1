"""Numbers as NumPy arrays, whoever holds them; PyTorch is not imported for it."""

from typing import Any

import numpy as np


def array(values: Any) -> np.ndarray:
    """float64, from an array, or from a tensor of any device with its gradient left behind."""
    if hasattr(values, "detach"):
        values = values.detach().double().cpu().numpy()
    return np.asarray(values, np.float64)
