"""Ultimus blocks are what their formulas say, in the literal form and with each change."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from zoo.classification.ultimus import UltimusBlock, UltimusNet

FIXED = {"residual": True, "pre_norm": True, "scale_scores": True}


def by_hand(block: UltimusBlock, x: list[float]) -> list[float]:
    """The literal form, number by number."""

    def linear(layer: torch.nn.Linear, numbers: list[float]) -> list[float]:
        rows = zip(layer.weight.tolist(), layer.bias.tolist(), strict=True)
        return [sum(w * n for w, n in zip(row, numbers, strict=True)) + bias for row, bias in rows]

    query, key, value = (linear(layer, x) for layer in (block.query, block.key, block.value))
    weights = []
    for q in query:
        row = [math.exp(q * k) for k in key]
        weights.append([number / sum(row) / math.sqrt(len(key)) for number in row])
    mixed = [sum(v * row[j] for v, row in zip(value, weights, strict=True)) for j in range(len(key))]
    return linear(block.out, mixed)


@given(st.integers(1, 6), st.integers(1, 9), st.integers(0, 1000))
@settings(max_examples=15, deadline=None)
def test_the_literal_block_is_the_courses_formula(dim, width, seed):
    torch.manual_seed(seed)
    block, x = UltimusBlock(dim, width).double(), torch.randn(3, dim, dtype=torch.float64)
    expected = torch.tensor([by_hand(block, row) for row in x.tolist()], dtype=torch.float64)
    torch.testing.assert_close(block(x), expected)


def test_scaled_scores_are_divided_inside_of_the_softmax():
    """With keys divided by the root, the literal form gives the same up to the root outside, which it keeps."""
    torch.manual_seed(0)
    literal, scaled, x = UltimusBlock(), UltimusBlock(scale_scores=True), torch.randn(4, 48)
    scaled.load_state_dict(literal.state_dict())
    with torch.no_grad():
        for parameter in literal.key.parameters():
            parameter /= 8**0.5
        literal.value.weight *= 8**0.5
        literal.value.bias *= 8**0.5
        torch.testing.assert_close(literal(x), scaled(x))


def test_equal_scores_leave_one_number_of_eight():
    """Without scores all weights are equal, and what is handed on is the mean of the values, eight times."""
    block, x = UltimusBlock(), torch.randn(5, 48)
    with torch.no_grad():
        for parameter in block.query.parameters():
            parameter.zero_()
        block.out.weight.copy_(torch.eye(48, 8))
        block.out.bias.zero_()
        mixed = block(x)[:, :8]
        mean = block.value(x).mean(1, keepdim=True) / 8**0.5
    torch.testing.assert_close(mixed, mean.expand(5, 8))


def test_a_residual_block_adds_to_its_input_and_a_pre_norm_block_ignores_scale_and_shift():
    torch.manual_seed(0)
    plain, residual, normed, x = (
        UltimusBlock(),
        UltimusBlock(residual=True),
        UltimusBlock(pre_norm=True),
        torch.randn(4, 48),
    )
    residual.load_state_dict(plain.state_dict())
    with torch.no_grad():
        torch.testing.assert_close(residual(x), x + plain(x))
        torch.testing.assert_close(normed(10 * x + 3), normed(x), rtol=1e-3, atol=1e-5)
        assert not torch.allclose(plain(10 * x + 3), plain(x), rtol=1e-3, atol=1e-5)


def test_a_gain_multiplies_the_first_weights_and_hands_more_on():
    blocks = []
    for gain in (None, 4.0):
        torch.manual_seed(0)
        blocks.append(UltimusBlock(gain=gain))
    torch.testing.assert_close(blocks[1].query.weight, 4 * blocks[0].query.weight)
    assert not blocks[1].out.bias.any()
    with torch.no_grad():
        x = torch.randn(64, 48)
        small, large = (block(x).std(0).mean() for block in blocks)
    assert large > 10 * small


def test_the_net_is_as_large_as_the_course_says():
    net = UltimusNet()
    convolutions = 9 * (3 * 16 + 16 * 32 + 32 * 48) + 2 * (16 + 32 + 48)  # with the norms
    blocks = 4 * (3 * (48 * 8 + 8) + 8 * 48 + 48)
    assert sum(p.numel() for p in net.parameters()) == convolutions + blocks + 48 * 10 + 10 == 25_978
    assert net.stages(net.stem(torch.zeros(1, 3, 32, 32))).shape == (1, 48, 8, 8)


@pytest.mark.parametrize("form", [{}, FIXED])
def test_only_the_fixed_form_hands_the_differences_between_images_on(form):
    torch.manual_seed(0)
    net, x = UltimusNet(in_channels=1, **form), torch.randn(64, 1, 8, 8)
    with torch.no_grad():
        pooled = net.stages(net.stem(x)).mean((2, 3))
        left = net.blocks(pooled).std(0).mean() / pooled.std(0).mean()
    assert 0.5 < left < 3 if form else left < 1e-3


def test_bad_sizes_are_refused():
    with pytest.raises(ValueError, match=r"2 values.* 3: expected"):
        UltimusNet(widths=(16, 48))
    with pytest.raises(ValueError, match=r"5 x 3 pixels: expected 4 x 4"):
        UltimusNet(1, 3)(torch.zeros(1, 3, 3, 5))
