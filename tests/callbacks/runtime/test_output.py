"""Output that loses its reader is dropped, and other errors are not."""

import errno
import os
from types import SimpleNamespace

import pytest

from callbacks.runtime.output import Output


def test_what_nobody_reads_any_more_is_dropped():
    read, write = os.pipe()
    with os.fdopen(write, "w") as file:
        stream = Output(file)
        stream.write("a")
        stream.flush()
        assert os.read(read, 10) == b"a"
        os.close(read)
        for _ in range(2):
            print("b" * 100_000, file=stream, flush=True)


def test_another_error_is_raised():
    def full(text: str = "") -> None:
        raise OSError(errno.ENOSPC, "no space")

    with pytest.raises(OSError, match="no space"):
        Output(SimpleNamespace(write=full, flush=full)).write("a")
