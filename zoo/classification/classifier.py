"""The one training step of all classifiers. B batch, C channels, H height, W width, K classes."""

from collections.abc import Callable
from functools import partial

import torch
import torch.nn.functional as F
from lightning import LightningModule
from lightning.pytorch.cli import OptimizerCallable
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler
from torchmetrics import MeanMetric
from torchmetrics.classification import MulticlassAccuracy

from datamodules.batches import Labelled
from zoo.parts.schedules import OneCycle

ScheduleCallable = Callable[[Optimizer, int], LRScheduler]
SGD = partial(torch.optim.SGD, lr=0.1, momentum=0.9, nesterov=True, weight_decay=5e-4)


class Classifier(LightningModule):
    """Trains any net that maps images (B, C, H, W) to logits (B, K) with cross-entropy.

    A system subclasses it in five lines: it builds its net and hands the rest on. Precision, devices and the
    length of training belong to the Trainer.

    Args:
        net: plain module with children `stem`, `stages`, `head`.
        num_classes: K.
        optimizer: called with the net's named parameters.
        schedule: called with (optimizer, number of optimiser steps in the whole training); stepped after each.
        label_smoothing: share of the target spread over all classes, 0 to 1 (Szegedy et al. 2016, section 7).
        flip_tta: in evaluation, average the logits of the image and its mirror image.

    Raises:
        ValueError: if the data have another number of classes, or a checkpoint belongs to another class of module.
    """

    def __init__(
        self,
        net: nn.Module,
        num_classes: int,
        optimizer: OptimizerCallable = SGD,
        schedule: ScheduleCallable = OneCycle,
        label_smoothing: float = 0.0,
        flip_tta: bool = False,
    ) -> None:
        super().__init__()
        self.save_hyperparameters(ignore=["net", "optimizer", "schedule"])
        self.net = net.to(memory_format=torch.channels_last)  # up to 1.4 times faster on CPUs, more on tensor cores
        self.num_classes, self.optimizer, self.schedule = num_classes, optimizer, schedule
        self.label_smoothing, self.flip_tta = label_smoothing, flip_tta
        self.metrics = nn.ModuleDict()  # exact over many processes and unequal batches, unlike a mean of means
        for stage in ("train", "val", "test"):
            self.metrics[f"{stage}/loss"] = MeanMetric(nan_strategy="disable")
            self.metrics[f"{stage}/acc"] = MulticlassAccuracy(num_classes, average="micro", validate_args=False)

    @property
    def cam_target(self) -> nn.Module:
        """The module whose feature maps a class activation map is drawn from."""
        return self.net.stages[-1]

    cam_reshape = None  # tokens (B, T, D) -> maps (B, D, H, W), for systems that have tokens

    def forward(self, image: Tensor) -> Tensor:
        """(B, C, H, W) -> logits (B, K), mirrored too if `flip_tta` and in evaluation."""
        logits = self.net(image)
        if self.flip_tta and not self.training:
            logits = (logits + self.net(image.flip(-1))) / 2
        return logits

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
        self.metrics[f"{stage}/loss"].update(loss.detach().expand(len(label)))  # one entry a sample: weighs batches
        self.metrics[f"{stage}/acc"].update(logits.detach(), label)
        for name in (f"{stage}/loss", f"{stage}/acc"):
            self.log(name, self.metrics[name], on_step=False, on_epoch=True, prog_bar=True, add_dataloader_idx=False)
        return {"loss": loss, "logits": logits.detach()}

    def configure_optimizers(self) -> dict:
        optimizer = self.optimizer(self.net.named_parameters())
        schedule = self.schedule(optimizer, int(self.trainer.estimated_stepping_batches))
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def setup(self, stage: str) -> None:
        found = getattr(self.trainer.datamodule, "num_classes", self.num_classes)
        if found != self.num_classes:
            raise ValueError(
                f"num_classes is {self.num_classes}, but the data have {found} classes: "
                "expected the same number; leave it out of the recipe, and it is taken from the data"
            )

    def on_save_checkpoint(self, checkpoint: dict) -> None:
        """Adds what is needed to use the checkpoint on pictures: the class of this module, and how the data look."""
        # What Python code passed in as a class or function can't be read back safely; from a recipe it is plain data.
        plain = {name: value for name, value in checkpoint.get("hyper_parameters", {}).items() if not callable(value)}
        checkpoint["hyper_parameters"] = plain
        data = getattr(self.trainer, "datamodule", None)
        known = ("classes", "mean", "std", "image_shape")
        checkpoint["module"] = f"{type(self).__module__}.{type(self).__qualname__}"
        checkpoint["data"] = {name: list(getattr(data, name)) for name in known if hasattr(data, name)}

    def on_load_checkpoint(self, checkpoint: dict) -> None:
        here = f"{type(self).__module__}.{type(self).__qualname__}"
        there = checkpoint.get("module", here)
        saved = {name: tuple(tensor.shape) for name, tensor in checkpoint["state_dict"].items()}
        own = {name: tuple(tensor.shape) for name, tensor in self.state_dict().items()}
        if there != here or saved != own:
            first = next((name for name in own | saved if saved.get(name) != own.get(name)), None)
            detail = f"; {first} is {saved.get(first)} there and {own.get(first)} here" if first else ""
            raise ValueError(
                f"the checkpoint holds a {there}, expected a {here}{detail}; "
                "use the recipe and options that it was trained with"
            )
