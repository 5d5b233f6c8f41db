"""What the verbs that run a Trainer on a recipe share: `fit`, `validate` and `test`."""

import argparse
import sys

from zoo.command.checkpoints import existing, newest_checkpoint
from zoo.command.lightning_cli import ZooCLI


def add_recipe(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("recipe", metavar="RECIPE", help="name, or path of a YAML file")


def run_trainer(verb: str, recipe: str, options: list[str]) -> int:
    """Runs `trainer.fit`, `validate` or `test` on a recipe; of the latter two on its newest checkpoint by default."""
    cli = ZooCLI(recipe, options)
    checkpoint = cli.config_init.ckpt_path
    if checkpoint is None and verb != "fit":
        checkpoint = newest_checkpoint(recipe)
    if checkpoint is not None:
        existing(checkpoint)
        print(f"checkpoint {checkpoint}", file=sys.stderr)
    print(f"run folder {cli.folder}", file=sys.stderr)
    getattr(cli.trainer, verb)(cli.model, datamodule=cli.datamodule, ckpt_path=checkpoint)
    return 0
