"""The page on a run: complete, in one file, harmless whatever the run holds, and there for every kind of run."""

import itertools
import json
import math
import os
import re
import shutil
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from callbacks.figures.axis import percent_axis
from callbacks.galleries.items import data_uri
from zoo.command import recipes
from zoo.command.main import main
from zoo.report.images import LIMIT
from zoo.report.page import report, write_report
from zoo.report.run import find_run, read_run

HOSTILE = ["<script>alert(1)</script>", '"><img src=x onerror=alert(2)>', "a & b $x$ {{ 7 * 7 }}", "'; drop"]


@pytest.fixture
def page_of(taken_apart):
    return lambda folder: taken_apart(report(read_run(folder)))


def test_a_page_holds_every_figure_of_the_run(make_run, page_of, kit):
    rows = [*kit.rows, {"epoch": 0, "step": 0, "test/acc": 0.71875, "test/loss": 0.6875}]
    page = page_of(make_run(rows=rows, items={"confusion_test": kit.confusion(["cat", "dog"], [[5, 2], [3, 30]])}))
    for row in kit.rows:
        assert {f"{value:.6g}" for name, value in row.items() if "/" in name} <= set(page.text.split())
    for text in (
        "71.88 %",
        "0.688",
        "target at least 70.00 %: met",
        "1:15 min",
        "1.5 TFLOP",
        "1 234",
        "a processor",
    ):
        assert text in page.text
    assert "What it is." in page.text
    assert "finished, 3 of 3 epochs" in page.text
    assert "35 of 40 images right, 87.50 %" in page.text
    assert "dog taken for cat: 3 (9.1 % of dog)" in page.text
    assert "zoo fit a/one --trainer.max_epochs 3" in page.text
    assert "All settings are those of the recipe." in page.text


def test_curves_show_their_values_under_the_pointer_and_in_words(make_run):
    html = report(read_run(make_run()))
    svgs = re.findall(r"<svg[^>]*class=\"plot\".*?</svg>", html, re.DOTALL)
    assert len(svgs) == 2
    loss = next(svg for svg in svgs if "Loss" in svg)
    assert loss.count('class="at"') == 3
    for text in ("epoch 2", "validation 0.625", "train 0.719"):
        assert f">{text}</text>" in loss
    assert 'aria-label="Loss, cross-entropy in nats: train 0.312; validation 0.656"' in loss
    assert "#" not in re.sub(r'(href="|url\()#\w+', "", loss), "all colors are those of the page"
    assert "(best 0.625, epoch 2)" in html


def test_columns_under_the_pointer_cover_the_plot_without_a_gap(make_run):
    html = report(read_run(make_run()))
    plot = re.search(r"<svg[^>]*class=\"plot\".*?</svg>", html, re.DOTALL)[0]
    spans = [
        tuple(map(float, pair)) for pair in re.findall(r'class="hit" x="([\d.]+)" y="[\d.]+" width="([\d.]+)"', plot)
    ]
    for (x, width), (following, _) in itertools.pairwise(spans):
        assert x + width == pytest.approx(following, abs=0.2)
    middles = [float(x) for x in re.findall(r'class="tip"><path d="M([\d.]+)', plot)]
    for span, (before, x) in zip(spans, itertools.pairwise(middles), strict=False):
        assert sum(span) == pytest.approx((before + x) / 2, abs=0.2), "the nearer epoch counts"
    points = [(float(x), float(y)) for x, y in re.findall(r'<circle cx="([\d.]+)" cy="([\d.]+)"', plot)]
    line = next(d for d in re.findall(r'd="([^"]+)"', plot) if d.count("L") == 2 and "z" not in d)
    drawn = [(float(x), float(y)) for x, y in re.findall(r"[ML] ([\d.]+) ([\d.]+)", line)]
    for corner in drawn:
        assert min(math.dist(corner, point) for point in points) < 0.1, "the dots lie on the lines"


