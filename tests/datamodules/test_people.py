"""What people have: annotations that name another image, ids as text, files of other encodings, copies, and litter."""

import json
import struct
import subprocess
import sys
from pathlib import Path

import albumentations as A
import cv2
import numpy as np
import pytest
from albumentations.pytorch import ToTensorV2
from PIL import Image

from callback_runs import data, model
from datamodules import io
from datamodules.boxes.coco import COCO
from datamodules.boxes.read import read_annotations
from datamodules.boxes.via import VIA
from datamodules.boxes.voc import VOC, read_voc
from datamodules.images.image_folder import ImageFolder
from datamodules.io import atomic_write, read_image, user_files
from helpers import draw_picture, quiet_trainer
from zoo.command.actions.find import read_images
from zoo.command.main import main
from zoo.command.sources import image_files
from zoo.inference.preprocess import Images


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
    assert "images that occur more than once: 6" in capfd.readouterr().err
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


def test_commands_leave_out_what_systems_and_editors_leave(tmp_path):
    (images(tmp_path, "a.png", "b.jfif", "c.png") / "c.png").rename(tmp_path / "c")
    images(tmp_path / "deep", "d.JPG")
    for folder in (tmp_path, tmp_path / "@eaDir", tmp_path / "deep"):
        litter(folder)
    (tmp_path / "notes.txt").write_text("no image")
    (tmp_path / "notes").write_text("no image")
    wanted = [str(tmp_path / name) for name in ("a.png", "b.jfif", "c", "deep/d.JPG")]
    assert read_images(tmp_path, Images((3, 16, 16), [0.5] * 3, [0.5] * 3))[0] == wanted
    assert [*image_files([str(tmp_path)])] == [wanted]
    assert [*image_files([str(tmp_path / "**" / "*.*")])] == [[name for name in wanted if not name.endswith("c")]]
    mac = images(tmp_path / "__MACOSX", "e.png")
    assert [*image_files([str(mac / "e*")])] == [[str(mac / "e.png")]]  # as it was named


@pytest.mark.parametrize("suffix", [".jfif", ".JPE", ".avif", ".jp2", ".tga", ".pnm", ""])
def test_images_of_all_usual_suffixes_are_read(tmp_path, suffix):
    for label, name in enumerate(("cat", "dog")):
        for i in range(3):
            (tmp_path / name).mkdir(exist_ok=True)
            with open(tmp_path / name / f"{i}{suffix}", "wb") as file:
                draw_picture(10 * label + i, (32, 32)).save(
                    file, Image.registered_extensions().get(suffix.lower(), "JPEG")
                )
    data = ImageFolder(str(tmp_path), num_workers=0)
    data.setup("fit")
    assert sum(map(len, data.samples.values())) == 6
    assert data.datasets["train"][0].image.shape == (3, 32, 32)


def test_one_line_says_what_is_not_read(tmp_path, capfd):
    for label, name in enumerate(("cat", "dog")):
        images(tmp_path / name, *(f"{i}.png" for i in range(3)), start=10 * label)
        for file in ("a.heic", "b.HEIC", "notes.txt", "LICENSE"):
            (tmp_path / name / file).write_text(name)
    ImageFolder(str(tmp_path))
    said = [line for line in capfd.readouterr().err.splitlines() if "not read" in line]
    assert len(said) == 1
    assert "not read are 4 .heic, 2 .txt, 2 without suffix;" in said[0]
    (tmp_path / "heron").mkdir()
    (tmp_path / "heron" / "a.heic").write_text("")
    with pytest.raises(ValueError, match=r"heron contains no image, only 1 \.heic: expected"):
        ImageFolder(str(tmp_path))


@pytest.mark.parametrize(
    ("folder", "message"),
    [
        ("all/cat", r"0 class folder\(s\) \[\] and 3 image\(s\): .* or name the folder above if this one is a class"),
        ("empty", r"0 class folder\(s\) \[\]: expected two or more"),
        ("split", r"test contains 0 class folder\(s\) \[\] and 3 image\(s\): .*, move them elsewhere"),
    ],
)
def test_a_folder_of_images_without_classes_is_told(tmp_path, folder, message):
    (tmp_path / "empty").mkdir()
    for number, name in enumerate(("all/cat", "split/train/cat", "split/train/dog", "split/test")):
        images(tmp_path / name, "0.png", "1.png", "2.png", start=10 * number)
    with pytest.raises(ValueError, match=message):
        ImageFolder(str(tmp_path / folder))


# Pixels


