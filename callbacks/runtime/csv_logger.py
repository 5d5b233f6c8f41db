"""A CSV log that keeps what is in it: a run that is resumed, tested or requeued goes on in the same file."""

import csv
from typing import Any

from lightning import Callback, LightningModule, Trainer
from lightning.fabric.loggers.logger import rank_zero_experiment
from lightning.pytorch.loggers import CSVLogger
from lightning.pytorch.loggers.csv_logs import ExperimentWriter

from datamodules.io import atomic_write


class KeepingWriter(ExperimentWriter):
    """Lightning's writer, which removes a file that exists; this one appends to it."""

    def _check_log_dir_exists(self) -> None:
        self.metrics_keys = list(self.rows()[0]) if self.rows() else []

    def rows(self) -> list[dict[str, str]]:
        """What is in the file."""
        if not self._fs.isfile(self.metrics_file_path):
            return []
        with self._fs.open(self.metrics_file_path, "r", newline="") as file:
            return list(csv.DictReader(file))

    def drop_from(self, step: int) -> None:
        """Removes the rows of a training from `step` on, which a training resumed there writes again."""
        kept, rows = [], self.rows()
        for row in rows:
            if not row.get("step") or int(float(row["step"])) < step:
                kept.append(row)
        if len(kept) < len(rows):
            with atomic_write(self.metrics_file_path) as temporary, open(temporary, "w", newline="") as file:
                writer = csv.DictWriter(file, self.metrics_keys)
                writer.writeheader()
                writer.writerows(kept)


class KeepingCSVLogger(CSVLogger):
    """Lightning's `CSVLogger`, but that it appends to a file that exists, and writes whenever a checkpoint is saved."""

    @property
    @rank_zero_experiment
    def experiment(self) -> Any:
        if self._experiment is None:
            self._fs.makedirs(self.root_dir, exist_ok=True)
            self._experiment = KeepingWriter(log_dir=self.log_dir)
        return self._experiment

    def after_save_checkpoint(self, checkpoint_callback: Any) -> None:
        self.save()


class ContinueMetrics(Callback):
    """Removes the rows that a resumed training writes again from its `KeepingCSVLogger`s."""

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        for logger in trainer.loggers:
            if isinstance(logger, KeepingCSVLogger) and trainer.global_step and trainer.is_global_zero:
                logger.experiment.drop_from(trainer.global_step)
