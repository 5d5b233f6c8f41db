"""Hand-written parts equal torch, or a plain reference, in values and gradients."""

from functools import partial

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.optim.lr_scheduler import MultiStepLR, OneCycleLR

from helpers import Synthetic, quiet_trainer
from zoo.classification.resnet_mini import ResNetMini
from zoo.parts.activations import GeneralReLU
from zoo.parts.convs import conv_norm_act
from zoo.parts.optim.muon import NEWTON_SCHULZ, Muon, orthogonalize
from zoo.parts.optim.schedules import Constant, OneCycle, Step

some = settings(max_examples=60, deadline=None, derandomize=True)
sides, seeds = st.integers(1, 40), st.integers(0, 10_000)


def drawn(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


# Muon


def svd_of_a_draw(rows: int, columns: int, seed: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """U (M, R), singular values between 0.05 and 1 and V (R, N), in float64."""
    u, s, v = torch.linalg.svd(
        torch.randn(rows, columns, generator=drawn(seed), dtype=torch.float64), full_matrices=False
    )
    return u, 0.05 + 0.95 * torch.rand(len(s), generator=drawn(seed + 1), dtype=torch.float64), v


def written_out_orthogonalise(matrix: torch.Tensor, steps: int = 5) -> torch.Tensor:
    """The polynomial on the singular values, one by one, in float64."""
    a, b, c = NEWTON_SCHULZ
    u, s, v = torch.linalg.svd(matrix.double(), full_matrices=False)
    s = s / (s.norm() + 1e-7)
    for _ in range(steps):
        s = a * s + b * s**3 + c * s**5
    return u @ s.diag() @ v


@some
@given(sides, sides, seeds, st.sampled_from([1e-3, 1.0, 1e3]))
def test_orthogonalise_brings_singular_values_near_one_and_keeps_the_singular_vectors(rows, columns, seed, scale):
    u, s, v = svd_of_a_draw(rows, columns, seed)
    result = orthogonalize(u @ s.diag() @ v * scale)
    assert (result.shape, result.dtype) == ((rows, columns), torch.float32)
    inside = u.T @ result.double() @ v.T  # diagonal if the vectors are the same
    torch.testing.assert_close(inside, inside.diagonal().diag(), atol=1e-3, rtol=0)
    assert inside.diagonal().min() > 0.6
    assert inside.diagonal().max() < 1.3
    torch.testing.assert_close(result.double(), written_out_orthogonalise(u @ s.diag() @ v), atol=2e-3, rtol=0)
    torch.testing.assert_close(result, orthogonalize(u @ s.diag() @ v), atol=2e-3, rtol=0)


def test_orthogonalise_of_nothing_is_nothing():
    assert torch.equal(orthogonalize(torch.zeros(3, 5)), torch.zeros(3, 5))


def net(seed: int = 0) -> nn.Sequential:
    """Tall and wide filters, a norm, a matrix; double precision, to compare algorithms and not rounding."""
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Conv2d(2, 24, 3), nn.BatchNorm2d(24), nn.Tanh(), nn.Conv2d(24, 3, 2), nn.Flatten(), nn.Linear(12, 4)
    ).double()


def losses(model: nn.Module):
    for step in range(20):
        x, y = torch.randn(8, 2, 5, 5, generator=drawn(step), dtype=torch.float64), torch.arange(8) % 4
        yield F.cross_entropy(model(x), y)


def train(model: nn.Module, *optimisers: torch.optim.Optimizer) -> list[torch.Tensor]:
    """Twenty steps; the parameters then."""
    for loss in losses(model):
        for optimiser in optimisers:
            optimiser.zero_grad()
        loss.backward()
        for optimiser in optimisers:
            optimiser.step()
    return [p.detach().clone() for p in model.parameters()]


def matrices_and_vectors(model: nn.Module) -> tuple[list[nn.Parameter], list[nn.Parameter]]:
    return [p for p in model.parameters() if p.ndim >= 2], [p for p in model.parameters() if p.ndim < 2]


@pytest.mark.parametrize("decay", [0.0, 0.3])
def test_its_adamw_equals_torchs_with_decay_on_matrices_only(decay):
    ours, theirs = net(), net()
    options = {"betas": (0.8, 0.95), "eps": 1e-6}
    matrices, vectors = matrices_and_vectors(theirs)
    groups = [{"params": matrices, "weight_decay": decay}, {"params": vectors, "weight_decay": 0.0}]
    adamw = torch.optim.AdamW(groups, lr=0.02, **options)
    muon = Muon(ours.named_parameters(), adam_lr=0.02, weight_decay=decay, adam=("",), **options)
    for a, b in zip(train(ours, muon), train(theirs, adamw), strict=True):
        torch.testing.assert_close(a, b, atol=1e-9, rtol=1e-9)


class WrittenOutMuon(torch.optim.SGD):
    """Jordan et al. 2024, line by line, for filters and matrices."""

    def __init__(self, params, lr, momentum, decay):
        super().__init__(params, lr=lr)
        self.mu, self.decay, self.buffers = momentum, decay, {}

    @torch.no_grad()
    def step(self):
        for p in self.param_groups[0]["params"]:
            g = p.grad.reshape(len(p), -1)
            m = self.buffers[p] = self.mu * self.buffers.get(p, 0) + (1 - self.mu) * g
            update = written_out_orthogonalise((1 - self.mu) * g + self.mu * m).to(p.dtype)
            scale = max(1, g.shape[0] / g.shape[1]) ** 0.5
            lr = self.param_groups[0]["lr"]
            p.copy_(p * (1 - lr * self.decay) - lr * scale * update.view_as(p))


@pytest.mark.parametrize("decay", [0.0, 0.2])
def test_its_muon_equals_the_algorithm_written_out(decay):
    ours, theirs = net(), net()
    matrices, vectors = matrices_and_vectors(theirs)
    reference = WrittenOutMuon(matrices, 0.02, 0.9, decay), torch.optim.AdamW(vectors, lr=0.01, betas=(0.9, 0.99))
    reference[1].param_groups[0]["weight_decay"] = 0.0
    muon = Muon(ours.named_parameters(), lr=0.02, momentum=0.9, weight_decay=decay, adam_lr=0.01, adam=())
    for a, b in zip(train(ours, muon), train(theirs, *reference), strict=True):
        torch.testing.assert_close(a, b, atol=2e-3, rtol=2e-3)


@pytest.mark.parametrize("shape", [(6, 10), (12, 5)])
def test_its_first_step_goes_where_torchs_goes(shape):
    start, gradient = torch.zeros(shape), torch.randn(shape, generator=drawn(1))
    ours, theirs = nn.Parameter(start.clone()), nn.Parameter(start.clone())
    ours.grad, theirs.grad = gradient.clone(), gradient.clone()
    Muon([("hidden", ours)], lr=1.0).step()
    torch.optim.Muon([theirs], lr=1.0, weight_decay=0.0).step()
    assert F.cosine_similarity(ours.detach().flatten(), theirs.detach().flatten(), dim=0) > 0.995


def test_parameters_are_sorted_by_name_and_dimensions():
    named = [(name, nn.Parameter(torch.zeros(shape))) for name, shape in NAMED.items()]
    groups = Muon(named, lr=0.3, adam_lr=0.1, weight_decay=0.5).param_groups
    found = [(group["param_names"], group["lr"], group["weight_decay"]) for group in groups]
    assert found == [
        (["stages.weight"], 0.3, 0.5),
        (["stem.weight", "embedding"], 0.1, 0.5),
        (["stages.bias", "head.bias"], 0.1, 0.0),
    ]


NAMED = {"stem.weight": (2, 2), "stages.weight": (2, 2, 3), "stages.bias": (2,), "head.bias": (2,), "embedding": (2, 2)}


def test_parameters_without_names_are_an_error():
    with pytest.raises(ValueError, match=r"without names: .* pass named_parameters"):
        Muon(net().parameters())


def test_a_saved_muon_continues_exactly(tmp_path):
    def of(model: nn.Module) -> Muon:
        return Muon(model.named_parameters(), weight_decay=0.1, adam=("5.",))

    first, second = net(0), net(1)
    optimiser = of(first)
    train(first, optimiser)
    torch.save((first.state_dict(), optimiser.state_dict()), tmp_path / "saved")
    model, state = torch.load(tmp_path / "saved", weights_only=True)
    second.load_state_dict(model)
    other = of(second)
    other.load_state_dict(state)
    fresh = net(2)
    fresh.load_state_dict(model)
    expected, found, without = train(first, optimiser), train(second, other), train(fresh, of(fresh))
    assert all(torch.equal(a, b) for a, b in zip(expected, found, strict=True))
    assert not any(torch.equal(a, b) for a, b in zip(expected, without, strict=True))


def test_muon_takes_a_closure_and_leaves_parameters_without_gradient():
    used, unused = nn.Parameter(torch.eye(2)), nn.Parameter(torch.eye(2))
    optimiser = Muon([("used", used), ("unused", unused)], weight_decay=0.5)

    def closure() -> torch.Tensor:
        loss = used.square().sum()
        loss.backward()
        return loss

    assert optimiser.step(closure).item() == 2
    assert not torch.equal(used, torch.eye(2))
    assert torch.equal(unused, torch.eye(2))


def test_a_classifier_trains_with_muon():
    model = ResNetMini(widths=(4, 8), strides=(1, 2), optimizer=partial(Muon, weight_decay=0.01))
    before = [p.detach().clone() for p in model.parameters()]
    trainer = quiet_trainer(max_epochs=1, limit_val_batches=0)
    trainer.fit(model, datamodule=Synthetic(batch_size=10))
    assert [group["muon"] for group in trainer.optimizers[0].param_groups] == [True, False, False]
    assert not any(torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True))
    assert all(p.isfinite().all() for p in model.parameters())


