"""The `zoo` command: finds the requested verb, parses its arguments and runs it.

A verb is a module in `zoo/command/verbs`:

- the first line of its docstring is its help; the docstring shows an example command;
- `add_arguments(parser)` adds its arguments; what is called `source` or `recipe` names a recipe, model or run, and is
  refused if there is no such name;
- `run(args, rest)` runs it and returns the exit status; `rest` are options of a recipe, such as
  `--trainer.max_epochs 2`. Where it needs more than the standard library, it is in the module of the same name in
  `zoo/command/actions`;
- `TAKES_OPTIONS = True` says that it accepts such options, `RECIPE_HELP = True` that, if a recipe is given, the help is
  that of the recipe; with `--help all` the recipe's own parser prints it, since it knows all options.

Only the module of the requested verb is imported, and its action when the arguments have been read, so that help and
errors in the words take no time.
"""

import argparse
import ast
import importlib
import logging
import os
import select
import signal
import sys
import warnings
from importlib.metadata import version
from pathlib import Path
from types import ModuleType
from typing import NoReturn

# Imported before the working folder is searched for modules, as that may have folders of the same names.
import callbacks  # noqa: F401
import datamodules  # noqa: F401
from callbacks.runtime.status import TRY_AGAIN
from zoo.command import options, recipes
from zoo.command import verbs as verbs_package
from zoo.command.errors import explanation

# Warnings that Lightning gives in every run and that need no action; the last is about frozen nets in a loss.
KNOWN_WARNINGS = (
    "LeafSpec",
    "`srun`",
    "does not have many workers",
    "tensorboardX",
    "Total length of `dict`",
    "The dirpath has changed",
    r"Found \d+ module\(s\) in eval mode",
)
# Further messages of every run: advertisements of other products, and Lightning's own progress.
KNOWN_REMARKS = ("💡 Tip", "Loading `train_dataloader`", "TPU available")

BROKEN_PIPE = 141  # exit status, as shells report SIGPIPE


class Parser(argparse.ArgumentParser):
    """An `ArgumentParser` that raises its errors instead of printing them."""

    def error(self, message: str) -> NoReturn:
        raise ValueError(f"{message}; see `{self.prog} --help`")


def verbs() -> dict[str, str]:
    """The name and help of every verb; the docstrings are read without importing the modules."""
    paths = [path for folder in verbs_package.__path__ for path in Path(folder).glob("[!_]*.py")]
    found = {}
    for path in sorted(paths, key=lambda path: path.stem):
        docstring = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
        found[path.stem.replace("_", "-")] = docstring.partition("\n")[0].rstrip(".")
    return found


def import_verb(name: str) -> ModuleType:
    return importlib.import_module(f"{verbs_package.__name__}.{name.replace('-', '_')}")


def import_action(name: str) -> ModuleType:
    """The module that has the `run` of a verb."""
    verb = import_verb(name)
    return verb if hasattr(verb, "run") else importlib.import_module(f"zoo.command.actions.{name.replace('-', '_')}")


def make_parser(words: list[str]) -> Parser:
    """The parser of the command, with the arguments of the verb that is the first of the positional words."""
    top = Parser("zoo", description="Deep-learning systems, each with a recipe that reproduces its number.")
    top.add_argument("--version", action="version", version=f"litzoo {version('litzoo')}")
    top.add_argument("--debug", action="store_true", help="show the traceback of an error")
    top.add_argument("--trust", metavar="PACKAGE", help="let recipes and checkpoints name classes of this package")
    subparsers = top.add_subparsers(dest="verb", metavar="VERB", required=True, parser_class=Parser)
    for name, text in verbs().items():
        module = import_verb(name) if name in words[:1] else None
        parser = subparsers.add_parser(
            name,
            help=text,
            description=module.__doc__ if module else text,
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
            add_help=not (getattr(module, "RECIPE_HELP", False) and len(words) > 1),
        )
        if module:
            module.add_arguments(parser)
    return top


def own_options(module: ModuleType) -> set[str]:
    """The options of a verb that are not those of a recipe."""
    parser = Parser()
    module.add_arguments(parser)
    return {option for action in parser._actions for option in action.option_strings}


