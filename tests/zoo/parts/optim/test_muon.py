"""Muon equals its published algorithm, and on the other parameters torch's AdamW."""

from functools import partial

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from helpers import Synthetic, quiet_trainer
from zoo.classification.resnet_mini import ResNetMini
from zoo.parts.optim.muon import NEWTON_SCHULZ, Muon, MuonSGD, orthogonalize

some = settings(max_examples=60, deadline=None, derandomize=True)
sides, seeds = st.integers(1, 40), st.integers(0, 10_000)


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def random_svd(rows: int, columns: int, seed: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """U (M, R), singular values between 0.05 and 1 and V (R, N), in float64."""
    u, s, v = torch.linalg.svd(
        torch.randn(rows, columns, generator=seeded(seed), dtype=torch.float64), full_matrices=False
    )
    return u, 0.05 + 0.95 * torch.rand(len(s), generator=seeded(seed + 1), dtype=torch.float64), v


def written_out_orthogonalize(matrix: torch.Tensor, steps: int = 5) -> torch.Tensor:
    """The polynomial on the singular values, one by one, in float64."""
    a, b, c = NEWTON_SCHULZ
    u, s, v = torch.linalg.svd(matrix.double(), full_matrices=False)
    s = s / (s.norm() + 1e-7)
    for _ in range(steps):
        s = a * s + b * s**3 + c * s**5
    return u @ s.diag() @ v


@some
@given(sides, sides, seeds, st.sampled_from([1e-3, 1.0, 1e3]))
def test_orthogonalize_brings_singular_values_near_one_and_keeps_the_singular_vectors(rows, columns, seed, scale):
    u, s, v = random_svd(rows, columns, seed)
    result = orthogonalize(u @ s.diag() @ v * scale)
    assert (result.shape, result.dtype) == ((rows, columns), torch.float32)
    inside = u.T @ result.double() @ v.T  # diagonal if the vectors are the same
    torch.testing.assert_close(inside, inside.diagonal().diag(), atol=1e-3, rtol=0)
    assert inside.diagonal().min() > 0.6
    assert inside.diagonal().max() < 1.3
    torch.testing.assert_close(result.double(), written_out_orthogonalize(u @ s.diag() @ v), atol=2e-3, rtol=0)
    torch.testing.assert_close(result, orthogonalize(u @ s.diag() @ v), atol=2e-3, rtol=0)


def test_orthogonalized_zeros_are_zeros():
    assert torch.equal(orthogonalize(torch.zeros(3, 5)), torch.zeros(3, 5))


def net(seed: int = 0) -> nn.Sequential:
    """Tall and wide filters, a norm, a matrix; double precision, to compare algorithms and not rounding."""
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Conv2d(2, 24, 3), nn.BatchNorm2d(24), nn.Tanh(), nn.Conv2d(24, 3, 2), nn.Flatten(), nn.Linear(12, 4)
    ).double()


def losses(model: nn.Module):
    for step in range(20):
        x, y = torch.randn(8, 2, 5, 5, generator=seeded(step), dtype=torch.float64), torch.arange(8) % 4
        yield F.cross_entropy(model(x), y)


def train(model: nn.Module, *optimizers: torch.optim.Optimizer) -> list[torch.Tensor]:
    """Trains for twenty steps; returns the parameters."""
    for loss in losses(model):
        for optimizer in optimizers:
            optimizer.zero_grad()
        loss.backward()
        for optimizer in optimizers:
            optimizer.step()
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


def test_muon_sgd_has_the_sgd_of_torch_beside_muon():
    ours, theirs = net(), net()
    matrices, vectors = matrices_and_vectors(theirs)
    groups = [
        {"params": matrices[-1:], "lr": 0.3, "weight_decay": 0.02 / 0.3},
        {"params": vectors, "lr": 0.1, "weight_decay": 0.02 / 0.1},
    ]
    reference = torch.optim.SGD(groups, momentum=0.8, nesterov=True), WrittenOutMuon(matrices[:-1], 0.02, 0.9, 0.0)
    sgd = {"matrix_lr": 0.3, "vector_lr": 0.1, "sgd_momentum": 0.8, "decay": 0.02}
    muon = MuonSGD(ours.named_parameters(), 0.02, 0.9, unit_rows=False, adam=("5.",), ns_steps=5, **sgd)
    for a, b in zip(train(ours, muon), train(theirs, *reference), strict=True):
        torch.testing.assert_close(a, b, atol=2e-3, rtol=2e-3)


