"""`zoo predict` finds the files that are meant, streams, writes tables and contact sheets; `zoo fill` fills masks."""

import csv
import io
import json
import os
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import zoo
from callbacks.figures.predictions import MANY_BOXES, Predicted, prediction_sheet
from datamodules.boxes.shapes import Shapes
from datamodules.text.sentence_pairs import SentencePairs
from helpers import draw_picture, quiet_trainer, verse
from zoo.command.actions.fill import fill
from zoo.command.actions.predict import make_predictor, predict
from zoo.command.main import main
from zoo.command.sources import image_files, in_threads
from zoo.detection.yolo import YOLO
from zoo.inference import ready
from zoo.inference.predictor import MAX_BATCH, Read
from zoo.language.bert import BERT

MODEL = "digits/small@ready"


@pytest.fixture
def here(tmp_path, monkeypatch) -> Path:
    """A working directory with the folder `images`: two files, one deeper, and what is no image."""
    monkeypatch.chdir(tmp_path)
    for i, name in enumerate(("a.png", "b.jpg", "deeper/c.png")):
        Path("images", name).parent.mkdir(parents=True, exist_ok=True)
        draw_picture(i, (40 + i, 30)).save(Path("images", name))
    Path("images/notes.txt").write_text("not an image")
    Path("images/.hidden.png").write_text("not an image")
    return tmp_path


@pytest.fixture(scope="module")
def detector(tmp_path_factory) -> str:
    """The checkpoint of a detector that was hardly trained."""
    folder = tmp_path_factory.mktemp("detector")
    torch.manual_seed(0)
    model = YOLO(5, [[0.2, 0.2], [0.4, 0.4]], widths=(4, 8), depth=1, passthrough=4)
    with torch.no_grad():
        model.net.head.predict.bias.view(2, -1)[:, 4] = 0.0  # else all scores are near zero
    data = Shapes(size=32, train_size=8, val_size=4, test_size=4, batch_size=4)
    trainer = quiet_trainer(max_steps=1, limit_val_batches=0)
    trainer.fit(model, datamodule=data)
    trainer.save_checkpoint(folder / "yolo.ckpt")
    return str(folder / "yolo.ckpt")


def lines(text: str) -> list[dict]:
    return [json.loads(line) for line in text.splitlines()]


def listed(monkeypatch, content: bytes) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(content)))


def test_files_folders_patterns_and_a_list_are_sources(here, monkeypatch):
    everything = ["images/a.png", "images/b.jpg", "images/deeper/c.png"]
    assert list(image_files(["images"])) == [everything]
    assert list(image_files(["images/*.png", "images/b.jpg"])) == [["images/a.png", "images/b.jpg"]]
    assert list(image_files(["images/**/*"])) == [everything]
    listed(monkeypatch, b"one.png\n\ntwo words.png \nthree.png")
    groups = list(image_files(["images/a.png", "-", "images/b.jpg"]))
    assert groups == [["images/a.png"], ["one.png", "two words.png"], ["three.png"], ["images/b.jpg"]]
    Path("odd[1].png").write_bytes(Path("images/a.png").read_bytes())
    assert list(image_files(["odd[1].png"])) == [["odd[1].png"]], "a file of this name goes before the pattern"
    Path("empty").mkdir()
    for words, message in (
        (["empty"], "contains no image"),
        (["*.gif"], "contains no image"),
        ([], "no image is given"),
    ):
        with pytest.raises(ValueError, match=message):
            image_files(words)
    with pytest.raises(FileNotFoundError, match=r"absent\.png does not exist"):
        image_files(["images", "absent.png"])


def test_a_slow_list_is_answered_as_it_comes(here, monkeypatch):
    reading, writing = os.pipe()
    monkeypatch.setattr(sys, "stdin", os.fdopen(reading, "r"))
    results = predict(MODEL, ["-"])
    for name in ("images/a.png", "images/b.jpg"):
        os.write(writing, f"{name}\n".encode())
        assert next(results)["file"] == name  # would wait for ever if it waited for a batch
    os.close(writing)
    assert list(results) == []


def test_threads_keep_the_order_and_work_only_a_little_ahead():
    started = []

    def double(i: int) -> int:
        started.append(i)
        if i == 50:
            raise ValueError("fifty")
        return 2 * i

    results = in_threads(double, range(100), threads=3)
    assert [next(results) for _ in range(5)] == [0, 2, 4, 6, 8]
    assert max(started) < 5 + 2 * 3 + 3
    with pytest.raises(ValueError, match="fifty"):
        list(results)
    assert max(started) < 70, "nothing more is begun after an error"