@pytest.mark.parametrize("place", ["class", "metric", "config", "command", "title"])
def test_names_that_look_like_markup_are_only_shown(make_run, page_of, kit, place):
    items, rows, config, command, facts = {}, list(kit.rows), dict(kit.config), None, {}
    if place == "class":
        mistakes = [kit.mistake(i, name, HOSTILE[i - 1], 1.0 + i, overlay=True) for i, name in enumerate(HOSTILE)]
        boxes = [{"box": [1, 1, 5, 5], "class": name, "found": False} for name in HOSTILE]
        found = [{"box": [1, 1, 5, 5], "class": name, "score": 0.5, "right": False} for name in HOSTILE]
        item = {
            "index": 0,
            "image": mistakes[0]["image"],
            "width": 8,
            "height": 8,
            "objects": boxes,
            "detections": found,
        }
        items = {
            "gradcam_test": kit.classified(*mistakes, method="GradCAM", layer=HOSTILE[0], target="truth"),
            "confusion_test": kit.confusion(HOSTILE, np.ones((4, 4), int).tolist()),
            "boxes_test": {
                "kind": "detected",
                "split": "test",
                "seen": 1,
                "mistakes": 1,
                "min_score": 0.4,
                "items": [item],
            },
            "samples": {
                "kind": "texts",
                "items": [{"epoch": 1, "step": 2, "loss": float("nan"), "text": "\n".join(HOSTILE)}],
            },
        }
    elif place == "metric":
        rows += [{"epoch": 2, "step": 29, name.replace(",", ""): 1.0} for name in HOSTILE]
    elif place == "config":
        config["data"] = dict.fromkeys(HOSTILE, HOSTILE[0])
    elif place == "command":
        command = ["fit", *HOSTILE]
    else:
        facts = {"title": HOSTILE[0], "recipe": HOSTILE[1], "differs": [[name, name, name] for name in HOSTILE]}
    folder = make_run(rows=rows, config=config, command=command, items=items, facts=facts)
    page = page_of(folder)
    assert not [attributes for attributes in page.all("img") if attributes.get("src") == "x"]
    if place == "class":
        for name in HOSTILE:
            assert page.text.count(name) >= 6
    else:
        assert HOSTILE[0] in page.text


def test_pictures_named_like_markup_are_only_shown(make_run, page_of):
    folder = make_run()
    (folder / "pictures").mkdir()
    for name in ("<b onclick=x>.png", "retrieval_test.png", "activations.png", "samples.png", "sample_0.png"):
        Image.new("RGB", (30, 20), "red").save(folder / "pictures" / name)
    (folder / "pictures" / "curves.png").write_bytes(b"not shown, as the page has the curves themselves")
    (folder / "pictures" / "broken.png").write_bytes(b"no picture")
    page = page_of(folder)
    assert [image["alt"] for image in page.all("img")] == [
        "Samples",
        "Activations",
        "<b onclick=x>",
        "Retrieval, test set",
    ]
    assert "Left out, as it is too large for this page: pictures/broken.png" in page.text


def test_only_images_are_taken_from_what_galleries_wrote(make_run, page_of, kit):
    for uri in (
        "https://example.com/a.png",
        "data:text/html;base64,PHA+",
        "javascript:alert(1)",
        "../../secret.png",
        7,
    ):
        item = kit.mistake(0, "cat", "dog", 1.0) | {"image": uri}
        page = page_of(make_run(f"a/{abs(hash(uri))}", items={"misclassified_test": kit.classified(item)}))
        assert page.all("img") == []


def test_mistakes_of_two_galleries_are_one_list_with_right_ones_in_contrast(make_run, page_of, kit):
    plain = kit.classified(
        kit.mistake(3, "cat", "dog", 0.5), kit.mistake(5, "dog", "cat", 2.0), kit.mistake(8, "cat", "cat", 0.1)
    )
    cams = kit.classified(
        kit.mistake(5, "dog", "cat", 2.0, overlay=True), method="GradCAM", layer="stages.1", target="truth"
    )
    page = page_of(make_run(items={"misclassified_test": plain, "gradcam_test": cams}))
    cards = [attributes for attributes in page.all("li") if "data-loss" in attributes]
    assert [card["data-index"] for card in cards] == ["5", "3", "8"], "the largest loss first, right ones last"
    assert [card["data-right"] for card in cards] == ["wrong", "wrong", "right"]
    assert len(page.all("img")) == 4
    options = [attributes["value"] for attributes in page.all("option")]
    assert set(cards[0]["data-groups"].split()) == {"0", "1"} <= set(options)
    assert "GradCAM at stages.1" in page.text


