"""The hybrid's transformer takes each place of the last map as a token, and lets each see the whole image."""

import pytest
import torch
from torch import nn

from callbacks.galleries.relevance import relevance
from zoo.classification.hybrid_vit import HybridViT, HybridViTNet, TransformerStage

SMALL = {"widths": (4, 8, 16), "pools": (True, True, False), "num_layers": 1, "num_heads": 2}


def test_the_transformer_works_on_512_channels_at_object_level():
    with torch.device("meta"):
        net = HybridViTNet()
        maps = net.stages[:-1](net.stem(torch.zeros(2, 3, 32, 32)))
    assert maps.shape == (2, 512, 8, 8)
    assert [block.attention.query.in_features for block in net.stages[-1].blocks] == [512, 512]


def test_the_tokens_are_the_places_of_the_map():
    torch.manual_seed(0)
    stage = TransformerStage(8, (3, 4), num_layers=2, num_heads=2, mlp_ratio=2, dropout=0.0)
    x = torch.randn(2, 8, 3, 4)
    tokens = torch.stack([x[:, :, i, j] + stage.positions.position[:, :, i, j] for i in range(3) for j in range(4)], 1)
    for block in stage.blocks:
        tokens = block(tokens)
    found = stage(x)
    for place, (i, j) in enumerate((i, j) for i in range(3) for j in range(4)):
        torch.testing.assert_close(found[:, :, i, j], stage.norm(tokens[:, place]))


def test_only_the_transformer_sees_the_whole_image():
    torch.manual_seed(0)
    net, x = HybridViTNet(5, **SMALL).eval(), torch.randn(1, 3, 64, 64, requires_grad=True)
    for part, sees in ((net.stages[:-1], False), (net.stages, True)):
        (gradient,) = torch.autograd.grad(part(net.stem(x))[0, :, 0, 0].sin().sum(), x)
        assert (gradient[..., -8:, -8:] != 0).any().item() is sees


@pytest.mark.parametrize("size", [(32, 32), (48, 20), (4, 4)])
def test_it_takes_images_of_other_sizes(size):
    assert HybridViTNet(5, **SMALL)(torch.randn(2, 3, *size)).shape == (2, 5)
    assert HybridViTNet(5, image_size=size, **SMALL)(torch.randn(2, 3, *size)).shape == (2, 5)


def test_pools_that_do_not_fit_are_refused_with_the_numbers():
    with pytest.raises(ValueError, match="pools are 2, widths 3"):
        HybridViTNet(5, **(SMALL | {"pools": (True, False)}))
    net = HybridViTNet(5, **SMALL)
    with pytest.raises(ValueError, match="the images are 32 x 3 pixels: expected 4 or more on both sides"):
        net(torch.zeros(1, 3, 3, 32))


def test_grad_cam_sees_the_maps_after_the_transformer():
    torch.manual_seed(0)
    model = HybridViT(5, **SMALL).eval()
    nn.init.normal_(model.net.head[-1].weight)
    x = torch.randn(2, 3, 32, 32)
    found = relevance(model, x, model(x).argmax(1).tolist())
    assert (found.maps.shape, found.layer, found.size) == ((2, 32, 32), "stages.2", (8, 8))
    assert (found.maps.max((1, 2)) > 0).all()
