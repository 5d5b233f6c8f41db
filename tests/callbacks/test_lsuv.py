"""LSUV: every layer ends with mean 0 and standard deviation 1, once, and nothing else is changed.

Run as a script, `python test_lsuv.py FOLDER`, this file is two processes: Lightning forks, and the process of pytest
must not be forked.
"""

import sys
from functools import partial
from pathlib import Path

import pytest
import torch
from lightning import Callback, LightningModule
from torch import nn

import processes
from callbacks.training.lsuv import LSUV
from helpers import Synthetic, fingerprint_of_global_randomness, quiet_trainer
from zoo.classification.plain_conv import PlainConv
from zoo.classification.resnet_mini import ResNetMini
from zoo.parts.activations import GeneralReLU
from zoo.parts.initialization import unchanged_

TOLERANCE = 1e-3
SGD = partial(torch.optim.SGD, lr=0.1)


class Own(LightningModule):
    """A user's module: linear layers, any activation, batches that are plain tuples, no `net`."""

    def __init__(self, act=nn.Tanh, dropout: float = 0.0) -> None:
        super().__init__()
        self.first, self.act = nn.Linear(64, 32), act()  # one activation used twice
        self.second, self.last = nn.Linear(32, 16), nn.Linear(16, 10)
        self.drop = nn.Dropout(dropout)

    def forward(self, x):
        x = self.drop(self.act(self.first(x.flatten(1))))
        return self.last(self.act(self.second(x)))

    def training_step(self, batch, batch_idx):
        return nn.functional.cross_entropy(self(batch[0]), batch[1])

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


def data(shape=(1, 8, 8), **options) -> Synthetic:
    return Synthetic(image_shape=shape, batch_size=20, sizes=(40, 0, 16), **options)


class Look(Callback):
    """Keeps what the first step gets, after LSUV and before any step."""

    def __init__(self) -> None:
        self.weights = self.batch = None

    def on_train_batch_start(self, trainer, module, batch, batch_idx) -> None:
        if self.weights is None:
            self.weights = {name: value.clone() for name, value in module.state_dict().items()}
            self.batch = batch


def fit(module, *callbacks, shape=(1, 8, 8), **options):
    trainer = quiet_trainer(callbacks=list(callbacks), **({"max_steps": 1, "limit_val_batches": 0} | options))
    trainer.fit(module, datamodule=data(shape))
    return trainer


def initialize(module, lsuv: LSUV, shape=(1, 8, 8)) -> torch.Tensor:
    """Runs LSUV as a fit does; leaves the module in that state, before any step, and returns the first batch."""
    look = Look()
    fit(module, lsuv, look, shape=shape)
    module.load_state_dict(look.weights)
    return look.batch.image


def outputs(module, x, *kinds) -> dict[str, torch.Tensor]:
    """Of every child of these kinds, in training mode, all calls together."""
    found: dict[str, list] = {}
    handles = [
        child.register_forward_hook(lambda m, i, o, name=name: found.setdefault(name, []).append(o.detach().flatten()))
        for name, child in module.named_modules()
        if isinstance(child, kinds)
    ]
    module.train()(x)
    for handle in handles:
        handle.remove()
    return {name: torch.cat(parts).double() for name, parts in found.items()}


def plain(act, **options) -> PlainConv:
    torch.manual_seed(0)
    return PlainConv(act=act, init=unchanged_, optimizer=SGD, **options)


LAYERS = (nn.Conv2d, nn.Linear)
PLAIN = (1, 28, 28)


@pytest.mark.parametrize(
    ("make", "shape", "count"),
    [
        (lambda: plain(nn.ReLU), PLAIN, 5),
        (lambda: plain(nn.GELU), PLAIN, 5),
        (lambda: plain(partial(nn.ReLU, inplace=True)), PLAIN, 5),
        (lambda: Own(nn.Tanh), (1, 8, 8), 3),
        (lambda: Own(nn.Sigmoid), (1, 8, 8), 3),
    ],
    ids=["plain ReLU", "plain GELU", "plain in place", "linear tanh", "linear sigmoid"],
)
def test_every_layer_has_mean_0_and_standard_deviation_1_whatever_the_activation(make, shape, count):
    torch.manual_seed(0)
    module, lsuv = make(), LSUV()
    found = outputs(module, initialize(module, lsuv, shape), *LAYERS)
    assert len(found) == count
    for name, values in found.items():
        assert abs(values.mean()) < TOLERANCE, name
        assert abs(values.std() - 1) < TOLERANCE, name
    assert [row.name for row in lsuv.report] == list(found)
    assert max(abs(row.before[1] - 1) for row in lsuv.report) > 0.1
    assert all(abs(row.after[0]) < TOLERANCE and abs(row.after[1] - 1) < TOLERANCE for row in lsuv.report)


