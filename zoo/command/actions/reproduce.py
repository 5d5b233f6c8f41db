"""Recipes run for the ledger: each seed trained, tested, and measured as one, interruptions left out."""

import gc
import json
import os
import platform
import statistics
import time
import traceback
from pathlib import Path
from typing import Any

import lightning
import torch
import torchvision
import yaml
from lightning import Callback, LightningModule, Trainer
from lightning.pytorch.loggers import WandbLogger
from lightning.pytorch.utilities import rank_zero_only

from datamodules import messages
from datamodules.io import atomic_write
from zoo.command import recipes
from zoo.command.errors import explanation
from zoo.command.lightning_cli import ZooCLI
from zoo.command.machine import commit, device
from zoo.command.recipes import Expect, six_digits
from zoo.command.run_folder import is_restarted, note_command, note_end
from zoo.command.training import to_go_on_from
from zoo.report.recorder import attach
from zoo.report.run import read_json
from zoo.report.summary import next_command, try_report
from zoo.results import ledger
from zoo.results.missing import Clock, missing_runs

RESULT = "result.json"  # in the run folder: the ledger row of a seed that is done


def reproduce_missing(
    cost: str | None = None, minutes: float | None = None, options: list[str] | None = None
) -> list[dict[str, Any]]:
    """Runs the recipes and seeds that the ledger lacks, the most wanted first, and adds a row after each.

    Args:
        cost: of which recipes, "cpu" or "gpu"; default what this machine has.
        minutes: no run is started that would end later, by what its recipe says and how long earlier ones took.
        options: for a trial; with any, nothing is added to the ledger.

    Returns:
        For each run what `reproduce` returns; for one that failed `recipe`, `met` (false) and `error`.

    Raises:
        ValueError: if recipes for a GPU are to be run without one.
    """
    has_gpu = torch.cuda.is_available()
    cost = cost or ("gpu" if has_gpu else "cpu")
    if cost == "gpu" and not has_gpu and not options:
        raise ValueError(
            "--cost is gpu, but this machine has no GPU: expected a machine with one; for a trial of two batches of "
            "each, add --config _smoke"
        )
    reports, skipped, clock = [], [], Clock(minutes)
    for one in missing_runs(cost):
        if not clock.fits(one):
            skipped.append(one)
            continue
        print(f"{one.recipe}, seed {one.seed}" + ("" if minutes is None else f": {clock.left:.0f} minutes are left"))
        began = time.monotonic()
        try:
            reports.append(reproduce(one.recipe, seeds=[one.seed], options=options))
        except Exception as error:  # of any kind: one recipe that fails must not cost the others their turn
            explained = explanation(error)
            if explained is None:
                traceback.print_exc()
            message = explained[0] if explained else f"{type(error).__name__}: {error}"
            reports.append({"recipe": one.recipe, "met": False, "error": message})
        clock.record(one, (time.monotonic() - began) / 60)
        gc.collect()
        torch.cuda.empty_cache()
    if skipped:
        names = ", ".join(f"{one.recipe} ({one.minutes:g} min)" for one in skipped)
        print(f"not run, as {clock.left:.1f} minutes are left, or as their recipes say no time: {names}")
    return reports


