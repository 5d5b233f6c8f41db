"""The options of a recipe as words: files of the checkout by their names, and a help that fits on a page."""

import itertools
import json
import re
from collections.abc import Container, Iterator
from pathlib import Path
from typing import Any

from zoo.command import recipes

HELP = ("-h", "--help")
# Options that people use on any recipe, and what they are for.
COMMON = {
    "--config FILE": "a file laid over the recipe, also by name: _smoke runs two batches of everything",
    "--seed_everything N": "",
    "--ckpt_path FILE": "start from, or evaluate, this checkpoint",
    "--checkpoint_minutes N": "save a checkpoint so often, 10 by default",
    "--trainer.max_epochs N": "",
    "--trainer.accelerator NAME": "cpu, gpu, ...; found by itself",
    "--trainer.devices N": "how many",
    "--trainer.strategy NAME": "ddp, fsdp, ...",
    "--trainer.num_nodes N": "",
    "--trainer.precision NAME": "32-true, bf16-mixed, 16-mixed",
    "--trainer.logger NAME": "wandb, wandb-offline, or a class such as lightning.pytorch.loggers.CSVLogger",
    "--trainer.callbacks+=CLASS": "one more callback, by its dotted path",
    "--trainer.limit_train_batches N": "a number, or a share below 1.0; of val and test as well",
    "--trainer.accumulate_grad_batches N": "batches to an optimizer step",
    "--trainer.gradient_clip_val X": "largest norm of the gradient",
    "--trainer.default_root_dir FOLDER": "the run folder; runs/RECIPE/TIME by default",
    "--trainer.detect_anomaly true": "find where a number became NaN",
    "--trainer.profiler simple": "where the time goes",
    "--data.batch_size N": "",
    "--data.num_workers N": "processes that load files",
    "--data.data_dir FOLDER": "where the data sets are; $ZOO_DATA, or data, by default",
}  # fmt: skip
EXAMPLES = {
    "fit": "--trainer.max_epochs 2 --data.batch_size 64",
    "validate": "--ckpt_path FILE.ckpt",
    "test": "--ckpt_path FILE.ckpt",
}


def by_name(options: list[str]) -> list[str]:
    """The options, with the path in place of the name of a logger or overlay that comes with the zoo.

    `--trainer.logger wandb-offline` is `experiments/loggers/wandb-offline.yaml` and `--config _smoke` is
    `experiments/_smoke.yaml`, in whatever folder the command is called; and so are these paths as they stand here.
    """
    folders = {"--config": recipes.ROOT, "-c": recipes.ROOT, "--trainer.logger": recipes.ROOT / "loggers"}
    found, before = [], ""
    for word in options:
        option, equals, value = word.partition("=")
        if option in folders and equals:
            found.append(f"{option}={_file(value, folders[option])}")
        else:
            found.append(_file(word, folders[before]) if before in folders else word)
        before = word
    return found


def _file(value: str, folder: Path) -> str:
    here = Path(value)
    candidates = (folder / f"{value}.yaml", recipes.ROOT.parent / value)
    return value if here.is_file() or here.is_absolute() else str(next(filter(Path.is_file, candidates), value))


def or_help(options: list[str], recipe: dict[str, Any]) -> list[str]:
    """The options; or, if `--model.help` or `--data.help` is among them without a class, the help of the one in effect.

    That is the class of the recipe, or the one that the options name.
    """
    for word, following in itertools.zip_longest(options, options[1:], fillvalue="-"):
        part = word[2:-5]
        if word in ("--model.help", "--data.help") and following.startswith("-") and part in recipe:
            given = [b for a, b in itertools.pairwise(options) if a == f"--{part}"]
            return [f"{word}={given[-1] if given else recipe[part]['class_path']}"]
    return options


def split(words: list[str], own: Container[str]) -> tuple[list[str], list[str]]:
    """The words of a command without the options of a recipe, and these with their values.

    So a recipe's name may stand after them, and a value is not taken for the name.

    Args:
        words: as typed.
        own: the options of the verb itself.

    >>> split(["--missing", "--model.lr", "-0.1", "--seeds", "0", "1"], own=("--missing", "--seeds"))
    (['--missing', '--seeds', '0', '1'], ['--model.lr', '-0.1'])
    """
    kept: list[str] = []
    taken: list[str] = []
    needs_value = False
    for word in words:
        is_option = word.startswith("--")
        is_taken = not (word.partition("=")[0] in own or word.endswith("help")) if is_option else needs_value
        (taken if is_taken else kept).append(word)
        needs_value = is_option and is_taken and "=" not in word
    return kept, taken


def wants_short_help(options: list[str]) -> bool:
    """Whether help is asked for, and not all of it by `--help all`."""
    return any(a in HELP and b != "all" for a, b in itertools.zip_longest(options, options[1:]))


def without_all(options: list[str]) -> list[str]:
    """The options with `--help` in place of `--help all`."""
    pairs = itertools.zip_longest(["", *options], options)
    return [word for before, word in pairs if word is not None and not (before in HELP and word == "all")]


def of_recipe(recipe: str) -> set[str]:
    """The options of a recipe's settings, and those that are often used."""
    common = {option.partition(" ")[0].removesuffix("+=CLASS") for option in COMMON}
    return common | {*_settings(recipes.read(recipes.find(recipe)))}


def short_help(verb: str, recipe: str) -> str:
    """What a recipe is, what it sets, and the options that people use; the values are those of the recipe."""
    path = recipes.find(recipe)
    content, name = recipes.read(path), recipe.removesuffix(recipes.READY)
    header = recipes.header(path)
    given = _settings(content)
    lines = [f"usage: zoo {verb} {name} [OPTION VALUE ...]", "", *header, ""]
    if "expect" in content:
        expect = recipes.expectation(recipe)
        lines += [f"It is to reach {expect.metric} {expect}. Each setting of {path.name} is an option:", ""]
    width = max(len(option) for option in (*given, *COMMON)) + 2
    lines += [f"  {option:<{width}}{value}" for option, value in given.items()]
    own = re.search(rf"zoo {verb} {name} (--[\w.]+ \w+)", " ".join(header))
    others = {option: text for option, text in COMMON.items() if option.partition(" ")[0] not in given}
    lines += ["", "Others that are often used:", ""]
    lines += [f"  {option:<{width}}{text}".rstrip() for option, text in others.items()]
    return "\n".join(
        [
            *lines,
            "",
            f"Example: zoo {verb} {name} {own[1] if own else EXAMPLES.get(verb, '')}".rstrip(),
            f"More: zoo {verb} {name} --model.help, --data.help, and --help all for every option there is.",
        ]
    )


def _settings(content: dict[str, Any]) -> dict[str, str]:
    """What a recipe sets, as options with their values."""
    return dict(_flat({key: value for key, value in content.items() if key != "expect"}))


def _flat(value: Any, prefix: str = "-") -> Iterator[tuple[str, str]]:
    """Settings as options: `class_path` is the option itself, and `init_args` stand below it."""
    if isinstance(value, dict) and "class_path" in value:
        yield prefix, value["class_path"]
        value = value.get("init_args", {})
    elif not isinstance(value, dict):
        yield prefix, _text(value)
        return
    for key, part in value.items():
        yield from _flat(part, f"{prefix}-{key}" if prefix == "-" else f"{prefix}.{key}")


def _text(value: Any) -> str:
    """A value in a line; of classes in a list the last parts of their names."""
    if isinstance(value, list) and any(isinstance(part, dict) and "class_path" in part for part in value):
        return ", ".join(str(part["class_path"]).rpartition(".")[2] for part in value)
    return value if isinstance(value, str) else json.dumps(value)
