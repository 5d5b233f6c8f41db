"""LightningCLI as the zoo uses it: one recipe, a run folder, errors in one line."""

import argparse
import os
import shlex
import sys
from copy import deepcopy
from datetime import timedelta
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import Any

import yaml
from jsonargparse.typing import NonNegativeFloat
from lightning import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import ModelSummary, ProgressBar
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI, SaveConfigCallback
from lightning.pytorch.loggers import CSVLogger, WandbLogger

from callbacks.monitors.flops import FlopCounter
from callbacks.runtime.csv_logger import ContinueMetrics, KeepingCSVLogger
from callbacks.runtime.effective_batch import EffectiveBatch, check_sync_batchnorm
from callbacks.runtime.finite_loss import FiniteLoss
from callbacks.runtime.graceful_stop import GracefulStop
from callbacks.runtime.lost_process import LostProcess
from callbacks.runtime.monitor_check import MonitorCheck
from callbacks.runtime.out_of_memory import OutOfMemory
from callbacks.runtime.output import without_a_reader
from callbacks.runtime.progress import ModelTable, progress_callback
from datamodules.io import atomic_write
from zoo import trust
from zoo.command import recipes
from zoo.command.checkpoints import AtomicCheckpointIO, RunCheckpoint
from zoo.command.errors import cli_error_message
from zoo.command.machine import keep_freed_memory
from zoo.command.options import by_name, or_help
from zoo.command.recipes import Expect
from zoo.command.run_folder import claim_run_folder, release, separate_port
from zoo.system import System


class ZooTrainer(Trainer):
    """The Trainer of the command, which reads `1` as one batch and `1.0` as all.

    Lightning's own annotations name float first, by the cache of `typing.Union`, and so the command line would read
    one batch as 100 %.

    Args:
        limit_train_batches, limit_val_batches, limit_test_batches, limit_predict_batches: how many batches of an epoch
            (int), or what share of them (float).
        overfit_batches: train and validate on so many training batches (int), or on this share of them (float).
        val_check_interval: validate after so many training batches (int), after this share of an epoch (float), or
            after this time.
        options: see `lightning.Trainer`.
    """

    callbacks: list[Callback]

    def __init__(
        self,
        *,
        limit_train_batches: int | float | None = None,
        limit_val_batches: int | float | None = None,
        limit_test_batches: int | float | None = None,
        limit_predict_batches: int | float | None = None,
        overfit_batches: int | float = 0.0,
        val_check_interval: int | float | str | timedelta | dict[str, int] | None = None,
        **options: Any,
    ) -> None:
        super().__init__(
            limit_train_batches=limit_train_batches,
            limit_val_batches=limit_val_batches,
            limit_test_batches=limit_test_batches,
            limit_predict_batches=limit_predict_batches,
            overfit_batches=overfit_batches,
            val_check_interval=val_check_interval,
            **options,
        )

    def fit(self, *arguments: Any, **options: Any) -> None:
        """Trains to the end, whether or not somebody still reads the output."""
        with without_a_reader():
            super().fit(*arguments, **options)


def as_yaml(parser: LightningArgumentParser, config: Any) -> str:
    """A complete config as text, without the check of each value that it has passed when it was parsed."""
    return parser.dump(config, skip_unset=False, skip_validation=True)


