"""The annotation of one image as a type, and what all readers of annotation formats need: cleaning, and opening files.

Every reader (`voc`, `coco`, `via`, `read`) returns a list of `Annotation`s, cleaned by `clean_boxes`, which reports its
changes. Edges are continuous: a box that covers the complete image is (0, 0, width, height). N boxes of an image.
"""

import csv
import json
import math
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from datamodules.boxes.image_search import GIVE_IMAGES
from datamodules.io import image_size
from datamodules.messages import report

TABLE_SUFFIXES = {".csv", ".tsv"}


class Annotation(NamedTuple):
    """The boxes of one image.

    path: of the image, which need not exist.
    width, height: of the image in pixels.
    boxes: (N, 4) float32, xyxy in pixels; N may be 0. After `clean_boxes` inside the image, and with a positive area.
    names: the class of each box.
    split: "val" or "test" if the data set reserves the image for that.
    """

    path: Path
    width: int
    height: int
    boxes: np.ndarray | Sequence
    names: Sequence[str]
    split: str = "train"


def clean_boxes(annotations: list[Annotation], source: Path, upright: bool = True) -> list[Annotation]:
    """Makes all boxes usable: clips those that cross the border, and drops those without area or outside the image.

    One line on standard error says how many.

    Args:
        annotations: as read; a width or height that is not positive is read from the image.
        source: the file that they come from.
        upright: whether sizes that are read from images are those after turning them as their EXIF tags say.

    Raises:
        ValueError: if an edge is not a finite number.
        FileNotFoundError: if the size must be read from an image that does not exist.
    """
    clean: list[Annotation] = []
    counts: Counter[str] = Counter()
    changed: list[str] = []
    for annotation in annotations:
        name = annotation.path.name
        with np.errstate(over="ignore"):  # becomes infinite
            boxes = np.asarray(annotation.boxes).astype(np.float32).reshape(-1, 4)
        if not np.isfinite(boxes).all():
            raise ValueError(f"{source}: a box of {name} has an edge that is not a finite number; correct it")
        width, height = int(annotation.width), int(annotation.height)
        if min(width, height) <= 0:
            width, height = _size(annotation, source, upright)
        clipped = boxes.clip(0, [width, height] * 2)
        has_no_area, is_lost = (np.any(rows[:, 2:] <= rows[:, :2], axis=1) for rows in (boxes, clipped))
        keep = ~(has_no_area | is_lost)
        changes = {
            "without area dropped": has_no_area,
            "outside the image dropped": is_lost & ~has_no_area,
            "clipped to the image": keep & np.any(clipped != boxes, axis=1),
        }
        if any(rows.any() for rows in changes.values()):
            changed.append(name)
            counts.update({change: int(rows.sum()) for change, rows in changes.items()})
        names = tuple(kind for kind, kept in zip(annotation.names, keep, strict=True) if kept)
        boxes = clipped[keep].astype(np.float32)
        clean.append(annotation._replace(width=width, height=height, boxes=boxes, names=names))
    if changed:
        total = sum(len(annotation.names) for annotation in annotations)
        summary = ", ".join(f"{count} {change}" for change, count in counts.items() if count)
        others = f" and {len(changed) - 1} more" * (len(changed) > 1)
        report(f"{source}: of {total} boxes, {summary}; in {changed[0]}{others}")
    return clean


def _size(annotation: Annotation, source: Path, upright: bool) -> tuple[int, int]:
    if not annotation.path.is_file():
        raise FileNotFoundError(
            f"{source} does not give the size of {annotation.path.name}, and {annotation.path} does not exist: "
            f"expected the image; add it, or {GIVE_IMAGES}"
        )
    return image_size(annotation.path, upright)


def whole_number(value: Any) -> int:
    """A size as files have it: 64, "64" or "64.0".

    Raises:
        ValueError: if it is none.
    """
    try:
        number = float(value)
    except OverflowError:  # of a whole number with hundreds of digits
        number = math.inf
    if not number.is_integer():
        raise ValueError(f"{value} is no whole number")
    return int(number)


def read_json(path: Path) -> Any:
    """The content of a JSON file.

    Raises:
        ValueError: if it is empty, truncated or not JSON, or has a key twice in one place.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8-sig"), object_pairs_hook=_of_different_keys)
    except ValueError as error:  # JSON's and Unicode's errors are subclasses
        problem = "is empty" if not path.stat().st_size else f"cannot be read as JSON ({error})"
        raise ValueError(f"{path} {problem}: expected a complete annotation file; export it again") from None


def _of_different_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    content = dict(pairs)
    if len(content) < len(pairs):
        (key, _), *_ = Counter(key for key, _ in pairs).most_common(1)
        raise ValueError(f"the key {key!r} is there twice")
    return content


def read_csv(path: Path) -> list[dict[str, str]]:
    """The rows of a table, separated by commas, semicolons or tabs, whose first line names the columns.

    Names of columns are in lower case, and all is without spaces around it.

    Raises:
        ValueError: if it has no row, or a column twice, or is not text.
    """
    try:
        with open(path, newline="", encoding="utf-8-sig") as file:
            first = file.readline()
            file.seek(0)
            table = csv.DictReader(file, delimiter=max(",;\t", key=first.count), skipinitialspace=True)
            columns = [name.strip().lower() for name in table.fieldnames or []]
            table.fieldnames = columns
            rows = [{key: (row[key] or "").strip() for key in columns} for row in table]
    except (csv.Error, UnicodeDecodeError) as error:
        raise ValueError(f"{path} cannot be read as CSV ({error}): expected UTF-8 text; export it again") from None
    if not rows:
        raise ValueError(f"{path} has no row of boxes: expected a line of column names, and one row for each box")
    if twice := [name for name, count in Counter(columns).items() if name and count > 1]:
        raise ValueError(f"{path} has the column {twice[0]!r} twice: expected each once; remove or rename one")
    return rows