class Watch(Callback):
    """Keeps the values of one metric, by which nothing is selected, and how long the training takes.

    Its state is in the checkpoints, so that a training that was interrupted is measured as one.

    Args:
        metric: as logged.

    Attributes:
        values: one for each validation.
        last_epoch: split ("train", "val") -> the last value of the metric there.
        seconds: of training and validation, interruptions left out.
        cpu_seconds: of processor time, of all threads of this process.
        commit: of the checkout in which the training started.
    """

    def __init__(self, metric: str) -> None:
        self.metric, self.commit = metric, commit()
        self.values: list[float] = []
        self.last_epoch: dict[str, float] = {}
        self.before, self.began = (0.0, 0.0), (time.perf_counter(), time.process_time())

    @property
    def seconds(self) -> float:
        return self.before[0] + time.perf_counter() - self.began[0]

    @property
    def cpu_seconds(self) -> float:
        return self.before[1] + time.process_time() - self.began[1]

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.began = time.perf_counter(), time.process_time()

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if not trainer.sanity_checking and self.metric in trainer.callback_metrics:
            self.values.append(float(trainer.callback_metrics[self.metric]))

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        logged, name = trainer.callback_metrics, self.metric.partition("/")[2]
        found = {split: f"{split}/{name}" for split in ("train", "val")}
        self.last_epoch |= {split: float(logged[key]) for split, key in found.items() if key in logged}

    def state_dict(self) -> dict[str, Any]:
        seconds = [self.seconds, self.cpu_seconds]
        return {"values": self.values, "last_epoch": self.last_epoch, "seconds": seconds, "commit": self.commit}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        if state["commit"] != self.commit:
            raise ValueError(
                f"the run was started at commit {state['commit']}, and this checkout is at {self.commit}: expected the "
                "same; check it out, or start anew"
            )
        self.values, self.last_epoch = state["values"], state.get("last_epoch", {})
        self.before = tuple(state["seconds"])


def reproduce(
    recipe: str, seeds: list[int] | None = None, options: list[str] | None = None, resume: str | None = None
) -> dict[str, Any]:
    """Runs a recipe for each seed and adds a row to the ledger for each.

    Where a cluster has started the command again, seeds that are done are left out, and one that was begun goes on.

    Args:
        recipe: name or YAML file.
        seeds: default 0, 1, ..., as many as the recipe's `expect` says.
        options: for a trial; with any, nothing is added to the ledger, as it would not be the recipe's result.
        resume: folder of an interrupted run of the recipe, to go on with its seed; `seeds` is then not read.

    Returns:
        The keys of the ledger, with the values of the last seed where they differ, and `values` (by seed), `mean`,
        `std`, `met` (by the mean), `recorded`, `folders` (by seed) and `next`, a command that uses what was trained.

    Raises:
        ValueError: if the recipe has no `expect`, or its metric is not logged; if the run to resume has no checkpoint,
            or was started at another commit or with other settings; if a folder is given for several seeds.
    """
    path, expect = recipes.find(recipe), recipes.expectation(recipe)
    seeds = list(range(expect.seeds)) if seeds is None else seeds
    run = None if resume is None else Path(resume)
    if run is not None:
        if not (run / "config.yaml").is_file():
            raise ValueError(f"--resume is {resume}, which is not the folder of a run: expected one with a config.yaml")
        seeds = [recipes.read(run / "config.yaml")["seed_everything"]]
    if len(seeds) > 1 and any(word.startswith("--trainer.default_root_dir") for word in options or []):
        raise ValueError(
            f"--trainer.default_root_dir is given for the {len(seeds)} seeds {', '.join(map(str, seeds))}: expected "
            "one seed, as each needs a folder of its own; leave it out, or choose one by --seeds"
        )
    report: dict[str, Any] = {}
    values: dict[int, float] = {}
    folders: dict[int, Path] = {}
    following = ""
    for seed in seeds:
        report, folders[seed], following = run_seed(path, expect, seed=seed, options=options or [], run=run)
        values[seed] = report["value"]
    for folder in folders.values():  # not before: until then the cluster may start the command again
        rank_zero_only(note_end)(folder)
    mean = statistics.mean(values.values())
    return report | {
        "values": values,
        "mean": mean,
        "std": statistics.stdev(values.values()) if len(values) > 1 else 0.0,
        "met": expect.met(mean),
        "recorded": not options,
        "folders": {seed: os.path.relpath(folder) for seed, folder in folders.items()},
        "next": following,
    }


