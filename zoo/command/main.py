"""The `zoo` command: finds the verb that is asked for, parses its arguments and runs it.

A verb is a module in `zoo/command/verbs`. The first line of its docstring is its help, `add_arguments(parser)` adds its
arguments, and `run(args, rest)` runs it and returns the exit status; `rest` are the options of the recipe. A module
that sets `TAKES_OPTIONS` accepts such options. Only the module of the verb that was asked for is imported, so that the
command starts quickly.
"""

import argparse
import ast
import importlib
import logging
import os
import sys
import warnings
from pathlib import Path
from typing import NoReturn

VERBS = Path(__file__).parent / "verbs"

# What Lightning warns of in every run, with nothing for the user to do; the last is about frozen nets in a loss.
KNOWN_WARNINGS = (
    "LeafSpec",
    "`srun`",
    "does not have many workers",
    "tensorboardX",
    "Total length of `dict`",
    "The dirpath has changed",
    r"Found \d+ module\(s\) in eval mode",
)
# What else it prints in every run: advertisements of other products, and its own progress.
KNOWN_REMARKS = ("💡 Tip", "Loading `train_dataloader`", "TPU available")


class Parser(argparse.ArgumentParser):
    """argparse that raises its errors instead of printing them."""

    def error(self, message: str) -> NoReturn:
        raise ValueError(f"{message}; see `{self.prog} --help`")


def verbs() -> dict[str, str]:
    """Name -> help of every verb: the first line of its module's docstring, read without importing the module."""
    found = {}
    for path in sorted(VERBS.glob("[!_]*.py")):
        docstring = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
        found[path.stem.replace("_", "-")] = docstring.partition("\n")[0].rstrip(".")
    return found


def make_parser(verb: str | None) -> Parser:
    """The parser of the command, with the arguments of one verb."""
    top = Parser("zoo", description="Deep-learning systems, each with a recipe that reproduces its number.")
    top.add_argument("--debug", action="store_true", help="show the traceback of an error")
    subparsers = top.add_subparsers(dest="verb", metavar="VERB", required=True, parser_class=Parser)
    for name, text in verbs().items():
        module = import_verb(name) if name == verb else None
        options = {"help": text, "allow_abbrev": False, "formatter_class": argparse.RawDescriptionHelpFormatter}
        options["description"] = module.__doc__ if module else text
        # The recipe's own parser prints the help of such a verb: it knows all options.
        options["add_help"] = not getattr(module, "RECIPE_HELP", False)
        parser = subparsers.add_parser(name, **options)
        if module:
            module.add_arguments(parser)
    return top


def import_verb(name: str):
    return importlib.import_module(f"zoo.command.verbs.{name.replace('-', '_')}")


def run(argv: list[str]) -> int:
    verb = next((word for word in argv if not word.startswith("-")), None)
    args, rest = make_parser(verb).parse_known_args(argv)
    module = import_verb(args.verb)
    if rest and not getattr(module, "TAKES_OPTIONS", False):
        raise ValueError(f"zoo {args.verb} takes no {rest[0]!r}; see `zoo {args.verb} --help`")
    return module.run(args, rest)


def _is_worth_showing(record: logging.LogRecord) -> bool:
    return not record.getMessage().startswith(KNOWN_REMARKS)


def user_message(error: Exception) -> str | None:
    """The message of an error that the user can do something about; None for an unforeseen one."""
    # Lightning raises this for impossible Trainer options; its name is enough, importing it would take seconds.
    if isinstance(error, (ValueError, OSError)) or type(error).__name__ == "MisconfigurationException":
        return str(error)
    if isinstance(error, (MemoryError, RuntimeError)):
        from callbacks.runtime.out_of_memory import is_out_of_memory
        from zoo.analysis.memory import free_memory

        if is_out_of_memory(error):
            free_memory(error)
            return getattr(error, "__notes__", [f"out of memory: {error}"])[-1]
    return None


def main(argv: list[str] | None = None) -> int:
    """Runs the command.

    Returns:
        The exit status: 0, 1 (target missed), 2 (bad input or too little memory, explained in one line), 130
        (interrupted).
    """
    argv = list(sys.argv[1:] if argv is None else argv)
    debug = "--debug" in argv
    if (here := os.getcwd()) not in sys.path:
        sys.path.append(here)  # for the user's own classes, named by dotted path; last, so that it hides nothing
    for known in KNOWN_WARNINGS:
        warnings.filterwarnings("ignore", message=f".*{known}")
    logging.getLogger("lightning.pytorch.utilities.rank_zero").addFilter(_is_worth_showing)
    try:
        return run([word for word in argv if word != "--debug"])
    except Exception as error:
        if debug or (line := user_message(error)) is None:
            raise
        print(f"zoo: {' '.join(line.split())}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130
    except SystemExit as stop:
        if isinstance(stop.__context__, KeyboardInterrupt):  # Lightning ends like this after its own clean-up
            return 130
        raise
