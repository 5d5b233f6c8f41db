"""Classify image files, or find objects in them and draw their boxes; prints a JSON line for each.

zoo predict fashion_mnist/flagship PICTURE.jpg
zoo predict runs/detection/yolo-bccd/TIME/checkpoints/last.ckpt *.png --out found
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
from datamodules.io import read_image
from zoo.command.checkpoints import checkpoint_of, load_module

MIN_SCORE = 0.4  # score from which a detection is worth telling
MAX_PIXELS = 2000  # pixels of the longer side of a picture that boxes are drawn on; larger ones are made smaller


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("source", metavar="RECIPE_OR_CKPT", help="checkpoint, or recipe whose newest run counts")
    parser.add_argument("files", metavar="IMAGE", nargs="+")
    parser.add_argument("--out", default="predictions", help="folder of the images that a detector draws on")


def run(args: argparse.Namespace, rest: list[str]) -> int:
    for line in list(predict(args.source, args.files, args.out)):
        print(json.dumps(line))
    return 0


def predict(source: str, files: list[str], out: str = "predictions") -> Iterator[dict[str, Any]]:
    """Classifies image files, or finds objects in them and draws their boxes.

    Each is made grey if the training images were, scaled to their size and normalised like them.

    Args:
        source: checkpoint file or recipe; of a recipe the newest run counts.
        files: pictures.
        out: folder of the pictures with boxes that a detector draws; made if it is missing.

    Yields:
        For each file its name; of a classifier the class, the confidence (0..1) and the three likeliest classes; of a
        detector the boxes, surest first, each with xyxy in pixels of the file, class and score (0..1), and the picture.

    Raises:
        ValueError, FileNotFoundError: if checkpoint or picture cannot be read; before any result.
    """
    path = checkpoint_of(source)
    model, data = load_module(path)
    if "image_shape" not in data or not (hasattr(model, "detect") or hasattr(model, "num_classes")):
        raise ValueError(
            f"{path} holds a {type(model).__name__}, which neither classifies nor detects: expected a checkpoint of a "
            "system that does; see `zoo list`"
        )
    channels, height, width = data["image_shape"]
    images = [read_image(file, "L" if channels == 1 else "RGB") for file in files]
    mean, std = (torch.tensor(data[name])[:, None, None] for name in ("mean", "std"))
    taken, detects = {Path(file).resolve() for file in files}, hasattr(model, "detect")
    for file, image in zip(files, images, strict=True):
        pixels = np.array(image.resize((width, height), Image.Resampling.BILINEAR)).reshape(height, width, channels)
        pixels = ((torch.from_numpy(pixels).permute(2, 0, 1) / 255 - mean) / std)[None]
        with torch.inference_mode():
            found = model.detect(pixels, min_score=MIN_SCORE)[0] if detects else model(pixels)[0]
        if not detects:
            yield {"file": file, **likeliest(found, data["classes"])}
            continue
        found["boxes"] = found["boxes"] * torch.tensor([image.width / width, image.height / height] * 2)
        picture = next(path for path in _names(Path(out), Path(file).stem) if path.resolve() not in taken)
        taken.add(picture.resolve())
        draw(image, found, data["classes"], picture)
        boxes = [
            {"class": data["classes"][label], "score": round(score, 4), "xyxy": [round(edge, 1) for edge in box]}
            for box, score, label in zip(*(found[name].tolist() for name in ("boxes", "scores", "labels")), strict=True)
        ]
        yield {"file": file, "picture": str(picture), "boxes": boxes}


def likeliest(logits: Tensor, classes: list[str]) -> dict[str, Any]:
    """Logits (K,) -> the likeliest class with its confidence, and the three likeliest."""
    probability = logits.float().softmax(0)
    top = probability.topk(min(3, len(probability)))
    top3 = [
        {"class": classes[label], "confidence": round(p, 4)}
        for p, label in zip(top.values.tolist(), top.indices.tolist(), strict=True)
    ]
    return {**top3[0], "top3": top3}


def draw(image: Image.Image, found: dict[str, Tensor], classes: list[str], path: Path) -> None:
    """Writes a picture with boxes, given in its pixels, as PNG; at once or not at all."""
    shrink = min(1.0, MAX_PIXELS / max(image.size))
    width, height = (max(1, round(side * shrink)) for side in image.size)
    figure = Figure(((width + 0.5) / DPI, (height + 0.5) / DPI), dpi=DPI)  # or rounding might take a pixel away
    axes = figure.add_axes((0, 0, 1, 1))
    draw_image(axes, np.asarray(image.convert("RGB").resize((width, height))))
    texts = [f"{classes[i]} {score:.2f}" for i, score in zip(found["labels"], found["scores"].tolist(), strict=True)]
    dashed = torch.zeros(len(texts), dtype=torch.bool)
    draw_boxes(axes, found["boxes"] * shrink, found["labels"], texts, dashed, width=max(1.2, max(width, height) / 500))
    save_figure(figure, path)


def _names(folder: Path, stem: str) -> Iterator[Path]:
    """Images of one name get numbers, and none is written over one that was given."""
    yield folder / f"{stem}.png"
    yield from (folder / f"{stem}-{number}.png" for number in count(2))
