"""Attention equals torch's, fused and step by step, in values and gradients; a cache changes nothing."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from zoo.parts.attention import (
    Block,
    Cache,
    MultiHeadAttention,
    attention,
    fixed_mask,
    initialize_gpt2,
    rotate,
    strided_mask,
)

D, N = 24, 3


def tensors(*shapes: tuple[int, ...], seed: int = 0) -> list[Tensor]:
    draw = torch.Generator().manual_seed(seed)
    return [torch.randn(shape, generator=draw, dtype=torch.float64, requires_grad=True) for shape in shapes]


def close(ours: Tensor, theirs: Tensor, inputs: list[Tensor], atol: float = 1e-12) -> None:
    """Asserts equal values and gradients, the latter of a function that weighs all values differently."""
    torch.testing.assert_close(ours, theirs, atol=atol, rtol=1e-9)
    for a, b in zip(
        *(torch.autograd.grad(y.sin().sum(), inputs, retain_graph=True) for y in (ours, theirs)), strict=True
    ):
        torch.testing.assert_close(a, b, atol=atol, rtol=1e-9)


def one_by_one(query: Tensor, key: Tensor, value: Tensor, allowed: Tensor) -> Tensor:
    """Equation 1 of Vaswani et al., a query at a time, over the keys that it may attend to."""
    out = torch.zeros(*query.shape[:-1], value.size(-1), dtype=query.dtype)
    for b, n, t in torch.cartesian_prod(*(torch.arange(size) for size in query.shape[:3])).tolist():
        seen = allowed[b, n, t].nonzero()[:, 0]
        if len(seen):
            scores = key[b, n, seen] @ query[b, n, t] / query.size(-1) ** 0.5
            weights = scores.exp() / scores.exp().sum()
            out[b, n, t] = weights @ value[b, n, seen]
    return out


@settings(max_examples=40, deadline=None)
@given(
    st.integers(1, 2), st.integers(1, 2), st.integers(1, 5), st.integers(0, 3), st.integers(1, 3),
    st.booleans(), st.sampled_from(["none", "keys", "pairs"]), st.integers(0, 1000),
)  # fmt: skip
def test_fused_and_step_by_step_equal_the_definition(b, n, t, more, half, causal, masked, seed):
    s, e = t + more, 2 * half
    query, key, value = inputs = tensors((b, n, t, e), (b, n, s, e), (b, n, s, e), seed=seed)
    shape = {"none": None, "keys": (b, 1, 1, s), "pairs": (1, n, t, s)}[masked]
    mask = None if shape is None else torch.rand(shape, generator=torch.Generator().manual_seed(seed)) < 0.7
    allowed = torch.ones(b, n, t, s, dtype=torch.bool) if mask is None else mask.expand(b, n, t, s)
    if causal:  # the last query has the position of the last key
        allowed = allowed & (torch.arange(s)[None] <= torch.arange(t)[:, None] + more)
    fused, written = (attention(query, key, value, mask, causal, fused=fused) for fused in (True, False))
    if allowed.any(-1).all():
        close(written, one_by_one(query, key, value, allowed), inputs)
        close(fused, written, inputs)
    else:
        expected = one_by_one(query, key, value, allowed)
        for found in (fused, written):
            torch.testing.assert_close(found, expected, atol=1e-12, rtol=1e-9)
            gradients = torch.autograd.grad(found.sin().sum(), inputs)
            assert all(g.isfinite().all() for g in gradients)


def test_16_bits_give_the_result_of_64_within_their_precision():
    query, key, value = (x.detach().bfloat16() for x in tensors((1, 2, 300, 8), (1, 2, 300, 8), (1, 2, 300, 8)))
    exact = attention(query.double(), key.double(), value.double(), fused=False)
    found = attention(query, key, value, fused=False)
    assert found.dtype == torch.bfloat16
    torch.testing.assert_close(found.double(), exact, atol=1e-2, rtol=2e-2)


def copied(ours: MultiHeadAttention, **options) -> nn.MultiheadAttention:
    theirs = nn.MultiheadAttention(D, N, batch_first=True, dtype=torch.float64, **options)
    with torch.no_grad():
        theirs.in_proj_weight.copy_(torch.cat([layer.weight for layer in (ours.query, ours.key, ours.value)]))
        theirs.out_proj.weight.copy_(ours.out.weight)
        if ours.out.bias is not None:
            theirs.in_proj_bias.copy_(torch.cat([layer.bias for layer in (ours.query, ours.key, ours.value)]))
            theirs.out_proj.bias.copy_(ours.out.bias)
    return theirs


@pytest.mark.parametrize("fused", [True, False])
@pytest.mark.parametrize(
    ("bias", "causal", "padded", "cross"),
    [(True, False, False, False), (False, False, True, False), (True, True, True, False), (True, False, True, True)],
)
def test_multi_head_attention_equals_torchs(bias, causal, padded, cross, fused):
    torch.manual_seed(0)
    ours = MultiHeadAttention(D, N, causal=causal, bias=bias, fused=fused).double()
    theirs = copied(ours, bias=bias)
    x, memory = inputs = tensors((2, 6, D), (2, 9, D))
    source = memory if cross else x
    mask = torch.arange(source.size(1)) < torch.tensor([[source.size(1)], [4]]) if padded else None
    later = torch.ones(6, 6, dtype=torch.bool).triu(1) if causal else None
    found = ours(x, memory if cross else None, mask=mask)
    expected, _ = theirs(x, source, source, key_padding_mask=None if mask is None else ~mask, attn_mask=later)
    close(found, expected, inputs if cross else [x])


def test_a_block_equals_torchs_pre_norm_layer():
    torch.manual_seed(0)
    ours = Block(D, N, causal=True).double().eval()
    theirs = nn.TransformerEncoderLayer(
        D, N, 4 * D, dropout=0.0, activation="gelu", batch_first=True, norm_first=True, dtype=torch.float64
    )
    theirs.self_attn = copied(ours.attention)
    theirs.linear1, theirs.linear2, theirs.norm1, theirs.norm2 = ours.mlp[0], ours.mlp[2], ours.norm1, ours.norm2
    (x,) = tensors((2, 5, D))
    close(ours(x), theirs(x, src_mask=nn.Transformer.generate_square_subsequent_mask(5, dtype=torch.float64)), [x])


# Rotary positions


def test_rotation_is_multiplication_by_complex_numbers():
    (x,) = tensors((2, 3, 7, 8))
    pairs = torch.view_as_complex(torch.stack(x.chunk(2, -1), -1))
    angle = torch.arange(5, 12, dtype=torch.float64)[:, None] / 10000 ** (torch.arange(4) / 4).double()
    turned = torch.view_as_real(pairs * torch.polar(torch.ones_like(angle), angle))
    close(rotate(x, start=5), torch.cat(turned.unbind(-1), -1), [x], atol=1e-7)  # 10000**(...) in float32 there


@given(st.integers(0, 200), st.integers(0, 200), st.integers(0, 500))
def test_scores_of_rotated_vectors_depend_on_their_distance_only(i, j, shift):
    query, key = (x.detach() for x in tensors((1, 16), (1, 16)))
    here = (rotate(query, i) * rotate(key, j)).sum()
    torch.testing.assert_close((rotate(query, i + shift) * rotate(key, j + shift)).sum(), here)
    torch.testing.assert_close(rotate(query, i).norm(), query.norm())
    if i != j:
        assert (here - (query * key).sum()).abs() > 1e-9


def test_rotation_of_large_positions_is_exact_in_bfloat16():
    x = torch.ones(1, 8, dtype=torch.bfloat16)  # which cannot hold the number 1001
    assert rotate(x, 1001).dtype == torch.bfloat16
    assert torch.equal(rotate(x, 1001), rotate(x.float(), 1001).bfloat16())
    assert not torch.equal(rotate(x, 1001), rotate(x, 1000))


# The cache


@pytest.mark.parametrize("fused", [True, False])
@pytest.mark.parametrize("rotary", [True, False])
@pytest.mark.parametrize("parts", [[1] * 7, [4, 1, 2], [7], [1, 6]])
def test_with_a_cache_the_result_in_parts_equals_that_in_one(rotary, fused, parts):
    torch.manual_seed(0)
    layer = Block(D, N, causal=True, rotary=rotary, fused=fused).double().eval()
    (x,) = tensors((2, 7, D))
    cache = Cache()
    assert len(cache) == 0
    found = torch.cat([layer(part, cache=cache) for part in x.split(parts, dim=1)], dim=1)
    assert len(cache) == 7
    close(found, layer(x), [x])


@pytest.mark.parametrize("rotary", [True, False])
def test_later_tokens_matter_unless_it_is_causal(rotary):
    (x,) = tensors((1, 6, D))
    changed = x.detach().clone()
    changed[:, 4:] += 1
    for causal in (True, False):
        torch.manual_seed(0)
        layer = MultiHeadAttention(D, N, causal=causal, rotary=rotary).double()
        assert torch.allclose(layer(x)[:, :4], layer(changed)[:, :4]) == causal


# The rest


def test_dropout_is_for_training_only():
    torch.manual_seed(0)
    (x,) = tensors((2, 6, D))
    for fused in (True, False):
        layer = MultiHeadAttention(D, N, dropout=0.5, fused=fused).double()
        assert not torch.equal(layer(x), layer(x))
        layer.eval()
        assert torch.equal(layer(x), layer(x))


@pytest.mark.parametrize(("dim", "heads", "rotary"), [(10, 3, False), (9, 3, True)])
def test_heads_that_do_not_divide_the_width(dim, heads, rotary):
    with pytest.raises(
        ValueError, match=rf"dim is {dim}, num_heads 3: expected heads of equal .*such as dim="
    ) as error:
        MultiHeadAttention(dim, heads, rotary=rotary)
    MultiHeadAttention(int(str(error.value).rpartition("=")[2]), heads, rotary=rotary)  # the remedy works


def test_initialization_of_gpt2():
    torch.manual_seed(0)
    net = nn.ModuleList([nn.Embedding(500, 96), *(Block(96, 4) for _ in range(8))])
    initialize_gpt2(net)
    for name, p in net.named_parameters():
        if p.ndim == 2:
            residual = name.endswith(("attention.out.weight", "mlp.2.weight"))
            assert p.std().item() == pytest.approx(0.02 / 16**0.5 if residual else 0.02, rel=0.05), name
            assert abs(p.mean().item()) < 1e-3
        elif "norm" not in name:
            assert not p.any(), name


def strided_set(i: int, stride: int, head: int) -> set[int]:
    """The sets of section 4.3 of Child et al. 2019, for the strided pattern."""
    return {j for j in range(i + 1) if (j >= max(0, i - stride) if head % 2 == 0 else (i - j) % stride == 0)}


def fixed_set(i: int, size: int, head: int, c: int) -> set[int]:
    return {j for j in range(i + 1) if (j // size == i // size if head % 2 == 0 else j % size in range(size - c, size))}


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 20), st.integers(1, 6), st.integers(1, 3), st.integers(1, 4))
def test_sparse_masks_are_the_sets_of_the_paper_and_two_steps_reach_every_earlier_token(length, stride, summary, heads):
    summary = min(summary, stride)
    masks = strided_mask(length, stride, heads), fixed_mask(length, stride, heads, summary)
    for mask, allowed in zip(masks, (strided_set, lambda i, size, h: fixed_set(i, size, h, summary)), strict=True):
        assert mask.shape == (heads, length, length)
        found = [[set(row.nonzero()[:, 0].tolist()) for row in head] for head in mask]
        assert found == [[allowed(i, stride, h) for i in range(length)] for h in range(heads)]
    for even, odd in (strided_mask(length, stride), fixed_mask(length, stride, summary=summary)):
        step = (even | odd).double()
        assert torch.equal((step @ step > 0) | (step > 0), torch.ones(length, length).tril() > 0)


@pytest.mark.parametrize("mask", [strided_mask(10, 3, N), fixed_mask(10, 3, N, summary=2)])
@pytest.mark.parametrize("fused", [True, False])
def test_sparse_attention_equals_torchs_with_the_same_mask(mask, fused):
    ours = MultiHeadAttention(D, N, fused=fused).double()
    theirs = copied(ours)
    (x,) = tensors((1, 10, D))
    mask = mask | torch.eye(10, dtype=torch.bool)  # torch gives NaN where a query may attend to nothing
    expected = theirs(x, x, x, attn_mask=~mask, need_weights=False)[0]
    close(ours(x, mask=mask[None]), expected, [x])


def test_a_fixed_head_without_a_block_before_it_gives_zero():
    query, key, value = (x.detach() for x in tensors((1, 2, 7, 4), (1, 2, 7, 4), (1, 2, 7, 4)))
    found = attention(query, key, value, fixed_mask(7, 3)[None])
    assert not found[0, 1, :2].any()
    assert found[0, 1, 2:].any(-1).all()


def test_sparse_masks_of_impossible_sizes_are_refused():
    with pytest.raises(ValueError, match="stride is 0: expected 1 or more"):
        strided_mask(4, 0)
    with pytest.raises(ValueError, match="stride is 2 and summary 3: expected a summary of 1 to stride"):
        fixed_mask(4, 2, summary=3)
