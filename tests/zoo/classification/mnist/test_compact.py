"""Nets that count every parameter: what `SeparableNet` sees, and what its head answers."""

import pytest
import torch
import torch.nn.functional as F

from zoo.analysis.receptive_field import receptive_field
from zoo.classification.mnist_compact import SeparableNet


def test_the_last_filters_of_a_separable_net_see_the_complete_image():
    *_, last = (layer for layer in receptive_field(SeparableNet(), (1, 28, 28)) if layer.name.startswith("stages"))
    assert (last.field, last.out) == ((28, 28), (2, 2))
    without = SeparableNet(dilations=(1, 1, 1, 1))
    *_, last = (layer for layer in receptive_field(without, (1, 28, 28)) if layer.name.startswith("stages"))
    assert (last.field, last.out) == ((20, 20), (6, 6))


@pytest.mark.parametrize("num_classes", [2, 10, 11])
def test_its_logits_are_the_averages_of_normalized_maps_of_classes(num_classes):
    torch.manual_seed(0)
    net, x = SeparableNet(num_classes), torch.randn(16, 1, 28, 28)
    maps = net.stages(net.stem(x))
    assert maps.shape == (16, num_classes, 2, 2)
    mean, variance = maps.mean((0, 2, 3), keepdim=True), maps.var((0, 2, 3), unbiased=False, keepdim=True)
    expected = 4 * F.adaptive_avg_pool2d((maps - mean) / (variance + 1e-5).sqrt(), 1).flatten(1)
    torch.testing.assert_close(net.head(maps), expected)
    assert [p.numel() for p in net.head.parameters()] == [1]


def test_its_norms_learn_a_shift_and_no_scale_and_the_last_one_nothing():
    learned = [tuple(p.shape) for name, p in SeparableNet().named_parameters() if p.ndim == 1]
    assert learned == [(6,), (7,), (10,), (10,)]


def test_other_numbers_of_dilations_than_of_widths_are_an_error():
    with pytest.raises(ValueError, match=r"dilations are \(1, 2\) and widths \(6, 7, 10\): expected as many"):
        SeparableNet(widths=(6, 7, 10), dilations=(1, 2))
