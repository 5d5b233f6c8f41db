"""Which of several processes has ended: each keeps a connection to the first, which tells the others."""

import os
import platform
import secrets
import socket
import threading
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from itertools import count
from typing import Any, NamedTuple
from weakref import WeakSet

# How a process has ended: without a word, as a worker of its loader had died, by another error, as it should.
DIED, BROKEN, FAILED, DONE = "died", "broken", "failed", "done"
GRACE = {DIED: 5.0, BROKEN: 5.0, FAILED: 20.0}  # seconds in which a process may end by itself after it was told
PATIENCE = 10.0  # seconds for a connection to be made

_numbers = count()  # of the watches of this process; all ranks start theirs in the same order
_open: WeakSet[socket.socket] = WeakSet()


def _close_in_child() -> None:
    for connection in _open:
        if connection.fileno() != -1:
            os.close(connection.detach())  # `close` would wait for a reader, which is a thread that the child lacks


if hasattr(os, "register_at_fork"):  # a connection must end with its rank, not with the last worker of its loader
    os.register_at_fork(after_in_child=_close_in_child)


class Loss(NamedTuple):
    """A process that has ended.

    Args:
        rank: its number.
        how: DIED, BROKEN or FAILED.
        where: its number in the system, and its machine.
    """

    rank: int
    how: str
    where: str


class Watch:
    """Notices within milliseconds that another rank has ended, and how.

    The system closes the connections of a process that ends, however it ends; one that ends as it should says so
    before. Collective calls do not tell which process is missing, and those on a GPU wait for it.

    Args:
        rank, size: number of this process, and of processes.
        address: of the machine of rank 0.
        store: of torch.distributed, in which rank 0 publishes where it listens.
        end: called in another thread, a few seconds after another process has ended, unless `close` was called.

    Attributes:
        loss: the process that has ended, None if all run.
        noticed: set together with `loss`.
    """

    def __init__(self, rank: int, size: int, address: str, store: Any, end: Callable[[], None]) -> None:
        self.rank, self.size, self.end = rank, size, end
        self.where = f"process {os.getpid()} on {platform.node()}"
        self.server: socket.socket | None = None
        self.connections: list[socket.socket] = []
        self.lock, self.noticed = threading.Lock(), threading.Event()
        self.loss: Loss | None = None
        self.is_closed = False
        key = f"zoo/watch/{next(_numbers)}"
        if rank == 0:
            store.set(key, self._listen(address))
        else:
            self._connect(address, lambda: store.get(key).decode())  # waits for rank 0

    def close(self, how: str) -> None:
        """Says how this process ends, and no longer watches the others."""
        with self.lock:
            self.is_closed = True
        self._say(Loss(self.rank, how, self.where))
        for connection in [*self.connections, *([self.server] if self.server else [])]:
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)  # wakes the thread that waits for it
            connection.close()

    def _listen(self, address: str) -> str:
        """Accepts the other ranks; returns what they need to know, "" if this machine cannot listen there."""
        try:
            family = socket.getaddrinfo(address, 0, type=socket.SOCK_STREAM)[0][0]
            self.server = socket.create_server((address, 0), family=family, backlog=self.size)
        except OSError:
            return ""
        token = secrets.token_hex(8)  # so that strangers are not taken for ranks
        _open.add(self.server)
        _in_background(self._accept, self.server, token)
        return f"{self.server.getsockname()[1]} {token} {self.where}"

    def _accept(self, server: socket.socket, token: str) -> None:
        with suppress(OSError):  # until it is closed
            while True:
                _in_background(self._welcome, server.accept()[0], token)

    def _welcome(self, connection: socket.socket, token: str) -> None:
        with suppress(OSError, ValueError):
            connection.settimeout(PATIENCE)
            lines = connection.makefile()
            given, rank, where = lines.readline().strip().split(" ", 2)
            if secrets.compare_digest(given, token):
                connection.sendall(f"{token}\n".encode())
                self._keep(connection)
                self._read(lines, int(rank), where)

    def _connect(self, address: str, place: Callable[[], str]) -> None:
        end = time.monotonic() + PATIENCE
        while (found := place()) and time.monotonic() < end:
            port, token, where = found.split(" ", 2)
            with suppress(OSError):
                connection = socket.create_connection((address, int(port)), timeout=PATIENCE)
                connection.sendall(f"{token} {self.rank} {self.where}\n".encode())
                lines = connection.makefile()
                if lines.readline().strip() == token:
                    self._keep(connection)
                    return _in_background(self._read, lines, 0, where)
            time.sleep(0.1)  # what the store says may be left from processes that torchrun has started again

    def _keep(self, connection: socket.socket) -> None:
        connection.settimeout(None)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for name, value in (("TCP_KEEPIDLE", 10), ("TCP_KEEPINTVL", 5), ("TCP_KEEPCNT", 4)):
            if hasattr(socket, name):  # the connections of a machine without power are not closed
                connection.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
        _open.add(connection)
        self.connections.append(connection)

    def _read(self, lines: Iterable[str], peer: int, where: str) -> None:
        """Reads how processes have ended, until the one at the other end of the connection has."""
        has_said_so = False
        with suppress(OSError, ValueError):
            for line in lines:
                rank, how, place = line.strip().split(" ", 2)
                has_said_so |= int(rank) == peer
                if how != DONE:
                    self._notice(Loss(int(rank), how, place))
        if not has_said_so:
            self._notice(Loss(peer, DIED, where))

    def _notice(self, loss: Loss) -> None:
        with self.lock:
            is_cause = self.loss is None or (loss.how == DIED and self.loss.how != DIED)
            if self.is_closed or not is_cause:
                return
            self.loss = loss
        if self.rank == 0:
            self._say(loss)
        self.noticed.set()
        timer = threading.Timer(GRACE[loss.how], self._end)
        timer.daemon = True
        timer.start()

    def _end(self) -> None:
        if not self.is_closed:
            self.end()

    def _say(self, loss: Loss) -> None:
        for connection in list(self.connections):
            with suppress(OSError):
                connection.sendall(f"{loss.rank} {loss.how} {loss.where}\n".encode())


def _in_background(function: Callable, *arguments: Any) -> None:
    threading.Thread(target=function, args=arguments, daemon=True, name="zoo-watch").start()
