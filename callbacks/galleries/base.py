"""The base of all galleries: collects the items of an evaluation that are to be shown, over all processes."""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from itertools import chain, count
from typing import Any

import torch
from lightning import LightningModule, Trainer

from callbacks.figures.callback import FigureCallback
from callbacks.galleries.items import Choice, Entry, own_memory, write_items

SPLIT_NAMES = {"val": "validation"}  # in titles; other splits are called by their own name


class Gallery(FigureCallback, ABC):
    """Collects up to `n` items of an evaluation and draws them at its end.

    That is after `test` and `validate`, and at the end of `fit` those of the last validation, of its first loader if
    it has several. A subclass turns the outputs of a step into entries (`entries`) and draws the chosen ones (`draw`).
    Never more than `n` are held, on the CPU; rank zero draws the first `n` of all ranks. Beside them a gallery may hold
    `choices` of other entries, which it does not draw but writes down for `zoo report` (`record`).

    Args:
        n: items to draw.
        order: "worst" (mistakes, highest rank key first), "spread" (the worst mistake of each group, then the second
            worst of each, and so on) or "first" (right or wrong, in the order of the data).
        every_n_epochs: draw during `fit` too, after validation; 0 for only at its end.

    Attributes:
        shown: the `Entry`s drawn, in order.
        seen, mistakes: items evaluated, and how many of them were wrong.
        choices: by name; after `gather` each holds the chosen entries of all ranks.

    Raises:
        ValueError: for an n below 1, an unknown order, or steps that do not return what the gallery reads.
    """

    orders: tuple[str, ...] = ("worst", "spread", "first")
    shown: list[Entry]
    choices: dict[str, Choice]
    seen: int
    mistakes: int
    _held: list[Entry]
    _open: bool  # whether entries are still collected
    _due: bool  # whether there is anything to draw

    def __init__(self, n: int = 10, order: str = "worst", every_n_epochs: int = 0) -> None:
        if n < 1 or order not in self.orders:
            raise ValueError(f"n is {n} and order {order!r}: expected 1 or more, and one of {', '.join(self.orders)}")
        self.n, self.order, self.every_n_epochs = n, order, every_n_epochs
        self.choices = self.further_choices()
        self._start("val")

    def further_choices(self) -> dict[str, Choice]:
        """What else is held, by name; nothing, if a subclass does not say."""
        return {}

    @abstractmethod
    def entries(self, outputs: Any, batch: Any, indices: Iterator[int]) -> list[Entry]:
        """The entries of a batch, each with the next of `indices`. They may share memory with the batch."""

    @abstractmethod
    def draw(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Draws `self.shown`; called on rank zero only."""

    @property
    def split_name(self) -> str:
        return SPLIT_NAMES.get(self.split, self.split)

    def output(self, outputs: Any, name: str, what: str) -> Any:
        """`outputs[name]`, what a step returned under that name.

        Raises:
            ValueError: if there is no such output; `what` says what was expected.
        """
        if not isinstance(outputs, dict) or name not in outputs:
            raise ValueError(
                f"{type(self).__name__} found no {name} in what the {self.split} step returns: "
                f'expected a dict with "{name}", {what}, next to "loss"; return that'
            )
        return outputs[name]

    def gather(self, trainer: Trainer) -> None:
        """Fills `shown` from all ranks; all of them must call it. Another call does nothing."""
        if not self._open:
            return
        parts = [(self._held, self.seen, self.mistakes, {name: choice.held for name, choice in self.choices.items()})]
        if trainer.world_size > 1:
            parts *= trainer.world_size
            torch.distributed.all_gather_object(parts, parts[0])
        held, seen, mistakes, chosen = zip(*parts, strict=True)
        self.shown, self.seen, self.mistakes = self._best(chain(*held)), sum(seen), sum(mistakes)
        for name, choice in self.choices.items():
            choice.held = choice.best(chain(*(part[name] for part in chosen)))
        self._held, self._open = [], False

    def record(self, name: str, kind: str, items: list[dict[str, Any]], **about: Any) -> None:
        """Writes items down for `zoo report`, with what the gallery knows of the evaluation; see `write_items`."""
        facts = {"split": self.split, "seen": self.seen, "mistakes": self.mistakes}
        write_items(self.folder.parent, name, kind, items, **facts, **about)

    def _start(self, split: str) -> None:
        self.split, self.seen, self.mistakes, self.shown = split, 0, 0, []
        self._held, self._open, self._due = [], True, False
        for choice in self.choices.values():
            choice.held = []

    def _best(self, entries: Iterable[Entry]) -> list[Entry]:
        """The first `n` in the chosen order. What is not among the best of a part is not among the best of all."""
        return Choice(self.n, self.order).best(entries)

    def _collect(self, trainer: Trainer, outputs: Any, batch: Any) -> None:
        first = self.seen * trainer.world_size
        entries = self.entries(outputs, batch, count(first + trainer.global_rank, trainer.world_size))
        if trainer.sanity_checking:
            return
        wrong = [entry for entry in entries if entry.wrong]
        new = entries if self.order == "first" else wrong
        self._held = [own_memory(e) if e.index >= first else e for e in self._best(self._held + new)]
        for choice in self.choices.values():
            choice.offer(entries, first)
        self.seen, self.mistakes, self._due = self.seen + len(entries), self.mistakes + len(wrong), True

    def _finish(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.gather(trainer)
        if trainer.is_global_zero and self._due:
            self.draw(trainer, pl_module)
        self._due = False

    def on_validation_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        loaders = trainer.val_dataloaders
        self._start(next(iter(loaders)) if isinstance(loaders, dict) else "val")

    def on_test_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._start("test")

    def on_validation_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        if dataloader_idx == 0:
            self._collect(trainer, outputs, batch)

    on_test_batch_end = on_validation_batch_end

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        fitting = trainer.state.fn == "fit"
        if not fitting or (self.every_n_epochs and (trainer.current_epoch + 1) % self.every_n_epochs == 0):
            self._finish(trainer, pl_module)

    on_test_end = on_train_end = _finish  # not on_fit_end: by then the strategy has been torn down
