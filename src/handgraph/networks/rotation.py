"""The rotation net: an image is turned until its hand points upwards, and maps are turned back.

R-MGMN (Kong et al., WACV 2020; dissertation, section 3.3.2 and 3.3.3, whose equation numbers these are);
R-SiaPose uses the same. A turn is (cos α, sin α): points p of the crop, from its centre, x to the right and y
down, go to (cos α · x - sin α · y, sin α · x + cos α · y), clockwise for the eye where α > 0.
"""

from typing import Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn.functional import grid_sample

from handgraph.networks.image_features import build_features
from handgraph.skeleton import JOINT_NAMES

Rotation = Literal["none", "angle", "vector"]
"""No rotation net, one that gives the angle (the paper's), or one that gives its cosine and sine."""

WRIST, KNUCKLE = JOINT_NAMES.index("wrist"), JOINT_NAMES.index("middle_mcp")
CLASSES = 1000
HIDDEN = 128
"""Between the two additional layers; the paper does not say."""


class RotationNet(nn.Module):
    """Eq. 3.1, Fig. 3.2: a backbone of 1000 outputs, two linear layers with a ReLU between.

    Image (b, 3, s, s) → (b, 1), the angle in radians as the paper has it, or (b, 2), a vector in the
    direction of (cos α, sin α). The angle alone has a jump: a hand that points down is at 180° and at -180°,
    and a network halfway between them answers 0°. At first the answer is no turn.
    """

    def __init__(self, backbone: str, form: Literal["angle", "vector"] = "angle") -> None:
        super().__init__()
        self.features = build_features(backbone)
        self.classes = nn.Linear(self.features.channels, CLASSES)
        self.hidden = nn.Linear(CLASSES, HIDDEN)
        self.answer = nn.Linear(HIDDEN, 1 if form == "angle" else 2)
        nn.init.normal_(self.answer.weight, std=0.01)
        with torch.no_grad():
            self.answer.bias.copy_(torch.tensor([0.0] if form == "angle" else [1.0, 0.0]))

    def forward(self, image: Float[Tensor, "b 3 s s"]) -> Float[Tensor, "b k"]:
        hidden = self.hidden(self.classes(self.features(image))).relu()
        answer: Tensor = self.answer(hidden).float()
        return answer


def as_turn(answer: Float[Tensor, "b k"]) -> Float[Tensor, "b 2"]:
    """(cos α, sin α) from either answer of the network."""
    if answer.shape[1] == 1:
        return torch.cat([answer.cos(), answer.sin()], dim=1)
    return answer / answer.norm(dim=1, keepdim=True).clamp(min=1e-6)


def upright_turn(uv: Float[Tensor, "b n 2"]) -> Float[Tensor, "b 2"]:
    """The turn after which the line from wrist to middle knuckle (Eq. 3.23) points upwards.

    NaN where either point is NaN or both are the same.
    """
    direction = uv[:, KNUCKLE] - uv[:, WRIST]
    x, y = (direction / direction.norm(dim=1, keepdim=True)).unbind(dim=1)
    return torch.stack([-y, -x], dim=1)


def rotation_error(
    answer: Float[Tensor, "b k"], uv: Float[Tensor, "b n 2"], known: Bool[Tensor, "b n"]
) -> Float[Tensor, ""]:
    """Squared error (Eq. 3.24), mean over the samples whose wrist and knuckle are labelled.

    Of the angle, between -π and π; of a vector, its squared distance from the unit vector of the true turn.
    """
    turn = upright_turn(uv.float())
    usable = known[:, WRIST] & known[:, KNUCKLE] & turn.isfinite().all(dim=1)
    turn = torch.where(usable[:, None], turn, turn.new_tensor([1.0, 0.0]))
    target = torch.atan2(turn[:, 1:], turn[:, :1]) if answer.shape[1] == 1 else turn
    error = (answer - target).square().sum(dim=1)
    return (error * usable).sum() / usable.sum().clamp(min=1)


def inverse(turn: Float[Tensor, "b 2"]) -> Float[Tensor, "b 2"]:
    """The turn by -α."""
    return turn * turn.new_tensor([1.0, -1.0])


def turn_maps(maps: Float[Tensor, "b c s s"], turn: Float[Tensor, "b 2"]) -> Float[Tensor, "b c s s"]:
    """f_rt of Eq. 3.2 and 3.12: square maps or images turned about their centre; zeros come in from outside.

    Interpolated bilinearly; differentiable by the maps and by the turn.
    """
    if maps.dtype in (torch.float16, torch.bfloat16):
        maps = maps.float()  # eight bits are too few for where a cell came from
    size = maps.shape[-1]
    axis = torch.linspace(-1, 1, size, device=maps.device)
    x, y = axis[None, None, :], axis[None, :, None]
    cos, sin = turn.float()[:, :, None, None].unbind(dim=1)
    # Each cell asks where it came from: the turn the other way round.
    grid = torch.stack([cos * x + sin * y, cos * y - sin * x], dim=-1)
    return grid_sample(maps, grid.to(maps.dtype), mode="bilinear", padding_mode="zeros", align_corners=True)


def turn_uv(uv: Float[Tensor, "b n 2"], turn: Float[Tensor, "b 2"]) -> Float[Tensor, "b n 2"]:
    """Points of the crop (0 at the first pixel centre, 1 at the last) after the turn."""
    x, y = (uv - 0.5).unbind(dim=-1)
    cos, sin = turn[:, None, :].unbind(dim=-1)
    return torch.stack([cos * x - sin * y, sin * x + cos * y], dim=-1) + 0.5
