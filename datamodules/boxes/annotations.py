"""The annotation of one image as a type, and what all readers of annotation formats need: cleaning, and opening files.

Every reader (`voc`, `coco`, `via`, `read`) returns a list of `Annotation`s, cleaned by `clean_boxes`, which reports its
changes. Edges are continuous: a box that covers the complete image is (0, 0, width, height). N boxes of an image.
"""

import csv
import json
from collections import Counter
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from datamodules.io import IMAGE_SUFFIXES, image_size, user_files
from datamodules.messages import report


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


def clean_boxes(annotations: list[Annotation], source: Path) -> list[Annotation]:
    """Makes all boxes usable: clips those that cross the border, and drops those without area or outside the image.

    One line on standard error says how many.

    Args:
        annotations: as read; a width or height that is not positive is read from the image.
        source: the file that they come from.

    Raises:
        ValueError: if an edge is not a finite number.
        FileNotFoundError: if the size must be read from an image that does not exist.
    """
    clean: list[Annotation] = []
    counts: Counter[str] = Counter()
    changed: list[str] = []
    for annotation in annotations:
        name = annotation.path.name
        boxes = np.asarray(annotation.boxes, np.float32).reshape(-1, 4)
        if not np.isfinite(boxes).all():
            raise ValueError(f"{source}: a box of {name} has an edge that is not a finite number; correct it")
        width, height = int(annotation.width), int(annotation.height)
        if min(width, height) <= 0:
            width, height = _size(annotation, source)
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


def _size(annotation: Annotation, source: Path) -> tuple[int, int]:
    if not annotation.path.is_file():
        raise FileNotFoundError(
            f"{source} does not give the size of {annotation.path.name}, and {annotation.path} does not exist: "
            "expected the image; add it"
        )
    return image_size(annotation.path)


class ImagesOf:
    """The images of a folder, which is listed once, as annotations name them.

    Args:
        folder: of the images.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @cached_property
    def _with_stem(self) -> dict[str, list[Path]]:
        found: dict[str, list[Path]] = {}
        for path in user_files(self.folder, IMAGE_SUFFIXES, deep=False):
            found.setdefault(path.stem, []).append(path)
        return found

    def find(self, name: str, stem: str = "") -> Path:
        """The image that an annotation is of, which need not exist.

        Args:
            name: what the annotation calls it, whatever the path or suffix it was annotated with.
            stem: of the annotation's own file, if there is one for each image. It decides, as names inside of files
                are often those of other folders or of before a renaming; the name is used where no image has the stem.
        """
        name = name.replace("\\", "/")
        named = self.folder / Path(name).name
        if stem and (own := self._of_stem(stem, prefer=named.suffix)) is not None:
            return own
        if exact := [path for path in (self.folder / name, named) if name and path.is_file()]:
            return exact[0]
        similar = self._of_stem(named.stem) or self._of_stem(named.name) if name else None
        return similar or (named if name else self.folder / stem)

    def _of_stem(self, stem: str, prefer: str = "") -> Path | None:
        """The image of this stem; of several that with the preferred suffix, else the first."""
        return min(self._with_stem.get(stem, []), key=lambda path: (path.suffix != prefer, path.name), default=None)


def whole_number(value: Any) -> int:
    """A size as files have it: 64, "64" or "64.0".

    Raises:
        ValueError: if it is none.
    """
    number = float(value)
    if number != int(number):
        raise ValueError(f"{value} is no whole number")
    return int(number)


def read_json(path: Path) -> Any:
    """The content of a JSON file.

    Raises:
        ValueError: if it is empty, truncated or not JSON.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8-sig"))
    except ValueError as error:  # JSON's and Unicode's errors are subclasses
        problem = "is empty" if not path.stat().st_size else f"cannot be read as JSON ({error})"
        raise ValueError(f"{path} {problem}: expected a complete annotation file; export it again") from None


def read_csv(path: Path) -> list[dict[str, str]]:
    """The rows of a CSV file whose first line names the columns.

    Raises:
        ValueError: if it has no row, or is not text.
    """
    try:
        with open(path, newline="", encoding="utf-8-sig") as file:
            rows = list(csv.DictReader(file))
    except (csv.Error, UnicodeDecodeError) as error:
        raise ValueError(f"{path} cannot be read as CSV ({error}): expected UTF-8 text; export it again") from None
    if not rows:
        raise ValueError(f"{path} has no row of boxes: expected a line of column names, and one row for each box")
    return rows
