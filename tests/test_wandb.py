"""A W&B run made with no network holds what a dashboard shows: curves, config and galleries."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from experiments import recipes
from zoo.cli import main


@pytest.fixture
def offline_run(tmp_path, monkeypatch, caplog) -> tuple[Path, list[dict]]:
    """The folder of an offline run of the digits with galleries, moved elsewhere, and its records."""
    monkeypatch.chdir(tmp_path)
    for name in ("WANDB_DATA_DIR", "WANDB_MODE", "WANDB_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    caplog.set_level("INFO")
    logger = recipes.ROOT / "loggers" / "wandb-offline.yaml"
    assert main(["fit", "digits/small", "--trainer.max_epochs", "2", "--trainer.logger", str(logger)]) == 0
    import wandb

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
    assert "zoo.classification.small_resnet.SmallResNet" in text, "the resolved config"
    assert "datamodules.augment.Rotate" in text
    media = {path.name for path in folder.glob("wandb/offline-run-*/files/media/**/*.png")}
    assert any(name.startswith("misclassified") for name in media)
    assert any(name.startswith("gradcam") for name in media)
    tables = list(folder.rglob("*.table.json"))
    assert tables, "the tables"
    assert any("truth" in table.read_text() for table in tables)
    assert list(folder.glob("wandb/artifacts/staging/*")), "the images inside tables moved with the run"
