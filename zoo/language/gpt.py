"""GPT: predicts the next token. It is for writing text that continues a given one, in the manner of what it has read.

B batch, T tokens, D width, V vocabulary.

Radford et al. 2019, "Language Models are Unsupervised Multitask Learners", with later improvements as options.
"""

from collections.abc import Iterator
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from callbacks.figures.axis import percent_axis
from zoo.language.base import LanguageModel
from zoo.parts.activations import SquaredReLU
from zoo.parts.attention import Block, Cache, initialize_gpt2


class Stem(nn.Module):
    """The sum of token embedding and, unless `context` is 0, position embedding."""

    def __init__(self, vocab_size: int, dim: int, context: int, dropout: float) -> None:
        super().__init__()
        self.token = nn.Embedding(vocab_size, dim)
        self.position = nn.Embedding(context, dim) if context else None
        self.drop = nn.Dropout(dropout)

    def forward(self, input_ids: Tensor, start: int = 0) -> Tensor:
        """(B, T) int64 -> (B, T, D); `start` is the position of the first token."""
        x = self.token(input_ids)
        if self.position is not None:
            x = x + self.position.weight[start : start + input_ids.size(1)]
        return self.drop(x)


class GPTNet(nn.Module):
    """Token and position embeddings, causal transformer blocks, a norm, and a linear layer to the vocabulary.

    Args:
        vocab_size: V.
        context: T at most.
        num_layers: blocks.
        num_heads: of each attention.
        dim: D.
        dropout: of embeddings, attention weights and branches.
        bias: in linear layers and norms.
        rotary: positions by rotation of queries and keys (Su et al. 2021) instead of learned embeddings.
        rms_norm: root-mean-square norm (Zhang and Sennrich 2019) instead of layer norm.
        squared_relu: as activation (So et al. 2021) instead of GELU in its tanh form.
        tied: the embedding matrix of the tokens is also the output matrix (Press and Wolf 2017).
        fused: see `zoo.parts.attention.attention`.

    Shape: (B, T) int64 -> (B, T, V).
    """

    def __init__(
        self,
        vocab_size: int,
        context: int = 256,
        num_layers: int = 6,
        num_heads: int = 6,
        dim: int = 384,
        dropout: float = 0.0,
        bias: bool = True,
        rotary: bool = False,
        rms_norm: bool = False,
        squared_relu: bool = False,
        tied: bool = True,
        fused: bool = True,
    ) -> None:
        super().__init__()
        norm = nn.RMSNorm if rms_norm else partial(nn.LayerNorm, bias=bias)
        act = SquaredReLU if squared_relu else partial(nn.GELU, approximate="tanh")
        self.context = context
        self.stem = Stem(vocab_size, dim, 0 if rotary else context, dropout)
        self.blocks = nn.ModuleList(
            Block(
                dim, num_heads, causal=True, rotary=rotary, bias=bias, dropout=dropout, fused=fused, norm=norm, act=act
            )
            for _ in range(num_layers)
        )
        self.head = nn.Sequential(norm(dim), nn.Linear(dim, vocab_size, bias=False))
        initialize_gpt2(self)
        if tied:
            self.head[1].weight = self.stem.token.weight

    def forward(self, input_ids: Tensor, caches: list[Cache] | None = None) -> Tensor:
        """
        Args:
            input_ids: (B, T) int64.
            caches: one for each block, of the tokens before `input_ids`; they grow by these.

        Raises:
            ValueError: if there are more tokens than the context holds.
        """
        start = len(caches[0]) if caches else 0
        if start + input_ids.size(1) > self.context:
            raise ValueError(
                f"{start + input_ids.size(1)} tokens don't fit a context of {self.context}: expected no more; "
                "shorten the text"
            )
        x = self.stem(input_ids, start)
        own: list[Cache | None] = [*caches] if caches else [None] * len(self.blocks)
        for block, cache in zip(self.blocks, own, strict=True):
            x = block(x, cache=cache)
        return self.head(x)


