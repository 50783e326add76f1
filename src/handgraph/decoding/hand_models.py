"""The hand models that networks were built with, by the number of their vertices: an answer knows no more."""

from functools import lru_cache

from handgraph.hand_model.files import HandModel, load_mano, load_open_hand

_KNOWN: dict[int, HandModel] = {}


def use(model: HandModel) -> None:
    """Answers with as many vertices are of this right hand."""
    _KNOWN[len(model.v_template)] = model


@lru_cache(maxsize=1)
def open_hand() -> HandModel:
    """The shipped hand."""
    return load_open_hand()


def model_with(vertices: int) -> HandModel:
    """The hand with so many vertices, or else the open hand."""
    return _KNOWN.get(vertices) or open_hand()


def use_file(path: str) -> None:
    """`use` of a user's MANO file. Raises FormatError."""
    use(load_mano(path))
