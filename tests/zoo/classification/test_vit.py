"""Vision transformers take torchvision's weights by one argument, and then give its logits."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torchvision.models import VisionTransformer

from callbacks.galleries.relevance import relevance
from callbacks.monitors.attention_maps import as_maps, attention_weights
from zoo.classification.vit import ViT, ViTB16, ViTNet, split_projections
from zoo.parts.patches import sincos_positions

SMALL = {"image_size": 32, "patch_size": 8, "dim": 32, "num_layers": 2, "num_heads": 2, "mlp_ratio": 2}


def torchvision_vit(num_classes: int = 7, hidden_dim: int = 32) -> nn.Module:
    torch.manual_seed(0)
    vit = VisionTransformer(
        32, 8, num_layers=2, num_heads=2, hidden_dim=hidden_dim, mlp_dim=64, num_classes=num_classes
    )
    for parameter in vit.parameters():  # torchvision starts biases and the head at zero
        nn.init.normal_(parameter, std=0.2)
    return vit.eval()


@pytest.fixture
def theirs() -> nn.Module:
    return torchvision_vit()


@pytest.fixture
def path(theirs, tmp_path) -> str:
    torch.save(theirs.state_dict(), tmp_path / "vit.pth")
    return str(tmp_path / "vit.pth")


def test_vit_b16_has_as_many_parameters_as_published():
    with torch.device("meta"):
        model = ViTB16(num_classes=1000)
    assert sum(p.numel() for p in model.parameters()) == 86_567_656
    assert (model.net.stem.learned_grid, len(model.net.blocks)) == ((14, 14), 12)


def test_torchvisions_weights_give_torchvisions_logits(theirs, path):
    ours, x = ViTB16(7, weights=path, **SMALL).eval(), torch.randn(3, 3, 32, 32)
    torch.testing.assert_close(ours(x), theirs(x), atol=1e-4, rtol=0)
    assert ours.is_initialized


def test_weights_of_torchvisions_first_release_load_too(theirs, tmp_path):
    """There the two layers of a block had names of their own."""
    old = {
        name.replace("mlp.0", "mlp.linear_1").replace("mlp.3", "mlp.linear_2"): value
        for name, value in theirs.state_dict().items()
    }
    torch.save(old, tmp_path / "old.pth")
    ours, x = ViTB16(7, weights=str(tmp_path / "old.pth"), **SMALL).eval(), torch.randn(2, 3, 32, 32)
    torch.testing.assert_close(ours(x), theirs(x), atol=1e-4, rtol=0)


def test_for_another_number_of_classes_only_the_head_stays_random(theirs, path):
    ours = ViTB16(3, weights=path, **SMALL).net.eval()
    theirs.heads = nn.Identity()
    x = torch.randn(2, 3, 32, 32)
    assert ours(x).shape == (2, 3)
    torch.testing.assert_close(ours(x), ours.head(theirs(x)), atol=1e-4, rtol=0)


def test_without_weights_nothing_is_loaded():
    torch.manual_seed(0)
    first = ViTB16(7, **SMALL)
    torch.manual_seed(0)
    second = ViT(7, **SMALL)
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))
    assert not first.is_initialized


def test_weights_of_another_width_or_architecture_are_refused_with_both_shapes(tmp_path):
    torch.save(torchvision_vit(hidden_dim=16).state_dict(), tmp_path / "narrow.pth")
    with pytest.raises(ValueError, match=r"\b16\b.*\b32\b"):
        ViTB16(7, weights=str(tmp_path / "narrow.pth"), **SMALL)
    torch.save(nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)).state_dict(), tmp_path / "other.pth")
    with pytest.raises(ValueError, match="missing"):
        ViTB16(7, weights=str(tmp_path / "other.pth"), **SMALL)


def test_a_packed_projection_is_split_in_the_order_of_query_key_and_value(theirs):
    state = theirs.state_dict()
    found = split_projections(state)
    layer = "encoder.layers.encoder_layer_1.self_attention"
    parts = torch.cat([found[f"{layer}.{part}.weight"] for part in ("query", "key", "value")])
    assert torch.equal(parts, state[f"{layer}.in_proj_weight"])
    assert not any("in_proj" in name for name in found)


def test_stochastic_depth_leaves_branches_out_in_training_only():
    net = ViTNet(5, stochastic_depth=1.0, **SMALL)
    assert [block.stochastic_depth.p for block in net.blocks] == [0.0, 1.0]
    x = torch.randn(2, 3, 32, 32)
    first = net.head(net.norm(net.blocks[0](net.stem(x))[:, 0]))
    torch.testing.assert_close(net.train()(x), first)
    always = ViTNet(5, **SMALL)
    always.load_state_dict(net.state_dict())
    torch.testing.assert_close(net.eval()(x), always.eval()(x))
    assert not torch.allclose(net(x), first)


def test_grad_cam_sees_the_patches():
    torch.manual_seed(0)
    model = ViT(5, **(SMALL | {"image_size": 48})).eval()
    nn.init.normal_(model.net.head.weight)
    x = torch.randn(2, 3, 48, 48)
    found = relevance(model, x, model(x).argmax(1).tolist())
    assert (found.maps.shape, found.layer, found.size) == ((2, 48, 48), "blocks.1.norm1", (6, 6))
    assert (found.maps.max((1, 2)) > 0).all()


MEAN = {"pool": "mean", "position": "sincos"}


def test_the_mean_of_all_patches_can_be_classified_instead_of_a_class_token():
    net = ViTNet(5, **SMALL, **MEAN)
    nn.init.normal_(net.head.weight)
    x = torch.randn(2, 3, 32, 32)
    tokens = net.stem(x)
    assert tokens.shape == (2, 16, 32)
    for block in net.blocks:
        tokens = block(tokens)
    torch.testing.assert_close(net(x), net.head(torch.stack([net.norm(t).mean(0) for t in tokens])))
    with_token = ViTNet(5, **SMALL)
    fewer = sum(p.numel() for p in with_token.parameters()) - sum(p.numel() for p in net.parameters())
    assert fewer == 2 * 32  # the token and its position


@pytest.mark.parametrize("pool", ["cls", "mean"])
def test_positions_start_as_sines_and_cosines_and_are_learned(pool):
    net = ViTNet(5, **SMALL, pool=pool, position="sincos")
    assert torch.equal(net.stem.position[0, -16:], 0.5 * sincos_positions((4, 4), 32))
    nn.init.normal_(net.head.weight)
    net(torch.randn(2, 3, 32, 32)).sum().backward()
    assert net.stem.position.grad.abs().amax(2).gt(0).all()


def test_grad_cam_and_attention_see_the_patches_without_a_class_token():
    torch.manual_seed(0)
    model = ViT(5, **SMALL | {"image_size": 48}, **MEAN).eval()
    nn.init.normal_(model.net.head.weight)
    x = torch.randn(2, 3, 48, 48)
    found = relevance(model, x, model(x).argmax(1).tolist())
    assert (found.maps.shape, found.size) == ((2, 48, 48), (6, 6))
    assert (found.maps.max((1, 2)) > 0).all()
    last = attention_weights(model, x)[-1].mean(1)
    torch.testing.assert_close(as_maps(last, model.net).flatten(1), last.mean(1))


def test_images_of_another_size_get_interpolated_positions_without_a_class_token():
    net = ViTNet(5, **SMALL, **MEAN).eval()
    assert net(torch.randn(2, 3, 48, 64)).shape == (2, 5)
    assert net.stem.grid == (6, 8)


def test_sines_and_cosines_need_a_width_of_multiples_of_four():
    with pytest.raises(ValueError, match="dim is 34: expected a multiple of 4"):
        ViTNet(5, **SMALL | {"dim": 34}, position="sincos")


@given(st.integers(1, 9), st.integers(1, 9), st.integers(2, 16))
def test_sincos_positions_equal_their_formula(height, width, quarter):
    found = sincos_positions((height, width), 4 * quarter)
    for row, column, i in [(0, 0, 0), (height - 1, width - 1, quarter - 1), (height // 2, width // 3, quarter // 2)]:
        angle = [place / 10000 ** (i / (quarter - 1)) for place in (column, row)]
        wanted = [f(a) for a in angle for f in (math.sin, math.cos)]
        torch.testing.assert_close(found[row * width + column, i::quarter], torch.tensor(wanted))
