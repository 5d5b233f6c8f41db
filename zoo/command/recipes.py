"""Recipes: one YAML file each, named by its path below `experiments`. Nothing in this module imports torch."""

from dataclasses import dataclass, fields
from importlib.resources import files
from itertools import takewhile
from pathlib import Path
from typing import Any, Literal

import yaml

from datamodules.messages import nearest_names

ROOT = Path(str(files("experiments"))).resolve()
READY = "@ready"  # after the name of a recipe: its ready model, whatever runs there are; see `zoo.inference.ready`
_Loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


@dataclass
class Expect:
    """What a recipe must reach.

    Args:
        metric: as logged, such as test/acc.
        at_least, at_most: the target; one of the two.
        seeds: over how many seeds the result is averaged.
        over_last: over how many last epochs the value of a seed is averaged.
        cost: where the recipe is meant to run.
        minutes: how long a seed takes there, about; 0 where nobody has said.
        wanted: its place among the recipes that `zoo reproduce --missing` runs first, counted from 1.
        source: where the target is from, or how it was derived.
        featured: show the recipe in the README's table.
        rung: its place on the ladder of its folder, counted from the bottom; see `zoo.results.ladder`.
        label: what is new on that rung, in a few words; without a rung, the name of the net in the figure of what
            training buys, see `zoo.results.work`.

    Attributes:
        target: `at_least` or `at_most`.

    Raises:
        ValueError: unless one of at_least and at_most is given.
    """

    metric: str
    at_least: float | None = None
    at_most: float | None = None
    seeds: int = 1
    over_last: int = 1
    cost: Literal["cpu", "gpu"] = "cpu"
    minutes: float = 0.0
    wanted: int | None = None
    source: str = ""
    featured: bool = False
    rung: int | None = None
    label: str = ""

    def __post_init__(self) -> None:
        given = [bound for bound in (self.at_least, self.at_most) if bound is not None]
        if len(given) != 1:
            raise ValueError(f"expect has {len(given)} of at_least and at_most: expected one of them")
        self.target = given[0]

    def met(self, value: float) -> bool:
        """Whether a value, to six digits, meets the target: in float32, 9400 of 10 000 are less than 0.94."""
        value = six_digits(value)
        return value >= self.target if self.at_most is None else value <= self.target

    def best(self, values: list[float]) -> float:
        return max(values) if self.at_most is None else min(values)

    def worst(self, values: list[float]) -> float:
        return min(values) if self.at_most is None else max(values)

    def __str__(self) -> str:
        return f"{'>=' if self.at_most is None else '<='} {self.target:g}"


def six_digits(value: float) -> float:
    """A value rounded to six significant digits, of which float32 has a few more.

    >>> six_digits(0.93999999), six_digits(1.1641532e-10)
    (0.94, 1.16415e-10)
    """
    return float(f"{value:.6g}")


def names() -> list[str]:
    """All recipes, as `folder/name`."""
    return sorted(
        path.relative_to(ROOT).with_suffix("").as_posix() for path in ROOT.glob("*/*.yaml") if _is_recipe(path)
    )


def _is_recipe(path: Path) -> bool:
    """Whether `path` is a file `folder/name.yaml` in `experiments` that has a model."""
    here = path.parent.parent == ROOT and path.name[0] != "_" and path.is_file()
    return here and "\nmodel:" in path.read_text()


def run_of(source: str) -> Path | None:
    """The folder of a run, if that is what the user gave."""
    return Path(source) if (Path(source) / "config.yaml").is_file() else None


def recipe_of(run: Path) -> str:
    """The recipe of a run, by its folder `runs/RECIPE/TIME`; "" where the folder does not say it."""
    parts = run.resolve().parts[:-1]
    after = len(parts) - parts[::-1].index("runs") if "runs" in parts else len(parts)
    return "/".join(parts[after:])


def check_name(source: str) -> None:
    """Raises ValueError unless `source` is a recipe, a ready model or a run, or looks like a file."""
    from zoo.inference import ready

    name = source.removesuffix(READY)
    if Path(source).suffix not in (".ckpt", ready.SUFFIX) and run_of(source) is None and name not in ready.names():
        find(name)


def find(recipe: str) -> Path:
    """The file of a recipe given by name or by path, or the config of a run given by its folder.

    Raises:
        ValueError: if it does not exist; gives the nearest names.
    """
    recipe = recipe.removesuffix(READY)
    if (run := run_of(recipe)) is not None:
        return (run / "config.yaml").resolve()
    if recipe.endswith((".yaml", ".yml")):
        if Path(recipe).is_file():
            return Path(recipe).resolve()
        raise ValueError(f"recipe file {recipe} does not exist: expected a YAML file or a name; see `zoo list`")
    if _is_recipe(path := ROOT / f"{recipe}.yaml"):
        return path
    known = names()
    # People remember the last part of a name, or write under_8k for under-8k.
    same = [name for name in known if name.rpartition("/")[2] == recipe.replace("_", "-")]
    hint = f"nearest: {', '.join(same)}" if same else nearest_names(recipe, known, "see `zoo list`")
    raise ValueError(f"unknown recipe {recipe!r}: expected a name such as {known[0]} or a YAML file; {hint}")


def name_of(path: Path) -> str:
    """The name of a recipe file: its path below `experiments`, or its stem if it lies elsewhere."""
    path = path.resolve()
    return (path.relative_to(ROOT) if path.is_relative_to(ROOT) else Path(path.name)).with_suffix("").as_posix()


def expectation(recipe: str) -> Expect:
    """What a recipe, given by name or path, must reach.

    Raises:
        ValueError: if the recipe does not exist, or its `expect` is missing or wrong.
    """
    path = find(recipe)
    content = read(path)
    if "expect" not in content:
        raise ValueError(f"{path} has no `expect`: nothing to reproduce; add metric and at_least or at_most")
    try:
        return Expect(**content["expect"])
    except TypeError as error:
        known = ", ".join(field.name for field in fields(Expect))
        raise ValueError(f"{path} has a wrong `expect` ({error}): expected {known}; correct it") from None


def shelf(recipe: str) -> str:
    """The shelf of the system that a recipe trains, such as "classification": the package of its class."""
    packages = read(find(recipe))["model"]["class_path"].split(".")
    return packages[1] if packages[0] == "zoo" else "other"


def header(path: Path) -> list[str]:
    """The lines of the comment that a recipe begins with, which says what it is."""
    lines = path.read_text(encoding="utf-8").splitlines()
    return [line[1:].strip() for line in takewhile(lambda line: line.startswith("#"), lines)]


def read(path: Path) -> dict[str, Any]:
    """The content of a recipe file.

    Raises:
        ValueError: if it is not a YAML mapping.
    """
    try:
        content = yaml.load(path.read_text(), _Loader)
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is not valid YAML: {' '.join(str(error).split())}; correct it") from None
    if not isinstance(content, dict):
        raise ValueError(f"{path} is not a YAML mapping: expected the keys model, data and trainer; see any recipe")
    return content
