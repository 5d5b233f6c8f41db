"""Schedules equal torch's where torch has them, and get their length from the Trainer."""

from functools import partial

import pytest
import torch
from lightning import Callback
from torch.optim.lr_scheduler import CyclicLR, OneCycleLR

from helpers import Synthetic, quiet_trainer
from zoo.classification.plain_conv import PlainConv
from zoo.parts.optim.schedules import OneCycle, Plateau, TimeDecay, Triangular


def optimizer(*rates: float, kind: type = torch.optim.SGD, **options) -> torch.optim.Optimizer:
    groups = [{"params": [torch.zeros(1, requires_grad=True)], "lr": lr} for lr in rates or (2.0,)]
    return kind(groups, **options)


def course(schedule, steps: int, key: str = "lr") -> list[float]:
    """What each of the steps is made with, in the first group."""
    found = []
    for _ in range(steps):
        value = schedule.optimizer.param_groups[0][key]
        found.append(value[0] if key == "betas" else value)
        schedule.optimizer.step()
        schedule.step()
    return found


@pytest.mark.parametrize(("mode", "gamma"), [("triangular", 1.0), ("triangular2", 0.5)])
def test_triangular_equals_torchs_cyclic(mode, gamma):
    ours = course(Triangular(optimizer(), 60, cycles=3, low=0.25, gamma=gamma), 60)
    theirs = CyclicLR(optimizer(), base_lr=0.5, max_lr=2.0, step_size_up=10, mode=mode, cycle_momentum=False)
    torch.testing.assert_close(torch.tensor(ours), torch.tensor(course(theirs, 60)))


def test_time_decay_is_what_its_formula_says():
    ours = course(TimeDecay(optimizer(), 40, decay=3.0), 40)
    torch.testing.assert_close(ours, [2.0 / (1 + 3.0 * step / 40) for step in range(40)])


@pytest.mark.parametrize(
    ("kind", "options", "key"),
    [(torch.optim.SGD, {"momentum": 0.9}, "momentum"), (torch.optim.AdamW, {"betas": (0.9, 0.99)}, "betas")],
)
def test_the_momentum_cycle_equals_torchs(kind, options, key):
    """torch's cycle of T + 1 steps is ours of T, see test_parts."""
    ours = OneCycle(optimizer(kind=kind, **options), 40, peak=0.4, momentum=(0.95, 0.85))
    theirs = OneCycleLR(
        optimizer(kind=kind, **options), max_lr=2.0, total_steps=41, pct_start=17 / 41, anneal_strategy="linear"
    )
    torch.testing.assert_close(torch.tensor(course(ours, 40, key)), torch.tensor(course(theirs, 40, key)))


def test_without_a_momentum_cycle_momentum_is_left_alone():
    assert set(course(OneCycle(optimizer(momentum=0.7), 10), 10, "momentum")) == {0.7}


def test_annihilation_falls_from_the_end_of_the_cycle_to_nothing():
    schedule = OneCycle(optimizer(), 100, peak=0.4, start=0.1, end=0.1, annihilation=0.2)
    assert [round(schedule.factor(step), 6) for step in (0, 20, 40, 60, 80, 90, 100)] == [
        0.1, 0.55, 1.0, 0.55, 0.1, 0.05, 0.0
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("wrong", "options", "message"),
    [
        ({"annihilation": 0.9}, {}, r"annihilation=0.9: expected a share of what follows the peak, 0\.\.0\.8"),
        ({"momentum": (0.9, 0.8), "kind": torch.optim.Adagrad}, {}, "Adagrad has none"),
    ],
)
def test_one_cycle_refuses_what_cannot_be(wrong, options, message):
    kind = wrong.pop("kind", torch.optim.SGD)
    with pytest.raises(ValueError, match=message):
        OneCycle(optimizer(kind=kind), 10, **wrong)


def test_triangular_refuses_no_cycles():
    with pytest.raises(ValueError, match="cycles=0: expected 1 or more"):
        Triangular(optimizer(), 10, cycles=0)


class Rates(Callback):
    """The learning rate of every optimiser step."""

    def __init__(self) -> None:
        self.all: list[float] = []

    def on_before_optimizer_step(self, trainer, module, optimizer) -> None:
        self.all.append(optimizer.param_groups[0]["lr"])


def trained(schedule, **options) -> list[float]:
    torch.manual_seed(0)
    model = PlainConv(optimizer=partial(torch.optim.SGD, lr=1.0), schedule=schedule)
    rates = Rates()
    data = Synthetic(sizes=(32, 8, 8), image_shape=(1, 28, 28), batch_size=4)
    quiet_trainer(callbacks=[rates], num_sanity_val_steps=0, **options).fit(model, datamodule=data)
    return rates.all


def test_the_trainer_tells_the_length_also_when_it_accumulates_gradients():
    schedule = partial(OneCycle, peak=0.0)
    assert trained(schedule, max_epochs=2) == pytest.approx([1 - step / 16 for step in range(16)])
    assert trained(schedule, max_epochs=2, accumulate_grad_batches=4) == pytest.approx([1, 0.75, 0.5, 0.25])


def test_plateau_waits_and_then_lowers_the_rate_by_what_validation_says():
    """A threshold that nothing can pass makes every validation one without progress."""
    schedule = partial(Plateau, monitor="val/acc", mode="max", patience=1, threshold=10.0, factor=0.5)
    assert trained(schedule, max_epochs=6)[::8] == pytest.approx([1, 1, 1, 0.5, 0.5, 0.25])


def test_plateau_without_its_metric_says_what_is_missing():
    with pytest.raises(Exception, match="val/map_50"):
        trained(partial(Plateau, monitor="val/map_50"), max_epochs=1)