@pytest.mark.parametrize("scale", [1 / 9, 0.5])
def test_the_rates_of_muon_sgd_are_those_of_a_summed_loss_and_logits_divided_by_256(scale):
    """Its docstring's: 2000 times a bias's rate, 2000 / (256 * scale)**2 times a head's."""
    torch.manual_seed(0)
    x, y, images = torch.randn(2000, 6, dtype=torch.float64), torch.arange(2000) % 4, 2000
    start = torch.randn(4, 6, dtype=torch.float64)
    ours, theirs = nn.Parameter(start / scale), nn.Parameter(start * 256)
    biases = nn.Parameter(torch.zeros(4, dtype=torch.float64)), nn.Parameter(torch.zeros(4, dtype=torch.float64))
    groups = [
        {"params": [theirs], "lr": 0.67, "weight_decay": 0.004 / 0.67},
        {"params": biases[1:], "lr": 0.053, "weight_decay": 0.004 / 0.053},
    ]
    sgd = torch.optim.SGD(groups, momentum=0.85, nesterov=True)
    rate = 0.67 * images / (256 * scale) ** 2
    muon = MuonSGD([("head", ours), ("bias", biases[0])], matrix_lr=rate, vector_lr=0.053 * images)
    for _ in range(5):
        F.cross_entropy(x @ ours.T * scale + biases[0], y).backward()
        F.cross_entropy(x @ theirs.T / 256 + biases[1], y, reduction="sum").backward()
        for optimizer in muon, sgd:
            optimizer.step()
            optimizer.zero_grad()
    torch.testing.assert_close(ours * scale, theirs / 256, atol=1e-10, rtol=1e-10)
    torch.testing.assert_close(*biases, atol=1e-10, rtol=1e-10)
    assert not torch.allclose(ours, start / scale, atol=1e-3)


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
            update = written_out_orthogonalize((1 - self.mu) * g + self.mu * m).to(p.dtype)
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
def test_its_first_step_has_the_direction_of_torchs(shape):
    start, gradient = torch.zeros(shape), torch.randn(shape, generator=seeded(1))
    ours, theirs = nn.Parameter(start.clone()), nn.Parameter(start.clone())
    ours.grad, theirs.grad = gradient.clone(), gradient.clone()
    Muon([("hidden", ours)], lr=1.0).step()
    torch.optim.Muon([theirs], lr=1.0, weight_decay=0.0).step()
    assert F.cosine_similarity(ours.detach().flatten(), theirs.detach().flatten(), dim=0) > 0.995


@pytest.mark.parametrize("steps", [1, 3, 5])
def test_the_update_is_orthogonalized_by_so_many_iterations(steps):
    weight = nn.Parameter(torch.zeros(6, 10))
    weight.grad = torch.linspace(-1, 1, 60).view(6, 10) ** 3
    Muon([("hidden", weight)], lr=0.5, momentum=0.0, ns_steps=steps).step()
    torch.testing.assert_close(weight.detach(), -0.5 * orthogonalize(weight.grad, steps))


NAMED = {"stem.weight": (2, 2), "stages.weight": (2, 2, 3), "stages.bias": (2,), "head.bias": (2,), "embedding": (2, 2)}


def test_parameters_are_grouped_by_name_and_dimensions():
    named = [(name, nn.Parameter(torch.zeros(shape))) for name, shape in NAMED.items()]
    groups = Muon(named, lr=0.3, adam_lr=0.1, weight_decay=0.5).param_groups
    found = [(group["param_names"], group["lr"], group["weight_decay"]) for group in groups]
    assert found == [
        (["stages.weight"], 0.3, 0.5),
        (["stem.weight", "embedding"], 0.1, 0.5),
        (["stages.bias", "head.bias"], 0.1, 0.0),
    ]


def test_parameters_without_names_are_an_error():
    with pytest.raises(ValueError, match=r"without names: .* pass named_parameters"):
        Muon(net().parameters())


@pytest.mark.parametrize("kind", [partial(Muon, weight_decay=0.1), partial(MuonSGD, vector_lr=0.1, matrix_lr=0.1)])
def test_a_saved_muon_continues_exactly(kind, tmp_path):
    def of(model: nn.Module) -> Muon:
        return kind(model.named_parameters(), adam=("5.",))

    first, second = net(0), net(1)
    optimizer = of(first)
    train(first, optimizer)
    torch.save((first.state_dict(), optimizer.state_dict()), tmp_path / "saved")
    model, state = torch.load(tmp_path / "saved", weights_only=True)
    second.load_state_dict(model)
    other = of(second)
    other.load_state_dict(state)
    fresh = net(2)
    fresh.load_state_dict(model)
    expected, found, without = train(first, optimizer), train(second, other), train(fresh, of(fresh))
    assert all(torch.equal(a, b) for a, b in zip(expected, found, strict=True))
    assert not any(torch.equal(a, b) for a, b in zip(expected, without, strict=True))


def test_muon_takes_a_closure_and_leaves_parameters_without_gradient_unchanged():
    used, unused = nn.Parameter(torch.eye(2)), nn.Parameter(torch.eye(2))
    optimizer = Muon([("used", used), ("unused", unused)], weight_decay=0.5)

    def closure() -> torch.Tensor:
        loss = used.square().sum()
        loss.backward()
        return loss

    assert optimizer.step(closure).item() == 2
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
