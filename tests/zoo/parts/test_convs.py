"""Convolution blocks equal the functions that they are made of."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from zoo.parts.convs import conv_norm_act


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
