"""What jsonargparse says of a wrong option, in one line: the option as one types it, the value, what was expected."""

import difflib
import importlib
import inspect
import re

from lightning.pytorch.cli import LightningArgumentParser

# Lines in its errors that say in other words what `explain` says, or nothing that helps.
NOISE = (
    "Parser key",
    "Does not validate",
    "Subtypes:",
    "Errors:",
    "Given value",
    "Problem with given class_path",
    "Expected a",
    "Not a valid subclass",
    "Subclass types expect",
    "a class path (str)",
    "a dict with",
)
# Where in them the value stands that was given.
GIVEN = (
    r"(?m)Got value: (.+?)(?:\. Got value|$)",
    r"Given value: Namespace\(class_path='([\w.]+)'",
    r"Given value: NestedArg\(key='[\w.]+', val='?(.*?)'?\)",
    r"Given value: (.+)",
)


def cli_error_message(error: Exception, parser: LightningArgumentParser | None) -> str:
    """One line for a jsonargparse error, which may be a page long; names what is near a misspelt word."""
    return _unknown_option(str(error), parser) or _wrong_value(str(error))[:600]


def _unknown_option(text: str, parser: LightningArgumentParser | None) -> str | None:
    if found := re.search(r"Option '([\w.]+)' is not accepted", text):
        before = re.findall(r"class_path '([\w.]+)'", text[: found.start()])
        if owners := before + re.findall(r"class_path='([\w.]+)'", text):
            return f"{owners[-1]} takes no {found[1]!r}{_nearest(found[1], _arguments(owners[-1]))}"
    if found := re.search(r"[Uu]nrecognized arguments: --([\w.+-]+)|Option '([\w.]+)' is not accepted", text):
        word = found[1] or found[2]
        known = [action.dest for action in parser._actions] if parser else []
        return f"there is no option --{word}{_nearest(word, known)}"
    return None


def _wrong_value(text: str) -> str:
    # Of a callable's argument all is said in one line: a line for each part, as elsewhere.
    text = re.sub(r"Type \S*Callable.* expects a function or a callable class: ", "", text)
    text = re.sub(r'(Parser key "[\w.]+":) ', r"\1\n", text)
    reasons = list(dict.fromkeys(line.strip(" -") for line in text.splitlines()))
    reasons = [line.partition(". Got value")[0] for line in reasons if line and not line.startswith(NOISE)]
    if "Expected a dot import path" in text:
        reasons.append("expected the dotted path of a class")
    if not reasons:
        kinds = re.findall(r"Expected an? (?:<class '(?:[\w.]+\.)?(\w+)'>|[\w.]*Literal\[(.+)\])", text)
        names = dict.fromkeys(kind or choices.replace(", ", " or ") for kind, choices in kinds if kind != "NoneType")
        reasons = [f"expected {' or '.join(names)}" if names else " ".join(text.split())]
    keys = dict.fromkeys(re.findall(r'Parser key "([\w.]+)"', text))
    given = next((found for form in GIVEN if (found := re.search(form, text))), None)
    start = f"--{'.'.join(keys)}{f' is {given[1]}' if given else ''}: " if keys else ""
    part = next((f"{key}." for key in keys if key in ("model", "data")), "")
    return f"{start}{'; '.join(reasons).rstrip('.')}; see `zoo fit RECIPE --{part}help`"


def _arguments(dotted: str) -> list[str]:
    module, _, name = dotted.rpartition(".")
    kind = getattr(importlib.import_module(module), name)
    return [name for base in kind.__mro__ for name in inspect.signature(base.__init__).parameters if name != "self"]


def _nearest(word: str, known: list[str]) -> str:
    near = difflib.get_close_matches(word, sorted(set(known)), 3, cutoff=0.6)
    return f"; nearest: {', '.join(near)}" if near else "; see `zoo fit RECIPE --help`, --model.help or --data.help"
