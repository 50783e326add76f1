"""The systems of the papers, one module each, with the same names in it: Config, loss, stages, decode."""

from types import ModuleType

from handgraph.systems import jgr_p2o

SYSTEMS: dict[str, ModuleType] = {
    "jgr_p2o": jgr_p2o,
}


def names() -> tuple[str, ...]:
    """The systems' names, as the command line and `load` know them."""
    return tuple(SYSTEMS)
