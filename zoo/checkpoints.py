"""Checkpoint files: whole or not there, found again by recipe."""

import pickle
import zipfile
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.plugins.io import TorchCheckpointIO

from datamodules.files import at_once
from experiments import recipes


class CheckpointFiles(TorchCheckpointIO):
    """Writes a checkpoint beside its place and renames it, so that a full disk or a kill leaves no half file.

    Lightning's own writes into the system's temporary folder first, and where that is another disk, the move is a copy.
    """

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None) -> None:
        """Writes a checkpoint.

        Raises:
            OSError: if it can't be written; what was there before is left as it was.
        """
        if "://" in str(path):
            return super().save_checkpoint(checkpoint, path, storage_options)
        with at_once(path) as beside, open(beside, "wb") as file:
            torch.save(checkpoint, file)

    def load_checkpoint(self, path: str | Path, *args: Any, **options: Any) -> dict[str, Any]:
        """Reads a checkpoint.

        Raises:
            ValueError: if there is no such file, or it is no whole checkpoint.
        """
        existing(path)
        try:
            return super().load_checkpoint(path, *args, **options)
        except (RuntimeError, EOFError, OSError, KeyError, pickle.UnpicklingError, zipfile.BadZipFile) as error:
            reason = " ".join(str(error).split())[:120] or type(error).__name__
            raise ValueError(f"{path} is no whole checkpoint ({reason}): take another one, or train again") from None


def existing(path: str | Path) -> None:
    """Raises ValueError if `path` is a file of this machine that is not there."""
    if "://" not in str(path) and not Path(path).is_file():
        raise ValueError(f"checkpoint {path} does not exist: expected a .ckpt file, as in runs/*/*/*/checkpoints")


def newest_checkpoint(recipe: str) -> Path:
    """The last checkpoint of the newest run of a recipe in `runs`.

    Raises:
        ValueError: if the recipe is unknown or was not trained here.
    """
    name = recipes.name_of(recipes.find(recipe))
    found = sorted(Path("runs", name).glob("*/checkpoints/*.ckpt"), key=lambda path: path.stat().st_mtime)
    if not found:
        raise ValueError(f"no checkpoint under {Path('runs', name)}: expected a trained {name}; zoo fit {name}")
    return found[-1]
