"""What people have: annotations that name another image, ids as text, files of other encodings, copies, and litter."""

import json
import subprocess
import sys
from pathlib import Path

import albumentations as A
import numpy as np
import pytest
from albumentations.pytorch import ToTensorV2
from PIL import Image

from callback_runs import data, model
from datamodules.boxes.coco import COCO
from datamodules.boxes.read import read_annotations
from datamodules.boxes.via import VIA
from datamodules.boxes.voc import VOC, read_voc
from datamodules.images.image_folder import ImageFolder
from datamodules.io import atomic_write, read_image, user_files
from helpers import draw_picture, quiet_trainer
from zoo.command.main import main


def images(folder: Path, *names: str, start: int = 0) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for i, name in enumerate(names, start):
        draw_picture(i, (64, 48)).save(folder / name)
    return folder


def xml(kind: str, file: str, encoding: str = "utf-8", size: tuple[object, object] = (64, 48)) -> bytes:
    return (
        f'<?xml version="1.0" encoding="{encoding}"?><annotation><filename>{file}</filename>'
        f"<size><width>{size[0]}</width><height>{size[1]}</height></size><object><name>{kind}</name>"
        "<bndbox><xmin>1</xmin><ymin>2</ymin><xmax>30</xmax><ymax>40</ymax></bndbox></object></annotation>"
    ).encode(encoding if encoding != "unheard-of" else "utf-8")


def coco() -> dict:
    return {
        "images": [{"id": i, "file_name": f, "width": 64, "height": 48} for i, f in ((1, "a.jpg"), (2, "b.jpg"))],
        "categories": [{"id": 1, "name": "cat"}, {"id": 2, "name": "dog"}],
        "annotations": [
            {"id": i, "image_id": image, "category_id": category, "bbox": [i, 2, 10, 12]}
            for i, image, category in ((1, 1, 1), (2, 1, 2), (3, 2, 1))
        ],
    }


def names_of(annotations) -> dict[str, list[str]]:
    return {annotation.path.name: list(annotation.names) for annotation in annotations}


# Whose boxes these are


def test_an_annotation_belongs_to_the_image_of_its_own_name_whatever_it_says_inside(tmp_path):
    images(tmp_path, "a.jpg", "b.jpg", "c d.png")
    (tmp_path / "a.xml").write_bytes(xml("cat", "a.jpg"))
    (tmp_path / "b.xml").write_bytes(xml("dog", "a.jpg"))
    (tmp_path / "c d.xml").write_bytes(xml("bird", "C:\\old\\b.jpg"))
    assert names_of(read_voc(tmp_path)) == {"a.jpg": ["cat"], "b.jpg": ["dog"], "c d.png": ["bird"]}


def test_the_name_inside_is_used_where_no_image_has_the_annotations_own(tmp_path):
    images(tmp_path, "photo 1.jpg")
    (tmp_path / "0001.xml").write_bytes(xml("cat", "photo 1.jpg"))
    assert names_of(read_voc(tmp_path)) == {"photo 1.jpg": ["cat"]}


@pytest.mark.parametrize("what", ["images", "categories"])
def test_two_coco_entries_with_one_id_are_refused_and_both_named(tmp_path, what):
    content = coco()
    content[what][1]["id"] = content[what][0]["id"]
    (tmp_path / "a.json").write_text(json.dumps(content))
    both = ("a.jpg", "b.jpg") if what == "images" else ("cat", "dog")
    with pytest.raises(ValueError, match=rf"{both[0]} and {both[1]} have the same id 1"):
        read_annotations(tmp_path / "a.json")


@pytest.mark.parametrize("which", ["images", "categories", "references"])
def test_coco_ids_as_text_on_one_side_are_matched(tmp_path, which):
    content = coco()
    for item in content["annotations" if which == "references" else which]:
        for key in ("image_id", "category_id") if which == "references" else ("id",):
            item[key] = str(item[key])
    (tmp_path / "a.json").write_text(json.dumps(content))
    assert names_of(read_annotations(tmp_path / "a.json")) == {"a.jpg": ["cat", "dog"], "b.jpg": ["cat"]}


