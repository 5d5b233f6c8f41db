"""A checkpoint file is read as it was written or refused in one line; of several the right one is taken."""

import os
import shutil
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch

from zoo.command import recipes
from zoo.command.checkpoints import (
    AtomicCheckpointIO,
    check_training,
    load_module,
    newest_checkpoint,
    newest_whole,
    recipe_of,
)
from zoo.command.main import main
from zoo.inference import ready

SAVED = AtomicCheckpointIO()
WHOLE = {
    "state_dict": {"w": torch.arange(4.0)}, "pytorch-lightning_version": "2.6.0", "global_step": 4, "loops": {},
    "optimizer_states": [{"state": {0: {"momentum": torch.ones(3)}}}], "lr_schedulers": [],
}  # fmt: skip
WEIGHTS_ONLY = {name: WHOLE[name] for name in ("state_dict", "pytorch-lightning_version", "global_step", "loops")}


def save(path: Path, content: dict[str, Any], **changes: Any) -> Path:
    SAVED.save_checkpoint(content | changes, path)
    return path


def text_of(content: Any) -> str:
    return repr(content)


@pytest.fixture
def run(tmp_path) -> Path:
    """The folder of a run without checkpoints."""
    (tmp_path / "run/checkpoints").mkdir(parents=True)
    (tmp_path / "run/config.yaml").write_text("model:\n")
    return tmp_path / "run"


# Bytes


def test_a_checkpoint_is_an_archive_that_torch_reads_too(tmp_path):
    path = save(tmp_path / "a.ckpt", WHOLE)
    assert text_of(torch.load(path, weights_only=True)) == text_of(WHOLE) == text_of(SAVED.load_checkpoint(path))
    with zipfile.ZipFile(path) as archive:
        assert archive.testzip() is None
        assert archive.comment.startswith(b"zoo sha256 ")


def test_a_flipped_bit_anywhere_is_found_or_changes_nothing(tmp_path):
    path = save(tmp_path / "a.ckpt", WHOLE)
    content, refused = path.read_bytes(), 0
    for at in range(0, len(content), 7):
        flipped = bytearray(content)
        flipped[at] ^= 1 << at % 8
        path.write_bytes(flipped)
        try:
            assert text_of(SAVED.load_checkpoint(path)) == text_of(WHOLE)
        except ValueError as error:
            assert f"{path} is damaged" in str(error)  # noqa: PT017
            refused += 1
    assert refused > 0.9 * len(content) / 7


def test_a_file_without_a_hash_is_read_and_damage_in_its_directory_told(tmp_path):
    """As those of other programs."""
    path = tmp_path / "a.ckpt"
    torch.save(WHOLE, path)
    assert text_of(SAVED.load_checkpoint(path)) == text_of(WHOLE)
    content = path.read_bytes()
    with zipfile.ZipFile(path) as archive:
        start = archive.start_dir
    for at in range(start, len(content), 2):
        flipped = bytearray(content)
        flipped[at] ^= 1 << at % 8
        path.write_bytes(flipped)
        try:
            SAVED.load_checkpoint(path)
        except ValueError as error:
            assert str(path) in str(error)  # noqa: PT017


@pytest.mark.parametrize("size", [0, 1, 100, -100])
def test_a_truncated_file_is_told(tmp_path, size):
    path = save(tmp_path / "a.ckpt", WHOLE)
    path.write_bytes(path.read_bytes()[:size])
    with pytest.raises(ValueError, match=r"a\.ckpt is damaged"):
        SAVED.load_checkpoint(path)


def test_a_file_without_any_checksums_is_refused(tmp_path):
    torch.save(WHOLE, tmp_path / "a.ckpt", _use_new_zipfile_serialization=False)
    with pytest.raises(ValueError, match=r"a\.ckpt is damaged or not a checkpoint"):
        SAVED.load_checkpoint(tmp_path / "a.ckpt")


# Content


def changed(path: Path, name: str, value: Any) -> Path:
    """A checkpoint of a trained net with one entry that is another; "a.b" is b in a."""
    content = SAVED.load_checkpoint(ready.path_of("digits/small"))
    *outer, name = name.split(".")
    (content[outer[0]] if outer else content)[name] = value
    return save(path, content)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *(("module", value) for value in ("zoo.classification.plain_conv.OldName", "zoo.nonexistent.X", "zoo.", 5)),
        ("module", "zoo.system.torch"),
        *((name, value) for name in ("hyper_parameters", "state_dict", "data") for value in (None, [1])),
        *(("data.classes", value) for value in (["a", "b"], 5)),
        *(("data.image_shape", value) for value in ("x", [1, 8])),
        ("data.mean", [1, 2, 3]),
        ("data.tokenizer", "x"),
        *(("pytorch-lightning_version", value) for value in (3, "x")),
        *((name, [3]) for name in ("callbacks", "loops", "Digits", "optimizer_states", "lr_schedulers")),
    ],
    ids=str,
)
def test_an_entry_that_is_no_such_thing_is_told(tmp_path, name, value):
    path = changed(tmp_path / "a.ckpt", name, value)
    with pytest.raises(ValueError, match=rf"^{name} in .*a\.ckpt is [^\n]*: expected [^\n]*$"):
        load_module(path)


