"""The base of all systems: the steps, optimizer and schedule, metrics and their axes, and what a checkpoint records."""

import argparse
import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from functools import partial
from typing import Any, ClassVar, Self, cast

import torch
from lightning import LightningModule
from lightning.pytorch.cli import OptimizerCallable
from lightning.pytorch.utilities.types import OptimizerLRSchedulerConfig
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler, ReduceLROnPlateau
from torchmetrics import MeanMetric, Metric

from callbacks.figures.axis import Axis, loss_axis, percent_axis
from zoo import trust

ScheduleCallable = Callable[[Optimizer, int], LRScheduler]
SPLITS = ("train", "val", "test")


class System(LightningModule, ABC):
    """Base class of the systems on all shelves. A subclass sets `self.net`, which owns all layers, and defines `step`.

    Args:
        optimizer: called with the named parameters of the net that are trained.
        schedule: called with (optimizer, number of optimizer steps in the whole training); stepped after each.

    Attributes:
        metrics: "split/name" -> torchmetrics metric; see `add_metric` and `log_metric`.

    Raises:
        ValueError: if the training has no end, the data have other sizes than the module, or a checkpoint belongs to
            another class of module or a net of other sizes.
    """

    # Sizes that the command takes from the datamodule's attribute of the same name, where the module has such an
    # argument; what they count, for messages. They are checked against the data before anything runs.
    from_data: ClassVar[dict[str, str]] = {"num_classes": "classes", "in_channels": "channels", "vocab_size": "tokens"}
    axes: ClassVar[dict[str, Axis]] = {"loss": loss_axis("loss"), "acc": percent_axis("Accuracy")}
    _saved_random_states: dict[str, Any] | None = None
    _saved_metrics: dict[str, Any] | None = None
    net: nn.Module
    metrics: nn.ModuleDict
    is_initialized = False  # its weights come from a checkpoint or from a callback: others leave them alone

    def __init__(self, optimizer: OptimizerCallable, schedule: ScheduleCallable) -> None:
        super().__init__()
        self.optimizer, self.schedule = optimizer, schedule
        self.metrics = nn.ModuleDict()
        self._continued: set[str] = set()  # metrics that go on in a resumed epoch, and are not logged in it yet

    @classmethod
    def load_from_checkpoint(cls, checkpoint_path: Any, *args: Any, **options: Any) -> Self:
        """Lightning's own, but that a checkpoint can only name parts of the zoo, torch, torchvision and torchmetrics.

        Raises:
            ValueError: if it names anything else, which is then not imported; see `zoo.trust.trust`. Or if its
                arguments are none of this class.
        """
        try:
            with trust.only(trust.PARTS):
                return super().load_from_checkpoint(checkpoint_path, *args, **options)
        except argparse.ArgumentError as error:  # of jsonargparse, which builds the arguments
            name = trust.denied(error)
            if name is None:
                reason = " ".join(str(error).split())
                raise ValueError(f"{checkpoint_path} does not fit {cls.__name__}: {reason[:300]}") from None
            raise ValueError(
                f"{checkpoint_path} names {name}, which would be imported: expected parts of {', '.join(trust.PARTS)}; "
                f"if you trust it, add --trust {name.partition('.')[0]}, in Python call zoo.trust.trust first"
            ) from None

    @abstractmethod
    def step(self, batch: Any, split: str) -> dict[str, Any]:
        """What training, validation and test do with a batch.

        Args:
            batch: of the shelf's type.
            split: "train", "val" or "test".

        Returns:
            "loss", a scalar, and what the callbacks of the shelf read, such as "logits".
        """

    def training_step(self, batch: Any, batch_idx: int) -> dict[str, Any]:
        return self.step(batch, "train")

    def validation_step(self, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> dict[str, Any]:
        loaders = self.trainer.val_dataloaders
        return self.step(batch, list(loaders)[dataloader_idx] if isinstance(loaders, dict) else "val")

    def test_step(self, batch: Any, batch_idx: int) -> dict[str, Any]:
        return self.step(batch, "test")

    @property
    def cam_target(self) -> nn.Module | None:
        """The module whose output a class activation map is computed from: the net's own, else its last stage."""
        stages = getattr(self.net, "stages", None)
        return getattr(self.net, "cam_target", stages[-1] if isinstance(stages, nn.Sequential) and stages else None)

    @property
    def cam_reshape(self) -> Callable[[Tensor], Tensor] | None:
        """Turns that output into maps (B, D, H, W), where it has another shape, such as tokens."""
        return getattr(self.net, "cam_reshape", None)

    def configure_optimizers(self) -> OptimizerLRSchedulerConfig:
        optimizer = self.optimizer([(name, p) for name, p in self.net.named_parameters() if p.requires_grad])
        steps = self.trainer.estimated_stepping_batches
        if not math.isfinite(steps):
            raise ValueError(
                f"max_epochs is {self.trainer.max_epochs}, so the schedule cannot know the length of the training: "
                "expected max_epochs or max_steps; give --trainer.max_epochs N"
            )
        schedule = self.schedule(optimizer, int(steps))
        if isinstance(schedule, ReduceLROnPlateau):
            monitor = getattr(schedule, "monitor", "val/loss")
            return {
                "optimizer": optimizer,
                "lr_scheduler": {"scheduler": schedule, "interval": "epoch", "monitor": monitor},
            }
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def add_metric(self, name: str, make: Callable[[], Metric] | None = None, splits: tuple[str, ...] = SPLITS) -> None:
        """Registers a metric for each of the splits; by default the mean of the values that it is given.

        A metric object is exact over several processes and unequal batches, unlike a mean of means.
        """
        for split in splits:
            self.metrics[f"{split}/{name}"] = make() if make else MeanMetric(nan_strategy="disable")

    def log_metric(self, name: str, *values: Any, prog_bar: bool = True, batch_size: int | None = None) -> None:
        """Updates `self.metrics[name]` with `values` and has Lightning log it at the end of the epoch.

        Lightning keeps the metric itself and reads it then, so one `log` an epoch is enough; each costs a millisecond.
        A name without a metric is logged as the mean of its values over the epoch, weighted by `batch_size`.
        """
        log = partial(self.log, name, on_step=False, on_epoch=True, add_dataloader_idx=False, prog_bar=prog_bar)
        if name not in self.metrics:
            (value,) = values
            log(value, sync_dist=True, batch_size=batch_size)
            return
        metric = cast(Metric, self.metrics[name])
        metric.update(*values)
        if metric.update_count == 1 or name in self._continued:
            self._continued.discard(name)
            log(metric)

    def setup(self, stage: str) -> None:
        """Compares the sizes of module and data (`from_data`)."""
        data = getattr(self.trainer, "datamodule", None)
        for name, what in self.from_data.items():
            own, found = getattr(self, name, self.hparams.get(name)), getattr(data, name, None)
            if None not in (own, found) and own != found:
                raise ValueError(
                    f"{name} is {own}, but the data have {found} {what}: "
                    "expected the same number; leave it out of the recipe, and it is taken from the data"
                )

    def on_train_start(self) -> None:
        """Continues the random numbers of a resumed training, such as dropout's, and the metrics of its epoch.

        Several processes had different numbers, of which a checkpoint holds the first's: they draw anew. Of the metrics
        it holds the sum, which the first process takes.
        """
        metrics, self._saved_metrics = self._saved_metrics, None
        if metrics and self.trainer.fit_loop.restarted_mid_epoch and self.trainer.is_global_zero:
            for name, (count, values) in metrics.items():
                metric = cast(Metric, self.metrics[name])
                metric._update_count = count
                for key, value in values.items():
                    setattr(metric, key, value.to(self.device))
                self._continued.add(name)
        states, self._saved_random_states = self._saved_random_states, None
        if states is not None and self.trainer.world_size == 1:
            torch.set_rng_state(states["cpu"])
            if len(states["cuda"]) == torch.cuda.device_count():
                torch.cuda.set_rng_state_all(states["cuda"])

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Records what is needed to use the checkpoint elsewhere: the class of this module, the data's metadata."""
        # What Python code passed in as a class or function cannot be read back safely; from a recipe it is plain data.
        plain = {name: value for name, value in checkpoint.get("hyper_parameters", {}).items() if not callable(value)}
        checkpoint["hyper_parameters"] = plain
        checkpoint["module"] = _class_path(self)
        metadata = getattr(getattr(self.trainer, "datamodule", None), "metadata", dict)
        checkpoint["data"] = metadata()
        checkpoint["random_states"] = _random_states()
        checkpoint["train_metrics"] = self._train_metrics()

    def _train_metrics(self) -> dict[str, tuple[int, dict[str, Tensor]]]:
        """The state of the training metrics, over all processes, so that a resumed epoch ends with the right means."""
        states = {}
        for name, module in self.metrics.items():
            metric = cast(Metric, module)
            if not (name.startswith("train/") and metric.update_called):
                continue
            with metric.sync_context(should_sync=self.trainer.world_size > 1):
                values = {key: v.detach().cpu() for key, v in metric.metric_state.items() if isinstance(v, Tensor)}
                if len(values) == len(metric.metric_state):  # and no lists of all values so far
                    states[name] = metric.update_count, values
        return states

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        self.is_initialized = True
        self._saved_random_states = checkpoint.get("random_states")
        self._saved_metrics = checkpoint.get("train_metrics")
        here, there = _class_path(self), checkpoint.get("module", _class_path(self))
        saved = {name: tuple(tensor.shape) for name, tensor in checkpoint["state_dict"].items()}
        own = {name: tuple(tensor.shape) for name, tensor in self.state_dict().items()}
        if there != here or saved != own:
            first = next((name for name in own | saved if saved.get(name) != own.get(name)), None)
            given, plain = checkpoint.get("hyper_parameters", {}), (int, float, str, list, tuple)
            parts = [
                f"{name} is {given[name]} there and {value} here"
                for name, value in (self.hparams.items() if there == here else ())
                if isinstance(value, plain) and name in given and given[name] != value
            ]
            parts += [f"{first} is {saved.get(first)} there and {own.get(first)} here"] if first else []
            detail = f"; {', '.join(parts)}" if parts else ""
            raise ValueError(
                f"the checkpoint holds a {there}, expected a {here}{detail}; "
                "use the recipe and options that it was trained with"
            )
        data = getattr(self._trainer, "datamodule", None) if self._trainer is not None else None
        trained, present = checkpoint.get("data", {}).get("classes"), getattr(data, "classes", None)
        if trained and present and list(trained) != list(present):
            first = next(i for i in range(len(trained)) if list(trained[: i + 1]) != list(present[: i + 1]))
            raise ValueError(
                f"the checkpoint's classes are {list(trained[:5])}, those of the data {list(present[:5])}; they differ "
                f"from class {first} on: expected the same in the same order; take another checkpoint or other data"
            )


def _random_states() -> dict[str, Any]:
    """The states of torch's global random generators, from which dropout draws."""
    return {"cpu": torch.get_rng_state(), "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else []}


def _class_path(module: System) -> str:
    return f"{type(module).__module__}.{type(module).__qualname__}"
