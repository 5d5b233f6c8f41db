"""BERT: predicts masked tokens from both sides. It is for understanding text: filling gaps, and features for other
tasks.

B batch, T tokens, V vocabulary, D width, M positions with a target.

Devlin et al. 2019, "BERT: Pre-training of Deep Bidirectional Transformers for Language Understanding".
"""

from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torchmetrics import Metric

from callbacks.figures.axis import loss_axis, percent_axis
from datamodules.batches import Tokens
from zoo.language.base import LanguageModel
from zoo.parts.attention import Block, initialize_gpt2


class Stem(nn.Module):
    """The sum of token embedding, segment embedding and, unless `context` is 0, position embedding (figure 2)."""

    def __init__(self, vocab_size: int, dim: int, context: int, dropout: float) -> None:
        super().__init__()
        self.token, self.segment = nn.Embedding(vocab_size, dim), nn.Embedding(2, dim)
        self.position = nn.Embedding(context, dim) if context else None
        self.norm, self.drop = nn.LayerNorm(dim), nn.Dropout(dropout)

    def forward(self, input_ids: Tensor, token_type_ids: Tensor) -> Tensor:
        """(B, T) and (B, T) int64 -> (B, T, D)."""
        x = self.token(input_ids) + self.segment(token_type_ids)
        if self.position is not None:
            x = x + self.position.weight[: input_ids.size(1)]
        return self.drop(self.norm(x))


