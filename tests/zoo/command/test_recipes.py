"""Every recipe parses, builds, trains and tests through the real command, on small data in the real formats."""

import importlib
import inspect
import json
import shutil
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch

from callbacks.figures.callback import FigureCallback
from cases import case_of
from zoo.classification.base import Classifier
from zoo.command import recipes
from zoo.command.lightning_cli import ZooCLI

SMOKE = recipes.ROOT / "_smoke.yaml"
NAMES = recipes.names()
ONE_STEP = ["--trainer.limit_train_batches", "1", "--trainer.limit_val_batches", "0"]


@cache
def content_of(name: str) -> dict[str, Any]:
    return recipes.read(recipes.find(name))


def drawn_by(name: str) -> set[tuple[str, ...]]:
    """What decides how figures look: each callback together with the shelf of the system and the class of the data."""
    recipe = content_of(name)
    callbacks = [part["class_path"] for part in recipe["trainer"].get("callbacks", [])]
    return {(recipes.shelf(name), recipe["data"]["class_path"], callback) for callback in callbacks}


def classes_in(value: object) -> Iterator[str]:
    """The classes that a recipe names, at any depth."""
    if isinstance(value, dict):
        yield from filter(None, [value.get("class_path")])
        value = list(value.values())
    for part in value if isinstance(value, list) else []:
        yield from classes_in(part)


def parts_of(name: str) -> set[object]:
    """What a recipe is made of: its system with its data, and each class."""
    recipe = content_of(name)
    return {(recipe["model"]["class_path"], recipe["data"]["class_path"]), *classes_in(recipe)}


def few_with_all(parts: Callable[[str], set]) -> set[str]:
    """Recipes that together have every part that any recipe has."""
    has = {name: parts(name) for name in NAMES}
    left, chosen = set().union(*has.values()), set()
    while left:
        chosen.add(name := max(NAMES, key=lambda name: len(has[name] & left)))
        left -= has[name]
    return chosen


DRAWN = few_with_all(drawn_by)
WHOLE = few_with_all(parts_of) | DRAWN


def parameters(kind: type) -> set[str]:
    """The names of a class's arguments, with those that it passes on to its bases as `**options`."""
    names: set[str] = set()
    for base in kind.__mro__:
        own = inspect.signature(base.__init__).parameters.values()
        names |= {parameter.name for parameter in own}
        if not any(parameter.kind is parameter.VAR_KEYWORD for parameter in own):
            break
    return names


def kind_of(name: str, part: str) -> type:
    module, _, kind = content_of(name)[part]["class_path"].rpartition(".")
    return getattr(importlib.import_module(module), kind)


def options_for(name: str, folder: Path) -> list[str]:
    takes = parameters(kind_of(name, "data"))
    small = {
        "data_dir": folder,
        "train_size": 24,
        "test_size": 20,
        "val_size": 20,
        "batch_size": 8,
        "eval_batch_size": 8,
        "size": 64,
    }
    words = [word for key, value in small.items() if key in takes for word in (f"--data.{key}", str(value))]
    small = {"num_layers": 2, "grid": 16, "pool_size": 8, "eval_steps": "[4, 8]"}
    kind = kind_of(name, "model")
    if issubclass(kind, Classifier) and not content_of(name)["model"]["init_args"].get("weights"):
        small |= case_of(kind).options  # as narrow as in the contract suite
    given = content_of(name)["model"]["init_args"]
    small = {key: narrowed(given[key]) for key in ("widths", "blocks") if key in given} | small
    if "num_heads" in given:
        small = {"dim": 8 * given["num_heads"]} | small
    takes = parameters(kind)
    narrow = {key: value for key, value in small.items() if key in takes}
    return words + [word for key, value in narrow.items() for word in (f"--model.{key}", text_of(value))]


def narrowed(widths: object) -> object:
    """Widths, also in lists of lists, that are at most 16."""
    return [narrowed(one) for one in widths] if isinstance(widths, list) else min(widths, 16)


def text_of(value: object) -> str:
    """A value as an option."""
    return value if isinstance(value, str) else json.dumps(value)


def test_there_are_recipes_and_each_is_found_under_its_name():
    assert {"fashion_mnist/flagship", "mnist/under-8k", "digits/small", "cifar10/resnet18"} <= set(NAMES)
    assert all(recipes.name_of(recipes.find(name)) == name for name in NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_recipe_is_complete_and_short(name):
    text = recipes.find(name).read_text()
    content = content_of(name)
    expect = recipes.Expect(**content["expect"])
    assert text.startswith("# ")
    assert len(text.splitlines()) <= 42
    assert {"expect", "seed_everything", "model", "data", "trainer"} == content.keys()
    assert expect.source
    assert not (expect.cost == "cpu" and content["trainer"]["precision"] != "32-true"), "CPU recipes are 32-true"


@pytest.mark.parametrize("right", [1, 1234, 9337, 9399, 9400, 9990])
def test_a_target_is_met_by_as_many_right_answers_also_in_float32(right):
    """As metrics are: 9400 of 10 000 are less than 0.94 there."""
    value, least = torch.tensor(right / 10_000).item(), torch.tensor((right - 1) / 10_000).item()
    above, below = recipes.Expect("test/acc", at_least=right / 10_000), recipes.Expect("test/loss", at_most=right / 1e4)
    assert above.met(value)
    assert below.met(value)
    assert not above.met(least)
    assert below.met(least)


@pytest.mark.parametrize("name", NAMES)
def test_recipe_trains(name, fake_data, tmp_path, monkeypatch):
    """All take a step. Some train, validate and test: so many that each system does with each kind of data.

    Some draw their figures, too: so many that each callback is drawn for each shelf and each kind of data.
    """
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ZOO_DATA", str(fake_data))  # for what modules read, such as weights
    short = [] if name in WHOLE else ONE_STEP
    cli = ZooCLI(name, ["--config", str(SMOKE), *short, *options_for(name, fake_data)])
    if name not in DRAWN:
        cli.trainer.callbacks = [one for one in cli.trainer.callbacks if not isinstance(one, FigureCallback)]
    cli.trainer.fit(cli.model, cli.datamodule)
    assert (cli.folder / "checkpoints" / "last.ckpt").is_file()
    assert (cli.folder / "config.yaml").is_file()
    if name not in WHOLE:
        assert cli.trainer.global_step == 1
        return
    shutil.rmtree(cli.folder / "pictures", ignore_errors=True)
    tested = cli.trainer.test(cli.model, cli.datamodule, verbose=False)
    metric = recipes.expectation(name).metric
    assert not metric.startswith("test/") or metric in tested[0]
    unavailable = sum(bool(getattr(callback, "unavailable", None)) for callback in cli.trainer.callbacks)
    pictures = {path.stem for path in cli.folder.glob("pictures/*.png")}
    galleries = sum("Gallery" in type(callback).__name__ for callback in cli.trainer.callbacks)
    assert len(pictures) + unavailable >= galleries
