import math

import pytest
import torch

from handgraph.networks.heatmaps import (
    PeakConfidence,
    cells_from_uv,
    cross_entropy,
    distributions,
    gaussian_maps,
    inside,
    keypoints_uv,
    local_cells,
    peak_cells,
    peak_mass,
    squared_error,
    supervised,
    uv_from_cells,
)


@pytest.mark.parametrize(("size", "cells"), [(128, 32), (368, 46), (7, 7)])
def test_a_cell_lies_in_the_middle_of_the_pixels_it_covers(size: int, cells: int) -> None:
    pixels = size // cells
    for cell in (0, 1, cells - 1):
        middle = sum(range(cell * pixels, (cell + 1) * pixels)) / pixels
        uv = torch.tensor([[middle / (size - 1), middle / (size - 1)]])
        assert torch.allclose(cells_from_uv(uv, cells, size), torch.full((1, 2), float(cell)), atol=1e-4)
        assert torch.allclose(uv_from_cells(torch.full((1, 2), float(cell)), cells, size), uv, atol=1e-6)
    # The other common rule, first and last cell at the crop's corners, is another one.
    assert cells == size or cells_from_uv(torch.zeros(1, 2), cells, size)[0, 0] < -0.3


def test_target_maps_are_the_gaussian_of_the_distance_in_cells() -> None:
    cells, size, sigma = 8, 32, 1.3
    uv = torch.tensor([[[0.4, 0.7]]])
    column, row = cells_from_uv(uv, cells, size)[0, 0].tolist()
    maps = gaussian_maps(uv, torch.ones(1, 1, dtype=torch.bool), cells, size, sigma)
    for y in range(cells):
        for x in range(cells):
            expected = math.exp(-((x - column) ** 2 + (y - row) ** 2) / (2 * sigma**2))
            assert maps[0, 0, y, x].item() == pytest.approx(expected, abs=1e-6)


def test_what_is_unknown_or_outside_has_an_empty_map() -> None:
    uv = torch.tensor([[[0.5, 0.5], [0.5, 0.5], [1.2, 0.5], [math.nan, 0.5], [-0.01, 0.5], [-0.02, 0.5]]])
    known = torch.tensor([[True, False, True, False, True, True]])
    maps = gaussian_maps(uv, known, 8, 32)
    assert torch.isfinite(maps).all()
    # Half a pixel of 32 is 0.016: the fifth point is on the crop's first pixel, the sixth is not.
    assert (maps.sum(dim=(-2, -1)) > 0).tolist() == [[True, False, False, False, True, False]]
    assert supervised(uv, known, 32, "empty").tolist() == known.tolist()
    assert supervised(uv, known, 32, "ignore").tolist() == [[True, False, False, False, True, False]]
    assert inside(uv, 32).tolist() == [[True, True, False, False, True, False]]


def test_the_error_is_summed_over_cells_keypoints_and_stages() -> None:
    torch.manual_seed(0)
    uv = torch.tensor([[[0.5, 0.5], [2.0, 0.5], [0.3, 0.5]], [[0.2, 0.1], [0.9, 0.5], [0.3, 0.5]]])
    known = torch.tensor([[True, True, False], [True, True, True]])
    stages = [torch.randn(2, 3, 8, 8) for _ in range(2)]
    target = gaussian_maps(uv, known, 8, 32)
    for outside, counted in (
        ("empty", [(0, 0), (0, 1), (1, 0), (1, 1), (1, 2)]),
        ("ignore", [(0, 0), (1, 0), (1, 1), (1, 2)]),
    ):
        expected = sum(
            (maps[index] - target[index]).square().sum() for maps in stages for index in counted
        ) / len(uv)
        assert torch.allclose(squared_error(stages, uv, known, 32, outside=outside), expected, rtol=1e-5)
    assert squared_error([target], uv, known, 32) == 0


