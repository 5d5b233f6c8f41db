"""Bad input ends with exit status 2 and one line that names value, expectation and remedy; nothing is half-written."""

from pathlib import Path

import pytest
import torch

from datamodules import files
from datamodules.images.fashion_mnist import FashionMNIST
from helpers import draw_picture
from zoo.command import ledger
from zoo.command.main import main

TINY = ["--trainer.max_epochs", "1", "--trainer.limit_train_batches", "2", "--trainer.limit_val_batches", "2"]
FASHION = "fashion_mnist/towards-90"


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def user_message(capfd, *words: str) -> str:
    """Runs the command, which must end with 2; returns the one line."""
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
            ["fit", "digits/small", "--model.schedule", "zoo.parts.optim.schedules.Ab"],
            [
                "--model.schedule is zoo.parts.optim.schedules.Ab: module 'zoo.parts.optim.schedules' has no attribute 'Ab'"
            ],
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
        (["fit", "digits/small", "--config", "absent.yaml"], ["--config: File does not exist", "absent.yaml"]),
        (["fit", "digits/small", "--data.batch_size", "0"], ["batch_size is 0", "1 or more"]),
        (["fit", "digits/small", "--data.val_size", "9999"], ["val_size is 9999", "1436"]),
        (["fit", "digits/small", "--model.num_classes", "7"], ["num_classes is 7", "10 classes", "leave it out"]),
        (["fit", "digits/small", "--model", "zoo.absent.Net"], ["zoo.absent"]),
        (["fit", "digits/small", "--trainer.accelerator", "abacus"], ["abacus"]),
        (["fit", "digits/small", "--ckpt_path", "absent.ckpt"], ["absent.ckpt", "does not exist"]),
        (["test", "digits/small"], ["no checkpoint", "zoo fit digits/small"]),
        (["predict", "digits/small", "a.png"], ["no checkpoint", "zoo fit digits/small"]),
        (["predict", "absent.ckpt", "a.png"], ["absent.ckpt", "does not exist"]),
    ],
    ids=lambda value: "-".join(value[:3]).replace("/", "_") if isinstance(value, list) else None,
)
def test_wrong_words(capfd, words, parts):
    line = user_message(capfd, *words)
    assert all(part in line for part in parts), line
    assert len(line) < 700
    assert not [path for path in Path().rglob("*") if path.is_file()], "nothing is left behind"


@pytest.mark.parametrize(("text", "part"), [("model: [", "no valid YAML"), ("- 1", "no mapping"), ("x: 1", "--x")])
def test_wrong_recipe_file(capfd, text, part):
    Path("r.yaml").write_text(text + "\nmodel: {class_path: zoo.classification.resnet.ResNet18}\n" * (text[0] == "x"))
    assert part in user_message(capfd, "fit", "r.yaml")


def test_recipe_that_expects_nothing_cannot_be_reproduced(capfd):
    Path("r.yaml").write_text("model: {class_path: zoo.classification.resnet.ResNet18}\n")
    assert "no `expect`" in user_message(capfd, "reproduce", "r.yaml")


def test_missing_data_names_the_remedies(capfd, monkeypatch):
    def unreachable(folder):
        raise OSError("no route to host")

    monkeypatch.setattr(FashionMNIST, "ways", lambda self: {"torchvision's download": unreachable})
    line = user_message(capfd, "fit", FASHION, "--data.data_dir", "nowhere")
    assert all(part in line for part in ("train-images-idx3-ubyte", "nowhere", "no route to host", "ZOO_DATA")), line


def test_truncated_data_are_named_and_left_alone(capfd, fake_data):
    file = fake_data / "FashionMNIST/raw/train-images-idx3-ubyte"
    file.write_bytes(file.read_bytes()[:1000])
    line = user_message(capfd, "fit", FASHION, "--data.data_dir", fake_data)
    assert all(part in line for part in (str(file), "damaged", "1000 bytes", "delete")), line
    assert len(file.read_bytes()) == 1000


def test_checkpoint_of_another_model(capfd, fake_data):
    assert main(["fit", "digits/small", *TINY]) == 0
    (checkpoint,) = Path("runs/digits/small").glob("*/checkpoints/last.ckpt")
    data = ["--data.data_dir", fake_data, "--data.val_size", "20"]
    line = user_message(capfd, "fit", FASHION, *data, "--ckpt_path", checkpoint)
    assert all(part in line for part in ("ResNetMini", "PlainConv", "recipe")), line
    line = user_message(capfd, "test", "digits/small", "--ckpt_path", checkpoint, "--model.widths", "[8,16,32]")
    assert all(part in line for part in ("net.", "(16, 1, 3, 3)", "(8, 1, 3, 3)")), line


