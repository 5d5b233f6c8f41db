"""The verbs that train, evaluate and predict do what the README says."""

import csv
import json
import signal
import sys
import time
from pathlib import Path

import pytest
import torch
import yaml
from PIL import Image

from datamodules.images.digits import Digits
from datamodules.images.fashion_mnist import FashionMNIST
from helpers import draw_picture
from processes import Process
from zoo.command import recipes
from zoo.command.checkpoints import load_module, newest_checkpoint
from zoo.command.lightning_cli import ZooCLI
from zoo.command.main import KNOWN_REMARKS, main
from zoo.results import ledger

TINY = ["--trainer.max_epochs", "1", "--trainer.limit_train_batches", "3", "--trainer.limit_val_batches", "1"]


@pytest.fixture
def here(tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def own_ledger(here, monkeypatch) -> Path:
    """A ledger of its own and a recipe `quick.yaml`: the digits, one epoch, easily met."""
    monkeypatch.setattr(ledger, "LEDGER", here / "results.csv")
    recipe = recipes.read(recipes.find("digits/small"))
    recipe["expect"] |= {"at_least": 0.1, "seeds": 2}
    recipe["trainer"] = {"max_epochs": 2, "precision": "32-true", "log_every_n_steps": 1}
    (here / "quick.yaml").write_text(yaml.safe_dump(recipe))
    return here / "results.csv"


def test_list_names_every_recipe(capsys):
    assert main(["list", "--json"]) == 0
    lines = json.loads(capsys.readouterr().out)
    assert [line["recipe"] for line in lines] == recipes.names()
    assert all(line.keys() == {"recipe", "module", "data", "target", "result", "cost"} for line in lines)
    assert main(["list"]) == 0
    assert len(capsys.readouterr().out.splitlines()) == len(lines) + 1


def test_fit_fills_the_run_folder_and_options_override(here, capfd):
    assert main(["fit", "digits/small", *TINY, "--model.label_smoothing", "0.3", "--seed_everything", "7"]) == 0
    (folder,) = Path("runs/digits/small").iterdir()
    config = yaml.safe_load((folder / "config.yaml").read_text())
    assert config["model"]["init_args"]["label_smoothing"] == 0.3
    assert config["seed_everything"] == 7
    assert config["trainer"]["limit_val_batches"] == 1
    assert "epoch 1/1" in capfd.readouterr().err
    with open(folder / "metrics.csv") as file:
        assert any(row.get("val/acc") for row in csv.DictReader(file))


@pytest.mark.parametrize(
    ("options", "shown"),
    [
        (["--model.help"], "--model.label_smoothing"),
        (["--data.help", "--trainer.max_epochs", "1"], "scikit-learn's digits"),
        (["--data.help", "datamodules.images.mnist.MNIST"], "--data.data_dir"),
        (["--help", "all"], "--trainer.max_epochs"),
    ],
    ids=["model", "data", "another class", "all"],
)
def test_help_shows_the_options_of_the_recipes_own_classes(here, capfd, options, shown):
    with pytest.raises(SystemExit) as stop:
        main(["fit", "digits/small", *options])
    assert stop.value.code == 0
    assert shown in capfd.readouterr().out
    assert not Path("runs").exists()


def test_remarks_that_lightning_makes_in_every_run_are_left_out(here, caplog):
    caplog.set_level("INFO")
    assert main(["fit", "digits/small", *TINY]) == 0
    assert "GPU available" in caplog.text
    assert "Total params" in caplog.text
    assert "flops" not in caplog.text.lower(), "which Lightning does not know"
    assert "`max_epochs=1` reached" in caplog.text
    assert not [known for known in KNOWN_REMARKS if known in caplog.text]


@pytest.mark.parametrize(
    "option",
    ["limit_train_batches", "limit_val_batches", "limit_test_batches", "limit_predict_batches", "overfit_batches"],
)
def test_one_batch_is_one_batch_and_not_all(here, capfd, option):
    for given, meant in (("1", 1), ("1.0", 1.0), ("0.5", 0.5), ("3", 3)):
        trainer = ZooCLI("digits/small", [f"--trainer.{option}", given]).trainer
        assert getattr(trainer, option) == meant
        assert type(getattr(trainer, option)) is type(meant)


def test_a_validation_interval_of_one_is_one_batch(here, capfd):
    for given, kind in (("1", int), ("1.0", float)):
        interval = ZooCLI("digits/small", ["--trainer.val_check_interval", given]).trainer.val_check_interval
        assert (interval, type(interval)) == (1, kind)


def test_saved_config_is_itself_a_recipe(here, capfd):
    assert main(["fit", "digits/small", *TINY]) == 0
    (folder,) = Path("runs/digits/small").iterdir()
    first = torch.load(folder / "checkpoints/last.ckpt", weights_only=True)["state_dict"]
    assert main(["fit", str(folder / "config.yaml")]) == 0
    (other,) = Path("runs/config").iterdir()
    again = torch.load(other / "checkpoints/last.ckpt", weights_only=True)["state_dict"]
    assert all(torch.equal(first[name], again[name]) for name in first)


def test_predict_prints_a_json_line_for_each_image(here, capfd):
    assert main(["fit", "digits/small", *TINY]) == 0
    draw_picture(1).save("a.png")
    draw_picture(2, (100, 20)).save("b.jpg")
    capfd.readouterr()
    (checkpoint,) = Path("runs/digits/small").glob("*/checkpoints/last.ckpt")
    for source in ("digits/small", str(checkpoint)):
        assert main(["predict", source, "a.png", "b.jpg"]) == 0
        lines = [json.loads(line) for line in capfd.readouterr().out.splitlines()]
        assert [line["file"] for line in lines] == ["a.png", "b.jpg"]
        assert all(line["class"] in "0123456789" and 0 < line["confidence"] <= 1 for line in lines)
        assert all(line["top3"][0]["class"] == line["class"] and len(line["top3"]) == 3 for line in lines)


def test_predict_agrees_with_the_trainer_on_a_test_image(here, capfd):
    assert main(["fit", "digits/small", "--trainer.max_epochs", "3"]) == 0
    data = Digits()
    data.setup("test")
    images, labels = data.datasets["test"].images[:30], data.datasets["test"].labels[:30]
    for i, image in enumerate(images):
        Image.fromarray(image[0].numpy()).save(f"{i:02}.png")
    capfd.readouterr()
    assert main(["predict", "digits/small", *(f"{i:02}.png" for i in range(30))]) == 0
    predicted = [int(json.loads(line)["class"]) for line in capfd.readouterr().out.splitlines()]
    model, _ = load_module(newest_checkpoint("digits/small"))
    with torch.inference_mode():
        assert predicted == model(data.normalize(images / 255)).argmax(1).tolist()
    assert (torch.tensor(predicted) == labels).float().mean() > 0.3


def test_reproduce_writes_a_row_for_each_seed_and_one_json_object(own_ledger, capfd):
    assert main(["reproduce", "quick.yaml", "--json"]) == 0
    report = json.loads(capfd.readouterr().out)
    assert report["values"].keys() == {"0", "1"}
    assert report["mean"] == pytest.approx(sum(report["values"].values()) / 2)
    assert report["met"] is True
    assert report["next"] == f"zoo predict {report['folders']['1']} YOUR_IMAGES"
    assert all(Path(folder, "report.html").is_file() for folder in report["folders"].values())
    rows = ledger.rows()
    assert [row["seed"] for row in rows] == ["0", "1"]
    assert all(tuple(row) == ledger.COLUMNS and all(row.values()) for row in rows)
    assert float(rows[0]["value"]) == report["values"]["0"]
    assert float(rows[0]["best"]) >= float(rows[0]["value"])
    assert float(rows[0]["tflop"]) > 0
    assert int(rows[0]["parameters"]) == 77754


def test_reproduce_exits_1_if_the_target_is_missed_and_records_no_trial(own_ledger, capfd):
    text = Path("quick.yaml").read_text().replace("at_least: 0.1", "at_least: 1.01")
    Path("quick.yaml").write_text(text)
    assert main(["reproduce", "quick.yaml", "--seeds", "3", "--trainer.max_epochs", "1"]) == 1
    (folder,) = Path("runs/quick").iterdir()
    first, where, after = capfd.readouterr().out.splitlines()
    assert "missed" in first
    assert where.split() == ["report", f"{folder}/report.html"]
    assert after.split() == ["next", "zoo", "predict", str(folder), "YOUR_IMAGES"]
    assert not own_ledger.exists()


def test_reproduce_takes_the_mean_over_the_last_epochs(own_ledger, capfd):
    text = Path("quick.yaml").read_text().replace("metric:", "over_last: 2\n  metric:")
    Path("quick.yaml").write_text(text)
    assert main(["reproduce", "quick.yaml", "--seeds", "0", "--json"]) == 0
    over_two = json.loads(capfd.readouterr().out)
    (folder,) = Path("runs/quick").iterdir()
    with open(folder / "metrics.csv") as file:
        watched = [float(row["test/acc"]) for row in csv.DictReader(file) if row["test/acc"] and row["val/acc"]]
    assert len(watched) == 2
    assert over_two["mean"] == pytest.approx(sum(watched) / 2, abs=1e-5)


def test_demo_goes_on_with_digits_and_says_why(here, monkeypatch, capfd):
    def absent(self):
        raise FileNotFoundError("Fashion-MNIST: no network")

    monkeypatch.setattr(FashionMNIST, "prepare_data", absent)
    assert main(["demo", "--trainer.max_epochs", "1"]) == 0
    out = capfd.readouterr().out
    assert "no network" in out
    assert "digits/small" in out
    assert "test accuracy" in out
    named = [Path(line.split()[-1]) for line in out.splitlines() if line.endswith(".png")]
    assert {path.stem for path in named} >= {"curves", "misclassified_test", "gradcam_test", "overview"}
    assert all(path.is_file() for path in named)


def test_ctrl_c_leaves_a_checkpoint_that_continues_bit_equal(here, capfd):
    """A real process and a real signal, in the middle of an epoch; on the digits, with augmentation and Muon."""
    fit = ["fit", "digits/small", "--trainer.max_epochs", "2", "--trainer.callbacks", "null"]
    Path("slow.py").write_text(
        "import sys, time, zoo.command.main, zoo.classification.base as c\n"
        "step = c.Classifier.training_step\n"
        "def slowly(self, batch, batch_idx): time.sleep(0.2); return step(self, batch, batch_idx)\n"
        "c.Classifier.training_step = slowly\n"
        "sys.exit(zoo.command.main.main(sys.argv[1:]))"
    )
    process = Process("slow.py", *fit, "--trainer.default_root_dir", "broken")
    lines = []
    for line in process.output:
        lines.append(line)
        if "epoch 1/2" in line:
            time.sleep(1.0)
            process.send(signal.SIGINT)
            break
    rest = process.output.read()
    assert process.wait() == 130, "".join(lines) + rest
    assert "zoo fit --resume broken" in rest
    assert "Detected KeyboardInterrupt" not in rest
    steps = torch.load("broken/checkpoints/interrupted.ckpt", weights_only=True)["global_step"]
    assert 20 < steps < 40, "the signal was meant to fall into the second epoch of 20 steps"
    assert main(["fit", "--resume", "broken"]) == 0
    assert main([*fit, "--trainer.default_root_dir", "uninterrupted"]) == 0
    resumed, uninterrupted = (
        torch.load(f"{folder}/checkpoints/last.ckpt", weights_only=True)["state_dict"]
        for folder in ("broken", "uninterrupted")
    )
    assert all(torch.equal(resumed[name], uninterrupted[name]) for name in uninterrupted)
    resumed, uninterrupted = (Path(folder, "metrics.csv").read_text() for folder in ("broken", "uninterrupted"))
    assert resumed == uninterrupted


def test_own_images_with_a_recipe_of_the_zoo(here, pictures, capfd):
    data = ["--data", "datamodules.images.image_folder.ImageFolder", "--data.folder", str(pictures)]
    data += ["--data.image_size", "32", "--data.batch_size", "4", "--data.num_workers", "0", "--data.val_size", "2"]
    fast = ["--trainer.precision", "32-true", "--trainer.max_epochs", "1"]
    assert main(["fit", "cifar10/resnet18", *data, *fast]) == 0, capfd.readouterr().err
    capfd.readouterr()
    assert main(["predict", "cifar10/resnet18", str(pictures / "cat" / "00.png")]) == 0
    assert json.loads(capfd.readouterr().out)["class"] in ("bird", "cat")


def test_an_activation_of_ones_own_needs_only_its_dotted_path(here, monkeypatch, capfd):
    monkeypatch.setattr(sys, "path", [path for path in sys.path if path not in ("", str(here))])
    monkeypatch.delitem(sys.modules, "my_file", raising=False)
    Path("my_file.py").write_text("import torch\n\n\nclass Snake(torch.nn.Tanh):\n    pass\n")
    recipe = recipes.read(recipes.find("fashion_mnist/kaiming"))
    recipe["data"] = {"class_path": "datamodules.images.digits.Digits"}
    recipe["model"]["init_args"]["act"] = {"class_path": "my_file.Snake"}
    Path("mine.yaml").write_text(yaml.safe_dump(recipe))
    assert main(["fit", "mine.yaml", *TINY, "--trust", "my_file"]) == 0, capfd.readouterr().err
    (folder,) = Path("runs/mine").iterdir()
    assert "my_file.Snake" in (folder / "config.yaml").read_text()
