"""Evaluate a trained recipe on the test set.

    zoo test fashion_mnist/flagship --ckpt_path runs/fashion_mnist/flagship/TIME/checkpoints/last.ckpt

Without --ckpt_path the newest checkpoint of the recipe is taken. Everything in the recipe is an option too. With a
recipe, --help, --model.help and --data.help list them.
"""

import argparse

TAKES_OPTIONS = RECIPE_HELP = True


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("recipe", type=str, metavar="RECIPE", help="name, path of a YAML file, or folder of a run")


def run(args: argparse.Namespace, rest: list[str]) -> int:
    from zoo.command.training import run_trainer

    return run_trainer("test", args.recipe, rest)
