"""One's own callbacks, checkpoints and terminals work with the command, or are refused in one line."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml

from processes import run
from zoo.command import recipes
from zoo.command.main import main

QUICK = ["--trainer.max_epochs", "1", "--trainer.limit_train_batches", "2", "--trainer.accelerator", "cpu"]
CALLBACKS = "lightning.pytorch.callbacks"


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def fit(*callbacks: dict) -> int:
    return main(["fit", "digits/small", *QUICK, "--trainer.callbacks", json.dumps(callbacks)])


@pytest.mark.parametrize("name", ["ModelCheckpoint", "TQDMProgressBar"])
def test_a_callback_of_a_kind_that_the_command_adds_too(name):
    assert fit({"class_path": f"{CALLBACKS}.{name}"}) == 0
    (folder,) = Path("runs/digits/small").iterdir()
    assert (folder / "checkpoints/last.ckpt").is_file()
    assert len(list(folder.rglob("*.ckpt"))) == (2 if name == "ModelCheckpoint" else 1)


@pytest.mark.parametrize("kind", ["EarlyStopping", "ModelCheckpoint"])
def test_a_metric_that_is_spelled_otherwise_is_told_before_the_training(kind, capfd):
    assert fit({"class_path": f"{CALLBACKS}.{kind}", "init_args": {"monitor": "val_loss"}}) == 2
    err = capfd.readouterr().err
    assert "'val_loss'" in err.splitlines()[-1]
    assert "nearest: val/loss" in err.splitlines()[-1]
    assert "epoch 1" not in err


def test_a_metric_that_does_not_exist_is_one_line(capfd):
    assert fit({"class_path": f"{CALLBACKS}.EarlyStopping", "init_args": {"monitor": "beauty"}}) == 2
    assert "val/loss" in capfd.readouterr().err.splitlines()[-1]


CONTENTS = {
    "list": [1, 2],
    "keys": {"a": 1},
    "part": {"state_dict": {}, "module": "zoo.classification.resnet_mini.ResNetMini", "data": {"classes": []}},
}


@pytest.mark.parametrize("words", [["predict"], ["fit", "digits/small", *QUICK], ["test", "digits/small"]])
@pytest.mark.parametrize("content", CONTENTS.values(), ids=CONTENTS)
def test_a_file_that_is_no_checkpoint_is_refused_in_one_line(words, content, capfd):
    torch.save(content, "a.ckpt")
    assert main([*words, "a.ckpt", "x.png"] if words == ["predict"] else [*words, "--ckpt_path", "a.ckpt"]) == 2
    assert "a.ckpt" in capfd.readouterr().err.splitlines()[-1]


def test_words_that_yaml_reads_as_booleans_are_told_to_be_quoted(capfd):
    assert main(["fit", "detection/yolo-bccd", "--data.classes", "[yes, no]"]) == 2
    assert "quotes" in capfd.readouterr().err.splitlines()[-1]


def test_a_try_that_fails_leaves_no_folder():
    assert main(["fit", "digits/small", "--model.widths", "many"]) == 2
    assert main(["fit", "digits/small", "--data.batch_size", "0"]) == 2
    assert not list(Path().iterdir())


def test_a_terminal_without_utf_8_gets_other_characters():
    """The name of the recipe is repeated in the error."""
    recipe = recipes.read(recipes.find("digits/small"))
    Path("größe.yaml").write_text(yaml.safe_dump(recipe))
    done = subprocess.run(
        [sys.executable, "-m", "zoo", "fit", "größe", "--trainer.max_epochs", "1"],
        env=os.environ | {"PYTHONIOENCODING": "ascii", "PYTHONPATH": str(recipes.ROOT.parent)},
        capture_output=True, check=False,
    )  # fmt: skip
    assert done.returncode == 2
    assert b"Traceback" not in done.stderr
    assert b"gr" in done.stderr


def test_many_large_photographs_are_classified_in_little_memory_one_line_at_a_time():
    """Files that together would need far more memory decoded than the process may take."""
    from PIL import Image

    Image.effect_noise((4000, 3000), 50).convert("RGB").save("0.jpg", quality=40)
    for i in range(1, 60):
        Path(f"{i}.jpg").hardlink_to("0.jpg")
    assert main(["fit", "digits/small", *QUICK]) == 0
    Path("measure.py").write_text(
        "import resource, sys, zoo.command.actions.predict as p\n"
        "lines = p.predict('digits/small', [f'{i}.jpg' for i in range(60)])\n"
        "next(lines)\n"
        "first = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "assert len(list(lines)) == 59\n"
        "print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - first) // 1024)\n"
    )
    assert int(run("measure.py").splitlines()[-1]) < 200  # MiB; decoded, the files are 2160


def test_folders_of_the_same_names_in_the_working_folder_hide_nothing(here):
    for name in ("callbacks", "datamodules", "experiments"):
        (here / name / "own").mkdir(parents=True)
    command = [Path(sys.executable).with_name("zoo"), "report", "absent"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 2, done.stderr
    assert "absent is no run" in done.stderr
