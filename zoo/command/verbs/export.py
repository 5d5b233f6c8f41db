"""Export a trained model as a program that runs without the zoo, in ONNX or of torch.export.

    zoo export digits/small --format onnx
    zoo export runs/detection/yolo-bccd/TIME --format torch --out cells.pt2

The size of the batch is free, and so are those of images and texts where the net allows it. The file says in its
metadata how inputs are prepared; a detector decodes its boxes, and non-maximum suppression is left to the user. The
program is read again and its outputs are compared with the model's. Prints the file and some lines of Python that use
it. ONNX needs the packages onnx and onnxscript, and onnxruntime for the comparison.
"""

import argparse
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("source", type=str, metavar="MODEL", help="recipe, RECIPE@ready, folder of a run, or file")
    parser.add_argument("--format", type=str, choices=("onnx", "torch"), default="onnx", help="of the program")
    parser.add_argument("--out", type=Path, help="file; default the name of the recipe, here")
