"""Run folders as the command leaves them, made without a training; and pages that can be looked into."""

import csv
import json
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import yaml

from callbacks.figures.axis import loss_axis, percent_axis
from callbacks.galleries.items import data_uri

VOID = {"meta", "img", "br", "source", "link", "input", "hr"}
AXES = {"loss": loss_axis("cross-entropy in nats"), "acc": percent_axis("Accuracy")}
SMOOTH = np.linspace(0, 1, 8 * 8 * 3).reshape(8, 8, 3)
ROWS = [
    {"epoch": 0, "step": 9, "val/acc": 0.5, "val/loss": 1.25},
    {"epoch": 0, "step": 9, "train/acc": 0.4375, "train/loss": 1.5},
    {"epoch": 1, "step": 19, "val/acc": 0.8125, "val/loss": 0.625},
    {"epoch": 1, "step": 19, "train/acc": 0.75, "train/loss": 0.71875},
    {"epoch": 2, "step": 29, "val/acc": 0.75, "val/loss": 0.65625},
    {"epoch": 2, "step": 29, "train/acc": 0.90625, "train/loss": 0.3125},
]
CONFIG = {
    "seed_everything": 3,
    "trainer": {"max_epochs": 3, "callbacks": [{"class_path": "a.B", "init_args": {"n": 1}}]},
    "model": {"class_path": "zoo.x.Net", "init_args": {"width": 8}},
    "expect": {"metric": "test/acc", "at_least": 0.7},
}


def write_metrics(path: Path, rows: list[dict]) -> None:
    """Writes rows as Lightning's `CSVLogger` does."""
    names = sorted({name for row in rows for name in row} - {"epoch", "step"})
    with open(path, "w", newline="") as file:
        writer = csv.DictWriter(file, ["epoch", "step", *names])
        writer.writeheader()
        writer.writerows(rows)


def mistake(index: int, truth: str, prediction: str, loss: float, overlay: bool = False) -> dict:
    item = {"index": index, "image": data_uri(SMOOTH), "truth": truth, "prediction": prediction, "loss": loss}
    more = {"overlay": data_uri(SMOOTH), "evidence": True} if overlay else {}
    return item | more | {"confidence": 0.75, "right": truth == prediction}


def classified(*items: dict, split: str = "test", **about) -> dict:
    return {"kind": "classified", "split": split, "seen": 40, "mistakes": 2, **about, "items": list(items)}


def confusion(names: list[str], matrix: list[list[int]], split: str = "test") -> dict:
    rows = [{"class": name, "precision": 0.5, "recall": 0.25, "f1": 0.375, "count": 7} for name in names]
    return {"kind": "confusion", "split": split, "matrix": matrix, "classes": rows}


@pytest.fixture
def kit() -> SimpleNamespace:
    """What runs are made of."""
    return SimpleNamespace(
        rows=ROWS, config=CONFIG, write_metrics=write_metrics, mistake=mistake, classified=classified,
        confusion=confusion,
    )  # fmt: skip


@pytest.fixture
def make_run(tmp_path: Path) -> Callable[..., Path]:
    """A function that writes the folder of a run."""

    def make(name: str = "a/one", rows=ROWS, config=None, facts=None, items=None, command=None) -> Path:
        folder = tmp_path / "runs" / name / "20260101-000000"
        (folder / "items").mkdir(parents=True)
        (folder / "config.yaml").write_text(yaml.safe_dump(config or CONFIG))
        (folder / "command.json").write_text(json.dumps(command or ["fit", name, "--trainer.max_epochs", "3"]))
        if rows:
            write_metrics(folder / "metrics.csv", rows)
        if facts is not False:
            known = {"recipe": name, "title": "What it is.", "differs": [], "state": "finished", "seconds": 75.0}
            axes = {"axes": {metric: axis._asdict() for metric, axis in AXES.items()}}
            known |= {"tflop": 1.5, "parameters": 1234, "device": "a processor", **axes, **(facts or {})}
            (folder / "run.json").write_text(json.dumps(known))
        for key, content in (items or {}).items():
            (folder / "items" / f"{key}.json").write_text(json.dumps(content))
        return folder

    return make


class Page(HTMLParser):
    """A page, taken apart; its elements must be closed in order.

    Attributes:
        elements: (tag, attributes) of all elements.
        text: all that is written, in one line.
        ids: of all elements.
    """

    def __init__(self, html: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str]]] = []
        self.parts: list[str] = []
        self.open: list[str] = []
        self.feed(html)
        self.close()
        assert self.open == []
        self.text = " ".join(" ".join(self.parts).split())
        self.ids = [attributes["id"] for _, attributes in self.elements if "id" in attributes]

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, {name: value or "" for name, value in attrs}))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.elements.append((tag, {name: value or "" for name, value in attrs}))

    def handle_endtag(self, tag):
        assert self.open[-1:] == [tag], f"</{tag}> closes {self.open[-3:]}"
        self.open.pop()

    def handle_data(self, data):
        if self.open[-1:] not in (["script"], ["style"]):
            self.parts.append(data)

    def all(self, tag: str) -> list[dict[str, str]]:
        return [attributes for name, attributes in self.elements if name == tag]


@pytest.fixture
def taken_apart() -> Callable[[str], Page]:
    """A function that takes a page apart and checks what holds for every page."""

    def take(html: str) -> Page:
        page = Page(html)
        for tag, attributes in page.elements:
            for name in ("src", "href", "srcset", "xlink:href", "action", "data"):
                if name in attributes:
                    assert attributes[name].startswith(("#", "data:image/")), f"{tag} loads {attributes[name][:80]}"
            assert not [name for name in attributes if name.startswith("on")], f"{tag} runs a script"
            if tag == "img":
                assert attributes.get("alt"), "an image without a text in its place"
        assert len(page.ids) == len(set(page.ids)), "an id twice"
        links = {attributes["href"][1:] for attributes in page.all("a")}
        links |= {attributes["data-list"] for _, attributes in page.elements if "data-list" in attributes}
        assert links <= set(page.ids)
        assert len(page.all("script")) == 1
        assert "url(http" not in html
        assert "@import" not in html
        assert len(html.encode()) < 5_000_000
        return page

    return take