def test_results_are_those_of_the_net_whatever_the_batches(here, capfd):
    """More images than a batch holds, some of them unreadable."""
    files = []
    for i in range(MAX_BATCH + 9):
        Path("many").mkdir(exist_ok=True)
        files.append(f"many/{i:03}.png")
        if i % 10 == 3:
            Path(files[-1]).write_text("not an image")
        else:
            draw_picture(i, (9 + i % 5, 8)).save(files[-1])
    assert main(["predict", MODEL, "many"]) == 2
    printed = capfd.readouterr()
    results = lines(printed.out)
    assert [result["file"] for result in results] == files
    assert printed.err.strip().splitlines()[-1].startswith("zoo: 7 of 73 files cannot be read as images")
    model = zoo.load(MODEL)
    good = [result for result in results if "error" not in result]
    assert len(good) == len(files) - 7
    with torch.inference_mode():
        probability = model(model.preprocess([result["file"] for result in good])).softmax(1)
    assert [result["class"] for result in good] == [model.classes[i] for i in probability.argmax(1)]
    found = torch.tensor([result["confidence"] for result in good])
    torch.testing.assert_close(found, probability.amax(1), atol=1e-4, rtol=0)
    assert all("many/" in result["error"] for result in results if "error" in result)


def test_a_file_that_was_named_must_be_readable(here, capfd):
    Path("cut.png").write_bytes(Path("images/a.png").read_bytes()[:200])
    assert main(["predict", MODEL, "images/a.png", "cut.png"]) == 2
    printed = capfd.readouterr()
    assert "cut.png" in printed.err
    assert not printed.out
    assert main(["predict", MODEL, "images", "absent.png"]) == 2
    assert not capfd.readouterr().out, "before any work"


def test_a_table_and_a_sheet_are_written(here, capfd):
    Path("images/broken.png").write_text("no")
    assert main(["predict", MODEL, "images", "--csv", "new/t.csv", "--out", "new/s.png"]) == 2  # as one is broken
    results = lines(capfd.readouterr().out)
    rows = list(csv.reader(Path("new/t.csv").read_text().splitlines()))
    assert rows[0] == ["file", "class", "confidence"]
    expected = [[r["file"], r.get("class", ""), str(r.get("confidence", ""))] for r in results]
    assert rows[1:] == expected
    assert len(rows) == 5
    with Image.open("new/s.png") as sheet:
        assert sheet.size[0] > 700
    assert sorted(path.name for path in Path("new").iterdir()) == ["s.png", "t.csv"]
    assert not Path("predictions").exists()
    assert main(["predict", MODEL, "images", "--out", "s.jpg"]) == 2
    assert "ends in .png" in capfd.readouterr().err


def test_bright_images_for_a_net_of_dark_ones_are_remarked_upon(here, capfd):
    Image.new("L", (20, 20), 240).save("white.png")
    assert main(["predict", MODEL, "white.png"]) == 0
    assert "--invert" in capfd.readouterr().err
    assert main(["predict", MODEL, "white.png", "--invert"]) == 0
    printed = capfd.readouterr()
    assert "--invert" not in printed.err
    Image.new("L", (20, 20), 15).save("black.png")
    (inverted,), (black,) = lines(printed.out), predict(MODEL, ["black.png"])
    assert inverted | {"file": ""} == black | {"file": ""}


