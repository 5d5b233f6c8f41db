"""Batches that grow: the updates are those of large batches, the schedule keeps time, and a training can be resumed."""

from functools import partial

import pytest
import torch
import torch.nn.functional as F
from lightning import Callback

from callback_runs import data
from callbacks.training.batch_growth import BatchGrowth
from helpers import quiet_trainer
from zoo.classification.plain_conv import PlainConv
from zoo.parts.optim.schedules import Constant, OneCycle

EPOCHS, BATCHES = 4, 5  # of 8 images; the last is left over where two make a batch


def growing(*callbacks: Callback, **options):
    """A Trainer in whose last two epochs two of the loader's batches make a batch."""
    return quiet_trainer(callbacks=[BatchGrowth((0.5,), 2), *callbacks], max_epochs=EPOCHS, **options)


def model(schedule=Constant) -> PlainConv:
    torch.manual_seed(0)
    return PlainConv(widths=(4, 8), optimizer=partial(torch.optim.SGD, lr=0.05, momentum=0.9), schedule=schedule)


class Rates(Callback):
    """The learning rate of every update."""

    def __init__(self) -> None:
        self.seen: list[float] = []

    def on_before_optimizer_step(self, trainer, pl_module, optimizer) -> None:
        self.seen.append(optimizer.param_groups[0]["lr"])


class StopsAfter(Callback):
    """Saves a checkpoint at the end of a batch, as `GracefulStop` does, and ends the training."""

    def __init__(self, batch: int, path) -> None:
        self.batch, self.path = batch, path

    def on_train_batch_end(self, trainer, *_) -> None:
        if trainer.current_epoch * BATCHES + trainer.fit_loop.batch_idx + 1 == self.batch:
            trainer.save_checkpoint(self.path)
            raise RuntimeError("stopped")


def images():
    return data(BATCHES * 8)


def test_updates_are_those_of_large_batches():
    module, rates = model(), Rates()
    trainer = growing(rates)
    trainer.fit(module, datamodule=images())
    assert trainer.accumulate_grad_batches == 1  # again: so that it can train once more
    by_hand, source = model(), images()
    source.setup("fit")
    loader = source.train_dataloader()
    optimizer, updates = torch.optim.SGD(by_hand.parameters(), lr=0.05, momentum=0.9), 0
    for epoch in range(EPOCHS):
        loader.set_epoch(epoch)
        image, label = zip(*loader, strict=True)
        size = 8 if epoch < 2 else 16
        for x, y in zip(torch.cat(image).split(size), torch.cat(label).split(size), strict=True):
            optimizer.zero_grad()
            loss = F.cross_entropy(by_hand(source.normalize(x / 255)), y, reduction="sum") / size
            loss.backward()
            optimizer.step()
            updates += 1
    assert len(rates.seen) == updates == 2 * 5 + 2 * 3
    for ours, theirs in zip(module.parameters(), by_hand.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-6)


def test_a_schedule_keeps_time_by_the_batches_of_the_loader():
    rates, plain, module = Rates(), Rates(), model(OneCycle)
    trainer = growing(rates)
    trainer.fit(module, datamodule=images())
    quiet_trainer(callbacks=[plain], max_epochs=EPOCHS).fit(model(OneCycle), datamodule=images())
    ends = [*range(10), 11, 13, 14, 16, 18, 19]  # the last of the loader's batches in each update
    assert rates.seen == pytest.approx([plain.seen[end] for end in ends])
    assert trainer.lr_scheduler_configs[0].scheduler.last_epoch == EPOCHS * BATCHES


@pytest.mark.parametrize(
    ("batch", "inside"), [(7, False), (12, False), (13, True), (15, False)]
)  # before growing, after an update, between two, after an epoch
@pytest.mark.parametrize("first", [True, False])  # whether the checkpoint is saved before the callback's own hooks
def test_a_training_resumes_inside_an_epoch_and_inside_a_batch(batch, inside, first, tmp_path):
    whole = model(OneCycle)
    growing().fit(whole, datamodule=images())
    path, growth = tmp_path / "stop.ckpt", BatchGrowth((0.5,), 2)
    callbacks = [StopsAfter(batch, path), growth]
    trainer = quiet_trainer(callbacks=callbacks if first else callbacks[::-1], max_epochs=EPOCHS)
    with pytest.raises(RuntimeError, match="stopped"):
        trainer.fit(model(OneCycle), datamodule=images())
    assert trainer.accumulate_grad_batches == 1
    assert ("accumulated_gradients" in torch.load(path, weights_only=True)) == inside
    resumed = model(OneCycle)
    trainer = growing()
    trainer.fit(resumed, datamodule=images(), ckpt_path=path)
    for ours, theirs in zip(resumed.parameters(), whole.parameters(), strict=True):
        assert torch.equal(ours, theirs)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"milestones": (0.6, 0.3)}, "0.6, 0.3"),
        ({"milestones": (0.5, 30)}, "0.5, 30"),
        ({"milestones": (0.0,)}, "0.0"),
        ({"factor": 1}, "factor is 1"),
    ],
)
def test_bad_milestones_and_factors_are_named(options, said):
    with pytest.raises(ValueError, match=said):
        BatchGrowth(**options)


def test_a_training_without_a_number_of_epochs_is_refused():
    trainer = quiet_trainer(callbacks=[BatchGrowth()], max_epochs=-1, max_steps=3)
    with pytest.raises(ValueError, match="max_epochs is -1"):
        trainer.fit(model(), datamodule=images())


def test_sizes_begin_with_whole_epochs_and_never_with_the_first():
    assert BatchGrowth((0.3, 0.6, 0.8), 5).sizes(30) == {0: 1, 9: 5, 18: 25, 24: 125}
    assert BatchGrowth((0.3, 0.6, 0.8), 5).sizes(2) == {0: 1, 1: 25, 2: 125}
    assert BatchGrowth((0.1,), 2).sizes(1) == {0: 1, 1: 2}  # a training of one epoch does not grow