def test_lists_are_read_line_by_line(tmp_path):
    """Names with spaces, with suffixes, after a byte order mark, and with VOC's second column."""
    images(tmp_path / "JPEGImages", "my cat.jpg", "b.v2.jpg", "c.jpg", "d 1.jpg")
    (tmp_path / "Annotations").mkdir()
    for stem in ("my cat", "b.v2", "c", "d 1"):
        (tmp_path / "Annotations" / f"{stem}.xml").write_bytes(xml("cat", f"{stem}.jpg"))
    lists = tmp_path / "ImageSets" / "Main"
    lists.mkdir(parents=True)
    (lists / "train.txt").write_bytes("\ufeffmy cat\r\nb.v2.jpg\r\n\r\n".encode())
    (lists / "cat_val.txt").write_text("c  1\nd 1 -1\n")
    assert sorted(names_of(read_voc(tmp_path, "train"))) == ["b.v2.jpg", "my cat.jpg"]
    assert sorted(names_of(read_voc(tmp_path, "cat_val"))) == ["c.jpg", "d 1.jpg"]


def test_an_image_in_training_and_in_test_is_refused_under_whatever_name(tmp_path):
    images(tmp_path / "train", "a.jpg", "b.jpg")
    images(tmp_path / "test", "c.jpg", start=7)
    (tmp_path / "test" / "other.jpg").write_bytes((tmp_path / "train" / "b.jpg").read_bytes())
    for split, files in (("train", ("a.jpg", "b.jpg")), ("test", ("c.jpg", "other.jpg"))):
        content = coco()
        for image, name in zip(content["images"], files, strict=True):
            image["file_name"] = name
        (tmp_path / split / "boxes.json").write_text(json.dumps(content))
    with pytest.raises(ValueError, match=r"b\.jpg and .*other\.jpg are the same image, in train and in test"):
        COCO(str(tmp_path / "train/boxes.json"), str(tmp_path / "test/boxes.json"))
    images(tmp_path / "test", "other.jpg", start=9)
    COCO(str(tmp_path / "train/boxes.json"), str(tmp_path / "test/boxes.json"))


def test_one_image_with_two_annotations_is_refused(tmp_path):
    images(tmp_path, "a.jpg")
    content = coco()
    content["images"][1]["file_name"] = "a.jpg"
    (tmp_path / "boxes.json").write_text(json.dumps(content))
    with pytest.raises(ValueError, match=r"a\.jpg is annotated twice"):
        COCO(str(tmp_path / "boxes.json"))


def test_copies_in_class_folders_do_not_end_up_in_training_and_in_test(tmp_path, capfd):
    for label, name in enumerate(("cat", "dog")):
        images(tmp_path / name, *(f"{i}.png" for i in range(20)), start=100 * label)
    originals = [tmp_path / "cat" / f"{i}.png" for i in range(6)]
    for path in originals:
        path.with_name(f"copy of {path.name}").write_bytes(path.read_bytes())
    data = ImageFolder(str(tmp_path), image_size=16)
    assert "6 images occur more than once" in capfd.readouterr().err
    split_of = {path.name: split for split, samples in data.samples.items() for path, label in samples if label == 0}
    assert len(split_of) == 26
    assert all(split_of[path.name] == split_of[f"copy of {path.name}"] for path in originals)


def test_a_checkpoint_of_other_classes_is_refused_although_their_number_is_equal(tmp_path):
    module, first = model(), data()
    trainer = quiet_trainer(max_epochs=1, limit_train_batches=1, limit_val_batches=1)
    trainer.fit(module, datamodule=first)
    trainer.save_checkpoint(tmp_path / "a.ckpt")
    other = data()
    other.classes = ("0", "1", "seven", *other.classes[3:])
    with pytest.raises(ValueError, match=r"from class 2 on"):
        quiet_trainer().validate(model(), datamodule=other, ckpt_path=tmp_path / "a.ckpt", verbose=False)


# Files as tools write them


def test_sizes_as_text_and_as_fractions_of_zero(tmp_path):
    images(tmp_path, "a.jpg", "b.jpg")
    content = coco()
    content["images"][0] |= {"width": "64", "height": "48.0"}
    (tmp_path / "boxes.json").write_bytes(json.dumps(content).encode("utf-8-sig"))
    assert {(a.width, a.height) for a in read_annotations(tmp_path / "boxes.json")} == {(64, 48)}
    (tmp_path / "table.csv").write_text(
        "filename,width,height,class,xmin,ymin,xmax,ymax\na.jpg,64.0,48.0,cat,1,2,9,9\nb.jpg,64,48,,,,,\n"
    )
    assert names_of(read_annotations(tmp_path / "table.csv")) == {"a.jpg": ["cat"], "b.jpg": []}
    (tmp_path / "a.xml").write_bytes(xml("cat", "a.jpg", size=("64.0", "48.0")))
    assert read_annotations(tmp_path / "a.xml")[0].width == 64


