"""Pascal VOC: one XML file for each image, and lists of names that define the splits (Everingham et al. 2010)."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from datamodules.boxes.annotated import AnnotatedData
from datamodules.boxes.annotations import Annotation, ImagesOf, clean_boxes, whole_number
from datamodules.io import IMAGE_SUFFIXES, find_file, user_files

BOX_EDGES = ("xmin", "ymin", "xmax", "ymax")
XML_FOLDERS, IMAGE_FOLDERS = ("Annotations", "annotations"), ("JPEGImages", "images", "Images")


def roots(folder: Path) -> list[Path]:
    """The folders at or below `folder` that hold VOC annotations, such as VOCdevkit/VOC2007 and VOCdevkit/VOC2012."""
    found = [folder, *sorted(folder.glob("VOC*")), *sorted(folder.glob("VOCdevkit/VOC*"))]
    found = [
        path for path in found if _xml_folder(path) != path and user_files(_xml_folder(path), {".xml"}, deep=False)
    ]
    return found or [folder] * bool(user_files(folder, {".xml"}, deep=False))


def read_voc(
    folder: Path, split: str | None = None, difficult: bool = False, images: Path | None = None
) -> list[Annotation]:
    """The annotations below a folder.

    It holds Annotations/*.xml with JPEGImages/ (or images/) and optionally ImageSets/Main/SPLIT.txt, once or in several
    VOC* folders at or below VOCdevkit; or else *.xml files next to the images. Numbers are read as edges in pixels from
    0: VOC's own count from 1, so that its boxes lie one pixel to the right; those of most annotation tools are exact.

    Args:
        folder: as above.
        split: list of ImageSets/Main to read, such as "trainval"; None reads all files, and then the lists test and
            val say what they are for.
        difficult: keep the boxes marked difficult, which VOC's own evaluation ignores.
        images: folder of the images, if it is another one.

    Raises:
        FileNotFoundError: if there are no annotations, or no such list.
        ValueError: if a file cannot be read; names it.
    """
    if not (found := roots(folder)):
        raise FileNotFoundError(f"{folder} contains no VOC annotations: expected Annotations/*.xml in it or in VOC*/")
    stems = [(root, stem, part) for root in found for stem, part in _listed(root, split)]
    if not stems:
        lists = sorted({path.stem for root in found for path in root.glob("ImageSets/Main/*.txt")})
        raise FileNotFoundError(f"{folder} has no ImageSets/Main/{split}.txt with names in it: expected one of {lists}")
    images_of = {root: ImagesOf(images or image_folder(_xml_folder(root))) for root in found}
    return [read_xml(_xml_folder(root) / f"{stem}.xml", difficult, part, images_of[root]) for root, stem, part in stems]


def _xml_folder(root: Path) -> Path:
    return next((root / name for name in XML_FOLDERS if (root / name).is_dir()), root)


def image_folder(xml_folder: Path) -> Path:
    """The folder of the images that are annotated in a folder: itself, or one beside or below it."""
    parent = xml_folder.parent
    beside = [*(parent / name for name in IMAGE_FOLDERS), xml_folder, parent]
    below = [xml_folder, *(xml_folder / name for name in IMAGE_FOLDERS)]
    places = beside if xml_folder.name in XML_FOLDERS else below
    return next((place for place in places if user_files(place, IMAGE_SUFFIXES, deep=False)), places[0])


def _names(path: Path) -> list[str]:
    """The names in a list: one in each line, with or without a suffix; VOC's second column, 1, 0 or -1, is left out."""
    names = []
    for line in path.read_text(encoding="utf-8-sig").splitlines():
        name = re.sub(r"\s+-?[01]$", "", line.strip())
        stem, dot, suffix = name.rpartition(".")
        name = stem if dot and f".{suffix.lower()}" in {*IMAGE_SUFFIXES, ".xml"} else name
        names += [name] if name else []
    return names


