"""Train and test a recipe, compare the result with its target, and add it to the ledger.

    zoo reproduce mnist/under-8k --seeds 0 1 2 3 4

Options of the recipe may follow, for a trial; then nothing is added to the ledger. The exit status is 0 if the target
is met and 1 if it is missed.
"""

import argparse
import contextlib
import json
import platform
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import lightning
import torch
import torchvision
from lightning import Callback, LightningModule, Trainer
from lightning.pytorch.loggers import WandbLogger

from zoo.command import ledger, recipes
from zoo.command.lightning_cli import ZooCLI
from zoo.command.recipes import Expect

TAKES_OPTIONS = True


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("recipe", type=str, metavar="RECIPE", help="name, or path of a YAML file")
    parser.add_argument("--seeds", type=int, nargs="+", help="default: 0, 1, ..., as many as the recipe expects")
    parser.add_argument("--json", action="store_true", help="print one JSON object and nothing else")


def run(args: argparse.Namespace, rest: list[str]) -> int:
    with contextlib.redirect_stdout(sys.stderr):
        report = reproduce(args.recipe, seeds=args.seeds, options=rest)
    if args.json:
        print(json.dumps(report))
    else:
        values = ", ".join(f"{value:.4f}" for value in report["values"].values())
        verdict = "met" if report["met"] else "missed"
        summary = f"{report['recipe']}: {report['metric']} {report['mean']:.4f} ({values})"
        print(f"{summary}; {verdict}: {report['target']:g}")
    return 0 if report["met"] else 1


class Watch(Callback):
    """Keeps the value of one metric after each epoch; nothing is selected by it."""

    def __init__(self, metric: str) -> None:
        self.metric = metric
        self.values: list[float] = []

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if not trainer.sanity_checking and self.metric in trainer.callback_metrics:
            self.values.append(float(trainer.callback_metrics[self.metric]))


def reproduce(recipe: str, seeds: list[int] | None = None, options: list[str] | None = None) -> dict[str, Any]:
    """Runs a recipe for each seed and adds a row to the ledger for each.

    Args:
        recipe: name or YAML file.
        seeds: default 0, 1, ..., as many as the recipe's `expect` says.
        options: for a trial; with any, nothing is added to the ledger, as it would not be the recipe's result.

    Returns:
        The keys of the ledger, with the values of the last seed where they differ, and `values` (by seed), `mean`,
        `std`, `met` (by the mean) and `recorded`.

    Raises:
        ValueError: if the recipe has no `expect`, or its metric is not logged.
    """
    path, expect = recipes.find(recipe), recipes.expectation(recipe)
    seeds = list(range(expect.seeds)) if seeds is None else seeds
    report: dict[str, Any] = {}
    values: dict[int, float] = {}
    for seed in seeds:
        row = run_seed(path, expect, seed=seed, options=options or [])
        if not options:
            ledger.append(row)
        values[seed] = row["value"]
        report = row
    mean = statistics.mean(values.values())
    return report | {
        "values": values,
        "mean": mean,
        "std": statistics.stdev(values.values()) if len(values) > 1 else 0.0,
        "met": expect.met(mean),
        "recorded": not options,
    }


def run_seed(path: Path, expect: Expect, seed: int, options: list[str]) -> dict[str, Any]:
    """One training and test; returns a ledger row."""
    cli = ZooCLI(str(path), [*options, "--seed_everything", str(seed)])
    trainer, watch = cli.trainer, Watch(expect.metric)
    # The first callback: weight averaging puts the averaged weights in when validation starts.
    trainer.callbacks.insert(0, watch)
    if hasattr(cli.datamodule, "watch_test"):
        cli.datamodule.watch_test = True
    began = time.perf_counter()
    trainer.fit(cli.model, cli.datamodule)
    seconds = time.perf_counter() - began
    tested = trainer.test(cli.model, cli.datamodule, verbose=False)[0] if expect.metric.startswith("test/") else {}
    for logger in trainer.loggers:
        if isinstance(logger, WandbLogger):
            logger.experiment.finish()  # or the next seed would be logged into the same run
    last = tested.get(expect.metric, watch.values[-1] if watch.values else None)
    if last is None:
        logged = sorted(tested or trainer.callback_metrics)
        raise ValueError(f"{path.name} expects {expect.metric}, which was not logged: expected one of {logged}")
    history = [*watch.values[:-1], last]
    value = statistics.mean(history[-expect.over_last :])
    return {
        "recipe": recipes.name_of(path),
        "seed": seed,
        "metric": expect.metric,
        "value": round(value, 6),
        "best": round(expect.best(history), 6),
        "target": expect.target,
        "met": expect.met(value),
        "seconds": round(seconds, 1),
        "tflop": round(cli.flop_counter.tflop, 3),
        "parameters": sum(parameter.numel() for parameter in cli.model.parameters()),
        "device": device(trainer),
        "versions": f"python {platform.python_version()} torch {torch.__version__.split('+')[0]} "
        f"torchvision {torchvision.__version__.split('+')[0]} lightning {lightning.__version__}",
        "commit": commit(),
        "date": time.strftime("%Y-%m-%d"),
    }


def device(trainer: Trainer) -> str:
    """Hardware and precision, such as "AMD EPYC, 2 thread(s), AVX512, 32-true"."""
    if trainer.strategy.root_device.type == "cuda":
        return f"{trainer.world_size} x {torch.cuda.get_device_name()}, {trainer.precision}"
    model = platform.processor() or platform.machine()
    if Path("/proc/cpuinfo").is_file():
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        model = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), model)
    units = f"{torch.get_num_threads()} thread(s), {torch.backends.cpu.get_cpu_capability()}"
    return f"{model}, {units}, {trainer.precision}"


def commit() -> str:
    """The commit of the checkout, with a + if files differ from it, other than those that hold results."""

    def git(*arguments: str) -> str:
        done = subprocess.run(["git", "-C", str(recipes.ROOT), *arguments], capture_output=True, text=True)
        return done.stdout.strip() if done.returncode == 0 else ""

    generated = (":!results.csv", ":!results.lock", ":!../RESULTS.md", ":!../README.md")
    changed = git("status", "--porcelain", "--untracked-files=no", "--", "..", *generated)
    return (git("rev-parse", "--short=10", "HEAD") or "unknown") + ("+" if changed else "")
