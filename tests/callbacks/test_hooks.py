"""Forward hooks and activation statistics: they see everything, change nothing, and are removed afterwards."""

import random
from functools import partial

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from torch import nn

from callback_runs import data, fit, model
from callbacks.monitors import activation_stats
from callbacks.monitors.activation_stats import BINS, ActivationStats
from callbacks.monitors.hooks import Hooks, chosen, forward_hooks, is_activation
from helpers import fingerprint_of_global_randomness, quiet_trainer
from zoo.classification.plain_conv import PlainConv
from zoo.parts import norms
from zoo.parts.activations import GeneralReLU, SquaredReLU, SReLU
from zoo.parts.optim.schedules import Constant


def hooks_of(module: nn.Module) -> int:
    return sum(len(child._forward_hooks) for child in module.modules())


class Breaks(PlainConv):
    """Fails in its second step."""

    def training_step(self, batch, batch_idx):
        if batch_idx == 1:
            raise RuntimeError("broken")
        return super().training_step(batch, batch_idx)


# Hooks


@pytest.mark.parametrize(("evaluation", "calls"), [(False, 4), (True, 5)])
def test_hooks_see_every_forward_pass_of_the_chosen_layers_and_are_removed_afterwards(evaluation, calls):
    seen = []
    callback = Hooks(lambda name, module, inputs, output: seen.append((name, output.shape)), "Conv2d", evaluation)
    module = fit(model(), callback)
    names = [name for name, child in module.net.named_modules() if isinstance(child, nn.Conv2d)]
    assert [name for name, _ in seen] == names * calls  # 4 batches of training, 1 of validation
    assert seen[0][1] == (8, 8, 14, 14)
    assert hooks_of(module) == 0


def test_forward_hooks_are_removed_after_an_exception():
    layers, seen = [nn.Linear(2, 2), nn.ReLU()], []
    pairs = [(layer, lambda module, inputs, output: seen.append(module)) for layer in (*layers, layers[0])]
    with pytest.raises(RuntimeError, match="broken"), forward_hooks(pairs):  # noqa: PT012
        assert [hooks_of(layer) for layer in layers] == [2, 1]
        layers[1](layers[0](torch.ones(1, 2)))
        raise RuntimeError("broken")
    assert seen == [layers[0], layers[0], layers[1]]
    assert [hooks_of(layer) for layer in layers] == [0, 0]
    with pytest.raises(AttributeError), forward_hooks([(layers[0], print), (None, print)]):
        pass
    assert hooks_of(layers[0]) == 0, "also where not all could be set"


def test_hooks_do_not_change_what_passes_through():
    plain, watched = fit(model()), fit(model(), Hooks(lambda *_: torch.zeros(1)))
    assert all(torch.equal(a, b) for a, b in zip(plain.parameters(), watched.parameters(), strict=True))


@pytest.mark.parametrize("make", [lambda: Hooks(lambda *_: None), ActivationStats])
def test_hooks_are_removed_after_an_exception_and_set_only_once(make, tmp_path):
    module, callback = Breaks(optimizer=partial(torch.optim.SGD, lr=0.01)), make()
    with pytest.raises(RuntimeError, match="broken"):
        fit(module, callback, default_root_dir=tmp_path)
    assert hooks_of(module) == 0
    callback.setup(quiet_trainer(), module, "fit")
    count = hooks_of(module)
    callback.setup(quiet_trainer(), module, "fit")
    assert hooks_of(module) == count > 0
    trainer = quiet_trainer(callbacks=[callback], default_root_dir=tmp_path)
    trainer.validate(module, datamodule=data(), verbose=False)
    assert hooks_of(module) == 0


def test_layers_are_chosen_by_class_name_name_or_function():
    net = model().net
    assert set(chosen(net, None)) == set(chosen(net, "ReLU")) == {"stem.1", "stages.0.1", "stages.1.1", "stages.2.1"}
    assert set(chosen(net, ["stem.0", "ReLU"])) > {"stem.0", "stem.1"}
    assert set(chosen(nn.Sequential(nn.Linear(2, 2)), None)) == {"0"}
    with pytest.raises(ValueError, match=r"there is no layer 'Relu' in PlainConvNet: expected a class name, of .*ReLU"):
        chosen(net, ["Relu", "Conv2d"])


