"""Recipes: one YAML file each, found by their path below `experiments`. Nothing here imports torch."""

import difflib
import importlib.util
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import yaml

ROOT = Path(importlib.util.find_spec("experiments").origin).resolve().parent  # found without importing it
_Loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


@dataclass
class Expect:
    """What a recipe must reach.

    Args:
        metric: as logged, such as test/acc.
        at_least, at_most: the bound; one of the two.
        seeds: how many the figure is a mean of.
        over_last: mean over so many last epochs; 1 is the last epoch alone.
        cost: where the recipe is meant to run.
        source: whose figure it is, or what it is derived from.
        featured: show the recipe in the README's table.
        rung: its place on the ladder of its folder, counted from the bottom; see `zoo.command.ladder`.
        label: what is new on that rung, in a few words.
    """

    metric: str
    at_least: float | None = None
    at_most: float | None = None
    seeds: int = 1
    over_last: int = 1
    cost: Literal["cpu", "gpu"] = "cpu"
    source: str = ""
    featured: bool = False
    rung: int | None = None
    label: str = ""

    def __post_init__(self) -> None:
        if (self.at_least is None) == (self.at_most is None):
            raise ValueError("expect: give one of at_least and at_most")

    @property
    def target(self) -> float:
        return self.at_least if self.at_most is None else self.at_most

    def met(self, value: float) -> bool:
        return value >= self.at_least if self.at_most is None else value <= self.at_most

    def best(self, values: list[float]) -> float:
        return max(values) if self.at_most is None else min(values)

    def __str__(self) -> str:
        return f"{'>=' if self.at_most is None else '<='} {self.target:g}"


def names() -> list[str]:
    """All recipes, as `folder/name`."""
    return sorted(
        path.relative_to(ROOT).with_suffix("").as_posix() for path in ROOT.glob("*/*.yaml") if _is_recipe(path)
    )


def _is_recipe(path: Path) -> bool:
    """Whether it is a file `folder/name.yaml` in `experiments` that has a model; overlays begin with an underscore."""
    here = path.parent.parent == ROOT and path.name[0] != "_" and path.is_file()
    return here and "\nmodel:" in path.read_text()


def find(recipe: str) -> Path:
    """The file of a recipe given by name or by path.

    Raises:
        ValueError: if there is none; names the nearest.
    """
    if recipe.endswith((".yaml", ".yml")):
        if Path(recipe).is_file():
            return Path(recipe).resolve()
        raise ValueError(f"recipe file {recipe} does not exist: expected a YAML file or a name; see `zoo list`")
    if _is_recipe(path := ROOT / f"{recipe}.yaml"):
        return path
    known = names()
    # People remember the last part, or write under_8k for under-8k.
    plain = {name.replace("_", "-"): name for name in known}
    wanted = recipe.replace("_", "-")
    near = [name for key, name in plain.items() if key.endswith("/" + wanted)]
    near += [plain[key] for key in difflib.get_close_matches(wanted, plain, 3, cutoff=0.6)]
    hint = f"nearest: {', '.join(dict.fromkeys(near))}" if near else "see `zoo list`"
    raise ValueError(f"unknown recipe {recipe!r}: expected a name such as {known[0]} or a YAML file; {hint}")


def name_of(path: Path) -> str:
    """The name of a recipe file: its path below `experiments`, or its stem if it lies elsewhere."""
    path = path.resolve()
    return (path.relative_to(ROOT) if path.is_relative_to(ROOT) else Path(path.name)).with_suffix("").as_posix()


def expectation(recipe: str) -> Expect:
    """What a recipe, given by name or path, must reach.

    Raises:
        ValueError: if there is no such recipe, or it expects nothing.
    """
    path = find(recipe)
    content = read(path)
    if "expect" not in content:
        raise ValueError(f"{path} has no `expect`: nothing to reproduce; add metric and at_least or at_most")
    return Expect(**content["expect"])


def shelf(recipe: str) -> str:
    """The shelf of the system that a recipe trains, such as "classification": where its class is."""
    packages = read(find(recipe))["model"]["class_path"].split(".")
    return packages[1] if packages[0] == "zoo" else "other"


def read(path: Path) -> dict[str, Any]:
    """The YAML of a recipe as it is written.

    Raises:
        ValueError: if it is no YAML mapping.
    """
    try:
        content = yaml.load(path.read_text(), _Loader)
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is not valid YAML: {' '.join(str(error).split())}; correct it") from None
    if not isinstance(content, dict):
        raise ValueError(f"{path} holds no mapping: expected the keys model, data and trainer; see any recipe")
    return content
