"""Boxes of your own: any format and layout gives the same boxes, splits stay, and sizes and anchors follow the data."""

import csv
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from datamodules.augment.boxes import BoxFlip, BoxZoomShift
from datamodules.batches import Boxed
from datamodules.boxes.anchors import found_anchors, iou
from datamodules.boxes.annotated import MAX_AREA, size_for
from datamodules.boxes.annotations import Annotation
from datamodules.boxes.base import BoxedInMemory
from datamodules.boxes.box_folder import BoxFolder
from datamodules.boxes.read import read_annotations
from datamodules.boxes.voc import read_voc
from datamodules.splits import split_in
from helpers import Synthetic, draw_picture

SIZE = (64, 48)
NAMES = [f"zelle {i}.jpg" for i in range(20)]
BOXES = {  # of each image; the fourth has none
    name: [(("Katze", "Vögel")[(i + k) % 2], (2.0 + i, 3.0 + k, 22.0 + i, 20.0 + 5 * k)) for k in range(i % 4)]
    for i, name in enumerate(NAMES, 1)
}
PARTS = {"train": NAMES[:14], "val": NAMES[14:17], "test": NAMES[17:]}


def write_images(folder: Path, names: list[str]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        draw_picture(NAMES.index(name), SIZE).save(folder / name)
    return folder


def coco(names: list[str], prefix: str = "") -> str:
    kinds = ["Katze", "Vögel"]
    boxes = [(i, kind, box) for i, name in enumerate(names) for kind, box in BOXES[name]]
    content = {
        "images": [
            {"id": i, "file_name": prefix + name, "width": SIZE[0], "height": SIZE[1]} for i, name in enumerate(names)
        ],
        "categories": [{"id": i, "name": kind} for i, kind in enumerate(kinds)],
        "annotations": [
            {"id": n, "image_id": i, "category_id": kinds.index(kind), "bbox": [x, y, X - x, Y - y]}
            for n, (i, kind, (x, y, X, Y)) in enumerate(boxes)
        ],
    }
    return json.dumps(content)


def via(names: list[str]) -> str:
    def region(kind: str, box: tuple) -> dict:
        x, y, X, Y = box
        shape = {"name": "rect", "x": x, "y": y, "width": X - x, "height": Y - y}
        return {"shape_attributes": shape, "region_attributes": {"Art": kind}}

    return json.dumps({name: {"filename": name, "regions": [region(*each) for each in BOXES[name]]} for name in names})


def xml(name: str) -> str:
    objects = "".join(
        f"<object><name>{kind}</name><bndbox><xmin>{x}</xmin><ymin>{y}</ymin><xmax>{X}</xmax><ymax>{Y}</ymax></bndbox>"
        "</object>"
        for kind, (x, y, X, Y) in BOXES[name]
    )
    return f"<annotation><size><width>{SIZE[0]}</width><height>{SIZE[1]}</height></size>{objects}</annotation>"


def write_table(path: Path, split_of: dict[str, str] | None = None) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "w", newline="", encoding="utf-8") as file:
        rows = csv.writer(file)
        split = ["split"] if split_of else []
        rows.writerow(["image_id", "width", "height", "class", "xmin", "ymin", "xmax", "ymax", *split])
        for name, boxes in BOXES.items():
            end = [split_of[name]] if split_of else []
            for kind, box in boxes or [("", ("", "", "", ""))]:
                rows.writerow([Path(name).stem, *SIZE, kind, *box, *end])


# Layouts without splits


def voc_folders(root: Path) -> None:
    write_images(root / "JPEGImages", NAMES)
    (root / "Annotations").mkdir()
    for name in NAMES:
        (root / "Annotations" / name).with_suffix(".xml").write_text(xml(name), encoding="utf-8")


def xml_beside_images(root: Path) -> None:
    write_images(root, NAMES)
    for name in NAMES:
        (root / name).with_suffix(".xml").write_text(xml(name), encoding="utf-8")


def xml_above_images(root: Path) -> None:
    write_images(root / "images", NAMES)
    for name in NAMES:
        (root / name).with_suffix(".xml").write_text(xml(name), encoding="utf-8")