# Which modules are activations


class Own(nn.Module):
    """A user's own activation, in a file of any name."""

    def forward(self, x):
        return x * torch.sigmoid(1.7 * x)


class OwnInPlace(nn.Module):
    def forward(self, x):
        return x.clamp_(-1, 1)


class OwnOfChannels(nn.Module):
    """Takes images only, with a slope for each channel."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.slope = nn.Parameter(torch.linspace(0.1, 0.5, channels).view(1, -1, 1, 1))

    def forward(self, x):
        assert x.ndim == 4
        return torch.where(x > 0, x, self.slope * x)


class OwnSigmoid(nn.Sigmoid):
    """A subclass of one of torch's."""


@pytest.mark.parametrize(
    "module",
    [
        nn.ReLU(inplace=True), nn.GELU(), nn.SiLU(), nn.Mish(), nn.Tanh(), nn.PReLU(5), nn.Softmax(1), nn.RReLU(),
        OwnSigmoid(), GeneralReLU(), GeneralReLU(0.1, 0.4, 6.0), SquaredReLU(), SReLU(), SReLU(5), SReLU(300), Own(),
        OwnInPlace(), OwnOfChannels(5), OwnOfChannels(3), Own().double(), SReLU(4).to(torch.bfloat16),
    ],
    ids=repr,
)  # fmt: skip
def test_activations_are_recognized_by_what_they_do(module):
    assert is_activation(module)


class Scaled(nn.Module):
    """Maps each number on its own, in a straight line."""

    def forward(self, x):
        return 3 * x - 1


class SqueezeExcitation(nn.Module):
    """Maps each number by all numbers of its channel."""

    def forward(self, x):
        return x * x.mean((2, 3), keepdim=True).sigmoid()


class NeighborMax(nn.Module):
    def forward(self, x):
        return torch.maximum(x, x.roll(1, -1))


class AlwaysDrops(nn.Module):
    def forward(self, x):
        return F.dropout(x, 0.5, training=True).relu()


class OwnNorm(nn.BatchNorm2d):
    """A norm that is affine in evaluation."""


class TwoInputs(nn.Module):
    def forward(self, x, y):
        return (x + y).relu()


