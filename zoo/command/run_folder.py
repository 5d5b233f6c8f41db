"""The folder of a run: config, checkpoints, metrics, pictures."""

import itertools
import os
import time
from pathlib import Path


def run_folder(name: str) -> Path:
    """`runs/RECIPE/TIME`; on a cluster the job's number instead of the time, so that a requeued job finds it again.

    The processes that Lightning starts on this machine read the folder from the environment variable ZOO_RUN.
    """
    if "LOCAL_RANK" in os.environ and "ZOO_RUN" in os.environ:
        return Path(os.environ["ZOO_RUN"])
    job = os.environ.get("SLURM_JOB_ID") or os.environ.get("TORCHELASTIC_RUN_ID")
    if job in (None, "none"):
        job = now = time.strftime("%Y%m%d-%H%M%S")
        for number in itertools.count(2):  # for two runs in one second
            if not Path("runs", name, job).exists():
                break
            job = f"{now}-{number}"
    folder = Path("runs", name, job).absolute()
    os.environ["ZOO_RUN"] = str(folder)
    return folder
