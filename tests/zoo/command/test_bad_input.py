"""Bad input ends with exit status 2 and one line that names value, expectation and remedy; no partial file is left."""

import errno
from pathlib import Path

import pytest
import torch
import yaml

from datamodules import files, io
from datamodules.images.fashion_mnist import FashionMNIST
from helpers import draw_picture
from zoo.command import checkpoints, recipes
from zoo.command.main import main

TINY = ["--trainer.max_epochs", "1", "--trainer.limit_train_batches", "2", "--trainer.limit_val_batches", "2"]
FASHION = "fashion_mnist/towards-90"
SCHEDULES = "zoo.parts.optim.schedules"


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def message_of(capfd, *words: str) -> str:
    """Runs the command, which must end with exit status 2; returns the one line that it prints."""
    capfd.readouterr()
    assert main([str(word) for word in words]) == 2
    captured = capfd.readouterr()
    assert "Traceback" not in captured.err
    (line,) = [line for line in captured.err.splitlines() if line.startswith("zoo: ")]
    assert captured.err.rstrip().endswith(line)
    return line


@pytest.mark.parametrize(
    ("words", "parts"),
    [
        (["fit", "fashion_mnist/flagshp"], ["'fashion_mnist/flagshp'", "fashion_mnist/flagship"]),
        (["fit", "under-8k"], ["nearest: mnist/under-8k"]),
        (["reproduce", "mnist/under_8k"], ["nearest: mnist/under-8k"]),
        (["fit", "absent.yaml"], ["absent.yaml", "does not exist"]),
        (["fitt", "digits/small"], ["fitt", "fit"]),
        (["list", "--jsn"], ["--jsn", "zoo list --help"]),
        (["reproduce", "digits/small", "--seeds", "one"], ["one", "--seeds"]),
        (["fit", "digits/small", "--trainer.max_epoch", "1"], ["trainer.max_epoch", "nearest: trainer.max_epochs"]),
        (["fit", "digits/small", "--model.label_smothing", "1"], ["label_smothing", "nearest: label_smoothing"]),
        (["fit", "digits/small", "--data.batchsize", "1"], ["Digits", "batchsize", "nearest: batch_size"]),
        (["fit", "digits/small", "--model.optimizer.lrr", "1"], ["Muon", "lrr", "nearest: lr"]),
        (["fit", "digits/small", "--data.batch_size", "many"], ["--data.batch_size is many: expected int;"]),
        (["fit", "digits/small", "--trainer.max_epochs", "few"], ["--trainer.max_epochs is few: expected int;"]),
        (
            ["fit", "digits/small", "--trainer.precision", "8"],
            ["--trainer.precision is 8: expected 64 or", "'bf16-mixed'"],
        ),
        (["fit", "digits/small", "--model.optimizer.lr", "x"], ["--model.optimizer.lr is x: expected float;"]),
        (["fit", "digits/small", "--model.optimizer", "Foo"], ["--model.optimizer is Foo: expected the dotted path"]),
        (
            ["fit", "digits/small", "--model.schedule", f"{SCHEDULES}.Ab"],
            [f"--model.schedule is {SCHEDULES}.Ab: module '{SCHEDULES}' has no attribute 'Ab'"],
        ),
        (
            ["fit", "digits/small", "--trainer.logger", "TensorBoardLogger"],
            ["TensorBoardLogger: ", "required: save_dir"],
        ),
        (
            [
                "fit",
                "digits/small",
                "--data.augment",
                "[{class_path: datamodules.augment.images.Flip, init_args: {p: x}}]",
            ],
            ["--data.augment.p is x: expected float;"],
        ),
        (["fit", "digits/small", "--model.widths", "[8,wide]"], ["--model.widths is [8,wide]: expected int;"]),
        (["fit", "digits/small", "--model.schedule.peek", "1"], ["OneCycle", "peek", "nearest: peak"]),
        (
            ["fit", "digits/small", "--trainer.callbacks+=callbacks.monitors.curves.Curve"],
            ["--trainer.callbacks is callbacks.monitors.curves.Curve: ", "has no attribute 'Curve'"],
        ),
        (["fit", "digits/small", "--config", "absent.yaml"], ["--config is absent.yaml: File does not exist"]),
        (["fit", "digits/small", "--data.batch_size", "0"], ["batch_size is 0", "1 or more"]),
        (["fit", "digits/small", "--data.val_size", "9999"], ["val_size is 9999", "1436"]),
        (["fit", "digits/small", "--model.num_classes", "7"], ["num_classes is 7", "10 classes", "leave it out"]),
        (["fit", "digits/small", "--model", "zoo.absent.Net"], ["zoo.absent"]),
        (["fit", "digits/small", "--trainer.accelerator", "abacus"], ["abacus"]),
        (["fit", "digits/small", "--ckpt_path", "absent.ckpt"], ["absent.ckpt", "does not exist"]),
        (["test", "mnist/vit"], ["no checkpoint", "zoo fit mnist/vit"]),
        (["predict", "mnist/vit", "a.png"], ["no checkpoint", "zoo fit mnist/vit"]),
        (["predict", "absent.ckpt", "a.png"], ["absent.ckpt", "does not exist"]),
    ],
    ids=lambda value: "-".join(value[:3]).replace("/", "_") if isinstance(value, list) else None,
)
def test_wrong_names_options_and_values(capfd, words, parts):
    line = message_of(capfd, *words)
    assert all(part in line for part in parts), line
    assert len(line) < 700
    assert not [path for path in Path().rglob("*") if path.is_file()], "no file is written"


