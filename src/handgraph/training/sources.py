"""The data a recipe names, in the form the training loop wants."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
from jaxtyping import Int

from handgraph.camera import PinholeCamera
from handgraph.datasets.image_crops import ImageCrops, pose_in_crop
from handgraph.datasets.sample import Sample
from handgraph.errors import ConfigError
from handgraph.skeleton import OPENPOSE
from handgraph.training import checkpoint
from handgraph.training.data import Data
from handgraph.training.recipe import DataRecipe, Recipe

SYNTHETIC_DEPTH = "synthetic_depth"
SYNTHETIC_RGB = "synthetic_rgb"


@dataclass(frozen=True)
class Stream:
    """An endless synthesizer as `Data`: `samples` of it are called an epoch."""

    synthesizer: Any
    samples: int
    endless: bool = True

    def __len__(self) -> int:
        return self.samples

    def batch(self, indices: Int[np.ndarray, " b"], draws: Int[np.ndarray, " b"]) -> dict[str, Any]:
        """The samples themselves; the synthesizer's own variety makes augmentation idle."""
        return self.synthesizer.batch(indices.tolist())


@dataclass(frozen=True)
class First:
    """The first `samples` of other data, again and again."""

    data: Data
    samples: int
    endless: bool = False

    def __len__(self) -> int:
        return self.samples

    def batch(self, indices: Int[np.ndarray, " b"], draws: Int[np.ndarray, " b"]) -> dict[str, Any]:
        """As the other data's."""
        return self.data.batch(indices, draws)


POOL = 1024
"""Images that `Reused` holds at a time."""


class Reused:
    """Each image of a colour synthesizer `uses` times, cut, turned and tinted anew, as endless `Data`.

    For where drawing an image costs as much as training on it. The stream is blocks of `POOL` images, each
    block passed through `uses` times in shuffled order; which image a position shows depends on nothing but
    the position.
    """

    endless = True
    name, split, joints = SYNTHETIC_RGB, "train", tuple(range(21))

    def __init__(self, synthesizer: Any, samples: int, uses: int) -> None:
        self.synthesizer, self.samples, self.uses = synthesizer, samples, uses
        self._drawn: dict[int, Sample] = {}
        self._crops = ImageCrops(self, synthesizer.seed, size=synthesizer.size, margin=1.0)

    def __len__(self) -> int:
        return self.samples

    def __getitem__(self, index: int) -> Sample:
        """Image `index` of the synthesizer as a picture of its own."""
        sample = self._drawn.get(index)
        if sample is None:
            sample = self._drawn[index] = as_picture(self.synthesizer.sample(index))
            for old in [key for key in list(self._drawn) if key < index - 2 * POOL]:
                self._drawn.pop(old, None)
        return sample

    def batch(self, indices: Int[np.ndarray, " b"], draws: Int[np.ndarray, " b"]) -> dict[str, Any]:
        """The images at these positions of the stream."""
        block, place = np.divmod(np.asarray(indices), POOL * self.uses)
        use, place = np.divmod(place, POOL)
        images = [
            int(b) * POOL + int(_block_order(self.synthesizer.seed, int(b), int(u))[p])
            for b, u, p in zip(block, use, place, strict=True)
        ]
        return self._crops.batch(images, use)


def as_picture(drawn: Any) -> Sample:
    """A colour synthesizer's crop as a picture of its own, in the crop's frame, to be cropped again."""
    crop, size = drawn.crop, drawn.image.shape[0]
    focal = crop.crop_camera * (size - 1)
    return Sample(
        frame=str(drawn.subject),
        source=Path("synthetic_rgb"),
        order=OPENPOSE,
        image=drawn.image,
        keypoints_px=drawn.uv * (size - 1),
        joints_mm=drawn.joints_mm @ crop.crop_from_camera.T,
        camera=PinholeCamera(focal[0, 0], focal[1, 1], focal[0, 2], focal[1, 2]),
        side="right",
        box_px=np.array([0.0, 0.0, size, size]),
        pose=pose_in_crop(drawn.pose, crop),
        shape=drawn.shape,
    )


