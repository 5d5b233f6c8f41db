"""Annotations in any format, recognized by their file or folder; also those in a plain table of boxes."""

import os
from pathlib import Path
from typing import Any

from datamodules.boxes.annotations import TABLE_SUFFIXES, Annotation, clean_boxes, read_csv, read_json, whole_number
from datamodules.boxes.coco import read_coco
from datamodules.boxes.image_search import ANNOTATION_FOLDERS, folders_named, images_for
from datamodules.boxes.via import read_via
from datamodules.boxes.voc import BOX_EDGES, read_voc, read_xml, roots
from datamodules.io import find_file, user_files
from datamodules.splits import SPLIT_NAMES, split_in, split_in_parts, splits_of


def read_annotations(
    source: str | os.PathLike, attribute: str | None = None, images: Path | None = None, upright: bool = True
) -> list[Annotation]:
    """The annotations of a VOC folder or file, a COCO-schema JSON, a VGG Image Annotator JSON or CSV, or a table.

    Their `split` is that of the table, of VOC's lists, of the name of the file (`instances_val2017.json`) if there is
    one for each, of the folder (`valid/`), or else of the folders of the images; without any "train".

    Args:
        source: path (see `datamodules.io.find_file`) of a file; of a folder as in `read_voc`; of one that holds, in
            itself or in `annotations/`, a single JSON or CSV file or one for each split; or of one with such a folder
            for each split.
        attribute: as in `read_via`, for files of VGG Image Annotator.
        images: folder of the images; by default they are looked for as in `images_for`.
        upright: as in `clean_boxes`.

    Raises:
        FileNotFoundError: if the file or folder does not exist, or the folder contains no annotations.
        ValueError: if it cannot be read or is in none of these formats; names the file.
    """
    path = find_file(source, "a file or folder of annotations")
    if not path.is_dir():
        return _read_file(path, attribute, images, upright)
    if roots(path):
        return read_voc(path, images=images, upright=upright)
    if files := _files(path):
        return [
            annotation._replace(split=split or annotation.split)
            for split, file in files.items()
            for annotation in _read_file(file, attribute, images, upright)
        ]
    for place in (path, *folders_named(path, ANNOTATION_FOLDERS)):
        if folders := splits_of(place):
            return [
                annotation._replace(split=split)
                for split, folder in folders.items()
                for annotation in read_annotations(folder, attribute, images, upright)
            ]
    raise FileNotFoundError(
        f"{path} contains no annotations: expected Annotations/*.xml in it or in VOC*/, or one JSON or CSV file, "
        "or one for each split; name the file itself"
    )


def _files(folder: Path) -> dict[str | None, Path]:
    """The file of a folder, JSON or a table; of several that of each split.

    Raises:
        FileNotFoundError: if there are several and their names do not say which split each is for.
    """
    places = [folder, *folders_named(folder, ANNOTATION_FOLDERS)]
    files = next(
        (found for place in places if (found := user_files(place, {".json", *TABLE_SUFFIXES}, deep=False))), []
    )
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


def _read_file(path: Path, attribute: str | None, images: Path | None, upright: bool) -> list[Annotation]:
    """The annotations in a file of any format."""
    if path.suffix.lower() == ".xml":
        return [read_xml(path, images=images_for(path.parent, [path.stem], images), upright=upright)]
    is_table = path.suffix.lower() in TABLE_SUFFIXES
    content: Any = read_csv(path) if is_table else read_json(path)
    if is_table and "region_shape_attributes" not in content[0]:
        return _read_table(path, content, images, upright)
    if is_table:
        return _with_splits_of_folders(read_via(path, images, attribute, content, upright))
    if isinstance(content, dict) and "images" in content and "annotations" in content:
        return _with_splits_of_folders(read_coco(path, images, content, upright))
    described = content.get("_via_img_metadata", content) if isinstance(content, dict) else None
    if isinstance(described, dict) and all(isinstance(value, dict) for value in described.values()):
        return _with_splits_of_folders(read_via(path, images, attribute, content, upright))
    raise ValueError(
        f"{path} is neither in the COCO schema nor an export of VGG Image Annotator: expected one of the two; "
        "export it again"
    )


def _with_splits_of_folders(annotations: list[Annotation]) -> list[Annotation]:
    """The same with the splits after which the folders of their images are named, if one of those is for training."""
    if not annotations:
        return []
    common = Path(os.path.commonpath([annotation.path.parent for annotation in annotations]))
    folders = {annotation.path.parent: annotation.path.parent.relative_to(common).parts for annotation in annotations}
    split_of = {folder: split_in_parts(parts) for folder, parts in folders.items()}
    if "train" not in split_of.values():
        return annotations
    return [annotation._replace(split=split_of[annotation.path.parent] or "train") for annotation in annotations]


def _read_table(path: Path, rows: list[dict[str, str]], images: Path | None, upright: bool) -> list[Annotation]:
    """A table with one row for each box; a row without a class stands for an image without boxes.

    The image is in a column `filename` or `image_id`, its split in `split` or `subset`. Sizes that are not given are
    read from the images.
    """
    image_column = "image_id" if "image_id" in rows[0] and "filename" not in rows[0] else "filename"
    split_column = next((column for column in ("split", "subset") if column in rows[0]), "")
    columns = ("class", *BOX_EDGES)
    if missing := [column for column in (image_column, *columns) if column not in rows[0]]:
        raise ValueError(
            f"{path} has no column {missing[0]!r}: expected filename or image_id, {', '.join(columns)}, and optionally "
            "width, height and split; add it"
        )
    rows_of: dict[tuple[str, str], list[dict[str, str]]] = {}
    has_splits = any(row.get(split_column) for row in rows)
    for row in rows:
        split = split_in(row[split_column]) if has_splits else "train"
        if split is None:
            raise ValueError(
                f"{path}: the {split_column} of image {row[image_column]} is {row[split_column]!r}: expected a word "
                f"for one of {[*SPLIT_NAMES]}; correct it, or remove the column"
            )
        rows_of.setdefault((split, row[image_column]), []).append(row)
    annotations, found = [], images_for(path, [name for _, name in rows_of], images)
    for (split, name), of_image in rows_of.items():
        with_box = [row for row in of_image if row["class"]]
        try:
            sizes = {(whole_number(row.get("width") or 0), whole_number(row.get("height") or 0)) for row in of_image}
            boxes = [[float(row[edge]) for edge in BOX_EDGES] for row in with_box]
        except ValueError as error:
            raise ValueError(
                f"{path}: image {name} has a row that is not a box ({error}): expected numbers; correct it"
            ) from None
        if len(sizes) > 1:
            several = " and ".join(f"{width} x {height}" for width, height in sorted(sizes))
            raise ValueError(f"{path}: the rows of image {name} have the sizes {several}: expected one; correct it")
        names = [row["class"] for row in with_box]
        width, height = sizes.pop()
        annotations.append(Annotation(found.find(name), width, height, boxes, names, split))
    annotations = clean_boxes(annotations, path, upright)
    return annotations if has_splits else _with_splits_of_folders(annotations)
