"""A few made-up samples of each public dataset, laid out on disk exactly as its authors ship it.

To see what a reader expects, and for tests: `WRITERS["rhd"](folder)` writes the tree and returns what a
reader must give back. The pictures are noise with a drawn hand; nothing comes from the datasets.
"""

from collections.abc import Callable
from typing import Any

from handgraph.datasets.layouts import (
    coco_wholebody,
    dexycb,
    freihand,
    humbi,
    mhp,
    mpii_nzsl,
    panoptic,
    rhd,
    stb,
    user_folder,
)

WRITERS: dict[str, Callable[..., Any]] = {
    "panoptic": panoptic.write,
    "mpii_nzsl": mpii_nzsl.write,
    "coco_wholebody": coco_wholebody.write,
    "folder": user_folder.write,
    "rhd": rhd.write,
    "stb": stb.write,
    "freihand": freihand.write,
    "dexycb": dexycb.write,
    "mhp": mhp.write,
    "humbi": humbi.write,
}
"""`write(root, seed=0, …) -> truth` by dataset."""

__all__ = ["WRITERS"]
