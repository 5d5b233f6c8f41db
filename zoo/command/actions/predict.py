"""What `zoo predict` does, see `zoo.command.verbs.predict`."""

import argparse
import csv
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure

from callbacks.figures.boxes import draw_boxes
from callbacks.figures.grids import draw_image
from callbacks.figures.predictions import Predicted, prediction_sheet
from callbacks.figures.style import DPI, save_figure
from datamodules.io import atomic_write
from datamodules.messages import report
from zoo.command.checkpoints import checkpoint_of, load_module
from zoo.command.sources import image_files, in_threads
from zoo.command.verbs.predict import MIN_SCORE
from zoo.inference.predictor import THREADS, Found, Predictor

MAX_SIDE = 2000  # pixels of the longer side of an image that boxes are drawn on; larger ones are made smaller
THUMBNAIL, MAX_SHOWN = 480, 60  # pixels of an image on the contact sheet, and how many images are on it
COLUMNS = {False: ("file", "class", "confidence"), True: ("file", "class", "score", "x0", "y0", "x1", "y1")}


def run(args: argparse.Namespace, rest: list[str]) -> int:
    wants_sheet = args.out.suffix.lower() == ".png"
    if args.out.suffix and not wants_sheet and not args.out.is_dir():
        raise ValueError(f"--out is {args.out}: expected a file that ends in .png, or a folder for a detector's images")
    predictor = make_predictor(args.source, args.min_score, args.invert, THUMBNAIL if wants_sheet else MAX_SIDE)
    results = found_in(predictor, args.files) if wants_sheet else drawn(predictor, args.files, args.out)
    shown, every, total, failed = list[Predicted](), 1, 0, 0
    with table(args.csv, predictor.detects) as write:
        for found in results:
            print(json.dumps(found.result, ensure_ascii=False), flush=True)
            write(found.result)
            if wants_sheet and found.image is not None and (total - failed) % every == 0:
                shown.append(as_shown(found, predictor.classes))
            if len(shown) > MAX_SHOWN:  # every second from now on, so that all folders are on the sheet
                shown, every = shown[::2], 2 * every
            total, failed = total + 1, failed + ("error" in found.result)
    if shown:
        subtitle = f"{len(shown)} of " * (len(shown) < total) + f"{total} image{'s' * (total > 1)}"
        save_figure(prediction_sheet(shown, f"Predictions of {args.source}", subtitle, predictor.classes), args.out)
        report(f"{args.out} shows {subtitle}")
    if predictor.is_inverted_perhaps:
        report(
            f"most images are bright at their border, and those that {args.source} was trained on are dark there; if "
            "they show something dark on bright ground, add --invert"
        )
    if failed:
        raise ValueError(f"{failed} of {total} files cannot be read as images: see the lines with an error")
    return 0


def predict(
    source: str, files: list[str], out: str | Path = "predictions", min_score: float = MIN_SCORE
) -> Iterator[dict[str, Any]]:
    """Classifies images, or finds objects in them and draws their boxes, a few at a time.

    Each image is converted to grayscale if the training images were, resized to their size and normalized like them.

    Args:
        source: recipe, RECIPE@ready, folder of a run, checkpoint, or file of `zoo publish`.
        files: image files, folders and patterns; see `zoo.command.sources.image_files`.
        out: folder of the images that a detector draws boxes on; created if it does not exist.
        min_score: of the boxes that are reported.

    Yields:
        For each file its name; of a classifier the class, the confidence (0..1) and the three most likely classes; of
        a detector the boxes, by descending score, each with xyxy in pixels of the file, class and score (0..1), and
        the file with the boxes drawn; where there is no box, a note with the best score below. A file of a folder or
        list that cannot be read has an "error" instead.

    Raises:
        ValueError, FileNotFoundError: if the model cannot be read, or a file that was named does not exist or is no
            image, before any result; if one turns out to be truncated, when it is its turn.
    """
    for found in drawn(make_predictor(source, min_score, keep=MAX_SIDE), files, Path(out)):
        yield found.result