def run(argv: list[str]) -> int:
    of_recipe: list[str] = []
    if argv[:1] and argv[0] in verbs() and getattr(module := import_verb(argv[0]), "TAKES_OPTIONS", False):
        argv, of_recipe = options.split(argv, own_options(module))
    args, rest = make_parser([word for word in argv if not word.startswith("-")]).parse_known_args(argv)
    rest = of_recipe + rest
    module = import_verb(args.verb)
    if rest and not getattr(module, "TAKES_OPTIONS", False):
        raise ValueError(f"zoo {args.verb} takes no {rest[0]!r}; see `zoo {args.verb} --help`")
    if getattr(module, "RECIPE_HELP", False):
        if options.wants_short_help(rest):
            print(options.short_help(args.verb, args.recipe))
            return 0
        rest = options.without_all(rest)
    for name in ("recipe", "source"):
        if (source := getattr(args, name, None)) is not None and getattr(args, "resume", None) is not True:
            recipes.check_name(source)
    return import_action(args.verb).run(args, rest)


def without_option(argv: list[str], option: str) -> tuple[list[str], list[str]]:
    """The words of a command without an option that takes a value and may be repeated, and its values.

    >>> without_option(["fit", "--trust", "a", "--trust=b", "--x", "1"], "--trust")
    (['fit', '--x', '1'], ['a', 'b'])
    """
    rest, values, words = [], [], iter(argv)
    for word in words:
        name, equals, value = word.partition("=")
        if name != option:
            rest.append(word)
        elif equals:
            values.append(value)
        elif (following := next(words, None)) is not None:
            values.append(following)
        else:
            raise ValueError(f"{option} is given without a value: expected {option} NAME")
    return rest, values


def interrupted(stop: KeyboardInterrupt) -> int:
    """The exit status of a run that a signal ended, as shells report it: 128 and its number."""
    return 128 + getattr(stop, "signal", signal.SIGINT)


def output_is_closed() -> bool:
    """Whether the reader of standard output has closed it, as `head` does."""
    if not hasattr(select, "poll"):  # on Windows
        return True
    poll = select.poll()
    poll.register(sys.stdout, 0)  # 0: errors only
    return any(event & select.POLLERR for _, event in poll.poll(0))


def flush_output() -> None:
    """Flushes standard output here, where a closed one can be handled: at its exit the interpreter would complain."""
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def hold_warning_back() -> None:
    """Holds back a cluster's warning that a job will end soon, until the training can answer it.

    Without a handler SIGUSR1 ends the process; that of `callbacks.runtime.graceful_stop` comes long after the start.
    """
    if "SLURM_JOB_ID" in os.environ and hasattr(signal, "pthread_sigmask"):
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1})


def _is_worth_showing(record: logging.LogRecord) -> bool:
    return not record.getMessage().startswith(KNOWN_REMARKS)


def main(argv: list[str] | None = None) -> int:
    """Runs the command.

    Returns:
        The exit status: 0, 1 (target missed), 2 (bad input or too little memory, explained in one line), 75 (another
        process of the training has died: to be tried again), 128 and its number for a signal (Ctrl-C: 130), 141 (the
        reader of the output has closed it).
    """
    argv = list(sys.argv[1:] if argv is None else argv) or ["--help"]
    debug = "--debug" in argv
    if "_ARGCOMPLETE" in os.environ:  # set by the shell
        from zoo.command.completion import complete

        typed = os.environ["COMP_LINE"][: int(os.environ["COMP_POINT"])].split()[1:]
        words = [word for word in typed if not word.startswith("-")]
        complete(make_parser(words), words)
    hold_warning_back()
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")  # a terminal without UTF-8 shows a question mark
    if (here := os.getcwd()) not in sys.path:
        sys.path.append(here)  # for the user's own classes, named by dotted path; last, so that it hides nothing
    if not debug:  # torch's C++ code prints a page for each connection that another process leaves
        os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")
    for known in KNOWN_WARNINGS:
        warnings.filterwarnings("ignore", message=f".*{known}")
    logging.getLogger("lightning.pytorch.utilities.rank_zero").addFilter(_is_worth_showing)
    try:
        argv, trusted = without_option(argv, "--trust")
        if trusted:
            from zoo import trust  # imports jsonargparse

            trust.trust(*trusted)
        return run([word for word in argv if word != "--debug"])
    except Exception as error:
        if isinstance(error, BrokenPipeError) and output_is_closed():
            return BROKEN_PIPE
        if debug or (explained := explanation(error)) is None:
            raise
        line, status = explained
        if status == TRY_AGAIN:  # srun now ends this process, too, whose status would then no longer say why
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
        if line:
            print(f"zoo: {' '.join(line.split())}", file=sys.stderr)
        return status
    except KeyboardInterrupt as stop:
        return interrupted(stop)
    except SystemExit as stop:
        if isinstance(stop.__context__, KeyboardInterrupt):  # Lightning ends like this after its own clean-up
            return interrupted(stop.__context__)
        raise
    finally:
        flush_output()
