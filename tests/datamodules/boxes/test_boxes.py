"""Boxes: all formats give the same annotations, a broken file is one clear error, and boxes move with the pixels."""

import csv
import io
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torchvision.datasets import VOCDetection

from datamodules.augment.boxes import BoxFlip, BoxZoomShift
from datamodules.augment.images import Color
from datamodules.base import hold_out
from datamodules.batches import Boxed, Labelled
from datamodules.boxes.annotations import Annotation, clean_boxes
from datamodules.boxes.base import BoxedFiles
from datamodules.boxes.coco import COCO
from datamodules.boxes.read import read_annotations
from datamodules.boxes.via import VIA
from datamodules.boxes.voc import VOC, read_voc
from datamodules.io import read_image
from helpers import draw_picture, fingerprint_of_global_randomness, record, write_voc
from zoo.command.main import main

BOXES = {  # of three images (64, 48): one has none
    "a.jpg": [("cat", (3.0, 4.0, 20.0, 30.0)), ("dog", (10.0, 11.0, 40.0, 47.0))],
    "b.jpg": [],
    "c.jpg": [("dog", (0.0, 0.0, 64.0, 48.0))],
}


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def xml(name: str, objects: list, size: str = "<size><width>64</width><height>48</height></size>") -> str:
    edges = ("xmin", "ymin", "xmax", "ymax")
    parts = [
        f"<object><name>{kind}</name><difficult>{int(kind == 'hard')}</difficult><bndbox>"
        f"{''.join(f'<{e}>{v}</{e}>' for e, v in zip(edges, box, strict=True))}</bndbox></object>"
        for kind, box in objects
    ]
    return f"<annotation><filename>{name}</filename>{size}{''.join(parts)}</annotation>"


def as_voc(folder: Path, boxes: dict) -> Path:
    (folder / "Annotations").mkdir()
    (folder / "JPEGImages").mkdir()
    for name, objects in boxes.items():
        (folder / name).rename(folder / "JPEGImages" / name)
        (folder / "Annotations" / name).with_suffix(".xml").write_text(xml(name, objects))
    return folder


def as_xml_next_to_images(folder: Path, boxes: dict) -> Path:
    for name, objects in boxes.items():
        (folder / name).with_suffix(".xml").write_text(xml(f"C:\\somewhere\\else\\{name}", objects, size=""))
    return folder


def as_coco(folder: Path, boxes: dict) -> Path:
    kinds = sorted({kind for objects in boxes.values() for kind, _ in objects})
    content = {
        "images": [{"id": 7 + i, "file_name": name, "width": 64, "height": 48} for i, name in enumerate(boxes)],
        "categories": [{"id": 3 * i, "name": kind} for i, kind in enumerate(kinds)],
        "annotations": [
            {"image_id": 7 + i, "category_id": 3 * kinds.index(kind), "bbox": [x, y, X - x, Y - y], "iscrowd": 0}
            for i, objects in enumerate(boxes.values())
            for kind, (x, y, X, Y) in objects
        ],
    }
    if kinds:
        content["annotations"].append({"image_id": 7, "category_id": 0, "bbox": [1, 1, 9, 9], "iscrowd": 1})
    (folder / "boxes.json").write_text(json.dumps(content))
    return folder / "boxes.json"


def via_regions(objects: list) -> list:
    """Alternately a rectangle with a text and a polygon with a checkbox."""
    regions = []
    for i, (kind, (x, y, X, Y)) in enumerate(objects):
        shape = {"name": "rect", "x": x, "y": y, "width": X - x, "height": Y - y}
        if i % 2:
            shape = {"name": "polygon", "all_points_x": [x, X, (x + X) / 2], "all_points_y": [Y, (y + Y) / 2, y]}
        value = {kind: True, "other": False} if i % 2 else kind
        regions.append({"shape_attributes": shape, "region_attributes": {"kind": value}})
    return regions


def as_via_project(folder: Path, boxes: dict) -> Path:
    images = {f"{name}99": {"filename": name, "regions": via_regions(objects)} for name, objects in boxes.items()}
    (folder / "boxes.json").write_text(json.dumps({"_via_settings": {}, "_via_img_metadata": images}))
    return folder / "boxes.json"


