"""Gradients written out equal autograd's, and training by them is gradient descent."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from lightning import Callback

from datamodules.vectors import Vectors
from helpers import quiet_trainer
from zoo.classification.backprop_by_hand import WEIGHTS, BackpropByHand, BackpropByHandNet, error

X, TARGET = torch.tensor([[0.05, 0.10]]), torch.tensor([[0.01, 0.99]])


def autograd(net: BackpropByHandNet, x: torch.Tensor, target: torch.Tensor) -> dict[str, torch.Tensor]:
    named = dict(net.named_parameters())
    return dict(zip(named, torch.autograd.grad(error(net(x), target), list(named.values())), strict=True))


@settings(max_examples=50, deadline=None, derandomize=True)
@given(st.integers(1, 5), st.integers(0, 10_000))
def test_gradients_equal_autograds(n, seed):
    draw = torch.Generator().manual_seed(seed)
    net = BackpropByHandNet().double()
    for parameter in net.parameters():
        parameter.data = 3 * torch.randn(2, 2, generator=draw, dtype=torch.float64)
    x, target = torch.randn(2, n, 2, generator=draw, dtype=torch.float64)
    theirs = autograd(net, x, target)
    for name, gradient in net.gradients(x, target).items():
        torch.testing.assert_close(gradient, theirs[name], atol=1e-12, rtol=1e-10)


def test_the_first_numbers_are_those_of_the_course():
    net = BackpropByHandNet()
    hidden, output = net.activations(X)
    assert hidden[0].tolist() == pytest.approx([0.506875, 0.510623], abs=1e-6)  # of h1 = 0.0275, h2 = 0.0425
    assert output[0].tolist() == pytest.approx([0.606478, 0.630481], abs=1e-6)
    assert error(output, TARGET).item() == pytest.approx(
        ((0.606478 - 0.01) ** 2 + (0.99 - 0.630481) ** 2) / 2, abs=1e-5
    )
    theirs = autograd(net, X, TARGET)
    assert max((net.gradients(X, TARGET)[name] - theirs[name]).abs().max() for name in theirs) <= 1e-6


class Losses(Callback):
    def __init__(self) -> None:
        self.found = []

    def on_train_batch_end(self, trainer, module, outputs, *_) -> None:
        self.found.append(outputs["loss"].item())


def test_training_is_gradient_descent_without_autograd():
    data, losses = Vectors([[0.05, 0.10]], [[0.01, 0.99]], repeats=10), Losses()
    module = BackpropByHand()
    trainer = quiet_trainer(max_epochs=3, callbacks=[losses], num_sanity_val_steps=0)
    trainer.fit(module, datamodule=data)
    assert trainer.global_step == 30
    net, expected = BackpropByHandNet(), []
    assert torch.cat([p.flatten() for p in net.parameters()]).tolist() == pytest.approx(list(WEIGHTS))
    for _ in range(30):
        loss = error(net(X), TARGET)
        expected.append(loss.item())
        for parameter, gradient in zip(
            net.parameters(), torch.autograd.grad(loss, list(net.parameters())), strict=True
        ):
            parameter.data -= 0.5 * gradient
    assert losses.found == pytest.approx(expected, abs=1e-6)
    for ours, theirs in zip(module.net.parameters(), net.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-6, rtol=0)
    (tested,) = trainer.test(module, datamodule=data, verbose=False)
    assert 0 <= tested["test/gradient_error"] <= 1e-6


def test_a_wrong_formula_shows_as_a_gradient_error(monkeypatch):
    right = BackpropByHandNet.gradients

    def wrong(self, x, target):
        found = right(self, x, target)
        return found | {"hidden": found["hidden"] * 2}

    monkeypatch.setattr(BackpropByHandNet, "gradients", wrong)
    data = Vectors([[0.05, 0.10]], [[0.01, 0.99]])
    (tested,) = quiet_trainer().test(BackpropByHand(), datamodule=data, verbose=False)
    assert tested["test/gradient_error"] > 1e-6
