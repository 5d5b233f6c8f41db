"""What all readers of annotations share: the boxes of a picture as one type, the cleaning, the opening of files.

Every reader (`voc`, `coco`, `via`, `any_annotations`) gives a list of `Annotation`s, cleaned by `clean_boxes`, which says what
it had to mend. Edges are continuous: a box that covers the whole picture is (0, 0, width, height).
"""

import csv
import glob
import json
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from lightning.pytorch.utilities.rank_zero import rank_zero_only

from datamodules.io import IMAGE_SUFFIXES, read_image


class Annotation(NamedTuple):
    """The boxes of one picture.

    path: of the picture, which need not be there.
    width, height: of the picture in pixels.
    boxes: (N, 4) float32, xyxy in pixels; N may be 0. After `clean_boxes` inside the picture, and each with an area.
    names: for each box its class.
    split: "test" if the data set sets the picture aside for testing.
    """

    path: Path
    width: int
    height: int
    boxes: np.ndarray | Sequence
    names: Sequence[str]
    split: str = "train"


@rank_zero_only
def _say(line: str) -> None:
    print(line, file=sys.stderr)


def clean_boxes(found: list[Annotation], source: Path) -> list[Annotation]:
    """Makes all boxes usable: what crosses the border is clipped, what has no area or lies outside is dropped.

    How many is told in one line on standard error.

    Args:
        found: as read; a width or height that is not positive is read from the picture.
        source: the file that they are from.

    Raises:
        ValueError: if an edge is no finite number.
        FileNotFoundError: if the size is asked of a picture that is not there.
    """
    clean, counts, pictures = [], Counter(), []
    for note in found:
        boxes = np.asarray(note.boxes, np.float32).reshape(-1, 4)
        if not np.isfinite(boxes).all():
            raise ValueError(f"{source}: a box of {note.path.name} has an edge that is no finite number; mend it")
        width, height = (int(note.width), int(note.height)) if min(note.width, note.height) > 0 else _size(note, source)
        clipped = boxes.clip(0, [width, height] * 2)
        flat, lost = (~(rows[:, 2:] > rows[:, :2]).all(1) for rows in (boxes, clipped))
        keep = ~(flat | lost)
        troubles = {
            "without area dropped": flat,
            "outside the picture dropped": lost & ~flat,
            "clipped to the picture": keep & (clipped != boxes).any(1),
        }
        if any(rows.any() for rows in troubles.values()):
            pictures.append(note.path.name)
            counts.update({what: int(rows.sum()) for what, rows in troubles.items()})
        names = tuple(name for name, kept in zip(note.names, keep, strict=True) if kept)
        clean.append(Annotation(note.path, width, height, clipped[keep].astype(np.float32), names, note.split))
    if pictures:
        told = ", ".join(f"{count} {what}" for what, count in counts.items() if count)
        others = f" and {len(pictures) - 1} more" * (len(pictures) > 1)
        _say(f"{source}: of {sum(len(note.names) for note in found)} boxes, {told}; in {pictures[0]}{others}")
    return clean


def _size(note: Annotation, source: Path) -> tuple[int, int]:
    if not note.path.is_file():
        raise FileNotFoundError(
            f"{source} does not say how large {note.path.name} is, and {note.path} is not there: put the pictures there"
        )
    return read_image(note.path).size


def image_of_annotation(folder: Path, name: str, stem: str = "") -> Path:
    """The picture that an annotation calls `name`: in `folder`, whatever the path or suffix it was annotated with."""
    name = name.replace("\\", "/")
    named = folder / Path(name).name
    if whole := [path for path in (folder / name, named) if path.is_file()]:
        return whole[0]
    found = (
        path
        for path in sorted(folder.glob(f"{glob.escape(stem or named.stem)}.*"))
        if path.suffix.lower() in IMAGE_SUFFIXES
    )
    return next(found, named if name else folder / stem)


def read_json(path: Path) -> Any:
    """The content of a JSON file.

    Raises:
        ValueError: if it is empty, cut off or no JSON.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:  # of which JSON's and Unicode's are kinds
        what = "is empty" if not path.stat().st_size else f"is no JSON that can be read ({error})"
        raise ValueError(f"{path} {what}: expected a whole annotation file; export it again") from None


def read_csv(path: Path) -> list[dict[str, str]]:
    """The rows of a CSV file whose first line names the columns.

    Raises:
        ValueError: if it has no row, or is no text.
    """
    try:
        with open(path, newline="", encoding="utf-8-sig") as file:
            rows = list(csv.DictReader(file))
    except (csv.Error, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is no CSV that can be read ({error}); export it again") from None
    if not rows:
        raise ValueError(f"{path} has no row of boxes: expected a line of column names and one row a box")
    return rows
