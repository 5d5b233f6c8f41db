"""Checkpoint files: written completely or not at all, with their hash, found by recipe, and loaded as modules.

A ready model (`zoo.inference.ready`) is read like a checkpoint that holds nothing but the module.
"""

import hashlib
import io
import math
import os
import sys
import zipfile
from pathlib import Path
from typing import IO, Any

import lightning
import torch
from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.plugins.io import TorchCheckpointIO

from callbacks.runtime.out_of_memory import is_out_of_memory
from datamodules.io import atomic_write
from datamodules.messages import report
from zoo.classification.base import Classifier
from zoo.command import recipes
from zoo.command.checkpoint_content import check_content, check_fit, missing_for_training, system_of
from zoo.inference import ready
from zoo.report.run import FACTS, read_json

# At the end of a file: this and the SHA-256 of all bytes before it, in hexadecimal. To programs that read the archive
# it is a comment.
HASH = b"zoo sha256 "
COMMENT = len(HASH) + 64  # bytes


class RunCheckpoint(ModelCheckpoint):
    """The `ModelCheckpoint` that the command adds: its state is not mixed up with that of one of the user's."""

    @property
    def state_key(self) -> str:
        return f"{type(self).__name__}-{self.filename}"

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Raises ValueError if the checkpoint that the training is to go on from has weights only."""
        super().on_fit_start(trainer, pl_module)
        if trainer.ckpt_path:
            check_training(trainer.ckpt_path)


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
        with atomic_write(path) as temporary, open(temporary, "wb+") as file:
            torch.save(checkpoint, file)
            file.seek(-2, os.SEEK_END)  # where an archive says how long its comment is
            file.write(COMMENT.to_bytes(2, "little"))
            file.write(HASH + _sha256(file, file.tell()))

    def load_checkpoint(self, path: str | Path, map_location: Any = None, weights_only: Any = None) -> dict[str, Any]:
        """Reads a checkpoint as data, whatever `weights_only` says: Lightning would run the code in it when resuming.

        Raises:
            ValueError: if the file does not exist, is damaged or is not a checkpoint.
        """
        if is_ready(path):
            checkpoint = _ready_checkpoint(Path(path))
        else:
            check_exists(path)
            check_intact(path)
            try:
                checkpoint = super().load_checkpoint(path, map_location, weights_only=True)
            except Exception as error:  # bytes that are no checkpoint lead to errors of many types
                if is_out_of_memory(error):
                    raise
                raise _damaged(path, " ".join(str(error).split())[:120] or type(error).__name__) from None
        check_content(checkpoint, path)
        return checkpoint


def _damaged(path: str | Path, reason: str) -> ValueError:
    return ValueError(
        f"{path} is damaged or not a checkpoint ({reason}): expected a .ckpt file of `zoo fit`; take another one, or "
        "train again"
    )


def _sha256(file: IO[bytes], length: int) -> bytes:
    """The SHA-256 of the first bytes of a file, in hexadecimal; the file is at their end afterwards."""
    found = hashlib.sha256()
    file.seek(0)
    while chunk := file.read(min(length, 1 << 20)):
        found.update(chunk)
        length -= len(chunk)
    return found.hexdigest().encode()


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
    """Raises ValueError if a byte of a checkpoint differs from what was written.

    By the hash at its end; a file of an earlier version or of another program has the checksums of its archive only. A
    file on another machine is not checked.
    """
    if _is_remote(path):
        return
    try:
        damage = _damage(path)
    except Exception as error:  # wrong bytes lead to errors of many types
        damage = str(error) or type(error).__name__
    if damage:
        raise _damaged(path, damage)


def _damage(path: str | Path) -> str:
    """What is wrong with the bytes of a file; "" if nothing is."""
    with open(path, "rb") as file:
        length = max(os.path.getsize(path) - COMMENT, 0)
        file.seek(length)
        comment = file.read()
        if comment.startswith(HASH):
            return "" if comment[len(HASH) :] == _sha256(file, length) else "it has another hash than it says"
    with zipfile.ZipFile(path) as archive:
        broken = archive.testzip()
    return f"the checksum of {broken} is wrong" if broken else ""


def check_training(path: str | Path) -> None:
    """Raises ValueError if a checkpoint holds weights only, so that no training can go on from it."""
    content = without_tensors(path)
    if content and (missing := missing_for_training(content)):
        raise ValueError(
            f"{path} has no {missing}, without which a training cannot go on: expected a checkpoint that holds more "
            "than weights; take another one, or train anew"
        )


def without_tensors(path: str | Path) -> dict[str, Any]:
    """What a checkpoint holds, of which tensors are read only when they are used; empty if it cannot be read so."""
    if is_ready(path):
        return _ready_checkpoint(Path(path))
    try:
        return dict(torch.load(path, map_location="cpu", mmap=True, weights_only=True))
    except Exception:  # it is on another machine, or damaged, which is said where it is loaded
        return {}


def checkpoints_in(run: Path) -> list[Path]:
    """The checkpoints of a run, newest first: its own, and those that Lightning writes before a job is requeued.

    The newest one was trained for the most steps, as the times of files are lost when a run is copied. What cannot be
    read comes first.
    """

    def age(path: Path) -> tuple[float, float]:
        content = without_tensors(path)
        return content.get("global_step", 0) if content else math.inf, path.stat().st_mtime

    return sorted(_files_in(run), key=age, reverse=True)


def _files_in(run: Path) -> list[Path]:
    return [*run.glob("checkpoints/*.ckpt"), *run.glob("hpc_ckpt_*.ckpt")]


def newest_whole(run: Path, to_train: bool = True) -> Path | None:
    """The newest checkpoint of a run that is not damaged, None if there is none; says which ones are damaged.

    Args:
        run: its folder.
        to_train: whether a training is to go on from it: those that hold weights only are passed over.

    Raises:
        ValueError: if there are only such.
    """
    passed_over = None
    for path in checkpoints_in(run):
        try:
            check_intact(path)
        except ValueError as error:
            print(error, file=sys.stderr)
            continue
        if not to_train or not missing_for_training(without_tensors(path)):
            return path
        passed_over = passed_over or path
    if passed_over is not None:
        check_training(passed_over)
    return None


def newest_checkpoint(source: str) -> Path:
    """The last checkpoint of a run, given by its folder, or of the newest run of a recipe in `runs`; or a ready model.

    A recipe without a run has its ready model taken, and so has RECIPE@ready in any case. Where there is a choice, a
    line says which one is taken.

    Raises:
        ValueError: if the recipe is unknown or was not trained here, or the run has no whole checkpoint.
    """
    if (run := recipes.run_of(source)) is not None:
        if (found := newest_whole(run, to_train=False)) is None:
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
    """The newest whole checkpoint of the newest run of a recipe that has one; the recipe must exist."""
    written = {
        run: max(path.stat().st_mtime for path in files)
        for run in Path("runs", recipes.name_of(recipes.find(recipe))).glob("*/")
        if (files := _files_in(run))
    }
    newest_first = sorted(written, key=written.__getitem__, reverse=True)
    whole = (newest_whole(run, to_train=False) for run in newest_first)
    return next((path for path in whole if path is not None), None)


def run_of_checkpoint(path: Path) -> Path:
    """The folder of the run that a checkpoint is in."""
    return path.parents[1] if path.parent.name == "checkpoints" else path.parent


def recipe_of(checkpoint: Path) -> str:
    """The recipe of the run of a checkpoint, which the run itself says, or else its folder; "" where neither does."""
    run = run_of_checkpoint(checkpoint)
    return read_json(run / FACTS).get("recipe") or recipes.recipe_of(run)


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
    checkpoint = AtomicCheckpointIO().load_checkpoint(path, map_location="cpu")
    if not checkpoint.get("module") or "data" not in checkpoint:
        raise ValueError(f"{path} does not say which module and data it belongs to: expected a checkpoint of `zoo fit`")
    data = checkpoint["data"]
    if needs is not None and needs not in data:
        raise ValueError(
            f"{path} holds a {checkpoint['module']} and does not record the data's {needs}: expected the checkpoint of "
            "a system that is trained on such data; see `zoo list`"
        )
    kind = system_of(checkpoint, path)
    # The weights that a classifier was started from, perhaps by a download, are replaced by those of the checkpoint.
    pretrained = issubclass(kind, Classifier) and "weights" in checkpoint.get("hyper_parameters", ())
    options: dict[str, Any] = {"weights": None} if pretrained else {}
    source = _InMemory(checkpoint, path) if is_ready(path) else path
    try:
        module = kind.load_from_checkpoint(source, map_location="cpu", weights_only=True, **options).eval()
    except (AttributeError, KeyError, TypeError, ValueError) as error:  # for arguments that the class does not take
        if str(path) in str(error):
            raise
        reason = " ".join(str(error).split())[:300]
        raise ValueError(f"{path} does not fit {kind.__name__}: {reason}; take another file") from error
    check_fit(module, data, path)
    return module, data


class _InMemory(io.BytesIO):
    """A checkpoint as a file in memory, which messages name by the file that it is from."""

    def __init__(self, checkpoint: dict[str, Any], path: Path) -> None:
        super().__init__()
        torch.save(checkpoint, self)
        self.seek(0)
        self.path = path

    def __str__(self) -> str:
        return str(self.path)
