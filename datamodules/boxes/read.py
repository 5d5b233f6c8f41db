"""Any annotations: finds out which format a file or folder is in and reads it; and the plain table of boxes."""

from pathlib import Path

from datamodules.boxes.annotations import Annotation, clean_boxes, read_csv, read_json
from datamodules.boxes.coco import read_coco
from datamodules.boxes.via import read_via
from datamodules.boxes.voc import read_voc, read_xml, roots

COLUMNS = ("image_id", "width", "height", "class", "xmin", "ymin", "xmax", "ymax")  # and maybe split, in any order


def read_annotations(source: str | Path) -> list[Annotation]:
    """The annotations of a VOC folder or file, a COCO-schema JSON, a VGG Image Annotator JSON or CSV, or a table.

    Args:
        source: file, or folder as in `read_voc`, or one that holds a single JSON or CSV file.

    Raises:
        FileNotFoundError: if there is no such file or folder, or nothing in it.
        ValueError: if it can't be read or the format is none of these; names the file.
    """
    path = Path(source)
    if not path.exists():
        raise FileNotFoundError(f"{path} does not exist: expected a file or folder of annotations")
    if path.is_dir():
        if roots(path):
            return read_voc(path)
        files = sorted([*path.glob("*.json"), *path.glob("*.csv")])
        if len(files) != 1:
            raise FileNotFoundError(
                f"{path} holds no VOC annotations and {len(files)} JSON or CSV files: expected Annotations/*.xml in it "
                "or in VOC*/, or exactly one such file; name the file itself"
            )
        path = files[0]
    if path.suffix.lower() == ".xml":
        return [read_xml(path)]
    if path.suffix.lower() == ".csv":
        rows = read_csv(path)
        return read_via(path, content=rows) if "region_shape_attributes" in rows[0] else _read_table(path, rows)
    content = read_json(path)
    if isinstance(content, dict) and "images" in content and "annotations" in content:
        return read_coco(path, content=content)
    if isinstance(content, dict) and all(isinstance(value, dict) for value in content.values()):
        return read_via(path, content=content)
    raise ValueError(f"{path} is neither in the COCO schema nor an export of VGG Image Annotator: export it as one")


def _read_table(path: Path, rows: list[dict[str, str]]) -> list[Annotation]:
    """A table with one box a row. A row without a class, or whose box is empty, says that a picture has none."""
    if absent := [column for column in COLUMNS if column not in rows[0]]:
        raise ValueError(f"{path} has no column {absent[0]!r}: expected {', '.join(COLUMNS)} and maybe split")
    pictures: dict[tuple[str, str], list[dict[str, str]]] = {}
    for row in rows:
        pictures.setdefault((row.get("split") or "train", row["image_id"]), []).append(row)
    found = []
    for (split, name), of_picture in pictures.items():
        try:
            size = int(of_picture[0]["width"]), int(of_picture[0]["height"])
            boxes = [[float(row[edge]) for edge in COLUMNS[4:]] for row in of_picture if row["class"]]
        except (TypeError, ValueError) as error:
            raise ValueError(f"{path}: picture {name} has a row that is no box ({error}); mend it") from None
        names = [row["class"] for row in of_picture if row["class"]]
        part = "test" if split.endswith("test") else "train"
        found.append(Annotation(path.parent / name, *size, boxes, names, part))
    return clean_boxes(found, path)