class SaveConfig(SaveConfigCallback):
    """Saves the complete, resolved config in the run folder and in W&B."""

    def __init__(self, parser: LightningArgumentParser, config: Any, **options: Any) -> None:
        super().__init__(parser, config, save_to_log_dir=False, **options)

    def save_config(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        text = as_yaml(self.parser, self.config)
        config = Path(trainer.default_root_dir) / "config.yaml"
        if stage == "fit" or not config.exists():
            with atomic_write(config) as file:
                file.write_text(text)
        for logger in trainer.loggers:
            if isinstance(logger, WandbLogger):
                logger.experiment.config.update(yaml.safe_load(text), allow_val_change=True)


def nameable(recipe: Path, options: list[str]) -> set[str]:
    """The packages and names that the values of a recipe and of options may name.

    Those are the packages of `zoo.trust`, what the checkout's own recipes name, of which what is foreign is told, and
    what was typed as a value. A name that a file from elsewhere has as well does not count as typed, except after
    --model and --data: the user may have meant a folder by it.
    """
    files = [recipe, *(Path(word.rpartition("=")[2]) for word in options if word.endswith((".yaml", ".yml")))]
    values = [word.partition("=")[2] if word.startswith("--") else word for word in options]
    typed = set().union(*(trust.names_in(_parsed(value)) for value in values))
    words = [part for word in options for part in word.split("=", 1)]
    classes = {value for option, value in pairwise(words) if option in ("--model", "--data")}
    in_checkout: set[str] = set()
    for file in filter(Path.is_file, files):
        content = _parsed(file.read_bytes())
        if not file.resolve().is_relative_to(recipes.ROOT):
            elsewhere = trust.DOTTED.findall(str(content))
            typed &= classes | {one for one in typed if not any(f"{x}.".startswith(f"{one}.") for x in elsewhere)}
            continue
        names = trust.names_in(content)
        in_checkout |= names
        if foreign := trust.foreign(names):
            print(f"{recipes.name_of(file)} imports {', '.join(foreign)}", file=sys.stderr)
    return {*trust.PACKAGES, f"{Expect.__module__}.{Expect.__name__}", *typed, *in_checkout}


def _parsed(text: str | bytes) -> Any:
    """What YAML is; None where it is none, which the parser will say."""
    try:
        return yaml.safe_load(text)
    except (yaml.YAMLError, ValueError):  # the latter of dates such as 2026-13-01
        return None


class ZooCLI(LightningCLI):
    """Builds `trainer`, `model` and `datamodule` from a recipe and options that override it; runs nothing.

    Args:
        recipe: name, YAML file, or folder of a run.
        options: as typed.
        folder: the run folder; default the recipe's `default_root_dir`, else a new one.
        resume_by: the command that goes on with an interrupted training, up to the run folder.
        command: that the run is known by, as words; default those of this process.

    Attributes:
        folder: the run folder: config, checkpoints, metrics, pictures.
        flop_counter: counts the operations of the training.
        may_name: the packages and names that recipe and options may name.
        settings: the complete config, as plain data.

    Raises:
        ValueError: for anything wrong in the recipe or the options, in one line.
    """

    folder: Path
    settings: dict[str, Any]
    trainer: ZooTrainer
    parser: LightningArgumentParser

    def __init__(
        self,
        recipe: str,
        options: list[str] | None = None,
        folder: Path | None = None,
        resume_by: str = "zoo fit --resume",
        command: list[str] | None = None,
    ) -> None:
        self.recipe, self.flop_counter, self.given_folder = recipes.find(recipe), FlopCounter(), folder
        self.resume_by, self.command = resume_by, sys.argv[1:] if command is None else command
        keep_freed_memory()
        options = or_help(by_name(options or []), recipes.read(self.recipe))
        self.may_name = nameable(self.recipe, options)
        try:
            with trust.only(self.may_name):
                super().__init__(
                    trainer_class=ZooTrainer,
                    save_config_callback=SaveConfig,
                    seed_everything_default=0,
                    auto_configure_optimizers=False,
                    parser_kwargs={"exit_on_error": False, "allow_abbrev": False},
                    args=["--config", str(self.recipe), *options],
                    run=False,
                )
        except (argparse.ArgumentError, TypeError, ValueError, OSError) as error:
            if hasattr(self, "folder"):
                release(self.folder)
            if name := trust.denied(error):
                raise ValueError(
                    f"a recipe or config outside of {recipes.ROOT} names {name}, which would be imported: expected "
                    f"classes of {', '.join(trust.PACKAGES)}; if you trust it, add --trust {name.partition('.')[0]}"
                ) from None
            if isinstance(error, (ValueError, OSError)) and not str(error).startswith("Does not validate"):
                raise  # one of the zoo's own, which jsonargparse has not wrapped
            known = list(self.parser.get_defaults().keys()) if hasattr(self, "parser") else []
            raise ValueError(cli_error_message(error, options, known)) from error

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        parser.add_argument("--expect", type=Expect | None, default=None, help="what the recipe must reach")
        parser.add_argument("--ckpt_path", type=str | None, default=None, help="checkpoint to resume or evaluate")
        parser.add_argument(
            "--checkpoint_minutes",
            type=NonNegativeFloat,
            default=10.0,
            help="save checkpoints/recent.ckpt so often; 0: never",
        )
        for name in System.from_data:
            parser.link_arguments(f"data.{name}", f"model.init_args.{name}", apply_on="instantiate")

    def parse_arguments(self, parser: LightningArgumentParser, args: Any) -> None:
        self.words = args
        self.config = parser.parse_args(args)  # without Lightning's warning that sys.argv holds something too

    @cached_property
    def recipe_settings(self) -> dict[str, Any]:
        """The complete config that the recipe has without options, as plain data."""
        recipe_alone = ["--config", str(self.recipe)]
        if self.words == recipe_alone:
            return self.settings
        with trust.only(self.may_name):
            return self.plain(self.parser.parse_args(recipe_alone))

    def plain(self, config: Any) -> dict[str, Any]:
        """A parsed config as mappings, lists, texts and numbers."""
        return yaml.safe_load(as_yaml(self.parser, config))

    def before_instantiate_classes(self) -> None:
        separate_port()
        self.settings = self.plain(self.config)
        self.config_dump = deepcopy(self.settings)  # Lightning would make it anew, and enters what the data say
        folder = self.given_folder or self.config.trainer.default_root_dir
        self.folder = Path(folder or claim_run_folder(recipes.name_of(self.recipe), self.command)).absolute()

    def instantiate_classes(self) -> None:
        loggers = self.config.trainer.logger
        loggers = [x for x in (loggers if isinstance(loggers, list) else [loggers]) if hasattr(x, "class_path")]
        here = [x for x in loggers if x.init_args.get("save_dir") in (None, ".")]
        for logger in here:
            logger.init_args.save_dir = str(self.folder)
        super().instantiate_classes()
        for logger in here:  # the saved config is a recipe: another run of it gets a folder of its own
            logger.init_args.save_dir = "."
        self.check_sizes()

    def check_sizes(self) -> None:
        """Raises an error for a size that was given to the model and is not that of the data."""
        used = self.config.model.get("init_args", {})
        found = {name: getattr(self.datamodule, name, None) for name in System.from_data}
        differ = [name for name in found if None not in (used.get(name), found[name]) and used[name] != found[name]]
        # A default gives way to the data; telling it from what was given takes half a second.
        given = self.parser.parse_args(self.words, defaults=False).get("model.init_args") if differ else None
        for name in differ:
            if given and given.get(name) is not None:
                raise ValueError(
                    f"{name} is {given[name]}, but the data have {found[name]} {System.from_data[name]}: expected the "
                    "same number; leave it out, and it is taken from the data"
                )

    def timed_checkpoints(self) -> list[Callback]:
        """A checkpoint every few minutes, so that a kill in a long epoch costs no more than those."""
        minutes = self.config.checkpoint_minutes
        if not minutes:
            return []
        interval = timedelta(minutes=minutes)
        folder = self.folder / "checkpoints"
        return [RunCheckpoint(folder, "recent", train_time_interval=interval, enable_version_counter=False)]

    def resume_command(self) -> str:
        """The command that goes on with this run; what it was started with is in the run's config."""
        return " ".join([self.resume_by, shlex.quote(os.path.relpath(self.folder)), *trust.options(self.settings)])

    def writes_metrics(self, logger: Any) -> bool:
        """Whether a logger would write the same file as the command's own, each row twice."""
        return isinstance(logger, CSVLogger) and Path(logger.log_dir).resolve() == self.folder.resolve()

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        trainer = self.config_init.trainer
        kwargs["default_root_dir"] = str(self.folder)
        if trainer.logger is not False:  # beside loggers of the user's: pages on the run are made from this one
            given = trainer.logger if isinstance(trainer.logger, list) else [trainer.logger]
            csv = KeepingCSVLogger(self.folder, name="", version="")
            others = [logger for logger in given if logger not in (None, True) and not self.writes_metrics(logger)]
            kwargs["logger"] = [*others, csv]
        has_own_bar, has_own_table = (
            any(isinstance(callback, kind) for callback in trainer.callbacks or [])
            for kind in (ProgressBar, ModelSummary)
        )
        keeps = trainer.enable_checkpointing is not False and not trainer.fast_dev_run
        own = [
            LostProcess(self.resume_command() if keeps else ""),
            EffectiveBatch(command=True),
            FiniteLoss(command=True),
            self.flop_counter,
            OutOfMemory(command=True),
            MonitorCheck(),
            *([] if trainer.enable_progress_bar is False or has_own_bar else [progress_callback()]),
            *([] if trainer.enable_model_summary is False or has_own_table else [ModelTable()]),
        ]
        if keeps:
            folder = self.folder / "checkpoints"
            own = [
                RunCheckpoint(folder, "last", save_on_train_epoch_end=True, enable_version_counter=False),
                *self.timed_checkpoints(),
                GracefulStop(self.resume_command()),
                ContinueMetrics(),
                *own,
            ]
        kwargs["enable_model_summary"] = False  # or Lightning says that it adds no second table
        kwargs["callbacks"] = [*(trainer.callbacks or []), *own]
        kwargs["plugins"] = [*(trainer.plugins or []), AtomicCheckpointIO()]
        made = super().instantiate_trainer(**kwargs)
        check_sync_batchnorm(made, self.model)  # before there are several processes, each of which would say it
        return made
