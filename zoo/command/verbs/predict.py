"""Classify images, or find objects in them and draw their boxes; print a line of JSON for each.

    zoo predict digits/small photos/ --out sheet.png
    zoo predict runs/detection/yolo-bccd/TIME "photos/**/*.png" --min_score 0.3 --csv found.csv
    find . -name "*.jpg" | zoo predict fashion_mnist/flagship -

The first argument is a recipe (its newest run, else the model that comes with the package), RECIPE@ready (that model in
any case), the folder of a run, a checkpoint, or a file of `zoo publish`. A classifier gives the class, the confidence
and the three most likely classes; a detector gives the boxes, in pixels of the file. Results come as they are found;
memory does not depend on how many images there are. An image that was named must be readable; of those in a folder or
list, one that is not gets a line with its error, and the exit status is 2 in the end.
"""

import argparse
from pathlib import Path

MIN_SCORE = 0.4  # of the detections that are reported


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("source", type=str, metavar="MODEL", help="recipe, RECIPE@ready, folder of a run, or file")
    parser.add_argument(
        "files", type=str, metavar="IMAGE", nargs="+", help="files, folders or patterns; - for a list on standard input"
    )
    parser.add_argument(
        "--out", type=Path, default=Path("predictions"),
        help="FILE.png for a contact sheet; else the folder of the images that a detector draws boxes on",
    )  # fmt: skip
    parser.add_argument("--csv", type=Path, help="file of the results, a row for each image or box")
    parser.add_argument("--min_score", type=float, default=MIN_SCORE, help="a detector reports boxes above it")
    parser.add_argument(
        "--invert", action="store_true", help="swap black and white, for dark on bright where training had the reverse"
    )
