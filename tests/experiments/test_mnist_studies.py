"""Facts that the studies of digits show."""

import pytest
import torch

from experiments.studies import backprop_by_hand, embeddings, kernels_and_maximization, unrolled_digits


def test_one_step_lowers_the_error_and_all_rates_go_on():
    rows = backprop_by_hand.table()
    assert [row["weight"] for row in rows] == [f"w{i}" for i in range(1, 9)]
    assert max(row["difference"] for row in rows) <= 1e-6
    for row in rows:
        assert row["after"] == pytest.approx(row["before"] - 0.5 * row["gradient"], abs=1e-6)
    curves = {rate: backprop_by_hand.errors(rate, 60) for rate in backprop_by_hand.RATES}
    assert all((curve.diff() < 0).all() for curve in curves.values())
    ends = [curve[-1] for curve in curves.values()]
    assert ends == sorted(ends, reverse=True)


def test_pixels_in_another_order_are_the_same_pixels():
    x = torch.rand(3, 1, 8, 8)
    assert torch.equal(unrolled_digits.shuffled(x).flatten(1).sort(1).values, x.flatten(1).sort(1).values)
    assert not torch.equal(unrolled_digits.shuffled(x), x)


def test_a_fully_connected_net_can_undo_the_order_and_a_net_without_places_cannot_see_it():
    torch.manual_seed(0)
    order = torch.randperm(64, generator=torch.Generator().manual_seed(1))
    net, x = unrolled_digits.fully_connected(), torch.rand(2, 1, 8, 8)
    other = unrolled_digits.fully_connected()
    other.load_state_dict(net.state_dict())
    with torch.no_grad():
        other[1].weight.copy_(net[1].weight[:, order])
    torch.testing.assert_close(other(unrolled_digits.shuffled(x)), net(x))
    blind = unrolled_digits.NETS["pixel by pixel, no place"]().eval()
    torch.testing.assert_close(blind(unrolled_digits.shuffled(x)), blind(x))
    seeing = unrolled_digits.NETS["pixel by pixel, waves"]().eval()
    assert not torch.allclose(seeing(unrolled_digits.shuffled(x)), seeing(x))


def test_waves_tell_all_places_apart():
    places = unrolled_digits.waves()
    assert torch.cdist(places, places).fill_diagonal_(9).min() > 0.5


def test_training_draws_the_images_of_a_class_together():
    found = embeddings.stages(epochs=3)
    rows = {name: embeddings.row(name, *values) for name, values in found.items()}
    assert rows["3 epochs"]["nmi"] > rows["0 epochs"]["nmi"] + 0.2
    assert rows["3 epochs"]["nmi"] > rows["pixels"]["nmi"]


def test_images_that_were_found_excite_a_class_more_than_gray():
    net = kernels_and_maximization.trained(epochs=1)
    found = kernels_and_maximization.found_for_classes(net, steps=10)
    rows = kernels_and_maximization.table(net, found)
    assert all(row["logit, found"] > row["logit, gray"] for row in rows)
