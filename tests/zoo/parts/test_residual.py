"""What residual networks are assembled from: sizes, the shortcut without parameters, the size of gradients."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from zoo.parts.residual import ZeroPadding, make_stages, make_stem, shortcut


@settings(max_examples=15, deadline=None, derandomize=True)
@given(st.integers(1, 3), st.integers(0, 3), st.integers(1, 3), st.integers(1, 6), st.integers(1, 6))
def test_zero_padding_skips_pixels_and_adds_channels_of_zeros(channels, more, stride, height, width):
    x = torch.randn(2, channels, height, width)
    y = ZeroPadding(more, stride)(x)
    assert y.shape == (2, channels + more, -(-height // stride), -(-width // stride))
    for i in range(y.shape[2]):
        for j in range(y.shape[3]):
            assert torch.equal(y[:, :channels, i, j], x[:, :, i * stride, j * stride])
    assert not y[:, channels:].any()


def test_a_shortcut_is_the_identity_exactly_where_shapes_stay():
    assert isinstance(shortcut(4, 4, 1), nn.Identity)
    x = torch.randn(2, 4, 6, 6)
    for inputs, outputs, stride in ((4, 8, 1), (4, 4, 2), (4, 8, 2)):
        for project in (True, False):
            layer = shortcut(inputs, outputs, stride, project)
            assert layer(x).shape == (2, outputs, 6 // stride, 6 // stride)
            assert bool(list(layer.parameters())) == project


@pytest.mark.parametrize(("small", "pool", "side"), [(True, False, 64), (True, True, 32), (False, False, 16)])
def test_the_stems_reduce_images_as_they_say(small, pool, side):
    assert make_stem(3, 8, small, pool)(torch.randn(2, 3, 64, 64)).shape == (2, 8, side, side)


def test_the_large_stem_does_not_pool_twice():
    with pytest.raises(ValueError, match="stem_pool is True with small_images False"):
        make_stem(3, 8, small_images=False, stem_pool=True)


def test_stages_halve_maps_and_double_channels_and_say_so_to_their_blocks():
    made = []

    def block(inputs: int, outputs: int, stride: int) -> nn.Module:
        made.append((inputs, outputs, stride))
        return nn.Conv2d(inputs, outputs, 3, stride, padding=1)

    stages = make_stages(block, (2, 1, 3), width=4, expansion=2)
    assert [len(stage) for stage in stages] == [2, 1, 3]
    assert made == [(4, 8, 1), (8, 8, 1), (8, 16, 2), (16, 32, 2), (32, 32, 1), (32, 32, 1)]
    assert stages(torch.randn(2, 4, 12, 12)).shape == (2, 32, 3, 3)


def test_filters_keep_the_size_of_gradients():
    torch.manual_seed(0)
    (stage,) = make_stages(lambda inputs, outputs, stride: nn.Conv2d(inputs, outputs, 3), (1,), 64, expansion=2)
    assert stage[0].weight.var().item() == pytest.approx(2 / (128 * 9), rel=0.05)  # 2 / fan_out
