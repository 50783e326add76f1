"""What a frozen keypoint network sees of drawn photographs, kept in files: seen once, learnt from often.

Looking costs more than learning from what was seen. So each photograph is cut, turned and tinted anew a few
times, the network looks at each of these views once, and all rows, stages and seeds learn from what it saw.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Int, Shaped
from torch import Tensor

from handgraph.datasets import ImageCrops
from handgraph.errors import FormatError
from handgraph.evaluation.drawn import BLOCK
from handgraph.files import atomic_write
from handgraph.images import IMAGENET_MEAN, IMAGENET_STD, to_network
from handgraph.networks.stacked_hourglass import StackedHourglass
from handgraph.training.checkpoint import load_system
from handgraph.training.data import to_tensors

NETWORK = Path(__file__).parents[1] / "weights" / "hourglass.safetensors"
"""The shipped keypoint network, through which rows of 3D systems look at scales below `paper`."""
LOOK = 32
"""Views at a time."""


@lru_cache(maxsize=1)
def digest() -> str:
    """Of the shipped keypoint network: what was learnt through another one is another run."""
    return sha256(NETWORK.read_bytes()).hexdigest()[:10]


class Views:
    """`uses` views of each picture as training `Data`: the batch of `ImageCrops`, and `seen` beside it.

    `seen` is (b, c + 21, s/4, s/4) float16, for `StackedHourglass.describe`. View v is picture v % n in its
    draw v // n, always the same one. Files that are there already are read, the others are made. Raises
    FormatError for a file that is not whole.
    """

    endless = False

    def __init__(self, folder: Path, crops: ImageCrops, uses: int) -> None:
        self._views, self._size = uses * len(crops), BLOCK
        folder = folder / f"views_{crops.size}_{digest()}"
        network: StackedHourglass | None = None
        self._blocks = []
        for number in range(-(-self._views // BLOCK)):
            path = folder / f"{number:04d}.npy"
            if not path.is_file():
                network = network or _network()
                start = number * BLOCK
                _write(path, crops, np.arange(start, min(start + BLOCK, self._views)), network)
            self._blocks.append(_read(path))

    def __len__(self) -> int:
        return self._views

    def batch(self, indices: Int[np.ndarray, " b"], draws: Int[np.ndarray, " b"]) -> dict[str, Any]:
        """These views, whatever the draw."""
        places = (divmod(int(index), self._size) for index in indices)
        views = np.stack([self._blocks[block][place] for block, place in places])
        arrays = {name: np.ascontiguousarray(views[name]) for name in views.dtype.names or ()}
        arrays["image"] = to_network(arrays["image"])
        return arrays | {"seen": np.moveaxis(arrays["seen"], -1, 1)}


def _network() -> StackedHourglass:
    module: Any = load_system(NETWORK)[0]
    network: StackedHourglass = module.network.to(memory_format=torch.channels_last)
    return network


@torch.inference_mode()
def _write(path: Path, crops: ImageCrops, views: Int[np.ndarray, " b"], network: StackedHourglass) -> None:
    parts = []
    for some in np.array_split(views, -(-len(views) // LOOK)):
        draws, pictures = np.divmod(some, len(crops))
        batch = to_tensors(crops.batch(pictures, draws))
        # As training would: in bfloat16 it is twice as fast, and the rows' own layers see it in that anyway.
        with torch.autocast("cpu", torch.bfloat16):
            maps, features = network.describe(batch["image"])
        seen = torch.cat([features.float(), maps[-1].float()], dim=1).half()
        parts.append(_records(batch | {"image": _bytes(batch["image"]), "seen": seen.permute(0, 2, 3, 1)}))
    with atomic_write(path) as part, part.open("wb") as file:
        np.save(file, np.concatenate(parts))


def _records(batch: Mapping[str, Any]) -> Shaped[np.ndarray, " b"]:
    """A batch as one record a sample; what are no arrays (the crops) is left out."""
    arrays = {name: np.asarray(value) for name, value in batch.items() if not isinstance(value, list)}
    kinds = [(name, array.dtype, array.shape[1:]) for name, array in arrays.items()]
    records = np.empty(len(arrays["image"]), dtype=kinds)
    for name, array in arrays.items():
        records[name] = array
    return records


def _bytes(image: Tensor) -> Shaped[np.ndarray, "b s s 3"]:
    """`to_network` undone."""
    pixels = image.numpy().transpose(0, 2, 3, 1) * IMAGENET_STD + IMAGENET_MEAN
    return np.rint(255 * pixels).astype(np.uint8)


def _read(path: Path) -> Shaped[np.ndarray, " b"]:
    try:
        found: np.ndarray = np.load(path, mmap_mode="r")
    except (OSError, ValueError, EOFError) as error:
        raise FormatError(f"{path}: not a whole file of views ({error}), delete it") from None
    return found
