"""The one training step of all classifiers. B batch, C channels, H height, W width, K classes."""

from functools import partial

import torch
import torch.nn.functional as F
from lightning.pytorch.cli import OptimizerCallable
from torch import Tensor, nn
from torchmetrics import MeanMetric
from torchmetrics.classification import MulticlassAccuracy

from datamodules.batches import Labelled
from zoo.parts.schedules import OneCycle
from zoo.system import ScheduleCallable, System

SGD = partial(torch.optim.SGD, lr=0.1, momentum=0.9, nesterov=True, weight_decay=5e-4)


class Classifier(System):
    """Trains any net that maps images (B, C, H, W) to logits (B, K) with cross-entropy.

    A system subclasses it in five lines: it builds its net and hands the rest on. Precision, devices and the
    length of training belong to the Trainer.

    Args:
        net: plain module with children `stem`, `stages`, `head`.
        num_classes: K.
        optimizer, schedule: see `System`.
        label_smoothing: share of the target spread over all classes, 0 to 1 (Szegedy et al. 2016, section 7).
        flip_tta: in evaluation, average the logits of the image and its mirror image.
        shift_tta: in evaluation, average also over the image moved by so many pixels up, down, left and right; what
            comes from outside repeats the border. After Jordan 2024, "94% on CIFAR-10 in 3.29 Seconds", section 3.5.

    Raises:
        ValueError: if the data have another number of classes.
    """

    def __init__(
        self,
        net: nn.Module,
        num_classes: int,
        optimizer: OptimizerCallable = SGD,
        schedule: ScheduleCallable = OneCycle,
        label_smoothing: float = 0.0,
        flip_tta: bool = False,
        shift_tta: int = 0,
    ) -> None:
        super().__init__(optimizer, schedule)
        self.save_hyperparameters(ignore=["net", "optimizer", "schedule"])
        self.net = net.to(memory_format=torch.channels_last)  # up to 1.4 times faster on CPUs, more on tensor cores
        self.num_classes, self.label_smoothing = num_classes, label_smoothing
        self.flip_tta, self.shift_tta = flip_tta, shift_tta
        self.metrics = nn.ModuleDict()  # exact over many processes and unequal batches, unlike a mean of means
        for stage in ("train", "val", "test"):
            self.metrics[f"{stage}/loss"] = MeanMetric(nan_strategy="disable")
            self.metrics[f"{stage}/acc"] = MulticlassAccuracy(num_classes, average="micro", validate_args=False)

    loss_label = "cross-entropy in nats"

    @property
    def cam_target(self) -> nn.Module:
        """The module whose feature maps a class activation map is drawn from."""
        return self.net.stages[-1]

    def forward(self, image: Tensor) -> Tensor:
        """(B, C, H, W) -> logits (B, K), in evaluation averaged over the views that were asked for."""
        if self.training:
            return self.net(image)
        views = [image, *shifted(image, self.shift_tta)]
        views += [view.flip(-1) for view in views if self.flip_tta]
        return sum(self.net(view) for view in views) / len(views)

    def training_step(self, batch: Labelled, batch_idx: int) -> dict[str, Tensor]:
        return self._step(batch, "train", self.label_smoothing)

    def validation_step(self, batch: Labelled, batch_idx: int, dataloader_idx: int = 0) -> dict[str, Tensor]:
        loaders = self.trainer.val_dataloaders
        return self._step(batch, list(loaders)[dataloader_idx] if isinstance(loaders, dict) else "val")

    def test_step(self, batch: Labelled, batch_idx: int) -> dict[str, Tensor]:
        return self._step(batch, "test")

    def predict_step(self, batch: Labelled, batch_idx: int) -> Tensor:
        return self(batch[0])

    def _step(self, batch: Labelled, stage: str, smoothing: float = 0.0) -> dict[str, Tensor]:
        image, label = batch
        logits = self(image).float()  # softmax and loss in float32 whatever the precision
        loss = F.cross_entropy(logits, label, label_smoothing=smoothing)
        self.log_metric(f"{stage}/loss", loss.detach().expand(len(label)))  # one entry a sample: weighs batches
        self.log_metric(f"{stage}/acc", logits.detach(), label)
        return {"loss": loss, "logits": logits.detach()}

    def setup(self, stage: str) -> None:
        found = getattr(self.trainer.datamodule, "num_classes", self.num_classes)
        if found != self.num_classes:
            raise ValueError(
                f"num_classes is {self.num_classes}, but the data have {found} classes: "
                "expected the same number; leave it out of the recipe, and it is taken from the data"
            )


def shifted(image: Tensor, pixels: int) -> list[Tensor]:
    """(B, C, H, W) moved by `pixels` down, up, right and left, the border repeated; nothing for 0 pixels."""
    if not pixels:
        return []
    height, width = image.shape[-2:]
    wide = F.pad(image, (pixels,) * 4, mode="replicate")
    corners = ((0, pixels), (2 * pixels, pixels), (pixels, 0), (pixels, 2 * pixels))
    return [wide[..., top : top + height, left : left + width] for top, left in corners]
