"""Code that numba compiled, where it is older than the sources it holds."""

from collections.abc import Sequence
from pathlib import Path


def forget_stale_code(folder: Path, names: Sequence[str]) -> None:
    """Delete what was compiled of the modules `names` of a folder before one that they call into changed.

    numba notices a change of the file a function stands in, not of those it calls into. Each of the modules
    calls into some before it. To be called before the first of their compiled functions.
    """
    newest = 0.0
    for name in names:
        try:
            newest = max(newest, (folder / f"{name}.py").stat().st_mtime)
            for index in (folder / "__pycache__").glob(f"{name}.*.nbi"):
                if index.stat().st_mtime < newest:
                    index.unlink()
        except OSError:  # another process was first, or the folder is read-only and nobody edits there
            continue
