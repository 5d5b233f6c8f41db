"""Train a recipe, or go on with a run that was interrupted.

    zoo fit fashion_mnist/flagship --trainer.max_epochs 2 --model.optimizer.lr 0.02
    zoo fit own/pictures --data.folder FOLDER
    zoo fit --resume runs/fashion_mnist/flagship/TIME

`zoo list` names the recipes; own/pictures, own/boxes and own/text are for data of your own. Everything in a recipe is
an option too: with a recipe, --help shows those that people use, --help all the others, and --model.help and
--data.help describe those of its model and its data. A recipe can name any Python class and so run any code: use those
that you trust. Recipes outside of this package name classes of other packages than the zoo and those that it is built
on only with --trust PACKAGE.
"""

import argparse

from zoo.command import recipes

TAKES_OPTIONS = RECIPE_HELP = True


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("recipe", type=str, metavar="RECIPE", help="name, or path of a YAML file; with --resume a run")
    parser.add_argument(
        "--resume", action="store_true", help="RECIPE is the folder of a run: go on from its newest checkpoint, in it"
    )


def run(args: argparse.Namespace, rest: list[str]) -> int:
    is_run = recipes.run_of(args.recipe) is not None
    if is_run and not args.resume:
        raise ValueError(
            f"{args.recipe} is the folder of a run: expected a recipe; go on in it by `zoo fit --resume {args.recipe}`"
            f", or train anew by `zoo fit {args.recipe}/config.yaml`"
        )
    if args.resume and not is_run:
        raise ValueError(
            f"{args.recipe} is no run: expected a folder with config.yaml and checkpoints, such as runs/RECIPE/TIME"
        )
    from zoo.command.training import run_trainer

    return run_trainer("fit", args.recipe, rest)
