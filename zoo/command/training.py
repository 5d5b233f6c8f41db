"""What the verbs share that run a Trainer on a recipe: `fit`, `validate` and `test`."""

import argparse
import sys

from zoo.command.checkpoints import check_exists, newest_checkpoint
from zoo.command.lightning_cli import ZooCLI


def add_recipe(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("recipe", type=str, metavar="RECIPE", help="name, or path of a YAML file")


def run_trainer(verb: str, recipe: str, options: list[str]) -> int:
    """Runs `trainer.fit`, `trainer.validate` or `trainer.test` on a recipe; returns the exit status.

    Without the option `--ckpt_path`, `validate` and `test` take the recipe's newest checkpoint.
    """
    cli = ZooCLI(recipe, options)
    checkpoint = cli.config_init.ckpt_path
    if checkpoint is None and verb != "fit":
        checkpoint = newest_checkpoint(recipe)
    if checkpoint is not None:
        check_exists(checkpoint)
        print(f"checkpoint {checkpoint}", file=sys.stderr)
    print(f"run folder {cli.folder}", file=sys.stderr)
    getattr(cli.trainer, verb)(cli.model, datamodule=cli.datamodule, ckpt_path=checkpoint)
    return 0
