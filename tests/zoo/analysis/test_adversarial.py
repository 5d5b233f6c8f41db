"""Adversarial images: the closed form on a linear model, bounds, success on a trained net, and a net left untouched."""

import copy

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from zoo.analysis.adversarial import fgsm, least_likely, logits_of, random_others, targeted

MEAN, STD = (0.4, 0.5, 0.3), (0.2, 0.25, 0.3)
CENTER, SCALE = (torch.tensor(values)[:, None, None] for values in (MEAN, STD))


def linear_net(classes: int = 4, seed: int = 0) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Flatten(), nn.Linear(3 * 6 * 5, classes))


def images(count: int, seed: int = 0) -> Tensor:
    """Normalized; some pixels are black, some white, as in 8-bit images."""
    draw = torch.Generator().manual_seed(seed)
    pixels = (torch.rand(count, 3, 6, 5, generator=draw) * 1.4 - 0.2).clamp(0, 1).mul(255).round() / 255
    return (pixels - CENTER) / SCALE


def pixels_of(normalized: Tensor) -> Tensor:
    return normalized.double() * SCALE + CENTER


@pytest.fixture(scope="module")
def trained() -> tuple[nn.Sequential, Tensor, Tensor]:
    """A convolutional net with batch norm and dropout, that has learned where the bright spot is; images and labels."""
    draw = torch.Generator().manual_seed(0)
    labels = torch.randint(0, 4, (64,), generator=draw)
    pixels = 0.4 + 0.05 * torch.randn(64, 3, 6, 5, generator=draw)
    for i, label in enumerate(labels.tolist()):
        pixels[i, :, 3 * (label // 2) : 3 * (label // 2) + 3, 2 * (label % 2) : 2 * (label % 2) + 3] += 0.04
    x = (pixels.clamp(0, 1) - CENTER) / SCALE
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten(), nn.Dropout(0.1), nn.Linear(240, 4)
    )
    optimizer = torch.optim.Adam(net.parameters(), lr=0.01)
    for _ in range(60):
        optimizer.zero_grad()
        F.cross_entropy(net(x), labels).backward()
        optimizer.step()
    assert (logits_of(net, x).argmax(1) == labels).float().mean() > 0.95
    return net, x, labels


@settings(max_examples=20, deadline=None)
@given(epsilon=st.sampled_from([0.0, 1 / 255, 8 / 255, 0.3, 1.0]), seed=st.integers(0, 9), steps=st.integers(1, 8))
def test_changes_are_within_epsilon_and_results_within_the_range_of_images(epsilon, seed, steps):
    net, x = linear_net(seed=seed), images(5, seed)
    for found in (
        fgsm(net, x, torch.arange(5) % 4, MEAN, STD, epsilon),
        targeted(net, x, torch.arange(5) % 4, MEAN, STD, epsilon, steps),
        targeted(net, x, torch.arange(5) % 4, MEAN, STD, epsilon, steps, step_size=0.05),
    ):
        assert (pixels_of(found) - pixels_of(x)).abs().max() <= epsilon + 1e-6
        assert pixels_of(found).min() > -1e-6
        assert pixels_of(found).max() < 1 + 1e-6


def test_fgsm_on_a_linear_model_is_the_closed_form():
    net, x, labels = linear_net(), images(6), torch.tensor([0, 1, 2, 3, 0, 1])
    weight = net[1].weight.detach()
    # d loss / d x = W^T (p - y)
    probability = net(x).softmax(1).detach() - F.one_hot(labels, 4)
    gradient = (probability @ weight).reshape(x.shape)
    expected = (pixels_of(x) + 0.05 * gradient.sign()).clamp(0, 1)
    torch.testing.assert_close(pixels_of(fgsm(net, x, labels, MEAN, STD, 0.05)), expected, atol=1e-6, rtol=0)


def test_one_targeted_step_is_fgsm_with_the_other_sign():
    net, x, labels = linear_net(classes=2), images(6), torch.tensor([0, 1, 1, 1, 0, 1])
    found = targeted(net, x, 1 - labels, MEAN, STD, 0.05, steps=1, step_size=0.05)
    torch.testing.assert_close(found, fgsm(net, x, labels, MEAN, STD, 0.05))


class TestOnATrainedNet:
    def test_steps_with_momentum_equal_their_equations(self, trained):
        net, x, labels = trained
        alike = copy.deepcopy(net).eval()  # the other tests share the net
        targets, step, m = (labels + 1) % 4, 2 / 255, 0.0
        expected = pixels_of(x)
        for _ in range(5):
            leaf = ((expected - CENTER) / SCALE).float().requires_grad_()
            F.cross_entropy(alike(leaf), targets, reduction="sum").backward()
            m = 0.8 * m + leaf.grad / leaf.grad.abs().sum((1, 2, 3), keepdim=True)
            expected = (expected - step * m.sign()).clamp(pixels_of(x) - 6 / 255, pixels_of(x) + 6 / 255).clamp(0, 1)
        found = targeted(net, x, targets, MEAN, STD, 6 / 255, steps=5, step_size=step, momentum=0.8)
        torch.testing.assert_close(pixels_of(found), expected, atol=1e-5, rtol=0)
        assert not torch.equal(
            found, targeted(net, x, targets, MEAN, STD, 6 / 255, steps=5, step_size=step, momentum=0)
        )

    def test_fgsm_lowers_the_probability_of_every_label(self, trained):
        net, x, labels = trained
        found = fgsm(net, x, labels, MEAN, STD, 4 / 255)
        before, after = (logits_of(net, batch).softmax(1).gather(1, labels[:, None]) for batch in (x, found))
        assert (after < before).all()

    @pytest.mark.parametrize("steps", [1, 6])
    def test_the_targeted_attack_raises_the_probability_of_every_target(self, trained, steps):
        net, x, labels = trained
        for targets in (least_likely(net, x), random_others(labels, 4)):
            found = targeted(net, x, targets, MEAN, STD, 8 / 255, steps)
            before, after = (logits_of(net, batch).softmax(1).gather(1, targets[:, None]) for batch in (x, found))
            assert (after > before).all()

    def test_six_steps_reach_more_targets_than_one(self, trained):
        net, x, _ = trained
        targets = least_likely(net, x)
        reached = [
            (logits_of(net, targeted(net, x, targets, MEAN, STD, 12 / 255, steps)).argmax(1) == targets).float().mean()
            for steps in (1, 6)
        ]
        assert reached[1] >= reached[0]
        assert reached[1] > 0.9

    def test_a_result_depends_on_its_own_image_only(self, trained):
        net, x, labels = trained
        together = targeted(net, x[:8], (labels[:8] + 1) % 4, MEAN, STD)
        alone = targeted(net, x[3:4], (labels[3:4] + 1) % 4, MEAN, STD)
        torch.testing.assert_close(together[3:4], alone, atol=1e-5, rtol=0)

    def test_the_net_stays_as_it_is(self, trained):
        net, x, labels = trained
        net.train()
        net[0].eval()
        net[5].bias.requires_grad_(False)
        net[0].weight.grad = torch.full_like(net[0].weight, 3.0)
        net[5].weight.grad = None
        kept = x.clone()
        before = {name: value.clone() for name, value in net.state_dict().items()}
        state = torch.get_rng_state()
        with torch.inference_mode():  # as in the test loop of a Trainer
            inside = targeted(net, x.clone(), labels, MEAN, STD)
        assert torch.equal(inside, targeted(net, x, labels, MEAN, STD))
        fgsm(net, x, labels, MEAN, STD)
        least_likely(net, x)
        assert torch.equal(torch.get_rng_state(), state)
        assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
        assert [module.training for module in net] == [False, True, True, True, True, True]
        assert [p.requires_grad for p in net.parameters()] == [True] * 5 + [False]
        assert net[5].weight.grad is None
        assert torch.equal(net[0].weight.grad, torch.full_like(net[0].weight, 3.0))
        assert all(not module._forward_hooks and not module._backward_hooks for module in net.modules())
        assert torch.equal(x, kept)
        assert not x.requires_grad
        net[5].bias.requires_grad_(True)


@given(st.integers(2, 12), st.integers(0, 99))
@settings(max_examples=20, deadline=None)
def test_random_others_are_other_classes_and_any_of_them(num_classes, seed):
    labels = torch.arange(600) % num_classes
    others = random_others(labels, num_classes, seed)
    assert (others != labels).all()
    assert set(others.tolist()) == set(range(num_classes))
    assert torch.equal(others, random_others(labels, num_classes, seed))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"epsilon": 8.0}, r"epsilon is 8: expected 0 to 1"),
        ({"epsilon": -0.1}, r"epsilon is -0.1: expected 0 to 1"),
        ({"steps": 0}, r"steps is 0: expected 1 or more"),
        ({"step_size": 0.0}, r"step_size is 0.0: expected more than 0"),
        ({"momentum": 1.5}, r"momentum is 1.5: expected 0 to 1"),
        ({"targets": torch.zeros(3, dtype=torch.int64)}, r"\(3,\).*expected class indices \(2,\)"),
        ({"targets": torch.zeros(2)}, r"torch.float32: expected class indices"),
    ],
)
def test_bad_input(options, message):
    arguments = {"targets": torch.zeros(2, dtype=torch.int64)} | options
    with pytest.raises(ValueError, match=message):
        targeted(linear_net(), images(2), mean=MEAN, std=STD, **arguments)
    with pytest.raises(ValueError, match="num_classes is 1"):
        random_others(torch.zeros(2, dtype=torch.int64), 1)
