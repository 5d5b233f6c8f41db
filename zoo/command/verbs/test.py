"""Evaluate a trained recipe on the test set.

    zoo test fashion_mnist/flagship --ckpt_path runs/fashion_mnist/flagship/TIME/checkpoints/last.ckpt

Without --ckpt_path the newest checkpoint of the recipe is taken. Everything in the recipe is an option too. With a
recipe, --help, --model.help and --data.help list them.
"""

import argparse

from zoo.command.training import add_recipe, run_trainer

TAKES_OPTIONS = RECIPE_HELP = True
add_arguments = add_recipe


def run(args: argparse.Namespace, rest: list[str]) -> int:
    return run_trainer("test", args.recipe, rest)
