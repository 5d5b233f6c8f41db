"""The folder of a run, read for a page. Imports neither torch nor lightning."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from callbacks.figures.axis import Axis
from datamodules.messages import nearest_names
from zoo.command import recipes
from zoo.command.run_folder import COMMAND
from zoo.report.metrics import Metrics, read_metrics

FACTS = "run.json"  # what the recorder writes
UNIQUE = ("trainer.default_root_dir", "ckpt_path")  # settings that differ in every run and change nothing


@dataclass
class Run:
    """What a run folder holds.

    Attributes:
        folder: of the run.
        recipe: its name.
        config: all settings, resolved.
        facts: what the recorder wrote, such as seconds and machine; may be empty.
        command: the words after `zoo`; None if they are not known.
        metrics: of the training and of evaluations.
        items: name of a gallery -> what it wrote down.
    """

    folder: Path
    recipe: str
    config: dict[str, Any]
    facts: dict[str, Any]
    command: list[str] | None
    metrics: Metrics
    items: dict[str, dict[str, Any]]

    @property
    def axes(self) -> dict[str, Axis]:
        """Name of a metric, without its split -> how it is plotted, as far as the run says it."""
        try:
            return {str(name): Axis(**axis) for name, axis in self.facts.get("axes", {}).items()}
        except (TypeError, AttributeError):
            return {}

    @property
    def settings(self) -> dict[str, Any]:
        """The config as flat `model.init_args.width: 4`, without what differs in every run."""
        return settings_of(self.config)

    def pictures(self) -> list[Path]:
        """The pictures that callbacks have drawn, by name."""
        suffixes = (".png", ".gif")
        return sorted(path for path in self.folder.glob("pictures/*") if path.suffix in suffixes)


def settings_of(config: dict[str, Any]) -> dict[str, Any]:
    """The settings of a recipe or of a run, flat, without those that change nothing."""
    return {key: v for key, v in flatten(config) if key not in UNIQUE and not key.startswith("expect")}


def flatten(value: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """The leaves of nested mappings and of lists of mappings, each with its path; of classes in a list the name counts.

    >>> dict(flatten({"a": {"b": 1}, "c": [{"d": 2}], "e": [3], "f": [{"class_path": "x.Y", "init_args": {"n": 5}}]}))
    {'a.b': 1, 'c.0.d': 2, 'e': [3], 'f.Y.class_path': 'x.Y', 'f.Y.init_args.n': 5}
    """
    if isinstance(value, dict) and value:
        parts = value.items()
    elif isinstance(value, list) and any(isinstance(part, dict) for part in value):
        parts = _named(value).items()
    else:
        yield prefix, value
        return
    for key, part in parts:
        yield from flatten(part, f"{prefix}.{key}" if prefix else str(key))


def _named(parts: list[Any]) -> dict[str, Any]:
    """The members of a list by the name of their class, else by their place."""
    named: dict[str, Any] = {}
    for place, part in enumerate(parts):
        name = str(part["class_path"]).rpartition(".")[2] if isinstance(part, dict) and "class_path" in part else place
        named[f"{name}.{place}" if name in named else str(name)] = part
    return named


def find_run(source: str) -> Path:
    """The folder of a run: given as such, or as the recipe or the folder of whose runs it is the newest one.

    Raises:
        ValueError: if there is none.
    """
    if (run := recipes.run_of(source)) is not None:
        return run
    known = source in recipes.names()
    folder = Path("runs", source) if known else Path(source)
    found = [path.parent for path in folder.glob("*/config.yaml")]
    if found:
        return max(found, key=lambda path: (path / "config.yaml").stat().st_mtime)
    if known:
        raise ValueError(f"{source} has no run under {folder}: expected a trained recipe; zoo fit {source}")
    trained = {"/".join(path.parts[-4:-2]) for path in Path("runs").glob("*/*/*/config.yaml")}
    hint = nearest_names(source, trained, "see the folders under runs")
    raise ValueError(
        f"{source} is no run: expected a folder with a config.yaml, such as runs/RECIPE/TIME, or a recipe that was "
        f"trained here; {hint}"
    )


def read_run(folder: Path) -> Run:
    """Reads the folder of a run, which may still go on or have been interrupted.

    Raises:
        ValueError: if its config or its metrics cannot be read.
    """
    config, facts, command = recipes.read(folder / "config.yaml"), read_json(folder / FACTS), _command_of(folder)
    items = {path.stem: read_json(path) for path in sorted(folder.glob("items/*.json"))}
    return Run(
        folder=folder,
        recipe=str(facts.get("recipe") or _recipe_of(folder, command)),
        config=config,
        facts=facts,
        command=command,
        metrics=read_metrics(folder / "metrics.csv"),
        items={name: content for name, content in items.items() if content},
    )


def place_of(folder: Path) -> str:
    """Where a run is: from here if it is below, else from the root."""
    folder, here = folder.resolve(), Path.cwd()
    return str(folder.relative_to(here) if folder.is_relative_to(here) else folder)


def read_json(path: Path) -> dict[str, Any]:
    """The mapping in a JSON file; empty if there is none that can be read."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def _command_of(folder: Path) -> list[str] | None:
    """The command that a run was started with, also of one that has come to its end; None if it is not known."""
    try:
        content = json.loads((folder / COMMAND).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    words = content.get("finished") if isinstance(content, dict) else content
    return [str(word) for word in words] if isinstance(words, list) else None


def _recipe_of(folder: Path, command: list[str] | None) -> str:
    """The recipe of a run that does not say it: by the place of its folder, else by its command."""
    parts = folder.resolve().parts
    if len(parts) > 3 and parts[-4] == "runs":
        return "/".join(parts[-3:-1])
    words = [word for word in command or [] if not word.startswith("-")]
    return words[1] if len(words) > 1 else folder.resolve().name
