"""Schedules equal torch's where torch has them, and get their length from the Trainer."""

import copy
from functools import partial

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from lightning import Callback
from torch.optim.lr_scheduler import CyclicLR, MultiStepLR, OneCycleLR

from helpers import Synthetic, quiet_trainer
from zoo.classification.plain_conv import PlainConv
from zoo.parts.optim.schedules import Constant, OneCycle, Plateau, Schedule, Step, TimeDecay, Triangular

some = settings(max_examples=60, deadline=None, derandomize=True)
shares = st.floats(0, 1)


def optimizer(*rates: float, kind: type = torch.optim.SGD, **options) -> torch.optim.Optimizer:
    groups = [{"params": [torch.zeros(1, requires_grad=True)], "lr": lr} for lr in rates or (2.0,)]
    return kind(groups, **options)


def values_over(schedule, steps: int, key: str = "lr") -> list[float]:
    """The first group's learning rate (or momentum or first beta) in each of the steps."""
    values = []
    for _ in range(steps):
        value = schedule.optimizer.param_groups[0][key]
        values.append(value[0] if key == "betas" else value)
        schedule.optimizer.step()
        schedule.step()
    return values


def test_a_schedule_must_define_its_factor():
    with pytest.raises(TypeError, match=r"abstract method '?factor"):
        Schedule(optimizer())


# One cycle


@pytest.mark.parametrize("anneal", ["linear", "cos"])
@pytest.mark.parametrize("total", [10, 50])
def test_one_cycle_equals_torchs_whose_end_is_a_step_earlier(anneal, total):
    """torch reaches its end at the last of `total_steps`, ours after it; so ours of T is torch's of T + 1, and
    its peak is at pct_start * (T + 1) - 1. On the way up torch's "cos" is curved and ours straight."""
    peak, start, end = 0.4, 0.1, 0.01
    ours = values_over(OneCycle(optimizer(), total, peak, start, end, anneal), total)
    theirs = OneCycleLR(
        optimizer(),
        max_lr=2.0,
        total_steps=total + 1,
        pct_start=(peak * total + 1) / (total + 1),
        anneal_strategy=anneal,
        cycle_momentum=False,
        div_factor=1 / start,
        final_div_factor=start / end,
    )
    same = slice(0 if anneal == "linear" else round(peak * total), None)
    expected = torch.tensor(values_over(theirs, total))
    torch.testing.assert_close(torch.tensor(ours)[same], expected[same], atol=1e-6, rtol=0)
    assert max(ours) == 2.0


@some
@given(st.integers(0, 60), shares, shares, shares, st.sampled_from(["linear", "cos"]))
def test_one_cycle_rises_to_one_and_falls_and_never_leaves_its_range(total, peak, start, end, anneal):
    schedule = OneCycle(optimizer(), total, peak, start, end, anneal)
    factors = [schedule.factor(step) for step in range(total + 3)]
    assert all(min(start, end) - 1e-9 <= factor <= 1 + 1e-9 for factor in factors)
    top = round(peak * total)
    rising, falling = factors[: max(1, top)], factors[top + 1 :]
    assert rising == sorted(rising)
    assert falling == sorted(falling, reverse=True)
    if total > 0 and peak < 1:
        assert factors[total] == factors[-1] == pytest.approx(end)
    if peak > 0 and total:
        assert factors[0] == pytest.approx(start)


@pytest.mark.parametrize(
    ("kind", "options", "key"),
    [(torch.optim.SGD, {"momentum": 0.9}, "momentum"), (torch.optim.AdamW, {"betas": (0.9, 0.99)}, "betas")],
)
def test_the_momentum_cycle_equals_torchs(kind, options, key):
    """torch's cycle of T + 1 steps is ours of T, see above."""
    ours = OneCycle(optimizer(kind=kind, **options), 40, peak=0.4, momentum=(0.95, 0.85))
    theirs = OneCycleLR(
        optimizer(kind=kind, **options), max_lr=2.0, total_steps=41, pct_start=17 / 41, anneal_strategy="linear"
    )
    torch.testing.assert_close(torch.tensor(values_over(ours, 40, key)), torch.tensor(values_over(theirs, 40, key)))


def test_without_a_momentum_cycle_momentum_is_unchanged():
    assert set(values_over(OneCycle(optimizer(momentum=0.7), 10), 10, "momentum")) == {0.7}