def as_via_1(folder: Path, boxes: dict) -> Path:
    numbered = {name: {str(i): r for i, r in enumerate(via_regions(objects))} for name, objects in boxes.items()}
    (folder / "boxes.json").write_text(
        json.dumps({name: {"filename": name, "regions": r} for name, r in numbered.items()})
    )
    return folder / "boxes.json"


def write_rows(path: Path, rows: list[dict]) -> Path:
    text = io.StringIO()
    table = csv.DictWriter(text, rows[0])
    table.writeheader()
    table.writerows(rows)
    path.write_text(text.getvalue())
    return path


def as_via_csv(folder: Path, boxes: dict) -> Path:
    rows = [
        {
            "filename": name,
            "region_shape_attributes": json.dumps(region["shape_attributes"]),
            "region_attributes": json.dumps(region["region_attributes"]),
        }
        for name, objects in boxes.items()
        for region in via_regions(objects) or [{"shape_attributes": {}, "region_attributes": {}}]
    ]
    return write_rows(folder / "boxes.csv", rows)


def as_table(folder: Path, boxes: dict) -> Path:
    columns = ("class", "xmin", "ymin", "xmax", "ymax")
    rows = [
        {"split": "mine_train", "image_id": name, "width": 64, "height": 48}
        | dict(zip(columns, (kind, *box), strict=True))
        for name, objects in boxes.items()
        for kind, box in objects or [("", ("",) * 4)]
    ]
    return write_rows(folder / "boxes.csv", rows)


FORMATS = [as_voc, as_xml_next_to_images, as_coco, as_via_project, as_via_1, as_via_csv, as_table]


@pytest.fixture
def folder(tmp_path):
    for i, name in enumerate(BOXES):
        draw_picture(i, (64, 48)).save(tmp_path / name)
    return tmp_path


