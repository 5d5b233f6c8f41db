"""The cost of recording activation statistics during training.

    python -m experiments.benchmarks.activation_stats

One training, in which windows of ten batches alternate with and without `ActivationStats(every_n_steps=10)` and its
hooks. The result is the median, over pairs of neighboring windows, of the ratio of their CPU seconds on one thread,
with which other work on the machine interferes least. The images are random, in the size and number of Fashion-MNIST's.
"""

import os
import statistics
import tempfile
import time
from typing import Any

import torch
from lightning import LightningModule, Trainer

from callbacks.monitors.activation_stats import ActivationStats
from datamodules.images.fashion_mnist import FashionMNIST
from datamodules.loader import InMemory
from zoo.command.lightning_cli import ZooCLI

WINDOW = 10  # batches
EPOCHS = {"fashion_mnist/flagship": 2, "fashion_mnist/general-relu": 12}


class Noise(FashionMNIST):
    """Random images in the size and number of Fashion-MNIST's."""

    def prepare_data(self) -> None:
        pass

    def read(self, train: bool) -> InMemory:
        draw, n = torch.Generator().manual_seed(0), 60_000 if train else 10_000
        images = torch.randint(0, 256, (n, *self.image_shape), generator=draw, dtype=torch.uint8)
        return InMemory(images, torch.randint(0, self.num_classes, (n,), generator=draw))


class Alternating(ActivationStats):
    """Records one of every two windows, in turn the second and the first: a fixed order would favor one of them.

    Attributes:
        pairs: CPU seconds of neighboring windows, the first not recorded, the second recorded.
    """

    def __init__(self) -> None:
        super().__init__(every_n_steps=WINDOW)
        self.pairs: list[list[float]] = []
        self.seconds: list[float] = []
        self.began = 0.0

    def on_train_batch_start(self, trainer: Trainer, module: LightningModule, batch: Any, batch_idx: int) -> None:
        window, within = divmod(batch_idx, WINDOW)
        if within == 0:
            self.seconds = [*self.seconds, time.process_time() - self.began] if window else []
            if window and window % 2 == 0:
                self.pairs.append(self.seconds[-2:] if window % 4 == 2 else self.seconds[:-3:-1])
            self._hooks.remove()
            if window % 4 in (1, 2):
                self._hooks.setup(trainer, module, "fit")
            self.began = time.process_time()
        if self._hooks.active:
            super().on_train_batch_start(trainer, module)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        pass  # without the drawing


def main() -> None:
    torch.set_num_threads(1)
    for recipe, epochs in EPOCHS.items():
        options = ["--data", f"{Noise.__module__}.Noise", "--trainer.max_epochs", str(epochs)]
        options += ["--trainer.callbacks", "null", "--trainer.limit_val_batches", "0"]
        cli = ZooCLI(recipe, [*options, "--trainer.enable_progress_bar", "false"])
        callback = Alternating()
        cli.trainer.callbacks.append(callback)
        cli.trainer.fit(cli.model, cli.datamodule)
        pairs = callback.pairs[1:]  # the first warms up
        plain = statistics.median(seconds for seconds, _ in pairs)
        ratio = statistics.median(recorded / plain for plain, recorded in pairs)
        print(f"{recipe:<28} {1e3 * plain / WINDOW:6.1f} ms a batch  ratio {ratio:.3f} (n={len(pairs)})")


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:  # for the files of the run
        os.chdir(folder)
        main()
