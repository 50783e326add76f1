"""A few made-up samples of each public dataset, laid out on disk exactly as its authors ship it.

To see what a reader expects, and for tests: `WRITERS["rhd"](folder)` writes the tree and returns what a
reader must give back. The pictures are noise with a drawn hand; nothing comes from the datasets.
"""

from collections.abc import Callable
from typing import Any

from handgraph.datasets.layouts import rhd

WRITERS: dict[str, Callable[..., Any]] = {
    "rhd": rhd.write,
}
"""`write(root, seed=0, …) -> truth` by dataset."""

__all__ = ["WRITERS"]
