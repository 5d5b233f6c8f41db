"""A run destroys no other, goes on where it was stopped, and ends as its signal says."""

import csv
import json
import os
import pty
import select
import shlex
import signal
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from unittest.mock import patch

import pytest
import torch
import yaml

from datamodules.images.digits import Digits
from processes import Process
from zoo import trust
from zoo.command import recipes, run_folder
from zoo.command.actions import reproduce
from zoo.command.checkpoints import newest_checkpoint
from zoo.command.main import main
from zoo.command.run_folder import claim_run_folder
from zoo.results import ledger

FIT = ["fit", "digits/small", "--trainer.callbacks", "null", "--trainer.accelerator", "cpu"]
SHORT = [*FIT, "--trainer.max_epochs", "2", "--trainer.limit_train_batches", "6"]
SLOW = """
import sys, time, zoo.command.main, zoo.classification.base as c
step = c.Classifier.training_step
def slowly(self, batch, batch_idx): time.sleep(0.1); return step(self, batch, batch_idx)
c.Classifier.training_step = slowly
sys.exit(zoo.command.main.main(sys.argv[1:]))
"""
SEND = """
import os, signal
from lightning import Callback
class Send(Callback):
    def __init__(self, at: int, number: int): self.at, self.number = at, number
    def on_train_batch_start(self, trainer, *_):
        if trainer.global_step == self.at: os.kill(os.getpid(), self.number)
"""


