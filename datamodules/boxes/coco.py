"""The COCO schema: one JSON file for a whole set of pictures, boxes as left, top, width, height (Lin et al. 2014)."""

from collections import defaultdict
from pathlib import Path
from typing import Any

from datamodules.boxes.annotations import Annotation, clean_boxes, image_of_annotation, read_json
from datamodules.boxes.base import AnnotatedData
from datamodules.io import find_file


def read_coco(path: Path, images: Path | None = None, content: Any = None) -> list[Annotation]:
    """The annotations of a JSON file with "images", "annotations" and "categories"; crowds (`iscrowd`) are left out.

    Args:
        path: of the file.
        images: folder of the pictures; default that of the file.
        content: of the file, if it has been read already.

    Raises:
        FileNotFoundError: if the file is not there.
        ValueError: if it can't be read or is not in this schema; names it.
    """
    content = read_json(path) if content is None else content
    try:
        classes = {category["id"]: str(category["name"]) for category in content["categories"]}
        pictures = {
            picture["id"]: (str(picture["file_name"]), (picture.get("width") or 0, picture.get("height") or 0))
            for picture in content["images"]
        }
        boxes, names = defaultdict(list), defaultdict(list)
        for item in content["annotations"]:
            left, top, width, height = map(float, item["bbox"])
            picture, category = item["image_id"], item["category_id"]
            if picture not in pictures or category not in classes:
                which = f"image {picture}" if picture not in pictures else f"category {category}"
                raise ValueError(f"annotation {item.get('id')} is of {which}, which is not defined")
            if not item.get("iscrowd"):
                boxes[picture].append((left, top, left + width, top + height))
                names[picture].append(classes[category])
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        what = f"no {error}" if isinstance(error, KeyError) else error
        raise ValueError(
            f"{path} is not in the COCO schema ({what}): expected images with id and file_name, "
            "annotations with image_id, category_id and bbox, categories with id and name; export it again"
        ) from None
    folder = images or path.parent
    found = [
        Annotation(image_of_annotation(folder, name), *size, boxes[key], names[key])
        for key, (name, size) in pictures.items()
    ]
    return clean_boxes(found, path)


class COCO(AnnotatedData):
    """Images with COCO-schema annotations.

    Args:
        train_file, test_file: JSON files; relative ones are looked for below `data_dir` and then here. Without
            `test_file` a fixed 15 % of the pictures are for testing.
        train_images, test_images: folders of the pictures, found likewise; default those of the files.
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
        **options,
    ) -> None:
        self.files = {"train": (train_file, train_images), "test": (test_file, test_images)}
        super().__init__(**options)

    def annotations(self) -> dict[str, list[Annotation]]:
        return {
            name: read_coco(
                find_file(file, "a file of annotations", self.data_dir),
                images and find_file(images, "a folder of images", self.data_dir),
            )
            for name, (file, images) in self.files.items()
            if file
        }
