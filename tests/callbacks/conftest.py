"""Fixtures of the tests of callbacks: a Trainer with a folder of its own, and figures that can be looked into."""

import itertools
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest
from lightning import Callback, Trainer
from matplotlib.axis import Tick, XTick
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.text import Text

from callbacks.figures.callback import FigureCallback, Table
from helpers import quiet_trainer


@pytest.fixture
def trainer(tmp_path: Path) -> Callable[..., Trainer]:
    def build(*callbacks: Callback, **options) -> Trainer:
        return quiet_trainer(callbacks=list(callbacks), default_root_dir=tmp_path, **({"max_epochs": 1} | options))

    return build


class Published(NamedTuple):
    name: str
    figure: Figure
    table: Table | None


@pytest.fixture
def published(monkeypatch: pytest.MonkeyPatch) -> list[Published]:
    """The figures that were published, in order."""
    found, publish = [], FigureCallback.publish

    def recording(self, trainer, name, figure, table=None):
        found.append(Published(name, figure, table))
        return publish(self, trainer, name, figure, table)

    monkeypatch.setattr(FigureCallback, "publish", recording)
    return found


def _drawn_texts(figure: Figure) -> list[Text]:
    """All texts that are drawn: without the ticks that matplotlib keeps beyond the limits."""
    beyond = set()
    for tick in figure.findobj(Tick):
        low, high = tick.axes.get_xlim() if isinstance(tick, XTick) else tick.axes.get_ylim()
        if not low <= tick.get_loc() <= high:
            beyond |= {tick.label1, tick.label2}
    return [t for t in figure.findobj(Text) if t.get_visible() and t.get_text().strip() and t not in beyond]


@pytest.fixture
def texts_of() -> Callable[[Figure], list[str]]:
    """A function that returns all that is written in a figure."""
    return lambda figure: [text.get_text() for text in _drawn_texts(figure)]


@pytest.fixture
def assert_legible() -> Callable[[Figure], None]:
    """A function that checks that no text of a figure runs into another or over the edge."""

    def check(figure: Figure) -> None:
        FigureCanvasAgg(figure).draw()
        boxes = [(text.get_text(), Text.get_window_extent(text)) for text in _drawn_texts(figure)]  # without arrows
        for text, box in boxes:
            assert min(box.x0, box.y0) >= 0, text
            assert (box.p1 <= figure.bbox.p1).all(), text
        for (text, box), (other, other_box) in itertools.combinations(boxes, 2):
            wide = min(box.x1, other_box.x1) - max(box.x0, other_box.x0)
            high = min(box.y1, other_box.y1) - max(box.y0, other_box.y0)
            assert wide <= 1 or high <= 1, f"{text!r} runs into {other!r}"

    return check
