"""Pascal VOC: one XML file for each image, and lists of names that define the splits (Everingham et al. 2010)."""

import codecs
import re
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from datamodules.boxes.annotated import AnnotatedData
from datamodules.boxes.annotations import Annotation, clean_boxes, whole_number
from datamodules.boxes.image_search import ANNOTATION_FOLDERS, ImagesOf, folders_named, images_for
from datamodules.io import IMAGE_SUFFIXES, find_file, read_text, user_files
from datamodules.splits import split_named

BOX_EDGES = ("xmin", "ymin", "xmax", "ymax")
WIDER = {  # encodings that contain the declared one, as which files are often declared that have further characters
    "gb2312": "gb18030", "gbk": "gb18030", "shift_jis": "cp932", "euc_kr": "cp949", "big5": "big5hkscs",
}  # fmt: skip
OTHER_NAMES = {"windows-31j": "cp932", "gb_2312-80": "gb2312"}  # of encodings, that Python does not know


def roots(folder: Path) -> list[Path]:
    """The folders at or below `folder` that hold VOC annotations, such as VOCdevkit/VOC2007 and VOCdevkit/VOC2012."""
    found = [folder, *sorted(folder.glob("VOC*")), *sorted(folder.glob("VOCdevkit/VOC*"))]
    return [path for path in found if _xml_folder(path) != path] or [folder] * bool(_xml_files(folder))


def read_voc(
    folder: Path, split: str | None = None, difficult: bool = False, images: Path | None = None, upright: bool = True
) -> list[Annotation]:
    """The annotations below a folder.

    It holds Annotations/*.xml with JPEGImages/ (or images/) and optionally ImageSets/Main/SPLIT.txt, once or in several
    VOC* folders at or below VOCdevkit; or else *.xml files next to the images. Numbers are read as edges in pixels from
    0: VOC's own count from 1, so that its boxes lie one pixel to the right; those of most annotation tools are exact.

    Args:
        folder: as above.
        split: list of ImageSets/Main to read, such as "trainval"; None reads all files, and then the lists with the
            name of a split say what they are for: if there is one for training, files that are in none are left out.
        difficult: keep the boxes marked difficult, which VOC's own evaluation ignores.
        images: folder of the images; by default they are looked for as in `images_for`.
        upright: as in `clean_boxes`.

    Raises:
        FileNotFoundError: if there are no annotations, no such list, or none of a name in a list.
        ValueError: if a file cannot be read, or two splits have an annotation in common; names it.
    """
    if not (found := roots(folder)):
        raise FileNotFoundError(f"{folder} contains no VOC annotations: expected Annotations/*.xml in it or in VOC*/")
    part_of = {root: _split_of_all(root) if split is None else _in_list(root, split) for root in found}
    if not any(part_of.values()):
        lists = sorted({path.stem for root in found for path in _lists(root)})
        raise FileNotFoundError(f"{folder} has no ImageSets/Main/{split}.txt with names in it: expected one of {lists}")
    annotations = []
    for root, parts in part_of.items():
        images_of = images_for(_xml_folder(root), [path.stem for path in parts], images)
        annotations += [read_xml(path, difficult, part, images_of, upright) for path, part in parts.items()]
    return annotations


def _xml_files(folder: Path) -> list[Path]:
    return user_files(folder, {".xml"}, deep=False)


def _xml_folder(root: Path) -> Path:
    """The folder of the XML files: a folder Annotations, its folder xmls, or the root itself."""
    places = [place for folder in folders_named(root, ANNOTATION_FOLDERS) for place in (folder, folder / "xmls")]
    return next((place for place in places if _xml_files(place)), root)


def _lists(root: Path) -> list[Path]:
    places = (root / "ImageSets" / "Main", root / "ImageSets")
    return next((files for place in places if (files := user_files(place, {".txt"}, deep=False))), [])


def _in_list(root: Path, split: str) -> dict[Path, str]:
    part, files = "test" if split == "test" else "train", _xml_files(_xml_folder(root))
    return {path: part for file in _lists(root) if file.stem == split for path in _listed(file, files)}


