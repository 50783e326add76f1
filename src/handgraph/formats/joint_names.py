"""Joints as others name them."""

import re
from collections.abc import Sequence

from handgraph.formats.clip import ORDERS
from handgraph.skeleton import FINGERS, JOINT_NAMES

_FINGER = {"forefinger": "index", "pinky": "little", "pinkie": "little"} | {name: name for name in FINGERS}
_PARTS = {"thumb": ("cmc", "mcp", "ip", "tip")} | dict.fromkeys(FINGERS[1:], ("mcp", "pip", "dip", "tip"))
_NAME = re.compile(rf"({'|'.join(_FINGER)})(?:_?finger)?_?(cmc|mcp|pip|dip|ip|tip|[1-4])")


def canonical_name(name: str) -> str:
    """The canonical name of a joint: `INDEX_FINGER_MCP`, `left_forefinger1` and `index_mcp` are one.

    Numbers count from the palm. A name of another kind comes back as it is, in small letters.
    """
    plain = re.sub(r"^(left|right)_", "", name.strip().lower().replace(" ", "_"))
    if plain in ("wrist", "hand_root", "hand_wrist"):
        return "wrist"
    found = _NAME.fullmatch(plain)
    if found is None:
        return plain
    finger, part = _FINGER[found[1]], found[2]
    return f"{finger}_{_PARTS[finger][int(part) - 1] if part.isdigit() else part}"


def order_of(names: Sequence[str]) -> str | None:
    """Which joint order has these names, in this sequence; None if none."""
    plain = tuple(canonical_name(name) for name in names)
    if plain == JOINT_NAMES:
        return "openpose"
    return next((key for key, order in ORDERS.items() if plain == order.names), None)
