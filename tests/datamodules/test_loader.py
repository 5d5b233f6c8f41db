"""The loader shares samples exactly, is a function of seed, epoch and rank, and resumes bit-equal inside an epoch."""

import os
import signal
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from lightning import Callback
from torch.utils.data import dataloader

from callbacks.runtime.lost_process import worker_line
from datamodules import loader as module
from datamodules.augment.images import Crop, Cutout, Flip
from datamodules.loader import InMemory, Loader
from helpers import Recorder, Synthetic, fingerprint_of_global_randomness, quiet_trainer, record
from zoo.classification.resnet_mini import ResNetMini

some = settings(max_examples=150, deadline=None, derandomize=True)
samples_and_ranks = st.integers(1, 5).flatmap(lambda world: st.tuples(st.integers(world, 120), st.just(world)))
positive, epochs, seeds = st.integers(1, 40), st.integers(0, 3), st.integers(0, 2**63)


def numbered(n: int) -> InMemory:
    return InMemory(torch.zeros(n, 1, 1, 1, dtype=torch.uint8), torch.arange(n))


def loader(n: int, batch_size: int, **options) -> Loader:
    return Loader(numbered(n), batch_size, **options)


def labels(batches) -> list[list[int]]:
    return [batch.label.tolist() for batch in batches]


def ranks(n: int, batch_size: int, world_size: int, epoch: int = 0, **options) -> list[list[list[int]]]:
    """The labels of each batch of each rank in an epoch."""
    loaders = [loader(n, batch_size, rank=r, world_size=world_size, **options) for r in range(world_size)]
    for each in loaders:
        each.set_epoch(epoch)
    given = [labels(each) for each in loaders]
    assert [len(batches) for batches in given] == [len(each) for each in loaders]
    return given


