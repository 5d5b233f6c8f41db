"""Learning rates before training: `zoo schedule` draws them, and the range test tries them."""

import math
from functools import partial
from pathlib import Path

import pytest
import torch
import yaml
from lightning import Callback
from lightning.pytorch.callbacks import EMAWeightAveraging
from matplotlib.backends.backend_agg import FigureCanvasAgg
from PIL import Image
from torch import nn

from callbacks.monitors import lr_range
from callbacks.monitors.lr_range import LRRangeTest
from callbacks.training.lsuv import LSUV
from datamodules.augment.images import Crop
from helpers import Synthetic, fingerprint_of_global_randomness, quiet_trainer
from zoo.classification.plain_conv import PlainConv
from zoo.command import recipes
from zoo.command.actions import schedule
from zoo.command.main import main
from zoo.parts.optim.schedules import Constant, OneCycle

LENGTH = 8  # steps an epoch of `data()`


def model(**options) -> PlainConv:
    torch.manual_seed(0)
    return PlainConv(
        **{"optimizer": partial(torch.optim.AdamW, lr=0.01), "schedule": partial(OneCycle, momentum=(0.95, 0.85))}
        | options
    )


def data() -> Synthetic:
    return Synthetic(sizes=(8 * LENGTH, 8, 8), image_shape=(1, 28, 28), batch_size=8, augment=[Crop(2)], seed=1)


class Seen(Callback):
    """Learning rate and momentum of each optimizer step."""

    def __init__(self) -> None:
        self.rates, self.momenta = [], []

    def on_before_optimizer_step(self, trainer, pl_module, optimizer) -> None:
        self.rates.append(optimizer.param_groups[0]["lr"])
        self.momenta.append(optimizer.param_groups[0]["betas"][0])


@pytest.mark.parametrize(
    "options", [{"max_epochs": 2}, {"max_epochs": 2, "accumulate_grad_batches": 4}, {"max_steps": 20}]
)
def test_the_probe_records_what_the_training_does(options):
    seen, probe, probed = Seen(), schedule.ScheduleProbe(), model()
    before = [p.clone() for p in probed.parameters()]
    quiet_trainer(callbacks=[seen], **options).fit(model(), datamodule=data())
    quiet_trainer(callbacks=[probe], num_sanity_val_steps=0, **options).fit(probed, datamodule=data())
    (rates,), (momenta,) = probe.rates.values(), probe.momenta.values()
    assert rates == pytest.approx(seen.rates)
    assert momenta == pytest.approx(seen.momenta)
    assert len(set(rates)) > 4 or "accumulate_grad_batches" in options
    assert probe.epochs == (None if "max_steps" in options else 2)
    assert all(torch.equal(p, q) for p, q in zip(probed.parameters(), before, strict=True))


class ByEpoch(PlainConv):
    """A system whose schedule is stepped after each epoch, as users' own often are."""

    def configure_optimizers(self):
        optimizer = torch.optim.SGD(self.parameters(), lr=1.0)
        return [optimizer], [torch.optim.lr_scheduler.StepLR(optimizer, 1, gamma=0.5)]


def test_the_probe_steps_a_schedule_of_epochs_once_an_epoch():
    probe = schedule.ScheduleProbe()
    quiet_trainer(callbacks=[probe], max_epochs=3, num_sanity_val_steps=0).fit(ByEpoch(), datamodule=data())
    assert list(probe.rates.values()) == [[1.0] * LENGTH + [0.5] * LENGTH + [0.25] * LENGTH]
    assert not probe.momenta


def test_groups_with_the_same_values_are_one_curve():
    assert schedule.distinct({"a": [1, 2], "b": [1, 3], "c": [1, 2]}) == {"a and c": [1, 2], "b": [1, 3]}