def test_a_detector_says_how_far_the_best_is_from_the_least_score(here, detector, capfd):
    (all_of_them,) = predict(detector, ["images/a.png"], min_score=0.0)
    best = all_of_them["boxes"][0]["score"]
    scores = [box["score"] for box in all_of_them["boxes"]]
    middle = scores[len(scores) // 2] + 5e-5  # they are rounded to four digits
    (some,) = predict(detector, ["images/a.png"], min_score=middle)
    assert some["boxes"] == [box for box in all_of_them["boxes"] if box["score"] > middle]
    assert "note" not in some
    words = ["predict", detector, "images/a.png", "--min_score", "0.99", "--out", "s.png", "--csv", "t.csv"]
    assert main(words) == 0
    (none,) = lines(capfd.readouterr().out)
    assert none == {"file": "images/a.png", "boxes": [], "note": f"nothing above 0.99 (best {best:.2g})"}
    assert Path("t.csv").read_text().splitlines() == ["file,class,score,x0,y0,x1,y1", "images/a.png,,,,,,"]
    assert main(["predict", detector, "images", "--min_score", str(middle), "--csv", "t.csv"]) == 0
    results = lines(capfd.readouterr().out)
    rows = list(csv.DictReader(Path("t.csv").read_text().splitlines()))
    boxes = [(result["file"], box) for result in results for box in result["boxes"]]
    assert [(row["file"], float(row["score"]), float(row["x1"])) for row in rows if row["class"]] == [
        (file, box["score"], box["xyxy"][2]) for file, box in boxes
    ]
    assert all(Path(result["picture"]).is_file() for result in results)
    assert main(["predict", detector, "images", "--min_score", "1"]) == 2
    assert "min_score is 1" in capfd.readouterr().err


def test_boxes_are_in_pixels_of_the_file_and_of_the_kept_image(here, detector):
    """Of a file that is larger than the image kept of it."""
    draw_picture(5, (900, 600)).save("large.jpg")
    predictor = make_predictor(detector, min_score=0.0, keep=300)
    (found,) = predictor.predict([predictor.read("large.jpg")])
    assert found.image.size == (300, 200)
    expected = torch.tensor([box["xyxy"] for box in found.result["boxes"]]) / 3
    torch.testing.assert_close(found.boxes, expected, atol=0.05, rtol=0)
    assert len(found.boxes) > 1
    (unread,) = predictor.predict([Read("x", error="no")])
    assert unread.result == {"file": "x", "error": "no"}


def test_a_sheet_shows_each_image_with_its_words():
    image = np.full((20, 30, 3), 200, np.uint8)
    boxes, labels = torch.tensor([[1.0, 2, 9, 12]]).repeat(20, 1), torch.arange(20) % 2
    shown = [
        Predicted(image, "a$b.png", "cat · 98 %"),
        Predicted(image, "b.png", "1 dog", True, boxes[:1], labels[:1], ("cat 0.90",)),
        Predicted(image, "c.png", "20 dog", True, boxes, labels, ("cat 0.90",) * 20),
        Predicted(image, "d.png", "nothing above 0.4", False, boxes[:0], labels[:0]),
    ]
    assert len(boxes) > MANY_BOXES
    figure = prediction_sheet(shown, "Title", "Subtitle", ["cat", "dog"])
    texts = [text.get_text() for text in figure.texts]
    assert {"Title", "Subtitle", r"a\$b.png", "cat · 98 %", "cat", "dog", "nothing above 0.4"} <= set(texts)
    assert [len(axes.patches) for axes in figure.axes] == [0, 1, 20, 0]
    assert [len(axes.texts) for axes in figure.axes] == [0, 1, 0, 0], "many texts would hide the image"
    colors = {text.get_text(): text.get_color() for text in figure.texts}
    assert colors["nothing above 0.4"] != colors["cat · 98 %"]
    figure.canvas.draw()


def test_a_model_of_another_kind_is_refused(here, capfd):
    assert main(["predict", "automata/starry_night", "images"]) == 2
    assert "TextureNCA, which neither classifies nor detects" in capfd.readouterr().err


@pytest.fixture
def bert(here, monkeypatch) -> str:
    monkeypatch.setenv("XDG_CACHE_HOME", str(here))
    Path("verse.txt").write_text(verse())
    torch.manual_seed(0)
    data = SentencePairs("verse.txt", segment=8, vocab_size=300, batch_size=8)
    trainer = quiet_trainer(max_steps=1, limit_val_batches=0)
    trainer.fit(BERT(data.vocab_size, context=19, num_layers=1, num_heads=2, dim=16), datamodule=data)
    trainer.save_checkpoint("bert.ckpt")
    return "bert.ckpt"


def test_masks_are_filled_with_the_most_likely_tokens(bert, capfd):
    text = "to be[MASK] not [MASK][MASK] be"
    found = fill(bert, text, top=3)
    model = zoo.load(bert)
    ids, mask, segments = model.preprocess(text)
    with torch.inference_mode():
        logits = model(ids, mask, segments)[0, ids[0] == model.preprocess.mask]
    special = {model.preprocess.pad, model.preprocess.cls, model.preprocess.sep, model.preprocess.mask}
    for place, row in zip(found["places"], logits, strict=True):
        allowed = [i for i in row.argsort(descending=True).tolist() if i not in special]
        assert [one["token"] for one in place] == [model.tokenizer.decode([i]) for i in allowed[:3]]
        assert 1 >= place[0]["probability"] >= place[1]["probability"] > 0
    assert found["text"] == "to be{} not{}{} be".format(*(place[0]["token"] for place in found["places"]))
    assert main(["fill", bert, text, "--json"]) == 0
    assert json.loads(capfd.readouterr().out)["text"] == found["text"]
    assert main(["fill", bert, text]) == 0
    assert len(capfd.readouterr().out.splitlines()) >= 4


def test_a_text_that_cannot_be_filled_is_refused_in_one_line(bert, capfd):
    for words, part in (
        ([bert, "to be or not"], "no [MASK]"),
        ([bert, f"{'to ' * 30}[MASK]"], "don't fit a context of 19"),
        ([bert, "[MASK]", "--top", "0"], "top is 0"),
        ([MODEL, "[MASK]"], "does not record the data's tokenizer"),
    ):
        assert main(["fill", *words]) == 2
        assert part in capfd.readouterr().err.splitlines()[-1]


def test_classes_are_printed_in_their_own_letters(here, capfd):
    card, state = ready.read(ready.path_of("digits/small"))
    data = card.data | {"classes": [f"Säule {i}" for i in range(10)]}
    ready.write(here / "a.safetensors", replace(card, data=data), state)
    assert main(["predict", "a.safetensors", "images/a.png"]) == 0
    assert '"class": "Säule ' in capfd.readouterr().out