def make_predictor(source: str, min_score: float, invert: bool = False, keep: int = 0) -> Predictor:
    """The model that `source` names; a classifier keeps images only for a contact sheet."""
    path = checkpoint_of(source)
    module, data = load_module(path, needs=None)
    if keep == MAX_SIDE and not hasattr(module, "detect"):
        keep = 0
    return Predictor(module, data, str(path), min_score=min_score, invert=invert, keep=keep)


def found_in(predictor: Predictor, words: list[str]) -> Iterator[Found]:
    """The results for the images that words on the command line stand for."""
    named = {word for word in words if Path(word).is_file()}

    def read(file: str) -> Any:
        return predictor.read(file) if file in named else predictor.read_if_possible(file)

    for group in image_files(words):
        yield from predictor.predict(in_threads(read, group, THREADS))


def drawn(predictor: Predictor, words: list[str], folder: Path) -> Iterator[Found]:
    """The same, with the boxes of a detector drawn, each image in a file of the folder; no image is overwritten."""
    taken = {Path(word).resolve() for word in words}
    for found in found_in(predictor, words):
        if found.image is not None and found.boxes is not None:
            file = Path(found.result["file"])
            taken.add(file.resolve())
            path = next(path for path in _free_names(folder, file.stem) if path.resolve() not in taken)
            taken.add(path.resolve())
            draw(found, predictor.classes, path)
            found.result["picture"] = str(path)
        yield found


def draw(found: Found, classes: list[str], path: Path) -> None:
    """Writes an image with its boxes as a PNG file."""
    assert found.image is not None
    assert found.boxes is not None
    assert found.labels is not None
    width, height = found.image.size
    figure = Figure(((width + 0.5) / DPI, (height + 0.5) / DPI), dpi=DPI)  # half a pixel more, against rounding down
    axes = figure.add_axes((0, 0, 1, 1))
    draw_image(axes, np.asarray(found.image.convert("RGB")))
    texts = [f"{box['class']} {box['score']:.2f}" for box in found.result["boxes"]]
    solid = torch.zeros(len(texts), dtype=torch.bool)
    draw_boxes(axes, found.boxes, found.labels, texts, solid, width=max(1.2, max(width, height) / 500))
    save_figure(figure, path)


def as_shown(found: Found, classes: list[str]) -> Predicted:
    """A result as the contact sheet shows it."""
    assert found.image is not None
    image, name = np.asarray(found.image.convert("RGB")), "/".join(Path(found.result["file"]).parts[-2:])
    if found.labels is None:
        return Predicted(image, name, f"{found.result['class']} · {100 * found.result['confidence']:.0f} %")
    counts = found.labels.bincount(minlength=len(classes)).tolist()
    text = ", ".join(f"{number} × {one}" for one, number in zip(classes, counts, strict=True) if number)  # noqa: RUF001
    texts = tuple(f"{box['class']} {box['score']:.2f}" for box in found.result["boxes"])
    return Predicted(image, name, text or found.result["note"], bool(text), found.boxes, found.labels, texts)


@contextmanager
def table(path: Path | None, detects: bool) -> Iterator[Callable[[dict[str, Any]], None]]:
    """Yields a function that adds a result to a CSV file, which is complete in the end or not there."""
    if path is None:
        yield lambda result: None
        return
    with atomic_write(path) as temporary, open(temporary, "w", newline="", encoding="utf-8") as file:
        rows = csv.writer(file)
        rows.writerow(COLUMNS[detects])

        def write(result: dict[str, Any]) -> None:
            file_of = result["file"]
            if detects:
                boxes = [(box["class"], box["score"], *box["xyxy"]) for box in result.get("boxes", [])]
                rows.writerows((file_of, *box) for box in boxes or [("",) * 6])
            else:
                rows.writerow((file_of, result.get("class", ""), result.get("confidence", "")))

        yield write


def _free_names(folder: Path, stem: str) -> Iterator[Path]:
    """The name of the file with boxes, then numbered ones, for further files of the same name."""
    yield folder / f"{stem}.png"
    yield from (folder / f"{stem}-{number}.png" for number in count(2))
