"""Images with boxes of your own, in whatever format the boxes are."""

from typing import Any

from torch.utils.data import Dataset

from datamodules.boxes.annotated import AnnotatedData
from datamodules.boxes.annotations import Annotation
from datamodules.boxes.read import read_annotations
from datamodules.io import find_file
from datamodules.loader import num_samples
from datamodules.messages import report


class BoxFolder(AnnotatedData):
    """Images with boxes in a format that is recognized: Pascal VOC, COCO, VGG Image Annotator, or a table in CSV.

    Splits that come apart are kept: lists of VOC, a column `split`, a file or a folder for each. Without them a fixed
    15 % of the images become validation and 15 % test.

    Args:
        folder: folder or file of annotations, see `datamodules.boxes.read.read_annotations`.
        images: folder of the images; by default they are looked for beside the annotations.
        attribute: of VGG Image Annotator: the region attribute that holds the class; needed only if there are several.
        image_size, val_size, in_memory: see `AnnotatedData`; by default all follow the data.
        options: see `AnnotatedData`.

    Raises:
        FileNotFoundError, ValueError: as in `AnnotatedData` and `read_annotations`.
    """

    def __init__(
        self,
        folder: str,
        images: str | None = None,
        attribute: str | None = None,
        image_size: tuple[int, int] | None = None,
        val_size: int | None = None,
        in_memory: bool | None = None,
        **options: Any,
    ) -> None:
        self.folder, self.images, self.attribute = folder, images, attribute
        super().__init__(image_size=image_size, val_size=val_size, in_memory=in_memory, **options)

    def annotations(self) -> dict[str, list[Annotation]]:
        source = find_file(self.folder, "a file or folder of annotations", self.data_dir)
        images = find_file(self.images, "a folder of images", self.data_dir) if self.images else None
        found: dict[str, list[Annotation]] = {"train": []}
        for annotation in read_annotations(source, self.attribute, images, self.upright):
            found.setdefault(annotation.split, []).append(annotation)
        if not found["train"]:
            raise ValueError(
                f"{source} has no image for training: expected some besides those of {[*found][1:]}; add them"
            )
        return found

    def make_datasets(self) -> dict[str, Dataset]:
        datasets = super().make_datasets()
        counts = ", ".join(f"{num_samples(getattr(data, 'dataset', data))} {split}" for split, data in datasets.items())
        boxes = sum(len(annotation.names) for annotations in self.found.values() for annotation in annotations)
        names = ", ".join(self.classes[:5]) + ", ..." * (len(self.classes) > 5)
        _, height, width = self.image_shape
        report(
            f"{self.folder}: {boxes} boxes of {len(self.classes)} classes ({names}) in images: {counts}; "
            f"seen in {width} x {height} pixels"
        )
        return datasets
