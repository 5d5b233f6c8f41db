"""The compact convolutional transformer has the published size and computes what torch's own layers do."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from callbacks.galleries.relevance import relevance
from zoo.classification.cct import CCT, CCTNet, SequencePooling

SMALL = {"stem_widths": (8,), "dim": 16, "num_layers": 2, "num_heads": 2}


@pytest.mark.parametrize(
    ("options", "count"),
    [
        ({}, 3_760_139),  # CCT-7/3x1: 3.76 M
        ({"positions": False}, 3_760_139 - 256 * 256),
        ({"num_layers": 2, "num_heads": 2, "dim": 128, "mlp_ratio": 1, "stem_widths": (64,)}, 283_723),  # CCT-2/3x2
    ],
)
def test_parameters_are_as_many_as_published(options, count):
    with torch.device("meta"):
        assert sum(p.numel() for p in CCTNet(**options).parameters()) == count


def torch_encoder(net: CCTNet, heads: int) -> nn.Module:
    """torch's encoder with the weights of `net`; its projections have biases, here zero."""
    layer = nn.TransformerEncoderLayer(16, heads, 32, dropout=0.0, activation="gelu", batch_first=True, norm_first=True)
    encoder = nn.TransformerEncoder(layer, len(net.blocks), norm=net.norm, enable_nested_tensor=False)
    for theirs, ours in zip(encoder.layers, net.blocks, strict=True):
        attention = ours.attention
        packed = torch.cat([attention.query.weight, attention.key.weight, attention.value.weight])
        theirs.self_attn.in_proj_weight.data, theirs.self_attn.out_proj = packed, attention.out
        theirs.norm1, theirs.norm2, theirs.linear1, theirs.linear2 = ours.norm1, ours.norm2, ours.mlp[0], ours.mlp[2]
    return encoder


def test_it_equals_the_same_net_of_torchs_layers():
    torch.manual_seed(0)
    net = CCTNet(5, **SMALL).eval()
    for parameter in net.parameters():
        nn.init.normal_(parameter, std=0.3)
    x = torch.randn(3, 3, 32, 32)
    first, second = (part for part in net.stem.layers if isinstance(part, nn.Conv2d))
    maps = x
    for conv in (first, second):
        maps = F.max_pool2d(F.conv2d(maps, conv.weight, padding=1).clamp(min=0), 3, 2, 1)
    tokens = torch_encoder(net, 2)((maps + net.stem.positions.position).flatten(2).mT)
    score = (tokens @ net.head[0].score.weight[0] + net.head[0].score.bias).exp()  # (B, T)
    pooled = (tokens * (score / score.sum(1, keepdim=True))[..., None]).sum(1)
    torch.testing.assert_close(net(x), net.head[1](pooled), atol=1e-4, rtol=1e-4)


def test_sequence_pooling_is_between_the_mean_and_one_token():
    pool, tokens = SequencePooling(4), torch.randn(2, 6, 4)
    nn.init.zeros_(pool.score.weight)
    torch.testing.assert_close(pool(tokens), tokens.mean(1))
    pool.score.weight.data[0, 0] = 1e4
    largest = tokens[..., 0].argmax(1)
    torch.testing.assert_close(pool(tokens), tokens[torch.arange(2), largest])


@pytest.mark.parametrize(("size", "grid"), [((32, 32), (8, 8)), ((30, 41), (8, 11)), ((64, 20), (16, 5))])
def test_it_takes_images_of_any_size(size, grid):
    net = CCTNet(5, image_size=size, **SMALL)
    assert net(torch.randn(2, 3, *size)).shape == (2, 5)
    assert net.stem.positions.position.shape[2:] == grid == net.stem.grid
    built_for_another = CCTNet(5, **SMALL)
    assert built_for_another(torch.randn(2, 3, *size)).shape == (2, 5)


def test_maps_have_the_tokens_at_their_places():
    net = CCTNet(5, positions=False, **SMALL).eval()
    x = torch.randn(2, 3, 20, 24)
    tokens = net.stem(x)
    torch.testing.assert_close(net.cam_reshape(tokens), net.stem.layers(x))


def test_stochastic_depth_rises_linearly():
    assert [round(b.stochastic_depth.p, 3) for b in CCTNet(dim=16, stochastic_depth=0.3, num_layers=4).blocks] == [
        0.0, 0.1, 0.2, 0.3,
    ]  # fmt: skip


def test_an_even_kernel_is_refused():
    with pytest.raises(ValueError, match=r"kernel_size is 4: expected an odd number.*choose 5"):
        CCTNet(kernel_size=4)


def test_grad_cam_sees_the_tokens():
    torch.manual_seed(0)
    model, x = CCT(5, **SMALL).eval(), torch.randn(2, 3, 32, 32)
    nn.init.normal_(model.net.head[1].weight)
    found = relevance(model, x, model(x).argmax(1).tolist())
    assert (found.maps.shape, found.layer, found.size) == ((2, 32, 32), "norm", (8, 8))
    assert (found.maps.max((1, 2)) > 0).all()
