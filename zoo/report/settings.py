"""How the settings of a run differ from those of its recipe, and those of runs from each other."""

from collections.abc import Sequence
from typing import Any

import yaml

from zoo.command import recipes
from zoo.report.run import Run, settings_of

Difference = tuple[str, list[str]]  # a setting, and its value in each


def from_recipe(run: Run) -> list[Difference] | None:
    """The settings that the recipe has otherwise, each with the recipe's value and the run's.

    The recorder has compared them when the run started. For a run without its file the recipe is read as it is today,
    which tells only of the settings that it names.

    Returns:
        None if the recipe is not known.
    """
    if "differs" in run.facts:
        return [(str(key), [text_of(there), text_of(here)]) for key, there, here in run.facts["differs"]]
    if run.recipe not in recipes.names():
        return None
    here, there = run.settings, settings_of(recipes.read(recipes.find(run.recipe)))
    named = {key: value for key, value in here.items() if key in there}
    return [(key, list(map(text_of, values))) for key, values in differing([there, named])]


def between(runs: Sequence[Run]) -> list[Difference]:
    """The settings in which runs differ; an absent one is empty."""
    return [(key, list(map(text_of, values))) for key, values in differing([run.settings for run in runs])]


def differing(found: Sequence[dict[str, Any]]) -> list[tuple[str, list[Any]]]:
    """The settings that are not everywhere the same, with the value in each, "" where it is absent.

    Of a class that is absent somewhere, such as a callback, the arguments are not listed.
    """
    rows = []
    for key in dict.fromkeys(key for settings in found for key in settings):
        owner = f"{key.rpartition('.init_args.')[0]}.class_path"
        if ".init_args." in key and any((owner in settings) != (owner in found[0]) for settings in found):
            continue
        values = [settings.get(key, "") for settings in found]
        if any(value != values[0] for value in values):
            rows.append((short(key), values))
    return rows


def short(key: str) -> str:
    """A setting as it is typed as an option.

    >>> short("model.init_args.optimizer.init_args.lr"), short("model.class_path")
    ('model.optimizer.lr', 'model')
    """
    return key.replace(".init_args", "").removesuffix(".class_path")


def text_of(value: Any) -> str:
    """A value as YAML writes it, on one line; an absent one is empty."""
    if value == "":
        return ""
    return yaml.safe_dump(value, default_flow_style=True, width=10**6, allow_unicode=True).removesuffix("...\n").strip()
