"""The cellular automaton equals a slow one that is written from its definition, on a torus, in float32."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from zoo.parts.nca import FILTERS, NCA, to_rgb


def random_nca(channels: int = 4, hidden: int = 8) -> NCA:
    """An automaton that changes its states slowly, so that nothing explodes."""
    torch.manual_seed(0)
    net = NCA(channels, hidden)
    torch.nn.init.normal_(net.brain[-1].weight, std=0.2)
    return net


def masks_of(steps: int, *shape: int) -> list[torch.Tensor]:
    return [(torch.rand(shape) < 0.5).float() for _ in range(steps)]


@pytest.mark.parametrize(("channels", "hidden", "count"), [(4, 8, 168), (12, 96, 5856)])
def test_the_number_of_parameters_is_as_published(channels, hidden, count):
    assert sum(p.numel() for p in NCA(channels, hidden).parameters()) == count
    assert sum(value.numel() for value in NCA(channels, hidden).state_dict().values()) == count


def slow_step(net: NCA, x: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """By shifting the torus for each of the nine neighbors, and linear layers for each cell."""
    seen = []
    for channel in x.unbind(1):
        for kernel in FILTERS:
            shifted = [
                weight * channel.roll((1 - i, 1 - j), (1, 2))
                for i, row in enumerate(kernel)
                for j, weight in enumerate(row)
            ]
            seen.append(sum(shifted))
    cells = torch.stack(seen, -1)  # (B, H, W, 4 C)
    first, _, last = net.brain
    hidden = F.linear(cells, first.weight.flatten(1), first.bias).relu()
    return x + mask * F.linear(hidden, last.weight.flatten(1)).permute(0, 3, 1, 2)


@given(st.integers(3, 6), st.integers(1, 9), st.integers(1, 3), st.integers(1, 9), st.integers(1, 9), st.integers(0, 3))
@settings(max_examples=25, deadline=None)
def test_it_equals_shifted_neighbors_and_linear_layers(channels, hidden, batch, height, width, steps):
    net = random_nca(channels, hidden)
    x, masks = torch.randn(batch, channels, height, width), masks_of(steps, batch, 1, height, width)
    expected = x
    for mask in masks:
        expected = slow_step(net, expected, mask)
    inputs = [x.clone().requires_grad_(), *net.parameters()]
    torch.testing.assert_close(net(inputs[0], masks), expected, atol=1e-4, rtol=1e-4)
    if steps:
        theirs = torch.autograd.grad(expected.square().sum(), inputs[1:])
        ours = torch.autograd.grad(net(inputs[0], masks).square().sum(), inputs[1:])
        torch.testing.assert_close(ours, theirs, atol=1e-2, rtol=1e-3)


def test_the_filters_measure_value_slopes_and_curvature():
    y, x = torch.meshgrid(torch.arange(7.0), torch.arange(7.0), indexing="ij")
    seen = F.conv2d((2 * x - 3 * y + x * x)[None, None], torch.tensor(FILTERS)[:, None])[0, :, 2, 2]  # at (3, 3)
    torch.testing.assert_close(seen, torch.tensor([6.0, 2 + 6, -3.0, 1.0]))


def test_masked_cells_do_not_change():
    net, x = random_nca(), torch.randn(2, 4, 8, 8)
    (mask,) = masks_of(1, 2, 1, 8, 8)
    changed = (net(x, [mask]) != x).any(1, keepdim=True)
    assert torch.equal(changed & (mask == 0), torch.zeros_like(changed))
    assert changed.sum() > 0.9 * mask.sum()


@pytest.mark.parametrize("rate", [0.5, 0.2, 1.0])
def test_cells_are_updated_at_the_update_rate(rate):
    net, x = random_nca(), torch.randn(1, 4, 100, 100)
    net.update_rate = rate
    torch.nn.init.ones_(net.brain[0].bias)
    changed = (net.run(x, 1, torch.Generator().manual_seed(0)) != x).any(1).float().mean().item()
    assert changed == pytest.approx(rate, abs=0.03)


@given(st.integers(-9, 9), st.integers(-9, 9))
@settings(max_examples=10, deadline=None)
def test_a_shift_of_the_torus_shifts_the_result(dy, dx):
    net, x, masks = random_nca(), torch.randn(1, 4, 7, 10), masks_of(5, 1, 1, 7, 10)
    rolled = net(x.roll((dy, dx), (2, 3)), [mask.roll((dy, dx), (2, 3)) for mask in masks])
    torch.testing.assert_close(rolled, net(x, masks).roll((dy, dx), (2, 3)), atol=1e-5, rtol=1e-4)


def test_it_tiles_without_seams():
    net, x, masks = random_nca(), torch.randn(1, 4, 6, 9), masks_of(5, 1, 1, 6, 9)
    tiled = net(x.tile(1, 1, 2, 3), [mask.tile(1, 1, 2, 3) for mask in masks])
    torch.testing.assert_close(tiled, net(x, masks).tile(1, 1, 2, 3), atol=1e-5, rtol=1e-4)


def test_it_runs_in_float32_under_autocast():
    net, x, masks = random_nca(), torch.randn(1, 4, 8, 8), masks_of(5, 1, 1, 8, 8)
    with torch.autocast("cpu", torch.bfloat16):
        found = net(x, masks)
    assert torch.equal(found, net(x, masks))


def test_too_few_channels_are_an_error():
    with pytest.raises(ValueError, match="channels is 2: expected 3 or more"):
        NCA(2, 8)


def test_a_rollout_shows_the_seed_state_and_then_every_so_many_steps():
    net = random_nca()
    images = list(net.rollout((6, 9), frames=3, every=2, seed=5))
    generator, x = torch.Generator().manual_seed(5), net.seed(1, 6, 9)
    assert torch.equal(images[0], torch.full((3, 6, 9), 0.5))
    for image in images[1:]:
        x = net.run(x, 2, generator)
        assert torch.equal(image, to_rgb(x)[0].detach().clamp(0, 1))
