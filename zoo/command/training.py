"""What the verbs share that run a Trainer on a recipe: `fit`, `validate` and `test`."""

import sys
from pathlib import Path
from typing import Any, NamedTuple, Self

from lightning import Trainer

from zoo.command import recipes
from zoo.command.checkpoints import check_exists, newest_checkpoint, newest_whole, run_of_checkpoint, without_tensors
from zoo.command.lightning_cli import ZooCLI
from zoo.command.run_folder import is_restarted, note_command, note_end, release
from zoo.report.page import NAME
from zoo.report.recorder import attach
from zoo.report.summary import summarize, try_report


def run_trainer(verb: str, recipe: str, options: list[str]) -> int:
    """Runs `trainer.fit`, `trainer.validate` or `trainer.test` on a recipe or a run; returns the exit status.

    At the end it writes the page on the run, `report.html`, and tells in a few lines what came out.

    Args:
        verb: "fit", "validate" or "test".
        recipe: name or file; or the folder of a run, in which then `fit` goes on and the others evaluate and draw.
        options: override what recipe or run say. Without `--ckpt_path`, `validate` and `test` take the newest
            checkpoint, of a recipe with the settings of its newest run, and `fit` takes that of the run; a job that was
            requeued goes on as well.
    """
    run, checkpoint = recipes.run_of(recipe), None
    words = [word.partition("=")[0] for word in options]
    if verb != "fit" and not any(word in ("--ckpt_path", "-h") or word.endswith("help") for word in words):
        checkpoint = newest_checkpoint(recipe)
        if run is None and (run := recipes.run_of(str(run_of_checkpoint(checkpoint)))) is not None:
            print(f"{recipe} as in its newest run, {run}", file=sys.stderr)
    cli = ZooCLI(recipe if run is None else str(run), options, folder=run)
    try:
        if checkpoint is None and (run is None or "--ckpt_path" in words):  # that in a run's config is where it began
            checkpoint = cli.config_init.ckpt_path
        if checkpoint is None and verb == "fit":
            checkpoint = to_go_on_from(cli.folder, resume=run is not None, command=cli.command)
        if checkpoint is not None:
            check_exists(checkpoint)
            print(f"checkpoint {checkpoint}", file=sys.stderr)
        print(f"run folder {cli.folder}", file=sys.stderr)
        if run is not None and options:
            print(f"instead of what the run says: {' '.join(options)}", file=sys.stderr)
        progress = None if checkpoint is None else Progress.of(checkpoint)
        if verb != "fit":
            if progress is not None:
                progress.enter(cli.trainer)
        elif progress is not None and progress.is_complete(cli.trainer):
            tell_complete(cli, progress)
            return 0
        else:
            note_command(cli.folder, cli.command)
            attach(cli)
        quiet = {} if verb == "fit" else {"verbose": False}  # Lightning's table says the same as the summary
        options_of_run: dict[str, Any] = {"datamodule": cli.datamodule, "ckpt_path": checkpoint, "weights_only": True}
        getattr(cli.trainer, verb)(cli.model, **options_of_run, **quiet)
        if verb == "fit" and cli.trainer.is_global_zero:
            for path in cli.folder.glob("hpc_ckpt_*.ckpt"):  # or a later job in this folder would start from it
                path.unlink()
            note_end(cli.folder)
        summarize(cli, verb)
    finally:
        release(cli.folder)  # where nothing came of it
    return 0


class Progress(NamedTuple):
    """How far the training of a checkpoint had come.

    Args:
        epoch: that it was in, counted from 0.
        epochs, steps: that it had completed.
    """

    epoch: int
    epochs: int
    steps: int

    @classmethod
    def of(cls, path: str | Path) -> Self | None:
        """That of a checkpoint file; None if it does not say it."""
        saved = without_tensors(path)
        try:
            loop = saved["loops"]["fit_loop"]
            begun, done = (loop["epoch_progress"]["current"][name] for name in ("ready", "processed"))
            is_at_end = loop["epoch_loop.batch_progress"]["is_last_batch"]
            return cls(saved["epoch"], begun if is_at_end else done, saved["global_step"])
        except Exception:  # of any kind: what is wrong with the file, the Trainer says when it reads it
            return None

    def is_complete(self, trainer: Trainer) -> bool:
        """Whether a Trainer would have nothing left to train."""
        return any(
            0 < of <= done for done, of in ((self.epochs, trainer.max_epochs or 0), (self.steps, trainer.max_steps))
        )

    def enter(self, trainer: Trainer) -> None:
        """Has a Trainer log what it evaluates under the epoch and step of the checkpoint, as its training did."""
        trainer.fit_loop.epoch_progress.current.completed = self.epoch
        trainer.fit_loop.epoch_loop._batches_that_stepped = max(0, self.steps - 1)


def tell_complete(cli: ZooCLI, progress: Progress) -> None:
    """Says that nothing is left to train, and leaves the run as it is, but that it now has come to its end."""
    if not cli.trainer.is_global_zero:
        return
    if (cli.folder / "config.yaml").exists():
        note_end(cli.folder)
        if not (cli.folder / NAME).exists():  # as after a kill in between
            try_report(cli.folder)
    more = f"--trainer.max_epochs {2 * progress.epochs}"
    if progress.steps == cli.trainer.max_steps:
        more = f"--trainer.max_steps {2 * progress.steps}"
    print(
        f"the training is complete after {progress.epochs} epochs, {progress.steps} steps, and nothing was changed; to "
        f"go on, add {more}, say"
    )


def to_go_on_from(folder: Path, resume: bool, command: list[str]) -> Path | None:
    """The checkpoint in a run folder from which a training starts; None if it starts anew.

    Args:
        folder: of the run.
        resume: whether the user asked to go on; the cluster does by starting the same command again.
        command: that the run is known by.

    Raises:
        ValueError: if the folder holds another run, which this one would overwrite.
    """
    found = newest_whole(folder)
    if found is None or resume or is_restarted(folder, command):
        return found
    raise ValueError(
        f"{folder} holds the run of {found.relative_to(folder)}: expected a folder without a run, as nothing is "
        f"overwritten; go on in it by `zoo fit --resume {folder}`, or choose another --trainer.default_root_dir"
    )
