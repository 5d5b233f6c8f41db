"""The curves: every metric is recorded in its epoch, and all of them are drawn and legible."""

import math

import numpy as np
import pytest
import torch
from lightning import Callback, LightningModule
from lightning.pytorch.callbacks import ModelCheckpoint
from PIL import Image
from torch.utils.data import DataLoader

from callbacks.figures.axis import Axis, percent_axis
from callbacks.monitors.curves import Curves, draw
from callbacks.training.l1 import L1
from helpers import Synthetic
from zoo.classification.resnet_mini import ResNetMini
from zoo.system import System


def small_net(**options) -> ResNetMini:
    torch.manual_seed(0)
    return ResNetMini(3, widths=(4, 8), strides=(1, 1), **options)


def small_data(**options) -> Synthetic:
    return Synthetic(image_shape=(1, 8, 8), num_classes=3, batch_size=8, eval_batch_size=5, **options)


def titles(figure) -> list[str]:
    return [axes.get_title(loc="left") for axes in figure.axes]


# What is recorded


class Notes(Callback):
    """Writes down what Lightning passes to loggers at the end of each epoch, when all of it is known."""

    def __init__(self):
        self.notes = []

    def on_train_epoch_start(self, trainer, module):
        self.on_train_end(trainer, module)

    def on_train_end(self, trainer, module):
        self.notes.append({name: float(value) for name, value in trainer.callback_metrics.items()})


def test_curves_keep_every_epoch(trainer, published, texts_of):
    curves, notes = Curves(), Notes()
    trainer(curves, notes, max_epochs=4, check_val_every_n_epoch=2).fit(small_net(), small_data(watch_test=True))
    for split, epochs in (("train", (1, 2, 3, 4)), ("val", (2, 4)), ("test", (2, 4))):
        for metric in ("loss", "acc"):
            name = f"{split}/{metric}"
            assert curves.history[name] == pytest.approx({epoch: notes.notes[epoch][name] for epoch in epochs})
    assert [figure.name for figure in published] == ["curves"]
    assert f"validation {100 * curves.history['val/acc'][4]:.2f} %" in texts_of(published[0].figure)


class Own(LightningModule):
    """A user's own module with metrics of all kinds: values show in which epoch each was logged."""

    axes = {"f1": percent_axis("F1 score", "F1")}

    def __init__(self) -> None:
        super().__init__()
        self.net = torch.nn.Linear(1, 1)

    def training_step(self, batch, batch_idx):
        epoch = self.current_epoch + 1.0
        self.log("train/margin", epoch, on_step=True, on_epoch=True)
        self.log("temperature", 10 * epoch, on_step=False, on_epoch=True)
        if self.current_epoch % 2:
            self.log("now_and_then", 20 * epoch, on_step=False, on_epoch=True)
        return self.net(batch).mean()

    def on_train_epoch_end(self):
        self.log("train/late", 100 * (self.current_epoch + 1.0))

    def validation_step(self, batch, batch_idx):
        self.log("val/f1", (self.current_epoch + 1) / 10)
        self.log("val/broken", math.nan)

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.0)


class LogsEarly(Callback):
    """Sets a metric at the start of each epoch, as Lightning's `LearningRateMonitor` does."""

    def on_train_epoch_start(self, trainer, module):
        trainer.callback_metrics["lr"] = torch.tensor(1000.0 * (trainer.current_epoch + 1))


@pytest.mark.parametrize("order", [1, -1], ids=["curves first", "curves last"])
def test_every_metric_is_drawn_and_belongs_to_the_epoch_in_which_it_was_logged(
    trainer, published, texts_of, assert_legible, order
):
    callbacks = [curves := Curves(), L1(strength=0.0, zero=1e6), LogsEarly()][::order]
    loader = DataLoader(torch.ones(4, 1))
    trainer(*callbacks, max_epochs=4).fit(Own(), loader, loader)
    epochs = (1, 2, 3, 4)
    assert math.isnan(curves.history.pop("val/broken")[4])
    assert curves.history == {
        "train/margin": {epoch: epoch for epoch in epochs},
        "train/late": {epoch: 100 * epoch for epoch in epochs},
        "temperature": {epoch: 10 * epoch for epoch in epochs},
        "now_and_then": {2: 40, 4: 80},
        "lr": {epoch: 1000 * epoch for epoch in epochs},
        "sparsity": dict.fromkeys(epochs, 1.0),
        "val/f1": pytest.approx({epoch: epoch / 10 for epoch in epochs}),
    }
    figure = published[-1].figure
    assert titles(figure) == ["F1 score", "broken", "late", "lr", "margin", "now_and_then", "sparsity", "temperature"]
    assert {"F1 in %", "validation 40.00 %", "train 4", "40", "1", "validation nan"} <= set(texts_of(figure))
    assert_legible(figure)


def test_curves_go_on_after_a_resume(trainer, tmp_path):
    keep = ModelCheckpoint(tmp_path, save_last=True)
    complete = Curves()
    trainer(complete, keep, max_epochs=2, enable_checkpointing=True).fit(small_net(), small_data())
    resumed = Curves()
    trainer(resumed, max_epochs=3).fit(small_net(), small_data(), ckpt_path=tmp_path / "last.ckpt")
    assert set(resumed.history["train/loss"]) == set(resumed.history["val/acc"]) == {1, 2, 3}
    for name, values in complete.history.items():
        assert values.items() <= resumed.history[name].items()
    trainer(resumed, max_epochs=1).fit(small_net(), small_data())
    assert set(resumed.history["train/loss"]) == {1}, "another training starts anew"


