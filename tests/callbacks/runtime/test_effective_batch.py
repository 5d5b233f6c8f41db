"""What a batch and batch norm are on several processes; the line in the log is tested with two real ones."""

from pathlib import Path

import pytest
import torch
import torch.distributed
from lightning import Trainer
from torch import nn

from callbacks.runtime.effective_batch import check_sync_batchnorm
from zoo.command.main import main

TWO = ["--trainer.accelerator", "cpu", "--trainer.devices", "2", "--trainer.strategy", "ddp"]


def test_synchronized_batch_norm_on_cpus_is_refused_before_there_are_processes(tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    assert main(["fit", "digits/small", *TWO, "--trainer.sync_batchnorm", "true"]) == 2
    (told,) = [line for line in capfd.readouterr().err.splitlines() if line.startswith("zoo: ")]
    assert "sync_batchnorm" in told
    assert not Path("runs").exists()


def test_synchronized_batch_norm_is_refused_because_torch_has_none_for_cpus():
    torch.distributed.init_process_group("gloo", store=torch.distributed.HashStore(), rank=0, world_size=1)
    try:
        with pytest.raises(ValueError, match="GPU"):
            nn.SyncBatchNorm(2)(torch.randn(3, 2))
    finally:
        torch.distributed.destroy_process_group()
    trainer = Trainer(accelerator="cpu", devices=2, strategy="ddp", sync_batchnorm=True, logger=False)
    with pytest.raises(ValueError, match="sync_batchnorm"):
        check_sync_batchnorm(trainer, nn.Sequential(nn.Conv2d(1, 1, 1), nn.BatchNorm2d(1)))
    check_sync_batchnorm(trainer, nn.Sequential(nn.Conv2d(1, 1, 1), nn.GroupNorm(1, 1)))
    check_sync_batchnorm(Trainer(accelerator="cpu", devices=2, strategy="ddp", logger=False), nn.BatchNorm2d(1))
