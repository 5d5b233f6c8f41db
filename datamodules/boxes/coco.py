"""The COCO schema: one JSON file for a set of images, boxes as left, top, width, height.

Lin et al. 2014, "Microsoft COCO: Common Objects in Context".
"""

from collections import defaultdict
from pathlib import Path
from typing import Any

from datamodules.boxes.annotated import AnnotatedData
from datamodules.boxes.annotations import Annotation, ImagesOf, clean_boxes, read_json, whole_number


def read_coco(path: Path, images: Path | None = None, content: Any = None) -> list[Annotation]:
    """The annotations of a JSON file with "images", "annotations" and "categories"; crowds (`iscrowd`) are left out.

    Args:
        path: of the file.
        images: folder of the images; default that of the file.
        content: of the file, if it has been read already.

    Raises:
        FileNotFoundError: if the file does not exist.
        ValueError: if it cannot be read or is not in this schema; names it.
    """
    content = read_json(path) if content is None else content
    try:
        classes = {str(key): str(item["name"]) for key, item in _by_id(content["categories"], "categories").items()}
        described = {
            key: (
                str(image["file_name"]),
                whole_number(image.get("width") or 0),
                whole_number(image.get("height") or 0),
            )
            for key, image in _by_id(content["images"], "images").items()
        }
        boxes, names = defaultdict(list), defaultdict(list)
        for item in content["annotations"]:
            left, top, width, height = map(float, item["bbox"])
            image, category = str(item["image_id"]), str(item["category_id"])
            if image not in described or category not in classes:
                which = f"image {image}" if image not in described else f"category {category}"
                raise ValueError(f"annotation {item.get('id')} refers to {which}, which is not defined")
            if not item.get("iscrowd"):
                boxes[image].append((left, top, left + width, top + height))
                names[image].append(classes[category])
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        problem = f"no {error}" if isinstance(error, KeyError) else error
        raise ValueError(
            f"{path} is not in the COCO schema ({problem}): expected images with id and file_name, "
            "annotations with image_id, category_id and bbox, categories with id and name; export it again"
        ) from None
    found = ImagesOf(images or path.parent)
    annotations = [
        Annotation(found.find(name), width, height, boxes=boxes[key], names=names[key])
        for key, (name, width, height) in described.items()
    ]
    return clean_boxes(annotations, path)


def _by_id(items: list[dict[str, Any]], what: str) -> dict[str, dict[str, Any]]:
    """Items by their ids as text: tools write 1 in one place and "1" in another.

    Raises:
        ValueError: if two have the same id, as in files that were joined: their boxes cannot be told apart.
    """
    found: dict[str, dict[str, Any]] = {}
    for item in items:
        other = found.setdefault(str(item["id"]), item)
        if other is not item:
            names = [str(one.get("file_name") or one.get("name")) for one in (other, item)]
            raise ValueError(f"the {what} {names[0]} and {names[1]} have the same id {item['id']}")
    return found


class COCO(AnnotatedData):
    """Images with COCO-schema annotations.

    Args:
        train_file, test_file: JSON files, see `datamodules.io.find_file`. Without `test_file` a fixed 15 % of the
            images are for testing.
        train_images, test_images: folders of the images, found likewise; default those of the files.
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
