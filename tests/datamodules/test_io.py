"""Every path that a user gives is looked for in the working directory first, then in the data folder."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from datamodules.boxes.coco import COCO
from datamodules.boxes.read import read_annotations
from datamodules.boxes.via import VIA
from datamodules.boxes.voc import VOC
from datamodules.captions.files import CaptionList
from datamodules.images.image_folder import ImageFolder
from datamodules.images.single_image import ImagePair
from datamodules.io import find_file
from datamodules.text.sentence_pairs import SentencePairs
from datamodules.text.text import Text
from helpers import draw_picture, verse, write_voc


def write_everything(folder: Path) -> Path:
    """Small files for every datamodule that takes a path, in `folder`."""
    for label, name in enumerate(("bird", "cat")):
        (folder / "classes" / name).mkdir(parents=True)
        for i in range(4):
            draw_picture(10 * label + i, (64, 48)).save(folder / "classes" / name / f"{i}.png")
    lines = [f"classes/cat/{i}.png,image number {i}" for i in range(4)]
    (folder / "list.csv").write_text("\n".join(lines))
    (folder / "verse.txt").write_text(verse(600))
    write_voc(folder / "voc", {"trainval": 6, "test": 2})
    images = [{"id": i, "file_name": f"{i}.png", "width": 64, "height": 48} for i in range(4)]
    boxes = [{"image_id": i, "category_id": 0, "bbox": [1, 2, 8, 9]} for i in range(4)]
    content = {"images": images, "annotations": boxes, "categories": [{"id": 0, "name": "cat"}]}
    (folder / "coco.json").write_text(json.dumps(content))
    region = {
        "shape_attributes": {"name": "rect", "x": 1, "y": 2, "width": 8, "height": 9},
        "region_attributes": {"kind": "cat"},
    }
    content = {str(i): {"filename": f"{i}.png", "regions": [region]} for i in range(4)}
    (folder / "via.json").write_text(json.dumps(content))
    return folder


def first_image(annotated) -> Path:
    return annotated.found["train"][0].path


# Takes the data folder, and returns a path that was read.
READERS: dict[str, Callable[[str | None], Path]] = {
    "voc.VOC": lambda data_dir: first_image(VOC("voc", data_dir=data_dir)),
    "coco.COCO": lambda data_dir: first_image(COCO("coco.json", train_images="classes/cat", data_dir=data_dir)),
    "via.VIA": lambda data_dir: first_image(VIA("via.json", train_images="classes/cat", data_dir=data_dir)),
    "image_folder.ImageFolder": lambda data_dir: ImageFolder("classes", data_dir=data_dir).folder,
    "single_image.ImagePair": lambda data_dir: ImagePair("classes/cat/0.png", data_dir=data_dir).content,
    "single_image.ImagePair, style": lambda data_dir: (
        ImagePair("classes/cat/0.png", style="classes/bird/1.png", data_dir=data_dir).style
    ),
    "captions.files.CaptionList": lambda data_dir: CaptionList("list.csv", data_dir=data_dir).pairs[0][0],
}


@pytest.fixture(autouse=True)
def places(tmp_path, monkeypatch) -> tuple[Path, Path]:
    """An empty working directory, and a data folder that holds everything."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    here, data = tmp_path / "here", write_everything(tmp_path / "data folder")
    here.mkdir()
    monkeypatch.chdir(here)
    return here, data


@pytest.mark.parametrize("read", READERS.values(), ids=READERS.keys())
@pytest.mark.parametrize("by_environment", [True, False])
def test_the_working_directory_comes_before_the_data_folder(read, by_environment, places, monkeypatch):
    here, data = places
    if by_environment:
        monkeypatch.setenv("ZOO_DATA", str(data))
    data_dir = None if by_environment else str(data)
    assert (here / read(data_dir)).is_relative_to(data)
    write_everything(here)
    assert (here / read(data_dir)).is_relative_to(here)
    shutil.rmtree(data)
    assert (here / read(data_dir)).is_relative_to(here)


@pytest.mark.parametrize("source", ["voc", "coco.json", "via.json"])
def test_annotations_in_any_format_are_found_by_the_same_rule(source, places, monkeypatch):
    here, data = places
    monkeypatch.setenv("ZOO_DATA", str(data))
    for name in ("coco.json", "via.json"):  # by default their images are in the same folder
        (data / name).rename(data / "classes" / "cat" / name)
        if name == source:
            source = f"classes/cat/{name}"
    assert read_annotations(source)[0].path.is_relative_to(data)
    shutil.copytree(data, here, dirs_exist_ok=True)
    assert (here / read_annotations(source)[0].path).is_relative_to(here)
    assert read_annotations(data / source)[0].path.is_relative_to(data)


@pytest.mark.parametrize("kind", [Text, SentencePairs])
def test_texts_are_found_by_the_same_rule(kind, places):
    here, data = places
    options = {"context": 8} if kind is Text else {"segment": 8, "vocab_size": 300}

    def length(file: str) -> int:
        return len(kind(file, data_dir=str(data), **options).ids["train"])

    long = length("verse.txt")
    (here / "verse.txt").write_text(verse(300))
    assert length("verse.txt") < long
    assert length(str(data / "verse.txt")) == long


@pytest.mark.parametrize("read", READERS.values(), ids=READERS.keys())
def test_a_path_in_neither_is_one_error_that_names_both_and_the_remedy(read, places):
    with pytest.raises(
        FileNotFoundError, match=r"does not exist, neither here nor in elsewhere: expected an? .*ZOO_DATA"
    ) as caught:
        read("elsewhere")
    assert "\n" not in str(caught.value)


def test_an_absolute_path_is_taken_as_it_is(tmp_path, places):
    _, data = places
    assert find_file(data / "list.csv", "a list", "elsewhere") == data / "list.csv"
    with pytest.raises(
        FileNotFoundError, match=rf"^{tmp_path / 'none'} does not exist: expected a list; check the path"
    ):
        find_file(tmp_path / "none", "a list")