class TestReaders:
    @pytest.mark.parametrize("write", FORMATS)
    def test_every_format_is_recognized_and_gives_the_same(self, write, folder, capsys):
        found = {annotation.path.name: annotation for annotation in read_annotations(write(folder, BOXES))}
        assert found.keys() == BOXES.keys()
        for name, objects in BOXES.items():
            annotation = found[name]
            assert (annotation.width, annotation.height) == (64, 48)
            assert annotation.path.is_file()
            assert annotation.names == tuple(kind for kind, _ in objects)
            assert annotation.boxes.dtype == np.float32
            np.testing.assert_array_equal(annotation.boxes, np.reshape([box for _, box in objects], (-1, 4)))
        assert capsys.readouterr().err == ""

    @pytest.mark.parametrize("write", FORMATS)
    def test_unusable_boxes_are_dropped_or_clipped_and_reported(self, write, folder, capsys):
        wrong = [
            ("cat", (5.0, 5.0, 5.0, 9.0)), ("dog", (8.0, 9.0, 12.0, 9.0)), ("dog", (70.0, 4.0, 90.0, 9.0)),
            ("cat", (-4.0, 30.0, 9.0, 60.0)),
        ]  # fmt: skip
        found = read_annotations(write(folder, BOXES | {"b.jpg": wrong}))
        annotation = next(annotation for annotation in found if annotation.path.name == "b.jpg")
        assert annotation.names == ("cat",)
        np.testing.assert_array_equal(annotation.boxes, [[0, 30, 9, 48]])
        (line,) = capsys.readouterr().err.splitlines()
        assert "2 without area dropped, 1 outside the image dropped, 1 clipped to the image; in b.jpg" in line
        assert "boxes" in line or "b.xml" in line

    def test_a_coco_file_may_give_sizes_as_text(self, folder):
        file = as_coco(folder, BOXES)
        file.write_text(
            file.read_text().replace('"width": 64', '"width": "64"').replace('"height": 48', '"height": "48"')
        )
        assert {(found.width, found.height) for found in read_annotations(file)} == {(64, 48)}

    def test_voc_equals_torchvision(self, tmp_path):
        write_voc(tmp_path / "VOCdevkit" / "VOC2007", {"trainval": 9, "test": 5})
        for split in ("trainval", "test"):
            theirs = VOCDetection(tmp_path, year="2007", image_set=split)
            ours = read_voc(tmp_path, split)
            assert [str(annotation.path) for annotation in ours] == theirs.images
            assert {annotation.split for annotation in ours} == {"test" if split == "test" else "train"}
            for annotation, (_, target) in zip(ours, theirs, strict=True):
                objects = target["annotation"].get("object", [])
                expected = [[int(o["bndbox"][e]) for e in ("xmin", "ymin", "xmax", "ymax")] for o in objects]
                np.testing.assert_array_equal(annotation.boxes, np.reshape(expected, (-1, 4)))
                assert list(annotation.names) == [o["name"] for o in objects]

    def test_voc_folders_of_several_years_are_read_together(self, tmp_path):
        write_voc(tmp_path / "VOCdevkit" / "VOC2007", {"trainval": 3, "test": 2})
        write_voc(tmp_path / "VOCdevkit" / "VOC2012", {"trainval": 4})
        assert (len(read_voc(tmp_path, "trainval")), len(read_voc(tmp_path, "test"))) == (7, 2)
        assert [annotation.split for annotation in read_annotations(tmp_path)].count("test") == 2

    def test_difficult_boxes_are_kept_only_on_request(self, folder):
        objects = [("hard", (1.0, 1.0, 9.0, 9.0)), ("easy", (2.0, 2.0, 9.0, 9.0))]
        as_voc(folder, BOXES | {"b.jpg": objects})
        for difficult, names in ((False, ("easy",)), (True, ("hard", "easy"))):
            annotation = next(a for a in read_voc(folder, difficult=difficult) if a.path.name == "b.jpg")
            assert annotation.names == names

    @pytest.mark.parametrize(
        ("shape", "box"),
        [
            ({"name": "circle", "cx": 20, "cy": 20, "r": 5}, (15, 15, 25, 25)),
            ({"name": "ellipse", "cx": 20, "cy": 20, "rx": 8, "ry": 3}, (12, 17, 28, 23)),
            ({"name": "ellipse", "cx": 20, "cy": 20, "rx": 8, "ry": 3, "theta": np.pi / 2}, (17, 12, 23, 28)),
        ],
    )
    def test_round_regions_get_the_box_around_them(self, shape, box, folder):
        region = {"shape_attributes": shape, "region_attributes": {"kind": "cat"}}
        (folder / "boxes.json").write_text(json.dumps({"a": {"filename": "a.jpg", "regions": [region]}}))
        np.testing.assert_allclose(read_annotations(folder)[0].boxes, [box], atol=1e-5)

    @settings(max_examples=60, deadline=None)
    @given(st.lists(st.tuples(*[st.integers(-30, 90)] * 4), max_size=8))
    def test_clean_boxes_are_inside_and_have_an_area_and_good_ones_do_not_change(self, boxes):
        annotation = Annotation(Path("a.jpg"), 64, 48, boxes, [str(i) for i in range(len(boxes))])
        (clean,) = clean_boxes([annotation], Path("a.xml"))
        assert (clean.boxes[:, :2] >= 0).all()
        assert (clean.boxes[:, 2:] <= (64, 48)).all()
        assert (clean.boxes[:, 2:] > clean.boxes[:, :2]).all()
        kept = {int(name): tuple(box) for name, box in zip(clean.names, clean.boxes.tolist(), strict=True)}
        for i, (x, y, X, Y) in enumerate(boxes):
            if 0 <= x < X <= 64 and 0 <= y < Y <= 48:
                assert kept[i] == (x, y, X, Y)


