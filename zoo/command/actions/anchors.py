"""What `zoo anchors` does, see `zoo.command.verbs.anchors`."""

# N boxes, K anchors; sizes are (width, height) in fractions of the image.

import argparse
import json
import re
from collections import Counter
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.patches import Rectangle
from matplotlib.ticker import MultipleLocator, PercentFormatter
from sklearn.cluster import KMeans

from callbacks.figures.style import BLACK, BLUE, COLORS, GRAY, VERMILION, heading, plain_axes, save_figure, shorten
from datamodules.boxes.annotations import Annotation
from datamodules.boxes.read import read_annotations
from datamodules.io import atomic_write, find_file
from datamodules.messages import report as remark
from zoo.analysis.anchors import different_sizes, fit_anchors, mean_iou

MAX_BOXES = 5_000  # that are clustered and drawn; larger sets are subsampled at random
MAX_CLASSES = 20  # that have a bar of their own
ROW, LABEL = 1.8, 0.8  # inches: height of a row of anchors, and width of what is said on its left
OTHER = "#BBBBBB"  # of the classes that have no color of their own


def run(args: argparse.Namespace, rest: list[str]) -> int:
    print(*report(args.annotations, ks=args.k, out=args.out, attribute=args.attribute, images=args.images), sep="\n")
    return 0


class Clusters(NamedTuple):
    """The boxes of a data set and the anchors found for them.

    sizes: (N, 2).
    names: the class of each box.
    num_images: how many images there are.
    shape: mean (width, height) of the images in pixels.
    anchors: K -> (K, 2).
    scores: K -> mean IoU, for further K too.
    euclidean: the same for k-means with the Euclidean distance.
    """

    sizes: np.ndarray
    names: list[str]
    num_images: int
    shape: np.ndarray
    anchors: dict[int, np.ndarray]
    scores: dict[int, float]
    euclidean: dict[int, float]


def cluster(annotations: list[Annotation], ks: list[int], seed: int = 0) -> Clusters:
    """Fits anchors for each of `ks`, and scores those for 1 to the largest of them plus two.

    Where there are fewer different sizes than anchors, the number of anchors is reduced.

    Raises:
        ValueError: if there are no boxes, or a number of anchors is below 1.
    """
    if not any(len(annotation.boxes) for annotation in annotations):
        raise ValueError(f"the annotations have no box to cluster (images: {len(annotations)}): expected at least one")
    shapes = np.array([(annotation.width, annotation.height) for annotation in annotations], float)
    corners = [np.asarray(annotation.boxes) for annotation in annotations]
    sizes = np.concatenate([(box[:, 2:] - box[:, :2]) / shape for box, shape in zip(corners, shapes, strict=True)])
    used = sizes
    if len(sizes) > MAX_BOXES:
        used = sizes[np.random.default_rng(seed).choice(len(sizes), MAX_BOXES, replace=False)]
    different = different_sizes(used)
    if too_many := [k for k in ks if k > different]:
        remark(f"k is {too_many}, and the boxes have {different} different sizes: {different} anchors instead")
    ks = sorted({min(k, different) for k in ks})
    most = min(max(ks) + 2, different)
    starts = 20 if used is sizes else 10  # a large set has fewer poor local optima, and takes longer
    anchors = {k: fit_anchors(used, k, starts=starts, seed=seed) for k in sorted({*ks, *range(1, most + 1)})}
    centers = {k: KMeans(k, n_init=10, random_state=seed).fit(used).cluster_centers_ for k in anchors}
    return Clusters(
        sizes=sizes,
        names=[name for annotation in annotations for name in annotation.names],
        num_images=len(annotations),
        shape=shapes.mean(0),
        anchors={k: anchors[k] for k in sorted(set(ks))},
        scores={k: mean_iou(sizes, found) for k, found in anchors.items()},
        euclidean={k: mean_iou(sizes, found) for k, found in centers.items()},
    )