def coco_beside_images(root: Path) -> None:
    write_images(root, NAMES)
    (root / "labels.json").write_text(coco(NAMES))


def coco_in_annotations(root: Path) -> None:
    write_images(root / "images", NAMES)
    (root / "annotations").mkdir()
    (root / "annotations" / "all.json").write_text(coco(NAMES))


def coco_with_paths(root: Path) -> None:
    write_images(root / "images" / "first", NAMES)
    (root / "all.json").write_text(coco(NAMES, prefix="images/first/"))


def coco_and_a_folder_of_another_name(root: Path) -> None:
    write_images(root / "Aufnahmen", NAMES)
    write_images(root / "Anderes", NAMES[:2])
    (root / "all.json").write_text(coco(NAMES))


def via_above_images(root: Path) -> None:
    write_images(root / "Images", NAMES)
    (root / "via_region_data.json").write_text(via(NAMES))


def table_of_names_without_suffix(root: Path) -> None:
    write_images(root / "images", NAMES)
    write_table(root / "table.csv")


LAYOUTS = [
    voc_folders,
    xml_beside_images,
    xml_above_images,
    coco_beside_images,
    coco_in_annotations,
    coco_with_paths,
    coco_and_a_folder_of_another_name,
    via_above_images,
    table_of_names_without_suffix,
]


def found_in(annotations: list[Annotation]) -> dict[str, list]:
    assert all(annotation.path.is_file() for annotation in annotations)
    return {
        a.path.name: [(kind, tuple(box)) for kind, box in zip(a.names, a.boxes.tolist(), strict=True)]
        for a in annotations
    }


@pytest.mark.parametrize("write", LAYOUTS)
def test_every_layout_gives_the_same_boxes_and_15_percent_are_held_out_twice(tmp_path, write, capfd):
    write(tmp_path)
    data = BoxFolder(str(tmp_path), batch_size=4)
    assert found_in(data.found["train"]) == BOXES
    assert data.classes == ("Katze", "Vögel")
    data.setup("fit")
    assert {split: len(dataset) for split, dataset in data.datasets.items()} == {"train": 14, "val": 3, "test": 3}
    assert "30 boxes of 2 classes (Katze, Vögel) in images: 14 train, 3 test, 3 val" in capfd.readouterr().err


@pytest.mark.parametrize("write", [coco_beside_images, via_above_images, table_of_names_without_suffix, voc_folders])
def test_the_folder_of_the_images_can_be_given(tmp_path, write):
    write(tmp_path / "boxes")
    for path in [*(tmp_path / "boxes").rglob("*.jpg")]:
        path.unlink()
    write_images(tmp_path / "elsewhere" / "part", NAMES)
    images = tmp_path / "elsewhere" / "part"
    assert found_in(BoxFolder(str(tmp_path / "boxes"), images=str(images)).found["train"]) == BOXES
    if write is not voc_folders:  # or the folder above them
        assert found_in(BoxFolder(str(tmp_path / "boxes"), images=str(images.parent)).found["train"]) == BOXES


# Layouts with splits


def coco_folder_for_each(root: Path) -> None:
    for split, names in PARTS.items():
        folder = write_images(root / {"val": "valid"}.get(split, split), names)
        (folder / "_annotations.coco.json").write_text(coco(names))


def coco_file_for_each(root: Path) -> None:
    (root / "annotations").mkdir(parents=True)
    for split, names in PARTS.items():
        write_images(root / f"{split}2017", names)
        (root / "annotations" / f"instances_{split}2017.json").write_text(coco(names))
        (root / "annotations" / f"captions_{split}2017.json").write_text("{}")


def via_file_for_each(root: Path) -> None:
    write_images(root / "images", NAMES)
    for split, names in PARTS.items():
        (root / f"via_{split}.json").write_text(via(names))


def voc_lists(root: Path) -> None:
    voc_folders(root)
    lists = root / "ImageSets" / "Main"
    lists.mkdir(parents=True)
    for split, names in PARTS.items():
        (lists / f"{split}.txt").write_text("".join(f"{Path(name).stem}\n" for name in names))


