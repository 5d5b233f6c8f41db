"""What galleries keep beside their figure: further choices of items, and files of items that `zoo report` reads."""

import base64
import io
import json
from collections import defaultdict
from collections.abc import Callable, Iterable
from itertools import count
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from lightning import Trainer
from PIL import Image
from torch import Tensor

from callbacks.figures.style import to_uint8
from datamodules.io import atomic_write

FOLDER = "items"  # in the run folder
SHARP = 64  # pixels: images up to this side are kept exactly, larger ones compressed
LARGEST = 256  # pixels of the longer side of images that are kept, if the gallery asks for no other


class Entry(NamedTuple):
    """An item of an evaluation and its rank.

    item: what the gallery shows; what that is belongs to the gallery.
    rank_key: the larger, the worse, such as a loss.
    index: place in the evaluated data set.
    wrong: whether it counts as a mistake.
    group: which group it is in, such as the true class; order "spread" takes the groups in turn.
    """

    item: Any
    rank_key: float
    index: int  # type: ignore[assignment]  # a tuple's method of that name is not needed here
    wrong: bool = False
    group: Any = None


class Choice:
    """Up to `n` of the entries that it is offered, the first ones in an order; what is held is on the CPU.

    What is not among the first of a part is not among the first of all, so it can be offered part by part.

    Args:
        n: how many entries are chosen.
        order: "worst" (highest rank key first), "best" (lowest first), "first" (in the order of the data), or "spread"
            and "spread first", which take the groups in turn, in each of them the worst or the first.
        wanted: which entries count; default all.
    """

    def __init__(self, n: int, order: str, wanted: Callable[[Entry], bool] | None = None) -> None:
        self.n, self.order, self.wanted = n, order, wanted
        self.held: list[Entry] = []

    def best(self, entries: Iterable[Entry]) -> list[Entry]:
        """The first `n` of some entries."""
        sign = {"worst": -1, "spread": -1, "best": 1}.get(self.order, 0)
        ranked = sorted(entries, key=lambda e: (sign * e.rank_key, e.index))
        if self.order.startswith("spread"):
            turn: defaultdict[Any, count] = defaultdict(count)
            ranked.sort(key=lambda e: next(turn[e.group]))
        return ranked[: self.n]

    def offer(self, entries: Iterable[Entry], first: int) -> None:
        """Takes entries into account; those with an index from `first` on may share memory with a batch."""
        new = [entry for entry in entries if self.wanted is None or self.wanted(entry)]
        self.held = [own_memory(e) if e.index >= first else e for e in self.best([*self.held, *new])]


def own_memory(entry: Entry) -> Entry:
    """The entry with copies of its item's tensors on the CPU: views would keep the complete batch alive."""

    def copied(value: Any) -> Any:
        return value.detach().to("cpu", copy=True) if isinstance(value, Tensor) else value

    item: Any = entry.item
    if hasattr(item, "_asdict"):  # a NamedTuple
        return entry._replace(item=item._replace(**{name: copied(value) for name, value in item._asdict().items()}))
    return entry._replace(item=copied(item))


def full_names(trainer: Trainer) -> Callable[[int], str]:
    """Label -> the datamodule's name of that class, of any length; without names, the number."""
    classes = getattr(getattr(trainer, "datamodule", None), "classes", None)
    return lambda label: str(classes[label]) if classes is not None else str(label)


def file_name(trainer: Trainer, split: str, index: int) -> dict[str, str]:
    """The name of the file of an item, where the datamodule knows `file_names` (split -> a name for each item)."""
    names = getattr(getattr(trainer, "datamodule", None), "file_names", {}).get(split)
    return {"name": names[index]} if names else {}


def data_uri(image: np.ndarray, largest: int = LARGEST) -> str:
    """An image (H, W, 3) in 0..1 as text that a web page can show, at most `largest` pixels high and wide."""
    picture, memory = Image.fromarray(to_uint8(image)), io.BytesIO()
    if max(picture.size) <= SHARP:
        picture.save(memory, "PNG", optimize=True)
        kind = "png"
    else:
        picture.thumbnail((largest, largest), Image.Resampling.BOX)
        picture.save(memory, "WEBP", quality=85, method=4)
        kind = "webp"
    return f"data:image/{kind};base64,{base64.b64encode(memory.getvalue()).decode()}"


def write_items(run: Path, name: str, kind: str, items: list[dict[str, Any]], **about: Any) -> None:
    """Writes `items/<name>.json` into a run folder, for `zoo report`: what the items are, what they tell, the items.

    Args:
        run: folder of the run.
        name: of the gallery's figure.
        kind: what the items are, such as "classified"; a page finds its template by it.
        items: one mapping each, with images as `data_uri`.
        about: further facts on the gallery, such as its split.
    """
    with atomic_write(run / FOLDER / f"{name}.json") as temporary:
        temporary.write_text(json.dumps({"kind": kind, **about, "items": items}), encoding="utf-8")
