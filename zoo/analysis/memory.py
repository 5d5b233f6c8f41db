"""Frees memory after an out-of-memory error, without a restart of the process.

Source: fast.ai, "From Deep Learning Foundations to Stable Diffusion", lesson 17, on Jupyter notebooks and GPU memory.
"""

import re
import sys
from collections.abc import Iterable
from contextlib import suppress
from itertools import chain
from traceback import walk_tb
from typing import Any

import torch
from lightning.pytorch.utilities.memory import garbage_collection_cuda

LAST_ERROR = ("last_exc", "last_value", "last_traceback", "last_type")  # where `sys` keeps the last uncaught exception
# Where a notebook keeps its last outputs and inputs; all of them are in variables such as _7 and _i7.
RECENT_OUTPUTS, RECENT_INPUTS = ("_", "__", "___"), ("_i", "_ii", "_iii")


def free_memory(error: BaseException | None = None) -> int | None:
    """Releases the tensors that a failed computation still holds, and returns their memory to the device.

    They are held by the output history of IPython and Jupyter (`Out`, `_`, `_7`), and by the local variables of the
    functions that an exception passed through, which its traceback keeps. The history is emptied. The local variables
    are cleared for `error`, for the exception that is being handled during the call, for the last uncaught one, and for
    all exceptions that caused these. Line numbers stay; `%debug` and `pdb.pm()` find nothing afterwards. Garbage
    collection follows, and the caches of CUDA or MPS are emptied.

    Variables of functions that are still running stay, and so does what is stored elsewhere: network, optimizer, a
    batch in a global variable. Delete those first.

    Args:
        error: an exception that was caught and kept.

    Returns:
        The bytes that the device got back; None if there is no CUDA or MPS device.

    >>> try:
    ...     [].pop()
    ... except IndexError as error:
    ...     freed = free_memory(error)
    """
    before = reserved_memory()
    if (shell := running_ipython()) is not None:
        clear_history(shell)
    clear_errors(error, sys.exception())
    garbage_collection_cuda()
    if torch.backends.mps.is_available():
        torch.mps.empty_cache()
    after = reserved_memory()
    return None if before is None or after is None else before - after


def reserved_memory() -> int | None:
    """Bytes that torch holds on all devices for this process; None if there is only the CPU."""
    if torch.cuda.is_available():
        return sum(torch.cuda.memory_reserved(i) for i in range(torch.cuda.device_count()))
    return torch.mps.driver_allocated_memory() if torch.backends.mps.is_available() else None


def running_ipython() -> Any:
    """The IPython shell of the terminal or notebook that this runs in; None if there is none. Imports nothing."""
    ipython = sys.modules.get("IPython")
    return ipython.get_ipython() if ipython is not None else None


def clear_history(shell: Any) -> None:
    """Empties the variables in which IPython keeps outputs and inputs; the list of inputs, `In`, stays."""
    for namespace in (shell.user_ns, shell.user_ns_hidden):
        for name in [name for name in namespace if re.fullmatch(r"_i?\d+", name)]:
            del namespace[name]
        namespace.update((name, "") for name in (*RECENT_OUTPUTS, *RECENT_INPUTS) if name in namespace)
    shell.user_ns.get("_oh", {}).clear()  # the same object as `Out`
    for name in RECENT_OUTPUTS:  # the next output would restore them from here
        setattr(shell.displayhook, name, "")
    shell.last_execution_result = None


def clear_errors(*errors: BaseException | None) -> None:
    """Clears the local variables in the tracebacks of exceptions and of the last uncaught one, which is forgotten."""
    last = [getattr(sys, name, None) for name in LAST_ERROR]
    known = with_related([error for error in (*errors, *last) if isinstance(error, BaseException)])
    tracebacks = [*(error.__traceback__ for error in known), getattr(sys, "last_traceback", None)]
    for frame, _ in chain.from_iterable(map(walk_tb, tracebacks)):
        with suppress(RuntimeError):  # the function is still running
            frame.clear()
            _ = frame.f_locals  # a debugger that read them, as IPython's does, made a copy: this empties it too
    for name in LAST_ERROR:
        vars(sys).pop(name, None)


def with_related(errors: Iterable[BaseException]) -> list[BaseException]:
    """Exceptions and all that they came from: causes, contexts, members of groups."""
    known: dict[int, BaseException] = {}
    waiting: list[BaseException | None] = list(errors)
    while waiting:
        error = waiting.pop()
        if error is not None and id(error) not in known:
            known[id(error)] = error
            waiting += [error.__cause__, error.__context__, *getattr(error, "exceptions", ())]
    return list(known.values())