class TestBadFiles:
    @pytest.mark.parametrize(
        ("name", "content", "message"),
        [
            ("a.xml", "", "is empty"),
            ("a.xml", "<annotation><object><name>cat</na", "cannot be read as XML"),
            ("a.xml", "<annotation><object><name>cat</name></object></annotation>", "without a name"),
            ("a.xml", xml("a.jpg", [("cat", (1, 2, "nan", 9))]), "not a finite number"),
            ("z.xml", "<annotation><filename>gone.jpg</filename></annotation>", "does not give the size of gone.jpg"),
            ("a.json", "", "is empty"),
            ("a.json", '{"images": [', "cannot be read as JSON"),
            ("a.json", "[]", "neither in the COCO schema nor"),
            ("a.json", '{"images": [], "annotations": []}', "no 'categories'"),
            ("a.json", '{"images": [], "categories": [], "annotations": [{"id": 5, "bbox": [1, 2, 3, 4], "image_id": 1,'
             ' "category_id": 1}]}', "annotation 5 refers to image 1, which is not defined"),
            ("a.json", '{"images": [], "categories": [], "annotations": [{"bbox": [1, 2]}]}', "not in the COCO schema"),
            ("a.json", '{"x": {"filename": "a.jpg"}}', "no 'regions'"),
            ("a.json", '{"x": {"filename": "a.jpg", "regions": [{"shape_attributes": {"name": "point"},'
             ' "region_attributes": {"kind": "cat"}}]}}', "a region is a point"),
            ("a.json", '{"x": {"filename": "a.jpg", "regions": [{"shape_attributes": {"name": "circle", "cx": 5,'
             ' "cy": 5, "r": 2}, "region_attributes": {"kind": "cat", "color": "red"}}]}}', "expected one; name the"),
            ("a.json", '{"x": {"filename": "a.jpg", "regions": [{"shape_attributes": {"name": "circle", "cx": 5,'
             ' "cy": 5, "r": 2}, "region_attributes": {"kind": ""}}]}}', "expected exactly one name"),
            ("a.csv", "", "no row of boxes"),
            ("a.csv", "split,image_id\ntrain,a", "no column 'class': expected filename or image_id"),
            ("a.csv", "image_id,width,height,class,xmin,ymin,xmax,ymax\na,64,48,cat,1,2,x,9", "that is not a box"),
            ("a.csv", "image_id,width,height,class,xmin,ymin,xmax,ymax\na,64,48,cat,1,2", "that is not a box"),
            ("a.csv", "filename,region_shape_attributes,region_attributes\na.jpg,{,{}", "cannot be read as an export"),
        ],
    )  # fmt: skip
    def test_a_broken_file_is_named_with_the_problem(self, name, content, message, folder):
        (folder / name).write_text(content)
        with pytest.raises((ValueError, FileNotFoundError), match=message) as caught:
            read_annotations(folder / name)
        assert str(folder / name) in str(caught.value)

    def test_bytes_that_are_not_text_are_an_error(self, folder):
        for name in ("a.json", "a.csv", "a.xml"):
            (folder / name).write_bytes(b"\x89PNG\xff\xfe\x00")
            with pytest.raises(ValueError, match=name):
                read_annotations(folder / name)

    @pytest.mark.parametrize("write", [None, lambda folder: [(folder / f"{i}.json").write_text("{}") for i in "12"]])
    def test_a_folder_in_no_known_format_is_an_error(self, write, tmp_path):
        if write:
            write(tmp_path)
        with pytest.raises(FileNotFoundError, match=r"contains (no annotations|2 JSON or CSV files, such as 1\.json)"):
            read_annotations(tmp_path)
        with pytest.raises(FileNotFoundError, match="contains no VOC annotations"):
            read_voc(tmp_path)

    def test_a_missing_list_is_an_error_that_names_the_existing_ones(self, tmp_path):
        write_voc(tmp_path, {"trainval": 3, "test": 2})
        with pytest.raises(FileNotFoundError, match=r"no ImageSets/Main/val.txt .*\['test', 'trainval'\]"):
            read_voc(tmp_path, "val")

    def test_a_listed_image_without_annotation_is_an_error(self, tmp_path):
        write_voc(tmp_path, {"trainval": 3})
        (tmp_path / "Annotations" / "cell_001.xml").unlink()
        with pytest.raises(FileNotFoundError, match=r"cell_001.xml does not exist"):
            read_voc(tmp_path, "trainval")


