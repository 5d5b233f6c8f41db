"""The COCO schema: one JSON file for a set of images, boxes as left, top, width, height.

Lin et al. 2014, "Microsoft COCO: Common Objects in Context".
"""

import re
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

from datamodules.boxes.annotated import AnnotatedData
from datamodules.boxes.annotations import Annotation, clean_boxes, read_json, whole_number
from datamodules.boxes.image_search import images_for
from datamodules.messages import report


def read_coco(path: Path, images: Path | None = None, content: Any = None, upright: bool = True) -> list[Annotation]:
    """The annotations of a JSON file with "images", "annotations" and "categories"; crowds (`iscrowd`) are left out.

    Args:
        path: of the file.
        images: folder of the images; by default they are looked for as in `images_for`.
        content: of the file, if it has been read already.
        upright: as in `clean_boxes`.

    Raises:
        FileNotFoundError: if the file does not exist.
        ValueError: if it cannot be read or is not in this schema; names it.
    """
    content = read_json(path) if content is None else content
    try:
        classes = {key: str(item["name"]).strip() for key, item in _by_id(content["categories"], "categories").items()}
        described = {
            key: (
                str(image["file_name"]),
                whole_number(image.get("width") or 0),
                whole_number(image.get("height") or 0),
            )
            for key, image in _by_id(content["images"], "images").items()
        }
        boxes, names = defaultdict(list), defaultdict(list)
        id_of: dict[tuple, Any] = {}
        repeated = 0
        for item in content["annotations"]:
            left, top, width, height = map(float, item["bbox"])
            image, category = _id(item["image_id"]), _id(item["category_id"])
            if image not in described or category not in classes:
                which = f"image {image}" if image not in described else f"category {category}"
                raise ValueError(f"annotation {item.get('id')} refers to {which}, which is not defined")
            if whole_number(item.get("iscrowd") or 0):
                continue
            if (key := (image, category, left, top, width, height)) in id_of:
                repeated += 1
                continue
            id_of[key] = item.get("id")
            boxes[image].append((left, top, left + width, top + height))
            names[image].append(classes[category])
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
        problem = f"no {error}" if isinstance(error, KeyError) else error
        raise ValueError(
            f"{path} is not in the COCO schema ({problem}): expected images with id and file_name, "
            "annotations with image_id, category_id and bbox, categories with id and name; export it again"
        ) from None
    if repeated:
        report(f"{path}: {repeated} annotations repeat another one, box and class, and are left out")
    ids = Counter(_id(value) for value in id_of.values() if value is not None)
    if shared := [value for value, count in ids.items() if count > 1]:
        report(
            f"{path}: {len(shared)} ids are those of several annotations, such as {shared[0]}, as in files that were "
            "joined; all are used"
        )
    found = images_for(path, [name for name, _, _ in described.values()], images)
    annotations = [
        Annotation(found.find(name), width, height, boxes=boxes[key], names=names[key])
        for key, (name, width, height) in described.items()
    ]
    return clean_boxes(annotations, path, upright)


def _id(value: Any) -> str:
    """An id as text: tools write 1 in one place and "1", 1.0 or "000001" in another."""
    number = re.fullmatch(r"0*(\d+)(\.0*)?", str(value).strip())
    return number[1] if number else str(value)


def _by_id(items: list[dict[str, Any]], what: str) -> dict[str, dict[str, Any]]:
    """Items by their ids.

    Raises:
        ValueError: if two have the same id, as in files that were joined: their boxes cannot be told apart.
    """
    found: dict[str, dict[str, Any]] = {}
    for item in items:
        other = found.setdefault(_id(item["id"]), item)
        if other is not item:
            names = [str(one.get("file_name") or one.get("name")) for one in (other, item)]
            raise ValueError(f"the {what} {names[0]} and {names[1]} have the same id {item['id']}")
    return found


class COCO(AnnotatedData):
    """Images with COCO-schema annotations.

    Args:
        train_file, test_file: JSON files, see `datamodules.io.find_file`. Without `test_file` a fixed 15 % of the
            images are for testing.
        train_images, test_images: folders of the images, found likewise; by default as in `images_for`.
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
        **options: Any,
    ) -> None:
        self.files = {"train": (train_file, train_images), "test": (test_file, test_images)}
        super().__init__(**options)

    def annotations(self) -> dict[str, list[Annotation]]:
        return self.read_files(self.files, "a JSON file of annotations", read_coco)
