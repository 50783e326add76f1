"""Synthetic photographs drawn once and kept in files: the finite data set that small tables use.

A table's rows see the same images several times over, each use cut, turned and tinted anew, as the papers'
rows see those of their data sets. So drawing costs once what training on them costs many times.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from itertools import count, islice
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np

from handgraph.camera import PinholeCamera
from handgraph.datasets.sample import Sample
from handgraph.errors import FormatError
from handgraph.files import atomic_write
from handgraph.skeleton import OPENPOSE
from handgraph.synthetic.photo import Chances
from handgraph.synthetic.rgb import RgbSynthesizer
from handgraph.training.sources import as_picture

BLOCK = 256
"""Images in a file."""
OTHER_CHANCES = Chances(table=0.8, held=0.9, occluder=0.3, clutter=0.9, body=0.1, second_hand=0.5, sleeve=0.1)
"""Of the other kind of pictures, those with much before and around the hand (Table 5.4's second data set)."""


class DrawnOnce:
    """The first `images` of a colour synthesizer, in their crops' frames, as a colour data set.

    `people`: only pictures of the split's first so many subjects, so that each of them is met often. `other`:
    the other kind of pictures (`OTHER_CHANCES`). Files that are there already are read, not drawn again.
    Raises FormatError for a file that is not whole.
    """

    name, joints = "synthetic_rgb", tuple(range(21))

    def __init__(
        self,
        folder: Path,
        split: str,
        size: int,
        images: int,
        *,
        people: int | None = None,
        other: bool = False,
        seed: int = 0,
    ) -> None:
        self.split, self.size, self.images = split, size, images
        chances = OTHER_CHANCES if other else None
        self._synthesizer = RgbSynthesizer(seed, split, size, chances=chances)
        self._indices = self._of_people(people) if people is not None else count()
        kind = f"{split}_{size}_{seed}{f'_people{people}' if people is not None else ''}{'_other' * other}"
        self._folder = folder / kind
        blocks = [self._block(number) for number in range(-(-images // BLOCK))]
        self._arrays = {key: np.concatenate([block[key] for block in blocks])[:images] for key in blocks[0]}

    def __len__(self) -> int:
        return self.images

    @property
    def subjects(self) -> np.ndarray:
        """Whose hand each image shows."""
        return self._arrays["subject"]

    def __getitem__(self, index: int) -> Sample:
        """Image `index` as a picture of its own."""
        of = {key: array[index] for key, array in self._arrays.items()}
        return Sample(
            frame=str(index),
            source=Path(self.name),
            order=OPENPOSE,
            image=of["image"],
            keypoints_px=of["keypoints_px"],
            joints_mm=of["joints_mm"],
            camera=PinholeCamera(*(float(value) for value in of["camera"])),
            side="right",
            subject=str(of["subject"]),
            box_px=np.array([0.0, 0.0, self.size, self.size]),
            pose=of["pose"],
            shape=of["shape"],
        )

    def _of_people(self, people: int) -> Iterator[int]:
        whose = self._synthesizer._cast
        return (index for index in count() if whose(index, whole=False).first.subject < people)

    def _block(self, number: int) -> dict[str, np.ndarray]:
        path = self._folder / f"{number:04d}.npz"
        indices = islice(self._indices, BLOCK)
        if path.is_file():
            deque(indices, maxlen=0)  # those of the next block follow them
            try:
                with np.load(path) as stored:
                    return dict(stored)
            except (OSError, ValueError, EOFError, BadZipFile) as error:
                raise FormatError(f"{path}: not a whole file of images ({error}), delete it") from None
        drawn = [self._synthesizer.sample(index) for index in indices]
        pictures: list[Any] = [as_picture(one) for one in drawn]  # nothing of which is missing
        block: dict[str, Any] = {
            "image": np.stack([picture.image for picture in pictures]),
            "keypoints_px": np.stack([picture.keypoints_px for picture in pictures]),
            "joints_mm": np.stack([picture.joints_mm for picture in pictures]).astype(np.float32),
            "camera": np.array([_numbers(picture.camera) for picture in pictures]),
            "pose": np.stack([picture.pose for picture in pictures]).astype(np.float32),
            "shape": np.stack([picture.shape for picture in pictures]).astype(np.float32),
            "subject": np.array([one.subject for one in drawn]),
        }
        with atomic_write(path) as part, part.open("wb") as file:
            np.savez(file, **block)
        return block


def _numbers(camera: Any) -> tuple[float, float, float, float]:
    return camera.fx, camera.fy, camera.cx, camera.cy
