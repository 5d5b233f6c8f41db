"""Checkpoint files: written completely or not at all, found by recipe, and loaded as modules.

A ready model (`zoo.inference.ready`) is read like a checkpoint that holds nothing but the module.
"""

import importlib
import io
import pickle
import sys
import zipfile
from pathlib import Path
from typing import Any

import lightning
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.plugins.io import TorchCheckpointIO

from datamodules.io import atomic_write
from datamodules.messages import report
from zoo import trust
from zoo.command import recipes
from zoo.inference import ready

KEYS = ("state_dict", "pytorch-lightning_version")  # that Lightning reads from every checkpoint


class RunCheckpoint(ModelCheckpoint):
    """The `ModelCheckpoint` that the command adds: its state is not mixed up with that of one of the user's."""

    @property
    def state_key(self) -> str:
        return f"{type(self).__name__}-{self.filename}"


class AtomicCheckpointIO(TorchCheckpointIO):
    """Writes a checkpoint next to its place and renames it, so that a full disk or a kill leaves no partial file.

    Lightning's own class writes into the system's temporary folder first; where that is on another disk, the move is
    a copy.
    """

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None) -> None:
        """Writes a checkpoint.

        Raises:
            OSError: if it cannot be written; what was there before is left as it was.
        """
        if _is_remote(path):
            return super().save_checkpoint(checkpoint, path, storage_options)
        with atomic_write(path) as temporary, open(temporary, "wb") as file:
            torch.save(checkpoint, file)

    def load_checkpoint(self, path: str | Path, map_location: Any = None, weights_only: Any = None) -> dict[str, Any]:
        """Reads a checkpoint as data, whatever `weights_only` says: Lightning would run the code in it when resuming.

        Raises:
            ValueError: if the file does not exist, is truncated or is not a checkpoint.
        """
        if is_ready(path):
            return _ready_checkpoint(Path(path))
        check_exists(path)
        check_intact(path)
        try:
            checkpoint = super().load_checkpoint(path, map_location, weights_only=True)
        except (RuntimeError, EOFError, OSError, KeyError, pickle.UnpicklingError, zipfile.BadZipFile) as error:
            reason = " ".join(str(error).split())[:120] or type(error).__name__
            raise ValueError(
                f"{path} is truncated or not a checkpoint ({reason}): expected a .ckpt file of `zoo fit`; "
                "take another one, or train again"
            ) from None
        missing = [key for key in KEYS if not isinstance(checkpoint, dict) or key not in checkpoint]
        if missing:
            raise ValueError(
                f"{path} does not say which module and data it belongs to (it is a {type(checkpoint).__name__} without "
                f"{missing[0]}): expected a checkpoint of `zoo fit`; take one of a run's folder checkpoints"
            )
        return checkpoint


def _is_remote(path: str | Path) -> bool:
    return "://" in str(path)


def is_ready(path: str | Path) -> bool:
    """Whether a file is that of a ready model, by its name."""
    return not _is_remote(path) and Path(path).suffix == ready.SUFFIX


def _ready_checkpoint(path: Path) -> dict[str, Any]:
    """A ready model as the checkpoint that Lightning would have written of it."""
    card, state = ready.read(path)
    # With these two Lightning has jsonargparse build the arguments, which turns lists into what the class asks for.
    by_parser = {"_class_path": card.module, "_instantiator": "lightning.pytorch.cli.instantiate_module"}
    return {
        "state_dict": state,
        "hyper_parameters": card.hyper_parameters | by_parser,
        "hparams_name": "kwargs",
        "module": card.module,
        "data": card.data,
        "pytorch-lightning_version": lightning.__version__,
    }


def check_exists(path: str | Path) -> None:
    """Raises ValueError if `path` is on this machine and is not a file."""
    if not _is_remote(path) and not Path(path).is_file():
        raise ValueError(f"checkpoint {path} does not exist: expected a .ckpt file, as in runs/*/*/*/checkpoints")


def check_intact(path: str | Path) -> None:
    """Raises ValueError if a byte of a checkpoint differs from what was written, by the checksums in the archive."""
    if _is_remote(path) or not zipfile.is_zipfile(path):
        return
    try:
        with zipfile.ZipFile(path) as archive:
            broken = archive.testzip()
    except (zipfile.BadZipFile, OSError, EOFError) as error:
        raise ValueError(f"{path} is damaged ({error}): take another checkpoint, or train again") from None
    if broken is not None:
        raise ValueError(
            f"{path} is damaged: the checksum of {broken} is wrong; take another checkpoint, or train again"
        )


def checkpoints_in(run: Path) -> list[Path]:
    """The checkpoints of a run, newest first: its own, and those that Lightning writes before a job is requeued."""
    found = [*run.glob("checkpoints/*.ckpt"), *run.glob("hpc_ckpt_*.ckpt")]
    return sorted(found, key=lambda path: path.stat().st_mtime, reverse=True)


