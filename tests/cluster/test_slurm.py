"""Trainings in the jobs of a real Slurm, by the templates of `experiments/slurm`, end as if nothing had happened.

Every job trains the same small recipe, so that all must end with the weights of one that nothing disturbs.
"""

import csv
import json
import os
import signal
import sys
from pathlib import Path

import pytest
import torch
from cluster.slurm import Cluster, Job, holds_back

from zoo.command import recipes

TEMPLATES = recipes.ROOT / "slurm"
EPOCHS, STEPS = 3, 6
OWN = """
import time
from pathlib import Path
import torch
from lightning import Callback

class Pace(Callback):
    "Slows a training down, tells its steps, and writes the weights of each rank at the end."
    def __init__(self, seconds: float = 0.0): self.seconds = seconds
    def on_train_batch_end(self, trainer, *_):
        time.sleep(self.seconds)
        if trainer.is_global_zero: print(f"after step {trainer.global_step}.", flush=True)
    def on_fit_end(self, trainer, module):
        torch.save(module.net.state_dict(), f"{Path(trainer.default_root_dir).name}-{trainer.global_rank}.pt")
"""
LOGGERS = [
    {
        "class_path": "callbacks.runtime.csv_logger.KeepingCSVLogger",
        "init_args": {"save_dir": ".", "name": "", "version": ""},
    },
    {"class_path": "callbacks.runtime.wandb.Wandb", "init_args": {"offline": True}},
]