def _listed(root: Path, split: str | None) -> Iterator[tuple[str, str]]:
    """(file name without suffix, split) of each annotation in the list `split`; of all if it is None."""
    lists = root / "ImageSets" / "Main"
    files = user_files(lists, {".txt"}, deep=False)
    names = {path.stem: _names(path) for path in files if path.stem in (split, "val", "test")}
    if split is not None:
        yield from ((stem, "test" if split == "test" else "train") for stem in names.get(split, []))
        return
    part_of = {stem: part for part in ("val", "test") for stem in names.get(part, [])}
    for path in user_files(_xml_folder(root), {".xml"}, deep=False):
        yield path.stem, part_of.get(path.stem, "train")


def read_xml(path: Path, difficult: bool = False, split: str = "train", images: ImagesOf | None = None) -> Annotation:
    """The annotation in one file; the image is among the given ones, by default those beside the file.

    Raises:
        FileNotFoundError: if it does not exist.
        ValueError: if it is empty, truncated, or lacks a required element.
    """
    try:
        tree = _parse(path.read_bytes())
    except (ElementTree.ParseError, UnicodeError, LookupError, ValueError) as error:
        problem = "is empty" if not path.stat().st_size else f"cannot be read as XML ({error})"
        raise ValueError(f"{path} {problem}: expected a complete VOC annotation; correct it or remove it") from None
    except FileNotFoundError:
        raise FileNotFoundError(
            f"{path} does not exist: expected the annotation of an image that is in a list; add it, or correct the list"
        ) from None
    objects = [item for item in tree.iter("object") if difficult or (item.findtext("difficult") or "0").strip() != "1"]
    try:
        width, height = (whole_number(tree.findtext(f"size/{side}") or 0) for side in ("width", "height"))
        boxes = [[float(_text(item, f"bndbox/{edge}")) for edge in BOX_EDGES] for item in objects]
        names = [_text(item, "name").strip() for item in objects]
    except ValueError:
        raise ValueError(
            f"{path} has an object without a name or without numbers: expected a name, and {', '.join(BOX_EDGES)} in "
            "bndbox; correct it"
        ) from None
    images = images or ImagesOf(image_folder(path.parent))
    image = images.find((tree.findtext("filename") or "").strip(), path.stem)
    return clean_boxes([Annotation(image, width, height, boxes, names, split)], path)[0]


def _parse(content: bytes) -> ElementTree.Element:
    """XML in any encoding that Python knows: the parser itself refuses those of several bytes, such as GB2312.

    Raises:
        ParseError, UnicodeError, LookupError: if it cannot be read.
    """
    declared = re.match(rb"<\?xml[^>]*encoding=[\"']([\w.-]+)[\"'][^>]*\?>", content)
    if declared is None or declared[1].lower() in (b"utf-8", b"utf8", b"utf-16"):
        return ElementTree.fromstring(content)
    # GB18030 contains the older GB2312 and GBK, as which files are often declared that have further characters.
    encoding = declared[1].decode().lower()
    encoding = "gb18030" if encoding in ("gb2312", "gbk", "cp936") else encoding
    return ElementTree.fromstring(content[declared.end() :].decode(encoding))


def _text(item: ElementTree.Element, path: str) -> str:
    """Raises ValueError if an element does not exist."""
    if (text := item.findtext(path)) is None:
        raise ValueError(path)
    return text


class VOC(AnnotatedData):
    """Images with VOC annotations.

    Args:
        folder: as in `read_voc`; see `datamodules.io.find_file`.
        train_split, test_split: lists in ImageSets/Main. Without such lists a fixed 15 % of the images are for testing.
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
        **options: Any,
    ) -> None:
        self.folder, self.splits, self.difficult = folder, {"train": train_split, "test": test_split}, difficult
        super().__init__(**options)

    def annotations(self) -> dict[str, list[Annotation]]:
        folder = find_file(self.folder, "a folder of VOC annotations", self.data_dir)
        if not any((root / "ImageSets" / "Main").is_dir() for root in roots(folder)):
            return {"train": read_voc(folder, difficult=self.difficult)}
        return {name: read_voc(folder, split, self.difficult) for name, split in self.splits.items()}