class Residual(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.act = nn.ReLU()

    def forward(self, x):
        return x + self.act(x)


class NotToBeCopied(nn.Module):
    def __deepcopy__(self, memo):
        raise RuntimeError("not to be copied")


@pytest.mark.parametrize(
    "module",
    [
        nn.Linear(4, 4), nn.Linear(1, 1), nn.Conv2d(8, 8, 1), nn.BatchNorm2d(8), nn.GroupNorm(2, 8), nn.LayerNorm(8),
        nn.InstanceNorm2d(8), nn.Dropout(), nn.Flatten(), nn.Identity(), nn.MaxPool2d(2), nn.AdaptiveAvgPool2d(1),
        nn.MultiheadAttention(4, 2), nn.Embedding(5, 5), nn.Sequential(nn.ReLU()), nn.ModuleList(), Residual(),
        norms.BatchNorm(8), norms.GroupNorm(8, 2), norms.InstanceNorm(8), norms.LayerNorm(8), OwnNorm(8), Scaled(),
        SqueezeExcitation(), NeighborMax(), AlwaysDrops(), TwoInputs(), NotToBeCopied(),
    ],
    ids=lambda module: f"{type(module).__module__.split('.')[0]} {type(module).__name__}",
)  # fmt: skip
def test_everything_else_is_not_an_activation(module):
    for running in ("running_mean", "running_var"):
        if hasattr(module, running) and getattr(module, running) is not None:
            getattr(module, running).add_(3 * torch.rand(8))
    assert not is_activation(module)


def test_trying_a_module_out_leaves_it_and_the_random_numbers_alone():
    class Draws(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.calls = 0
            self.register_buffer("count", torch.zeros(()))

        def forward(self, x):
            self.calls += 1
            self.count += 1
            torch.rand(1), random.random(), np.random.rand()  # noqa: NPY002
            return x.relu()

    module, before = Draws(), fingerprint_of_global_randomness()
    module.train().register_forward_hook(lambda *_: pytest.fail("the hooks of a module are not called"))
    assert is_activation(module)
    assert fingerprint_of_global_randomness() == before
    assert (module.calls, module.count.item(), module.training) == (0, 0, True)
    assert all(p.grad is None for p in module.parameters())


def test_a_users_own_activation_is_watched():
    net = nn.Sequential(nn.Linear(2, 2), Own(), nn.Linear(2, 2), SReLU(2), nn.Flatten())
    assert set(chosen(net, None)) == {"1", "3"}


# Activation statistics


class Constants(PlainConv):
    """Has a layer with a constant output."""

    def __init__(self, value: float) -> None:
        super().__init__(optimizer=partial(torch.optim.SGD, lr=0.0), schedule=Constant)
        self.net.stem = nn.Sequential(nn.Flatten(), nn.Linear(784, 4, bias=True), nn.ReLU())
        self.net.stages, self.net.head = nn.Identity(), nn.Linear(4, 10)
        nn.init.zeros_(self.net.stem[1].weight)
        self.net.stem[1].bias.data = torch.tensor([value, value, -1.0, 3 * value])


def test_activation_statistics_are_right(tmp_path):
    stats = ActivationStats(every_n_steps=1, limit=5.0)
    fit(Constants(1.0), stats, default_root_dir=tmp_path)
    values = torch.tensor([1.0, 1.0, 0.0, 3.0])
    assert stats.names == ["stem.2"]
    assert stats.steps == [0, 1, 2, 3]
    assert torch.allclose(stats.mean[0, :4], values.mean())
    assert torch.allclose(stats.std[0, :4], values.std(correction=0))
    assert torch.allclose(stats.dead[0, :4], torch.tensor(0.25))
    counts = torch.zeros(BINS)
    for value in values:
        counts[int(value / 5.0 * BINS)] += 0.25
    assert torch.allclose(stats.counts[0, :4], counts)


def test_activation_statistics_measure_every_nth_batch_and_thin_out_when_full(tmp_path, monkeypatch):
    monkeypatch.setattr(activation_stats, "MAX_SNAPSHOTS", 4)
    stats = ActivationStats(every_n_steps=2)
    fit(Constants(1.0), stats, max_epochs=8, default_root_dir=tmp_path)  # 32 batches
    assert stats.steps == [0, 8, 16, 24]
    assert stats.mean.shape == (1, 4)
    assert torch.allclose(stats.mean, torch.tensor(1.25))


def test_activation_statistics_draw_three_figures_and_leave_the_training_as_it_was(tmp_path):
    plain = fit(model())
    before = fingerprint_of_global_randomness()
    watched = fit(model(), ActivationStats(every_n_steps=1), default_root_dir=tmp_path)
    assert all(torch.equal(a, b) for a, b in zip(plain.parameters(), watched.parameters(), strict=True))
    assert fingerprint_of_global_randomness()[1:] == before[1:]
    for name in ("activations", "activation_histogram", "dead_activations"):
        with Image.open(tmp_path / "pictures" / f"{name}.png") as image:
            assert len(image.convert("RGB").getcolors(1 << 20)) > 50


def test_activation_statistics_go_on_in_a_resumed_run(tmp_path):
    complete, first, second = (ActivationStats(every_n_steps=1, layers="stem.1") for _ in range(3))
    fit(model(), complete, max_epochs=2, default_root_dir=tmp_path)
    trainer = quiet_trainer(callbacks=[first], max_epochs=1, num_sanity_val_steps=0, default_root_dir=tmp_path)
    trainer.fit(model(), datamodule=data())
    trainer.save_checkpoint(tmp_path / "a.ckpt")
    trainer = quiet_trainer(callbacks=[second], max_epochs=2, num_sanity_val_steps=0, default_root_dir=tmp_path)
    trainer.fit(model(), datamodule=data(), ckpt_path=tmp_path / "a.ckpt")
    assert second.steps == complete.steps == list(range(8))
    assert torch.equal(second.std, complete.std)
