"""The spatial transformer starts with the identity, samples where its numbers say, and learns where to look."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from helpers import Synthetic, quiet_trainer
from zoo.classification.spatial_transformer import (
    IDENTITY,
    SpatialSoftArgmax,
    SpatialTransformer,
    SpatialTransformerLayer,
    SpatialTransformerNet,
)


@pytest.mark.parametrize("transform", ["affine", "attention"])
@pytest.mark.parametrize("localization", ["linear", "argmax"])
@pytest.mark.parametrize("size", [28, 60])
def test_it_starts_with_the_identity(transform, localization, size):
    layer = SpatialTransformerLayer(1, size, transform=transform, localization=localization).eval()
    x = torch.randn(2, 1, size, size)
    torch.testing.assert_close(layer(x), x, atol=1e-4, rtol=1e-4)
    theta, identity = layer.theta(x), torch.eye(2, 3).expand(2, 2, 3)
    torch.testing.assert_close(theta, identity, atol=1e-6, rtol=0)  # the argmax sums over a map
    assert localization == "argmax" or torch.equal(theta, identity)


@pytest.mark.parametrize("transform", ["affine", "attention"])
def test_it_may_start_with_a_window_in_the_middle(transform):
    x = torch.randn(2, 1, 16, 16)
    layer = SpatialTransformerLayer(1, 16, out_size=8, transform=transform, start=0.5).eval()
    torch.testing.assert_close(layer(x), x[..., 4:12, 4:12], atol=1e-5, rtol=1e-5)
    with pytest.raises(ValueError, match="start is 0: expected a scale above 0"):
        SpatialTransformerLayer(1, 16, start=0.0)


@given(st.integers(1, 9), st.integers(1, 9), st.data())
def test_the_soft_argmax_of_a_sharp_peak_is_its_place_and_of_a_flat_map_the_middle(height, width, data):
    row, column = data.draw(st.integers(0, height - 1)), data.draw(st.integers(0, width - 1))
    maps = torch.zeros(1, 2, height, width)
    maps[0, 0, row, column] = 60.0

    x, y = (2 * column + 1) / width - 1, (2 * row + 1) / height - 1
    wanted = torch.tensor([[x, 0.0, y, 0.0]])
    for temperature in (1.0, 0.25):
        found = SpatialSoftArgmax(temperature)(temperature * maps)
        torch.testing.assert_close(found, wanted, atol=1e-5, rtol=1e-5)


def set_numbers(layer: SpatialTransformerLayer, *numbers: float) -> None:
    """Has the layer predict these numbers for each image."""
    with torch.no_grad():
        layer.regression[-1].bias.copy_(torch.tensor(numbers) - torch.tensor(IDENTITY[layer.transform]))


def test_attention_cuts_out_a_window_and_affine_turns_it():
    x = torch.arange(64.0).view(1, 1, 8, 8)
    window = SpatialTransformerLayer(1, 8, out_size=4, transform="attention").eval()
    set_numbers(window, 0.5, 0.25, -0.25)  # half the image, whose middle is a pixel to the right and above
    torch.testing.assert_close(window(x), x[..., 1:5, 3:7])
    turned = SpatialTransformerLayer(1, 8).eval()
    set_numbers(turned, 0.0, -1.0, 0.0, 1.0, 0.0, 0.0)  # x is taken from -y, and y from x
    torch.testing.assert_close(turned(x), x.transpose(2, 3).flip(2))


def test_the_window_moves_to_where_the_first_map_is_largest():
    layer = SpatialTransformerLayer(1, 8, transform="attention", start=0.5, localization="argmax", width=3).eval()
    places = torch.tensor([[0.3, 9.0, 9.0, -0.6, 9.0, 9.0], [-0.2, 9.0, 9.0, 0.1, 9.0, 9.0]])  # x of each map, then y
    layer.localization.forward = lambda x: places
    wanted = torch.tensor([[[0.5, 0.0, 0.3], [0.0, 0.5, -0.6]], [[0.5, 0.0, -0.2], [0.0, 0.5, 0.1]]])
    torch.testing.assert_close(layer.theta(torch.zeros(2, 1, 8, 8)), wanted)


def test_outside_the_image_its_border_is_repeated():
    layer = SpatialTransformerLayer(1, 8, transform="attention").eval()
    set_numbers(layer, 1.0, 10.0, 0.0)
    x = torch.randn(1, 1, 8, 8)
    torch.testing.assert_close(layer(x), x[..., -1:].expand(1, 1, 8, 8))


def test_gradients_of_the_numbers_are_those_of_moving_the_window():
    layer = SpatialTransformerLayer(1, 16, transform="attention").double().eval()
    torch.manual_seed(0)
    x = F.interpolate(torch.randn(1, 1, 5, 5, dtype=torch.float64), 16, mode="bicubic")
    weights = torch.randn(1, 1, 16, 16, dtype=torch.float64)
    set_numbers(layer, 0.8, 0.013, 0.021)

    def score() -> torch.Tensor:
        return (layer(x) * weights).sum()

    (gradient,) = torch.autograd.grad(score(), layer.regression[-1].bias)
    for i in range(3):
        values = []
        for sign in (1, -1):
            with torch.no_grad():
                layer.regression[-1].bias[i] += sign * 1e-4
                values.append(score())
                layer.regression[-1].bias[i] -= sign * 1e-4
        assert gradient[i].item() == pytest.approx(((values[0] - values[1]) / 2e-4).item(), rel=0.02, abs=0.02)


@pytest.mark.parametrize("localization", ["linear", "argmax"])
def test_it_learns_to_look_at_a_blob(localization):
    """A blob is somewhere, and the loss asks for it in the middle of what is passed on."""
    torch.manual_seed(0)
    layer = SpatialTransformerLayer(1, 16, out_size=8, transform="attention", localization=localization)
    optimizer, steps = torch.optim.Adam(layer.parameters(), 5e-3), torch.arange(16) - 7.5
    wanted = torch.exp(-(((torch.arange(8) - 3.5) / 1.5) ** 2))
    losses = []
    for _ in range(120):
        place = 4 * torch.rand(32, 2, 1) - 2
        rows, columns = torch.exp(-(((steps - place) / 3) ** 2)).unbind(1)
        loss = F.mse_loss(
            layer((rows[:, :, None] * columns[:, None])[:, None]), (wanted[:, None] * wanted).expand(32, 1, 8, 8)
        )
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert sum(losses[-5:]) < 0.4 * sum(losses[:5])


def test_the_control_is_the_same_net_without_the_transformer():
    with_it, without = SpatialTransformerNet(image_size=42), SpatialTransformerNet(image_size=42, transformer=False)
    state = {name: value for name, value in with_it.state_dict().items() if not name.startswith("transformer")}
    assert {name: v.shape for name, v in state.items()} == {name: v.shape for name, v in without.state_dict().items()}
    without.load_state_dict(state)
    x = torch.randn(2, 1, 42, 42)
    torch.testing.assert_close(with_it.eval()(x), without.eval()(x), atol=1e-3, rtol=1e-3)  # at first


def test_sizes_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="out_size is 20 and transformer false: expected true, or no out_size"):
        SpatialTransformerNet(transformer=False, out_size=20)
    with pytest.raises(ValueError, match="image_size is 7 and out_size None: expected 8 pixels or more"):
        SpatialTransformerNet(image_size=7)
    with pytest.raises(ValueError, match="image_size is 28, but the images are 42x42 pixels: expected the same"):
        quiet_trainer().validate(SpatialTransformer(), datamodule=Synthetic(image_shape=(1, 42, 42)), verbose=False)