def newest_whole(run: Path) -> Path | None:
    """The newest checkpoint of a run that is not damaged, None if there is none; says which ones are damaged."""
    for path in checkpoints_in(run):
        try:
            check_intact(path)
        except ValueError as error:
            print(error, file=sys.stderr)
        else:
            return path
    return None


def newest_checkpoint(source: str) -> Path:
    """The last checkpoint of a run, given by its folder, or of the newest run of a recipe in `runs`; or a ready model.

    A recipe without a run has its ready model taken, and so has RECIPE@ready in any case. Where there is a choice, a
    line says which one is taken.

    Raises:
        ValueError: if the recipe is unknown or was not trained here, or the run has no whole checkpoint.
    """
    if (run := recipes.run_of(source)) is not None:
        if (found := newest_whole(run)) is None:
            raise ValueError(f"no checkpoint under {run} that is whole: expected one; train again, or name another run")
        return found
    name = source.removesuffix(recipes.READY)
    if name != source:
        return ready.find(name)
    is_shipped = name in ready.names()
    found = None if is_shipped and name not in recipes.names() else _newest_of_recipe(name)
    if not is_shipped:
        if found is None:
            runs = Path("runs", recipes.name_of(recipes.find(name)))
            raise ValueError(f"no checkpoint under {runs} that is whole: expected a trained {name}; zoo fit {name}")
        return found
    mark = f"{name}{recipes.READY}"
    if found is not None:
        report(f"{found} is taken, of the newest run; the ready model would be {mark}")
        return found
    reached = ready.read_card(path := ready.path_of(name)).reached
    report(f"{mark} is taken, the model that comes with the package{f' ({reached})' if reached else ''}")
    return path


def _newest_of_recipe(recipe: str) -> Path | None:
    """The newest whole checkpoint of the runs of a recipe, which must exist; of each run the newest counts."""
    runs = Path("runs", recipes.name_of(recipes.find(recipe))).glob("*/")
    newest = sorted((found[0] for run in runs if (found := checkpoints_in(run))), key=lambda path: path.stat().st_mtime)
    whole = (newest_whole(run_of_checkpoint(path)) for path in reversed(newest))
    return next((path for path in whole if path is not None), None)


def run_of_checkpoint(path: Path) -> Path:
    """The folder of the run that a checkpoint is in."""
    return path.parents[1] if path.parent.name == "checkpoints" else path.parent


def checkpoint_of(source: str) -> Path:
    """The checkpoint or ready model that a user means by a file, the folder of a run, or a name; see above."""
    return Path(source) if source.endswith((".ckpt", ready.SUFFIX)) else newest_checkpoint(source)


def config_of(checkpoint: Path) -> Path:
    """The recipe that made a checkpoint: the config of its run; of a ready model the recipe itself.

    Raises:
        ValueError: if there is none.
    """
    if is_ready(checkpoint):
        return recipes.find(ready.read_card(checkpoint).recipe)
    config = run_of_checkpoint(checkpoint) / "config.yaml"
    if checkpoint.is_file() and not config.is_file():
        raise ValueError(f"{config} does not exist: expected the config of the run, which names its data")
    return config


def load_module(path: Path, needs: str | None = "classes") -> tuple[Any, dict[str, Any]]:
    """The system of a checkpoint, in evaluation mode, and the metadata of the data that it was trained on.

    The system is annotated as Any because the verbs call what only some systems have, such as `detect` or `generate`.

    Args:
        path: checkpoint file.
        needs: which metadata there must be, such as "classes" or "tokenizer"; None if it does not matter.

    Raises:
        ValueError: if the file is not a checkpoint, is not one of the zoo's, or lacks the metadata.
    """
    checkpoint = AtomicCheckpointIO().load_checkpoint(path, map_location="cpu", weights_only=True)
    if not isinstance(checkpoint, dict) or not checkpoint.get("module") or "data" not in checkpoint:
        raise ValueError(f"{path} does not say which module and data it belongs to: expected a checkpoint of `zoo fit`")
    if needs is not None and needs not in checkpoint["data"]:
        raise ValueError(
            f"{path} holds a {checkpoint['module']} and does not record the data's {needs}: expected the checkpoint of "
            "a system that is trained on such data; see `zoo list`"
        )
    trust.check_module(checkpoint["module"], str(path))
    module, _, name = checkpoint["module"].rpartition(".")
    kind = getattr(importlib.import_module(module), name)
    source = _InMemory(checkpoint, path) if is_ready(path) else path
    return kind.load_from_checkpoint(source, map_location="cpu", weights_only=True).eval(), checkpoint["data"]


class _InMemory(io.BytesIO):
    """A checkpoint as a file in memory, which messages name by the file that it is from."""

    def __init__(self, checkpoint: dict[str, Any], path: Path) -> None:
        super().__init__()
        torch.save(checkpoint, self)
        self.seek(0)
        self.path = path

    def __str__(self) -> str:
        return str(self.path)
