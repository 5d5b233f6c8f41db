"""Train a recipe.

Everything in the recipe is an option too:

    zoo fit fashion_mnist/flagship --trainer.devices 1 --data.batch_size 100
"""

import argparse

from zoo.command.training import add_recipe, run_trainer

TAKES_OPTIONS = RECIPE_HELP = True
add_arguments = add_recipe


def run(args: argparse.Namespace, rest: list[str]) -> int:
    return run_trainer("fit", args.recipe, rest)
