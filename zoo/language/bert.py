"""BERT: tokens that see both sides. B batch, T tokens, V vocabulary, D width, M places that are asked.

Devlin et al. 2019, "BERT: Pre-training of Deep Bidirectional Transformers for Language Understanding".
"""

from functools import partial

import torch
from torch import Tensor, nn
from torchmetrics import Metric

from callbacks.figures.axis import loss_axis, percent_axis
from datamodules.batches import Tokens
from zoo.language.base import LanguageModel
from zoo.parts.attention import Block, initialize_gpt2


class Stem(nn.Module):
    """What a token is, which segment it belongs to and, unless `context` is 0, where it stands (figure 2), summed."""

    def __init__(self, vocab_size: int, dim: int, context: int, dropout: float) -> None:
        super().__init__()
        self.token, self.segment = nn.Embedding(vocab_size, dim), nn.Embedding(2, dim)
        self.place = nn.Embedding(context, dim) if context else None
        self.norm, self.drop = nn.LayerNorm(dim), nn.Dropout(dropout)

    def forward(self, input_ids: Tensor, token_type_ids: Tensor) -> Tensor:
        """(B, T) and (B, T) int64 -> (B, T, D)."""
        x = self.token(input_ids) + self.segment(token_type_ids)
        if self.place is not None:
            x = x + self.place.weight[: input_ids.size(1)]
        return self.drop(self.norm(x))


class Head(nn.Module):
    """What both tasks ask of the encoder (section 3.1): the masked tokens, and whether the segments belong together."""

    def __init__(self, vocab_size: int, dim: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(dim)  # which the last block leaves to do, as its own stand before its branches
        self.token = nn.Sequential(nn.Linear(dim, dim), nn.GELU(), nn.LayerNorm(dim), nn.Linear(dim, vocab_size))
        self.pair = nn.Sequential(nn.Linear(dim, dim), nn.Tanh(), nn.Linear(dim, 2))

    def forward(self, x: Tensor, asked: Tensor | None) -> tuple[Tensor, Tensor]:
        """(B, T, D) -> (B, T, V), or (M, V) of the M places that are asked, and (B, 2), read off [CLS]."""
        x = self.norm(x)
        return self.token(x if asked is None else x[asked]), self.pair(x[:, 0])


class BERTNet(nn.Module):
    """Embeddings, transformer blocks that see both sides, and a head for either task.

    The matrix that embeds the tokens also scores them. Differs from the paper in norms before the branches instead of
    behind them, which need no long warm-up, in first values scaled by depth, and, if asked, in `rotary`.

    Args:
        vocab_size: V.
        context: T at most.
        num_layers: blocks.
        num_heads: of each attention.
        dim: D.
        dropout: of embeddings, attention weights and branches.
        rotary: places by rotation of queries and keys (Su et al. 2021) instead of learned embeddings.
        fused: attention by torch's fused function, or written out.
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
            attention_mask: (B, T) bool, false at padding, which nobody sees; None where there is none.
            token_type_ids: (B, T) int64, 0 or 1; None for 0.

        Returns:
            (B, T, D), before the norm.

        Raises:
            ValueError: if there are more tokens than the context holds.
        """
        if input_ids.size(1) > self.context:
            raise ValueError(
                f"{input_ids.size(1)} tokens don't fit a context of {self.context}: expected no more; cut them"
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
        asked: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """
        Args:
            input_ids, attention_mask, token_type_ids: see `encode`.
            asked: (B, T) bool, the M places whose tokens are asked; None for all.

        Returns:
            Logits of the tokens, (M, V) or (B, T, V), and of the pairs, (B, 2), the second that they belong together.
        """
        return self.head(self.encode(input_ids, attention_mask, token_type_ids), asked)


class TopShare(Metric):
    """The share of the commonest among tokens (N,) int64 in 0..V-1."""

    def __init__(self, vocab_size: int) -> None:
        super().__init__()
        self.add_state("counts", torch.zeros(vocab_size, dtype=torch.int64), dist_reduce_fx="sum")

    def update(self, tokens: Tensor) -> None:
        self.counts += torch.bincount(tokens, minlength=len(self.counts))

    def compute(self) -> Tensor:
        return self.counts.max() / self.counts.sum().clamp_min(1)


class BERT(LanguageModel):
    """Trains a `BERTNet`, whose arguments it takes; the others are `LanguageModel`'s.

    The training loss is the sum of both tasks' (appendix A.2). Logged are those of the masked tokens (`loss`,
    `mask_acc`), those of the pairs (`next_loss`, `next_acc`) and, to see a collapse, the share of the token most often
    predicted (`top_share`) beside that of the token most often right (`commonest`): a net that always says the same
    has a `top_share` of 1 and a `mask_acc` of at most `commonest`.

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
        **task_options,
    ) -> None:
        net = BERTNet(
            vocab_size,
            context,
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
        asked = batch.labels != -100
        tokens, pairs = self.net(batch.input_ids, batch.attention_mask, batch.token_type_ids, asked)
        return {"loss": (tokens, batch.labels[asked]), "next_loss": (pairs, batch.next_label)}

    def predict_step(self, batch: Tokens, batch_idx: int) -> Tensor:
        return self(batch.input_ids, batch.attention_mask, batch.token_type_ids)

    def step(self, batch: Tokens, split: str) -> dict[str, Tensor]:
        outputs = super().step(batch, split)
        said, right = outputs["logits"].argmax(-1), batch.labels[batch.labels != -100]
        for name, tokens in (("top_share", said), ("commonest", right)):
            self.log_metric(f"{split}/{name}", tokens, prog_bar=False)
        return outputs
