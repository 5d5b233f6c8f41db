"""The rules of initialization equal torch's, and keep the size of activations through a deep net."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from zoo.classification.plain_conv import PlainConv, PlainConvNet
from zoo.parts.activations import GeneralReLU
from zoo.parts.initialization import (
    fans,
    gain,
    initialize,
    kaiming_normal_,
    kaiming_uniform_,
    unchanged_,
    xavier_normal_,
    xavier_uniform_,
)

some = settings(max_examples=40, deadline=None, derandomize=True)
shapes = st.lists(st.integers(1, 6), min_size=2, max_size=5)

PAIRS = {  # ours and torch's, with a leak
    "kaiming normal": (lambda w, g: kaiming_normal_(w, gain=g), lambda w, a: nn.init.kaiming_normal_(w, a)),
    "kaiming uniform": (lambda w, g: kaiming_uniform_(w, gain=g), lambda w, a: nn.init.kaiming_uniform_(w, a)),
    "kaiming normal, out": (
        lambda w, g: kaiming_normal_(w, gain=g, fan_out=True),
        lambda w, a: nn.init.kaiming_normal_(w, a, mode="fan_out"),
    ),
    "kaiming uniform, out": (
        lambda w, g: kaiming_uniform_(w, gain=g, fan_out=True),
        lambda w, a: nn.init.kaiming_uniform_(w, a, mode="fan_out"),
    ),
    "xavier normal": (
        lambda w, g: xavier_normal_(w, gain=g),
        lambda w, a: nn.init.xavier_normal_(w, nn.init.calculate_gain("leaky_relu", a)),
    ),
    "xavier uniform": (
        lambda w, g: xavier_uniform_(w, gain=g),
        lambda w, a: nn.init.xavier_uniform_(w, nn.init.calculate_gain("leaky_relu", a)),
    ),
}


@pytest.mark.parametrize("kind", PAIRS)
@some
@given(shapes, st.floats(0, 2), st.integers(0, 10_000))
def test_rule_draws_what_torch_draws(kind, shape, leak, seed):
    ours, theirs = PAIRS[kind]
    a, b = torch.empty(shape, requires_grad=True), torch.empty(shape, requires_grad=True)
    torch.manual_seed(seed)
    assert ours(a, gain(nn.LeakyReLU(leak))) is a
    torch.manual_seed(seed)
    theirs(b, leak)
    torch.testing.assert_close(a, b)
    assert a.requires_grad
    assert a.is_leaf


@some
@given(shapes)
def test_fans_are_torchs(shape):
    assert fans(torch.empty(shape)) == nn.init._calculate_fan_in_and_fan_out(torch.empty(shape))


def test_a_vector_has_no_fan():
    with pytest.raises(ValueError, match=r"a weight \(3,\) has no fan: expected \(O, I\)"):
        kaiming_normal_(torch.empty(3))


@pytest.mark.parametrize(
    ("act", "name", "parameter"),
    [
        (None, "linear", None),
        (nn.Identity(), "linear", None),
        (nn.Sigmoid(), "sigmoid", None),
        (nn.Tanh(), "tanh", None),
        (nn.ReLU(), "relu", None),
        (nn.ReLU(inplace=True), "relu", None),
        (nn.SELU(), "selu", None),
        (nn.LeakyReLU(), "leaky_relu", 0.01),
        (nn.LeakyReLU(0.3), "leaky_relu", 0.3),
        (GeneralReLU(0.1, 0.4), "leaky_relu", 0.1),
        (GeneralReLU(0.0, 0.4, 6.0), "leaky_relu", 0.0),
    ],
)
def test_gain_is_torchs(act, name, parameter):
    assert gain(act) == pytest.approx(nn.init.calculate_gain(name, parameter), rel=1e-12)


@pytest.mark.parametrize("act", [nn.GELU(), nn.SiLU(), nn.Mish(), nn.ELU(), nn.PReLU(), nn.Softplus(), nn.ReLU6()])
def test_gain_of_any_other_activation_keeps_the_second_moment(act):
    torch.manual_seed(0)
    z = torch.randn(2_000_000)
    with torch.no_grad():
        assert gain(act) * act(z).square().mean().sqrt() == pytest.approx(1, abs=2e-3)
    assert gain(nn.PReLU()) == pytest.approx(gain(nn.LeakyReLU(0.25)), rel=1e-5)
    assert next(iter(act.parameters()), torch.zeros(1)).dtype == torch.float32


class Swishy(nn.Module):
    """An activation of a user."""

    def forward(self, x):
        return x * torch.sigmoid(1.7 * x)


@pytest.mark.parametrize("act", [nn.ReLU(), nn.LeakyReLU(0.5), nn.GELU(), Swishy()], ids=lambda act: type(act).__name__)
@pytest.mark.parametrize("init", [kaiming_normal_, kaiming_uniform_])
def test_after_ten_layers_activations_are_as_large_as_before(act, init):
    torch.manual_seed(0)
    net = nn.Sequential(*(layer for _ in range(10) for layer in (nn.Linear(256, 256, bias=False), act)))

    def size() -> float:
        with torch.no_grad():
            return net(torch.randn(64, 256)).square().mean().sqrt().item()

    assert size() < 0.05
    initialize(net, init, act)
    assert 0.5 < size() < 2


def test_initialize_redraws_layers_but_not_biases_and_norms():
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv1d(2, 3, 3), nn.Conv2d(2, 3, 3), nn.Conv3d(2, 3, 3), nn.ConvTranspose2d(2, 3, 3), nn.Linear(4, 5),
        nn.BatchNorm2d(3), nn.Embedding(7, 2),
    )  # fmt: skip
    before = {name: p.clone() for name, p in net.named_parameters()}
    assert initialize(net, act=nn.ReLU()) is net
    changed = {name for name, p in net.named_parameters() if not torch.equal(p, before[name])}
    assert changed == {f"{i}.weight" for i in range(5)}


def weights(**options) -> list[torch.Tensor]:
    torch.manual_seed(0)
    return [m.weight.detach() for m in PlainConvNet(**options).modules() if isinstance(m, nn.Conv2d)]


def test_plain_conv_uses_the_given_rule_with_the_gain_of_its_activation():
    for act in (lambda: GeneralReLU(0.3, 0.1), lambda: nn.LeakyReLU(0.3)):
        for weight in weights(act=act, widths=(64, 64, 64, 64))[1:-1]:
            assert weight.std() * math.sqrt(64 * 9) == pytest.approx(math.sqrt(2 / 1.09), rel=0.02)
    torch.manual_seed(0)
    torchs_own = nn.Conv2d(1, 8, 3, 2, 1).weight
    assert torch.equal(weights(init=unchanged_)[0], torchs_own)
    assert weights(init=unchanged_)[0].abs().max() <= 1 / 3
    matrix = weights(init=nn.init.orthogonal_)[1].flatten(1)  # torch's take (weight, gain=...) too
    torch.testing.assert_close(matrix @ matrix.T, 2 * torch.eye(16), atol=1e-5, rtol=0)


def test_the_net_of_the_recipe_towards_90_is_unchanged():
    count = sum(p.numel() for p in PlainConv(norm=nn.BatchNorm2d).parameters())
    assert count == 72 + 1152 + 4608 + 18432 + 5760 + 10 + 2 * (8 + 16 + 32 + 64)
    for ours, torchs in zip(weights(act=lambda: GeneralReLU(0.1, 0.4)), old_weights(0.1), strict=True):
        assert torch.equal(ours, torchs)


def old_weights(leak: float) -> list[torch.Tensor]:
    torch.manual_seed(0)
    layers = [m for m in PlainConvNet(init=unchanged_).modules() if isinstance(m, nn.Conv2d)]
    return [nn.init.kaiming_normal_(layer.weight, a=leak).detach() for layer in layers]