class Head(nn.Module):
    """The heads of the two tasks (section 3.1): masked tokens, and whether the second segment follows the first."""

    def __init__(self, vocab_size: int, dim: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(dim)  # the blocks are pre-normalized, so that their output is not normalized yet
        self.token = nn.Sequential(nn.Linear(dim, dim), nn.GELU(), nn.LayerNorm(dim), nn.Linear(dim, vocab_size))
        self.pair = nn.Sequential(nn.Linear(dim, dim), nn.Tanh(), nn.Linear(dim, 2))

    def forward(self, x: Tensor, has_target: Tensor | None) -> tuple[Tensor, Tensor]:
        """(B, T, D) -> (B, T, V), or (M, V) for the M positions with a target, and (B, 2), from the token [CLS]."""
        x = self.norm(x)
        return self.token(x if has_target is None else x[has_target]), self.pair(x[:, 0])


class BERTNet(nn.Module):
    """Embeddings, transformer blocks that attend to both sides, and a head for each of the two tasks.

    The embedding matrix of the tokens is also the output matrix. Differs from the paper in pre-norm (no long warm-up),
    depth-scaled initialization and, optionally, rotary positions.

    Args:
        vocab_size: V.
        context: T at most.
        num_layers: blocks.
        num_heads: of each attention.
        dim: D.
        dropout: of embeddings, attention weights and branches.
        rotary: positions by rotation of queries and keys (Su et al. 2021) instead of learned embeddings.
        fused: see `zoo.parts.attention.attention`.
    """

    def __init__(
        self,
        vocab_size: int,
        context: int = 131,
        num_layers: int = 4,
        num_heads: int = 4,
        dim: int = 128,
        dropout: float = 0.0,
        rotary: bool = False,
        fused: bool = True,
    ) -> None:
        super().__init__()
        self.context = context
        self.stem = Stem(vocab_size, dim, 0 if rotary else context, dropout)
        self.blocks = nn.ModuleList(
            Block(dim, num_heads, rotary=rotary, dropout=dropout, fused=fused) for _ in range(num_layers)
        )
        self.head = Head(vocab_size, dim)
        initialize_gpt2(self)
        self.head.token[-1].weight = self.stem.token.weight

    def encode(
        self, input_ids: Tensor, attention_mask: Tensor | None = None, token_type_ids: Tensor | None = None
    ) -> Tensor:
        """
        Args:
            input_ids: (B, T) int64.
            attention_mask: (B, T) bool, false at padding, to which no token attends; None if there is no padding.
            token_type_ids: (B, T) int64, 0 or 1; None for 0.

        Returns:
            (B, T, D), before the norm.

        Raises:
            ValueError: if there are more tokens than the context holds.
        """
        if input_ids.size(1) > self.context:
            raise ValueError(
                f"{input_ids.size(1)} tokens don't fit a context of {self.context}: expected no more; shorten the text"
            )
        x = self.stem(input_ids, torch.zeros_like(input_ids) if token_type_ids is None else token_type_ids)
        for block in self.blocks:
            x = block(x, mask=attention_mask)
        return x

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        has_target: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """
        Args:
            input_ids, attention_mask, token_type_ids: see `encode`.
            has_target: (B, T) bool, true at the M positions whose tokens are to be predicted; None for all.

        Returns:
            Logits of the tokens, (M, V) or (B, T, V), and logits (B, 2) that the second segment does not follow the
            first, and that it does.
        """
        return self.head(self.encode(input_ids, attention_mask, token_type_ids), has_target)


class TopShare(Metric):
    """The share of the most frequent of tokens (N,) int64 in 0..V-1."""

    counts: Tensor

    def __init__(self, vocab_size: int) -> None:
        super().__init__()
        self.add_state("counts", torch.zeros(vocab_size, dtype=torch.int64), dist_reduce_fx="sum")

    def update(self, tokens: Tensor) -> None:
        self.counts += torch.bincount(tokens, minlength=len(self.counts))

    def compute(self) -> Tensor:
        return self.counts.max() / self.counts.sum().clamp_min(1)


class BERT(LanguageModel):
    """Trains a `BERTNet`, whose arguments it takes; the others are `LanguageModel`'s.

    The training loss is the sum of both tasks' losses (appendix A.2). Logged are loss and accuracy of the masked tokens
    (`loss`, `mask_acc`) and of the pairs (`next_loss`, `next_acc`) and, to show a collapse, the share of the most
    frequent prediction (`top_share`) and that of the most frequent target (`commonest`): a net that always predicts the
    same token has a `top_share` of 1 and a `mask_acc` of at most `commonest`.

    >>> model = BERT(vocab_size=65, context=8, num_layers=1, num_heads=2, dim=16)
    >>> model(torch.zeros(3, 8, dtype=torch.int64)).shape
    torch.Size([3, 8, 65])
    """

    heads = {"loss": "mask_acc", "next_loss": "next_acc"}
    axes = LanguageModel.axes | {
        "loss": loss_axis("cross-entropy in nats a masked token"),
        "mask_acc": percent_axis("Masked tokens"),
        "next_loss": loss_axis("cross-entropy in nats a pair", title="Is-next loss"),
        "next_acc": percent_axis("Is next"),
        "top_share": percent_axis("Most frequent prediction", "share", better=""),
        "commonest": percent_axis("Most frequent target", "share", better=""),
    }

    def __init__(
        self,
        vocab_size: int,
        context: int = 131,
        num_layers: int = 4,
        num_heads: int = 4,
        dim: int = 128,
        dropout: float = 0.0,
        rotary: bool = False,
        fused: bool = True,
        **task_options: Any,
    ) -> None:
        net = BERTNet(
            vocab_size=vocab_size,
            context=context,
            num_layers=num_layers,
            num_heads=num_heads,
            dim=dim,
            dropout=dropout,
            rotary=rotary,
            fused=fused,
        )
        super().__init__(net, vocab_size, context, **task_options)
        for name in ("top_share", "commonest"):
            self.add_metric(name, partial(TopShare, vocab_size))

    def forward(
        self, input_ids: Tensor, attention_mask: Tensor | None = None, token_type_ids: Tensor | None = None
    ) -> Tensor:
        """(B, T) int64 -> logits (B, T, V)."""
        return self.net(input_ids, attention_mask, token_type_ids)[0]

    def targets(self, batch: Tokens) -> dict[str, tuple[Tensor, Tensor]]:
        if batch.next_label is None:
            raise ValueError(
                "the batches have no next_label: expected pairs of segments; "
                "use datamodules.text.sentence_pairs.SentencePairs"
            )
        has_target = batch.labels != -100
        tokens, pairs = self.net(
            batch.input_ids,
            attention_mask=batch.attention_mask,
            token_type_ids=batch.token_type_ids,
            has_target=has_target,
        )
        return {"loss": (tokens, batch.labels[has_target]), "next_loss": (pairs, batch.next_label)}

    def predict_step(self, batch: Tokens, batch_idx: int) -> Tensor:
        return self(batch.input_ids, batch.attention_mask, batch.token_type_ids)

    def step(self, batch: Tokens, split: str) -> dict[str, Tensor]:
        outputs = super().step(batch, split)
        predicted, true = outputs["logits"].argmax(-1), batch.labels[batch.labels != -100]
        for name, tokens in (("top_share", predicted), ("commonest", true)):
            self.log_metric(f"{split}/{name}", tokens, prog_bar=False)
        return outputs