@lru_cache(maxsize=8)
def _block_order(seed: int, block: int, use: int) -> Int[np.ndarray, " n"]:
    return np.random.default_rng([seed, block, use]).permutation(POOL)


def open_data(recipe: Recipe) -> tuple[Data, Data]:
    """Training and validation data of a recipe. Raises ConfigError for data that is unknown or not there.

    Where `data.limit` is set, the validation data are the training samples themselves.
    """
    wanted = recipe.data
    colour = checkpoint.find_system(recipe.system).INPUT == "colour"
    if (wanted.name == SYNTHETIC_DEPTH and colour) or (wanted.name == SYNTHETIC_RGB and not colour):
        raise ConfigError(
            f"data.name is {wanted.name}, but {recipe.system} takes {'colour' if colour else 'depth'} images"
        )
    open_split: Callable[..., Data]
    if wanted.name == SYNTHETIC_DEPTH:
        open_split = _synthetic_depth
    elif wanted.name == SYNTHETIC_RGB:
        open_split = _synthetic_rgb
    else:
        open_split = partial(_dataset, colour=colour)
    training = open_split(wanted, wanted.split, augment=wanted.limit is None)
    if wanted.limit is not None:
        few = First(training, wanted.limit if training.endless else min(wanted.limit, len(training)))
        return few, few
    return training, open_split(wanted, wanted.validation_split, augment=False)


def _synthetic_depth(wanted: DataRecipe, split: str, *, augment: bool) -> Data:
    """The stream itself is all the augmentation there is."""
    from handgraph.synthetic.depth import DepthSynthesizer
    from handgraph.synthetic.scene import Chances

    if wanted.samples is None:
        raise ConfigError("data.samples is missing: how many images of the endless stream make an epoch")
    options = dict(wanted.options)
    try:
        if "chances" in options:
            options["chances"] = Chances(**options["chances"])
        synthesizer = DepthSynthesizer(wanted.seed, split, **options)
    except TypeError as error:
        raise ConfigError(f"data.options: {error}") from None
    return Stream(synthesizer, wanted.samples)


def _synthetic_rgb(wanted: DataRecipe, split: str, *, augment: bool) -> Data:
    """The stream itself, or with `data.options.uses` above one each image several times, changed anew."""
    from handgraph.synthetic.rgb import RgbSynthesizer

    if wanted.samples is None:
        raise ConfigError("data.samples is missing: how many images of the endless stream make an epoch")
    options = dict(wanted.options)
    uses = options.pop("uses", 1)
    try:
        synthesizer = RgbSynthesizer(wanted.seed, split, **options)
    except TypeError as error:
        raise ConfigError(f"data.options: {error}") from None
    if not isinstance(uses, int) or uses < 1:
        raise ConfigError(f"data.options.uses is {uses!r}, expected a whole number of 1 or more")
    if uses == 1 or not augment:
        return Stream(synthesizer, wanted.samples)
    return Reused(synthesizer, wanted.samples, uses)


def _dataset(wanted: DataRecipe, split: str, *, augment: bool, colour: bool) -> Data:
    from handgraph.datasets import DepthCrops, ImageCrops, open_dataset

    if wanted.root is None:
        raise ConfigError(f"data.root is missing: the folder that holds the {wanted.name} data set")
    options = dict(wanted.options)
    image: Literal["colour", "depth"] = "colour" if colour else "depth"
    dataset = open_dataset(wanted.name, wanted.root, split, **{"image": image, **options.pop("reader", {})})
    try:
        return (ImageCrops if colour else DepthCrops)(dataset, wanted.seed, augment=augment, **options)
    except TypeError as error:
        raise ConfigError(f"data.options: {error}") from None