@pytest.mark.parametrize(
    ("name", "value", "told"),
    [
        ("module", "zoo.trust.own", "names zoo.trust.own, which runs things"),
        ("module", "zoo.classification.base.Classifier", "does not fit Classifier"),
        ("data.image_shape", [3, 8, 8], "a number for each channel, of which data.image_shape has 3"),
        ("hyper_parameters._class_path", "zoo.classification.resnet.ResNet18", "does not fit ResNetMini"),
        ("hyper_parameters._instantiator", "os.system", "does not fit ResNetMini"),
        ("hyper_parameters.kernel", 5, "does not fit ResNetMini"),
    ],
)
def test_entries_that_do_not_fit_each_other_are_told(tmp_path, name, value, told):
    path = changed(tmp_path / "a.ckpt", name, value)
    with pytest.raises(ValueError, match=r"a\.ckpt") as caught:
        load_module(path)
    assert told in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_class_without_the_parser_of_its_arguments_is_told(tmp_path):
    content = SAVED.load_checkpoint(ready.path_of("digits/small"))
    del content["hyper_parameters"]["_instantiator"], content["hyper_parameters"]["_class_path"]
    content["hyper_parameters"]["norm"] = {"class_path": "torch.nn.BatchNorm2d"}
    with pytest.raises(ValueError, match=r"a\.ckpt does not fit ResNetMini"):
        load_module(save(tmp_path / "a.ckpt", content))


def test_a_card_that_names_no_class_of_today_is_told_in_one_line(tmp_path):
    card, state = ready.read(ready.path_of("digits/small"))
    path = ready.write(tmp_path / "a.safetensors", type(card)(**vars(card) | {"module": "zoo.nonexistent.X"}), state)
    with pytest.raises(ValueError, match=r"module in .*a\.safetensors is zoo\.nonexistent\.X: expected a system"):
        load_module(path)


def test_the_weights_that_a_classifier_was_started_from_are_not_fetched_again(tmp_path, monkeypatch):
    monkeypatch.setattr("zoo.classification.base.load_weights", lambda *_: pytest.fail("fetched"))
    from zoo.classification.resnet import ResNet18

    module = ResNet18(num_classes=2)
    content = {
        "state_dict": module.state_dict(), "pytorch-lightning_version": "2.6.0", "data": {"classes": ["a", "b"]},
        "hyper_parameters": dict(module.hparams) | {"weights": "DEFAULT"},
        "module": "zoo.classification.resnet.ResNet18",
    }  # fmt: skip
    assert load_module(save(tmp_path / "a.ckpt", content))[0].num_classes == 2


# Which one


def test_the_newest_checkpoint_is_the_one_trained_longest_whatever_the_times_of_files(run):
    for name, step, time in (("last", 40, 100), ("best", 30, 300), ("recent", 5, 200)):
        os.utime(save(run / f"checkpoints/{name}.ckpt", WHOLE, global_step=step), (time, time))
    assert newest_checkpoint(str(run)).name == newest_whole(run).name == "last.ckpt"
    save(run / "hpc_ckpt_1.ckpt", WHOLE, global_step=50)
    assert newest_whole(run).name == "hpc_ckpt_1.ckpt"


def test_a_checkpoint_of_weights_is_evaluated_and_not_gone_on_from(run, capfd):
    save(run / "checkpoints/weights.ckpt", WEIGHTS_ONLY, global_step=30)
    with pytest.raises(ValueError, match=r"weights\.ckpt has no optimizer_states.* train anew"):
        newest_whole(run)
    save(run / "checkpoints/last.ckpt", WHOLE, global_step=20)
    (run / "checkpoints/recent.ckpt").write_bytes(b"half")
    assert newest_whole(run).name == "last.ckpt"
    assert newest_checkpoint(str(run)).name == "weights.ckpt"
    assert "recent.ckpt is damaged" in capfd.readouterr().err


@pytest.mark.parametrize("missing", ["loops", "optimizer_states", "lr_schedulers"])
def test_what_a_training_needs_to_go_on_is_named(tmp_path, missing):
    path = save(tmp_path / "a.ckpt", {name: value for name, value in WHOLE.items() if name != missing})
    with pytest.raises(ValueError, match=f"has no {missing}, without which"):
        check_training(path)
    check_training(save(path, WHOLE))


def test_a_training_does_not_go_on_from_weights_only(tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    path = ready.path_of("digits/small")
    quiet = ["--trainer.callbacks=null", "--trainer.accelerator=cpu"]
    assert main(["fit", "digits/small", *quiet, "--ckpt_path", str(path)]) == 2
    assert f"{path} has no loops, without which a training cannot go on" in capfd.readouterr().err.splitlines()[-1]


def test_the_recipe_is_what_the_run_says_and_otherwise_what_its_folder_does(tmp_path):
    inside = tmp_path / "runs/digits/small/20260101-000000/checkpoints/last.ckpt"
    inside.parent.mkdir(parents=True)
    assert recipe_of(inside) == "digits/small"
    (inside.parents[1] / "run.json").write_text('{"recipe": "own/pictures"}')
    assert recipe_of(inside) == "own/pictures"
    shutil.copytree(inside.parents[1], tmp_path / "mine")
    assert recipe_of(tmp_path / "mine/checkpoints/last.ckpt") == "own/pictures"
    assert recipes.recipe_of(tmp_path / "mine") == ""
