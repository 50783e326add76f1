"""Where the real fragments lie, for the tests that compare with them."""

import os
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))  # for dataset_writers and damage


@pytest.fixture
def real() -> Path:
    """The folder HANDGRAPH_REAL names; the test is skipped without it."""
    folder = os.environ.get("HANDGRAPH_REAL")
    if not folder or not Path(folder).is_dir():
        pytest.skip("HANDGRAPH_REAL names no folder of real test data")
    return Path(folder)
