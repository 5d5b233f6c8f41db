"""A transformer of 1x1 convolutions on maps computes what the transformer block does on tokens."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torchvision.models.convnext import LayerNorm2d

from callbacks.galleries.relevance import relevance
from zoo.classification.vit_as_convmixer import MapBlock, ViTAsConvMixer, ViTAsConvMixerNet
from zoo.parts.attention import Block

SMALL = {"dim": 16, "depth": 2, "patch_size": 4, "num_heads": 2}


@settings(max_examples=8, deadline=None)
@given(st.integers(1, 4), st.integers(1, 4), st.integers(1, 3), st.integers(1, 3))
def test_with_layer_norm_its_block_equals_the_transformer_block(height, width, heads, ratio):
    dim = 4 * heads
    ours = MapBlock(dim, heads, ratio, LayerNorm2d).double()
    theirs = Block(dim, heads, expand=ratio).double()
    names = {name.replace("attention.", ""): name for name in theirs.state_dict()}
    state = {name: theirs.state_dict()[names[name]].view_as(value) for name, value in ours.state_dict().items()}
    ours.load_state_dict(state)
    for norm in (ours.norm1, ours.norm2):
        norm.eps = theirs.norm1.eps
    x = torch.randn(2, dim, height, width, dtype=torch.float64, requires_grad=True)
    outputs = ours(x), theirs(x.flatten(2).mT).mT.unflatten(2, (height, width))
    torch.testing.assert_close(*outputs)
    torch.testing.assert_close(*(torch.autograd.grad(y.sin().sum(), x)[0] for y in outputs))


def test_after_the_patches_all_layers_are_1x1_convolutions():
    net = ViTAsConvMixerNet(5, **SMALL)
    layers = [m for m in net.stages.modules() if isinstance(m, (nn.Conv2d, nn.Linear))]
    assert len(layers) == 2 * 6
    assert {layer.kernel_size for layer in layers} == {(1, 1)}


def test_only_the_positions_tell_the_places_apart():
    """Blocks give permuted maps for permuted places; with positions the logits change."""
    torch.manual_seed(0)
    net, order = ViTAsConvMixerNet(5, **SMALL).double().eval(), torch.randperm(64)
    for parameter in net.parameters():
        nn.init.normal_(parameter, std=0.3)
    x = torch.randn(2, 16, 8, 8, dtype=torch.float64)
    shuffled = x.flatten(2)[..., order].view_as(x)
    torch.testing.assert_close(net.stages(shuffled), net.stages(x).flatten(2)[..., order].view_as(x))
    same, different = (
        [net.head(net.stages(add(maps))) for maps in (x, shuffled)] for add in (nn.Identity(), net.stem[1])
    )
    torch.testing.assert_close(*same)
    assert (different[0] - different[1]).abs().max() > 0.01


@pytest.mark.parametrize("size", [(32, 32), (24, 40)])
def test_it_takes_images_of_any_multiple_of_the_patch(size):
    assert ViTAsConvMixerNet(5, **SMALL)(torch.randn(2, 3, *size)).shape == (2, 5)
    assert ViTAsConvMixerNet(5, image_size=size, **SMALL).stem[1].position.shape[2:] == (size[0] // 4, size[1] // 4)


def test_images_and_heads_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="the images are 30 x 32 pixels: expected multiples of the patch size 4"):
        ViTAsConvMixerNet(5, **SMALL)(torch.zeros(1, 3, 32, 30))
    with pytest.raises(ValueError, match="the images are 30 x 30 pixels: expected multiples of the patch size 4"):
        ViTAsConvMixerNet(5, image_size=30, **SMALL)
    with pytest.raises(ValueError, match="dim is 16, num_heads 3: expected heads of equal width"):
        ViTAsConvMixerNet(5, **(SMALL | {"num_heads": 3}))


def test_grad_cam_sees_the_last_maps():
    torch.manual_seed(0)
    model = ViTAsConvMixer(5, **SMALL).eval()
    nn.init.normal_(model.net.head[-1].weight)
    x = torch.randn(2, 3, 32, 32)
    found = relevance(model, x, model(x).argmax(1).tolist())
    assert (found.maps.shape, found.layer, found.size) == ((2, 32, 32), "stages.1", (8, 8))
    assert (found.maps.max((1, 2)) > 0).all()
