"""What every test shares: one thread a process, and the real frames where there are some."""

import os
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

# Tests are small: more threads would only wait for one another, and sums would depend on their number.
cv2.setNumThreads(1)
torch.set_num_threads(1)
os.environ.setdefault("NUMBA_NUM_THREADS", "1")


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of real frames and labels that HANDGRAPH_REAL names; without it the test is skipped."""
    folder = os.environ.get("HANDGRAPH_REAL")
    if not folder:
        pytest.skip("HANDGRAPH_REAL is not set: no real frames to test on")
    if not Path(folder).is_dir():
        pytest.fail(f"HANDGRAPH_REAL={folder} is not a folder")
    return Path(folder)


@pytest.fixture
def rng() -> np.random.Generator:
    """The same numbers in every run."""
    return np.random.default_rng(7)