class TestDatamodules:
    def cells(self, tmp_path: Path, **options) -> VOC:
        if not (tmp_path / "cells").exists():
            write_voc(tmp_path / "cells" / "VOCdevkit" / "VOC2007", {"trainval": 13, "test": 5})
        return VOC("cells", **({"image_size": (24, 48), "data_dir": tmp_path, "batch_size": 4} | options))

    @pytest.mark.parametrize("in_memory", [True, False])
    def test_images_and_boxes_are_scaled_together(self, in_memory, tmp_path):
        data = self.cells(tmp_path, val_size=3, in_memory=in_memory, num_workers=0, eval_batch_size=2)
        seen = record(data, limit_train_batches=4).seen
        annotations = read_voc(tmp_path / "cells", "trainval")
        held_out = [annotations[i] for i in hold_out(13, 3)[1]]
        boxes = [row for batch in seen["val"] for row in batch.boxes]
        labels = [row for batch in seen["val"] for row in batch.labels]
        assert data.classes == ("Platelets", "RBC", "WBC")
        assert data.metadata()["image_shape"] == [3, 24, 48]
        for annotation, found, label in zip(held_out, boxes, labels, strict=True):
            torch.testing.assert_close(found, torch.from_numpy(annotation.boxes) * torch.tensor([0.75, 0.5] * 2))
            assert tuple(data.classes[i] for i in label) == annotation.names
            assert (found.dtype, label.dtype) == (torch.float32, torch.int64)
        assert {tuple(batch.image.shape[1:]) for batch in seen["train"]} == {(3, 24, 48)}
        assert all(len(batch.boxes) == len(batch.labels) == 4 for batch in seen["train"])
        shown = data.denormalize(seen["val"][0].image[0])
        expected = torch.nn.functional.interpolate(
            _pixels(held_out[0])[None], (24, 48), mode="bilinear", antialias=True
        )
        assert (shown - expected[0]).abs().mean() < 0.01

    def test_memory_and_files_give_the_same_batches(self, tmp_path):
        batches = [
            record(self.cells(tmp_path, in_memory=m, num_workers=w, val_size=2, seed=3)).seen
            for m, w in ((1, 0), (0, 2))
        ]
        for split in ("train", "val"):
            for one, other in zip(batches[0][split], batches[1][split], strict=True):
                assert torch.equal(one.image, other.image)
                assert all(torch.equal(a, b) for a, b in zip(one.boxes, other.boxes, strict=True))

    def test_augmentation_is_seeded_and_applies_to_training_only(self, tmp_path):
        before = fingerprint_of_global_randomness()
        augment = [BoxFlip(0.5, 0.5), BoxZoomShift(), Color()]
        runs = [record(self.cells(tmp_path, val_size=2, augment=augment, seed=s)).seen for s in (1, 1, 2)]
        plain = record(self.cells(tmp_path, val_size=2, seed=1)).seen
        assert torch.equal(runs[0]["train"][0].image, runs[1]["train"][0].image)
        assert not torch.equal(runs[0]["train"][0].image, runs[2]["train"][0].image)
        assert not torch.equal(runs[0]["train"][0].image, plain["train"][0].image)
        assert torch.equal(runs[0]["val"][0].image, plain["val"][0].image)
        assert fingerprint_of_global_randomness() == before

    def test_without_lists_a_fixed_part_is_the_test_set(self, folder):
        for i in range(20):
            draw_picture(50 + i, (64, 48)).save(folder / f"{i:02}.jpg")
        as_voc(folder, BOXES | {f"{i:02}.jpg": [("cat", (1, 2, 9, 9))] for i in range(20)})
        sets = [VOC(str(folder), image_size=(24, 32), seed=seed).make_datasets() for seed in (0, 1)]
        assert [len(sets[0][name]) for name in ("train", "test")] == [20, 3]
        assert torch.equal(sets[0]["test"].images, sets[1]["test"].images)

    @pytest.mark.parametrize(("kind", "write"), [(COCO, as_coco), (VIA, as_via_project), (VIA, as_via_csv)])
    def test_other_formats_yield_the_same_batches(self, kind, write, folder):
        file = write(folder, BOXES)
        data = kind(file.name, data_dir=folder, image_size=(48, 64), eval_batch_size=3)
        batch = BoxedFiles(data.found["train"], data.classes, (48, 64)).in_memory().__getitems__(torch.arange(3))
        assert data.classes == ("cat", "dog")
        assert [row.tolist() for row in batch.labels] == [[0, 1], [], [1]]
        assert torch.equal(batch.boxes[0], torch.tensor([box for _, box in BOXES["a.jpg"]]))
        assert batch.boxes[1].shape == (0, 4)

    def test_an_unknown_class_is_an_error_that_names_it(self, tmp_path):
        with pytest.raises(ValueError, match=r"box of class 'WBC': expected one of \['RBC', 'Platelets'\]"):
            self.cells(tmp_path, classes=["RBC", "Platelets"])

    def test_given_classes_define_the_order_of_labels(self, tmp_path):
        data = self.cells(tmp_path, classes=["WBC", "RBC", "Platelets", "Parasite"])
        assert data.num_classes == 4
        assert data.make_datasets()["test"].labels[0].tolist() == [
            data.classes.index(n) for n in data.found["test"][0].names
        ]

    def test_a_missing_image_is_an_error_that_names_it(self, tmp_path):
        self.cells(tmp_path)
        next(tmp_path.rglob("cell_004.jpg")).unlink()
        with pytest.raises(FileNotFoundError, match=r"cell_004.* is annotated but does not exist"):
            self.cells(tmp_path)

    def test_an_image_of_another_size_than_annotated_is_an_error(self, tmp_path):
        self.cells(tmp_path)
        draw_picture(0, (48, 64)).save(next(tmp_path.rglob("cell_004.jpg")))
        with pytest.raises(ValueError, match=r"cell_004.jpg has 48 x 64 pixels, but its boxes were drawn on 64 x 48"):
            self.cells(tmp_path).setup("fit")

    def test_through_the_command_it_is_one_line(self, tmp_path, monkeypatch, capsys):
        monkeypatch.chdir(tmp_path)
        self.cells(tmp_path)
        for path, content in (
            ("cell_004.xml", "<annotation>"),
            ("cell_005.xml", xml("cell_005.jpg", [("Moon", (1, 2, 9, 9))])),
        ):
            broken = next(tmp_path.rglob(path))
            original = broken.read_text()
            broken.write_text(content)
            options = [
                "--data.folder",
                "cells",
                "--data.data_dir",
                str(tmp_path),
                "--data.classes",
                "[RBC,WBC,Platelets]",
            ]
            assert main(["fit", "detection/yolo-bccd", *options]) == 2
            lines = capsys.readouterr().err.splitlines()
            assert path[:-4] in lines[-1]
            assert not any("Traceback" in line for line in lines)
            broken.write_text(original)
        assert not list(tmp_path.rglob("*.ckpt"))

    def test_a_data_set_without_boxes_or_a_missing_folder_is_an_error(self, folder):
        as_coco(folder, {"b.jpg": [], "a.jpg": []})
        with pytest.raises(ValueError, match="contain no box"):
            COCO("boxes.json", data_dir=folder)
        with pytest.raises(FileNotFoundError, match="point ZOO_DATA"):
            VOC("nowhere", data_dir=folder)

    @pytest.mark.data
    def test_the_real_blood_cells(self, capsys):
        data = VOC("bccd", image_size=(240, 320))
        assert {split: len(annotations) for split, annotations in data.found.items()} == {"train": 292, "test": 72}
        assert sum(len(annotation.names) for annotations in data.found.values() for annotation in annotations) == 4886
        lines = capsys.readouterr().err.splitlines()
        assert [line.split("/")[-1].split(":")[0] for line in lines] == ["BloodImage_00338.xml", "BloodImage_00343.xml"]
        assert all("1 without area dropped" in line for line in lines)