@pytest.mark.parametrize(("decode", "cell_share"), [("argmax", 0.501), ("local", 0.05)])
def test_keypoints_come_back_from_their_maps(decode: str, cell_share: float) -> None:
    size, cells = 128, 32
    uv = torch.rand(4, 21, 2, generator=torch.Generator().manual_seed(1)) * 0.8 + 0.1
    known = torch.ones(4, 21, dtype=torch.bool)
    found = keypoints_uv(gaussian_maps(uv, known, cells, size), size, decode)  # type: ignore[arg-type]
    off = (cells_from_uv(found, cells, size) - cells_from_uv(uv, cells, size)).abs().max()
    assert off <= cell_share
    assert decode == "local" or off > 0.4  # argmax cannot do better than its cell


def test_a_second_peak_far_away_does_not_draw_the_local_decoding() -> None:
    maps = torch.zeros(1, 1, 32, 32)
    maps[0, 0, 10, 20], maps[0, 0, 10, 21] = 1.0, 0.5
    maps[0, 0, 28, 3] = 0.9
    assert peak_cells(maps).tolist() == [[[20.0, 10.0]]]
    assert torch.allclose(local_cells(maps), torch.tensor([[[20.2, 10.0]]]))
    assert torch.allclose(local_cells(maps * 1e-30), local_cells(maps))
    assert local_cells(maps - 2).tolist() == [[[20.0, 10.0]]]  # nothing above zero: the highest cell


def test_mass_around_the_peak_is_a_share_of_the_whole() -> None:
    maps = torch.zeros(1, 2, 32, 32)
    maps[0, 0, 10, 20], maps[0, 0, 28, 3] = 3.0, 1.0
    assert torch.allclose(peak_mass(maps), torch.tensor([[0.75, 0.0]]))


def test_confidence_rises_with_the_peak_and_its_curve_travels_with_the_weights() -> None:
    confidence = PeakConfidence()
    maps = torch.zeros(1, 3, 4, 4)
    maps[0, :, 1, 1] = torch.tensor([0.1, 0.5, 0.9])
    values = confidence(maps)[0]
    assert (values.diff() > 0).all()
    assert values[1].item() == pytest.approx(0.5)
    assert list(confidence.state_dict()) == ["curve"]


def test_distributions_are_gaussians_of_peak_one_when_sure() -> None:
    uv = torch.tensor([[[0.4, 0.6]]])
    target = gaussian_maps(uv, torch.ones(1, 1, dtype=torch.bool), 32, 128)
    maps = distributions((target + 1e-12).log())
    torch.testing.assert_close(maps, target, atol=2e-3, rtol=0)


@pytest.mark.parametrize("sure", [5.0, 30.0, 60.0])
def test_cross_entropy_of_a_map_that_is_surely_wrong_still_teaches(sure: float) -> None:
    """Its gradient by the logits is the softmax less the target, however little it gives the right place."""
    uv, known = torch.full((1, 1, 2), 0.25), torch.ones(1, 1, dtype=torch.bool)
    target = gaussian_maps(uv, known, 16, 64)
    target = target / target.sum()
    logits = torch.zeros(1, 1, 16, 16)
    logits[..., 14, 14] = sure
    logits.requires_grad_()
    cross_entropy([distributions(logits)], uv, known, 64).backward()
    torch.testing.assert_close(
        logits.grad, logits.detach().flatten(2).softmax(-1).view(1, 1, 16, 16) - target
    )


def test_cross_entropy_is_least_at_the_target_and_ignores_what_is_outside() -> None:
    generator = torch.Generator().manual_seed(0)
    uv = torch.tensor([[[0.4, 0.6], [1.5, 0.2]]])
    known = torch.ones(1, 2, dtype=torch.bool)
    target = gaussian_maps(uv, known, 16, 64)
    sure = (target + 1e-9).log()
    least = cross_entropy([distributions(sure)], uv, known, 64)
    entropy = target[0, 0] / target[0, 0].sum()
    torch.testing.assert_close(least, -(entropy * (entropy + 1e-12).log()).sum(), atol=1e-3, rtol=0)
    for _ in range(5):
        other = sure + torch.randn(sure.shape, generator=generator)
        assert cross_entropy([distributions(other)], uv, known, 64) > least
    moved = sure.clone()
    moved[0, 1] = torch.randn(16, 16, generator=generator)
    torch.testing.assert_close(cross_entropy([distributions(moved)], uv, known, 64), least)
