"""The folder of a run: config, checkpoints, metrics, figures. No run writes into the folder of another."""

import json
import os
import re
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from itertools import count
from pathlib import Path
from typing import Any

from datamodules.io import atomic_write

COMMAND = "command.json"  # the command that a run was started with
_claims = count()  # of this process


def claim_run_folder(name: str, command: list[str]) -> Path:
    """A new folder `runs/NAME/TIME`; on a cluster `runs/NAME/JOB`, which the same command finds again once requeued.

    A folder is claimed by one rename, so that of runs that start at the same time each gets its own. Runs of different
    commands in one job, such as in an interactive allocation, get different folders, and so does a command that is
    started again after its run has come to its end; the ranks of one command get the same. Processes that Lightning
    starts on this machine read the folder from the environment variable ZOO_RUN.

    Args:
        name: of the recipe.
        command: that the run is known by, as words; those of other seeds, say, must differ.
    """
    number, given = next(_claims), os.environ.get("ZOO_RUN")
    if number == 0 and "LOCAL_RANK" in os.environ and given is not None and command_of(Path(given)) == command:
        return Path(given)
    folder = _from_rank_zero(f"zoo/run/{number}", lambda: _first_free(name, command))
    os.environ["ZOO_RUN"] = str(folder)
    return folder


def _from_rank_zero(key: str, claim: Callable[[], Path]) -> Path:
    """The folder that rank 0 claims, where only a store can tell the others; else each finds it by itself."""
    by_torchrun = job() is None and os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True"
    if not by_torchrun and "torch" not in sys.modules:
        return claim()
    from torch import distributed

    store: Any
    if distributed.is_initialized():  # as from the second run of a process on
        store, rank = distributed.distributed_c10d._get_default_store(), distributed.get_rank()
    elif by_torchrun:
        address, port, rank = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"]), int(os.environ["RANK"])
        store = distributed.TCPStore(address, port, is_master=False)  # type: ignore[attr-defined]
    else:
        return claim()
    if rank == 0 and not store.check([key]):  # torchrun keeps it when it starts all ranks again
        store.set(key, str(claim()))
    return Path(store.get(key).decode())


def _first_free(name: str, command: list[str]) -> Path:
    first = job() or time.strftime("%Y%m%d-%H%M%S")
    for number in count(1):
        folder = Path("runs", name, first if number == 1 else f"{first}-{number}").absolute()
        if _claim(folder, command) or (job() and command_of(folder) == command):
            return folder
    raise AssertionError("count never ends")


def _claim(folder: Path, command: list[str]) -> bool:
    """Creates the folder, with the command in it, at once; false if it exists."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
    try:
        temporary.chmod(0o755)
        (temporary / COMMAND).write_text(json.dumps(command))
        temporary.rename(folder)  # fails if it exists, as it is not empty
    except OSError:
        shutil.rmtree(temporary, ignore_errors=True)
        if not folder.exists():
            raise
        return False
    return True


def release(folder: Path) -> None:
    """Removes the folder of a run that did not come to its first file."""
    if [path.name for path in folder.glob("*")] == [COMMAND]:
        shutil.rmtree(folder)
        for parent in folder.parents[:3]:  # runs/FOLDER/RECIPE
            if not any(parent.iterdir()):
                parent.rmdir()


def job() -> str | None:
    """The cluster's number for the job that this process belongs to, under which it is started again; None without one.

    With torchrun it is the id that the user has given to it, or the start of the one that it has made up.
    """
    found = os.environ.get("SLURM_JOB_ID") or os.environ.get("TORCHELASTIC_RUN_ID", "none")
    is_made_up = re.fullmatch(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", found)
    return None if found == "none" else found[:8] if is_made_up else found


def is_restarted(folder: Path, command: list[str]) -> bool:
    """Whether the cluster has started the run of this folder again, by the same command in the same job."""
    is_again = job() is not None or os.environ.get("TORCHELASTIC_RESTART_COUNT", "0") != "0"
    return is_again and command_of(folder) == command


def note_command(folder: Path, command: list[str]) -> None:
    """Writes into a folder that the user chose by which command its run was started, if it does not say that yet."""
    folder.mkdir(parents=True, exist_ok=True)
    if not (folder / COMMAND).exists():
        with atomic_write(folder / COMMAND) as temporary:
            temporary.write_text(json.dumps(command))


def note_end(folder: Path) -> None:
    """Notes that the run of a folder has come to its end: the same command, started again, is another run."""
    if (command := command_of(folder)) is not None:
        with atomic_write(folder / COMMAND) as temporary:
            temporary.write_text(json.dumps({"finished": command}))


def command_of(folder: Path) -> list[str] | None:
    """The command of the run in a folder, None if that has come to its end or the folder does not say."""
    try:
        found = json.loads((folder / COMMAND).read_text())
    except (OSError, ValueError):
        return None
    return found if isinstance(found, list) else None


def separate_port() -> None:
    """Gives each step of a job of Slurm a port of its own, by which its ranks find each other.

    Lightning derives it from the job alone, so that two commands at the same time would meet on one.
    """
    job, step, ranks = (os.environ.get(f"SLURM_{name}", "") for name in ("JOB_ID", "STEP_ID", "NTASKS"))
    if job.isdigit() and step.isdigit() and ranks != "1":
        os.environ.setdefault("MASTER_PORT", str(15000 + (int(job) + 997 * int(step)) % 15000))
