"""A logger for Weights & Biases that works with and without a network."""

import os
import socket
from pathlib import Path
from urllib.parse import urlparse

from lightning.pytorch.loggers import WandbLogger
from lightning.pytorch.utilities import rank_zero_info


def why_offline() -> str | None:
    """The reason why W&B cannot be used online, or None if it can."""
    mode = os.environ.get("WANDB_MODE")
    if mode in ("offline", "disabled", "dryrun"):
        return f"WANDB_MODE is {mode}"
    if mode == "online":
        return None
    import wandb

    url = urlparse(wandb.setup().settings.base_url)
    try:
        socket.create_connection((url.hostname, url.port or (443 if url.scheme == "https" else 80)), timeout=3).close()
    except OSError as error:
        return f"{url.hostname} cannot be reached ({error})"
    try:
        return None if wandb.login(prompt=False) else "there is no API key (wandb login)"
    except wandb.errors.Error as error:
        return f"the login failed ({error})"


def id_in(folder: Path) -> str | None:
    """The id of the W&B run whose files are in a run folder, the newest if there are several; None if there is none."""
    # The name of a file, as that of its folder has a suffix if another run started in the same second.
    files = {path.parent.name.removeprefix("offline-"): path.stem for path in folder.glob("wandb/*run-*/run-*.wandb")}
    return files[max(files)].removeprefix("run-") if files else None


class Wandb(WandbLogger):
    """Lightning's `WandbLogger`, offline if W&B cannot be reached, with all its files in the run folder.

    In a folder that holds files of a W&B run it goes on in that run, whether the training was resumed, requeued or is
    tested: the files of several processes, also those written offline, then belong to one run.

    W&B keeps the images of tables in `WANDB_DATA_DIR`, by default outside the run. It is set to the run folder, so that
    a run that is moved, or synced later, has them.

    Args:
        project: on the dashboard.
        save_dir: run folder; the `zoo` command fills it in.
        offline: True or False; None tries whether W&B can be reached.
        name: of the run; default FOLDER/RECIPE/TIME, as its folder.
        group: of the run; default the recipe, so that its seeds are one group.
        tags, entity: of the run.
        id: of the run; default that of the run folder, else a new one.
        log_model: upload checkpoints too; online only.
    """

    _data_dir: str | None = None  # of the last run in this process

    def __init__(
        self,
        project: str = "litzoo",
        save_dir: str = ".",
        offline: bool | None = None,
        name: str | None = None,
        id: str | None = None,
        group: str | None = None,
        tags: list[str] | None = None,
        entity: str | None = None,
        log_model: bool = False,
    ) -> None:
        reason = why_offline() if offline is None else "as configured" if offline else None
        folder = Path(save_dir).absolute()
        if reason:
            rank_zero_info(f"W&B logs offline, {reason}: {folder / 'wandb'}; upload later with `wandb sync`")
        if os.environ.get("WANDB_DATA_DIR") in (None, Wandb._data_dir):  # otherwise the user has set it
            os.environ["WANDB_DATA_DIR"] = Wandb._data_dir = str(folder / "wandb")
        folder.mkdir(parents=True, exist_ok=True)
        super().__init__(
            project=project,
            save_dir=folder,
            offline=reason is not None,
            mode="offline" if reason else None,
            name=name or "/".join(folder.parts[-3:]),
            id=id or id_in(folder),
            group=group or ("/".join(folder.parts[-3:-1]) if "runs" in folder.parts[:-3] else None),
            tags=tags,
            log_model=log_model and reason is None,
            entity=entity,
            resume="allow",  # is recorded offline, too: `wandb sync` then appends
        )