@pytest.mark.parametrize(
    "act",
    [partial(GeneralReLU, 0.1, 0.4), partial(GeneralReLU, 0.1, 0.4, 6.0), partial(GeneralReLU, 0.3)],
    ids=["lesson", "capped", "other leak"],
)
def test_the_output_of_the_activations_is_normalized_as_in_the_lesson(act):
    module, lsuv = plain(act), LSUV(of=GeneralReLU)
    found = outputs(module, initialize(module, lsuv, PLAIN), GeneralReLU, nn.Conv2d)
    for name in ("stem.1", "stages.0.1", "stages.1.1", "stages.2.1", "head.0"):
        assert abs(found[f"net.{name}"].mean()) < TOLERANCE, name
        assert abs(found[f"net.{name}"].std() - 1) < TOLERANCE, name
    assert abs(found["net.stem.0"].std() - 1) > 0.1, "it was the activation that was normalized"


@pytest.mark.parametrize("act", [nn.LeakyReLU, nn.ELU])
def test_activations_used_twice_and_of_torch_are_normalized_after_each_layer(act):
    torch.manual_seed(0)
    module, lsuv = Own(partial(act, 0.2) if act is nn.LeakyReLU else act), LSUV(of=act)
    x = initialize(module, lsuv)
    found = outputs(module, x, act)["act"].split([20 * 32, 20 * 16])
    for values in (*found, outputs(module, x, nn.Linear)["last"]):
        assert abs(values.mean()) < TOLERANCE
        assert abs(values.std() - 1) < TOLERANCE


def test_layers_before_a_norm_keep_their_mean_and_the_report_notes_it():
    torch.manual_seed(0)
    module, lsuv = ResNetMini(widths=(4, 8), strides=(1, 2), optimizer=SGD), LSUV()
    found = outputs(module, initialize(module, lsuv), *LAYERS)
    assert len(found) == len(lsuv.report) > 4
    for row in lsuv.report:
        assert abs(found[row.name].std() - 1) < TOLERANCE, row
        has_bias = module.get_submodule(row.name).bias is not None
        assert ("no bias" in row.note) == (not has_bias)
        assert not has_bias or abs(found[row.name].mean()) < TOLERANCE
    assert {"no bias" in row.note for row in lsuv.report} == {True, False}


def test_frozen_shared_and_dead_layers_are_left_as_they_are():
    torch.manual_seed(0)
    module, lsuv = Own(), LSUV()
    module.first.requires_grad_(False)
    nn.init.zeros_(module.last.weight), nn.init.zeros_(module.last.bias)
    module.third = nn.Linear(16, 32, bias=False)  # never runs
    module.third.weight = nn.Parameter(module.second.weight.detach().clone())
    first = module.first.weight.clone()
    initialize(module, lsuv)
    assert torch.equal(module.first.weight, first)
    assert not module.last.weight.any()
    assert [(row.name, bool(row.note)) for row in lsuv.report] == [("second", False), ("last", True)]
    module, lsuv = Own(), LSUV()
    module.third = nn.Linear(16, 32, bias=False)
    module.third.weight = module.second.weight
    initialize(module, lsuv)
    assert [row.name for row in lsuv.report] == ["first", "last"]


# It runs once


class Counting(LSUV):
    """Counts the initializations."""

    runs = 0

    def normalize(self, *arguments) -> None:
        self.runs += 1
        super().normalize(*arguments)


def test_a_second_fit_is_left_alone_with_the_same_trainer_or_another():
    module, lsuv = plain(nn.ReLU), Counting()
    trainer = fit(module, lsuv, shape=PLAIN, max_steps=-1, max_epochs=2, accumulate_grad_batches=2)
    trainer.fit_loop.max_epochs = 3
    trainer.fit(module, datamodule=data(PLAIN))
    fit(module, lsuv, shape=PLAIN)
    fit(module, again := Counting(), shape=PLAIN)
    assert (lsuv.runs, again.runs) == (1, 0)
    fit(plain(nn.ReLU), lsuv, shape=PLAIN)
    assert lsuv.runs == 2, "another module is new to it"


@pytest.mark.parametrize("before", [[], [LSUV()]], ids=["trained without", "trained with"])
def test_a_resumed_run_and_a_loaded_checkpoint_are_left_alone(before, tmp_path):
    fit(plain(nn.ReLU), *before, shape=PLAIN).save_checkpoint(tmp_path / "a.ckpt")
    resumed, loaded = Counting(), Counting()
    trainer = quiet_trainer(max_steps=2, limit_val_batches=0, callbacks=[resumed])
    trainer.fit(plain(nn.ReLU), datamodule=data(PLAIN), ckpt_path=tmp_path / "a.ckpt")
    assert trainer.global_step == 2
    fit(PlainConv.load_from_checkpoint(tmp_path / "a.ckpt", optimizer=SGD), loaded, shape=PLAIN)
    assert (resumed.runs, loaded.runs) == (0, 0)


