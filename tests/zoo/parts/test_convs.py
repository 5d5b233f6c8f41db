"""Convolution blocks equal the functions that they are made of, and single convolutions with the same filters."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import processes
from zoo.parts.convs import (
    StridedPointwiseConv2d,
    conv_norm_act,
    depthwise_separable,
    pyramidal,
    spatially_separable,
    squeeze_and_expand,
    subpixel,
    transition,
    transposed,
)
from zoo.parts.norms import GroupNorm

few = settings(max_examples=25, deadline=None, derandomize=True)


def count(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def equal(ours: torch.Tensor, theirs: torch.Tensor, inputs: list[torch.Tensor]) -> None:
    """Asserts equal values and gradients, the latter of a function that weighs all values differently."""
    torch.testing.assert_close(ours, theirs)
    for a, b in zip(*(torch.autograd.grad(y.sin().sum(), inputs) for y in (ours, theirs)), strict=True):
        torch.testing.assert_close(a, b)


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64, requires_grad=True)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    st.integers(1, 4), st.integers(1, 4), st.sampled_from([1, 3, 5]), st.integers(1, 3), st.booleans(), st.booleans()
)
def test_conv_norm_act_has_the_shape_and_values_of_its_layers(inputs, outputs, kernel, stride, pool, act):
    block = conv_norm_act(inputs, outputs, kernel, stride, pool=pool, act=act)
    conv, norm = (next(m for m in block if isinstance(m, kind)) for kind in (nn.Conv2d, nn.BatchNorm2d))
    assert conv.bias is None
    x = torch.randn(2, inputs, 12, 12)
    y = F.conv2d(x, conv.weight, stride=stride, padding=kernel // 2)
    assert y.shape == (2, outputs, -(-12 // stride), -(-12 // stride))
    y = F.max_pool2d(y, 2) if pool else y
    y = F.batch_norm(y, None, None, norm.weight, norm.bias, training=True)
    torch.testing.assert_close(block(x), y.relu() if act else y)


@pytest.mark.parametrize(("padding", "groups"), [(0, 1), (2, 4)])
def test_padding_and_groups_are_those_of_the_convolution(padding, groups):
    block, x = conv_norm_act(4, 8, padding=padding, groups=groups, act=False), torch.randn(2, 4, 9, 7)
    y = F.conv2d(x, block[0].weight, padding=padding, groups=groups)
    torch.testing.assert_close(block(x), F.batch_norm(y, None, None, training=True))


def one_by_one(x: torch.Tensor, weight: torch.Tensor, dilation: int, groups: int) -> torch.Tensor:
    """A convolution (1, C, H, W) -> (1, O, H, W), a sum of products for each output."""
    size, (height, width) = weight.size(-1), x.shape[2:]
    reach = dilation * (size // 2)
    padded = F.pad(x, (reach,) * 4)
    per_group, rows = len(weight) // groups, []
    for o, filters in enumerate(weight):
        first = o // per_group * len(filters)
        seen = padded[0, first : first + len(filters)]
        sums = [
            (seen[:, y : y + 2 * reach + 1 : dilation, x : x + 2 * reach + 1 : dilation] * filters).sum()
            for y in range(height)
            for x in range(width)
        ]
        rows.append(torch.stack(sums).view(height, width))
    return torch.stack(rows)[None]


@few
@given(st.sampled_from([1, 3]), st.integers(1, 3), st.sampled_from([1, 2, 4]), st.integers(0, 99))
def test_plain_1x1_dilated_and_grouped_convolutions_equal_their_definition(size, dilation, groups, seed):
    layer = conv_norm_act(4, 8, size, dilation=dilation, groups=groups, norm=None, act=False).double()
    x = noise(1, 4, 5, 4, seed=seed)
    equal(layer(x), one_by_one(x, layer[0].weight, dilation, groups), [x, layer[0].weight])


def test_numbers_of_parameters_are_those_of_the_course():
    layers = {
        "plain": conv_norm_act(16, 32, norm=None),
        "dilated": conv_norm_act(16, 32, dilation=2, norm=None),
        "1x1": conv_norm_act(16, 32, 1, norm=None),
        "grouped": conv_norm_act(16, 32, groups=4, norm=None),
        "depthwise separable": depthwise_separable(16, 32),
        "spatially separable": spatially_separable(16, 32),
        "subpixel": subpixel(16, 32),
    }
    assert {name: count(layer) for name, layer in layers.items()} == {
        "plain": 4608,
        "dilated": 4608,
        "1x1": 512,
        "grouped": 1152,
        "depthwise separable": 656,
        "spatially separable": 2304,
        "subpixel": 18432,
    }


@few
@given(
    st.integers(1, 4), st.integers(1, 4), st.integers(1, 2), st.integers(1, 2), st.sampled_from([None, 0, 1]),
    st.integers(0, 99),
)  # fmt: skip
def test_a_depthwise_separable_convolution_is_one_of_products_of_filters(
    inputs, outputs, stride, dilation, padding, seed
):
    layer = depthwise_separable(inputs, outputs, 3, stride, dilation, padding=padding).double()
    x = noise(2, inputs, 7, 6, seed=seed)
    padding = dilation if padding is None else padding
    filters = layer[1].weight * layer[0].weight.transpose(0, 1)  # (O, C, 1, 1) * (1, C, 3, 3)
    equal(layer(x), F.conv2d(x, filters, None, stride, padding, dilation), [x, *layer.parameters()])


@few
@given(st.integers(1, 3), st.integers(1, 3), st.integers(1, 2), st.sampled_from([3, 5]), st.integers(0, 99))
def test_a_spatially_separable_convolution_is_one_of_sums_of_rank_one(inputs, outputs, stride, size, seed):
    layer, x = spatially_separable(inputs, outputs, size, stride, middle=2).double(), noise(2, inputs, 8, 7, seed=seed)
    filters = torch.einsum("mcik,omkj->ocij", layer[0].weight, layer[1].weight)
    equal(layer(x), F.conv2d(x, filters, None, stride, size // 2), [x, *layer.parameters()])


@few
@given(st.integers(1, 3), st.sampled_from([0, 2]), st.integers(0, 99))
def test_a_transposed_convolution_is_the_gradient_of_a_convolution(factor, more, seed):
    layer = transposed(3, 2, factor, kernel_size=factor + more).double()
    small, large = noise(1, 3, 4, 5, seed=seed), noise(1, 2, 4 * factor, 5 * factor, seed=seed + 1)
    forward = F.conv2d(large, layer.weight, None, factor, more // 2)
    (adjoint,) = torch.autograd.grad(forward, large, small)
    assert layer(small).shape == large.shape
    torch.testing.assert_close(layer(small), adjoint)


@pytest.mark.parametrize(("factor", "size"), [(2, 3), (3, 2)])
def test_a_transposed_convolution_that_cannot_enlarge_exactly_is_refused(factor, size):
    with pytest.raises(ValueError, match=f"kernel_size is {size} and factor {factor}: expected a kernel"):
        transposed(3, 2, factor, kernel_size=size)


@pytest.mark.parametrize("factor", [2, 3])
def test_subpixel_convolution_lays_channels_out_as_pixels_which_start_equal(factor):
    layer, x = subpixel(3, 2, factor).double(), noise(1, 3, 4, 5)
    with torch.no_grad():
        repeated = layer(x)
        enlarged = F.interpolate(repeated[..., ::factor, ::factor], scale_factor=factor, mode="nearest")
        torch.testing.assert_close(repeated, enlarged)  # no checkerboard at first
        layer[0].weight.copy_(torch.randn_like(layer[0].weight))
    maps = F.conv2d(x, layer[0].weight, padding=1)
    found = layer(x)
    for dy in range(factor):
        for dx in range(factor):
            torch.testing.assert_close(found[..., dy::factor, dx::factor], maps[:, dy * factor + dx :: factor**2])


def test_blocks_rise_in_channels_and_end_narrow_or_wide():
    x = torch.randn(2, 32, 12, 12)
    squeezed, pyramid = squeeze_and_expand(32, (64, 128), 32), pyramidal(32, (64, 128))
    assert squeezed(x).shape == (2, 32, 6, 6)
    assert pyramid(x).shape == (2, 128, 6, 6)
    norms = 2 * (64 + 128)
    assert count(pyramid) == 9 * (32 * 64 + 64 * 128) + norms
    assert count(squeezed) == count(pyramid) + 128 * 32 + 2 * 32
    plain = squeeze_and_expand(32, (64, 128), 32, norm=None, act=False, bias=True)
    y = x
    for conv in (m for m in plain.modules() if isinstance(m, nn.Conv2d)):
        y = F.conv2d(F.max_pool2d(y, 2) if conv.kernel_size == (1, 1) else y, conv.weight, conv.bias, 1, conv.padding)
    torch.testing.assert_close(plain(x), y)


def test_a_transition_pools_before_it_mixes_channels_and_takes_another_norm():
    layer, x = transition(8, 4, norm=GroupNorm), torch.randn(2, 8, 6, 6)
    y = F.group_norm(F.conv2d(F.max_pool2d(x, 2), layer[1].weight), 4)
    torch.testing.assert_close(layer(x), y.relu())


@few
@given(st.integers(1, 20), st.integers(1, 3), st.integers(1, 9), st.booleans())
def test_a_strided_pointwise_convolution_is_torchs(channels, stride, size, bias):
    conv, x = StridedPointwiseConv2d(channels, 4, stride, bias).double(), noise(2, channels, size, size + 1)
    equal(conv(x), F.conv2d(x, conv.weight, conv.bias, stride), [x, *conv.parameters()])


@pytest.mark.parametrize("name", ["resnet.ResNet18", "preact_resnet.PreActResNet18"])
def test_a_narrow_residual_net_trains_with_channels_last(tmp_path, name):
    """In a process of its own, as torch's convolution would end it."""
    module, _, system = name.partition(".")
    script = tmp_path / "step.py"
    script.write_text(
        "import torch\n"
        f"from zoo.classification.{module} import {system}\n"
        "image = torch.randn(2, 3, 64, 64).to(memory_format=torch.channels_last)\n"
        f"{system}(width=8).net(image).sum().backward()\n"
    )
    processes.run(script)
