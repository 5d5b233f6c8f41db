"""What the verbs share that run a Trainer on a recipe: `fit`, `validate` and `test`."""

import sys
from pathlib import Path

from zoo.command import recipes
from zoo.command.checkpoints import check_exists, newest_checkpoint, newest_whole
from zoo.command.lightning_cli import ZooCLI
from zoo.command.run_folder import is_restarted, note_command, note_end, release
from zoo.report.recorder import attach
from zoo.report.summary import summarize


def run_trainer(verb: str, recipe: str, options: list[str]) -> int:
    """Runs `trainer.fit`, `trainer.validate` or `trainer.test` on a recipe or a run; returns the exit status.

    At the end it writes the page on the run, `report.html`, and tells in three lines what came out.

    Args:
        verb: "fit", "validate" or "test".
        recipe: name or file; or the folder of a run, in which then `fit` goes on and the others evaluate and draw.
        options: override what recipe or run say. Without `--ckpt_path`, `validate` and `test` take the newest
            checkpoint, and `fit` that of the run; a job that was requeued goes on as well.
    """
    run = recipes.run_of(recipe)
    cli = ZooCLI(recipe, options, folder=run)
    try:
        checkpoint = cli.config_init.ckpt_path
        if checkpoint is None:
            checkpoint = (
                to_go_on_from(cli.folder, resume=run is not None) if verb == "fit" else newest_checkpoint(recipe)
            )
        if checkpoint is not None:
            check_exists(checkpoint)
            print(f"checkpoint {checkpoint}", file=sys.stderr)
        print(f"run folder {cli.folder}", file=sys.stderr)
        if run is not None and options:
            print(f"instead of what the run says: {' '.join(options)}", file=sys.stderr)
        if verb == "fit":
            note_command(cli.folder)
            attach(cli)
        getattr(cli.trainer, verb)(cli.model, datamodule=cli.datamodule, ckpt_path=checkpoint, weights_only=True)
        if verb == "fit" and cli.trainer.is_global_zero:
            for path in cli.folder.glob("hpc_ckpt_*.ckpt"):  # or a later job in this folder would start from it
                path.unlink()
            note_end(cli.folder)
        summarize(cli, verb)
    finally:
        release(cli.folder)  # where nothing came of it
    return 0


def to_go_on_from(folder: Path, resume: bool) -> Path | None:
    """The checkpoint in a run folder from which a training starts; None if it starts anew.

    Args:
        folder: of the run.
        resume: whether the user asked to go on; the cluster does by starting the same command again.

    Raises:
        ValueError: if the folder holds another run, which this one would overwrite.
    """
    found = newest_whole(folder)
    if found is None or resume or is_restarted(folder):
        return found
    raise ValueError(
        f"{folder} holds the run of {found.relative_to(folder)}: expected a folder without a run, as nothing is "
        f"overwritten; go on in it by `zoo fit --resume {folder}`, or choose another --trainer.default_root_dir"
    )
