"""The activations equal torch's functions or their definitions, in values and gradients."""

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from zoo.parts.activations import GeneralReLU, SquaredReLU, SReLU

some = settings(max_examples=60, deadline=None, derandomize=True)
shares, seeds = st.floats(0, 1), st.integers(0, 10_000)


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@some
@given(st.lists(st.integers(1, 5), min_size=1, max_size=4), shares, shares, st.none() | st.floats(0, 2), seeds)
def test_general_relu_equals_torch_in_values_and_gradients(shape, leak, sub, maximum, seed):
    x = (3 * torch.randn(shape, generator=seeded(seed))).requires_grad_()
    y = x.detach().clone().requires_grad_()
    theirs = torch.where(y >= 0, y, leak * y) - sub
    theirs = theirs if maximum is None else torch.clamp(theirs, max=maximum)
    ours = GeneralReLU(leak, sub, maximum)(x)
    torch.testing.assert_close(ours, theirs)
    weights = torch.randn(shape, generator=seeded(seed + 1))
    (ours * weights).sum().backward()
    (theirs * weights).sum().backward()
    torch.testing.assert_close(x.grad, y.grad)


def test_squared_relu_is_the_square_of_the_relu():
    x = torch.linspace(-3, 3, 50, requires_grad=True)
    torch.testing.assert_close(SquaredReLU()(x), x.clamp_min(0) ** 2)


def srelu_written_out(x: float, t_l: float, a_l: float, t_r: float, a_r: float) -> float:
    return t_r + a_r * (x - t_r) if x >= t_r else t_l + a_l * (x - t_l) if x <= t_l else x


@some
@given(st.integers(1, 4), st.sampled_from([(), (3,), (2, 3)]), seeds)
def test_srelu_equals_its_definition_in_values_and_gradients(channels, after, seed):
    draw = torch.Generator().manual_seed(seed)
    act = SReLU(channels).double()
    for parameter in act.parameters():
        parameter.data.add_(torch.randn(channels, generator=draw).double() * 0.3)
    act.t_r.data.copy_(act.t_l.data + act.t_r.data.abs() + 0.1)
    x = (2 * torch.randn(5, channels, *after, generator=draw, dtype=torch.float64)).requires_grad_()
    numbers = [getattr(act, name).tolist() for name in ("t_l", "a_l", "t_r", "a_r")]
    rows = x.detach().movedim(1, 0).reshape(channels, -1).tolist()
    expected = [
        [srelu_written_out(v, *four) for v in row] for row, four in zip(rows, zip(*numbers, strict=True), strict=True)
    ]
    torch.testing.assert_close(act(x).movedim(1, 0).reshape(channels, -1), torch.tensor(expected, dtype=torch.float64))
    assert torch.autograd.gradcheck(act, (x,), fast_mode=True)
    act(x).sum().backward()
    assert all(p.grad is not None for p in act.parameters())


def test_srelu_starts_as_a_leaky_relu():
    x = torch.linspace(-3, 3, 50)
    torch.testing.assert_close(SReLU(leak=0.3)(x), nn.functional.leaky_relu(x, 0.3))