@pytest.mark.parametrize("encoding", ["gb2312", "gbk", "shift_jis", "euc-kr", "iso-8859-1", "utf-16", "utf-8"])
def test_xml_of_other_encodings(tmp_path, encoding):
    kind = {"gb2312": "猫", "gbk": "貓", "shift_jis": "ねこ", "euc-kr": "고양이", "iso-8859-1": "Kätzchen"}.get(
        encoding, "猫"
    )
    images(tmp_path, "a.jpg")
    (tmp_path / "a.xml").write_bytes(xml(kind, "a.jpg", encoding))
    assert names_of(read_voc(tmp_path)) == {"a.jpg": [kind]}


@pytest.mark.parametrize(
    "content", [xml("cat", "a.jpg", "unheard-of"), xml("é", "a.jpg", "gbk")[:-30], b"", b"\xff\xfe"]
)
def test_xml_that_cannot_be_read_is_named(tmp_path, content):
    images(tmp_path, "a.jpg")
    (tmp_path / "a.xml").write_bytes(content)
    with pytest.raises(ValueError, match=r"a\.xml"):
        read_voc(tmp_path)


def test_via_without_attributes_is_one_class_and_with_several_needs_one_named(tmp_path, capfd):
    images(tmp_path, "a.jpg")
    shape = {"name": "rect", "x": 1, "y": 2, "width": 20, "height": 30}

    def write(*attributes: dict) -> Path:
        regions = [{"shape_attributes": shape, "region_attributes": values} for values in attributes]
        (tmp_path / "via.json").write_text(json.dumps({"a.jpg1": {"filename": "a.jpg", "regions": regions}}))
        return tmp_path / "via.json"

    assert names_of(read_annotations(write({}, {}))) == {"a.jpg": ["object", "object"]}
    assert "'object'" in capfd.readouterr().err
    with pytest.raises(ValueError, match="no attribute"):
        read_annotations(write({}, {"kind": "cat"}))
    two = write({"kind": "cat", "age": "old"})
    with pytest.raises(ValueError, match="age"):
        read_annotations(two)
    assert names_of(read_annotations(two, "kind")) == {"a.jpg": ["cat"]}
    assert VIA(str(two), attribute="age").classes == ("old",)
    with pytest.raises(ValueError, match="'colour'"):
        read_annotations(two, "colour")
    assert main(["anchors", str(two), "--attribute", "kind", "--k", "1", "--out", str(tmp_path / "out")]) == 0


def test_images_and_annotations_in_folders_beside_each_other(tmp_path):
    images(tmp_path / "images", "a.png")
    (tmp_path / "annotations").mkdir()
    (tmp_path / "annotations" / "a.xml").write_bytes(xml("cat", "a.png"))
    assert [a.path for a in read_annotations(tmp_path)] == [tmp_path / "images" / "a.png"]
    assert VOC(str(tmp_path)).classes == ("cat",)


def litter(folder: Path) -> None:
    """What macOS, Windows and Jupyter leave."""
    for name in ("._00.jpg", "__MACOSX/00.jpg", ".ipynb_checkpoints/00-checkpoint.jpg", "Thumbs.db"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"\0\5\26\7" + b"\0" * 60)


def test_what_systems_and_editors_leave_is_no_data(tmp_path):
    for label, name in enumerate(("cat", "dog")):
        images(tmp_path / name, *(f"{i}.png" for i in range(5)), start=10 * label)
        images(tmp_path / name / "deep", *(f"{i}.png" for i in range(5)), start=10 * label + 5)
        litter(tmp_path / name)
        litter(tmp_path / name / "deep")
    litter(tmp_path)
    data = ImageFolder(str(tmp_path), image_size=16)
    assert data.classes == ("cat", "dog")
    assert sum(map(len, data.samples.values())) == 20
    boxes = images(tmp_path / "boxes", "a.jpg")
    (boxes / "a.xml").write_bytes(xml("cat", "a.jpg"))
    litter(boxes)
    (boxes / "._a.xml").write_bytes(b"\0\5\26\7")
    assert names_of(read_voc(boxes)) == {"a.jpg": ["cat"]}
    assert user_files(boxes, deep=False) == [boxes / "a.jpg", boxes / "a.xml"]


# Splits


@pytest.mark.parametrize(
    "splits",
    [("train", "valid"), ("Train", "Val", "TEST"), ("training_set", "test_set"), ("training", "validation", "testing")],
)
def test_splits_are_known_by_the_names_in_use(tmp_path, splits):
    for number, split in enumerate(splits):
        for label, name in enumerate(("cat", "dog")):
            images(tmp_path / split / name, "0.png", "1.png", start=100 * number + 10 * label)
    data = ImageFolder(str(tmp_path), image_size=16)
    assert data.classes == ("cat", "dog")
    assert {path.parts[-3] for path, _ in data.samples["train"]} == {splits[0]}
    assert {path.parts[-3] for path, _ in data.samples["test"]} == {splits[-1]}
    assert all(len(samples) == 4 for samples in data.samples.values())