def sample_token(
    logits: Tensor,
    temperature: float = 1.0,
    top_k: int = 0,
    top_p: float = 1.0,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Samples tokens from softmax(logits / temperature), optionally only from the most likely ones.

    Args:
        logits: (B, V).
        temperature: 0 takes the most likely token, 1 samples from the distribution of the model.
        top_k: sample from the k most likely tokens only; 0 for all.
        top_p: nucleus sampling: then from the smallest set with this total probability (Holtzman et al. 2020, "The
            Curious Case of Neural Text Degeneration", section 3.1); 1 for all.
        generator: of the random numbers, on the device of the logits.

    Returns:
        (B,) int64.

    Raises:
        ValueError: if an argument is out of its range.
    """
    if not (temperature >= 0 and top_k >= 0 and 0 < top_p <= 1):
        raise ValueError(
            f"temperature={temperature:g}, top_k={top_k}, top_p={top_p:g}: expected a temperature and a top_k of "
            "0 or more, and a top_p above 0, up to 1"
        )
    if temperature == 0:
        return logits.argmax(-1)
    scores, order = (logits.float() / temperature).sort(descending=True, stable=True)
    if top_k:
        scores[:, top_k:] = -torch.inf
    probability = scores.softmax(-1)
    if top_p < 1:
        before = probability.cumsum(-1) - probability  # the total probability of more likely tokens
        probability = probability.masked_fill(before >= top_p, 0.0)
    return order.gather(-1, probability.multinomial(1, generator=generator))[:, 0]


class GPT(LanguageModel):
    """Trains a `GPTNet`, whose arguments it takes; the others are `LanguageModel`'s.

    >>> model = GPT(vocab_size=65, context=8, num_layers=1, num_heads=2, dim=16)
    >>> [len(token) for token in model.generate(torch.zeros(3, 4, dtype=torch.int64), num_tokens=2)]
    [3, 3]
    """

    axes = LanguageModel.axes | {"acc": percent_axis("Accuracy", "accuracy of the next token")}
    net: GPTNet

    def __init__(
        self,
        vocab_size: int,
        context: int = 256,
        num_layers: int = 6,
        num_heads: int = 6,
        dim: int = 384,
        dropout: float = 0.0,
        bias: bool = True,
        rotary: bool = False,
        rms_norm: bool = False,
        squared_relu: bool = False,
        tied: bool = True,
        fused: bool = True,
        **task_options: Any,
    ) -> None:
        net = GPTNet(
            vocab_size=vocab_size, context=context, num_layers=num_layers, num_heads=num_heads, dim=dim,
            dropout=dropout, bias=bias, rotary=rotary, rms_norm=rms_norm, squared_relu=squared_relu, tied=tied,
            fused=fused,
        )  # fmt: skip
        super().__init__(net, vocab_size, context, **task_options)

    @torch.no_grad()
    def generate(
        self,
        input_ids: Tensor,
        num_tokens: int,
        temperature: float = 1.0,
        top_k: int = 0,
        top_p: float = 1.0,
        generator: torch.Generator | None = None,
        cached: bool = True,
    ) -> Iterator[Tensor]:
        """Continues texts token by token, in the mode (train or eval) of the module.

        Of a text longer than the context T the model sees a window that moves in steps of T/2: of n tokens the last
        n - s, where s is the least multiple of T/2 that leaves T or fewer. So a cache lasts for T/2 tokens at least
        until it is filled again, and holds nothing of tokens outside the window: the result is the same without it.

        Args:
            input_ids: (B, T) int64, the beginning of the texts, one token or more.
            num_tokens: number of tokens to add.
            temperature, top_k, top_p, generator: see `sample_token`.
            cached: keep keys and values, so that a step costs one token instead of T.

        Yields:
            (B,) int64, the next token of each text.
        """
        ids, caches, start, seen = input_ids, [Cache() for _ in self.net.blocks], 0, 0
        stride = max(1, self.context // 2)
        for _ in range(num_tokens):
            begin = max(0, -(-(ids.size(1) - self.context) // stride)) * stride
            if not cached or begin != start:
                caches, start, seen = [Cache() for _ in self.net.blocks], begin, begin
            logits = self.net(ids[:, seen:], caches)[:, -1]
            seen = ids.size(1)
            token = sample_token(logits, temperature=temperature, top_k=top_k, top_p=top_p, generator=generator)
            yield token
            ids = torch.cat((ids, token[:, None]), dim=1)
