"""ConvMixer has the published number of parameters; its two convolutions mix places and channels, each only its own."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from callbacks.galleries.relevance import relevance
from zoo.classification.convmixer import ConvMixer, ConvMixerNet, MixerBlock


@settings(max_examples=20, deadline=None)
@given(*(st.integers(1, 7) for _ in range(6)))
def test_parameters_are_as_many_as_the_papers_formula_says(h, d, k, p, n_classes, c_in):
    with torch.device("meta"):
        net = ConvMixerNet(n_classes, c_in, dim=h, depth=d, kernel_size=k, patch_size=p)
    expected = h * (d * (k**2 + h + 6) + c_in * p**2 + n_classes + 3) + n_classes
    assert sum(parameter.numel() for parameter in net.parameters()) == expected


@pytest.mark.parametrize(
    ("options", "count"),
    [
        ({}, 594_186),  # ConvMixer-256/8 for CIFAR-10
        ({"num_classes": 1000, "dim": 1536, "depth": 20, "kernel_size": 9, "patch_size": 7}, 51_625_960),  # 51.6 M
    ],
)
def test_published_sizes(options, count):
    with torch.device("meta"):
        assert sum(p.numel() for p in ConvMixer(**options).net.parameters()) == count


@pytest.mark.parametrize("kernel_size", [3, 5])
def test_a_depthwise_convolution_mixes_places_and_a_pointwise_one_channels(kernel_size):
    torch.manual_seed(0)
    block = MixerBlock(4, kernel_size, nn.GELU).eval()
    x = torch.randn(1, 4, 6, 6, requires_grad=True)
    for part, places, channels in ((block.depthwise, kernel_size**2, 1), (block.pointwise, 1, 4)):
        (gradient,) = torch.autograd.grad(part(x)[0, 2, 3, 3], x)
        reached = gradient[0] != 0
        assert (reached.any(0).sum(), reached.flatten(1).any(1).sum()) == (places, channels)
    torch.testing.assert_close(block(x), block.pointwise(x + block.depthwise(x)))


def test_all_maps_have_the_size_of_the_patch_grid():
    net = ConvMixerNet(5, dim=8, depth=3, patch_size=4).eval()
    x = net.stem(torch.randn(2, 3, 32, 24))
    for block in net.stages:
        assert x.shape == (2, 8, 8, 6)
        x = block(x)


def test_images_that_patches_do_not_cover_are_refused():
    with pytest.raises(ValueError, match="the images are 33 x 32 pixels: expected multiples of the patch size 2"):
        ConvMixerNet(dim=4, depth=1)(torch.zeros(1, 3, 32, 33))


def test_grad_cam_sees_the_maps_in_the_middle():
    torch.manual_seed(0)
    model = ConvMixer(5, dim=8, depth=4).eval()
    nn.init.normal_(model.net.head[-1].weight)
    x = torch.randn(2, 3, 32, 32)
    found = relevance(model, x, model(x).argmax(1).tolist())
    assert (found.maps.shape, found.layer, found.size) == ((2, 32, 32), "stages.1", (16, 16))
    assert (found.maps.max((1, 2)) > 0).all()
