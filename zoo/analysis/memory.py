"""Free memory after an out-of-memory error, without a restart of the process.

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

LAST = ("last_exc", "last_value", "last_traceback", "last_type")  # in `sys`: the last error that nobody caught
RECENT = ("_", "__", "___", "_i", "_ii", "_iii")  # in a notebook: the last outputs and inputs; _7 and _i7 are all


def free_memory(error: BaseException | None = None) -> int | None:
    """Lets go of the tensors that a failed computation still holds, and gives their memory back to the device.

    What holds them: the output history of IPython and Jupyter (`Out`, `_`, `_7`), and the local variables of the
    functions that an error went through, which its traceback keeps. History is emptied; of `error`, of the one that
    is handled when this is called, and of the last one that nobody caught, the local variables are cleared, in all
    errors that they came from too. Line numbers stay; `%debug` and `pdb.pm()` find nothing any more.
    Then follow garbage collection, and CUDA's or MPS's own cache.

    Variables of functions that are still running stay, and so does what is stored elsewhere: net, optimiser, batch in
    a global variable. Delete those first.

    Args:
        error: an exception that was caught and kept.

    Returns:
        The bytes that the device got back; None if there is no CUDA or MPS device.

    >>> try:
    ...     [].pop()
    ... except IndexError as error:
    ...     freed = free_memory(error)
    """
    before = reserved()
    if (shell := running_ipython()) is not None:
        forget_history(shell)
    forget_errors(error, sys.exception())
    garbage_collection_cuda()
    if torch.backends.mps.is_available():
        torch.mps.empty_cache()
    return None if before is None else before - reserved()


def reserved() -> int | None:
    """Bytes that torch holds of all devices of this process; None if there is only the CPU."""
    if torch.cuda.is_available():
        return sum(torch.cuda.memory_reserved(i) for i in range(torch.cuda.device_count()))
    return torch.mps.driver_allocated_memory() if torch.backends.mps.is_available() else None


def running_ipython() -> Any:
    """The shell of the terminal or notebook that this runs in; None if it is neither, without importing anything."""
    ipython = sys.modules.get("IPython")
    return ipython.get_ipython() if ipython is not None else None


def forget_history(shell: Any) -> None:
    """Empties the variables in which IPython keeps outputs and inputs; what one has typed stays in `In`."""
    for namespace in (shell.user_ns, shell.user_ns_hidden):
        for name in [name for name in namespace if re.fullmatch(r"_i?\d+", name)]:
            del namespace[name]
        namespace.update((name, "") for name in RECENT if name in namespace)
    shell.user_ns.get("_oh", {}).clear()  # which is `Out` as well
    for name in ("_", "__", "___"):  # where the next output would get them from
        setattr(shell.displayhook, name, "")
    shell.last_execution_result = None


def forget_errors(*errors: BaseException | None) -> None:
    """Clears the local variables in the tracebacks of errors and of the last one that nobody caught; forgets that."""
    roots = [*errors, *(getattr(sys, name, None) for name in LAST)]
    tracebacks = [error.__traceback__ for error in family(root for root in roots if isinstance(root, BaseException))]
    for frame, _ in chain.from_iterable(map(walk_tb, [*tracebacks, getattr(sys, "last_traceback", None)])):
        with suppress(RuntimeError):  # it still runs
            frame.clear()
            _ = frame.f_locals  # whoever has asked for these, as IPython does, has made a copy: now that is empty too
    for name in LAST:
        vars(sys).pop(name, None)


def family(errors: Iterable[BaseException]) -> list[BaseException]:
    """Errors with all that they came from: causes, what was being handled, members of groups."""
    known: dict[int, BaseException] = {}
    waiting = list(errors)
    while waiting:
        error = waiting.pop()
        if error is not None and id(error) not in known:
            known[id(error)] = error
            waiting += [error.__cause__, error.__context__, *getattr(error, "exceptions", ())]
    return list(known.values())
