import math

import pytest
import torch

from handgraph.networks.heatmaps import gaussian_maps, keypoints_uv
from handgraph.networks.rotation import (
    KNUCKLE,
    WRIST,
    RotationNet,
    as_turn,
    inverse,
    rotation_error,
    turn_maps,
    turn_uv,
    upright_turn,
)


def turn(degrees: float) -> torch.Tensor:
    angle = math.radians(degrees)
    return torch.tensor([[math.cos(angle), math.sin(angle)]])


def test_a_quarter_turn_is_clockwise_for_the_eye() -> None:
    image = torch.arange(9.0).reshape(1, 1, 3, 3)
    expected = torch.tensor([[6.0, 3.0, 0.0], [7.0, 4.0, 1.0], [8.0, 5.0, 2.0]])
    torch.testing.assert_close(turn_maps(image, turn(90))[0, 0], expected)
    torch.testing.assert_close(image.rot90(-1, (2, 3))[0, 0], expected)


@pytest.mark.parametrize("degrees", [-150.0, -20.0, 0.0, 33.0, 180.0])
def test_points_and_maps_turn_together_and_come_back(degrees: float) -> None:
    uv = torch.tensor([[[0.4, 0.3], [0.55, 0.62], [0.5, 0.5], [0.7, 0.45]]])
    maps = gaussian_maps(uv, torch.ones(1, 4, dtype=torch.bool), cells=64, size=128, sigma=2.0)
    turned = turn_maps(maps, turn(degrees))
    found = keypoints_uv(turned, 128, "local")
    torch.testing.assert_close(found, turn_uv(uv, turn(degrees)), rtol=0, atol=0.006)
    back = turn_maps(turned, inverse(turn(degrees)))
    assert (back - maps).abs().max() < 0.15  # interpolated twice: a little blunter
    torch.testing.assert_close(turn_uv(turn_uv(uv, turn(degrees)), inverse(turn(degrees))), uv)


@pytest.mark.parametrize("degrees", [0.0, 45.0, 90.0, -135.0, 179.0])
def test_after_the_upright_turn_the_knuckle_is_above_the_wrist(degrees: float) -> None:
    uv = torch.rand(3, 21, 2)
    uv[:, WRIST] = torch.tensor([0.4, 0.6])
    uv[:, KNUCKLE] = uv[:, WRIST] + 0.2 * torch.tensor(
        [math.sin(math.radians(degrees)), -math.cos(math.radians(degrees))]
    )
    found = upright_turn(uv)
    torch.testing.assert_close(found, turn(-degrees).expand(3, 2), rtol=0, atol=1e-5)
    upright = turn_uv(uv, found)
    direction = upright[:, KNUCKLE] - upright[:, WRIST]
    torch.testing.assert_close(direction, torch.tensor([[0.0, -0.2]]).expand(3, 2), rtol=0, atol=1e-5)


def test_squared_error_of_the_angle_and_of_the_vector() -> None:
    uv = torch.full((3, 21, 2), 0.5)
    uv[:, KNUCKLE, 0] = 0.7  # points right: must be turned by -90°
    known = torch.ones(3, 21, dtype=torch.bool)
    known[1, WRIST] = False
    uv[2, KNUCKLE, 0] = 0.5  # on top of the wrist: no direction
    angle = torch.tensor([[0.3], [9.0], [9.0]])
    assert rotation_error(angle, uv, known).item() == pytest.approx((0.3 + math.pi / 2) ** 2, rel=1e-5)
    vector = torch.tensor([[0.5, -0.5], [9.0, 9.0], [9.0, 9.0]])
    assert rotation_error(vector, uv, known).item() == pytest.approx(0.5**2 + 0.5**2, rel=1e-5)
    assert rotation_error(angle, uv, torch.zeros_like(known)).item() == 0


def test_unlabelled_samples_leave_gradients_finite() -> None:
    answer = torch.zeros(2, 1, requires_grad=True)
    uv = torch.full((2, 21, 2), float("nan"))
    rotation_error(answer, uv, torch.zeros(2, 21, dtype=torch.bool)).backward()
    assert answer.grad is not None
    assert torch.isfinite(answer.grad).all()


def test_turning_is_differentiable_by_the_turn() -> None:
    maps = torch.rand(1, 1, 7, 7, dtype=torch.float64)
    weights = torch.rand(1, 1, 7, 7, dtype=torch.float64)
    angle = torch.tensor([[0.4]], requires_grad=True)
    (turn_maps(maps, as_turn(angle)) * weights).sum().backward()
    step = 1e-3
    ahead, behind = (
        (turn_maps(maps, as_turn(angle.detach() + d)) * weights).sum().item() for d in (step, -step)
    )
    assert angle.grad is not None
    assert angle.grad.item() == pytest.approx((ahead - behind) / (2 * step), rel=1e-2)


@pytest.mark.parametrize("form", ["angle", "vector"])
def test_at_first_nothing_is_turned(form: str) -> None:
    torch.manual_seed(0)
    net = RotationNet("small", form)  # type: ignore[arg-type]
    answer = net(torch.randn(4, 3, 64, 64))
    assert answer.shape == (4, 1 if form == "angle" else 2)
    assert (as_turn(answer)[:, 0] > 0.95).all()
    torch.testing.assert_close(as_turn(answer).norm(dim=1), torch.ones(4))