def _split_of_all(root: Path) -> dict[Path, str]:
    """The split of each annotation by the lists; VOC's trainval contains its train and val, of which val counts."""
    files, list_of = _xml_files(_xml_folder(root)), dict[Path, Path]()
    lists = {file: part for file in _lists(root) if (part := split_named(file.stem)) is not None}
    for file in sorted(lists, key=lambda file: file.stem.lower() != "trainval"):
        for path in _listed(file, files):
            other = list_of.get(path, file)
            if lists[other] != lists[file] and (other.stem.lower(), lists[file]) != ("trainval", "val"):
                raise ValueError(
                    f"{path.stem} is in {other} and in {file.name}: expected each image in one of them; remove it from "
                    "the other"
                )
            list_of[path] = file
    part_of = {path: lists[file] for path, file in list_of.items()}
    has_train = "train" in part_of.values()
    return {path: part_of.get(path, "train") for path in files if path in part_of or not has_train}


def _listed(file: Path, annotations: list[Path]) -> list[Path]:
    """The annotations that a list names, one in each line.

    A name may have a folder, a suffix, quotes, other case, or VOC's second column, 1, 0 or -1.

    Raises:
        FileNotFoundError: if there is none of a name.
        ValueError: if the list is not UTF-8.
    """
    of_stem = {path.stem.lower(): path for path in annotations} | {path.stem: path for path in annotations}
    found = []
    for number, line in enumerate((read_text(file) if file.read_bytes().strip() else "").splitlines(), 1):
        if not line.strip():
            continue
        names = [name for entry in (line.strip(), re.sub(r"\s+-?[01]$", "", line.strip())) for name in _names(entry)]
        path = next((of_stem[name] for name in (*names, *map(str.lower, names)) if name in of_stem), None)
        if path is None:
            raise FileNotFoundError(
                f"{annotations[0].parent / names[-1]}.xml does not exist, but {file} names it in line {number}: "
                "expected an annotation for each image of a list; add it, or correct the list"
            )
        found.append(path)
    return found


def _names(entry: str) -> list[str]:
    """What the stem of an annotation may be if a list has this entry."""
    name = entry.strip("\"'").replace("\\", "/").rstrip("/").rpartition("/")[2]
    stem, dot, suffix = name.rpartition(".")
    return [name, stem] if dot and f".{suffix.lower()}" in {*IMAGE_SUFFIXES, ".xml"} else [name]


def read_xml(
    path: Path,
    difficult: bool = False,
    split: str = "train",
    images: ImagesOf | None = None,
    upright: bool = True,
) -> Annotation:
    """The annotation in one file; the image is among the given ones, by default those found by `images_for`.

    Raises:
        ValueError: if it is empty, truncated, or lacks a required element.
    """
    try:
        tree = _parse(path.read_bytes())
    except (ElementTree.ParseError, UnicodeError, LookupError, ValueError) as error:
        problem = "is empty" if not path.stat().st_size else f"cannot be read as XML ({error})"
        raise ValueError(f"{path} {problem}: expected a complete VOC annotation; correct it or remove it") from None
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
    images = images or images_for(path.parent, [path.stem])
    image = images.find((tree.findtext("filename") or "").strip(), path.stem)
    return clean_boxes([Annotation(image, width, height, boxes, names, split)], path, upright)[0]


def _parse(content: bytes) -> ElementTree.Element:
    """XML in any encoding that Python knows: the parser itself refuses those of several bytes, such as GB2312.

    Raises:
        ParseError, UnicodeError, LookupError: if it cannot be read.
    """
    content = content.removeprefix(codecs.BOM_UTF8)
    declared = re.match(rb"<\?xml[^>]*?\sencoding\s*=\s*[\"']([^\"'>]+)[\"'][^>]*\?>", content)
    if declared is None:
        return ElementTree.fromstring(content)
    return ElementTree.fromstring(_decoded(content[declared.end() :], declared[1].decode().lower()))


def _decoded(content: bytes, encoding: str) -> str:
    """Text of a declared encoding, or of UTF-8 where it is that: many tools write UTF-8 whatever they declare."""
    name = codecs.lookup(OTHER_NAMES.get(encoding, encoding.removeprefix("x-"))).name
    if name.startswith(("utf-16", "utf-32")):  # then the declaration could not have been read
        name = "utf-8"
    if not content.isascii():
        with suppress(UnicodeDecodeError):
            text = content.decode()
            # Two bytes may be a letter of UTF-8 and also one of GBK and the like; three bytes hardly ever are.
            has_one_byte_a_letter = len(bytes(range(256)).decode(name, "replace")) == 256
            if has_one_byte_a_letter or any(letter > "\u07ff" for letter in text):
                return text
    return content.decode(WIDER.get(name, name))


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
        read = partial(read_voc, folder, difficult=self.difficult, upright=self.upright)
        if not any(map(_lists, roots(folder))):
            return {"train": read()}
        return {name: read(split) for name, split in self.splits.items()}
