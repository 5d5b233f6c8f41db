"""The folder of a run: config, checkpoints, metrics, figures. No run writes into the folder of another."""

import json
import os
import shutil
import sys
import tempfile
import time
from itertools import count
from pathlib import Path

from datamodules.io import atomic_write

COMMAND = "command.json"  # the command that a run was started with


def claim_run_folder(name: str, command: list[str] | None = None) -> Path:
    """A new folder `runs/NAME/TIME`; on a cluster `runs/NAME/JOB`, which the same command finds again once requeued.

    A folder is claimed by one rename, so that of runs that start at the same time each gets its own. Runs of different
    commands in one job, such as in an interactive allocation, get different folders; the ranks of one command the same.
    Processes that Lightning starts on this machine read the folder from the environment variable ZOO_RUN.

    Args:
        name: of the recipe.
        command: default the words of this process.
    """
    if "LOCAL_RANK" in os.environ and "ZOO_RUN" in os.environ:
        return Path(os.environ["ZOO_RUN"])
    command = sys.argv[1:] if command is None else command
    number_of_job = job()
    first = number_of_job or time.strftime("%Y%m%d-%H%M%S")
    for number in count(1):
        folder = Path("runs", name, first if number == 1 else f"{first}-{number}").absolute()
        if _claim(folder, command) or (number_of_job and command_of(folder) == command):
            os.environ["ZOO_RUN"] = str(folder)
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
    """The number of the cluster's job that this process belongs to, under which it is requeued; None outside of one."""
    found = os.environ.get("SLURM_JOB_ID") or os.environ.get("TORCHELASTIC_RUN_ID")
    return None if found == "none" else found


def is_restarted(folder: Path) -> bool:
    """Whether the cluster has started the run of this folder again, by the same command in the same job."""
    return job() is not None and command_of(folder) == sys.argv[1:]


def note_command(folder: Path) -> None:
    """Writes into a folder that the user chose by which command its run was started, if it does not say that yet."""
    folder.mkdir(parents=True, exist_ok=True)
    if command_of(folder) is None:
        with atomic_write(folder / COMMAND) as temporary:
            temporary.write_text(json.dumps(sys.argv[1:]))


def command_of(folder: Path) -> list[str] | None:
    """The command that the run in a folder was started with; None if it does not say."""
    try:
        return json.loads((folder / COMMAND).read_text())
    except (OSError, ValueError):
        return None
