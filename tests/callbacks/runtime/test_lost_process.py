"""When a process of a training dies, the others end within seconds and one line says which it was."""

import os
import signal
import sys
import threading
import time
from pathlib import Path

import pytest
from PIL import Image

from processes import Process
from zoo.command.main import main

OWN = """
import multiprocessing, os, signal, time
from pathlib import Path
from lightning import Callback

class Slow(Callback):
    "Notes the number of this process, and takes its time for each step."
    def on_train_batch_start(self, trainer, *_):
        if trainer.global_step == 2:
            Path(f"{trainer.global_rank}.tmp").write_text(str(os.getpid()))
            os.rename(f"{trainer.global_rank}.tmp", f"{trainer.global_rank}.pid")
        time.sleep(0.05)

class KillWorker(Callback):
    def on_train_batch_start(self, trainer, module, batch, batch_idx):
        if batch_idx == 1:
            os.kill(multiprocessing.active_children()[0].pid, signal.SIGKILL)
"""
FIT = ["fit", "digits/small", "--trainer.accelerator", "cpu", "--trainer.max_epochs", "200"]
TWO = ["--trainer.devices", "2", "--trainer.strategy", "ddp", "--data.batch_size", "8"]


@pytest.fixture
def here(tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "own.py").write_text(OWN)
    monkeypatch.syspath_prepend(str(tmp_path))
    yield tmp_path
    sys.modules.pop("own", None)


@pytest.mark.parametrize("victim", [0, 1])
def test_a_rank_that_is_killed_ends_the_other_one_by_one_line_that_names_it(here, victim):
    """Real processes, as Lightning starts them. If the first is killed, the second remains without a parent."""
    process = Process("-m", "zoo", *FIT, *TWO, "--trainer.callbacks", "[{class_path: own.Slow}]")
    before: list[str] = []
    reader = threading.Thread(target=lambda: before.extend(process.output), daemon=True)
    reader.start()
    wait_until(lambda: Path("0.pid").exists() and Path("1.pid").exists(), 300, process, before)
    killed, start, so_far = int(Path(f"{victim}.pid").read_text()), time.monotonic(), len(before)
    os.kill(killed, signal.SIGKILL)
    reader.join(60)  # to the end of the output, which both processes hold open
    assert not reader.is_alive(), "".join(before)
    assert time.monotonic() - start < 40
    assert process.wait() == (75 if victim else -signal.SIGKILL)
    told = [line for line in before[so_far:] if "zoo: " in line]
    assert [line for line in before[so_far:] if line.strip() and not line.startswith("epoch")] == told, "nothing else"
    assert len(told) == 1
    assert f"rank {victim} of 2 (process {killed} on " in told[0]
    assert "zoo fit --resume runs" in told[0]
    assert "2 processes x batch_size 8 = 16 samples" in "".join(before)


def wait_until(is_so, seconds: float, process: Process, lines: list[str]) -> None:
    end = time.monotonic() + seconds
    while not is_so():
        assert process.poll() is None, "".join(lines)
        assert time.monotonic() < end, "".join(lines)
        time.sleep(0.05)


def test_a_worker_of_the_loader_that_is_killed_ends_the_training_by_one_line(here, capfd):
    for name in "ab":
        Path("pictures", name).mkdir(parents=True)
        for i in range(20):
            Image.new("RGB", (8, 8), (12 * i, 50 * (name == "a"), 0)).save(f"pictures/{name}/{i}.png")
    data = ["--data", "datamodules.images.image_folder.ImageFolder", "--data.folder", "pictures"]
    more = [
        "--data.batch_size",
        "2",
        "--data.num_workers",
        "2",
        "--trainer.callbacks",
        "[{class_path: own.KillWorker}]",
    ]
    assert main([*FIT, *data, *more]) == 75
    told = [line for line in capfd.readouterr().err.splitlines() if line.startswith("zoo: ")]
    assert len(told) == 1
    assert "worker" in told[0]
    assert "Killed" in told[0]
    assert "zoo fit --resume runs" in told[0]
