"""Training samples in a fixed order: which sample a step uses depends on nothing but the recipe.

A step uses the positions `start + 0 … start + batch_size - 1` of a stream. For an endless synthetic stream
the position is the sample, so no image is ever seen twice; a finite data set is shuffled anew every epoch,
and the position also seeds that use's augmentation.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from functools import lru_cache
from typing import Any, Protocol, TypeVar, runtime_checkable

import numpy as np
import torch
from jaxtyping import Int

S = TypeVar("S")
T = TypeVar("T")


@runtime_checkable
@runtime_checkable
class Data(Protocol):
    """What the loop asks of training data."""

    @property
    def endless(self) -> bool:
        """Whether every index, however large, is another sample; otherwise indices are below `len`."""

    def __len__(self) -> int:
        """Samples in an epoch."""

    def batch(self, indices: Int[np.ndarray, " b"], draws: Int[np.ndarray, " b"]) -> dict[str, Any]:
        """The samples of these indices as arrays with a leading batch axis, under the system's names.

        `draws` numbers the uses: the same sample with another draw is augmented anew. Called from several
        threads at once.
        """


def sample_indices(
    positions: Int[np.ndarray, " n"], samples: int, seed: int, *, endless: bool
) -> Int[np.ndarray, " n"]:
    """The sample at each position of the stream: itself, or its place in the epoch's own shuffled order."""
    if endless:
        return positions
    epochs, places = np.divmod(positions, samples)
    indices = np.empty_like(positions)
    for epoch in np.unique(epochs):
        chosen = epochs == epoch
        indices[chosen] = _epoch_order(samples, seed, int(epoch))[places[chosen]]
    return indices


@lru_cache(maxsize=4)
def _epoch_order(samples: int, seed: int, epoch: int) -> Int[np.ndarray, " n"]:
    return np.random.default_rng([seed, epoch]).permutation(samples)


def prepared_ahead(
    prepare: Callable[[S], T], keys: Iterable[S], *, threads: int, ahead: int, burst: bool = False
) -> Generator[T, None, None]:
    """`prepare(key)` for each key, in the order of the keys, up to `ahead` of them made in advance.

    With `burst` the threads and the consumer take turns: `ahead` results are made, then used, then the next.
    An exception in `prepare` is raised where its result would have come.
    """
    remaining, waiting = iter(keys), deque[Future[T]]()
    with ThreadPoolExecutor(threads, thread_name_prefix="loader") as pool:
        try:
            while True:
                if not burst or not waiting:
                    for key in remaining:
                        waiting.append(pool.submit(prepare, key))
                        if len(waiting) >= ahead:
                            break
                    if burst:
                        wait(waiting)
                if not waiting:
                    return
                yield waiting.popleft().result()
        finally:
            pool.shutdown(cancel_futures=True)


def to_tensors(batch: dict[str, Any]) -> dict[str, Any]:
    """NumPy arrays as tensors without copying, images (4 axes) with channels last; anything else stays."""
    tensors = {}
    for name, value in batch.items():
        if isinstance(value, np.ndarray):
            value = torch.from_numpy(value)
        if isinstance(value, torch.Tensor) and value.ndim == 4:
            value = value.contiguous(memory_format=torch.channels_last)
        tensors[name] = value
    return tensors
