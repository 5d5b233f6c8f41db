"""AdamW with the parameter groups that are usual for transformers."""

from collections.abc import Iterable

import torch
from torch import Tensor


class AdamW(torch.optim.AdamW):
    """torch's AdamW with weight decay on matrices, filters and embeddings only, not on norms and biases.

    As Radford et al. 2018 trained GPT, section 4.1: "L2 regularization ... on all non bias or gain weights".

    Args:
        params: parameters, or pairs (name, parameter).
        lr, betas, eps, weight_decay: as in `torch.optim.AdamW`; the defaults are those of small transformers.
    """

    def __init__(
        self,
        params: Iterable[Tensor | tuple[str, Tensor]],
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.99),
        eps: float = 1e-8,
        weight_decay: float = 0.1,
    ) -> None:
        params = list(params)
        is_vector = [(p[1] if isinstance(p, tuple) else p).ndim < 2 for p in params]
        decayed = [p for p, vector in zip(params, is_vector, strict=True) if not vector]
        others = [p for p, vector in zip(params, is_vector, strict=True) if vector]
        groups = [{"params": decayed, "weight_decay": weight_decay}, {"params": others, "weight_decay": 0.0}]
        super().__init__([group for group in groups if group["params"]], lr=lr, betas=betas, eps=eps)
