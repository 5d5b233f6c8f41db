"""Progress counts epochs from 1 and says how long the complete training still takes."""

import re
import sys
from types import SimpleNamespace

import pytest
import torch
from lightning import Callback
from torch.utils.data import DataLoader

from callbacks.runtime import progress
from callbacks.runtime.progress import Clock, EpochBar, EpochLines, progress_callback, share_done
from helpers import Recorder, quiet_trainer


class Shares(Callback):
    """Notes the share that is done after each batch and each epoch."""

    def __init__(self):
        self.batches, self.epochs = [], []

    def on_train_batch_end(self, trainer, *_):
        self.batches.append(share_done(trainer))

    def on_train_epoch_end(self, trainer, module):
        self.epochs.append(share_done(trainer))


def fit(*callbacks, **options):
    options = {"max_epochs": 2, "enable_progress_bar": True, **options}
    loader = DataLoader(torch.zeros(12, 1), batch_size=3)
    quiet_trainer(callbacks=list(callbacks), **options).fit(Recorder(), loader)


@pytest.mark.parametrize(
    ("options", "batches"),
    [
        ({"max_epochs": 2}, [i / 8 for i in range(1, 9)]),
        ({"max_epochs": 10, "max_steps": 5}, [0.2, 0.4, 0.6, 0.8, 1.0]),
        ({"max_epochs": -1, "max_steps": 4}, [0.25, 0.5, 0.75, 1.0]),
    ],
)
def test_the_share_that_is_done(options, batches):
    shares = Shares()
    fit(EpochLines(), shares, **options)
    assert shares.batches == pytest.approx(batches)
    assert shares.epochs[-1] == pytest.approx(1.0)


def test_the_time_left_is_that_of_the_rest(monkeypatch):
    now = 100.0
    monkeypatch.setattr(progress.time, "monotonic", lambda: now)
    shares = iter([0.4, 0.4, 0.5, 0.6])  # resumed when 0.4 were done
    monkeypatch.setattr(progress, "share_done", lambda trainer, begun=0: next(shares))
    clock, trainer = Clock(), SimpleNamespace()
    assert clock.left(trainer) is None, "0.4 were done before"
    clock.start(trainer)
    now = 110.0
    assert clock.left(trainer) == pytest.approx(50.0)
    now = 140.0
    assert clock.left(trainer) == pytest.approx(80.0), "it became slower"


def test_lines_count_from_one_and_tell_the_time_left(capfd, monkeypatch):
    seconds = iter(range(0, 10**6, 10))
    monkeypatch.setattr(progress.time, "monotonic", lambda: next(seconds))
    fit(EpochLines(), max_epochs=3)
    lines = [line for line in capfd.readouterr().err.splitlines() if line.startswith("epoch")]
    assert [line.split()[1] for line in lines] == ["1/3", "2/3", "3/3"]
    assert re.search(r"s, (\d+ s|\d+:\d\d min) left$", lines[0])
    assert re.search(r"\d s$", lines[2]), "nothing is left after the last"


def test_lines_without_an_end_count_only(capfd):
    fit(EpochLines(), max_epochs=-1, max_steps=4)
    (line,) = [line for line in capfd.readouterr().err.splitlines() if line.startswith("epoch")]
    assert line.split()[1] == "1"


def test_the_bar_counts_from_one_and_tells_the_time_left(capfd):
    fit(EpochBar(), max_epochs=2)
    shown = capfd.readouterr().out
    assert "Epoch 1/2" in shown
    assert "Epoch 2/2" in shown
    assert "Epoch 0" not in shown
    assert "left=" in shown
    assert "v_num" not in shown


def test_a_terminal_gets_a_bar(monkeypatch):
    for is_terminal, kind in ((True, EpochBar), (False, EpochLines)):
        monkeypatch.setattr(sys, "stdout", SimpleNamespace(isatty=lambda value=is_terminal: value))
        assert type(progress_callback()) is kind