@pytest.mark.parametrize(
    ("values", "scale"),
    [
        (np.float32([[0.0, 0.25, 1.0]]), 255),
        (np.float32([[0.0, 64.0, 255.0]]), 1),
        (np.int32([[0, 100, 255]]), 1),
        (np.uint16([[0, 1000, 65535]]), 255 / 65535),
        (np.uint16([[0, 1000, 5000]]), 255 / 65535),
        (np.uint16([[0, 1000, 4095]]), 255 / 65535),
        (np.uint16([[0, 100, 255]]), 255 / 65535),
        (np.int32([[0, 1000, 4095]]), 255 / 65535),
    ],
)
def test_images_of_more_than_8_bits_are_read_by_the_range_of_their_type(tmp_path, values, scale):
    Image.fromarray(values).save(tmp_path / "a.tif")
    assert np.array(read_image(tmp_path / "a.tif", "L")).tolist() == (values * scale).round().astype(int).tolist()


def test_floats_a_little_above_1_are_white(tmp_path):
    Image.fromarray(np.float32([[0.0, 0.5, 1.01]])).save(tmp_path / "a.tif")
    assert np.array(read_image(tmp_path / "a.tif", "L")).tolist() == [[0, 128, 255]]


@pytest.mark.parametrize("name", ["a.png", "a.tif", "a.pnm"])
@pytest.mark.parametrize("is_gray", [True, False])
@pytest.mark.parametrize(("highest", "is_told"), [(255, True), (4095, True), (5000, False), (65535, False)])
def test_one_line_tells_of_12_or_8_bits_in_16(tmp_path, monkeypatch, capfd, name, is_gray, highest, is_told):
    values = np.linspace(0, highest, 48).astype(np.uint16).reshape(6, 8)
    cv2.imwrite(str(tmp_path / name), values if is_gray else np.dstack([values] * 3))
    monkeypatch.setattr(io, "_told_dark", [])
    for _ in range(2):
        pixels = np.asarray(read_image(tmp_path / name), int)
    assert abs(pixels[..., 0] - values / 257).max() <= 1
    said = capfd.readouterr().err
    assert said.count("\n") == said.count(f"{tmp_path / name}, and perhaps others, has 16 bits") == int(is_told)


def test_12_bits_in_a_file_that_says_so_are_read_in_full(tmp_path):
    """TIFF, written by hand: two pixels of 0 and 4095."""
    tags = {256: 2, 257: 1, 258: 12, 259: 1, 262: 1, 273: 8, 277: 1, 278: 1, 279: 3}  # size, bits, place
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags.items())
    head = struct.pack("<2sHI", b"II", 42, 12) + b"\x00\x0f\xff\x00" + struct.pack("<H", len(tags))
    (tmp_path / "a.tif").write_bytes(head + entries + bytes(4))
    assert np.array(read_image(tmp_path / "a.tif", "L")).tolist() == [[0, 255]]


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
    ("transform", "found"),
    [
        ([A.Resize(16, 16), A.Normalize()], "float32"),
        ([A.Resize(16, 16), A.Normalize(p=0.5)], "float32"),
        ([A.Resize(16, 16), A.ToFloat()], "float32"),
        ([A.Resize(16, 16), ToTensorV2()], "torch.uint8"),
        ([A.Resize(24, 24)], r"uint8 \(24, 24, 3\)"),
        ([A.OneOf([A.Resize(16, 16), A.Resize(24, 24)], p=1)], r"uint8 \(24, 24, 3\)"),
        ([A.Resize(16, 16), A.RandomScale()], "uint8"),
        ([A.Resize(16, 16), A.Normalize(), A.FromFloat(max_value=1.0, dtype="uint8")], r"values of 0\.\.\d of"),
    ],
)
def test_a_transform_that_gives_something_else_is_told_when_the_data_are_set_up(tmp_path, transform, found):
    for label, name in enumerate(("cat", "dog")):
        images(tmp_path / name, *(f"{i}.png" for i in range(5)), start=10 * label)
    data = ImageFolder(str(tmp_path), image_size=16, transform=transform, num_workers=0)
    names = ", ".join(type(step).__name__ for step in transform)
    with pytest.raises(ValueError, match=rf"transforms {names} make {found}.*leave out Normalize"):
        data.setup("fit")
    ImageFolder(str(tmp_path), image_size=16, transform=[A.Resize(16, 16)]).setup("fit")


def test_a_transform_that_gives_something_else_now_and_then_is_told_at_the_sample(tmp_path):
    for label, name in enumerate(("cat", "dog")):
        images(tmp_path / name, *(f"{i}.png" for i in range(5)), start=10 * label)
    steps = [A.Resize(16, 16), A.Normalize(p=1e-9)]
    data = ImageFolder(str(tmp_path), image_size=16, transform=steps, num_workers=0)
    data.setup("fit")
    data.datasets["train"].transform.transforms[1].p = 1.0
    with pytest.raises(ValueError, match=r"transforms Resize, Normalize make float32 \(16, 16, 3\) of uint8"):
        data.datasets["train"][0]


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
