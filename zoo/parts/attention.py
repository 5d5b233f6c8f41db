"""Attention and the transformer block. B batch, T queries, S keys, N heads, E width of a head, D = N * E width.

Vaswani et al. 2017, "Attention Is All You Need", section 3.2.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.ops import StochasticDepth


def attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    mask: Tensor | None = None,
    causal: bool = False,
    dropout: float = 0.0,
    fused: bool = True,
) -> Tensor:
    """Scaled dot-product attention: means of the values, weighted by softmax(query . key / sqrt(E)) (equation 1).

    Args:
        query: (B, N, T, E).
        key, value: (B, N, S, E).
        mask: bool, broadcastable to (B, N, T, S), true where a query may attend to a key; None for everywhere. The
            output of a query that may attend to no key is 0.
        causal: no query attends to later keys. The last query has the position of the last key, so with a cache S may
            exceed T; torch's `is_causal` aligns the first query with the first key instead.
        dropout: share of weights that are dropped.
        fused: compute by `F.scaled_dot_product_attention`, which never holds all weights, or step by step; the results
            are equal.

    Returns:
        (B, N, T, E)
    """
    length, total = query.size(2), key.size(2)
    if causal and length > 1 and not (fused and mask is None and length == total):
        past = torch.ones(length, total, dtype=torch.bool, device=query.device).tril(total - length)
        mask = past if mask is None else mask & past
        causal = False
    if fused:
        return F.scaled_dot_product_attention(query, key, value, mask, dropout, causal and length > 1)
    scores = query @ key.transpose(-2, -1) / query.size(-1) ** 0.5
    if mask is None:
        weights = scores.softmax(-1)
    else:  # not -inf, of which softmax would make NaN in rows that are masked completely
        weights = scores.masked_fill(~mask, torch.finfo(scores.dtype).min).softmax(-1).masked_fill(~mask, 0.0)
    return F.dropout(weights, dropout).to(value.dtype) @ value


def rotate(x: Tensor, start: int = 0, base: float = 10000.0) -> Tensor:
    """Rotary position embedding: rotates each pair (x[i], x[i + E/2]) at position p by the angle p / base**(2i / E).

    The dot product of a rotated query and a rotated key depends only on the distance of their positions.
    Su et al. 2021, "RoFormer", section 3.2.2; differs from it in which coordinates are paired.

    Args:
        x: (..., T, E), E even.
        start: position of the first of the T; the others follow.

    Returns:
        The same shape and type; computed in float32 at least.
    """
    length, half = x.size(-2), x.size(-1) // 2
    device, dtype = x.device, torch.promote_types(x.dtype, torch.float32)
    position = torch.arange(start, start + length, device=device, dtype=dtype)
    angle = position[:, None] * base ** (-torch.arange(half, device=device, dtype=dtype) / half)
    cos, sin = angle.cos(), angle.sin()
    first, second = x.to(dtype).chunk(2, dim=-1)
    return torch.cat((first * cos - second * sin, first * sin + second * cos), dim=-1).to(x.dtype)


def strided_mask(length: int, stride: int, num_heads: int = 2) -> Tensor:
    """Sparse attention in two steps: heads take turns at the last tokens, and at every `stride`-th of those before.

    For data with a period, such as the rows of an image, which `stride` is the length of. Child et al. 2019,
    "Generating Long Sequences with Sparse Transformers", section 4.3. Every token reaches every earlier one over at
    most one other, at about 2 sqrt(T) instead of T keys for a query if the stride is about sqrt(T).

    Args:
        length: T.
        stride: l.
        num_heads: N; even heads see the last l tokens and the token itself, odd ones those at distances 0, l, 2 l, ...

    Returns:
        (N, T, T) bool, as `attention` takes it; no token attends to later ones.

    Raises:
        ValueError: for a stride below 1.

    >>> strided_mask(5, 2).int().tolist()[1]
    [[1, 0, 0, 0, 0], [0, 1, 0, 0, 0], [1, 0, 1, 0, 0], [0, 1, 0, 1, 0], [1, 0, 1, 0, 1]]
    """
    if stride < 1:
        raise ValueError(f"stride is {stride}: expected 1 or more, such as the square root of the length")
    place = torch.arange(length)
    distance = place[:, None] - place
    return _taking_turns(distance <= stride, distance % stride == 0, num_heads)


def fixed_mask(length: int, stride: int, num_heads: int = 2, summary: int = 1) -> Tensor:
    """Sparse attention in two steps: heads take turns at the token's own block, and at the last tokens of all blocks.

    For data without a period, such as text: the last tokens of a block sum it up for all later ones (section 4.3
    there, "fixed"). A head of the second kind that no block ends before has nothing to attend to, and gives 0.

    Args:
        length: T.
        stride: l, tokens in a block.
        num_heads: N; even heads see the block, odd ones the summaries.
        summary: c, how many tokens sum a block up.

    Returns:
        (N, T, T) bool, as `attention` takes it; no token attends to later ones.

    Raises:
        ValueError: for a stride below 1, or a summary that is longer than a block.
    """
    if not 1 <= summary <= stride:
        raise ValueError(f"stride is {stride} and summary {summary}: expected a summary of 1 to stride tokens")
    place = torch.arange(length)
    block = place // stride
    is_summary = place % stride >= stride - summary
    return _taking_turns(block[:, None] == block, is_summary.expand(length, length), num_heads)


def _taking_turns(even: Tensor, odd: Tensor, num_heads: int) -> Tensor:
    """Two patterns (T, T) -> (N, T, T): of even and odd heads, without later tokens."""
    return torch.stack([odd if head % 2 else even for head in range(num_heads)]).tril()


class Cache:
    """The keys and values (B, N, S, E) of the tokens that an attention layer has seen; empty at first."""

    def __init__(self) -> None:
        self.key: Tensor | None = None
        self.value: Tensor | None = None

    def __len__(self) -> int:
        return 0 if self.key is None else self.key.size(2)

    def extend(self, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
        """Appends the keys and values of the next tokens; returns all."""
        if self.key is not None and self.value is not None:
            key, value = torch.cat((self.key, key), dim=2), torch.cat((self.value, value), dim=2)
        self.key, self.value = key, value
        return key, value


class MultiHeadAttention(nn.Module):
    """N attentions in parallel, each on linear projections of its own (section 3.2.2).

    Args:
        dim: D.
        num_heads: N, which divides D.
        causal: no token attends to later ones.
        rotary: encodes positions by rotating queries and keys (`rotate`); needs an even D / N.
        bias: of the four projections.
        dropout: of the weights, in training.
        fused: see `attention`.
        qkv_bias: of the projections to queries, keys and values; None for the same as `bias`.

    Shape: (B, T, D) -> (B, T, D).

    Raises:
        ValueError: if N does not divide D, or D / N is odd with rotary positions.

    >>> layer = MultiHeadAttention(32, num_heads=4, causal=True)
    >>> layer(torch.zeros(2, 10, 32)).shape
    torch.Size([2, 10, 32])
    """

    def __init__(
        self,
        dim: int,
        num_heads: int,
        causal: bool = False,
        rotary: bool = False,
        bias: bool = True,
        dropout: float = 0.0,
        fused: bool = True,
        qkv_bias: bool | None = None,
    ) -> None:
        super().__init__()
        if dim % num_heads or (rotary and dim // num_heads % 2):
            raise ValueError(
                f"dim is {dim}, num_heads {num_heads}: expected heads of equal{' and even' if rotary else ''} width; "
                f"change one, such as dim={2 * num_heads * max(1, round(dim / num_heads / 2))}"
            )
        self.num_heads, self.causal, self.rotary, self.dropout, self.fused = num_heads, causal, rotary, dropout, fused
        qkv_bias = bias if qkv_bias is None else qkv_bias
        self.query, self.key, self.value = (nn.Linear(dim, dim, bias=qkv_bias) for _ in range(3))
        self.out = nn.Linear(dim, dim, bias=bias)

    def forward(
        self, x: Tensor, memory: Tensor | None = None, mask: Tensor | None = None, cache: Cache | None = None
    ) -> Tensor:
        """
        Args:
            x: (B, T, D).
            memory: (B, S, D), what is attended to instead of x (cross attention).
            mask: bool, true where there is something to attend to: (B, S) for keys, or broadcastable to (B, N, T, S).
            cache: of the tokens before x, which grows by x.
        """
        source = x if memory is None else memory
        query, key, value = (
            layer(inputs).unflatten(-1, (self.num_heads, -1)).transpose(1, 2)
            for layer, inputs in ((self.query, x), (self.key, source), (self.value, source))
        )
        if self.rotary:
            start = 0 if cache is None else len(cache)
            query, key = rotate(query, start), rotate(key, start)
        if cache is not None:
            key, value = cache.extend(key, value)
        if mask is not None and mask.ndim == 2:
            mask = mask[:, None, None, :]
        dropout = self.dropout if self.training else 0.0
        mixed = attention(query, key, value, mask=mask, causal=self.causal, dropout=dropout, fused=self.fused)
        return self.out(mixed.transpose(1, 2).flatten(2))


class Block(nn.Module):
    """A transformer block: attention, then two layers token by token, as two residual branches, each pre-normalized.

    Pre-norm, as in Radford et al. 2019, "Language Models are Unsupervised Multitask Learners", section 2.3.

    Args:
        dim: D.
        num_heads, causal, rotary, bias, dropout, fused, qkv_bias: see `MultiHeadAttention`; bias is also that of the
            two layers, dropout also that of the two branches.
        norm: makes a norm of D channels.
        act: makes the activation between the two layers.
        expand: their inner width as a multiple of D.
        stochastic_depth: probability with which a branch is left out for a sample in training; Huang et al. 2016,
            "Deep Networks with Stochastic Depth", section 3.

    Shape: (B, T, D) -> (B, T, D).
    """

    def __init__(
        self,
        dim: int,
        num_heads: int,
        causal: bool = False,
        rotary: bool = False,
        bias: bool = True,
        dropout: float = 0.0,
        fused: bool = True,
        norm: Callable[[int], nn.Module] = nn.LayerNorm,
        act: Callable[[], nn.Module] = nn.GELU,
        expand: int = 4,
        qkv_bias: bool | None = None,
        stochastic_depth: float = 0.0,
    ) -> None:
        super().__init__()
        self.norm1, self.norm2 = norm(dim), norm(dim)
        self.attention = MultiHeadAttention(
            dim, num_heads, causal=causal, rotary=rotary, bias=bias, dropout=dropout, fused=fused, qkv_bias=qkv_bias
        )
        self.mlp = nn.Sequential(nn.Linear(dim, expand * dim, bias), act(), nn.Linear(expand * dim, dim, bias))
        self.drop = nn.Dropout(dropout)
        self.stochastic_depth = StochasticDepth(stochastic_depth, "row")

    def forward(self, x: Tensor, mask: Tensor | None = None, cache: Cache | None = None) -> Tensor:
        """mask, cache: see `MultiHeadAttention`."""
        x = x + self.stochastic_depth(self.drop(self.attention(self.norm1(x), mask=mask, cache=cache)))
        return x + self.stochastic_depth(self.drop(self.mlp(self.norm2(x))))

    def last_layers(self) -> tuple[nn.Module, nn.Module]:
        """The last layers of the two branches, whose outputs are added to the residual stream."""
        return self.attention.out, self.mlp[-1]


def rising_stochastic_depth(last: float, num_layers: int) -> list[float]:
    """The probabilities of stochastic depth of all blocks: from 0 at the first linearly to `last` (section 3 there).

    >>> rising_stochastic_depth(0.5, 3)
    [0.0, 0.25, 0.5]
    """
    return [last * i / max(1, num_layers - 1) for i in range(num_layers)]


def initialize_gpt2(net: nn.Module) -> None:
    """Initializes all linear layers, embeddings and blocks of a transformer as GPT-2, in place.

    Weights are normal with standard deviation 0.02, biases 0. The layers that add to the residual stream, two in each
    of L blocks, are scaled by 1 / sqrt(2 L), so that the stream doesn't grow with the depth (Radford et al. 2019,
    section 2.3).

    >>> net = nn.ModuleList(Block(64, 2) for _ in range(8))
    >>> initialize_gpt2(net)
    >>> [round(layer.weight.std().item(), 3) for layer in (net[0].mlp[0], net[0].mlp[2])]
    [0.02, 0.005]
    """
    for module in net.modules():
        if isinstance(module, (nn.Linear, nn.Embedding)):
            nn.init.normal_(module.weight, std=0.02)
        if isinstance(module, nn.Linear) and module.bias is not None:
            nn.init.zeros_(module.bias)
    blocks = [module for module in net.modules() if isinstance(module, Block)]
    with torch.no_grad():
        for block in blocks:
            for layer in block.last_layers():
                layer.weight /= (2 * len(blocks)) ** 0.5


def initialize_deit(net: nn.Module) -> None:
    """Initializes all linear layers and convolutions as those of vision transformers are, in place.

    Weights are normal with standard deviation 0.02, biases 0: Touvron et al. 2021, "Training Data-Efficient Image
    Transformers", section 6.
    """
    for module in net.modules():
        if isinstance(module, (nn.Linear, nn.Conv2d)):
            nn.init.trunc_normal_(module.weight, std=0.02)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