@some
@given(samples_and_ranks, positive, epochs, seeds)
def test_training_batches_are_disjoint_and_equally_many_and_large_and_cover_all_but_the_end(shares, size, epoch, seed):
    n, world = shares
    given = ranks(n, size, world, epoch, shuffle=True, seed=seed)
    assert len({len(batches) for batches in given}) == 1
    lengths = {len(batch) for batches in given for batch in batches}
    assert lengths == {min(size, n // world)}
    seen = [i for batches in given for batch in batches for i in batch]
    assert len(set(seen)) == len(seen)
    assert set(seen) <= set(range(n))
    assert n - len(seen) < lengths.pop() * world


@some
@given(samples_and_ranks, positive, epochs)
def test_evaluation_yields_every_sample_once_in_equally_many_batches_none_of_them_empty(shares, size, epoch):
    n, world = shares
    given = ranks(n, size, world, epoch)
    assert sorted(i for batches in given for batch in batches for i in batch) == list(range(n))
    assert len({len(batches) for batches in given}) == 1
    sizes = {len(batch) for batches in given for batch in batches}
    unequal_shares_of_single_samples = size == 1 and n % world
    assert 1 <= min(sizes) <= max(sizes) <= (2 if unequal_shares_of_single_samples else size)


@some
@given(st.integers(1, 20), st.integers(1, 10), epochs, seeds)
def test_two_ranks_with_batch_b_see_the_global_batches_of_one_rank_with_2b(steps, size, epoch, seed):
    n = 2 * size * steps + 1
    first, second = ranks(n, size, 2, epoch, shuffle=True, seed=seed)
    (alone,) = ranks(n, 2 * size, 1, epoch, shuffle=True, seed=seed)
    assert [sorted(a + b) for a, b in zip(first, second, strict=True)] == [sorted(batch) for batch in alone]


def test_fewer_samples_than_ranks_is_an_error():
    with pytest.raises(ValueError, match="3 samples cannot be shared by 4 processes"):
        loader(3, 1, world_size=4)


def order_of(seed: int, epoch: int) -> list[list[int]]:
    (given,) = ranks(100, 10, 1, epoch, shuffle=True, seed=seed)
    return given


def test_the_order_is_a_function_of_seed_and_epoch_and_leaves_the_global_randomness_as_it_is():
    before = fingerprint_of_global_randomness()
    orders = [order_of(seed, epoch) for seed in (0, 1) for epoch in (0, 1)]
    assert fingerprint_of_global_randomness() == before
    torch.rand(3)
    assert orders == [order_of(seed, epoch) for seed in (0, 1) for epoch in (0, 1)]
    assert len({str(order) for order in orders}) == 4
    assert order_of(0, 0)[0] != sorted(order_of(0, 0)[0])


@some
@given(st.integers(1, 60), st.integers(1, 9), epochs, st.data())
def test_a_state_restored_at_any_position_continues_exactly(n, size, epoch, data):
    source, copy = (loader(n, size, shuffle=True, seed=3) for _ in range(2))
    source.set_epoch(epoch)
    running, position = iter(source), data.draw(st.integers(0, len(source)))
    for _ in range(position):
        next(running)
    copy.load_state_dict(source.state_dict())
    copy.set_epoch(epoch)
    assert source.state_dict() == copy.state_dict() == {"epoch": epoch, "position": position}
    assert labels(copy) == labels(running)
    assert len(labels(copy)) == len(copy)  # only once: afterwards a complete epoch


def test_a_new_iteration_starts_at_the_beginning():
    each = loader(20, 4, shuffle=True)
    epoch = labels(each)
    next(iter(each))
    assert labels(each) == epoch


def test_a_new_epoch_starts_at_the_beginning():
    each = loader(20, 4, shuffle=True)
    each.load_state_dict({"epoch": 2, "position": 3})
    each.set_epoch(3)
    assert each.state_dict() == {"epoch": 3, "position": 0}
    assert len(labels(each)) == 5


def test_the_generator_is_a_function_of_seed_epoch_rank_and_position():
    def draws(seed: int, epoch: int, rank: int) -> list[float]:
        each = loader(20, 4, shuffle=True, seed=seed, rank=rank, world_size=2)
        each.set_epoch(epoch)
        return [torch.rand((), generator=each.generator()).item() for _ in each]

    keys = [(seed, epoch, rank) for seed in (0, 1) for epoch in (0, 1) for rank in (0, 1)]
    drawn = [draws(*key) for key in keys]
    torch.rand(3)
    assert drawn == [draws(*key) for key in keys]
    assert len({value for values in drawn for value in values}) == 8 * 2


# With Lightning's Trainer


def test_overfit_batches_of_lightning_repeats_the_same_batches():
    seen = record(Synthetic(batch_size=8), max_epochs=2, overfit_batches=2).seen["train"]
    assert [batch.label.tolist() for batch in seen[:2]] == [batch.label.tolist() for batch in seen[2:]]
    assert len(seen) == 4


class KeepLoaders(Callback):
    """Keeps the loaders that the Trainer really uses."""

    def on_train_epoch_end(self, trainer, module) -> None:
        self.train, self.val = trainer.train_dataloader, trainer.val_dataloaders


def test_lightning_keeps_the_loader_and_announces_each_epoch_through_its_batch_sampler(monkeypatch):
    """`Loader` has no other way to learn the number of the epoch, on which the order depends."""
    announced, kept = [], KeepLoaders()

    class Sampler:
        def __init__(self, owner: Loader) -> None:
            self.owner = owner

        def set_epoch(self, epoch: int) -> None:
            announced.append((self.owner, epoch))
            self.owner.set_epoch(epoch)

    monkeypatch.setattr(Loader, "batch_sampler", property(lambda self: SimpleNamespace(sampler=Sampler(self))))
    data = Synthetic(batch_size=8, seed=3)
    seen = record(data, kept, max_epochs=3).seen["train"]
    assert kept.train is data.train_loader
    assert {type(each) for each in kept.val.values()} == {Loader}
    epochs = [epoch for owner, epoch in announced if owner is data.train_loader]
    assert list(dict.fromkeys(epochs)) == [0, 1, 2]
    expected = Loader(data.datasets["train"], 8, shuffle=True, seed=3)
    for epoch in range(3):
        expected.set_epoch(epoch)
        assert labels(seen[5 * epoch : 5 * epoch + 5]) == labels(expected)


# Killed and resumed


class Killed(Exception):
    pass


class KillAt(Callback):
    """Saves a checkpoint at the `count`-th call of `hook` and raises."""

    def __init__(self, hook: str, count: int, path: Path) -> None:
        self.left, self.path = count, path
        setattr(self, hook, self.strike)

    def strike(self, trainer, *args) -> None:
        self.left -= 1
        if self.left == 0:
            trainer.save_checkpoint(self.path)
            raise Killed


def fit(callbacks=(), ckpt_path=None, init=0, **options):
    """Three epochs of 5 augmented batches."""
    torch.manual_seed(init)
    model = ResNetMini(widths=(4, 6), strides=(1, 2), num_classes=10, in_channels=2)
    data = Synthetic(image_shape=(2, 10, 12), batch_size=8, augment=[Crop(2), Flip(), Cutout(4)], seed=1)
    trainer = quiet_trainer(max_epochs=3, callbacks=list(callbacks), num_sanity_val_steps=1, **options)
    trainer.fit(model, datamodule=data, ckpt_path=ckpt_path)
    return torch.cat([value.flatten().double() for value in model.net.state_dict().values()]), trainer


LIMITS = {"complete epochs": {}, "limit_train_batches": {"limit_train_batches": 3}}


@pytest.fixture(scope="module", params=LIMITS.values(), ids=LIMITS.keys())
def uninterrupted(request):
    return fit(**request.param)[0], request.param


@pytest.mark.parametrize(
    ("hook", "count"),
    [
        *(("on_train_batch_end", step) for step in (1, 2, 3, 4, 5, 6)),
        ("on_validation_end", 3),
        ("on_train_epoch_end", 1),
        ("on_train_epoch_end", 2),
    ],
)
def test_a_killed_run_resumes_bit_equal(uninterrupted, hook, count, tmp_path):
    expected, limits = uninterrupted
    path = tmp_path / "killed.ckpt"
    with pytest.raises(Killed):
        fit([KillAt(hook, count, path)], **limits)
    found, trainer = fit(ckpt_path=path, init=1, **limits)
    assert trainer.global_step == 3 * limits.get("limit_train_batches", 5)
    assert torch.equal(found, expected)


def test_a_checkpoint_that_was_only_validated_does_not_shorten_a_later_fit(tmp_path):
    with pytest.raises(Killed):
        record(Synthetic(batch_size=8), KillAt("on_train_batch_end", 2, tmp_path / "killed.ckpt"))
    data = Synthetic(batch_size=8)
    quiet_trainer().validate(Recorder(), datamodule=data, ckpt_path=tmp_path / "killed.ckpt")
    assert len(record(data).seen["train"]) == 5


def test_augmentation_and_initial_weights_matter_in_these_runs():
    assert not torch.equal(fit()[0], fit(init=1)[0])
    plain, augmented = (record(Synthetic(augment=augment)).seen["train"][0] for augment in ([], [Flip()]))
    assert not torch.equal(plain.image, augmented.image)


def test_validation_before_and_between_training_batches_does_not_change_the_order():
    often = record(Synthetic(batch_size=8), max_epochs=2, val_check_interval=2, num_sanity_val_steps=2)
    never = record(Synthetic(batch_size=8), max_epochs=2, limit_val_batches=0)
    assert len(often.seen["val"]) > 2
    for a, b in zip(often.seen["train"], never.seen["train"], strict=True):
        assert torch.equal(a.image, b.image)


@pytest.mark.parametrize(
    "error",
    [
        ConnectionResetError(104, "Connection reset by peer"),
        EOFError(),
        RuntimeError("DataLoader worker (pid(s) 123) exited unexpectedly"),
    ],
)
def test_a_worker_that_dies_while_its_connection_is_read_is_named_with_the_signal(monkeypatch, error):
    """By what torch sees first, it reports the connection alone, or that the process has ended without saying how."""

    def read(self, timeout=None):
        os.kill(self._workers[0].pid, signal.SIGKILL)
        raise error

    monkeypatch.setattr(dataloader._MultiProcessingDataLoaderIter, "_try_get_data", read)
    with pytest.raises(RuntimeError, match="Killed") as raised:
        list(loader(8, 2, num_workers=2))
    assert "worker" in worker_line(raised.value)


def test_an_error_of_a_connection_without_a_dead_worker_stays_what_it_is(monkeypatch):
    def read(self, timeout=None):
        raise ConnectionResetError(104, "Connection reset by peer")

    monkeypatch.setattr(module, "NOTICED", 0.1)
    monkeypatch.setattr(dataloader._MultiProcessingDataLoaderIter, "_try_get_data", read)
    with pytest.raises(ConnectionResetError):
        list(loader(8, 2, num_workers=1))
