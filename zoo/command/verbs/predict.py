"""Classify image files, or find objects in them and draw their boxes; print a line of JSON for each.

    zoo predict fashion_mnist/flagship IMAGE.jpg
    zoo predict runs/detection/yolo-bccd/TIME/checkpoints/last.ckpt *.png --out found

A classifier gives the class, the confidence and the three most likely classes; a detector gives the boxes, in pixels
of the file.
"""

import argparse
import json
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure
from PIL import Image
from torch import Tensor

from callbacks.figures.boxes import draw_boxes
from callbacks.figures.grids import draw_image
from callbacks.figures.style import DPI, save_figure
from datamodules.io import image_size, read_image
from zoo.command.checkpoints import checkpoint_of, load_module

MIN_SCORE = 0.4  # of the detections that are reported
BATCH = 8  # images at a time: memory does not depend on how many there are
MAX_SIDE = 2000  # pixels of the longer side of an image that boxes are drawn on; larger ones are made smaller


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("source", type=str, metavar="RECIPE_OR_CKPT", help="checkpoint, or recipe: its newest run")
    parser.add_argument("files", type=str, metavar="IMAGE", nargs="+", help="image files")
    parser.add_argument(
        "--out", type=Path, default=Path("predictions"), help="folder of the images that a detector draws on"
    )


def run(args: argparse.Namespace, rest: list[str]) -> int:
    for line in predict(args.source, args.files, out=args.out):
        print(json.dumps(line), flush=True)
    return 0


def predict(source: str, files: list[str], out: str | Path = "predictions") -> Iterator[dict[str, Any]]:
    """Classifies image files, or finds objects in them and draws their boxes, a few files at a time.

    Each image is converted to grayscale if the training images were, resized to their size and normalized like them.

    Args:
        source: checkpoint file or recipe; of a recipe the newest run counts.
        files: image files.
        out: folder of the images that a detector draws boxes on; created if it does not exist.

    Yields:
        For each file its name; of a classifier the class, the confidence (0..1) and the three most likely classes; of
        a detector the boxes, by descending score, each with xyxy in pixels of the file, class and score (0..1), and
        the file with the boxes drawn.

    Raises:
        ValueError, FileNotFoundError: if the checkpoint cannot be read, or a file does not exist or is no image, before
            any result; if an image turns out to be truncated, when it is its turn.
    """
    path = checkpoint_of(source)
    model, data = load_module(path)
    detects = hasattr(model, "detect")
    if "image_shape" not in data or not (detects or hasattr(model, "num_classes")):
        raise ValueError(
            f"{path} holds a {type(model).__name__}, which neither classifies nor detects: expected a checkpoint of a "
            "system that does; see `zoo list`"
        )
    sizes = {file: image_size(file) for file in files}  # of all, so that a misspelt name is found before any work
    taken = {Path(file).resolve() for file in files}
    for start in range(0, len(files), BATCH):
        chunk = files[start : start + BATCH]
        images = [read(file, data["image_shape"], detects) for file in chunk]
        batch = torch.stack([as_input(image, data) for image in images])
        with torch.inference_mode():
            found = model.detect(batch, min_score=MIN_SCORE) if detects else model(batch)
        for file, image, one in zip(chunk, images, found, strict=True):
            if not detects:
                yield {"file": file, **most_likely(one, data["classes"])}
                continue
            drawn = next(path for path in _free_names(Path(out), Path(file).stem) if path.resolve() not in taken)
            taken.add(drawn.resolve())
            scale = torch.tensor([*image.size, *image.size]) / torch.tensor([*data["image_shape"][:0:-1]] * 2)
            draw(image, one | {"boxes": one["boxes"] * scale}, data["classes"], drawn)
            scale = torch.tensor([*sizes[file], *sizes[file]]) / torch.tensor([*data["image_shape"][:0:-1]] * 2)
            rows = (tensor.tolist() for tensor in (one["boxes"] * scale, one["scores"], one["labels"]))
            boxes = [
                {"class": data["classes"][label], "score": round(score, 4), "xyxy": [round(edge, 1) for edge in box]}
                for box, score, label in zip(*rows, strict=True)
            ]
            yield {"file": file, "picture": str(drawn), "boxes": boxes}


def read(file: str, image_shape: tuple[int, int, int], detects: bool) -> Image.Image:
    """An image for a model that takes (C, H, W): of a detector in the size to be drawn on, else just large enough."""
    channels, height, width = image_shape
    enough = (MAX_SIDE, MAX_SIDE) if detects else (2 * width, 2 * height)
    image = read_image(file, "L" if channels == 1 else "RGB", at_least=enough)
    if max(image.size) > MAX_SIDE:
        image.thumbnail((MAX_SIDE, MAX_SIDE), Image.Resampling.BOX)
    return image


def as_input(image: Image.Image, data: dict[str, Any]) -> Tensor:
    """An image, resized to that of training and normalized like it: (C, H, W)."""
    channels, height, width = data["image_shape"]
    mean, std = (torch.tensor(data[name])[:, None, None] for name in ("mean", "std"))
    resized = np.array(image.resize((width, height), Image.Resampling.BILINEAR)).reshape(height, width, channels)
    return (torch.from_numpy(resized).permute(2, 0, 1) / 255 - mean) / std


def most_likely(logits: Tensor, classes: list[str]) -> dict[str, Any]:
    """Logits (K,) -> the most likely class with its confidence, and the three most likely ones."""
    probability = logits.float().softmax(0)
    top = probability.topk(min(3, len(probability)))
    top3 = [
        {"class": classes[label], "confidence": round(p, 4)}
        for p, label in zip(top.values.tolist(), top.indices.tolist(), strict=True)
    ]
    return {**top3[0], "top3": top3}


def draw(image: Image.Image, found: dict[str, Tensor], classes: list[str], path: Path) -> None:
    """Writes an image with boxes, given in its pixels, as a PNG file."""
    width, height = image.size
    figure = Figure(((width + 0.5) / DPI, (height + 0.5) / DPI), dpi=DPI)  # half a pixel more, against rounding down
    axes = figure.add_axes((0, 0, 1, 1))
    draw_image(axes, np.asarray(image.convert("RGB")))
    texts = [f"{classes[i]} {score:.2f}" for i, score in zip(found["labels"], found["scores"].tolist(), strict=True)]
    dashed = torch.zeros(len(texts), dtype=torch.bool)
    draw_boxes(axes, found["boxes"], found["labels"], texts, dashed, width=max(1.2, max(width, height) / 500))
    save_figure(figure, path)


def _free_names(folder: Path, stem: str) -> Iterator[Path]:
    """The name of the file with boxes, then numbered ones, for further files of the same name."""
    yield folder / f"{stem}.png"
    yield from (folder / f"{stem}-{number}.png" for number in count(2))
