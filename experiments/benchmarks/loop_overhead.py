"""An epoch of `zoo fit` compared with the same epoch in a bare PyTorch loop.

    python -m experiments.benchmarks.loop_overhead

The bare loop has the same net, optimizer, schedule, data order and augmentation, and nothing else: no metrics, no
progress, no hooks. Both are timed in turn in one process; the last line is the ratio of the medians.
"""

import statistics
import time
from typing import Any

import torch
import torch.nn.functional as F
from lightning import Callback, Trainer

from datamodules.image import ImageData
from zoo.classification.base import Classifier
from zoo.command.lightning_cli import ZooCLI

RECIPE, EPOCHS = "fashion_mnist/flagship", 5


class EpochTimes(Callback):
    """Seconds of each training epoch, validation left out."""

    def __init__(self) -> None:
        self.seconds: list[float] = []

    def on_train_epoch_start(self, *_: Any) -> None:
        self.began = time.perf_counter()

    def on_validation_start(self, trainer: Trainer, *_: Any) -> None:
        if not trainer.sanity_checking:
            self.seconds.append(time.perf_counter() - self.began)


def bare_epochs(model: Classifier, data: ImageData, epochs: int) -> list[float]:
    """The seconds of each epoch of the bare loop."""
    net, loader = model.net.train(), data._loader("train")
    optimizer = model.optimizer(net.named_parameters())
    schedule = model.schedule(optimizer, epochs * len(loader))
    seconds = []
    for epoch in range(epochs):
        loader.set_epoch(epoch)
        began = time.perf_counter()
        for batch in loader:
            batch = batch._replace(image=batch.image.float() / 255)
            generator = loader.generator()
            for augmentation in data.augment:
                batch = augmentation(batch, generator)
            loss = F.cross_entropy(net(data.normalize(batch.image)), batch.label, label_smoothing=model.label_smoothing)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
        seconds.append(time.perf_counter() - began)
    return seconds


def main() -> None:
    options = ["--trainer.max_epochs", "1", "--trainer.callbacks", "null", "--trainer.enable_progress_bar", "false"]
    lightning, bare = [], []
    for turn in range(EPOCHS + 1):
        cli = ZooCLI(RECIPE, options)
        times = EpochTimes()
        cli.trainer.callbacks.append(times)
        cli.trainer.fit(cli.model, cli.datamodule)
        torch.manual_seed(0)
        plain = bare_epochs(ZooCLI(RECIPE, options).model, cli.datamodule, 1)
        if turn:  # the first turn warms up
            lightning += times.seconds
            bare += plain
    print(f"zoo fit    {statistics.median(lightning):.2f} s an epoch")
    print(f"bare loop  {statistics.median(bare):.2f} s an epoch")
    print(f"ratio      {statistics.median(lightning) / statistics.median(bare):.3f}")


if __name__ == "__main__":
    main()
