"""Each rank learns that another one has ended, and how."""

import os
import socket
import time

import pytest

from callbacks.runtime import watch
from callbacks.runtime.watch import BROKEN, DIED, DONE, FAILED, Loss, Watch


class Store(dict):
    """As that of torch.distributed, without waiting."""

    set = dict.__setitem__

    def get(self, key: str) -> bytes:
        return self[key].encode()


@pytest.fixture
def ranks(monkeypatch):
    """Three ranks in one process, and the losses at which they were ended."""
    monkeypatch.setattr(watch, "GRACE", dict.fromkeys(watch.GRACE, 0.05))
    store, ended, made = Store(), [], []
    for rank in range(3):
        monkeypatch.setattr(watch, "_numbers", iter([0]))
        made.append(Watch(rank, 3, "127.0.0.1", store, lambda rank=rank: ended.append((rank, made[rank].loss))))
    deadline = time.monotonic() + 10
    while len(made[0].connections) < 2 and time.monotonic() < deadline:
        time.sleep(0.01)
    yield made, ended, store
    for one in made:
        one.close(DONE)


def die(one: Watch) -> None:
    one.is_closed = True  # it notices nothing more
    for connection in one.connections:
        connection.shutdown(2)  # as the system does


@pytest.mark.parametrize("dead", [0, 1, 2])
def test_all_others_learn_which_rank_has_died(ranks, dead):
    made, ended, _ = ranks
    die(made[dead])
    others = [one for one in made if one.rank != dead]
    assert all(one.noticed.wait(10) for one in others)
    assert {one.loss for one in others} == {Loss(dead, DIED, made[dead].where)}
    time.sleep(0.3)
    assert {rank for rank, _ in ended} >= {one.rank for one in others}, "whoever does not end by itself is ended"


@pytest.mark.parametrize("how", [FAILED, BROKEN])
def test_an_error_of_a_rank_is_passed_on(ranks, how):
    made, ended, _ = ranks
    made[2].close(how)
    assert all(one.noticed.wait(10) for one in made[:2])
    assert {one.loss for one in made[:2]} == {Loss(2, how, made[2].where)}
    made[1].close(FAILED)
    time.sleep(0.3)
    assert [rank for rank, _ in ended] == [0], "rank 1 has ended by itself"


def test_a_death_is_the_cause_of_an_error_that_was_noticed_before(ranks):
    made, _, _ = ranks
    made[2].close(FAILED)
    assert made[0].noticed.wait(10)
    die(made[1])
    deadline = time.monotonic() + 10
    while made[0].loss.how != DIED and time.monotonic() < deadline:
        time.sleep(0.01)
    assert made[0].loss == Loss(1, DIED, made[1].where)


def test_ranks_that_come_to_their_end_are_not_missed(ranks):
    made, ended, _ = ranks
    for one in reversed(made):
        one.close(DONE)
    time.sleep(0.3)
    assert ended == []
    assert [one.loss for one in made] == [None] * 3


def test_strangers_are_not_taken_for_ranks(ranks):
    made, _, store = ranks
    port = int(store["zoo/watch/0"].split(" ")[0])
    for words in (b"wrong 7 a\n", b"\xff\xfe\n", b""):
        stranger = socket.create_connection(("127.0.0.1", port))
        stranger.sendall(words)
        stranger.close()
    time.sleep(0.3)
    assert len(made[0].connections) == 2
    assert [one.loss for one in made] == [None] * 3


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no processes are forked here")
def test_a_worker_of_a_loader_does_not_keep_the_connections_of_its_rank_open(ranks):
    made, _, _ = ranks
    child = os.fork()
    if child == 0:
        os._exit(any(connection.fileno() != -1 for one in made for connection in (*one.connections, made[0].server)))
    assert os.waitpid(child, 0)[1] == 0
    assert all(connection.fileno() != -1 for one in made for connection in one.connections)
