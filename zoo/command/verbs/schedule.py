"""Draw learning rate and momentum over a recipe's training, without training.

    zoo schedule fashion_mnist/flagship --trainer.max_epochs 30

Options of the recipe may follow.
"""

import argparse
from pathlib import Path

TAKES_OPTIONS = True


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("recipe", type=str, metavar="RECIPE", help="name, or path of a YAML file")
    parser.add_argument("--out", type=Path, default=Path("."), help="folder of the figure")
