"""The metrics of a run, as its `metrics.csv` has them: curves of the training, and results of later evaluations."""

import csv
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path


@dataclass
class Metrics:
    """What a run has logged.

    Attributes:
        history: metric -> {epoch, counted from 1: value}, of metrics that have no more than one value in an epoch.
        steps: metric -> {optimizer step: value}, of all that were logged in the training.
        results: metric -> value, of the last evaluation after the training.
        epochs: how many the training has begun.
    """

    history: dict[str, dict[int, float]] = field(default_factory=dict)
    steps: dict[str, dict[int, float]] = field(default_factory=dict)
    results: dict[str, float] = field(default_factory=dict)
    epochs: int = 0

    @property
    def names(self) -> set[str]:
        """All metrics."""
        return {*self.steps, *self.results}

    def last(self, name: str) -> float | None:
        """The last value of a metric: after the training, else of the training; None if there is none."""
        if name.startswith("test/") and name in self.results:
            return self.results[name]
        values = self.steps.get(name)
        return values[max(values)] if values else self.results.get(name)


def read_metrics(path: Path) -> Metrics:
    """Reads `metrics.csv`; a run without one has no metrics.

    A training writes its steps in rising order. What begins again at a smaller step is an evaluation in a process of
    its own, and so is a row of nothing but test metrics: in a training these are only watched, beside those of
    validation.

    Raises:
        ValueError: if the file is not such a table.
    """
    rows: list[tuple[int, int, dict[str, float]]] = []
    found, highest, epoch = Metrics(), 0, 0
    if not path.is_file():
        return found
    try:
        with open(path, newline="", encoding="utf-8") as file:
            for row in csv.DictReader(file):
                step = int(float(row.pop("step", "") or highest))
                epoch = int(float(row.pop("epoch", "") or epoch))
                values = {name: float(value) for name, value in row.items() if value}
                if step < highest or (values and all(name.startswith("test/") for name in values)):
                    found.results |= values
                    continue
                highest = step
                rows.append((epoch + 1, step, values))
    except (ValueError, TypeError, AttributeError, UnicodeDecodeError, csv.Error) as error:
        raise ValueError(
            f"{path} is no table of metrics ({error}): expected the file that Lightning's CSVLogger writes"
        ) from None
    found.epochs = max((epoch for epoch, _, _ in rows), default=0)
    logged = {name for _, _, values in rows for name in values}
    places: dict[str, list[tuple[int, int, float]]] = {}
    for epoch, step, values in rows:
        for name, value in values.items():
            base = name.removesuffix("_epoch")  # of what is logged both in each step and in each epoch
            places.setdefault(base if f"{base}_step" in logged else name, []).append((epoch, step, value))
    for name, points in places.items():
        found.steps[name] = {step: value for _, step, value in points}
        if all(a[0] != b[0] or a[1] == b[1] for a, b in pairwise(points)):  # the same step may be written twice
            found.history[name] = {epoch: value for epoch, _, value in points}
    return found
