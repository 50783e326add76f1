"""From what a network answers to `Hand`s, in NumPy: the half of a system that needs no PyTorch.

Every system's `answer(output)` picks the few numbers of its output that a hand consists of. They are an
`Answer` of one of these modules, whose `hands(answer, crops)` makes the hands; PyTorch and ONNX Runtime share
it. The fields of an `Answer` are the outputs of an exported file. All have the batch first.
"""

from importlib import import_module
from types import ModuleType

MODULES = {
    "jgr_p2o": "handgraph.decoding.jgr_p2o",
    "rmgmn": "handgraph.keypoints",
    "agmn": "handgraph.keypoints",
    "siapose": "handgraph.keypoints",
    "cpm": "handgraph.keypoints",
    "hourglass": "handgraph.keypoints",
    "hybrid_gcn": "handgraph.decoding.hybrid_gcn",
    "graph_refine": "handgraph.decoding.graph_refine",
    "identity_mesh": "handgraph.decoding.identity_mesh",
}


def decoder(system: str) -> ModuleType:
    """The module with a system's `Answer` and `hands`. Raises KeyError for an unknown system."""
    return import_module(MODULES[system])
