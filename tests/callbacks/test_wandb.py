"""A W&B run made with no network holds what a dashboard shows: curves, config and galleries."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import wandb
from lightning.pytorch.loggers import WandbLogger

from callbacks.runtime import wandb as logger
from zoo.command import recipes
from zoo.command.main import main

LOGGER = str(recipes.ROOT / "loggers" / "wandb-offline.yaml")


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    for name in ("WANDB_DATA_DIR", "WANDB_MODE", "WANDB_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path


def records_of(run: Path) -> list[dict]:
    """What W&B has written into the folder of an offline run."""
    command = [Path(sys.executable).with_name("wandb"), "leet", "inspect", "--json", str(run)]
    lines = subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()
    return [json.loads(line) for line in lines]


@pytest.fixture
def offline_run(here, caplog) -> tuple[Path, list[dict]]:
    """The folder of an offline run of the digits with galleries, moved elsewhere, and its records."""
    caplog.set_level("INFO")
    assert main(["fit", "digits/small", "--trainer.max_epochs", "2", "--trainer.logger", LOGGER]) == 0
    wandb.finish()
    assert "wandb sync" in caplog.text
    (folder,) = Path("runs/digits/small").iterdir()
    shutil.move(folder, "moved")
    (run,) = Path("moved/wandb").glob("offline-run-*")
    return Path("moved"), records_of(run)


def test_offline_run_holds_curves_config_and_galleries(offline_run):
    folder, records = offline_run
    assert "val/acc" in (folder / "metrics.csv").read_text(), "beside W&B's own files"
    text = json.dumps(records)
    assert "digits/small" in next(record["run"]["run_group"] for record in records if record["type"] == "run")
    for metric in ("train/loss", "train/acc", "val/loss", "val/acc"):
        assert metric in text
    assert "zoo.classification.resnet_mini.ResNetMini" in text, "the resolved config"
    assert "datamodules.augment.images.Rotate" in text
    media = {path.name for path in folder.glob("wandb/offline-run-*/files/media/**/*.png")}
    assert any(name.startswith("misclassified") for name in media)
    assert any(name.startswith("gradcam") for name in media)
    tables = list(folder.rglob("*.table.json"))
    assert tables, "the tables"
    assert any("truth" in table.read_text() for table in tables)
    assert list(folder.glob("wandb/artifacts/staging/*")), "the images inside tables moved with the run"


def test_the_logger_does_not_hide_the_package_of_the_same_name():
    assert wandb.__file__ != logger.__file__
    assert Path(wandb.__file__).parts[-2:] == ("wandb", "__init__.py")
    assert issubclass(logger.Wandb, WandbLogger)


def test_each_seed_is_a_run_of_its_own(here, capfd):
    options = ["--trainer.max_epochs", "1", "--trainer.logger", LOGGER]
    assert main(["reproduce", "digits/small", "--seeds", "3", "4", *options]) == 1, "missed, after one epoch"
    folders = sorted(Path("runs/digits/small").iterdir())
    assert len(folders) == 2
    for folder in folders:
        (run,) = folder.glob("wandb/offline-run-*")
        tables = {path.name.split("_table")[0] for path in run.rglob("*.table.json")}
        assert {"misclassified_test", "gradcam_test"} <= tables
        assert list(folder.glob("wandb/artifacts/staging/*")), "the images inside its tables"


def test_runs_that_start_in_the_same_second_keep_their_id(here, monkeypatch):
    """W&B gives the folders of the second and third a suffix."""
    monkeypatch.setattr(wandb.Settings, "timespec", property(lambda settings: "20260101_000000"))
    ids = set()
    for _ in range(3):
        ids.add(logger.Wandb(save_dir="mine", offline=True).experiment.id)
        wandb.finish()
    assert len(ids) == 1
    assert len(list(Path("mine/wandb").glob("offline-run-20260101_000000-*"))) == 3


def test_a_training_that_is_resumed_and_tested_goes_on_in_its_own_run(here):
    """As is one that is requeued: W&B's run follows the folder of the run, not the process or the job."""
    short = ["--trainer.callbacks", "null", "--trainer.limit_train_batches", "4", "--trainer.log_every_n_steps", "1"]
    command = ["fit", "digits/small", *short, "--trainer.logger", LOGGER, "--trainer.default_root_dir", "mine"]
    for words in ([*command, "--trainer.max_epochs", "1"], ["fit", "--resume", "mine", "--trainer.max_epochs", "2"]):
        assert main(words) == 0
        wandb.finish()
    assert main(["test", "mine"]) == 0
    wandb.finish()
    parts = [records_of(folder) for folder in sorted(Path("mine/wandb").glob("offline-run-*"))]
    runs = [next(record["run"] for record in part if record["type"] == "run") for part in parts]
    assert len({run["run_id"] for run in runs}) == 1
    assert [run.get("resume") for run in runs[1:]] == [True, True], "else the upload would replace what is there"
    logged = [[record["history"]["item"] for record in part if record["type"] == "history"] for part in parts]
    epochs = [sorted({item["epoch"] for item in items if "train/loss" in item}) for items in logged]
    assert epochs == [[0], [1], []]
    assert "test/acc" in logged[2][-1]
    assert logger.id_in(Path("mine")) == runs[0]["run_id"]
    assert logger.id_in(Path("another")) is None
