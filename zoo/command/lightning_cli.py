"""LightningCLI as the zoo uses it: one recipe, a run folder, one-line errors."""

import argparse
import functools
import itertools
import operator
import re
from pathlib import Path
from typing import Any

import yaml
from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI, SaveConfigCallback
from lightning.pytorch.loggers import CSVLogger, WandbLogger

from callbacks.monitors.flops import FlopCounter
from callbacks.runtime.graceful_stop import GracefulStop
from callbacks.runtime.out_of_memory import OutOfMemory
from callbacks.runtime.progress import progress_callback
from datamodules.io import atomic_write
from zoo.command import recipes
from zoo.command.checkpoints import CheckpointFiles
from zoo.command.errors import cli_error_message
from zoo.command.recipes import Expect
from zoo.command.run_folder import run_folder
from zoo.system import System


class SaveConfig(SaveConfigCallback):
    """The full resolved config goes to the run folder and to W&B."""

    def __init__(self, parser: LightningArgumentParser, config: Any, **options) -> None:
        super().__init__(parser, config, save_to_log_dir=False, **options)

    def save_config(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        text = self.parser.dump(self.config, skip_none=False)
        config = Path(trainer.default_root_dir) / "config.yaml"
        if stage == "fit" or not config.exists():
            with atomic_write(config) as file:
                file.write_text(text)
        for logger in trainer.loggers:
            if isinstance(logger, WandbLogger):
                logger.experiment.config.update(yaml.safe_load(text), allow_val_change=True)


def or_help(options: list[str], recipe: dict[str, Any]) -> list[str]:
    """The options; or, where `--model.help` or `--data.help` among them names no class, that about the recipe's."""
    for word, after in itertools.zip_longest(options, options[1:], fillvalue="-"):
        part = word[2:-5]
        if word in ("--model.help", "--data.help") and after.startswith("-") and part in recipe:
            return [f"{word}={recipe[part]['class_path']}"]
    return options


class ZooCLI(LightningCLI):
    """Builds `trainer`, `model` and `datamodule` from a recipe and options that override it; runs nothing.

    Attributes:
        folder: of the run: config, checkpoints, metrics, pictures.

    Raises:
        ValueError: for anything wrong in recipe or options, in one line.
    """

    def __init__(self, recipe: str, options: list[str] | None = None) -> None:
        self.recipe = recipes.find(recipe)
        options = or_help(options or [], recipes.read(self.recipe))
        self.folder = None
        try:
            super().__init__(
                save_config_callback=SaveConfig,
                seed_everything_default=0,
                auto_configure_optimizers=False,
                parser_kwargs={"exit_on_error": False, "allow_abbrev": False},
                args=["--config", str(self.recipe), *options],
                run=False,
            )
        except (argparse.ArgumentError, TypeError, ValueError, OSError) as error:
            if isinstance(error, (ValueError, OSError)) and not str(error).startswith("Does not validate"):
                raise  # one of ours, which jsonargparse has not wrapped up
            raise ValueError(cli_error_message(error, self.parser if hasattr(self, "parser") else None)) from error

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        parser.add_argument("--expect", type=Expect | None, default=None, help="what the recipe must reach")
        parser.add_argument("--ckpt_path", type=str | None, default=None, help="checkpoint to resume or evaluate")
        for name in System.from_data:
            parser.link_arguments(f"data.{name}", f"model.init_args.{name}", apply_on="instantiate")
        for action in parser._actions:
            if re.fullmatch(r"trainer\.(limit_\w+_batches|overfit_batches|val_check_interval)", action.dest):
                # Behind typing's cache Trainer's annotation reads float first, and 1 batch became 100 %.
                kinds = sorted(action._typehint.__args__, key=lambda kind: kind is not int)
                action._typehint = functools.reduce(operator.or_, kinds)

    def parse_arguments(self, parser: LightningArgumentParser, args: list[str]) -> None:
        self.config = parser.parse_args(args)  # without Lightning's warning that sys.argv holds something too
        given = parser.parse_args(args, defaults=False).get("model.init_args")
        self.given = {name: given.get(name) if given else None for name in System.from_data}

    def before_instantiate_classes(self) -> None:
        self.folder = Path(self.config.trainer.default_root_dir or run_folder(recipes.name_of(self.recipe))).absolute()

    def instantiate_classes(self) -> None:
        loggers = self.config.trainer.logger
        loggers = [x for x in (loggers if isinstance(loggers, list) else [loggers]) if hasattr(x, "class_path")]
        here = [x for x in loggers if x.init_args.get("save_dir") in (None, ".")]
        for logger in here:
            logger.init_args.save_dir = str(self.folder)
        super().instantiate_classes()
        for logger in here:  # the saved config is a recipe: run again, it gets a folder of its own
            logger.init_args.save_dir = "."
        for name, what in System.from_data.items():
            given, found = self.given[name], getattr(self.datamodule, name, None)
            if None not in (given, found) and given != found:
                raise ValueError(
                    f"{name} is {given}, but the data have {found} {what}: expected the same number; "
                    "leave it out, and it is taken from the data"
                )

    def instantiate_trainer(self, **kwargs) -> Trainer:
        trainer = self.config_init.trainer
        kwargs["default_root_dir"] = str(self.folder)
        if trainer.logger in (None, True):
            kwargs["logger"] = CSVLogger(self.folder, name="", version="")
        own = [
            ModelCheckpoint(self.folder / "checkpoints", filename="last", enable_version_counter=False),
            GracefulStop(recipes.name_of(self.recipe)),
            FlopCounter(),
            OutOfMemory(command=True),
            *([] if trainer.enable_progress_bar is False else [progress_callback()]),
        ]
        if trainer.enable_checkpointing is False or trainer.fast_dev_run:
            own = own[2:]
        kwargs["callbacks"] = [*(trainer.callbacks or []), *own]
        kwargs["plugins"] = [*(trainer.plugins or []), CheckpointFiles()]
        return super().instantiate_trainer(**kwargs)
