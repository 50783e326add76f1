"""Random splits by a written rule, where papers split at random and name neither seed nor list.

A frame's place in the split is the SHA-256 of "seed:name". So it depends on nothing but the seed and the
frame's name: not on the order of a folder's listing, on a library's generator or on what else is there.
"""

import hashlib
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
from jaxtyping import Int

from handgraph.errors import ConfigError

SEED = 0


def hashed_split(
    names: Sequence[str], parts: Mapping[str, float], seed: int = SEED
) -> dict[str, Int[np.ndarray, " n"]]:
    """Indices into `names` of each part, ascending: names ranked by hash, cut into shares in this order.

    `parts` are shares that sum to 1, or counts (the last part takes what is left). Raises ConfigError where
    the shares do not sum to 1.
    """
    shares = list(parts.values())
    counted = max(shares) > 1
    if not counted and abs(sum(shares) - 1) > 1e-6:
        raise ConfigError(f"split: shares {shares} sum to {sum(shares):.4g}, expected 1")
    digests = [hashlib.sha256(f"{seed}:{name}".encode()).digest() for name in names]
    ranked = np.array(sorted(range(len(names)), key=lambda i: (digests[i], names[i])), dtype=np.int64)
    ends = np.cumsum(shares) if counted else np.round(np.cumsum(shares) * len(names))
    ends = np.minimum(ends, len(names)).astype(int)
    ends[-1] = len(names)
    starts = [0, *ends[:-1]]
    return {part: np.sort(ranked[start:end]) for part, start, end in zip(parts, starts, ends, strict=True)}


def digest(names: Iterable[str]) -> str:
    """A split in 16 hexadecimal digits: the same for the same frames in the same order, wherever they lie."""
    return hashlib.sha256("\n".join(names).encode()).hexdigest()[:16]
