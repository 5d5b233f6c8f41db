"""The classic optimizers equal torch's where the definition is the same, step by step."""

import copy
from functools import partial

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from zoo.parts.optim.classic import SGD, AdaDelta, AdaGrad, Adam, GradientDescent, Momentum, Nesterov, RMSProp

ALL = [SGD, Momentum, Nesterov, AdaGrad, AdaDelta, RMSProp, Adam]
every = pytest.mark.parametrize("kind", ALL, ids=lambda kind: kind.__name__)
few = settings(max_examples=15, deadline=None)


def net(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(5, 7), nn.Tanh(), nn.Linear(7, 3)).double()


def loss_of(model: nn.Module, seed: int) -> torch.Tensor:
    x = torch.randn(8, 5, generator=torch.Generator().manual_seed(seed)).double()
    return model(x).square().mean() + model(x + 1).sin().mean()


def descend(model: nn.Module, optimizer: torch.optim.Optimizer, steps: range) -> torch.Tensor:
    for step in steps:
        optimizer.zero_grad()
        loss_of(model, step).backward()
        optimizer.step()
    return torch.cat([p.detach().flatten() for p in model.parameters()])


def both(ours: partial, theirs: partial, steps: int = 4, before=None) -> None:
    """The two have the same weights after each of the steps."""
    a, b = net(), net()
    mine, reference = ours(a.parameters()), theirs(b.parameters())
    if before:
        before(b, reference)
    for step in range(steps):
        now = range(step, step + 1)
        torch.testing.assert_close(descend(a, mine, now), descend(b, reference, now))


decays = st.sampled_from([0.0, 0.1])


@few
@given(st.floats(0.001, 0.5), decays)
def test_sgd_equals_torchs_and_both_forms_of_weight_decay_are_one(lr, decay):
    for decoupled in (False, True):
        both(
            partial(SGD, lr=lr, weight_decay=decay, decoupled=decoupled),
            partial(torch.optim.SGD, lr=lr, weight_decay=decay),
        )


@few
@given(st.floats(0.001, 0.5), st.floats(0.1, 0.95), decays, st.booleans())
def test_momentum_and_nesterov_equal_torchs_at_a_lower_learning_rate(lr, momentum, decay, nesterov):
    both(
        partial(Nesterov if nesterov else Momentum, lr=lr, momentum=momentum, weight_decay=decay),
        partial(torch.optim.SGD, lr=lr * (1 - momentum), momentum=momentum, weight_decay=decay, nesterov=nesterov),
    )


@few
@given(st.floats(0.001, 0.5), decays)
def test_adagrad_and_adadelta_equal_torchs(lr, decay):
    both(partial(AdaGrad, lr=lr, weight_decay=decay), partial(torch.optim.Adagrad, lr=lr, weight_decay=decay))
    both(partial(AdaDelta, lr=lr, weight_decay=decay), partial(torch.optim.Adadelta, lr=lr, weight_decay=decay))


@few
@given(st.floats(1e-4, 0.1), st.tuples(st.floats(0, 0.95), st.floats(0.5, 0.999)), decays, st.booleans())
def test_adam_equals_torchs_adam_and_adamw(lr, betas, decay, decoupled):
    theirs = torch.optim.AdamW if decoupled else torch.optim.Adam
    both(
        partial(Adam, lr=lr, betas=betas, weight_decay=decay, decoupled=decoupled),
        partial(theirs, lr=lr, betas=betas, weight_decay=decay),
    )


@few
@given(st.floats(1e-4, 0.1), st.floats(0.5, 0.999), decays)
def test_rmsprop_equals_torchs_if_that_starts_at_the_first_squared_gradient(lr, alpha, decay):
    def start(model, optimizer):
        loss_of(model, 0).backward()
        for p in model.parameters():
            first = p.grad + decay * p.detach()
            optimizer.state[p] = {"step": torch.tensor(0.0), "square_avg": first.square()}

    both(
        partial(RMSProp, lr=lr, alpha=alpha, weight_decay=decay),
        partial(torch.optim.RMSprop, lr=lr, alpha=alpha, weight_decay=decay),
        before=start,
    )


