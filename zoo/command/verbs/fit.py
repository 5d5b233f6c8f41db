"""Train a recipe.

    zoo fit fashion_mnist/flagship --trainer.max_epochs 2 --model.optimizer.lr 0.02

Everything in the recipe is an option too. With a recipe, --help, --model.help and --data.help list them.
"""

import argparse

from zoo.command.training import add_recipe, run_trainer

TAKES_OPTIONS = RECIPE_HELP = True
add_arguments = add_recipe


def run(args: argparse.Namespace, rest: list[str]) -> int:
    return run_trainer("fit", args.recipe, rest)
