"""Every system trains on two CPU processes, which end with equal weights that training has changed.

Run as a script, `python test_two_ranks.py FOLDER SYSTEM...`, this file forks the two processes, which the process of
pytest must not. They train all systems, one after the other, as starting them costs more than a training.
"""

import os
import sys
from pathlib import Path

import pytest
import torch
from lightning import Callback
from lightning.fabric.plugins.environments.lightning import find_free_network_port

import processes
from cases import case_of, make, systems, write_files
from helpers import quiet_trainer


class WriteWeights(Callback):
    """Writes the trained weights of this rank into a file at the end."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def on_fit_end(self, trainer, module) -> None:
        name = f"{type(module).__name__}-{trainer.global_rank}.pt"
        torch.save({name: p.detach().clone() for name, p in module.net.named_parameters()}, self.folder / name)


def train(rank: int, folder: Path, names: list[str]) -> None:
    os.environ["ZOO_DATA"] = os.environ["XDG_CACHE_HOME"] = str(folder)
    os.environ["LOCAL_RANK"] = str(rank)  # so Lightning knows that it runs in both and starts none
    for system in [system for system in systems() if system.__name__ in names]:
        data = case_of(system).data(folder)
        trainer = quiet_trainer(
            max_steps=2, limit_val_batches=0, devices=2, strategy="ddp", callbacks=[WriteWeights(folder)]
        )
        trainer.fit(make(system, data), datamodule=data)


def train_on_two_ranks(folder: Path, names: list[str]) -> None:
    write_files(folder)
    os.environ["MASTER_ADDR"], os.environ["MASTER_PORT"] = "127.0.0.1", str(find_free_network_port())
    torch.multiprocessing.start_processes(train, (folder, names), nprocs=2, start_method="fork")


@pytest.fixture(scope="module")
def written(tmp_path_factory, request) -> Path:
    """Where the weights are, of all systems whose tests were selected."""
    folder = tmp_path_factory.mktemp("two_ranks")
    selected = [item for item in request.session.items if item.path == Path(__file__)]
    processes.run(__file__, folder, *(item.callspec.params["system"].__name__ for item in selected))
    return folder


@pytest.mark.parametrize("system", systems(), ids=lambda system: system.__name__)
def test_both_ranks_end_with_equal_weights_that_training_has_changed(system, written, monkeypatch):
    monkeypatch.setenv("ZOO_DATA", str(written))
    monkeypatch.setenv("XDG_CACHE_HOME", str(written))
    first, second = (torch.load(written / f"{system.__name__}-{rank}.pt") for rank in (0, 1))
    start = dict(make(system, case_of(system).data(written)).net.named_parameters())
    assert first.keys() == start.keys()
    assert [name for name in first if not torch.equal(first[name], second[name])] == []
    assert any(first[name].shape != start[name].shape or not torch.equal(first[name], start[name]) for name in first)


if __name__ == "__main__":
    train_on_two_ranks(Path(sys.argv[1]), sys.argv[2:])