def test_the_command_draws_and_writes_nothing_else(tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    assert main(["schedule", "digits/small", "--out", "figures", "--trainer.max_epochs", "2"]) == 0
    assert capfd.readouterr().out.split() == ["figures/digits-small-schedule.png"]
    assert Image.open("figures/digits-small-schedule.png").size[0] > 800
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == [
        tmp_path / "figures" / "digits-small-schedule.png"
    ]


def test_a_schedule_that_depends_on_the_training_is_refused(tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    recipe = recipes.read(recipes.find("digits/small"))
    recipe["model"]["init_args"]["schedule"] = {"class_path": "zoo.parts.optim.schedules.Plateau"}
    Path("waits.yaml").write_text(yaml.safe_dump(recipe))
    assert main(["schedule", "waits.yaml"]) == 2
    assert "waits for val/loss" in capfd.readouterr().err


def test_an_endless_training_is_refused(tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    assert main(["schedule", "digits/small", "--trainer.max_epochs", "-1"]) == 2
    assert "--trainer.max_epochs N" in capfd.readouterr().err


# ---------------------------------------------------------------------------------------------------- the range test


class Ends(Callback):
    """Random state, steps and epochs at the end of the training."""

    def on_train_end(self, trainer, pl_module) -> None:
        self.found = fingerprint_of_global_randomness(), trainer.global_step, trainer.current_epoch


def trained(folder: Path, *callbacks) -> tuple[PlainConv, Ends]:
    ends = Ends()
    module = model(norm=nn.BatchNorm2d)
    trainer = quiet_trainer(
        callbacks=[*callbacks, EMAWeightAveraging(decay=0.9), LSUV(), ends], max_epochs=2, default_root_dir=folder
    )
    torch.manual_seed(3)
    trainer.fit(module, datamodule=data())
    return module, ends


def test_a_training_after_a_range_test_is_the_same_as_without_it(tmp_path):
    plain, plain_ends = trained(tmp_path / "plain")
    test = LRRangeTest(1e-4, 1.0, 2.0)
    module, ends = trained(tmp_path / "tested", test)
    assert test.optimal_lr.results["lr"][0] == pytest.approx(1e-4)
    assert len(test.optimal_lr.results["lr"]) > 10
    assert all(torch.equal(v, module.state_dict()[k]) for k, v in plain.state_dict().items())
    assert ends.found == plain_ends.found
    (figure,) = tmp_path.glob("tested/**/lr_range_test.png")
    assert Image.open(figure).size[0] > 500
    assert not list(tmp_path.glob("**/.lr_find*"))


def test_groups_keep_the_ratio_of_their_rates_in_a_range_test(tmp_path):
    stepped = []

    class RecordingSGD(torch.optim.SGD):
        def step(self, closure=None):
            stepped.append([group["lr"] for group in self.param_groups])
            return super().step(closure)

    def optimizer(params):
        (_, first), *others = params
        return RecordingSGD([{"params": [first], "lr": 0.02}, {"params": [p for _, p in others], "lr": 0.005}])

    test = LRRangeTest(1e-4, 1e-2, 2.0)
    quiet_trainer(callbacks=[test], max_epochs=1, default_root_dir=tmp_path, num_sanity_val_steps=0).fit(
        model(optimizer=optimizer, schedule=Constant), datamodule=data()
    )
    tried, trained = stepped[:-LENGTH], stepped[-LENGTH:]
    drawn = test.optimal_lr.results["lr"]
    assert [first for first, _ in tried][: len(drawn)] == pytest.approx(drawn)
    assert all(second == pytest.approx(first / 4) for first, second in tried)
    assert trained == [[0.02, 0.005]] * LENGTH


def test_the_loss_drawn_starts_at_the_first_loss(tmp_path, monkeypatch):
    """With almost no learning rate it stays at that; Lightning's own average starts at half of it."""
    drawn, draw = [], lr_range.draw
    monkeypatch.setattr(lr_range, "draw", lambda *values: drawn.append(values) or draw(*values))
    trained(tmp_path, LRRangeTest(1e-9, 1e-7, 1.5))
    ((_, losses, _),) = drawn
    assert len(losses) > 10
    assert max(losses) < 1.3 * min(losses)


def test_the_steepest_fall_is_by_the_logarithm_of_the_rate_and_before_the_lowest_loss():
    rates = [10.0**i for i in range(-5, 2)]
    assert lr_range.steepest(rates, [2.30, 2.29, 2.2, 1.4, 1.2, 5.0, math.nan]) == 1e-2
    assert lr_range.steepest(rates, [2.30, 2.31, 2.4, 2.5, 2.6, 5.0, 9.0]) is None


@pytest.mark.parametrize("options", [{"start": 1.0, "end": 0.1}, {"gamma": 1.0}, {"start": 0.0}])
def test_an_impossible_range_is_refused(options):
    with pytest.raises(ValueError, match="expected 0 < start < end"):
        LRRangeTest(**options)


def test_groups_are_explained_once_beside_the_panels():
    """Groups that differ in either value are a line each, in both panels of the same color."""
    rates = {"weights": [0.01, 0.0499, 0.01], "biases": [0.01, 0.0499, 0.01], "head": [0.002, 0.00999, 0.002]}
    momenta = {"weights": [0.9, 0.8, 0.9], "biases": [0.9, 0.8, 0.9], "head": [0.9, 0.8, 0.9]}
    figure = schedule.draw(rates, momenta, epochs=1, title="shelf/name")
    FigureCanvasAgg(figure).draw()
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == ["weights and biases", "head"]
    assert not any(axes.get_legend() or legend.get_window_extent().overlaps(axes.bbox) for axes in figure.axes)
    assert len({tuple(line.get_color() for line in axes.lines) for axes in figure.axes}) == 1
    assert [text.get_text() for text in figure.axes[0].texts] == ["0.05", "0.01"]


def test_without_momentum_there_is_one_panel():
    figure = schedule.draw({"all": [0.1, 0.2, 0.1]}, {}, epochs=None, title="shelf/name")
    assert [axes.get_xlabel() for axes in figure.axes] == ["step"]
    assert len(schedule.draw({"all": [0.1, 0.2]}, {"all": [0.9, 0.8]}, epochs=1, title="shelf/name").axes) == 2


def test_the_range_test_goes_over_few_data_again_and_leaves_the_length_of_the_training(tmp_path):
    """The test has more steps than the training."""
    test = LRRangeTest(1e-6, 1e3, 2.0, early_stop_threshold=None)
    assert test.steps == 30
    trainer = quiet_trainer(max_epochs=1, num_sanity_val_steps=0, callbacks=[test], default_root_dir=tmp_path)
    trainer.fit(model(), datamodule=data())
    assert len(test.optimal_lr.results["lr"]) == 30
    assert trainer.global_step == LENGTH
