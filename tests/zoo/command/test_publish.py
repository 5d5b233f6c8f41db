"""A run becomes one small file, by which everything that takes a run works; of two models it is said which is taken."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

import zoo
from datamodules.images.digits import Digits
from helpers import draw_picture
from zoo.classification.resnet_mini import ResNetMini
from zoo.command.actions import publish as verb
from zoo.command.actions.export import export
from zoo.command.actions.publish import publish
from zoo.command.checkpoints import config_of, newest_checkpoint
from zoo.command.main import main
from zoo.command.recipes import find, recipe_of
from zoo.inference import ready

TINY = ["--trainer.max_epochs=1", "--trainer.limit_train_batches=3", "--trainer.limit_val_batches=1"]
QUIET = ["--trainer.callbacks=null", "--trainer.enable_model_summary=false", "--trainer.enable_progress_bar=false"]
LICENSE = ["--license", "free"]


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Path:
    """A folder with `runs`, in it a short training of digits/small."""
    folder = tmp_path_factory.mktemp("trained")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        assert main(["fit", "digits/small", *TINY, *QUIET, "--seed_everything=7"]) == 0
    return folder


@pytest.fixture
def run(trained, tmp_path, monkeypatch) -> Path:
    """The folder of that run, in a working directory and with a package's folder of weights of their own.

    The data say nothing about their license, as those of users do.
    """
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(Digits, "license", "", raising=False)
    monkeypatch.setattr(ready, "WEIGHTS", tmp_path / "weights")
    shutil.copytree(trained / "runs", "runs")
    (folder,) = Path("runs/digits/small").iterdir()
    return folder


def test_a_published_model_is_the_one_of_the_run(run, capfd):
    assert main(["publish", str(run), "--out", "mine.safetensors", "--description", "a trial"]) == 0
    assert capfd.readouterr().out.startswith("mine.safetensors  ")
    model, original = zoo.load("mine.safetensors"), zoo.load(run)
    images = [draw_picture(i) for i in range(5)]
    with torch.inference_mode():
        assert torch.equal(model(model.preprocess(images)), original(original.preprocess(images)))
    assert not model.training
    assert model.classes == original.classes == [*"0123456789"]
    card = model.card
    assert (card.recipe, card.seed, card.metric, card.license) == ("digits/small", 7, "test/acc", "not stated")
    assert card.dataset == "datamodules.images.digits.Digits"
    assert card.description == "a trial"
    assert original.card is None
    assert not list(Path().rglob("config.yaml.*"))
    assert sorted(path.name for path in Path().iterdir()) == ["mine.safetensors", "runs"]
    capfd.readouterr()
    assert main(["test", "digits/small", *QUIET, "--trainer.logger=false"]) == 0  # of the run
    assert f"test/acc {100 * card.result['test/acc']:.2f} %" in capfd.readouterr().out


def test_a_ready_model_is_found_by_name_and_the_newest_run_goes_before_it(run, capfd):
    assert main(["publish", "digits/small"]) == 2
    assert "license of datamodules.images.digits.Digits is not known" in capfd.readouterr().err
    assert main(["publish", "digits/small", *LICENSE, "--half"]) == 0
    assert ready.names() == ["digits/small"]
    path = ready.path_of("digits/small")
    assert path.stat().st_size < 0.6 * 4 * 77754
    draw_picture(1).save("a.png")
    capfd.readouterr()
    assert newest_checkpoint("digits/small") == run / "checkpoints" / "last.ckpt"
    assert "digits/small@ready" in capfd.readouterr().err
    assert newest_checkpoint("digits/small@ready") == path
    assert newest_checkpoint(str(run)) == run / "checkpoints" / "last.ckpt"
    assert not capfd.readouterr().err
    results = {}
    for source in ("digits/small", "digits/small@ready"):
        assert main(["predict", source, "a.png"]) == 0
        results[source] = json.loads(capfd.readouterr().out)
    assert results["digits/small"]["class"] == results["digits/small@ready"]["class"]
    shutil.rmtree("runs")
    assert newest_checkpoint("digits/small") == path
    assert "comes with the package (test/acc" in capfd.readouterr().err
    assert main(["predict", "digits/small", "a.png"]) == 0
    assert json.loads(capfd.readouterr().out) == results["digits/small@ready"]
    assert main(["test", "digits/small", *QUIET, "--trainer.logger=false"]) == 0
    assert f"test/acc {100 * ready.read_card(path).result['test/acc']:.2f} %" in capfd.readouterr().out
    assert config_of(path) == find("digits/small@ready") == find("digits/small")
    assert main(["publish", "digits/small@ready"]) == 2
    assert "is a ready model already" in capfd.readouterr().err
    assert main(["test", "digits/smal@ready"]) == 2


def test_the_license_is_that_of_the_data_unless_another_is_given(run, monkeypatch):
    monkeypatch.setattr(Digits, "license", "CC0", raising=False)
    assert publish(str(run))[1].license == "CC0"
    assert publish(str(run), license="MIT")[1].license == "MIT"


def test_half_precision_that_changes_the_result_is_refused(run, monkeypatch, capfd):
    monkeypatch.setattr(verb, "TOLERANCE", -1.0)
    assert main(["publish", str(run), "--half", "--out", "a.safetensors"]) == 2
    assert "half precision changes test/acc from" in capfd.readouterr().err
    assert sorted(path.name for path in Path().iterdir()) == ["runs"]


def test_what_only_training_needs_is_left_out(run, monkeypatch):
    name = next(key for key in zoo.load(run).state_dict() if key.endswith(".bias"))
    monkeypatch.setattr(ResNetMini, "training_state", (name,), raising=False)
    path, card = publish(str(run), out=Path("a.safetensors"))
    assert name not in load_file(path)
    assert card.left_out == {name: list(zoo.load(run).state_dict()[name].shape)}
    assert not zoo.load(path).state_dict()[name].any()


def test_the_commit_of_a_training_that_kept_it_goes_before_that_of_the_checkout(run):
    checkpoint = run / "checkpoints" / "last.ckpt"
    content = torch.load(checkpoint, weights_only=True)
    content["callbacks"] = {"Watch": {"commit": "0123456789"}, "Other": [1]}
    torch.save(content, checkpoint)
    assert publish(str(run), out=Path("a.safetensors"))[1].commit == "0123456789"


def test_a_run_that_does_not_say_its_recipe_is_told_by_an_option(run, capfd):
    assert recipe_of(run) == "digits/small"
    assert recipe_of(Path("/home/runs/elsewhere/runs/mine/20260101-000000")) == "mine"
    shutil.copytree(run, "elsewhere")
    assert publish("elsewhere", out=Path("a.safetensors"))[1].recipe == "digits/small"  # its run.json says it
    assert export("elsewhere", "torch").path == Path("small.pt2")
    Path("elsewhere/run.json").unlink()
    assert main(["publish", "elsewhere", "--out", "a.safetensors"]) == 2
    assert "give --recipe" in capfd.readouterr().err
    assert export("elsewhere", "torch").path == Path("elsewhere.pt2")
    assert main(["publish", "elsewhere", "--out", "a.safetensors", "--recipe", "digits/small"]) == 0
    assert ready.read_card(Path("a.safetensors")).recipe == "digits/small"


@pytest.mark.parametrize(
    ("words", "part"),
    [
        (["--name", "small"], "expected FOLDER/NAME"),
        (["--name", "../small"], "expected FOLDER/NAME"),
        (["--out", "small.pt"], "ends in .safetensors"),
    ],
)
def test_a_wrong_name_is_refused_before_any_work(run, capfd, words, part):
    assert main(["publish", str(run), *LICENSE, *words]) == 2
    assert part in capfd.readouterr().err.splitlines()[-1]
    assert not Path("weights").exists()


def test_an_image_that_was_optimized_is_not_a_model(tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    Image.new("RGB", (20, 20), "red").save("red.png")
    options = ["--data.content=red.png", "--data.size=16", "--data.length=2", "--trainer.max_epochs=1", *QUIET]
    assert main(["fit", "generation/image-optimization", *options]) == 0
    assert main(["publish", "generation/image-optimization", "--out", "a.safetensors"]) == 2
    assert "ImageOptimization, whose image is all that it learned" in capfd.readouterr().err
    assert main(["export", "generation/image-optimization"]) == 2
    assert "is not a program of its own" in capfd.readouterr().err
