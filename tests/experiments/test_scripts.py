"""The scripts run as they are, with small numbers as options."""

import runpy
import sys
from pathlib import Path

import pytest
import torch
from PIL import Image

from zoo.command import recipes
from zoo.command.actions.grow import load_automaton
from zoo.command.main import main

SCRIPTS = recipes.ROOT / "scripts"


@pytest.fixture
def run_script(tmp_path, monkeypatch, fake_data):
    """Runs a script in an empty folder, on small data."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ZOO_DATA", str(fake_data))

    def run(name: str, *arguments: object) -> None:
        script = str(SCRIPTS / f"{name}.py")
        monkeypatch.setattr(sys, "argv", [script, *map(str, arguments)])
        runpy.run_path(script, run_name="__main__")

    return run


def test_a_baseline_is_trained_on_own_images(run_script, pictures, tmp_path, capfd):
    run_script("own_images", pictures, "--epochs", 1, "--image_size", 32)
    drawn = {path.stem for path in tmp_path.glob("lightning_logs/**/pictures/*.png")}
    assert drawn >= {"curves", "misclassified_test", "gradcam_test"}


def test_resnet18_is_trained_on_cifar10(run_script, tmp_path, capfd):
    run_script("resnet18_cifar10", "--epochs", 1, "--batches", 1, "--batch_size", 8, "--val_size", 20)
    drawn = {path.stem for path in tmp_path.glob("lightning_logs/**/pictures/*.png")}
    assert drawn >= {"curves", "misclassified_test", "gradcam_test"}


def test_a_trained_automaton_is_exported(run_script, tmp_path, capfd):
    name = "generation/texture-nca-168"
    small = ["--model.grid", "16", "--model.pool_size", "8", "--model.eval_steps", "[4, 8]", "--data.size", "64"]
    assert main(["fit", name, "--config", str(recipes.ROOT / "_smoke.yaml"), *small]) == 0, capfd.readouterr().err
    (checkpoint,) = Path("runs").rglob("last.ckpt")
    run_script("export_automaton", checkpoint, "mine", "a texture", "--folder", tmp_path / "automata")
    net, metadata = load_automaton(tmp_path / "automata" / "mine.safetensors")
    saved = torch.load(checkpoint, weights_only=True)
    assert all(torch.equal(value, saved["state_dict"][f"net.{key}"]) for key, value in net.state_dict().items())
    assert (metadata["texture"], metadata["recipe"]) == ("a texture", name)
    assert metadata["steps"] == str(saved["global_step"])
    assert all(float(metadata[key]) > 0 for key in ("style_loss", "style_drop", "stability"))


def test_relevance_maps_of_several_nets_are_drawn_for_the_same_images(run_script, tmp_path, capfd):
    run_script("gradcam_of_nets", "digits/small", "digits/small@ready", "--n", 3)
    with Image.open(tmp_path / "gradcam.png") as figure:
        assert min(figure.size) > 400
    with pytest.raises(SystemExit, match="fashion_mnist/flagship is trained on other data than digits/small"):
        run_script("gradcam_of_nets", "digits/small", "fashion_mnist/flagship")


def test_the_variation_of_pooled_averages_is_measured(run_script, capfd):
    run_script("pooled_averages", "mnist/under-8k", "mnist/under-8k@ready", "--n", 10)
    first, second = capfd.readouterr().out.splitlines()
    share, text = first.split(maxsplit=1)
    assert 0 < int(share.removesuffix("%")) < 300
    assert text == "mnist/under-8k, 16 averages of 10 images"
    assert second.split()[0] == share  # the same model
    with pytest.raises(SystemExit, match="ResNetMiniNet has no nn"):
        run_script("pooled_averages", "digits/small")


def test_variation_is_the_spread_as_a_share_of_the_mean():
    variation = runpy.run_path(str(SCRIPTS / "pooled_averages.py"))["variation"]
    averages = torch.tensor([[1.0, 10.0, 0.0], [3.0, 10.0, 0.0]])
    assert variation(averages) == pytest.approx(2**0.5 / 2 / 2)


@pytest.mark.parametrize("path", sorted(SCRIPTS.glob("[!_]*.py")), ids=lambda path: path.stem)
def test_a_script_has_help_with_an_example(path, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", [str(path), "--help"])
    with pytest.raises(SystemExit) as stop:
        runpy.run_path(str(path), run_name="__main__")
    assert stop.value.code == 0
    assert f"python experiments/scripts/{path.name} " in capsys.readouterr().out
