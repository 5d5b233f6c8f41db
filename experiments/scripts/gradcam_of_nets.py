"""Draw where several trained classifiers find the evidence for what they see, in the same test images.

    python experiments/scripts/gradcam_of_nets.py RUN RUN RUN --n 6 --out gradcam.png

Each row of the figure is a run, or a recipe, which stands for its newest run; all must be trained on the same data. The
first row has the images with their classes, and below each relevance map (Grad-CAM) is the class that the net predicts.
"""

import argparse
from pathlib import Path
from typing import Any

import torch
from matplotlib.figure import Figure

from callbacks.figures.grids import draw_image
from callbacks.figures.style import BLUE, GRAY, VERMILION, add_axes, heading, save_figure, shorten
from callbacks.galleries.gradcam import overlay
from callbacks.galleries.relevance import relevance, usable_layer
from zoo.command.actions.attack import find_run, normalized_batches, rgb
from zoo.command.actions.schedule import NO_TRAINING_OPTIONS
from zoo.command.checkpoints import load_module
from zoo.command.lightning_cli import ZooCLI

SIDE, GAP, LEFT, HEAD, LINE = 1.25, 0.08, 1.75, 0.7, 0.24  # inches


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+", metavar="RUN_OR_RECIPE")
    parser.add_argument("--n", type=int, default=6, help="images, the first of the test set")
    parser.add_argument("--method", default="GradCAM", help="class of the package grad-cam")
    parser.add_argument("--out", type=Path, default=Path("gradcam.png"))
    args = parser.parse_args()
    found = [find_run(run) for run in args.runs]
    modules = [load_module(checkpoint) for checkpoint, _ in found]
    first = modules[0][1]
    for run, (_, metadata) in zip(args.runs, modules, strict=True):
        if (metadata["classes"], metadata["image_shape"]) != (first["classes"], first["image_shape"]):
            raise SystemExit(f"{run} is trained on other data than {args.runs[0]}: expected the same classes and sizes")
    checkpoint, config = found[0]
    data: Any = ZooCLI(str(config), NO_TRAINING_OPTIONS, folder=checkpoint.parent).datamodule
    images, labels = next(normalized_batches(data, args.n, torch.device("cpu")))
    pictures = [rgb(data.denormalize(image)) for image in images]
    names, rows = [str(name) for name in first["classes"]], []
    for module, _ in modules:
        with torch.no_grad():
            predicted = module(images).argmax(1).tolist()
        layer = usable_layer(module, images[:1], args.method)
        maps, where, size = relevance(module, images, predicted, args.method, layer)
        name = f"{type(module).__name__}\n{where}\n{size[0]}x{size[1]}"
        shown = [overlay(picture, heat) for picture, heat in zip(pictures, maps, strict=True)]
        rows.append((name, shown, [names[label] for label in predicted]))
    save_figure(draw(pictures, [names[label] for label in labels], rows, args.method), args.out)
    print(args.out)


def draw(pictures: list, truths: list[str], rows: list[tuple[str, list, list[str]]], method: str) -> Figure:
    """The images in a row with their classes, and below them a row of relevance maps for each net."""
    block = SIDE + LINE + GAP
    width = LEFT + len(pictures) * (SIDE + GAP)
    height = HEAD + (len(rows) + 1) * block
    figure = Figure((width, height), facecolor="white")
    heading(figure, "Where different nets find their evidence", f"{method}; below each map the prediction")
    named = [("test image", pictures, truths), *rows]
    for row, (name, shown, classes) in enumerate(named):
        bottom = height - HEAD - row * block - SIDE
        figure.text((LEFT - 0.15) / width, (bottom + SIDE / 2) / height, name, size=10, ha="right", va="center")
        for column, (picture, label) in enumerate(zip(shown, classes, strict=True)):
            x = LEFT + column * (SIDE + GAP)
            draw_image(add_axes(figure, x, bottom, SIDE, SIDE), picture)
            color = GRAY if row == 0 else BLUE if label == truths[column] else VERMILION
            mark = "" if row == 0 else "✓ " if label == truths[column] else "→ "
            figure.text(
                x / width, (bottom - 0.06) / height, mark + shorten(label, 16), size=9, color=color, va="top"
            )  # fmt: skip
    return figure


if __name__ == "__main__":
    main()
