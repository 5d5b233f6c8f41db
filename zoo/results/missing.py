"""What the ledger lacks: seeds of recipes without a row, those first that are most wanted. Does not import torch."""

import time
from typing import NamedTuple

from zoo.command import recipes
from zoo.results import ledger


class Run(NamedTuple):
    """A seed of a recipe that has no row; `minutes` is what the recipe says that it takes, 0 if it says nothing."""

    recipe: str
    seed: int
    minutes: float


def missing_runs(cost: str) -> list[Run]:
    """The runs that the ledger lacks.

    The first seed of every recipe comes before the second of any. Among equal seeds the recipes that say they are
    `wanted` come first, in that order, then the others, by their names.

    Args:
        cost: of which recipes, "cpu" or "gpu".
    """
    found = []
    for name in recipes.names():
        if "expect" not in recipes.read(recipes.find(name)):
            continue
        expect = recipes.expectation(name)
        if expect.cost == cost:
            done = {int(row["seed"]) for row in ledger.latest(name)}
            place = float("inf") if expect.wanted is None else expect.wanted
            found += [
                (seed, place, Run(name, seed, expect.minutes)) for seed in range(expect.seeds) if seed not in done
            ]
    return [run for *_, run in sorted(found)]


class Clock:
    """How much of a time limit is left, and how long runs take on this machine against what their recipes say.

    Args:
        minutes: the limit; None for no limit.
    """

    def __init__(self, minutes: float | None = None) -> None:
        self.end = None if minutes is None else time.monotonic() + 60 * minutes
        self.said = self.took = 0.0

    @property
    def left(self) -> float:
        """Minutes."""
        return float("inf") if self.end is None else (self.end - time.monotonic()) / 60

    @property
    def slowness(self) -> float:
        """Factor by which this machine is slower than the recipes say; at least 1."""
        return max(1.0, self.took / self.said) if self.said else 1.0

    def fits(self, run: Run) -> bool:
        """Whether a run ends in the time left. One whose recipe says no time fits only where there is no limit."""
        return self.end is None or 0 < run.minutes * self.slowness <= self.left

    def record(self, run: Run, minutes: float) -> None:
        """Takes note of how long a run took."""
        if run.minutes:
            self.said, self.took = self.said + run.minutes, self.took + minutes