def test_rmsprops_first_step_is_as_long_as_the_learning_rate_and_torchs_ten_times_as_long():
    for kind, length in ((RMSProp, 1.0), (torch.optim.RMSprop, 10.0)):
        weight = nn.Parameter(torch.zeros(4))
        weight.grad = torch.tensor([1.0, -2.0, 30.0, -0.4])
        kind([weight], lr=1.0).step()
        torch.testing.assert_close(weight.detach(), -length * weight.grad.sign(), rtol=1e-5, atol=0)


@every
def test_it_continues_from_its_state_dict_bit_for_bit(kind):
    whole, parts = net(), net()
    straight = descend(whole, kind(whole.parameters(), lr=0.05), range(6))
    first = kind(parts.parameters(), lr=0.05)
    descend(parts, first, range(3))
    again = kind(parts.parameters(), lr=99.0)
    again.load_state_dict(copy.deepcopy(first.state_dict()))
    assert torch.equal(descend(parts, again, range(3, 6)), straight)


@every
def test_groups_have_their_own_settings_and_parameters_without_gradient_are_unchanged(kind):
    weights = [nn.Parameter(torch.ones(3)) for _ in range(3)]
    optimizer = kind([{"params": weights[:1], "lr": 0.1}, {"params": weights[1:], "lr": 0.0}], lr=1.0)
    weights[0].grad = weights[1].grad = torch.ones(3)
    optimizer.step()
    assert not torch.equal(weights[0], torch.ones(3))
    assert torch.equal(weights[1], torch.ones(3))
    assert torch.equal(weights[2], torch.ones(3))
    assert weights[2] not in optimizer.state


@every
def test_a_parameter_with_its_first_gradient_later_starts_at_its_first_step(kind):
    """Each parameter counts its own steps."""
    early, late, alone = (nn.Parameter(torch.ones(2)) for _ in range(3))
    together, single = kind([early, late], lr=0.1), kind([alone], lr=0.1)
    early.grad = torch.full((2,), 0.5)
    together.step()
    late.grad, alone.grad = torch.full((2,), 0.3), torch.full((2,), 0.3)
    together.step()
    single.step()
    assert torch.equal(late, alone)


@every
def test_a_closure_is_called_with_gradients_and_its_loss_returned(kind):
    model = net()
    optimizer = kind(model.parameters(), lr=0.01)

    def closure():
        optimizer.zero_grad()
        loss = loss_of(model, 0)
        loss.backward()
        return loss

    assert optimizer.step(closure).item() == loss_of(net(), 0).item()
    assert loss_of(model, 0) < loss_of(net(), 0)


@every
def test_it_descends_a_quadratic(kind):
    weight = nn.Parameter(torch.tensor([3.0, -2.0]))
    optimizer = kind([weight], lr=1.0 if kind is AdaDelta else 0.05)
    for _ in range(300):
        optimizer.zero_grad()
        weight.square().sum().backward()
        optimizer.step()
    assert weight.detach().square().sum() < (13 if kind in (AdaDelta, AdaGrad) else 0.1)


def test_a_subclass_must_define_descend():
    with pytest.raises(TypeError, match=r"abstract method '?descend"):
        GradientDescent([nn.Parameter(torch.zeros(1))], lr=0.1)


@pytest.mark.parametrize(
    ("kind", "options", "message"),
    [
        (SGD, {"lr": -1.0}, "lr is -1.0: expected 0 or more"),
        (Momentum, {"momentum": 1.0}, "momentum is 1.0: expected 0 or more, and less than 1"),
        (Adam, {"betas": (0.9, 1.5)}, r"betas is \(0.9, 1.5\): expected 0 or more, and less than 1"),
        (RMSProp, {"weight_decay": -0.1}, "weight_decay is -0.1"),
    ],
)
def test_impossible_settings_are_refused(kind, options, message):
    with pytest.raises(ValueError, match=message):
        kind([nn.Parameter(torch.zeros(1))], **options)


def test_sparse_gradients_are_refused():
    table = nn.Embedding(4, 2, sparse=True)
    table(torch.tensor([1])).sum().backward()
    with pytest.raises(RuntimeError, match="SGD takes no sparse gradients"):
        SGD(table.parameters()).step()
