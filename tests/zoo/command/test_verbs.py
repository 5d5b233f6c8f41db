"""Verbs are found by walking their folder; each has help, an example and typed arguments, and the command is quick."""

import argparse
import importlib
import inspect
import os
import platform
import re
import subprocess
import sys
import typing
from pathlib import Path

import pytest

from zoo.command import main as command
from zoo.command import recipes, verbs
from zoo.command.machine import keep_freed_memory
from zoo.command.main import Parser, main

NAMES = list(command.verbs())
ENVIRONMENT = os.environ | {"PYTHONPATH": str(recipes.ROOT.parent)}


def run_code(code: str) -> None:
    """Runs code in a process of its own, which must end well."""
    done = subprocess.run([sys.executable, "-c", code], env=ENVIRONMENT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("words", [["list"], ["list", "--json"], ["--help"], ["results", "--help"]])
def test_light_verbs_import_neither_torch_nor_lightning(words):
    code = (
        "import sys, zoo.command.main\n"
        f"try: zoo.command.main.main({words!r})\n"
        "except SystemExit: pass\n"
        "assert not {'torch', 'lightning', 'numpy', 'matplotlib'} & set(sys.modules)"
    )
    run_code(code)


def test_grow_imports_neither_lightning_nor_torchmetrics(tmp_path):
    code = (
        "import sys, zoo.command.main\n"
        f"words = ['grow', 'starry_night', '--size', '8', '--steps', '2', '--out', {str(tmp_path)!r}]\n"
        "assert zoo.command.main.main(words) == 0\n"
        "assert 'torch' in sys.modules\n"
        "assert not {'lightning', 'torchmetrics', 'torchvision', 'sklearn'} & set(sys.modules)"
    )
    run_code(code)
    assert {path.name for path in tmp_path.iterdir()} == {"starry_night.gif", "starry_night.png"}


def test_all_modules_of_the_folder_are_verbs():
    files = Path(verbs.__file__).parent.glob("*.py")
    assert {name.replace("-", "_") for name in NAMES} == {path.stem for path in files} - {"__init__"}


@pytest.mark.parametrize("name", NAMES)
def test_a_verb_has_help_an_example_and_typed_arguments(name):
    module, text = command.import_verb(name), command.verbs()[name]
    assert 0 < len(text) < 120
    assert text[0].isupper()
    assert re.search(rf"\n\n    zoo {name}\b", module.__doc__), "an example"
    assert typing.get_type_hints(command.import_action(name).run) == {
        "args": argparse.Namespace,
        "rest": list[str],
        "return": int,
    }
    assert list(inspect.signature(module.add_arguments).parameters) == ["parser"]
    parser = Parser()
    module.add_arguments(parser)
    for action in parser._actions:
        assert action.help, action.dest
        if action.nargs == 0:  # --help and flags
            continue
        assert isinstance(action.type, type), f"{action.dest} has no type"
        values = action.default if isinstance(action.default, list) else [action.default]
        assert action.default is None or all(isinstance(value, action.type) for value in values), action.dest


@pytest.mark.parametrize("name", NAMES)
def test_help_shows_the_docstring(name, capsys):
    with pytest.raises(SystemExit) as stop:
        main([name, "--help"])
    assert stop.value.code == 0
    shown = capsys.readouterr().out
    assert f"    zoo {name}" in shown
    assert command.verbs()[name] in shown


def test_a_module_added_to_the_folder_is_a_verb(tmp_path, monkeypatch, capsys):
    source = (
        '"""Count the words.\n\n    zoo count-words a b\n"""\n'
        "def add_arguments(parser):\n    parser.add_argument('words', nargs='+')\n"
        "def run(args, rest):\n    print(len(args.words))\n    return 0\n"
    )
    (tmp_path / "count_words.py").write_text(source)
    (tmp_path / "_helper.py").write_text("not a verb")
    monkeypatch.setattr(verbs, "__path__", [*verbs.__path__, str(tmp_path)])
    importlib.invalidate_caches()
    assert command.verbs().keys() - set(NAMES) == {"count-words"}
    assert command.verbs()["count-words"] == "Count the words"
    assert main(["count-words", "a", "b", "c"]) == 0
    assert capsys.readouterr().out == "3\n"
    assert main(["count-words", "a", "--more"]) == 2
    assert "zoo count-words takes no '--more'" in capsys.readouterr().err


@pytest.mark.parametrize("buffered", [True, False])
@pytest.mark.parametrize("words", [["list"], ["--help"]], ids=" ".join)
def test_a_closed_pipe_ends_the_command_silently(words, buffered):
    """As of `zoo list | head -1`."""
    assert closed_early(f"import sys, zoo.command.main as c\nsys.exit(c.main({words!r}))", buffered) in (0, 141)


@pytest.mark.parametrize("buffered", [True, False])
def test_a_pipe_that_is_closed_in_the_middle_of_the_output_ends_the_command_silently(buffered):
    """As of `zoo generate ... | head`, where the print itself fails."""
    code = (
        "import sys, zoo.command.main as c\n"
        "def run(argv):\n"
        "    for i in range(10**6): print('line', i, flush=True)\n"
        "c.run = run\n"
        "sys.exit(c.main([]))"
    )
    assert closed_early(code, buffered) == 141


def test_another_broken_pipe_is_an_error(capfd, monkeypatch):
    def run(argv):
        raise BrokenPipeError(32, "Broken pipe")

    monkeypatch.setattr(command, "run", run)
    monkeypatch.setattr(sys, "stdout", sys.__stdout__)
    assert main([]) == 2
    assert "Broken pipe" in capfd.readouterr().err


def closed_early(code: str, buffered: bool) -> int:
    """The exit status of a process whose output is closed by its reader; it must write nothing to standard error."""
    read, write = os.pipe()
    process = subprocess.Popen(
        [sys.executable, *([] if buffered else ["-u"]), "-c", f"{code}"],
        env={name: value for name, value in ENVIRONMENT.items() if name != "PYTHONUNBUFFERED"},
        stdout=write, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    os.close(write)
    os.close(read)
    assert process.communicate(timeout=60)[1] == ""
    return process.returncode


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="it is about glibc")
def test_a_training_keeps_the_memory_that_it_frees(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run_code(
        """
import resource
import torch
from zoo.command.lightning_cli import ZooCLI

ZooCLI("digits/small")

def step():  # allocates and frees 24 MB, which are 6 144 pages
    return len([torch.ones(2**21) for _ in range(3)])

for _ in range(5):  # a heap may still grow by a tensor or two
    step()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(10):
    step()
faults = resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
assert faults < 6144, faults  # without it, 6 144 in each step
"""
    )


def test_another_c_library_is_left_alone(monkeypatch):
    monkeypatch.setattr(platform, "libc_ver", lambda: ("", ""))
    monkeypatch.setattr("ctypes.CDLL", None)
    keep_freed_memory()