@pytest.mark.parametrize(
    ("text", "part"), [("model: [", "is not valid YAML"), ("- 1", "is not a YAML mapping"), ("x: 1", "--x")]
)
def test_wrong_recipe_file(capfd, text, part):
    Path("r.yaml").write_text(text + "\nmodel: {class_path: zoo.classification.resnet.ResNet18}\n" * (text[0] == "x"))
    assert part in message_of(capfd, "fit", "r.yaml")


@pytest.mark.parametrize(
    ("part", "key", "value", "message"),
    [
        ("trainer", "max_epochs", "few", "--trainer.max_epochs is few: expected int;"),
        ("trainer", "max_epoch", 1, "there is no option --trainer.max_epoch; nearest: trainer.max_epochs"),
        ("model", "label_smoothing", "none", "--model.label_smoothing is none: expected float;"),
        ("model", "label_smothing", 0.1, "ResNetMini takes no 'label_smothing'; nearest: label_smoothing"),
        ("data", "batch_size", 0, "batch_size is 0: expected 1 or more;"),
    ],
)
def test_wrong_values_in_a_recipe_file(capfd, part, key, value, message):
    recipe = recipes.read(recipes.find("digits/small"))
    recipe[part].get("init_args", recipe[part])[key] = value
    Path("r.yaml").write_text(yaml.safe_dump(recipe))
    line = message_of(capfd, "fit", "r.yaml")
    assert message in line
    assert len(line) < 700


def test_recipe_that_expects_nothing_cannot_be_reproduced(capfd):
    Path("r.yaml").write_text("model: {class_path: zoo.classification.resnet.ResNet18}\n")
    assert "no `expect`" in message_of(capfd, "reproduce", "r.yaml")


def test_recipe_with_a_wrong_expectation_cannot_be_reproduced(capfd):
    recipe = recipes.read(recipes.find("digits/small"))
    recipe["expect"]["at_lest"] = 0.9
    Path("r.yaml").write_text(yaml.safe_dump(recipe))
    line = message_of(capfd, "reproduce", "r.yaml")
    assert "'at_lest'" in line
    assert "at_least" in line


def test_missing_data_names_the_remedies(capfd, monkeypatch):
    def unreachable(folder):
        raise OSError("no route to host")

    monkeypatch.setattr(FashionMNIST, "sources", lambda self: {"torchvision's download": unreachable})
    line = message_of(capfd, "fit", FASHION, "--data.data_dir", "nowhere")
    assert all(part in line for part in ("train-images-idx3-ubyte", "nowhere", "no route to host", "ZOO_DATA")), line


def test_a_truncated_data_file_is_named_and_left_as_it_is(capfd, fake_data):
    file = fake_data / "FashionMNIST/raw/train-images-idx3-ubyte"
    file.write_bytes(file.read_bytes()[:1000])
    line = message_of(capfd, "fit", FASHION, "--data.data_dir", fake_data)
    assert all(part in line for part in (str(file), "damaged", "1000 bytes", "delete")), line
    assert len(file.read_bytes()) == 1000


def test_checkpoint_of_another_model(capfd, fake_data):
    assert main(["fit", "digits/small", *TINY]) == 0
    (checkpoint,) = Path("runs/digits/small").glob("*/checkpoints/last.ckpt")
    data = ["--data.data_dir", fake_data, "--data.val_size", "20"]
    line = message_of(capfd, "fit", FASHION, *data, "--ckpt_path", checkpoint)
    assert all(part in line for part in ("ResNetMini", "PlainConv", "recipe")), line
    line = message_of(capfd, "test", "digits/small", "--ckpt_path", checkpoint, "--model.widths", "[8,16,32]")
    assert all(part in line for part in ("net.", "(16, 1, 3, 3)", "(8, 1, 3, 3)")), line