@pytest.fixture
def here(tmp_path, monkeypatch) -> Path:
    """A working directory with a callback that sends a signal before a step."""
    monkeypatch.chdir(tmp_path)
    for name in ("SLURM_JOB_ID", "TORCHELASTIC_RUN_ID", "LOCAL_RANK", "ZOO_RUN"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(trust, "own", set())
    (tmp_path / "sender.py").write_text(SEND)
    monkeypatch.syspath_prepend(str(tmp_path))
    yield tmp_path
    sys.modules.pop("sender", None)
    os.environ.pop("ZOO_RUN", None)


def send(at: int, number: int) -> list[str]:
    return [
        "--trainer.callbacks",
        json.dumps([{"class_path": "sender.Send", "init_args": {"at": at, "number": number}}]),
    ]


def rows(folder: str) -> list[dict[str, str]]:
    with open(Path(folder, "metrics.csv"), newline="") as file:
        return list(csv.DictReader(file))


# Folders


def test_runs_that_start_at_the_same_time_get_folders_of_their_own(here):
    with ThreadPoolExecutor(16) as pool:
        folders = list(pool.map(lambda number: claim_run_folder("a/b", [str(number)]), range(32)))
    assert len(set(folders)) == 32
    assert [json.loads((folder / "command.json").read_text()) for folder in folders] == [[str(n)] for n in range(32)]
    assert sorted(path.name for path in Path("runs/a").iterdir()) == ["b"]
    assert len(list(Path("runs/a/b").iterdir())) == 32  # nothing temporary is left


def test_in_a_job_the_same_command_finds_its_folder_and_another_gets_its_own(here, monkeypatch):
    monkeypatch.setenv("SLURM_JOB_ID", "77")
    command, another = ["fit", "a/b"], ["fit", "a/b", "--seed_everything", "1"]
    first, other = claim_run_folder("a/b", command), claim_run_folder("a/b", another)
    assert (first.name, other.name) == ("77", "77-2")
    assert claim_run_folder("a/b", command) == first
    assert claim_run_folder("a/b", another) == other


def test_a_job_that_is_started_again_goes_on_from_its_newest_whole_checkpoint(here, monkeypatch, capfd):
    """As after `scontrol requeue` or a dead node: no signal came before, and the newest checkpoint may be damaged."""
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "5")
    monkeypatch.setattr(sys, "argv", ["zoo", *SHORT])
    assert main([*SHORT, "--trainer.max_epochs", "1"]) == 0
    folder = Path("runs/digits/small/5")
    before = rows(folder)
    broken = bytearray((folder / "checkpoints/last.ckpt").read_bytes())
    broken[len(broken) // 2] ^= 1
    (folder / "checkpoints/recent.ckpt").write_bytes(broken)
    (folder / "command.json").write_text(json.dumps(SHORT))  # which does not say that the run has come to its end
    capfd.readouterr()
    assert main(SHORT) == 0
    err = capfd.readouterr().err
    assert "last.ckpt" in next(line for line in err.splitlines() if line.startswith("checkpoint "))
    assert "recent.ckpt is damaged" in err
    assert torch.load(folder / "checkpoints/last.ckpt", weights_only=True)["global_step"] == 12
    assert rows(folder)[: len(before)] == before
    assert sorted({row["epoch"] for row in rows(folder)}) == ["0", "1"]
    assert main(SHORT) == 0
    assert rows("runs/digits/small/5-2"), "after its end the same command is another run"


def test_a_restarted_job_of_several_seeds_goes_on_with_the_one_it_was_at(here, monkeypatch, capfd):
    """Killed in the second epoch of the second seed: the first is not run again, and each keeps its own folder."""
    monkeypatch.setenv("SLURM_JOB_ID", "77")
    monkeypatch.setattr(ledger, "LEDGER", here / "results.csv")
    recipe = recipes.read(recipes.find("digits/small")) | {"seed_everything": 0}
    recipe["trainer"] = {"max_epochs": 3, "limit_train_batches": 6, "accelerator": "cpu"}
    Path("quick.yaml").write_text(yaml.safe_dump(recipe))
    command, begin = ["reproduce", "quick.yaml", "--seeds", "0", "1"], reproduce.Watch.on_train_epoch_start
    begun = []

    def killed(self, trainer, module):
        begun.append((os.environ["PL_GLOBAL_SEED"], trainer.current_epoch))
        if begun[3:] == [("1", 0), ("1", 1)]:
            raise MemoryError("killed")

    monkeypatch.setattr(reproduce.Watch, "on_train_epoch_start", killed)
    main(command)
    kept = {path: path.read_bytes() for path in Path("runs/quick/77").rglob("*") if path.is_file()}
    assert [row["seed"] for row in ledger.rows()] == ["0"]
    begun.clear()
    assert main(command) in (0, 1)
    assert begun == [("1", 1), ("1", 2)]
    assert "seed 0 is done" in capfd.readouterr().err
    assert [row["seed"] for row in ledger.rows()] == ["0", "1"]
    assert sorted(path.name for path in Path("runs/quick").iterdir()) == ["77", "77-2"]
    assert kept.keys() == {path for path in Path("runs/quick/77").rglob("*") if path.is_file()}
    assert all(path.read_bytes() == content for path, content in kept.items() if path.name != "command.json")
    assert [row["epoch"] for row in rows("runs/quick/77-2") if row["train/acc"]] == ["0", "1", "2"]
    assert torch.load("runs/quick/77-2/checkpoints/last.ckpt", weights_only=True)["global_step"] == 18
    monkeypatch.setattr(reproduce.Watch, "on_train_epoch_start", begin)
    assert main(["reproduce", "quick.yaml", "--seeds", "0", "1", "--trainer.default_root_dir", "mine"]) == 2
    assert "each needs a folder of its own" in capfd.readouterr().err


@pytest.mark.parametrize(("epochs", "every"), [(2, 5), (3, 2)])
def test_the_last_epoch_is_saved_also_without_a_validation(here, capfd, epochs, every):
    options = ["--trainer.max_epochs", str(epochs), "--trainer.check_val_every_n_epoch", str(every)]
    assert main([*SHORT, *options, "--trainer.default_root_dir", "mine"]) == 0
    assert torch.load("mine/checkpoints/last.ckpt", weights_only=True)["global_step"] == 6 * epochs


@pytest.mark.parametrize("kind", ["callbacks.runtime.csv_logger.KeepingCSVLogger", "CSVLogger"])
def test_a_csv_logger_of_the_users_writes_no_row_twice(here, kind):
    logger = {"class_path": kind, "init_args": {"save_dir": ".", "name": "", "version": ""}}
    assert main([*SHORT, "--trainer.logger", json.dumps([logger]), "--trainer.default_root_dir", "mine"]) == 0
    assert [row["epoch"] for row in rows("mine") if row["val/acc"]] == ["0", "1"]
    assert main([*SHORT, "--trainer.logger", json.dumps([logger | {"init_args": {"save_dir": "."}}])]) == 0
    (beside,) = here.glob("runs/digits/small/*/lightning_logs/version_0/metrics.csv")
    assert [row["epoch"] for row in rows(beside.parents[2]) if row["val/acc"]] == ["0", "1"]


def test_a_complete_run_is_left_as_it_is_and_goes_on_with_more_epochs_at_their_rates(here, capfd):
    monitor = ["--trainer.callbacks", "[{class_path: lightning.pytorch.callbacks.LearningRateMonitor}]"]
    assert main([*SHORT, *monitor, "--trainer.log_every_n_steps", "1", "--trainer.default_root_dir", "mine"]) == 0
    files = {path: path.read_bytes() for path in Path("mine").rglob("*") if path.is_file()}
    capfd.readouterr()
    assert main(["fit", "--resume", "mine"]) == 0
    (line,) = capfd.readouterr().out.splitlines()
    assert "complete after 2 epochs, 12 steps" in line
    assert "--trainer.max_epochs 4" in line
    assert {path: path.read_bytes() for path in Path("mine").rglob("*") if path.is_file()} == files
    assert main(["fit", "--resume", "mine", "--trainer.max_epochs", "4"]) == 0
    assert "24 steps long instead of 12" in capfd.readouterr().err
    name = next(name for name in rows("mine")[0] if name.startswith("lr-"))
    rates = [float(row[name]) for row in rows("mine") if row[name]]
    assert len(rates) == 24
    assert min(rates[12:]) > 0
    assert rates[12] == pytest.approx(rates[0] / 0.04 * (1 - 12 / 24) / 0.8, rel=1e-4)  # down from the peak at 0.2


def test_a_run_is_not_overwritten(here, capfd):
    into = ["--trainer.default_root_dir", "mine"]
    assert main([*SHORT, *into]) == 0
    files = {path: path.read_bytes() for path in Path("mine").rglob("*") if path.is_file()}
    assert main([*SHORT, *into]) == 2
    assert "zoo fit --resume" in capfd.readouterr().err.splitlines()[-1]
    assert {path: path.read_bytes() for path in Path("mine").rglob("*") if path.is_file()} == files


def test_a_test_in_the_folder_of_a_run_keeps_its_metrics_and_draws_there(here, capfd):
    assert main([*SHORT, "--trainer.default_root_dir", "mine"]) == 0
    before = rows("mine")
    gallery = ["--trainer.callbacks", "[{class_path: callbacks.galleries.misclassified.MisclassifiedGallery}]"]
    assert main(["test", "mine", *gallery]) == 0
    after = rows("mine")
    assert [{k: row[k] for k in before[0]} for row in after[: len(before)]] == before
    assert float(after[-1]["test/acc"]) > 0
    assert (after[-1]["epoch"], after[-1]["step"]) == (before[-1]["epoch"], before[-1]["step"])
    assert Path("mine/pictures/misclassified_test.png").is_file()
    assert sorted(path.name for path in Path().iterdir() if path.is_dir() and path.name != "__pycache__") == ["mine"]
    assert newest_checkpoint("mine") == Path("mine/checkpoints/last.ckpt")


def test_the_name_of_a_recipe_is_evaluated_as_its_newest_run(here, capfd):
    """On the data of that run, in its folder."""
    assert main([*SHORT, "--data.eval_batch_size", "77"]) == 0
    (run,) = Path("runs/digits/small").iterdir()
    for verb, options, size in (("validate", [], 77), ("test", ["--data.eval_batch_size", "60"], 60)):
        capfd.readouterr()
        with patch.object(Digits, "setup", autospec=True, side_effect=Digits.setup) as setup:
            assert main([verb, "digits/small", *options]) == 0
        assert setup.call_args.args[0].eval_batch_size == size
        out, err = capfd.readouterr()
        assert f"digits/small as in its newest run, {run}" in err
        assert "Test metric" not in out, "Lightning's table beside the summary"
    assert list(Path("runs/digits/small").iterdir()) == [run]
    assert float(rows(str(run))[-1]["test/acc"]) > 0


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["fit", "digits/small", "--resume"], "digits/small is no run"),
        (["fit", "mine"], "--resume mine"),
        (["fit", "--resume", "nowhere"], "nowhere is no run"),
        (["test", "mine"], "no checkpoint under mine"),
    ],
)
def test_a_run_and_a_recipe_are_told_apart(here, capfd, words, said):
    Path("mine").mkdir()
    Path("mine/config.yaml").write_bytes(recipes.find("digits/small").read_bytes())
    assert main(words) == 2
    assert said in capfd.readouterr().err


