"""VGG Image Annotator, versions 1 and 2: its JSON and CSV exports and its project files (Dutta and Zisserman 2019)."""

import json
import math
from functools import partial
from pathlib import Path
from typing import Any

from datamodules.boxes.annotated import AnnotatedData
from datamodules.boxes.annotations import TABLE_SUFFIXES, Annotation, clean_boxes, read_csv, read_json
from datamodules.boxes.image_search import images_for
from datamodules.messages import report

NO_CLASS = "object"  # the class of regions without attributes
Region = tuple[dict, dict]  # its shape and its attributes, as in the file


def read_via(
    path: Path,
    images: Path | None = None,
    attribute: str | None = None,
    content: Any = None,
    upright: bool = True,
) -> list[Annotation]:
    """The regions of an export, each as the box around it (rectangle, circle, ellipse, polygon or polyline).

    These files do not contain the sizes of the images, which are read from the images.

    Args:
        path: JSON or CSV file.
        images: folder of the images; by default they are looked for as in `images_for`.
        attribute: region attribute that holds the class; needed only if there are several.
        content: of the file, if it has been read already.
        upright: as in `clean_boxes`.

    Raises:
        FileNotFoundError: if the file or an image does not exist.
        ValueError: if the file cannot be read, or a region has no class or an unknown shape; names the file.
    """
    if content is None:
        content = read_csv(path) if path.suffix.lower() in TABLE_SUFFIXES else read_json(path)
    try:
        regions = _regions_of_csv(content) if isinstance(content, list) else _regions_of_json(content)
        boxes = {name: [_box(shape) for shape, _ in rows] for name, rows in regions.items()}
        kinds = {name: [_class(values, attribute) for _, values in rows] for name, rows in regions.items()}
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        problem = f"no {error}" if isinstance(error, KeyError) else error
        raise ValueError(
            f"{path} cannot be read as an export of VGG Image Annotator 1 or 2 ({problem}): expected regions with "
            "shape_attributes and region_attributes; export it again"
        ) from None
    different = {kind for names in kinds.values() for kind in names}
    if None in different:
        if different != {None}:
            raise ValueError(
                f"{path}: some regions have a class and others have no attribute: expected a class for each; add them"
            )
        report(f"{path}: the regions have no attributes, so all are of one class, {NO_CLASS!r}")
    found = images_for(path, [*regions], images)
    annotations = [
        Annotation(found.find(name), 0, 0, boxes[name], [kind or NO_CLASS for kind in kinds[name]]) for name in regions
    ]
    return clean_boxes(annotations, path, upright)


def _regions_of_json(content: dict) -> dict[str, list[Region]]:
    """The regions of each image.

    Raises:
        ValueError: if two images have one name, as those of different folders: their regions cannot be told apart.
    """
    found: dict[str, list[Region]] = {}
    for image in content.get("_via_img_metadata", content).values():
        if (name := str(image["filename"])) in found:
            raise ValueError(f"two images are called {name}")
        regions = image["regions"]
        regions = regions.values() if isinstance(regions, dict) else regions  # version 1 numbers them
        found[name] = [(region["shape_attributes"], region["region_attributes"]) for region in regions]
    return found


def _regions_of_csv(rows: list[dict[str, str]]) -> dict[str, list[Region]]:
    """As `_regions_of_json`; files of one name that are different have different sizes."""
    found: dict[str, list[Region]] = {}
    sizes: dict[str, str | None] = {}
    for row in rows:
        name, size = row.get("filename") or row["#filename"], row.get("file_size")  # with a # in version 1
        if sizes.setdefault(name, size) != size:
            raise ValueError(f"two images are called {name}")
        shape, values = json.loads(row["region_shape_attributes"]), json.loads(row["region_attributes"])
        found.setdefault(name, []).extend([(shape, values)] if shape else [])
    return found


def _box(shape: dict) -> tuple[float, float, float, float]:
    kind = shape["name"]
    if kind == "rect":
        return shape["x"], shape["y"], shape["x"] + shape["width"], shape["y"] + shape["height"]
    if kind in ("circle", "ellipse"):
        rx, ry = (shape["r"], shape["r"]) if kind == "circle" else (shape["rx"], shape["ry"])
        cos, sin = math.cos(shape.get("theta", 0)), math.sin(shape.get("theta", 0))
        w, h = math.hypot(rx * cos, ry * sin), math.hypot(rx * sin, ry * cos)
        return shape["cx"] - w, shape["cy"] - h, shape["cx"] + w, shape["cy"] + h
    if kind in ("polygon", "polyline"):
        x, y = shape["all_points_x"], shape["all_points_y"]
        return min(x), min(y), max(x), max(y)
    raise ValueError(f"a region is a {kind}: expected rect, circle, ellipse, polygon or polyline")


def _class(values: dict, attribute: str | None) -> str | None:
    """The value of the attribute; of a checkbox the option that is ticked; None without any attribute."""
    if not values and attribute is None:
        return None
    if attribute is not None and attribute not in values:
        raise ValueError(f"a region has the attributes {list(values)}: expected {attribute!r} among them")
    if attribute is None and len(values) != 1:
        raise ValueError(
            f"a region has the attributes {list(values)}: expected one; name the one that holds the class by "
            "--attribute (zoo anchors), --data.attribute (zoo fit) or `attribute`"
        )
    value = values[attribute or next(iter(values))]
    ticked = [name for name, on in value.items() if on] if isinstance(value, dict) else [value]
    if len(ticked) != 1 or not str(ticked[0]).strip():
        raise ValueError(f"a region has the class {value!r}: expected exactly one name")
    return str(ticked[0]).strip()


class VIA(AnnotatedData):
    """Images annotated with VGG Image Annotator.

    Args:
        train_file, test_file: JSON or CSV files, see `datamodules.io.find_file`. Without `test_file` a fixed 15 % of
            the images are for testing.
        train_images, test_images: folders of the images, found likewise; by default as in `images_for`.
        attribute: as in `read_via`.
        options: as in `AnnotatedData`.

    Raises:
        FileNotFoundError, ValueError: as in `AnnotatedData`.
    """

    def __init__(
        self,
        train_file: str,
        test_file: str | None = None,
        train_images: str | None = None,
        test_images: str | None = None,
        attribute: str | None = None,
        **options: Any,
    ) -> None:
        self.files, self.attribute = {"train": (train_file, train_images), "test": (test_file, test_images)}, attribute
        super().__init__(**options)

    def annotations(self) -> dict[str, list[Annotation]]:
        read = partial(read_via, attribute=self.attribute)
        return self.read_files(self.files, "a JSON or CSV file of annotations", read)
