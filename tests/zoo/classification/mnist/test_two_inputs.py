"""Two inputs: the sum depends on both, the digit on the image alone, and both are learned."""

from functools import partial

import pytest
import torch
import torch.nn.functional as F

from cases import NoisePairs
from datamodules.images.digit_pairs import DigitPair
from helpers import quiet_trainer
from zoo.classification.two_inputs import TwoInputs, TwoInputsNet
from zoo.parts.optim.schedules import Constant


def batch(n: int = 6) -> DigitPair:
    draw = torch.Generator().manual_seed(0)
    label, addend = torch.randint(10, (2, n), generator=draw)
    return DigitPair(torch.randn(n, 1, 28, 28, generator=draw), label, addend, label + addend)


def test_the_other_digit_changes_the_sum_and_not_the_digit():
    net, (image, _, addend, _) = TwoInputsNet().eval(), batch()
    digit, total = net(image, addend)
    same_digit, other_total = net(image, (addend + 1) % 10)
    assert torch.equal(digit, same_digit)
    assert not torch.allclose(total, other_total)


def test_the_fusion_is_a_linear_layer_on_features_and_a_one_of_ten():
    net, (image, _, addend, _) = TwoInputsNet().eval(), batch()
    features = net.pool(net.stages(net.stem(image)))
    first, _, last = net.sum_head
    columns = first.weight[:, features.size(1) :].T[addend]  # each digit has its own vector, added to the image's
    hidden = F.linear(features, first.weight[:, : features.size(1)], first.bias) + columns
    torch.testing.assert_close(net(image, addend)[1], last(hidden.relu()))


@pytest.mark.parametrize("sum_weight", [0.0, 0.5])
def test_the_loss_is_that_of_both_and_metrics_are_shares_of_right_ones(sum_weight):
    torch.manual_seed(0)
    data = NoisePairs(val_size=9, batch_size=4, eval_batch_size=4)
    module = TwoInputs(sum_weight=sum_weight)
    (logged,) = quiet_trainer().validate(module, datamodule=data, verbose=False)
    pairs = data.samples_of("val", range(9))
    image = data.normalize(pairs.image / 255)
    digit, total = module.eval()(image, pairs.addend)
    loss = F.cross_entropy(digit, pairs.label) + sum_weight * F.cross_entropy(total, pairs.total)
    right, sum_right = digit.argmax(1) == pairs.label, total.argmax(1) == pairs.total
    expected = {"loss": loss, "acc": right, "sum_acc": sum_right, "both_acc": right & sum_right}
    assert logged == {f"val/{name}": pytest.approx(v.float().mean().item(), abs=1e-5) for name, v in expected.items()}


def test_both_are_right_only_where_each_is(monkeypatch):
    """The digit is right in the first two thirds of nine pairs, the sum in the last two."""
    data = NoisePairs(val_size=9, batch_size=4, eval_batch_size=9)
    data.setup("validate")
    pairs = data.samples_of("val", range(9))

    def answers(right: torch.Tensor, wrong: slice, count: int) -> torch.Tensor:
        guessed = right.clone()
        guessed[wrong] = (guessed[wrong] + 1) % count
        return F.one_hot(guessed, count).float()

    module = TwoInputs()
    logits = answers(pairs.label, slice(6, 9), 10), answers(pairs.total, slice(0, 3), 19)
    monkeypatch.setattr(module, "forward", lambda image, addend: logits)
    (logged,) = quiet_trainer().validate(module, datamodule=data, verbose=False)
    shares = [logged[f"val/{name}"] for name in ("acc", "sum_acc", "both_acc")]
    assert shares == pytest.approx([2 / 3, 2 / 3, 1 / 3])


def test_addition_is_learned_from_examples():
    """With features that are the digit, the second output learns all hundred sums."""
    torch.manual_seed(0)
    head = TwoInputsNet(widths=(8, 10)).sum_head
    pairs = torch.cartesian_prod(torch.arange(10), torch.arange(10))
    inputs = torch.cat([F.one_hot(pairs[:, 0], 10), F.one_hot(pairs[:, 1], 10)], 1).float()
    optimizer = torch.optim.Adam(head.parameters(), 1e-2)
    for _ in range(250):
        optimizer.zero_grad()
        F.cross_entropy(head(inputs), pairs.sum(1)).backward()
        optimizer.step()
    assert (head(inputs).argmax(1) == pairs.sum(1)).all()


def test_mixed_images_are_refused():
    pair = batch()
    module = TwoInputs(optimizer=partial(torch.optim.SGD, lr=0.1), schedule=Constant)
    with pytest.raises(ValueError, match=r"labels are shares of classes \(6, 10\): expected one digit for each image"):
        module.step(pair._replace(label=F.one_hot(pair.label, 10).float()), "train")
