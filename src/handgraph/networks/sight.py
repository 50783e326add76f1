"""The frame in which networks answer: the crop's, turned until z is the line of sight through its middle.

A crop does not show where in the picture it lay. Hands that look alike in two crops are turned alike about
the lines of sight to them, not about the camera's axis, from which crops lie 13 degrees off in the mean (in
synthetic photographs). Asked for the crop's own frame, a network can but answer with something in between.
Ours; the papers do not speak of it. Without a camera the two frames are taken for one.
"""

import torch
from jaxtyping import Float
from torch import Tensor


def sight_from_crop(crop_camera: Float[Tensor, "b 3 3"]) -> Float[Tensor, "b 3 3"]:
    """The smallest turns that bring the crops' middles onto z; the identity where a camera is NaN.

    `crop_camera` is a batch of `Crop.crop_camera`. `decoding.frames.sight_from_crop` is the same of a `Crop`.
    """
    known = torch.isfinite(crop_camera).all(-1).all(-1)[:, None, None]
    # A camera that looks at the middle straight on: turned by nothing.
    straight = crop_camera.new_tensor([[1.0, 0.0, 0.5], [0.0, 1.0, 0.5], [0.0, 0.0, 1.0]])
    camera = torch.where(known, crop_camera, straight)
    y = (0.5 - camera[:, 1, 2]) / camera[:, 1, 1]
    x = (0.5 - camera[:, 0, 2] - camera[:, 0, 1] * y) / camera[:, 0, 0]
    z = (x.square() + y.square() + 1).rsqrt()
    x, y = x * z, y * z
    rows = (1 - x * x / (1 + z), -x * y / (1 + z), -x), (-x * y / (1 + z), 1 - y * y / (1 + z), -y), (x, y, z)
    return torch.stack([torch.stack(row, dim=-1) for row in rows], dim=-2)


def in_sight(points: Float[Tensor, "b n 3"], crop_camera: Float[Tensor, "b 3 3"]) -> Float[Tensor, "b n 3"]:
    """Points of the crops' frames, about anything, as networks say them."""
    return points @ sight_from_crop(crop_camera).to(points.dtype).mT