def test_parts_of_a_metric_share_a_plot_and_boxes_stand_before_curves(make_run, page_of, kit):
    part = percent_axis("Average precision of cat", "AP")._replace(part_of="acc")._asdict()
    axes = {"acc": percent_axis("Accuracy")._asdict(), **{f"ap/{name}": part for name in HOSTILE[2:]}}
    rows = [row | {f"val/ap/{name}": 0.25 for name in HOSTILE[2:]} for row in kit.rows if "val/acc" in row]
    item = {"index": 0, "image": data_uri(np.zeros((8, 8, 3))), "width": 8, "height": 8, "detections": []}
    item["name"] = "cells/7.png"
    item["objects"] = [{"box": [1, 1, 5, 5], "class": name, "found": False} for name in "ab" * 3]
    boxes = {"kind": "detected", "split": "val", "seen": 1, "mistakes": 1, "min_score": 0.4, "items": [item]}
    page = page_of(make_run(rows=rows, facts={"axes": axes}, items={"boxes_val": boxes}))
    plots = [attributes["aria-label"] for _, attributes in page.elements if attributes.get("class") == "plot"]
    assert [label.partition(",")[0] for label in plots] == ["Accuracy", "loss", "Accuracy: its parts"]
    assert page.ids.index("boxes") < page.ids.index("curves")
    assert "cells/7.png : 6 objects" in page.text
    assert page.text.count(" a a, missed") == 0, "six labels would hide the image: the key tells the classes"


def test_data_of_ones_own_are_named_and_have_no_target(make_run, page_of, kit):
    config = kit.config | {"data": {"class_path": "x.Folder", "init_args": {"folder": "my/cats", "size": 3}}}
    rows = [*kit.rows, {"epoch": 0, "step": 0, "test/acc": 0.5}]
    facts = {"title": "A net for pictures. The number is for others.", "own_data": True}
    items = {"confusion_test": kit.confusion(["cat", "dog"], [[5, 2], [3, 30]])}
    page = page_of(make_run(config=config, rows=rows, facts=facts, items=items))
    assert "A net for pictures." in page.text
    assert "The number is for others." not in page.text
    assert "Data: my/cats (classes: 2, test: 40)" in page.text
    assert "target" not in page.text.partition("Curves")[2].partition("All settings, resolved")[0]


def test_without_mistakes_the_heading_says_so(make_run, page_of, kit):
    items = kit.classified(kit.mistake(1, "cat", "cat", 0.1)) | {"mistakes": 0}
    page = page_of(make_run(items={"misclassified_test": items}))
    assert "There are no mistakes" in page.text
    assert "goes wrong" not in page.text


def test_a_run_is_named_from_here_or_from_the_root(make_run, page_of, monkeypatch, tmp_path):
    folder = make_run()
    assert f"run {folder}" in page_of(folder).text
    monkeypatch.chdir(tmp_path)
    assert "run runs/a/one/20260101-000000" in page_of(folder).text


RUNS = {
    "nothing logged": {"rows": None},
    "no validation": {"rows": [{"epoch": i, "step": i, "train/loss": 2.0 - i} for i in range(2)]},
    "one epoch": {"rows": [{"epoch": 0, "step": 3, "train/loss": 2.0, "val/loss": 1.5}]},
    "a metric of its own": {"rows": [{"epoch": i, "step": i, "sparsity": 0.1 * i} for i in range(3)]},
    "never finite": {"rows": [{"epoch": i, "step": i, "train/loss": "nan"} for i in range(3)]},
    "interrupted": {"facts": {"state": "interrupted"}},
    "no file of the recorder": {"facts": False},
    "a broken file of the recorder": {"facts": {"axes": {"acc": {"wrong": 1}}, "seconds": "x", "tflop": None}},
    "no target": {"config": {"trainer": {"max_epochs": -1}, "model": {}}},
    "no trainer": {"config": {"trainer": None, "expect": {"metric": "test/acc"}}},
}


@pytest.mark.parametrize("options", RUNS.values(), ids=RUNS)
def test_every_kind_of_run_has_a_page(make_run, page_of, options):
    page = page_of(make_run(**options))
    assert page.text.startswith("a/one")
    if options.get("rows", True) is None:
        assert "No metric was logged" in page.text
    else:
        assert "What came out" in page.text


