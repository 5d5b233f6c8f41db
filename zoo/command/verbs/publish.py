"""Write a trained model as one small file, which everything that takes a run takes too, and test it.

    zoo publish runs/digits/small/TIME --half
    zoo publish runs/own/pictures/TIME --out mine.safetensors

The file holds weights and what it takes to use them: classes, preprocessing, the arguments of the module, and what it
reaches on the recipe's data. Without --out it becomes a ready model of this package, which `zoo.load` and the command
find by name. --half halves the size, and is refused where it changes the result.
"""

import argparse
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("source", type=str, metavar="RUN", help="folder of a run or a checkpoint in it; or recipe")
    parser.add_argument("--half", action="store_true", help="keep weights in half precision")
    parser.add_argument("--name", type=str, help="of the ready model, FOLDER/NAME; default that of the recipe")
    parser.add_argument("--out", type=Path, help="file, NAME.safetensors, instead of a ready model of the package")
    parser.add_argument("--recipe", type=str, help="that the run was trained by, if its folder does not say it")
    parser.add_argument("--license", type=str, default="", help="of the data; default what the datamodule says")
    parser.add_argument("--description", type=str, default="", help="a few words, such as what an image shows")