def test_broken_checkpoint(capfd):
    assert main(["fit", "digits/small", *TINY]) == 0
    (checkpoint,) = Path("runs/digits/small").glob("*/checkpoints/last.ckpt")
    draw_picture(0).save("a.png")
    for size in (0, 100, checkpoint.stat().st_size // 2):
        Path("half.ckpt").write_bytes(checkpoint.read_bytes()[:size])
        assert "half.ckpt" in message_of(capfd, "predict", "half.ckpt", "a.png")
        assert "half.ckpt" in message_of(capfd, "fit", "digits/small", "--ckpt_path", "half.ckpt")
    torch.save({"state_dict": {}}, "foreign.ckpt")
    assert "does not say which module" in message_of(capfd, "predict", "foreign.ckpt", "a.png")


def test_files_that_are_not_images(capfd):
    assert main(["fit", "digits/small", *TINY]) == 0
    draw_picture(0).save("good.png")
    Path("text.png").write_text("not an image")
    Path("cut.png").write_bytes(Path("good.png").read_bytes()[:200])
    for bad in ("text.png", "cut.png", "absent.png"):
        assert bad in message_of(capfd, "predict", "digits/small", "good.png", bad)
        assert not capfd.readouterr().out, "no result before the message"


def test_folder_of_one_class(capfd, pictures):
    (pictures / "cat").rename("elsewhere")
    line = message_of(
        capfd,
        "fit",
        "cifar10/resnet18",
        "--data",
        "datamodules.images.image_folder.ImageFolder",
        "--data.folder",
        pictures,
    )
    assert all(part in line for part in (str(pictures), "['bird']", "two or more")), line


def test_debug_shows_the_traceback():
    with pytest.raises(ValueError, match="unknown recipe"):
        main(["fit", "absent", "--debug"])


def test_an_error_of_another_file_or_of_a_closed_pipe_is_not_told_as_one_of_the_file_that_is_written(here):
    for action in (Path("absent.png").read_bytes, lambda: io.read_image("broken.png"), raise_broken_pipe):
        (here / "broken.png").write_bytes(b"no image")
        with pytest.raises((OSError, ValueError)) as raised, io.atomic_write("table.csv"):
            action()
        assert "table.csv" not in str(raised.value)
        assert not (here / "table.csv").exists()


def raise_broken_pipe():
    raise BrokenPipeError(errno.EPIPE, "Broken pipe")


@pytest.mark.parametrize("cleans_up", [True, False])
def test_an_atomic_write_leaves_the_new_file_or_the_old_one(here, cleans_up):
    path = here / "new" / "file"
    with io.atomic_write(path) as part:
        part.write_text("old")

    def fail(part):
        part.write_text("half")
        try:
            raise OSError(28, "No space left on device")
        finally:
            if cleans_up:
                raise RuntimeError("unexpected pos 17 vs 0")  # torch's error when it closes its archive

    with (
        pytest.raises(OSError, match=r"file could not be written \(No space left on device\).*free some space"),
        io.atomic_write(path) as part,
    ):
        fail(part)
    with pytest.raises(RuntimeError, match="another matter"), io.atomic_write(path):
        raise RuntimeError("another matter")
    with (
        pytest.raises(OSError, match=r"below could not be written \(File exists\)"),
        io.atomic_write(path / "below"),
    ):
        pass
    assert path.read_text() == "old"
    assert list(path.parent.iterdir()) == [path]


def test_a_full_disk_leaves_the_old_checkpoint(monkeypatch, here):
    plugin, path = checkpoints.AtomicCheckpointIO(), here / "last.ckpt"
    plugin.save_checkpoint({"epoch": 1}, path)

    def fail(checkpoint, file):
        file.write(b"half a checkpoint")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(checkpoints.torch, "save", fail)
    with pytest.raises(OSError, match="No space left"):
        plugin.save_checkpoint({"epoch": 2}, path)
    assert torch.load(path, weights_only=True) == {"epoch": 1}
    assert [path.name for path in here.iterdir()] == ["last.ckpt"]


def test_an_interrupted_download_leaves_no_file(here, monkeypatch):
    def fail(folder):
        (folder / "FashionMNIST/raw").mkdir(parents=True)
        (folder / "FashionMNIST/raw/train-images-idx3-ubyte").write_bytes(b"half")
        raise OSError("connection lost")

    with pytest.raises(FileNotFoundError, match="connection lost"):
        files.ensure_files("Fashion-MNIST", here / "data", FashionMNIST.checksums, {"download": fail})
    assert not list((here / "data").iterdir())