def test_curves_are_drawn_when_training_breaks(trainer, published):
    class Break(Callback):
        def on_train_batch_start(self, trainer, *_):
            if trainer.current_epoch == 2:
                raise RuntimeError("broken")

    curves = Curves()
    with pytest.raises(RuntimeError, match="broken"):
        trainer(curves, Break(), max_epochs=5).fit(small_net(), small_data())
    assert [figure.name for figure in published] == ["curves"]
    assert set(curves.history["train/loss"]) == {1, 2}


def test_curves_without_validation(trainer, published, texts_of):
    trainer(Curves(every_n_epochs=1), max_epochs=2).fit(small_net(), small_data(sizes=(40, 0, 17)))
    assert len(published) == 3
    texts = " ".join(texts_of(published[-1].figure))
    assert "train" in texts
    assert "validation" not in texts


# What is drawn


@pytest.mark.parametrize(
    ("values", "best"), [((0.5, 0.75, 0.625), "best: epoch 2, 75.00 %"), ((0.5, 0.625, 0.75), None)]
)
def test_the_best_epoch_is_marked_unless_it_is_the_last(texts_of, values, best):
    texts = texts_of(draw({"val/acc": dict(enumerate(values, 1))}, System.axes))
    assert [text for text in texts if text.startswith("best")] == ([best] if best else [])
    assert f"validation {100 * values[-1]:.2f} %" in texts


def test_a_metric_of_which_neither_is_better_has_no_best_epoch(texts_of):
    texts = texts_of(draw({"val/scale": {1: 1.0, 2: 3.0, 3: 2.0}}))
    assert not any(text.startswith("best") for text in texts)
    assert "validation 2" in texts


@pytest.mark.parametrize("gap", [0.0, 1e-4, 0.3])
@pytest.mark.parametrize("epochs", [1, 2, 40])
def test_curves_are_legible(assert_legible, gap, epochs):
    course = {epoch: 0.9 / epoch + 0.05 for epoch in range(1, epochs + 1)}
    history = {}
    for i, split in enumerate(("train", "val", "test")):
        history[f"{split}/loss"] = {epoch: value + i * gap for epoch, value in course.items()}
        history[f"{split}/acc"] = {epoch: 0.99 - 0.5 * value - i * gap for epoch, value in course.items()}
    figure = draw(history, System.axes)
    assert titles(figure) == ["Loss", "Accuracy"]
    assert_legible(figure)
    only_loss = draw({"val/loss": course}, System.axes)
    assert len(only_loss.axes) == 1
    assert_legible(only_loss)


@pytest.mark.parametrize("count", [1, 3, 4, 7])
def test_many_metrics_wrap_into_rows_of_three(assert_legible, tmp_path, count):
    axes = {f"metric_{i}": Axis(f"Metric {i}", "in units") for i in range(3)}
    history = {f"{split}/metric_{i}": {1: i + 1.0, 2: i + 2.0} for i in range(count) for split in ("train", "val")}
    figure = draw(history, axes)
    assert titles(figure) == [f"Metric {i}" if i < 3 else f"metric_{i}" for i in range(count)]
    places = [tuple(axes.get_position().p0.round(4)) for axes in figure.axes]
    columns, rows = sorted({x for x, _ in places}), sorted({y for _, y in places}, reverse=True)
    assert places == [(columns[i % 3], rows[i // 3]) for i in range(count)]
    assert (len(columns), len(rows)) == (min(count, 3), -(-count // 3))
    assert_legible(figure)


@pytest.mark.parametrize(
    ("course", "scale"),
    [((0.1, 0.9, 0.99, 0.995), "function"), ((0.8, 0.9, 0.95, 0.94), "linear"), ((0.1, 0.9, 1.0, 1.0), "linear")],
    ids=["poor first epochs", "steady", "no errors left"],
)
def test_poor_first_epochs_do_not_press_the_accuracy_flat(assert_legible, course, scale):
    figure = draw({"val/acc": dict(enumerate(course, 1))}, System.axes)
    (axes,) = figure.axes
    assert axes.get_yscale() == scale
    heights = [axes.transData.transform((1, 100 * value))[1] for value in course]
    share = (heights[3] - heights[2]) / (heights[2] - heights[0])
    if scale == "function":
        assert share == pytest.approx(math.log(2) / math.log(90)), "halving the errors is the same step anywhere"
    else:
        assert share == pytest.approx((course[3] - course[2]) / (course[2] - course[0]))
    assert_legible(figure)


def test_a_loss_that_diverged_is_shown_in_its_label(texts_of):
    figure = draw({"train/loss": {1: 2.0, 2: 3.0, 3: float("nan")}})
    assert "train nan" in texts_of(figure)


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_metric_that_was_never_finite_is_drawn_as_text(texts_of, assert_legible, tmp_path, value):
    history = {"train/loss": {1: value, 2: value}, "val/loss": {2: value}, "val/acc": {1: 0.5}}
    figure = draw(history, System.axes)
    assert f"train {value}\nvalidation {value}" in texts_of(figure)
    assert_legible(figure)
    figure.savefig(tmp_path / "curves.png")
    assert np.asarray(Image.open(tmp_path / "curves.png")).std() > 5


def test_values_of_all_sizes_and_signs_are_legible(assert_legible):
    history = {"val/score": {1: -3.0, 2: -3.0}, "val/zero": {1: 0.0}, "val/tiny": {7: 1e-9, 9: 2e-9}, "count": {3: 1e9}}
    figure = draw(history)
    assert_legible(figure)
    assert figure.axes[2].get_xlim()[0] > 6, "no room for epochs that are unknown"