def report(
    source: str, ks: list[int], out: str | Path, attribute: str | None = None, images: str | None = None
) -> list[str]:
    """Writes `anchors.json` and `anchors.png`.

    Images that the data set sets aside for testing are left out, if there are others.

    Args:
        source: any file or folder that `datamodules.boxes.read.read_annotations` can read.
        ks: numbers of anchors.
        out: folder of the files; created if it does not exist.
        attribute: as in `read_annotations`.
        images: folder of the images, found as `source` is; by default as in `read_annotations`.

    Returns:
        Lines to print.

    Raises:
        FileNotFoundError, ValueError: if there is nothing to read or to cluster; before anything is written.
    """
    path, folder = find_file(source, "a file or folder of annotations"), Path(out)
    of_images = find_file(images, "a folder of images") if images else None
    annotations = read_annotations(path, attribute, of_images)
    annotations = [annotation for annotation in annotations if annotation.split != "test"] or annotations
    found = cluster(annotations, ks)
    save_figure(draw(found, path.name), folder / "anchors.png")
    content = {
        "anchors": {str(k): anchors.round(4).tolist() for k, anchors in found.anchors.items()},
        "unit": "fraction of the image",
        "mean_iou": {str(k): round(found.scores[k], 4) for k in found.anchors},
        "boxes": len(found.sizes),
        "images": found.num_images,
    }
    text = re.sub(r"\[\s+([\d.]+),\s+([\d.]+)\s+\]", r"[\1, \2]", json.dumps(content, indent=1))  # one line an anchor
    with atomic_write(folder / "anchors.json") as file:
        file.write_text(text + "\n")
    lines = [f"boxes: {len(found.sizes)}, images: {found.num_images}; width x height in fractions of the image"]
    for k, anchors in found.anchors.items():
        sizes = "  ".join(f"{w:.3f} x {h:.3f}" for w, h in anchors)
        lines.append(f"k = {k}  mean IoU {found.scores[k]:.1%} (Euclidean {found.euclidean[k]:.1%})  {sizes}")
    return [*lines, str(folder / "anchors.json"), str(folder / "anchors.png")]


def draw(found: Clusters, name: str) -> Figure:
    """Classes, sizes and mean IoU against the number of anchors; below them, in a row for each number, the anchors."""
    width, rows_height = 14.0, ROW * len(found.anchors)
    height = 5 + rows_height
    figure = Figure(
        (width, height),
        layout=ConstrainedLayoutEngine(w_pad=0.15, h_pad=0.15, rect=(0, 0, 1, 1 - 0.4 / height)),
    )
    heading(figure, f"{name}: boxes {len(found.sizes)}, images {found.num_images}")
    grid = figure.add_gridspec(2, 3, height_ratios=(4, rows_height))
    counts = Counter(found.names).most_common()
    colors = {name: color for (name, _), color in zip(counts, COLORS, strict=False)}
    _draw_classes(figure.add_subplot(grid[0, 0]), counts, colors)
    _draw_sizes(figure.add_subplot(grid[0, 1]), found, colors)
    _draw_scores(figure.add_subplot(grid[0, 2]), found)
    _draw_anchors(figure.add_subplot(grid[1, :]), found, (width - 0.6, rows_height))
    return figure


def _draw_classes(axes: Axes, counts: list[tuple[str, int]], colors: dict[str, str]) -> None:
    """Bars of the most frequent classes."""
    plain_axes(axes, f"Classes: {len(counts)}", grid=False)
    shown, others = counts[:MAX_CLASSES], counts[MAX_CLASSES:]
    if others:
        shown = [*shown, (f"{len(others)} more", sum(count for _, count in others))]
    labels, values = zip(*reversed(shown), strict=True)
    axes.barh(range(len(shown)), values, color=[colors.get(label, OTHER) for label in labels])
    axes.set_yticks(range(len(shown)), [shorten(label) for label in labels])
    for y, value in enumerate(values):
        axes.annotate(f" {value}", (value, y), va="center", size=9, color=GRAY)
    axes.set_xlim(0, 1.14 * max(values))
    axes.set_xlabel("boxes")