def _pixels(annotation: Annotation) -> torch.Tensor:
    return torch.from_numpy(np.array(read_image(annotation.path))).permute(2, 0, 1).float() / 255


H, W = 40, 56
integer_boxes = st.lists(
    st.tuples(st.integers(0, 30), st.integers(0, 20), st.integers(4, 26), st.integers(4, 20)), max_size=4
)


def drawn(boxes: list[torch.Tensor]) -> torch.Tensor:
    """(B, 1, H, W): 1 inside the boxes of a sample, whose edges are integers, else 0."""
    image = torch.zeros(len(boxes), 1, H, W)
    for pixels, rows in zip(image, boxes, strict=True):
        for x, y, X, Y in rows.int().tolist():
            pixels[:, y:Y, x:X] = 1
    return image


def corners(rows: list) -> torch.Tensor:
    return torch.tensor([(x, y, x + w, y + h) for x, y, w, h in rows], dtype=torch.float32).reshape(-1, 4)


def batch_of(boxes: list[torch.Tensor], image: torch.Tensor | None = None) -> Boxed:
    image = drawn(boxes) if image is None else image
    return Boxed(image, boxes, [torch.arange(len(rows)) for rows in boxes])


class TestAugmentation:
    @settings(max_examples=50, deadline=None)
    @given(st.lists(integer_boxes, min_size=1, max_size=6), st.integers(0, 99))
    def test_flipped_boxes_are_where_their_pixels_are(self, rows, seed):
        batch = batch_of([corners(r) for r in rows])
        result = BoxFlip(0.5, 0.5)(batch, generator(seed))
        assert torch.equal(drawn(result.boxes), result.image)
        assert [len(r) for r in result.boxes] == [len(r) for r in rows]
        assert all(torch.equal(a, b) for a, b in zip(result.labels, batch.labels, strict=True))

    def test_flips_draw_for_each_sample_and_axis(self):
        result = BoxFlip(0.5, 0.5)(batch_of([corners([(1, 2, 10, 5)])] * 64), generator())
        assert len(torch.cat(result.boxes).unique(dim=0)) == 4
        assert torch.equal(BoxFlip(1.0, 0.0)(batch_of([corners([(1, 2, 10, 5)])]), generator()).boxes[0],
                           torch.tensor([[W - 11.0, 2, W - 1, 7]]))  # fmt: skip

    @settings(max_examples=50, deadline=None)
    @given(
        st.tuples(st.integers(0, 36), st.integers(0, 20), st.integers(8, 20), st.integers(8, 20)), st.integers(0, 999)
    )
    def test_zoomed_boxes_are_where_their_pixels_are(self, row, seed):
        batch = batch_of([corners([row])])
        batch = batch._replace(image=batch.image.expand(-1, 3, -1, -1))
        result = BoxZoomShift(zoom=(0.7, 1.5), stretch=0.3, shift=0.15, min_visible=0.05)(batch, generator(seed))
        inside = (result.image[0, 0] - batch.image.mean()) / (1 - batch.image.mean()) > 0.5
        if not len(result.boxes[0]):
            assert inside.float().mean() < 0.1
            return
        columns, rows = inside.any(0).nonzero(), inside.any(1).nonzero()
        found = [columns[0].item(), rows[0].item(), columns[-1].item() + 1, rows[-1].item() + 1]
        np.testing.assert_allclose(result.boxes[0][0], found, atol=1.0)

    def test_zoom_and_shift_stay_in_their_bounds_and_draw_for_each_sample(self):
        boxes = [corners([(24, 16, 8, 8)])] * 300
        result = torch.cat(BoxZoomShift(zoom=(0.5, 2.0), stretch=0.5, shift=0.1)(batch_of(boxes), generator()).boxes)
        side = result[:, 2:] - result[:, :2]
        area, ratio = side.prod(1) / 64, side[:, 0] / side[:, 1]
        moved = (result[:, 2:] + result[:, :2]) / 2 - torch.tensor([W / 2, H / 2])
        assert 0.25 <= area.min() < 0.35
        assert 3 < area.max() <= 4
        assert 1 / 1.5 - 1e-4 <= ratio.min() < 0.69
        assert 1.46 < ratio.max() <= 1.5 + 1e-4
        assert 0.09 * W < moved[:, 0].abs().max() <= 0.1 * W
        assert 0.09 * H < moved[:, 1].abs().max() <= 0.1 * H
        assert len(result.unique(dim=0)) == 300

    def test_a_zoom_of_one_changes_nothing(self):
        batch = batch_of([corners([(3, 4, 10, 12)]), corners([])], torch.rand(2, 3, H, W, generator=generator()))
        result = BoxZoomShift(zoom=(1.0, 1.0), shift=0.0)(batch, generator())
        torch.testing.assert_close(result.image, batch.image, atol=1e-5, rtol=0)
        torch.testing.assert_close(result.boxes, batch.boxes, atol=1e-4, rtol=0)

    def test_boxes_of_which_little_is_left_are_dropped_with_their_labels_and_others_clipped(self):
        rows = corners([(0, 10, 8, 8), (30, 10, 10, 10), (8, 10, 12, 8)])
        result = BoxZoomShift(zoom=(2.0, 2.0), shift=0.0, min_visible=0.4)(batch_of([rows]), generator())
        assert result.labels[0].tolist() == [1, 2]  # half of the third is left, and nothing of the first
        torch.testing.assert_close(result.boxes[0], torch.tensor([[32.0, 0, 52, 20], [0, 0, 12, 16]]))
        result = BoxZoomShift(zoom=(2.0, 2.0), shift=0.0, min_visible=0.6)(batch_of([rows]), generator())
        assert result.labels[0].tolist() == [1]
        result = BoxZoomShift(zoom=(0.1, 0.1), shift=0.0, min_size=1.1)(batch_of([rows]), generator())
        assert result.labels[0].tolist() == []

    @pytest.mark.parametrize("augmentation", [BoxFlip(0.5, 0.5), BoxZoomShift(stretch=0.1), Color()])
    def test_images_without_boxes_and_the_input_stay_as_they_are(self, augmentation):
        image = torch.rand(3, 3, H, W, generator=generator())
        batch = batch_of([corners([]), corners([(3, 4, 30, 20)]), corners([])], image)
        before = image.clone(), batch.boxes[1].clone()
        result = augmentation(batch, generator())
        assert [tuple(rows.shape) for rows in result.boxes] == [(0, 4), (1, 4), (0, 4)]
        assert [len(rows) for rows in result.labels] == [0, 1, 0]
        assert {rows.dtype for rows in result.labels} == {torch.int64}
        assert result.image.min() >= 0
        assert result.image.max() <= 1
        assert torch.equal(batch.image, before[0])
        assert torch.equal(batch.boxes[1], before[1])
        empty = augmentation(batch_of([corners([])] * 3, image), generator())
        assert [tuple(rows.shape) for rows in empty.boxes] == [(0, 4)] * 3

    def test_a_zoom_that_is_not_a_range_is_an_error(self):
        with pytest.raises(ValueError, match=r"zoom is \(1.2, 0.8\)"):
            BoxZoomShift(zoom=(1.2, 0.8))

    def test_color_changes_brightness_saturation_and_contrast(self):
        x = torch.rand(40, 3, 6, 6, generator=generator()) * 0.2 + 0.4
        weights = torch.tensor([0.299, 0.587, 0.114])[:, None, None]

        def changed(**strength) -> torch.Tensor:
            none = {"brightness": 0.0, "contrast": 0.0, "saturation": 0.0}
            return Color(**(none | strength))(Labelled(x, torch.arange(40)), generator()).image

        torch.testing.assert_close(changed(), x)
        factor = changed(brightness=0.3) / x
        assert (factor.flatten(1).std(1) < 1e-4).all()
        assert 0.7 <= factor.min() < 0.75
        assert 1.25 < factor.max() <= 1.3 + 1e-5
        desaturated = changed(saturation=0.5)
        torch.testing.assert_close((desaturated * weights).sum(1), (x * weights).sum(1), atol=1e-5, rtol=0)
        assert (desaturated.std(1) / x.std(1)).flatten(1).std(1).max() < 1e-3
        flat = changed(contrast=0.5)
        torch.testing.assert_close((flat * weights).sum(1).mean((1, 2)), (x * weights).sum(1).mean((1, 2)))
        spread = flat.flatten(1).std(1) / x.flatten(1).std(1)
        assert spread.min() < 0.6
        assert spread.max() > 1.4
