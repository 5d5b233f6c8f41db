"""Pascal VOC: one XML file a picture, and lists of names that make the splits (Everingham et al. 2010)."""

from collections.abc import Iterator
from pathlib import Path
from xml.etree import ElementTree

from datamodules.boxes.annotations import Annotation, clean_boxes, image_of_annotation
from datamodules.boxes.base import AnnotatedData
from datamodules.io import find_file


def roots(folder: Path) -> list[Path]:
    """The folders at or below `folder` that hold VOC annotations, such as VOCdevkit/VOC2007 and VOCdevkit/VOC2012."""
    found = [folder, *sorted(folder.glob("VOC*")), *sorted(folder.glob("VOCdevkit/VOC*"))]
    found = [path for path in found if (path / "Annotations").is_dir()]
    return found or [folder] * any(folder.glob("*.xml"))


def read_voc(folder: Path, split: str | None = None, difficult: bool = False) -> list[Annotation]:
    """The annotations below a folder.

    It holds Annotations/*.xml with JPEGImages/ and maybe ImageSets/Main/SPLIT.txt, once or in several VOC* folders
    at or below VOCdevkit; or else *.xml files beside the pictures. Numbers are read as edges in pixels from 0: VOC's
    own count from 1 and so lie a pixel to the right, those of most annotation tools are exact.

    Args:
        folder: as above.
        split: list of ImageSets/Main to read, such as "trainval"; None reads all files.
        difficult: keep the boxes marked difficult, which VOC's own evaluation passes over.

    Raises:
        FileNotFoundError: if there are no annotations, or no such list.
        ValueError: if a file can't be read; names it.
    """
    if not (found := roots(folder)):
        raise FileNotFoundError(f"{folder} holds no VOC annotations: expected Annotations/*.xml in it or in VOC*/")
    stems = [(root, stem, part) for root in found for stem, part in _listed(root, split)]
    if not stems:
        lists = sorted({path.stem for root in found for path in root.glob("ImageSets/Main/*.txt")})
        raise FileNotFoundError(f"{folder} has no ImageSets/Main/{split}.txt with names in it: expected one of {lists}")
    return [
        read_xml((root / "Annotations" if (root / "Annotations").is_dir() else root) / f"{stem}.xml", difficult, part)
        for root, stem, part in stems
    ]


def _listed(root: Path, split: str | None) -> Iterator[tuple[str, str]]:
    """(file name without suffix, "train" or "test") of the annotations of `make_datasets`."""
    lists = root / "ImageSets" / "Main"
    names = {path.stem: path.read_text().split() for path in lists.glob("*.txt") if path.stem in (split, "test")}
    if split is not None:
        yield from ((stem, "test" if split == "test" else "train") for stem in names.get(split, []))
        return
    test = set(names.get("test", []))
    for path in sorted((root / "Annotations" if (root / "Annotations").is_dir() else root).glob("*.xml")):
        yield path.stem, "test" if path.stem in test else "train"


def read_xml(path: Path, difficult: bool = False, split: str = "train") -> Annotation:
    """One annotation file.

    Raises:
        FileNotFoundError: if it is not there.
        ValueError: if it is empty, cut off, or lacks what an annotation needs.
    """
    try:
        tree = ElementTree.parse(path).getroot()
    except ElementTree.ParseError as error:
        what = "is empty" if not path.stat().st_size else f"is no XML that can be read ({error})"
        raise ValueError(f"{path} {what}: expected a whole VOC annotation; mend it or take it out") from None
    except FileNotFoundError:
        raise FileNotFoundError(f"{path} is not there: expected the annotation of a picture that is listed") from None
    objects = [item for item in tree.iter("object") if difficult or (item.findtext("difficult") or "0").strip() != "1"]
    try:
        size = (float(tree.findtext("size/width") or 0), float(tree.findtext("size/height") or 0))
        boxes = [[float(item.findtext(f"bndbox/{edge}")) for edge in EDGES] for item in objects]
        names = [item.findtext("name").strip() for item in objects]
    except (TypeError, AttributeError, ValueError):
        raise ValueError(f"{path} has an object without a name or a number {EDGES} in bndbox; mend it") from None
    folder = path.parent.parent / "JPEGImages" if path.parent.name == "Annotations" else path.parent
    picture = image_of_annotation(folder, (tree.findtext("filename") or "").strip(), path.stem)
    return clean_boxes([Annotation(picture, *size, boxes, names, split)], path)[0]


EDGES = ("xmin", "ymin", "xmax", "ymax")


class VOC(AnnotatedData):
    """Images with VOC annotations.

    Args:
        folder: as in `read_voc`; a relative one is looked for below `data_dir` and then here.
        train_split, test_split: lists in ImageSets/Main. Of a folder without such lists a fixed 15 % are for testing.
        difficult: keep the boxes marked difficult.
        options: as in `AnnotatedData`.

    Raises:
        FileNotFoundError, ValueError: as in `AnnotatedData`.
    """

    def __init__(
        self,
        folder: str,
        train_split: str = "trainval",
        test_split: str = "test",
        difficult: bool = False,
        **options,
    ) -> None:
        self.folder, self.splits, self.difficult = folder, {"train": train_split, "test": test_split}, difficult
        super().__init__(**options)

    def annotations(self) -> dict[str, list[Annotation]]:
        folder = find_file(self.folder, "a folder or file of annotations", self.data_dir)
        if not any((root / "ImageSets" / "Main").is_dir() for root in roots(folder)):
            return {"train": read_voc(folder, None, self.difficult)}
        return {name: read_voc(folder, split, self.difficult) for name, split in self.splits.items()}
