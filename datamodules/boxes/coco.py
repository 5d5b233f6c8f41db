"""The COCO schema: one JSON file for a set of images, boxes as left, top, width, height.

Lin et al. 2014, "Microsoft COCO: Common Objects in Context".
"""

from collections import defaultdict
from pathlib import Path
from typing import Any

from datamodules.boxes.annotations import Annotation, clean_boxes, image_of_annotation, read_json
from datamodules.boxes.base import AnnotatedData


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
        classes = {category["id"]: str(category["name"]) for category in content["categories"]}
        described = {
            image["id"]: (str(image["file_name"]), (image.get("width") or 0, image.get("height") or 0))
            for image in content["images"]
        }
        boxes, names = defaultdict(list), defaultdict(list)
        for item in content["annotations"]:
            left, top, width, height = map(float, item["bbox"])
            image, category = item["image_id"], item["category_id"]
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
    folder = images or path.parent
    annotations = [
        Annotation(image_of_annotation(folder, name), *size, boxes=boxes[key], names=names[key])
        for key, (name, size) in described.items()
    ]
    return clean_boxes(annotations, path)


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