def test_broken_checkpoint(capfd):
    assert main(["fit", "digits/small", *TINY]) == 0
    (checkpoint,) = Path("runs/digits/small").glob("*/checkpoints/last.ckpt")
    draw_picture(0).save("a.png")
    for size in (0, 100, checkpoint.stat().st_size // 2):
        Path("half.ckpt").write_bytes(checkpoint.read_bytes()[:size])
        assert "half.ckpt" in user_message(capfd, "predict", "half.ckpt", "a.png")
        assert "half.ckpt" in user_message(capfd, "fit", "digits/small", "--ckpt_path", "half.ckpt")
    torch.save({"state_dict": {}}, "foreign.ckpt")
    assert "does not say which module" in user_message(capfd, "predict", "foreign.ckpt", "a.png")


def test_pictures_that_are_none(capfd):
    assert main(["fit", "digits/small", *TINY]) == 0
    draw_picture(0).save("good.png")
    Path("text.png").write_text("not a picture")
    Path("cut.png").write_bytes(Path("good.png").read_bytes()[:200])
    for bad in ("text.png", "cut.png", "absent.png"):
        assert bad in user_message(capfd, "predict", "digits/small", "good.png", bad)
        assert not capfd.readouterr().out, "no result before the user_message"


def test_folder_of_one_class(capfd, pictures):
    (pictures / "cat").rename("elsewhere")
    line = user_message(
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


def test_seeds_of_a_net_of_another_size_are_not_averaged_in(monkeypatch, here):
    monkeypatch.setattr(ledger, "LEDGER", here / "results.csv")
    row = dict.fromkeys(ledger.COLUMNS, "1") | {"recipe": "digits/small"}
    for seed, parameters, value in ((0, 7330, "0.1"), (2, 7330, "0.2"), (0, 7774, "0.3"), (1, 7774, "0.4")):
        ledger.append(row | {"seed": str(seed), "parameters": str(parameters), "value": value})
    assert [(r["seed"], r["value"]) for r in ledger.latest("digits/small")] == [("0", "0.3"), ("1", "0.4")]


def test_a_ledger_write_that_fails_leaves_the_ledger_as_it_was(monkeypatch, here):
    monkeypatch.setattr(ledger, "LEDGER", here / "results.csv")
    row = dict.fromkeys(ledger.COLUMNS, "1")
    ledger.append(row)
    before = ledger.LEDGER.read_bytes()

    def full_disk(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(files.os, "fsync", full_disk)
    with pytest.raises(OSError, match="No space left"):
        ledger.append(row)
    assert ledger.LEDGER.read_bytes() == before
    assert {path.name for path in here.iterdir()} == {"results.csv", "results.lock"}


@pytest.mark.parametrize("cleans_up", [True, False])
def test_a_file_written_at_once_is_whole_or_the_old_one(here, cleans_up):
    path = here / "new" / "file"
    with files.atomic_write(path) as part:
        part.write_text("old")

    def half(part):
        part.write_text("half")
        try:
            raise OSError(28, "No space left on device")
        finally:
            if cleans_up:
                raise RuntimeError("unexpected pos 17 vs 0")  # as torch says when it closes its archive

    with (
        pytest.raises(OSError, match=r"file could not be written \(No space left on device\).*make room"),
        files.atomic_write(path) as part,
    ):
        half(part)
    with pytest.raises(RuntimeError, match="another matter"), files.atomic_write(path):
        raise RuntimeError("another matter")
    with (
        pytest.raises(OSError, match=r"below could not be written \(File exists\)"),
        files.atomic_write(path / "below"),
    ):
        pass
    assert path.read_text() == "old"
    assert list(path.parent.iterdir()) == [path]


def test_a_full_disk_leaves_the_old_checkpoint(monkeypatch, here):
    from zoo.command import checkpoints

    plugin, path = checkpoints.CheckpointFiles(), here / "last.ckpt"
    plugin.save_checkpoint({"epoch": 1}, path)

    def half(checkpoint, file):
        file.write(b"half a checkpoint")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(checkpoints.torch, "save", half)
    with pytest.raises(OSError, match="No space left"):
        plugin.save_checkpoint({"epoch": 2}, path)
    assert torch.load(path, weights_only=True) == {"epoch": 1}
    assert [path.name for path in here.iterdir()] == ["last.ckpt"]


def test_interrupted_download_leaves_nothing(here, monkeypatch):
    def half(folder):
        (folder / "FashionMNIST/raw").mkdir(parents=True)
        (folder / "FashionMNIST/raw/train-images-idx3-ubyte").write_bytes(b"half")
        raise OSError("connection lost")

    with pytest.raises(FileNotFoundError, match="connection lost"):
        files.ensure_files("Fashion-MNIST", here / "data", FashionMNIST.checksums, {"download": half})
    assert not list((here / "data").iterdir())
