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
    command = [Path(sys.executable).with_name("wandb"), "leet", "inspect", "--json", str(run)]
    records = subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()
    return Path("moved"), [json.loads(record) for record in records]


def test_offline_run_holds_curves_config_and_galleries(offline_run):
    folder, records = offline_run
    text = json.dumps(records)
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
