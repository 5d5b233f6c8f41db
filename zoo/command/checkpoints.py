"""Checkpoint files: whole or not there, found again by recipe."""

import importlib
import pickle
import zipfile
from pathlib import Path
from typing import Any

import torch
from lightning import LightningModule
from lightning.pytorch.plugins.io import TorchCheckpointIO

from datamodules.io import atomic_write
from zoo.command import recipes


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
        with atomic_write(path) as beside, open(beside, "wb") as file:
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


def load_module(path: Path, needs: str = "classes") -> tuple[LightningModule, dict[str, Any]]:
    """The module of a checkpoint, ready to predict, and how its data look (classes, mean, std, image_shape; tokenizer).

    Args:
        path: checkpoint file.
        needs: what must be known of the data.

    Raises:
        ValueError: if the file is no checkpoint, or one that the zoo did not write, or is of data of another kind.
    """
    checkpoint = CheckpointFiles().load_checkpoint(path, map_location="cpu", weights_only=True)
    if not isinstance(checkpoint, dict) or not checkpoint.get("module") or "data" not in checkpoint:
        raise ValueError(f"{path} does not say which module and data it belongs to: expected a checkpoint of `zoo fit`")
    if needs not in checkpoint["data"]:
        raise ValueError(
            f"{path} holds a {checkpoint['module']}, of whose data no {needs} is known: take the checkpoint of a "
            "system that is fed with such data; see `zoo list`"
        )
    module, _, name = checkpoint["module"].rpartition(".")
    kind = getattr(importlib.import_module(module), name)
    return kind.load_from_checkpoint(path, map_location="cpu", weights_only=True).eval(), checkpoint["data"]


def checkpoint_of(source: str) -> Path:
    """The checkpoint that a user means by a file's path, or by a recipe: the last one of its newest run."""
    return Path(source) if source.endswith(".ckpt") else newest_checkpoint(source)