# Schedules


def optimizer(*rates: float) -> torch.optim.Optimizer:
    return torch.optim.SGD([{"params": [nn.Parameter(torch.zeros(1))], "lr": rate} for rate in rates or (2.0,)])


def rates(schedule, steps: int) -> list[float]:
    """The first group's learning rate at each of the steps."""
    found = []
    for _ in range(steps):
        found.append(schedule.optimizer.param_groups[0]["lr"])
        schedule.optimizer.step()
        schedule.step()
    return found


@pytest.mark.parametrize("anneal", ["linear", "cos"])
@pytest.mark.parametrize("total", [10, 50])
def test_one_cycle_equals_torchs_whose_end_is_a_step_earlier(anneal, total):
    """torch reaches its end at the last of `total_steps`, we behind it; so ours of T is torch's of T + 1, and
    its peak is at pct_start * (T + 1) - 1. On the way up torch's "cos" is curved and ours straight."""
    peak, start, end = 0.4, 0.1, 0.01
    ours = rates(OneCycle(optimizer(), total, peak, start, end, anneal), total)
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
    torch.testing.assert_close(torch.tensor(ours)[same], torch.tensor(rates(theirs, total))[same], atol=1e-6, rtol=0)
    assert max(ours) == 2.0


@pytest.mark.parametrize("milestones", [(0.6,), (0.3, 0.5, 0.9), ()])
def test_step_equals_multi_step(milestones):
    ours = Step(optimizer(), 20, milestones, gamma=0.3)
    theirs = MultiStepLR(optimizer(), [round(m * 20) for m in milestones], gamma=0.3)
    torch.testing.assert_close(rates(ours, 20), rates(theirs, 20))