# Signals


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_the_run_after_the_batch_with_its_own_status_and_the_printed_command_goes_on(here, capfd, number):
    into = ["--trainer.default_root_dir", "mine", "--data.batch_size", "64", "--model.label_smoothing", "0.2"]
    assert main([*SHORT, *into, *send(8, number)]) == 128 + number
    printed = next(line for line in capfd.readouterr().out.splitlines() if "zoo fit --resume" in line)
    command = printed.partition("to go on from here: zoo ")[2].split()
    assert command == ["fit", "--resume", "mine", "--trust", "sender"]
    assert torch.load("mine/checkpoints/interrupted.ckpt", weights_only=True)["global_step"] == 9
    config = Path("mine/config.yaml").read_text()
    assert main([*command, "--trainer.callbacks", "null"]) == 0
    resumed = yaml.safe_load(Path("mine/config.yaml").read_text())
    assert (resumed["data"]["init_args"]["batch_size"], resumed["model"]["init_args"]["label_smoothing"]) == (64, 0.2)
    assert "batch_size: 64" in config
    assert torch.load("mine/checkpoints/last.ckpt", weights_only=True)["global_step"] == 12
    assert [row["epoch"] for row in rows("mine") if row["val/acc"]] == ["0", "1"]


@pytest.mark.parametrize("at", [5, 11])
def test_a_signal_in_the_last_batch_of_an_epoch_loses_no_validation(here, capfd, at):
    """At step 11 it is the last batch of the training, which then is complete."""
    status = main([*SHORT, "--trainer.default_root_dir", "mine", *send(at, signal.SIGTERM)])
    assert status == (143 if at == 5 else 0)
    assert [row["epoch"] for row in rows("mine") if row["val/acc"]] == (["0"] if at == 5 else ["0", "1"])
    if at == 5:
        assert main(["fit", "--resume", "mine", "--trainer.callbacks", "null", "--trust", "sender"]) == 0
        assert [row["epoch"] for row in rows("mine") if row["val/acc"]] == ["0", "1"]
    assert torch.load("mine/checkpoints/last.ckpt", weights_only=True)["global_step"] == 12