def run_seed(
    path: Path, expect: Expect, seed: int, options: list[str], run: Path | None = None
) -> tuple[dict[str, Any], Path, str]:
    """One training and test, or the rest of one in the folder `run`; returns the ledger row, the folder, and what next.

    The last is a command that uses what was trained.
    """
    resume_by = f"zoo reproduce {recipes.name_of(path)} --resume" if not options else "zoo fit --resume"
    cli = ZooCLI(
        str(path),
        [*options, "--seed_everything", str(seed)],
        folder=run,
        resume_by=resume_by,
        command=["reproduce", recipes.name_of(path), "--seeds", str(seed), *options],
    )
    if is_restarted(cli.folder, cli.command) and (done := read_json(cli.folder / RESULT)):
        messages.report(f"seed {seed} is done: {cli.folder}")
        return done, cli.folder, next_command(cli)
    checkpoint = to_go_on_from(cli.folder, resume=run is not None, command=cli.command)
    if run is not None or checkpoint is not None:
        check_settings(cli, checkpoint)
    note_command(cli.folder, cli.command)
    trainer, watch = cli.trainer, Watch(expect.metric)
    # The first callback: weight averaging puts the averaged weights in when validation starts.
    trainer.callbacks.insert(0, watch)
    if hasattr(cli.datamodule, "watch_test"):
        cli.datamodule.watch_test = True
    attach(cli)
    trainer.fit(cli.model, cli.datamodule, ckpt_path=checkpoint, weights_only=True)
    seconds, cpu_seconds = watch.seconds, watch.cpu_seconds
    tested = trainer.test(cli.model, cli.datamodule, verbose=False)[0] if expect.metric.startswith("test/") else {}
    for logger in trainer.loggers:
        if isinstance(logger, WandbLogger):
            logger.experiment.finish()  # or the next seed would be logged into the same run
    if trainer.is_global_zero:
        try_report(cli.folder)
    last = tested.get(expect.metric, watch.values[-1] if watch.values else None)
    if last is None:
        known = sorted(tested or trainer.callback_metrics)
        raise ValueError(f"{path.name} expects {expect.metric}, which was not logged: expected one of {known}")
    history = [*watch.values[:-1], last]
    value = statistics.mean(history[-expect.over_last :])
    row = {
        "recipe": recipes.name_of(path),
        "seed": seed,
        "metric": expect.metric,
        "value": six_digits(value),
        "best": six_digits(expect.best(history)),
        "target": expect.target,
        "met": expect.met(value),
        "seconds": round(seconds, 1),
        "tflop": round(cli.flop_counter.tflop, 3),
        "parameters": sum(parameter.numel() for parameter in cli.model.parameters()),
        "device": device(trainer),
        "versions": f"python {platform.python_version()} torch {torch.__version__.split('+')[0]} "
        f"torchvision {torchvision.__version__.split('+')[0]} lightning {lightning.__version__}",
        "commit": watch.commit,
        "date": time.strftime("%Y-%m-%d"),
        "samples": cli.flop_counter.samples,
        "cpu_seconds": round(cpu_seconds, 1),
        **{s: six_digits(watch.last_epoch[s]) if s in watch.last_epoch else "" for s in ("train", "val")},
    }
    if trainer.is_global_zero:
        if not options:
            ledger.append(row)
        with atomic_write(cli.folder / RESULT) as temporary:
            temporary.write_text(json.dumps(row))
    return row, cli.folder, next_command(cli)


def check_settings(cli: ZooCLI, checkpoint: Path | None) -> None:
    """Raises ValueError if a run that goes on has other settings than the recipe, or no checkpoint."""
    run = cli.folder
    saved, wanted = yaml.safe_load((run / "config.yaml").read_text()), cli.settings
    if saved != wanted:
        key = next(key for key in {**saved, **wanted} if saved.get(key) != wanted.get(key))
        raise ValueError(
            f"{run} was started with another {key} than the recipe has: expected the recipe's settings, as the result "
            "would not be the recipe's; go on by `zoo fit --resume`, or start anew"
        )
    if checkpoint is None:
        raise ValueError(f"{run} has no checkpoint: expected one under checkpoints; start anew")
    messages.report(f"checkpoint {checkpoint}")
