"""The toy system, importable by the tests beside it and by the scripts they start."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
