"""Boxes as people have them: whose boxes these are, which split an image is in, and what is told or refused."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from datamodules.boxes.annotations import Annotation
from datamodules.boxes.box_folder import BoxFolder
from datamodules.boxes.coco import COCO
from datamodules.boxes.read import read_annotations
from datamodules.boxes.voc import read_voc
from datamodules.io import image_size, read_image
from helpers import draw_picture
from zoo.command.main import main

COLUMNS = "image_id,width,height,class,xmin,ymin,xmax,ymax"


def draw(folder: Path, *names: str, start: int = 0, size: tuple[int, int] = (64, 48), orientation: int = 1) -> Path:
    exif = Image.Exif()
    exif[0x0112] = orientation
    for seed, name in enumerate(names, start):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        draw_picture(seed, size).save(folder / name, exif=exif)
    return folder


def xml(name: str = "a.jpg", kind: str = "cat", size: str = "<width>64</width><height>48</height>") -> str:
    return (
        f"<annotation><filename>{name}</filename><size>{size}</size><object><name>{kind}</name>"
        "<bndbox><xmin>1</xmin><ymin>2</ymin><xmax>30</xmax><ymax>40</ymax></bndbox></object></annotation>"
    )


def coco(*names: str, **size: object) -> dict:
    size = size or {"width": 64, "height": 48}
    return {
        "images": [{"id": i, "file_name": name} | size for i, name in enumerate(names, 1)],
        "categories": [{"id": 1, "name": "cat"}, {"id": 2, "name": "dog"}],
        "annotations": [
            {"id": i, "image_id": i, "category_id": 1, "bbox": [i, 2, 10, 12]} for i, _ in enumerate(names, 1)
        ],
    }


def via(*names: str, attributes: dict | None = None) -> dict:
    shape = {"name": "rect", "x": 1, "y": 2, "width": 20, "height": 30}
    region = {"shape_attributes": shape, "region_attributes": {"kind": "cat"} if attributes is None else attributes}
    return {f"{name}1": {"filename": name, "regions": [region]} for name in names}


def write(path: Path, content: object) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
    return path


def voc(folder: Path, *stems: str, **lists: str) -> Path:
    draw(folder / "JPEGImages", *(f"{stem}.jpg" for stem in stems))
    for stem in stems:
        write(folder / "Annotations" / f"{stem}.xml", xml(f"{stem}.jpg"))
    for name, text in lists.items():
        write(folder / "ImageSets" / "Main" / f"{name}.txt", text)
    return folder


def splits(annotations: list[Annotation]) -> dict[str, str]:
    return {annotation.path.name: annotation.split for annotation in annotations}


def paths(source: Path, below: Path, **options) -> list[str]:
    return [str(annotation.path.relative_to(below)) for annotation in read_annotations(source, **options)]


# Which images


@pytest.mark.parametrize("whole_folder", [True, False])
def test_a_file_of_one_split_takes_its_images_although_those_of_another_have_the_same_names(tmp_path, whole_folder):
    names = [f"{i}.jpg" for i in range(8)]
    draw(tmp_path / "images" / "train2017", *names)
    draw(tmp_path / "images" / "val2017", *names, start=50)
    file = write(tmp_path / "annotations" / "instances_val2017.json", coco(*names))
    data = BoxFolder(str(tmp_path if whole_folder else file))
    assert {annotation.path.parent.name for annotation in data.found["train"]} == {"val2017"}


def test_images_of_one_name_in_two_folders_are_refused_and_can_be_given(tmp_path):
    for start, folder in enumerate(("first", "second")):
        draw(tmp_path / folder, "a.jpg", "b.jpg", start=10 * start)
    file = write(tmp_path / "all.json", coco("a.jpg", "b.jpg"))
    with pytest.raises(
        ValueError, match=r"all\.json names images that are in .*first and also in .*second: .*--images"
    ):
        read_annotations(file)
    assert paths(file, tmp_path, images=tmp_path / "second") == ["second/a.jpg", "second/b.jpg"]
    draw(tmp_path / "third", "c.jpg")  # nearer folders come first
    draw(tmp_path, "a.jpg", "b.jpg", start=5)
    assert paths(file, tmp_path) == ["a.jpg", "b.jpg"]


LAYOUTS = {  # annotations, images
    "Oxford's": ("annotations/xmls/a.xml", "images/a.jpg"),
    "singular": ("Annotation/a.xml", "Image/a.jpg"),
    "upper case": ("ANNOTATIONS/a.xml", "IMAGES/a.jpg"),
    "two levels deep": ("labels.json", "photos/2020/a.jpg"),
    "deep below images": ("annotations/labels.json", "images/camera/day/a.jpg"),
}


@pytest.mark.parametrize(("annotation", "image"), LAYOUTS.values(), ids=LAYOUTS)
def test_images_are_found_in_the_layouts_in_use(tmp_path, annotation, image):
    draw(tmp_path, image)
    write(tmp_path / annotation, xml() if annotation.endswith("xml") else coco("a.jpg"))
    assert paths(tmp_path, tmp_path) == paths(tmp_path / annotation, tmp_path) == [image]


def test_images_may_be_spread_over_folders_but_not_ambiguous(tmp_path):
    draw(tmp_path / "images", "one/a.jpg", "two/b.jpg")
    file = write(tmp_path / "all.json", coco("a.jpg", "b.jpg"))
    assert paths(file, tmp_path) == ["images/one/a.jpg", "images/two/b.jpg"]
    draw(tmp_path / "images", "two/a.jpg", start=9)
    file = write(tmp_path / "all.json", coco("a.jpg", "b.jpg", "c.jpg"))
    draw(tmp_path / "images", "one/c.jpg", start=20)
    with pytest.raises(ValueError, match=r"a\.jpg are both called a\.jpg|names images that are in .* and also in"):
        read_annotations(file)


def test_splits_of_annotations_and_of_images_in_folders_beside_each_other(tmp_path):
    for start, split in enumerate(("train", "val")):
        draw(tmp_path / "images" / split, "0.jpg", "1.jpg", start=10 * start)
        for name in "01":
            write(tmp_path / "annotations" / split / f"{name}.xml", xml(f"{name}.jpg"))
    found = [(annotation.path.parent.name, annotation.split) for annotation in read_annotations(tmp_path)]
    assert found == [("train", "train")] * 2 + [("val", "val")] * 2


@pytest.mark.parametrize(
    ("there", "named", "taken"),
    [
        (["scan.jpg", "scan.1.jpg"], "scan.1", "scan.1.jpg"),
        (["x_0.jpg", "x_0.25.jpg"], "x_0.25", "x_0.25.jpg"),
        (["a.png"], "a.jpg", "a.png"),
        (["a.jpg"], "IMG/old/a.JPG", "a.jpg"),
        (["a.jpg"], "C:\\data\\a.jpg", "a.jpg"),
        (["a.jpg"], "https://example.org/images/a.jpg?size=1", "a.jpg"),
        (["u\u0308.jpg"], "\u00fc.jpg", "u\u0308.jpg"),
        (["scan.jpg"], "scan.1", None),
        (["0001.jpg", "cam1/0001.jpg"], "cam2/0001.jpg", None),
    ],
)
def test_an_image_is_the_one_that_is_named(tmp_path, there, named, taken):
    draw(tmp_path, *there)
    others = [name for name in there if "/" in name]
    file = write(tmp_path / "all.json", coco(*others, named))
    path = read_annotations(file)[-1].path
    assert path == tmp_path / taken if taken else not path.exists()


@pytest.mark.parametrize(
    ("annotation", "image"), [("a.jpg.xml", "a.jpg"), ("img.xml", "IMG.JPG"), ("a.XML", "a.jpg"), ("x.xml", "a.v1.jpg")]
)
def test_the_file_of_an_annotation_decides_over_the_name_in_it(tmp_path, annotation, image):
    draw(tmp_path, image, "b.jpg", "a.v1.jpg")
    write(tmp_path / annotation, xml("a.v1" if annotation == "x.xml" else "b.jpg"))
    assert [found.path.name for found in read_voc(tmp_path)] == [image]


def test_an_option_gives_the_folder_of_the_images(tmp_path, capfd):
    file, out = write(tmp_path / "annot" / "v.json", via("a.jpg", "b.jpg")), str(tmp_path / "out")
    draw(tmp_path / "elsewhere", "a.jpg", "b.jpg")
    assert main(["anchors", str(file), "--k", "1", "--out", out]) == 2
    (line,) = capfd.readouterr().err.splitlines()
    assert "v.json does not give the size of a.jpg" in line
    assert "--images (zoo anchors), --data.images (zoo fit own/boxes)" in line
    assert main(["anchors", str(file), "--k", "1", "--out", out, "--images", str(tmp_path / "elsewhere")]) == 0


def test_images_without_annotation_are_counted(tmp_path, capfd):
    draw(tmp_path, *(f"{i}.jpg" for i in range(8)))
    for i in range(4):
        write(tmp_path / f"{i}.xml", xml(f"{i}.jpg"))
    assert len(BoxFolder(str(tmp_path)).found["train"]) == 4
    assert "in none of the lists: 4 of 8" in capfd.readouterr().err


# Which split


@pytest.mark.parametrize(
    "entry", ["c", "JPEGImages/c.jpg", "./c.jpg", "data\\c.jpg", '"c"', "C", "c.jfif", "c.xml", "c  1", "c\t-1"]
)
def test_the_entries_of_a_list_in_the_forms_in_use(tmp_path, entry):
    found = read_voc(voc(tmp_path, "a", "b", "c", test=f"\n{entry}\n"))
    assert splits(found) == {"a.jpg": "train", "b.jpg": "train", "c.jpg": "test"}


@pytest.mark.parametrize(
    ("name", "split"), [("Test", "test"), ("valid", "val"), ("validation", "val"), ("cat_val", "train")]
)
def test_lists_under_the_names_in_use(tmp_path, name, split):
    assert splits(read_voc(voc(tmp_path, "a", "c", **{name: "c"}))) == {"a.jpg": "train", "c.jpg": split}


def test_lists_beside_main(tmp_path):
    write(voc(tmp_path, "a", "c") / "ImageSets" / "test.txt", "c")
    assert splits(read_voc(tmp_path)) == {"a.jpg": "train", "c.jpg": "test"}
    assert splits(read_voc(tmp_path, "test")) == {"c.jpg": "test"}


@pytest.mark.parametrize("stems", [("cat 0", "cat 1"), ("cat", "cat 1")])
def test_a_number_at_the_end_of_a_name_is_no_second_column(tmp_path, stems):
    assert splits(read_voc(voc(tmp_path, *stems, test="cat 1"))) == {f"{stems[0]}.jpg": "train", "cat 1.jpg": "test"}


def test_images_that_are_in_no_list_are_not_trained_on_where_there_is_one_for_training(tmp_path, capfd):
    voc(tmp_path, *"abcde", train="a\nb", val="c", trainval="a\nb\nc", test="d")
    data = BoxFolder(str(tmp_path))
    assert {split: sorted(splits(found)) for split, found in data.found.items()} == {
        "train": ["a.jpg", "b.jpg"], "val": ["c.jpg"], "test": ["d.jpg"],
    }  # fmt: skip
    assert "without an annotation, or in none of the lists: 1 of 5" in capfd.readouterr().err


@pytest.mark.parametrize(
    ("lists", "message"),
    [
        ({"test": "a\ngone.jpg"}, r"gone\.xml does not exist, but .*test\.txt names it in line 2"),
        ({"train": "a", "test": "a"}, r"a is in .*test\.txt and in train\.txt: expected each image in one"),
        ({"trainval": "a", "test": "a"}, r"a is in .*trainval\.txt and in test\.txt"),
    ],
)
def test_lists_that_say_nothing_clear_are_refused(tmp_path, lists, message):
    with pytest.raises((FileNotFoundError, ValueError), match=message):
        read_voc(voc(tmp_path, "a", "b", **lists))


@pytest.mark.parametrize("encoding", ["utf-16", "latin-1"])
def test_a_list_that_is_not_utf8_is_named(tmp_path, encoding):
    voc(tmp_path, "a", test="a")
    (tmp_path / "ImageSets" / "Main" / "test.txt").write_bytes("é\n".encode(encoding))
    with pytest.raises(ValueError, match=r"test\.txt is not UTF-8"):
        read_voc(tmp_path)


@pytest.mark.parametrize("column", ["split", "Split", "subset"])
@pytest.mark.parametrize(("word", "split"), [("holdout", "test"), ("validate", "val"), ("1", None), ("", None)])
def test_a_column_says_the_split_or_is_refused(tmp_path, column, word, split):
    draw(tmp_path, "a.jpg", "b.jpg")
    rows = [f"{name},64,48,cat,1,2,9,9,{part}" for name, part in (("a.jpg", "train"), ("b.jpg", word))]
    file = write(tmp_path / "all.csv", "\n".join([f"{COLUMNS},{column}", *rows]))
    if split:
        assert splits(read_annotations(file)) == {"a.jpg": "train", "b.jpg": split}
    else:
        with pytest.raises(ValueError, match=rf"image b\.jpg is '{word}': expected a word for one of \['train', 'val'"):
            read_annotations(file)


def test_the_folders_of_the_images_say_the_split_where_one_file_names_all(tmp_path):
    names = draw(tmp_path, "train/a.jpg", "val/b.jpg", "class/c.jpg") and ("train/a.jpg", "val/b.jpg")
    assert splits(read_annotations(write(tmp_path / "all.json", coco(*names)))) == {"a.jpg": "train", "b.jpg": "val"}
    file = write(tmp_path / "all.json", coco("class/c.jpg", "val/b.jpg"))
    assert {annotation.split for annotation in read_annotations(file)} == {"train"}


def test_copies_stay_in_one_split_when_images_are_divided(tmp_path, capfd):
    for folder, count in (("train", 10), ("test", 0)):
        draw(tmp_path / folder, *(f"{i}.jpg" for i in range(10)), start=100 * count)
        for i in range(count):
            (tmp_path / folder / f"copy{i}.jpg").write_bytes((tmp_path / folder / f"{i}.jpg").read_bytes())
        for path in (tmp_path / folder).glob("*.jpg"):
            write(path.with_suffix(".xml"), xml(path.name))
    for source in (tmp_path / "train", tmp_path):  # all is divided, or validation is taken out of train
        data = BoxFolder(str(source), in_memory=False)
        contents = [
            {annotation.path.read_bytes() for annotation in dataset.annotations}
            for dataset in data.make_datasets().values()
        ]
        assert len(contents) == 3
        assert sum(map(len, contents)) == len(set.union(*contents))
        assert "copies stay in one split" in capfd.readouterr().err


# Turned images


@pytest.mark.parametrize("suffix", ["jpg", "png", "tif", "webp"])
@pytest.mark.parametrize("orientation", [1, 3, 6])
@pytest.mark.parametrize("upright", [True, False])
def test_the_size_is_that_of_the_image_that_is_read(tmp_path, suffix, orientation, upright):
    path = draw(tmp_path, f"a.{suffix}", orientation=orientation) / f"a.{suffix}"
    assert image_size(path, upright) == read_image(path, upright=upright).size


@pytest.mark.parametrize(("orientation", "size"), [(2, (64, 48)), (3, (64, 48)), (6, (64, 64))])
def test_turned_images_are_told_where_their_size_does_not_show_it(tmp_path, orientation, size, capfd):
    draw(tmp_path, "a.jpg", size=size, orientation=orientation)
    write(tmp_path / "a.json", coco("a.jpg", width=size[0], height=size[1]))
    BoxFolder(str(tmp_path))
    assert "images turned as their EXIF tags say: 1" in capfd.readouterr().err
    BoxFolder(str(tmp_path), upright=False)
    assert "EXIF" not in capfd.readouterr().err


@pytest.mark.parametrize("content", [via("a.jpg"), coco("a.jpg", width=0), xml(size="")], ids=["VIA", "COCO", "VOC"])
@pytest.mark.parametrize("upright", [True, False])
def test_sizes_that_are_not_given_are_those_of_the_images_as_they_are_used(tmp_path, content, upright, capfd):
    draw(tmp_path, "a.jpg", orientation=6)
    write(tmp_path / f"a.{'xml' if isinstance(content, str) else 'json'}", content)
    (annotation,) = BoxFolder(str(tmp_path), upright=upright).found["train"]
    assert (annotation.width, annotation.height) == ((48, 64) if upright else (64, 48))
    assert ("turned as their EXIF tags say" in capfd.readouterr().err) == upright


def test_boxes_that_are_lost_on_turned_images_are_explained(tmp_path, capfd):
    content = coco("a.jpg", width=0)
    content["annotations"][0]["bbox"] = [50, 2, 10, 38]
    draw(tmp_path, "a.jpg", orientation=6)
    with pytest.raises(ValueError, match="contain no box"):
        BoxFolder(str(write(tmp_path / "a.json", content)))
    assert "set upright to false" in capfd.readouterr().err


@pytest.mark.parametrize(("orientation", "width", "message"), [(6, 64, "set upright to false"), (1, 128, "replace it")])
def test_an_image_of_another_size_is_found_before_anything_is_trained(tmp_path, orientation, width, message):
    draw(tmp_path, "a.jpg", orientation=orientation)
    write(tmp_path / "a.json", coco("a.jpg", width=width, height=48))
    with pytest.raises(ValueError, match=message):
        BoxFolder(str(tmp_path), in_memory=False)


# COCO


def change(content: dict, key: str, index: int, **values: object) -> dict:
    content[key][index] |= values
    return content


@pytest.mark.parametrize("value", [1.0, "000001", "1"])
@pytest.mark.parametrize(("key", "name"), [("images", "id"), ("annotations", "image_id")])
def test_an_id_is_the_same_however_it_is_written(tmp_path, value, key, name):
    draw(tmp_path, "a.jpg", "b.jpg")
    file = write(tmp_path / "a.json", change(coco("a.jpg", "b.jpg"), key, 0, **{name: value}))
    assert [len(annotation.names) for annotation in read_annotations(file)] == [1, 1]


def test_two_images_of_one_id_are_refused_however_it_is_written(tmp_path):
    file = write(tmp_path / "a.json", change(coco("a.jpg", "b.jpg"), "images", 1, id=1.0))
    with pytest.raises(ValueError, match=r"a\.jpg and b\.jpg have the same id"):
        read_annotations(file)


def test_an_annotation_counts_once_and_shared_ids_are_told(tmp_path, capfd):
    content = coco("a.jpg", "b.jpg")
    content["annotations"].append({**content["annotations"][0]})
    content["annotations"][1]["id"] = 1
    found = read_annotations(write(draw(tmp_path, "a.jpg", "b.jpg") / "a.json", content))
    assert [len(annotation.names) for annotation in found] == [1, 1]
    lines = capfd.readouterr().err.splitlines()
    assert len(lines) == 2
    assert "1 annotations repeat another one" in lines[0]
    assert "1 ids are those of several annotations, such as 1" in lines[1]


def test_a_key_that_is_there_twice_is_refused(tmp_path):
    text = json.dumps(coco("a.jpg"))
    file = write(tmp_path / "a.json", text[:-1] + ', "images": []}')
    with pytest.raises(ValueError, match=r"a\.json cannot be read as JSON \(the key 'images' is there twice\)"):
        read_annotations(file)


def test_crowds_as_text_and_names_with_spaces(tmp_path):
    content = change(coco("a.jpg", "b.jpg"), "annotations", 0, iscrowd="0")
    content["categories"][1]["name"] = "cat "
    content["annotations"][1] |= {"category_id": 2}
    data = COCO(str(write(draw(tmp_path, "a.jpg", "b.jpg") / "a.json", content)))
    assert data.classes == ("cat",)
    assert sum(len(annotation.names) for annotation in data.found["train"]) == 2


@pytest.mark.parametrize("value", ["Infinity", "1" + "0" * 400])
def test_numbers_without_an_end_are_one_clear_error(tmp_path, value):
    draw(tmp_path, "a.jpg")
    for key in ('"width": ', '"bbox": ['):
        text = json.dumps(coco("a.jpg")).replace(key, f"{key}{value}, " if "[" in key else f'{key}{value}, "x": ')
        with pytest.raises(ValueError, match=r"a\.json"):
            read_annotations(write(tmp_path / "a.json", text))
    with pytest.raises(ValueError, match=r"a\.csv: image a\.jpg has a row that is not a box"):
        read_annotations(write(tmp_path / "a.csv", f"{COLUMNS}\na.jpg,inf,48,cat,1,2,9,9\n"))


# VGG Image Annotator


def test_two_images_of_one_name_are_not_joined(tmp_path):
    draw(tmp_path, "a.jpg")
    content = via("a.jpg") | {"a.jpg200": via("a.jpg")["a.jpg1"]}
    with pytest.raises(ValueError, match=r"two images are called a\.jpg"):
        read_annotations(write(tmp_path / "a.json", content))
    shape = '"{""name"":""rect"",""x"":1,""y"":2,""width"":5,""height"":5}","{""kind"":""cat""}"'
    rows = [f"a.jpg,{size},{shape}" for size in (100, 200)]
    text = "\n".join(["filename,file_size,region_shape_attributes,region_attributes", *rows])
    with pytest.raises(ValueError, match=r"two images are called a\.jpg"):
        read_annotations(write(tmp_path / "a.csv", text))
    assert len(read_annotations(write(tmp_path / "a.csv", text.replace("200", "100")))[0].names) == 2


def test_a_project_file_of_version_2_0_10(tmp_path):
    project = {"_via_settings": {}, "_via_data_format_version": "2.0.10", "_via_image_id_list": ["a.jpg1"]}
    file = write(draw(tmp_path, "a.jpg") / "a.json", project | {"_via_img_metadata": via("a.jpg")})
    assert read_annotations(file)[0].names == ("cat",)


@pytest.mark.parametrize("other", ["object", "cat"])
def test_a_class_may_be_called_object(tmp_path, other, capfd):
    content = via("a.jpg", attributes={"kind": "object"}) | via("b.jpg", attributes={"kind": other})
    found = read_annotations(write(draw(tmp_path, "a.jpg", "b.jpg") / "a.json", content))
    assert [annotation.names for annotation in found] == [("object",), (other,)]
    assert not capfd.readouterr().err


# Tables


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.csv", "filename,xmin,ymin,xmax,ymax,class\na.jpg,1,2,9,9,cat"),
        ("a.csv", "image_id;width;height;Class;xmin;ymin;xmax;ymax\na;64;48;cat;1;2;9;9"),
        ("a.csv", "image_id, width, height, class, xmin, ymin, xmax, ymax\na.jpg, 64, 48, cat , 1, 2, 9, 9"),
        ("a.csv", "image_id,filename,Width,HEIGHT,class,xmin,ymin,xmax,ymax\n7,a.jpg,,,cat,1,2,9,9"),
        ("a.tsv", f"{COLUMNS}\na.jpg,64,48,cat,1,2,9,9".replace(",", "\t")),
    ],
)
def test_tables_in_the_forms_in_use(tmp_path, name, text):
    write(draw(tmp_path, "a.jpg") / name, text)
    for source in (tmp_path, tmp_path / name):
        (annotation,) = read_annotations(source)
        assert (annotation.path, *annotation[1:3], annotation.names) == (tmp_path / "a.jpg", 64, 48, ("cat",))
        np.testing.assert_array_equal(annotation.boxes, [(1, 2, 9, 9)])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            f"{COLUMNS}\na,64,48,cat,1,2,9,9\na,640,480,cat,1,2,9,9",
            "have the sizes 64 x 48 and 640 x 480: expected one",
        ),
        (f"{COLUMNS},XMin\na,64,48,cat,1,2,9,9,5", "has the column 'xmin' twice"),
        ("class,xmin,ymin,xmax,ymax\ncat,1,2,9,9", "no column 'filename': expected filename or image_id, class"),
    ],
)
def test_tables_that_contradict_themselves_are_refused(tmp_path, text, message):
    file = write(draw(tmp_path, "a.jpg") / "a.csv", text)
    with pytest.raises(ValueError, match=message):
        read_annotations(file)


# XML in other encodings


@pytest.mark.parametrize(
    ("declared", "stored", "kind"),
    [
        ("Shift_JIS", "cp932", "①"),
        ("EUC-KR", "cp949", "똠"),
        ("Big5", "big5hkscs", "喺"),
        ("x-sjis", "cp932", "ねこ"),
        ("x-gbk", "gbk", "猫"),
        ("windows-31j", "cp932", "ねこ"),
        ("GB18030", "gb18030", "猫"),
        ("iso-2022-jp", "iso-2022-jp", "ねこ"),
        ("GBK", "utf-8-sig", "猫"),
        ("UTF8", "utf-8", "猫"),
        ("utf-16", "utf-8", "猫"),
        ("gb2312", "utf-8", "猫狗"),
        ("shift_jis", "utf-8", "猫犬"),
        ("iso-8859-1", "utf-8", "Kätzchen"),
        ("iso-8859-1", "iso-8859-1", "Kätzchen"),
    ],
)
def test_xml_is_read_in_the_encoding_that_it_has(tmp_path, declared, stored, kind):
    draw(tmp_path, "a.jpg")
    for equals in ("=", " = "):
        text = f'<?xml version="1.0" encoding{equals}"{declared}"?>' + xml(kind=kind)
        (tmp_path / "a.xml").write_bytes(text.encode(stored))
        assert read_voc(tmp_path)[0].names == (kind,)