def _draw_sizes(axes: Axes, found: Clusters, colors: dict[str, str]) -> None:
    plain_axes(axes, "Sizes, in the colors of the classes", grid=False)
    shown = np.random.default_rng(0).permutation(len(found.sizes))[:MAX_BOXES]  # so that no class hides the others
    width, height = found.sizes[shown].T
    axes.scatter(
        width, height, s=7, c=[colors.get(found.names[i], OTHER) for i in shown], alpha=0.6, linewidths=0,
        rasterized=True,
    )  # fmt: skip
    k, anchors = max(found.anchors.items())
    options: dict[str, Any] = {"s": 150, "marker": "P", "color": BLACK, "edgecolors": "white", "linewidths": 1.5}
    axes.scatter(anchors[:, 0], anchors[:, 1], label=f"anchor, k = {k}", **options)
    limit = min(1.02, 1.1 * found.sizes.max())
    axes.set(xlim=(0, limit), ylim=(0, limit), aspect="equal")
    axes.set(xlabel="width / width of the image", ylabel="height / height of the image")
    axes.legend(loc="lower right", frameon=True, framealpha=0.9, fontsize=9)


def _draw_scores(axes: Axes, found: Clusters) -> None:
    plain_axes(axes, "Gain of another anchor")
    ks = list(found.scores)
    axes.plot(ks, list(found.scores.values()), "o-", color=BLUE, label="k-means with IoU")
    axes.plot(ks, list(found.euclidean.values()), "s:", color=VERMILION, markersize=4, label="Euclidean k-means")
    for k in found.anchors:
        label, place = f"{found.scores[k]:.1%}", (k, found.scores[k])
        axes.annotate(label, place, (0, 8), textcoords="offset points", ha="center", size=9, color=BLUE)
    axes.set_xticks(ks)
    axes.margins(y=0.15)
    axes.yaxis.set_major_locator(MultipleLocator(0.05))
    axes.yaxis.set_major_formatter(PercentFormatter(1, 0))
    axes.set(xlabel="number of anchors k", ylabel="mean IoU with the best anchor")
    axes.legend(loc="lower right", frameon=False, fontsize=9)


def _draw_anchors(axes: Axes, found: Clusters, size: tuple[float, float]) -> None:
    """The anchors side by side, all to one scale and from small to large, in a row for each number of them.

    Args:
        axes: of about `size`.
        found: the anchors, of images of the mean shape.
        size: width and height in inches, the units in which is drawn.
    """
    place = (size[0] - LABEL) / max(found.anchors)
    widest, highest = np.concatenate([*found.anchors.values()]).max(0) * found.shape
    scale = min(0.8 * place / widest, (ROW - 0.45) / highest)
    for row, (k, anchors) in enumerate(found.anchors.items()):
        base = size[1] - ROW * (row + 1) + 0.3
        axes.text(0, base, f"k = {k}\n{found.scores[k]:.1%}", size=11, va="bottom", linespacing=1.4)
        shades = colormaps["plasma"](np.linspace(0, 0.75, k))
        for number, (shade, anchor) in enumerate(zip(shades, anchors, strict=True)):
            width, height = anchor * found.shape * scale
            middle = LABEL + place * (number + 0.5)
            corner = (middle - width / 2, base)
            axes.add_patch(Rectangle(corner, width, height, facecolor=shade, alpha=0.2, linewidth=0))
            axes.add_patch(Rectangle(corner, width, height, fill=False, edgecolor=shade, linewidth=1.5))
            if place > 0.6:  # else there is no room for it
                text = " x ".join(f"{100 * side:.0f}" for side in anchor)
                axes.text(middle, base - 0.06, text, size=9, color=GRAY, ha="center", va="top")
    axes.set(xlim=(0, size[0]), ylim=(0, size[1]), aspect="equal", anchor="NW")
    axes.set_axis_off()
    axes.set_title("Anchors, all to one scale: width x height in % of the image; mean IoU", size=11, loc="left")
