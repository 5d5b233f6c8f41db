"""Processes that tests start. They fork from a server that has imported the libraries, which takes longer than a test.

They are real processes: they get signals, die and end with a status of their own. The server has computed nothing, so
that it can be forked, whereas the process of pytest must not be.
"""

import atexit
import multiprocessing
import os
import runpy
import signal
import sys
from multiprocessing import reduction
from pathlib import Path
from unittest.mock import patch

ROOT = Path(__file__).parents[1]
SERVER = multiprocessing.get_context("forkserver")
SERVER.set_forkserver_preload(["torch", "lightning.pytorch", "lightning.pytorch.cli", "torchvision", "torchmetrics"])
LIMIT = 600  # seconds; generous, as the machine may be busy with other things


class Output:
    """A file descriptor that a process is given when it starts."""

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor

    def __reduce__(self) -> tuple:
        return _received, (reduction.DupFd(self.descriptor),)


def _received(descriptor) -> Output:
    return Output(descriptor.detach())


class Process:
    """`python ...words`, with the checkout before other packages and one thread.

    Args:
        words: a file or `-m` and a module, then its arguments; as `sys.argv` has them.
        environment: variables that differ from those of this process.

    Attributes:
        output: what it writes to its standard output and standard error, as text.
    """

    def __init__(self, *words: object, **environment: str) -> None:
        paths = [str(ROOT), str(ROOT / "tests"), *filter(None, [os.environ.get("PYTHONPATH")])]
        fixed = {"PYTHONPATH": os.pathsep.join(paths), "PYTHONUNBUFFERED": "1", "OMP_NUM_THREADS": "1"}
        read, write = os.pipe()
        arguments = (list(map(str, words)), os.getcwd(), os.environ | fixed | environment, Output(write))
        self._process = SERVER.Process(target=_run, args=arguments)
        with patch.dict(os.environ, OMP_NUM_THREADS="1"):  # the first one starts the server, and torch reads it once
            self._process.start()
        os.close(write)
        self.output = os.fdopen(read, errors="replace")

    def send(self, number: signal.Signals) -> None:
        os.kill(self._process.pid, number)

    def poll(self) -> int | None:
        """Its exit status, negative if a signal killed it; None while it runs."""
        return self._process.exitcode

    def wait(self, seconds: float = LIMIT) -> int:
        """Its exit status.

        Raises:
            TimeoutError: if it runs on; it is killed then.
        """
        self._process.join(seconds)
        if self._process.exitcode is None:
            self._process.kill()
            raise TimeoutError(f"still running after {seconds:g} s")
        return self._process.exitcode


def run(*words: object, **environment: str) -> str:
    """What a process prints, which must end well."""
    process = Process(*words, **environment)
    printed = process.output.read()
    assert process.wait() == 0, printed
    return printed


def _run(words: list[str], folder: str, environment: dict[str, str], output: Output) -> None:
    """In the new process: what `python` does at its start and end."""
    for name, descriptor in (("stdout", 1), ("stderr", 2)):
        os.dup2(output.descriptor, descriptor)
        setattr(sys, name, os.fdopen(descriptor, "w", buffering=1))
    os.close(output.descriptor)
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(folder)
    sys.path[:0] = environment["PYTHONPATH"].split(os.pathsep)
    del sys.modules[__name__]  # which may be that of another checkout
    is_module = words[0] == "-m"
    sys.argv = words[is_module:]
    try:
        if is_module:
            runpy.run_module(words[1], run_name="__main__", alter_sys=True)
        else:
            runpy.run_path(words[0], run_name="__main__")
    finally:
        atexit._run_exitfuncs()
