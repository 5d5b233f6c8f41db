"""Find anchor boxes for a detection data set by IoU k-means, with plots.

    zoo anchors VOCdevkit/VOC2007 --k 3 4 5

The file or folder is in Pascal VOC, COCO, VGG Image Annotator or CSV format. N boxes; sizes are (width, height) in
fractions of the image.
"""

import argparse
import json
import re
from collections import Counter
from pathlib import Path
from typing import NamedTuple

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import MultipleLocator, PercentFormatter
from sklearn.cluster import KMeans

from callbacks.figures.style import (
    BLACK,
    BLUE,
    GREEN,
    GREY,
    ORANGE,
    PURPLE,
    SKY,
    VERMILION,
    YELLOW,
    save_figure,
    shorten,
)
from datamodules.boxes.annotations import Annotation
from datamodules.boxes.read import read_annotations
from datamodules.io import atomic_write, find_file
from zoo.analysis.anchors import fit_anchors, mean_iou

COLORS = (ORANGE, SKY, GREEN, PURPLE, BLUE, VERMILION, YELLOW)  # of the commonest classes; the others are grey
MAX_CLUSTERED_BOXES = 20_000  # that are clustered; of more, so many are drawn by lot


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("source", metavar="FILE_OR_FOLDER", help="VOC folder, COCO, VGG Image Annotator or CSV file")
    parser.add_argument("--k", type=int, nargs="+", default=[3, 4, 5, 6], help="how many anchors")
    parser.add_argument("--out", default="anchors", help="folder of the plots and of anchors.json")


def run(args: argparse.Namespace, rest: list[str]) -> int:
    print(*report(args.source, args.k, args.out), sep="\n")
    return 0


class Clusters(NamedTuple):
    """What `zoo anchors` found out about a data set.

    sizes: (N, 2). names: for each box its class. images: how many there are. shape: mean (width, height) in pixels.
    anchors: K -> (K, 2). scores: K -> mean IoU, for more K. euclidean: the same for Euclidean k-means.
    """

    sizes: np.ndarray
    names: list[str]
    images: int
    shape: tuple[float, float]
    anchors: dict[int, np.ndarray]
    scores: dict[int, float]
    euclidean: dict[int, float]


def cluster(notes: list[Annotation], ks: list[int], seed: int = 0) -> Clusters:
    """Fits anchors for each of `ks`, and scores those of 1 to two more than asked for, as far as there are sizes.

    Raises:
        ValueError: if there is no box, or fewer different sizes than anchors.
    """
    if not any(len(note.boxes) for note in notes):
        raise ValueError(f"there is no box in the annotations of {len(notes)} pictures: expected some to cluster")
    spans = [(note.boxes[:, 2:] - note.boxes[:, :2]) / np.asarray((note.width, note.height), float) for note in notes]
    sizes = used = np.concatenate(spans)
    if len(sizes) > MAX_CLUSTERED_BOXES:
        used = sizes[np.random.default_rng(seed).choice(len(sizes), MAX_CLUSTERED_BOXES, replace=False)]
    most = min(max(ks) + 2, len(np.unique(used, axis=0)))
    anchors = {k: fit_anchors(used, k, seed=seed) for k in sorted({*ks, *range(1, most + 1)})}
    centres = {k: KMeans(k, n_init=10, random_state=seed).fit(used).cluster_centers_ for k in anchors}
    return Clusters(
        sizes,
        [name for note in notes for name in note.names],
        len(notes),
        tuple(np.mean([(note.width, note.height) for note in notes], 0)),
        {k: anchors[k] for k in sorted(set(ks))},
        {k: mean_iou(sizes, found) for k, found in anchors.items()},
        {k: mean_iou(sizes, found) for k, found in centres.items()},
    )


def report(source: str, ks: list[int], out: str) -> list[str]:
    """Writes `anchors.json` and `anchors.png` into the folder `out`.

    Pictures that the data set sets aside for testing are not looked at, if there are others.

    Args:
        source: any file or folder that `datamodules.boxes.read.read_annotations` knows; a relative path is looked
            for below `$ZOO_DATA` and then here.
        ks: how many anchors, several.
        out: made if it is not there.

    Returns:
        Lines to print.

    Raises:
        FileNotFoundError, ValueError: if there is nothing to read or to cluster; before anything is written.
    """
    path = find_file(source, "a file or folder of annotations")
    notes = read_annotations(path)
    notes = [note for note in notes if note.split != "test"] or notes
    found = cluster(notes, ks)
    folder = Path(out)
    save_figure(draw(found, path.name), folder / "anchors.png")
    content = {
        "anchors": {str(k): anchors.round(4).tolist() for k, anchors in found.anchors.items()},
        "unit": "fraction of the image",
        "mean_iou": {str(k): round(found.scores[k], 4) for k in found.anchors},
        "boxes": len(found.sizes),
        "images": found.images,
    }
    pairs = re.sub(r"\[\s+([\d.]+),\s+([\d.]+)\s+\]", r"[\1, \2]", json.dumps(content, indent=1))  # each on one line
    with atomic_write(folder / "anchors.json") as file:
        file.write_text(pairs + "\n")
    lines = [f"{len(found.sizes)} boxes in {found.images} pictures; width x height in fractions of the picture"]
    for k, anchors in found.anchors.items():
        sizes = "  ".join(f"{w:.3f} x {h:.3f}" for w, h in anchors)
        lines.append(f"k = {k}  mean IoU {found.scores[k]:.1%} (Euclidean {found.euclidean[k]:.1%})  {sizes}")
    return [*lines, str(folder / "anchors.json"), str(folder / "anchors.png")]