def test_an_interrupted_run_says_so(make_run, page_of, kit):
    page = page_of(make_run(rows=kit.rows[:3], facts={"state": "interrupted"}))
    assert "interrupted, 2 of 3 epochs" in page.text


def test_the_page_stays_small_whatever_was_drawn(make_run, page_of, kit):
    noise = np.random.default_rng(0).random((250, 250, 3))
    large = data_uri(noise)
    items = [kit.mistake(i, "cat", "dog", float(i)) | {"image": large} for i in range(2 * LIMIT // len(large))]
    page = page_of(make_run(items={"misclassified_test": kit.classified(*items)}))
    shown = page.all("img")
    assert 0 < len(shown) < len(items)
    assert f"{len(items) - len(shown)} images left out" in page.text
    assert len([1 for attributes in page.all("li") if "data-loss" in attributes]) == len(items)


def test_a_file_that_no_gallery_wrote_is_one_line(make_run):
    folder = make_run(items={"x": {"kind": "classified", "items": [{"index": 0}]}})
    with pytest.raises(ValueError, match=r"items has a file that no gallery wrote \(KeyError.*expected.*remove"):
        write_report(folder)
    assert not (folder / "report.html").exists()


# The verb


def test_the_verb_takes_a_folder_a_recipe_or_the_folder_of_its_runs(make_run, monkeypatch, tmp_path, capsys):
    monkeypatch.chdir(tmp_path)
    folder = make_run("digits/small")
    for source in (str(folder), "digits/small", "runs/digits/small"):
        assert main(["report", source]) == 0
        written = capsys.readouterr().out.strip()
        assert (tmp_path / written).read_text().startswith("<!doctype html>")
    assert main(["report", "digits/small", "--out", "elsewhere/page.html"]) == 0
    assert (tmp_path / "elsewhere/page.html").is_file()


@pytest.mark.parametrize(
    ("source", "told"),
    [
        ("runs/digits/smal/x", "runs/digits/smal/x is no run: expected a folder with a config.yaml"),
        ("digits/smal", "nearest: digits/small"),
        ("mnist/vit", "mnist/vit has no run under runs/mnist/vit: expected a trained recipe; zoo fit mnist/vit"),
    ],
)
def test_what_is_no_run_is_one_line(make_run, monkeypatch, tmp_path, capsys, source, told):
    monkeypatch.chdir(tmp_path)
    make_run("digits/small")
    assert main(["report", source]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert told in line


def test_the_newest_run_counts(make_run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folder = make_run("digits/small")
    newer = shutil.copytree(folder, folder.with_name("20260102-000000"))
    (newer / "config.yaml").write_text((newer / "config.yaml").read_text())
    assert find_run("digits/small").resolve() == newer.resolve()


def test_a_page_is_made_without_lightning(make_run):
    code = (
        "import sys, zoo.command.main\n"
        f"assert zoo.command.main.main(['report', {str(make_run())!r}]) == 0\n"
        "assert not {'lightning', 'torchvision', 'torchmetrics', 'sklearn', 'wandb'} & set(sys.modules)"
    )
    environment = os.environ | {"PYTHONPATH": str(recipes.ROOT.parent)}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


# In a browser


@pytest.mark.skipif(shutil.which("chromium") is None, reason="needs chromium")
def test_the_page_works_in_a_browser(make_run, kit, tmp_path):
    items = [kit.mistake(i, "cat", "<script>" if i % 2 else "cat", float(i)) for i in range(4)]
    folder = make_run(items={"misclassified_test": kit.classified(*items)})
    path = write_report(folder)
    command = ["chromium", "--headless", "--no-sandbox", "--disable-gpu", "--enable-logging=stderr", "--dump-dom"]
    done = subprocess.run([*command, path.as_uri()], capture_output=True, text=True, timeout=120)
    assert "CONSOLE" not in done.stderr, done.stderr
    assert "4 of 4 shown" in done.stdout, "the page's own script has run"
    dom = done.stdout.partition("<main")[2]
    assert [int(n) for n in re.findall(r'data-index="(\d)"', dom)] == [3, 2, 1, 0]
    assert json.dumps(items[1]["prediction"]).strip('"') not in re.sub("&lt;", "", dom.partition("<script>")[0])