def test_within_an_epoch_another_batch_size_is_refused(here, capfd):
    assert main([*SHORT, "--trainer.default_root_dir", "mine", *send(8, signal.SIGTERM)]) == 143
    more = ["--trainer.callbacks", "null", "--data.batch_size", "8"]
    assert main(["fit", "--resume", "mine", *more, "--trust", "sender"]) == 2
    assert "batches of 8" in capfd.readouterr().err
    last = ["--trainer.default_root_dir", "other", "--ckpt_path", "mine/checkpoints/last.ckpt", *more]
    assert main([*SHORT, *last]) == 0  # it is from the end of an epoch


@pytest.mark.parametrize("reader", ["pipe", "terminal"])
def test_a_reader_that_goes_away_costs_no_checkpoint(here, reader):
    """Real processes: Ctrl-C that also ends the other end of a pipe, and a terminal with a shell that is closed."""
    Path("slow.py").write_text(SLOW)
    fit = ["slow.py", *FIT, "--trainer.max_epochs", "50", "--trainer.default_root_dir", "mine"]
    if reader == "pipe":
        process = Process(*fit)
        while "epoch 1/50" not in process.output.readline():
            assert process.poll() is None
        process.output.close()
        time.sleep(3)  # it goes on by itself
        assert process.poll() is None
        process.send(signal.SIGINT)
        assert process.wait() == 130
    else:
        environment = os.environ | {"PYTHONPATH": str(recipes.ROOT.parent), "OMP_NUM_THREADS": "1", "PS1": "$ "}
        shell, terminal = pty.fork()
        if shell == 0:
            os.execvpe("bash", ["bash", "--norc", "-i"], environment)
        os.write(terminal, f"{shlex.join([sys.executable, *fit])}\n".encode())
        while not Path("mine/checkpoints/last.ckpt").exists():
            if select.select([terminal], [], [], 0.1)[0]:
                os.read(terminal, 65536)
        os.close(terminal)
        os.waitpid(shell, 0)
        end = time.monotonic() + 120
        while json.loads(Path("mine/run.json").read_text())["state"] == "running" and time.monotonic() < end:
            time.sleep(0.2)
    assert json.loads(Path("mine/run.json").read_text())["state"] == "interrupted"
    assert torch.load("mine/checkpoints/interrupted.ckpt", weights_only=True)["global_step"] >= 20


def test_two_processes_stop_together_when_one_of_them_gets_a_signal(here):
    """Real processes: the signal goes to the first only. Both save one checkpoint, which then continues."""
    Path("slow.py").write_text(SLOW)
    two = ["--trainer.devices", "2", "--trainer.strategy", "ddp", "--trainer.default_root_dir", "mine"]
    process = Process("slow.py", *FIT, "--trainer.max_epochs", "50", *two)
    lines = []
    for line in process.output:
        lines.append(line)
        if "epoch 1/50" in line:
            time.sleep(0.5)
            process.send(signal.SIGTERM)
            break
    rest = process.output.read()
    assert process.wait() == 143, "".join(lines) + rest
    assert rest.count("to go on from here") == 1
    assert "Traceback" not in rest
    assert len(list(Path("mine/checkpoints").glob("interrupted*"))) == 1
    assert torch.load("mine/checkpoints/interrupted.ckpt", weights_only=True)["global_step"] > 1


def test_the_job_of_a_process_is_none_outside_of_a_cluster(here):
    assert run_folder.job() is None
    assert not run_folder.is_restarted(here, [])