def table_with_a_column(root: Path) -> None:
    write_images(root, NAMES)
    words = {"train": "trainval", "val": "my_validation", "test": "TEST"}
    write_table(root / "a.csv", {name: words[split] for split, names in PARTS.items() for name in names})


SPLIT_LAYOUTS = [coco_folder_for_each, coco_file_for_each, via_file_for_each, voc_lists, table_with_a_column]


@pytest.mark.parametrize("write", SPLIT_LAYOUTS)
def test_splits_that_come_apart_stay(tmp_path, write):
    write(tmp_path)
    data = BoxFolder(str(tmp_path), batch_size=4)
    for split, names in PARTS.items():
        assert found_in(data.found[split]) == {name: BOXES[name] for name in names}
    data.setup("fit")
    assert {split: len(dataset) for split, dataset in data.datasets.items()} == {"train": 14, "val": 3, "test": 3}


def test_without_a_test_split_validation_serves_as_it(tmp_path):
    coco_folder_for_each(tmp_path)
    shutil.rmtree(tmp_path / "test")
    data = BoxFolder(str(tmp_path))
    data.setup("fit")
    assert len(data.datasets["val"]) == len(data.datasets["test"]) == 3


@pytest.mark.parametrize(
    ("name", "split"), [("instances_val2017", "val"), ("bccd_trainval", "train"), ("testify", None), ("boxes", None)]
)
def test_a_split_is_a_word_of_the_name(name, split):
    assert split_in(name) == split


# What cannot be read


def several_files(root: Path) -> None:
    coco_beside_images(root)
    (root / "more.json").write_text(coco(NAMES))


def no_images(root: Path) -> None:
    coco_beside_images(root)
    for path in root.glob("*.jpg"):
        path.unlink()


def only_a_test_split(root: Path) -> None:
    write_images(root, NAMES)
    write_table(root / "a.csv", dict.fromkeys(NAMES, "test"))


def in_two_splits(root: Path) -> None:
    coco_folder_for_each(root)
    shutil.copy(root / "train" / NAMES[0], root / "valid" / NAMES[14])


@pytest.mark.parametrize(
    ("write", "error", "message"),
    [
        (lambda root: root.mkdir(exist_ok=True), FileNotFoundError, "contains no annotations: expected Annotations"),
        (
            several_files,
            FileNotFoundError,
            r"2 JSON or CSV files, such as labels\.json and more\.json: expected",
        ),
        (
            no_images,
            FileNotFoundError,
            r"zelle 0\.jpg is annotated but does not exist.* or give the folder",
        ),
        (only_a_test_split, ValueError, r"no image for training: expected some besides those of \['test'\]"),
        (in_two_splits, ValueError, "are the same image, in train and in val"),
    ],
)
def test_what_is_missing_is_one_clear_error(tmp_path, write: Callable[[Path], None], error, message):
    write(tmp_path)
    with pytest.raises(error, match=message):
        BoxFolder(str(tmp_path))


def test_an_epoch_of_no_images_is_refused(tmp_path):
    coco_beside_images(tmp_path)
    with pytest.raises(ValueError, match="epoch_images is 0: expected 1 or more"):
        BoxFolder(str(tmp_path), epoch_images=0)


# What follows the data


@settings(max_examples=50, deadline=None)
@given(st.integers(20, 5000), st.integers(20, 5000))
def test_the_size_has_about_the_shape_of_the_images_and_is_not_larger(width, height):
    rows, columns = size_for([Annotation(Path("a"), width, height, [], [])] * 3)
    assert rows % 32 == columns % 32 == 0
    assert min(rows, columns) >= 64
    if 0.5 < width / height < 2 and min(width, height) >= 64:
        assert rows * columns <= 1.3 * MAX_AREA
        assert columns <= width + 16
        assert rows <= height + 16
        assert 0.7 < columns / rows / (width / height) < 1.5


def test_real_sizes():
    assert size_for([Annotation(Path("a"), 640, 480, [], [])]) == (256, 320)
    assert size_for([Annotation(Path("a"), 128, 96, [], [])]) == (96, 128)


