"""Find the images that a sentence describes, with a trained CLIP.

    zoo find multimodal/clip-shapes "a large red circle" --folder IMAGES

Without a folder of images it searches 200 newly drawn scenes. The best ten images are drawn into a figure, and their
cosines and names are printed. Of a recipe the newest run counts, else the model that comes with the package.
"""

import argparse
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("source", type=str, metavar="MODEL", help="recipe, RECIPE@ready, folder of a run, or file")
    parser.add_argument("sentence", type=str, metavar="SENTENCE", help="what to look for")
    parser.add_argument("--folder", type=Path, help="folder of images, searched with its subfolders")
    parser.add_argument("--out", type=Path, default=Path("found.png"), help="figure of the best images")
