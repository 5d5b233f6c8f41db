"""Annotations in any format, recognized by their file or folder; also those in a plain table of boxes."""

import os
from pathlib import Path

from datamodules.boxes.annotations import Annotation, clean_boxes, read_csv, read_json, whole_number
from datamodules.boxes.coco import read_coco
from datamodules.boxes.via import read_via
from datamodules.boxes.voc import BOX_EDGES, read_voc, read_xml, roots
from datamodules.io import find_file, user_files

TABLE_COLUMNS = ("image_id", "width", "height", "class", *BOX_EDGES)  # in any order, with or without "split"


def read_annotations(source: str | os.PathLike, attribute: str | None = None) -> list[Annotation]:
    """The annotations of a VOC folder or file, a COCO-schema JSON, a VGG Image Annotator JSON or CSV, or a table.

    Args:
        source: path (see `datamodules.io.find_file`) of a file, of a folder as in `read_voc`, or of a folder that holds
            a single JSON or CSV file.
        attribute: as in `read_via`, for files of VGG Image Annotator.

    Raises:
        FileNotFoundError: if the file or folder does not exist, or the folder contains no annotations.
        ValueError: if it cannot be read or is in none of these formats; names the file.
    """
    path = find_file(source, "a file or folder of annotations")
    if path.is_dir():
        if roots(path):
            return read_voc(path)
        files = user_files(path, {".json", ".csv"}, deep=False)
        if len(files) != 1:
            raise FileNotFoundError(
                f"{path} contains no VOC annotations and {len(files)} JSON or CSV files: expected Annotations/*.xml in "
                "it or in VOC*/, or exactly one such file; name the file itself"
            )
        path = files[0]
    if path.suffix.lower() == ".xml":
        return [read_xml(path)]
    if path.suffix.lower() == ".csv":
        rows = read_csv(path)
        is_via = "region_shape_attributes" in rows[0]
        return read_via(path, attribute=attribute, content=rows) if is_via else _read_table(path, rows)
    content = read_json(path)
    if isinstance(content, dict) and "images" in content and "annotations" in content:
        return read_coco(path, content=content)
    if isinstance(content, dict) and all(isinstance(value, dict) for value in content.values()):
        return read_via(path, attribute=attribute, content=content)
    raise ValueError(
        f"{path} is neither in the COCO schema nor an export of VGG Image Annotator: expected one of the two; "
        "export it again"
    )


def _read_table(path: Path, rows: list[dict[str, str]]) -> list[Annotation]:
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
    annotations = []
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
        part = "test" if split.endswith("test") else "train"
        annotations.append(Annotation(path.parent / name, width, height, boxes, names, part))
    return clean_boxes(annotations, path)