@pytest.mark.parametrize("in_memory", [True, False])
def test_an_epoch_of_a_given_length_goes_over_all_images_equally_often(tmp_path, in_memory):
    coco_beside_images(tmp_path)
    data = BoxFolder(
        str(tmp_path), epoch_images=7, batch_size=7, in_memory=in_memory, num_workers=0, image_size=(32, 32)
    )
    data.setup("fit")
    loader, seen = data._loader("train"), []
    for epoch in range(4):
        loader.set_epoch(epoch)
        (batch,) = loader
        assert isinstance(batch, Boxed)
        seen += [image.float().sum().item() for image in batch.image]
    assert len(set(seen)) == 14
    assert all(seen.count(value) == 2 for value in seen)
    assert seen[:14] != seen[14:]


# Anchors


def test_anchors_are_those_of_the_training_boxes_in_shares_of_the_image(tmp_path, capfd):
    coco_beside_images(tmp_path)
    for options in ({}, {"in_memory": False, "num_workers": 0}, {"epoch_images": 5}):
        data = BoxFolder(str(tmp_path), **options)
        data.setup("fit")
        boxes = np.concatenate([a.boxes for a in data.found["train"] if len(a.boxes)])
        every = {tuple(size) for size in np.round((boxes[:, 2:] - boxes[:, :2]) / SIZE, 3)}
        anchors = data.anchors(2)
        assert "mean IoU" in capfd.readouterr().err
        assert len(anchors) == 2
        assert np.array(anchors).min() >= np.array([*every]).min() - 1e-3
        assert np.array(anchors).max() <= np.array([*every]).max() + 1e-3


@settings(max_examples=20, deadline=None)
@given(st.integers(1, 9), st.integers(1, 5), st.integers(1, 30))
def test_there_are_as_many_different_anchors_as_asked_for(k, different, count):
    sizes = np.random.default_rng(different).uniform(0.05, 0.6, (different, 2))
    sizes = np.concatenate([sizes] * count)
    anchors, score = found_anchors(sizes, k)
    assert len({tuple(anchor) for anchor in anchors}) == len(anchors) == k
    assert 0 < min(map(min, anchors)) <= max(map(max, anchors)) <= 1
    assert score == pytest.approx(iou(sizes, np.array(anchors)).max(1).mean(), abs=1e-3)
    assert score > 0.98 or k < different


def test_without_boxes_there_are_no_anchors():
    data = BoxedInMemory(torch.zeros(2, 3, 8, 8, dtype=torch.uint8), [torch.zeros(0, 4)] * 2, [torch.zeros(0)] * 2)
    with pytest.raises(ValueError, match="the training images have no boxes"):
        found_anchors(data.sizes(), 3)


# Large folders


def test_a_folder_is_listed_once_whatever_the_number_of_annotations(tmp_path, monkeypatch):
    voc_folders(tmp_path)
    listed = []
    scandir = __import__("os").scandir
    monkeypatch.setattr("os.scandir", lambda path: listed.append(str(path)) or scandir(path))
    assert len(read_voc(tmp_path)) == 20
    assert sum(path.endswith("JPEGImages") for path in listed) <= 3


def test_sizes_are_read_from_headers(tmp_path, monkeypatch):
    via_above_images(tmp_path)
    monkeypatch.setattr("PIL.ImageFile.ImageFile.load", lambda self: pytest.fail("decoded"))
    assert {(a.width, a.height) for a in read_annotations(tmp_path)} == {SIZE}


# Augmentation


@pytest.mark.parametrize("augmentation", [BoxFlip(), BoxZoomShift()])
def test_augmentations_of_boxes_refuse_data_without_boxes_before_the_training(augmentation):
    with pytest.raises(ValueError, match="moves images with their boxes, but the batches are Labelled: expected"):
        Synthetic(augment=[augmentation]).setup("fit")


def test_augmentations_of_boxes_take_images_with_boxes(tmp_path):
    coco_beside_images(tmp_path)
    BoxFolder(str(tmp_path), augment=[BoxFlip(), BoxZoomShift()]).setup("fit")