@pytest.mark.parametrize(("folders", "said"), [(("val", "test"), "none for training"), (("train", "training"), "both")])
def test_folders_that_look_like_splits_are_never_classes(tmp_path, folders, said):
    for number, name in enumerate(folders):
        images(tmp_path / name, *(f"{i}.png" for i in range(5)), start=10 * number)
    with pytest.raises(ValueError, match=said):
        ImageFolder(str(tmp_path), image_size=16)


# Pixels


@pytest.mark.parametrize(
    ("values", "scale"),
    [
        (np.float32([[0.0, 0.25, 1.0]]), 255),
        (np.float32([[0.0, 64.0, 255.0]]), 1),
        (np.int32([[0, 100, 255]]), 1),
        (np.uint16([[0, 1000, 65535]]), 255 / 65535),
        (np.uint16([[0, 1000, 4095]]), 255 / 4095),
    ],
)
def test_images_of_more_than_8_bits_are_read_by_their_range(tmp_path, values, scale):
    Image.fromarray(values).save(tmp_path / "a.tif")
    assert np.array(read_image(tmp_path / "a.tif", "L")).tolist() == (values * scale).round().astype(int).tolist()


@pytest.mark.parametrize("values", [np.float32([[-1.0, 1.0]]), np.float32([[0.0, 1e6]]), np.int32([[0, 100_000]])])
def test_images_in_no_known_range_are_refused(tmp_path, values):
    Image.fromarray(values).save(tmp_path / "a.tif")
    with pytest.raises(ValueError, match=r"a\.tif.*expected 0\.\."):
        read_image(tmp_path / "a.tif")


def test_boxes_drawn_on_the_image_as_it_is_stored(tmp_path):
    """A photograph with an EXIF orientation, annotated by a tool that ignores it."""
    exif = Image.Exif()
    exif[0x0112] = 6  # turn right
    draw_picture(0, (64, 48)).save(tmp_path / "a.jpg", exif=exif)
    (tmp_path / "a.xml").write_bytes(xml("cat", "a.jpg"))
    for i in range(1, 8):
        draw_picture(i, (64, 48)).save(tmp_path / f"{i}.jpg")
        (tmp_path / f"{i}.xml").write_bytes(xml("cat", f"{i}.jpg"))
    options = {"image_size": (48, 64), "val_size": 0}
    with pytest.raises(ValueError, match=r"a\.jpg has 48 x 64 pixels.*upright to false"):
        VOC(str(tmp_path), **options).make_datasets()
    sets = VOC(str(tmp_path), upright=False, **options).make_datasets()
    assert sum(map(len, sets.values())) == 8


@pytest.mark.parametrize(
    ("transform", "last"),
    [
        ([A.Resize(16, 16), A.Normalize()], "Normalize"),
        ([A.Resize(16, 16), A.ToFloat()], "ToFloat"),
        ([A.Resize(16, 16), ToTensorV2()], "ToTensorV2"),
        ([A.Resize(24, 24)], "Resize"),
    ],
)
def test_a_transform_that_gives_something_else_is_told_when_the_data_are_set_up(tmp_path, transform, last):
    for label, name in enumerate(("cat", "dog")):
        images(tmp_path / name, *(f"{i}.png" for i in range(5)), start=10 * label)
    data = ImageFolder(str(tmp_path), image_size=16, transform=transform, num_workers=0)
    with pytest.raises(ValueError, match=rf"ends in {last}.*expected uint8 \(16, 16, 3\)"):
        data.setup("fit")
    ImageFolder(str(tmp_path), image_size=16, transform=[A.Resize(16, 16)]).setup("fit")


# Files that were being written


def test_what_a_killed_process_left_of_a_file_is_removed_by_the_next(tmp_path):
    code = (
        "import os, signal; from datamodules.io import atomic_write\n"
        f"with atomic_write({str(tmp_path / 'a.txt')!r}) as file:\n"
        "    file.write_text('half'); os.kill(os.getpid(), signal.SIGKILL)"
    )
    root = Path(__file__).parents[2]
    subprocess.run([sys.executable, "-c", code], cwd=root, check=False)
    assert len(list(tmp_path.iterdir())) == 1
    with atomic_write(tmp_path / "a.txt") as other, atomic_write(tmp_path / "a.txt.b") as beside:
        other.write_text("whole")
        beside.write_text("b")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.txt", "a.txt.b"]
