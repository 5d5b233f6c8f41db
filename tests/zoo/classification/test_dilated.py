"""The dilated net, as its recipes build it, keeps the rules of the course, and its layers are what they say."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from zoo.classification.dilated import DilatedNet, GatedUnit, conv3x3
from zoo.command import recipes

RECIPES = [name for name in recipes.names() if "/dilated-" in name]
OPTIONS = ("stem_width", "widths", "depths", "strides", "dilations", "separable", "kernel_size")


def net_of(recipe: str) -> DilatedNet:
    arguments = recipes.read(recipes.find(recipe))["model"]["init_args"]
    return DilatedNet(**{name: arguments[name] for name in OPTIONS if name in arguments})


def reached(layer: nn.Module, x: Tensor) -> int:
    """The rows from the first to the last that the unit in the middle of a layer's output sees, if no paths cancel."""
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.abs_()  # so that all gradients are positive, also through ReLU and the gates
    output = layer.eval()(x.requires_grad_())
    output[..., output.size(2) // 2, output.size(3) // 2].sum().backward()
    rows = x.grad.abs().sum((0, 1, 3)).nonzero()
    return int(rows.max() - rows.min()) + 1


@pytest.mark.parametrize("recipe", RECIPES)
def test_a_recipe_keeps_the_rules_of_the_course(recipe):
    torch.manual_seed(0)
    net = net_of(recipe)
    limit = 100_000 if "100k" in recipe else 200_000
    assert sum(p.numel() for p in net.parameters()) < limit
    assert len(net.stages) == 4
    pooling = [type(m) for m in net.modules() if "Pool" in type(m).__name__]
    assert pooling == [nn.AdaptiveAvgPool2d]
    convs = [m for m in net.modules() if isinstance(m, nn.Conv2d)]
    assert any(m.groups == m.in_channels > 1 for m in convs)
    assert any(max(m.dilation) > 1 for m in convs)
    assert reached(nn.Sequential(net.stem, net.stages), torch.rand(1, 3, 64, 64)) > 44


def test_the_parameters_of_the_recipes_are_counted():
    counts = {name: sum(p.numel() for p in net_of(name).parameters()) for name in RECIPES}
    assert counts["cifar10/dilated-200k"] == 190_538
    assert counts["cifar10_budget/dilated-200k"] == 190_010


def test_a_separable_convolution_is_a_plain_one_whose_filters_are_products():
    torch.manual_seed(0)
    layers, x = conv3x3(6, 5, stride=2, dilation=2, separable=True), torch.randn(2, 6, 9, 8, requires_grad=True)
    weight = layers.pointwise.weight * layers.depthwise.weight.transpose(0, 1)  # (5, 6, 3, 3)
    expected = F.conv2d(x, weight, stride=2, padding=2, dilation=2)
    found = layers.pointwise(layers.depthwise(x))
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)
    gradients = [torch.autograd.grad(y.square().sum(), x)[0] for y in (found, expected)]
    torch.testing.assert_close(*gradients, atol=1e-4, rtol=1e-4)


def test_half_of_the_channels_of_a_gated_unit_look_further():
    unit = GatedUnit(4, kernel_size=5, dilation=3)
    assert [reached(conv, torch.rand(1, 2, 31, 31)) for conv in unit.depthwise] == [5, 13]
    assert unit(torch.zeros(1, 4, 31, 30)).shape == (1, 4, 31, 30)


def test_a_gated_unit_whose_branch_is_zero_changes_nothing():
    unit, x = GatedUnit(6), torch.randn(2, 6, 5, 5)
    nn.init.zeros_(unit.narrow[0].weight)
    torch.testing.assert_close(unit(x), x)


def test_stages_halve_the_maps_by_strides_alone():
    net = DilatedNet(7, 1, stem_width=4, widths=(4, 4, 6, 6), depths=(0, 1, 0, 1), separable=(False, False, True, True))
    x, sizes = net.stem(torch.randn(2, 1, 32, 24)), []
    for stage in net.stages:
        x = stage(x)
        sizes.append(tuple(x.shape[1:]))
    assert sizes == [(4, 32, 24), (4, 16, 12), (6, 16, 12), (6, 8, 6)]
    assert net.head(x).shape == (2, 7)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"depths": (1, 1, 1)}, "depths has 3 values, widths 4"),
        ({"widths": (8, 8, 9, 8)}, "a separable stage has 9 channels"),
    ],
)
def test_bad_sizes_are_refused(options, said):
    with pytest.raises(ValueError, match=said):
        DilatedNet(**options)
