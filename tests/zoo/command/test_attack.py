"""`zoo attack` reports and draws what adversarial images do to a trained classifier, and refuses what is none."""

import json
from pathlib import Path

import lightning
import numpy as np
import pytest
import torch
from PIL import Image

from callbacks.figures.adversarial import Attacked, attack_figure
from datamodules.images.digits import Digits
from zoo.analysis.adversarial import fgsm, logits_of, targeted
from zoo.command.actions.attack import Tally, attack, find_run, parse_epsilon
from zoo.command.checkpoints import load_module
from zoo.command.main import main
from zoo.detection.yolo import YOLO

FIT = ["fit", "digits/small", "--trainer.max_epochs", "2", "--trainer.callbacks", "null", "--trainer.logger", "false"]


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("run")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        assert main([*FIT, "--trainer.enable_progress_bar", "false"]) == 0
    (found,) = (folder / "runs/digits/small").iterdir()
    return found


@pytest.fixture
def here(tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def message_of(capfd, *words: object) -> str:
    """The one line that the command ends with, whose exit status must be 2."""
    capfd.readouterr()
    assert main([str(word) for word in words]) == 2
    (line,) = [line for line in capfd.readouterr().err.splitlines() if line.startswith("zoo: ")]
    return line


def test_the_report_is_what_the_functions_give(run_folder, here, capfd):
    words = ["--epsilon", "51/255", "--limit", "150", "--n", "3", "--out", "new/figure.png"]
    capfd.readouterr()
    assert main(["attack", str(run_folder), *words, "--json"]) == 0
    report = json.loads(capfd.readouterr().out)
    model, _ = load_module(run_folder / "checkpoints" / "last.ckpt")
    data = Digits()
    data.setup("test")
    images, labels = data.normalize(data.datasets["test"].images[:150] / 255), data.datasets["test"].labels[:150]
    targets = logits_of(model, images).argmin(1)
    found = targeted(model, images, targets, data.mean, data.std, 0.2, steps=6)
    fast = fgsm(model, images, labels, data.mean, data.std, 0.2)

    def share(batch, wanted):
        return pytest.approx((logits_of(model, batch).argmax(1) == wanted).float().mean().item(), abs=1e-6)

    assert report["images"] == report["attacked"] == 150
    assert report["accuracy"] == share(images, labels)
    assert report["fgsm_accuracy"] == share(fast, labels)
    assert report["targeted_success"] == share(found, targets)
    assert report["epsilon"] == 0.2
    assert report["fgsm_accuracy"] < report["accuracy"]
    with Image.open("new/figure.png") as figure:
        assert min(figure.size) > 500
    assert [path.name for path in here.rglob("*") if path.is_file()] == ["figure.png"]


def test_targets_are_one_class_or_random_and_runs_are_found(run_folder, here, capfd):
    checkpoint = run_folder / "checkpoints" / "last.ckpt"
    assert find_run(str(run_folder)) == find_run(str(checkpoint)) == (checkpoint, run_folder / "config.yaml")
    options = {"epsilon": "0.3", "limit": 60, "n": 1}
    threes = attack(str(checkpoint), targets="3", **options)
    model, _ = load_module(checkpoint)
    data = Digits()
    data.setup("test")
    logits = logits_of(model, data.normalize(data.datasets["test"].images[:60] / 255))
    assert threes["attacked"] == int((logits.argmax(1) != 3).sum()) < 60
    drawn = [attack(str(checkpoint), targets="random", seed=seed, **options)["targeted_success"] for seed in (0, 0, 1)]
    assert drawn[0] == drawn[1] != drawn[2]
    capfd.readouterr()
    assert main(["attack", str(checkpoint), "--limit", "20", "--epsilon", "0"]) == 0
    lines = capfd.readouterr().out.splitlines()
    assert "targeted success  0.00 % of 20 images" in lines[3]
    assert lines[1].split()[1] == lines[2].split()[2], "an attack of length 0 changes nothing"


def test_a_recipe_means_its_newest_run_and_takes_options(run_folder, monkeypatch):
    monkeypatch.chdir(run_folder.parents[3])
    report = attack("digits/small", limit=5, options=["--data.eval_batch_size", "2"])
    assert (report["images"], report["checkpoint"]) == (
        5,
        "runs/digits/small/" + run_folder.name + "/checkpoints/last.ckpt",
    )
    assert report["figure"] == f"runs/digits/small/{run_folder.name}/pictures/attack.png"
    assert Path(report["figure"]).is_file()
    assert not Path("attack.png").exists()


def test_counts():
    tally = Tally()
    before, aims, labels = (torch.tensor(values) for values in ([0, 1, 2, 3], [1, 1, 0, 2], [0, 1, 2, 0]))
    tally.add(before, torch.tensor([1, 1, 2, 2]), torch.tensor([0, 2, 2, 3]), labels, aims)
    assert tally == Tally(images=4, right=3, fgsm_right=2, attacked=3, reached=2)


def test_the_figure_shows_the_change_magnified():
    image, result = np.full((4, 4, 3), 0.5), np.full((4, 4, 3), 0.52)
    item = Attacked(image, result, "cat", ("cat", 0.9), ("dog", 0.6), "dog")
    figure = attack_figure([item] * 6, 10, "title", "subtitle", about="runs/a/b")
    panels = [axes.images[0].get_array() for axes in figure.axes]
    assert len(panels) == 18
    np.testing.assert_allclose(panels[1], 0.7)
    texts = [text.get_text() for text in figure.texts]
    assert texts.count("change,\n10 times") == 2, "once a row of images"
    assert texts[-1].endswith("\nruns/a/b")


@pytest.mark.parametrize(
    ("words", "parts"),
    [
        (["--epsilon", "8"], ["epsilon is 8", "0..1", "8/255"]),
        (["--epsilon", "1/0"], ["epsilon is 1/0"]),
        (["--epsilon", "few"], ["epsilon is few"]),
        (["--targets", "10"], ["'10'", "least-likely", "10 classes"]),
        (["--targets", "leastlikely"], ["'leastlikely'", "nearest: least-likely"]),
        (["--steps", "0"], ["steps is 0"]),
        (["--limit", "-1"], ["limit is -1"]),
        (["--n", "0"], ["n is 0"]),
        (["--data.batchsize", "3"], ["batchsize", "nearest: batch_size"]),
    ],
)
def test_wrong_numbers_and_names(run_folder, here, capfd, words, parts):
    line = message_of(capfd, "attack", run_folder, *words)
    assert all(part in line for part in parts), line
    assert not list(here.iterdir())


@pytest.mark.parametrize(
    ("source", "parts"),
    [
        ("detection/yolo-bccd", ["YOLO", "detection", "classifier"]),
        ("language/gpt-char-cpu", ["GPT", "language", "classifier"]),
        ("mnist/vit", ["no checkpoint", "zoo fit mnist/vit"]),
        ("digits/smal", ["nearest: digits/small"]),
        ("absent.ckpt", ["absent.ckpt", "does not exist"]),
        (".", ["'.'"]),
    ],
)
def test_what_is_no_trained_classifier(here, capfd, source, parts):
    line = message_of(capfd, "attack", source)
    assert all(part in line for part in parts), line


def test_the_checkpoint_of_a_detector_and_one_without_its_run(here, capfd):
    model = YOLO(num_classes=2, in_channels=1)
    (here / "run" / "checkpoints").mkdir(parents=True)
    content = {"module": "zoo.detection.yolo.YOLO", "data": {"classes": ["a", "b"]}, "state_dict": model.state_dict()}
    content |= {"hyper_parameters": dict(model.hparams), "pytorch-lightning_version": lightning.__version__}
    torch.save(content, here / "run" / "checkpoints" / "last.ckpt")
    assert "config.yaml does not exist" in message_of(capfd, "attack", "run/checkpoints/last.ckpt")
    (here / "run" / "config.yaml").write_text("")
    assert "holds a YOLO: expected a classifier" in message_of(capfd, "attack", "run")


def test_epsilon_is_a_number_or_a_fraction():
    assert [parse_epsilon(text) for text in ("0", "0.5", "51/255", "1", "1e-2")] == [0, 0.5, 0.2, 1, 0.01]
