"""The error of a classifier on corrupted test images. B batch, K classes."""

from typing import Any

import numpy as np
import torch
from lightning import LightningModule, Trainer
from matplotlib.figure import Figure

from callbacks.figures.callback import FigureCallback, untouched
from callbacks.figures.style import BLUE, GRAY, add_axes, heading
from datamodules.io import atomic_write

CHUNK = 100  # images that are corrupted together: a fixed number, so that the batch size does not matter
HEAD, ROW, NAME, CELL, GAP = 0.66, 0.26, 1.5, 0.62, 0.1  # inches


class CorruptionError(FigureCallback):
    """Measures the error on corrupted images of the test set, after the test itself: of each kind, and their mean.

    The mean corruption error of Hendrycks and Dietterich 2019, section 4.1, without their division by the errors of
    another net: the mean over kinds and severities of the share of images that are classified wrongly. It is logged as
    `test/corruption_error`, that of each kind as `test/corruption_error_KIND`. The datamodule makes the images when
    they are needed, the same ones in each run.

    Writes `corruption_error.csv` and `pictures/corruption_error.png`, a row for each kind and a column for each
    severity.

    Args:
        severities: 1 to 5.
        kinds: names of corruptions, see the datamodule's `corruptions`; by default all of them.
        limit: only so many images, at equal distances in the test set; by default all, or as many as the Trainer's
            `limit_test_batches` allows.

    Raises:
        ValueError: if an argument is out of range, or the datamodule cannot corrupt its images or has no classes.
    """

    def __init__(
        self, severities: tuple[int, ...] = (1, 2, 3, 4, 5), kinds: list[str] | None = None, limit: int | None = None
    ) -> None:
        if not severities or kinds == [] or (limit is not None and limit < 1):
            raise ValueError(
                f"severities are {list(severities)}, kinds {kinds} and limit {limit}: expected one or more of each; "
                "leave out what is to be as by default"
            )
        self.severities, self.kinds, self.limit = tuple(severities), kinds, limit

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        super().setup(trainer, pl_module, stage)
        data: Any = getattr(trainer, "datamodule", None)
        known: tuple[str, ...] = getattr(data, "corruptions", ())
        batch = data.samples_of("test", [0]) if known and "test" in data.datasets else None
        if getattr(batch, "_fields", ()) != ("image", "label"):
            raise ValueError(
                f"the test batches of {type(data).__name__} are {type(batch).__name__}: expected images with their "
                "classes, from a datamodule that can corrupt them; leave out CorruptionError"
            )
        if unknown := set(self.kinds or ()) - set(known):
            raise ValueError(f"{min(unknown)!r} is no kind of corruption: expected one of {', '.join(known)}")
        if outside := set(self.severities) - {1, 2, 3, 4, 5}:
            raise ValueError(f"{min(outside)} is no severity of a corruption: expected 1 to 5")

    def on_test_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        kinds = tuple(self.kinds or trainer.datamodule.corruptions)  # type: ignore[attr-defined]
        with untouched(pl_module), torch.no_grad(), trainer.precision_plugin.forward_context():
            pl_module.eval()
            errors = self._errors(trainer, pl_module, kinds)
        pl_module.log("test/corruption_error", float(errors.mean()), sync_dist=True)
        for kind, of_kind in zip(kinds, errors, strict=True):
            pl_module.log(f"test/corruption_error_{kind}", float(of_kind.mean()), sync_dist=True)
        if trainer.is_global_zero:
            self._write(trainer, kinds, errors)

    def _errors(self, trainer: Trainer, pl_module: LightningModule, kinds: tuple[str, ...]) -> torch.Tensor:
        """The share of wrong predictions (kinds, severities); each of several processes takes a part of the images."""
        data: Any = trainer.datamodule  # type: ignore[attr-defined]
        size = len(data.datasets["test"])
        tested = int(sum(trainer.num_test_batches)) * data.eval_batch_size * trainer.world_size  # all, or a trial's few
        count = min(size, tested, self.limit or size)
        indices = [i * size // count for i in range(count)]
        wrong = torch.zeros(len(kinds), len(self.severities), device=pl_module.device)
        for start in range(trainer.global_rank * CHUNK, count, trainer.world_size * CHUNK):
            batch = data.samples_of("test", indices[start : start + CHUNK])
            for i, kind in enumerate(kinds):
                for j, severity in enumerate(self.severities):
                    # As a batch of the test: moved to the device, and normalized.
                    corrupted = trainer.strategy.batch_to_device(data.corrupted(batch, kind, severity, seed=start))
                    wrong[i, j] += (pl_module(corrupted.image).argmax(1) != corrupted.label).sum()
        return trainer.strategy.reduce(wrong, reduce_op="sum").cpu() / count

    def _write(self, trainer: Trainer, kinds: tuple[str, ...], errors: torch.Tensor) -> None:
        columns = ["kind", *(f"severity {severity}" for severity in self.severities), "mean"]
        rows = [[kind, *values.tolist(), float(values.mean())] for kind, values in zip(kinds, errors, strict=True)]
        rows.append(["mean", *errors.mean(0).tolist(), float(errors.mean())])
        with atomic_write(self.folder.parent / "corruption_error.csv") as path:
            path.write_text("".join(",".join(_text(cell, "{:.4f}") for cell in row) + "\n" for row in [columns, *rows]))
        self.publish(trainer, "corruption_error", draw(columns, rows), (columns, rows))


def _text(cell: str | float, form: str) -> str:
    return cell if isinstance(cell, str) else form.format(cell)


def draw(columns: list[str], rows: list[list]) -> Figure:
    """A table of errors in per cent, the higher the darker; the last column and the last row are means."""
    values = np.array([row[1:] for row in rows])
    width, height = NAME + CELL * values.shape[1] + GAP, HEAD + ROW * (len(rows) + 1) + GAP
    figure = Figure((max(width, 4.0), height), facecolor="white")
    heading(figure, f"Mean corruption error {100 * rows[-1][-1]:.1f} %", "wrong predictions in %, by kind and severity")
    axes = add_axes(figure, NAME, GAP, CELL * values.shape[1], ROW * len(rows))
    axes.imshow(values, cmap="Blues", vmin=0, vmax=1, aspect="auto")
    axes.set_axis_off()
    last = len(rows) - 1, values.shape[1] - 1
    for i, row in enumerate(rows):
        weight = "bold" if i == last[0] else "normal"
        axes.text(-0.6, i, row[0].replace("_", " "), ha="right", va="center", size=9, weight=weight)
        for j, value in enumerate(row[1:]):
            axes.text(
                j, i, f"{100 * value:.1f}", ha="center", va="center", size=9,
                color="white" if value > 0.6 else "black", weight="bold" if j == last[1] else weight,
            )  # fmt: skip
    for j, name in enumerate(columns[1:]):
        color = BLUE if j == last[1] else GRAY
        axes.text(j, -0.85, name.removeprefix("severity "), ha="center", va="center", size=9, color=color)
    return figure