def test_a_users_module_is_left_alone_when_it_is_resumed(tmp_path):
    fit(Own(), LSUV()).save_checkpoint(tmp_path / "a.ckpt")
    resumed = Counting()
    trainer = quiet_trainer(max_steps=2, limit_val_batches=0, callbacks=[resumed])
    trainer.fit(Own(), datamodule=data(), ckpt_path=tmp_path / "a.ckpt")
    assert resumed.runs == 0


# Nothing is disturbed


class Guarded(LSUV):
    """Compares what must not change before and after."""

    def on_train_batch_start(self, trainer, module, batch, batch_idx) -> None:
        for parameter in module.parameters():
            parameter.grad = torch.ones_like(parameter)
        module.net.stem.eval()
        before = self.condition(trainer, module, batch)
        super().on_train_batch_start(trainer, module, batch, batch_idx)
        assert self.condition(trainer, module, batch) == before
        self.checked = True
        module.train()

    def condition(self, trainer, module, batch) -> list:
        hooks = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
        return [
            [child.training for child in module.modules()],
            [(id(p), id(p.grad), p.grad.sum().item(), p.requires_grad) for p in module.parameters()],
            [len(getattr(child, name)) for child in module.modules() for name in hooks],
            [buffer.tolist() for buffer in module.buffers()],
            fingerprint_of_global_randomness(),
            trainer.datamodule.train_loader.state_dict(),
            batch.image.sum().item(),
            {name: metric.update_count for name, metric in module.metrics.items()},
            torch.is_grad_enabled(),
        ]


def test_nothing_else_is_changed():
    torch.manual_seed(0)
    module, lsuv = ResNetMini(widths=(4, 8), strides=(1, 2), optimizer=SGD), Guarded()
    fit(module, lsuv)
    assert lsuv.checked


def test_dropout_drops_the_same_each_time_so_that_it_converges():
    torch.manual_seed(0)
    fit(Own(nn.ReLU, dropout=0.5), lsuv := LSUV())
    assert all(abs(row.after[1] - 1) < TOLERANCE for row in lsuv.report)


@pytest.mark.parametrize("precision", ["bf16-mixed", "bf16-true", "64-true"])
def test_other_precisions(precision):
    fit(plain(nn.ReLU), lsuv := LSUV(), shape=PLAIN, precision=precision)
    tolerance = 0.04 if precision == "bf16-true" else TOLERANCE
    assert all(abs(row.after[0]) < tolerance and abs(row.after[1] - 1) < tolerance for row in lsuv.report)


@pytest.mark.parametrize(
    ("act", "of", "message"),
    [
        (nn.ReLU, nn.ReLU, "the output of net.stem.1 does not reach mean 0 and standard deviation 1"),
        (nn.Sigmoid, nn.Sigmoid, "leave `of` out to normalize the layers themselves"),
        (nn.ReLU, GeneralReLU, "no GeneralReLU follows a convolution or linear layer immediately"),
    ],
)
def test_what_cannot_be_normalized_is_an_error_that_leaves_the_weights(act, of, message):
    module = plain(act)
    before = [p.clone() for p in module.parameters()]
    with pytest.raises(ValueError, match=message):
        fit(module, LSUV(of=of), shape=PLAIN)
    assert all(torch.equal(p, kept) for p, kept in zip(module.parameters(), before, strict=True))


# Two processes


class Save(Callback):
    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def on_train_batch_start(self, trainer, module, batch, batch_idx) -> None:
        if batch_idx == 0:
            content = {"weights": module.state_dict(), "image": batch.image}
            torch.save(content, self.folder / f"rank{trainer.global_rank}.pt")


def run(folder: Path) -> None:
    torch.manual_seed(0)
    fit(plain(partial(GeneralReLU, 0.1, 0.4)), LSUV(of=GeneralReLU), Save(folder), shape=PLAIN, devices=2,
        strategy="ddp_notebook")  # fmt: skip


def test_two_processes_end_equal_and_normalized_over_both_their_batches(tmp_path, monkeypatch):

    processes.run(__file__, tmp_path)
    first, second = (torch.load(tmp_path / f"rank{rank}.pt") for rank in (0, 1))
    assert not torch.equal(first["image"], second["image"])
    assert all(torch.equal(value, second["weights"][name]) for name, value in first["weights"].items())
    module = plain(partial(GeneralReLU, 0.1, 0.4))
    module.load_state_dict(first["weights"])
    for name, values in outputs(module, torch.cat([first["image"], second["image"]]), GeneralReLU).items():
        assert abs(values.mean()) < TOLERANCE, name
        assert abs(values.std(correction=0) - 1) < TOLERANCE, name


if __name__ == "__main__":
    run(Path(sys.argv[1]))
