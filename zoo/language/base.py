"""The base of all systems that read tokens. B batch, T tokens, V vocabulary."""

from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from lightning.pytorch.cli import OptimizerCallable
from torch import Tensor, nn

from callbacks.figures.axis import loss_axis
from datamodules.batches import Tokens
from zoo.parts.optim.adamw import AdamW
from zoo.parts.optim.schedules import OneCycle
from zoo.system import ScheduleCallable, System


class LanguageModel(System):
    """Trains any net that reads tokens with cross-entropy, summed over its prediction heads. See `heads`, `targets`.

    Args:
        net: plain module with children `stem`, `blocks`, `head`.
        vocab_size: V; the command takes it from the data.
        context: T at most.
        optimizer, schedule: see `System`.

    Raises:
        ValueError: if the data have another vocabulary or a longer context, or a checkpoint another vocabulary; see
            also `System`.
    """

    # Name of each head's loss -> name of its accuracy. A subclass with further heads adds theirs, and their `targets`.
    heads: ClassVar[dict[str, str]] = {"loss": "acc"}
    axes = System.axes | {"loss": loss_axis("cross-entropy in nats a token")}

    def __init__(
        self,
        net: nn.Module,
        vocab_size: int,
        context: int,
        optimizer: OptimizerCallable = AdamW,
        schedule: ScheduleCallable = OneCycle,
    ) -> None:
        super().__init__(optimizer, schedule)
        self.save_hyperparameters(ignore=["net", "optimizer", "schedule"])
        self.net, self.vocab_size, self.context = net, vocab_size, context
        for pair in self.heads.items():
            for name in pair:
                self.add_metric(name)

    def forward(self, input_ids: Tensor) -> Tensor:
        """(B, T) int64 -> logits (B, T, V)."""
        return self.net(input_ids)

    def targets(self, batch: Tokens) -> dict[str, tuple[Tensor, Tensor]]:
        """For each loss in `heads`, logits (..., K) and labels (...) int64, -100 at positions without a target.

        The loss of a step is the sum of all; the step returns the logits of the first.
        """
        return {"loss": (self(batch.input_ids), batch.labels)}

    def step(self, batch: Tokens, split: str) -> dict[str, Tensor]:
        targets = self.targets(batch)
        losses = [self.token_loss(split, name, logits, labels) for name, (logits, labels) in targets.items()]
        logits, _ = next(iter(targets.values()))
        return {"loss": torch.stack(losses).sum(), "logits": logits.detach()}

    def token_loss(self, split: str, name: str, logits: Tensor, labels: Tensor) -> Tensor:
        """Cross-entropy of the head whose loss is called `name`, a mean over its targets; logs it and the accuracy."""
        logits, labels = logits.flatten(0, -2).float(), labels.flatten()  # loss in float32 whatever the precision
        has_target = labels != -100
        losses = F.cross_entropy(logits, labels, reduction="none")  # 0 where there is no target
        right = logits.detach().argmax(-1) == labels
        for metric, values in ((name, losses.detach()), (self.heads[name], right.float())):
            self.log_metric(f"{split}/{metric}", values[has_target])  # one entry a token: exact over unequal batches
        return losses.sum() / has_target.sum()

    def predict_step(self, batch: Tokens, batch_idx: int) -> Tensor:
        return self(batch.input_ids)

    def setup(self, stage: str) -> None:
        super().setup(stage)
        data: Any = getattr(self.trainer, "datamodule", None)
        if getattr(data, "context", 0) > self.context:
            raise ValueError(
                f"the data come in windows of {data.context} tokens, but the model sees {self.context} at most: "
                "expected no longer windows; set --data.context or --model.context"
            )

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        saved = checkpoint.get("data", {}).get("tokenizer")
        data: Any = getattr(self._trainer, "datamodule", None)
        own = data.metadata().get("tokenizer") if hasattr(data, "metadata") else None
        if None not in (own, saved) and own != saved:
            raise ValueError(
                "the checkpoint was trained with another vocabulary than that of these data: expected the same "
                "tokens; use the text and tokenizer that it was trained with, or train from scratch"
            )
        super().on_load_checkpoint(checkpoint)
