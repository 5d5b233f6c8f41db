"""What a run says of itself while it trains, in `run.json`: machine, time, work, and how its settings differ."""

import json
import platform
import time
from collections.abc import Iterable, Sequence
from typing import Any

import lightning
import torch
import torchvision
from lightning import Callback, LightningModule, Trainer

from callbacks.monitors.curves import axes_of
from datamodules.io import atomic_write
from datamodules.loader import num_samples
from zoo.command import recipes
from zoo.command.lightning_cli import ZooCLI
from zoo.command.machine import commit, device
from zoo.report.curves import SPLITS
from zoo.report.page import recipe_title
from zoo.report.run import FACTS, read_json, settings_of
from zoo.report.settings import differing

EVERY = 20.0  # seconds between two writes, at the least


class Recorder(Callback):
    """Writes `run.json` into the run folder when a training starts, now and then while it goes on, and when it ends.

    So a page on a run that was killed, or that still goes on, knows as much as can be known. The seconds of a resumed
    training count on from those that the file has.

    Args:
        cli: of the command, with everything built.

    Attributes:
        facts: the content of the file.
    """

    def __init__(self, cli: ZooCLI) -> None:
        self.cli, self.path = cli, cli.folder / FACTS
        self.facts: dict[str, Any] = {}
        self.began = self.written = 0.0  # seconds
        self.before = 0.0

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        found = read_json(self.path) if trainer.global_step else {}  # otherwise it is that of another training
        self.before, self.began = float(found.get("seconds", 0.0)), time.perf_counter()
        if not trainer.is_global_zero:
            return
        parameters = list(pl_module.parameters())
        differs = found["differs"] if "differs" in found else differences(self.cli)
        self.facts = {
            "recipe": found.get("recipe", recipes.name_of(self.cli.recipe)),
            "title": found.get("title", recipe_title(self.cli.recipe)),
            "differs": differs,
            "own_data": found.get("own_data", are_other_data(differs)),
            "data_sizes": data_sizes(self.cli.datamodule),
            "started": found.get("started", time.strftime("%Y-%m-%d %H:%M")),
            "device": device(trainer),
            "versions": f"python {platform.python_version()}, torch {torch.__version__}, torchvision "
            f"{torchvision.__version__}, lightning {lightning.__version__}",
            "commit": found.get("commit", commit()),
            "parameters": sum(parameter.numel() for parameter in parameters),
            "axes": {name: axis._asdict() for name, axis in axes_of(pl_module).items()},
        }
        self._write(trainer, "running")

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if time.perf_counter() - self.written > EVERY:
            self._write(trainer, "running")

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:
        self.on_train_epoch_end(trainer, pl_module)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._write(trainer, "finished")

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        if trainer.state.fn == "fit" and self.facts:
            self._write(trainer, "interrupted" if isinstance(exception, KeyboardInterrupt) else "failed")

    def _write(self, trainer: Trainer, state: str) -> None:
        self.written = time.perf_counter()
        if not trainer.is_global_zero:
            return
        counter = self.cli.flop_counter
        self.facts |= {
            "state": state,
            "seconds": round(self.before + self.written - self.began, 1),
            "tflop": round(counter.tflop, 4),
            "samples": counter.samples,
        }
        with atomic_write(self.path) as temporary:
            temporary.write_text(json.dumps(self.facts, indent=1), encoding="utf-8")


def data_sizes(data: Any) -> dict[str, int]:
    """The numbers of classes and of different samples of each split, by their names in words."""
    classes = {"classes": len(data.classes)} if getattr(data, "classes", ()) else {}
    datasets = getattr(data, "datasets", {})
    sizes = {split: num_samples(getattr(one, "dataset", one)) for split, one in datasets.items()}
    return classes | {SPLITS[split]: size for split, size in sizes.items()}


def are_other_data(differs: Iterable[Sequence[Any]]) -> bool:
    """Whether settings that differ from the recipe's name other data, to which its target does not belong.

    Files, folders, classes and the like are named by words, amounts and sizes by numbers; `data_dir` says only where
    the same data are.

    >>> are_other_data([("data.batch_size", 8, 16), ("data.data_dir", None, "mine"), ("data.seed", None, 1)])
    False
    >>> are_other_data([("data.folder", "bccd", "cells")])
    True
    """
    named = {key for key, *values in differs if any(map(_is_word, values))}
    return any(key == "data" or key.rpartition(".")[0] == "data" for key in named - {"data.data_dir"})


def _is_word(value: Any) -> bool:
    return any(isinstance(one, str) and one != "" for one in (value if isinstance(value, list | tuple) else [value]))


def differences(cli: ZooCLI) -> list[tuple[str, Any, Any]]:
    """The settings that the recipe alone would have otherwise, each with the recipe's value and this run's."""
    both = [settings_of(one) for one in (cli.recipe_settings, cli.settings)]
    return [(key, there, here) for key, (there, here) in differing(both)]


def attach(cli: ZooCLI) -> None:
    """Has the training of a command recorded."""
    cli.trainer.callbacks.append(Recorder(cli))
