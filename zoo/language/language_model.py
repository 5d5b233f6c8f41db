"""The one training step of all systems that read tokens. B batch, T tokens, V vocabulary."""

from typing import Any, ClassVar

import torch.nn.functional as F
from lightning.pytorch.cli import OptimizerCallable
from torch import Tensor, nn
from torchmetrics import MeanMetric

from datamodules.batches import Tokens
from zoo.parts.optimisers import AdamW
from zoo.parts.schedules import OneCycle
from zoo.system import ScheduleCallable, System


class LanguageModel(System):
    """Trains any net of tokens with cross-entropy, over whatever `answers` says is asked.

    Args:
        net: plain module with children `stem`, `blocks`, `head`.
        vocab_size: V; the command takes it from the data.
        context: T at most.
        optimizer, schedule: see `System`.

    Raises:
        ValueError: if the data have another vocabulary or a longer context, or a checkpoint another vocabulary.
    """

    # What is asked: the name of its loss -> that of its accuracy. A subclass that asks more says so, and answers.
    asked: ClassVar[dict[str, str]] = {"loss": "acc"}
    loss_label = "cross-entropy in nats a token"

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
        names = [
            f"{stage}/{name}" for stage in ("train", "val", "test") for pair in self.asked.items() for name in pair
        ]
        self.metrics = nn.ModuleDict({name: MeanMetric(nan_strategy="disable") for name in names})

    def forward(self, input_ids: Tensor) -> Tensor:
        """(B, T) int64 -> logits (B, T, V)."""
        return self.net(input_ids)

    def answers(self, batch: Tokens) -> dict[str, tuple[Tensor, Tensor]]:
        """For each loss in `asked`, logits (..., K) and labels (...) int64, -100 where nothing is asked.

        The training loss is the sum of all; the step returns the logits of the first.
        """
        return {"loss": (self(batch.input_ids), batch.labels)}

    def training_step(self, batch: Tokens, batch_idx: int) -> dict[str, Tensor]:
        return self._step(batch, "train")

    def validation_step(self, batch: Tokens, batch_idx: int, dataloader_idx: int = 0) -> dict[str, Tensor]:
        loaders = self.trainer.val_dataloaders
        return self._step(batch, list(loaders)[dataloader_idx] if isinstance(loaders, dict) else "val")

    def test_step(self, batch: Tokens, batch_idx: int) -> dict[str, Tensor]:
        return self._step(batch, "test")

    def predict_step(self, batch: Tokens, batch_idx: int) -> Tensor:
        return self(batch.input_ids)

    def _step(self, batch: Tokens, stage: str) -> dict[str, Tensor]:
        answers = self.answers(batch)
        loss = sum(self._score(stage, name, *answer) for name, answer in answers.items())
        return {"loss": loss, "logits": next(iter(answers.values()))[0].detach()}

    def _score(self, stage: str, name: str, logits: Tensor, labels: Tensor) -> Tensor:
        logits, labels = logits.flatten(0, -2).float(), labels.flatten()  # loss in float32 whatever the precision
        asked = labels != -100
        losses = F.cross_entropy(logits, labels, reduction="none")  # 0 where nothing is asked
        right = logits.detach().argmax(-1) == labels
        for metric, values in ((name, losses.detach()), (self.asked[name], right.float())):
            self.log_metric(f"{stage}/{metric}", values[asked])  # one entry a token: exact over unequal batches
        return losses.sum() / asked.sum()

    def setup(self, stage: str) -> None:
        data = self.trainer.datamodule
        found = getattr(data, "vocab_size", self.vocab_size)
        if found != self.vocab_size:
            raise ValueError(
                f"vocab_size is {self.vocab_size}, but the data have {found} tokens: "
                "expected the same number; leave it out of the recipe, and it is taken from the data"
            )
        if getattr(data, "context", 0) > self.context:
            raise ValueError(
                f"the data come in windows of {data.context} tokens, but the model sees {self.context} at most: "
                "expected no longer ones; set --data.context or --model.context"
            )

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        theirs = checkpoint.get("data", {}).get("tokenizer")
        data = getattr(self._trainer, "datamodule", None)
        ours = data.card().get("tokenizer") if hasattr(data, "card") else None
        if None not in (ours, theirs) and ours != theirs:
            raise ValueError(
                "the checkpoint was trained with another vocabulary than that of these data: expected the same "
                "tokens; use the text and tokenizer that it was trained with, or train anew"
            )
        super().on_load_checkpoint(checkpoint)
