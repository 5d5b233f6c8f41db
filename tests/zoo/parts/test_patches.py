"""Patches are projected as if each were flattened; learned positions are added, and interpolated for other sizes."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from zoo.parts.patches import LearnedPositions, PatchProjection, patch_grid, resize_positions


@settings(max_examples=10, deadline=None)
@given(st.integers(1, 3), st.integers(1, 4), st.integers(1, 4), st.integers(1, 4))
def test_a_projection_is_a_linear_layer_on_each_flattened_patch(patch, rows, columns, channels):
    layer = PatchProjection(channels, 5, patch).double()
    x = torch.randn(2, channels, rows * patch, columns * patch, dtype=torch.float64)
    patches = F.unfold(x, patch, stride=patch).transpose(1, 2)  # (B, T, C * P * P)
    expected = F.linear(patches, layer.weight.flatten(1), layer.bias).transpose(1, 2)
    torch.testing.assert_close(layer(x), expected.unflatten(2, (rows, columns)))
    assert patch_grid(*x.shape[2:], patch) == (rows, columns)


def test_images_that_patches_do_not_cover_are_refused_with_both_sizes():
    with pytest.raises(ValueError, match="the images are 30 x 32 pixels: expected multiples of the patch size 8"):
        PatchProjection(3, 4, 8)(torch.zeros(1, 3, 32, 30))
    with pytest.raises(ValueError, match="the images are 32 x 31 pixels: expected multiples of the patch size 2"):
        patch_grid(31, 32, 2)


def test_positions_are_added_as_learned_and_every_one_gets_a_gradient():
    layer, x = LearnedPositions(3, (4, 5)), torch.randn(2, 3, 4, 5)
    torch.testing.assert_close(layer(x) - x, layer.position.expand(2, -1, -1, -1), atol=1e-6, rtol=0)
    layer(x).sum().backward()
    assert torch.equal(layer.position.grad, torch.full_like(layer.position, 2))


@pytest.mark.parametrize("grid", [(8, 8), (3, 6), (5, 2)])
def test_interpolated_positions_keep_a_linear_field(grid):
    """Away from the border, which is repeated, and nearly: torch's cubic has the coefficient -0.75, exact is -0.5."""
    layer = LearnedPositions(2, (6, 6))
    y, x = torch.meshgrid(torch.arange(6.0), torch.arange(6.0), indexing="ij")
    layer.position.data[0] = torch.stack([y, x])
    found = resize_positions(layer.position, grid)[0]
    assert layer(torch.zeros(1, 2, *grid)).shape[2:] == grid
    for axis in (0, 1):
        expected = (torch.arange(grid[axis]) + 0.5) * 6 / grid[axis] - 0.5
        inside = (expected >= 1) & (expected <= 4)
        along = found[axis].mean(1 - axis)
        torch.testing.assert_close(along[inside], expected[inside], atol=0.06, rtol=0)
