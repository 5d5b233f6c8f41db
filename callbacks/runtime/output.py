"""Output that may lose its reader: a pipe whose other end has closed, or a terminal that is gone."""

import contextlib
import errno
import os
import sys
from collections.abc import Iterator
from typing import Any, TextIO

GONE = (errno.EPIPE, errno.EIO)  # of a pipe, of a terminal


class Output:
    """A text stream that drops what nobody can read any more, instead of raising an error.

    Args:
        stream: where it writes as long as there is a reader.
    """

    def __init__(self, stream: TextIO) -> None:
        self.stream = stream

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)

    def write(self, text: str) -> int:
        with self._dropped():
            self.stream.write(text)
        return len(text)

    def flush(self) -> None:
        with self._dropped():
            self.stream.flush()

    @contextlib.contextmanager
    def _dropped(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            if error.errno not in GONE:
                raise
            # Also what is still in the buffer goes there, and what others write, such as workers of a loader.
            null = os.open(os.devnull, os.O_WRONLY)
            os.dup2(null, self.stream.fileno())
            os.close(null)


@contextlib.contextmanager
def without_a_reader() -> Iterator[None]:
    """What is done meanwhile comes to its end, and saves what it has to, even if nobody reads its output any more."""
    with contextlib.redirect_stdout(Output(sys.stdout)), contextlib.redirect_stderr(Output(sys.stderr)):
        yield
