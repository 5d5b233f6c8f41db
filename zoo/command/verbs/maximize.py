"""Draw the images that the classes or channels of a trained classifier answer to most.

    zoo maximize fashion_mnist/flagship --units sneaker coat
    zoo maximize fashion_mnist/flagship --layer stages.1 --n 16

Starts from gray noise and climbs the gradient of the activation (activation maximization). Without --layer the units
are the classes.
"""

import argparse
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "source",
        type=str,
        metavar="RUN_OR_RECIPE",
        help="run folder or checkpoint; or recipe: its newest run, or ready model",
    )
    parser.add_argument("--layer", type=str, help="name of a module of the network; default its output, the classes")
    parser.add_argument("--units", type=str, nargs="+", help="names or numbers of classes, or numbers of channels")
    parser.add_argument("--n", type=int, default=10, help="without --units: draw the first so many")
    parser.add_argument("--steps", type=int, default=200, help="of gradient ascent")
    parser.add_argument(
        "--variation", type=float, help="weight of smoothness; 0 for none; default 10 for classes, 1 for channels"
    )
    parser.add_argument("--seed", type=int, default=0, help="of the noise that the ascent starts from")
    parser.add_argument("--out", type=Path, help="file of the figure; default pictures/maximized.png in the run folder")
    parser.add_argument("--json", action="store_true", help="print one JSON object and nothing else")