def draw(found: Clusters, name: str) -> Figure:
    """Classes, sizes, mean IoU against the number of anchors, and the anchors to scale."""
    figure = Figure((11, 9), facecolor="white", layout="constrained")
    figure.get_layout_engine().set(w_pad=0.15, h_pad=0.15)
    figure.suptitle(f"{name}: {len(found.sizes)} boxes in {found.images} pictures", size=13, weight="bold")
    grid = figure.add_gridspec(2, 2, height_ratios=(1.2, 1))
    colors = _draw_classes(figure.add_subplot(grid[0, 0]), found.names)
    _draw_sizes(figure.add_subplot(grid[0, 1]), found, colors)
    _draw_scores(figure.add_subplot(grid[1, 0]), found)
    columns = min(len(found.anchors), 2 if len(found.anchors) <= 4 else 3)
    cells = grid[1, 1].subgridspec(-(-len(found.anchors) // columns), columns)
    for cell, (k, anchors) in zip(cells, found.anchors.items(), strict=False):
        _draw_anchors(figure.add_subplot(cell), k, anchors, found.shape)
    return figure


def _plain(axes: Axes, title: str) -> None:
    axes.set_title(title, size=11, loc="left")
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(colors=GREY, labelsize=9)


def _draw_classes(axes: Axes, names: list[str], most: int = 20) -> dict[str, str]:
    """Bars of the commonest classes; returns the colours of those that have one."""
    counts = Counter(names).most_common()
    colors = {name: colour for (name, _), colour in zip(counts, COLORS, strict=False)}
    shown = counts[:most] + [(f"{len(counts) - most} more", sum(n for _, n in counts[most:]))] * (len(counts) > most)
    labels, values = zip(*reversed(shown), strict=True)
    axes.barh(range(len(shown)), values, color=[colors.get(label, "#BBBBBB") for label in labels])
    axes.set_yticks(range(len(shown)), [shorten(label) for label in labels])
    for y, value in enumerate(values):
        axes.annotate(f" {value}", (value, y), va="center", size=9, color=GREY)
    axes.set_xlim(0, 1.14 * max(values))
    axes.set_xlabel("boxes")
    _plain(axes, f"Classes: {len(counts)}")
    return colors


def _draw_sizes(axes: Axes, found: Clusters, colors: dict[str, str]) -> None:
    shown = np.random.default_rng(0).permutation(len(found.sizes))[
        :MAX_CLUSTERED_BOXES
    ]  # mixed, so that no class hides others
    points = [colors.get(found.names[i], "#BBBBBB") for i in shown]
    width, height = found.sizes[shown].T
    axes.scatter(width, height, s=7, c=points, alpha=0.6, linewidths=0, rasterized=True)
    k, anchors = max(found.anchors.items())
    axes.scatter(
        *anchors.T, s=150, marker="P", color=BLACK, edgecolors="white", linewidths=1.5, label=f"anchor, k = {k}"
    )
    limit = min(1.02, 1.1 * found.sizes.max())
    axes.set(xlim=(0, limit), ylim=(0, limit), aspect="equal")
    axes.set_xlabel("width / width of the picture")
    axes.set_ylabel("height / height of the picture")
    axes.legend(loc="lower right", frameon=True, framealpha=0.9, fontsize=9)
    _plain(axes, "Sizes, in the colours of the classes")


def _draw_scores(axes: Axes, found: Clusters) -> None:
    ks = list(found.scores)
    axes.plot(ks, [found.scores[k] for k in ks], "o-", color=BLUE, label="IoU k-means")
    axes.plot(ks, [found.euclidean[k] for k in ks], "s:", color=VERMILION, markersize=4, label="Euclidean k-means")
    for k in found.anchors:
        axes.annotate(f"{found.scores[k]:.1%}", (k, found.scores[k]), (0, 8), textcoords="offset points",
                      ha="center", size=9, color=BLUE)  # fmt: skip
    axes.set_xticks(ks)
    axes.margins(y=0.15)
    axes.yaxis.set_major_locator(MultipleLocator(0.05))
    axes.yaxis.set_major_formatter(PercentFormatter(1, 0))
    axes.set_xlabel("number of anchors k")
    axes.set_ylabel("mean IoU with the best anchor")
    axes.grid(axis="y", color="#DDDDDD")
    axes.legend(loc="lower right", frameon=False, fontsize=9)
    _plain(axes, "What another anchor gains")


def _draw_anchors(axes: Axes, k: int, anchors: np.ndarray, shape: tuple[float, float]) -> None:
    """The anchors in the middle of a grey picture of the data set's mean shape, from dark to light as they grow."""
    (width, height), shades = shape, colormaps["plasma"](np.linspace(0, 0.75, k))
    axes.add_patch(Rectangle((-width / 2, -height / 2), width, height, color="#E6E6E6", linewidth=0))
    for i, (w, h) in enumerate(anchors * shape):
        axes.add_patch(Rectangle((-w / 2, -h / 2), w, h, fill=False, edgecolor=shades[i], linewidth=1.5))
    axes.set(xlim=(-width / 2, width / 2), ylim=(-height / 2, height / 2), aspect="equal")
    axes.set_axis_off()
    axes.set_title(f"k = {k}", size=11, loc="left")
