"""Annotations in any format, recognized by their file or folder; also those in a plain table of boxes."""

import os
from pathlib import Path
from typing import Any

from datamodules.boxes.annotations import Annotation, ImagesOf, clean_boxes, read_csv, read_json, whole_number
from datamodules.boxes.coco import read_coco
from datamodules.boxes.via import read_via
from datamodules.boxes.voc import BOX_EDGES, IMAGE_FOLDERS, XML_FOLDERS, read_voc, read_xml, roots
from datamodules.io import find_file, is_users, user_files
from datamodules.splits import split_in, splits_of

TABLE_COLUMNS = ("image_id", "width", "height", "class", *BOX_EDGES)  # in any order, with or without "split"
TRIED = 20  # names of images, to find the folder that holds them


def read_annotations(
    source: str | os.PathLike, attribute: str | None = None, images: Path | None = None
) -> list[Annotation]:
    """The annotations of a VOC folder or file, a COCO-schema JSON, a VGG Image Annotator JSON or CSV, or a table.

    Their `split` is that of the table, of VOC's lists, of the name of the file (`instances_val2017.json`) or of the
    folder (`valid/`), else "train".

    Args:
        source: path (see `datamodules.io.find_file`) of a file; of a folder as in `read_voc`; of one that holds, in
            itself or in `annotations/`, a single JSON or CSV file or one for each split; or of one with such a folder
            for each split.
        attribute: as in `read_via`, for files of VGG Image Annotator.
        images: folder of the images; by default they are looked for beside the annotations.

    Raises:
        FileNotFoundError: if the file or folder does not exist, or the folder contains no annotations.
        ValueError: if it cannot be read or is in none of these formats; names the file.
    """
    path = find_file(source, "a file or folder of annotations")
    if not path.is_dir():
        return _read_file(path, attribute, images)
    if roots(path):
        return read_voc(path, images=images)
    if files := _files(path):
        return [
            annotation._replace(split=split or annotation.split)
            for split, file in files.items()
            for annotation in _read_file(file, attribute, images, split)
        ]
    if folders := splits_of(path):
        return [
            annotation._replace(split=split)
            for split, folder in folders.items()
            for annotation in read_annotations(folder, attribute, images)
        ]
    raise FileNotFoundError(
        f"{path} contains no annotations: expected Annotations/*.xml in it or in VOC*/, or one JSON or CSV file, "
        "or one for each split; name the file itself"
    )


def _files(folder: Path) -> dict[str | None, Path]:
    """The JSON or CSV file of a folder; of several that of each split.

    Raises:
        FileNotFoundError: if there are several and their names do not say which split each is for.
    """
    places = [folder, *(folder / name for name in XML_FOLDERS)]
    files = next((found for place in places if (found := user_files(place, {".json", ".csv"}, deep=False))), [])
    if len(files) < 2:
        return dict(zip([None], files, strict=False))
    boxes = [file for file in files if file.stem.startswith("instances")] or files  # COCO has sentences beside them
    of_split = {split_in(file.stem): file for file in boxes}
    if len(of_split) < len(boxes) or None in of_split or "train" not in of_split:
        raise FileNotFoundError(
            f"{folder} contains {len(files)} JSON or CSV files, such as {files[0].name} and {files[1].name}: expected "
            "exactly one, or one for each split with train, val or test in its name; name the file itself"
        )
    return of_split


def _read_file(path: Path, attribute: str | None, images: Path | None, split: str | None = None) -> list[Annotation]:
    """The annotations in a file of any format; of the images those in the folder that holds most of them."""
    if path.suffix.lower() == ".xml":
        return [read_xml(path, images=ImagesOf(images) if images else None)]
    is_table = path.suffix.lower() == ".csv"
    content: Any = read_csv(path) if is_table else read_json(path)
    images = _images_of(path, _names(content), images, split)
    if is_table and "region_shape_attributes" not in content[0]:
        return _read_table(path, content, images)
    if is_table:
        return read_via(path, images, attribute=attribute, content=content)
    if isinstance(content, dict) and "images" in content and "annotations" in content:
        return read_coco(path, images, content=content)
    if isinstance(content, dict) and all(isinstance(value, dict) for value in content.values()):
        return read_via(path, images, attribute=attribute, content=content)
    raise ValueError(
        f"{path} is neither in the COCO schema nor an export of VGG Image Annotator: expected one of the two; "
        "export it again"
    )


def _names(content: Any) -> list[str]:
    """The names of some of the images in a file of any format; none if it is in none of them, which is told later."""
    try:
        if isinstance(content, dict):
            content = content.get("images") or [*content.get("_via_img_metadata", content).values()]
        some = content[:: max(1, len(content) // TRIED)]
        columns = ("file_name", "filename", "#filename", "image_id")
        return [str(next(row[column] for column in columns if column in row)) for row in some]
    except (AttributeError, TypeError, KeyError, StopIteration):
        return []


def _images_of(path: Path, names: list[str], given: Path | None, split: str | None) -> Path:
    """The folder with most of the named images: the given one, that of the file or one beside it, or one below those.

    If none of them is in any, it is the given folder, else that of the file.
    """
    bases = [given or path.parent]
    if given is None and path.parent.name in XML_FOLDERS:
        bases.append(path.parent.parent)
    places = [*bases, *(base / name for base in bases for name in IMAGE_FOLDERS)]
    places = [place for place in places if place.is_dir()]
    below = [sub for place in places for sub in sorted(place.iterdir()) if sub.is_dir() and is_users(sub.name)]
    below.sort(key=lambda sub: split is None or split_in(sub.name) != split)  # those of the same split first
    best, most = bases[0], 0
    for folder in dict.fromkeys([*places, *below]):
        images = ImagesOf(folder)
        if (count := sum(images.find(name).is_file() for name in names)) > most:
            best, most = folder, count
    return best


def _read_table(path: Path, rows: list[dict[str, str]], images: Path) -> list[Annotation]:
    """A table with one row for each box; a row without a class stands for an image without boxes.

    The image may be in a column `filename` instead of `image_id`.
    """
    rows = [{"image_id": row["filename"], **row} if "filename" in row else row for row in rows]
    if missing := [column for column in TABLE_COLUMNS if column not in rows[0]]:
        columns = ", ".join(TABLE_COLUMNS)
        raise ValueError(f"{path} has no column {missing[0]!r}: expected {columns}, and optionally split; add it")
    rows_of: dict[tuple[str, str], list[dict[str, str]]] = {}
    for row in rows:
        rows_of.setdefault((row.get("split") or "train", row["image_id"]), []).append(row)
    annotations, found = [], ImagesOf(images)
    for (split, name), of_image in rows_of.items():
        with_box = [row for row in of_image if row["class"]]
        try:
            width, height = (whole_number(of_image[0][side]) for side in ("width", "height"))
            boxes = [[float(row[edge]) for edge in BOX_EDGES] for row in with_box]
        except (TypeError, ValueError) as error:
            raise ValueError(
                f"{path}: image {name} has a row that is not a box ({error}): expected numbers; correct it"
            ) from None
        names = [row["class"] for row in with_box]
        part = split_in(split) or "train"
        annotations.append(Annotation(found.find(name), width, height, boxes, names, part))
    return clean_boxes(annotations, path)