def test_annihilation_falls_from_the_end_of_the_cycle_to_0():
    schedule = OneCycle(optimizer(), 100, peak=0.4, start=0.1, end=0.1, annihilation=0.2)
    assert [round(schedule.factor(step), 6) for step in (0, 20, 40, 60, 80, 90, 100)] == [
        0.1, 0.55, 1.0, 0.55, 0.1, 0.05, 0.0
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"peak": 1.2}, r"expected a peak in 0\.\.1 and 'linear' or 'cos'"),
        ({"peak": -0.1}, r"expected a peak in 0\.\.1 and 'linear' or 'cos'"),
        ({"anneal": "cosine"}, r"expected a peak in 0\.\.1 and 'linear' or 'cos'"),
        ({"annihilation": 0.9}, r"annihilation=0.9: expected a share of what follows the peak, 0\.\.0\.8"),
        ({"momentum": (0.9, 0.8), "kind": torch.optim.Adagrad}, "Adagrad has none"),
    ],
)
def test_one_cycle_refuses_impossible_arguments(wrong, message):
    options = dict(wrong)
    kind = options.pop("kind", torch.optim.SGD)
    with pytest.raises(ValueError, match=message):
        OneCycle(optimizer(kind=kind), 10, **options)


# The others


@pytest.mark.parametrize(("mode", "gamma"), [("triangular", 1.0), ("triangular2", 0.5)])
def test_triangular_equals_torchs_cyclic(mode, gamma):
    ours = values_over(Triangular(optimizer(), 60, cycles=3, low=0.25, gamma=gamma), 60)
    theirs = CyclicLR(optimizer(), base_lr=0.5, max_lr=2.0, step_size_up=10, mode=mode, cycle_momentum=False)
    torch.testing.assert_close(torch.tensor(ours), torch.tensor(values_over(theirs, 60)))


def test_triangular_refuses_no_cycles():
    with pytest.raises(ValueError, match="cycles=0: expected 1 or more"):
        Triangular(optimizer(), 10, cycles=0)


def test_time_decay_equals_its_formula():
    ours = values_over(TimeDecay(optimizer(), 40, decay=3.0), 40)
    torch.testing.assert_close(ours, [2.0 / (1 + 3.0 * step / 40) for step in range(40)])


@pytest.mark.parametrize("milestones", [(0.6,), (0.3, 0.5, 0.9), ()])
def test_step_equals_multi_step(milestones):
    ours = Step(optimizer(), 20, milestones, gamma=0.3)
    theirs = MultiStepLR(optimizer(), [round(m * 20) for m in milestones], gamma=0.3)
    torch.testing.assert_close(values_over(ours, 20), values_over(theirs, 20))


def test_constant_is_constant():
    assert values_over(Constant(optimizer(), 5), 5) == [2.0] * 5


@pytest.mark.parametrize("make", [Constant, OneCycle, Step, TimeDecay, Triangular])
def test_a_schedule_that_goes_on_is_over_its_new_length_and_says_so(make, capfd):
    """Half of 20 steps, then 30 more of 40: as one of 40 steps from its tenth on, also with another learning rate."""
    first = make(optimizer(2.0), 20)
    values_over(first, 10)
    state = copy.deepcopy((first.state_dict(), first.optimizer.state_dict()))
    for steps, rate in ((20, 2.0), (40, 2.0), (40, 3.0)):
        resumed = make(optimizer(rate), steps)
        resumed.optimizer.load_state_dict(state[1])
        resumed.load_state_dict(state[0])
        said = capfd.readouterr().err
        assert values_over(resumed, steps - 10) == values_over(make(optimizer(rate), steps), steps)[10:]
        assert ("40 steps long instead of 20" in said) == (steps == 40)


@pytest.mark.parametrize("make", [Constant, OneCycle, Step])
def test_a_schedule_keeps_the_ratio_of_groups_and_resumes(make):
    schedule = make(optimizer(2.0, 0.5), 10)
    values_over(schedule, 4)
    first, second = (group["lr"] for group in schedule.optimizer.param_groups)
    assert first == pytest.approx(4 * second)
    other = make(optimizer(2.0, 0.5), 10)
    other.optimizer.load_state_dict(schedule.optimizer.state_dict())
    other.load_state_dict(schedule.state_dict())
    assert values_over(other, 6) == values_over(schedule, 6)


# In a training


class Rates(Callback):
    """The learning rate of every optimizer step."""

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


def test_the_trainer_sets_the_length_also_with_gradient_accumulation():
    schedule = partial(OneCycle, peak=0.0)
    assert trained(schedule, max_epochs=2) == pytest.approx([1 - step / 16 for step in range(16)])
    assert trained(schedule, max_epochs=2, accumulate_grad_batches=4) == pytest.approx([1, 0.75, 0.5, 0.25])


def test_plateau_waits_and_then_lowers_the_rate_if_validation_does_not_improve():
    """The threshold cannot be reached, so that no validation counts as an improvement."""
    schedule = partial(Plateau, monitor="val/acc", mode="max", patience=1, threshold=10.0, factor=0.5)
    assert trained(schedule, max_epochs=6)[::8] == pytest.approx([1, 1, 1, 0.5, 0.5, 0.25])


def test_plateau_without_its_metric_names_the_metric():
    with pytest.raises(Exception, match="val/map_50"):
        trained(partial(Plateau, monitor="val/map_50"), max_epochs=1)
