"""Damages files the way copies and disks do."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np

from handgraph.errors import HandgraphError


def flipped(content: bytes, random: np.random.Generator) -> bytes:
    """One bit turned over."""
    damaged = bytearray(content)
    damaged[random.integers(len(damaged))] ^= 1 << int(random.integers(8))
    return bytes(damaged)


def cut(content: bytes, random: np.random.Generator) -> bytes:
    """The end missing, at a random place."""
    return content[: random.integers(len(content))]


def outcomes(path: Path, read: Callable[[], object], times: int, seed: int = 0) -> list[tuple[str, bool]]:
    """Damage `path` so often, read each time, restore it: (kind of damage, whether reading refused).

    Any exception but HandgraphError is the test's failure, and so is a message of several lines or one
    that names neither the file nor its folder.
    """
    random = np.random.default_rng(seed)
    original = path.read_bytes()
    results = []
    try:
        for turn in range(times):
            kind = (flipped, cut)[turn % 2]
            path.unlink()  # a hard link's other names stay whole
            path.write_bytes(kind(original, random))
            message = None
            try:
                read()
            except HandgraphError as error:
                message = str(error)
            assert message is None or ("\n" not in message and path.parent.name in message)
            results.append((kind.__name__, message is not None))
    finally:
        path.unlink(missing_ok=True)
        path.write_bytes(original)
    return results


def copied(tree: Path, to: Path) -> Path:
    """A copy to damage: pictures are links (remove one before writing it), everything else is copied."""

    def copy(source: str, target: str) -> None:
        (os.link if source.endswith((".png", ".jpg")) else shutil.copy)(source, target)

    shutil.copytree(tree, to, dirs_exist_ok=True, copy_function=copy)
    return to
