"""A net with two inputs and two outputs: the digit in an image, and its sum with another digit. It shows how data of
two kinds meet in one net, and how two losses train it.

B batch, C channels, H height, W width, F features, K digits.

The task of the Extensive Vision AI course, session 2.5. How the two inputs meet: convolutions turn the image into F
features, which are all that the first output needs; the other digit, as K numbers of which one is 1, is appended to
them, and two linear layers make the sum of the F + K numbers. Fusion is that late because nothing in the image depends
on the other digit.

Both outputs are classes, of which 2 K - 1 are sums, and both losses are cross-entropies: a sum that is off by one is as
wrong as any other, so that the distance, which a squared error would count, says nothing. The losses are added, the
second times `sum_weight`. The sum is learned from examples: nothing tells the net what addition is.
"""

from itertools import pairwise
from typing import Any

import torch
import torch.nn.functional as F
from lightning.pytorch.cli import OptimizerCallable
from torch import Tensor, nn

from callbacks.figures.axis import loss_axis, percent_axis
from zoo.parts.convs import conv_norm_act
from zoo.parts.optim.adamw import AdamW
from zoo.parts.optim.schedules import OneCycle
from zoo.system import ScheduleCallable, System


class TwoInputsNet(nn.Module):
    """Convolutions, global average pooling, a linear layer for the digit, two layers for the sum.

    Args:
        num_classes: K.
        in_channels: C.
        widths: channels of the convolutions, each with max-pooling: the first 5x5, the others 3x3. The last is F.
        hidden: width between the two layers of the sum.

    Shape: (B, C, H, W) and (B,) int64 -> (B, K) and (B, 2 K - 1).

    >>> digit, total = TwoInputsNet()(torch.zeros(2, 1, 28, 28), torch.tensor([3, 9]))
    >>> digit.shape, total.shape
    (torch.Size([2, 10]), torch.Size([2, 19]))
    """

    extras = ("pool", "sum_head")

    def __init__(
        self, num_classes: int = 10, in_channels: int = 1, widths: tuple[int, ...] = (16, 32, 64), hidden: int = 128
    ) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.stem = conv_norm_act(in_channels, widths[0], 5, pool=True)
        self.stages = nn.Sequential(*(conv_norm_act(i, o, pool=True) for i, o in pairwise(widths)))
        self.pool = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())
        self.head = nn.Linear(widths[-1], num_classes)
        self.sum_head = nn.Sequential(
            nn.Linear(widths[-1] + num_classes, hidden), nn.ReLU(), nn.Linear(hidden, 2 * num_classes - 1)
        )

    def forward(self, image: Tensor, addend: Tensor) -> tuple[Tensor, Tensor]:
        features = self.pool(self.stages(self.stem(image)))
        other = F.one_hot(addend, self.num_classes).to(features.dtype)
        return self.head(features), self.sum_head(torch.cat([features, other], 1))


class TwoInputs(System):
    """Trains a `TwoInputsNet` on batches with image, label, addend and total, such as `DigitPairs` gives.

    Steps return "logits" of the digit (B, K) and "sum_logits" (B, 2 K - 1). Logged are accuracies of the digit (`acc`),
    of the sum (`sum_acc`) and of both together (`both_acc`).

    Args:
        num_classes, in_channels, widths, hidden: see `TwoInputsNet`.
        sum_weight: of the sum's loss.
        optimizer, schedule: see `System`.

    Raises:
        ValueError: in a step, for images that were mixed, whose sum is undefined.
    """

    axes = {
        "loss": loss_axis("cross-entropy of digit and sum in nats"),
        "acc": percent_axis("Digit"),
        "sum_acc": percent_axis("Sum"),
        "both_acc": percent_axis("Both"),
    }

    def __init__(
        self,
        num_classes: int = 10,
        in_channels: int = 1,
        widths: tuple[int, ...] = (16, 32, 64),
        hidden: int = 128,
        sum_weight: float = 1.0,
        optimizer: OptimizerCallable = AdamW,
        schedule: ScheduleCallable = OneCycle,
    ) -> None:
        super().__init__(optimizer, schedule)
        self.save_hyperparameters(ignore=["optimizer", "schedule"])
        self.net = TwoInputsNet(num_classes, in_channels, widths=widths, hidden=hidden)
        self.num_classes, self.sum_weight = num_classes, sum_weight
        for name in self.axes:
            self.add_metric(name)

    def forward(self, image: Tensor, addend: Tensor) -> tuple[Tensor, Tensor]:
        """(B, C, H, W) and (B,) int64 -> logits (B, K) of the digit and (B, 2 K - 1) of the sum."""
        return self.net(image, addend)

    def step(self, batch: Any, split: str) -> dict[str, Tensor]:
        if batch.label.ndim > 1:
            raise ValueError(
                f"labels are shares of classes {tuple(batch.label.shape)}: expected one digit for each image, as a "
                "mixed image has no sum; leave out the augmentation that mixes"
            )
        digit, total = (logits.float() for logits in self(batch.image, batch.addend))
        loss = F.cross_entropy(digit, batch.label) + self.sum_weight * F.cross_entropy(total, batch.total)
        right, sum_right = (digit.argmax(1) == batch.label).float(), (total.argmax(1) == batch.total).float()
        self.log_metric(f"{split}/loss", loss.detach().expand(len(right)))  # one entry a sample: weighs batches
        self.log_metric(f"{split}/acc", right)
        self.log_metric(f"{split}/sum_acc", sum_right)
        self.log_metric(f"{split}/both_acc", right * sum_right, prog_bar=False)
        return {"loss": loss, "logits": digit.detach(), "sum_logits": total.detach()}

    def predict_step(self, batch: Any, batch_idx: int) -> Tensor:
        """(B, 2) int64: digit and sum."""
        return torch.stack([logits.argmax(1) for logits in self(batch.image, batch.addend)], 1)
