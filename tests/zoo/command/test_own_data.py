"""Data of one's own, in one command each: pictures, boxes in every format, a text, two images."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from torchmetrics.detection import MeanAveragePrecision

from datamodules.boxes.base import BoxedData, BoxedInMemory
from helpers import draw_picture, quiet_trainer, verse
from zoo.command import recipes
from zoo.command.main import main
from zoo.detection.yolo import VOC_ANCHORS, YOLO, AveragePrecision

SHORT = [
    "--trainer.max_epochs", "1", "--trainer.limit_train_batches", "2", "--trainer.limit_val_batches", "2",
    "--trainer.limit_test_batches", "2", "--trainer.log_every_n_steps", "1", "--trainer.default_root_dir", "run",
    "--trainer.num_sanity_val_steps", "0",
]  # fmt: skip
NARROW_YOLO = ["--model.widths", "[8, 8, 8, 8]", "--model.passthrough", "4", "--data.image_size", "[64, 96]"]
NARROW_GPT = ["--model.num_layers", "1", "--model.num_heads", "2", "--model.dim", "16"]


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path


def last_values(run: str = "run") -> dict[str, float]:
    """The last value of each metric of a run."""
    values: dict[str, float] = {}
    with open(Path(run, "metrics.csv"), newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            values |= {name: float(value) for name, value in row.items() if value}
    return values


@pytest.mark.parametrize("name", ["own/pictures", "own/boxes", "own/text"])
def test_the_recipes_are_complete_and_say_how_they_are_called(name):
    text = recipes.find(name).read_text(encoding="utf-8")
    assert f"zoo fit {name} --data." in text.partition("\nexpect:")[0]
    assert recipes.expectation(name).cost == "cpu"


# Pictures


def write_pictures(folder: Path, classes: tuple[str, ...], modes: tuple[str, ...], count: int = 9) -> None:
    for label, name in enumerate(classes):
        (folder / name).mkdir(parents=True)
        for i in range(count):
            image = draw_picture(100 * label + i, (30 + i, 44 - i)).convert(modes[i % len(modes)])
            image.save(folder / name / f"Foto {i}.png")
    (folder / classes[0] / "._Foto 0.png").write_bytes(b"\0\5\26\7" + b"\0" * 60)


@pytest.mark.parametrize(
    ("classes", "modes", "shape"),
    [
        (("Äpfel", "Birnen"), ("L", "LA"), [1, 32, 32]),
        (("Äpfel", "Birnen", "Große Nüsse"), ("RGB", "RGBA", "L", "P"), [3, 32, 32]),
    ],
)
def test_pictures_are_trained_tested_and_predicted(here, capfd, classes, modes, shape):
    write_pictures(here / "Bilder", classes, modes)
    fit = ["fit", "own/pictures", "--data.folder", "Bilder", "--data.num_workers", "0", "--data.batch_size", "4"]
    assert main([*fit, "--model.widths", "[4, 4, 4, 4]", *SHORT]) == 0, capfd.readouterr().err
    assert f"images of {len(classes)} classes" in capfd.readouterr().err
    pictures = {path.stem for path in Path("run", "pictures").glob("*.png")}
    assert {"curves", "confusion_val"} <= pictures
    saved = torch.load("run/checkpoints/last.ckpt", weights_only=True)["data"]
    assert (saved["classes"], saved["image_shape"]) == (sorted(classes), shape)
    assert last_values().keys() >= {"train/acc", "val/acc", "val/loss"}
    assert main(["test", "run"]) == 0, capfd.readouterr().err
    assert "test/acc" in last_values()
    capfd.readouterr()
    assert main(["predict", "run", "Bilder/Birnen/Foto 3.png"]) == 0
    assert json.loads(capfd.readouterr().out.splitlines()[0])["class"] in classes


def test_the_length_of_an_epoch_is_that_of_the_recipe_whatever_the_number_of_pictures(here, capfd):
    write_pictures(here / "Bilder", ("a", "b"), ("RGB",))
    options = ["--data.num_workers", "0", "--data.batch_size", "5", "--data.epoch_images", "20"]
    short = ["--trainer.max_epochs", "2", "--trainer.limit_val_batches", "1", "--trainer.default_root_dir", "run"]
    words = ["fit", "own/pictures", "--data.folder", "Bilder", "--model.widths", "[4, 4, 4, 4]", *options, *short]
    assert main(words) == 0, capfd.readouterr().err
    assert torch.load("run/checkpoints/last.ckpt", weights_only=True)["global_step"] == 2 * 4


# Boxes

KINDS = ("Katze", "Vögel")
SIZE = (60, 40)


def boxes_of(i: int) -> list[tuple[str, tuple[int, int, int, int]]]:
    return [(KINDS[(i + k) % 2], (3 + i, 4 + k, 23 + i + k, 20 + k)) for k in range(1 + i % 3)]


def write_images(folder: Path, count: int = 12) -> list[str]:
    folder.mkdir(parents=True)
    names = [f"Bild {i:02}.jpg" for i in range(count)]
    for i, name in enumerate(names):
        draw_picture(i, SIZE).convert(("RGB", "L")[i % 2]).save(folder / name)
    return names


def as_voc(root: Path) -> list[str]:
    for i, name in enumerate(write_images(root / "JPEGImages")):
        objects = "".join(
            f"<object><name>{kind}</name><bndbox><xmin>{x}</xmin><ymin>{y}</ymin><xmax>{X}</xmax><ymax>{Y}</ymax>"
            "</bndbox></object>"
            for kind, (x, y, X, Y) in boxes_of(i)
        )
        path = (root / "Annotations" / name).with_suffix(".xml")
        path.parent.mkdir(exist_ok=True)
        size = f"<size><width>{SIZE[0]}</width><height>{SIZE[1]}</height></size>"
        path.write_text(f"<annotation>{size}{objects}</annotation>", encoding="utf-8")
    return []


def as_coco(root: Path) -> list[str]:
    names = write_images(root / "images")
    boxes = [(i, kind, box) for i in range(len(names)) for kind, box in boxes_of(i)]
    content = {
        "images": [{"id": i, "file_name": name, "width": SIZE[0], "height": SIZE[1]} for i, name in enumerate(names)],
        "categories": [{"id": i, "name": kind} for i, kind in enumerate(KINDS)],
        "annotations": [
            {"id": n, "image_id": i, "category_id": KINDS.index(kind), "bbox": [x, y, X - x, Y - y]}
            for n, (i, kind, (x, y, X, Y)) in enumerate(boxes)
        ],
    }
    (root / "annotations").mkdir()
    (root / "annotations" / "instances.json").write_text(json.dumps(content))
    return []


def as_via(root: Path) -> list[str]:
    content = {
        name: {
            "filename": name,
            "regions": [
                {
                    "shape_attributes": {"name": "rect", "x": x, "y": y, "width": X - x, "height": Y - y},
                    "region_attributes": {"Art": kind, "Farbe": "rot"},
                }
                for kind, (x, y, X, Y) in boxes_of(i)
            ],
        }
        for i, name in enumerate(write_images(root))
    }
    (root / "via.json").write_text(json.dumps(content))
    return ["--data.attribute", "Art"]


def as_table(root: Path) -> list[str]:
    names = write_images(root / "elsewhere" / "Aufnahmen")
    (root / "boxes").mkdir()
    with open(root / "boxes" / "boxes.csv", "w", newline="", encoding="utf-8") as file:
        rows = csv.writer(file)
        rows.writerow(["image_id", "width", "height", "class", "xmin", "ymin", "xmax", "ymax"])
        rows.writerows(
            [Path(name).stem, *SIZE, kind, *box] for i, name in enumerate(names) for kind, box in boxes_of(i)
        )
    return ["--data.folder", str(root / "boxes"), "--data.images", str(root / "elsewhere")]


@pytest.mark.parametrize("write", [as_voc, as_coco, as_via, as_table])
def test_boxes_of_every_format_are_trained_tested_and_found(here, capfd, write):
    options = write(here / "Kästen")
    fit = ["fit", "own/boxes", "--data.folder", "Kästen", *options, "--data.batch_size", "2", *NARROW_YOLO, *SHORT]
    assert main(fit) == 0, capfd.readouterr().err
    told = capfd.readouterr().err
    assert "24 boxes of 2 classes (Katze, Vögel) in images: 8 train, 2 test, 2 val" in told
    assert "anchors of " in told
    assert Path("run/pictures/boxes_val.png").is_file()
    assert last_values().keys() >= {"val/map_50", "val/map_50_95", "val/ap_50/Katze", "val/ap_50/Vögel", "val/box"}
    saved = torch.load("run/checkpoints/last.ckpt", weights_only=True)
    anchors = saved["hyper_parameters"]["anchors"]
    assert len(anchors) == 5
    assert torch.equal(saved["state_dict"]["anchors"], torch.tensor(anchors))
    shares = np.array([((X - x) / SIZE[0], (Y - y) / SIZE[1]) for i in range(12) for _, (x, y, X, Y) in boxes_of(i)])
    assert (np.array(anchors)[-1] <= shares.max(0) + 1e-3).all()
    if write is as_voc:  # the rest is the same for all
        assert main(["test", "run"]) == 0, capfd.readouterr().err
        assert last_values().keys() >= {"test/map_50", "test/map_50_95"}
        capfd.readouterr()
        image = "Kästen/JPEGImages/Bild 00.jpg"
        assert main(["predict", "run", image, "--min_score", "0.001", "--out", "found"]) == 0
        assert {box["class"] for box in json.loads(capfd.readouterr().out.splitlines()[0])["boxes"]} <= {*KINDS}


def test_given_anchors_are_kept(here, capfd):
    as_voc(here / "a")
    anchors = ["--model.anchors", "[[0.2, 0.3], [0.5, 0.5]]", "--model.num_anchors", "null"]
    assert main(["fit", "own/boxes", "--data.folder", "a", *anchors, *NARROW_YOLO, *SHORT]) == 0, capfd.readouterr().err
    assert "anchors of" not in capfd.readouterr().err
    assert torch.load("run/checkpoints/last.ckpt", weights_only=True)["hyper_parameters"]["anchors"] == [
        [0.2, 0.3],
        [0.5, 0.5],
    ]


def test_anchors_found_for_other_data_come_from_the_checkpoint(here, capfd):
    """Those that are found when a run is evaluated or goes on are not put in place of those it was trained with."""
    as_voc(here / "a")
    assert main(["fit", "own/boxes", "--data.folder", "a", *NARROW_YOLO, *SHORT]) == 0, capfd.readouterr().err
    path = Path("run/checkpoints/last.ckpt")
    before = torch.load(path, weights_only=True)
    content = yaml.safe_load(Path("run/config.yaml").read_text(encoding="utf-8"))
    assert content["model"]["init_args"]["anchors"] is None
    for xml in Path("a/Annotations").glob("*.xml"):
        xml.write_text(xml.read_text(encoding="utf-8").replace("<xmax>2", "<xmax>5"), encoding="utf-8")
    assert main(["fit", "--resume", "run", "--trainer.max_epochs", "2"]) == 0, capfd.readouterr().err
    after = torch.load(path, weights_only=True)
    assert after["epoch"] == 1
    assert torch.equal(before["state_dict"]["anchors"], after["state_dict"]["anchors"])


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["own/boxes", "--data.folder", "nowhere"], "nowhere does not exist"),
        (["own/boxes", "--data.folder", "Bilder"], "Bilder contains no annotations: expected Annotations/*.xml"),
        (["own/boxes", "--data.folder", "a", "--data.images", "nowhere"], "nowhere does not exist"),
        (["own/boxes", "--data.folder", "a", "--data.images", "Bilder"], "is annotated but does not exist"),
        (["own/boxes", "--data.folder", "a", "--model.num_anchors", "0"], "num_anchors is 0: expected 1 or more"),
        (["own/pictures", "--data.folder", "nowhere"], "nowhere does not exist"),
        (["own/pictures", "--data.folder", "Bilder/x"], "Bilder/x contains 0 class folder"),
        (
            ["own/pictures", "--data.folder", "Bilder", "--data.augment", "[datamodules.augment.boxes.BoxFlip]"],
            "BoxFlip moves images with their boxes, but the batches are Labelled",
        ),
        (["own/text", "--data.file", "nowhere.txt"], "nowhere.txt does not exist"),
        (["own/text", "--data.file", "short.txt"], "short.txt has 9 tokens to train on"),
    ],
)
def test_bad_data_are_one_line_and_leave_no_folder(here, capfd, words, said):
    as_voc(here / "a")
    write_pictures(here / "Bilder", ("x", "y"), ("RGB",))
    (here / "short.txt").write_text("to be or n")
    assert main(["fit", *words]) == 2
    line = capfd.readouterr().err.strip().splitlines()[-1]
    assert line.startswith("zoo: ")
    assert said in line
    assert not Path("runs").exists()


# What a detector is measured by


def random_boxes(count: int, draw: torch.Generator) -> torch.Tensor:
    corner = 200 * torch.rand(count, 2, generator=draw)
    return torch.cat([corner, corner + 5 + 80 * torch.rand(count, 2, generator=draw)], 1)


@pytest.mark.parametrize(("classes", "images", "objects"), [(1, 3, 4), (3, 9, 7), (11, 12, 5)])
def test_average_precisions_are_those_of_torchmetrics(classes, images, objects):
    draw, ours = torch.Generator().manual_seed(classes), AveragePrecision()
    theirs = MeanAveragePrecision(backend="faster_coco_eval", class_metrics=True)
    at_50 = MeanAveragePrecision(backend="faster_coco_eval", class_metrics=True, iou_thresholds=[0.5])
    for _ in range(images):
        boxes, labels = random_boxes(objects, draw), torch.randint(0, classes, (objects,), generator=draw)
        near = boxes + 6 * torch.randn(boxes.shape, generator=draw)
        found = {
            "boxes": torch.cat([near, random_boxes(9, draw)]),
            "scores": torch.rand(objects + 9, generator=draw),
            "labels": torch.cat([labels, torch.randint(0, classes + 1, (9,), generator=draw)]),  # one without objects
        }
        for metric in (ours, theirs, at_50):
            metric.update([found], [{"boxes": boxes, "labels": labels}])
    expected, expected_50 = theirs.compute(), at_50.compute()
    assert float(ours.compute()) == pytest.approx(float(expected["map_50"]))
    assert ours.map_50_95 == pytest.approx(float(expected["map"]))
    for name, values in (("ap_50_95", expected), ("ap_50", expected_50)):
        of_class = dict(zip(values["classes"].tolist(), values["map_per_class"].tolist(), strict=True))
        present = {label: value for label, value in of_class.items() if value > -1}
        assert {label: getattr(ap, name) for label, ap in ours.of_class.items()} == pytest.approx(present)


def test_without_objects_or_detections_nothing_is_perfect():
    nothing = {"boxes": torch.zeros(0, 4), "scores": torch.zeros(0), "labels": torch.zeros(0, dtype=torch.int64)}
    metric = AveragePrecision()
    metric.update([nothing], [nothing])
    assert (float(metric.compute()), metric.map_50_95, metric.of_class) == (-1, -1, {})
    metric.reset()
    metric.update([nothing], [{"boxes": torch.tensor([[0.0, 0, 9, 9]]), "labels": torch.tensor([3])}])
    assert (float(metric.compute()), metric.map_50_95, metric.of_class) == (0, 0, {3: (0.0, 0.0)})


class Few(BoxedData):
    """A few images with boxes of so many classes, in memory."""

    mean, std = (0.5,) * 3, (0.25,) * 3

    def __init__(self, num_classes: int) -> None:
        super().__init__(val_size=0, batch_size=4)
        self.classes, self.image_shape = tuple(f"Art {i}" for i in range(num_classes)), (3, 64, 64)

    def make_datasets(self):
        draw = torch.Generator().manual_seed(0)
        images = torch.randint(0, 256, (8, *self.image_shape), dtype=torch.uint8, generator=draw)
        boxes = [random_boxes(3, draw) / 5 for _ in range(8)]
        labels = [torch.randint(0, self.num_classes, (3,), generator=draw) for _ in range(8)]
        return {split: BoxedInMemory(images, boxes, labels) for split in ("train", "val", "test")}


@pytest.mark.parametrize("box_loss", ["squared", "ciou"])
def test_every_metric_of_a_detector_says_what_it_is(box_loss):
    module = YOLO(3, box_loss=box_loss, num_anchors=2, widths=(8, 8, 8), depth=1, passthrough=4)
    trainer = quiet_trainer(max_epochs=1)
    trainer.fit(module, datamodule=Few(3))
    names = {name.partition("/")[2] for name in trainer.callback_metrics}
    assert names <= module.axes.keys()
    assert {"ap_50/Art 0", "map_50_95", "box", "object", "no_object", "class"} <= names
    labels = {name: module.axes[name].label for name in names}
    assert ("squared" in labels["box"]) == (box_loss == "squared")
    assert ("IoU" in labels["box"]) == (box_loss == "ciou")
    assert {name for name in names if module.axes[name].better == "max"} == {name for name in names if "ap_50" in name}
    assert {module.axes[name].better for name in ("loss", "box", "class")} == {"min"}
    assert module.anchors.tolist() != VOC_ANCHORS[:2]


def test_many_classes_have_no_curve_each_but_a_number_after_the_training():
    module = YOLO(13, num_anchors=2, widths=(8, 8, 8), depth=1, passthrough=4)
    trainer = quiet_trainer(max_epochs=1)
    trainer.fit(module, datamodule=Few(13))
    assert not any("ap_50/" in name for name in trainer.callback_metrics)
    (tested,) = trainer.test(module, datamodule=Few(13), verbose=False)
    assert "test/ap_50/Art 0" in tested


# Text and images


def test_a_text_is_learned_and_continued(here, capfd):
    Path("Text.txt").write_text(verse(3000) + "žluťoučký kůň", encoding="utf-8")
    options = ["--data.file", "Text.txt", "--data.context", "16", "--model.context", "16", *NARROW_GPT]
    assert main(["fit", "own/text", *options, *SHORT]) == 0, capfd.readouterr().err
    assert "different ones" in capfd.readouterr().err
    assert main(["generate", "run", "--prompt", "to be", "--tokens", "20"]) == 0
    assert capfd.readouterr().out.startswith("to be")


def test_two_images_become_one_and_the_checkpoint_is_small(here, capfd, vgg_weights):
    draw_picture(1, (90, 70)).save("Inhalt.jpg")
    draw_picture(2, (70, 80)).save("Stil.png")
    options = ["--data.content", "Inhalt.jpg", "--data.style", "Stil.png", "--data.size", "48", "--data.length", "6"]
    short = ["--trainer.max_epochs", "1", "--model.weights", str(vgg_weights), "--trainer.default_root_dir", "run"]
    assert main(["fit", "generation/style-transfer", *options, *short]) == 0, capfd.readouterr().err
    assert f"{'picture':<19}run/pictures/result.png" in capfd.readouterr().out.splitlines()
    size, pixels = Path("run/checkpoints/last.ckpt").stat().st_size, 3 * 48 * 62
    assert size < 3 * 4 * pixels + 50_000  # the image, previews of it, and little else
    assert Image.open("run/pictures/result.png").size == (62, 48)
    saved = torch.load("run/checkpoints/last.ckpt", weights_only=True)
    assert [*saved["state_dict"]] == ["net.image"]
    assert main(["fit", "--resume", "run", "--trainer.max_epochs", "2"]) == 0, capfd.readouterr().err
    assert torch.load("run/checkpoints/last.ckpt", weights_only=True)["epoch"] == 1
