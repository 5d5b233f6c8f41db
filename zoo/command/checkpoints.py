"""Checkpoint files: written completely or not at all, found by recipe, and loaded as modules."""

import importlib
import pickle
import sys
import zipfile
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.plugins.io import TorchCheckpointIO

from datamodules.io import atomic_write
from zoo import trust
from zoo.command import recipes

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


def newest_checkpoint(recipe: str) -> Path:
    """The last checkpoint of a run, given by its folder, or of the newest run of a recipe in `runs`.

    Raises:
        ValueError: if the recipe is unknown or was not trained here, or the run has no whole checkpoint.
    """
    if (run := recipes.run_of(recipe)) is not None:
        runs, where = [run], str(run)
    else:
        name = recipes.name_of(recipes.find(recipe))
        runs, where = list(Path("runs", name).glob("*/")), str(Path("runs", name))
    newest = sorted((found[0] for folder in runs if (found := checkpoints_in(folder))), key=lambda p: p.stat().st_mtime)
    for path in reversed(newest):
        if (whole := newest_whole(path.parents[1] if path.parent.name == "checkpoints" else path.parent)) is not None:
            return whole
    raise ValueError(f"no checkpoint under {where} that is whole: expected a trained {recipe}; zoo fit {recipe}")


def checkpoint_of(source: str) -> Path:
    """The checkpoint that a user means by the path of a file, the folder of a run, or a recipe: the newest one."""
    return Path(source) if source.endswith(".ckpt") else newest_checkpoint(source)


def load_module(path: Path, needs: str = "classes") -> tuple[Any, dict[str, Any]]:
    """The system of a checkpoint, in evaluation mode, and the metadata of the data that it was trained on.

    The system is annotated as Any because the verbs call what only some systems have, such as `detect` or `generate`.

    Args:
        path: checkpoint file.
        needs: which metadata there must be, such as "classes" or "tokenizer".

    Raises:
        ValueError: if the file is not a checkpoint, is not one of the zoo's, or lacks the metadata.
    """
    checkpoint = AtomicCheckpointIO().load_checkpoint(path, map_location="cpu", weights_only=True)
    if not isinstance(checkpoint, dict) or not checkpoint.get("module") or "data" not in checkpoint:
        raise ValueError(f"{path} does not say which module and data it belongs to: expected a checkpoint of `zoo fit`")
    if needs not in checkpoint["data"]:
        raise ValueError(
            f"{path} holds a {checkpoint['module']} and does not record the data's {needs}: expected the checkpoint of "
            "a system that is trained on such data; see `zoo list`"
        )
    trust.check_module(checkpoint["module"], str(path))
    module, _, name = checkpoint["module"].rpartition(".")
    kind = getattr(importlib.import_module(module), name)
    return kind.load_from_checkpoint(path, map_location="cpu", weights_only=True).eval(), checkpoint["data"]
