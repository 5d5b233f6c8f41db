"""Evaluate a trained recipe on the test set.

Everything in the recipe is an option too:

    zoo test fashion_mnist/flagship --trainer.devices 1 --data.batch_size 100
"""

import argparse

from zoo.command.training import add_recipe, run_trainer

TAKES_OPTIONS = RECIPE_HELP = True
add_arguments = add_recipe


def run(args: argparse.Namespace, rest: list[str]) -> int:
    return run_trainer("test", args.recipe, rest)
