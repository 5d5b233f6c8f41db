"""Show which part of the image a unit of each layer sees, for a recipe or any class of module.

    zoo receptive-field torchvision.models.resnet50 --input 3x224x224 --layer layer3.5.relu

Prints a table and draws the field of the layer's central unit over an image; with --json prints JSON instead of the
table. Numbers are height and width, as one number where they are equal. Options after a recipe are those of the recipe,
and after a class they are arguments of the class.
"""

import argparse
from pathlib import Path

TAKES_OPTIONS = True


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("net", type=str, metavar="CLASS_OR_RECIPE", help="dotted path of a class, or a recipe")
    parser.add_argument("--input", type=str, help="CHANNELSxHEIGHTxWIDTH; default that of the recipe's data")
    parser.add_argument("--layer", type=str, help="whose field to draw; default the last one with several units")
    parser.add_argument("--image", type=str, help="file to draw on; default one of the recipe's test images, or shapes")
    parser.add_argument(
        "--leaf", type=str, nargs="+", default=[], metavar="CLASS",
        help="dotted paths of modules that torch.fx cannot trace; they are taken to see everything",
    )  # fmt: skip
    parser.add_argument(
        "--pointwise", type=str, nargs="+", default=[], metavar="CLASS",
        help="dotted paths of modules that are taken not to change the field, such as torch.nn.GroupNorm",
    )  # fmt: skip
    parser.add_argument("--all", action="store_true", help="also list layers that leave the field as it is")
    parser.add_argument("--json", action="store_true", help="print a JSON list of all layers")
    parser.add_argument("--out", type=Path, default=Path("receptive-field.png"), help="file of the figure")
