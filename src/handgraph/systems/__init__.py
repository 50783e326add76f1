"""The systems of the papers, one module each, with the same names in it: Config, loss, stages, decode.

`systems.NAME` is the module. It is imported when it is first asked for: all nine take longer than one answer.
"""

from importlib import import_module
from types import ModuleType

NAMES = (
    "jgr_p2o",
    "rmgmn",
    "agmn",
    "siapose",
    "cpm",
    "hourglass",
    "hybrid_gcn",
    "graph_refine",
    "identity_mesh",
)


def names() -> tuple[str, ...]:
    """The systems' names, as the command line and `load` know them."""
    return NAMES


def __getattr__(name: str) -> ModuleType:
    if name in NAMES:
        return import_module(f"handgraph.systems.{name}")
    raise AttributeError(f"module 'handgraph.systems' has no attribute {name!r}")