shares = st.floats(0, 1)


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


@pytest.mark.parametrize("wrong", [{"peak": 1.2}, {"peak": -0.1}, {"anneal": "cosine"}])
def test_one_cycle_refuses_what_it_does_not_know(wrong):
    with pytest.raises(ValueError, match=r"expected a peak in 0\.\.1 and 'linear' or 'cos'"):
        OneCycle(optimizer(), 10, **wrong)


@pytest.mark.parametrize("make", [Constant, OneCycle, Step])
def test_a_schedule_keeps_the_ratio_of_groups_and_resumes(make):
    schedule = make(optimizer(2.0, 0.5), 10)
    rates(schedule, 4)
    first, second = (group["lr"] for group in schedule.optimizer.param_groups)
    assert first == pytest.approx(4 * second)
    other = make(optimizer(2.0, 0.5), 10)
    other.optimizer.load_state_dict(schedule.optimizer.state_dict())
    other.load_state_dict(schedule.state_dict())
    assert rates(other, 6) == rates(schedule, 6)


def test_constant_is_constant():
    assert rates(Constant(optimizer(), 5), 5) == [2.0] * 5


# Layers


@some
@given(st.lists(st.integers(1, 5), min_size=1, max_size=4), shares, shares, st.none() | st.floats(0, 2), seeds)
def test_general_relu_equals_torch_in_values_and_gradients(shape, leak, sub, maximum, seed):
    x = (3 * torch.randn(shape, generator=drawn(seed))).requires_grad_()
    y = x.detach().clone().requires_grad_()
    theirs = torch.where(y >= 0, y, leak * y) - sub
    theirs = theirs if maximum is None else torch.clamp(theirs, max=maximum)
    ours = GeneralReLU(leak, sub, maximum)(x)
    torch.testing.assert_close(ours, theirs)
    weights = torch.randn(shape, generator=drawn(seed + 1))
    (ours * weights).sum().backward()
    (theirs * weights).sum().backward()
    torch.testing.assert_close(x.grad, y.grad)


@some
@given(
    st.integers(1, 4), st.integers(1, 4), st.sampled_from([1, 3, 5]), st.integers(1, 3), st.booleans(), st.booleans()
)
def test_conv_norm_act_has_the_shape_and_values_of_its_layers(inputs, outputs, kernel, stride, pool, act):
    block = conv_norm_act(inputs, outputs, kernel, stride, pool=pool, act=act)
    conv, norm = (next(m for m in block if isinstance(m, kind)) for kind in (nn.Conv2d, nn.BatchNorm2d))
    assert conv.bias is None
    x = torch.randn(2, inputs, 12, 12)
    y = F.conv2d(x, conv.weight, stride=stride, padding=kernel // 2)
    assert y.shape == (2, outputs, -(-12 // stride), -(-12 // stride))
    y = F.max_pool2d(y, 2) if pool else y
    y = F.batch_norm(y, None, None, norm.weight, norm.bias, training=True)
    torch.testing.assert_close(block(x), y.relu() if act else y)
