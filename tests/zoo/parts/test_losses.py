"""The distances between feature maps equal their formulas."""

import itertools
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from zoo.parts.losses import gram, gram_distance, mean_square, sliced_distance


def seeded(seed: int, *shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


sizes = st.integers(1, 6)


@given(b=sizes, c=sizes, h=sizes, w=sizes, seed=st.integers(0, 99))
@settings(max_examples=25, deadline=None)
def test_gram_is_the_mean_product_of_two_channels(b, c, h, w, seed):
    maps = seeded(seed, b, c, h, w)
    found = gram(maps)
    for i in range(b):
        for j in range(c):
            for k in range(c):
                torch.testing.assert_close(found[i, j, k], (maps[i, j] * maps[i, k]).mean(), atol=1e-6, rtol=1e-4)
    torch.testing.assert_close(gram(maps.repeat(1, 1, 2, 3)), found)  # it ignores the size of the image
    order = torch.randperm(h * w)
    torch.testing.assert_close(gram(maps.flatten(2)[:, :, order].unflatten(2, (h, w))), found)  # and the positions


def test_gram_distance_is_four_times_the_papers():
    maps, target = seeded(0, 1, 5, 4, 3), seeded(1, 1, 5, 6, 6)
    n, m = 5, 12
    ours, theirs = (torch.einsum("chw,dhw->cd", x[0], x[0]) for x in (maps, target * math.sqrt(12 / 36)))
    paper = (ours - theirs).square().sum() / (4 * n**2 * m**2)
    torch.testing.assert_close(gram_distance(maps, gram(target))[0], 4 * paper)
    assert gram_distance(maps.repeat(3, 1, 1, 1), gram(maps)).tolist() == pytest.approx([0, 0, 0], abs=1e-9)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_losses_are_float32_under_autocast(dtype):
    maps, target = 300 * seeded(0, 2, 4, 16, 16).to(dtype), 300 * seeded(1, 1, 4, 16, 16).to(dtype)
    plain = gram(maps.float()), sliced_distance(maps.float(), target.float(), torch.Generator().manual_seed(0))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = gram(maps), sliced_distance(maps, target, torch.Generator().manual_seed(0))
        distance = gram_distance(maps, gram(target))
    assert distance.dtype == torch.float32
    assert distance.isfinite().all()
    for x, y in zip(found, plain, strict=True):
        assert x.dtype == torch.float32
        assert torch.equal(x, y)
    assert plain[0].max() > torch.finfo(torch.float16).max, "float16 would not have overflowed: the test shows nothing"


def directions(channels: int, projections: int, seed: int = 0) -> Tensor:
    draw = torch.randn(projections, channels, generator=torch.Generator().manual_seed(seed))
    return draw / draw.norm(dim=1, keepdim=True)


def test_sliced_distance_is_the_cheapest_matching_along_each_direction():
    maps, target = seeded(0, 1, 3, 2, 2), seeded(1, 1, 3, 2, 2)
    expected = 0.0
    for direction in directions(3, 7):
        ours, theirs = ((direction @ x[0].flatten(1)) for x in (maps, target))
        expected += min(float((ours - theirs[list(p)]).square().mean()) for p in itertools.permutations(range(4))) / 7
    found = sliced_distance(maps, target, torch.Generator().manual_seed(0), projections=7)
    assert found.tolist() == pytest.approx([expected], rel=1e-4)


def test_sliced_distance_of_shifted_features_is_the_length_of_the_shift():
    maps, shift = seeded(0, 2, 3, 5, 5), torch.tensor([1.0, -2.0, 0.5])
    found = sliced_distance(maps + shift[:, None, None], maps, torch.Generator().manual_seed(3), projections=9)
    expected = (directions(3, 9, seed=3) @ shift).square().mean()
    torch.testing.assert_close(found, expected.expand(2), atol=1e-5, rtol=1e-4)


def test_sliced_distance_ignores_positions_and_sizes():
    maps = seeded(0, 1, 3, 4, 4)
    mixed = maps.flatten(2)[:, :, torch.randperm(16)].unflatten(2, (2, 8))
    larger = maps.repeat(1, 1, 2, 1)
    draws = torch.Generator().manual_seed(0)
    assert float(sliced_distance(mixed, maps, draws)) == pytest.approx(0, abs=1e-9)
    assert float(sliced_distance(maps, larger, draws)) == pytest.approx(0, abs=1e-9)
    assert float(sliced_distance(larger, maps, draws)) < 0.05 < float(sliced_distance(maps + 1, maps, draws))


def test_sliced_distance_interpolates_quantiles():
    nothing, target = torch.zeros(1, 1, 2, 2), torch.tensor([0.0, 1.0])[None, None, None]
    found = sliced_distance(nothing, target, torch.Generator().manual_seed(0))  # one channel: directions are 1 or -1
    assert found.tolist() == pytest.approx([(0**2 + 0.25**2 + 0.75**2 + 1**2) / 4])


def test_sliced_distance_moves_points_onto_the_target():
    maps, target = seeded(0, 1, 3, 6, 6).requires_grad_(), 2 + 0.5 * seeded(1, 1, 3, 6, 6)
    draws, optimizer = torch.Generator().manual_seed(0), torch.optim.Adam([maps], lr=0.1)
    for _ in range(150):
        optimizer.zero_grad()
        sliced_distance(maps, target, draws).sum().backward()
        optimizer.step()
    torch.testing.assert_close(maps.mean((2, 3)), target.mean((2, 3)), atol=0.05, rtol=0.05)
    torch.testing.assert_close(maps.std((2, 3)), target.std((2, 3)), atol=0.1, rtol=0.1)


def test_mean_square_makes_a_distance_relative_and_is_never_0():
    target = seeded(0, 2, 3, 4)
    assert float(mean_square(target)) == pytest.approx(sum(x * x for x in target.flatten().tolist()) / 24, rel=1e-5)
    assert float(mean_square(torch.zeros(3))) > 0
