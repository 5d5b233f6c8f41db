"""Animate a trained cellular automaton; without a name, list those that come with the package.

    zoo grow starry_night --size 200 300

Writes NAME.gif, and some frames next to each other as NAME.png. Instead of a name: the folder of a run, a recipe (its
newest run), a checkpoint, or a file of `zoo publish`.
"""

import argparse
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "name", type=str, metavar="NAME", nargs="?", help="automaton, run, recipe or file; without it, list names"
    )
    parser.add_argument("--size", type=int, nargs="+", default=[128], help="pixels, one number or height and width")
    parser.add_argument("--steps", type=int, default=300, help="of the automaton")
    parser.add_argument("--seed", type=int, default=0, help="of the random masks")
    parser.add_argument("--out", type=Path, default=Path("."), help="folder of the animation")
