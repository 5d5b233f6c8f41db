"""`zoo maximize` draws what units of a trained classifier answer to, and refuses what is none."""

import json

import pytest
import torch
from PIL import Image

from zoo.analysis.activation_maximization import maximize
from zoo.command.actions.maximize import draw_maximized
from zoo.command.main import main
from zoo.inference.models import load

READY = "digits/small"


@pytest.fixture(autouse=True)
def _here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def test_classes_are_maximized_as_the_function_does(tmp_path, capfd):
    assert main(["maximize", READY, "--units", "7", "3", "--steps", "20", "--json"]) == 0
    report = json.loads(capfd.readouterr().out)
    model = load(READY)
    images = model.preprocess
    found = maximize(
        model.net, None, [7, 3], images.image_shape, lambda image: images.normalize(255 * image), 20, variation=10.0
    )
    assert report["units"] == ["7", "3"]
    assert report["after"] == pytest.approx(found.after.tolist(), rel=1e-4)
    assert all(after > before for before, after in zip(report["before"], report["after"], strict=True))
    with Image.open("maximized.png") as figure:
        assert min(figure.size) > 200
    assert [path.name for path in tmp_path.rglob("*")] == ["maximized.png"]


def test_channels_of_a_layer_are_the_first_of_them(capfd):
    report = draw_maximized(READY, layer="stages.0", n=3, steps=5, out="deep/figure.png")
    assert report["units"] == ["channel 0", "channel 1", "channel 2"]
    width = load(READY).net.get_submodule("stages.0")(torch.zeros(1, *stem_shape())).size(1)
    assert len(draw_maximized(READY, layer="stages.0", n=10_000, steps=1)["units"]) == width


def stem_shape() -> tuple[int, ...]:
    model = load(READY)
    return tuple(model.net.stem(torch.zeros(1, *model.preprocess.image_shape)).shape[1:])


@pytest.mark.parametrize(
    ("words", "parts"),
    [
        (["--units", "ten"], ["units has 'ten'", "10 classes", "by name or number"]),
        (["--units", "10"], ["units has '10'"]),
        (["--layer", "stages.0", "--units", "x"], ["units has 'x'", "channel of stages.0"]),
        (["--layer", "stages.0", "--units", "9999"], ["units are [9999]", "0 to "]),
        (["--layer", "nope"], ["no layer 'nope'", "expected a name such as"]),
        (["--n", "0"], ["n is 0"]),
        (["--steps", "0"], ["steps is 0"]),
        (["--variation", "-1"], ["variation is -1"]),
    ],
)
def test_wrong_numbers_and_names(tmp_path, capfd, words, parts):
    assert main(["maximize", READY, *words]) == 2
    (line,) = [line for line in capfd.readouterr().err.splitlines() if line.startswith("zoo: ")]
    assert all(part in line for part in parts), line
    assert not list(tmp_path.rglob("*"))


def test_what_is_no_classifier_is_refused(capfd):
    assert main(["maximize", "detection/yolo-shapes"]) == 2
    assert "trains a YOLO (detection): expected the recipe of a classifier" in capfd.readouterr().err
