"""The one line that the command prints on an error that the user can do something about. Does not import torch.

An error of jsonargparse may be a page long. It is a tree: the kinds that it tried, indented below them what was wrong
with each, and so on. Of this page only the quoted names, the values and the most deeply indented lines are used.
"""

import inspect
import re
import sys
from itertools import pairwise
from typing import Any

from datamodules.messages import nearest_names

BAD_INPUT = 2  # exit status
MAX_LENGTH = 600  # characters
FURTHER_HELP = "see `zoo fit RECIPE --help`, --model.help or --data.help"
# How jsonargparse says which kind of value it expects, and what it says before the error of an argument's argument.
KIND = re.compile(r"Expected an? (?:<class '(?:\w+\.)*(\w+)'>|[\w.]*Literal\[(.+)\])")
BOOLEAN = re.compile(r"(?i)\b(?:yes|no|on|off|true|false)\b")
CALLABLE = re.compile(r"Type \S*Callable.* expects a function or a callable class: ")


def explanation(error: Exception) -> tuple[str, int] | None:
    """The line on an error that the user can do something about, and the exit status; None for an unforeseen one.

    Of several processes that end for the same reason one has the line, and the others an empty one.
    """
    if isinstance(error, RuntimeError):
        from callbacks.runtime.lost_process import lost_process

        if (lost := lost_process(error)) is not None:
            return lost
    message = user_message(error)
    return None if message is None else (message, BAD_INPUT)


def user_message(error: Exception) -> str | None:
    """The message of an error in what the user gave, or of too little memory; None for another one."""
    # Lightning raises the last one for impossible Trainer options; its name is enough, as the import takes seconds.
    if isinstance(error, (ValueError, OSError)) or type(error).__name__ == "MisconfigurationException":
        return str(error)
    if str(error).startswith("Early stopping conditioned on metric"):
        return str(error)
    if isinstance(error, (MemoryError, RuntimeError)):
        from callbacks.runtime.out_of_memory import is_out_of_memory
        from zoo.analysis.memory import free_memory

        if is_out_of_memory(error):
            free_memory(error)
            return getattr(error, "__notes__", [f"out of memory: {error}"])[-1]
    return None


def cli_error_message(error: Exception, options: list[str], known: list[str]) -> str:
    """One line for an error of jsonargparse; names what is near a misspelt word.

    Args:
        error: as raised by the parser.
        options: as typed, such as ["--model.width", "many"].
        known: the names of all options of the parser.
    """
    text = str(error)
    return (_unknown_option(text, known) or _wrong_value(text, options))[:MAX_LENGTH]


def _unknown_option(text: str, known: list[str]) -> str | None:
    found = re.search(r"Option '([\w.]+)' is not accepted(?:\. Got value: Namespace\(class_path='([\w.]+)')?", text)
    owners = re.findall(r"class_path[ =]'([\w.]+)'", text[: found.start()]) if found else []
    if found and (owner := found[2] or next(reversed(owners), None)):
        return f"{owner} takes no {found[1]!r}; {nearest_names(found[1], _arguments(owner), FURTHER_HELP)}"
    found = found or re.search(r"[Uu]nrecognized arguments: --([\w.+-]+)", text)
    group = re.search(r"Group '([\w.]+)' does not accept option '([\w.]+)'", text)
    option = found[1] if found else ".".join(group.groups()) if group else None
    return f"there is no option --{option}; {nearest_names(option, known, FURTHER_HELP)}" if option else None


def _wrong_value(text: str, options: list[str]) -> str:
    keys = list(dict.fromkeys(re.findall(r'Parser key "([\w.]+)"', text)))
    option = ".".join(keys)
    value = _typed_value(option, options)
    if value is None and (found := re.search(r"(?m)(?:Got|Given) value: ([^(\n]+?)(?:\. Got value|$)", text)):
        value = found[1]
    start = f"--{option}{f' is {value}' if value else ''}: " if option else ""
    part = f"{keys[0]}." if keys and keys[0] in ("model", "data") else ""
    reason = _reason(text)
    if value is not None and reason == "expected str" and BOOLEAN.search(value):
        reason += "; YAML reads yes, no, on, off, true and false as no words: put them in quotes"
    return f"{start}{reason}; see `zoo fit RECIPE --{part}help`"


def _reason(text: str) -> str:
    """What the most deeply indented lines say."""
    text = CALLABLE.sub("", re.sub(r'(Parser key "[\w.]+":) (?=\S)', r"\1\n", text))
    lines = [line for line in text.splitlines() if not line.lstrip(" -").startswith(("Parser key", "Given value"))]
    depth = max(len(line) - len(line.lstrip()) for line in lines)
    deepest = [line.strip(" -").partition(". Got value")[0] for line in lines if line.startswith(" " * depth)]
    if "Expected a dot import path" in text:
        return "expected the dotted path of a class"
    if others := [line for line in dict.fromkeys(deepest) if line and not line.startswith("Expected a")]:
        return "; ".join(others).rstrip(".")
    kinds = dict.fromkeys(kind or choices for line in deepest for kind, choices in KIND.findall(line))
    names = " or ".join(kind for kind in kinds if kind != "NoneType").replace(", ", " or ")
    return f"expected {names}" if names else " ".join(text.split())


def _typed_value(option: str, options: list[str]) -> str | None:
    """The value that was typed for an option, as `--option value` or `--option=value`."""
    for word, following in pairwise([*options, ""]):
        name, equals, value = word.removeprefix("--").replace("init_args.", "").partition("=")
        if word.startswith("--") and name.rstrip("+") == option:
            return value if equals else following
    return None


def _arguments(path: str) -> list[str]:
    """The names of the arguments of a class, given by dotted path, and of its bases; or of a function.

    The parser has imported it. The path comes from its message, in which a recipe may have written anything: nothing is
    imported for it.
    """
    module, _, name = path.rpartition(".")
    kind: Any = getattr(sys.modules.get(module), name, None)
    bases: tuple[Any, ...] = inspect.getmro(kind) if inspect.isclass(kind) else ()
    functions = [base.__init__ for base in bases] or [kind] * callable(kind)
    return [name for function in functions for name in inspect.signature(function).parameters if name != "self"]