def options(pace: float = 0.5, ranks: int = 2) -> list[str]:
    """Of the recipe: short, on CPUs, and with the same samples in a step whatever the number of ranks."""
    callbacks = [{"class_path": "pace.Pace", "init_args": {"seconds": pace}}]
    return [
        *("--trainer.callbacks", json.dumps(callbacks)),
        *("--trainer.accelerator", "cpu"),
        *("--trainer.max_epochs", str(EPOCHS)),
        *("--trainer.limit_train_batches", str(STEPS)),
        *("--trainer.log_every_n_steps", "1"),
        *("--data.batch_size", str(16 // ranks)),
    ]


def fit(**choices: float) -> list[str]:
    return ["digits/small", *options(**choices)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """From which all jobs are submitted."""
    folder = tmp_path_factory.mktemp("work")
    (folder / "pace.py").write_text(OWN)
    return folder


@pytest.fixture(scope="module")
def submit(cluster, folder):
    """Submits a template with so many nodes, and tasks on each."""
    cluster.env |= {
        "ZOO": f"{sys.executable} -m zoo",
        "TORCHRUN": f"{sys.executable} -m torch.distributed.run",
        "ZOO_DATA": str(folder / "data"),
    }
    for name in ("PL_GLOBAL_SEED", "ZOO_RUN"):
        cluster.env.pop(name, None)

    def run(template: str | Path, *words: str, nodes: int = 1, tasks: int = 1, more: tuple[str, ...] = ()) -> Job:
        sizes = [f"--nodes={nodes}", f"--ntasks-per-node={tasks}", f"--gpus-per-node={tasks}", "--cpus-per-task=1"]
        return cluster.submit(*sizes, *more, TEMPLATES / template, *words, cwd=folder)

    return run


def weights(folder: Path, run: str, rank: int = 0) -> dict[str, torch.Tensor]:
    return torch.load(folder / f"{run}-{rank}.pt")


def are_equal(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> bool:
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


def rows(folder: Path, run: str) -> list[dict[str, str]]:
    with open(folder / "runs/digits/small" / run / "metrics.csv", newline="") as file:
        return list(csv.DictReader(file))


def check_complete(folder: Path, job: Job, undisturbed: dict[str, torch.Tensor], restarts: int) -> None:
    """A job has ended well, in one folder, with every row and the weights of an undisturbed one."""
    assert job.wait_for_end() == "COMPLETED", job.text
    assert job.facts["Restarts"] == str(restarts), job.text
    runs = [path.name for path in (folder / "runs/digits/small").glob(f"{job.number}*")]
    assert runs == [job.number]
    assert not list((folder / "runs/digits/small" / job.number).glob("hpc_ckpt*"))
    found = rows(folder, job.number)
    assert [int(row["epoch"]) for row in found if row["val/acc"]] == list(range(EPOCHS))
    assert [int(row["epoch"]) for row in found if row["train/acc"]] == list(range(EPOCHS))
    assert are_equal(weights(folder, job.number), undisturbed), job.text


@pytest.fixture(scope="module")
def undisturbed(submit, folder) -> dict[str, torch.Tensor]:
    """The weights after a training on two nodes, by one rank on each."""
    job = submit("several_nodes.sbatch", *fit(pace=0), nodes=2)
    assert job.wait_for_end() == "COMPLETED", job.text
    assert are_equal(weights(folder, job.number, 0), weights(folder, job.number, 1))
    return weights(folder, job.number)


def test_two_tasks_of_one_node_end_with_the_weights_of_one_task_on_each_of_two(submit, folder, undisturbed):
    job = submit("one_node.sbatch", *fit(pace=0), tasks=2)
    check_complete(folder, job, undisturbed, restarts=0)
    assert are_equal(weights(folder, job.number, 1), undisturbed)


def test_a_job_that_is_warned_is_requeued_and_goes_on_where_it_was(cluster, submit, folder, undisturbed):
    job = submit("several_nodes.sbatch", *fit(), "--trainer.logger", json.dumps(LOGGERS), nodes=2)
    job.wait_for(f"after step {STEPS + 2}.")
    cluster.call("scancel", "--signal=USR1", job.number)
    job.wait_for("is requeued")
    check_complete(folder, job, undisturbed, restarts=1)
    assert job.text.count(f"after step {STEPS + 2}.") == 1, "no step is done twice"
    parts = sorted((folder / "runs/digits/small" / job.number / "wandb").glob("offline-run-*"))
    assert len(parts) == 2
    assert len({part.name.rpartition("-")[2] for part in parts}) == 1, "both parts belong to one run of W&B"


def test_a_warning_during_the_imports_is_answered_by_the_training(cluster, submit):
    job = submit("one_gpu.sbatch", *fit(ranks=1))
    cluster.wait_until(lambda: holds_back(job.rank(0), signal.SIGUSR1), lambda: job.text)
    cluster.call("scancel", "--signal=USR1", job.number)
    job.wait_for("after step 1; job")
    assert job.wait_for_end() == "COMPLETED", job.text
    assert job.facts["Restarts"] == "1"


def test_a_rank_that_dies_is_named_in_one_line_and_the_job_goes_on(cluster, submit, folder, undisturbed):
    job = submit("one_node.sbatch", *fit(), tasks=2)
    job.wait_for(f"after step {STEPS + 2}.")
    os.kill(job.rank(1), signal.SIGKILL)
    job.wait_for("has died", seconds=60)
    assert job.text.count("zoo: ") == 1
    assert "zoo: rank 1 of 2" in job.text
    check_complete(folder, job, undisturbed, restarts=1)
    assert "Traceback" not in job.text


def test_a_job_goes_on_when_the_node_of_one_of_its_ranks_dies(cluster, submit, folder, undisturbed):
    job = submit("several_nodes.sbatch", *fit(), nodes=2)
    job.wait_for(f"after step {STEPS + 2}.")
    other = "node2" if job.facts["BatchHost"] == "node1" else "node1"
    cluster.kill_node(other)
    job.wait_for("zoo: rank 1 of 2", seconds=60)
    job.wait_for_state("PENDING")
    cluster.restart_node(other)
    check_complete(folder, job, undisturbed, restarts=1)


def test_a_job_goes_on_elsewhere_when_its_node_dies(cluster, submit, folder, undisturbed):
    """The script, too, is on that node, so that only Slurm can start the job again."""
    job = submit("one_node.sbatch", *fit(), tasks=2)
    job.wait_for(f"after step {STEPS + 2}.")
    dead = job.facts["BatchHost"]
    cluster.kill_node(dead)
    cluster.wait_until(lambda: job.facts["Restarts"] == "1", lambda: job.text)
    check_complete(folder, job, undisturbed, restarts=1)
    assert job.facts["BatchHost"] != dead
    cluster.start_node(dead)


def test_two_commands_in_one_allocation_do_not_meet(submit, folder, undisturbed):
    script = folder / "two.sbatch"
    step = "srun --exact --nodes=1 --ntasks=2 --ntasks-per-node=2 $ZOO fit"
    several = "--trainer.devices 2 --trainer.strategy ddp"
    script.write_text(
        f'#!/bin/bash\n{step} "$@" {several} & first=$!\n{step} "$@" --seed_everything 7 {several} & second=$!\n'
        f'wait $first && wait $second && {step} "$@" {several}\n'
    )
    job = submit(script, *fit(pace=0), nodes=2, tasks=2)
    assert job.wait_for_end() == "COMPLETED", job.text
    runs = folder / "runs/digits/small"
    names = sorted(path.name for path in runs.glob(f"{job.number}*"))
    assert names == [job.number, f"{job.number}-2", f"{job.number}-3"], "the third is the first once more"
    seeds = {name: recipes.read(runs / name / "config.yaml")["seed_everything"] for name in names}
    assert sorted(seeds.values()) == [0, 0, 7]
    for name, seed in seeds.items():
        assert are_equal(weights(folder, name), undisturbed) == (seed == 0)
        assert [int(row["epoch"]) for row in rows(folder, name) if row["val/acc"]] == list(range(EPOCHS))


def test_an_array_trains_each_recipe_of_a_list_and_its_jobs_are_requeued_one_by_one(cluster, submit, folder):
    (folder / "list.txt").write_text("digits/small --seed_everything 1\ndigits/small --seed_everything 2\n")
    array = submit("recipes.sbatch", "list.txt", *options(ranks=1), more=("--array=1-2",))
    # Until they start, all jobs of an array have one number.
    cluster.wait_until(lambda: len(set(numbers(cluster, array).values())) == 2, lambda: str(numbers(cluster, array)))
    jobs = {task: Job(cluster, number, folder / f"{number}.out") for task, number in numbers(cluster, array).items()}
    jobs["1"].wait_for("after step 2.")
    cluster.call("scancel", "--signal=USR1", f"{array.number}_1")
    ends = {task: (job.wait_for_end(), job.facts["Restarts"]) for task, job in jobs.items()}
    assert ends == {"1": ("COMPLETED", "1"), "2": ("COMPLETED", "0")}, [job.text for job in jobs.values()]
    for task, job in jobs.items():
        config = recipes.read(folder / "runs/digits/small" / job.number / "config.yaml")
        assert config["seed_everything"] == int(task)
        assert [int(row["epoch"]) for row in rows(folder, job.number) if row["val/acc"]] == list(range(EPOCHS))


def numbers(cluster: Cluster, array: Job) -> dict[str, str]:
    """Index in an array -> number of the job."""
    lines = cluster.call("squeue", "--noheader", "--array", "--states=all", "--format=%F %K %A").split("\n")
    found = [line.split() for line in lines if line.startswith(f"{array.number} ")]
    return {index: number for _, index, number in found}


def test_an_array_reproduces_each_seed(cluster, submit, folder):
    array = submit("seeds.sbatch", *fit(ranks=1), more=("--array=3-3",))
    cluster.wait_until(lambda: len(numbers(cluster, array)) == 1, lambda: str(numbers(cluster, array)))
    job = Job(cluster, numbers(cluster, array)["3"], folder / f"{array.number}.out")
    job.wait_for("after step 8.")
    cluster.call("scontrol", "requeue", job.number)
    assert job.wait_for_end() == "FAILED", "the target is missed after so few steps"
    assert job.facts["ExitCode"] == "1:0"
    assert job.facts["Restarts"] == "1"
    assert job.text.count("after step 1.") == 1, "it goes on from the checkpoint of the first epoch"
    (name,) = (path.name for path in (folder / "runs/digits/small").glob(f"{job.number}*"))
    assert recipes.read(folder / "runs/digits/small" / name / "config.yaml")["seed_everything"] == 3


@pytest.mark.parametrize("what", ["a rank dies", "a warning"])
def test_torchrun_goes_on(cluster, submit, folder, undisturbed, what):
    job = submit("torchrun.sbatch", *fit(), nodes=2)
    job.wait_for(f"after step {STEPS + 2}.")
    if what == "a warning":
        cluster.call("scancel", "--batch", "--signal=USR1", job.number)
    else:
        os.kill(job.rank(1, "RANK"), signal.SIGKILL)
    check_complete(folder, job, undisturbed, restarts=1 if what == "a warning" else 0)
