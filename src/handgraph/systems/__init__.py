"""The systems of the papers, one module each, with the same names in it: Config, loss, stages, decode."""

from types import ModuleType

from handgraph.systems import (
    agmn,
    cpm,
    graph_refine,
    hourglass,
    hybrid_gcn,
    identity_mesh,
    jgr_p2o,
    rmgmn,
    siapose,
)

SYSTEMS: dict[str, ModuleType] = {
    "jgr_p2o": jgr_p2o,
    "rmgmn": rmgmn,
    "agmn": agmn,
    "siapose": siapose,
    "cpm": cpm,
    "hourglass": hourglass,
    "hybrid_gcn": hybrid_gcn,
    "graph_refine": graph_refine,
    "identity_mesh": identity_mesh,
}


def names() -> tuple[str, ...]:
    """The systems' names, as the command line and `load` know them."""
    return tuple(SYSTEMS)
